//! What a node's processes can ask of the group, and the answers.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::output::Missing;
use crate::identity::NodeName;
use crate::leadership::entry::{Index, MemberId};
use crate::leadership::machine::{Expect, Kind, Limit, Stored, WatchId};
use crate::time::Duration;

/// The most keys in one answer to [`Command::List`].
pub const MAX_LIST: usize = 1000;

/// A call of a local process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// How long the caller waits. Then it is told [`Answer::NoLeader`] or [`Answer::Unknown`].
    pub timeout: Duration,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Gives a key a value, if `expect` holds. Done once, however often it is repeated on the way. Answered by
    /// [`Answer::Done`] with the revision, or [`Answer::Differs`].
    Put {
        /// At most [`MAX_KEY_BYTES`](crate::leadership::machine::MAX_KEY_BYTES).
        key: Vec<u8>,
        /// At most [`MAX_VALUE_BYTES`](crate::leadership::machine::MAX_VALUE_BYTES).
        value: Arc<[u8]>,
        /// What must hold.
        expect: Expect,
    },
    /// Removes a key; the same otherwise.
    Delete {
        /// Which.
        key: Vec<u8>,
        /// What must hold.
        expect: Expect,
    },
    /// The value of a key. Answered by [`Answer::Value`].
    Get {
        /// Which.
        key: Vec<u8>,
        /// How new it must be.
        read: Read,
    },
    /// The keys that begin with `prefix`, in order, behind `after`, at most `limit` and [`MAX_LIST`]. Answered by [`Answer::Values`].
    List {
        /// How they begin.
        prefix: Vec<u8>,
        /// The last one of the answer before.
        after: Option<Vec<u8>>,
        /// How many.
        limit: usize,
        /// How new they must be.
        read: Read,
    },
    /// Each change of a key that begins with `prefix` becomes an [`Output::Watched`](super::Output::Watched) from now on.
    /// Answered at once, by [`Answer::Done`] with the entry after which changes are told, or by [`Answer::Busy`].
    Watch {
        /// Comes back with each change. Chosen by the driver.
        watch: WatchId,
        /// How keys begin.
        prefix: Vec<u8>,
    },
    /// Ends a watch. Answered by [`Answer::Done`].
    Unwatch {
        /// Which.
        watch: WatchId,
    },
    /// Claims a lock, a singleton or a name for a process of this node. Answered by [`Answer::Done`] with the token or by
    /// [`Answer::Held`]; what is lost later is told by [`Output::Lost`](super::Output::Lost).
    Acquire {
        /// Which kind.
        kind: Kind,
        /// At most [`MAX_NAME_BYTES`](crate::leadership::machine::MAX_NAME_BYTES).
        name: Vec<u8>,
        /// What others see of the holder, for example its pid.
        value: Arc<[u8]>,
        /// For how long, if not until the process ends or gives it back.
        ttl: Option<Duration>,
        /// The process. When it ends the claim is given back.
        pid: Arc<[u8]>,
        /// Wait until it is free, for the timeout of the request.
        wait: bool,
    },
    /// Holds a claim for longer. Answered by [`Answer::Done`] or [`Answer::NotHeld`].
    Renew {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// Its token.
        token: Index,
        /// For how long from now on.
        ttl: Duration,
    },
    /// Gives a claim back. Answered by [`Answer::Done`] or [`Answer::NotHeld`].
    Release {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// Its token.
        token: Index,
    },
    /// Says something else with a claim that is held. Answered by [`Answer::Done`] or [`Answer::NotHeld`].
    Update {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// Its token.
        token: Index,
        /// What others see of the holder from then on.
        value: Arc<[u8]>,
    },
    /// Who holds it. Answered by [`Answer::Holder`].
    Holder {
        /// Which kind.
        kind: Kind,
        /// Which one.
        name: Vec<u8>,
        /// How new the answer must be.
        read: Read,
    },
    /// Who votes and who learns, as the leader or this node knows it. Answered by [`Answer::Members`].
    Members,
    /// Hands leadership to the node, or to the one that has most of the log, if this node leads; otherwise the leader is asked
    /// to. Answered by [`Answer::Done`] with the new term once another node leads.
    StepDown {
        /// To whom.
        to: Option<NodeName>,
    },
    /// Makes a node a voter, once it has the log. Answered by [`Answer::Done`] when it is.
    AddVoter(NodeName),
    /// Makes a voter a learner, for as long as it is here. Answered by [`Answer::Done`] when it is.
    RemoveVoter(NodeName),
    /// The majority of the voters is lost for good: this node founds the group anew with what it has, as its only voter.
    /// Whatever it had not heard of is lost, and if the others are alive after all there are two groups that refuse each other: start them
    /// with empty disks, and they join. Tokens and revisions go on far above those that were given out. Answered by [`Answer::Done`] with the term.
    ForceNewGroup,
}

