//! Probes: one member per period, each in turn (SWIM, section 4.3), directly, then through others (section 3.1).
//!
//! Besides the one of the period there may be a few in flight: of members whose connection was just lost, and of the
//! nodes this one observes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::helper::Relay;
use super::{Kind, Membership, Peer, Status, Timer};
use crate::action::Action;
use crate::identity::NodeName;
use crate::message::{Body, Claim, Word};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::time::{Duration, Instant};

/// The most probes in flight. When so many connections end at once, the round finds the rest.
const MAX_IN_FLIGHT: usize = 64;

/// A probe in flight.
#[derive(Debug)]
struct Probe {
    target: NodeName,
    /// The life that is probed: a later one is not accused.
    creation: u32,
    incarnation: u64,
    sent: Instant,
    /// Over a connection that was there, so that no answer says something about the network.
    direct: bool,
    /// The others that were asked, and whether each has said that it heard nothing.
    helpers: BTreeMap<NodeName, bool>,
}

/// The probes, and whose turn it is.
#[derive(Debug)]
pub(super) struct Probes {
    number: u64,
    flying: BTreeMap<u64, Probe>,
    pub(super) relays: BTreeMap<u64, Relay>,
    /// The members that speak, shuffled once per round.
    order: Vec<NodeName>,
    position: usize,
}

impl Probes {
    pub(super) const fn new(first: u64) -> Self {
        Self {
            number: first,
            flying: BTreeMap::new(),
            relays: BTreeMap::new(),
            order: Vec::new(),
            position: 0,
        }
    }

    /// A number that no probe had lately. Numbers only have to differ, so they may wrap.
    pub(super) const fn next_number(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// A new member gets a random place in the round (SWIM, section 4.3).
    pub(super) fn add_member(&mut self, random: &mut Random, name: NodeName) {
        let at = random.below(self.order.len() as u64 + 1) as usize;
        self.order.insert(at, name);
        if at < self.position {
            self.position += 1;
        }
    }

    pub(super) fn drop_member(&mut self, name: &NodeName) {
        if let Some(at) = self.order.iter().position(|other| other == name) {
            self.order.remove(at);
            if at < self.position {
                self.position -= 1;
            }
        }
    }

    /// The next in the round that fits.
    fn next_target(
        &mut self,
        random: &mut Random,
        fits: impl Fn(&NodeName) -> bool,
    ) -> Option<NodeName> {
        for _ in 0..=self.order.len() {
            if self.position >= self.order.len() {
                self.position = 0;
                for at in (1..self.order.len()).rev() {
                    self.order.swap(at, random.below(at as u64 + 1) as usize);
                }
            }
            let name = self.order.get(self.position)?;
            self.position += 1;
            if fits(name) {
                return Some(name.clone());
            }
        }
        None
    }

    /// Up to `count` different members that fit, at random.
    pub(super) fn pick(
        &self,
        random: &mut Random,
        count: usize,
        fits: impl Fn(&NodeName) -> bool,
    ) -> Vec<NodeName> {
        let mut picked: Vec<NodeName> = Vec::new();
        // In a large cluster a few draws find enough; in a small one, or where few fit, all are looked at.
        for _ in 0..count * 4 {
            if self.order.len() < 32 || picked.len() == count {
                break;
            }
            let name = &self.order[random.below(self.order.len() as u64) as usize];
            if !picked.contains(name) && fits(name) {
                picked.push(name.clone());
            }
        }
        if picked.len() < count {
            let rest = self
                .order
                .iter()
                .filter(|name| !picked.contains(name) && fits(name));
            let mut rest: Vec<NodeName> = rest.cloned().collect();
            while picked.len() < count && !rest.is_empty() {
                picked.push(rest.swap_remove(random.below(rest.len() as u64) as usize));
            }
        }
        picked
    }

    /// Forgets all probes in flight: their outcome means nothing.
    pub(super) fn void(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.flying).into_keys().collect()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert!(
            self.flying.len() <= MAX_IN_FLIGHT && self.relays.len() <= super::helper::MAX_RELAYS
        );
        assert!(self.position <= self.order.len());
    }
}

