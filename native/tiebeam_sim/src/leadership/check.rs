//! What must hold for a group at every moment, a file each.

mod commits;
mod elections;
mod leases;
mod logs;
pub(super) mod members;
mod progress;

pub(super) use commits::Commits;
pub(super) use elections::Elections;
pub(super) use leases::Leases;
pub(super) use logs::Logs;
pub(super) use progress::Progress;
