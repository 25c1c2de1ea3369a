//! A node's part in the group of its cluster: an engine, the machine that it feeds, and the calls of this node's processes.
//!
//! Every node that is configured for it has a copy of the machine: voters by their configuration, all others as learners.
//! So reads that may be a little old, watches and events need no other node; what must be linearizable or changes something
//! goes to the leader, through [`Group`], which finds it, repeats what was lost, and answers each call once.
//!
//! # Sessions
//!
//! A node has one session (dissertation, 6.3), opened when it is first needed and kept alive while the node lives. All that
//! its processes hold belongs to it, and is given back when the process ends ([`Group::exited`]) or, when the node is gone without
//! a word, at the end of the session. A node counts its session from the moment at which it *sent* what kept it
//! alive, the machine from a later one: so the holder knows that a claim is over before anybody else can have it
//! ([`Output::Lost`]).
//!
//! # Founding
//!
//! A group begins once. With [`Voters::Named`] the first of the names asks all of them, and founds when each has said that it
//! knows of no group; with [`Voters::Expect`] the first of those that wait does the same with the first so many that it sees.
//! Each persists its promise before it gives it and gives one only, so that two foundings of which somebody is a part
//! cannot both happen. What was founded is never founded again: a node that lost its disk, or keeps nothing on disk, returns under another
//! [`MemberId`], and the leader replaces its old one once the new one has the log.

mod claims;
mod codec;
mod command;
mod config;
mod founding;
mod leading;
mod members;
mod message;
mod output;
mod peers;
mod reads;
mod requests;
mod snapshots;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::consensus::{Consensus, Effect, Role};
use super::entry::{Index, MemberId, Payload, PersistToken, Term};
use super::machine::{Change, Command as Instruction, Machine, Watches};
use super::mutation::{Mutation, Switched};
use super::replica::Replica;
use super::settings::Settings;
use super::snapshot::Restored;
use crate::event::CallId;
use crate::identity::NodeName;
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::timers::Timers;
use claims::Claims;
use founding::Stage;
use leading::Office;
use members::Care;
use message::{Envelope, Message};
use peers::Peers;
use reads::Reads;
use requests::{JobId, Requests};
use snapshots::Logged;

pub use command::{Answer, Command, Holding, MAX_LIST, Read, Request, Standing};
pub use config::{Config, ConfigError, Founding, Stored, Timing, Voters};
pub use output::{Condition, Disk, Led, Lost, Missing, Output, Row, Stopped};

/// The first bytes of a group's messages, which tell them from those of the membership and the registry.
pub(crate) const PREFIX: [u8; 2] = [1, 32];

/// How long a group may take to be founded before it is told that somebody is missing: longer than nodes need that start together.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often that is told again.
const REPEAT: Duration = Duration::from_secs(60);

/// What happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The others are told who this node is.
    Announce,
    /// A call has waited for as long as it may.
    Job(JobId),
    /// A read has.
    Read(u64),
    /// What was sent to a leader is sent again.
    Repeat,
    /// The session is to be kept alive.
    KeepAlive,
    /// The session, or a claim, is over by this node's clock.
    Expiry,
    /// A deadline of the machine is near.
    Tick,
    /// The leader looks after the members.
    Care,
    /// The node has left, handed over or not.
    Leave,
}

/// What a write was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// A founding, and whether it was agreed.
    Founding(u64, bool),
    /// A write of the engine.
    Engine(PersistToken),
}

/// A node's part in the group of its cluster. A value, like all of this crate.
#[derive(Debug)]
pub struct Group {
    node: NodeName,
    member: MemberId,
    cluster: u64,
    voters: Voters,
    timing: Timing,
    random: Random,
    /// The greatest time seen.
    now: Instant,
    /// Not told anything yet: the time is not known.
    fresh: bool,
    /// It leaves: nothing new is begun.
    leaving: bool,
    /// Why it takes no part any more.
    stopped: Option<Stopped>,
    /// The most members that the group may have.
    room: usize,
    /// The group has no place for this node: it has this many members.
    full: Option<usize>,
    /// Since when this node waits for a group, if it does.
    waits: Instant,
    /// The condition that was told last, and when.
    told_condition: (Condition, Instant),
    stored: Stored,
    stage: Stage,
    peers: Peers,
    timers: Timers<Timer>,
    next_write: PersistToken,
    /// Writes that are not on disk.
    writes: VecDeque<(PersistToken, Written)>,
    engine: Option<Replica>,
    machine: Machine,
    /// The latest entry that was applied, with a command or without.
    applied: Index,
    watches: Watches,
    requests: Requests,
    claims: Claims,
    reads: Reads,
    office: Office,
    care: Care,
    logged: Logged,
    /// A founding by force that is being written: who waits, and what it begins with.
    forced: Option<(CallId, Restored)>,
    told_led: Led,
    told_lease: Option<(Term, Instant)>,
    outputs: Vec<Output>,
    switched: Switched,
}

