//! Clusters of machines in virtual time: connections, processes and monitors as the node has them, without sockets.
//!
//! A seed decides everything: how long a message takes, who dials whom, what fails when. `TIEBEAM_SEED` replays one run
//! (and `RUST_LOG` does not help: nothing is logged here; [`World::trace`] prints what each machine was told).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use tiebeam_core::{Instant, Random};
use tiebeam_wire::{Atom, Pid, Term};

use super::machine::{Action, Actor, CallId, Event, Machine, Settings, Ticket, Watch};
use super::messages::{Message, NameEntry, Request, default_method};
use super::names::{Conflict, Verdict};
use super::registrar::{Change, Outcome};

/// The three pids of each machine; processes have greater numbers.
const NAME_SERVER: u32 = 1;
const LOCKER: u32 = 2;
const REGISTRAR: u32 = 3;

/// The longest way of a message, in milliseconds.
const LATENCY: u64 = 5;

/// What travels over a link.
#[derive(Clone, Debug)]
enum Packet {
    /// To the name server.
    Named(Term),
    /// To a process.
    Direct(Pid, Term),
    Call(Actor, CallId, Request),
    Answer(Actor, CallId, Term),
    Monitor(Watch, Pid),
    Demonitor(Watch),
    Down(Watch),
}

#[derive(Debug)]
enum Happening {
    /// Something is for a machine to take, if it still lives this life.
    Step(usize, Event),
    /// A packet arrives, if the link is still the one it was sent over.
    Arrive {
        from: usize,
        to: usize,
        link: u64,
        packet: Packet,
    },
    /// A dial is through.
    LinkUp(usize, usize),
    /// One side of a link sees its end.
    SideDown {
        at: usize,
        other: usize,
        link: u64,
    },
    DialFailed(usize, usize),
    Resolve(usize, Atom, i64, Vec<Conflict>),
    Fault(Fault),
}

/// What befalls a cluster.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Dial(usize, usize),
    Register(usize, Term),
    /// All connections of a node end without a word.
    Kill(usize),
    /// A node stops in order.
    Stop(usize),
    /// A connection ends.
    Cut(usize, usize),
    /// The process with this name ends.
    KillNamed(Term),
}

#[derive(Debug, Default)]
struct Link {
    number: u64,
    /// When the last packet of each direction arrives: nothing overtakes.
    last: [u64; 2],
    /// Which sides still have it.
    sides: [bool; 2],
    /// Which sides know that it is over.
    ending: bool,
}

struct Member {
    machine: Machine,
    alive: bool,
    processes: BTreeSet<u32>,
    /// Own monitors: what they watch.
    watching: BTreeMap<Watch, Pid>,
    /// Monitors of others on processes here.
    watched: Vec<(usize, Watch, Pid)>,
    calls: BTreeMap<CallId, (Actor, usize)>,
    tickets: BTreeMap<Ticket, (usize, Actor, CallId)>,
    /// Waits for a link.
    queued: BTreeMap<usize, Vec<Packet>>,
    dialling: BTreeSet<usize>,
    asked_to_connect: Vec<usize>,
    last_ticket: u64,
    next_process: u32,
    woken_at: Option<u64>,
    pub(super) outcomes: Vec<Outcome>,
}

/// A cluster.
pub(super) struct World {
    pub(super) now: u64,
    random: Random,
    members: Vec<Member>,
    links: BTreeMap<(usize, usize), Link>,
    last_link: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    pub(super) trace: bool,
}

