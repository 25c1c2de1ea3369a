//! The rules of SWIM and Lifeguard as one node follows them.

use alloc::sync::Arc;
use std::collections::BTreeMap;
use std::vec;

use super::node::*;
use super::*;
use crate::message::{BUCKETS, Body, Claim, MAX_DATAGRAM_BYTES, Message, Metadata, Word};
use crate::{Answer, CallId, Command, Event, Status};

const OTHERS: [&str; 4] = ["b@h", "c@h", "d@h", "e@h"];

fn pings(actions: &[Action]) -> Vec<(String, u64)> {
    let number = |(to, message): (String, Message)| match message.body {
        Body::Ping { number } => Some((to, number)),
        _ => None,
    };
    sent(actions).into_iter().filter_map(number).collect()
}

/// Sleeps until the next periodic ping. Who it went to, and its number.
fn next_ping(node: &mut Node) -> (String, u64) {
    loop {
        let next = node.now + 1;
        if let Some(ping) = pings(&node.sleep_until(next)).pop() {
            return ping;
        }
    }
}

fn ack(creation: u32, incarnation: u64, number: u64) -> Message {
    let body = Body::Ack {
        number,
        creation,
        incarnation,
    };
    message_of(creation, incarnation, body)
}

/// SWIM, section 4.3: a member is probed once per round, so within 2n - 1 periods.
#[test]
fn every_member_is_probed_once_per_round() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    let rounds = pings(&a.live_until(21_000, &OTHERS));
    assert!(rounds.len() >= 16);
    for round in rounds[..16].chunks(4) {
        let mut targets: Vec<&str> = round.iter().map(|(to, _)| &**to).collect();
        targets.sort_unstable();
        assert_eq!(targets, OTHERS, "{rounds:?}");
    }
}

/// SWIM, section 3.1: direct, then through others, then a suspicion.
#[test]
fn who_does_not_answer_is_probed_through_others_and_then_suspected() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    let (target, number) = next_ping(&mut a);
    let start = a.now;
    let quiet = a.sleep_until(start + 499);
    assert!(
        sent(&quiet)
            .iter()
            .all(|(_, message)| !matches!(message.body, Body::PingReq { .. }))
    );
    let asked = a.sleep_until(start + 501);
    let node = name(&target);
    let request = Body::PingReq { number, node };
    let helpers: Vec<String> = sent(&asked)
        .into_iter()
        .filter(|(_, message)| message.body == request)
        .map(|(to, _)| to)
        .collect();
    assert_eq!(helpers.len(), 3, "k = 3: {asked:?}");
    assert!(!helpers.contains(&target));
    let over = a.sleep_until(start + 1_001);
    assert_eq!(news(&over), [std::format!("suspect {target}#1")]);
    assert_eq!(a.cluster.view().metrics().suspicions, 1);
}

#[test]
fn an_answer_to_an_older_probe_does_not_complete_a_newer_one() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let (_, first) = next_ping(&mut a);
    a.received("b@h", ack(1, 0, first));
    let (_, second) = next_ping(&mut a);
    assert_ne!(first, second);
    a.received("b@h", ack(1, 0, first));
    let until = a.now + 1_001;
    assert_eq!(news(&a.sleep_until(until)), ["suspect b@h#1"]);
}

#[test]
fn an_answer_of_another_life_does_not_vouch_for_the_one_probed() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    let (target, number) = next_ping(&mut a);
    let helper = OTHERS.into_iter().find(|other| *other != target).unwrap();
    let start = a.now;
    a.sleep_until(start + 501);
    let foreign = Body::Ack {
        number,
        creation: 2,
        incarnation: 0,
    };
    a.received(helper, message_of(1, 0, foreign));
    assert_eq!(
        news(&a.sleep_until(start + 1_001)),
        [std::format!("suspect {target}#1")]
    );
}

/// Lifeguard, section 3.1: a helper says at 80 % of the timeout that it heard nothing, and still passes on a late answer.
#[test]
fn a_helper_probes_says_that_it_heard_nothing_and_passes_on_a_late_answer() {
    let mut a = Node::among(config("a@h"), &["b@h", "c@h"]);
    let node = name("c@h");
    let asked = a.received("b@h", message_of(1, 0, Body::PingReq { number: 77, node }));
    let [(_, number)] = pings(&asked)[..] else {
        panic!("{asked:?}")
    };
    let nacks = |actions: &[Action]| {
        let nack = Body::Nack { number: 77 };
        bodies(actions, "b@h")
            .iter()
            .filter(|body| **body == nack)
            .count()
    };
    assert_eq!(nacks(&a.sleep_until(399)), 0);
    assert_eq!(nacks(&a.sleep_until(400)), 1);
    let late = a.received("c@h", ack(1, 3, number));
    let answer = Body::Ack {
        number: 77,
        creation: 1,
        incarnation: 3,
    };
    assert_eq!(bodies(&late, "b@h"), [answer]);
    assert_eq!(
        bodies(&a.received("c@h", ack(1, 3, number)), "b@h"),
        [],
        "once"
    );
}

