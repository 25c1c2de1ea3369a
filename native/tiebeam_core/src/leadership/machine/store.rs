//! Keys and values, each with the index of the entry that wrote it: its revision.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use super::command::Expect;
use super::{Change, Limit, Reply};
use crate::leadership::entry::Index;

/// The most bytes of all keys and values together: all of it is in memory on each member, and in each snapshot.
pub const MAX_STORE_BYTES: usize = 64 * 1024 * 1024;

/// What is counted for a key besides its bytes.
const OVERHEAD: usize = 64;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The index of the entry that wrote it.
    pub revision: Index,
    /// What it wrote.
    pub value: Arc<[u8]>,
}

/// All keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Store {
    keys: BTreeMap<Vec<u8>, Stored>,
    bytes: usize,
}

impl Store {
    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Stored> {
        self.keys.get(key)
    }

    /// The keys that begin with `prefix`, in order. Not bounded: take as many as are wanted, and go on behind the last with
    /// [`Store::list_after`].
    pub fn list<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Stored)> {
        self.list_from(prefix, Bound::Included(prefix))
    }

    /// The same, behind `last`.
    pub fn list_after<'a>(
        &'a self,
        prefix: &'a [u8],
        last: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Stored)> {
        let start = if last < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(last)
        };
        self.list_from(prefix, start)
    }

    fn list_from<'a>(
        &'a self,
        prefix: &'a [u8],
        start: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Stored)> {
        self.keys
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| (&key[..], stored))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A key as it was written, behind those before it. Says whether it can be.
    #[must_use]
    pub(super) fn restore(&mut self, key: Vec<u8>, stored: Stored) -> bool {
        let in_order = self
            .keys
            .last_key_value()
            .is_none_or(|(last, _)| *last < key);
        self.bytes += weight(&key, &stored);
        self.keys.insert(key, stored);
        in_order && self.bytes <= MAX_STORE_BYTES
    }

    /// How many bytes count against [`MAX_STORE_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The revision that contradicts what is expected.
    fn differs(&self, key: &[u8], expect: &Expect) -> Option<Index> {
        let stored = self.keys.get(key);
        let revision = stored.map_or(0, |stored| stored.revision);
        let holds = match expect {
            Expect::Anything => true,
            Expect::Revision(expected) => revision == *expected,
            Expect::Value(expected) => stored.is_some_and(|stored| stored.value == *expected),
        };
        (!holds).then_some(revision)
    }

    pub(super) fn put(
        &mut self,
        index: Index,
        key: Vec<u8>,
        value: Arc<[u8]>,
        expect: &Expect,
        changes: &mut Vec<Change>,
    ) -> Reply {
        if let Some(revision) = self.differs(&key, expect) {
            return Reply::Differs { revision };
        }
        let old = self.keys.get(&key).map_or(0, |stored| weight(&key, stored));
        let stored = Stored {
            revision: index,
            value,
        };
        let bytes = self.bytes - old + weight(&key, &stored);
        if bytes > MAX_STORE_BYTES {
            return Reply::Full(Limit::Store);
        }
        self.bytes = bytes;
        self.keys.insert(key.clone(), stored);
        changes.push(Change::Put {
            key,
            revision: index,
        });
        Reply::Done(index)
    }

    pub(super) fn delete(
        &mut self,
        index: Index,
        key: Vec<u8>,
        expect: &Expect,
        changes: &mut Vec<Change>,
    ) -> Reply {
        if let Some(revision) = self.differs(&key, expect) {
            return Reply::Differs { revision };
        }
        if let Some(stored) = self.keys.remove(&key) {
            self.bytes -= weight(&key, &stored);
            changes.push(Change::Deleted {
                key,
                revision: index,
            });
        }
        Reply::Done(index)
    }
}

fn weight(key: &[u8], stored: &Stored) -> usize {
    key.len() + stored.value.len() + OVERHEAD
}
