//! `global` among Rust nodes, over loopback, with no BEAM: names, locks, and a service that fails. Nodes are found by
//! address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tiebeam_node::{
    Args, Atom, Config, Cookie, EpmdMode, Exception, GlobalError, GlobalName, Node, Process,
    Resolver, Signal, Term,
};
use tokio::time::{sleep, timeout};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node that knows where the others are, and is one cluster with them.
async fn start(name: &str, others: &[&Node]) -> Node {
    start_with(name, others, |config| config).await
}

async fn start_with(name: &str, others: &[&Node], change: impl FnOnce(Config) -> Config) -> Node {
    let config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    let mut config = change(config);
    for other in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
        config
            .addresses
            .insert(other.name().as_str().to_owned(), address);
    }
    Node::start(config).await.unwrap()
}

/// Waits until something is true.
async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let reached = async {
        while !test() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        timeout(DEADLINE, reached).await.is_ok(),
        "not in time: {what}"
    );
}

/// Three nodes that know each other. The last one knows where the others are, and so on: it dials.
async fn three() -> [Node; 3] {
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let c = start("c", &[&a, &b]).await;
    b.connect("a@127.0.0.1").await.unwrap();
    c.connect("a@127.0.0.1").await.unwrap();
    let nodes = [a, b, c];
    until("a full mesh", || {
        nodes.iter().all(|node| node.nodes().len() == 2)
    })
    .await;
    for node in &nodes {
        let synced = timeout(DEADLINE, node.global().sync()).await;
        synced.expect("in time").unwrap();
    }
    nodes
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.stop().await;
    }
}

