//! This node's copy of what the group agreed on, as callers read it: written by the driver alone, before it answers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tiebeam_core::leadership::group::{Led, Row, Stopped};
use tiebeam_core::leadership::machine::{Claim, Kind, Stored};
use tiebeam_core::{Instant, NodeName};
use tiebeam_wire::{Pid, Term, decode};
use tokio::sync::{broadcast, watch};

/// Who leads, as far as this node knows, and the how manieth news of that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) number: u64,
    pub(super) led: Led,
}

/// Until when this node may say that it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) term: u64,
    /// By the driver's clock.
    pub(super) until: Option<Instant>,
}

/// The most changes of claims that are kept for who is slow: some turns of the driver while a node with much is lost. Whoever falls
/// further behind is told that it did, and reads the table.
const MAX_CLAIM_CHANGES: usize = 1024;

/// A claim was granted, given back or lost, or its holder says something else with it. The table shows it already.
#[derive(Debug, Clone)]
pub(super) struct ClaimChange {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) claim: Claim,
    pub(super) what: Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Claimed,
    Updated,
    Freed,
}

/// Who votes and who learns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Composition {
    pub(super) voters: Vec<NodeName>,
    pub(super) learners: Vec<NodeName>,
}

/// The copy. Readers never wait for more than the write of one row.
#[derive(Debug)]
pub(super) struct Replica {
    keys: RwLock<BTreeMap<Vec<u8>, Stored>>,
    claims: RwLock<BTreeMap<(Kind, Vec<u8>), Claim>>,
    pub(super) changes: broadcast::Sender<ClaimChange>,
    /// Told of each change of a claim.
    pub(super) claimed: watch::Sender<()>,
    pub(super) news: watch::Sender<News>,
    pub(super) lease: watch::Sender<Lease>,
    pub(super) composition: watch::Sender<Composition>,
    pub(super) stopped: watch::Sender<Option<Stopped>>,
}

impl Default for Replica {
    fn default() -> Self {
        let led = Led {
            term: 0,
            leader: None,
        };
        let lease = Lease {
            term: 0,
            until: None,
        };
        Self {
            keys: RwLock::default(),
            claims: RwLock::default(),
            changes: broadcast::Sender::new(MAX_CLAIM_CHANGES),
            claimed: watch::Sender::default(),
            news: watch::Sender::new(News { number: 0, led }),
            lease: watch::Sender::new(lease),
            composition: watch::Sender::default(),
            stopped: watch::Sender::new(None),
        }
    }
}

impl Replica {
    /// Brings the copy up to date.
    pub(super) fn apply(&self, row: Row) {
        match row {
            Row::Put { key, stored } => drop(write(&self.keys).insert(key, stored)),
            Row::Deleted { key } => drop(write(&self.keys).remove(&key)),
            Row::Claimed { kind, name, claim } => {
                let key = (kind, name.clone());
                let before = write(&self.claims).insert(key, claim.clone());
                let same = before.is_some_and(|before| before.token == claim.token);
                let what = if same {
                    Changed::Updated
                } else {
                    Changed::Claimed
                };
                self.tell(kind, name, claim, what);
                self.claimed.send_replace(());
            }
            Row::Freed { kind, name, claim } => {
                let key = (kind, name.clone());
                {
                    let mut claims = write(&self.claims);
                    // It may have been claimed again in the same turn.
                    if claims
                        .get(&key)
                        .is_some_and(|held| held.token == claim.token)
                    {
                        claims.remove(&key);
                    }
                }
                self.tell(kind, name, claim, Changed::Freed);
                self.claimed.send_replace(());
            }
        }
    }

    fn tell(&self, kind: Kind, name: Vec<u8>, claim: Claim, what: Changed) {
        let change = ClaimChange {
            kind,
            name,
            claim,
            what,
        };
        // An error: nobody listens.
        let _ = self.changes.send(change);
    }

    /// The latest of who leads. Reads never wait.
    pub(super) fn led(&self) -> Led {
        self.news.borrow().led.clone()
    }

