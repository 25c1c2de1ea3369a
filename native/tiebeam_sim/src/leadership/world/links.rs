//! The ways of messages: lost, repeated, late, cut; held up behind something long; and what a later version would send on them.

use tiebeam_core::leadership::{MemberId, RequestId};

use super::machine::machine_of;
use super::{Event, MS, World};
use crate::leadership::Broken;
use crate::leadership::engine::Engine;

/// Nothing moves on a link: its buffer is full, or something of many megabytes is on it.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) until: u64,
    /// What is sent meanwhile waits its turn, and is not dropped.
    pub(super) holds: bool,
}

impl<E: Engine> World<E> {
    pub(super) fn send(&mut self, from: usize, to: MemberId, bytes: Vec<u8>) {
        self.tally.sent += 1;
        self.tally.bytes += bytes.len() as u64;
        let link = (from, machine_of(to));
        if self.cut.contains(&link) || self.chance(self.plan.loss) {
            return;
        }
        let mut free = self.now;
        if let Some(busy) = self.busy.get(&link)
            && self.now < busy.until
        {
            self.tally.held += 1;
            if !busy.holds {
                return;
            }
            free = busy.until;
        }
        let copies = 1 + u64::from(self.chance(self.plan.twice));
        for _ in 0..copies {
            let mut delay = self.between(self.plan.delay);
            if self.chance(self.plan.late) {
                delay += self.random.below(1000 * MS);
            }
            // Whatever was held comes at once, in its order, when the link is free.
            if free > self.now {
                delay = free - self.now;
            }
            self.after(
                delay,
                Event::Deliver {
                    to,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    /// All links of a member in one direction are busy, or the one to some other.
    pub(super) fn make_busy(&mut self, member: usize) {
        let count = self.machines.len();
        let (until, holds) = (
            self.now + self.between((50 * MS, 2000 * MS)),
            self.chance(500),
        );
        let (one, all) = (self.random.below(count as u64) as usize, self.chance(300));
        for other in (0..count).filter(|&other| other != member && (all || other == one)) {
            self.busy.insert((member, other), Busy { until, holds });
        }
    }

    /// What a later version would send instead of `bytes` is refused, and changes nothing.
    pub(super) fn deliver_stranger(&mut self, member: usize, bytes: &[u8]) {
        let which = self.random.bits();
        let Some(strange) = E::of_later_version(bytes, which) else {
            return;
        };
        let mut refused = true;
        self.tell(member, |engine, now| {
            let before = engine.status();
            refused = engine.receive(now, &strange).is_err() && engine.status() == before;
        });
        self.tally.strange += 1;
        if !refused {
            self.broke(Err(Broken {
                property: "what is not known is refused",
                seen: format!("member {member} takes {strange:?}"),
            }));
        }
    }

    /// A command that only a later version knows: it is in the log like any other, and does nothing, on all members alike.
    pub(super) fn propose_stranger(&mut self, leader: usize) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.tell(leader, |engine, now| {
            // One that does not lead says so; nothing else follows from it.
            let _refused = engine.propose(now, request, vec![u8::MAX; 9]);
        });
    }
}
