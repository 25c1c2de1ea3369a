//! The handle of a Rust program: names and locks of the cluster.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dashmap::DashMap;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::sync::{mpsc, oneshot};

use super::driver::NAME;
use super::messages::{LockId, NameEntry, Request};
use super::registrar::{Change, Outcome};
use super::resolver::Resolver;
use crate::error::{SendError, SpawnError};
use crate::node::Node;
use crate::process::{Process, Signal};

/// Requests of handles that may wait; further ones wait with their callers.
const REQUESTS_MAX: usize = 64;

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Asked {
    Change(Change, oneshot::Sender<Outcome>),
    Sync(oneshot::Sender<()>),
}

/// For whom a resource is locked, by which processes, with which monitors.
type Held = (Term, Vec<(Pid, Option<Reference>)>);

/// What all handles of a node share with the driver. The tables are the machine's, as of its last step.
#[derive(Debug)]
pub(crate) struct Shared {
    names: DashMap<Term, Pid>,
    locks: DashMap<Term, Held>,
    requests: mpsc::Sender<Asked>,
    /// How many steps the driver has taken.
    pub(super) steps: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let shared = Self {
            names: DashMap::new(),
            locks: DashMap::new(),
            requests,
            steps: AtomicU64::new(0),
        };
        (shared, receiver)
    }

    pub(super) fn set_name(&self, name: Term, pid: Option<Pid>) {
        match pid {
            Some(pid) => drop(self.names.insert(name, pid)),
            None => drop(self.names.remove(&name)),
        }
    }

    pub(super) fn set_lock(&self, resource: Term, held: Option<Held>) {
        match held {
            Some(held) => drop(self.locks.insert(resource, held)),
            None => drop(self.locks.remove(&resource)),
        }
    }

    /// All names and locks are gone.
    pub(super) fn clear(&self) {
        self.names.clear();
        self.locks.clear();
    }

    /// `[{Resource, Requester, [{Pid, Ref}]}]`, as the table `global_locks` of a BEAM.
    pub(super) fn locks_term(&self) -> Term {
        let lock = |resource: &Term, (requester, holders): &Held| {
            let holder = |(pid, monitor): &(Pid, Option<Reference>)| {
                let monitor = monitor.as_ref().map_or(Term::atom("undefined"), Term::from);
                Term::tuple([Term::from(pid), monitor])
            };
            let holders = Term::List(holders.iter().map(holder).collect());
            Term::tuple([resource.clone(), requester.clone(), holders])
        };
        let locks = self.locks.iter();
        Term::List(locks.map(|held| lock(held.key(), held.value())).collect())
    }
}

/// The name of a process in the whole cluster: any term.
///
/// A text is the atom of that text, as in `:global.whereis_name(:counter)`; for an Elixir string use
/// `Term::from("counter")`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GlobalName(pub Term);

/// # Panics
/// When the text has more than 255 characters.
impl From<&str> for GlobalName {
    fn from(name: &str) -> Self {
        let name = Atom::new(name).expect("a name has at most 255 characters");
        Self(Term::from(name))
    }
}
impl From<Atom> for GlobalName {
    fn from(name: Atom) -> Self {
        Self(Term::from(name))
    }
}
impl From<Term> for GlobalName {
    fn from(name: Term) -> Self {
        Self(name)
    }
}
impl From<&Term> for GlobalName {
    fn from(name: &Term) -> Self {
        Self(name.clone())
    }
}

/// Why something was not done in the whole cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GlobalError {
    /// The name belongs to this process.
    NameTaken {
        /// The name.
        name: Term,
        /// Who has it.
        pid: Pid,
    },
    /// The process is registered already, under this name. A process has one global name at most.
    ProcessNamed(Term),
    /// Nobody has this name.
    NotRegistered(Term),
    /// The message was not sent.
    Send(SendError),
    /// There is no process to hold the lock.
    Spawn(SpawnError),
    /// The service has ended while this waited: the node is stopping, or the service begins anew. Whether the request
    /// was carried out is not known.
    Ended,
}

