//! The locker: takes the lock `global` in this partition, for one session at a time.
//!
//! Both sides of a session ask for the lock under one requester, the pids of both lockers in order, so that nodes which
//! belong to both partitions are no obstacle. The greatest node of the partition (the *boss*) is asked first: whoever
//! gets it will most likely get the others. Whoever begins also locks the other node, or two partitions could wait for
//! each other for ever. Source: `global:the_locker_message/2` and what follows it.

use std::collections::{BTreeSet, VecDeque};

use tiebeam_core::{Duration, Instant};
use tiebeam_wire::{Atom, Pid, Term};
use tracing::{debug, warn};

use super::call::MultiCall;
use super::locks::GLOBAL;
use super::machine::{Action, Actor, CallId, Machine};
use super::messages::{LockId, Message, NewNodes, NodeVersion, Request, VERSION_VERIFY};

/// How long a node that knows nobody waits before it begins.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// How long others wait: this, and `DELAY_PER_NODE` for each node of the partition, but at most `DELAY_MAX`.
const DELAY: Duration = Duration::from_millis(1000);
const DELAY_PER_NODE: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_millis(3000);

/// How long the lock is held for a peer that does not go on. OTP relies on the net ticks here; but a peer whose
/// machine lives and whose name server does not would keep the whole partition from registering names.
const PATIENCE: Duration = Duration::from_secs(60);

/// Letters that wait while the locker is busy. There is one or two of them for each peer.
const LETTERS_MAX: usize = 1 << 16;

/// A node that waits to be joined.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) node: Atom,
    pub(super) locker: Pid,
    pub(super) version: i64,
    pub(super) my_tag: i64,
    pub(super) his_tag: Term,
}

/// What the locker is told.
#[derive(Debug)]
pub(super) enum Letter {
    /// Somebody to join.
    Peer(Peer),
    /// The session with this tag is over.
    Cancel {
        node: Atom,
        my_tag: Term,
        /// What the partition must learn before the lock goes, if the session ended well.
        finish: Option<Finish>,
    },
    /// The other locker has, or has not, its lock.
    LockSet {
        locker: Pid,
        set: bool,
        my_tag: Option<Term>,
    },
}

/// The good end of a session.
#[derive(Debug)]
pub(super) struct Finish {
    /// The nodes of the partition as it was.
    pub(super) known: Vec<NodeVersion>,
    pub(super) new_nodes: NewNodes,
}

/// What the locker is at.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Locking(Locking),
    /// This partition is locked, and the peer was told; now it is their turn.
    Asking {
        peer: Peer,
        id: LockId,
        nodes: BTreeSet<Atom>,
        patience: Option<Instant>,
    },
    /// Both are locked: the session goes on until it is over.
    Holding {
        node: Atom,
        my_tag: i64,
        id: LockId,
        nodes: BTreeSet<Atom>,
        patience: Option<Instant>,
    },
    /// Gives the lock back; on the boss last, so that who gets it there gets the rest.
    Unlocking {
        id: LockId,
        boss: Option<Atom>,
        call: MultiCall,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Beginning,
    Answering,
}

/// A lock that is being taken: on the boss, then near, then on the rest of the partition.
#[derive(Debug)]
struct Locking {
    peer: Peer,
    role: Role,
    id: LockId,
    step: Step,
    boss: Atom,
    taken: BTreeSet<Atom>,
    asked: BTreeSet<Atom>,
    call: MultiCall,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Boss,
    Near,
    Known,
    /// Somebody refused: what was taken goes back.
    Back,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Locker {
    peers: Vec<Peer>,
    letters: VecDeque<Letter>,
    phase: Phase,
    /// When to begin with one of the peers.
    wake: Option<Instant>,
    just_synced: bool,
}

impl Locker {
    pub(super) fn letter(&mut self, letter: Letter) {
        if self.letters.len() >= LETTERS_MAX && matches!(letter, Letter::LockSet { .. }) {
            // A locker that gets no answer is freed by the end of its session.
            warn!(
                limit = LETTERS_MAX,
                "too many letters for the locker: one is dropped"
            );
            return;
        }
        self.letters.push_back(letter);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle => self.wake,
            Phase::Asking { patience, .. } | Phase::Holding { patience, .. } => *patience,
            Phase::Locking(_) | Phase::Unlocking { .. } => None,
        }
    }

