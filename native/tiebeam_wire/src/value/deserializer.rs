//! Bytes to values.

use std::borrow::Cow;

use num_bigint::BigInt;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::Error;
use super::embedded::{ATOM, TERM};
use crate::decode::{Decoder, Head, tag};
use crate::error::DecodeErrorKind;

/// How deep containers may nest. Reading recurses through code of the types that are read, whose frames are larger
/// than those of this crate; other formats draw the line at the same depth.
pub const DEPTH_MAX: usize = 128;

/// Reads values from encoded terms, without a version byte.
#[derive(Debug)]
pub struct Deserializer<'de> {
    decoder: Decoder<'de>,
    depth: usize,
}

impl<'de> Deserializer<'de> {
    /// Reads from where the decoder is, with its atoms.
    pub fn new(decoder: Decoder<'de>) -> Self {
        Self { decoder, depth: 0 }
    }

    /// The decoder, after what was read.
    pub fn into_decoder(self) -> Decoder<'de> {
        self.decoder
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Result<(), Error> {
        Ok(self.decoder.end()?)
    }

    fn head(&mut self) -> Result<Head<'de>, Error> {
        Ok(self.decoder.head()?)
    }

    /// The next head, unread.
    fn peek(&mut self) -> Result<Head<'de>, Error> {
        let at = self.decoder.position();
        let head = self.head();
        self.decoder.rewind(at);
        head
    }

    /// Goes into a container.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            let kind = DecodeErrorKind::Limit {
                what: "nested containers in a typed value",
                limit: DEPTH_MAX,
            };
            return Err(self.decoder.error(kind).into());
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn elements<V: Visitor<'de>>(
        &mut self,
        source: Source<'de>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within(|this| this.all_of(source, visitor))
    }

    /// Reads the elements of a container that this is within already.
    fn all_of<V: Visitor<'de>>(
        &mut self,
        mut source: Source<'de>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = visitor.visit_seq(Elements {
            deserializer: self,
            source: &mut source,
            index: 0,
        })?;
        match source.next(self)? {
            None => Ok(value),
            Some(_) => Err(Error::shape("more elements than expected")),
        }
    }

    fn pairs<V: Visitor<'de>>(
        &mut self,
        source: Source<'de>,
        name: Option<&'static str>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within(|this| {
            let mut pairs = Pairs {
                deserializer: this,
                source,
                name,
                key_at: 0,
            };
            let value = visitor.visit_map(&mut pairs)?;
            // A visitor may stop early; what follows must still be found.
            while de::MapAccess::next_entry::<de::IgnoredAny, de::IgnoredAny>(&mut pairs)?.is_some()
            {
            }
            Ok(value)
        })
    }

    /// Reads a map, or a list of pairs.
    fn map<V: Visitor<'de>>(
        &mut self,
        name: Option<&'static str>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Map(len) => self.pairs(Source::new(len, Kind::Map), name, visitor),
            Head::List(len) => self.pairs(Source::new(len, Kind::List), name, visitor),
            Head::Nil => self.pairs(Source::new(0, Kind::Tuple), name, visitor),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    /// Reads an integer or a float.
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Integer(integer) => match u64::try_from(integer) {
                Ok(integer) => visitor.visit_u64(integer),
                Err(_) => visitor.visit_i64(integer),
            },
            Head::Big(integer) => visit_big(&integer, visitor),
            Head::Float(float) => visitor.visit_f64(float),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    /// Reads the code points of a list.
    fn charlist(&mut self, mut source: Source<'de>) -> Result<String, Error> {
        const EXPECTED: &str = "expected a string, found a list that is not a charlist";
        let mut text = String::new();
        while let Some(item) = source.next(self)? {
            let code = match item {
                Item::Byte(byte) => u32::from(byte),
                Item::Term => match self.head()? {
                    Head::Integer(code) => u32::try_from(code).unwrap_or(u32::MAX),
                    _ => return Err(Error::shape(EXPECTED)),
                },
            };
            text.push(char::from_u32(code).ok_or_else(|| Error::shape(EXPECTED))?);
        }
        Ok(text)
    }

    /// The text of an atom or a binary, as the name of a field or a variant.
    fn name(&mut self) -> Result<Cow<'de, str>, Error> {
        match self.head()? {
            Head::Atom(text) => Ok(text),
            Head::Binary(bytes) => utf8(bytes).map(Cow::Borrowed),
            head => Err(unexpected(&head, &"the name of a field or a variant")),
        }
    }

    /// The key at this offset, for the path of an error.
    fn key_at(&self, at: usize) -> String {
        let mut decoder = self.decoder.clone();
        decoder.rewind(at);
        match decoder.head() {
            Ok(Head::Atom(text)) => text.into_owned(),
            Ok(Head::Binary(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Ok(Head::Integer(integer)) => integer.to_string(),
            _ => "(a key)".into(),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::shape("expected a string, found a binary that is not UTF-8"))
}

fn is_nil(text: &str) -> bool {
    text == "nil" || text == "undefined"
}

/// "invalid type: found X, expected Y".
fn unexpected(head: &Head<'_>, expected: &dyn de::Expected) -> Error {
    let atom;
    let found = match head {
        Head::Integer(integer) => Unexpected::Signed(*integer),
        Head::Big(_) => Unexpected::Other("a large integer"),
        Head::Float(float) => Unexpected::Float(*float),
        Head::Atom(text) => {
            atom = format!("the atom {text}");
            Unexpected::Other(&atom)
        }
        Head::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Unexpected::Str(text),
            Err(_) => Unexpected::Bytes(bytes),
        },
        Head::String(_) | Head::List(_) | Head::Nil => Unexpected::Other("a list"),
        Head::Tuple(_) => Unexpected::Other("a tuple"),
        Head::Map(_) => Unexpected::Map,
        Head::Other(what) => Unexpected::Other(what),
    };
    de::Error::invalid_type(found, expected)
}

fn visit_big<'de, V: Visitor<'de>>(integer: &BigInt, visitor: V) -> Result<V::Value, Error> {
    if let Ok(integer) = u64::try_from(integer) {
        visitor.visit_u64(integer)
    } else if let Ok(integer) = i128::try_from(integer) {
        visitor.visit_i128(integer)
    } else if let Ok(integer) = u128::try_from(integer) {
        visitor.visit_u128(integer)
    } else {
        Err(Error::shape(
            "expected an integer of at most 128 bits, found a larger one",
        ))
    }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek()? {
            Head::Integer(_) | Head::Big(_) | Head::Float(_) => self.number(visitor),
            Head::Atom(text) => match &*text {
                "true" | "false" => self.deserialize_bool(visitor),
                "nil" => self.deserialize_unit(visitor),
                _ => self.deserialize_str(visitor),
            },
            Head::Binary(bytes) if std::str::from_utf8(bytes).is_ok() => {
                self.deserialize_str(visitor)
            }
            Head::Binary(_) => self.deserialize_bytes(visitor),
            Head::String(_) | Head::List(_) | Head::Nil | Head::Tuple(_) => {
                self.deserialize_tuple(0, visitor)
            }
            Head::Map(_) => self.deserialize_map(visitor),
            head @ Head::Other(_) => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Atom(text) if text == "true" => visitor.visit_bool(true),
            Head::Atom(text) if text == "false" => visitor.visit_bool(false),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek()? {
            Head::Integer(code) => {
                self.head()?;
                match u32::try_from(code).ok().and_then(char::from_u32) {
                    Some(c) => visitor.visit_char(c),
                    None => Err(unexpected(&Head::Integer(code), &visitor)),
                }
            }
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Binary(bytes) => visitor.visit_borrowed_str(utf8(bytes)?),
            // An Elixir `nil` is a missing string, not one of three letters.
            Head::Atom(text) if text == "nil" => Err(unexpected(&Head::Atom(text), &visitor)),
            Head::Atom(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Head::Atom(Cow::Owned(text)) => visitor.visit_string(text),
            Head::String(bytes) => visitor.visit_string(self.charlist(Source::string(bytes))?),
            Head::List(len) => visitor.visit_string(self.charlist(Source::new(len, Kind::List))?),
            Head::Nil => visitor.visit_borrowed_str(""),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Binary(bytes) | Head::String(bytes) => visitor.visit_borrowed_bytes(bytes),
            Head::Nil => visitor.visit_borrowed_bytes(&[]),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek()? {
            Head::Atom(text) if is_nil(&text) => {
                self.head()?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Atom(text) if is_nil(&text) || text == "ok" => visitor.visit_unit(),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Atom(text) if text == name => visitor.visit_unit(),
            head => Err(unexpected(&head, &&*format!("the atom {name}"))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            TERM => visitor.visit_bytes(self.decoder.opaque()?.bytes()),
            ATOM => match self.head()? {
                Head::Atom(text) => visitor.visit_str(&text),
                head => Err(unexpected(&head, &visitor)),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::List(len) => self.elements(Source::new(len, Kind::List), visitor),
            Head::String(bytes) | Head::Binary(bytes) => {
                self.elements(Source::string(bytes), visitor)
            }
            Head::Nil => self.elements(Source::string(&[]), visitor),
            head => Err(unexpected(&head, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.peek()? {
            Head::Tuple(arity) => {
                self.head()?;
                self.elements(Source::new(arity, Kind::Tuple), visitor)
            }
            _ => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let declared = fields.contains(&STRUCT);
        self.map(Some(name).filter(|_| !declared), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let is_result = name == "Result" && variants == ["Ok", "Err"];
        let arity = match self.peek()? {
            Head::Atom(_) | Head::Binary(_) => None,
            Head::Tuple(arity @ 1..) => {
                self.head()?;
                Some(arity - 1)
            }
            head => return Err(unexpected(&head, &visitor)),
        };
        let tag = match self.name()? {
            tag if is_result && tag == "ok" => Cow::Borrowed("Ok"),
            tag if is_result && tag == "error" => Cow::Borrowed("Err"),
            tag => tag,
        };
        self.within(|deserializer| {
            visitor.visit_enum(Variant {
                deserializer,
                tag,
                arity,
            })
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.name()? {
            Cow::Borrowed(name) => visitor.visit_borrowed_str(name),
            Cow::Owned(name) => visitor.visit_string(name),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.decoder.skip()?;
        visitor.visit_unit()
    }
}

/// The key under which Elixir keeps the name of a struct.
const STRUCT: &str = "__struct__";

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tuple,
    /// After the elements comes a tail.
    List,
    Map,
}

/// What is left of a container.
struct Source<'de> {
    kind: Kind,
    left: usize,
    /// The elements of a string.
    bytes: &'de [u8],
}

enum Item {
    /// The next element is here.
    Byte(u8),
    /// The next element is next in the bytes.
    Term,
}

impl<'de> Source<'de> {
    fn new(left: usize, kind: Kind) -> Self {
        Self {
            kind,
            left,
            bytes: &[],
        }
    }

    fn string(bytes: &'de [u8]) -> Self {
        Self {
            kind: Kind::Tuple,
            left: 0,
            bytes,
        }
    }

    fn next(&mut self, deserializer: &mut Deserializer<'de>) -> Result<Option<Item>, Error> {
        loop {
            if let Some((byte, rest)) = self.bytes.split_first() {
                self.bytes = rest;
                return Ok(Some(Item::Byte(*byte)));
            }
            if self.left > 0 {
                self.left -= 1;
                return Ok(Some(Item::Term));
            }
            if self.kind != Kind::List {
                return Ok(None);
            }
            match deserializer.head()? {
                Head::Nil => self.kind = Kind::Tuple,
                Head::List(len) => self.left = len,
                Head::String(bytes) => {
                    self.bytes = bytes;
                    self.kind = Kind::Tuple;
                }
                _ => {
                    return Err(Error::shape(
                        "expected a proper list, found an improper one",
                    ));
                }
            }
        }
    }
}

struct Elements<'s, 'de> {
    deserializer: &'s mut Deserializer<'de>,
    source: &'s mut Source<'de>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let value = match self.source.next(self.deserializer)? {
            None => return Ok(None),
            Some(Item::Byte(byte)) => seed.deserialize(Byte(byte)),
            Some(Item::Term) => seed.deserialize(&mut *self.deserializer),
        };
        let index = self.index;
        self.index += 1;
        value.map(Some).map_err(|error| error.in_element(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.source.left + self.source.bytes.len())
    }
}

/// The pairs of a map, or of a list.
struct Pairs<'s, 'de> {
    deserializer: &'s mut Deserializer<'de>,
    source: Source<'de>,
    /// The name of the struct that is read, unless it looks at `__struct__` itself.
    name: Option<&'static str>,
    key_at: usize,
}

impl Pairs<'_, '_> {
    /// Reads the value of `__struct__`, if that is the next key.
    fn skip_struct(&mut self) -> Result<bool, Error> {
        let Some(name) = self.name else {
            return Ok(false);
        };
        match self.deserializer.peek()? {
            Head::Atom(key) if key == STRUCT => self.deserializer.head()?,
            _ => return Ok(false),
        };
        if !name.starts_with("Elixir.") {
            self.deserializer.decoder.skip()?;
            return Ok(true);
        }
        match self.deserializer.head()? {
            Head::Atom(found) if found == name => Ok(true),
            head => Err(unexpected(&head, &&*format!("the atom {name}")).in_key(STRUCT)),
        }
    }
}

impl<'de> de::MapAccess<'de> for Pairs<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        loop {
            match self.source.next(self.deserializer)? {
                None => return Ok(None),
                Some(Item::Term) => {}
                Some(Item::Byte(_)) => return Err(Error::shape(PAIR)),
            }
            if self.source.kind != Kind::Map && !matches!(self.deserializer.head()?, Head::Tuple(2))
            {
                return Err(Error::shape(PAIR));
            }
            self.key_at = self.deserializer.decoder.position();
            if !self.skip_struct()? {
                break;
            }
        }
        seed.deserialize(&mut *self.deserializer).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.deserializer)
            .map_err(|error| error.in_key(self.deserializer.key_at(self.key_at)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.source.left)
    }
}

const PAIR: &str = "expected a map or a list of pairs, found another element in the list";

struct Variant<'s, 'de> {
    deserializer: &'s mut Deserializer<'de>,
    tag: Cow<'de, str>,
    /// How many terms follow the tag in its tuple; `None` for the bare tag.
    arity: Option<usize>,
}

impl Variant<'_, '_> {
    fn expect(&self, arity: usize) -> Result<(), Error> {
        match self.arity {
            Some(found) if found == arity => Ok(()),
            None if arity == 0 => Ok(()),
            found => Err(Error::shape(format!(
                "expected a tuple of {} for the variant {}, found {}",
                arity + 1,
                self.tag,
                match found {
                    None => "the atom alone".into(),
                    Some(found) => format!("a tuple of {}", found + 1),
                }
            ))),
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let tag: de::value::StrDeserializer<'_, Error> = self.tag.as_ref().into_deserializer();
        Ok((seed.deserialize(tag)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.expect(0)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        if self.arity.is_none() && matches!(&*self.tag, "Ok" | "Err") {
            // `ok` alone is `Ok(())`.
            return seed.deserialize(().into_deserializer());
        }
        self.expect(1)?;
        seed.deserialize(&mut *self.deserializer)
            .map_err(|error| error.in_key(self.tag))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.expect(len)?;
        self.deserializer
            .all_of(Source::new(len, Kind::Tuple), visitor)
            .map_err(|error| error.in_key(self.tag))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.expect(1)?;
        self.deserializer
            .map(None, visitor)
            .map_err(|error| error.in_key(self.tag))
    }
}

/// An element of a string: an integer that has no encoding of its own.
struct Byte(u8);

impl<'de> de::Deserializer<'de> for Byte {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(self.0)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_char(char::from(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            TERM => visitor.visit_bytes(&[tag::SMALL_INTEGER, self.0]),
            ATOM => Err(unexpected(&Head::Integer(self.0.into()), &visitor)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
