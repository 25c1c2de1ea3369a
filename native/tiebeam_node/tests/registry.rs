//! Names and groups on real Rust nodes. Nodes are found by address: no epmd takes part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tiebeam_node::{
    Answer, Atom, CallError, ClusterConfig, ClusterHandle, Config, Cookie, Departure, EpmdMode,
    GenServer, Gone, Keep, Name, Node, OnConflict, Pid, Process, RegisterOptions, Registration,
    Registry, RegistryError, RegistryEvent, RegistryEvents, RegistryLimits, ReplyTo, Service,
    ServiceChange, ServiceChanges, ServiceFilter, ServiceOptions, Signal, Status, Term, Timing,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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

/// Who is connected has much time to answer, so that nobody is suspected because the machine is busy; and a suspect stays one for
/// as long as any test takes.
fn patient() -> ClusterConfig {
    let timing = Timing {
        greet_first: millis(50),
        greet_max: millis(400),
        probe_interval: millis(2_000),
        probe_timeout: millis(1_900),
        suspicion_multiplier: 64,
        ..Timing::fast()
    };
    ClusterConfig::fast().timing(timing)
}

/// A node that knows at which port of this machine others are.
async fn start_with(name: &str, others: &[(&Node, u16)]) -> Node {
    let mut config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for (other, port) in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        config
            .addresses
            .insert(other.name().as_str().to_owned(), address);
    }
    Node::start(config).await.unwrap()
}

async fn start(name: &str, others: &[&Node]) -> Node {
    let others: Vec<_> = others.iter().map(|other| (*other, other.port())).collect();
    start_with(name, &others).await
}

/// The only way from one node to another, which can be cut.
struct Link {
    port: u16,
    open: watch::Sender<bool>,
}

impl Link {
    async fn to(node: &Node) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port()));
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut opened = opened.clone();
                if !*opened.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = opened.wait_for(|open| !*open) => {}
                    }
                });
            }
        });
        Self { port, open }
    }

    fn cut(&self) {
        self.open.send_replace(false);
    }

    fn heal(&self) {
        self.open.send_replace(true);
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come in time: {what}"),
    }
}

async fn seen(cluster: &ClusterHandle, statuses: &[(&str, Status)]) {
    let members = cluster.wait_for(|members| {
        let seen = members
            .iter()
            .map(|member| (member.node.as_str(), member.status));
        seen.eq(statuses.iter().copied())
    });
    within("the members", members).await.expect("a driver");
}

/// Two members.
async fn pair() -> ([Node; 2], [ClusterHandle; 2]) {
    pair_of(settings).await
}

async fn pair_of(settings: fn() -> ClusterConfig) -> ([Node; 2], [ClusterHandle; 2]) {
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([A])).await.unwrap();
    for cluster in [&on_a, &on_b] {
        seen(cluster, &[(A, Status::Alive), (B, Status::Alive)]).await;
    }
    ([a, b], [on_a, on_b])
}

const A: &str = "a@127.0.0.1";
const B: &str = "b@127.0.0.1";

/// Waits until a name is this process's.
async fn has(names: &Registry, name: impl Into<Name>, pid: &Pid) {
    settled(names, name, Some(pid)).await;
}

/// Waits until nobody has a name.
async fn free(names: &Registry, name: impl Into<Name>) {
    settled(names, name, None).await;
}

async fn settled(names: &Registry, name: impl Into<Name>, pid: Option<&Pid>) {
    let name = name.into();
    // Subscribed before it is looked up: no change is missed.
    let mut events = names.subscribe();
    let reached = async {
        while names.whereis(&name).as_ref() != pid {
            events.recv().await.expect("a driver");
        }
    };
    within(&format!("{name} as {pid:?}"), reached).await;
}

async fn event<T>(
    events: &mut RegistryEvents,
    mut wanted: impl FnMut(&RegistryEvent) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = events.recv().await.expect("a driver");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    within("an event", found).await
}

