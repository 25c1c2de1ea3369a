//! Groups whose logs are short, whose members change all the time, and to whom chance does what it likes.
//!
//! `LEADERSHIP_SEEDS=10000 cargo test -p tiebeam_core chance` runs more of them. A failure names its seed, and
//! `LEADERSHIP_SEED=42` runs that one alone.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::{env, eprintln, panic};

use crate::leadership::{
    Configuration, Consensus, Effect, Entry, Index, MemberId, Payload, Replica, RequestId,
    Restored, Role, Settings, Term, Write,
};
use crate::random::Random;
use crate::time::{Duration, Instant};

/// All members that there may be; the first three found the group.
const POOL: u64 = 6;

/// How much happens to a group before all of it heals.
const STEPS: usize = 1500;

struct Member {
    engine: Option<Replica>,
    disk: Restored,
    writes: VecDeque<Write>,
    /// What it applied: the last index, and a digest of all up to it.
    applied: (Index, u64),
}

struct Chance {
    random: Random,
    now: Instant,
    members: BTreeMap<u64, Member>,
    flying: Vec<(u64, u64, Vec<u8>)>,
    cut: Option<u64>,
    /// What is committed, and the digest of all up to there.
    committed: BTreeMap<Index, (Entry, u64)>,
    leaders: BTreeMap<Term, MemberId>,
    requests: u64,
    reads: BTreeMap<RequestId, Index>,
    tail: usize,
    /// What happened at all.
    restored: usize,
    changed: usize,
    read: usize,
}

