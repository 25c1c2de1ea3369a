//! A node's part in the group of its cluster: an engine, the machine that it feeds, and the calls of this node's processes.
//!
//! Every node that is configured for it has a copy of the machine: voters by their configuration, all others as learners.
//! So reads that may be a little old, watches and events need no other node; what must be linearizable or changes something
//! goes to the leader, through [`Group`], which finds it, repeats what was lost, and answers each call once.
//!
//! # Sessions
//!
//! A node has one session (dissertation, 6.3), opened when it is first needed and kept alive while the node lives. All that
//! its processes hold belongs to it, and is given back when the process ends ([`Group::exited`]) or, when the node is gone without
//! a word, at the end of the session. A node counts its session from the moment at which it *sent* what kept it
//! alive, the machine from a later one: so the holder knows that a claim is over before anybody else can have it
//! ([`Output::Lost`]).
//!
//! # Founding
//!
//! A group begins once. With [`Voters::Named`] the first of the names asks all of them, and founds when each has said that it
//! knows of no group; with [`Voters::Expect`] the first of those that wait does the same with the first so many that it sees.
//! Each persists its promise before it gives it and gives one only, so that two foundings of which somebody is a part
//! cannot both happen. What was founded is never founded again: a node that lost its disk, or keeps nothing on disk, returns under another
//! [`MemberId`], and the leader replaces its old one once the new one has the log.

mod command;
mod config;
mod output;

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::entry::PersistToken;
use crate::event::CallId;
use crate::identity::NodeName;
use crate::time::Instant;

pub use command::{Answer, Command, Holding, MAX_LIST, Read, Request, Standing};
pub use config::{Config, ConfigError, Founding, Stored, Timing, Voters};
pub use output::{Disk, Led, Lost, Output, Row, Stopped};

/// The first bytes of a group's messages, which tell them from those of the membership and the registry.
pub(crate) const PREFIX: [u8; 2] = [1, 32];

/// A node's part in the group of its cluster. A value, like all of this crate.
#[derive(Debug)]
pub struct Group {
    outputs: Vec<Output>,
}

impl Group {
    /// The part of `node` in the group of `cluster`, with what its disk has. `seed` decides its chance, and is different for each node.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]: the node must not take part.
    pub fn new(
        _node: NodeName,
        _cluster: &str,
        _seed: u64,
        _config: Config,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            outputs: Vec::new(),
        })
    }

    /// Bytes came from the group of another node.
    pub fn received(&mut self, _now: Instant, _from: &NodeName, _bytes: &[u8]) {}

    /// A node that runs Tiebeam is here, and connected. Said again it has no effect.
    pub fn up(&mut self, _now: Instant, _node: &NodeName) {}

    /// A node is gone, or the connection to it: if it led, others may stand for election at once
    /// ([`Consensus::forget_leader`](super::Consensus::forget_leader)).
    pub fn down(&mut self, _now: Instant, _node: &NodeName) {}

    /// A local process asks for something.
    pub fn asked(&mut self, _now: Instant, call: CallId, _request: Request) {
        let answer = Answer::NoLeader;
        self.outputs.push(Output::Answer { call, answer });
    }

    /// A process of this node ended: what it holds is given back, what it asked for is forgotten.
    pub fn exited(&mut self, _now: Instant, _pid: &Arc<[u8]>) {}

    /// The write with this token is on disk, and all before it.
    pub fn persisted(&mut self, _now: Instant, _token: PersistToken) {}

    /// A write failed: this member stops, and says so. Nothing that was not on disk was ever said to others.
    pub fn failed(&mut self, _now: Instant, _why: &str) {}

    /// This node leaves in good order: it gives back what it holds and hands its leadership over.
    pub fn leave(&mut self, _now: Instant) {}

    /// Time passed.
    pub fn wake(&mut self, _now: Instant) {}

    /// When [`Group::wake`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What must be done, in order. Drained after every call.
    pub fn outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }
}
