//! What the processes of this node hold, and which of them wait for what somebody else holds.
//!
//! A claim is over for its holder at the end of the session or of its own time, counted by this node's clock from the moment at
//! which what prolonged it was *sent*. The machine counts from when that was proposed, which is later, and the others see a free claim later
//! still.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::command::Answer;
use super::output::{Lost, Output};
use super::requests::{Job, JobId, Place, certain};
use super::{Group, Timer};
use crate::leadership::entry::Index;
use crate::leadership::machine::{Change, Kind, MAX_TTL, MIN_TTL, Operation};
use crate::leadership::mutation::Mutation;
use crate::time::{Duration, Instant};

/// A lock, a singleton or a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimKey {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
}

impl ClaimKey {
    /// What an operation claims, holds for longer, or gives back.
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::Acquire { kind, name, .. }
            | Operation::Renew { kind, name, .. }
            | Operation::Release { kind, name, .. }
            | Operation::Update { kind, name, .. } => Some(Self {
                kind: *kind,
                name: name.clone(),
            }),
            _ => None,
        }
    }
}

/// A claim that a process of this node holds.
#[derive(Debug)]
struct Held {
    pid: Arc<[u8]>,
    token: Index,
    /// When its own time is over, if it has one.
    until: Option<Instant>,
    /// It is being given back.
    releasing: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: BTreeMap<ClaimKey, Held>,
    of: BTreeSet<(Arc<[u8]>, ClaimKey)>,
    /// Who asked for something on behalf of which process.
    asking: BTreeSet<(Arc<[u8]>, JobId)>,
    /// Those that wait until a claim is free, the first one first; it asks, the others only wait.
    lines: BTreeMap<ClaimKey, VecDeque<JobId>>,
}

impl Claims {
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn asks(&mut self, pid: Arc<[u8]>, job: JobId) {
        self.asking.insert((pid, job));
    }

    pub(super) fn asks_no_more(&mut self, pid: &Arc<[u8]>, job: JobId) {
        self.asking.remove(&(pid.clone(), job));
    }

    /// Says whether somebody is before it.
    pub(super) fn stand_in_line(&mut self, key: ClaimKey, job: JobId) -> bool {
        let line = self.lines.entry(key).or_default();
        line.push_back(job);
        line.len() > 1
    }

    pub(super) fn nobody_waits(&mut self) {
        self.lines.clear();
        self.asking.clear();
    }

    fn remove(&mut self, key: &ClaimKey) -> Option<Held> {
        let held = self.held.remove(key)?;
        self.of.remove(&(held.pid.clone(), key.clone()));
        Some(held)
    }
}

impl Group {
    /// A claim was granted, prolonged or given back. Says whether that is worth telling: a claim that is granted when its time is over is not.
    pub(super) fn settle_claim(&mut self, id: JobId, key: &ClaimKey, token: Index) -> bool {
        let Some(job) = self.requests.jobs.get(&id) else {
            return false;
        };
        let since = if self.switched.off(Mutation::ClaimFromArrival) {
            self.now
        } else {
            job.first
        };
        let lasts = |ttl: Duration| since + certain(ttl.clamp(MIN_TTL, MAX_TTL));
        match (&job.operation, &job.pid) {
            (Operation::Acquire { ttl, .. }, Some(pid)) => {
                let until = ttl.map(lasts);
                let over = until.map_or(self.requests.until(), |until| {
                    until.min(self.requests.until())
                });
                if over <= self.now {
                    return false;
                }
                let held = Held {
                    pid: pid.clone(),
                    token,
                    until,
                    releasing: false,
                };
                self.claims.of.insert((pid.clone(), key.clone()));
                self.claims.held.insert(key.clone(), held);
                self.timers.hasten(Timer::Expiry, over);
            }
            (Operation::Release { .. }, _) => {
                if let Some(held) = self.claims.held.get_mut(key)
                    && held.token == token
                {
                    held.releasing = true;
                }
            }
            (Operation::Renew { ttl, .. }, _) => {
                let longer = lasts(*ttl);
                if let Some(held) = self.claims.held.get_mut(key)
                    && held.token == token
                {
                    held.until = held.until.map(|until| until.max(longer));
                }
            }
            _ => {}
        }
        true
    }

