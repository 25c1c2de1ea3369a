//! Connection slots: one per peer, so that two nodes which dial each other end with exactly one connection.
//!
//! ```text
//!            outgoing                          incoming, our name smaller: ok_simultaneous
//!   none ──────────────► pending(attempt) ◄──────────────┐ (the old attempt is abandoned)
//!    │  incoming: ok          │      └──────────────────-┘
//!    │                        │ completed
//!    │                        ▼             incoming: alive
//!    └◄──── down ───────── up(connection) ──────────────► up_pending(connection, attempt)
//!                             ▲                                │         │
//!                             └───────── attempt fails ────────┘         └─ connection down: pending(attempt)
//! ```
//!
//! The table of `net_kernel.erl` (`sys_dist`), as a value: it holds no sockets, waiters or timers. Its owner serialises
//! the calls (one lock), keeps who waits for a slot, and carries out what the answers say. Whoever answers `alive` with
//! `true` unconditionally, or treats `nok` as a failed attempt, tears clusters apart.

use std::collections::BTreeMap;
use std::fmt;

/// Number of an attempt to connect and of the connection it becomes. The caller draws each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The slots of one node.
///
/// A peer without a connection or an attempt takes no memory. The number of slots is bounded by the caller's limits on
/// sockets, because each slot belongs to at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotTable {
    name: String,
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Pending {
        owner: ConnectionId,
    },
    Up {
        connection: ConnectionId,
    },
    UpPending {
        connection: ConnectionId,
        owner: ConnectionId,
    },
}

/// What to do with a request to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// The attempt owns the slot now: dial.
    Dial,
    /// Somebody else is at it: wait for the outcome on the slot.
    Wait,
    /// There is a connection.
    Up(ConnectionId),
}

/// What to do with a peer that has sent its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// The attempt owns the slot now: status `ok`.
    Ok,
    /// The attempt owns the slot now: close the socket of `abandon`, keep the waiters, status `ok_simultaneous`.
    OkSimultaneous {
        /// The attempt that lost the slot.
        abandon: ConnectionId,
    },
    /// Status `nok`, then close the socket: the peer waits for our attempt.
    Nok,
    /// A connection is up: status `alive`, and on `true` go on.
    Alive,
    /// A replacement is under way already: close the socket without a word.
    Refuse,
}

/// Whether an attempt whose peer has proved the cookie may finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// Yes.
    Ready,
    /// First close this older connection and finish its nodedown, then call [`SlotTable::down`] for it.
    Close(ConnectionId),
    /// No: the slot belongs to somebody else.
    Lost,
}

/// What became of a finished handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// The slot is up: run the nodeup hooks, then release the waiters.
    Up,
    /// The slot belongs to somebody else: close the socket and do nothing more.
    Lost,
}

/// What became of a slot after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The slot is free: the waiters get "not connected".
    Freed,
    /// The older connection stays; those who began to wait while its replacement was under way get it.
    StillUp(ConnectionId),
    /// The attempt did not own the slot: nothing changes for anybody.
    NotOwner,
}

/// What became of a slot after its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The slot is free.
    Freed,
    /// The attempt that was to replace the connection owns the slot now.
    Pending(ConnectionId),
    /// It was not the connection of this slot: nothing changes.
    NotUp,
}

impl SlotTable {
    /// An empty table of the node `name`.
    pub fn new(name: impl Into<String>) -> SlotTable {
        SlotTable {
            name: name.into(),
            slots: BTreeMap::new(),
        }
    }

    /// Somebody wants a connection to `peer`; `attempt` is used only for [`Outgoing::Dial`].
    pub fn outgoing(&mut self, peer: &str, attempt: ConnectionId) -> Outgoing {
        match self.slots.get(peer) {
            None => {
                self.set(peer, Slot::Pending { owner: attempt });
                Outgoing::Dial
            }
            Some(Slot::Pending { .. } | Slot::UpPending { .. }) => Outgoing::Wait,
            Some(&Slot::Up { connection }) => Outgoing::Up(connection),
        }
    }

