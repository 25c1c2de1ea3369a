//! TiKV's `raft` 0.7 behind the seam, as a judge of the core's engine: the same scenarios, properties and seeds.
//!
//! Everything that the seam promises and `raft` does not offer is added here in the simplest way that is safe: a token rests
//! on a read that a majority confirmed, and every winner waits out one election timeout before it takes one. Every change of the
//! members goes through a joint configuration, which whoever leads leaves once it has applied it. `raft` goes by the
//! configuration that it has applied, so at a restart everything is applied again that is known to be committed: up to the last
//! but one configuration of the log, for the last one follows only what was applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::{
    self, ConfChangeTransition, ConfChangeType, ConfChangeV2, EntryType, Message, MessageType,
};
use raft::{
    Config, GetEntriesContext, RaftState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole,
    Storage, StorageError,
};
use tiebeam_core::leadership::{
    Configuration, Consensus, DecodeError, Effect, Entry, HardState, Index, MemberId, Payload,
    PersistToken, Refusal, RequestId, Restored, Role, Snapshot, Standing, Status, Term, Write,
};
use tiebeam_core::{Duration, Instant, Random};

use super::engine::{Engine, founding};
use super::plan::Plan;

/// The engine counts time in these.
const TICK: Duration = Duration::from_millis(10);

/// A learner may vote when so many entries are missing on it at most, as in the core's engine.
const MAX_LAG: u64 = 64;

/// One member, run by `raft`.
#[derive(Debug)]
pub struct Judge {
    me: MemberId,
    node: Node,
    random: Random,
    now: Instant,
    next_tick: Instant,
    beat_at: Instant,
    election: Duration,
    heartbeat: Duration,
    /// Readies that are not on disk, and what may be said then.
    waiting: VecDeque<(u64, bool, Vec<Message>)>,
    hard: HardState,
    effects: VecDeque<Effect>,
    applied: Index,
    /// A snapshot that was installed and is not on disk yet, and in which ready it was.
    installing: Option<(u64, Index)>,
    /// The latest ready that wrote something.
    issued: u64,
    /// Snapshots that were sent, of which the engine wants to hear whether they arrived.
    snapshots: Vec<u64>,
    /// As of what is applied.
    members: Configuration,
    /// What the machine was told to apply up to now, and the members as of then: effects that wait are not in it.
    machine: (Index, Configuration),
    /// Who asked for the change under way.
    changing: Option<RequestId>,
    tail: u64,
    /// Tells requests of this life from those of others.
    life: u64,
    reads: BTreeMap<u64, Reading>,
    next_read: u64,
    confirmed: VecDeque<(Index, RequestId)>,
    /// When the latest confirmed question was sent, and in which term.
    lease: Option<(Instant, Term)>,
    led_since: Option<(Instant, Term)>,
    campaign_at: Option<Instant>,
    told: (Term, Option<MemberId>),
}

/// The engine has no words for itself.
struct Node(RawNode<Disk>);

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawNode")
    }
}

/// The log that the engine reads, which begins behind a snapshot.
#[derive(Default)]
struct Disk {
    state: RaftState,
    /// The entry before the first one, and its term.
    base: (u64, u64),
    entries: Vec<eraftpb::Entry>,
    snapshot: eraftpb::Snapshot,
}

impl Disk {
    fn append(&mut self, entries: &[eraftpb::Entry]) {
        if let Some(first) = entries.first() {
            let keep = first.index.saturating_sub(self.base.0 + 1);
            self.entries.truncate(keep as usize);
            self.entries.extend_from_slice(entries);
        }
    }

    fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn purge(&mut self, index: u64) {
        if let Ok(term) = self.term(index)
            && index > self.base.0
        {
            self.entries.drain(..(index - self.base.0) as usize);
            self.base = (index, term);
        }
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let place = |index: u64| (index - self.base.0 - 1) as usize;
        let mut entries = self.entries[place(low)..place(high)].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let place = index.checked_sub(self.base.0 + 1);
        let place = place.ok_or(raft::Error::Store(StorageError::Compacted))?;
        let entry = self.entries.get(place as usize);
        entry
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let metadata = self.snapshot.get_metadata();
        // Nobody takes a snapshot that is older than its membership: the next one will do.
        let members = configuration(metadata.get_conf_state());
        let knows = members.is_some_and(|members| members.contains(MemberId(to)));
        if metadata.index < request_index || !knows {
            let error = StorageError::SnapshotTemporarilyUnavailable;
            return Err(raft::Error::Store(error));
        }
        Ok(self.snapshot.clone())
    }
}

