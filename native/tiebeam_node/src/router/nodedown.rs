//! What the loss of a connection does: links, then monitors, then pending spawns, and the subscribers last.
//!
//! Subscribers rely on this order: `DOWN` before `nodedown`, and `nodedown` before the next `nodeup`.

use std::collections::VecDeque;
use std::sync::Arc;

use tiebeam_wire::{Atom, Pid, Reference, Term};

use crate::connection::{Connection, Reason};
use crate::node::NodeEvent;
use crate::process::Target;
use crate::process::entry::Entry;
use crate::router::Router;
use crate::router::peers::Peer;

pub(super) fn run(router: &Router, connection: &Arc<Connection>, reason: &Reason) {
    let node = &connection.peer;
    // First everything is collected, while senders still find the connection and are refused: what they begin now fails
    // at once, and what they begin later belongs to the next connection.
    let entries: Vec<Arc<Entry>> = router
        .processes
        .iter()
        .map(|entry| Arc::clone(&entry))
        .collect();
    let mut lost = Lost::default();
    for entry in &entries {
        lost.collect(entry, node);
    }
    let spawning: Vec<Reference> = router
        .spawning
        .iter()
        .filter(|spawning| spawning.node == *node)
        .map(|spawning| spawning.key().clone())
        .collect();
    router
        .by_name
        .retain(|reference, entry| reference.node() != node && entry.is_alive());
    router.peers.remove_if(
        node,
        |_, peer| matches!(peer, Peer::Up(up) if Arc::ptr_eq(up, connection)),
    );

    let noconnection = || Term::atom("noconnection");
    let mut work = VecDeque::new();
    for (entry, from) in lost.links {
        router.lost_link(&entry, from, noconnection(), &mut work);
    }
    router.work_off(std::mem::take(&mut work));
    for (entry, reference) in lost.by_pid.into_iter().chain(lost.by_name) {
        router.down(&entry, &reference, noconnection(), &mut work);
    }
    router.work_off(work);
    for reference in spawning {
        router.spawn_refused(&reference, Atom::of("noconnection"));
    }
    router.publish(NodeEvent::Down {
        node: node.clone(),
        visible: connection.visible,
        reason: reason.to_term(),
    });
}

/// What processes lose with a node.
#[derive(Default)]
struct Lost {
    links: Vec<(Arc<Entry>, Pid)>,
    by_pid: Vec<(Arc<Entry>, Reference)>,
    by_name: Vec<(Arc<Entry>, Reference)>,
}

impl Lost {
    fn collect(&mut self, entry: &Arc<Entry>, node: &Atom) {
        let mut state = entry.state();
        state
            .watched_by
            .retain(|_, (watcher, _)| watcher.node != *node);
        let links = state.links.lose(|pid| pid.node == *node).into_iter();
        self.links.extend(links.map(|pid| (Arc::clone(entry), pid)));
        for (reference, (target, on)) in &state.monitoring {
            if on == node {
                let of_kind = match target {
                    Target::Pid(_) => &mut self.by_pid,
                    Target::Name(_) => &mut self.by_name,
                };
                of_kind.push((Arc::clone(entry), reference.clone()));
            }
        }
    }
}
