//! How a group begins, once, and how a node finds the one that there is.
//!
//! ```text
//! nothing ──> promised ──(all promised: the founder)──> agreed ──(on disk)──> the engine runs
//!    │            └──────────────(somebody agreed to it)───────┘
//!    └──────────────(somebody is in a group already)───────────┘
//! ```
//!
//! Of the members of a founding the one whose node has the least name is its founder, and only it decides that all have
//! promised. So it may give a founding up, and begin another one, for as long as it has not agreed itself. A promise is void when
//! its founder gave it up, asks for another one, or has returned under another identity: then nobody is left who could agree.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::command::Answer;
use super::config::{Founding, Voters};
use super::message::{Announce, Message};
use super::output::{Disk, Missing, Output};
use super::{Group, Timer, Written};
use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::configuration::{Configuration, MAX_VOTERS};
use crate::leadership::consensus::Consensus;
use crate::leadership::entry::{HardState, MemberId, PersistToken};
use crate::leadership::snapshot::{Restored, Snapshot, Write};
use crate::time::Duration;

/// How often a node without a group says that it waits, and a founder asks again.
const SEEK: Duration = Duration::from_millis(500);

/// How often a node that has its group tells the others, should they have missed it.
const REMIND: Duration = Duration::from_secs(5);

/// How far the log of a group that is founded by force is ahead of what its founder knows: what a lost majority has granted beyond
/// that is less, so no token is given out twice.
const FORCED_GAP: u64 = 1 << 32;

/// How far this node is.
#[derive(Debug)]
pub(super) enum Stage {
    /// It knows of no group.
    Seeking,
    /// It promised to found nothing else.
    Promised {
        founding: Founding,
        /// The promise is on disk.
        saved: bool,
        /// Who else promised; counted by the founder.
        promises: BTreeSet<MemberId>,
    },
    /// The group exists, and this is being written.
    Agreed(Founding),
    /// The engine runs.
    Founded(Founding),
}

/// The member that decides.
fn founder(founding: &Founding) -> Option<(MemberId, &NodeName)> {
    let configuration = &founding.configuration;
    let members = configuration
        .voters()
        .filter_map(|member| Some((member, configuration.node(member)?)));
    members.min_by(|a, b| a.1.cmp(b.1))
}

impl Group {
    /// The founding that this node told or would tell to others.
    pub(super) fn founding(&self) -> Option<&Founding> {
        match &self.stage {
            Stage::Seeking => None,
            // What is not on disk is not said.
            Stage::Promised { saved: false, .. } | Stage::Agreed(_) => None,
            Stage::Promised { founding, .. } | Stage::Founded(founding) => Some(founding),
        }
    }

    /// The number of the group that this node is in.
    pub(super) fn group(&self) -> Option<u64> {
        match &self.stage {
            Stage::Founded(founding) => Some(founding.group),
            _ => None,
        }
    }

    /// Tells one node who this one is.
    pub(super) fn announce(&mut self, to: &NodeName) {
        let heard = self.peers.get(to).is_some_and(|peer| peer.said.is_some());
        let announce = Announce {
            member: self.member,
            founding: self.founding().cloned(),
            expects: match &self.voters {
                Voters::Named(_) => 0,
                Voters::Expect(count) => *count as u8,
            },
            heard,
        };
        self.send(to, Message::Announce(announce));
        if self.has_no_place(to)
            && let Some(group) = self.group()
        {
            let limit = self.room as u64;
            self.send(to, Message::Full { group, limit });
        }
    }

    /// This node leads, and a node wants to learn for which there is no place.
    fn has_no_place(&self, node: &NodeName) -> bool {
        let (Some(engine), Some(member)) = (&self.engine, self.peers.member_of(node)) else {
            return false;
        };
        let configuration = engine.configuration();
        self.is_leader()
            && configuration.members().count() >= self.room
            && !configuration.contains(member)
            && configuration.member_on(node).is_none()
    }

