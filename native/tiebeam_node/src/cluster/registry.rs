//! What a Rust program does with the names of a cluster.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tiebeam_core::registry::name::NameError;
use tiebeam_core::registry::{Answer, Command, Keep, OnConflict, Refusal, What};
use tiebeam_core::{Member, NodeName, Status};
use tiebeam_wire::{DecodeError, Pid, Term, decode};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::cluster::handle::{Asked, Request};
use crate::cluster::leadership;
use crate::cluster::name::Name;
use crate::cluster::registry_event::{RegistryEvents, Told};
use crate::cluster::resolvers::{Conflict, Resolvers};
use crate::cluster::strong::StrongNames;
use crate::cluster::table::{Atoms, Row, Table, pid_bytes, pid_of, term_bytes};
use crate::node::Node;
use crate::typed;

/// The scope of names and groups where nothing else is said.
pub(super) const DEFAULT_SCOPE: &str = "default";

/// The scope that shows the names of OTP's `global`.
pub(super) const GLOBAL_SCOPE: &str = "global";

/// How often a name of `global` is looked for by who waits for it: `global` tells nobody.
const GLOBAL_POLL: Duration = Duration::from_millis(25);

/// The pauses between attempts of [`Registry::register_with_retry`] while the name's row does not change: the process may
/// have ended unheard of.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What names and groups share: the table, the way to the driver, and the scope.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) table: Arc<Table>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: broadcast::WeakSender<Told>,
    pub(super) resolvers: Resolvers,
    pub(super) scope: Arc<str>,
    /// The members of the cluster.
    pub(super) members: watch::Receiver<Arc<[Member]>>,
    /// Whether processes on nodes that are suspects are left out.
    pub(super) hide_suspects: bool,
    /// The way to strong names.
    pub(super) leadership: leadership::Shared,
}

impl Shared {
    pub(super) async fn ask(&self, command: Command) -> Result<(), RegistryError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command: tiebeam_core::Command::Registry(command),
            asked: Asked::Handle(answer),
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| RegistryError::Ended)?;
        done(answered.await.map_err(|_| RegistryError::Ended)?)
    }

    /// A process that this node may speak for.
    pub(super) fn own(&self, pid: &Pid) -> Result<Arc<[u8]>, RegistryError> {
        if pid.node != *self.node.name() {
            return Err(RegistryError::Elsewhere { pid: pid.clone() });
        }
        if !self.node.is_process_alive(pid) {
            return Err(RegistryError::NoProcess);
        }
        Ok(pid_bytes(pid))
    }

    /// Names of `global` are registered with `global`.
    pub(super) fn writable(&self) -> Result<(), RegistryError> {
        if &*self.scope == GLOBAL_SCOPE {
            return Err(RegistryError::Global);
        }
        Ok(())
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Told> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            // The driver is gone: a subscription that ends at once.
            None => broadcast::channel(1).1,
        }
    }

    /// Whether the table is behind: a process of this node has ended, and the driver has not heard of it yet.
    pub(super) fn has_ended(&self, pid: &Pid) -> bool {
        pid.node == *self.node.name() && !self.node.is_process_alive(pid)
    }

    /// Whether a look-up may answer with this process.
    pub(super) fn shows(&self, pid: &Pid) -> bool {
        let hidden = self.hide_suspects && self.is_suspect(pid);
        !hidden && !self.has_ended(pid)
    }

    fn is_suspect(&self, pid: &Pid) -> bool {
        status(&self.members.borrow(), pid.node.as_str()) == Some(Status::Suspect)
    }
}

/// The status of a node, if it is a member.
pub(super) fn status(members: &[Member], node: &str) -> Option<Status> {
    // They are in the order of their names.
    let found = members.binary_search_by(|member| member.node.as_str().cmp(node));
    found.ok().map(|index| members[index].status)
}

