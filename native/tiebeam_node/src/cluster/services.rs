//! What a Rust program does with the services of a cluster.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use tiebeam_core::{Member, Status};
use tiebeam_wire::{Map, Pid, Term};
use tokio::sync::watch;

use crate::cluster::groups::Groups;
use crate::cluster::name::Name;
use crate::cluster::registry::{Registration, RegistryError, Shared, status, tags};
use crate::cluster::registry_event::{MAX_REGISTRY_EVENTS, RegistryEvents};
use crate::typed;

/// The scope of services where nothing else is said.
const SERVICES_SCOPE: &str = "services";

/// Who offers what in the cluster: processes of BEAM and Rust nodes with a name, tags and metadata. Clones are the same.
///
/// Many processes may offer one service, and a process may offer many. An entry is a member of a group of the scope
/// `"services"`, so what [`Groups`] says holds: reads never wait, and an entry goes when its process ends or its node is
/// known to be gone. Those of BEAM nodes are there as well, and these see the services of Rust nodes: `Tiebeam.Services`.
///
/// ```no_run
/// # async fn services(cluster: tiebeam_node::ClusterHandle, api: tiebeam_node::Process) -> Result<(), Box<dyn std::error::Error>> {
/// use tiebeam_node::{ServiceChange, ServiceFilter, ServiceOptions};
///
/// let services = cluster.services();
/// let options = ServiceOptions::new().tags(["http", "json"]).meta(&("port", 8080))?;
/// services.register("api", api.pid(), options).await?;
/// for service in services.list(&ServiceFilter::alive().tag("http")) {
///     println!("{} on {}", service.name, service.pid.node);
/// }
/// let mut changes = services.watch(ServiceFilter::alive().tag("json"));
/// while let Some(change) = changes.recv().await {
///     if let ServiceChange::Down(service) = change {
///         println!("{} is gone", service.name);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// A supervised child is registered by [`ChildSpec::service`](crate::ChildSpec::service).
#[derive(Clone)]
pub struct Services {
    shared: Shared,
}

impl Services {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }.scope(SERVICES_SCOPE)
    }

    /// The services of another scope; see [`Registry::scope`](crate::Registry::scope).
    pub fn scope(&self, scope: &str) -> Self {
        Self {
            shared: Shared {
                scope: scope.into(),
                ..self.shared.clone()
            },
        }
    }

    fn groups(&self) -> Groups {
        Groups::new(self.shared.clone())
    }

    /// Registers a process of this node as a service, until it ends; one that is registered gets the new tags and metadata.
    ///
    /// # Cancel safety
    /// As for [`Groups::join`].
    pub async fn register(
        &self,
        name: impl Into<Name>,
        pid: &Pid,
        options: ServiceOptions,
    ) -> Result<(), RegistryError> {
        for tag in &options.tags {
            tag.check().map_err(RegistryError::Name)?;
        }
        let tags = options.tags.iter().map(Name::to_term);
        let mut metadata = Map::with_capacity(2);
        metadata.insert(Term::atom("tags"), Term::list(tags.collect::<Vec<_>>()));
        metadata.insert(Term::atom("meta"), options.meta);
        self.groups()
            .join_term(name.into(), pid, &metadata.into())
            .await
    }

    /// Takes a process of this node out of a service.
    ///
    /// # Cancel safety
    /// As for [`Groups::join`].
    pub async fn unregister(&self, name: impl Into<Name>, pid: &Pid) -> Result<(), RegistryError> {
        self.groups().leave(name, pid).await
    }

    /// The services that pass a filter, on all nodes, in no particular order. Reads a local table, never waits: of one
    /// service if the filter names it, of all otherwise.
    pub fn list(&self, filter: &ServiceFilter) -> Vec<Service> {
        self.read(&self.shared.members.borrow().clone(), filter)
    }

    fn read(&self, members: &[Member], filter: &ServiceFilter) -> Vec<Service> {
        let rows = match &filter.name {
            Some(name) => {
                let members = self.groups().members(name).into_iter();
                members.map(|member| (name.clone(), member)).collect()
            }
            None => self.groups().entries(),
        };
        rows.into_iter()
            .filter_map(|(name, entry)| Service::of(name, entry, members))
            .filter(|service| filter.passes(service))
            .collect()
    }

    /// Tells of every change among the services that pass a filter: first [`ServiceChange::Up`] for each that is there.
    pub fn watch(&self, filter: ServiceFilter) -> ServiceChanges {
        let mut members = self.shared.members.clone();
        members.mark_changed();
        ServiceChanges {
            // Before the first look: what changes after it is not missed.
            rows: self.groups().subscribe(),
            members,
            statuses: Vec::new(),
            services: self.clone(),
            filter,
            known: HashMap::new(),
            changes: VecDeque::new(),
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("scope", &self.shared.scope)
            .finish_non_exhaustive()
    }
}

