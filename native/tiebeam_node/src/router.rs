//! The router: every signal of a node passes here, whether it comes from a peer, goes to one, or stays.
//!
//! One rule serves all three. A signal is a [`Control`] with a payload and a node; if the node is this one it is
//! received, else it is transmitted. What receiving a signal causes (the exits and downs of a death) is put into a
//! list and routed in turn, so a chain of linked processes of any length dies without recursion.

mod nodedown;
mod peers;
mod receiving;
mod sending;
mod spawn;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::config::Limits;
use crate::connection::{Refused, Rejected, Urgency};
use crate::error::SpawnError;
use crate::function::{Function, FunctionKey};
use crate::node::NodeEvent;
use crate::process::Target;
use crate::process::entry::Entry;
use crate::process::mailbox::{Item, Mailbox};

use peers::{Backlog, PEERS_MAX, Peer};
pub(crate) use sending::NotSent;
pub use spawn::SpawnOptions;
pub(crate) use spawn::Spawning;

/// A pid's `id` has 28 bits, so that it prints the same everywhere; `serial` continues it.
const ID_BITS: u32 = 28;

/// A signal on its way.
pub(crate) struct Routed {
    node: Atom,
    control: Control,
    payload: Option<Term>,
    /// Whose signal it is, where it does not say so itself.
    sender: Option<Pid>,
}

impl Routed {
    fn new(node: Atom, control: Control, payload: Option<Term>) -> Self {
        Self {
            node,
            control,
            payload,
            sender: None,
        }
    }
}

/// What came of a question that waits by reference.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reply(Term),
    Down(Term),
    /// The spawn request was refused.
    Refused(Atom),
}

/// A table that signals are routed by, so hashing must cost little. The keys are made by this node, or are names that
/// somebody who may do anything anyway has chosen.
type Table<K, V> = DashMap<K, V, foldhash::fast::RandomState>;

/// All that a node knows.
pub(crate) struct Router {
    name: Atom,
    creation: u32,
    hidden: bool,
    limits: Limits,
    processes: Table<u64, Arc<Entry>>,
    names: Table<Atom, Arc<Entry>>,
    aliases: Table<Reference, Arc<Entry>>,
    /// Monitors by name, by reference: the name may belong to another process when the demonitor comes.
    by_name: DashMap<Reference, Arc<Entry>>,
    /// Questions of this node that wait for an answer.
    waiting: Table<Reference, oneshot::Sender<Outcome>>,
    spawning: DashMap<Reference, Spawning>,
    peers: Table<Atom, Peer>,
    functions: RwLock<HashMap<FunctionKey, Function>>,
    subscribers: Mutex<Vec<mpsc::Sender<NodeEvent>>>,
    /// Processes that monitor nodes, each once.
    node_monitors: Mutex<Vec<Arc<Entry>>>,
    next_process: AtomicU64,
    next_reference: AtomicU64,
    /// Makes references differ from those of an earlier run with the same creation.
    salt: u32,
    caller: Arc<Entry>,
    group_leader: OnceLock<Pid>,
    stopping: AtomicBool,
    /// Sets up a connection to a peer in the background.
    dial: OnceLock<Dial>,
    /// Runs a function in a process that exists already.
    starter: OnceLock<Starter>,
}

/// See [`Router::set_dial`].
pub(crate) type Dial = Box<dyn Fn(Atom) + Send + Sync>;

/// See [`Router::set_starter`].
pub(crate) type Starter =
    Box<dyn Fn(Arc<Entry>, mpsc::UnboundedReceiver<Item>, Atom, Atom, Term) + Send + Sync>;

