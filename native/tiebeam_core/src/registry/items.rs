//! The items of one owner, with digests of their parts.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::entry::Item;
use super::key::Key;

/// The most items of one owner: a million processes is more than a node usually runs, and about 300 MB on each peer.
pub const MAX_ENTRIES: usize = 1 << 20;

/// Digests are kept ready for so many equal parts of the table. A part of a full table has 4,096 items, which are counted
/// anew in tens of microseconds.
pub(crate) const BUCKETS: u64 = 256;

/// How many hashes a bucket spans.
pub(crate) const BUCKET_SPAN: u64 = 1 << 56;

#[derive(Debug, Default)]
pub(crate) struct Items {
    map: BTreeMap<Key, Item>,
    digest: u64,
    /// Empty until the first item.
    buckets: Vec<u64>,
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Item> {
        self.map.get(key)
    }

    pub(crate) fn insert(&mut self, key: Key, item: Item) -> Option<Item> {
        self.toggle(&key, item.seq);
        let hash = key.hash();
        let old = self.map.insert(key, item);
        if let Some(old) = &old {
            self.toggle_hash(hash, old.seq);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Item> {
        let old = self.map.remove(key)?;
        self.toggle(key, old.seq);
        Some(old)
    }

    pub(crate) fn pop_first(&mut self) -> Option<(Key, Item)> {
        let (key, item) = self.map.pop_first()?;
        self.toggle(&key, item.seq);
        Some((key, item))
    }

    fn toggle(&mut self, key: &Key, seq: u64) {
        self.toggle_hash(key.hash(), seq);
    }

    fn toggle_hash(&mut self, hash: u64, seq: u64) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS as usize];
        }
        let digest = digest(hash, seq);
        self.digest ^= digest;
        self.buckets[(hash / BUCKET_SPAN) as usize] ^= digest;
    }

    /// The digest of all items. Owners number their operations, so a key and a number say what the item is.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The items from `range.0` to `range.1`, both included, in the order of their keys.
    pub(crate) fn range(&self, range: (u64, u64)) -> impl Iterator<Item = (&Key, &Item)> {
        let from = Bound::Included(Key::floor(range.0));
        let to = match range.1.checked_add(1) {
            Some(end) => Bound::Excluded(Key::floor(end)),
            None => Bound::Unbounded,
        };
        self.map.range((from, to))
    }

    /// The items behind `after`.
    pub(crate) fn behind(&self, after: Option<&Key>) -> impl Iterator<Item = (&Key, &Item)> {
        let from = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        self.map.range::<Key, _>((from, Bound::Unbounded))
    }

    /// The digest of a range, and how many items were counted for it: whole buckets are ready.
    pub(crate) fn digest_of(&self, range: (u64, u64)) -> (u64, usize) {
        let (first, last) = (range.0 / BUCKET_SPAN, range.1 / BUCKET_SPAN);
        let (mut sum, mut counted) = (0, 0);
        for bucket in first..=last {
            let start = bucket * BUCKET_SPAN;
            let end = start + (BUCKET_SPAN - 1);
            let part = (start.max(range.0), end.min(range.1));
            if part == (start, end) {
                sum ^= self.buckets.get(bucket as usize).copied().unwrap_or(0);
            } else {
                for (key, item) in self.range(part) {
                    sum ^= digest(key.hash(), item.seq);
                    counted += 1;
                }
            }
        }
        (sum, counted)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Item)> {
        self.map.iter()
    }
}

/// SplitMix64's finalizer over both numbers: one changed bit changes half of the digest's.
fn digest(hash: u64, seq: u64) -> u64 {
    let mut z = hash ^ seq.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::format;

    fn item(seq: u64) -> Item {
        Item {
            pid: b"p"[..].into(),
            meta: b""[..].into(),
            stamp: 1,
            seq,
            resolve: false,
            on_conflict: Default::default(),
            attempts: 0,
            verdict: None,
        }
    }

    #[test]
    fn digests_follow_from_what_is_there_and_not_from_how_it_came() {
        let mut random = Random::from_seed(3);
        let (mut one, mut two) = (Items::default(), Items::default());
        for n in 0..500 {
            one.insert(Key::name_in("s", format!("{n}").as_bytes()), item(n));
        }
        for n in (0..500).rev() {
            let key = Key::name_in("s", format!("{n}").as_bytes());
            two.insert(key.clone(), item(n + 7));
            two.insert(key.clone(), item(n));
            if random.below(2) == 0 {
                two.remove(&key);
                two.insert(key, item(n));
            }
        }
        assert_eq!(one.digest(), two.digest());
        for _ in 0..200 {
            let (a, b) = (random.bits(), random.bits());
            let range = (a.min(b), a.max(b));
            assert_eq!(one.digest_of(range).0, two.digest_of(range).0);
            let plain = one
                .range(range)
                .fold(0, |sum, (key, item)| sum ^ digest(key.hash(), item.seq));
            assert_eq!(one.digest_of(range).0, plain);
        }
        assert_eq!(one.digest_of((0, u64::MAX)).0, one.digest());
        let key = Key::name_in("s", b"3");
        two.insert(key, item(1000));
        assert_ne!(one.digest(), two.digest());
    }
}
