//! Two lives of one name: the later one, or two running nodes.
//!
//! Usually the earlier life is over, and its connection with it. While a member is still connected under the creation that
//! is known of it, a word of another creation waits until that one had the time to answer. If it does, two running nodes
//! have one name: the known one is kept, and both are told.

use alloc::vec::Vec;

use super::{Membership, Timer};
use crate::action::{Action, Notice};
use crate::identity::NodeName;
use crate::message::{Body, Word};
use crate::time::Instant;

impl Membership {
    /// The name's known life may still answer: asks it before another one is believed.
    pub(super) fn challenge(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&word.node) else {
            return;
        };
        let asked = peer.challenge.replace(word.clone()).is_some();
        if !asked {
            let number = self.probes.next_number();
            self.send(now, &word.node, Body::Ping { number }, actions);
            let at = now + self.timing.probe_timeout;
            self.timers.set(Timer::Challenge(word.node.clone()), at);
        }
    }

    /// The known life of a challenged name spoke: it is kept, and two nodes have one name.
    pub(super) fn answered(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(word) = peer.challenge.take() else {
            return;
        };
        self.timers.cancel(&Timer::Challenge(name.clone()));
        peer.conflict = Some(word.creation);
        if let Some(kept) = peer.member.clone() {
            actions.push(Action::Notify(Notice::Conflict {
                kept,
                refused: word.creation,
            }));
        }
        self.send_with(now, name, Body::Gossip, [word].into(), actions);
    }

    /// It did not: the other life is believed.
    pub(super) fn unanswered(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(word) = peer.challenge.take() {
            if let Some(link) = &mut peer.link {
                link.creation = None;
            }
            self.hear(now, word, actions);
        }
    }
}
