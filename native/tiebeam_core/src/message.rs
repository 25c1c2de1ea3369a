//! What cores say to each other.

mod codec;

use alloc::string::String;
use alloc::vec::Vec;

use crate::identity::{Identity, NodeName};
use crate::membership::{Kind, Status};

pub use codec::{DecodeError, MAX_MESSAGE_BYTES};
pub(crate) use codec::{MAX_LISTED, decode, encode};

/// One message. In bytes: see `message/codec.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Says who is speaking and asks for a [`Message::Welcome`].
    Hello(Hello),
    /// Answers a [`Message::Hello`] with the same about the receiver of it.
    Welcome(Hello),
    /// Answers a [`Message::Hello`] of another cluster.
    Refused {
        /// The identity of the refusing node's cluster.
        cluster: String,
    },
    /// The sender takes no further part.
    Leave(Identity),
}

/// Who is speaking, and whom it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The identity of the cluster.
    pub(crate) cluster: String,
    /// The speaker.
    pub(crate) sender: Identity,
    pub(crate) kind: Kind,
    /// What the speaker holds of the receiver, which may know better.
    pub(crate) held: Option<Held>,
    /// Members the speaker holds for alive, without itself and the receiver; at most [`MAX_LISTED`].
    pub(crate) listed: Vec<NodeName>,
}

/// What one node holds of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) creation: u32,
    pub(crate) incarnation: u64,
    pub(crate) status: Status,
}