async fn message(process: &mut Process) -> Term {
    match within("a message", process.recv()).await {
        Some(Signal::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

async fn stop<const N: usize>(nodes: [Node; N]) {
    for node in nodes {
        node.stop().await;
    }
}

fn pids(members: &[Registration]) -> Vec<Pid> {
    let mut pids: Vec<_> = members.iter().map(|member| member.pid.clone()).collect();
    pids.sort();
    pids
}

#[tokio::test]
async fn a_name_is_found_here_at_once_and_on_the_other_node_soon() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    let cache = a.spawn_anonymous().unwrap();
    let waiting = {
        let there = there.clone();
        tokio::spawn(async move { there.await_name("cache", DEADLINE).await })
    };
    let options = RegisterOptions::new().meta(&("zone", 1)).unwrap();
    here.register_with("cache", cache.pid(), options)
        .await
        .unwrap();
    assert_eq!(here.whereis("cache").as_ref(), Some(cache.pid()));
    let found = waiting.await.unwrap().unwrap();
    assert_eq!((&found.pid, found.node.as_str()), (cache.pid(), A));
    assert_eq!(found.meta::<(String, u8)>().unwrap(), ("zone".into(), 1));
    assert_eq!(there.lookup("cache"), Some(found));
    // An atom is another name, and another scope other names.
    assert_eq!(there.whereis(Atom::of("cache")), None);
    assert_eq!(there.scope("other").whereis("cache"), None);

    let mut events = there.subscribe();
    here.update_meta("cache", &7).await.unwrap();
    assert_eq!(here.lookup("cache").unwrap().meta::<u8>().unwrap(), 7);
    let updated = event(&mut events, |event| match event {
        RegistryEvent::Updated { name, .. } => Some(name.clone()),
        _ => None,
    });
    assert_eq!(updated.await, Name::from("cache"));
    assert_eq!(there.lookup("cache").unwrap().meta::<u8>().unwrap(), 7);
    assert_eq!((there.count(), there.names()), (1, vec!["cache".into()]));
    assert_eq!(
        (here.local_names().len(), there.local_names().len()),
        (1, 0)
    );

    // Only where it was registered is it taken away.
    assert!(matches!(
        there.unregister("cache").await,
        Err(RegistryError::Taken { .. })
    ));
    here.unregister("cache").await.unwrap();
    assert_eq!(here.whereis("cache"), None);
    free(&there, "cache").await;
    assert!(matches!(
        here.unregister("cache").await,
        Err(RegistryError::Unknown)
    ));
    stop([a, b]).await;
}

#[tokio::test]
async fn a_taken_name_is_refused_until_its_process_ends() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    let first = a.spawn_anonymous().unwrap();
    let second = b.spawn_anonymous().unwrap();
    here.register("job", first.pid()).await.unwrap();
    has(&there, "job", first.pid()).await;
    match there.register("job", second.pid()).await {
        Err(RegistryError::Taken { pid, node }) => {
            assert_eq!((&pid, node.as_str()), (first.pid(), A));
        }
        other => panic!("expected Taken, got {other:?}"),
    }
    let none = there
        .register_with_retry("job", second.pid(), RegisterOptions::new(), Duration::ZERO)
        .await;
    assert!(matches!(none, Err(RegistryError::Taken { .. })), "{none:?}");

    let retrying = {
        let (there, pid) = (there.clone(), second.pid().clone());
        tokio::spawn(async move {
            there
                .register_with_retry("job", &pid, RegisterOptions::new(), DEADLINE)
                .await
        })
    };
    let gone = here.whereis("job").unwrap();
    drop(first);
    assert_eq!(here.whereis("job"), None, "{gone:?} has ended");
    within("the retry", retrying).await.unwrap().unwrap();
    has(&here, "job", second.pid()).await;
    stop([a, b]).await;
}

/// The successor comes before the others have heard of the end: the node of the process that has the name is asked.
#[tokio::test]
async fn a_process_that_has_just_ended_is_in_nobodys_way() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    for _ in 0..50 {
        let first = a.spawn_anonymous().unwrap();
        here.register("job", first.pid()).await.unwrap();
        has(&there, "job", first.pid()).await;
        drop(first);
        let second = b.spawn_anonymous().unwrap();
        there.register("job", second.pid()).await.unwrap();
        has(&here, "job", second.pid()).await;
        drop(second);
        free(&here, "job").await;
    }
    stop([a, b]).await;
}

#[tokio::test]
async fn names_of_a_node_go_when_it_dies_or_leaves_and_no_others() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    let (kept, lost) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    here.register("kept", kept.pid()).await.unwrap();
    for name in 0..100 {
        there.register(name, lost.pid()).await.unwrap();
    }
    on_b.groups().join("group", lost.pid()).await.unwrap();
    has(&here, 99, lost.pid()).await;
    let mut events = here.subscribe();
    b.stop().await;
    let departure = event(&mut events, |event| match event {
        RegistryEvent::Purged { node, departure } if node.as_str() == B => Some(*departure),
        _ => None,
    });
    assert_eq!(departure.await, Departure::Down);
    assert_eq!((here.count(), here.whereis(99)), (1, None));
    assert!(on_a.groups().members("group").is_empty());

    let b = start("b", &[&a]).await;
    let on_b = b.cluster(settings().join([A])).await.unwrap();
    let there = on_b.registry();
    has(&there, "kept", kept.pid()).await;
    let process = b.spawn_anonymous().unwrap();
    there.register("back", process.pid()).await.unwrap();
    has(&here, "back", process.pid()).await;
    on_b.leave().await;
    assert_eq!(there.count(), 0, "who has left knows nothing any more");
    assert!(matches!(
        there.register("late", process.pid()).await,
        Err(RegistryError::Left)
    ));
    free(&here, "back").await;
    stop([a, b]).await;
}

