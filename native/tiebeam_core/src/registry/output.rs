//! What a registry wants done: messages, rows of the table, answers, questions.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::command::Answer;
use super::entry::{Entry, OnConflict};
use super::key::Key;
use super::message::Malformed;
use crate::event::CallId;
use crate::identity::NodeName;

/// What must be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the registry of another node. Best effort: what is lost is asked for again.
    Send {
        /// The node.
        to: NodeName,
        /// One message.
        bytes: Vec<u8>,
    },
    /// A change of the table that callers read.
    Table(Change),
    /// The answer to a command.
    Answer {
        /// The call that waits.
        call: CallId,
        /// Its answer.
        answer: Answer,
    },
    /// A process of this node lost its name to an older registration, or by the verdict of its scope's user. Told once,
    /// after the table shows it.
    Lost(Loss),
    /// A process of this node that waited for its name has it. The table shows it already.
    Promoted {
        /// The name.
        key: Key,
        /// The process.
        pid: Arc<[u8]>,
    },
    /// Whose shall the name be? Both registered it while they could not hear of each other. To be answered by
    /// [`Registry::resolved`](super::Registry::resolved) before [`Limits::resolve_timeout`](super::Limits), or the older
    /// one keeps it.
    Resolve {
        /// Comes back in the answer.
        id: u64,
        /// The older registration, of this node.
        older: Entry,
        /// The younger one, of another node.
        younger: Entry,
    },
    /// Does this process of this node still run? To be answered by [`Registry::checked`](super::Registry::checked),
    /// always, in the same turn.
    Check {
        /// Comes back in the answer.
        id: u64,
        /// The process.
        pid: Arc<[u8]>,
    },
    /// Bytes of a node had no effect.
    Ignored {
        /// The node that sent them.
        from: NodeName,
        /// What was wrong.
        why: Malformed,
    },
}

/// One change of the table. Each is an event for users as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A name is in the table that was not.
    Registered(Entry),
    /// A name has the same process, with other metadata or another owner.
    Updated(Entry),
    /// A name has another process: the one it had lost a conflict, or ended while another was waiting.
    Replaced {
        /// The row as it is now.
        entry: Entry,
        /// The process that had the name.
        was: Arc<[u8]>,
    },
    /// A name is no longer in the table.
    Unregistered {
        /// The name.
        key: Key,
        /// The process that had it.
        pid: Arc<[u8]>,
        /// Why.
        gone: Gone,
    },
    /// A process is in a group that it was not in.
    Joined(Entry),
    /// A member of a group has other metadata.
    Rejoined(Entry),
    /// A process is no longer in a group.
    Left {
        /// The group.
        key: Key,
        /// The process.
        pid: Arc<[u8]>,
        /// Why.
        gone: Gone,
    },
    /// All rows of one owner go, at once. For users: one `Unregistered` or `Left` for each of them.
    Purged {
        /// The owner.
        node: NodeName,
        /// The creation of the owner.
        creation: u32,
        /// Why.
        departure: Departure,
        /// All that may have such a row: so that nobody looks through the whole table. Some may show another owner's.
        keys: Vec<Key>,
    },
}

/// Why an entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// It was asked for.
    Unregistered,
    /// The process ended.
    Exited,
    /// An older registration of the name was found, or a verdict was given.
    Lost,
    /// It ended while this node did not hear of it; why is not known any more.
    Missed,
}

/// Why a node's entries are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Departure {
    /// The node is dead, or cannot be reached. It may come back with what it has.
    Down,
    /// The node said that it leaves.
    Left,
    /// The node, or its cluster driver, started again.
    Restarted,
}

/// A process that lost its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The name.
    pub key: Key,
    /// The process that lost it.
    pub pid: Arc<[u8]>,
    /// The process that has the name now; `None` when the verdict was: neither.
    pub kept: Option<Arc<[u8]>>,
    /// What was asked for at registration. A process on [`OnConflict::Standby`] waits from now on.
    pub on_conflict: OnConflict,
}
