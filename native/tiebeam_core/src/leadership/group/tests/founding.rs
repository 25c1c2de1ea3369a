//! A group begins once.

use alloc::vec::Vec;

use super::net::{Net, get, named, node, put, text};
use crate::leadership::group::{Answer, Command, Condition, Missing, Output, Read, Voters};
use crate::time::Duration;

fn groups(net: &Net) -> Vec<u64> {
    let mut groups: Vec<u64> = net
        .names()
        .into_iter()
        .filter_map(|name| net.group(name).group())
        .collect();
    groups.dedup();
    groups
}

#[test]
fn a_node_that_names_itself_alone_leads_alone() {
    let (mut net, leader) = Net::led("a");
    assert_eq!(leader, 'a');
    let revision = super::net::done(net.call('a', put("k", "v")));
    assert_eq!(
        text(net.call('a', get("k", Read::Linear))),
        Some("v".into())
    );
    assert_eq!(
        text(net.call('a', get("k", Read::AtLeast(revision)))),
        Some("v".into())
    );
}

#[test]
fn three_that_name_each_other_found_one_group() {
    let (net, _) = Net::led("abc");
    assert_eq!(groups(&net).len(), 1);
    let members = Output::Members {
        voters: Vec::from(["a", "b", "c"].map(|name| node(name.chars().next().unwrap()))),
        learners: Vec::new(),
    };
    for name in ['a', 'b', 'c'] {
        assert!(net.said(name).any(|output| *output == members), "{name}");
        assert!(
            net.stored(name)
                .founding
                .as_ref()
                .is_some_and(|founding| founding.agreed)
        );
    }
}

/// What a node was told of its condition last.
fn condition(net: &Net, name: char) -> Option<Condition> {
    let told = net.said(name).filter_map(|output| match output {
        Output::Condition(condition) => Some(condition.clone()),
        _ => None,
    });
    told.last()
}

#[test]
fn who_is_missing_is_told_and_said_to_who_asks() {
    let mut net = Net::new(3);
    net.start('a', named("abc"));
    net.start('b', named("abc"));
    net.start('d', named("abc"));
    let missing = Missing::Voters(Vec::from([node('c')]));
    for command in [
        put("k", "v"),
        get("k", Read::Linear),
        Command::StepDown { to: None },
    ] {
        assert_eq!(net.call('b', command), Answer::Unfounded(missing.clone()));
    }
    for name in ['a', 'b', 'd'] {
        assert_eq!(
            condition(&net, name),
            Some(Condition::Unfounded(missing.clone()))
        );
    }
    let told = net
        .said('a')
        .filter(|output| matches!(output, Output::Condition(_)));
    assert_eq!(told.count(), 1, "once at first");
    net.pass(60_000);
    let told = net
        .said('a')
        .filter(|output| matches!(output, Output::Condition(_)));
    assert_eq!(told.count(), 2, "and again after a minute");
    net.start('c', named("abc"));
    net.until("there is a leader", Net::leader);
    for name in ['a', 'b', 'd'] {
        assert!(!condition(&net, name).unwrap().is_trouble());
    }
    assert_eq!(condition(&net, 'c'), None, "nothing was ever wrong there");
}

#[test]
fn how_many_are_missing_is_told_where_they_are_counted() {
    let mut net = Net::new(3);
    net.start('a', Voters::Expect(3));
    net.pass(6_000);
    let missing = Condition::Unfounded(Missing::Count(2));
    assert_eq!(condition(&net, 'a'), Some(missing));
    net.start('b', Voters::Expect(3));
    let answer = net.call('b', put("k", "v"));
    assert_eq!(answer, Answer::Unfounded(Missing::Count(1)));
}

#[test]
fn nobody_founds_without_all_that_are_named() {
    let mut net = Net::new(3);
    net.start('a', named("abc"));
    net.start('b', named("abc"));
    net.pass(10_000);
    assert_eq!(net.leader(), None);
    net.start('c', named("abc"));
    net.until("there is a leader", Net::leader);
}

#[test]
fn as_many_as_expected_found_and_no_more() {
    let mut net = Net::new(4);
    for name in "dcab".chars() {
        net.start(name, Voters::Expect(3));
    }
    net.until("there is a leader", Net::leader);
    net.pass(5_000);
    assert_eq!(groups(&net).len(), 1, "{:?}", groups(&net));
}

#[test]
fn founders_that_do_not_see_each_other_agree_in_the_end() {
    let mut net = Net::new(5);
    net.cut.extend([('a', 'b'), ('b', 'a')]);
    for name in "abcd".chars() {
        net.start(name, Voters::Expect(3));
    }
    net.until("there is a leader", Net::leader);
    net.heal();
    net.pass(10_000);
    assert_eq!(groups(&net).len(), 1);
}

#[test]
fn what_was_promised_outlives_a_crash() {
    for at in 0..40 {
        let mut net = Net::new(100 + at);
        for name in "abc".chars() {
            net.slow.insert(name, Duration::from_millis(3));
            net.start(name, named("abc"));
        }
        net.pass(at / 2);
        let victim = ['a', 'b', 'c'][(at % 3) as usize];
        net.crash(victim);
        net.pass(20);
        net.restart(victim);
        net.until("there is a leader", Net::leader);
        net.pass(2_000);
        assert_eq!(
            groups(&net).len(),
            1,
            "crash of {victim} after {} ms",
            at / 2
        );
    }
}

#[test]
fn a_voter_that_forgot_its_promise_does_not_stop_the_founding() {
    for at in 0..20 {
        let mut net = Net::new(200 + at);
        for name in "abc".chars() {
            net.diskless.insert(name);
            net.start(name, named("abc"));
        }
        net.pass(at / 4);
        let victim = ['a', 'b', 'c'][(at % 3) as usize];
        net.crash(victim);
        net.pass(20);
        net.restart(victim);
        net.until("there is a leader", Net::leader);
        net.pass(2_000);
        assert_eq!(
            groups(&net).len(),
            1,
            "crash of {victim} after {} quarters of a ms",
            at
        );
    }
}

#[test]
fn two_groups_refuse_each_other() {
    let mut net = Net::new(6);
    for (a, b) in [('a', 'c'), ('a', 'd'), ('b', 'c'), ('b', 'd')] {
        net.cut.extend([(a, b), (b, a)]);
    }
    for (name, voters) in [('a', "ab"), ('b', "ab"), ('c', "cd"), ('d', "cd")] {
        net.start(name, named(voters));
    }
    net.pass(5_000);
    assert_eq!(groups(&net).len(), 2);
    net.heal();
    net.pass(20_000);
    let told = net
        .said('a')
        .filter(|output| matches!(output, Output::Foreign { .. }))
        .count();
    assert_eq!(told, 2, "once for each of them");
    assert_eq!(groups(&net).len(), 2);
}

#[test]
fn a_whole_cluster_that_starts_again_goes_on() {
    let (mut net, _) = Net::led("abc");
    net.call('b', put("k", "v"));
    for name in ['a', 'b', 'c'] {
        net.crash(name);
    }
    for name in ['a', 'b', 'c'] {
        net.restart(name);
    }
    assert_eq!(
        text(net.call('c', get("k", Read::Linear))),
        Some("v".into())
    );
}
