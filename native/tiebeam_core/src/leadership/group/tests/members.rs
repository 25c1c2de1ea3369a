//! Who votes, who learns, and who takes whose place.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::net::{Net, acquire, done, get, named, node, put, text, wait_for};
use crate::leadership::group::{Answer, Command, Condition, Output, Read};
use crate::time::Duration;

/// The members as a node was told last.
fn members(net: &Net, name: char) -> (Vec<char>, Vec<char>) {
    let told = net.said(name).filter_map(|output| match output {
        Output::Members { voters, learners } => Some((voters.clone(), learners.clone())),
        _ => None,
    });
    let (voters, learners) = told.last().unwrap_or_default();
    let letters = |nodes: Vec<crate::NodeName>| {
        nodes
            .iter()
            .map(|node| node.as_str().chars().next().unwrap())
            .collect()
    };
    (letters(voters), letters(learners))
}

fn until_members(net: &mut Net, name: char, voters: &str, learners: &str) {
    let wanted = (voters.chars().collect(), learners.chars().collect());
    net.until("the members are those", |net| {
        (members(net, name) == wanted).then_some(())
    });
}

#[test]
fn a_node_that_is_not_named_learns() {
    let (mut net, _) = Net::led("abc");
    net.call('a', put("k", "v"));
    net.start('d', named("abc"));
    until_members(&mut net, 'd', "abc", "d");
    assert_eq!(
        text(net.call('d', get("k", Read::Linear))),
        Some("v".into())
    );
    let revision = done(net.call('d', put("k", "w")));
    assert_eq!(
        text(net.call('b', get("k", Read::AtLeast(revision)))),
        Some("w".into())
    );
    // It does not vote, so it is not needed.
    net.crash('d');
    net.crash('a');
    done(net.call('b', put("k", "x")));
}

#[test]
fn a_node_for_which_there_is_no_place_is_told_so_until_there_is() {
    let mut net = Net::of("abc");
    for name in ['a', 'b', 'c'] {
        net.on(name, |group, _| group.room = 4);
    }
    net.until("there is a leader", Net::leader);
    net.start('d', named("abc"));
    until_members(&mut net, 'a', "abc", "d");
    net.start('e', named("abc"));
    let refused = Answer::NoReplica { limit: 4 };
    net.until("it is told", |net| net.group('e').full);
    assert_eq!(net.call('e', put("k", "v")), refused);
    assert_eq!(net.call('e', get("k", Read::Local)), refused);
    let told = Output::Condition(Condition::NoReplica { limit: 4 });
    assert!(net.said('e').any(|output| *output == told));
    net.crash('d');
    net.pass(70_000);
    until_members(&mut net, 'e', "abc", "e");
    done(net.call('e', put("k", "v")));
    assert!(!net.group('e').condition().is_trouble());
}

#[test]
fn a_learner_that_is_gone_for_a_minute_is_removed() {
    let (mut net, _) = Net::led("abc");
    net.start('d', named("abc"));
    until_members(&mut net, 'a', "abc", "d");
    net.crash('d');
    net.pass(30_000);
    assert_eq!(members(&net, 'a').1, ['d']);
    until_members(&mut net, 'a', "abc", "");
    // A voter is not.
    let leader = net.until("there is a leader", Net::leader);
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.crash(other);
    net.pass(150_000);
    assert_eq!(members(&net, leader).0, ['a', 'b', 'c']);
}

#[test]
fn nodes_without_a_disk_are_replaced_by_their_next_lives_one_after_the_other() {
    let mut net = Net::new(11);
    for name in "abc".chars() {
        net.diskless.insert(name);
        net.start(name, named("abc"));
    }
    net.until("there is a leader", Net::leader);
    for n in 0..7 {
        let name = ['a', 'b', 'c'][n % 3];
        net.call(name, put("n", &n.to_string()));
        net.crash(name);
        net.restart(name);
        assert_eq!(
            text(net.call(name, get("n", Read::Linear))),
            Some(n.to_string())
        );
        // The next one may go when the group has three voters again that are alive.
        let member = net.group(name).member;
        net.until("it votes", |net| {
            let leader = net.leader()?;
            let engine = net.group(leader).engine.as_ref()?;
            let configuration = engine.configuration();
            (configuration.votes(member) && !configuration.is_joint()).then_some(())
        });
    }
}

