//! A member as everybody sees it.

use alloc::sync::Arc;

use crate::identity::{Identity, NodeName};
use crate::time::Duration;

/// The most bytes of metadata. It travels with every word about its member, and one such word has to fit a small packet.
pub const MAX_METADATA_BYTES: usize = 512;

/// The most bytes in one broadcast: it has to fit a small packet beside the words about members.
pub const MAX_BROADCAST_BYTES: usize = 512;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A BEAM node with the `tiebeam` package.
    Beam,
    /// A Rust node.
    Rust,
    /// A BEAM node without the package: observed by up to three members, its guardians, that ask its kernel.
    Plain,
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
    /// Which start of the name; 0 of a [`Kind::Plain`] node, which is not known.
    pub creation: u32,
    /// Its latest word about itself; of a [`Kind::Plain`] node, how often others had to witness that it is alive.
    pub incarnation: u64,
    /// What it is.
    pub kind: Kind,
    /// What this node believes of it.
    pub status: Status,
    /// What it tells about itself: at most [`MAX_METADATA_BYTES`] bytes, empty by default.
    pub metadata: Arc<[u8]>,
    /// The round trip to it, smoothed (RFC 6298, section 2); `None` before the first answer, and for this node itself.
    pub round_trip: Option<Duration>,
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
