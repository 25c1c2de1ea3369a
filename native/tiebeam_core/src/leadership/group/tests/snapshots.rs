//! A log gives way to snapshots, and nobody notices.

use alloc::format;
use alloc::vec::Vec;

use super::net::{Net, acquire, done, get, named, pid, put, release, text};
use crate::leadership::group::{Answer, Command, Output, Read, Row};
use crate::leadership::machine::{Expect, WatchId};

/// Writes so much that the log before it is gone.
fn fill(net: &mut Net, name: char, keys: u32) {
    let value = "x".repeat(100_000);
    let calls: Vec<_> = (0..60)
        .map(|n| net.ask(name, put(&format!("fill/{}", n % keys), &value)))
        .collect();
    for call in calls {
        done(net.until("it is written", |net| net.answer_to(call)));
    }
}

#[test]
fn a_disk_does_not_grow_with_the_log() {
    let (mut net, _) = Net::led("abc");
    for _ in 0..3 {
        fill(&mut net, 'a', 4);
    }
    net.pass(1_000);
    for name in ['a', 'b', 'c'] {
        let stored = net.stored(name);
        assert!(stored.restored.snapshot.is_some(), "{name}");
        net.crash(name);
    }
    for name in ['a', 'b', 'c'] {
        net.restart(name);
    }
    let value = text(net.call('b', get("fill/3", Read::Linear))).unwrap();
    assert_eq!(value.len(), 100_000);
}

#[test]
fn a_node_that_was_away_is_told_what_is_different() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = match leader {
        'a' => ['b', 'c'],
        'b' => ['a', 'c'],
        _ => ['a', 'b'],
    };
    for (key, value) in [("k/gone", "1"), ("k/new", "1"), ("k/same", "1")] {
        net.call(a, put(key, value));
    }
    let token = done(net.call(b, acquire("l", "p")));
    done(net.call(
        a,
        Command::Watch {
            watch: WatchId(1),
            prefix: b"k/".to_vec(),
        },
    ));
    net.pass(500);
    net.isolate(a);
    done(net.call(
        b,
        Command::Delete {
            key: b"k/gone".to_vec(),
            expect: Expect::Anything,
        },
    ));
    let new = done(net.call(b, put("k/new", "2")));
    done(net.call(b, release("l", token)));
    let again = done(net.call(b, acquire("l", "q")));
    for _ in 0..3 {
        fill(&mut net, b, 2);
    }
    let away = net.seen.len();
    net.heal();
    assert_eq!(
        text(net.call(a, get("k/new", Read::Linear))),
        Some("2".into())
    );
    let heard: Vec<&Output> = net.seen[away..]
        .iter()
        .filter(|(_, name, _)| *name == a)
        .map(|(_, _, output)| output)
        .collect();
    let watched: Vec<(&[u8], bool)> = heard
        .iter()
        .filter_map(|output| match output {
            Output::Watched { key, stored, .. } => Some((&key[..], stored.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(watched, [(&b"k/gone"[..], false), (&b"k/new"[..], true)]);
    let rows = |wanted: &dyn Fn(&Row) -> bool| {
        heard
            .iter()
            .any(|output| matches!(output, Output::Row(row) if wanted(row)))
    };
    assert!(rows(
        &|row| matches!(row, Row::Deleted { key } if key == b"k/gone")
    ));
    assert!(rows(
        &|row| matches!(row, Row::Put { key, stored } if key == b"k/new" && stored.revision == new)
    ));
    assert!(rows(
        &|row| matches!(row, Row::Freed { claim, .. } if claim.token == token)
    ));
    assert!(rows(
        &|row| matches!(row, Row::Claimed { claim, .. } if claim.token == again && claim.value == pid("q"))
    ));
    assert!(!rows(
        &|row| matches!(row, Row::Put { key, .. } if key == b"k/same")
    ));
}

#[test]
fn a_node_that_comes_late_gets_a_snapshot() {
    let (mut net, _) = Net::led("abc");
    net.call('a', put("k", "v"));
    for _ in 0..3 {
        fill(&mut net, 'a', 2);
    }
    net.start('d', named("abc"));
    assert_eq!(
        text(net.call('d', get("k", Read::Linear))),
        Some("v".into())
    );
}

#[test]
fn what_was_done_unseen_is_answered_from_the_snapshot() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = match leader {
        'a' => ['b', 'c'],
        'b' => ['a', 'c'],
        _ => ['a', 'b'],
    };
    net.timing.session = crate::time::Duration::from_secs(3);
    net.call(a, put("k", "0"));
    // What goes to the leader arrives, what comes from it does not.
    net.cut.insert((leader, a));
    let call = net.ask_for(a, put("k", "1"), crate::time::Duration::from_secs(30));
    let claim = net.ask_for(a, acquire("l", "p"), crate::time::Duration::from_secs(30));
    net.pass(20);
    for _ in 0..2 {
        fill(&mut net, b, 2);
    }
    net.cut.clear();
    let revision = done(net.until("it is answered", |net| net.answer_to(call)));
    let token = done(net.until("it is answered", |net| net.answer_to(claim)));
    assert!(
        revision < token && token < 100,
        "it was done once, before the rest: {revision} {token}"
    );
    let held = net.call(b, acquire("l", "q"));
    assert_eq!(
        held,
        Answer::Held {
            value: Some(pid("p")),
            token
        }
    );
}
