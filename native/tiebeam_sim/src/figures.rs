//! What the membership achieves, in figures: each a setting, a line to pass, and what was measured.
//!
//! Verdicts are measured as `Down` and as `Contested` alike: whether a connection is closed in the end depends on evidence
//! that a figure leaves out (no driver here can read how much came over a connection, unless the figure says so).

mod accuracy;
mod costs;
mod detection;
mod joining;
mod oddities;
mod partitions;
mod plain;
mod spreading;
mod stalls;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tiebeam_core::{Duration, Instant};

use crate::record::Told;
use crate::{Plan, Record, World};

/// How much is run for a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Seconds: few seeds, small clusters.
    Short,
    /// Minutes: what the figure is about.
    Full,
}

impl Size {
    fn of<T>(self, short: T, full: T) -> T {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its number in the table of `README.md`.
    pub number: u32,
    /// What happens, and in what setting.
    pub setting: String,
    /// What has to be.
    pub pass: String,
    /// What was.
    pub measured: String,
    /// Whether that is enough.
    pub holds: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            setting,
            pass,
            measured,
            holds,
        } = self;
        let verdict = if *holds { "holds" } else { "MISSED" };
        write!(
            f,
            "| {number} | {setting} | {pass} | {measured} | {verdict} |"
        )
    }
}

/// A group of lines with one number.
pub type Run = fn(Size) -> Vec<Figure>;

/// All figures, by number.
pub const ALL: [(u32, Run); 38] = [
    (1, detection::formula),
    (2, detection::kill_of_50),
    (3, detection::kill_of_200),
    (4, detection::kill_of_1000),
    (5, detection::first_suspicion),
    (6, detection::fast),
    (7, accuracy::loss),
    (8, accuracy::loss_fast),
    (9, accuracy::no_trace),
    (10, accuracy::stale_dead),
    (11, accuracy::missed_refutation),
    (12, stalls::many),
    (13, stalls::one),
    (14, stalls::wedged),
    (15, joining::join_200),
    (16, joining::join_1000),
    (17, joining::hard_joins),
    (18, joining::leave),
    (19, joining::restart),
    (20, joining::mass_restart),
    (21, partitions::halves),
    (22, partitions::isolated),
    (23, partitions::one_way),
    (24, partitions::bursts),
    (25, detection::many_at_once),
    (26, stalls::flapping),
    (27, oddities::collision),
    (28, oddities::duplicates),
    (29, oddities::hostile),
    (30, oddities::message_limit),
    (31, spreading::metadata),
    (32, spreading::broadcast),
    (34, oddities::extremes),
    (35, costs::idle),
    (36, costs::lossy),
    (37, plain::hung),
    (38, plain::busy),
    (40, plain::refused),
];

/// The same work for each seed, on all processors, in the order of the seeds.
pub(crate) fn seeds<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(4, usize::from);
    let mut done: Vec<(u64, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            return done;
                        }
                        done.push((seed, work(seed)));
                    }
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|&(seed, _)| seed);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A world whose nodes have all found each other.
fn settled(plan: Plan) -> World {
    let count = plan.hosts.len();
    let mut world = World::new(plan);
    let took = run(world.run_while(secs(600), |world| !world.all_see(count)));
    assert!(
        took.is_some(),
        "{count} nodes did not find each other in ten minutes"
    );
    // Until the words about the newcomers are no longer passed on.
    run(world.run_for(secs(20)));
    world.forget_records();
    world
}

/// Measured worlds check nothing while they run.
fn run<T>(outcome: Result<T, crate::Broken>) -> T {
    outcome.expect("this world checks no property")
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// In seconds, for people.
fn seconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e6
}

/// A verdict: the member is gone, as far as SWIM can tell.
fn verdict(told: Told) -> bool {
    matches!(told, Told::Down | Told::Contested(_))
}

/// Verdicts on members that were running, except those that `excused` names.
fn wrong(world: &World, excused: impl Fn(usize) -> bool) -> usize {
    let wrong = |record: &&Record| verdict(record.told) && record.running && !excused(record.of);
    world.records().iter().filter(wrong).count()
}

/// When each of `nodes` came to a verdict on `of` after `since`: the first of all, the last of all; `None` for who did not.
fn known(
    world: &World,
    of: usize,
    since: Instant,
    nodes: &[usize],
) -> (Option<Duration>, Option<Duration>) {
    let mut firsts: Vec<Option<Duration>> = vec![None; nodes.len()];
    for record in world.records() {
        if record.of == of
            && verdict(record.told)
            && record.at >= since
            && let Some(place) = nodes.iter().position(|&node| node == record.node)
        {
            firsts[place].get_or_insert(record.at.since(since));
        }
    }
    let first = firsts.iter().flatten().min().copied();
    let last = firsts.into_iter().collect::<Option<Vec<_>>>();
    (first, last.and_then(|all| all.into_iter().max()))
}

/// The value that `percent` of all are at most.
fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or(Duration::ZERO)
}

fn median(values: &[Duration]) -> Duration {
    percentile(values, 50)
}
