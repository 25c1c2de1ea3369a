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

/// A kind of worlds, by seed and by how many members there are.
pub type Kind = fn(u64, usize) -> Plan;

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
    /// How often a member crashes when a snapshot has taken the place of its log and is not on its disk.
    pub crash_at_install: u64,
    /// How often a member takes a snapshot between two entries that it applies, as hosts do.
    pub compact_at_apply: u64,
    /// How often a snapshot has bytes that mean nothing, and how many at most.
    pub padding: (u64, usize),
    /// How often a leader is struck in the moment of its election, or soon after; see `world/aimed.rs`.
    pub strike: u64,
    /// The polls of the second candidate of a term are held up for longer than an election timeout, and whoever is elected is not heard.
    pub late_polls: bool,
    /// What waited for a process that stood still reaches it in the order in which it came.
    pub in_order: bool,
    /// A fault is a link on which nothing moves for a while.
    pub busy_links: bool,
    /// How often a message comes a second time as a later version of the program might send it.
    pub strangers: u64,
    /// How late a hint may be, in milliseconds.
    pub hint_delay: u64,
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
            crash_at_install: 0,
            compact_at_apply: 0,
            padding: (20, 300_000),
            strike: 0,
            late_polls: false,
            in_order: false,
            busy_links: false,
            strangers: 0,
            hint_delay: 2000,
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

    /// What was voted must outlast a crash: whoever votes crashes and is back at once, several stand at the same time, the polls of some arrive when those
    /// who started anew may vote again, and whoever is elected is heard by nobody.
    pub fn votes(seed: u64, members: usize) -> Self {
        Self {
            clients: 0,
            delay: (200, 15_000),
            loss: 20,
            late: 0,
            drift: 0,
            crash_at_vote: 150,
            strike: 700,
            late_polls: true,
            fault_gap: Some((100, 300)),
            ..Self::elections(seed, members)
        }
    }

    /// What was confirmed must outlast a crash: those who hear a leader start anew while another one asks them for their votes.
    pub fn leases(seed: u64, members: usize) -> Self {
        Self {
            clients: 0,
            loss: 0,
            late: 0,
            crash_at_vote: 0,
            strike: 800,
            fault_gap: Some((500, 1500)),
            hints: false,
            ..Self::random(seed, members)
        }
    }

    /// Reigns are short and disks slow: logs end in entries of many terms that nobody committed, and operators ask whoever was just elected.
    pub fn reigns(seed: u64, members: usize) -> Self {
        Self {
            operators: Some((300, 900)),
            write: (1000, 60_000),
            late: 0,
            crash_at_vote: 0,
            strike: 700,
            fault_gap: Some((200, 600)),
            ..Self::random(seed, members)
        }
    }

    /// Leaders stand still, and go on where they stopped: what they are told first is what was on its way then.
    pub fn stalls(seed: u64, members: usize) -> Self {
        Self {
            late: 0,
            crash_at_vote: 0,
            strike: 500,
            in_order: true,
            fault_gap: Some((100, 400)),
            ..Self::random(seed, members)
        }
    }

    /// Logs are short and snapshots long: they are taken between two entries, take several messages, and are lost with a crash.
    pub fn snapshots(seed: u64, members: usize) -> Self {
        Self {
            compact: Some((50, 200)),
            tail: 0,
            crash_at_write: 0,
            crash_at_install: 300,
            compact_at_apply: 20,
            padding: (300, 700_000),
            strike: 300,
            fault_gap: Some((200, 600)),
            ..Self::changing(seed, members)
        }
    }

    /// Links are busy: nothing moves for up to two seconds, and what was sent is dropped, or comes when they are free. Some members speak a later
    /// version now and then.
    pub fn links(seed: u64, members: usize) -> Self {
        Self {
            busy_links: true,
            strangers: 20,
            ..Self::changing(seed, members)
        }
    }

    /// A minute, as hints may be so late.
    pub fn hints(seed: u64, members: usize) -> Self {
        Self {
            faulty: Duration::from_secs(65),
            clients: 1,
            hints: true,
            hint_delay: 60_000,
            fault_gap: Some((500, 3000)),
            ..Self::random(seed, members)
        }
    }

    /// One of those whose faults are aimed at something: votes, leases, reigns, stalls, snapshots, links and hints, in turn.
    pub fn aimed(seed: u64, members: usize) -> Self {
        let kinds = [
            Self::votes,
            Self::leases,
            Self::reigns,
            Self::stalls,
            Self::snapshots,
            Self::links,
            Self::hints,
        ];
        kinds[(seed % 7) as usize](seed / 7, members)
    }

    /// The kind of worlds that is called so.
    pub fn kind(name: &str) -> Option<Kind> {
        let kinds: [(&str, Kind); 11] = [
            ("random", Self::random),
            ("elections", Self::elections),
            ("changing", Self::changing),
            ("aimed", Self::aimed),
            ("votes", Self::votes),
            ("leases", Self::leases),
            ("reigns", Self::reigns),
            ("stalls", Self::stalls),
            ("snapshots", Self::snapshots),
            ("links", Self::links),
            ("hints", Self::hints),
        ];
        let found = kinds.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| kind)
    }
}
