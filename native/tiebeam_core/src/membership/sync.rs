//! Tables: what gossip missed is mended by comparing all that two members hold (SWIM has none; memberlist: push-pull).
//!
//! The table is compared in parts, by digests. Who finds a difference sends what it holds in those parts and asks for the
//! same in return. What is sent goes out in messages of bounded size, a few per step.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::member::Status;
use super::{Membership, Timer, scale};
use crate::action::Action;
use crate::identity::NodeName;
use crate::message::{BUCKETS, Body, Broadcast, Claim, MAX_TABLE_BYTES, Message, Size, Word};
use crate::mutation::Mutation;
use crate::time::Instant;

/// The most parts of tables sent in one step, 64 KB: the others follow with the next round of gossip.
const PARTS_PER_STEP: usize = 4;

/// The most members that are sent tables at a time; others ask again.
const MAX_TABLES: usize = 64;

/// How many bytes of tables this node sends in a second when many ask at once: half a percent of what a gigabit carries,
/// and the table of a thousand members more than ten times. A seed that a thousand nodes find within seconds must not
/// fall behind with its pings for that; who waits meets others, and learns from them too.
const TABLE_BYTES_PER_SECOND: u64 = 512 * 1024;

/// How many bytes of tables may be sent at once after a quiet time, so that nobody waits for a few tables.
const TABLE_BURST_BYTES: u64 = 256 * 1024;

/// What may be sent of tables now.
#[derive(Debug)]
struct Budget {
    bytes: u64,
    at: Instant,
}

impl Budget {
    const fn full() -> Self {
        Self {
            bytes: TABLE_BURST_BYTES,
            at: Instant::ZERO,
        }
    }

    /// Time passed.
    fn refill(&mut self, now: Instant) {
        let micros = now.since(self.at).as_micros().min(1_000_000);
        let more = micros * TABLE_BYTES_PER_SECOND / 1_000_000;
        self.bytes = (self.bytes + more).min(TABLE_BURST_BYTES);
        self.at = now;
    }

    /// There is room for one more message of any size.
    const fn has_room(&self) -> bool {
        self.bytes >= MAX_TABLE_BYTES as u64
    }

    /// Many have asked lately.
    const fn is_low(&self) -> bool {
        self.bytes < TABLE_BURST_BYTES / 2
    }

    const fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// FNV-1a, 64 bits, with a final mix: no guard against malice, which a member has simpler means for.
#[derive(Debug)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        // So that "ab", "c" and "a", "bc" differ.
        self.0 = (self.0 ^ 0xFF).wrapping_mul(0x0100_0000_01B3);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    pub(super) const fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    }

    pub(super) const fn folded(&self) -> u32 {
        (self.finish() >> 32) as u32 ^ self.finish() as u32
    }
}

/// The part of the table that a name belongs to.
fn bucket(name: &NodeName) -> usize {
    let mut hash = Hash::new();
    hash.bytes(name.as_str().as_bytes());
    (hash.finish() % BUCKETS as u64) as usize
}

/// The tables that are being sent, and with whom they were exchanged last.
#[derive(Debug)]
pub(super) struct Tables {
    partner: Option<NodeName>,
    /// Nobody has sent a table to this node yet.
    fresh: bool,
    sending: BTreeMap<NodeName, Sending>,
    /// Who was sent a part last: the next one after it is served next.
    served: Option<NodeName>,
    budget: Budget,
}

#[derive(Debug)]
struct Sending {
    parts: u32,
    /// To be asked for in return, with the first message.
    wanted: u32,
    want_broadcasts: bool,
    /// The last name that was sent.
    after: Option<NodeName>,
    members_done: bool,
    broadcasts: Vec<Broadcast>,
}

impl Tables {
    pub(super) const fn new() -> Self {
        Self {
            partner: None,
            fresh: true,
            sending: BTreeMap::new(),
            served: None,
            budget: Budget::full(),
        }
    }

    /// Who is to be sent the next part: all in turn, so that nobody waits for ever while others come.
    fn next_receiver(&mut self) -> Option<(NodeName, Sending)> {
        let next = match &self.served {
            Some(served) => {
                let later = (Bound::Excluded(served), Bound::Unbounded);
                self.sending.range::<NodeName, _>(later).next()
            }
            None => None,
        };
        let (name, _) = next.or_else(|| self.sending.first_key_value())?;
        let entry = self.sending.remove_entry(&name.clone())?;
        self.served = Some(entry.0.clone());
        Some(entry)
    }

    pub(super) fn stop(&mut self, name: &NodeName) {
        self.sending.remove(name);
    }
}

impl Membership {
    pub(super) fn schedule_sync(&mut self, now: Instant) {
        let interval = scale::sync_interval(self.timing.sync_interval, self.count());
        let at = now + self.random.jitter(interval);
        self.timers.set(Timer::Sync, at);
    }

    /// There is news that a partner should hear of soon.
    pub(super) fn hasten_sync(&mut self, now: Instant) {
        let soon = now + self.random.jitter(self.timing.greet_first);
        self.timers.hasten(Timer::Sync, soon);
    }

