//! Names: terms in the one encoding that all nodes of a cluster compare.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::registry::name::{NameError, check};
use tiebeam_wire::{Atom, InlineAtoms, Term, decode, encode};

/// The version byte, before every name.
const VERSION: u8 = 131;
const SMALL_TUPLE: u8 = 104;
const BINARY: u8 = 109;

/// The name of a process or of a group: an atom, a text, an integer, or a tuple or list of these. At most
/// [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES) when encoded. Cheap to clone.
///
/// A `&str` is an Elixir string, which is not the name that an atom of the same text is. Two names are equal if their terms
/// are.
///
/// ```
/// use tiebeam_node::{Atom, Name};
///
/// assert_eq!(Name::from("cache").to_string(), "<<\"cache\">>");
/// assert_eq!(Name::from(Atom::of("cache")).to_string(), "cache");
/// assert_eq!(Name::from(("shard", 7)).to_string(), "{<<\"shard\">>,7}");
/// assert_ne!(Name::from("cache"), Name::from(Atom::of("cache")));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The name that a term is.
    ///
    /// # Errors
    /// The term holds a float, pid, map or the like, is nested too deep, or is too long.
    pub fn from_term(term: &Term) -> Result<Self, NameError> {
        if holds_float(term) {
            // Not all floats can be encoded, and none is a name: this one stands for all.
            let mut bytes = vec![VERSION];
            encode::write_float(0.0, &mut bytes);
            check(&bytes)?;
        }
        let mut bytes = Vec::with_capacity(64);
        encode::encode(term, &mut bytes);
        check(&bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The term.
    pub fn to_term(&self) -> Term {
        term_of(&self.0)
    }

    /// The text, if it is one: an Elixir string.
    pub fn as_str(&self) -> Option<&str> {
        match &*self.0 {
            // Its length is in four bytes.
            [VERSION, BINARY, _, _, _, _, text @ ..] => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// The term in the external term format, as the core has it.
    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// Bytes of the core: of this node, where they were checked, or of another one.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Whether the cluster takes it: texts may be too long.
    pub(crate) fn check(&self) -> Result<(), NameError> {
        check(&self.0)
    }

    fn write(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        write(&mut bytes);
        Self(bytes.into())
    }

    fn tuple(elements: &[Self]) -> Self {
        Self::write(|bytes| {
            bytes.extend_from_slice(&[SMALL_TUPLE, elements.len() as u8]);
            for element in elements {
                bytes.extend_from_slice(&element.0[1..]);
            }
        })
    }
}

fn holds_float(term: &Term) -> bool {
    match term {
        Term::Float(_) => true,
        Term::Tuple(elements) => elements.iter().any(holds_float),
        Term::List(elements) => elements.iter().any(holds_float),
        Term::Improper(list) => list.elements.iter().any(holds_float) || holds_float(&list.tail),
        Term::Map(map) => map
            .iter()
            .any(|(key, value)| holds_float(key) || holds_float(value)),
        _ => false,
    }
}

/// The term that bytes of another node are; a binary of them if they are none.
pub(super) fn term_of(bytes: &[u8]) -> Term {
    decode::decode(&Bytes::copy_from_slice(bytes)).unwrap_or_else(|_| Term::binary(bytes))
}

impl From<&str> for Name {
    /// A binary, as an Elixir string.
    fn from(text: &str) -> Self {
        Self::write(|bytes| encode::write_binary(text.as_bytes(), bytes))
    }
}
impl From<String> for Name {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}
impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}
impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}
impl From<&Atom> for Name {
    fn from(atom: &Atom) -> Self {
        use tiebeam_wire::AtomWriter;
        Self::write(|bytes| InlineAtoms.write(atom, bytes))
    }
}
impl From<Atom> for Name {
    fn from(atom: Atom) -> Self {
        Self::from(&atom)
    }
}
impl From<i64> for Name {
    fn from(integer: i64) -> Self {
        Self::write(|bytes| encode::write_integer(integer, bytes))
    }
}
impl From<i32> for Name {
    fn from(integer: i32) -> Self {
        Self::from(i64::from(integer))
    }
}
impl From<u32> for Name {
    fn from(integer: u32) -> Self {
        Self::from(i64::from(integer))
    }
}
impl<A: Into<Name>, B: Into<Name>> From<(A, B)> for Name {
    fn from((a, b): (A, B)) -> Self {
        Self::tuple(&[a.into(), b.into()])
    }
}
impl<A: Into<Name>, B: Into<Name>, C: Into<Name>> From<(A, B, C)> for Name {
    fn from((a, b, c): (A, B, C)) -> Self {
        Self::tuple(&[a.into(), b.into(), c.into()])
    }
}
impl TryFrom<Term> for Name {
    type Error = NameError;

    fn try_from(term: Term) -> Result<Self, NameError> {
        Self::from_term(&term)
    }
}

impl fmt::Display for Name {
    /// In Erlang's syntax.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_term().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by OTP 25: `term_to_binary(Name, [{minor_version, 2}])`.
    #[test]
    fn names_are_encoded_as_otp_does() {
        let cases: [(Name, &[u8]); 6] = [
            (Name::from("ca"), &[131, 109, 0, 0, 0, 2, 99, 97]),
            (Name::from(Atom::of("foo")), &[131, 119, 3, 102, 111, 111]),
            (Name::from(255), &[131, 97, 255]),
            (Name::from(1_i64 << 31), &[131, 110, 4, 0, 0, 0, 0, 128]),
            (
                Name::from(("a", 1)),
                &[131, 104, 2, 109, 0, 0, 0, 1, 97, 97, 1],
            ),
            (
                Name::try_from(Term::list([Term::from(1), Term::from(2)])).unwrap(),
                &[131, 107, 0, 2, 1, 2],
            ),
        ];
        for (name, bytes) in cases {
            assert_eq!(&**name.bytes(), bytes);
            assert_eq!(name.check(), Ok(()));
            assert_eq!(Name::from_term(&name.to_term()), Ok(name));
        }
    }

    #[test]
    fn a_text_is_read_back() {
        for text in ["", "ca", "日本"] {
            assert_eq!(Name::from(text).as_str(), Some(text));
        }
        for name in [
            Name::from(Atom::of("ca")),
            Name::from(7),
            Name::from(("a", 1)),
        ] {
            assert_eq!(name.as_str(), None);
        }
    }

    #[test]
    fn terms_that_are_no_names_are_refused_with_the_reason() {
        let cases = [
            (Term::from(1.5), "a float"),
            (Term::tuple([Term::from(f64::NAN)]), "a float"),
            (Term::from(tiebeam_wire::Map::new()), "a map"),
            (Term::binary([255]), "not UTF-8"),
            (Term::from("x".repeat(2000)), "the limit is 1024"),
        ];
        for (term, reason) in cases {
            let error = Name::from_term(&term).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = Name::from("x".repeat(2000))
            .check()
            .unwrap_err()
            .to_string();
        assert!(error.contains("the limit is 1024"), "{error}");
    }
}
