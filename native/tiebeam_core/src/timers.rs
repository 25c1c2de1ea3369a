//! One table of deadlines: a key is due at most once, the earliest first.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Deadlines by key. Equal deadlines come out in the order of their keys, the same in every run.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Makes `key` due at `at`, whatever it was before.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        self.cancel(&key);
        self.at.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// Makes `key` due at `at` unless it is due earlier.
    pub(crate) fn hasten(&mut self, key: K, at: Instant) {
        if self.at.get(&key).is_none_or(|&due| at < due) {
            self.set(key, at);
        }
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// Whether `key` is due at all.
    pub(crate) fn is_set(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    pub(crate) fn clear(&mut self) {
        self.at.clear();
        self.order.clear();
    }

    /// Takes the earliest key that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) {
        assert_eq!(self.at.len(), self.order.len(), "a key has two deadlines");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_key_is_due_once_at_its_last_deadline() {
        let mut timers = Timers::new();
        timers.set('a', at(5));
        timers.set('a', at(9));
        timers.check();
        assert_eq!(timers.take_due(at(5)), None);
        assert_eq!(timers.take_due(at(9)), Some('a'));
        assert_eq!(timers.take_due(at(9)), None);
    }

    #[test]
    fn hasten_never_delays() {
        let mut timers = Timers::new();
        timers.hasten('a', at(5));
        timers.hasten('a', at(9));
        assert_eq!(timers.next(), Some(at(5)));
        timers.hasten('a', at(2));
        assert_eq!(timers.next(), Some(at(2)));
    }

    #[test]
    fn the_earliest_comes_first_and_ties_by_key() {
        let mut timers = Timers::new();
        for (key, millis) in [('c', 1), ('b', 2), ('a', 2)] {
            timers.set(key, at(millis));
        }
        timers.cancel(&'x');
        let order: std::vec::Vec<char> = core::iter::from_fn(|| timers.take_due(at(2))).collect();
        assert_eq!(order, ['c', 'a', 'b']);
    }
}