/// What an answer of the core means to who asked.
pub(super) fn done(answer: tiebeam_core::Answer) -> Result<(), RegistryError> {
    match answer {
        tiebeam_core::Answer::Registry(answer) => match answer {
            Answer::Done => Ok(()),
            Answer::Taken { pid, node } => Err(match pid_of(&pid, &mut Atoms::default()) {
                Some(pid) => RegistryError::Taken { pid, node },
                None => RegistryError::Unknown,
            }),
            Answer::Unknown => Err(RegistryError::Unknown),
            Answer::Exited => Err(RegistryError::NoProcess),
            Answer::Refused(refusal) => Err(RegistryError::Limit(refusal)),
        },
        tiebeam_core::Answer::Left => Err(RegistryError::Left),
        // Answers to commands of other kinds.
        tiebeam_core::Answer::Done
        | tiebeam_core::Answer::Leadership(_)
        | tiebeam_core::Answer::NoGroup
        | tiebeam_core::Answer::TooLong { .. }
        | tiebeam_core::Answer::Busy { .. } => Err(RegistryError::Ended),
    }
}

/// The names of a cluster, in one scope: one name, one process, found from every node. Clones are the same.
///
/// ```no_run
/// # async fn names(node: tiebeam_node::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::{ClusterConfig, RegisterOptions};
///
/// let cluster = node.cluster(ClusterConfig::fast().join(["app@127.0.0.1"])).await?;
/// let names = cluster.registry();
/// let cache = node.spawn_anonymous()?;
/// names.register("cache", cache.pid()).await?; // Tiebeam.Registry.whereis(cluster, "cache") over there
///
/// let options = RegisterOptions::new().meta(&("zone", 1))?;
/// names.register_with(("shard", 7), cache.pid(), options).await?;
/// assert_eq!(names.whereis("cache").as_ref(), Some(cache.pid()));
/// let found = names.await_name("prices", Duration::from_secs(5)).await?; // registered elsewhere
/// # Ok(())
/// # }
/// ```
///
/// # Consistency
///
/// Look-ups read a table of this node and never wait for the driver or another node. What a caller has registered is in
/// that table before [`Registry::register`] returns; on other nodes it is a moment later. While the cluster is split each
/// side may give one name to a process of its own; when the two hear of each other, the older registration stays
/// everywhere, unless [`Registry::resolve_with`] decides, and [`OnConflict`] says what becomes of the other process.
///
/// A name goes when its process ends, when it is unregistered, and, for the others, when its node is known to be gone.
///
/// # The scope `global`
///
/// `cluster.registry().scope("global")` shows the names of OTP's `global`, those of plain BEAM nodes too: [`Node::global`]
/// registers them, and here they are read alone.
#[derive(Clone)]
pub struct Registry {
    shared: Shared,
}

impl Registry {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The names of another scope, 1 to 255 bytes: equal names in two scopes are not the same. Default `"default"`, which
    /// in Elixir is the atom of that text.
    pub fn scope(&self, scope: &str) -> Self {
        Self {
            shared: Shared {
                scope: scope.into(),
                ..self.shared.clone()
            },
        }
    }

    /// The same names, but look-ups by name find no process whose node is a suspect: one that did not answer lately and may still.
    pub fn hide_suspects(&self) -> Self {
        Self {
            shared: Shared {
                hide_suspects: true,
                ..self.shared.clone()
            },
        }
    }

    /// Names on which the cluster agrees before they are given, whatever the scope; needs
    /// [`ClusterConfig::voters`](crate::ClusterConfig::voters).
    pub fn strong(&self) -> StrongNames {
        StrongNames::new(self.shared.leadership.clone())
    }

    // ---- changes

    /// Gives a name to a process of this node, until that ends. If it has the name already, nothing changes.
    ///
    /// A name that seems taken is not refused before the node of the process that has it was asked, for at most a
    /// second: the process may have ended a moment ago.
    ///
    /// # Cancel safety
    /// Once polled, the process is registered even if the future is dropped, unless the request still waits for its
    /// turn.
    pub async fn register(&self, name: impl Into<Name>, pid: &Pid) -> Result<(), RegistryError> {
        self.register_with(name, pid, RegisterOptions::default())
            .await
    }