impl fmt::Display for GlobalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name, pid } => write!(f, "the global name {name} belongs to {pid:?}"),
            Self::ProcessNamed(name) => write!(
                f,
                "the process is registered as {name} already; unregister that name first"
            ),
            Self::NotRegistered(name) => write!(f, "nobody is registered as {name}"),
            Self::Send(error) => error.fmt(f),
            Self::Spawn(error) => error.fmt(f),
            Self::Ended => write!(
                f,
                "the service of global names has ended; if the node is not stopping, look and try again"
            ),
        }
    }
}

impl std::error::Error for GlobalError {}

impl From<SendError> for GlobalError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

impl From<SpawnError> for GlobalError {
    fn from(error: SpawnError) -> Self {
        Self::Spawn(error)
    }
}

/// The names and locks of the whole cluster, the same that `:global` has on BEAM nodes. From [`Node::global`].
///
/// ```no_run
/// # async fn names(node: tiebeam_node::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let counter = node.spawn_anonymous()?;
/// node.global().register("counter", counter.pid()).await?; // :global.whereis_name(:counter) on every node
/// assert_eq!(node.global().whereis("counter").as_ref(), Some(counter.pid()));
/// # Ok(())
/// # }
/// ```
///
/// Registering takes a lock on all nodes: it is slow, and waits while partitions are being joined. Looking up reads a
/// local table. Names go when their process or its node does.
#[derive(Clone)]
pub struct Global {
    node: Node,
}

impl Global {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    fn shared(&self) -> &Shared {
        self.node.global_shared()
    }

    /// Registers a process under a name that is free, on all nodes. If another partition has the name, too, then when
    /// the two are joined one of the processes is killed ([`Resolver::RandomExit`]).
    ///
    /// # Cancel safety
    /// A request that was made is carried out even if the future is dropped.
    pub async fn register(
        &self,
        name: impl Into<GlobalName>,
        pid: &Pid,
    ) -> Result<(), GlobalError> {
        self.register_with(name, pid, Resolver::default()).await
    }

    /// As [`Global::register`], with another way to decide when two partitions have the name.
    pub async fn register_with(
        &self,
        name: impl Into<GlobalName>,
        pid: &Pid,
        resolver: Resolver,
    ) -> Result<(), GlobalError> {
        self.register_term(name.into(), pid, resolver.to_term())
            .await
    }

    /// Registers a process under a name, whoever had it before. Source: `global:re_register_name/2`.
    ///
    /// # Cancel safety
    /// As for [`Global::register`].
    pub async fn re_register(
        &self,
        name: impl Into<GlobalName>,
        pid: &Pid,
    ) -> Result<(), GlobalError> {
        self.re_register_with(name, pid, Resolver::default()).await
    }

    /// As [`Global::re_register`], with another way to decide when two partitions have the name.
    pub async fn re_register_with(
        &self,
        name: impl Into<GlobalName>,
        pid: &Pid,
        resolver: Resolver,
    ) -> Result<(), GlobalError> {
        self.re_register_term(name.into(), pid, resolver.to_term())
            .await
    }

    pub(super) async fn register_term(
        &self,
        GlobalName(name): GlobalName,
        pid: &Pid,
        method: Term,
    ) -> Result<(), GlobalError> {
        let entry = NameEntry {
            name: name.clone(),
            pid: pid.clone(),
            method,
        };
        match self.change(Change::Register(entry)).await? {
            Outcome::Done => Ok(()),
            Outcome::NameTaken(pid) => Err(GlobalError::NameTaken { name, pid }),
            Outcome::ProcessNamed(name) => Err(GlobalError::ProcessNamed(name)),
        }
    }

    pub(super) async fn re_register_term(
        &self,
        GlobalName(name): GlobalName,
        pid: &Pid,
        method: Term,
    ) -> Result<(), GlobalError> {
        let pid = pid.clone();
        let entry = NameEntry { name, pid, method };
        self.change(Change::ReRegister(entry)).await.map(drop)
    }

