//! Settings of a cluster member, each with the reason for its value.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::identity::NodeName;
use crate::leadership::group;
use crate::membership::{Kind, MAX_METADATA_BYTES};
use crate::registry::Limits;
use crate::time::Duration;

/// The most seeds in [`Config::join`]. A handful finds the rest; each is dialled for as long as it is away.
pub const MAX_SEEDS: usize = 64;

/// The most bytes in [`Config::cluster`]: it travels in every hello.
pub const MAX_CLUSTER_BYTES: usize = 255;

/// The greatest count in [`Timing`]: a greater one would be a slip of the pen, and multiplies messages.
pub const MAX_COUNT: u32 = 64;

/// What a [`Cluster`](crate::Cluster) is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// Which start of the name this is: the creation the node has on its connections.
    pub creation: u32,
    /// The first incarnation. A driver that may start a second core within one creation must give that one a greater
    /// number, for example milliseconds since the node's start.
    pub incarnation: u64,
    /// What kind of node this is.
    pub kind: Kind,
    /// The identity of the cluster, the same on all members; 1 to [`MAX_CLUSTER_BYTES`] bytes. Nodes with different
    /// identities refuse each other even when they are connected.
    pub cluster: String,
    /// Nodes to look for until they are found; at most [`MAX_SEEDS`]. The node's own name is skipped, so that all nodes
    /// can share one list.
    pub join: Vec<NodeName>,
    /// The seed of this member's chance (jitter, choice of partners). Should differ between nodes.
    pub seed: u64,
    /// What this node tells about itself: at most [`MAX_METADATA_BYTES`] bytes.
    pub metadata: Vec<u8>,
    /// Close the connections of dead members, by the rules of [`Contest`](crate::Contest), instead of waiting for OTP's
    /// net ticks.
    pub evict: bool,
    /// How often things happen.
    pub timing: Timing,
    /// Limits of the registry.
    pub registry: Limits,
    /// This node's part in the group that agrees on a leader; `None`: it has none.
    pub leadership: Option<group::Config>,
    /// The rule that a test has switched off.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub mutation: Option<crate::Mutation>,
}

/// How often things happen, and how sure a verdict is. Start from a profile; members should agree on it.
///
/// The names are those of the SWIM and Lifeguard papers and of HashiCorp's memberlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// The protocol period: each member probes one other per period (SWIM, section 3.1).
    pub probe_interval: Duration,
    /// How long a probe waits for its answer before others are asked to probe as well. Shorter than the period.
    pub probe_timeout: Duration,
    /// How many others are asked (SWIM: k).
    pub indirect_probes: u32,
    /// A suspicion lasts at least so many periods, times the logarithm of the number of members.
    pub suspicion_multiplier: u32,
    /// It lasts at most so many times longer, while nobody else confirms it (Lifeguard, section 3.2).
    pub suspicion_max_multiplier: u32,
    /// A word about a member is passed on so many times the logarithm of the number of members; twice as often while
    /// messages are being lost.
    pub retransmit_multiplier: u32,
    /// The pause between two rounds of gossip beside the probes, while there is something to tell.
    pub gossip_interval: Duration,
    /// To how many members each round of gossip goes.
    pub gossip_fanout: u32,
    /// The pause between two exchanges of the whole table with a member in turn, longer in clusters above 32 members.
    /// What gossip missed is mended by then. Equal tables cost one small message.
    pub sync_interval: Duration,
    /// The first pause before a node that did not answer is greeted again; it doubles up to `greet_max`, and each pause
    /// is shortened by a random part of up to a half. Shorter finds a late starter sooner, longer costs fewer dials.
    pub greet_first: Duration,
    /// The longest pause between two greetings, of seeds and of the dead: the time in which a healed network is noticed.
    pub greet_max: Duration,
    /// How long a member that is dead or has left stays in the view, and a dead one is dialled. Long enough to outlast a
    /// repair, so that a partition heals by itself.
    pub forget_after: Duration,
}

impl Timing {
    /// One network, at most a few milliseconds wide: a hung node is known in about nine seconds, and nobody is ever
    /// declared dead for lost messages.
    pub const fn lan() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_probes: 3,
            suspicion_multiplier: 4,
            suspicion_max_multiplier: 6,
            retransmit_multiplier: 4,
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            sync_interval: Duration::from_secs(30),
            greet_first: Duration::from_secs(1),
            greet_max: Duration::from_secs(30),
            forget_after: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// One network whose nodes do not pause for a second: a hung node is known in one to three seconds.
    pub const fn fast() -> Self {
        Self {
            probe_interval: Duration::from_millis(250),
            probe_timeout: Duration::from_millis(100),
            suspicion_multiplier: 3,
            gossip_interval: Duration::from_millis(50),
            sync_interval: Duration::from_secs(15),
            greet_first: Duration::from_millis(250),
            greet_max: Duration::from_secs(10),
            ..Self::lan()
        }
    }

