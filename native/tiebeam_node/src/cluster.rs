//! The cluster on a Rust node: the driver of `tiebeam_core`, a process with the registered name `tiebeam`.
//!
//! ```text
//!  signals, node events ──►┐                       ┌──► messages to `tiebeam` on other nodes, dials
//!  requests of handles ───►│ process ──► core ──►  ├──► members and events for handles
//!  the core's deadline ───►┘                       └──► replies
//! ```
//!
//! The driver's contract, as in `tiebeam_core`: this process alone steps the core; `now` never goes back; actions are
//! carried out in order; a send is best effort; it wakes at the deadline. It decides nothing.
//!
//! Any node, with or without Tiebeam, may ask: `GenServer.call({:tiebeam, node}, :members)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::{
    Action, Answer, CallId, Cluster, Command, Config, ConfigError, Event, Instant, Kind, Member,
    NodeName, NodeNameError, Notice, Status, Timing,
};
use tiebeam_wire::{Atom, Map, Term};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::error::SpawnError;
use crate::node::{Node, NodeEvent};
use crate::process::{Process, Signal};

/// The tag of messages between cores: `{'$tiebeam', Node, Bytes}`.
const TAG: &str = "$tiebeam";

/// Events that one step may take from the mailbox before actions are carried out. Keeps the task's turn at a few hundred
/// microseconds in a cluster of a hundred nodes.
const MAX_BATCH: usize = 64;

/// Dials under way at a time. One to a host that does not answer takes seconds; nodes beyond the limit are dialled at
/// their next greeting.
const MAX_DIALS: usize = 64;

/// Requests of handles that may wait. A handle beyond it waits for its turn.
const MAX_REQUESTS: usize = 16;

/// Events kept for a subscriber that is slow. One that falls further behind is told how many it missed.
const MAX_EVENTS: usize = 1024;

/// Settings of a cluster member.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The identity of the cluster, the same on all its nodes: 1 to 255 bytes. Default `"default"`.
    pub cluster: String,
    /// Nodes to look for until they are found, at most 64. The own name is skipped, so that all nodes can share one
    /// list. Default none.
    pub join: Vec<String>,
    /// The registered name that members send to, the same on all nodes of the cluster. A second cluster on one node
    /// needs another one. Default `"tiebeam"`.
    pub process: String,
    /// How often things happen.
    pub timing: Timing,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            join: Vec::new(),
            process: "tiebeam".to_owned(),
            timing: Timing::default(),
        }
    }
}

impl ClusterConfig {
    /// Is a member of the cluster with this identity.
    pub fn cluster(mut self, identity: impl Into<String>) -> Self {
        self.cluster = identity.into();
        self
    }

    /// Looks for these nodes.
    pub fn join(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.join = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// Sends to, and is reached by, this registered name.
    pub fn process(mut self, name: impl Into<String>) -> Self {
        self.process = name.into();
        self
    }

    /// Does things this often.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }
}

/// Why this node does not take part in a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClusterError {
    /// A name in [`ClusterConfig::join`], or of the node, is none.
    Name(NodeNameError),
    /// A setting is out of its range.
    Config(ConfigError),
    /// There is no process for it; most likely its name is taken, by a cluster that runs already.
    Process(SpawnError),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Process(error) => write!(
                f,
                "{error}; a second cluster on one node needs another name, the same on all its nodes"
            ),
        }
    }
}

impl std::error::Error for ClusterError {}

/// What changed in the cluster. Comes from [`ClusterEvents::recv`], in the order in which this node learnt of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A member is here that was not.
    Up(Member),
    /// A member is gone without a word. A restart of a node is `Down` of the old creation, then `Up` of the new one.
    Down(Member),
    /// A member, or this node itself, said that it leaves.
    Left(Member),
    /// A connected node is in another cluster. Told once per connection, on both sides.
    Refused {
        /// The node.
        node: NodeName,
        /// The identity of its cluster.
        cluster: String,
    },
    /// The subscriber was so slow that this many events were dropped; [`ClusterHandle::members`] has the present state.
    Missed(u64),
}

/// A subscription; see [`ClusterHandle::subscribe`].
#[derive(Debug)]
pub struct ClusterEvents(broadcast::Receiver<ClusterEvent>);