/// What a service says about itself. Default: no tags, and `nil`. Together at most
/// [`MAX_META_BYTES`](crate::MAX_META_BYTES) when encoded.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    tags: Vec<Name>,
    meta: Term,
}

impl ServiceOptions {
    /// No tags, and no metadata.
    pub fn new() -> Self {
        Self {
            tags: Vec::new(),
            meta: Term::atom("nil"),
        }
    }

    /// With one more tag: something that it can do.
    pub fn tag(mut self, tag: impl Into<Name>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// With more tags.
    pub fn tags<T: Into<Name>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// With this metadata, any value.
    ///
    /// # Errors
    /// The value has no form as a term.
    pub fn meta<T: Serialize + ?Sized>(mut self, meta: &T) -> Result<Self, RegistryError> {
        self.meta = typed::to_term(meta).map_err(RegistryError::Meta)?;
        Ok(self)
    }
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self::new()
    }
}

type Predicate = Arc<dyn Fn(&Service) -> bool + Send + Sync>;

/// Which services are wanted: all that is said must hold.
#[derive(Clone)]
pub struct ServiceFilter {
    name: Option<Name>,
    tags: Vec<Name>,
    /// `None` is any.
    status: Option<Status>,
    predicate: Option<Predicate>,
}

impl ServiceFilter {
    fn of(status: Option<Status>) -> Self {
        Self {
            name: None,
            tags: Vec::new(),
            status,
            predicate: None,
        }
    }

    /// Those whose node is alive: not a suspect, which did not answer lately and may still.
    pub fn alive() -> Self {
        Self::of(Some(Status::Alive))
    }

    /// Those whose node is a suspect.
    pub fn suspect() -> Self {
        Self::of(Some(Status::Suspect))
    }

    /// Both, told apart by [`Service::status`]. Services of nodes that are dead or have left are never there.
    pub fn any() -> Self {
        Self::of(None)
    }

    /// Only services of this name.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only those with this tag, and the tags that were asked for before.
    pub fn tag(mut self, tag: impl Into<Name>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only those for which this holds, and nothing else: it takes the place of one that was given before.
    pub fn matching(
        mut self,
        predicate: impl Fn(&Service) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    fn passes(&self, service: &Service) -> bool {
        self.name.as_ref().is_none_or(|name| *name == service.name)
            && self.status.is_none_or(|status| status == service.status)
            && self.tags.iter().all(|tag| service.tags.contains(tag))
            && self.predicate.as_ref().is_none_or(|holds| holds(service))
    }
}

impl fmt::Debug for ServiceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFilter")
            .field("name", &self.name)
            .field("tags", &self.tags)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A process that offers something, as this node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The name of the service.
    pub name: Name,
    /// The process.
    pub pid: Pid,
    /// Whether its node is [`Status::Alive`] or [`Status::Suspect`].
    pub status: Status,
    /// What it can do, as it said when it was registered.
    pub tags: Vec<Name>,
    meta: Term,
}

impl Service {
    /// `None` if its node is gone, or leads to nobody.
    fn of(name: Name, entry: Registration, members: &[Member]) -> Option<Self> {
        // A node that is no member is as alive as the one that watches its process.
        let status = status(members, entry.pid.node.as_str())
            .or_else(|| status(members, entry.node.as_str()))?;
        if !matches!(status, Status::Alive | Status::Suspect) {
            return None;
        }
        // Metadata that was not made for services says nothing.
        let metadata = entry.meta_term().unwrap_or_else(|_| Term::atom("nil"));
        let meta = metadata.as_map().and_then(|map| map.get_atom("meta"));
        Some(Self {
            name,
            pid: entry.pid,
            status,
            tags: tags(&metadata),
            meta: meta.cloned().unwrap_or_else(|| Term::atom("nil")),
        })
    }

    /// Its metadata as a Rust value.
    ///
    /// # Errors
    /// It is of another type.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T, typed::Error> {
        typed::from_term(&self.meta)
    }

    /// Its metadata as a term.
    pub fn meta_term(&self) -> &Term {
        &self.meta
    }
}

