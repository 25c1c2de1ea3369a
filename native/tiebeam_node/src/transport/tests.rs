//! Two nodes and a stranger: over streams in memory with a clock that jumps, and over loopback.

mod otp;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::listen::{Rejected, accept};
use super::*;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(name: &str) -> TransportConfig {
    TransportConfig {
        name: NodeName::parse(name).unwrap(),
        cookie: "ck".into(),
        peer_cookies: HashMap::new(),
        flags: Flags::OFFERED,
        listen: HOST,
        ports: 0..=0,
        epmd: EpmdMode::None,
        epmd_port: 0,
        addresses: HashMap::new(),
        common_port: None,
        tls: None,
        setup_time: SETUP_TIME,
        max_unauthenticated: MAX_UNAUTHENTICATED,
        max_unauthenticated_per_address: MAX_UNAUTHENTICATED_PER_ADDRESS,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Up(String, ConnectionId),
    Superseded(String, ConnectionId),
}

/// Keeps the connections and notes what happened in which order.
#[derive(Debug, Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    connections: Mutex<HashMap<ConnectionId, Established>>,
    changed: Notify,
}

impl Hub for Recorder {
    async fn up(&self, established: Established) {
        let event = Event::Up(established.peer.clone(), established.id);
        lock(&self.connections).insert(established.id, established);
        lock(&self.events).push(event);
        self.changed.notify_waiters();
    }

    async fn supersede(&self, peer: &str, id: ConnectionId) {
        lock(&self.connections).remove(&id);
        lock(&self.events).push(Event::Superseded(peer.to_owned(), id));
        self.changed.notify_waiters();
    }
}

impl Recorder {
    fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    fn take(&self, id: ConnectionId) -> Established {
        lock(&self.connections).remove(&id).expect("a connection")
    }

    /// Waits until `count` things have happened.
    async fn await_events(&self, count: usize) -> Vec<Event> {
        let happened = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.events().len() >= count {
                    return self.events();
                }
                changed.await;
            }
        };
        timeout(Duration::from_secs(20), happened)
            .await
            .unwrap_or_else(|_| panic!("{count} events expected: {:?}", self.events()))
    }
}

fn tcp(established: &mut Established) -> &mut TcpStream {
    match &mut established.stream {
        Stream::Tcp(stream) => stream,
        Stream::Tls(_) => panic!("not asked for"),
    }
}

async fn node(config: TransportConfig) -> (Transport, Arc<Recorder>) {
    let hub = Arc::new(Recorder::default());
    let listening = Transport::start(config).await.unwrap();
    let transport = listening.open(Arc::clone(&hub));
    (transport, hub)
}

/// Two nodes that know each other's address.
async fn two_nodes(a: &str, b: &str) -> [(Transport, Arc<Recorder>); 2] {
    let (mut config_a, mut config_b) = (config(a), config(b));
    let listener = |_| std::net::TcpListener::bind((HOST, 0)).unwrap();
    let ports = [0, 1]
        .map(listener)
        .map(|listener| listener.local_addr().unwrap().port());
    for (at, config) in [&mut config_a, &mut config_b].into_iter().enumerate() {
        config.ports = ports[at]..=ports[at];
        for (name, port) in [(a, ports[0]), (b, ports[1])] {
            let address = SocketAddr::new(HOST, port);
            config.addresses.insert(name.to_owned(), address);
        }
    }
    [node(config_a).await, node(config_b).await]
}

/// A peer that does what a test tells it, on a stream in memory.
struct Stranger {
    stream: DuplexStream,
    accepted: tokio::task::JoinHandle<Result<ConnectionId, Rejected>>,
}

impl Stranger {
    fn new(transport: &Transport) -> Stranger {
        let (stream, ours) = duplex(4096);
        let inner = Arc::clone(&transport.inner);
        let accepted = tokio::spawn(async move {
            let (place, _evicted) = inner.room.enter(HOST);
            let (opening, _handshaken) = accept(&inner, ours, place).await?;
            let id = opening.id();
            opening.opened();
            Ok(id)
        });
        Stranger { stream, accepted }
    }

    async fn send(&mut self, body: &[u8]) {
        self.stream.write_u16(body.len() as u16).await.unwrap();
        self.stream.write_all(body).await.unwrap();
    }