impl ClusterEvents {
    /// The next event; `None` when the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<ClusterEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(ClusterEvent::Missed(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// This node's part in a cluster. Clones are the same; dropping all of them changes nothing: the node stays a member
/// until [`ClusterHandle::leave`] or [`Node::stop`].
#[derive(Clone)]
pub struct ClusterHandle {
    members: watch::Receiver<Arc<[Member]>>,
    events: broadcast::WeakSender<ClusterEvent>,
    requests: mpsc::Sender<Request>,
}

/// What handles ask of the driver.
enum Request {
    Leave(oneshot::Sender<()>),
}

impl ClusterHandle {
    /// All members this node knows, itself included, in the order of their names. Never waits. Members that are dead or
    /// have left stay listed for a while.
    pub fn members(&self) -> Arc<[Member]> {
        Arc::clone(&self.members.borrow())
    }

    /// What this node knows of a member. Never waits.
    pub fn member(&self, node: &str) -> Option<Member> {
        let members = self.members();
        members
            .iter()
            .find(|member| member.node.as_str() == node)
            .cloned()
    }

    /// Waits until the members satisfy `test`, and answers them; `None` when the driver ends before.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for(&self, mut test: impl FnMut(&[Member]) -> bool) -> Option<Arc<[Member]>> {
        let mut members = self.members.clone();
        let members = members.wait_for(|members| test(members)).await.ok()?;
        Some(Arc::clone(&members))
    }

    /// From now on tells of every change. A subscriber that reads [`ClusterHandle::members`] after it subscribed misses
    /// nothing.
    pub fn subscribe(&self) -> ClusterEvents {
        let receiver = match self.events.upgrade() {
            Some(events) => events.subscribe(),
            // The driver is gone: a subscription that ends at once.
            None => broadcast::channel(1).1,
        };
        ClusterEvents(receiver)
    }

    /// Tells all members that this node leaves, and takes no further part; the connections stay. Returns when the
    /// farewells are on their way. Does nothing the second time, or when the driver is gone.
    ///
    /// Before [`Node::stop`] it makes the difference between *left* and *dead*.
    ///
    /// # Cancel safety
    /// Once polled, the node leaves even if the future is dropped, unless the request still waits for its turn.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.requests.send(Request::Leave(done)).await.is_ok() {
            // An error: the driver ended, so this node takes no part either way.
            let _ = left.await;
        }
    }
}

impl fmt::Debug for ClusterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterHandle")
            .field("members", &self.members())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Takes part in a cluster: looks for its members, and is found by them.
    ///
    /// ```no_run
    /// # async fn part(node: tiebeam_node::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use tiebeam_node::{ClusterConfig, ClusterEvent};
    ///
    /// let cluster = node.cluster(ClusterConfig::default().join(["app@127.0.0.1"])).await?;
    /// let mut events = cluster.subscribe();
    /// println!("here: {:?}", cluster.members());
    /// while let Some(event) = events.recv().await {
    ///     if let ClusterEvent::Down(member) = event {
    ///         println!("{} is gone", member.node);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Runs as a process with a registered name ([`ClusterConfig::process`]) until the node leaves or stops. If that
    /// process is killed, the handles keep the members they saw last, and the cluster can be started again.
    pub async fn cluster(&self, config: ClusterConfig) -> Result<ClusterHandle, ClusterError> {
        let name = |text: &str| NodeName::parse(text).map_err(ClusterError::Name);
        let ClusterConfig {
            cluster,
            join,
            process,
            timing,
        } = config;
        let own = name(self.name().as_str())?;
        let join = join
            .iter()
            .map(|node| name(node))
            .collect::<Result<_, _>>()?;
        let registered = Atom::new(&process)
            .map_err(|error| ClusterError::Process(SpawnError::Invalid(error.to_string())))?;
        let process = self.spawn(&process).map_err(ClusterError::Process)?;
        let core = Cluster::new(Config {
            // Pids are numbered, so a later process of this node has a greater incarnation.
            incarnation: u64::from(process.pid().serial) << 32 | u64::from(process.pid().id),
            cluster,
            join,
            seed: rand::random(),
            timing,
            ..Config::new(own, self.creation(), Kind::Rust)
        })
        .map_err(ClusterError::Config)?;

        let (members, watched) = watch::channel(Arc::from([]));
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let (requests, asked) = mpsc::channel(MAX_REQUESTS);
        let handle = ClusterHandle {
            members: watched,
            events: events.downgrade(),
            requests,
        };
        let mut driver = Driver {
            node: self.clone(),
            registered,
            core,
            origin: tokio::time::Instant::now(),
            members,
            events,
            calls: BTreeMap::new(),
            next_call: 0,
            dials: JoinSet::new(),
            dialling: BTreeSet::new(),
        };
        process.monitor_nodes();
        let connected = self.nodes().into_iter().chain(self.hidden_nodes());
        let connected = connected.filter_map(|node| {
            event_of(NodeEvent::Up {
                node,
                visible: true,
            })
        });
        driver.step(connected.chain([Event::Woke]).collect(), &process);
        self.run(process, |process| async move {
            driver.run(process, asked).await;
            Ok(())
        });
        Ok(handle)
    }
}

