//! Sections 3.5, 3.6.2, 3.8 and 10.2.

use alloc::vec;

use super::group::Group;
use crate::leadership::message::Message;
use crate::leadership::{
    Configuration, Consensus, Effect, Entry, Fault, HardState, MAX_COMMAND_BYTES, MemberId,
    Payload, Refusal, Replica, RestoreError, Restored, Role, Settings,
};
use crate::time::Instant;

#[test]
fn what_is_proposed_is_applied_everywhere_in_one_order() {
    let mut group = Group::led(3);
    let request = group.propose(1, "a").unwrap();
    group.propose(1, "b").unwrap();
    group.pass(100);
    for id in 1..=3 {
        assert_eq!(group.applied(id), ["a", "b"]);
    }
    assert!(group.applied_request(1, request) && !group.applied_request(2, request));
}

#[test]
fn proposals_that_come_together_travel_together() {
    let mut group = Group::led(3);
    group.sent.clear();
    for _ in 0..100 {
        group.propose(1, "x").unwrap();
    }
    group.settle();
    assert_eq!(group.applied(1).len(), 100);
    assert!(
        group.sent.len() <= 12,
        "{} messages for 100 commands",
        group.sent.len()
    );
}

#[test]
fn a_follower_does_not_say_that_it_has_what_is_not_on_disk() {
    let mut group = Group::led(3);
    group.isolate(3);
    group.slow.insert(2);
    group.propose(1, "a").unwrap();
    group.pass(1000);
    assert_eq!(group.role(1), Role::Leader, "a slow disk is no lost leader");
    assert!(group.applied(1).is_empty());
    group.sync(2);
    assert_eq!(group.applied(1), ["a"]);
}

#[test]
fn a_leader_may_commit_before_its_own_disk_is_done() {
    let mut group = Group::led(3);
    group.slow.insert(1);
    group.propose(1, "a").unwrap();
    group.settle();
    assert_eq!(group.applied(1), ["a"], "10.2.1: the other two have it");
    group.isolate(3);
    group.propose(1, "b").unwrap();
    group.settle();
    assert_eq!(group.applied(1), ["a"], "one of three has it");
    group.sync(1);
    assert_eq!(group.applied(1), ["a", "b"]);
}

#[test]
fn entries_that_were_never_committed_are_replaced() {
    let mut group = Group::led(3);
    group.isolate(1);
    let lost = group.propose(1, "lost").unwrap();
    group.pass(1000);
    let leader = [2, 3]
        .into_iter()
        .find(|&id| group.role(id) == Role::Leader)
        .unwrap();
    group.propose(leader, "kept").unwrap();
    group.settle();
    group.cut.clear();
    group.pass(1000);
    for id in 1..=3 {
        assert_eq!(group.applied(id), ["kept"]);
    }
    assert!(group.saw(1, &Effect::Unknown { request: lost }));
}

/// The dissertation's figure 3.7: an entry of an old term is on a majority, and may still be replaced.
#[test]
pub(super) fn an_entry_of_an_older_term_is_not_committed_by_counting() {
    let mut group = Group::new(5);
    let entry = |index, term| Entry {
        index,
        term,
        payload: Payload::Noop,
    };
    let disks: [&[Entry]; 5] = [
        &[entry(1, 1), entry(2, 2)],
        &[entry(1, 1), entry(2, 2)],
        &[entry(1, 1), entry(2, 2)],
        &[entry(1, 1)],
        &[entry(1, 1), entry(2, 3)],
    ];
    for (id, entries) in (1..).zip(disks) {
        let hard = HardState {
            term: 3,
            vote: None,
        };
        group.disks.insert(
            id,
            Restored {
                hard,
                entries: entries.to_vec(),
                snapshot: None,
            },
        );
        group.crash(id);
        group.start(id);
    }
    group.stand_still(200);
    group.isolate(5);
    group.slow.extend([1, 2, 3, 4]);
    group.elect(1);
    for id in 1..=4 {
        group.sync(id);
    }
    assert_eq!((group.role(1), group.term(1)), (Role::Leader, 4));
    for id in [2, 3] {
        group.deliver(
            id,
            1,
            4,
            Message::Accepted {
                round: 1,
                matched: 2,
            },
        );
    }
    assert_eq!(
        group.members[&1].status().commit,
        0,
        "5 may still replace entry 2"
    );
    for id in [2, 3, 4] {
        group.deliver(
            id,
            1,
            4,
            Message::Accepted {
                round: 1,
                matched: 3,
            },
        );
    }
    assert_eq!(
        group.members[&1].status().commit,
        3,
        "with the entry of term 4 all are committed"
    );
}

