//! A scope of `pg`, as a pure machine: what happens goes in as [`Event`]s, what must be done comes out as [`Action`]s.
//!
//! Every node that has the scope runs one process of it; these are each other's peers. A node is the authority for its own
//! processes: it tells its peers who joined and left, and believes what they tell of theirs.
//!
//! ```text
//! a connection comes up          A                                B
//!                                {discover, A} ───────────────►   new: monitor A
//!                                ◄──────────── sync, {discover, B}
//!               monitor B, sync  ───────────────►                 the same from B's side, so most of it is said twice
//! afterwards                     join, leave ───────────────►
//! ```
//!
//! A BEAM's scope ends, and takes its local members with it, when it is told that a process leaves a group of which it
//! knows nothing; a few such ends stop the whole VM. A peer that heard our `discover` knows us, but none of our groups. So a
//! join or leave goes only to peers that had our sync before, over the same connection: a peer that becomes known is sent
//! it at once, is forgotten with the connection, and nothing is sent over the next one before [`Event::NodeUp`] tells of it.
//!
//! Source: `pg` of OTP's kernel.

use std::collections::{BTreeMap, HashMap};

use tiebeam_wire::{Atom, Pid, Term};
use tracing::warn;

use super::members::Members;
use super::messages::Message;

#[cfg(test)]
mod otp;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// Memberships of one node's processes in a scope: pairs of process and group. A peer gets all of them in one message, and
/// a Rust peer decodes messages of up to four million elements; here are four for each.
pub(super) const MEMBERSHIPS_MAX: usize = 1 << 19;

/// Memberships that are kept of one peer: some 100 MB. More are ignored; a node with so many is not one of a cluster that
/// agrees on anything.
const PEER_MEMBERSHIPS_MAX: usize = 1 << 20;

/// Peers of a scope: one for each node that is connected. More are ignored.
const PEERS_MAX: usize = 10_000;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A visible node is connected.
    NodeUp(Atom),
    /// The connection to a node is lost. Comes after the last message that came over it, and before the next `NodeUp`.
    NodeDown(Atom),
    /// A message came.
    Received(Message),
    /// A monitored process ended, or cannot be reached any more: a member of this node, or a peer.
    Down(Pid),
    /// Processes of this node join.
    Join { group: Term, pids: Vec<Pid> },
    /// Processes of this node leave, each once.
    Leave { group: Term, pids: Vec<Pid> },
    /// The scope's own process was replaced. Nothing that the old one monitored is monitored any more.
    Restarted(Pid),
}

/// What must be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Send `{discover, Own}` to the process that has the scope's name on this node.
    Discover(Atom),
    /// Send this to a peer: over the connection that the last [`Event::NodeUp`] told of, in order and without loss, or not at
    /// all once that is lost.
    Send { to: Pid, message: Message },
    /// Monitor a process: its end must become [`Event::Down`].
    Monitor(Pid),
    /// End that.
    Demonitor(Pid),
    /// The members of a group are others now.
    Change(Change),
}

/// Who joined or left a group, on whatever node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Join { group: Term, pids: Vec<Pid> },
    Leave { group: Term, pids: Vec<Pid> },
}

/// The state of a scope on one node.
#[derive(Debug)]
pub(super) struct Scope {
    /// The scope's own process.
    own: Pid,
    /// Processes of this node, and how often each is in which group.
    local: BTreeMap<Pid, HashMap<Term, usize>>,
    /// The sum of `local`.
    memberships: usize,
    /// The scope's processes on other nodes. Each had our sync, and must hear of every join and leave since.
    peers: BTreeMap<Pid, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Its members, by group; none is empty.
    groups: HashMap<Term, Members>,
    /// The sum of `groups`.
    memberships: usize,
    /// Whether it has more members than are kept.
    cut: bool,
}

impl Scope {
    pub(super) fn new(own: Pid) -> Self {
        Self {
            own,
            local: BTreeMap::new(),
            memberships: 0,
            peers: BTreeMap::new(),
        }
    }

    /// How many memberships of this node there is room for.
    pub(super) fn room(&self) -> usize {
        MEMBERSHIPS_MAX.saturating_sub(self.memberships)
    }

