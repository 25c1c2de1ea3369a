//! A few groups on a virtual clock, with disks and a network that do what a test wants.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::{
    Answer, Command, Config, Disk, Group, Output, Read, Request, Stored, Timing, Voters,
};
use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::entry::{Index, MemberId, PersistToken};
use crate::leadership::machine::{Expect, Kind};
use crate::leadership::snapshot::Write;
use crate::random::Random;
use crate::time::{Duration, Instant};

/// The name of a node: `a` is `a@h`.
pub(super) fn node(name: char) -> NodeName {
    NodeName::parse(&format!("{name}@h")).unwrap()
}

/// Names of nodes: one for each letter.
pub(super) fn named(letters: &str) -> Voters {
    Voters::Named(letters.chars().map(node).collect())
}

/// What is on its way, or due.
#[derive(Debug, Clone)]
enum Due {
    Bytes {
        from: char,
        to: char,
        bytes: Vec<u8>,
        life: u64,
    },
    Written {
        at: char,
        token: PersistToken,
        life: u64,
    },
    /// A node is told that a connection of its came up, or ended.
    Linked { at: char, with: char, up: bool },
}

impl Due {
    /// The node to which it happens.
    fn at(&self) -> char {
        match self {
            Self::Bytes { to: at, .. } | Self::Written { at, .. } | Self::Linked { at, .. } => *at,
        }
    }
}

struct Member {
    group: Group,
    life: u64,
    /// Writes that are not on disk.
    unwritten: VecDeque<Disk>,
}

