//! One registry, and pairs of them, rule by rule. Whole clusters are in `simulation`.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::message::{MAX_NUMBER, Message, Operation, decode, encode};
use super::*;

struct Node {
    registry: Registry,
    now: Instant,
    calls: u64,
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

impl Node {
    fn new(node: &str, limits: Limits) -> Self {
        Self {
            registry: Registry::new(Config {
                node: name(node),
                creation: 1,
                epoch: 1,
                limits,
            }),
            now: Instant::from_millis(1),
            calls: 0,
        }
    }

    fn ask(&mut self, command: Command) -> Vec<Output> {
        self.calls += 1;
        let mut out = Vec::new();
        self.registry
            .asked(self.now, CallId(self.calls), command, &mut out);
        out
    }

    fn register(&mut self, name: &str, pid: &str) -> Vec<Output> {
        self.ask(registration(name, pid))
    }

    fn wake(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.registry.wake(self.now, &mut out);
        out
    }

    fn up(&mut self, node: &str) -> Vec<Output> {
        let mut out = Vec::new();
        self.registry.up(self.now, &name(node), 1, &mut out);
        out
    }

    fn hear(&mut self, from: &str, message: &Message) -> Vec<Output> {
        self.receive(from, &encode(message))
    }

    fn receive(&mut self, from: &str, bytes: &[u8]) -> Vec<Output> {
        let mut out = Vec::new();
        self.registry
            .received(self.now, &name(from), bytes, &mut out);
        out
    }

