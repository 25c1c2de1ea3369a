//! What a group agrees on: a store of keys, sessions, and claims (locks, singletons, names), as a deterministic machine.
//!
//! Every member applies the same commands in the same order, and so has the same state. There is no clock: each command
//! carries the time of the leader that proposed it, and the machine's time is the greatest it has seen. A deadline is
//! over when a command comes whose time says so, on all members at the same entry; the leader proposes
//! [`Operation::Tick`] when [`Machine::deadline`] is near and nobody else does. Clocks of two nodes are never compared:
//! a leader counts on from the machine's time when it is elected, by its own clock, so a change of leader makes a deadline
//! later, and never earlier.

mod claim;
mod command;
mod session;
mod snapshot;
mod store;
mod watch;

use alloc::vec::Vec;
use core::fmt;

pub use claim::{Claim, Claims, Kind, MAX_CLAIM_BYTES, MAX_CLAIMS, MAX_NAME_BYTES};
pub use command::{Command, CommandError, Expect, MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation};
pub use session::{MAX_OUTSTANDING, MAX_SESSIONS, MAX_TTL, MIN_TTL, SessionId, Sessions};
pub use snapshot::SnapshotError;
pub use store::{MAX_STORE_BYTES, Store, Stored};
pub use watch::{MAX_WATCHES, WatchId, Watches};

use super::entry::Index;
use super::mutation::{Mutation, Switched};
use crate::time::{Duration, Instant};

/// The answer to a command: the same on all members, and the same again when the command is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It is done. For a change of the store the index is the key's new revision, for a claim its fencing token, for
    /// [`Operation::Open`] the session.
    Done(Index),
    /// The key is not as the caller expected; its revision, 0 if it is not there. Read it and decide anew.
    Differs {
        /// The revision that it has.
        revision: Index,
    },
    /// Somebody else holds the claim. Wait until it is free, or give up.
    Held {
        /// Who does.
        by: SessionId,
        /// Under which token.
        token: Index,
    },
    /// The token is not, or no longer, that of the claim: whoever holds it lost it. Stop what it protected.
    NotHeld,
    /// The session is over, or never was. All its claims are gone; open a new one.
    NoSession,
    /// The caller said that it knows the answer to this request already. It is a late copy; nothing was done.
    Stale,
    /// A limit would be exceeded; nothing was done.
    Full(Limit),
    /// The bytes are no command of this version; nothing was done.
    Malformed,
}

/// Which limit would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`MAX_SESSIONS`].
    Sessions,
    /// [`MAX_OUTSTANDING`] of one session.
    Outstanding,
    /// [`MAX_STORE_BYTES`].
    Store,
    /// [`MAX_CLAIMS`] or [`MAX_CLAIM_BYTES`].
    Claims,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions => write!(f, "{MAX_SESSIONS} sessions"),
            Self::Outstanding => write!(f, "{MAX_OUTSTANDING} requests of one session"),
            Self::Store => write!(f, "{MAX_STORE_BYTES} bytes of keys and values"),
            Self::Claims => write!(f, "{MAX_CLAIMS} claims with {MAX_CLAIM_BYTES} bytes"),
        }
    }
}

/// Something that changed. The same on all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has a new value.
    Put {
        /// Which.
        key: Vec<u8>,
        /// Since which entry.
        revision: Index,
    },
    /// A key is gone.
    Deleted {
        /// Which.
        key: Vec<u8>,
        /// Since which entry.
        revision: Index,
    },
    /// A claim was granted, or its holder says something else with it.
    Claimed {
        /// A lock, a singleton or a name.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// Who holds it, and under which token.
        claim: Claim,
    },
    /// A claim is free: it was given back, its time is over, or the session of its holder is.
    Freed {
        /// A lock, a singleton or a name.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// What it was.
        claim: Claim,
    },
    /// A session is over, and with it all its claims.
    Ended {
        /// Which.
        session: SessionId,
    },
}

/// The state that all members share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The latest entry that was applied.
    applied: Index,
    /// The greatest time that a command carried.
    time: Instant,
    store: Store,
    sessions: Sessions,
    claims: Claims,
    switched: Switched,
}

impl Machine {
    /// A machine to which nothing was applied.
    pub fn new() -> Self {
        Self::default()
    }

