//! Whole Tiebeam clusters in virtual time.
//!
//! A [`World`] runs any number of real cores ([`tiebeam_core::Cluster`]) over a network of its own making: connections
//! with delay, lost sends and cuts that are noticed late; nodes that crash, restart and leave. Everything follows from a
//! seed, so a run that breaks a property is replayed by its number:
//!
//! ```text
//! cargo run -p tiebeam_sim -- --seed 42
//! ```
//!
//! A run has two phases. While faults happen, the properties that must hold at every moment are checked after each step.
//! Then the network heals, every node that crashed starts again, and after a quiet time all views must agree.
#![forbid(unsafe_code)]

mod check;
mod faults;
mod network;
mod world;

pub use check::Broken;
pub use faults::{Fault, Script};
pub use network::Conditions;
pub use world::{Plan, World};

use tiebeam_core::NodeName;

/// The name of node `number` in a simulated world.
pub fn node(number: usize) -> NodeName {
    NodeName::parse(&format!("n{number}@sim")).expect("it is of the form name@host")
}
