//! The seam between a group's engine and its driver: what an engine is told, and what it wants done.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::codec::DecodeError;
use super::configuration::Configuration;
use super::entry::{Entry, Index, MAX_COMMAND_BYTES, MemberId, PersistToken, Term};
use super::snapshot::{Snapshot, Write};
use crate::time::Instant;

/// The driver's mark for a request that waits for an answer. Chosen by the driver; never interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One member of one group. See [the module](super) for the contract.
///
/// Two engines stand behind this seam: [`Replica`](super::Replica), and in the simulator one that was made by others, as a
/// judge.
pub trait Consensus {
    /// Time passed.
    fn wake(&mut self, now: Instant);

    /// When [`Consensus::wake`] is due.
    fn deadline(&self) -> Instant;

    /// Bytes came from another member; see [`Effect::Send`].
    ///
    /// # Errors
    ///
    /// They are no message. Nothing changed.
    fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DecodeError>;

    /// Appends a command to the log. Ends in one [`Effect::Apply`] with `request`, or in [`Effect::Unknown`].
    ///
    /// # Errors
    ///
    /// It was not appended and never will be.
    fn propose(
        &mut self,
        now: Instant,
        request: RequestId,
        command: Vec<u8>,
    ) -> Result<(), Refusal>;

    /// Asks for a moment at which the state machine has everything that was committed before this call (6.4). Ends in one
    /// [`Effect::Read`], or in [`Effect::Unread`].
    ///
    /// # Errors
    ///
    /// This member cannot answer.
    fn read(&mut self, now: Instant, request: RequestId) -> Result<(), Refusal>;

    /// Hands leadership to `to`, or to the member that has most of the log (3.10). Proposals are refused meanwhile. Without success in an
    /// election timeout this member stands again.
    ///
    /// # Errors
    ///
    /// This member does not lead, or nobody can take over.
    fn transfer(&mut self, now: Instant, to: Option<MemberId>) -> Result<(), Refusal>;

    /// Changes the members to those of `to`, which is not joint: a learner is added before it votes. One voter more or less is one step
    /// (4.1); anything else goes through a joint configuration (4.3), which the engine leaves by itself. Ends in one [`Effect::Apply`]
    /// of the last entry of the change with `request`, or in [`Effect::Unknown`].
    ///
    /// # Errors
    ///
    /// This member cannot do that now.
    fn change(
        &mut self,
        now: Instant,
        request: RequestId,
        to: Configuration,
    ) -> Result<(), Refusal>;

    /// `state` is the machine with everything that was given to [`Effect::Apply`] so far, and nothing else. The engine writes it as a [`Snapshot`]
    /// and drops the beginning of the log, except for what members that are a little behind still need ([`Settings::tail`](super::Settings::tail)).
    /// Without an effect if nothing was applied since the last time, and if `state` has more than
    /// [`MAX_SNAPSHOT_BYTES`](super::MAX_SNAPSHOT_BYTES): no other member could receive it.
    fn compact(&mut self, now: Instant, state: Arc<[u8]>);

    /// What a leader knows of another member's log; `None` if this member does not lead, or knows no such member.
    fn progress(&self, who: MemberId) -> Option<Standing>;

    /// A hint that `who` is gone. If it led, this member votes, and stands for election, without waiting for its timeout. A
    /// wrong hint costs an election at most.
    fn forget_leader(&mut self, now: Instant, who: MemberId);

    /// Everything up to `token` is on disk.
    fn persisted(&mut self, now: Instant, token: PersistToken);

    /// What to do next; `None` when there is nothing. Drain it after every call.
    fn poll(&mut self) -> Option<Effect>;

    /// How this member sees the group.
    fn status(&self) -> Status;

    /// This member leads, and no other does before its answer could be used: the term, as a fencing token that only grows.
    /// Whoever acts on it acts later than `now`, so what is acted upon should compare tokens.
    fn token(&self, now: Instant) -> Option<Term>;
}

