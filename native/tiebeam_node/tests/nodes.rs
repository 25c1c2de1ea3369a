//! Rust nodes with one another, over loopback: what a Rust program does with the public API.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, Args, CallError, Config, Cookie, EpmdMode, Exception, Flow, GenServer, Node, NodeEvent,
    Process, ReplyTo, RpcError, Signal, SpawnError, SpawnOptions, Target, Term,
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// A port for the epmd of one test. It lies below those that the system hands out by itself, so that no socket of another
/// test can take it between this check and its use.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((std::process::id().wrapping_mul(61) + next) % 20_000) as u16;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn config(name: &str, epmd: u16) -> Config {
    Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::Auto, epmd)
}

/// Two nodes that are connected.
async fn pair() -> (Node, Node) {
    let epmd = free_port();
    let a = Node::start(config("a", epmd)).await.unwrap();
    let b = Node::start(config("b", epmd)).await.unwrap();
    a.connect("b@127.0.0.1").await.unwrap();
    (a, b)
}

async fn stop(nodes: (Node, Node)) {
    nodes.0.stop().await;
    nodes.1.stop().await;
}

async fn next(process: &mut Process) -> Signal {
    timeout(SOON, process.recv())
        .await
        .expect("a signal in time")
        .expect("a living process")
}

fn no_args() -> Vec<Term> {
    Vec::new()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Get,
    Add(i64),
    Fail,
}

struct Counter(i64);

impl GenServer for Counter {
    type Call = Request;
    type Cast = i64;
    type Reply = i64;

    async fn handle_call(&mut self, request: Request, _from: &ReplyTo, _: &Process) -> Answer<i64> {
        match request {
            Request::Get => Answer::Reply(self.0),
            Request::Add(n) => {
                self.0 += n;
                Answer::Reply(self.0)
            }
            Request::Fail => panic!("told to"),
        }
    }

    async fn handle_cast(&mut self, n: i64, _: &Process) -> Flow {
        self.0 += n;
        Flow::Continue
    }

    fn state(&self) -> Term {
        Term::from(self.0)
    }
}

#[tokio::test]
async fn nodes_see_each_other_until_one_leaves() {
    let (a, b) = pair().await;
    assert_eq!(a.nodes(), [b.name().clone()]);
    let mut events = a.monitor_nodes();
    assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
    assert!(b.ping("a@127.0.0.1", SOON).await.is_ok());
    b.stop().await;
    let event = timeout(SOON, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, NodeEvent::Down { node, visible: true, .. } if node == *b.name()));
    assert!(a.nodes().is_empty());
    a.stop().await;
}

#[tokio::test]
async fn a_hidden_node_is_not_among_the_nodes() {
    let epmd = free_port();
    let a = Node::start(config("a", epmd)).await.unwrap();
    let h = Node::start(config("h", epmd).hidden(true)).await.unwrap();
    h.connect("a@127.0.0.1").await.unwrap();
    assert!(h.ping("a@127.0.0.1", SOON).await.is_ok());
    assert!(a.nodes().is_empty());
    assert_eq!(a.hidden_nodes(), [h.name().clone()]);
    stop((a, h)).await;
}

#[tokio::test]
async fn calls_and_casts_are_typed() {
    let (a, b) = pair().await;
    b.start_server("counter", Counter(1)).await.unwrap();
    let to = ("counter", "b@127.0.0.1");
    a.cast(to, &2).unwrap();
    // A message and a later call from one process arrive in order.
    assert_eq!(
        a.call::<_, i64>(to, &Request::Add(3), SOON).await.unwrap(),
        6
    );
    assert_eq!(a.call::<_, i64>(to, &Request::Get, SOON).await.unwrap(), 6);
    let wrong = a.call::<_, String>(to, &Request::Get, SOON).await;
    assert!(
        matches!(
            wrong,
            Err(CallError::Reply {
                reply: Term::Integer(6),
                ..
            })
        ),
        "{wrong:?}"
    );
    stop((a, b)).await;
}

