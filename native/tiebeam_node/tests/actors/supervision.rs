//! What a supervisor does for its children, and what others see of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tiebeam_node::{
    Backoff, ChildCounts, ChildError, ChildId, ChildKind, ChildSpec, ChildStatus, Restart,
    Shutdown, SpawnError, Strategy, Supervisor, SupervisorRef,
};
use tokio::net::TcpListener;

use super::*;

fn counter(name: &'static str) -> ChildSpec {
    ChildSpec::server(name, Counter::default).named(name)
}

async fn killed(node: &Node, name: &str) -> Pid {
    let pid = node.whereis(name).expect("it runs");
    node.send_exit(&pid, Term::atom("kill"));
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn each_strategy_restarts_its_group() {
    for (strategy, restarted) in [
        (Strategy::OneForOne, ["b"].as_slice()),
        (Strategy::RestForOne, &["b", "c"]),
        (Strategy::OneForAll, &["a", "b", "c"]),
    ] {
        let node = start_node("strategies", &[]).await;
        let supervisor = Supervisor::new(strategy)
            .child(counter("a"))
            .child(counter("b"))
            .child(counter("c"));
        let supervisor = supervisor.start(&node).await.unwrap();
        let before = ["a", "b", "c"].map(|name| (name, node.whereis(name).unwrap()));
        let killed = killed(&node, "b").await;
        successor(&node, "b", &killed).await;
        for (name, pid) in &before {
            if restarted.contains(name) {
                successor(&node, name, pid).await;
            } else {
                assert_eq!(node.whereis(name).as_ref(), Some(pid), "{strategy:?}");
            }
        }
        let running = || async { supervisor.count_children().await.unwrap().active == 3 };
        while !running().await {
            tokio::task::yield_now().await;
        }
        node.stop().await;
    }
}

/// Writes down when it starts and when it ends.
struct Diary {
    name: &'static str,
    pages: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    fn write(&self, what: &str) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.push(format!("{} {what}", self.name));
    }
}

impl GenServer for Diary {
    type Call = ();
    type Cast = ();
    type Reply = ();

    async fn init(&mut self, process: &Process) -> Result<(), Term> {
        process.trap_exit(true);
        // So that who does not wait for it is found out.
        tokio::task::yield_now().await;
        self.write("starts");
        Ok(())
    }

    async fn handle_call(&mut self, (): (), _: &ReplyTo, _: &Process) -> Answer<()> {
        Answer::Reply(())
    }

