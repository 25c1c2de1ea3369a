//! What lies between the nodes: connections as Erlang distribution has them, at most one per pair and in order, or, to
//! try what a lane of datagrams would do, messages that go their own ways. Sends are lost one by one or in bursts; what
//! is cut is noticed late.

use tiebeam_core::{Duration, Instant, Random};

/// How the messages of a connection travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// In order, as over TCP. What is sent while the way is cut arrives when it heals, if the connection lives so long.
    Connection,
    /// Each by itself: later ones may overtake, some come twice, and what is sent while the way is cut is lost.
    Datagram,
}

/// Loss in bursts: a way between two nodes is good and bad in turn (E. N. Gilbert, "Capacity of a burst-noise channel",
/// 1960), each direction by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// How long a way stays good, on average.
    pub good: Duration,
    /// How long it stays bad, on average.
    pub bad: Duration,
    /// Sends lost while it is bad, in thousandths.
    pub loss: u64,
}

/// How the network behaves while nothing is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// How messages travel.
    pub lane: Lane,
    /// The shortest time from a send to its arrival.
    pub delay: Duration,
    /// What is added to it on average, exponentially distributed.
    pub jitter: Duration,
    /// Sends lost, in thousandths. (Over a connection: dropped by a driver whose link is busy.)
    pub loss: u64,
    /// Loss in bursts, on top.
    pub burst: Option<Burst>,
    /// Datagrams that come twice, in thousandths.
    pub duplicate: u64,
    /// Datagrams that go astray, in thousandths.
    pub astray: u64,
    /// Datagrams that go astray, and second copies, take up to so much longer.
    pub stray: Duration,
    /// How often a connection carries something besides messages (OTP: ticks, four in a `net_ticktime`; users' traffic).
    pub tick: Duration,
    /// The longest time until a side notices that nothing comes any more (OTP: net ticks); half of it is the shortest.
    pub notice: Duration,
    /// How long a dial takes that nobody answers.
    pub dial_timeout: Duration,
    /// Wakers are late by up to this much.
    pub late: Duration,
}

impl Conditions {
    /// One network of a millisecond, which loses nothing.
    pub const fn lan() -> Self {
        Self {
            lane: Lane::Connection,
            delay: Duration::from_micros(300),
            jitter: Duration::from_micros(700),
            loss: 0,
            burst: None,
            duplicate: 0,
            astray: 0,
            stray: Duration::ZERO,
            tick: Duration::from_secs(15),
            notice: Duration::from_secs(75),
            dial_timeout: Duration::from_secs(7),
            late: Duration::from_millis(2),
        }
    }

    /// The same, but `percent` of all sends are lost.
    pub const fn lossy(percent: u64) -> Self {
        Self {
            loss: percent * 10,
            ..Self::lan()
        }
    }
}

impl Conditions {
    /// What becomes of one message, bursts apart: how long it takes, or `None` when it is lost.
    pub fn draw(&self, random: &mut Random) -> Option<Duration> {
        match self.loss > 0 && random.below(1000) < self.loss {
            true => None,
            false => Some(self.delay(random)),
        }
    }

    pub(crate) fn delay(&self, random: &mut Random) -> Duration {
        sum(self.delay, exponential(random, self.jitter))
    }
}

/// One connection, from its handshake to its loss. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(u64);

/// Whether a way is in a burst of loss, and until when.
#[derive(Debug, Clone, Copy)]
struct Spell {
    bad: bool,
    until: Instant,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) conditions: Conditions,
    nodes: usize,
    links: u64,
    /// Since when nothing passes from one node to another, by the numbers of both.
    cuts: Vec<Option<Instant>>,
    /// Present while there are bursts.
    spells: Vec<Spell>,
}

impl Network {
    pub(crate) fn new(conditions: Conditions, nodes: usize) -> Self {
        let mut network = Self {
            conditions: conditions.clone(),
            nodes,
            links: 0,
            cuts: vec![None; nodes * nodes],
            spells: Vec::new(),
        };
        network.set(conditions);
        network
    }

    /// Other conditions from now on.
    pub(crate) fn set(&mut self, conditions: Conditions) {
        let ways = if conditions.burst.is_some() {
            self.nodes * self.nodes
        } else {
            0
        };
        let good = Spell {
            bad: true,
            until: Instant::ZERO,
        };
        self.spells.resize(ways, good);
        self.conditions = conditions;
    }

