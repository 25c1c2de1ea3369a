//! The machine: events in, actions out. It reads no clock, opens no socket and draws no number that its seed does not
//! decide, so that every run can be replayed.

use std::collections::{BTreeMap, BTreeSet};

use tiebeam_core::{Duration, Instant, Random};
use tiebeam_wire::{Atom, Pid, Term};

use super::locker::{Letter, Locker};
use super::locks::Locks;
use super::messages::{
    LockId, Message, NameEntry, NodeVersion, Request, VERSION, external_term, nodes_term,
};
use super::names::{Authority, Conflict, Names, Verdict};
use super::partition::{Loss, Rejoin, Reports};
use super::registrar::{Change, Outcome, Registrar};
use super::session::{Hello, Resolved, Session};

/// How often a connection to a node of a joined partition is tried: `global`'s own number. It tries without a pause; but a
/// node that this one cannot reach may be about to reach this one.
const DIALS_MAX: u32 = 6;

/// The pause before the second dial; it doubles each time.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
const DIAL_PAUSE_MAX: Duration = Duration::from_millis(1600);

/// Callers that may wait until tables are equal; further ones are refused.
const SYNCERS_MAX: usize = 10_000;

/// What the machine must know from the start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node: Atom,
    pub(crate) name_server: Pid,
    pub(crate) locker: Pid,
    pub(crate) registrar: Pid,
    /// Whether this node becomes part of a full mesh.
    pub(crate) connect_all: bool,
    pub(crate) prevent_overlapping_partitions: bool,
    /// Whether to look for a cluster that was lost.
    pub(crate) rejoin: bool,
    /// Unique to this incarnation of the node.
    pub(crate) creation: i64,
    /// Decides all that is random.
    pub(crate) seed: u64,
}

/// The three processes of `global` on a node. Locks belong to the process that asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    NameServer,
    Locker,
    Registrar,
}

/// A monitor that the machine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Watch(pub(crate) u64);

/// A call that the machine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// Something that the driver waits for an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A visible connection came up. Comes before all messages over it.
    NodeUp(Atom),
    /// It went down. Comes after all messages over it, and after what its monitors say.
    NodeDown(Atom),
    /// A message to the name server.
    Received(Message),
    /// A `lock_set` to the locker itself.
    LockerReceived(Message),
    /// Somebody called the name server.
    Asked {
        ticket: Ticket,
        from: Pid,
        request: Request,
    },
    /// The answer to an [`Action::Call`]; `None` if the node is gone.
    Answered {
        from: Actor,
        call: CallId,
        answer: Option<Term>,
    },
    /// A watched process ended, or cannot be reached.
    Down(Watch),
    /// [`Action::Connect`] is done.
    Connected { node: Atom, up: bool },
    /// [`Action::Resolve`] is done: one verdict for each conflict.
    Resolved {
        node: Atom,
        my_tag: i64,
        verdicts: Vec<Verdict>,
    },
    /// This node registers or unregisters.
    Change { ticket: Ticket, change: Change },
    /// The node is about to close its connections.
    Stopping,
    /// It is time.
    Woke,
}

/// What the driver does, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Sends a message to the name server of a node.
    Cast {
        from: Actor,
        node: Atom,
        message: Term,
        /// Whether to set up a connection if there is none, and keep the message for it.
        connect: bool,
    },
    /// Sends a message to a process.
    Send {
        from: Actor,
        to: Pid,
        message: Term,
    },
    /// Calls the name server of a node.
    Call {
        call: CallId,
        from: Actor,
        node: Atom,
        request: Request,
        /// Whether to set up a connection if there is none; without one nobody holds a lock there any more.
        connect: bool,
    },
    /// Answers [`Event::Asked`].
    Reply {
        ticket: Ticket,
        reply: Term,
    },
    /// Answers [`Event::Change`].
    Changed {
        ticket: Ticket,
        outcome: Outcome,
    },
    /// Monitors a process.
    Watch {
        watch: Watch,
        pid: Pid,
    },
    Unwatch {
        watch: Watch,
    },
    /// Connects to a node and tells how it went.
    Connect {
        node: Atom,
    },
    /// Closes the connection to a node.
    Disconnect {
        node: Atom,
    },
    /// Asks the node of our process, for each conflict in turn, what its resolver says.
    Resolve {
        node: Atom,
        my_tag: i64,
        conflicts: Vec<Conflict>,
    },
    /// A name is now that of this process, or nobody's.
    Named {
        name: Term,
        pid: Option<Pid>,
    },
    /// A resource is now locked for this requester by these processes, or free.
    Locked {
        resource: Term,
        held: Option<(Term, Vec<(Pid, Watch)>)>,
    },
}

