//! Helping others: a probe of somebody that another member could not reach (SWIM, section 3.1).

use alloc::vec::Vec;

use super::{Membership, Timer};
use crate::action::Action;
use crate::identity::NodeName;
use crate::message::Body;
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

/// The most requests of others that are worked on at a time; who asks beyond that gets no nack, and asks others.
pub(super) const MAX_RELAYS: usize = 256;

/// The part of the probe timeout after which a helper says that it heard nothing, in percent (Lifeguard, section 3.1).
const NACK_AT: u64 = 80;

/// A probe for somebody else.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) asker: NodeName,
    pub(super) number: u64,
    pub(super) target: NodeName,
    pub(super) nacked: bool,
}

impl Membership {
    /// Another member asks to probe `node` for it.
    pub(super) fn probe_for(
        &mut self,
        now: Instant,
        asker: NodeName,
        number: u64,
        node: NodeName,
        actions: &mut Vec<Action>,
    ) {
        if node == self.me.node {
            let answer = Body::Ack {
                number,
                creation: self.me.creation,
                incarnation: self.me.incarnation,
            };
            return self.send(now, &asker, answer, actions);
        }
        // A name that is no member here is not dialled on a stranger's word.
        let known = self
            .peers
            .get(&node)
            .is_some_and(|peer| peer.member.is_some());
        if !known || self.probes.relays.len() >= MAX_RELAYS {
            return;
        }
        let own = self.probes.next_number();
        let relay = Relay {
            asker,
            number,
            target: node.clone(),
            nacked: false,
        };
        self.probes.relays.insert(own, relay);
        self.knock(now, &node, own, actions);
        let micros = self
            .timing
            .probe_timeout
            .as_micros()
            .saturating_mul(NACK_AT)
            / 100;
        self.timers
            .set(Timer::Nack(own), now + Duration::from_micros(micros));
    }

    /// A node did not answer yet: says so, and still passes on a late answer for a while.
    pub(super) fn nack(&mut self, now: Instant, number: u64, actions: &mut Vec<Action>) {
        let Some(relay) = self.probes.relays.get_mut(&number) else {
            return;
        };
        if relay.nacked {
            self.probes.relays.remove(&number);
            return;
        }
        relay.nacked = true;
        let (asker, body) = (
            relay.asker.clone(),
            Body::Nack {
                number: relay.number,
            },
        );
        self.timers.set(
            Timer::Nack(number),
            now + self.timing.probe_interval.times(8),
        );
        if !self.is(Mutation::NoNack) {
            self.send(now, &asker, body, actions);
        }
    }
}
