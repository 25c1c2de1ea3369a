//! Singletons, rings and pools on real Rust nodes. Nodes are found by address: no epmd takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, ClusterConfig, ClusterHandle, ClusterPool, ClusterPoolMember, Config, Consistency,
    Cookie, EpmdMode, GenServer, LeadershipError, MachineHandle, Node, OperatorError,
    Participation, PassiveReason, Pid, Placement, Process, ReleaseReason, ReplyTo, Ring, RingError,
    RingHandler, RingMember, Route, RouteError, Singleton, Standby, StateMachine, TaskMember, Term,
    Timing, Token,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

const NAMES: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];

fn millis(millis: u64) -> tiebeam_core::Duration {
    tiebeam_core::Duration::from_millis(millis)
}

/// So long that no stall of the machine ends a session.
const LONG_SESSION: Duration = Duration::from_secs(40);

/// Short, where a test waits for its end.
const SESSION: Duration = Duration::from_secs(5);

fn settings(session: Duration) -> ClusterConfig {
    let timing = Timing {
        greet_first: millis(50),
        greet_max: millis(400),
        ..Timing::lan()
    };
    ClusterConfig::lan()
        .timing(timing)
        .session(session)
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
        Self::with_session(LONG_SESSION).await
    }

    async fn with_session(session: Duration) -> Self {
        let a = start(NAMES[0], &[]).await;
        let b = start(NAMES[1], &[(NAMES[0], a.port())]).await;
        let links = vec![Link::to(a.port()).await, Link::to(b.port()).await];
        let known = [(NAMES[0], links[0].port), (NAMES[1], links[1].port)];
        let c = start(NAMES[2], &known).await;
        let nodes = vec![a, b, c];
        let mut clusters = Vec::new();
        for node in &nodes {
            clusters.push(node.cluster(settings(session)).await.unwrap());
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
    let trio = Trio::with_session(SESSION).await;
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

// ---- rings

#[derive(Debug, Clone, PartialEq)]
enum Moved {
    Owned(usize, u32, Token),
    Released(usize, u32, ReleaseReason),
}

/// Counts the calls about each key, and records which partitions come and go.
struct Counter {
    at: usize,
    history: History<Moved>,
}

impl RingHandler for Counter {
    type Call = i64;
    type Reply = (usize, i64);

    async fn on_own(&self, partition: u32, token: Token) -> Result<(), Term> {
        let moved = Moved::Owned(self.at, partition, token);
        self.history.lock().unwrap().push(moved);
        Ok(())
    }

    async fn on_release(&self, partition: u32, reason: ReleaseReason) {
        // Others have time to be too early.
        tokio::task::yield_now().await;
        let moved = Moved::Released(self.at, partition, reason);
        self.history.lock().unwrap().push(moved);
    }

    async fn handle_call(&self, _partition: u32, _key: Term, add: i64) -> (usize, i64) {
        if add < 0 {
            panic!("on purpose");
        }
        (self.at, add + 1)
    }
}

const PARTITIONS: u32 = 12;

fn ring(trio: &Trio, at: usize) -> Ring {
    let ring = trio.clusters[at].ring("users", PARTITIONS);
    ring.settle(Duration::from_millis(300))
}

fn take_part(trio: &Trio, at: usize, history: &History<Moved>) -> RingMember {
    let history = Arc::clone(history);
    ring(trio, at).start(Counter { at, history }).unwrap()
}

/// Waits until these nodes, and all of them as they see it, have so many partitions each: whose each is.
async fn spread(trio: &Trio, nodes: &[usize], each: usize) -> Vec<usize> {
    eventually("an even spread", || {
        let owners = |at: usize| -> Option<Vec<usize>> {
            let ring = ring(trio, at);
            let owner = |partition| {
                let owner = ring.owner(partition)?;
                NAMES
                    .iter()
                    .position(|name| *name == owner.pid.node.as_str())
            };
            (0..PARTITIONS).map(owner).collect()
        };
        let first = owners(nodes[0])?;
        let count = |node: &usize| first.iter().filter(|owner| *owner == node).count();
        let even = nodes.iter().all(|node| count(node) == each);
        let agreed = nodes
            .iter()
            .all(|node| owners(*node).as_ref() == Some(&first));
        (even && agreed).then_some(first)
    })
    .await
}

/// Waits until the last word on each partition is that of its owner.
async fn told(history: &History<Moved>, owners: &[usize]) {
    eventually("what is told of the partitions", || {
        let history = history.lock().unwrap();
        let told = |partition: usize| {
            let last = history.iter().rev().find(|moved| match moved {
                Moved::Owned(_, of, _) | Moved::Released(_, of, _) => *of as usize == partition,
            });
            matches!(last, Some(Moved::Owned(at, ..)) if *at == owners[partition])
        };
        (0..owners.len()).all(told).then_some(())
    })
    .await;
}

/// Each partition is owned, then released by its owner, then owned by another.
fn check_ring(history: &History<Moved>) {
    let history = history.lock().unwrap();
    for partition in 0..PARTITIONS {
        let (mut owner, mut latest) = (None, None);
        for moved in history.iter() {
            match *moved {
                Moved::Owned(at, of, token) if of == partition => {
                    assert_eq!(owner, None, "{partition}: {history:?}");
                    assert!(Some(token) > latest, "{partition}: {history:?}");
                    (owner, latest) = (Some(at), Some(token));
                }
                Moved::Released(at, of, _) if of == partition => {
                    assert_eq!(owner, Some(at), "{partition}: {history:?}");
                    owner = None;
                }
                _ => {}
            }
        }
    }
}

/// Every key is answered by the owner of its partition, whoever asks.
async fn check_calls(trio: &Trio, nodes: &[usize], owners: &[usize]) {
    for number in 0..20 {
        for &at in nodes {
            let ring = ring(trio, at);
            let key = ("user", number);
            let owner = owners[ring.partition_for(key) as usize];
            assert_eq!(ring.node_for(key).unwrap().as_str(), NAMES[owner]);
            assert_eq!(ring.owns(key), owner == at);
            let reply: (usize, i64) = ring.call(key, &7, DEADLINE).await.unwrap();
            assert_eq!(reply, (owner, 8));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_spread_evenly_and_move_only_if_they_must() {
    let trio = Trio::start().await;
    let history = History::default();
    let first = take_part(&trio, 0, &history);
    let owners = spread(&trio, &[0], 12).await;
    told(&history, &owners).await;
    let second = ring(&trio, 0).start(Counter {
        at: 0,
        history: Arc::clone(&history),
    });
    assert!(
        matches!(&second, Err(LeadershipError::AlreadyStarted { pid }) if pid == first.pid()),
        "{second:?}"
    );

    let _b = take_part(&trio, 1, &history);
    let c = take_part(&trio, 2, &history);
    let three = spread(&trio, &[0, 1, 2], 4).await;
    told(&history, &three).await;
    check_calls(&trio, &[0, 1, 2], &three).await;
    assert_eq!(ring(&trio, 1).owned().len(), 4);
    assert_eq!(ring(&trio, 1).owned(), ring(&trio, 0).owned_by(NAMES[1]));
    eventually("rest", || (!first.is_rebalancing()).then_some(())).await;
    // Nothing is left to do.
    let moves = history.lock().unwrap().len();
    first.rebalance();
    assert_eq!(history.lock().unwrap().len(), moves);

    // One drains: what it had is shared, and the others keep their own.
    within("the end", c.drain()).await;
    assert!(!trio.nodes[2].is_process_alive(c.pid()));
    let two = spread(&trio, &[0, 1], 6).await;
    for (was, is) in three.iter().zip(&two) {
        assert!(was == is || *was == 2, "{three:?} {two:?}");
    }
    told(&history, &two).await;
    // Those that take no part may ask.
    eventually("the owners", || {
        let seen = (0..PARTITIONS).filter_map(|partition| ring(&trio, 2).owner(partition));
        (seen.count() == 12).then_some(())
    })
    .await;
    check_calls(&trio, &[0, 1], &two).await;
    let reply: (usize, i64) = ring(&trio, 2).call("k", &1, DEADLINE).await.unwrap();
    assert_eq!(reply.1, 2);
    check_ring(&history);
    let reasons = history.lock().unwrap().clone();
    assert!(reasons.iter().all(|moved| match moved {
        Moved::Released(at, _, reason) if *at == 2 => *reason == ReleaseReason::Drain,
        Moved::Released(_, _, reason) => *reason == ReleaseReason::Rebalance,
        Moved::Owned(..) => true,
    }));

    // It comes back, and has its share again.
    let _c = take_part(&trio, 2, &history);
    let three = spread(&trio, &[0, 1, 2], 4).await;
    assert!(
        two.iter()
            .zip(&three)
            .all(|(was, is)| was == is || *is == 2)
    );
    told(&history, &three).await;
    check_ring(&history);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_node_that_is_cut_off_are_released_before_others_own_them() {
    let trio = Trio::with_session(SESSION).await;
    let history = History::default();
    let _members: Vec<_> = (0..3).map(|at| take_part(&trio, at, &history)).collect();
    let three = spread(&trio, &[0, 1, 2], 4).await;
    told(&history, &three).await;
    trio.cut();
    let two = spread(&trio, &[0, 1], 6).await;
    told(&history, &two).await;
    for (was, is) in three.iter().zip(&two) {
        assert!(was == is || *was == 2, "{three:?} {two:?}");
    }
    check_ring(&history);
    let lost = history
        .lock()
        .unwrap()
        .iter()
        .filter(|moved| matches!(moved, Moved::Released(2, _, ReleaseReason::Lost)))
        .count();
    assert_eq!(lost, 4);
    check_calls(&trio, &[0, 1], &two).await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nobody_can_answer_are_refused() {
    let trio = Trio::start().await;
    let history = History::default();
    let soon = Duration::from_millis(200);
    let nobody = ring(&trio, 0).call::<i64, i64>("k", &1, soon).await;
    assert!(
        matches!(nobody, Err(RingError::NoOwner { .. })),
        "{nobody:?}"
    );
    let member = take_part(&trio, 0, &history);
    let owners = spread(&trio, &[0], 12).await;
    told(&history, &owners).await;
    let ask = |request: Vec<Term>| {
        let node = &trio.nodes[1];
        let pid = member.pid().clone();
        async move {
            let reply = node.call_term(pid, Term::Tuple(request), DEADLINE).await;
            reply.unwrap().to_string()
        }
    };
    let key = Term::binary("k");
    let partition = i64::from(ring(&trio, 0).partition_for("k"));
    let request = |partition: i64, request: Term| {
        vec![
            Term::atom("ring_call"),
            Term::from(partition),
            key.clone(),
            request,
        ]
    };
    let good = ask(request(partition, Term::from(1))).await;
    assert_eq!(good, "{0,2}");
    let other = ask(request((partition + 1) % 12, Term::from(1))).await;
    assert!(other.contains("is no key of partition"), "{other}");
    let none = ask(request(12, Term::from(1))).await;
    assert_eq!(none, "{error,{not_owner,nil}}");
    let unknown = ask(vec![Term::atom("hello")]).await;
    assert_eq!(unknown, "{error,{bad_request,{hello}}}");
    let misfit: Result<Term, _> = ring(&trio, 1).call("k", "text", DEADLINE).await;
    assert!(
        matches!(misfit, Err(RingError::BadRequest(_))),
        "{misfit:?}"
    );
    // A panic is that call's.
    let asker = ring(&trio, 1);
    let panicked = asker.call::<i64, i64>("k", &-1, DEADLINE).await;
    assert!(
        matches!(&panicked, Err(RingError::Failed(text)) if text.contains("on purpose")),
        "{panicked:?}"
    );
    let reply: (usize, i64) = ring(&trio, 1).call("k", &1, DEADLINE).await.unwrap();
    assert_eq!(reply, (0, 2));
    trio.stop().await;
}

/// Cannot own anything, or records what it follows.
struct Follower {
    fails: bool,
    at: usize,
    followed: Arc<Mutex<BTreeSet<(u32, usize)>>>,
}

impl RingHandler for Follower {
    type Call = ();
    type Reply = ();

    async fn on_own(&self, _partition: u32, _token: Token) -> Result<(), Term> {
        match self.fails {
            true => Err(Term::atom("no_disk")),
            false => Ok(()),
        }
    }

    async fn on_release(&self, _partition: u32, _reason: ReleaseReason) {}

    async fn handle_call(&self, _partition: u32, _key: Term, (): ()) {}

    async fn on_follow(&self, partition: u32) {
        let new = self.followed.lock().unwrap().insert((partition, self.at));
        assert!(new, "{partition} is followed already");
    }

    async fn on_unfollow(&self, partition: u32) {
        self.followed.lock().unwrap().remove(&(partition, self.at));
    }
}

/// Where the partitions are, by node.
fn owned(trio: &Trio, at: usize) -> Vec<Vec<u32>> {
    let ring = ring(trio, at);
    NAMES.iter().map(|name| ring.owned_by(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_weighs_cordons_moves_and_drains_from_any_node() {
    let trio = Trio::start().await;
    let followed = Arc::default();
    let start = |at: usize| {
        let followed = Arc::clone(&followed);
        let fails = false;
        let ring = ring(&trio, at).label("zone", "z").followers(1);
        let handler = Follower {
            fails,
            at,
            followed,
        };
        ring.start(handler).unwrap()
    };
    let [a, b] = [start(0), start(1)];
    spread(&trio, &[0, 1], 6).await;
    // From a node that takes no part.
    let operator = ring(&trio, 2).operator();
    let [on_a, on_b, on_c] = NAMES;
    let labels = |at: usize| {
        let participants = operator.participants();
        participants.get(at).map(|one| one.participant.labels.len())
    };
    eventually("both are known", || (labels(1) == Some(1)).then_some(())).await;
    operator.weight(on_a, 200).await.unwrap();
    operator
        .labels(on_b, [("zone", "y"), ("disk", "ssd")])
        .await
        .unwrap();
    let counts = || owned(&trio, 2).iter().map(Vec::len).collect::<Vec<_>>();
    eventually("twice as many", || (counts() == [8, 4, 0]).then_some(())).await;
    eventually("labels", || (labels(1) == Some(2)).then_some(())).await;

    // Each follows what the other has.
    let expected = || -> BTreeSet<(u32, usize)> {
        let owned = owned(&trio, 2);
        let by_other = |(at, of): (usize, &Vec<u32>)| -> Vec<(u32, usize)> {
            of.iter().map(|partition| (*partition, 1 - at)).collect()
        };
        owned[..2].iter().enumerate().flat_map(by_other).collect()
    };
    eventually("followers", || {
        (*followed.lock().unwrap() == expected()).then_some(())
    })
    .await;
    let asked = ring(&trio, 2).followers(1);
    let partition = owned(&trio, 2)[0][0];
    assert_eq!(asked.followers_of(partition)[0].as_str(), on_b);

    // What it has it keeps, and gets nothing new.
    operator.cordon(on_b).await.unwrap();
    let before = owned(&trio, 2)[1].clone();
    let refused = operator.move_to(partition, on_b).await;
    assert!(
        matches!(&refused, Err(OperatorError::Refused(why)) if why.is_atom("cordoned")),
        "{refused:?}"
    );
    let c = start(2);
    eventually("a share for who comes", || (counts()[2] > 0).then_some(())).await;
    eventually("nothing moves", || {
        let moves = [&a, &b, &c].into_iter().any(TaskMember::is_rebalancing);
        (!moves).then_some(())
    })
    .await;
    assert_eq!(owned(&trio, 2)[1], before);

    // Moved by hand, there and back again.
    for (at, node) in [(2, on_c), (0, on_a)] {
        operator.move_to(partition, node).await.unwrap();
        eventually("it is there", || {
            owned(&trio, 1)[at].contains(&partition).then_some(())
        })
        .await;
    }
    operator.unpin(partition).await.unwrap();
    let pinned = |one: &Participation| !one.participant.pinned.is_empty();
    eventually("no pins", || {
        (!operator.participants().iter().any(pinned)).then_some(())
    })
    .await;
    let nowhere = operator.move_to(12, on_a).await;
    assert!(
        matches!(&nowhere, Err(OperatorError::Refused(why)) if why.is_atom("no_such_slot")),
        "{nowhere:?}"
    );
    operator.uncordon(on_b).await.unwrap();
    operator.rebalance().await.unwrap();
    operator.drain(on_b, DEADLINE).await.unwrap();
    within("the end of the member", trio.nodes[1].wait_for_end(b.pid())).await;
    eventually("the others have it all", || {
        let counts = counts();
        let two = operator.participants().len() == 2;
        (two && counts[1] == 0 && counts.iter().sum::<usize>() == 12).then_some(())
    })
    .await;
    let gone = operator.cordon(on_b).await;
    assert!(
        matches!(gone, Err(OperatorError::TakesNoPart(_))),
        "{gone:?}"
    );
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_too_often_takes_no_part_any_more() {
    let trio = Trio::start().await;
    let start = |at: usize, fails: bool| {
        let followed = Arc::default();
        let ring = ring(&trio, at).restarts(0, DEADLINE);
        ring.start(Follower {
            fails,
            at,
            followed,
        })
        .unwrap()
    };
    let broken = start(0, true);
    within("its end", trio.nodes[0].wait_for_end(broken.pid())).await;
    let _whole = start(1, false);
    spread(&trio, &[1], 12).await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_where_its_labels_say() {
    let trio = Trio::start().await;
    let gate = Gate::new();
    let place = Placement::new().label("disk", "ssd").avoid("zone", "b");
    let labelled = |at: usize, disk: &str, zone: &str| {
        let pool = pool(&trio, at).replicas(3).placement(place.clone());
        pool.label("disk", disk).label("zone", zone)
    };
    let pools = [
        labelled(0, "ssd", "a"),
        labelled(1, "ssd", "b"),
        labelled(2, "spinning", "a"),
    ];
    for (at, pool) in pools.iter().enumerate() {
        work_at(pool, at, &gate);
    }
    assert_eq!(workers(&trio, &[0, 1, 2], 1).await, [0]);
    eventually("where it may be", || {
        let members = pools[2].members();
        (members.len() == 1 && members[0].as_str() == NAMES[0]).then_some(())
    })
    .await;
    pools[1]
        .operator()
        .labels(NAMES[1], [("disk", "ssd")])
        .await
        .unwrap();
    assert_eq!(workers(&trio, &[0, 1, 2], 2).await, [0, 1]);
    trio.stop().await;
}

// ---- pools

/// Holds calls up.
struct Gate {
    permits: Semaphore,
    begun: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(0),
            begun: AtomicUsize::new(0),
        })
    }
}

/// Says which node it is on. 0 waits for the gate.
struct Adder(usize, Arc<Gate>);

impl GenServer for Adder {
    type Call = i64;
    type Cast = ();
    type Reply = (usize, i64);

    async fn handle_call(&mut self, n: i64, _: &ReplyTo, _: &Process) -> Answer<(usize, i64)> {
        if n == 0 {
            self.1.begun.fetch_add(1, Ordering::SeqCst);
            self.1.permits.acquire().await.unwrap().forget();
        }
        Answer::Reply((self.0, n + 1))
    }
}

fn pool(trio: &Trio, at: usize) -> ClusterPool {
    trio.clusters[at]
        .pool("sums")
        .settle(Duration::from_millis(300))
}

fn work_at(pool: &ClusterPool, at: usize, gate: &Arc<Gate>) -> ClusterPoolMember {
    let gate = Arc::clone(gate);
    pool.start(move |_| Adder(at, Arc::clone(&gate))).unwrap()
}

/// Waits until these nodes have so many workers, as each of them sees it: where they are.
async fn workers(trio: &Trio, nodes: &[usize], count: usize) -> Vec<usize> {
    eventually("the workers", || {
        let seen = |at: usize| {
            let of = |worker: &Pid| NAMES.iter().position(|name| *name == worker.node.as_str());
            let workers = pool(trio, at).workers();
            let mut seen: Vec<usize> = workers.iter().filter_map(of).collect();
            seen.sort_unstable();
            seen
        };
        let first = seen(nodes[0]);
        let agreed = nodes.iter().all(|at| seen(*at) == first);
        (agreed && first.len() == count).then_some(first)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_a_worker_on_each_node_that_starts_it() {
    let trio = Trio::start().await;
    let leader = eventually("a leader", || {
        let (leader, _) = trio.clusters[0].leader().current()?;
        NAMES.iter().position(|name| *name == leader.as_str())
    })
    .await;
    let soon = Duration::from_millis(100);
    let nobody = pool(&trio, 0)
        .call::<i64, (usize, i64)>(Route::Any, &1, soon)
        .await;
    assert!(matches!(nobody, Err(RouteError::NoWorker)), "{nobody:?}");
    let gate = Gate::new();
    let part = |at: usize| work_at(&pool(&trio, at).handover(DEADLINE), at, &gate);
    let mut members: Vec<_> = (0..3).map(part).collect();
    assert_eq!(workers(&trio, &[0, 1, 2], 3).await, [0, 1, 2]);
    assert_eq!(pool(&trio, 1).members().len(), 3);

    let mut of_keys = Vec::new();
    for at in 0..3 {
        let pool = pool(&trio, at);
        eventually("the leader", || {
            let (known, _) = trio.clusters[at].leader().current()?;
            (known.as_str() == NAMES[leader]).then_some(())
        })
        .await;
        let call = |route| pool.call::<i64, (usize, i64)>(route, &1, DEADLINE);
        assert_eq!(call(Route::Any).await.unwrap().1, 2);
        assert_eq!(call(Route::LocalFirst).await.unwrap().0, at);
        assert_eq!(call(Route::Leader).await.unwrap().0, leader);
        let mut of_key = Vec::new();
        for key in 0..16 {
            of_key.push(call(Route::key(key)).await.unwrap().0);
        }
        of_keys.push(of_key);
        let all = pool
            .call_all::<i64, (usize, i64)>(&1, DEADLINE)
            .await
            .unwrap();
        let mut all: Vec<_> = all.into_iter().map(|(_, reply)| reply.unwrap().0).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert!(pool.cast(Route::Any, &()).unwrap());
    }
    assert!(
        of_keys[0] == of_keys[1] && of_keys[1] == of_keys[2],
        "{of_keys:?}"
    );
    assert!((0..3).all(|at| of_keys[0].contains(&at)), "{of_keys:?}");

    // One that is killed is started again.
    let here = pool(&trio, 0)
        .workers()
        .into_iter()
        .find(|worker| worker.node.as_str() == NAMES[0]);
    let here = here.unwrap();
    trio.nodes[0].send_exit(&here, Term::atom("kill"));
    eventually("another worker", || {
        let workers = pool(&trio, 0).workers();
        (workers.len() == 3 && !workers.contains(&here)).then_some(())
    })
    .await;

    // What it was sent is done before it ends.
    let worker = pool(&trio, 2)
        .workers()
        .into_iter()
        .find(|worker| worker.node.as_str() == NAMES[2]);
    let worker = worker.unwrap();
    let calls = [0, 0].map(|n: i64| {
        let (node, worker) = (trio.nodes[2].clone(), worker.clone());
        tokio::spawn(async move { node.call::<i64, (usize, i64)>(&worker, &n, DEADLINE).await })
    });
    // One is under way, one waits.
    eventually("two calls", || {
        let waits = trio.nodes[2].mailbox_len(&worker) == Some(1);
        (waits && gate.begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let member = members.pop().unwrap();
    let drained = tokio::spawn(async move { member.drain().await });
    assert_eq!(workers(&trio, &[0, 1, 2], 2).await, [0, 1]);
    assert!(trio.nodes[2].is_process_alive(&worker));
    gate.permits.add_permits(2);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), (2, 1));
    }
    within("the end", drained).await.unwrap();
    assert!(!trio.nodes[2].is_process_alive(&worker));

    // Its process is killed: so is the worker.
    trio.nodes[1].send_exit(members[1].pid(), Term::atom("kill"));
    assert_eq!(workers(&trio, &[0, 1, 2], 1).await, [0]);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_on_different_nodes_and_are_replaced() {
    let trio = Trio::start().await;
    let on = |at: usize| pool(&trio, at).replicas(2);
    let gate = Gate::new();
    let members: Vec<_> = (0..3).map(|at| work_at(&on(at), at, &gate)).collect();
    let first = workers(&trio, &[0, 1, 2], 2).await;
    assert_ne!(first[0], first[1]);
    // Where none of those is.
    let others: Vec<_> = (0..3)
        .map(|at| {
            let other = trio.clusters[at]
                .pool("other")
                .replicas(3)
                .away_from("sums");
            work_at(&other, at, &gate)
        })
        .collect();
    let free = 3 - first[0] - first[1];
    let other = eventually("the other pool", || {
        trio.clusters[0].pool("other").workers().pop()
    });
    assert_eq!(other.await.node.as_str(), NAMES[free]);

    within("the end", members[first[0]].drain()).await;
    let second = eventually("the next worker", || {
        let workers = pool(&trio, 0).workers();
        let is_at = |at: usize| {
            workers
                .iter()
                .any(|worker| worker.node.as_str() == NAMES[at])
        };
        (workers.len() == 2 && is_at(free) && is_at(first[1])).then_some(workers)
    })
    .await;
    assert_eq!(second.len(), 2);
    // The other pool makes room.
    eventually("the other pool", || {
        let workers = trio.clusters[0].pool("other").workers();
        let at = workers.first()?.node.as_str() == NAMES[first[0]];
        (workers.len() == 1 && at).then_some(())
    })
    .await;
    drop(others);
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

/// Counters, and how many commands were done.
#[derive(Default, Serialize, Deserialize)]
struct Counters {
    counters: BTreeMap<String, i64>,
    done: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Count {
    Add(String, i64),
    Panic,
}

impl StateMachine for Counters {
    type Command = Count;
    type Reply = i64;

    fn handle_command(&mut self, command: Count) -> i64 {
        let Count::Add(name, count) = command else {
            panic!("on purpose");
        };
        self.done += 1;
        let counter = self.counters.entry(name).or_default();
        *counter += count;
        *counter
    }
}

fn counters(cluster: &ClusterHandle) -> MachineHandle<Counters> {
    let machine = cluster.machine("counters").snapshot_every(20);
    let machine = machine.start(Counters::default).unwrap();
    machine.timeout(DEADLINE)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_have_one_state_and_one_that_starts_again_begins_with_a_snapshot() {
    let trio = Trio::start().await;
    let mut machines: Vec<_> = trio.clusters.iter().map(counters).collect();
    let add = |name: &str| Count::Add(name.to_owned(), 1);

    // Callers on all nodes at once.
    let mut callers = tokio::task::JoinSet::new();
    for (at, machine) in machines.iter().enumerate() {
        for caller in 0..5 {
            let (machine, name) = (machine.clone(), format!("{at}:{caller}"));
            callers.spawn(async move {
                for number in 1..=10 {
                    let reply = machine.command(&Count::Add(name.clone(), 1)).await;
                    assert_eq!(reply.unwrap(), number, "{name}");
                }
            });
        }
    }
    while let Some(done) = within("the callers", callers.join_next()).await {
        done.unwrap();
    }
    let linear = Consistency::Linearizable;
    for machine in &machines {
        let done = machine.query_with(linear, |state| state.done).await;
        assert_eq!(done.unwrap(), 150);
    }

    // One ends, misses what is in a snapshot by then, and has it all the same.
    machines[2].stop().await;
    let gone = machines[2].query(|state| state.done).await;
    assert!(matches!(gone, Err(LeadershipError::Ended)));
    for _ in 0..60 {
        machines[0].command(&add("late")).await.unwrap();
    }
    machines[2] = counters(&trio.clusters[2]);
    let late = machines[2]
        .query_with(linear, |state| state.counters["late"])
        .await;
    assert_eq!(late.unwrap(), 60);
    within("the same state", async {
        loop {
            let mut infos = Vec::new();
            for machine in &machines {
                infos.push(machine.info().await.unwrap());
            }
            if infos.iter().all(|info| info.snapshot > Some(150)) {
                assert!(infos.iter().all(|info| info.commands == 210), "{infos:?}");
                assert!(infos.iter().all(|info| info.digest == infos[0].digest));
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    // A command that panics ends it everywhere, and again where it is started again.
    let poisoned = machines[0].command(&Count::Panic).await;
    assert!(matches!(
        poisoned,
        Err(LeadershipError::Ended | LeadershipError::Unknown)
    ));
    for (at, machine) in machines.iter().enumerate() {
        within("its end", trio.nodes[at].wait_for_end(machine.pid())).await;
    }
    let again = counters(&trio.clusters[1]);
    within("its end", trio.nodes[1].wait_for_end(again.pid())).await;
    trio.stop().await;
}

#[tokio::test]
async fn a_machine_needs_a_name_and_a_group() {
    let node = start("alone@127.0.0.1", &[]).await;
    let cluster = node.cluster(ClusterConfig::lan()).await.unwrap();
    let refused = cluster.machine("a/b").start(Counters::default);
    assert!(matches!(refused, Err(LeadershipError::Refused(_))));
    let refused = cluster.machine("a").start(Counters::default);
    assert!(matches!(refused, Err(LeadershipError::NoGroup)));
    node.stop().await;
}
