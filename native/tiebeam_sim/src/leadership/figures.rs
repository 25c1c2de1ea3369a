//! How long a group is without a leader, by cause.

use tiebeam_core::Duration;

use super::engine::Engine;
use super::plan::Plan;
use super::world::World;

/// What ends a leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The leader's process is killed, and nobody is told.
    Killed,
    /// It is killed, and the others are told within five milliseconds, but for one in ten, who may be told two seconds late.
    KilledWithHint,
    /// It hands over.
    SteppedDown,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Killed, Self::KilledWithHint, Self::SteppedDown];
}

/// The times in microseconds from the end of a leadership to the next election, and to the next change that a client is told
/// of, of `count` worlds with `members` each, in ascending order.
pub fn failover<E: Engine>(end: End, members: usize, count: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut elected, mut served) = (Vec::new(), Vec::new());
    for seed in 0..count {
        let plan = Plan {
            hints: end == End::KilledWithHint,
            quiet: Duration::ZERO,
            ..Plan::quiet(seed, members)
        };
        let mut world = World::<E>::new(plan);
        let mut now = 2_000_000 + seed * 977 % 50_000;
        if world.run_until(now).is_err() {
            continue;
        }
        let (begin, term) = (now, world.led());
        let ended = match end {
            End::Killed | End::KilledWithHint => world.kill_leader(),
            End::SteppedDown => world.step_down(),
        };
        if !ended {
            continue;
        }
        let before = world.tally().changes;
        let mut found = None;
        while now < begin + 10_000_000 {
            now += 200;
            if world.run_until(now).is_err() {
                break;
            }
            if found.is_none() && world.led() > term {
                found = Some(now - begin);
            }
            // What was under way before is not counted: only what a new leader acknowledged.
            if found.is_some() && world.tally().changes > before {
                served.push(now - begin);
                break;
            }
        }
        elected.extend(found);
    }
    elected.sort_unstable();
    served.sort_unstable();
    (elected, served)
}

/// The value below which `percent` of the sorted `values` are; 0 if there are none.
pub fn percentile(values: &[u64], percent: usize) -> u64 {
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(0)
}