impl Group {
    /// The part of `node` in the group of `cluster`, with what its disk has. `seed` decides its chance, and is different for each node.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]: the node must not take part.
    pub fn new(
        node: NodeName,
        cluster: &str,
        seed: u64,
        config: Config,
    ) -> Result<Self, ConfigError> {
        let Config {
            member,
            voters,
            timing,
            stored,
        } = config;
        let voters = founding::check(voters).map_err(|count| ConfigError::Voters { count })?;
        let mut random = Random::from_seed(seed ^ member.0.rotate_left(32));
        let founding = match &stored.founding {
            Some(founding) => founding.configuration.clone(),
            None => super::Configuration::new([member], []).unwrap_or_default(),
        };
        // The engine starts when the time is known; whether it can is known now.
        let settings = settings(member, 0, random.bits(), timing);
        Replica::new(Instant::ZERO, settings, founding, stored.restored.clone())
            .map_err(ConfigError::Restore)?;
        Ok(Self {
            cluster: number_of(cluster),
            told_led: Led {
                term: 0,
                leader: None,
            },
            node,
            member,
            voters,
            timing,
            random,
            now: Instant::ZERO,
            fresh: true,
            leaving: false,
            stopped: None,
            room: super::MAX_MEMBERS,
            full: None,
            waits: Instant::ZERO,
            told_condition: (Condition::Leaderless, Instant::ZERO),
            stored,
            stage: Stage::Seeking,
            peers: Peers::default(),
            timers: Timers::new(),
            next_write: PersistToken(1),
            writes: VecDeque::new(),
            engine: None,
            machine: Machine::new(),
            applied: 0,
            watches: Watches::default(),
            requests: Requests::new(timing.session),
            claims: Claims::default(),
            reads: Reads::default(),
            office: Office::default(),
            care: Care::default(),
            logged: Logged::default(),
            forced: None,
            told_lease: None,
            outputs: Vec::new(),
            switched: Switched::NONE,
        })
    }