#[tokio::test]
async fn a_request_of_another_type_is_answered_by_an_error() {
    let (a, b) = pair().await;
    b.start_server("counter", Counter(1)).await.unwrap();
    let reply = a
        .call_term(("counter", "b@127.0.0.1"), Term::atom("nonsense"), SOON)
        .await
        .unwrap();
    let text = reply.to_string();
    assert!(
        text.starts_with("{error,{bad_request,") || text.starts_with("{error, {bad_request,"),
        "{text}"
    );
    stop((a, b)).await;
}

#[tokio::test]
async fn a_panic_in_a_server_is_seen_by_its_caller() {
    let (a, b) = pair().await;
    b.start_server("counter", Counter(1)).await.unwrap();
    let result = a
        .call::<_, i64>(("counter", "b@127.0.0.1"), &Request::Fail, SOON)
        .await;
    let Err(CallError::Exit(reason)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        reason,
        Term::tuple([Term::atom("panic"), Term::from("told to")])
    );
    assert_eq!(b.whereis("counter"), None);
    stop((a, b)).await;
}

#[tokio::test]
async fn a_call_to_nobody_fails_at_once() {
    let (a, b) = pair().await;
    for to in [("nobody", "b@127.0.0.1"), ("nobody", "a@127.0.0.1")] {
        let result = a.call_term(to, Term::atom("x"), SOON).await;
        assert!(matches!(result, Err(CallError::NoProcess)), "{result:?}");
    }
    let result = a
        .call_term(("nobody", "nowhere@127.0.0.1"), Term::atom("x"), SOON)
        .await;
    assert!(matches!(result, Err(CallError::Connect(_))), "{result:?}");
    stop((a, b)).await;
}

#[tokio::test]
async fn a_call_ends_with_its_node_and_with_its_time() {
    let (a, b) = pair().await;
    let silent = b.spawn("silent").unwrap();
    let to = ("silent", "b@127.0.0.1");
    let short = Duration::from_millis(50);
    let result = a.call_term(to, Term::atom("x"), short).await;
    assert!(
        matches!(result, Err(CallError::Timeout(after)) if after == short),
        "{result:?}"
    );

    let caller = a.clone();
    let call = tokio::spawn(async move { caller.call_term(to, Term::atom("x"), SOON).await });
    // The request is there once two signals wait: that of the first call, and this one.
    while b.mailbox_len(silent.pid()) != Some(2) {
        tokio::task::yield_now().await;
    }
    assert!(a.disconnect("b@127.0.0.1"));
    let result = call.await.unwrap();
    assert!(matches!(result, Err(CallError::NodeDown(_))), "{result:?}");
    stop((a, b)).await;
}

#[tokio::test]
async fn functions_return_throw_exit_and_fail() {
    let (a, b) = pair().await;
    b.export("m", "add", 2, |args: Args| async move {
        let (x, y): (i64, i64) = args.decode()?;
        Ok(x + y)
    });
    b.export("m", "raise", 1, |args: Args| async move {
        match args.decode::<String>()?.as_str() {
            "throw" => Err::<(), _>(Exception::Throw(Term::atom("t"))),
            "exit" => Err(Exception::Exit(Term::atom("e"))),
            _ => panic!("a bug"),
        }
    });
    let rpc = |function, args| a.rpc("b@127.0.0.1", "m", function, args, SOON);
    let sum = rpc("add", vec![Term::from(1), Term::from(2)])
        .await
        .unwrap();
    assert_eq!(sum, Term::from(3));
    let raise = |how: &'static str| rpc("raise", vec![Term::from(how)]);
    assert!(matches!(raise("throw").await, Err(RpcError::Throw(t)) if t.is_atom("t")));
    assert!(matches!(raise("exit").await, Err(RpcError::Exit(e)) if e.is_atom("e")));
    assert!(matches!(
        raise("panic").await,
        Err(RpcError::Call(CallError::Exit(_)))
    ));
    assert!(
        matches!(rpc("none", no_args()).await, Err(RpcError::Error { reason, .. }) if reason.is_atom("undef"))
    );
    let wrong = rpc("add", vec![Term::from("a"), Term::from("b")]).await;
    assert!(matches!(wrong, Err(RpcError::Error { .. })), "{wrong:?}");
    stop((a, b)).await;
}

