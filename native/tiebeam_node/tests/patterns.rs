//! Singletons, rings and pools on real Rust nodes. Nodes are found by address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_node::{
    ClusterConfig, ClusterHandle, Config, Cookie, EpmdMode, LeadershipError, Node, PassiveReason,
    Singleton, Standby, Term, Timing, Token,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

const NAMES: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];

fn millis(millis: u64) -> tiebeam_core::Duration {
    tiebeam_core::Duration::from_millis(millis)
}

fn settings() -> ClusterConfig {
    let timing = Timing {
        greet_first: millis(50),
        greet_max: millis(400),
        ..Timing::lan()
    };
    ClusterConfig::lan()
        .timing(timing)
        .session(Duration::from_secs(2))
        .join(NAMES)
        .voters(NAMES)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come in time: {what}"),
    }
}

/// Waits until there is what is looked for.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A node that knows where others are.
async fn start(name: &str, others: &[(&str, u16)]) -> Node {
    let mut config = Config::new(name, Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for &(other, port) in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        config.addresses.insert(other.to_owned(), address);
    }
    Node::start(config).await.unwrap()
}

/// A way to a node that can be cut, and stays so.
struct Link {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Link {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let relay = async {
                        let mut to = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                        tokio::io::copy_bidirectional(&mut from, &mut to).await
                    };
                    tokio::select! {
                        biased;
                        _ = is_cut.wait_for(|cut| *cut) => {}
                        _ = relay => {}
                    }
                });
            }
        });
        Self { port: own, cut }
    }
}

/// Three nodes; the last one reaches the others, and they it, over links that can be cut.
struct Trio {
    nodes: Vec<Node>,
    clusters: Vec<ClusterHandle>,
    links: Vec<Link>,
}

impl Trio {
    async fn start() -> Self {
        let a = start(NAMES[0], &[]).await;
        let b = start(NAMES[1], &[(NAMES[0], a.port())]).await;
        let links = vec![Link::to(a.port()).await, Link::to(b.port()).await];
        let known = [(NAMES[0], links[0].port), (NAMES[1], links[1].port)];
        let c = start(NAMES[2], &known).await;
        let nodes = vec![a, b, c];
        let mut clusters = Vec::new();
        for node in &nodes {
            clusters.push(node.cluster(settings()).await.unwrap());
        }
        Self {
            nodes,
            clusters,
            links,
        }
    }

    /// Cuts the last node off.
    fn cut(&self) {
        for link in &self.links {
            link.cut.send_replace(true);
        }
    }

    /// Ends the cluster's process on a node, as a crash would.
    fn kill(&self, at: usize) {
        let node = &self.nodes[at];
        let process = node.whereis("tiebeam").expect("a member");
        node.send_exit(&process, Term::atom("kill"));
    }

