//! Rules of leadership that a test can switch off, one at a time, to see that the tests notice.
//!
//! Only with the cargo feature `mutants`, which nothing but the simulator enables. Not part of the public interface.

/// A rule that is switched off. The names say what is then wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "public with the feature only")
)]
pub enum Mutation {
    /// The vote is not written with its term (3.8).
    VoteNotPersisted,
    /// A follower says that it has entries before they are on disk (3.8).
    AckBeforePersist,
    /// A vote does not wait for the disk (3.8).
    VoteBeforePersist,
    /// The leader reads without asking a majority (6.4).
    LocalReads,
    /// A read is confirmed by an answer to a message that was sent before it came (6.4).
    ReadReusesRound,
    /// The role alone is taken for a licence (6.4.1).
    RoleIsLease,
    /// A lease begins when the confirmation arrives, not when the message was sent (6.4.1).
    LeaseFromArrival,
    /// A winner by a hint does not wait for the old lease.
    NoLeaseWait,
    /// A member that starts again votes at once, though its last life confirmed a lease.
    RestartForgetsLease,
    /// Half of an even number suffices (3.4).
    HalfIsMajority,
    /// One member less than a majority suffices.
    MinorityCommits,
    /// An entry of an older term is committed by counting (3.6.2).
    CommitsOldTerms,
    /// Votes do not look at the log (3.6.1).
    VoteIgnoresLog,
    /// A member votes twice in a term (3.4).
    VotesTwice,
    /// A follower appends without comparing the entry before (3.5).
    AppendIgnoresPrevious,
    /// A follower keeps entries that conflict with the leader's (3.5).
    KeepsConflicts,
    /// A follower takes the leader's commit index for its own (3.5).
    CommitBeyondVerified,
    /// A member says that it has a snapshot before it is on disk (3.8, 5.1).
    SnapshotBeforePersist,
    /// A log that conflicts with a snapshot is kept behind it (5.1).
    SnapshotKeepsConflicts,
    /// A snapshot is taken for what is committed, though not all of it was applied.
    SnapshotOfCommitted,
    /// The configuration of a snapshot is not taken over (5.1).
    SnapshotForgetsMembers,
    /// Members are changed before an entry of the leader's term is committed (the flaw found in 2015).
    ChangeWithoutNoop,
    /// Members are changed while another change is not committed (4.1).
    TwoChangesAtOnce,
    /// Several voters are replaced without a joint configuration (4.3).
    ChangeWithoutJoint,
    /// A joint configuration is agreed by its new half alone (4.3).
    JointNeedsOneMajority,
    /// A learner is counted in majorities (4.2.1).
    LearnersCount,
    /// A leader that was removed goes on (4.2.2).
    RemovedLeaderStays,
    /// A configuration takes effect when it is appended, and once more when it is applied (4.1).
    ChangeAppliedTwice,
    /// A node is told that it leads for 400 ms longer than it may say so.
    LeaseToldTooLong,
    /// A node that was told that it leads says so until it is told otherwise, whatever its clock says.
    LeaseWithoutEnd,
    /// Who asks a leader for a claim has it as soon as the command is in that leader's log.
    GrantedBeforeCommit,
    /// A claim is over for its holder when the log says so, not when its clock does.
    ClaimUntilFreed,
    /// A claim lasts from the moment at which its grant arrived, not from that at which it was asked for.
    ClaimFromArrival,
    /// A claim is given back with whatever token.
    ReleaseWithoutToken,
    /// A command that is repeated is done again (6.3).
    RepliesForgotten,
    /// What was sent and not heard of is said not to have happened.
    DoubtForgotten,
    /// A leader answers its node's reads from what it has.
    LeaderReadsLocally,
}

#[cfg(feature = "mutants")]
impl Mutation {
    /// Those of the engine.
    pub const ENGINE: [Self; 28] = [
        Self::VoteNotPersisted,
        Self::AckBeforePersist,
        Self::VoteBeforePersist,
        Self::LocalReads,
        Self::ReadReusesRound,
        Self::RoleIsLease,
        Self::LeaseFromArrival,
        Self::NoLeaseWait,
        Self::RestartForgetsLease,
        Self::HalfIsMajority,
        Self::MinorityCommits,
        Self::CommitsOldTerms,
        Self::VoteIgnoresLog,
        Self::VotesTwice,
        Self::AppendIgnoresPrevious,
        Self::KeepsConflicts,
        Self::CommitBeyondVerified,
        Self::SnapshotBeforePersist,
        Self::SnapshotKeepsConflicts,
        Self::SnapshotOfCommitted,
        Self::SnapshotForgetsMembers,
        Self::ChangeWithoutNoop,
        Self::TwoChangesAtOnce,
        Self::ChangeWithoutJoint,
        Self::JointNeedsOneMajority,
        Self::LearnersCount,
        Self::RemovedLeaderStays,
        Self::ChangeAppliedTwice,
    ];

    /// Those of a node's part in its group, and of the machine: groups of engines alone cannot miss them.
    pub const GROUP: [Self; 9] = [
        Self::LeaseToldTooLong,
        Self::LeaseWithoutEnd,
        Self::GrantedBeforeCommit,
        Self::ClaimUntilFreed,
        Self::ClaimFromArrival,
        Self::ReleaseWithoutToken,
        Self::RepliesForgotten,
        Self::DoubtForgotten,
        Self::LeaderReadsLocally,
    ];
}

/// The rule that is switched off, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Switched(pub(super) Option<Mutation>);

impl Switched {
    /// All rules hold.
    pub(super) const NONE: Self = Self(None);

    /// The rule is switched off.
    pub(super) fn off(self, mutation: Mutation) -> bool {
        self.0 == Some(mutation)
    }
}
