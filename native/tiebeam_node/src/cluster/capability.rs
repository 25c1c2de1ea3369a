//! What each node of a cluster can do, announced to all: a gate for rolling upgrades.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use tiebeam_core::{Kind, NodeName, Status};
use tiebeam_wire::{Atom, Pid};
use tokio::sync::watch;

use crate::cluster::handle::ClusterHandle;
use crate::cluster::name::Name;
use crate::cluster::registry::RegistryError;

/// What the nodes of a cluster can do. Clones are the same.
///
/// A release that understands something new says so, and does it only once all others do as well:
///
/// ```no_run
/// # async fn run(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let capabilities = cluster.capabilities().version("1.4.0");
/// let announcement = capabilities.announce(["orders.v2"]).await?;
/// if capabilities.everywhere("orders.v2") {
///     // sends what only those understand
/// }
/// drop(announcement); // it can that no more
/// # Ok(())
/// # }
/// ```
///
/// A node that announces nothing can do nothing of that name: nodes of releases before this keep the gate closed. BEAM nodes announce by
/// `Tiebeam.Capabilities`.
///
/// It is a view of this node, and nothing that is agreed upon: it knows what was announced about a round trip later, on either side of a
/// split the members that are seen there open the gate, and a node of an old release that starts later closes it again.
#[derive(Clone)]
pub struct Capabilities {
    cluster: ClusterHandle,
    version: Option<String>,
}

/// What a node announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Announced {
    /// The version of Tiebeam.
    pub tiebeam: String,
    /// The version of the application, where it said one.
    pub version: Option<String>,
    /// What it can do: of all its announcements.
    pub capabilities: BTreeSet<String>,
}

impl ClusterHandle {
    /// What the nodes of the cluster can do, and what this one says of itself.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            cluster: self.clone(),
            version: None,
        }
    }
}

impl Capabilities {
    /// Announces this version of the application, too.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Tells all nodes that this one can do these, for as long as the announcement is kept. A node may have several.
    ///
    /// # Errors
    /// As [`Groups::join_with`](crate::Groups::join_with): they are metadata, at most [`MAX_META_BYTES`](crate::MAX_META_BYTES) together.
    ///
    /// # Cancel safety
    /// Dropping the future announces nothing.
    pub async fn announce<S: Into<String>>(
        &self,
        capabilities: impl IntoIterator<Item = S>,
    ) -> Result<Announcement, RegistryError> {
        let said = Announced {
            tiebeam: env!("CARGO_PKG_VERSION").to_owned(),
            version: self.version.clone(),
            capabilities: capabilities.into_iter().map(Into::into).collect(),
        };
        let node = self.cluster.node();
        let process = node.spawn_anonymous().map_err(|_| RegistryError::Ended)?;
        let (kept, mut dropped) = watch::channel(());
        let pid = node.run(process, |mut process| async move {
            loop {
                tokio::select! {
                    // Nobody has a reason to send it anything.
                    signal = process.recv() => if signal.is_none() { return Ok(()) },
                    _ = dropped.changed() => return Ok(()),
                }
            }
        });
        let announcement = Announcement { pid, _kept: kept };
        let groups = self.cluster.groups();
        groups
            .join_with(group(), &announcement.pid, &said)
            .await
            .map(|()| announcement)
    }

    /// What a node announced; `None` if nothing. Reads a local table, never waits, as all that follow.
    pub fn of(&self, node: &str) -> Option<Announced> {
        let node = NodeName::parse(node).ok()?;
        self.announced().remove(&node)
    }

    /// Whether all members that run Tiebeam, and are alive or suspect, have a capability.
    pub fn everywhere(&self, capability: &str) -> bool {
        self.missing(capability).is_empty()
    }

    /// Those of these members that lack a capability, in order.
    pub fn missing(&self, capability: &str) -> Vec<NodeName> {
        let announced = self.announced();
        let has = |node| {
            announced
                .get(node)
                .is_some_and(|said| said.capabilities.contains(capability))
        };
        let members = self.cluster.members();
        members
            .iter()
            .filter(|member| member.kind != Kind::Plain)
            .filter(|member| matches!(member.status, Status::Alive | Status::Suspect))
            .filter(|member| !has(&member.node))
            .map(|member| member.node.clone())
            .collect()
    }

    /// The nodes that have a capability, in order.
    pub fn nodes(&self, capability: &str) -> Vec<NodeName> {
        let announced = self.announced().into_iter();
        announced
            .filter(|(_, said)| said.capabilities.contains(capability))
            .map(|(node, _)| node)
            .collect()
    }

    fn announced(&self) -> BTreeMap<NodeName, Announced> {
        let mut nodes: BTreeMap<NodeName, Announced> = BTreeMap::new();
        for member in self.cluster.groups().members(group()) {
            // Another program may have said anything.
            let Ok(said) = member.meta::<Announced>() else {
                continue;
            };
            let node = nodes.entry(member.node).or_default();
            node.tiebeam = said.tiebeam;
            node.version = said.version.or(node.version.take());
            node.capabilities.extend(said.capabilities);
        }
        nodes
    }
}

/// Of all nodes, BEAM or Rust.
fn group() -> Name {
    Name::from((Atom::of("tiebeam"), Atom::of("capabilities")))
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capabilities")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What this node says that it can do, until it is dropped.
#[must_use = "dropped, it is taken back"]
pub struct Announcement {
    pid: Pid,
    _kept: watch::Sender<()>,
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}