    /// Takes the answer to a question of the locker.
    pub(super) fn answered(&mut self, call: CallId, answer: Option<Term>) {
        match &mut self.phase {
            Phase::Locking(Locking { call: question, .. })
            | Phase::Unlocking { call: question, .. } => question.answered(call, answer),
            Phase::Idle | Phase::Asking { .. } | Phase::Holding { .. } => {}
        }
    }

    #[cfg(test)]
    pub(super) fn is_locking(&self) -> bool {
        !matches!(self.phase, Phase::Idle) || !self.letters.is_empty()
    }

    fn find(&self, node: &Atom, my_tag: Option<&Term>) -> Option<&Peer> {
        let is_it = |peer: &&Peer| {
            peer.node == *node && my_tag.is_none_or(|tag| *tag == Term::from(peer.my_tag))
        };
        self.peers.iter().find(is_it)
    }

    fn forget(&mut self, node: &Atom, my_tag: &Term) {
        self.peers
            .retain(|peer| peer.node != *node || Term::from(peer.my_tag) != *my_tag);
    }
}

impl Machine {
    /// Does all that the locker can do now.
    pub(super) fn run_locker(&mut self) {
        loop {
            let phase = std::mem::take(&mut self.locker.phase);
            let was_idle = matches!(phase, Phase::Idle);
            let (phase, progress) = match phase {
                Phase::Idle => self.idle(),
                Phase::Locking(locking) => self.locking(locking),
                Phase::Asking {
                    peer,
                    id,
                    nodes,
                    patience,
                } => self.asking(peer, id, nodes, patience),
                Phase::Holding {
                    node,
                    my_tag,
                    id,
                    nodes,
                    patience,
                } => self.holding(node, my_tag, id, nodes, patience),
                Phase::Unlocking { id, boss, call } => self.unlocking(id, boss, call),
            };
            if matches!(phase, Phase::Idle) && !was_idle {
                self.set_wake();
            }
            self.locker.phase = phase;
            if !progress {
                return;
            }
        }
    }

    fn set_wake(&mut self) {
        let known = self.known.len() as u64;
        let delay = if std::mem::take(&mut self.locker.just_synced) {
            Duration::ZERO
        } else if known == 0 {
            FIRST_DELAY
        } else {
            let delay = DELAY.plus(DELAY_PER_NODE.times(known));
            self.random.jitter(delay.min(DELAY_MAX))
        };
        self.locker.wake = (!self.locker.peers.is_empty()).then(|| self.now + delay);
    }

    fn idle(&mut self) -> (Phase, bool) {
        if let Some(letter) = self.locker.letters.pop_front() {
            return (self.letter(letter), true);
        }
        if self.locker.wake.is_none_or(|wake| wake > self.now) {
            return (Phase::Idle, false);
        }
        let known = &self.known;
        self.locker
            .peers
            .retain(|peer| !known.contains_key(&peer.node));
        let free = self.locks.global().is_none();
        let count = self.locker.peers.len() as u64;
        if count == 0 || !free {
            self.set_wake();
            return (Phase::Idle, false);
        }
        let chosen = self.random.below(count) as usize;
        let peer = self.locker.peers[chosen].clone();
        match self.start_locking(peer, Role::Beginning) {
            Phase::Idle => {
                self.set_wake();
                (Phase::Idle, false)
            }
            phase => (phase, true),
        }
    }

    fn letter(&mut self, letter: Letter) -> Phase {
        match letter {
            Letter::Peer(peer) => {
                self.locker.peers.push(peer);
                self.set_wake();
                Phase::Idle
            }
            Letter::Cancel {
                node,
                my_tag,
                finish,
            } => {
                self.locker.forget(&node, &my_tag);
                self.tell_partition(finish);
                Phase::Idle
            }
            // The answer to a question that was withdrawn.
            Letter::LockSet { set: false, .. } => Phase::Idle,
            Letter::LockSet { locker, my_tag, .. } => {
                match self.locker.find(&locker.node, my_tag.as_ref()).cloned() {
                    Some(peer) => self.start_locking(peer, Role::Answering),
                    None => {
                        let known = self.known_list();
                        let message = Message::no_session(&self.config.locker, known);
                        self.act(Action::Send {
                            from: Actor::Locker,
                            to: locker,
                            message,
                        });
                        Phase::Idle
                    }
                }
            }
        }
    }