#[tokio::test]
async fn after_a_cut_the_older_registration_stays_and_nothing_else_is_lost() {
    let a = start("a", &[]).await;
    let link = Link::to(&a).await;
    let b = start_with("b", &[(&a, link.port)]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings().join([A])).await.unwrap();
    let (here, there) = (on_a.registry(), on_b.registry());
    for cluster in [&on_a, &on_b] {
        seen(cluster, &[(A, Status::Alive), (B, Status::Alive)]).await;
    }
    link.cut();
    seen(&on_a, &[(A, Status::Alive), (B, Status::Dead)]).await;
    seen(&on_b, &[(A, Status::Dead), (B, Status::Alive)]).await;

    const NAMES: i32 = 1000;
    let on = |node: &Node| node.spawn_anonymous().unwrap();
    let (mut old, only_a, only_b) = (on(&a), on(&a), on(&b));
    for name in 0..NAMES {
        here.register(name, old.pid()).await.unwrap();
    }
    here.register("only a", only_a.pid()).await.unwrap();
    // Age is told by Lamport's clocks, which did not hear of each other: this makes that of b run ahead.
    for name in 0..NAMES + 5 {
        there
            .register(("earlier", name), only_b.pid())
            .await
            .unwrap();
    }
    let (mut notified, mut exiting, mut standby) = (on(&b), on(&b), on(&b));
    exiting.trap_exit(true);
    let with = |on_conflict| RegisterOptions::new().on_conflict(on_conflict);
    for name in 0..NAMES - 2 {
        there.register(name, notified.pid()).await.unwrap();
    }
    let (exit_name, standby_name) = (NAMES - 2, NAMES - 1);
    let options = with(OnConflict::Exit);
    there
        .register_with(exit_name, exiting.pid(), options)
        .await
        .unwrap();
    let options = with(OnConflict::Standby);
    there
        .register_with(standby_name, standby.pid(), options)
        .await
        .unwrap();
    there.register("only b", only_b.pid()).await.unwrap();

    link.heal();
    for names in [&here, &there] {
        has(names, "only a", only_a.pid()).await;
        has(names, "only b", only_b.pid()).await;
        for name in 0..NAMES {
            has(names, name, old.pid()).await;
        }
    }
    let mut told = Vec::new();
    for _ in 0..NAMES - 2 {
        let lost = message(&mut notified).await;
        let Some([tiebeam, cluster, event]) = lost.as_tuple() else {
            panic!("{lost}")
        };
        assert!(tiebeam.is_atom("tiebeam") && *cluster == Term::from("default"));
        match event.as_tuple() {
            Some([lost, scope, name, Term::Pid(kept)]) => {
                assert!(lost.is_atom("lost") && scope.is_atom("default"));
                assert_eq!(kept, old.pid());
                told.push(name.as_integer().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    told.sort_unstable();
    assert_eq!(told, (0..i64::from(NAMES) - 2).collect::<Vec<_>>());
    match within("the exit", exiting.recv()).await {
        Some(Signal::Exit { reason, .. }) => {
            let kept = Term::from(old.pid());
            let name = Term::from(exit_name);
            let expected = [Term::atom("name_conflict"), name, kept];
            assert_eq!(reason, Term::tuple(expected));
        }
        other => panic!("expected an exit, got {other:?}"),
    }
    let lost = message(&mut standby).await;
    assert!(lost.as_tuple().unwrap()[2].as_tuple().unwrap()[0].is_atom("lost"));
    assert!(
        old.try_recv().is_none(),
        "who keeps its names hears nothing"
    );

    // The one in the line is next.
    drop(old);
    for names in [&here, &there] {
        has(names, standby_name, standby.pid()).await;
        free(names, 0).await;
    }
    let promoted = message(&mut standby).await.to_string();
    assert_eq!(
        promoted,
        format!("{{tiebeam,<<\"default\">>,{{promoted,default,{standby_name}}}}}")
    );
    stop([a, b]).await;
}

#[tokio::test]
async fn a_conflict_is_decided_once_by_who_asked_to_decide() {
    let a = start("a", &[]).await;
    let b = start("b", &[&a]).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let on_b = b.cluster(settings()).await.unwrap();
    let (here, there) = (on_a.registry(), on_b.registry());
    for names in [&here, &there] {
        names.resolve_with(|conflict| async move {
            let rank = |registration: &Registration| registration.meta::<u8>().unwrap();
            match conflict.name.to_term().as_integer() {
                Some(0) => Keep::Neither,
                Some(1) => panic!("a verdict that is none"),
                _ if rank(&conflict.younger) > rank(&conflict.older) => Keep::Younger,
                _ => Keep::Older,
            }
        });
    }
    let (on_first, on_second) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    let rank = |rank: u8| RegisterOptions::new().meta(&rank).unwrap();
    let mut losses = [here.subscribe(), there.subscribe()];
    for (name, first, second) in [(0, 1, 1), (1, 1, 2), (2, 1, 2), (3, 2, 1)] {
        here.register_with(name, on_first.pid(), rank(first))
            .await
            .unwrap();
        there
            .register(("earlier", name), on_second.pid())
            .await
            .unwrap();
        there
            .register_with(name, on_second.pid(), rank(second))
            .await
            .unwrap();
    }
    b.connect(A).await.unwrap();
    for names in [&here, &there] {
        free(names, 0).await;
        has(names, 1, on_first.pid()).await;
        has(names, 2, on_second.pid()).await;
        has(names, 3, on_first.pid()).await;
    }
    let lost = |event: &RegistryEvent| match event {
        RegistryEvent::Lost { name, .. } => Some(name.to_string()),
        _ => None,
    };
    for (events, expected) in losses.iter_mut().zip([&["0", "2"][..], &["0", "1", "3"]]) {
        let mut names = Vec::new();
        for _ in expected {
            names.push(event(events, lost).await);
        }
        names.sort();
        assert_eq!(names, expected);
    }
    stop([a, b]).await;
}

#[tokio::test]
async fn members_of_a_group_get_what_is_published() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.groups(), on_b.groups());
    let (mut first, mut second) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    let mut events = here.subscribe();
    here.join("workers", first.pid()).await.unwrap();
    here.join("workers", first.pid()).await.unwrap();
    there
        .join_with("workers", second.pid(), &"fast")
        .await
        .unwrap();
    let joined = |event: &RegistryEvent| match event {
        RegistryEvent::Joined { pid, .. } => Some(pid.clone()),
        _ => None,
    };
    assert_eq!(event(&mut events, joined).await, *first.pid());
    assert_eq!(event(&mut events, joined).await, *second.pid());
    let mut both = vec![first.pid().clone(), second.pid().clone()];
    both.sort();
    let members = here.members("workers");
    assert_eq!(pids(&members), both);
    let other = members.iter().find(|member| member.pid == *second.pid());
    assert_eq!(other.unwrap().meta::<String>().unwrap(), "fast");
    assert_eq!(pids(&here.local_members("workers")), [first.pid().clone()]);
    assert_eq!(here.groups(), [Name::from("workers")]);

    assert_eq!(here.publish("workers", Term::atom("work")), 2);
    assert_eq!(here.publish("nobody", Term::atom("work")), 0);
    for process in [&mut first, &mut second] {
        assert!(message(process).await.is_atom("work"));
    }
    // By its end, and by its wish.
    let pid = second.pid().clone();
    drop(second);
    let left = |event: &RegistryEvent| match event {
        RegistryEvent::Left { pid, gone, .. } => Some((pid.clone(), *gone)),
        _ => None,
    };
    assert_eq!(event(&mut events, left).await, (pid, Gone::Exited));
    here.leave("workers", first.pid()).await.unwrap();
    assert!(here.members("workers").is_empty() && here.groups().is_empty());
    assert!(matches!(
        here.leave("workers", first.pid()).await,
        Err(RegistryError::Unknown)
    ));
    stop([a, b]).await;
}

/// Says its name to who asks, and nothing to who asks for silence.
struct Member(&'static str);

impl GenServer for Member {
    type Call = String;
    type Cast = Term;
    type Reply = String;

    async fn handle_call(&mut self, request: String, _: &ReplyTo, _: &Process) -> Answer<String> {
        match request.as_str() {
            "silence" => Answer::Later,
            _ => Answer::Reply(self.0.to_owned()),
        }
    }
}

#[tokio::test]
async fn a_group_is_asked_and_says_who_answered_what() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.groups(), on_b.groups());
    let first = a.start_server("first", Member("first")).await.unwrap();
    let second = b.start_server("second", Member("second")).await.unwrap();
    let silent = b.spawn_anonymous().unwrap();
    let mut events = here.subscribe();
    here.join("workers", &first).await.unwrap();
    there.join("workers", &second).await.unwrap();
    there.join("workers", silent.pid()).await.unwrap();
    let mut joined = 0;
    event(&mut events, |_| {
        joined += 1;
        (joined == 3).then_some(())
    })
    .await;

    // One of them ends instead of an answer.
    let asked = here.call::<_, String>("workers", "name", DEADLINE);
    let gone = silent.pid().clone();
    let ends = async {
        let mut silent = silent;
        assert!(matches!(silent.recv().await, Some(Signal::Call(_))));
    };
    let (answers, ()) = within("the answers", async { tokio::join!(asked, ends) }).await;
    let answers = answers.unwrap();
    let answer = |pid: &Pid| {
        let found = answers.iter().find(|(member, _)| member == pid);
        &found.expect("one answer for each member").1
    };
    assert_eq!(answers.len(), 3);
    assert_eq!(answer(&first).as_ref().unwrap(), "first");
    assert_eq!(answer(&second).as_ref().unwrap(), "second");
    assert!(answer(&gone).is_err(), "{:?}", answer(&gone));

    // Nobody answers, and nobody is there.
    let asked = here.call::<_, String>("workers", "silence", Duration::from_millis(10));
    let answers = within("the end", asked).await.unwrap();
    assert!(answers.len() >= 2);
    let timed_out = |answer: &Result<_, _>| matches!(answer, Err(CallError::Timeout(_)));
    assert!(answers.iter().any(|(_, answer)| timed_out(answer)));
    assert!(answers.iter().all(|(_, answer)| answer.is_err()));
    let nobody = here.call::<_, String>("nobody", "name", DEADLINE).await;
    assert!(nobody.unwrap().is_empty());
    stop([a, b]).await;
}

#[tokio::test]
async fn names_are_found_by_tag_and_by_process_and_filtered() {
    let a = start("a", &[]).await;
    let names = a.cluster(settings()).await.unwrap().registry();
    let (one, other) = (a.spawn_anonymous().unwrap(), a.spawn_anonymous().unwrap());
    let tagged = |text| RegisterOptions::new().meta_term(&Term::parse(text).unwrap());
    for (name, meta) in [
        (1, "#{tags => [<<\"http\">>, json]}"),
        (2, "#{tags => [<<\"http\">> | json]}"),
        (3, "[<<\"http\">>]"),
        (4, "#{tags => [<<\"http\">>], zone => 7}"),
    ] {
        let meta = tagged(meta);
        names.register_with(name, one.pid(), meta).await.unwrap();
    }
    names.register("plain", other.pid()).await.unwrap();
    names.scope("else").register(9, one.pid()).await.unwrap();

    let sorted = |mut names: Vec<Name>| {
        names.sort();
        names
    };
    let numbers = |numbers: &[i32]| numbers.iter().map(|n| Name::from(*n)).collect::<Vec<_>>();
    assert_eq!(sorted(names.names_with_tag("http")), numbers(&[1, 4]));
    assert_eq!(names.names_with_tag(Atom::of("json")), numbers(&[1]));
    assert!(names.names_with_tag("json").is_empty());
    assert_eq!(sorted(names.names_of(one.pid())), numbers(&[1, 2, 3, 4]));
    assert_eq!(names.names_of(other.pid()), [Name::from("plain")]);
    assert_eq!(names.scope("else").names_of(one.pid()), numbers(&[9]));
    // Whoever filters may look names up.
    let zoned = names.entries().filter(|(name, found)| {
        let meta = found.meta_term().unwrap();
        meta.as_map()
            .is_some_and(|map| map.get_atom("zone").is_some())
            && names.whereis(name).as_ref() == Some(&found.pid)
    });
    assert_eq!(
        zoned.map(|(name, _)| name).collect::<Vec<_>>(),
        numbers(&[4])
    );
    assert_eq!(names.entries().count(), 5);
    drop(one);
    assert_eq!(names.entries().count(), 1, "of processes that run");
    a.stop().await;
}

async fn change(changes: &mut ServiceChanges) -> ServiceChange {
    within("a change", changes.recv()).await.expect("a driver")
}

async fn up(changes: &mut ServiceChanges) -> Service {
    match change(changes).await {
        ServiceChange::Up(service) => service,
        other => panic!("expected one that is up, got {other:?}"),
    }
}

#[tokio::test]
async fn services_are_listed_by_name_and_tag_and_watched() {
    let ([a, b], [on_a, on_b]) = pair_of(patient).await;
    let (here, there) = (on_a.services(), on_b.services());
    let (api, web) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    let options = || ServiceOptions::new().tags(["http", "json"]);
    let with_port = options().meta(&("port", 8080)).unwrap();
    here.register("api", api.pid(), with_port).await.unwrap();
    let http = || ServiceFilter::alive().tag("http");
    // What is there, and then what comes.
    let mut on_http = there.watch(http());
    let mut on_json = here.watch(ServiceFilter::any().tag("json").name("web"));
    let found = up(&mut on_http).await;
    assert_eq!((&found.name, &found.pid), (&"api".into(), api.pid()));
    assert_eq!(found.tags, ["http".into(), Name::from("json")]);
    assert_eq!(
        found.meta::<(String, u16)>().unwrap(),
        ("port".to_owned(), 8080)
    );
    assert_eq!(found.status, Status::Alive);
    assert_eq!(there.list(&http()), [found]);

    there.register("web", web.pid(), options()).await.unwrap();
    assert_eq!(up(&mut on_http).await.pid, *web.pid());
    assert_eq!(up(&mut on_json).await.pid, *web.pid());
    let count = |filter| here.list(&filter).len();
    assert_eq!(count(http()), 2);
    assert_eq!(count(http().name("web")), 1);
    assert_eq!(count(http().name("db")), 0);
    assert_eq!(
        count(http().matching(|service| service.name == "api".into())),
        1
    );
    assert_eq!(count(ServiceFilter::suspect()), 0);
    assert!(on_a.services().scope("else").list(&http()).is_empty());
    assert!(
        on_a.groups().groups().is_empty(),
        "they have a scope of their own"
    );

    // Other tags: still one, and no longer one.
    let other = ServiceOptions::new().tag("http");
    there.register("web", web.pid(), other).await.unwrap();
    let changed = change(&mut on_http).await;
    assert!(matches!(&changed, ServiceChange::Changed(service) if service.tags.len() == 1));
    let down = change(&mut on_json).await;
    assert!(matches!(&down, ServiceChange::Down(service) if service.tags.len() == 2));
    here.unregister("api", api.pid()).await.unwrap();
    let down = change(&mut on_http).await;
    assert!(matches!(&down, ServiceChange::Down(service) if service.pid == *api.pid()));
    drop(web);
    assert!(matches!(change(&mut on_http).await, ServiceChange::Down(_)));
    assert!(there.list(&ServiceFilter::any()).is_empty());

    let long = ServiceOptions::new().meta(&"x".repeat(5000)).unwrap();
    let refused = here.register("api", api.pid(), long).await;
    assert!(
        matches!(refused, Err(RegistryError::Limit(_))),
        "{refused:?}"
    );
    b.stop().await;
    assert!(on_http.recv().await.is_none());
    a.stop().await;
}

#[tokio::test]
async fn what_runs_on_a_suspect_is_flagged_and_can_be_hidden() {
    let a = start("a", &[]).await;
    let link = Link::to(&a).await;
    let b = start_with("b", &[(&a, link.port)]).await;
    let on_a = a.cluster(patient()).await.unwrap();
    let on_b = b.cluster(patient().join([A])).await.unwrap();
    let api = b.spawn_anonymous().unwrap();
    let options = ServiceOptions::new();
    let services = on_b.services();
    services.register("api", api.pid(), options).await.unwrap();
    on_b.groups().join("api", api.pid()).await.unwrap();
    on_b.registry().register("api", api.pid()).await.unwrap();
    let services = on_a.services();
    let mut alive = services.watch(ServiceFilter::alive());
    let mut any = services.watch(ServiceFilter::any());
    assert_eq!(up(&mut alive).await, up(&mut any).await);
    let (groups, names) = (on_a.groups(), on_a.registry());
    names.await_name("api", DEADLINE).await.unwrap();
    let shown = || {
        let hiding = (groups.hide_suspects(), names.hide_suspects());
        let members = (groups.members("api").len(), hiding.0.members("api").len());
        let pids = (names.whereis("api"), hiding.1.whereis("api"));
        assert_eq!(hiding.1.lookup("api").map(|found| found.pid), pids.1);
        (members, pids.0.is_some(), pids.1.is_some())
    };
    assert_eq!(shown(), ((1, 1), true, true));

    link.cut();
    let changed = change(&mut any).await;
    assert!(
        matches!(&changed, ServiceChange::Changed(service) if service.status == Status::Suspect)
    );
    assert!(matches!(change(&mut alive).await, ServiceChange::Down(_)));
    assert_eq!(services.list(&ServiceFilter::suspect()).len(), 1);
    assert!(services.list(&ServiceFilter::alive()).is_empty());
    assert_eq!(shown(), ((1, 0), true, false));

    link.heal();
    assert_eq!(up(&mut alive).await.pid, *api.pid());
    assert!(matches!(change(&mut any).await, ServiceChange::Changed(_)));
    assert_eq!(shown(), ((1, 1), true, true));
    stop([b, a]).await;
}

#[tokio::test]
async fn bad_input_is_refused_with_the_limit_and_nothing_is_half_registered() {
    let a = start("a", &[]).await;
    let limits = RegistryLimits {
        entries_per_scope: 2,
        ..RegistryLimits::default()
    };
    let cluster = a.cluster(settings().registry(limits)).await.unwrap();
    let (names, groups) = (cluster.registry(), cluster.groups());
    let process = a.spawn_anonymous().unwrap();
    let dead = a.spawn_anonymous().unwrap().pid().clone();
    let foreign = Pid {
        node: Atom::of("x@127.0.0.1"),
        ..process.pid().clone()
    };
    let earlier = Pid {
        creation: a.creation() ^ 1,
        ..process.pid().clone()
    };
    let (long, large) = ("x".repeat(2_000), "m".repeat(5_000));
    let large = RegisterOptions::new().meta(&large).unwrap();
    let scope = names.scope(&"s".repeat(300));
    let plain = RegisterOptions::new;
    for (names, name, pid, options, expected) in [
        (
            &names,
            long.as_str(),
            process.pid(),
            plain(),
            "the limit is 1024",
        ),
        (&names, "name", process.pid(), large, "the limit is 4096"),
        (&scope, "name", process.pid(), plain(), "the limit is 255"),
        (
            &names.scope(""),
            "name",
            process.pid(),
            plain(),
            "the scope is empty",
        ),
        (&names, "name", &foreign, plain(), "of another node"),
        (&names, "name", &dead, plain(), "has ended"),
        (&names, "name", &earlier, plain(), "has ended"),
        (
            &names.scope("global"),
            "name",
            process.pid(),
            plain(),
            "Node::global",
        ),
    ] {
        let refused = names.register_with(name, pid, options).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!((names.count(), scope.count()), (0, 0));
    let refused = groups.join("group", &foreign).await.unwrap_err();
    assert!(refused.to_string().contains("of another node"), "{refused}");
    let refused = names.await_name("nobody", Duration::ZERO).await;
    assert!(matches!(refused, Err(RegistryError::Timeout(_))));

    names.register("one", process.pid()).await.unwrap();
    groups.join("two", process.pid()).await.unwrap();
    let error = names.register("three", process.pid()).await.unwrap_err();
    assert!(error.to_string().contains("2 entries"), "{error}");
    assert_eq!(names.count(), 1);
    names.unregister("one").await.unwrap();
    names.register("three", process.pid()).await.unwrap();
    a.stop().await;
}

#[tokio::test]
async fn a_name_is_read_back_by_who_registered_it_whatever_else_goes_on() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let (node, cluster) = if caller % 2 == 0 {
                (a.clone(), on_a.clone())
            } else {
                (b.clone(), on_b.clone())
            };
            tokio::spawn(async move {
                let names = cluster.registry();
                let process = node.spawn_anonymous().unwrap();
                for n in 0..200 {
                    names.register((caller, n), process.pid()).await.unwrap();
                    let found = names.whereis((caller, n));
                    assert_eq!(found.as_ref(), Some(process.pid()));
                    names.unregister((caller, n)).await.unwrap();
                    assert_eq!(names.whereis((caller, n)), None);
                }
            })
        })
        .collect();
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }
    stop([a, b]).await;
}

