//! The leader looks after the members: who is here learns, who returned under another identity takes its old place.
//!
//! One change at a time, and the next one when it is applied. Learners come and go by themselves, for no majority depends on them.
//! Voters do not: one that is dead stays a voter, because nobody here can tell dead from cut off, and a group that shrinks by itself
//! would agree on either side of a cut. Only a node that says itself that it has a new identity is replaced, by the
//! new one, in one joint change.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::message::{Message, Order, Outcome, Why};
use super::requests::{JobId, MAX_WAITING};
use super::{Group, Timer};
use crate::identity::NodeName;
use crate::leadership::configuration::{Configuration, MAX_VOTERS};
use crate::leadership::consensus::{Consensus, RequestId};
use crate::leadership::entry::{Index, MemberId};
use crate::time::{Duration, Instant};

/// A learner that is not here is removed after this time: longer than a restart takes, so that its log need not be sent anew.
const GONE: Duration = Duration::from_secs(60);

/// A learner has the log when it lacks so few entries that they are one message.
const LAG: Index = 250;

/// Who wants a change of the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    Here(JobId),
    There(NodeName, u64),
}

/// What the leader does about the members.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// Since when it leads: it does not know since when those are gone that were gone before.
    since: Instant,
    /// The change that is under way.
    change: Option<RequestId>,
    next_change: u64,
    orders: Vec<(Asker, Order)>,
}

impl Group {
    /// This node leads since now, or not any more.
    pub(super) fn take_care(&mut self) {
        self.care.change = None;
        let orders = core::mem::take(&mut self.care.orders);
        for (asker, _) in orders {
            self.tell_asker(asker, Outcome::NotLeader);
        }
        if self.is_leader() {
            self.care.since = self.now;
            self.timers.set(Timer::Care, self.now + self.care_period());
        } else {
            self.timers.cancel(&Timer::Care);
        }
    }

    fn care_period(&self) -> Duration {
        self.timing.heartbeat.times(4)
    }

    /// The voters shall be others. It is answered once they are.
    pub(super) fn order_voters(&mut self, asker: Asker, order: Order) -> Outcome {
        if self.care.orders.len() >= MAX_WAITING {
            return Outcome::Refused(Why::Changing);
        }
        if !self.care.orders.iter().any(|(known, _)| *known == asker) {
            self.care.orders.push((asker, order));
            // Not within this call: who asked is to be told that it has begun first.
            self.timers.set(Timer::Care, self.now);
        }
        Outcome::Begun
    }

    fn tell_asker(&mut self, asker: Asker, outcome: Outcome) {
        match asker {
            Asker::Here(id) => self.on_outcome(id, outcome),
            Asker::There(node, id) => self.send(&node, Message::Ordered { id, outcome }),
        }
    }

    /// Makes the next change, if there is one to be made.
    pub(super) fn tend(&mut self) {
        if !self.is_leader() {
            return;
        }
        self.timers.set(Timer::Care, self.now + self.care_period());
        let Some(current) = self
            .engine
            .as_ref()
            .map(|engine| engine.configuration().clone())
        else {
            return;
        };
        if self.care.change.is_some() || current.is_joint() {
            return;
        }
        let present = self.present();
        self.answer_orders(&current, &present);
        let Some(to) = self
            .next_learners(&current, &present)
            .or_else(|| self.next_voters(&current, &present))
        else {
            return;
        };
        self.care.next_change += 1;
        let (now, request) = (self.now, RequestId(self.care.next_change << 1));
        // What is refused now is tried again.
        if let Some(engine) = &mut self.engine
            && engine.change(now, request, to).is_ok()
        {
            self.care.change = Some(request);
        }
    }

    /// An entry was applied that a change may have waited for.
    pub(super) fn applied_for(&mut self, request: Option<RequestId>) {
        if request.is_some() && request == self.care.change {
            self.care.change = None;
            self.timers.set(Timer::Care, self.now);
        }
    }

    /// It will not be known here what became of a change. A command is seen in the log, or asked for again.
    pub(super) fn on_unknown(&mut self, request: RequestId) {
        if self.care.change == Some(request) {
            self.care.change = None;
        }
    }

    /// The nodes that are here and in this group, and under which identities.
    fn present(&self) -> BTreeMap<NodeName, MemberId> {
        let group = self.group();
        let here = self.peers.present().filter_map(|(node, peer)| {
            let founding = peer.founding()?;
            let here = founding.agreed && Some(founding.group) == group;
            here.then_some((node.clone(), peer.said.as_ref()?.member))
        });
        here.chain([(self.node.clone(), self.member)]).collect()
    }

