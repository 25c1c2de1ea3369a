//! The process of a scope: the driver of [`Scope`]. Handles and the process step the same machine, under one lock, so that
//! what peers are told leaves in the order in which it happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tracing::{debug, warn};

use super::PgError;
use super::messages::Message;
use super::scope::{Action, Event, MEMBERSHIPS_MAX, Scope};
use super::table::Table;
use crate::connection::{Connection, Reason, Refused, Urgency};
use crate::kernel::notsup;
use crate::node::{Node, NodeEvent};
use crate::process::entry::Entry;
use crate::process::{Process, Signal, Target};
use crate::router::Router;

/// A scope that runs on this node.
#[derive(Debug)]
pub(super) struct Server {
    router: Arc<Router>,
    name: Atom,
    state: Mutex<State>,
    table: RwLock<Table>,
}

#[derive(Debug)]
struct State {
    scope: Scope,
    /// The scope's process.
    process: Arc<Entry>,
    monitors: HashMap<Pid, Reference>,
    /// What is sent to a node goes over this connection, from its [`NodeEvent::Up`] to its [`NodeEvent::Down`], also when
    /// it is lost by then and another one is up: the node on the other end of that knows nothing of what was said before.
    connections: HashMap<Atom, Arc<Connection>>,
    stopped: bool,
}

