//! What a cluster tells of its names and groups to those who subscribed.

use std::sync::Arc;

use tiebeam_core::NodeName;
use tiebeam_core::registry::{Change, Departure, Entry, Gone, Key, Loss, What};
use tiebeam_wire::Pid;
use tokio::sync::broadcast;

use crate::cluster::name::Name;
use crate::cluster::table::{Atoms, pid_of};

/// Events kept for a subscriber that is slow: some turns of the driver while a node with many names comes. One that falls
/// further behind is told how many it missed.
pub(super) const MAX_REGISTRY_EVENTS: usize = 4096;

/// A change of names or groups, as this node sees them. Comes from [`RegistryEvents::recv`]; the table shows it already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A name is there that was not.
    Registered {
        /// The name.
        name: Name,
        /// Its process.
        pid: Pid,
    },
    /// A name has the same process, and other metadata.
    Updated {
        /// The name.
        name: Name,
        /// Its process.
        pid: Pid,
    },
    /// A name has another process: the one it had lost a conflict, or ended while another was waiting.
    Replaced {
        /// The name.
        name: Name,
        /// The process that has it now.
        pid: Pid,
        /// The process that had it.
        was: Pid,
    },
    /// A name is gone.
    Unregistered {
        /// The name.
        name: Name,
        /// The process that had it.
        pid: Pid,
        /// Why.
        gone: Gone,
    },
    /// A process of this node lost its name; told to the node of the process alone.
    Lost {
        /// The name.
        name: Name,
        /// The process.
        pid: Pid,
        /// The process that has the name now, if any.
        kept: Option<Pid>,
    },
    /// A process of this node that waited for its name has it.
    Promoted {
        /// The name.
        name: Name,
        /// The process.
        pid: Pid,
    },
    /// A process is in a group that it was not in.
    Joined {
        /// The group.
        group: Name,
        /// The process.
        pid: Pid,
    },
    /// A member of a group has other metadata.
    Rejoined {
        /// The group.
        group: Name,
        /// The process.
        pid: Pid,
    },
    /// A process is no longer in a group.
    Left {
        /// The group.
        group: Name,
        /// The process.
        pid: Pid,
        /// Why.
        gone: Gone,
    },
    /// All names and memberships that a node answered for are gone at once: nothing more is told of each.
    Purged {
        /// The node.
        node: NodeName,
        /// Why.
        departure: Departure,
    },
    /// The subscriber was so slow that this many events, of all scopes, were dropped; look-ups have the present state.
    Missed(u64),
}

/// An event with the scope that it is of; purges are of all.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// What it is about: `None` is everything.
    about: Option<Key>,
    event: RegistryEvent,
}

impl Told {
    pub(super) fn change(change: &Change, atoms: &mut Atoms) -> Option<Self> {
        let name = |key: &Key| Name::of(key.name());
        let entry_of = |entry: &Entry, atoms: &mut Atoms| {
            Some((
                entry.key.clone(),
                name(&entry.key),
                pid_of(&entry.pid, atoms)?,
            ))
        };
        let (key, event) = match change {
            Change::Registered(entry) => {
                let (key, name, pid) = entry_of(entry, atoms)?;
                (key, RegistryEvent::Registered { name, pid })
            }
            Change::Updated(entry) => {
                let (key, name, pid) = entry_of(entry, atoms)?;
                (key, RegistryEvent::Updated { name, pid })
            }
            Change::Replaced { entry, was } => {
                let (key, name, pid) = entry_of(entry, atoms)?;
                let was = pid_of(was, atoms)?;
                (key, RegistryEvent::Replaced { name, pid, was })
            }
            Change::Unregistered { key, pid, gone } => {
                let (name, pid, gone) = (name(key), pid_of(pid, atoms)?, *gone);
                (key.clone(), RegistryEvent::Unregistered { name, pid, gone })
            }
            Change::Joined(entry) => {
                let (key, group, pid) = entry_of(entry, atoms)?;
                (key, RegistryEvent::Joined { group, pid })
            }
            Change::Rejoined(entry) => {
                let (key, group, pid) = entry_of(entry, atoms)?;
                (key, RegistryEvent::Rejoined { group, pid })
            }
            Change::Left { key, pid, gone } => {
                let (group, pid, gone) = (name(key), pid_of(pid, atoms)?, *gone);
                (key.clone(), RegistryEvent::Left { group, pid, gone })
            }
            Change::Purged {
                node, departure, ..
            } => {
                return Some(Self {
                    about: None,
                    event: RegistryEvent::Purged {
                        node: node.clone(),
                        departure: *departure,
                    },
                });
            }
        };
        Some(Self {
            about: Some(key),
            event,
        })
    }

    pub(super) fn lost(loss: &Loss, atoms: &mut Atoms) -> Option<Self> {
        let kept = loss.kept.as_ref();
        Some(Self {
            about: Some(loss.key.clone()),
            event: RegistryEvent::Lost {
                name: Name::of(loss.key.name()),
                pid: pid_of(&loss.pid, atoms)?,
                kept: kept.and_then(|kept| pid_of(kept, atoms)),
            },
        })
    }

    pub(super) fn promoted(key: &Key, pid: &[u8], atoms: &mut Atoms) -> Option<Self> {
        Some(Self {
            about: Some(key.clone()),
            event: RegistryEvent::Promoted {
                name: Name::of(key.name()),
                pid: pid_of(pid, atoms)?,
            },
        })
    }
}

/// A subscription to the names or the groups of one scope; see [`Registry::subscribe`](crate::Registry::subscribe) and
/// [`Groups::subscribe`](crate::Groups::subscribe).
#[derive(Debug)]
pub struct RegistryEvents {
    receiver: broadcast::Receiver<Told>,
    scope: Arc<str>,
    what: What,
}

impl RegistryEvents {
    pub(super) fn new(receiver: broadcast::Receiver<Told>, scope: Arc<str>, what: What) -> Self {
        Self {
            receiver,
            scope,
            what,
        }
    }

    /// Takes an event of any scope that is there already; whether there was one.
    pub(super) fn skip(&mut self) -> bool {
        use broadcast::error::TryRecvError;
        match self.receiver.try_recv() {
            Ok(_) | Err(TryRecvError::Lagged(_)) => true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => false,
        }
    }

    /// The next event; `None` when the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<RegistryEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(Told { about, event }) => {
                    let concerns = about
                        .is_none_or(|key| key.what() == self.what && key.scope() == &*self.scope);
                    if concerns {
                        return Some(event);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    return Some(RegistryEvent::Missed(count));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
