//! How this node is, and what it did: read by users, decided by nobody.

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
    /// Those that found no difference.
    pub syncs_equal: u64,
    /// Messages that had no effect.
    pub ignored: u64,
    /// Words about members that wait to be passed on, now.
    pub queued: u64,
}
