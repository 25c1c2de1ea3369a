//! Worker pools: servers of one kind, one behind the other, that share the requests among them.

mod balance;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tiebeam_core::Random;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::error::{CallError, SendError, SpawnError};
use crate::gen_server::{Answer, Flow, GenServer};
use crate::message::FromTerm;
use crate::node::{Node, Outcome, Question, WeakNode};
use crate::process::{Process, ReplyTo, Signal};
use crate::retry::Failure;
use crate::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorRef};
use crate::typed;
use balance::{Chooser, Nobody};

pub use balance::Balance;

/// Calls of other nodes that the pool's own process may wait for at a time. Each takes a few hundred bytes; with the default
/// queue the workers of most pools are full before.
const MAX_RELAYED: usize = 65_536;

/// How a worker pool is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// How many workers there are; 0 counts as 1.
    pub size: usize,
    /// How requests are spread. Default [`Balance::RoundRobin`].
    pub balance: Balance,
    /// How many requests may wait for each worker, besides the one that it works at. When all workers have as many, a
    /// request is refused with [`PoolError::Busy`]: whoever asks learns at once that it will not be answered soon. Default
    /// 1,000.
    pub queue: usize,
    /// A name of this node where other processes find the pool: `GenServer.call({:name, :"rust@host"}, request)`. Default
    /// none.
    pub name: Option<String>,
}

impl Default for PoolSettings {
    /// One worker for each core.
    fn default() -> Self {
        Self {
            size: std::thread::available_parallelism().map_or(1, usize::from),
            balance: Balance::default(),
            queue: 1_000,
            name: None,
        }
    }
}

impl PoolSettings {
    /// So many workers.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// So many workers for each core.
    pub fn per_core(workers: usize) -> Self {
        let cores = Self::default().size;
        Self::new(cores.saturating_mul(workers))
    }

    /// With this balance.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// With so many requests that may wait for each worker.
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// With this name on its node.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }
}

/// Servers of one kind that share the requests among them, under a supervisor. Clones are the same.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::{
///     Answer, Balance, Config, Cookie, EpmdMode, GenServer, Node, PoolSettings, Process, ReplyTo, WorkerPool,
/// };
///
/// struct Squares;
///
/// impl GenServer for Squares {
///     type Call = i64;
///     type Cast = ();
///     type Reply = i64;
///
///     async fn handle_call(&mut self, number: i64, _: &ReplyTo, _: &Process) -> Answer<i64> {
///         Answer::Reply(number * number)
///     }
/// }
///
/// let config = Config::new("rust@127.0.0.1", Cookie::new("secret"));
/// let node = Node::start(config.listen([127, 0, 0, 1].into()).epmd(EpmdMode::None, 0)).await?;
/// let settings = PoolSettings::new(4).balance(Balance::LeastLoaded).queue(100).named("squares");
/// let pool = WorkerPool::new(settings, || Squares);
/// pool.start(&node).await?;
///
/// let square: i64 = pool.call(&7, Duration::from_secs(5)).await?;
/// assert_eq!(square, 49);
/// assert_eq!(pool.workers().len(), 4);
/// # node.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// A worker that ends is started again and takes its place; requests that waited for it are lost with it, and their callers see its
/// exit. While no worker runs there is [`PoolError::Down`].
///
/// Under its name a pool takes calls and casts of every node and hands them on. It replies `{error, busy}` and
/// `{error, no_worker}` where a Rust caller has an error, and `{error, {down, Reason}}` if the worker ends before it replies; a
/// cast that nobody can take is dropped, with a line in the log.
#[derive(Clone)]
pub struct WorkerPool(Arc<Shared>);

struct Shared {
    settings: PoolSettings,
    worker: Box<dyn Fn(usize, Arc<Shared>) -> ChildSpec + Send + Sync>,
    /// Held while a worker is chosen and given a request, so that the next choice sees it.
    chooser: Mutex<Chooser>,
    seats: Vec<Mutex<Option<Seat>>>,
}

/// The process that is a worker just now.
#[derive(Clone)]
struct Seat {
    node: WeakNode,
    pid: Pid,
    /// Whether it works at a request.
    busy: Arc<AtomicBool>,
}

