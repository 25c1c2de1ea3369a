//! Groups of leadership in virtual time.
//!
//! A [`World`] runs a few members of one group, each an engine behind the seam [`Consensus`](tiebeam_core::leadership::Consensus),
//! over a network that loses, repeats, delays and swaps messages and is cut in either direction; on disks that are slow and
//! lose what was not synced, are full, take seconds, or are lost with their machine, which is then another member; with clocks of different rates, processes that stand still, members that crash in the middle of
//! a write, and hints of a leader's death that are true, late or wrong. Logs give way to snapshots, and two operators change the members.
//! Clients put, compare-and-set and read, retry under
//! the same number, and give up.
//!
//! The properties are in `check/`, one file each, and are looked at after every event. After the faults everything heals, and
//! the group must serve again. Everything follows from a seed:
//!
//! ```text
//! cargo run --release -p tiebeam_sim --bin leadership -- --seed 42
//! ```
//!
//! The same scenarios run on two engines: [`Replica`](tiebeam_core::leadership::Replica), and with the cargo feature `judge`
//! TiKV's `raft` behind the same seam.

mod check;
mod engine;
pub mod figures;
mod history;
#[cfg(feature = "judge")]
mod judge;
mod plan;
mod store;
mod world;

pub use engine::Engine;
#[cfg(feature = "judge")]
pub use judge::Judge;
pub use plan::{Kind, Plan, Tune};
pub use world::{Tally, World};

/// A property that does not hold, and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which property.
    pub property: &'static str,
    /// What was seen.
    pub seen: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.property, self.seen)
    }
}

/// Runs `count` seeds from `first` on, on `threads` threads. Returns what broke, by seed, and counts of all.
pub fn run_seeds<E: Engine>(
    first: u64,
    count: u64,
    threads: u64,
    plan: impl Fn(u64) -> Plan + Sync,
) -> (Vec<(u64, Broken)>, Tally) {
    let plan = &plan;
    let run = |thread: u64| {
        let (mut broken, mut all) = (Vec::new(), Tally::default());
        for seed in (first + thread..first + count).step_by(threads.max(1) as usize) {
            let mut world = World::<E>::new(plan(seed));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
            let panicked = || {
                let seen = "printed above".to_owned();
                Err(Broken {
                    property: "nothing panics",
                    seen,
                })
            };
            if let Err(property) = outcome.unwrap_or_else(|_| panicked()) {
                broken.push((seed, property));
            }
            all.add(world.tally());
        }
        (broken, all)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> = (0..threads.max(1))
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let (mut broken, mut all) = (Vec::new(), Tally::default());
        for worker in workers {
            let (more, tally) = worker
                .join()
                .expect("a worker reports what broke instead of panicking");
            broken.extend(more);
            all.add(&tally);
        }
        broken.sort_by_key(|(seed, _)| *seed);
        (broken, all)
    })
}
