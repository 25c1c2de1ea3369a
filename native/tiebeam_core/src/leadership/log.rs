//! The log of one member, in memory, and how much of it is on disk (3.5).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::configuration::Configuration;
use super::entry::{Entry, Index, MemberId, Payload, PersistToken, Term};
use super::snapshot::Snapshot;

/// The most entries that one message or one write carries.
pub(super) const MAX_BATCH: usize = 256;

/// After so many bytes a batch ends. One entry is always taken, so a message has at most this and one command.
pub(super) const MAX_BATCH_BYTES: usize = 64 * 1024;

/// So many of the entries that a snapshot stands for are kept for members that are a little behind, as they cost less to send than
/// the snapshot does: what is on its way to a member at once, with short entries.
pub const MAX_TAIL: usize = 4096;

/// The same in bytes: a window of full batches ([`MAX_IN_FLIGHT`](super::progress::MAX_IN_FLIGHT)).
pub(super) const MAX_TAIL_BYTES: usize = 4 * 1024 * 1024;

/// What is left of a log, from its first entry on: a [snapshot](super::Snapshot) stands for those before.
#[derive(Debug, Clone)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// The entry before the first one, and its term; 0 and 0 before entry 1.
    base: (Index, Term),
    /// The configuration at an entry that is committed, or the founding one at 0. No earlier one is asked for.
    settled: (Index, Configuration),
    /// Those that entries behind it made, by their index. The last is in force (4.1).
    configurations: Vec<(Index, Configuration)>,
    /// The first entry that no write has been issued for.
    unsaved: Index,
    /// Up to here everything is on disk.
    persisted: Index,
    /// Writes that were issued and not confirmed: up to which entry each is good for.
    writes: VecDeque<(PersistToken, Index)>,
}

impl Log {
    /// The log that was on disk: contiguous, and it begins not behind the entry after the snapshot, or with 1 if there is none.
    pub(super) fn restored(
        founding: Configuration,
        snapshot: Option<&Snapshot>,
        entries: Vec<Entry>,
    ) -> Self {
        let mut log = Self {
            entries: VecDeque::new(),
            base: snapshot.map_or((0, 0), |snapshot| (snapshot.index, snapshot.term)),
            settled: snapshot.map_or((0, founding), |snapshot| {
                (snapshot.index, snapshot.configuration.clone())
            }),
            configurations: Vec::new(),
            unsaved: 1,
            persisted: 0,
            writes: VecDeque::new(),
        };
        let mut entries = entries.into_iter().peekable();
        // Of the entry before the first one nobody knows the term any more: the first takes its place.
        if let Some(first) = entries.next_if(|first| 1 < first.index && first.index <= log.base.0) {
            log.base = (first.index, first.term);
        } else if entries.peek().is_some_and(|first| first.index == 1) {
            log.base = (0, 0);
        }
        for entry in entries {
            log.push(entry);
        }
        log.unsaved = log.last() + 1;
        log.persisted = log.last();
        log
    }

    /// The entry before the first one.
    pub(super) fn base(&self) -> Index {
        self.base.0
    }

    pub(super) fn last(&self) -> Index {
        self.base.0 + self.entries.len() as Index
    }

