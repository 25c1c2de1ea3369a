//! The machines together: what membership knows reaches the registry, and the registry's wants reach the driver.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::leadership::{MemberId, group};
use crate::registry::{self, Change, Departure, Key, OnConflict};
use crate::{
    Action, Answer, CallId, Cluster, Command, Config, Event, Instant, Kind, NodeName, Why,
};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn cluster(node: &str, kind: Kind) -> Cluster {
    Cluster::new(Config::new(name(node), 1, kind)).unwrap()
}

fn step(cluster: &mut Cluster, millis: u64, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    cluster.step(Instant::from_millis(millis), event, &mut actions);
    actions
}

fn register(name: &str, pid: &str) -> Event {
    Event::Asked {
        call: CallId(1),
        command: Command::Registry(registry::Command::Register {
            scope: "default".into(),
            name: name.as_bytes().into(),
            pid: pid.as_bytes().into(),
            meta: b""[..].into(),
            on_conflict: OnConflict::Notify,
            resolve: false,
            claimed: false,
        }),
    }
}

/// Carries what `a` and `b` send to each other, and wakes both, until neither has anything to say. Returns the rest.
fn talk(a: &mut Cluster, b: &mut Cluster, millis: u64, first: Vec<Action>) -> [Vec<Action>; 2] {
    let (node_a, node_b) = (a.view().me().node.clone(), b.view().me().node.clone());
    let mut rest = [Vec::new(), Vec::new()];
    let mut pending = [first, Vec::new()];
    for _ in 0..20 {
        for (here, there, from) in [(0, 1, &node_a), (1, 0, &node_b)] {
            for action in core::mem::take(&mut pending[here]) {
                match action {
                    Action::Send { bytes, .. } => {
                        let from = from.clone();
                        let receiver = if there == 1 { &mut *b } else { &mut *a };
                        pending[there].extend(step(
                            receiver,
                            millis,
                            Event::Received { from, bytes },
                        ));
                    }
                    other => rest[here].push(other),
                }
            }
        }
        pending[0].extend(step(a, millis, Event::Woke));
        pending[1].extend(step(b, millis, Event::Woke));
    }
    rest
}

fn tables(actions: &[Action]) -> Vec<&Change> {
    let tables = actions.iter().filter_map(|action| match action {
        Action::Table(change) => Some(change),
        _ => None,
    });
    tables.collect()
}

fn meet(a: &mut Cluster, b: &mut Cluster) -> [Vec<Action>; 2] {
    let (to_a, to_b) = (a.view().me().node.clone(), b.view().me().node.clone());
    let first = step(
        a,
        5,
        Event::Connected {
            to: to_b,
            visible: true,
        },
    );
    let mut more = step(
        b,
        5,
        Event::Connected {
            to: to_a,
            visible: true,
        },
    );
    let [rest_b, rest_a] = talk(b, a, 5, core::mem::take(&mut more));
    let [mut all_a, mut all_b] = talk(a, b, 5, first);
    all_a.extend(rest_a);
    all_b.extend(rest_b);
    [all_a, all_b]
}

#[test]
fn a_name_reaches_the_other_members_and_goes_with_its_node() {
    let (mut a, mut b) = (cluster("a@h", Kind::Rust), cluster("b@h", Kind::Beam));
    let mine = step(&mut a, 1, register("before", "p1"));
    assert!(matches!(tables(&mine)[..], [Change::Registered(_)]));
    let answer = Answer::Registry(registry::Answer::Done);
    assert!(mine.contains(&Action::Answer {
        call: CallId(1),
        answer
    }));

    let [_, seen] = meet(&mut a, &mut b);
    assert!(
        matches!(tables(&seen)[..], [Change::Registered(entry)] if entry.key.name() == b"before" && entry.node == name("a@h")),
        "{seen:?}"
    );
    let first = step(&mut a, 6, register("after", "p2"));
    let [_, seen] = talk(&mut a, &mut b, 6, first);
    assert!(
        matches!(tables(&seen)[..], [Change::Registered(entry)] if entry.key.name() == b"after")
    );
    assert_eq!(b.view().entries().count(), 2);

    let first = step(
        &mut a,
        7,
        Event::Exited {
            pid: b"p2"[..].into(),
        },
    );
    let [_, seen] = talk(&mut a, &mut b, 7, first);
    assert!(matches!(tables(&seen)[..], [Change::Unregistered { .. }]));

    let leave = Event::Asked {
        call: CallId(2),
        command: Command::Leave,
    };
    let first = step(&mut a, 8, leave);
    let [_, seen] = talk(&mut a, &mut b, 8, first);
    assert!(matches!(
        tables(&seen)[..],
        [Change::Purged { node, creation: 1, departure: Departure::Left, .. }] if *node == name("a@h")
    ));
    assert_eq!(b.view().entries().count(), 0);
    let late = step(&mut a, 9, register("too late", "p3"));
    assert!(matches!(
        late[..],
        [Action::Answer {
            answer: Answer::Left,
            ..
        }]
    ));
}

