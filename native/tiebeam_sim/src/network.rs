//! Connections as Erlang distribution has them: at most one per pair of nodes, in order, dialled by either side. A send
//! may be lost (the driver drops what a busy link does not take), and a cut is noticed late (by net ticks).

use std::collections::{BTreeMap, BTreeSet};

use tiebeam_core::{Duration, Instant, NodeName, Random};

/// How the network behaves while nothing is cut.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The shortest time from a send to its arrival.
    pub delay_min: Duration,
    /// The longest.
    pub delay_max: Duration,
    /// Sends lost, in thousandths.
    pub loss: u64,
    /// The longest time until a side notices that its connection was cut.
    pub notice: Duration,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(1),
            delay_max: Duration::from_millis(50),
            loss: 50,
            notice: Duration::from_secs(20),
        }
    }
}

/// One connection, from its handshake to its loss. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(u64);

#[derive(Debug)]
pub(crate) struct Network {
    conditions: Conditions,
    links: u64,
    /// When the latest bytes towards a node arrive: later ones do not overtake them.
    arrivals: BTreeMap<(Link, NodeName), Instant>,
    /// Pairs between which nothing passes, the smaller name first.
    cuts: BTreeSet<(NodeName, NodeName)>,
    /// Links that were open when their pair was cut. TCP would not save them: both sides give up.
    broken: BTreeSet<Link>,
}

impl Network {
    pub(crate) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            links: 0,
            arrivals: BTreeMap::new(),
            cuts: BTreeSet::new(),
            broken: BTreeSet::new(),
        }
    }

    pub(crate) fn open(&mut self) -> Link {
        self.links += 1;
        Link(self.links)
    }

    /// When bytes sent over `link` to `to` arrive; `None` if they are lost.
    pub(crate) fn arrival(
        &mut self,
        random: &mut Random,
        now: Instant,
        link: Link,
        to: &NodeName,
    ) -> Option<Instant> {
        if self.broken.contains(&link) || random.below(1000) < self.conditions.loss {
            return None;
        }
        let earliest = now + self.delay(random);
        let latest = self.arrivals.entry((link, to.clone())).or_insert(earliest);
        *latest = earliest.max(*latest);
        Some(*latest)
    }

    pub(crate) fn delay(&self, random: &mut Random) -> Duration {
        let Conditions {
            delay_min,
            delay_max,
            ..
        } = self.conditions;
        let spread = delay_max.as_millis().saturating_sub(delay_min.as_millis());
        Duration::from_millis(delay_min.as_millis() + random.below(spread + 1))
    }

    /// How long one side takes to notice that its connection was cut.
    pub(crate) fn notice(&self, random: &mut Random) -> Duration {
        random.jitter(self.conditions.notice)
    }

    pub(crate) fn cut(&mut self, a: &NodeName, b: &NodeName, open: Option<Link>) {
        self.cuts.insert(pair(a, b));
        self.broken.extend(open);
    }

    pub(crate) fn heal(&mut self, a: &NodeName, b: &NodeName) {
        self.cuts.remove(&pair(a, b));
    }

    /// Nothing is cut or lost any more. What was lost before stays lost.
    pub(crate) fn calm(&mut self) {
        self.cuts.clear();
        self.conditions.loss = 0;
    }

    pub(crate) fn is_cut(&self, a: &NodeName, b: &NodeName) -> bool {
        self.cuts.contains(&pair(a, b))
    }
}

fn pair(a: &NodeName, b: &NodeName) -> (NodeName, NodeName) {
    (a.min(b).clone(), a.max(b).clone())
}
