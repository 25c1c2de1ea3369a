//! The targets of an SRV record (RFC 2782).

use super::resolver::{Answer, Asking, asking_settings};
use super::{Discovery, DiscoveryError, Found, Resolver, names};
use crate::node::Node;

/// Nodes called `basename@host`, for the target of each SRV record of a name. Its port, priority and weight are not used:
/// nodes are asked for at epmd as usual.
#[derive(Clone, Debug)]
pub struct Srv {
    query: String,
    asking: Asking,
}

impl Srv {
    /// Asks for this name, `_app._tcp.example.org`. Without a dot at its end the system's search list is tried as well.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            asking: Asking::default(),
        }
    }

    asking_settings!();
}

impl Discovery for Srv {
    fn describe(&self) -> String {
        format!("srv {}", self.query)
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let basename = self.asking.basename(node);
        let Answer { records, complete } = self.asking.resolver.targets(&self.query).await?;
        let nodes = records.iter().map(|host| names::at_host(basename, host));
        Ok(Found {
            nodes: nodes.collect(),
            complete,
        })
    }
}
