//! What a group keeps: entries of the log, and what a member must never forget.

use alloc::sync::Arc;
use core::fmt;

use super::configuration::Configuration;

/// The most bytes in one command. A command is sent whole, so this bounds how long one message keeps a connection busy.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;

/// A position in the log, from 1. Zero is before the first entry.
pub type Index = u64;

/// The number of an election, from 1; at most one member leads in a term (3.4).
pub type Term = u64;

/// One member of a group, and one life of its disk: a member that lost what it persisted returns under another number,
/// because it may have voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The number of an [`Effect::Persist`](super::Effect::Persist). They grow by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PersistToken(pub u64);

/// What must be on disk before it is answered, besides entries (3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The latest term that this member has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<MemberId>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: the first entry of each term, which commits those before it (6.4, step 1).
    Noop,
    /// Bytes for the state machine, at most [`MAX_COMMAND_BYTES`].
    Command(Arc<[u8]>),
    /// Who the members are from here on (4.1: in force from the moment it is in the log).
    Configuration(Configuration),
}

impl Payload {
    /// How many bytes it takes in a message, roughly: limits count with it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Noop => 0,
            Self::Command(bytes) => bytes.len(),
            Self::Configuration(configuration) => configuration.weight(),
        }
    }
}
