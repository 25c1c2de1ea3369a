//! The process of a machine on one node: it brings the commands of this node's callers into the cluster's log of keys, applies what
//! all nodes brought there, and replies. The rules are those of [`log`](super::log).
//!
//! What the driver of the cluster tells of changes comes before any answer that it gives later. So after an answer everything up to it has
//! been told, a state that this node was sent as well; and only then is anything applied.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tiebeam_wire::Term;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::log::{Batch, Log, Snapshot, Told, prefixes};
use super::snapshot::{self, MAX_BYTES, Point};
use super::{MAX_MACHINE_COMMAND_BYTES, MachineInfo, StateMachine, state_bytes};
use crate::cluster::{Consistency, Kv, KvChange, KvChanges, LeadershipError};
use crate::process::{Call, Process, ReplyTo, Signal};
use crate::typed;

/// Commands that wait for their batch. A caller beyond them waits for its turn.
pub(super) const MAX_WAITING: usize = 4096;

/// Batches of this node that are under way at a time: what comes meanwhile is the next batch.
const IN_FLIGHT: usize = 4;

/// A batch: less than a value may have, whose term and list take a few bytes.
const MAX_BATCH_BYTES: usize = MAX_MACHINE_COMMAND_BYTES;
const MAX_BATCH: usize = 1024;

/// The bytes of commands that wait for their batch.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The machine of the node that brought the command before a point writes the snapshot; any other one does if there is none
/// after so long, and up to as much more.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Where a reply goes.
pub(super) enum Caller<M: StateMachine> {
    Handle(oneshot::Sender<Result<M::Reply, LeadershipError>>),
    Process(ReplyTo),
}

impl<M: StateMachine> Caller<M> {
    fn reply(self, reply: Result<M::Reply, LeadershipError>) {
        match self {
            // Whoever asked may be gone.
            Self::Handle(waiting) => drop(waiting.send(reply)),
            Self::Process(from) => {
                let reply = reply.map(|reply| typed::to_term(&reply));
                let reply = match reply {
                    Ok(Ok(term)) => ok(term),
                    Ok(Err(why)) => invalid(&why.to_string()),
                    Err(error) => Term::tuple([Term::atom("error"), error.reason()]),
                };
                let _ = from.reply_term(reply);
            }
        }
    }
}

fn ok(term: Term) -> Term {
    Term::tuple([Term::atom("ok"), term])
}

fn invalid(why: &str) -> Term {
    let reason = Term::tuple([Term::atom("invalid"), Term::from(why)]);
    Term::tuple([Term::atom("error"), reason])
}

pub(super) type Query<M> = Box<dyn FnOnce(Result<&M, LeadershipError>) + Send>;

/// A command that waits.
pub(super) struct Waiting<M: StateMachine> {
    bytes: Vec<u8>,
    until: Instant,
    caller: Caller<M>,
}

/// What this node's copy is asked.
pub(super) enum Asked<M: StateMachine> {
    Command(Waiting<M>),
    Query {
        query: Query<M>,
        consistency: Consistency,
        timeout: Duration,
    },
    Info(oneshot::Sender<Result<MachineInfo, LeadershipError>>),
}

impl<M: StateMachine> Asked<M> {
    pub(super) fn command(
        bytes: Vec<u8>,
        timeout: Duration,
        caller: Caller<M>,
    ) -> Result<Self, LeadershipError> {
        if bytes.len() > MAX_MACHINE_COMMAND_BYTES {
            return Err(LeadershipError::TooLong {
                part: "command",
                bytes: bytes.len(),
                limit: MAX_MACHINE_COMMAND_BYTES,
            });
        }
        let until = Instant::now() + timeout;
        Ok(Self::Command(Waiting {
            bytes,
            until,
            caller,
        }))
    }
}

/// What was asked of the cluster.
enum Done {
    /// A batch was put, or not.
    Batch(Vec<u8>, Result<u64, LeadershipError>),
    /// Everything that was known has been told.
    Told,
    /// A read that queries wait for.
    Read(u64, Result<(), LeadershipError>),
    /// A snapshot was written, or not.
    Written(Result<(), LeadershipError>),
}

