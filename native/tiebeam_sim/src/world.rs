//! A virtual clock, the machines, and the queue of what happens next.

mod driver;
mod wires;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt::Write;

use tiebeam_core::{
    Action, CallId, Cluster, Command, Config, Duration, Event, Health, Instant, Kind, Member,
    Metrics, NodeName, Random, Status, Timing,
};

use crate::check::{self, Broken, Evidence, Growth, Lives};
use crate::faults::Fault;
use crate::machine::{Core, Machine, State, Wedge};
use crate::network::{Link, Network};
use crate::plan::{Detail, Plan};
use crate::record::{Record, Tally, Told};

/// A cluster in virtual time.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Instant,
    random: Random,
    network: Network,
    machines: Vec<Machine>,
    names: HashMap<NodeName, Vec<usize>>,
    queue: BinaryHeap<Due>,
    happenings: u64,
    /// What was sent into a cut over a connection, by its direction.
    held: BTreeMap<(usize, usize), Vec<Letter>>,
    lives: Lives,
    growth: Growth,
    evidence: Evidence,
    records: Vec<Record>,
    tally: Tally,
    transcript: String,
    /// Emptied, but not given back: steps are many.
    actions: Vec<Action>,
    /// Messages that were sent, while they are recorded.
    recorded: Option<Vec<(usize, usize, Vec<u8>)>>,
}

/// A message on its way.
#[derive(Debug)]
struct Letter {
    link: Link,
    bytes: Vec<u8>,
    garbled: bool,
}

#[derive(Debug)]
enum Happening {
    Fault(usize),
    Wake {
        node: usize,
        core: u64,
    },
    Dialled {
        from: usize,
        to: usize,
    },
    /// Nobody answered the dial.
    Unanswered {
        from: usize,
        to: usize,
    },
    Arrive {
        from: usize,
        to: usize,
        letter: Box<Letter>,
    },
    /// The end of a connection reaches a side.
    Lost {
        node: usize,
        peer: usize,
        link: Link,
    },
    /// A side looks whether anything came since then (OTP: a net tick is overdue).
    TickDue {
        node: usize,
        peer: usize,
        link: Link,
        since: Instant,
    },
    /// A question reaches a kernel.
    Question {
        from: usize,
        to: usize,
        probe: u64,
    },
    /// Its answer comes back.
    Answered {
        from: usize,
        to: usize,
        probe: u64,
    },
    /// A kernel without a core looks for the rest of its mesh.
    Mesh {
        node: usize,
        creation: u32,
    },
    Disconnect {
        at: usize,
        from: NodeName,
    },
    Thaw {
        node: usize,
        since: Instant,
    },
    Stall {
        node: usize,
        wedge: u64,
    },
    Rouse {
        node: usize,
        wedge: u64,
    },
    Start {
        node: usize,
    },
}

/// What happens next is the earliest; of the same time, what was planned first.
#[derive(Debug)]
struct Due {
    at: Instant,
    number: u64,
    what: Happening,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl World {
    /// All hosts of the plan, at time zero.
    pub fn new(plan: Plan) -> Self {
        let count = plan.hosts.len();
        let mut names: HashMap<NodeName, Vec<usize>> = HashMap::new();
        for (number, host) in plan.hosts.iter().enumerate() {
            names.entry(host.name.clone()).or_default().push(number);
        }
        let machines = plan.hosts.iter().cloned().enumerate();
        let mut world = Self {
            now: Instant::ZERO,
            random: Random::from_seed(plan.seed),
            network: Network::new(plan.conditions.clone(), count),
            machines: machines
                .map(|(number, host)| Machine::new(host, number, count))
                .collect(),
            names,
            queue: BinaryHeap::new(),
            happenings: 0,
            held: BTreeMap::new(),
            lives: Lives::default(),
            growth: Growth::default(),
            evidence: Evidence::default(),
            records: Vec::new(),
            tally: Tally::default(),
            transcript: String::new(),
            actions: Vec::new(),
            recorded: None,
            plan,
        };
        for number in 0..world.plan.script.faults().len() {
            let at = world.plan.script.faults()[number].0;
            world.schedule(at, Happening::Fault(number));
        }
        for node in 0..count {
            if let Some(at) = world.plan.hosts[node].starts {
                world.schedule(at, Happening::Start { node });
            }
        }
        world
    }

    /// Runs the whole plan: its faults, then calm, then a quiet time, then what must hold in the end. A world that only
    /// loses messages goes on losing them for five minutes, and is calm after that.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run(&mut self) -> Result<(), Broken> {
        let last = self.plan.script.faults().last();
        let mut end = last.map_or(Instant::ZERO, |&(at, _)| at);
        if self.plan.accurate {
            end = end.max(Instant::from_millis(300_000));
        }
        self.run_until(end)?;
        self.apply(Fault::Calm)?;
        self.run_until(self.now + self.settling())?;
        self.check_agreement()?;
        self.check_growth()
    }

