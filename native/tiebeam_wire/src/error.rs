//! What can be wrong with a peer's bytes, and where.

use std::fmt;

/// Bytes that are not what they claim to be. The connection that carried them cannot be resynchronised: close it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The offset of the offending byte, from the start of the bytes given to the decoder.
    pub at: usize,
}

/// The kinds of wrong bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end before the value does.
    Truncated,
    /// Bytes follow a complete value where none may.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The first byte is not the version byte 131.
    Version(u8),
    /// A tag that this format does not have, or that may not appear here.
    Tag(u8),
    /// An atom that is not UTF-8, or has more than 255 characters.
    Atom,
    /// A reference to an atom that the packet's header does not define.
    AtomReference(u8),
    /// A length, count or number outside the range that its field allows.
    Range(&'static str),
    /// A float that is infinite or not a number.
    Float,
    /// A map with the same key twice.
    DuplicateKey,
    /// More than a limit of [`Limits`](crate::Limits) allows.
    Limit {
        /// Which limit.
        what: &'static str,
        /// Its value.
        limit: usize,
    },
    /// A compressed term that does not inflate to what it declares.
    Compression,
    /// A different shape was expected here.
    Expected(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DecodeErrorKind::Truncated => write!(f, "the bytes end inside a value")?,
            DecodeErrorKind::Trailing { bytes } => write!(f, "{bytes} bytes follow the value")?,
            DecodeErrorKind::Version(byte) => {
                write!(f, "expected the version byte 131, found {byte}")?
            }
            DecodeErrorKind::Tag(tag) => write!(f, "tag {tag} is not allowed here")?,
            DecodeErrorKind::Atom => {
                write!(f, "an atom must be UTF-8 and have at most 255 characters")?
            }
            DecodeErrorKind::AtomReference(index) => {
                write!(f, "no atom {index} in the packet's header")?
            }
            DecodeErrorKind::Range(what) => write!(f, "{what} is out of range")?,
            DecodeErrorKind::Float => write!(f, "a float must be finite")?,
            DecodeErrorKind::DuplicateKey => write!(f, "a map has the same key twice")?,
            DecodeErrorKind::Limit { what, limit } => write!(f, "more than {limit} {what}")?,
            DecodeErrorKind::Compression => {
                write!(f, "a compressed term does not inflate to its declared size")?
            }
            DecodeErrorKind::Expected(what) => write!(f, "expected {what}")?,
        }
        write!(f, " (offset {})", self.at)
    }
}

impl std::error::Error for DecodeError {}
