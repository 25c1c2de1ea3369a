//! What only the node that leads does: it stamps commands with its time, lets time pass for the machine, and hands over.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::command::{Answer, Command};
use super::members::Asker;
use super::message::{Message, Order, Outcome, Why};
use super::output::Stopped;
use super::requests::{JobId, MAX_WAITING};
use super::{Group, Timer};
use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::consensus::{Consensus, Refusal, RequestId};
use crate::leadership::entry::{MemberId, Term};
use crate::leadership::machine::{Command as Instruction, Machine, Operation, SessionId, Stamp};
use crate::time::Instant;

/// The mark of all commands: what became of one is seen in the log.
pub(super) const COMMAND: RequestId = RequestId(0);

/// A call that waits for something that is no command.
#[derive(Debug)]
struct Wish {
    call: CallId,
    order: Order,
    /// The number under which the leader knows it.
    id: u64,
    /// The leader that was asked, and its term.
    asked: Option<(MemberId, Term)>,
}

/// What a leader has, and what is wanted of one.
#[derive(Debug, Default)]
pub(super) struct Office {
    stamp: Option<Stamp>,
    wishes: BTreeMap<JobId, Wish>,
    /// It was asked to hand over, as it leaves.
    handing: bool,
}

impl Office {
    /// The time to write into a command.
    pub(super) fn time(&mut self, machine: &Machine, now: Instant) -> Instant {
        let stamp = self
            .stamp
            .get_or_insert_with(|| Stamp::new(machine.time(), now));
        stamp.at(now)
    }

    /// The machine may be further than the leader thought when it was elected.
    pub(super) fn applied(&mut self, machine: &Machine, now: Instant) {
        if let Some(stamp) = &mut self.stamp
            && machine.time() > stamp.at(now)
        {
            *stamp = Stamp::new(machine.time(), now);
        }
    }
}

impl Group {
    /// The node that leads, if it can be reached. It may be this one.
    pub(super) fn office_node(&self) -> Option<NodeName> {
        let (_, node) = self.leader()?;
        (node == self.node || self.peers.is_up(&node)).then_some(node)
    }

    /// Who leads has changed.
    pub(super) fn on_leader(&mut self) {
        self.office.stamp = self
            .is_leader()
            .then(|| Stamp::new(self.machine.time(), self.now));
        self.schedule_tick();
        self.take_care();
        self.seek_leader_again();
        self.reads_again();
        self.wishes_again();
    }

    /// A command of another member, which says that this one leads.
    pub(super) fn on_propose(&mut self, from: &NodeName, group: u64, attempt: u64, command: &[u8]) {
        if self.group() != Some(group) {
            return;
        }
        let instruction = match Instruction::decode(command) {
            Ok(instruction) if instruction.operation != Operation::Tick => instruction,
            Ok(_) => return self.ignore(from, "only the leader lets time pass".into()),
            Err(error) => return self.ignore(from, alloc::format!("{error}")),
        };
        let (session, number) = (instruction.session, instruction.number);
        if self.append(instruction).is_err() {
            self.decline(from, session, number, attempt);
        }
    }

    fn decline(&mut self, to: &NodeName, session: SessionId, number: u64, attempt: u64) {
        self.send(
            to,
            Message::Declined {
                session,
                number,
                attempt,
            },
        );
    }

    /// Something of the machine is over at a time of this leader's clock.
    pub(super) fn schedule_tick(&mut self) {
        match (self.office.stamp, self.machine.deadline()) {
            (Some(stamp), Some(deadline)) => self.timers.set(Timer::Tick, stamp.due(deadline)),
            _ => self.timers.cancel(&Timer::Tick),
        }
    }

    /// Lets time pass for the machine, unless a command that is on its way does.
    pub(super) fn tick(&mut self) {
        if !self.is_leader() || self.machine.deadline().is_none() {
            return;
        }
        let tick = Instruction {
            session: SessionId(0),
            number: 0,
            known: 0,
            time: Instant::ZERO,
            operation: Operation::Tick,
        };
        // If it is refused, or takes long, there is another one.
        let _ = self.append(tick);
        self.timers
            .set(Timer::Tick, self.now + self.timing.election);
    }

