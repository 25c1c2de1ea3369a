//! Values to bytes.

use num_bigint::BigInt;
use serde::ser::{self, Serialize};

use super::Error;
use super::embedded::{ATOM, TERM};
use crate::decode::tag;
use crate::encode::{
    AtomWriter, InlineAtoms, header, write_big, write_binary, write_float, write_integer,
    write_tuple,
};
use crate::{Atom, atom::AtomTooLong};

/// Writes values as encoded terms, without a version byte.
pub struct Serializer<'a, A = InlineAtoms> {
    out: &'a mut Vec<u8>,
    atoms: &'a mut A,
    /// Where the last `()` was written: `Ok(())` is `ok`, not `{ok, nil}`.
    unit_at: Option<usize>,
}

impl<'a, A: AtomWriter> Serializer<'a, A> {
    /// Appends to `out`, and writes atoms by `atoms`.
    pub fn new(out: &'a mut Vec<u8>, atoms: &'a mut A) -> Self {
        Self {
            out,
            atoms,
            unit_at: None,
        }
    }

    fn atom(&mut self, text: &str) -> Result<(), Error> {
        let too_long = |error: AtomTooLong| Error::shape(error.to_string());
        self.atoms
            .write(&Atom::new(text).map_err(too_long)?, self.out);
        Ok(())
    }

    /// Begins a list or a map whose length is set when it ends.
    fn open(&mut self, tag: u8) -> usize {
        let start = self.out.len();
        header(tag, 0, self.out);
        start
    }

