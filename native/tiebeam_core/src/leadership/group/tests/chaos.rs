//! Random faults, random calls, and what must hold all the same.
//!
//! A run is decided by its seed, which is printed.
//!
//! Replay: `TIEBEAM_SEED=42 cargo test -p tiebeam_core group::tests::chaos::replay -- --ignored --nocapture`

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::leading::assert_one_leader;
use super::net::{Net, acquire, acquire_for, get, named, node, pid, put, release, wait_for};
use crate::event::CallId;
use crate::leadership::entry::{Index, Term};
use crate::leadership::group::{Answer, Command, Output, Read, Row};
use crate::time::{Duration, Instant};

const SEEDS: u64 = 60;

/// How long faults last.
const STORM: u64 = 20_000;

/// What was asked, and what is to be checked when it is answered.
enum Asked {
    Put {
        key: String,
        value: String,
    },
    /// A read of a key, of which this revision was acknowledged before.
    Get {
        least: Index,
    },
    Acquire {
        name: String,
        holder: String,
    },
    Other,
}

/// A claim, as far as its holder knows.
#[derive(Debug, Clone)]
struct Span {
    node: char,
    name: String,
    holder: String,
    token: Index,
    from: Instant,
    to: Option<Instant>,
}

struct Storm {
    seed: u64,
    net: Net,
    asked: BTreeMap<CallId, (char, Asked)>,
    answered: BTreeSet<CallId>,
    /// The greatest revision of each key that was acknowledged.
    acknowledged: BTreeMap<String, Index>,
    /// Values that were not written for certain.
    never: BTreeSet<String>,
    /// Which revision each value has, as anybody saw it.
    revisions: BTreeMap<String, Index>,
    spans: Vec<Span>,
    terms: BTreeMap<char, Term>,
    /// How much of what was seen is checked.
    checked: usize,
    down: BTreeSet<char>,
    count: u64,
}

const VOTERS: [char; 3] = ['a', 'b', 'c'];
const ALL: [char; 4] = ['a', 'b', 'c', 'd'];

impl Storm {
    fn new(seed: u64) -> Self {
        let mut net = Net::new(seed);
        // One voter and the learner keep nothing.
        net.diskless.extend(['c', 'd']);
        net.loss = net.random.below(150);
        net.delay = Duration::from_millis(1 + net.random.below(15));
        for name in ['a', 'b'] {
            let millis = net.random.below(15);
            net.slow.insert(name, Duration::from_millis(millis));
        }
        for name in ALL {
            net.start(name, named("abc"));
        }
        Self {
            seed,
            net,
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            never: BTreeSet::new(),
            revisions: BTreeMap::new(),
            spans: Vec::new(),
            terms: BTreeMap::new(),
            checked: 0,
            down: BTreeSet::new(),
            count: 0,
        }
    }

    fn one_of(&mut self, names: &[char]) -> char {
        names[self.net.random.below(names.len() as u64) as usize]
    }

    fn call(&mut self) {
        let names: Vec<char> = self.net.names();
        if names.is_empty() {
            return;
        }
        let name = self.one_of(&names);
        self.count += 1;
        let unique = format!("{name}{}", self.count);
        let key = format!("k{}", self.net.random.below(3));
        let lock = format!("l{}", self.net.random.below(2));
        let (command, asked) = match self.net.random.below(9) {
            0..=2 => {
                let asked = Asked::Put {
                    key: key.clone(),
                    value: unique.clone(),
                };
                (put(&key, &unique), asked)
            }
            3 => {
                let least = self.acknowledged.get(&key).copied().unwrap_or(0);
                (get(&key, Read::Linear), Asked::Get { least })
            }
            4 => {
                let least = self.acknowledged.get(&key).copied().unwrap_or(0);
                (get(&key, Read::AtLeast(least)), Asked::Get { least })
            }
            5 => {
                let asked = Asked::Acquire {
                    name: lock.clone(),
                    holder: unique.clone(),
                };
                (wait_for(&lock, &unique), asked)
            }
            6 => {
                let asked = Asked::Acquire {
                    name: lock.clone(),
                    holder: unique.clone(),
                };
                (
                    acquire_for(&lock, &unique, 600 + self.net.random.below(2000)),
                    asked,
                )
            }
            7 => {
                let asked = Asked::Acquire {
                    name: lock.clone(),
                    holder: unique.clone(),
                };
                (acquire(&lock, &unique), asked)
            }
            _ => (Command::StepDown { to: None }, Asked::Other),
        };
        let millis = 200 + self.net.random.below(3_000);
        // The answer may come within the call.
        let next = self.net.next_call();
        self.asked.insert(next, (name, asked));
        let call = self
            .net
            .ask_for(name, command, Duration::from_millis(millis));
        assert_eq!(next, call);
    }

