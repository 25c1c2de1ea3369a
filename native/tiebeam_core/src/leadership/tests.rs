//! Rules of the dissertation, a few members at a time, on a clock of the test's own.

mod chance;
mod elections;
mod group;
mod leases;
mod logs;
mod members;
#[cfg(feature = "mutants")]
mod mutants;
mod reads;
mod snapshots;
mod transfers;
