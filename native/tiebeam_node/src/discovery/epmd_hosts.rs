//! The nodes that epmd knows on given hosts, as OTP's `net_adm:world/0` finds them.

use std::net::SocketAddr;

use tiebeam_wire::epmd::NamesResponse;
use tokio::net::lookup_host;
use tokio::task::JoinSet;

use super::{Discovery, DiscoveryError, Found, names};
use crate::epmd;
use crate::node::Node;

/// Addresses of one host that are asked in turn, until one answers.
const MAX_ADDRESSES: usize = 4;

/// Asks the epmd of each host which nodes run there. They are called `alive@host` with the host as it is given here, so
/// write it as it is in the names of nodes.
///
/// epmd does not tell hidden nodes from visible ones: shells and tools are found as well, unless
/// [`EpmdHosts::matching`] says which names are meant.
#[derive(Clone, Debug)]
pub struct EpmdHosts {
    hosts: Vec<String>,
    pattern: String,
    port: Option<u16>,
}

impl EpmdHosts {
    /// Finds all nodes of these hosts.
    pub fn new(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            pattern: "*".to_owned(),
            port: None,
        }
    }

    /// Finds only nodes with this name before the `@`, or, if it ends with `*`, with names that begin so.
    pub fn matching(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// The port of epmd on all these hosts. Default: that of the node itself.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The same on other hosts.
    pub(super) fn with_hosts(&self, hosts: Vec<String>) -> Self {
        Self {
            hosts,
            ..self.clone()
        }
    }
}

impl Discovery for EpmdHosts {
    fn describe(&self) -> String {
        format!("epmd {}", self.hosts.join(","))
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let port = self.port.unwrap_or_else(|| node.epmd_port());
        let mut asked = JoinSet::new();
        for host in self.hosts.iter().cloned() {
            asked.spawn(async move {
                let answer = ask(&host, port).await;
                (host, answer)
            });
        }
        let mut found = Found::all(Vec::<String>::new());
        let mut failure = None;
        for (host, answer) in asked.join_all().await {
            match answer {
                Ok(answer) => {
                    let alive = answer.nodes.into_iter().map(|entry| entry.name);
                    let meant = alive.filter(|alive| names::matches(&self.pattern, alive));
                    found
                        .nodes
                        .extend(meant.map(|alive| names::at_host(&alive, &host)));
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            // A host that is down hides its nodes, no others.
            Some(_) if !found.nodes.is_empty() => found.complete = false,
            Some(error) => return Err(error),
            None => {}
        }
        Ok(found)
    }
}

async fn ask(host: &str, port: u16) -> Result<NamesResponse, DiscoveryError> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| format!("the host {host} has no address: {error}"))?
        .take(MAX_ADDRESSES)
        .collect();
    let mut failure = format!("the host {host} has no address").into();
    for address in addresses {
        match epmd::names(address).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}
