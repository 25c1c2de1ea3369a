//! Leadership is handed over (3.10).
//!
//! The leader takes no more proposals, brings the other up to date, and tells it to stand for election at once. From then
//! on it takes no token in this term: the other one may be elected at any moment, and then need not wait for a lease. If the
//! other one is not elected in time, the leader stands for the next term itself, which makes a late order void.

use super::consensus::Refusal;
use super::entry::{MemberId, Term};
use super::message::{Cause, Message};
use super::replica::{Part, Replica};
use crate::time::Instant;

/// A hand-over under way.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    to: MemberId,
    until: Instant,
    /// The order is out; the old lease was the leader's own to give up, or not.
    ordered: Option<bool>,
}

impl Replica {
    pub(super) fn start_transfer(&mut self, to: Option<MemberId>) -> Result<(), Refusal> {
        let me = self.me();
        let refusal = self.not_leader();
        let Part::Leader(lead) = &mut self.part else {
            return Err(refusal);
        };
        if lead.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let configuration = self.log.configuration();
        let to = match to {
            Some(to) if to == me => return Ok(()),
            Some(to) if !configuration.votes(to) => return Err(Refusal::NotAVoter(to)),
            Some(to) => to,
            None => {
                let now = self.now;
                let recent = self.settings.election;
                let best = lead
                    .others
                    .iter()
                    .filter(|&(&member, _)| configuration.votes(member))
                    .filter(|(_, progress)| {
                        progress
                            .answered_sent
                            .is_some_and(|sent| now.since(sent) < recent)
                    })
                    .max_by_key(|(_, progress)| progress.matched);
                best.map(|(&member, _)| member)
                    .ok_or(Refusal::NoSuccessor)?
            }
        };
        let until = self.now + self.settings.election;
        lead.transfer = Some(Transfer {
            to,
            until,
            ordered: None,
        });
        lead.beat = true;
        self.try_transfer();
        Ok(())
    }

    /// Gives the order once the other one has the whole log.
    pub(super) fn try_transfer(&mut self) {
        let (now, last) = (self.now, self.log.last());
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let Some(transfer) = &mut lead.transfer else {
            return;
        };
        let whole = lead
            .others
            .get(&transfer.to)
            .is_some_and(|other| other.matched == last);
        if !whole || transfer.ordered.is_some() {
            return;
        }
        let released = now >= lead.exclusive_from;
        transfer.ordered = Some(released);
        lead.released = true;
        let to = transfer.to;
        self.send(to, Message::TimeoutNow { released });
    }

    /// With each heartbeat: the order may have been lost, or be in vain.
    pub(super) fn beat_transfer(&mut self) {
        let now = self.now;
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let Some(transfer) = &lead.transfer else {
            return;
        };
        let (to, ordered) = (transfer.to, transfer.ordered);
        let (since, configuration) = self.log.configured();
        let removed = since <= self.commit && !configuration.votes(self.settings.me);
        match ordered {
            // Nobody took over from a leader that is to go (4.2.2): it goes.
            _ if now >= transfer.until && removed => self.follow(self.hard.term, None),
            None if now >= transfer.until => lead.transfer = None,
            None => {}
            Some(true) if now >= transfer.until => self.campaign(Cause::Released),
            Some(false) if now >= transfer.until => self.campaign(Cause::Transfer),
            Some(released) => self.send(to, Message::TimeoutNow { released }),
        }
    }

    pub(super) fn on_timeout_now(&mut self, from: MemberId, term: Term, released: bool) {
        let asked = term == self.hard.term && self.leader == Some(from);
        if asked && matches!(self.part, Part::Follower) && self.log.configuration().votes(self.me())
        {
            self.campaign(if released {
                Cause::Released
            } else {
                Cause::Transfer
            });
        }
    }
}
