//! A virtual clock, the nodes, and the queue of what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use tiebeam_core::{
    Action, CallId, Cluster, Command, Config, Duration, Event, Instant, Kind, Member, NodeName,
    Notice, Random, Status, Timing,
};

use crate::check::{self, Broken, Lives, Stepped};
use crate::faults::{Fault, Script};
use crate::network::{Conditions, Link, Network};

/// Wakers are late by up to this much, as on a loaded machine.
const LATE: Duration = Duration::from_millis(20);

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides every choice of the world and of the nodes in it.
    pub seed: u64,
    /// The nodes and the clusters they are in.
    pub nodes: Vec<(NodeName, String)>,
    /// Nodes that all others look for.
    pub seeds: Vec<NodeName>,
    /// How the network behaves.
    pub conditions: Conditions,
    /// What goes wrong.
    pub script: Script,
    /// The timing of all nodes.
    pub timing: Timing,
}

impl Plan {
    /// `count` nodes of one cluster, started together, that look for the first two of them.
    pub fn quiet(seed: u64, count: usize) -> Self {
        Self {
            seed,
            nodes: (0..count)
                .map(|number| (crate::node(number), "default".to_owned()))
                .collect(),
            seeds: (0..count.min(2)).map(crate::node).collect(),
            conditions: Conditions::default(),
            script: Script::default(),
            timing: Timing::default(),
        }
    }

    /// A world with its own number of nodes, some of another cluster, its own network and five minutes of faults. All of
    /// it follows from `seed`.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let count = 3 + random.below(8) as usize;
        let mut plan = Self::quiet(seed, count);
        for (name, cluster) in plan.nodes.iter_mut().skip(2) {
            if random.below(6) == 0 {
                *cluster = "blue".to_owned();
                // Everybody looks for it, friend or not: without seeds of their own these would not find each other.
                plan.seeds.push(name.clone());
            }
        }
        plan.conditions.loss = random.below(300);
        plan.conditions.delay_max = Duration::from_millis(1 + random.below(2_000));
        let names: Vec<NodeName> = plan.nodes.iter().map(|(name, _)| name.clone()).collect();
        let pause = Duration::from_millis(200 + random.below(20_000));
        plan.script = Script::random(&mut random, &names, pause, Instant::from_millis(300_000));
        plan
    }
}

/// A cluster in virtual time.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Instant,
    random: Random,
    network: Network,
    machines: BTreeMap<NodeName, Machine>,
    queue: BTreeMap<(Instant, u64), Happening>,
    happenings: u64,
    lives: Lives,
    transcript: String,
}

/// One node: the host of a core.
#[derive(Debug)]
struct Machine {
    cluster: String,
    creation: u32,
    core: Option<Core>,
    links: BTreeMap<NodeName, Link>,
    dials: BTreeSet<NodeName>,
}

#[derive(Debug)]
struct Core {
    cluster: Cluster,
    /// The origin of the core's own time.
    started: Instant,
    /// Tells the wakers of this core from those of an earlier one.
    number: u64,
    /// When the next waker comes.
    wakes: Option<Instant>,
}

#[derive(Debug)]
enum Happening {
    Fault(Fault),
    Wake {
        node: NodeName,
        core: u64,
    },
    Dialled {
        from: NodeName,
        to: NodeName,
    },
    Arrive {
        link: Link,
        from: NodeName,
        to: NodeName,
        bytes: Vec<u8>,
        garbled: bool,
    },
    Lost {
        node: NodeName,
        peer: NodeName,
        link: Link,
    },
}

