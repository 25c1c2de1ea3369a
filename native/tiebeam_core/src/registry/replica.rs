//! What this node holds of another owner's items, and how it gets the rest.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::entry::Life;
use super::items::{BUCKET_SPAN, BUCKETS, Items};
use super::key::Key;
use crate::identity::NodeName;

/// How many questions about ranges are under way at a time: enough that the owner always has one to answer, and few enough
/// that its other messages wait for four chunks at most.
pub(crate) const WINDOW: usize = 4;

/// Into how many parts a range is split that differs: a bucket of a table of 100,000 has 400 items, its parts 24.
pub(crate) const SPLIT: u64 = 16;

/// The most ranges that wait to be compared. Honest owners need a small part of it; one that answers everything with
/// "split" runs into it.
pub(crate) const MAX_TODO: usize = 65_536;

/// The number of a replica, never used again, so that what names say about one that is gone means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

/// This node's own items.
pub(crate) const OWN: Slot = Slot(0);

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) node: NodeName,
    pub(crate) life: Life,
    pub(crate) items: Items,
    /// All operations up to this number are in `items`, if it is `complete`.
    pub(crate) seq: u64,
    /// The greatest number that the owner told of.
    pub(crate) head: u64,
    /// No comparison was begun that did not end.
    pub(crate) complete: bool,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) shown: Shown,
    /// Operations that the owner was not told of yet.
    pub(crate) unacknowledged: usize,
}

/// Whether the items are in the table that callers read. Names know only of replicas that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Yes,
    /// The owner is back and nothing is missing: items up to `upto` are shown, the others follow.
    Rising {
        upto: Option<Key>,
    },
    /// The owner is down: nothing is shown any more, and names behind `upto` still know of the replica.
    Sinking {
        upto: Option<Key>,
    },
    No,
}

/// A comparison of tables, from the side that lacks something. The owner's side has no state.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The head that the owner told of when it sent this node comparing.
    pub(crate) head: u64,
    /// An answer came: the replica's number is that of the owner at the time, and ranges are compared as of then or later.
    pub(crate) based: bool,
    /// Nothing was there when it began, so whatever is asked for fills a message.
    pub(crate) fresh: bool,
    pub(crate) asked: BTreeMap<u64, Vec<(u64, u64)>>,
    pub(crate) todo: Vec<(u64, u64)>,
}

impl Replica {
    pub(crate) fn new(node: NodeName, life: Life) -> Self {
        Self {
            node,
            life,
            items: Items::default(),
            seq: 0,
            head: 0,
            complete: true,
            comparison: None,
            shown: Shown::Yes,
            unacknowledged: 0,
        }
    }

    /// Names may show its items.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.shown, Shown::Yes | Shown::Rising { .. })
    }

    /// The item of this key is, or is to be, in the table.
    pub(crate) fn shows(&self, key: &Key) -> bool {
        match &self.shown {
            Shown::Yes => true,
            Shown::Rising { upto } => upto.as_ref().is_some_and(|upto| key <= upto),
            Shown::Sinking { .. } | Shown::No => false,
        }
    }

    pub(crate) fn caught_up(&self) -> bool {
        self.complete && self.seq >= self.head
    }
}

impl Comparison {
    /// Of the whole table.
    pub(crate) fn new(head: u64, fresh: bool) -> Self {
        let parts = if fresh { SPLIT } else { BUCKETS };
        let span = BUCKET_SPAN * (BUCKETS / parts);
        // The stack is worked off from its end: the lowest range first.
        let todo = (0..parts)
            .rev()
            .map(|part| (part * span, part * span + (span - 1)));
        Self {
            head,
            based: false,
            fresh,
            asked: BTreeMap::new(),
            todo: todo.collect(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.asked.is_empty() && self.todo.is_empty()
    }

    /// What was asked and not answered is asked again.
    pub(crate) fn ask_again(&mut self) {
        for ranges in core::mem::take(&mut self.asked).into_values() {
            self.todo.extend(ranges.into_iter().rev());
        }
    }
}

/// The parts of a range, the highest first; `None` when it is too narrow.
pub(crate) fn split(range: (u64, u64)) -> Option<impl Iterator<Item = (u64, u64)>> {
    let width = (range.1 - range.0) / SPLIT;
    let parts = (0..SPLIT).rev().map(move |part| {
        let low = range.0 + part * (width + 1);
        let high = if part == SPLIT - 1 {
            range.1
        } else {
            low + width
        };
        (low, high)
    });
    (range.1 - range.0 >= SPLIT * SPLIT).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_range_are_the_range() {
        for range in [(0, 256), (5, 1000), (0, BUCKET_SPAN - 1), (0, u64::MAX)] {
            let mut parts: Vec<_> = split(range).unwrap().collect();
            parts.reverse();
            assert_eq!((parts[0].0, parts[15].1), range);
            for pair in parts.windows(2) {
                assert!(pair[0].0 <= pair[0].1);
                assert_eq!(pair[0].1 + 1, pair[1].0);
            }
        }
        assert!(split((7, 30)).is_none());
    }

    #[test]
    fn a_comparison_is_of_the_whole_table() {
        for fresh in [true, false] {
            let mut ranges = Comparison::new(1, fresh).todo;
            ranges.reverse();
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, u64::MAX));
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        }
    }
}