    /// Several networks, hundreds of milliseconds apart.
    pub const fn wan() -> Self {
        Self {
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            suspicion_multiplier: 6,
            gossip_interval: Duration::from_millis(500),
            gossip_fanout: 4,
            sync_interval: Duration::from_secs(60),
            greet_first: Duration::from_secs(3),
            greet_max: Duration::from_secs(60),
            ..Self::lan()
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::lan()
    }
}

impl Config {
    /// A member of the cluster `"default"` without seeds.
    pub fn new(node: NodeName, creation: u32, kind: Kind) -> Self {
        Self {
            node,
            creation,
            incarnation: 0,
            kind,
            cluster: String::from("default"),
            join: Vec::new(),
            seed: 0,
            metadata: Vec::new(),
            evict: false,
            timing: Timing::default(),
            registry: Limits::default(),
            leadership: None,
            #[cfg(feature = "mutants")]
            mutation: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let timing = &self.timing;
        if self.kind == Kind::Plain {
            return Err(ConfigError::Kind);
        }
        if self.cluster.is_empty() || self.cluster.len() > MAX_CLUSTER_BYTES {
            return Err(ConfigError::Cluster {
                bytes: self.cluster.len(),
            });
        }
        if self.join.len() > MAX_SEEDS {
            return Err(ConfigError::Join {
                seeds: self.join.len(),
            });
        }
        if self.metadata.len() > MAX_METADATA_BYTES {
            return Err(ConfigError::Metadata {
                bytes: self.metadata.len(),
            });
        }
        for (setting, value) in [
            ("probe_interval", timing.probe_interval),
            ("probe_timeout", timing.probe_timeout),
            ("gossip_interval", timing.gossip_interval),
            ("sync_interval", timing.sync_interval),
            ("greet_first", timing.greet_first),
            ("greet_max", timing.greet_max),
            ("forget_after", timing.forget_after),
        ] {
            if value == Duration::ZERO {
                return Err(ConfigError::Zero { setting });
            }
        }
        if timing.probe_timeout >= timing.probe_interval {
            return Err(ConfigError::ProbeTimeout {
                timeout: timing.probe_timeout,
                interval: timing.probe_interval,
            });
        }
        for (setting, value, least) in [
            ("indirect_probes", timing.indirect_probes, 0),
            ("suspicion_multiplier", timing.suspicion_multiplier, 1),
            (
                "suspicion_max_multiplier",
                timing.suspicion_max_multiplier,
                1,
            ),
            ("retransmit_multiplier", timing.retransmit_multiplier, 1),
            ("gossip_fanout", timing.gossip_fanout, 1),
        ] {
            if !(least..=MAX_COUNT).contains(&value) {
                return Err(ConfigError::Count {
                    setting,
                    value,
                    least,
                });
            }
        }
        Ok(())
    }
}

/// A setting that cannot be used. The caller's mistake: no cluster was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The kind is [`Kind::Plain`], which is for nodes that run no Tiebeam.
    Kind,
    /// The cluster's identity is empty or longer than [`MAX_CLUSTER_BYTES`].
    Cluster {
        /// Its length.
        bytes: usize,
    },
    /// More than [`MAX_SEEDS`] seeds.
    Join {
        /// How many.
        seeds: usize,
    },
    /// More metadata than [`MAX_METADATA_BYTES`].
    Metadata {
        /// Its length.
        bytes: usize,
    },
    /// `probe_timeout` leaves no time for the others that are asked.
    ProbeTimeout {
        /// The timeout.
        timeout: Duration,
        /// The period.
        interval: Duration,
    },
    /// A count out of its range.
    Count {
        /// The field of [`Timing`].
        setting: &'static str,
        /// Its value.
        value: u32,
        /// The least allowed; the greatest is [`MAX_COUNT`].
        least: u32,
    },
    /// A duration of zero, which would never let the driver sleep.
    Zero {
        /// The field of [`Timing`].
        setting: &'static str,
    },
    /// The part in the group that agrees on a leader cannot be played.
    Leadership(group::ConfigError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leadership(error) => error.fmt(f),
            Self::Kind => f.write_str("kind must be Rust or Beam: plain nodes run no Tiebeam"),
            Self::Cluster { bytes } => {
                write!(
                    f,
                    "cluster must have 1 to {MAX_CLUSTER_BYTES} bytes, it has {bytes}"
                )
            }
            Self::Join { seeds } => {
                write!(
                    f,
                    "join must name at most {MAX_SEEDS} nodes, it names {seeds}; a few find the rest"
                )
            }
            Self::Metadata { bytes } => write!(
                f,
                "metadata must have at most {MAX_METADATA_BYTES} bytes, it has {bytes}"
            ),
            Self::ProbeTimeout { timeout, interval } => write!(
                f,
                "probe_timeout must be shorter than probe_interval ({interval}), it is {timeout}"
            ),
            Self::Count {
                setting,
                value,
                least,
            } => write!(
                f,
                "{setting} must be from {least} to {MAX_COUNT}, it is {value}"
            ),
            Self::Zero { setting } => write!(f, "{setting} must be longer than zero"),
        }
    }
}

impl core::error::Error for ConfigError {}
