//! Finding the nodes of a cluster: who looks where, and what becomes of the names that are found.
//!
//! A [`Discovery`] says which nodes there may be; [`Node::discover`] asks it again and again, and connects to those that are
//! not connected. To find a node costs nothing else: it becomes a member of the cluster, or not, as any node that is
//! connected. A node that is not found any more stays connected, unless [`Search::disconnect_vanished`] says otherwise.
//!
//! ```no_run
//! # async fn start(node: &tiebeam_node::Node) {
//! use tiebeam_node::discovery::EpmdHosts;
//!
//! let discovering = node.discover(EpmdHosts::new(["h1.example", "h2.example"]).matching("app*"));
//! discovering.detach(); // dropping it would end the search
//! # }
//! ```
//!
//! | | finds | needs |
//! |---|---|---|
//! | [`NodeList`] | nodes that are named | – |
//! | [`EpmdHosts`] | the nodes that epmd knows on given hosts | – |
//! | [`ErlangHosts`] | the same, on the hosts in a file `.hosts.erlang` | – |
//! | `Dns` | `basename@address` of all addresses of a name | feature `discovery` |
//! | `Srv` | `basename@host` of all targets of an SRV record | feature `discovery` |
//! | `Kubernetes` | the pods behind a headless service | feature `discovery` |
//! | `KubernetesApi` | the pods or endpoints that have given labels, by Kubernetes' API | feature `kubernetes` |
//! | `Gossip` | whoever multicasts, as libcluster's `Cluster.Strategy.Gossip` does | feature `discovery` |

mod candidates;
#[cfg(feature = "discovery")]
mod dns;
mod driver;
mod epmd_hosts;
mod erlang_hosts;
#[cfg(feature = "discovery")]
mod gossip;
#[cfg(feature = "discovery")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod kubernetes_api;
mod names;
mod node_list;
mod pace;
#[cfg(feature = "discovery")]
mod resolver;
#[cfg(feature = "discovery")]
mod srv;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::node::Node;

pub use candidates::{MAX_CANDIDATES, MISSED_ANSWERS};
#[cfg(feature = "discovery")]
pub use dns::Dns;
pub use epmd_hosts::EpmdHosts;
pub use erlang_hosts::ErlangHosts;
#[cfg(feature = "discovery")]
pub use gossip::{GOSSIP_ADDRESS, GOSSIP_PORT, Gossip};
#[cfg(feature = "discovery")]
pub use kubernetes::{Kubernetes, PodNames};
#[cfg(feature = "kubernetes")]
pub use kubernetes_api::{KubernetesApi, KubernetesResource};
pub use node_list::NodeList;
#[cfg(feature = "discovery")]
pub use resolver::Resolver;
#[cfg(feature = "discovery")]
pub use srv::Srv;

/// Why nothing could be found. It is logged, and the search goes on after a pause that grows.
pub type DiscoveryError = Box<dyn Error + Send + Sync>;

/// A way to find nodes.
///
/// ```
/// use tiebeam_node::Node;
/// use tiebeam_node::discovery::{Discovery, DiscoveryError, Found};
///
/// /// The names in a file, one per line.
/// struct HostsFile(std::path::PathBuf);
///
/// impl Discovery for HostsFile {
///     fn describe(&self) -> String {
///         format!("file {}", self.0.display())
///     }
///
///     async fn find(&mut self, _node: &Node) -> Result<Found, DiscoveryError> {
///         let text = std::fs::read_to_string(&self.0)?;
///         Ok(Found::all(text.lines()))
///     }
/// }
/// ```
pub trait Discovery: Send + 'static {
    /// Where it looks, for the log: `dns app.internal`.
    fn describe(&self) -> String;

    /// The pause between two looks, unless [`Search::interval`] gives another one. Default 5 s. Zero for one that itself
    /// waits until there is something to find.
    fn interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// The nodes that there are now, for `node`. It may take as long as it needs; it is not asked again meanwhile. Names
    /// that are none, and the node's own, are passed over.
    ///
    /// # Cancel safety
    /// The future is dropped when the search ends, and then not called again.
    fn find(&mut self, node: &Node) -> impl Future<Output = Result<Found, DiscoveryError>> + Send;
}

/// What one look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Names of nodes, `alive@host`.
    pub nodes: Vec<String>,
    /// Whether these are all there are: one that is missing has vanished.
    pub complete: bool,
}

impl Found {
    /// All the nodes that there are.
    pub fn all(nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            nodes: nodes.into_iter().map(Into::into).collect(),
            complete: true,
        }
    }

    /// Some of the nodes: nothing is known of others.
    pub fn some(nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            complete: false,
            ..Self::all(nodes)
        }
    }
}

/// A [`Discovery`] and how it is used.
#[derive(Debug)]
pub struct Search<D> {
    discovery: D,
    interval: Option<Duration>,
    disconnect_vanished: bool,
}

impl<D: Discovery> Search<D> {
    /// With the discovery's own pace, and never disconnecting.
    pub fn new(discovery: D) -> Self {
        Self {
            discovery,
            interval: None,
            disconnect_vanished: false,
        }
    }

    /// The pause between two looks; a quarter more or less, so that the nodes of a cluster do not look in step. Leave it
    /// to a discovery that itself waits, such as gossip.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Disconnect a node that was found once, and is missing in [`MISSED_ANSWERS`] complete answers in succession. An
    /// answer without any node is none. Default false: a resolver that forgets a node is no reason to lose it, and with
    /// `prevent_overlapping_partitions` all nodes disconnect from one that one of them disconnects.
    pub fn disconnect_vanished(mut self, disconnect: bool) -> Self {
        self.disconnect_vanished = disconnect;
        self
    }
}

impl<D: Discovery> From<D> for Search<D> {
    fn from(discovery: D) -> Self {
        Self::new(discovery)
    }
}

/// A search that runs until this is dropped, or the node stops.
#[must_use = "dropping it ends the search: keep it, or let it run with detach()"]
pub struct Discovering(Option<AbortHandle>);

impl Discovering {
    pub(crate) fn new(task: Option<AbortHandle>) -> Self {
        Self(task)
    }

    /// Lets the search run as long as the node.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Discovering {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl fmt::Debug for Discovering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovering").finish_non_exhaustive()
    }
}

/// Runs a search until it is dropped.
pub(crate) async fn run<D: Discovery>(node: Node, search: Search<D>) {
    driver::run(node, search).await;
}
