//! The simulated driver of a core: it tells the core what happens and carries out what the core wants.

use std::collections::VecDeque;

use tiebeam_core::{Action, Duration, Event, Instant, Kind, Member, NodeName, Notice};

use super::{Broken, Happening, World};
use crate::check::{self, Stepped};
use crate::machine::MAX_WAITING;
use crate::plan::Detail;
use crate::record::Told;

impl World {
    /// Something for the core of `node`; it waits while the driver stands still.
    pub(super) fn tell(&mut self, node: usize, event: Event, garbled: bool) -> Result<(), Broken> {
        let machine = &mut self.machines[node];
        if machine.core.is_none() {
            return Ok(());
        }
        if !machine.stands_still() {
            return self.step(node, event, garbled);
        }
        // The end and the beginning of a connection are never dropped.
        if machine.waiting.len() < MAX_WAITING || !matches!(event, Event::Received { .. }) {
            machine.waiting.push_back((event, garbled));
        }
        Ok(())
    }

    pub(super) fn wake(&mut self, node: usize, number: u64) -> Result<(), Broken> {
        let now = self.now;
        let machine = &mut self.machines[node];
        let still = machine.stands_still();
        let Some(core) = &mut machine.core else {
            return Ok(());
        };
        if core.number != number || core.wakes != Some(now) {
            return Ok(());
        }
        if still {
            machine.woken = true;
            return Ok(());
        }
        core.wakes = None;
        let (started, deadline) = (core.started, core.cluster.deadline());
        match deadline.map(|deadline| started + deadline.since(Instant::ZERO)) {
            Some(at) if at > now => {
                self.wake_at(node, at);
                Ok(())
            }
            Some(_) => self.step(node, Event::Woke, false),
            None => Ok(()),
        }
    }

    /// Plans the next waker, unless an earlier one is on its way: that one will look again.
    fn wake_at(&mut self, node: usize, at: Instant) {
        let late = self.network.conditions.late.as_micros();
        let late = Duration::from_micros(self.random.below(late + 1));
        let Some(core) = &mut self.machines[node].core else {
            return;
        };
        // A deadline that has passed is due at once.
        let at = at.max(self.now);
        if core.wakes.is_some_and(|other| other <= at) {
            return;
        }
        core.wakes = Some(at + late);
        let (number, at) = (core.number, at + late);
        self.schedule(at, Happening::Wake { node, core: number });
    }

