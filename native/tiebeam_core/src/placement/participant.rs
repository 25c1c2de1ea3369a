//! What a node that takes part in a task says of itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The weight of a node that says nothing of it.
pub const DEFAULT_WEIGHT: u32 = 100;

/// The greatest weight; the least is 1. A thousandth is finer than the slots that there are for a node.
pub const MAX_WEIGHT: u32 = 1000;

/// The most labels of a node: what it says of itself travels with each of its memberships, and may have 4 KiB in all.
pub const MAX_LABELS: usize = 16;

/// The most bytes of a label's key, and of its value.
pub const MAX_LABEL_BYTES: usize = 64;

/// The most slots of a task that are pinned to one node. The reason is that of [`MAX_LABELS`]; who wants more of them by hand wants weights.
pub const MAX_PINS: usize = 256;

/// Labels by key, such as `zone`: `a`.
pub type Labels = BTreeMap<Vec<u8>, Vec<u8>>;

/// A node that takes part in a task. By default it is like all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its share, as against those of the others: 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What [`Policy`](super::Policy) may ask for: at most [`MAX_LABELS`].
    pub labels: Labels,
    /// It takes nothing any more, and is about to give up what it has.
    pub draining: bool,
    /// It takes nothing new, and keeps what it has.
    pub cordoned: bool,
    /// Slots that are this node's, whatever its share, while it takes part: at most [`MAX_PINS`]. Where two nodes say that of a slot, the one
    /// that has it keeps it.
    pub pinned: BTreeSet<usize>,
}

impl Default for Participant {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            labels: Labels::new(),
            draining: false,
            cordoned: false,
            pinned: BTreeSet::new(),
        }
    }
}

impl Participant {
    /// Whether it may be told of itself: a driver that is asked for such labels refuses them if not, and takes those of others that are not for none.
    pub fn are_labels(labels: &Labels) -> bool {
        let fits = |bytes: &Vec<u8>| bytes.len() <= MAX_LABEL_BYTES;
        labels.len() <= MAX_LABELS && labels.iter().all(|(key, value)| fits(key) && fits(value))
    }
}
