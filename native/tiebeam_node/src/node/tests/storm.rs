//! A storm between a BEAM node and a Rust node: processes of both link, unlink, monitor, demonitor, send, spawn, register
//! and kill one another at random. When it is quiet again, both nodes must know the same links and monitors.
//!
//! A run prints its seed; `TIEBEAM_SEED=<seed> TIEBEAM_STEPS=<steps>` makes the same choices again. What the nodes do
//! with them still depends on the machine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::process::{Signal, Target};

const BEAM: &str = "beam@127.0.0.1";
const RUST: &str = "rust@127.0.0.1";

/// How long the nodes may take to be quiet.
const QUIET: Duration = Duration::from_secs(30);

/// After how long a request to the agent is repeated.
const AGAIN: Duration = Duration::from_millis(200);

/// Workers on each node that the storm keeps alive.
const WORKERS: usize = 6;

/// Numbers that look random, always the same for a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// A BEAM node with the agent.
struct Beam {
    child: Child,
    /// Where its code is.
    directory: PathBuf,
}

impl Beam {
    /// `None`, with a note, where there is no Erlang.
    fn start(epmd: u16) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("tiebeam-storm-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("storm.erl"), include_str!("storm.erl")).unwrap();
        let eval = "{ok, storm} = c:c(storm), spawn(fun storm:start/0).";
        let started = Command::new("erl")
            .args(["-name", BEAM, "-setcookie", "secret", "-noshell"])
            .args(["-start_epmd", "false", "-eval", eval])
            .env("ERL_EPMD_PORT", epmd.to_string())
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self { child, directory }),
            Err(error) => {
                eprintln!("skipped: erl cannot be started ({error})");
                None
            }
        }
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        // Only this test's own node, by its process id.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a worker on the Rust node remembers; the same as one on the BEAM.
struct Worker {
    process: Process,
    boss: Pid,
    monitors: Vec<Reference>,
    fired: HashSet<Reference>,
    sent: HashMap<Pid, i64>,
    got: HashMap<Pid, i64>,
    gone: HashSet<Pid>,
}

impl Worker {
    fn new(process: Process, boss: Pid) -> Self {
        process.trap_exit(true);
        Self {
            process,
            boss,
            monitors: Vec::new(),
            fired: HashSet::new(),
            sent: HashMap::new(),
            got: HashMap::new(),
            gone: HashSet::new(),
        }
    }

    async fn run(mut self) -> Result<(), Term> {
        while let Some(signal) = self.process.recv().await {
            match signal {
                Signal::Message(message) => match message.as_tuple() {
                    Some([tag, Term::List(ops)]) if tag.is_atom("do") => {
                        for op in ops {
                            if self.act(op).await {
                                return Err(Term::atom("done"));
                            }
                        }
                    }
                    Some([_, Term::Pid(from), Term::Integer(n), _]) => self.receive(from, *n),
                    _ => self.violation(format!("unexpected: {message}")),
                },
                Signal::Exit { reason, .. } if reason.is_atom("poke") => {}
                Signal::Exit { from, reason } => self.gone(from, &reason),
                Signal::Down {
                    reference,
                    target,
                    reason,
                } => {
                    if !self.fired.insert(reference.clone()) {
                        self.violation(format!("down twice: {target:?}"));
                    }
                    self.monitors.retain(|other| *other != reference);
                    match target {
                        Target::Pid(pid) => self.gone(pid, &reason),
                        Target::Name(_) if reason.is_atom("noconnection") => self.violation(reason),
                        Target::Name(_) => {}
                    }
                }
                other => self.violation(format!("unexpected: {other:?}")),
            }
        }
        Ok(())
    }