    pub(super) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base.1, |entry| entry.term)
    }

    /// Where the entry at `index` is, if it is not before the first one.
    fn place(&self, index: Index) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.0 + 1)?).ok()
    }

    /// The entry at `index`.
    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
    }

    /// The term at `index`; `None` behind the end, and before the entry that precedes the first one.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// A log that ends with `last` and `term` has at least what this one has (3.6.1).
    pub(super) fn is_covered_by(&self, last: Index, term: Term) -> bool {
        (term, last) >= (self.last_term(), self.last())
    }

    /// The configuration in force.
    pub(super) fn configuration(&self) -> &Configuration {
        self.configured().1
    }

    /// The same, and the entry that made it; 0 for the founding one.
    pub(super) fn configured(&self) -> (Index, &Configuration) {
        let (index, configuration) = self.configurations.last().unwrap_or(&self.settled);
        (*index, configuration)
    }

    /// The configuration that was in force at `index`, which is committed and not before the snapshot.
    pub(super) fn configuration_at(&self, index: Index) -> &Configuration {
        let before = self
            .configurations
            .iter()
            .rev()
            .find(|(at, _)| *at <= index);
        &before.unwrap_or(&self.settled).1
    }

    /// `member` votes in the configuration in force, or in one that may still be: of those behind `commit` any may be undone, or be
    /// needed to commit the next.
    pub(super) fn may_vote(&self, member: MemberId, commit: Index) -> bool {
        let open = self.configurations.iter().filter(|(at, _)| *at > commit);
        self.configuration_at(commit).votes(member)
            || open.into_iter().any(|(_, made)| made.votes(member))
    }

    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last() + 1, "a log has no gaps");
        debug_assert!(entry.term >= self.last_term(), "terms grow along a log");
        self.configure(&entry);
        self.entries.push_back(entry);
    }

    /// A configuration is in force since it is in the log (4.1).
    pub(super) fn configure(&mut self, entry: &Entry) {
        if let Payload::Configuration(configuration) = &entry.payload
            && entry.index > self.settled.0
        {
            self.configurations
                .push((entry.index, configuration.clone()));
        }
    }

    /// Drops the entries from `index` on: they conflict with the leader's. None of them is before the first one.
    pub(super) fn truncate(&mut self, index: Index) {
        let keep = index.saturating_sub(1).max(self.base.0);
        let count = usize::try_from(keep - self.base.0).unwrap_or(usize::MAX);
        self.entries.truncate(count);
        self.configurations.retain(|&(at, _)| at <= keep);
        self.unsaved = self.unsaved.min(keep + 1);
        self.persisted = self.persisted.min(keep);
        // A write under way is good only for what it has in common with the new entries.
        for (_, upto) in &mut self.writes {
            *upto = (*upto).min(keep);
        }
    }

    /// A snapshot at `index` stands for the entries up to it, all of which have a write. Drops them but for the last `most`, and
    /// returns which one is the last that was dropped.
    pub(super) fn compact(&mut self, index: Index, most: usize) -> Index {
        self.settled = (index, self.configuration_at(index).clone());
        self.configurations.retain(|&(at, _)| at > index);
        let covered = self.place(index).map_or(0, |place| place + 1);
        let (mut tail, mut bytes) = (0, 0);
        for entry in self.entries.iter().take(covered).rev() {
            bytes += entry.payload.weight();
            if tail == most.min(MAX_TAIL) || bytes > MAX_TAIL_BYTES {
                break;
            }
            tail += 1;
        }
        for entry in self.entries.drain(..covered.saturating_sub(tail)) {
            self.base = (entry.index, entry.term);
        }
        self.base.0
    }

    /// A snapshot takes the place of the whole log, of which nothing behind `commit` is known to be the leader's. Only a mutant
    /// `keeps` what it has there.
    pub(super) fn install(&mut self, snapshot: &Snapshot, commit: Index, keeps: bool) {
        let covered = self.place(snapshot.index).map_or(0, |place| place + 1);
        let rest = match covered {
            covered if keeps && covered < self.entries.len() => self.entries.split_off(covered),
            _ => VecDeque::new(),
        };
        self.truncate(commit + 1);
        self.entries = rest;
        self.base = (snapshot.index, snapshot.term);
        self.settled = (snapshot.index, snapshot.configuration.clone());
        self.configurations.clear();
        self.unsaved = snapshot.index + 1;
    }

    /// Entries from `from` on, as many as one batch takes.
    pub(super) fn batch(&self, from: Index) -> Vec<Entry> {
        let mut bytes = 0;
        let start = self.place(from).unwrap_or(usize::MAX);
        let mut batch = Vec::new();
        for entry in self.entries.iter().skip(start).take(MAX_BATCH) {
            bytes += entry.payload.weight();
            if bytes > MAX_BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.push(entry.clone());
        }
        batch
    }

    /// There are entries that no write has been issued for.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved <= self.last()
    }

    /// The next entries to be written; the write has the number `token`.
    pub(super) fn save(&mut self, token: PersistToken) -> Vec<Entry> {
        let batch = self.batch(self.unsaved);
        if let Some(last) = batch.last() {
            self.unsaved = last.index + 1;
            self.writes.push_back((token, last.index));
        }
        batch
    }

    /// The write with the number `token` has the snapshot that was installed.
    pub(super) fn save_installed(&mut self, token: PersistToken) {
        self.writes.push_back((token, self.base.0));
    }

    /// Every entry up to `index` has a write.
    pub(super) fn is_issued(&self, index: Index) -> bool {
        index < self.unsaved
    }

    /// All writes up to `token` are on disk.
    pub(super) fn saved(&mut self, token: PersistToken) {
        while self
            .writes
            .front()
            .is_some_and(|&(write, _)| write <= token)
        {
            if let Some((_, upto)) = self.writes.pop_front() {
                self.persisted = self.persisted.max(upto);
            }
        }
    }

    /// Up to here everything is on disk.
    pub(super) fn persisted(&self) -> Index {
        self.persisted
    }

    /// The greatest index up to `index` whose term is at most `term`: where a log that has `term` at `index` may agree with
    /// this one (the search of 3.5, a term at a time). Before the first entry nothing is known, and nothing is searched.
    pub(super) fn possible_agreement(&self, index: Index, term: Term) -> (Index, Term) {
        let mut at = index.min(self.last());
        while let Some(found) = self.term_at(at) {
            if found <= term || at == self.base.0 {
                return (at, found);
            }
            at -= 1;
        }
        (at, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::vec;

    fn entry(index: Index, term: Term) -> Entry {
        Entry {
            index,
            term,
            payload: Payload::Noop,
        }
    }

    fn log(terms: &[Term]) -> Log {
        let founding = Configuration::new([MemberId(1)], []).unwrap();
        let entries = terms
            .iter()
            .zip(1..)
            .map(|(&term, index)| entry(index, term))
            .collect();
        Log::restored(founding, None, entries)
    }

    #[test]
    fn the_later_term_wins_then_the_longer_log() {
        let log = log(&[1, 1, 3]);
        assert!(log.is_covered_by(3, 3) && log.is_covered_by(1, 4) && log.is_covered_by(4, 3));
        assert!(!log.is_covered_by(9, 2) && !log.is_covered_by(2, 3));
    }

    #[test]
    fn a_write_of_what_was_truncated_meanwhile_persists_nothing_of_it() {
        let mut log = log(&[1]);
        log.push(entry(2, 1));
        log.push(entry(3, 1));
        assert_eq!(log.save(PersistToken(1)).len(), 2);
        log.truncate(3);
        log.push(entry(3, 2));
        log.saved(PersistToken(1));
        assert_eq!(log.persisted(), 2, "entry 3 of term 2 is not on disk");
        assert_eq!(log.save(PersistToken(2)), [entry(3, 2)]);
        log.saved(PersistToken(2));
        assert_eq!(log.persisted(), 3);
    }

    #[test]
    fn a_truncated_configuration_is_no_longer_in_force() {
        let mut log = log(&[1]);
        let two = Configuration::new([MemberId(1), MemberId(2)], []).unwrap();
        let payload = Payload::Configuration(two.clone());
        log.push(Entry {
            index: 2,
            term: 1,
            payload,
        });
        assert_eq!(*log.configuration(), two);
        log.truncate(2);
        assert!(!log.configuration().contains(MemberId(2)));
    }

    #[test]
    fn a_batch_is_bounded_and_never_empty() {
        let mut log = log(&[]);
        for index in 1..=4 {
            let payload = Payload::Command(Arc::from(vec![0; MAX_BATCH_BYTES - 1]));
            log.push(Entry {
                index,
                term: 1,
                payload,
            });
        }
        assert_eq!(log.batch(1).len(), 1);
        assert_eq!(log.batch(5).len(), 0);
        let many = self::log(&[1; 1000]);
        assert_eq!(many.batch(1).len(), MAX_BATCH);
    }

    #[test]
    fn agreement_is_searched_a_term_at_a_time() {
        let log = log(&[1, 1, 1, 4, 4]);
        assert_eq!(log.possible_agreement(9, 4), (5, 4));
        assert_eq!(log.possible_agreement(5, 3), (3, 1));
        assert_eq!(log.possible_agreement(2, 9), (2, 1));
        assert_eq!(log.possible_agreement(5, 0), (0, 0));
    }
}