impl Router {
    pub(crate) fn new(
        name: Atom,
        creation: u32,
        hidden: bool,
        limits: Limits,
        salt: u32,
    ) -> Arc<Self> {
        let pid = |id| Pid {
            node: name.clone(),
            id,
            serial: 0,
            creation,
        };
        let caller = Entry::new(pid(1), Mailbox::nowhere(), pid(1));
        let router = Arc::new(Self {
            name: name.clone(),
            creation,
            hidden,
            limits,
            processes: Table::default(),
            names: Table::default(),
            aliases: Table::default(),
            by_name: DashMap::new(),
            waiting: Table::default(),
            spawning: DashMap::new(),
            peers: Table::default(),
            functions: RwLock::default(),
            subscribers: Mutex::default(),
            node_monitors: Mutex::default(),
            next_process: AtomicU64::new(2),
            next_reference: AtomicU64::new(1),
            salt,
            caller: Arc::clone(&caller),
            group_leader: OnceLock::new(),
            stopping: AtomicBool::new(false),
            dial: OnceLock::new(),
            starter: OnceLock::new(),
        });
        router.processes.insert(1, caller);
        router
    }

    /// How to connect to a peer that somebody sends to. Must not block.
    pub(crate) fn set_dial(&self, dial: Dial) {
        let _ = self.dial.set(dial);
    }

    /// How to start what a peer asks for: a process, its mailbox, module, function and arguments. Must not block.
    pub(crate) fn set_starter(&self, starter: Starter) {
        let _ = self.starter.set(starter);
    }

    pub(crate) fn set_group_leader(&self, pid: Pid) {
        let _ = self.group_leader.set(pid);
    }

    pub(crate) fn name(&self) -> &Atom {
        &self.name
    }

    pub(crate) fn creation(&self) -> u32 {
        self.creation
    }

    pub(crate) fn hidden(&self) -> bool {
        self.hidden
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The pid in whose name the node itself asks and sends.
    pub(crate) fn caller(&self) -> &Pid {
        &self.caller.pid
    }

    pub(crate) fn caller_entry(&self) -> &Arc<Entry> {
        &self.caller
    }

    /// The process that does the output of processes without another group leader.
    pub(crate) fn group_leader(&self) -> Pid {
        self.group_leader.get().unwrap_or(&self.caller.pid).clone()
    }

    pub(crate) fn make_reference(&self) -> Reference {
        let count = self.next_reference.fetch_add(1, Ordering::Relaxed);
        // The first word of an old reference has 18 bits; staying below costs nothing.
        let words = [(count & 0x3_ffff) as u32, (count >> 18) as u32, self.salt];
        Reference::new(self.name.clone(), self.creation, &words)
    }

    // ---- processes and names

    pub(crate) fn add_process(
        &self,
        mailbox: Mailbox,
        group_leader: Pid,
    ) -> Result<Arc<Entry>, SpawnError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(SpawnError::Invalid("the node is stopping".to_owned()));
        }
        if self.processes.len() >= self.limits.processes {
            return Err(SpawnError::Limit(self.limits.processes));
        }
        let key = self.next_process.fetch_add(1, Ordering::Relaxed);
        let (id, serial) = ((key & ((1 << ID_BITS) - 1)) as u32, (key >> ID_BITS) as u32);
        let pid = Pid {
            node: self.name.clone(),
            id,
            serial,
            creation: self.creation,
        };
        let entry = Entry::new(pid, mailbox, group_leader);
        self.processes.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    fn key(pid: &Pid) -> u64 {
        u64::from(pid.serial) << ID_BITS | u64::from(pid.id)
    }

    /// The living process with this pid, if it is of this incarnation of this node.
    pub(crate) fn process(&self, pid: &Pid) -> Option<Arc<Entry>> {
        if pid.creation != self.creation || pid.node != self.name || pid.id >> ID_BITS != 0 {
            return None;
        }
        self.processes
            .get(&Self::key(pid))
            .map(|entry| Arc::clone(&entry))
    }

    /// Whether a process of this incarnation of this node lives.
    pub(crate) fn is_alive(&self, pid: &Pid) -> bool {
        if pid.creation != self.creation || pid.node != self.name || pid.id >> ID_BITS != 0 {
            return false;
        }
        let entry = self.processes.get(&Self::key(pid));
        entry.is_some_and(|entry| entry.is_alive())
    }