#[test]
fn voters_are_added_and_removed_when_somebody_says_so() {
    let (mut net, _) = Net::led("abc");
    let stranger = Command::AddVoter(node('x'));
    assert_eq!(net.call('a', stranger), Answer::NoMember(node('x')));
    for name in ['d', 'e'] {
        net.start(name, named("abc"));
        net.pass(10); // The leader has heard of it.
        done(net.call('b', Command::AddVoter(node(name))));
    }
    until_members(&mut net, 'e', "abcde", "");
    // Again, it is so already.
    done(net.call('c', Command::AddVoter(node('d'))));
    for name in ['a', 'b', 'c', 'd'] {
        // From any node, the one that goes included.
        done(net.call(name, Command::RemoveVoter(node(name))));
    }
    until_members(&mut net, 'e', "e", "abcd");
    let last = net.call('a', Command::RemoveVoter(node('e')));
    assert!(matches!(last, Answer::Refused(_)), "{last:?}");
    done(net.call('a', put("k", "v")));
}

#[test]
fn a_change_of_voters_survives_a_change_of_leader() {
    let (mut net, leader) = Net::led("abc");
    net.start('d', named("abc"));
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.pass(10);
    let call = net.ask(other, Command::AddVoter(node('d')));
    net.crash(leader);
    done(net.until("it is a voter", |net| net.answer_to(call)));
    until_members(&mut net, 'd', "abcd", "");
}

#[test]
fn a_dead_voter_is_removed_by_hand() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.crash(other);
    done(net.call(leader, Command::RemoveVoter(node(other))));
    net.pass(61_000);
    let (voters, learners) = members(&net, leader);
    assert_eq!((voters.len(), learners.len()), (2, 0));
}

#[test]
fn a_member_says_who_is_in_the_group() {
    let (mut net, leader) = Net::led("abc");
    net.pass(1_000);
    let Answer::Members(standings) = net.call(leader, Command::Members) else {
        panic!("no members");
    };
    assert_eq!(standings.len(), 3);
    assert!(
        standings
            .iter()
            .all(|one| one.voter && one.heard == Some(true) && one.matched.is_some()),
        "{standings:?}"
    );
}

#[test]
fn what_is_left_of_a_group_goes_on_by_force() {
    let (mut net, leader) = Net::led("abc");
    let other = if leader == 'a' { 'b' } else { 'a' };
    net.call(other, put("k", "v"));
    let token = done(net.call(leader, acquire("l", "p")));
    for name in ['a', 'b', 'c'] {
        if name != other {
            net.crash(name);
        }
    }
    assert_eq!(net.call(other, put("k", "w")), Answer::NoLeader);
    done(net.call(other, Command::ForceNewGroup));
    assert_eq!(
        text(net.call(other, get("k", Read::Linear))),
        Some("v".into())
    );
    // The holder is gone, and the next token is greater than any that the lost majority can have granted.
    let call = net.ask_for(other, wait_for("l", "q"), Duration::from_secs(20));
    assert!(done(net.until("it is free", |net| net.answer_to(call))) > token + 1_000_000);
    net.crash(other);
    net.restart(other);
    assert_eq!(
        text(net.call(other, get("k", Read::Linear))),
        Some("v".into())
    );
    // One of the lost comes back with its disk: it is refused. With an empty one it joins.
    net.restart(leader);
    net.pass(3_000);
    assert!(
        net.said(other)
            .any(|output| *output == Output::Foreign { node: node(leader) })
    );
    let foreign = Condition::Foreign(Vec::from([node(leader)]));
    assert_eq!(net.group(other).condition(), foreign);
    net.crash(leader);
    assert!(!net.group(other).condition().is_trouble(), "it is gone");
    net.diskless.insert(leader);
    net.restart(leader);
    assert_eq!(
        text(net.call(leader, get("k", Read::Linear))),
        Some("v".into())
    );
}
