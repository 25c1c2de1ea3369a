//! Process groups of Rust nodes with one another, over loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tiebeam_node::{
    Config, Cookie, EpmdMode, Node, Pg, PgError, PgEvent, PgEvents, Pid, SpawnError, Term,
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// A port for the epmd of one test, below those that the system hands out by itself.
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

async fn start(name: &str, epmd: u16) -> Node {
    let config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::Auto, epmd);
    Node::start(config).await.unwrap()
}

/// Two nodes that are connected, with the default scope.
async fn pair() -> (Node, Pg, Node, Pg) {
    let epmd = free_port();
    let (a, b) = (start("a", epmd).await, start("b", epmd).await);
    a.connect("b@127.0.0.1").await.unwrap();
    let (a_pg, b_pg) = (a.pg().unwrap(), b.pg().unwrap());
    (a, a_pg, b, b_pg)
}

/// Waits until a group has just these members.
async fn until(pg: &Pg, group: &str, mut members: Vec<Pid>) {
    members.sort();
    let (mut now, mut events) = pg.monitor(group);
    let reached = async {
        loop {
            now.sort();
            if now == members {
                return;
            }
            events.recv().await.expect("a node that runs");
            now = pg.members(group);
        }
    };
    if timeout(SOON, reached).await.is_err() {
        panic!("{group} has {:?}, not {members:?}", pg.members(group));
    }
}

async fn next(events: &mut PgEvents) -> PgEvent {
    timeout(SOON, events.recv())
        .await
        .expect("an event in time")
        .expect("a node that runs")
}

#[tokio::test]
async fn groups_are_shared() {
    let (a, a_pg, b, b_pg) = pair().await;
    let (one, two) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    a_pg.join("g", one.pid()).unwrap();
    b_pg.join_many("g", [two.pid().clone(), two.pid().clone()])
        .unwrap();
    let all = vec![one.pid().clone(), two.pid().clone(), two.pid().clone()];
    until(&a_pg, "g", all.clone()).await;
    until(&b_pg, "g", all).await;
    assert_eq!(a_pg.local_members("g"), [one.pid().clone()]);
    assert_eq!(a_pg.groups(), [Term::from("g")]);

    b_pg.leave("g", two.pid()).unwrap();
    until(&a_pg, "g", vec![one.pid().clone(), two.pid().clone()]).await;
    // An end is a leave, however often it joined.
    b_pg.join("g", two.pid()).unwrap();
    drop(two);
    until(&a_pg, "g", vec![one.pid().clone()]).await;

    b.stop().await;
    until(&a_pg, "g", vec![one.pid().clone()]).await;
    drop(one);
    until(&a_pg, "g", vec![]).await;
    assert!(a_pg.groups().is_empty() && a_pg.local_groups().is_empty());
    a.stop().await;
}