    /// As [`Registry::register`], with metadata, and with what happens in a conflict. A process that has the name already
    /// gets the new ones.
    ///
    /// # Cancel safety
    /// As for [`Registry::register`].
    pub async fn register_with(
        &self,
        name: impl Into<Name>,
        pid: &Pid,
        options: RegisterOptions,
    ) -> Result<(), RegistryError> {
        let name = self.checked(name)?;
        let command = Command::Register {
            scope: self.shared.scope.as_ref().to_owned(),
            name: name.bytes().clone(),
            pid: self.shared.own(pid)?,
            meta: options.meta,
            on_conflict: options.on_conflict,
            resolve: self.shared.resolvers.has(&self.shared.scope),
            claimed: false,
        };
        self.shared.ask(command).await
    }

    /// As [`Registry::register_with`]; while the name is another process's, tries again as soon as that may have changed,
    /// for at most so long. Then the last answer is the result.
    ///
    /// # Cancel safety
    /// As for [`Registry::register`].
    pub async fn register_with_retry(
        &self,
        name: impl Into<Name>,
        pid: &Pid,
        options: RegisterOptions,
        timeout: Duration,
    ) -> Result<(), RegistryError> {
        let name = self.checked(name)?;
        let deadline = tokio::time::Instant::now() + timeout;
        let mut pause = RETRY_FIRST;
        loop {
            // Before the attempt, so that no change after its answer is missed.
            let watch = self.shared.table.watch(&self.shared.scope, &name);
            let refused = match self.register_with(&name, pid, options.clone()).await {
                Err(RegistryError::Taken { pid, node }) => (pid, node),
                answer => return answer,
            };
            let given_way = watch.until(|| {
                let holder = self.shared.table.pid(&self.shared.scope, &name);
                (holder.as_ref() != Some(&refused.0)).then_some(())
            });
            let next = deadline.min(tokio::time::Instant::now() + pause);
            let changed = tokio::time::timeout_at(next, given_way).await.is_ok();
            if !changed && next == deadline {
                let (pid, node) = refused;
                return Err(RegistryError::Taken { pid, node });
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Takes a name of this node away from its process, or a process out of the line that waits for it
    /// ([`OnConflict::Standby`]).
    ///
    /// # Cancel safety
    /// As for [`Registry::register`].
    pub async fn unregister(&self, name: impl Into<Name>) -> Result<(), RegistryError> {
        let name = self.checked(name)?;
        let command = Command::Unregister {
            scope: self.shared.scope.as_ref().to_owned(),
            name: name.bytes().clone(),
            pid: None,
        };
        self.shared.ask(command).await
    }

    /// Replaces the metadata of a name of this node: any value, at most
    /// [`MAX_META_BYTES`](crate::MAX_META_BYTES) when encoded.
    ///
    /// # Cancel safety
    /// As for [`Registry::register`].
    pub async fn update_meta<T: serde::Serialize + ?Sized>(
        &self,
        name: impl Into<Name>,
        meta: &T,
    ) -> Result<(), RegistryError> {
        let name = self.checked(name)?;
        let command = Command::Update {
            scope: self.shared.scope.as_ref().to_owned(),
            name: name.bytes().clone(),
            meta: meta_bytes(meta)?,
        };
        self.shared.ask(command).await
    }

    /// From now on decides about the names of this scope that were registered twice while the cluster was split. Asked on
    /// the node of the older registration, for names registered there from now on; all nodes should decide the same. A
    /// verdict that takes longer than [`Limits::resolve_timeout`](crate::RegistryLimits::resolve_timeout), and one that panics, keeps
    /// the older registration.
    pub fn resolve_with<F, Fut>(&self, resolve: F)
    where
        F: Fn(Conflict) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Keep> + Send + 'static,
    {
        self.shared.resolvers.set(&self.shared.scope, resolve);
    }

    // ---- look-ups

    /// The process that has a name. Reads a local table, never waits.
    pub fn whereis(&self, name: impl Into<Name>) -> Option<Pid> {
        let name = name.into();
        if &*self.shared.scope == GLOBAL_SCOPE {
            let pid = self.shared.node.global().whereis(name.to_term())?;
            return self.shared.shows(&pid).then_some(pid);
        }
        let pid = self.shared.table.pid(&self.shared.scope, &name)?;
        self.shared.shows(&pid).then_some(pid)
    }

    /// The process that has a name, its node and metadata. Reads a local table, never waits.
    pub fn lookup(&self, name: impl Into<Name>) -> Option<Registration> {
        let name = name.into();
        if &*self.shared.scope == GLOBAL_SCOPE {
            let pid = self.shared.node.global().whereis(name.to_term())?;
            let found = Registration::of_global(pid)?;
            return self.shared.shows(&found.pid).then_some(found);
        }
        let row = self.shared.table.name(&self.shared.scope, &name)?;
        self.shared.shows(&row.pid).then(|| Registration::of(row))
    }

    /// Waits until some process has this name, for at most so long. What is there already is found at once. A name of the
    /// scope `"global"` is looked for every 25 ms: `:global` tells nobody of new ones.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn await_name(
        &self,
        name: impl Into<Name>,
        timeout: Duration,
    ) -> Result<Registration, RegistryError> {
        let name = self.checked_name(name)?;
        let found = async {
            if &*self.shared.scope == GLOBAL_SCOPE {
                loop {
                    if let Some(found) = self.lookup(&name) {
                        return Ok(found);
                    }
                    tokio::time::sleep(GLOBAL_POLL).await;
                }
            }
            let watch = self.shared.table.watch(&self.shared.scope, &name);
            let found = watch.until(|| match self.lookup(&name) {
                Some(found) => Some(Ok(found)),
                // The table was emptied, and nobody fills it any more.
                None => {
                    let ended = self.shared.requests.is_closed();
                    ended.then_some(Err(RegistryError::Ended))
                }
            });
            found.await
        };
        match tokio::time::timeout(timeout, found).await {
            Ok(found) => found,
            Err(_) => Err(RegistryError::Timeout(timeout)),
        }
    }

    /// All names of the scope, in no particular order. Reads the whole local table, never waits.
    pub fn names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        if &*self.shared.scope == GLOBAL_SCOPE {
            let all = self.shared.node.global().registered_names();
            // Some names of `global` are none here: maps and pids.
            return all
                .iter()
                .filter_map(|name| Name::from_term(name).ok())
                .collect();
        }
        self.shared
            .table
            .each_name(&self.shared.scope, |name, _| names.push(Name::of(name)));
        names
    }

    /// All names of the scope with what is known of them, in no particular order: to be filtered as any iterator. Copies the
    /// whole local table when it is called, never waits.
    pub fn entries(&self) -> impl Iterator<Item = (Name, Registration)> + use<> {
        let mut entries = Vec::new();
        if &*self.shared.scope == GLOBAL_SCOPE {
            let found = |name| self.lookup(&name).map(|found| (name, found));
            entries = self.names().into_iter().filter_map(found).collect();
        } else {
            // The names are read outside of the table's locks: who filters may look something up.
            self.shared
                .table
                .each_name(&self.shared.scope, |name, row| {
                    entries.push((Name::of(name), Registration::of(row.clone())));
                });
            entries.retain(|(_, found)| self.shared.shows(&found.pid));
        }
        entries.into_iter()
    }

    /// The names of a process; it has as many as it likes. Reads the whole local table, never waits.
    pub fn names_of(&self, pid: &Pid) -> Vec<Name> {
        let of_pid = self.entries().filter(|(_, found)| found.pid == *pid);
        of_pid.map(|(name, _)| name).collect()
    }

    /// The names with a tag: those whose metadata is a map that has it in the list of its key `tags`, see
    /// [`Registration::tags`]. Reads the whole local table, never waits.
    pub fn names_with_tag(&self, tag: impl Into<Name>) -> Vec<Name> {
        let tag = tag.into();
        let tagged = self
            .entries()
            .filter(|(_, found)| found.tags().contains(&tag));
        tagged.map(|(name, _)| name).collect()
    }

    /// The names of the scope that this node answers for. Reads the whole local table, never waits.
    pub fn local_names(&self) -> Vec<Name> {
        let own = self.shared.node.name().as_str();
        let mut names = Vec::new();
        self.shared
            .table
            .each_name(&self.shared.scope, |name, row| {
                if row.node.as_str() == own {
                    names.push(Name::of(name));
                }
            });
        names
    }

    /// How many names the scope has. Reads a local table, never waits.
    pub fn count(&self) -> usize {
        if &*self.shared.scope == GLOBAL_SCOPE {
            return self.shared.node.global().registered_names().len();
        }
        self.shared.table.count(&self.shared.scope)
    }

    /// From now on tells of every change of the names of this scope. Whoever looks up after this call misses nothing.
    /// Nothing is told of the scope `global`.
    pub fn subscribe(&self) -> RegistryEvents {
        RegistryEvents::new(
            self.shared.subscribe(),
            self.shared.scope.clone(),
            What::Name,
        )
    }

    /// The node that it is read on.
    pub(crate) fn node(&self) -> &Node {
        &self.shared.node
    }

    fn checked_name(&self, name: impl Into<Name>) -> Result<Name, RegistryError> {
        let name = name.into();
        name.check().map_err(RegistryError::Name)?;
        Ok(name)
    }

    fn checked(&self, name: impl Into<Name>) -> Result<Name, RegistryError> {
        self.shared.writable()?;
        self.checked_name(name)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("scope", &self.shared.scope)
            .finish_non_exhaustive()
    }
}

/// How a process is registered. Default: no metadata, and [`OnConflict::Notify`].
#[derive(Clone, Debug)]
pub struct RegisterOptions {
    meta: Arc<[u8]>,
    on_conflict: OnConflict,
}

impl RegisterOptions {
    /// No metadata (`nil`), and [`OnConflict::Notify`].
    pub fn new() -> Self {
        Self {
            meta: no_meta(),
            on_conflict: OnConflict::default(),
        }
    }

