//! Section 6.4.1, and what a hint changes.

use super::group::Group;
use crate::leadership::message::Message;
use crate::leadership::{MemberId, Role};

#[test]
fn a_leader_has_a_token_while_a_majority_confirms_it() {
    let mut group = Group::led(3);
    assert_eq!(group.token(1), Some(group.term(1)));
    assert_eq!((group.token(2), group.token(3)), (None, None));
    group.isolate(1);
    group.stand_still(99);
    assert!(
        group.token(1).is_some(),
        "the last heartbeat was sent less than 150 ms ago"
    );
    group.stand_still(51);
    assert_eq!(group.token(1), None);
}

#[test]
fn a_lease_counts_from_the_sending() {
    let mut group = Group::led(3);
    group.sent.clear();
    group.pass(50);
    let answers: alloc::vec::Vec<_> = group
        .sent
        .iter()
        .filter(|packet| packet.to.0 == 1)
        .cloned()
        .collect();
    group.isolate(1);
    group.stand_still(149);
    for packet in answers {
        group.deliver(packet.from.0, 1, packet.term, packet.message);
    }
    group.stand_still(1);
    assert_eq!(
        group.token(1),
        None,
        "the answers came a millisecond ago, the question is old"
    );
}

#[test]
fn a_winner_by_silence_has_a_token_at_once() {
    let mut group = Group::led(3);
    group.isolate(1);
    group.stand_still(200);
    group.elect(2);
    assert_eq!(group.role(2), Role::Leader);
    assert_eq!(
        (group.token(1), group.token(2)),
        (None, Some(group.term(2)))
    );
}

#[test]
fn a_winner_by_a_hint_waits_for_the_old_lease() {
    let mut group = Group::led(3);
    group.isolate(1);
    for id in [2, 3] {
        group.replica(id).forget(MemberId(1));
    }
    group.elect(2);
    assert_eq!(group.role(2), Role::Leader);
    group.propose(2, "a").unwrap();
    group.settle();
    assert_eq!(group.applied(2), ["a"], "it leads at once");
    assert!(group.token(1).is_some() && group.token(2).is_none());
    group.pass(199);
    assert!(group.token(1).is_none() && group.token(2).is_none());
    group.pass(1);
    assert_eq!(group.token(2), Some(group.term(2)));
}

#[test]
pub(super) fn a_voter_that_started_anew_keeps_what_its_last_life_confirmed() {
    let mut group = Group::led(3);
    group.isolate(1);
    group.crash(2);
    group.start(2);
    group.replica(3).forget(MemberId(1));
    group.elect(3);
    assert_ne!(
        group.role(3),
        Role::Leader,
        "2 does not vote in its first 200 ms"
    );
    assert!(group.token(1).is_some());
    group.stand_still(200);
    group.elect(3);
    assert_eq!(group.role(3), Role::Leader);
    assert!(group.token(1).is_none() && group.token(3).is_some());
}

#[test]
fn tokens_grow() {
    let mut group = Group::led(3);
    let first = group.token(1).unwrap();
    group.isolate(1);
    group.pass(2000);
    let second = [2, 3].into_iter().find_map(|id| group.token(id)).unwrap();
    assert!(second > first);
}

#[test]
fn an_order_to_stand_that_released_no_lease_makes_the_winner_wait() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.deliver(1, 2, term, Message::TimeoutNow { released: false });
    assert_eq!((group.role(2), group.token(2)), (Role::Leader, None));
    group.pass(200);
    assert!(group.token(2).is_some());
}
