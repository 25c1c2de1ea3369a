//! Processes that want to hear of the cluster, on whatever node: they get messages instead of a Rust stream.

use tiebeam_wire::control::Control;
use tiebeam_wire::{Pid, Reference, Term};
use tracing::debug;

use crate::process::Process;
use crate::router::NotSent;

/// Processes that may subscribe. An event becomes a message to each; a few tools watch, and no node has hundreds.
pub(super) const MAX_SUBSCRIBERS: usize = 256;

/// The processes, each monitored, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Vec<Subscriber>);

#[derive(Debug)]
struct Subscriber {
    pid: Pid,
    monitor: Reference,
    /// Events that were dropped since the last one that was sent, because the link was busy.
    missed: i64,
}

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a process; answers what its node is told.
    pub(super) fn add(&mut self, pid: &Pid, process: &Process) -> Term {
        let error = |reason| Term::tuple([Term::atom("error"), reason]);
        if self.0.iter().any(|subscriber| subscriber.pid == *pid) {
            return Term::atom("ok");
        }
        if self.0.len() >= MAX_SUBSCRIBERS {
            let limit = Term::from(MAX_SUBSCRIBERS as u64);
            return error(Term::tuple([Term::atom("too_many_subscribers"), limit]));
        }
        let node = process.node();
        // A monitor would dial: nobody makes this node call on others by naming a pid.
        if pid.node != *node.name() && node.router().connection(&pid.node).is_none() {
            return error(Term::atom("noconnection"));
        }
        self.0.push(Subscriber {
            pid: pid.clone(),
            monitor: process.monitor(pid),
            missed: 0,
        });
        Term::atom("ok")
    }

    /// Whether the process is there.
    pub(super) fn contains(&self, pid: &Pid) -> bool {
        self.0.iter().any(|subscriber| subscriber.pid == *pid)
    }

    /// Removes a process, if it is there.
    pub(super) fn remove(&mut self, pid: &Pid, process: &Process) {
        self.0.retain(|subscriber| {
            let stays = subscriber.pid != *pid;
            if !stays {
                process.demonitor(&subscriber.monitor);
            }
            stays
        });
    }

    /// A monitor says that its process is gone.
    pub(super) fn down(&mut self, monitor: &Reference) {
        self.0.retain(|subscriber| subscriber.monitor != *monitor);
    }

    /// Sends `{tiebeam, Cluster, Event}` to all. A subscriber behind a busy link misses it, and is told later how many it
    /// missed: `{missed, Count}`.
    pub(super) fn publish(&mut self, cluster: &str, event: &Term, process: &Process) {
        self.publish_but(|_| false, cluster, event, process);
    }

    /// The same to all but those for whom `skip` holds.
    pub(super) fn publish_but(
        &mut self,
        skip: impl Fn(&Pid) -> bool,
        cluster: &str,
        event: &Term,
        process: &Process,
    ) {
        for subscriber in &mut self.0 {
            if !skip(&subscriber.pid) {
                subscriber.tell(cluster, event, process);
            }
        }
    }

    /// The same to one process, if it is there.
    pub(super) fn tell(&mut self, pid: &Pid, cluster: &str, event: &Term, process: &Process) {
        self.publish_but(|other| other != pid, cluster, event, process);
    }
}

impl Subscriber {
    fn tell(&mut self, cluster: &str, event: &Term, process: &Process) {
        if self.missed > 0 {
            let missed = Term::tuple([Term::atom("missed"), Term::from(self.missed)]);
            if self.send(cluster, missed, process) {
                self.missed = 0;
            }
        }
        if self.missed > 0 || !self.send(cluster, event.clone(), process) {
            self.missed += 1;
        }
    }

    fn send(&self, cluster: &str, event: Term, process: &Process) -> bool {
        let cluster = Term::binary(cluster);
        let message = Term::tuple([Term::atom("tiebeam"), cluster, event]);
        let node = process.node();
        if self.pid.node == *node.name() {
            return process.send(&self.pid, message).is_ok();
        }
        let control = Control::Send {
            from: Some(process.pid().clone()),
            to: self.pid.clone(),
        };
        let sent =
            node.router()
                .send_at_once(process.entry(), &self.pid.node, control, Some(message));
        match sent {
            Ok(()) => true,
            Err(NotSent::Busy { ahead }) => {
                debug!(subscriber = ?self.pid, ahead, "the link is busy: an event is dropped");
                false
            }
            // Its monitor is about to say so.
            Err(NotSent::NoConnection) => true,
            Err(NotSent::Encode(reason)) => {
                debug!(subscriber = ?self.pid, "an event cannot be sent: {reason}");
                false
            }
        }
    }
}
