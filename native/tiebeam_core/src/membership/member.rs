//! A member as everybody sees it.

use crate::identity::{Identity, NodeName};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A BEAM node with the `tiebeam` package.
    Beam,
    /// A Rust node.
    Rust,
}

/// What this node believes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It is connected and speaks.
    Alive,
    /// It did not answer lately, and may still (SWIM, section 4.2).
    Suspect,
    /// It is gone without a word.
    Dead,
    /// It said that it leaves.
    Left,
}

/// A member of the cluster, this node included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node's name: one member per name.
    pub node: NodeName,
    /// Which start of the name.
    pub creation: u32,
    /// Its latest word about itself.
    pub incarnation: u64,
    /// What it is.
    pub kind: Kind,
    /// What this node believes of it.
    pub status: Status,
}

impl Member {
    /// The life of the node that is meant.
    pub fn identity(&self) -> Identity {
        Identity {
            node: self.node.clone(),
            creation: self.creation,
            incarnation: self.incarnation,
        }
    }
}
