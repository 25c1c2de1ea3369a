//! How nodes come to hold each other's items.
//!
//! ```text
//!   owner                                   peer
//!     │ ── Operations(from, head) ───────────► │   as they happen, one message per turn
//!     │ ◄─────────────────────────── Have(seq) │   a while later: an acknowledgement
//!     │ ── Operations(head, head, none) ─────► │   when that does not come: what the peer should have
//!     │ ◄───────────────────── Have(seq, want) │   something is missing
//!     │ ── Operations(seq, ..) ──────────────► │   from the log, a window at a time
//!     │ ── Behind(head) ─────────────────────► │   or the log no longer has it:
//!     │ ◄─────────────────────────── Compare() │   digests of ranges, a window at a time
//!     │ ── Compared(at) ─────────────────────► │   the same; ask for the parts; all there is
//! ```
//!
//! The peer asks, again if need be, so that it sets the pace; the owner has no state but what it sent. All of it is safe to
//! lose, to repeat and, between connections, to swap: items carry the number of the operation that made them.

mod owner;
mod reader;

use alloc::vec::Vec;

use super::entry::Life;
use super::key::What;
use super::message::Message;
use super::output::{Change, Departure, Gone, Output};
use super::replica::{Shown, Slot};
use super::{ASK_AFTER, REMIND_AFTER, Registry, Timer};
use crate::identity::NodeName;
use crate::time::Duration;

/// Another node with a registry.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) creation: u32,
    pub(crate) up: bool,
    /// What this node holds of it.
    pub(crate) slot: Option<Slot>,
    /// A life that went over a limit: nothing more of it is taken.
    refused: Option<Life>,
    /// The number up to which it has this node's operations.
    acknowledged: u64,
    /// The number up to which they were sent to it.
    sent: u64,
    /// It asks for the next ones when it has read what it was sent.
    pulls: bool,
    remind_after: Duration,
    ask_after: Duration,
}

impl Registry {
    pub(crate) fn peer_up(&mut self, node: &NodeName, creation: u32, out: &mut Vec<Output>) {
        match self.peers.get(node) {
            Some(peer) if peer.up && peer.creation == creation => return,
            Some(peer) if peer.creation != creation => {
                self.peer_down(node, Departure::Restarted, out);
            }
            Some(_) | None => {}
        }
        let head = self.log.head();
        let slot = self.peers.get(node).and_then(|peer| peer.slot);
        let peer = Peer {
            creation,
            up: true,
            slot,
            refused: None,
            acknowledged: 0,
            sent: self.flushed,
            pulls: false,
            remind_after: REMIND_AFTER,
            ask_after: ASK_AFTER,
        };
        self.peers.insert(node.clone(), peer);
        self.timers.cancel(&Timer::Forget(node.clone()));
        self.announce(node, head, out);
        self.timers
            .set(Timer::Remind(node.clone()), self.now + REMIND_AFTER);
        if self.resume(node) {
            self.pump(node, out);
        } else {
            self.want(node, out);
        }
    }

