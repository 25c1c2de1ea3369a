//! Worker pools: who gets what, when nobody can, and what happens to workers that end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_node::{
    Balance, CallError, ChildSpec, PoolError, PoolSettings, Strategy, Supervisor, WorkerPool,
};
use tokio::sync::Semaphore;

use super::*;

/// Lets workers go on, and counts those that have come to wait for it.
struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
}

impl Gate {
    async fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
    }

    /// Waits until so many requests have come here.
    async fn reached(&self, count: usize) {
        let reached = || (self.waiting.load(Ordering::SeqCst) == count).then_some(());
        eventually("workers are at work", reached).await;
    }
}

/// Answers with its pid; `wait` only when the test lets it.
struct Worker(Arc<Gate>);

#[derive(Serialize, Deserialize, Debug, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Who,
    Wait,
}

impl GenServer for Worker {
    type Call = Ask;
    type Cast = Ask;
    type Reply = Pid;

    async fn handle_call(&mut self, ask: Ask, _: &ReplyTo, process: &Process) -> Answer<Pid> {
        self.wait(ask).await;
        Answer::Reply(process.pid().clone())
    }

    async fn handle_cast(&mut self, ask: Ask, _: &Process) -> Flow {
        self.wait(ask).await;
        Flow::Continue
    }
}

impl Worker {
    async fn wait(&self, ask: Ask) {
        if let Ask::Wait = ask {
            self.0.pass().await;
        }
    }
}

fn pool(settings: PoolSettings) -> (WorkerPool, Arc<Gate>) {
    let gate = Arc::new(Gate {
        permits: Semaphore::new(0),
        waiting: AtomicUsize::new(0),
    });
    let worker = {
        let gate = Arc::clone(&gate);
        move || Worker(Arc::clone(&gate))
    };
    (WorkerPool::new(settings, worker), gate)
}

async fn who(pool: &WorkerPool) -> Pid {
    pool.call(&Ask::Who, DEADLINE).await.unwrap()
}

