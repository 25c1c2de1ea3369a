//! Connections that the cluster sets up in the background.

use std::collections::BTreeSet;
use std::future::pending;

use tiebeam_wire::Atom;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use crate::node::Node;

/// Dials under way at a time. One to a host that does not answer takes seconds; nodes beyond the limit are dialled at
/// their next greeting.
const MAX_DIALS: usize = 64;

/// The dials under way, at most one to a node.
#[derive(Debug, Default)]
pub(super) struct Dials {
    tasks: JoinSet<Atom>,
    /// The nodes of `tasks`.
    nodes: BTreeSet<Atom>,
}

impl Dials {
    /// Connects to a node, unless a dial to it is under way or too many others are.
    pub(super) fn start(&mut self, node: &Node, peer: Atom) {
        if self.nodes.len() >= MAX_DIALS || !self.nodes.insert(peer.clone()) {
            return;
        }
        let node = node.clone();
        self.tasks.spawn(async move {
            if let Err(error) = node.connect(peer.as_str()).await {
                debug!(%peer, "a member was not reached: {error}");
            }
            peer
        });
    }

    /// Completes when a dial has ended; never, while there is none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) {
        let dialled: Result<Atom, JoinError> = match self.tasks.join_next().await {
            Some(dialled) => dialled,
            None => return pending().await,
        };
        match dialled {
            Ok(peer) => drop(self.nodes.remove(&peer)),
            // It panicked, so whom it dialled is not known: all may be dialled again, which costs one dial too many.
            Err(error) => {
                warn!("a dial failed: {error}");
                self.nodes.clear();
            }
        }
    }
}