#[test]
fn bytes_that_are_no_message_of_the_registry_are_ignored_with_the_reason() {
    let mut a = cluster("a@h", Kind::Rust);
    let ignored = step(
        &mut a,
        1,
        Event::Received {
            from: name("b@h"),
            bytes: [&registry::PREFIX[..], &[99]].concat(),
        },
    );
    assert!(ignored.iter().any(|action| matches!(
        action,
        Action::Notify(crate::Notice::Ignored {
            why: Why::MalformedEntry(_),
            ..
        })
    )));
}

/// Three members on a virtual clock, connected as they like unless they are cut.
struct Net {
    now: u64,
    order: u64,
    clusters: BTreeMap<NodeName, Cluster>,
    links: BTreeMap<(NodeName, NodeName), u64>,
    cut: BTreeSet<(NodeName, NodeName)>,
    queue: BTreeMap<(u64, u64), (NodeName, Option<u64>, Event)>,
    tables: BTreeMap<NodeName, BTreeMap<Key, Vec<u8>>>,
    losses: Vec<(NodeName, Key)>,
    /// These nodes vote on a leader, and keep nothing on disk.
    voters: Vec<NodeName>,
    /// What each group said, in order.
    said: Vec<(NodeName, group::Output)>,
}

fn pair(a: &NodeName, b: &NodeName) -> (NodeName, NodeName) {
    (a.min(b).clone(), a.max(b).clone())
}

impl Net {
    fn new() -> Self {
        Self::with_voters(Vec::new())
    }

    fn with_voters(voters: Vec<NodeName>) -> Self {
        let mut net = Self {
            now: 0,
            order: 0,
            clusters: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            tables: BTreeMap::new(),
            losses: Vec::new(),
            voters,
            said: Vec::new(),
        };
        (0..3).for_each(|number| net.start(number, 1));
        net.run(10_000);
        net
    }

    fn start(&mut self, number: u64, creation: u32) {
        let node = name(&format!("n{number}@h"));
        let config = Config {
            join: vec![name("n0@h"), name("n1@h"), name("n2@h")],
            seed: number,
            timing: crate::Timing::fast(),
            leadership: (!self.voters.is_empty()).then(|| group::Config {
                member: MemberId(number + 100 * u64::from(creation)),
                voters: group::Voters::Named(self.voters.clone()),
                timing: group::Timing::LAN,
                stored: group::Stored::default(),
            }),
            ..Config::new(node.clone(), creation, Kind::Rust)
        };
        self.tables.insert(node.clone(), BTreeMap::new());
        self.clusters
            .insert(node.clone(), Cluster::new(config).unwrap());
        self.later(0, &node, None, Event::Woke);
    }

    fn later(&mut self, micros: u64, node: &NodeName, link: Option<u64>, event: Event) {
        self.order += 1;
        self.queue
            .insert((self.now + micros, self.order), (node.clone(), link, event));
    }

    fn disconnect(&mut self, a: &NodeName, b: &NodeName) {
        if self.links.remove(&pair(a, b)).is_some() {
            self.later(0, a, None, Event::Disconnected { from: b.clone() });
            self.later(0, b, None, Event::Disconnected { from: a.clone() });
        }
    }

    /// Steps one node, and wakes it at the end of its turn if it is due.
    fn step(&mut self, node: &NodeName, event: Event) {
        let now = Instant::from_micros(self.now);
        let mut actions = Vec::new();
        let Some(cluster) = self.clusters.get_mut(node) else {
            return;
        };
        cluster.step(now, event, &mut actions);
        if cluster.deadline().is_some_and(|deadline| deadline <= now) {
            cluster.step(now, Event::Woke, &mut actions);
        }
        let table = self.tables.get_mut(node).expect("every node has a table");
        let mut sends = Vec::new();
        for action in actions {
            match action {
                Action::Persist(disk) => {
                    let token = disk.write.token;
                    self.order += 1;
                    let persisted = (node.clone(), None, Event::Persisted { token });
                    self.queue.insert((self.now, self.order), persisted);
                }
                Action::Leadership(output) => self.said.push((node.clone(), output)),
                Action::Send { to, bytes } => sends.push((to, bytes)),
                Action::Table(Change::Registered(row) | Change::Updated(row)) => {
                    table.insert(row.key, row.pid.to_vec());
                }
                Action::Table(Change::Replaced { entry, .. }) => {
                    table.insert(entry.key, entry.pid.to_vec());
                }
                Action::Table(Change::Unregistered { key, .. }) => {
                    table.remove(&key);
                }
                Action::Table(Change::Purged { node, .. }) => {
                    table.retain(|_, pid| !pid.starts_with(node.as_str().as_bytes()));
                }
                Action::Lost(loss) => self.losses.push((node.clone(), loss.key)),
                _ => {}
            }
        }
        for (to, bytes) in sends {
            self.send(node, &to, bytes);
        }
    }

