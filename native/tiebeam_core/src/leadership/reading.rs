//! Reads that see everything that was committed before they were asked (6.4), without an entry in the log.
//!
//! 1. The leader has committed an entry of its own term, or waits until it has: its first one.
//! 2. It remembers its commit index.
//! 3. A majority answers to something that was sent after the read was asked. Every sending has a number of its own, never
//!    used again in the term, so that an old answer confirms nothing.
//! 4. The state machine has applied that index.

use super::consensus::{Refusal, RequestId};
use super::entry::Index;
use super::mutation::Mutation;
use super::replica::{MAX_WAITING, Part, Replica};

/// A read that no majority has confirmed.
#[derive(Debug, Clone)]
pub(super) struct PendingRead {
    pub(super) request: RequestId,
    /// What must be applied first.
    index: Index,
    /// A majority must answer this round or a later one.
    round: u64,
}

impl Replica {
    pub(super) fn start_read(&mut self, request: RequestId) -> Result<(), Refusal> {
        let (commit, switched) = (self.commit, self.switched);
        let refusal = self.not_leader();
        let Part::Leader(lead) = &mut self.part else {
            return Err(refusal);
        };
        let waiting = lead.reads.len() + self.confirmed_reads.len();
        if waiting >= MAX_WAITING {
            return Err(Refusal::Busy { waiting });
        }
        if switched.off(Mutation::LocalReads) {
            self.confirmed_reads.push_back((request, 0));
            return Ok(());
        }
        let round = if switched.off(Mutation::ReadReusesRound) {
            lead.round
        } else {
            lead.round + 1
        };
        // Whatever earlier leaders committed is before the first entry of this one.
        lead.reads.push_back(PendingRead {
            request,
            index: commit.max(lead.first),
            round,
        });
        lead.beat = true;
        self.confirm_reads();
        Ok(())
    }

    /// Lets those reads go on that a majority has confirmed.
    pub(super) fn confirm_reads(&mut self) {
        let me = self.me();
        let Part::Leader(lead) = &mut self.part else {
            return;
        };
        let others = &lead.others;
        let confirmed = self.log.configuration().agreed(self.switched, |member| {
            if member == me {
                u64::MAX
            } else {
                others.get(&member).map_or(0, |progress| progress.answered)
            }
        });
        while let Some(read) = lead.reads.front() {
            if confirmed < Some(read.round) {
                break;
            }
            self.confirmed_reads.push_back((read.request, read.index));
            lead.reads.pop_front();
        }
    }
}
