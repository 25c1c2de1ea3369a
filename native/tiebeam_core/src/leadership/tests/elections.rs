//! Sections 3.4, 3.6.1, 3.8, 6.2 and 9.6.

use alloc::vec::Vec;

use super::group::Group;
use crate::leadership::message::{Cause, Message};
use crate::leadership::{Effect, HardState, MemberId, Role};

#[test]
fn a_group_elects_one_leader_and_keeps_it() {
    for count in [1, 2, 3, 5] {
        let mut group = Group::new(count);
        group.pass(2000);
        let leaders: Vec<u64> = (1..=count)
            .filter(|&id| group.role(id) == Role::Leader)
            .collect();
        assert_eq!(leaders.len(), 1, "{count} members");
        let term = group.term(leaders[0]);
        group.pass(60_000);
        assert_eq!(
            (group.role(leaders[0]), group.term(leaders[0])),
            (Role::Leader, term)
        );
    }
}

#[test]
pub(super) fn a_vote_is_on_disk_before_it_is_sent() {
    let mut group = Group::new(3);
    group.slow.insert(2);
    group.isolate(3);
    group.elect(1);
    assert_eq!(
        group.role(1),
        Role::Candidate,
        "the vote of 2 waits for its disk"
    );
    assert_eq!(group.disks[&2].hard, HardState::default());
    group.sync(2);
    assert_eq!(
        group.disks[&2].hard,
        HardState {
            term: 1,
            vote: Some(MemberId(1))
        }
    );
    assert_eq!(group.role(1), Role::Leader);
}

#[test]
fn a_candidate_does_not_count_its_own_vote_before_it_is_on_disk() {
    let mut group = Group::new(1);
    group.slow.insert(1);
    group.elect(1);
    assert_eq!(group.role(1), Role::Candidate);
    group.sync(1);
    assert_eq!(group.role(1), Role::Leader);
}

#[test]
pub(super) fn nobody_votes_twice_in_a_term_not_even_after_a_restart() {
    let mut group = Group::new(5);
    let poll = || Message::Poll {
        pre: false,
        last: 0,
        last_term: 0,
        cause: Cause::Silence,
    };
    group.deliver(1, 3, 1, poll());
    group.deliver(2, 3, 1, poll());
    group.crash(3);
    group.start(3);
    group.pass(200);
    group.deliver(2, 3, 1, poll());
    group.deliver(1, 3, 1, poll());
    let votes: Vec<(u64, bool)> = group
        .sent
        .iter()
        .filter(|packet| packet.from == MemberId(3))
        .filter_map(|packet| match packet.message {
            Message::Vote {
                pre: false,
                granted,
                ..
            } => Some((packet.to.0, granted)),
            _ => None,
        })
        .collect();
    assert_eq!(votes, [(1, true), (2, false), (2, false), (1, true)]);
}

#[test]
fn who_lacks_a_committed_entry_is_not_elected() {
    let mut group = Group::led(3);
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.settle();
    assert_eq!(group.applied(1), ["a"]);
    group.cut.clear();
    group.isolate(1);
    group.pass(200);
    group.elect(3);
    assert_ne!(group.role(3), Role::Leader);
    group.pass(2000);
    assert_eq!(group.role(2), Role::Leader);
}

#[test]
fn a_member_that_was_cut_off_does_not_raise_terms() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.isolate(3);
    group.pass(10_000);
    assert_eq!(group.term(3), term, "it only asks (9.6)");
    group.cut.clear();
    group.pass(1000);
    assert_eq!((group.role(1), group.term(1)), (Role::Leader, term));
    assert_eq!(group.role(3), Role::Follower);
}

#[test]
fn whoever_hears_a_leader_does_not_vote() {
    let mut group = Group::led(3);
    group.cut.extend([(1, 3)]);
    group.pass(5000);
    assert_eq!(
        group.role(1),
        Role::Leader,
        "2 hears 1, so 3 is not elected"
    );
}

#[test]
fn a_leader_without_a_majority_gives_up() {
    let mut group = Group::led(5);
    group.isolate(1);
    group.pass(199 + 50);
    assert_ne!(group.role(1), Role::Leader);
    group.pass(2000);
    assert_eq!(
        (2..=5).filter(|&id| group.role(id) == Role::Leader).count(),
        1
    );
}

#[test]
fn a_leader_that_hears_nobody_gives_up_though_all_hear_it() {
    let mut group = Group::led(3);
    group.cut.extend([(2, 1), (3, 1)]);
    group.pass(2000);
    assert_ne!(group.role(1), Role::Leader);
    assert_eq!(
        [2, 3]
            .iter()
            .filter(|&&id| group.role(id) == Role::Leader)
            .count(),
        1
    );
}

#[test]
fn a_hint_that_the_leader_is_gone_makes_an_election_at_once() {
    let mut group = Group::led(3);
    group.crash(1);
    let now = group.now;
    for id in [2, 3] {
        group.replica(id).forget(MemberId(1));
    }
    group.pass(60);
    let leads = |group: &Group| [2, 3].iter().any(|&id| group.role(id) == Role::Leader);
    assert!(
        leads(&group),
        "{} ms",
        group.now.since(now).as_micros() / 1000
    );
}

#[test]
fn a_hint_to_one_voter_alone_changes_no_leader() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.replica(3).forget(MemberId(1));
    group.pass(2000);
    assert_eq!((group.role(1), group.term(1)), (Role::Leader, term));
}

#[test]
fn a_leader_of_an_earlier_term_learns_of_the_later_one() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.deliver(
        2,
        3,
        term + 5,
        Message::Vote {
            pre: false,
            granted: false,
            early: false,
        },
    );
    assert_eq!(group.term(3), term + 5);
    group.pass(3000);
    let leader = (1..=3).find(|&id| group.role(id) == Role::Leader).unwrap();
    assert!(group.term(leader) > term + 5);
    let led = Effect::Leader {
        term: group.term(leader),
        leader: Some(MemberId(leader)),
    };
    assert!((1..=3).all(|id| group.saw(id, &led)));
}
