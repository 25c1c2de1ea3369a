//! `tiebeam node`: a node that runs until it is told to stop.

use std::future::pending;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use tiebeam_node::wire::handshake::NodeName;
use tiebeam_node::{ClusterConfig, Config, ConnectError, Node};
use tracing::info;

use crate::arguments::{NodeArguments, seconds};
use crate::failure::Failure;
use crate::fixture;

pub(crate) async fn run(arguments: NodeArguments) -> Result<(), Failure> {
    let name = NodeName::parse(&arguments.name)?;
    let peers = peers(&name, &arguments.join)?;
    let mut config = Config::new(name.as_str(), arguments.cookie.read()?)
        .hidden(arguments.hidden)
        .port(arguments.port)
        .net_ticktime(seconds(arguments.net_ticktime));
    config.epmd = arguments.epmd.into();
    if let Some(address) = loopback(name.host()) {
        config.listen = address;
    }
    let ended = ended()?;
    let node = Node::start(config).await?;
    let stop = match arguments.fixture {
        true => Some(fixture::host(&node)?),
        false => None,
    };
    let cluster = match arguments.no_cluster {
        true => None,
        false => {
            let config = ClusterConfig::default().cluster(arguments.cluster);
            Some(node.cluster(config.join(peers.clone())).await?)
        }
    };
    node.keep_connected(peers);
    ready(&node)?;
    let stopped = async {
        match &stop {
            Some(stop) => stop.notified().await,
            None => pending().await,
        }
    };
    tokio::select! {
        signal = ended => info!(signal, "leaving"),
        () = stopped => info!("a node asked this one to stop"),
    }
    if let Some(cluster) = cluster {
        cluster.leave().await;
    }
    node.stop().await;
    Ok(())
}

/// The nodes to join, if a node of this name can connect to them at all.
fn peers(own: &NodeName, join: &[String]) -> Result<Vec<String>, Failure> {
    join.iter()
        .map(|peer| {
            let peer = NodeName::parse(peer)?;
            if peer == *own {
                return Err(ConnectError::OwnName(peer).into());
            }
            if peer.form() != own.form() {
                let own = own.clone();
                return Err(ConnectError::NameForm { peer, own }.into());
            }
            Ok(peer.as_str().to_owned())
        })
        .collect()
}

/// A node on a loopback address can be reached there only, so it listens nowhere else.
fn loopback(host: &str) -> Option<IpAddr> {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => Some(address),
        Ok(_) => None,
        Err(_) => (host == "localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// The line that whoever started the program waits for.
fn ready(node: &Node) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(
        stdout,
        "ready {} port={} pid={}",
        node.name(),
        node.port(),
        std::process::id()
    );
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
}

/// Completes when the program is told to end, with the signal's name. Signals are taken from the call on, not only
/// once this is awaited.
#[cfg(unix)]
pub(crate) fn ended() -> Result<impl Future<Output = &'static str>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

#[cfg(not(unix))]
pub(crate) fn ended() -> Result<impl Future<Output = &'static str>, Failure> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => pending().await,
        }
    })
}
