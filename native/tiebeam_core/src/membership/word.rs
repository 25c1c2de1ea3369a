//! What follows from a word about a member, whoever says it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::member::{Kind, Member, Status};
use super::peer::Peer;
use super::{MAX_PEERS, Membership, Timer, merge};
use crate::action::{Action, Notice};
use crate::identity::NodeName;
use crate::message::{Claim, Metadata, Word};
use crate::mutation::Mutation;
use crate::time::{Duration, Instant};

impl Membership {
    /// Somebody said something about a member.
    pub(super) fn hear(&mut self, now: Instant, word: Word, actions: &mut Vec<Action>) {
        if word.node == self.me.node {
            return self.hear_of_me(now, &word, actions);
        }
        let Some(peer) = self.peers.get(&word.node) else {
            return self.introduce(now, word, actions);
        };
        let refused = peer.link.as_ref().is_some_and(|link| link.refused);
        if refused {
            // It is in another cluster, and said so; who says otherwise has not heard it yet.
            return;
        }
        let Some(held) = &peer.member else {
            return self.introduce(now, word, actions);
        };
        match merge::compare(&word, held, self.mutation) {
            Ordering::Less => {}
            Ordering::Equal => {
                self.learn(now, &word, actions);
                if let Claim::Suspect { by } = &word.claim {
                    self.confirmed(now, &word, by);
                }
            }
            Ordering::Greater => {
                let speaks = held.kind == Kind::Plain && word.kind != Kind::Plain;
                if held.creation != word.creation && !self.begin_life(now, &word, actions) {
                    return;
                }
                match &word.claim {
                    Claim::Alive => self.hear_alive(now, &word, speaks, actions),
                    Claim::Suspect { by } => {
                        let by = by.clone();
                        self.hear_suspect(now, &word, by, actions);
                    }
                    Claim::Dead => self.condemned(now, &word, actions),
                    Claim::Left => self.hear_left(now, &word, actions),
                }
            }
        }
    }

    /// A word about a node that is no member yet.
    fn introduce(&mut self, now: Instant, word: Word, actions: &mut Vec<Action>) {
        // Who was dead before this node heard of it never was a member here.
        if matches!(word.claim, Claim::Dead | Claim::Left) {
            return;
        }
        if !self.peers.contains_key(&word.node) && !self.make_room(actions) {
            tracing::warn!(node = %word.node, limit = MAX_PEERS, "not watched: too many nodes are known");
            return;
        }
        let peer = self.peers.entry(word.node.clone()).or_default();
        peer.member = Some(Member {
            node: word.node.clone(),
            creation: word.creation,
            incarnation: word.incarnation,
            kind: word.kind,
            // Not counted before it is alive.
            status: Status::Dead,
            metadata: Arc::from(&[][..]),
            round_trip: None,
        });
        peer.told = None;
        if word.kind != Kind::Plain {
            self.probes.add_member(&mut self.random, word.node.clone());
        }
        self.hear_alive(now, &word, false, actions);
        if let Claim::Suspect { by } = &word.claim {
            self.hear_suspect(now, &word, by.clone(), actions);
        }
    }

