//! Chapter 4.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::group::Group;
use crate::identity::NodeName;
use crate::leadership::message::{Cause, Message};
use crate::leadership::{
    Configuration, Consensus, Effect, Entry, MemberId, Payload, Refusal, RequestId, Role,
};

/// Members 1 to `voters` that 1 leads, and behind them `learners` that have the log.
fn learned(voters: u64, learners: u64) -> Group {
    let mut group = Group::led(voters);
    let all: Vec<u64> = (1..=voters).collect();
    let more: Vec<u64> = (voters + 1..=voters + learners).collect();
    for &id in &more {
        group.start(id);
    }
    group.change(1, &all, &more).unwrap();
    group.pass(300);
    group
}

fn leaders(group: &Group) -> Vec<u64> {
    let ids = group.members.keys().copied();
    ids.filter(|&id| group.role(id) == Role::Leader).collect()
}

#[test]
pub(super) fn a_learner_has_the_log_and_no_vote() {
    let mut group = learned(3, 2);
    group.propose(1, "a").unwrap();
    group.pass(100);
    assert_eq!((group.applied(4), group.applied(5)), (vec!["a"], vec!["a"]));
    for id in 1..=5 {
        assert_eq!(group.members_of(id), (vec![1, 2, 3], vec![], vec![4, 5]));
    }
    group.isolate(2);
    group.isolate(3);
    group.propose(1, "b").unwrap();
    group.settle();
    assert_eq!(group.applied(1), ["a"], "4 and 5 have it, and do not count");
    group.pass(5000);
    assert_eq!(leaders(&group), [], "learners do not stand");
}

#[test]
fn a_learner_that_was_far_behind_gets_a_snapshot() {
    let mut group = Group::led(3);
    for text in ["a", "b"] {
        group.propose(1, text).unwrap();
    }
    group.pass(100);
    group.compact(1);
    group.start(4);
    let request = group.change(1, &[1, 2, 3], &[4]).unwrap();
    group.pass(200);
    assert!(group.applied_request(1, request));
    assert_eq!(group.applied(4), ["a", "b"]);
    assert_eq!(group.members_of(4).2, [4]);
}

#[test]
fn a_learner_that_has_the_log_may_vote_and_others_may_not() {
    let mut group = learned(3, 1);
    let learn = "a voter learns first: add it as a learner, then let it vote";
    assert_eq!(
        group.change(1, &[1, 2, 3, 9], &[4]),
        Err(Refusal::Change(learn))
    );
    group.isolate(4);
    let lag = Refusal::Change("a learner that is to vote has not the whole log; ask again later");
    for _ in 0..300 {
        group.propose(1, "x").unwrap();
    }
    group.pass(50);
    assert_eq!(group.change(1, &[1, 2, 3, 4], &[]), Err(lag));
    group.pass(400);
    assert_eq!(group.change(1, &[1, 2, 3, 4], &[]), Err(lag), "never heard");
    group.cut.clear();
    group.pass(200);
    let request = group.change(1, &[1, 2, 3, 4], &[]).unwrap();
    group.pass(100);
    assert!(group.applied_request(1, request));
    assert_eq!(group.members_of(4), (vec![1, 2, 3, 4], vec![], vec![]));
    // It votes: of four, two may be gone no more than one.
    group.crash(1);
    group.crash(2);
    group.pass(2000);
    assert_eq!(leaders(&group), []);
    group.start(2);
    group.pass(2000);
    assert_eq!(leaders(&group).len(), 1);
}

#[test]
fn a_change_is_in_force_once_it_is_in_the_log() {
    let mut group = Group::led(3);
    group.isolate(1);
    group.change(1, &[1, 2], &[]).unwrap();
    group.settle();
    assert_eq!(group.members_of(1).0, [1, 2]);
    let two = Configuration::new([1, 2].map(MemberId), []).unwrap();
    assert!(group.saw(1, &Effect::Configured(two)));
}

