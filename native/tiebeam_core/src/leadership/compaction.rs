//! The beginning of the log gives way to a snapshot (chapter 5), and a member that needs what is gone gets the snapshot (5.1).

use alloc::sync::Arc;

use super::chunks::{Chunk, Incoming, MAX_SNAPSHOT_BYTES};
use super::entry::{Index, MemberId, Term};
use super::message::Message;
use super::mutation::Mutation;
use super::progress::Pace;
use super::replica::{Part, Replica};
use super::snapshot::Snapshot;
use super::{Effect, Write};

/// Where a snapshot comes from that no write has been issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// From the machine of this member.
    Taken,
    /// From the leader, in place of the log.
    Installed,
}

impl Replica {
    /// The machine of this member is `state`, with everything that was handed to it.
    pub(super) fn take_snapshot(&mut self, state: Arc<[u8]>) {
        let index = if self.switched.off(Mutation::SnapshotOfCommitted) {
            self.commit
        } else {
            self.handed
        };
        let before = self.snapshot.as_ref().map_or(0, |before| before.index);
        let stopped = matches!(self.part, Part::Stopped);
        if stopped || index <= before || state.len() > MAX_SNAPSHOT_BYTES {
            return;
        }
        let Some(term) = self.log.term_at(index) else {
            debug_assert!(false, "what was applied behind the snapshot is in the log");
            return;
        };
        self.snapshot = Some(Snapshot {
            index,
            term,
            configuration: self.log.configuration_at(index).clone(),
            state,
        });
        // One that was installed and has no write yet took the place of the log: its write still has to say so.
        self.unwritten.get_or_insert(Unwritten::Taken);
    }

    /// Puts the snapshot into a write, once that or an earlier one has all that the snapshot stands for: a disk has no gap.
    pub(super) fn save_snapshot(&mut self, write: &mut Write) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        if !self.log.is_issued(snapshot.index) {
            return;
        }
        let Some(unwritten) = self.unwritten.take() else {
            return;
        };
        let index = snapshot.index;
        write.snapshot = Some(snapshot.clone());
        write.purge = self.log.compact(index, self.settings.tail);
        if unwritten == Unwritten::Installed {
            write.truncate = Some(self.log.base() + 1);
        }
    }

    /// Members whose next entry is gone get the snapshot instead.
    pub(super) fn fall_back(&mut self) {
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        for progress in lead.others.values_mut() {
            let sending = matches!(progress.pace, Pace::Snapshot(_));
            if progress.next <= self.log.base() && !sending {
                progress.fall_back(snapshot);
            }
        }
    }

    pub(super) fn on_chunk(&mut self, from: MemberId, term: Term, round: u64, chunk: Chunk) {
        let (index, last_term) = (chunk.index, chunk.term);
        if last_term > term || !self.hear_leader(from, term, round, index) {
            return;
        }
        // The leader's snapshot stands for what is committed: whoever has that last entry of it has all of it.
        let agrees = self.log.term_at(index) == Some(last_term);
        if index <= self.commit || agrees {
            self.incoming = None;
            self.verified = self.verified.max(index);
            self.commit = self.commit.max(index);
            self.acknowledge(from, round, index, true);
            return;
        }
        let bytes = Incoming::take(&mut self.incoming, chunk);
        match Incoming::complete(&mut self.incoming) {
            Some(snapshot) => self.install(from, round, snapshot),
            None => {
                let received = Message::Received {
                    round,
                    index,
                    bytes,
                };
                self.send(from, received);
            }
        }
    }

    /// The snapshot takes the place of the log and of the machine. The leader is told once it is on disk.
    fn install(&mut self, from: MemberId, round: u64, mut snapshot: Snapshot) {
        let index = snapshot.index;
        if self.switched.off(Mutation::SnapshotForgetsMembers) {
            snapshot.configuration = self.log.configuration().clone();
        }
        let keeps = self.switched.off(Mutation::SnapshotKeepsConflicts);
        self.log.install(&snapshot, self.commit, keeps);
        // What was proposed here, in an earlier term, is in the snapshot or never was committed.
        self.give_up_proposals(0);
        self.verified = self.verified.max(index);
        (self.commit, self.applied) = (index, index);
        self.unwritten = Some(Unwritten::Installed);
        self.snapshot = Some(snapshot.clone());
        self.effects.push_back(Effect::Restore(snapshot));
        self.acknowledge(from, round, index, false);
        if self.switched.off(Mutation::SnapshotBeforePersist) {
            let matched = index;
            self.send(from, Message::Accepted { round, matched });
        }
    }

    pub(super) fn on_received(
        &mut self,
        from: MemberId,
        term: Term,
        round: u64,
        index: Index,
        bytes: u32,
    ) {
        let Some((progress, late)) = self.answered(from, term, round) else {
            return;
        };
        if let Pace::Snapshot(sending) = &mut progress.pace {
            sending.received(index, bytes, late);
        }
        self.confirm_reads();
    }
}