    async fn terminate(&mut self, reason: &Term, _: &Process) {
        tokio::task::yield_now().await;
        self.write(&format!("ends: {reason}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_start_in_order_and_end_in_reverse_also_in_nested_trees() {
    let node = start_node("order", &[]).await;
    let pages: Arc<Mutex<Vec<String>>> = Arc::default();
    let diary = |name: &'static str| {
        let pages = Arc::clone(&pages);
        ChildSpec::server(name, move || Diary {
            name,
            pages: Arc::clone(&pages),
        })
    };
    let inner = Supervisor::new(Strategy::OneForOne)
        .child(diary("inner 1"))
        .child(diary("inner 2"));
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(diary("first"))
        .child(ChildSpec::supervisor("inner", inner))
        .child(diary("last"));
    let supervisor = supervisor.start(&node).await.unwrap();
    let counts = ChildCounts {
        specs: 3,
        active: 3,
        supervisors: 1,
        workers: 2,
    };
    assert_eq!(supervisor.count_children().await, Ok(counts));
    supervisor.stop().await;
    assert_eq!(
        *pages.lock().unwrap(),
        [
            "first starts",
            "inner 1 starts",
            "inner 2 starts",
            "last starts",
            "last ends: shutdown",
            "inner 2 ends: shutdown",
            "inner 1 ends: shutdown",
            "first ends: shutdown",
        ]
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_start_undoes_the_supervisor() {
    struct Broken;
    impl GenServer for Broken {
        type Call = ();
        type Cast = ();
        type Reply = ();
        async fn init(&mut self, _: &Process) -> Result<(), Term> {
            Err(Term::atom("no_disk"))
        }
        async fn handle_call(&mut self, (): (), _: &ReplyTo, _: &Process) -> Answer<()> {
            Answer::Reply(())
        }
    }
    let node = start_node("undone", &[]).await;
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .named("sup")
        .child(counter("fine"))
        .child(ChildSpec::server("broken", || Broken));
    let Err(SpawnError::Init(reason)) = supervisor.start(&node).await else {
        panic!("it started");
    };
    let expected = "{shutdown, {failed_to_start_child, broken, no_disk}}";
    assert_eq!(reason, term(expected));
    assert_eq!(node.whereis("fine"), None);

    let panics = ChildSpec::server("panics", || -> Counter { panic!("as the test asked") });
    let Err(SpawnError::Init(reason)) = Supervisor::new(Strategy::OneForOne)
        .child(panics)
        .start(&node)
        .await
    else {
        panic!("it started");
    };
    let expected =
        "{shutdown, {failed_to_start_child, panics, {panic, <<\"as the test asked\">>}}}";
    assert_eq!(reason, term(expected));

    let twice = Supervisor::new(Strategy::OneForOne)
        .child(counter("one"))
        .child(counter("one"));
    let Err(SpawnError::Init(reason)) = twice.start(&node).await else {
        panic!("it started");
    };
    assert_eq!(reason, term("{start_spec, {duplicate_child_name, one}}"));
    node.stop().await;
}

/// Who links to a supervisor or monitors it sees what it would see of one of OTP's.
#[tokio::test(flavor = "multi_thread")]
async fn others_see_why_a_supervisor_ends() {
    let node = start_node("reasons", &[]).await;
    let mut witness = node.spawn_anonymous().unwrap();
    witness.trap_exit(true);
    let tree = Supervisor::new(Strategy::OneForOne)
        .intensity(1, Duration::from_secs(60))
        .child(counter("worker"));
    let reason_of = async |witness: &mut Process, supervisor: &Pid| {
        let (mut exit, mut down) = (None, None);
        while exit.is_none() || down.is_none() {
            match next(witness).await {
                Signal::Exit { from, reason } if from == *supervisor => exit = Some(reason),
                Signal::Down { reason, .. } => down = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(exit, down);
        assert_eq!(node.whereis("worker"), None, "no child outlives it");
        exit.unwrap()
    };

    // Too many restarts.
    let supervisor = tree.start(&node).await.unwrap();
    witness.link(&supervisor.pid());
    witness.monitor(supervisor.pid());
    let first = killed(&node, "worker").await;
    let second = successor(&node, "worker", &first).await;
    node.send_exit(&second, Term::atom("kill"));
    let reason = reason_of(&mut witness, &supervisor.pid()).await;
    assert_eq!(reason, term("shutdown"));

    // Killed.
    let supervisor = tree.start(&node).await.unwrap();
    witness.link(&supervisor.pid());
    witness.monitor(supervisor.pid());
    node.send_exit(&supervisor.pid(), Term::atom("kill"));
    let reason = reason_of(&mut witness, &supervisor.pid()).await;
    assert_eq!(reason, term("killed"));

    // Its parent ends: it ends for the same reason.
    let parent = node.spawn_anonymous().unwrap();
    let supervisor = tree.start_linked(&parent).await.unwrap();
    witness.link(&supervisor.pid());
    witness.monitor(supervisor.pid());
    parent.exit(term("{shutdown, moved}"));
    let reason = reason_of(&mut witness, &supervisor.pid()).await;
    assert_eq!(reason, term("{shutdown, moved}"));

    // `exit/2` by others is no reason to end, as for any process that traps exits.
    let supervisor = tree.start(&node).await.unwrap();
    witness.link(&supervisor.pid());
    witness.monitor(supervisor.pid());
    witness.send_exit(&supervisor.pid(), Term::atom("shutdown"));
    assert_eq!(supervisor.count_children().await.unwrap().active, 1);

    // `Supervisor.stop`.
    supervisor.stop().await;
    let reason = reason_of(&mut witness, &supervisor.pid()).await;
    assert_eq!(reason, term("shutdown"));
    assert_eq!(supervisor.which_children().await, Err(ChildError::Ended));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_gives_up_is_restarted_by_the_one_above() {
    let node = start_node("nested", &[]).await;
    let inner = Supervisor::new(Strategy::OneForOne)
        .intensity(0, Duration::from_secs(1))
        .named("inner")
        .child(counter("a"))
        .child(counter("b"));
    let outer = Supervisor::new(Strategy::OneForOne).child(ChildSpec::supervisor("inner", inner));
    let outer = outer.start(&node).await.unwrap();
    let handle = node.supervisor("inner").unwrap();
    let (inner, a, b) = (
        handle.pid(),
        node.whereis("a").unwrap(),
        node.whereis("b").unwrap(),
    );
    node.send_exit(&a, Term::atom("kill"));
    let again = successor(&node, "inner", &inner).await;
    successor(&node, "a", &a).await;
    successor(&node, "b", &b).await;
    assert_eq!(handle.pid(), again, "by its name it is the same");
    eventually("the inner one is ready", || node.supervisor("inner")).await;
    let info = outer.which_children().await.unwrap();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].id, ChildId::from("inner").0);
    assert_eq!(info[0].kind, ChildKind::Supervisor);
    assert_eq!(info[0].status, ChildStatus::Running(again));
    outer.stop().await;
    for name in ["inner", "a", "b"] {
        assert_eq!(node.whereis(name), None);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_come_and_go() {
    let node = start_node("dynamic", &[]).await;
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .start(&node)
        .await
        .unwrap();
    let spec = |number| ChildSpec::server(("session", number), Counter::default);
    for number in 0..100 {
        let child = spec(number).restart(Restart::Temporary);
        supervisor.start_child(child).await.unwrap();
    }
    assert_eq!(supervisor.count_children().await.unwrap().active, 100);
    let seven = supervisor.child(("session", 7)).await.unwrap();
    let again = supervisor.start_child(spec(7)).await;
    assert_eq!(again, Err(ChildError::AlreadyStarted(seven)));
    supervisor.terminate_child(("session", 7)).await.unwrap();
    assert_eq!(
        supervisor.terminate_child(("session", 7)).await,
        Err(ChildError::NotFound),
        "temporary children go with their specification"
    );

    let permanent = supervisor.start_child(spec(200)).await.unwrap();
    let running = Err(ChildError::Running);
    assert_eq!(supervisor.restart_child(("session", 200)).await, running);
    supervisor.terminate_child(("session", 200)).await.unwrap();
    assert!(!node.is_process_alive(&permanent));
    let present = Err(ChildError::AlreadyPresent);
    assert_eq!(supervisor.start_child(spec(200)).await, present);
    let restarted = supervisor.restart_child(("session", 200)).await.unwrap();
    assert_ne!(restarted, permanent);
    supervisor.terminate_child(("session", 200)).await.unwrap();
    supervisor.delete_child(("session", 200)).await.unwrap();
    let gone = Err(ChildError::NotFound);
    assert_eq!(supervisor.delete_child(("session", 200)).await, gone);

    let taken = node.spawn("taken").unwrap();
    let refused = supervisor.start_child(counter("taken")).await;
    let reason = Term::tuple([Term::atom("already_started"), Term::from(taken.pid())]);
    assert_eq!(refused, Err(ChildError::Start(reason)));
    assert_eq!(supervisor.count_children().await.unwrap().specs, 99);
    supervisor.stop().await;
    assert_eq!(
        supervisor.start_child(spec(1)).await,
        Err(ChildError::Ended)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_and_temporary_children_may_be_done() {
    let node = start_node("done", &[]).await;
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .start(&node)
        .await
        .unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let job = {
        let runs = Arc::clone(&runs);
        ChildSpec::process("job", move |_| {
            let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    Err(Term::atom("first_try"))
                } else {
                    Ok(())
                }
            }
        })
    };
    let job = job.restart(Restart::Transient);
    supervisor.start_child(job).await.unwrap();
    let is = async |id: &str, status: Option<ChildStatus>| {
        loop {
            let children = supervisor.which_children().await.unwrap();
            let id = ChildId::from(id).0;
            let child = children.into_iter().find(|child| child.id == id);
            if child.map(|child| child.status) == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let done = is("job", Some(ChildStatus::Down));
    tokio::time::timeout(DEADLINE, done).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2, "the first one failed");

    let temporary = ChildSpec::process("once", |_| async { Err(Term::atom("failed")) });
    let temporary = temporary.restart(Restart::Temporary);
    supervisor.start_child(temporary).await.unwrap();
    let gone = is("once", None);
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_end_in_time_is_killed() {
    let node = start_node("stubborn", &[]).await;
    let spec = ChildSpec::process("stubborn", |mut process| async move {
        process.trap_exit(true);
        // It sees that it should end, and goes on.
        while process.recv().await.is_some() {}
        Ok(())
    });
    let timeout = Duration::from_millis(50);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(spec.clone().shutdown(Shutdown::Timeout(timeout)))
        .start(&node)
        .await
        .unwrap();
    let pid = supervisor.child("stubborn").await.unwrap();
    let mut witness = node.spawn_anonymous().unwrap();
    witness.monitor(&pid);
    let start = Instant::now();
    supervisor.terminate_child("stubborn").await.unwrap();
    assert!(start.elapsed() >= timeout);
    let Signal::Down { reason, .. } = next(&mut witness).await else {
        panic!("no down");
    };
    assert_eq!(reason, term("killed"));
    node.stop().await;
}

/// A child has unlinked itself from its supervisor, which knows of its end all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_unlinks_itself_is_restarted() {
    let node = start_node("unlinked", &[]).await;
    let parent: Arc<Mutex<Option<Pid>>> = Arc::default();
    let starts = Arc::new(AtomicUsize::new(0));
    let spec = {
        let (parent, starts) = (Arc::clone(&parent), Arc::clone(&starts));
        ChildSpec::process("loner", move |mut process| {
            starts.fetch_add(1, Ordering::SeqCst);
            let parent = Arc::clone(&parent);
            async move {
                while let Some(signal) = process.recv().await {
                    if let Signal::Message(_) = signal {
                        let parent = parent.lock().unwrap().clone().unwrap();
                        process.unlink(&parent);
                        return Err(Term::atom("alone"));
                    }
                }
                Ok(())
            }
        })
    };
    let supervisor = Supervisor::new(Strategy::OneForOne).child(spec.named("loner"));
    let supervisor = supervisor.start(&node).await.unwrap();
    *parent.lock().unwrap() = Some(supervisor.pid());
    let loner = node.whereis("loner").unwrap();
    node.send("loner", Term::atom("go")).unwrap();
    successor(&node, "loner", &loner).await;
    eventually("the second start", || {
        (starts.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_are_kept() {
    let node = start_node("pauses", &[]).await;
    let pause = Duration::from_millis(100);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .backoff(Backoff::constant(pause))
        .child(counter("slow"))
        .start(&node)
        .await
        .unwrap();
    let start = Instant::now();
    let pid = killed(&node, "slow").await;
    // The end may not have been seen yet; the restart is not due in any case.
    let status = supervisor.which_children().await.unwrap();
    assert_ne!(status[0].status, ChildStatus::Down);
    successor(&node, "slow", &pid).await;
    assert!(start.elapsed() >= pause);
    node.stop().await;
}

/// A child that was killed held a port, and its successor wants the same: a task that is aborted drops what it held a
/// moment later, so the bind failed now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_finds_free_what_its_predecessor_held() {
    let node = start_node("ports", &[]).await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let failed = Arc::new(AtomicBool::new(false));
    let spec = {
        let failed = Arc::clone(&failed);
        ChildSpec::process("listener", move |process| {
            let failed = Arc::clone(&failed);
            async move {
                // Without SO_REUSEPORT, so that two cannot listen.
                let Ok(_listener) = TcpListener::bind(address).await else {
                    failed.store(true, Ordering::SeqCst);
                    return Err(Term::atom("eaddrinuse"));
                };
                process
                    .register("listening")
                    .map_err(|_| Term::atom("taken"))?;
                std::future::pending().await
            }
        })
    };
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(1_000, Duration::from_secs(1))
        .child(spec)
        .start(&node)
        .await
        .unwrap();
    let mut pid = eventually("it listens", || node.whereis("listening")).await;
    for _ in 0..200 {
        node.send_exit(&pid, Term::atom("kill"));
        pid = successor(&node, "listening", &pid).await;
    }
    assert!(!failed.load(Ordering::SeqCst), "a port was in use");
    supervisor.stop().await;
    node.stop().await;
}

/// As a BEAM asks: `Supervisor.which_children({name, node})` and the rest.
#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_ask_in_otps_words() {
    let node = start_node("asked", &[]).await;
    let beam = start_node("asking", &[&node]).await;
    let inner = ChildSpec::supervisor("inner", Supervisor::new(Strategy::OneForOne));
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .named("sup")
        .child(counter("a"))
        .child(inner);
    let supervisor = supervisor.start(&node).await.unwrap();
    let to = ("sup", "asked@127.0.0.1");
    let ask = async |request: &str| beam.call_term(to, term(request), DEADLINE).await.unwrap();

    let a = node.whereis("a").unwrap();
    let inner = supervisor.child("inner").await.unwrap();
    let entry = |id: &'static str, pid: &Pid, kind: &'static str| {
        let (id, kind) = (Term::atom(id), Term::atom(kind));
        Term::tuple([id, Term::from(pid), kind, Term::atom("dynamic")])
    };
    assert_eq!(
        ask("which_children").await,
        Term::list([
            entry("inner", &inner, "supervisor"),
            entry("a", &a, "worker")
        ])
    );
    assert_eq!(
        ask("count_children").await,
        term("[{specs,2},{active,2},{supervisors,1},{workers,1}]")
    );
    assert_eq!(ask("{terminate_child, a}").await, term("ok"));
    assert_eq!(
        ask("{terminate_child, b}").await,
        term("{error, not_found}")
    );
    let restarted = ask("{restart_child, a}").await;
    let pid = Term::from(node.whereis("a").unwrap());
    assert_eq!(restarted, Term::tuple([Term::atom("ok"), pid]));
    assert_eq!(ask("{delete_child, a}").await, term("{error, running}"));
    for unknown in ["{start_child, x}", "hello", "{hello, 1, 2}"] {
        assert_eq!(ask(unknown).await, term("{error, not_supported}"));
    }
    supervised_by_name(&node).await;
    supervisor.stop().await;
    beam.stop().await;
    node.stop().await;
}

async fn supervised_by_name(node: &Node) {
    assert!(node.supervisor("a").is_none(), "a worker is no supervisor");
    let supervisor: SupervisorRef = node.supervisor("sup").unwrap();
    assert_eq!(supervisor.count_children().await.unwrap().specs, 2);
}

/// Thousands of children of one supervisor, all of which end at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_of_many_restarts_them_all() {
    const CHILDREN: u32 = 5_000;
    let node = start_node("many", &[]).await;
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(CHILDREN, Duration::from_secs(3600))
        .backoff(Backoff::constant(Duration::from_millis(1)))
        .start(&node)
        .await
        .unwrap();
    for number in 0..CHILDREN {
        let child = ChildSpec::server(("child", number), Counter::default);
        supervisor.start_child(child).await.unwrap();
    }
    let running = async || -> Vec<Pid> {
        let children = supervisor.which_children().await.unwrap();
        let pid = |child: tiebeam_node::ChildInfo| match child.status {
            ChildStatus::Running(pid) => Some(pid),
            ChildStatus::Restarting | ChildStatus::Down => None,
        };
        children.into_iter().filter_map(pid).collect()
    };
    let before = running().await;
    assert_eq!(before.len(), CHILDREN as usize);
    for pid in &before {
        node.send_exit(pid, Term::atom("kill"));
    }
    let restarted = async {
        loop {
            let now = running().await;
            let last = before.last();
            if now.len() == before.len()
                && now.last() != last
                && now.iter().all(|pid| node.is_process_alive(pid))
            {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let after = tokio::time::timeout(DEADLINE, restarted).await.unwrap();
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after != before)
    );
    supervisor.stop().await;
    assert!(after.iter().all(|pid| !node.is_process_alive(pid)));
    node.stop().await;
}