/// What a read was asked for.
#[derive(Debug)]
enum Reading {
    Request(RequestId),
    Lease { sent: Instant, term: Term },
}

impl Engine for Judge {
    const NAME: &'static str = "raft 0.7";
    const CONFIGURED_WHEN_APPLIED: bool = true;

    fn start(
        now: Instant,
        me: MemberId,
        seed: u64,
        disk: Restored,
        plan: &Plan,
    ) -> Result<Self, String> {
        let ticks = |span: Duration| (span.as_micros() / TICK.as_micros()) as usize;
        let snapshot = disk.snapshot;
        let index = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let members = match &snapshot {
            Some(snapshot) => snapshot.configuration.clone(),
            None => founding(plan.members),
        };
        let configures = |entry: &&Entry| matches!(entry.payload, Payload::Configuration(_));
        let last_but_one = disk.entries.iter().rev().filter(configures).nth(1);
        let commit = index.max(last_but_one.map_or(0, |entry| entry.index));
        let mut store = Disk::default();
        if let Some(snapshot) = &snapshot {
            store.base = (snapshot.index, snapshot.term);
            store.snapshot = foreign_snapshot(snapshot);
        }
        let mut entries: Vec<eraftpb::Entry> = disk.entries.iter().map(foreign).collect();
        match entries.first() {
            Some(first) if first.index == 1 => store.base = (0, 0),
            // Nobody knows the term of the entry before the first one, so the first takes its place.
            Some(first) if first.index <= index => {
                store.base = (first.index, first.term);
                entries.remove(0);
            }
            _ => {}
        }
        store.append(&entries);
        store.state.conf_state = conf_state(&members);
        store.state.hard_state = eraftpb::HardState {
            term: disk.hard.term,
            vote: disk.hard.vote.map_or(0, |vote| vote.0),
            commit,
            ..Default::default()
        };
        let failed = |error: raft::Error| error.to_string();
        let config = Config {
            id: me.0,
            applied: index,
            election_tick: ticks(plan.election),
            heartbeat_tick: ticks(plan.heartbeat),
            pre_vote: true,
            check_quorum: true,
            batch_append: true,
            max_size_per_msg: 64 * 1024,
            max_inflight_msgs: 64,
            read_only_option: ReadOnlyOption::Safe,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store, &logger).map_err(failed)?;
        let mut random = Random::from_seed(seed);
        let life = random.bits();
        let mut judge = Self {
            me,
            node: Node(node),
            now,
            next_tick: now + Duration::from_micros(random.below(TICK.as_micros())),
            beat_at: now,
            random,
            election: plan.election,
            heartbeat: plan.heartbeat,
            waiting: VecDeque::new(),
            hard: disk.hard,
            effects: snapshot.into_iter().map(Effect::Restore).collect(),
            applied: index,
            installing: None,
            issued: 0,
            snapshots: Vec::new(),
            machine: (index, members.clone()),
            members,
            changing: None,
            tail: plan.tail as u64,
            life,
            reads: BTreeMap::new(),
            next_read: 0,
            confirmed: VecDeque::new(),
            lease: None,
            led_since: None,
            campaign_at: None,
            told: (disk.hard.term, None),
        };
        judge.pin();
        Ok(judge)
    }
}

fn conf_state(members: &Configuration) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: members.voters().map(|voter| voter.0).collect(),
        voters_outgoing: members.outgoing().map(|voter| voter.0).collect(),
        learners: members.learners().map(|learner| learner.0).collect(),
        ..Default::default()
    }
}

/// The inverse; `None` if nobody is in it, or somebody is twice.
fn configuration(state: &eraftpb::ConfState) -> Option<Configuration> {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
    Configuration::joint(
        ids(&state.voters),
        ids(&state.voters_outgoing),
        ids(&state.learners),
    )
    .ok()
}

/// What enters a joint configuration, or leaves one. Its context says what is in force then: who goes is found when it is applied.
fn conf_change(to: &Configuration) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    if to.is_joint() {
        change.set_transition(ConfChangeTransition::Explicit);
        let voters = to.voters().map(|voter| (voter.0, ConfChangeType::AddNode));
        let learners = to
            .learners()
            .map(|learner| (learner.0, ConfChangeType::AddLearnerNode));
        let all = voters
            .chain(learners)
            .map(|(id, what)| raft_change(id, what));
        change.set_changes(all.collect::<Vec<_>>().into());
    }
    // A message in memory is always written.
    let state = conf_state(to).write_to_bytes().unwrap_or_default();
    change.context = state.into();
    change
}

