//! Chapter 5: logs that begin late, and members that get a snapshot.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::{format, vec, vec::Vec};

use super::group::Group;
use crate::leadership::chunks::{CHUNK_BYTES, Chunk, MAX_SNAPSHOT_BYTES};
use crate::leadership::message::Message;
use crate::leadership::{
    Configuration, Consensus, Effect, Entry, HardState, MemberId, Payload, Replica, RequestId,
    RestoreError, Restored, Role, Settings, Snapshot,
};
use crate::time::Instant;

/// Commands that make a state of about `parts` parts.
fn propose_parts(group: &mut Group, id: u64, parts: usize) -> Vec<String> {
    let long = "x".repeat(CHUNK_BYTES / 4);
    let texts: Vec<String> = (0..4 * parts).map(|at| format!("{at}{long}")).collect();
    for text in &texts {
        group.propose(id, text).unwrap();
        group.settle();
    }
    texts
}

/// Three members, of which 3 was away, and the others have the beginning of the log no more.
fn behind(parts: usize) -> (Group, Vec<String>) {
    let mut group = Group::led(3);
    group.isolate(3);
    let texts = propose_parts(&mut group, 1, parts);
    group.pass(100);
    group.compact(1);
    group.compact(2);
    group.sent.clear();
    (group, texts)
}

fn chunks(group: &Group) -> Vec<(u64, &Chunk)> {
    let sent = group.sent.iter();
    sent.filter_map(|packet| match &packet.message {
        Message::Chunk { chunk, .. } => Some((packet.from.0, chunk)),
        _ => None,
    })
    .collect()
}

#[test]
fn a_member_starts_with_its_snapshot_and_the_rest_of_its_log() {
    let mut group = Group::led(3);
    for text in ["a", "b"] {
        group.propose(1, text).unwrap();
    }
    group.settle();
    group.compact(1);
    assert_eq!(group.disks[&1].snapshot.as_ref().unwrap().index, 3);
    assert_eq!(group.disks[&1].entries, []);
    group.propose(1, "c").unwrap();
    group.pass(100);
    assert_eq!(group.disks[&1].entries.len(), 1);
    group.crash(1);
    group.start(1);
    group.settle();
    let restored = group.disks[&1].snapshot.clone().unwrap();
    assert_eq!(group.seen[&1], [Effect::Restore(restored)]);
    assert_eq!(group.applied(1), ["a", "b"]);
    let status = group.members[&1].status();
    assert_eq!((status.commit, status.last), (3, 4));
    group.pass(2000);
    assert_eq!(group.applied(1), ["a", "b", "c"]);
}

#[test]
fn a_tail_is_kept_for_those_that_are_a_little_behind() {
    let mut group = Group::new(3);
    group.tail = 10;
    for id in 1..=3 {
        group.crash(id);
        group.start(id);
    }
    group.elect(1);
    group.isolate(3);
    for at in 0..20 {
        group.propose(1, &at.to_string()).unwrap();
    }
    group.pass(100);
    group.compact(1);
    let disk = &group.disks[&1];
    assert_eq!(disk.snapshot.as_ref().unwrap().index, 21);
    assert_eq!(disk.entries.first().unwrap().index, 12);
    // 3 has 1 entry and needs 20: too many.
    group.cut.clear();
    group.pass(300);
    assert!(!chunks(&group).is_empty());
    assert_eq!(group.applied(3).len(), 20);
    group.sent.clear();
    group.isolate(3);
    for at in 0..5 {
        group.propose(1, &at.to_string()).unwrap();
    }
    group.pass(100);
    group.compact(1);
    group.cut.clear();
    group.pass(300);
    assert_eq!((chunks(&group).len(), group.applied(3).len()), (0, 25));
    // And again from the disk, where the first entry has nothing before it.
    group.crash(1);
    group.start(1);
    group.pass(2000);
    assert_eq!(group.applied(1).len(), 25);
}

#[test]
fn who_is_behind_the_log_gets_the_snapshot_and_then_entries() {
    let (mut group, mut texts) = behind(5);
    group.propose(1, "after").unwrap();
    group.settle();
    texts.push("after".to_string());
    group.cut.clear();
    group.pass(200);
    assert_eq!(group.applied(3), texts);
    assert!(group.disks[&3].snapshot.is_some());
    let sent = chunks(&group);
    assert_eq!(sent.len(), 6, "the state has a little more than five parts");
    assert!(
        sent.iter()
            .all(|(_, chunk)| chunk.bytes.len() <= CHUNK_BYTES)
    );
    group.propose(1, "more").unwrap();
    group.pass(100);
    assert_eq!(group.applied(3).last(), Some(&"more"));
    assert_eq!(group.role(1), Role::Leader);
}