#[test]
fn nobody_is_dialled_on_a_strangers_word() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let node = name("x@h");
    let asked = a.received("b@h", message_of(1, 0, Body::PingReq { number: 1, node }));
    assert_eq!(sent(&asked), []);
}

/// Lifeguard, section 3.1: helpers that are silent altogether speak against this node, those that send a nack do not.
#[test]
fn silent_helpers_make_a_node_doubt_itself() {
    for (nacks, multiplier) in [(true, 1), (false, 4)] {
        let mut a = Node::among(config("a@h"), &OTHERS);
        let (target, number) = next_ping(&mut a);
        let start = a.now;
        a.sleep_until(start + 501);
        for helper in OTHERS.into_iter().filter(|other| nacks && *other != target) {
            a.received(helper, message_of(1, 0, Body::Nack { number }));
        }
        a.sleep_until(start + 1_001);
        assert_eq!(
            a.cluster.view().health().multiplier,
            multiplier,
            "nacks: {nacks}"
        );
    }
}

/// The same: the period and the timeout grow with the multiplier, and each answer lowers it.
#[test]
fn a_node_in_doubt_is_more_patient_and_recovers() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    next_ping(&mut a);
    let start = a.now;
    a.sleep_until(start + 1_001);
    assert_eq!(a.cluster.view().health().multiplier, 4);
    let times: Vec<u64> = (0..3)
        .map(|_| {
            next_ping(&mut a);
            a.now
        })
        .collect();
    assert!(times[1] - times[0] >= 4_000, "{times:?}");
    let now = a.now;
    a.live_until(now + 60_000, &OTHERS);
    assert_eq!(a.cluster.view().health().multiplier, 1);
}

/// SWIM, section 4.2: what is wrong about this node is outdone by a higher incarnation.
#[test]
fn a_suspicion_of_this_node_is_refuted() {
    for claim in [suspect("c@h"), Claim::Dead, Claim::Left] {
        let mut a = Node::among(config("a@h"), &OTHERS);
        let actions = a.received("b@h", gossip([word("a@h", 1, 4, claim.clone())]));
        assert_eq!(news(&actions), ["refreshed a@h#1"], "{claim:?}");
        assert_eq!(a.cluster.view().me().incarnation, 5);
        let told = a.live_until(400, &OTHERS);
        let alive = sent(&told)
            .into_iter()
            .flat_map(|(_, message)| message.words);
        assert!(
            alive
                .into_iter()
                .any(|word| word.incarnation == 5 && word.claim == Claim::Alive)
        );
    }
    let mut a = Node::among(
        Config {
            incarnation: 5,
            ..config("a@h")
        },
        &OTHERS,
    );
    let old = a.received("b@h", gossip([word("a@h", 1, 4, Claim::Dead)]));
    assert_eq!(
        news(&old),
        [] as [&str; 0],
        "an old word is outdone already"
    );
}

/// Every message carries its sender's incarnation: any of them refutes.
#[test]
fn the_head_of_any_message_refutes() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    assert_eq!(a.status("c@h"), Some((0, Status::Suspect)));
    let actions = a.received("c@h", message_of(1, 1, Body::Nack { number: 0 }));
    assert_eq!(news(&actions), ["recovered c@h#1"]);
    assert_eq!(a.status("c@h"), Some((1, Status::Alive)));
}

/// memberlist's rule for the dead, against the paper's: a death of an older incarnation is void, and the dead may refute.
#[test]
fn a_stale_death_is_void_and_the_dead_may_refute() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("c@h", hello("c@h", 1, 3));
    assert_eq!(
        news(&a.received("b@h", gossip([word("c@h", 1, 2, Claim::Dead)]))),
        [] as [&str; 0]
    );

    a.disconnected("c@h");
    let died = a.received("b@h", gossip([word("c@h", 1, 3, Claim::Dead)]));
    assert_eq!(news(&died), ["down c@h#1"]);
    let back = a.received("b@h", gossip([word("c@h", 1, 4, Claim::Alive)]));
    assert_eq!(news(&back), ["up c@h#1"]);
}

