//! Patterns of work in a cluster: one node does it, or some, or each has its part of it.
//!
//! They are made of claims, which the cluster's group gives to one holder at a time, and of the registry's groups, where those
//! meet that take part. A BEAM with Tiebeam takes part as a Rust node does.

mod machine;
mod placement;
mod pool;
mod ring;
mod runner;
mod singleton;
mod slots;

pub use machine::{MAX_MACHINE_COMMAND_BYTES, Machine, MachineHandle, MachineInfo, StateMachine};
pub use placement::{Operator, OperatorError, Participation, Placement, Rebalance};
pub use pool::{ClusterPool, ClusterPoolMember, Route, RouteError};
pub use ring::{Ring, RingError, RingHandler, RingMember};
pub use runner::ReleaseReason;
pub use singleton::{PassiveReason, Singleton, SingletonHolder, Standby};
pub use slots::{SlotHolder, TaskMember};
