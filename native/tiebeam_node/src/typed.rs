//! Rust values as terms, with Elixir's conventions: see [`tiebeam_wire::value`].

pub use tiebeam_wire::value::{Error, from_term, to_term};
