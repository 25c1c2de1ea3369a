//! Bytes to terms: the *External Term Format* chapter of the ERTS user's guide, read without recursion.

use bytes::{Buf, Bytes};
use num_bigint::{BigInt, Sign};

use crate::atom::Atom;
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::term::{
    Binary, BitString, Export, Fun, Improper, Map, Pid, Port, REFERENCE_WORDS_MAX, Reference, Term,
};

/// What bytes from outside may make a decoder do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How deep a term may nest and still be decoded: walking it (comparing, printing, dropping) recurses, and a
    /// thread's stack is 2 MiB.
    pub depth: usize,
    /// How many bytes a compressed term may inflate to: a kilobyte of deflated zeros is a megabyte.
    pub inflated: usize,
    /// How many bytes an integer may have. Arithmetic on it is quadratic; OTP's own limit is 8 MiB, nobody sends it.
    pub integer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 512,
            inflated: 64 << 20,
            integer: 1 << 20,
        }
    }
}

/// Decodes one term with its version byte, and nothing after it.
pub fn decode(bytes: &Bytes) -> Result<Term, DecodeError> {
    let limits = Limits::default();
    let mut decoder = Decoder::new(bytes, 0, &limits);
    decoder.version()?;
    let term = decoder.term()?;
    decoder.end()?;
    Ok(term)
}

/// Reads terms, and the parts that control messages are made of, from a packet.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a Bytes,
    at: usize,
    limits: &'a Limits,
    atoms: &'a [Atom],
}

/// Tags of the external term format.
pub(crate) mod tag {
    #![allow(missing_docs)]
    pub(crate) const VERSION: u8 = 131;
    pub(crate) const NATIVE_RECORD: u8 = 67;
    pub(crate) const NEW_FLOAT: u8 = 70;
    pub(crate) const BIT_BINARY: u8 = 77;
    pub(crate) const COMPRESSED: u8 = 80;
    pub(crate) const ATOM_CACHE_REF: u8 = 82;
    pub(crate) const NEW_PID: u8 = 88;
    pub(crate) const NEW_PORT: u8 = 89;
    pub(crate) const NEWER_REFERENCE: u8 = 90;
    pub(crate) const SMALL_INTEGER: u8 = 97;
    pub(crate) const INTEGER: u8 = 98;
    pub(crate) const FLOAT: u8 = 99;
    pub(crate) const ATOM: u8 = 100;
    pub(crate) const REFERENCE: u8 = 101;
    pub(crate) const PORT: u8 = 102;
    pub(crate) const PID: u8 = 103;
    pub(crate) const SMALL_TUPLE: u8 = 104;
    pub(crate) const LARGE_TUPLE: u8 = 105;
    pub(crate) const NIL: u8 = 106;
    pub(crate) const STRING: u8 = 107;
    pub(crate) const LIST: u8 = 108;
    pub(crate) const BINARY: u8 = 109;
    pub(crate) const SMALL_BIG: u8 = 110;
    pub(crate) const LARGE_BIG: u8 = 111;
    pub(crate) const NEW_FUN: u8 = 112;
    pub(crate) const EXPORT: u8 = 113;
    pub(crate) const NEW_REFERENCE: u8 = 114;
    pub(crate) const SMALL_ATOM: u8 = 115;
    pub(crate) const MAP: u8 = 116;
    pub(crate) const ATOM_UTF8: u8 = 118;
    pub(crate) const SMALL_ATOM_UTF8: u8 = 119;
    pub(crate) const V4_PORT: u8 = 120;
    pub(crate) const LOCAL: u8 = 121;
}

/// A container whose elements are still being read.
enum Open {
    Tuple(Vec<Term>, usize),
    List(Vec<Term>, usize),
    Map(Vec<(Term, Term)>, Option<Term>, usize),
    Fun(Box<Fun>, usize),
}

impl Open {
    /// Adds an element; gives the container once it has all of them.
    fn add(&mut self, value: Term) -> Option<Term> {
        use std::mem::take;
        match self {
            Self::Tuple(items, missing) => {
                items.push(value);
                *missing -= 1;
                (*missing == 0).then(|| Term::Tuple(take(items)))
            }
            Self::List(items, missing) if *missing > 1 => {
                items.push(value);
                *missing -= 1;
                None
            }
            // The last one is the tail.
            Self::List(items, _) => {
                let mut items = take(items);
                Some(match value {
                    Term::List(tail) => {
                        items.extend(tail);
                        Term::List(items)
                    }
                    Term::Improper(tail) => {
                        items.extend(tail.elements);
                        Term::Improper(Box::new(Improper {
                            elements: items,
                            tail: tail.tail,
                        }))
                    }
                    tail if items.is_empty() => tail,
                    tail => Term::Improper(Box::new(Improper {
                        elements: items,
                        tail,
                    })),
                })
            }
            Self::Map(pairs, key, missing) => {
                match key.take() {
                    None => *key = Some(value),
                    Some(key) => pairs.push((key, value)),
                }
                *missing -= 1;
                (*missing == 0).then(|| Term::Map(Map(take(pairs))))
            }
            Self::Fun(fun, missing) => {
                fun.free.push(value);
                *missing -= 1;
                (*missing == 0).then(|| Term::Fun(fun.clone()))
            }
        }
    }
}

