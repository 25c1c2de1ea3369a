//! All addresses of a name, as libcluster's `Cluster.Strategy.DNSPoll` finds them.

use super::resolver::Answer;
use super::{Discovery, DiscoveryError, Found, Resolver, names};
use crate::node::Node;

/// Nodes called `basename@address`, for each A and AAAA record of a name.
#[derive(Clone, Debug)]
pub struct Dns {
    query: String,
    basename: Option<String>,
    resolver: Resolver,
}

impl Dns {
    /// Asks for this name, `app.internal`. Without a dot at its end the system's search list is tried as well.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            basename: None,
            resolver: Resolver::default(),
        }
    }

    /// What is before the `@`. Default: that of the node itself.
    pub fn basename(mut self, basename: impl Into<String>) -> Self {
        self.basename = Some(basename.into());
        self
    }

    /// Asks these name servers.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }
}

impl Discovery for Dns {
    fn describe(&self) -> String {
        format!("dns {}", self.query)
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let basename = self.basename.as_deref().unwrap_or(node.alive());
        let Answer { records, complete } = self.resolver.addresses(&self.query).await?;
        let nodes = records
            .into_iter()
            .map(|address| names::at_address(basename, address));
        Ok(Found {
            nodes: nodes.collect(),
            complete,
        })
    }
}
