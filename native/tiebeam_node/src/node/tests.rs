//! What remains of a node: nothing, however it ends.

mod storm;

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::config::Cookie;
use crate::epmd::EpmdMode;
use crate::gen_server::{Answer, GenServer};
use crate::process::ReplyTo;

const SOON: Duration = Duration::from_secs(10);

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

async fn start(name: &str, epmd: u16) -> Node {
    let config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::Auto, epmd);
    Node::start(config).await.unwrap()
}

struct Parrot;

impl GenServer for Parrot {
    type Call = i64;
    type Cast = i64;
    type Reply = i64;

    async fn handle_call(&mut self, request: i64, _: &ReplyTo, _: &Process) -> Answer<i64> {
        Answer::Reply(request)
    }
}

/// What a test watches of a node.
struct Remains {
    inner: Weak<Inner>,
    router: Weak<Router>,
    connections: Vec<Weak<Connection>>,
}

impl Remains {
    fn of(node: &Node) -> Self {
        Self {
            inner: Arc::downgrade(&node.0),
            router: Arc::downgrade(node.router()),
            connections: node
                .router()
                .connections()
                .iter()
                .map(Arc::downgrade)
                .collect(),
        }
    }

    /// Tasks that were told to end do so when they are polled next.
    async fn gone(&self) {
        let counts = || {
            let connections = self.connections.iter().map(Weak::strong_count).sum();
            [
                self.inner.strong_count(),
                self.router.strong_count(),
                connections,
            ]
        };
        let gone = async {
            while counts() != [0; 3] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(SOON, gone).await.is_err() {
            panic!("node, router, connections are still held: {:?}", counts());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_frees_everything() {
    let epmd = free_port();
    let (a, b) = (start("a", epmd).await, start("b", epmd).await);
    let mut events = b.monitor_nodes();
    a.connect("b@127.0.0.1").await.unwrap();
    b.keep_connected(["a@127.0.0.1", "never@127.0.0.1"]);
    b.start_server("parrot", Parrot).await.unwrap();
    // What the program gives to the node holds the node, and waits for ever.
    let held = b.clone();
    b.export("m", "wait", 0, move |_| {
        let held = held.clone();
        async move {
            std::future::pending::<()>().await;
            Ok(held.name().as_str().to_owned())
        }
    });
    let by_spawn = a.spawn_anonymous().unwrap();
    by_spawn
        .spawn_on(
            "b@127.0.0.1",
            ("m", "wait"),
            Vec::new(),
            SpawnOptions::default(),
        )
        .await
        .unwrap();
    let apply = |tag: &'static str| {
        let (module, function) = (Term::atom("m"), Term::atom("wait"));
        let leader = Term::from(a.group_leader());
        Term::tuple([Term::atom(tag), module, function, Term::list([]), leader])
    };
    a.cast_term(("rex", "b@127.0.0.1"), apply("cast")).unwrap();
    let call = a
        .call_term(
            ("rex", "b@127.0.0.1"),
            apply("call"),
            Duration::from_millis(20),
        )
        .await;
    assert!(matches!(call, Err(CallError::Timeout(_))), "{call:?}");
    let echo: i64 = a.call(("parrot", "b@127.0.0.1"), &7, SOON).await.unwrap();
    assert_eq!(echo, 7);

    let remains = Remains::of(&b);
    assert_eq!(remains.connections.len(), 1);
    b.stop().await;
    while let Some(event) = events.recv().await {
        drop(event);
    }
    drop(b);
    remains.gone().await;

    let remains = Remains::of(&a);
    a.stop().await;
    drop((a, by_spawn));
    remains.gone().await;
}

#[tokio::test]
async fn a_stop_is_done_once_and_awaited_by_all() {
    let epmd = free_port();
    let node = start("a", epmd).await;
    let mut process = node.spawn_anonymous().unwrap();
    // The first one is given up as soon as it has begun.
    tokio::select! {
        biased;
        () = node.stop() => panic!("a stop takes a moment"),
        () = std::future::ready(()) => {}
    }
    let stops = async { tokio::join!(node.stop(), node.stop()) };
    tokio::time::timeout(SOON, stops)
        .await
        .expect("the stop goes on");
    assert!(process.recv().await.is_none());
    assert_eq!(process.exit_reason(), Some(Term::atom("shutdown")));
    assert!(process.recv().await.is_none(), "the dead stay dead");
    node.keep_connected(["b@127.0.0.1"]);
    assert!(node.0.keepers.read().unwrap().is_empty());
}

#[tokio::test]
async fn a_stop_ends_a_dial() {
    let epmd = free_port();
    let node = start("a", epmd).await;
    // Accepts, and says nothing.
    let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let entry =
        tiebeam_wire::epmd::Entry::new("silent", silent.local_addr().unwrap().port(), false);
    let settings = crate::epmd::Settings {
        mode: EpmdMode::Auto,
        port: epmd,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let registration = crate::epmd::Registration::start(settings, entry)
        .await
        .unwrap();
    let mut process = node.spawn_anonymous().unwrap();
    process.monitor(("name", "silent@127.0.0.1"));
    let dialling = node.clone();
    let dial = tokio::spawn(async move { dialling.connect("silent@127.0.0.1").await });
    let dialled = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _stream = dialled.await.unwrap();
    let remains = Remains::of(&node);
    node.stop().await;
    assert!(matches!(dial.await.unwrap(), Err(ConnectError::Stopped)));
    assert!(process.recv().await.is_none());
    drop((process, node));
    remains.gone().await;
    registration.stop().await;
}
