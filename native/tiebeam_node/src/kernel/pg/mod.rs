//! `pg`: process groups. Every node that runs a scope of one name shares its groups.
//!
//! ```text
//! handles ──► Server ──► Scope (pure) ──► messages to the scope's processes on other nodes
//!               │                    └──► monitors
//!               └──► Table ──► readers and subscribers
//! ```

mod functions;
mod members;
mod messages;
mod scope;
mod server;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_wire::decode::{Limits, decode_with};
use tiebeam_wire::encode::encode;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::SpawnError;
use crate::node::Node;
pub(super) use functions::export;
use scope::Change;
use server::Server;

/// The scope that OTP calls the default one.
const DEFAULT_SCOPE: &str = "pg";

/// How deep a group's term may nest. A message holds it a few levels further down, and a node that cannot decode the whole
/// of it would take it for another group in one message than in the next.
const GROUP_DEPTH_MAX: usize = 256;

/// The process groups of one scope: those of this node's processes, and those of all nodes that are connected and run the
/// scope. Clones are the same. See [`Node::pg`].
///
/// A group is any term, and exists while it has members. A process may be in many groups, and several times in one: it
/// then is listed as often, and leaves as often. Each node is the authority for its own processes; what other nodes say
/// arrives a moment later.
#[derive(Clone)]
pub struct Pg(Arc<Server>);

/// Who joined or left; from [`PgEvents::recv`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PgEvent {
    /// Processes joined a group: `{Ref, join, Group, Pids}` of `pg:monitor`.
    Join {
        /// The group.
        group: Term,
        /// Who joined, each as often as it did.
        pids: Vec<Pid>,
    },
    /// Processes left a group, or ended, or their node is gone: `{Ref, leave, Group, Pids}` of `pg:monitor`.
    Leave {
        /// The group.
        group: Term,
        /// Who left, each as often as it did.
        pids: Vec<Pid>,
    },
    /// The subscriber was so slow that this many events of the scope were dropped; [`Pg::members`] has the present state.
    Missed(u64),
}

/// A subscription; from [`Pg::monitor`] and [`Pg::monitor_scope`]. Dropping it ends it.
#[derive(Debug)]
pub struct PgEvents {
    changes: broadcast::Receiver<Change>,
    /// The only group of interest.
    group: Option<Term>,
}

impl PgEvents {
    /// The next event; `None` when the node has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<PgEvent> {
        loop {
            let event = match self.changes.recv().await {
                Ok(Change::Join { group, pids }) => PgEvent::Join { group, pids },
                Ok(Change::Leave { group, pids }) => PgEvent::Leave { group, pids },
                Err(RecvError::Lagged(count)) => return Some(PgEvent::Missed(count)),
                Err(RecvError::Closed) => return None,
            };
            match (&event, &self.group) {
                (PgEvent::Join { group, .. } | PgEvent::Leave { group, .. }, Some(only))
                    if group != only => {}
                _ => return Some(event),
            }
        }
    }
}

/// Why a process did not join or leave.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PgError {
    /// Only processes of this node, in its present life, can join and leave here: ask their own node.
    NotLocal(Pid),
    /// None of the processes is in the group. Nothing has changed.
    NotJoined,
    /// The term cannot name a group, because not all nodes would take it for the same one; the text says what is wrong.
    Group(&'static str),
    /// The node's processes have as many memberships in this scope as it takes. None of them joined.
    Limit(usize),
    /// The scope has ended: the node stops, or another process took its name.
    Stopped,
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocal(pid) => write!(
                f,
                "{pid:?} is no process of this node; only its own node can have it join or leave"
            ),
            Self::NotJoined => f.write_str("none of the processes is in the group"),
            Self::Group(reason) => write!(f, "the term cannot name a group: {reason}"),
            Self::Limit(limit) => write!(
                f,
                "the scope takes {limit} memberships of one node; use fewer groups, or another scope"
            ),
            Self::Stopped => f.write_str("the scope has ended"),
        }
    }
}

impl std::error::Error for PgError {}

impl Pg {
    /// The scope's name, which its process is registered under.
    pub fn scope(&self) -> &Atom {
        self.0.name()
    }

    /// The scope's process.
    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// A process of this node joins a group. It is a member when this returns; other nodes hear of it in order. As in OTP,
    /// a process that is dead leaves again at once.
    pub fn join(&self, group: impl Into<Term>, pid: &Pid) -> Result<(), PgError> {
        self.join_many(group, [pid.clone()])
    }

    /// Processes of this node join a group, all of them or none. One message to each other node.
    pub fn join_many(
        &self,
        group: impl Into<Term>,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), PgError> {
        let group = group.into();
        check_group(&group)?;
        self.0.join(group, pids.into_iter().collect())
    }

    /// A process leaves a group, once. It needs not leave before it ends.
    pub fn leave(&self, group: impl Into<Term>, pid: &Pid) -> Result<(), PgError> {
        self.leave_many(group, [pid.clone()])
    }

    /// Those of the processes that are in the group leave it, each once.
    pub fn leave_many(
        &self,
        group: impl Into<Term>,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), PgError> {
        self.0.leave(group.into(), pids.into_iter().collect())
    }

