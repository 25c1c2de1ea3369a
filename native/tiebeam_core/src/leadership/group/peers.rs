//! The other nodes: which of them are here, and under which identity each takes part.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::config::Founding;
use super::message::Announce;
use crate::identity::NodeName;
use crate::leadership::entry::MemberId;
use crate::time::Instant;

/// The most nodes that are known: as many as a cluster of this kind has in the end, and then some. More are not talked to.
pub(super) const MAX_NODES: usize = 1024;

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// It is connected, as far as is known.
    pub(super) up: bool,
    /// What it said last in its present life.
    pub(super) said: Option<Announce>,
    /// That it is in another group was told.
    pub(super) foreign: bool,
    /// Since when it is not here.
    pub(super) gone: Option<Instant>,
}

impl Peer {
    /// The founding that it agreed to, or promised.
    pub(super) fn founding(&self) -> Option<&Founding> {
        self.said.as_ref()?.founding.as_ref()
    }
}

/// All other nodes, and where each member is that spoke.
#[derive(Debug, Default)]
pub(super) struct Peers {
    nodes: BTreeMap<NodeName, Peer>,
    members: BTreeMap<MemberId, NodeName>,
    /// How many of those that are here are in another group.
    foreign: usize,
}

impl Peers {
    /// The node, as it is known from now on; `None` if so many are known already.
    pub(super) fn meet(&mut self, node: &NodeName) -> Option<&mut Peer> {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(node) {
            return None;
        }
        Some(self.nodes.entry(node.clone()).or_default())
    }

    pub(super) fn get(&self, node: &NodeName) -> Option<&Peer> {
        self.nodes.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeName) -> Option<&mut Peer> {
        self.nodes.get_mut(node)
    }

    pub(super) fn is_up(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|peer| peer.up)
    }

    /// A node said something of itself. Its earlier identity is over.
    pub(super) fn announced(&mut self, node: &NodeName, announce: Announce) {
        let member = announce.member;
        let Some(peer) = self.meet(node) else {
            return;
        };
        let before = peer.said.replace(announce).map(|said| said.member);
        if let Some(before) = before.filter(|before| *before != member) {
            self.members.remove(&before);
        }
        self.members.insert(member, node.clone());
    }

    /// Under which identity a node takes part.
    pub(super) fn member_of(&self, node: &NodeName) -> Option<MemberId> {
        let said = self.nodes.get(node)?.said.as_ref()?;
        Some(said.member)
    }

    /// Where a member is that spoke.
    pub(super) fn node_of(&self, member: MemberId) -> Option<&NodeName> {
        self.members.get(&member)
    }

    /// A node is in another group. Says whether that is news.
    pub(super) fn refuses(&mut self, node: &NodeName) -> bool {
        let peer = self.nodes.get_mut(node);
        let news = peer.is_some_and(|peer| !core::mem::replace(&mut peer.foreign, true));
        self.foreign += usize::from(news);
        news
    }

    /// A node is gone since now, if it was here.
    pub(super) fn left(&mut self, node: &NodeName, now: Instant) -> bool {
        let Some(peer) = self.nodes.get_mut(node).filter(|peer| peer.up) else {
            return false;
        };
        (peer.up, peer.gone) = (false, Some(now));
        self.foreign -= usize::from(core::mem::replace(&mut peer.foreign, false));
        true
    }

    /// One of those that are here is in another group.
    pub(super) fn any_foreign(&self) -> bool {
        self.foreign > 0
    }

    /// Those that are here and in another group.
    pub(super) fn foreign(&self) -> Vec<NodeName> {
        let foreign = self.nodes.iter().filter(|(_, peer)| peer.foreign);
        foreign.map(|(node, _)| node.clone()).collect()
    }

    /// Those that are here.
    pub(super) fn present(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.nodes.iter().filter(|(_, peer)| peer.up)
    }
}