    /// Somebody who holds something gives it back, or ends.
    fn give_back(&mut self) {
        let open: Vec<usize> = (0..self.spans.len())
            .filter(|&n| self.spans[n].to.is_none())
            .collect();
        if open.is_empty() {
            return;
        }
        let n = open[self.net.random.below(open.len() as u64) as usize];
        let span = self.spans[n].clone();
        self.spans[n].to = Some(self.net.now);
        if self.net.random.below(2) == 0 {
            let next = self.net.next_call();
            self.asked.insert(next, (span.node, Asked::Other));
            self.net.ask_for(
                span.node,
                release(&span.name, span.token),
                Duration::from_secs(2),
            );
        } else {
            self.net.on(span.node, |group, now| {
                group.exited(now, &pid(&span.holder))
            });
        }
    }

    fn fault(&mut self) {
        match self.net.random.below(8) {
            0 | 1 => {
                let (a, b) = (self.one_of(&ALL), self.one_of(&ALL));
                if a != b {
                    self.net.part(a, b);
                }
            }
            2 => {
                // One way only, and nobody notices.
                let (a, b) = (self.one_of(&ALL), self.one_of(&ALL));
                self.net.cut.insert((a, b));
            }
            3 => {
                let name = self.one_of(&ALL);
                self.net.isolate(name);
            }
            4 | 5 => self.net.heal(),
            6 => {
                let name = self.one_of(&ALL);
                if self.down.insert(name) {
                    self.check();
                    self.net.crash(name);
                    let now = self.net.now;
                    self.net.ends.push((now, name));
                    for span in self.spans.iter_mut().filter(|span| span.node == name) {
                        span.to.get_or_insert(now);
                    }
                    self.terms.remove(&name);
                    self.asked
                        .retain(|call, (asker, _)| *asker != name || self.answered.contains(call));
                }
            }
            _ => {
                if let Some(name) = self.down.pop_first() {
                    self.net.restart(name);
                }
            }
        }
    }

    /// Looks at what happened since.
    fn check(&mut self) {
        let seed = self.seed;
        let seen: Vec<(Instant, char, Output)> = self.net.seen[self.checked..].to_vec();
        self.checked = self.net.seen.len();
        for (at, name, output) in seen {
            match output {
                Output::Answer { call, answer } => {
                    assert!(
                        self.answered.insert(call),
                        "seed {seed}: {call:?} is answered twice"
                    );
                    if let Some((asker, asked)) = self.asked.remove(&call) {
                        assert_eq!(asker, name);
                        self.on_answer(at, name, asked, answer);
                    }
                }
                Output::Lost(lost) => {
                    let holder = String::from_utf8(lost.pid.to_vec()).unwrap();
                    let span = self
                        .spans
                        .iter_mut()
                        .find(|span| span.token == lost.token && span.node == name);
                    let span =
                        span.unwrap_or_else(|| panic!("seed {seed}: {lost:?} was never granted"));
                    assert_eq!(span.holder, holder, "seed {seed}");
                    span.to.get_or_insert(at);
                }
                Output::Row(Row::Put { stored, .. }) => {
                    let value = String::from_utf8(stored.value.to_vec()).unwrap();
                    assert!(
                        !self.never.contains(&value),
                        "seed {seed}: {value} was done after all"
                    );
                    let known = *self
                        .revisions
                        .entry(value.clone())
                        .or_insert(stored.revision);
                    assert_eq!(
                        known, stored.revision,
                        "seed {seed}: {value} was done twice (P10)"
                    );
                }
                Output::Led(led) => {
                    let before = self.terms.insert(name, led.term).unwrap_or(0);
                    assert!(
                        before <= led.term,
                        "seed {seed}: terms go back on {name} (P16)"
                    );
                }
                Output::Stopped(why) => panic!("seed {seed}: {name} stopped: {why}"),
                _ => {}
            }
        }
    }

