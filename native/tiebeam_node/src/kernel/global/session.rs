//! Sessions: two nodes that met exchange their names, so that both partitions end with one table.
//!
//! ```text
//!  we                                   they
//!  nodeup   init_connect ──────────►    nodeup
//!           ◄────────── init_connect
//!           init_connect_ack ◄─────►    both agree which session this is
//!  locker:  each takes the lock `global` in its own partition, and says so (lock_set)
//!           exchange ◄─────────────►    all names
//!           resolved ◄─────────────►    what the other side must change
//!           new_nodes, to each node that was known before, while the lock is still held
//! ```
//!
//! A message that carries a tag counts only in the session of that tag: what is left of an earlier one is ignored.
//!
//! When the two do not agree on which session this is, each says so and begins again; OTP does it at once. Two that do so
//! at once can miss each other for ever, as what each sends is about a session that the other has just left, so this side
//! is silent for a moment first: what is under way arrives, and the next hello meets a peer that waits for it.

use tiebeam_core::Duration;
use tiebeam_wire::{Atom, Pid, Term};
use tracing::{debug, error, warn};

use super::locker::{Finish, Letter, Peer};
use super::machine::{Action, Actor, Machine};
use super::messages::{
    ExternalName, LockId, Message, NameEntry, NewNodes, NodeVersion, Op, VERSION, VERSION_VERIFY,
};
use super::names::{Conflict, Verdict};

/// Nodes of one cluster. Each is connected with all others: OTP's own mesh is at its end at a few hundred. A node beyond
/// it is not dialled, and never known.
const NODES_MAX: usize = 4096;

/// How long this side is silent before it begins a session anew: longer than what is under way needs, and shorter than
/// lockers wait anyway.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// An `init_connect`.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) version: i64,
    pub(super) tag: Term,
    pub(super) node: Atom,
    pub(super) locker: Pid,
}

/// What one side tells the other at the end.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) ops: Vec<Op>,
    pub(super) known: Vec<NodeVersion>,
    pub(super) external: Vec<ExternalName>,
}

/// The state of getting to know one node.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells this session from others with the same node.
    pub(super) my_tag: i64,
    /// Their hello, once it came.
    pub(super) his: Option<Hello>,
    /// The requester of the lock that holds in both partitions.
    requester: Option<Term>,
    /// Their names, once they came.
    names: Option<Vec<NameEntry>>,
    /// The conflicts that are being decided here.
    conflicts: Option<Vec<Conflict>>,
    /// What is to change here, and has been told to them.
    ops: Option<Vec<Op>>,
    /// What they found.
    resolved: Option<Resolved>,
}

impl Machine {
    /// Greets a node that is connected. Source: `global:handle_nodeup/2`.
    pub(super) fn start_session(&mut self, node: &Atom) {
        self.restarts.remove(node);
        if self.known.contains_key(node) || self.sessions.contains_key(node) {
            return;
        }
        self.last_tag += 1;
        let my_tag = self.last_tag;
        let session = Session {
            my_tag,
            his: None,
            requester: None,
            names: None,
            conflicts: None,
            ops: None,
            resolved: None,
        };
        self.sessions.insert(node.clone(), session);
        let hello = Message::InitConnect {
            version: VERSION,
            tag: Term::from(my_tag),
            node: self.config.node.clone(),
            locker: self.config.locker.clone(),
        };
        self.send(Actor::NameServer, node, hello);
        if let Some(hello) = self.early.remove(node) {
            self.hello(hello);
        }
    }

    /// Their `init_connect`.
    pub(super) fn hello(&mut self, hello: Hello) {
        let node = hello.node.clone();
        let Some(session) = self.sessions.get_mut(&node) else {
            // Their hello came before our own nodeup, or while we are silent. Strangers are not remembered.
            if self.connected.contains(&node) {
                self.early.insert(node, hello);
            }
            return;
        };
        if session.his.is_some() {
            return self.out_of_step(&hello);
        }
        let (version, his_tag, my_tag) = (hello.version, hello.tag.clone(), session.my_tag);
        let peer = Peer {
            node: node.clone(),
            locker: hello.locker.clone(),
            version: version.min(VERSION),
            my_tag,
            his_tag: his_tag.clone(),
        };
        session.his = Some(hello);
        if version >= VERSION_VERIFY {
            let ack = Message::InitConnectAck {
                node: self.config.node.clone(),
                his_tag,
                my_tag: Term::from(my_tag),
            };
            self.send_connected(&node, ack);
        }
        self.locker.letter(Letter::Peer(peer));
    }

    /// They began again while we were at it.
    fn out_of_step(&mut self, hello: &Hello) {
        let node = &hello.node;
        if hello.version < VERSION_VERIFY {
            warn!(%node, "two hellos from a node of an older release: disconnecting it");
            return self.act(Action::Disconnect { node: node.clone() });
        }
        self.send_cancel(node, hello.tag.clone());
        self.restart_session(node);
    }

