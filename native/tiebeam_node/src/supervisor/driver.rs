//! The process of a supervisor: tells the machine what happens to children, and does what it wants done.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::time::Duration;

use tiebeam_core::Random;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, warn};

use super::handle::{
    ChildCounts, ChildError, ChildInfo, ChildStatus, Command, Directory, MAX_COMMANDS, Outcome,
};
use super::machine::{
    Action, Answer, CallId, End, Event, Key, Machine, Request, Rules, Settings, State, is_expected,
};
use super::spec::{ChildKind, ChildSpec};
use crate::error::SpawnError;
use crate::gen_server::{self, Birth, Identity, Started, already_started};
use crate::process::{Call, Process, ReplyTo, Signal, Target, reply_to_of};

/// Requests that may wait for restarts and ends to be done: more than people ask by hand, and few enough that each is still
/// answered in time.
const MAX_WAITING: usize = 4096;

/// How long a child that has ended may take to drop what it held. A task is dropped as soon as it is not running, so only one
/// that blocks its thread takes longer; then the next child may find a port in use, and its supervisor is not held up.
const DROP_TIME: Duration = Duration::from_secs(1);

/// A child, as the driver knows it.
struct Child {
    spec: ChildSpec,
    /// Its process, or the last one that it had.
    pid: Option<Pid>,
    /// Resolves when the process has dropped what it held. `None` while there is no process.
    dropped: Option<oneshot::Receiver<()>>,
}

/// Who waits for an answer.
enum Asked {
    /// A handle of this node.
    Handle(oneshot::Sender<Outcome>),
    /// A process, on whatever node.
    Process(ReplyTo),
}

pub(super) struct Driver {
    process: Process,
    machine: Machine,
    /// The origin of the machine's time.
    origin: Instant,
    children: BTreeMap<Key, Child>,
    ids: HashMap<Term, Key>,
    pids: HashMap<Pid, Key>,
    next_key: u64,
    calls: HashMap<CallId, Asked>,
    next_call: u64,
    /// The child that is being started; there is one at most.
    starting: Option<(Key, Started)>,
    /// Children that have ended, until they have dropped what they held.
    dropping: JoinSet<(Key, Term)>,
    birth: Option<Birth>,
    parent: Option<Pid>,
    name: Option<Atom>,
    /// Why it was told to end.
    stop_reason: Option<Term>,
    /// Why it ends.
    ended: Option<Term>,
}

impl Driver {
    /// The whole life of a supervisor: the reason of its end.
    pub(super) async fn run(
        settings: Settings,
        specs: Vec<ChildSpec>,
        process: Process,
        birth: Birth,
        random: Random,
    ) -> Result<(), Term> {
        process.trap_exit(true);
        let children: BTreeMap<_, _> = (0_u64..)
            .zip(specs)
            .map(|(key, spec)| (Key(key), Child::new(spec)))
            .collect();
        let mut ids = HashMap::new();
        for (key, child) in &children {
            if ids.insert(child.spec.id.clone(), *key).is_some() {
                let id = child.spec.id.clone();
                let reason = Term::tuple([Term::atom("duplicate_child_name"), id]);
                let reason = Term::tuple([Term::atom("start_spec"), reason]);
                birth.failed(reason.clone());
                return Err(reason);
            }
        }
        let rules = children.iter().map(|(key, child)| (*key, child.rules()));
        let machine = Machine::new(settings, rules, random);
        let mut driver = Self {
            machine,
            origin: Instant::now(),
            next_key: children.len() as u64,
            children,
            ids,
            pids: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            starting: None,
            dropping: JoinSet::new(),
            parent: birth.parent.clone(),
            name: birth.name.clone(),
            birth: Some(birth),
            stop_reason: None,
            ended: None,
            process,
        };
        let (commands, waiting) = mpsc::channel(MAX_COMMANDS);
        let node = driver.process.node().clone();
        let _listed = Directory::insert(&node, driver.process.pid(), commands);
        let reason = driver.drive(waiting).await;
        if reason.is_atom("normal") {
            Ok(())
        } else {
            Err(reason)
        }
    }