    async fn send_name(&mut self, name: &str) {
        let mut body = vec![b'N'];
        body.extend_from_slice(&Flags::OFFERED.bits().to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 9, 0, name.len() as u8]);
        body.extend_from_slice(name.as_bytes());
        self.send(&body).await;
    }

    async fn receive(&mut self) -> Vec<u8> {
        let length = self.stream.read_u16().await.unwrap();
        let mut body = vec![0; usize::from(length)];
        self.stream.read_exact(&mut body).await.unwrap();
        body
    }

    async fn prove(&mut self, cookie: &str, challenge: &[u8]) {
        let challenge = u32::from_be_bytes(challenge[9..13].try_into().unwrap());
        let mut body = vec![b'r', 0, 0, 0, 1];
        body.extend_from_slice(&tiebeam_wire::handshake::digest(cookie, challenge));
        self.send(&body).await;
    }
}

/// The three points at which a peer may stall, each with its own time limit.
#[tokio::test(start_paused = true)]
async fn a_stalled_peer_is_dropped_after_the_setup_time_of_each_step() {
    let (transport, hub) = node(config("m@h")).await;
    for steps in 0..3 {
        let mut stranger = Stranger::new(&transport);
        tokio::time::sleep(Duration::from_secs(u64::from(steps > 0) * 5)).await;
        if steps > 0 {
            stranger.send_name("a@h").await;
            assert_eq!(stranger.receive().await, b"sok");
            stranger.receive().await;
        }
        if steps > 1 {
            // A byte now and then does not help.
            stranger.stream.write_all(&[0, 21, b'r']).await.unwrap();
            tokio::time::sleep(Duration::from_secs(6)).await;
            stranger.stream.write_all(&[0]).await.unwrap();
        }
        let before = Instant::now();
        let rejected = stranger.accepted.await.unwrap().unwrap_err();
        assert!(
            matches!(rejected, Rejected::Failed(HandshakeFailure::Timeout { .. })),
            "{rejected}"
        );
        let expected = if steps > 1 { 1 } else { 7 };
        assert_eq!(before.elapsed().as_secs(), expected, "after {steps} steps");
        assert!(
            transport.inner.slots.is_free("a@h"),
            "the slot is free again"
        );
    }
    assert_eq!(hub.events(), []);
}