    /// The leader says that the group has as many members as it may.
    pub(super) fn on_full(&mut self, group: u64, limit: u64) {
        let learns = self
            .engine
            .as_ref()
            .is_some_and(|engine| engine.configuration().contains(self.member));
        if self.group() == Some(group) && !learns && self.full.is_none() {
            self.full = usize::try_from(limit).ok();
        }
    }

    /// Who is missing before a group can be founded, as far as this node knows; nobody if there is one, or is about to be.
    pub(super) fn missing(&self) -> Option<Missing> {
        if !matches!(self.stage, Stage::Seeking | Stage::Promised { .. }) {
            return None;
        }
        match &self.voters {
            Voters::Named(names) => {
                let here = |name: &&NodeName| {
                    **name == self.node
                        || self
                            .peers
                            .get(name)
                            .is_some_and(|peer| peer.up && peer.said.is_some())
                };
                let missing: Vec<NodeName> =
                    names.iter().filter(|name| !here(name)).cloned().collect();
                (!missing.is_empty()).then_some(Missing::Voters(missing))
            }
            Voters::Expect(count) => {
                let waiting = self.peers.present().filter(|(_, peer)| {
                    peer.said
                        .as_ref()
                        .is_some_and(|said| usize::from(said.expects) == *count)
                });
                let missing = count.saturating_sub(waiting.count() + 1);
                (missing > 0).then_some(Missing::Count(missing))
            }
        }
    }

    /// What is said to who asked for what needs a leader, and none was found in time.
    pub(super) fn no_leader(&self) -> Answer {
        match (self.missing(), self.full) {
            (Some(missing), _) => Answer::Unfounded(missing),
            (None, Some(limit)) => Answer::NoReplica { limit },
            (None, None) => Answer::NoLeader,
        }
    }

    /// Tells all nodes that are here, and those that belong to the group and are not: a driver dials them.
    pub(super) fn announce_to_all(&mut self) {
        let mut nodes: BTreeSet<NodeName> =
            self.peers.present().map(|(node, _)| node.clone()).collect();
        match (&self.engine, &self.voters) {
            (Some(engine), _) => {
                let configuration = engine.configuration();
                nodes.extend(
                    configuration
                        .members()
                        .filter_map(|member| configuration.node(member).cloned()),
                );
            }
            (None, Voters::Named(names)) => nodes.extend(names.iter().cloned()),
            (None, Voters::Expect(_)) => {}
        }
        nodes.remove(&self.node);
        for node in nodes {
            self.announce(&node);
        }
        let again = if self.engine.is_some() { REMIND } else { SEEK };
        self.timers.set(Timer::Announce, self.now + again);
    }

    pub(super) fn on_announce(&mut self, from: &NodeName, announce: Announce) {
        let (member, heard) = (announce.member, announce.heard);
        let founding = announce.founding.clone();
        if member == self.member {
            self.ignore(
                from,
                "it has the identity of this node: two nodes run on copies of one disk".into(),
            );
            return;
        }
        self.peers.announced(from, announce);
        if !heard {
            self.announce(from);
        }
        if let Some(founding) = founding {
            if founding.agreed {
                self.on_founded(from, founding);
            } else {
                self.on_promised_elsewhere(from, member, &founding);
            }
        }
        self.seek();
    }

    /// Somebody is in a group.
    fn on_founded(&mut self, from: &NodeName, founding: Founding) {
        match &self.stage {
            Stage::Founded(own) | Stage::Agreed(own) if own.group == founding.group => {}
            Stage::Founded(_) => {
                if self.peers.refuses(from) {
                    self.outputs.push(Output::Foreign { node: from.clone() });
                }
            }
            Stage::Agreed(_) => {}
            Stage::Promised { founding: own, .. }
                if own.group != founding.group && !self.is_void(own) && !self.is_mine(own) => {}
            Stage::Seeking | Stage::Promised { .. } => {
                self.withdraw();
                self.agree(founding);
            }
        }
    }