    /// Begins a session anew, after a moment of silence.
    fn restart_session(&mut self, node: &Atom) {
        self.end_session(node);
        let at = self.now + self.random.jitter(RESTART_PAUSE);
        self.restarts.insert(node.clone(), at);
    }

    pub(super) fn run_restarts(&mut self) {
        let due = self.restarts.iter().filter(|(_, at)| **at <= self.now);
        let due: Vec<Atom> = due.map(|(node, _)| node.clone()).collect();
        for node in due {
            self.start_session(&node);
        }
    }

    /// Their `init_connect_ack`: what they take for the tags of the two of us.
    pub(super) fn acknowledged(&mut self, node: &Atom, my_tag: &Term, his_tag: Term) {
        let session = self.sessions.get(node);
        let agreed = session.is_some_and(|session| {
            Term::from(session.my_tag) == *my_tag
                && session.his.as_ref().is_some_and(|his| his.tag == his_tag)
        });
        // While we are silent it is about the session that we have left.
        if agreed || self.restarts.contains_key(node) {
            return;
        }
        let ours = session.is_some();
        self.send_cancel(node, his_tag);
        if ours {
            self.restart_session(node);
        }
    }

    /// Their `cancel_connect`.
    pub(super) fn cancelled(&mut self, node: &Atom, my_tag: &Term) {
        if self.session(node, my_tag).is_some() {
            self.restart_session(node);
        }
    }

    fn send_cancel(&mut self, node: &Atom, his_tag: Term) {
        let cancel = Message::CancelConnect {
            node: self.config.node.clone(),
            his_tag,
        };
        self.send_connected(node, cancel);
    }

    /// Drops a session and tells the locker. Source: `global:cancel_locker/3`.
    pub(super) fn end_session(&mut self, node: &Atom) -> Option<Session> {
        self.early.remove(node);
        self.restarts.remove(node);
        let session = self.sessions.remove(node)?;
        self.locker.letter(Letter::Cancel {
            node: node.clone(),
            my_tag: Term::from(session.my_tag),
            finish: None,
        });
        Some(session)
    }

    /// The session with this tag; what the locker does for any other one with this node is to stop.
    fn session(&mut self, node: &Atom, my_tag: &Term) -> Option<&mut Session> {
        let session = self.sessions.get_mut(node);
        session.filter(|session| Term::from(session.my_tag) == *my_tag)
    }

    fn stale(&mut self, node: &Atom, my_tag: Term) {
        self.locker.letter(Letter::Cancel {
            node: node.clone(),
            my_tag,
            finish: None,
        });
    }

    /// The locker has the lock in both partitions.
    pub(super) fn locked(&mut self, node: &Atom, my_tag: i64, id: &LockId) {
        let tag = Term::from(my_tag);
        let Some(session) = self.session(node, &tag) else {
            return self.stale(node, tag);
        };
        session.requester = Some(id.requester.clone());
        let Some(his_tag) = session.his.as_ref().map(|his| his.tag.clone()) else {
            return self.stale(node, tag);
        };
        let exchange = Message::Exchange {
            node: self.config.node.clone(),
            names: self.names.all(),
            tag: his_tag,
        };
        self.send(Actor::NameServer, node, exchange);
        self.compare(node);
    }

    /// Their `exchange`.
    pub(super) fn exchanged(&mut self, node: &Atom, names: Vec<NameEntry>, my_tag: Term) {
        match self.session(node, &my_tag) {
            Some(session) => {
                session.names = Some(names);
                self.compare(node);
            }
            None => self.stale(node, my_tag),
        }
    }

    /// Looks for conflicts, once both sides are locked and their names are here. Only the node with the smaller name
    /// decides, so that all are decided in one partition. Source: `global:exchange_names/4`.
    fn compare(&mut self, node: &Atom) {
        let Some(session) = self.sessions.get_mut(node) else {
            return;
        };
        let decided = session.ops.is_some() || session.conflicts.is_some();
        if session.requester.is_none() || decided {
            return;
        }
        let Some(names) = session.names.take() else {
            return;
        };
        let my_tag = session.my_tag;
        let (mut ops, mut conflicts) = (Vec::new(), Vec::new());
        for theirs in names {
            match self.names.entry(&theirs.name) {
                None => ops.push(Op::Insert(theirs)),
                Some(ours) if ours.pid == theirs.pid => {}
                Some(ours) if self.config.node < *node => conflicts.push(Conflict { theirs, ours }),
                Some(_) => {}
            }
        }
        if conflicts.is_empty() {
            return self.decided(node, my_tag, ops, Vec::new());
        }
        debug!(%node, count = conflicts.len(), "names are registered on both sides");
        self.act(Action::Resolve {
            node: node.clone(),
            my_tag,
            conflicts: conflicts.clone(),
        });
        if let Some(session) = self.sessions.get_mut(node) {
            session.conflicts = Some(conflicts);
            session.ops = Some(ops);
        }
    }