    /// Those that came learn; those that are gone for good do not any more.
    fn next_learners(
        &self,
        current: &Configuration,
        present: &BTreeMap<NodeName, MemberId>,
    ) -> Option<Configuration> {
        let mut learners: BTreeSet<MemberId> = current.learners().collect();
        learners.retain(|&learner| {
            let Some(node) = current.node(learner) else {
                return true;
            };
            match present.get(node) {
                Some(&member) => member == learner,
                None => {
                    let gone = self.peers.get(node).and_then(|peer| peer.gone);
                    let gone = gone.unwrap_or(self.care.since).max(self.care.since);
                    self.now.since(gone) < GONE
                }
            }
        });
        let room = self.room.saturating_sub(current.voters().count());
        for &member in present.values() {
            if !current.votes(member) && learners.len() < room {
                learners.insert(member);
            }
        }
        if current.learners().eq(learners.iter().copied()) {
            return None;
        }
        self.configuration(current, present, current.voters().collect(), learners)
    }

    /// A voter is replaced, added or made a learner.
    fn next_voters(
        &self,
        current: &Configuration,
        present: &BTreeMap<NodeName, MemberId>,
    ) -> Option<Configuration> {
        let mut voters: BTreeSet<MemberId> = current.voters().collect();
        let mut learners: BTreeSet<MemberId> = current.learners().collect();
        let returned = current.voters().find_map(|voter| {
            let member = *present.get(current.node(voter)?)?;
            let ready = current.votes(member) || self.has_log(member);
            (member != voter && ready).then_some((voter, member))
        });
        if let Some((voter, member)) = returned {
            voters.remove(&voter);
            voters.insert(member);
            learners.remove(&member);
            return self.configuration(current, present, voters, learners);
        }
        for (_, order) in &self.care.orders {
            match order {
                Order::AddVoter(node) => {
                    let Some(&member) = present.get(node).filter(|member| self.has_log(**member))
                    else {
                        continue;
                    };
                    voters.insert(member);
                    learners.remove(&member);
                }
                Order::RemoveVoter(node) => {
                    let Some(voter) = voter_on(current, node) else {
                        continue;
                    };
                    voters.remove(&voter);
                    learners.insert(voter);
                }
                Order::StepDown { .. } => continue,
            }
            return self.configuration(current, present, voters, learners);
        }
        None
    }

    fn configuration(
        &self,
        current: &Configuration,
        present: &BTreeMap<NodeName, MemberId>,
        voters: BTreeSet<MemberId>,
        learners: BTreeSet<MemberId>,
    ) -> Option<Configuration> {
        let made = Configuration::new(voters, learners).ok()?;
        let known = current
            .members()
            .filter_map(|member| Some((member, current.node(member)?.clone())));
        let new = present.iter().map(|(node, &member)| (member, node.clone()));
        Some(made.on_nodes(known.chain(new)))
    }

    /// It may vote: it has the log but for a little, and answers.
    fn has_log(&self, member: MemberId) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        let last = engine.status().last;
        engine.progress(member).is_some_and(|known| {
            let heard = known
                .heard
                .is_some_and(|heard| self.now.since(heard) < self.timing.election);
            heard && known.matched + LAG >= last
        })
    }

    /// Answers those whose wish is fulfilled, or cannot be.
    fn answer_orders(&mut self, current: &Configuration, present: &BTreeMap<NodeName, MemberId>) {
        let done = Outcome::Done(self.applied);
        // Those that are on their way into the group.
        let coming: BTreeSet<NodeName> = self
            .peers
            .present()
            .filter(|(_, peer)| peer.said.is_some() && !peer.foreign)
            .map(|(node, _)| node.clone())
            .collect();
        let outcome = |order: &Order| match order {
            Order::AddVoter(node) => match (present.get(node), voter_on(current, node)) {
                (Some(member), Some(_)) if current.votes(*member) => Some(done),
                // It is dead, or cut off, and a voter as far as anybody knows.
                (None, Some(_)) => Some(done),
                (None, None) => (!coming.contains(node)).then_some(Outcome::NoMember),
                (Some(_), None) if current.voters().count() >= MAX_VOTERS => {
                    Some(Outcome::Refused(Why::TooManyVoters))
                }
                (Some(_), _) => None,
            },
            Order::RemoveVoter(node) => match voter_on(current, node) {
                Some(_) if current.voters().count() == 1 => Some(Outcome::Refused(Why::LastVoter)),
                Some(_) => None,
                None if present.contains_key(node) || current.member_on(node).is_some() => {
                    Some(done)
                }
                None => Some(Outcome::NoMember),
            },
            Order::StepDown { .. } => Some(done),
        };
        let (mut told, mut waiting) = (Vec::new(), Vec::new());
        for (asker, order) in core::mem::take(&mut self.care.orders) {
            match outcome(&order) {
                Some(outcome) => told.push((asker, outcome)),
                None => waiting.push((asker, order)),
            }
        }
        self.care.orders = waiting;
        for (asker, outcome) in told {
            self.tell_asker(asker, outcome);
        }
    }

    /// Who asked for this does not wait for it any more.
    pub(super) fn forget_order(&mut self, id: JobId) {
        self.care
            .orders
            .retain(|(asker, _)| *asker != Asker::Here(id));
    }
}

/// The voter on a node.
fn voter_on(current: &Configuration, node: &NodeName) -> Option<MemberId> {
    current
        .voters()
        .find(|&voter| current.node(voter) == Some(node))
}