/// Somebody who waits until tables are equal.
#[derive(Debug)]
struct Syncer {
    ticket: Ticket,
    nodes: BTreeSet<Atom>,
}

/// Attempts to connect to a node.
#[derive(Debug)]
pub(super) struct Dial {
    times: u32,
    /// When to try again; `None` while an attempt is under way.
    again: Option<Instant>,
}

/// `global` on one node.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) config: Settings,
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) names: Names,
    pub(super) locks: Locks,
    /// The nodes that are part of this partition, with their protocol versions.
    pub(super) known: BTreeMap<Atom, i64>,
    /// Those that are known to have the same names.
    pub(super) synced: BTreeSet<Atom>,
    /// Those with a visible connection.
    pub(super) connected: BTreeSet<Atom>,
    pub(super) sessions: BTreeMap<Atom, Session>,
    /// Hellos that came before there was a session.
    pub(super) early: BTreeMap<Atom, Hello>,
    /// Sessions to begin anew, and when.
    pub(super) restarts: BTreeMap<Atom, Instant>,
    /// Nodes that were thrown out and whose connection is still there.
    pub(super) removing: BTreeSet<Atom>,
    /// Nodes to be told that they are in sync once they are connected.
    pub(super) dialling: BTreeMap<Atom, Dial>,
    pub(super) reports: Reports,
    pub(super) rejoin: Rejoin,
    pub(super) locker: Locker,
    pub(super) registrar: Registrar,
    syncers: Vec<Syncer>,
    pub(super) last_tag: i64,
    last_watch: u64,
    last_call: u64,
    actions: Vec<Action>,
}

impl Machine {
    pub(crate) fn new(config: Settings) -> Self {
        let mut random = Random::from_seed(config.seed);
        // Another start than that of an earlier incarnation: what was meant for it does not fit.
        let last_tag = random.below(1 << 48) as i64;
        Self {
            now: Instant::from_millis(0),
            random,
            names: Names::default(),
            locks: Locks::default(),
            known: BTreeMap::new(),
            synced: BTreeSet::new(),
            connected: BTreeSet::new(),
            sessions: BTreeMap::new(),
            early: BTreeMap::new(),
            restarts: BTreeMap::new(),
            removing: BTreeSet::new(),
            dialling: BTreeMap::new(),
            reports: Reports::default(),
            rejoin: Rejoin::default(),
            locker: Locker::default(),
            registrar: Registrar::default(),
            syncers: Vec::new(),
            last_tag,
            last_watch: 0,
            last_call: 0,
            actions: Vec::new(),
            config,
        }
    }