    /// The driver runs again: what waited comes in order, its own waker before or after that.
    pub(super) fn resume(&mut self, node: usize) -> Result<(), Broken> {
        let waker_first = self.random.below(2) == 0;
        let machine = &mut self.machines[node];
        if machine.stands_still() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut machine.waiting);
        if std::mem::take(&mut machine.woken) {
            if let Some(core) = &mut machine.core {
                core.wakes = None;
            }
            match waker_first {
                true => waiting.push_front((Event::Woke, false)),
                false => waiting.push_back((Event::Woke, false)),
            }
        }
        for (event, garbled) in waiting {
            self.tell(node, event, garbled)?;
        }
        Ok(())
    }

    /// Tells the core, carries out what it wants, checks what must hold.
    fn step(&mut self, node: usize, event: Event, garbled: bool) -> Result<(), Broken> {
        let mut events = VecDeque::from([(event, garbled)]);
        while let Some((event, garbled)) = events.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            let checks = self.plan.checks;
            let machine = &mut self.machines[node];
            let Some(core) = &mut machine.core else {
                break;
            };
            let now = Instant::ZERO + self.now.since(core.started);
            let members = |core: &crate::machine::Core| -> Vec<Member> {
                match checks {
                    true => core.cluster.view().members().cloned().collect(),
                    false => Vec::new(),
                }
            };
            let before = members(core);
            core.cluster.step(now, event, &mut actions);
            let after = members(core);
            let (started, deadline) = (core.started, core.cluster.deadline());
            if let Some(deadline) = deadline {
                self.wake_at(node, started + deadline.since(Instant::ZERO));
            }
            if checks {
                self.check(node, garbled, &before, &after, &actions)?;
            }
            for action in actions.drain(..) {
                self.perform(node, action, &mut events)?;
            }
            self.actions = actions;
        }
        Ok(())
    }

    fn perform(
        &mut self,
        node: usize,
        action: Action,
        events: &mut VecDeque<(Event, bool)>,
    ) -> Result<(), Broken> {
        match action {
            Action::Send { to, bytes } => match self.linked(node, &to) {
                Some(peer) => {
                    if let Some(link) = self.machines[node].ports[peer].link {
                        self.send(link, node, peer, bytes, false);
                    }
                }
                None => {
                    if let Some(peer) = self.resolve(node, &to) {
                        self.dial(node, peer);
                    }
                }
            },
            Action::Observe { node: of, probe } => {
                if let Some(peer) = self.linked(node, &of) {
                    self.observe(node, peer, probe);
                }
            }
            Action::Sample { node: of } => {
                self.tally.sampled += 1;
                let peer = self.linked(node, &of).filter(|_| self.plan.samples);
                let received = peer.and_then(|peer| self.received(node, peer));
                events.push_back((Event::Sampled { node: of, received }, false));
            }
            Action::Evict { node: of } => {
                if let Some(peer) = self.linked(node, &of) {
                    self.evict(node, peer)?;
                }
            }
            Action::EvictAt { at, node: of } => {
                if let Some(peer) = self.linked(node, &at)
                    && !self.network.is_cut(node, peer)
                    && self.machines[peer].paused.is_none()
                {
                    self.tally.evictions_elsewhere += 1;
                    if let Some(dead) = self.number(&of) {
                        let running = self.takes_part(dead);
                        self.record(node, dead, Told::EvictsAt, running);
                    }
                    if self.plan.detail == Detail::Full {
                        let name = self.machines[node].name.clone();
                        self.note(format_args!("{name}: evicts {of} at {at}"));
                    }
                    let due = self.now + self.network.delay(&mut self.random);
                    self.schedule(due, Happening::Disconnect { at: peer, from: of });
                }
            }
            // Nothing is registered here.
            Action::Table(_)
            | Action::Lost(_)
            | Action::Promoted { .. }
            | Action::Resolve { .. }
            | Action::Check { .. }
            | Action::Persist(_)
            | Action::Leadership(_)
            | Action::Answer { .. } => {}
            Action::Notify(notice) => self.notice(node, notice)?,
        }
        Ok(())
    }

    fn evict(&mut self, node: usize, peer: usize) -> Result<(), Broken> {
        self.tally.evictions += 1;
        let running = self.takes_part(peer);
        self.record(node, peer, Told::Evicts, running);
        if self.plan.detail == Detail::Full {
            let (name, of) = (
                self.machines[node].name.clone(),
                self.machines[peer].name.clone(),
            );
            self.note(format_args!("{name}: evicts {of}"));
        }
        if self.plan.checks && self.plan.samples {
            let heard = self.machines[node].ports[peer].heard;
            let names = (&self.machines[node].name, &self.machines[peer].name);
            let timing = &self.plan.timing;
            let shortest = timing
                .probe_interval
                .times(u64::from(timing.suspicion_multiplier));
            let floor = self.now.as_micros().saturating_sub(shortest.as_micros());
            self.evidence
                .evicts(node, peer, names, heard, Instant::from_micros(floor))?;
        }
        self.close(node, peer)
    }

    fn check(
        &mut self,
        node: usize,
        garbled: bool,
        before: &[Member],
        after: &[Member],
        actions: &[Action],
    ) -> Result<(), Broken> {
        let machine = &self.machines[node];
        let Some(core) = &machine.core else {
            return Ok(());
        };
        let step = Stepped {
            node: &machine.name,
            cluster: &machine.cluster,
            garbled,
            before,
            after,
            actions,
        };
        let names = &self.names;
        let machines = &self.machines;
        self.lives.check(&step, |name| {
            names
                .get(name)
                .and_then(|hosts| hosts.first())
                .map_or(0, |&host| machines[host].creation)
        })?;
        check::garbage(&step)?;
        check::selfhood(&step)?;
        check::bounds(&step, &core.cluster.view().metrics())?;
        check::identity(&step, |name| {
            self.number(name).map_or(("", Kind::Plain), |number| {
                (
                    self.machines[number].cluster.as_str(),
                    self.machines[number].kind,
                )
            })
        })
    }

    /// Whether this life of a host runs, and has not left.
    fn lives(&self, of: usize, member: &Member) -> bool {
        let machine = &self.machines[of];
        self.takes_part(of) && (machine.kind == Kind::Plain || machine.creation == member.creation)
    }

    fn notice(&mut self, node: usize, notice: Notice) -> Result<(), Broken> {
        if self.plan.detail == Detail::Full {
            self.note_notice(node, &notice);
        }
        let verdicts = self.plan.detail == Detail::Verdicts;
        let tally = &mut self.tally;
        let (of, told, member) = match notice {
            Notice::Up(member) => {
                tally.up += 1;
                self.machines[node].up += 1;
                (member.node.clone(), Told::Up, Some(member))
            }
            Notice::Down(member) => {
                tally.down += 1;
                self.machines[node].up -= 1;
                (member.node.clone(), Told::Down, Some(member))
            }
            Notice::Left(member) => {
                tally.left += 1;
                self.machines[node].up = self.machines[node].up.saturating_sub(1);
                (member.node.clone(), Told::Left, Some(member))
            }
            Notice::Refreshed(member) => {
                tally.refreshed += 1;
                (member.node.clone(), Told::Refreshed, Some(member))
            }
            Notice::Suspect(member) => {
                tally.suspect += 1;
                (member.node.clone(), Told::Suspect, Some(member))
            }
            Notice::Recovered(member) => {
                tally.recovered += 1;
                (member.node.clone(), Told::Recovered, Some(member))
            }
            Notice::Updated(member) => {
                tally.updated += 1;
                (member.node.clone(), Told::Updated, Some(member))
            }
            Notice::Contested { member, reason } => {
                tally.contested += 1;
                (member.node.clone(), Told::Contested(reason), Some(member))
            }
            Notice::Stalled { .. } => {
                tally.stalled += 1;
                (self.machines[node].name.clone(), Told::Stalled, None)
            }
            Notice::Health { multiplier } => (
                self.machines[node].name.clone(),
                Told::Health(multiplier),
                None,
            ),
            Notice::Conflict { kept, .. } => {
                tally.conflicts += 1;
                (kept.node.clone(), Told::Conflict, Some(kept))
            }
            Notice::Broadcast { from, bytes } => {
                tally.broadcasts += 1;
                let mut first = [0; 8];
                for (to, from) in first.iter_mut().zip(&bytes) {
                    *to = *from;
                }
                (from, Told::Broadcast(u64::from_be_bytes(first)), None)
            }
            Notice::Forgotten(member) => {
                tally.forgotten += 1;
                (member.node.clone(), Told::Forgotten, Some(member))
            }
            Notice::Refused { node, .. } => {
                tally.refused += 1;
                (node, Told::Refused, None)
            }
            Notice::Ignored { from, .. } => {
                tally.ignored += 1;
                (from, Told::Ignored, None)
            }
        };
        let Some(of) = self.linked(node, &of).or(self.number(&of)) else {
            return Ok(());
        };
        let running = match &member {
            Some(member) => self.lives(of, member),
            None => self.takes_part(of),
        };
        self.evidence.told(node, of, self.now, told);
        self.growth.told(of, told);
        match told {
            Told::Down if running => self.tally.down_running += 1,
            Told::Contested(_) if running => self.tally.contested_running += 1,
            _ => {}
        }
        if self.plan.checks && self.plan.accurate {
            let (one, other) = (&self.machines[node].name, &self.machines[of].name);
            check::accuracy(one, other, self.machines[of].kind, told, running)?;
        }
        let minor = matches!(
            told,
            Told::Refreshed | Told::Suspect | Told::Recovered | Told::Health(_) | Told::Ignored
        );
        // What is said of the dead is rare, and figures want to know when it began.
        if !(verdicts && minor && running) {
            self.record(node, of, told, running);
        }
        Ok(())
    }

    fn note_notice(&mut self, node: usize, notice: &Notice) {
        let name: NodeName = self.machines[node].name.clone();
        let (word, member) = match notice {
            Notice::Up(member) => ("up", member),
            Notice::Down(member) => ("down", member),
            Notice::Left(member) => ("left", member),
            Notice::Refreshed(member) => ("refreshed", member),
            Notice::Suspect(member) => ("suspect", member),
            Notice::Recovered(member) => ("recovered", member),
            Notice::Updated(member) => ("updated", member),
            Notice::Forgotten(member) => ("forgotten", member),
            Notice::Contested { member, reason } => {
                return self.note(format_args!(
                    "{name}: contested {}: {reason}",
                    member.identity()
                ));
            }
            Notice::Stalled { late } => {
                return self.note(format_args!("{name}: stalled for {late}"));
            }
            Notice::Health { multiplier } => {
                return self.note(format_args!("{name}: health {multiplier}"));
            }
            Notice::Conflict { kept, refused } => {
                return self.note(format_args!(
                    "{name}: conflict {} with #{refused}",
                    kept.identity()
                ));
            }
            Notice::Broadcast { from, bytes } => {
                return self.note(format_args!("{name}: broadcast {from}: {bytes:?}"));
            }
            Notice::Refused {
                node: peer,
                cluster,
            } => {
                return self.note(format_args!("{name}: refused {peer} of {cluster:?}"));
            }
            Notice::Ignored { from, why } => {
                return self.note(format_args!("{name}: ignored {from}: {why}"));
            }
        };
        self.note(format_args!("{name}: {word} {}", member.identity()));
    }
}
