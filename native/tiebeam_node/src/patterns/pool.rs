//! Pools of a cluster: workers on all nodes that take part, or on some of them, and calls to one of them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tiebeam_core::NodeName;
use tiebeam_core::placement::{self, MAX_SLOTS, MAX_WEIGHT, Participant, Policy};
use tiebeam_core::registry::name::NameError;
use tiebeam_wire::{Map, Pid, Term};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::placement::{Operator, Placement, Rebalance, task_settings};
use super::ring::{DEFAULT_HANDOVER, DEFAULT_RESTARTS, DEFAULT_SETTLE, LOOK_FIRST, LOOK_MAX};
use super::runner::{ReleaseReason, Work};
use super::slots::{Task, TaskMember};
use crate::cluster::{ClusterHandle, LeadershipError, Name, Token};
use crate::error::{CallError, SendError};
use crate::gen_server::{Birth, GenServer, live};
use crate::message::FromTerm;
use crate::node::Node;
use crate::typed;

/// The pause before a worker that has ended is started again.
const RESTART: Duration = Duration::from_millis(200);

/// Workers of one kind on the nodes of a cluster; within a node there is [`WorkerPool`](crate::WorkerPool). Clones are the same.
///
/// ```no_run
/// # use tiebeam_node::{Answer, GenServer, Process, ReplyTo};
/// # struct Thumbs;
/// # impl GenServer for Thumbs {
/// #     type Call = String;
/// #     type Cast = ();
/// #     type Reply = String;
/// #     async fn handle_call(&mut self, r: String, _: &ReplyTo, _: &Process) -> Answer<String> { Answer::Reply(r) }
/// # }
/// # async fn start(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::Route;
///
/// let thumbs = cluster.pool("thumbs").replicas(2); // without `replicas`: a worker on each node that starts it
/// let member = thumbs.start(|_token| Thumbs)?;
/// let timeout = Duration::from_secs(5);
/// let reply: String = thumbs.call(Route::Any, "cat.jpg", timeout).await?; // from any node
/// let reply: String = thumbs.call(Route::key("user:1"), "cat.jpg", timeout).await?; // the same worker for a key
/// member.drain().await;
/// # Ok(())
/// # }
/// ```
///
/// A BEAM with `Tiebeam.Pool` of the same name takes part as a Rust node does. A worker that ends is started again.
///
/// # What is promised
///
/// With [`ClusterPool::replicas`] at most so many workers run at a time, if clocks run alike, and one on a node at most: each has a claim,
/// as an active [`Singleton`](crate::Singleton) has, and needs [`ClusterConfig::voters`](crate::ClusterConfig::voters). Without, nothing is
/// agreed upon, and each side of a split goes on with the workers that it has.
#[derive(Clone)]
pub struct ClusterPool {
    task: Task,
}

/// Which worker is called.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// One of the workers, at random.
    Any,
    /// One of this node if there is one, otherwise any.
    LocalFirst,
    /// That of the node that leads the cluster.
    Leader,
    /// For one key the same worker, from all nodes, for as long as its node has one.
    Key(Name),
}

impl Route {
    /// [`Route::Key`].
    pub fn key(key: impl Into<Name>) -> Self {
        Self::Key(key.into())
    }
}

impl ClusterHandle {
    /// Workers on the nodes of the cluster.
    pub fn pool(&self, name: impl Into<Name>) -> ClusterPool {
        ClusterPool {
            task: Task {
                cluster: self.clone(),
                claims: self.claims(),
                kind: "pool",
                name: name.into(),
                slots: 1,
                local: true,
                away_from: None,
                most: 1,
                settle: DEFAULT_SETTLE,
                handover: DEFAULT_HANDOVER,
                policy: Policy::default(),
                participant: Participant::default(),
                followers: 0,
                restarts: DEFAULT_RESTARTS,
                meta: Vec::new(),
            },
        }
    }
}

