//! Hellos, leaves, refusals, and bytes that mean nothing.

use std::vec;

use super::node::*;
use super::*;
use crate::message::{Body, Claim, Held, Hello, Message};
use crate::{Answer, CallId, Cluster, Command, Event, Status, Why};

#[test]
fn a_node_alone_lists_itself() {
    let node = Node::new(config("nonode@nohost"));
    assert_eq!(node.statuses(), [("nonode@nohost".into(), Status::Alive)]);
}

#[test]
fn a_connection_is_greeted_and_a_hello_makes_a_member() {
    let mut a = Node::new(config("a@h"));
    let greeting = a.connected("b@h");
    assert!(matches!(&bodies(&greeting, "b@h")[..], [Body::Hello(_)]));
    assert_eq!(a.statuses().len(), 1, "a connection alone makes no member");

    let answer = a.received("b@h", hello("b@h", 7, 1));
    assert_eq!(news(&answer), ["up b@h#7"]);
    let held = Some(Held {
        creation: 7,
        incarnation: 1,
        status: Status::Alive,
    });
    let bodies = bodies(&answer, "b@h");
    assert!(
        bodies
            .iter()
            .any(|body| matches!(body, Body::Welcome(hello) if hello.held == held)),
        "{bodies:?}"
    );
    assert_eq!(
        a.statuses(),
        [("a@h".into(), Status::Alive), ("b@h".into(), Status::Alive)]
    );
}

#[test]
fn a_welcome_makes_a_member_and_is_not_answered_with_one() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let actions = a.received("b@h", welcome("b@h", 1, 0));
    assert_eq!(news(&actions), ["up b@h#1"]);
    assert!(
        matches!(&bodies(&actions, "b@h")[..], [Body::Digest { .. }]),
        "the first who is met is asked for its table: {actions:?}"
    );
}

#[test]
fn a_silent_node_is_greeted_again_with_growing_pauses() {
    let mut a = Node::new(config("a@h"));
    a.connected("hidden@h");
    let mut times = vec![];
    while a.now < 300_000 {
        let next = a.now + 1;
        if !sent(&a.sleep_until(next)).is_empty() {
            times.push(next);
        }
    }
    let pauses: vec::Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((500..=1001).contains(&times[0]), "{times:?}");
    assert!((999..=2001).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses.iter().all(|&pause| pause <= 30_001), "{pauses:?}");
    assert!(
        pauses[6..].iter().all(|&pause| pause >= 14_999),
        "{pauses:?}"
    );
}

#[test]
fn seeds_are_greeted_from_the_start_and_the_own_name_is_no_seed() {
    let join = vec![name("a@h"), name("b@h")];
    let mut cluster = Cluster::new(Config {
        join,
        ..config("a@h")
    })
    .unwrap();
    assert_eq!(cluster.deadline(), Some(Instant::ZERO));
    let mut actions = Vec::new();
    cluster.step(Instant::from_millis(50), Event::Woke, &mut actions);
    assert!(matches!(&bodies(&actions, "b@h")[..], [Body::Hello(_)]));
    assert_eq!(sent(&actions).len(), 1);
}

#[test]
fn whom_others_name_is_dialled_soon() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let heard = a.received("b@h", gossip([word("c@h", 1, 0, Claim::Alive)]));
    assert_eq!(news(&heard), ["up c@h#1"]);
    let later = a.live_until(1_000, &["b@h"]);
    assert!(
        bodies(&later, "c@h")
            .iter()
            .any(|body| matches!(body, Body::Hello(_)))
    );
}

#[test]
fn a_newborn_learns_what_is_held_of_its_name_and_outdoes_it() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let held = Some(Held {
        creation: 9,
        incarnation: 6,
        status: Status::Alive,
    });
    let held = Body::Welcome(Hello {
        held,
        ..introduction("b@h", 0)
    });
    let actions = a.received("b@h", message_of(1, 0, held));
    assert_eq!(news(&actions), ["up b@h#1", "refreshed a@h#1"]);
    let again = sent(&actions)
        .into_iter()
        .find(|(_, message)| matches!(message.body, Body::Hello(_)));
    assert_eq!(again.unwrap().1.incarnation, 7);
}

