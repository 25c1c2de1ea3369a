//! Supervisors: processes that start other processes, and start them again when they end, in OTP's words and by its rules.

mod driver;
mod handle;
mod machine;
mod spec;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tiebeam_core::Random;
use tiebeam_wire::{Atom, Term};

use crate::backoff::Backoff;
use crate::error::SpawnError;
use crate::gen_server::Birth;
use crate::node::Node;
use crate::process::Process;
use driver::Driver;
use machine::Settings;

pub(crate) use handle::Directory;
pub use handle::{ChildCounts, ChildError, ChildInfo, ChildStatus, SupervisorRef};
pub use spec::{ChildId, ChildKind, ChildSpec, Restart, Shutdown, Strategy};

/// A supervisor, before it is started: its children and its rules. Cheap to clone.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::{
///     Answer, ChildSpec, Config, Cookie, EpmdMode, GenServer, Node, Process, ReplyTo, Restart, Strategy, Supervisor,
/// };
///
/// struct Counter(i64);
///
/// impl GenServer for Counter {
///     type Call = i64;
///     type Cast = ();
///     type Reply = i64;
///
///     async fn handle_call(&mut self, add: i64, _: &ReplyTo, _: &Process) -> Answer<i64> {
///         self.0 = self.0.checked_add(add).expect("a count that fits");
///         Answer::Reply(self.0)
///     }
/// }
///
/// let config = Config::new("rust@127.0.0.1", Cookie::new("secret"));
/// let node = Node::start(config.listen([127, 0, 0, 1].into()).epmd(EpmdMode::None, 0)).await?;
///
/// let supervisor = Supervisor::new(Strategy::OneForOne)
///     .intensity(3, Duration::from_secs(5))
///     .child(ChildSpec::server("counter", || Counter(0)).named("counter").restart(Restart::Transient))
///     .start(&node)
///     .await?;
///
/// let timeout = Duration::from_secs(5);
/// let sum: i64 = node.call("counter", &2, timeout).await?;
/// assert_eq!(sum, 2);
/// let panics = node.call::<_, i64>("counter", &i64::MAX, timeout).await;
/// assert!(panics.is_err());
///
/// // It was started again, under its name.
/// # while node.whereis("counter").is_none() { tokio::task::yield_now().await }
/// let sum: i64 = node.call("counter", &1, timeout).await?;
/// assert_eq!(sum, 1);
/// supervisor.stop().await;
/// assert_eq!(node.whereis("counter"), None);
/// # node.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// # What it does
///
/// Its children are started in order, each when the one before is ready; if one is not, those before are ended, and so is the
/// supervisor, for the reason `{shutdown, {failed_to_start_child, Id, Reason}}`. A child that ends is started again as its
/// [`Restart`] says, and with it those that the [`Strategy`] says. More than so many restarts within a period
/// ([`Supervisor::intensity`]) are no way to go on: then the supervisor ends all its children, and itself with the reason
/// `shutdown`, and a supervisor above it may start it anew. Children are ended in the reverse order of their start.
///
/// # What others see
///
/// It is a process: others link to it and monitor it, and it ends for the reason `shutdown`, `{shutdown, _}`, `killed`, or that
/// of its parent. Its children are linked to it, so that none outlives it. A BEAM may ask it what it asks its own:
/// `Supervisor.which_children({:name, :"rust@host"})`, `count_children`, `terminate_child`, `restart_child`, `delete_child`,
/// `stop`. (`start_child` takes a Rust function, so only [`SupervisorRef::start_child`] has it.)
///
/// # What is not as in OTP
///
/// There may be a pause before a restart ([`Supervisor::backoff`]); other children are seen to meanwhile. And a child counts as
/// ended when all it held has been dropped, so that the next one finds its port or file free; for that a supervisor waits for
/// at most a second, which only a child that blocks its thread makes it do.
///
/// Source: *OTP Design Principles*, "Supervisor Behaviour".
#[derive(Clone)]
pub struct Supervisor {
    settings: Settings,
    name: Option<Atom>,
    children: Vec<ChildSpec>,
}

impl Supervisor {
    /// Without children. Three restarts within five seconds are borne, as by Elixir's, and there are no pauses.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            settings: Settings {
                strategy,
                intensity: 3,
                period: Duration::from_secs(5),
                backoff: Backoff::none(),
            },
            name: None,
            children: Vec::new(),
        }
    }

    /// So many restarts within this period are borne; one more ends the supervisor. An attempt that fails counts, too.
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.settings.intensity = restarts;
        self.settings.period = period;
        self
    }

    /// Waits before each restart. The pauses grow with every restart of a child, and begin anew once it has run for as long
    /// as the longest. They should be shorter than the period of the intensity, or that is never exceeded.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Registers it under this name on its node: `{:name, :"rust@host"}` to a BEAM.
    ///
    /// # Panics
    /// When the name has more than 255 characters.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(Atom::new(name).expect("a name has at most 255 characters"));
        self
    }

    /// With this child, started after those before it.
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Starts it, and waits until all its children are ready. It runs until it is [stopped](SupervisorRef::stop), or its
    /// node is.
    ///
    /// # Errors
    /// The name is taken; or a child was not started, and [`SpawnError::Init`] says which and why.
    ///
    /// # Cancel safety
    /// Once polled, the supervisor starts even if the future is dropped.
    pub async fn start(&self, node: &Node) -> Result<SupervisorRef, SpawnError> {
        self.start_under(node, None).await
    }

    /// As [`Supervisor::start`], as a child of this process: linked to it, and ended when it ends.
    ///
    /// # Errors
    /// As for [`Supervisor::start`].
    ///
    /// # Cancel safety
    /// As for [`Supervisor::start`].
    pub async fn start_linked(&self, parent: &Process) -> Result<SupervisorRef, SpawnError> {
        self.start_under(parent.node(), Some(parent)).await
    }

    async fn start_under(
        &self,
        node: &Node,
        parent: Option<&Process>,
    ) -> Result<SupervisorRef, SpawnError> {
        let process = node.spawn_anonymous()?;
        if let Some(name) = &self.name {
            process.register(name.as_str())?;
        }
        if let Some(parent) = parent {
            parent.link(process.pid());
        }
        let parent = parent.map(|parent| parent.pid().clone());
        let (birth, started) = Birth::new(parent, self.name.clone());
        let pid = node.run(process, |process| self.clone().live(process, birth));
        started.wait().await?;
        Ok(SupervisorRef::new(node.clone(), pid, self.name.clone()))
    }

    fn registered_name(&self) -> Option<Atom> {
        self.name.clone()
    }

    /// The supervisor's process, from its first child to its end: the reason.
    fn live(
        self,
        process: Process,
        birth: Birth,
    ) -> Pin<Box<dyn Future<Output = Result<(), Term>> + Send>> {
        let random = Random::from_seed(rand::random());
        Box::pin(Driver::run(
            self.settings,
            self.children,
            process,
            birth,
            random,
        ))
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("strategy", &self.settings.strategy)
            .field("name", &self.name)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
