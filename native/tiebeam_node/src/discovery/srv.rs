//! The targets of an SRV record (RFC 2782).

use super::resolver::Answer;
use super::{Discovery, DiscoveryError, Found, Resolver, names};
use crate::node::Node;

/// Nodes called `basename@host`, for the target of each SRV record of a name. Its port, priority and weight are not used:
/// nodes are asked for at epmd as usual.
#[derive(Clone, Debug)]
pub struct Srv {
    query: String,
    basename: Option<String>,
    resolver: Resolver,
}

impl Srv {
    /// Asks for this name, `_app._tcp.example.org`. Without a dot at its end the system's search list is tried as well.
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

impl Discovery for Srv {
    fn describe(&self) -> String {
        format!("srv {}", self.query)
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let basename = self.basename.as_deref().unwrap_or(node.alive());
        let Answer { records, complete } = self.resolver.targets(&self.query).await?;
        let nodes = records.iter().map(|host| names::at_host(basename, host));
        Ok(Found {
            nodes: nodes.collect(),
            complete,
        })
    }
}
