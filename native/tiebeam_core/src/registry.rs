//! The registry: names and groups, known on every node.
//!
//! Each node is the authority for the processes that run on it. What it does to its entries are operations with numbers;
//! its peers apply them in order, and ask for those that they missed. Nobody else ever speaks for an owner's entries, so
//! there are no tombstones, no clocks to agree on, and no conflict within an owner.
//!
//! ```text
//! command ─► own ──► log ──► exchange ── messages ──► the same on the other nodes
//!             │                  │
//!             └──► contest ◄─────┘     who has a name that several registered
//!                     │
//!                     └──► Output::Table: the rows that callers read
//! ```
//!
//! - `own`: this node's entries; commands, ends of processes.
//! - `exchange`, with `owner` and `reader`: operations, gaps, comparisons of tables by digests of ranges ([Merkle's idea, one level at a time]).
//! - `contest`: one name, one process. The older registration by Lamport's clock ("Time, Clocks, and the Ordering of
//!   Events in a Distributed System", 1978) stays, or the user decides, once.
//!
//! # The driver's contract, beside that of [`Cluster`](crate::Cluster)
//!
//! Outputs are carried out in order; [`Output::Table`] first of all makes the driver's table, which is all that callers read.
//! Operations are sent together, when the registry is woken: a driver ends each turn with a wake-up if
//! [`Registry::deadline`] is due, so that all commands of a turn travel in one message. Answers do not wait for that.
//!
//! Names, pids and metadata are bytes, compared byte for byte. One term must therefore have one encoding on all nodes:
//! drivers use the external term format and check names with [`name::check`].
//!
//! # What holds
//!
//! - A name that was registered is in the table of its node before the answer.
//! - A name has one row. While nodes cannot hear of each other each side may have its own; when they do, the older
//!   registration has it everywhere, and the other process is told once.
//! - The entries of a node are gone from the table as soon as it is known to be down, and are back, with what changed, as
//!   soon as it is back and nothing of it is missing.
//!
//! [Merkle's idea, one level at a time]: https://en.wikipedia.org/wiki/Merkle_tree

mod command;
mod contest;
mod entry;
mod exchange;
mod items;
mod key;
mod log;
mod message;
pub mod name;
mod output;
mod own;
mod replica;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::event::CallId;
use crate::identity::NodeName;
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::timers::Timers;

use contest::{Dispute, Standing, Waiting};
use entry::Life;
use exchange::Peer;
use items::Items;
use log::Log;
use own::{Asker, Question};
use replica::{OWN, Replica, Shown, Slot};

pub use command::{Answer, Command, Limits, MAX_QUESTIONS, MAX_SCOPES, Refusal};
pub use contest::Keep;
pub use entry::{Entry, OnConflict};
pub use items::MAX_ENTRIES;
pub use key::{Key, MAX_META_BYTES, MAX_NAME_BYTES, MAX_PID_BYTES, MAX_SCOPE_BYTES, What};
pub use log::MAX_LOG;
pub use message::Malformed;
pub use output::{Change, Departure, Gone, Loss, Output};

pub(crate) use message::PREFIX;

/// How long a receiver gathers operations before it says that it has them.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(100);

/// How long an owner waits for that before it tells its head again. Doubles up to [`PATIENCE`].
const REMIND_AFTER: Duration = Duration::from_millis(500);

/// How long a receiver waits for what it asked for before it asks again. Doubles up to [`PATIENCE`].
const ASK_AFTER: Duration = Duration::from_millis(250);

/// The pause before a waiting process tries for its name again, at most; doubles up to [`PATIENCE`].
const PROMOTE_AFTER: Duration = Duration::from_millis(20);

/// The longest pause between two attempts to reach a peer that is up and silent.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a [`Registry`] is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// Which start of that name this is.
    pub creation: u32,
    /// Which registry of that start: a later one must have a greater number.
    pub epoch: u64,
    /// Settings.
    pub limits: Limits,
}

/// The names and groups of a cluster, as one node knows them. A value: it is told what happens and says what must be done.
#[derive(Debug)]
pub struct Registry {
    me: NodeName,
    life: Life,
    limits: Limits,
    /// The greatest time seen.
    now: Instant,
    /// Lamport's clock: ahead of every registration that this node knows of.
    clock: u64,
    timers: Timers<Timer>,
    last_id: u64,
    random: Random,

    // What this node answers for.
    items: Items,
    log: Log,
    /// Operations up to this number were sent to who listens.
    flushed: u64,
    /// About how many bytes the others have.
    unflushed_bytes: usize,
    /// What each process has or waits for, by the hash of its pid.
    processes: BTreeSet<(u64, Key)>,
    /// Ended, and not all of their entries are gone.
    ended: BTreeSet<Arc<[u8]>>,
    /// How many entries each scope has.
    scopes: BTreeMap<String, usize>,
    waiting: BTreeMap<Key, Waiting>,
    /// Names that this node and another one registered: a verdict, or word that one was withdrawn, is on its way.
    contested: BTreeSet<Key>,
    /// Those of this node's names that wait for the end of an owner's history to be settled.
    deferred: BTreeSet<(Slot, Key)>,
    disputes: BTreeMap<u64, Dispute>,
    dispute_of: BTreeMap<Key, u64>,
    questions: BTreeMap<u64, Question>,
    question_of: BTreeMap<Key, u64>,
    /// Commands in all questions.
    asking: usize,
    checks: BTreeMap<u64, Asker>,