    /// Something that is no command is wanted.
    pub(super) fn ask_order(&mut self, call: CallId, until: Instant, command: Command) {
        let order = match command {
            Command::StepDown { to } => Order::StepDown { to },
            Command::AddVoter(node) => Order::AddVoter(node),
            Command::RemoveVoter(node) => Order::RemoveVoter(node),
            Command::ForceNewGroup => return self.force(call),
            _ => return self.answer(call, Answer::Refused("this is no change of members")),
        };
        if self.office.wishes.len() >= MAX_WAITING {
            return self.answer(call, Answer::Busy { limit: MAX_WAITING });
        }
        let id = self.requests.next_id();
        let wish = Wish {
            call,
            order,
            id: self.random.bits(),
            asked: None,
        };
        self.office.wishes.insert(id, wish);
        self.timers.set(Timer::Job(id), until);
        self.timers
            .hasten(Timer::Repeat, self.now + self.patience());
        self.ask_leader(id);
    }

    /// Brings a wish to the leader, or fulfils it here.
    fn ask_leader(&mut self, id: JobId) {
        let Some((leader, node)) = self.leader() else {
            return;
        };
        let (Some(group), Some(term)) = (
            self.group(),
            self.engine.as_ref().map(|engine| engine.status().term),
        ) else {
            return;
        };
        let Some(wish) = self.office.wishes.get_mut(&id) else {
            return;
        };
        wish.asked = Some((leader, term));
        let (number, order) = (wish.id, wish.order.clone());
        if node == self.node {
            let outcome = self.obey(Asker::Here(id), order);
            self.on_outcome(id, outcome);
        } else {
            self.send(
                &node,
                Message::Order {
                    group,
                    id: number,
                    term,
                    order,
                },
            );
        }
    }

    pub(super) fn on_order(
        &mut self,
        from: &NodeName,
        group: u64,
        id: u64,
        term: Term,
        order: Order,
    ) {
        if self.group() != Some(group) {
            return;
        }
        let present = self.engine.as_ref().map(|engine| engine.status().term);
        let outcome = if present == Some(term) && self.is_leader() {
            self.obey(Asker::There(from.clone(), id), order)
        } else {
            Outcome::NotLeader
        };
        self.send(from, Message::Ordered { id, outcome });
    }

    pub(super) fn on_ordered(&mut self, id: u64, outcome: Outcome) {
        let found = self.office.wishes.iter().find(|(_, wish)| wish.id == id);
        if let Some((&id, _)) = found {
            self.on_outcome(id, outcome);
        }
    }

    /// Does it, as the leader.
    fn obey(&mut self, asker: Asker, order: Order) -> Outcome {
        let now = self.now;
        let Some(engine) = &mut self.engine else {
            return Outcome::NotLeader;
        };
        match order {
            Order::StepDown { to: Some(to) } if to == self.node => {
                Outcome::Done(engine.status().term)
            }
            Order::StepDown { to } => {
                let configuration = engine.configuration();
                let member = match &to {
                    Some(node) => {
                        let known = self.peers.member_of(node);
                        let known = known.filter(|member| configuration.contains(*member));
                        match known.or(configuration.member_on(node)) {
                            Some(member) => Some(member),
                            None => return Outcome::NoMember,
                        }
                    }
                    None => None,
                };
                outcome(engine.transfer(now, member))
            }
            Order::AddVoter(_) | Order::RemoveVoter(_) => self.order_voters(asker, order),
        }
    }

