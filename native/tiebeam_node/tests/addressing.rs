//! How nodes find one another without epmd, and over IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tiebeam_node::{Config, ConnectError, Cookie, EpmdMode, Node};

const SOON: Duration = Duration::from_secs(20);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn config(name: &str, listen: IpAddr) -> Config {
    Config::new(name, Cookie::new("secret"))
        .listen(listen)
        .epmd(EpmdMode::None, 0)
}

/// A port that is free at all these addresses.
fn free_port(addresses: &[IpAddr]) -> u16 {
    loop {
        let first = TcpListener::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if addresses[1..]
            .iter()
            .all(|&address| TcpListener::bind((address, port)).is_ok())
        {
            return port;
        }
    }
}

/// Whether this system has IPv6; says so if not.
fn has_ipv6() -> bool {
    let bound = TcpListener::bind((HOST_V6, 0));
    if let Err(error) = &bound {
        eprintln!("skipped: no IPv6 here ({error})");
    }
    bound.is_ok()
}

async fn stop(nodes: [Node; 2]) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_map_of_addresses_takes_the_place_of_epmd() {
    let a = Node::start(config("a@127.0.0.1", HOST)).await.unwrap();
    assert!(a.creation() > 3, "no creation that an epmd could give");
    // The address decides, not the host in the name.
    let b = config("b@192.0.2.7", HOST).address("a@127.0.0.1", SocketAddr::new(HOST, a.port()));
    let b = Node::start(b).await.unwrap();
    assert!(b.ping("a@127.0.0.1", SOON).await.is_ok());
    // The one that was dialled answers over the same connection.
    assert!(a.ping("b@192.0.2.7", SOON).await.is_ok());
    let unknown = b.connect("c@127.0.0.1").await;
    assert!(
        matches!(unknown, Err(ConnectError::NoAddress(peer)) if peer.as_str() == "c@127.0.0.1")
    );
    stop([b, a]).await;
}

#[tokio::test]
async fn all_nodes_may_share_a_port() {
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    if TcpListener::bind((other, 0)).is_err() {
        eprintln!("skipped: this system has one loopback address only");
        return;
    }
    let port = free_port(&[HOST, other]);
    let start = async |name: &str, listen| {
        Node::start(config(name, listen).common_port(port))
            .await
            .unwrap()
    };
    let a = start("a@127.0.0.1", HOST).await;
    let b = start("b@127.0.0.2", other).await;
    assert_eq!((a.port(), b.port()), (port, port));
    assert!(a.ping("b@127.0.0.2", SOON).await.is_ok());
    // A host where no node listens.
    let nobody = b.connect("c@127.0.0.3").await;
    assert!(
        matches!(nobody, Err(ConnectError::Unreachable { address, .. }) if address.port() == port)
    );
    stop([b, a]).await;
}

#[tokio::test]
async fn nodes_have_addresses_of_ipv6_in_their_names() {
    if !has_ipv6() {
        return;
    }
    let epmd = free_port(&[HOST, HOST_V6]);
    let start = async |name: &str, listen| {
        let config = config(name, listen).epmd(EpmdMode::Auto, epmd);
        Node::start(config).await.unwrap()
    };
    let a = start("a@::1", HOST_V6).await;
    let b = start("b@::1", HOST_V6).await;
    assert!(a.ping("b@::1", SOON).await.is_ok());
    assert_eq!(b.nodes(), [a.name().clone()]);
    // A node of IPv4 registers at the same epmd, and the two reach each other by the host in the name.
    let c = start("c@127.0.0.1", HOST).await;
    assert!(c.ping("a@::1", SOON).await.is_ok());
    c.stop().await;
    stop([b, a]).await;
}

#[tokio::test]
async fn a_node_on_all_addresses_of_ipv6_is_reached_over_both_families() {
    if !has_ipv6() {
        return;
    }
    let all = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let a = Node::start(config("a@localhost", all)).await.unwrap();
    for host in [HOST, HOST_V6] {
        let address = SocketAddr::new(host, a.port());
        let b = config("b@localhost", HOST).address("a@localhost", address);
        let b = Node::start(b).await.unwrap();
        assert!(b.ping("a@localhost", SOON).await.is_ok(), "{host}");
        b.stop().await;
    }
    a.stop().await;
}
