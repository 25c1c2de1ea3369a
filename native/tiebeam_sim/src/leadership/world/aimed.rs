//! Faults that are aimed at a moment: by chance alone few worlds hit the milliseconds in which a rule matters.
//!
//! A leader is struck when it is elected, before anything that it says then is heard, or in its first heartbeats; the polls of a second
//! candidate take longer than an election timeout; a member crashes while a snapshot that took the place of its log is not on disk.

use tiebeam_core::leadership::Role;

use super::links::Busy;
use super::{Event, MS, World};
use crate::leadership::engine::Engine;

/// For how long after the faults members still crash when they have a snapshot that is not on disk: the leader that sent it stays.
const LATE_CRASHES: u64 = 1000 * MS;

/// What happens to a member a little later.
#[derive(Debug, Clone, Copy)]
pub(super) enum Strike {
    /// It crashes.
    Crash,
    /// It crashes, and is back before anybody misses it.
    Return,
    /// It stands still.
    Pause,
    /// It and another one do not hear each other.
    Part(usize),
}

impl<E: Engine> World<E> {
    /// `member` was told something, and nobody has heard yet what it says to that.
    pub(super) fn aim(&mut self, member: usize) {
        if self.plan.strike == 0 || !self.faulty {
            return;
        }
        let machine = &mut self.machines[member];
        let Some(status) = machine.engine.as_ref().map(|engine| engine.status()) else {
            return;
        };
        let (now, term) = (status.role, Some(status.term));
        if now == Role::Leader && machine.led != term {
            self.aim_at_leader(member);
        } else if now == Role::Candidate && machine.stood != term {
            machine.stood = term;
            self.aim_at_candidate(member);
        }
    }

    fn aim_at_leader(&mut self, member: usize) {
        if self.plan.operators.is_some() {
            for _ in 0..4 {
                let delay = self.random.below(200 * MS);
                self.after(delay, Event::Operator { again: false });
            }
        }
        if !self.chance(self.plan.strike) {
            return;
        }
        self.tally.struck += 1;
        let count = self.machines.len();
        let others = (0..count).filter(|&other| other != member);
        let soon = self.random.below(60 * MS);
        let mut relief = self.between((300 * MS, 900 * MS));
        // A vote matters when nobody has heard of the leader.
        let kinds = if self.plan.late_polls { 2 } else { 5 };
        match self.random.below(kinds) {
            0 => {
                self.cut.extend(others.map(|other| (member, other)));
                let strike = Strike::Return;
                self.after(soon / 4, Event::Strike { member, strike });
            }
            1 => {
                for other in others {
                    self.cut.extend([(member, other), (other, member)]);
                }
            }
            2 => {
                let strike = Strike::Crash;
                self.after(soon, Event::Strike { member, strike });
            }
            3 => {
                let strike = Strike::Pause;
                self.after(soon, Event::Strike { member, strike });
            }
            _ => {
                // One has what the leader said so far, hears no more of it, and asks; and then the others start anew.
                let deaf = (member + 1 + self.random.below(count as u64 - 1) as usize) % count;
                let strike = Strike::Part(deaf);
                self.after(100 * MS + soon, Event::Strike { member, strike });
                let delay = 100 * MS + soon + self.between((250 * MS, 450 * MS));
                for other in others.filter(|&other| other != deaf) {
                    let strike = Strike::Return;
                    self.after(
                        delay,
                        Event::Strike {
                            member: other,
                            strike,
                        },
                    );
                }
                relief += delay;
            }
        }
        self.after(relief, Event::Relief);
    }

    /// The second one that stands in a term: whatever it says now arrives when those who voted for the first one, and started anew, may vote again.
    fn aim_at_candidate(&mut self, member: usize) {
        let stood = self.machines[member].stood;
        let mut others = (0..self.machines.len()).filter(|&other| other != member);
        if !self.plan.late_polls || !others.any(|other| self.machines[other].stood == stood) {
            return;
        }
        let until = self.now + self.between((215 * MS, 265 * MS));
        for other in (0..self.machines.len()).filter(|&other| other != member) {
            self.busy
                .insert((member, other), Busy { until, holds: true });
        }
    }

    pub(super) fn strike(&mut self, member: usize, strike: Strike) {
        if !self.faulty {
            return;
        }
        match strike {
            Strike::Crash => self.crash(member),
            Strike::Return => self.crash_and_return(member),
            Strike::Pause => self.machines[member].paused = self.machines[member].engine.is_some(),
            Strike::Part(other) => self.cut.extend([(member, other), (other, member)]),
        }
    }

    /// What was cut, crashed or stood still is well again.
    pub(super) fn relief(&mut self) {
        self.cut.clear();
        for member in 0..self.machines.len() {
            self.start(member);
            self.resume(member);
        }
    }

    /// A snapshot took the place of the log of `member`, and is not on its disk.
    pub(super) fn crash_at_install(&mut self, member: usize) {
        let over = self.plan.faulty.as_micros() + LATE_CRASHES;
        if self.now < over && self.chance(self.plan.crash_at_install) {
            self.tally.uninstalled += 1;
            self.crash_with(member, Some(0));
            let delay = 1 + self.random.below(5 * MS);
            self.after(delay, Event::Start { member });
        }
    }

    /// A snapshot of what was applied so far, before the next entry is.
    pub(super) fn compact_between(&mut self, member: usize) {
        let state = self.state(member);
        let machine = &mut self.machines[member];
        let now = machine.clock(self.now);
        if let Some(engine) = &mut machine.engine {
            engine.compact(now, state.into());
        }
    }
}