    // What others answer for.
    peers: BTreeMap<NodeName, Peer>,
    replicas: BTreeMap<Slot, Replica>,
    last_slot: u32,
    /// Replicas that are rising or sinking.
    moving: BTreeSet<Slot>,
    /// What is left of replicas of earlier lives: names still know of them.
    remains: Vec<(Slot, Items)>,

    // Both.
    names: BTreeMap<Key, Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Acknowledge(NodeName),
    Remind(NodeName),
    Ask(NodeName),
    Forget(NodeName),
    Question(u64),
    Verdict(u64),
    Promote(Key),
}

impl Registry {
    /// A registry that knows of nothing.
    pub fn new(config: Config) -> Self {
        // Nodes that wait for the same thing must not do so for the same time.
        let seed = crate::hash::siphash(config.node.as_str().as_bytes()) ^ config.epoch;
        Self {
            me: config.node,
            life: Life {
                creation: config.creation,
                epoch: config.epoch,
            },
            limits: Limits {
                entries_per_scope: config.limits.entries_per_scope.min(MAX_ENTRIES),
                work_per_step: config.limits.work_per_step.max(1),
                ..config.limits
            },
            now: Instant::ZERO,
            clock: 0,
            timers: Timers::new(),
            last_id: 0,
            random: Random::from_seed(seed),
            items: Items::default(),
            log: Log::new(config.limits.log.min(MAX_LOG)),
            flushed: 0,
            unflushed_bytes: 0,
            processes: BTreeSet::new(),
            ended: BTreeSet::new(),
            scopes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            contested: BTreeSet::new(),
            deferred: BTreeSet::new(),
            disputes: BTreeMap::new(),
            dispute_of: BTreeMap::new(),
            questions: BTreeMap::new(),
            question_of: BTreeMap::new(),
            asking: 0,
            checks: BTreeMap::new(),
            peers: BTreeMap::new(),
            replicas: BTreeMap::new(),
            last_slot: OWN.0,
            moving: BTreeSet::new(),
            remains: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// A node with a registry is here: it is alive and can be sent to. Said again for another creation, the first one is
    /// gone.
    pub fn up(&mut self, now: Instant, node: &NodeName, creation: u32, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        if *node != self.me {
            self.peer_up(node, creation, out);
        }
    }

    /// A node is gone: its rows go at once.
    pub fn down(
        &mut self,
        now: Instant,
        node: &NodeName,
        departure: Departure,
        out: &mut Vec<Output>,
    ) {
        self.now = self.now.max(now);
        self.peer_down(node, departure, out);
    }

    /// A connection to a node came up. If it is held for up all the time, what was lost meanwhile is asked for at once.
    pub fn connected(&mut self, now: Instant, node: &NodeName, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.peer_connected(node, out);
    }

    /// Bytes of another node's registry came. Those of nodes that are not up have no effect.
    pub fn received(&mut self, now: Instant, from: &NodeName, bytes: &[u8], out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        match message::decode(bytes) {
            Ok(message) => self.hear(from, message, out),
            Err(why) => out.push(Output::Ignored {
                from: from.clone(),
                why,
            }),
        }
    }

    /// A local caller asks for something. The answer may come later, once.
    pub fn asked(&mut self, now: Instant, call: CallId, command: Command, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.command(call, command, out);
    }

    /// A process that this node answers for ended. One that has nothing here has no effect.
    pub fn exited(&mut self, now: Instant, pid: &Arc<[u8]>, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.process_ended(pid, out);
    }

    /// The answer to [`Output::Check`].
    pub fn checked(&mut self, now: Instant, id: u64, alive: bool, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.process_checked(id, alive, out);
    }

    /// The answer to [`Output::Resolve`]. One that comes too late has no effect.
    pub fn resolved(&mut self, now: Instant, id: u64, keep: Keep, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.verdict(id, keep, out);
    }

    /// Time passed, or the driver's turn ends.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        while let Some(timer) = self.timers.take_due(self.now) {
            match timer {
                Timer::Acknowledge(node) => self.acknowledge(&node, out),
                Timer::Remind(node) => self.remind(&node, out),
                Timer::Ask(node) => self.ask_again(&node, out),
                Timer::Forget(node) => self.forget(&node),
                Timer::Question(id) => self.answer_question(id, out),
                Timer::Verdict(id) => self.verdict(id, Keep::Older, out),
                Timer::Promote(key) => self.promote_now(&key, out),
            }
        }
        self.bury(out);
        self.sweep(out);
        self.flush(out);
    }

