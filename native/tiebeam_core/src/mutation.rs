//! Rules of the protocol that a test can switch off, one at a time, to see that the tests notice.
//!
//! Only with the cargo feature `mutants`, which nothing but the simulator enables. Not part of the public interface.

/// A rule that is switched off. The names say what is then wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "public with the feature only")
)]
pub enum Mutation {
    /// The incarnation that heads every message refutes nothing.
    NoSenderIncarnation,
    /// A suspect is not told that it is one, neither when it is spoken to nor when it speaks.
    NoBuddy,
    /// A suspicion ends without a last ping.
    NoLastCall,
    /// A death of an older incarnation counts.
    StaleDeadWins,
    /// A member that was declared dead stays dead, whatever it says.
    DeadCannotRefute,
    /// Helpers do not say that they heard nothing.
    NoNack,
    /// Missed answers do not make this node more patient.
    NoLocalHealth,
    /// A suspicion always lasts its minimum.
    NoDynamicSuspicion,
    /// Others' suspicions do not shorten one's own.
    NoConfirmation,
    /// Tables are exchanged when joining only.
    NoPushPull,
    /// The dead are not dialled.
    NoReconnect,
    /// A timer that comes late is taken for one that came in time.
    NoStallGuard,
    /// Another creation is taken for the same life.
    CreationIgnored,
    /// Words are not passed on more often while messages are lost.
    NoRetransmitGrowth,
    /// The verdict of one guardian suffices.
    OneGuardian,
    /// An answer of an observed node does not end a suspicion.
    PositiveEvidenceLoses,
    /// A node evicts without seeing a majority.
    EvictWithoutMajority,
    /// A node evicts a member whose connection carries bytes.
    EvictHeard,
    /// A node evicts while it is slow itself.
    EvictUnhealthy,
    /// The end of a connection is taken for a death.
    NodedownIsDeath,
    /// Nobody is asked to probe for another.
    NoIndirectProbe,
    /// Who leaves does not say so.
    SilentLeave,
}

#[cfg(feature = "mutants")]
impl Mutation {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::NoSenderIncarnation,
        Self::NoBuddy,
        Self::NoLastCall,
        Self::StaleDeadWins,
        Self::DeadCannotRefute,
        Self::NoNack,
        Self::NoLocalHealth,
        Self::NoDynamicSuspicion,
        Self::NoConfirmation,
        Self::NoPushPull,
        Self::NoReconnect,
        Self::NoStallGuard,
        Self::CreationIgnored,
        Self::NoRetransmitGrowth,
        Self::OneGuardian,
        Self::PositiveEvidenceLoses,
        Self::EvictWithoutMajority,
        Self::EvictHeard,
        Self::EvictUnhealthy,
        Self::NodedownIsDeath,
        Self::NoIndirectProbe,
        Self::SilentLeave,
    ];
}