    /// True if the worker shall end.
    async fn act(&mut self, op: &Term) -> bool {
        let op = op.as_tuple().map_or(std::slice::from_ref(op), |op| op);
        let name = op[0].as_atom().unwrap().as_str().to_owned();
        match (name.as_str(), &op[1..]) {
            ("link", [Term::Pid(to)]) => self.process.link(to),
            ("unlink", [Term::Pid(to)]) => self.process.unlink(to),
            ("monitor", [Term::Pid(to)]) => self.monitors.push(self.process.monitor(to)),
            ("monitor_name", [Term::Atom(name), Term::Atom(node)]) => {
                let reference = self.process.monitor((name.clone(), node.clone()));
                self.monitors.push(reference);
            }
            ("demonitor", []) => {
                if let Some(reference) = self.monitors.pop() {
                    self.process.demonitor(&reference);
                }
            }
            ("poke", [Term::Pid(to)]) => self.process.send_exit(to, Term::atom("poke")),
            ("kill", [Term::Pid(to)]) => self.process.send_exit(to, Term::atom("kill")),
            ("send", [Term::Pid(to), Term::Integer(size)]) => {
                let n = self.sent.entry(to.clone()).or_default();
                let bytes = Term::from(bytes::Bytes::from(vec![7; *size as usize]));
                let message = Term::tuple([
                    Term::atom("seq"),
                    Term::from(self.process.pid()),
                    Term::from(*n),
                    bytes,
                ]);
                *n += 1;
                if let Err(error) = self.process.send(to, message) {
                    self.violation(error.to_string());
                }
            }
            ("register", [Term::Atom(name)]) => drop(self.process.register(name.as_str())),
            ("unregister", [Term::Atom(name)]) => {
                self.process.node().unregister(name.as_str());
            }
            ("spawn", [Term::Atom(node)]) => {
                let args = vec![Term::from(&self.boss), Term::atom("spawned")];
                let options = SpawnOptions {
                    link: true,
                    monitor: true,
                };
                let spawned = self
                    .process
                    .spawn_on(node.as_str(), ("storm", "worker"), args, options)
                    .await;
                match spawned {
                    Ok((_, reference)) => self.monitors.extend(reference),
                    Err(error) => self.violation(format!("spawn: {error}")),
                }
            }
            ("stop", []) => return true,
            _ => self.violation(format!("unknown: {}", Term::tuple(op))),
        }
        false
    }

    /// In order, and none left out but by the loss of a connection.
    fn receive(&mut self, from: &Pid, n: i64) {
        let next = self.got.insert(from.clone(), n + 1).unwrap_or(0);
        if n > next {
            self.violation(Term::tuple([Term::atom("lost"), Term::from(from)]));
        } else if n < next {
            self.violation(format!("disorder: {n} after {next} from {from}"));
        }
        if self.gone.contains(from) {
            self.violation(format!("a message after the death of {from}"));
        }
    }

    fn gone(&mut self, who: Pid, reason: &Term) {
        if reason.is_atom("done") || reason.is_atom("killed") {
            self.gone.insert(who);
        } else if reason.is_atom("noconnection") {
            self.violation(reason.clone());
        } else if !reason.is_atom("noproc") {
            self.violation(format!("exit of {who}: {reason}"));
        }
    }

    fn violation(&self, what: impl Into<Term>) {
        let own = Term::from(self.process.pid());
        let message = Term::tuple([Term::atom("violation"), own, what.into()]);
        self.process.send(&self.boss, message).unwrap();
    }
}

/// What the test knows.
struct Storm {
    node: Node,
    boss: Process,
    dice: Dice,
    rust: Vec<Pid>,
    beam: Vec<Pid>,
    violations: Vec<String>,
    /// Whether connections are closed on purpose.
    lossy: bool,
    inspections: u64,
    inspected: Option<Inspection>,
}

/// What the agent sees.
#[derive(Debug)]
struct Inspection {
    number: u64,
    downs: i64,
    /// What each process of the BEAM is.
    processes: Vec<Term>,
    workers: Vec<BeamWorker>,
}

#[derive(Debug)]
struct BeamWorker {
    pid: Pid,
    links: HashSet<Pid>,
    monitors: i64,
    monitored_by: Vec<Pid>,
    waiting: i64,
}

fn pids(list: &Term) -> Vec<Pid> {
    let list = list.as_list().unwrap();
    list.iter()
        .map(|pid| pid.as_pid().unwrap().clone())
        .collect()
}

