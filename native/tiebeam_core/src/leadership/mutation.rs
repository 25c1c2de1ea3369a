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
}

#[cfg(feature = "mutants")]
impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
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
    ];
}

/// The rule that is switched off, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Switched(pub(super) Option<Mutation>);

impl Switched {
    /// All rules hold.
    #[cfg_attr(
        all(feature = "mutants", not(test)),
        expect(dead_code, reason = "settings say it then")
    )]
    pub(super) const NONE: Self = Self(None);

    /// The rule is switched off.
    pub(super) fn off(self, mutation: Mutation) -> bool {
        self.0 == Some(mutation)
    }
}
