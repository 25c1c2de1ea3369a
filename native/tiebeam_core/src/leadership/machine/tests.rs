//! A table of commands in, replies and changes out.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::string::String;

use super::*;
use crate::random::Random;

/// A machine, and the clients' part of it.
struct Bench {
    machine: Machine,
    index: Index,
    number: u64,
    now: Instant,
    changes: Vec<Change>,
}

const TTL: Duration = Duration::from_secs(10);

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(),
            index: 0,
            number: 0,
            now: Instant::from_millis(1000),
            changes: Vec::new(),
        }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.index += 1;
        self.changes.clear();
        self.machine
            .apply(self.index, &command.encode().unwrap(), &mut self.changes)
    }

    fn command(&mut self, session: SessionId, operation: Operation) -> Command {
        self.number += 1;
        Command {
            session,
            number: self.number,
            known: 0,
            time: self.now,
            operation,
        }
    }

    fn run(&mut self, session: SessionId, operation: Operation) -> Reply {
        let command = self.command(session, operation);
        self.apply(&command)
    }

    fn open(&mut self) -> SessionId {
        match self.run(SessionId(0), Operation::Open { ttl: TTL }) {
            Reply::Done(index) => SessionId(index),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }
}

fn put(key: &str, value: &str, expect: Expect) -> Operation {
    Operation::Put {
        key: key.into(),
        value: Arc::from(value.as_bytes()),
        expect,
    }
}

fn acquire(kind: Kind, name: &str, ttl: Option<u64>) -> Operation {
    let ttl = ttl.map(Duration::from_millis);
    Operation::Acquire {
        kind,
        name: name.into(),
        value: Arc::from(*b"pid"),
        ttl,
    }
}

#[test]
fn a_value_has_the_revision_of_its_entry() {
    let mut bench = Bench::new();
    let session = bench.open();
    assert_eq!(
        bench.run(session, put("a", "1", Expect::Anything)),
        Reply::Done(2)
    );
    assert_eq!(
        bench.changes,
        [Change::Put {
            key: vec![b'a'],
            revision: 2
        }]
    );
    let differs = Reply::Differs { revision: 2 };
    assert_eq!(
        bench.run(session, put("a", "2", Expect::Revision(0))),
        differs
    );
    assert_eq!(
        bench.run(session, put("a", "2", Expect::Value(Arc::from(*b"x")))),
        differs
    );
    assert_eq!(bench.changes, []);
    assert_eq!(
        bench.run(session, put("a", "2", Expect::Value(Arc::from(*b"1")))),
        Reply::Done(5)
    );
    let delete = |expect| Operation::Delete {
        key: vec![b'a'],
        expect,
    };
    assert_eq!(
        bench.run(session, delete(Expect::Revision(2))),
        Reply::Differs { revision: 5 }
    );
    assert_eq!(
        bench.run(session, delete(Expect::Revision(5))),
        Reply::Done(7)
    );
    assert_eq!(
        bench.changes,
        [Change::Deleted {
            key: vec![b'a'],
            revision: 7
        }]
    );
    assert_eq!(
        (
            bench.machine.store().get(b"a"),
            bench.machine.store().bytes()
        ),
        (None, 0)
    );
    assert_eq!(
        bench.run(session, put("a", "3", Expect::Revision(0))),
        Reply::Done(8)
    );
}

#[test]
fn keys_are_listed_by_their_beginning() {
    let mut bench = Bench::new();
    let session = bench.open();
    for key in ["b", "a/2", "a/1", "a", "a/3"] {
        bench.run(session, put(key, key, Expect::Anything));
    }
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let store = bench.machine.store();
    let listed: Vec<String> = store.list(b"a/").map(|(key, _)| text(key)).collect();
    assert_eq!(listed, ["a/1", "a/2", "a/3"]);
    let rest: Vec<String> = store
        .list_after(b"a/", b"a/1")
        .map(|(key, _)| text(key))
        .collect();
    assert_eq!(rest, ["a/2", "a/3"]);
    assert_eq!(store.list_after(b"a/", b"").count(), 3);
}

#[test]
fn a_repeated_command_is_answered_and_not_done() {
    let mut bench = Bench::new();
    let session = bench.open();
    let first = bench.command(session, put("a", "1", Expect::Anything));
    assert_eq!(bench.apply(&first), Reply::Done(2));
    bench.run(session, put("a", "2", Expect::Anything));
    assert_eq!(
        bench.apply(&first),
        Reply::Done(2),
        "the answer of the first time"
    );
    assert_eq!(bench.machine.store().get(b"a").unwrap().revision, 3);
    let mut next = bench.command(session, put("b", "1", Expect::Anything));
    next.known = first.number + 1;
    bench.apply(&next);
    assert_eq!(
        bench.apply(&first),
        Reply::Stale,
        "the client has that answer"
    );
}

