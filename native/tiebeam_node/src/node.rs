//! A node: its start, its end, and what a Rust program does with it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use serde::Serialize;
use tiebeam_wire::control::Control;
use tiebeam_wire::handshake::NameError;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::connection::{Connection, ConnectionConfig, Reason};
use crate::discovery::{self, Discovering, Discovery, Search};
use crate::error::{CallError, RpcError, SendError, SpawnError};
use crate::function::{Args, Exception, FunctionKey, caught};
use crate::kernel::{self, global, global::Global};
use crate::message::{FromTerm, VersionMismatch};
use crate::process::entry::Entry;
use crate::process::mailbox::{Item, Mailbox};
use crate::process::{Destination, Process, ThreadProcess};
pub(crate) use crate::router::Outcome;
use crate::router::{Router, SpawnOptions};
use crate::supervisor::Directory;
use crate::transport::{
    ConnectError, ConnectionId, Established, Hub, StartError, Stream, Transport,
};
use crate::typed;

/// How long a connection may take to write what waits, when the node stops.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The first and the longest pause between attempts to reach a node that shall stay connected.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// A node of an Erlang cluster. A handle: clones are the same node, which runs until [`Node::stop`].
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// A handle that does not keep the node alive: for functions that the node itself holds.
#[derive(Clone)]
pub struct WeakNode(Weak<Inner>);

impl WeakNode {
    /// The node, while it is there.
    pub fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

struct Inner {
    router: Arc<Router>,
    /// Where its tasks run: what a plain thread does may start one.
    runtime: Handle,
    /// Set before anything can come in.
    global: OnceLock<Arc<global::Shared>>,
    /// Set as the last step of the start.
    transport: OnceLock<Transport>,
    /// Keeps up connections that shall last.
    keepers: RwLock<Vec<JoinHandle<()>>>,
    stopped: watch::Sender<bool>,
    pg: kernel::pg::Scopes,
    supervisors: Directory,
}

/// A connection came up or went down.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent {
    /// A node is connected.
    Up {
        /// Its name.
        node: Atom,
        /// Whether both sides see it in `nodes()`.
        visible: bool,
    },
    /// A node is not connected any more. All exits and downs that this causes were delivered before.
    Down {
        /// Its name.
        node: Atom,
        /// Whether both sides saw it in `nodes()`.
        visible: bool,
        /// Why, as `net_kernel` names it: `connection_closed`, `net_tick_timeout`, `disconnect`.
        reason: Term,
    },
}

/// What happens to connections, in order. Events wait until they are read, but not more than 10,000.
#[derive(Debug)]
pub struct NodeEvents(mpsc::Receiver<NodeEvent>);

impl NodeEvents {
    /// The next event; `None` when the node has stopped, or 10,000 events were not read: then subscribe again and
    /// compare with [`Node::nodes`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<NodeEvent> {
        self.0.recv().await
    }
}

