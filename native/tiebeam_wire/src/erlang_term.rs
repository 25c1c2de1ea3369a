//! Conversions to and from the terms of the [`erlang-term`](erlang_term) crate, for users who already hold those.
//!
//! The partner is [`RawTerm`], which mirrors the tags of the format. (Its friendlier `Term` guesses: the atoms of a
//! keyword list become binaries.) What either side cannot say is refused, never bent:
//!
//! | refused towards [`RawTerm`] | why |
//! |---|---|
//! | external function, `fun m:f/1` | it has no such term |
//! | port with a number from 2^28 on | it has no `V4_PORT_EXT` |
//! | [`Opaque`](crate::Opaque) | it has no native records, no node-local terms, no undecoded bytes |
//! | more than [`DEPTH_MAX`] levels | converting recurses |
//!
//! | refused towards [`Term`] | why |
//! |---|---|
//! | `Improper` outside the end of a list | there is no such term |
//! | a node or module that is no atom, a fun's pid that is no pid | likewise |
//! | an atom of more than 255 characters, a float that is not finite | a BEAM has none |
//! | a reference without words or with more than five | likewise |
//! | bits beyond 1 to 8 in the last byte of a bit string | likewise |
//! | a map with the same key twice | [`Map`] holds each key once |
//! | more than [`DEPTH_MAX`] levels | converting recurses |
//!
//! Forgotten on the way to [`Term`], as in any decoder: which of several tags said the same (old atoms, old pids, a
//! small number in a large tag). Its codec reads less than it can hold: it panics on bytes from strangers, and does
//! not read atoms of more than 255 bytes. Decode with this crate, then convert.

use std::collections::HashSet;
use std::fmt;

use erlang_term::RawTerm;
use num_bigint::BigInt;

use crate::atom::Atom;
use crate::encode::{InlineAtoms, write_term};
use crate::term::{Binary, BitString, Fun, Map, Pid, Port, REFERENCE_WORDS_MAX, Reference, Term};

/// How many containers may be around a term: the terms of the other crate are large, and so are the frames of what
/// walks them.
pub const DEPTH_MAX: usize = 128;

const TOO_DEEP: &str = "a term of more than 128 levels";

/// A term that the other side has no equal for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionError {
    /// What it is.
    pub what: &'static str,
}

impl fmt::Display for ConversionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be converted", self.what)
    }
}

impl std::error::Error for ConversionError {}

fn refuse<T>(what: &'static str) -> Result<T, ConversionError> {
    Err(ConversionError { what })
}

impl TryFrom<&Term> for RawTerm {
    type Error = ConversionError;

    fn try_from(term: &Term) -> Result<Self, ConversionError> {
        raw_of(term, 0)
    }
}

fn raw_of(term: &Term, depth: usize) -> Result<RawTerm, ConversionError> {
    if depth > DEPTH_MAX {
        return refuse(TOO_DEEP);
    }
    let inner = |term: &Term| raw_of(term, depth + 1);
    let all = |terms: &[Term]| terms.iter().map(inner).collect::<Result<Vec<_>, _>>();
    Ok(match term {
        Term::Integer(integer) => raw_integer(*integer),
        Term::Big(integer) => raw_big(integer),
        Term::Float(float) => RawTerm::Float((*float).into()),
        Term::Atom(atom) => raw_atom(atom),
        Term::Binary(binary) => RawTerm::Binary(binary.to_vec()),
        Term::BitString(bits) => {
            let (last, whole) = bits.bytes.split_last().unwrap_or((&0, &[]));
            RawTerm::BitBinary {
                binary: whole.to_vec(),
                bit: last >> (8 - bits.bits),
                bits: bits.bits,
            }
        }
        Term::Tuple(elements) if elements.len() <= 255 => RawTerm::SmallTuple(all(elements)?),
        Term::Tuple(elements) => RawTerm::LargeTuple(all(elements)?),
        Term::List(elements) if elements.is_empty() => RawTerm::Nil,
        Term::List(elements) => match bytes_of(elements) {
            Some(bytes) => RawTerm::String(bytes),
            None => RawTerm::List(all(elements)?),
        },
        Term::Improper(list) => {
            let mut elements = all(&list.elements)?;
            elements.push(RawTerm::Improper(Box::new(inner(&list.tail)?)));
            RawTerm::List(elements)
        }
        Term::Map(map) => RawTerm::Map(
            map.iter()
                .map(|(key, value)| Ok((inner(key)?, inner(value)?)))
                .collect::<Result<_, ConversionError>>()?,
        ),
        Term::Pid(pid) => raw_pid(pid),
        Term::Port(port) => match u32::try_from(port.id) {
            Ok(id) if id < 1 << 28 => RawTerm::NewPort {
                node: Box::new(raw_atom(&port.node)),
                id,
                creation: port.creation,
            },
            _ => return refuse("a port with a number of more than 28 bits"),
        },
        Term::Reference(reference) => RawTerm::NewerRef {
            node: Box::new(raw_atom(reference.node())),
            id: reference.words().to_vec(),
            creation: reference.creation(),
        },
        Term::Fun(fun) => {
            let mut bytes = Vec::new();
            write_term(term, &mut bytes, &mut InlineAtoms);
            RawTerm::Function {
                // All but the tag.
                size: (bytes.len() - 1) as u32,
                arity: fun.arity,
                uniq: fun.uniq,
                index: fun.index,
                module: Box::new(raw_atom(&fun.module)),
                old_index: Box::new(inner(&fun.old_index)?),
                old_uniq: Box::new(inner(&fun.old_uniq)?),
                pid: Box::new(raw_pid(&fun.pid)),
                free_var: all(&fun.free)?,
            }
        }
        Term::Export(_) => return refuse("an external function"),
        Term::Opaque(_) => return refuse("an opaque term"),
    })
}