    /// Makes a name nobody's, on all nodes. Does nothing if it is.
    ///
    /// # Cancel safety
    /// As for [`Global::register`].
    pub async fn unregister(&self, name: impl Into<GlobalName>) -> Result<(), GlobalError> {
        let GlobalName(name) = name.into();
        if !self.shared().names.contains_key(&name) {
            return Ok(());
        }
        self.change(Change::Unregister(name)).await.map(drop)
    }

    /// The process with this name. Looks into a local table, never waits.
    pub fn whereis(&self, name: impl Into<GlobalName>) -> Option<Pid> {
        let GlobalName(name) = name.into();
        let pid = self.shared().names.get(&name)?.clone();
        // The table learns of a death a moment later.
        let dead = pid.node == *self.node.name() && !self.node.is_process_alive(&pid);
        (!dead).then_some(pid)
    }

    /// Sends a message to the process with this name, and tells which it is. Never blocks.
    pub fn send(
        &self,
        name: impl Into<GlobalName>,
        message: impl Into<Term>,
    ) -> Result<Pid, GlobalError> {
        let name = name.into();
        let Some(pid) = self.whereis(name.clone()) else {
            return Err(GlobalError::NotRegistered(name.0));
        };
        self.node.send(&pid, message)?;
        Ok(pid)
    }

    /// All names, in no particular order. Reads a local table, never waits.
    pub fn registered_names(&self) -> Vec<Term> {
        let names = self.shared().names.iter();
        names.map(|entry| entry.key().clone()).collect()
    }

    /// Waits until this node and all visible nodes that it is connected with have the same names. Waits without end for
    /// a node that does not take part, such as one with `connect_all` off.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn sync(&self) -> Result<(), GlobalError> {
        let (done, synced) = oneshot::channel();
        self.ask(Asked::Sync(done)).await?;
        synced.await.map_err(|_| GlobalError::Ended)
    }

    /// Locks a resource on all visible nodes; `None` if others hold it through all the attempts. With `retries` `None` it
    /// tries without end, with pauses of an eighth of a second to 8 s.
    ///
    /// # Cancel safety
    /// Dropping the future gives back what was locked.
    pub async fn set_lock(
        &self,
        resource: impl Into<GlobalName>,
        retries: Option<u32>,
    ) -> Result<Option<GlobalLock>, GlobalError> {
        let GlobalName(resource) = resource.into();
        let process = self.node.spawn_anonymous()?;
        let id = LockId::new(resource, process.pid());
        let mut nodes = self.node.nodes();
        nodes.push(self.node.name().clone());
        let mut lock = GlobalLock { process, id, nodes };
        let mut times = 0;
        loop {
            if lock.try_set(self.shared()).await? {
                return Ok(Some(lock));
            }
            if retries.is_some_and(|retries| times >= retries) {
                return Ok(None);
            }
            // As `global:random_sleep/1`: up to an eighth of a second at first, doubled each time up to 8 s.
            times = times.saturating_add(1);
            let longest = 125 << times.min(6);
            let pause = rand::random_range(1..=longest.min(8000));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Does something while a resource is locked on all visible nodes; `None` if it could not be locked.
    ///
    /// # Cancel safety
    /// Dropping the future drops the body and frees the lock.
    pub async fn trans<F: Future>(
        &self,
        resource: impl Into<GlobalName>,
        retries: Option<u32>,
        body: impl FnOnce() -> F,
    ) -> Result<Option<F::Output>, GlobalError> {
        let Some(lock) = self.set_lock(resource, retries).await? else {
            return Ok(None);
        };
        let result = body().await;
        lock.del_lock().await?;
        Ok(Some(result))
    }

    /// `[{Resource, Requester, [{Pid, Ref}]}]` of the locks on this node.
    pub(super) fn locks_term(&self) -> Term {
        self.shared().locks_term()
    }

    async fn change(&self, change: Change) -> Result<Outcome, GlobalError> {
        let (done, changed) = oneshot::channel();
        self.ask(Asked::Change(change, done)).await?;
        changed.await.map_err(|_| GlobalError::Ended)
    }

    async fn ask(&self, asked: Asked) -> Result<(), GlobalError> {
        if self.node.router().is_stopping() {
            return Err(GlobalError::Ended);
        }
        let sent = self.shared().requests.send(asked).await;
        sent.map_err(|_| GlobalError::Ended)
    }
}

impl fmt::Debug for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Global")
            .field("node", self.node.name())
            .finish_non_exhaustive()
    }
}

