//! Bytes to terms: the *External Term Format* chapter of the ERTS user's guide, read without recursion.
//!
//! Containers that are still being read wait on an explicit stack. What would need more of that stack, or more
//! memory, than [`Limits`] allows is not refused: it is walked, validated, and kept as its bytes ([`Opaque`]), so a
//! peer that sends a very deep or very large term loses neither the term nor its connection.

mod tree;
mod walk;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use num_bigint::{BigInt, Sign};

use crate::atom::{Atom, CHARACTERS_MAX};
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::term::{Binary, BitString, Opaque, Pid, Port, REFERENCE_WORDS_MAX, Reference, Term};

/// What bytes from outside may make a decoder do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How deep containers may nest and still be decoded: walking a term (comparing, printing, dropping) recurses,
    /// and a thread's stack is 2 MiB. What nests deeper is kept as [`Opaque`].
    pub depth: usize,
    /// How many elements the containers decoded from one packet may have in all: an element takes one byte of the
    /// packet but [`size_of::<Term>()`](Term) in memory. Containers beyond are kept as [`Opaque`]. A list of four
    /// million integers passes; the memory behind one packet stays within 128 MiB plus the packet.
    pub terms: usize,
    /// How many bytes the compressed terms of one packet may inflate to (a kilobyte of deflated zeros is a
    /// megabyte), and how many bytes opaque terms may gain where atoms replace references to the packet's header.
    pub inflated: usize,
    /// How many bytes an integer may have and still be decoded: converting and printing it takes quadratic time. A
    /// longer one is kept as [`Opaque`]. Keys of RSA have 1,024 bytes at most.
    pub integer: usize,
}