/// foca's bug up to 2.0: a suspicion that was refuted still acted at its old deadline.
#[test]
fn a_refuted_suspicion_leaves_no_trace_after_its_deadline() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    a.received("b@h", gossip([word("c@h", 1, 1, Claim::Alive)]));
    let later = a.live_until(60_000, &OTHERS);
    assert_eq!(news(&later), [] as [&str; 0]);
    assert_eq!(a.status("c@h"), Some((1, Status::Alive)));
}

/// Lifeguard, section 3.3, in every message and both ways.
#[test]
fn a_suspect_is_told_so_when_spoken_to_and_when_it_speaks() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    let about_c = |actions: &[Action]| -> usize {
        let to_c = sent(actions).into_iter().filter(|(to, _)| to == "c@h");
        to_c.flat_map(|(_, message)| message.words)
            .filter(|word| word.node == name("c@h") && word.claim == suspect("b@h"))
            .count()
    };
    let answer = a.received("c@h", message_of(1, 0, Body::Ping { number: 1 }));
    assert_eq!(about_c(&answer), 1, "in the ack: {answer:?}");
    let spoke = || message_of(1, 0, Body::Nack { number: 0 });
    assert_eq!(about_c(&a.received("c@h", spoke())), 1, "unasked");
    assert_eq!(
        about_c(&a.received("c@h", spoke())),
        0,
        "once per round of gossip"
    );
    a.sleep_until(200);
    assert_eq!(about_c(&a.received("c@h", spoke())), 1);
}

/// One last ping of this node's own before its own timer declares somebody dead.
#[test]
fn a_suspect_is_called_before_it_is_declared_dead() {
    let others = ["b@h", "d@h", "e@h"];
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    a.disconnected("c@h");
    for by in others {
        a.received("b@h", gossip([word("c@h", 1, 0, suspect(by))]));
    }
    let mut calls = vec![];
    let death = loop {
        let next = a.now + 1;
        let actions = a.live_until(next, &others);
        calls.extend(
            pings(&actions)
                .into_iter()
                .filter(|(to, _)| to == "c@h")
                .map(|_| next),
        );
        if news(&actions).contains(&"down c@h#1".into()) {
            break next;
        }
        assert!(next < 10_000);
    };
    assert!((4_000..4_010).contains(&death), "{death}");
    for before in [1_500, 800] {
        let near = |at: &&u64| death - **at <= before && death - **at + 5 >= before;
        assert!(
            calls.iter().any(|at| near(&at)),
            "{before} ms before {death}: {calls:?}"
        );
    }
}

/// A timer that comes late is evidence about this node.
#[test]
fn after_a_pause_nobody_is_judged_before_what_waits_was_read() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    a.received("b@h", gossip([word("c@h", 1, 0, suspect("b@h"))]));
    next_ping(&mut a);
    a.now += 60_000;
    let woke = a.step(Event::Woke);
    assert!(news(&woke).contains(&"stalled".into()));
    assert!(
        !news(&woke)
            .iter()
            .any(|word| word.starts_with("down") || word.starts_with("suspect"))
    );
    assert_eq!(a.cluster.view().health().stalls, 1);
    assert_eq!(a.cluster.view().health().multiplier, 3);
    let waited = a.received("b@h", gossip([word("c@h", 1, 1, Claim::Alive)]));
    assert_eq!(news(&waited), ["recovered c@h#1"]);
}

#[test]
fn the_end_of_a_connection_is_one_probe_and_no_death() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    let actions = a.disconnected("b@h");
    assert_eq!(news(&actions), [] as [&str; 0]);
    let bodies: Vec<Body> = sent(&actions)
        .into_iter()
        .map(|(_, message)| message.body)
        .collect();
    let direct = bodies
        .iter()
        .filter(|body| matches!(body, Body::Ping { .. }))
        .count();
    let through = bodies
        .iter()
        .filter(|body| matches!(body, Body::PingReq { .. }))
        .count();
    assert_eq!((direct, through), (1, 3), "{bodies:?}");
    let back = a.connected("b@h");
    assert_eq!(
        pings(&back).len(),
        1,
        "what was in flight was lost: {back:?}"
    );
}

