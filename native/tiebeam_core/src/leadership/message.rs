//! What members of a group say to each other.

use alloc::vec::Vec;

use super::chunks::Chunk;
use super::entry::{Entry, Index, MemberId, Term};

/// One message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    /// Which group; see [`Settings::group`](super::Settings::group).
    pub(super) group: u64,
    pub(super) from: MemberId,
    /// A message to an earlier life of a node is not for this one.
    pub(super) to: MemberId,
    /// The sender's term, but for a pre-vote and its grant: there the term that would be.
    pub(super) term: Term,
    pub(super) message: Message,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Would you vote, or do you vote, for me? (3.4, 9.6)
    Poll {
        /// It is only asked (9.6).
        pre: bool,
        /// The end of the candidate's log (3.6.1).
        last: Index,
        last_term: Term,
        cause: Cause,
    },
    /// The answer.
    Vote {
        pre: bool,
        granted: bool,
        /// The voter confirmed a lease that may still hold; see [`Replica`](super::Replica).
        early: bool,
    },
    /// Entries, or none: then it is a heartbeat (3.5).
    Append {
        /// The number of the sending, within the term.
        round: u64,
        previous: Index,
        previous_term: Term,
        commit: Index,
        entries: Vec<Entry>,
    },
    /// The answer: the sender's log is the leader's, and on disk, up to `matched`.
    Accepted { round: u64, matched: Index },
    /// The answer: at `previous` it is not; it may be at `hint`, whose term it has as `hint_term`.
    Rejected {
        round: u64,
        previous: Index,
        hint: Index,
        hint_term: Term,
    },
    /// Stand for election now (3.10).
    TimeoutNow {
        /// The sender held no lease when it sent this, nor does anybody else; it takes none again in this term.
        released: bool,
    },
    /// A part of a snapshot (5.1).
    Chunk {
        /// As in [`Message::Append`].
        round: u64,
        chunk: Chunk,
    },
    /// The answer: the sender has the first so many bytes of the snapshot at `index`.
    Received {
        round: u64,
        index: Index,
        bytes: u32,
    },
}

/// Why somebody stands for election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It has heard of no leader for an election timeout, or was told that it is gone.
    Silence,
    /// The leader asked it to (3.10): voters do not wait for a timeout. An old lease may still hold.
    Transfer,
    /// The same, and the leader that did has given its lease up.
    Released,
}