    /// Runs to `end`, checking what must always hold, as the plan says.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run_until(&mut self, end: Instant) -> Result<(), Broken> {
        while self.queue.peek().is_some_and(|due| due.at <= end) {
            let Some(Due { at, what, .. }) = self.queue.pop() else {
                break;
            };
            self.now = at;
            self.happen(what)?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    /// Runs for `span`.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Broken> {
        self.run_until(self.now + span)
    }

    /// Runs until `done`, at most for `span`, and says how long it took, in steps of a hundredth of a second.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run_while(
        &mut self,
        span: Duration,
        mut going_on: impl FnMut(&Self) -> bool,
    ) -> Result<Option<Duration>, Broken> {
        let start = self.now;
        while going_on(self) {
            if self.now >= start + span {
                return Ok(None);
            }
            self.run_for(Duration::from_millis(10))?;
        }
        Ok(Some(self.now.since(start)))
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Fault(number) => {
                let fault = self.plan.script.faults()[number].1.clone();
                self.apply(fault)
            }
            Happening::Start { node } => {
                self.start(node);
                Ok(())
            }
            Happening::Wake { node, core } => self.wake(node, core),
            Happening::Dialled { from, to } => self.dialled(from, to),
            Happening::Unanswered { from, to } => {
                self.machines[from].dials.remove(&to);
                Ok(())
            }
            Happening::Arrive { from, to, letter } => self.arrive(from, to, *letter),
            Happening::Lost { node, peer, link } => self.lost(node, peer, link),
            Happening::TickDue {
                node,
                peer,
                link,
                since,
            } => self.tick_due(node, peer, link, since),
            Happening::Question { from, to, probe } => {
                self.question(from, to, probe);
                Ok(())
            }
            Happening::Answered { from, to, probe } => self.answered(from, to, probe),
            Happening::Mesh { node, creation } => {
                self.mesh(node, creation);
                Ok(())
            }
            Happening::Disconnect { at, from } => match self.linked(at, &from) {
                Some(peer) if self.machines[at].runs() => self.close(at, peer),
                Some(_) | None => Ok(()),
            },
            Happening::Thaw { node, since } => self.thaw(node, since),
            Happening::Stall { node, wedge } => {
                self.stall(node, wedge);
                Ok(())
            }
            Happening::Rouse { node, wedge } => self.rouse(node, wedge),
        }
    }

    /// Makes something go wrong now.
    ///
    /// # Errors
    ///
    /// A property did not hold afterwards.
    pub fn apply(&mut self, fault: Fault) -> Result<(), Broken> {
        if self.plan.detail == Detail::Full {
            self.note(format_args!("! {fault}"));
        }
        let all = 0..self.machines.len();
        match fault {
            Fault::Cut(a, b) => {
                for (a, b) in self.pairs(&a, &b) {
                    self.cut(a, b);
                    self.cut(b, a);
                }
                Ok(())
            }
            Fault::CutOneWay { from, to } => {
                for (from, to) in self.pairs(&from, &to) {
                    self.cut(from, to);
                }
                Ok(())
            }
            Fault::Heal(a, b) => {
                for (a, b) in self.pairs(&a, &b) {
                    self.heal(a, b);
                }
                Ok(())
            }
            Fault::Split(side) => {
                let here: Vec<bool> = self
                    .machines
                    .iter()
                    .map(|one| side.contains(&one.name))
                    .collect();
                for a in all.clone() {
                    for b in all.clone().filter(|&b| here[a] != here[b]) {
                        self.cut(a, b);
                    }
                }
                Ok(())
            }
            Fault::Unite => {
                self.unite();
                Ok(())
            }
            Fault::Weather(conditions) => {
                self.network.set(conditions);
                Ok(())
            }
            Fault::Disconnect(a, b) => {
                let (Some(a), Some(b)) = (self.number(&a), self.number(&b)) else {
                    return Ok(());
                };
                for (node, peer) in [(a, b), (b, a)] {
                    if let Some(link) = self.machines[node].ports[peer].link {
                        self.lost(node, peer, link)?;
                    }
                }
                Ok(())
            }
            Fault::Crash(node) => {
                self.each(&node, |world, node| world.stop(node, State::Crashed));
                Ok(())
            }
            Fault::Vanish(node) => {
                self.each(&node, |world, node| world.stop(node, State::Vanished));
                Ok(())
            }
            Fault::Restart(node) => {
                self.each(&node, |world, node| {
                    world.stop(node, State::Crashed);
                    world.start(node);
                });
                Ok(())
            }
            Fault::Renew(node) => match self.number(&node) {
                Some(node) if self.machines[node].core.is_some() => self.renew(node),
                Some(_) | None => Ok(()),
            },
            Fault::Pause(node, span) => {
                self.each(&node, |world, node| world.pause(node, span));
                Ok(())
            }
            Fault::Wedge {
                node,
                stalled,
                awake,
            } => {
                self.each(&node, |world, node| world.wedge(node, stalled, awake));
                Ok(())
            }
            Fault::Unwedge(node) => match self.number(&node) {
                Some(node) => self.unwedge(node),
                None => Ok(()),
            },
            Fault::Leave(node) => self.ask(&node, Command::Leave),
            Fault::SetMetadata(node, bytes) => {
                if let Some(node) = self.number(&node) {
                    self.growth.may_grow(node);
                }
                self.ask(&node, Command::SetMetadata(bytes))
            }
            Fault::Broadcast(node, bytes) => self.ask(&node, Command::Broadcast(bytes)),
            Fault::Garble { from, to } => {
                self.garble(&from, &to);
                Ok(())
            }
            Fault::Calm => self.calm(),
        }
    }

    fn calm(&mut self) -> Result<(), Broken> {
        let conditions = crate::Conditions {
            loss: 0,
            burst: None,
            // Messages later than a probe waits are as good as lost.
            jitter: self.network.conditions.jitter.min(Duration::from_millis(5)),
            astray: 0,
            duplicate: 0,
            ..self.network.conditions.clone()
        };
        self.network.set(conditions);
        self.unite();
        for node in 0..self.machines.len() {
            self.unwedge(node)?;
            // Without a seed, nodes that start anew could not find the others.
            let seed = self.plan.seeds.contains(&self.machines[node].name);
            let machine = &self.machines[node];
            if (!machine.runs() && self.plan.revive) || (seed && !self.takes_part(node)) {
                self.stop(node, State::Crashed);
                self.start(node);
            }
        }
        Ok(())
    }

    /// What must hold after a quiet time.
    ///
    /// # Errors
    ///
    /// The views differ.
    pub fn check_agreement(&self) -> Result<(), Broken> {
        let running: Vec<check::Running<'_>> = (0..self.machines.len())
            .filter(|&node| self.machines[node].runs())
            .map(|node| {
                let machine = &self.machines[node];
                let left = !self.takes_part(node);
                let core = machine.core.as_ref().filter(|_| !left);
                check::Running {
                    node: &machine.name,
                    cluster: &machine.cluster,
                    kind: machine.kind,
                    left,
                    creation: machine.creation,
                    view: core.map(|core| core.cluster.view().members().collect()),
                }
            })
            .collect();
        check::completeness(&running)?;
        check::agreement(&running)
    }

    /// # Errors
    ///
    /// An incarnation grew more than the suspicions explain.
    pub fn check_growth(&self) -> Result<(), Broken> {
        let latest = self
            .machines
            .iter()
            .enumerate()
            .filter_map(|(node, machine)| {
                let me = machine.core.as_ref()?.cluster.view().me();
                Some((node, &machine.name, me.incarnation))
            });
        self.growth.check(latest)
    }

    /// How long a calm world may take until all views agree: until the longest pause is over, the slowest side has noticed
    /// its cuts, and the dead were dialled and the tables compared a few times.
    fn settling(&self) -> Duration {
        let Timing {
            greet_max,
            sync_interval,
            ..
        } = self.plan.timing;
        let parts = [
            Duration::from_secs(20),
            self.plan.conditions.notice.times(2),
            self.plan.conditions.dial_timeout,
            greet_max.times(4),
            sync_interval.times(4),
        ];
        Duration::from_micros(parts.iter().map(|part| part.as_micros()).sum())
    }

    /// What happened so far, a line each: faults, and what nodes were told. Empty unless the plan keeps all details.
    pub fn transcript(&self) -> &str {
        &self.transcript
    }

    /// What happened so far, as data.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Counts of what happened so far.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        for machine in &self.machines {
            if let Some(core) = &machine.core {
                tally.core.add(&core.cluster.view().metrics());
            }
        }
        tally
    }

    /// Forgets what was recorded and counted so far, the cores' own counts excepted.
    pub fn forget_records(&mut self) {
        self.records.clear();
        self.tally = Tally::default();
        for machine in &mut self.machines {
            (machine.sent, machine.sent_bytes, machine.received_bytes) = (0, 0, 0);
        }
    }

    /// The members that `node` knows; `None` while it has no core.
    pub fn view(&self, node: &NodeName) -> Option<Vec<Member>> {
        let core = self.machines[self.number(node)?].core.as_ref()?;
        Some(core.cluster.view().members().cloned().collect())
    }

    /// How `node` keeps up; `None` while it has no core.
    pub fn health(&self, node: &NodeName) -> Option<Health> {
        let core = self.machines[self.number(node)?].core.as_ref()?;
        Some(core.cluster.view().health())
    }

    /// What `node` counted; `None` while it has no core.
    pub fn metrics(&self, node: &NodeName) -> Option<Metrics> {
        let core = self.machines[self.number(node)?].core.as_ref()?;
        Some(core.cluster.view().metrics())
    }

    /// Whether there are cores, and each was told of exactly `count` members that are up, itself included.
    pub fn all_see(&self, count: usize) -> bool {
        let mut cores = self
            .machines
            .iter()
            .filter(|machine| machine.core.is_some())
            .peekable();
        cores.peek().is_some() && cores.all(|machine| machine.up == count)
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.machines.len()
    }

    /// Messages and bytes that host `number` sent.
    pub fn traffic(&self, number: usize) -> (u64, u64) {
        (self.machines[number].sent, self.machines[number].sent_bytes)
    }

    /// Bytes that host `number` received.
    pub fn received_bytes(&self, number: usize) -> u64 {
        self.machines[number].received_bytes
    }

    /// Whether two hosts are connected, as the first sees it.
    pub fn connected(&self, node: &NodeName, peer: &NodeName) -> bool {
        let (Some(node), Some(peer)) = (self.number(node), self.number(peer)) else {
            return false;
        };
        self.machines[node].ports[peer].link.is_some()
    }

    /// The present time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Keeps a copy of every message from now on.
    pub fn start_recording(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// The messages since then: who sent them to whom.
    pub fn stop_recording(&mut self) -> Vec<(usize, usize, Vec<u8>)> {
        self.recorded.take().unwrap_or_default()
    }

    /// Sends `bytes` over the connection of two hosts, as if the core of the first had.
    pub fn inject(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if let Some(link) = self.machines[from].ports[to].link {
            self.send(link, from, to, bytes, false);
        }
    }

    /// The number of the first host of this name.
    fn number(&self, name: &NodeName) -> Option<usize> {
        self.names.get(name)?.first().copied()
    }

    fn each(&mut self, name: &NodeName, mut what: impl FnMut(&mut Self, usize)) {
        for node in self.names.get(name).cloned().unwrap_or_default() {
            what(self, node);
        }
    }

    fn pairs(&self, a: &NodeName, b: &NodeName) -> Vec<(usize, usize)> {
        let numbers = |name| self.names.get(name).into_iter().flatten().copied();
        numbers(a)
            .flat_map(|a| numbers(b).map(move |b| (a, b)))
            .collect()
    }

    /// The host of this name that `node` is connected to.
    fn linked(&self, node: usize, name: &NodeName) -> Option<usize> {
        let hosts = self.names.get(name)?;
        hosts
            .iter()
            .copied()
            .find(|&peer| self.machines[node].ports[peer].link.is_some())
    }

    /// It runs, and has not left.
    fn takes_part(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        machine.runs()
            && machine
                .core
                .as_ref()
                .is_none_or(|core| core.cluster.view().me().status == Status::Alive)
    }

    fn start(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.runs() {
            return;
        }
        // Creations differ, and a later one need not be greater.
        machine.creation = 1 + (machine.creation + 0x5555_5655) % 0x7FFF_FFFF;
        machine.state = State::Running;
        machine.since = now;
        let creation = machine.creation;
        if machine.kind == Kind::Plain {
            self.schedule(now, Happening::Mesh { node, creation });
        } else {
            self.make_core(node, 0);
        }
    }

    /// A fresh core, as a driver makes it after its own crash: nothing is known but who is connected.
    fn renew(&mut self, node: usize) -> Result<(), Broken> {
        if self.machines[node].stands_still() {
            return Ok(());
        }
        let ran = self.machines[node].age(self.now).as_micros() / 1000;
        self.end_core(node);
        self.make_core(node, ran.max(1));
        for peer in 0..self.machines.len() {
            if self.machines[node].ports[peer].link.is_some() {
                let to = self.machines[peer].name.clone();
                self.tell(node, Event::Connected { to, visible: true }, false)?;
            }
        }
        Ok(())
    }

    fn make_core(&mut self, node: usize, incarnation: u64) {
        let machine = &self.machines[node];
        let mut config = Config {
            incarnation,
            cluster: machine.cluster.clone(),
            join: self.plan.seeds.clone(),
            seed: self.random.bits(),
            evict: self.plan.evict,
            timing: self.plan.timing.clone(),
            ..Config::new(machine.name.clone(), machine.creation, machine.kind)
        };
        if let Some(tune) = &self.plan.tune {
            tune.apply(&mut config);
        }
        let cluster = Cluster::new(config).expect("the simulator's settings are within the limits");
        self.happenings += 1;
        let number = self.happenings;
        self.lives.begin(&self.machines[node].name);
        self.evidence.begin(node);
        self.growth.begin(node, incarnation);
        let machine = &mut self.machines[node];
        machine.up = 0;
        machine.core = Some(Core {
            cluster,
            started: self.now,
            number,
            wakes: Some(self.now),
        });
        self.schedule(self.now, Happening::Wake { node, core: number });
    }

    fn end_core(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if let Some(core) = machine.core.take() {
            self.tally.core.add(&core.cluster.view().metrics());
        }
        machine.forget_waiting();
    }

    /// The node's process ends, or its whole host is gone.
    fn stop(&mut self, node: usize, state: State) {
        let now = self.now;
        self.end_core(node);
        let machine = &mut self.machines[node];
        if machine.runs() {
            machine.stop_age(now);
        }
        machine.state = state;
        machine.paused = None;
        machine.wedge = None;
        machine.dials.clear();
        for peer in 0..self.machines.len() {
            self.held.remove(&(node, peer));
            let Some(link) = self.machines[node].ports[peer].link.take() else {
                continue;
            };
            match state {
                State::Running | State::Crashed if !self.network.is_cut(node, peer) => {
                    let at = now + self.network.delay(&mut self.random);
                    self.schedule(
                        at,
                        Happening::Lost {
                            node: peer,
                            peer: node,
                            link,
                        },
                    );
                }
                State::Running | State::Crashed | State::Vanished => {
                    self.expect_ticks(peer, node, link)
                }
            }
        }
    }

    fn pause(&mut self, node: usize, span: Duration) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if !machine.runs() || machine.paused.is_some() {
            return;
        }
        machine.stop_age(now);
        machine.paused = Some(now);
        self.schedule(now + span, Happening::Thaw { node, since: now });
        for peer in 0..self.machines.len() {
            if let Some(link) = self.machines[node].ports[peer].link {
                self.expect_ticks(peer, node, link);
            }
        }
    }

    fn thaw(&mut self, node: usize, since: Instant) -> Result<(), Broken> {
        let machine = &mut self.machines[node];
        if machine.paused != Some(since) {
            return Ok(());
        }
        machine.paused = None;
        machine.since = self.now;
        for (from, probe) in std::mem::take(&mut self.machines[node].questions) {
            self.question(from, node, probe);
        }
        self.resume(node)
    }

    fn wedge(&mut self, node: usize, stalled: Duration, awake: Duration) {
        self.happenings += 1;
        let number = self.happenings;
        let machine = &mut self.machines[node];
        if machine.core.is_none() {
            return;
        }
        machine.wedge = Some(Wedge {
            number,
            stalled,
            awake,
            now: false,
        });
        self.stall(node, number);
    }

    fn stall(&mut self, node: usize, number: u64) {
        if let Some(wedge) = &mut self.machines[node].wedge
            && wedge.number == number
        {
            wedge.now = true;
            let at = self.now + wedge.stalled;
            self.schedule(
                at,
                Happening::Rouse {
                    node,
                    wedge: number,
                },
            );
        }
    }

    fn rouse(&mut self, node: usize, number: u64) -> Result<(), Broken> {
        match &mut self.machines[node].wedge {
            Some(wedge) if wedge.number == number => {
                wedge.now = false;
                let at = self.now + wedge.awake;
                self.schedule(
                    at,
                    Happening::Stall {
                        node,
                        wedge: number,
                    },
                );
                self.resume(node)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn unwedge(&mut self, node: usize) -> Result<(), Broken> {
        match self.machines[node].wedge.take() {
            Some(wedge) if wedge.now => self.resume(node),
            Some(_) | None => Ok(()),
        }
    }

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.happenings += 1;
        self.queue.push(Due {
            at,
            number: self.happenings,
            what,
        });
    }

    fn ask(&mut self, name: &NodeName, command: Command) -> Result<(), Broken> {
        for node in self.names.get(name).cloned().unwrap_or_default() {
            if self.machines[node].core.is_some() {
                let event = Event::Asked {
                    call: CallId(0),
                    command: command.clone(),
                };
                self.tell(node, event, false)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, node: usize, of: usize, told: Told, running: bool) {
        self.records.push(Record {
            at: self.now,
            node,
            of,
            told,
            running,
        });
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.transcript, "{:>14}  {line}", self.now.to_string()).expect("a string grows");
    }
}