    /// Compares tables with the next member.
    pub(super) fn sync(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.schedule_sync(now);
        if self.is(Mutation::NoPushPull) {
            return;
        }
        if let Some(partner) = self.next_partner() {
            self.compare_with(now, &partner, actions);
            self.tables.partner = Some(partner);
        }
    }

    /// A member was met for the first time, or anew: a newcomer, or two halves, should not wait for the next round.
    pub(super) fn met(
        &mut self,
        now: Instant,
        name: &NodeName,
        was_dead: bool,
        actions: &mut Vec<Action>,
    ) {
        if self.tables.fresh || (was_dead && !self.is(Mutation::NoPushPull)) {
            self.compare_with(now, name, actions);
        }
    }

    fn compare_with(&mut self, now: Instant, partner: &NodeName, actions: &mut Vec<Action>) {
        self.metrics.syncs += 1;
        self.broadcasts.sweep(now);
        let body = Body::Digest {
            members: self.digests(),
            broadcasts: self.broadcasts.digest(),
        };
        self.send(now, partner, body, actions);
    }

    /// Members in turn, so that each is compared with within a bounded time; the first at random, so that nodes that
    /// start together do not all ask the same one.
    fn next_partner(&mut self) -> Option<NodeName> {
        let able = |(_, peer): &(&NodeName, &super::Peer)| peer.partner().is_some();
        let partners = || self.peers.iter().filter(able).map(|(name, _)| name);
        match &self.tables.partner {
            Some(last) => {
                let range = (Bound::Excluded(last), Bound::Unbounded);
                let mut later = self.peers.range::<NodeName, _>(range).filter(able);
                later
                    .next()
                    .map(|(name, _)| name)
                    .or_else(|| partners().next())
                    .cloned()
            }
            None => {
                let count = partners().count() as u64;
                let chosen = self.random.below(count) as usize;
                let partners = self.peers.iter().filter(able).map(|(name, _)| name);
                partners.skip(chosen).map(NodeName::clone).next()
            }
        }
    }

    /// A digest of who is here, this node included. The dead are left out: who came later never knew them.
    fn digests(&self) -> [u32; BUCKETS] {
        let mut digests = [0; BUCKETS];
        let here = self
            .peers
            .values()
            .filter_map(|peer| Some((peer.here()?, peer.told)));
        for (member, told) in here.chain(core::iter::once((&self.me, Some(self.told)))) {
            let mut hash = Hash::new();
            hash.bytes(member.node.as_str().as_bytes());
            hash.number(u64::from(member.creation));
            hash.number(member.incarnation);
            hash.number(u64::from(member.status == Status::Suspect));
            hash.number(told.map_or(0, |told| told.wrapping_add(1)));
            digests[bucket(&member.node)] ^= hash.folded();
        }
        digests
    }

    /// A member says what it holds, in short.
    pub(super) fn hear_digest(
        &mut self,
        now: Instant,
        from: NodeName,
        members: &[u32; BUCKETS],
        broadcasts: u32,
        actions: &mut Vec<Action>,
    ) {
        self.broadcasts.sweep(now);
        let own = self.digests();
        let differs = |at: &usize| own[*at] != members[*at];
        let parts = (0..BUCKETS)
            .filter(differs)
            .fold(0, |parts, at| parts | 1 << at);
        // Who is asked by many at once asks none of them in return: its own rounds find what it lacks.
        self.tables.budget.refill(now);
        let wanted = match self.tables.budget.is_low() {
            true => 0,
            false => parts,
        };
        let want_broadcasts = broadcasts != self.broadcasts.digest();
        if parts == 0 && !want_broadcasts {
            self.metrics.syncs_equal += 1;
            self.tables.fresh = false;
            return;
        }
        self.send_table(
            now,
            from,
            parts,
            wanted,
            want_broadcasts,
            want_broadcasts,
            actions,
        );
    }

    /// A member sent a part of its table, whose words were heard already.
    pub(super) fn hear_table(
        &mut self,
        now: Instant,
        from: NodeName,
        wanted: u32,
        broadcasts: bool,
        actions: &mut Vec<Action>,
    ) {
        self.tables.fresh = false;
        if wanted != 0 || broadcasts {
            self.send_table(now, from, wanted, 0, broadcasts, false, actions);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is sent and what is wanted, of two kinds"
    )]
    fn send_table(
        &mut self,
        now: Instant,
        to: NodeName,
        parts: u32,
        wanted: u32,
        broadcasts: bool,
        want_broadcasts: bool,
        actions: &mut Vec<Action>,
    ) {
        let full = self.tables.sending.len() >= MAX_TABLES;
        if full && !self.tables.sending.contains_key(&to) {
            return;
        }
        let broadcasts = match broadcasts {
            true => self.broadcasts.all(now),
            false => Vec::new(),
        };
        let sending = Sending {
            parts,
            wanted,
            want_broadcasts,
            after: None,
            members_done: parts == 0,
            broadcasts,
        };
        self.tables.sending.insert(to, sending);
        self.send_tables(now, actions);
    }

