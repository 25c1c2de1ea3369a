//! The registrar: carries out this node's registrations, one at a time, each under the lock `global` on all known nodes.
//!
//! Source: `global:trans_all_known/1`.

use std::collections::{BTreeSet, VecDeque};

use tiebeam_core::{Duration, Instant};
use tiebeam_wire::{Atom, Pid, Term};

use super::call::MultiCall;
use super::locks::GLOBAL;
use super::machine::{Action, Actor, CallId, Machine, Ticket};
use super::messages::{LockId, NameEntry, Request};

/// The longest pause before the first new attempt to get the lock; it doubles each time, up to `PAUSE_MAX`.
const PAUSE_FIRST: Duration = Duration::from_millis(125);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What this node wants done to the table of names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Enter a name that is free.
    Register(NameEntry),
    /// Enter a name, free or not.
    ReRegister(NameEntry),
    Unregister(Term),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    /// The name belongs to this process.
    NameTaken(Pid),
    /// The process has this name already.
    ProcessNamed(Term),
}

#[derive(Debug)]
struct Job {
    ticket: Ticket,
    change: Change,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Somebody else has the lock.
    Pausing {
        until: Instant,
        times: u32,
    },
    /// Asks the greatest node first, as the locker does.
    Boss {
        known: BTreeSet<Atom>,
        boss: Atom,
        times: u32,
        call: MultiCall,
    },
    All {
        known: BTreeSet<Atom>,
        boss: Atom,
        times: u32,
        call: MultiCall,
    },
    GivingBack {
        times: u32,
        call: MultiCall,
    },
    Changing {
        nodes: BTreeSet<Atom>,
        outcome: Outcome,
        call: MultiCall,
    },
    Unlocking {
        boss: Option<Atom>,
        outcome: Outcome,
        call: MultiCall,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    jobs: VecDeque<Job>,
    phase: Phase,
}

impl Registrar {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Pausing { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Changes that wait.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Takes the answer to a question of the registrar.
    pub(super) fn answered(&mut self, call: CallId, answer: Option<Term>) {
        match &mut self.phase {
            Phase::Boss { call: question, .. }
            | Phase::All { call: question, .. }
            | Phase::GivingBack { call: question, .. }
            | Phase::Changing { call: question, .. }
            | Phase::Unlocking { call: question, .. } => question.answered(call, answer),
            Phase::Idle | Phase::Pausing { .. } => {}
        }
    }
}

impl Machine {
    pub(super) fn change(&mut self, ticket: Ticket, change: Change) {
        self.registrar.jobs.push_back(Job { ticket, change });
    }

    /// Does all that the registrar can do now.
    pub(super) fn run_registrar(&mut self) {
        loop {
            let phase = std::mem::take(&mut self.registrar.phase);
            let (phase, progress) = self.registrar_step(phase);
            self.registrar.phase = phase;
            if !progress {
                return;
            }
        }
    }

    fn registrar_lock(&self) -> LockId {
        LockId {
            resource: Term::atom(GLOBAL),
            requester: Term::from(&self.config.registrar),
        }
    }

    fn registrar_call(&mut self, nodes: &BTreeSet<Atom>, request: &Request) -> MultiCall {
        self.multi_call(Actor::Registrar, nodes, request)
    }

    fn registrar_step(&mut self, phase: Phase) -> (Phase, bool) {
        match phase {
            Phase::Idle if self.registrar.jobs.is_empty() => (Phase::Idle, false),
            Phase::Idle => (self.try_lock(0), true),
            Phase::Pausing { until, times } if self.now < until => {
                (Phase::Pausing { until, times }, false)
            }
            Phase::Pausing { times, .. } => (self.try_lock(times), true),
            Phase::Boss { ref call, .. }
            | Phase::All { ref call, .. }
            | Phase::GivingBack { ref call, .. }
            | Phase::Changing { ref call, .. }
            | Phase::Unlocking { ref call, .. }
                if !call.is_over() =>
            {
                (phase, false)
            }
            Phase::Boss {
                known,
                boss,
                times,
                call,
            } => (self.boss_answered(known, boss, times, &call), true),
            Phase::All {
                known,
                boss,
                times,
                call,
            } => (self.all_answered(known, boss, times, call), true),
            Phase::GivingBack { times, .. } => (self.pause(times), true),
            Phase::Changing { nodes, outcome, .. } => (self.unlock(nodes, outcome), true),
            Phase::Unlocking {
                boss: Some(boss),
                outcome,
                ..
            } => {
                let request = Request::DelLock(self.registrar_lock());
                let call = self.registrar_call(&BTreeSet::from([boss]), &request);
                let phase = Phase::Unlocking {
                    boss: None,
                    outcome,
                    call,
                };
                (phase, true)
            }
            Phase::Unlocking {
                boss: None,
                outcome,
                ..
            } => {
                if let Some(Job { ticket, .. }) = self.registrar.jobs.pop_front() {
                    self.act(Action::Changed { ticket, outcome });
                }
                (Phase::Idle, true)
            }
        }
    }

