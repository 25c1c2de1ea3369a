//! The machine gives way to a snapshot of itself, and to that of another member.

use alloc::vec::Vec;

use super::Group;
use super::output::Stopped;
use crate::leadership::consensus::Consensus;
use crate::leadership::entry::{Entry, Payload};
use crate::leadership::machine::{Change, Machine};
use crate::leadership::snapshot::Snapshot;

/// The log since the last snapshot has at least so many bytes: what is read back at a start, and sent to a member that was away.
const MIN_LOG_BYTES: usize = 2 * 1024 * 1024;

/// What counts for an entry besides its command.
const ENTRY_BYTES: usize = 64;

/// How much of the log no snapshot stands for.
#[derive(Debug, Default)]
pub(super) struct Logged {
    bytes: usize,
    /// How long the last snapshot was: a log that is shorter is not worth another one.
    snapshot: usize,
}

impl Group {
    /// An entry was applied.
    pub(super) fn logged(&mut self, entry: &Entry) {
        self.logged.bytes += ENTRY_BYTES
            + match &entry.payload {
                Payload::Command(command) => command.len(),
                Payload::Noop | Payload::Configuration(_) => 0,
            };
        if self.logged.bytes < MIN_LOG_BYTES.max(self.logged.snapshot) {
            return;
        }
        let state = self.machine.encode();
        self.logged = Logged {
            bytes: 0,
            snapshot: state.len(),
        };
        if let Some(engine) = &mut self.engine {
            engine.compact(self.now, state.into());
        }
    }

    /// The machine is replaced: what is different is told as if it had happened.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        let machine = match Machine::decode(&snapshot.state) {
            Ok(mut machine) => {
                machine.switch(self.switched);
                machine
            }
            Err(error) => return self.stop(Stopped::Unreadable(error)),
        };
        self.logged = Logged {
            bytes: 0,
            snapshot: snapshot.state.len(),
        };
        let before = core::mem::replace(&mut self.machine, machine);
        self.applied = self.applied.max(snapshot.index);
        let changes = self.differences(&before);
        for change in &changes {
            self.show(change);
        }
        self.settle_unseen();
        for change in changes {
            self.on_change(change);
        }
        self.schedule_tick();
        self.answer_reads();
    }

    /// What makes `before` the machine that there is now.
    fn differences(&self, before: &Machine) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, _) in before.store().list(&[]) {
            if self.machine.store().get(key).is_none() {
                changes.push(Change::Deleted {
                    key: key.to_vec(),
                    revision: self.applied,
                });
            }
        }
        for (key, stored) in self.machine.store().list(&[]) {
            if before.store().get(key) != Some(stored) {
                changes.push(Change::Put {
                    key: key.to_vec(),
                    revision: stored.revision,
                });
            }
        }
        for (kind, name, claim) in before.claims().iter() {
            let now = self.machine.claims().get(kind, name);
            if now.is_none_or(|now| now.token != claim.token) {
                changes.push(Change::Freed {
                    kind,
                    name: name.to_vec(),
                    claim: claim.clone(),
                });
            }
        }
        for (kind, name, claim) in self.machine.claims().iter() {
            if before.claims().get(kind, name) != Some(claim) {
                changes.push(Change::Claimed {
                    kind,
                    name: name.to_vec(),
                    claim: claim.clone(),
                });
            }
        }
        changes
    }
}