/// What must be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write to disk, then tell [`Consensus::persisted`] its token.
    Persist(Write),
    /// The machine of this member is to be replaced by this one: it was behind what others keep of the log (5.1). What is applied next follows it. It
    /// is on disk already, or will be with the next write. At the start of an engine it is the first effect, if the disk has a snapshot.
    Restore(Snapshot),
    /// Bytes for another member. Best effort.
    Send {
        /// Who gets them.
        to: MemberId,
        /// For its [`Consensus::receive`].
        bytes: Vec<u8>,
    },
    /// The next committed entry, for the state machine. Each index once in the life of an engine, in order.
    Apply {
        /// The entry. Only [`Payload::Command`](super::Payload::Command) means anything to a state machine.
        entry: Entry,
        /// Who asked for it, if it was proposed to this engine.
        request: Option<RequestId>,
    },
    /// A read may be answered from the state machine as it is now.
    Read {
        /// Which.
        request: RequestId,
    },
    /// A read cannot be answered: this member lost its leadership. It had no effect; ask again elsewhere.
    Unread {
        /// Which.
        request: RequestId,
    },
    /// It will not be known here what became of a proposal. Asking again may do it twice unless the state machine knows the
    /// command.
    Unknown {
        /// Which.
        request: RequestId,
    },
    /// Who leads changed, as far as this member knows.
    Leader {
        /// The latest term.
        term: Term,
        /// Its leader, if there is one.
        leader: Option<MemberId>,
    },
    /// The configuration that is in force on this member changed.
    Configured(Configuration),
    /// This engine has stopped for good; nothing that it is told has an effect any more. Restart it from disk only if the
    /// reason says so.
    Stopped(super::Fault),
}

/// What a member does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether it could win an election (9.6).
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Was elected. See [`Consensus::token`] for what that does not mean.
    Leader,
    /// Has stopped.
    Stopped,
}

/// How a member sees its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub role: Role,
    /// The latest term it has seen.
    pub term: Term,
    /// The leader of that term, if it knows one.
    pub leader: Option<MemberId>,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry of its log.
    pub last: Index,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Up to here it has the log, on its disk.
    pub matched: Index,
    /// When the latest message was sent that it answered.
    pub heard: Option<Instant>,
}

/// Why a request was not accepted. Nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another member leads, or none does. Ask the leader, or wait for one.
    NotLeader {
        /// Who leads, as far as this member knows.
        leader: Option<MemberId>,
        /// In which term.
        term: Term,
    },
    /// Leadership is being handed over. Ask again in an election timeout.
    Transferring,
    /// So much is waiting for the majority already. Ask again later.
    Busy {
        /// How many requests wait.
        waiting: usize,
    },
    /// The command is too long.
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// No voter that could take over is known to be alive.
    NoSuccessor,
    /// The member is no voter of the group.
    NotAVoter(MemberId),
    /// Another change of the members is under way. Ask again once it is done.
    Changing,
    /// The members asked for cannot follow those that are: a voter did not learn first, or nobody would vote.
    Change(&'static str),
    /// This member has stopped.
    Stopped,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader {
                leader: Some(leader),
                term,
            } => {
                write!(f, "member {leader} leads in term {term}; ask there")
            }
            Self::NotLeader { leader: None, term } => {
                write!(f, "no leader is known in term {term}; wait for one")
            }
            Self::Transferring => f.write_str("leadership is being handed over; ask again soon"),
            Self::Busy { waiting } => {
                write!(f, "{waiting} requests wait for a majority; ask again later")
            }
            Self::TooLong { bytes } => write!(
                f,
                "a command of {bytes} bytes is too long, the limit is {MAX_COMMAND_BYTES}"
            ),
            Self::NoSuccessor => f.write_str("no other voter is known to be alive"),
            Self::NotAVoter(member) => write!(f, "member {member} is no voter of this group"),
            Self::Changing => {
                f.write_str("another change of the members is under way; wait for it")
            }
            Self::Change(why) => f.write_str(why),
            Self::Stopped => f.write_str("this member has stopped; see why it did"),
        }
    }
}

impl core::error::Error for Refusal {}
