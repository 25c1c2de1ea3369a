//! Membership: who is here.
//!
//! Every fact about a node is first-hand: it comes from that node, over its own connection. A hello makes a member
//! alive, the loss of the connection makes it dead, a leave makes it left. What other nodes list only teaches names, and
//! a name is greeted until it answers for itself.
//!
//! ```text
//!              Connected                     hello or welcome
//!   (unknown) ──────────► greeted, repeatedly ──────────────► alive ◄──────────────┐
//!                              ▲                              │    │               │ hello: the same creation,
//!   seeds, listed names ───────┘                 Disconnected │    │ leave         │ or another one after a
//!                                                             ▼    ▼               │ restart
//!                                                          dead    left ───────────┘
//! ```

mod health;
mod member;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::action::{Action, Notice, Why};
use crate::config::{Config, Timing};
use crate::identity::NodeName;
use crate::message::{Held, Hello, MAX_LISTED, Message, encode};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::timers::Timers;

pub use health::{Health, MAX_HEALTH_MULTIPLIER, Metrics};
pub use member::{Kind, MAX_BROADCAST_BYTES, MAX_METADATA_BYTES, Member, Status};

/// The most nodes that are known at a time, members or not. Far above what one full mesh of connections carries; it
/// bounds what strangers' lists can make this node remember.
pub const MAX_PEERS: usize = 4096;

/// How often a name that others listed is greeted before it is dropped. Who lists it knows it alive, so it answers
/// soon, or it is out of reach from here and will be listed again.
const LISTED_GREETINGS: u32 = 5;

/// The most deadlines handled in one step; the others are due at once in the next. Keeps a step short when thousands of
/// connections end together.
const MAX_DUE_PER_STEP: usize = 64;

/// Who is here, and what to do about it.
#[derive(Debug)]
pub(crate) struct Membership {
    cluster: String,
    timing: Timing,
    random: Random,
    me: Member,
    peers: BTreeMap<NodeName, Peer>,
    timers: Timers<Timer>,
    /// With whom lists were exchanged last.
    partner: Option<NodeName>,
}

/// What is known of another node.
#[derive(Debug, Default)]
struct Peer {
    /// Named in `join`: never dropped, dialled whenever it is away.
    seed: bool,
    connected: bool,
    /// It was told off for its cluster's identity on this connection.
    refused: bool,
    /// Greetings sent since the connection last changed.
    greetings: u32,
    /// Present from its first hello on.
    member: Option<Member>,
}

impl Peer {
    fn alive(&self) -> Option<&Member> {
        self.member
            .as_ref()
            .filter(|member| matches!(member.status, Status::Alive | Status::Suspect))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Say hello to a node that has not answered.
    Greet(NodeName),
    /// Drop a member that is dead or has left.
    Forget(NodeName),
    /// Exchange lists with the next member.
    Sync,
}

impl Membership {
    pub(crate) fn new(config: Config) -> Self {
        let Config {
            node,
            creation,
            incarnation,
            kind,
            cluster,
            join,
            seed,
            timing,
        } = config;
        let peers = join
            .into_iter()
            .filter(|name| *name != node)
            .map(|name| {
                (
                    name,
                    Peer {
                        seed: true,
                        ..Peer::default()
                    },
                )
            })
            .collect();
        Self {
            cluster,
            timing,
            random: Random::from_seed(seed),
            me: Member {
                node,
                creation,
                incarnation,
                kind,
                status: Status::Alive,
            },
            peers,
            timers: Timers::new(),
            partner: None,
        }
    }

