//! Every order of events, within bounds, of three members of a group: the engine itself, not a model of it.
//!
//! An event is that a message arrives, a write is done, a member's clock passes every timeout that it has, a member crashes and is
//! back, the leader is asked for an entry, or for other members. A message that is lost is one that never arrives, so that all losses
//! are among the orders that are seen. What is bounded is how often clocks run, crashes, entries and changes happen, and how many events
//! there are at all.
//!
//! `cargo test --release -p tiebeam_sim --test leadership_exhaustive -- --ignored --nocapture` looks further.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use stateright::{Checker, Model, Property};
use tiebeam_core::leadership::{
    Configuration, Consensus, Effect, Entry, Index, MemberId, Replica, RequestId, Restored, Role,
    Settings, Term, Write,
};
use tiebeam_core::{Duration, Instant};

/// Longer than every timeout.
const LONG: Duration = Duration::from_secs(1);

/// What may happen to a group, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bounds {
    /// Clocks that run out.
    timeouts: u8,
    proposals: u8,
    crashes: u8,
    changes: u8,
    /// Writes are events of their own; otherwise they are done at once.
    writes: bool,
}

/// Three members, and where they begin.
#[derive(Debug, Clone)]
struct Group {
    bounds: Bounds,
    /// Member 1 leads already, and all have its first entry.
    led: bool,
    founding: Configuration,
    /// What the leader may be asked to change to.
    targets: Vec<Configuration>,
}

#[derive(Debug, Clone)]
struct Member {
    engine: Replica,
    now: Instant,
    disk: Restored,
    writes: VecDeque<Write>,
    /// The log, with what is being written.
    log: Vec<Entry>,
    /// The engine in one number.
    digest: u64,
}

#[derive(Debug, Clone)]
struct State {
    members: Vec<Arc<Member>>,
    /// Messages under way: for whom, and what.
    flying: BTreeSet<(MemberId, Vec<u8>)>,
    left: Bounds,
    leaders: BTreeMap<Term, MemberId>,
    /// Who applied it first, in which term, and what.
    committed: BTreeMap<Index, (Term, Entry)>,
    broken: Option<&'static str>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for member in &self.members {
            member.digest.hash(state);
        }
        (&self.flying, self.left, &self.leaders, self.broken).hash(state);
        for (index, (by, entry)) in &self.committed {
            (index, by, entry.term).hash(state);
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let number = |state: &Self| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        number(self) == number(other)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The message at this place.
    Arrives(usize),
    Written(usize),
    TimesOut(usize),
    Crashes(usize),
    Proposes(usize),
    /// To the target at this place.
    Changes(usize, usize),
}

impl Member {
    fn start(number: usize, now: Instant, founding: &Configuration, disk: Restored) -> Self {
        let id = MemberId(number as u64 + 1);
        let settings = Settings::lan(id, 7, 1);
        let engine = Replica::new(now, settings, founding.clone(), disk.clone()).unwrap();
        Self {
            engine,
            now,
            log: disk.entries.clone(),
            disk,
            writes: VecDeque::new(),
            digest: 0,
        }
    }

    /// Everything that decides what it will do: all of the engine but chance, and when the next election is, for whenever that is,
    /// a clock that runs out has passed it.
    fn digest(&self) -> u64 {
        let text = format!("{:?}", self.engine);
        let mut hasher = DefaultHasher::new();
        let mut rest = text.as_str();
        for field in ["random: ", "election_at: "] {
            let (before, from) = rest.split_once(field).expect("the engine has that field");
            let end = from.find(", ").expect("and others behind it");
            before.hash(&mut hasher);
            rest = &from[end..];
        }
        rest.hash(&mut hasher);
        format!("{:?}{:?}", self.disk, self.writes).hash(&mut hasher);
        hasher.finish()
    }
}

