//! The rules of membership, one by one, on a clock of the test's own.

use alloc::string::{String, ToString};
use std::vec;

use super::*;
use crate::identity::Identity;
use crate::message::decode;
use crate::{Answer, CallId, Cluster, Command, Event};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn config(node: &str) -> Config {
    Config::new(name(node), 1, Kind::Rust)
}

/// One node whose peers are played by the test.
struct Node {
    cluster: Cluster,
    now: u64,
}

impl Node {
    fn new(config: Config) -> Self {
        let mut node = Self {
            cluster: Cluster::new(config).unwrap(),
            now: 0,
        };
        node.step(Event::Woke);
        node
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.cluster.step(at(self.now), event, &mut actions);
        actions
    }

    fn connected(&mut self, to: &str) -> Vec<Action> {
        self.step(Event::Connected { to: name(to) })
    }

    fn disconnected(&mut self, from: &str) -> Vec<Action> {
        self.step(Event::Disconnected { from: name(from) })
    }

    fn received(&mut self, from: &str, message: &Message) -> Vec<Action> {
        self.step(Event::Received {
            from: name(from),
            bytes: encode(message),
        })
    }

    /// Steps at each deadline up to `until`.
    fn sleep_until(&mut self, until: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(deadline) = self
            .cluster
            .deadline()
            .filter(|&deadline| deadline <= at(until))
        {
            self.now = deadline.as_millis();
            actions.extend(self.step(Event::Woke));
        }
        self.now = until;
        actions
    }

    fn statuses(&self) -> Vec<(String, Status)> {
        self.cluster
            .view()
            .members()
            .map(|member| (member.node.to_string(), member.status))
            .collect()
    }
}

fn hello(node: &str, creation: u32, incarnation: u64) -> Hello {
    Hello {
        cluster: String::from("default"),
        sender: Identity {
            node: name(node),
            creation,
            incarnation,
        },
        kind: Kind::Beam,
        held: None,
        listed: Vec::new(),
    }
}

fn sent(actions: &[Action]) -> Vec<(String, Message)> {
    let sent = |action: &Action| match action {
        Action::Send { to, bytes } => Some((to.to_string(), decode(bytes).unwrap())),
        Action::Answer { .. } | Action::Notify(_) => None,
    };
    actions.iter().filter_map(sent).collect()
}

/// The notices about members, as short words, for example `up b@h#1`.
fn news(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| {
        let Action::Notify(notice) = action else {
            return None;
        };
        let (word, member) = match notice {
            Notice::Up(member) => ("up", member),
            Notice::Down(member) => ("down", member),
            Notice::Left(member) => ("left", member),
            Notice::Refreshed(member) => ("refreshed", member),
            Notice::Forgotten(member) => ("forgotten", member),
            Notice::Refused { node, cluster } => {
                return Some(std::format!("refused {node} of {cluster}"));
            }
            Notice::Ignored { from, why } => return Some(std::format!("ignored {from}: {why}")),
        };
        Some(std::format!("{word} {}#{}", member.node, member.creation))
    };
    actions.iter().filter_map(word).collect()
}

#[test]
fn a_node_alone_lists_itself() {
    let node = Node::new(config("nonode@nohost"));
    assert_eq!(node.statuses(), [("nonode@nohost".into(), Status::Alive)]);
}

#[test]
fn a_connection_is_greeted_and_a_hello_makes_a_member() {
    let mut a = Node::new(config("a@h"));
    let greeting = a.connected("b@h");
    assert!(matches!(&sent(&greeting)[..], [(to, Message::Hello(_))] if to == "b@h"));
    assert_eq!(a.statuses().len(), 1, "a connection alone makes no member");

    let answer = a.received("b@h", &Message::Hello(hello("b@h", 7, 1)));
    assert_eq!(news(&answer), ["up b@h#7"]);
    let [(_, Message::Welcome(welcome))] = &sent(&answer)[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        welcome.held,
        Some(Held {
            creation: 7,
            incarnation: 1,
            status: Status::Alive
        })
    );
    assert_eq!(
        a.statuses(),
        [("a@h".into(), Status::Alive), ("b@h".into(), Status::Alive)]
    );
}

#[test]
fn a_welcome_makes_a_member_and_is_not_answered() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let actions = a.received("b@h", &Message::Welcome(hello("b@h", 1, 0)));
    assert_eq!(news(&actions), ["up b@h#1"]);
    assert_eq!(sent(&actions), []);
}

