//! Rust values as terms, with Elixir's conventions.
#![allow(missing_docs)]
use serde::{Serialize, de::DeserializeOwned};
use tiebeam_wire::Term;
#[derive(Debug)]
pub struct Error;
impl std::fmt::Display for Error {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
pub fn to_term<T: Serialize + ?Sized>(_t: &T) -> Result<Term, Error> {
    Err(Error)
}
pub fn from_term<T: DeserializeOwned>(_t: &Term) -> Result<T, Error> {
    Err(Error)
}
