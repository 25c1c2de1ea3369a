//! Who has a name. Every node that knows of the same registrations gives the same answer; the owner of one that lost
//! withdraws it.
//!
//! The oldest registration keeps the name, by (Lamport stamp, node, creation, pid). If its owner asked to resolve
//! conflicts, the younger ones wait for its verdict, which is part of its item: whom it beat, and whether it is void.

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::entry::{self, Claimant, Item, MAX_BEATEN, OnConflict, Verdict};
use super::key::Key;
use super::output::{Change, Gone, Loss, Output};
use super::replica::{OWN, Replica, Slot};
use super::{PATIENCE, PROMOTE_AFTER, Registry, Timer};
use crate::identity::NodeName;
use crate::time::Duration;

/// What is known of one name.
#[derive(Debug)]
pub(crate) struct Standing {
    holders: Holders,
    shown: Option<Row>,
}

/// The replicas with a registration of the name: almost always one.
#[derive(Debug)]
enum Holders {
    One(Slot),
    Many(Vec<Slot>),
}

/// What the table shows.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) slot: Slot,
    pub(crate) seq: u64,
    pub(crate) pid: Arc<[u8]>,
}

/// A process that waits for a name that it lost.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) pid: Arc<[u8]>,
    pub(crate) meta: Arc<[u8]>,
    pub(crate) resolve: bool,
    pub(crate) attempts: u8,
}

/// A verdict that was asked for.
#[derive(Debug)]
pub(crate) struct Dispute {
    key: Key,
    stamp: u64,
    rival: Claimant,
}

/// Whose the name shall be. The answer to [`Output::Resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The older registration.
    Older,
    /// The younger one.
    Younger,
    /// No one: both processes are told.
    Neither,
}

/// What becomes of this node's own registration.
enum Fate {
    Withdraw {
        kept: Option<Arc<[u8]>>,
    },
    /// Nobody is left that the void item must keep away.
    Discard,
    Resolve {
        rival: Claimant,
    },
}

struct Claim<'a> {
    slot: Slot,
    node: &'a NodeName,
    creation: u32,
    item: &'a Item,
}

impl Claim<'_> {
    fn rank(&self) -> (u64, &NodeName, u32, &[u8]) {
        (self.item.stamp, self.node, self.creation, &self.item.pid)
    }
}

impl Holders {
    fn slots(&self) -> &[Slot] {
        match self {
            Self::One(slot) => core::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn add(&mut self, slot: Slot) {
        match self {
            Self::One(one) if *one == slot => {}
            Self::One(one) => *self = Self::Many(vec![*one, slot]),
            Self::Many(slots) => {
                if !slots.contains(&slot) {
                    slots.push(slot);
                }
            }
        }
    }

    /// Whether any is left.
    fn remove(&mut self, slot: Slot) -> bool {
        match self {
            Self::One(one) => *one != slot,
            Self::Many(slots) => {
                slots.retain(|&other| other != slot);
                if let [one] = slots[..] {
                    *self = Self::One(one);
                }
                true
            }
        }
    }
}

impl Registry {
    /// A replica has a new or another item for a name; it holds the item already. The `same` as the one before, as far as
    /// the table shows it.
    pub(crate) fn claim(
        &mut self,
        slot: Slot,
        key: &Key,
        item: &Item,
        same: bool,
        out: &mut Vec<Output>,
    ) {
        let row = Row {
            slot,
            seq: item.seq,
            pid: item.pid.clone(),
        };
        // Nobody else has it: the usual case, at a fraction of the cost of settling.
        let was = match self.names.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                let shown = (!item.is_void()).then_some(row);
                vacant.insert(Standing {
                    holders: Holders::One(slot),
                    shown,
                });
                if item.is_void() {
                    return self.settle(key, Gone::Lost, out);
                }
                None
            }
            Entry::Occupied(mut occupied) => {
                let standing = occupied.get_mut();
                let shown = standing
                    .shown
                    .as_mut()
                    .filter(|shown| shown.slot == slot && !item.is_void());
                match (&standing.holders, shown) {
                    (Holders::One(one), Some(shown)) if *one == slot && !same => {
                        Some(core::mem::replace(shown, row).pid)
                    }
                    (_, shown) => {
                        if let Some(shown) = shown.filter(|_| same) {
                            *shown = row;
                        }
                        standing.holders.add(slot);
                        return self.settle(key, Gone::Lost, out);
                    }
                }
            }
        };
        let Some(entry) = self.entry_of(slot, key, item) else {
            return;
        };
        out.push(Output::Table(match was {
            None => Change::Registered(entry),
            Some(was) if was == entry.pid => Change::Updated(entry),
            Some(was) => Change::Replaced { entry, was },
        }));
    }

