//! What a Rust program does with the groups of a cluster.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tiebeam_core::registry::{Command, What};
use tiebeam_wire::{Pid, Term};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::cluster::name::Name;
use crate::cluster::registry::{Registration, RegistryError, Shared, meta_bytes, no_meta};
use crate::cluster::registry_event::RegistryEvents;
use crate::cluster::table::term_bytes;
use crate::error::{CallError, SendError};
use crate::message::FromTerm;
use crate::node::Node;
use crate::typed;

/// Members that one [`Groups::call`] asks at a time: each is a task, and an answer that may come at the same moment as all
/// others.
const MAX_ASKED: usize = 1_000;

/// The groups of a cluster, in one scope: a process is in as many as it likes, in each once. Clones are the same.
///
/// Reads never wait, and see what was joined or left here; the other nodes see it a moment later. A process leaves its
/// groups when it ends or its node is known to be gone.
///
/// ```no_run
/// # async fn workers(cluster: tiebeam_node::ClusterHandle, worker: tiebeam_node::Process) -> Result<(), Box<dyn std::error::Error>> {
/// use tiebeam_node::Term;
///
/// let groups = cluster.groups();
/// groups.join("workers", worker.pid()).await?;
/// groups.publish("workers", Term::atom("work")); // a message to each, wherever it runs
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Groups {
    shared: Shared,
}

impl Groups {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The groups of another scope; see [`Registry::scope`](crate::Registry::scope). OTP's `pg` is not among them:
    /// [`Node::pg`](crate::Node::pg).
    pub fn scope(&self, scope: &str) -> Self {
        Self {
            shared: Shared {
                scope: scope.into(),
                ..self.shared.clone()
            },
        }
    }

    /// The same groups, without members whose node is a suspect: one that did not answer lately and may still.
    pub fn hide_suspects(&self) -> Self {
        Self {
            shared: Shared {
                hide_suspects: true,
                ..self.shared.clone()
            },
        }
    }

    /// Makes a process of this node a member of a group, until it ends. Does nothing if it is one.
    ///
    /// # Cancel safety
    /// Once polled, the process is a member even if the future is dropped, unless the request still waits for its turn.
    pub async fn join(&self, group: impl Into<Name>, pid: &Pid) -> Result<(), RegistryError> {
        self.join_bytes(group.into(), pid, no_meta()).await
    }

    /// As [`Groups::join`], with metadata: any value, at most [`MAX_META_BYTES`](crate::MAX_META_BYTES) when encoded. A
    /// member gets the new one.
    ///
    /// # Cancel safety
    /// As for [`Groups::join`].
    pub async fn join_with<T: Serialize + ?Sized>(
        &self,
        group: impl Into<Name>,
        pid: &Pid,
        meta: &T,
    ) -> Result<(), RegistryError> {
        self.join_bytes(group.into(), pid, meta_bytes(meta)?).await
    }

    /// As [`Groups::join_with`], for a term.
    pub(crate) async fn join_term(
        &self,
        group: Name,
        pid: &Pid,
        meta: &Term,
    ) -> Result<(), RegistryError> {
        self.join_bytes(group, pid, term_bytes(meta)).await
    }

    async fn join_bytes(
        &self,
        group: Name,
        pid: &Pid,
        meta: std::sync::Arc<[u8]>,
    ) -> Result<(), RegistryError> {
        group.check().map_err(RegistryError::Name)?;
        self.shared.writable()?;
        let command = Command::Join {
            scope: self.shared.scope.as_ref().to_owned(),
            group: group.bytes().clone(),
            pid: self.shared.own(pid)?,
            meta,
        };
        self.shared.ask(command).await
    }

    /// Takes a process of this node out of a group.
    ///
    /// # Cancel safety
    /// As for [`Groups::join`].
    pub async fn leave(&self, group: impl Into<Name>, pid: &Pid) -> Result<(), RegistryError> {
        let group = group.into();
        group.check().map_err(RegistryError::Name)?;
        let command = Command::Leave {
            scope: self.shared.scope.as_ref().to_owned(),
            group: group.bytes().clone(),
            pid: crate::cluster::table::pid_bytes(pid),
        };
        self.shared.ask(command).await
    }