/// Groups, their disks, and what is between them.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) random: Random,
    members: BTreeMap<char, Member>,
    disks: BTreeMap<char, (MemberId, Stored)>,
    due: BTreeMap<(Instant, u64), Due>,
    /// When the last bytes between two arrive: what is sent later over a connection does not overtake.
    last: BTreeMap<(char, char), Instant>,
    order: u64,
    lives: u64,
    calls: u64,
    /// Bytes from the first to the second are lost.
    pub(super) cut: BTreeSet<(char, char)>,
    /// One message of so many thousand is lost.
    pub(super) loss: u64,
    /// How long a message takes, at most; at least a tenth of it.
    pub(super) delay: Duration,
    /// How long a write takes on these.
    pub(super) slow: BTreeMap<char, Duration>,
    /// These keep nothing.
    pub(super) diskless: BTreeSet<char>,
    /// What each said besides sending and writing, and when.
    pub(super) seen: Vec<(Instant, char, Output)>,
    pub(super) timing: Timing,
    /// When which node crashed, as far as a test says so.
    pub(super) ends: Vec<(Instant, char)>,
    configured: BTreeMap<char, Voters>,
    /// How many thousandths of a second pass on a node's clock in one of ours, if not all of them.
    pub(super) rates: BTreeMap<char, u64>,
    /// Nodes that stand still, and what has come for them meanwhile.
    paused: BTreeMap<char, VecDeque<Due>>,
    /// Who stood still, since when, and until when.
    pub(super) pauses: Vec<(char, Instant, Option<Instant>)>,
    /// The rule that is switched off.
    #[cfg(feature = "mutants")]
    pub(super) mutation: Option<crate::leadership::Mutation>,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_millis(1000),
            random: Random::from_seed(seed),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            due: BTreeMap::new(),
            last: BTreeMap::new(),
            order: 0,
            lives: 0,
            calls: 0,
            cut: BTreeSet::new(),
            loss: 0,
            delay: Duration::from_millis(1),
            slow: BTreeMap::new(),
            diskless: BTreeSet::new(),
            seen: Vec::new(),
            timing: Timing::LAN,
            ends: Vec::new(),
            configured: BTreeMap::new(),
            rates: BTreeMap::new(),
            paused: BTreeMap::new(),
            pauses: Vec::new(),
            #[cfg(feature = "mutants")]
            mutation: None,
        }
    }

    fn rate(&self, name: char) -> u64 {
        self.rates.get(&name).copied().unwrap_or(1000)
    }

    /// What a node's clock says.
    fn local(&self, name: char) -> Instant {
        Instant::from_micros(self.now.as_micros() * self.rate(name) / 1000)
    }

    /// When it says that.
    fn global(&self, name: char, local: Instant) -> Instant {
        let (local, rate) = (u128::from(local.as_micros()), u128::from(self.rate(name)));
        let micros = u64::try_from((local * 1000).div_ceil(rate)).unwrap_or(u64::MAX);
        Instant::from_micros(micros)
    }

    /// Nodes that name each other, all started.
    pub(super) fn of(letters: &str) -> Self {
        let mut net = Self::new(1);
        for letter in letters.chars() {
            net.start(letter, named(letters));
        }
        net
    }

    /// The same, a few seconds later: there is a leader.
    pub(super) fn led(letters: &str) -> (Self, char) {
        let mut net = Self::of(letters);
        let leader = net.until("there is a leader", Net::leader);
        (net, leader)
    }

    /// A node starts, with what its disk has.
    pub(super) fn start(&mut self, name: char, voters: Voters) {
        self.configured.insert(name, voters.clone());
        self.lives += 1;
        let fresh = MemberId(self.random.bits());
        if self.diskless.contains(&name) {
            self.disks.remove(&name);
        }
        let (member, stored) = self
            .disks
            .entry(name)
            .or_insert((fresh, Stored::default()))
            .clone();
        let config = Config {
            member,
            voters,
            timing: self.timing,
            stored,
        };
        let seed = self.random.bits();
        #[cfg_attr(
            not(feature = "mutants"),
            expect(unused_mut, reason = "all rules hold")
        )]
        let mut group = Group::new(node(name), "test", seed, config).unwrap();
        #[cfg(feature = "mutants")]
        if let Some(mutation) = self.mutation {
            group.switch_off(mutation);
        }
        let life = self.lives;
        let unwritten = VecDeque::new();
        self.members.insert(
            name,
            Member {
                group,
                life,
                unwritten,
            },
        );
        for other in self.names() {
            if other != name && !self.cut.contains(&(name, other)) {
                self.link(name, other, true);
                self.link(other, name, true);
            }
        }
    }

    /// A node ends without a word. What was not on disk is lost.
    pub(super) fn crash(&mut self, name: char) {
        self.members.remove(&name);
        if self.paused.remove(&name).is_some() {
            self.end_pause(name);
        }
        for other in self.names() {
            self.link(other, name, false);
        }
    }

    /// A node stands still (SIGSTOP): its clock goes on, and what comes for it waits.
    pub(super) fn pause(&mut self, name: char) {
        if self.members.contains_key(&name) && !self.paused.contains_key(&name) {
            self.paused.insert(name, VecDeque::new());
            self.pauses.push((name, self.now, None));
        }
    }

    /// It goes on. Its timers may be the first thing that it sees to, or what came for it.
    pub(super) fn thaw(&mut self, name: char) {
        let Some(waiting) = self.paused.remove(&name) else {
            return;
        };
        self.end_pause(name);
        if self.random.below(2) == 0 {
            self.on(name, |group, now| group.wake(now));
        }
        for due in waiting {
            self.deliver(due);
        }
    }

    fn end_pause(&mut self, name: char) {
        let open = self.pauses.iter_mut().rev();
        if let Some((.., end)) = open.into_iter().find(|(who, ..)| *who == name) {
            *end = Some(self.now);
        }
    }

    /// Those that stand still.
    pub(super) fn paused(&self) -> Vec<char> {
        self.paused.keys().copied().collect()
    }

    fn link(&mut self, at: char, with: char, up: bool) {
        self.happen(Due::Linked { at, with, up });
    }

    /// It starts again as it was configured.
    pub(super) fn restart(&mut self, name: char) {
        let voters = self.configured[&name].clone();
        self.start(name, voters);
    }

    /// Nothing goes between the two, and their connection ends.
    pub(super) fn part(&mut self, a: char, b: char) {
        self.cut.extend([(a, b), (b, a)]);
        self.link(a, b, false);
        self.link(b, a, false);
    }

    pub(super) fn isolate(&mut self, name: char) {
        for other in self.names() {
            if other != name {
                self.part(name, other);
            }
        }
    }

    /// All connections are back.
    pub(super) fn heal(&mut self) {
        for (a, b) in core::mem::take(&mut self.cut) {
            self.link(a, b, true);
        }
    }

    pub(super) fn names(&self) -> Vec<char> {
        self.members.keys().copied().collect()
    }

    pub(super) fn group(&self, name: char) -> &Group {
        &self.members[&name].group
    }

    /// Tells a node something, and carries out what it wants.
    pub(super) fn on(&mut self, name: char, tell: impl FnOnce(&mut Group, Instant)) {
        let now = self.local(name);
        let Some(member) = self.members.get_mut(&name) else {
            return;
        };
        tell(&mut member.group, now);
        let outputs: Vec<Output> = member.group.outputs().collect();
        for output in outputs {
            self.carry_out(name, output);
        }
    }

    fn carry_out(&mut self, name: char, output: Output) {
        let life = self.members.get(&name).map_or(0, |member| member.life);
        match output {
            Output::Send { to, bytes } => {
                let to = to.as_str().chars().next().unwrap();
                let lost = self.cut.contains(&(name, to)) || self.random.below(1000) < self.loss;
                // Bytes of a connection do not outlive it.
                if let Some(receiver) = self.members.get(&to).filter(|_| !lost) {
                    let life = life + receiver.life;
                    let least = self.delay.as_micros() / 10;
                    let spread = self.random.below(self.delay.as_micros() - least + 1);
                    let at = self.now + Duration::from_micros(least + spread);
                    let last = self.last.entry((name, to)).or_default();
                    *last = at.max(*last);
                    let at = *last;
                    self.plan(
                        at,
                        Due::Bytes {
                            from: name,
                            to,
                            bytes,
                            life,
                        },
                    );
                }
            }
            Output::Persist(disk) => {
                let token = disk.write.token;
                if let Some(member) = self.members.get_mut(&name) {
                    member.unwritten.push_back(*disk);
                }
                let delay = self.slow.get(&name).copied().unwrap_or(Duration::ZERO);
                self.plan(
                    self.now + delay,
                    Due::Written {
                        at: name,
                        token,
                        life,
                    },
                );
            }
            Output::Lease { term, until } => {
                let until = until.map(|until| self.global(name, until));
                let lease = Output::Lease { term, until };
                self.seen.push((self.now, name, lease));
            }
            other => self.seen.push((self.now, name, other)),
        }
    }

    fn plan(&mut self, at: Instant, due: Due) {
        self.order += 1;
        self.due.insert((at, self.order), due);
    }

    /// It happens, unless what it needs is gone; a node that stands still sees it later.
    fn happen(&mut self, due: Due) {
        let life_of = |name| {
            self.members
                .get(&name)
                .map_or(0, |member: &Member| member.life)
        };
        let real = match &due {
            Due::Bytes { from, to, life, .. } => {
                life_of(*from) + life_of(*to) == *life && !self.cut.contains(&(*from, *to))
            }
            Due::Written { at, life, .. } => life_of(*at) == *life,
            Due::Linked { .. } => true,
        };
        if !real {
            return;
        }
        if let Due::Written { at, token, .. } = due {
            self.write(at, token);
        }
        match self.paused.get_mut(&due.at()) {
            Some(waiting) => waiting.push_back(due),
            None => self.deliver(due),
        }
    }

    fn deliver(&mut self, due: Due) {
        match due {
            Due::Bytes {
                from, to, bytes, ..
            } => self.on(to, |group, now| group.received(now, &node(from), &bytes)),
            Due::Written { at, token, .. } => self.on(at, |group, now| group.persisted(now, token)),
            Due::Linked { at, with, up: true } => {
                self.on(at, |group, now| group.up(now, &node(with)))
            }
            Due::Linked { at, with, .. } => self.on(at, |group, now| group.down(now, &node(with))),
        }
    }

    /// What a node wrote is on disk, up to this token.
    fn write(&mut self, at: char, token: PersistToken) {
        let Some(member) = self.members.get_mut(&at) else {
            return;
        };
        while let Some(disk) = member
            .unwritten
            .pop_front_if(|disk| disk.write.token <= token)
        {
            if let Some((_, stored)) = self.disks.get_mut(&at) {
                write(stored, disk);
            }
        }
    }

    /// The next thing happens, if it does before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let first = self.due.keys().next().map(|&(at, _)| at);
        let woken = self
            .members
            .iter()
            .filter(|(name, _)| !self.paused.contains_key(name))
            .filter_map(|(&name, member)| Some((self.global(name, member.group.deadline()?), name)))
            .min();
        let woken = woken.map(|(at, name)| (at.max(self.now), name));
        match (first, woken) {
            (Some(at), woken) if at <= end && woken.is_none_or(|(wake, _)| at <= wake) => {
                self.now = self.now.max(at);
                if let Some((_, due)) = self.due.pop_first() {
                    self.happen(due);
                }
                true
            }
            (_, Some((at, name))) if at <= end => {
                self.now = at;
                self.on(name, |group, now| group.wake(now));
                true
            }
            _ => {
                self.now = end;
                false
            }
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.step(end) {}
    }

    /// Goes on until there is what is waited for, a minute at most.
    pub(super) fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let end = self.now + Duration::from_secs(60);
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(self.step(end), "in a minute it was not so that {what}");
        }
    }

    /// The node with a lease.
    pub(super) fn leader(&self) -> Option<char> {
        let mut leases = BTreeMap::new();
        for (_, name, output) in &self.seen {
            if let Output::Lease { until, .. } = output {
                leases.insert(*name, *until);
            }
        }
        let now = self.now;
        let holds = |(&name, until): (&char, &Option<Instant>)| {
            (until.is_some_and(|until| until > now) && self.members.contains_key(&name))
                .then_some(name)
        };
        leases.iter().find_map(holds)
    }

    /// The number of the next call.
    pub(super) fn next_call(&self) -> CallId {
        CallId(self.calls + 1)
    }

    pub(super) fn ask(&mut self, name: char, command: Command) -> CallId {
        self.ask_for(name, command, Duration::from_secs(5))
    }

    pub(super) fn ask_for(&mut self, name: char, command: Command, timeout: Duration) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        let request = Request { command, timeout };
        self.on(name, |group, now| group.asked(now, call, request));
        call
    }

    pub(super) fn answer_to(&self, wanted: CallId) -> Option<Answer> {
        self.seen.iter().find_map(|(_, _, output)| match output {
            Output::Answer { call, answer } if *call == wanted => Some(answer.clone()),
            _ => None,
        })
    }

    /// Asks, and waits for the answer.
    pub(super) fn call(&mut self, name: char, command: Command) -> Answer {
        let call = self.ask(name, command);
        self.until("the call is answered", |net| net.answer_to(call))
    }

    pub(super) fn said(&self, name: char) -> impl Iterator<Item = &Output> {
        self.seen
            .iter()
            .filter(move |(_, who, _)| *who == name)
            .map(|(_, _, output)| output)
    }

    pub(super) fn stored(&self, name: char) -> &Stored {
        &self.disks[&name].1
    }
}