    /// With this metadata, which all nodes hold: any value, at most [`MAX_META_BYTES`](crate::MAX_META_BYTES) when
    /// encoded.
    ///
    /// # Errors
    /// The value has no form as a term.
    pub fn meta<T: serde::Serialize + ?Sized>(mut self, meta: &T) -> Result<Self, RegistryError> {
        self.meta = meta_bytes(meta)?;
        Ok(self)
    }

    /// With this term as metadata.
    ///
    /// # Panics
    /// When it holds a float that is not finite.
    pub fn meta_term(mut self, meta: &Term) -> Self {
        self.meta = term_bytes(meta);
        self
    }

    /// What becomes of the process if it loses the name to an older registration, found after a split:
    ///
    /// - `Exit`: it gets the exit signal `{name_conflict, Name, Kept}`, where `Kept` is the pid that has the name, or `nil`.
    /// - `Notify`: it gets the message `{tiebeam, Cluster, {lost, Scope, Name, Kept}}`.
    /// - `Standby`: the same, and it has the name again as soon as it is free: `{tiebeam, Cluster, {promoted, Scope, Name}}`.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// `nil`.
pub(super) fn no_meta() -> Arc<[u8]> {
    term_bytes(&Term::atom("nil"))
}

pub(super) fn meta_bytes<T: serde::Serialize + ?Sized>(
    meta: &T,
) -> Result<Arc<[u8]>, RegistryError> {
    match tiebeam_wire::value::to_vec(meta) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(RegistryError::Meta(error)),
    }
}

/// Whose a name is, or one member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The process.
    pub pid: Pid,
    /// The node that answers for it: the one where it was registered. A plain BEAM node registers its processes at a
    /// member.
    pub node: NodeName,
    meta: Arc<[u8]>,
}