impl ClusterPool {
    /// Workers on so many of the nodes that start the pool, 1 to 4,096, and the same number on all nodes. Default: on each of them.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.task.slots = replicas.clamp(1, MAX_SLOTS as u32);
        self.task.local = false;
        self
    }

    /// With [`ClusterPool::replicas`]: no worker on a node that has one of this other pool. The same on all nodes.
    #[must_use]
    pub fn away_from(mut self, pool: impl Into<Name>) -> Self {
        self.task.away_from = Some(pool.into());
        self
    }

    task_settings!();

    /// How long a worker may take that is to end, with all that it was sent; then it is killed. Default five seconds.
    #[must_use]
    pub fn handover(mut self, handover: Duration) -> Self {
        self.task.handover = handover;
        self
    }

    /// Takes part, from now on until [`ClusterPoolMember::drain`]. `worker` makes one, when this node shall have it; with
    /// [`ClusterPool::replicas`] it gets the token of its claim.
    ///
    /// # Errors
    /// [`LeadershipError::Name`], [`LeadershipError::AlreadyStarted`], [`LeadershipError::Ended`] if the node has stopped; with
    /// [`ClusterPool::replicas`] also [`LeadershipError::NoGroup`].
    pub fn start<S, F>(&self, worker: F) -> Result<ClusterPoolMember, LeadershipError>
    where
        S: GenServer,
        F: Fn(Option<Token>) -> S + Send + Sync + 'static,
    {
        let work = Workers {
            task: self.task.clone(),
            worker,
            running: Mutex::default(),
        };
        self.task.clone().start(work)
    }

    /// The workers on all nodes, as far as this node knows. Reads a local table, never waits.
    pub fn workers(&self) -> Vec<Pid> {
        let members = self
            .task
            .cluster
            .groups()
            .members(Task::workers(&self.task.name));
        members.into_iter().map(|member| member.pid).collect()
    }

    /// The nodes that may have a worker, in order, whether they have one or not: those that take part, do not drain, and are where the pool may be
    /// ([`ClusterPool::placement`]). Reads a local table, never waits.
    pub fn members(&self) -> Vec<NodeName> {
        self.task.eligible()
    }

    /// The worker for a route, as far as this node knows.
    fn choose(&self, route: &Route) -> Option<Pid> {
        let mut workers = self.workers();
        let random = |workers: &[Pid]| {
            let at = rand::random_range(..workers.len().max(1));
            workers.get(at).cloned()
        };
        let of_node = |workers: &[Pid], node: &str| -> Vec<Pid> {
            let of_node = workers.iter().filter(|worker| worker.node.as_str() == node);
            of_node.cloned().collect()
        };
        match route {
            Route::Any => random(&workers),
            Route::LocalFirst => {
                let here = of_node(&workers, self.task.node().name().as_str());
                random(&here).or_else(|| random(&workers))
            }
            Route::Leader => {
                let (leader, _) = self.task.cluster.leader().current()?;
                random(&of_node(&workers, leader.as_str()))
            }
            Route::Key(key) => {
                let nodes = workers
                    .iter()
                    .filter_map(|worker| NodeName::parse(worker.node.as_str()).ok());
                let mut nodes: Vec<NodeName> = nodes.collect();
                nodes.sort();
                nodes.dedup();
                let first = placement::rank(key.bytes(), nodes).into_iter().next()?;
                workers.retain(|worker| worker.node.as_str() == first.as_str());
                workers
                    .into_iter()
                    .min_by_key(|worker| (worker.serial, worker.id))
            }
        }
    }

    /// Asks a worker, as `GenServer.call`, and waits for its reply. While there is no worker it waits for one, at most so long.
    ///
    /// # Errors
    /// [`RouteError::NoWorker`]: nobody was asked. [`RouteError::Call`]: the worker may have done what it was asked for.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reply; the request may still be handled.
    pub async fn call<R, T>(
        &self,
        route: Route,
        request: &R,
        timeout: Duration,
    ) -> Result<T, RouteError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        if let Route::Key(key) = &route {
            key.check().map_err(RouteError::Name)?;
        }
        let request = typed::to_term(request)
            .map_err(|error| CallError::from(SendError::Encode(error.to_string())))?;
        let deadline = Instant::now() + timeout;
        let mut pause = LOOK_FIRST;
        loop {
            if let Some(worker) = self.choose(&route) {
                let left = deadline.saturating_duration_since(Instant::now());
                let reply = self
                    .task
                    .node()
                    .call_term(&worker, request.clone(), left)
                    .await;
                match reply {
                    Ok(reply) => return Ok(Node::read_reply(reply)?),
                    // The group does not know yet that it has ended: it was not asked.
                    Err(CallError::NoProcess | CallError::Connect(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(RouteError::NoWorker);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// Asks all workers at the same time: what each replied, or why it did not. At once empty if there is none.
    ///
    /// # Errors
    /// The request has no form as a term: nobody was asked.
    ///
    /// # Cancel safety
    /// As for [`ClusterPool::call`].
    pub async fn call_all<R, T>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<Vec<(Pid, Result<T, CallError>)>, SendError>
    where
        R: Serialize + ?Sized,
        T: FromTerm + Send + 'static,
    {
        let request =
            typed::to_term(request).map_err(|error| SendError::Encode(error.to_string()))?;
        let mut calls = JoinSet::new();
        for worker in self.workers() {
            let (node, request) = (self.task.node().clone(), request.clone());
            calls.spawn(async move {
                let reply = node.call_term(&worker, request, timeout).await;
                (worker, reply.and_then(Node::read_reply))
            });
        }
        Ok(calls.join_all().await)
    }

    /// Tells a worker something, without a reply; whether there is one, as far as this node knows. Never waits.
    pub fn cast<R: Serialize + ?Sized>(
        &self,
        route: Route,
        request: &R,
    ) -> Result<bool, SendError> {
        match self.choose(&route) {
            Some(worker) => self.task.node().cast(&worker, request).map(|()| true),
            None => Ok(false),
        }
    }
}

impl fmt::Debug for ClusterPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPool")
            .field("name", &self.task.name)
            .finish_non_exhaustive()
    }
}

/// This node's part in a pool.
pub type ClusterPoolMember = TaskMember;

/// Why no worker has answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum RouteError {
    /// In time there was no worker for the route, or none that could be reached: nobody was asked.
    NoWorker,
    /// The key is too long, or otherwise no name.
    Name(NameError),
    /// The call failed.
    Call(CallError),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => f.write_str(
                "there was no worker in time: no node has started the pool, or none that can be reached",
            ),
            Self::Name(error) => error.fmt(f),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RouteError {}

impl From<CallError> for RouteError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A pool's work: the workers of this node, by slot.
struct Workers<F> {
    task: Task,
    worker: F,
    running: Mutex<HashMap<u32, Worker>>,
}

/// A worker's process, which is killed when this is dropped.
struct Worker {
    node: Node,
    pid: Pid,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.node.send_exit(&self.pid, Term::atom("kill"));
    }
}

impl<F> Workers<F> {
    fn running(&self) -> MutexGuard<'_, HashMap<u32, Worker>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, F> Work for Workers<F>
where
    S: GenServer,
    F: Fn(Option<Token>) -> S + Send + Sync + 'static,
{
    async fn own(&self, slot: u32, token: Token) -> Result<(), Term> {
        let (node, local) = (self.task.node(), self.task.local);
        let mut meta = Map::new();
        if !local {
            meta.insert(Term::atom("slot"), Term::from(slot));
            meta.insert(Term::atom("token"), Term::from(token.0));
        }
        let why = |error: &dyn fmt::Display| Term::from(error.to_string());
        let server = (self.worker)((!local).then_some(token));
        let process = node.spawn_anonymous().map_err(|error| why(&error))?;
        let (birth, started) = Birth::new(None, None);
        let pid = node.run(process, |process| live(server, process, birth));
        // From here on it is killed if this is given up.
        let worker = Worker {
            node: node.clone(),
            pid,
        };
        started.wait().await.map_err(|error| why(&error))?;
        let (groups, group) = (self.task.cluster.groups(), Task::workers(&self.task.name));
        let joined = groups
            .join_term(group, &worker.pid, &Term::from(meta))
            .await;
        joined.map_err(|error| why(&error))?;
        self.running().insert(slot, worker);
        Ok(())
    }

    async fn hold(&self, slot: u32) {
        let pid = self.running().get(&slot).map(|worker| worker.pid.clone());
        if let Some(pid) = pid {
            self.task.node().wait_for_end(&pid).await;
        }
        sleep(RESTART).await;
    }

    fn release(&self, slot: u32, reason: ReleaseReason) -> impl Future<Output = ()> + Send {
        let worker = self.running().remove(&slot);
        async move {
            let Some(worker) = worker else {
                return;
            };
            if reason == ReleaseReason::Lost {
                return;
            }
            let groups = self.task.cluster.groups();
            // What is not left is over with the process.
            let _ = groups
                .leave(Task::workers(&self.task.name), &worker.pid)
                .await;
            // As `sys:terminate/2`, behind all that it was sent. It has to answer to somebody.
            let from = Term::tuple([
                Term::from(&worker.pid),
                Term::from(worker.node.make_reference()),
            ]);
            let end = Term::tuple([Term::atom("terminate"), Term::atom("shutdown")]);
            let request = Term::tuple([Term::atom("system"), from, end]);
            if worker.node.send(&worker.pid, request).is_ok() {
                worker.node.wait_for_end(&worker.pid).await;
            }
        }
    }
}
