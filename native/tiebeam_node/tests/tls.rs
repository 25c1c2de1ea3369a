//! Nodes inside TLS, over loopback: who meets whom, and why not.

mod certificates;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use certificates::Authority;
use tiebeam_node::{
    Binary, Config, ConnectError, Cookie, EpmdMode, HandshakeFailure, Node, NodeEvent, Signal,
    StartError, Term, TlsConfig, TlsError, TlsFailure,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(name: &str) -> Config {
    Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(HOST)
        .epmd(EpmdMode::None, 0)
}

fn secured(name: &str, tls: TlsConfig) -> Config {
    config(name).tls(tls)
}

/// A node that knows where `peer` listens.
async fn beside(peer: &Node, config: Config) -> Node {
    let address = SocketAddr::new(HOST, peer.port());
    let config = config.address(peer.name().as_str(), address);
    Node::start(config).await.unwrap()
}

fn failure(outcome: Result<(), ConnectError>) -> HandshakeFailure {
    match outcome {
        Err(ConnectError::Handshake { failure, .. }) => failure,
        outcome => panic!("a failed handshake expected: {outcome:?}"),
    }
}

/// What becomes of a connection between a node that listens and one that dials.
async fn dialled(listens: Config, dials: Config) -> Result<(), ConnectError> {
    let server = Node::start(listens).await.unwrap();
    let client = beside(&server, dials).await;
    let outcome = client.connect("a@127.0.0.1").await;
    match outcome {
        Ok(()) => assert!(client.ping("a@127.0.0.1", SOON).await.is_ok()),
        Err(_) => assert!(server.nodes().is_empty() && server.hidden_nodes().is_empty()),
    }
    client.stop().await;
    server.stop().await;
    outcome
}

/// A node that only asks others needs no certificate.
fn visitor(tls: TlsConfig) -> Config {
    secured("b", tls).epmd(EpmdMode::LookUpOnly, 0).hidden(true)
}

#[tokio::test]
async fn messages_of_every_size_pass_in_both_directions() {
    let authority = Authority::new();
    let tls = authority
        .member(&["127.0.0.1"])
        .require_client_certificate(true);
    let a = Node::start(secured("a", tls.clone())).await.unwrap();
    let b = beside(&a, secured("b", tls)).await;
    b.connect("a@127.0.0.1").await.unwrap();
    assert_eq!(a.nodes(), [b.name().clone()]);
    let (mut at_a, mut at_b) = (a.spawn("sizes").unwrap(), b.spawn("sizes").unwrap());
    // A frame in many records, and the fragments of a large message; both ways at once.
    for size in [0, 1, 16_384, 65_537, 3 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let term = Term::Binary(Binary::from(bytes));
        a.send(("sizes", "b@127.0.0.1"), term.clone()).unwrap();
        b.send(("sizes", "a@127.0.0.1"), term.clone()).unwrap();
        for process in [&mut at_a, &mut at_b] {
            match timeout(SOON, process.recv()).await.unwrap() {
                Some(Signal::Message(received)) => assert!(received == term, "{size} bytes"),
                other => panic!("a message expected: {other:?}"),
            }
        }
    }
    // A clean end reaches the other side, and a new connection is made.
    let mut events = a.monitor_nodes();
    assert!(b.disconnect("a@127.0.0.1"));
    assert!(matches!(
        timeout(SOON, events.recv()).await.unwrap(),
        Some(NodeEvent::Down { node, .. }) if node == *b.name()
    ));
    assert!(b.ping("a@127.0.0.1", SOON).await.is_ok());
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn authorities_must_agree() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let hosts = &["127.0.0.1"];
    let listens = || secured("a", ours.member(hosts).require_client_certificate(true));

    let trusts_nobody_here = secured("b", theirs.member(hosts));
    let failed = failure(dialled(listens(), trusts_nobody_here).await);
    let HandshakeFailure::Tls(TlsFailure::Certificate(reason)) = &failed else {
        panic!("{failed:?}");
    };
    assert!(
        reason.contains("no authority that this node knows"),
        "{reason}"
    );

    let signed_elsewhere = secured("b", theirs.certify(ours.trust(), hosts, 4000));
    let failed = failure(dialled(listens(), signed_elsewhere).await);
    let HandshakeFailure::Tls(TlsFailure::Alert(reason)) = &failed else {
        panic!("{failed:?}");
    };
    assert!(reason.contains("does not know the authority"), "{reason}");

    assert!(
        dialled(listens(), secured("b", ours.member(hosts)))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_certificate_of_the_one_who_dials_is_required_or_not() {
    let authority = Authority::new();
    let member = authority.member(&["127.0.0.1"]);
    let open = secured("a", member.clone());
    assert!(dialled(open, visitor(authority.trust())).await.is_ok());
    let closed = secured("a", member.require_client_certificate(true));
    let failed = failure(dialled(closed, visitor(authority.trust())).await);
    let HandshakeFailure::Tls(TlsFailure::Alert(reason)) = &failed else {
        panic!("{failed:?}");
    };
    assert!(reason.contains("requires a certificate"), "{reason}");
}

#[tokio::test]
async fn the_host_is_looked_for_in_the_certificate_unless_told_not_to() {
    let authority = Authority::new();
    let elsewhere = || secured("a", authority.member(&["other.example", "127.0.0.2"]));
    let member = authority.member(&["127.0.0.1"]);
    let failed = failure(dialled(elsewhere(), secured("b", member.clone())).await);
    let HandshakeFailure::Tls(TlsFailure::Certificate(reason)) = &failed else {
        panic!("{failed:?}");
    };
    assert!(reason.contains("not made out for the host"), "{reason}");
    let anywhere = secured("b", member.verify_host(false));
    assert!(dialled(elsewhere(), anywhere.clone()).await.is_ok());

    // The rest is still verified.
    let stranger = Authority::new();
    let failed = failure(
        dialled(
            secured("a", stranger.member(&["127.0.0.1"])),
            anywhere.clone(),
        )
        .await,
    );
    assert!(failed.to_string().contains("no authority"), "{failed}");
    let old = authority.certify(authority.trust(), &["other.example"], 2020);
    let failed = failure(dialled(secured("a", old), anywhere).await);
    assert!(failed.to_string().contains("expired"), "{failed}");
}

#[tokio::test]
async fn the_host_of_one_who_dials_is_not_looked_for() {
    let authority = Authority::new();
    let listens = authority
        .member(&["127.0.0.1"])
        .require_client_certificate(true);
    let named_otherwise = authority.member(&["other.example"]);
    assert!(
        dialled(secured("a", listens), secured("b", named_otherwise))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_cluster_is_all_inside_tls_or_all_outside() {
    let authority = Authority::new();
    let member = || authority.member(&["127.0.0.1"]);
    let failed = failure(dialled(config("a"), secured("b", member())).await);
    assert!(
        matches!(failed, HandshakeFailure::Tls(TlsFailure::Closed)),
        "{failed:?}"
    );
    let failed = failure(dialled(secured("a", member()), config("b")).await);
    assert!(failed.to_string().contains("one side uses TLS"), "{failed}");
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_the_start() {
    let authority = Authority::new();
    let whole = authority.member(&["127.0.0.1"]);
    let (certificate, key) = whole.identity.clone().unwrap();
    let other_key = authority.member(&["127.0.0.1"]).identity.unwrap().1;
    let start = async |tls: TlsConfig| match Node::start(secured("a", tls)).await {
        Err(StartError::Tls(error)) => error,
        outcome => panic!("an error of TLS expected: {outcome:?}"),
    };
    let missing = start(TlsConfig::new("/nonexistent/ca.pem")).await;
    assert!(matches!(missing, TlsError::Read { .. }), "{missing}");
    let no_certificate = start(TlsConfig::new(&key)).await;
    assert!(
        matches!(no_certificate, TlsError::Empty { .. }),
        "{no_certificate}"
    );
    let no_key = start(authority.trust().identity(&certificate, &certificate)).await;
    assert!(
        matches!(
            no_key,
            TlsError::Empty {
                wanted: "private key",
                ..
            }
        ),
        "{no_key}"
    );
    let apart = start(authority.trust().identity(&certificate, &other_key)).await;
    assert!(matches!(apart, TlsError::Identity { .. }), "{apart}");
    let none = start(authority.trust()).await;
    assert!(matches!(none, TlsError::NoIdentity), "{none}");
}

/// The clock of this test jumps whenever all wait.
#[tokio::test(start_paused = true)]
async fn peers_that_stall_in_the_tls_handshake_are_dropped() {
    let authority = Authority::new();
    let tls = authority.member(&["127.0.0.1"]);
    let a = Node::start(secured("a", tls)).await.unwrap();
    // Nothing at all, and the beginning of a record.
    for bytes in [&b""[..], b"\x16\x03\x01"] {
        let before = Instant::now();
        let mut stalled = TcpStream::connect((HOST, a.port())).await.unwrap();
        stalled.write_all(bytes).await.unwrap();
        // A reset is as good as an end.
        let read = stalled.read(&mut [0; 16]).await.unwrap_or(0);
        assert_eq!(read, 0);
        let after = before.elapsed();
        assert!((6.9..8.0).contains(&after.as_secs_f64()), "{after:?}");
    }
    a.stop().await;
}

#[tokio::test]
async fn stalled_peers_leave_room_for_others() {
    let authority = Authority::new();
    let tls = authority.member(&["127.0.0.1"]);
    let a = Node::start(secured("a", tls.clone())).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..400 {
        stalled.push(TcpStream::connect((HOST, a.port())).await.unwrap());
    }
    let b = beside(&a, secured("b", tls)).await;
    assert!(b.ping("a@127.0.0.1", SOON).await.is_ok());
    b.stop().await;
    a.stop().await;
}