    /// A change of a claim or a session, perhaps of this node's.
    pub(super) fn on_change(&mut self, change: Change) {
        match change {
            Change::Put { .. } | Change::Deleted { .. } => {}
            Change::Claimed { kind, name, claim } => {
                let key = ClaimKey { kind, name };
                let mine = self.requests.session() == Some(claim.owner);
                let held = self.claims.held.get(&key);
                // Whoever asked for it is gone, or it came too late: nobody here would ever give it back.
                if mine && held.is_none_or(|held| held.token != claim.token) {
                    self.give_back(key, claim.token);
                }
            }
            Change::Freed { kind, name, claim } => {
                let key = ClaimKey { kind, name };
                if self
                    .claims
                    .held
                    .get(&key)
                    .is_some_and(|held| held.token == claim.token)
                {
                    self.lose(&key);
                }
                self.call_next(&key);
            }
            Change::Ended { session } => {
                if self.requests.session() == Some(session) {
                    self.lose_all();
                    self.session_ended(true);
                }
            }
        }
    }

    /// A process of this node no longer holds a claim; unless it gave it back, it is told.
    fn lose(&mut self, key: &ClaimKey) {
        if let Some(held) = self.claims.remove(key)
            && !held.releasing
        {
            self.outputs.push(Output::Lost(Lost {
                pid: held.pid,
                kind: key.kind,
                name: key.name.clone(),
                token: held.token,
            }));
        }
    }

    pub(super) fn lose_all(&mut self) {
        for key in self.claims.held.keys().cloned().collect::<Vec<_>>() {
            self.lose(&key);
        }
    }

    /// Nobody here holds it, so it shall be free.
    fn give_back(&mut self, key: ClaimKey, token: Index) {
        let ClaimKey { kind, name } = key;
        self.add_job(None, Operation::Release { kind, name, token }, None, false);
    }

    /// A process ended.
    pub(super) fn give_back_all(&mut self, pid: &Arc<[u8]>) {
        let first = (pid.clone(), JobId(0));
        let asking = self.claims.asking.range(first..);
        let asking: Vec<JobId> = asking
            .take_while(|(who, _)| who == pid)
            .map(|&(_, job)| job)
            .collect();
        for job in asking {
            self.forget_job(job);
        }
        let first = ClaimKey {
            kind: Kind::Lock,
            name: Vec::new(),
        };
        let held = self.claims.of.range((pid.clone(), first)..);
        let held: Vec<ClaimKey> = held
            .take_while(|(who, _)| who == pid)
            .map(|(_, key)| key.clone())
            .collect();
        for key in held {
            if let Some(held) = self.claims.held.get_mut(&key)
                && !core::mem::replace(&mut held.releasing, true)
            {
                let token = held.token;
                self.give_back(key, token);
            }
        }
    }

    /// Nobody waits for the answer to a job any more. It may still be granted; then it is given back.
    fn forget_job(&mut self, id: JobId) {
        if let Some(job) = self.drop_job(id) {
            if let Some(key) = ClaimKey::of(&job.operation) {
                self.leave_line(&key, id, false);
            }
            if let Some(call) = job.call {
                self.answer(call, Answer::Unknown);
            }
        }
    }

    /// One that stood in line has what it wanted, or wants it no more.
    pub(super) fn leave_line(&mut self, key: &ClaimKey, id: JobId, granted: bool) {
        let Some(line) = self.claims.lines.get_mut(key) else {
            return;
        };
        let first = line.front() == Some(&id);
        line.retain(|waiting| *waiting != id);
        if line.is_empty() {
            self.claims.lines.remove(key);
        } else if first && !granted {
            self.call_next(key);
        }
    }

    /// The first in line asks, if it is not asking already.
    pub(super) fn call_next(&mut self, key: &ClaimKey) {
        let Some(&first) = self.claims.lines.get(key).and_then(VecDeque::front) else {
            return;
        };
        let in_line = |job: &Job| job.place == Place::Line;
        if self.requests.jobs.get(&first).is_some_and(in_line) {
            self.requeue(first);
        }
    }

    /// What is over by this node's clock is told at once; then it is given back, should the machine think otherwise.
    pub(super) fn expire(&mut self) {
        if self.switched.off(Mutation::ClaimUntilFreed) {
            return;
        }
        let (now, session) = (self.now, self.requests.until());
        let over: Vec<(ClaimKey, Index, bool)> = self
            .claims
            .held
            .iter()
            .filter(|(_, held)| held.until.map_or(session, |until| until.min(session)) <= now)
            .map(|(key, held)| (key.clone(), held.token, held.releasing))
            .collect();
        for (key, token, releasing) in over {
            self.lose(&key);
            if !releasing {
                self.give_back(key, token);
            }
        }
        // Those whose session was prolonged since, and those that last longer.
        let session = self.requests.until();
        let ends = self
            .claims
            .held
            .values()
            .map(|held| held.until.map_or(session, |until| until.min(session)));
        if let Some(first) = ends.min() {
            self.timers.set(Timer::Expiry, first);
        }
    }
}