#[test]
fn a_change_that_was_not_committed_is_undone() {
    let mut group = Group::led(3);
    group.isolate(1);
    let request = group.change(1, &[1, 2], &[]).unwrap();
    group.pass(1000);
    group.cut.clear();
    group.pass(1000);
    for id in 1..=3 {
        assert_eq!(group.members_of(id).0, [1, 2, 3]);
    }
    assert!(group.saw(1, &Effect::Unknown { request }));
}

#[test]
pub(super) fn there_is_one_change_at_a_time() {
    let mut group = learned(3, 2);
    group.isolate(1);
    group.change(1, &[1, 2, 3, 4], &[5]).unwrap();
    assert_eq!(
        group.change(1, &[1, 2, 3, 5], &[4]),
        Err(Refusal::Changing),
        "the other operator"
    );
    group.settle();
    assert_eq!(group.change(1, &[1, 2], &[]), Err(Refusal::Changing));
    group.cut.clear();
    group.pass(150);
    assert_eq!(leaders(&group), [1]);
    group.change(1, &[1, 2, 3, 4, 5], &[]).unwrap();
    group.pass(100);
    assert_eq!(group.members_of(5).0, [1, 2, 3, 4, 5]);
}

#[test]
pub(super) fn a_new_leader_changes_nothing_before_its_first_entry_is_committed() {
    let mut group = Group::led(3);
    group.crash(1);
    group.stand_still(200);
    group.slow.extend([2, 3]);
    group.elect(2);
    group.sync(2);
    group.sync(3);
    assert_eq!(group.role(2), Role::Leader);
    assert_eq!(group.change(2, &[2, 3], &[]), Err(Refusal::Changing));
    group.sync(3);
    group.sync(2);
    assert!(group.change(2, &[2, 3], &[]).is_ok());
}

#[test]
fn what_a_leader_cannot_change_to_is_refused() {
    let mut group = Group::led(3);
    let not_leader = Refusal::NotLeader {
        leader: Some(MemberId(1)),
        term: group.term(1),
    };
    assert_eq!(group.change(2, &[1, 2], &[]), Err(not_leader));
    let refused = |group: &mut Group, to| {
        let now = group.now;
        group.replica(1).change(now, RequestId(99), to).unwrap_err()
    };
    let joint = Configuration::joint([MemberId(1)], [MemberId(2)], []).unwrap();
    let why = "a change names the voters that are to be, and no outgoing ones";
    assert_eq!(refused(&mut group, joint), Refusal::Change(why));
    let swapped = Configuration::new([MemberId(1)], [MemberId(2)]).unwrap();
    let why = "a voter that is to learn does so in a change of its own";
    assert_eq!(refused(&mut group, swapped), Refusal::Change(why));
    group.crash(3);
    group.pass(300);
    let without = Configuration::new([1, 3].map(MemberId), []).unwrap();
    let why = "a majority of the voters asked for does not answer";
    assert_eq!(refused(&mut group, without), Refusal::Change(why));
    assert_eq!(group.members_of(1).0, [1, 2, 3]);
}

#[test]
fn a_voter_may_become_a_learner() {
    let mut group = Group::led(3);
    group.change(1, &[1, 2], &[3]).unwrap();
    group.pass(100);
    group.propose(1, "a").unwrap();
    group.pass(100);
    assert_eq!(group.members_of(3), (vec![1, 2], vec![], vec![3]));
    assert_eq!(group.applied(3), ["a"]);
}

#[test]
pub(super) fn several_voters_are_replaced_by_way_of_a_joint_configuration() {
    let mut group = learned(3, 2);
    let request = group.change(1, &[1, 4, 5], &[]).unwrap();
    assert_eq!(group.members_of(1), (vec![1, 4, 5], vec![1, 2, 3], vec![]));
    group.pass(150);
    assert_eq!(group.members_of(1), (vec![1, 4, 5], vec![], vec![]));
    assert!(group.applied_request(1, request));
    let applied = group.seen[&1].iter().filter(|effect| {
        matches!(effect, Effect::Apply { entry: Entry { payload: Payload::Configuration(made), .. }, request: Some(_) } if !made.is_joint())
    });
    assert_eq!(applied.count(), 2, "learners, and the end of the change");
    group.crash(2);
    group.crash(3);
    group.propose(1, "a").unwrap();
    group.pass(100);
    assert_eq!(group.applied(5), ["a"]);
}