impl Shared {
    fn seat(&self, worker: usize) -> MutexGuard<'_, Option<Seat>> {
        // Nothing that can panic runs under the lock.
        self.seats[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests a worker has, if it runs.
    fn load(&self, worker: usize) -> Option<usize> {
        let seat = self.seat(worker).clone()?;
        let waiting = seat.node.upgrade()?.mailbox_len(&seat.pid)?;
        Some(waiting + usize::from(seat.busy.load(Ordering::Relaxed)))
    }

    /// Chooses a worker and gives it something.
    fn give<T>(&self, give: impl FnOnce(Node, Pid) -> T) -> Result<T, PoolError> {
        let mut chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.settings.queue.saturating_add(1);
        let chosen = chooser.choose(self.seats.len(), limit, |worker| self.load(worker));
        let worker = chosen.map_err(|nobody| match nobody {
            Nobody::Busy => PoolError::Busy {
                workers: self.seats.len(),
                queue: self.settings.queue,
            },
            Nobody::Down => PoolError::Down,
        })?;
        let seat = self.seat(worker).clone().ok_or(PoolError::Down)?;
        let node = seat.node.upgrade().ok_or(PoolError::Down)?;
        Ok(give(node, seat.pid))
    }
}

impl WorkerPool {
    /// A pool, not started yet: `make` gives a new server for every start of a worker.
    ///
    /// # Panics
    /// When its name has more than 255 characters.
    pub fn new<S: GenServer>(
        settings: PoolSettings,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        if let Some(name) = &settings.name {
            Atom::new(name).expect("a name has at most 255 characters");
        }
        let settings = PoolSettings {
            size: settings.size.max(1),
            ..settings
        };
        let make = Arc::new(make);
        let worker = move |index: usize, pool: Arc<Shared>| {
            let make = Arc::clone(&make);
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            ChildSpec::server(("worker", number), move || Worker {
                server: make(),
                index,
                pool: Arc::clone(&pool),
                busy: Arc::default(),
            })
        };
        let random = Random::from_seed(rand::random());
        Self(Arc::new(Shared {
            chooser: Mutex::new(Chooser::new(settings.balance, random)),
            seats: (0..settings.size).map(|_| Mutex::default()).collect(),
            worker: Box::new(worker),
            settings,
        }))
    }

    /// Its supervisor, to be started, or to be a child of another one ([`ChildSpec::supervisor`]). Its children are
    /// `{worker, 1}` to `{worker, N}`, and `pool` if the pool has a name. It bears three restarts of each worker within five
    /// seconds, unless [`Supervisor::intensity`] says otherwise.
    pub fn supervisor(&self) -> Supervisor {
        let shared = &self.0;
        let size = u32::try_from(shared.settings.size).unwrap_or(u32::MAX);
        let restarts = size.saturating_mul(3);
        let mut supervisor =
            Supervisor::new(Strategy::OneForOne).intensity(restarts, Duration::from_secs(5));
        for index in 0..shared.settings.size {
            supervisor = supervisor.child((shared.worker)(index, Arc::clone(shared)));
        }
        match &shared.settings.name {
            Some(name) => {
                let pool = self.clone();
                let relay = ChildSpec::process("pool", move |process| relay(pool.clone(), process));
                supervisor.child(relay.named(name))
            }
            None => supervisor,
        }
    }

    /// Starts it on a node, under a supervisor of its own.
    ///
    /// # Errors
    /// As for [`Supervisor::start`].
    ///
    /// # Cancel safety
    /// As for [`Supervisor::start`].
    pub async fn start(&self, node: &Node) -> Result<SupervisorRef, SpawnError> {
        self.supervisor().start(node).await
    }

    /// The workers that run.
    pub fn workers(&self) -> Vec<Pid> {
        (1..=self.0.seats.len())
            .filter_map(|number| self.member(number))
            .collect()
    }

    /// The worker with this number, from 1 on, if it runs.
    pub fn member(&self, number: usize) -> Option<Pid> {
        let worker = number.checked_sub(1)?;
        if worker >= self.0.seats.len() {
            return None;
        }
        let seat = self.0.seat(worker).clone()?;
        let runs = seat.node.upgrade()?.is_process_alive(&seat.pid);
        runs.then_some(seat.pid)
    }

    /// Asks one of the workers, as [`Node::call`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reply; the request may still be handled.
    pub async fn call<R, T>(&self, request: &R, timeout: Duration) -> Result<T, PoolError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        let deadline = Instant::now() + timeout;
        let request = typed::to_term(request).map_err(|error| SendError::Encode(error.to_string()));
        let (node, question) = self.pose(request.map_err(CallError::from)?)?;
        let reply = question.reply(deadline, timeout).await?;
        drop(node);
        Ok(Node::read_reply(reply)?)
    }

    fn pose(&self, request: Term) -> Result<(Node, Question), PoolError> {
        self.0.give(|node, pid| {
            let question = node.pose(node.router().caller_entry(), pid.into(), request)?;
            Ok((node, question))
        })?
    }

    /// Sends a message to one of the workers, as [`Node::cast`].
    pub fn cast<R: Serialize + ?Sized>(&self, message: &R) -> Result<(), PoolError> {
        let message = typed::to_term(message).map_err(|error| SendError::Encode(error.to_string()));
        self.cast_term(message.map_err(CallError::from)?)
    }