    /// Source: `global:lock_nodes_safely/3`.
    fn start_locking(&mut self, peer: Peer, role: Role) -> Phase {
        let mut lockers = [self.config.locker.clone(), peer.locker.clone()];
        lockers.sort();
        let id = LockId {
            resource: Term::atom(GLOBAL),
            requester: Term::list(lockers.map(Term::from)),
        };
        let boss = self.boss();
        // Locking this node could stop one that has locked the boss already: so it is only looked at.
        let hopeless = boss != self.config.node && !self.locks.can_set(&id);
        let (step, asked) = match hopeless {
            true => (Step::Back, BTreeSet::new()),
            false => (Step::Boss, BTreeSet::from([boss.clone()])),
        };
        let call = self.multi_call(Actor::Locker, &asked, &Request::SetLock(id.clone()));
        Phase::Locking(Locking {
            peer,
            role,
            id,
            step,
            boss,
            taken: BTreeSet::new(),
            asked,
            call,
        })
    }

    fn locking(&mut self, mut locking: Locking) -> (Phase, bool) {
        if !locking.call.is_over() {
            return (Phase::Locking(locking), false);
        }
        let call = std::mem::take(&mut locking.call);
        if locking.step == Step::Back {
            return (self.not_locked(locking), true);
        }
        if !call.all_true() {
            let mut back = call.granted();
            back.append(&mut locking.taken);
            return (self.step_back(locking, back), true);
        }
        locking.taken.append(&mut locking.asked);
        let (step, next) = match locking.step {
            Step::Boss => {
                let mut near = BTreeSet::from([self.config.node.clone()]);
                if locking.role == Role::Beginning {
                    near.insert(locking.peer.node.clone());
                }
                (Step::Near, near)
            }
            Step::Near => (Step::Known, self.known.keys().cloned().collect()),
            Step::Known | Step::Back => return (self.have_locked(locking), true),
        };
        locking.step = step;
        locking.asked = next;
        locking.asked.remove(&locking.boss);
        let contended = locking.asked.contains(&self.config.node)
            && locking.asked.len() > 1
            && !self.locks.can_set(&locking.id);
        if contended {
            let back = std::mem::take(&mut locking.taken);
            return (self.step_back(locking, back), true);
        }
        let request = Request::SetLock(locking.id.clone());
        locking.call = self.multi_call(Actor::Locker, &locking.asked, &request);
        (Phase::Locking(locking), true)
    }

    fn step_back(&mut self, mut locking: Locking, back: BTreeSet<Atom>) -> Phase {
        locking.step = Step::Back;
        let request = Request::DelLock(locking.id.clone());
        locking.call = self.multi_call(Actor::Locker, &back, &request);
        Phase::Locking(locking)
    }

    fn not_locked(&mut self, locking: Locking) -> Phase {
        if locking.role == Role::Answering {
            self.send_lock_set(&locking.peer, false);
        }
        self.locker.just_synced = false;
        Phase::Idle
    }

    fn have_locked(&mut self, locking: Locking) -> Phase {
        let Locking {
            peer,
            role,
            id,
            taken: mut nodes,
            ..
        } = locking;
        nodes.insert(self.config.node.clone());
        let session = self.sessions.get(&peer.node);
        if session.is_none_or(|session| session.my_tag != peer.my_tag) {
            // It ended meanwhile. A peer that is still there must not wait for this side with its own lock held; one that
            // is gone must not be connected to for that.
            if self.connected.contains(&peer.node) {
                self.send_lock_set(&peer, false);
            }
            return self.start_unlocking(id, nodes);
        }
        let patience = Some(self.now + PATIENCE);
        self.send_lock_set(&peer, true);
        match role {
            Role::Beginning => Phase::Asking {
                peer,
                id,
                nodes,
                patience,
            },
            Role::Answering => {
                self.locked(&peer.node, peer.my_tag, &id);
                Phase::Holding {
                    node: peer.node,
                    my_tag: peer.my_tag,
                    id,
                    nodes,
                    patience,
                }
            }
        }
    }