/// How new an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Linearizable: it has everything that was acknowledged before the call (6.4). Asks the leader.
    Linear,
    /// What this node has.
    Local,
    /// What this node has, as soon as it has this entry: with the revision of an own write, that write.
    AtLeast(Index),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done. The revision of the key, the token of the claim, or the entry.
    Done(Index),
    /// The key is not as expected. Nothing was done: read it and decide anew.
    Differs {
        /// The revision that it has, 0 if it is not there.
        revision: Index,
    },
    /// Somebody else holds the claim. Nothing was done.
    Held {
        /// What the holder says of itself, if this node knows it already.
        value: Option<Arc<[u8]>>,
        /// Its token.
        token: Index,
    },
    /// The token is not, or no longer, that of the claim. Stop what it protected.
    NotHeld,
    /// The value of a key.
    Value(Option<Stored>),
    /// Keys and their values.
    Values {
        /// In order.
        rows: Vec<(Vec<u8>, Stored)>,
        /// There are more.
        more: bool,
    },
    /// Who holds the claim.
    Holder(Option<Holding>),
    /// The members of the group.
    Members(Vec<Standing>),
    /// No majority could be reached in time. Nothing was done. Try again later.
    NoLeader,
    /// There is no group yet: it is founded once these are here. Nothing was done.
    Unfounded(Missing),
    /// The group has as many members as it may, and this node is none of them. Nothing was done. Ask a member, or remove one.
    NoReplica {
        /// How many it may have.
        limit: usize,
    },
    /// It was not heard in time what became of it: it may be done, or be done later. A claim is given back if it was granted; a key should be
    /// read.
    Unknown,
    /// So much waits already; nothing was done. Try again later.
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// A part is too long; nothing was done.
    TooLong {
        /// Which.
        part: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A limit of the group would be exceeded; nothing was done.
    Full(Limit),
    /// No such node takes part in the group, as far as the leader knows.
    NoMember(NodeName),
    /// The change of members cannot be made; nothing was done.
    Refused(&'static str),
    /// This node takes no part in the group any more.
    Stopped,
}

/// A claim, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Its fencing token.
    pub token: Index,
    /// What the holder says of itself.
    pub value: Arc<[u8]>,
}

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub member: MemberId,
    /// Its node.
    pub node: NodeName,
    /// It votes.
    pub voter: bool,
    /// The leader has heard of it within an election timeout; `None` if this node does not lead.
    pub heard: Option<bool>,
    /// Up to here it has the log; `None` if this node does not lead.
    pub matched: Option<Index>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(index) => write!(f, "done at entry {index}"),
            Self::Differs { revision } => write!(
                f,
                "the key has revision {revision}, which is not expected; read it and decide anew"
            ),
            Self::Held { token, .. } => write!(f, "it is held under token {token}"),
            Self::NotHeld => f.write_str("it is not held under this token any more"),
            Self::Value(_) | Self::Values { .. } | Self::Holder(_) | Self::Members(_) => {
                f.write_str("done")
            }
            Self::NoLeader => f.write_str(
                "no majority of the voters can be reached, or there is no group yet; nothing was done",
            ),
            Self::Unfounded(missing) => write!(f, "there is no group yet: {missing}"),
            Self::NoReplica { limit } => write!(
                f,
                "the group has {limit} members, which is the limit, and this node is none of them; ask one that is"
            ),
            Self::Unknown => f.write_str(
                "nothing was heard in time: it may be done, or be done later; read before you repeat it",
            ),
            Self::Busy { limit } => {
                write!(f, "{limit} requests wait, which is the limit; try again later")
            }
            Self::TooLong { part, bytes, limit } => {
                write!(f, "a {part} of {bytes} bytes is too long, the limit is {limit}")
            }
            Self::Full(limit) => write!(f, "the group is full: {limit}"),
            Self::NoMember(node) => write!(f, "{node} takes no part in the group"),
            Self::Refused(why) => f.write_str(why),
            Self::Stopped => f.write_str("this node takes no part in the group any more"),
        }
    }
}
