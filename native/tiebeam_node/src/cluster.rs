//! The cluster on a Rust node: the driver of `tiebeam_core`, a process with the registered name `tiebeam`.
//!
//! ```text
//!  signals, node events ──►┐                       ┌──► messages to `tiebeam` on other nodes, dials
//!  requests of handles ───►│ process ──► core ──►  ├──► members and events for handles and subscribers
//!  the core's deadline ───►│                       ├──► questions to the kernels of plain BEAM nodes, evictions
//!  what was received ─────►┘                       └──► replies
//! ```
//!
//! The driver's contract, as in `tiebeam_core`: this process alone steps the core; `now` never goes back, and is read when
//! the step is made, so that the core sees how late its timers are; actions are carried out in order; a send is best
//! effort; it wakes at the deadline, and at the end of each turn if that is due. It decides nothing.
//!
//! Names and groups are looked up in a table that this process alone writes, before it answers; whoever looks up shares it
//! and never waits for this process.
//!
//! Any node, with or without Tiebeam, may ask its process, as in `GenServer.call({:tiebeam, node}, :members)`:
//!
//! | request | reply |
//! |---|---|
//! | `:members` | `[%Tiebeam.Member{}]` |
//! | `:health` | `%{multiplier: 1, stalls: 0, minority: false, group: :ok}`; for `group` see `t:Tiebeam.health/0` |
//! | `:metrics` | `%{sent: 12, received: 11, ...}`, the fields of [`Metrics`](tiebeam_core::Metrics) |
//! | `{:subscribe, pid}` | `:ok`, and from then on `{:tiebeam, cluster, event}` to `pid`, where `cluster` is the identity of the cluster as a string; `{:error, {:too_many_subscribers, limit}}`; `{:error, :noconnection}` if `pid` is of a node that is not connected |
//! | `{:unsubscribe, pid}` | `:ok` |
//! | `{:whereis, scope, name}` | a pid, or `nil` |
//! | `{:lookup, scope, name}` | `{pid, metadata}`, or `nil` |
//! | `{:register, scope, name, pid}`, and with `metadata` | `:ok`; `{:error, {:taken, pid}}`; `{:error, :noproc}`; `{:error, {:invalid, text}}`, where the text says what, and the limit |
//! | `{:unregister, scope, name}` | `:ok`; `{:error, :unknown}`; `{:error, {:taken, pid}}` if it was registered elsewhere |
//! | `{:members, scope, group}` | `[pid]` |
//! | `{:join, scope, group, pid}`, and with `metadata`; `{:leave, scope, group, pid}` | as for names |
//! | `{:names, scope}` | `[{name, pid, metadata}]`, in no particular order |
//! | `{:groups, scope}` | `[{group, [{pid, metadata}]}]`, in no particular order |
//! | `:leader` | `{:ok, node, term}`, or `:none` |
//! | `{:subscribe_leader, pid}` | as for `:subscribe`; then `{:tiebeam, cluster, {:leader, node, term}}` at once and after each change, where `node` is `nil` for nobody |
//! | `{:unsubscribe_leader, pid}` | `:ok` |
//! | `{:kv, :put, key, value}`, `{:kv, :delete, key}` | `{:ok, revision}` when it is acknowledged; `{:error, reason}` |
//! | `{:kv, :get, key}` | `{:ok, value, revision}`; `:not_found`; `{:error, reason}` |
//! | `{:kv, :list, prefix}` | `{:ok, [{key, value, revision}]}`, in order; `{:error, reason}` |
//! | `:locks` | `[{name, token, pid, metadata}]` |
//!
//! A reason is `{:not_founded, missing}` (the group waits for these nodes, or for so many), `{:no_replica, limit}` (it has no place for the node), `:no_group` (the node was started without voters), `:no_quorum` (nothing was done), `:unknown` (it may have been done),
//! `:busy`, `:full`, `:stopped`, `:left` or `{:invalid, text}`.
//!
//! A scope is an atom or the binary of its text; where no metadata is given, the scope may be left out, and is `:default`. The scope
//! `:global` is that of OTP's `global`, and read only. A process is registered for who asks only if it is of the node that
//! asks, or of this one; this one then answers for it, and watches it: a plain BEAM node takes part in the registry through
//! any member. A process that loses its name to an older registration is told `{:tiebeam, cluster, {:lost, scope, name, kept}}`,
//! where `kept` is the pid that has it now, or `nil`.
//!
//! A subscriber is monitored, and forgotten when it ends. Events are `{:member, :up | :suspect | :recovered | :updated |
//! :down | :left, member}`, `{:contested, member, reason}`, `{:conflict, member, creation}`, `{:refused, node, cluster}`,
//! `{:stalled, milliseconds}`, `{:health, multiplier}`, `{:broadcast, node, binary}`, and `{:missed, count}` after a time
//! in which the link to the subscriber was busy.