/// A call that waits, made now.
fn waits(pool: &WorkerPool) -> tokio::task::JoinHandle<Result<Pid, PoolError>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.call(&Ask::Wait, DEADLINE).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_spread() {
    let node = start_node("spread", &[]).await;
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastLoaded] {
        let (pool, _) = pool(PoolSettings::new(4).balance(balance));
        let supervisor = pool.start(&node).await.unwrap();
        let mut counts: HashMap<Pid, usize> = HashMap::new();
        for _ in 0..400 {
            *counts.entry(who(&pool).await).or_default() += 1;
        }
        assert_eq!(counts.len(), 4);
        let mut workers = pool.workers();
        workers.sort();
        let mut seen: Vec<_> = counts.keys().cloned().collect();
        seen.sort();
        assert_eq!(workers, seen);
        match balance {
            Balance::RoundRobin => assert!(counts.values().all(|count| *count == 100)),
            // 100 each, with a deviation of 9: less than 30 comes once in 10^14.
            Balance::Random | Balance::LeastLoaded => {
                assert!(counts.values().all(|count| *count > 30), "{counts:?}");
            }
        }
        supervisor.stop().await;
        assert_eq!(pool.workers(), []);
        let down = pool.call::<_, Pid>(&Ask::Who, DEADLINE).await;
        assert!(matches!(down, Err(PoolError::Down)), "{down:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_worker_is_the_one_that_does_nothing() {
    let node = start_node("least", &[]).await;
    let (pool, gate) = pool(PoolSettings::new(3).balance(Balance::LeastLoaded));
    pool.start(&node).await.unwrap();
    let mut busy = Vec::new();
    for count in 1..=2 {
        busy.push(waits(&pool));
        gate.reached(count).await;
    }
    let idle = who(&pool).await;
    for _ in 0..20 {
        assert_eq!(who(&pool).await, idle);
    }
    gate.permits.add_permits(2);
    for call in busy {
        assert_ne!(call.await.unwrap().unwrap(), idle);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_says_so_at_once() {
    let node = start_node("full", &[]).await;
    let (pool, gate) = pool(PoolSettings::new(2).queue(3).named("pool"));
    pool.start(&node).await.unwrap();
    let mut calls = vec![waits(&pool), waits(&pool)];
    gate.reached(2).await;
    // From here on nobody looks at a mailbox.
    calls.extend((0..6).map(|_| waits(&pool)));
    let workers = pool.workers();
    eventually("six requests wait", || {
        let waiting = workers.iter().filter_map(|pid| node.mailbox_len(pid));
        (waiting.sum::<usize>() == 6).then_some(())
    })
    .await;
    assert_eq!(pool.member(2), Some(workers[1].clone()));
    assert_eq!((pool.member(0), pool.member(3)), (None, None));
    let busy = pool.call::<_, Pid>(&Ask::Who, DEADLINE).await;
    let Err(
        error @ PoolError::Busy {
            workers: 2,
            queue: 3,
        },
    ) = busy
    else {
        panic!("{busy:?}");
    };
    assert_eq!(
        error.to_string(),
        "all 2 workers are busy, and 3 requests wait for each: try again later"
    );
    assert!(matches!(pool.cast(&Ask::Who), Err(PoolError::Busy { .. })));
    let reply = node.call_term("pool", term("who"), DEADLINE).await;
    assert_eq!(reply.unwrap(), term("{error, busy}"));

    gate.permits.add_permits(8);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    who(&pool).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_restarted_takes_its_place() {
    let node = start_node("rejoin", &[]).await;
    let (pool, gate) = pool(PoolSettings::new(2).named("pool"));
    let tree = ChildSpec::supervisor("pool", pool.supervisor());
    let supervisor = Supervisor::new(Strategy::OneForOne).child(tree);
    let supervisor = supervisor.start(&node).await.unwrap();
    let before = pool.workers();
    let waiting = waits(&pool);
    gate.reached(1).await;
    for pid in &before {
        node.send_exit(pid, Term::atom("kill"));
    }
    let lost = waiting.await.unwrap();
    let Err(PoolError::Call(CallError::Exit(reason))) = lost else {
        panic!("{lost:?}");
    };
    assert_eq!(reason, term("killed"));
    let both = || Some(pool.workers()).filter(|workers| workers.len() == 2);
    let after = eventually("both are back", both).await;
    assert!(before.iter().all(|pid| !after.contains(pid)));
    let mut asked = [who(&pool).await, who(&pool).await];
    asked.sort();
    let mut workers = pool.workers();
    workers.sort();
    assert_eq!(asked.as_slice(), workers, "each is asked again");
    supervisor.stop().await;
    node.stop().await;
}

/// Under its name a pool is a server to other nodes: the replies are those of its workers.
#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_ask_a_pool_by_its_name() {
    let node = start_node("pool", &[]).await;
    let other = start_node("asks", &[&node]).await;
    let (pool, gate) = pool(PoolSettings::new(2).named("pool"));
    pool.start(&node).await.unwrap();
    let to = ("pool", "pool@127.0.0.1");
    let mut workers = Vec::new();
    for _ in 0..2 {
        workers.push(other.call::<_, Pid>(to, &Ask::Who, DEADLINE).await.unwrap());
    }
    workers.sort();
    let mut expected = pool.workers();
    expected.sort();
    assert_eq!(workers, expected);

    // A call that takes long holds up nobody, and one whose worker ends is answered.
    let waiting = {
        let other = other.clone();
        tokio::spawn(async move { other.call_term(to, term("wait"), DEADLINE).await })
    };
    gate.reached(1).await;
    let idle = other.call::<_, Pid>(to, &Ask::Who, DEADLINE).await;
    assert_eq!(Some(idle.unwrap()), pool.member(2));
    for pid in pool.workers() {
        node.send_exit(&pid, term("{shutdown, test}"));
    }
    let down = waiting.await.unwrap().unwrap();
    assert_eq!(down, term("{error, {down, {shutdown, test}}}"));
    gate.permits.add_permits(100);
    let served = || async { other.call_term(to, term("wait"), DEADLINE).await };
    let mut reply = served().await.unwrap();
    while reply == term("{error, no_worker}") {
        tokio::time::sleep(Duration::from_millis(1)).await;
        reply = served().await.unwrap();
    }
    assert!(reply.as_pid().is_some(), "{reply}");

    let casts = gate.permits.available_permits();
    other.cast(to, &Ask::Wait).unwrap();
    eventually("the cast is handled", || {
        (gate.permits.available_permits() < casts).then_some(())
    })
    .await;
    other.stop().await;
    node.stop().await;
}
