//! What the parts of a group say to each other, besides the packets of their engines.
//!
//! Nothing here is answered for certain: whoever asks asks again.

use alloc::vec::Vec;

use super::config::Founding;
use crate::identity::NodeName;
use crate::leadership::entry::{Index, MemberId, Term};
use crate::leadership::machine::SessionId;

/// A message and the cluster that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    /// A number made from the name of the cluster: what is for another one has no effect.
    pub(super) cluster: u64,
    pub(super) message: Message,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Who the sender is, and what it knows of the group.
    Announce(Announce),
    /// The first of the voters asks for a promise to found nothing else.
    Ask(Founding),
    /// The promise, which is on disk.
    Promise { group: u64 },
    /// The one that asked for the promise does not need it any more, and did not found.
    Withdraw { group: u64 },
    /// From engine to engine.
    Packet {
        group: u64,
        from: MemberId,
        to: MemberId,
        bytes: Vec<u8>,
    },
    /// The leader shall append this command. It is seen in the log that it did.
    Propose {
        group: u64,
        attempt: u64,
        command: Vec<u8>,
    },
    /// A command was not appended, and will not be by this attempt.
    Declined {
        session: SessionId,
        number: u64,
        attempt: u64,
    },
    /// Which entry must one have that reads what was acknowledged before this question (6.4)?
    ReadIndex { group: u64, id: u64 },
    /// This one; `None`: ask again, the sender does not lead.
    ReadAt { id: u64, index: Option<Index> },
    /// The leader of this term shall do something that is no command.
    Order {
        group: u64,
        id: u64,
        term: Term,
        order: Order,
    },
    /// What became of it.
    Ordered { id: u64, outcome: Outcome },
    /// The leader has no place for the receiver: the group has this many members, which is the limit.
    Full { group: u64, limit: u64 },
}

/// Who the sender is, and what it knows of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announce {
    pub(super) member: MemberId,
    /// The founding that it agreed to, or promised.
    pub(super) founding: Option<Founding>,
    /// With how many it would found a group; 0 if its voters are named.
    pub(super) expects: u8,
    /// It has heard an announcement of the receiver; if not, it wants one.
    pub(super) heard: bool,
}

/// Something that only a leader can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Hand over.
    StepDown { to: Option<NodeName> },
    /// Make the node a voter.
    AddVoter(NodeName),
    /// Make it none.
    RemoveVoter(NodeName),
}

/// What became of an [`Order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is under way.
    Begun,
    /// It is done, since this entry or term.
    Done(u64),
    /// The node takes no part in the group.
    NoMember,
    /// It cannot be done.
    Refused(Why),
    /// The one that was asked does not lead in that term.
    NotLeader,
}

/// Why an [`Order`] cannot be carried out. Numbers are append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    NoSuccessor = 1,
    NotAVoter = 2,
    Changing = 3,
    LastVoter = 4,
    TooManyVoters = 5,
    Impossible = 6,
}

impl Why {
    pub(super) const ALL: [Self; 6] = [
        Self::NoSuccessor,
        Self::NotAVoter,
        Self::Changing,
        Self::LastVoter,
        Self::TooManyVoters,
        Self::Impossible,
    ];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NoSuccessor => "no other voter is known to be alive",
            Self::NotAVoter => "the node is no voter of the group",
            Self::Changing => "another change of the members is under way; wait for it",
            Self::LastVoter => "it is the last voter: nobody would be left to agree",
            Self::TooManyVoters => "the group has as many voters as it can have",
            Self::Impossible => "the members asked for cannot follow those that are",
        }
    }
}
