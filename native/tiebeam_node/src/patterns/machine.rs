//! State machines of one's own: a state that all nodes of a cluster have, for each applies the same commands in the same order.

mod encoding;
mod log;
mod replica;
mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebeam_wire::{Pid, Term};
use tokio::sync::{mpsc, oneshot};

use crate::cluster::{ClusterHandle, Consistency, LeadershipError};
use crate::typed;
use replica::{Asked, MAX_WAITING, Replica};

/// The most bytes of a command in the external term format: a batch of one fits into a value.
pub const MAX_MACHINE_COMMAND_BYTES: usize = 110 * 1024;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_SNAPSHOT_EVERY: u64 = 1000;

/// A state that all nodes of a cluster have, BEAM or Rust: each applies the same commands in the same order.
///
/// ```no_run
/// # use std::collections::BTreeMap;
/// use serde::{Deserialize, Serialize};
/// use tiebeam_node::StateMachine;
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counters(BTreeMap<String, i64>);
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Command {
///     Add(String, i64), // {:add, "a", 1} on a BEAM
/// }
///
/// impl StateMachine for Counters {
///     type Command = Command;
///     type Reply = i64;
///
///     fn handle_command(&mut self, Command::Add(name, count): Command) -> i64 {
///         let counter = self.0.entry(name).or_default();
///         *counter += count;
///         *counter
///     }
/// }
///
/// # async fn run(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let counters = cluster.machine::<Counters>("counters").start(Counters::default)?;
/// let now = counters.command(&Command::Add("a".into(), 1)).await?;
/// let here = counters.query(|counters| counters.0.len()).await?;
/// # Ok(())
/// # }
/// ```
///
/// `Tiebeam.StateMachine` is the same on BEAM nodes: with the same name, commands and a state that are the same terms, both kinds of nodes have
/// one machine together.
///
/// # What is promised
///
/// A command that is answered is done once, in one place of one order, and survives the loss of a minority of the voters. After
/// [`LeadershipError::Unknown`] and [`LeadershipError::Ended`] it may be done, or be done later; after any other error it was not. A command that must not be done twice
/// carries a number of yours, and the state remembers those it has seen. Commands that one caller gives one after the other are applied in that order.
///
/// # What is asked of an implementation
///
/// Commands run on every node, and again when a node starts, so [`StateMachine::handle_command`] depends on the command and the state
/// alone: no clock, no random numbers, no order of a hash map. It has no effects elsewhere. What serde makes of the state is all
/// that there is of it: every so many commands the nodes compare digests of that, and one of them keeps it.
///
/// A command that makes it panic, or that is none, ends the machine on all nodes, for all of them do the same; its revision is in the
/// log. Return errors as replies.
pub trait StateMachine: Serialize + DeserializeOwned + Send + 'static {
    /// What can be done.
    type Command: Serialize + DeserializeOwned + Send;

    /// What its caller is told. Other nodes drop it.
    type Reply: Serialize + Send;

    /// Does a command.
    fn handle_command(&mut self, command: Self::Command) -> Self::Reply;

    /// Answers a question of a BEAM process, as `Tiebeam.StateMachine.query/3` with the name of [`Machine::process`] and this node asks
    /// it. `None`: there is no such question. Rust asks with [`MachineHandle::query`].
    fn handle_query(&self, query: &Term) -> Option<Term> {
        let _ = query;
        None
    }
}

/// A machine that is about to be started on this node; see [`StateMachine`].
pub struct Machine<M> {
    cluster: ClusterHandle,
    name: String,
    every: u64,
    process: Option<String>,
    of: std::marker::PhantomData<fn() -> M>,
}

impl ClusterHandle {
    /// A machine of the cluster. Its name is that of all nodes: 1 to 255 bytes without `/`. Needs
    /// [`ClusterConfig::voters`](crate::ClusterConfig::voters).
    pub fn machine<M: StateMachine>(&self, name: impl Into<String>) -> Machine<M> {
        Machine {
            cluster: self.clone(),
            name: name.into(),
            every: DEFAULT_SNAPSHOT_EVERY,
            process: None,
            of: std::marker::PhantomData,
        }
    }
}

impl<M: StateMachine> Machine<M> {
    /// After how many commands there is a snapshot, at least one. The same on all nodes. Default 1,000.
    #[must_use]
    pub fn snapshot_every(mut self, commands: u64) -> Self {
        self.every = commands.max(1);
        self
    }

    /// The registered name of its process: under it BEAM processes give commands to this node's copy.
    #[must_use]
    pub fn process(mut self, name: impl Into<String>) -> Self {
        self.process = Some(name.into());
        self
    }