    /// A rule does not hold from now on, for a test that must notice.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub fn switch_off(&mut self, mutation: super::Mutation) {
        self.switched = Switched(Some(mutation));
        self.machine.switch(self.switched);
    }

    /// Bytes came from the group of another node.
    pub fn received(&mut self, now: Instant, from: &NodeName, bytes: &[u8]) {
        if !self.begin(now) || *from == self.node {
            return;
        }
        match codec::decode(bytes) {
            Ok(envelope) if envelope.cluster == self.cluster => {
                if self.peers.meet(from).is_some() {
                    self.is_here(from);
                    self.hear(from, envelope.message);
                }
            }
            Ok(_) => {}
            Err(error) => self.ignore(from, error.to_string()),
        }
        self.settle();
    }

    /// A node that runs Tiebeam is here, and connected. Said again it has no effect.
    pub fn up(&mut self, now: Instant, node: &NodeName) {
        if !self.begin(now) || *node == self.node {
            return;
        }
        if !self.peers.is_up(node) && self.peers.meet(node).is_some() {
            self.is_here(node);
            self.announce(node);
        }
        self.settle();
    }

    /// A connection to a node came up. It may not take part; one that did is here again.
    pub fn connected(&mut self, now: Instant, node: &NodeName) {
        if self.peers.get(node).is_some() {
            self.up(now, node);
        }
    }

    /// A node is gone, or the connection to it: if it led, others may stand for election at once
    /// ([`Consensus::forget_leader`]).
    pub fn down(&mut self, now: Instant, node: &NodeName) {
        if !self.begin(now) {
            return;
        }
        if self.peers.left(node, self.now) {
            let leader = self.leader().filter(|(_, leader)| leader == node);
            if let (Some((member, _)), Some(engine)) = (leader, &mut self.engine) {
                engine.forget_leader(now, member);
            }
        }
        self.settle();
    }

    /// A local process asks for something.
    pub fn asked(&mut self, now: Instant, call: CallId, request: Request) {
        if !self.begin(now) || self.leaving {
            let answer = Answer::Stopped;
            self.outputs.push(Output::Answer { call, answer });
            return;
        }
        if let Some(limit) = self.full {
            return self.answer(call, Answer::NoReplica { limit });
        }
        let until = self.now + request.timeout;
        match request.command {
            Command::Get { .. } | Command::List { .. } | Command::Holder { .. } => {
                self.ask_read(call, until, request.command);
            }
            Command::Watch { watch, prefix } => {
                let answer = if self.watches.insert(watch, prefix) {
                    Answer::Done(self.applied)
                } else {
                    Answer::Busy {
                        limit: super::machine::MAX_WATCHES,
                    }
                };
                self.answer(call, answer);
            }
            Command::Unwatch { watch } => {
                self.watches.remove(watch);
                self.answer(call, Answer::Done(self.applied));
            }
            Command::Members => {
                let answer = Answer::Members(self.standings());
                self.answer(call, answer);
            }
            command => self.ask_write(call, until, command),
        }
        self.settle();
    }

    /// A process of this node ended: what it holds is given back, what it asked for is forgotten.
    pub fn exited(&mut self, now: Instant, pid: &Arc<[u8]>) {
        if self.begin(now) {
            self.give_back_all(pid);
            self.settle();
        }
    }

    /// The write with this token is on disk, and all before it.
    pub fn persisted(&mut self, now: Instant, token: PersistToken) {
        if !self.begin(now) {
            return;
        }
        while let Some(&(written, what)) = self.writes.front()
            && written <= token
        {
            self.writes.pop_front();
            match (what, &mut self.engine) {
                (Written::Founding(group, agreed), _) => self.saved(group, agreed),
                (Written::Engine(token), Some(engine)) => engine.persisted(now, token),
                (Written::Engine(_), None) => {}
            }
        }
        self.settle();
    }

    /// A write failed: this member stops, and says so. Nothing that was not on disk was ever said to others.
    pub fn failed(&mut self, now: Instant, why: &str) {
        if self.begin(now) {
            self.stop(Stopped::Disk(why.into()));
        }
    }

    /// This node leaves in good order: it gives back what it holds and hands its leadership over. It takes no more calls, and says
    /// [`Stopped::Left`] when that is done, or when an election timeout is over: until then it is to be told what it is told otherwise.
    pub fn leave(&mut self, now: Instant) {
        if !self.begin(now) || self.leaving {
            return;
        }
        self.leaving = true;
        self.timers
            .set(Timer::Leave, self.now + self.timing.election);
        self.answer_all();
        // Before anybody else can have what they hold.
        self.lose_all();
        self.close_session();
        self.hand_over();
        self.settle();
    }

    /// Time passed.
    pub fn wake(&mut self, now: Instant) {
        if !self.begin(now) {
            return;
        }
        if let Some(engine) = &mut self.engine
            && engine.deadline() <= now
        {
            engine.wake(now);
            self.drive();
        }
        while let Some(timer) = self.timers.take_due(self.now) {
            match timer {
                Timer::Announce => {
                    self.seek();
                    self.announce_to_all();
                }
                Timer::Job(job) => self.time_out(job),
                Timer::Read(read) => self.time_out_read(read),
                Timer::Repeat => self.repeat(),
                Timer::KeepAlive => self.keep_alive(),
                Timer::Expiry => self.expire(),
                Timer::Tick => self.tick(),
                Timer::Care => self.tend(),
                Timer::Leave => self.stop(Stopped::Left),
            }
        }
        self.settle();
    }

    /// When [`Group::wake`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped.is_some() {
            return None;
        }
        if self.fresh {
            return Some(Instant::ZERO);
        }
        let engine = self.engine.as_ref().map(Consensus::deadline);
        [engine, self.timers.next()].into_iter().flatten().min()
    }

    /// What must be done, in order. Drained after every call. Leases come first: a node stops saying that it leads before it
    /// asks another one to lead at once, however long its driver takes from one to the other.
    pub fn outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs
            .sort_by_key(|output| !matches!(output, Output::Lease { .. }));
        self.outputs.drain(..)
    }

    /// It has stopped, or left: nothing that it is told has an effect any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// How it is with this node's part, now.
    pub fn condition(&self) -> Condition {
        if let Some(why) = &self.stopped {
            Condition::Stopped(why.clone())
        } else if let Some(missing) = self.missing() {
            Condition::Unfounded(missing)
        } else if let Some(limit) = self.full {
            Condition::NoReplica { limit }
        } else if self.peers.any_foreign() {
            Condition::Foreign(self.peers.foreign())
        } else if self.told_led.leader.is_some() {
            Condition::Led
        } else {
            Condition::Leaderless
        }
    }

    /// Says whether this node takes part. The first time it begins with what the disk has.
    fn begin(&mut self, now: Instant) -> bool {
        self.now = self.now.max(now);
        if self.stopped.is_some() {
            return false;
        }
        if core::mem::replace(&mut self.fresh, false) {
            self.waits = self.now;
            let stored = core::mem::take(&mut self.stored);
            match stored.founding {
                Some(founding) if founding.agreed => self.open(founding, stored.restored),
                Some(founding) => {
                    self.stage = Stage::Promised {
                        founding,
                        saved: true,
                        promises: Default::default(),
                    };
                }
                None => {}
            }
            self.seek();
            self.announce_to_all();
        }
        true
    }

    /// The group exists, and the disk says so: the engine starts.
    fn open(&mut self, founding: Founding, restored: Restored) {
        let settings = settings(self.member, founding.group, self.random.bits(), self.timing);
        #[cfg(feature = "mutants")]
        let settings = Settings {
            mutation: self.switched.0,
            ..settings
        };
        let configuration = founding.configuration.clone();
        match Replica::new(self.now, settings, configuration, restored) {
            Ok(engine) => {
                self.stage = Stage::Founded(founding);
                self.engine = Some(engine);
                self.tell_members();
            }
            Err(error) => self.stop(Stopped::Disk(error.to_string())),
        }
    }

    fn hear(&mut self, from: &NodeName, message: Message) {
        match message {
            Message::Announce(announce) => self.on_announce(from, announce),
            Message::Ask(founding) => self.on_ask(from, founding),
            Message::Promise { group } => self.on_promise(from, group),
            Message::Withdraw { group } => self.on_withdraw(from, group),
            Message::Packet { group, to, .. }
                if self.group() != Some(group) || to != self.member => {} // For an earlier life of this node, or for another group.
            Message::Packet { bytes, .. } => {
                if let Some(engine) = &mut self.engine
                    && let Err(error) = engine.receive(self.now, &bytes)
                {
                    self.ignore(from, error.to_string());
                }
            }
            Message::Propose {
                group,
                attempt,
                command,
            } => self.on_propose(from, group, attempt, &command),
            Message::Declined {
                session,
                number,
                attempt,
            } => self.on_declined(session, number, attempt),
            Message::ReadIndex { group, id } => self.on_read_index(from, group, id),
            Message::ReadAt { id, index } => self.on_read_at(id, index),
            Message::Order {
                group,
                id,
                term,
                order,
            } => self.on_order(from, group, id, term, order),
            Message::Ordered { id, outcome } => self.on_ordered(id, outcome),
            Message::Full { group, limit } => self.on_full(group, limit),
        }
    }

    fn is_here(&mut self, node: &NodeName) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.up = true;
            peer.gone = None;
        }
    }

    /// Carries out what the engine wants, and what follows from it, until there is nothing left to do now.
    fn settle(&mut self) {
        self.drive();
        while self.stopped.is_none() && self.send_requests() {
            self.drive();
        }
        if self.stopped.is_some() {
            return;
        }
        self.tell_leader();
        self.tell_lease();
        self.leave_if_done();
        self.tell_condition();
    }

    fn drive(&mut self) {
        while let Some(effect) = self.engine.as_mut().and_then(Consensus::poll) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => {
                let disk = Disk {
                    founding: None,
                    clear: false,
                    write,
                };
                self.persist(Written::Engine(disk.write.token), disk);
            }
            Effect::Restore(snapshot) => self.restore(&snapshot),
            Effect::Send { to, bytes } => {
                if let (Some(node), Some(group)) = (self.node_of(to), self.group())
                    && self.peers.is_up(&node)
                {
                    let from = self.member;
                    self.send(
                        &node,
                        Message::Packet {
                            group,
                            from,
                            to,
                            bytes,
                        },
                    );
                }
            }
            Effect::Apply { entry, request } => {
                self.applied = entry.index;
                if let Payload::Command(command) = &entry.payload {
                    self.apply(entry.index, command);
                }
                self.applied_for(request);
                self.answer_reads();
                self.logged(&entry);
            }
            Effect::Read { request } => self.on_read(request),
            Effect::Unread { request } => self.on_unread(request),
            Effect::Unknown { request } => self.on_unknown(request),
            Effect::Leader { .. } => self.on_leader(),
            Effect::Configured(_) => self.tell_members(),
            Effect::Stopped(fault) => self.stop(Stopped::Fault(fault)),
        }
    }

    /// The next command of the group.
    fn apply(&mut self, index: Index, command: &[u8]) {
        let mut changes = Vec::new();
        let reply = self.machine.apply(index, command, &mut changes);
        self.office.applied(&self.machine, self.now);
        let origin = Instruction::origin(command);
        for change in &changes {
            self.show(change);
        }
        if let Some((session, number)) = origin {
            self.on_applied(session, number, index, reply);
        }
        for change in changes {
            self.on_change(change);
        }
        self.schedule_tick();
    }

    /// Tells those who look at the table, and those who watch.
    fn show(&mut self, change: &Change) {
        let (row, key, revision) = match change {
            Change::Put { key, revision } => {
                let Some(stored) = self.machine.store().get(key).cloned() else {
                    return;
                };
                let row = Row::Put {
                    key: key.clone(),
                    stored,
                };
                (row, key, *revision)
            }
            Change::Deleted { key, revision } => {
                (Row::Deleted { key: key.clone() }, key, *revision)
            }
            Change::Claimed { kind, name, claim } => {
                let (kind, name, claim) = (*kind, name.clone(), claim.clone());
                self.outputs
                    .push(Output::Row(Row::Claimed { kind, name, claim }));
                return;
            }
            Change::Freed { kind, name, claim } => {
                let (kind, name, claim) = (*kind, name.clone(), claim.clone());
                self.outputs
                    .push(Output::Row(Row::Freed { kind, name, claim }));
                return;
            }
            Change::Ended { .. } => return,
        };
        self.outputs.push(Output::Row(row));
        let stored = self.machine.store().get(key).cloned();
        let watched = self.watches.of(change).map(|watch| Output::Watched {
            watch,
            key: key.clone(),
            stored: stored.clone(),
            revision,
        });
        self.outputs.extend(watched);
    }

    /// Who leads: the member, and its node, if both are known.
    fn leader(&self) -> Option<(MemberId, NodeName)> {
        let leader = self.engine.as_ref()?.status().leader?;
        Some((leader, self.node_of(leader)?))
    }

    /// Where a member is.
    fn node_of(&self, member: MemberId) -> Option<NodeName> {
        if member == self.member {
            return Some(self.node.clone());
        }
        let configured = || self.engine.as_ref()?.configuration().node(member);
        self.peers.node_of(member).or_else(configured).cloned()
    }

    fn is_leader(&self) -> bool {
        self.engine
            .as_ref()
            .is_some_and(|engine| engine.status().role == Role::Leader)
    }

    fn tell_leader(&mut self) {
        let Some(engine) = &self.engine else {
            return;
        };
        let led = Led {
            term: engine.status().term,
            leader: self.leader().map(|(_, node)| node),
        };
        if led != self.told_led && led.term >= self.told_led.term {
            self.told_led = led.clone();
            self.outputs.push(Output::Led(led));
        }
    }

    /// What is wrong is told when it changes; that nobody is there to found a group with only after a while, and then again and again.
    fn tell_condition(&mut self) {
        let condition = self.condition();
        let (told, at) = &self.told_condition;
        let waits = matches!(condition, Condition::Unfounded(_));
        if waits && self.now.since(self.waits) < PATIENCE {
            return;
        }
        let changed = condition != *told && (condition.is_trouble() || told.is_trouble());
        if changed || waits && self.now.since(*at) >= REPEAT {
            self.told_condition = (condition.clone(), self.now);
            self.outputs.push(Output::Condition(condition));
        }
    }

    /// The lease is told when it is longer by half a heartbeat: what is left of it is more than two of them.
    fn tell_lease(&mut self) {
        let now = self.now;
        let lease = self.engine.as_ref().and_then(|engine| engine.lease(now));
        let lease = lease.filter(|&(_, until)| until > now && !self.leaving);
        let lease = lease.map(|(term, until)| (term, self.told_until(until)));
        let step = Duration::from_micros(self.timing.heartbeat.as_micros() / 2);
        let worth = match (self.told_lease, lease) {
            (Some((told, until)), Some((term, longer))) => told != term || longer >= until + step,
            (before, after) => before.is_some() || after.is_some(),
        };
        if worth {
            if let Some((term, _)) = lease.or(self.told_lease) {
                let until = lease.map(|(_, until)| until);
                self.outputs.push(Output::Lease { term, until });
            }
            self.told_lease = lease;
        }
    }

    /// A lease is told as it is.
    fn told_until(&self, until: Instant) -> Instant {
        if self.switched.off(Mutation::LeaseToldTooLong) {
            until + Duration::from_millis(400)
        } else if self.switched.off(Mutation::LeaseWithoutEnd) {
            Instant::from_micros(u64::MAX)
        } else {
            until
        }
    }

    fn tell_members(&mut self) {
        let Some(engine) = &self.engine else {
            return;
        };
        let configuration = engine.configuration();
        let nodes = |members: Vec<MemberId>| {
            let mut nodes: Vec<NodeName> = members
                .into_iter()
                .filter_map(|member| self.node_of(member))
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        let voters = nodes(configuration.voters().collect());
        let learners = nodes(configuration.learners().collect());
        if configuration.contains(self.member) {
            self.full = None;
        }
        self.outputs.push(Output::Members { voters, learners });
    }

    /// The members, as this node knows them.
    fn standings(&self) -> Vec<Standing> {
        let Some(engine) = &self.engine else {
            return Vec::new();
        };
        let configuration = engine.configuration();
        let leads = self.is_leader();
        let standing = |member: MemberId| {
            let me = member == self.member;
            let progress = engine.progress(member);
            let recent = |heard: Option<Instant>| {
                heard.is_some_and(|heard| self.now.since(heard) < self.timing.election)
            };
            Some(Standing {
                member,
                node: self.node_of(member)?,
                voter: configuration.votes(member),
                heard: leads.then(|| me || progress.is_some_and(|known| recent(known.heard))),
                matched: if leads && me {
                    Some(engine.status().last)
                } else {
                    progress.map(|known| known.matched)
                },
            })
        };
        configuration.members().filter_map(standing).collect()
    }

    fn send(&mut self, to: &NodeName, message: Message) {
        let bytes = codec::encode(&Envelope {
            cluster: self.cluster,
            message,
        });
        let to = to.clone();
        self.outputs.push(Output::Send { to, bytes });
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.outputs.push(Output::Answer { call, answer });
    }

    fn ignore(&mut self, from: &NodeName, why: String) {
        let from = from.clone();
        self.outputs.push(Output::Ignored { from, why });
    }

    /// Takes no part any more.
    fn stop(&mut self, why: Stopped) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(why.clone());
        self.answer_all();
        self.lose_all();
        if let Some((term, _)) = self.told_lease.take() {
            self.outputs.push(Output::Lease { term, until: None });
        }
        self.engine = None;
        self.timers.clear();
        self.outputs.push(Output::Stopped(why));
        self.tell_condition();
    }
}

fn settings(me: MemberId, group: u64, seed: u64, timing: Timing) -> Settings {
    Settings {
        heartbeat: timing.heartbeat,
        election: timing.election,
        ..Settings::lan(me, group, seed)
    }
}

/// A number for the name of a cluster (FNV-1a): two clusters on one network do not take part in each other's groups.
fn number_of(cluster: &str) -> u64 {
    cluster.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