    /// A word of another creation than the one that is held wins. False when it has to wait, or is not believed.
    fn begin_life(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) -> bool {
        if self.is(Mutation::CreationIgnored) {
            return true;
        }
        let Some(peer) = self.peers.get_mut(&word.node) else {
            return false;
        };
        let Some(held) = &peer.member else {
            return false;
        };
        // Whose creation was not known spoke for itself for the first time: it is the same life.
        let unknown = held.kind == Kind::Plain && word.kind != Kind::Plain;
        if unknown {
            if let Some(member) = &mut peer.member {
                member.creation = word.creation;
                member.kind = word.kind;
            }
            self.probes.add_member(&mut self.random, word.node.clone());
            self.timers.cancel(&Timer::Observe(word.node.clone()));
            return true;
        }
        let speaks_with = peer.link.as_ref().and_then(|link| link.creation);
        if peer.past == Some(word.creation) && speaks_with != peer.past {
            // Its life is over: who says otherwise has not heard of the next one, which will outdo that.
            return false;
        }
        if peer.here().is_some() {
            let known = Some(held.creation);
            if peer.conflict == Some(word.creation) {
                return false;
            }
            if peer
                .link
                .as_ref()
                .is_some_and(|link| link.creation == known)
            {
                self.challenge(now, word, actions);
                return false;
            }
        }
        self.end_life(now, &word.node, actions);
        if let Some(peer) = self.peers.get_mut(&word.node)
            && let Some(member) = &mut peer.member
        {
            peer.past = Some(member.creation);
            member.creation = word.creation;
            member.kind = word.kind;
            member.metadata = Arc::from(&[][..]);
            member.round_trip = None;
            peer.told = None;
        }
        true
    }

    /// The life of a name that is held is over: another one has begun.
    fn end_life(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        if self.change(now, name, Status::Dead) == Some(true)
            && let Some(member) = self.member(name)
        {
            actions.push(Action::Notify(Notice::Down(member.clone())));
            self.metrics.deaths += 1;
        }
    }

    /// Sets a member's status and ends its suspicion. Whether it was here before; `None` when it is no member.
    pub(super) fn change(&mut self, now: Instant, name: &NodeName, status: Status) -> Option<bool> {
        let peer = self.peers.get_mut(name)?;
        let member = peer.member.as_mut()?;
        let before = member.status;
        member.status = status;
        peer.suspicion = None;
        peer.changed = now;
        self.timers.cancel(&Timer::Verdict(name.clone()));
        self.timers.cancel(&Timer::LastCall(name.clone()));
        match status {
            Status::Alive | Status::Suspect => self.timers.cancel(&Timer::Forget(name.clone())),
            Status::Dead | Status::Left => {
                let at = now + self.timing.forget_after;
                self.timers.set(Timer::Forget(name.clone()), at);
                self.timers.cancel(&Timer::Observe(name.clone()));
            }
        }
        if before != status {
            self.recount(before, status);
        }
        Some(matches!(before, Status::Alive | Status::Suspect))
    }

    pub(super) fn member(&self, name: &NodeName) -> Option<&Member> {
        self.peers.get(name)?.member.as_ref()
    }

    /// A member is alive. `speaks`: it was only observed so far, and now spoke for itself.
    fn hear_alive(&mut self, now: Instant, word: &Word, speaks: bool, actions: &mut Vec<Action>) {
        let name = &word.node;
        let Some(before) = self.member(name).map(|member| member.status) else {
            return;
        };
        self.change(now, name, Status::Alive);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.reminded = None;
        let linked = peer.link.is_some();
        let Some(member) = &mut peer.member else {
            return;
        };
        member.incarnation = word.incarnation;
        let plain = member.kind == Kind::Plain;
        // The first notice of a member carries its metadata.
        let changed = self.adopt(word) == Some(true);
        let Some(member) = self.member(name).cloned() else {
            return;
        };
        let notice = match before {
            Status::Dead | Status::Left => Notice::Up(member),
            Status::Suspect => {
                self.metrics.recovered += 1;
                Notice::Recovered(member)
            }
            Status::Alive if changed || speaks => Notice::Updated(member),
            Status::Alive => Notice::Refreshed(member),
        };
        actions.push(Action::Notify(notice));
        if matches!(before, Status::Dead | Status::Left) {
            if !linked {
                self.greet_soon(now, name);
            }
            // Somebody should hear of the newcomer soon.
            self.hasten_sync(now);
        }
        if plain {
            self.watch(now, name.clone());
        }
        self.spread_held(now, name);
    }

