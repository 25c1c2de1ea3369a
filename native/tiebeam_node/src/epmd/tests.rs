//! Nodes and epmd on one host: who registers, who serves, and who takes over.

use super::*;
use tokio::net::{TcpListener, TcpSocket};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn free_port() -> u16 {
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

fn settings(mode: EpmdMode, port: u16) -> Settings {
    Settings {
        mode,
        port,
        listen: HOST,
    }
}

fn entry(name: &str, port: u16) -> Entry {
    Entry::new(name, port, false)
}

const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Whether this system has IPv6; says so if not.
async fn has_ipv6() -> bool {
    let bound = TcpListener::bind((LOOPBACK_V6, 0)).await;
    if let Err(error) = &bound {
        eprintln!("skipped: no IPv6 here ({error})");
    }
    bound.is_ok()
}

/// A port that is free in both families.
async fn free_port_of_both() -> u16 {
    loop {
        let port = free_port().await;
        if TcpListener::bind((LOOPBACK_V6, port)).await.is_ok() {
            return port;
        }
    }
}

async fn start(mode: EpmdMode, port: u16, name: &str) -> Result<Registration, EpmdError> {
    Registration::start(settings(mode, port), entry(name, 9)).await
}

/// Looks `name` up until it is registered.
async fn await_registered(address: SocketAddr, name: &str) {
    let registered = async {
        while !matches!(look_up(address, name).await, Ok(Some(_))) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), registered)
        .await
        .unwrap_or_else(|_| panic!("'{name}' is not registered again"));
}

#[tokio::test]
async fn the_first_node_serves_and_the_others_use_it() {
    let port = free_port().await;
    let address = SocketAddr::new(HOST, port);
    let a = start(EpmdMode::Auto, port, "a").await.unwrap();
    let b = start(EpmdMode::Client, port, "b").await.unwrap();
    assert!(a.creation() > 3 && b.creation() > 3 && a.creation() != b.creation());
    assert_eq!(look_up(address, "b").await.unwrap(), Some(entry("b", 9)));
    assert_eq!(look_up(address, "c").await.unwrap(), None);
    let names = names(address).await.unwrap();
    assert_eq!(names.epmd_port, u32::from(port));
    let found: Vec<_> = names.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(found, ["a", "b"]);

    let taken = start(EpmdMode::Auto, port, "b").await.unwrap_err();
    assert!(matches!(taken, EpmdError::NameTaken { name } if name == "b"));
    let served = start(EpmdMode::Serve, port, "c").await.unwrap_err();
    assert!(matches!(served, EpmdError::Serve { .. }));

    b.stop().await;
    let gone = async {
        while look_up(address, "b").await.unwrap().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
    a.stop().await;
    let unreachable = look_up(address, "a").await.unwrap_err();
    assert!(matches!(unreachable, EpmdError::Unreachable { .. }));
}

#[tokio::test]
async fn a_client_needs_an_epmd() {
    let port = free_port().await;
    let error = start(EpmdMode::Client, port, "a").await.unwrap_err();
    assert!(matches!(error, EpmdError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn nodes_that_start_together_agree_who_serves() {
    let port = free_port().await;
    let (a, b, c) = tokio::join!(
        start(EpmdMode::Auto, port, "a"),
        start(EpmdMode::Auto, port, "b"),
        start(EpmdMode::Auto, port, "c"),
    );
    let _all = (a.unwrap(), b.unwrap(), c.unwrap());
    let names = names(SocketAddr::new(HOST, port)).await.unwrap();
    assert_eq!(names.nodes.len(), 3);
}

#[tokio::test]
async fn when_the_serving_node_ends_the_others_take_over() {
    let port = free_port().await;
    let address = SocketAddr::new(HOST, port);
    let a = start(EpmdMode::Auto, port, "a").await.unwrap();
    let b = start(EpmdMode::Auto, port, "b").await.unwrap();
    let c = start(EpmdMode::Auto, port, "c").await.unwrap();
    let creations = (b.creation(), c.creation());
    a.stop().await;
    await_registered(address, "b").await;
    await_registered(address, "c").await;
    assert_eq!((b.creation(), c.creation()), creations);
    assert_eq!(look_up(address, "a").await.unwrap(), None);
}

#[tokio::test]
async fn hostile_requests_cost_their_socket_only() {
    let port = free_port().await;
    let address = SocketAddr::new(HOST, port);
    let _a = start(EpmdMode::Serve, port, "a").await.unwrap();
    for bytes in [
        &b"\0\0"[..],
        b"\xff\xff",
        b"\0\x03GET",
        b"\0\x02x\0",
        b"\0\x02sa",
        b"\0\x0dx\0\x09M\0\0\x06\0\x06\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "{}", bytes.escape_ascii());
    }
    let mut killer = TcpStream::connect(address).await.unwrap();
    killer.write_all(b"\0\x01k").await.unwrap();
    let mut answer = Vec::new();
    killer.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"NO");
    let mut stalled = Vec::new();
    for _ in 0..400 {
        stalled.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(look_up(address, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn nodes_of_both_families_share_an_epmd() {
    if !has_ipv6().await {
        return;
    }
    let unspecified = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    // Whoever serves, the other one is its client, and both can be asked for in both families.
    for serving in [HOST, LOOPBACK_V6].into_iter().chain(unspecified) {
        for joining in [HOST, LOOPBACK_V6] {
            let port = free_port_of_both().await;
            let settings = |mode, listen| Settings { mode, port, listen };
            let a = Registration::start(settings(EpmdMode::Auto, serving), entry("a", 9)).await;
            let b = Registration::start(settings(EpmdMode::Auto, joining), entry("b", 9)).await;
            let (a, b) = (a.unwrap(), b.unwrap());
            for host in LOOPBACK {
                let names = names(SocketAddr::new(host, port)).await.unwrap();
                assert_eq!(names.nodes.len(), 2, "{serving} serves, {joining} joins");
            }
            a.stop().await;
            b.stop().await;
        }
    }
}

#[tokio::test]
async fn an_epmd_of_the_other_family_is_used() {
    if !has_ipv6().await {
        return;
    }
    let port = free_port_of_both().await;
    // A socket that does not listen takes the place at which this epmd would serve IPv6.
    let taken = TcpSocket::new_v6().unwrap();
    taken.bind(SocketAddr::new(LOOPBACK_V6, port)).unwrap();
    let server = Server::start(&settings(EpmdMode::Serve, port)).unwrap();
    let client = Settings {
        mode: EpmdMode::Client,
        port,
        listen: LOOPBACK_V6,
    };
    let registration = Registration::start(client, entry("a", 9)).await.unwrap();
    let found = look_up(SocketAddr::new(HOST, port), "a").await.unwrap();
    assert_eq!(found, Some(entry("a", 9)));
    registration.stop().await;
    drop((server, taken));
}
