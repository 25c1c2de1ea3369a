//! When a suspicion is over: evicted, contested, or just dead; and nodes that run no Tiebeam.

use std::vec;

use super::node::*;
use super::*;
use crate::message::{Body, Claim, Word};
use crate::{Event, Status};

const OTHERS: [&str; 3] = ["b@h", "d@h", "e@h"];

fn evicting() -> Config {
    Config {
        evict: true,
        ..config("a@h")
    }
}

/// A node among b, c, d and e, which the others told that c is suspect; its answer to the first sample.
fn suspecting(config: Config, received: Option<u64>) -> Node {
    let mut a = Node::among(config, &["b@h", "c@h", "d@h", "e@h"]);
    a.live_until(1_000, &["b@h", "c@h", "d@h", "e@h"]);
    let heard = a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    let node = name("c@h");
    assert!(heard.contains(&Action::Sample { node: node.clone() }));
    assert_eq!(
        observed(&heard).len(),
        1,
        "its kernel is asked, after the first sample"
    );
    a.step(Event::Sampled { node, received });
    for by in ["d@h", "e@h"] {
        a.received("b@h", gossip([word("c@h", 1, 0, suspect(by))]));
    }
    a
}

/// Sleeps until the verdict needs a sample, answers it, and returns what followed.
fn tried(a: &mut Node, answering: &[&str], received: Option<u64>) -> Vec<Action> {
    let node = name("c@h");
    for _ in 0..20_000 {
        let next = a.now + 1;
        let actions = a.live_until(next, answering);
        if actions.contains(&Action::Sample { node: node.clone() }) {
            return a.step(Event::Sampled { node, received });
        }
    }
    panic!("no trial");
}

fn evictions(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::Evict { .. } | Action::EvictAt { .. }))
        .count()
}

#[test]
fn a_silent_member_is_evicted_when_all_evidence_agrees() {
    for silence in [Some(7), None] {
        let mut a = suspecting(evicting(), silence);
        let verdict = tried(&mut a, &OTHERS, silence);
        assert_eq!(news(&verdict), ["down c@h#1"]);
        assert!(verdict.contains(&Action::Evict { node: name("c@h") }));
        assert_eq!(a.cluster.view().metrics().evictions, 1);
        assert_eq!(
            news(&a.disconnected("c@h")),
            [] as [&str; 0],
            "one Down per life"
        );
    }
}

#[test]
fn bytes_on_its_connection_are_a_veto_and_silence_is_judged_anew() {
    let mut a = suspecting(evicting(), Some(7));
    let verdict = tried(&mut a, &OTHERS, Some(8));
    assert_eq!(
        news(&verdict),
        ["contested c@h: its connection carried something since the suspicion began"]
    );
    assert_eq!(a.status("c@h"), Some((0, Status::Suspect)));
    let again = tried(&mut a, &OTHERS, Some(9));
    assert_eq!(
        (news(&again).len(), evictions(&again)),
        (0, 0),
        "told once: {again:?}"
    );
    let silent = tried(&mut a, &OTHERS, Some(9));
    assert_eq!(
        (news(&silent), evictions(&silent)),
        (vec!["down c@h#1".into()], 1)
    );
}

#[test]
fn a_contested_member_refutes_or_its_connection_decides() {
    let mut a = suspecting(evicting(), Some(7));
    tried(&mut a, &OTHERS, Some(8));
    let back = a.received("c@h", message_of(1, 1, Body::Gossip));
    assert_eq!(news(&back), ["recovered c@h#1"]);

    let mut a = suspecting(evicting(), Some(7));
    tried(&mut a, &OTHERS, Some(8));
    assert_eq!(news(&a.disconnected("c@h")), ["down c@h#1"]);
}

#[test]
fn eviction_can_be_switched_off() {
    let mut a = suspecting(config("a@h"), Some(7));
    let verdict = tried(&mut a, &OTHERS, Some(7));
    assert_eq!(news(&verdict), ["contested c@h: eviction is switched off"]);
    assert_eq!(evictions(&verdict), 0);
}

#[test]
fn a_node_that_hears_no_majority_evicts_nobody() {
    let mut a = suspecting(evicting(), Some(7));
    let verdict = tried(&mut a, &["b@h"], Some(7));
    assert_eq!(
        news(&verdict),
        ["contested c@h: this node sees no majority of the members"]
    );
    let until = a.now + 30_000;
    a.live_until(until, &[]);
    assert!(a.cluster.view().health().minority);
}