#[tokio::test]
async fn ten_thousand_names_are_seen_by_the_others_and_by_who_comes_later() {
    const NAMES: i32 = 10_000;
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    let process = a.spawn_anonymous().unwrap();
    for name in 0..NAMES {
        here.register(name, process.pid()).await.unwrap();
    }
    has(&there, NAMES - 1, process.pid()).await;
    assert_eq!(there.count(), NAMES as usize);
    let c = start("c", &[&a, &b]).await;
    let on_c = c.cluster(settings().join([A])).await.unwrap();
    let mut events = on_c.registry().subscribe();
    let complete = async {
        while on_c.registry().count() < NAMES as usize {
            events.recv().await.expect("a driver");
        }
    };
    within("all names on c", complete).await;
    drop(process);
    let names = on_c.registry();
    let mut events = names.subscribe();
    let gone = async {
        while names.count() > 0 {
            events.recv().await.expect("a driver");
        }
    };
    within("the end of all names on c", gone).await;
    stop([a, b, c]).await;
}

#[tokio::test]
async fn names_end_with_the_clusters_process_and_come_back_with_the_next() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.registry(), on_b.registry());
    let (own, other) = (a.spawn_anonymous().unwrap(), b.spawn_anonymous().unwrap());
    here.register("own", own.pid()).await.unwrap();
    there.register("other", other.pid()).await.unwrap();
    has(&here, "other", other.pid()).await;
    has(&there, "own", own.pid()).await;
    let mut events = here.subscribe();
    let waiting = {
        let here = here.clone();
        tokio::spawn(async move { here.await_name("nobody", DEADLINE).await })
    };
    a.send_exit(&a.whereis("tiebeam").unwrap(), Term::atom("kill"));
    let ended = async { while events.recv().await.is_some() {} };
    within("the end of the driver", ended).await;
    let waited = within("an answer", waiting).await.unwrap();
    assert!(matches!(waited, Err(RegistryError::Ended)), "{waited:?}");
    assert_eq!((here.count(), here.whereis("other")), (0, None));
    assert!(matches!(
        here.register("own", own.pid()).await,
        Err(RegistryError::Ended)
    ));

    let free_again = async {
        while a.whereis("tiebeam").is_some() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of the process", free_again).await;
    let on_a = a.cluster(settings()).await.unwrap();
    let here = on_a.registry();
    has(&here, "other", other.pid()).await;
    free(&there, "own").await;
    here.register("own", own.pid()).await.unwrap();
    has(&there, "own", own.pid()).await;
    stop([a, b]).await;
}