impl Registration {
    pub(super) fn of(row: Row) -> Self {
        Self {
            pid: row.pid,
            node: row.node,
            meta: row.meta,
        }
    }

    /// `None` for a pid of no node: whoever registered it made it up.
    fn of_global(pid: Pid) -> Option<Self> {
        Some(Self {
            node: NodeName::parse(pid.node.as_str()).ok()?,
            pid,
            meta: no_meta(),
        })
    }

    /// Its metadata as a Rust value.
    ///
    /// # Errors
    /// It is of another type, or another node sent bytes that are no term.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T, typed::Error> {
        tiebeam_wire::value::from_bytes(&self.meta)
    }

    /// Its tags: the names in the list `tags` of metadata that is a map, as of a `struct` with the field `tags`. Metadata of another form has none.
    pub fn tags(&self) -> Vec<Name> {
        self.meta_term().map(|meta| tags(&meta)).unwrap_or_default()
    }

    /// Its metadata as a term.
    ///
    /// # Errors
    /// Another node sent bytes that are no term.
    pub fn meta_term(&self) -> Result<Term, DecodeError> {
        decode::decode(&Bytes::copy_from_slice(&self.meta))
    }
}

/// The tags in metadata.
pub(super) fn tags(meta: &Term) -> Vec<Name> {
    let tags = meta.as_map().and_then(|map| map.get_atom("tags"));
    let tags = tags.and_then(Term::as_list).unwrap_or_default();
    tags.iter()
        .filter_map(|tag| Name::from_term(tag).ok())
        .collect()
}

