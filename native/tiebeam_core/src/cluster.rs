//! The cluster as one node sees it. The only file that knows all its machines.

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::action::{Action, Answer, Notice, Why};
use crate::config::{Config, ConfigError};
use crate::event::{CallId, Command, Event};
use crate::identity::NodeName;
use crate::leadership::group::{self, Group};
use crate::membership::{Health, Kind, Member, Membership, Metrics};
use crate::message;
use crate::registry::{self, Departure, Entry, Output, Registry};
use crate::time::Instant;

/// One member of a cluster. See the [crate documentation](crate) for the driver's contract.
#[derive(Debug)]
pub struct Cluster {
    phase: Phase,
    /// The greatest time seen.
    now: Instant,
    membership: Membership,
    registry: Registry,
    /// What the registry wants done in this step.
    outputs: Vec<Output>,
    /// Its part in the group that agrees on a leader.
    group: Option<Group>,
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
        let mut config = config;
        let group = config.leadership.take().map(|settings| {
            Group::new(config.node.clone(), &config.cluster, config.seed, settings)
        });
        Ok(Self {
            group: group.transpose().map_err(ConfigError::Leadership)?,
            phase: Phase::New,
            now: Instant::ZERO,
            registry: Registry::new(registry::Config {
                node: config.node.clone(),
                creation: config.creation,
                epoch: config.incarnation,
                limits: config.registry.clone(),
            }),
            outputs: Vec::new(),
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
        let first = actions.len();
        let woke = event == Event::Woke;
        if self.phase == Phase::New {
            self.phase = Phase::Running;
            self.membership.start(now, actions);
        }
        self.membership.guard(now, actions);
        match (self.phase, event) {
            (_, Event::Asked { call, command }) => {
                if let Some(answer) = self.asked(now, call, command, actions) {
                    actions.push(Action::Answer { call, answer });
                }
            }
            (_, Event::Received { from, bytes }) => self.received(now, from, &bytes, actions),
            // The group is still handing over.
            (Phase::Left, Event::Connected { to, .. }) => {
                if let Some(group) = &mut self.group {
                    group.connected(now, &to);
                }
            }
            (Phase::Left, Event::Disconnected { from }) => {
                if let Some(group) = &mut self.group {
                    group.down(now, &from);
                }
            }
            (
                Phase::Left,
                Event::Observed { .. }
                | Event::Sampled { .. }
                | Event::Exited { .. }
                | Event::Checked { .. }
                | Event::Resolved { .. },
            ) => {}
            (_, Event::Connected { to, visible }) => {
                self.registry.connected(now, &to, &mut self.outputs);
                if let Some(group) = &mut self.group {
                    group.connected(now, &to);
                }
                self.membership.connected(now, to, visible, actions);
            }
            (_, Event::Disconnected { from }) => {
                if let Some(group) = &mut self.group {
                    group.down(now, &from);
                }
                self.membership.disconnected(now, from, actions);
            }
            (_, Event::Observed { node, probe }) => {
                self.membership.observed(now, &node, probe, actions);
            }
            (_, Event::Sampled { node, received }) => {
                self.membership.sampled(now, &node, received, actions);
            }
            (_, Event::Exited { pid }) => {
                self.registry.exited(now, &pid, &mut self.outputs);
                if let Some(group) = &mut self.group {
                    group.exited(now, &pid);
                }
            }
            (_, Event::Checked { id, alive }) => {
                self.registry.checked(now, id, alive, &mut self.outputs);
            }
            (_, Event::Resolved { id, keep }) => {
                self.registry.resolved(now, id, keep, &mut self.outputs);
            }
            (_, Event::Persisted { token }) => {
                if let Some(group) = &mut self.group {
                    group.persisted(now, token);
                }
            }
            (_, Event::Unpersisted { why }) => {
                if let Some(group) = &mut self.group {
                    group.failed(now, &why);
                }
            }
            (_, Event::Woke) => {}
        }
        // Any step is as good as a wake-up: a driver under load may be late with its own.
        self.membership.wake(now, actions);
        if self.phase != Phase::Left {
            self.pass_on(now, first, actions);
            if woke {
                self.registry.wake(now, &mut self.outputs);
            }
            actions.extend(self.outputs.drain(..).map(action));
        }
        self.outputs.clear();
        if let Some(group) = &mut self.group {
            if group.deadline().is_some_and(|at| at <= now) {
                group.wake(now);
            }
            actions.extend(group.outputs().map(group_action));
        }
        #[cfg(debug_assertions)]
        self.membership.check();
    }

    /// Tells the registry who came and who went: facts go one way.
    fn pass_on(&mut self, now: Instant, first: usize, actions: &[Action]) {
        for action in &actions[first..] {
            let Action::Notify(notice) = action else {
                continue;
            };
            match notice {
                // Whoever speaks for itself has a registry. Said again it has no effect.
                Notice::Up(member)
                | Notice::Updated(member)
                | Notice::Refreshed(member)
                | Notice::Recovered(member)
                    if member.kind != Kind::Plain =>
                {
                    self.registry
                        .up(now, &member.node, member.creation, &mut self.outputs);
                    if let Some(group) = &mut self.group {
                        group.up(now, &member.node);
                    }
                }
                Notice::Down(member) => {
                    if let Some(group) = &mut self.group {
                        group.down(now, &member.node);
                    }
                    self.registry
                        .down(now, &member.node, Departure::Down, &mut self.outputs);
                }
                Notice::Left(member) => {
                    if let Some(group) = &mut self.group {
                        group.down(now, &member.node);
                    }
                    self.registry
                        .down(now, &member.node, Departure::Left, &mut self.outputs);
                }
                _ => {}
            }
        }
    }

    fn received(&mut self, now: Instant, from: NodeName, bytes: &[u8], actions: &mut Vec<Action>) {
        if bytes.starts_with(&registry::PREFIX) {
            if self.phase != Phase::Left {
                self.registry.received(now, &from, bytes, &mut self.outputs);
            }
            return;
        }
        if bytes.starts_with(&group::PREFIX) {
            if let Some(group) = &mut self.group {
                group.received(now, &from, bytes);
            }
            return;
        }
        self.membership.metered(bytes.len());
        match (message::decode(bytes), self.phase) {
            (Ok(message), Phase::Left) => self.membership.received_late(&from, &message, actions),
            (Ok(message), _) => self.membership.received(now, from, message, actions),
            (Err(_), Phase::Left) => {}
            (Err(error), _) => self.membership.ignore(from, Why::Malformed(error), actions),
        }
    }

    /// The answer, unless the registry gives it, now or later.
    fn asked(
        &mut self,
        now: Instant,
        call: CallId,
        command: Command,
        actions: &mut Vec<Action>,
    ) -> Option<Answer> {
        Some(match command {
            _ if self.phase == Phase::Left => Answer::Left,
            Command::Registry(command) => {
                self.registry.asked(now, call, command, &mut self.outputs);
                return None;
            }
            Command::Leadership(request) => {
                let Some(group) = &mut self.group else {
                    return Some(Answer::NoGroup);
                };
                group.asked(now, call, request);
                return None;
            }
            Command::SetMetadata(metadata) => self.membership.set_metadata(now, metadata, actions),
            Command::Broadcast(bytes) => self.membership.broadcast(now, bytes),
            Command::Leave => {
                self.phase = Phase::Left;
                if let Some(group) = &mut self.group {
                    group.leave(now);
                }
                self.membership.leave(actions);
                Answer::Left
            }
        })
    }

    /// When to step with [`Event::Woke`] if nothing happens before; `None` once this node has left, and handed over what it led.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::New => Some(Instant::ZERO),
            Phase::Running => {
                let group = self.group.as_ref().and_then(Group::deadline);
                let deadlines = [self.membership.deadline(), self.registry.deadline(), group];
                deadlines.into_iter().flatten().min()
            }
            // Until the group has handed over.
            Phase::Left => {
                let group = self.group.as_ref().and_then(Group::deadline);
                let deadlines = [self.membership.deadline(), group];
                deadlines.into_iter().flatten().min()
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn guardians(&self, node: &NodeName) -> Vec<NodeName> {
        self.membership.guardians(node)
    }

    /// What this member knows now.
    pub fn view(&self) -> View<'_> {
        View {
            left: self.phase == Phase::Left,
            membership: &self.membership,
            registry: &self.registry,
            group: self.group.as_ref(),
        }
    }
}

/// What a member knows at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    left: bool,
    membership: &'a Membership,
    registry: &'a Registry,
    group: Option<&'a Group>,
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

