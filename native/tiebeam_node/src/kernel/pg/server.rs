//! The process of a scope: the driver of [`Scope`]. Handles and the process step the same machine, under one lock, so that
//! what peers are told leaves in the order in which it happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tiebeam_wire::{Atom, Pid, Reference, Term};
use tracing::{debug, warn};

use super::PgError;
use super::messages::Message;
use super::scope::{Action, Event, MEMBERSHIPS_MAX, Scope};
use super::table::Table;
use crate::kernel::notsup;
use crate::node::{Node, NodeEvent};
use crate::process::entry::Entry;
use crate::process::{Destination, Process, Signal, Target};
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
                let name = self.name.clone();
                let discover = Message::Discover(state.process.pid.clone());
                self.send(state, Destination::Name { name, node }, discover);
            }
            Action::Send { to, message } => self.send(state, to.into(), message),
            Action::Monitor(pid) => {
                let monitor = self.router.monitor(&state.process, (&pid).into());
                state.monitors.insert(pid, monitor);
            }
            Action::Demonitor(pid) => {
                if let Some(monitor) = state.monitors.remove(&pid) {
                    self.router.demonitor(&state.process, &monitor);
                }
            }
            Action::Change(change) => self.table_mut().apply(change),
        }
    }

    fn send(&self, state: &State, to: Destination, message: Message) {
        let from = &state.process.pid;
        self.router.send_or_close(from, to, message.into_term());
    }

    /// Looks for the scope on the nodes that are connected, now and later.
    fn discover(&self, process: &Process) {
        process.monitor_nodes();
        let mut state = self.state();
        for node in process.node().nodes() {
            self.step(&mut state, Event::NodeUp(node));
        }
    }

    fn restart(&self, process: &Process) {
        let mut state = self.state();
        state.process = Arc::clone(process.entry());
        state.monitors.clear();
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
            Signal::Node(NodeEvent::Up {
                node,
                visible: true,
            }) => {
                self.step(&mut self.state(), Event::NodeUp(node));
                return;
            }
            Signal::Call(call) => {
                // A caller that cannot be told is gone.
                let _ = call.reply_term(notsup());
                return;
            }
            Signal::Node(_) | Signal::Exit { .. } | Signal::Down { .. } => return,
        };
        let Some(message) = message else {
            debug!(scope = %self.name, "a message that is none of a process group scope's was ignored");
            return;
        };
        // What was sent over a connection that is lost means nothing any more, and an answer would set up another.
        if self.router.connection(&message.peer().node).is_some() {
            self.step(&mut self.state(), Event::Received(message));
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