async fn next(process: &mut Process) -> Signal {
    let signal = timeout(DEADLINE, process.recv()).await;
    signal.expect("a signal in time").expect("a living process")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_one_on_all_nodes() {
    let [a, b, c] = three().await;
    let mut process = a.spawn_anonymous().unwrap();
    a.global().register("counter", process.pid()).await.unwrap();
    for node in [&a, &b, &c] {
        assert_eq!(
            node.global().whereis("counter").as_ref(),
            Some(process.pid())
        );
        // A text is an atom; an Elixir string is another name.
        assert_eq!(node.global().whereis(Term::from("counter")), None);
    }
    let other = c.spawn_anonymous().unwrap();
    let taken = c.global().register("counter", other.pid()).await;
    assert!(matches!(taken, Err(GlobalError::NameTaken { pid, .. }) if pid == *process.pid()));
    let named = b.global().register("second", process.pid()).await;
    assert!(matches!(named, Err(GlobalError::ProcessNamed(name)) if name.is_atom("counter")));

    assert_eq!(c.global().send("counter", 5).unwrap(), *process.pid());
    assert!(matches!(
        next(&mut process).await,
        Signal::Message(Term::Integer(5))
    ));
    let nobody = c.global().send("nobody", 5);
    assert!(matches!(nobody, Err(GlobalError::NotRegistered(name)) if name.is_atom("nobody")));

    let any = GlobalName(Term::tuple([Term::from(1), Term::from("x")]));
    c.global().register(any.clone(), other.pid()).await.unwrap();
    let mut names = b.global().registered_names();
    names.sort_by_key(Term::to_string);
    assert_eq!(names, [Term::atom("counter"), any.0.clone()]);

    b.global()
        .re_register("counter", other.pid())
        .await
        .unwrap();
    assert_eq!(a.global().whereis("counter").as_ref(), Some(other.pid()));
    b.global().unregister("counter").await.unwrap();
    b.global().unregister("counter").await.unwrap();
    assert_eq!(a.global().whereis("counter"), None);

    drop(other);
    until("the name goes with its process", || {
        [&a, &b, &c]
            .iter()
            .all(|node| node.global().registered_names().is_empty())
    })
    .await;
    stop([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_goes_with_its_node() {
    let [a, b, c] = three().await;
    let process = c.spawn_anonymous().unwrap();
    a.global().register("of_c", process.pid()).await.unwrap();
    c.stop().await;
    until("the name goes", || {
        a.global().whereis("of_c").is_none() && b.global().whereis("of_c").is_none()
    })
    .await;
    assert_eq!(a.nodes(), [b.name().clone()], "the others stay together");
    let ended = c.global().register("late", process.pid()).await;
    assert!(matches!(ended, Err(GlobalError::Ended)), "{ended:?}");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_of_the_program_decides_a_conflict() {
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    for node in [&a, &b] {
        // The process on the greater node stays.
        node.export_process("app", "resolve", 3, |process, Args(args)| async move {
            let [name, Term::Pid(one), Term::Pid(two)] = args.as_slice() else {
                return Err(Exception::error(Term::atom("badarg")));
            };
            let (keeps, loses) = if one.node > two.node {
                (one, two)
            } else {
                (two, one)
            };
            process.send(loses, name.clone()).unwrap();
            Ok(Term::from(keeps))
        });
    }
    let resolver = || Resolver::Function {
        module: Atom::of("app"),
        function: Atom::of("resolve"),
    };
    let mut of_a = a.spawn_anonymous().unwrap();
    let of_b = b.spawn_anonymous().unwrap();
    a.global()
        .register_with("name", of_a.pid(), resolver())
        .await
        .unwrap();
    b.global()
        .register_with("name", of_b.pid(), resolver())
        .await
        .unwrap();
    let killed = a.spawn_anonymous().unwrap();
    let stays = b.spawn_anonymous().unwrap();
    a.global().register("other", killed.pid()).await.unwrap();
    b.global()
        .re_register_with("other", stays.pid(), Resolver::NotifyAll)
        .await
        .unwrap();

    b.connect("a@127.0.0.1").await.unwrap();
    a.global().sync().await.unwrap();
    b.global().sync().await.unwrap();
    assert!(matches!(next(&mut of_a).await, Signal::Message(name) if name.is_atom("name")));
    for node in [&a, &b] {
        assert_eq!(node.global().whereis("name").as_ref(), Some(of_b.pid()));
        // Node a decides, by the resolver that its own entry has: the greater pid is killed.
        assert_eq!(node.global().whereis("other").as_ref(), Some(killed.pid()));
    }
    assert!(!b.is_process_alive(stays.pid()));
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_excludes_others_until_it_is_given_back_or_dropped() {
    let [a, b, c] = three().await;
    let lock = a
        .global()
        .set_lock("resource", Some(0))
        .await
        .unwrap()
        .expect("it is free");
    assert_eq!(lock.resource(), &Term::atom("resource"));
    for node in [&a, &b, &c] {
        assert!(
            node.global()
                .set_lock("resource", Some(0))
                .await
                .unwrap()
                .is_none()
        );
        let another = node.global().set_lock("another", Some(0)).await.unwrap();
        another.expect("it is free").del_lock().await.unwrap();
    }
    lock.del_lock().await.unwrap();
    let lock = b
        .global()
        .set_lock("resource", Some(0))
        .await
        .unwrap()
        .expect("it is free");
    drop(lock);
    let lock = timeout(DEADLINE, c.global().set_lock("resource", None)).await;
    lock.expect("in time")
        .unwrap()
        .expect("tried until it was free")
        .del_lock()
        .await
        .unwrap();

    // Ten tasks on three nodes, one at a time.
    let inside = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for at in 0..10 {
        let (node, inside) = ([&a, &b, &c][at % 3].clone(), Arc::clone(&inside));
        tasks.push(tokio::spawn(async move {
            let body = || async {
                let count = inside.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(2)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                count
            };
            node.global().trans("resource", None, body).await.unwrap()
        }));
    }
    for task in tasks {
        let count = timeout(6 * DEADLINE, task).await.expect("in time").unwrap();
        assert_eq!(count, Some(0));
    }
    stop([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_frees_its_peers_and_begins_anew() {
    let [a, b, c] = three().await;
    let process = a.spawn_anonymous().unwrap();
    a.global().register("of_a", process.pid()).await.unwrap();
    let before = a.whereis("global_name_server").unwrap();
    a.send_exit(&before, Term::atom("kill"));
    until("a new name server", || {
        a.whereis("global_name_server")
            .is_some_and(|now| now != before)
    })
    .await;
    until("its peers have let it go", || {
        b.global().whereis("of_a").is_none()
    })
    .await;
    // They go on without it,
    let other = b.spawn_anonymous().unwrap();
    let registered = timeout(DEADLINE, b.global().register("of_b", other.pid())).await;
    registered.expect("in time").unwrap();
    assert_eq!(c.global().whereis("of_b").as_ref(), Some(other.pid()));
    // and it can come back.
    timeout(DEADLINE, async {
        while b.connect("a@127.0.0.1").await.is_err() || c.connect("a@127.0.0.1").await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("in time");
    until("one table again", || a.global().whereis("of_b").is_some()).await;
    a.global().register("of_a", process.pid()).await.unwrap();
    assert_eq!(c.global().whereis("of_a").as_ref(), Some(process.pid()));
    stop([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_left_alone_finds_its_cluster_again() {
    let a = start("a", &[]).await;
    let b = start_with("b", &[&a], |config| config.rejoin(true)).await;
    b.connect("a@127.0.0.1").await.unwrap();
    b.global().sync().await.unwrap();
    let process = a.spawn_anonymous().unwrap();
    a.global().register("of_a", process.pid()).await.unwrap();
    assert!(a.disconnect("b@127.0.0.1"));
    until("the name is gone", || b.global().whereis("of_a").is_none()).await;
    until("the name is back", || b.global().whereis("of_a").is_some()).await;
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_connect_all_keep_their_names_to_themselves() {
    let a = start_with("a", &[], |config| config.connect_all(false)).await;
    let b = start("b", &[&a]).await;
    let hidden = start_with("c", &[&a, &b], |config| config.hidden(true)).await;
    b.connect("a@127.0.0.1").await.unwrap();
    hidden.connect("b@127.0.0.1").await.unwrap();
    let process = b.spawn_anonymous().unwrap();
    b.global().register("of_b", process.pid()).await.unwrap();
    // Longer than a locker that knows nobody waits: nothing is to happen, so there is nothing to wait for.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(b.global().whereis("of_b").as_ref(), Some(process.pid()));
    assert_eq!(a.global().whereis("of_b"), None);
    assert_eq!(hidden.global().whereis("of_b"), None);
    stop([a, b, hidden]).await;
}
