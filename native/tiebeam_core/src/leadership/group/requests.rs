//! What this node's processes want changed: each becomes a command of the node's session, and is repeated until it is seen
//! in the log.
//!
//! A command is known by its session and its number. This node applies the log itself, so it sees what became of its commands without being
//! told; what it has to do is to bring them to a leader, and to bring them there again when a leader is lost. The machine does
//! each of them once.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::claims::ClaimKey;
use super::command::{Answer, Command};
use super::message::Message;
use super::{Group, Timer};
use crate::event::CallId;
use crate::leadership::consensus::{Consensus, Refusal};
use crate::leadership::entry::{Index, Term};
use crate::leadership::machine::{
    Command as Instruction, CommandError, MAX_OUTSTANDING, Operation, Reply, SessionId,
};
use crate::leadership::mutation::Mutation;
use crate::time::{Duration, Instant};

/// The most commands of calls that are under way at once: half of what the machine remembers of a session, so that what is given
/// back always has room.
const WINDOW: u64 = MAX_OUTSTANDING as u64 / 2;

/// The most calls that wait for their turn besides: as many as are done in a second on a slow disk.
pub(super) const MAX_WAITING: usize = 4096;

/// The most bytes that they have together.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The most openings of a session that are remembered: each is repeated under another number.
const MAX_OPENINGS: usize = 8;

/// A session that was not used for as long as this many of its lives is not kept alive any more.
const IDLE_LIVES: u64 = 20;

/// A call, or a thing that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId(pub(super) u64);

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It waits for its turn, or for a leader.
    Waiting,
    /// It is under way with this number.
    Sent(u64),
    /// It waits until somebody else gives the claim back.
    Line,
}

/// A change that is wanted.
#[derive(Debug)]
pub(super) struct Job {
    /// Who waits for the answer; nobody for what is given back.
    pub(super) call: Option<CallId>,
    pub(super) operation: Operation,
    /// For whom a claim is.
    pub(super) pid: Option<Arc<[u8]>>,
    /// It stands in line if somebody else has the claim.
    pub(super) wait: bool,
    pub(super) place: Place,
    /// When it was first sent under its number.
    pub(super) first: Instant,
    /// When it was sent last.
    last: Instant,
    /// The sending of which nothing was heard.
    attempt: Option<u64>,
    /// This node led, and appended it, in this term.
    appended: Option<Term>,
    /// An earlier sending may have had an effect.
    doubt: bool,
}

/// The session of this node.
#[derive(Debug)]
struct Open {
    id: SessionId,
    /// It lasts at least until then, by this node's clock.
    until: Instant,
    /// The number of the next command.
    next: u64,
    /// When it was last used for something.
    used: Instant,
    /// What only keeps it alive, and when that was sent.
    beats: BTreeMap<u64, Instant>,
}

/// All that is wanted, and the session under which it is asked for.
#[derive(Debug)]
pub(super) struct Requests {
    ttl: Duration,
    session: Option<Open>,
    /// The openings that are under way, and when they were sent.
    openings: VecDeque<(u64, Instant)>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    waiting: VecDeque<JobId>,
    bytes: usize,
    sent: BTreeMap<u64, JobId>,
    next_job: u64,
    next_attempt: u64,
    /// There may be another leader: everything is sent again.
    again: bool,
}

impl Requests {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            session: None,
            openings: VecDeque::new(),
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            sent: BTreeMap::new(),
            next_job: 0,
            next_attempt: 0,
            again: false,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// Until when the session lasts, as far as this node knows.
    pub(super) fn until(&self) -> Instant {
        self.session
            .as_ref()
            .map_or(Instant::ZERO, |session| session.until)
    }

    pub(super) fn next_id(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job)
    }

    /// The first number whose answer this node does not know.
    fn known(&self) -> u64 {
        let next = self.session.as_ref().map_or(0, |session| session.next);
        self.sent.keys().next().copied().unwrap_or(next)
    }

    fn has_room(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.next - self.known() < WINDOW)
    }

    /// Something was seen in the log that was sent at `sent`.
    fn alive(&mut self, sent: Instant) {
        let lasts = certain(self.ttl);
        if let Some(session) = &mut self.session {
            session.until = session.until.max(sent + lasts);
        }
    }
}