    /// The resolvers have spoken, one verdict for each conflict.
    pub(super) fn verdicts(&mut self, node: &Atom, my_tag: i64, verdicts: &[Verdict]) {
        let Some(session) = self.session(node, &Term::from(my_tag)) else {
            return;
        };
        let Some(conflicts) = session.conflicts.take() else {
            return;
        };
        let (mut here, mut there) = (session.ops.take().unwrap_or_default(), Vec::new());
        for (at, conflict) in conflicts.iter().enumerate() {
            let verdict = verdicts.get(at).unwrap_or(&Verdict::Failed);
            Self::settle(conflict, verdict, &mut here, &mut there);
        }
        self.decided(node, my_tag, here, there);
    }

    /// Tells them what to change, and remembers what is to change here.
    fn decided(&mut self, node: &Atom, my_tag: i64, here: Vec<Op>, there: Vec<Op>) {
        let known = self.known_list();
        let Some(session) = self.session(node, &Term::from(my_tag)) else {
            return;
        };
        session.ops = Some(here);
        let Some(his) = &session.his else { return };
        let (tag, version) = (his.tag.clone(), his.version);
        let resolved = Message::Resolved {
            node: self.config.node.clone(),
            ops: there,
            known,
            external: self.names.external().to_vec(),
            tag,
        };
        self.send_as(Actor::NameServer, node, resolved, version);
        self.finish(node);
    }

    /// Their `resolved`.
    pub(super) fn resolved(&mut self, node: &Atom, resolved: Resolved, my_tag: Term) {
        match self.session(node, &my_tag) {
            Some(session) => {
                session.resolved = Some(resolved);
                self.finish(node);
            }
            None => self.stale(node, my_tag),
        }
    }

    /// Joins the two partitions, once both sides have spoken. Source: `global:resolved/5`.
    fn finish(&mut self, node: &Atom) {
        let ready = |session: &Session| {
            session.conflicts.is_none() && session.ops.is_some() && session.resolved.is_some()
        };
        if !self.sessions.get(node).is_some_and(ready) {
            return;
        }
        let Some(session) = self.sessions.remove(node) else {
            return;
        };
        self.early.remove(node);
        let (Some(mut ops), Some(resolved), Some(his)) =
            (session.ops, session.resolved, session.his)
        else {
            return;
        };
        ops.extend(resolved.ops);
        let requester = session.requester;
        self.carry_out(&ops, &resolved.external, requester.as_ref());
        // They are told of the nodes on this side by the other end of the session.
        let theirs = resolved.known.into_iter();
        let theirs: Vec<NodeVersion> = theirs
            .filter(|(other, _)| *other != self.config.node && other != node)
            .collect();
        for (other, _) in &theirs {
            self.end_session(other);
        }
        let mut nodes = vec![(node.clone(), his.version)];
        nodes.extend(theirs.iter().cloned());
        for (node, version) in &mut nodes {
            if *version == 0 {
                *version = self.version_of(node);
            }
        }
        let new_nodes = NewNodes {
            node: self.config.node.clone(),
            ops,
            external: resolved.external,
            nodes: nodes.clone(),
            version: his.version.min(VERSION),
            requester,
        };
        self.locker.letter(Letter::Cancel {
            node: node.clone(),
            my_tag: Term::from(session.my_tag),
            finish: Some(Finish {
                known: self.known_list(),
                new_nodes,
            }),
        });
        self.add_known(nodes);
        for (other, _) in theirs {
            self.sync_with(&other);
        }
        debug!(%node, known = self.known.len(), "the partitions are one");
        self.now_synced(node);
    }

    /// A node of our partition met others. Source: `global:new_nodes/6`.
    pub(super) fn new_nodes(&mut self, new: NewNodes) {
        for node in self.add_known(new.nodes) {
            self.sync_with(&node);
        }
        self.carry_out(&new.ops, &new.external, new.requester.as_ref());
    }

    /// A node of the other partition knows us now.
    pub(super) fn in_sync(&mut self, node: &Atom) {
        self.end_session(node);
        self.now_synced(node);
    }

    /// Enters nodes as known; gives those that were not.
    fn add_known(&mut self, nodes: Vec<NodeVersion>) -> Vec<Atom> {
        let mut added = Vec::new();
        for (node, version) in nodes {
            if node == self.config.node {
                continue;
            }
            let full = self.known.len() >= NODES_MAX;
            match self.known.get_mut(&node) {
                Some(known) => *known = (*known).max(version),
                None if full => {
                    error!(%node, limit = NODES_MAX, "too many nodes for one mesh: one is left out");
                }
                None => {
                    self.known.insert(node.clone(), version);
                    self.rejoin.found(&node);
                    added.push(node);
                }
            }
        }
        added
    }

    /// What a node said of its version; 0 if nothing.
    pub(super) fn version_of(&self, node: &Atom) -> i64 {
        let greeted = self
            .sessions
            .get(node)
            .and_then(|session| session.his.as_ref());
        let version = self.known.get(node).copied();
        version.or(greeted.map(|his| his.version)).unwrap_or(0)
    }
}
