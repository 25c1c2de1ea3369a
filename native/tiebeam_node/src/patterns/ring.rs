//! Rings: keys spread over numbered partitions, and partitions over nodes.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tiebeam_core::NodeName;
use tiebeam_core::placement::{self, MAX_SLOTS, MAX_WEIGHT, Participant, Policy};
use tiebeam_core::registry::name::NameError;
use tiebeam_wire::{Atom, Term};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::placement::{Operator, Placement, Rebalance, task_settings};
use super::runner::{ReleaseReason, Request, Work};
use super::slots::{SlotHolder, Task, TaskMember};
use crate::cluster::{ClusterHandle, LeadershipError, Name, Token};
use crate::error::{CallError, SendError};
use crate::function::caught;
use crate::message::FromTerm;
use crate::node::Node;
use crate::typed;

pub(super) const DEFAULT_SETTLE: Duration = Duration::from_millis(500);
pub(super) const DEFAULT_HANDOVER: Duration = Duration::from_secs(5);

/// As a supervisor of OTP's behaviour `Supervisor` in Elixir has it.
pub(super) const DEFAULT_RESTARTS: (u32, Duration) = (3, Duration::from_secs(5));

/// The pauses before the owner of a partition is looked for again.
pub(super) const LOOK_FIRST: Duration = Duration::from_millis(5);
pub(super) const LOOK_MAX: Duration = Duration::from_millis(100);

/// What a node does with the partitions that it owns.
///
/// The callbacks of one partition come one after the other: `on_own`, then calls, many at a time, then `on_release`. Those of
/// different partitions come at the same time.
pub trait RingHandler: Send + Sync + 'static {
    /// The requests of calls and casts; who asks for anything else is told so.
    type Call: FromTerm + Send;
    /// The replies to calls.
    type Reply: Serialize + Send;

    /// The partition is this node's. No other node owns it: the one that did has released it, or lost it. Calls wait until this is done. After
    /// an error, or a panic, it is called again, a second later, if that has not happened too often ([`Ring::restarts`]).
    fn on_own(&self, partition: u32, token: Token)
    -> impl Future<Output = Result<(), Term>> + Send;

    /// The partition is to be another node's, once this returns or [`Ring::handover`] is over. With [`ReleaseReason::Lost`] it may be in a
    /// moment, so this is given up after 50 ms. The calls that were under way are answered, or given up.
    fn on_release(&self, partition: u32, reason: ReleaseReason) -> impl Future<Output = ()> + Send;

    /// Answers a call about a key of the partition.
    fn handle_call(
        &self,
        partition: u32,
        key: Term,
        request: Self::Call,
    ) -> impl Future<Output = Self::Reply> + Send;

    /// Handles what has no reply. Default: nothing.
    fn handle_cast(
        &self,
        partition: u32,
        key: Term,
        request: Self::Call,
    ) -> impl Future<Output = ()> + Send {
        let _ = (partition, key, request);
        async {}
    }

    /// This node follows the partition: it is one of those that are next in line ([`Ring::followers`]), and may keep a copy. Nothing is
    /// agreed upon: for a while two views may differ, and the owner may be this node already. Default: nothing.
    fn on_follow(&self, partition: u32) -> impl Future<Output = ()> + Send {
        let _ = partition;
        async {}
    }

    /// This node follows the partition no more, maybe because it is to own it. Default: nothing.
    fn on_unfollow(&self, partition: u32) -> impl Future<Output = ()> + Send {
        let _ = partition;
        async {}
    }
}

