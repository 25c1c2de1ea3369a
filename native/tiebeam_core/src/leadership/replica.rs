//! One member of one group: its state, and the seam to its driver.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::chunks::Incoming;
use super::codec::{self, DecodeError};
use super::compaction::Unwritten;
use super::configuration::Configuration;
use super::consensus::{Consensus, Effect, Refusal, RequestId, Role, Standing, Status};
use super::election::Poll;
use super::entry::{HardState, Index, MAX_COMMAND_BYTES, MemberId, Payload, PersistToken, Term};
use super::log::{Log, MAX_BATCH};
use super::message::{Message, Packet};
use super::mutation::{Mutation, Switched};
use super::replication::Lead;
use super::settings::{Settings, SettingsError};
use super::snapshot::{Restored, Snapshot, Write};
use crate::random::Random;
use crate::time::Instant;

/// The most proposals that wait for a majority, and the most reads: what a client would wait for longer than for a retry.
pub(super) const MAX_WAITING: usize = 8192;

/// The most messages that wait for the disk. They are votes and polls, a few in each election.
const MAX_GATED: usize = 256;

/// Persisted state that cannot be trusted: the member must not run on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreError {
    /// The settings make no sense.
    Settings(SettingsError),
    /// The log has a gap.
    Gap {
        /// The index that should have come.
        expected: Index,
        /// The one that did.
        found: Index,
    },
    /// The terms of the log go back, or the log or the snapshot has a term that the member never saw, or they have different ones.
    Terms {
        /// Where.
        index: Index,
    },
    /// The log ends before its snapshot does, and the snapshot was not put in its place.
    Short {
        /// Where the log ends.
        last: Index,
        /// Where the snapshot ends.
        snapshot: Index,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Gap { expected, found } => write!(
                f,
                "the log continues with entry {found} where {expected} belongs; \
                 remove this member from the group and add it as a new one"
            ),
            Self::Terms { index } => write!(
                f,
                "the term of entry {index} is impossible; \
                 remove this member from the group and add it as a new one"
            ),
            Self::Short { last, snapshot } => write!(
                f,
                "the log ends with entry {last}, its snapshot with {snapshot}; \
                 remove this member from the group and add it as a new one"
            ),
        }
    }
}

impl core::error::Error for RestoreError {}

/// What is on disk is what one member can have written: `purged ≤ snapshot ≤ last`, without gaps, with terms that grow.
fn check(restored: &Restored) -> Result<(), RestoreError> {
    let (mut expected, mut term) = (1, 0);
    let snapshot = restored.snapshot.as_ref();
    if let Some(snapshot) = snapshot {
        if snapshot.term > restored.hard.term {
            let index = snapshot.index;
            return Err(RestoreError::Terms { index });
        }
        match restored.entries.first() {
            Some(first) if first.index > snapshot.index => {
                (expected, term) = (snapshot.index + 1, snapshot.term);
            }
            Some(first) => expected = first.index.max(1),
            None => {}
        }
    }
    for (entry, expected) in restored.entries.iter().zip(expected..) {
        if entry.index != expected {
            return Err(RestoreError::Gap {
                expected,
                found: entry.index,
            });
        }
        let other = snapshot.is_some_and(|snapshot| {
            (snapshot.index == entry.index) && (snapshot.term != entry.term)
        });
        if entry.term < term || entry.term > restored.hard.term || other {
            return Err(RestoreError::Terms { index: entry.index });
        }
        term = entry.term;
    }
    match (restored.entries.last(), snapshot) {
        (Some(last), Some(snapshot)) if last.index < snapshot.index => Err(RestoreError::Short {
            last: last.index,
            snapshot: snapshot.index,
        }),
        _ => Ok(()),
    }
}

/// Why a member stopped for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A leader sent another entry for an index that is committed here. One of the two lost what it had persisted, or lies.
    Diverged {
        /// The index.
        index: Index,
        /// Who sent it.
        leader: MemberId,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diverged { index, leader } => write!(
                f,
                "member {leader} leads with another entry {index} than the one that is committed here; \
                 a member came back without its disk under its old identity"
            ),
        }
    }
}