    /// Somebody promised, but perhaps nothing that is worth anything.
    fn on_promised_elsewhere(&mut self, from: &NodeName, member: MemberId, founding: &Founding) {
        if founder(founding).is_some_and(|(founder, _)| founder == self.member) {
            let pursued = match &self.stage {
                Stage::Promised { founding: own, .. }
                | Stage::Agreed(own)
                | Stage::Founded(own) => own.group == founding.group,
                Stage::Seeking => false,
            };
            if !pursued {
                let group = founding.group;
                self.send(from, Message::Withdraw { group });
            }
            return;
        }
        // Of two founders that need the same member the one with the lesser name goes on.
        if let Stage::Promised { founding: own, .. } = &self.stage
            && self.is_mine(own)
            && own.configuration.contains(member)
            && founder(founding).is_some_and(|(_, node)| *node < self.node)
        {
            self.withdraw();
        }
    }

    /// This node is the founder.
    fn is_mine(&self, founding: &Founding) -> bool {
        founder(founding).is_some_and(|(member, _)| member == self.member)
    }

    /// The founder has returned under another identity.
    fn is_void(&self, founding: &Founding) -> bool {
        let Some((member, node)) = founder(founding) else {
            return true;
        };
        member != self.member
            && self
                .peers
                .member_of(node)
                .is_some_and(|present| present != member)
    }

    /// Gives up an own founding that is not agreed, if there is one.
    fn withdraw(&mut self) {
        let Stage::Promised { founding, .. } = &self.stage else {
            return;
        };
        if !self.is_mine(founding) {
            return;
        }
        let (group, configuration) = (founding.group, founding.configuration.clone());
        self.stage = Stage::Seeking;
        for member in configuration.voters() {
            if let Some(node) = configuration.node(member).cloned()
                && member != self.member
            {
                self.send(&node, Message::Withdraw { group });
            }
        }
    }

    /// Does what brings this node nearer to a group.
    pub(super) fn seek(&mut self) {
        if self.engine.is_some() || self.stopped.is_some() {
            return;
        }
        match &self.stage {
            Stage::Seeking => {
                if let Some(configuration) = self.candidates() {
                    let founding = Founding {
                        group: self.random.bits(),
                        configuration,
                        agreed: false,
                    };
                    self.promise(founding);
                }
            }
            Stage::Promised {
                founding,
                saved,
                promises,
            } if self.is_mine(founding) => {
                let others: Vec<(MemberId, NodeName)> = founding
                    .configuration
                    .voters()
                    .filter(|member| *member != self.member)
                    .filter_map(|member| {
                        Some((member, founding.configuration.node(member)?.clone()))
                    })
                    .collect();
                let lost = others.iter().any(|(member, node)| {
                    !self.peers.is_up(node)
                        || self
                            .peers
                            .member_of(node)
                            .is_some_and(|present| present != *member)
                });
                if lost && self.candidates().is_some() {
                    self.withdraw();
                    self.seek();
                } else if *saved && others.iter().all(|(member, _)| promises.contains(member)) {
                    let founding = founding.clone();
                    self.agree(founding);
                } else if *saved {
                    let missing: Vec<NodeName> = others
                        .into_iter()
                        .filter(|(member, _)| !promises.contains(member))
                        .map(|(_, node)| node)
                        .collect();
                    let founding = founding.clone();
                    for node in missing {
                        self.send(&node, Message::Ask(founding.clone()));
                    }
                }
            }
            Stage::Promised { founding, .. } => {
                if self.is_void(founding) {
                    self.stage = Stage::Seeking;
                    self.seek();
                }
            }
            Stage::Agreed(_) | Stage::Founded(_) => {}
        }
    }

