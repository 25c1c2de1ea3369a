//! Why a value and a term do not fit each other, and where.

use std::fmt;

use crate::error::DecodeError;

/// A value that cannot be a term, or a term that is not the value asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    why: Why,
    /// From the innermost outwards.
    path: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// The bytes are not a term.
    Bytes(DecodeError),
    /// The term is another one than the type expects, or the value none that a term can be.
    Shape(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Index(usize),
    Key(String),
}

impl Error {
    fn new(why: Why) -> Self {
        Self(Box::new(Parts {
            why,
            path: Vec::new(),
        }))
    }

    pub(super) fn shape(message: impl Into<String>) -> Self {
        Self::new(Why::Shape(message.into()))
    }

    /// What is wrong with the bytes, if they are not a term at all.
    pub fn decode_error(&self) -> Option<&DecodeError> {
        match &self.0.why {
            Why::Bytes(error) => Some(error),
            Why::Shape(_) => None,
        }
    }

    /// Where it happened, from the outermost value inwards: `users[3].name`. Empty for the outermost value itself.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.0.path.iter().rev() {
            match segment {
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
                Segment::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
            }
        }
        path
    }

    pub(super) fn in_element(mut self, index: usize) -> Self {
        self.0.path.push(Segment::Index(index));
        self
    }

    pub(super) fn in_key(mut self, key: impl Into<String>) -> Self {
        self.0.path.push(Segment::Key(key.into()));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        match &self.0.why {
            Why::Bytes(error) => error.fmt(f),
            Why::Shape(message) => f.write_str(message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.why {
            Why::Bytes(error) => Some(error),
            Why::Shape(_) => None,
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::new(Why::Bytes(error))
    }
}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::shape(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::shape(message.to_string())
    }
}