#[test]
fn a_node_that_stood_still_evicts_nobody() {
    let mut a = suspecting(evicting(), Some(7));
    a.now += 3_000;
    a.step(Event::Woke);
    let verdict = tried(&mut a, &OTHERS, Some(7));
    assert_eq!(news(&verdict), ["contested c@h: this node is slow itself"]);
}

#[test]
fn of_two_members_none_evicts_the_other() {
    let mut a = Node::among(evicting(), &["c@h"]);
    let mut all = vec![];
    let node = name("c@h");
    while a.now < 60_000 {
        let next = a.now + 1;
        let actions = a.sleep_until(next);
        if actions.contains(&Action::Sample { node: node.clone() }) {
            let node = node.clone();
            let received = Some(0);
            all.extend(a.step(Event::Sampled { node, received }));
        }
        all.extend(actions);
    }
    let expected = [
        "suspect c@h#1",
        "contested c@h: this node sees no majority of the members",
    ];
    assert_eq!(
        (news(&all), evictions(&all)),
        (expected.map(String::from).into(), 0)
    );
}

#[test]
fn a_death_heard_from_others_is_judged_by_the_same_rules() {
    let mut a = suspecting(evicting(), Some(7));
    let dead = || gossip([word("c@h", 1, 0, Claim::Dead)]);
    a.received("b@h", dead());
    let verdict = tried(&mut a, &OTHERS, Some(8));
    assert_eq!(evictions(&verdict), 0);
    assert_eq!(a.received("b@h", dead()), [], "told again, it is no news");

    // Of a member that nobody suspected here, this node first finds out what its own evidence is.
    let mut a = Node::among(evicting(), &["b@h", "c@h", "d@h", "e@h"]);
    let heard = a.received("b@h", dead());
    assert_eq!(news(&heard), ["suspect c@h#1"]);
    let node = name("c@h");
    let received = Some(7);
    a.step(Event::Sampled { node, received });
    let verdict = tried(&mut a, &OTHERS, Some(7));
    assert_eq!(
        (news(&verdict), evictions(&verdict)),
        (vec!["down c@h#1".into()], 1)
    );
}

fn observed(actions: &[Action]) -> Vec<u64> {
    let probe = |action: &Action| match action {
        Action::Observe { probe, .. } => Some(*probe),
        _ => None,
    };
    actions.iter().filter_map(probe).collect()
}

/// Connects a node that runs no Tiebeam, and lets its kernel answer the first question.
fn meet_plain(a: &mut Node, node: &str) {
    a.connected(node);
    let start = a.now;
    while a.now < start + 30_000 {
        let next = a.now + 1;
        if let Some(probe) = observed(&a.live_until(next, &OTHERS)).pop() {
            let met = a.step(Event::Observed {
                node: name(node),
                probe,
            });
            assert_eq!(news(&met), [std::format!("up {node}#0")]);
            return;
        }
    }
    panic!("never observed");
}

#[test]
fn a_silent_visible_node_is_observed_and_a_hidden_one_is_not() {
    let mut a = Node::new(config("a@h"));
    meet_plain(&mut a, "p@h");
    let p = a
        .cluster
        .view()
        .members()
        .find(|member| member.node == name("p@h"))
        .cloned()
        .unwrap();
    assert_eq!(
        (p.kind, p.creation, p.status),
        (Kind::Plain, 0, Status::Alive)
    );

    let to = name("hidden@h");
    a.step(Event::Connected { to, visible: false });
    let all = a.sleep_until(120_000);
    let hidden = |action: &Action| matches!(action, Action::Observe { node, .. } if *node == name("hidden@h"));
    assert!(!all.iter().any(hidden));
}

#[test]
fn a_node_that_speaks_after_all_is_the_same_member() {
    let mut a = Node::new(config("a@h"));
    meet_plain(&mut a, "p@h");
    let spoke = a.received("p@h", hello("p@h", 5, 0));
    assert_eq!(news(&spoke), ["updated p@h#5"]);
    let p = a
        .cluster
        .view()
        .members()
        .find(|member| member.node == name("p@h"))
        .cloned()
        .unwrap();
    assert_eq!(p.kind, Kind::Beam);
    let plain = Word {
        kind: Kind::Plain,
        ..word("p@h", 0, 9, Claim::Dead)
    };
    a.connected("b@h");
    assert_eq!(news(&a.received("b@h", gossip([plain]))), [] as [&str; 0]);
}