#[test]
fn requests_under_way_are_bounded() {
    let mut bench = Bench::new();
    let session = bench.open();
    for _ in 0..MAX_OUTSTANDING {
        assert!(matches!(
            bench.run(session, Operation::KeepAlive),
            Reply::Done(_)
        ));
    }
    assert_eq!(
        bench.run(session, Operation::KeepAlive),
        Reply::Full(Limit::Outstanding)
    );
    let mut command = bench.command(session, Operation::KeepAlive);
    command.known = command.number;
    assert!(matches!(bench.apply(&command), Reply::Done(_)));
}

#[test]
fn a_lock_is_held_by_one_under_growing_tokens() {
    let mut bench = Bench::new();
    let (a, b) = (bench.open(), bench.open());
    let Reply::Done(first) = bench.run(a, acquire(Kind::Lock, "x", Some(5000))) else {
        panic!("it was free");
    };
    let held = Reply::Held {
        by: a,
        token: first,
    };
    assert_eq!(bench.run(b, acquire(Kind::Lock, "x", Some(5000))), held);
    assert!(matches!(
        bench.run(b, acquire(Kind::Name, "x", None)),
        Reply::Done(_)
    ));
    let release = |token| Operation::Release {
        kind: Kind::Lock,
        name: vec![b'x'],
        token,
    };
    assert_eq!(bench.run(b, release(first)), Reply::NotHeld, "not its own");
    assert_eq!(
        bench.run(a, release(first + 1)),
        Reply::NotHeld,
        "not its token"
    );
    assert_eq!(bench.run(a, release(first)), Reply::Done(first));
    let Reply::Done(second) = bench.run(b, acquire(Kind::Lock, "x", Some(5000))) else {
        panic!("it is free");
    };
    assert!(second > first);
    assert_eq!(
        bench.run(a, release(first)),
        Reply::NotHeld,
        "it is another's now"
    );
}

#[test]
fn a_lock_ends_with_its_time_at_the_same_entry_for_all() {
    let mut bench = Bench::new();
    let (a, b) = (bench.open(), bench.open());
    let Reply::Done(token) = bench.run(a, acquire(Kind::Lock, "x", Some(5000))) else {
        panic!("it was free");
    };
    assert_eq!(
        bench.machine.deadline(),
        Some(bench.now + Duration::from_secs(5))
    );
    bench.pass(4000);
    let ttl = Duration::from_secs(5);
    let renew = Operation::Renew {
        kind: Kind::Lock,
        name: vec![b'x'],
        token,
        ttl,
    };
    assert_eq!(bench.run(a, renew.clone()), Reply::Done(token));
    bench.pass(4999);
    bench.run(b, Operation::KeepAlive);
    assert!(bench.machine.claims().get(Kind::Lock, b"x").is_some());
    bench.pass(1);
    bench.run(b, Operation::Tick);
    assert!(matches!(
        &bench.changes[..],
        [Change::Freed {
            kind: Kind::Lock,
            ..
        }]
    ));
    assert_eq!(bench.run(a, renew), Reply::NotHeld);
    assert!(bench.machine.sessions().contains(a), "the session lives on");
}

#[test]
fn what_a_session_holds_ends_with_it() {
    let mut bench = Bench::new();
    let (a, b) = (bench.open(), bench.open());
    bench.run(a, acquire(Kind::Singleton, "db", None));
    bench.run(a, acquire(Kind::Name, "cache", None));
    bench.run(b, acquire(Kind::Lock, "x", Some(60_000)));
    bench.pass(9999);
    bench.run(b, Operation::KeepAlive);
    bench.pass(1);
    bench.run(b, Operation::Tick);
    assert_eq!(bench.changes.len(), 3);
    assert_eq!(bench.changes[2], Change::Ended { session: a });
    assert_eq!(bench.run(a, Operation::KeepAlive), Reply::NoSession);
    assert!(matches!(bench.run(b, Operation::Close), Reply::Done(_)));
    assert_eq!(bench.machine.claims().iter().count(), 0);
    assert_eq!(
        (bench.machine.deadline(), bench.machine.sessions().count()),
        (None, 0)
    );
}

#[test]
fn time_never_goes_back() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.pass(5000);
    bench.run(session, Operation::KeepAlive);
    let late = bench.machine.time();
    bench.now = Instant::ZERO;
    bench.run(session, Operation::KeepAlive);
    assert_eq!(bench.machine.time(), late);
}