    pub(crate) fn processes(&self) -> Vec<Pid> {
        self.processes
            .iter()
            .map(|entry| entry.pid.clone())
            .collect()
    }

    pub(crate) fn whereis(&self, name: &Atom) -> Option<Arc<Entry>> {
        self.names.get(name).map(|entry| Arc::clone(&entry))
    }

    pub(crate) fn registered(&self) -> Vec<Atom> {
        self.names.iter().map(|entry| entry.key().clone()).collect()
    }

    pub(crate) fn register(&self, name: Atom, entry: &Arc<Entry>) -> Result<(), SpawnError> {
        if name == "undefined" {
            return Err(SpawnError::Invalid(
                "a process cannot be called undefined".to_owned(),
            ));
        }
        match self.names.entry(name.clone()) {
            Slot::Occupied(other) if Arc::ptr_eq(other.get(), entry) => return Ok(()),
            Slot::Occupied(_) => return Err(SpawnError::NameTaken(name)),
            Slot::Vacant(slot) => slot.insert(Arc::clone(entry)),
        };
        let mut state = entry.state();
        if state.exited.is_some() {
            drop(state);
            self.names
                .remove_if(&name, |_, other| Arc::ptr_eq(other, entry));
        } else {
            state.names.push(name);
        }
        Ok(())
    }

    pub(crate) fn unregister(&self, name: &Atom) -> bool {
        let Some((_, entry)) = self.names.remove(name) else {
            return false;
        };
        entry.state().names.retain(|other| other != name);
        true
    }

    pub(crate) fn alias(&self, entry: &Arc<Entry>) -> Reference {
        let alias = self.make_reference();
        let mut state = entry.state();
        if state.exited.is_none() {
            state.aliases.insert(alias.clone());
            self.aliases.insert(alias.clone(), Arc::clone(entry));
        }
        alias
    }

    pub(crate) fn unalias(&self, entry: &Arc<Entry>, alias: &Reference) {
        if entry.state().aliases.remove(alias) {
            self.aliases.remove(alias);
        }
    }

    // ---- functions

