//! One leader, and a log that a majority keeps: Raft as a value.
//!
//! A [`Replica`] is one member of one group. It is told what happened and when ([`Consensus`]), and answers with
//! [`Effect`]s. The algorithm is that of Ongaro's dissertation ("Consensus: Bridging Theory and Practice", 2014), cited by
//! its section numbers below. What the dissertation leaves to choice is not configurable here: pre-votes (9.6), a leader
//! that steps down without a majority (6.2, "CheckQuorum"), reads through the ReadIndex protocol (6.4), and nothing that is
//! answered before it is persisted (3.8).
//!
//! # Who leads
//!
//! A role is not a licence. The node that was elected keeps the role while it does not know that others elected a new one.
//! [`Consensus::token`] therefore answers only while a lease holds (6.4.1): it begins when a message was *sent* that a
//! majority confirmed, and lasts three quarters of the shortest election timeout, for no confirming member votes for
//! anybody else before that timeout is over. The one exception, a hint that the leader is gone
//! ([`Consensus::forget_leader`]), makes voters vote earlier; a winner that needed such a vote leads at once, and waits for the
//! old lease to end before it gets a token.
//!
//! # The contract of a driver
//!
//! 1. `now` is a monotonic clock and never goes back (a smaller one counts as the greatest seen). A restart may begin anew.
//! 2. After every call the effects are drained with [`Consensus::poll`] and carried out in order.
//! 3. [`Effect::Persist`] is on disk before [`Consensus::persisted`] is told its token; tokens are told in order. What must not
//!    be said before comes out of `poll` only then.
//! 4. [`Effect::Send`] is best effort: bytes may be lost, late, repeated and out of order.
//! 5. [`Consensus::wake`] comes at [`Consensus::deadline`]; early or late is safe.
//! 6. A member that lost what it persisted never comes back under its [`MemberId`].
//!
//! # Reading path
//!
//! `consensus` is the seam; `entry`, `configuration`, `log` and `progress` are the nouns; `replica` joins them; then
//! `election` (3.4, 9.6), `replication` (3.5, 10.2), `reading` (6.4), `lease` (6.4.1), `transfer` (3.10), `membership` (chapter 4), `compaction` and `chunks`
//! (chapter 5); `message` is what
//! members say to each other, `codec` the same in bytes. `machine` is what a group agrees on; it knows nothing of how.

mod chunks;
mod codec;
mod compaction;
mod configuration;
mod consensus;
mod election;
mod entry;
pub mod group;
mod lease;
mod log;
pub mod machine;
mod membership;
mod message;
mod mutation;
mod progress;
mod reading;
mod replica;
mod replication;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub mod words;

pub use chunks::MAX_SNAPSHOT_BYTES;
pub use codec::{DecodeError, MAX_MESSAGE_BYTES};
pub use configuration::{Configuration, ConfigurationError, MAX_MEMBERS, MAX_VOTERS};
pub use consensus::{Consensus, Effect, Refusal, RequestId, Role, Standing, Status};
pub use entry::{
    Entry, HardState, Index, MAX_COMMAND_BYTES, MemberId, Payload, PersistToken, Term,
};
pub use log::MAX_TAIL;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use replica::{Fault, Replica, RestoreError};
pub use settings::{Settings, SettingsError};
pub use snapshot::{Restored, Snapshot, Write};
