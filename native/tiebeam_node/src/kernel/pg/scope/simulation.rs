//! Clusters of scopes in one thread, Rust's and OTP's mixed: random joins, leaves, deaths, lost connections and restarts, in
//! an order that a seed decides. OTP's scopes are [`Otp`], which ends where the real one does; that one of them ends by what
//! a Rust scope said is a failure. When nothing is under way any more, all views must be equal.
//!
//! A connection here loses what is under way when it is cut, in both directions; each side notices in its own time; and a
//! scope may be so far behind that it answers over a connection what it was asked over the one before.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use tiebeam_core::Random;
use tiebeam_wire::{Atom, Pid, Term};

use super::otp::{Crash, Effect, Otp};
use super::{Action, Change, Event, Scope};
use crate::kernel::pg::members::Members;
use crate::kernel::pg::messages::Message;
use crate::kernel::pg::table::Table;

const SEEDS: u64 = 100;
const PHASES: usize = 4;
const STEPS_PER_PHASE: usize = 500;

/// Rust nodes first, then OTP's.
const RUST: usize = 3;
const NODES: usize = 5;
const GROUPS: u64 = 3;

/// A run that goes on without end would not end the test.
const QUIET_STEPS_MAX: usize = 100_000;

#[test]
fn a_cluster_agrees_when_it_is_quiet_and_no_otp_scope_ends_by_what_was_said() {
    let seeds = match std::env::var("TIEBEAM_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("TIEBEAM_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        if let Err(broken) = run(seed, &mut seen) {
            panic!(
                "seed {seed}: {broken}\nreplay: TIEBEAM_SEED={seed} cargo test -p tiebeam_node pg::scope::simulation"
            );
        }
    }
    if seeds.end - seeds.start == SEEDS {
        // Otherwise it proves nothing.
        let Seen {
            leaves,
            cuts,
            restarts,
            stale,
        } = seen;
        assert!(
            leaves > 3_000 && cuts > 300 && restarts > 100 && stale > 1_000,
            "{seen:?}"
        );
    }
}

/// What happened in all runs.
#[derive(Debug, Default)]
struct Seen {
    /// Leaves that OTP scopes took from Rust ones.
    leaves: usize,
    cuts: usize,
    restarts: usize,
    /// Messages of a connection that was lost when they were read.
    stale: usize,
}

fn run(seed: u64, seen: &mut Seen) -> Result<(), String> {
    let mut world = World::new(seed);
    for _ in 0..PHASES {
        for _ in 0..STEPS_PER_PHASE {
            world.anything(seen)?;
        }
        world.quiet(seen)?;
        world.check()?;
    }
    Ok(())
}

enum Kind {
    Rust(Scope, Table),
    Otp(Otp),
}

struct Node {
    kind: Kind,
    name: Atom,
    /// The scope's process.
    pid: Pid,
    mailbox: VecDeque<Signal>,
    /// What the scope monitors.
    monitors: HashSet<Pid>,
    /// The connections over which a Rust scope sends, as its driver keeps them.
    connections: BTreeMap<usize, usize>,
    /// Scopes that monitor this one.
    watchers: HashSet<Pid>,
    /// The memberships that the node's processes should have.
    members: Vec<(Term, Pid)>,
    alive: BTreeSet<Pid>,
    next_id: u32,
}

enum Signal {
    Message {
        from: usize,
        /// Over which connection it came.
        connection: usize,
        message: Term,
    },
    Down(Pid),
    NodeUp(usize),
    NodeDown(usize),
}

enum Wire {
    ToPid(Pid, Term),
    ToName(Term),
    Monitor { watcher: Pid, target: Pid },
    Down { watcher: Pid, target: Pid },
}

/// Between two nodes; sides and directions are numbered by the sender: 0 is the smaller node.
#[derive(Default)]
struct Link {
    /// Counts its connections.
    number: usize,
    open: bool,
    up: [bool; 2],
    under_way: [VecDeque<Wire>; 2],
}

