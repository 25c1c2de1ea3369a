//! Which nodes a task may be on, and how it moves.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::MAX_SLOTS;
use super::participant::{Labels, Participant};
use crate::identity::NodeName;
use crate::time::Duration;

/// The key and the value of a label.
pub type Label = (Vec<u8>, Vec<u8>);

/// Where a task may be. The same on all nodes: those that differ may wait for each other. By default it may be everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only on these nodes.
    pub on: Option<BTreeSet<NodeName>>,
    /// Only on nodes that have, of each key that is here, one of the values.
    pub label: Vec<Label>,
    /// Not on nodes that have one of these.
    pub avoid: Vec<Label>,
    /// Rather on nodes that have more of these than others, where an even spread leaves a choice. What is held does not move for it but [by
    /// hand](super::View::turn).
    pub prefer: Vec<Label>,
    /// How it moves.
    pub rebalance: Rebalance,
}

/// When slots that somebody holds move, and how many. Slots that nobody holds are always taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// Nobody gives up a slot for balance's sake while the greatest and the least share differ by no more slots than this. What counts is by how many a node has
    /// more than its weight would give it. Shares that differ by one are even, so 0 means 1.
    pub threshold: usize,
    /// The most slots of a node that are on their way to others at a time.
    pub max_concurrent: usize,
    /// How long a node waits between two moves for balance's sake.
    pub cooldown: Duration,
}

impl Default for Rebalance {
    /// Even shares, at once.
    fn default() -> Self {
        Self {
            threshold: 1,
            max_concurrent: MAX_SLOTS,
            cooldown: Duration::ZERO,
        }
    }
}

impl Policy {
    /// Whether the task may be on a node with these labels.
    pub fn admits(&self, node: &NodeName, labels: &Labels) -> bool {
        let has = |(key, value): &Label| labels.get(key) == Some(value);
        let on = self.on.as_ref().is_none_or(|on| on.contains(node));
        let labelled = self.label.iter().all(|(key, _)| {
            let mut same_key = self.label.iter().filter(|(other, _)| other == key);
            same_key.any(has)
        });
        on && labelled && !self.avoid.iter().any(has)
    }

    /// How much the task is to be on a node with these labels.
    pub(super) fn preference(&self, participant: &Participant) -> usize {
        let has = |(key, value): &&Label| participant.labels.get(key) == Some(value);
        self.prefer.iter().filter(has).count()
    }
}