/// A member hears that the joint entry is committed together with the one that leaves it, and of nothing after that.
#[test]
pub(super) fn what_is_in_the_log_last_is_in_force() {
    let mut group = learned(3, 2);
    let mut left = false;
    group.filter = Some(Box::new(move |packet| {
        let Message::Append { entries, .. } = &packet.message else {
            return 1;
        };
        if packet.to.0 != 4 {
            return 1;
        }
        let hears = !left;
        left |= entries.iter().any(
            |entry| matches!(&entry.payload, Payload::Configuration(made) if !made.is_joint()),
        );
        usize::from(hears)
    }));
    group.change(1, &[1, 4, 5], &[]).unwrap();
    group.pass(100);
    assert_eq!(group.members_of(4), (vec![1, 4, 5], vec![], vec![]));
}

#[test]
fn one_takes_the_place_of_another() {
    let mut group = learned(3, 1);
    group.crash(3);
    group.pass(100);
    let request = group.change(1, &[1, 2, 4], &[]).unwrap();
    group.pass(100);
    assert!(group.applied_request(1, request));
    assert_eq!(group.members_of(4), (vec![1, 2, 4], vec![], vec![]));
}

#[test]
pub(super) fn a_joint_configuration_commits_nothing_without_the_outgoing_majority() {
    let mut group = learned(3, 2);
    group.isolate(2);
    group.isolate(3);
    let request = group.change(1, &[1, 4, 5], &[]).unwrap();
    group.pass(100);
    assert!(!group.applied_request(1, request));
    assert!(group.members[&1].configuration().is_joint());
    assert_eq!(group.token(1).is_some(), group.role(1) == Role::Leader);
    group.pass(300);
    assert_ne!(group.role(1), Role::Leader, "nor does it lead on");
    assert_eq!(group.token(1), None);
    group.cut.clear();
    group.pass(3000);
    let leader = leaders(&group)[0];
    assert!(!group.members[&leader].configuration().is_joint());
}

#[test]
fn a_new_leader_leaves_a_joint_configuration_that_it_finds() {
    let mut group = learned(3, 2);
    // The joint entry gets to everybody; what comes after it stays with 1.
    let request = group.change(1, &[1, 4, 5], &[]).unwrap();
    let mut joint = None;
    group.filter = Some(Box::new(move |packet| match &packet.message {
        Message::Append { entries, .. } if packet.from.0 == 1 => {
            let first = *joint.get_or_insert(entries.last().map_or(0, |entry| entry.index));
            usize::from(entries.iter().all(|entry| entry.index <= first))
        }
        _ => 1,
    }));
    group.settle();
    assert!(group.members[&4].configuration().is_joint());
    group.crash(1);
    group.pass(3000);
    let leader = leaders(&group)[0];
    assert_eq!(group.members_of(leader), (vec![1, 4, 5], vec![], vec![]));
    assert!(!group.applied_request(leader, request));
    assert!([4, 5].contains(&leader) || group.role(leader) == Role::Leader);
    group.pass(1000);
    assert!(leaders(&group).iter().all(|id| [4, 5].contains(id)));
}

#[test]
fn who_loses_its_leadership_in_the_middle_of_a_change_says_so() {
    let mut group = learned(3, 2);
    group.isolate(1);
    let request = group.change(1, &[1, 4, 5], &[]).unwrap();
    group.pass(1000);
    assert!(group.saw(1, &Effect::Unknown { request }));
}