#[test]
fn a_new_leader_counts_on_from_the_time_of_the_machine() {
    let stamp = Stamp::new(Instant::from_millis(7000), Instant::from_millis(100));
    assert_eq!(
        stamp.at(Instant::from_millis(100)),
        Instant::from_millis(7000)
    );
    assert_eq!(
        stamp.at(Instant::from_millis(350)),
        Instant::from_millis(7250)
    );
    assert_eq!(
        stamp.due(Instant::from_millis(7250)),
        Instant::from_millis(350)
    );
    assert_eq!(
        stamp.due(Instant::from_millis(6000)),
        Instant::from_millis(100)
    );
}

#[test]
fn watches_hear_of_their_prefix_alone() {
    let mut watches = Watches::default();
    assert!(watches.insert(WatchId(1), b"a/".to_vec()));
    assert!(watches.insert(WatchId(2), Vec::new()));
    let change = |key: &str| Change::Put {
        key: key.into(),
        revision: 1,
    };
    let heard = |watches: &Watches, change: &Change| watches.of(change).collect::<Vec<_>>();
    assert_eq!(heard(&watches, &change("a/1")), [WatchId(1), WatchId(2)]);
    assert_eq!(heard(&watches, &change("b")), [WatchId(2)]);
    assert_eq!(
        heard(
            &watches,
            &Change::Ended {
                session: SessionId(1)
            }
        ),
        []
    );
    watches.remove(WatchId(2));
    for id in 2..MAX_WATCHES as u64 + 1 {
        assert!(watches.insert(WatchId(id), Vec::new()));
    }
    assert!(!watches.insert(WatchId(9999), Vec::new()) && watches.insert(WatchId(1), Vec::new()));
}

#[test]
fn what_is_too_long_is_refused_before_it_is_proposed() {
    let mut bench = Bench::new();
    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    let command = bench.command(SessionId(1), put("a", &long, Expect::Anything));
    let (bytes, limit) = (MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES);
    assert_eq!(
        command.encode(),
        Err(CommandError::TooLong {
            part: "value",
            bytes,
            limit
        })
    );
    let command = bench.command(SessionId(1), put(&"x".repeat(1025), "", Expect::Anything));
    let error = CommandError::TooLong {
        part: "key",
        bytes: 1025,
        limit: 1024,
    };
    assert_eq!(command.encode(), Err(error));
    let longest = put(
        "a",
        &long[1..],
        Expect::Value(Arc::from(&long.as_bytes()[1..])),
    );
    let encoded = bench.command(SessionId(1), longest).encode().unwrap();
    assert!(encoded.len() <= crate::leadership::MAX_COMMAND_BYTES);
}

#[test]
fn a_full_store_refuses_and_a_replacement_counts_once() {
    let mut bench = Bench::new();
    let session = bench.open();
    let value = "x".repeat(MAX_VALUE_BYTES);
    let mut command = bench.command(session, Operation::Tick);
    for key in 0..MAX_STORE_BYTES / MAX_VALUE_BYTES + 1 {
        command = bench.command(
            session,
            put(&std::format!("{key}"), &value, Expect::Anything),
        );
        command.known = command.number;
        let fits = bench.machine.store().bytes() + MAX_VALUE_BYTES + 80 < MAX_STORE_BYTES;
        assert_eq!(matches!(bench.apply(&command), Reply::Done(_)), fits);
    }
    let full = bench.machine.store().bytes();
    assert_eq!(
        bench.apply(&command),
        Reply::Full(Limit::Store),
        "also when it is repeated"
    );
    assert!(matches!(
        bench.run(session, put("0", &value, Expect::Anything)),
        Reply::Done(_)
    ));
    assert_eq!(bench.machine.store().bytes(), full);
}