    fn pid(&self, name: &str) -> Option<Vec<u8>> {
        let row = self.registry.row(&Key::name_in("s", name.as_bytes()))?;
        Some(row.pid.to_vec())
    }
}

fn registration(name: &str, pid: &str) -> Command {
    Command::Register {
        scope: "s".into(),
        name: name.as_bytes().into(),
        pid: pid.as_bytes().into(),
        meta: b""[..].into(),
        on_conflict: OnConflict::Notify,
        resolve: false,
        claimed: false,
    }
}

fn answers(out: &[Output]) -> Vec<&Answer> {
    let answers = out.iter().filter_map(|output| match output {
        Output::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    answers.collect()
}

fn sent(out: &[Output]) -> Vec<Message> {
    let sent = out.iter().filter_map(|output| match output {
        Output::Send { bytes, .. } => Some(decode(bytes).unwrap()),
        _ => None,
    });
    sent.collect()
}

fn item(pid: &str, stamp: u64) -> entry::Item {
    entry::Item {
        pid: pid.as_bytes().into(),
        meta: b""[..].into(),
        stamp,
        seq: 0,
        resolve: false,
        on_conflict: OnConflict::Notify,
        attempts: 0,
        verdict: None,
    }
}

fn operations(from: u64, head: u64, operations: Vec<Operation>) -> Message {
    Message::Operations {
        life: Life {
            creation: 1,
            epoch: 1,
        },
        from,
        head,
        more: false,
        operations,
    }
}

#[test]
fn what_is_asked_in_one_turn_is_sent_in_one_message() {
    let mut a = Node::new("a@h", Limits::default());
    a.up("b@h");
    for number in 0..100 {
        let out = a.register(&format!("n{number}"), "p");
        assert_eq!(answers(&out), [&Answer::Done], "answers do not wait");
        assert_eq!(sent(&out), []);
    }
    assert_eq!(a.registry.deadline(), Some(a.now));
    let messages = sent(&a.wake());
    assert!(
        matches!(&messages[..], [Message::Operations { operations, .. }] if operations.len() == 100)
    );
    assert!(a.registry.deadline() > Some(a.now));
}

#[test]
fn a_process_that_ended_is_not_in_the_way_of_its_successor() {
    let mut a = Node::new("a@h", Limits::default());
    a.register("n", "old");
    let out = a.register("n", "new");
    let [Output::Check { id, .. }] = out[..] else {
        panic!("{out:?}");
    };
    assert!(sent(&out).is_empty());
    let mut out = Vec::new();
    a.registry.checked(a.now, id, false, &mut out);
    assert_eq!(answers(&out), [&Answer::Done]);
    assert_eq!(a.pid("n"), Some(b"new".to_vec()));
    // The end that is told late changes nothing.
    let mut out = Vec::new();
    a.registry.exited(a.now, &b"old"[..].into(), &mut out);
    assert_eq!(out, []);
}

#[test]
fn the_owner_of_a_taken_name_is_asked_for_a_time() {
    let mut a = Node::new("a@h", Limits::default());
    a.up("b@h");
    let key = Key::name_in("s", b"n");
    a.hear(
        "b@h",
        &operations(0, 1, vec![Operation::Put(key, item("p", 1))]),
    );
    let out = a.register("n", "q");
    assert_eq!(answers(&out), [] as [&Answer; 0]);
    assert!(matches!(sent(&out)[..], [Message::Question { .. }]));
    a.now = a.now + Duration::from_secs(1);
    let taken = Answer::Taken {
        pid: b"p"[..].into(),
        node: name("b@h"),
    };
    assert_eq!(answers(&a.wake()), [&taken]);
    // And if it answers that it is free, the operation that says so need not have come.
    let Message::Question { ask, .. } = sent(&a.register("n", "q")).remove(0) else {
        panic!();
    };
    let out = a.hear("b@h", &Message::Reply { ask, held: false });
    assert_eq!(answers(&out), [&Answer::Done]);
}

/// The driver's callers take free names from its table; what they took may have come in from elsewhere at the same moment.
#[test]
fn a_claim_that_crossed_a_registration_is_a_conflict() {
    let claim = |name: &str, pid: &str| match registration(name, pid) {
        Command::Register {
            scope,
            name,
            pid,
            meta,
            on_conflict,
            resolve,
            ..
        } => Command::Register {
            scope,
            name,
            pid,
            meta,
            on_conflict,
            resolve,
            claimed: true,
        },
        other => other,
    };
    let mut a = Node::new("a@h", Limits::default());
    a.up("b@h");
    assert_eq!(answers(&a.ask(claim("free", "p"))), [&Answer::Done]);
    assert_eq!(a.pid("free"), Some(b"p".to_vec()));

    // Nobody is asked, and the older registration has the name.
    let put = Operation::Put(Key::name_in("s", b"n"), item("other", 1));
    a.hear("b@h", &operations(0, 1, vec![put]));
    let out = a.ask(claim("n", "p"));
    let [Output::Lost(loss), Output::Answer { answer, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(
        (&*loss.pid, loss.kept.as_deref()),
        (&b"p"[..], Some(&b"other"[..]))
    );
    assert_eq!(*answer, Answer::Done);
    assert_eq!(a.pid("n"), Some(b"other".to_vec()));

    // A process of this node is in the way: nothing is changed.
    let out = a.ask(claim("free", "q"));
    assert!(
        matches!(&out[..], [Output::Answer { answer: Answer::Taken { pid, .. }, .. }] if **pid == b"p"[..]),
        "{out:?}"
    );
    a.registry.check();
}

#[test]
fn there_is_room_for_what_is_said() {
    let limits = Limits {
        entries_per_scope: 10,
        ..Limits::default()
    };
    let mut a = Node::new("a@h", limits);
    assert_eq!(a.registry.room(), 10);
    for number in 0..4 {
        a.register(&format!("n{number}"), "p");
    }
    assert_eq!(a.registry.room(), 6);
    for number in 4..11 {
        a.register(&format!("n{number}"), "p");
    }
    assert_eq!(a.registry.room(), 0);
}

#[test]
fn a_registration_that_ended_in_an_owners_history_costs_nobody_a_name() {
    let mut a = Node::new("a@h", Limits::default());
    a.register("m", "mine");
    a.register("n", "mine");
    a.up("b@h");
    let put = |name: &[u8]| Operation::Put(Key::name_in("s", name), item("other", 1));
    // Both are older by the order of names if stamps are equal; so b's stamp is 0.
    let older = |name: &[u8]| match put(name) {
        Operation::Put(key, item) => Operation::Put(key, entry::Item { stamp: 0, ..item }),
        other => other,
    };
    let gone = Operation::Drop(Key::name_in("s", b"n"), Gone::Unregistered);
    let out = a.hear("b@h", &operations(0, 3, vec![older(b"n"), older(b"m")]));
    assert!(
        out.iter().all(|output| !matches!(output, Output::Lost(_))),
        "{out:?}"
    );
    let out = a.hear("b@h", &operations(2, 3, vec![gone]));
    assert_eq!(a.pid("n"), Some(b"mine".to_vec()));
    assert_eq!(a.pid("m"), Some(b"other".to_vec()));
    let lost: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Lost(loss) => Some(loss.key.name()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [b"m"]);
}

#[test]
fn limits_are_named_and_nothing_is_half_registered() {
    let mut a = Node::new(
        "a@h",
        Limits {
            entries_per_scope: 2,
            ..Limits::default()
        },
    );
    let long = |name: usize, pid: usize, meta: usize, scope: usize| Command::Register {
        scope: "s".repeat(scope),
        name: vec![1; name].into(),
        pid: vec![2; pid].into(),
        meta: vec![3; meta].into(),
        on_conflict: OnConflict::Notify,
        resolve: false,
        claimed: false,
    };
    for (command, part, bytes, limit) in [
        (long(0, 1, 0, 1), "name", 0, MAX_NAME_BYTES),
        (
            long(MAX_NAME_BYTES + 1, 1, 0, 1),
            "name",
            MAX_NAME_BYTES + 1,
            MAX_NAME_BYTES,
        ),
        (long(1, 0, 0, 1), "pid", 0, MAX_PID_BYTES),
        (
            long(1, MAX_PID_BYTES + 1, 0, 1),
            "pid",
            MAX_PID_BYTES + 1,
            MAX_PID_BYTES,
        ),
        (
            long(1, 1, MAX_META_BYTES + 1, 1),
            "metadata",
            MAX_META_BYTES + 1,
            MAX_META_BYTES,
        ),
        (long(1, 1, 0, 0), "scope", 0, MAX_SCOPE_BYTES),
        (
            long(1, 1, 0, MAX_SCOPE_BYTES + 1),
            "scope",
            MAX_SCOPE_BYTES + 1,
            MAX_SCOPE_BYTES,
        ),
    ] {
        let refusal = Refusal::Length { part, bytes, limit };
        assert_eq!(answers(&a.ask(command)), [&Answer::Refused(refusal)]);
    }
    a.register("n1", "p");
    a.ask(Command::Join {
        scope: "s".into(),
        group: b"g"[..].into(),
        pid: b"p"[..].into(),
        meta: b""[..].into(),
    });
    let full = Answer::Refused(Refusal::ScopeFull { limit: 2 });
    let out = a.register("n2", "p");
    assert_eq!(answers(&out), [&full]);
    assert_eq!(out.len(), 1, "nothing but the answer: {out:?}");
    assert_eq!(
        answers(&a.register("n1", "p")),
        [&Answer::Done],
        "what is there can be changed"
    );
    assert_eq!(a.registry.rows().count(), 2);
    a.registry.check();
}

#[test]
fn a_process_takes_all_it_has_with_it_a_bounded_number_at_a_time() {
    let limits = Limits {
        work_per_step: 10,
        ..Limits::default()
    };
    let mut a = Node::new("a@h", limits);
    for number in 0..25 {
        a.register(&format!("n{number}"), "p");
    }
    let mut out = Vec::new();
    a.registry.exited(a.now, &b"p"[..].into(), &mut out);
    assert_eq!(out.len(), 10);
    assert_eq!(a.registry.deadline(), Some(a.now));
    // A name that is not gone yet is free all the same.
    let (left, ..) = (0..25)
        .map(|number| format!("n{number}"))
        .filter(|name| a.pid(name).is_some())
        .collect::<Vec<_>>()
        .split_first()
        .map(|(first, _)| (first.clone(),))
        .unwrap();
    assert_eq!(answers(&a.register(&left, "next")), [&Answer::Done]);
    a.wake();
    a.wake();
    let rows: Vec<_> = a.registry.rows().map(|row| row.pid.to_vec()).collect();
    assert_eq!(rows, [b"next".to_vec()]);
    a.registry.check();
}

#[test]
fn an_earlier_registry_of_a_node_does_not_come_back() {
    let mut a = Node::new("a@h", Limits::default());
    a.up("b@h");
    let key = |name: &str| Key::name_in("s", name.as_bytes());
    let at = |epoch, creation, name: &str| Message::Operations {
        life: Life { creation, epoch },
        from: 0,
        head: 1,
        more: false,
        operations: vec![Operation::Put(key(name), item("p", 1))],
    };
    a.hear("b@h", &at(2, 1, "two"));
    assert_eq!(a.hear("b@h", &at(1, 1, "one")), [], "an earlier registry");
    assert_eq!(
        a.hear("b@h", &at(9, 7, "other")),
        [],
        "another life of the node"
    );
    assert!(a.pid("two").is_some() && a.pid("one").is_none());
    let out = a.hear("b@h", &at(3, 1, "three"));
    assert!(matches!(
        out[0],
        Output::Table(Change::Purged {
            departure: Departure::Restarted,
            ..
        })
    ));
    assert!(a.pid("two").is_none() && a.pid("three").is_some());
    a.hear("c@h", &at(1, 1, "stranger"));
    assert!(a.pid("stranger").is_none(), "c is not up");
}

#[test]
fn no_peer_can_bring_the_clock_to_its_end() {
    let mut a = Node::new("a@h", Limits::default());
    a.up("b@h");
    let put = Operation::Put(Key::name_in("s", b"n"), item("p", MAX_NUMBER));
    a.hear("b@h", &operations(0, 1, vec![put]));
    a.register("m", "q");
    let messages = sent(&a.wake());
    assert!(
        matches!(messages[..], [Message::Operations { .. }]),
        "what it sends can be read"
    );
}

/// A peer that has nothing gets a large table in bounded messages, at its own pace, and new operations pass in between.
#[test]
fn a_large_table_comes_in_chunks_and_live_operations_pass_it() {
    let limits = Limits {
        log: 100,
        ..Limits::default()
    };
    let (mut a, mut b) = (Node::new("a@h", limits.clone()), Node::new("b@h", limits));
    for number in 0..20_000 {
        a.register(&format!("a name of usual length {number}"), "p");
    }
    a.wake();
    let mut to_a: Vec<Output> = b.up("a@h");
    let mut to_b: Vec<Output> = a.up("b@h");
    let (mut rounds, mut seen, mut most) = (0, None, 0);
    while !(to_a.is_empty() && to_b.is_empty()) {
        rounds += 1;
        let mut in_flight = 0;
        for output in core::mem::take(&mut to_b) {
            if let Output::Send { bytes, .. } = output {
                assert!(bytes.len() <= 64 * 1024);
                in_flight += bytes.len();
                to_a.extend(b.receive("a@h", &bytes));
            }
        }
        most = most.max(in_flight);
        for output in core::mem::take(&mut to_a) {
            if let Output::Send { bytes, .. } = output {
                to_b.extend(a.receive("b@h", &bytes));
            }
        }
        if rounds == 4 {
            a.register("late", "p");
        }
        if seen.is_none() && b.pid("late").is_some() {
            seen = Some((rounds, b.registry.rows().count()));
        }
        to_b.extend(a.wake());
        to_a.extend(b.wake());
    }
    let (round, rows) = seen.expect("it arrived");
    assert!(
        round <= 6 && rows < 10_000,
        "seen in round {round}, after {rows} rows"
    );
    assert!(rounds < 40, "{rounds} round trips");
    assert!(most <= 200 * 1024, "{most} bytes at a time");
    assert_eq!(b.registry.rows().count(), 20_001);
    assert!(b.registry.is_quiet());
}

/// A peer that says anything that can be said, in any order: nothing panics, what is known stays consistent, and this
/// node's own names are lost only by conflicts that it tells.
#[test]
fn a_peer_that_says_anything_breaks_nothing() {
    for seed in 0..200 {
        let mut random = Random::from_seed(seed);
        let limits = Limits {
            log: [0, 4, 1000][random.below(3) as usize],
            work_per_step: 1 + random.below(5) as usize,
            ..Limits::default()
        };
        let mut a = Node::new("a@h", limits);
        let mut asks = vec![0];
        for _ in 0..600 {
            a.now = a.now + Duration::from_micros(random.below(400_000));
            let out = match random.below(12) {
                0 => a.up("b@h"),
                1 => {
                    let mut out = Vec::new();
                    let departure = [Departure::Down, Departure::Left][random.below(2) as usize];
                    a.registry.down(a.now, &name("b@h"), departure, &mut out);
                    out
                }
                2 => a.register(&format!("n{}", random.below(6)), "mine"),
                3 => a.wake(),
                _ => {
                    let message = anything(&mut random, &asks);
                    a.hear("b@h", &message)
                }
            };
            for message in sent(&out) {
                match message {
                    Message::Compare { ask, .. } | Message::Question { ask, .. } => asks.push(ask),
                    _ => {}
                }
            }
            if asks.len() > 8 {
                asks.remove(0);
            }
            for output in out {
                if let Output::Check { id, .. } = output {
                    a.registry
                        .checked(a.now, id, random.below(2) == 0, &mut Vec::new());
                }
            }
        }
        let mut out = Vec::new();
        a.registry
            .down(a.now, &name("b@h"), Departure::Left, &mut out);
        while a
            .registry
            .deadline()
            .is_some_and(|deadline| deadline <= a.now)
        {
            out.extend(a.wake());
        }
        a.registry.check();
        assert!(
            a.registry.rows().all(|row| row.node == name("a@h")),
            "seed {seed}"
        );
    }
}

fn anything(random: &mut Random, asks: &[u64]) -> Message {
    let number = |random: &mut Random| match random.below(5) {
        0 => MAX_NUMBER,
        1 => random.below(MAX_NUMBER),
        _ => random.below(12),
    };
    let key = |random: &mut Random| {
        let name = format!("n{}", random.below(6));
        match random.below(3) {
            0 => Key::member_of("s", name.as_bytes(), b"p"),
            _ => Key::name_in("s", name.as_bytes()),
        }
    };
    let any_item = |random: &mut Random, key: &Key, seq: u64| {
        let claimant = entry::Claimant {
            node: name(["a@h", "b@h"][random.below(2) as usize]),
            creation: 1,
            stamp: random.below(20),
        };
        let verdict = entry::Verdict {
            void: random.below(2) == 0,
            beaten: vec![claimant],
        };
        entry::Item {
            pid: key.member().unwrap_or(b"q").into(),
            seq,
            resolve: random.below(3) == 0,
            verdict: (random.below(4) == 0).then(|| alloc::boxed::Box::new(verdict)),
            ..item("q", number(random))
        }
    };
    let life = Life {
        creation: 1 + (random.below(20) / 19) as u32,
        epoch: 1 + random.below(40) / 39,
    };
    let mine = Life {
        creation: 1,
        epoch: 1,
    };
    let ask = asks[random.below(asks.len() as u64) as usize];
    match random.below(8) {
        0..=2 => {
            let from = number(random).min(MAX_NUMBER - 10);
            let operations: Vec<_> = (1..=random.below(4))
                .map(|next| match (key(random), random.below(3)) {
                    (key, 0) => Operation::Drop(key, Gone::Lost),
                    (key, _) => Operation::Put(key.clone(), any_item(random, &key, from + next)),
                })
                .collect();
            let head = number(random)
                .max(from + operations.len() as u64)
                .min(MAX_NUMBER);
            Message::Operations {
                life,
                from,
                head,
                more: random.below(2) == 0,
                operations,
            }
        }
        3 => Message::Behind {
            life,
            head: number(random),
        },
        4 => Message::Have {
            of: Some(mine).filter(|_| random.below(4) > 0),
            seq: number(random),
            digest: random.below(2),
            want: random.below(2) == 0,
        },
        5 => {
            let (low, high) = (random.bits(), random.bits());
            let whole = random.below(2) == 0;
            let span = if whole {
                (0, u64::MAX)
            } else {
                (low.min(high), low.max(high))
            };
            let range = message::Range {
                span,
                digest: random.below(3),
                empty: random.below(2) == 0,
            };
            Message::Compare {
                of: mine,
                ask,
                ranges: vec![range; random.below(5) as usize],
            }
        }
        6 => {
            let parts = (0..random.below(6)).map(|_| match random.below(4) {
                0 => message::Part::Same,
                1 => message::Part::Split,
                _ => {
                    let key = key(random);
                    let seq = number(random);
                    message::Part::Fill {
                        upto: [0, random.bits(), u64::MAX][random.below(3) as usize],
                        items: vec![(key.clone(), any_item(random, &key, seq))],
                    }
                }
            });
            let parts = parts.collect();
            Message::Compared {
                life,
                ask,
                at: number(random),
                parts,
            }
        }
        _ => match random.below(2) {
            0 => Message::Reply {
                ask,
                held: random.below(2) == 0,
            },
            _ => Message::Question {
                of: mine,
                ask,
                key: key(random),
                stamp: random.below(20),
            },
        },
    }
}
