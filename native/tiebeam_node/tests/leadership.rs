//! Leader, keys, locks and strong names on real Rust nodes. Nodes are found by address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_node::{
    ClusterConfig, ClusterError, ClusterEvent, ClusterHandle, Config, Consistency, Cookie,
    EpmdMode, Expected, GroupCondition, KvChange, Leader, LeadershipError, MissingVoters, Name,
    Node, NodeName, OnFollower, Process, Signal, StoreError, StrongEvent, Term, Timing, Token,
};

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
        .join(NAMES)
        .voters(NAMES)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come in time: {what}"),
    }
}

/// A node that knows where others are.
async fn start(name: &str, others: &[(String, u16)]) -> Node {
    let mut config = Config::new(name, Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for (other, port) in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        config.addresses.insert(other.clone(), address);
    }
    Node::start(config).await.unwrap()
}

/// A directory that is removed with its test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiebeam-leadership-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn of(&self, node: &str) -> PathBuf {
        self.0.join(node)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Trio {
    nodes: Vec<Node>,
    clusters: Vec<ClusterHandle>,
}

impl Trio {
    async fn start(directory: Option<&Directory>) -> Self {
        let mut known: Vec<(String, u16)> = Vec::new();
        let (mut nodes, mut clusters) = (Vec::new(), Vec::new());
        for name in NAMES {
            let node = start(name, &known).await;
            known.push((name.to_owned(), node.port()));
            let mut config = settings();
            if let Some(directory) = directory {
                config = config.data_dir(directory.of(name));
            }
            clusters.push(node.cluster(config).await.unwrap());
            nodes.push(node);
        }
        Self { nodes, clusters }
    }