impl Server {
    /// Runs a scope in this process, which has its name.
    pub(super) fn start(name: Atom, process: Process) -> Arc<Self> {
        let node = process.node().clone();
        let server = Arc::new(Self {
            router: Arc::clone(node.router()),
            name,
            state: Mutex::new(State {
                scope: Scope::new(process.pid().clone()),
                process: Arc::clone(process.entry()),
                monitors: HashMap::new(),
                connections: HashMap::new(),
                stopped: false,
            }),
            table: RwLock::new(Table::new()),
        });
        server.discover(&process);
        tokio::spawn(serve(Arc::clone(&server), node, process));
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &Atom {
        &self.name
    }

    pub(super) fn pid(&self) -> Pid {
        self.state().process.pid.clone()
    }

    pub(super) fn is_own(&self, pid: &Pid) -> bool {
        pid.node == *self.router.name() && pid.creation == self.router.creation()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    pub(super) fn join(&self, group: Term, pids: Vec<Pid>) -> Result<(), PgError> {
        self.check(&pids)?;
        let mut state = self.state();
        if state.stopped {
            return Err(PgError::Stopped);
        }
        if pids.len() > state.scope.room() {
            return Err(PgError::Limit(MEMBERSHIPS_MAX));
        }
        self.step(&mut state, Event::Join { group, pids });
        Ok(())
    }

    pub(super) fn leave(&self, group: Term, pids: Vec<Pid>) -> Result<(), PgError> {
        self.check(&pids)?;
        let mut state = self.state();
        if state.stopped {
            return Err(PgError::Stopped);
        }
        match self.step(&mut state, Event::Leave { group, pids }) {
            0 => Err(PgError::NotJoined),
            _ => Ok(()),
        }
    }

    /// Members are processes of this life of this node.
    fn check(&self, pids: &[Pid]) -> Result<(), PgError> {
        match pids.iter().find(|pid| !self.is_own(pid)) {
            Some(pid) => Err(PgError::NotLocal(pid.clone())),
            None => Ok(()),
        }
    }

    /// Steps the machine and does what it asks for; how many actions that were.
    fn step(&self, state: &mut State, event: Event) -> usize {
        let actions = state.scope.step(event);
        let count = actions.len();
        for action in actions {
            self.act(state, action);
        }
        count
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Discover(node) => {
                let from = state.process.pid.clone();
                let message = Message::Discover(from.clone());
                let name = self.name.clone();
                state.send(&node, Control::RegSend { from, name }, message);
            }
            Action::Send { to, message } => {
                let (from, node) = (Some(state.process.pid.clone()), to.node.clone());
                state.send(&node, Control::Send { from, to }, message);
            }
            Action::Monitor(pid) => {
                // Setting up a connection for it would be of no use: all is forgotten with the one that was lost.
                if self.is_own(&pid) || self.router.connection(&pid.node).is_some() {
                    let monitor = self.router.monitor(&state.process, (&pid).into());
                    state.monitors.insert(pid, monitor);
                }
            }
            Action::Demonitor(pid) => {
                if let Some(monitor) = state.monitors.remove(&pid) {
                    self.router.demonitor(&state.process, &monitor);
                }
            }
            Action::Change(change) => self.table_mut().apply(change),
        }
    }

    /// Looks for the scope on the nodes that are connected, now and later.
    fn discover(&self, process: &Process) {
        process.monitor_nodes();
        let mut state = self.state();
        for connection in self.router.connections() {
            self.node_up(&mut state, connection.peer.clone(), connection.visible);
        }
    }

    fn node_up(&self, state: &mut State, node: Atom, visible: bool) {
        // It may be lost already; then its end is the next that is heard of it.
        let Some(connection) = self.router.connection(&node) else {
            return;
        };
        state.connections.insert(node.clone(), connection);
        if visible {
            self.step(state, Event::NodeUp(node));
        }
    }

    fn node_down(&self, state: &mut State, node: Atom) {
        state.connections.remove(&node);
        self.step(state, Event::NodeDown(node));
    }

    fn restart(&self, process: &Process) {
        let mut state = self.state();
        state.process = Arc::clone(process.entry());
        state.monitors.clear();
        state.connections.clear();
        self.step(&mut state, Event::Restarted(process.pid().clone()));
        drop(state);
        self.discover(process);
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.table_mut().close();
    }

    fn signal(&self, signal: Signal) {
        let message = match signal {
            Signal::Message(message) => Message::from_message(message),
            Signal::Cast(content) => Message::from_cast(content),
            Signal::Down {
                reference,
                target: Target::Pid(pid),
                ..
            } => {
                let mut state = self.state();
                // One that is not the present monitor was ended while it fired.
                if state.monitors.get(&pid) == Some(&reference) {
                    state.monitors.remove(&pid);
                    self.step(&mut state, Event::Down(pid));
                }
                return;
            }
            Signal::Node(NodeEvent::Up { node, visible }) => {
                return self.node_up(&mut self.state(), node, visible);
            }
            Signal::Node(NodeEvent::Down { node, .. }) => {
                return self.node_down(&mut self.state(), node);
            }
            Signal::Call(call) => {
                // A caller that cannot be told is gone.
                let _ = call.reply_term(notsup());
                return;
            }
            Signal::Exit { .. } | Signal::Down { .. } => return,
        };
        let Some(message) = message else {
            debug!(scope = %self.name, "a message that is none of a process group scope's was ignored");
            return;
        };
        let mut state = self.state();
        // A message comes over a connection; one that names a peer elsewhere is a lie, and would have us look for it.
        if state.connections.contains_key(&message.peer().node) {
            self.step(&mut state, Event::Received(message));
        }
    }
}

impl State {
    /// What the peer is told builds on what it was told before: if that cannot go out, the connection ends instead.
    fn send(&self, node: &Atom, control: Control, message: Message) {
        let Some(connection) = self.connections.get(node) else {
            return;
        };
        let sender = Some(&self.process.pid);
        let sent = connection.enqueue(control, Some(message.into_term()), sender, Urgency::Must);
        if let Err(rejected) = sent
            && !matches!(rejected.refused, Refused::Closed)
        {
            warn!(%node, refused = ?rejected.refused, "a process group message cannot be sent: closing the connection");
            connection.close(Reason::SendQueueFull(connection.queued()));
        }
    }
}

/// Runs the scope until the node stops. A process that was killed is replaced, as OTP's supervisor does; the members of
/// this node stay.
async fn serve(server: Arc<Server>, node: Node, mut process: Process) {
    loop {
        while let Some(signal) = process.recv().await {
            server.signal(signal);
        }
        process = match node.spawn(server.name.as_str()) {
            Ok(process) => process,
            Err(error) => {
                if !node.router().is_stopping() {
                    warn!(scope = %server.name, "a process group scope ends: {error}");
                }
                return server.stop();
            }
        };
        server.restart(&process);
    }
}