fn raft_change(id: u64, what: ConfChangeType) -> eraftpb::ConfChangeSingle {
    let mut change = eraftpb::ConfChangeSingle {
        node_id: id,
        ..Default::default()
    };
    change.set_change_type(what);
    change
}

fn foreign_snapshot(snapshot: &Snapshot) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot {
        data: snapshot.state.to_vec().into(),
        ..Default::default()
    };
    let metadata = out.mut_metadata();
    (metadata.index, metadata.term) = (snapshot.index, snapshot.term);
    metadata.set_conf_state(conf_state(&snapshot.configuration));
    out
}

fn foreign(entry: &Entry) -> eraftpb::Entry {
    let (entry_type, data) = match &entry.payload {
        Payload::Command(bytes) => (EntryType::EntryNormal, bytes.to_vec()),
        Payload::Noop => (EntryType::EntryNormal, Vec::new()),
        Payload::Configuration(to) => {
            let change = conf_change(to).write_to_bytes();
            (EntryType::EntryConfChangeV2, change.unwrap_or_default())
        }
    };
    eraftpb::Entry {
        entry_type,
        index: entry.index,
        term: entry.term,
        data: data.into(),
        ..Default::default()
    }
}

fn own(entry: &eraftpb::Entry) -> Entry {
    let payload = if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
        let change = ConfChangeV2::parse_from_bytes(&entry.data);
        let state = change.and_then(|change| eraftpb::ConfState::parse_from_bytes(&change.context));
        let to = state.ok().and_then(|state| configuration(&state));
        to.map_or(Payload::Noop, Payload::Configuration)
    } else if entry.data.is_empty() {
        Payload::Noop
    } else {
        Payload::Command(std::sync::Arc::from(&entry.data[..]))
    };
    Entry {
        index: entry.index,
        term: entry.term,
        payload,
    }
}

impl Judge {
    /// The engine draws its timeouts from a source of its own; a run must follow from its seed.
    fn pin(&mut self) {
        let raft = &mut self.node.0.raft;
        let least = raft.election_timeout();
        let mix = self.life ^ raft.term << 3 ^ raft.state as u64;
        let spread = Random::from_seed(mix).below(least as u64) as usize;
        raft.set_randomized_election_timeout(least + spread);
    }

    fn leads(&self) -> bool {
        self.node.0.raft.state == StateRole::Leader
    }

    fn term(&self) -> Term {
        self.node.0.raft.term
    }

    fn leader(&self) -> Option<MemberId> {
        Some(self.node.0.raft.leader_id)
            .filter(|&leader| leader != 0)
            .map(MemberId)
    }