    /// `peer` has dialled us and sent its name, and its flags are good. Nothing is proved yet.
    pub fn incoming(&mut self, peer: &str, attempt: ConnectionId) -> Incoming {
        match self.slots.get(peer).copied() {
            None => {
                self.set(peer, Slot::Pending { owner: attempt });
                Incoming::Ok
            }
            // Erlang compares atoms by their bytes.
            Some(Slot::Pending { .. }) if self.name.as_bytes() > peer.as_bytes() => Incoming::Nok,
            Some(Slot::Pending { owner }) => {
                self.set(peer, Slot::Pending { owner: attempt });
                Incoming::OkSimultaneous { abandon: owner }
            }
            Some(Slot::Up { connection }) => {
                let owner = attempt;
                self.set(peer, Slot::UpPending { connection, owner });
                Incoming::Alive
            }
            Some(Slot::UpPending { .. }) => Incoming::Refuse,
        }
    }

    /// As initiator that got `alive`: whether to answer `true`. On `false` the attempt gives up.
    pub fn alive_reply(&self, peer: &str, attempt: ConnectionId) -> bool {
        self.slots.get(peer) == Some(&Slot::Pending { owner: attempt })
    }

    /// As acceptor, when the peer has proved the cookie and before the acknowledgement is sent.
    pub fn take_over(&self, peer: &str, attempt: ConnectionId) -> TakeOver {
        match self.slots.get(peer) {
            Some(Slot::Pending { owner }) if *owner == attempt => TakeOver::Ready,
            Some(Slot::UpPending { connection, owner }) if *owner == attempt => {
                TakeOver::Close(*connection)
            }
            _ => TakeOver::Lost,
        }
    }

    /// The handshake of `attempt` is done on our side.
    pub fn completed(&mut self, peer: &str, attempt: ConnectionId) -> Completed {
        match self.slots.get(peer) {
            Some(Slot::Pending { owner }) if *owner == attempt => {
                let connection = attempt;
                self.set(peer, Slot::Up { connection });
                Completed::Up
            }
            _ => Completed::Lost,
        }
    }

    /// `attempt` has failed, was abandoned, or timed out. A `nok` is no failure: the attempt keeps its slot until the
    /// setup time is over, so that the peer's own connection can take it.
    pub fn failed(&mut self, peer: &str, attempt: ConnectionId) -> Failed {
        match self.slots.get(peer).copied() {
            Some(Slot::Pending { owner }) if owner == attempt => {
                self.slots.remove(peer);
                Failed::Freed
            }
            Some(Slot::UpPending { connection, owner }) if owner == attempt => {
                self.set(peer, Slot::Up { connection });
                Failed::StillUp(connection)
            }
            _ => Failed::NotOwner,
        }
    }

    /// `connection` has ended and its nodedown is done.
    pub fn down(&mut self, peer: &str, connection: ConnectionId) -> Down {
        match self.slots.get(peer).copied() {
            Some(Slot::Up { connection: up }) if up == connection => {
                self.slots.remove(peer);
                Down::Freed
            }
            Some(Slot::UpPending {
                connection: up,
                owner,
            }) if up == connection => {
                self.set(peer, Slot::Pending { owner });
                Down::Pending(owner)
            }
            _ => Down::NotUp,
        }
    }

    /// The connection to `peer`, if one is up.
    pub fn connection(&self, peer: &str) -> Option<ConnectionId> {
        match self.slots.get(peer)? {
            Slot::Pending { .. } => None,
            Slot::Up { connection } | Slot::UpPending { connection, .. } => Some(*connection),
        }
    }

    /// Whether `peer` has no connection and nobody is at it.
    pub fn is_free(&self, peer: &str) -> bool {
        !self.slots.contains_key(peer)
    }

    fn set(&mut self, peer: &str, slot: Slot) {
        match self.slots.get_mut(peer) {
            Some(current) => *current = slot,
            None => {
                self.slots.insert(peer.to_owned(), slot);
            }
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
