//! What replaces the beginning of a log (5.1), and what a member writes to disk.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::configuration::Configuration;
use super::entry::{Entry, HardState, Index, PersistToken, Term};

/// The state of the machine after an entry: it stands for that entry and for all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it stands for.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The configuration that was in force there.
    pub configuration: Configuration,
    /// The state of the machine, in its own encoding.
    pub state: Arc<[u8]>,
}

/// One write of a member. All of it is on disk, or nothing of it; writes come one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its number.
    pub token: PersistToken,
    /// Replaces term and vote.
    pub hard: Option<HardState>,
    /// Replaces the snapshot. Entries up to [`Write::purge`] are not needed any more.
    pub snapshot: Option<Snapshot>,
    /// Entries up to this one are removed; 0 removes none. It is never greater than the index of the snapshot on disk.
    pub purge: Index,
    /// Entries from this one on are removed, before [`Write::entries`] are added: after a snapshot was installed that the
    /// log does not agree with. `None` removes only what `entries` replace.
    pub truncate: Option<Index>,
    /// Contiguous; they replace whatever the log has from the index of the first one on. May be empty.
    pub entries: Vec<Entry>,
}

/// What was persisted, as it is read back at a start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Term and vote; the default if there never were any.
    pub hard: HardState,
    /// The latest snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// The log, contiguous. It begins with entry 1, or not behind the entry after the snapshot.
    pub entries: Vec<Entry>,
}
