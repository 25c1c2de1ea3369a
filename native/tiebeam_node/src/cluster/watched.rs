//! The processes that have or had names or memberships here: each is monitored until it ends.

use std::collections::HashMap;

use tiebeam_core::Event;
use tiebeam_wire::{Pid, Reference};

use crate::cluster::table::pid_bytes;
use crate::process::Process;

/// Processes of plain BEAM nodes that this node may answer for. Those of this node have a limit of their own,
/// [`Limits::processes`](crate::Limits::processes).
pub(super) const MAX_REMOTE: usize = 65_536;

/// The processes, by pid and by monitor.
#[derive(Debug, Default)]
pub(super) struct Watched {
    monitors: HashMap<Pid, Reference>,
    pids: HashMap<Reference, Pid>,
    remote: usize,
}

impl Watched {
    /// Monitors a process, once. False if it is one process of another node too many.
    #[must_use]
    pub(super) fn add(&mut self, pid: &Pid, process: &Process) -> bool {
        if self.monitors.contains_key(pid) {
            return true;
        }
        let remote = pid.node != *process.node().name();
        if remote && self.remote >= MAX_REMOTE {
            return false;
        }
        let monitor = process.monitor(pid);
        self.monitors.insert(pid.clone(), monitor.clone());
        self.pids.insert(monitor, pid.clone());
        self.remote += usize::from(remote);
        true
    }

    /// A monitor says that its process is gone: what that is to the core.
    pub(super) fn down(&mut self, monitor: &Reference, process: &Process) -> Option<Event> {
        let pid = self.pids.remove(monitor)?;
        self.monitors.remove(&pid);
        self.remote -= usize::from(pid.node != *process.node().name());
        Some(Event::Exited {
            pid: pid_bytes(&pid),
        })
    }

    /// Whether a process that this node answers for still runs.
    pub(super) fn is_alive(&self, pid: &Pid, process: &Process) -> bool {
        let node = process.node();
        if pid.node == *node.name() {
            node.is_process_alive(pid)
        } else {
            self.monitors.contains_key(pid)
        }
    }
}