impl Node {
    /// Starts a node: listens, registers with epmd (or serves it), and accepts connections from then on. Its tasks run on
    /// the Tokio runtime of the caller.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listening = Transport::start(config.transport()?).await?;
        // The transport has checked its length.
        let name = Atom::new(&config.name).map_err(|_| {
            StartError::Name(NameError::TooLong {
                length: config.name.len(),
            })
        })?;
        let router = Router::new(
            name,
            listening.creation(),
            config.hidden,
            config.limits.clone(),
            rand::random(),
        );
        let node = Self(Arc::new(Inner {
            router,
            runtime: Handle::current(),
            global: OnceLock::new(),
            transport: OnceLock::new(),
            keepers: RwLock::default(),
            stopped: watch::Sender::new(false),
            pg: kernel::pg::Scopes::default(),
            supervisors: Directory::default(),
        }));
        node.install();
        kernel::start(&node);
        let _ = node.0.global.set(global::start(&node, config.global()));
        let hub = NodeHub {
            node: node.downgrade(),
            net_ticktime: config.net_ticktime,
            connection: ConnectionConfig {
                send_buffer: config.limits.send_buffer,
                send_queue: config.limits.send_queue,
            },
            running: Arc::default(),
        };
        // From here on connections come up.
        let transport = listening.open(Arc::new(hub));
        let _ = node.0.transport.set(transport);
        info!(node = %node.name(), port = node.port(), creation = node.creation(), "the node is up");
        Ok(node)
    }

    /// Gives the router what it needs of the node.
    fn install(&self) {
        let weak = Arc::downgrade(&self.0);
        self.router().set_dial(Box::new(move |peer| {
            let Some(inner) = weak.upgrade() else { return };
            let node = Self(inner);
            let runtime = node.0.runtime.clone();
            runtime.spawn(async move {
                if let Err(error) = node.transport().connect(peer.as_str()).await {
                    debug!(%peer, "cannot connect: {error}");
                    node.router().connect_failed(&peer);
                }
            });
        }));
        let weak = Arc::downgrade(&self.0);
        self.router()
            .set_starter(Box::new(move |entry, receiver, module, function, args| {
                if let Some(inner) = weak.upgrade() {
                    Self(inner).start_function(entry, receiver, module, function, args);
                }
            }));
    }

    /// A handle that does not keep the node alive.
    pub fn downgrade(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.0))
    }

    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.0.router
    }

    pub(crate) fn pg_scopes(&self) -> &kernel::pg::Scopes {
        &self.0.pg
    }

    pub(crate) fn supervisors(&self) -> &Directory {
        &self.0.supervisors
    }

    /// A connection may come up a moment before the start is over.
    fn transport(&self) -> &Transport {
        self.0.transport.wait()
    }

    /// The node's name, `alive@host`.
    pub fn name(&self) -> &Atom {
        self.router().name()
    }

    /// Which incarnation of its name this is.
    pub fn creation(&self) -> u32 {
        self.router().creation()
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.transport().port()
    }

    /// Whether it connects hidden.
    pub fn is_hidden(&self) -> bool {
        self.router().hidden()
    }

    // ---- connections

    /// Connects to a node, or does nothing if it is connected.
    ///
    /// # Cancel safety
    /// Dropping the future leaves an attempt that others wait for running.
    pub async fn connect(&self, node: &str) -> Result<(), ConnectError> {
        // One that is being closed is as good as none; what it leaves behind goes first.
        let closing = Atom::new(node)
            .ok()
            .and_then(|node| self.router().connection(&node))
            .filter(|connection| connection.is_closing());
        if let Some(closing) = closing {
            closing.ended().await;
        }
        self.transport().connect(node).await.map(drop)
    }

    /// Keeps a connection to these nodes: connects now, and after a loss again, with growing pauses of
    /// 250 ms to 10 s. A node that is not there yet is waited for.
    pub fn keep_connected(&self, nodes: impl IntoIterator<Item = impl Into<String>>) {
        let mut keepers = self
            .0
            .keepers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Under the lock, which the stop takes too: no keeper outlives the node.
        if self.router().is_stopping() {
            return;
        }
        for peer in nodes {
            let keeper = keep_connected(self.clone(), peer.into());
            keepers.push(self.0.runtime.spawn(keeper));
        }
    }

    /// Looks for nodes, and connects to those that it finds, until the answer is dropped or the node stops: see
    /// [`discovery`](crate::discovery).
    pub fn discover<D: Discovery>(&self, search: impl Into<Search<D>>) -> Discovering {
        let mut keepers = self
            .0
            .keepers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Under the lock, which the stop takes too: no search outlives the node.
        if self.router().is_stopping() {
            return Discovering::new(None);
        }
        let task = discovery::run(self.clone(), search.into());
        let task = self.0.runtime.spawn(task);
        let discovering = Discovering::new(Some(task.abort_handle()));
        // Those that were dropped.
        keepers.retain(|keeper| !keeper.is_finished());
        keepers.push(task);
        discovering
    }

    /// The name before the `@`.
    #[cfg(feature = "discovery")]
    pub(crate) fn alive(&self) -> &str {
        let name = self.name().as_str();
        name.split_once('@').map_or(name, |(alive, _host)| alive)
    }

    /// The port of epmd, on this host and on others.
    pub(crate) fn epmd_port(&self) -> u16 {
        self.transport().epmd_port()
    }

    /// Closes the connection to a node. False if there is none.
    pub fn disconnect(&self, node: &str) -> bool {
        let connection = Atom::new(node)
            .ok()
            .and_then(|node| self.router().connection(&node));
        match connection {
            Some(connection) => {
                connection.close(Reason::Disconnect);
                true
            }
            None => false,
        }
    }

    /// The visible nodes that are connected, as `nodes()` on a BEAM.
    pub fn nodes(&self) -> Vec<Atom> {
        self.nodes_where(|connection| connection.visible)
    }

    /// The hidden nodes that are connected, as `nodes(hidden)` on a BEAM.
    pub fn hidden_nodes(&self) -> Vec<Atom> {
        self.nodes_where(|connection| !connection.visible)
    }

    fn nodes_where(&self, test: impl Fn(&Connection) -> bool) -> Vec<Atom> {
        let mut nodes: Vec<Atom> = self
            .router()
            .connections()
            .iter()
            .filter(|connection| test(connection) && !connection.is_closing())
            .map(|connection| connection.peer.clone())
            .collect();
        nodes.sort();
        nodes
    }

    /// From now on tells of connections that come up and go down.
    pub fn monitor_nodes(&self) -> NodeEvents {
        NodeEvents(self.router().subscribe())
    }

    /// The bytes that wait to be written to a node, if it is connected.
    pub fn queued_bytes(&self, node: &str) -> Option<usize> {
        let connection = self.router().connection(&Atom::new(node).ok()?)?;
        Some(connection.queued())
    }

    /// Asks a node's `net_kernel` whether it takes us for one of the cluster, as `net_adm:ping/1`. The time that the
    /// answer took, the connection not included.
    pub async fn ping(&self, node: &str, timeout: Duration) -> Result<Duration, CallError> {
        if node != self.name().as_str() {
            match tokio::time::timeout(timeout, self.connect(node)).await {
                Ok(connected) => connected.map_err(CallError::Connect)?,
                Err(_) => return Err(CallError::Timeout(timeout)),
            }
        }
        let start = Instant::now();
        let request = Term::tuple([Term::atom("is_auth"), Term::from(self.name().clone())]);
        let reply = self
            .call_term(("net_kernel", node), request, timeout)
            .await?;
        match reply {
            Term::Atom(yes) if yes == "yes" => Ok(start.elapsed()),
            reply => Err(CallError::Reply {
                reply,
                reason: "a ping is answered with yes".to_owned(),
            }),
        }
    }

    /// Leaves the cluster: stops to accept and to dial, writes what waits (for at most a second), closes all
    /// connections at once, and ends all processes with the reason `shutdown`. The second time it only waits for the end
    /// of the first.
    ///
    /// # Cancel safety
    /// Once polled, the node stops even if the future is dropped.
    pub async fn stop(&self) {
        let mut stopped = self.0.stopped.subscribe();
        if self.router().begin_stop() {
            let node = self.clone();
            self.0.runtime.spawn(async move {
                let leaving = node.clone();
                if let Err(error) = tokio::spawn(async move { leaving.leave().await }).await {
                    error!(node = %node.name(), "the node did not stop in order: {error}");
                }
                node.0.stopped.send_replace(true);
            });
        }
        // The sender lives as long as self.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    async fn leave(&self) {
        for keeper in self
            .0
            .keepers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            keeper.abort();
        }
        self.transport().shutdown().await;
        let connections = self.router().connections();
        let deadline = Instant::now() + FLUSH_TIME;
        for connection in &connections {
            let _ = timeout_at(deadline, connection.flushed()).await;
        }
        // All at once: a node that goes link by link looks like a partition to the others.
        for connection in &connections {
            connection.close(Reason::Disconnect);
        }
        for connection in &connections {
            connection.ended().await;
        }
        self.router().end_all();
        info!(node = %self.name(), "the node has stopped");
    }

    /// The names and locks of the whole cluster, shared with `:global` on BEAM nodes.
    pub fn global(&self) -> Global {
        Global::new(self.clone())
    }

    /// A service that starts before `global` may be called before it is there.
    pub(crate) fn global_shared(&self) -> &Arc<global::Shared> {
        self.0.global.wait()
    }

    // ---- processes

    /// A new process with this name on this node.
    pub fn spawn(&self, name: &str) -> Result<Process, SpawnError> {
        let process = self.spawn_anonymous()?;
        process.register(name)?;
        Ok(process)
    }

    /// A new process without a name.
    pub fn spawn_anonymous(&self) -> Result<Process, SpawnError> {
        let (entry, receiver) = self.router().new_task_process()?;
        Ok(Process::new(self.clone(), entry, receiver, false))
    }

    /// A new process that a plain thread reads.
    pub fn spawn_thread_process(&self) -> Result<ThreadProcess, SpawnError> {
        let (mailbox, receiver) = Mailbox::thread(self.router().limits().mailbox);
        let entry = self
            .router()
            .add_process(mailbox, self.router().group_leader())?;
        Ok(ThreadProcess::new(self.clone(), entry, receiver))
    }

    /// Runs a process to its end in a task: it ends when the future does, for the reason that the future gives
    /// (`Ok` is `normal`), and the task ends when the process is killed. A panic is the reason `{panic, Text}`.
    pub fn run<F>(&self, mut process: Process, body: impl FnOnce(Process) -> F) -> Pid
    where
        F: Future<Output = Result<(), Term>> + Send + 'static,
    {
        let entry = Arc::clone(process.entry());
        let pid = entry.pid.clone();
        process.set_managed();
        let future = body(process);
        self.run_entry(entry, async move {
            match future.await {
                Ok(()) => Term::atom("normal"),
                Err(reason) => reason,
            }
        });
        pid
    }

    /// Runs the future that is a process, and ends the process with the reason that it gives.
    fn run_entry(&self, entry: Arc<Entry>, future: impl Future<Output = Term> + Send + 'static) {
        let router = Arc::clone(self.router());
        let of_task = Arc::clone(&entry);
        let task = self.0.runtime.spawn(async move {
            let reason = caught(future).await.unwrap_or_else(|panic| panic);
            router.exit(&of_task, reason);
        });
        let mut state = entry.state();
        if state.exited.is_some() {
            task.abort();
        } else {
            state.abort = Some(task.abort_handle());
        }
    }

    /// The process with this name on this node.
    pub fn whereis(&self, name: &str) -> Option<Pid> {
        let entry = self.router().whereis(&Atom::new(name).ok()?)?;
        Some(entry.pid.clone())
    }

    /// Takes a name from its process. False if nobody has it.
    pub fn unregister(&self, name: &str) -> bool {
        Atom::new(name).is_ok_and(|name| self.router().unregister(&name))
    }

    /// The names of processes on this node.
    pub fn registered(&self) -> Vec<Atom> {
        self.router().registered()
    }

    /// The processes of this node.
    pub fn processes(&self) -> Vec<Pid> {
        self.router().processes()
    }

    /// Whether a process of this node lives.
    pub fn is_process_alive(&self, pid: &Pid) -> bool {
        self.router().is_alive(pid)
    }

    /// Waits until a process ends: the reason, which is `noproc` if it has ended before, and `noconnection` if its node
    /// cannot be reached any more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_for_end(&self, pid: &Pid) -> Term {
        let router = self.router();
        let question = self.ask(pid.node.clone());
        let reference = question.reference.clone();
        router.monitor_as(router.caller_entry(), pid.into(), reference);
        match question.outcome().await {
            Some(Outcome::Down(reason)) => reason,
            // No other answer comes to a monitor; there is none at all when this node ends.
            Some(Outcome::Reply(_) | Outcome::Refused(_)) | None => Term::atom("noproc"),
        }
    }

    /// How many signals wait in the mailbox of a process of this node.
    pub fn mailbox_len(&self, pid: &Pid) -> Option<usize> {
        Some(self.router().process(pid)?.mailbox.len())
    }

    /// The process that does the output of what this node starts elsewhere.
    pub fn group_leader(&self) -> Pid {
        self.router().group_leader()
    }

    /// A new reference, unique in the cluster.
    pub fn make_reference(&self) -> Reference {
        self.router().make_reference()
    }

    // ---- messages and calls

    /// Sends a message. Never blocks; see [`Process::send`].
    pub fn send(
        &self,
        to: impl Into<Destination>,
        message: impl Into<Term>,
    ) -> Result<(), SendError> {
        let router = self.router();
        router.send(
            router.caller_entry(),
            router.caller(),
            to.into(),
            message.into(),
        )
    }

    /// Sends a message once the peer has room for it; see [`Process::send_paced`].
    pub async fn send_paced(
        &self,
        to: impl Into<Destination>,
        message: impl Into<Term>,
    ) -> Result<(), SendError> {
        let to = to.into();
        self.router().room(&to).await;
        self.send(to, message)
    }

    /// Sends an exit signal to a process, as `exit/2`.
    pub fn send_exit(&self, to: &Pid, reason: impl Into<Term>) {
        self.router()
            .exit2(self.router().caller(), to, reason.into());
    }

    /// Sends a request that has no reply, as `GenServer.cast`.
    pub fn cast<T: Serialize + ?Sized>(
        &self,
        to: impl Into<Destination>,
        message: &T,
    ) -> Result<(), SendError> {
        let message =
            typed::to_term(message).map_err(|error| SendError::Encode(error.to_string()))?;
        self.cast_term(to, message)
    }

    /// As [`Node::cast`], with a term.
    pub fn cast_term(&self, to: impl Into<Destination>, message: Term) -> Result<(), SendError> {
        self.send(to, Term::tuple([Term::atom("$gen_cast"), message]))
    }

    /// Asks a server, as `GenServer.call`, and waits for its reply at most this long, the time to connect included.
    /// Request and reply are plain values, or [`Versioned`](crate::Versioned) ones.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reply; the request may still be handled.
    pub async fn call<R, T>(
        &self,
        to: impl Into<Destination>,
        request: &R,
        timeout: Duration,
    ) -> Result<T, CallError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        self.call_of(self.router().caller_entry(), to.into(), request, timeout)
            .await
    }

    /// A call of this process.
    pub(crate) async fn call_of<R, T>(
        &self,
        process: &Arc<Entry>,
        to: Destination,
        request: &R,
        timeout: Duration,
    ) -> Result<T, CallError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        let request =
            typed::to_term(request).map_err(|error| SendError::Encode(error.to_string()))?;
        let reply = self.call_term_of(process, to, request, timeout).await?;
        Self::read_reply(reply)
    }

    /// As [`Node::call`], with terms.
    pub async fn call_term(
        &self,
        to: impl Into<Destination>,
        request: Term,
        timeout: Duration,
    ) -> Result<Term, CallError> {
        self.call_term_of(self.router().caller_entry(), to.into(), request, timeout)
            .await
    }

    async fn call_term_of(
        &self,
        process: &Arc<Entry>,
        to: Destination,
        request: Term,
        timeout: Duration,
    ) -> Result<Term, CallError> {
        let deadline = Instant::now() + timeout;
        self.reach(&to, deadline, timeout).await?;
        let question = self.pose(process, to, request)?;
        question.reply(deadline, timeout).await
    }

    /// Sends a request; the node of who is asked is this one, or connected.
    pub(crate) fn pose(
        &self,
        process: &Arc<Entry>,
        to: Destination,
        request: Term,
    ) -> Result<Question, CallError> {
        let router = self.router();
        let question = self.ask(self.node_of(&to));
        router.monitor_as(
            router.caller_entry(),
            to.clone(),
            question.reference.clone(),
        );
        // The tag is an alias: a reply that comes too late is dropped, not kept.
        let tag = Term::Improper(Box::new(tiebeam_wire::Improper {
            elements: vec![Term::atom("alias")],
            tail: Term::from(&question.reference),
        }));
        let from = Term::tuple([Term::from(router.caller()), tag]);
        match router.send(
            process,
            router.caller(),
            to,
            Term::tuple([Term::atom("$gen_call"), from, request]),
        ) {
            Ok(()) => Ok(question),
            Err(SendError::NotRegistered(_)) => Err(CallError::NoProcess),
            Err(error) => Err(error.into()),
        }
    }

    fn node_of(&self, to: &Destination) -> Atom {
        match to {
            Destination::Pid(pid) => pid.node.clone(),
            Destination::Name { node, .. } => node.clone(),
            Destination::Alias(alias) => alias.node().clone(),
            Destination::Local(_) => self.name().clone(),
        }
    }

    /// The value that a reply is.
    pub(crate) fn read_reply<T: FromTerm>(reply: Term) -> Result<T, CallError> {
        if let Some(mismatch) = VersionMismatch::of_reply(&reply) {
            return Err(CallError::Version(mismatch));
        }
        T::from_term(&reply).map_err(|error| CallError::Reply {
            reply,
            reason: error.to_string(),
        })
    }

    /// Connects to the node of a destination, unless it is this one.
    async fn reach(
        &self,
        to: &Destination,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let node = self.node_of(to);
        let usable = |connection: Arc<Connection>| !connection.is_closing();
        if node != *self.name() && !self.router().connection(&node).is_some_and(usable) {
            timeout_at(deadline, self.connect(node.as_str()))
                .await
                .map_err(|_| CallError::Timeout(timeout))?
                .map_err(CallError::Connect)?;
        }
        Ok(())
    }

    fn ask(&self, node: Atom) -> Question {
        let reference = self.router().make_reference();
        let answer = self.router().wait(reference.clone());
        Question {
            router: Arc::clone(self.router()),
            reference,
            answer,
            node,
        }
    }

    // ---- functions

    /// Makes a Rust function callable from other nodes: `:rpc.call(node, :module, :function, args)`, `:erpc`, and
    /// `spawn`. Replaces an earlier one with the same name and arity. The function runs in a task of its own, as a
    /// process that ends with it.
    ///
    /// # Panics
    /// When a name has more than 255 characters.
    pub fn export<F, Fut, T>(&self, module: &str, function: &str, arity: usize, body: F)
    where
        F: Fn(Args) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Exception>> + Send + 'static,
        T: Serialize,
    {
        self.export_process(module, function, arity, move |process, args| {
            let running = body(args);
            async move {
                let value = running.await?;
                drop(process);
                typed::to_term(&value).map_err(|error| Exception::error(error.to_string()))
            }
        });
    }

    /// As [`Node::export`], for a function that also is a process: it receives what is sent to it. The process ends when
    /// the function does.
    ///
    /// # Panics
    /// When a name has more than 255 characters.
    pub fn export_process<F, Fut>(&self, module: &str, function: &str, arity: usize, body: F)
    where
        F: Fn(Process, Args) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Term, Exception>> + Send + 'static,
    {
        let key = function_key(module, function, arity);
        let function = move |process: Process, args: Vec<Term>| -> crate::function::Running {
            Box::pin(body(process, Args(args)))
        };
        self.router().export(key, Arc::new(function));
    }

    /// Runs an exported function in this process.
    pub(crate) async fn apply(
        &self,
        process: Process,
        module: Atom,
        function: Atom,
        args: Vec<Term>,
    ) -> Result<Term, Exception> {
        let key = (module, function, args.len());
        match self.router().function(&key) {
            Some(function) => function(process, args).await,
            None => Err(Exception::undef(&key.0, &key.1, &args)),
        }
    }

    /// Runs an exported function in a process of its own, and gives what it returns.
    pub(crate) async fn evaluate(
        &self,
        call: kernel::Mfa,
        group_leader: Option<Pid>,
    ) -> Result<Term, Exception> {
        let (entry, receiver) = self
            .router()
            .new_task_process()
            .map_err(|error| Exception::error(error.to_string()))?;
        if let Some(group_leader) = group_leader {
            entry.state().group_leader = group_leader;
        }
        let kernel::Mfa {
            module,
            function,
            args,
        } = call;
        let process = Process::new(self.clone(), Arc::clone(&entry), receiver, true);
        let node = self.clone();
        let (sender, result) = oneshot::channel();
        self.run_entry(Arc::clone(&entry), async move {
            let result = match caught(node.apply(process, module, function, args)).await {
                Ok(result) => result,
                Err(panic) => Err(Exception::Exit(panic)),
            };
            let reason = match &result {
                Ok(_) => Term::atom("normal"),
                Err(exception) => exception.clone().exit_reason(),
            };
            // Whoever asked may be gone.
            let _ = sender.send(result);
            reason
        });
        match result.await {
            Ok(result) => result,
            // An exit signal ended the process before the function was done.
            Err(_) => {
                let reason = entry.state().exited.clone();
                Err(Exception::Exit(
                    reason.unwrap_or_else(|| Term::atom("killed")),
                ))
            }
        }
    }

    fn start_function(
        &self,
        entry: Arc<Entry>,
        receiver: mpsc::UnboundedReceiver<Item>,
        module: Atom,
        function: Atom,
        args: Term,
    ) {
        let node = self.clone();
        let process = Process::new(self.clone(), Arc::clone(&entry), receiver, true);
        self.run_entry(entry, async move {
            let Term::List(args) = args else {
                return Exception::error(Term::atom("badarg")).exit_reason();
            };
            let pid = process.pid().clone();
            match node
                .apply(process, module.clone(), function.clone(), args)
                .await
            {
                Ok(_) => Term::atom("normal"),
                Err(exception) => {
                    if let Exception::Error { reason, .. } = &exception {
                        warn!(?pid, "{module}:{function} failed: {reason}");
                    }
                    exception.exit_reason()
                }
            }
        });
    }

    /// Calls a function of another node (or of this one) and waits for its value, as `erpc:call/5`.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the value; the function goes on.
    pub async fn rpc(
        &self,
        node: &str,
        module: &str,
        function: &str,
        args: Vec<Term>,
        timeout: Duration,
    ) -> Result<Term, RpcError> {
        let name = |text: &str| {
            Atom::new(text).map_err(|e| CallError::Send(SendError::Encode(e.to_string())))
        };
        let (node, module, function) = (name(node)?, name(module)?, name(function)?);
        let deadline = Instant::now() + timeout;
        let to = Destination::Name {
            name: Atom::of("rex"),
            node: node.clone(),
        };
        self.reach(&to, deadline, timeout).await?;
        let router = self.router();
        let question = self.ask(node.clone());
        drop(router.spawn_asked(&question.reference, node.clone(), router.caller_entry()));
        let result = router.make_reference();
        let control = Control::SpawnRequest {
            reference: question.reference.clone(),
            from: router.caller().clone(),
            group_leader: router.group_leader(),
            module: Atom::of("erpc"),
            function: Atom::of("execute_call"),
            arity: 4,
            options: Term::list([Term::atom("monitor")]),
        };
        let args = Term::list([
            Term::from(&result),
            Term::from(module),
            Term::from(function),
            Term::List(args),
        ]);
        router.route(node.clone(), control, Some(args));
        let reason = match question.answer(deadline, timeout).await? {
            Outcome::Down(reason) => reason,
            Outcome::Refused(reason) if reason == "noconnection" => {
                return Err(CallError::NodeDown(node).into());
            }
            Outcome::Refused(reason) => return Err(RpcError::Refused(reason.into())),
            Outcome::Reply(reply) => reply,
        };
        rpc_result(reason, &result, node)
    }

    pub(crate) async fn spawn_from(
        &self,
        parent: &Arc<Entry>,
        node: &str,
        (module, function): (&str, &str),
        args: Vec<Term>,
        options: SpawnOptions,
    ) -> Result<(Pid, Option<Reference>), SpawnError> {
        let name =
            |text: &str| Atom::new(text).map_err(|error| SpawnError::Invalid(error.to_string()));
        let (node, module, function) = (name(node)?, name(module)?, name(function)?);
        let router = self.router();
        let reference = router.make_reference();
        let mut wanted = Vec::new();
        if options.link {
            wanted.push(Term::atom("link"));
        }
        if options.monitor {
            wanted.push(Term::atom("monitor"));
        }
        let answer = router.spawn_asked(&reference, node.clone(), parent);
        let control = Control::SpawnRequest {
            reference: reference.clone(),
            from: parent.pid.clone(),
            group_leader: parent.state().group_leader.clone(),
            module,
            function,
            arity: args.len() as i64,
            options: Term::List(wanted),
        };
        router.route(node.clone(), control, Some(Term::List(args)));
        match answer.await {
            Ok(Ok(child)) => Ok((child, options.monitor.then_some(reference))),
            Ok(Err(reason)) if reason == "noconnection" => Err(CallError::NodeDown(node).into()),
            Ok(Err(reason)) => Err(SpawnError::Refused(reason)),
            // The parent was killed meanwhile: the child is told, and nobody else.
            Err(_) => Err(SpawnError::Refused(Atom::of("noproc"))),
        }
    }
}

