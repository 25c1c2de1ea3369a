//! Suspicions from their begin to their end: recovered, dead, or contested.
//!
//! A suspicion never touches a connection. When it is over, a member that is not connected is dead. One that is still
//! connected is evicted if this node is sure enough, by all of these:
//!
//! - it heard a majority of the members that were last here together since the suspicion began: else it may be the one
//!   that is cut off;
//! - the member's connection carried nothing since the suspicion began, though its kernel was asked: a node that is heard is
//!   not dead;
//! - it is well itself, and did not stand still lately;
//! - all members that run no Tiebeam are connected, so that they can be told: one node that alone disconnects a live one
//!   makes OTP's `global` tear the mesh (kernel: `prevent_overlapping_partitions`).
//!
//! Otherwise the verdict is contested: the member stays listed as a suspect, and its connection decides, when OTP's net
//! ticks end it. It is judged anew after each further minimum of a suspicion. Verdicts of others on a connected member
//! are judged by the same rules. So a member that is dead is not connected, or about to be disconnected.

use alloc::vec::Vec;

use super::member::{Kind, Status};
use super::{Membership, Timer};
use crate::action::{Action, Contest, Notice};
use crate::identity::NodeName;
use crate::message::{Claim, Word};
use crate::mutation::Mutation;
use crate::time::Instant;

/// The greatest health multiplier of a node that evicts.
const WELL: u32 = 2;

/// How many members must have found that a node without Tiebeam does not answer.
const ACCUSERS: usize = 2;

/// What a verdict is made of.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    allowed: bool,
    majority: bool,
    silent: bool,
    well: bool,
    reachable: bool,
}

impl Evidence {
    /// What speaks against an eviction, the strongest first.
    const fn contest(self) -> Option<Contest> {
        if !self.allowed {
            Some(Contest::Off)
        } else if !self.majority {
            Some(Contest::Minority)
        } else if !self.silent {
            Some(Contest::Heard)
        } else if !self.well {
            Some(Contest::Unhealthy)
        } else if !self.reachable {
            Some(Contest::Unreachable)
        } else {
            None
        }
    }
}

impl Membership {
    /// Asks for what the trial at the end of a suspicion will need, and for a sign of life.
    pub(super) fn begin_trial(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        let (linked, plain) = (
            peer.link.is_some(),
            peer.member
                .as_ref()
                .is_some_and(|member| member.kind == Kind::Plain),
        );
        if linked {
            actions.push(Action::Sample { node: name.clone() });
        }
        if plain {
            // Whoever is connected asks at once: an answer to anybody refutes the suspicion.
            let number = self.probes.next_number();
            self.knock(now, name, number, actions);
        } else if linked {
            self.ask_kernel(name, actions);
        }
    }

    /// Asks the kernel of a connected member that speaks no more. Its Tiebeam may have ended, or hang, on a node that
    /// lives: then the answer is heard on its connection, which speaks against an eviction.
    fn ask_kernel(&mut self, name: &NodeName, actions: &mut Vec<Action>) {
        let probe = self.probes.next_number();
        actions.push(Action::Observe {
            node: name.clone(),
            probe,
        });
    }

    /// Before this node's timer declares a member dead, it is asked once more; the ping says that it is suspected.
    pub(super) fn last_call(&mut self, now: Instant, name: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let Some(suspicion) = &mut peer.suspicion else {
            return;
        };
        let (first, since) = (!suspicion.called, suspicion.since());
        suspicion.called = true;
        if first && self.evict && peer.link.is_some() {
            self.call_the_roll(now, &name, since, actions);
        }
        if !self.is(Mutation::NoLastCall) {
            let number = self.probes.next_number();
            self.knock(now, &name, number, actions);
        }
        self.schedule_last_call(now, name);
    }

    /// Asks whom this node has not heard since a suspicion began: who cannot hear them may not evict. A majority that is
    /// only remembered is none: in a network that was just cut, half of it has not been missed yet.
    fn call_the_roll(
        &mut self,
        now: Instant,
        name: &NodeName,
        since: Instant,
        actions: &mut Vec<Action>,
    ) {
        let quiet = |peer: &super::Peer| {
            let alive = peer
                .member
                .as_ref()
                .is_some_and(|member| member.status == Status::Alive);
            alive && peer.link.is_some() && peer.heard < since
        };
        let all = self
            .peers
            .iter()
            .filter(|(other, peer)| *other != name && quiet(peer));
        let all: Vec<NodeName> = all.map(|(other, _)| other.clone()).collect();
        for other in all {
            let number = self.probes.next_number();
            self.knock(now, &other, number, actions);
        }
    }

