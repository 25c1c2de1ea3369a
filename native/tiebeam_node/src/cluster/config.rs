//! What a cluster member is started with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::leadership::group;
use tiebeam_core::registry::Limits;
use tiebeam_core::{ConfigError, NodeNameError, Timing};
use tiebeam_store::StoreError;

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
    /// Who votes in the group that agrees on a leader, on keys, locks and strong names. Default [`Voters::None`]: this node
    /// takes no part in such a group.
    pub voters: Voters,
    /// Where this node keeps what it voted and agreed to: a directory of its own, which is made if it is not there. Default
    /// none: it keeps that in memory, and is another member at each start, which costs a voter some seconds of being replaced,
    /// and a group all that it knew if a majority of its voters restarts within them.
    pub data_dir: Option<PathBuf>,
    /// How fast leaders are elected, and how long what a node holds outlives the node.
    pub leadership: group::Timing,
}

/// Who votes in a group, when it is founded. All nodes of a cluster say the same; a node that says so and is not among the voters learns:
/// it has a copy of everything, and no vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Voters {
    /// There is no group.
    #[default]
    None,
    /// These nodes.
    Named(Vec<String>),
    /// The first so many nodes that see each other. Only where fewer than twice as many are started at first: the halves of a
    /// network that is cut would found two groups.
    Expect(usize),
}

impl Default for ClusterConfig {
    /// [`ClusterConfig::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

impl ClusterConfig {
    fn profile(timing: Timing, leadership: group::Timing, evict: bool) -> Self {
        Self {
            cluster: "default".to_owned(),
            join: Vec::new(),
            process: "tiebeam".to_owned(),
            metadata: Vec::new(),
            evict,
            timing,
            registry: Limits::default(),
            voters: Voters::None,
            data_dir: None,
            leadership,
        }
    }

    /// One network: [`Timing::lan`], nobody is evicted.
    pub fn lan() -> Self {
        Self::profile(Timing::lan(), group::Timing::LAN, false)
    }

    /// One network whose nodes do not pause for a second: [`Timing::fast`], and the dead are evicted.
    pub fn fast() -> Self {
        Self::profile(Timing::fast(), group::Timing::LAN, true)
    }

    /// Several networks: [`Timing::wan`], nobody is evicted.
    pub fn wan() -> Self {
        Self::profile(Timing::wan(), group::Timing::WAN, false)
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

    /// Takes part in the group of these voters: [`Voters::Named`].
    pub fn voters(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.voters = Voters::Named(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Takes part in the group of the first so many nodes: [`Voters::Expect`].
    pub fn expect(mut self, voters: usize) -> Self {
        self.voters = Voters::Expect(voters);
        self
    }

    /// Keeps what it agreed to in this directory.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// What a node holds (locks, strong names) outlives the node by this time: half a second to a day. A node that is away
    /// for longer loses it.
    pub fn session(mut self, time: Duration) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.leadership.session = tiebeam_core::Duration::from_micros(micros);
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
    /// What is in [`ClusterConfig::data_dir`] cannot be used.
    Store(Arc<StoreError>),
    /// There is no thread for the disk.
    Thread(Arc<std::io::Error>),
    /// There is a [`ClusterConfig::data_dir`], and no voters.
    NothingToKeep,
    /// The node stopped meanwhile.
    Stopped,
}

impl ClusterError {
    pub(super) fn store(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }

    pub(super) fn thread(error: std::io::Error) -> Self {
        Self::Thread(Arc::new(error))
    }
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
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => {
                write!(
                    f,
                    "cannot start a thread ({error}): raise this user's limits"
                )
            }
            Self::NothingToKeep => f.write_str(
                "there is a data directory, but no voters: name them, or say how many are expected",
            ),
            Self::Stopped => f.write_str("the node has stopped"),
        }
    }
}

impl std::error::Error for ClusterError {}