    /// Asks a majority, for a request or for the lease.
    fn ask(&mut self, reading: Reading) {
        self.next_read += 1;
        self.reads.insert(self.next_read, reading);
        let context = [self.life.to_be_bytes(), self.next_read.to_be_bytes()].concat();
        self.node.0.read_index(context);
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn say(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = MemberId(message.to);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots.push(message.to);
            }
            if let Ok(bytes) = message.write_to_bytes() {
                self.effects.push_back(Effect::Send { to, bytes });
            }
        }
    }

    /// What was ready up to `number` is on disk.
    fn stored(&mut self, number: u64) {
        let mut done = None;
        let mut messages = Vec::new();
        while let Some((ready, disk, _)) = self.waiting.front() {
            if *ready > number && *disk {
                break;
            }
            if let Some((ready, _, said)) = self.waiting.pop_front() {
                done = Some(ready);
                messages.extend(said);
            }
        }
        if let Some(done) = done {
            self.node.0.on_persist_ready(done);
            if let Some((_, index)) = self.installing.take_if(|(number, _)| *number <= done) {
                self.applied = index;
                self.node.0.advance_apply_to(index);
            }
        }
        self.say(messages);
    }

    /// A configuration was committed, and everything before it is applied.
    fn configure(&mut self, to: Configuration) {
        let mut change = conf_change(&to);
        if to.is_joint() {
            let stays = |member| {
                to.voters()
                    .chain(to.learners())
                    .any(|other| other == member)
            };
            let gone = self.members.members().filter(|&member| !stays(member));
            let gone = gone.map(|member| raft_change(member.0, ConfChangeType::RemoveNode));
            change.mut_changes().extend(gone);
        }
        let applied = self.node.0.apply_conf_change(&change);
        applied.expect("the leader that proposed it had applied the same ones before");
        self.members = to.clone();
        self.effects.push_back(Effect::Configured(to));
    }

    /// What a leader owes to the configuration that it has applied: a joint one is left, and one in which it does not vote is left by itself.
    fn conclude_change(&mut self) {
        if !self.leads() {
            self.changing = None;
            return;
        }
        if !self.members.votes(self.me) {
            // The engine would go on, and look for what it knows of itself.
            let term = self.term();
            self.node.0.raft.become_follower(term, 0);
            return;
        }
        if !self.members.is_joint() || !self.may_change() {
            return;
        }
        let plain = Configuration::new(self.members.voters(), self.members.learners());
        let change = conf_change(&plain.expect("it was one half of a configuration"));
        let request = self.changing.map_or(Vec::new(), |request| {
            [self.life.to_be_bytes(), request.0.to_be_bytes()].concat()
        });
        // While leadership is handed over nothing is taken; who leads then does it.
        if self.node.0.propose_conf_change(request, change).is_ok() {
            self.changing = None;
        }
    }

    /// No change is under way, and an entry of this term is committed.
    fn may_change(&self) -> bool {
        let raft = &self.node.0.raft;
        !raft.has_pending_conf() && raft.commit_to_current_term()
    }

    /// `member` was heard of lately, and has what the log has, but for a little.
    fn follows(&self, member: MemberId) -> bool {
        let raft = &self.node.0.raft;
        let other = raft.prs().get(member.0);
        let follows = other.is_some_and(|other| {
            other.recent_active && other.matched + MAX_LAG >= raft.raft_log.last_index()
        });
        member == self.me || follows
    }

    /// Everything that the engine wants.
    fn pump(&mut self) {
        self.conclude_change();
        // Whether one arrived is seen by the next answer; one that was lost is sent again.
        for to in std::mem::take(&mut self.snapshots) {
            self.node.0.report_snapshot(to, SnapshotStatus::Finish);
        }
        for _ in 0..64 {
            if !self.node.0.has_ready() {
                break;
            }
            let mut ready = self.node.0.ready();
            let messages = ready.take_messages();
            self.say(messages);
            let committed = ready.take_committed_entries();
            for read in ready.take_read_states() {
                let number = read
                    .request_ctx
                    .get(8..)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_be_bytes);
                match number.and_then(|number| self.reads.remove(&number)) {
                    Some(Reading::Request(request)) => {
                        self.confirmed.push_back((read.index, request))
                    }
                    Some(Reading::Lease { sent, term }) => {
                        let latest = self
                            .lease
                            .map_or((term, sent), |(since, held)| (held, since));
                        let (term, sent) = latest.max((term, sent));
                        self.lease = Some((sent, term));
                    }
                    None => {}
                }
            }
            let entries = ready.take_entries();
            let hard = ready.hs().map(|hard| HardState {
                term: hard.term,
                vote: Some(hard.vote).filter(|&vote| vote != 0).map(MemberId),
            });
            let hard = hard.filter(|hard| *hard != self.hard);
            self.hard = hard.unwrap_or(self.hard);
            let number = ready.number();
            let metadata = ready.snapshot().get_metadata();
            let installed = (metadata.index > 0).then(|| Snapshot {
                index: metadata.index,
                term: metadata.term,
                configuration: configuration(metadata.get_conf_state()).expect("a member wrote it"),
                state: Arc::from(ready.snapshot().get_data()),
            });
            let store = self.node.0.mut_store();
            if let Some(snapshot) = &installed {
                store.base = (snapshot.index, snapshot.term);
                store.entries.clear();
                store.snapshot = ready.snapshot().clone();
                self.installing = Some((number, snapshot.index));
                self.members = snapshot.configuration.clone();
                self.effects.push_back(Effect::Restore(snapshot.clone()));
            }
            store.append(&entries);
            let disk = hard.is_some() || installed.is_some() || !entries.is_empty();
            let persisted = ready.take_persisted_messages();
            self.waiting.push_back((number, disk, persisted));
            if disk {
                let entries = entries.iter().map(own).collect();
                self.issued = number;
                self.effects.push_back(Effect::Persist(Write {
                    token: PersistToken(number),
                    hard,
                    purge: installed.as_ref().map_or(0, |snapshot| snapshot.index),
                    truncate: installed.as_ref().map(|snapshot| snapshot.index + 1),
                    snapshot: installed,
                    entries,
                }));
            }
            self.node.0.advance_append_async(ready);
            for entry in committed {
                self.applied = entry.index;
                let request = entry
                    .context
                    .split_first_chunk::<8>()
                    .and_then(|(life, request)| {
                        let request = u64::from_be_bytes(request.try_into().ok()?);
                        (u64::from_be_bytes(*life) == self.life).then_some(RequestId(request))
                    });
                let entry = own(&entry);
                let to = match &entry.payload {
                    Payload::Configuration(to) => Some(to.clone()),
                    _ => None,
                };
                self.effects.push_back(Effect::Apply { entry, request });
                if let Some(to) = to {
                    self.configure(to);
                }
            }
            self.node.0.advance_apply_to(self.applied);
            self.stored(0);
            if self.leads() && !self.members.votes(self.me) {
                // It goes when this is told.
                break;
            }
        }
        while let Some(&(index, request)) = self.confirmed.front() {
            if index > self.applied {
                break;
            }
            self.confirmed.pop_front();
            self.effects.push_back(Effect::Read { request });
        }
        if self.leads() {
            if self.led_since.is_none_or(|(_, term)| term != self.term()) {
                self.led_since = Some((self.now, self.term()));
            }
        } else {
            for (_, reading) in std::mem::take(&mut self.reads) {
                if let Reading::Request(request) = reading {
                    self.effects.push_back(Effect::Unread { request });
                }
            }
        }
        let told = (self.term(), self.leader());
        if told != self.told {
            self.told = told;
            self.effects.push_back(Effect::Leader {
                term: told.0,
                leader: told.1,
            });
        }
        self.pin();
    }
}

