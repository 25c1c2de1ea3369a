//! Settings of a cluster member, each with the reason for its value.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::identity::NodeName;
use crate::membership::Kind;
use crate::time::Duration;

/// The most seeds in [`Config::join`]. A handful finds the rest; each is dialled for as long as it is away.
pub const MAX_SEEDS: usize = 64;

/// The most bytes in [`Config::cluster`]: it travels in every hello.
pub const MAX_CLUSTER_BYTES: usize = 255;

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
    /// How often things happen.
    pub timing: Timing,
}

/// How often things happen.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The first pause before a node that did not answer is greeted again; it doubles up to `greet_max`, and each pause
    /// is shortened by a random part of up to a half. Shorter finds a late starter sooner, longer costs fewer dials.
    pub greet_first: Duration,
    /// The longest pause between two greetings: the time in which a healed network is noticed.
    pub greet_max: Duration,
    /// The pause between two exchanges of member lists, each with the next member in turn. A node that one member knows
    /// is known to all within members × pauses, usually after a few.
    pub sync_every: Duration,
    /// How long a member that is dead or has left stays in the view, and a dead one is dialled. Long enough to outlast a
    /// repair, so that a partition heals by itself.
    pub forget_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            greet_first: Duration::from_secs(1),
            greet_max: Duration::from_secs(30),
            sync_every: Duration::from_secs(10),
            forget_after: Duration::from_secs(24 * 60 * 60),
        }
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
            timing: Timing::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Timing {
            greet_first,
            greet_max,
            sync_every,
            forget_after,
        } = self.timing;
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
        for (setting, value) in [
            ("greet_first", greet_first),
            ("greet_max", greet_max),
            ("sync_every", sync_every),
            ("forget_after", forget_after),
        ] {
            if value == Duration::ZERO {
                return Err(ConfigError::Zero { setting });
            }
        }
        Ok(())
    }
}

/// A setting that cannot be used. The caller's mistake: no cluster was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
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
    /// A duration of zero, which would never let the driver sleep.
    Zero {
        /// The field of [`Timing`].
        setting: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
            Self::Zero { setting } => write!(f, "{setting} must be longer than zero"),
        }
    }
}

impl core::error::Error for ConfigError {}