#[test]
fn a_restart_is_not_believed_before_it_outdid_its_earlier_life() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    a.received("b@h", hello("b@h", 1, 9));
    a.disconnected("b@h");
    a.connected("b@h");
    let stale = a.received("b@h", hello("b@h", 2, 0));
    assert_eq!(
        news(&stale),
        ["ignored b@h: older than what is known of the sender"]
    );
    let held = Some(Held {
        creation: 1,
        incarnation: 9,
        status: Status::Alive,
    });
    assert!(
        bodies(&stale, "b@h")
            .iter()
            .any(|body| matches!(body, Body::Welcome(hello) if hello.held == held))
    );
    let reborn = a.received("b@h", hello("b@h", 2, 10));
    assert_eq!(news(&reborn), ["down b@h#1", "up b@h#2"]);
    assert_eq!(
        news(&a.received("b@h", hello("b@h", 2, 10))),
        [] as [&str; 0]
    );
}

#[test]
fn a_leave_is_left_and_not_dialled_until_the_next_life() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let leave = || message_of(1, 4, Body::Leave);
    assert_eq!(news(&a.received("b@h", leave())), ["left b@h#1"]);
    assert_eq!(
        news(&a.disconnected("b@h")),
        [] as [&str; 0],
        "who left cannot die"
    );
    assert!(sent(&a.sleep_until(600_000)).is_empty());

    a.connected("b@h");
    let stale = a.received("b@h", hello("b@h", 1, 4));
    assert_eq!(
        news(&stale),
        ["ignored b@h: older than what is known of the sender"]
    );
    assert_eq!(news(&a.received("b@h", hello("b@h", 1, 5))), ["up b@h#1"]);
}

#[test]
fn another_cluster_is_refused_once_per_connection_and_told() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let foreign = || {
        message_of(
            1,
            0,
            Body::Hello(Hello {
                cluster: "blue".into(),
                ..introduction("b@h", 0)
            }),
        )
    };
    let actions = a.received("b@h", foreign());
    assert_eq!(news(&actions), ["refused b@h of blue"]);
    let cluster = "default".into();
    assert_eq!(bodies(&actions, "b@h"), [Body::Refused { cluster }]);
    assert_eq!(a.statuses().len(), 1);
    assert!(
        sent(&a.sleep_until(600_000)).is_empty(),
        "it is not greeted again"
    );

    assert_eq!(news(&a.received("b@h", foreign())), [] as [&str; 0]);
    a.disconnected("b@h");
    a.connected("b@h");
    assert_eq!(news(&a.received("b@h", foreign())), ["refused b@h of blue"]);
}

#[test]
fn being_refused_is_told_too() {
    let mut a = Node::new(Config {
        join: vec![name("b@h")],
        ..config("a@h")
    });
    a.connected("b@h");
    let refused = Body::Refused {
        cluster: "blue".into(),
    };
    let actions = a.received("b@h", message_of(1, 0, refused));
    assert_eq!(news(&actions), ["refused b@h of blue"]);
    assert_eq!(sent(&actions), []);
}

#[test]
fn a_member_that_came_back_in_another_cluster_finds_out() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let ping = Message {
        cluster: 77,
        ..message_of(2, 0, Body::Ping { number: 1 })
    };
    let actions = a.received("b@h", ping);
    assert!(
        matches!(&bodies(&actions, "b@h")[..], [Body::Hello(_)]),
        "a hello, and no ack: {actions:?}"
    );
    let refused = Body::Refused {
        cluster: "blue".into(),
    };
    let actions = a.received("b@h", message_of(2, 0, refused));
    assert_eq!(news(&actions), ["down b@h#1", "refused b@h of blue"]);
}

#[test]
fn bad_bytes_are_one_notice_and_change_nothing() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    let before = a.statuses();
    let mut cases = vec![vec![], vec![0], vec![1, 99], vec![0xFF; 1000]];
    cases.push(crate::message::encode(&hello("c@h", 1, 0)));
    for bytes in cases {
        let from = name("b@h");
        let actions = a.step(Event::Received { from, bytes });
        assert!(
            matches!(&actions[..], [Action::Notify(Notice::Ignored { .. })]),
            "{actions:?}"
        );
    }
    let stranger = a.received("c@h", hello("c@h", 1, 0));
    assert!(matches!(
        &stranger[..],
        [Action::Notify(Notice::Ignored {
            why: Why::NotConnected,
            ..
        })]
    ));
    assert_eq!(a.statuses(), before);
    assert_eq!(a.cluster.view().metrics().ignored, 6);
}

fn leave() -> Event {
    Event::Asked {
        call: CallId(7),
        command: Command::Leave,
    }
}

