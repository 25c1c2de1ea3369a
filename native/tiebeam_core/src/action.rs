//! What a cluster member wants done.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::group;
use crate::membership::{MAX_PEERS, Member};
use crate::message::DecodeError;
use crate::registry::{self, Change, Entry, Key, Loss, Malformed};
use crate::time::Duration;

/// What must be done. Carried out by the driver, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bytes for the core of another node. Best effort; a node that is not connected is dialled in the background.
    Send {
        /// The node to send to.
        to: NodeName,
        /// Arrive there as [`Event::Received`](crate::Event::Received).
        bytes: Vec<u8>,
    },
    /// Ask the kernel of a node whether it lives, over the connection that is there: OTP's `net_adm` sends
    /// `{'$gen_call', From, {is_auth, node()}}` to the name `net_kernel`. Never dials and never blocks; any reply becomes
    /// [`Event::Observed`](crate::Event::Observed), and how long to wait for it is the core's affair.
    Observe {
        /// A node that does not run Tiebeam, or a member that does not answer.
        node: NodeName,
        /// Comes back in the event.
        probe: u64,
    },
    /// Read how much was received over the connection of a node: [`Event::Sampled`](crate::Event::Sampled), at once.
    Sample {
        /// The node at the other end.
        node: NodeName,
    },
    /// Close the connection to a node that is dead but still connected (OTP: `erlang:disconnect_node/1`), so that links,
    /// monitors and `global` hear of it.
    Evict {
        /// The node.
        node: NodeName,
    },
    /// Make a node that does not run Tiebeam close its connection to a dead one, without waiting for it: OTP's
    /// `erpc:cast(At, erlang, disconnect_node, [Node])`, over the connection that is there.
    EvictAt {
        /// Where to call.
        at: NodeName,
        /// The dead node.
        node: NodeName,
    },
    /// A change of the table of names and groups that callers read, and an event for users.
    Table(Change),
    /// A process of this node lost its name. Told once, after the table shows it; what is done with the process is
    /// [`OnConflict`](registry::OnConflict).
    Lost(Loss),
    /// A process of this node that waited for its name has it, as the table shows already.
    Promoted {
        /// The name.
        key: Key,
        /// The process.
        pid: Arc<[u8]>,
    },
    /// Two processes have one name, because they registered it while they could not hear of each other. Whose shall it
    /// be? [`Event::Resolved`](crate::Event::Resolved), within
    /// [`Limits::resolve_timeout`](registry::Limits::resolve_timeout).
    Resolve {
        /// Comes back in the event.
        id: u64,
        /// The older registration, of this node.
        older: Entry,
        /// The younger one, of another node.
        younger: Entry,
    },
    /// Does this process of this node still run? [`Event::Checked`](crate::Event::Checked), at once.
    Check {
        /// Comes back in the event.
        id: u64,
        /// The process.
        pid: Arc<[u8]>,
    },
    /// Write to disk; then [`Event::Persisted`](crate::Event::Persisted). Writes come one after the other. Without a disk it is told at once, and the
    /// node has a new [`MemberId`](crate::leadership::MemberId) at each start.
    Persist(Box<group::Disk>),
    /// Something that the group that agrees on a leader wants done; never a message, a write or an answer.
    Leadership(group::Output),
    /// The answer to [`Event::Asked`](crate::Event::Asked).
    Answer {
        /// The call that waits.
        call: CallId,
        /// Its answer.
        answer: Answer,
    },
    /// Something that users or operators want to know.
    Notify(Notice),
}

/// The answer to a [`Command`](crate::Command).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This node has left.
    Left,
    /// It is done, or on its way to all members.
    Done,
    /// Too many bytes: nothing was changed or sent.
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// So many broadcasts are under way that this one would push out another: nothing was sent. Try again in a second.
    Busy {
        /// How many may be under way.
        limit: usize,
    },
    /// The answer to [`Command::Registry`](crate::Command::Registry).
    Registry(registry::Answer),
    /// The answer to [`Command::Leadership`](crate::Command::Leadership).
    Leadership(group::Answer),
    /// This node takes no part in the group that agrees on a leader: see [`Config::leadership`](crate::Config::leadership).
    NoGroup,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("this node has left the cluster"),
            Self::Done => f.write_str("done"),
            Self::TooLong { bytes, limit } => {
                write!(f, "{bytes} bytes are too many, the limit is {limit}")
            }
            Self::Busy { limit } => write!(
                f,
                "{limit} broadcasts are under way, which is the limit; try again in a second"
            ),
            Self::Registry(answer) => answer.fmt(f),
            Self::Leadership(answer) => answer.fmt(f),
            Self::NoGroup => f.write_str("this node was started without voters, so it has no part in leadership; name the voters"),
        }
    }
}

