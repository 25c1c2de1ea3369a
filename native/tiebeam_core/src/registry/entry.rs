//! An entry as its owner tells it, and as users see it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::key::Key;
use crate::identity::NodeName;

/// One life of a registry: the node's creation, and which core of that creation. The numbers of operations begin anew
/// with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life {
    pub(crate) creation: u32,
    /// Greater for a later core of the same creation.
    pub(crate) epoch: u64,
}

/// What is done with a process that loses its name to an older registration of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The driver ends the process.
    Exit,
    /// The process is told, and lives on without the name.
    #[default]
    Notify,
    /// The process is told, waits, and has the name again as soon as it is free.
    Standby,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is found by.
    pub key: Key,
    /// The process, as its driver encoded it.
    pub pid: Arc<[u8]>,
    /// The metadata, as its driver encoded it.
    pub meta: Arc<[u8]>,
    /// The node that answers for it: the one where it was registered.
    pub node: NodeName,
    /// The creation of that node.
    pub creation: u32,
}

/// What an owner says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) pid: Arc<[u8]>,
    pub(crate) meta: Arc<[u8]>,
    /// The Lamport time of the registration; an update keeps it. The smallest is the oldest.
    pub(crate) stamp: u64,
    /// The number of the operation that made the item what it is.
    pub(crate) seq: u64,
    /// Conflicts in which this is the older registration are decided by its owner's user.
    pub(crate) resolve: bool,
    /// Known to the owner alone.
    pub(crate) on_conflict: OnConflict,
    /// How often a waiting process got the name and lost it again. Known to the owner alone.
    pub(crate) attempts: u8,
    /// What was decided about younger registrations of the same name.
    pub(crate) verdict: Option<Box<Verdict>>,
}

/// What the owner of the older registration, which alone decides, has decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Nobody keeps the name. The item holds no process; it stays until the others have let go.
    pub(crate) void: bool,
    /// The registrations that lost.
    pub(crate) beaten: Vec<Claimant>,
}

/// The most registrations that one item holds for beaten: more contenders for one name are judged again.
pub(crate) const MAX_BEATEN: usize = 8;

/// One registration of a name, told from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claimant {
    pub(crate) node: NodeName,
    pub(crate) creation: u32,
    pub(crate) stamp: u64,
}

impl Item {
    /// Whether the table shows the same for both.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        self.pid == other.pid && self.meta == other.meta && self.is_void() == other.is_void()
    }

    pub(crate) fn is_void(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.void)
    }

    pub(crate) fn beats(&self, node: &NodeName, creation: u32, stamp: u64) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| {
            verdict.beaten.iter().any(|beaten| {
                beaten.stamp == stamp && beaten.creation == creation && beaten.node == *node
            })
        })
    }
}