    fn cast_term(&self, message: Term) -> Result<(), PoolError> {
        let sent = self.0.give(|node, pid| node.cast_term(pid, message))?;
        Ok(sent.map_err(CallError::from)?)
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("settings", &self.0.settings)
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

/// The process of a pool that has a name: hands requests on, and replies.
async fn relay(pool: WorkerPool, mut process: Process) -> Result<(), Term> {
    let mut waiting = JoinSet::new();
    loop {
        let signal = tokio::select! {
            signal = process.recv() => signal,
            Some(_) = waiting.join_next() => continue,
        };
        match signal {
            Some(Signal::Call(call)) => {
                let (request, from) = call.into_parts();
                if waiting.len() >= MAX_RELAYED {
                    reply_to(from, error("busy"));
                    continue;
                }
                match pool.pose(request) {
                    Ok((node, question)) => {
                        waiting.spawn(async move {
                            let reply = match question.outcome().await {
                                Some(Outcome::Reply(reply)) => reply,
                                Some(Outcome::Down(reason)) => down(reason),
                                Some(Outcome::Refused(reason)) => down(reason.into()),
                                None => down(Term::atom("shutdown")),
                            };
                            drop(node);
                            reply_to(from, reply);
                        });
                    }
                    Err(PoolError::Busy { .. }) => reply_to(from, error("busy")),
                    Err(PoolError::Down | PoolError::Call(_)) => reply_to(from, error("no_worker")),
                }
            }
            Some(Signal::Cast(message)) => {
                if let Err(error) = pool.cast_term(message) {
                    debug!("a cast to a pool was dropped: {error}");
                }
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

fn reply_to(from: ReplyTo, reply: Term) {
    if let Err(error) = from.reply_term(reply) {
        debug!("a reply was not sent: {error}");
    }
}

fn error(reason: &'static str) -> Term {
    Term::tuple([Term::atom("error"), Term::atom(reason)])
}

fn down(reason: Term) -> Term {
    let down = Term::tuple([Term::atom("down"), reason]);
    Term::tuple([Term::atom("error"), down])
}

/// A server of the user's, which takes its seat when it is ready, and says when it is busy.
struct Worker<S> {
    server: S,
    index: usize,
    pool: Arc<Shared>,
    busy: Arc<AtomicBool>,
}

impl<S: GenServer> GenServer for Worker<S> {
    type Call = S::Call;
    type Cast = S::Cast;
    type Reply = S::Reply;

    async fn init(&mut self, process: &Process) -> Result<(), Term> {
        self.server.init(process).await?;
        *self.pool.seat(self.index) = Some(Seat {
            node: process.node().downgrade(),
            pid: process.pid().clone(),
            busy: Arc::clone(&self.busy),
        });
        Ok(())
    }

    async fn handle_call(
        &mut self,
        request: S::Call,
        from: &ReplyTo,
        process: &Process,
    ) -> Answer<S::Reply> {
        let _busy = Busy::new(&self.busy);
        self.server.handle_call(request, from, process).await
    }

    async fn handle_cast(&mut self, message: S::Cast, process: &Process) -> Flow {
        let _busy = Busy::new(&self.busy);
        self.server.handle_cast(message, process).await
    }

    async fn handle_info(&mut self, signal: Signal, process: &Process) -> Flow {
        let _busy = Busy::new(&self.busy);
        self.server.handle_info(signal, process).await
    }

    async fn terminate(&mut self, reason: &Term, process: &Process) {
        self.server.terminate(reason, process).await;
    }

    fn state(&self) -> Term {
        self.server.state()
    }
}

/// A worker works at something, until this is dropped.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn new(busy: &'a AtomicBool) -> Self {
        busy.store(true, Ordering::Relaxed);
        Self(busy)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Why a pool did not do what it was asked to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// All workers have as many requests as may wait for them. Nothing was sent: try again later, ask for less, or make the
    /// pool larger.
    Busy {
        /// How many workers there are.
        workers: usize,
        /// How many requests may wait for each.
        queue: usize,
    },
    /// No worker runs: the pool is not started, or all are being restarted. Nothing was sent.
    Down,
    /// A worker was asked.
    Call(CallError),
}

impl From<CallError> for PoolError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Failure for PoolError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Down => true,
            Self::Call(error) => error.is_retryable(),
        }
    }

    fn is_outage(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Down => true,
            Self::Call(error) => error.is_outage(),
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { workers, queue } => write!(
                f,
                "all {workers} workers are busy, and {queue} requests wait for each: try again later"
            ),
            Self::Down => f.write_str("no worker of the pool runs"),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PoolError {}
