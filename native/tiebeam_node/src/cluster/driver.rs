//! The driver: a process that steps the core with what happens, and does what the core wants done.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::leadership::group::{self, Led, Output};
use tiebeam_core::leadership::machine::WatchId;
use tiebeam_core::registry::{self, Change, Loss, OnConflict};
use tiebeam_core::{
    Action, Answer, CallId, Cluster, Command, Event, Instant, Member, NodeName, Notice,
};
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::cluster::dials::Dials;
use crate::cluster::disk::Writer;
use crate::cluster::event::ClusterEvent;
use crate::cluster::group_question::{self, GroupQuestion};
use crate::cluster::handle::{Asked, MAX_REQUESTS, Request, SharedVitals, Vitals};
use crate::cluster::kv::{Kv, KvChange};
use crate::cluster::leadership;
use crate::cluster::name::{Name, term_of};
use crate::cluster::observations::Observations;
use crate::cluster::question::{self, Question, Read};
use crate::cluster::registry::{RegistryError, Shared, done};
use crate::cluster::registry_event::Told;
use crate::cluster::replica::{Composition, Lease, News};
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
    /// Where the group's writes go.
    pub(super) writer: Writer,
    /// What handles have of the group, this node's copy above all.
    pub(super) leadership: leadership::Shared,
    pub(super) leaders: broadcast::Sender<News>,
    /// Processes that want to hear of leaders alone.
    pub(super) followers: Subscribers,
    pub(super) watches: HashMap<WatchId, Watcher>,
    /// What carrying out an action made happen; the core is told in the same turn.
    pub(super) happened: VecDeque<Event>,
}

/// A handle that watches keys.
pub(super) struct Watcher {
    changes: mpsc::Sender<KvChange>,
    /// It ends when there is no room.
    strict: bool,
    /// Changes that were dropped since the last one that was sent, because it is slow.
    missed: u64,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody keeps it up to date any more, and a name that leads to the wrong process is worse than none.
        self.registry.table.clear();
        self.leadership.replica.end();
    }
}