/// What is certain of a span that another node measures: a quarter is left for clocks that run at different rates, as with
/// leases.
pub(super) fn certain(span: Duration) -> Duration {
    Duration::from_micros(span.as_micros() / 4 * 3)
}

fn weight(operation: &Operation) -> usize {
    64 + match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Acquire { name, value, .. } | Operation::Update { name, value, .. } => {
            name.len() + value.len()
        }
        _ => 0,
    }
}

impl Group {
    /// How long it is waited before something is sent again to the same leader.
    pub(super) fn patience(&self) -> Duration {
        self.timing.election.times(2)
    }

    pub(super) fn ask_write(&mut self, call: CallId, until: Instant, command: Command) {
        let (mut claimant, mut waits) = (None, false);
        let operation = match command {
            Command::Put { key, value, expect } => Operation::Put { key, value, expect },
            Command::Delete { key, expect } => Operation::Delete { key, expect },
            Command::Acquire {
                kind,
                name,
                value,
                ttl,
                pid,
                wait,
            } => {
                (claimant, waits) = (Some(pid), wait);
                Operation::Acquire {
                    kind,
                    name,
                    value,
                    ttl,
                }
            }
            Command::Renew {
                kind,
                name,
                token,
                ttl,
            } => Operation::Renew {
                kind,
                name,
                token,
                ttl,
            },
            Command::Release { kind, name, token } => Operation::Release { kind, name, token },
            Command::Update {
                kind,
                name,
                token,
                value,
            } => Operation::Update {
                kind,
                name,
                token,
                value,
            },
            other => return self.ask_order(call, until, other),
        };
        if let Err(error) = operation.check() {
            let answer = match error {
                CommandError::TooLong { part, bytes, limit } => {
                    Answer::TooLong { part, bytes, limit }
                }
                CommandError::Malformed { .. } => {
                    Answer::Refused("the group does not understand this")
                }
            };
            return self.answer(call, answer);
        }
        let requests = &self.requests;
        if requests.jobs.len() >= MAX_WAITING + WINDOW as usize
            || requests.bytes + weight(&operation) > MAX_WAITING_BYTES
        {
            return self.answer(call, Answer::Busy { limit: MAX_WAITING });
        }
        let id = self.add_job(Some(call), operation, claimant, waits);
        self.timers.set(Timer::Job(id), until);
    }

    /// Something to be done, when it is its turn.
    pub(super) fn add_job(
        &mut self,
        call: Option<CallId>,
        operation: Operation,
        pid: Option<Arc<[u8]>>,
        wait: bool,
    ) -> JobId {
        let id = self.requests.next_id();
        self.requests.bytes += weight(&operation);
        let line = wait.then(|| ClaimKey::of(&operation)).flatten();
        self.requests.jobs.insert(
            id,
            Job {
                call,
                operation,
                pid: pid.clone(),
                wait,
                place: Place::Waiting,
                first: self.now,
                last: self.now,
                attempt: None,
                appended: None,
                doubt: false,
            },
        );
        if let Some(pid) = pid {
            self.claims.asks(pid, id);
        }
        if line.is_some_and(|key| self.claims.stand_in_line(key, id)) {
            self.park(id);
        } else {
            self.requests.waiting.push_back(id);
        }
        id
    }

    /// A job waits until a claim is free.
    pub(super) fn park(&mut self, id: JobId) {
        if let Some(job) = self.requests.jobs.get_mut(&id) {
            job.place = Place::Line;
        }
    }

    /// A job takes its turn again; what was sent before has no effect any more.
    pub(super) fn requeue(&mut self, id: JobId) {
        if let Some(job) = self.requests.jobs.get_mut(&id) {
            (job.place, job.attempt, job.appended, job.doubt) = (Place::Waiting, None, None, false);
            self.requests.waiting.push_front(id);
        }
    }

