//! What readers see of a scope: the members of every group, and the changes as they happen.

use std::collections::HashMap;

use tiebeam_wire::{Pid, Term};
use tokio::sync::broadcast;

use super::members::Members;
use super::scope::Change;

/// Changes kept for a subscriber that is slow. One that falls further behind is told how many it missed.
const EVENTS_MAX: usize = 1024;

/// All groups with their members, of all nodes. What it says is the sum of the changes that subscribers see.
#[derive(Debug)]
pub(super) struct Table {
    groups: HashMap<Term, Members>,
    /// `None` once nothing will change any more.
    events: Option<broadcast::Sender<Change>>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            groups: HashMap::new(),
            events: Some(broadcast::channel(EVENTS_MAX).0),
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match &change {
            Change::Join { group, pids } => {
                let members = self.groups.entry(group.clone()).or_default();
                pids.iter().for_each(|pid| members.add(pid.clone()));
            }
            Change::Leave { group, pids } => {
                if let Some(members) = self.groups.get_mut(group) {
                    for pid in pids {
                        members.remove(pid);
                    }
                    if members.is_empty() {
                        self.groups.remove(group);
                    }
                }
            }
        }
        if let Some(events) = &self.events {
            // An error: nobody has subscribed.
            let _ = events.send(change);
        }
    }

    pub(super) fn members(&self, group: &Term) -> impl Iterator<Item = &Pid> + use<'_> {
        self.groups.get(group).into_iter().flat_map(Members::iter)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&Term, &Members)> {
        self.groups.iter()
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Change> {
        match &self.events {
            Some(events) => events.subscribe(),
            // A subscription that ends at once.
            None => broadcast::channel(1).1,
        }
    }

    /// Nothing changes any more: ends all subscriptions.
    pub(super) fn close(&mut self) {
        self.events = None;
    }
}