/// Keys spread evenly over the nodes that take part. Clones are the same.
///
/// ```no_run
/// # async fn start(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::{ReleaseReason, RingHandler, Term, Token};
///
/// struct Users;
///
/// impl RingHandler for Users {
///     type Call = String;
///     type Reply = String;
///
///     async fn on_own(&self, partition: u32, token: Token) -> Result<(), Term> {
///         println!("{partition} is ours under {token}");
///         Ok(())
///     }
///
///     async fn on_release(&self, partition: u32, reason: ReleaseReason) {
///         println!("{partition} is not: {reason:?}");
///     }
///
///     async fn handle_call(&self, partition: u32, _key: Term, request: String) -> String {
///         format!("{request} in {partition}")
///     }
/// }
///
/// let users = cluster.ring("users", 256);
/// let member = users.start(Users)?; // on each node that shall have partitions
/// let reply: String = users.call("user:1", "hello", Duration::from_secs(5)).await?; // from any node
/// member.drain().await;
/// # Ok(())
/// # }
/// ```
///
/// A key's partition is a hash of its term, the same in both languages: a BEAM with `Tiebeam.Ring` of the same name takes part as a
/// Rust node does. Each node that takes part has an even share of the partitions. When a node comes, it gets its share from
/// those that have most, and when one goes, the others share what it had: nothing else moves.
///
/// # What is promised
///
/// Each partition has one owner at most, in the way a [`Singleton`](crate::Singleton) is active: whoever releases it does so before
/// another one owns it, and whoever loses it, because its node cannot reach a majority, is told before another one can. A change of owners
/// needs a majority of the voters. All nodes must have the same number of partitions; while they differ nothing is moved.
#[derive(Clone)]
pub struct Ring {
    task: Task,
}

impl ClusterHandle {
    /// Keys spread over nodes, by way of so many partitions: 1 to 4,096, and the same on all nodes. Some dozen for each node make even
    /// shares. Needs [`ClusterConfig::voters`](crate::ClusterConfig::voters).
    pub fn ring(&self, name: impl Into<Name>, partitions: u32) -> Ring {
        let partitions = partitions.clamp(1, MAX_SLOTS as u32);
        Ring {
            task: Task {
                cluster: self.clone(),
                claims: self.claims(),
                kind: "ring",
                name: name.into(),
                slots: partitions,
                local: false,
                away_from: None,
                most: MAX_SLOTS,
                settle: DEFAULT_SETTLE,
                handover: DEFAULT_HANDOVER,
                policy: Policy::default(),
                participant: Participant::default(),
                followers: 0,
                restarts: DEFAULT_RESTARTS,
                meta: vec![("partitions", Term::from(partitions))],
            },
        }
    }
}

impl Ring {
    task_settings!();

    /// How many nodes follow each partition beside its owner, with [`RingHandler::on_follow`]. The same on all nodes. Default 0.
    #[must_use]
    pub fn followers(mut self, followers: usize) -> Self {
        self.task.followers = followers;
        self
    }

    /// How long the calls of a partition may take that is to be released, and then [`RingHandler::on_release`]. Default five seconds each.
    #[must_use]
    pub fn handover(mut self, handover: Duration) -> Self {
        self.task.handover = handover;
        self
    }

    /// Takes part, from now on until [`RingMember::drain`].
    ///
    /// # Errors
    /// [`LeadershipError::NoGroup`], [`LeadershipError::Name`], [`LeadershipError::AlreadyStarted`], or [`LeadershipError::Ended`] if the
    /// node has stopped.
    pub fn start<H: RingHandler>(&self, handler: H) -> Result<RingMember, LeadershipError> {
        let work = Partitions {
            handler,
            partitions: self.task.slots,
        };
        self.task.clone().start(work)
    }

    /// The nodes that follow a partition, the first in line first, as far as this node knows. Reads local tables, never waits.
    pub fn followers_of(&self, partition: u32) -> Vec<NodeName> {
        self.task.followers_of(partition)
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.task.slots
    }

    /// The partition of a key, from 0.
    pub fn partition_for(&self, key: impl Into<Name>) -> u32 {
        placement::partition(key.into().bytes(), self.task.slots)
    }

    /// The owner of a partition, as far as this node knows. Reads a local table, never waits.
    pub fn owner(&self, partition: u32) -> Option<SlotHolder> {
        self.task.holder(partition)
    }