    /// The job is over.
    pub(super) fn drop_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.requests.jobs.remove(&id)?;
        self.requests.bytes -= weight(&job.operation);
        self.timers.cancel(&Timer::Job(id));
        match job.place {
            Place::Sent(number) => {
                self.requests.sent.remove(&number);
            }
            Place::Waiting => self.requests.waiting.retain(|waiting| *waiting != id),
            Place::Line => {}
        }
        if let Some(pid) = &job.pid {
            self.claims.asks_no_more(pid, id);
        }
        Some(job)
    }

    fn finish(&mut self, id: JobId, answer: Answer) {
        if let Some(job) = self.drop_job(id) {
            if let Some(key) = job.wait.then(|| ClaimKey::of(&job.operation)).flatten() {
                self.leave_line(&key, id, matches!(answer, Answer::Done(_)));
            }
            if let Some(call) = job.call {
                self.answer(call, answer);
            }
        }
    }

    /// What may be said of a job that is given up.
    fn given_up(&self, job: &Job) -> Answer {
        if job.place == Place::Line
            && let Some(key) = ClaimKey::of(&job.operation)
            && let Some(claim) = self.machine.claims().get(key.kind, &key.name)
        {
            return Answer::Held {
                value: Some(claim.value.clone()),
                token: claim.token,
            };
        }
        let doubt = job.doubt || job.attempt.is_some();
        if doubt && !self.switched.off(Mutation::DoubtForgotten) {
            Answer::Unknown
        } else {
            self.no_leader()
        }
    }

    pub(super) fn time_out(&mut self, id: JobId) {
        if let Some(job) = self.requests.jobs.get(&id) {
            let answer = self.given_up(job);
            self.finish(id, answer);
        } else {
            self.time_out_order(id);
        }
    }

    /// All calls are answered with what is known: this node takes no part any more.
    pub(super) fn answer_all(&mut self) {
        for id in self.requests.jobs.keys().copied().collect::<Vec<_>>() {
            if let Some(job) = self.drop_job(id)
                && let Some(call) = job.call
            {
                let answer = if job.doubt || job.attempt.is_some() {
                    Answer::Unknown
                } else {
                    Answer::Stopped
                };
                self.answer(call, answer);
            }
        }
        self.claims.nobody_waits();
        self.answer_all_reads();
        self.answer_all_orders();
        if let Some((call, _)) = self.forced.take() {
            self.answer(call, Answer::Unknown);
        }
    }

    /// Sends what can be sent. Says whether that changed anything here.
    pub(super) fn send_requests(&mut self) -> bool {
        if self.engine.is_none() || self.office_node().is_none() {
            return false;
        }
        let again = core::mem::take(&mut self.requests.again);
        if again {
            self.send_again(Duration::ZERO);
        }
        let mut sent = false;
        if self.requests.session.is_none() && !self.requests.waiting.is_empty() {
            let fresh = self
                .requests
                .openings
                .back()
                .is_none_or(|&(_, at)| self.now.since(at) >= self.patience());
            if fresh || again {
                self.open_session();
                sent = true;
            }
        }
        while !self.requests.waiting.is_empty() {
            let background = |job: &Job| job.call.is_none();
            let front = self
                .requests
                .waiting
                .front()
                .and_then(|id| self.requests.jobs.get(id));
            let room = self.requests.has_room() || front.is_some_and(background);
            let Some(session) = self.requests.session.as_mut().filter(|_| room) else {
                break;
            };
            let number = session.next;
            session.next += 1;
            session.used = self.now;
            // One that was idle is kept alive again.
            let third = Duration::from_micros(self.requests.ttl.as_micros() / 3);
            self.timers.hasten(Timer::KeepAlive, self.now + third);
            let Some(id) = self.requests.waiting.pop_front() else {
                break;
            };
            self.requests.sent.insert(number, id);
            if let Some(job) = self.requests.jobs.get_mut(&id) {
                job.place = Place::Sent(number);
                job.first = self.now;
            }
            self.transmit(number);
            sent = true;
        }
        if !self.requests.jobs.is_empty() {
            let at = self.now + self.patience();
            self.timers.hasten(Timer::Repeat, at);
        }
        sent && self.is_leader()
    }

    /// Sends the job with this number to the leader.
    fn transmit(&mut self, number: u64) {
        let (Some(session), known) = (self.requests.session(), self.requests.known()) else {
            return;
        };
        self.requests.next_attempt += 1;
        let attempt = self.requests.next_attempt;
        let now = self.now;
        let Some(job) = self
            .requests
            .sent
            .get(&number)
            .and_then(|id| self.requests.jobs.get_mut(id))
        else {
            return;
        };
        job.doubt |= job.attempt.is_some();
        (job.last, job.attempt) = (now, Some(attempt));
        let instruction = Instruction {
            session,
            number,
            known,
            time: Instant::ZERO,
            operation: job.operation.clone(),
        };
        match self.submit(attempt, instruction) {
            Submitted::Appended(term) => {
                if let Some(job) = self.sent_job(number) {
                    job.appended = Some(term);
                }
                if self.switched.off(Mutation::GrantedBeforeCommit) {
                    self.grant(number);
                }
            }
            Submitted::Sent => {}
            Submitted::Refused => self.on_declined(session, number, attempt),
        }
    }

    /// A claim that nobody has is granted before the group has agreed to it.
    fn grant(&mut self, number: u64) {
        let Some(&id) = self.requests.sent.get(&number) else {
            return;
        };
        let key = self.requests.jobs.get(&id).and_then(|job| {
            let acquires = matches!(job.operation, Operation::Acquire { .. });
            ClaimKey::of(&job.operation).filter(|_| acquires)
        });
        let free = |key: ClaimKey| self.machine.claims().get(key.kind, &key.name).is_none();
        if key.is_some_and(free)
            && let Some(engine) = &self.engine
        {
            let last = engine.status().last;
            self.answered(id, Reply::Done(last));
        }
    }

    fn sent_job(&mut self, number: u64) -> Option<&mut Job> {
        let id = self.requests.sent.get(&number)?;
        self.requests.jobs.get_mut(id)
    }

    /// Appends a command, or brings it to who can.
    pub(super) fn submit(&mut self, attempt: u64, instruction: Instruction) -> Submitted {
        if self.is_leader() {
            return match self.append(instruction) {
                Ok(term) => Submitted::Appended(term),
                Err(_) => Submitted::Refused,
            };
        }
        let (Some(node), Some(group)) = (self.office_node(), self.group()) else {
            return Submitted::Refused;
        };
        let Ok(command) = instruction.encode() else {
            return Submitted::Refused;
        };
        self.send(
            &node,
            Message::Propose {
                group,
                attempt,
                command,
            },
        );
        Submitted::Sent
    }

    /// Appends a command as the leader, with the leader's time.
    pub(super) fn append(&mut self, mut instruction: Instruction) -> Result<Term, Refusal> {
        let now = self.now;
        let Some(engine) = &mut self.engine else {
            return Err(Refusal::Stopped);
        };
        instruction.time = self.office.time(&self.machine, now);
        let command = instruction
            .encode()
            .map_err(|_| Refusal::TooLong { bytes: 0 })?;
        engine.propose(now, super::leading::COMMAND, command)?;
        Ok(engine.status().term)
    }

    /// A command was not appended.
    pub(super) fn on_declined(&mut self, session: SessionId, number: u64, attempt: u64) {
        if self.requests.session() == Some(session)
            && let Some(job) = self.sent_job(number)
            && job.attempt == Some(attempt)
        {
            job.attempt = None;
        }
    }

    /// Sends again of what nothing was heard for so long.
    fn send_again(&mut self, since: Duration) {
        let term = self.engine.as_ref().map(|engine| engine.status().term);
        let leads = self.is_leader();
        let (now, jobs) = (self.now, &self.requests.jobs);
        let due: Vec<u64> = self
            .requests
            .sent
            .iter()
            .filter(|(_, id)| {
                jobs.get(id).is_some_and(|job| {
                    let appended = leads && job.appended.is_some() && job.appended == term;
                    !appended && now.since(job.last) >= since
                })
            })
            .map(|(&number, _)| number)
            .collect();
        for number in due {
            self.transmit(number);
        }
    }

    /// There may be another leader.
    pub(super) fn seek_leader_again(&mut self) {
        self.requests.again = true;
    }

    pub(super) fn repeat(&mut self) {
        let patience = self.patience();
        if self.office_node().is_some() {
            self.send_again(patience);
        }
        self.repeat_reads();
        self.repeat_orders();
        if !self.requests.jobs.is_empty() || self.reads_wait() || self.orders_wait() {
            self.timers.set(Timer::Repeat, self.now + patience);
        }
    }

    /// It is known in the log by this node's identity and a number made up for it.
    fn open_session(&mut self) {
        let number = self.random.bits();
        self.requests.openings.push_back((number, self.now));
        if self.requests.openings.len() > MAX_OPENINGS {
            self.requests.openings.pop_front();
        }
        let ttl = self.requests.ttl;
        let instruction = Instruction {
            session: SessionId(self.member.0),
            number,
            known: 0,
            time: Instant::ZERO,
            operation: Operation::Open { ttl },
        };
        // Without an answer it is opened again.
        let _ = self.submit(0, instruction);
    }

    pub(super) fn keep_alive(&mut self) {
        let idle = Duration::from_micros(self.requests.ttl.as_micros().saturating_mul(IDLE_LIVES));
        let busy = !self.requests.jobs.is_empty() || self.claims.holds_any();
        let Some(session) = &mut self.requests.session else {
            return;
        };
        if !busy && self.now.since(session.used) >= idle {
            return;
        }
        let ttl = self.requests.ttl.as_micros();
        let reached = self.office_node().is_some();
        if reached {
            self.beat();
        }
        let next = if reached { ttl / 3 } else { ttl / 12 };
        self.timers
            .set(Timer::KeepAlive, self.now + Duration::from_micros(next));
    }

    /// Keeps the session alive with a command of its own.
    fn beat(&mut self) {
        let known = self.requests.known();
        let Some(session) = &mut self.requests.session else {
            return;
        };
        let (id, number) = (session.id, session.next);
        session.next += 1;
        session.beats.insert(number, self.now);
        if session.beats.len() > MAX_OPENINGS {
            session.beats.pop_first();
        }
        let instruction = Instruction {
            session: id,
            number,
            known: known.min(number),
            time: Instant::ZERO,
            operation: Operation::KeepAlive,
        };
        // Without an answer there is another one.
        let _ = self.submit(0, instruction);
    }

    /// Gives everything back at once, as this node leaves.
    pub(super) fn close_session(&mut self) {
        let Some(session) = &mut self.requests.session else {
            return;
        };
        let (id, number) = (session.id, session.next);
        session.next += 1;
        let instruction = Instruction {
            session: id,
            number,
            known: 0,
            time: Instant::ZERO,
            operation: Operation::Close,
        };
        // Without an answer it ends by itself.
        let _ = self.submit(0, instruction);
    }

    /// A command was applied: perhaps one of this node's.
    pub(super) fn on_applied(
        &mut self,
        session: SessionId,
        number: u64,
        index: Index,
        reply: Reply,
    ) {
        if session.0 == self.member.0 && self.on_opened(number, index, reply) {
            return;
        }
        if self.requests.session() != Some(session) || reply == Reply::NoSession {
            return; // That the session is over is told as a change.
        }
        if let Some(open) = &mut self.requests.session
            && let Some(sent) = open.beats.remove(&number)
        {
            open.beats = open.beats.split_off(&number);
            self.requests.alive(sent);
            return;
        }
        let Some(&id) = self.requests.sent.get(&number) else {
            return;
        };
        let Some(job) = self.requests.jobs.get(&id) else {
            return;
        };
        let first = job.first;
        self.requests.alive(first);
        self.answered(id, reply);
    }

    /// The machine was replaced: what became of this node's commands meanwhile is what their session remembers.
    pub(super) fn settle_unseen(&mut self) {
        let Some(session) = self.requests.session() else {
            return;
        };
        if !self.machine.sessions().contains(session) {
            self.lose_all();
            self.session_ended(false);
            return;
        }
        let sent: Vec<(u64, JobId)> = self
            .requests
            .sent
            .iter()
            .map(|(&number, &id)| (number, id))
            .collect();
        for (number, id) in sent {
            if let Some(reply) = self.machine.sessions().reply(session, number) {
                self.answered(id, reply);
            }
        }
    }

    /// What became of a job is known.
    fn answered(&mut self, id: JobId, reply: Reply) {
        let Some(job) = self.requests.jobs.get(&id) else {
            return;
        };
        let answer = match reply {
            Reply::Done(done) => {
                if let Some(key) = ClaimKey::of(&job.operation)
                    && !self.settle_claim(id, &key, done)
                {
                    // It would be over before it is told. It is given back, and asked for anew.
                    self.take_number(id);
                    self.requeue(id);
                    return;
                }
                Answer::Done(done)
            }
            Reply::Differs { revision } => Answer::Differs { revision },
            Reply::Held { token, .. } => {
                if job.wait {
                    self.take_number(id);
                    self.park(id);
                    return;
                }
                let claim = ClaimKey::of(&job.operation)
                    .and_then(|key| self.machine.claims().get(key.kind, &key.name))
                    .filter(|claim| claim.token == token);
                Answer::Held {
                    value: claim.map(|claim| claim.value.clone()),
                    token,
                }
            }
            Reply::NotHeld => Answer::NotHeld,
            Reply::Full(limit) => Answer::Full(limit),
            Reply::NoSession | Reply::Stale => Answer::Unknown,
            Reply::Malformed => Answer::Refused("the group does not understand this"),
        };
        self.finish(id, answer);
    }

    /// The number of a job is used up.
    fn take_number(&mut self, id: JobId) {
        if let Some(job) = self.requests.jobs.get_mut(&id)
            && let Place::Sent(number) = job.place
        {
            self.requests.sent.remove(&number);
        }
    }

    /// A session was opened, perhaps for this node. Says whether it was for this life of it.
    fn on_opened(&mut self, number: u64, index: Index, reply: Reply) -> bool {
        let Some(&(_, sent)) = self
            .requests
            .openings
            .iter()
            .find(|(known, _)| *known == number)
        else {
            return false;
        };
        match reply {
            Reply::Done(_) if self.requests.session.is_none() => {
                self.requests.openings.clear();
                self.requests.session = Some(Open {
                    id: SessionId(index),
                    until: sent + certain(self.requests.ttl),
                    next: 1,
                    used: self.now,
                    beats: BTreeMap::new(),
                });
                let third = Duration::from_micros(self.requests.ttl.as_micros() / 3);
                self.timers.set(Timer::KeepAlive, sent + third);
            }
            Reply::Full(limit) => {
                for id in self.requests.waiting.iter().copied().collect::<Vec<_>>() {
                    self.finish(id, Answer::Full(limit));
                }
            }
            _ => {}
        }
        true
    }

    /// This node's session is over. What was not seen in the log by now never will be under it, so it is asked for again under
    /// the next one; `certain` if nothing was applied unseen.
    pub(super) fn session_ended(&mut self, seen: bool) {
        self.requests.session = None;
        self.timers.cancel(&Timer::KeepAlive);
        let sent = core::mem::take(&mut self.requests.sent);
        for (_, id) in sent.into_iter().rev() {
            let Some(job) = self.requests.jobs.get_mut(&id) else {
                continue;
            };
            job.place = Place::Waiting;
            let of_session = matches!(
                job.operation,
                Operation::Renew { .. } | Operation::Release { .. } | Operation::Update { .. }
            );
            if of_session {
                self.finish(id, Answer::NotHeld);
            } else if seen || job.attempt.is_none() && !job.doubt {
                self.requeue(id);
            } else {
                self.finish(id, Answer::Unknown);
            }
        }
        let waiting: BTreeSet<JobId> = self.requests.waiting.iter().copied().collect();
        for id in waiting {
            let of_session = self.requests.jobs.get(&id).is_some_and(|job| {
                matches!(
                    job.operation,
                    Operation::Renew { .. } | Operation::Release { .. } | Operation::Update { .. }
                )
            });
            if of_session {
                self.finish(id, Answer::NotHeld);
            }
        }
    }
}

/// What became of a command that was to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// This node leads, and has it in its log.
    Appended(Term),
    /// It is on its way.
    Sent,
    /// Nothing happened.
    Refused,
}
