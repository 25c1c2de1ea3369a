use super::*;

fn on(node: &'static str, id: u32) -> Pid {
    Pid {
        node: Atom::of(node),
        id,
        serial: 0,
        creation: 1,
    }
}

/// A process of this node; 1 is the scope's.
fn own(id: u32) -> Pid {
    on("a@h", id)
}

/// A process of a peer's node; 1 is the scope's.
fn peer(id: u32) -> Pid {
    on("b@h", id)
}

fn group(name: &'static str) -> Term {
    Term::atom(name)
}

fn join(name: &'static str, pids: impl Into<Vec<Pid>>) -> Event {
    Event::Join {
        group: group(name),
        pids: pids.into(),
    }
}

fn leave(name: &'static str, pids: impl Into<Vec<Pid>>) -> Event {
    Event::Leave {
        group: group(name),
        pids: pids.into(),
    }
}

fn sync(groups: impl IntoIterator<Item = (&'static str, Vec<Pid>)>) -> Event {
    Event::Received(Message::Sync {
        peer: peer(1),
        groups: groups
            .into_iter()
            .map(|(name, pids)| (group(name), pids))
            .collect(),
    })
}

fn discover() -> Event {
    Event::Received(Message::Discover(peer(1)))
}

fn joined(name: &'static str, pids: impl Into<Vec<Pid>>) -> Action {
    Action::Change(Change::Join {
        group: group(name),
        pids: pids.into(),
    })
}

fn left(name: &'static str, pids: impl Into<Vec<Pid>>) -> Action {
    Action::Change(Change::Leave {
        group: group(name),
        pids: pids.into(),
    })
}

fn to_peer(message: Message) -> Action {
    Action::Send {
        to: peer(1),
        message,
    }
}

fn own_sync(groups: impl IntoIterator<Item = (&'static str, Vec<Pid>)>) -> Action {
    to_peer(Message::Sync {
        peer: own(1),
        groups: groups
            .into_iter()
            .map(|(name, pids)| (group(name), pids))
            .collect(),
    })
}

/// A scope whose peer had its sync.
fn with_peer() -> Scope {
    let mut scope = Scope::new(own(1));
    scope.step(discover());
    scope.step(sync([]));
    scope
}

#[test]
fn a_node_that_comes_up_is_asked() {
    let mut scope = Scope::new(own(1));
    assert_eq!(
        scope.step(Event::NodeUp(Atom::of("b@h"))),
        [Action::Discover(Atom::of("b@h"))]
    );
}

#[test]
fn a_new_peer_is_monitored_told_all_and_asked_and_a_known_one_is_told_all_again() {
    let mut scope = Scope::new(own(1));
    scope.step(join("g", [own(2), own(2)]));
    let all = own_sync([("g", vec![own(2), own(2)])]);
    assert_eq!(
        scope.step(discover()),
        [
            Action::Monitor(peer(1)),
            all.clone(),
            to_peer(Message::Discover(own(1)))
        ]
    );
    assert_eq!(scope.step(discover()), [all]);
}

#[test]
fn a_peer_that_tells_its_groups_unasked_is_told_ours_before_any_join_or_leave() {
    let mut scope = Scope::new(own(1));
    scope.step(join("g", [own(2)]));
    assert_eq!(
        scope.step(sync([("g", vec![peer(2)])])),
        [
            Action::Monitor(peer(1)),
            own_sync([("g", vec![own(2)])]),
            joined("g", [peer(2)])
        ]
    );
    assert_eq!(scope.step(sync([("g", vec![peer(2)])])), []);
    let leave_message = to_peer(Message::Leave {
        peer: own(1),
        pids: vec![own(2)],
        groups: vec![group("g")],
    });
    assert_eq!(
        scope.step(leave("g", [own(2)])).last(),
        Some(&leave_message)
    );
}

#[test]
fn what_is_known_of_a_peer_ends_with_the_connection() {
    let mut scope = with_peer();
    scope.step(join("g", [own(2)]));
    scope.step(sync([("g", vec![peer(2)])]));
    assert_eq!(
        scope.step(Event::NodeDown(Atom::of("b@h"))),
        [Action::Demonitor(peer(1)), left("g", [peer(2)])]
    );
    // It may know us again by now, but nothing of our groups.
    assert_eq!(
        scope.step(leave("g", [own(2)])),
        [Action::Demonitor(own(2)), left("g", [own(2)])]
    );
    assert_eq!(scope.step(Event::NodeDown(Atom::of("c@h"))), []);
    assert_eq!(scope.step(Event::Down(peer(1))), []);
}

#[test]
fn a_process_joins_twice_and_leaves_twice() {
    let mut scope = with_peer();
    let join_message = |pids: Vec<Pid>| {
        to_peer(Message::Join {
            peer: own(1),
            group: group("g"),
            pids,
        })
    };
    let leave_message = |pids: Vec<Pid>| {
        to_peer(Message::Leave {
            peer: own(1),
            pids,
            groups: vec![group("g")],
        })
    };
    assert_eq!(
        scope.step(join("g", [own(2)])),
        [
            Action::Monitor(own(2)),
            joined("g", [own(2)]),
            join_message(vec![own(2)])
        ]
    );
    assert_eq!(
        scope.step(join("g", [own(2), own(3)])),
        [
            Action::Monitor(own(3)),
            joined("g", [own(2), own(3)]),
            join_message(vec![own(2), own(3)])
        ]
    );
    assert_eq!(
        scope.step(leave("g", [own(2)])),
        [left("g", [own(2)]), leave_message(vec![own(2)])]
    );
    // Only those that are members leave.
    assert_eq!(
        scope.step(leave("g", [own(2), own(2), own(9)])),
        [
            Action::Demonitor(own(2)),
            left("g", [own(2)]),
            leave_message(vec![own(2)])
        ]
    );
    assert_eq!(scope.step(leave("g", [own(2)])), []);
    assert_eq!(scope.step(leave("never", [own(3)])), []);
    assert_eq!(scope.step(join("g", [])), []);
}

#[test]
fn a_death_is_one_leave_with_all_groups() {
    let mut scope = with_peer();
    scope.step(join("g", [own(2), own(2)]));
    scope.step(join("h", [own(2), own(3)]));
    let mut actions = scope.step(Event::Down(own(2)));
    let Some(Action::Send {
        to,
        message: Message::Leave { peer, pids, groups },
    }) = actions.pop()
    else {
        panic!("the last action is a leave: {actions:?}");
    };
    assert_eq!((to, peer, pids), (self::peer(1), own(1), vec![own(2)]));
    let count = |name| groups.iter().filter(|other| **other == group(name)).count();
    assert_eq!((groups.len(), count("g"), count("h")), (3, 2, 1));
    assert!(actions.contains(&left("g", [own(2), own(2)])));
    assert!(actions.contains(&left("h", [own(2)])));
    assert_eq!(scope.step(Event::Down(own(2))), []);
    assert_eq!(scope.room(), MEMBERSHIPS_MAX - 1);
}

#[test]
fn a_peers_members_come_and_go() {
    let mut scope = with_peer();
    let join = |pids: Vec<Pid>| {
        Event::Received(Message::Join {
            peer: peer(1),
            group: group("g"),
            pids,
        })
    };
    let leave = |pids: Vec<Pid>, names: &[&'static str]| {
        Event::Received(Message::Leave {
            peer: peer(1),
            pids,
            groups: names.iter().map(|name| group(name)).collect(),
        })
    };
    assert_eq!(
        scope.step(join(vec![peer(2), peer(3), peer(2)])),
        [joined("g", [peer(2), peer(3), peer(2)])]
    );
    assert_eq!(
        scope.step(leave(vec![peer(2)], &["g", "g", "g", "h"])),
        [left("g", [peer(2)]), left("g", [peer(2)])]
    );
    assert_eq!(scope.step(Event::Down(peer(1))), [left("g", [peer(3)])]);
    // Left over from before.
    assert_eq!(scope.step(join(vec![peer(2)])), []);
    assert_eq!(scope.step(leave(vec![peer(3)], &["g"])), []);
}

#[test]
fn a_sync_replaces_what_was_known() {
    let mut scope = with_peer();
    scope.step(sync([("g", vec![peer(2), peer(2)]), ("h", vec![peer(3)])]));
    let mut actions = scope.step(sync([
        ("g", vec![peer(2), peer(4)]),
        ("i", vec![peer(5)]),
        ("none", vec![]),
    ]));
    actions.sort_by_key(|action| format!("{action:?}"));
    assert_eq!(
        actions,
        [
            joined("g", [peer(4)]),
            joined("i", [peer(5)]),
            left("g", [peer(2)]),
            left("h", [peer(3)]),
        ]
    );
    assert_eq!(
        scope.step(sync([("g", vec![peer(4), peer(2)]), ("i", vec![peer(5)])])),
        []
    );
}

#[test]
fn a_node_speaks_for_its_own_processes_only() {
    let mut scope = with_peer();
    assert_eq!(
        scope.step(sync([("g", vec![own(2), on("c@h", 2), peer(2)])])),
        [joined("g", [peer(2)])]
    );
    // This node is no peer of itself.
    assert_eq!(scope.step(Event::Received(Message::Discover(own(7)))), []);
}

#[test]
fn a_new_process_of_the_scope_keeps_this_nodes_members_and_starts_anew_with_the_peers() {
    let mut scope = with_peer();
    scope.step(join("g", [own(2)]));
    scope.step(sync([("g", vec![peer(2)])]));
    assert_eq!(
        scope.step(Event::Restarted(own(9))),
        [left("g", [peer(2)]), Action::Monitor(own(2))]
    );
    let actions = scope.step(discover());
    let all = Message::Sync {
        peer: own(9),
        groups: vec![(group("g"), vec![own(2)])],
    };
    assert_eq!(
        actions,
        [
            Action::Monitor(peer(1)),
            to_peer(all),
            to_peer(Message::Discover(own(9)))
        ]
    );
}

#[test]
fn what_is_kept_of_a_peer_is_bounded() {
    let mut scope = with_peer();
    let many = |count: usize| {
        Event::Received(Message::Join {
            peer: peer(1),
            group: group("g"),
            pids: vec![peer(2); count],
        })
    };
    scope.step(many(PEER_MEMBERSHIPS_MAX - 1));
    assert_eq!(scope.step(many(3)), [joined("g", [peer(2)])]);
    assert_eq!(scope.step(many(1)), []);
}