    fn on_answer(&mut self, at: Instant, name: char, asked: Asked, answer: Answer) {
        let seed = self.seed;
        match (asked, answer) {
            (Asked::Put { key, value }, Answer::Done(revision)) => {
                let known = *self.revisions.entry(value.clone()).or_insert(revision);
                assert_eq!(known, revision, "seed {seed}: {value} was done twice (P10)");
                let latest = self.acknowledged.entry(key).or_default();
                *latest = (*latest).max(revision);
            }
            (Asked::Put { value, .. }, Answer::NoLeader) => {
                assert!(
                    !self.revisions.contains_key(&value),
                    "seed {seed}: {value} was done after all"
                );
                self.never.insert(value);
            }
            (Asked::Get { least }, Answer::Value(stored)) => {
                let revision = stored.map_or(0, |stored| stored.revision);
                assert!(
                    revision >= least,
                    "seed {seed}: read {revision}, {least} was acknowledged (P9, P11)"
                );
            }
            (Asked::Acquire { name: lock, holder }, Answer::Done(token)) => self.spans.push(Span {
                node: name,
                name: lock,
                holder,
                token,
                from: at,
                to: None,
            }),
            (
                _,
                Answer::Unknown
                | Answer::NoLeader
                | Answer::Held { .. }
                | Answer::Done(_)
                | Answer::NotHeld
                | Answer::Refused(_),
            ) => {}
            (_, other) => panic!("seed {seed}: {other:?} is no answer to that"),
        }
    }

    fn run(mut self) {
        std::println!("TIEBEAM_SEED={}", self.seed);
        let end = self.net.now + Duration::from_millis(STORM);
        // In some runs a fault lasts for a few elections, in others for longer than a session.
        let calm = 10 + self.net.random.below(150);
        while self.net.now < end {
            let pause = 1 + self.net.random.below(60);
            self.net.pass(pause);
            self.check();
            if self.net.random.below(calm) == 0 {
                self.fault();
            }
            match self.net.random.below(10) {
                0 => self.give_back(),
                _ => self.call(),
            }
        }
        self.net.heal();
        self.net.loss = 0;
        while let Some(name) = self.down.pop_first() {
            self.net.restart(name);
        }
        self.net.pass(20_000);
        self.check();
        self.at_rest();
    }

    /// Afterwards everything is as it should be.
    fn at_rest(mut self) {
        let seed = self.seed;
        let open = self.asked.keys().next();
        assert_eq!(open, None, "seed {seed}: a call is not answered");
        assert_one_leader(&self.net);
        for (n, a) in self.spans.iter().enumerate() {
            for b in self.spans[n + 1..].iter().filter(|b| b.name == a.name) {
                let apart =
                    a.to.is_some_and(|to| to <= b.from) || b.to.is_some_and(|to| to <= a.from);
                assert!(apart, "seed {seed}: both hold it (P13): {a:?} and {b:?}");
                assert_eq!(
                    a.from < b.from,
                    a.token < b.token,
                    "seed {seed}: tokens go back (P12): {a:?} {b:?}"
                );
            }
        }
        for name in VOTERS {
            let next = self.net.next_call();
            self.asked.insert(next, (name, Asked::Other));
            let answer = self.net.call(name, put("last", &name.to_string()));
            assert!(matches!(answer, Answer::Done(_)), "seed {seed}: {answer:?}");
        }
        self.net.until("all have the same (P17)", |net| {
            let machine = &net.group('a').machine;
            ALL.iter()
                .all(|name| net.group(*name).machine == *machine)
                .then_some(())
        });
        for (_, name, claim) in self.net.group('a').machine.claims().iter() {
            // A release that was not heard in time may leave it held: the caller was told.
            let granted = self.spans.iter().any(|span| span.token == claim.token);
            assert!(
                granted,
                "seed {seed}: nobody was told of {name:?} {claim:?}"
            );
        }
        let members = self.net.group('a').engine.as_ref().unwrap().configuration();
        assert_eq!(members.voters().count(), 3, "seed {seed}");
        for name in VOTERS {
            let member = self.net.group(name).member;
            assert!(
                members.votes(member) && members.node(member) == Some(&node(name)),
                "seed {seed}: {name} does not vote"
            );
        }
        assert!(
            self.acknowledged.values().sum::<u64>() > 0,
            "seed {seed}: nothing was done at all"
        );
    }
}

#[test]
fn whatever_happens_the_promises_hold() {
    (0..SEEDS).for_each(|seed| Storm::new(seed).run());
}

#[test]
#[ignore = "replays the seed in TIEBEAM_SEED"]
#[allow(
    clippy::disallowed_methods,
    reason = "the seed comes from whoever replays"
)]
fn replay() {
    let seed = std::env::var("TIEBEAM_SEED").expect("TIEBEAM_SEED is set");
    let seed = seed.parse().expect("TIEBEAM_SEED is a number");
    Storm::new(seed).run();
}