    /// The first step of all: time begins.
    pub(crate) fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Notify(Notice::Up(self.me.clone())));
        for name in self.peers.keys() {
            self.timers.set(Timer::Greet(name.clone()), now);
        }
        self.schedule_sync(now);
    }

    pub(crate) fn connected(&mut self, now: Instant, to: NodeName, actions: &mut Vec<Action>) {
        if to == self.me.node || self.peers.get(&to).is_some_and(|peer| peer.connected) {
            return;
        }
        if !self.peers.contains_key(&to) && !self.make_room(actions) {
            tracing::warn!(node = %to, limit = MAX_PEERS, "not watched: too many nodes are connected");
            return;
        }
        let peer = self.peers.entry(to.clone()).or_default();
        peer.connected = true;
        peer.greetings = 0;
        self.greet(now, to, actions);
    }

    pub(crate) fn disconnected(&mut self, now: Instant, from: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.connected) else {
            return;
        };
        peer.connected = false;
        peer.refused = false;
        peer.greetings = 0;
        self.timers.cancel(&Timer::Greet(from.clone()));
        self.mark_dead(now, &from, actions);

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
        if !self.peers.get(&from).is_some_and(|peer| peer.connected) {
            return ignore(from, Why::NotConnected, actions);
        }
        match message {
            Message::Hello(hello) | Message::Welcome(hello) if hello.sender.node != from => {
                ignore(
                    from,
                    Why::NotTheSender {
                        claimed: hello.sender.node,
                    },
                    actions,
                );
            }
            Message::Leave(identity) if identity.node != from => {
                ignore(
                    from,
                    Why::NotTheSender {
                        claimed: identity.node,
                    },
                    actions,
                );
            }
            Message::Hello(hello) | Message::Welcome(hello) if hello.cluster != self.cluster => {
                let reply = Message::Refused {
                    cluster: self.cluster.clone(),
                };
                send(&from, &reply, actions);
                self.refused(now, from, hello.cluster, actions);
            }
            Message::Hello(hello) => {
                let to = from.clone();
                self.heard(now, from, hello, actions);
                // Also to a stale hello: the welcome tells its sender what to outdo.
                self.send_hello(Message::Welcome, &to, actions);
            }
            Message::Welcome(hello) => self.heard(now, from, hello, actions),
            Message::Refused { cluster } if cluster == self.cluster => {
                ignore(from, Why::Stale, actions)
            }
            Message::Refused { cluster } => self.refused(now, from, cluster, actions),
            Message::Leave(identity) => match self
                .peers
                .get_mut(&from)
                .and_then(|peer| peer.member.as_mut())
            {
                // It leaves before it was ever heard of.
                None => self.timers.cancel(&Timer::Greet(from)),
                Some(member)
                    if member.creation != identity.creation
                        || member.incarnation > identity.incarnation =>
                {
                    ignore(from, Why::Stale, actions);
                }
                Some(member) if member.status == Status::Left => {}
                Some(member) => {
                    member.status = Status::Left;
                    member.incarnation = identity.incarnation;
                    actions.push(Action::Notify(Notice::Left(member.clone())));
                    self.timers.cancel(&Timer::Greet(from.clone()));
                    self.timers
                        .set(Timer::Forget(from), now + self.timing.forget_after);
                }
            },
        }
    }

    /// A message arrived although this node has left: its sender missed the farewell.
    pub(crate) fn received_late(
        &self,
        from: &NodeName,
        message: &Message,
        actions: &mut Vec<Action>,
    ) {
        if let Message::Hello(hello) = message
            && hello.cluster == self.cluster
        {
            send(from, &Message::Leave(self.me.identity()), actions);
        }
    }

    /// Tells every member that this node leaves. Nothing is due afterwards.
    pub(crate) fn leave(&mut self, actions: &mut Vec<Action>) {
        let message = Message::Leave(self.me.identity());
        for name in self.alive() {
            send(name, &message, actions);
        }
        self.me.status = Status::Left;
        self.peers.clear();
        self.timers.clear();
        actions.push(Action::Notify(Notice::Left(self.me.clone())));
    }

    /// Does what is due at `now`.
    pub(crate) fn wake(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for _ in 0..MAX_DUE_PER_STEP {
            match self.timers.take_due(now) {
                None => break,
                Some(Timer::Greet(name)) => self.greet(now, name, actions),
                Some(Timer::Forget(name)) => self.forget(&name, actions),
                Some(Timer::Sync) => {
                    if let Some(partner) = self.next_partner() {
                        self.send_hello(Message::Hello, &partner, actions);
                        self.partner = Some(partner);
                    }
                    self.schedule_sync(now);
                }
            }
        }
    }

    /// Members in turn, so that each is heard from within a bounded time (as SWIM probes them, section 4.3); the first
    /// at random, so that nodes that start together do not all ask the same one.
    fn next_partner(&mut self) -> Option<NodeName> {
        let alive: Vec<NodeName> = self.alive().cloned().collect();
        let next = match &self.partner {
            Some(last) => alive.partition_point(|name| name <= last),
            None => self.random.below(alive.len() as u64) as usize,
        };
        alive.get(next).or(alive.first()).cloned()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn me(&self) -> &Member {
        &self.me
    }

    /// All members in the order of their names, this node included.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        let me = &self.me.node;
        let before = self
            .peers
            .range::<NodeName, _>((Bound::Unbounded, Bound::Excluded(me)));
        let after = self
            .peers
            .range::<NodeName, _>((Bound::Excluded(me), Bound::Unbounded));
        before
            .filter_map(|(_, peer)| peer.member.as_ref())
            .chain(core::iter::once(&self.me))
            .chain(after.filter_map(|(_, peer)| peer.member.as_ref()))
    }

    /// Panics when the state contradicts itself.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) {
        assert!(
            self.peers.len() <= MAX_PEERS,
            "{} peers, more than the limit",
            self.peers.len()
        );
        assert!(
            !self.peers.contains_key(&self.me.node),
            "this node is its own peer"
        );
        for (name, peer) in &self.peers {
            assert!(
                peer.connected || peer.alive().is_none(),
                "{name} is alive but not connected"
            );
            assert!(
                peer.connected || !peer.refused,
                "{name} is refused but not connected"
            );
            assert!(
                peer.member
                    .as_ref()
                    .is_none_or(|member| member.node == *name),
                "{name} has another's entry"
            );
        }
        self.timers.check();
    }

    fn alive(&self) -> impl Iterator<Item = &NodeName> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.alive().is_some())
            .map(|(name, _)| name)
    }

    /// A node of this cluster spoke for itself.
    fn heard(&mut self, now: Instant, from: NodeName, hello: Hello, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let fresh = Member {
            node: from.clone(),
            creation: hello.sender.creation,
            incarnation: hello.sender.incarnation,
            kind: hello.kind,
            status: Status::Alive,
        };
        let news = match &peer.member {
            None => Some(Notice::Up(fresh.clone())),
            Some(known) if known.creation != fresh.creation => {
                if peer.alive().is_some() {
                    actions.push(Action::Notify(Notice::Down(Member {
                        status: Status::Dead,
                        ..known.clone()
                    })));
                }
                Some(Notice::Up(fresh.clone()))
            }
            Some(known) if fresh.incarnation < known.incarnation => {
                return ignore(from, Why::Stale, actions);
            }
            Some(known) => match known.status {
                Status::Left if fresh.incarnation == known.incarnation => {
                    return ignore(from, Why::Stale, actions);
                }
                Status::Left | Status::Dead => Some(Notice::Up(fresh.clone())),
                Status::Alive | Status::Suspect => {
                    (*known != fresh).then(|| Notice::Refreshed(fresh.clone()))
                }
            },
        };
        peer.member = Some(fresh);
        peer.refused = false;
        peer.greetings = 0;
        self.timers.cancel(&Timer::Greet(from.clone()));
        self.timers.cancel(&Timer::Forget(from.clone()));

        if let Some(notice) = news {
            if matches!(notice, Notice::Up(_)) {
                // Somebody should hear of the newcomer soon.
                let soon = now + self.random.jitter(self.timing.greet_first);
                self.timers.hasten(Timer::Sync, soon);
            }
            actions.push(Action::Notify(notice));
        }
        if let Some(held) = hello.held {
            self.outdo(held, &from, actions);
        }
        for name in hello.listed {
            self.learn(now, name);
        }
    }

    /// Another node holds a belief about this one that only a higher incarnation can change.
    fn outdo(&mut self, held: Held, holder: &NodeName, actions: &mut Vec<Action>) {
        let outdone = held.incarnation > self.me.incarnation
            || (held.incarnation == self.me.incarnation && held.status == Status::Left);
        if held.creation == self.me.creation && outdone {
            self.me.incarnation = held.incarnation.saturating_add(1);
            actions.push(Action::Notify(Notice::Refreshed(self.me.clone())));
            self.send_hello(Message::Hello, holder, actions);
        }
    }

    /// Another node listed `name` as alive.
    fn learn(&mut self, now: Instant, name: NodeName) {
        if name == self.me.node || self.peers.contains_key(&name) || self.peers.len() >= MAX_PEERS {
            return;
        }
        tracing::debug!(node = %name, "learnt of a node");
        let soon =
            now + Duration::from_millis(self.random.below(self.timing.greet_first.as_millis()));
        self.timers.set(Timer::Greet(name.clone()), soon);
        self.peers.insert(name, Peer::default());
    }

    /// `from` is in another cluster.
    fn refused(
        &mut self,
        now: Instant,
        from: NodeName,
        cluster: String,
        actions: &mut Vec<Action>,
    ) {
        self.mark_dead(now, &from, actions);
        self.timers.cancel(&Timer::Greet(from.clone()));
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if !peer.refused {
            peer.refused = true;
            actions.push(Action::Notify(Notice::Refused {
                node: from,
                cluster,
            }));
        }
    }

    fn mark_dead(&mut self, now: Instant, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.alive().is_some()
            && let Some(member) = &mut peer.member
        {
            member.status = Status::Dead;
            actions.push(Action::Notify(Notice::Down(member.clone())));
            self.timers
                .set(Timer::Forget(name.clone()), now + self.timing.forget_after);
        }
    }

    fn forget(&mut self, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(member) = peer.member.take() {
            actions.push(Action::Notify(Notice::Forgotten(member)));
        }
        if !peer.connected && !peer.seed {
            self.peers.remove(name);
            self.timers.cancel(&Timer::Greet(name.clone()));
        }
    }

    /// Says hello to a node that has not answered, and plans to say it again.
    fn greet(&mut self, now: Instant, name: NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&name) else {
            return;
        };
        let hearsay = !peer.connected && !peer.seed && peer.member.is_none();
        if hearsay && peer.greetings >= LISTED_GREETINGS {
            self.peers.remove(&name);
            return;
        }
        self.send_hello(Message::Hello, &name, actions);
        self.schedule_greeting(now, name);
    }

    fn schedule_greeting(&mut self, now: Instant, name: NodeName) {
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

    fn schedule_sync(&mut self, now: Instant) {
        let at = now + self.random.jitter(self.timing.sync_every);
        self.timers.set(Timer::Sync, at);
    }

    fn send_hello(
        &mut self,
        message: fn(Hello) -> Message,
        to: &NodeName,
        actions: &mut Vec<Action>,
    ) {
        let held = self
            .peers
            .get(to)
            .and_then(|peer| peer.member.as_ref())
            .map(|member| Held {
                creation: member.creation,
                incarnation: member.incarnation,
                status: member.status,
            });
        let hello = Hello {
            cluster: self.cluster.clone(),
            sender: self.me.identity(),
            kind: self.me.kind,
            held,
            listed: self.list(to),
        };
        send(to, &message(hello), actions);
    }

    /// Members for a hello to `to`: all of them if they fit, else a run of neighbours from a random one on.
    fn list(&mut self, to: &NodeName) -> Vec<NodeName> {
        let count = self.alive().filter(|name| *name != to).count();
        let first = match count <= MAX_LISTED {
            true => 0,
            false => self.random.below(count as u64) as usize,
        };
        // The names behind `first`, then those before it.
        let others = || self.alive().filter(|name| *name != to);
        let names = others().skip(first).chain(others().take(first));
        names.take(MAX_LISTED).cloned().collect()
    }

    /// Drops one node that is away when the table is full. False when all are connected or seeds.
    fn make_room(&mut self, actions: &mut Vec<Action>) -> bool {
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let away = self
            .peers
            .iter()
            .find(|(_, peer)| !peer.connected && !peer.seed);
        let Some(name) = away.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.timers.cancel(&Timer::Forget(name.clone()));
        self.forget(&name, actions);
        true
    }
}

fn send(to: &NodeName, message: &Message, actions: &mut Vec<Action>) {
    actions.push(Action::Send {
        to: to.clone(),
        bytes: encode(message),
    });
}

fn ignore(from: NodeName, why: Why, actions: &mut Vec<Action>) {
    actions.push(Action::Notify(Notice::Ignored { from, why }));
}

#[cfg(test)]
mod tests;