impl Driver {
    pub(super) async fn run(mut self, mut process: Process, mut requests: mpsc::Receiver<Request>) {
        loop {
            let deadline = self
                .core
                .deadline()
                .map(|at| self.leadership.origin + Duration::from_micros(at.as_micros()));
            tokio::select! {
                signal = process.recv() => match signal {
                    Some(signal) => self.signals(Some(signal), &mut process),
                    None => return,
                },
                Some(request) = requests.recv() => self.requests(request, &mut requests, &process),
                () = self.dials.ended() => {}
                verdict = self.verdicts.given() => self.step([verdict], &process),
                written = self.writer.written() => self.written(written, &process),
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
                    self.followers.down(&reference);
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
                "health" => Some(term::health(view.health(), view.group().as_ref())),
                "metrics" => Some(term::metrics(view.metrics())),
                _ => None,
            },
            Term::Tuple(request) => match request.as_slice() {
                [Term::Atom(request), Term::Pid(pid)] => match request.as_str() {
                    "subscribe" => Some(self.subscribers.add(pid, process)),
                    "unsubscribe" => Some(self.unsubscribe(pid, process)),
                    "subscribe_leader" => Some(self.follow(pid, process)),
                    "unsubscribe_leader" => {
                        self.followers.remove(pid, process);
                        Some(Term::atom("ok"))
                    }
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
                None => match GroupQuestion::parse(call.request()) {
                    Some(Ok(GroupQuestion::Leader)) => {
                        group_question::leader(&self.leadership.replica.led())
                    }
                    Some(Ok(GroupQuestion::Locks)) => {
                        group_question::locks(&self.leadership.replica)
                    }
                    Some(Ok(GroupQuestion::List(prefix))) => {
                        self.list_keys(prefix, call);
                        return None;
                    }
                    Some(Ok(GroupQuestion::Ask(request))) => {
                        let (_, reply_to) = call.into_parts();
                        let asked = Asked::Process(reply_to);
                        let command = Command::Leadership(request);
                        return self.asked(Request { command, asked }, process);
                    }
                    Some(Err(refusal)) => refusal,
                    // A request of a newer release is no reason to end.
                    None => Term::tuple([Term::atom("error"), Term::atom("unknown_request")]),
                },
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

    /// The same with keys, which are asked for in steps.
    fn list_keys(&self, prefix: Vec<u8>, call: Call) {
        let kv = Kv::new(self.leadership.clone()).timeout(group_question::TIMEOUT);
        let listing = Arc::clone(&self.listing);
        let (_, reply_to) = call.into_parts();
        tokio::spawn(async move {
            let _turn = listing.acquire().await;
            let reply = group_question::keys(kv.list(prefix).await);
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
        let asked = match (asked, &command) {
            (Asked::Watch(answer, changes, strict), Command::Leadership(request)) => {
                if let group::Command::Watch { watch, .. } = request.command {
                    let watcher = Watcher {
                        changes,
                        strict,
                        missed: 0,
                    };
                    self.watches.insert(watch, watcher);
                }
                Asked::Handle(answer)
            }
            (asked, _) => asked,
        };
        if let Command::Leadership(request) = &command
            && let group::Command::Unwatch { watch } = request.command
        {
            self.watches.remove(&watch);
        }
        if let Some(pid) = process_of(&command) {
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

    fn answer(&mut self, call: CallId, answer: Answer) {
        if let Some(asked) = self.calls.remove(&call) {
            self.reply(asked, answer);
        }
    }

    fn reply(&self, asked: Asked, answer: Answer) {
        match asked {
            // Whoever asked may have given up.
            Asked::Handle(waiting) | Asked::Watch(waiting, ..) => drop(waiting.send(answer)),
            Asked::Process(reply_to) => {
                let reply = match answer {
                    Answer::Leadership(_) | Answer::NoGroup => group_question::answer(answer),
                    answer => question::answer(done(answer)),
                };
                if let Err(error) = reply_to.reply_term(reply) {
                    debug!("a reply was not sent: {error}");
                }
            }
            Asked::Nobody => {}
        }
    }

    /// Something is on disk, or is not.
    fn written(&mut self, event: Event, process: &Process) {
        if let Event::Unpersisted { why } = &event {
            error!(
                "this node takes no part in its group any more, what it agreed to could not be written: {why}"
            );
        }
        self.step([event], process);
    }

    /// Steps the core and carries out what it wants; the time is that of this moment, however late that is.
    pub(super) fn step(&mut self, events: impl IntoIterator<Item = Event>, process: &Process) {
        let now = self.leadership.now();
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
        // Last of all, so that whoever is answered finds in the tables what it was answered.
        let mut answers = Vec::new();
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Answer {
                        call,
                        answer: answer @ Answer::Leadership(_),
                    } => answers.push((call, answer)),
                    action => self.carry_out(action, process),
                }
            }
            let Some(event) = self.happened.pop_front() else {
                break;
            };
            self.step_one(now, event, &mut actions, process);
        }
        for (call, answer) in answers {
            self.answer(call, answer);
        }
        let view = self.core.view();
        self.vitals.set(Vitals {
            health: view.health(),
            metrics: view.metrics(),
            group: view.group(),
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
                    self.leadership.replica.end();
                }
                self.answer(call, answer);
            }
            Action::Table(change) => self.table(&change),
            Action::Lost(loss) => self.lost(&loss, process),
            Action::Promoted { key, pid } => self.promoted(&key, &pid, process),
            Action::Persist(disk) => self.happened.extend(self.writer.write(disk)),
            Action::Leadership(output) => self.output(output, process),
            Action::Resolve { id, older, younger } => {
                let conflict = Conflict::of(&older, &younger);
                let resolvers = &self.registry.resolvers;
                self.verdicts
                    .start(resolvers, id, conflict, self.verdict_time);
            }
            Action::Notify(notice) => self.notify(notice, process),
        }
    }

    /// What the group wants done.
    fn output(&mut self, output: Output, process: &Process) {
        let replica = &self.leadership.replica;
        match output {
            Output::Row(row) => replica.apply(row),
            Output::Led(led) => self.led(led, process),
            Output::Lease { term, until } => {
                let lease = Lease { term, until };
                replica.lease.send_replace(lease);
            }
            Output::Lost(lost) => {
                if let Some(pid) = pid_of(&lost.pid, &mut self.atoms) {
                    let kind = group_question::kind_term(lost.kind);
                    let (name, token) = (term_of(&lost.name), Term::from(lost.token));
                    self.tell(&pid, [Term::atom("lost"), kind, name, token], process);
                }
            }
            Output::Watched {
                watch,
                key,
                stored,
                revision,
            } => {
                let change = KvChange::of(key, stored, revision);
                if let Some(watcher) = self.watches.get_mut(&watch)
                    && !watcher.tell(change)
                {
                    self.watches.remove(&watch);
                    let command = group::Command::Unwatch { watch };
                    let unwatch = self.unasked(command);
                    self.happened.push_back(unwatch);
                }
            }
            Output::Members { voters, learners } => {
                replica
                    .composition
                    .send_replace(Composition { voters, learners });
            }
            Output::Foreign { node } => warn!(
                %node,
                "a connected node is in a group that was founded apart from this node's: they refuse each other. \
                 Stop the nodes of one of the two, remove their data directories, and start them again"
            ),
            Output::Stopped(why) => {
                match &why {
                    group::Stopped::Left => info!("{why}"),
                    why => error!("this node takes no part in its group any more: {why}"),
                }
                replica.lease.send_modify(|lease| lease.until = None);
                replica.stopped.send_replace(Some(why));
            }
            Output::Condition(condition) => self.condition(condition, process),
            // The cluster has words of its own for these.
            Output::Send { to, bytes } => self.send(&to, bytes, process),
            Output::Persist(disk) => self.happened.extend(self.writer.write(disk)),
            Output::Answer { call, answer } => self.answer(call, Answer::Leadership(answer)),
            Output::Ignored { from, why } => {
                warn!(node = %from, "ignored a message of the group: {why}");
            }
        }
    }

    /// A command of the driver itself, whose answer nobody waits for.
    fn unasked(&mut self, command: group::Command) -> Event {
        let call = CallId(self.next_call);
        self.next_call += 1;
        Event::Asked {
            call,
            command: Command::Leadership(group::Request {
                command,
                timeout: tiebeam_core::Duration::ZERO,
            }),
        }
    }

    /// Something is wrong with this node's part in the group, or nothing is any more.
    fn condition(&mut self, condition: group::Condition, process: &Process) {
        match &condition {
            // Those have been told with more words.
            group::Condition::Foreign(_) | group::Condition::Stopped(_) => {}
            group::Condition::Unfounded(_) => warn!(
                "{condition}. Until then nobody leads, and no key or lock can be had. A voter must run, be connected, and be started \
                 with the same voters"
            ),
            trouble if trouble.is_trouble() => warn!("{trouble}"),
            well => info!("{well}"),
        }
        let told = ClusterEvent::Group(condition);
        let cluster = self.core.view().cluster();
        self.subscribers
            .publish(cluster, &term::event(&told), process);
        // An error: nobody has subscribed.
        let _ = self.events.send(told);
    }

    /// Who leads is news.
    fn led(&mut self, led: Led, process: &Process) {
        match &led.leader {
            Some(leader) => info!(%leader, term = led.term, "a leader"),
            None => info!(term = led.term, "no leader"),
        }
        let replica = &self.leadership.replica;
        let number = replica.news.borrow().number + 1;
        let news = News { number, led };
        // The table first: whoever hears of it finds it there.
        replica.news.send_replace(news.clone());
        let told = leader_event(&news.led);
        let event = term::event(&told);
        let cluster = self.core.view().cluster();
        self.subscribers.publish(cluster, &event, process);
        // Who subscribed to both is told once.
        let subscribed = |pid: &Pid| self.subscribers.contains(pid);
        self.followers
            .publish_but(subscribed, cluster, &event, process);
        // Errors: nobody has subscribed.
        let _ = self.events.send(told);
        let _ = self.leaders.send(news);
    }

    /// A process wants to hear of leaders: it is told who leads, then each change.
    fn follow(&mut self, pid: &Pid, process: &Process) -> Term {
        let reply = self.followers.add(pid, process);
        let event = term::event(&leader_event(&self.leadership.replica.led()));
        self.followers
            .tell(pid, self.core.view().cluster(), &event, process);
        reply
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
            warn!(process = ?pid, "a process was not told what it lost: {error}");
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

impl Watcher {
    /// False if nobody listens any more, or nothing may be left out and there is no room.
    fn tell(&mut self, change: KvChange) -> bool {
        use mpsc::error::TrySendError::{Closed, Full};
        if self.missed > 0 {
            match self.changes.try_send(KvChange::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(Closed(_)) => return false,
            }
        }
        match self.changes.try_send(change) {
            Ok(()) => true,
            Err(Full(_)) => {
                self.missed += 1;
                !self.strict
            }
            Err(Closed(_)) => false,
        }
    }
}

fn leader_event(led: &Led) -> ClusterEvent {
    ClusterEvent::Leader {
        leader: led.leader.clone(),
        term: led.term,
    }
}

/// The process of this node that a command is for: when it ends, the core is told.
fn process_of(command: &Command) -> Option<&Arc<[u8]>> {
    match command {
        Command::Registry(
            registry::Command::Register { pid, .. } | registry::Command::Join { pid, .. },
        ) => Some(pid),
        Command::Leadership(request) => match &request.command {
            group::Command::Acquire { pid, .. } => Some(pid),
            _ => None,
        },
        _ => None,
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
