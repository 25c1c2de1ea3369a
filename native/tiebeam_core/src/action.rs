//! What a cluster member wants done.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::event::CallId;
use crate::identity::NodeName;
use crate::membership::{MAX_PEERS, Member};
use crate::message::DecodeError;

/// What must be done. Carried out by the driver, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bytes for the core of another node. Best effort; a node that is not connected is dialled in the background.
    Send {
        /// The node to send to.
        to: NodeName,
        /// Arrive there as [`Event::Received`](crate::Event::Received).
        bytes: Vec<u8>,
    },
    /// The answer to [`Event::Asked`](crate::Event::Asked).
    Answer {
        /// The call that waits.
        call: CallId,
        /// Its answer.
        answer: Answer,
    },
    /// Something that users or operators want to know.
    Notify(Notice),
}

/// The answer to a [`Command`](crate::Command).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This node has left.
    Left,
}

/// What changed, never how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A member is here that was not: it is new, or it came back.
    Up(Member),
    /// A member is gone without a word. A restart is `Down` of the old creation, then `Up` of the new one.
    Down(Member),
    /// A member, or this node itself, said that it leaves.
    Left(Member),
    /// A member that is alive has a new incarnation.
    Refreshed(Member),
    /// A member that was dead or had left is no longer in the view.
    Forgotten(Member),
    /// A node is in another cluster: neither side takes the other for a member. Told once per connection.
    Refused {
        /// The node.
        node: NodeName,
        /// The identity of its cluster.
        cluster: String,
    },
    /// Bytes of a node had no effect.
    Ignored {
        /// The node that sent them.
        from: NodeName,
        /// What was wrong.
        why: Why,
    },
}

/// Why bytes had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// They are no message.
    Malformed(DecodeError),
    /// The message names another sender than the connection it came over.
    NotTheSender {
        /// Who the message says it is from.
        claimed: NodeName,
    },
    /// They came from a node that is not connected: the driver's order of events is broken.
    NotConnected,
    /// They are older than what is known of the sender.
    Stale,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed: {error}"),
            Self::NotTheSender { claimed } => write!(f, "the message claims to be from {claimed}"),
            Self::NotConnected => {
                write!(
                    f,
                    "the node is not connected, or {MAX_PEERS} others are, which is the limit"
                )
            }
            Self::Stale => f.write_str("older than what is known of the sender"),
        }
    }
}
