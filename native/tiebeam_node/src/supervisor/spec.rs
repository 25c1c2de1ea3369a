//! What a supervisor starts, and by which rules: child specifications.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_wire::{Atom, Term};

use crate::cluster::{Name, RegisterOptions, Registry, ServiceOptions, Services};
use crate::gen_server::{self, Birth, GenServer};
use crate::process::Process;
use crate::supervisor::Supervisor;

/// How long a worker may take to end unless its specification says otherwise: OTP's default.
const WORKER_SHUTDOWN: Duration = Duration::from_secs(5);

/// Who is restarted when a child ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// That child.
    #[default]
    OneForOne,
    /// All children: the others are ended first, in the reverse order of their start.
    OneForAll,
    /// That child, and those that were started after it.
    RestForOne,
}

/// Whether a child is started again when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// If it ends for another reason than `normal`, `shutdown` or `{shutdown, _}`.
    Transient,
    /// Never; its specification goes with it.
    Temporary,
}

/// How a child is ended by its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// By the exit signal `kill`.
    Brutal,
    /// By the exit signal `shutdown`, and by `kill` if it has not ended after so long.
    Timeout(Duration),
    /// By the exit signal `shutdown`, however long it takes: for supervisors.
    Infinity,
}

/// Whether a child is a supervisor itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// It is not.
    Worker,
    /// It is.
    Supervisor,
}

/// The body of a child's process, for every start anew.
type Body = Arc<dyn Fn(Process, Birth) -> Running + Send + Sync>;

type Running = Pin<Box<dyn Future<Output = Result<(), Term>> + Send>>;

/// A child of a supervisor: how it is started, when it is restarted, how it is ended. Cheap to clone.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) id: Term,
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
    pub(super) kind: ChildKind,
    name: Option<Atom>,
    registered: Option<(Registry, Name, RegisterOptions)>,
    services: Vec<(Services, Name, ServiceOptions)>,
    body: Body,
}

impl ChildSpec {
    /// A server: `make` gives a new one for every start. It counts as started when its [`GenServer::init`] is done.
    ///
    /// The id is what the child is called among its siblings, on the BEAM an atom (for a `&str`) or any other term.
    ///
    /// # Panics
    /// When a `&str` as id has more than 255 characters.
    pub fn server<S: GenServer>(
        id: impl Into<ChildId>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        Self::new(id, move |process, birth| {
            let make = Arc::clone(&make);
            // In its own task: if it panics, that is the end of the child.
            Box::pin(async move { gen_server::live(make(), process, birth).await })
        })
    }

    /// A process that runs a future, a new one for every start, and ends with it: `Ok` is the reason `normal`. It counts
    /// as started at once.
    ///
    /// Unless it traps exits, it is ended where it waits when its supervisor wants it to end.
    ///
    /// # Panics
    /// When a `&str` as id has more than 255 characters.
    pub fn process<F>(
        id: impl Into<ChildId>,
        body: impl Fn(Process) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Term>> + Send + 'static,
    {
        let body = Arc::new(body);
        Self::new(id, move |process, birth| {
            let body = Arc::clone(&body);
            Box::pin(async move {
                birth.started();
                body(process).await
            })
        })
    }

    /// A supervisor, which begins with the same children at every start. It has no time limit to end in.
    ///
    /// # Panics
    /// When a `&str` as id has more than 255 characters.
    pub fn supervisor(id: impl Into<ChildId>, supervisor: Supervisor) -> Self {
        let name = supervisor.registered_name();
        let mut spec = Self::new(id, move |process, birth| {
            let supervisor = supervisor.clone();
            Box::pin(supervisor.live(process, birth))
        });
        spec.name = name;
        spec.kind = ChildKind::Supervisor;
        spec.shutdown = Shutdown::Infinity;
        spec
    }

    fn new(
        id: impl Into<ChildId>,
        body: impl Fn(Process, Birth) -> Running + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into().0,
            restart: Restart::default(),
            shutdown: Shutdown::Timeout(WORKER_SHUTDOWN),
            kind: ChildKind::Worker,
            name: None,
            registered: None,
            services: Vec::new(),
            body: Arc::new(body),
        }
    }

