//! What the registry costs on a cluster of Rust nodes: `cargo run --release -p tiebeam_node --example registry`.
//!
//! Three nodes in one program, connected over loopback; a fourth joins. Arguments: how many names (default 10000 and
//! 100000), and `--json` for one JSON object per line instead of text. Times are of the machine it runs on.
//!
//! - `register`: 16 callers, the names shared out among the first three nodes, each waits for its answer;
//! - `visible`: from the first registration until all nodes have all names in their tables;
//! - `memory`: what the program grew by, shared out; the first of several sizes is the one to trust;
//! - `single`: one registration until another node's table shows it, quiet cluster, 1,000 times;
//! - `look-up`: one thread, one name after the other; beside it a look-up in a bare `DashMap` by the same keys;
//! - `join`: a fourth node starts its cluster, until it has all names; the longest registration elsewhere meanwhile;
//! - `purge`: that node has 10,000 names of its own and is stopped: from the verdict until none is left on another.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tiebeam_node::{
    ClusterConfig, ClusterHandle, Config, Cookie, EpmdMode, Name, Node, Pid, Registry,
    RegistryEvent, Status, Timing,
};

/// How many ask at a time.
const CALLERS: usize = 16;

/// The names of the node that dies.
const PURGED: usize = 10_000;

/// Nothing here takes longer.
const LONGEST: Duration = Duration::from_secs(120);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut json = false;
    let mut sizes = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            number => sizes.push(number.parse()?),
        }
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000];
    }
    for names in sizes {
        let figures = measure(names).await?;
        if json {
            let fields: Vec<_> = figures
                .iter()
                .map(|(what, value, _)| {
                    format!(
                        "\"{}\":{value:.3}",
                        what.to_lowercase().replace([' ', '-'], "_")
                    )
                })
                .collect();
            println!("{{\"names\":{names},{}}}", fields.join(","));
        } else {
            println!("{names} names, 3 Rust nodes, {CALLERS} callers");
            for (what, value, unit) in figures {
                println!("  {what:24} {value:>12.3} {unit}");
            }
        }
    }
    Ok(())
}

type Figures = Vec<(&'static str, f64, &'static str)>;

