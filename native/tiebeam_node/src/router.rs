//! The router: every signal of a node passes here, whether it comes from a peer, goes to one, or stays.
//!
//! One rule serves all three. A signal is a [`Control`] with a payload and a node; if the node is this one it is
//! received, else it is transmitted. What receiving a signal causes (the exits and downs of a death) is put into a
//! list and routed in turn, so a chain of linked processes of any length dies without recursion.

mod nodedown;
mod spawn;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tiebeam_wire::control::{Control, ExitTarget};
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::config::Limits;
use crate::connection::{Connection, Reason, Refused, Rejected, Urgency, weight};
use crate::error::{SendError, SpawnError};
use crate::function::{Function, FunctionKey};
use crate::node::NodeEvent;
use crate::process::entry::{Entry, Remains, State};
use crate::process::mailbox::{Item, Mailbox};
use crate::process::{Destination, Target};

pub use spawn::SpawnOptions;
pub(crate) use spawn::Spawning;

/// A pid's `id` has 28 bits, so that it prints the same everywhere; `serial` continues it.
const ID_BITS: u32 = 28;

/// Subscriptions to node events; each is a queue that somebody must read.
const SUBSCRIBERS_MAX: usize = 10_000;

/// Events that a subscriber may leave unread. One that is further behind than all nodes of a large cluster coming and
/// going several times does not read at all, and is dropped.
const EVENTS_MAX: usize = 10_000;

/// Peers that are connected or dialled at one time. A mesh has hundreds; a peer that makes us answer to made-up nodes
/// makes us dial each of them.
const PEERS_MAX: usize = 10_000;

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

/// A peer, as senders see it.
enum Peer {
    /// A connection is being set up; these signals wait for it.
    Connecting(Backlog),
    Up(Arc<Connection>),
}

/// What waits for a connection, in order.
#[derive(Default)]
struct Backlog {
    signals: Vec<Routed>,
    /// About how many bytes they take.
    weight: usize,
}

impl Backlog {
    fn push(&mut self, signal: Routed, limits: &Limits) -> Result<(), Box<Rejected>> {
        let most = match signal.control {
            Control::Exit { .. }
            | Control::Demonitor { .. }
            | Control::UnlinkId { .. }
            | Control::UnlinkIdAck { .. }
            | Control::Unlink { .. } => 2 * limits.connecting,
            _ => limits.connecting,
        };
        let is_end = most > limits.connecting;
        if self.signals.len() >= most || (self.weight > limits.send_queue && !is_end) {
            let queued = self.signals.len();
            return Err(Rejected::new(signal.control, Refused::Busy { queued }));
        }
        self.weight += weight(signal.payload.as_ref());
        self.signals.push(signal);
        Ok(())
    }
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

    // ---- what processes do

    /// Sends a message of a process, in order with all else that it sends. `from` is what the receiver may see of the
    /// sender. What the dead send is dropped.
    pub(crate) fn send(
        &self,
        sender: &Arc<Entry>,
        from: &Pid,
        to: Destination,
        message: Term,
    ) -> Result<(), SendError> {
        let (node, control) = match to {
            Destination::Pid(to) => (
                to.node.clone(),
                Control::Send {
                    from: Some(from.clone()),
                    to,
                },
            ),
            Destination::Name { name, node } => (
                node,
                Control::RegSend {
                    from: from.clone(),
                    name,
                },
            ),
            Destination::Local(name) if self.names.contains_key(&name) => (
                self.name.clone(),
                Control::RegSend {
                    from: from.clone(),
                    name,
                },
            ),
            Destination::Local(name) => return Err(SendError::NotRegistered(name)),
            Destination::Alias(alias) => (
                alias.node().clone(),
                Control::AliasSend {
                    from: from.clone(),
                    alias,
                },
            ),
        };
        // The caller is all threads that use the node, and lives as long as it: they need not wait for one another.
        let sending = if Arc::ptr_eq(sender, &self.caller) {
            None
        } else if let Some(sending) = sender.sending() {
            Some(sending)
        } else {
            return Ok(());
        };
        if node == self.name {
            let full = self.deliver(control, message);
            drop(sending);
            if let Some(full) = full {
                let mut work = VecDeque::new();
                self.overflow(&full, &mut work);
                self.work_off(work);
            }
            return Ok(());
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(SendError::Stopping);
        }
        let sender = Some(&sender.pid);
        let taken = self.hand_over(&node, control, Some(message), sender, Urgency::Ordinary);
        drop(sending);
        let Err(rejected) = taken else {
            return Ok(());
        };
        match rejected.refused {
            // A lost connection loses what was sent to it: Erlang promises no more. Nor is anybody told of the dead.
            Refused::Closed | Refused::Stale => Ok(()),
            Refused::Busy { queued } => Err(SendError::Busy { node, queued }),
            Refused::Encode(reason) => Err(SendError::Encode(reason)),
        }
    }