    /// Whether it is restarted. Default [`Restart::Permanent`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How it is ended. Default five seconds for a worker, [`Shutdown::Infinity`] for a supervisor.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Registers every process of the child under this name on its node, before it takes any message:
    /// `{:name, :"rust@host"}` to a BEAM. A start fails with `{already_started, Pid}` while another process has the name.
    ///
    /// # Panics
    /// When the name has more than 255 characters.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(Atom::new(name).expect("a name has at most 255 characters"));
        self
    }

    /// Registers every process of the child under this name of the cluster, before it takes any message. The name of the
    /// process before it is free by then: a process loses its names before its supervisor hears of its end. A start fails
    /// with `{already_started, Pid}` while another process has the name.
    pub fn registered(self, registry: &Registry, name: impl Into<Name>) -> Self {
        self.registered_with(registry, name, RegisterOptions::default())
    }

    /// As [`ChildSpec::registered`], with metadata, and with what happens in a conflict.
    pub fn registered_with(
        mut self,
        registry: &Registry,
        name: impl Into<Name>,
        options: RegisterOptions,
    ) -> Self {
        self.registered = Some((registry.clone(), name.into(), options));
        self
    }

    /// Registers every process of the child as a service, before it takes any message and before the supervisor goes on: that of
    /// the process before it is gone by then or in a moment. A start fails with `{not_registered, Text}` if it is refused. May be
    /// called for several services.
    pub fn service(
        mut self,
        services: &Services,
        name: impl Into<Name>,
        options: ServiceOptions,
    ) -> Self {
        self.services.push((services.clone(), name.into(), options));
        self
    }

    /// The name on its node, if it has one.
    pub(crate) fn local_name(&self) -> Option<&Atom> {
        self.name.as_ref()
    }

    /// The name in the cluster, if it has one.
    pub(crate) fn cluster_name(&self) -> Option<(&Registry, &Name)> {
        self.registered
            .as_ref()
            .map(|(registry, name, _)| (registry, name))
    }

    /// What the child's process does, from its registration to its end.
    pub(super) fn run(
        &self,
        process: Process,
        birth: Birth,
    ) -> impl Future<Output = Result<(), Term>> + Send + 'static {
        let registered = self.registered.clone();
        let services = self.services.clone();
        let body = Arc::clone(&self.body);
        async move {
            if let Some((registry, name, options)) = registered {
                let answer = registry.register_with(name, process.pid(), options).await;
                answer.map_err(gen_server::not_registered)?;
            }
            for (services, name, options) in services {
                let answer = services.register(name, process.pid(), options).await;
                answer.map_err(gen_server::not_registered)?;
            }
            body(process, birth).await
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What a child is called among its siblings: any term. A `&str` is an atom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChildId(pub Term);

/// # Panics
/// When the text has more than 255 characters.
impl From<&str> for ChildId {
    fn from(id: &str) -> Self {
        Self(
            Atom::new(id)
                .expect("an id has at most 255 characters")
                .into(),
        )
    }
}
impl From<Atom> for ChildId {
    fn from(id: Atom) -> Self {
        Self(id.into())
    }
}
impl From<Term> for ChildId {
    fn from(id: Term) -> Self {
        Self(id)
    }
}
impl From<&Term> for ChildId {
    fn from(id: &Term) -> Self {
        Self(id.clone())
    }
}
/// A text and a number: `{worker, 3}`.
///
/// # Panics
/// When the text has more than 255 characters.
impl From<(&str, u32)> for ChildId {
    fn from((text, number): (&str, u32)) -> Self {
        let Self(atom) = Self::from(text);
        Self(Term::tuple([atom, Term::from(number)]))
    }
}