#[tokio::test]
async fn links_and_monitors_cross_nodes() {
    let (a, b) = pair().await;
    let mut watcher = a.spawn_anonymous().unwrap();
    watcher.trap_exit(true);
    let victim = b.spawn("victim").unwrap();
    watcher.link(victim.pid());
    let by_pid = watcher.monitor(victim.pid());
    let by_name = watcher.monitor(("victim", "b@127.0.0.1"));
    // An answer to a later signal says that the earlier ones have arrived.
    assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
    let pid = victim.pid().clone();
    victim.exit(Term::atom("boom"));

    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match next(&mut watcher).await {
            Signal::Exit { from, reason } if from == pid && reason.is_atom("boom") => "exit",
            Signal::Down {
                reference,
                target: Target::Pid(_),
                reason,
            } if reference == by_pid && reason.is_atom("boom") => "down by pid",
            Signal::Down {
                reference,
                target: Target::Name(_),
                reason,
            } if reference == by_name && reason.is_atom("boom") => "down by name",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen[0], "exit", "links are told first");
    seen.sort_unstable();
    assert_eq!(seen, ["down by name", "down by pid", "exit"]);
    stop((a, b)).await;
}

#[tokio::test]
async fn an_unlinked_process_is_not_told() {
    let (a, b) = pair().await;
    let mut watcher = a.spawn_anonymous().unwrap();
    watcher.trap_exit(true);
    let victim = b.spawn_anonymous().unwrap();
    watcher.link(victim.pid());
    watcher.unlink(victim.pid());
    let last = watcher.monitor(victim.pid());
    assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
    victim.exit(Term::atom("boom"));
    match next(&mut watcher).await {
        Signal::Down { reference, .. } => assert_eq!(reference, last),
        other => panic!("{other:?}"),
    }
    stop((a, b)).await;
}

#[tokio::test]
async fn a_function_can_be_spawned_on_another_node() {
    let (a, b) = pair().await;
    b.export_process("m", "wait", 0, |mut process, _args| async move {
        match process.recv().await {
            Some(Signal::Message(reason)) => Err(Exception::Exit(reason)),
            _ => Ok(Term::atom("ok")),
        }
    });
    let mut parent = a.spawn_anonymous().unwrap();
    parent.trap_exit(true);
    let options = SpawnOptions {
        link: true,
        monitor: true,
    };
    let (child, monitor) = parent
        .spawn_on("b@127.0.0.1", ("m", "wait"), no_args(), options)
        .await
        .unwrap();
    parent.send(&child, Term::atom("done")).unwrap();
    assert!(matches!(next(&mut parent).await, Signal::Exit { from, .. } if from == child));
    assert!(
        matches!(next(&mut parent).await, Signal::Down { reference, .. } if Some(&reference) == monitor.as_ref())
    );

    let refused = parent
        .spawn_on("nowhere@127.0.0.1", ("m", "wait"), no_args(), options)
        .await;
    assert!(
        matches!(refused, Err(SpawnError::Call(CallError::NodeDown(_)))),
        "{refused:?}"
    );
    stop((a, b)).await;
}

#[tokio::test]
async fn a_message_to_a_node_that_is_not_connected_connects() {
    let epmd = free_port();
    let a = Node::start(config("a", epmd)).await.unwrap();
    let b = Node::start(config("b", epmd)).await.unwrap();
    let mut inbox = b.spawn("inbox").unwrap();
    for i in 0..100 {
        a.send(("inbox", "b@127.0.0.1"), Term::from(i)).unwrap();
    }
    for i in 0..100 {
        assert!(matches!(next(&mut inbox).await, Signal::Message(Term::Integer(n)) if n == i));
    }
    stop((a, b)).await;
}

#[tokio::test]
async fn a_name_has_one_process_and_is_free_after_its_death() {
    let (a, b) = pair().await;
    let first = a.spawn("name").unwrap();
    assert!(matches!(a.spawn("name"), Err(SpawnError::NameTaken(_))));
    drop(first);
    assert!(a.spawn("name").is_ok());
    stop((a, b)).await;
}

