//! What a Rust program does with a supervisor that runs.

use std::fmt;

use dashmap::DashMap;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::{mpsc, oneshot};

use super::spec::{ChildId, ChildKind, ChildSpec};
use crate::gen_server::already_started;
use crate::node::{Node, WeakNode};

/// Commands that may wait for a supervisor; a handle beyond them waits for its turn.
pub(super) const MAX_COMMANDS: usize = 64;

/// What came of a request: the process of the child, where there is one.
pub(super) type Outcome = Result<Option<Pid>, ChildError>;

pub(super) enum Command {
    Start(Box<ChildSpec>, oneshot::Sender<Outcome>),
    Terminate(Term, oneshot::Sender<Outcome>),
    Restart(Term, oneshot::Sender<Outcome>),
    Delete(Term, oneshot::Sender<Outcome>),
    Which(oneshot::Sender<Vec<ChildInfo>>),
    Count(oneshot::Sender<ChildCounts>),
    Stop(Term),
}

/// The supervisors of a node, by pid: how to reach them with what is no term.
#[derive(Default)]
pub(crate) struct Directory(DashMap<Pid, mpsc::Sender<Command>>);

impl Directory {
    /// Lists a supervisor until what is returned is dropped.
    pub(super) fn insert(node: &Node, pid: &Pid, commands: mpsc::Sender<Command>) -> Listed {
        node.supervisors().0.insert(pid.clone(), commands);
        Listed {
            node: node.downgrade(),
            pid: pid.clone(),
        }
    }

    fn get(&self, pid: &Pid) -> Option<mpsc::Sender<Command>> {
        self.0.get(pid).map(|commands| commands.clone())
    }

    fn has(&self, pid: &Pid) -> bool {
        self.0.contains_key(pid)
    }
}

/// A supervisor is in the directory.
pub(super) struct Listed {
    node: WeakNode,
    pid: Pid,
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.supervisors().0.remove(&self.pid);
        }
    }
}

impl Node {
    /// The supervisor with this name on this node; `None` if nobody has the name, or who has it is no supervisor.
    pub fn supervisor(&self, name: &str) -> Option<SupervisorRef> {
        let pid = self.whereis(name)?;
        self.supervisors()
            .has(&pid)
            .then(|| SupervisorRef::new(self.clone(), pid, Atom::new(name).ok()))
    }
}

/// A supervisor of this node. Clones are the same. That of a supervisor with a name stays good when it is started again.
#[derive(Clone)]
pub struct SupervisorRef {
    node: Node,
    pid: Pid,
    name: Option<Atom>,
}

impl SupervisorRef {
    pub(super) fn new(node: Node, pid: Pid, name: Option<Atom>) -> Self {
        Self { node, pid, name }
    }

    /// Its pid, or the last one that it had.
    pub fn pid(&self) -> Pid {
        let named = self.name.as_ref();
        let now = named.and_then(|name| self.node.whereis(name.as_str()));
        now.unwrap_or_else(|| self.pid.clone())
    }