    /// Takes an event, and says what must be done. A leave of processes that are no members asks for nothing.
    pub(super) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::NodeUp(node) => actions.push(Action::Discover(node)),
            Event::NodeDown(node) => {
                let of_node = |pid: &Pid| pid.node == node;
                let lost: Vec<Pid> = self
                    .peers
                    .keys()
                    .filter(|pid| of_node(pid))
                    .cloned()
                    .collect();
                for pid in lost {
                    if let Some(peer) = self.peers.remove(&pid) {
                        actions.push(Action::Demonitor(pid));
                        peer.gone(&mut actions);
                    }
                }
            }
            Event::Received(message) => self.received(message, &mut actions),
            Event::Down(pid) => match self.peers.remove(&pid) {
                Some(peer) => peer.gone(&mut actions),
                None => self.died(&pid, &mut actions),
            },
            Event::Join { group, pids } => self.join(group, pids, &mut actions),
            Event::Leave { group, pids } => self.leave(group, pids, &mut actions),
            Event::Restarted(own) => {
                self.own = own;
                for (_, peer) in std::mem::take(&mut self.peers) {
                    peer.gone(&mut actions);
                }
                actions.extend(self.local.keys().cloned().map(Action::Monitor));
            }
        }
        actions
    }

    // ---- processes of this node

    fn join(&mut self, group: Term, pids: Vec<Pid>, actions: &mut Vec<Action>) {
        if pids.is_empty() {
            return;
        }
        for pid in &pids {
            let groups = self.local.entry(pid.clone()).or_insert_with(|| {
                actions.push(Action::Monitor(pid.clone()));
                HashMap::new()
            });
            *groups.entry(group.clone()).or_default() += 1;
        }
        self.memberships += pids.len();
        actions.push(Action::Change(Change::Join {
            group: group.clone(),
            pids: pids.clone(),
        }));
        let peer = self.own.clone();
        self.announce(Message::Join { peer, group, pids }, actions);
    }

    fn leave(&mut self, group: Term, pids: Vec<Pid>, actions: &mut Vec<Action>) {
        let mut left = Vec::new();
        for pid in pids {
            let Some(groups) = self.local.get_mut(&pid) else {
                continue;
            };
            let Some(times) = groups.get_mut(&group) else {
                continue;
            };
            *times -= 1;
            if *times == 0 {
                groups.remove(&group);
            }
            if groups.is_empty() {
                self.local.remove(&pid);
                actions.push(Action::Demonitor(pid.clone()));
            }
            left.push(pid);
        }
        if left.is_empty() {
            return;
        }
        self.memberships -= left.len();
        actions.push(Action::Change(Change::Leave {
            group: group.clone(),
            pids: left.clone(),
        }));
        let message = Message::Leave {
            peer: self.own.clone(),
            pids: left,
            groups: vec![group],
        };
        self.announce(message, actions);
    }

    fn died(&mut self, pid: &Pid, actions: &mut Vec<Action>) {
        let Some(memberships) = self.local.remove(pid) else {
            return;
        };
        let mut groups = Vec::new();
        for (group, times) in memberships {
            groups.extend(std::iter::repeat_n(&group, times).cloned());
            actions.push(Action::Change(Change::Leave {
                group,
                pids: vec![pid.clone(); times],
            }));
        }
        self.memberships -= groups.len();
        let message = Message::Leave {
            peer: self.own.clone(),
            pids: vec![pid.clone()],
            groups,
        };
        self.announce(message, actions);
    }

    fn announce(&self, message: Message, actions: &mut Vec<Action>) {
        actions.extend(self.peers.keys().map(|to| Action::Send {
            to: to.clone(),
            message: message.clone(),
        }));
    }

    /// All members of this node, each group once.
    fn sync(&self) -> Message {
        let mut groups: HashMap<&Term, Vec<Pid>> = HashMap::new();
        for (pid, memberships) in &self.local {
            for (group, times) in memberships {
                let pids = std::iter::repeat_n(pid, *times).cloned();
                groups.entry(group).or_default().extend(pids);
            }
        }
        let groups = groups.into_iter();
        Message::Sync {
            peer: self.own.clone(),
            groups: groups.map(|(group, pids)| (group.clone(), pids)).collect(),
        }
    }

    // ---- peers

    fn received(&mut self, message: Message, actions: &mut Vec<Action>) {
        if message.peer().node == self.own.node {
            return;
        }
        match message {
            Message::Discover(peer) if self.peers.contains_key(&peer) => {
                let message = self.sync();
                actions.push(Action::Send { to: peer, message });
            }
            Message::Discover(peer) => {
                if self.meet(&peer, actions) {
                    let message = Message::Discover(self.own.clone());
                    actions.push(Action::Send { to: peer, message });
                }
            }
            Message::Sync { peer, groups } => {
                if !self.peers.contains_key(&peer) && !self.meet(&peer, actions) {
                    return;
                }
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.replace(&peer, groups, actions);
                }
            }
            // Those of a peer that is not known say nothing: its sync will.
            Message::Join { peer, group, pids } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.join(&peer, group, pids, actions);
                }
            }
            Message::Leave { peer, pids, groups } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.leave(&pids, groups, actions);
                }
            }
        }
    }

    /// A peer becomes known: it is monitored, and sent all groups. False if it is one too many.
    fn meet(&mut self, pid: &Pid, actions: &mut Vec<Action>) -> bool {
        if self.peers.len() >= PEERS_MAX {
            warn!(peer = ?pid, limit = PEERS_MAX, "a process group scope has too many peers: one is ignored");
            return false;
        }
        self.peers.insert(pid.clone(), Peer::default());
        actions.push(Action::Monitor(pid.clone()));
        let (to, message) = (pid.clone(), self.sync());
        actions.push(Action::Send { to, message });
        true
    }
}

