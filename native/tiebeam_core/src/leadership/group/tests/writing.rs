//! Changes and reads, from any node.

use super::net::{Net, done, get, put, text};
use crate::leadership::group::{Answer, Command, Output, Read, Row};
use crate::leadership::machine::{Expect, WatchId};
use crate::time::Duration;
use alloc::string::ToString;

#[test]
fn any_member_writes_and_reads_what_was_written() {
    let (mut net, _) = Net::led("abc");
    for name in ['a', 'b', 'c'] {
        let revision = done(net.call(name, put("k", &name.to_string())));
        for reader in ['a', 'b', 'c'] {
            assert_eq!(
                text(net.call(reader, get("k", Read::Linear))),
                Some(name.into())
            );
            assert_eq!(
                text(net.call(reader, get("k", Read::AtLeast(revision)))),
                Some(name.into())
            );
        }
    }
    done(net.call(
        'b',
        Command::Delete {
            key: b"k".to_vec(),
            expect: Expect::Anything,
        },
    ));
    assert_eq!(text(net.call('c', get("k", Read::Linear))), None);
}

#[test]
fn the_row_comes_before_the_answer() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.call(other, put("k", "v"));
    let row = net
        .said(other)
        .position(|output| matches!(output, Output::Row(Row::Put { .. })));
    let answer = net
        .said(other)
        .position(|output| matches!(output, Output::Answer { .. }));
    assert!(row.is_some() && row < answer);
}

#[test]
fn what_is_not_as_expected_is_not_done() {
    let (mut net, _) = Net::led("abc");
    let first = done(net.call('a', put("k", "1")));
    let swap = |expect| Command::Put {
        key: b"k".to_vec(),
        value: b"2"[..].into(),
        expect,
    };
    assert_eq!(
        net.call('b', swap(Expect::Revision(0))),
        Answer::Differs { revision: first }
    );
    done(net.call('b', swap(Expect::Revision(first))));
    assert_eq!(
        text(net.call('c', get("k", Read::Linear))),
        Some("2".into())
    );
}

#[test]
fn without_a_majority_nothing_is_done() {
    let (mut net, leader) = Net::led("abc");
    let others: alloc::vec::Vec<char> = ['a', 'b', 'c']
        .into_iter()
        .filter(|name| *name != leader)
        .collect();
    net.call(others[0], put("k", "1"));
    net.isolate(others[0]);
    let call = net.ask_for(others[0], put("k", "2"), Duration::from_secs(2));
    let read = net.ask_for(others[0], get("k", Read::Linear), Duration::from_secs(2));
    net.pass(2_100);
    assert_eq!(net.answer_to(call), Some(Answer::NoLeader));
    assert_eq!(net.answer_to(read), Some(Answer::NoLeader));
    assert_eq!(
        text(net.call(others[0], get("k", Read::Local))),
        Some("1".into())
    );
    net.heal();
    assert_eq!(
        text(net.call(others[0], get("k", Read::Linear))),
        Some("1".into())
    );
}

#[test]
fn a_leader_without_its_majority_does_not_know() {
    let (mut net, leader) = Net::led("abc");
    net.call(leader, put("k", "1"));
    net.isolate(leader);
    let call = net.ask_for(leader, put("k", "2"), Duration::from_secs(2));
    net.pass(2_100);
    assert_eq!(net.answer_to(call), Some(Answer::Unknown));
    assert_ne!(net.leader(), Some(leader), "and does not say that it leads");
}

#[test]
fn a_write_survives_the_crash_of_the_leader() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.call(other, put("k", "0"));
    let call = net.ask(other, put("k", "1"));
    net.crash(leader);
    done(net.until("it is written", |net| net.answer_to(call)));
    assert_eq!(
        text(net.call(other, get("k", Read::Linear))),
        Some("1".into())
    );
}

#[test]
fn a_watch_hears_of_each_change_once() {
    let (mut net, _) = Net::led("abc");
    net.call('b', put("k/1", "before"));
    let watch = Command::Watch {
        watch: WatchId(7),
        prefix: b"k/".to_vec(),
    };
    done(net.call('b', watch));
    let first = done(net.call('c', put("k/1", "v")));
    net.call('c', put("other", "v"));
    let last = done(net.call(
        'a',
        Command::Delete {
            key: b"k/1".to_vec(),
            expect: Expect::Anything,
        },
    ));
    net.pass(1_000);
    let heard: alloc::vec::Vec<(u64, bool)> = net
        .said('b')
        .filter_map(|output| match output {
            Output::Watched {
                stored, revision, ..
            } => Some((*revision, stored.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(heard, [(first, true), (last, false)]);
}

#[test]
fn much_at_once_is_done_in_order() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    let calls: alloc::vec::Vec<_> = (0..2_000)
        .map(|n| net.ask(other, put("k", &n.to_string())))
        .collect();
    let mut before = 0;
    for call in calls {
        let revision = done(net.until("it is written", |net| net.answer_to(call)));
        assert!(before < revision);
        before = revision;
    }
    assert_eq!(
        text(net.call(other, get("k", Read::Linear))),
        Some("1999".into())
    );
}