#[test]
fn leaving_tells_all_and_stops() {
    let mut a = Node::among(config("a@h"), &["b@h", "c@h"]);
    a.connected("hidden@h");
    let actions = a.step(leave());
    for member in ["b@h", "c@h"] {
        assert_eq!(bodies(&actions, member), [Body::Leave]);
    }
    assert_eq!(sent(&actions).len(), 2);
    assert_eq!(news(&actions), ["left a@h#1"]);
    let answer = Action::Answer {
        call: CallId(7),
        answer: Answer::Left,
    };
    assert_eq!(actions.last(), Some(&answer));
    assert_eq!(a.statuses(), [("a@h".into(), Status::Left)]);
    assert_eq!(a.cluster.deadline(), None);
    assert_eq!(a.connected("d@h"), []);
    assert_eq!(a.step(leave()), [answer]);
}

#[test]
fn who_missed_the_farewell_is_told_when_it_asks() {
    let mut a = Node::new(config("a@h"));
    a.step(leave());
    for body in [
        Body::Hello(introduction("b@h", 0)),
        Body::Ping { number: 1 },
    ] {
        let answer = a.received("b@h", message_of(1, 0, body));
        assert_eq!(bodies(&answer, "b@h"), [Body::Leave]);
        assert_eq!(news(&answer), [] as [&str; 0]);
    }
    let foreign = Message {
        cluster: 77,
        ..hello("b@h", 1, 0)
    };
    assert_eq!(a.received("b@h", foreign), []);
    assert_eq!(a.received("b@h", welcome("b@h", 1, 0)), []);
}

#[test]
fn a_farewell_outdoes_what_is_held_of_an_earlier_life() {
    let mut a = Node::new(config("a@h"));
    a.step(leave());
    let held = Some(Held {
        creation: 9,
        incarnation: 6,
        status: Status::Alive,
    });
    let asks = Body::Hello(Hello {
        held,
        ..introduction("b@h", 0)
    });
    for expected in [7, 7] {
        let answer = a.received("b@h", message_of(1, 0, asks.clone()));
        assert_eq!(sent(&answer)[0].1.incarnation, expected, "once");
    }
    let suspected = Message {
        words: vec![word("a@h", 1, 8, suspect("b@h"))],
        ..message_of(1, 0, Body::Ping { number: 1 })
    };
    assert_eq!(sent(&a.received("b@h", suspected))[0].1.incarnation, 9);
}

#[test]
fn the_dead_and_the_left_are_forgotten_in_the_end() {
    let timing = Timing {
        forget_after: crate::Duration::from_secs(60),
        ..Timing::default()
    };
    let mut a = Node::among(
        Config {
            timing,
            join: vec![name("b@h")],
            ..config("a@h")
        },
        &["b@h", "c@h"],
    );
    a.disconnected("b@h");
    a.received("c@h", message_of(1, 0, Body::Leave));
    let mut forgotten = news(&a.sleep_until(90_000));
    forgotten.retain(|word| word.starts_with("forgotten"));
    assert_eq!(forgotten, ["forgotten c@h#1", "forgotten b@h#1"]);
    assert_eq!(a.statuses().len(), 1);
    let later = a.sleep_until(180_000);
    assert!(
        !bodies(&later, "b@h").is_empty(),
        "a seed is dialled for ever"
    );
}

#[test]
fn strangers_words_cannot_fill_memory() {
    let mut a = Node::among(config("a@h"), &["b@h"]);
    for round in 0..100 {
        let words = (0..64).map(|n| word(&std::format!("n{round}-{n}@h"), 1, 0, Claim::Alive));
        a.received("b@h", gossip(words));
    }
    // `Cluster::step` checks the limit.
    assert_eq!(a.statuses().len(), MAX_PEERS + 1);
}

#[test]
fn many_deadlines_at_once_are_handled_in_several_steps_and_are_no_stall() {
    let mut a = Node::new(config("a@h"));
    for number in 0..MAX_DUE_PER_STEP * 3 {
        a.connected(&std::format!("n{number}@h"));
    }
    a.now = 60_000;
    let first = a.step(Event::Woke);
    assert!(sent(&first).len() <= MAX_DUE_PER_STEP);
    assert!(news(&first).contains(&"stalled".into()));
    assert!(
        a.cluster.deadline().unwrap() <= Instant::from_millis(60_000),
        "the rest is due at once"
    );
    a.now = 60_001;
    assert!(!news(&a.step(Event::Woke)).contains(&"stalled".into()));
}

#[test]
fn time_that_goes_back_is_taken_for_the_latest() {
    let mut a = Node::new(config("a@h"));
    a.now = 50_000;
    a.step(Event::Woke);
    a.now = 10;
    a.connected("b@h");
    assert!(a.cluster.deadline().unwrap() >= Instant::from_millis(50_000));
    a.cluster
        .step(Instant::from_micros(u64::MAX), Event::Woke, &mut Vec::new());
}