#[test]
fn a_follower_that_was_away_gets_all_it_missed() {
    let mut group = Group::led(3);
    group.isolate(3);
    let long = "x".repeat(10_000);
    for _ in 0..2000 {
        group.propose(1, &long).unwrap();
        group.settle();
    }
    group.cut.clear();
    group.pass(1000);
    assert_eq!(group.applied(3).len(), 2000);
    assert_eq!(group.members[&1].probing(), 0);
}

#[test]
fn messages_that_come_twice_or_late_change_nothing() {
    let mut group = Group::led(3);
    for text in ["a", "b", "c"] {
        group.propose(1, text).unwrap();
        group.settle();
    }
    let all = core::mem::take(&mut group.sent);
    for packet in all.iter().rev().chain(&all) {
        let (from, to) = (packet.from.0, packet.to.0);
        group.deliver(from, to, packet.term, packet.message.clone());
    }
    group.pass(1000);
    assert_eq!(
        (group.role(1), group.applied(2), group.applied(3).len()),
        (Role::Leader, vec!["a", "b", "c"], 3)
    );
}

#[test]
fn another_entry_where_one_is_committed_stops_the_member() {
    let mut group = Group::led(3);
    group.propose(1, "a").unwrap();
    group.pass(100);
    let (index, term) = (2, group.term(1) + 1);
    let entries = vec![Entry {
        index,
        term,
        payload: Payload::Noop,
    }];
    let liar = Message::Append {
        round: 1,
        previous: 1,
        previous_term: 1,
        commit: 0,
        entries,
    };
    group.deliver(3, 2, term, liar);
    assert_eq!(group.role(2), Role::Stopped);
    assert!(group.saw(
        2,
        &Effect::Stopped(Fault::Diverged {
            index,
            leader: MemberId(3)
        })
    ));
    assert_eq!(group.propose(2, "b"), Err(Refusal::Stopped));
}

#[test]
fn what_a_leader_cannot_take_is_refused() {
    let mut group = Group::led(3);
    let (leader, term) = (Some(MemberId(1)), group.term(1));
    assert_eq!(
        group.propose(2, "a"),
        Err(Refusal::NotLeader { leader, term })
    );
    let long = "x".repeat(MAX_COMMAND_BYTES + 1);
    let bytes = long.len();
    assert_eq!(group.propose(1, &long), Err(Refusal::TooLong { bytes }));
    group.isolate(1);
    let refused = (0..).find_map(|_| group.propose(1, "a").err());
    assert_eq!(refused, Some(Refusal::Busy { waiting: 8192 }));
}

#[test]
fn a_log_that_was_not_kept_whole_is_not_run() {
    let start = |hard, entries| {
        let settings = Settings::lan(MemberId(1), 7, 1);
        let founding = Configuration::new([MemberId(1)], []).unwrap();
        Replica::new(
            Instant::ZERO,
            settings,
            founding,
            Restored {
                hard,
                entries,
                snapshot: None,
            },
        )
        .unwrap_err()
    };
    let entry = |index, term| Entry {
        index,
        term,
        payload: Payload::Noop,
    };
    let hard = HardState {
        term: 2,
        vote: None,
    };
    let gap = RestoreError::Gap {
        expected: 2,
        found: 3,
    };
    assert_eq!(start(hard, vec![entry(1, 1), entry(3, 1)]), gap);
    let back = RestoreError::Terms { index: 2 };
    assert_eq!(start(hard, vec![entry(1, 2), entry(2, 1)]), back);
    assert_eq!(start(hard, vec![entry(1, 1), entry(2, 3)]), back);
}

/// An entry that the follower has from an earlier leader is not committed because the new leader committed its own.
#[test]
pub(super) fn a_follower_commits_only_what_it_has_from_this_leader() {
    let mut group = Group::new(3);
    let entry = |index, term| Entry {
        index,
        term,
        payload: Payload::Noop,
    };
    let hard = HardState {
        term: 1,
        vote: None,
    };
    let entries = vec![entry(1, 1), entry(2, 1)];
    group.disks.insert(
        3,
        Restored {
            hard,
            entries,
            snapshot: None,
        },
    );
    group.crash(3);
    group.start(3);
    let heartbeat = |previous, previous_term| Message::Append {
        round: 1,
        previous,
        previous_term,
        commit: 2,
        entries: vec![],
    };
    group.deliver(1, 3, 2, heartbeat(1, 1));
    assert_eq!(
        group.members[&3].status().commit,
        1,
        "entry 2 of the leader may be another one"
    );
}