    /// A replica has no item for a name any more.
    pub(crate) fn unclaim(&mut self, slot: Slot, key: &Key, gone: Gone, out: &mut Vec<Output>) {
        let Some(standing) = self.names.get_mut(key) else {
            return;
        };
        if standing.holders.remove(slot) {
            self.settle(key, gone, out);
            return;
        }
        let shown = self.names.remove(key).and_then(|standing| standing.shown);
        if let Some(row) = shown.filter(|row| self.is_shown(row.slot)) {
            out.push(Output::Table(Change::Unregistered {
                key: key.clone(),
                pid: row.pid,
                gone,
            }));
        }
        self.promote(key);
    }

    /// Settles what was put off until a replica had caught up, if it has.
    pub(crate) fn settle_deferred(&mut self, slot: Slot, out: &mut Vec<Output>) {
        let caught_up = |replica: &Replica| replica.caught_up() || !replica.counts();
        if self.deferred.is_empty() || !self.replicas.get(&slot).is_none_or(caught_up) {
            return;
        }
        let from = (slot, Key::floor(0));
        let upto = (Slot(slot.0 + 1), Key::floor(0));
        let keys: Vec<_> = self.deferred.range(from..upto).cloned().collect();
        for deferred in keys {
            self.deferred.remove(&deferred);
            self.settle(&deferred.1, Gone::Lost, out);
        }
    }

    /// A replica is out of sight: names forget it. Its rows are gone already.
    pub(crate) fn disclaim(&mut self, slot: Slot, key: &Key, out: &mut Vec<Output>) {
        let Some(standing) = self.names.get_mut(key) else {
            return;
        };
        if standing.shown.as_ref().is_some_and(|row| row.slot == slot) {
            standing.shown = None;
        }
        self.unclaim(slot, key, Gone::Missed, out);
    }

    /// What the table shows for a name.
    pub(crate) fn row(&self, key: &Key) -> Option<&Row> {
        let row = self.names.get(key)?.shown.as_ref()?;
        self.is_shown(row.slot).then_some(row)
    }

    pub(crate) fn shown_names(&self) -> impl Iterator<Item = entry::Entry> {
        self.names.iter().filter_map(|(key, standing)| {
            let slot = standing.shown.as_ref()?.slot;
            self.is_shown(slot).then(|| self.entry(slot, key)).flatten()
        })
    }

    #[cfg(test)]
    pub(crate) fn check_names(&self) {
        for (key, standing) in &self.names {
            let holders = standing.holders.slots();
            assert!(!holders.is_empty());
            for &slot in holders {
                assert!(
                    self.claim_of(slot, key).is_some(),
                    "{key:?} knows a replica that does not hold it"
                );
            }
            assert_eq!(
                standing.shown.as_ref().map(|row| row.slot),
                self.winner(key, &standing.holders),
                "{key:?} shows another than it should"
            );
            assert!(!self.waiting.contains_key(key) || standing.shown.is_some());
        }
        let held: usize = core::iter::once(&self.items)
            .chain(self.replicas.values().map(|replica| &replica.items))
            .map(|items| {
                items
                    .iter()
                    .filter(|(key, _)| key.what() == super::What::Name)
                    .count()
            })
            .sum();
        let known: usize = self
            .names
            .values()
            .map(|standing| standing.holders.slots().len())
            .sum();
        assert_eq!(
            held, known,
            "registrations and what names know of them differ"
        );
    }

    fn is_shown(&self, slot: Slot) -> bool {
        slot == OWN
            || self
                .replicas
                .get(&slot)
                .is_some_and(|replica| replica.counts())
    }

