//! What a leader knows of one other member's log (3.5), and how much it sends ahead of answers (10.2.1).

use alloc::collections::VecDeque;

use super::chunks::Sending;
use super::entry::Index;
use super::snapshot::Snapshot;
use crate::time::Instant;

/// The most batches that are sent ahead of their answers: with 64 KiB each, four megabytes.
pub(super) const MAX_IN_FLIGHT: usize = 64;

/// One other member, as its leader sees it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// Up to here its log, on its disk, is the leader's.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// How to send.
    pub(super) pace: Pace,
    /// The commit index that it was told last.
    pub(super) told: Index,
    /// It is no member any more.
    pub(super) leaving: Option<Leaving>,
    /// The latest round that it answered, and when that was sent.
    pub(super) answered: u64,
    pub(super) answered_sent: Option<Instant>,
    /// When its latest answer came. Only mutants look at it.
    pub(super) arrived: Option<Instant>,
}

/// A member was removed, and is sent to until it knows.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    /// By this entry.
    pub(super) index: Index,
    /// No longer than so, once that is committed.
    pub(super) until: Option<Instant>,
}

/// How entries are sent to a member.
#[derive(Debug, Clone)]
pub(super) enum Pace {
    /// Where the logs agree is being searched: one batch, then wait for its answer, or for the next heartbeat.
    Probe {
        /// The batch is out.
        waiting: bool,
    },
    /// The logs agree: batches are sent one after the other. Each is known by its last index.
    Pipeline(VecDeque<Index>),
    /// It needs what the log does not have any more: a snapshot is on its way, and no entries.
    Snapshot(Sending),
}

impl Progress {
    pub(super) fn new(last: Index) -> Self {
        Self {
            matched: 0,
            next: last + 1,
            pace: Pace::Probe { waiting: false },
            told: 0,
            leaving: None,
            answered: 0,
            answered_sent: None,
            arrived: None,
        }
    }

    /// The log does not have its next entry any more, but `snapshot` stands for that.
    pub(super) fn fall_back(&mut self, snapshot: &Snapshot) {
        self.pace = Pace::Snapshot(Sending::new(snapshot.clone()));
    }

    /// Another batch may be sent.
    pub(super) fn may_send(&self) -> bool {
        match &self.pace {
            Pace::Probe { waiting } => !waiting,
            Pace::Pipeline(batches) => batches.len() < MAX_IN_FLIGHT,
            Pace::Snapshot(_) => false,
        }
    }

    /// A batch up to `last` was sent.
    pub(super) fn sent(&mut self, last: Index) {
        match &mut self.pace {
            Pace::Probe { waiting } => *waiting = true,
            Pace::Pipeline(batches) => {
                batches.push_back(last);
                self.next = last + 1;
            }
            Pace::Snapshot(_) => debug_assert!(false, "entries follow the snapshot"),
        }
    }

    /// It has everything up to `matched`.
    pub(super) fn accepted(&mut self, matched: Index) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched + 1);
        match &mut self.pace {
            Pace::Probe { .. } => self.pace = Pace::Pipeline(VecDeque::new()),
            Pace::Pipeline(batches) => {
                while batches.front().is_some_and(|&last| last <= matched) {
                    batches.pop_front();
                }
            }
            Pace::Snapshot(sending) if sending.index() > self.matched => {}
            Pace::Snapshot(_) => self.pace = Pace::Pipeline(VecDeque::new()),
        }
    }

    /// It has not the entry at `previous`; it may agree at `hint`. Says whether that is news: an answer to an older message
    /// is none.
    pub(super) fn rejected(&mut self, previous: Index, hint: Index) -> bool {
        let stale = match self.pace {
            Pace::Pipeline(_) => previous <= self.matched,
            Pace::Probe { .. } => previous + 1 != self.next,
            Pace::Snapshot(_) => true,
        };
        if stale {
            return false;
        }
        self.next = match self.pace {
            Pace::Pipeline(_) | Pace::Snapshot(_) => self.matched + 1,
            Pace::Probe { .. } => previous.min(hint + 1).max(self.matched + 1),
        };
        self.pace = Pace::Probe { waiting: false };
        true
    }

    /// A heartbeat is due: a probe whose answer was lost is repeated, and so is a part of a snapshot. `latest` is the leader's own.
    pub(super) fn beat(&mut self, latest: Option<&Snapshot>) {
        match &mut self.pace {
            Pace::Probe { waiting } => *waiting = false,
            Pace::Pipeline(_) => {}
            Pace::Snapshot(sending) => sending.beat(latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_wait_and_pipelines_do_not() {
        let mut progress = Progress::new(10);
        progress.sent(11);
        assert!(!progress.may_send());
        progress.accepted(10);
        for last in 0..MAX_IN_FLIGHT as Index {
            assert!(progress.may_send());
            progress.sent(11 + last);
        }
        assert!(!progress.may_send(), "the window is full");
        progress.accepted(11);
        assert!(progress.may_send());
        assert_eq!(progress.next, 11 + MAX_IN_FLIGHT as Index);
    }

    #[test]
    fn a_rejection_in_a_pipeline_returns_to_what_is_known() {
        let mut progress = Progress::new(10);
        progress.accepted(5);
        assert_eq!(progress.next, 11);
        assert!(!progress.rejected(5, 3), "an answer to something older");
        assert!(progress.rejected(10, 7));
        assert_eq!((progress.next, progress.may_send()), (6, true));
    }

    #[test]
    fn a_probe_goes_back_by_the_hint_but_not_behind_what_matched() {
        let mut progress = Progress::new(10);
        assert!(
            !progress.rejected(9, 1),
            "not the answer to the probe at 10"
        );
        assert!(progress.rejected(10, 3));
        assert_eq!(progress.next, 4);
        assert!(progress.rejected(3, 3));
        assert_eq!(progress.next, 3, "each rejection goes back by one at least");
    }
}