    /// Sends a message over the connection that is there, or not at all: nothing is set up for it. For protocols in which
    /// every message builds on the one before: a peer that cannot take it loses the connection instead of the message.
    pub(crate) fn send_or_close(&self, from: &Pid, to: Destination, message: Term) {
        let (node, control) = match to {
            Destination::Pid(to) => {
                let from = Some(from.clone());
                (to.node.clone(), Control::Send { from, to })
            }
            Destination::Name { name, node } => {
                let from = from.clone();
                (node, Control::RegSend { from, name })
            }
            Destination::Local(_) | Destination::Alias(_) => return,
        };
        let Some(connection) = self.connection(&node) else {
            return;
        };
        let sent = connection.enqueue(control, Some(message), Some(from), Urgency::Must);
        if let Err(rejected) = sent
            && !matches!(rejected.refused, Refused::Closed)
        {
            warn!(%node, refused = ?rejected.refused, "a message that must not be lost cannot be sent: closing the connection");
            connection.close(Reason::SendQueueFull(connection.queued()));
        }
    }

    /// Waits until the peer of this destination has room.
    pub(crate) async fn room(&self, to: &Destination) {
        let node = match to {
            Destination::Pid(pid) => &pid.node,
            Destination::Name { node, .. } => node,
            Destination::Alias(alias) => alias.node(),
            Destination::Local(_) => return,
        };
        if let Some(connection) = self.connection(node) {
            connection.room().await;
        }
        // A loop that only sends would otherwise keep the writer of the connection from its turn.
        tokio::task::coop::consume_budget().await;
    }

    pub(crate) fn link(&self, entry: &Entry, to: &Pid) {
        if *to == entry.pid {
            return;
        }
        let send = {
            let mut state = entry.state();
            state.exited.is_none() && state.links.link(to)
        };
        if send {
            self.route(
                to.node.clone(),
                Control::Link {
                    from: entry.pid.clone(),
                    to: to.clone(),
                },
                None,
            );
            // Killed meanwhile: its exit may have been told before the link was. Told twice, it counts once.
            let exited = entry.state().exited.clone();
            if let Some(reason) = exited {
                let control = Control::Exit {
                    from: entry.pid.clone(),
                    to: to.clone(),
                };
                self.route(to.node.clone(), control, Some(reason));
            }
        }
    }

    pub(crate) fn unlink(&self, entry: &Entry, to: &Pid) {
        let id = entry.state().links.unlink(to);
        if let Some(id) = id {
            let control = Control::UnlinkId {
                id,
                from: entry.pid.clone(),
                to: to.clone(),
            };
            self.route(to.node.clone(), control, None);
        }
    }

    pub(crate) fn monitor(&self, entry: &Entry, target: Destination) -> Reference {
        let reference = self.make_reference();
        self.monitor_as(entry, target, reference.clone());
        reference
    }

    /// Monitors with a reference that exists already.
    pub(crate) fn monitor_as(&self, entry: &Entry, target: Destination, reference: Reference) {
        let (node, target) = match target {
            Destination::Pid(pid) => (pid.node.clone(), Target::Pid(pid)),
            Destination::Name { name, node } => (node, Target::Name(name)),
            Destination::Local(name) => (self.name.clone(), Target::Name(name)),
            // OTP cannot monitor an alias either.
            Destination::Alias(alias) => {
                (alias.node().clone(), Target::Name(Atom::of("undefined")))
            }
        };
        {
            let mut state = entry.state();
            if state.exited.is_some() {
                return;
            }
            state
                .monitoring
                .insert(reference.clone(), (target.clone(), node.clone()));
        }
        let target: tiebeam_wire::control::Target = target.into();
        let control = Control::Monitor {
            from: entry.pid.clone(),
            target: target.clone(),
            reference: reference.clone(),
        };
        self.route(node.clone(), control, None);
        // Killed meanwhile: the end of the monitor may have been told before its beginning.
        if !entry.is_alive() {
            let control = Control::Demonitor {
                from: entry.pid.clone(),
                target,
                reference,
            };
            self.route(node, control, None);
        }
    }

