//! Section 3.10.

use super::group::Group;
use crate::leadership::{Consensus, MemberId, Refusal, Role};

fn transfer(group: &mut Group, from: u64, to: Option<u64>) -> Result<(), Refusal> {
    let now = group.now;
    group.replica(from).transfer(now, to.map(MemberId))
}

#[test]
fn leadership_goes_over_at_once_and_with_a_token() {
    let mut group = Group::led(3);
    transfer(&mut group, 1, Some(3)).unwrap();
    group.settle();
    assert_eq!(
        (group.role(1), group.role(3)),
        (Role::Follower, Role::Leader)
    );
    assert!(group.token(3).is_some(), "the old leader gave its lease up");
    assert_eq!(group.token(1), None);
}

#[test]
fn who_lags_gets_the_log_first() {
    let mut group = Group::led(3);
    group.isolate(3);
    for _ in 0..1000 {
        group.propose(1, "x").unwrap();
    }
    group.settle();
    group.cut.clear();
    transfer(&mut group, 1, Some(3)).unwrap();
    assert_eq!(group.propose(1, "y"), Err(Refusal::Transferring));
    group.settle();
    assert_eq!(group.role(3), Role::Leader);
    group.pass(100);
    assert_eq!(group.applied(3).len(), 1000);
}

#[test]
fn somebody_who_is_alive_is_chosen() {
    let mut group = Group::led(3);
    group.crash(2);
    group.pass(300);
    transfer(&mut group, 1, None).unwrap();
    group.settle();
    assert_eq!(group.role(3), Role::Leader);
    group.crash(1);
    group.pass(150);
    assert_eq!(
        transfer(&mut group, 3, Some(9)),
        Err(Refusal::NotAVoter(MemberId(9)))
    );
    group.pass(40);
    group.stand_still(400);
    assert_eq!(transfer(&mut group, 3, None), Err(Refusal::NoSuccessor));
}

#[test]
fn a_leader_whose_successor_is_gone_goes_on() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.isolate(3);
    transfer(&mut group, 1, Some(3)).unwrap();
    group.pass(100);
    assert_eq!(group.token(1), None, "3 may have the order");
    group.pass(200);
    assert_eq!(group.role(1), Role::Leader);
    assert_eq!(
        group.token(1),
        Some(term + 1),
        "in a new term, so that the order is void"
    );
    group.propose(1, "a").unwrap();
    group.settle();
    assert_eq!(group.applied(1), ["a"]);
}

#[test]
fn a_leader_whose_successor_never_catches_up_goes_on_in_its_term() {
    let mut group = Group::led(3);
    let term = group.term(1);
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.settle();
    transfer(&mut group, 1, Some(3)).unwrap();
    group.pass(100);
    assert_eq!(group.token(1), Some(term));
    group.pass(200);
    assert_eq!((group.role(1), group.term(1)), (Role::Leader, term));
    assert!(group.propose(1, "b").is_ok());
}