#[tokio::test]
async fn an_alias_is_an_address_until_it_ends() {
    let (a, b) = pair().await;
    let mut process = a.spawn_anonymous().unwrap();
    let alias = process.alias();
    b.send(alias.clone(), Term::atom("one")).unwrap();
    assert!(matches!(next(&mut process).await, Signal::Message(m) if m.is_atom("one")));
    process.unalias(&alias);
    b.send(alias, Term::atom("two")).unwrap();
    b.send(process.pid(), Term::atom("three")).unwrap();
    assert!(matches!(next(&mut process).await, Signal::Message(m) if m.is_atom("three")));
    stop((a, b)).await;
}

#[tokio::test]
async fn a_thread_can_be_a_process() {
    let (a, b) = pair().await;
    let process = a.spawn_thread_process().unwrap();
    let pid = process.pid().clone();
    let thread = std::thread::spawn(move || match process.recv() {
        Some(Signal::Call(call)) => call.reply("from a thread").unwrap(),
        other => panic!("{other:?}"),
    });
    let reply: String = b.call(&pid, &"hello", SOON).await.unwrap();
    assert_eq!(reply, "from a thread");
    thread.join().unwrap();
    stop((a, b)).await;
}

#[tokio::test]
async fn a_kept_connection_comes_back() {
    let epmd = free_port();
    let a = Node::start(config("a", epmd)).await.unwrap();
    let mut events = a.monitor_nodes();
    a.keep_connected(["b@127.0.0.1"]);
    let mut incarnations = Vec::new();
    for _ in 0..2 {
        let b = Node::start(config("b", epmd)).await.unwrap();
        let up = timeout(SOON, events.recv()).await.unwrap().unwrap();
        assert!(matches!(up, NodeEvent::Up { .. }), "{up:?}");
        incarnations.push(b.creation());
        b.stop().await;
        let down = timeout(SOON, events.recv()).await.unwrap().unwrap();
        assert!(matches!(down, NodeEvent::Down { .. }), "{down:?}");
    }
    assert_ne!(incarnations[0], incarnations[1]);
    a.stop().await;
}

#[tokio::test]
async fn sys_sees_a_server() {
    let (a, b) = pair().await;
    let server = b.start_server("counter", Counter(5)).await.unwrap();
    let mut asker = a.spawn_anonymous().unwrap();
    let mut ask = async |request: Term| {
        let reference = a.make_reference();
        let from = Term::tuple([Term::from(asker.pid()), Term::from(&reference)]);
        asker
            .send(&server, Term::tuple([Term::atom("system"), from, request]))
            .unwrap();
        match next(&mut asker).await {
            Signal::Message(Term::Tuple(mut reply)) => reply.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let state = Term::tuple([Term::atom("ok"), Term::from(5)]);
    assert_eq!(ask(Term::atom("get_state")).await, state);
    assert!(ask(Term::atom("suspend")).await.is_atom("ok"));
    // Held back while suspended, and handled after.
    a.cast(&server, &1).unwrap();
    assert_eq!(ask(Term::atom("get_state")).await, state);
    assert!(ask(Term::atom("resume")).await.is_atom("ok"));
    assert_eq!(
        a.call::<_, i64>(&server, &Request::Get, SOON)
            .await
            .unwrap(),
        6
    );
    let terminate = Term::tuple([Term::atom("terminate"), Term::atom("shutdown")]);
    assert!(ask(terminate).await.is_atom("ok"));
    let gone = a.call::<_, i64>(&server, &Request::Get, SOON).await;
    assert!(
        matches!(gone, Err(CallError::NoProcess | CallError::Exit(_))),
        "{gone:?}"
    );
    stop((a, b)).await;
}

#[tokio::test]
async fn a_taken_name_is_refused_by_epmd() {
    let epmd = free_port();
    let a = Node::start(config("a", epmd)).await.unwrap();
    let error = Node::start(config("a", epmd)).await.unwrap_err();
    assert!(error.to_string().contains('a'), "{error}");
    assert!(a.ping("a@127.0.0.1", SOON).await.is_ok());
    a.stop().await;
}

/// The moment between the loss of a connection and the end of its nodedown is short: many rounds, on threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_hears_of_a_lost_connection_may_use_the_next_one_at_once() {
    let (a, b) = pair().await;
    let mut target = b.spawn("target").unwrap();
    let node = a.clone();
    let (told, tell) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        let process = node.spawn_thread_process().unwrap();
        for round in 0..300 {
            process.monitor(("target", "b@127.0.0.1"));
            process.send(("target", "b@127.0.0.1"), round).unwrap();
            told.send(()).unwrap();
            match process.recv_timeout(SOON) {
                Ok(Some(Signal::Down { reason, .. })) if reason.is_atom("noconnection") => {}
                other => panic!("round {round}: {other:?}"),
            }
        }
    });
    let mut last = -1;
    while let Ok(()) = tokio::task::block_in_place(|| tell.recv_timeout(SOON)) {
        // The message says that the connection is up again.
        match next(&mut target).await {
            Signal::Message(Term::Integer(round)) => assert_eq!(round, last + 1),
            other => panic!("{other:?}"),
        }
        last += 1;
        assert!(a.disconnect("b@127.0.0.1"));
    }
    tokio::task::block_in_place(|| watcher.join().unwrap());
    assert_eq!(last, 299);
    stop((a, b)).await;
}

