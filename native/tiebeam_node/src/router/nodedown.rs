//! What the loss of a connection does: links, then monitors, then pending spawns, and the subscribers last.
//!
//! Subscribers rely on this order: `DOWN` before `nodedown`, and `nodedown` before the next `nodeup`.

use std::collections::VecDeque;
use std::sync::Arc;

use tiebeam_wire::{Atom, Reference, Term};

use crate::connection::{Connection, Reason};
use crate::node::NodeEvent;
use crate::process::Target;
use crate::process::entry::Entry;
use crate::router::{Peer, Router};

pub(super) fn run(router: &Router, connection: &Arc<Connection>, reason: &Reason) {
    let node = &connection.peer;
    router.peers.remove_if(
        node,
        |_, peer| matches!(peer, Peer::Up(up) if Arc::ptr_eq(up, connection)),
    );
    // A list of its own: a death removes processes from the table.
    let entries: Vec<Arc<Entry>> = router
        .processes
        .iter()
        .map(|entry| Arc::clone(&entry))
        .collect();
    let noconnection = || Term::atom("noconnection");

    let mut work = VecDeque::new();
    for entry in &entries {
        let lost = {
            let mut state = entry.state();
            state
                .watched_by
                .retain(|_, (watcher, _)| watcher.node != *node);
            let lost: Vec<_> = state
                .links
                .active()
                .filter(|pid| pid.node == *node)
                .cloned()
                .collect();
            // Inactive ones go silently: their acknowledgement cannot come any more.
            state.links.forget(|pid| pid.node == *node);
            lost
        };
        for from in lost {
            router.linked_exit(entry, from, noconnection(), &mut work);
        }
    }
    router
        .by_name
        .retain(|reference, entry| reference.node() != node && entry.is_alive());
    router.work_off(std::mem::take(&mut work));

    let monitors = |by_pid: bool| {
        let of_entry = |entry: &Arc<Entry>| -> Vec<(Arc<Entry>, Reference)> {
            let state = entry.state();
            let lost =
                state
                    .monitoring
                    .iter()
                    .filter(|(_, (target, on)): &(_, &(Target, Atom))| {
                        on == node && matches!(target, Target::Pid(_)) == by_pid
                    });
            lost.map(|(reference, _)| (Arc::clone(entry), reference.clone()))
                .collect()
        };
        entries.iter().flat_map(of_entry).collect::<Vec<_>>()
    };
    for by_pid in [true, false] {
        for (entry, reference) in monitors(by_pid) {
            router.down(&entry, &reference, noconnection(), &mut work);
        }
    }
    router.work_off(work);

    let spawning: Vec<Reference> = router
        .spawning
        .iter()
        .filter(|spawning| spawning.node == *node)
        .map(|spawning| spawning.key().clone())
        .collect();
    for reference in spawning {
        router.spawn_refused(&reference, Atom::of("noconnection"));
    }
    router.publish(NodeEvent::Down {
        node: node.clone(),
        visible: connection.visible,
        reason: reason.to_term(),
    });
}