impl Membership {
    /// The protocol period, longer while this node is not well (Lifeguard, section 3.1).
    pub(super) fn period(&self) -> Duration {
        self.timing
            .probe_interval
            .times(u64::from(self.health.multiplier()))
    }

    /// Begins a period.
    pub(super) fn probe_next(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.timers.set(Timer::Probe, now + self.period());
        let peers = &self.peers;
        let target = self.probes.next_target(&mut self.random, |name| {
            peers
                .get(name)
                .and_then(Peer::here)
                .is_some_and(|member| member.kind != Kind::Plain)
        });
        if let Some(target) = target {
            self.probe(now, target, actions);
        }
    }

    /// Probes one member.
    pub(super) fn probe(&mut self, now: Instant, target: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&target) else {
            return;
        };
        let Some(member) = peer.here() else {
            return;
        };
        if self.probes.flying.len() >= MAX_IN_FLIGHT
            || self
                .probes
                .flying
                .values()
                .any(|probe| probe.target == target)
        {
            return;
        }
        let direct = peer.link.is_some();
        let probe = Probe {
            target: target.clone(),
            creation: member.creation,
            incarnation: member.incarnation,
            sent: now,
            direct,
            helpers: BTreeMap::new(),
        };
        let number = self.probes.next_number();
        self.probes.flying.insert(number, probe);
        self.metrics.probes += 1;
        self.knock(now, &target, number, actions);
        self.timers
            .set(Timer::ProbeEnd(number), now + self.period());
        if direct {
            let timeout = self
                .timing
                .probe_timeout
                .times(u64::from(self.health.multiplier()));
            self.timers.set(Timer::Indirect(number), now + timeout);
        } else {
            // There is nothing to wait for: what is sent now opens a connection at best.
            self.probe_indirectly(now, number, actions);
        }
    }

    /// Asks a node itself: a ping to who speaks, an observation of who does not.
    pub(super) fn knock(
        &mut self,
        now: Instant,
        to: &NodeName,
        number: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get(to) else {
            return;
        };
        let plain = peer
            .member
            .as_ref()
            .is_some_and(|member| member.kind == Kind::Plain);
        if !plain {
            self.send(now, to, Body::Ping { number }, actions);
        } else if peer.link.is_some() {
            actions.push(Action::Observe {
                node: to.clone(),
                probe: number,
            });
        }
    }

    /// The connection of a member came up: what is in flight to it was lost before.
    pub(super) fn knock_again(&mut self, now: Instant, to: &NodeName, actions: &mut Vec<Action>) {
        let waiting = self
            .probes
            .flying
            .iter()
            .filter(|(_, probe)| probe.target == *to);
        let relayed = self
            .probes
            .relays
            .iter()
            .filter(|(_, relay)| relay.target == *to && !relay.nacked);
        let numbers: Vec<u64> = waiting
            .map(|(number, _)| *number)
            .chain(relayed.map(|(number, _)| *number))
            .collect();
        for number in numbers {
            self.knock(now, to, number, actions);
        }
    }

    /// No answer within the timeout: asks others.
    pub(super) fn probe_indirectly(
        &mut self,
        now: Instant,
        number: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(probe) = self.probes.flying.get(&number) else {
            return;
        };
        let target = probe.target.clone();
        if probe.direct {
            self.health.probed(false);
        }
        if self.is(Mutation::NoIndirectProbe) {
            return;
        }
        let helpers = self.helpers(&target);
        if let Some(probe) = self.probes.flying.get_mut(&number) {
            probe.helpers = helpers.iter().map(|name| (name.clone(), false)).collect();
        }
        for helper in helpers {
            self.metrics.indirect += 1;
            let node = target.clone();
            self.send(now, &helper, Body::PingReq { number, node }, actions);
        }
    }

    /// Who is asked to probe as well: the guardians of a node without Tiebeam, then others, at random.
    fn helpers(&mut self, target: &NodeName) -> Vec<NodeName> {
        let count = self.timing.indirect_probes as usize;
        let able = |name: &NodeName| {
            let peer = self.peers.get(name);
            name != target && peer.is_some_and(|peer| peer.partner().is_some())
        };
        let mut helpers = self.guardians(target);
        helpers.retain(able);
        helpers.truncate(count);
        let rest = self
            .probes
            .pick(&mut self.random, count - helpers.len(), |name| {
                able(name) && !helpers.contains(name)
            });
        helpers.extend(rest);
        helpers
    }

    /// A period is over: who did not answer is suspected.
    pub(super) fn probe_ended(&mut self, now: Instant, number: u64, actions: &mut Vec<Action>) {
        let Some(probe) = self.probes.flying.remove(&number) else {
            return;
        };
        self.timers.cancel(&Timer::Indirect(number));
        let Some(member) = self.peers.get(&probe.target).and_then(Peer::here) else {
            return;
        };
        self.metrics.probes_failed += 1;
        if member.creation != probe.creation {
            // Another life than the one that was asked, or it has told its creation since.
            return;
        }
        self.metrics.suspicions += u64::from(member.status == Status::Alive);
        // Each helper that did not even say that it heard nothing speaks against this node (Lifeguard, section 3.1).
        let silent = probe.helpers.values().filter(|nacked| !**nacked).count() as i32;
        let cost = match probe.helpers.is_empty() {
            true => i32::from(probe.direct),
            false => silent,
        };
        let word = Word {
            node: probe.target,
            creation: probe.creation,
            incarnation: probe.incarnation,
            kind: member.kind,
            claim: Claim::Suspect {
                by: self.me.node.clone(),
            },
            metadata: None,
        };
        self.feel(cost, actions);
        self.hear(now, word, actions);
    }

    /// A member answered, itself or through a helper.
    pub(super) fn acked(
        &mut self,
        now: Instant,
        from: &NodeName,
        number: u64,
        creation: u32,
        incarnation: u64,
        actions: &mut Vec<Action>,
    ) {
        if let Some(relay) = self.probes.relays.get(&number) {
            if relay.target == *from {
                let answer = Body::Ack {
                    number: relay.number,
                    creation,
                    incarnation,
                };
                let asker = relay.asker.clone();
                self.probes.relays.remove(&number);
                self.timers.cancel(&Timer::Nack(number));
                self.send(now, &asker, answer, actions);
            }
            return;
        }
        let Some(probe) = self.probes.flying.get(&number) else {
            return;
        };
        let itself = probe.target == *from;
        // Another life of the name is not the one that was asked for: its own words will tell of it.
        if !(itself || probe.helpers.contains_key(from)) || creation != probe.creation {
            return;
        }
        let (target, sent, first) = (probe.target.clone(), probe.sent, probe.helpers.is_empty());
        if itself {
            if first {
                self.health.probed(true);
            }
            if let Some(peer) = self.peers.get_mut(&target) {
                peer.measured(now.since(sent));
            }
        } else if let Some(member) = self
            .peers
            .get(&target)
            .and_then(|peer| peer.member.as_ref())
            .filter(|member| member.creation == creation)
        {
            // A helper passes on the incarnation too: it may refute what is held here.
            let word = Word {
                node: target,
                creation,
                incarnation,
                kind: member.kind,
                claim: Claim::Alive,
                metadata: None,
            };
            self.hear(now, word, actions);
        }
        self.probes.flying.remove(&number);
        self.timers.cancel(&Timer::Indirect(number));
        self.timers.cancel(&Timer::ProbeEnd(number));
        self.feel(-1, actions);
    }

    /// A helper has heard nothing yet.
    pub(super) fn nacked(&mut self, from: &NodeName, number: u64) {
        if let Some(probe) = self.probes.flying.get_mut(&number)
            && let Some(nacked) = probe.helpers.get_mut(from)
        {
            *nacked = true;
        }
    }
}