fn key(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn side(a: usize, b: usize) -> usize {
    usize::from(a > b)
}

impl World {
    pub(super) fn new(seed: u64, count: usize, rejoin: bool) -> Self {
        let mut random = Random::from_seed(seed);
        let mut names: Vec<usize> = (0..count).collect();
        // Names in random order: who is the boss must not depend on who comes first.
        for i in (1..count).rev() {
            names.swap(i, random.below(i as u64 + 1) as usize);
        }
        let members = names.into_iter().enumerate().map(|(index, name)| {
            let node = Atom::new(&format!("n{name}@sim")).expect("short");
            let pid = |id| Pid {
                node: node.clone(),
                id,
                serial: 0,
                creation: 7,
            };
            let machine = Machine::new(Settings {
                name_server: pid(NAME_SERVER),
                locker: pid(LOCKER),
                registrar: pid(REGISTRAR),
                connect_all: true,
                prevent_overlapping_partitions: true,
                rejoin,
                creation: index as i64,
                seed: random.bits(),
                node,
            });
            Member {
                machine,
                alive: true,
                processes: BTreeSet::from([NAME_SERVER, LOCKER, REGISTRAR]),
                watching: BTreeMap::new(),
                watched: Vec::new(),
                calls: BTreeMap::new(),
                tickets: BTreeMap::new(),
                queued: BTreeMap::new(),
                dialling: BTreeSet::new(),
                asked_to_connect: Vec::new(),
                last_ticket: 0,
                next_process: 100,
                woken_at: None,
                outcomes: Vec::new(),
            }
        });
        let members = members.collect();
        Self {
            now: 0,
            random,
            members,
            links: BTreeMap::new(),
            last_link: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            trace: std::env::var_os("TIEBEAM_TRACE").is_some(),
        }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(super) fn node(&self, at: usize) -> &Atom {
        &self.members[at].machine.config.node
    }

    fn index(&self, node: &Atom) -> Option<usize> {
        (0..self.members.len()).find(|&at| self.node(at) == node)
    }

    pub(super) fn fault(&mut self, at: u64, fault: Fault) {
        self.schedule(at, Happening::Fault(fault));
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    /// Lets time pass until `until`.
    pub(super) fn run(&mut self, until: u64) {
        while let Some(&Reverse((at, sequence))) = self.queue.peek() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(happening) = self.happenings.remove(&sequence) {
                self.happen(happening);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Step(at, event) => self.step(at, event),
            Happening::Arrive {
                from,
                to,
                link,
                packet,
            } => {
                let current = self.links.get(&key(from, to));
                let open = current.is_some_and(|l| l.number == link && l.sides[side(to, from)]);
                if open && self.members[to].alive {
                    self.arrive(from, to, packet);
                }
            }
            Happening::LinkUp(a, b) => self.link_up(a, b),
            Happening::SideDown { at, other, link } => self.side_down(at, other, link),
            Happening::DialFailed(from, to) => self.dial_failed(from, to),
            Happening::Resolve(at, node, my_tag, conflicts) => {
                let mut verdicts = Vec::new();
                for Conflict { theirs, ours } in conflicts {
                    verdicts.push(self.resolve(at, &theirs.pid, &ours.pid));
                }
                let event = Event::Resolved {
                    node,
                    my_tag,
                    verdicts,
                };
                self.step(at, event);
            }
            Happening::Fault(fault) => self.befall(fault),
        }
    }

    /// `random_exit_name`.
    fn resolve(&mut self, at: usize, theirs: &Pid, ours: &Pid) -> Verdict {
        let Some(owner) = self.index(&ours.node) else {
            return Verdict::Failed;
        };
        if owner != at && !self.has_link(at, owner) {
            return Verdict::Failed;
        }
        let (keeps, loses) = match theirs.node < ours.node {
            true => (theirs, ours),
            false => (ours, theirs),
        };
        let (keeps, loses) = (keeps.clone(), loses.clone());
        self.kill_process(&loses);
        Verdict::Answered(Term::from(keeps))
    }

    fn befall(&mut self, fault: Fault) {
        if self.trace {
            println!("{:>7} {fault:?}", self.now);
        }
        match fault {
            Fault::Dial(from, to) => self.dial(from, to),
            Fault::Register(at, name) => {
                let member = &mut self.members[at];
                if !member.alive {
                    return;
                }
                let id = member.next_process;
                member.next_process += 1;
                member.processes.insert(id);
                member.last_ticket += 1;
                let ticket = Ticket(member.last_ticket);
                let pid = Pid {
                    id,
                    ..member.machine.config.locker.clone()
                };
                let change = Change::Register(NameEntry {
                    name,
                    pid,
                    method: default_method(),
                });
                self.step(at, Event::Change { ticket, change });
            }
            Fault::Kill(at) => {
                self.members[at].alive = false;
                self.drop_links(at);
            }
            Fault::Stop(at) => {
                self.step(at, Event::Stopping);
                self.drop_links(at);
            }
            Fault::Cut(a, b) => self.end_link(a, b),
            Fault::KillNamed(name) => {
                let named = |member: &Member| member.machine.names.pid(&name).cloned();
                if let Some(pid) = self.members.iter().find_map(named) {
                    self.kill_process(&pid);
                }
            }
        }
    }

    fn drop_links(&mut self, at: usize) {
        for other in 0..self.members.len() {
            if other != at {
                self.end_link(at, other);
            }
        }
    }

    // ---- links

    fn has_link(&self, at: usize, other: usize) -> bool {
        let link = self.links.get(&key(at, other));
        link.is_some_and(|link| link.sides[side(at, other)])
    }

    fn dial(&mut self, from: usize, to: usize) {
        if from == to || self.has_link(from, to) {
            return self.tell_connected(from, to, true);
        }
        if !self.members[from].dialling.insert(to) {
            return;
        }
        let at = self.now + 1 + self.random.below(10);
        self.schedule(at, Happening::LinkUp(from, to));
    }

    fn link_up(&mut self, a: usize, b: usize) {
        if !self.members[a].dialling.contains(&b) {
            return;
        }
        if !self.members[a].alive || !self.members[b].alive {
            return self.schedule(self.now + 1, Happening::DialFailed(a, b));
        }
        match self.links.get(&key(a, b)) {
            Some(link) if link.sides == [true, true] && !link.ending => {
                self.members[a].dialling.remove(&b);
                return self.tell_connected(a, b, true);
            }
            // The end of the old link is not over: nodedown comes before nodeup.
            Some(link) if link.sides != [false, false] => {
                return self.schedule(self.now + 3, Happening::LinkUp(a, b));
            }
            _ => {}
        }
        self.last_link += 1;
        let link = Link {
            number: self.last_link,
            last: [self.now; 2],
            sides: [true, true],
            ending: false,
        };
        self.links.insert(key(a, b), link);
        for (at, other) in [(a, b), (b, a)] {
            self.members[at].dialling.remove(&other);
            // What waited goes first, then this node hears of it.
            for packet in self.members[at].queued.remove(&other).unwrap_or_default() {
                self.transmit(at, other, packet);
            }
        }
        for (at, other) in [(a, b), (b, a)] {
            let up = Event::NodeUp(self.node(other).clone());
            let delay = self.random.below(3);
            self.schedule(self.now + delay, Happening::Step(at, up));
            if let Some(link) = self.links.get_mut(&key(a, b)) {
                let towards = side(at, other);
                link.last[towards] = link.last[towards].max(self.now + delay);
            }
            self.tell_connected(at, other, true);
        }
    }

    fn dial_failed(&mut self, from: usize, to: usize) {
        self.members[from].dialling.remove(&to);
        for packet in self.members[from].queued.remove(&to).unwrap_or_default() {
            let event = match packet {
                Packet::Call(actor, call, _) => {
                    self.members[from].calls.remove(&call);
                    Event::Answered {
                        from: actor,
                        call,
                        answer: None,
                    }
                }
                Packet::Monitor(watch, _)
                    if self.members[from].watching.remove(&watch).is_some() =>
                {
                    Event::Down(watch)
                }
                _ => continue,
            };
            self.step(from, event);
        }
        self.tell_connected(from, to, false);
    }

    fn tell_connected(&mut self, at: usize, other: usize, up: bool) {
        let waiting = &mut self.members[at].asked_to_connect;
        if let Some(found) = waiting.iter().position(|&asked| asked == other) {
            waiting.remove(found);
            let node = self.node(other).clone();
            let event = Event::Connected { node, up };
            self.schedule(self.now, Happening::Step(at, event));
        }
    }

    /// The connection ends; each side sees it a moment later.
    fn end_link(&mut self, a: usize, b: usize) {
        let Some(link) = self.links.get_mut(&key(a, b)) else {
            return;
        };
        if link.ending {
            return;
        }
        link.ending = true;
        let number = link.number;
        for (at, other) in [(a, b), (b, a)] {
            let delay = 3 + self.random.below(LATENCY);
            let down = Happening::SideDown {
                at,
                other,
                link: number,
            };
            self.schedule(self.now + delay, down);
        }
    }

    fn side_down(&mut self, at: usize, other: usize, number: u64) {
        let Some(link) = self.links.get_mut(&key(at, other)) else {
            return;
        };
        if link.number != number {
            return;
        }
        link.sides[side(at, other)] = false;
        let member = &mut self.members[at];
        if !member.alive {
            return;
        }
        member.watched.retain(|(watcher, _, _)| *watcher != other);
        member.tickets.retain(|_, (caller, _, _)| *caller != other);
        let node = self.node(other).clone();
        let member = &mut self.members[at];
        let lost: Vec<Watch> = member
            .watching
            .iter()
            .filter(|(_, pid)| pid.node == node)
            .map(|(watch, _)| *watch)
            .collect();
        let unanswered: Vec<(CallId, Actor)> = member
            .calls
            .iter()
            .filter(|(_, (_, to))| *to == other)
            .map(|(call, (actor, _))| (*call, *actor))
            .collect();
        for watch in lost {
            self.members[at].watching.remove(&watch);
            self.step(at, Event::Down(watch));
        }
        for (call, from) in unanswered {
            self.members[at].calls.remove(&call);
            let answer = None;
            self.step(at, Event::Answered { from, call, answer });
        }
        self.step(at, Event::NodeDown(node));
    }

    // ---- packets

    /// Sends over the link, or when there is one.
    fn post(&mut self, from: usize, to: usize, packet: Packet) {
        if self.has_link(from, to) {
            self.transmit(from, to, packet);
        } else {
            self.members[from]
                .queued
                .entry(to)
                .or_default()
                .push(packet);
            self.dial(from, to);
        }
    }

    fn transmit(&mut self, from: usize, to: usize, packet: Packet) {
        let latency = self.random.below(LATENCY);
        let Some(link) = self.links.get_mut(&key(from, to)) else {
            return;
        };
        if link.ending {
            return;
        }
        let towards = side(to, from);
        let at = (self.now + latency).max(link.last[towards]);
        link.last[towards] = at;
        let link = link.number;
        self.schedule(
            at,
            Happening::Arrive {
                from,
                to,
                link,
                packet,
            },
        );
    }

    fn arrive(&mut self, from: usize, to: usize, packet: Packet) {
        match packet {
            Packet::Named(message) => {
                let message = message_of(message);
                self.step(to, Event::Received(message));
            }
            Packet::Direct(pid, message) => {
                assert_eq!(pid.id, LOCKER, "only lockers are sent to");
                let message = Message::of_plain(message).expect("well formed");
                self.step(to, Event::LockerReceived(message));
            }
            Packet::Call(actor, call, request) => {
                let id = match actor {
                    Actor::NameServer => NAME_SERVER,
                    Actor::Locker => LOCKER,
                    Actor::Registrar => REGISTRAR,
                };
                let caller = Pid {
                    id,
                    ..self.members[from].machine.config.locker.clone()
                };
                let member = &mut self.members[to];
                member.last_ticket += 1;
                let ticket = Ticket(member.last_ticket);
                member.tickets.insert(ticket, (from, actor, call));
                // Over the wire and back: what cannot be read back would be lost on real nodes.
                let request = Request::of_term(request.to_term()).expect("well formed");
                let event = Event::Asked {
                    ticket,
                    from: caller,
                    request,
                };
                self.step(to, event);
            }
            Packet::Answer(actor, call, answer) => {
                if self.members[to].calls.remove(&call).is_some() {
                    let event = Event::Answered {
                        from: actor,
                        call,
                        answer: Some(answer),
                    };
                    self.step(to, event);
                }
            }
            Packet::Monitor(watch, pid) => {
                if self.members[to].processes.contains(&pid.id) {
                    self.members[to].watched.push((from, watch, pid));
                } else {
                    self.transmit(to, from, Packet::Down(watch));
                }
            }
            Packet::Demonitor(watch) => self.members[to]
                .watched
                .retain(|(watcher, other, _)| (*watcher, *other) != (from, watch)),
            Packet::Down(watch) => {
                if self.members[to].watching.remove(&watch).is_some() {
                    self.step(to, Event::Down(watch));
                }
            }
        }
    }

    fn kill_process(&mut self, pid: &Pid) {
        let Some(at) = self.index(&pid.node) else {
            return;
        };
        if !self.members[at].processes.remove(&pid.id) {
            return;
        }
        let (gone, kept) = std::mem::take(&mut self.members[at].watched)
            .into_iter()
            .partition(|(_, _, watched)| watched == pid);
        self.members[at].watched = kept;
        let gone: Vec<(usize, Watch, Pid)> = gone;
        for (watcher, watch, _) in gone {
            if watcher == at {
                if self.members[at].watching.remove(&watch).is_some() {
                    self.schedule(self.now, Happening::Step(at, Event::Down(watch)));
                }
            } else {
                self.transmit(at, watcher, Packet::Down(watch));
            }
        }
    }

    // ---- machines

    fn step(&mut self, at: usize, event: Event) {
        if !self.members[at].alive {
            return;
        }
        if self.trace && event != Event::Woke {
            println!("{:>7} {} {event:?}", self.now, self.node(at));
        }
        let now = Instant::from_millis(self.now);
        let actions = self.members[at].machine.step(now, event);
        for action in actions {
            self.act(at, action);
        }
        let deadline = self.members[at].machine.deadline();
        if let Some(deadline) = deadline.map(|at| at.as_micros().div_ceil(1000)) {
            let wake = deadline.max(self.now);
            if self.members[at].woken_at != Some(wake) {
                self.members[at].woken_at = Some(wake);
                self.schedule(wake, Happening::Step(at, Event::Woke));
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Cast {
                node,
                message,
                connect,
                ..
            } => {
                let Some(to) = self.index(&node) else { return };
                assert_ne!(to, at, "a machine does not write to itself");
                if connect || self.has_link(at, to) {
                    self.post(at, to, Packet::Named(message));
                }
            }
            Action::Send { to, message, .. } => {
                if let Some(index) = self.index(&to.node) {
                    self.post(at, index, Packet::Direct(to, message));
                }
            }
            Action::Call {
                call,
                from,
                node,
                request,
                connect,
            } => {
                let to = self.index(&node).expect("known");
                if !connect && !self.has_link(at, to) {
                    let answer = None;
                    let event = Event::Answered { from, call, answer };
                    return self.schedule(self.now, Happening::Step(at, event));
                }
                self.members[at].calls.insert(call, (from, to));
                self.post(at, to, Packet::Call(from, call, request));
            }
            Action::Reply { ticket, reply } => {
                if let Some((caller, actor, call)) = self.members[at].tickets.remove(&ticket) {
                    self.transmit(at, caller, Packet::Answer(actor, call, reply));
                }
            }
            Action::Changed { outcome, .. } => self.members[at].outcomes.push(outcome),
            Action::Watch { watch, pid } => {
                self.members[at].watching.insert(watch, pid.clone());
                let Some(to) = self.index(&pid.node) else {
                    return;
                };
                if to != at {
                    return self.post(at, to, Packet::Monitor(watch, pid));
                }
                if self.members[at].processes.contains(&pid.id) {
                    self.members[at].watched.push((at, watch, pid));
                } else {
                    self.members[at].watching.remove(&watch);
                    self.schedule(self.now, Happening::Step(at, Event::Down(watch)));
                }
            }
            Action::Unwatch { watch } => {
                let Some(pid) = self.members[at].watching.remove(&watch) else {
                    return;
                };
                let Some(to) = self.index(&pid.node) else {
                    return;
                };
                if to == at {
                    self.members[at]
                        .watched
                        .retain(|(watcher, other, _)| (*watcher, *other) != (at, watch));
                } else if self.has_link(at, to) {
                    self.transmit(at, to, Packet::Demonitor(watch));
                }
            }
            Action::Connect { node } => {
                let to = self.index(&node).expect("known");
                self.members[at].asked_to_connect.push(to);
                self.dial(at, to);
            }
            Action::Disconnect { node } => {
                if let Some(to) = self.index(&node) {
                    self.end_link(at, to);
                }
            }
            Action::Resolve {
                node,
                my_tag,
                conflicts,
            } => {
                let when = self.now + 1 + self.random.below(2 * LATENCY);
                self.schedule(when, Happening::Resolve(at, node, my_tag, conflicts));
            }
            Action::Named { .. } | Action::Locked { .. } => {}
        }
    }

    // ---- what must hold when everything has settled

    /// No living node has a lock, or is after one.
    pub(super) fn assert_no_locks(&self, told: &str) {
        for member in self.members.iter().filter(|member| member.alive) {
            let machine = &member.machine;
            let (node, locks, locker) = (&machine.config.node, &machine.locks, &machine.locker);
            assert!(locks.is_empty(), "{told}: {node} has locks: {locks:?}");
            assert!(!locker.is_locking(), "{told}: {node} locks: {locker:?}");
            let waiting = machine.waiting_changes();
            assert_eq!(waiting, 0, "{told}: {node} has changes to make");
        }
    }

    /// Whether some node knows another one that does not know it.
    pub(super) fn half_known(&self) -> bool {
        let alive = || self.members.iter().filter(|member| member.alive);
        let knows = |one: &Member, other: &Member| {
            let other = &other.machine.config.node;
            one.machine.known.contains_key(other)
        };
        alive().any(|one| alive().any(|other| knows(one, other) != knows(other, one)))
    }

    /// Every living node is at rest: no lock, no session, no work.
    pub(super) fn assert_at_rest(&self, told: &str) {
        self.assert_no_locks(told);
        for member in self.members.iter().filter(|member| member.alive) {
            let machine = &member.machine;
            let (node, sessions) = (&machine.config.node, &machine.sessions);
            assert!(
                sessions.is_empty(),
                "{told}: {node} has sessions: {sessions:?}"
            );
        }
    }

    /// The living nodes fall into groups, in which all know each other, nobody else, and have the same names.
    pub(super) fn groups(&self, told: &str) -> Vec<BTreeSet<usize>> {
        let mut groups: Vec<BTreeSet<usize>> = Vec::new();
        for at in (0..self.members.len()).filter(|&at| self.members[at].alive) {
            let known = self.members[at].machine.known.keys();
            let mut group: BTreeSet<usize> = known.filter_map(|node| self.index(node)).collect();
            group.insert(at);
            for &other in &group {
                assert!(
                    other == at || self.has_link(at, other),
                    "{told}: {} knows {} without a connection",
                    self.node(at),
                    self.node(other)
                );
            }
            for other in (0..self.members.len()).filter(|other| !group.contains(other)) {
                assert!(
                    !self.has_link(at, other),
                    "{told}: {} is connected with {}, which it does not know",
                    self.node(at),
                    self.node(other)
                );
            }
            match groups.iter().find(|other| other.contains(&at)) {
                Some(other) => assert_eq!(*other, group, "{told}: partitions overlap"),
                None => groups.push(group),
            }
        }
        let total: usize = groups.iter().map(BTreeSet::len).sum();
        let alive = self.members.iter().filter(|member| member.alive).count();
        assert_eq!(total, alive, "{told}: partitions overlap: {groups:?}");
        for group in &groups {
            let mut tables = group.iter().map(|&at| (at, self.names(at)));
            let (_, first) = tables.next().expect("not empty");
            for (at, table) in tables {
                assert_eq!(
                    first,
                    table,
                    "{told}: the names on {} differ",
                    self.node(at)
                );
            }
            for (name, pid) in first {
                let owner = self.index(&pid.node).expect("a node of this world");
                assert!(
                    group.contains(&owner) && self.members[owner].processes.contains(&pid.id),
                    "{told}: {name} is the name of a dead process"
                );
            }
        }
        groups
    }

    /// The table of names of a node.
    pub(super) fn names(&self, at: usize) -> BTreeMap<String, Pid> {
        let names = self.members[at].machine.names.all().into_iter();
        names
            .map(|entry| (entry.name.to_string(), entry.pid))
            .collect()
    }

    pub(super) fn outcomes(&self, at: usize) -> &[Outcome] {
        &self.members[at].outcomes
    }
}

/// The message, read back from what would go over the wire.
fn message_of(term: Term) -> Message {
    match term {
        Term::Tuple(mut elements) if elements[0].is_atom("$gen_cast") => {
            let cast = elements.pop().expect("a cast has two elements");
            Message::of_cast(cast).expect("well formed").expect("known")
        }
        plain => Message::of_plain(plain).expect("well formed"),
    }
}
