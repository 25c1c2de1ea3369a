//! Section 6.4.

use super::group::Group;
use crate::leadership::{Effect, Refusal, RequestId};

fn is_read(group: &Group, id: u64, request: RequestId) -> bool {
    group.saw(id, &Effect::Read { request })
}

#[test]
fn a_read_waits_for_a_majority_and_for_what_was_committed_before() {
    let mut group = Group::led(3);
    group.propose(1, "a").unwrap();
    let read = group.read(1).unwrap();
    assert!(!is_read(&group, 1, read));
    group.settle();
    assert!(is_read(&group, 1, read));
    assert_eq!(group.applied(1), ["a"]);
    assert!(matches!(group.read(2), Err(Refusal::NotLeader { .. })));
}

#[test]
fn a_leader_that_was_replaced_reads_nothing() {
    let mut group = Group::led(3);
    group.isolate(1);
    let read = group.read(1).unwrap();
    group.pass(1000);
    assert!(!is_read(&group, 1, read));
    assert!(group.saw(1, &Effect::Unread { request: read }));
}

/// A pause of the leader: everything that it was told before is older than the read.
#[test]
pub(super) fn an_answer_to_what_was_sent_before_confirms_no_read() {
    let mut group = Group::led(3);
    group.sent.clear();
    group.pass(60);
    let answers: alloc::vec::Vec<_> = group
        .sent
        .iter()
        .filter(|packet| packet.to.0 == 1)
        .cloned()
        .collect();
    assert!(!answers.is_empty());
    group.isolate(1);
    let read = group.read(1).unwrap();
    for packet in answers {
        group.deliver(packet.from.0, 1, packet.term, packet.message);
    }
    assert!(!is_read(&group, 1, read));
}

#[test]
fn a_new_leader_reads_only_after_its_first_entry_is_committed() {
    let mut group = Group::led(3);
    group.propose(1, "a").unwrap();
    group.settle();
    group.crash(1);
    group.slow.extend([2, 3]);
    group.pass(200);
    group.elect(2);
    group.sync(3);
    group.sync(2);
    group.sync(3);
    let read = group.read(2).unwrap();
    group.settle();
    assert!(
        !is_read(&group, 2, read),
        "the noop of its term is on no disk but one"
    );
    group.sync(2);
    group.sync(3);
    group.pass(100);
    assert!(is_read(&group, 2, read));
}
