//! Nodes that are named: looked for until they are there, and again when they are lost.

use super::{Discovery, DiscoveryError, Found};
use crate::node::Node;

/// The nodes of a list, such as a cluster's seeds. The own name is passed over, so that all nodes can share one list.
#[derive(Clone, Debug)]
pub struct NodeList(Vec<String>);

impl NodeList {
    /// Finds these nodes, `alive@host`.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(nodes.into_iter().map(Into::into).collect())
    }
}

impl Discovery for NodeList {
    fn describe(&self) -> String {
        "static".to_owned()
    }

    async fn find(&mut self, _node: &Node) -> Result<Found, DiscoveryError> {
        Ok(Found::all(self.0.iter().cloned()))
    }
}