    /// The node that owns the partition of a key, as far as this node knows. Reads a local table, never waits.
    pub fn node_for(&self, key: impl Into<Name>) -> Option<Atom> {
        let owner = self.owner(self.partition_for(key))?;
        Some(owner.pid.node)
    }

    /// This node owns the partition of a key, as far as it knows. Reads a local table, never waits.
    pub fn owns(&self, key: impl Into<Name>) -> bool {
        self.node_for(key).as_ref() == Some(self.task.node().name())
    }

    /// The partitions that this node owns, as far as it knows, in order. Reads a local table, never waits.
    pub fn owned(&self) -> Vec<u32> {
        self.owned_by(self.task.node().name().as_str())
    }

    /// The partitions that a node owns, as far as this one knows, in order. Reads a local table, never waits.
    pub fn owned_by(&self, node: &str) -> Vec<u32> {
        let owns = |partition: &u32| {
            let owner = self.owner(*partition);
            owner.is_some_and(|owner| owner.pid.node.as_str() == node)
        };
        (0..self.task.slots).filter(owns).collect()
    }

    /// Asks the owner of a key's partition, wherever it is, and waits for the reply. While the partition moves it waits for the next owner, at
    /// most so long.
    ///
    /// # Errors
    /// [`RingError::NoOwner`]: nobody was asked. [`RingError::Failed`], [`RingError::Call`]: the owner may have
    /// done what it was asked for.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reply; the request may still be handled.
    pub async fn call<R, T>(
        &self,
        key: impl Into<Name>,
        request: &R,
        timeout: Duration,
    ) -> Result<T, RingError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        let request = typed::to_term(request)
            .map_err(|error| CallError::from(SendError::Encode(error.to_string())))?;
        let reply = self.call_term(key, request, timeout).await?;
        Ok(Node::read_reply(reply)?)
    }

    /// As [`Ring::call`], with terms.
    ///
    /// # Cancel safety
    /// As for [`Ring::call`].
    pub async fn call_term(
        &self,
        key: impl Into<Name>,
        request: Term,
        timeout: Duration,
    ) -> Result<Term, RingError> {
        let key = key.into();
        key.check().map_err(RingError::Name)?;
        let deadline = Instant::now() + timeout;
        let partition = self.partition_for(&key);
        let message = Term::tuple([
            Term::atom("ring_call"),
            Term::from(partition),
            key.to_term(),
            request,
        ]);
        let mut pause = LOOK_FIRST;
        loop {
            if let Some(owner) = self.owner(partition) {
                let left = deadline.saturating_duration_since(Instant::now());
                let node = self.task.node();
                match node.call_term(&owner.pid, message.clone(), left).await {
                    Ok(reply) => match refusal(&reply) {
                        Some(Refusal::NotOwner) => {}
                        Some(Refusal::Failed(text)) => return Err(RingError::Failed(text)),
                        Some(Refusal::BadRequest(why)) => return Err(RingError::BadRequest(why)),
                        None => return Ok(reply),
                    },
                    // It was not asked.
                    Err(CallError::NoProcess | CallError::Connect(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(RingError::NoOwner { partition });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// Sends something to the owner of a key's partition, without a reply; whether there is an owner, as far as this node knows. Never waits.
    pub fn cast<R: Serialize + ?Sized>(
        &self,
        key: impl Into<Name>,
        request: &R,
    ) -> Result<bool, SendError> {
        let request =
            typed::to_term(request).map_err(|error| SendError::Encode(error.to_string()))?;
        let key = key.into();
        let partition = self.partition_for(&key);
        let Some(owner) = self.owner(partition) else {
            return Ok(false);
        };
        let message = Term::tuple([
            Term::atom("ring_cast"),
            Term::from(partition),
            key.to_term(),
            request,
        ]);
        self.task.node().cast_term(&owner.pid, message)?;
        Ok(true)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("name", &self.task.name)
            .field("partitions", &self.task.slots)
            .finish_non_exhaustive()
    }
}

/// What an owner says that has no reply.
enum Refusal {
    NotOwner,
    Failed(String),
    BadRequest(Term),
}

/// `{error, {not_owner, Node}}`, `{error, {failed, Text}}`, or `{error, {bad_request, Why}}`.
fn refusal(reply: &Term) -> Option<Refusal> {
    let [error, Term::Tuple(why)] = reply.as_tuple()? else {
        return None;
    };
    match why.as_slice() {
        _ if !error.is_atom("error") => None,
        [tag, _] if tag.is_atom("not_owner") => Some(Refusal::NotOwner),
        [tag, why] if tag.is_atom("bad_request") => Some(Refusal::BadRequest(why.clone())),
        [tag, Term::Binary(text)] if tag.is_atom("failed") => {
            let text = String::from_utf8_lossy(text.as_slice());
            Some(Refusal::Failed(text.into_owned()))
        }
        _ => None,
    }
}

fn failed(text: String) -> Term {
    let why = Term::tuple([Term::atom("failed"), Term::from(text)]);
    Term::tuple([Term::atom("error"), why])
}

/// This node's part in a ring.
pub type RingMember = TaskMember;

/// Why a ring did not answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum RingError {
    /// In time nobody owned the partition, or nobody that could be reached: nothing was asked.
    NoOwner {
        /// Which.
        partition: u32,
    },
    /// The key is too long, or otherwise no name.
    Name(NameError),
    /// The owner failed while it handled the request: what it says.
    Failed(String),
    /// The request does not fit what the owner's handler takes, and was not handled: why, or the request.
    BadRequest(Term),
    /// The call failed.
    Call(CallError),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOwner { partition } => write!(
                f,
                "nobody owned partition {partition} in time: nodes come or go, no majority of the voters can be reached, or no node takes part"
            ),
            Self::Name(error) => error.fmt(f),
            Self::Failed(text) => write!(f, "the owner failed: {text}"),
            Self::BadRequest(why) => write!(f, "the owner does not take such a request: {why}"),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RingError {}

impl From<CallError> for RingError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A ring's work.
struct Partitions<H> {
    handler: H,
    partitions: u32,
}

impl<H: RingHandler> Work for Partitions<H> {
    fn own(&self, slot: u32, token: Token) -> impl Future<Output = Result<(), Term>> + Send {
        self.handler.on_own(slot, token)
    }

    async fn request(&self, slot: u32, request: Request) {
        let Request { key, request, from } = request;
        let expected = Name::try_from(key.clone());
        let expected = expected.map(|key| placement::partition(key.bytes(), self.partitions));
        let call = if expected == Ok(slot) {
            H::Call::from_term(&request).map_err(|misfit| misfit.to_reply())
        } else {
            let why = format!("{key} is no key of partition {slot} of {}", self.partitions);
            let why = Term::tuple([Term::atom("bad_request"), Term::from(why)]);
            Err(Term::tuple([Term::atom("error"), why]))
        };
        let reply = match (call, &from) {
            (Ok(call), Some(_)) => match caught(self.handler.handle_call(slot, key, call)).await {
                Ok(reply) => {
                    typed::to_term(&reply).unwrap_or_else(|error| failed(error.to_string()))
                }
                Err(why) => failed(why.to_string()),
            },
            (Ok(cast), None) => return self.handler.handle_cast(slot, key, cast).await,
            (Err(why), Some(_)) => why,
            (Err(why), None) => return debug!("a cast is ignored: {why}"),
        };
        if let Some(from) = from {
            // Whoever asked may be gone.
            let _ = from.reply_term_paced(reply).await;
        }
    }

    async fn follow(&self, slot: u32, follows: bool) {
        match follows {
            true => self.handler.on_follow(slot).await,
            false => self.handler.on_unfollow(slot).await,
        }
    }

    fn release(&self, slot: u32, reason: ReleaseReason) -> impl Future<Output = ()> + Send {
        self.handler.on_release(slot, reason)
    }
}