    /// Sends the next parts.
    pub(super) fn send_tables(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.tables.budget.refill(now);
        for _ in 0..PARTS_PER_STEP {
            if !self.tables.budget.has_room() {
                break;
            }
            let Some((to, mut sending)) = self.tables.next_receiver() else {
                return;
            };
            let message = self.next_part(&mut sending);
            self.tables.budget.spend(message.size());
            self.transmit(&to, &message, actions);
            if !(sending.members_done && sending.broadcasts.is_empty()) {
                self.tables.sending.insert(to, sending);
            }
        }
        if !self.tables.sending.is_empty() {
            self.timers
                .set(Timer::Tables, now + self.timing.gossip_interval);
        }
    }

    fn next_part(&self, sending: &mut Sending) -> Message {
        let mut message = self.message(Body::Table {
            wanted: core::mem::take(&mut sending.wanted),
            broadcasts: core::mem::take(&mut sending.want_broadcasts),
        });
        let mut room = MAX_TABLE_BYTES - message.size();
        if !sending.members_done {
            sending.members_done = true;
            let me = core::iter::once((&self.me.node, None));
            let others = self.peers.iter().map(|(name, peer)| (name, Some(peer)));
            let after = sending.after.clone();
            // This node itself goes first; `after` is then one of the others.
            let first = me.filter(|_| after.is_none());
            let others =
                others.filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
            for (name, peer) in first.chain(others) {
                if sending.parts & 1 << bucket(name) == 0 {
                    continue;
                }
                let word = match peer {
                    None => Some(self.word_of_me()),
                    Some(peer) => self.table_word(peer),
                };
                let Some(word) = word else {
                    continue;
                };
                let size = word.size();
                if size > room {
                    sending.members_done = false;
                    break;
                }
                room -= size;
                message.words.push(word);
                if peer.is_some() {
                    sending.after = Some(name.clone());
                }
            }
        }
        while let Some(broadcast) = sending.broadcasts.last() {
            let size = broadcast.size();
            if size > room || message.broadcasts.len() >= usize::from(u8::MAX) {
                break;
            }
            room -= size;
            message.broadcasts.extend(sending.broadcasts.pop());
        }
        message
    }

    /// What a table says of a member: always with its metadata.
    fn table_word(&self, peer: &super::Peer) -> Option<Word> {
        let mut word = self.word_of(peer)?;
        word.metadata = peer.metadata();
        Some(word)
    }

    /// A word in a table of `from`. A death there is a suspicion here (memberlist's rule): the table may be old, and who is
    /// alive can still refute it.
    pub(super) fn hear_entry(
        &mut self,
        now: Instant,
        from: &NodeName,
        mut word: Word,
        actions: &mut Vec<Action>,
    ) {
        let here = self
            .peers
            .get(&word.node)
            .is_some_and(|peer| peer.here().is_some());
        if word.claim == Claim::Dead && word.node != self.me.node {
            if !here {
                return;
            }
            word.claim = Claim::Suspect { by: from.clone() };
        }
        self.hear(now, word, actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the largest messages are sent from `from` to `until`, when there is always one more, every ten ms.
    fn messages(budget: &mut Budget, from: u64, until: u64) -> u64 {
        let mut sent = 0;
        for millis in (from..until).step_by(10) {
            budget.refill(Instant::from_millis(millis));
            while budget.has_room() {
                budget.spend(MAX_TABLE_BYTES);
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn what_many_ask_for_is_sent_at_a_bounded_rate() {
        let size = MAX_TABLE_BYTES as u64;
        let mut budget = Budget::full();
        assert_eq!(messages(&mut budget, 0, 1), TABLE_BURST_BYTES / size);
        assert!(budget.is_low());
        let sent = messages(&mut budget, 10, 10_000) * size;
        assert!(
            sent <= TABLE_BYTES_PER_SECOND * 10,
            "{sent} bytes in ten seconds"
        );
        assert!(
            sent >= TABLE_BYTES_PER_SECOND * 9,
            "{sent} bytes in ten seconds"
        );
        // A quiet minute counts for one burst, and no more.
        assert_eq!(
            messages(&mut budget, 70_000, 70_001),
            TABLE_BURST_BYTES / size
        );
    }

    #[test]
    fn all_who_wait_are_served_in_turn() {
        let sending = || Sending {
            parts: 0,
            wanted: 0,
            want_broadcasts: false,
            after: None,
            members_done: true,
            broadcasts: Vec::new(),
        };
        let mut tables = Tables::new();
        for name in ["a@h", "b@h", "c@h"] {
            tables
                .sending
                .insert(NodeName::parse(name).unwrap(), sending());
        }
        let served: Vec<_> = (0..6)
            .map(|_| {
                let (name, sending) = tables.next_receiver().unwrap();
                tables.sending.insert(name.clone(), sending);
                name
            })
            .collect();
        let order: Vec<_> = served.iter().map(NodeName::as_str).collect();
        assert_eq!(order, ["a@h", "b@h", "c@h", "a@h", "b@h", "c@h"]);
    }
}