enum Step {
    Value(Term),
    Open(Open),
}

impl<'a> Decoder<'a> {
    /// Reads from offset `at` of `bytes`. Atom references have nothing to refer to; see [`Decoder::with_atoms`].
    pub fn new(bytes: &'a Bytes, at: usize, limits: &'a Limits) -> Self {
        Self {
            bytes,
            at,
            limits,
            atoms: &[],
        }
    }

    /// Resolves atom references by the atoms of the packet's header, in the header's order.
    pub fn with_atoms(mut self, atoms: &'a [Atom]) -> Self {
        self.atoms = atoms;
        self
    }

    /// The offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(self.error(Kind::Trailing { bytes })),
        }
    }

    /// An error at the current offset.
    pub fn error(&self, kind: Kind) -> DecodeError {
        DecodeError { kind, at: self.at }
    }

    /// Reads the version byte 131.
    pub fn version(&mut self) -> Result<(), DecodeError> {
        match self.u8()? {
            tag::VERSION => Ok(()),
            byte => {
                self.at -= 1;
                Err(self.error(Kind::Version(byte)))
            }
        }
    }

    /// Reads the header of a tuple and returns its arity.
    pub fn tuple(&mut self) -> Result<usize, DecodeError> {
        match self.u8()? {
            tag::SMALL_TUPLE => Ok(usize::from(self.u8()?)),
            tag::LARGE_TUPLE => Ok(self.u32()? as usize),
            _ => self.unexpected("a tuple"),
        }
    }

    /// Reads an integer of 64 bits.
    pub fn integer(&mut self) -> Result<i64, DecodeError> {
        let at = self.at;
        match self.term()? {
            Term::Integer(integer) => Ok(integer),
            _ => Err(DecodeError {
                kind: Kind::Expected("an integer"),
                at,
            }),
        }
    }

    /// Reads an atom.
    pub fn atom(&mut self) -> Result<Atom, DecodeError> {
        let tag = self.u8()?;
        match self.atom_of(tag)? {
            Some(atom) => Ok(atom),
            None => self.unexpected("an atom"),
        }
    }

    /// Reads a pid.
    pub fn pid(&mut self) -> Result<Pid, DecodeError> {
        match self.u8()? {
            tag @ (tag::NEW_PID | tag::PID) => self.pid_of(tag),
            _ => self.unexpected("a pid"),
        }
    }

    /// Reads a reference.
    pub fn reference(&mut self) -> Result<Reference, DecodeError> {
        match self.u8()? {
            tag @ (tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE) => {
                self.reference_of(tag)
            }
            _ => self.unexpected("a reference"),
        }
    }

    fn unexpected<T>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        self.at -= 1;
        Err(self.error(Kind::Expected(what)))
    }

    /// Reads one term.
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        let mut stack: Vec<Open> = Vec::new();
        // Elements announced but not yet read. Each takes at least one byte, so a packet can announce no more than
        // it carries, however its containers nest.
        let mut announced = 0usize;
        loop {
            let mut value = match self.step(&mut announced)? {
                Step::Value(value) => value,
                Step::Open(open) => {
                    if stack.len() >= self.limits.depth {
                        return Err(self.error(Kind::Limit {
                            what: "nested containers",
                            limit: self.limits.depth,
                        }));
                    }
                    stack.push(open);
                    continue;
                }
            };
            loop {
                let Some(open) = stack.last_mut() else {
                    return Ok(value);
                };
                announced -= 1;
                let Some(complete) = open.add(value) else {
                    break;
                };
                if let Term::Map(map) = &complete {
                    self.distinct(&map.0)?;
                }
                value = complete;
                stack.pop();
            }
        }
    }

    fn distinct(&self, pairs: &[(Term, Term)]) -> Result<(), DecodeError> {
        const FEW: usize = 8;
        let distinct = if pairs.len() <= FEW {
            pairs
                .iter()
                .enumerate()
                .all(|(i, (key, _))| pairs[..i].iter().all(|(other, _)| other != key))
        } else {
            let mut seen = std::collections::HashSet::with_capacity(pairs.len());
            pairs.iter().all(|(key, _)| seen.insert(key))
        };
        if distinct {
            Ok(())
        } else {
            Err(self.error(Kind::DuplicateKey))
        }
    }

    fn announce(&self, announced: &mut usize, count: usize) -> Result<(), DecodeError> {
        *announced = announced.saturating_add(count);
        if *announced > self.remaining() {
            Err(self.error(Kind::Truncated))
        } else {
            Ok(())
        }
    }

    fn step(&mut self, announced: &mut usize) -> Result<Step, DecodeError> {
        let tag = self.u8()?;
        let value = match tag {
            tag::SMALL_INTEGER => Term::Integer(i64::from(self.u8()?)),
            tag::INTEGER => Term::Integer(i64::from(self.u32()? as i32)),
            tag::SMALL_TUPLE | tag::LARGE_TUPLE => {
                let arity = if tag == tag::SMALL_TUPLE {
                    usize::from(self.u8()?)
                } else {
                    self.u32()? as usize
                };
                if arity == 0 {
                    Term::Tuple(Vec::new())
                } else {
                    self.announce(announced, arity)?;
                    return Ok(Step::Open(Open::Tuple(Vec::with_capacity(arity), arity)));
                }
            }
            tag::NIL => Term::List(Vec::new()),
            tag::STRING => {
                let len = usize::from(self.u16()?);
                let bytes = self.take(len)?;
                Term::List(
                    bytes
                        .iter()
                        .map(|byte| Term::Integer(i64::from(*byte)))
                        .collect(),
                )
            }
            tag::LIST => {
                let len = self.u32()? as usize;
                self.announce(announced, len.saturating_add(1))?;
                return Ok(Step::Open(Open::List(Vec::with_capacity(len), len + 1)));
            }
            tag::BINARY => Term::Binary(self.binary()?),
            tag::BIT_BINARY => self.bit_string()?,
            tag::MAP => {
                let len = self.u32()? as usize;
                if len == 0 {
                    Term::Map(Map::new())
                } else {
                    self.announce(announced, len.saturating_mul(2))?;
                    return Ok(Step::Open(Open::Map(
                        Vec::with_capacity(len),
                        None,
                        len * 2,
                    )));
                }
            }
            tag::NEW_FLOAT => {
                let bytes = self.take(8)?;
                let float = f64::from_be_bytes(bytes.try_into().unwrap_or_default());
                Term::Float(self.finite(float)?)
            }
            tag::FLOAT => {
                let text = self.take(31)?;
                let float = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.trim_end_matches('\0').parse().ok());
                match float {
                    Some(float) => Term::Float(self.finite(float)?),
                    None => return Err(self.error(Kind::Float)),
                }
            }
            tag::SMALL_BIG | tag::LARGE_BIG => self.big(tag)?,
            tag::NEW_PID | tag::PID => Term::Pid(self.pid_of(tag)?),
            tag::NEW_PORT | tag::PORT | tag::V4_PORT => {
                let node = self.atom()?;
                let id = match tag {
                    tag::V4_PORT => u64::from(self.u32()?) << 32 | u64::from(self.u32()?),
                    _ => u64::from(self.u32()?),
                };
                let creation = if tag == tag::PORT {
                    u32::from(self.u8()?)
                } else {
                    self.u32()?
                };
                Term::Port(Port { node, id, creation })
            }
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE => {
                Term::Reference(self.reference_of(tag)?)
            }
            tag::EXPORT => {
                let module = self.atom()?;
                let function = self.atom()?;
                let arity = u32::try_from(self.integer()?)
                    .map_err(|_| self.error(Kind::Range("an arity")))?;
                Term::Export(Box::new(Export {
                    module,
                    function,
                    arity,
                }))
            }
            tag::NEW_FUN => {
                let _size = self.u32()?;
                let arity = self.u8()?;
                let uniq = self.take(16)?.try_into().unwrap_or_default();
                let index = self.u32()?;
                let free = self.u32()? as usize;
                let module = self.atom()?;
                let old_index = Term::Integer(self.integer()?);
                let old_uniq = Term::Integer(self.integer()?);
                let pid = self.pid()?;
                let mut fun = Box::new(Fun {
                    arity,
                    uniq,
                    index,
                    module,
                    old_index,
                    old_uniq,
                    pid,
                    free: Vec::new(),
                });
                if free == 0 {
                    Term::Fun(fun)
                } else {
                    self.announce(announced, free)?;
                    fun.free.reserve_exact(free);
                    return Ok(Step::Open(Open::Fun(fun, free)));
                }
            }
            _ => match self.atom_of(tag)? {
                Some(atom) => Term::Atom(atom),
                None => {
                    self.at -= 1;
                    return Err(self.error(Kind::Tag(tag)));
                }
            },
        };
        Ok(Step::Value(value))
    }

    fn finite(&self, float: f64) -> Result<f64, DecodeError> {
        if float.is_finite() {
            Ok(float)
        } else {
            Err(self.error(Kind::Float))
        }
    }

    fn binary(&mut self) -> Result<Binary, DecodeError> {
        let len = self.u32()? as usize;
        let start = self.at;
        let slice = self.take(len)?;
        Ok(if len <= crate::term::INLINE_MAX {
            Binary::copy(slice)
        } else {
            Binary::new(self.bytes.slice(start..start + len))
        })
    }

    fn bit_string(&mut self) -> Result<Term, DecodeError> {
        let len = self.u32()? as usize;
        let bits = self.u8()?;
        let start = self.at;
        let slice = self.take(len)?;
        match bits {
            8 => Ok(Term::Binary(Binary::new(
                self.bytes.slice(start..start + len),
            ))),
            1..=7 if len > 0 => {
                let mut bytes = slice.to_vec();
                bytes[len - 1] &= 0xff << (8 - bits);
                Ok(Term::BitString(Box::new(BitString {
                    bytes: bytes.into(),
                    bits,
                })))
            }
            0 if len == 0 => Ok(Term::Binary(Binary::copy(&[]))),
            _ => Err(self.error(Kind::Range("the number of bits in the last byte"))),
        }
    }

    fn big(&mut self, tag: u8) -> Result<Term, DecodeError> {
        let len = if tag == tag::SMALL_BIG {
            usize::from(self.u8()?)
        } else {
            self.u32()? as usize
        };
        if len > self.limits.integer {
            return Err(self.error(Kind::Limit {
                what: "bytes in an integer",
                limit: self.limits.integer,
            }));
        }
        let sign = match self.u8()? {
            0 => Sign::Plus,
            _ => Sign::Minus,
        };
        let magnitude = self.take(len)?;
        if len <= 8 {
            let mut word = [0; 8];
            word[..len].copy_from_slice(magnitude);
            let word = i128::from(u64::from_le_bytes(word));
            let signed = if sign == Sign::Minus { -word } else { word };
            if let Ok(integer) = i64::try_from(signed) {
                return Ok(Term::Integer(integer));
            }
        }
        Ok(Term::from(BigInt::from_bytes_le(sign, magnitude)))
    }

    fn pid_of(&mut self, tag: u8) -> Result<Pid, DecodeError> {
        let node = self.atom()?;
        let id = self.u32()?;
        let serial = self.u32()?;
        let creation = if tag == tag::NEW_PID {
            self.u32()?
        } else {
            u32::from(self.u8()?)
        };
        Ok(Pid {
            node,
            id,
            serial,
            creation,
        })
    }

    fn reference_of(&mut self, tag: u8) -> Result<Reference, DecodeError> {
        let len = if tag == tag::REFERENCE {
            1
        } else {
            usize::from(self.u16()?)
        };
        if !(1..=REFERENCE_WORDS_MAX).contains(&len) {
            return Err(self.error(Kind::Range("the number of words of a reference")));
        }
        let node = self.atom()?;
        let mut words = [0; REFERENCE_WORDS_MAX];
        if tag == tag::REFERENCE {
            words[0] = self.u32()?;
            return Ok(Reference::new(node, u32::from(self.u8()?), &words[..1]));
        }
        let creation = if tag == tag::NEWER_REFERENCE {
            self.u32()?
        } else {
            u32::from(self.u8()?)
        };
        for word in &mut words[..len] {
            *word = self.u32()?;
        }
        Ok(Reference::new(node, creation, &words[..len]))
    }

    fn atom_of(&mut self, tag: u8) -> Result<Option<Atom>, DecodeError> {
        let start = self.at;
        let len = match tag {
            tag::ATOM_CACHE_REF => {
                let index = self.u8()?;
                return match self.atoms.get(usize::from(index)) {
                    Some(atom) => Ok(Some(atom.clone())),
                    None => Err(self.error(Kind::AtomReference(index))),
                };
            }
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => usize::from(self.u8()?),
            tag::ATOM_UTF8 | tag::ATOM => usize::from(self.u16()?),
            _ => return Ok(None),
        };
        let bytes = self.take(len)?;
        let atom = match tag {
            // Latin-1: each byte is the code point.
            tag::SMALL_ATOM | tag::ATOM if !bytes.is_ascii() => Atom::new(
                &bytes
                    .iter()
                    .map(|byte| char::from(*byte))
                    .collect::<String>(),
            )
            .ok(),
            _ => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| Atom::new(text).ok()),
        };
        atom.map(Some).ok_or(DecodeError {
            kind: Kind::Atom,
            at: start,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes[self.at..].get(..len) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(self.error(Kind::Truncated)),
        }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        match self.bytes.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(*byte)
            }
            None => Err(self.error(Kind::Truncated)),
        }
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(self.take(2)?.get_u16())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.take(4)?.get_u32())
    }
}