    fn claim_of(&self, slot: Slot, key: &Key) -> Option<Claim<'_>> {
        let (node, creation, items) = if slot == OWN {
            (&self.me, self.life.creation, &self.items)
        } else {
            let replica = self
                .replicas
                .get(&slot)
                .filter(|replica| replica.counts())?;
            (&replica.node, replica.life.creation, &replica.items)
        };
        Some(Claim {
            slot,
            node,
            creation,
            item: items.get(key)?,
        })
    }

    pub(crate) fn entry(&self, slot: Slot, key: &Key) -> Option<entry::Entry> {
        self.entry_of(slot, key, self.claim_of(slot, key)?.item)
    }

    /// The row of an item of a replica.
    pub(crate) fn entry_of(&self, slot: Slot, key: &Key, item: &Item) -> Option<entry::Entry> {
        let (node, creation) = if slot == OWN {
            (&self.me, self.life.creation)
        } else {
            let replica = self.replicas.get(&slot)?;
            (&replica.node, replica.life.creation)
        };
        Some(entry::Entry {
            key: key.clone(),
            pid: item.pid.clone(),
            meta: item.meta.clone(),
            node: node.clone(),
            creation,
        })
    }

    /// The registrations that count. Beside one of this node's own only those of owners whose history ends here: in the
    /// middle of it a registration may end a line further down. The name is settled again when the end is reached.
    fn claims(&self, key: &Key, slots: &[Slot]) -> Vec<Claim<'_>> {
        let contested = slots.contains(&OWN);
        slots
            .iter()
            .filter(|&slot| {
                let mut replica = self.replicas.get(slot).into_iter();
                !contested || replica.all(Replica::caught_up)
            })
            .filter_map(|&slot| self.claim_of(slot, key))
            .collect()
    }

    /// Registrations that nobody beat and that have a process, the oldest first.
    fn candidates(&self, key: &Key, slots: &[Slot]) -> Vec<Claim<'_>> {
        let claims = self.claims(key, slots);
        let beaten = |claim: &Claim<'_>| {
            claims.iter().any(|other| {
                other
                    .item
                    .beats(claim.node, claim.creation, claim.item.stamp)
            })
        };
        let mut candidates: Vec<_> = claims
            .iter()
            .filter(|claim| !claim.item.is_void() && !beaten(claim))
            .map(|claim| Claim { ..*claim })
            .collect();
        candidates.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()));
        candidates
    }

    fn winner(&self, key: &Key, holders: &Holders) -> Option<Slot> {
        match holders {
            &Holders::One(slot) => {
                let claim = self.claim_of(slot, key)?;
                (!claim.item.is_void()).then_some(slot)
            }
            Holders::Many(slots) => self.candidates(key, slots).first().map(|claim| claim.slot),
        }
    }

    /// Brings the table, and this node's own registration, into line with what is known of a name.
    pub(crate) fn settle(&mut self, key: &Key, gone: Gone, out: &mut Vec<Output>) {
        let mut losses = Vec::new();
        while let Some(fate) = self.judge(key) {
            match fate {
                Fate::Withdraw { kept } => losses.extend(self.withdraw(key, kept)),
                Fate::Discard => {
                    self.remove_own(key, Gone::Unregistered);
                    if let Some(standing) = self.names.get_mut(key)
                        && !standing.holders.remove(OWN)
                    {
                        self.names.remove(key);
                    }
                }
                Fate::Resolve { rival } => {
                    self.ask_verdict(key, rival, out);
                    break;
                }
            }
        }
        self.show(key, gone, out);
        let slots = self.names.get(key).map(|standing| standing.holders.slots());
        if let Some(slots) = slots.filter(|slots| slots.len() > 1 && slots.contains(&OWN)) {
            self.contested.insert(key.clone());
            for &slot in slots {
                let replica = self.replicas.get(&slot);
                if replica.is_some_and(|replica| replica.counts() && !replica.caught_up()) {
                    self.deferred.insert((slot, key.clone()));
                }
            }
        } else if !self.contested.is_empty() {
            self.contested.remove(key);
        }
        out.extend(losses.into_iter().map(Output::Lost));
        self.promote(key);
    }

    fn judge(&self, key: &Key) -> Option<Fate> {
        let standing = self.names.get(key)?;
        let slots = match &standing.holders {
            Holders::One(OWN) => {
                let own = self.items.get(key)?;
                return own.is_void().then_some(Fate::Discard);
            }
            Holders::One(_) => return None,
            Holders::Many(slots) if slots.contains(&OWN) => slots,
            Holders::Many(_) => return None,
        };
        let own = self.items.get(key)?;
        let claims = self.claims(key, slots);
        if own.is_void() {
            // Whoever lost may not have heard of it, wherever its history has got to.
            let mut all = slots.iter().filter_map(|&slot| self.claim_of(slot, key));
            let kept_away =
                all.any(|claim| own.beats(claim.node, claim.creation, claim.item.stamp));
            return (!kept_away).then_some(Fate::Discard);
        }
        let candidates = self.candidates(key, slots);
        let oldest = candidates.first();
        if let Some(judge) = claims
            .iter()
            .find(|claim| claim.item.beats(&self.me, self.life.creation, own.stamp))
        {
            let kept = if judge.item.is_void() { None } else { oldest };
            return Some(Fate::Withdraw {
                kept: kept.map(|claim| claim.item.pid.clone()),
            });
        }
        let oldest = oldest?;
        if oldest.slot != OWN {
            return (!oldest.item.resolve).then(|| Fate::Withdraw {
                kept: Some(oldest.item.pid.clone()),
            });
        }
        let rival = candidates.get(1)?;
        own.resolve.then(|| Fate::Resolve {
            rival: Claimant {
                node: rival.node.clone(),
                creation: rival.creation,
                stamp: rival.item.stamp,
            },
        })
    }

    /// Takes this node's own registration back. The loss is told after the table shows it.
    fn withdraw(&mut self, key: &Key, kept: Option<Arc<[u8]>>) -> Option<Loss> {
        let item = self.remove_own(key, Gone::Lost)?;
        if let Some(standing) = self.names.get_mut(key)
            && !standing.holders.remove(OWN)
        {
            self.names.remove(key);
        }
        // One process that is registered by two nodes: it keeps the name.
        if kept.as_ref() == Some(&item.pid) {
            return None;
        }
        if item.on_conflict == OnConflict::Standby && kept.is_some() {
            self.processes
                .insert((crate::hash::siphash(&item.pid), key.clone()));
            self.waiting.insert(
                key.clone(),
                Waiting {
                    pid: item.pid.clone(),
                    meta: item.meta,
                    resolve: item.resolve,
                    attempts: item.attempts,
                },
            );
        }
        Some(Loss {
            key: key.clone(),
            pid: item.pid,
            kept,
            on_conflict: item.on_conflict,
        })
    }

    fn show(&mut self, key: &Key, gone: Gone, out: &mut Vec<Output>) {
        let Some(standing) = self.names.get(key) else {
            return;
        };
        let winner = self.winner(key, &standing.holders);
        let shown = standing
            .shown
            .as_ref()
            .filter(|row| self.is_shown(row.slot));
        let entry = winner.and_then(|slot| self.entry(slot, key));
        let seq = winner.and_then(|slot| Some(self.claim_of(slot, key)?.item.seq));
        let change = match (shown, entry) {
            (None, None) => None,
            (Some(row), None) => Some(Change::Unregistered {
                key: key.clone(),
                pid: row.pid.clone(),
                gone,
            }),
            (None, Some(entry)) => Some(Change::Registered(entry)),
            (Some(row), Some(_)) if Some(row.slot) == winner && Some(row.seq) == seq => None,
            (Some(row), Some(entry)) if row.pid == entry.pid => Some(Change::Updated(entry)),
            (Some(row), Some(entry)) => Some(Change::Replaced {
                was: row.pid.clone(),
                entry,
            }),
        };
        let row = match (&change, winner, seq) {
            (
                Some(
                    Change::Registered(entry)
                    | Change::Updated(entry)
                    | Change::Replaced { entry, .. },
                ),
                Some(slot),
                Some(seq),
            ) => Some(Row {
                slot,
                seq,
                pid: entry.pid.clone(),
            }),
            (None, Some(_), _) => return,
            _ => None,
        };
        if let Some(standing) = self.names.get_mut(key) {
            standing.shown = row;
        }
        out.extend(change.map(Output::Table));
    }

    /// A name may be free for the process of this node that waits for it: it gets it at the end of this turn, or a while
    /// later if it got it before and lost it. Several nodes may have a process that waits, and each hears of the other only
    /// after it has given way; without the pause they could do so for ever.
    fn promote(&mut self, key: &Key) {
        let Some(waiting) = self.waiting.get(key) else {
            return;
        };
        let pause = match waiting.attempts {
            0 => Duration::ZERO,
            attempts => {
                let longest = PROMOTE_AFTER.doubled(u32::from(attempts), PATIENCE);
                Duration::from_micros(self.random.below(longest.as_micros()))
            }
        };
        self.timers
            .hasten(Timer::Promote(key.clone()), self.now + pause);
    }

    /// Gives a free name to the process of this node that waits for it.
    pub(crate) fn promote_now(&mut self, key: &Key, out: &mut Vec<Output>) {
        self.timers.cancel(&Timer::Promote(key.clone()));
        let claimed = self.names.get(key).is_some_and(|standing| {
            let mut slots = standing.holders.slots().iter();
            slots.any(|&slot| self.claim_of(slot, key).is_some())
        });
        if claimed {
            return;
        }
        let Some(waiting) = self.waiting.remove(key) else {
            return;
        };
        let pid = waiting.pid.clone();
        self.clock += 1;
        let item = Item {
            pid: waiting.pid,
            meta: waiting.meta,
            stamp: self.clock,
            seq: 0,
            resolve: waiting.resolve,
            on_conflict: OnConflict::Standby,
            attempts: waiting.attempts.saturating_add(1),
            verdict: None,
        };
        self.put_own(key.clone(), item, out);
        out.push(Output::Promoted {
            key: key.clone(),
            pid,
        });
    }

    fn ask_verdict(&mut self, key: &Key, rival: Claimant, out: &mut Vec<Output>) {
        let Some(own) = self.items.get(key) else {
            return;
        };
        let stamp = own.stamp;
        if let Some(id) = self.dispute_of.get(key) {
            let asked = self.disputes.get(id);
            if asked.is_some_and(|dispute| dispute.rival == rival && dispute.stamp == stamp) {
                return;
            }
        }
        let younger = self.names.get(key).and_then(|standing| {
            let mut slots = standing.holders.slots().iter();
            let slot = slots.find(|&&slot| self.is_claimant(slot, key, &rival))?;
            self.entry(*slot, key)
        });
        let (Some(older), Some(younger)) = (self.entry(OWN, key), younger) else {
            return;
        };
        self.forget_dispute(key);
        let id = self.next_id();
        self.dispute_of.insert(key.clone(), id);
        self.disputes.insert(
            id,
            Dispute {
                key: key.clone(),
                stamp,
                rival,
            },
        );
        self.timers
            .set(Timer::Verdict(id), self.now + self.limits.resolve_timeout);
        out.push(Output::Resolve { id, older, younger });
    }

    fn is_claimant(&self, slot: Slot, key: &Key, claimant: &Claimant) -> bool {
        self.claim_of(slot, key).is_some_and(|claim| {
            *claim.node == claimant.node
                && claim.creation == claimant.creation
                && claim.item.stamp == claimant.stamp
        })
    }

    pub(crate) fn forget_dispute(&mut self, key: &Key) {
        if let Some(id) = self.dispute_of.remove(key) {
            self.disputes.remove(&id);
            self.timers.cancel(&Timer::Verdict(id));
        }
    }

    /// A verdict was given, or its time is over.
    pub(crate) fn verdict(&mut self, id: u64, keep: Keep, out: &mut Vec<Output>) {
        let Some(dispute) = self.disputes.get(&id) else {
            return;
        };
        let (key, stamp, rival) = (dispute.key.clone(), dispute.stamp, dispute.rival.clone());
        self.forget_dispute(&key);
        let Some(own) = self
            .items
            .get(&key)
            .filter(|own| own.stamp == stamp && !own.is_void())
        else {
            return;
        };
        let Some(standing) = self.names.get(&key) else {
            return;
        };
        let slots = standing.holders.slots();
        let Some(&slot) = slots
            .iter()
            .find(|&&slot| self.is_claimant(slot, &key, &rival))
        else {
            // It is gone meanwhile. There may be another.
            self.settle(&key, Gone::Lost, out);
            return;
        };
        if keep == Keep::Younger {
            let kept = self
                .claim_of(slot, &key)
                .map(|claim| claim.item.pid.clone());
            let loss = self.withdraw(&key, kept);
            self.settle(&key, Gone::Lost, out);
            out.extend(loss.map(Output::Lost));
            return;
        }
        let mut beaten: Vec<_> = own
            .verdict
            .iter()
            .flat_map(|verdict| &verdict.beaten)
            .filter(|&old| slots.iter().any(|&slot| self.is_claimant(slot, &key, old)))
            .cloned()
            .collect();
        beaten.truncate(MAX_BEATEN - 1);
        beaten.push(rival);
        let void = keep == Keep::Neither;
        let (pid, on_conflict) = (own.pid.clone(), own.on_conflict);
        let item = Item {
            verdict: Some(Box::new(Verdict { void, beaten })),
            ..own.clone()
        };
        self.put_own(key.clone(), item, out);
        if void {
            self.processes
                .remove(&(crate::hash::siphash(&pid), key.clone()));
            out.push(Output::Lost(Loss {
                key,
                pid,
                kept: None,
                on_conflict,
            }));
        }
    }

    /// Whether a command is about a name that a process of this node waits for; then it is taken out of the line.
    pub(crate) fn stop_waiting(&mut self, key: &Key, pid: Option<&Arc<[u8]>>) -> bool {
        let matches = self
            .waiting
            .get(key)
            .is_some_and(|waiting| pid.is_none_or(|pid| *pid == waiting.pid));
        if matches && let Some(waiting) = self.waiting.remove(key) {
            self.processes
                .remove(&(crate::hash::siphash(&waiting.pid), key.clone()));
        }
        matches
    }
}
