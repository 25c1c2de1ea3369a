//! Who on this node wants to hear of changes. Not part of the replicated state: a watch ends with its node.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Change;

/// The most watches on one node: each is compared with each change.
pub const MAX_WATCHES: usize = 4096;

/// The driver's mark for who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// The prefixes that are watched.
#[derive(Debug, Default)]
pub struct Watches {
    prefixes: BTreeMap<WatchId, Vec<u8>>,
}

impl Watches {
    /// `id` hears of keys that begin with `prefix` from now on. Says whether there is room.
    #[must_use]
    pub fn insert(&mut self, id: WatchId, prefix: Vec<u8>) -> bool {
        let room = self.prefixes.len() < MAX_WATCHES || self.prefixes.contains_key(&id);
        if room {
            self.prefixes.insert(id, prefix);
        }
        room
    }

    /// `id` hears no more.
    pub fn remove(&mut self, id: WatchId) {
        self.prefixes.remove(&id);
    }

    /// Who hears of `change`. Changes of claims and sessions are not those of keys.
    pub fn of<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = WatchId> + 'a {
        let key = match change {
            Change::Put { key, .. } | Change::Deleted { key, .. } => Some(key),
            Change::Claimed { .. } | Change::Freed { .. } | Change::Ended { .. } => None,
        };
        let watching = move |(&id, prefix): (&WatchId, &Vec<u8>)| {
            key.is_some_and(|key| key.starts_with(prefix)).then_some(id)
        };
        self.prefixes.iter().filter_map(watching)
    }
}