/// Both sides close and dial as they like; whoever watches sees one connection after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodeups_and_nodedowns_alternate() {
    let (a, b) = pair().await;
    let watch = |node: &Node, peer: &'static str| {
        let mut events = node.monitor_nodes();
        let mut up = node.nodes().iter().any(|node| *node == peer);
        tokio::spawn(async move {
            let mut changes = 0;
            while let Some(event) = events.recv().await {
                let now = matches!(event, NodeEvent::Up { .. });
                assert_ne!(up, now, "after {changes} changes: {event:?}");
                up = now;
                changes += 1;
            }
            assert!(!up, "a stopped node has no connections");
            changes
        })
    };
    let watching = [watch(&a, "b@127.0.0.1"), watch(&b, "a@127.0.0.1")];
    let churn = |node: &Node, peer: &'static str| {
        let node = node.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                node.disconnect(peer);
                let _ = node.connect(peer).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let churning = [churn(&a, "b@127.0.0.1"), churn(&b, "a@127.0.0.1")];
    for churn in churning {
        timeout(SOON * 3, churn).await.expect("in time").unwrap();
    }
    a.connect("b@127.0.0.1").await.unwrap();
    assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
    stop((a, b)).await;
    for watch in watching {
        let changes = timeout(SOON, watch).await.expect("the events end").unwrap();
        assert!(changes > 100, "{changes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_inside_calls_are_bounded() {
    let (a, b) = pair().await;
    let atom = Term::atom;
    let nest = |(module, function): (&'static str, &'static str), first: &[Term], depth| {
        let mut args = vec![];
        let mut call = (atom("erlang"), atom("node"));
        for _ in 0..depth {
            let mut outer = first.to_vec();
            outer.extend([call.0, call.1, Term::List(args)]);
            args = outer;
            call = (atom(module), atom(function));
        }
        args
    };
    let reference = Term::from(&a.make_reference());
    for (function, first) in [
        (("erlang", "apply"), vec![]),
        (("erpc", "execute_cast"), vec![]),
        (("erpc", "execute_call"), vec![reference]),
    ] {
        let call = |depth| {
            a.rpc(
                "b@127.0.0.1",
                function.0,
                function.1,
                nest(function, &first, depth),
                SOON,
            )
        };
        let deep = call(500).await;
        assert!(
            matches!(
                &deep,
                Ok(_) | Err(RpcError::Error { .. } | RpcError::Exit(_))
            ),
            "{deep:?}"
        );
        if function.1 != "execute_call" {
            assert_eq!(call(3).await.unwrap(), atom("b@127.0.0.1"));
        }
    }
    assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
    stop((a, b)).await;
}

/// A server whose replies cannot be serialized, and that tells how it ends.
struct Mute(std::sync::mpsc::Sender<Term>);

struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no words"))
    }
}

impl GenServer for Mute {
    type Call = Term;
    type Cast = Term;
    type Reply = Unspeakable;

    async fn handle_call(&mut self, _: Term, _: &ReplyTo, _: &Process) -> Answer<Unspeakable> {
        Answer::Reply(Unspeakable)
    }

    async fn handle_cast(&mut self, reason: Term, _: &Process) -> Flow {
        Flow::Stop(reason)
    }

    async fn terminate(&mut self, reason: &Term, _: &Process) {
        self.0.send(reason.clone()).unwrap();
    }
}

