//! The log goes from the leader to the others (3.5), ahead of their answers (10.2.1), and what a majority has is
//! committed (3.6.2).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::chunks::Chunk;
use super::consensus::RequestId;
use super::entry::{Entry, Index, MemberId, Payload, Term};
use super::message::Message;
use super::mutation::Mutation;
use super::progress::{Pace, Progress};
use super::reading::PendingRead;
use super::replica::{Fault, Part, Replica};
use super::transfer::Transfer;
use crate::time::Instant;

/// The most rounds whose time is remembered. The answer to an older one renews no lease, which costs nothing: a lease is
/// shorter than this many rounds unless thousands of requests come in it, and then newer rounds are answered too.
const MAX_ROUNDS: usize = 1024;

/// What only a leader has.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    /// When it was elected.
    pub(super) since: Instant,
    /// From here on no lease of a predecessor can hold.
    pub(super) exclusive_from: Instant,
    /// It was promised to somebody that no token is taken any more in this term.
    pub(super) released: bool,
    /// The first entry of its term.
    pub(super) first: Index,
    pub(super) others: BTreeMap<MemberId, Progress>,
    /// The number of the latest sending.
    pub(super) round: u64,
    /// When the latest ones were made.
    rounds: VecDeque<(u64, Instant)>,
    /// Something must be sent to everybody, if only a heartbeat.
    pub(super) beat: bool,
    pub(super) beat_at: Instant,
    pub(super) reads: VecDeque<PendingRead>,
    pub(super) transfer: Option<Transfer>,
    /// Who asked for the joint configuration in force: it is answered when that is left.
    pub(super) changing: Option<RequestId>,
}

/// What is sent to one member.
enum Parcel {
    /// Entries behind an index, or none: a heartbeat.
    Entries(Index, Vec<Entry>),
    Chunk(Chunk),
}

impl Lead {
    /// The next sending: what is answered to it was asked now, or later.
    fn next_round(&mut self, now: Instant) -> u64 {
        self.round += 1;
        if self.rounds.len() == MAX_ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back((self.round, now));
        self.round
    }

    /// When a round was sent, if that is still known.
    fn sent(&self, round: u64) -> Option<Instant> {
        let at = self
            .rounds
            .binary_search_by_key(&round, |&(number, _)| number)
            .ok()?;
        self.rounds.get(at).map(|&(_, sent)| sent)
    }
}

impl Replica {
    /// Won the election.
    pub(super) fn take_office(&mut self, early: bool) {
        let wait = early && !self.switched.off(Mutation::NoLeaseWait);
        let me = self.me();
        let last = self.log.last();
        let others = self
            .log
            .configuration()
            .members()
            .filter(|&member| member != me);
        let lead = Lead {
            since: self.now,
            // A voter confirmed nothing to a predecessor after its vote, so whatever was confirmed is over by then.
            exclusive_from: if wait {
                self.now + self.settings.election
            } else {
                self.now
            },
            released: false,
            first: last + 1,
            others: others.map(|member| (member, Progress::new(last))).collect(),
            round: 0,
            rounds: VecDeque::new(),
            beat: true,
            beat_at: self.now + self.settings.heartbeat,
            reads: VecDeque::new(),
            transfer: None,
            changing: None,
        };
        self.part = Part::Leader(Box::new(lead));
        self.leader = Some(me);
        self.append(Payload::Noop);
    }

    /// Appends an entry of this leader's.
    pub(super) fn append(&mut self, payload: Payload) -> Index {
        let index = self.log.last() + 1;
        self.log.push(Entry {
            index,
            term: self.hard.term,
            payload,
        });
        index
    }

    /// The leader's heartbeat, and its doubt: without a majority for an election timeout it gives up (6.2).
    pub(super) fn beat(&mut self) {
        let contact = self.contact();
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        if self.now < lead.beat_at {
            return;
        }
        let contact = contact.map_or(lead.since, |contact| contact.max(lead.since));
        if self.now.since(contact) >= self.settings.election {
            self.follow(self.hard.term, None);
            return;
        }
        lead.beat = true;
        lead.beat_at = self.now + self.settings.heartbeat;
        self.dismiss();
        self.beat_transfer();
    }