/// What a disk does with a write.
fn write(stored: &mut Stored, disk: Disk) {
    if disk.clear {
        stored.restored = Default::default();
    }
    if disk.founding.is_some() {
        stored.founding = disk.founding;
    }
    let Write {
        hard,
        snapshot,
        purge,
        truncate,
        entries,
        ..
    } = disk.write;
    let restored = &mut stored.restored;
    restored.hard = hard.unwrap_or(restored.hard);
    if snapshot.is_some() {
        restored.snapshot = snapshot;
    }
    restored.entries.retain(|entry| entry.index > purge);
    let from = entries
        .first()
        .map(|entry| entry.index)
        .into_iter()
        .chain(truncate)
        .min();
    if let Some(from) = from {
        restored.entries.retain(|entry| entry.index < from);
    }
    restored.entries.extend(entries);
}

pub(super) fn put(key: &str, value: &str) -> Command {
    Command::Put {
        key: key.as_bytes().to_vec(),
        value: value.as_bytes().into(),
        expect: Expect::Anything,
    }
}

pub(super) fn get(key: &str, read: Read) -> Command {
    Command::Get {
        key: key.as_bytes().to_vec(),
        read,
    }
}

pub(super) fn acquire(name: &str, pid: &str) -> Command {
    Command::Acquire {
        kind: Kind::Lock,
        name: name.as_bytes().to_vec(),
        value: pid.as_bytes().into(),
        ttl: None,
        pid: pid.as_bytes().into(),
        wait: false,
    }
}