struct Driver {
    node: Node,
    /// The registered name that members send to.
    registered: Atom,
    core: Cluster,
    /// The origin of the core's time.
    origin: tokio::time::Instant,
    members: watch::Sender<Arc<[Member]>>,
    events: broadcast::Sender<ClusterEvent>,
    /// Requests that wait for the core's answer.
    calls: BTreeMap<CallId, oneshot::Sender<()>>,
    next_call: u64,
    dials: JoinSet<Atom>,
    /// The nodes of `dials`.
    dialling: BTreeSet<Atom>,
}

impl Driver {
    async fn run(mut self, mut process: Process, mut requests: mpsc::Receiver<Request>) {
        loop {
            let deadline = self
                .core
                .deadline()
                .map(|at| self.origin + Duration::from_millis(at.as_millis()));
            tokio::select! {
                signal = process.recv() => match signal {
                    Some(signal) => self.signals(signal, &mut process),
                    None => return,
                },
                Some(request) = requests.recv() => self.request(request, &process),
                Some(dialled) = self.dials.join_next() => self.dialled(dialled),
                () = sleep_until(deadline) => self.step(vec![Event::Woke], &process),
            }
        }
    }

    /// This signal and those that wait behind it, as one step.
    fn signals(&mut self, first: Signal, process: &mut Process) {
        let mut events = Vec::new();
        let mut next = Some(first);
        while let Some(signal) = next {
            match signal {
                Signal::Message(message) => events.extend(received(&message)),
                Signal::Node(event) => events.extend(event_of(event)),
                Signal::Call(call) => {
                    let reply = match call.request() {
                        Term::Atom(request) if *request == "members" => self.members_term(),
                        // From any node: a request of a newer release is no reason to end.
                        _ => Term::tuple([Term::atom("error"), Term::atom("unknown_request")]),
                    };
                    if let Err(error) = call.reply_term(reply) {
                        debug!("a reply was not sent: {error}");
                    }
                }
                Signal::Cast(_) | Signal::Exit { .. } | Signal::Down { .. } => {}
            }
            next = (events.len() < MAX_BATCH)
                .then(|| process.try_recv())
                .flatten();
        }
        self.step(events, process);
    }

