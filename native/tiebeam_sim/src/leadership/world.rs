//! A group of engines, its network, disks and clocks, and its clients.

mod clients;
mod faults;
mod machine;

use std::collections::{BTreeMap, BTreeSet};

use tiebeam_core::leadership::{
    Effect, MemberId, Payload, PersistToken, RequestId, Role, Write as Persist,
};
use tiebeam_core::{Instant, Random};

use super::Broken;
use super::check::{Commits, Elections, Leases, Logs};
use super::engine::Engine;
use super::history::History;
use super::plan::Plan;
use super::store::{Command, Outcome};
use clients::Client;
use machine::{Machine, Write};

/// One millisecond of the world's clock, which counts microseconds.
const MS: u64 = 1000;

/// Something that will happen.
#[derive(Debug, Clone)]
enum Event {
    Wake {
        member: usize,
        life: u64,
    },
    Deliver {
        to: usize,
        bytes: Vec<u8>,
    },
    Synced {
        member: usize,
        life: u64,
        token: PersistToken,
    },
    Hint {
        at: usize,
        life: u64,
        gone: usize,
    },
    Start {
        member: usize,
    },
    Client {
        client: usize,
    },
    Timeout {
        client: usize,
        attempt: u64,
    },
    Fault,
}

/// What happened in a world, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that arrived.
    pub delivered: u64,
    /// Bytes of those that were sent.
    pub bytes: u64,
    /// Changes that a client was told of.
    pub changes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Requests that a client gave up.
    pub unknown: u64,
    /// Elections that were won.
    pub elections: u64,
    /// Entries that were committed.
    pub commits: u64,
    /// Lives that ended in a crash.
    pub crashes: u64,
    /// For how many microseconds some member held a lease.
    pub leased: u64,
    /// How long all of it took, in microseconds of the world.
    pub time: u64,
}

impl Tally {
    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.bytes += other.bytes;
        self.changes += other.changes;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.elections += other.elections;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.leased += other.leased;
        self.time += other.time;
    }
}

/// A group in virtual time; see [the module](super).
pub struct World<E> {
    plan: Plan,
    random: Random,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    machines: Vec<Machine<E>>,
    cut: BTreeSet<(usize, usize)>,
    faulty: bool,
    clients: Vec<Client>,
    next_client: u64,
    next_request: u64,
    /// Whose request each is, and which attempt.
    requests: BTreeMap<RequestId, (usize, u64)>,
    history: History,
    elections: Elections,
    logs: Logs,
    commits: Commits,
    leases: Leases,
    leased: bool,
    tally: Tally,
    trace: u64,
    broken: Option<Broken>,
}