    /// Waits until one of them leads, with a lease: which.
    async fn leader(&self) -> usize {
        let of = |cluster: &ClusterHandle| cluster.leader().is_leader().is_some();
        within("a leader", async {
            loop {
                if let Some(at) = self.clusters.iter().position(of) {
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until this one leads, with a lease.
    async fn leads(&self, at: usize) {
        within("this leader", async {
            while self.clusters[at].leader().is_leader().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Ends the cluster's process on a node, as a crash would: nobody hears of it.
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

/// Looks all the time at who says that it leads.
struct Watchman {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(usize, Token)>>>,
    thread: std::thread::JoinHandle<Option<String>>,
}

impl Watchman {
    fn of(trio: &Trio) -> Self {
        let leaders: Vec<Leader> = trio.clusters.iter().map(ClusterHandle::leader).collect();
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (stopped, saw) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (at, leader) in leaders.iter().enumerate() {
                    let Some(token) = leader.is_leader() else {
                        continue;
                    };
                    for (other, rival) in leaders.iter().enumerate() {
                        // Before it and after it the first one led: in between nobody else may.
                        let rival = (other != at).then(|| rival.is_leader()).flatten();
                        if rival.is_some() && leader.is_leader() == Some(token) {
                            return Some(format!("{at} under {token}, {other} under {rival:?}"));
                        }
                    }
                    let mut seen = saw.lock().unwrap();
                    if seen.last() != Some(&(at, token)) {
                        seen.push((at, token));
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            None
        });
        Self { stop, seen, thread }
    }

    /// Waits until it has seen so many leaders, or two at once.
    async fn saw(&self, leaders: usize) {
        within("what the watchman sees", async {
            while self.seen.lock().unwrap().len() < leaders && !self.thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Panics if two led at once.
    fn report(self) {
        self.stop.store(true, Ordering::Relaxed);
        let two = self.thread.join().unwrap();
        assert_eq!(two, None, "two nodes led at once");
        let seen = self.seen.lock().unwrap();
        assert!(
            seen.is_sorted_by(|a, b| a.1 < b.1 || a == b),
            "tokens only grow: {seen:?}"
        );
    }
}

/// Puts until it is acknowledged.
async fn put(cluster: &ClusterHandle, key: &str, value: i64) -> u64 {
    let kv = cluster.kv().timeout(Duration::from_secs(2));
    within("an acknowledged write", async {
        loop {
            match kv.put(key, &value).await {
                Ok(revision) => return revision,
                Err(
                    LeadershipError::NoQuorum
                    | LeadershipError::NotFounded(_)
                    | LeadershipError::Unknown,
                ) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

async fn get(cluster: &ClusterHandle, key: &str) -> Option<i64> {
    let kv = cluster.kv().timeout(Duration::from_secs(2));
    within("a read", async {
        loop {
            match kv.get(key).await {
                Ok(found) => return found.map(|found| found.value),
                Err(
                    LeadershipError::NoQuorum
                    | LeadershipError::NotFounded(_)
                    | LeadershipError::Unknown,
                ) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_on_a_leader_and_on_keys() {
    let trio = Trio::start(None).await;
    let at = trio.leader().await;
    let [a, b, c] = [0, 1, 2].map(|at| &trio.clusters[at]);
    for cluster in [a, b, c] {
        let mut changes = cluster.leader().watch();
        within("the leader", async {
            loop {
                let change = changes.recv().await.expect("a driver");
                if change
                    .leader
                    .is_some_and(|leader| leader.as_str() == NAMES[at])
                {
                    return;
                }
            }
        })
        .await;
        let (leader, term) = cluster.leader().current().expect("a leader");
        assert_eq!((leader.as_str(), term > 0), (NAMES[at], true));
    }

    let mut watch = c.kv().watch("user:").await.unwrap();
    let first = put(a, "user:1", 7).await;
    let found = b.kv().get::<i64>("user:1").await.unwrap().unwrap();
    assert_eq!((found.value, found.revision), (7, first));
    let local = c.kv().consistency(Consistency::AtLeast(first));
    assert_eq!(local.get::<i64>("user:1").await.unwrap().unwrap().value, 7);
    // It has the entry, so the table does.
    let local = c.kv().consistency(Consistency::Local);
    assert_eq!(local.get::<i64>("user:1").await.unwrap().unwrap().value, 7);

    let cas = b.kv().cas("user:1", Expected::Revision(first), &8).await;
    let second = cas.unwrap();
    let stale = a.kv().cas("user:1", Expected::Revision(first), &9).await;
    assert!(
        matches!(stale, Err(LeadershipError::Differs { revision }) if revision == second),
        "{stale:?}"
    );
    let taken = a.kv().cas("user:1", Expected::Absent, &9).await;
    assert!(matches!(taken, Err(LeadershipError::Differs { .. })));
    let eight = Expected::value(&8).unwrap();
    let third = a.kv().cas("user:1", eight, &9).await.unwrap();
    put(b, "user:2", 2).await;
    put(b, "other", 3).await;
    let listed = c.kv().list("user:").await.unwrap();
    let listed = listed
        .iter()
        .map(|entry| (entry.key_text().into_owned(), entry.value::<i64>().unwrap()));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [("user:1".to_owned(), 9), ("user:2".to_owned(), 2)]
    );
    a.kv().delete("user:1").await.unwrap();
    assert_eq!(get(c, "user:1").await, None);
    // Who does not lead may be told not to forward: at most one of them does.
    let mut refused = 0;
    for cluster in [a, b, c] {
        let kv = cluster.kv().on_follower(OnFollower::Error);
        let put = kv.put("refused", &1).await;
        refused += usize::from(matches!(put, Err(LeadershipError::NotLeader { .. })));
    }
    assert!(refused > 0, "three nodes lead");

    let mut seen = Vec::new();
    while seen.len() < 5 {
        match within("a change", watch.recv()).await.expect("a driver") {
            KvChange::Put(entry) => seen.push((entry.key_text().into_owned(), entry.value().ok())),
            KvChange::Deleted { key, .. } => {
                seen.push((String::from_utf8(key).unwrap(), None::<i64>));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        ("user:1", Some(7)),
        ("user:1", Some(8)),
        ("user:1", Some(9)),
        ("user:2", Some(2)),
        ("user:1", None),
    ];
    assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value)));
    assert!(third > second && second > first);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_when_the_leader_is_killed() {
    let trio = Trio::start(None).await;
    let first = trio.leader().await;
    let watchman = Watchman::of(&trio);
    let token = trio.clusters[first].leader().is_leader();
    put(&trio.clusters[first], "k", 1).await;
    watchman.saw(1).await;
    trio.kill(first);
    let other = &trio.clusters[(first + 1) % 3];
    assert_eq!(get(other, "k").await, Some(1));
    put(other, "k", 2).await;
    let next = trio.leader().await;
    assert_ne!(next, first);
    assert!(trio.clusters[next].leader().is_leader() > token);
    assert_eq!(trio.clusters[first].leader().is_leader(), None);
    watchman.saw(2).await;
    watchman.report();
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_and_work_that_needs_it_given_up() {
    let trio = Trio::start(None).await;
    let first = trio.leader().await;
    let watchman = Watchman::of(&trio);
    let leader = trio.clusters[first].leader();
    let to = (first + 1) % 3;
    let (started, begun) = tokio::sync::oneshot::channel();
    let work = {
        let leader = leader.clone();
        tokio::spawn(async move {
            let work = |token| async move {
                let _ = started.send(token);
                std::future::pending::<()>().await
            };
            leader.with_leadership(work).await
        })
    };
    within("the work", begun).await.unwrap();
    let term = leader.step_down(Some(NAMES[to])).await.unwrap();
    let lost = within("the end of the work", work).await.unwrap();
    assert!(matches!(lost, Err(LeadershipError::Lost)), "{lost:?}");
    trio.leads(to).await;
    assert_eq!(trio.clusters[to].leader().is_leader(), Some(Token(term)));
    let refused = leader.with_leadership(|_| async {}).await;
    assert!(
        matches!(refused, Err(LeadershipError::NotLeader { .. })),
        "{refused:?}"
    );
    let leads = trio.clusters[to].leader();
    let done = leads.with_leadership(|token| async move { token }).await;
    assert_eq!(done.unwrap(), Token(term));
    // Asked of a node that does not lead, the leader is told.
    let back = leader.step_down(Some(NAMES[first])).await.unwrap();
    assert!(back > term);
    trio.leads(first).await;
    let nobody = leader.step_down(Some("nobody@127.0.0.1")).await;
    assert!(nobody.is_err());
    watchman.report();
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_on_disk() {
    let directory = Directory::new();
    let trio = Trio::start(Some(&directory)).await;
    let mut revision = 0;
    for number in 0..20 {
        revision = put(
            &trio.clusters[number % 3],
            &format!("k{number}"),
            number as i64,
        )
        .await;
    }
    // All at once, and nobody says farewell.
    for at in 0..3 {
        trio.kill(at);
    }
    trio.stop().await;
    let trio = Trio::start(Some(&directory)).await;
    for number in 0..20 {
        let found = get(&trio.clusters[0], &format!("k{number}")).await;
        assert_eq!(found, Some(number));
    }
    assert!(put(&trio.clusters[1], "k0", 100).await > revision);
    trio.stop().await;
}

/// Waits until the members are these.
async fn consists(cluster: &ClusterHandle, voters: &[&str], learners: &[&str]) {
    within("the members of the group", async {
        loop {
            let (votes, learns) = cluster.leader().composition();
            let equal = |nodes: &[NodeName], names: &[&str]| {
                nodes.iter().map(NodeName::as_str).eq(names.iter().copied())
            };
            if equal(&votes, voters) && equal(&learns, learners) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

const D: &str = "d@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_learns_and_votes_when_it_is_told_to() {
    let trio = Trio::start(None).await;
    trio.leader().await;
    put(&trio.clusters[0], "k", 1).await;
    let known: Vec<(String, u16)> = trio
        .nodes
        .iter()
        .map(|node| (node.name().as_str().to_owned(), node.port()))
        .collect();
    let node = start(D, &known).await;
    let d = node.cluster(settings()).await.unwrap();
    consists(&trio.clusters[0], &NAMES, &[D]).await;
    let local = d.kv().consistency(Consistency::Local);
    within("what was there before", async {
        while local.get::<i64>("k").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // It has no vote, but a voice.
    put(&d, "k", 2).await;
    assert_eq!(get(&trio.clusters[1], "k").await, Some(2));

    let leader = trio.clusters[0].leader().timeout(DEADLINE);
    leader.add_voter(D).await.unwrap();
    consists(&trio.clusters[1], &[NAMES[0], NAMES[1], NAMES[2], D], &[]).await;
    let members = leader.members().await.unwrap();
    assert_eq!(members.iter().filter(|member| member.voter).count(), 4);
    leader.remove_voter(D).await.unwrap();
    consists(&trio.clusters[1], &NAMES, &[D]).await;
    let nobody = leader.add_voter("nobody@127.0.0.1").await;
    assert!(
        matches!(nobody, Err(LeadershipError::NoMember(_))),
        "{nobody:?}"
    );
    node.stop().await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_node_of_a_group_founds_it_anew_with_what_it_has() {
    let directory = Directory::new();
    let trio = Trio::start(Some(&directory)).await;
    trio.leader().await;
    let revision = put(&trio.clusters[0], "k", 1).await;
    let last = trio.clusters[2].clone();
    let has = last
        .kv()
        .timeout(DEADLINE)
        .consistency(Consistency::AtLeast(revision));
    assert!(has.get::<i64>("k").await.unwrap().is_some());
    trio.kill(0);
    trio.kill(1);
    let short = last.kv().timeout(Duration::from_millis(500));
    assert!(short.put("k", &2).await.is_err());
    let leader = last.leader().timeout(DEADLINE);
    leader.force_new_cluster().await.unwrap();
    consists(&last, &NAMES[2..], &[]).await;
    assert_eq!(get(&last, "k").await, Some(1));
    assert!(put(&last, "k", 3).await > revision);
    // Also after a start.
    trio.kill(2);
    trio.nodes[2].stop().await;
    let node = start(NAMES[2], &[]).await;
    let path = directory.of(NAMES[2]);
    let again = node.cluster(settings().data_dir(path)).await.unwrap();
    assert_eq!(get(&again, "k").await, Some(3));
    node.stop().await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_node() {
    let directory = Directory::new();
    let a = start(NAMES[0], &[]).await;
    let of = |path: &Path| settings().data_dir(path);
    let path = directory.of("a");
    let cluster = a.cluster(of(&path)).await.unwrap();
    let b = start(NAMES[1], &[]).await;
    let error = b.cluster(of(&path)).await.unwrap_err();
    let ClusterError::Store(error) = error else {
        panic!("{error}");
    };
    assert!(matches!(*error, StoreError::InUse { .. }), "{error}");
    drop(cluster);
    a.stop().await;
    let error = b.cluster(of(&path)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("belongs to a@127.0.0.1"), "{text}");
    let error = b.cluster(ClusterConfig::lan().data_dir(&path)).await;
    assert!(matches!(error, Err(ClusterError::NothingToKeep)));
    // What failed left nothing behind.
    b.cluster(of(&directory.of("b"))).await.unwrap();
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_and_goes_with_it() {
    let trio = Trio::start(None).await;
    trio.leader().await;
    let [a, b, c] = [0, 1, 2].map(|at| trio.clusters[at].locks());
    let lock = within("the lock", a.acquire("billing", None))
        .await
        .unwrap();
    let first = lock.token();
    let held = b.try_acquire("billing", None).await;
    assert!(
        matches!(held, Err(LeadershipError::Held { token, .. }) if token == first),
        "{held:?}"
    );
    let holder = b.holder("billing").await.unwrap().expect("a holder");
    assert_eq!(holder.token, first);
    assert_eq!(holder.pid.unwrap().node, *trio.nodes[0].name());

    // The one that waits has it as soon as the guard is dropped.
    let waiting = tokio::spawn(async move { b.acquire("billing", None).await });
    drop(lock);
    let mut lock = within("the lock", waiting).await.unwrap().unwrap();
    assert!(lock.token() > first && lock.is_held());
    let second = lock.token();
    lock.release().await.unwrap();
    let third = within(
        "the lock",
        c.with("billing", None, |token| async move { token }),
    )
    .await;
    assert!(third.unwrap() > second);
    let free = a.holder("billing").await.unwrap();
    assert_eq!(free, None);

    // The time of a lock is over, unless it is renewed.
    let ttl = Duration::from_millis(600);
    let mut short = a.acquire("short", Some(ttl)).await.unwrap();
    short.renew(ttl).await.unwrap();
    within("the end of the lock", short.lost()).await;
    assert!(!short.is_held());
    assert!(matches!(
        short.renew(ttl).await,
        Err(LeadershipError::NotHeld)
    ));
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_reach_a_majority_is_told_that_its_locks_are_lost() {
    let trio = Trio::start(None).await;
    let leader = trio.leader().await;
    let locks = trio.clusters[leader].locks();
    let mut lock = within("the lock", locks.acquire("billing", None))
        .await
        .unwrap();
    for at in [1, 2].map(|step| (leader + step) % 3) {
        trio.kill(at);
    }
    within("the loss", lock.lost()).await;
    assert!(!lock.is_held());
    let short = locks.timeout(Duration::from_millis(300));
    let refused = short.acquire("other", None).await;
    assert!(
        matches!(
            refused,
            Err(LeadershipError::NoQuorum | LeadershipError::Unknown)
        ),
        "{refused:?}"
    );
    assert_eq!(trio.clusters[leader].leader().is_leader(), None);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strong_name_has_one_process() {
    let trio = Trio::start(None).await;
    trio.leader().await;
    let [a, b, _] = [0, 1, 2].map(|at| trio.clusters[at].registry().strong());
    let ledger = trio.nodes[0].spawn_anonymous().unwrap();
    let rival = trio.nodes[1].spawn_anonymous().unwrap();
    let token = a.register_with("ledger", ledger.pid(), &7).await.unwrap();
    let held = b.register("ledger", rival.pid()).await;
    assert!(
        matches!(held, Err(LeadershipError::Held { .. })),
        "{held:?}"
    );
    let elsewhere = b.register("ledger", ledger.pid()).await;
    assert!(matches!(elsewhere, Err(LeadershipError::Elsewhere { .. })));
    let found = b.holder("ledger").await.unwrap().expect("a holder");
    assert_eq!((&found.pid, found.token), (ledger.pid(), token));
    assert_eq!(found.meta::<i64>().unwrap(), 7);
    within("the name here", async {
        while b.whereis("ledger").as_ref() != Some(ledger.pid()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    // With its process it goes.
    drop(ledger);
    let taken = within("the name", async {
        loop {
            match b.register("ledger", rival.pid()).await {
                Ok(token) => return token,
                Err(LeadershipError::Held { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert!(taken > token);
    b.unregister("ledger", taken).await.unwrap();
    assert_eq!(a.holder("ledger").await.unwrap(), None);
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strong_names_are_awaited_updated_and_told_of() {
    let trio = Trio::start(None).await;
    trio.leader().await;
    let [a, b, _] = [0, 1, 2].map(|at| trio.clusters[at].registry().strong());
    let mut events = b.subscribe();
    let nobody = b.await_name("ledger", Duration::from_millis(10)).await;
    assert_eq!(nobody.unwrap(), None);
    let awaited = tokio::spawn({
        let b = b.clone();
        async move { b.await_name("ledger", DEADLINE).await }
    });
    let ledger = trio.nodes[0].spawn_anonymous().unwrap();
    let token = a.register_with("ledger", ledger.pid(), &1).await.unwrap();
    let found = within("the name", awaited).await.unwrap().unwrap();
    let found = found.expect("a process");
    assert_eq!((&found.pid, found.token), (ledger.pid(), token));

    a.update_meta("ledger", &2).await.unwrap();
    let mine = a.lookup("ledger").expect("a process");
    assert_eq!((mine.token, mine.meta::<i64>().unwrap()), (token, 2));
    let there = b.update_meta("ledger", &3).await;
    let elsewhere = |there| {
        matches!(
            there,
            Err(LeadershipError::Elsewhere { .. } | LeadershipError::NotHeld)
        )
    };
    assert!(elsewhere(there));
    a.unregister("ledger", token).await.unwrap();
    let gone = a.update_meta("ledger", &4).await;
    assert!(matches!(gone, Err(LeadershipError::NotHeld)), "{gone:?}");

    for (what, meta) in [("registered", 1), ("updated", 2), ("unregistered", 2)] {
        let event = within(what, events.recv()).await.expect("a driver");
        let (told, name, registration) = match event {
            StrongEvent::Registered { name, registration } => ("registered", name, registration),
            StrongEvent::Updated { name, registration } => ("updated", name, registration),
            StrongEvent::Unregistered { name, registration } => {
                ("unregistered", name, registration)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((told, name), (what, Name::from("ledger")));
        assert_eq!(registration.meta::<i64>().unwrap(), meta);
        assert_eq!(registration.token, token);
    }
    trio.stop().await;
    assert_eq!(within("the end", events.recv()).await, None);
}

async fn ask(visitor: &Node, at: usize, request: &str) -> String {
    let request = Term::parse(request).unwrap();
    let reply = visitor.call_term(("tiebeam", NAMES[at]), request, DEADLINE);
    reply.await.unwrap().to_string()
}

async fn told(process: &mut Process) -> String {
    match within("an event", process.recv()).await {
        Some(Signal::Message(message)) => message.to_string(),
        other => panic!("{other:?}"),
    }
}

/// As a plain BEAM node would: `GenServer.call({:tiebeam, node}, ...)`.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_may_ask_a_member() {
    let trio = Trio::start(None).await;
    let leader = trio.leader().await;
    let follower = (leader + 1) % 3;
    let known: Vec<(String, u16)> = trio
        .nodes
        .iter()
        .map(|node| (node.name().as_str().to_owned(), node.port()))
        .collect();
    let visitor = start("visitor@127.0.0.1", &known).await;
    let (_, term) = trio.clusters[leader].leader().current().unwrap();
    assert_eq!(
        ask(&visitor, leader, "leader").await,
        format!("{{ok,'{}',{term}}}", NAMES[leader])
    );
    let mut follows = visitor.spawn_anonymous().unwrap();
    let subscribe = Term::tuple([Term::atom("subscribe_leader"), Term::from(follows.pid())]);
    let subscribed = visitor.call_term(("tiebeam", NAMES[follower]), subscribe, DEADLINE);
    assert_eq!(subscribed.await.unwrap(), Term::atom("ok"));
    let now = told(&mut follows).await;
    let event = |at: usize, term: u64| {
        format!(
            "{{tiebeam,<<\"default\">>,{{leader,'{}',{term}}}}}",
            NAMES[at]
        )
    };
    assert_eq!(now, event(leader, term));

    let revision = ask(&visitor, follower, "{kv, put, <<\"k\">>, {user, 1}}").await;
    let revision = revision.trim_start_matches("{ok,").trim_end_matches('}');
    assert_eq!(
        ask(&visitor, leader, "{kv, get, <<\"k\">>}").await,
        format!("{{ok,{{user,1}},{revision}}}")
    );
    assert_eq!(
        ask(&visitor, leader, "{kv, list, <<>>}").await,
        format!("{{ok,[{{<<\"k\">>,{{user,1}},{revision}}}]}}")
    );
    let deleted = ask(&visitor, leader, "{kv, delete, <<\"k\">>}").await;
    assert!(deleted.starts_with("{ok,"), "{deleted}");
    assert_eq!(
        ask(&visitor, follower, "{kv, get, <<\"k\">>}").await,
        "not_found"
    );
    let refused = ask(&visitor, follower, "{kv, get, k}").await;
    assert!(refused.starts_with("{error,{invalid,"), "{refused}");

    let lock = trio.clusters[leader]
        .locks()
        .acquire("l", None)
        .await
        .unwrap();
    let locks = ask(&visitor, leader, "locks").await;
    let expected = format!("[{{<<\"l\">>,{},", lock.token());
    assert!(
        locks.starts_with(&expected) && locks.ends_with(",nil}]"),
        "{locks}"
    );

    let leads = trio.clusters[leader].leader();
    let next = leads.step_down(Some(NAMES[follower])).await.unwrap();
    while told(&mut follows).await != event(follower, next) {}
    visitor.stop().await;
    trio.stop().await;
}

#[tokio::test]
async fn a_node_without_voters_says_so() {
    let node = start(NAMES[0], &[]).await;
    let cluster = node.cluster(ClusterConfig::lan()).await.unwrap();
    assert_eq!(cluster.group_condition(), None);
    let put = cluster.kv().put("k", &1).await;
    assert!(matches!(put, Err(LeadershipError::NoGroup)), "{put:?}");
    let local = cluster.kv().consistency(Consistency::Local);
    let read = local.get::<i64>("k").await;
    assert!(matches!(read, Err(LeadershipError::NoGroup)), "{read:?}");
    assert_eq!(cluster.leader().is_leader(), None);
    assert_eq!(cluster.leader().current(), None);
    node.stop().await;
}

#[tokio::test]
async fn who_is_missing_before_a_group_is_founded_is_said() {
    let node = start(NAMES[0], &[]).await;
    let cluster = node.cluster(settings()).await.unwrap();
    let missing = MissingVoters::Voters(Vec::from(
        [NAMES[1], NAMES[2]].map(|name| NodeName::parse(name).unwrap()),
    ));
    let kv = cluster.kv().timeout(Duration::from_millis(50));
    let put = kv.put("k", &1).await.unwrap_err();
    assert!(
        matches!(&put, LeadershipError::NotFounded(they) if *they == missing),
        "{put:?}"
    );
    assert!(
        put.to_string().contains("b@127.0.0.1, c@127.0.0.1"),
        "{put}"
    );
    assert_eq!(
        cluster.group_condition(),
        Some(GroupCondition::Unfounded(missing))
    );
    node.stop().await;
}

/// One voter is a majority of itself.
#[tokio::test]
async fn a_cluster_of_one_leads_itself() {
    let node = start(NAMES[0], &[]).await;
    let cluster = node.cluster(ClusterConfig::lan().expect(1)).await.unwrap();
    let mut events = cluster.subscribe();
    let revision = put(&cluster, "k", 1).await;
    assert!(revision > 0);
    within("the event", async {
        while !matches!(
            events.recv().await.expect("a driver"),
            ClusterEvent::Leader {
                leader: Some(_),
                ..
            }
        ) {}
    })
    .await;
    cluster.leave().await;
    let after = cluster.kv().put("k", &2).await;
    assert!(matches!(after, Err(LeadershipError::Left)), "{after:?}");
    node.stop().await;
}
