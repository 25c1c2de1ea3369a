//! Rust values as terms: serde straight on the bytes of the external term format, with Elixir's conventions.
//!
//! [`to_vec`] and [`encode_into`] write a value without building a [`Term`] first, [`from_bytes`] reads one without;
//! `&str` and `&[u8]` borrow from the bytes. [`to_term`] and [`from_term`] go through the same bytes, so that all
//! four agree.
//!
//! | Rust | written as | also read from |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | integers to 128 bits | integer | |
//! | `f32`, `f64` (finite) | float | integer |
//! | `char` | binary of one character | code point, charlist, atom |
//! | `String`, `&str` | UTF-8 binary, Elixir's string | charlist (not by `&str`), atom other than `nil` |
//! | `serde_bytes`, `&[u8]`, [`Binary`] | binary | list of bytes |
//! | `Option` | `nil`, or the value | `undefined` as `None` |
//! | `()` | `nil` | `undefined`, `ok` |
//! | unit struct | its name as an atom | |
//! | newtype struct | what it holds | |
//! | `Vec`, sets | list | binary, for bytes |
//! | tuple, array, tuple struct | tuple | list of that length |
//! | map | map; keys as any value | list of pairs, such as a keyword list |
//! | struct | map with atoms as keys; see below | map with strings as keys, list of pairs |
//! | unit variant | its name as an atom | binary |
//! | newtype variant | `{name, Value}` | |
//! | tuple variant | `{name, A, B}` | |
//! | struct variant | `{name, #{field => Value}}` | list of pairs inside |
//! | `Result` | `{ok, Value}`, `{error, Value}`; for `()` the atom alone | |
//! | [`Term`], [`Atom`], [`Pid`], [`Port`], [`Reference`] | themselves | |
//!
//! Names are as serde has them: `#[serde(rename_all = "snake_case")]` makes Elixir's atoms.
//!
//! **Elixir structs.** A struct whose serde name begins with `Elixir.` is an Elixir struct: it is written with its
//! `__struct__` key, and refuses another one when read.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tiebeam_wire::{Term, value};
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(rename = "Elixir.MyApp.User")]
//! struct User {
//!     name: String,
//!     age: Option<u8>,
//! }
//!
//! let user = User { name: "Ada".into(), age: None };
//! let term = value::to_term(&user)?;
//! let text = "#{'__struct__' => 'Elixir.MyApp.User', name => <<\"Ada\">>, age => nil}";
//! assert_eq!(term, Term::parse(text)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Other structs ignore a `__struct__` key that they do not declare. Terms inside values pass through serde as their
//! bytes; in a human-readable format, such as JSON, they are their [text](crate::text).
//!
//! Reading recurses with the type that is read, down to [`DEPTH_MAX`] containers. A compressed term is refused:
//! decode it to a [`Term`] first.

mod deserializer;
mod embedded;
mod error;
mod serializer;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use deserializer::{DEPTH_MAX, Deserializer};
pub use error::Error;
pub use serializer::Serializer;

use crate::Term;
use crate::decode::{self, Decoder, Limits, tag};
use crate::encode::{self, InlineAtoms};
#[cfg(doc)]
use crate::{Atom, Binary, Pid, Port, Reference};

/// Writes a value with the version byte.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Appends a value with the version byte. After an error `out` is as it was before.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.push(tag::VERSION);
    let written = value.serialize(&mut Serializer::new(out, &mut InlineAtoms));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// The term that a value is written as.
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Term, Error> {
    Ok(decode::decode(&Bytes::from(to_vec(value)?))?)
}

/// Reads a value with its version byte, and nothing after it.
pub fn from_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut decoder = Decoder::from_slice(bytes, &Limits::DEFAULT);
    decoder.version()?;
    let mut deserializer = Deserializer::new(decoder);
    let value = T::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a value from the term that it is written as.
pub fn from_term<T: DeserializeOwned>(term: &Term) -> Result<T, Error> {
    let mut bytes = Vec::new();
    encode::encode(term, &mut bytes);
    from_bytes(&bytes)
}