    pub(crate) fn export(&self, key: FunctionKey, function: Function) {
        self.functions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, function);
    }

    pub(crate) fn function(&self, key: &FunctionKey) -> Option<Function> {
        self.functions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    // ---- questions that wait

    pub(crate) fn wait(&self, reference: Reference) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(reference, sender);
        receiver
    }

    pub(crate) fn forget(&self, reference: &Reference) {
        self.waiting.remove(reference);
    }

    fn answer(&self, reference: &Reference, outcome: Outcome) -> bool {
        match self.waiting.remove(reference) {
            // Whoever asked may have given up: then the answer is late, and dropped.
            Some((_, sender)) => {
                drop(sender.send(outcome));
                true
            }
            None => false,
        }
    }

    // ---- routing

    /// Routes a signal and all that it causes.
    pub(crate) fn route(&self, node: Atom, control: Control, payload: Option<Term>) {
        self.work_off(VecDeque::from([Routed::new(node, control, payload)]));
    }

    pub(crate) fn work_off(&self, mut work: VecDeque<Routed>) {
        while let Some(signal) = work.pop_front() {
            self.dispatch(signal, &mut work);
        }
    }

    fn dispatch(&self, signal: Routed, work: &mut VecDeque<Routed>) {
        if signal.node == self.name {
            self.receive(signal.control, signal.payload, work);
        } else {
            self.transmit(signal, work);
        }
    }

    /// Gives a signal to the connection, and answers in the peer's place where the peer cannot.
    fn transmit(&self, signal: Routed, work: &mut VecDeque<Routed>) {
        let urgency = match signal.control {
            Control::Send { .. } | Control::RegSend { .. } | Control::AliasSend { .. } => {
                Urgency::Ordinary
            }
            _ => Urgency::Must,
        };
        let Routed {
            node,
            control,
            payload,
            sender,
        } = signal;
        if let Err(rejected) = self.hand_over(&node, control, payload, sender.as_ref(), urgency) {
            self.not_sent(*rejected, work);
        }
    }

    fn not_sent(&self, rejected: Rejected, work: &mut VecDeque<Routed>) {
        let Rejected { control, refused } = rejected;
        debug!(?refused, "a signal was not sent: {control:?}");
        match (refused, control) {
            // Nobody will acknowledge it.
            (Refused::Stale, Control::UnlinkId { id, from, to }) => {
                if let Some(entry) = self.process(&from) {
                    entry.state().links.acknowledged(&to, id);
                }
            }
            (Refused::Stale, control) => self.unreachable(control, "noproc", work),
            (Refused::Encode(_), control) => self.unreachable(control, "system_limit", work),
            (Refused::Busy { .. } | Refused::Closed, control) => {
                self.unreachable(control, "noconnection", work);
            }
        }
    }

    /// Puts a signal into the peer's queue, setting up a connection if there is none.
    fn hand_over(
        &self,
        node: &Atom,
        control: Control,
        payload: Option<Term>,
        sender: Option<&Pid>,
        urgency: Urgency,
    ) -> Result<(), Box<Rejected>> {
        if let Some(peer) = self.peers.get(node)
            && let Peer::Up(connection) = &*peer
        {
            let connection = Arc::clone(connection);
            drop(peer);
            return connection.enqueue(control, payload, sender, urgency);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Rejected::new(control, Refused::Closed));
        }
        // Only a signal that means something to a stranger is worth a connection.
        let connects = !matches!(
            control,
            Control::Exit { .. }
                | Control::Down { .. }
                | Control::Demonitor { .. }
                | Control::UnlinkId { .. }
                | Control::UnlinkIdAck { .. }
                | Control::Unlink { .. }
                | Control::SpawnReply { .. }
        );
        let signal = Routed {
            node: node.clone(),
            control,
            payload,
            sender: sender.cloned(),
        };
        // Before the entry is locked.
        let crowded = self.peers.len() >= PEERS_MAX;
        match self.peers.entry(node.clone()) {
            Slot::Occupied(mut peer) => match peer.get_mut() {
                Peer::Up(connection) => {
                    let sender = signal.sender.as_ref();
                    connection.enqueue(signal.control, signal.payload, sender, urgency)
                }
                Peer::Connecting(backlog) => backlog.push(signal, &self.limits),
            },
            Slot::Vacant(slot) => {
                let Some(dial) = self.dial.get().filter(|_| connects && !crowded) else {
                    return Err(Rejected::new(signal.control, Refused::Closed));
                };
                let mut backlog = Backlog::default();
                backlog.push(signal, &self.limits)?;
                slot.insert(Peer::Connecting(backlog));
                dial(node.clone());
                Ok(())
            }
        }
    }

    /// Does to the sender what the other end would have, had it been there.
    fn unreachable(&self, control: Control, reason: &'static str, work: &mut VecDeque<Routed>) {
        let answer = match control {
            Control::Link { from, to } => Control::Exit { from: to, to: from },
            Control::Monitor {
                from,
                target,
                reference,
            } => Control::Down {
                target,
                to: from,
                reference,
            },
            Control::SpawnRequest { reference, .. } => {
                return self.spawn_refused(&reference, Atom::of(reason));
            }
            _ => return,
        };
        self.receive(answer, Some(Term::atom(reason)), work);
    }
}

impl From<Target> for tiebeam_wire::control::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Pid(pid) => Self::Pid(pid),
            Target::Name(name) => Self::Name(name),
        }
    }
}

impl From<tiebeam_wire::control::Target> for Target {
    fn from(target: tiebeam_wire::control::Target) -> Self {
        match target {
            tiebeam_wire::control::Target::Pid(pid) => Self::Pid(pid),
            tiebeam_wire::control::Target::Name(name) => Self::Name(name),
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
