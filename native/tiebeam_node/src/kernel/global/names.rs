//! The table of names: who is registered as what, and which function decides when two are.

use std::collections::HashMap;

use tiebeam_wire::{Atom, Pid, Term};
use tracing::error;

use super::machine::{Action, Machine, Watch};
use super::messages::{ExternalName, NameEntry, Op};

/// Names in the table. All nodes of a cluster hold all names; a million of them are some 300 MB here, and BEAM nodes
/// would have stopped long before. A name beyond it is not entered on this node.
pub(super) const NAMES_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Entry {
    pid: Pid,
    method: Term,
    watch: Watch,
    /// The order of registration, which is the order in which names are told to peers.
    sequence: u64,
}

/// By whose right a name is entered: it counts only while the lock under which it was decided stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Authority {
    /// This process asked for the registration.
    Caller(Pid),
    /// Two partitions agreed, with this requester of the lock `global`.
    Requester(Option<Term>),
}

/// All registered names.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: HashMap<Term, Entry>,
    by_pid: HashMap<Pid, Vec<Term>>,
    by_watch: HashMap<Watch, Term>,
    external: Vec<ExternalName>,
    sequence: u64,
}

impl Names {
    pub(super) fn pid(&self, name: &Term) -> Option<&Pid> {
        self.by_name.get(name).map(|entry| &entry.pid)
    }

    /// Under which names a process is registered.
    pub(super) fn of(&self, pid: &Pid) -> &[Term] {
        self.by_pid.get(pid).map_or(&[], Vec::as_slice)
    }

    pub(super) fn entry(&self, name: &Term) -> Option<NameEntry> {
        let entry = self.by_name.get(name)?;
        Some(NameEntry {
            name: name.clone(),
            pid: entry.pid.clone(),
            method: entry.method.clone(),
        })
    }

    /// All names, oldest first.
    pub(super) fn all(&self) -> Vec<NameEntry> {
        let mut entries: Vec<_> = self.by_name.iter().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.sequence);
        let entry = |(name, entry): (&Term, &Entry)| NameEntry {
            name: name.clone(),
            pid: entry.pid.clone(),
            method: entry.method.clone(),
        };
        entries.into_iter().map(entry).collect()
    }

    pub(super) fn external(&self) -> &[ExternalName] {
        &self.external
    }

    fn insert(&mut self, entry: NameEntry, watch: Watch) {
        let NameEntry { name, pid, method } = entry;
        self.sequence += 1;
        self.by_pid
            .entry(pid.clone())
            .or_default()
            .push(name.clone());
        self.by_watch.insert(watch, name.clone());
        let sequence = self.sequence;
        let entry = Entry {
            pid,
            method,
            watch,
            sequence,
        };
        self.by_name.insert(name, entry);
    }

    fn remove(&mut self, name: &Term) -> Option<Watch> {
        let entry = self.by_name.remove(name)?;
        if let Some(names) = self.by_pid.get_mut(&entry.pid) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.by_pid.remove(&entry.pid);
            }
        }
        self.by_watch.remove(&entry.watch);
        self.external
            .retain(|external| external.name != *name || external.pid != entry.pid);
        Some(entry.watch)
    }
}

impl Machine {
    /// Enters a name in the place of what it named before. Source: `global:ins_name/6`.
    pub(super) fn insert_name(
        &mut self,
        entry: NameEntry,
        external: Option<Atom>,
        authority: &Authority,
    ) {
        let replaced = self.names.remove(&entry.name);
        if let Some(watch) = replaced {
            self.act(Action::Unwatch { watch });
        }
        let stands = self.lock_still_set(authority);
        if !stands {
            // The lock went with its owner before this came: the other nodes do not have the name.
            if replaced.is_some() {
                self.tell_name(entry.name, None);
            }
            return;
        }
        if self.names.by_name.len() >= NAMES_MAX {
            error!(
                name = %entry.name,
                limit = NAMES_MAX,
                "too many global names: one is not entered on this node; register fewer"
            );
            return;
        }
        if let Some(node) = external {
            self.names.external.push(ExternalName {
                name: entry.name.clone(),
                pid: entry.pid.clone(),
                node,
            });
        }
        let watch = self.watch(&entry.pid);
        self.tell_name(entry.name.clone(), Some(entry.pid.clone()));
        self.names.insert(entry, watch);
    }

    pub(super) fn remove_name(&mut self, name: &Term) {
        if let Some(watch) = self.names.remove(name) {
            self.act(Action::Unwatch { watch });
            self.tell_name(name.clone(), None);
        }
    }

    /// The process of a name ended, or cannot be reached. Every node finds out by a monitor of its own.
    pub(super) fn name_down(&mut self, watch: Watch) {
        if let Some(name) = self.names.by_watch.get(&watch).cloned() {
            self.names.remove(&name);
            self.tell_name(name, None);
        }
    }

    /// Carries out what two partitions agreed on. Source: `global:do_ops/5`.
    pub(super) fn carry_out(
        &mut self,
        ops: &[Op],
        external: &[ExternalName],
        requester: Option<&Term>,
    ) {
        let authority = Authority::Requester(requester.cloned());
        for op in ops {
            if let Op::Insert(entry) = op {
                let external = external
                    .iter()
                    .find(|external| external.name == entry.name && external.pid == entry.pid);
                let node = external.map(|external| external.node.clone());
                self.insert_name(entry.clone(), node, &authority);
            }
        }
        for op in ops {
            if let Op::Delete(name) = op {
                self.remove_name(name);
            }
        }
    }

    fn tell_name(&mut self, name: Term, pid: Option<Pid>) {
        self.act(Action::Named { name, pid });
    }

    /// Whether what is to be entered was decided under a lock that still stands. Source: `global:lock_still_set/3`.
    fn lock_still_set(&self, authority: &Authority) -> bool {
        match (self.locks.global(), authority) {
            (Some(lock), Authority::Caller(pid)) => lock.is_held_by(pid),
            (Some(lock), Authority::Requester(requester)) => {
                requester.as_ref() == Some(lock.requester())
            }
            (None, _) => !self.locks.global_lost(),
        }
    }

    /// What a resolver left of a conflict, for both sides. Source: `global:exchange_names/4`.
    pub(super) fn settle(
        conflict: &Conflict,
        verdict: &Verdict,
        here: &mut Vec<Op>,
        there: &mut Vec<Op>,
    ) {
        let Conflict { theirs, ours } = conflict;
        match verdict {
            Verdict::Answered(Term::Pid(pid)) if *pid == theirs.pid => {
                here.push(Op::Insert(theirs.clone()));
            }
            Verdict::Answered(Term::Pid(pid)) if *pid == ours.pid => {
                there.push(Op::Insert(ours.clone()));
            }
            Verdict::Answered(_) => {
                here.push(Op::Delete(theirs.name.clone()));
                there.push(Op::Delete(theirs.name.clone()));
            }
            // Our process cannot be asked for: most likely its node is gone.
            Verdict::Failed => here.push(Op::Insert(theirs.clone())),
        }
    }
}

/// One name, two processes: one in each partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflict {
    pub(crate) theirs: NameEntry,
    pub(crate) ours: NameEntry,
}

/// What became of `global:resolve_it/4` on the node of our process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Answered(Term),
    Failed,
}