    /// Whether this node has heard a majority of the last stable view since a suspicion began.
    fn hears_majority(&self, since: Instant) -> bool {
        let heard = self.peers.values().filter(|peer| {
            let alive = peer
                .member
                .as_ref()
                .is_some_and(|member| member.status == Status::Alive);
            alive && peer.heard >= since
        });
        (1 + heard.count() as u64) * 2 > u64::from(self.stable)
    }

    /// The time of a suspicion is over.
    pub(super) fn verdict(&mut self, now: Instant, name: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let linked = peer.link.is_some();
        let Some(suspicion) = &mut peer.suspicion else {
            return;
        };
        if !suspicion.called && (linked || !suspicion.condemned) {
            // Others ended it before its last call was due.
            let at = now + self.timing.probe_timeout;
            self.last_call(now, name.clone(), actions);
            return self.timers.set(Timer::Verdict(name), at);
        }
        if linked {
            suspicion.on_trial = true;
            actions.push(Action::Sample { node: name });
        } else {
            self.judge(now, &name, None, actions);
        }
    }

    /// Somebody declared a member dead.
    pub(super) fn condemned(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) {
        let name = &word.node;
        let Some(status) = self.member(name).map(|member| member.status) else {
            return;
        };
        let linked = self.peers.get(name).is_some_and(|peer| peer.link.is_some());
        match status {
            Status::Dead | Status::Left => {
                self.change(now, name, Status::Dead);
                self.set_incarnation(word);
            }
            Status::Alive | Status::Suspect if !linked => {
                self.set_incarnation(word);
                self.die(now, name, actions);
            }
            Status::Alive => {
                let by = self.me.node.clone();
                self.suspect(now, name, word.incarnation, by);
                if let Some(member) = self.member(name) {
                    actions.push(Action::Notify(Notice::Suspect(member.clone())));
                }
                self.begin_trial(now, name, actions);
                self.condemn(now, word);
            }
            Status::Suspect => {
                let suspicion = self
                    .peers
                    .get(name)
                    .and_then(|peer| peer.suspicion.as_ref());
                let condemned = suspicion.is_some_and(|suspicion| suspicion.condemned);
                // Who was heard lately is watched for its full time, whatever others say.
                let contested = suspicion.is_some_and(|suspicion| suspicion.contested.is_some());
                if !condemned {
                    self.set_incarnation(word);
                    self.condemn(now, word);
                    if !contested {
                        self.verdict(now, name.clone(), actions);
                    }
                }
            }
        }
    }

    fn condemn(&mut self, now: Instant, word: &Word) {
        let peer = self.peers.get_mut(&word.node);
        if let Some(suspicion) = peer.and_then(|peer| peer.suspicion.as_mut()) {
            suspicion.condemned = true;
        }
        self.schedule_verdict(now, &word.node);
        self.spread(now, word.clone());
    }

    fn set_incarnation(&mut self, word: &Word) {
        let peer = self.peers.get_mut(&word.node);
        if let Some(member) = peer.and_then(|peer| peer.member.as_mut()) {
            member.incarnation = member.incarnation.max(word.incarnation);
        }
    }

    /// The driver read how much a connection received.
    pub(crate) fn sampled(
        &mut self,
        now: Instant,
        name: &NodeName,
        received: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let suspicion = self
            .peers
            .get_mut(name)
            .and_then(|peer| peer.suspicion.as_mut());
        let Some(suspicion) = suspicion else {
            return;
        };
        if suspicion.on_trial {
            self.judge(now, name, received, actions);
        } else if suspicion.baseline.is_none() {
            suspicion.baseline = Some(received);
        }
    }