/// The same, but it waits.
pub(super) fn wait_for(name: &str, pid: &str) -> Command {
    match acquire(name, pid) {
        Command::Acquire {
            kind,
            name,
            value,
            ttl,
            pid,
            ..
        } => Command::Acquire {
            kind,
            name,
            value,
            ttl,
            pid,
            wait: true,
        },
        other => other,
    }
}

/// The same, for a time.
pub(super) fn acquire_for(name: &str, pid: &str, millis: u64) -> Command {
    match acquire(name, pid) {
        Command::Acquire {
            kind,
            name,
            value,
            pid,
            wait,
            ..
        } => {
            let ttl = Some(Duration::from_millis(millis));
            Command::Acquire {
                kind,
                name,
                value,
                ttl,
                pid,
                wait,
            }
        }
        other => other,
    }
}

pub(super) fn release(name: &str, token: Index) -> Command {
    Command::Release {
        kind: Kind::Lock,
        name: name.as_bytes().to_vec(),
        token,
    }
}

pub(super) fn holder(name: &str) -> Command {
    Command::Holder {
        kind: Kind::Lock,
        name: name.as_bytes().to_vec(),
        read: Read::Linear,
    }
}

pub(super) fn pid(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

/// The index of something that was done.
pub(super) fn done(answer: Answer) -> Index {
    match answer {
        Answer::Done(index) => index,
        other => panic!("not done: {other:?}"),
    }
}

/// The text of a value.
pub(super) fn text(answer: Answer) -> Option<alloc::string::String> {
    match answer {
        Answer::Value(stored) => {
            stored.map(|stored| alloc::string::String::from_utf8(stored.value.to_vec()).unwrap())
        }
        other => panic!("no value: {other:?}"),
    }
}