impl Storm {
    /// Takes what has come; waits for the first.
    async fn listen(&mut self) {
        let mut signal = Some(self.boss.recv().await.expect("the boss lives"));
        while let Some(Signal::Message(message)) = signal {
            match message.as_tuple().unwrap() {
                [tag, Term::Pid(pid)] if tag.is_atom("started") => {
                    let workers = if pid.node == RUST {
                        &mut self.rust
                    } else {
                        &mut self.beam
                    };
                    workers.push(pid.clone());
                }
                [tag, pid, what] if tag.is_atom("violation") => {
                    let lost = what.is_atom("noconnection")
                        || what.as_tuple().is_some_and(|what| what[0].is_atom("lost"));
                    // A spawn that the loss of the connection ended.
                    let spawn = what.to_string().contains("lost before the reply");
                    if !(self.lossy && (lost || spawn)) {
                        self.violations.push(format!("{pid}: {what}"));
                    }
                }
                [
                    _,
                    Term::Integer(number),
                    Term::Integer(downs),
                    Term::List(processes),
                    workers,
                ] => {
                    let workers = workers.as_list().unwrap().iter().filter_map(|worker| {
                        let [
                            Term::Pid(pid),
                            links,
                            Term::Integer(monitors),
                            by,
                            Term::Integer(waiting),
                        ] = worker.as_tuple()?
                        else {
                            return None;
                        };
                        Some(BeamWorker {
                            pid: pid.clone(),
                            links: pids(links).into_iter().collect(),
                            monitors: *monitors,
                            monitored_by: pids(by),
                            waiting: *waiting,
                        })
                    });
                    self.inspected = Some(Inspection {
                        number: *number as u64,
                        downs: *downs,
                        processes: processes.clone(),
                        workers: workers.collect(),
                    });
                }
                other => panic!("{other:?}"),
            }
            signal = self.boss.try_recv();
        }
    }

    async fn inspect(&mut self) -> Inspection {
        self.inspections += 1;
        let number = self.inspections;
        let request = Term::tuple([
            Term::atom("inspect"),
            Term::from(self.boss.pid()),
            Term::from(number),
        ]);
        let mut asked = Instant::now();
        self.boss.send(("agent", BEAM), request.clone()).unwrap();
        loop {
            if let Some(inspected) = self.inspected.take_if(|seen| seen.number == number) {
                return inspected;
            }
            let heard = tokio::time::timeout(AGAIN, self.listen()).await;
            // The connection may have taken the request with it.
            if heard.is_err() && asked.elapsed() > AGAIN {
                asked = Instant::now();
                self.boss.send(("agent", BEAM), request.clone()).unwrap();
            }
        }
    }

    fn start_rust(&mut self) {
        let process = self.node.spawn_anonymous().unwrap();
        let boss = self.boss.pid().clone();
        let pid = self
            .node
            .run(process, |process| Worker::new(process, boss).run());
        self.rust.push(pid);
    }

    async fn fill(&mut self) {
        while self.rust.len() < WORKERS {
            self.start_rust();
        }
        let missing = WORKERS.saturating_sub(self.beam.len());
        for _ in 0..missing {
            let request = Term::tuple([Term::atom("start"), Term::from(self.boss.pid())]);
            self.boss.send(("agent", BEAM), request).unwrap();
        }
        while self.beam.len() < WORKERS {
            let heard = tokio::time::timeout(AGAIN, self.listen()).await;
            if heard.is_err() {
                let request = Term::tuple([Term::atom("start"), Term::from(self.boss.pid())]);
                self.boss.send(("agent", BEAM), request).unwrap();
            }
        }
    }

    /// Some operations of one worker on one target, mostly on the other node, back to back: that is where races are.
    fn ops(&mut self, from_rust: bool) -> (Pid, Vec<Term>) {
        let (own, others) = if from_rust {
            (&self.rust, &self.beam)
        } else {
            (&self.beam, &self.rust)
        };
        let dice = &mut self.dice;
        let worker = dice.one_of(own).clone();
        let at = if dice.below(5) == 0 { own } else { others };
        let target = dice.one_of(at).clone();
        let name = Term::atom(["w1", "w2", "w3"][dice.below(3)]);
        let node = Term::from(target.node.clone());
        let on_target = |op: &'static str| Term::tuple([Term::atom(op), Term::from(&target)]);
        let mut ops = Vec::new();
        for _ in 0..=dice.below(6) {
            ops.push(match dice.below(40) {
                0..8 => on_target("link"),
                8..15 => on_target("unlink"),
                15..19 => on_target("monitor"),
                19..22 => Term::tuple([Term::atom("monitor_name"), name.clone(), node.clone()]),
                22..25 => Term::atom("demonitor"),
                25..27 => on_target("poke"),
                27..30 => Term::tuple([Term::atom("register"), name.clone()]),
                30 => Term::tuple([Term::atom("unregister"), name.clone()]),
                31..38 => {
                    let size = *dice.one_of(&[0, 10, 1000, 70_000, 300_000]);
                    let op = Term::atom("send");
                    Term::tuple([op, Term::from(&target), Term::from(size)])
                }
                38 => Term::tuple([Term::atom("spawn"), node.clone()]),
                _ => on_target("kill"),
            });
        }
        if dice.below(12) == 0 {
            ops.push(Term::atom("stop"));
        }
        (worker, ops)
    }