impl<E: Engine> World<E> {
    /// A world that has not begun.
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            random: Random::from_seed(plan.seed),
            now: 0,
            queue: BTreeMap::new(),
            events: 0,
            machines: Vec::new(),
            cut: BTreeSet::new(),
            faulty: true,
            clients: Vec::new(),
            next_client: 1,
            next_request: 1,
            requests: BTreeMap::new(),
            history: History::default(),
            elections: Elections::default(),
            logs: Logs::default(),
            commits: Commits::default(),
            leases: Leases::default(),
            leased: false,
            tally: Tally::default(),
            trace: 0,
            broken: None,
            plan,
        };
        for member in 0..world.plan.members {
            let drift = world.plan.drift;
            let rate = 1000 - drift + world.random.below(2 * drift + 1);
            world.machines.push(Machine::new(rate));
            world.start(member);
        }
        for client in 0..world.plan.clients {
            let fresh = world.fresh_client();
            world.clients.push(fresh);
            let delay = world.random.below(20 * MS);
            world.after(delay, Event::Client { client });
        }
        if let Some((least, _)) = world.plan.fault_gap {
            world.after(least * MS, Event::Fault);
        }
        world
    }

    /// Runs all of it: first with faults, then without.
    ///
    /// # Errors
    ///
    /// The first property that was seen not to hold.
    pub fn run(&mut self) -> Result<(), Broken> {
        self.run_until(self.plan.faulty.as_micros())?;
        self.heal();
        let before = self.tally.changes;
        self.run_until(self.now + self.plan.quiet.as_micros())?;
        self.recovered(self.tally.changes - before)?;
        let seen = |seen| Broken {
            property: "linearizability",
            seen,
        };
        self.history.check().map_err(seen)
    }

    /// Runs until the world's clock shows `end` microseconds.
    ///
    /// # Errors
    ///
    /// As [`World::run`].
    pub fn run_until(&mut self, end: u64) -> Result<(), Broken> {
        while self.broken.is_none()
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            if self.leased {
                self.tally.leased += at - self.now;
            }
            self.now = at;
            self.happen(event);
            self.look();
        }
        self.now = end;
        self.tally.time = end;
        self.tally.elections = self.elections.count();
        self.tally.commits = self.commits.count();
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A digest of everything that happened, in order: the same for the same plan.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + delay, self.events), event);
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.random.below(most - least + 1)
    }

    /// Something that happens `per_mille` times in a thousand.
    fn chance(&mut self, per_mille: u64) -> bool {
        self.random.below(1000) < per_mille
    }

    fn broke(&mut self, result: Result<(), Broken>) {
        if let (Err(broken), None) = (result, &self.broken) {
            self.broken = Some(broken);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { member } => self.start(member),
            Event::Client { client } => self.client(client),
            Event::Timeout { client, attempt } => self.timeout(client, attempt),
            Event::Fault => self.fault(),
            Event::Wake { member, .. }
            | Event::Deliver { to: member, .. }
            | Event::Synced { member, .. }
            | Event::Hint { at: member, .. }
                if self.machines[member].paused =>
            {
                self.machines[member].parked.push(event);
            }
            Event::Wake { member, life } => {
                if self.machines[member].life == life {
                    self.machines[member].armed = None;
                    self.tell(member, |engine, now| engine.wake(now));
                }
            }
            Event::Deliver { to, bytes } => {
                self.tally.delivered += 1;
                let mut refused = None;
                self.tell(to, |engine, now| {
                    refused = engine.receive(now, &bytes).err()
                });
                if let Some(error) = refused {
                    let seen = format!("member {to}: {error}");
                    self.broke(Err(Broken {
                        property: "engines understand each other",
                        seen,
                    }));
                }
            }
            Event::Synced {
                member,
                life,
                token,
            } => {
                if self.machines[member].life == life {
                    let voted = self.machines[member].sync(token);
                    self.tell(member, |engine, now| engine.persisted(now, token));
                    if voted && self.faulty && self.chance(self.plan.crash_at_vote) {
                        self.crash_and_return(member);
                    }
                }
            }
            Event::Hint { at, life, gone } => {
                if self.machines[at].life == life {
                    let gone = MemberId(gone as u64 + 1);
                    self.tell(at, |engine, now| engine.forget_leader(now, gone));
                }
            }
        }
    }

    /// Begins a life.
    fn start(&mut self, member: usize) {
        if self.machines[member].engine.is_some() {
            return;
        }
        let offset = self.random.below(1_000_000);
        let seed = self.random.bits();
        let machine = &mut self.machines[member];
        machine.begin(self.now, offset);
        let now = machine.clock(self.now);
        match E::start(
            now,
            MemberId(member as u64 + 1),
            seed,
            machine.disk.clone(),
            &self.plan,
        ) {
            Ok(engine) => machine.engine = Some(engine),
            Err(error) => {
                let seen = format!("member {member}: {error}");
                self.broke(Err(Broken {
                    property: "a member runs on its own disk",
                    seen,
                }));
            }
        }
        self.tell(member, |_, _| {});
    }

    /// Tells an engine something, and carries out what it wants.
    fn tell(&mut self, member: usize, what: impl FnOnce(&mut E, Instant)) {
        let machine = &mut self.machines[member];
        let now = machine.clock(self.now);
        let Some(engine) = &mut machine.engine else {
            return;
        };
        what(engine, now);
        let mut writes_vote = false;
        while let Some(effect) = self.machines[member]
            .engine
            .as_mut()
            .and_then(|engine| engine.poll())
        {
            writes_vote |= matches!(&effect, Effect::Persist(write) if write.hard.is_some());
            self.carry_out(member, effect);
        }
        self.inspect(member);
        self.arm(member);
        if writes_vote && self.faulty && self.chance(self.plan.crash_at_vote) {
            self.crash_and_return(member);
        }
    }

    /// Wakes the engine at its deadline, as its own clock shows it.
    fn arm(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        let Some(engine) = &machine.engine else {
            return;
        };
        let at = machine.world_time(engine.deadline()).max(self.now + 1);
        if machine.armed.is_none_or(|armed| at < armed) {
            machine.armed = Some(at);
            let life = machine.life;
            self.after(at - self.now, Event::Wake { member, life });
        }
    }

    fn carry_out(&mut self, member: usize, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => self.send(member, to.0 as usize - 1, bytes),
            Effect::Persist(Persist {
                token,
                hard,
                entries,
                ..
            }) => {
                let machine = &mut self.machines[member];
                if let (Some(first), Some(engine)) = (entries.first(), &machine.engine) {
                    let status = engine.status();
                    let leads = status.role == Role::Leader && machine.led == Some(status.term);
                    let last = machine.image.len() as u64;
                    machine.image.truncate(first.index as usize - 1);
                    let mut before = machine.image.last().map_or(0, |entry| entry.term);
                    let mut result = if leads {
                        Logs::replaced(member, first.index, last)
                    } else {
                        Ok(())
                    };
                    for entry in &entries {
                        result = result.and(self.logs.wrote(member, before, entry));
                        before = entry.term;
                    }
                    machine.image.extend(entries.iter().cloned());
                    self.broke(result);
                }
                let delay = self.between(self.plan.write);
                let machine = &mut self.machines[member];
                let done = machine.sync_done(self.now, delay);
                machine.writes.push_back(Write {
                    token,
                    hard,
                    entries,
                });
                let life = machine.life;
                self.after(
                    done - self.now,
                    Event::Synced {
                        member,
                        life,
                        token,
                    },
                );
            }
            // Nothing is compacted here yet.
            Effect::Restore(_) => {}
            Effect::Apply { entry, request } => {
                let members = self.machines.len();
                let disks = self
                    .machines
                    .iter()
                    .filter(|machine| machine.has(&entry))
                    .count();
                let machine = &mut self.machines[member];
                let term = machine
                    .engine
                    .as_ref()
                    .map_or(0, |engine| engine.status().term);
                let mut result = self
                    .commits
                    .applied((member, term), &entry, (disks, members));
                if entry.index != machine.applied + 1 {
                    let seen = format!(
                        "member {member} applied {} after {}",
                        entry.index, machine.applied
                    );
                    result = Err(Broken {
                        property: "state-machine safety",
                        seen,
                    });
                }
                machine.applied = entry.index;
                let outcome = match &entry.payload {
                    Payload::Command(bytes) => {
                        Command::decode(bytes).map(|command| machine.store.apply(command))
                    }
                    Payload::Noop | Payload::Configuration(_) => None,
                };
                self.broke(result);
                if let (Some(outcome), Some(request)) = (outcome, request) {
                    self.answer(request, |_| outcome);
                }
            }
            Effect::Read { request } => {
                let store = self.machines[member].store.clone();
                self.answer(request, |key| Outcome::Value(store.read(key)));
            }
            Effect::Unread { request } | Effect::Unknown { request } => self.try_again(request),
            Effect::Stopped(fault) => {
                self.broke(Err(Broken {
                    property: "nobody stops",
                    seen: format!("member {member}: {fault}"),
                }));
            }
            Effect::Leader { .. } | Effect::Configured(_) => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.tally.sent += 1;
        self.tally.bytes += bytes.len() as u64;
        if self.cut.contains(&(from, to)) || self.chance(self.plan.loss) {
            return;
        }
        let copies = 1 + u64::from(self.chance(self.plan.twice));
        for _ in 0..copies {
            let mut delay = self.between(self.plan.delay);
            if self.chance(self.plan.late) {
                delay += self.random.below(1000 * MS);
            }
            self.after(
                delay,
                Event::Deliver {
                    to,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    /// Looks at what a member says of itself.
    fn inspect(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        let Some(engine) = &machine.engine else {
            return;
        };
        let status = engine.status();
        let mut result = machine.progress.says(member, status, machine.applied);
        machine.led = (status.role == Role::Leader).then_some(status.term);
        if status.role == Role::Leader {
            match self.elections.leads(member, status.term) {
                Ok(true) => {
                    // Its own log, whether it is on disk or not.
                    result = result.and(self.commits.elected(member, status.term, &machine.image));
                }
                Ok(false) => {}
                Err(broken) => result = Err(broken),
            }
        }
        for number in [
            self.now,
            member as u64,
            status.term,
            status.commit,
            status.last,
            status.role as u64,
        ] {
            self.trace = (self.trace.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        self.broke(result);
    }

    /// Asks everybody who could answer now whether it leads.
    fn look(&mut self) {
        let now = self.now;
        let tokens = self
            .machines
            .iter()
            .enumerate()
            .filter(|(_, machine)| !machine.paused)
            .filter_map(|(member, machine)| {
                Some((member, machine.engine.as_ref()?.token(machine.clock(now))?))
            });
        match self.leases.hold(tokens) {
            Ok(leased) => self.leased = leased,
            Err(broken) => self.broke(Err(broken)),
        }
    }

    /// After a quiet time there is one leader, clients are served, and all members have the same.
    fn recovered(&mut self, changes: u64) -> Result<(), Broken> {
        let leaders: Vec<usize> = (0..self.machines.len())
            .filter(|&member| self.machines[member].led.is_some())
            .collect();
        let broken = |seen| {
            Err(Broken {
                property: "recovery",
                seen,
            })
        };
        if leaders.len() != 1 {
            return broken(format!("{leaders:?} lead at the end"));
        }
        if self.plan.clients > 0 && changes < 20 {
            return broken(format!(
                "{changes} changes were acknowledged after the faults"
            ));
        }
        if !self.leased {
            return broken("nobody holds a lease at the end".to_owned());
        }
        // What is on its way arrives once nobody asks for more.
        self.clients.clear();
        self.run_until(self.now + 1_000_000)?;
        let first = &self.machines[0];
        for (member, machine) in self.machines.iter().enumerate() {
            if machine.store != first.store || machine.applied != first.applied {
                return broken(format!(
                    "member {member} applied {}, member 0 {}",
                    machine.applied, first.applied
                ));
            }
        }
        Ok(())
    }
}