    /// Dead, or contested.
    fn judge(
        &mut self,
        now: Instant,
        name: &NodeName,
        received: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        let (Some(suspicion), Some(member)) = (&peer.suspicion, &peer.member) else {
            return;
        };
        let (linked, since) = (peer.link.is_some(), suspicion.since());
        // Of a node without Tiebeam, another that could ask it must have found the same. Where there is no other, the end
        // of its connection has to do.
        let others = linked
            || self
                .peers
                .values()
                .any(|peer| peer.here().is_some() && !peer.is_plain());
        let alone = member.kind == Kind::Plain
            && others
            && suspicion.accusers() < ACCUSERS
            && !suspicion.condemned
            && !self.is(Mutation::OneGuardian);
        let silent = suspicion.baseline == Some(received) || received.is_none();
        let evidence = Evidence {
            allowed: self.evict,
            majority: self.hears_majority(since) || self.is(Mutation::EvictWithoutMajority),
            silent: silent || self.is(Mutation::EvictHeard),
            well: (self.health.multiplier() <= WELL
                && !self.stalls.lately(now, self.suspicion_min()))
                || self.is(Mutation::EvictUnhealthy),
            reachable: self.plain_reachable(name),
        };
        let contest = match alone {
            true => Some(Contest::Alone),
            false if linked => evidence.contest(),
            false => None,
        };
        match contest {
            Some(reason) => self.contest(now, name, received, reason, actions),
            None => {
                self.die(now, name, actions);
                if linked {
                    self.evict(name, since, actions);
                }
            }
        }
    }

    fn contest(
        &mut self,
        now: Instant,
        name: &NodeName,
        received: Option<u64>,
        reason: Contest,
        actions: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let (Some(suspicion), Some(member)) = (&mut peer.suspicion, &peer.member) else {
            return;
        };
        if suspicion.contested != Some(reason) {
            self.metrics.contested += 1;
            actions.push(Action::Notify(Notice::Contested {
                member: member.clone(),
                reason,
            }));
        }
        let speaks = peer.link.is_some() && member.kind != Kind::Plain;
        suspicion.again(now, received, reason);
        self.schedule_verdict(now, name);
        if speaks {
            self.ask_kernel(name, actions);
        }
    }

    /// A member is dead for this node.
    pub(super) fn die(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        self.change(now, name, Status::Dead);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let linked = peer.link.is_some();
        let Some(member) = &peer.member else {
            return;
        };
        let word = Word {
            node: name.clone(),
            creation: member.creation,
            incarnation: member.incarnation,
            kind: member.kind,
            claim: Claim::Dead,
            metadata: None,
        };
        actions.push(Action::Notify(Notice::Down(member.clone())));
        self.metrics.deaths += 1;
        self.spread(now, word);
        if !linked {
            self.schedule_greeting(now, name.clone());
        }
    }

    /// Closes the connection of a dead member, suspected since `since`, here and at the members that cannot know by
    /// themselves.
    ///
    /// The guardians of a node tell it, all of them: one alone may have lost its own connection to the dead member, or
    /// hold its verdict for contested. Only those count that were heard since then, because others may be missing as well,
    /// and not be missed yet: in a network that was just cut, the first guardians are on the other side.
    fn evict(&mut self, name: &NodeName, since: Instant, actions: &mut Vec<Action>) {
        self.metrics.evictions += 1;
        for (at, peer) in self.plain(name) {
            let guardians = self.guardians_among(at, |peer| peer.heard >= since);
            if peer.link.is_some() && guardians.contains(&self.me.node) {
                actions.push(Action::EvictAt {
                    at: at.clone(),
                    node: name.clone(),
                });
            }
        }
        actions.push(Action::Evict { node: name.clone() });
    }

    /// Whether all members that run no Tiebeam can be told, but for `name` itself. Who is suspect need not be: it would
    /// not know of anybody.
    fn plain_reachable(&self, name: &NodeName) -> bool {
        self.plain(name).all(|(_, peer)| {
            let suspect = peer.suspicion.is_some();
            peer.link.is_some() || suspect
        })
    }

    /// The members that run no Tiebeam, but for `name`.
    fn plain<'a>(
        &'a self,
        name: &'a NodeName,
    ) -> impl Iterator<Item = (&'a NodeName, &'a super::Peer)> {
        let others = self.peers.iter().filter(move |(other, _)| *other != name);
        others.filter(|(_, peer)| peer.is_plain() && peer.here().is_some())
    }
}
