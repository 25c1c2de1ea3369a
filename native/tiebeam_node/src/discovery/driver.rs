//! Carries out a search: asks, connects, disconnects. What it decides it decides in `candidates.rs` and `pace.rs`.

use std::collections::HashSet;
use std::time::Duration;

use tiebeam_wire::handshake::NodeName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::candidates::Candidates;
use super::{Discovery, Found, Search, pace};
use crate::node::Node;
use crate::transport::ConnectError;

/// Dials of one search under way at a time. One to a host that does not answer takes seconds; nodes beyond the limit are
/// dialled when they are found again.
const MAX_DIALS: usize = 64;

/// Ends with the node, or by being dropped.
pub(super) async fn run<D: Discovery>(node: Node, search: Search<D>) {
    let what = search.discovery.describe();
    let interval = search
        .interval
        .unwrap_or_else(|| search.discovery.interval());
    let (results, received) = mpsc::channel(1);
    tokio::select! {
        () = look(&node, search.discovery, interval, &what, results) => {}
        () = connect(&node, &what, search.disconnect_vanished, received) => {}
    }
}

/// Asks again and again. Waits while what was found is being taken.
async fn look<D: Discovery>(
    node: &Node,
    mut discovery: D,
    interval: Duration,
    what: &str,
    results: mpsc::Sender<Found>,
) {
    let mut failures = 0_u32;
    // Why it failed, as the log says already.
    let mut told = None;
    loop {
        match discovery.find(node).await {
            Ok(found) => {
                failures = 0;
                told = None;
                debug!(discovery = what, nodes = ?found.nodes, complete = found.complete, "found");
                if results.send(found).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let reason = error.to_string();
                if told.as_ref() != Some(&reason) {
                    warn!(
                        discovery = what,
                        "cannot look for nodes, trying again: {reason}"
                    );
                    told = Some(reason);
                }
            }
        }
        sleep(pace::pause(interval, failures, rand::random())).await;
    }
}

async fn connect(
    node: &Node,
    what: &str,
    disconnect_vanished: bool,
    mut received: mpsc::Receiver<Found>,
) {
    let start = Instant::now();
    let mut candidates = Candidates::default();
    let mut dials = JoinSet::new();
    // Names that are none are the same in every answer.
    let mut refused = false;
    loop {
        tokio::select! {
            found = received.recv() => {
                let Some(found) = found else { return };
                let mut nodes = Vec::with_capacity(found.nodes.len());
                for name in found.nodes {
                    match NodeName::parse(&name) {
                        Ok(name) if name.as_str() == node.name().as_str() => {}
                        Ok(name) => nodes.push(name),
                        Err(error) if !refused => {
                            warn!(discovery = what, "passed over, as all that are no names of nodes: {error}");
                            refused = true;
                        }
                        Err(_) => {}
                    }
                }
                let vanished = candidates.found(nodes, found.complete);
                if disconnect_vanished {
                    for name in vanished {
                        if node.disconnect(name.as_str()) {
                            info!(discovery = what, node = %name, "vanished, disconnected");
                        }
                    }
                }
                let connected = connected(node);
                let room = MAX_DIALS.saturating_sub(dials.len());
                for name in candidates.next_dials(start.elapsed(), room, |name| connected.contains(name.as_str())) {
                    dials.spawn(dial(node.clone(), name));
                }
            }
            Some(dialled) = dials.join_next() => {
                match dialled {
                    Ok((name, Ok(()))) => {
                        info!(discovery = what, node = %name, "connected");
                        candidates.reached(&name);
                    }
                    Ok((name, Err(error))) => {
                        let pause = |failures| pace::redial(failures, rand::random());
                        match candidates.failed(&name, start.elapsed(), pause) {
                            1 => warn!(discovery = what, "cannot connect, trying again: {error}"),
                            _ => debug!(discovery = what, "cannot connect: {error}"),
                        }
                    }
                    // It is not dialled again by this search.
                    Err(error) => warn!(discovery = what, "a dial failed: {error}"),
                }
            }
        }
    }
}

async fn dial(node: Node, name: NodeName) -> (NodeName, Result<(), ConnectError>) {
    let result = node.connect(name.as_str()).await;
    (name, result)
}

fn connected(node: &Node) -> HashSet<String> {
    let nodes = node.nodes().into_iter().chain(node.hidden_nodes());
    nodes.map(|name| name.as_str().to_owned()).collect()
}