    async fn drive(&mut self, mut commands: mpsc::Receiver<Command>) -> Term {
        self.step(Event::Woke);
        loop {
            if let Some(reason) = self.ended.take() {
                return reason;
            }
            let deadline = self.machine.deadline().map(|at| self.origin + at);
            tokio::select! {
                signal = self.process.recv() => match signal {
                    Some(signal) => self.signal(signal).await,
                    // It was killed: the node has told its children.
                    None => return Term::atom("killed"),
                },
                Some(command) = commands.recv(), if self.machine.waiting() < MAX_WAITING => {
                    self.command(command);
                }
                (key, ready) = ready(&mut self.starting) => {
                    self.starting = None;
                    // If it is not, its end comes as a signal.
                    if ready {
                        self.step(Event::Started(key));
                    }
                }
                Some(dropped) = self.dropping.join_next() => {
                    // These tasks do not panic, and nobody aborts them.
                    if let Ok((key, reason)) = dropped {
                        self.step(Event::Ended(key, reason));
                    }
                }
                () = sleep_until(deadline) => self.step(Event::Woke),
            }
        }
    }

    async fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Exit { from, reason } if self.parent.as_ref() == Some(&from) => {
                self.stop(reason);
            }
            Signal::Exit { from, reason } => self.gone(&from, reason),
            // A child that has unlinked itself is known by its monitor.
            Signal::Down {
                target: Target::Pid(pid),
                reason,
                ..
            } => self.gone(&pid, reason),
            Signal::Call(call) => self.call(call),
            signal => {
                let Some((from, request)) = gen_server::system_request(&signal) else {
                    debug!(?signal, "a supervisor ignores a message");
                    return;
                };
                let from = reply_to_of(&self.process, from);
                let identity = Identity {
                    parent: self.parent.as_ref(),
                    name: self.name.as_ref(),
                };
                let state = counts_term(&self.counts());
                let mut suspended = false;
                let end = gen_server::system(
                    state,
                    &self.process,
                    identity,
                    from,
                    request,
                    &mut suspended,
                );
                if let Some(reason) = end.await {
                    self.stop(reason);
                }
            }
        }
    }

    fn stop(&mut self, reason: Term) {
        self.stop_reason.get_or_insert(reason);
        self.step(Event::Stop);
    }

    /// A process has ended: that of a child, if its end is not known yet.
    fn gone(&mut self, pid: &Pid, reason: Term) {
        let Some(key) = self.pids.remove(pid) else {
            return;
        };
        if let Some((_, mut started)) = self.starting.take_if(|(starting, _)| *starting == key) {
            // It may have been ready and ended before anybody looked.
            if started.is_ready() {
                self.step(Event::Started(key));
            }
        }
        let child = self.children.get_mut(&key);
        let Some(mut dropped) = child.and_then(|child| child.dropped.take()) else {
            return;
        };
        if matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            self.dropping.spawn(async move {
                let _ = timeout(DROP_TIME, dropped).await;
                (key, reason)
            });
        } else {
            self.step(Event::Ended(key, reason));
        }
    }

    // ---- requests

    fn command(&mut self, command: Command) {
        match command {
            Command::Start(spec, answer) => self.add(*spec, Asked::Handle(answer)),
            Command::Terminate(id, answer) => {
                self.ask(&id, Request::Terminate, Asked::Handle(answer));
            }
            Command::Restart(id, answer) => self.ask(&id, Request::Restart, Asked::Handle(answer)),
            Command::Delete(id, answer) => self.ask(&id, Request::Delete, Asked::Handle(answer)),
            // Whoever asked may be gone.
            Command::Which(answer) => drop(answer.send(self.list())),
            Command::Count(answer) => drop(answer.send(self.counts())),
            Command::Stop(reason) => self.stop(reason),
        }
    }

    /// What a BEAM asks its own supervisors.
    fn call(&mut self, call: Call) {
        let (request, from) = call.into_parts();
        let answer = match &request {
            Term::Atom(request) => match request.as_str() {
                "which_children" => Some(self.list_term()),
                "count_children" => Some(counts_term(&self.counts())),
                _ => None,
            },
            Term::Tuple(request) => match request.as_slice() {
                [Term::Atom(verb), id] => {
                    let request: fn(Key) -> Request = match verb.as_str() {
                        "terminate_child" => Request::Terminate,
                        "restart_child" => Request::Restart,
                        "delete_child" => Request::Delete,
                        _ => return reply(from, error_term(Term::atom("not_supported"))),
                    };
                    if self.machine.waiting() >= MAX_WAITING {
                        return reply(from, error_term(Term::atom("system_limit")));
                    }
                    return self.ask(id, request, Asked::Process(from));
                }
                _ => None,
            },
            _ => None,
        };
        reply(
            from,
            answer.unwrap_or_else(|| error_term(Term::atom("not_supported"))),
        );
    }

    fn add(&mut self, spec: ChildSpec, asked: Asked) {
        if let Some(key) = self.ids.get(&spec.id) {
            let pid = self.children.get(key).and_then(Child::running);
            let error = match pid {
                Some(pid) => ChildError::AlreadyStarted(pid),
                None => ChildError::AlreadyPresent,
            };
            return answer(asked, Err(error));
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        self.ids.insert(spec.id.clone(), key);
        let child = Child::new(spec);
        let request = Request::Add(key, child.rules());
        self.children.insert(key, child);
        self.asked(request, asked);
    }

    fn ask(&mut self, id: &Term, request: fn(Key) -> Request, asked: Asked) {
        match self.ids.get(id) {
            Some(key) => self.asked(request(*key), asked),
            None => answer(asked, Err(ChildError::NotFound)),
        }
    }

    fn asked(&mut self, request: Request, asked: Asked) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, asked);
        self.step(Event::Asked(call, request));
    }

    // ---- the machine

    fn step(&mut self, event: Event) {
        if let Event::Ended(key, reason) = &event
            && self.stop_reason.is_none()
            && !is_expected(reason)
            && let Some(child) = self.children.get(key)
        {
            warn!(supervisor = ?self.process.pid(), child = %child.spec.id, pid = ?child.pid, "a child has ended: {reason}");
        }
        let mut next = Some(event);
        // A start that fails at once is the next event.
        while let Some(event) = next.take() {
            let mut actions = Vec::new();
            self.machine
                .step(self.origin.elapsed(), event, &mut actions);
            for action in actions {
                if let Some((key, reason)) = self.carry_out(action) {
                    next = Some(Event::Ended(key, reason));
                }
            }
        }
    }

    /// Does it. A child that could not be started is given back, and why; that is the last action of a step.
    fn carry_out(&mut self, action: Action) -> Option<(Key, Term)> {
        match action {
            Action::Start(key) => return self.start(key).err().map(|reason| (key, reason)),
            Action::Shut(key) => self.exit(key, "shutdown"),
            Action::Kill(key) => self.exit(key, "kill"),
            Action::Forget(key) => {
                if let Some(child) = self.children.remove(&key) {
                    self.ids.remove(&child.spec.id);
                }
            }
            Action::Answer(call, outcome) => {
                if let Some(asked) = self.calls.remove(&call) {
                    answer(asked, self.outcome(outcome));
                }
            }
            Action::Ready => {
                if let Some(birth) = self.birth.take() {
                    birth.started();
                }
            }
            Action::End(end) => self.end(end),
        }
        None
    }

    fn end(&mut self, end: End) {
        let shutdown = || Term::atom("shutdown");
        let reason = match end {
            End::Stopped => self.stop_reason.take().unwrap_or_else(shutdown),
            End::Intensity => {
                error!(supervisor = ?self.process.pid(), "a supervisor ends: its children end too often");
                shutdown()
            }
            End::Failed(key, reason) => {
                let id = match self.children.get(&key) {
                    Some(child) => child.spec.id.clone(),
                    None => Term::atom("undefined"),
                };
                let failed = Term::tuple([Term::atom("failed_to_start_child"), id, reason]);
                Term::tuple([shutdown(), failed])
            }
        };
        if let Some(birth) = self.birth.take() {
            birth.failed(reason.clone());
        }
        self.ended = Some(reason);
    }

    /// Starts the process of a child: linked before it does anything, so that its end is not missed.
    fn start(&mut self, key: Key) -> Result<(), Term> {
        let Some(child) = self.children.get_mut(&key) else {
            return Err(Term::atom("noproc"));
        };
        let node = self.process.node();
        let invalid = |error: SpawnError| Term::from(error.to_string());
        let process = node.spawn_anonymous().map_err(invalid)?;
        if let Some(name) = child.spec.local_name() {
            process
                .register(name.as_str())
                .map_err(|error| match node.whereis(name.as_str()) {
                    Some(pid) => already_started(&pid),
                    None => invalid(error),
                })?;
        }
        let pid = process.pid().clone();
        self.process.link(&pid);
        self.process.monitor(&pid);
        let parent = self.process.pid().clone();
        let (birth, started) = Birth::new(Some(parent), child.spec.local_name().cloned());
        let (held, dropped) = oneshot::channel::<()>();
        let spec = &child.spec;
        node.run(process, |process| {
            let living = spec.run(process, birth);
            async move {
                let held = held;
                let end = living.await;
                drop(held);
                end
            }
        });
        child.pid = Some(pid.clone());
        child.dropped = Some(dropped);
        self.pids.insert(pid, key);
        self.starting = Some((key, started));
        Ok(())
    }

    fn exit(&self, key: Key, reason: &'static str) {
        // Of one that has ended by itself the machine hears in a moment.
        if let Some(pid) = self.children.get(&key).and_then(Child::running) {
            self.process.send_exit(&pid, Term::atom(reason));
        }
    }

    fn outcome(&self, answer: Answer) -> Outcome {
        match answer {
            Answer::Done => Ok(None),
            Answer::Started(key) => Ok(self.children.get(&key).and_then(|child| child.pid.clone())),
            Answer::Failed(reason) => Err(ChildError::Start(reason)),
            Answer::Running => Err(ChildError::Running),
            Answer::Restarting => Err(ChildError::Restarting),
            Answer::NotFound => Err(ChildError::NotFound),
        }
    }

    // ---- what there is

    fn status(&self, key: Key, child: &Child) -> ChildStatus {
        match (self.machine.state(key), child.running()) {
            (Some(State::Starting | State::Up), Some(pid)) => ChildStatus::Running(pid),
            (Some(State::Down) | None, _) => ChildStatus::Down,
            // It has ended, and what is to be done about it is being found out.
            (Some(_), _) => ChildStatus::Restarting,
        }
    }

    fn list(&self) -> Vec<ChildInfo> {
        let info = |(key, child): (&Key, &Child)| ChildInfo {
            id: child.spec.id.clone(),
            status: self.status(*key, child),
            kind: child.spec.kind,
        };
        self.children.iter().map(info).collect()
    }

    /// As `supervisor:which_children/1`: the last one first.
    fn list_term(&self) -> Term {
        let children = self.list().into_iter().rev().map(|child| {
            let status = match child.status {
                ChildStatus::Running(pid) => Term::from(pid),
                ChildStatus::Restarting => Term::atom("restarting"),
                ChildStatus::Down => Term::atom("undefined"),
            };
            let kind = Term::atom(match child.kind {
                ChildKind::Worker => "worker",
                ChildKind::Supervisor => "supervisor",
            });
            Term::tuple([child.id, status, kind, Term::atom("dynamic")])
        });
        Term::List(children.collect())
    }

    fn counts(&self) -> ChildCounts {
        let mut counts = ChildCounts::default();
        for (key, child) in &self.children {
            counts.specs += 1;
            match child.spec.kind {
                ChildKind::Worker => counts.workers += 1,
                ChildKind::Supervisor => counts.supervisors += 1,
            }
            let active = matches!(self.status(*key, child), ChildStatus::Running(_));
            counts.active += usize::from(active);
        }
        counts
    }
}

