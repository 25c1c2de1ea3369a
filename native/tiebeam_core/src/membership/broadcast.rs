//! User broadcasts: each is delivered once, passed on like words, and kept a while for who missed it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Membership;
use super::gossip::Queue;
use super::member::MAX_BROADCAST_BYTES;
use crate::action::{Action, Answer, Notice};
use crate::identity::NodeName;
use crate::message::{Broadcast, BroadcastId};
use crate::time::{Duration, Instant};

/// The most broadcasts of this node that are on their way at a time.
pub(super) const MAX_BROADCASTS: usize = 64;

/// The most broadcasts of all nodes that are kept: 140 KB of the longest ones. Of more, those that end first are dropped.
const MAX_KEPT: usize = 256;

/// How long a broadcast is kept for members that missed it, counted from its first word: also who joins in that time
/// hears it.
const LIFE: Duration = Duration::from_secs(60);

/// How long it is remembered that a broadcast was delivered: twice as long as any copy of it lives, clocks apart.
const REMEMBERED: Duration = Duration::from_secs(120);

/// The most deliveries that are remembered. Beyond 4096 in two minutes one may be delivered twice.
const MAX_REMEMBERED: usize = 4096;

#[derive(Debug)]
pub(super) struct Broadcasts {
    /// The number of the next one of this node.
    next: u64,
    queue: Queue<BroadcastId, Broadcast>,
    kept: BTreeMap<BroadcastId, (Instant, Arc<[u8]>)>,
    ends: BTreeSet<(Instant, BroadcastId)>,
    seen: BTreeMap<BroadcastId, Instant>,
    forget: BTreeSet<(Instant, BroadcastId)>,
}

impl Broadcasts {
    /// `first` is the first number: a second core within one creation must not repeat the first one's.
    pub(super) const fn new(first: u64) -> Self {
        Self {
            next: first,
            queue: Queue::new(),
            kept: BTreeMap::new(),
            ends: BTreeSet::new(),
            seen: BTreeMap::new(),
            forget: BTreeSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Of this node's own broadcasts, how many are still being passed on.
    fn under_way(&self, me: &NodeName) -> usize {
        let first = BroadcastId {
            origin: me.clone(),
            creation: 0,
            number: 0,
        };
        let own = self
            .kept
            .range(first..)
            .take_while(|(id, _)| id.origin == *me);
        own.filter(|(id, _)| self.queue.contains(id)).count()
    }

    /// Takes a broadcast that is new. False when it was delivered before, or its time is over.
    fn take_in(&mut self, now: Instant, broadcast: &Broadcast) -> bool {
        let remaining = Duration::from_millis(u64::from(broadcast.remaining)).min(LIFE);
        if self.seen.contains_key(&broadcast.id) || remaining == Duration::ZERO {
            return false;
        }
        self.sweep(now);
        let id = broadcast.id.clone();
        self.remember(now, id.clone());
        self.keep(now + remaining, id.clone(), broadcast.bytes.clone());
        self.queue.put(id, broadcast.clone());
        true
    }

    fn remember(&mut self, now: Instant, id: BroadcastId) {
        if self.seen.len() >= MAX_REMEMBERED
            && let Some((_, oldest)) = self.forget.pop_first()
        {
            self.seen.remove(&oldest);
        }
        let until = now + REMEMBERED;
        self.seen.insert(id.clone(), until);
        self.forget.insert((until, id));
    }

    fn keep(&mut self, until: Instant, id: BroadcastId, bytes: Arc<[u8]>) {
        if self.kept.len() >= MAX_KEPT
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.kept.remove(&first);
            self.queue.remove(&first);
        }
        self.kept.insert(id.clone(), (until, bytes));
        self.ends.insert((until, id));
    }

    /// Drops what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|&(until, _)| until <= now) {
            if let Some((_, id)) = self.ends.pop_first() {
                self.kept.remove(&id);
                self.queue.remove(&id);
            }
        }
        while self.forget.first().is_some_and(|&(until, _)| until <= now) {
            if let Some((_, id)) = self.forget.pop_first() {
                self.seen.remove(&id);
            }
        }
    }

    /// What rides along on a message to `to`.
    pub(super) fn take(
        &mut self,
        now: Instant,
        room: &mut usize,
        limit: u32,
        to: &NodeName,
    ) -> Vec<Broadcast> {
        let taken = self.queue.take(room, limit, |id| id.origin != *to);
        let aged = taken
            .into_iter()
            .filter_map(|broadcast| self.aged(now, broadcast.id));
        aged.collect()
    }

    /// A copy with the time that is left.
    fn aged(&self, now: Instant, id: BroadcastId) -> Option<Broadcast> {
        let (until, bytes) = self.kept.get(&id)?;
        let remaining = u32::try_from(until.since(now).as_micros() / 1000).unwrap_or(u32::MAX);
        (remaining > 0).then(|| Broadcast {
            id,
            remaining,
            bytes: bytes.clone(),
        })
    }

    /// All that are kept, for who asks.
    pub(super) fn all(&self, now: Instant) -> Vec<Broadcast> {
        let ids = self.kept.keys().cloned();
        ids.filter_map(|id| self.aged(now, id)).collect()
    }

    /// A digest of which are kept.
    pub(super) fn digest(&self) -> u32 {
        self.kept.keys().fold(0, |digest, id| {
            let mut hash = super::sync::Hash::new();
            hash.bytes(id.origin.as_str().as_bytes());
            hash.number(u64::from(id.creation));
            hash.number(id.number);
            digest ^ hash.folded()
        })
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        self.queue.check();
        assert!(self.kept.len() <= MAX_KEPT && self.kept.len() == self.ends.len());
        assert!(self.seen.len() <= MAX_REMEMBERED && self.seen.len() == self.forget.len());
    }
}

impl Membership {
    /// A local caller tells all members something.
    pub(crate) fn broadcast(&mut self, now: Instant, bytes: Vec<u8>) -> Answer {
        if bytes.len() > MAX_BROADCAST_BYTES {
            return Answer::TooLong {
                bytes: bytes.len(),
                limit: MAX_BROADCAST_BYTES,
            };
        }
        self.broadcasts.sweep(now);
        if self.broadcasts.under_way(&self.me.node) >= MAX_BROADCASTS {
            return Answer::Busy {
                limit: MAX_BROADCASTS,
            };
        }
        let id = BroadcastId {
            origin: self.me.node.clone(),
            creation: self.me.creation,
            number: self.broadcasts.next,
        };
        self.broadcasts.next = self.broadcasts.next.wrapping_add(1);
        self.broadcasts.take_in(
            now,
            &Broadcast {
                id,
                remaining: (LIFE.as_micros() / 1000) as u32,
                bytes: Arc::from(bytes),
            },
        );
        self.hasten_gossip(now);
        Answer::Done
    }

    /// A broadcast rode along on a message.
    pub(super) fn hear_broadcast(
        &mut self,
        now: Instant,
        broadcast: Broadcast,
        actions: &mut Vec<Action>,
    ) {
        let own = broadcast.id.origin == self.me.node;
        if own || !self.broadcasts.take_in(now, &broadcast) {
            return;
        }
        self.hasten_gossip(now);
        actions.push(Action::Notify(Notice::Broadcast {
            from: broadcast.id.origin,
            bytes: broadcast.bytes.to_vec(),
        }));
    }
}
