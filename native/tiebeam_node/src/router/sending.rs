//! What the processes of this node do to others: messages, links, monitors, exits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiebeam_wire::control::{Control, ExitTarget};
use tiebeam_wire::{Atom, Pid, Reference, Term};

use crate::connection::{Refused, Urgency};
use crate::error::SendError;
use crate::process::entry::Entry;
use crate::process::{Destination, Target};
use crate::router::Router;

/// A link is busy for a signal that must not wait when so many send buffers of bytes would go before it. Senders that give
/// way ([`Router::room`]) fill about one, and shall not shut it out; four megabytes take 40 ms at a gigabit a second.
const BUSY_FACTOR: usize = 4;

/// Why a signal that must not wait was not sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    NoConnection,
    /// So many bytes would go before it.
    Busy {
        ahead: usize,
    },
    Encode(String),
}

impl Router {
    /// Sends a message of a process, in order with all else that it sends. `from` is what the receiver may see of the
    /// sender. What the dead send is dropped.
    pub(crate) fn send(
        &self,
        sender: &Arc<Entry>,
        from: &Pid,
        to: Destination,
        message: Term,
    ) -> Result<(), SendError> {
        let (node, control) = match to {
            Destination::Pid(to) => (
                to.node.clone(),
                Control::Send {
                    from: Some(from.clone()),
                    to,
                },
            ),
            Destination::Name { name, node } => (
                node,
                Control::RegSend {
                    from: from.clone(),
                    name,
                },
            ),
            Destination::Local(name) if self.names.contains_key(&name) => (
                self.name.clone(),
                Control::RegSend {
                    from: from.clone(),
                    name,
                },
            ),
            Destination::Local(name) => return Err(SendError::NotRegistered(name)),
            Destination::Alias(alias) => (
                alias.node().clone(),
                Control::AliasSend {
                    from: from.clone(),
                    alias,
                },
            ),
        };
        // The caller is all threads that use the node, and lives as long as it: they need not wait for one another.
        let sending = if Arc::ptr_eq(sender, &self.caller) {
            None
        } else if let Some(sending) = sender.sending() {
            Some(sending)
        } else {
            return Ok(());
        };
        if node == self.name {
            let full = self.deliver(control, message);
            drop(sending);
            if let Some(full) = full {
                let mut work = VecDeque::new();
                self.overflow(&full, &mut work);
                self.work_off(work);
            }
            return Ok(());
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(SendError::Stopping);
        }
        let sender = Some(&sender.pid);
        let taken = self.hand_over(&node, control, Some(message), sender, Urgency::Ordinary);
        drop(sending);
        let Err(rejected) = taken else {
            return Ok(());
        };
        match rejected.refused {
            // A lost connection loses what was sent to it: Erlang promises no more. Nor is anybody told of the dead.
            Refused::Closed | Refused::Stale => Ok(()),
            Refused::Busy { queued } => Err(SendError::Busy { node, queued }),
            Refused::Encode(reason) => Err(SendError::Encode(reason)),
        }
    }

    /// Gives a signal of a process to the connection that is there, if little waits before it: `erlang:send/3` with
    /// `[noconnect, nosuspend]`. Never dials. What the dead send is dropped.
    pub(crate) fn send_at_once(
        &self,
        sender: &Arc<Entry>,
        node: &Atom,
        control: Control,
        payload: Option<Term>,
    ) -> Result<(), NotSent> {
        let connection = self
            .connection(node)
            .filter(|connection| !connection.is_closing())
            .ok_or(NotSent::NoConnection)?;
        let ahead = connection.ahead();
        if ahead > BUSY_FACTOR * self.limits.send_buffer {
            return Err(NotSent::Busy { ahead });
        }
        let Some(sending) = sender.sending() else {
            return Ok(());
        };
        let taken = connection.enqueue(control, payload, Some(&sender.pid), Urgency::Ordinary);
        drop(sending);
        match taken.map_err(|rejected| rejected.refused) {
            Ok(()) | Err(Refused::Stale) => Ok(()),
            Err(Refused::Closed) => Err(NotSent::NoConnection),
            Err(Refused::Busy { queued }) => Err(NotSent::Busy { ahead: queued }),
            Err(Refused::Encode(reason)) => Err(NotSent::Encode(reason)),
        }
    }

