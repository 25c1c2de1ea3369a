//! The stall guard: a timer that comes late is evidence about this node.
//!
//! While a process stands still (the host is busy, the VM was moved, somebody sent SIGSTOP), the others do not. What did
//! not arrive meanwhile proves nothing: it may wait in a buffer. So the probes in flight are void, suspicions last longer
//! by the pause, and nobody is judged before this node had a period to read what waits.

use alloc::vec::Vec;

use super::{Membership, Timer};
use crate::action::{Action, Notice};
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

/// How late a timer may be, besides two rounds of gossip, before the node is taken to have stood still: a busy scheduler
/// or a collection of garbage is late by less, and a late answer to a probe is judged by its timeout anyway.
const SLACK: Duration = Duration::from_millis(100);

/// What a stall costs in health (the prototype's figure; Lifeguard knows no stalls).
const COST: i32 = 2;

/// The stalls so far.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    count: u64,
    last: Option<Instant>,
    /// When this node was last stepped.
    stepped: Instant,
}

impl Stalls {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Whether there was one within `span`.
    pub(super) fn lately(&self, now: Instant, span: Duration) -> bool {
        self.last.is_some_and(|last| now.since(last) < span)
    }
}

impl Membership {
    /// Called at the begin of each step, before anything that waited is looked at.
    pub(crate) fn guard(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // What was due at the last step and is still waiting for its turn is late by design.
        let before = core::mem::replace(&mut self.stalls.stepped, now);
        let due = self.timers.next().unwrap_or(now).max(before);
        let late = now.since(due);
        let tolerated = self.timing.gossip_interval.times(2).as_micros() + SLACK.as_micros();
        if late.as_micros() <= tolerated || self.is(Mutation::NoStallGuard) {
            return;
        }
        self.stalls.count += 1;
        self.stalls.last = Some(now);
        actions.push(Action::Notify(Notice::Stalled { late }));
        self.feel(COST, actions);
        for number in self.probes.void() {
            self.timers.cancel(&Timer::Indirect(number));
            self.timers.cancel(&Timer::ProbeEnd(number));
        }
        let grace = self.timing.probe_interval;
        let suspects: Vec<_> = self
            .peers
            .iter_mut()
            .filter_map(|(name, peer)| {
                peer.suspicion.as_mut()?.postpone(now, late, grace);
                Some(name.clone())
            })
            .collect();
        for name in suspects {
            self.schedule_verdict(now, &name);
        }
    }
}
