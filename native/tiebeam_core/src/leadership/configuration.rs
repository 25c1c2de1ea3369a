//! Who votes (dissertation, chapter 4), and what a majority of them agrees on.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use super::entry::{Index, MemberId};
use super::mutation::{Mutation, Switched};
use crate::identity::NodeName;

/// The most voters: each adds a message to every commit, and nine already survive the loss of four.
pub const MAX_VOTERS: usize = 9;

/// The most members, learners included. The leader sends to each of them, some 5,000 heartbeats a second if there are so many; and a
/// configuration counts them in a byte.
pub const MAX_MEMBERS: usize = 255;

/// The members of a group. While `outgoing` is not empty the configuration is joint (4.3): whatever is agreed needs a
/// majority of the voters and a majority of the outgoing ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    voters: BTreeSet<MemberId>,
    outgoing: BTreeSet<MemberId>,
    learners: BTreeSet<MemberId>,
    /// On which node each member is, as far as it was said.
    nodes: BTreeMap<MemberId, NodeName>,
}

/// Why members do not make a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigurationError {
    /// Nobody votes.
    NoVoters,
    /// More than [`MAX_VOTERS`] vote.
    TooManyVoters {
        /// How many do.
        count: usize,
    },
    /// There are more than [`MAX_MEMBERS`].
    TooManyMembers {
        /// How many there are.
        count: usize,
    },
    /// A voter is listed as a learner too.
    VoterLearns(MemberId),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVoters => f.write_str("a group needs at least one voter"),
            Self::TooManyVoters { count } => {
                write!(f, "{count} voters are too many, the limit is {MAX_VOTERS}")
            }
            Self::TooManyMembers { count } => {
                write!(
                    f,
                    "{count} members are too many, the limit is {MAX_MEMBERS}"
                )
            }
            Self::VoterLearns(member) => write!(f, "member {member} cannot vote and learn at once"),
        }
    }
}

impl core::error::Error for ConfigurationError {}

impl Configuration {
    /// A configuration in which `voters` vote and `learners` only listen.
    ///
    /// # Errors
    ///
    /// See [`ConfigurationError`].
    pub fn new(
        voters: impl IntoIterator<Item = MemberId>,
        learners: impl IntoIterator<Item = MemberId>,
    ) -> Result<Self, ConfigurationError> {
        Self::joint(voters, [], learners)
    }

    /// A joint configuration: `voters` take over from `outgoing`.
    ///
    /// # Errors
    ///
    /// See [`ConfigurationError`].
    pub fn joint(
        voters: impl IntoIterator<Item = MemberId>,
        outgoing: impl IntoIterator<Item = MemberId>,
        learners: impl IntoIterator<Item = MemberId>,
    ) -> Result<Self, ConfigurationError> {
        let made = Self {
            voters: voters.into_iter().collect(),
            outgoing: outgoing.into_iter().collect(),
            learners: learners.into_iter().collect(),
            nodes: BTreeMap::new(),
        };
        if made.voters.is_empty() {
            return Err(ConfigurationError::NoVoters);
        }
        let count = made.voters.len().max(made.outgoing.len());
        if count > MAX_VOTERS {
            return Err(ConfigurationError::TooManyVoters { count });
        }
        let count = made.members().count();
        if count > MAX_MEMBERS {
            return Err(ConfigurationError::TooManyMembers { count });
        }
        if let Some(&both) = made.learners.iter().find(|&&member| made.votes(member)) {
            return Err(ConfigurationError::VoterLearns(both));
        }
        Ok(made)
    }

    /// The same members, and on which nodes they are. Nothing is decided by that here: it travels with the members, so that whoever has
    /// the log knows whom to ask for.
    #[must_use]
    pub fn on_nodes(mut self, nodes: impl IntoIterator<Item = (MemberId, NodeName)>) -> Self {
        let known = nodes
            .into_iter()
            .filter(|&(member, _)| self.contains(member));
        self.nodes = known.collect();
        self
    }

    /// The node of a member.
    pub fn node(&self, member: MemberId) -> Option<&NodeName> {
        self.nodes.get(&member)
    }