    /// Waits until the peer of this destination has room.
    pub(crate) async fn room(&self, to: &Destination) {
        let node = match to {
            Destination::Pid(pid) => &pid.node,
            Destination::Name { node, .. } => node,
            Destination::Alias(alias) => alias.node(),
            Destination::Local(_) => return,
        };
        if let Some(connection) = self.connection(node) {
            connection.room().await;
        }
        // A loop that only sends would otherwise keep the writer of the connection from its turn.
        tokio::task::coop::consume_budget().await;
    }

    pub(crate) fn link(&self, entry: &Entry, to: &Pid) {
        if *to == entry.pid {
            return;
        }
        let send = {
            let mut state = entry.state();
            state.exited.is_none() && state.links.link(to)
        };
        if send {
            self.route(
                to.node.clone(),
                Control::Link {
                    from: entry.pid.clone(),
                    to: to.clone(),
                },
                None,
            );
            // Killed meanwhile: its exit may have been told before the link was. Told twice, it counts once.
            let exited = entry.state().exited.clone();
            if let Some(reason) = exited {
                let control = Control::Exit {
                    from: entry.pid.clone(),
                    to: to.clone(),
                };
                self.route(to.node.clone(), control, Some(reason));
            }
        }
    }

    pub(crate) fn unlink(&self, entry: &Entry, to: &Pid) {
        let id = entry.state().links.unlink(to);
        if let Some(id) = id {
            let control = Control::UnlinkId {
                id,
                from: entry.pid.clone(),
                to: to.clone(),
            };
            self.route(to.node.clone(), control, None);
        }
    }

    pub(crate) fn monitor(&self, entry: &Entry, target: Destination) -> Reference {
        let reference = self.make_reference();
        self.monitor_as(entry, target, reference.clone());
        reference
    }

    /// Monitors with a reference that exists already.
    pub(crate) fn monitor_as(&self, entry: &Entry, target: Destination, reference: Reference) {
        let (node, target) = match target {
            Destination::Pid(pid) => (pid.node.clone(), Target::Pid(pid)),
            Destination::Name { name, node } => (node, Target::Name(name)),
            Destination::Local(name) => (self.name.clone(), Target::Name(name)),
            // OTP cannot monitor an alias either.
            Destination::Alias(alias) => {
                (alias.node().clone(), Target::Name(Atom::of("undefined")))
            }
        };
        {
            let mut state = entry.state();
            if state.exited.is_some() {
                return;
            }
            state
                .monitoring
                .insert(reference.clone(), (target.clone(), node.clone()));
        }
        let target: tiebeam_wire::control::Target = target.into();
        let control = Control::Monitor {
            from: entry.pid.clone(),
            target: target.clone(),
            reference: reference.clone(),
        };
        self.route(node.clone(), control, None);
        // Killed meanwhile: the end of the monitor may have been told before its beginning.
        if !entry.is_alive() {
            let control = Control::Demonitor {
                from: entry.pid.clone(),
                target,
                reference,
            };
            self.route(node, control, None);
        }
    }

    pub(crate) fn demonitor(&self, entry: &Entry, reference: &Reference) {
        let removed = entry.state().monitoring.remove(reference);
        if let Some((target, node)) = removed {
            let control = Control::Demonitor {
                from: entry.pid.clone(),
                target: target.into(),
                reference: reference.clone(),
            };
            self.route(node, control, None);
        }
    }

    pub(crate) fn exit2(&self, from: &Pid, to: &Pid, reason: Term) {
        let control = Control::Exit2 {
            from: from.clone(),
            to: ExitTarget::Pid(to.clone()),
        };
        self.route(to.node.clone(), control, Some(reason));
    }

    /// Ends a process.
    pub(crate) fn exit(&self, entry: &Arc<Entry>, reason: Term) {
        let mut work = VecDeque::new();
        self.terminate(entry, reason, &mut work);
        self.work_off(work);
    }
}