    fn hear_suspect(&mut self, now: Instant, word: &Word, by: NodeName, actions: &mut Vec<Action>) {
        let name = &word.node;
        let Some(before) = self.member(name).map(|member| member.status) else {
            return;
        };
        if matches!(before, Status::Dead | Status::Left) {
            // It was alive again in between.
            self.hear_alive(now, word, false, actions);
        }
        self.suspect(now, name, word.incarnation, by);
        self.spread(now, word.clone());
        if before != Status::Suspect
            && let Some(member) = self.member(name)
        {
            actions.push(Action::Notify(Notice::Suspect(member.clone())));
        }
        self.begin_trial(now, name, actions);
    }

    fn hear_left(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) {
        let name = &word.node;
        let was_here = self.change(now, name, Status::Left) == Some(true);
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        let Some(member) = &mut peer.member else {
            return;
        };
        member.incarnation = word.incarnation;
        if was_here {
            actions.push(Action::Notify(Notice::Left(member.clone())));
        }
        if !peer.seed {
            self.timers.cancel(&Timer::Greet(name.clone()));
        }
        self.spread(now, word.clone());
    }

    /// A word adds nothing to a member's status, but it may carry newer metadata.
    fn learn(&mut self, now: Instant, word: &Word, actions: &mut Vec<Action>) {
        let Some(changed) = self.adopt(word) else {
            return;
        };
        let here = self.peers.get(&word.node).and_then(Peer::here);
        if let Some(member) = here.filter(|_| changed) {
            actions.push(Action::Notify(Notice::Updated(member.clone())));
        }
        self.spread_held(now, &word.node);
    }

    /// Takes over newer metadata. Whether they say something else; `None` when there were no newer ones.
    fn adopt(&mut self, word: &Word) -> Option<bool> {
        let peer = self.peers.get_mut(&word.node)?;
        let heard = word.metadata.as_ref()?;
        if peer.metadata().is_some_and(|held| *heard <= held) {
            return None;
        }
        let member = peer.member.as_mut()?;
        let changed = member.metadata != heard.bytes;
        member.metadata = Arc::clone(&heard.bytes);
        peer.told = Some(heard.told);
        Some(changed)
    }

    /// Passes on what is held of a member.
    fn spread_held(&mut self, now: Instant, name: &NodeName) {
        if let Some(word) = self.peers.get(name).and_then(|peer| self.word_of(peer)) {
            self.spread(now, word);
        }
    }

    /// What is held of a member, as a word.
    pub(super) fn word_of(&self, peer: &Peer) -> Option<Word> {
        let member = peer.member.as_ref()?;
        let claim = match member.status {
            Status::Alive => Claim::Alive,
            Status::Suspect => {
                let accuser = peer
                    .suspicion
                    .as_ref()
                    .and_then(|suspicion| suspicion.accuser());
                let by = accuser.unwrap_or(&self.me.node).clone();
                Claim::Suspect { by }
            }
            Status::Dead => Claim::Dead,
            Status::Left => Claim::Left,
        };
        let metadata = match claim {
            Claim::Alive => peer.metadata(),
            Claim::Suspect { .. } | Claim::Dead | Claim::Left => None,
        };
        Some(Word {
            node: member.node.clone(),
            creation: member.creation,
            incarnation: member.incarnation,
            kind: member.kind,
            claim,
            metadata,
        })
    }

    pub(super) fn word_of_me(&self) -> Word {
        Word {
            node: self.me.node.clone(),
            creation: self.me.creation,
            incarnation: self.me.incarnation,
            kind: self.me.kind,
            claim: Claim::Alive,
            metadata: Some(self.metadata_of_me()),
        }
    }

    pub(super) fn metadata_of_me(&self) -> Metadata {
        Metadata {
            told: self.told,
            bytes: Arc::clone(&self.me.metadata),
        }
    }

    /// Says hello to `name` soon, but not at the same time as all the others who just heard of it.
    pub(super) fn greet_soon(&mut self, now: Instant, name: &NodeName) {
        let pause = self.random.below(self.timing.greet_first.as_micros());
        self.timers.hasten(
            Timer::Greet(name.clone()),
            now + Duration::from_micros(pause),
        );
    }
}