#[test]
fn two_running_nodes_of_one_name_are_a_conflict_and_the_known_one_is_kept() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let heard = a.received("b@h", hello("b@h", 2, 1));
    assert_eq!(
        news(&heard),
        [] as [&str; 0],
        "the known one is asked first"
    );
    assert_eq!(pings(&heard).len(), 1);
    let answer = a.received("b@h", ack(1, 0, pings(&heard)[0].1));
    assert_eq!(news(&answer), ["conflict b@h#1 2"]);
    for incarnation in 2..5 {
        assert_eq!(
            news(&a.received("b@h", hello("b@h", 2, incarnation))),
            [] as [&str; 0]
        );
    }
    assert_eq!(a.status("b@h"), Some((0, Status::Alive)));

    let mut b = Node::among(config("a@h"), &["b@h"]);
    b.received("b@h", hello("b@h", 2, 1));
    assert_eq!(
        news(&b.sleep_until(501)),
        ["down b@h#1", "up b@h#2"],
        "the known one does not answer"
    );
}

#[test]
fn a_node_whose_name_another_one_uses_says_so_and_does_not_fight_for_ever() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    a.received("b@h", gossip([word("a@h", 1, 0, Claim::Alive)]));
    let mut all = vec![];
    for round in 1..20 {
        all.extend(news(&a.received(
            "b@h",
            gossip([word("a@h", 2, round * 10, Claim::Alive)]),
        )));
    }
    assert_eq!(
        all.iter()
            .filter(|word| word.starts_with("conflict"))
            .count(),
        1,
        "{all:?}"
    );
    assert_eq!(
        all.iter()
            .filter(|word| word.starts_with("refreshed"))
            .count(),
        3,
        "{all:?}"
    );
}

#[test]
fn a_newborn_outdoes_its_earlier_life_once_and_a_second_time_is_a_conflict() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let alive = |incarnation| gossip([word("a@h", 2, incarnation, Claim::Alive)]);
    assert_eq!(news(&a.received("b@h", alive(5))), ["refreshed a@h#1"]);
    assert_eq!(news(&a.received("b@h", alive(5))), [] as [&str; 0]);
    assert_eq!(
        news(&a.received("b@h", alive(7))),
        ["conflict a@h#1 2", "refreshed a@h#1"]
    );
}

#[test]
fn the_last_incarnation_is_survived() {
    let mut a = Node::among(config("a@h"), &["b@h", "c@h"]);
    a.received("b@h", gossip([word("a@h", 1, u64::MAX, Claim::Dead)]));
    a.received("b@h", gossip([word("c@h", 1, u64::MAX, suspect("b@h"))]));
    assert_eq!(a.cluster.view().me().incarnation, u64::MAX);
    for _ in 0..100 {
        let last = message_of(1, u64::MAX, Body::Gossip);
        let told = a.received("c@h", last);
        assert!(sent(&told).len() <= 1);
    }
    a.live_until(30_000, &["b@h"]);
}

/// A word is passed on λ log n times (SWIM, section 4.1), and twice as often while messages are lost.
#[test]
fn words_are_passed_on_a_bounded_number_of_times_and_twice_as_often_in_doubt() {
    for (doubt, expected) in [(false, 4), (true, 8)] {
        let mut a = Node::among(config("a@h"), &OTHERS);
        a.live_until(10_000, &OTHERS);
        if doubt {
            next_ping(&mut a);
            let until = a.now + 1_001;
            a.sleep_until(until);
            assert!(a.cluster.view().health().multiplier > 1);
        }
        a.received("b@h", gossip([word("x@h", 1, 0, Claim::Alive)]));
        let until = a.now + 2_500;
        let told = sent(&a.sleep_until(until))
            .into_iter()
            .flat_map(|(_, message)| message.words);
        let copies = told
            .filter(|word| word.node == name("x@h") && word.claim == Claim::Alive)
            .count();
        assert_eq!(copies, expected, "in doubt: {doubt}");
    }
}

#[test]
fn a_node_alone_sleeps() {
    let mut a = Node::new(config("a@h"));
    asked(&mut a, Command::SetMetadata(b"x".to_vec()));
    asked(&mut a, Command::Broadcast(b"x".to_vec()));
    let mut woken = 0;
    while a.now < 60_000 {
        a.now = a
            .cluster
            .deadline()
            .unwrap()
            .as_micros()
            .div_ceil(1000)
            .max(a.now);
        a.step(Event::Woke);
        woken += 1;
    }
    assert!(
        woken < 80,
        "one period per second, and the exchange of tables: {woken}"
    );
}

fn asked(node: &mut Node, command: Command) -> Answer {
    let call = CallId(1);
    let actions = node.step(Event::Asked { call, command });
    let answer = actions.iter().find_map(|action| match action {
        Action::Answer { answer, .. } => Some(answer.clone()),
        _ => None,
    });
    answer.expect("each call is answered at once")
}

