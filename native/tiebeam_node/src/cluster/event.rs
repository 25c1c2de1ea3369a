//! What a cluster tells those who subscribed.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::leadership::group::Condition;
use tiebeam_core::{Contest, Member, NodeName, Notice};
use tokio::sync::broadcast;

/// Events kept for a subscriber that is slow. One that falls further behind is told how many it missed.
pub(super) const MAX_EVENTS: usize = 1024;

/// What changed in the cluster. Comes from [`ClusterEvents::recv`], in the order in which this node learnt of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A member is here that was not.
    Up(Member),
    /// A member does not answer, and is declared dead unless something is heard of it in time.
    Suspect(Member),
    /// A suspect is alive after all.
    Recovered(Member),
    /// A member has new metadata.
    Updated(Member),
    /// A member is gone without a word. A restart of a node is `Down` of the old creation, then `Up` of the new one.
    Down(Member),
    /// A member, or this node itself, said that it leaves.
    Left(Member),
    /// A member seems dead, but this node's evidence does not suffice to evict it: it stays connected, and a suspect.
    Contested {
        /// The member.
        member: Member,
        /// What speaks against the verdict.
        reason: Contest,
    },
    /// Two running nodes have one name; the one that was here first is kept.
    Conflict {
        /// The member that is kept.
        kept: Member,
        /// The creation of the other.
        refused: u32,
    },
    /// A connected node is in another cluster. Told once per connection, on both sides.
    Refused {
        /// The node.
        node: NodeName,
        /// The identity of its cluster.
        cluster: String,
    },
    /// This node stood still for this long, and put its verdicts off.
    Stalled(Duration),
    /// How well this node keeps up has changed; see [`Health::multiplier`](crate::Health::multiplier).
    Health {
        /// 1 when all is well.
        multiplier: u32,
    },
    /// A member said something to all others; see [`ClusterHandle::broadcast`](crate::ClusterHandle::broadcast).
    Broadcast {
        /// Who.
        from: NodeName,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// Who leads changed, as far as this node knows; see [`Leader`](crate::Leader). Terms never go back.
    Leader {
        /// Who, if anybody does.
        leader: Option<NodeName>,
        /// The latest term.
        term: u64,
    },
    /// Something is wrong with this node's part in the group that agrees on a leader, or nothing is any more: the group waits for
    /// voters (told after five seconds, and then each minute), has no place for this node, meets another group, or this node has stopped to
    /// take part because its disk failed. See [`ClusterHandle::group_condition`](crate::ClusterHandle::group_condition).
    Group(Condition),
    /// The subscriber was so slow that this many events were dropped;
    /// [`ClusterHandle::members`](crate::ClusterHandle::members) has the present state.
    Missed(u64),
}

impl ClusterEvent {
    /// What of a notice concerns subscribers.
    pub(super) fn of(notice: Notice) -> Option<Self> {
        Some(match notice {
            Notice::Up(member) => Self::Up(member),
            Notice::Suspect(member) => Self::Suspect(member),
            Notice::Recovered(member) => Self::Recovered(member),
            Notice::Updated(member) => Self::Updated(member),
            Notice::Down(member) => Self::Down(member),
            Notice::Left(member) => Self::Left(member),
            Notice::Contested { member, reason } => Self::Contested { member, reason },
            Notice::Conflict { kept, refused } => Self::Conflict { kept, refused },
            Notice::Refused { node, cluster } => Self::Refused { node, cluster },
            Notice::Stalled { late } => Self::Stalled(Duration::from_micros(late.as_micros())),
            Notice::Health { multiplier } => Self::Health { multiplier },
            Notice::Broadcast { from, bytes } => Self::Broadcast {
                from,
                bytes: bytes.into(),
            },
            Notice::Refreshed(_) | Notice::Forgotten(_) | Notice::Ignored { .. } => return None,
        })
    }
}

/// A subscription: a stream of events; see [`ClusterHandle::subscribe`](crate::ClusterHandle::subscribe). Where a `Stream` of
/// the `futures` crates is wanted, their `stream::unfold` makes one of [`ClusterEvents::recv`].
#[derive(Debug)]
pub struct ClusterEvents(pub(super) broadcast::Receiver<ClusterEvent>);

impl ClusterEvents {
    /// The next event; `None` when the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<ClusterEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(ClusterEvent::Missed(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
