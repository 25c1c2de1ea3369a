//! Servers that are killed over and over while others call them by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tiebeam_node::{
    ActorRef, CallError, ChildSpec, ClusterConfig, Registry, RegistryError, RetryPolicy,
    ServiceFilter, ServiceOptions, SpawnError, Strategy, Supervisor,
};

use super::*;

const KILLS: usize = 1_000;

/// Counts its starts.
fn counted(starts: &Arc<AtomicUsize>) -> ChildSpec {
    let starts = Arc::clone(starts);
    ChildSpec::server("counter", move || {
        starts.fetch_add(1, Ordering::SeqCst);
        Counter::default()
    })
}

/// Exactly as many restarts as there are kills: a start that failed would be one more.
fn supervisor() -> Supervisor {
    let day = Duration::from_secs(24 * 3600);
    Supervisor::new(Strategy::OneForOne).intensity(KILLS as u32, day)
}

/// Calls until it is told to stop: how many calls were answered. Whatever is not answered was not handled, or the server was
/// killed while it was.
async fn calls(actor: ActorRef<Request>, stop: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        match actor.call::<Pid>(&Request::Who, DEADLINE).await {
            Ok(_) => answered += 1,
            Err(CallError::NoProcess) => tokio::task::yield_now().await,
            Err(CallError::Exit(reason)) if reason.is_atom("killed") => {}
            Err(error) => panic!("{error}"),
        }
    }
    answered
}

