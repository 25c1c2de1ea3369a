//! What can happen to a cluster member.

use alloc::vec::Vec;

use crate::identity::NodeName;

/// What happened. Told to [`Cluster::step`](crate::Cluster::step) by the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes came from the core of another node. Never trusted.
    Received {
        /// The node whose connection carried them.
        from: NodeName,
        /// What its core gave to [`Action::Send`](crate::Action::Send).
        bytes: Vec<u8>,
    },
    /// A connection to a node came up, whoever dialled. The node may or may not run Tiebeam.
    Connected {
        /// The node at the other end.
        to: NodeName,
    },
    /// The connection to a node is gone.
    Disconnected {
        /// The node that was at the other end.
        from: NodeName,
    },
    /// A local caller asks for something.
    Asked {
        /// Comes back in [`Action::Answer`](crate::Action::Answer), exactly once.
        call: CallId,
        /// What is asked for.
        command: Command,
    },
    /// Nothing happened, but time passed.
    Woke,
}

/// The driver's mark for a call that waits for an answer. Chosen by the driver; never interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a local caller can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Tell all members that this node leaves, then take no further part but to tell it to who missed it. Asking again
    /// answers the same.
    Leave,
}