/// Commands are bytes in a log: whatever they are, all members must come out the same, and none may panic.
#[test]
fn any_bytes_are_applied_the_same_everywhere() {
    let mut random = Random::from_seed(3);
    let mut bench = Bench::new();
    let mut twin = Machine::new();
    let mut session = bench.open();
    let opened = Command {
        session: SessionId(0),
        number: 1,
        known: 0,
        time: Instant::from_millis(1000),
        operation: Operation::Open { ttl: TTL },
    };
    twin.apply(1, &opened.encode().unwrap(), &mut Vec::new());
    for index in 2..20_000 {
        bench.pass(random.below(2000));
        let name = ["a", "b", "c"][random.below(3) as usize];
        let token = index - random.below(20).min(index);
        let kind = [Kind::Lock, Kind::Singleton, Kind::Name][random.below(3) as usize];
        let ttl = Duration::from_millis(random.below(20_000));
        let operation = match random.below(11) {
            0 => Operation::Tick,
            1 => Operation::Open { ttl },
            2 => Operation::KeepAlive,
            3 if random.below(20) == 0 => Operation::Close,
            4 => put(name, "v", Expect::Revision(token)),
            5 => put(name, "w", Expect::Anything),
            6 => Operation::Delete {
                key: name.into(),
                expect: Expect::Value(Arc::from(*b"v")),
            },
            7 => Operation::Renew {
                kind,
                name: name.into(),
                token,
                ttl,
            },
            8 => Operation::Release {
                kind,
                name: name.into(),
                token,
            },
            9 => Operation::Update {
                kind,
                name: name.into(),
                token,
                value: Arc::from(vec![7; random.below(20) as usize]),
            },
            _ => acquire(kind, name, (random.below(2) == 0).then_some(3000)),
        };
        let mut command = bench.command(session, operation);
        command.known = command.number.saturating_sub(random.below(5));
        let mut bytes = command.encode().unwrap();
        if random.below(4) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            // The time is left alone: a day of it would end everything.
            if !(26..34).contains(&at) {
                bytes[at] = random.bits() as u8;
            }
        }
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let reply = bench.machine.apply(index, &bytes, &mut here);
        assert_eq!(
            (reply, here),
            (twin.apply(index, &bytes, &mut there), there)
        );
        if let (
            Reply::Done(at),
            Ok(Command {
                operation: Operation::Open { .. },
                ..
            }),
        ) = (reply, Command::decode(&bytes))
        {
            session = SessionId(at);
        }
        if let Ok(read) = Command::decode(&bytes) {
            assert_eq!(read.encode().unwrap(), bytes);
        }
    }
    assert_eq!(bench.machine, twin);
    assert!(bench.machine.sessions().count() > 0 && bench.machine.claims().iter().count() > 0);
}

/// A machine after some commands of all kinds.
fn lived(seed: u64) -> Bench {
    let (mut random, mut bench) = (Random::from_seed(seed), Bench::new());
    let mut sessions: Vec<SessionId> = (0..3).map(|_| bench.open()).collect();
    for _ in 0..200 {
        bench.now = bench.now + Duration::from_millis(random.below(400));
        let session = sessions[random.below(sessions.len() as u64) as usize];
        let name = vec![b'a' + random.below(8) as u8];
        let operation = match random.below(6) {
            0 => Operation::KeepAlive,
            1 | 2 => Operation::Put {
                key: name,
                value: Arc::from(vec![7; random.below(20) as usize]),
                expect: Expect::Anything,
            },
            3 => Operation::Delete {
                key: name,
                expect: Expect::Anything,
            },
            4 => Operation::Acquire {
                kind: [Kind::Lock, Kind::Singleton, Kind::Name][random.below(3) as usize],
                name,
                value: Arc::from(&b"p"[..]),
                ttl: (random.below(2) == 0).then_some(Duration::from_secs(1)),
            },
            _ => Operation::Release {
                kind: Kind::Lock,
                name,
                token: random.below(bench.index),
            },
        };
        if bench.run(session, operation) == Reply::NoSession {
            sessions.push(bench.open());
        }
    }
    bench
}

#[test]
fn a_machine_in_bytes_is_the_same_machine() {
    for seed in 0..50 {
        let mut bench = lived(seed);
        let bytes = bench.machine.encode();
        let mut again = Machine::decode(&bytes).unwrap();
        assert_eq!(again, bench.machine, "seed {seed}");
        assert_eq!(again.encode(), bytes);
        // It goes on in the same way: what is due, and what is a repetition.
        bench.now = bench.now + Duration::from_secs(3);
        let tick = bench.command(SessionId(0), Operation::Tick);
        let mut changes = Vec::new();
        let reply = again.apply(bench.index + 1, &tick.encode().unwrap(), &mut changes);
        assert_eq!(bench.apply(&tick), reply, "seed {seed}");
        assert_eq!(bench.changes, changes);
        assert_eq!(again, bench.machine);
    }
}

#[test]
fn bytes_that_are_no_machine_are_refused() {
    let bytes = lived(7).machine.encode();
    for end in 0..bytes.len() {
        assert!(Machine::decode(&bytes[..end]).is_err(), "{end}");
    }
    assert!(Machine::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut random = Random::from_seed(7);
    for _ in 0..2000 {
        let mut broken = bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        broken[at] = random.bits() as u8;
        // Whatever is read is a machine that can be written.
        if let Ok(machine) = Machine::decode(&broken) {
            assert_eq!(Machine::decode(&machine.encode()), Ok(machine));
        }
    }
}