/// Kills whoever the actor is, again and again, while the callers call.
async fn kill_while_called(node: &Node, actor: &ActorRef<Request>, callers: &[ActorRef<Request>]) {
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = callers
        .iter()
        .map(|caller| tokio::spawn(calls(caller.clone(), Arc::clone(&stop))))
        .collect();
    let mut pid = actor.whereis().expect("it runs");
    for _ in 0..KILLS {
        node.send_exit(&pid, Term::atom("kill"));
        let other = || actor.whereis().filter(|now| *now != pid);
        pid = eventually("a child is started again", other).await;
        // So that somebody is served before the next kill.
        let retry = RetryPolicy::aggressive();
        let served = retry.run(|| actor.call::<Pid>(&Request::Who, DEADLINE));
        assert_eq!(served.await.unwrap(), pid);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0, "a caller had no answer at all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_by_local_name_outlives_a_thousand_kills() {
    let node = start_node("killed", &[]).await;
    let other = start_node("other", &[&node]).await;
    let starts = Arc::default();
    let child = counted(&starts).named("counter");
    let supervisor = supervisor().child(child).start(&node).await.unwrap();
    let local: ActorRef<Request> = node.actor("counter");
    let remote = other.actor(("counter", "killed@127.0.0.1"));
    kill_while_called(&node, &local, &[local.clone(), remote]).await;
    assert_eq!(starts.load(Ordering::SeqCst), KILLS + 1);
    assert_eq!(supervisor.count_children().await.unwrap().active, 1);
    other.stop().await;
    node.stop().await;
}

/// The restarted child registers before the cluster's driver has heard of the end of the one before: the name is free all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn a_reference_by_cluster_name_outlives_a_thousand_kills() {
    let node = start_node("killed", &[]).await;
    let other = start_node("other", &[&node]).await;
    let here = node.cluster(ClusterConfig::fast()).await.unwrap();
    let join = ClusterConfig::fast().join(["killed@127.0.0.1"]);
    let there = other.cluster(join).await.unwrap();
    let names: Registry = here.registry();
    let starts = Arc::default();
    let child = counted(&starts).registered(&names, "counter");
    let supervisor = supervisor().child(child).start(&node).await.unwrap();
    let far = there.registry();
    far.await_name("counter", DEADLINE).await.unwrap();
    let local: ActorRef<Request> = names.actor("counter");
    kill_while_called(&node, &local, &[local.clone(), far.actor("counter")]).await;
    assert_eq!(starts.load(Ordering::SeqCst), KILLS + 1);

    supervisor.stop().await;
    assert_eq!(local.whereis(), None);
    let gone = || far.whereis("counter").is_none().then_some(());
    eventually("the name goes with the supervisor", gone).await;
    other.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_service_is_listed_before_its_supervisor_goes_on() {
    let node = start_node("served", &[]).await;
    let services = node
        .cluster(ClusterConfig::fast())
        .await
        .unwrap()
        .services();
    let all = ServiceFilter::alive();
    let http = ServiceOptions::new().tag("http");
    let child = ChildSpec::server("counter", Counter::default)
        .service(&services, "counter", http.clone())
        .service(&services, "sum", ServiceOptions::new());
    // What the next child sees of it.
    let (seen, mut seeing) = tokio::sync::mpsc::unbounded_channel();
    let look = services.clone();
    let next = ChildSpec::process("next", move |mut process| {
        let listed = look.list(&ServiceFilter::alive());
        seen.send(listed).expect("the test reads it");
        async move {
            while process.recv().await.is_some() {}
            Ok(())
        }
    });
    let supervisor = Supervisor::new(Strategy::RestForOne)
        .intensity(100, Duration::from_secs(3600))
        .child(child)
        .child(next);
    let supervisor = supervisor.start(&node).await.unwrap();
    for _ in 0..20 {
        let listed = tokio::time::timeout(DEADLINE, seeing.recv()).await.unwrap();
        let listed = listed.expect("a next child");
        let pid = &listed[0].pid;
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(listed.iter().all(|service| service.pid == *pid));
        let served = node.call::<_, Pid>(pid, &Request::Who, DEADLINE).await;
        assert_eq!(served.unwrap(), *pid);
        node.send_exit(pid, Term::atom("kill"));
    }
    let again = || (services.list(&all).len() == 2).then_some(());
    eventually("it is there again", again).await;
    supervisor.stop().await;
    assert!(services.list(&all).is_empty());

    // One that is refused.
    let long = http.meta(&"x".repeat(5000)).unwrap();
    let child = ChildSpec::server("counter", Counter::default).service(&services, "counter", long);
    let refused = Supervisor::new(Strategy::OneForOne).child(child);
    let error = refused.start(&node).await.unwrap_err().to_string();
    assert!(error.contains("not_registered"), "{error}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_starts_a_supervised_server_with_its_reference() {
    let node = start_node("single", &[]).await;
    let child = ChildSpec::server("counter", Counter::default).named("counter");
    let (supervisor, actor) = node.start_supervised::<Request>(child).await.unwrap();
    let sum: i64 = actor.call(&Request::Add(2), DEADLINE).await.unwrap();
    assert_eq!(sum, 2);
    let first = actor.whereis().unwrap();
    let failed = actor.call::<Term>(&Request::Panic, DEADLINE).await;
    let Err(CallError::Exit(reason)) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(reason, term("{panic, <<\"as the test asked\">>}"));
    let retry = RetryPolicy::aggressive();
    let sum = retry.run(|| actor.call::<i64>(&Request::Add(1), DEADLINE));
    assert_eq!(sum.await.unwrap(), 1, "it begins anew");
    assert_ne!(actor.whereis(), Some(first));
    supervisor.stop().await;

    let nameless = ChildSpec::server("counter", Counter::default);
    let refused = node.start_supervised::<Request>(nameless).await;
    assert!(
        matches!(refused, Err(SpawnError::Invalid(_))),
        "{refused:?}"
    );
    node.stop().await;
}

/// Start and registration are one: who does not get the name is not started.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_taken_name_is_not_started() {
    let node = start_node("taken", &[]).await;
    let cluster = node.cluster(ClusterConfig::fast()).await.unwrap();
    let names = cluster.registry();
    let first = node
        .start_registered_server(&names, "counter", Counter::default())
        .await
        .unwrap();
    let processes = node.processes().len();
    let second = node.start_registered_server(&names, "counter", Counter::default());
    let Err(SpawnError::Init(reason)) = second.await else {
        panic!("it started");
    };
    let expected = Term::tuple([Term::atom("already_started"), Term::from(&first)]);
    assert_eq!(reason, expected);
    let ended = || (node.processes().len() == processes).then_some(());
    eventually("the second process ends", ended).await;
    assert_eq!(names.whereis("counter"), Some(first.clone()));

    // The same under a supervisor; and the name is free for others once its process has ended.
    let child = ChildSpec::server("counter", Counter::default).registered(&names, "counter");
    let refused = Supervisor::new(Strategy::OneForOne).child(child.clone());
    assert!(matches!(
        refused.start(&node).await,
        Err(SpawnError::Init(_))
    ));
    node.send_exit(&first, Term::atom("kill"));
    let supervisor = refused.start(&node).await.unwrap();
    assert_eq!(names.whereis("counter"), supervisor.child("counter").await);
    let unknown = names.await_name("other", Duration::from_millis(1)).await;
    assert!(matches!(unknown, Err(RegistryError::Timeout(_))));
    node.stop().await;
}