    /// When to wake it if nothing happens before: now, while something waits to be sent or swept.
    pub fn deadline(&self) -> Option<Instant> {
        let busy = self.flushed < self.log.head()
            || !self.ended.is_empty()
            || !self.moving.is_empty()
            || !self.remains.is_empty();
        if busy {
            return Some(self.now);
        }
        self.timers.next()
    }

    /// All rows, for a driver that makes its table anew: names first. This node's own are among them.
    pub fn rows(&self) -> impl Iterator<Item = Entry> {
        self.shown_names().chain(self.memberships())
    }

    fn memberships(&self) -> impl Iterator<Item = Entry> {
        let others = self
            .replicas
            .iter()
            .map(|(&slot, replica)| (slot, &replica.items));
        core::iter::once((OWN, &self.items))
            .chain(others)
            .flat_map(move |(slot, items)| {
                items
                    .behind(None)
                    .filter(move |(key, _)| {
                        key.what() == What::Member
                            && (slot == OWN
                                || self
                                    .replicas
                                    .get(&slot)
                                    .is_some_and(|replica| replica.shows(key)))
                    })
                    .filter_map(move |(key, item)| self.entry_of(slot, key, item))
            })
    }

    /// Whether nothing of the nodes that are up is known to be missing here, and nothing waits to be sent or shown.
    pub fn is_quiet(&self) -> bool {
        let behind = self.peers.values().filter(|peer| peer.up).any(|peer| {
            peer.slot
                .and_then(|slot| self.replicas.get(&slot))
                .is_none_or(|replica| !replica.caught_up() || replica.shown != Shown::Yes)
        });
        let busy =
            self.flushed < self.log.head() || !self.ended.is_empty() || !self.moving.is_empty();
        !behind
            && !busy
            && self.deferred.is_empty()
            && self.remains.is_empty()
            && self.questions.is_empty()
    }

    /// What must always hold inside; costs as much as the tables are long.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.check_names();
        let counted = self
            .items
            .iter()
            .fold(BTreeMap::new(), |mut counts, (key, _)| {
                *counts.entry(String::from(key.scope())).or_insert(0) += 1;
                counts
            });
        assert_eq!(
            counted, self.scopes,
            "entries of the scopes are counted wrongly"
        );
        for (_, key) in &self.processes {
            let known = self.items.get(key).is_some() || self.waiting.contains_key(key);
            assert!(known, "{key:?} of a process is nowhere");
        }
        assert_eq!(self.questions.len(), self.question_of.len());
        assert_eq!(self.disputes.len(), self.dispute_of.len());
        self.timers.check();
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Hides, shows and drops a bounded number of entries.
    fn sweep(&mut self, out: &mut Vec<Output>) {
        let mut left = self.limits.work_per_step;
        while left > 0
            && let Some((slot, items)) = self.remains.last_mut()
        {
            let slot = *slot;
            match items.pop_first() {
                Some((key, _)) => {
                    left -= 1;
                    if key.what() == What::Name {
                        self.disclaim(slot, &key, out);
                    }
                }
                None => {
                    self.remains.pop();
                }
            }
        }
        while left > 0
            && let Some(&slot) = self.moving.first()
        {
            left = self.shift(slot, left, out);
        }
    }

    /// Hides or shows up to `left` items of a replica that is sinking or rising; says how many are left.
    fn shift(&mut self, slot: Slot, left: usize, out: &mut Vec<Output>) -> usize {
        let Some(replica) = self.replicas.get_mut(&slot) else {
            self.moving.remove(&slot);
            return left;
        };
        let (Shown::Rising { upto } | Shown::Sinking { upto }) = &mut replica.shown else {
            self.moving.remove(&slot);
            return left;
        };
        let part: Vec<_> = replica
            .items
            .behind(upto.as_ref())
            .take(left)
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect();
        let rising = match (&mut replica.shown, part.last()) {
            (Shown::Rising { upto }, Some((last, _))) => {
                *upto = Some(last.clone());
                true
            }
            (Shown::Sinking { upto }, Some((last, _))) => {
                *upto = Some(last.clone());
                false
            }
            (Shown::Rising { .. }, None) => {
                replica.shown = Shown::Yes;
                true
            }
            _ => {
                replica.shown = Shown::No;
                false
            }
        };
        for (key, item) in &part {
            match (key.what(), rising) {
                (What::Name, true) => self.claim(slot, key, item, false, out),
                (What::Name, false) => self.disclaim(slot, key, out),
                (What::Member, true) => {
                    let entry = self.entry_of(slot, key, item);
                    out.extend(entry.map(|entry| Output::Table(Change::Joined(entry))));
                }
                (What::Member, false) => {}
            }
        }
        if part.is_empty() {
            self.moving.remove(&slot);
            self.rise_if_back(slot);
        }
        left - part.len()
    }
}