fn digest(before: u64, entry: &Entry) -> u64 {
    let kind = match &entry.payload {
        Payload::Noop => 1,
        Payload::Command(bytes) => bytes.iter().fold(2, |sum, &byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        }),
        Payload::Configuration(configuration) => configuration
            .members()
            .fold(3, |sum, member| sum * 7 + member.0),
    };
    (before.rotate_left(7) ^ entry.term ^ (kind << 8) ^ entry.index)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Chance {
    fn new(seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let mut chance = Self {
            tail: random.below(6) as usize,
            random,
            now: Instant::from_millis(1000),
            members: BTreeMap::new(),
            flying: Vec::new(),
            cut: None,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            requests: 0,
            reads: BTreeMap::new(),
            restored: 0,
            changed: 0,
            read: 0,
        };
        for id in 1..=POOL {
            let member = Member {
                engine: None,
                disk: Restored::default(),
                writes: VecDeque::new(),
                applied: (0, 0),
            };
            chance.members.insert(id, member);
            chance.start(id);
        }
        chance
    }

    fn start(&mut self, id: u64) {
        let seed = self.random.bits();
        let settings = Settings {
            tail: self.tail,
            #[cfg(feature = "mutants")]
            mutation: super::mutants::SWITCHED.get(),
            ..Settings::lan(MemberId(id), 7, seed)
        };
        let founding = Configuration::new((1..=3).map(MemberId), []).unwrap();
        let member = self.members.get_mut(&id).unwrap();
        member.applied = (0, 0);
        let engine = Replica::new(self.now, settings, founding, member.disk.clone());
        member.engine = Some(engine.unwrap());
        self.drain(id);
    }

    fn tell(&mut self, id: u64, what: impl FnOnce(&mut Replica, Instant)) {
        let now = self.now;
        if let Some(engine) = &mut self.members.get_mut(&id).unwrap().engine {
            what(engine, now);
            self.drain(id);
        }
    }

    fn drain(&mut self, id: u64) {
        while let Some(effect) = {
            let member = self.members.get_mut(&id).unwrap();
            member.engine.as_mut().and_then(Consensus::poll)
        } {
            let member = self.members.get_mut(&id).unwrap();
            match effect {
                Effect::Send { to, bytes } => self.flying.push((id, to.0, bytes)),
                Effect::Persist(write) => member.writes.push_back(write),
                Effect::Restore(snapshot) => {
                    let state = snapshot.state[..8].try_into().unwrap();
                    member.applied = (snapshot.index, u64::from_be_bytes(state));
                    let (_, known) = self.committed[&snapshot.index];
                    assert_eq!(member.applied.1, known, "the snapshot is another one");
                    self.restored += 1;
                }
                Effect::Apply { entry, .. } => {
                    assert_eq!(entry.index, member.applied.0 + 1);
                    let sum = digest(member.applied.1, &entry);
                    member.applied = (entry.index, sum);
                    let configured = matches!(entry.payload, Payload::Configuration(_));
                    self.changed += usize::from(configured);
                    let found = self
                        .committed
                        .entry(entry.index)
                        .or_insert((entry.clone(), sum));
                    assert_eq!(*found, (entry, sum), "member {id} applies something else");
                }
                Effect::Read { request } => {
                    let asked = self.reads.remove(&request).unwrap();
                    assert!(member.applied.0 >= asked, "a read of old state");
                    self.read += 1;
                }
                Effect::Stopped(fault) => panic!("member {id}: {fault}"),
                Effect::Unread { .. }
                | Effect::Unknown { .. }
                | Effect::Leader { .. }
                | Effect::Configured(_) => {}
            }
        }
        let Some(engine) = &self.members[&id].engine else {
            return;
        };
        let status = engine.status();
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(MemberId(id));
            assert_eq!(leader, MemberId(id), "two lead in term {}", status.term);
        }
        let now = self.now;
        let tokens = self.members.values().filter_map(|member| {
            let engine = member.engine.as_ref()?;
            engine.token(now)
        });
        assert!(tokens.count() <= 1, "two have a token");
    }

    /// The next write of `id` reaches its disk.
    fn sync(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let Some(write) = member.writes.pop_front() else {
            return;
        };
        let (token, disk) = (write.token, &mut member.disk);
        disk.hard = write.hard.unwrap_or(disk.hard);
        disk.snapshot = write.snapshot.or(disk.snapshot.take());
        disk.entries.retain(|entry| entry.index > write.purge);
        let replaced = write.entries.first().map(|first| first.index);
        for from in write.truncate.into_iter().chain(replaced) {
            disk.entries.retain(|entry| entry.index < from);
        }
        disk.entries.extend(write.entries);
        self.tell(id, |engine, now| engine.persisted(now, token));
    }

    fn member(&mut self) -> u64 {
        1 + self.random.below(POOL)
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn leader(&mut self) -> Option<u64> {
        let leads = |member: &Member| {
            let engine = member.engine.as_ref();
            engine.is_some_and(|engine| engine.status().role == Role::Leader)
        };
        let found = self.members.iter().find(|(_, member)| leads(member));
        found.map(|(&id, _)| id)
    }

    fn compact(&mut self, id: u64) {
        let length = match self.random.below(10) {
            0 => self.random.below(300_000) as usize,
            _ => 0,
        };
        let mut state = self.members[&id].applied.1.to_be_bytes().to_vec();
        state.resize(8 + length, 0);
        self.tell(id, |engine, now| engine.compact(now, Arc::from(state)));
    }

    fn change(&mut self, id: u64) {
        let Some(engine) = &self.members[&id].engine else {
            return;
        };
        let current = engine.configuration().clone();
        let pool = (1..=POOL).map(MemberId);
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        let all_learn = self.random.below(2) == 0;
        for member in pool {
            let (is, chosen) = (current.contains(member), self.random.below(3) > 0);
            match () {
                () if all_learn && current.votes(member) => voters.push(member),
                () if all_learn || !is && chosen => learners.push(member),
                () if is && chosen => voters.push(member),
                () => {}
            }
        }
        let Ok(to) = Configuration::new(voters, learners) else {
            return;
        };
        let request = self.request();
        self.tell(id, |engine, now| {
            let _ = engine.change(now, request, to);
        });
    }

    fn step(&mut self) {
        let id = self.member();
        match self.random.below(1000) {
            0..500 if !self.flying.is_empty() => {
                let at = self.random.below(self.flying.len() as u64) as usize;
                let (from, to, bytes) = self.flying[at].clone();
                if self.random.below(20) > 0 {
                    self.flying.swap_remove(at);
                }
                let cut = self.cut.is_some_and(|cut| cut == from || cut == to);
                if !cut && self.random.below(20) > 0 {
                    self.tell(to, |engine, now| engine.receive(now, &bytes).unwrap());
                }
            }
            0..750 => self.sync(id),
            750..850 => self.pass(),
            850..900 => {
                let (request, bytes) = (self.request(), self.random.bits());
                if let Some(leader) = self.leader() {
                    self.tell(leader, |engine, now| {
                        let _ = engine.propose(now, request, bytes.to_be_bytes().to_vec());
                    });
                }
            }
            900..920 => {
                let request = self.request();
                let known = self.committed.last_key_value().map_or(0, |(&at, _)| at);
                self.reads.insert(request, known);
                self.tell(id, |engine, now| {
                    let _ = engine.read(now, request);
                });
            }
            920..950 => self.compact(id),
            950..970 => {
                if let Some(leader) = self.leader() {
                    self.change(leader);
                }
            }
            970..974 => {
                let to = MemberId(self.member());
                if let Some(leader) = self.leader() {
                    self.tell(leader, |engine, now| {
                        let _ = engine.transfer(now, Some(to));
                    });
                }
            }
            974..980 => {
                let gone = MemberId(self.member());
                self.tell(id, |engine, now| engine.forget_leader(now, gone));
            }
            980..986 => self.cut = (self.random.below(2) == 0).then_some(id),
            986..993 => {
                let member = self.members.get_mut(&id).unwrap();
                member.engine = None;
                member.writes.clear();
            }
            _ if self.members[&id].engine.is_none() => self.start(id),
            _ => {}
        }
    }

    fn pass(&mut self) {
        self.now = self.now + Duration::from_millis(self.random.below(20));
        let now = self.now;
        for id in 1..=POOL {
            if let Some(engine) = &self.members[&id].engine
                && engine.deadline() <= now
            {
                self.tell(id, Consensus::wake);
            }
        }
    }

    /// Everything heals: somebody leads, and all that are members have all of it.
    fn heal(&mut self) {
        self.cut = None;
        for id in 1..=POOL {
            if self.members[&id].engine.is_none() {
                self.start(id);
            }
        }
        for round in 0..2000 {
            for (_, to, bytes) in core::mem::take(&mut self.flying) {
                self.tell(to, |engine, now| engine.receive(now, &bytes).unwrap());
            }
            for id in 1..=POOL {
                while !self.members[&id].writes.is_empty() {
                    self.sync(id);
                }
            }
            self.now = self.now + Duration::from_millis(5);
            for id in 1..=POOL {
                self.tell(id, Consensus::wake);
            }
            if round == 1500 {
                let leader = self.leader().expect("somebody leads");
                self.tell(leader, |engine, now| {
                    engine.propose(now, RequestId(0), Vec::new()).unwrap();
                });
            }
        }
        let leader = self.leader().expect("somebody leads");
        let configuration = self.members[&leader].engine.as_ref().unwrap();
        let configuration = configuration.configuration().clone();
        assert!(!configuration.is_joint() && configuration.votes(MemberId(leader)));
        let applied = self.members[&leader].applied;
        assert_eq!(Some(&applied.0), self.committed.keys().last());
        for member in configuration.members() {
            assert_eq!(self.members[&member.0].applied, applied, "{member}");
            let engine = self.members[&member.0].engine.as_ref().unwrap();
            assert_eq!(*engine.configuration(), configuration);
        }
    }
}

/// What it saw: snapshots that were restored, changes that were applied, reads that were answered.
pub(super) fn run(seed: u64) -> [usize; 3] {
    let mut chance = Chance::new(seed);
    for _ in 0..STEPS {
        chance.step();
    }
    chance.heal();
    [chance.restored, chance.changed, chance.read]
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test may be told what to replay"
)]
fn whatever_chance_does_members_agree() {
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(text.parse().expect("a number"))
    };
    let seeds = match number("LEADERSHIP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LEADERSHIP_SEEDS").unwrap_or(100),
    };
    let many = seeds.clone().count();
    let mut all = [0; 3];
    for seed in seeds {
        let seen = panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            eprintln!("LEADERSHIP_SEED={seed} cargo test -p tiebeam_core chance");
            panic::resume_unwind(panic)
        });
        for (all, seen) in all.iter_mut().zip(seen) {
            *all += seen;
        }
    }
    // Groups in which nothing happens agree as well.
    if many >= 100 {
        assert!(all.iter().all(|&seen| seen > many), "{all:?}");
    }
}