mod capability;
mod claim;
mod config;
mod dials;
mod disk;
mod driver;
mod event;
mod group_question;
mod groups;
mod handle;
mod kv;
mod leader;
mod leadership;
mod lock;
mod name;
mod observations;
mod question;
mod registry;
mod registry_event;
mod replica;
mod resolvers;
mod services;
mod strong;
mod subscribers;
mod table;
mod term;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::leadership::group;
use tiebeam_core::{Cluster, Config, Event, Instant, Kind, NodeName};
use tiebeam_wire::Atom;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::cluster::dials::Dials;
use crate::cluster::disk::Writer;
use crate::cluster::driver::{Driver, connection_event};
use crate::cluster::event::MAX_EVENTS;
use crate::cluster::handle::{MAX_REQUESTS, SharedVitals, Vitals};
use crate::cluster::leadership::{DEFAULT_TIMEOUT, MAX_LEADER_CHANGES};
use crate::cluster::observations::Observations;
use crate::cluster::registry::{DEFAULT_SCOPE, Shared};
use crate::cluster::registry_event::MAX_REGISTRY_EVENTS;
use crate::cluster::resolvers::{Resolvers, Verdicts};
use crate::cluster::subscribers::Subscribers;
use crate::cluster::table::{Atoms, Table};
use crate::cluster::watched::Watched;
use crate::error::SpawnError;
use crate::node::{Node, NodeEvent};

pub use capability::{Announced, Announcement, Capabilities};
pub(crate) use claim::{ClaimGuard, Claims, Wanted, lost_claim};
pub use config::{ClusterConfig, ClusterError, Voters};
pub use event::{ClusterEvent, ClusterEvents};
pub use groups::Groups;
pub use handle::{ClusterHandle, CommandError};
pub use kv::{Consistency, Expected, Kv, KvChange, KvChanges, KvEntry, KvValue, OnFollower};
pub use leader::{Leader, LeaderChange, LeaderChanges};
pub(crate) use leadership::core_duration;
pub use leadership::{LeadershipError, Token};
pub use lock::{LockGuard, LockHolder, Locks};
pub use name::Name;
pub use registry::{RegisterOptions, Registration, Registry, RegistryError};
pub use registry_event::{RegistryEvent, RegistryEvents};
pub use resolvers::Conflict;
pub use services::{
    Service, ServiceChange, ServiceChanges, ServiceFilter, ServiceOptions, Services,
};
pub use strong::{StrongEvent, StrongEvents, StrongNames, StrongRegistration};

