//! What is said of this node, and who is told what is said of it: only a member itself can outdo a word about it.

use alloc::vec::Vec;

use super::Membership;
use super::member::{Kind, Status};
use crate::action::{Action, Notice};
use crate::identity::NodeName;
use crate::message::{Body, Claim, Held, Message, Word};
use crate::mutation::Mutation;
use crate::time::Instant;

/// How often this node raises its incarnation against one other creation of its name.
const MAX_OUTDONE: u32 = 3;

impl Membership {
    /// Who is spoken to and held for suspect, dead or left is told so (Lifeguard, section 3.3, but in every message).
    pub(super) fn buddy(&self, to: &NodeName) -> Option<Word> {
        if self.is(Mutation::NoBuddy) {
            return None;
        }
        let peer = self.peers.get(to)?;
        let speaks = peer.member.as_ref()?.kind != Kind::Plain;
        self.word_of(peer)
            .filter(|word| speaks && word.claim != Claim::Alive)
    }

    /// A member spoke whose own word is not what is held of it: tells it, so that it can outdo that.
    pub(super) fn remind(&mut self, now: Instant, to: &NodeName, actions: &mut Vec<Action>) {
        let pause = self.timing.gossip_interval;
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        // Once per round of gossip: two that cannot outdo each other must not chatter.
        if self.mutation == Some(Mutation::NoBuddy)
            || peer.reminded.is_some_and(|last| now.since(last) < pause)
        {
            return;
        }
        peer.reminded = Some(now);
        if let Some(word) = self.peers.get(to).and_then(|peer| self.word_of(peer)) {
            self.send_with(now, to, Body::Gossip, [word].into(), actions);
        }
    }

    /// What another node holds of this one, as a hello tells it.
    pub(super) fn hear_held(
        &mut self,
        now: Instant,
        from: &NodeName,
        held: Held,
        actions: &mut Vec<Action>,
    ) {
        let word = Word {
            node: self.me.node.clone(),
            creation: held.creation,
            incarnation: held.incarnation,
            kind: self.me.kind,
            claim: match held.status {
                Status::Alive => Claim::Alive,
                Status::Suspect => Claim::Suspect { by: from.clone() },
                Status::Dead => Claim::Dead,
                Status::Left => Claim::Left,
            },
            metadata: None,
        };
        self.hear_of_me(now, &word, actions);
    }

    /// Somebody said something about this node: what is wrong is outdone by a higher incarnation (SWIM, section 4.2).
    pub(super) fn hear_of_me(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) {
        let own = word.creation == self.me.creation;
        // Nodes that only observe this one do not know it: its next hello teaches them.
        if word.kind == Kind::Plain {
            return;
        }
        let ahead = word.incarnation > self.me.incarnation;
        let level = word.incarnation == self.me.incarnation;
        let bad = word.claim != Claim::Alive;
        let said = ahead || (level && (bad || !own));
        if own && !bad {
            self.acknowledged = true;
        }
        if !said {
            return;
        }
        if !own && !bad && !self.outdo_rival(word.creation, actions) {
            return;
        }
        if own && matches!(word.claim, Claim::Suspect { .. } | Claim::Dead) {
            self.metrics.refutations += 1;
            self.feel(1, actions);
        }
        if word.incarnation == u64::MAX {
            // Cannot be outdone. Only a member that forgets it will take this node in again.
            tracing::error!(
                creation = word.creation,
                "this node was given the last incarnation there is"
            );
        }
        self.me.incarnation = word.incarnation.saturating_add(1);
        self.told = self.me.incarnation;
        actions.push(Action::Notify(Notice::Refreshed(self.me.clone())));
        self.spread(now, self.word_of_me());
    }

    /// Another creation of this node's name is said to be alive. An earlier life is outdone once, before others speak of
    /// this one; one that goes on is another running node, and this one does not go on for ever. False when it is enough.
    fn outdo_rival(&mut self, creation: u32, actions: &mut Vec<Action>) -> bool {
        let outdone = match self.rival {
            Some((rival, outdone)) if rival == creation => outdone,
            Some(_) | None => 0,
        };
        self.rival = Some((creation, outdone.saturating_add(1)));
        let expected = u32::from(!self.acknowledged);
        if outdone == expected {
            actions.push(Action::Notify(Notice::Conflict {
                kept: self.me.clone(),
                refused: creation,
            }));
        }
        outdone < MAX_OUTDONE
    }

    /// This node has left: its farewell outdoes what is held of it, for example of an earlier life, or a suspicion.
    pub(super) fn outdo_late(&mut self, message: &Message) {
        let me = &self.me;
        let words = message.words.iter().filter(|word| word.node == me.node);
        let words = words.map(|word| (word.creation, word.incarnation));
        let held = match &message.body {
            Body::Hello(hello) => hello.held,
            _ => None,
        };
        let held = held.map(|held| (held.creation, held.incarnation));
        let outdone = words.chain(held).filter(|&(creation, incarnation)| {
            // Within one incarnation of one life a farewell is the last word.
            let level = incarnation == me.incarnation && creation != me.creation;
            incarnation > me.incarnation || level
        });
        if let Some((_, incarnation)) = outdone.max_by_key(|&(_, incarnation)| incarnation) {
            self.me.incarnation = incarnation.saturating_add(1);
        }
    }
}