#[test]
fn a_silent_node_is_greeted_again_with_growing_pauses() {
    let mut a = Node::new(config("a@h"));
    a.connected("plain@h");
    let mut times = vec![];
    while a.now < 300_000 {
        let deadline = a.cluster.deadline().unwrap().as_millis();
        if !sent(&a.sleep_until(deadline)).is_empty() {
            times.push(deadline);
        }
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((500..=1000).contains(&times[0]), "{times:?}");
    assert!((1000..=2000).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses.iter().all(|&pause| pause <= 30_000), "{pauses:?}");
    assert!(
        pauses[6..].iter().all(|&pause| pause >= 15_000),
        "{pauses:?}"
    );
}

#[test]
fn who_answered_is_not_greeted_again() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Welcome(hello("b@h", 1, 0)));
    let later = sent(&a.sleep_until(60_000));
    assert!(
        (5..=13).contains(&later.len()),
        "only the exchange of lists is left: {later:?}"
    );
}

#[test]
fn seeds_are_greeted_from_the_start_and_the_own_name_is_no_seed() {
    let seeds = vec![name("a@h"), name("b@h")];
    let mut cluster = Cluster::new(Config {
        join: seeds,
        ..config("a@h")
    })
    .unwrap();
    assert_eq!(cluster.deadline(), Some(Instant::ZERO));
    let mut actions = Vec::new();
    cluster.step(at(50), Event::Woke, &mut actions);
    assert!(matches!(&sent(&actions)[..], [(to, Message::Hello(_))] if to == "b@h"));
}

#[test]
fn a_listed_name_is_greeted_a_few_times_and_then_dropped() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let listed = vec![name("c@h"), name("a@h")];
    a.received(
        "b@h",
        &Message::Welcome(Hello {
            listed,
            ..hello("b@h", 1, 0)
        }),
    );
    let to_c = |actions: &[Action]| sent(actions).iter().filter(|(to, _)| to == "c@h").count();
    assert_eq!(to_c(&a.sleep_until(1_000)), 1, "soon");
    assert_eq!(to_c(&a.sleep_until(600_000)), LISTED_GREETINGS as usize - 1);
    assert_eq!(a.statuses().len(), 2, "hearsay makes no member");
}

#[test]
fn a_lost_connection_is_a_death_and_the_dead_are_dialled() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Welcome(hello("b@h", 1, 0)));
    assert_eq!(news(&a.disconnected("b@h")), ["down b@h#1"]);
    assert_eq!(a.statuses()[1], ("b@h".into(), Status::Dead));
    assert!(
        sent(&a.sleep_until(1_000))
            .iter()
            .any(|(to, _)| to == "b@h")
    );

    a.connected("b@h");
    let back = a.received("b@h", &Message::Welcome(hello("b@h", 1, 0)));
    assert_eq!(
        news(&back),
        ["up b@h#1"],
        "the same creation came back: the network was at fault"
    );
}

#[test]
fn a_restart_is_down_then_up_once_even_if_the_disconnect_was_missed() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Welcome(hello("b@h", 1, 9)));
    let restarted = a.received("b@h", &Message::Hello(hello("b@h", 2, 0)));
    assert_eq!(news(&restarted), ["down b@h#1", "up b@h#2"]);
    let again = a.received("b@h", &Message::Hello(hello("b@h", 2, 0)));
    assert_eq!(news(&again), [] as [&str; 0]);

    assert_eq!(news(&a.disconnected("b@h")), ["down b@h#2"]);
    a.connected("b@h");
    assert_eq!(
        news(&a.received("b@h", &Message::Hello(hello("b@h", 3, 0)))),
        ["up b@h#3"]
    );
}

#[test]
fn a_leave_is_left_and_not_dialled_until_the_next_life() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Welcome(hello("b@h", 1, 4)));
    assert_eq!(
        news(&a.received("b@h", &Message::Leave(hello("b@h", 1, 4).sender))),
        ["left b@h#1"]
    );
    assert_eq!(
        news(&a.disconnected("b@h")),
        [] as [&str; 0],
        "who left cannot die"
    );
    assert!(
        sent(&a.sleep_until(600_000))
            .iter()
            .all(|(to, _)| to != "b@h")
    );

    a.connected("b@h");
    let stale = a.received("b@h", &Message::Hello(hello("b@h", 1, 4)));
    assert_eq!(
        news(&stale),
        ["ignored b@h: older than what is known of the sender"]
    );
    let [(_, Message::Welcome(welcome))] = &sent(&stale)[..] else {
        panic!("{stale:?}")
    };
    assert_eq!(
        welcome.held,
        Some(Held {
            creation: 1,
            incarnation: 4,
            status: Status::Left
        })
    );
    assert_eq!(
        news(&a.received("b@h", &Message::Hello(hello("b@h", 1, 5)))),
        ["up b@h#1"]
    );
}

