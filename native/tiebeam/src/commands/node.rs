//! `tiebeam node`: a node that runs until it is told to stop.

use std::future::pending;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tiebeam_node::wire::handshake::NodeName;
use tiebeam_node::{ClusterConfig, Config, ConnectError, EpmdMode, Node};
use tracing::info;

use crate::arguments::{NodeArguments, Switch, seconds};
use crate::failure::Failure;
use crate::fixture;
use crate::status::{Server, Source};

pub(crate) async fn run(arguments: NodeArguments) -> Result<(), Failure> {
    let name = NodeName::parse(&arguments.name)?;
    let peers = peers(&name, &arguments.join)?;
    let config = Config::new(name.as_str(), arguments.cookie.read()?)
        .hidden(arguments.hidden)
        .net_ticktime(seconds(arguments.net_ticktime))
        .connect_all(arguments.connect_all)
        .prevent_overlapping_partitions(arguments.prevent_overlapping_partitions)
        .rejoin(arguments.rejoin);
    let mut config = arguments.network.apply_to(config);
    config.port = arguments.port.or(config.common_port).unwrap_or(0);
    config.epmd = match (arguments.epmd, config.common_port) {
        (Some(epmd), _) => epmd.into(),
        (None, Some(_)) => EpmdMode::None,
        (None, None) => EpmdMode::Auto,
    };
    if let Some(address) = arguments.listen.or_else(|| suitable(name.host())) {
        config.listen = address;
    }
    if let Some(tls) = &mut config.tls {
        tls.require_client_certificate = arguments.tls_require_client_cert;
    }
    let led = !arguments.voters.is_empty() || arguments.expect.is_some();
    let ended = ended()?;
    let status = match arguments.http {
        Some(address) => Some(Server::bind(address).await?),
        None => None,
    };
    let node = Node::start(config).await?;
    let stop = match arguments.fixture {
        true => Some(fixture::host(&node)?),
        false => None,
    };
    let cluster = match arguments.no_cluster {
        true => None,
        false => {
            let mut config = ClusterConfig::from(arguments.profile)
                .cluster(arguments.cluster)
                .join(peers.clone())
                .metadata(arguments.metadata.unwrap_or_default());
            if let Some(evict) = arguments.evict {
                config.evict = evict == Switch::On;
            }
            if !arguments.voters.is_empty() {
                config = config.voters(arguments.voters);
            }
            if let Some(voters) = arguments.expect {
                config = config.expect(voters);
            }
            if let Some(directory) = arguments.data_dir {
                config = config.data_dir(directory);
            }
            Some(node.cluster(config).await?)
        }
    };
    if let (true, Some(cluster)) = (arguments.fixture, &cluster) {
        fixture::host_member(&node, cluster);
    }
    let mut announced = None;
    if let (Some(cluster), false) = (&cluster, arguments.capability.is_empty()) {
        let capabilities = cluster.capabilities();
        announced = Some(capabilities.announce(arguments.capability).await?);
    }
    node.keep_connected(peers);
    for discover in arguments.discover {
        discover.start(&node);
    }
    ready(&node)?;
    let served = async {
        match status {
            Some(server) => {
                say(format_args!("http://{}/", server.address()))?;
                let source = Source::new(node.clone(), cluster.clone(), led);
                server.serve(source).await
            }
            None => pending().await,
        }
    };
    let stopped = async {
        match &stop {
            Some(stop) => stop.notified().await,
            None => pending().await,
        }
    };
    tokio::select! {
        signal = ended => info!(signal, "leaving"),
        () = stopped => info!("a node asked this one to stop"),
        failed = served => failed?,
    }
    if let Some(cluster) = cluster {
        cluster.leave().await;
    }
    drop(announced);
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

/// Where a node listens whose name has this host; `None` for the default. A node on a loopback address can be reached
/// there only, so it listens nowhere else.
fn suitable(host: &str) -> Option<IpAddr> {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => Some(address),
        Ok(IpAddr::V6(_)) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        Ok(IpAddr::V4(_)) => None,
        Err(_) => (host == "localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// The line that whoever started the program waits for.
fn ready(node: &Node) -> Result<(), Failure> {
    say(format_args!(
        "ready {} port={} pid={}",
        node.name(),
        node.port(),
        std::process::id()
    ))
}

fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{line}");
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