    /// The members that this node would found a group with, if it is the one to do so and all are here.
    fn candidates(&self) -> Option<Configuration> {
        let free = |node: &NodeName| {
            let peer = self.peers.get(node).filter(|peer| peer.up)?;
            let member = peer.said.as_ref()?.member;
            // One that promised is asked all the same if its founder is this node, or is gone: it knows that itself.
            let taken = peer.founding().is_some_and(|founding| {
                founding.agreed
                    || founder(founding).is_none_or(|(_, node)| *node != self.node)
                        && !self.is_void(founding)
            });
            (!taken).then(|| (member, node.clone()))
        };
        let own = (self.member, self.node.clone());
        let members: Vec<(MemberId, NodeName)> = match &self.voters {
            Voters::Named(names) => {
                if names.first() != Some(&self.node) {
                    return None;
                }
                let others = names.iter().filter(|name| **name != self.node);
                let others: Option<Vec<_>> = others.map(free).collect();
                core::iter::once(own).chain(others?).collect()
            }
            Voters::Expect(count) => {
                let waiting = self.peers.present().filter(|(_, peer)| {
                    peer.said
                        .as_ref()
                        .is_some_and(|said| usize::from(said.expects) == *count)
                });
                let mut members: Vec<_> = waiting.filter_map(|(node, _)| free(node)).collect();
                if members.iter().any(|(_, node)| *node < self.node) || members.len() + 1 < *count {
                    return None;
                }
                members.truncate(count - 1);
                members.push(own);
                members
            }
        };
        let ids: Vec<MemberId> = members.iter().map(|&(member, _)| member).collect();
        Some(Configuration::new(ids, []).ok()?.on_nodes(members))
    }

    pub(super) fn on_ask(&mut self, from: &NodeName, founding: Founding) {
        let by_founder = founder(&founding).is_some_and(|(_, node)| node == from);
        let with_me = founding.configuration.node(self.member) == Some(&self.node);
        if !by_founder || !with_me || founding.agreed {
            self.ignore(
                from,
                "it asks for a promise that is not its to ask for".into(),
            );
            return;
        }
        let nodes = || {
            founding
                .configuration
                .voters()
                .filter_map(|member| founding.configuration.node(member))
        };
        let as_configured = match &self.voters {
            Voters::Named(names) => {
                nodes().count() == names.len() && nodes().all(|node| names.contains(node))
            }
            Voters::Expect(count) => nodes().count() == *count,
        };
        if !as_configured {
            self.ignore(
                from,
                "it founds a group of other voters than this node is configured with".into(),
            );
            return;
        }
        let free = match &self.stage {
            Stage::Seeking => true,
            Stage::Promised { founding: own, .. } if own.group == founding.group => {
                self.say_promise();
                return;
            }
            Stage::Promised { founding: own, .. } => {
                let before = founder(own).map(|(_, node)| node);
                before == Some(from) || self.is_void(own) || self.is_mine(own) && *from < self.node
            }
            Stage::Agreed(_) | Stage::Founded(_) => false,
        };
        if free {
            self.withdraw();
            self.promise(founding);
        } else {
            self.announce(from);
        }
    }

    /// Tells the founder, once the promise is on disk.
    fn say_promise(&mut self) {
        if let Stage::Promised {
            founding,
            saved: true,
            ..
        } = &self.stage
            && let Some((_, node)) = founder(founding)
        {
            let (group, node) = (founding.group, node.clone());
            if node != self.node {
                self.send(&node, Message::Promise { group });
            }
        }
    }

    pub(super) fn on_promise(&mut self, from: &NodeName, group: u64) {
        if let Stage::Promised {
            founding, promises, ..
        } = &mut self.stage
            && founding.group == group
            && let Some(member) = founding.configuration.member_on(from)
        {
            promises.insert(member);
            self.seek();
        }
    }

    pub(super) fn on_withdraw(&mut self, from: &NodeName, group: u64) {
        if let Stage::Promised { founding, .. } = &self.stage
            && founding.group == group
            && founder(founding).is_some_and(|(_, node)| node == from)
        {
            self.stage = Stage::Seeking;
            self.announce_to_all();
            self.seek();
        }
    }

