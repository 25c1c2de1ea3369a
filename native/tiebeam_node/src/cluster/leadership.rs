//! What the handles of leader, keys, locks and strong names share, and why something was not done.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tiebeam_core::leadership::group::{self, Answer, Command, Missing};
use tiebeam_core::leadership::machine::Limit;
use tiebeam_core::registry::name::NameError;
use tiebeam_core::{Instant, NodeName};
use tiebeam_wire::{Pid, Term};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::cluster::handle::{Asked, Request};
use crate::cluster::replica::{self, News, Replica};
use crate::cluster::term;
use crate::node::Node;
use crate::typed;

/// How long a call waits where nothing else is said: several elections.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Changes of the leader that are kept for who is slow: more than any that is useful to know of.
pub(super) const MAX_LEADER_CHANGES: usize = 64;

/// The way to the group, for handles.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) node: Node,
    /// There are voters.
    pub(super) takes_part: bool,
    pub(super) replica: Arc<Replica>,
    pub(super) requests: mpsc::Sender<Request>,
    /// The origin of the core's time.
    pub(super) origin: tokio::time::Instant,
    pub(super) leaders: broadcast::WeakSender<News>,
    pub(super) next_watch: Arc<AtomicU64>,
    pub(super) timeout: Duration,
}

impl Shared {
    /// The time of the core. It reads the clock that the driver reads.
    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(self.origin.elapsed().as_micros() as u64)
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub(super) async fn ask(&self, command: Command) -> Result<Answer, LeadershipError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command: tiebeam_core::Command::Leadership(group::Request {
                command,
                timeout: core_duration(self.timeout),
            }),
            asked: Asked::Handle(answer),
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| LeadershipError::Ended)?;
        granted(answered.await.map_err(|_| LeadershipError::Ended)?)
    }

    /// As [`Shared::ask`], for what is answered by an index alone.
    pub(super) async fn done(&self, command: Command) -> Result<u64, LeadershipError> {
        match self.ask(command).await? {
            Answer::Done(index) => Ok(index),
            other => Err(unexpected(&other)),
        }
    }
}

/// A span for the core, which counts whole microseconds.
pub(crate) fn core_duration(span: Duration) -> tiebeam_core::Duration {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    tiebeam_core::Duration::from_micros(micros)
}

/// An answer to another question: the core breaks its word.
pub(super) fn unexpected(answer: &Answer) -> LeadershipError {
    debug_assert!(false, "not the answer to what was asked: {answer:?}");
    LeadershipError::Unknown
}

/// An answer that grants what was asked, or why it does not.
pub(super) fn granted(answer: tiebeam_core::Answer) -> Result<Answer, LeadershipError> {
    let answer = match answer {
        tiebeam_core::Answer::Leadership(answer) => answer,
        tiebeam_core::Answer::NoGroup => return Err(LeadershipError::NoGroup),
        tiebeam_core::Answer::Left => return Err(LeadershipError::Left),
        // What the driver says by itself of a process that has ended.
        tiebeam_core::Answer::Registry(_) => return Err(LeadershipError::NoProcess),
        tiebeam_core::Answer::Done
        | tiebeam_core::Answer::TooLong { .. }
        | tiebeam_core::Answer::Busy { .. } => return Err(LeadershipError::Ended),
    };
    Err(match answer {
        Answer::Done(_)
        | Answer::Value(_)
        | Answer::Values { .. }
        | Answer::Holder(_)
        | Answer::Members(_) => return Ok(answer),
        Answer::Differs { revision } => LeadershipError::Differs { revision },
        Answer::Held { value, token } => LeadershipError::Held {
            by: value
                .and_then(|value| replica::holder(&value))
                .map(|(pid, _)| pid),
            token: Token(token),
        },
        Answer::NotHeld => LeadershipError::NotHeld,
        Answer::NoLeader => LeadershipError::NoQuorum,
        Answer::Unfounded(missing) => LeadershipError::NotFounded(missing),
        Answer::NoReplica { limit } => LeadershipError::NoReplica { limit },
        Answer::Unknown => LeadershipError::Unknown,
        Answer::Busy { limit } => LeadershipError::Busy { limit },
        Answer::TooLong { part, bytes, limit } => LeadershipError::TooLong { part, bytes, limit },
        Answer::Full(limit) => LeadershipError::Full(limit),
        Answer::NoMember(node) => LeadershipError::NoMember(node),
        Answer::Refused(why) => LeadershipError::Refused(why),
        Answer::Stopped => LeadershipError::Stopped,
    })
}