    /// Waits for the peer's lock. Letters of others wait, too.
    fn asking(
        &mut self,
        peer: Peer,
        id: LockId,
        nodes: BTreeSet<Atom>,
        patience: Option<Instant>,
    ) -> (Phase, bool) {
        let tag = Term::from(peer.my_tag);
        let mut at = 0;
        while let Some(letter) = self.locker.letters.get(at) {
            match letter {
                Letter::LockSet {
                    locker,
                    set,
                    my_tag,
                } if locker.node == peer.node => {
                    let (set, current) = (*set, my_tag.as_ref().is_none_or(|t| *t == tag));
                    self.locker.letters.remove(at);
                    if !current {
                        continue;
                    }
                    if !set {
                        debug!(node = %peer.node, "the peer could not lock its partition");
                        return (self.start_unlocking(id, nodes), true);
                    }
                    self.locked(&peer.node, peer.my_tag, &id);
                    let phase = Phase::Holding {
                        node: peer.node,
                        my_tag: peer.my_tag,
                        id,
                        nodes,
                        patience: Some(self.now + PATIENCE),
                    };
                    return (phase, true);
                }
                Letter::Cancel { node, my_tag, .. } if *node == peer.node && *my_tag == tag => {
                    return (self.over(at, id, nodes), true);
                }
                _ => at += 1,
            }
        }
        let patience = self.lose_patience(&peer.node, patience);
        let phase = Phase::Asking {
            peer,
            id,
            nodes,
            patience,
        };
        (phase, false)
    }

    /// Waits for the end of the session.
    fn holding(
        &mut self,
        node: Atom,
        my_tag: i64,
        id: LockId,
        nodes: BTreeSet<Atom>,
        patience: Option<Instant>,
    ) -> (Phase, bool) {
        let tag = Term::from(my_tag);
        let over = self.locker.letters.iter().position(|letter| {
            matches!(letter, Letter::Cancel { node: n, my_tag: t, .. } if *n == node && *t == tag)
        });
        if let Some(at) = over {
            self.locker.just_synced = true;
            return (self.over(at, id, nodes), true);
        }
        let patience = self.lose_patience(&node, patience);
        let phase = Phase::Holding {
            node,
            my_tag,
            id,
            nodes,
            patience,
        };
        (phase, false)
    }

    /// The session that the letter at this place names is over.
    fn over(&mut self, at: usize, id: LockId, nodes: BTreeSet<Atom>) -> Phase {
        if let Some(Letter::Cancel {
            node,
            my_tag,
            finish,
        }) = self.locker.letters.remove(at)
        {
            self.locker.forget(&node, &my_tag);
            self.tell_partition(finish);
        }
        self.start_unlocking(id, nodes)
    }

    fn lose_patience(&mut self, node: &Atom, patience: Option<Instant>) -> Option<Instant> {
        let until = patience?;
        if self.now < until {
            return patience;
        }
        warn!(%node, waited = %PATIENCE, "a name server holds up the joining of partitions: disconnecting its node");
        self.act(Action::Disconnect { node: node.clone() });
        None
    }

    /// The old partition learns of the new one from the locker, so that it hears of it before the lock goes.
    fn tell_partition(&mut self, finish: Option<Finish>) {
        let Some(Finish { known, new_nodes }) = finish else {
            return;
        };
        for (node, version) in known {
            // Not to those that were lost since, which would set up connections again.
            if self.known.contains_key(&node) {
                let message = Message::NewNodes(new_nodes.clone());
                self.send_as(Actor::Locker, &node, message, version);
            }
        }
    }

    fn start_unlocking(&mut self, id: LockId, mut nodes: BTreeSet<Atom>) -> Phase {
        let boss = nodes.pop_last();
        let call = self.multi_call(Actor::Locker, &nodes, &Request::DelLock(id.clone()));
        Phase::Unlocking { id, boss, call }
    }

    fn unlocking(&mut self, id: LockId, boss: Option<Atom>, call: MultiCall) -> (Phase, bool) {
        if !call.is_over() {
            return (Phase::Unlocking { id, boss, call }, false);
        }
        match boss {
            Some(boss) => {
                let request = Request::DelLock(id.clone());
                let call = self.multi_call(Actor::Locker, &BTreeSet::from([boss]), &request);
                (
                    Phase::Unlocking {
                        id,
                        boss: None,
                        call,
                    },
                    true,
                )
            }
            None => (Phase::Idle, true),
        }
    }

    fn send_lock_set(&mut self, peer: &Peer, set: bool) {
        let message = Message::LockSet {
            locker: self.config.locker.clone(),
            set,
            known: self.known_list(),
            tag: (peer.version >= VERSION_VERIFY).then(|| peer.his_tag.clone()),
        };
        self.send(Actor::Locker, &peer.node, message);
    }

    /// The greatest node of the partition.
    pub(super) fn boss(&self) -> Atom {
        let known = self.known.last_key_value().map(|(node, _)| node);
        known
            .map_or(&self.config.node, |known| known.max(&self.config.node))
            .clone()
    }
}