    /// Takes an event. `now` never goes back.
    pub(crate) fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        self.take(event);
        self.run_dials();
        self.run_restarts();
        self.run_rejoin();
        self.run_registrar();
        self.run_locker();
        std::mem::take(&mut self.actions)
    }

    /// When to come back with [`Event::Woke`]; early or late is safe.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.locker.deadline(),
            self.registrar.deadline(),
            self.rejoin.deadline(),
        ];
        let dials = self.dialling.values().filter_map(|dial| dial.again);
        let restarts = self.restarts.values().copied();
        let deadlines = deadlines.into_iter().flatten();
        deadlines.chain(dials).chain(restarts).min()
    }

    /// Changes of this node's own that wait for their turn.
    pub(crate) fn waiting_changes(&self) -> usize {
        self.registrar.len()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::NodeUp(node) => {
                self.connected.insert(node.clone());
                if self.dialling.remove(&node).is_some() {
                    self.send_in_sync(&node);
                }
                if self.config.connect_all {
                    self.start_session(&node);
                }
            }
            Event::NodeDown(node) => {
                self.connected.remove(&node);
                self.lose(&node, Loss::Disconnected);
            }
            Event::Received(message) => self.received(message),
            Event::LockerReceived(message) => {
                if let Message::LockSet {
                    locker, set, tag, ..
                } = message
                {
                    let my_tag = tag;
                    self.locker.letter(Letter::LockSet {
                        locker,
                        set,
                        my_tag,
                    });
                }
            }
            Event::Asked {
                ticket,
                from,
                request,
            } => match request {
                Request::Sync(nodes) => self.sync(ticket, nodes),
                request => {
                    let reply = self.serve(&from, &request);
                    self.act(Action::Reply { ticket, reply });
                }
            },
            Event::Answered { from, call, answer } => match from {
                Actor::Locker => self.locker.answered(call, answer),
                Actor::Registrar => self.registrar.answered(call, answer),
                // It calls nobody.
                Actor::NameServer => {}
            },
            Event::Down(watch) => {
                self.lock_down(watch);
                self.name_down(watch);
            }
            Event::Connected { node, up } => self.dialled(node, up),
            Event::Resolved {
                node,
                my_tag,
                verdicts,
            } => self.verdicts(&node, my_tag, &verdicts),
            Event::Change { ticket, change } => self.change(ticket, change),
            Event::Stopping => {
                // Connections that go one by one must not look like a partition to the others.
                self.config.connect_all = false;
                self.config.prevent_overlapping_partitions = false;
                self.config.rejoin = false;
                self.rejoin = Rejoin::default();
            }
            Event::Woke => {}
        }
    }

    fn received(&mut self, message: Message) {
        match message {
            Message::InitConnect {
                version,
                tag,
                node,
                locker,
            } => self.hello(Hello {
                version,
                tag,
                node,
                locker,
            }),
            // "Your tag", as they say it, is ours.
            Message::InitConnectAck {
                node,
                his_tag,
                my_tag,
            } => self.acknowledged(&node, &his_tag, my_tag),
            Message::CancelConnect { node, his_tag } => self.cancelled(&node, &his_tag),
            Message::LockSet {
                locker, set, tag, ..
            } => {
                let session = self.sessions.get(&locker.node);
                let tags = (tag, session.map(|session| Term::from(session.my_tag)));
                let my_tag = match tags {
                    (Some(tag), Some(current)) if tag == current => Some(tag),
                    (Some(_), _) => return,
                    (None, _) => None,
                };
                self.locker.letter(Letter::LockSet {
                    locker,
                    set,
                    my_tag,
                });
            }
            Message::Exchange { node, names, tag } => self.exchanged(&node, names, tag),
            Message::Resolved {
                node,
                ops,
                known,
                external,
                tag,
            } => {
                let resolved = Resolved {
                    ops,
                    known,
                    external,
                };
                self.resolved(&node, resolved, tag);
            }
            Message::NewNodes(new) => self.new_nodes(new),
            Message::InSync { node } => self.in_sync(&node),
            Message::LostConnection {
                reporter,
                creation,
                operation,
                lost,
            } => self.reported_lost(reporter, creation, operation, lost),
            Message::RemoveConnection { node } => self.removed_by(&node),
        }
    }

    /// Answers a call at once. Whoever calls waits without a time limit.
    pub(super) fn serve(&mut self, from: &Pid, request: &Request) -> Term {
        match request {
            Request::SetLock(id) => Term::from(self.set_lock(id, from)),
            Request::DelLock(id) => {
                self.del_lock(id, from);
                Term::from(true)
            }
            Request::Register(entry) => self.serve_register(from, entry, None),
            Request::RegisterExternal(entry, node) => self.serve_register(from, entry, Some(node)),
            Request::Unregister(name) => {
                self.remove_name(name);
                Term::atom("ok")
            }
            Request::GetKnown => nodes_term(&self.known_list(), false),
            Request::GetSynced => Term::List(self.synced.iter().cloned().map(Term::from).collect()),
            // Answered when it is true; nodes do not ask one another for it.
            Request::Sync(_) => Term::atom("ok"),
            Request::GetProtocolVersion => Term::from(VERSION),
            Request::GetNamesExternal => external_term(self.names.external()),
        }
    }

    fn serve_register(&mut self, from: &Pid, entry: &NameEntry, external: Option<&Atom>) -> Term {
        let authority = Authority::Caller(from.clone());
        self.insert_name(entry.clone(), external.cloned(), &authority);
        Term::atom("yes")
    }

    // ---- who is in sync

    /// Answers once the tables are those of these nodes, as far as they are connected.
    fn sync(&mut self, ticket: Ticket, nodes: Vec<Atom>) {
        let mut nodes: BTreeSet<Atom> = nodes.into_iter().collect();
        nodes.retain(|node| self.connected.contains(node) && !self.synced.contains(node));
        if self.syncers.len() >= SYNCERS_MAX {
            let reply = Term::tuple([Term::atom("error"), Term::atom("system_limit")]);
            return self.act(Action::Reply { ticket, reply });
        }
        self.syncers.push(Syncer { ticket, nodes });
        self.answer_syncers();
    }

    pub(super) fn now_synced(&mut self, node: &Atom) {
        self.synced.insert(node.clone());
        self.not_to_be_synced(node);
    }

    /// Nobody needs to wait for this node any more: it is in sync, or gone.
    pub(super) fn not_to_be_synced(&mut self, node: &Atom) {
        for syncer in &mut self.syncers {
            syncer.nodes.remove(node);
        }
        self.answer_syncers();
    }

    fn answer_syncers(&mut self) {
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.syncers)
            .into_iter()
            .partition(|syncer| syncer.nodes.is_empty());
        self.syncers = waiting;
        for Syncer { ticket, .. } in done {
            let reply = Term::atom("ok");
            self.act(Action::Reply { ticket, reply });
        }
    }

    /// Tells a node of a partition that was joined that this one knows it, once there is a connection.
    pub(super) fn sync_with(&mut self, node: &Atom) {
        if self.connected.contains(node) {
            return self.send_in_sync(node);
        }
        if !self.dialling.contains_key(node) {
            self.dial(node, 1);
        }
    }

    fn dial(&mut self, node: &Atom, times: u32) {
        let again = None;
        self.dialling.insert(node.clone(), Dial { times, again });
        self.act(Action::Connect { node: node.clone() });
    }

    fn dialled(&mut self, node: Atom, up: bool) {
        let Some(dial) = self.dialling.get_mut(&node) else {
            return;
        };
        if up {
            self.dialling.remove(&node);
            self.send_in_sync(&node);
        } else if dial.times < DIALS_MAX {
            let pause = DIAL_PAUSE.doubled(dial.times - 1, DIAL_PAUSE_MAX);
            dial.again = Some(self.now + pause);
        } else {
            // A node that was there when the partitions were joined has gone since: nobody else will say so.
            tracing::warn!(%node, "'global' failed to connect to a node of a joined partition");
            self.lose(&node, Loss::Disconnected);
        }
    }

    fn run_dials(&mut self) {
        let due = |dial: &Dial| dial.again.is_some_and(|again| again <= self.now);
        let due: Vec<(Atom, u32)> = self
            .dialling
            .iter()
            .filter(|(_, dial)| due(dial))
            .map(|(node, dial)| (node.clone(), dial.times + 1))
            .collect();
        for (node, times) in due {
            self.dial(&node, times);
        }
    }

    fn send_in_sync(&mut self, node: &Atom) {
        let message = Message::InSync {
            node: self.config.node.clone(),
        };
        self.send(Actor::NameServer, node, message);
    }

    // ---- what others need

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn pid(&self, actor: Actor) -> &Pid {
        match actor {
            Actor::NameServer => &self.config.name_server,
            Actor::Locker => &self.config.locker,
            Actor::Registrar => &self.config.registrar,
        }
    }

    pub(super) fn known_list(&self) -> Vec<NodeVersion> {
        self.known
            .iter()
            .map(|(node, version)| (node.clone(), *version))
            .collect()
    }

    /// Sends to a name server; a connection is set up if there is none.
    pub(super) fn send(&mut self, from: Actor, node: &Atom, message: Message) {
        self.send_as(from, node, message, VERSION);
    }

    /// As `send`, to a node that speaks this version.
    pub(super) fn send_as(&mut self, from: Actor, node: &Atom, message: Message, version: i64) {
        self.act(Action::Cast {
            from,
            node: node.clone(),
            message: message.to_term(version),
            connect: true,
        });
    }

    /// Sends to a name server, if it is connected.
    pub(super) fn send_connected(&mut self, node: &Atom, message: Message) {
        self.act(Action::Cast {
            from: Actor::NameServer,
            node: node.clone(),
            message: message.to_term(VERSION),
            connect: false,
        });
    }

    pub(super) fn watch(&mut self, pid: &Pid) -> Watch {
        self.last_watch += 1;
        let watch = Watch(self.last_watch);
        self.act(Action::Watch {
            watch,
            pid: pid.clone(),
        });
        watch
    }

    pub(super) fn next_call(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }
}

impl LockId {
    /// A lock of a process of its own.
    pub(crate) fn new(resource: Term, requester: &Pid) -> Self {
        Self {
            resource,
            requester: Term::from(requester),
        }
    }
}

#[cfg(test)]
mod tests;
