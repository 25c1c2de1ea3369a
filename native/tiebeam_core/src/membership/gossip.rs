//! What waits to be passed on: what was told least often goes first (SWIM, section 4.1).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Membership, Timer, scale};
use crate::action::Action;
use crate::identity::NodeName;
use crate::message::{Body, MAX_DATAGRAM_BYTES, Message, Size, Word, encode};
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

/// The most entries that are tried for the rest of a packet: entries differ in size by little.
const MAX_TRIED: usize = 64;

/// How long the dead, while connected, are told what goes on: so they can refute (memberlist: `GossipToTheDeadTime`).
const DEAD_HEAR_FOR: Duration = Duration::from_secs(30);

/// A queue of things to tell, one per key, each told a bounded number of times.
#[derive(Debug)]
pub(super) struct Queue<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Told how often, then the newest first.
    order: BTreeSet<(u32, u64, K)>,
    serial: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    told: u32,
    serial: u64,
}

impl<K: Ord + Clone, V: Size + Clone> Queue<K, V> {
    pub(super) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            serial: u64::MAX,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Replaces what was to be told of `key`: it is news again.
    pub(super) fn put(&mut self, key: K, value: V) {
        self.remove(&key);
        self.serial -= 1;
        let serial = self.serial;
        self.order.insert((0, serial, key.clone()));
        let entry = Entry {
            value,
            told: 0,
            serial,
        };
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&(entry.told, entry.serial, key.clone()));
        }
    }

    /// Takes what fits `room` bytes and is of use; each entry is taken at most `limit` times.
    pub(super) fn take(
        &mut self,
        room: &mut usize,
        limit: u32,
        of_use: impl Fn(&K) -> bool,
    ) -> Vec<V> {
        let mut taken = Vec::new();
        let mut told = Vec::new();
        for key in self.order.iter().take(MAX_TRIED) {
            let (_, _, name) = key;
            let Some(entry) = self.entries.get(name) else {
                continue;
            };
            let size = entry.value.size();
            if size <= *room && of_use(name) {
                *room -= size;
                taken.push(entry.value.clone());
                told.push(key.clone());
            }
        }
        for key in told {
            self.order.remove(&key);
            let (_, serial, name) = key;
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.told += 1;
                if entry.told < limit {
                    self.order.insert((entry.told, serial, name));
                } else {
                    self.entries.remove(&name);
                }
            }
        }
        taken
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert_eq!(
            self.entries.len(),
            self.order.len(),
            "an entry is queued twice"
        );
    }
}

impl Membership {
    /// Passes a word on.
    pub(super) fn spread(&mut self, now: Instant, word: Word) {
        self.gossip.put(word.node.clone(), word);
        self.hasten_gossip(now);
    }

    pub(super) fn hasten_gossip(&mut self, now: Instant) {
        let at = now + self.random.jitter(self.timing.gossip_interval);
        self.timers.hasten(Timer::Gossip, at);
    }

    /// How often a word is passed on now.
    fn retransmits(&self) -> u32 {
        let multiplier = self.timing.retransmit_multiplier;
        let grown = match self.health.lossy() && !self.is(Mutation::NoRetransmitGrowth) {
            true => multiplier * 2,
            false => multiplier,
        };
        scale::retransmits(grown, self.count())
    }

    /// A round of gossip.
    pub(super) fn gossip(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.gossip.is_empty() && self.broadcasts.is_empty() {
            return;
        }
        let fanout = self.timing.gossip_fanout as usize;
        let targets = self.pick(fanout, |peer| {
            peer.link.is_some()
                && peer
                    .member
                    .as_ref()
                    .is_some_and(|member| match member.status {
                        super::Status::Alive | super::Status::Suspect => true,
                        super::Status::Dead => now.since(peer.changed) < DEAD_HEAR_FOR,
                        super::Status::Left => false,
                    })
        });
        // Who is alone has nobody to tell; the next who comes compares tables.
        let alone = targets.is_empty();
        for target in targets {
            if self.gossip.is_empty() && self.broadcasts.is_empty() {
                break;
            }
            self.send(now, &target, Body::Gossip, actions);
        }
        if !(alone || self.gossip.is_empty() && self.broadcasts.is_empty()) {
            self.timers
                .set(Timer::Gossip, now + self.timing.gossip_interval);
        }
    }

    /// Sends a message, with what the receiver should know of itself, and what else fits.
    pub(super) fn send(
        &mut self,
        now: Instant,
        to: &NodeName,
        body: Body,
        actions: &mut Vec<Action>,
    ) {
        let words = self.buddy(to).into_iter().collect();
        self.send_with(now, to, body, words, actions);
    }

    pub(super) fn send_with(
        &mut self,
        now: Instant,
        to: &NodeName,
        body: Body,
        words: Vec<Word>,
        actions: &mut Vec<Action>,
    ) {
        let small = match body {
            Body::Ping { .. }
            | Body::Ack { .. }
            | Body::PingReq { .. }
            | Body::Nack { .. }
            | Body::Gossip => true,
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::Refused { .. }
            | Body::Leave
            | Body::Digest { .. }
            | Body::Table { .. } => false,
        };
        let mut message = self.message(body);
        message.words = words;
        if small && message.size() > MAX_DATAGRAM_BYTES {
            // Names and metadata of the greatest length at once: the answer to the next message has room for the word.
            message.words.clear();
        }
        if small && self.peers.get(to).is_some_and(|peer| peer.link.is_some()) {
            let limit = self.retransmits();
            let mut room = MAX_DATAGRAM_BYTES - message.size();
            // Words and broadcasts take turns, so that neither starves while there is much of the other.
            self.turn = !self.turn;
            if self.turn {
                message.broadcasts = self.broadcasts.take(now, &mut room, limit, to);
            }
            message
                .words
                .extend(self.gossip.take(&mut room, limit, |name| name != to));
            if !self.turn {
                message.broadcasts = self.broadcasts.take(now, &mut room, limit, to);
            }
        }
        self.transmit(to, &message, actions);
    }

    /// A message of this node, with nothing riding along.
    pub(super) fn message(&self, body: Body) -> Message {
        Message {
            cluster: self.cluster_digest,
            creation: self.me.creation,
            incarnation: self.me.incarnation,
            body,
            words: Vec::new(),
            broadcasts: Vec::new(),
        }
    }

    pub(super) fn transmit(&mut self, to: &NodeName, message: &Message, actions: &mut Vec<Action>) {
        let bytes = encode(message);
        self.metrics.sent += 1;
        self.metrics.sent_bytes += bytes.len() as u64;
        actions.push(Action::Send {
            to: to.clone(),
            bytes,
        });
    }
}