pub(super) struct Replica<M: StateMachine> {
    kv: Kv,
    name: String,
    prefix: String,
    every: u64,
    init: Box<dyn Fn() -> M + Send>,
    /// The first part of the keys of this node's batches.
    client: u64,
    next: u64,
    /// `None` before it began.
    state: Option<M>,
    log: Log,
    told: Vec<Told>,
    waiting: Vec<Waiting<M>>,
    waiting_bytes: usize,
    /// The callers of this node's batches that are under way, by their keys.
    sent: HashMap<Vec<u8>, Vec<Caller<M>>>,
    in_flight: usize,
    asking: bool,
    queries: HashMap<u64, Query<M>>,
    next_query: u64,
    work: JoinSet<Done>,
    point: Option<Point>,
    writing: bool,
    takeover: Option<Instant>,
}

impl<M: StateMachine> Replica<M> {
    pub(super) fn new(kv: Kv, name: String, every: u64, init: Box<dyn Fn() -> M + Send>) -> Self {
        let (prefix, _) = prefixes(&name);
        Self {
            kv,
            name,
            prefix,
            every,
            init,
            client: rand::random(),
            next: 0,
            state: None,
            log: Log::new(every, None),
            told: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            sent: HashMap::new(),
            in_flight: 0,
            asking: false,
            queries: HashMap::new(),
            next_query: 0,
            work: JoinSet::new(),
            point: None,
            writing: false,
            takeover: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut process: Process,
        mut asked: mpsc::Receiver<Asked<M>>,
    ) -> Result<(), Term> {
        let mut changes = self.begin().await?;
        let mut open = true;
        loop {
            let takeover = self.takeover;
            let due = async {
                match takeover {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.hear(change)?,
                    // It was too slow.
                    None => changes = self.begin().await?,
                },
                Some(done) = self.work.join_next() => {
                    let whole = self.drain(&mut changes)?;
                    if !whole || !self.catch_up()? {
                        changes = self.begin().await?;
                    }
                    match done {
                        Ok(done) => self.done(done),
                        Err(panic) => return Err(Term::from(panic.to_string())),
                    }
                }
                request = asked.recv(), if open => match request {
                    Some(request) => self.asked(request),
                    // No handle is left; others may still ask its process.
                    None => open = false,
                },
                signal = process.recv() => match signal {
                    Some(Signal::Call(call)) => self.called(call),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = due => {
                    self.takeover = None;
                    self.write();
                    self.arm();
                }
            }
            self.send();
        }
    }

    /// The beginning: the latest snapshot, and the batches behind it. What was told before the watch began is among the keys that are
    /// listed after it. If there is another snapshot meanwhile, they are listed anew.
    async fn begin(&mut self) -> Result<KvChanges, Term> {
        let here = self.kv.consistency(Consistency::Local);
        let wrong = |error: LeadershipError| error.reason();
        loop {
            let watch = self.kv.watch_from(self.prefix.as_bytes(), true).await;
            let (mut changes, since) = watch.map_err(wrong)?;
            let mut told = Vec::new();
            for entry in here.list(&self.prefix).await.map_err(wrong)? {
                if entry.revision <= since {
                    let value = entry.value_term();
                    let value = value.map_err(|error| Term::from(error.to_string()))?;
                    told.extend(self.read(&entry.key, &value, entry.revision)?);
                }
            }
            let latest = latest(&told);
            let state = match &latest {
                Some(latest) => snapshot::read(&here, &self.name, latest)
                    .await
                    .map_err(wrong)?,
                None => None,
            };
            barrier(&self.kv, &self.prefix).await.map_err(wrong)?;
            self.told = told;
            let known = self.told.len();
            let whole = self.drain(&mut changes)?;
            let newer = self.told[known..]
                .iter()
                .any(|told| matches!(told, Told::Snapshot(_)));
            if !whole || newer {
                continue;
            }
            self.state = Some(match (&latest, state) {
                (None, _) => (self.init)(),
                (Some(_), Some(bytes)) => tiebeam_wire::value::from_bytes(&bytes).map_err(|error| {
                    error!(machine = %self.name, "the state of the other nodes cannot be read: {error}");
                    Term::from(error.to_string())
                })?,
                (Some(latest), None) => {
                    return Err(Term::tuple([
                        Term::atom("broken_snapshot"),
                        Term::from(latest.revision),
                    ]));
                }
            });
            self.log = Log::new(self.every, latest);
            (self.point, self.takeover) = (None, None);
            if !self.catch_up()? {
                continue;
            }
            return Ok(changes);
        }
    }

    fn read(&self, key: &[u8], value: &Term, revision: u64) -> Result<Option<Told>, Term> {
        Told::of(&self.prefix, key, value, revision).map_err(|why| {
            error!(machine = %self.name, "{why}");
            Term::from(why)
        })
    }

    /// A change was told.
    fn hear(&mut self, change: KvChange) -> Result<(), Term> {
        let Some(told) = self.take(change)? else {
            return Ok(());
        };
        // The answer to this node's own batch is right behind it.
        let own = match &told {
            Told::Batch { key, .. } => self.sent.contains_key(key),
            Told::Snapshot(_) => false,
        };
        self.told.push(told);
        if !own && !std::mem::replace(&mut self.asking, true) {
            let (kv, prefix) = (self.kv.clone(), self.prefix.clone());
            self.work.spawn(async move {
                // An error: the driver ended, and so does the watch.
                let _ = barrier(&kv, &prefix).await;
                Done::Told
            });
        }
        Ok(())
    }

    fn take(&self, change: KvChange) -> Result<Option<Told>, Term> {
        match change {
            KvChange::Put(entry) => match entry.value_term() {
                Ok(value) => self.read(&entry.key, &value, entry.revision),
                Err(_) => Ok(None),
            },
            KvChange::Deleted { .. } | KvChange::Missed(_) => Ok(None),
        }
    }

    /// Takes what was told; false if the watch has ended because it was too slow.
    fn drain(&mut self, changes: &mut KvChanges) -> Result<bool, Term> {
        loop {
            match changes.try_recv() {
                Ok(change) => {
                    let told = self.take(change)?;
                    self.told.extend(told);
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Applies what was told; false if something is missing.
    fn catch_up(&mut self) -> Result<bool, Term> {
        if self.told.is_empty() {
            return Ok(true);
        }
        let told = std::mem::take(&mut self.told);
        let latest = latest(&told);
        let mut batches = Vec::new();
        for told in told {
            if let Told::Batch {
                key,
                bytes,
                revision,
            } = told
                && revision > self.log.revision
            {
                let bytes = bytes.as_slice();
                let commands = tiebeam_wire::value::from_bytes(bytes).map_err(|why| {
                    self.poisoned(revision, &why.to_string());
                    let revision = Term::from(revision);
                    Term::tuple([
                        Term::atom("bad_command"),
                        revision,
                        Term::from(why.to_string()),
                    ])
                })?;
                batches.push(Batch {
                    key,
                    revision,
                    commands,
                    bytes: bytes.len(),
                });
            }
        }
        let Ok(batches) = self.log.next(batches, latest.as_ref()) else {
            return Ok(false);
        };
        for batch in batches {
            self.apply(batch)?;
        }
        if let Some(latest) = latest {
            let count = latest.count;
            if self.log.kept(latest).is_err() {
                error!(
                    machine = %self.name,
                    "this node has another state after {count} commands than the node that wrote the snapshot: its commands depend on \
                     more than themselves and the state, or the nodes run different code"
                );
                return Err(Term::tuple([Term::atom("diverged"), Term::from(count)]));
            }
        }
        if self
            .point
            .as_ref()
            .is_some_and(|point| self.log.covered() >= point.count)
        {
            (self.point, self.takeover) = (None, None);
        }
        self.arm();
        Ok(true)
    }

    fn poisoned(&self, revision: u64, why: &str) {
        error!(
            machine = %self.name,
            "the command of revision {revision} ends the machine on every node, until their code can do it: {why}"
        );
    }

    fn apply(&mut self, batch: Batch<M::Command>) -> Result<(), Term> {
        let Some(mut state) = self.state.take() else {
            return Ok(());
        };
        let own = self.sent.remove(&batch.key);
        let is_own = own.is_some();
        let mut callers = own.unwrap_or_default().into_iter();
        let count = batch.commands.len();
        for command in batch.commands {
            let reply = catch_unwind(AssertUnwindSafe(|| state.handle_command(command)));
            let reply = reply.unwrap_or_else(|panic| {
                self.poisoned(batch.revision, "it panics");
                resume_unwind(panic)
            });
            if let Some(caller) = callers.next() {
                caller.reply(Ok(reply));
            }
        }
        let point = self.log.applied(batch.revision, count, batch.bytes);
        if point {
            let bytes = state_bytes(&state)?;
            let digest = snapshot::digest(&bytes);
            self.log.point(digest);
            if bytes.len() > MAX_BYTES {
                error!(
                    machine = %self.name,
                    "its state has {} bytes, more than the {MAX_BYTES} of a snapshot: it takes no more commands soon, unless they make it smaller",
                    bytes.len()
                );
                self.point = None;
            } else {
                self.point = Some(Point {
                    revision: self.log.revision,
                    count: self.log.count,
                    bytes,
                    digest,
                });
            }
        }
        self.state = Some(state);
        if point && is_own {
            self.write();
        }
        Ok(())
    }

    fn write(&mut self) {
        if let Some(point) = self.point.clone().filter(|_| !self.writing) {
            self.writing = true;
            let (kv, name) = (self.kv.clone(), self.name.clone());
            let latest = self.log.snapshot.clone();
            let written = snapshot::write(kv, name, point, latest);
            self.work.spawn(async move { Done::Written(written.await) });
        }
    }

    fn arm(&mut self) {
        if self.point.is_some() && self.takeover.is_none() {
            let more = rand::rng().random_range(Duration::ZERO..TAKEOVER);
            self.takeover = Some(Instant::now() + TAKEOVER + more);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Told => {
                self.asking = false;
            }
            Done::Batch(key, answer) => {
                self.in_flight -= 1;
                match answer {
                    // What it did came before this answer, so it was applied, with its replies or by a snapshot's word.
                    Ok(_) => self.fail(&key, &LeadershipError::Unknown),
                    Err(error) => self.fail(&key, &error),
                }
            }
            Done::Read(number, result) => {
                if let Some(query) = self.queries.remove(&number) {
                    self.answer(query, result);
                }
            }
            Done::Written(result) => {
                self.writing = false;
                match result {
                    // Another node was faster.
                    Ok(()) | Err(LeadershipError::Differs { .. }) => {}
                    Err(why) => {
                        warn!(machine = %self.name, "no new snapshot: {why}; it is tried again");
                    }
                }
            }
        }
    }

    fn fail(&mut self, key: &[u8], why: &LeadershipError) {
        for caller in self.sent.remove(key).unwrap_or_default() {
            caller.reply(Err(why.clone()));
        }
    }

    fn answer(&self, query: Query<M>, result: Result<(), LeadershipError>) {
        let state = match (result, &self.state) {
            (Ok(()), Some(state)) => Ok(state),
            (Ok(()), None) => Err(LeadershipError::Ended),
            (Err(why), _) => Err(why),
        };
        // A question that fails is no reason to end what all nodes have; who asked is told that it has ended.
        if catch_unwind(AssertUnwindSafe(|| query(state))).is_err() {
            warn!(machine = %self.name, "a query panicked");
        }
    }

    fn asked(&mut self, asked: Asked<M>) {
        match asked {
            Asked::Command(command) => self.wait(command),
            Asked::Query {
                query,
                consistency: Consistency::Local,
                ..
            } => self.answer(query, Ok(())),
            Asked::Query {
                query,
                consistency,
                timeout,
            } => {
                let number = self.next_query;
                self.next_query += 1;
                self.queries.insert(number, query);
                let kv = self.kv.consistency(consistency).timeout(timeout);
                let key = format!("{}snapshot", self.prefix);
                self.work.spawn(async move {
                    let read = kv.get_term(key).await;
                    Done::Read(number, read.map(drop))
                });
            }
            Asked::Info(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.info());
            }
        }
    }

    fn info(&self) -> Result<MachineInfo, LeadershipError> {
        let state = self.state.as_ref().ok_or(LeadershipError::Ended)?;
        let bytes = state_bytes(state);
        let bytes = bytes.map_err(|_| LeadershipError::Refused("the state is no data"))?;
        Ok(MachineInfo {
            revision: self.log.revision,
            commands: self.log.count,
            snapshot: self.log.snapshot.as_ref().map(|snapshot| snapshot.count),
            digest: snapshot::digest(&bytes),
        })
    }

    /// Another process asks, as `Tiebeam.StateMachine` does.
    fn called(&mut self, call: Call) {
        let (request, from) = call.into_parts();
        let tuple = request.as_tuple().unwrap_or_default();
        let timeout = |term: &Term| {
            let millis = u64::try_from(term.as_integer()?).ok()?;
            Some(Duration::from_millis(millis))
        };
        let reply = match tuple {
            [tag, Term::Binary(bytes), time] if tag.is_atom("command") => match timeout(time) {
                Some(time) => {
                    let caller = Caller::Process(from.clone());
                    match Asked::command(bytes.as_slice().to_vec(), time, caller) {
                        Ok(asked) => return self.asked(asked),
                        Err(error) => Term::tuple([Term::atom("error"), error.reason()]),
                    }
                }
                None => invalid("a timeout is a number of milliseconds"),
            },
            [tag, query, consistency, time] if tag.is_atom("query") => {
                let query = query.clone();
                let consistency = if consistency.is_atom("local") {
                    Consistency::Local
                } else {
                    Consistency::Linearizable
                };
                let timeout = timeout(time).unwrap_or(super::DEFAULT_TIMEOUT);
                let query: Query<M> = Box::new(move |state| {
                    let answer = match state {
                        Ok(state) => state
                            .handle_query(&query)
                            .map_or_else(|| invalid("there is no such query"), ok),
                        Err(error) => Term::tuple([Term::atom("error"), error.reason()]),
                    };
                    // Whoever asked may be gone.
                    let _ = from.reply_term(answer);
                });
                return self.asked(Asked::Query {
                    query,
                    consistency,
                    timeout,
                });
            }
            _ if request.is_atom("info") => match self.info() {
                Ok(info) => info.to_term(),
                Err(error) => Term::tuple([Term::atom("error"), error.reason()]),
            },
            _ => invalid("there is no such request"),
        };
        // Whoever asked may be gone.
        let _ = from.reply_term(reply);
    }

    fn wait(&mut self, command: Waiting<M>) {
        let limit = self.log.full();
        let many = self.waiting.len() >= MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES;
        let limit = limit.or(many.then_some(MAX_WAITING));
        match limit {
            Some(limit) => command.caller.reply(Err(LeadershipError::Busy { limit })),
            None => {
                self.waiting_bytes += command.bytes.len();
                self.waiting.push(command);
            }
        }
    }

    /// Sends batches, while not too many are under way.
    fn send(&mut self) {
        let now = Instant::now();
        while self.in_flight < IN_FLIGHT && !self.waiting.is_empty() {
            let (mut size, mut count) = (0, 0);
            for command in &self.waiting {
                size += command.bytes.len();
                // One at least: none is larger than a batch may be.
                if count > 0 && (size > MAX_BATCH_BYTES || count == MAX_BATCH) {
                    break;
                }
                count += 1;
            }
            let mut batch: Vec<Waiting<M>> = self.waiting.drain(..count).collect();
            self.waiting_bytes -= batch
                .iter()
                .map(|command| command.bytes.len())
                .sum::<usize>();
            let late = batch.extract_if(.., |command| command.until <= now);
            for command in late {
                command.caller.reply(Err(LeadershipError::NoQuorum));
            }
            let Some(until) = batch.iter().map(|command| command.until).max() else {
                continue;
            };
            let value = Term::from(Bytes::from(list(&batch)));
            let key = format!("{}c/{:016x}/{:016x}", self.prefix, self.client, self.next);
            let key = key.into_bytes();
            self.next += 1;
            self.in_flight += 1;
            let callers = batch.into_iter().map(|command| command.caller).collect();
            self.sent.insert(key.clone(), callers);
            let kv = self.kv.timeout(until - now);
            self.work.spawn(async move {
                let answer = kv.put_term(&key, &value).await;
                Done::Batch(key, answer)
            });
        }
    }
}

/// After this, the changes that the driver knew of were told.
async fn barrier(kv: &Kv, prefix: &str) -> Result<(), LeadershipError> {
    let read = kv.consistency(Consistency::AtLeast(0));
    read.get_term(format!("{prefix}snapshot")).await?;
    Ok(())
}

fn latest(told: &[Told]) -> Option<Snapshot> {
    let snapshots = told.iter().filter_map(|told| match told {
        Told::Snapshot(snapshot) => Some(snapshot),
        Told::Batch { .. } => None,
    });
    snapshots.max_by_key(|snapshot| snapshot.at).cloned()
}

/// The list of what these are; each has its version in front.
fn list<M: StateMachine>(batch: &[Waiting<M>]) -> Vec<u8> {
    let mut bytes = vec![131, 108];
    bytes.extend_from_slice(&(batch.len() as u32).to_be_bytes());
    for command in batch {
        bytes.extend_from_slice(command.bytes.get(1..).unwrap_or_default());
    }
    bytes.push(106);
    bytes
}