    /// A rule is switched off, or as in the machine that this one takes the place of.
    pub(super) fn switch(&mut self, switched: Switched) {
        self.switched = switched;
    }

    /// Applies the command at `index`; what changed is added to `changes`. Indices grow; gaps are entries without a command.
    pub fn apply(&mut self, index: Index, command: &[u8], changes: &mut Vec<Change>) -> Reply {
        debug_assert!(index > self.applied, "an entry is applied once");
        self.applied = index;
        let Ok(command) = Command::decode(command) else {
            return Reply::Malformed;
        };
        self.time = self.time.max(command.time);
        self.expire(changes);
        match command.operation {
            Operation::Tick => Reply::Done(index),
            Operation::Open { ttl } => match self.sessions.open(index, self.time, ttl) {
                Ok(()) => Reply::Done(index),
                Err(limit) => Reply::Full(limit),
            },
            operation => self.perform(
                index,
                (command.session, command.number, command.known),
                operation,
                changes,
            ),
        }
    }

    /// An operation of a session, once (dissertation, 6.3).
    fn perform(
        &mut self,
        index: Index,
        (session, number, known): (SessionId, u64, u64),
        operation: Operation,
        changes: &mut Vec<Change>,
    ) -> Reply {
        match self.sessions.begin(session, number, known, self.time) {
            Ok(None) => {}
            Ok(Some(_)) if self.switched.off(Mutation::RepliesForgotten) => {}
            Ok(Some(earlier)) => return earlier,
            Err(refusal) => return refusal,
        }
        let reply = match operation {
            Operation::Tick | Operation::Open { .. } | Operation::KeepAlive => Reply::Done(index),
            Operation::Close => {
                self.end(session, changes);
                return Reply::Done(index);
            }
            Operation::Put { key, value, expect } => {
                self.store.put(index, key, value, &expect, changes)
            }
            Operation::Delete { key, expect } => self.store.delete(index, key, &expect, changes),
            Operation::Acquire {
                kind,
                name,
                value,
                ttl,
            } => {
                let until = ttl.map(|ttl| self.time + ttl.clamp(MIN_TTL, MAX_TTL));
                let claim = Claim {
                    owner: session,
                    token: index,
                    until,
                    value,
                };
                self.claims.acquire(kind, name, claim, changes)
            }
            Operation::Renew {
                kind,
                name,
                token,
                ttl,
            } => {
                let until = self.time + ttl.clamp(MIN_TTL, MAX_TTL);
                self.claims.renew(kind, &name, session, token, until)
            }
            Operation::Release { kind, name, token } => {
                let token = match self.claims.get(kind, &name) {
                    Some(held) if self.switched.off(Mutation::ReleaseWithoutToken) => held.token,
                    _ => token,
                };
                self.claims.release(kind, name, session, token, changes)
            }
            Operation::Update {
                kind,
                name,
                token,
                value,
            } => {
                let held = (session, token);
                self.claims.update(kind, name, held, value, changes)
            }
        };
        self.sessions.finish(session, number, reply);
        reply
    }

    fn expire(&mut self, changes: &mut Vec<Change>) {
        self.claims.expire(self.time, changes);
        while let Some(session) = self.sessions.expired(self.time) {
            self.end(session, changes);
        }
    }

    fn end(&mut self, session: SessionId, changes: &mut Vec<Change>) {
        if self.sessions.close(session) {
            self.claims.free_all(session, changes);
            changes.push(Change::Ended { session });
        }
    }

    /// The latest entry that was applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The machine's time.
    pub fn time(&self) -> Instant {
        self.time
    }

    /// When the next session or claim is over, in the machine's time.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.sessions.deadline(), self.claims.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The keys and their values.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who is here.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What is held, and by whom.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// The time that a leader writes into commands: it counts on from the machine's time, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    base: Instant,
    since: Instant,
}

impl Stamp {
    /// A leader begins at `now`, where the machine's time is `time`.
    pub fn new(time: Instant, now: Instant) -> Self {
        Self {
            base: time,
            since: now,
        }
    }

    /// The machine's time at `now`.
    pub fn at(&self, now: Instant) -> Instant {
        self.base + now.since(self.since)
    }

    /// When, by the leader's clock, the machine's time is `time`.
    pub fn due(&self, time: Instant) -> Instant {
        let wait: Duration = time.since(self.base);
        self.since + wait
    }
}

#[cfg(test)]
mod tests;
