//! What leadership costs on three Rust nodes: `bin/bench leadership`.
//!
//! Arguments: the program `tiebeam`, and optionally the number of rounds (default 50), `--json` for one JSON object per line
//! instead of text, and `--dir D` for where the disks are (default: the directory for temporary files). Times are of the
//! machine it runs on.
//!
//! - `kill`: the leader's process gets SIGKILL; until a write is acknowledged that was sent after that, by a survivor;
//! - `freeze`: the same with SIGSTOP, of which no connection tells anybody;
//! - `step down`: leadership is handed over while a client writes; the longest time without an acknowledgement around it;
//! - `write`: acknowledged writes of 16 bytes a second, and how long one takes, with 1 and 64 clients of the leader's node, on disks
//!   that sync and in memory.
//!
//! For `kill` and `freeze` the three nodes are programs of their own; otherwise they are in this one, connected over loopback.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tiebeam_node::{ClusterConfig, ClusterHandle, Config, Cookie, EpmdMode, Node, Term};

const NAMES: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];

/// How long writes are counted.
const COUNTED: Duration = Duration::from_secs(5);

/// Nothing here takes longer.
const LONGEST: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;

struct Report {
    json: bool,
}

impl Report {
    /// A figure: of what, its name, its value and its unit.
    fn figure(&self, of: &str, name: &str, value: f64, unit: &str) {
        if self.json {
            let of = of.replace(", ", "_").replace(' ', "_");
            println!(
                "{{\"of\":\"rust_{of}\",\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}"
            );
        } else {
            println!("{of:32} {name:10} {value:10.2} {unit}");
        }
    }

    fn times(&self, of: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (times.len() as f64 * share).ceil() as usize;
            times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1000.0
        };
        self.figure(of, "p50", at(0.5), "ms");
        self.figure(of, "p99", at(0.99), "ms");
        self.figure(of, "max", at(1.0), "ms");
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut json, mut rounds, mut program) = (false, 50, None);
    let mut directory = std::env::temp_dir();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--dir" => directory = arguments.next().ok_or("--dir takes a directory")?.into(),
            number if number.parse::<usize>().is_ok() => rounds = number.parse()?,
            path => program = Some(PathBuf::from(path)),
        }
    }
    let program = program.ok_or("say where the program tiebeam is")?;
    let directory = directory.join(format!("tiebeam-bench-{}", std::process::id()));
    let report = Report { json };
    let measured = measure(&program, &directory, rounds, &report).await;
    let _ = std::fs::remove_dir_all(&directory);
    measured
}

async fn measure(
    program: &Path,
    directory: &Path,
    rounds: usize,
    report: &Report,
) -> Result<(), Failure> {
    for (what, signal) in [("kill", "-KILL"), ("freeze", "-STOP")] {
        let times = failovers(program, &directory.join(what), rounds, signal).await?;
        report.times(what, times);
    }
    report.times("step down", step_downs(rounds).await?);
    for (disk, kept) in [("memory", None), ("fsync", Some(directory.join("writes")))] {
        let trio = Trio::start(kept.as_deref()).await?;
        for clients in [1, 64] {
            let (count, times) = trio.writes(clients).await?;
            let of = format!("write, {disk}, {clients} clients");
            report.figure(&of, "rate", count as f64 / COUNTED.as_secs_f64(), "/s");
            report.times(&of, times);
        }
        trio.stop().await;
    }
    Ok(())
}

// ---- programs

struct Programs {
    program: PathBuf,
    directory: PathBuf,
    epmd: u16,
    children: Vec<Child>,
    /// Asks them, and serves epmd for as long as any of them runs.
    visitor: Node,
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Programs {
    async fn start(program: &Path, directory: &Path) -> Result<Self, Failure> {
        let epmd = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let config = Config::new("bench@127.0.0.1", Cookie::new("secret"))
            .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
            .epmd(EpmdMode::Serve, epmd);
        let mut programs = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            epmd,
            children: Vec::new(),
            visitor: Node::start(config).await?,
        };
        for name in NAMES {
            let child = programs.child(name)?;
            programs.children.push(child);
        }
        Ok(programs)
    }

    fn child(&self, name: &str) -> Result<Child, Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(["node", "--name", name, "--cookie", "secret"])
            .args(["--voters", &NAMES.join(",")])
            .arg("--data-dir")
            .arg(self.directory.join(name))
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            // That nodes die is no news here.
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for other in NAMES.iter().filter(|other| **other != name) {
            command.args(["--join", other]);
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("ready ") {
            return Err(format!("{name} is not ready: {line:?}").into());
        }
        Ok(child)
    }

    async fn ask(&self, at: usize, request: Term) -> Result<Term, Failure> {
        let to = ("tiebeam", NAMES[at]);
        Ok(self
            .visitor
            .call_term(to, request, Duration::from_secs(5))
            .await?)
    }