/// What a plain BEAM node does with `GenServer.call({:tiebeam, node}, request)`.
#[tokio::test]
async fn any_node_asks_and_registers_its_own_processes() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let plain = start("plain", &[&a]).await;
    let ask = async |request: &str| {
        let request = Term::parse(request).unwrap();
        let reply = plain.call_term(("tiebeam", A), request, DEADLINE).await;
        reply.unwrap().to_string()
    };
    let with = async |verb: &'static str, arguments: Vec<Term>| {
        let mut request = vec![Term::atom(verb)];
        request.extend(arguments);
        let request = Term::tuple(request);
        let reply = plain.call_term(("tiebeam", A), request, DEADLINE).await;
        reply.unwrap()
    };
    assert_eq!(ask("{whereis, default, <<\"db\">>}").await, "nil");
    assert_eq!(ask("{lookup, default, <<\"db\">>}").await, "nil");
    assert_eq!(ask("names").await, "[]");
    assert_eq!(ask("{groups, default}").await, "[]");
    assert_eq!(ask("{members, default, g}").await, "[]");
    assert_eq!(ask("{unregister, default, db}").await, "{error,unknown}");
    assert_eq!(ask("{whereis, default}").await, "nil");
    assert_eq!(ask("{what, default, x}").await, "{error,unknown_request}");
    let refused = ask("{whereis, default, 1.5}").await;
    assert!(refused.starts_with("{error,{invalid,"), "{refused}");
    let refused = ask("{whereis, 7, x}").await;
    assert!(refused.contains("a scope is an atom"), "{refused}");

    let db = plain.spawn_anonymous().unwrap();
    let scope = || Term::atom("default");
    let name = || Term::from("db");
    let pid = || Term::from(db.pid());
    let ok = with("register", vec![scope(), name(), pid(), Term::from(1)]).await;
    assert!(ok.is_atom("ok"), "{ok}");
    assert_eq!(with("whereis", vec![name()]).await, pid());
    assert_eq!(
        with("whereis", vec![Term::from("default"), name()]).await,
        pid()
    );
    let pair = Term::tuple([pid(), Term::from(1)]);
    assert_eq!(with("lookup", vec![scope(), name()]).await, pair);
    let row = Term::tuple([name(), pid(), Term::from(1)]);
    assert_eq!(with("names", vec![scope()]).await, Term::list([row]));
    assert!(
        with("join", vec![Term::atom("g"), pid()])
            .await
            .is_atom("ok")
    );
    assert_eq!(
        with("members", vec![Term::atom("g")]).await,
        Term::list([pid()])
    );
    // The whole cluster sees it, registered on the node that was asked.
    let there = on_b.registry();
    has(&there, "db", db.pid()).await;
    assert_eq!(there.lookup("db").unwrap().node.as_str(), A);

    // What another node's processes have is theirs.
    let own = a.spawn_anonymous().unwrap();
    let names = on_a.registry();
    names.register("own", own.pid()).await.unwrap();
    let refused = with("unregister", vec![scope(), Term::from("own")]).await;
    assert!(refused.to_string().contains("only that node"), "{refused}");
    assert_eq!(names.whereis("own").as_ref(), Some(own.pid()));
    let refused = with("leave", vec![Term::atom("g"), Term::from(own.pid())]).await;
    assert!(refused.to_string().contains("only that node"), "{refused}");
    let third = b.spawn_anonymous().unwrap();
    on_b.registry()
        .register("third", third.pid())
        .await
        .unwrap();
    has(&names, "third", third.pid()).await;
    let taken = with("unregister", vec![scope(), Term::from("third")]).await;
    assert!(taken.to_string().contains("taken"), "{taken}");
    let ok = with("register", vec![Term::from("mine"), pid()]).await;
    assert!(ok.is_atom("ok"), "{ok}");
    let ok = with("unregister", vec![Term::from("mine")]).await;
    assert!(ok.is_atom("ok"), "{ok}");

    let taken = with("register", vec![name(), Term::from(own.pid())]).await;
    let expected = Term::tuple([Term::atom("taken"), pid()]);
    assert_eq!(taken, Term::tuple([Term::atom("error"), expected]));
    let refused = with("register", vec![Term::from(1), Term::from(third.pid())]).await;
    assert!(refused.to_string().contains("of another node"), "{refused}");
    let global = with("register", vec![Term::atom("global"), name(), pid()]).await;
    assert!(global.to_string().contains("invalid"), "{global}");

    // The member that was asked watches it.
    drop(db);
    free(&on_a.registry(), "db").await;
    free(&there, "db").await;
    let other = plain.spawn_anonymous().unwrap();
    let ok = with("register", vec![name(), Term::from(other.pid())]).await;
    assert!(ok.is_atom("ok"), "{ok}");
    has(&there, "db", other.pid()).await;
    plain.stop().await;
    free(&there, "db").await;
    stop([a, b]).await;
}