#[test]
fn an_empty_state_is_a_snapshot_too() {
    let mut group = Group::led(3);
    group.isolate(3);
    group.propose(1, "x").unwrap();
    group.settle();
    let now = group.now;
    group.replica(1).compact(now, Arc::from([]));
    group.cut.clear();
    group.pass(200);
    assert_eq!(chunks(&group).len(), 1);
    assert_eq!(group.members[&3].status().commit, 2);
}

/// Loss of every third part, and each of the others twice.
#[test]
fn parts_that_are_lost_or_come_twice_are_no_matter() {
    let (mut group, texts) = behind(12);
    group.cut.clear();
    let mut count = 0;
    group.filter = Some(Box::new(move |packet| {
        let part = matches!(
            packet.message,
            Message::Chunk { .. } | Message::Received { .. }
        );
        count += usize::from(part);
        match (part, count % 3) {
            (false, _) => 1,
            (true, 0) => 0,
            (true, _) => 2,
        }
    }));
    group.pass(3000);
    assert_eq!(group.applied(3), texts);
    assert_eq!(group.role(1), Role::Leader, "heartbeats went on");
    assert_eq!(group.term(1), 1);
}

#[test]
fn a_lost_part_is_sent_again_and_not_all_of_them() {
    let (mut group, texts) = behind(20);
    group.cut.clear();
    let mut lost = false;
    group.filter = Some(Box::new(move |packet| match &packet.message {
        Message::Chunk { chunk, .. } if !lost && chunk.offset == 10 * CHUNK_BYTES as u32 => {
            lost = true;
            0
        }
        _ => 1,
    }));
    group.pass(500);
    assert_eq!(group.applied(3), texts);
    let sent = chunks(&group).len();
    assert!(sent <= 21 + 9, "{sent} parts of 21");
}

#[test]
fn a_new_leader_sends_its_own_snapshot_from_the_beginning() {
    let (mut group, texts) = behind(12);
    group.cut.clear();
    let mut allowed = 5;
    group.filter = Some(Box::new(move |packet| {
        if matches!(packet.message, Message::Chunk { .. }) && packet.from.0 == 1 {
            allowed -= 1;
            return usize::from(allowed >= 0);
        }
        1
    }));
    group.pass(300);
    assert!(group.applied(3).is_empty());
    group.crash(1);
    group.pass(2000);
    assert_eq!(group.role(2), Role::Leader);
    assert_eq!(group.applied(3), texts);
    let from_2: Vec<u32> = chunks(&group)
        .iter()
        .filter(|(from, _)| *from == 2)
        .map(|(_, chunk)| chunk.offset)
        .collect();
    assert_eq!((from_2[0], from_2.len()), (0, 13));
}

#[test]
fn a_member_that_starts_anew_amid_a_transfer_gets_all_of_it() {
    let (mut group, texts) = behind(12);
    group.cut.clear();
    let mut allowed = 7;
    group.filter = Some(Box::new(move |packet| {
        if matches!(packet.message, Message::Chunk { .. }) {
            allowed -= 1;
            return usize::from(allowed >= 0);
        }
        1
    }));
    group.pass(300);
    group.crash(3);
    group.start(3);
    group.filter = None;
    group.pass(1000);
    assert_eq!(group.applied(3), texts);
}

#[test]
pub(super) fn a_snapshot_is_on_disk_before_the_leader_hears_of_it() {
    let (mut group, texts) = behind(2);
    group.slow.insert(3);
    group.cut.clear();
    group.pass(400);
    let install = group.disks[&3].clone();
    assert_eq!(install.snapshot, None);
    assert_eq!(group.applied(3), texts, "the machine has it already");
    let matched = group.members[&1].progress(MemberId(3)).unwrap().matched;
    assert!(matched <= 1, "it is not on the disk of 3: {matched}");
    // The other voter is gone: only what 3 has on its disk may be committed.
    group.isolate(2);
    group.propose(1, "after").unwrap();
    group.settle();
    assert_ne!(group.applied(1).last(), Some(&"after"));
    // Amid the write 3 ends and starts again, without the snapshot.
    group.crash(3);
    group.slow.remove(&3);
    group.start(3);
    group.pass(1000);
    assert_eq!(group.applied(3).len(), texts.len() + 1);
    assert_eq!(group.applied(1).last(), Some(&"after"));
}

