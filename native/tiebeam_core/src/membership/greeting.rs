//! Connections, hellos, and what arrives over them.

use alloc::string::String;
use alloc::vec::Vec;

use super::member::{Kind, Status};
use super::peer::Link;
use super::{MAX_PEERS, Membership, Timer, merge};
use crate::action::{Action, Notice, Why};
use crate::identity::NodeName;
use crate::message::{Body, Claim, Hello, Message, Word};
use crate::mutation::Mutation;
use crate::time::Instant;

impl Membership {
    pub(crate) fn connected(
        &mut self,
        now: Instant,
        to: NodeName,
        visible: bool,
        actions: &mut Vec<Action>,
    ) {
        if to == self.me.node || self.peers.get(&to).is_some_and(|peer| peer.link.is_some()) {
            return;
        }
        if !self.peers.contains_key(&to) && !self.make_room(actions) {
            tracing::warn!(node = %to, limit = MAX_PEERS, "not watched: too many nodes are connected");
            return;
        }
        let peer = self.peers.entry(to.clone()).or_default();
        peer.link = Some(Link {
            visible,
            introduced: false,
            creation: None,
            refused: false,
        });
        peer.greetings = 0;
        if let Some(suspicion) = &mut peer.suspicion {
            // What this connection carries from now on speaks for a suspect, not what an earlier one did.
            suspicion.baseline = None;
            actions.push(Action::Sample { node: to.clone() });
        }
        self.greet(now, to.clone(), actions);
        self.knock_again(now, &to, actions);
    }

