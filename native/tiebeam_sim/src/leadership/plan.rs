//! What a world is like, and what happens in it.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::leadership::{MAX_TAIL, Settings};
use tiebeam_core::{Duration, Random};

/// Changes the settings of a member before it starts.
#[derive(Clone)]
pub struct Tune(Arc<dyn Fn(&mut Settings) + Send + Sync>);

impl Tune {
    /// Does `change` to each.
    pub fn new(change: impl Fn(&mut Settings) + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }

    pub(super) fn apply(&self, settings: &mut Settings) {
        (self.0)(settings);
    }
}

impl fmt::Debug for Tune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tune")
    }
}

/// A world. All probabilities are in thousandths.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many members the group is founded with, all of them voters.
    pub members: usize,
    /// How many machines there are besides, on which members may run that join.
    pub spares: usize,
    /// The shortest and the longest time between two changes of the members that each of two operators asks for, in milliseconds; none if there are
    /// no operators.
    pub operators: Option<(u64, u64)>,
    /// The shortest and the longest time between two snapshots of a member, in milliseconds; none if there are none.
    pub compact: Option<(u64, u64)>,
    /// How many of the entries that a snapshot stands for a member keeps.
    pub tail: usize,
    /// How often a leader is heard.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election: Duration,
    /// How long faults happen.
    pub faulty: Duration,
    /// How long the world then has to recover.
    pub quiet: Duration,
    /// How many clients there are.
    pub clients: usize,
    /// How many keys they share.
    pub keys: u8,
    /// The shortest and the longest way of a message, in microseconds.
    pub delay: (u64, u64),
    /// How many messages are lost.
    pub loss: u64,
    /// How many come twice.
    pub twice: u64,
    /// How many come up to a second late.
    pub late: u64,
    /// The shortest and the longest time for a write, in microseconds.
    pub write: (u64, u64),
    /// How often a member crashes in the moment when it writes its term and vote, or has just written them.
    pub crash_at_vote: u64,
    /// How often a member crashes when it writes anything, has just written it, or has written it and not been told.
    pub crash_at_write: u64,
    /// Disks are full, slow for seconds, or lost with their machine; and all members crash at once.
    pub disks: bool,
    /// How often a crash takes entries with it that were synced: a fault that no group survives, to see that it is noticed.
    pub forgets: u64,
    /// How much the rates of clocks differ from that of the world.
    pub drift: u64,
    /// The shortest and the longest time between two faults, in milliseconds; none if there are none.
    pub fault_gap: Option<(u64, u64)>,
    /// Hints that a member is gone: true ones, late ones and wrong ones.
    pub hints: bool,
    /// The last word on the settings of each member, for tests that switch a rule off.
    pub tune: Tune,
}

impl Plan {
    /// A quiet world of `members`, with the delays of one data centre.
    pub fn quiet(seed: u64, members: usize) -> Self {
        Self {
            seed,
            members,
            spares: 0,
            operators: None,
            compact: None,
            tail: MAX_TAIL,
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(200),
            faulty: Duration::from_secs(10),
            quiet: Duration::from_secs(5),
            clients: 5,
            keys: 3,
            delay: (200, 2000),
            loss: 0,
            twice: 0,
            late: 0,
            write: (50, 1000),
            crash_at_vote: 0,
            crash_at_write: 0,
            disks: false,
            forgets: 0,
            drift: 0,
            fault_gap: None,
            hints: false,
            tune: Tune::new(|_| {}),
        }
    }

    /// The world of `seed`: every kind of fault, more or less of each.
    pub fn random(seed: u64, members: usize) -> Self {
        let mut random = Random::from_seed(seed ^ 0x1EAD);
        Self {
            loss: random.below(180),
            twice: random.below(50),
            late: random.below(20),
            crash_at_vote: [0, 0, 30, 100][random.below(4) as usize],
            drift: random.below(100),
            fault_gap: Some((50, 200 + random.below(800))),
            hints: random.below(2) == 0,
            ..Self::quiet(seed, members)
        }
    }

    /// A world in which elections are all that happens: a member that votes crashes, is back at once, and old polls arrive
    /// late.
    pub fn elections(seed: u64, members: usize) -> Self {
        Self {
            clients: 1,
            loss: 100,
            twice: 100,
            late: 300,
            crash_at_vote: 300,
            fault_gap: Some((50, 200)),
            hints: true,
            ..Self::random(seed, members)
        }
    }

    /// The same as [`Plan::random`], and logs are short, members change, and disks are full, slow or lost.
    pub fn changing(seed: u64, members: usize) -> Self {
        let mut random = Random::from_seed(seed ^ 0xC4A6);
        let least = 20 + random.below(100);
        Self {
            spares: 2,
            operators: Some((50, 200 + random.below(800))),
            compact: Some((least, least + random.below(2000))),
            tail: [0, 2, 20][random.below(3) as usize],
            crash_at_write: [0, 0, 1, 5][random.below(4) as usize],
            disks: true,
            ..Self::random(seed, members)
        }
    }
}
