//! A Rust node in an Erlang cluster.
//!
//! ```no_run
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use tiebeam_node::{Config, Cookie, Node, Signal};
//!
//! let node = Node::start(Config::new("rust@127.0.0.1", Cookie::from_home()?)).await?;
//! node.connect("app@127.0.0.1").await?; // now in Node.list() over there
//!
//! let mut pricing = node.spawn("pricing")?; // a process is a mailbox, here with a name
//! while let Some(signal) = pricing.recv().await {
//!     // GenServer.call({:pricing, :"rust@127.0.0.1"}, 20)
//!     if let Signal::Call(call) = signal {
//!         let quantity: i64 = call.decode()?;
//!         call.reply(&(quantity * 3))?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Node`] is the door to everything; [`Process`] and [`GenServer`] are what runs on it; [`Node::export`] makes
//! functions callable by `:rpc` and `:erpc`. [`guide`] has texts on how to begin, what each call promises, and how to operate a cluster.
#![forbid(unsafe_code)]

mod actor_ref;
mod backoff;
mod circuit_breaker;
mod cluster;
mod config;
mod connection;
mod correlated;
pub mod discovery;
pub mod epmd;
mod error;
mod function;
mod gen_server;
pub mod guide;
mod kernel;
mod message;
mod node;
mod patterns;
mod process;
mod retry;
mod router;
mod supervisor;
mod tls;
mod transport;
mod typed;
mod waiting_room;
mod worker_pool;

pub use actor_ref::{ActorRef, BatchReport};
pub use backoff::{Backoff, Jitter, Pauses};
pub use circuit_breaker::{BreakerError, BreakerSettings, BreakerState, CircuitBreaker};
pub use cluster::{
    Announced, Announcement, Capabilities, ClusterConfig, ClusterError, ClusterEvent,
    ClusterEvents, ClusterHandle, CommandError, Conflict, Consistency, Expected, Groups, Kv,
    KvChange, KvChanges, KvEntry, KvValue, Leader, LeaderChange, LeaderChanges, LeadershipError,
    LockGuard, LockHolder, Locks, Name, OnFollower, RegisterOptions, Registration, Registry,
    RegistryError, RegistryEvent, RegistryEvents, Service, ServiceChange, ServiceChanges,
    ServiceFilter, ServiceOptions, Services, StrongEvent, StrongEvents, StrongNames,
    StrongRegistration, Token, Voters,
};
pub use config::{Config, Cookie, CookieError, Limits, default_epmd_port};
pub use correlated::Correlated;
pub use epmd::EpmdMode;
pub use error::{CallError, RpcError, SendError, SpawnError};
pub use function::{Args, Exception};
pub use gen_server::{Answer, Flow, GenServer};
pub use kernel::global::{Global, GlobalError, GlobalLock, GlobalName, Resolver};
pub use kernel::pg::{Pg, PgError, PgEvent, PgEvents};
pub use message::{
    FromTerm, Message, MessageVersion, Migration, Misfit, VersionMismatch, Versioned,
};
pub use node::{Node, NodeEvent, NodeEvents, WeakNode};
pub use patterns::{
    ClusterPool, ClusterPoolMember, MAX_MACHINE_COMMAND_BYTES, Machine, MachineHandle, MachineInfo,
    Operator, OperatorError, Participation, PassiveReason, Placement, Rebalance, ReleaseReason,
    Ring, RingError, RingHandler, RingMember, Route, RouteError, Singleton, SingletonHolder,
    SlotHolder, Standby, StateMachine, TaskMember,
};
pub use process::{
    Call, Destination, Process, ReceiveError, ReplyTo, Signal, Target, ThreadProcess, TimedOut,
};
pub use retry::{Failure, RetryPolicy};
pub use router::SpawnOptions;
pub use supervisor::{
    ChildCounts, ChildError, ChildId, ChildInfo, ChildKind, ChildSpec, ChildStatus, Restart,
    Shutdown, Strategy, Supervisor, SupervisorRef,
};
pub use tiebeam_core::leadership::group::{
    Condition as GroupCondition, MAX_LIST, Missing as MissingVoters, Standing,
    Timing as LeadershipTiming,
};
pub use tiebeam_core::leadership::machine::{Limit, MAX_KEY_BYTES, MAX_VALUE_BYTES};
pub use tiebeam_core::leadership::{MAX_MEMBERS, MAX_VOTERS};
pub use tiebeam_core::placement::Participant;
pub use tiebeam_core::registry::name::{MAX_NAME_DEPTH, NameError};
pub use tiebeam_core::registry::{
    Departure, Gone, Keep, Limits as RegistryLimits, MAX_META_BYTES, MAX_NAME_BYTES, MAX_SCOPES,
    OnConflict, Refusal,
};
pub use tiebeam_core::{
    Contest, Health, Kind, MAX_BROADCAST_BYTES, MAX_HEALTH_MULTIPLIER, MAX_METADATA_BYTES, Member,
    Metrics, NodeName, Random, Status, Timing,
};
pub use tiebeam_store::StoreError;
pub use tiebeam_wire::{self as wire, Atom, Binary, Map, Pid, Reference, Term};
pub use tls::{TlsConfig, TlsError, TlsFailure};
pub use transport::{ConnectError, HandshakeFailure, StartError};
pub use typed::{Error as TypeError, from_term, to_term};
pub use worker_pool::{Balance, PoolError, PoolSettings, WorkerPool};
