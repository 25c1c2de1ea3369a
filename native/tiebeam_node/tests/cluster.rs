//! Clusters of Rust nodes over real connections. Nodes are found by address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_node::{
    ClusterConfig, ClusterError, ClusterEvent, ClusterHandle, Config, Cookie, EpmdMode, Kind,
    Member, Node, Signal, Status, Term, Timing,
};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

fn millis(millis: u64) -> tiebeam_core::Duration {
    tiebeam_core::Duration::from_millis(millis)
}

/// What the defaults do in seconds, in a fraction of one.
fn settings() -> ClusterConfig {
    let timing = Timing {
        greet_first: millis(50),
        greet_max: millis(400),
        sync_every: millis(200),
        ..Timing::default()
    };
    ClusterConfig::default().timing(timing)
}

/// A node that knows where the others are.
async fn start(name: &str, others: &[&Node]) -> Node {
    let mut config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for other in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
        config
            .addresses
            .insert(other.name().as_str().to_owned(), address);
    }
    Node::start(config).await.unwrap()
}

fn statuses(members: &[Member]) -> Vec<(&str, Status)> {
    members
        .iter()
        .map(|member| (member.node.as_str(), member.status))
        .collect()
}

async fn until(cluster: &ClusterHandle, expected: &[(&str, Status)]) -> Arc<[Member]> {
    let reached = cluster.wait_for(|members| statuses(members) == expected);
    match tokio::time::timeout(DEADLINE, reached).await {
        Ok(Some(members)) => members,
        Ok(None) => panic!(
            "the driver ended; it saw {:?}",
            statuses(&cluster.members())
        ),
        Err(_) => panic!(
            "expected {expected:?}, got {:?}",
            statuses(&cluster.members())
        ),
    }
}

#[tokio::test]
async fn a_node_alone_is_a_cluster_of_one() {
    let node = start("alone", &[]).await;
    let cluster = node.cluster(ClusterConfig::default()).await.unwrap();
    let members = cluster.members();
    assert_eq!(statuses(&members), [("alone@127.0.0.1", Status::Alive)]);
    assert_eq!(
        (members[0].kind, members[0].creation),
        (Kind::Rust, node.creation())
    );
    assert_eq!(
        cluster.member("alone@127.0.0.1").as_ref(),
        Some(&members[0])
    );
    assert_eq!(cluster.member("nobody@127.0.0.1"), None);
    node.stop().await;
}

#[tokio::test]
async fn three_nodes_find_each_other_through_one_seed_and_a_death_is_noticed() {
    use Status::{Alive, Dead};
    let (a_name, b_name, c_name) = ("a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1");
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let c = start("c", &[&a, &b]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([a_name])).await.unwrap();
    let on_c = c.cluster(settings().join([a_name])).await.unwrap();
    for cluster in [&on_a, &on_b, &on_c] {
        until(
            cluster,
            &[(a_name, Alive), (b_name, Alive), (c_name, Alive)],
        )
        .await;
    }

    let mut events = on_a.subscribe();
    // Without a farewell: the connections are closed, and that is all the others see.
    c.stop().await;
    for cluster in [&on_a, &on_b] {
        until(cluster, &[(a_name, Alive), (b_name, Alive), (c_name, Dead)]).await;
    }
    match tokio::time::timeout(DEADLINE, events.recv()).await.unwrap() {
        Some(ClusterEvent::Down(member)) => assert_eq!(member.node.as_str(), c_name),
        other => panic!("expected c to be down, got {other:?}"),
    }

    let again = start("c", &[&a, &b]).await;
    let on_c = again.cluster(settings().join([a_name])).await.unwrap();
    for cluster in [&on_a, &on_b, &on_c] {
        until(
            cluster,
            &[(a_name, Alive), (b_name, Alive), (c_name, Alive)],
        )
        .await;
    }
    match tokio::time::timeout(DEADLINE, events.recv()).await.unwrap() {
        Some(ClusterEvent::Up(member)) => assert_eq!(member.creation, again.creation()),
        other => panic!("expected c to be up again, got {other:?}"),
    }
    for node in [a, b, again] {
        node.stop().await;
    }
}