#[tokio::test]
async fn a_reply_that_cannot_be_sent_is_an_error_at_once() {
    let (a, b) = pair().await;
    let (ended, _end) = std::sync::mpsc::channel();
    b.start_server("mute", Mute(ended)).await.unwrap();
    let to = ("mute", "b@127.0.0.1");
    let reply = a.call_term(to, Term::atom("speak"), SOON).await.unwrap();
    assert!(
        reply.to_string().starts_with("{error,{bad_reply,"),
        "{reply}"
    );
    stop((a, b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_terminates_by_its_own_decision_but_not_when_it_is_killed() {
    let (a, b) = pair().await;
    let mut watcher = a.spawn_anonymous().unwrap();
    // How the process ends, and what its server hears of that.
    let mut end = async |how: &dyn Fn(&Node, &tiebeam_node::Pid)| {
        let (ended, end) = std::sync::mpsc::channel();
        let server = b.start_anonymous_server(Mute(ended)).await.unwrap();
        watcher.monitor(&server);
        assert!(a.ping("b@127.0.0.1", SOON).await.is_ok());
        how(&a, &server);
        let Signal::Down { reason, .. } = next(&mut watcher).await else {
            panic!("a server ends")
        };
        // An error once the server is dropped.
        let heard = tokio::task::block_in_place(|| end.recv_timeout(SOON));
        (reason, heard)
    };
    let enough = Term::from("enough");
    let decision = end(&|a, server| a.cast(server, "enough").unwrap()).await;
    assert_eq!(decision, (enough.clone(), Ok(enough)));
    for (signal, seen) in [("kill", "killed"), ("shutdown", "shutdown")] {
        let killed = end(&|a, server| a.send_exit(server, Term::atom(signal))).await;
        let unheard = Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        assert_eq!(killed, (Term::atom(seen), unheard));
    }
    stop((a, b)).await;
}

/// Answers with as many bytes as it is asked for, and then tells that it did.
struct Large;

impl GenServer for Large {
    type Call = usize;
    type Cast = Term;
    type Reply = Term;

    async fn handle_call(
        &mut self,
        size: usize,
        from: &ReplyTo,
        process: &Process,
    ) -> Answer<Term> {
        let bytes = Term::from("x".repeat(size).as_str());
        from.clone().reply_term(bytes).unwrap();
        process.send(from.pid(), Term::atom("replied")).unwrap();
        Answer::Later
    }

    async fn handle_cast(&mut self, message: Term, process: &Process) -> Flow {
        let (to, bytes) = match message.as_tuple() {
            Some([Term::Pid(to), Term::Binary(bytes)]) => (to.clone(), bytes.len()),
            _ => panic!("{message}"),
        };
        process.send(to, Term::from(bytes as u64)).unwrap();
        Flow::Continue
    }
}

#[tokio::test]
async fn large_messages_requests_and_replies_of_one_process_stay_in_order() {
    let (a, b) = pair().await;
    let server = b.start_anonymous_server(Large).await.unwrap();
    let mut process = a.spawn_anonymous().unwrap();
    let large = 2 << 20;
    // A reply, and what its server sends after it.
    let tag = Term::from(&a.make_reference());
    let from = Term::tuple([Term::from(process.pid()), tag]);
    let request = [Term::atom("$gen_call"), from, Term::from(large as u64)];
    process.send(&server, Term::tuple(request)).unwrap();
    assert!(
        matches!(next(&mut process).await, Signal::Message(Term::Tuple(reply)) if reply.len() == 2)
    );
    assert!(matches!(next(&mut process).await, Signal::Message(done) if done.is_atom("replied")));
    // A cast, and a call after it: the cast is answered first.
    let payload = Term::tuple([
        Term::from(process.pid()),
        Term::from("x".repeat(large).as_str()),
    ]);
    process
        .send(&server, Term::tuple([Term::atom("$gen_cast"), payload]))
        .unwrap();
    let reply: String = process.call(&server, &0, SOON).await.unwrap();
    assert_eq!(reply, "");
    assert!(
        matches!(process.try_recv(), Some(Signal::Message(Term::Integer(n))) if n == large as i64)
    );
    stop((a, b)).await;
}
