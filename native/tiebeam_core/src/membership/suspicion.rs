//! One suspicion: since when, by whom, until when (Lifeguard, section 3.2).

use alloc::collections::BTreeSet;

use super::member::{Kind, Status};
use super::{Membership, Timer, scale};
use crate::action::Contest;
use crate::identity::NodeName;
use crate::message::Word;
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

/// A member is suspected. Pure: it knows its deadline, and others set the timers.
#[derive(Debug)]
pub(super) struct Suspicion {
    since: Instant,
    min: Duration,
    max: Duration,
    /// How many confirmations make it as short as it gets.
    needed: u32,
    /// Who did not get an answer: the first to say so, and who confirmed it.
    accusers: BTreeSet<NodeName>,
    /// What its connection had received when it began; `None` before the answer came.
    pub(super) baseline: Option<Option<u64>>,
    /// Somebody declared the member dead at the suspected incarnation.
    pub(super) condemned: bool,
    /// The member was asked a last time, and the others whether they are there.
    pub(super) called: bool,
    /// Its time is over and the connection's count was asked for.
    pub(super) on_trial: bool,
    /// Why the last trial did not end in death.
    pub(super) contested: Option<Contest>,
}

/// The most accusers that are remembered: more change neither the deadline nor a verdict.
const MAX_ACCUSERS: usize = 16;

impl Suspicion {
    pub(super) fn new(
        now: Instant,
        by: NodeName,
        min: Duration,
        max: Duration,
        needed: u32,
    ) -> Self {
        Self {
            since: now,
            min,
            max,
            needed,
            accusers: BTreeSet::from([by]),
            baseline: None,
            condemned: false,
            called: false,
            on_trial: false,
            contested: None,
        }
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn deadline(&self) -> Instant {
        let confirmed = self.accusers.len() as u32 - 1;
        let confirmed = if self.condemned {
            self.needed
        } else {
            confirmed
        };
        self.since + scale::suspicion_timeout(self.min, self.max, confirmed, self.needed)
    }

    /// Somebody else got no answer either. True when that was new.
    pub(super) fn confirm(&mut self, by: NodeName) -> bool {
        self.accusers.len() < MAX_ACCUSERS && self.accusers.insert(by)
    }

    /// One who did not get an answer.
    pub(super) fn accuser(&self) -> Option<&NodeName> {
        self.accusers.first()
    }

    /// How many found that the member does not answer.
    pub(super) fn accusers(&self) -> usize {
        self.accusers.len()
    }

    /// This node stood still for `pause`: nobody is judged for what it could not hear in that time, nor before it had
    /// `grace` to catch up.
    pub(super) fn postpone(&mut self, now: Instant, pause: Duration, grace: Duration) {
        self.since = self.since + pause;
        let due = self.deadline();
        if due < now + grace {
            self.since = self.since + (now + grace).since(due);
        }
    }

    /// The verdict was contested: the member is watched for another minimum from now on.
    pub(super) fn again(&mut self, now: Instant, received: Option<u64>, reason: Contest) {
        self.since = now;
        self.max = self.min;
        self.baseline = Some(received);
        self.on_trial = false;
        self.called = false;
        self.contested = Some(reason);
    }
}

impl Membership {
    /// How long a suspicion lasts at least.
    pub(super) fn suspicion_min(&self) -> Duration {
        let timing = &self.timing;
        scale::suspicion_min(
            timing.suspicion_multiplier,
            self.count(),
            timing.probe_interval,
        )
    }

    /// A suspicion begins, or begins anew at a higher incarnation.
    pub(super) fn suspect(
        &mut self,
        now: Instant,
        name: &NodeName,
        incarnation: u64,
        by: NodeName,
    ) {
        let plain = self
            .member(name)
            .is_some_and(|member| member.kind == Kind::Plain);
        let min = self.suspicion_min();
        let others = self.count().saturating_sub(2);
        let wanted = match plain {
            // All guardians but the first.
            true => self.guardians(name).len().saturating_sub(1) as u32,
            false => self.timing.suspicion_multiplier.saturating_sub(2),
        };
        // Who cannot be confirmed must not wait for it (memberlist's rule for small clusters).
        let needed = if wanted > others { 0 } else { wanted };
        let max = match self.is(Mutation::NoDynamicSuspicion) {
            true => min,
            false => min.times(u64::from(self.timing.suspicion_max_multiplier)),
        };
        self.change(now, name, Status::Suspect);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(member) = &mut peer.member {
            member.incarnation = incarnation;
            peer.suspicion = Some(Suspicion::new(now, by, min, max, needed));
        }
        self.schedule_verdict(now, name);
    }

