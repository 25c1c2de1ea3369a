//! Claims: what at most one session holds at a time.
//!
//! A lock ends with its time, a singleton and a name with the session of their holder; all end when they are given back.
//! The token of a claim is the index of the entry that granted it, so a later claim of the same name has a greater one:
//! whoever guards a resource refuses tokens that are less than the greatest it has seen.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::session::SessionId;
use super::{Change, Limit, Reply};
use crate::leadership::entry::Index;
use crate::time::Instant;

/// The most claims: locks, singletons and names together.
pub const MAX_CLAIMS: usize = 256 * 1024;

/// The most bytes of names and values of all claims together: all of it is in memory on each member, and in each snapshot.
pub const MAX_CLAIM_BYTES: usize = 64 * 1024 * 1024;

/// The most bytes in the name of a claim.
pub const MAX_NAME_BYTES: usize = 1024;

/// What is claimed. Each kind has names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A lock.
    Lock,
    /// A task that runs on one node at a time.
    Singleton,
    /// A name of a process.
    Name,
}

/// A claim that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who holds it.
    pub owner: SessionId,
    /// Its fencing token.
    pub token: Index,
    /// When it is over, if it is not renewed; `None` if it lasts as long as the session.
    pub until: Option<Instant>,
    /// What the holder says with it: for a name, the process.
    pub value: Arc<[u8]>,
}

/// All claims that are held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    held: BTreeMap<Key, Claim>,
    /// When those end that end by themselves, the first one first.
    ends: BTreeSet<(Instant, Key)>,
    /// What each session holds.
    owned: BTreeSet<(SessionId, Key)>,
    bytes: usize,
}

type Key = (Kind, Vec<u8>);

impl Claims {
    /// Who holds `name`.
    pub fn get(&self, kind: Kind, name: &[u8]) -> Option<&Claim> {
        self.held.get(&(kind, name.to_vec()))
    }

    /// All that are held, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &[u8], &Claim)> {
        self.held
            .iter()
            .map(|((kind, name), claim)| (*kind, &name[..], claim))
    }

    pub(super) fn acquire(
        &mut self,
        kind: Kind,
        name: Vec<u8>,
        claim: Claim,
        changes: &mut Vec<Change>,
    ) -> Reply {
        if let Some(held) = self.held.get(&(kind, name.clone())) {
            return Reply::Held {
                by: held.owner,
                token: held.token,
            };
        }
        let bytes = self.bytes + name.len() + claim.value.len();
        if self.held.len() >= MAX_CLAIMS || bytes > MAX_CLAIM_BYTES {
            return Reply::Full(Limit::Claims);
        }
        let token = claim.token;
        self.insert((kind, name.clone()), claim.clone());
        changes.push(Change::Claimed { kind, name, claim });
        Reply::Done(token)
    }

    fn insert(&mut self, key: Key, claim: Claim) {
        self.owned.insert((claim.owner, key.clone()));
        if let Some(until) = claim.until {
            self.ends.insert((until, key.clone()));
        }
        self.bytes += key.1.len() + claim.value.len();
        self.held.insert(key, claim);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// A claim as it was written, behind those before it. Says whether it can be.
    #[must_use]
    pub(super) fn restore(&mut self, kind: Kind, name: Vec<u8>, claim: Claim) -> bool {
        let key = (kind, name);
        let in_order = self
            .held
            .last_key_value()
            .is_none_or(|(last, _)| *last < key);
        self.insert(key, claim);
        in_order && self.held.len() <= MAX_CLAIMS && self.bytes <= MAX_CLAIM_BYTES
    }

    /// The owner and its token, both, or nothing happens.
    fn is_held(&self, key: &Key, owner: SessionId, token: Index) -> bool {
        self.held
            .get(key)
            .is_some_and(|claim| (claim.owner, claim.token) == (owner, token))
    }

    pub(super) fn renew(
        &mut self,
        kind: Kind,
        name: &[u8],
        owner: SessionId,
        token: Index,
        until: Instant,
    ) -> Reply {
        let key = (kind, name.to_vec());
        if !self.is_held(&key, owner, token) {
            return Reply::NotHeld;
        }
        // One that lasts as long as its session needs no more.
        if let Some(Claim {
            until: Some(held), ..
        }) = self.held.get_mut(&key)
            && *held < until
        {
            let before = core::mem::replace(held, until);
            self.ends.remove(&(before, key.clone()));
            self.ends.insert((until, key));
        }
        Reply::Done(token)
    }

    pub(super) fn release(
        &mut self,
        kind: Kind,
        name: Vec<u8>,
        owner: SessionId,
        token: Index,
        changes: &mut Vec<Change>,
    ) -> Reply {
        let key = (kind, name);
        if !self.is_held(&key, owner, token) {
            return Reply::NotHeld;
        }
        self.free(key, changes);
        Reply::Done(token)
    }

    /// Its holder says something else with it.
    pub(super) fn update(
        &mut self,
        kind: Kind,
        name: Vec<u8>,
        (owner, token): (SessionId, Index),
        value: Arc<[u8]>,
        changes: &mut Vec<Change>,
    ) -> Reply {
        let key = (kind, name);
        let Some(held) = self
            .held
            .get_mut(&key)
            .filter(|claim| (claim.owner, claim.token) == (owner, token))
        else {
            return Reply::NotHeld;
        };
        let bytes = self.bytes - held.value.len() + value.len();
        if bytes > MAX_CLAIM_BYTES {
            return Reply::Full(Limit::Claims);
        }
        (self.bytes, held.value) = (bytes, value);
        let claim = held.clone();
        let (kind, name) = key;
        changes.push(Change::Claimed { kind, name, claim });
        Reply::Done(token)
    }

    fn free(&mut self, key: Key, changes: &mut Vec<Change>) {
        if let Some(claim) = self.held.remove(&key) {
            self.owned.remove(&(claim.owner, key.clone()));
            self.bytes -= key.1.len() + claim.value.len();
            if let Some(until) = claim.until {
                self.ends.remove(&(until, key.clone()));
            }
            changes.push(Change::Freed {
                kind: key.0,
                name: key.1,
                claim,
            });
        }
    }

    pub(super) fn free_all(&mut self, owner: SessionId, changes: &mut Vec<Change>) {
        let first = (owner, (Kind::Lock, Vec::new()));
        let owned = self
            .owned
            .range(first..)
            .take_while(|(holder, _)| *holder == owner);
        let keys: Vec<Key> = owned.map(|(_, key)| key.clone()).collect();
        for key in keys {
            self.free(key, changes);
        }
    }

    pub(super) fn expire(&mut self, time: Instant, changes: &mut Vec<Change>) {
        while let Some((until, key)) = self.ends.first().cloned()
            && until <= time
        {
            self.free(key, changes);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.first().map(|&(until, _)| until)
    }
}