    pub(crate) fn peer_connected(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.up) else {
            return;
        };
        (peer.remind_after, peer.ask_after) = (REMIND_AFTER, ASK_AFTER);
        let head = self.log.head();
        self.announce(node, head, out);
        if self.resume(node) {
            self.pump(node, out);
        } else {
            self.want(node, out);
        }
    }

    pub(crate) fn peer_down(
        &mut self,
        node: &NodeName,
        departure: Departure,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        peer.up = false;
        let slot = peer.slot;
        for timer in [Timer::Acknowledge, Timer::Remind, Timer::Ask] {
            self.timers.cancel(&timer(node.clone()));
        }
        if departure == Departure::Down {
            self.timers.set(
                Timer::Forget(node.clone()),
                self.now + self.limits.keep_down,
            );
            if let Some(slot) = slot {
                self.sink(slot, departure, out);
            }
        } else {
            if let Some(slot) = slot {
                self.retire(slot, departure, out);
            }
            self.peers.remove(node);
            self.timers.cancel(&Timer::Forget(node.clone()));
        }
        let asked: Vec<u64> = self
            .questions
            .iter()
            .filter(|(_, question)| question.node == *node)
            .map(|(&id, _)| id)
            .collect();
        for id in asked {
            self.answer_question(id, out);
        }
    }

    /// A node was down for so long that nothing of it is kept.
    pub(crate) fn forget(&mut self, node: &NodeName) {
        if self.peers.get(node).is_some_and(|peer| !peer.up)
            && let Some(peer) = self.peers.remove(node)
            && let Some(slot) = peer.slot
        {
            self.retire(slot, Departure::Down, &mut Vec::new());
        }
    }

    /// Takes a replica out of the table, and keeps it.
    fn sink(&mut self, slot: Slot, departure: Departure, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        replica.comparison = None;
        replica.unacknowledged = 0;
        if replica.counts() {
            if replica.items.len() > 0 {
                out.push(Output::Table(Change::Purged {
                    node: replica.node.clone(),
                    creation: replica.life.creation,
                    departure,
                    keys: replica
                        .items
                        .behind(None)
                        .map(|(key, _)| key.clone())
                        .collect(),
                }));
            }
            replica.shown = Shown::Sinking { upto: None };
            self.moving.insert(slot);
            // Names of this node's own processes are back at once; the others within the next steps.
            for key in self.contested.clone() {
                self.settle(&key, Gone::Missed, out);
            }
            self.settle_deferred(slot, out);
        }
    }

    /// Takes a replica out of the table for good.
    pub(super) fn retire(&mut self, slot: Slot, departure: Departure, out: &mut Vec<Output>) {
        self.sink(slot, departure, out);
        self.moving.remove(&slot);
        if let Some(replica) = self.replicas.remove(&slot) {
            if let Some(peer) = self.peers.get_mut(&replica.node)
                && peer.slot == Some(slot)
            {
                peer.slot = None;
            }
            if replica.items.len() > 0 {
                self.remains.push((slot, replica.items));
            }
        }
    }

    /// A replica whose owner is back, and which lacks nothing, is shown again.
    pub(crate) fn rise_if_back(&mut self, slot: Slot) {
        if let Some(replica) = self.replicas.get_mut(&slot)
            && replica.shown == Shown::No
            && replica.caught_up()
            && let Some(peer) = self.peers.get(&replica.node)
            && peer.up
            && !self.timers.is_set(&Timer::Ask(replica.node.clone()))
        {
            replica.shown = Shown::Rising { upto: None };
            self.moving.insert(slot);
        }
    }

    pub(crate) fn life_of(&self, node: &NodeName) -> Option<Life> {
        let slot = self.peers.get(node).filter(|peer| peer.up)?.slot?;
        Some(self.replicas.get(&slot)?.life)
    }

    pub(crate) fn hear(&mut self, from: &NodeName, message: Message, out: &mut Vec<Output>) {
        if !self.peers.get(from).is_some_and(|peer| peer.up) {
            return;
        }
        match message {
            Message::Operations {
                life,
                from: number,
                head,
                more,
                operations,
            } => {
                if let Some(slot) = self.replica_of(from, life, out) {
                    self.heard_operations(slot, number, head, more, operations, out);
                }
            }
            Message::Behind { life, head } => {
                if let Some(slot) = self.replica_of(from, life, out) {
                    self.heard_behind(slot, head, out);
                }
            }
            Message::Have {
                of,
                seq,
                digest,
                want,
            } => self.heard_have(from, of, seq, digest, want, out),
            Message::Compare { of, ask, ranges } => self.compare(from, of, ask, &ranges, out),
            Message::Compared {
                life,
                ask,
                at,
                parts,
            } => {
                if self.life_of(from) == Some(life)
                    && let Some(slot) = self.peers.get(from).and_then(|peer| peer.slot)
                {
                    self.compared(slot, ask, at, parts, out);
                }
            }
            Message::Question {
                of,
                ask,
                key,
                stamp,
            } => {
                if of == self.life && key.what() == What::Name {
                    self.questioned(from, ask, key, stamp, out);
                }
            }
            Message::Reply { ask, held } => self.replied(from, ask, held, out),
        }
    }
}
