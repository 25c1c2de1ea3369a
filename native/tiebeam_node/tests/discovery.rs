//! Rust nodes that find one another, with name servers and multicast on loopback.

mod dns_server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dns_server::DnsServer;
use socket2::{Domain, SockAddr, Socket, Type};
use tiebeam_node::discovery::{
    Discovery, DiscoveryError, Dns, EpmdHosts, ErlangHosts, Found, GOSSIP_ADDRESS, Gossip,
    Kubernetes, NodeList, PodNames, Resolver, Search, Srv,
};
use tiebeam_node::{Config, Cookie, EpmdMode, Node};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks.
const OFTEN: Duration = Duration::from_millis(50);

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn config(name: &str) -> Config {
    Config::new(name, Cookie::new("secret"))
        .listen(IpAddr::V4(HOST))
        .epmd(EpmdMode::None, 0)
}

/// A node that knows where the others listen, whatever host is in their names.
async fn start(name: &str, others: &[&Node]) -> Node {
    let mut config = config(name);
    for other in others {
        let address = SocketAddr::from((HOST, other.port()));
        config = config.address(other.name().as_str(), address);
    }
    Node::start(config).await.unwrap()
}

async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !test() {
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_connected(node: &Node, expected: &[&str]) {
    until(&format!("{node:?} is connected to {expected:?}"), || {
        node.nodes() == expected
    })
    .await;
}

fn often<D: Discovery>(discovery: D) -> Search<D> {
    Search::new(discovery).interval(OFTEN)
}

async fn stop<const N: usize>(nodes: [Node; N]) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_list_of_nodes_is_kept_up_with() {
    let b = start("b@127.0.0.1", &[]).await;
    let port = b.port();
    let a = start("a@127.0.0.1", &[&b]).await;
    let list = ["a@127.0.0.1", "b@127.0.0.1", "nobody@127.0.0.1", "no name"];
    let _discovering = a.discover(often(NodeList::new(list)));
    until_connected(&a, &["b@127.0.0.1"]).await;
    b.stop().await;
    until_connected(&a, &[]).await;
    let b = Node::start(config("b@127.0.0.1").port(port)).await.unwrap();
    until_connected(&a, &["b@127.0.0.1"]).await;
    stop([a, b]).await;
}

#[tokio::test]
async fn epmd_tells_which_nodes_run_on_a_host() {
    let free = std::net::TcpListener::bind((HOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let with_epmd = |name: &str| config(name).epmd(EpmdMode::Auto, port).connect_all(false);
    let a = Node::start(with_epmd("a@127.0.0.1")).await.unwrap();
    let b = Node::start(with_epmd("app1@127.0.0.1")).await.unwrap();
    let c = Node::start(with_epmd("app2@127.0.0.1")).await.unwrap();
    let other = Node::start(with_epmd("shell@127.0.0.1")).await.unwrap();
    // Nobody listens at 127.0.0.9, and that hides nothing elsewhere.
    let hosts = EpmdHosts::new(["127.0.0.1", "127.0.0.9"]).matching("app*");
    let mut looked = hosts.clone();
    let mut found = looked.find(&a).await.unwrap();
    found.nodes.sort();
    assert_eq!(found, Found::some(["app1@127.0.0.1", "app2@127.0.0.1"]));
    let _discovering = a.discover(often(hosts));
    until_connected(&a, &["app1@127.0.0.1", "app2@127.0.0.1"]).await;
    assert!(looked.port(1).find(&a).await.is_err(), "no epmd anywhere");

    // The same hosts in a file, which is read at each look.
    let file = std::env::temp_dir().join(format!("tiebeam_hosts_{}", std::process::id()));
    let mut looked = ErlangHosts::new().file(&file).matching("app*");
    let error = looked.find(&a).await.unwrap_err().to_string();
    assert!(error.contains("tiebeam_hosts_"), "{error}");
    std::fs::write(&file, "% No hosts yet.\n").unwrap();
    let none = Found::all(Vec::<String>::new());
    assert_eq!(looked.find(&a).await.unwrap(), none);
    std::fs::write(&file, "'127.0.0.1'.\n'127.0.0.9'.\n").unwrap();
    let mut found = looked.find(&a).await.unwrap();
    found.nodes.sort();
    assert_eq!(found, Found::some(["app1@127.0.0.1", "app2@127.0.0.1"]));
    std::fs::remove_file(&file).unwrap();
    stop([other, c, b, a]).await;
}

#[tokio::test]
async fn addresses_in_dns_are_names_of_nodes() {
    let dns = DnsServer::start().await;
    dns.set_addresses(
        "app.internal",
        &["192.0.2.1", "192.0.2.2", "fd00::3", "192.0.2.9"],
    );
    let resolver = Resolver::name_servers([dns.address()]);
    let b = start("app@192.0.2.2", &[]).await;
    let c = start("app@fd00::3", &[&b]).await;
    let d = start("app@192.0.2.4", &[&b, &c]).await;
    let a = start("app@192.0.2.1", &[&b, &c, &d]).await;
    // The basename is the node's own.
    let discovering = a.discover(often(Dns::new("app.internal").resolver(resolver)));
    until_connected(&a, &["app@192.0.2.2", "app@fd00::3"]).await;
    dns.set_addresses("app.internal", &["192.0.2.4"]);
    until_connected(&a, &["app@192.0.2.2", "app@192.0.2.4", "app@fd00::3"]).await;
    drop(discovering);
    stop([a, b, c, d]).await;
}

#[tokio::test]
async fn what_dns_answers_is_all_there_is_or_a_part_of_it_or_an_error() {
    let dns = DnsServer::start().await;
    let node = start("app@192.0.2.1", &[]).await;
    let resolver = Resolver::name_servers([dns.address()]);
    let mut addresses = Dns::new("app.internal")
        .basename("x")
        .resolver(resolver.clone());
    let none = Found::all(Vec::<String>::new());
    assert_eq!(addresses.find(&node).await.unwrap(), none, "no such domain");
    dns.set_addresses("app.internal", &[]);
    assert_eq!(addresses.find(&node).await.unwrap(), none, "no such record");
    dns.set_addresses("app.internal", &["192.0.2.1", "fd00::3"]);
    let both = Found::all(["x@192.0.2.1", "x@fd00::3"]);
    assert_eq!(addresses.find(&node).await.unwrap(), both);
    dns.set_broken(true);
    let error = addresses.find(&node).await.unwrap_err().to_string();
    assert!(error.contains("app.internal"), "{error}");
    dns.set_broken(false);
    // What does not fit into a datagram is asked for again over TCP.
    dns.set_cut(true);
    let many: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    dns.set_addresses(
        "app.internal",
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let found = addresses.find(&node).await.unwrap();
    assert_eq!((found.nodes.len(), found.complete), (200, true));
    dns.set_targets("_app._tcp.internal", &["h1.internal.", "h2.internal."]);
    let mut targets = Srv::new("_app._tcp.internal").resolver(resolver);
    assert_eq!(
        targets.find(&node).await.unwrap(),
        Found::all(["app@h1.internal", "app@h2.internal"])
    );
    node.stop().await;
}

#[tokio::test]
async fn pods_of_a_headless_service_are_named_in_three_ways() {
    let dns = DnsServer::start().await;
    let name = "app-headless.prod.svc.cluster.local";
    dns.set_addresses(name, &["10.0.0.5", "10.0.0.6"]);
    dns.set_targets(name, &["app-0.app-headless.prod.svc.cluster.local."]);
    dns.set_addresses("here", &["10.0.0.7"]);
    let node = start("app@10.0.0.5", &[]).await;
    let resolver = Resolver::name_servers([dns.address()]);
    let service = Kubernetes::new("app-headless")
        .namespace("prod")
        .resolver(resolver.clone());
    for (names, expected) in [
        (PodNames::Address, vec!["app@10.0.0.5", "app@10.0.0.6"]),
        (
            PodNames::Pod,
            vec![
                "app@10-0-0-5.prod.pod.cluster.local",
                "app@10-0-0-6.prod.pod.cluster.local",
            ],
        ),
        (
            PodNames::Hostname,
            vec!["app@app-0.app-headless.prod.svc.cluster.local"],
        ),
    ] {
        let found = service.clone().names(names).find(&node).await.unwrap();
        assert_eq!(found, Found::all(expected));
    }
    let mut here = Kubernetes::new("here").basename("x").resolver(resolver);
    assert_eq!(here.find(&node).await.unwrap(), Found::all(["x@10.0.0.7"]));
    assert!(here.names(PodNames::Pod).find(&node).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_vanishes_from_dns_is_disconnected_only_if_told_so() {
    let dns = DnsServer::start().await;
    dns.set_addresses("app.internal", &["192.0.2.2", "192.0.2.3"]);
    let resolver = Resolver::name_servers([dns.address()]);
    let b = start("app@192.0.2.2", &[]).await;
    let c = start("app@192.0.2.3", &[]).await;
    let alone = |name: &str| {
        let to = |node: &Node| SocketAddr::from((HOST, node.port()));
        let config = config(name).connect_all(false);
        config
            .address("app@192.0.2.2", to(&b))
            .address("app@192.0.2.3", to(&c))
    };
    let strict = Node::start(alone("strict@192.0.2.1")).await.unwrap();
    let lenient = Node::start(alone("lenient@192.0.2.1")).await.unwrap();
    let dns_of = || {
        Dns::new("app.internal")
            .basename("app")
            .resolver(resolver.clone())
    };
    let _strict = strict.discover(often(dns_of()).disconnect_vanished(true));
    let _lenient = lenient.discover(often(dns_of()));
    for node in [&strict, &lenient] {
        until_connected(node, &["app@192.0.2.2", "app@192.0.2.3"]).await;
    }
    dns.set_addresses("app.internal", &["192.0.2.3"]);
    until_connected(&strict, &["app@192.0.2.3"]).await;
    assert_eq!(lenient.nodes(), ["app@192.0.2.2", "app@192.0.2.3"]);
    stop([strict, lenient, b, c]).await;
}

/// Finds nothing, and tells by what it holds whether it is still there.
struct Held(#[allow(dead_code)] Arc<()>);

impl Discovery for Held {
    fn describe(&self) -> String {
        "held".to_owned()
    }

    async fn find(&mut self, _node: &Node) -> Result<Found, DiscoveryError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_search_ends_with_its_handle_or_with_the_node() {
    let node = start("a@127.0.0.1", &[]).await;
    let search = |node: &Node| -> (_, Weak<()>) {
        let held = Arc::new(());
        let weak = Arc::downgrade(&held);
        (node.discover(Held(held)), weak)
    };
    let (dropped, of_dropped) = search(&node);
    let (detached, of_detached) = search(&node);
    let (kept, of_kept) = search(&node);
    drop(dropped);
    detached.detach();
    until("the dropped one is gone", || of_dropped.strong_count() == 0).await;
    assert_eq!((of_detached.strong_count(), of_kept.strong_count()), (1, 1));
    node.stop().await;
    until("all are gone", || {
        of_detached.strong_count() + of_kept.strong_count() == 0
    })
    .await;
    let (_late, of_late) = search(&node);
    assert_eq!(of_late.strong_count(), 0, "none on a node that has stopped");
    drop(kept);
}

/// A port for gossip on loopback, where nobody else is; `None`, with a line, where loopback has no multicast.
fn gossip_port() -> Option<u16> {
    let probe = || -> std::io::Result<u16> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.join_multicast_v4(&GOSSIP_ADDRESS, &HOST)?;
        socket.set_multicast_if_v4(&HOST)?;
        socket.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))))?;
        let port = socket
            .local_addr()?
            .as_socket()
            .expect("an IP socket")
            .port();
        let group = SockAddr::from(SocketAddr::from((GOSSIP_ADDRESS, port)));
        socket.send_to(b"probe", &group)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.recv(&mut [std::mem::MaybeUninit::uninit(); 16])?;
        Ok(port)
    };
    probe()
        .inspect_err(|error| eprintln!("skipped: no multicast on loopback ({error})"))
        .ok()
}

#[tokio::test]
async fn nodes_that_gossip_with_the_same_secret_find_one_another() {
    for secret in [None, Some("somepassword")] {
        let Some(port) = gossip_port() else { return };
        let gossip = |secret: Option<&str>| {
            let gossip = Gossip::new().port(port).interface(HOST);
            match secret {
                Some(secret) => gossip.secret(secret),
                None => gossip,
            }
        };
        let stranger = start("stranger@127.0.0.1", &[]).await;
        let b = start("b@127.0.0.1", &[&stranger]).await;
        let a = start("a@127.0.0.1", &[&b, &stranger]).await;
        let _other = stranger.discover(gossip(Some("another")));
        let _b = b.discover(gossip(secret));
        let _a = a.discover(gossip(secret));
        // What else comes to that port does no harm.
        let noise = std::net::UdpSocket::bind((HOST, 0)).unwrap();
        for junk in [&b""[..], b"heartbeat::", &[0xff; 16], &[0x55; 1400]] {
            noise.send_to(junk, (HOST, port)).unwrap();
        }
        until_connected(&a, &["b@127.0.0.1"]).await;
        until_connected(&b, &["a@127.0.0.1"]).await;
        assert!(stranger.nodes().is_empty());
        stop([a, b, stranger]).await;
    }
}