    fn try_lock(&mut self, times: u32) -> Phase {
        let known: BTreeSet<Atom> = self.known.keys().cloned().collect();
        let boss = self.boss();
        let request = Request::SetLock(self.registrar_lock());
        let call = self.registrar_call(&BTreeSet::from([boss.clone()]), &request);
        Phase::Boss {
            known,
            boss,
            times,
            call,
        }
    }

    fn boss_answered(
        &mut self,
        known: BTreeSet<Atom>,
        boss: Atom,
        times: u32,
        call: &MultiCall,
    ) -> Phase {
        if !call.all_true() {
            return self.pause(times);
        }
        let lock = self.registrar_lock();
        let mut nodes = known.clone();
        nodes.insert(self.config.node.clone());
        if nodes.len() > 1 && !self.locks.can_set(&lock) {
            let call = self.registrar_call(&BTreeSet::from([boss]), &Request::DelLock(lock));
            return Phase::GivingBack { times, call };
        }
        let call = self.registrar_call(&nodes, &Request::SetLock(lock));
        Phase::All {
            known,
            boss,
            times,
            call,
        }
    }

    fn all_answered(
        &mut self,
        known: BTreeSet<Atom>,
        boss: Atom,
        times: u32,
        call: MultiCall,
    ) -> Phase {
        let all_true = call.all_true();
        let grown = self.known.keys().any(|node| !known.contains(node));
        if !all_true || grown {
            let mut back = call.granted();
            back.insert(boss);
            let request = Request::DelLock(self.registrar_lock());
            let call = self.registrar_call(&back, &request);
            return Phase::GivingBack { times, call };
        }
        let mut nodes = known;
        nodes.insert(self.config.node.clone());
        let Some(job) = self.registrar.jobs.front() else {
            return self.unlock(nodes, Outcome::Done);
        };
        let request = match &job.change {
            Change::Register(entry) => {
                if let Some(pid) = self.names.pid(&entry.name) {
                    let outcome = Outcome::NameTaken(pid.clone());
                    return self.unlock(nodes, outcome);
                }
                if let Some(name) = self.names.of(&entry.pid).first() {
                    let outcome = Outcome::ProcessNamed(name.clone());
                    return self.unlock(nodes, outcome);
                }
                Request::Register(entry.clone())
            }
            Change::ReRegister(entry) => Request::Register(entry.clone()),
            Change::Unregister(name) => Request::Unregister(name.clone()),
        };
        let call = self.registrar_call(&nodes, &request);
        Phase::Changing {
            nodes,
            outcome: Outcome::Done,
            call,
        }
    }

    /// Gives the lock back, on the boss last.
    fn unlock(&mut self, mut nodes: BTreeSet<Atom>, outcome: Outcome) -> Phase {
        let boss = nodes.pop_last();
        let request = Request::DelLock(self.registrar_lock());
        let call = self.registrar_call(&nodes, &request);
        Phase::Unlocking {
            boss,
            outcome,
            call,
        }
    }

    /// Source: `global:random_sleep/1`.
    fn pause(&mut self, times: u32) -> Phase {
        let longest = PAUSE_FIRST.doubled(times, PAUSE_MAX);
        let pause = Duration::from_micros(1 + self.random.below(longest.as_micros()));
        Phase::Pausing {
            until: self.now + pause,
            times: times.saturating_add(1),
        }
    }
}
