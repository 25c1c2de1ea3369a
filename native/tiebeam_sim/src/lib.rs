//! Whole Tiebeam clusters in virtual time.
//!
//! A [`World`] runs any number of real cores ([`tiebeam_core::Cluster`]) on machines of its own making: connections with
//! delay, loss, bursts of loss and cuts that are noticed late; datagrams that come twice and overtake each other; nodes
//! that crash, vanish, restart, leave, and stand still as a whole or in their driver alone. Everything follows from a
//! seed, so a run that breaks a property is replayed by its number:
//!
//! ```text
//! cargo run -p tiebeam_sim -- --seed 42
//! ```
//!
//! A run has two phases. While faults happen, the properties that must hold at every moment are checked after each step.
//! Then the network heals, and after a quiet time all views must agree. `README.md` beside the manifest says how to read a
//! run, and has the figures.
#![forbid(unsafe_code)]

mod check;
mod faults;
pub mod figures;
pub mod leadership;
mod machine;
mod network;
mod plan;
mod record;
mod world;

pub use check::Broken;
pub use faults::{Fault, Script};
pub use network::{Burst, Conditions, Lane};
pub use plan::{Detail, Host, Plan, Tune};
pub use record::{Core, Record, Tally, Told};
pub use world::World;

use tiebeam_core::NodeName;

/// The name of node `number` in a simulated world.
pub fn node(number: usize) -> NodeName {
    NodeName::parse(&format!("n{number}@sim")).expect("it is of the form name@host")
}

/// Runs the random worlds of `count` seeds on all processors. Returns what broke, with the command that replays it, in the
/// order of the seeds, and counts of what happened in all worlds together.
pub fn run_seeds(first: u64, count: u64) -> (Vec<String>, Tally) {
    let results = figures::seeds(count, |number| {
        let seed = first + number;
        let mut world = World::new(Plan::random(seed));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        let broken = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(broken)) => Some(broken.to_string()),
            Err(_) => Some("a panic, printed above".to_owned()),
        };
        let now = world.now();
        let broken = broken.map(|broken| {
            format!(
                "seed {seed}, at {now}: {broken}\nreplay: cargo run -p tiebeam_sim -- --seed {seed}"
            )
        });
        (broken, world.tally())
    });
    let mut all = Tally::default();
    for (_, tally) in &results {
        all.add(tally);
    }
    (
        results
            .into_iter()
            .filter_map(|(broken, _)| broken)
            .collect(),
        all,
    )
}
