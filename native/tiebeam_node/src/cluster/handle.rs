//! What a Rust program does with its node's part in a cluster.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::leadership::group::Condition;
use tiebeam_core::leadership::machine;
use tiebeam_core::{Answer, Command, Health, Member, Metrics};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::cluster::claim::Claims;
use crate::cluster::event::{ClusterEvent, ClusterEvents};
use crate::cluster::groups::Groups;
use crate::cluster::kv::{Kv, KvChange};
use crate::cluster::leader::Leader;
use crate::cluster::leadership;
use crate::cluster::lock::Locks;
use crate::cluster::registry::{Registry, Shared};
use crate::cluster::replica::News;
use crate::cluster::services::Services;
use crate::node::Node;
use crate::process::ReplyTo;

/// Requests of handles that may wait, of a few kilobytes at most: as many as some turns of the driver take. A handle beyond
/// it waits for its turn.
pub(super) const MAX_REQUESTS: usize = 256;

/// How long a node that leaves waits for others to take over: the longest election timeout, and as much again for the disk.
const HAND_OVER: std::time::Duration = std::time::Duration::from_secs(4);

/// This node's part in a cluster. Clones are the same; dropping all of them changes nothing: the node stays a member
/// until [`ClusterHandle::leave`] or [`Node::stop`](crate::Node::stop).
#[derive(Clone)]
pub struct ClusterHandle {
    pub(super) members: watch::Receiver<Arc<[Member]>>,
    pub(super) vitals: SharedVitals,
    pub(super) events: broadcast::WeakSender<ClusterEvent>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) registry: Shared,
    pub(super) leadership: leadership::Shared,
}

/// Tells that something has changed by which slots are placed: claims, groups, or who leads.
pub(crate) struct PlacementNews {
    claimed: watch::Receiver<()>,
    grouped: watch::Receiver<()>,
    led: watch::Receiver<News>,
}

impl PlacementNews {
    /// Waits until something has; for ever once the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.claimed.changed() => changed,
            changed = self.grouped.changed() => changed,
            changed = self.led.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending().await
        }
    }
}

/// What is asked of the driver.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) asked: Asked,
}

/// Who waits for the answer.
pub(super) enum Asked {
    /// A handle of this node.
    Handle(oneshot::Sender<Answer>),
    /// The same, with where the changes of what is watched go, and whether the watch ends rather than leave any out.
    Watch(oneshot::Sender<Answer>, mpsc::Sender<KvChange>, bool),
    /// A process, on whatever node.
    Process(ReplyTo),
    /// Nobody does.
    Nobody,
}

/// How the driver's core is, as of its last step.
#[derive(Clone, Debug)]
pub(super) struct Vitals {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) group: Option<Condition>,
}

/// Written by the driver after each step, read by handles.
#[derive(Clone)]
pub(super) struct SharedVitals(Arc<Mutex<Vitals>>);

impl SharedVitals {
    pub(super) fn new(vitals: Vitals) -> Self {
        Self(Arc::new(Mutex::new(vitals)))
    }

