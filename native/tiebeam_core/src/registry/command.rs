//! What local callers ask of a registry, what they are answered, and the limits they meet.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use super::entry::OnConflict;
use super::items::MAX_ENTRIES;
use super::key::{MAX_META_BYTES, MAX_NAME_BYTES, MAX_PID_BYTES, MAX_SCOPE_BYTES};
use super::log::MAX_LOG;
use crate::identity::NodeName;
use crate::time::Duration;

/// What a local caller can ask for. Processes are processes that this node answers for: its own, or those that its driver
/// watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give a name to a process. A process that has it already gets the new metadata and options.
    Register {
        /// The scope.
        scope: String,
        /// The name.
        name: Arc<[u8]>,
        /// The process.
        pid: Arc<[u8]>,
        /// Its metadata.
        meta: Arc<[u8]>,
        /// What to do with it if an older registration is found.
        on_conflict: OnConflict,
        /// Ask [`Output::Resolve`](super::Output::Resolve) when this is the older of two registrations, instead of keeping
        /// it. All nodes should ask for the same in one scope.
        resolve: bool,
        /// The driver found the name free in its table, wrote the row itself and has told the caller that it is done. Then
        /// nobody is asked: a registration of another node that came in meanwhile is a conflict, as if that node had
        /// registered at the same time. If a process of this node has the name, or a limit is reached, nothing is changed,
        /// and the driver tells the process that it lost.
        claimed: bool,
    },
    /// Take a name away from its process, or a waiting process out of the line.
    Unregister {
        /// The scope.
        scope: String,
        /// The name.
        name: Arc<[u8]>,
        /// Only if it is this process's.
        pid: Option<Arc<[u8]>>,
    },
    /// Replace the metadata of a name of this node.
    Update {
        /// The scope.
        scope: String,
        /// The name.
        name: Arc<[u8]>,
        /// The new metadata.
        meta: Arc<[u8]>,
    },
    /// Make a process a member of a group. A member gets the new metadata.
    Join {
        /// The scope.
        scope: String,
        /// The name of the group.
        group: Arc<[u8]>,
        /// The process.
        pid: Arc<[u8]>,
        /// The metadata of the membership.
        meta: Arc<[u8]>,
    },
    /// Take a process out of a group.
    Leave {
        /// The scope.
        scope: String,
        /// The name of the group.
        group: Arc<[u8]>,
        /// The process.
        pid: Arc<[u8]>,
    },
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done: the table of this node shows it, and the others hear of it.
    Done,
    /// The name is another process's. Its node was asked, unless it is this one, and says so; or it did not answer in time.
    Taken {
        /// The process.
        pid: Arc<[u8]>,
        /// The node that answers for it.
        node: NodeName,
    },
    /// Nobody has the name, or the process is not in the group.
    Unknown,
    /// The process ended before the answer was known.
    Exited,
    /// Nothing was changed.
    Refused(Refusal),
}

/// A command that goes over a limit: which, and what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A part is empty, or has more bytes than its limit.
    Length {
        /// Which part.
        part: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have; at least one, but for metadata.
        limit: usize,
    },
    /// This node has as many entries in the scope as it may.
    ScopeFull {
        /// How many.
        limit: usize,
    },
    /// This node uses as many scopes as it may.
    ScopesFull {
        /// How many.
        limit: usize,
    },
    /// This node has as many entries as it may.
    Full {
        /// How many.
        limit: usize,
    },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Taken { node, .. } => write!(f, "the name is taken by a process of {node}"),
            Self::Unknown => f.write_str("there is no such entry"),
            Self::Exited => f.write_str("the process ended"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { part, bytes: 0, .. } => write!(f, "the {part} is empty"),
            Self::Length { part, bytes, limit } => {
                write!(f, "the {part} has {bytes} bytes, the limit is {limit}")
            }
            Self::ScopeFull { limit } => {
                write!(
                    f,
                    "this node has {limit} entries in the scope, which is its limit"
                )
            }
            Self::ScopesFull { limit } => {
                write!(f, "this node uses {limit} scopes, which is its limit")
            }
            Self::Full { limit } => write!(f, "this node has {limit} entries, which is its limit"),
        }
    }
}

/// The settings of a registry that have a reason to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most entries of this node in one scope; at most [`MAX_ENTRIES`].
    pub entries_per_scope: usize,
    /// How long the node of a registered process is asked about it before `Taken` is answered without its word. Longer
    /// than a round trip, shorter than a caller's patience.
    pub ask_timeout: Duration,
    /// How long the user's verdict on a conflict may take before the older registration is kept.
    pub resolve_timeout: Duration,
    /// How long the entries of a node that is down are kept out of sight, so that only what differs is sent when it
    /// comes back.
    pub keep_down: Duration,
    /// The most operations that are kept for peers that missed some; at most [`MAX_LOG`].
    pub log: usize,
    /// How many entries are shown, hidden or dropped in one step, when there are many: 1,024 take some hundred
    /// microseconds.
    pub work_per_step: usize,
}

/// The most scopes of one node: each costs a counter, and they are written by people.
pub const MAX_SCOPES: usize = 1024;

/// The most registrations that wait for the word of another node at a time. More are answered `Taken` at once.
pub const MAX_QUESTIONS: usize = 65_536;

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_per_scope: MAX_ENTRIES,
            ask_timeout: Duration::from_secs(1),
            resolve_timeout: Duration::from_secs(5),
            keep_down: Duration::from_secs(15 * 60),
            log: MAX_LOG,
            work_per_step: 1024,
        }
    }
}

pub(crate) fn check_scope(scope: &str) -> Result<(), Refusal> {
    within("scope", scope.len(), 1, MAX_SCOPE_BYTES)
}

pub(crate) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    within("name", name.len(), 1, MAX_NAME_BYTES)
}

pub(crate) fn check_pid(pid: &[u8]) -> Result<(), Refusal> {
    within("pid", pid.len(), 1, MAX_PID_BYTES)
}

pub(crate) fn check_meta(meta: &[u8]) -> Result<(), Refusal> {
    within("metadata", meta.len(), 0, MAX_META_BYTES)
}

fn within(part: &'static str, bytes: usize, least: usize, limit: usize) -> Result<(), Refusal> {
    if (least..=limit).contains(&bytes) {
        Ok(())
    } else {
        Err(Refusal::Length { part, bytes, limit })
    }
}