    /// Forgets those who are dead or are told to die.
    fn mourn(&mut self, worker: &Pid, ops: &[Term]) {
        for op in ops {
            let dead = match op.as_tuple() {
                Some([kill, Term::Pid(target)]) if kill.is_atom("kill") => target,
                None if op.is_atom("stop") => worker,
                _ => continue,
            };
            self.rust.retain(|pid| pid != dead);
            self.beam.retain(|pid| pid != dead);
        }
    }

    /// What both nodes do not agree on; nothing when all is as it must be.
    async fn disagreements(&mut self) -> Vec<String> {
        let seen = self.inspect().await;
        let router = self.node.router();
        let mut wrong = Vec::new();
        let workers: BTreeMap<String, &BeamWorker> = seen
            .workers
            .iter()
            .map(|worker| (worker.pid.to_string(), worker))
            .collect();
        let mut watching: HashMap<Pid, i64> = HashMap::new();
        for entry in router
            .processes()
            .iter()
            .filter_map(|pid| router.process(pid))
        {
            let pid = &entry.pid;
            if pid == self.boss.pid() || pid == router.caller() {
                continue;
            }
            let state = entry.state();
            if entry.mailbox.len() > 0 {
                wrong.push(format!("{pid} has not read its mailbox"));
            }
            if state.links.len() != state.links.active().count() {
                wrong.push(format!("{pid} waits for an acknowledgement of its unlink"));
            }
            for other in state.links.active() {
                let linked = if other.node == BEAM {
                    workers
                        .get(&other.to_string())
                        .is_some_and(|worker| worker.links.contains(pid))
                } else {
                    router
                        .process(other)
                        .is_some_and(|other| other.state_links(pid))
                };
                if !linked {
                    wrong.push(format!("{pid} is linked to {other}, which does not know"));
                }
            }
            for worker in &seen.workers {
                let here = state.links.active().any(|other| *other == worker.pid);
                if worker.links.contains(pid) && !here {
                    let worker = &worker.pid;
                    wrong.push(format!("{worker} is linked to {pid}, which does not know"));
                }
            }
            let ours = state.monitoring.values().filter(|(_, on)| *on == BEAM);
            let theirs = seen.workers.iter().flat_map(|worker| &worker.monitored_by);
            let (ours, theirs) = (ours.count(), theirs.filter(|by| *by == pid).count());
            if ours != theirs {
                wrong.push(format!(
                    "{pid} has {ours} monitors, the BEAM knows {theirs}"
                ));
            }
            for (watcher, target) in state.watched_by.values() {
                if watcher.node == BEAM {
                    *watching.entry(watcher.clone()).or_default() += 1;
                    let known = workers.contains_key(&watcher.to_string());
                    if !known && !self.lossy {
                        wrong.push(format!(
                            "{watcher} is dead and still watches {target:?} {pid}"
                        ));
                    }
                }
            }
        }
        for worker in &seen.workers {
            if worker.waiting > 0 {
                wrong.push(format!("{} has not read its mailbox", worker.pid));
            }
            let known = watching.remove(&worker.pid).unwrap_or(0);
            // OTP 25 was seen to send a monitor that a process began while the connection was lost over the next one, and
            // never its end: then we know one too many, which nobody misses.
            if known < worker.monitors || (known > worker.monitors && !self.lossy) {
                let (pid, has) = (&worker.pid, worker.monitors);
                wrong.push(format!(
                    "{pid} has {has} monitors, the Rust node knows {known}"
                ));
            }
        }
        wrong
    }