    /// Starts this node's copy. `init` makes the state before the first command, the same on all nodes.
    ///
    /// # Errors
    /// [`LeadershipError::NoGroup`]; [`LeadershipError::Refused`] for a name that is none, or is taken;
    /// [`LeadershipError::Ended`] if the node has stopped.
    pub fn start(
        &self,
        init: impl Fn() -> M + Send + 'static,
    ) -> Result<MachineHandle<M>, LeadershipError> {
        if !(1..=255).contains(&self.name.len()) || self.name.contains('/') {
            return Err(LeadershipError::Refused(
                "the name of a machine has 1 to 255 bytes, and no slash",
            ));
        }
        if !self.cluster.claims().takes_part() {
            return Err(LeadershipError::NoGroup);
        }
        let node = self.cluster.node();
        let process = match &self.process {
            Some(name) => node.spawn(name).map_err(|_| {
                LeadershipError::Refused("the name of the machine's process is taken, or none")
            })?,
            None => node.spawn_anonymous().map_err(|_| LeadershipError::Ended)?,
        };
        let (requests, asked) = mpsc::channel(MAX_WAITING);
        let replica = Replica::new(
            self.cluster.kv(),
            self.name.clone(),
            self.every,
            Box::new(init),
        );
        let pid = node.run(process, |process| replica.run(process, asked));
        Ok(MachineHandle {
            pid,
            cluster: self.cluster.clone(),
            requests,
            timeout: DEFAULT_TIMEOUT,
        })
    }
}

impl<M> fmt::Debug for Machine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// This node's copy of a machine. Clones are the same; when all of them are dropped it goes on.
pub struct MachineHandle<M: StateMachine> {
    pid: Pid,
    cluster: ClusterHandle,
    requests: mpsc::Sender<Asked<M>>,
    timeout: Duration,
}

impl<M: StateMachine> Clone for MachineHandle<M> {
    fn clone(&self) -> Self {
        Self {
            pid: self.pid.clone(),
            cluster: self.cluster.clone(),
            requests: self.requests.clone(),
            timeout: self.timeout,
        }
    }
}

impl<M: StateMachine> MachineHandle<M> {
    /// The same copy; a call waits so long at most. Default five seconds.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// Its process. It ends with the machine: when a command cannot be done, or the state is another one than the other nodes have.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Has a command done on all nodes. Returns when this one has done it, with its reply.
    ///
    /// # Cancel safety
    /// Once polled, it may be done even if the future is dropped.
    pub async fn command(&self, command: &M::Command) -> Result<M::Reply, LeadershipError> {
        let bytes = tiebeam_wire::value::to_vec(command).map_err(LeadershipError::Value)?;
        let (reply, replied) = oneshot::channel();
        let asked = Asked::command(bytes, self.timeout, replica::Caller::Handle(reply))?;
        self.ask(asked, replied).await
    }

    /// Reads the state of this node, at once: it has at least the commands that were answered here. The closure runs in the process of the
    /// machine, so it should be short.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn query<R: Send + 'static>(
        &self,
        query: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, LeadershipError> {
        self.query_with(Consistency::Local, query).await
    }

    /// Reads the state; with [`Consistency::Linearizable`] it has all commands that were answered anywhere before,
    /// and with [`Consistency::AtLeast`] that revision.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn query_with<R: Send + 'static>(
        &self,
        consistency: Consistency,
        query: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, LeadershipError> {
        let (answer, answered) = oneshot::channel();
        let query = Box::new(move |state: Result<&M, LeadershipError>| {
            // Whoever asked may be gone.
            let _ = answer.send(state.map(query));
        });
        let asked = Asked::Query {
            query,
            consistency,
            timeout: self.timeout,
        };
        self.ask(asked, answered).await
    }

    /// What this node has. It writes the whole state once, for its digest.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn info(&self) -> Result<MachineInfo, LeadershipError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Info(answer), answered).await
    }

    /// Ends this node's copy. The others go on; started again it begins with the latest snapshot.
    ///
    /// # Cancel safety
    /// Once polled, it ends even if the future is dropped.
    pub async fn stop(&self) {
        let node = self.cluster.node();
        node.send_exit(&self.pid, Term::atom("shutdown"));
        node.wait_for_end(&self.pid).await;
        // Its task may still be at work for a moment.
        self.requests.closed().await;
    }

    async fn ask<T>(
        &self,
        asked: Asked<M>,
        answered: oneshot::Receiver<Result<T, LeadershipError>>,
    ) -> Result<T, LeadershipError> {
        self.requests
            .send(asked)
            .await
            .map_err(|_| LeadershipError::Ended)?;
        answered.await.map_err(|_| LeadershipError::Ended)?
    }
}

impl<M: StateMachine> fmt::Debug for MachineHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineHandle")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// What a node has of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineInfo {
    /// That of the last commands that were applied.
    pub revision: u64,
    /// How many commands were applied.
    pub commands: u64,
    /// How many of them are in the latest snapshot.
    pub snapshot: Option<u64>,
    /// The digest of the state: two nodes with the same number of commands have the same.
    pub digest: [u8; 16],
}

impl MachineInfo {
    fn to_term(&self) -> Term {
        let snapshot = self.snapshot.map_or(Term::atom("nil"), Term::from);
        let mut map = tiebeam_wire::Map::new();
        for (key, value) in [
            ("revision", Term::from(self.revision)),
            ("commands", Term::from(self.commands)),
            ("snapshot", snapshot),
            ("digest", Term::binary(self.digest)),
        ] {
            map.insert(Term::atom(key), value);
        }
        Term::from(map)
    }
}

/// What is kept of a state.
fn state_bytes<M: StateMachine>(state: &M) -> Result<Arc<[u8]>, Term> {
    let term = typed::to_term(state).map_err(|error| Term::from(error.to_string()))?;
    Ok(encoding::encode(&term)?.into())
}
