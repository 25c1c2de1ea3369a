//! What a cluster member is started with.

use std::fmt;

use tiebeam_core::registry::Limits;
use tiebeam_core::{ConfigError, NodeNameError, Timing};

use crate::error::SpawnError;

/// Settings of a cluster member. Start from a profile: [`ClusterConfig::lan`], [`ClusterConfig::fast`] or
/// [`ClusterConfig::wan`]; all members of a cluster should have the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The identity of the cluster, the same on all its nodes: 1 to 255 bytes. Default `"default"`.
    pub cluster: String,
    /// Nodes to look for until they are found, at most 64. The own name is skipped, so that all nodes can share one
    /// list. Default none.
    pub join: Vec<String>,
    /// The registered name that members send to, the same on all nodes of the cluster. A second cluster on one node
    /// needs another one. Default `"tiebeam"`.
    pub process: String,
    /// What this node tells about itself, at most [`MAX_METADATA_BYTES`](crate::MAX_METADATA_BYTES) bytes. Default none.
    pub metadata: Vec<u8>,
    /// Whether the connections of dead members are closed, where [`Contest`](crate::Contest) allows it, instead of waiting
    /// for net ticks. Default: in the profile `fast` only.
    pub evict: bool,
    /// How often things happen.
    pub timing: Timing,
    /// Limits of names and groups.
    pub registry: Limits,
}

impl Default for ClusterConfig {
    /// [`ClusterConfig::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

impl ClusterConfig {
    fn profile(timing: Timing, evict: bool) -> Self {
        Self {
            cluster: "default".to_owned(),
            join: Vec::new(),
            process: "tiebeam".to_owned(),
            metadata: Vec::new(),
            evict,
            timing,
            registry: Limits::default(),
        }
    }

    /// One network: [`Timing::lan`], nobody is evicted.
    pub fn lan() -> Self {
        Self::profile(Timing::lan(), false)
    }

    /// One network whose nodes do not pause for a second: [`Timing::fast`], and the dead are evicted.
    pub fn fast() -> Self {
        Self::profile(Timing::fast(), true)
    }

    /// Several networks: [`Timing::wan`], nobody is evicted.
    pub fn wan() -> Self {
        Self::profile(Timing::wan(), false)
    }

    /// Is a member of the cluster with this identity.
    pub fn cluster(mut self, identity: impl Into<String>) -> Self {
        self.cluster = identity.into();
        self
    }

    /// Looks for these nodes.
    pub fn join(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.join = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// Sends to, and is reached by, this registered name.
    pub fn process(mut self, name: impl Into<String>) -> Self {
        self.process = name.into();
        self
    }

    /// Tells this about itself.
    pub fn metadata(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.metadata = bytes.into();
        self
    }

    /// Evicts the dead, or does not.
    pub fn evict(mut self, evict: bool) -> Self {
        self.evict = evict;
        self
    }

    /// Does things this often.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Limits names and groups.
    pub fn registry(mut self, limits: Limits) -> Self {
        self.registry = limits;
        self
    }
}

/// Why this node does not take part in a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClusterError {
    /// A name in [`ClusterConfig::join`], or of the node, is none.
    Name(NodeNameError),
    /// A setting is out of its range.
    Config(ConfigError),
    /// There is no process for it; most likely its name is taken, by a cluster that runs already.
    Process(SpawnError),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Process(error) => write!(
                f,
                "{error}; a second cluster on one node needs another name, the same on all its nodes"
            ),
        }
    }
}

impl std::error::Error for ClusterError {}
