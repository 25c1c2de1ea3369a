//! The driver of the machine: three processes, one task.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tiebeam_core::Instant;
use tiebeam_wire::{Atom, Reference, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use super::handle::{Asked, Shared};
use super::machine::{Action, Actor, CallId, Event, Machine, Settings, Ticket, Watch};
use super::messages::{Message, Request};
use super::names::{Conflict, Verdict};
use super::registrar::Outcome;
use super::{Options, functions, resolver};
use crate::error::{SendError, SpawnError};
use crate::node::{Node, NodeEvent, WeakNode};
use crate::process::{Destination, Process, ReplyTo, Signal};

/// The registered name.
pub(super) const NAME: &str = "global_name_server";

/// Changes of this node's own that may wait inside the machine; others wait in the queue of the handles, and beyond it
/// their callers do.
const CHANGES_MAX: usize = 1024;

/// How long a resolver may take. It is less than the locker's patience on the other side.
const RESOLVE_TIME: Duration = Duration::from_secs(30);

/// Whoever calls a name server waits without a time limit. If it does not take a single step for two of these
/// intervals while something waits, it is stuck, and its peers must be freed.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(5);

/// Where the numbers of a reporter's incarnations begin: as those of a BEAM, they have 60 bits, the lower half of which
/// is the creation.
const CREATION_BASE: i64 = 1 << 59;

/// Starts the service. Before this returns, it takes messages.
pub(crate) fn start(node: &Node, options: Options) -> Arc<Shared> {
    let (shared, requests) = Shared::new();
    let shared = Arc::new(shared);
    resolver::export(node);
    functions::export(node);
    let requests = Arc::new(tokio::sync::Mutex::new(requests));
    match Driver::start(node, options, &shared, &requests) {
        Ok(ended) => {
            let supervisor = Supervisor {
                node: node.downgrade(),
                options,
                shared: Arc::clone(&shared),
                requests,
            };
            tokio::spawn(supervisor.run(ended));
        }
        Err(error) => error!("global cannot start: {error}"),
    }
    shared
}

type Requests = Arc<tokio::sync::Mutex<mpsc::Receiver<Asked>>>;

/// Starts the service anew when it ends before the node does.
struct Supervisor {
    node: WeakNode,
    options: Options,
    shared: Arc<Shared>,
    requests: Requests,
}

impl Supervisor {
    async fn run(self, mut ended: oneshot::Receiver<()>) {
        loop {
            self.watch(&mut ended).await;
            let Some(node) = self.node.upgrade() else {
                return;
            };
            if node.router().is_stopping() {
                return;
            }
            error!(
                "global has ended on this node: it disconnects from its peers, so that none waits for it, and begins anew"
            );
            for connection in node.router().connections() {
                if connection.visible {
                    connection.close(crate::connection::Reason::Disconnect);
                    connection.ended().await;
                }
            }
            self.shared.clear();
            match Driver::start(&node, self.options, &self.shared, &self.requests) {
                Ok(next) => ended = next,
                Err(error) => return error!("global cannot start again: {error}"),
            }
        }
    }

    /// Returns when the driver has ended. Ends it when it is stuck.
    async fn watch(&self, ended: &mut oneshot::Receiver<()>) {
        let mut stuck = 0;
        let mut steps = 0;
        loop {
            // The driver holds the other end until it is dropped.
            if tokio::time::timeout(WATCHDOG_INTERVAL, &mut *ended)
                .await
                .is_ok()
            {
                return;
            }
            let Some(node) = self.node.upgrade() else {
                return;
            };
            let Some(process) = node.router().whereis(&Atom::of(NAME)) else {
                continue;
            };
            let now = self.shared.steps.load(Ordering::Relaxed);
            let idle = process.mailbox.len() == 0 || now != steps;
            stuck = if idle { 0 } else { stuck + 1 };
            steps = now;
            if stuck == 2 {
                error!("global is stuck on this node");
                node.router().exit(&process, Term::atom("kill"));
            }
        }
    }
}

/// Who waits for an answer of the machine.
enum Waiting {
    Caller(ReplyTo),
    Change(oneshot::Sender<Outcome>),
    Sync(oneshot::Sender<()>),
}

struct Driver {
    node: Node,
    shared: Arc<Shared>,
    machine: Machine,
    origin: tokio::time::Instant,
    name_server: Process,
    locker: Process,
    registrar: Process,
    /// Its own calls, by the reference that is both monitor and tag.
    calls: HashMap<Reference, (Actor, CallId)>,
    watches: HashMap<Watch, Reference>,
    watched: HashMap<Reference, Watch>,
    waiting: HashMap<Ticket, Waiting>,
    last_ticket: u64,
    /// What tasks found out.
    found: mpsc::UnboundedReceiver<Event>,
    finder: mpsc::UnboundedSender<Event>,
    stopping: bool,
}

/// What a signal is, once the processes are told apart.
enum Input {
    Signal(Actor, Option<Signal>),
    Event(Event),
    Asked(Asked),
    Woke,
}

impl Driver {
    /// Starts the task; the receiver completes when it has ended, however it ended.
    fn start(
        node: &Node,
        options: Options,
        shared: &Arc<Shared>,
        requests: &Requests,
    ) -> Result<oneshot::Receiver<()>, SpawnError> {
        let name_server = node.spawn(NAME)?;
        let locker = node.spawn_anonymous()?;
        let registrar = node.spawn_anonymous()?;
        for process in [&name_server, &locker, &registrar] {
            // Exit signals are nothing to die of here; only `kill` ends the service.
            process.trap_exit(true);
        }
        name_server.monitor_nodes();
        let extension = i64::from(rand::random::<u32>() & 0x07ff_ffff) << 32;
        let machine = Machine::new(Settings {
            node: node.name().clone(),
            name_server: name_server.pid().clone(),
            locker: locker.pid().clone(),
            registrar: registrar.pid().clone(),
            connect_all: options.connect_all,
            prevent_overlapping_partitions: options.prevent_overlapping_partitions,
            rejoin: options.rejoin,
            creation: CREATION_BASE + extension + i64::from(node.creation()),
            seed: rand::random(),
        });
        let (finder, found) = mpsc::unbounded_channel();
        let (shared, requests) = (Arc::clone(shared), Arc::clone(requests));
        let (alive, ended) = oneshot::channel::<()>();
        let node = node.clone();
        node.clone().run(name_server, |name_server| {
            let driver = Self {
                node,
                shared,
                machine,
                origin: tokio::time::Instant::now(),
                name_server,
                locker,
                registrar,
                calls: HashMap::new(),
                watches: HashMap::new(),
                watched: HashMap::new(),
                waiting: HashMap::new(),
                last_ticket: 0,
                found,
                finder,
                stopping: false,
            };
            async move {
                let _alive = alive;
                driver.run(requests).await;
                Ok(())
            }
        });
        Ok(ended)
    }

    async fn run(mut self, requests: Requests) {
        // Free: the driver before this one is gone.
        let mut requests = requests.lock_owned().await;
        for node in self.node.nodes() {
            self.step(Event::NodeUp(node));
        }
        loop {
            let deadline = self.machine.deadline();
            let wake = async {
                match deadline {
                    Some(at) => {
                        let at = self.origin + Duration::from_micros(at.as_micros());
                        tokio::time::sleep_until(at).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let room = self.machine.waiting_changes() < CHANGES_MAX;
            let input = tokio::select! {
                signal = self.name_server.recv() => Input::Signal(Actor::NameServer, signal),
                signal = self.locker.recv() => Input::Signal(Actor::Locker, signal),
                signal = self.registrar.recv() => Input::Signal(Actor::Registrar, signal),
                Some(event) = self.found.recv() => Input::Event(event),
                Some(asked) = requests.recv(), if room => Input::Asked(asked),
                () = wake => Input::Woke,
            };
            let event = match input {
                // One of the three was killed: without it there is no global.
                Input::Signal(_, None) => return,
                Input::Signal(actor, Some(signal)) => self.event(actor, signal),
                Input::Event(event) => Some(event),
                Input::Asked(asked) => Some(self.asked(asked)),
                Input::Woke => Some(Event::Woke),
            };
            if let Some(event) = event {
                self.step(event);
            }
        }
    }

    fn step(&mut self, event: Event) {
        if !self.stopping && self.node.router().is_stopping() {
            self.stopping = true;
            self.step(Event::Stopping);
        }
        let now = Instant::from_micros(self.origin.elapsed().as_micros() as u64);
        for action in self.machine.step(now, event) {
            self.act(action);
        }
        self.shared.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn asked(&mut self, asked: Asked) -> Event {
        match asked {
            Asked::Change(change, done) => {
                let ticket = self.ticket(Waiting::Change(done));
                Event::Change { ticket, change }
            }
            Asked::Sync(done) => Event::Asked {
                ticket: self.ticket(Waiting::Sync(done)),
                from: self.name_server.pid().clone(),
                request: Request::Sync(self.node.nodes()),
            },
        }
    }

    fn event(&mut self, actor: Actor, signal: Signal) -> Option<Event> {
        match signal {
            Signal::Node(NodeEvent::Up {
                node,
                visible: true,
            }) => Some(Event::NodeUp(node)),
            Signal::Node(NodeEvent::Down {
                node,
                visible: true,
                ..
            }) => Some(Event::NodeDown(node)),
            Signal::Down { reference, .. } => {
                if let Some((from, call)) = self.calls.remove(&reference) {
                    let answer = None;
                    return Some(Event::Answered { from, call, answer });
                }
                let watch = self.watched.remove(&reference)?;
                self.watches.remove(&watch);
                Some(Event::Down(watch))
            }
            Signal::Call(call) => {
                let (request, reply_to) = call.into_parts();
                if actor != Actor::NameServer {
                    return None;
                }
                let from = reply_to.pid().clone();
                match Request::of_term(request) {
                    Ok(request) => Some(Event::Asked {
                        ticket: self.ticket(Waiting::Caller(reply_to)),
                        from,
                        request,
                    }),
                    Err(malformed) => {
                        warn!(?from, "an unexpected call to {NAME}: {malformed}");
                        self.reply(reply_to, crate::kernel::notsup());
                        None
                    }
                }
            }
            Signal::Cast(cast) if actor == Actor::NameServer => match Message::of_cast(cast) {
                Ok(message) => message.map(Event::Received),
                Err(malformed) => {
                    warn!("an unexpected cast to {NAME}: {malformed}");
                    None
                }
            },
            Signal::Message(message) => self.message(actor, message),
            _ => None,
        }
    }

    fn message(&mut self, actor: Actor, message: Term) -> Option<Event> {
        // {Tag, Answer}
        if let Some([Term::Reference(tag), _]) = message.as_tuple() {
            let (from, call) = self.calls.remove(tag)?;
            self.process(from).demonitor(tag);
            let Term::Tuple(mut elements) = message else {
                return None;
            };
            let answer = elements.pop();
            return Some(Event::Answered { from, call, answer });
        }
        match (actor, Message::of_plain(message)) {
            (Actor::NameServer, Ok(message)) => Some(Event::Received(message)),
            (Actor::Locker, Ok(message)) => Some(Event::LockerReceived(message)),
            (Actor::Registrar, Ok(_)) => None,
            (_, Err(malformed)) => {
                debug!(?actor, "an unexpected message: {malformed}");
                None
            }
        }
    }

    fn process(&self, actor: Actor) -> &Process {
        match actor {
            Actor::NameServer => &self.name_server,
            Actor::Locker => &self.locker,
            Actor::Registrar => &self.registrar,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Cast {
                from,
                node,
                message,
                connect,
            } => {
                if connect || self.is_connected(&node) {
                    self.send(from, (Atom::of(NAME), node), message);
                }
            }
            Action::Send { from, to, message } => self.send(from, to, message),
            Action::Call {
                call,
                from,
                node,
                request,
                connect,
            } => self.call(call, from, node, &request, connect),
            Action::Reply { ticket, reply } => match self.waiting.remove(&ticket) {
                Some(Waiting::Caller(reply_to)) => self.reply(reply_to, reply),
                Some(Waiting::Sync(done)) if reply.is_atom("ok") => drop(done.send(())),
                // Too many wait: the sender goes, and whoever waits sees that.
                Some(Waiting::Sync(_)) => {}
                Some(Waiting::Change(_)) | None => {}
            },
            Action::Changed { ticket, outcome } => {
                if let Some(Waiting::Change(done)) = self.waiting.remove(&ticket) {
                    // Whoever asked may have given up; it is done all the same.
                    drop(done.send(outcome));
                }
            }
            Action::Watch { watch, pid } => {
                let reference = self.name_server.monitor(&pid);
                self.watches.insert(watch, reference.clone());
                self.watched.insert(reference, watch);
            }
            Action::Unwatch { watch } => {
                if let Some(reference) = self.watches.remove(&watch) {
                    self.watched.remove(&reference);
                    self.name_server.demonitor(&reference);
                }
            }
            Action::Connect { node } => {
                let (own, finder) = (self.node.clone(), self.finder.clone());
                tokio::spawn(async move {
                    let result = own.connect(node.as_str()).await;
                    if let Err(error) = &result {
                        debug!(%node, "global cannot connect: {error}");
                    }
                    let up = result.is_ok();
                    // The driver may have ended meanwhile.
                    drop(finder.send(Event::Connected { node, up }));
                });
            }
            Action::Disconnect { node } => {
                self.node.disconnect(node.as_str());
            }
            Action::Resolve {
                node,
                my_tag,
                conflicts,
            } => {
                let (own, finder) = (self.node.clone(), self.finder.clone());
                tokio::spawn(async move {
                    let verdicts = resolve_all(&own, conflicts).await;
                    drop(finder.send(Event::Resolved {
                        node,
                        my_tag,
                        verdicts,
                    }));
                });
            }
            Action::Named { name, pid } => self.shared.set_name(name, pid),
            Action::Locked { resource, held } => {
                let held = held.map(|(requester, holders)| {
                    let holders = holders.into_iter();
                    let holders =
                        holders.map(|(pid, watch)| (pid, self.watches.get(&watch).cloned()));
                    (requester, holders.collect())
                });
                self.shared.set_lock(resource, held);
            }
        }
    }

    fn is_connected(&self, node: &Atom) -> bool {
        self.node.router().connection(node).is_some()
    }

    fn send(&self, from: Actor, to: impl Into<Destination>, message: Term) {
        let to = to.into();
        let result = self.process(from).send(to, message);
        self.sent(result);
    }

    fn reply(&self, reply_to: ReplyTo, reply: Term) {
        let result = reply_to.reply_term(reply);
        self.sent(result);
    }

    /// A peer that cannot be told is better without a connection: its name server may be waiting for just this.
    fn sent(&self, result: Result<(), SendError>) {
        match result {
            Ok(()) | Err(SendError::Stopping) => {}
            Err(SendError::Busy { node, queued }) => {
                warn!(%node, queued, "a peer does not read what global tells it: disconnecting it");
                self.node.disconnect(node.as_str());
            }
            Err(error) => warn!("global: {error}"),
        }
    }

    fn call(&mut self, call: CallId, from: Actor, node: Atom, request: &Request, connect: bool) {
        if !connect && !self.is_connected(&node) {
            let answer = None;
            drop(self.finder.send(Event::Answered { from, call, answer }));
            return;
        }
        let to = (Atom::of(NAME), node);
        let reference = self.process(from).monitor(to.clone());
        self.calls.insert(reference.clone(), (from, call));
        let caller = Term::from(self.process(from).pid());
        let message = Term::tuple([
            Term::atom("$gen_call"),
            Term::tuple([caller, Term::from(&reference)]),
            request.to_term(),
        ]);
        self.send(from, to, message);
    }
}

/// One conflict after the other, as `global` does: a resolver may register names.
async fn resolve_all(node: &Node, conflicts: Vec<Conflict>) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(conflicts.len());
    for Conflict { theirs, ours } in conflicts {
        let args = vec![
            ours.method,
            ours.name.clone(),
            Term::from(theirs.pid),
            Term::from(&ours.pid),
        ];
        let owner = ours.pid.node.as_str();
        let answer = node
            .rpc(owner, "global", "resolve_it", args, RESOLVE_TIME)
            .await;
        verdicts.push(match answer {
            Ok(value) => Verdict::Answered(value),
            Err(error) => {
                warn!(name = %ours.name, "a conflict could not be resolved on {owner}: {error}");
                Verdict::Failed
            }
        });
    }
    verdicts
}