impl Node {
    /// Takes part in a cluster: looks for its members, and is found by them.
    ///
    /// ```no_run
    /// # async fn part(node: tiebeam_node::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use tiebeam_node::{ClusterConfig, ClusterEvent};
    ///
    /// let cluster = node.cluster(ClusterConfig::fast().join(["app@127.0.0.1"])).await?;
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
    /// process is killed, the handles keep the members they saw last and know no names any more, and the cluster can be
    /// started again.
    ///
    /// Any node may ask this process, as in `GenServer.call({:tiebeam, node}, :members)`: `:members`, `:health`,
    /// `:metrics`, `{:subscribe, pid}`, `{:unsubscribe, pid}`; `{:whereis, scope, name}`, `{:lookup, scope, name}`,
    /// `{:register, scope, name, pid}` and `{:register, scope, name, pid, metadata}`, `{:unregister, scope, name}`,
    /// `{:names, scope}`; `{:members, scope, group}`, `{:join, scope, group, pid}`, `{:leave, scope, group, pid}`,
    /// `{:groups, scope}`; `:leader`, `{:subscribe_leader, pid}`, `{:kv, :put, key, value}`, `{:kv, :get, key}`,
    /// `{:kv, :delete, key}`, `{:kv, :list, prefix}`, `:locks`. A subscriber gets `{:tiebeam, cluster, event}`, where `cluster`
    /// is the identity of the cluster.
    ///
    /// # Cancel safety
    /// With a data directory it waits until that is read; dropped before, nothing happened. Otherwise it does not wait: once
    /// polled, the node is a member.
    pub async fn cluster(&self, config: ClusterConfig) -> Result<ClusterHandle, ClusterError> {
        let name = |text: &str| NodeName::parse(text).map_err(ClusterError::Name);
        let ClusterConfig {
            cluster,
            join,
            process,
            metadata,
            evict,
            timing,
            registry: limits,
            voters,
            data_dir,
            leadership: pace,
        } = config;
        let verdict_time = Duration::from_micros(limits.resolve_timeout.as_micros());
        let own = name(self.name().as_str())?;
        let join = join
            .iter()
            .map(|node| name(node))
            .collect::<Result<_, _>>()?;
        let registered = Atom::new(&process)
            .map_err(|error| ClusterError::Process(SpawnError::Invalid(error.to_string())))?;
        let process = self.spawn(&process).map_err(ClusterError::Process)?;
        let voters = match voters {
            Voters::None if data_dir.is_some() => return Err(ClusterError::NothingToKeep),
            Voters::None => None,
            Voters::Named(nodes) => {
                let nodes = nodes
                    .iter()
                    .map(|node| name(node))
                    .collect::<Result<_, _>>()?;
                Some(group::Voters::Named(nodes))
            }
            Voters::Expect(count) => Some(group::Voters::Expect(count)),
        };
        let takes_part = voters.is_some();
        let opened = match data_dir {
            None => Writer::memory(),
            Some(directory) => Writer::open(directory, own.clone(), cluster.clone()).await?,
        };
        let (member, stored, writer) = (opened.member, opened.stored, opened.writer);
        let leadership = voters.map(|voters| group::Config {
            member,
            voters,
            timing: pace,
            stored,
        });
        let core = Cluster::new(Config {
            // Pids are numbered, so a later process of this node has a greater incarnation.
            incarnation: u64::from(process.pid().serial) << 32 | u64::from(process.pid().id),
            cluster,
            join,
            seed: rand::random(),
            metadata,
            evict,
            timing,
            registry: limits,
            leadership,
            ..Config::new(own, self.creation(), Kind::Rust)
        })
        .map_err(ClusterError::Config)?;

        let (members, watched) = watch::channel(Arc::from([]));
        let vitals = SharedVitals::new(Vitals {
            health: core.view().health(),
            metrics: core.view().metrics(),
            group: core.view().group(),
        });
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let (requests, asked) = mpsc::channel(MAX_REQUESTS);
        let (registry_events, _) = broadcast::channel(MAX_REGISTRY_EVENTS);
        let (leaders, _) = broadcast::channel(MAX_LEADER_CHANGES);
        let leadership = leadership::Shared {
            node: self.clone(),
            takes_part,
            replica: Arc::default(),
            requests: requests.clone(),
            origin: tokio::time::Instant::now(),
            leaders: leaders.downgrade(),
            next_watch: Arc::default(),
            timeout: DEFAULT_TIMEOUT,
        };
        let registry = Shared {
            node: self.clone(),
            table: Arc::new(Table::default()),
            requests: requests.clone(),
            events: registry_events.downgrade(),
            resolvers: Resolvers::default(),
            scope: DEFAULT_SCOPE.into(),
            members: watched.clone(),
            hide_suspects: false,
            leadership: leadership.clone(),
        };
        let handle = ClusterHandle {
            members: watched,
            vitals: vitals.clone(),
            events: events.downgrade(),
            requests,
            registry: registry.clone(),
            leadership: leadership.clone(),
        };
        let mut driver = Driver {
            node: self.clone(),
            registered,
            core,
            members,
            shown: Instant::ZERO,
            vitals,
            events,
            subscribers: Subscribers::default(),
            observations: Observations::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            dials: Dials::default(),
            registry,
            registry_events,
            watched: Watched::default(),
            verdicts: Verdicts::default(),
            verdict_time,
            listing: Arc::new(Semaphore::new(1)),
            atoms: Atoms::default(),
            writer,
            leadership,
            leaders,
            followers: Subscribers::default(),
            watches: HashMap::new(),
            happened: VecDeque::new(),
        };
        process.monitor_nodes();
        let up = |visible| move |node| NodeEvent::Up { node, visible };
        let visible = self.nodes().into_iter().map(up(true));
        let hidden = self.hidden_nodes().into_iter().map(up(false));
        let connected = visible.chain(hidden).filter_map(connection_event);
        driver.step(connected.chain([Event::Woke]), &process);
        self.run(process, |process| async move {
            driver.run(process, asked).await;
            Ok(())
        });
        Ok(handle)
    }
}