struct World {
    random: Random,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    /// What a Rust scope has done wrong.
    broken: Option<String>,
}

fn name(index: usize) -> Atom {
    Atom::of(["a@h", "b@h", "c@h", "d@h", "e@h"][index])
}

fn index_of(node: &Atom) -> usize {
    usize::from(node.as_str().as_bytes()[0] - b'a')
}

fn sides(a: usize, b: usize) -> ((usize, usize), usize) {
    if a < b { ((a, b), 0) } else { ((b, a), 1) }
}

impl World {
    fn new(seed: u64) -> Self {
        let nodes = (0..NODES).map(|index| {
            let pid = Pid {
                node: name(index),
                id: 1,
                serial: 0,
                creation: 1,
            };
            Node {
                kind: match index < RUST {
                    true => Kind::Rust(Scope::new(pid.clone()), Table::new()),
                    false => Kind::Otp(Otp::new(pid.clone())),
                },
                name: name(index),
                pid,
                mailbox: VecDeque::new(),
                monitors: HashSet::new(),
                connections: BTreeMap::new(),
                watchers: HashSet::new(),
                members: Vec::new(),
                alive: BTreeSet::new(),
                next_id: 2,
            }
        });
        let pairs = (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)));
        Self {
            random: Random::from_seed(seed),
            nodes: nodes.collect(),
            links: pairs.map(|pair| (pair, Link::default())).collect(),
            broken: None,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn anything(&mut self, seen: &mut Seen) -> Result<(), String> {
        let node = self.below(NODES);
        match self.below(100) {
            0..=14 => self.join(node),
            15..=29 => self.leave(node),
            30..=33 => self.die(node),
            34 if self.below(4) == 0 => self.restart(node, seen),
            35..=39 => {
                let pair = self.pair();
                self.connect(pair);
            }
            40 if self.below(2) == 0 => {
                let pair = self.pair();
                self.cut(pair, seen);
            }
            41..=49 => {
                let (pair, side) = (self.pair(), self.below(2));
                self.notice(pair, side);
            }
            50..=79 => {
                let (pair, side) = (self.pair(), self.below(2));
                self.deliver(pair, side);
            }
            _ => return self.read(node, seen),
        }
        Ok(())
    }

    fn pair(&mut self) -> (usize, usize) {
        let at = self.below(self.links.len());
        *self
            .links
            .keys()
            .nth(at)
            .expect("below the number of links")
    }

    /// Until nothing is under way.
    fn quiet(&mut self, seen: &mut Seen) -> Result<(), String> {
        for _ in 0..QUIET_STEPS_MAX {
            let links: Vec<_> = self.links.keys().copied().collect();
            for pair in &links {
                for side in [0, 1] {
                    self.notice(*pair, side);
                }
            }
            let mut busy: Vec<(usize, Option<(usize, usize)>)> = Vec::new();
            for (pair, link) in &self.links {
                for side in [0, 1] {
                    if link.up[1 - side] && !link.under_way[side].is_empty() {
                        busy.push((side, Some(*pair)));
                    }
                }
            }
            for (node, state) in self.nodes.iter().enumerate() {
                if !state.mailbox.is_empty() {
                    busy.push((node, None));
                }
            }
            if busy.is_empty() {
                return Ok(());
            }
            match busy[self.below(busy.len())] {
                (side, Some(pair)) => self.deliver(pair, side),
                (node, None) => self.read(node, seen)?,
            }
        }
        Err("it never gets quiet".to_owned())
    }

    // ---- connections

    fn connect(&mut self, pair: (usize, usize)) {
        let first = self.below(2);
        let link = self.links.get_mut(&pair).expect("a pair");
        if link.open || link.up != [false; 2] {
            return;
        }
        link.number += 1;
        link.open = true;
        link.under_way = Default::default();
        self.up(pair, first);
    }

    fn up(&mut self, pair: (usize, usize), side: usize) {
        self.links.get_mut(&pair).expect("a pair").up[side] = true;
        let (own, peer) = if side == 0 { pair } else { (pair.1, pair.0) };
        self.nodes[own].mailbox.push_back(Signal::NodeUp(peer));
    }

    fn cut(&mut self, pair: (usize, usize), seen: &mut Seen) {
        seen.cuts += usize::from(self.links[&pair].open);
        self.cut_unseen(pair);
    }

    fn cut_unseen(&mut self, pair: (usize, usize)) {
        let keep = [self.below(4), self.below(4)];
        let link = self.links.get_mut(&pair).expect("a pair");
        if link.open {
            link.open = false;
            // A part may have arrived already.
            for (direction, keep) in keep.into_iter().enumerate() {
                link.under_way[direction].truncate(keep);
            }
        }
    }

    /// One side sees what its connection is now.
    fn notice(&mut self, pair: (usize, usize), side: usize) {
        let link = self.links.get_mut(&pair).expect("a pair");
        if link.open {
            if !link.up[side] {
                self.up(pair, side);
            }
            return;
        }
        link.under_way[1 - side].clear();
        if !std::mem::take(&mut link.up[side]) {
            return;
        }
        let (own, other) = if side == 0 { pair } else { (pair.1, pair.0) };
        let peer = name(other);
        let node = &mut self.nodes[own];
        let mut lost: Vec<Pid> = node.monitors.extract_if(|pid| pid.node == peer).collect();
        lost.sort();
        node.mailbox.extend(lost.into_iter().map(Signal::Down));
        node.mailbox.push_back(Signal::NodeDown(other));
        node.watchers.retain(|pid| pid.node != peer);
    }

    fn transmit(&mut self, from: usize, to: usize, wire: Wire) {
        let (pair, side) = sides(from, to);
        let link = self.links.get_mut(&pair).expect("a pair");
        if link.up[side] {
            if link.open {
                link.under_way[side].push_back(wire);
            }
        } else if let Wire::Monitor { target, .. } = wire {
            self.nodes[from].monitors.remove(&target);
            self.nodes[from].mailbox.push_back(Signal::Down(target));
        }
    }

    fn deliver(&mut self, pair: (usize, usize), side: usize) {
        let (from, to) = if side == 0 { pair } else { (pair.1, pair.0) };
        let link = self.links.get_mut(&pair).expect("a pair");
        if !link.up[1 - side] {
            return;
        }
        let Some(wire) = link.under_way[side].pop_front() else {
            return;
        };
        let node = &mut self.nodes[to];
        match wire {
            Wire::ToPid(pid, _) if pid != node.pid => {}
            Wire::ToPid(_, message) | Wire::ToName(message) => {
                node.mailbox.push_back(Signal::Message {
                    from,
                    connection: link.number,
                    message,
                });
            }
            Wire::Monitor { watcher, target } if target == node.pid => {
                node.watchers.insert(watcher);
            }
            Wire::Monitor { watcher, target } => {
                self.transmit(to, from, Wire::Down { watcher, target });
            }
            Wire::Down { watcher, target } => {
                if watcher == node.pid && node.monitors.remove(&target) {
                    node.mailbox.push_back(Signal::Down(target));
                }
            }
        }
    }

    // ---- processes

    fn group(&mut self) -> Term {
        Term::from(self.random.below(GROUPS))
    }

    fn join(&mut self, at: usize) {
        let group = self.group();
        let count = 1 + self.below(2);
        let mut pids = Vec::new();
        for _ in 0..count {
            let node = &self.nodes[at];
            let (old, alive) = (self.random.below(2) == 0, node.alive.len());
            if old && alive > 0 {
                let nth = self.below(alive);
                pids.extend(self.nodes[at].alive.iter().nth(nth).cloned());
                continue;
            }
            let node = &mut self.nodes[at];
            let pid = Pid {
                id: node.next_id,
                ..node.pid.clone()
            };
            node.next_id += 1;
            node.alive.insert(pid.clone());
            pids.push(pid);
        }
        let node = &mut self.nodes[at];
        node.members
            .extend(pids.iter().map(|pid| (group.clone(), pid.clone())));
        match &mut node.kind {
            Kind::Rust(scope, _) => {
                let actions = scope.step(Event::Join { group, pids });
                self.act(at, actions);
            }
            Kind::Otp(otp) => {
                let effects = otp.join(&group, &pids);
                self.effect(at, effects);
            }
        }
    }

    /// Of members, and now and then of processes that are none.
    fn leave(&mut self, at: usize) {
        let group = self.group();
        let count = self.nodes[at].alive.len();
        if count == 0 {
            return;
        }
        let nth = self.below(count);
        let pid = self.nodes[at].alive.iter().nth(nth).cloned();
        let pid = pid.expect("below the number of processes");
        let node = &mut self.nodes[at];
        let membership = (group.clone(), pid.clone());
        if let Some(at) = node.members.iter().position(|other| *other == membership) {
            node.members.remove(at);
        }
        match &mut node.kind {
            Kind::Rust(scope, _) => {
                let stranger = Pid {
                    id: 1 << 20,
                    ..pid.clone()
                };
                let pids = vec![pid, stranger];
                let actions = scope.step(Event::Leave { group, pids });
                self.act(at, actions);
            }
            Kind::Otp(otp) => {
                let effects = otp.leave_local(&group, &pid);
                self.effect(at, effects);
            }
        }
    }

    fn die(&mut self, at: usize) {
        let count = self.nodes[at].alive.len();
        if count == 0 {
            return;
        }
        let nth = self.below(count);
        let node = &mut self.nodes[at];
        let pid = node.alive.iter().nth(nth).cloned();
        let pid = pid.expect("below the number of processes");
        node.alive.remove(&pid);
        node.members.retain(|(_, member)| *member != pid);
        if node.monitors.remove(&pid) {
            node.mailbox.push_back(Signal::Down(pid));
        }
    }

    /// The scope's process ends and is replaced.
    fn restart(&mut self, at: usize, seen: &mut Seen) {
        seen.restarts += 1;
        let node = &mut self.nodes[at];
        let old = node.pid.clone();
        node.pid = Pid {
            id: node.next_id,
            ..old.clone()
        };
        node.next_id += 1;
        node.mailbox.clear();
        node.monitors.clear();
        node.connections.clear();
        let mut watchers: Vec<Pid> = node.watchers.drain().collect();
        watchers.sort();
        for watcher in watchers {
            let to = index_of(&watcher.node);
            let target = old.clone();
            self.transmit(at, to, Wire::Down { watcher, target });
        }
        let node = &mut self.nodes[at];
        let own = node.pid.clone();
        match &mut node.kind {
            Kind::Rust(scope, _) => {
                let actions = scope.step(Event::Restarted(own));
                self.act(at, actions);
            }
            Kind::Otp(otp) => {
                // OTP forgets its own members then.
                *otp = Otp::new(own);
                node.members.clear();
            }
        }
        for peer in 0..NODES {
            let connected = peer != at && {
                let (pair, side) = sides(at, peer);
                self.links[&pair].up[side]
            };
            if connected {
                self.node_up(at, peer);
            }
        }
    }

    fn node_up(&mut self, at: usize, peer: usize) {
        match &mut self.nodes[at].kind {
            Kind::Rust(scope, _) => {
                // As the driver does, where it may be lost already.
                let (pair, side) = sides(at, peer);
                let link = &self.links[&pair];
                if link.up[side] {
                    let actions = scope.step(Event::NodeUp(name(peer)));
                    self.nodes[at].connections.insert(peer, link.number);
                    self.act(at, actions);
                }
            }
            Kind::Otp(otp) => {
                let effects = otp.node_up(name(peer));
                self.effect(at, effects);
            }
        }
    }

    /// A scope takes the next signal from its mailbox.
    fn read(&mut self, at: usize, seen: &mut Seen) -> Result<(), String> {
        let Some(signal) = self.nodes[at].mailbox.pop_front() else {
            return Ok(());
        };
        let (from, connection, message) = match signal {
            Signal::NodeUp(peer) => {
                self.node_up(at, peer);
                return Ok(());
            }
            Signal::NodeDown(peer) => {
                if let Kind::Rust(scope, _) = &mut self.nodes[at].kind {
                    let actions = scope.step(Event::NodeDown(name(peer)));
                    self.nodes[at].connections.remove(&peer);
                    self.act(at, actions);
                }
                return Ok(());
            }
            Signal::Down(pid) => {
                match &mut self.nodes[at].kind {
                    Kind::Rust(scope, _) => {
                        let actions = scope.step(Event::Down(pid));
                        self.act(at, actions);
                    }
                    Kind::Otp(otp) => {
                        let effects = otp.down(&pid);
                        self.effect(at, effects);
                    }
                }
                return Ok(());
            }
            Signal::Message {
                from,
                connection,
                message,
            } => (from, connection, message),
        };
        let (pair, side) = sides(at, from);
        let link = &self.links[&pair];
        seen.stale += usize::from(!link.up[side] || link.number != connection);
        let connected = self.nodes[at].connections.contains_key(&from);
        match &mut self.nodes[at].kind {
            Kind::Rust(scope, _) => {
                let message =
                    decode(message).ok_or("a scope said what Rust does not understand")?;
                // As the driver does.
                if connected {
                    let actions = scope.step(Event::Received(message));
                    self.act(at, actions);
                }
            }
            Kind::Otp(otp) => {
                if from < RUST {
                    well_formed(&message)?;
                    let leave = message.as_tuple().is_some_and(|m| m[0].is_atom("leave"));
                    seen.leaves += usize::from(leave);
                }
                match otp.received(&message) {
                    Ok(effects) => self.effect(at, effects),
                    Err(Crash(reason)) if from < RUST => {
                        return Err(format!(
                            "{} ended by {message} of {}: {reason}",
                            name(at),
                            name(from)
                        ));
                    }
                    // OTP's own race.
                    Err(_) => self.restart(at, seen),
                }
            }
        }
        Ok(())
    }

    /// Connections do not wait until a scope has done all that it does at once.
    fn meanwhile(&mut self) {
        for _ in 0..self.below(3) {
            let (pair, side) = (self.pair(), self.below(2));
            match self.below(40) {
                0 => self.cut_unseen(pair),
                1..=9 => self.notice(pair, side),
                10..=19 => self.connect(pair),
                _ => self.deliver(pair, side),
            }
        }
    }

    // ---- what scopes do

    fn act(&mut self, at: usize, actions: Vec<Action>) {
        let own = self.nodes[at].pid.clone();
        for action in actions {
            self.meanwhile();
            match action {
                Action::Discover(node) => {
                    let discover = Message::Discover(own.clone()).into_term();
                    self.send(at, index_of(&node), Wire::ToName(discover));
                }
                Action::Send { to, message } => {
                    let wire = Wire::ToPid(to.clone(), message.into_term());
                    self.send(at, index_of(&to.node), wire);
                }
                Action::Monitor(pid) => {
                    let node = index_of(&pid.node);
                    let connected = node == at || {
                        let (pair, side) = sides(at, node);
                        self.links[&pair].up[side]
                    };
                    if connected {
                        self.monitor(at, pid);
                    }
                }
                Action::Demonitor(pid) => {
                    self.nodes[at].monitors.remove(&pid);
                }
                Action::Change(change) => match &mut self.nodes[at].kind {
                    Kind::Rust(_, table) => {
                        let (Change::Join { group, pids } | Change::Leave { group, pids }) =
                            &change;
                        let members: Members = table.members(group).cloned().collect();
                        let named: Members = pids.iter().cloned().collect();
                        let strangers = named.without(&members);
                        let leave = matches!(change, Change::Leave { .. });
                        if pids.is_empty() || leave && !strangers.is_empty() {
                            self.broken = Some(format!("{own:?} tells its readers of {change:?}"));
                        }
                        table.apply(change);
                    }
                    Kind::Otp(_) => unreachable!("OTP's have effects"),
                },
            }
        }
    }

    /// Over the connection that the scope was told of, as the driver does.
    fn send(&mut self, at: usize, to: usize, wire: Wire) {
        let (pair, _) = sides(at, to);
        let present = self.links[&pair].number;
        if self.nodes[at].connections.get(&to) == Some(&present) {
            self.transmit(at, to, wire);
        }
    }

    fn effect(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Discover(node) => {
                    let own = Term::from(&self.nodes[at].pid);
                    let discover = Term::tuple([Term::atom("discover"), own]);
                    self.transmit(at, index_of(&node), Wire::ToName(discover));
                }
                Effect::Send(to, message) => {
                    let node = index_of(&to.node);
                    self.transmit(at, node, Wire::ToPid(to, message));
                }
                Effect::Monitor(pid) => self.monitor(at, pid),
            }
        }
    }

    fn monitor(&mut self, at: usize, pid: Pid) {
        let node = &mut self.nodes[at];
        if pid.node != node.name {
            node.monitors.insert(pid.clone());
            let watcher = node.pid.clone();
            let to = index_of(&pid.node);
            let target = pid;
            self.transmit(at, to, Wire::Monitor { watcher, target });
        } else if node.alive.contains(&pid) {
            node.monitors.insert(pid);
        } else {
            node.mailbox.push_back(Signal::Down(pid));
        }
    }

    // ---- what must hold

    /// Every node sees the members of the nodes that it is connected to, and no others.
    fn check(&self) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let visible: Vec<usize> = (0..NODES)
                .filter(|other| {
                    *other == at || {
                        let (pair, side) = sides(at, *other);
                        self.links[&pair].up[side]
                    }
                })
                .collect();
            let sorted = |mut pids: Vec<Pid>| {
                pids.sort();
                pids
            };
            for group in (0..GROUPS).map(Term::from) {
                let expected = visible.iter().flat_map(|other| &self.nodes[*other].members);
                let expected = expected.filter(|(other, _)| *other == group);
                let expected = sorted(expected.map(|(_, pid)| pid.clone()).collect());
                let seen = sorted(match &node.kind {
                    Kind::Rust(_, table) => table.members(&group).cloned().collect(),
                    Kind::Otp(otp) => otp.members(&group),
                });
                if seen != expected {
                    return Err(format!(
                        "{} sees {seen:?} in {group}, and not {expected:?}",
                        node.name
                    ));
                }
                let listed = match &node.kind {
                    Kind::Rust(_, table) => table.groups().any(|(other, _)| *other == group),
                    Kind::Otp(otp) => otp.groups().any(|other| *other == group),
                };
                if listed == expected.is_empty() {
                    return Err(format!("{} lists {group}: {listed}", node.name));
                }
            }
        }
        Ok(())
    }
}

fn decode(message: Term) -> Option<Message> {
    match message {
        Term::Tuple(mut cast) if cast.len() == 2 && cast[0].is_atom("$gen_cast") => {
            Message::from_cast(cast.pop()?)
        }
        message => Message::from_message(message),
    }
}

/// What a Rust scope may say at all: what OTP would not end by, but which does harm later.
fn well_formed(message: &Term) -> Result<(), String> {
    let decoded = decode(message.clone()).ok_or_else(|| format!("not a message: {message}"))?;
    let own = decoded.peer().node.clone();
    let members = |pids: &[Pid]| !pids.is_empty() && pids.iter().all(|pid| pid.node == own);
    let good = match &decoded {
        Message::Discover(_) => message.as_tuple().is_some_and(|m| m.len() == 2),
        Message::Sync { groups, .. } => {
            let distinct: HashSet<&Term> = groups.iter().map(|(group, _)| group).collect();
            distinct.len() == groups.len() && groups.iter().all(|(_, pids)| members(pids))
        }
        Message::Join { pids, .. } => members(pids),
        Message::Leave { pids, groups, .. } => members(pids) && !groups.is_empty(),
    };
    match good {
        true => Ok(()),
        false => Err(format!("a message that does harm: {message}")),
    }
}
