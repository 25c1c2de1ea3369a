//! Operators: two, who do not know of each other, ask whoever leads to change the members.

use tiebeam_core::leadership::{Configuration, MemberId, Refusal, RequestId};

use super::{Event, MS, World, majorities};
use crate::leadership::engine::Engine;

impl<E: Engine> World<E> {
    /// An operator's turn.
    pub(super) fn operator(&mut self, again: bool) {
        let (true, Some((least, most))) = (self.faulty, self.plan.operators) else {
            return;
        };
        if again {
            let gap = self.between((least * MS, most * MS));
            self.after(gap, Event::Operator { again });
        }
        let Some(leader) = self.leader() else {
            return;
        };
        if self.machines[leader].paused {
            return;
        }
        let current = self.configuration(leader).clone();
        // Whoever comes because of an election knows what it wants.
        let tries = if again { 1 } else { 8 };
        let wanted = (0..tries).find_map(|_| self.wanted(leader, &current));
        if let Some(to) = wanted {
            self.change_members(leader, to);
        }
    }

    /// Asks the leader to remove a member. Says whether it accepted.
    pub fn remove(&mut self, member: usize) -> bool {
        let (Some(leader), id) = (self.leader(), self.machines[member].id) else {
            return false;
        };
        let current = self.configuration(leader);
        let voters = current.voters().filter(|&voter| voter != id);
        let learners = current.learners().filter(|&learner| learner != id);
        let to = Configuration::new(voters, learners);
        to.is_ok_and(|to| self.change_members(leader, to))
    }

    /// Asks `leader` for a change. Says whether it accepted.
    fn change_members(&mut self, leader: usize, to: Configuration) -> bool {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let mut refused = None;
        self.tell(leader, |engine, now| {
            refused = engine.change(now, request, to).err();
        });
        self.tally.collided += u64::from(refused == Some(Refusal::Changing));
        refused.is_none()
    }

    /// What an operator wants: a member more, or less, or another in its place, be it the leader.
    fn wanted(&mut self, leader: usize, current: &Configuration) -> Option<Configuration> {
        let lives = |member: &MemberId| self.machines.iter().any(|machine| machine.id == *member);
        let mut voters: Vec<MemberId> = current.voters().collect();
        let mut learners: Vec<MemberId> = current.learners().filter(lives).collect();
        let outsiders = self.machines.iter().map(|machine| machine.id);
        let outsiders: Vec<MemberId> = outsiders.filter(|&id| !current.contains(id)).collect();
        let lost = voters.iter().position(|voter| !lives(voter));
        let floor = self.plan.members.div_ceil(2);
        let mut any = |count: usize| self.random.below(count as u64) as usize;
        let kind = any(10);
        // Whoever lost its disk goes first.
        let leaves = lost.unwrap_or_else(|| any(voters.len()));
        match kind {
            0..=2 if !outsiders.is_empty() => learners.push(outsiders[any(outsiders.len())]),
            3 | 4 if !learners.is_empty() => voters.push(learners.swap_remove(any(learners.len()))),
            5 if voters.len() > floor => {
                voters.swap_remove(leaves);
            }
            6 | 7 if !learners.is_empty() => {
                voters[leaves] = learners.swap_remove(any(learners.len()));
            }
            8 if voters.len() > floor => {
                let id = self.machines[leader].id;
                voters.retain(|&voter| voter != id);
            }
            9 if !learners.is_empty() && any(4) > 0 => {
                // All at once, by a joint configuration.
                voters.append(&mut learners);
                if voters.len() > self.plan.members {
                    voters.remove(leaves.min(voters.len() - 1));
                }
            }
            9 if !learners.is_empty() => {
                learners.swap_remove(any(learners.len()));
            }
            _ => return None,
        }
        // Nobody asks for a group that could not agree on anything.
        let to = Configuration::new(voters, learners).ok()?;
        let lives = |member| self.machines.iter().any(|machine| machine.id == member);
        majorities(&to, lives).then_some(to)
    }
}