impl World {
    /// All nodes of the plan, started at time zero.
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            random: Random::from_seed(plan.seed),
            network: Network::new(plan.conditions.clone()),
            machines: BTreeMap::new(),
            queue: BTreeMap::new(),
            happenings: 0,
            lives: Lives::default(),
            transcript: String::new(),
            plan,
        };
        for (at, fault) in world.plan.script.faults().to_vec() {
            world.schedule(at, Happening::Fault(fault));
        }
        for (name, cluster) in world.plan.nodes.clone() {
            let machine = Machine {
                cluster,
                creation: 0,
                core: None,
                links: BTreeMap::new(),
                dials: BTreeSet::new(),
            };
            world.machines.insert(name.clone(), machine);
            world.start(&name);
        }
        world
    }

    /// Runs the whole plan: its faults, then calm, then a quiet time, then what must hold in the end.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run(&mut self) -> Result<(), Broken> {
        let end = self
            .plan
            .script
            .faults()
            .last()
            .map_or(Instant::ZERO, |&(at, _)| at);
        self.run_until(end)?;
        self.apply(Fault::Calm)?;
        self.run_until(self.now + self.settling())?;
        self.check_agreement()
    }

    /// Runs to `end`, checking after every step what must always hold.
    ///
    /// # Errors
    ///
    /// The first property that did not hold.
    pub fn run_until(&mut self, end: Instant) -> Result<(), Broken> {
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= end)
        {
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            match happening {
                Happening::Fault(fault) => self.apply(fault)?,
                Happening::Wake { node, core } => self.wake(&node, core)?,
                Happening::Dialled { from, to } => self.dialled(&from, &to)?,
                Happening::Arrive {
                    link,
                    from,
                    to,
                    bytes,
                    garbled,
                } => {
                    if self.link(&to, &from) == Some(link) {
                        self.step(&to, Event::Received { from, bytes }, garbled)?;
                    }
                }
                Happening::Lost { node, peer, link } => self.lost(&node, &peer, link)?,
            }
        }
        self.now = end;
        Ok(())
    }

    /// What must hold after a quiet time.
    ///
    /// # Errors
    ///
    /// The views differ.
    pub fn check_agreement(&self) -> Result<(), Broken> {
        let running = self.machines.iter().filter_map(|(name, machine)| {
            let view = machine.core.as_ref()?.cluster.view();
            let running = check::Running {
                cluster: &machine.cluster,
                creation: machine.creation,
                view: view.members().collect(),
            };
            (view.me().status == Status::Alive).then_some((name, running))
        });
        check::agreement(&running.collect())
    }

    /// How long a calm world may take until all views agree: until the slowest side has noticed its cuts, the slowest
    /// greeting is due, and lists have gone around.
    fn settling(&self) -> Duration {
        let Timing {
            greet_max,
            sync_every,
            ..
        } = self.plan.timing;
        let notice = self.plan.conditions.notice;
        Duration::from_millis(
            notice.as_millis() + 6 * greet_max.as_millis() + 10 * sync_every.as_millis(),
        )
    }

    /// What happened so far, a line each: faults, and what nodes were told.
    pub fn transcript(&self) -> &str {
        &self.transcript
    }

    /// The members that `node` knows; `None` while it is not running.
    pub fn view(&self, node: &NodeName) -> Option<Vec<Member>> {
        let core = self.machines.get(node)?.core.as_ref()?;
        Some(core.cluster.view().members().cloned().collect())
    }

    /// The present time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Makes something go wrong now.
    ///
    /// # Errors
    ///
    /// A property did not hold afterwards.
    pub fn apply(&mut self, fault: Fault) -> Result<(), Broken> {
        self.note(format_args!("! {fault}"));
        match fault {
            Fault::Cut(a, b) => {
                let open = self.link(&a, &b).or(self.link(&b, &a));
                self.network.cut(&a, &b, open);
                if let Some(link) = open {
                    for (node, peer) in [(&a, &b), (&b, &a)] {
                        let at = self.now + self.network.notice(&mut self.random);
                        self.schedule(
                            at,
                            Happening::Lost {
                                node: node.clone(),
                                peer: peer.clone(),
                                link,
                            },
                        );
                    }
                }
            }
            Fault::Heal(a, b) => self.network.heal(&a, &b),
            Fault::Disconnect(a, b) => {
                for (node, peer) in [(&a, &b), (&b, &a)] {
                    if let Some(link) = self.link(node, peer) {
                        self.lost(node, peer, link)?;
                    }
                }
            }
            Fault::Crash(node) => self.crash(&node),
            Fault::Restart(node) => {
                self.crash(&node);
                self.start(&node);
            }
            Fault::Renew(node) => {
                if self.runs(&node) {
                    self.renew(&node)?;
                }
            }
            Fault::Leave(node) => {
                if self.runs(&node) {
                    self.step(
                        &node,
                        Event::Asked {
                            call: CallId(0),
                            command: Command::Leave,
                        },
                        false,
                    )?;
                }
            }
            Fault::Garble { from, to } => self.garble(&from, &to),
            Fault::Calm => {
                self.network.calm();
                for node in self.machines.keys().cloned().collect::<Vec<_>>() {
                    let gone = self.view(&node).is_none();
                    // Without a seed, nodes that start anew could not find the others.
                    let missed = self.plan.seeds.contains(&node) && !self.takes_part(&node);
                    if gone || missed {
                        self.crash(&node);
                        self.start(&node);
                    }
                }
            }
        }
        Ok(())
    }

    fn runs(&self, node: &NodeName) -> bool {
        self.machines
            .get(node)
            .is_some_and(|machine| machine.core.is_some())
    }

    fn takes_part(&self, node: &NodeName) -> bool {
        let core = self
            .machines
            .get(node)
            .and_then(|machine| machine.core.as_ref());
        core.is_some_and(|core| core.cluster.view().me().status == Status::Alive)
    }

    fn link(&self, node: &NodeName, peer: &NodeName) -> Option<Link> {
        self.machines.get(node)?.links.get(peer).copied()
    }

    fn start(&mut self, node: &NodeName) {
        let Some(machine) = self.machines.get_mut(node) else {
            return;
        };
        // Creations differ, and a later one need not be greater.
        machine.creation = 1 + (machine.creation + 0x5555_5555) % 0x7FFF_FFFF;
        self.make_core(node, 0);
    }

    /// A fresh core, as a driver makes it after its own crash: nothing is known but who is connected.
    fn renew(&mut self, node: &NodeName) -> Result<(), Broken> {
        self.make_core(node, self.now.as_millis());
        let peers: Vec<NodeName> = self.machines[node].links.keys().cloned().collect();
        for to in peers {
            self.step(node, Event::Connected { to }, false)?;
        }
        Ok(())
    }

    fn make_core(&mut self, node: &NodeName, incarnation: u64) {
        let Some(machine) = self.machines.get_mut(node) else {
            return;
        };
        let config = Config {
            incarnation,
            cluster: machine.cluster.clone(),
            join: self.plan.seeds.clone(),
            seed: self.random.bits(),
            timing: self.plan.timing.clone(),
            ..Config::new(node.clone(), machine.creation, Kind::Rust)
        };
        let cluster = Cluster::new(config).expect("the simulator's settings are within the limits");
        self.happenings += 1;
        let number = self.happenings;
        machine.core = Some(Core {
            cluster,
            started: self.now,
            number,
            wakes: None,
        });
        self.lives.begin(node);
        self.schedule(
            self.now,
            Happening::Wake {
                node: node.clone(),
                core: number,
            },
        );
    }

    /// The node is gone; its peers' kernels are told by the network as fast as it can.
    fn crash(&mut self, node: &NodeName) {
        let Some(machine) = self.machines.get_mut(node) else {
            return;
        };
        machine.core = None;
        machine.dials.clear();
        for (peer, link) in std::mem::take(&mut machine.links) {
            let at = self.now + self.network.delay(&mut self.random);
            self.schedule(
                at,
                Happening::Lost {
                    node: peer,
                    peer: node.clone(),
                    link,
                },
            );
        }
    }

    fn wake(&mut self, node: &NodeName, number: u64) -> Result<(), Broken> {
        match self
            .machines
            .get_mut(node)
            .and_then(|machine| machine.core.as_mut())
        {
            Some(core) if core.number == number => {
                core.wakes = None;
                self.step(node, Event::Woke, false)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn dialled(&mut self, from: &NodeName, to: &NodeName) -> Result<(), Broken> {
        let dialling = self
            .machines
            .get_mut(from)
            .is_some_and(|machine| machine.dials.remove(to));
        if !dialling
            || !self.runs(to)
            || self.network.is_cut(from, to)
            || self.link(from, to).is_some()
        {
            return Ok(());
        }
        // The other side may not have noticed yet that an earlier connection is gone: now it does.
        if let Some(old) = self.link(to, from) {
            self.lost(to, from, old)?;
        }
        let link = self.network.open();
        for (node, peer) in [(from, to), (to, from)] {
            if let Some(machine) = self.machines.get_mut(node) {
                machine.links.insert(peer.clone(), link);
            }
        }
        self.step(from, Event::Connected { to: to.clone() }, false)?;
        self.step(to, Event::Connected { to: from.clone() }, false)
    }

    fn lost(&mut self, node: &NodeName, peer: &NodeName, link: Link) -> Result<(), Broken> {
        match self.machines.get_mut(node) {
            Some(machine) if machine.links.get(peer) == Some(&link) => {
                machine.links.remove(peer);
                self.step(node, Event::Disconnected { from: peer.clone() }, false)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Bytes that no decoder may take for a message: of another version, cut short, or with something behind the end.
    fn garble(&mut self, from: &NodeName, to: &NodeName) {
        let Some(link) = self.link(from, to) else {
            return;
        };
        let mut bytes = vec![
            1, 4, 0, 5, b'x', b'@', b's', b'i', b'm', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        match self.random.below(3) {
            0 => bytes[0] = 2 + self.random.below(254) as u8,
            1 => bytes.truncate(self.random.below(bytes.len() as u64) as usize),
            _ => bytes.push(self.random.bits() as u8),
        }
        self.send(link, from, to, bytes, true);
    }

    fn send(&mut self, link: Link, from: &NodeName, to: &NodeName, bytes: Vec<u8>, garbled: bool) {
        if let Some(at) = self.network.arrival(&mut self.random, self.now, link, to) {
            let (from, to) = (from.clone(), to.clone());
            self.schedule(
                at,
                Happening::Arrive {
                    link,
                    from,
                    to,
                    bytes,
                    garbled,
                },
            );
        }
    }

    fn dial(&mut self, from: &NodeName, to: &NodeName) {
        let dialling = self
            .machines
            .get_mut(from)
            .is_some_and(|machine| machine.dials.insert(to.clone()));
        if dialling {
            let at = self.now + self.network.delay(&mut self.random);
            self.schedule(
                at,
                Happening::Dialled {
                    from: from.clone(),
                    to: to.clone(),
                },
            );
        }
    }

    /// The driver: tells the core, carries out what it wants, checks what must hold.
    fn step(&mut self, node: &NodeName, event: Event, garbled: bool) -> Result<(), Broken> {
        let Some(machine) = self.machines.get_mut(node) else {
            return Ok(());
        };
        let cluster = machine.cluster.clone();
        let Some(core) = &mut machine.core else {
            return Ok(());
        };
        let now = Instant::from_millis(self.now.since(core.started).as_millis());
        let before: Vec<Member> = core.cluster.view().members().cloned().collect();
        let mut actions = Vec::new();
        core.cluster.step(now, event, &mut actions);
        let after: Vec<Member> = core.cluster.view().members().cloned().collect();

        let wakes = core.cluster.deadline().map(|deadline| {
            let late = Duration::from_millis(self.random.below(LATE.as_millis() + 1));
            core.started + Duration::from_millis(deadline.as_millis()) + late
        });
        let (number, sooner) = (
            core.number,
            wakes.filter(|&at| core.wakes.is_none_or(|other| at < other)),
        );
        if let Some(at) = sooner {
            core.wakes = Some(at);
            // A deadline that has passed is due at once.
            self.schedule(
                at.max(self.now),
                Happening::Wake {
                    node: node.clone(),
                    core: number,
                },
            );
        }

        let step = Stepped {
            node,
            cluster: &cluster,
            garbled,
            before: &before,
            after: &after,
            actions: &actions,
        };
        self.lives.check(&step)?;
        check::garbage(&step)?;
        check::identity(&step, |name| {
            self.machines
                .get(name)
                .map_or("", |machine| machine.cluster.as_str())
        })?;

        for action in actions {
            match action {
                Action::Send { to, bytes } => match self.link(node, &to) {
                    Some(link) => self.send(link, node, &to, bytes, false),
                    None => self.dial(node, &to),
                },
                Action::Answer { .. } => {}
                Action::Notify(notice) => self.note_notice(node, &notice),
            }
        }
        Ok(())
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((at, self.happenings), happening);
    }

    fn note_notice(&mut self, node: &NodeName, notice: &Notice) {
        let (word, member) = match notice {
            Notice::Up(member) => ("up", member),
            Notice::Down(member) => ("down", member),
            Notice::Left(member) => ("left", member),
            Notice::Refreshed(member) => ("refreshed", member),
            Notice::Forgotten(member) => ("forgotten", member),
            Notice::Refused {
                node: peer,
                cluster,
            } => {
                return self.note(format_args!("{node}: refused {peer} of {cluster:?}"));
            }
            Notice::Ignored { from, why } => {
                return self.note(format_args!("{node}: ignored {from}: {why}"));
            }
        };
        self.note(format_args!("{node}: {word} {}", member.identity()));
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.transcript, "{:>10}  {line}", self.now.to_string()).expect("a string grows");
    }
}
