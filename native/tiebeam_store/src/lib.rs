//! What a member of a group must never forget, on disk: its identity, its founding, term, vote, snapshot and log.
//!
//! A [`Store`] is one file in a directory of a node's own. It decides nothing: the core says what to write
//! ([`Disk`](tiebeam_core::leadership::group::Disk)), and a write that returned is on disk, all of it. The driver tells the
//! core only then, which is what Raft's safety rests on (Ongaro's dissertation, 3.8).
//!
//! # What can go wrong, and what becomes of it
//!
//! | | |
//! |---|---|
//! | the process or the machine stops during a write | the write is there, or nothing of it is; the core was not told either way |
//! | the disk is full, or a sync fails | [`StoreError::Write`], and [`StoreError::Failed`] for whatever follows: after a failed sync nobody knows what is on disk, so the member must stop |
//! | the file is shortened, or has a flipped bit | [`StoreError::Damaged`] at the next start. The member does not run on a part of what it had promised |
//! | the file is gone | the store is new, with a new [`MemberId`](tiebeam_core::leadership::MemberId): a member that forgot its vote does not return under its old name |
//! | two processes use one directory | [`StoreError::InUse`] for the second one |
//!
//! Each commit is made in two phases: the new state is synced before the file's head points to it. So at a start the latest
//! commit is known to have been complete, and damage to it is not taken for a write that was under way.
#![forbid(unsafe_code)]

mod error;
mod head;
mod record;
mod store;

pub use error::StoreError;
pub use store::{FILE_NAME, Opened, Store};