/// A lock on a resource, on all nodes that were visible when it was taken. From [`Global::set_lock`].
///
/// It is held by a process of its own, so that it goes with this node if that dies. Dropping it frees the lock a moment
/// later; [`GlobalLock::del_lock`] waits until it is free everywhere.
pub struct GlobalLock {
    process: Process,
    id: LockId,
    nodes: Vec<Atom>,
}

impl GlobalLock {
    /// The process that holds it.
    pub fn pid(&self) -> &Pid {
        self.process.pid()
    }

    /// The resource that is locked.
    pub fn resource(&self) -> &Term {
        &self.id.resource
    }

    /// Gives the lock back, and waits until it is free on all nodes.
    ///
    /// # Cancel safety
    /// The lock is freed even if the future is dropped.
    pub async fn del_lock(mut self) -> Result<(), GlobalError> {
        let nodes = std::mem::take(&mut self.nodes);
        let request = Request::DelLock(self.id.clone());
        self.ask(nodes, &request).await.map(drop)
    }

    async fn try_set(&mut self, shared: &Shared) -> Result<bool, GlobalError> {
        let held = shared.locks.get(&self.id.resource);
        if held.is_some_and(|held| held.0 != self.id.requester) {
            // Others would refuse it, too; no need to trouble them.
            return Ok(false);
        }
        let request = Request::SetLock(self.id.clone());
        let answers = self.ask(self.nodes.clone(), &request).await?;
        if answers.iter().all(|(_, granted)| *granted) {
            return Ok(true);
        }
        let granted = answers.into_iter().filter(|(_, granted)| *granted);
        let granted = granted.map(|(node, _)| node).collect();
        let request = Request::DelLock(self.id.clone());
        self.ask(granted, &request).await?;
        Ok(false)
    }

    /// Calls the name servers; a node that is gone has nothing to object.
    async fn ask(
        &mut self,
        nodes: Vec<Atom>,
        request: &Request,
    ) -> Result<Vec<(Atom, bool)>, GlobalError> {
        let mut asked: Vec<(Reference, Atom)> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let to = (Atom::of(NAME), node.clone());
            let reference = self.process.monitor(to.clone());
            let from = [Term::from(self.process.pid()), Term::from(&reference)];
            let call = [
                Term::atom("$gen_call"),
                Term::tuple(from),
                request.to_term(),
            ];
            match self.process.send(to, Term::tuple(call)) {
                Ok(()) => asked.push((reference, node)),
                Err(error) => {
                    self.process.demonitor(&reference);
                    return Err(error.into());
                }
            }
        }
        let mut answers = Vec::with_capacity(asked.len());
        while !asked.is_empty() {
            let Some(signal) = self.process.recv().await else {
                return Err(GlobalError::Ended);
            };
            let (reference, answer) = match signal {
                Signal::Message(Term::Tuple(reply)) => match <[Term; 2]>::try_from(reply) {
                    Ok([Term::Reference(tag), answer]) => (tag, Some(answer)),
                    _ => continue,
                },
                Signal::Down { reference, .. } => (reference, None),
                _ => continue,
            };
            let Some(at) = asked.iter().position(|(other, _)| *other == reference) else {
                continue;
            };
            let (_, node) = asked.swap_remove(at);
            if let Some(answer) = answer {
                self.process.demonitor(&reference);
                answers.push((node, answer.is_atom("true")));
            }
        }
        Ok(answers)
    }
}

impl fmt::Debug for GlobalLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalLock")
            .field("resource", &self.id.resource)
            .field("pid", self.pid())
            .finish_non_exhaustive()
    }
}