#[tokio::test]
async fn who_leaves_has_left_and_may_join_again() {
    use Status::{Alive, Left};
    let (a_name, b_name) = ("a@127.0.0.1", "b@127.0.0.1");
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([a_name])).await.unwrap();
    until(&on_a, &[(a_name, Alive), (b_name, Alive)]).await;
    until(&on_b, &[(a_name, Alive), (b_name, Alive)]).await;

    on_b.leave().await;
    assert_eq!(statuses(&on_b.members()), [(b_name, Left)]);
    on_b.leave().await;
    until(&on_a, &[(a_name, Alive), (b_name, Left)]).await;

    // The process that has left still answers; it makes room when it is ended.
    let Err(ClusterError::Process(_)) = b.cluster(settings()).await else {
        panic!("the name is taken")
    };
    let judge = b.spawn_anonymous().unwrap();
    let old = b.whereis("tiebeam").unwrap();
    judge.send_exit(&old, Term::atom("kill"));
    let ended = tokio::time::timeout(DEADLINE, async {
        while b.whereis("tiebeam").is_some() {
            tokio::task::yield_now().await;
        }
    });
    ended.await.unwrap();
    let on_b = b.cluster(settings()).await.unwrap();
    until(&on_a, &[(a_name, Alive), (b_name, Alive)]).await;
    until(&on_b, &[(a_name, Alive), (b_name, Alive)]).await;
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn another_cluster_is_refused_on_both_sides() {
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().cluster("blue")).await.unwrap();
    let (mut at_a, mut at_b) = (on_a.subscribe(), on_b.subscribe());
    b.connect("a@127.0.0.1").await.unwrap();
    for (events, node, identity) in [
        (&mut at_a, "b@127.0.0.1", "blue"),
        (&mut at_b, "a@127.0.0.1", "default"),
    ] {
        match tokio::time::timeout(DEADLINE, events.recv()).await.unwrap() {
            Some(ClusterEvent::Refused {
                node: refused,
                cluster,
            }) => {
                assert_eq!((refused.as_str(), cluster.as_str()), (node, identity));
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
    assert_eq!((on_a.members().len(), on_b.members().len()), (1, 1));
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn any_process_asks_for_the_members_and_garbage_is_harmless() {
    let node = start("a", &[]).await;
    let cluster = node.cluster(settings()).await.unwrap();
    let mut asker = node.spawn_anonymous().unwrap();
    let garbage = [
        Term::atom("hello"),
        Term::tuple([
            Term::atom("$tiebeam"),
            Term::atom("x@y"),
            Term::binary(b"garbage"),
        ]),
        Term::tuple([
            Term::atom("$tiebeam"),
            Term::atom("nobody"),
            Term::binary(b""),
        ]),
        Term::tuple([Term::atom("$gen_cast"), Term::atom("stop")]),
    ];
    for message in garbage {
        asker.send("tiebeam", message).unwrap();
    }
    let Term::List(members) = ask(&mut asker, "members").await else {
        panic!("not a list")
    };
    let me = members[0].as_map().unwrap();
    assert_eq!(members.len(), 1);
    assert!(
        me.get_atom("__struct__")
            .unwrap()
            .is_atom("Elixir.Tiebeam.Member")
    );
    assert!(me.get_atom("node").unwrap().is_atom("a@127.0.0.1"));
    assert!(me.get_atom("status").unwrap().is_atom("alive"));
    assert_eq!(me.get_atom("creation"), Some(&Term::from(node.creation())));

    let unknown = Term::tuple([Term::atom("error"), Term::atom("unknown_request")]);
    assert_eq!(ask(&mut asker, "of_a_later_release").await, unknown);
    assert_eq!(
        statuses(&cluster.members()),
        [("a@127.0.0.1", Status::Alive)]
    );
    node.stop().await;
}

/// `GenServer.call(:tiebeam, request)`.
async fn ask(asker: &mut tiebeam_node::Process, request: &'static str) -> Term {
    let from = Term::tuple([Term::from(asker.pid()), Term::atom("tag")]);
    asker
        .send(
            "tiebeam",
            Term::tuple([Term::atom("$gen_call"), from, Term::atom(request)]),
        )
        .unwrap();
    match tokio::time::timeout(DEADLINE, asker.recv()).await.unwrap() {
        Some(Signal::Message(Term::Tuple(reply))) => reply[1].clone(),
        other => panic!("expected a reply, got {other:?}"),
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_and_leave_nothing_behind() {
    let node = start("a", &[]).await;
    let join = node.cluster(settings().join(["seed"])).await.unwrap_err();
    assert_eq!(
        join.to_string(),
        "node name \"seed\" is not of the form name@host"
    );
    let empty = node.cluster(settings().cluster("")).await.unwrap_err();
    assert_eq!(
        empty.to_string(),
        "cluster must have 1 to 255 bytes, it has 0"
    );
    assert_eq!(node.whereis("tiebeam"), None);

    let first = node.cluster(settings()).await.unwrap();
    let taken = node.cluster(settings()).await.unwrap_err();
    assert!(
        taken.to_string().contains("the name tiebeam is taken"),
        "{taken}"
    );
    let second = node.cluster(settings().process("another")).await.unwrap();
    assert_eq!((first.members().len(), second.members().len()), (1, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_with_the_node() {
    let node = start("a", &[]).await;
    let cluster = node.cluster(settings()).await.unwrap();
    let mut events = cluster.subscribe();
    node.stop().await;
    assert_eq!(
        tokio::time::timeout(DEADLINE, events.recv()).await.unwrap(),
        None
    );
    assert_eq!(cluster.subscribe().recv().await, None);
    cluster.leave().await;
}
