//! The peers of this node: who is connected, what waits for a connection, who hears of changes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use dashmap::mapref::entry::Entry as Slot;
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Term};
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::Limits;
use crate::connection::{Connection, Reason, Refused, Rejected, Urgency, weight};
use crate::node::NodeEvent;
use crate::process::entry::Entry;
use crate::process::mailbox::Item;
use crate::router::{Routed, Router, nodedown};

/// Subscriptions to node events; each is a queue that somebody must read.
const SUBSCRIBERS_MAX: usize = 10_000;

/// Events that a subscriber may leave unread. One that is further behind than all nodes of a large cluster coming and
/// going several times does not read at all, and is dropped.
const EVENTS_MAX: usize = 10_000;

/// Peers that are connected or dialled at one time. A mesh has hundreds; a peer that makes us answer to made-up nodes
/// makes us dial each of them.
pub(super) const PEERS_MAX: usize = 10_000;

/// A peer, as senders see it.
pub(super) enum Peer {
    /// A connection is being set up; these signals wait for it.
    Connecting(Backlog),
    Up(Arc<Connection>),
}

/// What waits for a connection, in order.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) signals: Vec<Routed>,
    /// About how many bytes they take.
    weight: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, signal: Routed, limits: &Limits) -> Result<(), Box<Rejected>> {
        let most = match signal.control {
            Control::Exit { .. }
            | Control::Demonitor { .. }
            | Control::UnlinkId { .. }
            | Control::UnlinkIdAck { .. }
            | Control::Unlink { .. } => 2 * limits.connecting,
            _ => limits.connecting,
        };
        let is_end = most > limits.connecting;
        if self.signals.len() >= most || (self.weight > limits.send_queue && !is_end) {
            let queued = self.signals.len();
            return Err(Rejected::new(signal.control, Refused::Busy { queued }));
        }
        self.weight += weight(signal.payload.as_ref());
        self.signals.push(signal);
        Ok(())
    }
}

impl Router {
    pub(crate) fn connection(&self, node: &Atom) -> Option<Arc<Connection>> {
        match &*self.peers.get(node)? {
            Peer::Up(connection) => Some(Arc::clone(connection)),
            Peer::Connecting(_) => None,
        }
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.peers
            .iter()
            .filter_map(|peer| match peer.value() {
                Peer::Up(connection) => Some(Arc::clone(connection)),
                Peer::Connecting(_) => None,
            })
            .collect()
    }

    /// A connection is up: what waited for it goes first, then the subscribers hear of it.
    pub(crate) fn node_up(&self, connection: &Arc<Connection>) {
        let mut failed = Vec::new();
        match self.peers.entry(connection.peer.clone()) {
            Slot::Occupied(mut peer) => {
                // Under the lock of the entry, so that nothing sent later can come first.
                if let Peer::Connecting(backlog) = peer.insert(Peer::Up(Arc::clone(connection))) {
                    for Routed {
                        control,
                        payload,
                        sender,
                        ..
                    } in backlog.signals
                    {
                        let sender = sender.as_ref();
                        failed.extend(
                            connection
                                .enqueue(control, payload, sender, Urgency::Must)
                                .err(),
                        );
                    }
                }
            }
            Slot::Vacant(slot) => {
                slot.insert(Peer::Up(Arc::clone(connection)));
            }
        }
        let mut work = VecDeque::new();
        for rejected in failed {
            self.not_sent(*rejected, &mut work);
        }
        self.work_off(work);
        self.publish(NodeEvent::Up {
            node: connection.peer.clone(),
            visible: connection.visible,
        });
    }

    /// No connection could be set up.
    pub(crate) fn connect_failed(&self, node: &Atom) {
        let waiting = self.peers.remove_if(node, |_, peer| {
            let Peer::Connecting(backlog) = peer else {
                return false;
            };
            // Under the lock of the entry: what a process does with such a link from now on belongs to the next attempt.
            for signal in &backlog.signals {
                if let Control::Link { from, to } = &signal.control
                    && let Some(entry) = self.process(from)
                {
                    entry.state().links.lose(|pid| pid == to);
                }
            }
            true
        });
        let mut work = VecDeque::new();
        if let Some((_, Peer::Connecting(backlog))) = waiting {
            for signal in backlog.signals {
                match signal.control {
                    Control::Link { from, to } => {
                        if let Some(entry) = self.process(&from) {
                            self.lost_link(&entry, to, Term::atom("noconnection"), &mut work);
                        }
                    }
                    control => self.unreachable(control, "noconnection", &mut work),
                }
            }
        }
        self.work_off(work);
    }

    pub(crate) fn subscribe(&self) -> mpsc::Receiver<NodeEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| !subscriber.is_closed());
        if subscribers.len() < SUBSCRIBERS_MAX {
            subscribers.push(sender);
        }
        receiver
    }

    /// Node events go into this process's mailbox too, in order with the signals that come over the connections.
    pub(crate) fn monitor_nodes(&self, entry: &Arc<Entry>) {
        let mut monitors = self
            .node_monitors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !monitors.iter().any(|other| Arc::ptr_eq(other, entry)) {
            monitors.push(Arc::clone(entry));
        }
    }

    pub(super) fn publish(&self, event: NodeEvent) {
        let monitors = {
            let mut monitors = self
                .node_monitors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            monitors.retain(|entry| entry.is_alive());
            monitors.clone()
        };
        let mut work = VecDeque::new();
        for entry in &monitors {
            self.put(entry, Item::Node(event.clone()), &mut work);
        }
        self.work_off(work);
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| {
            let sent = subscriber.try_send(event.clone());
            if let Err(mpsc::error::TrySendError::Full(_)) = &sent {
                warn!("a subscriber that left {EVENTS_MAX} node events unread gets no more");
            }
            sent.is_ok()
        });
    }

    /// From now on nothing connects and nothing starts. True the first time.
    pub(crate) fn begin_stop(&self) -> bool {
        !self.stopping.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends all processes and subscriptions, once no peer is connected any more, and drops the functions: what the program
    /// gave to the node may hold the node in turn.
    pub(crate) fn end_all(&self) {
        let entries: Vec<_> = self
            .processes
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        for entry in entries {
            self.exit(&entry, Term::atom("shutdown"));
        }
        let functions = std::mem::take(
            &mut *self
                .functions
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(functions);
        self.node_monitors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    #[cfg(test)]
    pub(crate) fn monitored_names(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn node_down(&self, connection: &Arc<Connection>, reason: &Reason) {
        nodedown::run(self, connection, reason);
    }
}
