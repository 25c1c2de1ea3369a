//! Bytes to terms: the *External Term Format* chapter of the ERTS user's guide, read without recursion.
//!
//! Containers that are still being read wait on an explicit stack. What would need more of that stack, or more
//! memory, than [`Limits`] allows is not refused: it is walked, validated, and kept as its bytes ([`Opaque`]), so a
//! peer that sends a very deep or very large term loses neither the term nor its connection.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use num_bigint::{BigInt, Sign};

use crate::atom::{Atom, CHARACTERS_MAX};
use crate::encode::{AtomWriter, InlineAtoms};
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::term::{
    Binary, BitString, Export, Fun, Improper, Map, Opaque, Pid, Port, REFERENCE_WORDS_MAX,
    Reference, Term,
};

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

/// How many maps may be keys within keys (within keys); a map beyond is kept as [`Opaque`], which compares by its
/// bytes. Comparing and hashing keys revisits the keys inside them at every level, so without this limit a small
/// packet could keep a processor busy for ages. Nobody nests keys this way.
const NESTED_KEYS_MAX: u8 = 4;

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

/// A container whose elements are still being read.
struct Frame {
    kind: Container,
    /// The elements so far; of a map, keys and values in turn.
    items: Vec<Term>,
    /// How many elements are missing, without the tail of a list.
    missing: usize,
    /// How many maps this container is inside a key of.
    keys: u8,
}

enum Container {
    Tuple,
    /// A list whose tail is still unknown.
    List,
    /// A list whose tail is not a list: the last element is that tail.
    Improper,
    Map,
    Fun(Box<Fun>),
}

impl Frame {
    #[inline(always)]
    fn new(kind: Container, len: usize, keys: u8) -> Self {
        Self {
            kind,
            items: Vec::with_capacity(len),
            missing: len,
            keys,
        }
    }

    /// How many more terms must follow, at one byte each.
    fn required(&self) -> usize {
        self.missing + usize::from(matches!(self.kind, Container::List))
    }

    /// How many maps the next element is inside a key of.
    fn keys_of_next(&self) -> u8 {
        let is_key = matches!(self.kind, Container::Map) && self.items.len().is_multiple_of(2);
        self.keys + u8::from(is_key)
    }
}

enum Step {
    Value(Term),
    Open(Frame),
}

enum Tail {
    /// The list is proper, and complete.
    Nil,
    /// The list is complete.
    Leaf(Term),
    /// The list goes on.
    Unread,
}

/// A list with this tail, which is no list; `[|tail]` is the tail.
fn improper(elements: Vec<Term>, tail: Term) -> Term {
    if elements.is_empty() {
        tail
    } else {
        Term::Improper(Box::new(Improper { elements, tail }))
    }
}