    fn set_len(&mut self, start: usize, len: usize) -> Result<(), Error> {
        let len = u32::try_from(len).map_err(|_| Error::shape("more than 2^32 elements"))?;
        self.out[start + 1..start + 5].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    /// `Result` is Erlang's `{ok, Value}`.
    fn variant(name: &str, variant: &'static str) -> &'static str {
        match (name, variant) {
            ("Result", "Ok") => "ok",
            ("Result", "Err") => "error",
            _ => variant,
        }
    }
}

impl<'s, 'a, A: AtomWriter> ser::Serializer for &'s mut Serializer<'a, A> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List<'s, 'a, A>;
    type SerializeTuple = Elements<'s, 'a, A>;
    type SerializeTupleStruct = Elements<'s, 'a, A>;
    type SerializeTupleVariant = Elements<'s, 'a, A>;
    type SerializeMap = Pairs<'s, 'a, A>;
    type SerializeStruct = Pairs<'s, 'a, A>;
    type SerializeStructVariant = Pairs<'s, 'a, A>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.atom(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        write_integer(value, self.out);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Error> {
        match i64::try_from(value) {
            Ok(value) => write_integer(value, self.out),
            Err(_) => write_big(&BigInt::from(value), self.out),
        }
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.serialize_i128(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        match i64::try_from(value) {
            Ok(value) => write_integer(value, self.out),
            Err(_) => write_big(&BigInt::from(value), self.out),
        }
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        if !value.is_finite() {
            return Err(Error::shape(format!("a BEAM has no float {value}")));
        }
        write_float(value, self.out);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        if u32::try_from(value.len()).is_err() {
            return Err(Error::shape("a binary of 4 GiB or more"));
        }
        write_binary(value, self.out);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.atom("nil")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.unit_at = Some(self.out.len());
        self.atom("nil")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Error> {
        self.atom(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.atom(Serializer::<A>::variant(name, variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        match name {
            TERM | ATOM => {
                // What is inside was written as a binary: what it holds is what is meant.
                let start = self.out.len();
                value.serialize(&mut *self)?;
                let content = start + 5;
                if name == TERM {
                    self.out.copy_within(content.., start);
                    self.out.truncate(self.out.len() - 5);
                    return Ok(());
                }
                let atom = Atom::from_utf8(&self.out[content..]);
                self.out.truncate(start);
                let atom = atom.ok_or_else(|| Error::shape("an atom is UTF-8 and not too long"))?;
                self.atoms.write(&atom, self.out);
                Ok(())
            }
            _ => value.serialize(self),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let variant = Serializer::<A>::variant(name, variant);
        let start = self.out.len();
        write_tuple(2, self.out);
        self.atom(variant)?;
        let value_at = self.out.len();
        value.serialize(&mut *self)?;
        if name == "Result" && self.unit_at == Some(value_at) {
            self.out.truncate(start);
            return self.atom(variant);
        }
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<List<'s, 'a, A>, Error> {
        Ok(List {
            start: self.open(tag::LIST),
            serializer: self,
            len: 0,
        })
    }

    fn serialize_tuple(self, len: usize) -> Result<Elements<'s, 'a, A>, Error> {
        write_tuple(len, self.out);
        Ok(Elements(self))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Elements<'s, 'a, A>, Error> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<'s, 'a, A>, Error> {
        write_tuple(len + 1, self.out);
        self.atom(variant)?;
        Ok(Elements(self))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Pairs<'s, 'a, A>, Error> {
        Ok(Pairs {
            start: self.open(tag::MAP),
            serializer: self,
            len: 0,
        })
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Pairs<'s, 'a, A>, Error> {
        let mut pairs = self.serialize_map(None)?;
        if name.starts_with("Elixir.") {
            pairs.serializer.atom("__struct__")?;
            pairs.serializer.atom(name)?;
            pairs.len = 1;
        }
        Ok(pairs)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Pairs<'s, 'a, A>, Error> {
        write_tuple(2, self.out);
        self.atom(variant)?;
        self.serialize_map(None)
    }
}

/// A list that is being written.
pub struct List<'s, 'a, A> {
    serializer: &'s mut Serializer<'a, A>,
    start: usize,
    len: usize,
}

impl<A: AtomWriter> ser::SerializeSeq for List<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let index = self.len;
        self.len += 1;
        value
            .serialize(&mut *self.serializer)
            .map_err(|error| error.in_element(index))
    }

    fn end(self) -> Result<(), Error> {
        let out = &mut *self.serializer.out;
        let elements = self.start + 5;
        if self.len == 0 {
            out.truncate(self.start);
            out.push(tag::NIL);
            return Ok(());
        }
        // A list of bytes is a string, as long as its length fits.
        let is_byte = |element: &[u8]| matches!(element, [tag::SMALL_INTEGER, _]);
        if let Ok(len) = u16::try_from(self.len)
            && out.len() - elements == 2 * self.len
            && out[elements..].chunks_exact(2).all(is_byte)
        {
            let from = self.start + 3;
            out[self.start] = tag::STRING;
            out[self.start + 1..from].copy_from_slice(&len.to_be_bytes());
            for i in 0..self.len {
                out[from + i] = out[elements + 2 * i + 1];
            }
            out.truncate(from + self.len);
            return Ok(());
        }
        out.push(tag::NIL);
        self.serializer.set_len(self.start, self.len)
    }
}

/// A tuple that is being written.
pub struct Elements<'s, 'a, A>(&'s mut Serializer<'a, A>);

impl<A: AtomWriter> ser::SerializeTuple for Elements<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<A: AtomWriter> ser::SerializeTupleStruct for Elements<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<A: AtomWriter> ser::SerializeTupleVariant for Elements<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// A map that is being written.
pub struct Pairs<'s, 'a, A> {
    serializer: &'s mut Serializer<'a, A>,
    start: usize,
    len: usize,
}

impl<A: AtomWriter> Pairs<'_, '_, A> {
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        self.len += 1;
        self.serializer.atom(key)?;
        value
            .serialize(&mut *self.serializer)
            .map_err(|error| error.in_key(key))
    }

    fn finish(self) -> Result<(), Error> {
        self.serializer.set_len(self.start, self.len)
    }
}

impl<A: AtomWriter> ser::SerializeMap for Pairs<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.len += 1;
        key.serialize(&mut *self.serializer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.serializer)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl<A: AtomWriter> ser::SerializeStruct for Pairs<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl<A: AtomWriter> ser::SerializeStructVariant for Pairs<'_, '_, A> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}
