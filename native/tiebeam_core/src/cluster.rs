//! The cluster as one node sees it. The only file that knows all its machines.

use alloc::vec::Vec;

use crate::action::{Action, Answer, Why};
use crate::config::{Config, ConfigError};
use crate::event::{Command, Event};
use crate::identity::NodeName;
use crate::membership::{Health, Member, Membership, Metrics};
use crate::message;
use crate::time::Instant;

/// One member of a cluster. See the [crate documentation](crate) for the driver's contract.
#[derive(Debug)]
pub struct Cluster {
    phase: Phase,
    /// The greatest time seen.
    now: Instant,
    membership: Membership,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not stepped yet: the time is not known.
    New,
    Running,
    /// Says so to who still greets; nothing else has an effect any more.
    Left,
}

impl Cluster {
    /// A member that knows only its configuration.
    ///
    /// # Errors
    ///
    /// A setting is out of its range; see [`ConfigError`].
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            phase: Phase::New,
            now: Instant::ZERO,
            membership: Membership::new(config),
        })
    }

    /// Tells the cluster what happened at `now`; appends what must be done, in order, to `actions`.
    ///
    /// Never fails and never panics, whatever other nodes send: bytes that mean nothing become one
    /// [`Notice::Ignored`](crate::Notice::Ignored). The work is bounded by the limits of the crate, not by what was received.
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        let now = self.now;
        if self.phase == Phase::New {
            self.phase = Phase::Running;
            self.membership.start(now, actions);
        }
        self.membership.guard(now, actions);
        match (self.phase, event) {
            (_, Event::Asked { call, command }) => {
                let answer = self.asked(now, command, actions);
                actions.push(Action::Answer { call, answer });
            }
            (_, Event::Received { from, bytes }) => self.received(now, from, &bytes, actions),
            (
                Phase::Left,
                Event::Connected { .. }
                | Event::Disconnected { .. }
                | Event::Observed { .. }
                | Event::Sampled { .. },
            ) => {}
            (_, Event::Connected { to, visible }) => {
                self.membership.connected(now, to, visible, actions);
            }
            (_, Event::Disconnected { from }) => self.membership.disconnected(now, from, actions),
            (_, Event::Observed { node, probe }) => {
                self.membership.observed(now, &node, probe, actions);
            }
            (_, Event::Sampled { node, received }) => {
                self.membership.sampled(now, &node, received, actions);
            }
            (_, Event::Woke) => {}
        }
        // Any step is as good as a wake-up: a driver under load may be late with its own.
        self.membership.wake(now, actions);
        #[cfg(debug_assertions)]
        self.membership.check();
    }

    fn received(&mut self, now: Instant, from: NodeName, bytes: &[u8], actions: &mut Vec<Action>) {
        self.membership.metered(bytes.len());
        match (message::decode(bytes), self.phase) {
            (Ok(message), Phase::Left) => self.membership.received_late(&from, &message, actions),
            (Ok(message), _) => self.membership.received(now, from, message, actions),
            (Err(_), Phase::Left) => {}
            (Err(error), _) => self.membership.ignore(from, Why::Malformed(error), actions),
        }
    }

    fn asked(&mut self, now: Instant, command: Command, actions: &mut Vec<Action>) -> Answer {
        match command {
            _ if self.phase == Phase::Left => Answer::Left,
            Command::SetMetadata(metadata) => self.membership.set_metadata(now, metadata, actions),
            Command::Broadcast(bytes) => self.membership.broadcast(now, bytes),
            Command::Leave => {
                self.phase = Phase::Left;
                self.membership.leave(actions);
                Answer::Left
            }
        }
    }

    /// When to step with [`Event::Woke`] if nothing happens before; `None` once this node has left.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::New => Some(Instant::ZERO),
            Phase::Running | Phase::Left => self.membership.deadline(),
        }
    }

    #[cfg(test)]
    pub(crate) fn guardians(&self, node: &NodeName) -> Vec<NodeName> {
        self.membership.guardians(node)
    }

    /// What this member knows now.
    pub fn view(&self) -> View<'_> {
        View {
            membership: &self.membership,
        }
    }
}

/// What a member knows at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    membership: &'a Membership,
}

impl<'a> View<'a> {
    /// The identity of the cluster.
    pub fn cluster(&self) -> &'a str {
        self.membership.cluster()
    }

    /// This node.
    pub fn me(&self) -> &'a Member {
        self.membership.me()
    }

    /// How this node itself keeps up.
    pub fn health(&self) -> Health {
        self.membership.health()
    }

    /// What the membership did since it started.
    pub fn metrics(&self) -> Metrics {
        self.membership.metrics()
    }

    /// All members in the order of their names, this node included.
    pub fn members(&self) -> impl Iterator<Item = &'a Member> + use<'a> {
        self.membership.members()
    }
}