#[tokio::test]
async fn a_thousand_stalled_sockets_do_not_keep_a_node_out() {
    let [(a, _), (b, hub)] = two_nodes("a@127.0.0.1", "b@127.0.0.1").await;
    let mut stalled = Vec::new();
    for _ in 0..1000 {
        let stream = TcpStream::connect((HOST, b.port())).await.unwrap();
        stalled.push(stream);
    }
    a.connect("b@127.0.0.1").await.unwrap();
    assert_eq!(hub.await_events(1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_cookie_frees_the_slot_and_the_right_one_gets_it() {
    let (transport, _) = node(config("m@h")).await;
    for (cookie, good) in [("wrong", false), ("ck", true)] {
        let mut stranger = Stranger::new(&transport);
        stranger.send_name("a@h").await;
        assert_eq!(stranger.receive().await, b"sok");
        let challenge = stranger.receive().await;
        stranger.prove(cookie, &challenge).await;
        if good {
            assert_eq!(stranger.receive().await[0], b'a');
        }
        assert_eq!(stranger.accepted.await.unwrap().is_ok(), good);
        assert_eq!(transport.inner.slots.is_free("a@h"), !good);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cookie_of_its_own_for_a_peer() {
    let mut config = config("m@h");
    config.peer_cookies.insert("a@h".into(), "own".into());
    let (transport, _) = node(config).await;
    for (name, cookie) in [("a@h", "own"), ("b@h", "ck")] {
        let mut stranger = Stranger::new(&transport);
        stranger.send_name(name).await;
        assert_eq!(stranger.receive().await, b"sok");
        let challenge = stranger.receive().await;
        stranger.prove(cookie, &challenge).await;
        assert!(stranger.accepted.await.unwrap().is_ok(), "{name}");
    }
}

/// The peer was restarted, or sees the connection as dead: it says so by dialling again.
#[tokio::test(start_paused = true)]
async fn the_old_connection_is_down_before_the_new_one_is_acknowledged() {
    let (transport, hub) = node(config("m@h")).await;
    let mut ids = Vec::new();
    for round in 0..2 {
        let mut stranger = Stranger::new(&transport);
        stranger.send_name("a@h").await;
        if round > 0 {
            assert_eq!(stranger.receive().await, b"salive");
            assert_eq!(hub.events(), []);
            stranger.send(b"strue").await;
        } else {
            assert_eq!(stranger.receive().await, b"sok");
        }
        let challenge = stranger.receive().await;
        stranger.prove("ck", &challenge).await;
        assert_eq!(stranger.receive().await[0], b'a');
        if round > 0 {
            // The acknowledgement is here, so the old connection is gone.
            assert_eq!(hub.events(), [Event::Superseded("a@h".into(), ids[0])]);
        }
        ids.push(stranger.accepted.await.unwrap().unwrap());
    }
    // `false` or a failure leaves the connection as it is.
    for answer in [&b"sfalse"[..], b"smaybe"] {
        let mut stranger = Stranger::new(&transport);
        stranger.send_name("a@h").await;
        assert_eq!(stranger.receive().await, b"salive");
        stranger.send(answer).await;
        assert!(stranger.accepted.await.unwrap().is_err());
    }
    assert_eq!(hub.events().len(), 1);
    assert_eq!(transport.connect("a@h").await.unwrap(), ids[1]);
}

#[tokio::test(start_paused = true)]
async fn peers_without_a_name_get_one_that_is_used_again_with_the_next_creation() {
    let (transport, _) = node(config("m@h")).await;
    let mut given = Vec::new();
    for _ in 0..2 {
        let mut stranger = Stranger::new(&transport);
        let mut body = vec![b'N'];
        let flags = Flags::OFFERED_HIDDEN | Flags::NAME_ME;
        body.extend_from_slice(&flags.bits().to_be_bytes());
        body.extend_from_slice(b"\0\0\0\0\0\x02h2");
        stranger.send(&body).await;
        let status = stranger.receive().await;
        assert_eq!(&status[..7], b"snamed:");
        let (name, creation) = status[9..].split_at(status.len() - 13);
        let name = String::from_utf8(name.to_vec()).unwrap();
        assert!(name.ends_with("@h2"), "{name}");
        let challenge = stranger.receive().await;
        stranger.prove("ck", &challenge).await;
        let id = stranger.accepted.await.unwrap().unwrap();
        let creation = u32::from_be_bytes(creation.try_into().unwrap());
        given.push((name.clone(), creation));
        transport.down(&name, id);
    }
    assert_eq!(given[0].0, given[1].0);
    assert_eq!(given[0].1 + 1, given[1].1);
}

#[tokio::test]
async fn both_sides_get_the_same_connection_and_the_bytes_behind_the_handshake() {
    let [(a, hub_a), (b, hub_b)] = two_nodes("a@127.0.0.1", "b@127.0.0.1").await;
    let id = a.connect("b@127.0.0.1").await.unwrap();
    assert_eq!(a.connect("b@127.0.0.1").await.unwrap(), id, "it is up");
    let mut at_a = hub_a.take(id);
    let sent = tcp(&mut at_a).write_all(b"\0\0\0\0").await;
    sent.unwrap();
    let Event::Up(_, id_b) = hub_b.await_events(1).await[0].clone() else {
        panic!("up expected");
    };
    let mut at_b = hub_b.take(id_b);
    let mut received = at_b.leftover.to_vec();
    while received.len() < 4 {
        assert_ne!(tcp(&mut at_b).read_buf(&mut received).await.unwrap(), 0);
    }
    assert_eq!(received, [0; 4]);
    assert!(at_a.dialled && !at_b.dialled && at_a.visible && at_b.visible);
    assert_eq!(
        (at_a.peer_creation, at_b.peer_creation),
        (b.inner.local.creation, a.inner.local.creation)
    );
    assert_eq!(at_a.flags, Flags::OFFERED);
    for at in [&mut at_a, &mut at_b] {
        assert!(tcp(at).nodelay().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_dial_each_other_at_once_have_one_connection() {
    for round in 0..100 {
        let names = ["a@127.0.0.1", "z@127.0.0.1"];
        let [(a, hub_a), (z, hub_z)] = two_nodes(names[0], names[1]).await;
        let dials: Vec<_> = [(&a, names[1]), (&z, names[0])]
            .into_iter()
            .cycle()
            .take(4)
            .map(|(transport, peer)| {
                let transport = transport.clone();
                tokio::spawn(async move { transport.connect(peer).await })
            })
            .collect();
        let mut ids = Vec::new();
        for dial in dials {
            ids.push(
                dial.await
                    .unwrap()
                    .unwrap_or_else(|error| panic!("{round}: {error}")),
            );
        }
        assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
        assert_eq!(hub_a.events(), [Event::Up(names[1].into(), ids[0])]);
        assert_eq!(hub_z.events(), [Event::Up(names[0].into(), ids[1])]);
        let (mut at_a, mut at_z) = (hub_a.take(ids[0]), hub_z.take(ids[1]));
        assert_eq!(
            tcp(&mut at_a).local_addr().unwrap(),
            tcp(&mut at_z).peer_addr().unwrap(),
            "round {round}"
        );
        a.shutdown().await;
        z.shutdown().await;
    }
}

#[tokio::test]
async fn reasons_why_there_is_no_connection() {
    let mut own = config("a@127.0.0.1");
    let nobody = std::net::TcpListener::bind((HOST, 0)).unwrap();
    let nobody_there = nobody.local_addr().unwrap();
    drop(nobody);
    own.addresses.insert("x@127.0.0.1".into(), nobody_there);
    own.peer_cookies
        .insert("b@127.0.0.1".into(), "other".into());
    let (_b, _) = {
        let mut config = config("b@127.0.0.1");
        config.ports = 0..=0;
        let (b, hub) = node(config).await;
        let address = SocketAddr::new(HOST, b.port());
        own.addresses.insert("b@127.0.0.1".into(), address);
        own.addresses.insert("c@127.0.0.1".into(), address);
        (b, hub)
    };
    let (a, hub) = node(own).await;
    let reason = async |peer: &str| a.connect(peer).await.unwrap_err();
    let failure = async |peer: &str| match reason(peer).await {
        ConnectError::Handshake { failure, .. } => failure,
        other => panic!("{other}"),
    };
    assert!(matches!(reason("a").await, ConnectError::Name(_)));
    assert!(matches!(
        reason("a@127.0.0.1").await,
        ConnectError::OwnName(_)
    ));
    assert!(matches!(reason("b@h").await, ConnectError::NameForm { .. }));
    assert!(matches!(
        reason("x@127.0.0.1").await,
        ConnectError::Unreachable { .. }
    ));
    assert!(matches!(
        reason("y@127.0.0.1").await,
        ConnectError::NoAddress(_)
    ));
    assert!(matches!(
        failure("b@127.0.0.1").await,
        HandshakeFailure::CookieRefused
    ));
    assert!(matches!(
        failure("c@127.0.0.1").await,
        HandshakeFailure::Protocol(tiebeam_wire::handshake::HandshakeError::OtherName { .. })
    ));
    assert_eq!(hub.events(), []);
    a.shutdown().await;
    assert!(matches!(reason("b@127.0.0.1").await, ConnectError::Stopped));
}

#[tokio::test]
async fn reasons_of_epmd_and_of_names() {
    let mut own = config("a@127.0.0.1");
    own.epmd = EpmdMode::Auto;
    own.epmd_port = {
        let free = std::net::TcpListener::bind((HOST, 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let mut other = own.clone();
    other.name = NodeName::parse("a@127.0.0.2").unwrap();
    let (a, _) = node(own).await;
    let taken = Transport::start(other).await.unwrap_err();
    assert!(matches!(
        taken,
        StartError::Epmd(crate::epmd::EpmdError::NameTaken { .. })
    ));
    let unknown = a.connect("b@127.0.0.1").await.unwrap_err();
    assert!(
        matches!(unknown, ConnectError::NotRegistered { .. }),
        "{unknown}"
    );
    let unresolved = a.connect("b@no.such.host.invalid").await.unwrap_err();
    assert!(
        matches!(unresolved, ConnectError::Host { .. }),
        "{unresolved}"
    );
    let mut same_port = config("c@127.0.0.1");
    same_port.ports = a.port()..=a.port();
    let in_use = Transport::start(same_port).await.unwrap_err();
    assert!(matches!(in_use, StartError::PortsInUse { .. }), "{in_use}");
    a.shutdown().await;
    let mut next = config("c@127.0.0.1");
    next.ports = a.port()..=a.port();
    node(next).await.0.shutdown().await;
}

#[tokio::test]
async fn after_nok_the_connection_of_the_peer_is_awaited() {
    let names = ["a@127.0.0.1", "z@127.0.0.1"];
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    for (comes, setup_time) in [(true, SETUP_TIME), (false, Duration::from_millis(700))] {
        let mut own = config(names[0]);
        let address = listener.local_addr().unwrap();
        own.addresses.insert(names[1].into(), address);
        own.setup_time = setup_time;
        let (a, _) = node(own).await;
        let connect = tokio::spawn({
            let a = a.clone();
            async move { a.connect(names[1]).await }
        });
        let (mut dialled, _) = listener.accept().await.unwrap();
        dialled.write_all(b"\0\x04snok").await.unwrap();
        // The attempt has closed its socket: it knows.
        let mut name = Vec::new();
        dialled.read_to_end(&mut name).await.unwrap();
        if comes {
            let mut peer = Stranger::new(&a);
            peer.send_name(names[1]).await;
            assert_eq!(peer.receive().await, b"sok_simultaneous");
            let challenge = peer.receive().await;
            peer.prove("ck", &challenge).await;
            let id = peer.accepted.await.unwrap().unwrap();
            assert_eq!(connect.await.unwrap().unwrap(), id);
        } else {
            let before = Instant::now();
            let error = connect.await.unwrap().unwrap_err();
            assert!(matches!(error, ConnectError::Nok { .. }), "{error}");
            assert!(before.elapsed() >= setup_time - Duration::from_millis(100));
        }
    }
}
