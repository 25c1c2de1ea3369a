//! What cores say to each other.

mod codec;
mod error;
mod size;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identity::NodeName;
use crate::membership::{Kind, Status};

pub use codec::{MAX_DATAGRAM_BYTES, MAX_MESSAGE_BYTES};
pub(crate) use codec::{MAX_TABLE_BYTES, cluster_digest, decode, encode};
pub use error::DecodeError;
pub(crate) use size::Size;

/// How many parts a table is compared in; see [`Body::Digest`].
pub(crate) const BUCKETS: usize = 32;

/// One message. In bytes: see `message/codec.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// A digest of the identity of the sender's cluster.
    pub(crate) cluster: u32,
    /// The sender's creation. Its name is that of the connection.
    pub(crate) creation: u32,
    /// The sender's own incarnation: whoever holds it for suspect at an older one knows better now.
    pub(crate) incarnation: u64,
    pub(crate) body: Body,
    /// Words about members that ride along.
    pub(crate) words: Vec<Word>,
    /// Broadcasts that ride along.
    pub(crate) broadcasts: Vec<Broadcast>,
}

/// What a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Says who is speaking and asks for a [`Body::Welcome`].
    Hello(Hello),
    /// Answers a [`Body::Hello`] with the same about the receiver of it.
    Welcome(Hello),
    /// Answers a [`Body::Hello`] of another cluster.
    Refused {
        /// The identity of the refusing node's cluster.
        cluster: String,
    },
    /// The sender takes no further part.
    Leave,
    /// Are you there? (SWIM, section 3.1)
    Ping { number: u64 },
    /// The answer, and whose it is: a helper passes it on with the name's creation and incarnation as it got them.
    Ack {
        number: u64,
        creation: u32,
        incarnation: u64,
    },
    /// Ping a node for me.
    PingReq { number: u64, node: NodeName },
    /// It has not answered yet, but I have heard you (Lifeguard, section 3.1).
    Nack { number: u64 },
    /// Nothing but what rides along.
    Gossip,
    /// What the sender holds, in few bytes: who holds the same is silent, who does not sends a [`Body::Table`].
    Digest {
        /// For each part of the table a digest of its entries.
        members: [u32; BUCKETS],
        /// The same of the broadcasts that are kept.
        broadcasts: u32,
    },
    /// The words and broadcasts that ride along are what the sender holds.
    Table {
        /// The parts that the receiver should send in return, one bit each.
        wanted: u32,
        /// So too with the broadcasts.
        broadcasts: bool,
    },
}

/// Who is speaking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The identity of the cluster.
    pub(crate) cluster: String,
    /// The speaker, as a check: it is the name of the connection.
    pub(crate) node: NodeName,
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    /// What the speaker holds of the receiver, which may know better.
    pub(crate) held: Option<Held>,
}

/// What one node holds of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) creation: u32,
    pub(crate) incarnation: u64,
    pub(crate) status: Status,
}

/// What a member tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metadata {
    /// The incarnation in which it told so: the latest counts.
    pub(crate) told: u64,
    pub(crate) bytes: Arc<[u8]>,
}

/// What somebody says about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) node: NodeName,
    pub(crate) creation: u32,
    pub(crate) incarnation: u64,
    pub(crate) kind: Kind,
    pub(crate) claim: Claim,
    /// Absent where the speaker does not know it, or where it would not matter.
    pub(crate) metadata: Option<Metadata>,
}

/// How a member is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    Alive,
    /// It did not answer `by`.
    Suspect {
        by: NodeName,
    },
    Dead,
    Left,
}

impl Claim {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Alive => Status::Alive,
            Self::Suspect { .. } => Status::Suspect,
            Self::Dead => Status::Dead,
            Self::Left => Status::Left,
        }
    }
}

/// What a member tells all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broadcast {
    pub(crate) id: BroadcastId,
    /// Milliseconds for which it is still passed on.
    pub(crate) remaining: u32,
    pub(crate) bytes: Arc<[u8]>,
}

/// Which broadcast.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BroadcastId {
    pub(crate) origin: NodeName,
    pub(crate) creation: u32,
    pub(crate) number: u64,
}
