//! A few nodes and the connections between them, on a virtual clock: enough to see rules at work on several nodes.
//! Faults at random and whole histories are the simulator's (`tiebeam_sim`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use std::string::{String, ToString};

use super::name;
use crate::random::Random;
use crate::{
    Action, CallId, Cluster, Command, Config, Event, Instant, Kind, Member, NodeName, Notice,
};

/// One way, in microseconds.
const LATENCY: u64 = 500;

pub(super) struct Net {
    pub(super) now: u64,
    nodes: BTreeMap<NodeName, Node>,
    links: BTreeMap<(NodeName, NodeName), u64>,
    /// Ordered pairs over which nothing arrives, and nothing says so.
    cut: BTreeSet<(NodeName, NodeName)>,
    /// Messages of a thousand that are lost.
    pub(super) loss: u64,
    random: Random,
    queue: BTreeMap<(u64, u64), (NodeName, u64, Event)>,
    serial: u64,
    pub(super) notices: Vec<(u64, String, Notice)>,
    pub(super) evictions: Vec<(String, String)>,
}

struct Node {
    /// `None` for a node that runs no Tiebeam.
    cluster: Option<Cluster>,
    life: u64,
    frozen: bool,
    waiting: Vec<Event>,
}

fn pair(a: &NodeName, b: &NodeName) -> (NodeName, NodeName) {
    let (a, b) = (a.clone(), b.clone());
    if a < b { (a, b) } else { (b, a) }
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            random: Random::from_seed(1),
            queue: BTreeMap::new(),
            serial: 0,
            notices: Vec::new(),
            evictions: Vec::new(),
        }
    }

    /// `count` nodes n0@h, n1@h, ... that all know the first, after they have met.
    pub(super) fn cluster(count: u64, config: impl Fn(Config) -> Config) -> Self {
        let mut net = Self::new();
        for number in 0..count {
            net.start(config(Self::config(number)));
        }
        net.run(5_000);
        for number in 0..count {
            let members = net.members(&Self::name(number));
            assert_eq!(members.len() as u64, count, "n{number}: {members:?}");
        }
        net.notices.clear();
        net
    }

    pub(super) fn name(number: u64) -> String {
        std::format!("n{number}@h")
    }

    pub(super) fn config(number: u64) -> Config {
        Config {
            join: [name("n0@h")].into(),
            seed: number,
            timing: crate::Timing::fast(),
            ..Config::new(name(&Self::name(number)), 1, Kind::Rust)
        }
    }

    pub(super) fn start(&mut self, config: Config) {
        let node = config.node.clone();
        let life = self.serial;
        self.serial += 1;
        let cluster = Some(Cluster::new(config).unwrap());
        self.nodes.insert(
            node.clone(),
            Node {
                cluster,
                life,
                frozen: false,
                waiting: Vec::new(),
            },
        );
        self.deliver(&node, Event::Woke);
    }

    pub(super) fn start_plain(&mut self, node: &str, meets: &[&str]) {
        let life = self.serial;
        self.serial += 1;
        let plain = Node {
            cluster: None,
            life,
            frozen: false,
            waiting: Vec::new(),
        };
        self.nodes.insert(name(node), plain);
        for other in meets {
            self.connect(&name(node), &name(other));
        }
    }

    /// The process ends, and its connections with it.
    pub(super) fn kill(&mut self, node: &str) {
        let node = name(node);
        self.nodes.remove(&node);
        let others: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for other in others {
            self.disconnect(&node, &other);
        }
    }

    pub(super) fn freeze(&mut self, node: &str) {
        self.nodes.get_mut(&name(node)).unwrap().frozen = true;
    }

    pub(super) fn thaw(&mut self, node: &str) {
        let node = name(node);
        let frozen = self.nodes.get_mut(&node).unwrap();
        frozen.frozen = false;
        for event in core::mem::take(&mut frozen.waiting) {
            self.deliver(&node, event);
        }
        self.deliver(&node, Event::Woke);
    }

    pub(super) fn cut(&mut self, from: &str, to: &str) {
        self.cut.insert((name(from), name(to)));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn ask(&mut self, node: &str, command: Command) {
        let call = CallId(1);
        self.deliver(&name(node), Event::Asked { call, command });
    }

    pub(super) fn members(&self, node: &str) -> Vec<Member> {
        let cluster = self.nodes[&name(node)].cluster.as_ref().unwrap();
        cluster.view().members().cloned().collect()
    }

    pub(super) fn view(&self, node: &str) -> crate::View<'_> {
        self.nodes[&name(node)].cluster.as_ref().unwrap().view()
    }

    pub(super) fn guardians(&self, at: &str, node: &str) -> Vec<NodeName> {
        let cluster = self.nodes[&name(at)].cluster.as_ref().unwrap();
        cluster.guardians(&name(node))
    }

    pub(super) fn member(&self, at: &str, node: &str) -> Option<Member> {
        self.members(at)
            .into_iter()
            .find(|member| member.node == name(node))
    }

    pub(super) fn connect(&mut self, a: &NodeName, b: &NodeName) {
        let up = |node: &NodeName| self.nodes.get(node).is_some_and(|node| !node.frozen);
        let cut = self.cut.contains(&(a.clone(), b.clone()))
            || self.cut.contains(&(b.clone(), a.clone()));
        if self.links.contains_key(&pair(a, b)) || cut || !up(a) || !up(b) {
            return;
        }
        self.serial += 1;
        self.links.insert(pair(a, b), self.serial);
        for (to, node) in [(a, b), (b, a)] {
            let event = Event::Connected {
                to: to.clone(),
                visible: true,
            };
            self.later(node, 0, event);
        }
    }

    pub(super) fn disconnect(&mut self, a: &NodeName, b: &NodeName) {
        if self.links.remove(&pair(a, b)).is_some() {
            for (from, node) in [(a, b), (b, a)] {
                self.later(node, 0, Event::Disconnected { from: from.clone() });
            }
        }
    }

    /// With whom a node is connected.
    pub(super) fn connected(&self, node: &str) -> Vec<String> {
        let (node, links) = (name(node), self.links.keys());
        links
            .filter_map(|(a, b)| match (*a == node, *b == node) {
                (true, false) => Some(b.to_string()),
                (false, true) => Some(a.to_string()),
                _ => None,
            })
            .collect()
    }

    fn later(&mut self, node: &NodeName, after: u64, event: Event) {
        self.serial += 1;
        let life = self.nodes.get(node).map_or(0, |node| node.life);
        let key = (self.now + LATENCY + after, self.serial);
        self.queue.insert(key, (node.clone(), life, event));
    }

    /// Runs for `millis` milliseconds.
    pub(super) fn run(&mut self, millis: u64) {
        let until = self.now + millis * 1000;
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let due = self
                .nodes
                .iter()
                .filter(|(_, node)| !node.frozen)
                .filter_map(|(name, node)| {
                    let at = node.cluster.as_ref()?.deadline()?.as_micros();
                    Some((at.max(self.now), name.clone()))
                });
            let due = due.min();
            match (queued, due) {
                (Some(at), due)
                    if at <= until && due.as_ref().is_none_or(|(due, _)| at <= *due) =>
                {
                    self.now = self.now.max(at);
                    let (_, (node, life, event)) = self.queue.pop_first().unwrap();
                    if self.nodes.get(&node).is_some_and(|node| node.life == life) {
                        self.deliver(&node, event);
                    }
                }
                (_, Some((at, node))) if at <= until => {
                    self.now = at;
                    self.deliver(&node, Event::Woke);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn deliver(&mut self, name: &NodeName, event: Event) {
        let node = self.nodes.get_mut(name).unwrap();
        if node.frozen {
            node.waiting.push(event);
            return;
        }
        let Some(cluster) = &mut node.cluster else {
            return;
        };
        let mut actions = Vec::new();
        cluster.step(Instant::from_micros(self.now), event, &mut actions);
        for action in actions {
            self.perform(name, action);
        }
    }

    fn perform(&mut self, from: &NodeName, action: Action) {
        match action {
            Action::Send { to, bytes } => {
                if !self.links.contains_key(&pair(from, &to)) {
                    return self.connect(from, &to);
                }
                let lost = self.random.below(1000) < self.loss;
                if !lost && !self.cut.contains(&(from.clone(), to.clone())) {
                    let event = Event::Received {
                        from: from.clone(),
                        bytes,
                    };
                    self.later(&to, 0, event);
                }
            }
            Action::Observe { node, probe } => {
                let there = self.nodes.get(&node).is_some_and(|node| !node.frozen);
                let cut = self.cut.contains(&(node.clone(), from.clone()));
                if there && !cut && self.links.contains_key(&pair(from, &node)) {
                    self.later(from, LATENCY, Event::Observed { node, probe });
                }
            }
            Action::Sample { node } => {
                let silent = self.nodes.get(&node).is_none_or(|node| node.frozen)
                    || self.cut.contains(&(node.clone(), from.clone()));
                let linked = self.links.contains_key(&pair(from, &node));
                let received = linked.then_some(if silent { 0 } else { self.now });
                self.deliver(from, Event::Sampled { node, received });
            }
            Action::Evict { node } => {
                self.evictions.push((from.to_string(), node.to_string()));
                self.disconnect(from, &node);
            }
            Action::EvictAt { at, node } => {
                self.evictions.push((at.to_string(), node.to_string()));
                self.disconnect(&at, &node);
            }
            // The registry has a simulation of its own.
            Action::Table(_)
            | Action::Persist(_)
            | Action::Leadership(_)
            | Action::Lost(_)
            | Action::Promoted { .. }
            | Action::Resolve { .. }
            | Action::Check { .. }
            | Action::Answer { .. } => {}
            Action::Notify(notice) => {
                self.notices
                    .push((self.now / 1000, from.to_string(), notice));
            }
        }
    }

    /// The notices as words: `at: up node`.
    pub(super) fn news(&self, at: &str) -> Vec<String> {
        let notices = self.notices.iter().filter(|(_, node, _)| node == at);
        notices
            .filter_map(|(_, _, notice)| super::news_of(notice))
            .collect()
    }
}