    /// This node leads no more, and nothing here grows any newer: the driver ends.
    pub(super) fn end(&self) {
        self.lease.send_modify(|lease| lease.until = None);
        self.news.send_modify(|news| news.led.leader = None);
        write(&self.keys).clear();
        write(&self.claims).clear();
        self.claimed.send_replace(());
    }

    pub(super) fn key(&self, key: &[u8]) -> Option<Stored> {
        read(&self.keys).get(key).cloned()
    }

    /// The keys that begin with `prefix`, in order.
    pub(super) fn keys(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Stored)> {
        let keys = read(&self.keys);
        let from = keys.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let rows = from.take_while(|(key, _)| key.starts_with(prefix));
        rows.map(|(key, stored)| (key.clone(), stored.clone()))
            .collect()
    }

    pub(super) fn claim(&self, kind: Kind, name: &[u8]) -> Option<Claim> {
        read(&self.claims).get(&(kind, name.to_vec())).cloned()
    }

    /// All claims, in order of their kinds and names.
    pub(super) fn claims(&self) -> Vec<((Kind, Vec<u8>), Claim)> {
        let claims = read(&self.claims);
        let rows = claims.iter();
        rows.map(|(key, claim)| (key.clone(), claim.clone()))
            .collect()
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// What the holder of a claim says of itself: `{Pid, Meta}`. `None` if another node wrote something else.
pub(super) fn holder(value: &[u8]) -> Option<(Pid, Term)> {
    match decode::decode(&Bytes::copy_from_slice(value)).ok()? {
        Term::Tuple(elements) => match <[Term; 2]>::try_from(elements).ok()? {
            [Term::Pid(pid), meta] => Some((pid, meta)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tiebeam_core::leadership::machine::SessionId;

    use super::*;

    fn put(replica: &Replica, key: &str, revision: u64) {
        let stored = Stored {
            revision,
            value: Arc::from(*b"v"),
        };
        replica.apply(Row::Put {
            key: key.as_bytes().to_vec(),
            stored,
        });
    }

    fn claim(token: u64) -> Claim {
        Claim {
            owner: SessionId(1),
            token,
            until: None,
            value: Arc::from(*b""),
        }
    }

    #[test]
    fn keys_are_listed_by_prefix_in_order() {
        let replica = Replica::default();
        for (key, revision) in [("b", 1), ("a/2", 2), ("a/1", 3), ("a0", 4), ("a/", 5)] {
            put(&replica, key, revision);
        }
        let listed = |prefix: &str| -> Vec<u64> {
            let rows = replica.keys(prefix.as_bytes());
            rows.iter().map(|(_, stored)| stored.revision).collect()
        };
        assert_eq!(listed("a/"), [5, 3, 2]);
        assert_eq!(listed(""), [5, 3, 2, 4, 1]);
        replica.apply(Row::Deleted {
            key: b"a/1".to_vec(),
        });
        assert_eq!(listed("a/"), [5, 2]);
        assert_eq!(replica.key(b"a/1"), None);
    }

    #[test]
    fn an_earlier_claim_that_is_freed_leaves_a_later_one() {
        let replica = Replica::default();
        let name = || b"n".to_vec();
        let claimed = |token| Row::Claimed {
            kind: Kind::Lock,
            name: name(),
            claim: claim(token),
        };
        let freed = |token| Row::Freed {
            kind: Kind::Lock,
            name: name(),
            claim: claim(token),
        };
        replica.apply(claimed(4));
        replica.apply(claimed(7));
        replica.apply(freed(4));
        assert_eq!(replica.claim(Kind::Lock, b"n"), Some(claim(7)));
        replica.apply(freed(7));
        assert_eq!(replica.claim(Kind::Lock, b"n"), None);
        assert_eq!(replica.claim(Kind::Name, b"n"), None);
    }

    #[test]
    fn a_holder_is_a_pid_and_its_metadata() {
        for bad in [&b""[..], b"x", &[131, 97, 1]] {
            assert_eq!(holder(bad), None);
        }
    }
}