    /// Somebody else suspects the same life.
    pub(super) fn confirmed(&mut self, now: Instant, word: &Word, by: &NodeName) {
        let fresh = !self.is(Mutation::NoConfirmation)
            && self
                .peers
                .get_mut(&word.node)
                .and_then(|peer| peer.suspicion.as_mut())
                .is_some_and(|suspicion| suspicion.confirm(by.clone()));
        if fresh {
            self.schedule_verdict(now, &word.node);
            self.spread(now, word.clone());
        }
    }

    pub(super) fn schedule_verdict(&mut self, now: Instant, name: &NodeName) {
        let suspicion = self
            .peers
            .get(name)
            .and_then(|peer| peer.suspicion.as_ref());
        if let Some(due) = suspicion.map(Suspicion::deadline) {
            self.timers.set(Timer::Verdict(name.clone()), due);
            self.schedule_last_call(now, name.clone());
        }
    }

    /// Two last pings: one and a half periods before the end, and just under one period, so that a lost one is made up
    /// for and each has the time for an answer.
    pub(super) fn schedule_last_call(&mut self, now: Instant, name: NodeName) {
        let suspicion = self
            .peers
            .get(&name)
            .and_then(|peer| peer.suspicion.as_ref());
        let Some(due) = suspicion.map(Suspicion::deadline) else {
            return;
        };
        let interval = self.timing.probe_interval.as_micros();
        let left = due.since(now).as_micros();
        let call = [interval / 2 * 3, interval / 5 * 4]
            .into_iter()
            .find(|before| left > *before);
        if let Some(before) = call {
            let at = now + Duration::from_micros(left - before);
            self.timers.set(Timer::LastCall(name), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn suspicion() -> Suspicion {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        Suspicion::new(Instant::from_millis(1000), name("a@h"), min, max, 2)
    }

    #[test]
    fn independent_confirmations_hasten_the_deadline_to_the_minimum() {
        let mut suspicion = suspicion();
        assert_eq!(suspicion.deadline(), Instant::from_millis(25_000));
        assert!(!suspicion.confirm(name("a@h")), "the first accuser again");
        assert_eq!(suspicion.deadline(), Instant::from_millis(25_000));
        assert!(suspicion.confirm(name("b@h")));
        assert!(suspicion.deadline() < Instant::from_millis(13_000));
        assert!(suspicion.confirm(name("c@h")));
        assert_eq!(suspicion.deadline(), Instant::from_millis(5_000));
        assert!(suspicion.confirm(name("d@h")));
        assert_eq!(
            suspicion.deadline(),
            Instant::from_millis(5_000),
            "never below the minimum"
        );
    }

    #[test]
    fn a_pause_of_this_node_counts_for_nothing() {
        let mut suspicion = suspicion();
        suspicion.postpone(
            Instant::from_millis(10_000),
            Duration::from_secs(8),
            Duration::from_secs(1),
        );
        assert_eq!(suspicion.deadline(), Instant::from_millis(33_000));

        let mut overdue = self::suspicion();
        overdue.confirm(name("b@h"));
        overdue.confirm(name("c@h"));
        overdue.postpone(
            Instant::from_millis(9_000),
            Duration::from_secs(3),
            Duration::from_secs(1),
        );
        assert_eq!(
            overdue.deadline(),
            Instant::from_millis(10_000),
            "time to catch up"
        );
    }

    #[test]
    fn accusers_are_bounded() {
        let mut suspicion = suspicion();
        for number in 0..100 {
            suspicion.confirm(name(&alloc::format!("n{number}@h")));
        }
        assert_eq!(suspicion.accusers(), MAX_ACCUSERS);
    }
}
