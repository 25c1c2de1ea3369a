//! All addresses of a name, as libcluster's `Cluster.Strategy.DNSPoll` finds them.

use super::resolver::{Answer, Asking, asking_settings};
use super::{Discovery, DiscoveryError, Found, Resolver, names};
use crate::node::Node;

/// Nodes called `basename@address`, for each A and AAAA record of a name.
#[derive(Clone, Debug)]
pub struct Dns {
    query: String,
    asking: Asking,
}

impl Dns {
    /// Asks for this name, `app.internal`. Without a dot at its end the system's search list is tried as well.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            asking: Asking::default(),
        }
    }

    asking_settings!();
}

impl Discovery for Dns {
    fn describe(&self) -> String {
        format!("dns {}", self.query)
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let basename = self.asking.basename(node);
        let Answer { records, complete } = self.asking.resolver.addresses(&self.query).await?;
        let nodes = records
            .into_iter()
            .map(|address| names::at_address(basename, address));
        Ok(Found {
            nodes: nodes.collect(),
            complete,
        })
    }
}
