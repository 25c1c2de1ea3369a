//! The other side: applies operations, and asks for what is missing.

use alloc::vec::Vec;

use crate::identity::NodeName;
use crate::registry::entry::{Item, Life};
use crate::registry::items::MAX_ENTRIES;
use crate::registry::key::{Key, What};
use crate::registry::message::{MAX_NUMBER, MAX_RANGES, Message, Operation, Part, Range, encode};
use crate::registry::output::{Change, Departure, Gone, Output};
use crate::registry::replica::{Comparison, MAX_TODO, Replica, Slot, WINDOW, split};
use crate::registry::{ACKNOWLEDGE_AFTER, ASK_AFTER, PATIENCE, Registry, Timer};

/// A receiver of so many operations acknowledges them at once.
const ACKNOWLEDGE_EVERY: usize = 4096;

impl Registry {
    /// The replica that holds a peer's items in the life it speaks of; nothing when that life is over.
    pub(super) fn replica_of(
        &mut self,
        node: &NodeName,
        life: Life,
        out: &mut Vec<Output>,
    ) -> Option<Slot> {
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

    pub(super) fn heard_operations(
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

    pub(super) fn put(&mut self, slot: Slot, key: Key, item: Item, out: &mut Vec<Output>) {
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
    pub(super) fn drop(
        &mut self,
        slot: Slot,
        key: &Key,
        seq: u64,
        gone: Gone,
        out: &mut Vec<Output>,
    ) {
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
    pub(super) fn refuse(&mut self, slot: Slot, out: &mut Vec<Output>) {
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
    pub(super) fn progress(&mut self, node: &NodeName) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.ask_after = ASK_AFTER;
        }
        if self.timers.is_set(&Timer::Ask(node.clone())) {
            self.timers
                .set(Timer::Ask(node.clone()), self.now + ASK_AFTER);
        }
    }

    /// Asks an owner for what is behind the replica's number.
    pub(super) fn want(&mut self, node: &NodeName, out: &mut Vec<Output>) {
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

    pub(super) fn send_have(&mut self, node: &NodeName, want: bool, out: &mut Vec<Output>) {
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
    pub(super) fn resume(&mut self, node: &NodeName) -> bool {
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

    pub(super) fn heard_behind(&mut self, slot: Slot, head: u64, out: &mut Vec<Output>) {
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
    pub(super) fn pump(&mut self, node: &NodeName, out: &mut Vec<Output>) {
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

    pub(super) fn compared(
        &mut self,
        slot: Slot,
        ask: u64,
        at: u64,
        parts: Vec<Part>,
        out: &mut Vec<Output>,
    ) {
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
    pub(super) fn fill_range(
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
