//! A snapshot on its way to a member that is behind the beginning of its leader's log (5.1), a bounded part at a time.
//!
//! The first part goes alone: its answer says how much of the snapshot is there already, or that none is needed. After that a few
//! are under way at once. What is lost is noticed at a heartbeat before which no answer made progress; then one part goes alone
//! again. So a member that is gone costs one part for each heartbeat.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::configuration::Configuration;
use super::entry::{Index, Term};
use super::snapshot::Snapshot;

/// The most bytes of a state in one message: as much as a batch of entries, so heartbeats wait behind neither for long.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// The most parts that are sent ahead of their answers. 512 KiB in a round trip of a millisecond are 512 MiB in a second.
const WINDOW: usize = 8;

/// The most bytes of a state. A member has all of them in memory, and another copy while one is received.
pub const MAX_SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;

/// What a leader sends to one member.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    snapshot: Snapshot,
    /// So many parts have arrived there.
    arrived: usize,
    /// The next one to be sent.
    next: usize,
    /// An answer said more since the last heartbeat.
    moved: bool,
    /// How many are sent ahead of their answers.
    window: usize,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Of the snapshot at this entry.
    pub(super) index: Index,
    pub(super) term: Term,
    /// How many bytes all of the state has.
    pub(super) total: u32,
    /// How many come before these.
    pub(super) offset: u32,
    /// With the first part.
    pub(super) configuration: Option<Configuration>,
    pub(super) bytes: Vec<u8>,
}

impl Sending {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            arrived: 0,
            next: 0,
            moved: true,
            window: 1,
        }
    }

    /// Which snapshot it is.
    pub(super) fn index(&self) -> Index {
        self.snapshot.index
    }

    /// An empty state is one part too.
    fn parts(&self) -> usize {
        self.snapshot.state.len().div_ceil(CHUNK_BYTES).max(1)
    }

    /// The next part to be sent now, if there is one.
    pub(super) fn next_chunk(&mut self) -> Option<Chunk> {
        if self.next == self.parts() || self.next >= self.arrived + self.window {
            return None;
        }
        let (state, offset) = (&self.snapshot.state, self.next * CHUNK_BYTES);
        let end = state.len().min(offset + CHUNK_BYTES);
        self.next += 1;
        Some(Chunk {
            index: self.snapshot.index,
            term: self.snapshot.term,
            total: state.len() as u32,
            offset: offset as u32,
            configuration: (offset == 0).then(|| self.snapshot.configuration.clone()),
            bytes: state[offset..end].to_vec(),
        })
    }

    /// So many bytes of the snapshot at `index` have arrived. `late` says that a later question was answered before: then less than
    /// was known is no news. Otherwise the member has started anew, and so does the sending.
    pub(super) fn received(&mut self, index: Index, bytes: u32, late: bool) {
        let arrived = (bytes as usize).div_ceil(CHUNK_BYTES).min(self.parts());
        if index != self.snapshot.index || (late && arrived <= self.arrived) {
            return;
        }
        if arrived < self.arrived {
            (self.next, self.window) = (arrived, 1);
        } else if arrived > self.arrived {
            self.moved = true;
            self.window = WINDOW;
        }
        self.arrived = arrived;
        self.next = self.next.max(arrived);
    }

    /// A heartbeat is due: what was lost is sent again. `latest` is the leader's snapshot by now: a member that is not heard gets
    /// that one when it returns.
    pub(super) fn beat(&mut self, latest: Option<&Snapshot>) {
        if core::mem::take(&mut self.moved) {
            return;
        }
        match latest {
            Some(latest) if latest.index > self.snapshot.index => {
                *self = Self {
                    moved: false,
                    ..Self::new(latest.clone())
                };
            }
            // Also the last part, whose answer may be lost.
            _ => (self.next, self.window) = (self.arrived.min(self.parts() - 1), 1),
        }
    }
}

/// What a member has received of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    index: Index,
    term: Term,
    configuration: Configuration,
    total: u32,
    /// Grows with what arrives, not with what was announced.
    state: Vec<u8>,
}

impl Incoming {
    /// Takes a part into what is here already, if it follows: of an older snapshot than the one that is coming, or out of order, it
    /// is dropped. How many bytes are here of the snapshot that the part is of.
    pub(super) fn take(incoming: &mut Option<Self>, chunk: Chunk) -> u32 {
        let newer = incoming.as_ref().is_none_or(|old| old.index < chunk.index);
        if newer {
            *incoming = chunk.configuration.map(|configuration| Self {
                index: chunk.index,
                term: chunk.term,
                configuration,
                total: chunk.total,
                state: Vec::new(),
            });
        }
        match incoming {
            Some(same)
                if (same.index, same.term, same.total)
                    == (chunk.index, chunk.term, chunk.total) =>
            {
                if chunk.offset as usize == same.state.len() {
                    same.state.extend_from_slice(&chunk.bytes);
                }
                same.state.len() as u32
            }
            _ => 0,
        }
    }

    /// All of it, once it is here.
    pub(super) fn complete(incoming: &mut Option<Self>) -> Option<Snapshot> {
        let whole = incoming.take_if(|incoming| incoming.state.len() == incoming.total as usize)?;
        Some(Snapshot {
            index: whole.index,
            term: whole.term,
            configuration: whole.configuration,
            state: Arc::from(whole.state),
        })
    }
}