    /// Sends what can be sent.
    pub(super) fn replicate(&mut self) {
        self.fall_back();
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let (last, beat) = (self.log.last(), core::mem::take(&mut lead.beat));
        let mut out: Vec<(MemberId, Parcel)> = Vec::new();
        for (&to, progress) in &mut lead.others {
            if beat {
                progress.beat(self.snapshot.as_ref());
            }
            let before = out.len();
            if let Pace::Snapshot(sending) = &mut progress.pace {
                while let Some(chunk) = sending.next_chunk() {
                    out.push((to, Parcel::Chunk(chunk)));
                }
                // A heartbeat behind nothing: it agrees with every log.
                if out.len() == before && beat {
                    out.push((to, Parcel::Entries(0, Vec::new())));
                }
                continue;
            }
            while progress.next <= last && progress.may_send() {
                let (previous, batch) = (progress.next - 1, self.log.batch(progress.next));
                progress.sent(batch.last().map_or(previous, |entry| entry.index));
                out.push((to, Parcel::Entries(previous, batch)));
            }
            if out.len() > before || beat || progress.told < self.commit.min(progress.matched) {
                progress.told = self.commit;
                if out.len() == before {
                    out.push((to, Parcel::Entries(progress.next - 1, Vec::new())));
                }
            }
        }
        if out.is_empty() {
            return;
        }
        let (round, commit) = (lead.next_round(self.now), self.commit);
        for (to, parcel) in out {
            let message = match parcel {
                Parcel::Chunk(chunk) => Message::Chunk { round, chunk },
                Parcel::Entries(previous, entries) => {
                    let before_all = (previous == 0).then_some(0);
                    let Some(previous_term) = before_all.or(self.log.term_at(previous)) else {
                        debug_assert!(false, "next is in the log or at most one behind its end");
                        continue;
                    };
                    Message::Append {
                        round,
                        previous,
                        previous_term,
                        commit,
                        entries,
                    }
                }
            };
            self.send(to, message);
        }
    }

    /// Somebody says that it leads in `term`, and may: then it is followed. Otherwise it is told the term, if its own is over.
    pub(super) fn hear_leader(
        &mut self,
        from: MemberId,
        term: Term,
        round: u64,
        previous: Index,
    ) -> bool {
        if term < self.hard.term {
            let reject = Message::Rejected {
                round,
                previous,
                hint: 0,
                hint_term: 0,
            };
            self.send(from, reject);
            return false;
        }
        let usurper = self.leader.is_some_and(|leader| leader != from);
        if term == self.hard.term && (matches!(self.part, Part::Leader(_)) || usurper) {
            return false; // There is one leader in a term: whoever says this is not of this protocol.
        }
        self.follow(term, Some(from));
        self.heard = Some(self.now);
        self.forgotten = false;
        true
    }

    pub(super) fn on_append(
        &mut self,
        from: MemberId,
        term: Term,
        round: u64,
        previous: (Index, Term),
        commit: Index,
        entries: Vec<Entry>,
    ) {
        if entries.last().is_some_and(|entry| entry.term > term)
            || !self.hear_leader(from, term, round, previous.0)
        {
            return;
        }
        // What this member has no longer is committed, so every later leader has it too (3.6.3).
        let purged = previous.0 < self.log.base();
        let agrees = match self.log.term_at(previous.0) {
            Some(found) => {
                found == previous.1 || self.switched.off(Mutation::AppendIgnoresPrevious)
            }
            None => purged,
        };
        if !agrees {
            let (hint, hint_term) = self.log.possible_agreement(previous.0, previous.1);
            let previous = previous.0;
            self.send(
                from,
                Message::Rejected {
                    round,
                    previous,
                    hint,
                    hint_term,
                },
            );
            return;
        }
        let upto = previous.0 + entries.len() as Index;
        for entry in entries {
            if entry.index < self.log.base() {
                continue;
            }
            match self.log.term_at(entry.index) {
                Some(found) if found == entry.term => continue,
                Some(_) if self.switched.off(Mutation::KeepsConflicts) => continue,
                Some(_) if entry.index <= self.commit => {
                    self.stop(Fault::Diverged {
                        index: entry.index,
                        leader: from,
                    });
                    return;
                }
                Some(_) => {
                    self.log.truncate(entry.index);
                    self.give_up_proposals(entry.index);
                }
                None => {}
            }
            self.log.push(entry);
        }
        self.verified = self.verified.max(upto);
        let bound = if self.switched.off(Mutation::CommitBeyondVerified) {
            self.log.last()
        } else {
            self.verified
        };
        self.commit = self.commit.max(commit.min(bound));
        let heartbeat = upto == previous.0;
        self.acknowledge(from, round, upto, heartbeat);
    }