/// Why something about a name or a group was not done. Nothing was changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name is another process's.
    Taken {
        /// The process.
        pid: Pid,
        /// The node that answers for it.
        node: NodeName,
    },
    /// Nobody has the name, or the process is not in the group.
    Unknown,
    /// The process has ended.
    NoProcess,
    /// The process is not of this node: register it where it runs.
    Elsewhere {
        /// The process.
        pid: Pid,
    },
    /// The term is none that may be a name.
    Name(NameError),
    /// The value cannot be metadata: it has no form as a term.
    Meta(typed::Error),
    /// Something is empty, too long, or too much.
    Limit(Refusal),
    /// Names of the scope `global` are changed with [`Node::global`].
    Global,
    /// Nobody had the name in time.
    Timeout(Duration),
    /// This node has left the cluster.
    Left,
    /// The cluster's process on this node has ended, or the node has stopped.
    Ended,
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { pid, node } => {
                write!(f, "the name is taken by {pid:?}, registered on {node}")
            }
            Self::Unknown => f.write_str("nobody has the name, or the process is not in the group"),
            Self::NoProcess => f.write_str("the process has ended"),
            Self::Elsewhere { pid } => write!(
                f,
                "{pid:?} is a process of another node: register it there, or at a member that it asks"
            ),
            Self::Name(error) => error.fmt(f),
            Self::Meta(error) => write!(f, "the metadata cannot be encoded: {error}"),
            Self::Limit(refusal) => refusal.fmt(f),
            Self::Global => f.write_str(
                "names of the scope global are those of OTP's global: change them with Node::global",
            ),
            Self::Timeout(after) => write!(f, "nobody had the name within {after:?}"),
            Self::Left => {
                f.write_str("this node has left the cluster; start it again to take part")
            }
            Self::Ended => {
                f.write_str("the cluster's process on this node has ended; start the cluster again")
            }
        }
    }
}

impl std::error::Error for RegistryError {}
