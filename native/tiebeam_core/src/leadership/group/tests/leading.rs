//! Who may say that it leads, and how that passes on.

use alloc::vec::Vec;

use super::net::{Net, acquire, done, get, node, put, text, wait_for};
use crate::leadership::MemberId;
use crate::leadership::group::{
    Answer, Command, Condition, Config, Group, Output, Read, Stopped, Stored, Timing, Voters,
};
use crate::time::Instant;

/// The leases that each node was told, as spans of time.
fn leases(net: &Net) -> Vec<(char, u64, Instant, Instant)> {
    let mut spans: Vec<(char, u64, Instant, Instant)> = Vec::new();
    for (at, name, output) in &net.seen {
        let Output::Lease { term, until } = output else {
            continue;
        };
        let open = spans
            .iter_mut()
            .rev()
            .find(|span| span.0 == *name && span.1 == *term);
        match (open, until) {
            (Some(span), Some(until)) if span.3 >= *at => span.3 = *until,
            (Some(span), None) => span.3 = span.3.min(*at),
            (_, Some(until)) => spans.push((*name, *term, *at, *until)),
            (None, None) => {}
        }
    }
    // Whoever is not there any more says nothing.
    for span in &mut spans {
        let end = net
            .ends
            .iter()
            .find(|(at, name)| *name == span.0 && *at >= span.2);
        span.3 = span.3.min(end.map_or(span.3, |&(at, _)| at));
    }
    spans
}

/// No two nodes may say at once that they lead.
pub(super) fn assert_one_leader(net: &Net) {
    let spans = leases(net);
    for (n, a) in spans.iter().enumerate() {
        for b in &spans[n + 1..] {
            let apart = a.3 <= b.2 || b.3 <= a.2;
            assert!(a.0 == b.0 || apart, "both lead: {a:?} and {b:?}");
        }
    }
}

#[test]
fn a_lease_goes_from_one_to_the_next_without_overlap() {
    let (mut net, first) = Net::led("abc");
    net.isolate(first);
    let second = net.until("another leads", |net| {
        net.leader().filter(|name| *name != first)
    });
    net.heal();
    net.pass(1_000);
    net.crash(second);
    net.until("a third one leads", |net| {
        net.leader().filter(|name| *name != second)
    });
    net.pass(1_000);
    assert_one_leader(&net);
}

#[test]
fn a_leader_steps_down_when_it_is_asked_to() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = match leader {
        'a' => ['b', 'c'],
        'b' => ['a', 'c'],
        _ => ['a', 'b'],
    };
    done(net.call(leader, Command::StepDown { to: Some(node(a)) }));
    net.pass(100);
    assert_eq!(net.leader(), Some(a));
    // Any member can be asked.
    done(net.call(b, Command::StepDown { to: None }));
    net.pass(100);
    assert!(net.leader().is_some_and(|leader| leader != a));
    let stranger = Command::StepDown {
        to: Some(node('x')),
    };
    assert_eq!(net.call(b, stranger), Answer::NoMember(node('x')));
    assert_one_leader(&net);
}

#[test]
fn a_leader_that_leaves_hands_over_and_gives_back() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = match leader {
        'a' => ['b', 'c'],
        'b' => ['a', 'c'],
        _ => ['a', 'b'],
    };
    net.call(a, put("k", "v"));
    done(net.call(leader, acquire("l", "p")));
    let before = net.now;
    let waiting = net.ask(b, wait_for("l", "q"));
    net.on(leader, |group, now| group.leave(now));
    net.until("it has left", |net| {
        net.group(leader).is_stopped().then_some(())
    });
    assert!(
        net.now.since(before) < net.timing.election,
        "it is not waited for in vain"
    );
    done(net.until("the lock is free", |net| net.answer_to(waiting)));
    assert!(
        net.said(leader)
            .any(|output| *output == Output::Stopped(Stopped::Left))
    );
    assert!(net.leader().is_some_and(|now| now != leader));
    assert_eq!(net.call(leader, put("k", "w")), Answer::Stopped);
    assert_eq!(text(net.call(b, get("k", Read::Linear))), Some("v".into()));
    assert_one_leader(&net);
}

#[test]
fn the_last_one_leaves_as_well() {
    let (mut net, _) = Net::led("a");
    done(net.call('a', acquire("l", "p")));
    net.on('a', |group, now| group.leave(now));
    net.until("it has left", |net| {
        net.group('a').is_stopped().then_some(())
    });
}

#[test]
fn who_leads_is_told_in_the_order_of_terms() {
    let (mut net, _) = Net::led("abc");
    for _ in 0..5 {
        let Some(leader) = net.leader() else { continue };
        net.isolate(leader);
        net.pass(1_000);
        net.heal();
        net.pass(1_000);
    }
    for name in ['a', 'b', 'c'] {
        let terms: Vec<u64> = net
            .said(name)
            .filter_map(|output| match output {
                Output::Led(led) => Some(led.term),
                _ => None,
            })
            .collect();
        assert!(terms.is_sorted() && terms.len() > 5, "{terms:?}");
    }
}

#[test]
fn a_disk_that_fails_ends_the_part_of_its_node_only() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.on(leader, |group, now| group.failed(now, "no space left"));
    assert!(
        net.said(leader)
            .any(|output| matches!(output, Output::Stopped(Stopped::Disk(_))))
    );
    let condition = net.group(leader).condition();
    assert!(matches!(
        condition,
        Condition::Stopped(Stopped::Disk(why)) if why == "no space left"
    ));
    done(net.call(other, put("k", "v")));
}

/// A driver that was interrupted between the two let a node say that it leads after another one led.
#[test]
fn a_lease_is_given_up_before_anybody_is_asked_to_lead() {
    let config = Config {
        member: MemberId(1),
        voters: Voters::Expect(1),
        timing: Timing::LAN,
        stored: Stored::default(),
    };
    let mut group = Group::new(node('a'), "test", 1, config).unwrap();
    let to = node('b');
    let bytes = alloc::vec![1];
    let send = Output::Send { to, bytes };
    let lease = |until| Output::Lease { term: 1, until };
    let held = lease(Some(Instant::from_millis(1)));
    group.outputs = alloc::vec![send.clone(), held.clone(), lease(None)];
    let told: Vec<Output> = group.outputs().collect();
    assert_eq!(told, [held, lease(None), send]);
}