    pub(super) fn set(&self, vitals: Vitals) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = vitals;
    }

    fn get(&self) -> Vitals {
        let vitals = self.0.lock();
        vitals.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClusterHandle {
    /// All members this node knows, itself included, in the order of their names. Never waits. Members that are dead or
    /// have left stay listed for a while. Round trips are at most some seconds old.
    pub fn members(&self) -> Arc<[Member]> {
        Arc::clone(&self.members.borrow())
    }

    /// What this node knows of a member. Never waits.
    pub fn member(&self, node: &str) -> Option<Member> {
        let members = self.members();
        members
            .iter()
            .find(|member| member.node.as_str() == node)
            .cloned()
    }

    /// Waits until the members satisfy `test`, and answers them; `None` when the driver ends before.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for(&self, mut test: impl FnMut(&[Member]) -> bool) -> Option<Arc<[Member]>> {
        let mut members = self.members.clone();
        let members = members.wait_for(|members| test(members)).await.ok()?;
        Some(Arc::clone(&members))
    }

    /// How well this node itself keeps up. Never waits.
    pub fn health(&self) -> Health {
        self.vitals.get().health
    }

    /// How it is with this node's part in the group that agrees on a leader: whether somebody leads, who is missing before the group can be
    /// founded, or why this node takes no part any more. `None`: it was started without voters. Never waits. Changes for the worse, and
    /// back, are told as [`ClusterEvent::Group`](crate::ClusterEvent::Group).
    pub fn group_condition(&self) -> Option<Condition> {
        self.vitals.get().group
    }

    /// What this node's part in the cluster did since it began. Never waits.
    pub fn metrics(&self) -> Metrics {
        self.vitals.get().metrics
    }

    /// From now on tells of what places slots.
    pub(crate) fn placement_news(&self) -> PlacementNews {
        PlacementNews {
            claimed: self.leadership.replica.claimed.subscribe(),
            grouped: self.registry.table.grouped.subscribe(),
            led: self.leadership.replica.news.subscribe(),
        }
    }

    /// The names of the cluster, in the scope `"default"`.
    pub fn registry(&self) -> Registry {
        Registry::new(self.registry.clone())
    }

    /// Who leads the cluster. This and what follows needs [`ClusterConfig::voters`](crate::ClusterConfig::voters).
    pub fn leader(&self) -> Leader {
        Leader::new(self.leadership.clone())
    }

    /// The keys that the cluster agreed on.
    pub fn kv(&self) -> Kv {
        Kv::new(self.leadership.clone())
    }

    /// The locks of the cluster.
    pub fn locks(&self) -> Locks {
        Locks::new(self.leadership.clone())
    }

    /// What the patterns are made of.
    pub(crate) fn claims(&self) -> Claims {
        Claims::new(self.leadership.clone(), machine::Kind::Singleton)
    }

    /// The node whose part it is.
    pub(crate) fn node(&self) -> &Node {
        &self.leadership.node
    }

    /// The groups of the cluster, in the scope `"default"`.
    pub fn groups(&self) -> Groups {
        Groups::new(self.registry.clone())
    }

    /// The services of the cluster.
    pub fn services(&self) -> Services {
        Services::new(self.registry.clone())
    }

    /// From now on tells of every change of the members. A subscriber that reads [`ClusterHandle::members`] after it subscribed misses
    /// nothing.
    pub fn subscribe(&self) -> ClusterEvents {
        let receiver = match self.events.upgrade() {
            Some(events) => events.subscribe(),
            // The driver is gone: a subscription that ends at once.
            None => broadcast::channel(1).1,
        };
        ClusterEvents(receiver)
    }

    /// Replaces what this node tells about itself, at most [`MAX_METADATA_BYTES`](crate::MAX_METADATA_BYTES) bytes. The
    /// others see it in about a second, as [`ClusterEvent::Updated`].
    ///
    /// # Cancel safety
    /// Once polled, the metadata is replaced even if the future is dropped, unless the request still waits for its turn.
    pub async fn set_metadata(&self, bytes: impl Into<Vec<u8>>) -> Result<(), CommandError> {
        self.command(Command::SetMetadata(bytes.into())).await
    }

    /// Says something to all other members once, at most [`MAX_BROADCAST_BYTES`](crate::MAX_BROADCAST_BYTES) bytes: each
    /// has it as [`ClusterEvent::Broadcast`] within about a second. Best effort, and two broadcasts may change places.
    /// Returns when it is on its way.
    ///
    /// # Cancel safety
    /// Once polled, it is sent even if the future is dropped, unless the request still waits for its turn.
    pub async fn broadcast(&self, bytes: impl Into<Vec<u8>>) -> Result<(), CommandError> {
        self.command(Command::Broadcast(bytes.into())).await
    }

    /// Tells all members that this node leaves, gives back what it holds, hands leadership over, and takes no further part; the
    /// connections stay. Returns when that is done, or on its way. Does nothing the second time, or when the driver is gone.
    ///
    /// Before [`Node::stop`](crate::Node::stop) it makes the difference between *left* and *dead*.
    ///
    /// # Cancel safety
    /// Once polled, the node leaves even if the future is dropped, unless the request still waits for its turn.
    pub async fn leave(&self) {
        // An error: the driver ended, so this node takes no part either way.
        let left = self.command(Command::Leave).await;
        if left == Err(CommandError::Left) && self.leadership.takes_part {
            let mut stopped = self.leadership.replica.stopped.subscribe();
            let handed_over = stopped.wait_for(|stopped| stopped.is_some());
            let _ = tokio::time::timeout(HAND_OVER, handed_over).await;
        }
    }

    async fn command(&self, command: Command) -> Result<(), CommandError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command,
            asked: Asked::Handle(answer),
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| CommandError::Ended)?;
        match answered.await.map_err(|_| CommandError::Ended)? {
            // The others are answers to other commands.
            Answer::Done | Answer::Registry(_) | Answer::Leadership(_) | Answer::NoGroup => Ok(()),
            Answer::Left => Err(CommandError::Left),
            Answer::TooLong { bytes, limit } => Err(CommandError::TooLong { bytes, limit }),
            Answer::Busy { limit } => Err(CommandError::Busy { limit }),
        }
    }
}

impl fmt::Debug for ClusterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterHandle")
            .field("members", &self.members())
            .finish_non_exhaustive()
    }
}

/// Why the cluster did not do what it was asked to. Nothing was changed or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// Too many bytes: the caller's mistake.
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// So many broadcasts are under way that this one would push out another.
    Busy {
        /// How many may be under way.
        limit: usize,
    },
    /// This node has left the cluster.
    Left,
    /// The cluster's process on this node has ended, or the node has stopped.
    Ended,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { bytes, limit } => Answer::TooLong { bytes, limit }.fmt(f),
            Self::Busy { limit } => Answer::Busy { limit }.fmt(f),
            Self::Left => write!(f, "{}; start it again to take part", Answer::Left),
            Self::Ended => {
                f.write_str("the cluster's process on this node has ended; start the cluster again")
            }
        }
    }
}

impl std::error::Error for CommandError {}
