//! How this node is, and what it did.

/// How well this node itself keeps up (Lifeguard, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// 1 when all is well. A node that misses answers, is refuted, or stands still raises it, up to
    /// [`MAX_HEALTH_MULTIPLIER`], and waits that many times longer before it blames others.
    pub multiplier: u32,
    /// How often this node stood still.
    pub stalls: u64,
    /// This node sees no majority of the members that were last here together.
    pub minority: bool,
}

/// The greatest [`Health::multiplier`] (Lifeguard: S = 8).
pub const MAX_HEALTH_MULTIPLIER: u32 = 8;

/// The part of direct probes that go unanswered, in thousandths, above which messages are taken to be lost: 10 % of
/// messages lost is 19 % of round trips.
const LOSSY: u32 = 190;

/// What this node knows of its own state.
#[derive(Debug)]
pub(super) struct LocalHealth {
    multiplier: u32,
    /// Direct probes without an answer, in thousandths: a moving average over some sixteen probes.
    misses: u32,
}

impl LocalHealth {
    pub(super) const fn new() -> Self {
        Self {
            multiplier: 1,
            misses: 0,
        }
    }

    pub(super) const fn multiplier(&self) -> u32 {
        self.multiplier
    }

    /// Evidence for or against this node. True when the multiplier changed.
    pub(super) fn change(&mut self, by: i32) -> bool {
        let before = self.multiplier;
        self.multiplier = before
            .saturating_add_signed(by)
            .clamp(1, MAX_HEALTH_MULTIPLIER);
        self.multiplier != before
    }

    /// A direct probe ended.
    pub(super) const fn probed(&mut self, answered: bool) {
        let sample = if answered { 0 } else { 1000 };
        self.misses = (self.misses * 15 + sample) / 16;
    }

    /// Messages are being lost, or this node is slow: words have to be repeated more often.
    pub(super) const fn lossy(&self) -> bool {
        self.multiplier > 1 || self.misses > LOSSY
    }
}

/// What the membership did since it started. Counts only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Messages given to the driver.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages received, those that had no effect included.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Members probed.
    pub probes: u64,
    /// Probes that nobody answered, neither the member nor for it.
    pub probes_failed: u64,
    /// Requests to probe for another member.
    pub indirect: u64,
    /// Suspicions raised by this node's own probes.
    pub suspicions: u64,
    /// Suspicions, of anybody, that ended well.
    pub recovered: u64,
    /// Times this node had to contradict what was said of it.
    pub refutations: u64,
    /// Members declared dead, by this node or heard from others.
    pub deaths: u64,
    /// Connections of dead members that were closed.
    pub evictions: u64,
    /// Verdicts that were not carried out.
    pub contested: u64,
    /// Exchanges of the whole table.
    pub syncs: u64,
    /// Digests of others that showed no difference.
    pub syncs_equal: u64,
    /// Messages that had no effect.
    pub ignored: u64,
    /// Words about members that wait to be passed on, now.
    pub queued: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lifeguard, section 3.1: a saturating counter.
    #[test]
    fn the_multiplier_saturates_at_both_ends() {
        let mut health = LocalHealth::new();
        assert!(!health.change(-1));
        assert!(health.change(3));
        assert_eq!(health.multiplier(), 4);
        assert!(health.change(100));
        assert_eq!(health.multiplier(), MAX_HEALTH_MULTIPLIER);
        assert!(health.lossy());
        assert!(health.change(-100));
        assert_eq!(health.multiplier(), 1);
    }

    #[test]
    fn loss_is_noticed_above_ten_percent_of_messages() {
        let lossy_at = |one_in: u32| {
            let mut health = LocalHealth::new();
            (0..400)
                .filter(|n| {
                    health.probed(n % one_in != 0);
                    health.lossy()
                })
                .count()
        };
        assert_eq!(lossy_at(20), 0, "5 % of round trips are 2.5 % of messages");
        assert!(
            lossy_at(3) > 300,
            "33 % of round trips are 18 % of messages"
        );
    }
}
