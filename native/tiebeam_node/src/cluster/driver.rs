//! The driver: a process that steps the core with what happens, and does what the core wants done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::{Action, Answer, CallId, Cluster, Event, Instant, Member, NodeName, Notice};
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::cluster::dials::Dials;
use crate::cluster::event::ClusterEvent;
use crate::cluster::handle::{Request, SharedVitals, Vitals};
use crate::cluster::observations::Observations;
use crate::cluster::subscribers::Subscribers;
use crate::cluster::term;
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
    pub(super) calls: BTreeMap<CallId, oneshot::Sender<Answer>>,
    pub(super) next_call: u64,
    pub(super) dials: Dials,
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
                Some(request) = requests.recv() => self.request(request, &process),
                () = self.dials.ended() => {}
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
                Signal::Call(call) => self.call(call, process),
                Signal::Down { reference, .. } => self.subscribers.down(&reference),
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

    /// Any node may ask: `GenServer.call({:tiebeam, node}, request)`.
    fn call(&mut self, call: Call, process: &Process) {
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
        // A request of a newer release is no reason to end.
        let reply = reply
            .unwrap_or_else(|| Term::tuple([Term::atom("error"), Term::atom("unknown_request")]));
        if let Err(error) = call.reply_term(reply) {
            debug!("a reply was not sent: {error}");
        }
    }

    fn unsubscribe(&mut self, pid: &Pid, process: &Process) -> Term {
        self.subscribers.remove(pid, process);
        Term::atom("ok")
    }

    fn request(&mut self, Request { command, answer }: Request, process: &Process) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, answer);
        self.step([Event::Asked { call, command }], process);
    }

    /// Steps the core and carries out what it wants; the time is that of this moment, however late that is.
    pub(super) fn step(&mut self, events: impl IntoIterator<Item = Event>, process: &Process) {
        let now = Instant::from_micros(self.origin.elapsed().as_micros() as u64);
        let mut actions = Vec::new();
        for event in events {
            let mut next = VecDeque::from([event]);
            while let Some(event) = next.pop_front() {
                let known = actions.len();
                self.core.step(now, event, &mut actions);
                // Samples are answered before anything else is stepped.
                next.extend(actions[known..].iter().filter_map(|action| match action {
                    Action::Sample { node } => Some(self.sampled(node)),
                    _ => None,
                }));
            }
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
            Action::Sample { .. } => {}
            Action::Evict { node } => {
                info!(%node, "a dead member is disconnected");
                self.node.disconnect(node.as_str());
            }
            Action::EvictAt { at, node } => self.evict_at(&at, &node, process),
            Action::Answer { call, answer } => {
                if let Some(waiting) = self.calls.remove(&call) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(answer);
                }
            }
            Action::Notify(notice) => self.notify(notice, process),
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