    pub(crate) fn demonitor(&self, entry: &Entry, reference: &Reference) {
        let removed = entry.state().monitoring.remove(reference);
        if let Some((target, node)) = removed {
            let control = Control::Demonitor {
                from: entry.pid.clone(),
                target: target.into(),
                reference: reference.clone(),
            };
            self.route(node, control, None);
        }
    }

    pub(crate) fn exit2(&self, from: &Pid, to: &Pid, reason: Term) {
        let control = Control::Exit2 {
            from: from.clone(),
            to: ExitTarget::Pid(to.clone()),
        };
        self.route(to.node.clone(), control, Some(reason));
    }

    /// Ends a process.
    pub(crate) fn exit(&self, entry: &Arc<Entry>, reason: Term) {
        let mut work = VecDeque::new();
        self.terminate(entry, reason, &mut work);
        self.work_off(work);
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

    /// A signal came over a connection. An error names what the peer may not send; the connection must be closed.
    pub(crate) fn incoming(
        &self,
        connection: &Connection,
        control: Control,
        payload: Option<Term>,
    ) -> Result<(), String> {
        // The rules by which OTP closes a connection: these must come from a process of the peer,
        let own = match &control {
            Control::Link { from, .. }
            | Control::UnlinkId { from, .. }
            | Control::UnlinkIdAck { from, .. }
            | Control::Unlink { from, .. }
            | Control::Exit { from, .. }
            | Control::Exit2 { from, .. }
            | Control::Monitor { from, .. }
            | Control::Demonitor { from, .. } => from.node == connection.peer,
            _ => true,
        };
        if !own {
            return Err(format!(
                "{} sent a signal in the name of another node: {control:?}",
                connection.peer
            ));
        }
        // and these must go to one of ours. An earlier life of this node counts: OTP closes the connection on some of
        // these, yet sends them itself (`unlink/1` of a pid that was kept over a restart), and the answer is the same
        // as for a process that has ended.
        let ours = match &control {
            Control::Link { to, .. }
            | Control::UnlinkId { to, .. }
            | Control::UnlinkIdAck { to, .. }
            | Control::Unlink { to, .. }
            | Control::Exit { to, .. }
            | Control::Monitor {
                target: tiebeam_wire::control::Target::Pid(to),
                ..
            } => to.node == self.name,
            _ => true,
        };
        if !ours {
            return Err(format!(
                "{} sent a signal for another node: {control:?}",
                connection.peer
            ));
        }
        let mut work = VecDeque::new();
        self.receive(control, payload, &mut work);
        if !work.is_empty() {
            self.work_off(work);
        }
        Ok(())
    }

    /// A signal reached this node.
    fn receive(&self, control: Control, payload: Option<Term>, work: &mut VecDeque<Routed>) {
        // Ops with a payload always have one; a local sender passes it too.
        let payload = || payload.unwrap_or_else(|| Term::atom("undefined"));
        match control {
            Control::Send { .. } | Control::RegSend { .. } | Control::AliasSend { .. } => {
                if let Some(full) = self.deliver(control, payload()) {
                    self.overflow(&full, work);
                }
            }
            Control::Link { from, to } => {
                let refused = self.relate(self.process(&to), |_, state| {
                    state.links.linked_by(from.clone());
                });
                if let Err(reason) = refused {
                    work.push_back(Routed::new(
                        from.node.clone(),
                        Control::Exit { from: to, to: from },
                        Some(Term::atom(reason)),
                    ));
                }
            }
            Control::UnlinkId { id, from, to } => {
                // Acknowledged while the link is still there: were it removed first, its process could link again in
                // between, and the peer, not knowing that its unlink arrived, would ignore that.
                let control = Control::UnlinkIdAck {
                    id,
                    from: to.clone(),
                    to: from.clone(),
                };
                self.dispatch(Routed::new(from.node.clone(), control, None), work);
                if let Some(entry) = self.process(&to) {
                    entry.state().links.unlinked_by(&from);
                }
            }
            Control::UnlinkIdAck { id, from, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().links.acknowledged(&from, id);
                }
            }
            Control::Unlink { from, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().links.unlinked_by(&from);
                }
            }
            Control::Exit { from, to } => {
                if let Some(entry) = self.process(&to) {
                    self.linked_exit(&entry, from, payload(), work);
                }
            }
            Control::Exit2 { from, to } => {
                let entry = match &to {
                    ExitTarget::Pid(pid) => self.process(pid),
                    ExitTarget::Name(name) => self.whereis(name),
                    ExitTarget::Alias(alias) => {
                        self.aliases.get(alias).map(|entry| Arc::clone(&entry))
                    }
                };
                if let Some(entry) = entry {
                    self.exit_signal(&entry, from, payload(), work);
                }
            }
            Control::GroupLeader { leader, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().group_leader = leader;
                }
            }
            Control::Monitor {
                from,
                target,
                reference,
            } => {
                let target = Target::from(target);
                let entry = match &target {
                    Target::Pid(pid) => self.process(pid),
                    Target::Name(name) => self.whereis(name),
                };
                let refused = self.relate(entry, |entry, state| {
                    if matches!(target, Target::Name(_)) {
                        self.by_name.insert(reference.clone(), Arc::clone(entry));
                    }
                    state
                        .watched_by
                        .insert(reference.clone(), (from.clone(), target.clone()));
                });
                if let Err(reason) = refused {
                    work.push_back(Routed::new(
                        from.node.clone(),
                        Control::Down {
                            target: target.into(),
                            to: from,
                            reference,
                        },
                        Some(Term::atom(reason)),
                    ));
                }
            }
            Control::Demonitor {
                target, reference, ..
            } => {
                let entry = match &target {
                    tiebeam_wire::control::Target::Pid(pid) => self.process(pid),
                    tiebeam_wire::control::Target::Name(_) => {
                        self.by_name.remove(&reference).map(|(_, entry)| entry)
                    }
                };
                if let Some(entry) = entry {
                    entry.state().watched_by.remove(&reference);
                }
            }
            Control::Down { to, reference, .. } => {
                if let Some(entry) = self.process(&to) {
                    self.down(&entry, &reference, payload(), work);
                }
            }
            Control::SpawnRequest {
                reference,
                from,
                group_leader,
                module,
                function,
                options,
                ..
            } => {
                self.spawn_requested(spawn::Request {
                    reference,
                    from,
                    group_leader,
                    module,
                    function,
                    options,
                    args: payload(),
                });
            }
            Control::SpawnReply {
                reference,
                to,
                linked,
                monitored,
                result,
            } => {
                self.spawn_replied(&reference, to, linked, monitored, result, work);
            }
        }
    }

    /// Puts a message into a mailbox of this node. Gives the process back whose mailbox is full.
    fn deliver(&self, control: Control, message: Term) -> Option<Arc<Entry>> {
        let entry = match control {
            Control::Send { to, .. } if to.id == self.caller.pid.id && to == self.caller.pid => {
                self.caller_got(message);
                return None;
            }
            Control::Send { to, .. } => self.process(&to),
            Control::RegSend { name, .. } => {
                let entry = self.whereis(&name);
                if entry.is_none() {
                    debug!(%name, "a message to an unknown name was dropped");
                }
                entry
            }
            Control::AliasSend { alias, .. } => {
                let reply = match message {
                    Term::Tuple(ref elements) if elements.len() == 2 => Some(elements[1].clone()),
                    _ => None,
                };
                if let Some(reply) = reply
                    && self.answer(&alias, Outcome::Reply(reply))
                {
                    return None;
                }
                self.aliases.get(&alias).map(|entry| Arc::clone(&entry))
            }
            _ => None,
        }?;
        let taken = entry.mailbox.push(Item::Message(message));
        taken.is_err().then_some(entry)
    }

    /// Gives a process that lives a link or a monitor; else says why not.
    fn relate(
        &self,
        entry: Option<Arc<Entry>>,
        insert: impl FnOnce(&Arc<Entry>, &mut State),
    ) -> Result<(), &'static str> {
        let entry = entry.ok_or("noproc")?;
        let mut state = entry.state();
        if state.exited.is_some() {
            return Err("noproc");
        }
        if state.links.len() + state.watched_by.len() >= self.limits.relations {
            return Err("system_limit");
        }
        insert(&entry, &mut state);
        Ok(())
    }

    /// A message to the node's own caller: a reply by pid, as old servers and `net_kernel` send it.
    fn caller_got(&self, message: Term) {
        let Term::Tuple(elements) = message else {
            return;
        };
        let Ok([tag, reply]) = <[Term; 2]>::try_from(elements) else {
            return;
        };
        let reference = match &tag {
            Term::Reference(reference) => Some(reference),
            Term::Improper(list) => list.tail.as_reference(),
            _ => None,
        };
        if let Some(reference) = reference {
            self.answer(reference, Outcome::Reply(reply));
        }
    }

    /// The monitor with this reference fires.
    fn down(
        &self,
        entry: &Arc<Entry>,
        reference: &Reference,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        let Some((target, _)) = entry.state().monitoring.remove(reference) else {
            return;
        };
        if Arc::ptr_eq(entry, &self.caller) {
            self.answer(reference, Outcome::Down(reason));
        } else {
            self.put(
                entry,
                Item::Down {
                    reference: reference.clone(),
                    target,
                    reason,
                },
                work,
            );
        }
    }

    /// The process at the other end of a link ended.
    fn linked_exit(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        let trap = {
            let mut state = entry.state();
            if !state.links.exited(&from) {
                return;
            }
            state.trap_exit
        };
        // Over a link even `kill` is an ordinary reason.
        if trap {
            self.put(entry, Item::Exit { from, reason }, work);
        } else if !reason.is_atom("normal") {
            self.terminate(entry, reason, work);
        }
    }

    /// Somebody called `exit/2`.
    fn exit_signal(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        if reason.is_atom("kill") {
            self.terminate(entry, Term::atom("killed"), work);
        } else if entry.state().trap_exit {
            self.put(entry, Item::Exit { from, reason }, work);
        } else if !reason.is_atom("normal") || from == entry.pid {
            self.terminate(entry, reason, work);
        }
    }

    fn put(&self, entry: &Arc<Entry>, item: Item, work: &mut VecDeque<Routed>) {
        if entry.mailbox.push(item).is_err() {
            self.overflow(entry, work);
        }
    }

    fn overflow(&self, entry: &Arc<Entry>, work: &mut VecDeque<Routed>) {
        warn!(pid = ?entry.pid, limit = self.limits.mailbox, "a process does not keep up with its mailbox and ends");
        self.terminate(entry, Term::atom("mailbox_full"), work);
    }

    /// Ends a process: frees its names, and tells whom it concerns. Links first, then monitors, as OTP does.
    fn terminate(&self, entry: &Arc<Entry>, reason: Term, work: &mut VecDeque<Routed>) {
        // The caller stands for the node itself: nobody can end it but the node's own end.
        if Arc::ptr_eq(entry, &self.caller) && !self.is_stopping() {
            return;
        }
        let Some(Remains {
            links,
            watched_by,
            monitoring,
            names,
            aliases,
            abort,
        }) = entry.die(&reason)
        else {
            return;
        };
        let pid = &entry.pid;
        self.processes.remove(&Self::key(pid));
        for name in names {
            self.names
                .remove_if(&name, |_, other| Arc::ptr_eq(other, entry));
        }
        for alias in aliases {
            self.aliases.remove(&alias);
        }
        for to in links {
            let control = Control::Exit {
                from: pid.clone(),
                to: to.clone(),
            };
            work.push_back(Routed::new(to.node, control, Some(reason.clone())));
        }
        for (reference, (watcher, target)) in watched_by {
            if matches!(target, Target::Name(_)) {
                self.by_name.remove(&reference);
            }
            let control = Control::Down {
                target: target.into(),
                to: watcher.clone(),
                reference,
            };
            work.push_back(Routed {
                // By name, the signal does not tell whose death it is.
                sender: Some(pid.clone()),
                ..Routed::new(watcher.node, control, Some(reason.clone()))
            });
        }
        for (reference, (target, node)) in monitoring {
            let control = Control::Demonitor {
                from: pid.clone(),
                target: target.into(),
                reference,
            };
            work.push_back(Routed::new(node, control, None));
        }
        // Wakes a receiver that waits; one that was dropped needs no waking.
        let _ = entry.mailbox.push(Item::Killed);
        if let Some(abort) = abort {
            abort.abort();
        }
    }

    // ---- peers

    pub(crate) fn connection(&self, node: &Atom) -> Option<Arc<Connection>> {
        match &*self.peers.get(node)? {
            Peer::Up(connection) => Some(Arc::clone(connection)),
            Peer::Connecting(_) => None,
        }
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.peers
            .iter()
            .filter_map(|peer| match peer.value() {
                Peer::Up(connection) => Some(Arc::clone(connection)),
                Peer::Connecting(_) => None,
            })
            .collect()
    }

    /// A connection is up: what waited for it goes first, then the subscribers hear of it.
    pub(crate) fn node_up(&self, connection: &Arc<Connection>) {
        let mut failed = Vec::new();
        match self.peers.entry(connection.peer.clone()) {
            Slot::Occupied(mut peer) => {
                // Under the lock of the entry, so that nothing sent later can come first.
                if let Peer::Connecting(backlog) = peer.insert(Peer::Up(Arc::clone(connection))) {
                    for Routed {
                        control,
                        payload,
                        sender,
                        ..
                    } in backlog.signals
                    {
                        let sender = sender.as_ref();
                        failed.extend(
                            connection
                                .enqueue(control, payload, sender, Urgency::Must)
                                .err(),
                        );
                    }
                }
            }
            Slot::Vacant(slot) => {
                slot.insert(Peer::Up(Arc::clone(connection)));
            }
        }
        let mut work = VecDeque::new();
        for rejected in failed {
            self.not_sent(*rejected, &mut work);
        }
        self.work_off(work);
        self.publish(NodeEvent::Up {
            node: connection.peer.clone(),
            visible: connection.visible,
        });
    }

    /// No connection could be set up.
    pub(crate) fn connect_failed(&self, node: &Atom) {
        let waiting = self
            .peers
            .remove_if(node, |_, peer| matches!(peer, Peer::Connecting(_)));
        let mut work = VecDeque::new();
        if let Some((_, Peer::Connecting(backlog))) = waiting {
            for signal in backlog.signals {
                self.unreachable(signal.control, "noconnection", &mut work);
            }
        }
        self.work_off(work);
    }

    pub(crate) fn subscribe(&self) -> mpsc::Receiver<NodeEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| !subscriber.is_closed());
        if subscribers.len() < SUBSCRIBERS_MAX {
            subscribers.push(sender);
        }
        receiver
    }

    /// Node events go into this process's mailbox too, in order with the signals that come over the connections.
    pub(crate) fn monitor_nodes(&self, entry: &Arc<Entry>) {
        let mut monitors = self
            .node_monitors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !monitors.iter().any(|other| Arc::ptr_eq(other, entry)) {
            monitors.push(Arc::clone(entry));
        }
    }

    fn publish(&self, event: NodeEvent) {
        let monitors = {
            let mut monitors = self
                .node_monitors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            monitors.retain(|entry| entry.is_alive());
            monitors.clone()
        };
        let mut work = VecDeque::new();
        for entry in &monitors {
            self.put(entry, Item::Node(event.clone()), &mut work);
        }
        self.work_off(work);
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| {
            let sent = subscriber.try_send(event.clone());
            if let Err(mpsc::error::TrySendError::Full(_)) = &sent {
                warn!("a subscriber that left {EVENTS_MAX} node events unread gets no more");
            }
            sent.is_ok()
        });
    }

    /// From now on nothing connects and nothing starts. True the first time.
    pub(crate) fn begin_stop(&self) -> bool {
        !self.stopping.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends all processes and subscriptions, once no peer is connected any more, and drops the functions: what the program
    /// gave to the node may hold the node in turn.
    pub(crate) fn end_all(&self) {
        let entries: Vec<_> = self
            .processes
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        for entry in entries {
            self.exit(&entry, Term::atom("shutdown"));
        }
        let functions = std::mem::take(
            &mut *self
                .functions
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(functions);
        self.node_monitors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    #[cfg(test)]
    pub(crate) fn monitored_names(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn node_down(&self, connection: &Arc<Connection>, reason: &Reason) {
        nodedown::run(self, connection, reason);
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