    /// The members of a group on all nodes, in no particular order. Reads a table of this node: never waits for another.
    pub fn members(&self, group: impl Into<Term>) -> Vec<Pid> {
        self.0.table().members(&group.into()).cloned().collect()
    }

    /// The members of a group on this node.
    pub fn local_members(&self, group: impl Into<Term>) -> Vec<Pid> {
        let (group, table) = (group.into(), self.0.table());
        let members = table.members(&group);
        members.filter(|pid| self.0.is_own(pid)).cloned().collect()
    }

    /// The groups that have members.
    pub fn groups(&self) -> Vec<Term> {
        self.0
            .table()
            .groups()
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// The groups that have members on this node.
    pub fn local_groups(&self) -> Vec<Term> {
        let table = self.0.table();
        let own = table
            .groups()
            .filter(|(_, members)| members.iter().any(|pid| self.0.is_own(pid)));
        own.map(|(group, _)| group.clone()).collect()
    }

    /// The members of a group, and from then on every join and leave: nothing is missed between the two.
    pub fn monitor(&self, group: impl Into<Term>) -> (Vec<Pid>, PgEvents) {
        let group = group.into();
        let table = self.0.table();
        let members = table.members(&group).cloned().collect();
        let changes = table.subscribe();
        let events = PgEvents {
            changes,
            group: Some(group),
        };
        (members, events)
    }

    /// All groups with their members, and from then on every join and leave: nothing is missed between the two.
    pub fn monitor_scope(&self) -> (HashMap<Term, Vec<Pid>>, PgEvents) {
        let table = self.0.table();
        let groups = table
            .groups()
            .map(|(group, members)| (group.clone(), members.iter().cloned().collect()));
        let groups = groups.collect();
        let changes = table.subscribe();
        (
            groups,
            PgEvents {
                changes,
                group: None,
            },
        )
    }
}

impl fmt::Debug for Pg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pg")
            .field("scope", self.scope())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// The process groups of OTP's default scope, `pg`; the same as [`Node::pg_scope`] of that name.
    ///
    /// ```no_run
    /// # async fn part(node: tiebeam_node::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let pg = node.pg()?;
    /// let worker = node.spawn_anonymous()?;
    /// pg.join("workers", worker.pid())?; // :pg.get_members("workers") on every node has it
    /// for member in pg.members("workers") {
    ///     node.send(member, "work")?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn pg(&self) -> Result<Pg, SpawnError> {
        self.pg_scope(DEFAULT_SCOPE)
    }

    /// The process groups of a scope. The first time this starts the scope on this node, as a process with its name; it runs
    /// until the node stops. Scopes with different names know nothing of each other.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn pg_scope(&self, name: &str) -> Result<Pg, SpawnError> {
        let atom = Atom::new(name).map_err(|error| SpawnError::Invalid(error.to_string()))?;
        let mut scopes = self
            .pg_scopes()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = scopes.get(&atom).filter(|server| !server.is_stopped()) {
            return Ok(Pg(Arc::clone(server)));
        }
        let server = Server::start(atom.clone(), self.spawn(name)?);
        scopes.insert(atom, Arc::clone(&server));
        Ok(Pg(server))
    }
}

impl Node {
    /// The process groups of a scope that was started before.
    fn running_pg_scope(&self, name: &Atom) -> Option<Pg> {
        let scopes = self.pg_scopes().0.lock();
        let scopes = scopes.unwrap_or_else(PoisonError::into_inner);
        Some(Pg(Arc::clone(scopes.get(name)?)))
    }
}

/// The scopes that run on a node.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Mutex<HashMap<Atom, Arc<Server>>>);

/// Whether all nodes agree which group this is. What they disagree on ends the scope of a BEAM: it would be told of a leave
/// from a group that it knows under another name, or not at all.
fn check_group(group: &Term) -> Result<(), PgError> {
    // Encoding refuses such floats with a panic, so they are looked for first.
    let mut rest = vec![group];
    while let Some(term) = rest.pop() {
        match term {
            Term::Float(float) if !float.is_finite() => {
                return Err(PgError::Group("a BEAM has no such float"));
            }
            // Equal until OTP 26.
            Term::Float(float) if *float == 0.0 && float.is_sign_negative() => {
                return Err(PgError::Group("some releases of OTP take -0.0 for 0.0"));
            }
            Term::Fun(fun) => rest.extend(&fun.free),
            Term::Tuple(elements) | Term::List(elements) => rest.extend(elements),
            Term::Improper(list) => {
                rest.extend(&list.elements);
                rest.push(&list.tail);
            }
            Term::Map(map) => rest.extend(map.iter().flat_map(|(key, value)| [key, value])),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    encode(group, &mut bytes);
    let limits = Limits {
        depth: GROUP_DEPTH_MAX,
        ..Limits::default()
    };
    match decode_with(&bytes.into(), &limits) {
        Ok(decoded) if decoded == *group => Ok(()),
        _ => Err(PgError::Group(
            "it is not what a node reads after it was sent: too deep, too large, or not in normal form",
        )),
    }
}