    fn send(&mut self, from: &NodeName, to: &NodeName, bytes: Vec<u8>) {
        let key = pair(from, to);
        if self.cut.contains(&key) || !self.clusters.contains_key(to) {
            return;
        }
        if let Some(&link) = self.links.get(&key) {
            let from = from.clone();
            return self.later(500, to, Some(link), Event::Received { from, bytes });
        }
        self.order += 1;
        self.links.insert(key, self.order);
        for (here, there) in [(from, to), (to, from)] {
            let to = there.clone();
            self.later(500, here, None, Event::Connected { to, visible: true });
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis * 1000;
        loop {
            let deadlines = self.clusters.iter().filter_map(|(node, cluster)| {
                Some((cluster.deadline()?.as_micros().max(self.now), node.clone()))
            });
            let due = deadlines.min();
            let next = self.queue.keys().next().map(|&(at, _)| at);
            match (next, due) {
                (Some(at), due) if at <= end && due.as_ref().is_none_or(|due| at <= due.0) => {
                    let Some((_, (node, link, event))) = self.queue.pop_first() else {
                        break;
                    };
                    self.now = at;
                    let open = match (&event, link) {
                        (Event::Received { from, .. }, Some(link)) => {
                            self.links.get(&pair(from, &node)) == Some(&link)
                        }
                        _ => true,
                    };
                    if open {
                        self.step(&node, event);
                    }
                }
                (_, Some((at, node))) if at <= end => {
                    self.now = at;
                    self.step(&node, Event::Woke);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn register(&mut self, node: &str, what: &str) {
        self.step(&name(node), register(what, &format!("{node}/{what}")));
    }
}

/// Membership and registry together: both sides of a split register the same names and some of their own.
#[test]
fn after_a_split_every_name_has_one_process_and_none_is_missing() {
    const NAMES: u64 = 50;
    let mut net = Net::new();
    let nodes: Vec<NodeName> = net.clusters.keys().cloned().collect();
    net.register("n0@h", "before");
    net.run(1000);
    assert!(net.tables.values().all(|table| table.len() == 1));
    for other in [&nodes[1], &nodes[2]] {
        net.cut.insert(pair(&nodes[0], other));
        net.disconnect(&nodes[0], other);
    }
    net.run(30_000);
    assert_eq!(net.tables[&nodes[1]].len(), 0, "its node is down");
    for number in 0..NAMES {
        net.register("n0@h", &format!("shared {number}"));
        net.register("n0@h", &format!("left {number}"));
        net.register("n2@h", &format!("shared {number}"));
        net.register("n2@h", &format!("right {number}"));
    }
    net.run(1000);
    assert_eq!(net.tables[&nodes[1]].len() as u64, 2 * NAMES);
    net.cut.clear();
    net.run(60_000);
    let expected = &net.tables[&nodes[0]];
    assert_eq!(expected.len() as u64, 3 * NAMES + 1);
    assert!(net.tables.values().all(|table| table == expected));
    let told: BTreeSet<_> = net.losses.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(
        (told.len(), net.losses.len()),
        (NAMES as usize, NAMES as usize),
        "every loser is told once"
    );

    // A crash and a restart: what the earlier life had is gone everywhere, and what the new one has is there.
    let crashed = nodes[2].clone();
    net.clusters.remove(&crashed);
    (0..2).for_each(|other| net.disconnect(&nodes[other], &crashed));
    net.run(1000);
    net.start(2, 2);
    net.register("n2@h", "again");
    net.run(60_000);
    let expected = &net.tables[&nodes[0]];
    let of_the_crashed: Vec<_> = expected
        .iter()
        .filter(|(_, pid)| pid.starts_with(b"n2@h"))
        .collect();
    assert_eq!(of_the_crashed.len(), 1, "{of_the_crashed:?}");
    assert!(net.tables.values().all(|table| table == expected));
}

/// Membership and leadership together: the nodes find each other, elect, and a leader that leaves hands over.
#[test]
fn a_leader_that_leaves_the_cluster_hands_over() {
    let voters: Vec<NodeName> = (0..3).map(|number| name(&format!("n{number}@h"))).collect();
    let mut net = Net::with_voters(voters);
    let leads = |net: &Net| {
        let lease = net
            .said
            .iter()
            .rev()
            .find_map(|(node, output)| match output {
                group::Output::Lease {
                    until: Some(until), ..
                } if *until > Instant::from_micros(net.now) => Some(node.clone()),
                _ => None,
            });
        lease.expect("there is a leader")
    };
    let before = leads(&net);
    let leave = Event::Asked {
        call: CallId(1),
        command: Command::Leave,
    };
    net.step(&before, leave);
    net.run(150);
    let left = group::Output::Stopped(group::Stopped::Left);
    assert!(net.said.contains(&(before.clone(), left)));
    net.run(50);
    assert_ne!(leads(&net), before);
}
