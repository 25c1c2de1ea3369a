//! What goes wrong, and how it is made good.

use tiebeam_core::leadership::MemberId;

use super::{Event, MS, World};
use crate::leadership::engine::Engine;

impl<E: Engine> World<E> {
    /// One fault, or the end of one.
    pub(super) fn fault(&mut self) {
        let (true, Some((least, most))) = (self.faulty, self.plan.fault_gap) else {
            return;
        };
        let gap = self.between((least * MS, most * MS));
        self.after(gap, Event::Fault);
        let count = self.machines.len();
        let any = self.random.below(count as u64) as usize;
        let leader = self.leader().unwrap_or(any);
        // What happens to a leader is what matters most.
        let member = if self.chance(500) { leader } else { any };
        match self.random.below(14) {
            0 | 1 => self.crash(member),
            2 | 3 => (0..count).for_each(|member| self.start(member)),
            4 => self.split(),
            5 => {
                for other in (0..count).filter(|&other| other != member) {
                    self.cut.extend([(member, other), (other, member)]);
                }
                self.hint_of_cuts();
            }
            6 => {
                let other = self.random.below(count as u64) as usize;
                let way = if self.chance(500) {
                    (member, other)
                } else {
                    (other, member)
                };
                self.cut.insert(way);
            }
            7 | 8 => self.cut.clear(),
            9 => self.machines[member].paused = self.machines[member].engine.is_some(),
            10 => (0..count).for_each(|member| self.resume(member)),
            11 => self.machines[member].slow = self.random.below(300 * MS),
            12 => (0..count).for_each(|member| self.machines[member].slow = 0),
            _ if self.chance(500) => {
                let to = self
                    .chance(500)
                    .then(|| MemberId(self.random.below(count as u64) + 1));
                if !self.machines[leader].paused {
                    self.tell(leader, |engine, now| {
                        // A leader that cannot says so; nothing else follows from it.
                        let _refused = engine.transfer(now, to);
                    });
                }
            }
            _ => self.hint(member, false),
        }
    }

    /// Who leads, as far as it knows itself: the one of the latest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |&member: &usize| self.machines[member].led.is_some();
        (0..self.machines.len())
            .filter(leads)
            .max_by_key(|&member| self.machines[member].led)
    }

    /// Members are told that `gone` is gone: all of them soon, or, if it is not `true`, whoever happens to believe it.
    fn hint(&mut self, gone: usize, truly: bool) {
        if !self.plan.hints {
            return;
        }
        for at in (0..self.machines.len()).filter(|&at| at != gone) {
            if truly || self.chance(700) {
                let life = self.machines[at].life;
                let delay = if self.chance(100) {
                    self.random.below(2000 * MS)
                } else {
                    self.random.below(5 * MS)
                };
                self.after(delay, Event::Hint { at, life, gone });
            }
        }
    }

    pub(super) fn crash(&mut self, member: usize) {
        if self.machines[member].engine.is_none() {
            return;
        }
        self.tally.crashes += 1;
        let under_way = self.machines[member].writes.len() as u64;
        let kept = self.random.below(under_way + 1) as usize;
        self.machines[member].end(kept);
        self.hint(member, true);
    }

    /// It is back before anybody misses it.
    pub(super) fn crash_and_return(&mut self, member: usize) {
        self.crash(member);
        let delay = 1 + self.random.below(5 * MS);
        self.after(delay, Event::Start { member });
    }

    fn split(&mut self) {
        self.cut.clear();
        let sides: Vec<bool> = (0..self.machines.len()).map(|_| self.chance(500)).collect();
        for a in 0..sides.len() {
            for b in 0..sides.len() {
                if sides[a] != sides[b] {
                    self.cut.insert((a, b));
                }
            }
        }
        self.hint_of_cuts();
    }

    /// Now and then a cut is noticed at once, as the end of a connection is.
    fn hint_of_cuts(&mut self) {
        if !self.plan.hints || self.chance(500) {
            return;
        }
        for (at, gone) in self.cut.clone() {
            let life = self.machines[at].life;
            let delay = self.random.below(5 * MS);
            self.after(delay, Event::Hint { at, life, gone });
        }
    }

    /// What waited reaches it now, in any order; a client may be faster.
    fn resume(&mut self, member: usize) {
        self.machines[member].paused = false;
        let quiet = self.random.below(40 * MS);
        for event in std::mem::take(&mut self.machines[member].parked) {
            let delay = match event {
                Event::Synced { .. } => 0,
                _ => quiet + self.random.below(20 * MS),
            };
            self.after(delay, event);
        }
    }

    /// Everything is well from now on.
    pub(super) fn heal(&mut self) {
        self.faulty = false;
        self.cut.clear();
        (self.plan.loss, self.plan.twice, self.plan.late) = (0, 0, 0);
        for member in 0..self.machines.len() {
            self.machines[member].slow = 0;
            self.start(member);
            self.resume(member);
        }
    }

    /// From now on nothing that `from` sends reaches `to`. Members are numbered from 0.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Every cut is over.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// The leader's process is killed, at once and for good. Says whether there was one.
    pub fn kill_leader(&mut self) -> bool {
        let leader = self.leader();
        if let Some(leader) = leader {
            self.crash(leader);
        }
        leader.is_some()
    }

    /// The leader hands over to whom it likes. Says whether it can.
    pub fn step_down(&mut self) -> bool {
        let mut handed = false;
        if let Some(leader) = self.leader() {
            self.tell(leader, |engine, now| {
                handed = engine.transfer(now, None).is_ok()
            });
        }
        handed
    }

    /// The term of the latest leader that is up.
    pub fn led(&self) -> Option<u64> {
        self.leader().and_then(|leader| self.machines[leader].led)
    }
}