    /// The log is the leader's up to `upto`: it is told so once that is on disk, and `at_once` what is on disk already.
    pub(super) fn acknowledge(&mut self, leader: MemberId, round: u64, upto: Index, at_once: bool) {
        let stored = if self.switched.off(Mutation::AckBeforePersist) {
            self.log.last()
        } else {
            self.log.persisted()
        };
        if upto > stored {
            self.owed = Some(self.owed.map_or(round, |owed| owed.max(round)));
        }
        // A heartbeat is answered even while the disk is slow: the leader is heard.
        if upto <= stored || at_once {
            self.send(
                leader,
                Message::Accepted {
                    round,
                    matched: self.verified.min(stored),
                },
            );
        }
    }

    /// What was waited for is on disk: the leader is told.
    pub(super) fn pay_owed(&mut self) {
        let matched = self.verified.min(self.log.persisted());
        let (Some(leader), Some(round)) = (self.leader, self.owed) else {
            return;
        };
        if matches!(self.part, Part::Follower) {
            if matched == self.verified {
                self.owed = None;
            }
            self.send(leader, Message::Accepted { round, matched });
        }
    }

    /// Somebody answered in this term: the leader was heard when it sent `round`.
    /// Says whether this round or a later one was answered before.
    pub(super) fn answered(
        &mut self,
        from: MemberId,
        term: Term,
        round: u64,
    ) -> Option<(&mut Progress, bool)> {
        if term > self.hard.term {
            self.follow(term, None);
            return None;
        }
        let now = self.now;
        let Part::Leader(lead) = &mut self.part else {
            return None;
        };
        if term < self.hard.term || round > lead.round {
            return None;
        }
        let sent = lead.sent(round);
        let progress = lead.others.get_mut(&from)?;
        let late = round <= progress.answered;
        progress.answered = progress.answered.max(round);
        progress.answered_sent = progress.answered_sent.max(sent);
        progress.arrived = Some(now);
        Some((progress, late))
    }

    pub(super) fn on_accepted(&mut self, from: MemberId, term: Term, round: u64, matched: Index) {
        let last = self.log.last();
        let Some((progress, _)) = self.answered(from, term, round) else {
            return;
        };
        if matched > last {
            return; // No member of this protocol has what its leader has not.
        }
        progress.accepted(matched);
        self.try_commit();
        self.confirm_reads();
        self.try_transfer();
    }

    pub(super) fn on_rejected(
        &mut self,
        from: MemberId,
        term: Term,
        round: u64,
        previous: Index,
        hint: (Index, Term),
    ) {
        let (agreed, _) = self.log.possible_agreement(hint.0, hint.1);
        let Some((progress, _)) = self.answered(from, term, round) else {
            return;
        };
        progress.rejected(previous, agreed);
        self.confirm_reads();
    }

    /// Commits what a majority has on disk, if it is of this term (3.6.2).
    pub(super) fn try_commit(&mut self) {
        let Part::Leader(lead) = &self.part else {
            return;
        };
        let (me, persisted) = (self.me(), self.log.persisted());
        let index = self.log.configuration().committed(self.switched, |member| {
            if member == me {
                persisted
            } else {
                lead.others
                    .get(&member)
                    .map_or(0, |progress| progress.matched)
            }
        });
        let own = self.log.term_at(index) == Some(self.hard.term)
            || self.switched.off(Mutation::CommitsOldTerms);
        if index > self.commit && own {
            self.commit = index;
        }
    }

    /// Those that search where the logs agree; for tests.
    #[cfg(test)]
    pub(super) fn probing(&self) -> usize {
        let Part::Leader(lead) = &self.part else {
            return 0;
        };
        let probes = |progress: &&Progress| matches!(progress.pace, Pace::Probe { .. });
        lead.others.values().filter(probes).count()
    }
}