impl Peer {
    /// A sync: from now on these are all its members.
    fn replace(&mut self, own: &Pid, groups: Vec<(Term, Vec<Pid>)>, actions: &mut Vec<Action>) {
        let mut old = std::mem::take(&mut self.groups);
        self.memberships = 0;
        for (group, pids) in groups {
            let pids = self.admitted(own, pids);
            if !pids.is_empty() {
                let members = self.groups.entry(group).or_default();
                pids.into_iter().for_each(|pid| members.add(pid));
            }
        }
        for (group, members) in &self.groups {
            let before = old.remove(group).unwrap_or_default();
            let (joined, left) = (members.without(&before), before.without(members));
            if !joined.is_empty() {
                let group = group.clone();
                let pids = joined;
                actions.push(Action::Change(Change::Join { group, pids }));
            }
            if !left.is_empty() {
                let group = group.clone();
                actions.push(Action::Change(Change::Leave { group, pids: left }));
            }
        }
        all_leave(old, actions);
    }

    fn join(&mut self, own: &Pid, group: Term, pids: Vec<Pid>, actions: &mut Vec<Action>) {
        let pids = self.admitted(own, pids);
        if pids.is_empty() {
            return;
        }
        let members = self.groups.entry(group.clone()).or_default();
        pids.iter().for_each(|pid| members.add(pid.clone()));
        actions.push(Action::Change(Change::Join { group, pids }));
    }

    fn leave(&mut self, pids: &[Pid], groups: Vec<Term>, actions: &mut Vec<Action>) {
        for group in groups {
            let Some(members) = self.groups.get_mut(&group) else {
                continue;
            };
            let left: Vec<Pid> = pids
                .iter()
                .filter(|pid| members.remove(pid))
                .cloned()
                .collect();
            if members.is_empty() {
                self.groups.remove(&group);
            }
            self.memberships -= left.len();
            if !left.is_empty() {
                actions.push(Action::Change(Change::Leave { group, pids: left }));
            }
        }
    }

    /// Those of these new members that are processes of the peer's node, as far as there is room; they are counted.
    fn admitted(&mut self, own: &Pid, mut pids: Vec<Pid>) -> Vec<Pid> {
        pids.retain(|pid| pid.node == own.node);
        let room = PEER_MEMBERSHIPS_MAX - self.memberships;
        if pids.len() > room {
            if !self.cut {
                warn!(peer = ?own, limit = PEER_MEMBERSHIPS_MAX, "a node has too many members in process groups: some are ignored");
                self.cut = true;
            }
            pids.truncate(room);
        }
        self.memberships += pids.len();
        pids
    }

    fn gone(self, actions: &mut Vec<Action>) {
        all_leave(self.groups, actions);
    }
}

fn all_leave(groups: HashMap<Term, Members>, actions: &mut Vec<Action>) {
    for (group, members) in groups {
        let pids = members.iter().cloned().collect();
        actions.push(Action::Change(Change::Leave { group, pids }));
    }
}
