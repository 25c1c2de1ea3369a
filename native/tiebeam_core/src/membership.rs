//! Membership: who is here (SWIM: Das, Gupta and Motivala, 2002; Lifeguard: Dadgar, Phillips and Currey, 2017).
//!
//! Each member probes one other per period, directly, then through others (`probe`, `helper`). Who answers nobody is
//! suspected (`suspicion`), and declared dead when nothing is heard of it in time (`verdict`). Words about members ride
//! along on all small messages (`gossip`), and tables are compared now and then for what gossip missed (`sync`). Which of
//! two words wins is decided in `merge`; what follows from a word in `word`, from one about this node itself in `refute`,
//! from one about another life of a name in `conflict`. Connections and what arrives over them: `greeting`. Nodes that
//! run no Tiebeam are asked by their guardians (`observe`). A node that is slow itself finds out (`health`, `stall`).
//!
//! ```text
//!                 hello, welcome, word                  no answer: probe           not refuted in time
//!   (unknown) ─────────────────────────► alive ◄─────────────────────────► suspect ───────────────────► dead
//!        │                                │ ▲     a higher incarnation        │ ▲                          │
//!        │ Connected, seeds, words:       │ │                                 └─┘ contested: its           │
//!        └ greeted until it answers       │ └──────────────── connection decides                           │
//!                                         │ leave       a higher incarnation                               │
//!                                         └──────► left ◄─────────────────────────► (alive) ◄──────────────┘
//! ```

mod broadcast;
mod conflict;
mod gossip;
mod greeting;
mod health;
mod helper;
mod member;
mod merge;
mod observe;
mod peer;
mod probe;
mod refute;
mod scale;
mod stall;
mod suspicion;
mod sync;
mod verdict;
mod word;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::action::{Action, Answer, Notice};
use crate::config::{Config, Timing};
use crate::identity::NodeName;
use crate::message::{Word, cluster_digest};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::time::Instant;
use crate::timers::Timers;

use broadcast::Broadcasts;
use gossip::Queue;
use health::LocalHealth;
use peer::Peer;
use probe::Probes;
use sync::Tables;

pub use health::{Health, MAX_HEALTH_MULTIPLIER, Metrics};
pub use member::{Kind, MAX_BROADCAST_BYTES, MAX_METADATA_BYTES, Member, Status};

/// The most nodes that are known at a time, members or not. Far above what one full mesh of connections carries; it
/// bounds what strangers' words can make this node remember.
pub const MAX_PEERS: usize = 4096;

/// The most deadlines handled in one step; the others are due at once in the next. Keeps a step short when thousands of
/// connections end together.
const MAX_DUE_PER_STEP: usize = 64;

/// Who is here, and what to do about it.
#[derive(Debug)]
pub(crate) struct Membership {
    cluster: String,
    cluster_digest: u32,
    timing: Timing,
    evict: bool,
    mutation: Option<Mutation>,
    random: Random,
    me: Member,
    /// The incarnation in which this node told its metadata.
    told: u64,
    /// Somebody else has spoken of this creation of this node.
    acknowledged: bool,
    /// The creation of another life of this node's name that is said to be alive, and how often it was outdone.
    rival: Option<(u32, u32)>,
    peers: BTreeMap<NodeName, Peer>,
    timers: Timers<Timer>,
    probes: Probes,
    gossip: Queue<NodeName, Word>,
    broadcasts: Broadcasts,
    /// Whose turn it is in a packet: the words' or the broadcasts'.
    turn: bool,
    tables: Tables,
    health: LocalHealth,
    stalls: stall::Stalls,
    /// How many others are alive, and how many suspect.
    alive: u32,
    suspect: u32,
    /// How many members the last stable view had, this node included.
    stable: u32,
    metrics: Metrics,
}

/// What is due. Of equal deadlines, the first here comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The period of a probe is over.
    ProbeEnd(u64),
    /// Begin the next period.
    Probe,
    /// Ask others to probe as well.
    Indirect(u64),
    /// Say that a node did not answer yet, to who asked for it.
    Nack(u64),
    /// Observe a node that runs no Tiebeam.
    Observe(NodeName),
    /// Ping a suspect for the last time.
    LastCall(NodeName),
    /// A suspicion is over.
    Verdict(NodeName),
    /// The known node of a contested name did not answer.
    Challenge(NodeName),
    /// A round of gossip.
    Gossip,
    /// Exchange tables with the next member.
    Sync,
    /// Send the next parts of tables.
    Tables,
    /// Say hello to a node that has not answered.
    Greet(NodeName),
    /// Drop a member that is dead or has left.
    Forget(NodeName),
}