    /// Those of which the node is known, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (MemberId, &NodeName)> + '_ {
        self.nodes.iter().map(|(&member, node)| (member, node))
    }

    /// The member on a node.
    pub fn member_on(&self, node: &NodeName) -> Option<MemberId> {
        let found = self.nodes.iter().find(|(_, name)| *name == node);
        found.map(|(&member, _)| member)
    }

    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.voters.iter().copied()
    }

    /// Those who voted before; their majority is needed as well. Empty unless the configuration is joint.
    pub fn outgoing(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.outgoing.iter().copied()
    }

    /// Those who get the log and do not vote (4.2.1).
    pub fn learners(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.learners.iter().copied()
    }

    /// All of them, each once, in order.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        let voting: BTreeSet<MemberId> = self.voters.union(&self.outgoing).copied().collect();
        voting
            .union(&self.learners)
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// It is a configuration of two majorities.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// `member` votes, in either half.
    pub fn votes(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// `member` is one of them, voting or not.
    pub fn contains(&self, member: MemberId) -> bool {
        self.votes(member) || self.learners.contains(&member)
    }

    /// The same, without those who voted before (4.3).
    pub(super) fn without_outgoing(&self) -> Self {
        let left = Self {
            outgoing: BTreeSet::new(),
            ..self.clone()
        };
        let nodes = self.nodes.clone();
        left.on_nodes(nodes)
    }

    /// How many members are listed; those in both halves twice.
    pub(super) fn count(&self) -> usize {
        self.voters.len() + self.outgoing.len() + self.learners.len()
    }

    /// How many bytes it takes in a message, roughly.
    pub(super) fn weight(&self) -> usize {
        let nodes = self.nodes.values().map(|node| 10 + node.as_str().len());
        8 * self.count() + nodes.sum::<usize>()
    }

    /// The greatest value that a majority has reached, of both halves if there are two.
    pub(super) fn agreed<T: Ord + Copy>(
        &self,
        switched: Switched,
        reached: impl Fn(MemberId) -> T,
    ) -> Option<T> {
        let half = |members: &BTreeSet<MemberId>| {
            let mut all: Vec<T> = members.iter().map(|&member| reached(member)).collect();
            if switched.off(Mutation::LearnersCount) {
                all.extend(self.learners.iter().map(|&member| reached(member)));
            }
            all.sort_unstable_by(|a, b| b.cmp(a));
            // Of n members n / 2 + 1 are a majority: the last of the first so many.
            let mut last = all.len() / 2;
            if switched.off(Mutation::HalfIsMajority) && all.len().is_multiple_of(2) {
                last = last.saturating_sub(1);
            }
            if switched.off(Mutation::MinorityCommits) {
                last = last.saturating_sub(1);
            }
            all.get(last).copied()
        };
        let now = half(&self.voters)?;
        if self.outgoing.is_empty() || switched.off(Mutation::JointNeedsOneMajority) {
            return Some(now);
        }
        Some(now.min(half(&self.outgoing)?))
    }

    /// Some majority is among those for whom `has` holds.
    pub(super) fn majority(&self, switched: Switched, has: impl Fn(MemberId) -> bool) -> bool {
        self.agreed(switched, has) == Some(true)
    }

    /// The greatest index that a majority has.
    pub(super) fn committed(
        &self,
        switched: Switched,
        matched: impl Fn(MemberId) -> Index,
    ) -> Index {
        self.agreed(switched, matched).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn ids(numbers: &[u64]) -> Vec<MemberId> {
        numbers.iter().copied().map(MemberId).collect()
    }

    fn matched(table: &[(u64, Index)]) -> impl Fn(MemberId) -> Index {
        let table = table.to_vec();
        move |member| {
            table
                .iter()
                .find(|(id, _)| *id == member.0)
                .map_or(0, |&(_, index)| index)
        }
    }

    #[test]
    fn an_index_is_committed_when_more_than_half_have_it() {
        let on = Switched::NONE;
        let three = Configuration::new(ids(&[1, 2, 3]), []).unwrap();
        assert_eq!(three.committed(on, matched(&[(1, 9), (2, 7), (3, 4)])), 7);
        let four = Configuration::new(ids(&[1, 2, 3, 4]), []).unwrap();
        assert_eq!(
            four.committed(on, matched(&[(1, 9), (2, 7), (3, 4), (4, 1)])),
            4
        );
        let one = Configuration::new(ids(&[1]), []).unwrap();
        assert_eq!(one.committed(on, matched(&[(1, 5)])), 5);
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Configuration::joint(ids(&[3, 4, 5]), ids(&[1, 2, 3]), []).unwrap();
        let on = Switched::NONE;
        assert!(!joint.majority(on, |member| member.0 >= 3));
        assert!(!joint.majority(on, |member| member.0 <= 3));
        assert!(joint.majority(on, |member| [2, 3, 4].contains(&member.0)));
        assert_eq!(
            joint.committed(on, matched(&[(1, 9), (2, 9), (3, 9), (4, 2), (5, 1)])),
            2
        );
    }

    #[test]
    fn learners_do_not_count() {
        let with = Configuration::new(ids(&[1, 2, 3]), ids(&[4, 5])).unwrap();
        assert!(!with.majority(Switched::NONE, |member| [1, 4, 5].contains(&member.0)));
        assert_eq!(with.members().collect::<Vec<_>>(), ids(&[1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let error = |voters: Vec<MemberId>, learners: Vec<MemberId>| {
            Configuration::new(voters, learners).unwrap_err()
        };
        assert_eq!(error(vec![], vec![]), ConfigurationError::NoVoters);
        let many = ids(&(1..=10).collect::<Vec<_>>());
        assert_eq!(
            error(many, vec![]),
            ConfigurationError::TooManyVoters { count: 10 }
        );
        let learners = ids(&(2..=MAX_MEMBERS as u64 + 1).collect::<Vec<_>>());
        assert_eq!(
            error(ids(&[1]), learners),
            ConfigurationError::TooManyMembers {
                count: MAX_MEMBERS + 1
            }
        );
        assert_eq!(
            error(ids(&[1]), ids(&[1])),
            ConfigurationError::VoterLearns(MemberId(1))
        );
    }
}
