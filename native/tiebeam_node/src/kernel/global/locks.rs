//! The table of locks: which resource is locked for whom, and which processes hold it.

use std::collections::HashMap;

use tiebeam_wire::{Pid, Term};
use tracing::error;

use super::machine::{Action, Machine, Watch};
use super::messages::LockId;

/// The resource that protects the table of names.
pub(super) const GLOBAL: &str = "global";

/// Resources locked at a time; and holders of one lock. A lock beyond it is refused, and whoever asks tries again.
pub(super) const LOCKS_MAX: usize = 1 << 17;

/// A locked resource.
#[derive(Debug)]
pub(super) struct Lock {
    requester: Term,
    holders: Vec<(Pid, Watch)>,
}

impl Lock {
    pub(super) fn requester(&self) -> &Term {
        &self.requester
    }

    pub(super) fn is_held_by(&self, pid: &Pid) -> bool {
        self.holders.iter().any(|(holder, _)| holder == pid)
    }
}

/// All locks on this node.
#[derive(Debug, Default)]
pub(super) struct Locks {
    by_resource: HashMap<Term, Lock>,
    by_watch: HashMap<Watch, Term>,
    /// The last lock on `global` was not given back: its holder died.
    global_lost: bool,
}

impl Locks {
    pub(super) fn global(&self) -> Option<&Lock> {
        self.by_resource.get(&Term::atom(GLOBAL))
    }

    pub(super) fn global_lost(&self) -> bool {
        self.global_lost
    }

    /// Whether the lock is free, or held for the same requester.
    pub(super) fn can_set(&self, id: &LockId) -> bool {
        let lock = self.by_resource.get(&id.resource);
        lock.is_none_or(|lock| lock.requester == id.requester)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_resource.is_empty() && self.by_watch.is_empty()
    }
}

impl Machine {
    /// A process wants a lock. Source: `global:handle_set_lock/3`.
    pub(super) fn set_lock(&mut self, id: &LockId, pid: &Pid) -> bool {
        if !self.locks.can_set(id) {
            return false;
        }
        let lock = self.locks.by_resource.get(&id.resource);
        if lock.is_some_and(|lock| lock.is_held_by(pid)) {
            return true;
        }
        if lock.map_or(self.locks.by_resource.len(), |lock| lock.holders.len()) >= LOCKS_MAX {
            error!(resource = %id.resource, limit = LOCKS_MAX, "too many global locks: one is refused");
            return false;
        }
        let watch = self.watch(pid);
        self.locks.by_watch.insert(watch, id.resource.clone());
        let lock = self.locks.by_resource.entry(id.resource.clone());
        let lock = lock.or_insert_with(|| Lock {
            requester: id.requester.clone(),
            holders: Vec::new(),
        });
        lock.holders.push((pid.clone(), watch));
        self.tell_lock(&id.resource);
        true
    }

    /// A process gives a lock back. Source: `global:handle_del_lock/3`.
    pub(super) fn del_lock(&mut self, id: &LockId, pid: &Pid) {
        let Some(lock) = self.locks.by_resource.get(&id.resource) else {
            return;
        };
        if lock.requester != id.requester {
            return;
        }
        let held = lock.holders.iter().find(|(holder, _)| holder == pid);
        if let Some(&(_, watch)) = held {
            self.act(Action::Unwatch { watch });
            self.release(watch, false);
        }
    }

    /// The holder of a lock ended, or cannot be reached.
    pub(super) fn lock_down(&mut self, watch: Watch) {
        self.release(watch, true);
    }

    fn release(&mut self, watch: Watch, lost: bool) {
        let Some(resource) = self.locks.by_watch.remove(&watch) else {
            return;
        };
        let Some(lock) = self.locks.by_resource.get_mut(&resource) else {
            return;
        };
        lock.holders.retain(|(_, other)| *other != watch);
        if lock.holders.is_empty() {
            self.locks.by_resource.remove(&resource);
            if resource.is_atom(GLOBAL) {
                self.locks.global_lost = lost;
            }
        }
        self.tell_lock(&resource);
    }

    fn tell_lock(&mut self, resource: &Term) {
        let lock = self.locks.by_resource.get(resource);
        let held = lock.map(|lock| (lock.requester.clone(), lock.holders.clone()));
        self.act(Action::Locked {
            resource: resource.clone(),
            held,
        });
    }
}