impl Membership {
    pub(crate) fn new(config: Config) -> Self {
        #[cfg(feature = "mutants")]
        let mutation = config.mutation;
        #[cfg(not(feature = "mutants"))]
        let mutation = None;
        let peers = config
            .join
            .into_iter()
            .filter(|name| *name != config.node)
            .map(|name| {
                let peer = Peer {
                    seed: true,
                    ..Peer::default()
                };
                (name, peer)
            })
            .collect();
        let mut random = Random::from_seed(config.seed);
        // A second core of one creation has a greater incarnation: so its numbers differ from the first one's.
        let first = (random.bits() >> 16).wrapping_add(config.incarnation << 20);
        Self {
            cluster_digest: cluster_digest(&config.cluster),
            cluster: config.cluster,
            timing: config.timing,
            evict: config.evict,
            mutation,
            random,
            me: Member {
                node: config.node,
                creation: config.creation,
                incarnation: config.incarnation,
                kind: config.kind,
                status: Status::Alive,
                metadata: Arc::from(config.metadata),
                round_trip: None,
            },
            told: config.incarnation,
            acknowledged: false,
            rival: None,
            peers,
            timers: Timers::new(),
            probes: Probes::new(first),
            gossip: Queue::new(),
            broadcasts: Broadcasts::new(first),
            turn: false,
            tables: Tables::new(),
            health: LocalHealth::new(),
            stalls: stall::Stalls::default(),
            alive: 0,
            suspect: 0,
            stable: 1,
            metrics: Metrics::default(),
        }
    }