fn raw_integer(integer: i64) -> RawTerm {
    if let Ok(byte) = u8::try_from(integer) {
        RawTerm::SmallInt(byte)
    } else if let Ok(word) = i32::try_from(integer) {
        RawTerm::Int(word)
    } else {
        RawTerm::SmallBigInt(integer.into())
    }
}

fn raw_big(integer: &BigInt) -> RawTerm {
    // The other crate has another release of `num-bigint`; decimal digits are what both understand.
    let digits = integer.to_string();
    let is_small = integer.bits() <= 255 * 8;
    let raw = if is_small {
        digits.parse().map(RawTerm::SmallBigInt)
    } else {
        digits.parse().map(RawTerm::LargeBigInt)
    };
    raw.unwrap_or(RawTerm::SmallInt(0))
}

fn raw_atom(atom: &Atom) -> RawTerm {
    match atom.as_str() {
        text if text.len() <= 255 => RawTerm::SmallAtom(text.into()),
        text => RawTerm::Atom(text.into()),
    }
}

fn raw_pid(pid: &Pid) -> RawTerm {
    RawTerm::NewPid {
        node: Box::new(raw_atom(&pid.node)),
        id: pid.id,
        serial: pid.serial,
        creation: pid.creation,
    }
}

/// The bytes of a list that OTP writes as a string.
fn bytes_of(elements: &[Term]) -> Option<Vec<u8>> {
    if elements.len() > usize::from(u16::MAX) {
        return None;
    }
    let byte = |element: &Term| element.as_integer().and_then(|i| u8::try_from(i).ok());
    elements.iter().map(byte).collect()
}

impl TryFrom<&RawTerm> for Term {
    type Error = ConversionError;

    fn try_from(raw: &RawTerm) -> Result<Self, ConversionError> {
        term_of(raw, 0)
    }
}

