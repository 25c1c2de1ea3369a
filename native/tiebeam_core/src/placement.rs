//! Where work goes: keys to partitions, and slots to nodes.
//!
//! All of it are functions of their arguments, the same on all nodes and in both languages: whoever has the same view decides the same. Hashes are
//! SipHash-2-4 with the key zero, over bytes that the callers agree on.
//!
//! A *task* has numbered slots: the partitions of a ring, the replicas of a pool, the one place of a singleton. At most one node has a slot; who does
//! is decided elsewhere, by claims. [`View::turn`] says what a node should let go and what it should ask for, so that all nodes together come to
//! a spread by weight in which nobody gives up more than it must.
//!
//! # How a driver uses it
//!
//! On each node, for each task that it takes part in:
//!
//! 1. Read who takes part ([`Participant`], from what each node says of itself) and who holds which slot. A node that has a slot which its own
//!    table does not show yet counts it as its own.
//! 2. When that has not changed for a while, there is a leader who grants claims, and nothing of an earlier turn is under way: ask
//!    [`View::turn`]. Keep its [`Turn::moves`] for the next one.
//! 3. Release what it says, in good order; ask for what it says. Whatever was not granted is a reason to look again.
//! 4. The next turn is when what was read has changed, at [`Turn::again`] at the latest.
//!
//! What an operator asks for changes what a node says of itself (a cordon, a weight, labels, a pin), and so what all nodes see. An order to
//! rebalance is a turn `by_hand`. A node that drains says so, and releases everything without asking for a turn.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tiebeam_core::placement::{Moves, Participant, Policy, Task, View};
//! use tiebeam_core::{Instant, NodeName};
//!
//! let (a, b) = (NodeName::parse("a@h")?, NodeName::parse("b@h")?);
//! let twice = Participant { weight: 200, ..Participant::default() };
//! let participants = BTreeMap::from([(a.clone(), twice), (b.clone(), Participant::default())]);
//! let view = View {
//!     task: Task { name: b"ring", most: 6 },
//!     policy: &Policy::default(),
//!     holders: &[const { None }; 6],
//!     participants: &participants,
//! };
//! let turn = |me| view.turn(me, Instant::ZERO, &Moves::default(), false);
//! assert_eq!((turn(&a).acquire.len(), turn(&b).acquire.len()), (4, 2));
//! # Ok::<(), tiebeam_core::NodeNameError>(())
//! ```

mod participant;
mod policy;
mod share;
mod turn;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use participant::{
    DEFAULT_WEIGHT, Labels, MAX_LABEL_BYTES, MAX_LABELS, MAX_PINS, MAX_WEIGHT, Participant,
};
pub use policy::{Label, Policy, Rebalance};
pub use turn::{Moves, Turn, View};

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::hash::siphash;
use crate::identity::NodeName;
use crate::time::Instant;

/// The most slots of a task: each is a claim, and each node looks at all of them when somebody comes or goes.
pub const MAX_SLOTS: usize = 4096;

/// The partition of a key, from 0 to `partitions - 1`; 0 if there are none.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    // The high half of the product: even, without a division.
    ((u128::from(siphash(key)) * u128::from(partitions)) >> 64) as u32
}

/// How much `node` is meant for `key`: the greatest number has it ("rendezvous hashing"; Thaler and Ravishankar, 1998). When a node comes or goes,
/// only the keys that it gets or had change their place.
pub fn score(key: &[u8], node: &NodeName) -> u64 {
    let name = node.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(name.len() + 1 + key.len());
    bytes.extend_from_slice(name);
    // No node name has it, so no two pairs are the same bytes.
    bytes.push(0);
    bytes.extend_from_slice(key);
    siphash(&bytes)
}

/// The nodes, the one that is most meant for `key` first.
pub fn rank(key: &[u8], nodes: impl IntoIterator<Item = NodeName>) -> Vec<NodeName> {
    let scored = nodes.into_iter().map(|node| (score(key, &node), node));
    let mut scored: Vec<(u64, NodeName)> = scored.collect();
    scored.sort_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, node)| node).collect()
}

/// A task with slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task<'a> {
    /// Its name, in bytes that all nodes agree on.
    pub name: &'a [u8],
    /// The most slots that one node takes.
    pub most: usize,
}

impl Task<'_> {
    fn score(&self, slot: usize, node: &NodeName) -> u64 {
        let mut key = Vec::with_capacity(self.name.len() + 4);
        key.extend_from_slice(&(slot as u32).to_be_bytes());
        key.extend_from_slice(self.name);
        score(&key, node)
    }
}

/// What a node should do about the slots of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Let these go: others have too few.
    pub release: Vec<usize>,
    /// Ask for these, which are free.
    pub acquire: Vec<usize>,
}

/// What `me` should do, where `holders` has who holds each slot, and `nodes` can take slots: a [`View::turn`] of nodes that are all alike. A node that is not
/// among them lets go of everything. What a node holds that is not among `nodes` is waited for.
///
/// Each node gets its even share, or as many as [`Task::most`] allows; where the shares differ by one, those that have more keep more. So if all
/// nodes follow their plans, nothing is left to do soon, and no slot moves but those that must.
pub fn plan(
    task: Task<'_>,
    holders: &[Option<NodeName>],
    nodes: &BTreeSet<NodeName>,
    me: &NodeName,
) -> Plan {
    let alike = |node: &NodeName| (node.clone(), Participant::default());
    let participants: BTreeMap<NodeName, Participant> = nodes.iter().map(alike).collect();
    let view = View {
        task,
        policy: &Policy::default(),
        holders,
        participants: &participants,
    };
    let turn = view.turn(me, Instant::ZERO, &Moves::default(), false);
    Plan {
        release: turn.release,
        acquire: turn.acquire,
    }
}