/// What a member does at present.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Follower,
    PreCandidate(Poll),
    Candidate(Poll),
    Leader(Box<Lead>),
    Stopped,
}

/// One member of one group, with the log of the group.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(super) settings: Settings,
    pub(super) switched: Switched,
    random: Random,
    pub(super) now: Instant,
    pub(super) hard: HardState,
    /// Term or vote changed since the last write was issued.
    hard_unsaved: bool,
    /// The last write that carries them.
    hard_token: PersistToken,
    /// The next write.
    next_token: PersistToken,
    /// All writes up to this one are on disk.
    done_token: PersistToken,
    pub(super) part: Part,
    /// The leader of the term, if it is known.
    pub(super) leader: Option<MemberId>,
    told_leader: (Term, Option<MemberId>),
    told_configuration: Configuration,
    /// When a leader was heard last: until an election timeout after that, a lease may rest on this member. A member that
    /// starts again does not know, and counts from its start.
    pub(super) heard: Option<Instant>,
    /// The leader that was heard is said to be gone.
    pub(super) forgotten: bool,
    /// Up to here the log is known to be that of the leader of this term.
    pub(super) verified: Index,
    /// An answer to the leader that waits for the disk: its round.
    pub(super) owed: Option<u64>,
    pub(super) log: Log,
    /// What stands for the beginning of the log, and for what others may still need of it.
    pub(super) snapshot: Option<Snapshot>,
    /// It is in no write yet.
    pub(super) unwritten: Option<Unwritten>,
    /// A snapshot of the leader of this term that has arrived in part.
    pub(super) incoming: Option<Incoming>,
    pub(super) commit: Index,
    pub(super) applied: Index,
    /// Up to here the driver has taken what there is to apply.
    pub(super) handed: Index,
    pub(super) election_at: Instant,
    /// Proposals of this member that are not applied, and when they are given up because it no longer leads.
    pub(super) proposals: BTreeMap<Index, (Term, RequestId)>,
    pub(super) proposals_until: Option<Instant>,
    /// Reads that a majority confirmed, and what must be applied first.
    pub(super) confirmed_reads: VecDeque<(RequestId, Index)>,
    pub(super) effects: VecDeque<Effect>,
    /// Messages that say what is not on disk yet.
    gated: VecDeque<(PersistToken, MemberId, Vec<u8>)>,
}

impl Replica {
    /// A member that starts at `now`, with what it persisted in its earlier life. `founding` are the members with which the
    /// group began, the same for all of them, and for a member that joined later as well.
    ///
    /// # Errors
    ///
    /// See [`RestoreError`].
    pub fn new(
        now: Instant,
        settings: Settings,
        founding: Configuration,
        restored: Restored,
    ) -> Result<Self, RestoreError> {
        settings.check().map_err(RestoreError::Settings)?;
        check(&restored)?;
        let switched = settings.switched();
        let lived = restored.hard != HardState::default();
        let snapshot = restored.snapshot;
        let log = Log::restored(founding, snapshot.as_ref(), restored.entries);
        let commit = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let mut replica = Self {
            random: Random::from_seed(settings.seed),
            switched,
            now,
            hard: restored.hard,
            hard_unsaved: false,
            hard_token: PersistToken(0),
            next_token: PersistToken(1),
            done_token: PersistToken(0),
            part: Part::Follower,
            leader: None,
            told_leader: (restored.hard.term, None),
            told_configuration: log.configuration().clone(),
            heard: (lived && !switched.off(Mutation::RestartForgetsLease)).then_some(now),
            forgotten: false,
            verified: 0,
            owed: None,
            log,
            unwritten: None,
            incoming: None,
            commit,
            applied: commit,
            handed: 0,
            election_at: now,
            proposals: BTreeMap::new(),
            proposals_until: None,
            confirmed_reads: VecDeque::new(),
            effects: snapshot.iter().cloned().map(Effect::Restore).collect(),
            snapshot,
            gated: VecDeque::new(),
            settings,
        };
        replica.postpone_election();
        Ok(replica)
    }

