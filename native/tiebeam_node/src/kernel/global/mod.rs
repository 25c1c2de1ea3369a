//! `global`: names and locks of the whole cluster, and the full mesh, as OTP keeps them.
//!
//! ```text
//!  node events ─────────────────────┐                    ┌──► messages, calls and monitors
//!  messages to global_name_server ─►│ driver ─► machine ─┤──► dials and disconnects
//!  answers to locker and registrar ►│                    │──► the tables that look-ups read
//!  requests of handles ────────────►┘                    └──► replies
//! ```
//!
//! The machine ([`machine`]) is a value: [`session`] joins two partitions, [`locker`] locks them for that,
//! [`registrar`] carries out this node's registrations, [`partition`] keeps partitions from overlapping, [`names`] and
//! [`locks`] are the tables. The driver is its only user, and the only part with sockets and clocks behind it.
//!
//! Three processes stand for it, as on a BEAM: the registered `global_name_server`, the locker, and the registrar. A
//! lock belongs to the process that asked for it, so the last two must be distinct, alive, and open to monitors.
//!
//! A node that joins a cluster and then does not take part to the end leaves locks on its peers. So if this service
//! fails on its own (a panic, a killed process, a mailbox that overflows), the node disconnects from all its peers, which
//! frees them, and the service begins anew.
//!
//! Source: `global.erl` of OTP 25; protocol version 8.

mod call;
mod driver;
mod functions;
mod handle;
mod locker;
mod locks;
mod machine;
mod messages;
mod names;
mod partition;
mod registrar;
mod resolver;
mod session;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub(crate) use driver::start;
pub(crate) use handle::Shared;
pub use handle::{Global, GlobalError, GlobalLock, GlobalName};
pub use resolver::Resolver;

/// How `global` behaves on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) connect_all: bool,
    pub(crate) prevent_overlapping_partitions: bool,
    pub(crate) rejoin: bool,
}