#[test]
fn a_newer_snapshot_takes_the_place_of_one_that_does_not_arrive() {
    let (mut group, mut texts) = behind(6);
    group.cut.clear();
    group.filter = Some(Box::new(|packet| {
        usize::from(!matches!(&packet.message, Message::Chunk { chunk, .. } if chunk.offset > 0))
    }));
    group.pass(200);
    texts.extend(propose_parts(&mut group, 1, 1));
    group.compact(1);
    group.pass(200);
    group.filter = None;
    group.pass(500);
    assert_eq!(group.applied(3), texts);
    let newer = group.disks[&3].snapshot.as_ref().unwrap().index;
    assert_eq!(newer, group.disks[&1].snapshot.as_ref().unwrap().index);
}

fn chunk(index: u64, term: u64, text: &str) -> Message {
    let configuration = Configuration::new([1, 2, 3].map(MemberId), []).unwrap();
    let chunk = Chunk {
        index,
        term,
        total: text.len() as u32,
        offset: 0,
        configuration: Some(configuration),
        bytes: text.as_bytes().to_vec(),
    };
    Message::Chunk { round: 1, chunk }
}

#[test]
fn a_part_of_an_old_term_is_refused() {
    let mut group = Group::led(3);
    group.deliver(
        1,
        3,
        5,
        Message::Append {
            round: 1,
            previous: 0,
            previous_term: 0,
            commit: 0,
            entries: vec![],
        },
    );
    group.sent.clear();
    group.deliver(2, 3, 4, chunk(9, 4, "old"));
    assert!(group.applied(3).is_empty());
    assert!(matches!(
        (group.sent[0].term, &group.sent[0].message),
        (5, Message::Rejected { .. })
    ));
}

#[test]
fn a_snapshot_of_what_is_committed_here_is_not_installed() {
    let mut group = Group::led(3);
    group.propose(1, "a").unwrap();
    group.pass(100);
    let term = group.term(1);
    group.sent.clear();
    group.deliver(1, 3, term, chunk(2, term, "other"));
    assert_eq!(group.applied(3), ["a"]);
    assert!(matches!(
        group.sent[0].message,
        Message::Accepted { matched: 2, .. }
    ));
    let restored = |effect: &Effect| matches!(effect, Effect::Restore(_));
    assert!(!group.seen[&3].iter().any(restored));
}

/// A log of terms 1 and 2, of which nothing is known to be committed.
fn uncommitted(group: &mut Group, terms: &[u64]) {
    let payload = |index| Payload::Command(format!("{index}").into_bytes().into());
    let entries = terms.iter().zip(1..).map(|(&term, index)| Entry {
        index,
        term,
        payload: payload(index),
    });
    let hard = HardState {
        term: 2,
        vote: None,
    };
    let disk = Restored {
        hard,
        snapshot: None,
        entries: entries.collect(),
    };
    group.crash(3);
    group.disks.insert(3, disk);
    group.start(3);
}

#[test]
fn a_log_that_has_the_last_entry_of_the_snapshot_is_kept() {
    let mut group = Group::new(3);
    uncommitted(&mut group, &[1, 1, 2, 2]);
    group.deliver(1, 3, 3, chunk(3, 2, "never read"));
    let status = group.members[&3].status();
    assert_eq!((status.commit, status.last), (3, 4));
    assert_eq!(group.applied(3), ["1", "2", "3"]);
    let answer = &group.sent.last().unwrap().message;
    assert!(matches!(answer, Message::Accepted { matched: 3, .. }));
}

#[test]
pub(super) fn a_log_that_has_another_entry_there_is_dropped() {
    let mut group = Group::new(3);
    uncommitted(&mut group, &[1, 1, 1, 1, 1]);
    group.deliver(1, 3, 3, chunk(3, 2, "x\ny"));
    let status = group.members[&3].status();
    assert_eq!((status.commit, status.last), (3, 3));
    assert_eq!(group.applied(3), ["x", "y"]);
    assert_eq!(group.disks[&3].entries, []);
    let entries = vec![Entry {
        index: 4,
        term: 3,
        payload: Payload::Noop,
    }];
    group.deliver(
        1,
        3,
        3,
        Message::Append {
            round: 2,
            previous: 3,
            previous_term: 2,
            commit: 4,
            entries,
        },
    );
    assert_eq!(group.members[&3].status().commit, 4);
    group.crash(3);
    group.start(3);
    group.settle();
    assert_eq!(group.applied(3), ["x", "y"]);
}