    /// The members of the group, as this one knows them.
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// This member.
    pub(super) fn me(&self) -> MemberId {
        self.settings.me
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The next election is between one and two election timeouts away (3.4).
    pub(super) fn postpone_election(&mut self) {
        let spread = self.random.below(self.settings.election.as_micros());
        let spread = crate::time::Duration::from_micros(spread);
        self.election_at = self.now + self.settings.election + spread;
    }

    /// The next election is near, but not at once: others had the same hint.
    pub(super) fn hasten_election(&mut self) {
        let spread = self.random.below(self.settings.election.as_micros() / 8);
        self.election_at = self.now + crate::time::Duration::from_micros(spread);
    }

    /// A question that bound nobody is asked again before long (9.6): whoever refused it may have heard the leader a moment later.
    pub(super) fn ask_again_soon(&mut self) {
        let quarter = self.settings.election.as_micros() / 4;
        let spread = quarter + self.random.below(quarter);
        self.election_at = self.now + crate::time::Duration::from_micros(spread);
    }

    pub(super) fn set_hard(&mut self, hard: HardState) {
        if self.hard != hard {
            self.hard = hard;
            self.hard_unsaved = true;
        }
    }

    /// The write that must be on disk before anything is said in this term.
    pub(super) fn gate(&self) -> PersistToken {
        if self.hard_unsaved {
            self.next_token
        } else {
            self.hard_token
        }
    }

    pub(super) fn is_done(&self, token: PersistToken) -> bool {
        token <= self.done_token
    }

    /// Follows in `term`, of which the leader is known or not.
    pub(super) fn follow(&mut self, term: Term, leader: Option<MemberId>) {
        if term > self.hard.term {
            self.set_hard(HardState { term, vote: None });
            self.verified = 0;
            self.owed = None;
            // Another leader's snapshot of the same entry may be made of other bytes.
            self.incoming = None;
        }
        self.leader = leader;
        if let Part::Leader(lead) = core::mem::replace(&mut self.part, Part::Follower) {
            self.lose(*lead);
        }
        self.postpone_election();
    }

    /// Nothing that is waited for will come by leading.
    pub(super) fn lose(&mut self, lead: Lead) {
        let unread = lead.reads.into_iter().map(|read| Effect::Unread {
            request: read.request,
        });
        self.effects.extend(unread);
        if let Some(request) = lead.changing {
            self.effects.push_back(Effect::Unknown { request });
        }
        self.proposals_until = Some(self.now + self.settings.election.times(2));
    }

    pub(super) fn stop(&mut self, fault: Fault) {
        if let Part::Leader(lead) = core::mem::replace(&mut self.part, Part::Stopped) {
            self.lose(*lead);
        }
        self.leader = None;
        self.give_up_proposals(0);
        self.gated.clear();
        self.incoming = None;
        self.effects.push_back(Effect::Stopped(fault));
    }

    /// Nobody knows what becomes of the proposals from `index` on.
    pub(super) fn give_up_proposals(&mut self, index: Index) {
        for (_, (_, request)) in self.proposals.split_off(&index) {
            self.effects.push_back(Effect::Unknown { request });
        }
    }

    /// Says something that is true only once term and vote are on disk.
    pub(super) fn send(&mut self, to: MemberId, message: Message) {
        self.send_in(self.hard.term, to, message);
    }

    /// The same, of another term.
    pub(super) fn send_in(&mut self, term: Term, to: MemberId, message: Message) {
        let gate = match message {
            Message::Vote { .. } if self.switched.off(Mutation::VoteBeforePersist) => {
                PersistToken(0)
            }
            _ => self.gate(),
        };
        let packet = Packet {
            group: self.settings.group,
            from: self.settings.me,
            to,
            term,
            message,
        };
        let bytes = codec::encode(&packet);
        if self.is_done(gate) {
            self.effects.push_back(Effect::Send { to, bytes });
        } else {
            if self.gated.len() == MAX_GATED {
                self.gated.pop_front();
            }
            self.gated.push_back((gate, to, bytes));
        }
    }

    /// Turns what changed into effects, a bounded part of it.
    fn flush(&mut self) {
        if matches!(self.part, Part::Stopped) {
            return;
        }
        self.conclude_change();
        self.replicate();
        self.save();
        self.apply();
        self.tell();
    }

    fn save(&mut self) {
        if !self.hard_unsaved && !self.log.is_unsaved() && self.unwritten.is_none() {
            return;
        }
        let token = self.next_token;
        self.next_token.0 += 1;
        let mut hard = None;
        if core::mem::take(&mut self.hard_unsaved) {
            self.hard_token = token;
            let vote = self
                .hard
                .vote
                .filter(|_| !self.switched.off(Mutation::VoteNotPersisted));
            hard = Some(HardState { vote, ..self.hard });
        }
        if self.unwritten == Some(Unwritten::Installed) {
            self.log.save_installed(token);
        }
        let entries = self.log.save(token);
        let mut write = Write {
            token,
            hard,
            snapshot: None,
            purge: 0,
            truncate: None,
            entries,
        };
        self.save_snapshot(&mut write);
        self.effects.push_back(Effect::Persist(write));
    }

    fn apply(&mut self) {
        for _ in 0..MAX_BATCH {
            if self.applied == self.commit {
                break;
            }
            let Some(entry) = self.log.get(self.applied + 1).cloned() else {
                break;
            };
            self.applied += 1;
            if self.switched.off(Mutation::ChangeAppliedTwice) {
                self.log.configure(&entry);
            }
            let request = match self.proposals.remove(&self.applied) {
                Some((term, request)) if term == entry.term => Some(request),
                Some((_, request)) => {
                    self.effects.push_back(Effect::Unknown { request });
                    None
                }
                None => None,
            };
            self.effects.push_back(Effect::Apply { entry, request });
        }
        while let Some(&(request, index)) = self.confirmed_reads.front() {
            if index > self.applied {
                break;
            }
            self.confirmed_reads.pop_front();
            self.effects.push_back(Effect::Read { request });
        }
    }

    fn tell(&mut self) {
        let led = (self.hard.term, self.leader);
        if self.told_leader != led {
            self.told_leader = led;
            self.effects.push_back(Effect::Leader {
                term: led.0,
                leader: led.1,
            });
        }
        if self.told_configuration != *self.log.configuration() {
            self.told_configuration = self.log.configuration().clone();
            self.effects
                .push_back(Effect::Configured(self.told_configuration.clone()));
        }
    }

    /// Why this member cannot do what only a leader can.
    pub(super) fn not_leader(&self) -> Refusal {
        match self.part {
            Part::Stopped => Refusal::Stopped,
            _ => Refusal::NotLeader {
                leader: self.leader,
                term: self.hard.term,
            },
        }
    }
}

impl Consensus for Replica {
    fn wake(&mut self, now: Instant) {
        self.advance(now);
        if self.proposals_until.is_some_and(|until| until <= self.now) {
            self.proposals_until = None;
            if !matches!(self.part, Part::Leader(_)) {
                self.give_up_proposals(0);
            }
        }
        match self.part {
            Part::Stopped => {}
            Part::Leader(_) => self.beat(),
            _ if self.election_at > self.now => {}
            // Also one that its own log removes, while that is not committed: nobody else may have that entry, and then nobody else is
            // elected (4.2.2).
            _ if self.log.may_vote(self.me(), self.commit) => self.ask(),
            _ => self.postpone_election(),
        }
    }