#[test]
pub(super) fn a_leader_that_is_removed_hands_over_and_goes() {
    let mut group = Group::led(3);
    let request = group.change(1, &[2, 3], &[]).unwrap();
    group.settle();
    assert!(group.applied_request(1, request));
    assert_eq!(group.role(1), Role::Follower);
    let leader = leaders(&group);
    assert_eq!(leader.len(), 1, "at once: it handed over");
    assert!(group.token(leader[0]).is_some());
    let term = group.term(leader[0]);
    group.pass(10_000);
    assert_eq!(leaders(&group), leader);
    assert_eq!(group.term(leader[0]), term, "1 disturbs nobody");
}

/// 4.2.2: nobody else has the entry that removes it, so nobody else is elected.
#[test]
fn who_is_removed_by_its_own_log_stands_until_that_is_committed() {
    let mut group = Group::led(2);
    group.isolate(1);
    group.change(1, &[2], &[]).unwrap();
    group.pass(1000);
    assert_eq!(leaders(&group), []);
    group.cut.clear();
    group.pass(3000);
    assert_eq!(leaders(&group), [2]);
    assert_eq!(
        (group.members_of(1).0, group.members_of(2).0),
        (vec![2], vec![2])
    );
    group.pass(10_000);
    assert_eq!((leaders(&group), group.role(1)), (vec![2], Role::Follower));
}

/// The commit of its removal needs a majority without it.
#[test]
fn a_leader_that_is_removed_does_not_count_itself() {
    let mut group = Group::led(4);
    group.change(1, &[2, 3, 4], &[]).unwrap();
    group.isolate(3);
    group.isolate(4);
    group.settle();
    let status = group.members[&1].status();
    assert_eq!(
        (status.role, status.commit + 1),
        (Role::Leader, status.last)
    );
    group.pass(1000);
    assert_ne!(group.role(1), Role::Leader);
}

#[test]
fn a_leader_that_is_removed_and_has_no_successor_goes() {
    let mut group = Group::led(3);
    group.change(1, &[2, 3], &[]).unwrap();
    group.filter = Some(Box::new(|packet| {
        usize::from(!matches!(packet.message, Message::TimeoutNow { .. }))
    }));
    group.pass(190);
    assert_eq!(group.role(1), Role::Leader);
    group.pass(120);
    assert_ne!(group.role(1), Role::Leader);
    group.pass(2000);
    assert!(matches!(leaders(&group)[..], [2 | 3]));
}

#[test]
fn a_member_that_is_removed_learns_it_and_disturbs_nobody() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.change(1, &[1, 2], &[]).unwrap();
    group.pass(200);
    assert_eq!(group.members_of(3).0, [1, 2]);
    group.sent.clear();
    group.pass(5000);
    let concerns_3 = |id: MemberId| id == MemberId(3);
    let sent = group.sent.iter();
    let more = sent.filter(|packet| concerns_3(packet.to) || concerns_3(packet.from));
    assert_eq!(more.count(), 0);
    assert_eq!((leaders(&group), group.term(1)), (vec![1], term));
}

/// 4.2.3: it did not hear of its removal, and asks for votes.
#[test]
fn a_member_that_does_not_know_that_it_is_removed_disturbs_nobody() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.cut.insert((1, 3));
    group.change(1, &[1, 2], &[]).unwrap();
    group.pass(10_000);
    assert_eq!(group.members_of(3).0, [1, 2, 3]);
    assert_eq!((leaders(&group), group.term(1)), (vec![1], term));
    assert_eq!(group.term(3), term);
}

/// A member that is in no configuration follows whoever leads, and never stands.
#[test]
fn a_stranger_follows_and_does_not_stand() {
    let mut group = Group::led(3);
    group.start(9);
    group.pass(3000);
    assert_eq!((group.role(9), group.term(9)), (Role::Follower, 0));
    group.deliver(
        1,
        9,
        1,
        Message::Append {
            round: 1,
            previous: 0,
            previous_term: 0,
            commit: 0,
            entries: vec![],
        },
    );
    assert_eq!(group.members[&9].status().leader, Some(MemberId(1)));
    group.pass(3000);
    assert_eq!(group.term(9), 1);
}