    fn promise(&mut self, founding: Founding) {
        self.stage = Stage::Promised {
            founding: founding.clone(),
            saved: false,
            promises: BTreeSet::new(),
        };
        self.save_founding(founding);
    }

    fn agree(&mut self, founding: Founding) {
        let founding = Founding {
            agreed: true,
            ..founding
        };
        self.stage = Stage::Agreed(founding.clone());
        self.save_founding(founding);
    }

    /// What an earlier founding left behind is removed with the same write: this node was never part of what comes.
    fn save_founding(&mut self, founding: Founding) {
        self.persist(
            Written::Founding(founding.group, founding.agreed),
            Disk {
                founding: Some(founding),
                clear: true,
                write: Write {
                    token: PersistToken(0),
                    hard: None,
                    snapshot: None,
                    purge: 0,
                    truncate: None,
                    entries: Vec::new(),
                },
            },
        );
    }

    /// Founds the group anew with what this node has: a snapshot of it, as the beginning of another log.
    pub(super) fn force(&mut self, call: CallId) {
        let Some(engine) = &self.engine else {
            return self.answer(call, Answer::NoLeader);
        };
        let status = engine.status();
        let Ok(configuration) = Configuration::new([self.member], []) else {
            return;
        };
        let founding = Founding {
            group: self.random.bits(),
            configuration: configuration.on_nodes([(self.member, self.node.clone())]),
            agreed: true,
        };
        let hard = HardState {
            term: status.term + 1,
            vote: None,
        };
        let snapshot = Snapshot {
            index: status.last + FORCED_GAP,
            term: hard.term,
            configuration: founding.configuration.clone(),
            state: self.machine.encode().into(),
        };
        self.engine = None;
        self.stage = Stage::Agreed(founding.clone());
        self.forced = Some((
            call,
            Restored {
                hard,
                snapshot: Some(snapshot.clone()),
                entries: Vec::new(),
            },
        ));
        let write = Write {
            token: PersistToken(0),
            hard: Some(hard),
            snapshot: Some(snapshot),
            purge: 0,
            truncate: None,
            entries: Vec::new(),
        };
        self.persist(
            Written::Founding(founding.group, true),
            Disk {
                founding: Some(founding),
                clear: true,
                write,
            },
        );
    }

    /// Gives a write its number.
    pub(super) fn persist(&mut self, written: Written, mut disk: Disk) {
        let token = self.next_write;
        self.next_write.0 += 1;
        self.writes.push_back((token, written));
        disk.write.token = token;
        self.outputs.push(Output::Persist(Box::new(disk)));
    }

    /// A founding is on disk.
    pub(super) fn saved(&mut self, group: u64, agreed: bool) {
        match &mut self.stage {
            Stage::Promised {
                founding, saved, ..
            } if founding.group == group && !agreed => {
                *saved = true;
                self.say_promise();
                self.seek();
            }
            Stage::Agreed(founding) if founding.group == group && agreed => {
                let founding = founding.clone();
                let (call, restored) = self.forced.take().unzip();
                self.open(founding, restored.unwrap_or_default());
                if let Some(call) = call {
                    let term = self
                        .engine
                        .as_ref()
                        .map_or(0, |engine| engine.status().term);
                    self.answer(call, Answer::Done(term));
                }
                self.announce_to_all();
            }
            _ => {}
        }
    }
}

/// The names without order or repetition; what is wrong with their number.
pub(super) fn check(voters: Voters) -> Result<Voters, usize> {
    let count = match &voters {
        Voters::Named(names) => names.iter().collect::<BTreeSet<_>>().len(),
        Voters::Expect(count) => *count,
    };
    if !(1..=MAX_VOTERS).contains(&count) {
        return Err(count);
    }
    Ok(match voters {
        Voters::Named(mut names) => {
            names.sort_unstable();
            names.dedup();
            Voters::Named(names)
        }
        expect @ Voters::Expect(_) => expect,
    })
}