#[test]
fn commands_have_limits() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let too_long = Answer::TooLong {
        bytes: 513,
        limit: 512,
    };
    assert_eq!(asked(&mut a, Command::SetMetadata(vec![0; 513])), too_long);
    assert_eq!(asked(&mut a, Command::Broadcast(vec![0; 513])), too_long);
    for _ in 0..broadcast::MAX_BROADCASTS {
        assert_eq!(
            asked(&mut a, Command::Broadcast(vec![0; 512])),
            Answer::Done
        );
    }
    let busy = Answer::Busy {
        limit: broadcast::MAX_BROADCASTS,
    };
    assert_eq!(asked(&mut a, Command::Broadcast(vec![])), busy);
    a.live_until(60_000, &["b@h"]);
    assert_eq!(asked(&mut a, Command::Broadcast(vec![])), Answer::Done);
    asked(&mut a, Command::Leave);
    assert_eq!(asked(&mut a, Command::Broadcast(vec![])), Answer::Left);
}

#[test]
fn metadata_are_a_new_incarnation_and_nothing_else() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    assert_eq!(
        asked(&mut a, Command::SetMetadata(b"x".to_vec())),
        Answer::Done
    );
    assert_eq!(a.cluster.view().me().incarnation, 1);
    assert_eq!(
        asked(&mut a, Command::SetMetadata(b"x".to_vec())),
        Answer::Done
    );
    assert_eq!(a.cluster.view().me().incarnation, 1, "the same again");

    let told = |told: u64, bytes: &[u8]| Word {
        metadata: Some(Metadata {
            told,
            bytes: Arc::from(bytes),
        }),
        ..word("b@h", 1, 7, Claim::Alive)
    };
    assert_eq!(
        news(&a.received("b@h", gossip([told(7, b"new")]))),
        ["updated b@h#1"]
    );
    assert_eq!(
        news(&a.received("b@h", gossip([told(6, b"old")]))),
        [] as [&str; 0]
    );
    let b = a
        .cluster
        .view()
        .members()
        .find(|member| member.node == name("b@h"))
        .cloned();
    assert_eq!(*b.unwrap().metadata, *b"new");
}

/// RFC 6298, section 2: the first sample counts whole, each later one an eighth.
#[test]
fn round_trips_are_smoothed() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let mut measured = vec![];
    for took in [80, 80, 160] {
        let (_, number) = next_ping(&mut a);
        a.now += took;
        a.received("b@h", ack(1, 0, number));
        let b = a
            .cluster
            .view()
            .members()
            .find_map(|member| member.round_trip);
        measured.push(b.unwrap().as_micros() / 1000);
    }
    assert_eq!(measured, [80, 80, 90]);
}

#[test]
fn no_small_message_outgrows_a_datagram_and_no_part_of_a_table_its_limit() {
    let mut a = Node::among(config("a@h"), &OTHERS);
    for number in 0..1000 {
        let member = Word {
            metadata: Some(Metadata {
                told: 0,
                bytes: Arc::from([7; 512]),
            }),
            ..word(
                &std::format!("{}{number}@h", "x".repeat(200)),
                1,
                0,
                Claim::Alive,
            )
        };
        a.received("b@h", gossip([member]));
    }
    let digest = Body::Digest {
        members: [0; BUCKETS],
        broadcasts: 0,
    };
    let first = a.received("b@h", message_of(1, 0, digest));
    let parts = |actions: &[Action]| {
        bodies(actions, "b@h")
            .iter()
            .filter(|body| matches!(body, Body::Table { .. }))
            .count()
    };
    assert!(parts(&first) <= 4, "a few per step");
    let mut all = first;
    all.extend(a.live_until(30_000, &OTHERS));
    let mut sizes: BTreeMap<bool, usize> = BTreeMap::new();
    let mut listed = std::collections::BTreeSet::new();
    for action in &all {
        let Action::Send { bytes, .. } = action else {
            continue;
        };
        if bytes.starts_with(&crate::registry::PREFIX) {
            continue;
        }
        let message = crate::message::decode(bytes).unwrap();
        let table = matches!(message.body, Body::Table { .. });
        let small = !table && !matches!(message.body, Body::Hello(_) | Body::Welcome(_));
        if table {
            listed.extend(message.words.iter().map(|word| word.node.clone()));
        }
        if table || small {
            let largest = sizes.entry(table).or_default();
            *largest = bytes.len().max(*largest);
        }
    }
    assert!(
        (900..=MAX_DATAGRAM_BYTES).contains(&sizes[&false]),
        "{sizes:?}"
    );
    assert!((15_000..=16 * 1024).contains(&sizes[&true]), "{sizes:?}");
    assert_eq!(listed.len(), 1005, "everybody, this node included");
}