    pub(crate) fn disconnected(&mut self, now: Instant, from: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.link.is_some()) else {
            return;
        };
        peer.link = None;
        peer.greetings = 0;
        peer.conflict = None;
        self.tables.stop(&from);
        self.timers.cancel(&Timer::Greet(from.clone()));
        let suspicion = peer.suspicion.as_ref();
        let (contested, on_trial) = suspicion.map_or((false, false), |suspicion| {
            (
                suspicion.contested.is_some() || suspicion.condemned,
                suspicion.on_trial,
            )
        });
        if let Some(word) = peer.challenge.take() {
            // Nobody answers for the old life any more.
            self.timers.cancel(&Timer::Challenge(from.clone()));
            self.hear(now, word, actions);
        }
        let here = self
            .peers
            .get(&from)
            .is_some_and(|peer| peer.here().is_some());
        if here && (contested || on_trial || self.is(Mutation::NodedownIsDeath)) {
            // The connection has decided.
            self.die(now, &from, actions);
        } else if here {
            self.probe(now, from.clone(), actions);
        }
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        match &peer.member {
            None if !peer.seed => drop(self.peers.remove(&from)),
            Some(member) if !peer.seed && member.status == Status::Left => {}
            Some(_) | None => self.schedule_greeting(now, from),
        }
    }

    /// A message arrived over the connection of `from`.
    pub(crate) fn received(
        &mut self,
        now: Instant,
        from: NodeName,
        message: Message,
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.peers.get(&from).and_then(|peer| peer.link.as_ref()) else {
            return self.ignore(from, Why::NotConnected, actions);
        };
        let told_off = link.refused;
        match &message.body {
            Body::Hello(hello) | Body::Welcome(hello) if hello.node != from => {
                let claimed = hello.node.clone();
                return self.ignore(from, Why::NotTheSender { claimed }, actions);
            }
            Body::Hello(hello) | Body::Welcome(hello) if hello.cluster != self.cluster => {
                let refusal = self.message(Body::Refused {
                    cluster: self.cluster.clone(),
                });
                self.transmit(&from, &refusal, actions);
                return self.refused(now, &from, hello.cluster.clone(), actions);
            }
            Body::Refused { cluster } if *cluster == self.cluster => {
                return self.ignore(from, Why::Stale, actions);
            }
            Body::Refused { cluster } => {
                return self.refused(now, &from, cluster.clone(), actions);
            }
            _ if message.cluster != self.cluster_digest => {
                // It takes this node for a member of its own cluster: a hello makes both sides say so.
                self.metrics.ignored += 1;
                if !told_off {
                    self.send_hello(Body::Hello, &from, actions);
                }
                return;
            }
            Body::Hello(_) | Body::Welcome(_) | Body::Leave | Body::Gossip => {}
            Body::Ping { .. } | Body::Ack { .. } | Body::PingReq { .. } | Body::Nack { .. } => {}
            Body::Digest { .. } | Body::Table { .. } => {}
        }
        if !self.hear_sender(now, &from, &message, actions) {
            if matches!(message.body, Body::Hello(_)) {
                // It should know whose name it has.
                self.send_hello(Body::Welcome, &from, actions);
            }
            return;
        }
        let table = matches!(message.body, Body::Table { .. });
        let incarnation = self.me.incarnation;
        for word in message.words {
            match table {
                true => self.hear_entry(now, &from, word, actions),
                false => self.hear(now, word, actions),
            }
        }
        for broadcast in message.broadcasts {
            self.hear_broadcast(now, broadcast, actions);
        }
        let answered = matches!(message.body, Body::Hello(_) | Body::Ping { .. });
        if self.me.incarnation != incarnation && !answered {
            // Who said something wrong of this node should know at once.
            self.send(now, &from, Body::Gossip, actions);
        }
        match message.body {
            // Also to a stale hello: the welcome tells its sender what to outdo.
            Body::Hello(_) => self.send_hello(Body::Welcome, &from, actions),
            Body::Welcome(_) | Body::Refused { .. } | Body::Leave | Body::Gossip => {}
            Body::Ping { number } => {
                let answer = Body::Ack {
                    number,
                    creation: self.me.creation,
                    incarnation: self.me.incarnation,
                };
                self.send(now, &from, answer, actions);
            }
            Body::Ack {
                number,
                creation,
                incarnation,
            } => self.acked(now, &from, number, creation, incarnation, actions),
            Body::PingReq { number, node } => self.probe_for(now, from, number, node, actions),
            Body::Nack { number } => self.nacked(&from, number),
            Body::Digest {
                members,
                broadcasts,
            } => self.hear_digest(now, from, &members, broadcasts, actions),
            Body::Table { wanted, broadcasts } => {
                self.hear_table(now, from, wanted, broadcasts, actions);
            }
        }
    }

    /// Every message says of which life its sender is. False when that is not the one that is listened to.
    fn hear_sender(
        &mut self,
        now: Instant,
        from: &NodeName,
        message: &Message,
        actions: &mut Vec<Action>,
    ) -> bool {
        let hello = match &message.body {
            Body::Hello(hello) | Body::Welcome(hello) => Some(hello),
            _ => None,
        };
        let Some(peer) = self.peers.get_mut(from) else {
            return false;
        };
        peer.heard = now;
        let before = peer.held();
        let Some(link) = &mut peer.link else {
            return false;
        };
        let creation = *link.creation.get_or_insert(message.creation);
        let same = creation == message.creation;
        if hello.is_some() {
            link.introduced |= same;
            link.refused = false;
            peer.greetings = 0;
            self.timers.cancel(&Timer::Greet(from.clone()));
        } else if before.is_none() && message.body == Body::Leave {
            // It leaves before it was ever heard of.
            link.introduced = true;
            self.timers.cancel(&Timer::Greet(from.clone()));
        } else if before.is_none() {
            // A member that this node forgot, or never met: its hello tells the rest.
            link.introduced = false;
            self.timers.hasten(Timer::Greet(from.clone()), now);
        }
        if same {
            self.answered(now, from, actions);
        }
        let kind = hello.map(|hello| hello.kind);
        let known = self.member(from).map(|member| member.kind);
        if let Some(kind) = kind.or(known.filter(|kind| *kind != Kind::Plain)) {
            let heads =
                hello.is_some() || before.is_some_and(|held| held.creation != message.creation);
            let word = Word {
                node: from.clone(),
                creation: message.creation,
                incarnation: message.incarnation,
                kind,
                claim: match message.body {
                    Body::Leave => Claim::Left,
                    _ => Claim::Alive,
                },
                metadata: hello.map(|hello| hello.metadata.clone()),
            };
            let leaves = word.claim == Claim::Left;
            if heads || leaves || !self.is(Mutation::NoSenderIncarnation) {
                self.compare_sender(now, from, word, &message.body, actions);
            }
        }
        if let Some(held) = hello.and_then(|hello| hello.held) {
            let incarnation = self.me.incarnation;
            self.hear_held(now, from, held, actions);
            let asked = matches!(message.body, Body::Hello(_));
            if self.me.incarnation != incarnation && !asked {
                // What it holds was outdone: it should know at once. Who asked gets a welcome anyway.
                self.send_hello(Body::Hello, from, actions);
            }
        }
        if hello.is_some() && before.is_none_or(|held| held.status == Status::Dead) {
            self.met(now, from, before.is_some(), actions);
        }
        same
    }

    /// What a sender says of itself, by word or by speaking at all.
    fn compare_sender(
        &mut self,
        now: Instant,
        from: &NodeName,
        word: Word,
        body: &Body,
        actions: &mut Vec<Action>,
    ) {
        let Some(held) = self
            .member(from)
            .filter(|held| merge::compare(&word, held, self.mutation).is_lt())
        else {
            return self.hear(now, word, actions);
        };
        let (status, same) = (held.status, held.creation == word.creation);
        match body {
            // The welcome, or the next hello, tells it what is held.
            Body::Hello(_) | Body::Welcome(_) => self.ignore(from.clone(), Why::Stale, actions),
            // The ack does.
            Body::Ping { .. } if status != Status::Alive => {}
            // Who left knows.
            _ if status == Status::Left && same => {}
            _ => self.remind(now, from, actions),
        }
    }

    /// A message arrived although this node has left: its sender missed the farewell.
    pub(crate) fn received_late(
        &mut self,
        from: &NodeName,
        message: &Message,
        actions: &mut Vec<Action>,
    ) {
        let asks = matches!(message.body, Body::Hello(_) | Body::Ping { .. });
        if asks && message.cluster == self.cluster_digest {
            self.outdo_late(message);
            let farewell = self.message(Body::Leave);
            self.transmit(from, &farewell, actions);
        }
    }

    /// Tells every member that this node leaves. Nothing is due afterwards.
    pub(crate) fn leave(&mut self, actions: &mut Vec<Action>) {
        let farewell = self.message(Body::Leave);
        let linked =
            |peer: &super::Peer| peer.link.is_some() && peer.here().is_some() && !peer.is_plain();
        let names: Vec<NodeName> = self
            .peers
            .iter()
            .filter(|(_, peer)| linked(peer))
            .map(|(name, _)| name.clone())
            .collect();
        if !self.is(Mutation::SilentLeave) {
            for name in names {
                self.transmit(&name, &farewell, actions);
            }
        }
        self.me.status = Status::Left;
        self.peers.clear();
        self.timers.clear();
        (self.alive, self.suspect, self.stable) = (0, 0, 1);
        actions.push(Action::Notify(Notice::Left(self.me.clone())));
    }

    /// `from` is in another cluster.
    fn refused(
        &mut self,
        now: Instant,
        from: &NodeName,
        cluster: String,
        actions: &mut Vec<Action>,
    ) {
        self.timers.cancel(&Timer::Greet(from.clone()));
        if self
            .peers
            .get(from)
            .is_some_and(|peer| peer.here().is_some())
        {
            self.die(now, from, actions);
        }
        let Some(link) = self.peers.get_mut(from).and_then(|peer| peer.link.as_mut()) else {
            return;
        };
        if !link.refused {
            link.refused = true;
            actions.push(Action::Notify(Notice::Refused {
                node: from.clone(),
                cluster,
            }));
        }
    }

    /// Says hello to a node that has not answered, and plans to say it again.
    pub(super) fn greet(&mut self, now: Instant, name: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&name) else {
            return;
        };
        let dead = peer
            .member
            .as_ref()
            .is_some_and(|member| member.status == Status::Dead);
        if dead && peer.link.is_none() && self.is(Mutation::NoReconnect) {
            return;
        }
        if peer
            .link
            .as_ref()
            .is_some_and(|link| link.introduced || link.refused)
        {
            return;
        }
        self.send_hello(Body::Hello, &name, actions);
        self.sound(&name, actions);
        self.schedule_greeting(now, name);
    }

    pub(super) fn schedule_greeting(&mut self, now: Instant, name: NodeName) {
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let pause = self
            .timing
            .greet_first
            .doubled(peer.greetings, self.timing.greet_max);
        peer.greetings = peer.greetings.saturating_add(1);
        let at = now + self.random.jitter(pause);
        self.timers.set(Timer::Greet(name), at);
    }

    fn send_hello(&mut self, body: fn(Hello) -> Body, to: &NodeName, actions: &mut Vec<Action>) {
        let held = self.peers.get(to).and_then(super::Peer::held);
        let hello = Hello {
            cluster: self.cluster.clone(),
            node: self.me.node.clone(),
            kind: self.me.kind,
            metadata: self.metadata_of_me(),
            held,
        };
        let message = self.message(body(hello));
        self.transmit(to, &message, actions);
    }

    pub(crate) fn ignore(&mut self, from: NodeName, why: Why, actions: &mut Vec<Action>) {
        self.metrics.ignored += 1;
        actions.push(Action::Notify(Notice::Ignored { from, why }));
    }
}
