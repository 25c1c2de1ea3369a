//! Nodes that run no Tiebeam: observed by their guardians, who ask their kernels.
//!
//! A connected node that does not answer hellos but whose kernel answers becomes a member of the kind
//! [`Kind::Plain`]. It cannot gossip, refute or tell its creation: the creation counts as 0, and its incarnation is
//! *witnessed*. Up to three members that speak, chosen by rendezvous hashing (Thaler and Ravishankar, "Using name-based
//! mappings to increase hit rates", 1998), probe it once per period; a probe that fails, the indirect ones included, is
//! a suspicion like any other. Whoever is connected to a suspected node asks it at once, and an answer to anybody is
//! spread as a new incarnation: one witness beats any number of misses. A guardian that is not connected asks others.

use alloc::vec::Vec;

use super::member::{Kind, Status};
use super::sync::Hash;
use super::{Membership, Peer, Timer};
use crate::action::Action;
use crate::identity::NodeName;
use crate::message::{Claim, Word};
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

/// How many members watch one that cannot watch itself: one may be cut off and one slow.
pub(super) const GUARDIANS: usize = 3;

/// After how many greetings without an answer a node is taken to run no Tiebeam. A node of the cluster that is just
/// starting answers before.
const GREETINGS: u32 = 3;

impl Membership {
    /// The members that watch `node`, the first by hash first; none for a member that speaks.
    pub(crate) fn guardians(&self, node: &NodeName) -> Vec<NodeName> {
        self.guardians_among(node, |_| true)
    }

    /// The same, if only the others that `there` accepts were here.
    pub(super) fn guardians_among(
        &self,
        node: &NodeName,
        there: impl Fn(&Peer) -> bool,
    ) -> Vec<NodeName> {
        if self
            .member(node)
            .is_none_or(|member| member.kind != Kind::Plain)
        {
            return Vec::new();
        }
        let weight = |name: &NodeName| {
            let mut hash = Hash::new();
            hash.bytes(node.as_str().as_bytes());
            hash.bytes(name.as_str().as_bytes());
            hash.finish()
        };
        let others = self.peers.iter().filter_map(|(name, peer)| {
            let member = peer.member.as_ref()?;
            let speaks = member.kind != Kind::Plain && member.status == Status::Alive;
            (speaks && there(peer)).then_some(name)
        });
        let mut ranked: Vec<(u64, &NodeName)> = others
            .chain(core::iter::once(&self.me.node))
            .map(|name| (weight(name), name))
            .collect();
        ranked.sort_unstable();
        ranked
            .into_iter()
            .rev()
            .take(GUARDIANS)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// A node without Tiebeam is a member now: observes it from now on.
    pub(super) fn watch(&mut self, now: Instant, node: NodeName) {
        let stagger = self.random.below(self.timing.probe_interval.as_micros());
        self.timers
            .hasten(Timer::Observe(node), now + Duration::from_micros(stagger));
    }

    /// The period of an observation: its guardians probe the node.
    pub(super) fn observe(&mut self, now: Instant, node: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if peer.here().is_none_or(|member| member.kind != Kind::Plain) {
            return;
        }
        self.timers
            .set(Timer::Observe(node.clone()), now + self.period());
        // Without a connection, the other guardians are asked: a node that nobody is connected to must not be forgotten.
        if self.guardians(&node).contains(&self.me.node) {
            self.probe(now, node, actions);
        }
    }

    /// A connected node that stays silent may run no Tiebeam: asks its kernel.
    pub(super) fn sound(&mut self, node: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(node) else {
            return;
        };
        let plain = peer
            .member
            .as_ref()
            .is_none_or(|member| member.kind == Kind::Plain);
        let visible = peer
            .link
            .as_ref()
            .is_some_and(|link| link.visible && !link.refused);
        let known = peer.member.is_some();
        if plain && visible && (known || peer.greetings >= GREETINGS) {
            let probe = self.probes.next_number();
            actions.push(Action::Observe {
                node: node.clone(),
                probe,
            });
        }
    }

    /// The kernel of a node answered.
    pub(crate) fn observed(
        &mut self,
        now: Instant,
        node: &NodeName,
        probe: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        peer.heard = now;
        let visible = peer
            .link
            .as_ref()
            .is_some_and(|link| link.visible && !link.refused);
        let ignores = self.mutation == Some(Mutation::PositiveEvidenceLoses);
        let incarnation = match &peer.member {
            None if visible => 1,
            Some(member) if member.kind == Kind::Plain => match member.status {
                Status::Alive => member.incarnation,
                // An answer is a witness, whoever missed others before.
                Status::Suspect if ignores => member.incarnation,
                Status::Suspect | Status::Dead | Status::Left => {
                    member.incarnation.saturating_add(1)
                }
            },
            // It speaks: what its kernel answers proves nothing about its part in the cluster.
            None | Some(_) => return,
        };
        let word = Word {
            node: node.clone(),
            creation: 0,
            incarnation,
            kind: Kind::Plain,
            claim: Claim::Alive,
            metadata: None,
        };
        self.hear(now, word, actions);
        self.acked(now, node, probe, 0, incarnation, actions);
        // It is greeted all the same, now and then: should it run Tiebeam after all, only its answer tells.
    }
}

impl Peer {
    /// Observed, not heard.
    pub(super) fn is_plain(&self) -> bool {
        self.member
            .as_ref()
            .is_some_and(|member| member.kind == Kind::Plain)
    }
}