    /// Adds a child, last in order, and starts it: its pid. The supervisor forgets it when it ends itself, as in OTP.
    ///
    /// # Errors
    /// A child of this id is there, or the child ended before it was ready: then it is none.
    ///
    /// # Cancel safety
    /// Once polled, the child is started even if the future is dropped, unless the request still waits for its turn.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Pid, ChildError> {
        let spec = Box::new(spec);
        self.started(|answer| Command::Start(spec, answer)).await
    }

    /// Ends a child, by the rules of its [`Shutdown`](crate::Shutdown). Its specification stays, unless it is
    /// [temporary](crate::Restart::Temporary).
    ///
    /// # Errors
    /// There is none.
    ///
    /// # Cancel safety
    /// As for [`SupervisorRef::start_child`].
    pub async fn terminate_child(&self, id: impl Into<ChildId>) -> Result<(), ChildError> {
        let id = id.into().0;
        let outcome = self.ask(|answer| Command::Terminate(id, answer)).await?;
        outcome.map(drop)
    }

    /// Starts a child that does not run: its pid.
    ///
    /// # Errors
    /// There is none, it runs, it is about to be restarted, or it ended before it was ready.
    ///
    /// # Cancel safety
    /// As for [`SupervisorRef::start_child`].
    pub async fn restart_child(&self, id: impl Into<ChildId>) -> Result<Pid, ChildError> {
        let id = id.into().0;
        self.started(|answer| Command::Restart(id, answer)).await
    }

    /// Removes the specification of a child that does not run.
    ///
    /// # Errors
    /// There is none, it runs, or it is about to be restarted.
    ///
    /// # Cancel safety
    /// As for [`SupervisorRef::start_child`].
    pub async fn delete_child(&self, id: impl Into<ChildId>) -> Result<(), ChildError> {
        let id = id.into().0;
        let outcome = self.ask(|answer| Command::Delete(id, answer)).await?;
        outcome.map(drop)
    }

    /// Its children, in the order in which they are started. Does not wait for restarts.
    ///
    /// # Errors
    /// The supervisor has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.ask(Command::Which).await
    }

    /// How many children it has. Does not wait for restarts.
    ///
    /// # Errors
    /// The supervisor has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn count_children(&self) -> Result<ChildCounts, ChildError> {
        self.ask(Command::Count).await
    }

    /// The process of a child that runs.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn child(&self, id: impl Into<ChildId>) -> Option<Pid> {
        let id = id.into().0;
        let children = self.which_children().await.ok()?;
        let child = children.into_iter().find(|child| child.id == id)?;
        match child.status {
            ChildStatus::Running(pid) => Some(pid),
            ChildStatus::Restarting | ChildStatus::Down => None,
        }
    }

    /// Ends it for the reason `shutdown`, its children first, and waits until it has ended. One that has a supervisor
    /// itself is ended by [`SupervisorRef::terminate_child`] of that.
    ///
    /// # Cancel safety
    /// Once polled, it ends even if the future is dropped, unless the request still waits for its turn.
    pub async fn stop(&self) {
        let pid = self.pid();
        let Some(commands) = self.node.supervisors().get(&pid) else {
            return;
        };
        // An error: it is ending.
        let _ = commands.send(Command::Stop(Term::atom("shutdown"))).await;
        self.node.wait_for_end(&pid).await;
    }

    async fn started(
        &self,
        command: impl FnOnce(oneshot::Sender<Outcome>) -> Command,
    ) -> Result<Pid, ChildError> {
        // A child that was started has a process.
        self.ask(command).await??.ok_or(ChildError::Ended)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ChildError> {
        let commands = self.node.supervisors().get(&self.pid());
        let (answer, answered) = oneshot::channel();
        commands
            .ok_or(ChildError::Ended)?
            .send(command(answer))
            .await
            .map_err(|_| ChildError::Ended)?;
        answered.await.map_err(|_| ChildError::Ended)
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorRef")
            .field("pid", &self.pid())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A child of a supervisor.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildInfo {
    /// What it is called.
    pub id: Term,
    /// Whether it runs.
    pub status: ChildStatus,
    /// Whether it is a supervisor.
    pub kind: ChildKind,
}

/// Whether a child runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildStatus {
    /// It does, or is being started, as this process.
    Running(Pid),
    /// It does not, and will be started again.
    Restarting,
    /// It does not: it was terminated, or has done its work.
    Down,
}

/// How many children a supervisor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCounts {
    /// All, running or not.
    pub specs: usize,
    /// Those that run.
    pub active: usize,
    /// Those that are supervisors, running or not.
    pub supervisors: usize,
    /// Those that are not, running or not.
    pub workers: usize,
}

/// Why a supervisor did not do what it was asked to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChildError {
    /// A child of this id runs, as this process.
    AlreadyStarted(Pid),
    /// A child of this id is there, and does not run: restart or delete it.
    AlreadyPresent,
    /// It runs: terminate it first.
    Running,
    /// It is about to be started again.
    Restarting,
    /// There is no child of this id.
    NotFound,
    /// It ended before it was ready, for this reason.
    Start(Term),
    /// The supervisor has ended, or is ending.
    Ended,
}

impl ChildError {
    /// The reason as OTP gives it.
    pub(super) fn reason(&self) -> Term {
        match self {
            Self::AlreadyStarted(pid) => already_started(pid),
            Self::AlreadyPresent => Term::atom("already_present"),
            Self::Running => Term::atom("running"),
            Self::Restarting => Term::atom("restarting"),
            Self::NotFound => Term::atom("not_found"),
            Self::Start(reason) => reason.clone(),
            Self::Ended => Term::atom("noproc"),
        }
    }
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted(pid) => write!(f, "a child of this id runs as {pid:?}"),
            Self::AlreadyPresent => {
                f.write_str("a child of this id is there and does not run: restart or delete it")
            }
            Self::Running => f.write_str("the child runs: terminate it first"),
            Self::Restarting => f.write_str("the child is about to be started again"),
            Self::NotFound => f.write_str("the supervisor has no child of this id"),
            Self::Start(reason) => write!(f, "the child ended before it was ready: {reason}"),
            Self::Ended => f.write_str("the supervisor has ended"),
        }
    }
}

impl std::error::Error for ChildError {}