    async fn stop(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

/// What the nodes did, in the order in which they did it.
type History<E> = Arc<Mutex<Vec<E>>>;

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Active(usize, Token),
    /// The work was dropped.
    Ended(usize, Token),
    Passive(usize, PassiveReason),
}

struct Work(usize, Token, History<Event>);

impl Drop for Work {
    fn drop(&mut self) {
        self.2.lock().unwrap().push(Event::Ended(self.0, self.1));
    }
}

/// Stands by on a node; what happens is recorded.
fn stand_by(singleton: &Singleton, at: usize, history: &History<Event>) -> Standby {
    let (of_active, of_passive) = (Arc::clone(history), Arc::clone(history));
    let on_active = move |token| {
        let history = Arc::clone(&of_active);
        async move {
            history.lock().unwrap().push(Event::Active(at, token));
            let _work = Work(at, token, history);
            std::future::pending().await
        }
    };
    let on_passive = move |reason| {
        let history = Arc::clone(&of_passive);
        async move {
            history.lock().unwrap().push(Event::Passive(at, reason));
        }
    };
    singleton.start(on_active, on_passive).unwrap()
}

/// Waits until another node is active than before.
async fn next_active(history: &History<Event>, before: Option<Token>) -> (usize, Token) {
    eventually("an active node", || {
        let history = history.lock().unwrap();
        history.iter().find_map(|event| match event {
            &Event::Active(at, token) if Some(token) > before => Some((at, token)),
            _ => None,
        })
    })
    .await
}

/// One after the other: active, the end of the work, passive.
fn check(history: &History<Event>) {
    let history = history.lock().unwrap();
    let mut latest = None;
    for events in history.chunks(3) {
        let Event::Active(at, token) = events[0] else {
            panic!("{history:?}");
        };
        assert!(Some(token) > latest, "tokens grow: {history:?}");
        latest = Some(token);
        if let Some(event) = events.get(1) {
            assert_eq!(*event, Event::Ended(at, token), "{history:?}");
        }
        if let Some(event) = events.get(2) {
            assert!(
                matches!(event, Event::Passive(who, _) if *who == at),
                "{history:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_singleton_is_active_on_one_node_at_a_time() {
    let trio = Trio::start().await;
    let history = History::default();
    let on = |at: usize| {
        let cluster: &ClusterHandle = &trio.clusters[at];
        cluster.singleton("db").meta(&at).unwrap()
    };
    let mut standbys = Vec::new();
    for at in 0..3 {
        standbys.push(stand_by(&on(at), at, &history));
    }
    let (first, token) = next_active(&history, None).await;
    assert_eq!(standbys[first].wait_until_active().await, Some(token));
    for at in 0..3 {
        let active = eventually("the active node", || on(at).active()).await;
        assert_eq!((&active.pid, active.token), (standbys[first].pid(), token));
        assert_eq!(active.meta, Term::from(first as i64));
    }

    // Asked on another node, in good order; it leaves it to the others for a while.
    let other = on((first + 1) % 3);
    assert!(within("the end", other.step_down(DEADLINE)).await.unwrap());
    let (second, token) = next_active(&history, Some(token)).await;
    assert_ne!(second, first);

    within("the end", standbys[second].stop()).await;
    assert!(!trio.nodes[second].is_process_alive(standbys[second].pid()));
    let (third, token) = next_active(&history, Some(token)).await;
    assert_ne!(third, second);

    // Its node leaves.
    within("the node to leave", trio.clusters[third].leave()).await;
    let (fourth, _) = next_active(&history, Some(token)).await;
    assert!(fourth != third && fourth != second);
    check(&history);
    let reasons = history.lock().unwrap().clone();
    let reasons = reasons.into_iter().filter_map(|event| match event {
        Event::Passive(_, reason) => Some(reason),
        _ => None,
    });
    let expected = [
        PassiveReason::StepDown,
        PassiveReason::Shutdown,
        PassiveReason::Lost,
    ];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_node_that_is_cut_off_is_passive_before_another_is_active() {
    let trio = Trio::start().await;
    let history = History::default();
    let on = |at: usize| trio.clusters[at].singleton("db");
    // It stands by without its handle.
    drop(stand_by(&on(2), 2, &history));
    let (first, token) = next_active(&history, None).await;
    assert_eq!(first, 2);
    let mut standbys: Vec<_> = (0..2).map(|at| stand_by(&on(at), at, &history)).collect();
    trio.cut();
    let (second, token) = next_active(&history, Some(token)).await;
    assert_eq!(
        history.lock().unwrap()[2],
        Event::Passive(2, PassiveReason::Lost)
    );
    check(&history);

    // Nobody would say when it is lost: its process ends, too.
    trio.kill(second);
    let standby = standbys.remove(second);
    let reason = within("its end", trio.nodes[second].wait_for_end(standby.pid())).await;
    assert!(!reason.is_atom("normal"), "{reason}");
    eventually("the end of the work", || {
        let history = history.lock().unwrap();
        let lost = Event::Passive(second, PassiveReason::Lost);
        history.contains(&lost).then_some(())
    })
    .await;
    assert_ne!(standby.is_active(), Some(token));
    check(&history);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_fails_is_tried_elsewhere() {
    let trio = Trio::start().await;
    let history: History<(usize, &str)> = History::default();
    let mut standbys = Vec::new();
    for (at, cluster) in trio.clusters.iter().enumerate() {
        let singleton = cluster.singleton("db").cooldown(DEADLINE);
        let of_active = Arc::clone(&history);
        let on_active = move |_| {
            let history = Arc::clone(&of_active);
            async move {
                let failed = history.lock().unwrap().len();
                match failed {
                    0 => Err(Term::atom("no_disk")),
                    1 => panic!("on purpose"),
                    _ => {
                        history.lock().unwrap().push((at, "active"));
                        Ok(())
                    }
                }
            }
        };
        let of_passive = Arc::clone(&history);
        let on_passive = move |reason| {
            let history = Arc::clone(&of_passive);
            async move {
                let why = match reason {
                    PassiveReason::Failed(why) if why.is_atom("no_disk") => "error",
                    PassiveReason::Failed(_) => "panic",
                    _ => "other",
                };
                history.lock().unwrap().push((at, why));
            }
        };
        standbys.push(singleton.start(on_active, on_passive).unwrap());
    }
    let history = eventually("three attempts", || {
        let history = history.lock().unwrap();
        (history.len() == 3).then(|| history.clone())
    })
    .await;
    assert_eq!(
        history.iter().map(|(_, what)| *what).collect::<Vec<_>>(),
        ["error", "panic", "active"]
    );
    // Work that returns leaves its node active.
    let last = &standbys[history[2].0];
    let token = within("the active node", last.wait_until_active()).await;
    assert!(token.is_some());
    let mut nodes: Vec<usize> = history.iter().map(|(at, _)| *at).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [0, 1, 2]);

    // Killed, not stopped: what it holds goes with it.
    let singleton = trio.clusters[0].singleton("db");
    trio.nodes[history[2].0].send_exit(last.pid(), Term::atom("kill"));
    eventually("nobody", || singleton.active().is_none().then_some(())).await;
    assert!(!singleton.step_down(DEADLINE).await.unwrap());
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_need_voters() {
    let node = start("alone@127.0.0.1", &[]).await;
    let cluster = node.cluster(ClusterConfig::lan()).await.unwrap();
    let refused = cluster
        .singleton("db")
        .start(|_| async { Ok(()) }, |_| async {});
    assert!(
        matches!(refused, Err(LeadershipError::NoGroup)),
        "{refused:?}"
    );
    node.stop().await;
}
