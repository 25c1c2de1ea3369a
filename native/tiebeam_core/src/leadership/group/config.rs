//! What a group is made from.

use alloc::vec::Vec;
use core::fmt;

use crate::identity::NodeName;
use crate::leadership::configuration::{Configuration, MAX_VOTERS};
use crate::leadership::entry::{HardState, MemberId};
use crate::leadership::replica::RestoreError;
use crate::leadership::snapshot::Restored;
use crate::time::Duration;

/// What a [`Group`](super::Group) is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's identity in the group: a random number that is kept on the disk of the log. A node without a disk has a new
    /// one at each start.
    pub member: MemberId,
    /// Who votes.
    pub voters: Voters,
    /// How fast things go. The same on all nodes of the cluster.
    pub timing: Timing,
    /// What the disk has.
    pub stored: Stored,
}

/// Who votes, when a group is founded. Later its configuration says so, whatever is written here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voters {
    /// These nodes, 1 to [`MAX_VOTERS`]. A node that is not among them learns.
    Named(Vec<NodeName>),
    /// The first so many nodes that see each other and expect as many. Only where fewer than twice as many nodes
    /// are started before the group exists: two halves of a network would found two groups, which then refuse each other.
    Expect(usize),
}

/// How fast things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// See [`Settings::heartbeat`](crate::leadership::Settings::heartbeat).
    pub heartbeat: Duration,
    /// See [`Settings::election`](crate::leadership::Settings::election).
    pub election: Duration,
    /// How long what a node holds outlives the node: its session (see [`machine`](crate::leadership::machine)).
    pub session: Duration,
}

impl Timing {
    /// One network: elections after 200 to 400 ms, sessions of three seconds.
    pub const LAN: Self = Self {
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(200),
        session: Duration::from_secs(3),
    };

    /// Several networks: elections after 1 to 2 s, sessions of fifteen seconds.
    pub const WAN: Self = Self {
        heartbeat: Duration::from_millis(250),
        election: Duration::from_secs(1),
        session: Duration::from_secs(15),
    };
}

/// What the disk of a node has of its group. The default is an empty disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// The founding that this node agreed to, if it did.
    pub founding: Option<Founding>,
    /// What the engine persisted.
    pub restored: Restored,
}

impl Stored {
    /// Nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.founding.is_none()
            && self.restored.hard == HardState::default()
            && self.restored.snapshot.is_none()
            && self.restored.entries.is_empty()
    }
}

/// The beginning of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// The number of the group: another founding has another one, and what is for another group is refused.
    pub group: u64,
    /// Its first members.
    pub configuration: Configuration,
    /// All of them have promised: the group exists. Until then this is a promise of this node not to join another.
    pub agreed: bool,
}

/// Why a node must not take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// There are no voters, or more than [`MAX_VOTERS`].
    Voters {
        /// How many there are.
        count: usize,
    },
    /// What is on disk cannot be trusted.
    Restore(RestoreError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voters { count } => write!(f, "{count} voters: name 1 to {MAX_VOTERS}"),
            Self::Restore(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConfigError {}