fn function_key(module: &str, function: &str, arity: usize) -> FunctionKey {
    let atom = |text| Atom::new(text).expect("a function's name has at most 255 characters");
    (atom(module), atom(function), arity)
}

/// A question of this node that waits for its answer. Dropping it gives the answer up.
pub(crate) struct Question {
    router: Arc<Router>,
    reference: Reference,
    answer: oneshot::Receiver<Outcome>,
    /// Who was asked.
    node: Atom,
}

impl Question {
    async fn answer(mut self, deadline: Instant, timeout: Duration) -> Result<Outcome, CallError> {
        match timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(outcome)) => Ok(outcome),
            // The sender lives in a table of the router until it is used, or the node ends.
            Ok(Err(_)) => Err(CallError::Send(SendError::Stopping)),
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// Waits for what comes of it, however long that takes; `None` when this node ends before.
    pub(crate) async fn outcome(mut self) -> Option<Outcome> {
        (&mut self.answer).await.ok()
    }

    /// The reply to a call.
    pub(crate) async fn reply(
        self,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Term, CallError> {
        let node = self.node.clone();
        match self.answer(deadline, timeout).await? {
            Outcome::Reply(reply) => Ok(reply),
            Outcome::Down(reason) => Err(down_error(reason, node)),
            Outcome::Refused(reason) => Err(CallError::Exit(reason.into())),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.router.forget(&self.reference);
        self.router.spawn_forgotten(&self.reference);
        self.router
            .demonitor(self.router.caller_entry(), &self.reference);
    }
}

fn down_error(reason: Term, node: Atom) -> CallError {
    match reason.as_atom().map(Atom::as_str) {
        Some("noproc") => CallError::NoProcess,
        Some("noconnection") => CallError::NodeDown(node),
        _ => CallError::Exit(reason),
    }
}

/// What the exit reason of `erpc:execute_call/4` says.
fn rpc_result(reason: Term, result: &Reference, node: Atom) -> Result<Term, RpcError> {
    let elements = match reason {
        Term::Tuple(elements) if elements.first().and_then(Term::as_reference) == Some(result) => {
            elements
        }
        reason if reason.is_atom("noconnection") => return Err(CallError::NodeDown(node).into()),
        reason => return Err(CallError::Exit(reason).into()),
    };
    let class = elements
        .get(1)
        .and_then(Term::as_atom)
        .map(|class| class.as_str().to_owned());
    let mut values = elements.into_iter().skip(2);
    let mut next = || values.next().unwrap_or_else(|| Term::atom("undefined"));
    match class.as_deref() {
        Some("return") => Ok(next()),
        Some("throw") => Err(RpcError::Throw(next())),
        Some("exit") => Err(RpcError::Exit(next())),
        _ => match next() {
            Term::Tuple(mut refused) if refused.len() == 2 && refused[0].is_atom("erpc") => {
                Err(RpcError::Refused(refused.swap_remove(1)))
            }
            reason => Err(RpcError::Error {
                reason,
                stack: next(),
            }),
        },
    }
}

async fn keep_connected(node: Node, peer: String) {
    let mut pause = RECONNECT_FIRST;
    // Why it is not connected, as the log says already.
    let mut told = None;
    loop {
        // Before the attempt, so that a loss right after it is seen; none while nobody reads.
        let mut events = node.monitor_nodes();
        match node.connect(&peer).await {
            Ok(()) => {
                pause = RECONNECT_FIRST;
                told = None;
                loop {
                    match events.recv().await {
                        Some(NodeEvent::Down { node: down, .. }) if down == peer.as_str() => break,
                        Some(_) => {}
                        None => break,
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if told.as_ref() != Some(&reason) {
                    warn!(peer, "cannot connect, trying again: {reason}");
                    told = Some(reason);
                }
            }
        }
        // Between half the pause and all of it, so that nodes that lost one another do not dial in step.
        let jitter = rand::random_range(0.5..=1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Takes what the transport has set up.
struct NodeHub {
    node: WeakNode,
    net_ticktime: Duration,
    connection: ConnectionConfig,
    /// Connections until everybody knows of their end: longer than the router knows them.
    running: Arc<Mutex<HashMap<ConnectionId, Arc<Connection>>>>,
}

impl Hub for NodeHub {
    async fn up(&self, established: Established) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        let Established {
            id,
            peer,
            peer_flags,
            flags,
            peer_creation,
            visible,
            stream,
            leftover,
            dialled,
        } = established;
        let Ok(peer) = Atom::new(&peer) else {
            // The handshake has checked the length of the name.
            return node.transport().down(&peer, id);
        };
        let connection = Connection::new(id, peer, peer_creation, visible, flags, &self.connection);
        lock(&self.running).insert(id, Arc::clone(&connection));
        node.router().node_up(&connection);
        debug!(peer = %connection.peer, visible, dialled, offered = ?peer_flags, "connected");
        let net_ticktime = self.net_ticktime;
        let router = Arc::clone(node.router());
        let run = Arc::clone(&connection);
        let run = async move {
            match stream {
                Stream::Tcp(stream) => {
                    let (reader, writer) = stream.into_split();
                    run.run(reader, writer, &leftover, net_ticktime, router)
                        .await
                }
                Stream::Tls(stream) => {
                    let (reader, writer) = tokio::io::split(stream);
                    run.run(reader, writer, &leftover, net_ticktime, router)
                        .await
                }
            }
        };
        let running = Arc::clone(&self.running);
        tokio::spawn(async move {
            // A panic costs the connection, not its slot: the steps below are done whatever happens.
            let reason = tokio::spawn(run).await.unwrap_or_else(|error| {
                error!(peer = %connection.peer, "a connection failed: {error}");
                Reason::Io(error.to_string())
            });
            connection.close(reason.clone());
            debug!(peer = %connection.peer, ?reason, "disconnected");
            let (peer, id) = (connection.peer.as_str(), connection.id);
            node.transport().closing(peer, id);
            let told = catch_unwind(AssertUnwindSafe(|| {
                node.router().node_down(&connection, &reason);
            }));
            if told.is_err() {
                error!(peer, "not everybody was told of the loss of a connection");
            }
            node.transport().down(peer, id);
            lock(&running).remove(&id);
            connection.set_ended();
        });
    }

    async fn supersede(&self, _peer: &str, id: ConnectionId) {
        let connection = lock(&self.running).get(&id).map(Arc::clone);
        if let Some(connection) = connection {
            connection.close(Reason::Superseded);
            connection.ended().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that can panic runs under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