#[tokio::test]
async fn what_was_there_before_the_connection_is_merged_and_vanishes_with_it() {
    let epmd = free_port();
    let (a, b) = (start("a", epmd).await, start("b", epmd).await);
    let (a_pg, b_pg) = (a.pg().unwrap(), b.pg().unwrap());
    let (one, two) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    let (one, two) = (one.pid(), two.pid());
    a_pg.join("g", one).unwrap();
    b_pg.join("g", two).unwrap();
    for _ in 0..3 {
        a.connect("b@127.0.0.1").await.unwrap();
        until(&a_pg, "g", vec![one.clone(), two.clone()]).await;
        until(&b_pg, "g", vec![one.clone(), two.clone()]).await;
        a.disconnect("b@127.0.0.1");
        until(&a_pg, "g", vec![one.clone()]).await;
        until(&b_pg, "g", vec![two.clone()]).await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn scopes_know_nothing_of_each_other_and_may_start_later() {
    let (a, a_pg, b, _) = pair().await;
    let one = a.spawn_anonymous().unwrap();
    let chat = a.pg_scope("chat").unwrap();
    chat.join("g", one.pid()).unwrap();
    assert!(a_pg.members("g").is_empty());
    let late = b.pg_scope("chat").unwrap();
    until(&late, "g", vec![one.pid().clone()]).await;
    assert_eq!(a.whereis("chat").as_ref(), Some(&chat.pid()));
    assert_eq!(a.pg_scope("chat").unwrap().pid(), chat.pid());
    assert!(matches!(
        a.pg_scope("net_kernel"),
        Err(SpawnError::NameTaken(_))
    ));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn changes_are_told_from_the_moment_of_the_snapshot() {
    let (a, a_pg, b, b_pg) = pair().await;
    let (one, two) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    a_pg.join("g", one.pid()).unwrap();
    // From now on b tells a of every change.
    b_pg.join("here", two.pid()).unwrap();
    until(&a_pg, "here", vec![two.pid().clone()]).await;
    let (members, mut of_group) = a_pg.monitor("g");
    assert_eq!(members, [one.pid().clone()]);
    let (groups, mut of_scope) = a_pg.monitor_scope();
    assert_eq!(groups.get(&Term::from("g")), Some(&members));

    b_pg.join("other", two.pid()).unwrap();
    b_pg.join("g", two.pid()).unwrap();
    drop(two);
    let join = |group: &str, pid: &Pid| PgEvent::Join {
        group: Term::from(group),
        pids: vec![pid.clone()],
    };
    let joined = next(&mut of_group).await;
    let PgEvent::Join { group, pids } = joined else {
        panic!("{joined:?}");
    };
    assert_eq!((group, pids.len()), (Term::from("g"), 1));
    let left = PgEvent::Leave {
        group: Term::from("g"),
        pids: pids.clone(),
    };
    assert_eq!(next(&mut of_group).await, left);
    assert_eq!(next(&mut of_scope).await, join("other", &pids[0]));
    assert_eq!(next(&mut of_scope).await, join("g", &pids[0]));
    // The three groups of a dead process, in any order.
    let mut lefts = Vec::new();
    for _ in 0..3 {
        lefts.push(next(&mut of_scope).await);
    }
    assert!(lefts.contains(&left), "{lefts:?}");

    // It ends with the node.
    a.stop().await;
    while timeout(SOON, of_group.recv()).await.unwrap().is_some() {}
    b.stop().await;
}

#[tokio::test]
async fn a_slow_subscriber_is_told_that_it_missed_something() {
    let node = start("a", free_port()).await;
    let pg = node.pg().unwrap();
    let one = node.spawn_anonymous().unwrap();
    let (_, mut events) = pg.monitor("g");
    for _ in 0..2_000 {
        pg.join("g", one.pid()).unwrap();
    }
    assert_eq!(next(&mut events).await, PgEvent::Missed(2_000 - 1_024));
    assert!(matches!(next(&mut events).await, PgEvent::Join { .. }));
    assert_eq!(pg.members("g").len(), 2_000);
    node.stop().await;
}

#[tokio::test]
async fn misuse_is_an_error_and_changes_nothing() {
    let (a, a_pg, b, b_pg) = pair().await;
    let (one, two) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    let strange = Err(PgError::NotLocal(two.pid().clone()));
    assert_eq!(a_pg.join("g", two.pid()), strange);
    assert_eq!(a_pg.leave("g", two.pid()), strange);
    let mixed = [one.pid().clone(), two.pid().clone()];
    assert_eq!(a_pg.join_many("g", mixed), strange);
    let earlier = Pid {
        creation: one.pid().creation ^ 1,
        ..one.pid().clone()
    };
    assert_eq!(
        a_pg.join("g", &earlier),
        Err(PgError::NotLocal(earlier.clone()))
    );
    assert_eq!(a_pg.leave("g", one.pid()), Err(PgError::NotJoined));
    let deep = (0..300).fold(Term::list([]), |inner, _| Term::list([inner]));
    for group in [
        Term::from(f64::NAN),
        Term::from(f64::INFINITY),
        Term::list([Term::tuple([Term::from(-0.0)])]),
        // Not in normal form: it is the integer 1.
        Term::Big(Box::new(1.into())),
        deep,
    ] {
        let joined = a_pg.join(group.clone(), one.pid());
        assert!(matches!(joined, Err(PgError::Group(_))), "{group:?}");
    }
    assert_eq!(a_pg.join_many("g", []), Ok(()));
    assert!(a_pg.groups().is_empty());

    // Any other term is a group, and stays apart from those that look like it.
    let groups = [
        Term::from(1),
        Term::from(1.0),
        Term::from(0.0),
        Term::from("1"),
        Term::charlist("1"),
        Term::atom("1"),
        Term::tuple([Term::from(one.pid()), Term::from(a.make_reference())]),
    ];
    for group in &groups {
        a_pg.join(group.clone(), one.pid()).unwrap();
    }
    until(&b_pg, "last", vec![]).await;
    a_pg.join("last", one.pid()).unwrap();
    until(&b_pg, "last", vec![one.pid().clone()]).await;
    for group in groups {
        assert_eq!(b_pg.members(group.clone()), [one.pid().clone()]);
    }

    // A process that is dead leaves again.
    let dead = one.pid().clone();
    drop(one);
    until(&a_pg, "g", vec![]).await;
    a_pg.join("g", &dead).unwrap();
    until(&a_pg, "g", vec![]).await;

    a.stop().await;
    let one = b.spawn_anonymous().unwrap();
    b.stop().await;
    assert_eq!(b_pg.join("g", one.pid()), Err(PgError::Stopped));
}

#[tokio::test]
async fn a_scope_whose_process_is_killed_starts_anew_with_its_members() {
    let (a, a_pg, b, b_pg) = pair().await;
    let (one, two) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    a_pg.join("g", one.pid()).unwrap();
    b_pg.join("g", two.pid()).unwrap();
    let all = vec![one.pid().clone(), two.pid().clone()];
    until(&a_pg, "g", all.clone()).await;
    until(&b_pg, "g", all.clone()).await;
    for _ in 0..5 {
        let (old, (_, mut events)) = (a_pg.pid(), b_pg.monitor("g"));
        b.send_exit(&old, Term::atom("kill"));
        // Gone with the old process, back with the new one.
        assert!(matches!(next(&mut events).await, PgEvent::Leave { .. }));
        until(&b_pg, "g", all.clone()).await;
        until(&a_pg, "g", all.clone()).await;
        assert_ne!(a_pg.pid(), old);
        assert_eq!(a.whereis("pg"), Some(a_pg.pid()));
    }
    // Its members are watched by the new one.
    drop(one);
    until(&b_pg, "g", vec![two.pid().clone()]).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn strange_messages_are_ignored_and_calls_are_answered() {
    let (a, a_pg, b, b_pg) = pair().await;
    let one = a.spawn_anonymous().unwrap();
    a_pg.join("g", one.pid()).unwrap();
    until(&b_pg, "g", vec![one.pid().clone()]).await;
    let (before, to) = (b_pg.pid(), ("pg", "b@127.0.0.1"));
    let own = Term::from(a_pg.pid());
    for strange in [
        Term::atom("hello"),
        Term::tuple([Term::atom("nodeup"), Term::atom("c@127.0.0.1")]),
        Term::tuple([
            Term::atom("leave"),
            own.clone(),
            own.clone(),
            Term::list([Term::from("never")]),
        ]),
        Term::tuple([Term::atom("discover"), Term::atom("a@127.0.0.1")]),
    ] {
        a.send(to, strange.clone()).unwrap();
        a.cast_term(to, strange).unwrap();
    }
    // A later release says more.
    let discover = Term::tuple([Term::atom("discover"), own, Term::from(2)]);
    a.send(to, discover).unwrap();
    let reply = a.call_term(to, Term::atom("monitor"), SOON).await.unwrap();
    assert_eq!(
        reply,
        Term::tuple([Term::atom("error"), Term::atom("notsup")])
    );
    assert_eq!(b_pg.pid(), before);
    assert_eq!(b_pg.members("g"), [one.pid().clone()]);
    a.stop().await;
    b.stop().await;
}
