//! What a group wants done.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::command::Answer;
use super::config::Founding;
use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::entry::{Index, Term};
use crate::leadership::machine::{Claim, Kind, SnapshotError, Stored, WatchId};
use crate::leadership::replica::Fault;
use crate::leadership::snapshot::Write;
use crate::time::Instant;

/// What must be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the group of another node. Best effort.
    Send {
        /// The node.
        to: NodeName,
        /// For its [`Group::received`](super::Group::received).
        bytes: Vec<u8>,
    },
    /// Write to disk, one after the other, then tell [`Group::persisted`](super::Group::persisted) the token. A driver without a
    /// disk tells it at once.
    Persist(Box<Disk>),
    /// A change of the table that callers read.
    Row(Row),
    /// The answer to a request.
    Answer {
        /// The call that waits.
        call: CallId,
        /// Its answer.
        answer: Answer,
    },
    /// Who leads changed, as far as this node knows. Terms never go back.
    Led(Led),
    /// This node may say that it leads until then, if nothing else is told before; `None`: it may not. Told whenever it is
    /// prolonged, so the driver's table always has the latest.
    Lease {
        /// The term, which is the fencing token.
        term: Term,
        /// Until when, by the clock of the driver.
        until: Option<Instant>,
    },
    /// A process of this node no longer holds a claim, and did not give it back. Whatever the claim protected must stop now;
    /// nobody else can have the claim before this is told, if the clocks of two nodes run alike.
    Lost(Lost),
    /// A key that is watched changed.
    Watched {
        /// Which watch.
        watch: WatchId,
        /// The key.
        key: Vec<u8>,
        /// Its value; `None` if it was removed.
        stored: Option<Stored>,
        /// The entry that did it.
        revision: Index,
    },
    /// The members of the group changed: those who vote, and those who learn.
    Members {
        /// In order.
        voters: Vec<NodeName>,
        /// In order.
        learners: Vec<NodeName>,
    },
    /// Another node is in a group that was founded apart from this one: they refuse each other. Told once per connection.
    Foreign {
        /// The node.
        node: NodeName,
    },
    /// This node takes no part in the group any more, until it is started anew.
    Stopped(Stopped),
    /// Something is wrong with this node's part in the group, or nothing is any more. Told when it changes, and each minute while the
    /// group is not founded. Who leads is told by [`Output::Led`] alone.
    Condition(Condition),
    /// Bytes of a node had no effect.
    Ignored {
        /// The node that sent them.
        from: NodeName,
        /// What was wrong.
        why: String,
    },
}

/// A write of the group and of its engine. Either part may have nothing to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Replaces the founding.
    pub founding: Option<Founding>,
    /// The node begins anew under a founding: term, vote, log and snapshot are removed first.
    pub clear: bool,
    /// What the engine writes.
    pub write: Write,
}

/// A change of the table that callers read: everything that [`Read::Local`](super::Read::Local) would answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A key has this value.
    Put {
        /// Which.
        key: Vec<u8>,
        /// Its value.
        stored: Stored,
    },
    /// A key is gone.
    Deleted {
        /// Which.
        key: Vec<u8>,
    },
    /// A claim is held.
    Claimed {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// Who holds it, and under which token.
        claim: Claim,
    },
    /// A claim is free.
    Freed {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// What it was.
        claim: Claim,
    },
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// The latest term.
    pub term: Term,
    /// Its leader, if it is known.
    pub leader: Option<NodeName>,
}

/// A claim that a process of this node no longer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The process.
    pub pid: Arc<[u8]>,
    /// Which kind.
    pub kind: Kind,
    /// Which one.
    pub name: Vec<u8>,
    /// The token that is worth nothing any more.
    pub token: Index,
}

/// How it is with a node's part in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Somebody leads, as far as this node knows.
    Led,
    /// Nobody does.
    Leaderless,
    /// There is no group yet: it is founded once these are here.
    Unfounded(Missing),
    /// The group has as many members as it may, and this node is none of them.
    NoReplica {
        /// How many it may have.
        limit: usize,
    },
    /// These nodes are in a group that was founded apart from this one.
    Foreign(Vec<NodeName>),
    /// This node takes no part any more.
    Stopped(Stopped),
}

impl Condition {
    /// Something is wrong that does not pass by itself.
    pub fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Self::Led | Self::Leaderless | Self::Stopped(Stopped::Left)
        )
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Led => f.write_str("the group has a leader"),
            Self::Leaderless => f.write_str("nobody leads the group"),
            Self::Unfounded(missing) => write!(f, "the group is not founded yet: {missing}"),
            Self::NoReplica { limit } => write!(
                f,
                "the group has {limit} members, which is the limit, and this node is none of them"
            ),
            Self::Foreign(nodes) => {
                f.write_str(
                    "these nodes are in a group that was founded apart from this node's: ",
                )?;
                list(f, nodes)
            }
            Self::Stopped(why) => write!(f, "this node takes no part in its group any more: {why}"),
        }
    }
}

/// Who is missing before a group can be founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// These voters, by name: they do not run, are not connected, or were started without voters.
    Voters(Vec<NodeName>),
    /// So many, whoever they are.
    Count(usize),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voters(nodes) => {
                f.write_str("it begins once all its voters are here, and these are not: ")?;
                list(f, nodes)
            }
            Self::Count(count) => write!(
                f,
                "it begins once as many nodes are here as are expected, and {count} more must come"
            ),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, nodes: &[NodeName]) -> fmt::Result {
    for (n, node) in nodes.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{node}")?;
    }
    Ok(())
}

/// Why a node takes no part in the group any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The engine found something that must not be.
    Fault(Fault),
    /// The disk failed.
    Disk(String),
    /// The state that another member sent, or that is on disk, cannot be read.
    Unreadable(SnapshotError),
    /// It left.
    Left,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Disk(why) => write!(
                f,
                "what the group agreed on could not be written: {why}; mend the disk and start the node again"
            ),
            Self::Unreadable(error) => write!(
                f,
                "{error}; run one version on all nodes, then start this node with an empty disk"
            ),
            Self::Left => f.write_str("the node left"),
        }
    }
}