impl Consensus for Judge {
    fn wake(&mut self, now: Instant) {
        self.advance(now);
        if self.installing.is_some() {
            // The engine cannot stand while a snapshot is on its way to the disk: it looks for entries that are gone.
            (self.campaign_at, self.next_tick) = (None, self.now + TICK);
        }
        if self.campaign_at.is_some_and(|at| at <= self.now) {
            self.campaign_at = None;
            if self.leader().is_none() && self.node.0.raft.promotable() {
                // A member that may not stand says so; nothing follows from it.
                let _refused = self.node.0.campaign();
            }
        }
        if self.next_tick <= self.now {
            self.next_tick = self.now + TICK;
            self.node.0.tick();
        }
        if self.leads() && self.beat_at <= self.now {
            self.beat_at = self.now + self.heartbeat;
            let (sent, term) = (self.now, self.term());
            self.ask(Reading::Lease { sent, term });
        }
    }

    fn deadline(&self) -> Instant {
        self.campaign_at
            .map_or(self.next_tick, |at| at.min(self.next_tick))
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DecodeError> {
        self.advance(now);
        let message = Message::parse_from_bytes(bytes)
            .map_err(|_| DecodeError::foreign("no message of raft"))?;
        if message.to != self.me.0 {
            return Err(DecodeError::foreign("it is for another member"));
        }
        if message.get_msg_type() == MessageType::MsgPropose {
            return Err(DecodeError::foreign("proposals are not forwarded"));
        }
        if message.get_msg_type() == MessageType::MsgTimeoutNow && self.installing.is_some() {
            return Ok(());
        }
        // What the engine does not take is old, or for another member.
        let _ignored = self.node.0.step(message);
        Ok(())
    }

    fn propose(
        &mut self,
        now: Instant,
        request: RequestId,
        command: Vec<u8>,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let refusal = Refusal::NotLeader {
            leader: self.leader(),
            term: self.term(),
        };
        if !self.leads() {
            return Err(refusal);
        }
        let context = [self.life.to_be_bytes(), request.0.to_be_bytes()].concat();
        self.node.0.propose(context, command).map_err(|_| refusal)
    }

    fn read(&mut self, now: Instant, request: RequestId) -> Result<(), Refusal> {
        self.advance(now);
        if !self.leads() {
            return Err(Refusal::NotLeader {
                leader: self.leader(),
                term: self.term(),
            });
        }
        self.ask(Reading::Request(request));
        Ok(())
    }

    fn transfer(&mut self, now: Instant, to: Option<MemberId>) -> Result<(), Refusal> {
        self.advance(now);
        if !self.leads() {
            return Err(Refusal::NotLeader {
                leader: self.leader(),
                term: self.term(),
            });
        }
        let best = || {
            let others = self.node.0.raft.prs().iter().filter(|(id, other)| {
                let votes = self.members.votes(MemberId(**id));
                **id != self.me.0 && votes && other.recent_active
            });
            others
                .max_by_key(|(id, other)| (other.matched, **id))
                .map(|(&id, _)| MemberId(id))
        };
        let to = to.or_else(best).ok_or(Refusal::NoSuccessor)?;
        self.node.0.transfer_leader(to.0);
        Ok(())
    }

    fn change(
        &mut self,
        now: Instant,
        request: RequestId,
        to: Configuration,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let refusal = Refusal::NotLeader {
            leader: self.leader(),
            term: self.term(),
        };
        if !self.leads() {
            return Err(refusal);
        }
        if self.node.0.raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        if !self.may_change() || self.members.is_joint() {
            return Err(Refusal::Changing);
        }
        let mut fresh = to.voters().filter(|&voter| !self.members.votes(voter));
        if !fresh.all(|voter| self.members.contains(voter) && self.follows(voter)) {
            return Err(Refusal::Change("a voter learns first"));
        }
        if to.voters().filter(|&voter| self.follows(voter)).count() <= to.voters().count() / 2 {
            return Err(Refusal::Change("a majority of the voters does not answer"));
        }
        let next = Configuration::joint(to.voters(), self.members.voters(), to.learners());
        let next = next.map_err(|_| Refusal::Change("a voter becomes no learner"))?;
        let proposed = self
            .node
            .0
            .propose_conf_change(Vec::new(), conf_change(&next));
        proposed.map_err(|_| refusal)?;
        self.changing = Some(request);
        Ok(())
    }

    fn compact(&mut self, now: Instant, state: Arc<[u8]>) {
        self.advance(now);
        let tail = self.tail;
        let (index, configuration) = self.machine.clone();
        let store = self.node.0.mut_store();
        let before = store.snapshot.get_metadata().index;
        let (true, Ok(term)) = (index > before, store.term(index)) else {
            return;
        };
        if self.installing.is_some() {
            return;
        }
        let snapshot = Snapshot {
            index,
            term,
            configuration,
            state,
        };
        store.snapshot = foreign_snapshot(&snapshot);
        store.purge(index.saturating_sub(tail));
        let purge = store.base.0;
        self.effects.push_back(Effect::Persist(Write {
            token: PersistToken(self.issued),
            hard: None,
            snapshot: Some(snapshot),
            purge,
            truncate: None,
            entries: Vec::new(),
        }));
    }

    fn progress(&self, _who: MemberId) -> Option<Standing> {
        None
    }

    fn forget_leader(&mut self, now: Instant, who: MemberId) {
        self.advance(now);
        if self.leader() == Some(who) && self.node.0.raft.state == StateRole::Follower {
            let term = self.term();
            self.node.0.raft.become_follower(term, 0);
            self.pin();
            let spread = self.random.below(self.election.as_micros() / 8);
            self.campaign_at = Some(self.now + Duration::from_micros(spread));
        }
    }

    fn persisted(&mut self, now: Instant, token: PersistToken) {
        self.advance(now);
        self.stored(token.0);
    }

    fn poll(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.pump();
        }
        let effect = self.effects.pop_front();
        match &effect {
            Some(Effect::Apply { entry, .. }) => {
                self.machine.0 = entry.index;
                if let Payload::Configuration(to) = &entry.payload {
                    self.machine.1 = to.clone();
                }
            }
            Some(Effect::Restore(snapshot)) => {
                self.machine = (snapshot.index, snapshot.configuration.clone());
            }
            _ => {}
        }
        effect
    }

    fn status(&self) -> Status {
        let raft = &self.node.0.raft;
        Status {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
        }
    }

    fn token(&self, now: Instant) -> Option<Term> {
        let term = self.term();
        let lease = Duration::from_micros(self.election.as_micros() / 4 * 3);
        let holds = self
            .lease
            .is_some_and(|(sent, held)| held == term && now < sent + lease);
        let waited = self
            .led_since
            .is_some_and(|(since, led)| led == term && now >= since + self.election);
        (self.leads() && holds && waited).then_some(term)
    }
}
