//! What goes wrong, and how it is made good.

use super::{Event, MS, World, majorities};
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
        if self.plan.busy_links && self.chance(300) {
            self.make_busy(member);
            self.propose_stranger(leader);
            return;
        }
        let kinds = if self.plan.disks { 20 } else { 14 };
        match self.random.below(kinds) {
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
            14 => self.machines[member].slow = self.between((1000 * MS, 5000 * MS)),
            15 => self.machines[member].full = true,
            16 | 17 => (0..count).for_each(|member| {
                self.machines[member].full = false;
                self.machines[member].slow = 0;
            }),
            18 => self.lose_disk(member),
            19 if self.chance(200) => {
                (0..count).for_each(|member| self.crash(member));
                for member in 0..count {
                    let delay = 1 + self.random.below(100 * MS);
                    self.after(delay, Event::Start { member });
                }
            }
            _ if self.chance(500) => {
                let to = self
                    .chance(500)
                    .then(|| self.machines[self.random.below(count as u64) as usize].id);
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
                    self.random.below(self.plan.hint_delay * MS)
                } else {
                    self.random.below(5 * MS)
                };
                let gone = self.machines[gone].id;
                self.after(delay, Event::Hint { at, life, gone });
            }
        }
    }

    pub(super) fn crash(&mut self, member: usize) {
        self.crash_with(member, None);
    }

    /// The same, with so many of the writes under way on disk.
    pub(super) fn crash_with(&mut self, member: usize, kept: Option<usize>) {
        if self.machines[member].engine.is_none() {
            return;
        }
        self.tally.crashes += 1;
        let under_way = self.machines[member].writes.len() as u64;
        let kept = kept.unwrap_or_else(|| self.random.below(under_way + 1) as usize);
        self.machines[member].end(kept);
        if self.plan.forgets > 0 && self.chance(self.plan.forgets) {
            let count = 1 + self.random.below(20) as usize;
            self.machines[member].forget(count);
        }
        self.hint(member, true);
    }

    /// The machine is back with an empty disk, as another member. Not if too many of the voters that anybody knows of are gone then: a group
    /// that lost a majority has lost what it agreed on.
    fn lose_disk(&mut self, member: usize) {
        let lost = self.machines[member].id;
        let lives = |voter| {
            let mut all = self.machines.iter();
            voter != lost && all.any(|machine| machine.id == voter)
        };
        // Its own word may be on its way as well.
        let can_bear = |configuration| majorities(configuration, lives);
        let mut all = self.machines.iter();
        let mut bearable = all.all(|machine| can_bear(machine.image.configured(u64::MAX).0));
        if E::CONFIGURED_WHEN_APPLIED {
            // Whoever starts again may apply the one before the last once more.
            let others = (0..self.machines.len()).map(|other| self.configuration(other));
            bearable &= others.chain(&self.committed).all(can_bear);
        }
        if !bearable {
            return;
        }
        self.crash_with(member, Some(0));
        self.machines[member].wipe();
        self.tally.wiped += 1;
        let delay = self.random.below(500 * MS);
        self.after(delay, Event::Start { member });
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
            let (life, gone) = (self.machines[at].life, self.machines[gone].id);
            let delay = self.random.below(5 * MS);
            self.after(delay, Event::Hint { at, life, gone });
        }
    }

    /// What waited reaches it now, in any order; a client may be faster.
    pub(super) fn resume(&mut self, member: usize) {
        self.machines[member].paused = false;
        let quiet = self.random.below(40 * MS);
        for event in std::mem::take(&mut self.machines[member].parked) {
            let delay = match event {
                Event::Synced { .. } => 0,
                _ if self.plan.in_order => quiet,
                _ => quiet + self.random.below(20 * MS),
            };
            self.after(delay, event);
        }
    }

    /// Everything is well from now on.
    pub(super) fn heal(&mut self) {
        self.faulty = false;
        self.cut.clear();
        self.busy.clear();
        (self.plan.loss, self.plan.twice, self.plan.late) = (0, 0, 0);
        for member in 0..self.machines.len() {
            self.machines[member].slow = 0;
            self.machines[member].full = false;
            self.start(member);
            self.resume(member);
            // A disk that took seconds for a write has it now.
            let machine = &mut self.machines[member];
            let life = machine.life;
            if let Some(token) = machine.hurry(self.now) {
                let synced = Event::Synced {
                    member,
                    life,
                    token,
                };
                self.after(MS, synced);
            }
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