impl State {
    fn tell(&mut self, at: usize, group: &Group, what: impl FnOnce(&mut Replica, Instant)) {
        let mut member = (*self.members[at]).clone();
        what(&mut member.engine, member.now);
        while let Some(effect) = member.engine.poll() {
            match effect {
                Effect::Send { to, bytes } => {
                    self.flying.insert((to, bytes));
                }
                Effect::Persist(write) => {
                    if let Some(first) = write.entries.first() {
                        member.log.truncate(first.index as usize - 1);
                    }
                    member.log.extend(write.entries.iter().cloned());
                    member.writes.push_back(write);
                    if !group.bounds.writes {
                        Self::written(&mut member);
                    }
                }
                Effect::Apply { entry, .. } => {
                    let by = member.engine.status().term;
                    let known = self.committed.entry(entry.index);
                    let (_, known) = known.or_insert_with(|| (by, entry.clone()));
                    if *known != entry {
                        self.broken = Some("state-machine safety");
                    }
                }
                Effect::Stopped(_) => self.broken = Some("nobody stops"),
                _ => {}
            }
        }
        let status = member.engine.status();
        if status.role == Role::Leader {
            let me = MemberId(at as u64 + 1);
            let before = self.leaders.insert(status.term, me);
            if before.is_some_and(|before| before != me) {
                self.broken = Some("election safety");
            }
            let complete = self.committed.iter().all(|(&index, (by, entry))| {
                *by >= status.term || member.log.get(index as usize - 1) == Some(entry)
            });
            if !complete {
                self.broken = Some("leader completeness");
            }
        }
        member.digest = member.digest();
        self.members[at] = Arc::new(member);
        if !self.logs_match() {
            self.broken = Some("log matching");
        }
    }

    fn written(member: &mut Member) {
        let Some(write) = member.writes.pop_front() else {
            return;
        };
        let disk = &mut member.disk;
        disk.hard = write.hard.unwrap_or(disk.hard);
        if let Some(first) = write.entries.first() {
            disk.entries.truncate(first.index as usize - 1);
        }
        disk.entries.extend(write.entries);
        member.engine.persisted(member.now, write.token);
    }

    /// Two logs that have the same entry have the same ones before it.
    fn logs_match(&self) -> bool {
        let logs: Vec<&[Entry]> = self.members.iter().map(|member| &*member.log).collect();
        (0..logs.len()).all(|a| {
            (0..a).all(|b| {
                let (a, b) = (logs[a], logs[b]);
                let both = a.iter().zip(b).rposition(|(a, b)| a.term == b.term);
                both.is_none_or(|last| a[..=last] == b[..=last])
            })
        })
    }

    fn leads(&self, at: usize) -> bool {
        self.members[at].engine.status().role == Role::Leader
    }
}