    fn request(&mut self, request: Request, process: &Process) {
        let Request::Leave(done) = request;
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, done);
        self.step(
            vec![Event::Asked {
                call,
                command: Command::Leave,
            }],
            process,
        );
    }

    fn step(&mut self, events: Vec<Event>, process: &Process) {
        let now = Instant::from_millis(self.origin.elapsed().as_millis() as u64);
        let mut actions = Vec::new();
        for event in events {
            self.core.step(now, event, &mut actions);
        }
        // First of all, so that whoever hears of a change finds it in `members`.
        self.show(&actions);
        for action in actions {
            match action {
                Action::Send { to, bytes } => self.send(&to, bytes, process),
                Action::Answer {
                    call,
                    answer: Answer::Left,
                } => {
                    if let Some(done) = self.calls.remove(&call) {
                        // Whoever asked may have given up.
                        let _ = done.send(());
                    }
                }
                Action::Notify(notice) => self.notify(notice),
            }
        }
    }

    fn show(&self, actions: &[Action]) {
        let changed = actions.iter().any(|action| match action {
            Action::Notify(notice) => match notice {
                Notice::Up(_)
                | Notice::Down(_)
                | Notice::Left(_)
                | Notice::Refreshed(_)
                | Notice::Forgotten(_) => true,
                Notice::Refused { .. } | Notice::Ignored { .. } => false,
            },
            Action::Send { .. } | Action::Answer { .. } => false,
        });
        if changed {
            self.members
                .send_replace(self.core.view().members().cloned().collect());
        }
    }

    fn notify(&self, notice: Notice) {
        let event = match notice {
            Notice::Up(member) => ClusterEvent::Up(member),
            Notice::Down(member) => ClusterEvent::Down(member),
            Notice::Left(member) => ClusterEvent::Left(member),
            Notice::Refreshed(_) | Notice::Forgotten(_) => return,
            Notice::Refused { node, cluster } => {
                warn!(
                    %node, %cluster,
                    "a connected node is in another cluster; neither takes the other for a member. \
                     If it should be one, give both the same identity"
                );
                ClusterEvent::Refused { node, cluster }
            }
            Notice::Ignored { from, why } => {
                warn!(node = %from, "ignored a cluster message: {why}");
                return;
            }
        };
        // An error: nobody has subscribed.
        let _ = self.events.send(event);
    }

    fn send(&mut self, to: &NodeName, bytes: Vec<u8>, process: &Process) {
        let Ok(peer) = Atom::new(to.as_str()) else {
            return;
        };
        match self.node.queued_bytes(to.as_str()) {
            None => self.dial(peer),
            // A probe behind a megabyte would come late and say nothing: a busy link counts as a lost message.
            Some(queued) if queued > self.node.router().limits().send_buffer => {
                debug!(%peer, queued, "the link is busy: a cluster message is dropped");
            }
            Some(_) => {
                let own = Term::from(self.node.name().clone());
                let message =
                    Term::tuple([Term::atom(TAG), own, Term::from(bytes::Bytes::from(bytes))]);
                if let Err(error) = process.send((self.registered.clone(), peer), message) {
                    debug!(node = %to, "a cluster message was not sent: {error}");
                }
            }
        }
    }

    /// Connects in the background. The core greets again: the bytes that led here are dropped.
    fn dial(&mut self, peer: Atom) {
        if self.dialling.len() >= MAX_DIALS || !self.dialling.insert(peer.clone()) {
            return;
        }
        let node = self.node.clone();
        self.dials.spawn(async move {
            if let Err(error) = node.connect(peer.as_str()).await {
                debug!(%peer, "a member was not reached: {error}");
            }
            peer
        });
    }

    fn dialled(&mut self, dialled: Result<Atom, tokio::task::JoinError>) {
        match dialled {
            Ok(peer) => drop(self.dialling.remove(&peer)),
            // It panicked, so whom it dialled is not known: all may be dialled again, which costs one dial too many.
            Err(error) => {
                warn!("a dial failed: {error}");
                self.dialling.clear();
            }
        }
    }

    /// The members as a BEAM sees them: `[%Tiebeam.Member{}]`.
    fn members_term(&self) -> Term {
        Term::list(
            self.core
                .view()
                .members()
                .map(member_term)
                .collect::<Vec<_>>(),
        )
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What `{'$tiebeam', Node, Bytes}` is to the core; anything else is none of its business.
fn received(message: &Term) -> Option<Event> {
    match message.as_tuple()? {
        [Term::Atom(tag), Term::Atom(node), Term::Binary(bytes)] if *tag == TAG => {
            let from = NodeName::parse(node.as_str()).ok()?;
            Some(Event::Received {
                from,
                bytes: bytes.as_slice().to_vec(),
            })
        }
        _ => None,
    }
}

/// `None` for a node whose name the core cannot take: no node of a cluster has one.
fn event_of(event: NodeEvent) -> Option<Event> {
    match event {
        NodeEvent::Up { node, .. } => Some(Event::Connected {
            to: NodeName::parse(node.as_str()).ok()?,
        }),
        NodeEvent::Down { node, .. } => Some(Event::Disconnected {
            from: NodeName::parse(node.as_str()).ok()?,
        }),
    }
}

fn member_term(member: &Member) -> Term {
    let kind = match member.kind {
        Kind::Beam => "beam",
        Kind::Rust => "rust",
    };
    let status = match member.status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Dead => "dead",
        Status::Left => "left",
    };
    // A name of the core is at most as long as an atom.
    let node = Atom::new(member.node.as_str()).map_or_else(|_| Term::atom("undefined"), Term::from);
    let pairs = [
        ("__struct__", Term::atom("Elixir.Tiebeam.Member")),
        ("node", node),
        ("kind", Term::atom(kind)),
        ("status", Term::atom(status)),
        ("creation", Term::from(member.creation)),
        ("incarnation", Term::from(member.incarnation)),
    ];
    Term::from(
        pairs
            .into_iter()
            .map(|(key, value)| (Term::atom(key), value))
            .collect::<Map>(),
    )
}
