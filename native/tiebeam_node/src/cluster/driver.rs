//! The driver: a process that steps the core with what happens, and does what the core wants done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::registry::{self, Change, Loss, OnConflict};
use tiebeam_core::{
    Action, Answer, CallId, Cluster, Command, Event, Instant, Member, NodeName, Notice,
};
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tracing::{debug, info, warn};

use crate::cluster::dials::Dials;
use crate::cluster::event::ClusterEvent;
use crate::cluster::handle::{Asked, MAX_REQUESTS, Request, SharedVitals, Vitals};
use crate::cluster::name::{Name, term_of};
use crate::cluster::observations::Observations;
use crate::cluster::question::{self, Question, Read};
use crate::cluster::registry::{RegistryError, Shared, done};
use crate::cluster::registry_event::Told;
use crate::cluster::resolvers::{Conflict, Verdicts};
use crate::cluster::subscribers::Subscribers;
use crate::cluster::table::{Atoms, Row, pid_bytes, pid_of};
use crate::cluster::term;
use crate::cluster::watched::{MAX_REMOTE, Watched};
use crate::node::{Node, NodeEvent};
use crate::process::{Call, Process, Signal};
use crate::router::NotSent;

/// The tag of messages between cores: `{'$tiebeam', Node, Bytes}`.
const TAG: &str = "$tiebeam";

/// Signals that one step may take from the mailbox before actions are carried out. Keeps the task's turn at a few hundred
/// microseconds in a cluster of a hundred nodes, and what the core is told close to the time it is told with.
const MAX_BATCH: usize = 64;

/// How old what handles see of round trips may become: nothing else of a member changes without a notice.
const REFRESH: tiebeam_core::Duration = tiebeam_core::Duration::from_secs(1);

pub(super) struct Driver {
    pub(super) node: Node,
    /// The registered name that members send to.
    pub(super) registered: Atom,
    pub(super) core: Cluster,
    /// The origin of the core's time.
    pub(super) origin: tokio::time::Instant,
    pub(super) members: watch::Sender<Arc<[Member]>>,
    /// When `members` was set.
    pub(super) shown: Instant,
    pub(super) vitals: SharedVitals,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    pub(super) subscribers: Subscribers,
    pub(super) observations: Observations,
    /// Requests that wait for the core's answer.
    pub(super) calls: BTreeMap<CallId, Asked>,
    pub(super) next_call: u64,
    pub(super) dials: Dials,
    /// What handles have of names and groups, the table above all.
    pub(super) registry: Shared,
    pub(super) registry_events: broadcast::Sender<Told>,
    pub(super) watched: Watched,
    pub(super) verdicts: Verdicts,
    /// How long the core waits for a verdict.
    pub(super) verdict_time: Duration,
    /// Lists of names are made one after the other: each takes as much memory as the table.
    pub(super) listing: Arc<Semaphore>,
    pub(super) atoms: Atoms,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody keeps it up to date any more, and a name that leads to the wrong process is worse than none.
        self.registry.table.clear();
    }
}

impl Driver {
    pub(super) async fn run(mut self, mut process: Process, mut requests: mpsc::Receiver<Request>) {
        loop {
            let deadline = self
                .core
                .deadline()
                .map(|at| self.origin + Duration::from_micros(at.as_micros()));
            tokio::select! {
                signal = process.recv() => match signal {
                    Some(signal) => self.signals(Some(signal), &mut process),
                    None => return,
                },
                Some(request) = requests.recv() => self.requests(request, &mut requests, &process),
                () = self.dials.ended() => {}
                verdict = self.verdicts.given() => self.step([verdict], &process),
                // What waits comes first: it may be what the core is waiting for.
                () = sleep_until(deadline) => self.signals(None, &mut process),
            }
        }
    }

    /// This signal and those that wait behind it, as one step; without any, it is a wake-up.
    fn signals(&mut self, first: Option<Signal>, process: &mut Process) {
        let mut events = Vec::new();
        let mut next = first.or_else(|| process.try_recv());
        let mut taken = 0;
        while let Some(signal) = next {
            match signal {
                Signal::Message(message) => events.extend(self.message(&message)),
                Signal::Node(event) => events.extend(self.node_event(event)),
                Signal::Call(call) => events.extend(self.call(call, process)),
                Signal::Down { reference, .. } => {
                    self.subscribers.down(&reference);
                    events.extend(self.watched.down(&reference, process));
                }
                Signal::Cast(_) | Signal::Exit { .. } => {}
            }
            taken += 1;
            next = (taken < MAX_BATCH).then(|| process.try_recv()).flatten();
        }
        if events.is_empty() {
            events.push(Event::Woke);
        }
        self.step(events, process);
    }

