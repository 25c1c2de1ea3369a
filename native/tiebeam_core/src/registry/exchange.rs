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

use alloc::vec::Vec;

use super::entry::{Item, Life};
use super::items::MAX_ENTRIES;
use super::key::{Key, What};
use super::log;
use super::message::{
    CHUNK_BYTES, MAX_NUMBER, MAX_RANGES, Message, Operation, Part, Range, begin_operations, encode,
    put_operation, size_of,
};
use super::output::{Change, Departure, Gone, Output};
use super::replica::{Comparison, MAX_TODO, Replica, Shown, Slot, WINDOW, split};
use super::{ACKNOWLEDGE_AFTER, ASK_AFTER, PATIENCE, REMIND_AFTER, Registry, Timer};
use crate::identity::NodeName;
use crate::time::Duration;

/// The most operations that are sent to a peer as they happen before it has acknowledged earlier ones. One that is slower
/// asks for the rest when it is ready.
const MAX_UNACKNOWLEDGED: u64 = 16_384;

/// A receiver of so many operations acknowledges them at once.
const ACKNOWLEDGE_EVERY: usize = 4096;

/// A range with more items is compared in parts, unless the asking side has nothing of it.
const LEAF: usize = 32;

/// How many items are looked at for one answer.
const MAX_COUNTED: usize = 16_384;

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
    fn retire(&mut self, slot: Slot, departure: Departure, out: &mut Vec<Output>) {
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

    // The owner's side.

    /// Sends the operations that nobody was sent yet to all who have the ones before.
    pub(crate) fn flush(&mut self, out: &mut Vec<Output>) {
        self.unflushed_bytes = 0;
        let head = self.log.head();
        while self.flushed < head {
            let listens = |peer: &Peer| {
                peer.up
                    && peer.sent == self.flushed
                    && self.flushed - peer.acknowledged.min(self.flushed) < MAX_UNACKNOWLEDGED
            };
            let listeners: Vec<NodeName> = self
                .peers
                .iter()
                .filter(|(_, peer)| listens(peer))
                .map(|(node, _)| node.clone())
                .collect();
            let (bytes, upto) = if listeners.is_empty() {
                (Vec::new(), head)
            } else {
                self.chunk(self.flushed, false)
            };
            self.flushed = upto;
            for node in &listeners {
                out.push(Output::Send {
                    to: node.clone(),
                    bytes: bytes.clone(),
                });
                if let Some(peer) = self.peers.get_mut(node) {
                    peer.sent = upto;
                    self.timers
                        .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
                }
            }
            // Who does not listen hears of the head in a while, and asks.
            for (node, peer) in &self.peers {
                if peer.up && peer.sent < upto {
                    self.timers
                        .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
                }
            }
        }
    }

    /// As many operations behind `from` as there is room for, and the number of the last; all of them are lost when the
    /// log no longer has the first. `last` says that the next ones are sent only when asked for.
    fn chunk(&self, from: u64, last: bool) -> (Vec<u8>, u64) {
        let head = self.log.head();
        let Some(operations) = self.log.after(from) else {
            return (begin_operations(self.life, head, head, false), head);
        };
        let mut room = CHUNK_BYTES;
        let mut upto = from;
        let mut body = Vec::new();
        for operation in operations {
            let size = log::size(operation);
            if size > room && upto > from {
                break;
            }
            room = room.saturating_sub(size);
            put_operation(&mut body, operation);
            upto += 1;
        }
        let mut bytes = begin_operations(self.life, from, head, last && upto < head);
        bytes.append(&mut body);
        (bytes, upto)
    }

    fn announce(&mut self, node: &NodeName, head: u64, out: &mut Vec<Output>) {
        out.push(Output::Send {
            to: node.clone(),
            bytes: begin_operations(self.life, head, head, false),
        });
    }

    /// A peer did not say that it has everything.
    pub(crate) fn remind(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        let head = self.log.head();
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.up) else {
            return;
        };
        if peer.acknowledged >= head {
            return;
        }
        peer.remind_after = peer.remind_after.doubled(1, PATIENCE);
        let again = self.now + peer.remind_after;
        self.announce(node, head, out);
        self.timers.set(Timer::Remind(node.clone()), again);
    }

    fn heard_have(
        &mut self,
        node: &NodeName,
        of: Option<Life>,
        seq: u64,
        digest: u64,
        want: bool,
        out: &mut Vec<Output>,
    ) {
        let known = of == Some(self.life);
        let seq = if known { seq } else { 0 };
        let head = self.log.head();
        if known && let Some(peer) = self.peers.get_mut(node) {
            if seq > peer.acknowledged {
                peer.remind_after = REMIND_AFTER;
            }
            peer.acknowledged = peer.acknowledged.max(seq).min(head);
        }
        let differs = known && seq == head && digest != self.items.digest();
        if differs {
            self.send_behind(node, out);
        } else if want {
            self.serve(node, seq, out);
        } else if known
            && let Some(peer) = self.peers.get(node)
            && peer.sent < self.flushed
            && !peer.pulls
        {
            // It was too slow for what happened, and goes on where it was left.
            self.serve(node, peer.sent, out);
        }
    }

    fn send_behind(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        self.flush(out);
        let head = self.log.head();
        if let Some(peer) = self.peers.get_mut(node) {
            // It compares everything up to here, and gets what comes after as it happens.
            peer.sent = head;
            peer.pulls = false;
            peer.acknowledged = head;
        }
        out.push(Output::Send {
            to: node.clone(),
            bytes: encode(&Message::Behind {
                life: self.life,
                head,
            }),
        });
    }

    /// Sends a window of what is behind `seq`.
    fn serve(&mut self, node: &NodeName, seq: u64, out: &mut Vec<Output>) {
        self.flush(out);
        if self.log.after(seq).is_none() {
            return self.send_behind(node, out);
        }
        let head = self.log.head();
        let mut upto = seq;
        for left in (0..WINDOW).rev() {
            let (bytes, next) = self.chunk(upto, left == 0);
            upto = next;
            out.push(Output::Send {
                to: node.clone(),
                bytes,
            });
            if upto == head {
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(node) {
            peer.sent = upto;
            peer.pulls = upto < head;
            self.timers
                .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
        }
    }

    /// Answers for as many ranges as there is room for.
    fn compare(
        &mut self,
        node: &NodeName,
        of: Life,
        ask: u64,
        ranges: &[Range],
        out: &mut Vec<Output>,
    ) {
        if of != self.life {
            let head = self.log.head();
            return self.announce(node, head, out);
        }
        let (mut room, mut budget) = (CHUNK_BYTES, MAX_COUNTED);
        let mut parts = Vec::new();
        for range in ranges {
            if budget == 0 || (room == 0 && !parts.is_empty()) {
                break;
            }
            if !range.empty {
                let (digest, counted) = self.items.digest_of(range.span);
                budget = budget.saturating_sub(counted.max(1));
                if digest == range.digest {
                    parts.push(Part::Same);
                    continue;
                }
                let many = self.items.range(range.span).nth(LEAF).is_some();
                if many && split(range.span).is_some() {
                    parts.push(Part::Split);
                    continue;
                }
            }
            let (part, size) = self.fill(range.span, room, parts.is_empty());
            let Some(part) = part else {
                break;
            };
            room = room.saturating_sub(size);
            parts.push(part);
        }
        out.push(Output::Send {
            to: node.clone(),
            bytes: encode(&Message::Compared {
                life: self.life,
                ask,
                at: self.log.head(),
                parts,
            }),
        });
    }

    /// The items of a range that fit, and about how many bytes they take; nothing when not even the first one does, unless
    /// it `must`. Items of one hash are never parted.
    fn fill(&self, span: (u64, u64), room: usize, must: bool) -> (Option<Part>, usize) {
        let mut items: Vec<(Key, Item)> = Vec::new();
        let (mut size, mut upto) = (16, span.1);
        for (key, item) in self.items.range(span) {
            let next = size_of(key, item);
            let last = items.last().map(|(last, _)| last.hash());
            if size + next > room && last != Some(key.hash()) {
                match last {
                    Some(last) => upto = last,
                    None if must => {
                        size += next;
                        items.push((key.clone(), item.clone()));
                        continue;
                    }
                    None => return (None, 0),
                }
                break;
            }
            size += next;
            items.push((key.clone(), item.clone()));
        }
        (Some(Part::Fill { upto, items }), size)
    }

    // The other side.

    /// The replica that holds a peer's items in the life it speaks of; nothing when that life is over.
    fn replica_of(&mut self, node: &NodeName, life: Life, out: &mut Vec<Output>) -> Option<Slot> {
        let peer = self.peers.get(node)?;
        if life.creation != peer.creation || peer.refused == Some(life) {
            return None;
        }
        if let Some(slot) = peer.slot {
            let held = self.replicas.get(&slot)?.life;
            if held.epoch == life.epoch {
                return Some(slot);
            }
            if held.epoch > life.epoch {
                return None;
            }
            self.retire(slot, Departure::Restarted, out);
        }
        self.last_slot += 1;
        let slot = Slot(self.last_slot);
        self.replicas.insert(slot, Replica::new(node.clone(), life));
        self.peers.get_mut(node)?.slot = Some(slot);
        Some(slot)
    }

    fn heard_operations(
        &mut self,
        slot: Slot,
        from: u64,
        head: u64,
        more: bool,
        operations: Vec<Operation>,
        out: &mut Vec<Output>,
    ) {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        replica.head = replica.head.max(head);
        let node = replica.node.clone();
        if replica
            .comparison
            .as_ref()
            .is_some_and(|comparison| !comparison.based)
        {
            return;
        }
        let missed = from > replica.seq;
        if missed {
            // An announcement may answer a question that did not arrive, so it is asked again at once.
            if operations.is_empty() || !self.timers.is_set(&Timer::Ask(node.clone())) {
                self.want(&node, out);
            }
            return;
        }
        let known = usize::try_from(replica.seq - from).unwrap_or(usize::MAX);
        let mut news = 0;
        for operation in operations.into_iter().skip(known) {
            news += 1;
            let Some(replica) = self.replicas.get_mut(&slot) else {
                return;
            };
            replica.seq += 1;
            let seq = replica.seq;
            match operation {
                Operation::Put(key, item) => self.put(slot, key, item, out),
                Operation::Drop(key, gone) => self.drop(slot, &key, seq, gone, out),
            }
        }
        self.settle_deferred(slot, out);
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        replica.unacknowledged += news;
        if news > 0 {
            self.progress(&node);
        }
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        if replica.seq >= replica.head {
            if replica.comparison.is_none() {
                self.timers.cancel(&Timer::Ask(node.clone()));
                self.rise_if_back(slot);
            }
            self.timers.hasten(
                Timer::Acknowledge(node.clone()),
                self.now + ACKNOWLEDGE_AFTER,
            );
        } else if more && news > 0 {
            self.want(&node, out);
            return;
        } else if !self.timers.is_set(&Timer::Ask(node.clone())) {
            // The rest is on its way, or lost.
            self.timers
                .set(Timer::Ask(node.clone()), self.now + ASK_AFTER);
        }
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        if replica.unacknowledged >= ACKNOWLEDGE_EVERY {
            self.acknowledge(&node, out);
        } else if news > 0 {
            self.timers
                .hasten(Timer::Acknowledge(node), self.now + ACKNOWLEDGE_AFTER);
        }
    }

    fn put(&mut self, slot: Slot, key: Key, item: Item, out: &mut Vec<Output>) {
        // Half of what there is remains for this node, whatever a peer says.
        self.clock = self.clock.max(item.stamp.min(MAX_NUMBER / 2));
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        let known = replica.items.get(&key);
        if known.is_some_and(|known| known.seq >= item.seq) {
            return;
        }
        if known.is_none() && replica.items.len() >= MAX_ENTRIES {
            return self.refuse(slot, out);
        }
        let shows = replica.shows(&key);
        let old = replica.items.insert(key.clone(), item.clone());
        if !shows {
            return;
        }
        let same = old.as_ref().is_some_and(|old| old.looks_like(&item));
        match key.what() {
            What::Name => self.claim(slot, &key, &item, same, out),
            What::Member if same => {}
            What::Member => {
                let entry = self.entry_of(slot, &key, &item);
                out.extend(entry.map(|entry| {
                    Output::Table(if old.is_none() {
                        Change::Joined(entry)
                    } else {
                        Change::Rejoined(entry)
                    })
                }));
            }
        }
    }

    /// Drops an item that operation `seq` or an earlier one made.
    fn drop(&mut self, slot: Slot, key: &Key, seq: u64, gone: Gone, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        if replica.items.get(key).is_none_or(|item| item.seq > seq) {
            return;
        }
        let shows = replica.shows(key);
        let Some(item) = replica.items.remove(key) else {
            return;
        };
        match (key.what(), shows) {
            (What::Name, true) => self.unclaim(slot, key, gone, out),
            (What::Name, false) => self.disclaim(slot, key, out),
            (What::Member, true) => out.push(Output::Table(Change::Left {
                key: key.clone(),
                pid: item.pid,
                gone,
            })),
            (What::Member, false) => {}
        }
    }

    /// An owner said that a registration is over, before its operation arrived.
    pub(crate) fn strike(&mut self, node: &NodeName, key: &Key, stamp: u64, out: &mut Vec<Output>) {
        if let Some(slot) = self.peers.get(node).and_then(|peer| peer.slot)
            && let Some(replica) = self.replicas.get(&slot)
            && let Some(item) = replica.items.get(key)
            && item.stamp == stamp
        {
            let seq = item.seq;
            self.drop(slot, key, seq, Gone::Missed, out);
        }
    }

    /// An owner goes over a limit that its own registry holds: nothing of that life is believed any more.
    fn refuse(&mut self, slot: Slot, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get(&slot) else {
            return;
        };
        let (node, life) = (replica.node.clone(), replica.life);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refused = Some(life);
        }
        self.timers.cancel(&Timer::Ask(node));
        self.retire(slot, Departure::Down, out);
    }

    /// Something of what was asked for came: the next question need not wait long.
    fn progress(&mut self, node: &NodeName) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.ask_after = ASK_AFTER;
        }
        if self.timers.is_set(&Timer::Ask(node.clone())) {
            self.timers
                .set(Timer::Ask(node.clone()), self.now + ASK_AFTER);
        }
    }

    /// Asks an owner for what is behind the replica's number.
    fn want(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        self.send_have(node, true, out);
        if let Some(peer) = self.peers.get(node) {
            self.timers
                .set(Timer::Ask(node.clone()), self.now + peer.ask_after);
        }
    }

    pub(crate) fn acknowledge(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        self.timers.cancel(&Timer::Acknowledge(node.clone()));
        self.send_have(node, false, out);
    }

    fn send_have(&mut self, node: &NodeName, want: bool, out: &mut Vec<Output>) {
        let slot = self.peers.get(node).and_then(|peer| peer.slot);
        let have = match slot.and_then(|slot| self.replicas.get_mut(&slot)) {
            // Its number says nothing yet.
            Some(replica) if !want && !replica.complete => return,
            Some(replica) => {
                replica.unacknowledged = 0;
                Message::Have {
                    of: Some(replica.life),
                    seq: replica.seq,
                    digest: replica.items.digest(),
                    want,
                }
            }
            None => Message::Have {
                of: None,
                seq: 0,
                digest: 0,
                want,
            },
        };
        out.push(Output::Send {
            to: node.clone(),
            bytes: encode(&have),
        });
    }

    /// What was asked for did not come in time.
    pub(crate) fn ask_again(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.up) else {
            return;
        };
        peer.ask_after = peer.ask_after.doubled(1, PATIENCE);
        if self.resume(node) {
            self.pump(node, out);
        } else {
            self.want(node, out);
        }
    }

    /// Whether tables are, or again are, compared with an owner.
    fn resume(&mut self, node: &NodeName) -> bool {
        let slot = self.peers.get(node).and_then(|peer| peer.slot);
        let Some(replica) = slot.and_then(|slot| self.replicas.get_mut(&slot)) else {
            return false;
        };
        match &mut replica.comparison {
            Some(comparison) => comparison.ask_again(),
            None if replica.complete => return false,
            comparison @ None => *comparison = Some(Comparison::new(replica.head, false)),
        }
        true
    }

    fn heard_behind(&mut self, slot: Slot, head: u64, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        replica.head = replica.head.max(head);
        let again = replica
            .comparison
            .as_ref()
            .is_some_and(|comparison| comparison.head >= head);
        if again {
            return;
        }
        let fresh = replica.items.len() == 0;
        replica.complete = false;
        replica.comparison = Some(Comparison::new(head, fresh));
        let node = replica.node.clone();
        self.progress(&node);
        self.pump(&node, out);
    }

    /// Asks about the next ranges, as far as the window goes.
    fn pump(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        let Some(slot) = self.peers.get(node).and_then(|peer| peer.slot) else {
            return;
        };
        loop {
            let id = self.next_id();
            let Some(replica) = self.replicas.get_mut(&slot) else {
                return;
            };
            let Some(comparison) = &mut replica.comparison else {
                return;
            };
            if comparison.asked.len() >= WINDOW || comparison.todo.is_empty() {
                break;
            }
            let count = if comparison.fresh { 4 } else { MAX_RANGES };
            let rest = comparison.todo.len().saturating_sub(count);
            let mut spans = comparison.todo.split_off(rest);
            spans.reverse();
            let ranges = spans.iter().map(|&span| Range {
                span,
                digest: replica.items.digest_of(span).0,
                empty: replica.items.range(span).next().is_none(),
            });
            let compare = Message::Compare {
                of: replica.life,
                ask: id,
                ranges: ranges.collect(),
            };
            comparison.asked.insert(id, spans);
            out.push(Output::Send {
                to: node.clone(),
                bytes: encode(&compare),
            });
        }
        if let Some(peer) = self.peers.get(node) {
            self.timers
                .set(Timer::Ask(node.clone()), self.now + peer.ask_after);
        }
    }

    fn compared(&mut self, slot: Slot, ask: u64, at: u64, parts: Vec<Part>, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        let node = replica.node.clone();
        let Some(comparison) = &mut replica.comparison else {
            return;
        };
        let Some(ranges) = comparison.asked.remove(&ask) else {
            return;
        };
        if at < replica.seq {
            // It was overtaken: operations that came meanwhile are not in it.
            comparison.todo.extend(ranges.into_iter().rev());
            return self.pump(&node, out);
        }
        if !comparison.based {
            comparison.based = true;
            replica.seq = at;
        }
        replica.head = replica.head.max(at);
        let answered = parts.len();
        let mut later: Vec<(u64, u64)> = Vec::new();
        if let Some(rest) = ranges.get(answered..) {
            later.extend(rest.iter().rev());
        }
        let mut fills = Vec::new();
        for (&range, part) in ranges.iter().zip(parts).rev() {
            match part {
                Part::Same => {}
                Part::Split => later.extend(split(range).into_iter().flatten()),
                // Nobody asked for that. What it leaves out shows in the digest of the whole.
                Part::Fill { upto, .. } if !(range.0..=range.1).contains(&upto) => {}
                Part::Fill { upto, items } => {
                    if upto < range.1 {
                        later.push((upto + 1, range.1));
                    }
                    fills.push(((range.0, upto), items));
                }
            }
        }
        comparison.todo.extend(later);
        if comparison.todo.len() > MAX_TODO {
            // Only an owner that never fills a range gets here. It is asked again some time.
            replica.comparison = None;
            return;
        }
        for (span, items) in fills.into_iter().rev() {
            self.fill_range(slot, span, at, items, out);
        }
        self.progress(&node);
        self.pump(&node, out);
        let Some(replica) = self.replicas.get_mut(&slot) else {
            return;
        };
        if replica.comparison.as_ref().is_some_and(Comparison::is_done) {
            replica.comparison = None;
            replica.complete = true;
            if replica.seq >= replica.head {
                self.timers.cancel(&Timer::Ask(node.clone()));
                self.rise_if_back(slot);
            }
            self.timers
                .hasten(Timer::Acknowledge(node), self.now + ACKNOWLEDGE_AFTER);
            self.settle_deferred(slot, out);
        }
    }

    /// Makes a range what its owner says it was at number `at`.
    fn fill_range(
        &mut self,
        slot: Slot,
        span: (u64, u64),
        at: u64,
        items: Vec<(Key, Item)>,
        out: &mut Vec<Output>,
    ) {
        let Some(replica) = self.replicas.get(&slot) else {
            return;
        };
        if !items.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        let gone: Vec<Key> = replica
            .items
            .range(span)
            .filter(|(key, item)| {
                item.seq <= at && items.binary_search_by(|(other, _)| other.cmp(key)).is_err()
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.drop(slot, &key, at, Gone::Missed, out);
        }
        for (key, item) in items {
            if (span.0..=span.1).contains(&key.hash()) && item.seq <= at {
                self.put(slot, key, item, out);
            }
        }
    }
}