async fn measure(names: usize) -> Result<Figures, Failure> {
    let mut figures = Figures::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut clusters: Vec<ClusterHandle> = Vec::new();
    for name in ["one", "two", "three"] {
        let node = start(name, &nodes).await?;
        clusters.push(node.cluster(settings(&nodes)).await?);
        nodes.push(node);
    }
    for cluster in &clusters {
        alive(cluster, 3).await?;
    }
    let registries: Vec<Registry> = clusters.iter().map(ClusterHandle::registry).collect();

    let processes: Vec<_> = (0..CALLERS)
        .map(|caller| nodes[caller % 3].spawn_anonymous())
        .collect::<Result<_, _>>()?;
    let resident_before = resident();
    let start_time = Instant::now();
    let visible: Vec<_> = registries
        .iter()
        .map(|registry| tokio::spawn(complete(registry.clone(), names)))
        .collect();
    let callers: Vec<_> = processes
        .iter()
        .enumerate()
        .map(|(caller, process)| {
            let (registry, pid) = (registries[caller % 3].clone(), process.pid().clone());
            tokio::spawn(async move {
                for n in (caller..names).step_by(CALLERS) {
                    registry.register(key(n), &pid).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let rate = names as f64 / start_time.elapsed().as_secs_f64();
    figures.push(("register", rate, "a second"));
    for node in visible {
        tokio::time::timeout(LONGEST, node).await??;
    }
    figures.push(("visible", millis(start_time.elapsed()), "ms"));
    if let (Some(before), Some(after)) = (resident_before, resident()) {
        let bytes = after.saturating_sub(before) as f64 / (3 * names) as f64;
        figures.push(("memory", bytes, "bytes a name and node"));
    }

    let (middle, high) = single(&registries, processes[0].pid()).await?;
    figures.push(("single p50", millis(middle), "ms"));
    figures.push(("single p99", millis(high), "ms"));

    let keys: Vec<Name> = (0..names).map(|n| Name::from(key(n).as_str())).collect();
    let looked_up = time(&keys, |name| registries[0].whereis(name).is_some());
    figures.push(("look-up whereis", looked_up, "ns"));
    let looked_up = time(&keys, |name| registries[0].lookup(name).is_some());
    figures.push(("look-up with metadata", looked_up, "ns"));
    let bare: dashmap::DashMap<Name, Pid, foldhash::fast::RandomState> =
        dashmap::DashMap::default();
    // With keys of its own, as a table has that was not filled by who asks.
    for n in 0..names {
        bare.insert(Name::from(key(n)), processes[0].pid().clone());
    }
    let bare = time(&keys, |name| {
        bare.get(name).map(|pid| pid.clone()).is_some()
    });
    figures.push(("look-up bare DashMap", bare, "ns"));

    // A registration each millisecond, while a node joins.
    let stalls = {
        let (registry, pid) = (registries[0].clone(), processes[0].pid().clone());
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            for n in 0.. {
                if stopped.try_recv().is_ok() {
                    break;
                }
                let start = Instant::now();
                registry
                    .scope("stalls")
                    .register(format!("stall {n}"), &pid)
                    .await?;
                longest = longest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Failure>(longest)
        });
        (stop, task)
    };
    let fourth = start("four", &nodes).await?;
    let joining = Instant::now();
    let on_fourth = fourth.cluster(settings(&nodes)).await?;
    tokio::time::timeout(LONGEST, complete(on_fourth.registry(), names)).await?;
    figures.push(("join", millis(joining.elapsed()), "ms"));
    let (stop, task) = stalls;
    let _ = stop.send(());
    figures.push(("join longest stall", millis(task.await??), "ms"));

    let process = fourth.spawn_anonymous()?;
    let last = on_fourth.registry();
    for n in 0..PURGED {
        last.register(format!("purged {n}"), process.pid()).await?;
    }
    tokio::time::timeout(LONGEST, complete(registries[0].clone(), names + PURGED)).await?;
    let mut events = registries[0].subscribe();
    let mut members = clusters[0].subscribe();
    fourth.stop().await;
    let verdict = async {
        while let Some(event) = members.recv().await {
            if matches!(event, tiebeam_node::ClusterEvent::Down(_)) {
                return Instant::now();
            }
        }
        Instant::now()
    };
    let purged = async {
        while let Some(event) = events.recv().await {
            if matches!(event, RegistryEvent::Purged { .. }) {
                break;
            }
        }
        while registries[0].count() > names {
            tokio::task::yield_now().await;
        }
        Instant::now()
    };
    let (verdict, purged) =
        tokio::time::timeout(LONGEST, async { tokio::join!(verdict, purged) }).await?;
    let cleaned = purged.saturating_duration_since(verdict);
    figures.push(("purge", millis(cleaned), "ms"));
    for node in nodes {
        node.stop().await;
    }
    Ok(figures)
}

fn key(n: usize) -> String {
    format!("name {n}")
}

/// The bytes of the program in memory, on Linux.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A node that knows where the others are.
async fn start(name: &str, others: &[Node]) -> Result<Node, Failure> {
    let mut config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("bench"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for other in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
        config
            .addresses
            .insert(other.name().as_str().to_owned(), address);
    }
    Ok(Node::start(config).await?)
}

fn settings(others: &[Node]) -> ClusterConfig {
    let timing = Timing {
        greet_first: tiebeam_core::Duration::from_millis(50),
        ..Timing::fast()
    };
    let join = others.iter().map(|other| other.name().as_str());
    ClusterConfig::fast().timing(timing).join(join)
}

async fn alive(cluster: &ClusterHandle, count: usize) -> Result<(), Failure> {
    let all = cluster.wait_for(|members| {
        let alive = members
            .iter()
            .filter(|member| member.status == Status::Alive);
        alive.count() == count
    });
    tokio::time::timeout(LONGEST, all)
        .await?
        .map(drop)
        .ok_or_else(|| "a driver has ended".into())
}

/// Waits until the table of a node has so many names.
async fn complete(registry: Registry, names: usize) {
    while registry.count() < names {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The time from a registration on one node to its sight on another: the middle one and the 99th of 100.
async fn single(registries: &[Registry], pid: &Pid) -> Result<(Duration, Duration), Failure> {
    let (here, there) = (registries[0].scope("single"), registries[1].scope("single"));
    let mut times = Vec::new();
    for n in 0..1000 {
        let waiting = {
            let there = there.clone();
            tokio::spawn(async move {
                there.await_name(key(n), LONGEST).await?;
                Ok::<_, Failure>(Instant::now())
            })
        };
        tokio::task::yield_now().await;
        let start = Instant::now();
        here.register(key(n), pid).await?;
        times.push(waiting.await??.saturating_duration_since(start));
    }
    times.sort_unstable();
    Ok((times[500], times[990]))
}

/// Nanoseconds of one of many, in an order that no cache expects.
fn time(keys: &[Name], look_up: impl Fn(&Name) -> bool) -> f64 {
    const ROUNDS: usize = 1_000_000;
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..ROUNDS {
        at = (at + 7919) % keys.len();
        assert!(black_box(look_up(black_box(&keys[at]))));
    }
    start.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64
}
