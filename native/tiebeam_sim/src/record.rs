//! What nodes were told and what they did, as data: figures are computed from it.

use tiebeam_core::{Contest, Instant, Metrics};

/// What happened at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The words of `tiebeam_core::Notice`, and two of its actions.
pub enum Told {
    Up,
    Down,
    Left,
    Refreshed,
    Suspect,
    Recovered,
    Updated,
    Contested(Contest),
    Stalled,
    Health(u32),
    Conflict,
    /// The first eight bytes.
    Broadcast(u64),
    Forgotten,
    Refused,
    Ignored,
    Evicts,
    EvictsAt,
}

/// One line of the history of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// The number of the host that was told.
    pub node: usize,
    /// The number of the host that it was told of; its own for what concerns itself.
    pub of: usize,
    /// What.
    pub told: Told,
    /// The life that is meant was running, and had not left.
    pub running: bool,
}

/// Counts of what really happened in a run: a run in which nothing happens shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub up: u64,
    pub down: u64,
    /// `Down` of a member that was running.
    pub down_running: u64,
    pub left: u64,
    pub refreshed: u64,
    pub suspect: u64,
    pub recovered: u64,
    pub updated: u64,
    pub contested: u64,
    /// `Contested` about a member that was running.
    pub contested_running: u64,
    pub stalled: u64,
    pub conflicts: u64,
    pub broadcasts: u64,
    pub forgotten: u64,
    pub refused: u64,
    pub ignored: u64,
    pub evictions: u64,
    pub evictions_elsewhere: u64,
    /// Answers of nodes without a core.
    pub observed: u64,
    pub sampled: u64,
    /// Messages that nodes sent, and their bytes.
    pub sent: u64,
    pub sent_bytes: u64,
    /// The longest message, of all and of those that would fit a datagram.
    pub longest: u64,
    pub longest_small: u64,
    pub lost: u64,
    /// Sent into a cut: held back or lost.
    pub cut: u64,
    pub duplicated: u64,
    /// What the cores counted themselves.
    pub core: Core,
}

/// The sum of [`Metrics`] over all cores, those that ended included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Core {
    pub probes: u64,
    pub probes_failed: u64,
    pub indirect: u64,
    pub suspicions: u64,
    pub recovered: u64,
    pub refutations: u64,
    pub deaths: u64,
    pub evictions: u64,
    pub contested: u64,
    pub syncs: u64,
    pub syncs_equal: u64,
}

impl Tally {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Self) {
        let Self {
            up,
            down,
            down_running,
            left,
            refreshed,
            suspect,
            recovered,
            updated,
            contested,
            contested_running,
            stalled,
            conflicts,
            broadcasts,
            forgotten,
            refused,
            ignored,
            evictions,
            evictions_elsewhere,
            observed,
            sampled,
            sent,
            sent_bytes,
            lost,
            cut,
            duplicated,
            longest,
            longest_small,
            core,
        } = self;
        *longest = other.longest.max(*longest);
        *longest_small = other.longest_small.max(*longest_small);
        for (sum, part) in [
            (up, other.up),
            (down, other.down),
            (down_running, other.down_running),
            (left, other.left),
            (refreshed, other.refreshed),
            (suspect, other.suspect),
            (recovered, other.recovered),
            (updated, other.updated),
            (contested, other.contested),
            (contested_running, other.contested_running),
            (stalled, other.stalled),
            (conflicts, other.conflicts),
            (broadcasts, other.broadcasts),
            (forgotten, other.forgotten),
            (refused, other.refused),
            (ignored, other.ignored),
            (evictions, other.evictions),
            (evictions_elsewhere, other.evictions_elsewhere),
            (observed, other.observed),
            (sampled, other.sampled),
            (sent, other.sent),
            (sent_bytes, other.sent_bytes),
            (lost, other.lost),
            (cut, other.cut),
            (duplicated, other.duplicated),
            (&mut core.probes, other.core.probes),
            (&mut core.probes_failed, other.core.probes_failed),
            (&mut core.indirect, other.core.indirect),
            (&mut core.suspicions, other.core.suspicions),
            (&mut core.recovered, other.core.recovered),
            (&mut core.refutations, other.core.refutations),
            (&mut core.deaths, other.core.deaths),
            (&mut core.evictions, other.core.evictions),
            (&mut core.contested, other.core.contested),
            (&mut core.syncs, other.core.syncs),
            (&mut core.syncs_equal, other.core.syncs_equal),
        ] {
            *sum += part;
        }
    }
}

impl Core {
    pub(crate) fn add(&mut self, metrics: &Metrics) {
        self.probes += metrics.probes;
        self.probes_failed += metrics.probes_failed;
        self.indirect += metrics.indirect;
        self.suspicions += metrics.suspicions;
        self.recovered += metrics.recovered;
        self.refutations += metrics.refutations;
        self.deaths += metrics.deaths;
        self.evictions += metrics.evictions;
        self.contested += metrics.contested;
        self.syncs += metrics.syncs;
        self.syncs_equal += metrics.syncs_equal;
    }
}