    /// The members of a group with their metadata, in no particular order. Reads a local table, never waits.
    pub fn members(&self, group: impl Into<Name>) -> Vec<Registration> {
        let members = self.shared.table.members(&self.shared.scope, &group.into());
        members
            .into_iter()
            .filter(|row| self.shared.shows(&row.pid))
            .map(Registration::of)
            .collect()
    }

    /// All members of all groups of the scope. Reads the whole local table, never waits.
    pub(super) fn entries(&self) -> Vec<(Name, Registration)> {
        let mut entries = Vec::new();
        self.shared
            .table
            .each_group(&self.shared.scope, |group, members| {
                let group = Name::of(group);
                let rows = members.values().cloned().map(Registration::of);
                entries.extend(rows.map(|row| (group.clone(), row)));
            });
        entries.retain(|(_, entry)| self.shared.shows(&entry.pid));
        entries
    }

    /// The members of a group that run on this node. Reads a local table, never waits.
    pub fn local_members(&self, group: impl Into<Name>) -> Vec<Registration> {
        let mut members = self.members(group);
        members.retain(|member| member.pid.node == *self.shared.node.name());
        members
    }

    /// All groups of the scope that have members, in no particular order. Reads the whole local table, never waits.
    pub fn groups(&self) -> Vec<Name> {
        let mut groups = Vec::new();
        self.shared
            .table
            .each_group(&self.shared.scope, |group, _| groups.push(Name::of(group)));
        groups
    }

    /// Sends a message to each member that is in the group as this node sees it; to how many. Never waits: a member behind
    /// a link that is full does not get it, and is not counted. Nobody says whether it arrived: [`Groups::call`] does.
    pub fn publish(&self, group: impl Into<Name>, message: impl Into<Term>) -> usize {
        let message = message.into();
        let mut sent = 0;
        for member in self.members(group) {
            match self.shared.node.send(&member.pid, message.clone()) {
                Ok(()) => sent += 1,
                Err(error) => {
                    debug!(member = ?member.pid, "a message to a group was not sent: {error}");
                }
            }
        }
        sent
    }

    /// Asks each member that is in the group as this node sees it, as `GenServer.call`, and answers what each replied or why it did
    /// not: a message with acknowledgements. At most 1,000 members are asked at a time; nothing is sent twice. Waits until
    /// all have answered or failed, at most for so long; with [`CallError::Timeout`] the request may have been handled, or be yet.
    ///
    /// # Errors
    /// The request has no form as a term; nobody was asked.
    ///
    /// # Cancel safety
    /// If the future is dropped, those that were asked handle the request, and the others are not asked.
    pub async fn call<R, T>(
        &self,
        group: impl Into<Name>,
        request: &R,
        timeout: Duration,
    ) -> Result<Vec<(Pid, Result<T, CallError>)>, SendError>
    where
        R: Serialize + ?Sized,
        T: FromTerm + Send + 'static,
    {
        let deadline = Instant::now() + timeout;
        let request =
            typed::to_term(request).map_err(|error| SendError::Encode(error.to_string()))?;
        let members = self.members(group);
        let mut answers = Vec::with_capacity(members.len());
        let mut calls = JoinSet::new();
        for member in members {
            if calls.len() >= MAX_ASKED {
                answers.extend(calls.join_next().await.and_then(Result::ok));
            }
            let (node, request) = (self.shared.node.clone(), request.clone());
            calls.spawn(async move {
                let left = deadline.saturating_duration_since(Instant::now());
                let reply = node.call_term(&member.pid, request, left).await;
                let reply = reply.and_then(Node::read_reply);
                (member.pid, reply)
            });
        }
        answers.extend(calls.join_all().await);
        Ok(answers)
    }

    /// From now on tells of every change of the groups of this scope. Whoever reads after this call misses nothing.
    pub fn subscribe(&self) -> RegistryEvents {
        RegistryEvents::new(
            self.shared.subscribe(),
            self.shared.scope.clone(),
            What::Member,
        )
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups")
            .field("scope", &self.shared.scope)
            .finish_non_exhaustive()
    }
}