impl Child {
    fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            pid: None,
            dropped: None,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            restart: self.spec.restart,
            shutdown: self.spec.shutdown,
        }
    }

    fn running(&self) -> Option<Pid> {
        self.dropped.as_ref().and(self.pid.clone())
    }
}

/// Whether the child that is being started is ready, as soon as that is decided.
async fn ready(starting: &mut Option<(Key, Started)>) -> (Key, bool) {
    match starting {
        Some((key, started)) => (*key, started.ready().await),
        None => pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}

fn answer(asked: Asked, outcome: Outcome) {
    match asked {
        // Whoever asked may be gone.
        Asked::Handle(answer) => drop(answer.send(outcome)),
        Asked::Process(from) => {
            let term = match outcome {
                Ok(None) => Term::atom("ok"),
                Ok(Some(pid)) => Term::tuple([Term::atom("ok"), Term::from(pid)]),
                Err(error) => error_term(error.reason()),
            };
            reply(from, term);
        }
    }
}

fn reply(from: ReplyTo, term: Term) {
    if let Err(error) = from.reply_term(term) {
        debug!("a reply was not sent: {error}");
    }
}

fn error_term(reason: Term) -> Term {
    Term::tuple([Term::atom("error"), reason])
}

/// As `supervisor:count_children/1`.
fn counts_term(counts: &ChildCounts) -> Term {
    let pair = |what, count: usize| Term::tuple([Term::atom(what), Term::from(count as u64)]);
    Term::list([
        pair("specs", counts.specs),
        pair("active", counts.active),
        pair("supervisors", counts.supervisors),
        pair("workers", counts.workers),
    ])
}