    /// A write through this node, once it is acknowledged.
    async fn put(&self, at: usize) -> Result<(), Failure> {
        let begin = Instant::now();
        let request = || {
            let (key, value) = (Term::binary("key"), Term::binary("sixteen letters!"));
            Term::tuple([Term::atom("kv"), Term::atom("put"), key, value])
        };
        while begin.elapsed() < LONGEST {
            match self.ask(at, request()).await {
                Ok(Term::Tuple(reply)) if reply[0].is_atom("ok") => return Ok(()),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        Err("no write is acknowledged".into())
    }

    /// Who leads, once all three say the same and acknowledge a write each.
    async fn settled(&self) -> Result<usize, Failure> {
        let begin = Instant::now();
        while begin.elapsed() < LONGEST {
            let mut said = Vec::new();
            for at in 0..3 {
                said.push(self.ask(at, Term::atom("leader")).await.ok());
            }
            let leader = match &said[0] {
                Some(Term::Tuple(leader)) => leader[1].as_atom(),
                _ => None,
            };
            let at = NAMES
                .iter()
                .position(|name| leader.is_some_and(|leader| leader == *name));
            if let Some(at) = at
                && said.iter().all(|one| *one == said[0])
            {
                for at in 0..3 {
                    self.put(at).await?;
                }
                // All have voted again since the last failover, and nobody waits for anybody.
                tokio::time::sleep(Duration::from_millis(600)).await;
                return Ok(at);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the nodes do not agree on a leader".into())
    }

    fn signal(&self, at: usize, signal: &str) -> Result<(), Failure> {
        let pid = self.children[at].id().to_string();
        match Command::new("kill")
            .args([signal, &pid])
            .status()?
            .success()
        {
            true => Ok(()),
            false => Err(format!("kill {signal} {pid} failed").into()),
        }
    }
}

async fn failovers(
    program: &Path,
    directory: &Path,
    rounds: usize,
    signal: &str,
) -> Result<Vec<Duration>, Failure> {
    let mut programs = Programs::start(program, directory).await?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = programs.settled().await?;
        let survivor = (leader + 1 + round % 2) % 3;
        let begin = Instant::now();
        programs.signal(leader, signal)?;
        programs.put(survivor).await?;
        times.push(begin.elapsed());
        if signal == "-STOP" {
            programs.signal(leader, "-CONT")?;
        } else {
            programs.children[leader].wait()?;
            programs.children[leader] = programs.child(NAMES[leader])?;
        }
    }
    programs.visitor.stop().await;
    Ok(times)
}

// ---- nodes of this program

struct Trio {
    nodes: Vec<Node>,
    clusters: Vec<ClusterHandle>,
}

impl Trio {
    async fn start(directory: Option<&Path>) -> Result<Self, Failure> {
        let mut trio = Self {
            nodes: Vec::new(),
            clusters: Vec::new(),
        };
        for name in NAMES {
            let mut config = Config::new(name, Cookie::new("secret"))
                .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
                .epmd(EpmdMode::None, 0);
            for other in &trio.nodes {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
                config
                    .addresses
                    .insert(other.name().as_str().to_owned(), address);
            }
            let node = Node::start(config).await?;
            let mut cluster = ClusterConfig::lan().join(NAMES).voters(NAMES);
            if let Some(directory) = directory {
                cluster = cluster.data_dir(directory.join(name));
            }
            trio.clusters.push(node.cluster(cluster).await?);
            trio.nodes.push(node);
        }
        Ok(trio)
    }

    /// Who leads with a lease, while all know it.
    async fn leader(&self) -> Result<usize, Failure> {
        let begin = Instant::now();
        while begin.elapsed() < LONGEST {
            let leads = |cluster: &ClusterHandle| cluster.leader().is_leader().is_some();
            if let Some(at) = self.clusters.iter().position(leads) {
                let knows = |cluster: &ClusterHandle| {
                    let led = cluster.leader().current();
                    led.is_some_and(|(leader, _)| leader.as_str() == NAMES[at])
                };
                if self.clusters.iter().all(knows) {
                    return Ok(at);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err("nobody leads".into())
    }

    /// How many writes were acknowledged, and how long each took.
    async fn writes(&self, clients: usize) -> Result<(usize, Vec<Duration>), Failure> {
        let kv = self.clusters[self.leader().await?].kv();
        let until = Instant::now() + COUNTED;
        let client = |number: usize| {
            let kv = kv.clone();
            tokio::spawn(async move {
                let (key, mut times) = (format!("key {number}"), Vec::new());
                while Instant::now() < until {
                    let begin = Instant::now();
                    kv.put(&key, "sixteen letters!").await?;
                    times.push(begin.elapsed());
                }
                Ok::<_, Failure>(times)
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await??);
        }
        Ok((times.len(), times))
    }

    async fn stop(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

async fn step_downs(rounds: usize) -> Result<Vec<Duration>, Failure> {
    let trio = Trio::start(None).await?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = trio.leader().await?;
        let to = (leader + 1 + round % 2) % 3;
        let kv = trio.clusters[(leader + 2 - round % 2) % 3].kv();
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let client = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !*stopped.borrow_and_update() {
                let begin = Instant::now();
                kv.put("key", "sixteen letters!").await?;
                longest = longest.max(begin.elapsed());
            }
            Ok::<_, Failure>(longest)
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        trio.clusters[leader]
            .leader()
            .step_down(Some(NAMES[to]))
            .await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.send_replace(true);
        times.push(client.await??);
    }
    trio.stop().await;
    Ok(times)
}