    fn deadline(&self) -> Instant {
        let own = match &self.part {
            Part::Stopped => return Instant::from_micros(u64::MAX),
            Part::Leader(lead) => lead.beat_at,
            _ => self.election_at,
        };
        self.proposals_until.map_or(own, |until| own.min(until))
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DecodeError> {
        let packet = codec::decode(bytes)?;
        if packet.group != self.settings.group || packet.to != self.me() || packet.from == self.me()
        {
            return Err(DecodeError::ELSEWHERE);
        }
        self.advance(now);
        if matches!(self.part, Part::Stopped) {
            return Ok(());
        }
        let (from, term) = (packet.from, packet.term);
        match packet.message {
            Message::Poll {
                pre,
                last,
                last_term,
                cause,
            } => {
                self.on_poll(from, term, pre, (last, last_term), cause);
            }
            Message::Vote {
                pre,
                granted,
                early,
            } => self.on_vote(from, term, pre, granted, early),
            Message::Append {
                round,
                previous,
                previous_term,
                commit,
                entries,
            } => {
                self.on_append(
                    from,
                    term,
                    round,
                    (previous, previous_term),
                    commit,
                    entries,
                );
            }
            Message::Accepted { round, matched } => self.on_accepted(from, term, round, matched),
            Message::Rejected {
                round,
                previous,
                hint,
                hint_term,
            } => {
                self.on_rejected(from, term, round, previous, (hint, hint_term));
            }
            Message::TimeoutNow { released } => self.on_timeout_now(from, term, released),
            Message::Chunk { round, chunk } => self.on_chunk(from, term, round, chunk),
            Message::Received {
                round,
                index,
                bytes,
            } => self.on_received(from, term, round, index, bytes),
        }
        Ok(())
    }

    fn propose(
        &mut self,
        now: Instant,
        request: RequestId,
        command: Vec<u8>,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let Part::Leader(lead) = &self.part else {
            return Err(self.not_leader());
        };
        if lead.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        if command.len() > MAX_COMMAND_BYTES {
            return Err(Refusal::TooLong {
                bytes: command.len(),
            });
        }
        if self.proposals.len() >= MAX_WAITING {
            return Err(Refusal::Busy {
                waiting: self.proposals.len(),
            });
        }
        let index = self.append(Payload::Command(command.into()));
        self.proposals.insert(index, (self.hard.term, request));
        Ok(())
    }

    fn read(&mut self, now: Instant, request: RequestId) -> Result<(), Refusal> {
        self.advance(now);
        self.start_read(request)
    }

    fn transfer(&mut self, now: Instant, to: Option<MemberId>) -> Result<(), Refusal> {
        self.advance(now);
        self.start_transfer(to)
    }

    fn change(
        &mut self,
        now: Instant,
        request: RequestId,
        to: Configuration,
    ) -> Result<(), Refusal> {
        self.advance(now);
        self.start_change(request, to)
    }

    fn compact(&mut self, now: Instant, state: Arc<[u8]>) {
        self.advance(now);
        self.take_snapshot(state);
    }

    fn progress(&self, who: MemberId) -> Option<Standing> {
        let Part::Leader(lead) = &self.part else {
            return None;
        };
        let progress = lead.others.get(&who)?;
        Some(Standing {
            matched: progress.matched,
            heard: progress.answered_sent,
        })
    }

    fn forget_leader(&mut self, now: Instant, who: MemberId) {
        self.advance(now);
        self.forget(who);
    }

    fn persisted(&mut self, now: Instant, token: PersistToken) {
        self.advance(now);
        if matches!(self.part, Part::Stopped) || token < self.done_token || token >= self.next_token
        {
            return;
        }
        self.done_token = token;
        self.log.saved(token);
        while let Some((gate, to, bytes)) = self.gated.pop_front() {
            if gate > token {
                self.gated.push_front((gate, to, bytes));
                break;
            }
            self.effects.push_back(Effect::Send { to, bytes });
        }
        self.count_own_vote();
        self.pay_owed();
        self.try_commit();
    }

    fn poll(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.flush();
        }
        let effect = self.effects.pop_front();
        match &effect {
            Some(Effect::Apply { entry, .. }) => self.handed = entry.index,
            Some(Effect::Restore(snapshot)) => self.handed = snapshot.index,
            _ => {}
        }
        effect
    }

    fn status(&self) -> Status {
        Status {
            role: match self.part {
                Part::Follower => Role::Follower,
                Part::PreCandidate(_) => Role::PreCandidate,
                Part::Candidate(_) => Role::Candidate,
                Part::Leader(_) => Role::Leader,
                Part::Stopped => Role::Stopped,
            },
            term: self.hard.term,
            leader: self.leader,
            commit: self.commit,
            last: self.log.last(),
        }
    }

    fn token(&self, now: Instant) -> Option<Term> {
        self.lease_token(now.max(self.now))
    }
}
