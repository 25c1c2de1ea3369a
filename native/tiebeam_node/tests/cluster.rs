//! Clusters of Rust nodes over real connections. Nodes are found by address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_node::{
    ClusterConfig, ClusterError, ClusterEvent, ClusterEvents, ClusterHandle, CommandError, Config,
    Contest, Cookie, EpmdMode, Kind, MAX_METADATA_BYTES, Member, Node, Process, Signal, Status,
    Term, Timing,
};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

fn millis(millis: u64) -> tiebeam_core::Duration {
    tiebeam_core::Duration::from_millis(millis)
}

/// The profile `fast`, with less patience for those that are away.
fn settings() -> ClusterConfig {
    let timing = Timing {
        greet_first: millis(50),
        greet_max: millis(400),
        ..Timing::fast()
    };
    ClusterConfig::fast().timing(timing)
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

/// The first event that `wanted` takes.
async fn event<T>(
    events: &mut ClusterEvents,
    mut wanted: impl FnMut(&ClusterEvent) -> Option<T>,
) -> T {
    let mut others = Vec::new();
    let found = async {
        while let Some(event) = events.recv().await {
            match wanted(&event) {
                Some(found) => return Some(found),
                None => others.push(event),
            }
        }
        None
    };
    match tokio::time::timeout(DEADLINE, found).await {
        Ok(Some(found)) => found,
        Ok(None) => panic!("the driver ended after {others:?}"),
        Err(_) => panic!("only these came: {others:?}"),
    }
}

async fn stop<const N: usize>(nodes: [Node; N]) {
    for node in nodes {
        node.stop().await;
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
    let down = event(&mut events, |event| match event {
        ClusterEvent::Down(member) => Some(member.node.clone()),
        _ => None,
    });
    assert_eq!(down.await.as_str(), c_name);

    let again = start("c", &[&a, &b]).await;
    let on_c = again.cluster(settings().join([a_name])).await.unwrap();
    for cluster in [&on_a, &on_b, &on_c] {
        until(
            cluster,
            &[(a_name, Alive), (b_name, Alive), (c_name, Alive)],
        )
        .await;
    }
    let up = event(&mut events, |event| match event {
        ClusterEvent::Up(member) => Some(member.creation),
        _ => None,
    });
    assert_eq!(up.await, again.creation());
    stop([a, b, again]).await;
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
    stop([a, b]).await;
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
        let refused = event(events, |event| match event {
            ClusterEvent::Refused { node, cluster } => Some((node.clone(), cluster.clone())),
            _ => None,
        });
        let (refused, cluster) = refused.await;
        assert_eq!((refused.as_str(), cluster.as_str()), (node, identity));
    }
    assert_eq!((on_a.members().len(), on_b.members().len()), (1, 1));
    stop([a, b]).await;
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

    assert!(me.get_atom("round_trip").unwrap().is_atom("nil"));
    assert_eq!(me.get_atom("metadata"), Some(&Term::binary(b"")));

    let health = ask(&mut asker, "health").await;
    let health = health.as_map().unwrap();
    assert_eq!(health.get_atom("multiplier"), Some(&Term::from(1)));
    let metrics = ask(&mut asker, "metrics").await;
    let ignored = metrics.as_map().unwrap().get_atom("ignored").unwrap();
    // The garbage that claims to be of `x@y`.
    assert_eq!(ignored, &Term::from(1));
    assert_eq!(cluster.metrics().ignored, 1);

    let unknown = Term::tuple([Term::atom("error"), Term::atom("unknown_request")]);
    assert_eq!(ask(&mut asker, "of_a_later_release").await, unknown);
    assert_eq!(
        statuses(&cluster.members()),
        [("a@127.0.0.1", Status::Alive)]
    );
    node.stop().await;
}

/// `GenServer.call(:tiebeam, request)`.
async fn ask(asker: &mut Process, request: &'static str) -> Term {
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

#[tokio::test]
async fn a_member_tells_about_itself_and_says_something_to_all() {
    let (a_name, b_name) = ("a@127.0.0.1", "b@127.0.0.1");
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let on_a = a.cluster(settings().metadata("zone 1")).await.unwrap();
    let on_b = b.cluster(settings().join([a_name])).await.unwrap();
    let both = [(a_name, Status::Alive), (b_name, Status::Alive)];
    let members = until(&on_b, &both).await;
    assert_eq!(&*members[0].metadata, b"zone 1");
    until(&on_a, &both).await;

    let mut at_b = on_b.subscribe();
    on_a.set_metadata("zone 2").await.unwrap();
    assert_eq!(&*on_a.member(a_name).unwrap().metadata, b"zone 2");
    let metadata = event(&mut at_b, |event| match event {
        ClusterEvent::Updated(member) => Some(member.metadata.clone()),
        ClusterEvent::Down(_) | ClusterEvent::Up(_) => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!(&*metadata.await, b"zone 2");
    on_a.broadcast("hello").await.unwrap();
    let said = event(&mut at_b, |event| match event {
        ClusterEvent::Broadcast { from, bytes } => Some((from.clone(), bytes.clone())),
        _ => None,
    });
    let (from, bytes) = said.await;
    assert_eq!((from.as_str(), &*bytes), (a_name, &b"hello"[..]));

    let too_long = on_a.set_metadata(vec![0; MAX_METADATA_BYTES + 1]).await;
    assert_eq!(
        too_long.unwrap_err(),
        CommandError::TooLong {
            bytes: MAX_METADATA_BYTES + 1,
            limit: MAX_METADATA_BYTES
        }
    );
    // Both have probed one another by now, or do so in the next period.
    let measured = on_a.wait_for(|members| members[1].round_trip.is_some());
    tokio::time::timeout(DEADLINE, measured).await.unwrap();
    assert!(on_a.metrics().probes > 0 && on_a.health().multiplier == 1);

    on_a.leave().await;
    assert_eq!(on_a.broadcast("late").await, Err(CommandError::Left));
    stop([a, b]).await;
    assert_eq!(on_a.broadcast("late").await, Err(CommandError::Ended));
}

/// The next message to a subscriber, without those that are not about members.
async fn told(process: &mut Process) -> (String, String, String) {
    loop {
        match tokio::time::timeout(DEADLINE, process.recv()).await {
            Ok(Some(Signal::Message(message))) => {
                let [tag, cluster, event] = message.as_tuple().unwrap() else {
                    panic!("{message}")
                };
                assert!(tag.is_atom("tiebeam"), "{message}");
                let [member, change, about] = event.as_tuple().unwrap() else {
                    continue;
                };
                if member.is_atom("member") {
                    let cluster = cluster.as_binary().unwrap().as_slice();
                    let node = about.as_map().unwrap().get_atom("node").unwrap();
                    return (
                        String::from_utf8(cluster.to_vec()).unwrap(),
                        change.as_atom().unwrap().to_string(),
                        node.as_atom().unwrap().to_string(),
                    );
                }
            }
            other => panic!("expected an event, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_process_of_any_node_subscribes() {
    let (a_name, b_name) = ("a@127.0.0.1", "b@127.0.0.1");
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let tool = start("tool", &[&a]).await;
    let _on_a = a.cluster(settings().cluster("blue")).await.unwrap();
    let member = ("tiebeam", a_name);
    let request = |name, pid: &tiebeam_node::Pid| Term::tuple([Term::atom(name), Term::from(pid)]);
    let mut watcher = tool.spawn_anonymous().unwrap();
    let mut local = a.spawn_anonymous().unwrap();
    for pid in [watcher.pid(), watcher.pid(), local.pid()] {
        let reply = tool.call_term(member, request("subscribe", pid), DEADLINE);
        assert!(reply.await.unwrap().is_atom("ok"));
    }
    // Nobody makes a member dial by naming a process.
    let stranger = b.spawn_anonymous().unwrap();
    let refused = tool.call_term(member, request("subscribe", stranger.pid()), DEADLINE);
    let refusal = Term::tuple([Term::atom("error"), Term::atom("noconnection")]);
    assert_eq!(refused.await.unwrap(), refusal);

    let on_b = b
        .cluster(settings().cluster("blue").join([a_name]))
        .await
        .unwrap();
    let told_of_b = |change: &str| ("blue".to_owned(), change.to_owned(), b_name.to_owned());
    for subscriber in [&mut watcher, &mut local] {
        loop {
            let told = told(subscriber).await;
            // The tool's node is seen, too: as one that runs no Tiebeam.
            if told.2 == b_name {
                assert_eq!(told, told_of_b("up"));
                break;
            }
        }
    }
    let reply = tool.call_term(member, request("unsubscribe", watcher.pid()), DEADLINE);
    assert!(reply.await.unwrap().is_atom("ok"));
    on_b.leave().await;
    loop {
        if told(&mut local).await == told_of_b("left") {
            break;
        }
    }
    // What a member says over one connection comes in order: after this, nothing more comes.
    tool.ping(a_name, DEADLINE).await.unwrap();
    while let Some(signal) = watcher.try_recv() {
        assert!(!format!("{signal:?}").contains("left"), "{signal:?}");
    }
    stop([a, b, tool]).await;
}

#[tokio::test]
async fn a_node_without_a_cluster_is_observed_and_known_dead_when_its_kernel_is() {
    let (a_name, b_name, plain) = ("a@127.0.0.1", "b@127.0.0.1", "plain@127.0.0.1");
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let c = start("plain", &[&a, &b]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([a_name])).await.unwrap();
    c.connect(a_name).await.unwrap();
    c.connect(b_name).await.unwrap();
    let all = [a_name, b_name, plain].map(|name| (name, Status::Alive));
    for cluster in [&on_a, &on_b] {
        let members = until(cluster, &all).await;
        assert_eq!(members[2].kind, Kind::Plain);
    }
    let mut events = on_a.subscribe();
    let kernel = c.whereis("net_kernel").unwrap();
    c.send_exit(&kernel, Term::atom("kill"));
    // Its connection still carries ticks, so it may be contested instead of dead; silence it is not.
    event(&mut events, |event| match event {
        ClusterEvent::Down(member) | ClusterEvent::Contested { member, .. } => {
            (member.node.as_str() == plain).then_some(())
        }
        _ => None,
    })
    .await;
    stop([a, b, c]).await;
}

#[tokio::test]
async fn a_driver_that_has_ended_is_noticed_while_its_node_is_connected() {
    let names = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let c = start("c", &[&a, &b]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([names[0]])).await.unwrap();
    let on_c = c.cluster(settings().join([names[0]])).await.unwrap();
    let all = names.map(|name| (name, Status::Alive));
    for cluster in [&on_a, &on_b, &on_c] {
        until(cluster, &all).await;
    }
    // Whoever is not connected to a node takes it for dead when it does not answer; b must be.
    c.connect(names[1]).await.unwrap();
    let mut events = on_a.subscribe();
    let driver = c.whereis("tiebeam").unwrap();
    c.send_exit(&driver, Term::atom("kill"));
    // The node lives, so its connections stay: were they closed, its links would break, and `global` on BEAM nodes would
    // tear the mesh apart.
    let contested = event(&mut events, |event| match event {
        ClusterEvent::Contested { member, reason } => Some((member.node.clone(), *reason)),
        ClusterEvent::Down(_) => panic!("{event:?}"),
        _ => None,
    });
    let (node, reason) = contested.await;
    assert_eq!((node.as_str(), reason), (names[2], Contest::Heard));
    // Nor does it help to wait for it.
    let judged_again = 4 * Timing::fast().suspicion_multiplier * Duration::from_millis(250);
    let down = tokio::time::timeout(judged_again, async {
        while let Some(event) = events.recv().await {
            if let ClusterEvent::Down(_) = event {
                return;
            }
        }
    });
    assert!(down.await.is_err(), "a node that lives was evicted");
    assert_eq!(c.nodes(), [names[0], names[1]]);

    // Started again it is a new life of the same node.
    let on_c = loop {
        match c.cluster(settings().join([names[0]])).await {
            Ok(cluster) => break cluster,
            Err(ClusterError::Process(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    for cluster in [&on_a, &on_b, &on_c] {
        until(cluster, &all).await;
    }
    stop([a, b, c]).await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_stood_still_says_so() {
    let node = start("a", &[]).await;
    let cluster = node.cluster(settings()).await.unwrap();
    let mut events = cluster.subscribe();
    // Its timers are set by now, and on time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.health().stalls, 0);
    tokio::time::advance(Duration::from_secs(5)).await;
    let late = event(&mut events, |event| match event {
        ClusterEvent::Stalled(late) => Some(*late),
        _ => None,
    });
    let late = late.await;
    assert!(late > Duration::from_secs(4), "{late:?}");
    assert_eq!(cluster.health().stalls, 1);
    node.stop().await;
}

/// How much each process sends in the test of a busy link, and in what pieces; of the smallest only so many.
const TRANSFER: usize = 512 << 20;
const PIECES: [usize; 3] = [100, 64 << 10, 32 << 20];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gigabyte_over_one_link_makes_nobody_dead() {
    let names = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let c = start("c", &[&a, &b]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([names[0]])).await.unwrap();
    let on_c = c.cluster(settings().join([names[0]])).await.unwrap();
    let all = names.map(|name| (name, Status::Alive));
    for cluster in [&on_a, &on_b, &on_c] {
        until(cluster, &all).await;
    }
    let mut transfers = Vec::new();
    for piece in PIECES {
        let sender = a.spawn_anonymous().unwrap();
        let mut receiver = b.spawn_anonymous().unwrap();
        let to = receiver.pid().clone();
        let count = (TRANSFER / piece).min(500_000);
        let bytes = Term::from(tiebeam_node::Binary::from(vec![7; piece]));
        tokio::spawn(async move {
            for _ in 0..count {
                sender.send_paced(&to, bytes.clone()).await.unwrap();
            }
        });
        transfers.push(tokio::spawn(async move {
            for _ in 0..count {
                assert!(matches!(receiver.recv().await, Some(Signal::Message(_))));
            }
        }));
    }
    for transfer in transfers {
        tokio::time::timeout(6 * DEADLINE, transfer)
            .await
            .unwrap()
            .unwrap();
    }
    for cluster in [&on_a, &on_b, &on_c] {
        let metrics = cluster.metrics();
        assert_eq!((metrics.deaths, metrics.contested), (0, 0), "{metrics:?}");
    }
    stop([a, b, c]).await;
}