    /// What a message is to the core: `{'$tiebeam', Node, Bytes}`, or the answer to a question of ours. Anything else is
    /// none of its business.
    fn message(&mut self, message: &Term) -> Option<Event> {
        match message.as_tuple()? {
            [Term::Atom(tag), Term::Atom(node), Term::Binary(bytes)] if *tag == TAG => {
                Some(Event::Received {
                    from: NodeName::parse(node.as_str()).ok()?,
                    bytes: bytes.as_slice().to_vec(),
                })
            }
            [Term::Reference(reference), _] => self.observations.answered(reference),
            _ => None,
        }
    }

    fn node_event(&mut self, event: NodeEvent) -> Option<Event> {
        let event = connection_event(event)?;
        if let Event::Disconnected { from } = &event {
            self.observations.forget(from);
        }
        Some(event)
    }

    /// Any node may ask: `GenServer.call({:tiebeam, node}, request)`. What the core must be told of it.
    fn call(&mut self, call: Call, process: &Process) -> Option<Event> {
        let view = self.core.view();
        let reply = match call.request() {
            Term::Atom(request) => match request.as_str() {
                "members" => Some(Term::list(
                    view.members().map(term::member).collect::<Vec<_>>(),
                )),
                "health" => Some(term::health(view.health())),
                "metrics" => Some(term::metrics(view.metrics())),
                _ => None,
            },
            Term::Tuple(request) => match request.as_slice() {
                [Term::Atom(request), Term::Pid(pid)] => match request.as_str() {
                    "subscribe" => Some(self.subscribers.add(pid, process)),
                    "unsubscribe" => Some(self.unsubscribe(pid, process)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        let reply = match reply {
            Some(reply) => reply,
            None => match Question::parse(call.request()) {
                Some(Ok(Question::Read { scope, read })) if read.is_long() => {
                    self.list(scope, read, call);
                    return None;
                }
                Some(Ok(Question::Read { scope, read })) => {
                    read.answer(&scope, self.registry.clone())
                }
                Some(Ok(Question::Change { command, pid })) => {
                    return self.change(command, &pid, call, process);
                }
                Some(Ok(Question::Unregister { scope, name })) => {
                    return self.unregister(scope, &name, call, process);
                }
                Some(Err(refusal)) => refusal,
                // A request of a newer release is no reason to end.
                None => Term::tuple([Term::atom("error"), Term::atom("unknown_request")]),
            },
        };
        if let Err(error) = call.reply_term(reply) {
            debug!("a reply was not sent: {error}");
        }
        None
    }

    /// Answers with a list that may be long, while the driver goes on.
    fn list(&self, scope: String, read: Read, call: Call) {
        let (registry, listing) = (self.registry.clone(), Arc::clone(&self.listing));
        let (_, reply_to) = call.into_parts();
        tokio::spawn(async move {
            // An error: nobody closes it.
            let _turn = listing.acquire().await;
            let reply = read.answer(&scope, registry);
            if let Err(error) = reply_to.reply_term_paced(reply).await {
                debug!("a list was not sent: {error}");
            }
        });
    }

    /// A process asks for a change of names or groups: of processes of its own node, or of this one.
    fn change(
        &mut self,
        mut command: registry::Command,
        pid: &Pid,
        call: Call,
        process: &Process,
    ) -> Option<Event> {
        let node = call.from().node.clone();
        let (_, reply_to) = call.into_parts();
        let refused = {
            let own = pid.node == *self.node.name();
            let leaves = matches!(command, registry::Command::Leave { .. });
            if leaves && pid.node != node && node != *self.node.name() {
                Some(question::not_theirs(pid))
            } else if pid.node != node && !own {
                let elsewhere = RegistryError::Elsewhere { pid: pid.clone() };
                Some(question::answer(Err(elsewhere)))
            } else if !own && self.node.router().connection(&pid.node).is_none() {
                // A monitor would dial: nobody makes this node call on others by naming a pid.
                let text = format!(
                    "{} is not connected, so {pid:?} cannot be watched",
                    pid.node
                );
                Some(question::invalid(text))
            } else {
                None
            }
        };
        if let Some(refusal) = refused {
            if let Err(error) = reply_to.reply_term(refusal) {
                debug!("a reply was not sent: {error}");
            }
            return None;
        }
        if let registry::Command::Register { scope, resolve, .. } = &mut command {
            *resolve = self.registry.resolvers.has(scope);
        }
        let command = Command::Registry(command);
        let asked = Asked::Process(reply_to);
        self.asked(Request { command, asked }, process)
    }

    /// A process asks to take a name away: from a process of its own node, unless that is this one.
    fn unregister(
        &mut self,
        scope: String,
        name: &Name,
        call: Call,
        process: &Process,
    ) -> Option<Event> {
        let from = call.from().node.clone();
        let (_, reply_to) = call.into_parts();
        let me = self.node.name();
        let holder = self.registry.table.name(&scope, name);
        let theirs = |row: &Row| row.pid.node == from || row.node.as_str() != me.as_str();
        if let Some(row) = holder.as_ref().filter(|row| from != *me && !theirs(row)) {
            if let Err(error) = reply_to.reply_term(question::not_theirs(&row.pid)) {
                debug!("a reply was not sent: {error}");
            }
            return None;
        }
        let command = Command::Registry(registry::Command::Unregister {
            scope,
            name: name.bytes().clone(),
            pid: holder.map(|row| pid_bytes(&row.pid)),
        });
        let asked = Asked::Process(reply_to);
        self.asked(Request { command, asked }, process)
    }

    fn unsubscribe(&mut self, pid: &Pid, process: &Process) -> Term {
        self.subscribers.remove(pid, process);
        Term::atom("ok")
    }

    /// This request and those that wait behind it, as one step: the registry tells the others of all in one message.
    fn requests(
        &mut self,
        first: Request,
        waiting: &mut mpsc::Receiver<Request>,
        process: &Process,
    ) {
        let mut events = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            events.extend(self.asked(request, process));
            taken += 1;
            next = (taken < MAX_REQUESTS)
                .then(|| waiting.try_recv().ok())
                .flatten();
        }
        self.step(events, process);
    }

    /// What a request is to the core; `None` if it is answered already.
    fn asked(&mut self, Request { command, asked }: Request, process: &Process) -> Option<Event> {
        if let Command::Registry(
            registry::Command::Register { pid, .. } | registry::Command::Join { pid, .. },
        ) = &command
        {
            let Some(pid) = pid_of(pid, &mut self.atoms) else {
                self.reply(asked, Answer::Registry(registry::Answer::Exited));
                return None;
            };
            // It may have ended since it was asked for. If it ends from here on, its monitor says so.
            let own = pid.node == *self.node.name();
            if own && !self.node.is_process_alive(&pid) {
                self.reply(asked, Answer::Registry(registry::Answer::Exited));
                return None;
            }
            if !self.watched.add(&pid, process) {
                let full = registry::Refusal::Full { limit: MAX_REMOTE };
                self.reply(asked, Answer::Registry(registry::Answer::Refused(full)));
                return None;
            }
        }
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, asked);
        Some(Event::Asked { call, command })
    }

    fn reply(&self, asked: Asked, answer: Answer) {
        match asked {
            // Whoever asked may have given up.
            Asked::Handle(waiting) => drop(waiting.send(answer)),
            Asked::Process(reply_to) => {
                if let Err(error) = reply_to.reply_term(question::answer(done(answer))) {
                    debug!("a reply was not sent: {error}");
                }
            }
        }
    }

    /// Steps the core and carries out what it wants; the time is that of this moment, however late that is.
    pub(super) fn step(&mut self, events: impl IntoIterator<Item = Event>, process: &Process) {
        let now = Instant::from_micros(self.origin.elapsed().as_micros() as u64);
        let mut actions = Vec::new();
        let mut woken = false;
        for event in events {
            woken = event == Event::Woke;
            self.step_one(now, event, &mut actions, process);
        }
        // The turn ends: what the registry has to say to others goes out in one message.
        if !woken && self.core.deadline().is_some_and(|at| at <= now) {
            self.step_one(now, Event::Woke, &mut actions, process);
        }
        // First of all, so that whoever hears of a change finds it in `members`.
        self.show(now, &actions);
        for action in actions {
            self.carry_out(action, process);
        }
        let view = self.core.view();
        self.vitals.set(Vitals {
            health: view.health(),
            metrics: view.metrics(),
        });
    }

    /// Steps the core with one event, and answers what it asks for at once.
    fn step_one(
        &mut self,
        now: Instant,
        event: Event,
        actions: &mut Vec<Action>,
        process: &Process,
    ) {
        let mut next = VecDeque::from([event]);
        while let Some(event) = next.pop_front() {
            let known = actions.len();
            self.core.step(now, event, actions);
            for action in &actions[known..] {
                match action {
                    Action::Sample { node } => next.push_back(self.sampled(node)),
                    Action::Check { id, pid } => {
                        let pid = pid_of(pid, &mut self.atoms);
                        next.push_back(Event::Checked {
                            id: *id,
                            alive: pid.is_some_and(|pid| self.watched.is_alive(&pid, process)),
                        });
                    }
                    _ => {}
                }
            }
        }
    }

    fn show(&mut self, now: Instant, actions: &[Action]) {
        let changed = actions.iter().any(|action| match action {
            Action::Notify(notice) => match notice {
                Notice::Up(_)
                | Notice::Down(_)
                | Notice::Left(_)
                | Notice::Refreshed(_)
                | Notice::Suspect(_)
                | Notice::Recovered(_)
                | Notice::Updated(_)
                | Notice::Contested { .. }
                | Notice::Conflict { .. }
                | Notice::Forgotten(_) => true,
                Notice::Stalled { .. }
                | Notice::Health { .. }
                | Notice::Broadcast { .. }
                | Notice::Refused { .. }
                | Notice::Ignored { .. } => false,
            },
            _ => false,
        });
        if changed || now.since(self.shown) >= REFRESH {
            self.shown = now;
            let members: Arc<[Member]> = self.core.view().members().cloned().collect();
            self.members.send_if_modified(|shown| {
                let differs = *shown != members;
                *shown = members;
                differs
            });
        }
    }

    /// How much the connection of a node received.
    fn sampled(&self, node: &NodeName) -> Event {
        let connection = Atom::new(node.as_str())
            .ok()
            .and_then(|peer| self.node.router().connection(&peer));
        Event::Sampled {
            node: node.clone(),
            received: connection.map(|connection| connection.received()),
        }
    }

    fn carry_out(&mut self, action: Action, process: &Process) {
        match action {
            Action::Send { to, bytes } => self.send(&to, bytes, process),
            Action::Observe { node, probe } => {
                if let Err(error) = self.observations.ask(node.clone(), probe, process) {
                    debug!(%node, ?error, "a node is not asked whether it lives");
                }
            }
            // Answered already.
            Action::Sample { .. } | Action::Check { .. } => {}
            Action::Evict { node } => {
                info!(%node, "a dead member is disconnected");
                self.node.disconnect(node.as_str());
            }
            Action::EvictAt { at, node } => self.evict_at(&at, &node, process),
            Action::Answer { call, answer } => {
                if answer == Answer::Left {
                    // From now on nothing is heard of other nodes.
                    self.registry.table.clear();
                }
                if let Some(asked) = self.calls.remove(&call) {
                    self.reply(asked, answer);
                }
            }
            Action::Table(change) => self.table(&change),
            Action::Lost(loss) => self.lost(&loss, process),
            Action::Promoted { key, pid } => self.promoted(&key, &pid, process),
            Action::Resolve { id, older, younger } => {
                let conflict = Conflict::of(&older, &younger);
                let resolvers = &self.registry.resolvers;
                self.verdicts
                    .start(resolvers, id, conflict, self.verdict_time);
            }
            Action::Notify(notice) => self.notify(notice, process),
        }
    }

    fn table(&mut self, change: &Change) {
        self.registry.table.apply(change, &mut self.atoms);
        if self.registry_events.receiver_count() > 0
            && let Some(told) = Told::change(change, &mut self.atoms)
        {
            // An error: the last subscriber has just gone.
            let _ = self.registry_events.send(told);
        }
    }

    /// A process of this node, or one that this node answers for, has lost its name.
    fn lost(&mut self, loss: &Loss, process: &Process) {
        let Some(pid) = pid_of(&loss.pid, &mut self.atoms) else {
            return;
        };
        let kept = loss.kept.as_ref();
        let kept = kept.and_then(|kept| pid_of(kept, &mut self.atoms));
        let kept = kept.map_or_else(|| Term::atom("nil"), Term::from);
        let name = term_of(loss.key.name());
        match loss.on_conflict {
            OnConflict::Exit => {
                let reason = Term::tuple([Term::atom("name_conflict"), name, kept]);
                process.send_exit(&pid, reason);
            }
            OnConflict::Notify | OnConflict::Standby => {
                let scope = question::scope_term(loss.key.scope());
                self.tell(&pid, [Term::atom("lost"), scope, name, kept], process);
            }
        }
        if let Some(told) = Told::lost(loss, &mut self.atoms) {
            let _ = self.registry_events.send(told);
        }
    }

    fn promoted(&mut self, key: &registry::Key, pid: &[u8], process: &Process) {
        if let Some(pid) = pid_of(pid, &mut self.atoms) {
            let scope = question::scope_term(key.scope());
            let event = [Term::atom("promoted"), scope, term_of(key.name())];
            self.tell(&pid, event, process);
        }
        if let Some(told) = Told::promoted(key, pid, &mut self.atoms) {
            let _ = self.registry_events.send(told);
        }
    }

    /// `{tiebeam, Cluster, Event}` to a process that is registered here.
    fn tell(&self, pid: &Pid, event: impl Into<Vec<Term>>, process: &Process) {
        let cluster = Term::binary(self.core.view().cluster());
        let message = Term::tuple([Term::atom("tiebeam"), cluster, Term::tuple(event)]);
        if let Err(error) = process.send(pid, message) {
            warn!(process = ?pid, "a process was not told of its name: {error}");
        }
    }

    fn notify(&mut self, notice: Notice, process: &Process) {
        match &notice {
            Notice::Refused { node, cluster } => warn!(
                %node, %cluster,
                "a connected node is in another cluster; neither takes the other for a member. \
                 If it should be one, give both the same identity"
            ),
            Notice::Ignored { from, why } => {
                warn!(node = %from, "ignored a cluster message: {why}");
            }
            Notice::Contested { member, reason } => warn!(
                node = %member.node,
                "a member seems dead and is not evicted: {reason}. Its connection decides"
            ),
            Notice::Conflict { kept, refused } => warn!(
                node = %kept.node, kept = kept.creation, refused,
                "two running nodes have one name. End one of them"
            ),
            Notice::Stalled { late } => warn!(
                "this node stood still for {late}; if that happens often, it needs more processor time"
            ),
            _ => {}
        }
        let Some(event) = ClusterEvent::of(notice) else {
            return;
        };
        if !self.subscribers.is_empty() {
            let cluster = self.core.view().cluster();
            self.subscribers
                .publish(cluster, &term::event(&event), process);
        }
        // An error: nobody has subscribed.
        let _ = self.events.send(event);
    }

    fn send(&mut self, to: &NodeName, bytes: Vec<u8>, process: &Process) {
        let Ok(peer) = Atom::new(to.as_str()) else {
            return;
        };
        let own = Term::from(self.node.name().clone());
        let message = Term::tuple([Term::atom(TAG), own, Term::from(bytes::Bytes::from(bytes))]);
        let control = Control::RegSend {
            from: process.pid().clone(),
            name: self.registered.clone(),
        };
        let router = self.node.router();
        match router.send_at_once(process.entry(), &peer, control, Some(message)) {
            Ok(()) => {}
            // The core greets again: these bytes are dropped.
            Err(NotSent::NoConnection) => self.dials.start(&self.node, peer),
            // A probe behind many megabytes would come late and say nothing: a busy link counts as a lost message.
            Err(NotSent::Busy { ahead }) => {
                debug!(%peer, ahead, "the link is busy: a cluster message is dropped");
            }
            Err(NotSent::Encode(reason)) => {
                debug!(%peer, "a cluster message was not sent: {reason}");
            }
        }
    }

    /// `erlang:disconnect_node(Node)` in a process of its own on another node, whose answer nobody reads.
    fn evict_at(&self, at: &NodeName, node: &NodeName, process: &Process) {
        let (Ok(peer), Ok(dead)) = (Atom::new(at.as_str()), Atom::new(node.as_str())) else {
            return;
        };
        let router = self.node.router();
        let control = Control::SpawnRequest {
            reference: router.make_reference(),
            from: process.pid().clone(),
            group_leader: router.group_leader(),
            module: Atom::of("erlang"),
            function: Atom::of("disconnect_node"),
            arity: 1,
            options: Term::list([]),
        };
        let args = Term::list([Term::from(dead)]);
        match router.send_at_once(process.entry(), &peer, control, Some(args)) {
            Ok(()) => info!(%node, %at, "a dead member is disconnected there as well"),
            Err(error) => {
                warn!(%node, %at, ?error, "a node was not told to disconnect a dead member")
            }
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        // A timer takes up to a millisecond even for what is over; the core may ask for a thousand turns on end.
        Some(deadline) if deadline <= tokio::time::Instant::now() => tokio::task::yield_now().await,
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// `None` for a node whose name the core cannot take: no node of a cluster has one.
pub(super) fn connection_event(event: NodeEvent) -> Option<Event> {
    match event {
        NodeEvent::Up { node, visible } => Some(Event::Connected {
            to: NodeName::parse(node.as_str()).ok()?,
            visible,
        }),
        NodeEvent::Down { node, .. } => Some(Event::Disconnected {
            from: NodeName::parse(node.as_str()).ok()?,
        }),
    }
}