/// A fencing token: of two holders the later one has the greater. A resource that is to be safe refuses what comes with a
/// token that is less than the greatest it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why something was not done, or is not known to be done. [`LeadershipError::Unknown`] is the only one after which it may
/// have been done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LeadershipError {
    /// This node was started without voters.
    NoGroup,
    /// Another node leads, or none does.
    NotLeader {
        /// Which, as far as this node knows.
        leader: Option<NodeName>,
    },
    /// No majority of the voters could be reached in time.
    NoQuorum,
    /// There is no group yet: it is founded once these are here. Nothing was done.
    NotFounded(Missing),
    /// The group has as many members as it may, and this node is none of them. Nothing was done. Any node may ask a member: see
    /// [`Node::cluster`](crate::Node::cluster).
    NoReplica {
        /// How many members it may have.
        limit: usize,
    },
    /// It was not heard in time what became of it.
    Unknown,
    /// Somebody else has it.
    Held {
        /// The process, if this node knows it already.
        by: Option<Pid>,
        /// Under this token.
        token: Token,
    },
    /// The token is not, or no longer, that of who holds it.
    NotHeld,
    /// It was lost while the work was under way, which was given up.
    Lost,
    /// The key is not as expected.
    Differs {
        /// The revision that it has; 0 if it is not there.
        revision: u64,
    },
    /// So many requests wait already.
    Busy {
        /// How many may.
        limit: usize,
    },
    /// A part is too long: the caller's mistake.
    TooLong {
        /// Which.
        part: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A limit of the group would be exceeded.
    Full(Limit),
    /// The node takes no part in the group, as far as its leader knows.
    NoMember(NodeName),
    /// It is no name of a node.
    Node(tiebeam_core::NodeNameError),
    /// The change of members cannot be made.
    Refused(&'static str),
    /// This node takes no part in the group any more: its disk failed, or worse; the log has the reason.
    Stopped,
    /// The term is none that may be a name.
    Name(NameError),
    /// The value has no form as a term, or is not of the type that was asked for.
    Value(typed::Error),
    /// The process has ended.
    NoProcess,
    /// The process is not of this node.
    Elsewhere {
        /// The process.
        pid: Pid,
    },
    /// This node takes part in the ring or the pool already.
    AlreadyStarted {
        /// By this process.
        pid: Pid,
    },
    /// This node has left the cluster.
    Left,
    /// The cluster's process on this node has ended, or the node has stopped.
    Ended,
}

impl LeadershipError {
    /// The same in Erlang's terms: what `{error, Reason}` holds for processes that ask.
    pub(crate) fn reason(&self) -> Term {
        let pair = |name, value| Term::tuple([Term::atom(name), value]);
        match self {
            Self::NoGroup => Term::atom("no_group"),
            Self::NotLeader { leader } => pair("not_leader", node_term(leader.as_ref())),
            Self::NoQuorum => Term::atom("no_quorum"),
            Self::NotFounded(missing) => pair("not_founded", term::missing(missing)),
            Self::NoReplica { limit } => pair("no_replica", Term::from(*limit as u64)),
            Self::Unknown => Term::atom("unknown"),
            Self::Held { .. } => Term::atom("held"),
            Self::NotHeld => Term::atom("not_held"),
            Self::Lost => Term::atom("lost"),
            Self::Differs { revision } => pair("differs", Term::from(*revision)),
            Self::Busy { .. } => Term::atom("busy"),
            Self::Full(_) => Term::atom("full"),
            Self::NoMember(node) => pair("no_member", node_term(Some(node))),
            Self::Stopped => Term::atom("stopped"),
            Self::NoProcess => Term::atom("noproc"),
            Self::AlreadyStarted { pid } => pair("already_started", Term::from(pid)),
            Self::Left => Term::atom("left"),
            Self::TooLong { .. }
            | Self::Node(_)
            | Self::Refused(_)
            | Self::Name(_)
            | Self::Value(_)
            | Self::Elsewhere { .. }
            | Self::Ended => pair("invalid", Term::from(self.to_string())),
        }
    }
}

/// A node as an atom; `nil` for none.
pub(super) fn node_term(node: Option<&NodeName>) -> Term {
    let atom = node.and_then(|node| tiebeam_wire::Atom::new(node.as_str()).ok());
    atom.map_or_else(|| Term::atom("nil"), Term::from)
}

impl fmt::Display for LeadershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroup => tiebeam_core::Answer::NoGroup.fmt(f),
            Self::NotLeader {
                leader: Some(leader),
            } => write!(f, "this node does not lead, {leader} does"),
            Self::NotLeader { leader: None } => {
                f.write_str("this node does not lead, and knows of nobody who does")
            }
            Self::NoQuorum => write!(f, "{}; try again later", Answer::NoLeader),
            Self::NotFounded(missing) => Answer::Unfounded(missing.clone()).fmt(f),
            Self::NoReplica { limit } => Answer::NoReplica { limit: *limit }.fmt(f),
            Self::Unknown => Answer::Unknown.fmt(f),
            Self::Held {
                by: Some(pid),
                token,
            } => write!(f, "it is held by {pid:?} under token {token}"),
            Self::Held { by: None, token } => write!(f, "it is held under token {token}"),
            Self::NotHeld => Answer::NotHeld.fmt(f),
            Self::Lost => f.write_str("it was lost, and the work that it protected given up"),
            &Self::Differs { revision } => Answer::Differs { revision }.fmt(f),
            &Self::Busy { limit } => Answer::Busy { limit }.fmt(f),
            &Self::TooLong { part, bytes, limit } => Answer::TooLong { part, bytes, limit }.fmt(f),
            Self::Full(limit) => Answer::Full(*limit).fmt(f),
            Self::NoMember(node) => write!(
                f,
                "{node} takes no part in the group, as far as its leader knows; start it with voters, and connect it, first"
            ),
            Self::Node(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::Stopped => {
                f.write_str("this node takes no part in the group any more; its log says why")
            }
            Self::Name(error) => error.fmt(f),
            Self::Value(error) => write!(f, "the value does not fit: {error}"),
            Self::NoProcess => f.write_str("the process has ended"),
            Self::Elsewhere { pid } => {
                write!(f, "{pid:?} is a process of another node: ask there")
            }
            Self::AlreadyStarted { pid } => {
                write!(f, "this node takes part already: {pid:?}; drain that first")
            }
            Self::Left => {
                f.write_str("this node has left the cluster; start it again to take part")
            }
            Self::Ended => {
                f.write_str("the cluster's process on this node has ended; start the cluster again")
            }
        }
    }
}

impl std::error::Error for LeadershipError {}
