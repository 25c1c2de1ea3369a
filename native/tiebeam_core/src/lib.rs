//! The decisions of a Tiebeam cluster, as a value.
//!
//! A [`Cluster`] is told what happened and when; it answers with what must be done. It owns no socket, clock, thread or
//! source of chance, so the same code runs in a Tokio task, in a GenServer behind a NIF, and, many times over, in a
//! simulator with a clock of its own.
//!
//! # The driver's contract
//!
//! 1. One owner steps it: [`Cluster::step`] takes `&mut self` and never blocks.
//! 2. `now` never goes back (a smaller one counts as the greatest seen).
//! 3. Actions are carried out in order.
//! 4. [`Action::Send`] is best effort: bytes may be lost, but two sends over one connection are never swapped, and the
//!    bytes of a connection arrive between its [`Event::Connected`] and its [`Event::Disconnected`]. A send to a node that
//!    is not connected makes the driver dial it in the background; the bytes themselves may be dropped.
//! 5. [`Event::Woke`] comes at [`Cluster::deadline`]. Early is safe. Late is safe too, but it is noticed: a deadline that
//!    passed by more than two rounds of gossip without any step is taken for a node that stood still, and raises its
//!    [`Health`]. The first deadline is [`Instant::ZERO`].
//! 6. [`Action::Sample`] is answered by one [`Event::Sampled`] before anything else is stepped. [`Action::Observe`] is
//!    answered by [`Event::Observed`], or by nothing; it neither dials nor blocks.
//! 7. [`Action::Evict`] and [`Action::EvictAt`] close connections. The end of one of this node's own comes back as
//!    [`Event::Disconnected`], like any other.
//! 8. The driver answers for the host: a node that serves nothing else must not go on stepping. Both drivers run where
//!    the work of their node runs.
//!
//! 9. A turn of the driver, however many events it had, ends with [`Event::Woke`] if [`Cluster::deadline`] is due: what the
//!    registry has to say is sent then, all of it in one message.
//! 10. [`Action::Table`] is carried out before anything behind it, so that a caller who gets an answer finds in the table
//!     what it says. [`Action::Check`] is answered by one [`Event::Checked`] in the same turn, [`Action::Resolve`] by
//!     [`Event::Resolved`] or by nothing.
//!
//! # Two nodes
//!
//! ```
//! use tiebeam_core::{Action, Cluster, Config, Event, Instant, Kind, NodeName, Status};
//!
//! let name = |text| NodeName::parse(text).unwrap();
//! let mut a = Cluster::new(Config::new(name("a@host"), 1, Kind::Rust)).unwrap();
//! let mut b = Cluster::new(Config::new(name("b@host"), 1, Kind::Beam)).unwrap();
//!
//! // A connection comes up: each side hears of it, and what one sends the other receives.
//! let (now, mut from_a, mut from_b) = (Instant::from_millis(5), Vec::new(), Vec::new());
//! a.step(now, Event::Connected { to: name("b@host"), visible: true }, &mut from_a);
//! b.step(now, Event::Connected { to: name("a@host"), visible: true }, &mut from_b);
//! while !(from_a.is_empty() && from_b.is_empty()) {
//!     for action in std::mem::take(&mut from_a) {
//!         if let Action::Send { bytes, .. } = action {
//!             b.step(now, Event::Received { from: name("a@host"), bytes }, &mut from_b);
//!         }
//!     }
//!     for action in std::mem::take(&mut from_b) {
//!         if let Action::Send { bytes, .. } = action {
//!             a.step(now, Event::Received { from: name("b@host"), bytes }, &mut from_a);
//!         }
//!     }
//! }
//! assert!(a.view().members().all(|member| member.status == Status::Alive));
//! assert!(a.view().members().map(|member| &member.node).eq(b.view().members().map(|member| &member.node)));
//! ```
//!
//! # Reading path
//!
//! `cluster` is the one file that knows all machines; `event` and `action` are its vocabulary; `membership` says who is
//! here, and its first lines say in which file which part of SWIM is; `message` is what cores say to each other, and
//! `message/codec` the same in bytes. [`registry`] says who is called what, [`placement`] what
//! belongs where.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod cluster;
mod config;
mod event;
mod hash;
mod identity;
mod input;
pub mod leadership;
mod membership;
mod message;
mod mutation;
pub mod placement;
mod random;
pub mod registry;
mod time;
mod timers;

pub use action::{Action, Answer, Contest, Notice, Why};
pub use cluster::{Cluster, View};
pub use config::{Config, ConfigError, MAX_CLUSTER_BYTES, MAX_COUNT, MAX_SEEDS, Timing};
pub use event::{CallId, Command, Event};
pub use identity::{Identity, MAX_NODE_NAME_BYTES, MAX_NODE_NAME_CHARS, NodeName, NodeNameError};
pub use membership::{
    Health, Kind, MAX_BROADCAST_BYTES, MAX_HEALTH_MULTIPLIER, MAX_METADATA_BYTES, MAX_PEERS,
    Member, Metrics, Status,
};
pub use message::{DecodeError, MAX_DATAGRAM_BYTES, MAX_MESSAGE_BYTES};
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use random::Random;
pub use time::{Duration, Instant};
