//! The machines together: what membership knows reaches the registry, and the registry's wants reach the driver.

use std::vec::Vec;

use crate::registry::{self, Change, Departure, OnConflict};
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
        [Change::Purged { node, creation: 1, departure: Departure::Left }] if *node == name("a@h")
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
