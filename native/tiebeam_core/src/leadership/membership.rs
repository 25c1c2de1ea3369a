//! Changes of the members (chapter 4).
//!
//! A configuration is in force from the moment it is in the log (4.1). Two that follow each other must not have majorities that do
//! not meet: one voter more or less cannot do that; anything else goes through a joint configuration, which needs both majorities
//! (4.3), and which whoever leads leaves once it is committed. There is one change at a time, and none before an entry of
//! the leader's term is committed: otherwise two leaders could each have one in their log that the other does not know of (the
//! flaw of the dissertation's single steps that was found in 2015).
//!
//! New voters learn first (4.2.1). Learners come and go with any change, for no majority depends on them. A leader that is
//! no voter any more goes on until that is committed, without counting itself (4.2.2), and then hands over.

use alloc::vec::Vec;

use super::configuration::{Configuration, ConfigurationError};
use super::consensus::{Refusal, RequestId};
use super::entry::{Index, Payload};
use super::log::MAX_BATCH;
use super::mutation::Mutation;
use super::progress::{Leaving, Progress};
use super::replica::{MAX_WAITING, Part, Replica};
use super::replication::Lead;

/// A learner may vote when so many entries are missing on its disk at most: one message has them, so the group waits for it no longer than
/// for a round trip.
const MAX_LAG: Index = MAX_BATCH as Index;

impl Replica {
    pub(super) fn start_change(
        &mut self,
        request: RequestId,
        to: Configuration,
    ) -> Result<(), Refusal> {
        let Part::Leader(lead) = &self.part else {
            return Err(self.not_leader());
        };
        if lead.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let waiting = self.proposals.len();
        if waiting >= MAX_WAITING {
            return Err(Refusal::Busy { waiting });
        }
        let (since, current) = self.log.configured();
        let applied = since <= self.applied || self.switched.off(Mutation::TwoChangesAtOnce);
        let began = self.commit >= lead.first || self.switched.off(Mutation::ChangeWithoutNoop);
        if !applied || !began || current.is_joint() {
            return Err(Refusal::Changing);
        }
        self.may_vote(lead, current, &to).map_err(Refusal::Change)?;
        let next = if self.switched.off(Mutation::ChangeWithoutJoint) {
            to
        } else {
            next_step(current, to).map_err(Refusal::Change)?
        };
        let joint = next.is_joint();
        let index = self.append_configuration(next);
        if !joint {
            self.proposals.insert(index, (self.hard.term, request));
        } else if let Part::Leader(lead) = &mut self.part {
            lead.changing = Some(request);
        }
        Ok(())
    }

    /// Those who are to vote can: they have the log, and a majority of them answers, so that the group does not stand still at once.
    fn may_vote(
        &self,
        lead: &Lead,
        current: &Configuration,
        to: &Configuration,
    ) -> Result<(), &'static str> {
        if to.is_joint() {
            return Err("a change names the voters that are to be, and no outgoing ones");
        }
        let answers = |member| {
            let progress = lead.others.get(&member)?;
            let sent = progress.answered_sent?;
            (self.now.since(sent) < self.settings.election).then_some(progress.matched)
        };
        for voter in to.voters().filter(|&voter| !current.votes(voter)) {
            if !current.contains(voter) {
                return Err("a voter learns first: add it as a learner, then let it vote");
            }
            if answers(voter).is_none_or(|matched| matched + MAX_LAG < self.log.last()) {
                return Err("a learner that is to vote has not the whole log; ask again later");
            }
        }
        let me = self.me();
        if !to.majority(self.switched, |voter| {
            voter == me || answers(voter).is_some()
        }) {
            return Err("a majority of the voters asked for does not answer");
        }
        Ok(())
    }

    fn append_configuration(&mut self, configuration: Configuration) -> Index {
        let index = self.append(Payload::Configuration(configuration));
        self.enroll(index);
        index
    }

    /// The leader sends to those of the configuration in force, since `index`, and to those that left it until they know.
    fn enroll(&mut self, index: Index) {
        let me = self.me();
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let configuration = self.log.configuration();
        for member in configuration.members().filter(|&member| member != me) {
            let fresh = || Progress::new(index - 1);
            let progress = lead.others.entry(member).or_insert_with(fresh);
            progress.leaving = None;
        }
        for (&member, progress) in &mut lead.others {
            if !configuration.contains(member) {
                let leaving = Leaving { index, until: None };
                progress.leaving.get_or_insert(leaving);
            }
        }
    }

    /// With each heartbeat: those that left are no longer sent to once they know, or after a while.
    pub(super) fn dismiss(&mut self) {
        let (now, commit) = (self.now, self.commit);
        let patience = self.settings.election.times(2);
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        lead.others.retain(|_, progress| {
            let Some(leaving) = &mut progress.leaving else {
                return true;
            };
            if commit < leaving.index {
                return true;
            }
            let until = *leaving.until.get_or_insert(now + patience);
            let knows = progress.matched.min(progress.told) >= leaving.index;
            !knows && now < until
        });
    }

    /// What a leader owes to a configuration once it is committed: a joint one is left, and one in which it does not vote is left by
    /// itself. A leader that found it in its log does so once an entry of its own term is committed.
    pub(super) fn conclude_change(&mut self) {
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let (since, configuration) = self.log.configured();
        if since > self.commit || self.commit < lead.first || lead.transfer.is_some() {
            return;
        }
        let stays = configuration.votes(self.settings.me)
            || self.switched.off(Mutation::RemovedLeaderStays);
        if configuration.is_joint() {
            let request = lead.changing.take();
            let index = self.append_configuration(configuration.without_outgoing());
            if let Some(request) = request {
                self.proposals.insert(index, (self.hard.term, request));
            }
        } else if !stays && self.start_transfer(None).is_err() {
            self.follow(self.hard.term, None);
        }
    }
}

/// What comes after `current` on the way to `to`.
fn next_step(current: &Configuration, to: Configuration) -> Result<Configuration, &'static str> {
    let nodes = |configuration: &Configuration| {
        let nodes = configuration.nodes();
        nodes
            .map(|(member, node)| (member, node.clone()))
            .collect::<Vec<_>>()
    };
    let joined = to.voters().filter(|&voter| !current.votes(voter)).count();
    let left = current.voters().filter(|&voter| !to.votes(voter)).count();
    let known = nodes(current).into_iter().chain(nodes(&to));
    let step = if joined + left <= 1 {
        to.clone()
    } else {
        let joint = Configuration::joint(to.voters(), current.voters(), to.learners());
        joint.map_err(|error| match error {
            ConfigurationError::VoterLearns(_) => {
                "a voter that is to learn does so in a change of its own"
            }
            _ => "together with those that leave there are too many members",
        })?
    };
    Ok(step.on_nodes(known))
}