    pub(super) fn on_outcome(&mut self, id: JobId, outcome: Outcome) {
        let Some(wish) = self.office.wishes.get_mut(&id) else {
            return;
        };
        let answer = match outcome {
            Outcome::Begun => return,
            Outcome::NotLeader => {
                wish.asked = None;
                return;
            }
            Outcome::Done(at) => Answer::Done(at),
            Outcome::NoMember => match &wish.order {
                Order::StepDown { to: Some(node) }
                | Order::AddVoter(node)
                | Order::RemoveVoter(node) => Answer::NoMember(node.clone()),
                Order::StepDown { to: None } => Answer::Refused(Why::NoSuccessor.text()),
            },
            Outcome::Refused(why) => Answer::Refused(why.text()),
        };
        self.end_wish(id, answer);
    }

    fn end_wish(&mut self, id: JobId, answer: Answer) {
        if let Some(wish) = self.office.wishes.remove(&id) {
            self.timers.cancel(&Timer::Job(id));
            self.forget_order(id);
            self.answer(wish.call, answer);
        }
    }

    /// Another leader: who wanted the old one to step down has what it wanted; others ask anew.
    fn wishes_again(&mut self) {
        let Some(engine) = &self.engine else {
            return;
        };
        let status = engine.status();
        let Some(leader) = status.leader else {
            return;
        };
        for id in self.office.wishes.keys().copied().collect::<Vec<_>>() {
            let Some(wish) = self.office.wishes.get(&id) else {
                continue;
            };
            match (wish.asked, &wish.order) {
                (Some((before, term)), Order::StepDown { .. })
                    if term < status.term && before != leader =>
                {
                    self.end_wish(id, Answer::Done(status.term));
                }
                (Some((_, term)), _) if term == status.term => {}
                _ => self.ask_leader(id),
            }
        }
    }

    pub(super) fn orders_wait(&self) -> bool {
        !self.office.wishes.is_empty()
    }

    /// What was not heard, or could not be brought to anybody, is asked again; in the same term it is not done twice.
    pub(super) fn repeat_orders(&mut self) {
        for id in self.office.wishes.keys().copied().collect::<Vec<_>>() {
            self.ask_leader(id);
        }
    }

    pub(super) fn time_out_order(&mut self, id: JobId) {
        if let Some(wish) = self.office.wishes.get(&id) {
            let answer = if wish.asked.is_some() {
                Answer::Unknown
            } else {
                self.no_leader()
            };
            self.end_wish(id, answer);
        }
    }

    pub(super) fn answer_all_orders(&mut self) {
        for id in self.office.wishes.keys().copied().collect::<Vec<_>>() {
            self.end_wish(id, Answer::Stopped);
        }
    }

    /// Hands leadership over as this node leaves, if there is anybody.
    pub(super) fn hand_over(&mut self) {
        if let Some(engine) = &mut self.engine
            && self.office.stamp.is_some()
        {
            self.office.handing = engine.transfer(self.now, None).is_ok();
        }
    }

    /// A node that leaves is done when it has given back and handed over what it could.
    pub(super) fn leave_if_done(&mut self) {
        let handing = self.office.handing && self.is_leader();
        let reachable = self.office_node().is_some();
        if self.leaving && !handing && (self.requests.session().is_none() || !reachable) {
            self.stop(Stopped::Left);
        }
    }
}

/// What a refusal of the engine means to who asked.
fn outcome(result: Result<(), Refusal>) -> Outcome {
    match result {
        Ok(()) | Err(Refusal::Transferring) => Outcome::Begun,
        Err(Refusal::NoSuccessor) => Outcome::Refused(Why::NoSuccessor),
        Err(Refusal::NotAVoter(_)) => Outcome::Refused(Why::NotAVoter),
        Err(Refusal::Changing) => Outcome::Refused(Why::Changing),
        Err(Refusal::Change(_)) => Outcome::Refused(Why::Impossible),
        Err(
            Refusal::NotLeader { .. }
            | Refusal::Busy { .. }
            | Refusal::TooLong { .. }
            | Refusal::Stopped,
        ) => Outcome::NotLeader,
    }
}