fn term_of(raw: &RawTerm, depth: usize) -> Result<Term, ConversionError> {
    if depth > DEPTH_MAX {
        return refuse(TOO_DEEP);
    }
    let inner = |raw: &RawTerm| term_of(raw, depth + 1);
    let all = |raws: &[RawTerm]| raws.iter().map(inner).collect::<Result<Vec<_>, _>>();
    Ok(match raw {
        RawTerm::SmallInt(byte) => Term::Integer(i64::from(*byte)),
        RawTerm::Int(word) => Term::Integer(i64::from(*word)),
        RawTerm::SmallBigInt(integer) | RawTerm::LargeBigInt(integer) => {
            BigInt::from_signed_bytes_le(&integer.to_signed_bytes_le()).into()
        }
        RawTerm::Float(float) if float.is_finite() => Term::Float(**float),
        RawTerm::Float(_) => return refuse("a float that is not finite"),
        RawTerm::Atom(_)
        | RawTerm::SmallAtom(_)
        | RawTerm::AtomDeprecated(_)
        | RawTerm::SmallAtomDeprecated(_) => Term::Atom(atom_of(raw)?),
        RawTerm::Binary(bytes) => Term::binary(bytes),
        RawTerm::BitBinary { binary, bit, bits } => {
            if !(1..=8).contains(bits) {
                return refuse("a bit string whose last byte has no bits or more than 8");
            }
            let mut bytes = binary.clone();
            bytes.push(bit << (8 - bits));
            match BitString::new(Binary::from(bytes), *bits) {
                Ok(bits) => Term::BitString(Box::new(bits)),
                Err(binary) => Term::Binary(binary),
            }
        }
        RawTerm::SmallTuple(elements) | RawTerm::LargeTuple(elements) => {
            Term::Tuple(all(elements)?)
        }
        RawTerm::Nil => Term::List(Vec::new()),
        RawTerm::String(bytes) => {
            Term::List(bytes.iter().map(|b| Term::Integer(i64::from(*b))).collect())
        }
        RawTerm::List(elements) => match elements.split_last() {
            Some((RawTerm::Improper(tail), elements)) => Term::cons(all(elements)?, inner(tail)?),
            _ => Term::List(all(elements)?),
        },
        RawTerm::Improper(_) => return refuse("a tail that does not end a list"),
        RawTerm::Map(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| Ok((inner(key)?, inner(value)?)))
                .collect::<Result<Vec<_>, _>>()?;
            let keys: HashSet<&Term> = pairs.iter().map(|(key, _)| key).collect();
            if keys.len() < pairs.len() {
                return refuse("a map with the same key twice");
            }
            Term::Map(Map::from_iter(pairs))
        }
        RawTerm::Pid { .. } | RawTerm::NewPid { .. } => Term::Pid(pid_of(raw)?),
        RawTerm::Port { node, id, creation } => Term::Port(Port {
            node: atom_of(node)?,
            id: u64::from(*id),
            creation: u32::from(*creation),
        }),
        RawTerm::NewPort { node, id, creation } => Term::Port(Port {
            node: atom_of(node)?,
            id: u64::from(*id),
            creation: *creation,
        }),
        RawTerm::Ref { node, id, creation } => reference_of(node, u32::from(*creation), id)?,
        RawTerm::NewerRef { node, id, creation } => reference_of(node, *creation, id)?,
        RawTerm::Function {
            size: _,
            arity,
            uniq,
            index,
            module,
            old_index,
            old_uniq,
            pid,
            free_var,
        } => Term::Fun(Box::new(Fun {
            arity: *arity,
            uniq: *uniq,
            index: *index,
            module: atom_of(module)?,
            old_index: inner(old_index)?,
            old_uniq: inner(old_uniq)?,
            pid: pid_of(pid)?,
            free: all(free_var)?,
        })),
    })
}

fn atom_of(raw: &RawTerm) -> Result<Atom, ConversionError> {
    match raw {
        RawTerm::Atom(text)
        | RawTerm::SmallAtom(text)
        | RawTerm::AtomDeprecated(text)
        | RawTerm::SmallAtomDeprecated(text) => {
            Atom::new(text).or_else(|_| refuse("an atom of more than 255 characters"))
        }
        _ => refuse("a node or module that is not an atom"),
    }
}

fn pid_of(raw: &RawTerm) -> Result<Pid, ConversionError> {
    let (node, id, serial, creation) = match raw {
        RawTerm::Pid {
            node,
            id,
            serial,
            creation,
        } => (node, id, serial, u32::from(*creation)),
        RawTerm::NewPid {
            node,
            id,
            serial,
            creation,
        } => (node, id, serial, *creation),
        _ => return refuse("a fun whose pid is not a pid"),
    };
    Ok(Pid {
        node: atom_of(node)?,
        id: *id,
        serial: *serial,
        creation,
    })
}

fn reference_of(node: &RawTerm, creation: u32, words: &[u32]) -> Result<Term, ConversionError> {
    if (1..=REFERENCE_WORDS_MAX).contains(&words.len()) {
        Ok(Term::Reference(Reference::new(
            atom_of(node)?,
            creation,
            words,
        )))
    } else {
        refuse("a reference without words or with more than five")
    }
}