    /// How it is with its part in the group, if it was configured for one.
    pub fn group(&self) -> Option<group::Condition> {
        self.group.map(Group::condition)
    }

    /// What the membership did since it started.
    pub fn metrics(&self) -> Metrics {
        self.membership.metrics()
    }

    /// All members in the order of their names, this node included.
    pub fn members(&self) -> impl Iterator<Item = &'a Member> + use<'a> {
        self.membership.members()
    }

    /// How many more entries this node may register for certain, in whatever scopes: for a driver that lets callers take free
    /// names from its table before the core knows. None once it has left.
    pub fn room(&self) -> usize {
        if self.left { 0 } else { self.registry.room() }
    }

    /// All names and memberships, names first: for a driver that makes its table anew. Callers read the driver's table.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        self.registry.rows()
    }
}

/// What the group wants done, in the words of the cluster.
fn group_action(output: group::Output) -> Action {
    match output {
        group::Output::Send { to, bytes } => Action::Send { to, bytes },
        group::Output::Persist(disk) => Action::Persist(disk),
        group::Output::Answer { call, answer } => Action::Answer {
            call,
            answer: Answer::Leadership(answer),
        },
        group::Output::Ignored { from, why } => Action::Notify(Notice::Ignored {
            from,
            why: Why::MalformedPacket(why),
        }),
        other => Action::Leadership(other),
    }
}

/// What the registry wants done, in the words of the cluster.
fn action(output: Output) -> Action {
    match output {
        Output::Send { to, bytes } => Action::Send { to, bytes },
        Output::Table(change) => Action::Table(change),
        Output::Answer { call, answer } => Action::Answer {
            call,
            answer: Answer::Registry(answer),
        },
        Output::Lost(loss) => Action::Lost(loss),
        Output::Promoted { key, pid } => Action::Promoted { key, pid },
        Output::Resolve { id, older, younger } => Action::Resolve { id, older, younger },
        Output::Check { id, pid } => Action::Check { id, pid },
        Output::Ignored { from, why } => Action::Notify(Notice::Ignored {
            from,
            why: Why::MalformedEntry(why),
        }),
    }
}