thread_local! {
    /// The stack of the last decoder, empty but with its room: at most [`Limits::depth`] frames.
    static STACK: Cell<Vec<Frame>> = const { Cell::new(Vec::new()) };
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

    /// Reads something, inflated first if it is compressed.
    fn inflated<T>(
        &mut self,
        read: impl for<'b> FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if self.peek() != Some(tag::COMPRESSED) {
            return read(self);
        }
        let start = self.at;
        let bytes = self.inflate()?;
        let mut inner = Decoder {
            atoms: self.atoms,
            terms: self.terms,
            inflated: self.inflated,
            ..Decoder::new(&bytes, 0, self.limits)
        };
        let value = read(&mut inner)
            .and_then(|value| inner.end().map(|()| value))
            // Offsets inside the inflated bytes mean nothing to whoever reads the error.
            .map_err(|error| DecodeError { at: start, ..error })?;
        (self.terms, self.inflated) = (inner.terms, inner.inflated);
        Ok(value)
    }

    /// Reads one term that is not compressed.
    fn plain(&mut self) -> Result<Term, DecodeError> {
        let mut frame = match self.common_container(0, 0, 0) {
            Some((kind, len)) => Frame::new(kind, len, 0),
            None => match self.step(0, 0, 0)? {
                Step::Value(value) => return Ok(value),
                Step::Open(frame) => frame,
            },
        };
        let mut parents = STACK.take();
        // Elements that the containers on the stack still wait for. Each takes at least one byte, so a packet can
        // announce no more than it carries, however its containers nest.
        let mut waiting = 0usize;
        loop {
            while frame.missing > 0 {
                if let Some(tag::SMALL_INTEGER | tag::INTEGER) = self.peek() {
                    self.integer_run(&mut frame)?;
                    continue;
                }
                frame.missing -= 1;
                if self.common_leaf(&mut frame.items).is_some() {
                    continue;
                }
                let required = waiting + frame.required();
                let depth = parents.len() + 1;
                let keys = frame.keys_of_next();
                if let Some((kind, len)) = self.common_container(depth, required, keys) {
                    waiting = required;
                    let inner = Frame::new(kind, len, keys);
                    parents.push(std::mem::replace(&mut frame, inner));
                    continue;
                }
                let inner = match self.peek() {
                    Some(tag::NEW_PID) => {
                        frame.items.push(Term::Pid(self.pid()?));
                        continue;
                    }
                    Some(tag::NEWER_REFERENCE) => {
                        frame.items.push(Term::Reference(self.reference()?));
                        continue;
                    }
                    _ => match self.step(depth, required, keys)? {
                        Step::Value(value) => {
                            frame.items.push(value);
                            continue;
                        }
                        Step::Open(inner) => inner,
                    },
                };
                waiting = required;
                parents.push(std::mem::replace(&mut frame, inner));
            }
            let value = match frame.kind {
                Container::List => match self.tail(&mut frame, waiting)? {
                    Tail::Nil => Term::List(frame.items),
                    Tail::Leaf(tail) => improper(frame.items, tail),
                    Tail::Unread => continue,
                },
                Container::Tuple => Term::Tuple(frame.items),
                Container::Improper => match frame.items.pop() {
                    Some(tail) => improper(frame.items, tail),
                    None => Term::List(frame.items),
                },
                Container::Map => {
                    let map = Map(frame.items);
                    if !map.has_distinct_keys() {
                        return Err(self.error(Kind::DuplicateKey));
                    }
                    Term::Map(map)
                }
                Container::Fun(mut fun) => {
                    fun.free = frame.items;
                    Term::Fun(fun)
                }
            };
            match parents.pop() {
                None => {
                    STACK.set(parents);
                    return Ok(value);
                }
                Some(parent) => {
                    frame = parent;
                    waiting -= frame.required();
                    frame.items.push(value);
                }
            }
        }
    }

    /// Reads the tail of a list whose elements are all there, or tells the frame what to wait for. A tail that is a
    /// list again goes on in the same frame: a chain of tails is neither deep nor copied link by link.
    fn tail(&mut self, frame: &mut Frame, waiting: usize) -> Result<Tail, DecodeError> {
        let start = self.at;
        let tag = self.u8()?;
        match tag {
            tag::NIL => return Ok(Tail::Nil),
            tag::STRING => {
                let len = usize::from(self.u16()?);
                if len <= self.terms {
                    self.terms -= len;
                    let bytes = self.take(len)?;
                    frame.items.extend(integers(bytes));
                    return Ok(Tail::Nil);
                }
            }
            tag::LIST => {
                let len = self.u32()? as usize;
                if len <= self.terms {
                    self.terms -= len;
                    self.require(waiting.saturating_add(len).saturating_add(1))?;
                    frame.items.reserve(len);
                    frame.missing = len;
                    return Ok(Tail::Unread);
                }
            }
            tag::SMALL_TUPLE
            | tag::LARGE_TUPLE
            | tag::MAP
            | tag::NEW_FUN
            | tag::LARGE_BIG
            | tag::NATIVE_RECORD
            | tag::LOCAL => {}
            // The `[alias|Ref]` of a call.
            tag::NEWER_REFERENCE => {
                return Ok(Tail::Leaf(Term::Reference(self.reference_of(tag)?)));
            }
            _ => return self.leaf(tag).map(Tail::Leaf),
        }
        self.at = start;
        frame.kind = Container::Improper;
        frame.missing = 1;
        Ok(Tail::Unread)
    }

    /// Checks that so many bytes are left.
    fn require(&self, bytes: usize) -> Result<(), DecodeError> {
        if bytes > self.remaining() {
            Err(self.error(Kind::Truncated))
        } else {
            Ok(())
        }
    }

    /// Reads a leaf or the header of a container. `depth` counts the containers around it, `waiting` the terms that
    /// must follow it, and `keys` the maps that it is inside a key of.
    fn step(&mut self, depth: usize, waiting: usize, keys: u8) -> Result<Step, DecodeError> {
        let start = self.at;
        let tag = self.u8()?;
        let (kind, len) = match tag {
            tag::SMALL_TUPLE => (Container::Tuple, usize::from(self.u8()?)),
            tag::LARGE_TUPLE => (Container::Tuple, self.u32()? as usize),
            tag::LIST => (Container::List, self.u32()? as usize),
            tag::MAP => (Container::Map, (self.u32()? as usize).saturating_mul(2)),
            tag::NEW_FUN => {
                let (fun, free) = self.fun()?;
                (Container::Fun(Box::new(fun)), free)
            }
            tag::STRING => {
                let len = usize::from(self.u16()?);
                let bytes = self.take(len)?;
                if len > self.terms {
                    return self.keep(start);
                }
                self.terms -= len;
                return Ok(Step::Value(Term::List(integers(bytes).collect())));
            }
            tag::NATIVE_RECORD | tag::LOCAL => return self.keep(start),
            tag::LARGE_BIG if self.peek_len()? > self.limits.integer => {
                return self.keep(start);
            }
            _ => return self.leaf(tag).map(Step::Value),
        };
        if len == 0 && !matches!(kind, Container::List) {
            return Ok(Step::Value(match kind {
                Container::Map => Term::Map(Map::new()),
                Container::Fun(fun) => Term::Fun(fun),
                _ => Term::Tuple(Vec::new()),
            }));
        }
        let is_deep_key = matches!(kind, Container::Map) && keys >= NESTED_KEYS_MAX;
        if depth >= self.limits.depth || len > self.terms || is_deep_key {
            return self.keep(start);
        }
        self.terms -= len;
        let tail = usize::from(matches!(kind, Container::List));
        self.require(waiting.saturating_add(len).saturating_add(tail))?;
        Ok(Step::Open(Frame::new(kind, len, keys)))
    }

    /// The length that is next, unread.
    fn peek_len(&mut self) -> Result<usize, DecodeError> {
        let len = self.u32()? as usize;
        self.at -= 4;
        Ok(len)
    }

    /// Keeps the term that starts at this offset as its bytes.
    fn keep(&mut self, start: usize) -> Result<Step, DecodeError> {
        self.at = start;
        self.opaque()
            .map(|opaque| Step::Value(Term::Opaque(opaque)))
    }

    /// Reads an integer of at most 32 bits, which is next, and those that follow it.
    ///
    /// In a function of its own: merged into the loop over all kinds, each integer would pass through memory.
    #[inline(never)]
    fn integer_run(&mut self, frame: &mut Frame) -> Result<(), DecodeError> {
        let start = &self.data[self.at..];
        let mut rest = start;
        while frame.missing > 0 {
            let integer;
            (integer, rest) = match rest {
                [tag::SMALL_INTEGER, byte, rest @ ..] => (i64::from(*byte), rest),
                [tag::INTEGER, a, b, c, d, rest @ ..] => {
                    (i64::from(i32::from_be_bytes([*a, *b, *c, *d])), rest)
                }
                _ => break,
            };
            frame.items.push(Term::Integer(integer));
            frame.missing -= 1;
        }
        self.at += start.len() - rest.len();
        match rest.len() {
            same if same == start.len() => Err(self.error(Kind::Truncated)),
            _ => Ok(()),
        }
    }

    /// Reads a leaf of a kind that messages are mostly made of, if one is next and is whole. Anything else, and
    /// whatever is wrong, is left to [`Decoder::step`].
    ///
    /// Each kind is pushed where it is made: a term that is made in one place and pushed in another passes through
    /// memory, which costs more than all the rest.
    #[inline(always)]
    fn common_leaf(&mut self, items: &mut Vec<Term>) -> Option<()> {
        let data = self.data;
        match &data[self.at..] {
            [tag::SMALL_ATOM_UTF8, len, rest @ ..] => {
                let len = usize::from(*len);
                items.push(Term::Atom(Atom::recent(rest.get(..len)?)?));
                self.at += 2 + len;
            }
            [tag::ATOM_CACHE_REF, index, ..] => {
                let atom = self.atoms.get(usize::from(*index))?;
                items.push(Term::Atom(atom.clone()));
                self.at += 2;
            }
            [tag::BINARY, 0, 0, 0, len, rest @ ..] => {
                let len = usize::from(*len);
                let binary = Binary::start_of(rest.first_chunk()?, len)?;
                items.push(Term::Binary(binary));
                self.at += 5 + len;
            }
            [tag::NEW_FLOAT, rest @ ..] => {
                let float = f64::from_be_bytes(*rest.first_chunk()?);
                if !float.is_finite() {
                    return None;
                }
                items.push(Term::Float(float));
                self.at += 9;
            }
            [tag::NIL, ..] => {
                items.push(Term::List(Vec::new()));
                self.at += 1;
            }
            _ => return None,
        }
        Some(())
    }

    /// Reads the header of a container that messages are mostly made of, if one is next and within the limits.
    /// What exceeds them is left to [`Decoder::step`], as are maps inside keys.
    #[inline(always)]
    fn common_container(
        &mut self,
        depth: usize,
        waiting: usize,
        keys: u8,
    ) -> Option<(Container, usize)> {
        let (header, kind, len, tail) = match &self.data[self.at..] {
            [tag::SMALL_TUPLE, arity, ..] => (2, Container::Tuple, usize::from(*arity), 0),
            [tag::LIST, a, b, c, d, ..] => {
                let len = u32::from_be_bytes([*a, *b, *c, *d]);
                (5, Container::List, len as usize, 1)
            }
            [tag::MAP, a, b, c, d, ..] if keys == 0 => {
                let len = u32::from_be_bytes([*a, *b, *c, *d]);
                (5, Container::Map, (len as usize).saturating_mul(2), 0)
            }
            _ => return None,
        };
        let left = self.data.len() - self.at - header;
        let fits = waiting.saturating_add(len).saturating_add(tail) <= left;
        if !fits || depth >= self.limits.depth || len > self.terms {
            return None;
        }
        self.terms -= len;
        self.at += header;
        Some((kind, len))
    }

    fn leaf(&mut self, tag: u8) -> Result<Term, DecodeError> {
        Ok(match tag {
            tag::SMALL_INTEGER => Term::Integer(i64::from(self.u8()?)),
            tag::INTEGER => Term::Integer(i64::from(self.u32()? as i32)),
            tag::NIL => Term::List(Vec::new()),
            tag::BINARY => Term::Binary(self.binary()?),
            tag::BIT_BINARY => self.bit_string()?,
            tag::NEW_FLOAT => Term::Float(self.float()?),
            tag::FLOAT => Term::Float(self.float_text()?),
            tag::SMALL_BIG | tag::LARGE_BIG => self.big(tag)?,
            tag::NEW_PID | tag::PID => Term::Pid(self.pid_of(tag)?),
            tag::NEW_PORT | tag::PORT | tag::V4_PORT => Term::Port(self.port_of(tag)?),
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE => {
                Term::Reference(self.reference_of(tag)?)
            }
            tag::EXPORT => {
                let module = self.atom()?;
                let function = self.atom()?;
                let arity = self.arity()?;
                Term::Export(Box::new(Export {
                    module,
                    function,
                    arity,
                }))
            }
            _ => match self.atom_of(tag)? {
                Some(atom) => Term::Atom(atom),
                None => {
                    self.at -= 1;
                    return Err(self.error(Kind::Tag(tag)));
                }
            },
        })
    }

    fn arity(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.integer()?).map_err(|_| self.error(Kind::Range("an arity")))
    }

    /// Reads a fun up to its free variables, and how many of these follow.
    fn fun(&mut self) -> Result<(Fun, usize), DecodeError> {
        // OTP does not compare the size with what follows either.
        let _size = self.u32()?;
        let arity = self.u8()?;
        let uniq = self.array()?;
        let index = self.u32()?;
        let free = self.u32()? as usize;
        let fun = Fun {
            arity,
            uniq,
            index,
            module: self.atom()?,
            old_index: Term::Integer(self.integer()?),
            old_uniq: Term::Integer(self.integer()?),
            pid: self.pid()?,
            free: Vec::new(),
        };
        Ok((fun, free))
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

    /// Reads one term and keeps its bytes; see [`Opaque`].
    pub fn opaque(&mut self) -> Result<Opaque, DecodeError> {
        self.inflated(|inner| inner.plain_opaque())
    }

    fn plain_opaque(&mut self) -> Result<Opaque, DecodeError> {
        let start = self.at;
        let refers_to_header = self.walk(None)?;
        let bytes = if refers_to_header {
            let end = self.at;
            self.at = start;
            let mut out = Vec::with_capacity(end - start);
            self.walk(Some(&mut out))?;
            Bytes::from(out)
        } else {
            match self.owner {
                Some(owner) => owner.slice(start..self.at),
                None => Bytes::copy_from_slice(&self.data[start..self.at]),
            }
        };
        Ok(Opaque(Arc::new(bytes)))
    }

    /// Reads one term, checks its form, and drops it: no term is built, no atom interned.
    ///
    /// Everything is checked but that the keys of a map differ.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.inflated(|inner| inner.walk(None).map(drop))
    }

    /// Walks over one term; if told so, appends it to `out` with atoms in place of references to the packet's
    /// header. Returns whether there are such references.
    fn walk(&mut self, out: Option<&mut Vec<u8>>) -> Result<bool, DecodeError> {
        let mut walk = Walk {
            out,
            copied: self.at,
            refers_to_header: false,
            is_local: false,
        };
        // How many terms follow. A single count replaces a stack: only funs, which state their size, need one.
        let mut waiting = 1usize;
        let mut funs: Vec<OpenFun> = Vec::new();
        while waiting > 0 {
            waiting -= 1;
            let start = self.at;
            let tag = self.u8()?;
            let inner = match tag {
                tag::SMALL_TUPLE => usize::from(self.u8()?),
                tag::LARGE_TUPLE => self.u32()? as usize,
                tag::LIST => (self.u32()? as usize).saturating_add(1),
                tag::MAP => (self.u32()? as usize).saturating_mul(2),
                tag::NEW_FUN => {
                    if let Some(out) = &mut walk.out {
                        out.extend_from_slice(&self.data[walk.copied..self.at]);
                        walk.copied = self.at;
                        funs.push(OpenFun {
                            size_at: out.len(),
                            waiting,
                        });
                    }
                    self.take(4 + 1 + 16 + 4)?;
                    let free = self.u32()? as usize;
                    self.walk_atom(&mut walk)?;
                    self.integer()?;
                    self.integer()?;
                    match self.u8()? {
                        tag @ (tag::NEW_PID | tag::PID) => self.walk_identifier(tag, &mut walk)?,
                        _ => return self.unexpected("a pid"),
                    }
                    free
                }
                tag::NATIVE_RECORD => {
                    let fields = self.u32()? as usize;
                    self.u8()?;
                    // The record's module and name, and the names of its fields.
                    self.require(fields)?;
                    for _ in 0..fields + 2 {
                        self.walk_atom(&mut walk)?;
                    }
                    fields
                }
                tag::LOCAL => {
                    // Inside, the local node's name is [].
                    walk.is_local = true;
                    self.take(4)?;
                    1
                }
                tag::NIL => 0,
                tag::SMALL_INTEGER => self.take(1).map(|_| 0)?,
                tag::INTEGER => self.take(4).map(|_| 0)?,
                tag::STRING => {
                    let len = usize::from(self.u16()?);
                    self.take(len).map(|_| 0)?
                }
                tag::BINARY => {
                    let len = self.u32()? as usize;
                    self.take(len).map(|_| 0)?
                }
                tag::BIT_BINARY => self.bits().map(|_| 0)?,
                tag::NEW_FLOAT => self.float().map(|_| 0)?,
                tag::FLOAT => self.float_text().map(|_| 0)?,
                tag::SMALL_BIG | tag::LARGE_BIG => self.magnitude(tag).map(|_| 0)?,
                tag::NEW_PID
                | tag::PID
                | tag::NEW_PORT
                | tag::PORT
                | tag::V4_PORT
                | tag::NEWER_REFERENCE
                | tag::NEW_REFERENCE
                | tag::REFERENCE => self.walk_identifier(tag, &mut walk).map(|()| 0)?,
                tag::EXPORT => {
                    self.walk_atom(&mut walk)?;
                    self.walk_atom(&mut walk)?;
                    self.arity().map(|_| 0)?
                }
                _ => {
                    self.at = start;
                    if !self.try_walk_atom(&mut walk)? {
                        return Err(self.error(Kind::Tag(tag)));
                    }
                    0
                }
            };
            waiting = waiting.saturating_add(inner);
            self.require(waiting)?;
            while let Some(fun) = funs.pop_if(|fun| fun.waiting == waiting) {
                if let Some(out) = &mut walk.out {
                    out.extend_from_slice(&self.data[walk.copied..self.at]);
                    walk.copied = self.at;
                    let size = (out.len() - fun.size_at) as u32;
                    out[fun.size_at..fun.size_at + 4].copy_from_slice(&size.to_be_bytes());
                }
            }
        }
        if let Some(out) = walk.out {
            out.extend_from_slice(&self.data[walk.copied..self.at]);
        }
        Ok(walk.refers_to_header)
    }

    /// Walks over what follows the tag of a pid, port or reference.
    fn walk_identifier(&mut self, tag: u8, walk: &mut Walk<'_>) -> Result<(), DecodeError> {
        let words = match tag {
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE => self.reference_words()?,
            _ => 1,
        };
        if walk.is_local && self.peek() == Some(tag::NIL) {
            self.at += 1;
        } else {
            self.walk_atom(walk)?;
        }
        let rest = match tag {
            tag::NEW_PID => 4 + 4 + 4,
            tag::PID => 4 + 4 + 1,
            tag::V4_PORT => 8 + 4,
            tag::NEW_PORT => 4 + 4,
            tag::PORT | tag::REFERENCE => 4 + 1,
            tag::NEW_REFERENCE => 1 + 4 * words,
            _ => 4 + 4 * words,
        };
        self.take(rest).map(drop)
    }

    fn walk_atom(&mut self, walk: &mut Walk<'_>) -> Result<(), DecodeError> {
        if self.try_walk_atom(walk)? {
            Ok(())
        } else {
            Err(self.error(Kind::Expected("an atom")))
        }
    }

    /// Walks over an atom, if one is next.
    fn try_walk_atom(&mut self, walk: &mut Walk<'_>) -> Result<bool, DecodeError> {
        let start = self.at;
        let tag = self.u8()?;
        if tag == tag::ATOM_CACHE_REF {
            let index = self.u8()?;
            let Some(atom) = self.atoms.get(usize::from(index)) else {
                return Err(self.error(Kind::AtomReference(index)));
            };
            walk.refers_to_header = true;
            if let Some(out) = &mut walk.out {
                out.extend_from_slice(&self.data[walk.copied..start]);
                walk.copied = self.at;
                // One reference of two bytes may stand for a kilobyte.
                let before = out.len();
                InlineAtoms.write(atom, out);
                self.inflated = self
                    .inflated
                    .checked_sub(out.len() - before)
                    .ok_or_else(|| self.error(self.inflated_limit()))?;
            }
            return Ok(true);
        }
        if !matches!(
            tag,
            tag::SMALL_ATOM | tag::ATOM | tag::SMALL_ATOM_UTF8 | tag::ATOM_UTF8
        ) {
            self.at = start;
            return Ok(false);
        }
        self.atom_text(tag)?;
        Ok(true)
    }

    fn inflated_limit(&self) -> Kind {
        Kind::Limit {
            what: "bytes inflated from one packet",
            limit: self.limits.inflated,
        }
    }

    /// Inflates a compressed term to the bytes that it declares.
    fn inflate(&mut self) -> Result<Bytes, DecodeError> {
        /// The most that deflate shrinks anything: what a small input cannot fill is not allocated.
        const RATIO_MAX: usize = 1032;
        let start = self.at;
        let broken = DecodeError {
            kind: Kind::Compression,
            at: start,
        };
        self.at += 1;
        let declared = self.u32()? as usize;
        self.inflated = self.inflated.checked_sub(declared).ok_or(DecodeError {
            kind: self.inflated_limit(),
            at: start,
        })?;
        let deflated = &self.data[self.at..];
        if declared > deflated.len().saturating_mul(RATIO_MAX) {
            return Err(broken);
        }
        // One byte more than declared shows that there is more.
        let mut out = Vec::with_capacity(declared + 1);
        let mut stream = Decompress::new(true);
        loop {
            let before = (stream.total_in(), stream.total_out());
            let input = &deflated[before.0 as usize..];
            let status = stream.decompress_vec(input, &mut out, FlushDecompress::Finish);
            match status {
                Ok(Status::StreamEnd) if out.len() == declared => break,
                Ok(Status::Ok | Status::BufError)
                    if out.len() <= declared
                        && before != (stream.total_in(), stream.total_out()) => {}
                _ => return Err(broken),
            }
        }
        self.at += stream.total_in() as usize;
        Ok(Bytes::from(out))
    }
}

/// What a walk over a term has seen and written.
struct Walk<'o> {
    out: Option<&'o mut Vec<u8>>,
    /// The bytes before this offset are in `out`.
    copied: usize,
    refers_to_header: bool,
    /// Whether the walk is inside a node-local term.
    is_local: bool,
}

/// A fun that is being copied.
struct OpenFun {
    /// Where in the output its size stands.
    size_at: usize,
    /// It is complete when so many terms are left.
    waiting: usize,
}

fn integers(bytes: &[u8]) -> impl ExactSizeIterator<Item = Term> {
    bytes.iter().map(|byte| Term::Integer(i64::from(*byte)))
}