impl Limits {
    /// For packets from nodes of one's own cluster.
    pub const DEFAULT: Self = Self {
        depth: 512,
        terms: 4 << 20,
        inflated: 64 << 20,
        integer: 64 << 10,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Decodes one term with its version byte, and nothing after it, within the default [`Limits`].
pub fn decode(bytes: &Bytes) -> Result<Term, DecodeError> {
    decode_with(bytes, &Limits::DEFAULT)
}

/// Decodes one term with its version byte, and nothing after it.
pub fn decode_with(bytes: &Bytes, limits: &Limits) -> Result<Term, DecodeError> {
    let mut decoder = Decoder::new(bytes, 0, limits);
    decoder.version()?;
    let term = decoder.term()?;
    decoder.end()?;
    Ok(term)
}

impl Opaque {
    /// Checks that the bytes are one encoded term (a tag and what follows, without the version byte, without
    /// references to a packet's header) and keeps them.
    pub fn new(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(&bytes, 0, &Limits::DEFAULT);
        decoder.skip()?;
        decoder.end()?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Decodes the term within other limits than those that kept it opaque. Native records and node-local terms
    /// stay opaque.
    pub fn decode(&self, limits: &Limits) -> Result<Term, DecodeError> {
        let mut decoder = Decoder::new(self.bytes(), 0, limits);
        let term = decoder.term()?;
        decoder.end()?;
        Ok(term)
    }
}

/// The start of a term: all of a leaf, of a container how many elements follow.
#[derive(Debug)]
pub(crate) enum Head<'a> {
    Integer(i64),
    Big(BigInt),
    Float(f64),
    Atom(Cow<'a, str>),
    Binary(&'a [u8]),
    /// A list of bytes, whole.
    String(&'a [u8]),
    /// So many elements, then the tail.
    List(usize),
    Nil,
    Tuple(usize),
    /// So many pairs.
    Map(usize),
    /// Another term, unread.
    Other(&'static str),
}

/// Reads terms, and the parts that control messages are made of, from a packet.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    data: &'a [u8],
    /// Whom binaries may share `data` with; without it they are copied.
    owner: Option<&'a Bytes>,
    /// The owner, as binaries refer to it, once there is one.
    shared: Option<Arc<Bytes>>,
    at: usize,
    limits: &'a Limits,
    atoms: &'a [Atom],
    /// How many more elements may be decoded: what is left of [`Limits::terms`].
    terms: usize,
    /// How many more bytes may be produced: what is left of [`Limits::inflated`].
    inflated: usize,
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

impl<'a> Decoder<'a> {
    /// Reads from offset `at` of `bytes`. Atom references have nothing to refer to; see [`Decoder::with_atoms`].
    ///
    /// # Panics
    /// When `at` is beyond the end of `bytes`.
    pub fn new(bytes: &'a Bytes, at: usize, limits: &'a Limits) -> Self {
        assert!(at <= bytes.len(), "the offset is beyond the end");
        Self {
            owner: Some(bytes),
            at,
            ..Self::from_slice(bytes, limits)
        }
    }

    /// Reads bytes that it cannot share: long binaries are copied.
    pub fn from_slice(data: &'a [u8], limits: &'a Limits) -> Self {
        Self {
            data,
            owner: None,
            shared: None,
            at: 0,
            limits,
            atoms: &[],
            terms: limits.terms,
            inflated: limits.inflated,
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
        self.data.len() - self.at
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

    /// The next byte, unread.
    pub fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
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
        match self.u8()? {
            tag::SMALL_INTEGER => Ok(i64::from(self.u8()?)),
            tag::INTEGER => Ok(i64::from(self.u32()? as i32)),
            tag @ (tag::SMALL_BIG | tag::LARGE_BIG) => match self.big(tag)? {
                Term::Integer(integer) => Ok(integer),
                _ => Err(DecodeError {
                    kind: Kind::Expected("an integer of 64 bits"),
                    at,
                }),
            },
            _ => self.unexpected("an integer"),
        }
    }

    /// Reads an atom.
    #[inline]
    pub fn atom(&mut self) -> Result<Atom, DecodeError> {
        if let [tag::SMALL_ATOM_UTF8, len, rest @ ..] = &self.data[self.at..]
            && let Some(text) = rest.get(..usize::from(*len))
            && let Some(atom) = Atom::recent(text)
        {
            self.at += 2 + text.len();
            return Ok(atom);
        }
        self.any_atom()
    }

    fn any_atom(&mut self) -> Result<Atom, DecodeError> {
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

    /// Goes back to an offset that was read before.
    pub(crate) fn rewind(&mut self, at: usize) {
        debug_assert!(at <= self.at);
        self.at = at;
    }

    /// Reads the start of a term.
    pub(crate) fn head(&mut self) -> Result<Head<'a>, DecodeError> {
        let start = self.at;
        let tag = self.u8()?;
        let head = match tag {
            tag::SMALL_INTEGER => Head::Integer(i64::from(self.u8()?)),
            tag::INTEGER => Head::Integer(i64::from(self.u32()? as i32)),
            tag::SMALL_BIG | tag::LARGE_BIG => match self.big(tag)? {
                Term::Integer(integer) => Head::Integer(integer),
                Term::Big(integer) => Head::Big(*integer),
                _ => Head::Other("an integer"),
            },
            tag::NEW_FLOAT => Head::Float(self.float()?),
            tag::FLOAT => Head::Float(self.float_text()?),
            tag::BINARY => {
                let len = self.u32()? as usize;
                Head::Binary(self.take(len)?)
            }
            tag::STRING => {
                let len = usize::from(self.u16()?);
                Head::String(self.take(len)?)
            }
            tag::NIL => Head::Nil,
            tag::LIST => Head::List(self.len_of(1)?),
            tag::MAP => Head::Map(self.len_of(2)?),
            tag::LARGE_TUPLE => Head::Tuple(self.len_of(1)?),
            tag::SMALL_TUPLE => {
                let arity = usize::from(self.u8()?);
                self.require(arity)?;
                Head::Tuple(arity)
            }
            tag::SMALL_ATOM
            | tag::ATOM
            | tag::SMALL_ATOM_UTF8
            | tag::ATOM_UTF8
            | tag::ATOM_CACHE_REF => Head::Atom(self.atom_text(tag)?),
            tag => {
                self.at = start;
                Head::Other(match tag {
                    tag::NEW_PID | tag::PID => "a pid",
                    tag::NEW_PORT | tag::PORT | tag::V4_PORT => "a port",
                    tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE => "a reference",
                    tag::NEW_FUN | tag::EXPORT => "a fun",
                    tag::BIT_BINARY => "a bit string",
                    tag::NATIVE_RECORD => "a native record",
                    tag::LOCAL => "a node-local term",
                    tag::COMPRESSED => "a compressed term",
                    _ => return Err(self.error(Kind::Tag(tag))),
                })
            }
        };
        Ok(head)
    }

    /// Reads how many elements follow, each of which takes at least so many bytes.
    fn len_of(&mut self, bytes: usize) -> Result<usize, DecodeError> {
        let len = self.u32()? as usize;
        self.require(len.saturating_mul(bytes))?;
        Ok(len)
    }

    fn unexpected<T>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        self.at -= 1;
        Err(self.error(Kind::Expected(what)))
    }

    /// Reads one term. A compressed term is inflated first, as OTP does at this place only.
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        self.inflated(|inner| inner.plain())
    }

    /// Checks that so many bytes are left.
    fn require(&self, bytes: usize) -> Result<(), DecodeError> {
        if bytes > self.remaining() {
            Err(self.error(Kind::Truncated))
        } else {
            Ok(())
        }
    }

    fn arity(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.integer()?).map_err(|_| self.error(Kind::Range("an arity")))
    }

    pub(crate) fn float(&mut self) -> Result<f64, DecodeError> {
        let float = f64::from_be_bytes(self.array()?);
        self.finite(float)
    }

    pub(crate) fn float_text(&mut self) -> Result<f64, DecodeError> {
        let text = self.take(31)?;
        let float = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.trim_end_matches('\0').parse().ok());
        match float {
            Some(float) => self.finite(float),
            None => Err(self.error(Kind::Float)),
        }
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
            self.long_binary(start..start + len)
        })
    }

    fn long_binary(&mut self, range: Range<usize>) -> Binary {
        match self.owner {
            Some(owner) => {
                let owner = self.shared.get_or_insert_with(|| Arc::new(owner.clone()));
                Binary::part(owner, range)
            }
            None => Binary::copy(&self.data[range]),
        }
    }

    /// Reads the length of a bit string, the number of bits of its last byte, and its bytes.
    fn bits(&mut self) -> Result<(u8, Range<usize>), DecodeError> {
        let len = self.u32()? as usize;
        let bits = self.u8()?;
        let start = self.at;
        self.take(len)?;
        match bits {
            1..=8 if len > 0 => Ok((bits, start..start + len)),
            0 if len == 0 => Ok((8, start..start)),
            _ => Err(self.error(Kind::Range("the number of bits in the last byte"))),
        }
    }

    fn bit_string(&mut self) -> Result<Term, DecodeError> {
        let (bits, range) = self.bits()?;
        let bytes = self.long_binary(range);
        Ok(match BitString::new(bytes, bits) {
            Ok(bits) => Term::BitString(Box::new(bits)),
            Err(binary) => Term::Binary(binary),
        })
    }

    /// Reads the sign and the little-endian magnitude of a large integer.
    fn magnitude(&mut self, tag: u8) -> Result<(Sign, &'a [u8]), DecodeError> {
        let len = match tag {
            tag::SMALL_BIG => usize::from(self.u8()?),
            _ => self.u32()? as usize,
        };
        let sign = match self.u8()? {
            0 => Sign::Plus,
            _ => Sign::Minus,
        };
        Ok((sign, self.take(len)?))
    }

    fn big(&mut self, tag: u8) -> Result<Term, DecodeError> {
        let (sign, magnitude) = self.magnitude(tag)?;
        if magnitude.len() <= 8 {
            let mut word = [0; 8];
            word[..magnitude.len()].copy_from_slice(magnitude);
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
        let numbers: [u8; 8] = self.array()?;
        let [a, b, c, d, e, f, g, h] = numbers;
        let creation = match tag {
            tag::NEW_PID => self.u32()?,
            _ => u32::from(self.u8()?),
        };
        Ok(Pid {
            node,
            id: u32::from_be_bytes([a, b, c, d]),
            serial: u32::from_be_bytes([e, f, g, h]),
            creation,
        })
    }

    fn port_of(&mut self, tag: u8) -> Result<Port, DecodeError> {
        let node = self.atom()?;
        let id = match tag {
            tag::V4_PORT => u64::from_be_bytes(self.array()?),
            _ => u64::from(self.u32()?),
        };
        let creation = match tag {
            tag::PORT => u32::from(self.u8()?),
            _ => self.u32()?,
        };
        Ok(Port { node, id, creation })
    }

    fn reference_words(&mut self) -> Result<usize, DecodeError> {
        let words = usize::from(self.u16()?);
        if (1..=REFERENCE_WORDS_MAX).contains(&words) {
            Ok(words)
        } else {
            Err(self.error(Kind::Range("the number of words of a reference")))
        }
    }

    fn reference_of(&mut self, tag: u8) -> Result<Reference, DecodeError> {
        let len = match tag {
            tag::REFERENCE => 1,
            _ => self.reference_words()?,
        };
        let node = self.atom()?;
        // The oldest kind has its creation after its word.
        let before = match tag {
            tag::NEWER_REFERENCE => self.u32()?,
            tag::NEW_REFERENCE => u32::from(self.u8()?),
            _ => 0,
        };
        let mut words = [0; REFERENCE_WORDS_MAX];
        for (word, bytes) in words.iter_mut().zip(self.take(4 * len)?.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        let creation = match tag {
            tag::REFERENCE => u32::from(self.u8()?),
            _ => before,
        };
        Ok(Reference::with_words(node, creation, words, len as u8))
    }

    /// The length of the atom's text, if it is the tag of an atom that is written out.
    fn atom_len(&mut self, tag: u8) -> Result<Option<usize>, DecodeError> {
        Ok(match tag {
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => Some(usize::from(self.u8()?)),
            tag::ATOM_UTF8 | tag::ATOM => Some(usize::from(self.u16()?)),
            _ => None,
        })
    }

    /// Reads the text of an atom whose tag has been read.
    fn atom_text(&mut self, tag: u8) -> Result<Cow<'a, str>, DecodeError> {
        let start = self.at;
        let error = DecodeError {
            kind: Kind::Atom,
            at: start,
        };
        if tag == tag::ATOM_CACHE_REF {
            let index = self.u8()?;
            return match self.atoms.get(usize::from(index)) {
                Some(atom) => Ok(Cow::Borrowed(atom.as_str())),
                None => Err(self.error(Kind::AtomReference(index))),
            };
        }
        let Some(len) = self.atom_len(tag)? else {
            return Err(error);
        };
        let bytes = self.take(len)?;
        let text = match tag {
            // Latin-1: each byte is the code point.
            tag::SMALL_ATOM | tag::ATOM if !bytes.is_ascii() => {
                Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect())
            }
            _ => Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| error.clone())?),
        };
        if len > CHARACTERS_MAX && text.chars().count() > CHARACTERS_MAX {
            return Err(error);
        }
        Ok(text)
    }

    fn atom_of(&mut self, tag: u8) -> Result<Option<Atom>, DecodeError> {
        let start = self.at;
        if tag == tag::ATOM_CACHE_REF {
            let index = self.u8()?;
            return match self.atoms.get(usize::from(index)) {
                Some(atom) => Ok(Some(atom.clone())),
                None => Err(self.error(Kind::AtomReference(index))),
            };
        }
        let Some(len) = self.atom_len(tag)? else {
            return Ok(None);
        };
        let bytes = self.take(len)?;
        let atom = match tag {
            tag::SMALL_ATOM | tag::ATOM if !bytes.is_ascii() => {
                // Latin-1: each byte is the code point.
                let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                Atom::new(&text).ok()
            }
            _ => Atom::from_utf8(bytes),
        };
        atom.map(Some).ok_or(DecodeError {
            kind: Kind::Atom,
            at: start,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.data[self.at..].get(..len) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(self.error(Kind::Truncated)),
        }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        match self.data.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(*byte)
            }
            None => Err(self.error(Kind::Truncated)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.data[self.at..].first_chunk() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.error(Kind::Truncated)),
        }
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }
}
