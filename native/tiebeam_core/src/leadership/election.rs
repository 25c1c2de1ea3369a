//! Elections: asking first (9.6), votes (3.4, 3.6.1), and when a vote may be early.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::entry::{HardState, Index, MemberId, PersistToken, Term};
use super::message::{Cause, Message};
use super::mutation::Mutation;
use super::replica::{Part, Replica};

/// The answers to a candidate.
#[derive(Debug, Clone)]
pub(super) struct Poll {
    cause: Cause,
    votes: BTreeMap<MemberId, bool>,
    /// Some voter confirmed a lease that may still hold.
    early: bool,
    /// This member's own vote counts when this write is on disk.
    own: Option<PersistToken>,
}

impl Replica {
    /// A lease may rest on this member's confirmation: it heard a leader less than an election timeout ago (6.4.1).
    fn is_early(&self) -> bool {
        self.heard
            .is_some_and(|heard| self.now.since(heard) < self.settings.election)
    }

    /// `who` is said to be gone. Nothing that it confirmed is undone; see [`Message::Vote`].
    pub(super) fn forget(&mut self, who: MemberId) {
        if self.leader == Some(who) && matches!(self.part, Part::Follower) {
            self.leader = None;
            self.forgotten = true;
            self.hasten_election();
        }
    }

    /// Asks whether an election could be won (9.6). Neither the own term nor anybody else's changes.
    pub(super) fn ask(&mut self) {
        self.leader = None;
        self.part = Part::PreCandidate(Poll {
            cause: Cause::Silence,
            votes: BTreeMap::from([(self.me(), true)]),
            early: false,
            own: None,
        });
        self.ask_again_soon();
        self.send_polls(true, self.hard.term.saturating_add(1), Cause::Silence);
        self.tally();
    }

    /// Stands for election in the next term (3.4).
    pub(super) fn campaign(&mut self, cause: Cause) {
        let early = self.is_early() && cause != Cause::Released;
        let Some(term) = self.hard.term.checked_add(1) else {
            return;
        };
        self.follow(term, None);
        self.set_hard(HardState {
            term,
            vote: Some(self.me()),
        });
        let own = Some(self.gate());
        self.part = Part::Candidate(Poll {
            cause,
            votes: BTreeMap::new(),
            early,
            own,
        });
        self.send_polls(false, term, cause);
    }

    fn send_polls(&mut self, pre: bool, term: Term, cause: Cause) {
        let (last, last_term) = (self.log.last(), self.log.last_term());
        let configuration = self.log.configuration();
        let me = self.me();
        let others: Vec<MemberId> = configuration
            .members()
            .filter(|&to| to != me && configuration.votes(to))
            .collect();
        for to in others {
            self.send_in(
                term,
                to,
                Message::Poll {
                    pre,
                    last,
                    last_term,
                    cause,
                },
            );
        }
    }

    /// The own vote is a vote like any other: it counts once it is on disk.
    pub(super) fn count_own_vote(&mut self) {
        let me = self.me();
        let Part::Candidate(poll) = &self.part else {
            return;
        };
        if poll.own.is_none_or(|token| !self.is_done(token)) {
            return;
        }
        if let Part::Candidate(poll) = &mut self.part {
            poll.own = None;
            poll.votes.insert(me, true);
        }
        self.tally();
    }

    pub(super) fn on_poll(
        &mut self,
        from: MemberId,
        term: Term,
        pre: bool,
        end: (Index, Term),
        cause: Cause,
    ) {
        let early = self.is_early();
        // Whoever hears a leader, or is one, does not help to replace it (4.2.3), unless that leader asked for it or is gone.
        let content = matches!(self.part, Part::Leader(_)) || (early && !self.forgotten);
        if content && cause == Cause::Silence {
            self.send(
                from,
                Message::Vote {
                    pre,
                    granted: false,
                    early: false,
                },
            );
            return;
        }
        if term > self.hard.term && !pre {
            self.follow(term, None);
        }
        let free = match self.hard.vote {
            Some(voted) => voted == from || self.switched.off(Mutation::VotesTwice),
            None => self.leader.is_none(),
        };
        let timely = if pre {
            term > self.hard.term
        } else {
            term == self.hard.term && free
        };
        let covered =
            self.log.is_covered_by(end.0, end.1) || self.switched.off(Mutation::VoteIgnoresLog);
        let granted = timely && covered;
        if granted && !pre {
            self.set_hard(HardState {
                term,
                vote: Some(from),
            });
            self.postpone_election();
        }
        let early = early && cause != Cause::Released;
        // A grant of a pre-vote names the term that would be, so that it is not taken for a later answer.
        let said = if granted { term } else { self.hard.term };
        self.send_in(
            said,
            from,
            Message::Vote {
                pre,
                granted,
                early,
            },
        );
    }

    pub(super) fn on_vote(
        &mut self,
        from: MemberId,
        term: Term,
        pre: bool,
        granted: bool,
        early: bool,
    ) {
        if term > self.hard.term && !(pre && granted) {
            self.follow(term, None);
            return;
        }
        let poll = match &mut self.part {
            Part::PreCandidate(poll) if pre => {
                if granted && term != self.hard.term + 1 {
                    return;
                }
                poll
            }
            Part::Candidate(poll) if !pre && term == self.hard.term => poll,
            _ => return,
        };
        poll.votes.insert(from, granted);
        poll.early |= granted && early;
        self.tally();
    }

    /// Counts the votes.
    fn tally(&mut self) {
        let (Part::PreCandidate(poll) | Part::Candidate(poll)) = &self.part else {
            return;
        };
        let configuration = self.log.configuration();
        let won = configuration.majority(self.switched, |member| {
            poll.votes.get(&member) == Some(&true)
        });
        let lost = !configuration.majority(self.switched, |member| {
            poll.votes.get(&member) != Some(&false)
        });
        let (early, cause) = (poll.early, poll.cause);
        match &self.part {
            Part::PreCandidate(_) if won => self.campaign(cause),
            Part::Candidate(_) if won => self.take_office(early),
            Part::PreCandidate(_) if lost => {
                self.follow(self.hard.term, None);
                self.ask_again_soon();
            }
            _ if lost => self.follow(self.hard.term, None),
            _ => {}
        }
    }
}