#[test]
fn what_is_taken_before_the_log_is_written_waits_for_it() {
    let mut group = Group::led(3);
    group.slow.insert(1);
    for _ in 0..3 {
        propose_parts(&mut group, 1, 1);
    }
    assert_eq!(group.applied(1).len(), 12, "the others have it on disk");
    group.compact(1);
    // The test's disk refuses a snapshot behind the end of its log.
    group.sync(1);
    assert!(group.disks[&1].snapshot.is_some());
}

#[test]
fn entries_that_a_member_has_purged_are_taken_for_its_own() {
    let (mut group, texts) = behind(1);
    let term = group.term(1);
    group.deliver(
        1,
        2,
        term,
        Message::Append {
            round: 1,
            previous: 1,
            previous_term: term,
            commit: 2,
            entries: vec![Entry {
                index: 2,
                term,
                payload: Payload::Noop,
            }],
        },
    );
    assert_eq!(group.role(2), Role::Follower);
    assert_eq!(group.applied(2), texts);
}

#[test]
fn a_state_that_nobody_could_receive_is_not_taken() {
    let mut group = Group::led(1);
    group.propose(1, "a").unwrap();
    group.settle();
    let now = group.now;
    let state = vec![0; MAX_SNAPSHOT_BYTES + 1];
    group.replica(1).compact(now, state.into());
    group.settle();
    assert_eq!(group.disks[&1].snapshot, None);
}

#[test]
fn a_disk_that_cannot_be_one_members_is_not_run() {
    let start = |index, term, entries: &[(u64, u64)]| {
        let configuration = Configuration::new([MemberId(1)], []).unwrap();
        let snapshot = Snapshot {
            index,
            term,
            configuration: configuration.clone(),
            state: Arc::from([]),
        };
        let entries = entries.iter().map(|&(index, term)| Entry {
            index,
            term,
            payload: Payload::Noop,
        });
        let disk = Restored {
            hard: HardState {
                term: 2,
                vote: None,
            },
            snapshot: Some(snapshot),
            entries: entries.collect(),
        };
        let settings = Settings::lan(MemberId(1), 7, 1);
        Replica::new(Instant::ZERO, settings, configuration, disk).map(|replica| {
            let status = replica.status();
            (status.commit, status.last)
        })
    };
    assert_eq!(start(5, 1, &[]), Ok((5, 5)));
    assert_eq!(start(5, 1, &[(6, 2)]), Ok((5, 6)));
    assert_eq!(start(5, 1, &[(4, 1), (5, 1), (6, 2)]), Ok((5, 6)));
    assert_eq!(start(2, 1, &[(1, 1), (2, 1), (3, 2)]), Ok((2, 3)));
    let gap = |expected, found| Err(RestoreError::Gap { expected, found });
    assert_eq!(start(5, 1, &[(7, 2)]), gap(6, 7));
    assert_eq!(start(5, 1, &[(4, 1), (6, 2)]), gap(5, 6));
    assert_eq!(start(5, 3, &[]), Err(RestoreError::Terms { index: 5 }));
    assert_eq!(
        start(5, 2, &[(6, 1)]),
        Err(RestoreError::Terms { index: 6 })
    );
    assert_eq!(
        start(5, 2, &[(5, 1)]),
        Err(RestoreError::Terms { index: 5 })
    );
    let (last, snapshot) = (4, 5);
    let short = Err(RestoreError::Short { last, snapshot });
    assert_eq!(start(5, 1, &[(4, 1)]), short);
}

/// The driver has not taken all that there is to apply: the machine does not have it.
#[test]
pub(super) fn what_is_not_applied_is_in_no_snapshot() {
    let mut group = Group::led(1);
    group.propose(1, "a").unwrap();
    group.settle();
    let now = group.now;
    let replica = group.replica(1);
    for text in ["b", "c"] {
        let request = RequestId(100);
        replica.propose(now, request, text.into()).unwrap();
    }
    let mut disk = Restored::default();
    while let Some(effect) = replica.poll() {
        match effect {
            Effect::Persist(write) => {
                disk.snapshot = write.snapshot.or(disk.snapshot);
                replica.persisted(now, write.token);
            }
            Effect::Apply { entry, .. } if entry.index == 3 => {
                replica.compact(now, Arc::from(*b"a\nb"));
            }
            _ => {}
        }
    }
    assert_eq!(replica.status().commit, 4);
    assert_eq!(disk.snapshot.unwrap().index, 3);
}
