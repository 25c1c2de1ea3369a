//! What can happen to a cluster member.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identity::NodeName;
use crate::leadership::{PersistToken, group};
use crate::registry::{self, Keep};

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
        /// It is part of the mesh (OTP: a visible node). A hidden one is a member only if it runs Tiebeam: tools and C
        /// nodes are never observed.
        visible: bool,
    },
    /// The connection to a node is gone.
    Disconnected {
        /// The node that was at the other end.
        from: NodeName,
    },
    /// The answer to [`Action::Observe`](crate::Action::Observe) came: the node's kernel is alive. No answer is no event.
    Observed {
        /// The node that answered.
        node: NodeName,
        /// The number of the observation.
        probe: u64,
    },
    /// The answer to [`Action::Sample`](crate::Action::Sample), always one, in the same turn of the driver.
    Sampled {
        /// The node at the other end of the connection.
        node: NodeName,
        /// What was received over the connection so far, in any unit that grows with every packet; `None` when there is
        /// no connection, or its count cannot be read.
        received: Option<u64>,
    },
    /// A process that this node answers for, in the registry or in the group, ended. One that has nothing there has no effect.
    Exited {
        /// The process, as it was registered.
        pid: Arc<[u8]>,
    },
    /// The answer to [`Action::Check`](crate::Action::Check), always one, in the same turn of the driver.
    Checked {
        /// The number of the check.
        id: u64,
        /// The process still runs.
        alive: bool,
    },
    /// The answer to [`Action::Resolve`](crate::Action::Resolve). No answer in time keeps the older registration.
    Resolved {
        /// The number of the conflict.
        id: u64,
        /// Whose the name shall be.
        keep: Keep,
    },
    /// What [`Action::Persist`](crate::Action::Persist) said is on disk, and all before it.
    Persisted {
        /// The number of the write.
        token: PersistToken,
    },
    /// A write failed. The member takes no part in the group any more; the rest of the cluster goes on.
    Unpersisted {
        /// Why, in the words of the disk.
        why: String,
    },
    /// A local caller asks for something.
    Asked {
        /// Comes back in [`Action::Answer`](crate::Action::Answer), exactly once; that of a registration may come in a
        /// later step.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Replaces this node's metadata, at most [`MAX_METADATA_BYTES`](crate::MAX_METADATA_BYTES) bytes. Members see it in
    /// about a second, without any `Down` or `Up`.
    SetMetadata(Vec<u8>),
    /// Tells all members something once, at most [`MAX_BROADCAST_BYTES`](crate::MAX_BROADCAST_BYTES) bytes: it becomes a
    /// [`Notice::Broadcast`](crate::Notice::Broadcast) on each, this node excepted. Best effort, in no order.
    Broadcast(Vec<u8>),
    /// Something about names and groups; answered by [`Answer::Registry`](crate::Answer::Registry).
    Registry(registry::Command),
    /// Something for the group that agrees on a leader; answered by [`Answer::Leadership`](crate::Answer::Leadership).
    Leadership(group::Request),
    /// Tell all members that this node leaves, then take no further part but to tell it to who missed it. Asking again
    /// answers the same. Where the node takes part in leadership it is to be stepped on until
    /// [`Stopped::Left`](group::Stopped::Left) comes, an election timeout at most: what it holds is given back, and its leadership handed over.
    Leave,
}
