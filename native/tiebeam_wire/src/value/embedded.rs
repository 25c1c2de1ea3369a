//! Terms and their parts as fields of serde types.
//!
//! Serde's data model has no atoms, pids or references. They pass through it as newtype structs with names that no
//! other type has: this crate's serializer and deserializer know them, others see a string or bytes.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::decode::{Decoder, Limits};
use crate::encode::{InlineAtoms, write_term};
use crate::{Atom, Binary, Map, Pid, Port, Reference, Term};

/// A newtype struct of this name holds the bytes of a term, without the version byte.
pub(super) const TERM: &str = "$tiebeam::Term";
/// A newtype struct of this name holds the text of an atom.
pub(super) const ATOM: &str = "$tiebeam::Atom";

struct RawBytes<'a>(&'a [u8]);

impl Serialize for RawBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Serialize for Term {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let mut bytes = Vec::new();
        write_term(self, &mut bytes, &mut InlineAtoms);
        serializer.serialize_newtype_struct(TERM, &RawBytes(&bytes))
    }
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(TermVisitor)
        } else {
            deserializer.deserialize_newtype_struct(TERM, TermVisitor)
        }
    }
}

struct TermVisitor;

impl<'de> Visitor<'de> for TermVisitor {
    type Value = Term;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a term")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Term, E> {
        let limits = Limits::default();
        let mut decoder = Decoder::from_slice(bytes, &limits);
        let term = decoder.term().map_err(E::custom)?;
        decoder.end().map_err(E::custom)?;
        Ok(term)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Term, E> {
        Term::parse(text).map_err(E::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Term, D::Error> {
        inner.deserialize_bytes(self)
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ATOM, self.as_str())
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ATOM, AtomVisitor)
    }
}

struct AtomVisitor;

impl<'de> Visitor<'de> for AtomVisitor {
    type Value = Atom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an atom")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Atom, E> {
        Atom::new(text).map_err(E::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Atom, D::Error> {
        inner.deserialize_str(self)
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BinaryVisitor)
    }
}

struct BinaryVisitor;

impl Visitor<'_> for BinaryVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
        Ok(Binary::copy(bytes))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Binary, E> {
        Ok(Binary::from(bytes))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Binary, E> {
        Ok(Binary::from(text))
    }
}

/// A part of a term is serialized as the term that it is.
macro_rules! part {
    ($type:ident, $what:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Term::$type(self.clone()).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Term::deserialize(deserializer)? {
                    Term::$type(part) => Ok(part),
                    other => Err(de::Error::invalid_type(
                        Unexpected::Other(&other.to_string()),
                        &$what,
                    )),
                }
            }
        }
    };
}

part!(Pid, "a pid");
part!(Port, "a port");
part!(Reference, "a reference");
part!(Map, "a map");
