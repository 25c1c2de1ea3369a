//! Erlang distribution on the wire: bytes to frames, control messages and terms, and back. Pure.
//!
//! ```text
//! bytes ── frame ── atom_cache ── fragment ──► control + term
//! bytes ── handshake (slot decides who may finish it) ──► a session
//! bytes ── epmd ──► names and ports
//!
//! bytes ── decode ──► term ── encode ──► bytes
//! text ──────────────► term ──────────────► text
//! bytes ── value ──► Rust value (serde) ──► bytes
//! ```
//!
//! Nothing here opens a socket, reads a clock, starts a thread or draws a random number: what the logic needs of
//! those is an argument. Bytes from outside cannot panic, recurse without bound, or make this crate allocate more
//! than a small multiple of what they carry; each limit is named beside its reason in [`Limits`].
//!
//! Sources: the *External Term Format*, *Distribution Protocol* and *EPMD* chapters of the ERTS user's guide.
#![forbid(unsafe_code)]

pub mod atom;
mod atom_cache;
pub mod control;
pub mod decode;
pub mod encode;
pub mod epmd;
#[cfg(feature = "erlang-term")]
pub mod erlang_term;
pub mod error;
pub mod flags;
mod fragment;
pub mod frame;
pub mod handshake;
pub mod slot;
pub mod term;
pub mod text;
pub mod value;

pub use atom::Atom;
pub use decode::{Decoder, Limits};
pub use encode::{AtomWriter, InlineAtoms};
pub use error::{DecodeError, DecodeErrorKind};
pub use term::{Binary, BitString, Export, Fun, Improper, Map, Opaque, Pid, Port, Reference, Term};
pub use text::ParseError;
