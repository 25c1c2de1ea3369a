//! Terms as trees: containers that are still being read wait on an explicit stack.

use std::cell::Cell;

use super::{Decoder, tag};
use crate::atom::Atom;
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::term::{Binary, Export, Fun, Improper, Map, Term};

/// How many maps may be keys within keys (within keys); a map beyond is kept as [`Opaque`], which compares by its
/// bytes. Comparing and hashing keys revisits the keys inside them at every level, so without this limit a small
/// packet could keep a processor busy for ages. Nobody nests keys this way.
const NESTED_KEYS_MAX: u8 = 4;

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

impl Decoder<'_> {
    /// Reads one term that is not compressed.
    pub(super) fn plain(&mut self) -> Result<Term, DecodeError> {
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
}

fn integers(bytes: &[u8]) -> impl ExactSizeIterator<Item = Term> {
    bytes.iter().map(|byte| Term::Integer(i64::from(*byte)))
}