/// What changed among the services that pass a filter.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServiceChange {
    /// It passes now.
    Up(Service),
    /// It has other tags, metadata or status, and still passes.
    Changed(Service),
    /// It does not pass any more, and is told as it was last: its process or node is gone, it was unregistered, its node is
    /// suspected and the filter wants those alive.
    Down(Service),
}

/// A watch of services; see [`Services::watch`].
#[derive(Debug)]
pub struct ServiceChanges {
    services: Services,
    filter: ServiceFilter,
    rows: RegistryEvents,
    members: watch::Receiver<Arc<[Member]>>,
    /// The statuses of the members as of the last look.
    statuses: Vec<Status>,
    /// What was told.
    known: HashMap<(Name, Pid), Service>,
    /// What is to be told.
    changes: VecDeque<ServiceChange>,
}

impl ServiceChanges {
    /// The next change; `None` when the driver is gone. What comes and goes between two looks may not be told of; whoever has
    /// applied all changes has what [`Services::list`] showed at the last one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<ServiceChange> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Some(change);
            }
            let row = tokio::select! {
                row = self.rows.recv() => {
                    row?;
                    true
                }
                members = self.members.changed() => {
                    members.ok()?;
                    false
                }
            };
            // What happened meanwhile is seen by the same look.
            let skipped = (0..MAX_REGISTRY_EVENTS).take_while(|_| self.rows.skip());
            let row = skipped.count() > 0 || row;
            self.look(row);
        }
    }

    /// Looks into the table for what differs from what was told.
    fn look(&mut self, row: bool) {
        let members = Arc::clone(&self.members.borrow_and_update());
        let statuses: Vec<_> = members.iter().map(|member| member.status).collect();
        // Members have new round trips every second.
        let same = self.statuses == statuses;
        self.statuses = statuses;
        if same && !row {
            return;
        }
        let mut gone: HashSet<_> = self.known.keys().cloned().collect();
        for service in self.services.read(&members, &self.filter) {
            let key = (service.name.clone(), service.pid.clone());
            gone.remove(&key);
            let change = match self.known.insert(key, service.clone()) {
                Some(known) if known == service => continue,
                Some(_) => ServiceChange::Changed(service),
                None => ServiceChange::Up(service),
            };
            self.changes.push_back(change);
        }
        let gone = gone.into_iter().filter_map(|key| self.known.remove(&key));
        self.changes.extend(gone.map(ServiceChange::Down));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, tags: &[&str], status: Status) -> Service {
        Service {
            name: name.into(),
            pid: Pid {
                node: tiebeam_wire::Atom::of("a@h"),
                id: 1,
                serial: 0,
                creation: 1,
            },
            status,
            tags: tags.iter().map(|tag| Name::from(*tag)).collect(),
            meta: Term::from(8080),
        }
    }

    #[test]
    fn all_that_a_filter_says_must_hold() {
        let api = service("api", &["http", "json"], Status::Alive);
        let slow = service("api", &["http"], Status::Suspect);
        let filters = [
            (ServiceFilter::alive(), true, false),
            (ServiceFilter::suspect(), false, true),
            (ServiceFilter::any(), true, true),
            (ServiceFilter::any().name("api"), true, true),
            (ServiceFilter::any().name("web"), false, false),
            (ServiceFilter::any().tag("http").tag("json"), true, false),
            (
                ServiceFilter::any().tag(tiebeam_wire::Atom::of("http")),
                false,
                false,
            ),
            (
                ServiceFilter::any().matching(|service| service.meta::<u16>().is_ok()),
                true,
                true,
            ),
            (
                ServiceFilter::any().matching(|service| service.tags.len() > 1),
                true,
                false,
            ),
        ];
        for (filter, one, other) in filters {
            assert_eq!(filter.passes(&api), one, "{filter:?}");
            assert_eq!(filter.passes(&slow), other, "{filter:?}");
        }
    }

    /// Any node may join a group with any metadata.
    #[test]
    fn metadata_that_is_none_of_a_service_says_nothing() {
        let texts = [
            "nil",
            "7",
            "#{tags => 7}",
            "#{tags => [<<\"a\">> | b]}",
            "#{meta => nil}",
        ];
        for text in texts {
            assert_eq!(tags(&Term::parse(text).unwrap()), [], "{text}");
        }
        let mixed = Term::parse("#{tags => [<<\"a\">>, 1.5, b]}").unwrap();
        assert_eq!(
            tags(&mixed),
            ["a".into(), Name::from(tiebeam_wire::Atom::of("b"))]
        );
    }
}