#[test]
fn an_answer_to_anybody_ends_the_suspicion_of_a_plain_node() {
    let mut a = Node::among(evicting(), &OTHERS);
    meet_plain(&mut a, "p@h");
    let accused = Word {
        kind: Kind::Plain,
        ..word("p@h", 0, 1, suspect("b@h"))
    };
    let heard = a.received("b@h", gossip([accused]));
    assert_eq!(news(&heard), ["suspect p@h#0"]);
    let [probe] = observed(&heard)[..] else {
        panic!("whoever is connected asks at once: {heard:?}")
    };
    let node = name("p@h");
    assert_eq!(
        news(&a.step(Event::Observed { node, probe })),
        ["recovered p@h#0"]
    );
    assert_eq!(
        a.status("p@h"),
        Some((2, Status::Alive)),
        "a witness is a new incarnation"
    );
}

#[test]
fn a_helper_observes_a_plain_node_for_another() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    meet_plain(&mut a, "p@h");
    let node = name("p@h");
    let request = Body::PingReq {
        number: 9,
        node: node.clone(),
    };
    let asked = a.received("b@h", message_of(1, 0, request));
    let [probe] = observed(&asked)[..] else {
        panic!("{asked:?}")
    };
    let answer = Body::Ack {
        number: 9,
        creation: 0,
        incarnation: 1,
    };
    let told = a.step(Event::Observed { node, probe });
    assert!(bodies(&told, "b@h").contains(&answer), "{told:?}");
}

#[test]
fn one_guardian_alone_cannot_declare_a_plain_node_dead() {
    let mut a = Node::among(evicting(), &OTHERS);
    meet_plain(&mut a, "p@h");
    let accused = Word {
        kind: Kind::Plain,
        ..word("p@h", 0, 1, suspect("b@h"))
    };
    a.received("b@h", gossip([accused]));
    let mut all = vec![];
    let until = a.now + 60_000;
    while a.now < until && !news(&all).iter().any(|word| word.starts_with("contested")) {
        let next = a.now + 1;
        let actions = a.live_until(next, &OTHERS);
        for action in &actions {
            if let Action::Sample { node } = action {
                let (node, received) = (node.clone(), Some(3));
                all.extend(a.step(Event::Sampled { node, received }));
            }
        }
        all.extend(actions);
        assert_eq!(evictions(&all), 0);
    }
    let alone = "contested p@h: fewer than two members found that it does not answer";
    assert_eq!(
        news(&all).last().map(String::as_str),
        Some(alone),
        "{:?}",
        news(&all)
    );
}

#[test]
fn nobody_is_evicted_while_a_plain_node_cannot_be_told() {
    let mut a = Node::among(evicting(), &["b@h", "c@h", "d@h", "e@h"]);
    let plain = Word {
        kind: Kind::Plain,
        ..word("p@h", 0, 1, Claim::Alive)
    };
    a.received("b@h", gossip([plain]));
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    let node = name("c@h");
    let received = Some(7);
    a.step(Event::Sampled { node, received });
    let verdict = tried(&mut a, &OTHERS, Some(7));
    assert_eq!(
        news(&verdict),
        ["contested c@h: not all members can be told"]
    );
}

#[test]
fn the_guardians_tell_a_plain_node_to_disconnect() {
    let mut told = 0;
    for me in ["a@h", "b@h", "d@h", "e@h"] {
        let everybody = ["a@h", "b@h", "c@h", "d@h", "e@h"];
        let others: Vec<&str> = everybody.into_iter().filter(|other| *other != me).collect();
        let living: Vec<&str> = others
            .iter()
            .copied()
            .filter(|other| *other != "c@h")
            .collect();
        let mut node = Node::among(
            Config {
                evict: true,
                ..config(me)
            },
            &others,
        );
        node.connected("p@h");
        let plain = Word {
            kind: Kind::Plain,
            ..word("p@h", 0, 1, Claim::Alive)
        };
        node.received(living[0], gossip([plain]));
        node.received(living[0], gossip([word("c@h", 1, 0, Claim::Dead)]));
        let received = Some(7);
        let c = name("c@h");
        node.step(Event::Sampled { node: c, received });
        let verdict = tried(&mut node, &living, Some(7));
        let expected = Action::EvictAt {
            at: name("p@h"),
            node: name("c@h"),
        };
        assert!(
            verdict.contains(&Action::Evict { node: name("c@h") }),
            "{verdict:?}"
        );
        told += usize::from(verdict.contains(&expected));
    }
    assert_eq!(told, 3, "three of four");
}