#[test]
fn a_belief_in_an_earlier_core_is_outdone() {
    // The core was made anew within one creation with too small an incarnation, and others think it left.
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let held = Some(Held {
        creation: 1,
        incarnation: 6,
        status: Status::Left,
    });
    let actions = a.received(
        "b@h",
        &Message::Welcome(Hello {
            held,
            ..hello("b@h", 1, 0)
        }),
    );
    assert_eq!(news(&actions), ["up b@h#1", "refreshed a@h#1"]);
    let [(_, Message::Hello(hello_again))] = &sent(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(hello_again.sender.incarnation, 7);

    let other_life = Some(Held {
        creation: 2,
        incarnation: 99,
        status: Status::Left,
    });
    let actions = a.received(
        "b@h",
        &Message::Welcome(Hello {
            held: other_life,
            ..hello("b@h", 1, 0)
        }),
    );
    assert_eq!(
        news(&actions),
        [] as [&str; 0],
        "another creation is another life"
    );
}

#[test]
fn another_cluster_is_refused_once_and_told() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    let foreign = Message::Hello(Hello {
        cluster: "blue".into(),
        ..hello("b@h", 1, 0)
    });
    let actions = a.received("b@h", &foreign);
    assert_eq!(news(&actions), ["refused b@h of blue"]);
    assert_eq!(
        sent(&actions),
        [(
            "b@h".into(),
            Message::Refused {
                cluster: "default".into()
            }
        )]
    );
    assert_eq!(a.statuses().len(), 1);
    assert!(
        sent(&a.sleep_until(600_000)).is_empty(),
        "it is not greeted again"
    );

    let again = a.received("b@h", &foreign);
    assert_eq!(news(&again), [] as [&str; 0]);
    a.disconnected("b@h");
    a.connected("b@h");
    assert_eq!(news(&a.received("b@h", &foreign)), ["refused b@h of blue"]);
}

#[test]
fn being_refused_is_told_too() {
    let mut a = Node::new(Config {
        join: vec![name("b@h")],
        ..config("a@h")
    });
    a.connected("b@h");
    let actions = a.received(
        "b@h",
        &Message::Refused {
            cluster: "blue".into(),
        },
    );
    assert_eq!(news(&actions), ["refused b@h of blue"]);
    assert_eq!(sent(&actions), []);
}

#[test]
fn a_member_that_changes_its_cluster_is_gone() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Hello(hello("b@h", 1, 0)));
    let foreign = Message::Hello(Hello {
        cluster: "blue".into(),
        ..hello("b@h", 1, 1)
    });
    assert_eq!(
        news(&a.received("b@h", &foreign)),
        ["down b@h#1", "refused b@h of blue"]
    );
}

#[test]
fn bad_bytes_are_one_notice_and_change_nothing() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    a.received("b@h", &Message::Welcome(hello("b@h", 1, 0)));
    let before = a.statuses();
    let mut cases = vec![vec![], vec![0], vec![1, 99], vec![0xFF; 1000]];
    cases.push(encode(&Message::Leave(hello("c@h", 1, 0).sender)));
    cases.push(encode(&Message::Hello(hello("c@h", 1, 0))));
    for bytes in cases {
        let actions = a.step(Event::Received {
            from: name("b@h"),
            bytes,
        });
        assert!(
            matches!(&actions[..], [Action::Notify(Notice::Ignored { .. })]),
            "{actions:?}"
        );
    }
    let stranger = a.received("c@h", &Message::Hello(hello("c@h", 1, 0)));
    let [
        Action::Notify(Notice::Ignored {
            why: Why::NotConnected,
            ..
        }),
    ] = &stranger[..]
    else {
        panic!("{stranger:?}")
    };
    assert_eq!(a.statuses(), before);
}

#[test]
fn leaving_tells_all_and_stops() {
    let mut a = Node::new(Config {
        incarnation: 3,
        ..config("a@h")
    });
    for peer in ["b@h", "c@h"] {
        a.connected(peer);
        a.received(peer, &Message::Welcome(hello(peer, 1, 0)));
    }
    a.connected("plain@h");
    let leave = || Event::Asked {
        call: CallId(7),
        command: Command::Leave,
    };
    let actions = a.step(leave());
    let farewell = Message::Leave(Identity {
        node: name("a@h"),
        creation: 1,
        incarnation: 3,
    });
    assert_eq!(
        sent(&actions),
        [("b@h".into(), farewell.clone()), ("c@h".into(), farewell)]
    );
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
    a.step(Event::Asked {
        call: CallId(7),
        command: Command::Leave,
    });
    let farewell = Message::Leave(Identity {
        node: name("a@h"),
        creation: 1,
        incarnation: 0,
    });
    let answer = a.received("b@h", &Message::Hello(hello("b@h", 1, 0)));
    assert_eq!(
        (sent(&answer), news(&answer)),
        (vec![("b@h".into(), farewell)], vec![])
    );

    let foreign = Message::Hello(Hello {
        cluster: "blue".into(),
        ..hello("b@h", 1, 0)
    });
    assert_eq!(a.received("b@h", &foreign), []);
    assert_eq!(a.received("b@h", &Message::Welcome(hello("b@h", 1, 0))), []);
}