#[tokio::test]
async fn names_of_global_are_seen_in_a_scope_of_their_own() {
    let a = start("a", &[]).await;
    let cluster = a.cluster(settings()).await.unwrap();
    let names = cluster.registry().scope("global");
    let process = a.spawn_anonymous().unwrap();
    let waiting = {
        let names = names.clone();
        tokio::spawn(async move { names.await_name(Atom::of("counter"), DEADLINE).await })
    };
    a.global().register("counter", process.pid()).await.unwrap();
    assert_eq!(
        names.whereis(Atom::of("counter")).as_ref(),
        Some(process.pid())
    );
    assert_eq!(waiting.await.unwrap().unwrap().pid, *process.pid());
    assert_eq!(names.names(), [Name::from(Atom::of("counter"))]);
    assert_eq!((names.count(), cluster.registry().count()), (1, 0));
    let request = Term::parse("{whereis, global, counter}").unwrap();
    let reply = a.call_term("tiebeam", request, DEADLINE).await.unwrap();
    assert_eq!(reply, Term::from(process.pid()));
    a.stop().await;
}

/// A rolling upgrade: the gate opens when the last node has what is new, and a node that goes or takes it back counts.
#[tokio::test]
async fn what_all_nodes_can_do_is_known_everywhere() {
    let ([a, b], [on_a, on_b]) = pair().await;
    let (here, there) = (on_a.capabilities().version("1.4.0"), on_b.capabilities());
    assert_eq!(here.of(A), None);
    let first = here.announce(["orders.v2", "other"]).await.unwrap();
    assert_eq!(here.nodes("orders.v2").len(), 1);
    assert!(!here.everywhere("orders.v2"));
    let missing = here.missing("orders.v2");
    assert_eq!(
        missing.iter().map(|node| node.as_str()).collect::<Vec<_>>(),
        [B]
    );

    let second = there.announce(["orders.v2"]).await.unwrap();
    let mut events = on_a.groups().subscribe();
    let open = async {
        while !here.everywhere("orders.v2") {
            events.recv().await.expect("a driver");
        }
    };
    within("the gate", open).await;
    let said = here.of(A).unwrap();
    assert_eq!(said.version.as_deref(), Some("1.4.0"));
    assert_eq!(said.tiebeam, env!("CARGO_PKG_VERSION"));
    assert_eq!(said.capabilities.len(), 2);
    assert!(!here.everywhere("other"));

    // What is announced beside it is not in its way.
    let more = here.announce(["more"]).await.unwrap();
    assert_eq!(here.of(A).unwrap().capabilities.len(), 3);
    drop(first);
    let closed = async {
        while here.everywhere("orders.v2") {
            events.recv().await.expect("a driver");
        }
    };
    within("the gate that closes", closed).await;
    assert!(here.of(A).unwrap().capabilities.contains("more"));
    drop((second, more));
    stop([a, b]).await;
}