/// What changed, never how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A member is here that was not: it is new, or it came back.
    Up(Member),
    /// A member is gone without a word. A restart is `Down` of the old creation, then `Up` of the new one.
    Down(Member),
    /// A member, or this node itself, said that it leaves.
    Left(Member),
    /// A member that is alive has a new incarnation, and nothing else is new.
    Refreshed(Member),
    /// A member does not answer, and is declared dead unless something is heard of it in time (SWIM, section 4.2).
    Suspect(Member),
    /// A suspect is alive after all.
    Recovered(Member),
    /// A member that is alive has new metadata, or was only observed so far and now speaks for itself.
    Updated(Member),
    /// A member that is dead for the others, or was suspected for the whole time, stays connected and listed as a
    /// suspect: this node's evidence does not suffice to evict it. Its connection decides (OTP's net ticks).
    Contested {
        /// The member.
        member: Member,
        /// What speaks against the verdict.
        reason: Contest,
    },
    /// This node itself stood still: its timers came late by so much. Verdicts were put off.
    Stalled {
        /// How late.
        late: Duration,
    },
    /// This node's health changed; see [`Health::multiplier`](crate::Health::multiplier).
    Health {
        /// The new multiplier.
        multiplier: u32,
    },
    /// Two running nodes have one name. The one that is known is kept for as long as it answers.
    Conflict {
        /// The member that is kept.
        kept: Member,
        /// The creation of the other.
        refused: u32,
    },
    /// A member told all others something.
    Broadcast {
        /// Who.
        from: NodeName,
        /// What.
        bytes: Vec<u8>,
    },
    /// A member that was dead or had left is no longer in the view.
    Forgotten(Member),
    /// A node is in another cluster: neither side takes the other for a member. Told once per connection.
    Refused {
        /// The node.
        node: NodeName,
        /// The identity of its cluster.
        cluster: String,
    },
    /// Bytes of a node had no effect.
    Ignored {
        /// The node that sent them.
        from: NodeName,
        /// What was wrong.
        why: Why,
    },
}

/// Why a member that seems dead is not evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// Eviction is switched off; see [`Config::evict`](crate::Config::evict).
    Off,
    /// This node sees no majority of the members that were last here together: it may be the one that is cut off.
    Minority,
    /// Its connection carried something since the suspicion began.
    Heard,
    /// This node's own health is bad, or it stood still lately.
    Unhealthy,
    /// A member that runs no Tiebeam is not connected to this node, so it could not be told.
    Unreachable,
    /// It runs no Tiebeam, and fewer than two members found that it does not answer.
    Alone,
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "eviction is switched off",
            Self::Minority => "this node sees no majority of the members",
            Self::Heard => "its connection carried something since the suspicion began",
            Self::Unhealthy => "this node is slow itself",
            Self::Unreachable => "not all members can be told",
            Self::Alone => "fewer than two members found that it does not answer",
        })
    }
}

/// Why bytes had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// They are no message.
    Malformed(DecodeError),
    /// They are no message of the registry.
    MalformedEntry(Malformed),
    /// They are no message of the group, in its words.
    MalformedPacket(String),
    /// The message names another sender than the connection it came over.
    NotTheSender {
        /// Who the message says it is from.
        claimed: NodeName,
    },
    /// They came from a node that is not connected: the driver's order of events is broken.
    NotConnected,
    /// They are older than what is known of the sender.
    Stale,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed: {error}"),
            Self::MalformedEntry(error) => write!(f, "malformed: {error}"),
            Self::MalformedPacket(why) => f.write_str(why),
            Self::NotTheSender { claimed } => write!(f, "the message claims to be from {claimed}"),
            Self::NotConnected => {
                write!(
                    f,
                    "the node is not connected, or {MAX_PEERS} others are, which is the limit"
                )
            }
            Self::Stale => f.write_str("older than what is known of the sender"),
        }
    }
}
