//! What a world is made from, as data.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::{Config, Duration, Instant, Kind, NodeName, Random, Timing};

use crate::faults::Script;
use crate::network::{Burst, Conditions, Lane};

/// A machine for one node.
#[derive(Debug, Clone)]
pub struct Host {
    /// The node's name. Two hosts may have one name: each other host then finds one of them.
    pub name: NodeName,
    /// The cluster that it is in.
    pub cluster: String,
    /// What runs there. A [`Kind::Plain`] node has connections and a kernel that answers, and no core.
    pub kind: Kind,
    /// When it starts; `None` leaves it to the script.
    pub starts: Option<Instant>,
}

/// How much of a run is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Everything that nodes are told, as records and as a transcript.
    Full,
    /// Records of what came to a verdict; of the rest only counts. For long runs.
    Verdicts,
}

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides every choice of the world and of the nodes in it.
    pub seed: u64,
    /// The nodes.
    pub hosts: Vec<Host>,
    /// Nodes that all others look for.
    pub seeds: Vec<NodeName>,
    /// How the network behaves.
    pub conditions: Conditions,
    /// What goes wrong.
    pub script: Script,
    /// The timing of all nodes.
    pub timing: Timing,
    /// Nodes close the connections of the dead.
    pub evict: bool,
    /// Drivers can read how much came over a connection.
    pub samples: bool,
    /// In the end every node runs again; without it, the dead stay dead and the others have to agree on that.
    pub revive: bool,
    /// Nothing but loss goes wrong in the script, so nobody may be declared dead.
    pub accurate: bool,
    /// Check after each step what must always hold. Costs a copy of two views.
    pub checks: bool,
    /// How much is kept.
    pub detail: Detail,
    /// The last word on each node's configuration.
    pub tune: Option<Tune>,
}

/// Changes the configuration of a node before it starts.
#[derive(Clone)]
pub struct Tune(Arc<dyn Fn(&mut Config) + Send + Sync>);

impl Tune {
    /// Calls `change` for every core that is made.
    pub fn new(change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }

    pub(crate) fn apply(&self, config: &mut Config) {
        (self.0)(config);
    }
}

impl fmt::Debug for Tune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tune")
    }
}

impl Plan {
    /// `count` nodes of one cluster, started together, that look for the first two of them.
    pub fn quiet(seed: u64, count: usize) -> Self {
        Self {
            seed,
            hosts: (0..count)
                .map(|number| Host {
                    name: crate::node(number),
                    cluster: "default".to_owned(),
                    kind: Kind::Rust,
                    starts: Some(Instant::ZERO),
                })
                .collect(),
            seeds: (0..count.min(2)).map(crate::node).collect(),
            conditions: Conditions::lan(),
            script: Script::default(),
            timing: Timing::lan(),
            evict: true,
            samples: true,
            revive: true,
            accurate: false,
            checks: true,
            detail: Detail::Full,
            tune: None,
        }
    }

    /// The same for figures: nothing but verdicts is kept, nothing is checked in between, and no driver can read how much
    /// came over a connection, so that a verdict depends on what SWIM itself hears.
    pub fn measured(seed: u64, count: usize) -> Self {
        Self {
            samples: false,
            checks: false,
            detail: Detail::Verdicts,
            ..Self::quiet(seed, count)
        }
    }

    /// A world with its own number of nodes, some of another cluster, some without a core, its own network and minutes of
    /// faults. All of it follows from `seed`. Every fourth world only loses messages.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let count = 3 + random.below(8) as usize;
        let mut plan = Self::quiet(seed, count);
        plan.accurate = seed.is_multiple_of(4);
        for host in plan.hosts.iter_mut().skip(2) {
            match random.below(12) {
                0..=1 => {
                    host.cluster = "blue".to_owned();
                    // Everybody looks for it, friend or not: without seeds of their own these would not find each other.
                    plan.seeds.push(host.name.clone());
                }
                2..=3 => host.kind = Kind::Plain,
                4..=6 => host.kind = Kind::Beam,
                _ => {}
            }
        }
        if random.below(2) == 0 {
            plan.timing = Timing::fast();
        }
        plan.evict = random.below(4) > 0;
        plan.revive = random.below(2) == 0;
        let conditions = &mut plan.conditions;
        conditions.loss = random.below(if plan.accurate { 200 } else { 300 });
        conditions.notice = Duration::from_millis(5_000 + random.below(30_000));
        if random.below(3) == 0 {
            conditions.lane = Lane::Datagram;
            conditions.duplicate = random.below(150);
            conditions.astray = random.below(1001);
            conditions.stray = Duration::from_millis(random.below(120));
        }
        if !plan.accurate {
            conditions.jitter = Duration::from_micros(random.below(20_000));
            if random.below(4) == 0 {
                conditions.burst = Some(Burst {
                    good: Duration::from_millis(1 + random.below(10_000)),
                    bad: Duration::from_millis(1 + random.below(1_000)),
                    loss: 500 + random.below(501),
                });
            }
            let names: Vec<NodeName> = plan.hosts.iter().map(|host| host.name.clone()).collect();
            let pause = Duration::from_millis(200 + random.below(10_000));
            plan.script = Script::random(&mut random, &names, pause, Instant::from_millis(120_000));
        }
        plan
    }
}