    /// The first step of all: time begins.
    pub(crate) fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Notify(Notice::Up(self.me.clone())));
        for name in self.peers.keys() {
            self.timers.set(Timer::Greet(name.clone()), now);
        }
        // At random, so that nodes that start together do not stay in step.
        let stagger = self.random.below(self.timing.probe_interval.as_micros());
        let at = now + crate::time::Duration::from_micros(stagger);
        self.timers.set(Timer::Probe, at);
        self.schedule_sync(now);
    }

    /// Does what is due at `now`.
    pub(crate) fn wake(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for _ in 0..MAX_DUE_PER_STEP {
            match self.timers.take_due(now) {
                None => break,
                Some(Timer::ProbeEnd(number)) => self.probe_ended(now, number, actions),
                Some(Timer::Probe) => self.probe_next(now, actions),
                Some(Timer::Indirect(number)) => self.probe_indirectly(now, number, actions),
                Some(Timer::Nack(number)) => self.nack(now, number, actions),
                Some(Timer::Observe(name)) => self.observe(now, name, actions),
                Some(Timer::LastCall(name)) => self.last_call(now, name, actions),
                Some(Timer::Verdict(name)) => self.verdict(now, name, actions),
                Some(Timer::Challenge(name)) => self.unanswered(now, &name, actions),
                Some(Timer::Gossip) => self.gossip(now, actions),
                Some(Timer::Sync) => self.sync(now, actions),
                Some(Timer::Tables) => self.send_tables(now, actions),
                Some(Timer::Greet(name)) => self.greet(now, name, actions),
                Some(Timer::Forget(name)) => self.forget(&name, actions),
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// This node's metadata are new.
    pub(crate) fn set_metadata(
        &mut self,
        now: Instant,
        metadata: Vec<u8>,
        actions: &mut Vec<Action>,
    ) -> Answer {
        if metadata.len() > MAX_METADATA_BYTES {
            return Answer::TooLong {
                bytes: metadata.len(),
                limit: MAX_METADATA_BYTES,
            };
        }
        if *self.me.metadata != *metadata {
            self.me.metadata = Arc::from(metadata);
            self.me.incarnation = self.me.incarnation.saturating_add(1);
            self.told = self.me.incarnation;
            self.spread(now, self.word_of_me());
            actions.push(Action::Notify(Notice::Updated(self.me.clone())));
        }
        Answer::Done
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn me(&self) -> &Member {
        &self.me
    }

    pub(crate) fn health(&self) -> Health {
        Health {
            multiplier: self.health.multiplier(),
            stalls: self.stalls.count(),
            minority: self.minority(),
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            queued: self.gossip.len() as u64,
            ..self.metrics
        }
    }

    /// A message of so many bytes arrived, whatever it says.
    pub(crate) fn metered(&mut self, bytes: usize) {
        self.metrics.received += 1;
        self.metrics.received_bytes += bytes as u64;
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

    /// The rule is switched off.
    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// How many members are here, this node included.
    fn count(&self) -> u32 {
        1 + self.alive + self.suspect
    }

    /// This node sees no majority of the last stable view.
    fn minority(&self) -> bool {
        (1 + self.alive) * 2 <= self.stable
    }

    /// A member's status changed: keeps the counts and the stable view.
    ///
    /// The stable view is the last one without a suspect that had a majority of the one before. So who is cut off keeps
    /// the measure of what it lost, whatever it makes of the others.
    fn recount(&mut self, before: Status, after: Status) {
        match before {
            Status::Alive => self.alive -= 1,
            Status::Suspect => self.suspect -= 1,
            Status::Dead | Status::Left => {}
        }
        match after {
            Status::Alive => self.alive += 1,
            Status::Suspect => self.suspect += 1,
            Status::Left => self.stable -= 1,
            Status::Dead => {}
        }
        if self.suspect == 0 && !self.minority() {
            self.stable = self.count();
        }
        self.stable = self.stable.max(self.count());
    }

    /// The health changed by `by`.
    fn feel(&mut self, by: i32, actions: &mut Vec<Action>) {
        if !self.is(Mutation::NoLocalHealth) && self.health.change(by) {
            actions.push(Action::Notify(Notice::Health {
                multiplier: self.health.multiplier(),
            }));
        }
    }

    /// Up to `count` members that speak and fit, at random.
    fn pick(&mut self, count: usize, fits: impl Fn(&Peer) -> bool) -> Vec<NodeName> {
        self.probes.pick(&mut self.random, count, |name| {
            self.peers.get(name).is_some_and(&fits)
        })
    }

    fn forget(&mut self, name: &NodeName, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.told = None;
        let drop = peer.link.is_none() && !peer.seed;
        if let Some(member) = peer.member.take() {
            // Of the dead, the last stable view holds no place any more: they will not be back.
            let counted = member.status == Status::Dead && self.stable > self.count();
            self.stable -= u32::from(counted);
            actions.push(Action::Notify(Notice::Forgotten(member)));
        }
        self.probes.drop_member(name);
        self.timers.cancel(&Timer::Observe(name.clone()));
        if drop {
            self.peers.remove(name);
            self.timers.cancel(&Timer::Greet(name.clone()));
        }
    }

    /// Drops one node that is away when the table is full. False when all are connected, here, or seeds.
    fn make_room(&mut self, actions: &mut Vec<Action>) -> bool {
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let away = self
            .peers
            .iter()
            .find(|(_, peer)| peer.link.is_none() && !peer.seed && peer.here().is_none());
        let Some(name) = away.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.timers.cancel(&Timer::Forget(name.clone()));
        self.forget(&name, actions);
        true
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
        let (mut alive, mut suspect) = (0, 0);
        for (name, peer) in &self.peers {
            let Some(member) = &peer.member else {
                assert!(
                    peer.suspicion.is_none(),
                    "{name} is no member but suspected"
                );
                continue;
            };
            assert_eq!(member.node, *name, "{name} has another's entry");
            alive += u32::from(member.status == Status::Alive);
            suspect += u32::from(member.status == Status::Suspect);
            assert_eq!(
                peer.suspicion.is_some(),
                member.status == Status::Suspect,
                "{name} is {:?}",
                member.status
            );
        }
        assert_eq!((alive, suspect), (self.alive, self.suspect), "miscounted");
        assert!(self.stable >= self.count());
        self.timers.check();
        self.gossip.check();
        self.broadcasts.check();
        self.probes.check();
    }
}

#[cfg(test)]
mod tests;