    /// Waits until `global` has joined the nodes: until then it has processes and monitors that are not there later.
    async fn joined(&mut self) {
        let deadline = Instant::now() + QUIET;
        let joined = tokio::time::timeout(QUIET, self.node.global().sync()).await;
        assert!(
            matches!(joined, Ok(Ok(()))),
            "the nodes are not joined: {joined:?}"
        );
        loop {
            let seen = self.inspect().await;
            let resolving = seen
                .processes
                .iter()
                .any(|process| process.to_string().contains("{global,resolver,2}"));
            if !resolving && self.node.router().monitored_names() == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "still joining: {:#?}",
                seen.processes
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn quiet(&mut self) {
        let deadline = Instant::now() + QUIET;
        loop {
            let wrong = self.disagreements().await;
            if wrong.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not quiet: {wrong:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Entry {
    fn state_links(&self, to: &Pid) -> bool {
        // The caller holds the state of another entry. Nobody else holds two, so this cannot close a circle.
        self.state().links.active().any(|other| other == to)
    }
}

fn setting(name: &str, or: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| or(), |text| text.parse().expect("a number"))
}

async fn storm(lossy: bool) {
    let seed = setting("TIEBEAM_SEED", rand::random);
    let steps = setting("TIEBEAM_STEPS", || 1_000);
    println!("replay with TIEBEAM_SEED={seed} TIEBEAM_STEPS={steps}");
    let epmd = free_port();
    let node = start("rust", epmd).await;
    let Some(_beam) = Beam::start(epmd) else {
        return node.stop().await;
    };
    let deadline = Instant::now() + QUIET;
    let agent = ("agent", BEAM);
    // The agent is there when a call to it is not refused for want of a process.
    loop {
        let call = node.call_term(agent, Term::atom("hello"), Duration::from_millis(100));
        match call.await {
            Err(CallError::Timeout(_)) => break,
            other => assert!(Instant::now() < deadline, "no agent: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.export_process("storm", "worker", 2, |process, args| async move {
        let boss = args.0[0].as_pid().unwrap().clone();
        let started = Term::tuple([Term::atom("started"), Term::from(process.pid())]);
        let worker = Worker::new(process, boss);
        worker.process.send(&worker.boss, started).unwrap();
        match worker.run().await {
            Ok(()) => Ok(Term::atom("ok")),
            Err(reason) => Err(Exception::Exit(reason)),
        }
    });
    let boss = node.spawn_anonymous().unwrap();
    let mut storm = Storm {
        node: node.clone(),
        boss,
        dice: Dice(seed),
        rust: Vec::new(),
        beam: Vec::new(),
        violations: Vec::new(),
        lossy,
        inspections: 0,
        inspected: None,
    };
    storm.joined().await;
    let services = node.processes();
    let processes = services.len();
    let before = storm.inspect().await;
    let mut events = node.monitor_nodes();

    for step in 0..steps {
        storm.fill().await;
        let from_rust = storm.dice.below(2) == 0;
        let (worker, ops) = storm.ops(from_rust);
        storm.mourn(&worker, &ops);
        let order = Term::tuple([Term::atom("do"), Term::List(ops)]);
        storm.boss.send(&worker, order).unwrap();
        if lossy && storm.dice.below(100) == 0 {
            node.disconnect(BEAM);
        }
        if step % 500 == 499 {
            storm.quiet().await;
        }
        assert_eq!(storm.violations, Vec::<String>::new(), "step {step}");
    }
    storm.quiet().await;

    // All die, and nothing remains.
    let everybody: Vec<Pid> = storm
        .inspect()
        .await
        .workers
        .into_iter()
        .map(|w| w.pid)
        .collect();
    let ours = node.processes();
    for pid in everybody.iter().chain(&ours) {
        let is_worker =
            pid.node == BEAM
                || !services.contains(pid)
                    && storm.node.router().process(pid).is_some_and(|entry| {
                        entry.state().trap_exit && entry.pid != *storm.boss.pid()
                    });
        if is_worker {
            storm.boss.send_exit(pid, Term::atom("kill"));
        }
    }
    storm.quiet().await;
    let deadline = Instant::now() + QUIET;
    loop {
        let after = storm.inspect().await;
        let counts = (node.processes().len(), after.processes.len());
        // While `global` of one node calls that of the other, it monitors it.
        let names = node.router().monitored_names();
        let as_before = counts == (processes, before.processes.len()) && names == 0;
        if as_before && after.workers.is_empty() {
            if !lossy {
                assert_eq!(after.downs, before.downs, "the BEAM saw a nodedown");
                assert!(
                    events.0.try_recv().is_err(),
                    "the Rust node saw a node event"
                );
            }
            break;
        }
        let but = |these: &Inspection, those: &Inspection| -> Vec<String> {
            let only = these
                .processes
                .iter()
                .filter(|process| !those.processes.contains(process));
            only.map(Term::to_string).collect()
        };
        assert!(
            Instant::now() < deadline,
            "{} processes instead of {processes}, {names} monitored names; on the BEAM new: {:#?}, gone: {:#?}",
            counts.0,
            but(&after, &before),
            but(&before, &after)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(storm.violations, Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_leaves_both_nodes_of_one_mind() {
    storm(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_with_lost_connections_leaves_both_nodes_of_one_mind() {
    storm(true).await;
}
