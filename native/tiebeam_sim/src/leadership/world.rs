//! A group of engines, its network, disks and clocks, and its clients.

mod aimed;
mod clients;
mod faults;
mod links;
mod machine;
mod operators;

use std::collections::{BTreeMap, BTreeSet};

use tiebeam_core::leadership::{
    Configuration, Effect, Entry, MemberId, Payload, PersistToken, RequestId, Role, Snapshot, Write,
};
use tiebeam_core::{Instant, Random};

use super::Broken;
use super::check::{Commits, Elections, Leases, Logs, Progress, members};
use super::engine::{Engine, founding};
use super::history::History;
use super::plan::Plan;
use super::store::{Command, Outcome, Store};
use aimed::Strike;
use clients::Client;
use links::Busy;
use machine::{Machine, machine_of};

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
        to: MemberId,
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
        gone: MemberId,
    },
    Compact {
        member: usize,
    },
    Operator {
        /// There will be another turn.
        again: bool,
    },
    Strike {
        member: usize,
        strike: Strike,
    },
    Relief,
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
    /// Snapshots that a member got from a leader.
    pub installed: u64,
    /// Lives that began with a snapshot.
    pub resumed: u64,
    /// Changes of the members that were committed.
    pub changed: u64,
    /// Joint configurations that were left by another leader than the one who began them.
    pub left_by_others: u64,
    /// Leaders that were removed by a change.
    pub removed_leaders: u64,
    /// Changes that were refused because another was under way.
    pub collided: u64,
    /// Disks that were lost.
    pub wiped: u64,
    /// Members that stopped because a write failed.
    pub failed_writes: u64,
    /// Members that crashed between a write and the word of it.
    pub untold: u64,
    /// Messages to somebody whose disk was lost.
    pub misdirected: u64,
    /// Leaders that were struck in the moment of their election, or soon after.
    pub struck: u64,
    /// Members that crashed with a snapshot that was not on disk.
    pub uninstalled: u64,
    /// Messages that met a busy link, and were dropped or held.
    pub held: u64,
    /// Messages of a later version.
    pub strange: u64,
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
        self.installed += other.installed;
        self.resumed += other.resumed;
        self.changed += other.changed;
        self.left_by_others += other.left_by_others;
        self.removed_leaders += other.removed_leaders;
        self.collided += other.collided;
        self.wiped += other.wiped;
        self.failed_writes += other.failed_writes;
        self.untold += other.untold;
        self.misdirected += other.misdirected;
        self.struck += other.struck;
        self.uninstalled += other.uninstalled;
        self.held += other.held;
        self.strange += other.strange;
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
    busy: BTreeMap<(usize, usize), Busy>,
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
    /// The last two configurations that were committed.
    committed: [Configuration; 2],
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
            busy: BTreeMap::new(),
            faulty: true,
            clients: Vec::new(),
            next_client: 1,
            next_request: 1,
            requests: BTreeMap::new(),
            history: History::default(),
            elections: Elections::default(),
            logs: Logs::default(),
            commits: Commits::default(),
            committed: [founding(plan.members), founding(plan.members)],
            leases: Leases::default(),
            leased: false,
            tally: Tally::default(),
            trace: 0,
            broken: None,
            plan,
        };
        for member in 0..world.plan.members + world.plan.spares {
            let drift = world.plan.drift;
            let rate = 1000 - drift + world.random.below(2 * drift + 1);
            let founding = founding(world.plan.members);
            world.machines.push(Machine::new(member, rate, founding));
            world.start(member);
            if let Some(gap) = world.plan.compact {
                let delay = world.between(gap) * MS;
                world.after(delay, Event::Compact { member });
            }
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
        if let Some((least, _)) = world.plan.operators {
            for _ in 0..2 {
                world.after(least * MS, Event::Operator { again: true });
            }
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

    /// What the world's clock shows, in microseconds.
    pub fn now(&self) -> u64 {
        self.now
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
            Event::Operator { again } => self.operator(again),
            Event::Strike { member, strike } => self.strike(member, strike),
            Event::Relief => self.relief(),
            Event::Deliver { to, .. } if self.machines[machine_of(to)].paused => {
                self.machines[machine_of(to)].parked.push(event);
            }
            Event::Wake { member, .. }
            | Event::Synced { member, .. }
            | Event::Hint { at: member, .. }
                if self.machines[member].paused =>
            {
                self.machines[member].parked.push(event);
            }
            Event::Compact { member } => self.compact(member),
            Event::Wake { member, life } => {
                if self.machines[member].life == life {
                    self.machines[member].armed = None;
                    self.tell(member, |engine, now| engine.wake(now));
                }
            }
            Event::Deliver { to, bytes } => self.deliver(to, &bytes),
            Event::Synced {
                member,
                life,
                token,
            } => {
                if self.machines[member].life == life {
                    self.synced(member, token);
                }
            }
            Event::Hint { at, life, gone } => {
                if self.machines[at].life == life {
                    self.tell(at, |engine, now| engine.forget_leader(now, gone));
                }
            }
        }
    }

    fn deliver(&mut self, to: MemberId, bytes: &[u8]) {
        self.tally.delivered += 1;
        let member = machine_of(to);
        if self.plan.strangers > 0 && self.chance(self.plan.strangers) {
            self.deliver_stranger(member, bytes);
        }
        let (mut refused, mut asked) = (None, false);
        self.tell(member, |engine, now| {
            asked = true;
            refused = engine.receive(now, bytes).err()
        });
        // What was meant for somebody who lost its disk must not reach whoever has its place.
        let stale = self.machines[member].id != to;
        self.tally.misdirected += u64::from(stale && asked);
        let seen = match refused {
            Some(error) if !stale => format!("member {to}: {error}"),
            None if stale && asked => format!("member {member} takes a message for {to}"),
            _ => return,
        };
        self.broke(Err(Broken {
            property: "engines understand each other",
            seen,
        }));
    }

    /// Everything up to `token` is on the disk of `member`, if that takes any more.
    fn synced(&mut self, member: usize, token: PersistToken) {
        if self.machines[member].full {
            self.tally.failed_writes += 1;
            self.crash_with(member, Some(0));
            return;
        }
        let voted = self.machines[member].sync(token);
        if self.plan.crash_at_write > 0 && self.faulty && self.chance(self.plan.crash_at_write) {
            self.tally.untold += 1;
            self.crash_and_return(member);
            return;
        }
        self.tell(member, |engine, now| engine.persisted(now, token));
        let written = self.plan.crash_at_write > 0 && self.chance(self.plan.crash_at_write);
        if self.faulty && (written || voted && self.chance(self.plan.crash_at_vote)) {
            self.crash_and_return(member);
        }
    }

    fn compact(&mut self, member: usize) {
        let Some(gap) = self.plan.compact else {
            return;
        };
        let delay = self.between(gap) * MS;
        self.after(delay, Event::Compact { member });
        if self.machines[member].paused {
            return;
        }
        let state = self.state(member);
        self.tell(member, |engine, now| engine.compact(now, state.into()));
    }

    /// The machine of `member`, for a snapshot: now and then one that takes several messages.
    fn state(&mut self, member: usize) -> Vec<u8> {
        let (often, most) = self.plan.padding;
        let padding = if self.chance(often) {
            self.random.below(most as u64) as usize
        } else {
            0
        };
        self.machines[member].store.encode(padding)
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
        match E::start(now, machine.id, seed, machine.disk.clone(), &self.plan) {
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
        self.machines[member].begun = true;
    }

    /// Tells an engine something, and carries out what it wants.
    fn tell(&mut self, member: usize, what: impl FnOnce(&mut E, Instant)) {
        let machine = &mut self.machines[member];
        let now = machine.clock(self.now);
        let Some(engine) = &mut machine.engine else {
            return;
        };
        what(engine, now);
        let (mut writes_vote, mut writes, mut installs) = (false, false, false);
        self.aim(member);
        while let Some(effect) = self.machines[member]
            .engine
            .as_mut()
            .and_then(|engine| engine.poll())
        {
            writes_vote |= matches!(&effect, Effect::Persist(write) if write.hard.is_some());
            writes |= matches!(&effect, Effect::Persist(_));
            installs |= matches!(&effect, Effect::Persist(write) if write.truncate.is_some());
            let applies = matches!(&effect, Effect::Apply { .. });
            self.carry_out(member, effect);
            if applies && self.plan.compact_at_apply > 0 && self.chance(self.plan.compact_at_apply)
            {
                self.compact_between(member);
            }
        }
        self.inspect(member);
        self.arm(member);
        let writes = writes && self.plan.crash_at_write > 0;
        let written = writes && self.chance(self.plan.crash_at_write);
        if self.faulty && (written || writes_vote && self.chance(self.plan.crash_at_vote)) {
            self.crash_and_return(member);
        } else if installs && self.plan.crash_at_install > 0 {
            self.crash_at_install(member);
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
            Effect::Send { to, bytes } => self.send(member, to, bytes),
            Effect::Persist(write) => self.write(member, write),
            Effect::Restore(snapshot) => self.restore(member, &snapshot),
            Effect::Apply { entry, request } => {
                let majority = self.majority_has(member, &entry);
                let machine = &mut self.machines[member];
                let status = machine.engine.as_ref().map(|engine| engine.status());
                let term = status.map_or(0, |status| status.term);
                let mut result = self.commits.applied((member, term), &entry, majority);
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
                let first = matches!(result, Ok(true));
                let outcome = match &entry.payload {
                    Payload::Command(bytes) => {
                        Command::decode(bytes).map(|command| machine.store.apply(command))
                    }
                    Payload::Noop | Payload::Configuration(_) => None,
                };
                let sum = machine.store.sum();
                if first && let Payload::Configuration(configuration) = &entry.payload {
                    self.tally.changed += 1;
                    self.committed.rotate_left(1);
                    self.committed[1] = configuration.clone();
                    let leads = status.is_some_and(|status| status.role == Role::Leader);
                    let gone = leads && !configuration.votes(machine.id);
                    self.tally.removed_leaders += u64::from(gone);
                }
                let became = self.commits.became(member, entry.index, sum, first);
                self.broke(result.and(became));
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

    /// A write begins.
    fn write(&mut self, member: usize, write: Write) {
        let machine = &mut self.machines[member];
        let mut result = Ok(());
        let purged = (write.purge, self.commits.term(write.purge));
        if let Some(engine) = &machine.engine {
            let status = engine.status();
            let leads = status.role == Role::Leader && machine.led == Some(status.term);
            let image = &mut machine.image;
            let last = image.last();
            if let Some(first) = write.truncate {
                image.compact(write.snapshot.as_ref(), purged);
                image.truncate(first);
            }
            if let Some(first) = write.entries.first() {
                image.truncate(first.index);
                if leads {
                    result = Logs::replaced(member, first.index, last);
                }
            }
            for entry in &write.entries {
                result = result.and(self.logs.wrote(member, image.last_term(), entry));
                if let Payload::Configuration(next) = &entry.payload
                    && status.role == Role::Leader
                    && entry.term == status.term
                {
                    let (current, since, term) = image.configured(u64::MAX);
                    let left = current.is_joint() && term != 0 && term != entry.term;
                    self.tally.left_by_others += u64::from(left);
                    let began = image.term(status.commit) == Some(entry.term);
                    result = result.and(members::changes(
                        member,
                        (current, since),
                        (next, entry.index),
                        (status.commit, began),
                    ));
                }
                image.push(entry.clone());
            }
            image.compact(write.snapshot.as_ref(), purged);
            let (base, snapshot) = (image.base(), image.snapshot());
            result = result.and(Progress::writes(member, base, snapshot, machine.applied));
        }
        self.broke(result);
        let delay = self.between(self.plan.write);
        let machine = &mut self.machines[member];
        let done = machine.sync_done(self.now, delay);
        let (life, token) = (machine.life, write.token);
        machine.writes.push_back(write);
        self.after(
            done - self.now,
            Event::Synced {
                member,
                life,
                token,
            },
        );
    }

    /// A snapshot takes the place of a machine.
    fn restore(&mut self, member: usize, snapshot: &Snapshot) {
        let machine = &mut self.machines[member];
        if machine.begun {
            self.tally.installed += 1;
        } else {
            self.tally.resumed += 1;
        }
        let seen = |seen| Broken {
            property: "state-machine safety",
            seen,
        };
        let result = match Store::decode(&snapshot.state) {
            _ if snapshot.index < machine.applied => Err(seen(format!(
                "member {member} goes back from {} to a snapshot of {}",
                machine.applied, snapshot.index
            ))),
            Some(store) => {
                machine.store = store;
                machine.applied = snapshot.index;
                let sum = machine.store.sum();
                self.commits.became(member, snapshot.index, sum, false)
            }
            None => Err(seen(format!("member {member} got no snapshot"))),
        };
        self.broke(result);
    }

    /// The configuration in force where `member` is, as its log says.
    fn configuration(&self, member: usize) -> &Configuration {
        let machine = &self.machines[member];
        let up_to = if E::CONFIGURED_WHEN_APPLIED {
            machine.applied
        } else {
            u64::MAX
        };
        machine.image.configured(up_to).0
    }

    /// `entry` is on the disks of a majority, in the eyes of `member`, which commits it. Who counts by what it has applied may have counted
    /// by the last configuration that was committed before, or by the one before that, which the next one waits for.
    fn majority_has(&self, member: usize, entry: &Entry) -> bool {
        let counted = |configuration| {
            majorities(configuration, |voter| {
                self.machines[machine_of(voter)].has(voter, entry)
            })
        };
        if E::CONFIGURED_WHEN_APPLIED {
            self.committed.iter().any(counted)
        } else {
            counted(self.configuration(member))
        }
    }

    /// Looks at what a member says of itself.
    fn inspect(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        let Some(engine) = &machine.engine else {
            return;
        };
        let status = engine.status();
        let mut result = machine.progress.says(
            member,
            status,
            machine.applied,
            machine.image.term(status.commit),
        );
        machine.led = (status.role == Role::Leader).then_some(status.term);
        if status.role == Role::Leader {
            match self.elections.leads(member, status.term) {
                Ok(true) => {
                    // Its own log, whether it is on disk or not.
                    let has = |index, term| machine.image.has(index, term);
                    result = result.and(self.commits.elected(member, status.term, has));
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
            let members = self.machines.iter().enumerate().map(|(member, machine)| {
                let status = machine.engine.as_ref().map(|engine| engine.status());
                format!(
                    "{}: {status:?} with {:?}",
                    machine.id,
                    self.configuration(member)
                )
            });
            let members: Vec<String> = members.collect();
            return broken(format!(
                "{leaders:?} lead at the end\n{}",
                members.join("\n")
            ));
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
        let Some(leader) = self.leader() else {
            return broken("the leader is gone at the very end".to_owned());
        };
        let (configuration, first) = (self.configuration(leader), &self.machines[leader]);
        if configuration.is_joint() {
            return broken(format!("two majorities at the end: {configuration:?}"));
        }
        if !configuration.votes(first.id) {
            return broken(format!(
                "member {} leads at the end and does not vote",
                first.id
            ));
        }
        for (member, machine) in self.machines.iter().enumerate() {
            let same = machine.store == first.store && machine.applied == first.applied;
            if configuration.contains(machine.id) && !same {
                return broken(format!(
                    "member {member} applied {}, the leader, {leader}, {}",
                    machine.applied, first.applied
                ));
            }
        }
        Ok(())
    }
}

/// A majority of the voters is among those for whom `has` holds, and one of the outgoing ones if there are any.
fn majorities(configuration: &Configuration, has: impl Fn(MemberId) -> bool) -> bool {
    let half = |members: Vec<MemberId>| {
        let count = members.iter().filter(|&&member| has(member)).count();
        count * 2 > members.len()
    };
    let outgoing: Vec<_> = configuration.outgoing().collect();
    half(configuration.voters().collect()) && (outgoing.is_empty() || half(outgoing))
}