/// Its vote counts in the candidate's configuration, whether it knows that or not.
#[test]
fn a_learner_that_does_not_know_that_it_votes_is_asked_and_votes() {
    let mut group = learned(3, 1);
    let (last, last_term) = (group.members[&1].status().last, group.term(1));
    group.stand_still(500);
    group.sent.clear();
    let poll = Message::Poll {
        pre: false,
        last,
        last_term,
        cause: Cause::Silence,
    };
    group.deliver(2, 4, last_term + 1, poll);
    assert!(matches!(
        group.sent[0].message,
        Message::Vote { granted: true, .. }
    ));
}

#[test]
pub(super) fn whoever_gets_a_snapshot_gets_the_members_with_it() {
    let mut group = learned(3, 1);
    group.isolate(3);
    group.change(1, &[1, 2, 3, 4], &[]).unwrap();
    group.pass(100);
    group.compact(1);
    group.cut.clear();
    group.pass(300);
    assert_eq!(group.members_of(3).0, [1, 2, 3, 4]);
    for id in [1, 3] {
        group.crash(id);
        group.start(id);
        assert_eq!(group.members_of(id).0, [1, 2, 3, 4]);
    }
}

#[test]
fn a_truncated_change_falls_back_to_the_members_of_the_snapshot() {
    let mut group = learned(3, 1);
    group.compact(1);
    group.isolate(1);
    group.change(1, &[1, 2, 3, 4], &[]).unwrap();
    group.settle();
    assert_eq!(group.members_of(1).0, [1, 2, 3, 4]);
    group.pass(1000);
    group.cut.clear();
    group.pass(2000);
    assert_eq!(group.members_of(1), (vec![1, 2, 3], vec![], vec![4]));
}

#[test]
fn nodes_travel_with_the_members() {
    let mut group = learned(3, 2);
    let node = |name: &str| NodeName::parse(name).unwrap();
    let ids = |numbers: &[u64]| numbers.iter().copied().map(MemberId).collect::<Vec<_>>();
    let mut change = |voters: &[u64], learners: &[u64], names: &[(u64, &str)]| {
        let names = names.iter().map(|&(id, name)| (MemberId(id), node(name)));
        let to = Configuration::new(ids(voters), ids(learners))
            .unwrap()
            .on_nodes(names);
        let now = group.now;
        group.replica(1).change(now, RequestId(90), to).unwrap();
        let at_once = group.members[&1].configuration().clone();
        group.pass(150);
        (at_once, group.members[&5].configuration().clone())
    };
    let (_, named) = change(&[1, 2, 3], &[4, 5], &[(1, "a@h"), (2, "b@h"), (4, "d@h")]);
    assert_eq!(named.node(MemberId(4)), Some(&node("d@h")));
    let (joint, named) = change(&[1, 4, 5], &[], &[(4, "d2@h")]);
    assert_eq!(
        joint.node(MemberId(2)),
        Some(&node("b@h")),
        "it is there yet"
    );
    assert_eq!(named.node(MemberId(2)), None);
    assert_eq!(named.member_on(&node("d2@h")), Some(MemberId(4)));
    assert_eq!(named.node(MemberId(1)), Some(&node("a@h")), "said before");
}

#[test]
fn a_leader_knows_how_far_others_are() {
    let group = learned(3, 1);
    let last = group.members[&1].status().last;
    let standing = group.members[&1].progress(MemberId(4)).unwrap();
    assert_eq!(standing.matched, last);
    assert!(group.now.since(standing.heard.unwrap()).as_micros() < 60_000);
    assert_eq!(group.members[&1].progress(MemberId(9)), None);
    assert_eq!(group.members[&2].progress(MemberId(3)), None);
}