impl Model for Group {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let now = Instant::from_millis(1000);
        let start = |at| {
            let mut member = Member::start(at, now, &self.founding, Restored::default());
            member.digest = member.digest();
            Arc::new(member)
        };
        let mut state = State {
            members: (0..3).map(start).collect(),
            flying: BTreeSet::new(),
            left: self.bounds,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            broken: None,
        };
        if self.led {
            state.left.timeouts += 1;
            state = self.next_state(&state, Event::TimesOut(0)).unwrap();
            loop {
                let mut events = Vec::new();
                self.actions(&state, &mut events);
                let quiet = |event: &Event| matches!(event, Event::Arrives(_) | Event::Written(_));
                let Some(event) = events.into_iter().find(quiet) else {
                    break;
                };
                state = self.next_state(&state, event).unwrap();
            }
            assert!(state.leads(0) && state.committed.len() == 1);
        }
        vec![state]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        events.extend((0..state.flying.len()).map(Event::Arrives));
        for at in 0..state.members.len() {
            let (member, left) = (&state.members[at], &state.left);
            if !member.writes.is_empty() {
                events.push(Event::Written(at));
            }
            if left.timeouts > 0 {
                events.push(Event::TimesOut(at));
            }
            if left.crashes > 0 {
                events.push(Event::Crashes(at));
            }
            if left.proposals > 0 && state.leads(at) {
                events.push(Event::Proposes(at));
            }
            if left.changes > 0 && state.leads(at) {
                events.extend((0..self.targets.len()).map(|to| Event::Changes(at, to)));
            }
        }
    }

    fn next_state(&self, before: &State, event: Event) -> Option<State> {
        let mut state = before.clone();
        match event {
            Event::Arrives(place) => {
                let (to, bytes) = before.flying.iter().nth(place)?.clone();
                state.flying.remove(&(to, bytes.clone()));
                state.tell(to.0 as usize - 1, self, |engine, now| {
                    engine
                        .receive(now, &bytes)
                        .expect("it was said by an engine");
                });
            }
            Event::Written(at) => {
                let mut member = (*state.members[at]).clone();
                State::written(&mut member);
                state.members[at] = Arc::new(member);
                state.tell(at, self, |_, _| {});
            }
            Event::TimesOut(at) => {
                state.left.timeouts -= 1;
                let mut member = (*state.members[at]).clone();
                member.now = member.now + LONG;
                state.members[at] = Arc::new(member);
                state.tell(at, self, |engine, now| engine.wake(now));
            }
            Event::Crashes(at) => {
                state.left.crashes -= 1;
                let old = &state.members[at];
                let member = Member::start(at, old.now, &self.founding, old.disk.clone());
                state.members[at] = Arc::new(member);
                state.tell(at, self, |_, _| {});
            }
            Event::Proposes(at) => {
                state.left.proposals -= 1;
                let request = RequestId(u64::from(state.left.proposals));
                let command = vec![at as u8, state.left.proposals];
                let mut refused = false;
                state.tell(at, self, |engine, now| {
                    refused = engine.propose(now, request, command).is_err();
                });
                if refused {
                    return None;
                }
            }
            Event::Changes(at, to) => {
                state.left.changes -= 1;
                let request = RequestId(100 + u64::from(state.left.changes));
                let mut refused = false;
                state.tell(at, self, |engine, now| {
                    refused = engine
                        .change(now, request, self.targets[to].clone())
                        .is_err();
                });
                if refused {
                    return None;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("nothing is broken", |_, state| match state.broken {
                Some(property) => {
                    println!("{property} is broken: {state:?}");
                    false
                }
                None => true,
            }),
            Property::<Self>::sometimes("another leader is elected", |group, state| {
                state.leaders.len() > usize::from(group.led)
            }),
        ];
        if self.bounds.proposals > 0 {
            properties.push(Property::<Self>::sometimes(
                "an entry is committed",
                |group, state| state.committed.len() > 1 + usize::from(!group.led),
            ));
        }
        if self.bounds.changes > 0 {
            properties.push(Property::<Self>::sometimes(
                "the members are others",
                |group, state| {
                    let mut members = state.members.iter();
                    members.any(|member| {
                        let now = member.engine.configuration();
                        *now != group.founding && !now.is_joint()
                    })
                },
            ));
        }
        properties
    }
}

fn members(voters: &[u64], learners: &[u64]) -> Configuration {
    let ids = |numbers: &[u64]| numbers.iter().copied().map(MemberId).collect::<Vec<_>>();
    Configuration::new(ids(voters), ids(learners)).unwrap()
}

/// Looks at everything up to so many events.
fn explore(name: &str, group: Group, depth: usize) {
    let checker = group
        .checker()
        .threads(2)
        .target_max_depth(depth)
        .spawn_bfs()
        .join();
    println!(
        "{name}: {} different states within {} events, {} ways to them",
        checker.unique_state_count(),
        checker.max_depth(),
        checker.state_count()
    );
    checker.assert_properties();
}

fn elections(timeouts: u8, crashes: u8, writes: bool) -> Group {
    Group {
        bounds: Bounds {
            timeouts,
            proposals: 0,
            crashes,
            changes: 0,
            writes,
        },
        led: false,
        founding: members(&[1, 2, 3], &[]),
        targets: Vec::new(),
    }
}

fn logs(timeouts: u8, proposals: u8, writes: bool) -> Group {
    Group {
        bounds: Bounds {
            timeouts,
            proposals,
            crashes: 0,
            changes: 0,
            writes,
        },
        led: true,
        founding: members(&[1, 2, 3], &[]),
        targets: Vec::new(),
    }
}

/// One of two voters is replaced, removed, or joined by the learner.
fn changes(timeouts: u8, changes: u8) -> Group {
    Group {
        bounds: Bounds {
            timeouts,
            proposals: 0,
            crashes: 0,
            changes,
            writes: false,
        },
        led: true,
        founding: members(&[1, 2], &[3]),
        targets: vec![
            members(&[1, 2, 3], &[]),
            members(&[2, 3], &[1]),
            members(&[1], &[3]),
            members(&[2], &[3]),
        ],
    }
}

#[test]
fn elections_are_safe() {
    explore("elections", elections(2, 0, false), 14);
}

#[test]
fn logs_are_safe() {
    explore("logs", logs(2, 1, false), 12);
}

#[test]
fn changes_of_members_are_safe() {
    explore("members", changes(2, 1), 12);
}

/// So many events, or as many as `LEADERSHIP_DEPTH` says: each one more costs several times the time and the memory.
fn depth(events: usize) -> usize {
    let wanted = std::env::var("LEADERSHIP_DEPTH").ok();
    wanted.map_or(events, |depth| {
        depth.parse().expect("LEADERSHIP_DEPTH is a number")
    })
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn elections_are_safe_further() {
    explore("elections", elections(3, 1, true), depth(12));
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn logs_are_safe_further() {
    explore("logs", logs(3, 2, true), depth(11));
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn changes_of_members_are_safe_further() {
    explore("members", changes(3, 2), depth(11));
}
