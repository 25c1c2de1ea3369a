//! When this member may say that nobody else leads (6.4.1).
//!
//! A lease begins when a message was sent that a majority confirmed, by the leader's own clock. Each of those that confirmed
//! heard it later than that, and votes for nobody in the election timeout after: not after a restart either, for it then counts
//! from its start. The lease is three quarters of that timeout. So two leases overlap only if the clocks of two members run
//! at rates that differ by a third, or if a voter was told that the leader is gone; then its vote says that it is early,
//! and the winner waits out one election timeout.

use super::entry::Term;
use super::mutation::Mutation;
use super::replica::{Part, Replica};
use crate::time::Instant;

impl Replica {
    /// When the latest message was sent that a majority confirmed.
    pub(super) fn contact(&self) -> Option<Instant> {
        let Part::Leader(lead) = &self.part else {
            return None;
        };
        let (me, now) = (self.me(), self.now);
        let arrival = self.switched.off(Mutation::LeaseFromArrival);
        let heard = |member| {
            if member == me {
                return Some(now);
            }
            let progress = lead.others.get(&member)?;
            if arrival {
                progress.arrived
            } else {
                progress.answered_sent
            }
        };
        self.log
            .configuration()
            .agreed(self.switched, heard)
            .flatten()
    }

    pub(super) fn lease_token(&self, now: Instant) -> Option<Term> {
        let (term, until) = self.lease(now)?;
        (until > now).then_some(term)
    }

    /// The term in which this member leads, and until when it may say so if nothing else happens; it may not if that is
    /// over. `None`: it does not lead, or not alone.
    pub fn lease(&self, now: Instant) -> Option<(Term, Instant)> {
        let Part::Leader(lead) = &self.part else {
            return None;
        };
        if self.switched.off(Mutation::RoleIsLease) {
            return Some((self.hard.term, Instant::from_micros(u64::MAX)));
        }
        let until = self.contact()? + self.settings.lease();
        let alone = now >= lead.exclusive_from && !lead.released;
        (alone && self.commit >= lead.first).then_some((self.hard.term, until))
    }
}