#[test]
fn every_member_is_asked_in_turn() {
    let mut a = Node::new(config("a@h"));
    for peer in ["b@h", "c@h", "d@h", "e@h"] {
        a.connected(peer);
        a.received(peer, &Message::Welcome(hello(peer, 1, 0)));
    }
    let mut asked: Vec<String> = sent(&a.sleep_until(300_000))
        .into_iter()
        .map(|(to, _)| to)
        .collect();
    asked.truncate(12);
    let first: std::collections::BTreeSet<_> = asked[..4].iter().collect();
    assert_eq!(first.len(), 4, "{asked:?}");
    assert_eq!(asked[..4], asked[4..8]);
    assert_eq!(asked[..4], asked[8..]);
}

#[test]
fn the_dead_and_the_left_are_forgotten_in_the_end() {
    let timing = Timing {
        forget_after: Duration::from_secs(60),
        ..Timing::default()
    };
    let mut a = Node::new(Config {
        timing,
        join: vec![name("b@h")],
        ..config("a@h")
    });
    for peer in ["b@h", "c@h"] {
        a.connected(peer);
        a.received(peer, &Message::Welcome(hello(peer, 1, 0)));
    }
    a.disconnected("b@h");
    a.received("c@h", &Message::Leave(hello("c@h", 1, 0).sender));
    let mut forgotten = news(&a.sleep_until(60_000));
    forgotten.sort();
    assert_eq!(forgotten, ["forgotten b@h#1", "forgotten c@h#1"]);
    assert_eq!(a.statuses().len(), 1);
    let later = sent(&a.sleep_until(120_000));
    assert!(
        later.iter().any(|(to, _)| to == "b@h"),
        "a seed is dialled for ever"
    );
}

#[test]
fn lists_are_exchanged_soon_after_a_newcomer_and_then_regularly() {
    let mut a = Node::new(config("a@h"));
    for peer in ["b@h", "c@h"] {
        a.connected(peer);
        a.received(peer, &Message::Welcome(hello(peer, 1, 0)));
    }
    let soon = sent(&a.sleep_until(1_000));
    let [(to, Message::Hello(hello))] = &soon[..] else {
        panic!("{soon:?}")
    };
    let other = if to == "b@h" { "c@h" } else { "b@h" };
    assert_eq!(hello.listed, [name(other)]);
    assert!((9..=21).contains(&sent(&a.sleep_until(101_000)).len()));
}

#[test]
fn a_large_cluster_is_listed_in_parts_that_cover_it() {
    let mut a = Node::new(config("a@h"));
    for number in 0..200 {
        let peer = std::format!("n{number}@h");
        a.connected(&peer);
        a.received(&peer, &Message::Welcome(hello(&peer, 1, 0)));
    }
    let mut listed = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let answer = sent(&a.received("n0@h", &Message::Hello(hello("n0@h", 1, 0))));
        let Some((_, Message::Welcome(welcome))) = answer.first() else {
            panic!("{answer:?}")
        };
        assert_eq!(welcome.listed.len(), MAX_LISTED);
        listed.extend(welcome.listed.clone());
    }
    assert_eq!(listed.len(), 199);
    assert!(!listed.contains(&name("n0@h")));
}

#[test]
fn strangers_lists_cannot_fill_memory() {
    let mut a = Node::new(config("a@h"));
    a.connected("b@h");
    for round in 0..200 {
        let listed = (0..MAX_LISTED)
            .map(|n| name(&std::format!("n{round}-{n}@h")))
            .collect();
        a.received(
            "b@h",
            &Message::Hello(Hello {
                listed,
                ..hello("b@h", 1, 0)
            }),
        );
    }
    // `Cluster::step` checks the limit; a node that really connects still finds room.
    a.connected("z@h");
    assert_eq!(
        news(&a.received("z@h", &Message::Hello(hello("z@h", 1, 0)))),
        ["up z@h#1"]
    );
}

#[test]
fn many_deadlines_at_once_are_handled_in_several_steps() {
    let mut a = Node::new(config("a@h"));
    for number in 0..MAX_DUE_PER_STEP * 2 {
        a.connected(&std::format!("n{number}@h"));
    }
    a.now = 60_000;
    assert!(sent(&a.step(Event::Woke)).len() <= MAX_DUE_PER_STEP);
    assert!(
        a.cluster.deadline().unwrap() <= at(60_000),
        "the rest is due at once"
    );
}

#[test]
fn time_that_goes_back_is_taken_for_the_latest() {
    let mut a = Node::new(config("a@h"));
    a.now = 50_000;
    a.step(Event::Woke);
    a.now = 10;
    a.connected("b@h");
    assert!(a.cluster.deadline().unwrap() > at(50_000));
}