    pub(crate) fn open(&mut self) -> Link {
        self.links += 1;
        Link(self.links)
    }

    /// Whether chance takes a message that is sent now.
    pub(crate) fn loses(
        &mut self,
        random: &mut Random,
        now: Instant,
        from: usize,
        to: usize,
    ) -> bool {
        if let Some(burst) = self.conditions.burst {
            let spell = &mut self.spells[from * self.nodes + to];
            while spell.until <= now {
                spell.bad = !spell.bad;
                let mean = if spell.bad { burst.bad } else { burst.good };
                // At least a microsecond, so that time passes.
                spell.until = spell.until + exponential(random, mean) + Duration::from_micros(1);
            }
            if spell.bad && random.below(1000) < burst.loss {
                return true;
            }
        }
        self.conditions.loss > 0 && random.below(1000) < self.conditions.loss
    }

    pub(crate) fn delay(&self, random: &mut Random) -> Duration {
        self.conditions.delay(random)
    }

    /// How long a side takes to notice that nothing comes any more.
    pub(crate) fn notice(&self, random: &mut Random) -> Duration {
        random.jitter(self.conditions.notice)
    }

    pub(crate) fn cut(&mut self, now: Instant, from: usize, to: usize) {
        self.cuts[from * self.nodes + to].get_or_insert(now);
    }

    /// True if it was cut.
    pub(crate) fn heal(&mut self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to].take().is_some()
    }

    /// Since when nothing passes.
    pub(crate) fn cut_since(&self, from: usize, to: usize) -> Option<Instant> {
        self.cuts[from * self.nodes + to]
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut_since(from, to).is_some()
    }
}

pub(crate) fn sum(one: Duration, other: Duration) -> Duration {
    Duration::from_micros(one.as_micros().saturating_add(other.as_micros()))
}

/// A span with the given mean, exponentially distributed, by comparisons alone, so that every machine draws the same
/// (J. von Neumann, "Various techniques used in connection with random digits", 1951).
pub(crate) fn exponential(random: &mut Random, mean: Duration) -> Duration {
    if mean == Duration::ZERO {
        return mean;
    }
    let mut whole = 0_u64;
    loop {
        let first = random.bits();
        let (mut last, mut run) = (first, 1_u32);
        loop {
            let next = random.bits();
            if next > last {
                break;
            }
            last = next;
            run += 1;
        }
        if run % 2 == 1 {
            let part = (u128::from(mean.as_micros()) * u128::from(first)) >> 64;
            return sum(mean.times(whole), Duration::from_micros(part as u64));
        }
        whole += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_spans_have_their_mean_and_their_median() {
        let mut random = Random::from_seed(1);
        let mean = Duration::from_millis(100);
        let mut drawn: Vec<u64> = (0..20_000)
            .map(|_| exponential(&mut random, mean).as_micros())
            .collect();
        drawn.sort_unstable();
        let average = drawn.iter().sum::<u64>() / 20_000;
        assert!((97_000..103_000).contains(&average), "{average}");
        // ln 2 of the mean.
        assert!(
            (67_000..72_000).contains(&drawn[10_000]),
            "{}",
            drawn[10_000]
        );
    }

    #[test]
    fn bursts_lose_their_share_and_come_in_runs() {
        let burst = Burst {
            good: Duration::from_millis(900),
            bad: Duration::from_millis(100),
            loss: 1000,
        };
        let conditions = Conditions {
            burst: Some(burst),
            ..Conditions::lan()
        };
        let mut network = Network::new(conditions, 2);
        let mut random = Random::from_seed(1);
        let lost: Vec<bool> = (0..200_000)
            .map(|millis| network.loses(&mut random, Instant::from_millis(millis), 0, 1))
            .collect();
        let share = lost.iter().filter(|&&lost| lost).count();
        assert!((17_000..23_000).contains(&share), "{share} of 200,000");
        let runs = lost.windows(2).filter(|pair| pair[0] != pair[1]).count() / 2;
        assert!(share / runs > 50, "{runs} runs");
    }
}
