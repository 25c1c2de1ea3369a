//! The process of a ring or a pool on one node: it is the node's member of the group of all that take part, holds the claims of the
//! node's slots, and runs each of them.
//!
//! | name of | |
//! |---|---|
//! | the group | `{tiebeam, ring, Name}` or `{tiebeam, pool, Name}`; metadata is a map, with `draining => true` from those that take nothing any more |
//! | the claim of a slot | `{ring, Name, Slot}` or `{pool, Name, Slot}`; its value is `{Pid, #{}}`, the process that is asked about the slot |
//! | the task, for [`placement::plan`] | `{ring, Name}` or `{pool, Name}` |
//!
//! It looks at the tables now and then. When what it sees has not changed for a while, and there is a leader, it does what the plan says;
//! the next plan waits until that is done. A slot is claimed before it is run, and given back after that has ended.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::NodeName;
use tiebeam_core::placement;
use tiebeam_wire::{Atom, Map, Pid, Term};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::runner::{self, MAX_CALLS, ReleaseReason, Request, Work, not_owner};
use crate::cluster::{Claims, ClusterHandle, LeadershipError, Name, Token, Wanted, lost_claim};
use crate::node::Node;
use crate::process::{Process, Signal};

/// How often it looks: a fraction of the shortest time that others need to see that a node is gone.
const LOOK: Duration = Duration::from_millis(100);

/// How long a question for a claim waits.
const WAIT: Duration = Duration::from_secs(5);

/// The pause when there was no majority.
const PAUSE: Duration = Duration::from_secs(1);

/// Questions under way at a time: a node may have some thousand slots.
const MAX_ASKED: usize = 256;

/// How long an end waits for a claim to be given back; the end of the claimant gives it back as well.
const RELEASE: Duration = Duration::from_secs(2);

/// What is spread over nodes.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) cluster: ClusterHandle,
    pub(super) claims: Claims,
    /// `ring` or `pool`.
    pub(super) kind: &'static str,
    pub(super) name: Name,
    pub(super) slots: u32,
    /// Each node has one slot of its own, and needs no claim.
    pub(super) local: bool,
    /// A pool whose nodes take no slots.
    pub(super) away_from: Option<Name>,
    /// The most slots of one node.
    pub(super) most: usize,
    pub(super) settle: Duration,
    pub(super) handover: Duration,
    /// What the node says of itself, and that it is not draining.
    pub(super) meta: Vec<(&'static str, Term)>,
}

/// A slot's holder, as this node has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotHolder {
    /// The process that is asked about it.
    pub pid: Pid,
    /// The token under which it is held.
    pub token: Token,
}

impl Task {
    pub(super) fn group(&self) -> Name {
        let (tiebeam, kind) = (Atom::of("tiebeam"), Atom::of(self.kind));
        Name::from((tiebeam, kind, &self.name))
    }

    /// The group of a pool's workers.
    pub(super) fn workers(pool: &Name) -> Name {
        Name::from((Atom::of("tiebeam"), Atom::of("workers"), pool))
    }

    pub(super) fn slot(&self, slot: u32) -> Name {
        Name::from((Atom::of(self.kind), &self.name, slot))
    }

    pub(super) fn node(&self) -> &Node {
        self.cluster.node()
    }

    /// Reads a local table.
    pub(super) fn holder(&self, slot: u32) -> Option<SlotHolder> {
        let held = self.claims.holder(&self.slot(slot))?;
        Some(SlotHolder {
            pid: held.pid,
            token: held.token,
        })
    }

    /// The nodes that take slots, and whether all of them mean the same by it.
    pub(super) fn nodes(&self) -> (BTreeSet<NodeName>, bool) {
        let own: Map = self
            .meta
            .iter()
            .map(|(key, value)| (Term::atom(key), value.clone()))
            .collect();
        let (mut nodes, mut alike) = (BTreeSet::new(), true);
        for member in self.cluster.groups().members(self.group()) {
            // What is no map says nothing.
            let Ok(Term::Map(meta)) = member.meta_term() else {
                continue;
            };
            alike &= own
                .iter()
                .all(|(key, value)| meta.get(key).is_none_or(|said| said == value));
            let drains = meta.get(&Term::atom("draining"));
            if drains.is_none_or(|drains| !drains.is_atom("true"))
                && let Ok(node) = NodeName::parse(member.pid.node.as_str())
            {
                nodes.insert(node);
            }
        }
        if let Some(other) = &self.away_from {
            let others = self.cluster.groups().members(Self::workers(other));
            nodes.retain(|node| {
                others
                    .iter()
                    .all(|other| other.pid.node.as_str() != node.as_str())
            });
        }
        (nodes, alike)
    }

    /// Starts the node's process.
    pub(super) fn start<W: Work>(self, work: W) -> Result<Manager, LeadershipError> {
        self.slot(self.slots)
            .check()
            .map_err(LeadershipError::Name)?;
        self.group().check().map_err(LeadershipError::Name)?;
        if !self.local && !self.claims.takes_part() {
            return Err(LeadershipError::NoGroup);
        }
        let node = self.node().clone();
        if let Some(other) = self
            .cluster
            .groups()
            .local_members(self.group())
            .into_iter()
            .next()
        {
            return Err(LeadershipError::AlreadyStarted { pid: other.pid });
        }
        let own = NodeName::parse(node.name().as_str()).map_err(LeadershipError::Node)?;
        let spawn = || node.spawn_anonymous().map_err(|_| LeadershipError::Ended);
        let (process, claimant) = (spawn()?, spawn()?);
        let (commands, commanded) = mpsc::unbounded_channel();
        let (moving, is_moving) = watch::channel(true);
        let cluster = self.cluster.clone();
        let driver = Driver {
            view: View {
                nodes: BTreeSet::new(),
                holders: vec![None; self.slots as usize],
                led: false,
                alike: true,
            },
            own,
            work: Arc::new(work),
            jobs: JoinSet::new(),
            claimant,
            slots: BTreeMap::new(),
            queue: VecDeque::new(),
            asked: 0,
            lost_early: HashSet::new(),
            since: Instant::now(),
            planned: false,
            pause_until: None,
            joined: None,
            drains: None,
            complained: false,
            commands: commanded,
            moving,
            task: self,
        };
        let pid = node.run(process, |process| driver.run(process));
        Ok(Manager {
            pid,
            cluster,
            commands,
            moving: is_moving,
        })
    }
}

/// A handle of the node's process.
#[derive(Clone)]
pub(super) struct Manager {
    pub(super) pid: Pid,
    cluster: ClusterHandle,
    commands: mpsc::UnboundedSender<Command>,
    moving: watch::Receiver<bool>,
}

impl Manager {
    pub(super) fn rebalance(&self) {
        // An error: it has ended.
        let _ = self.commands.send(Command::Rebalance);
    }

    pub(super) async fn drain(&self) {
        let (drained, is_drained) = oneshot::channel();
        if self.commands.send(Command::Drain(drained)).is_ok() {
            let _ = is_drained.await;
        }
        self.cluster.node().wait_for_end(&self.pid).await;
    }

    pub(super) fn is_moving(&self) -> bool {
        *self.moving.borrow()
    }
}

enum Command {
    Rebalance,
    Drain(oneshot::Sender<()>),
}

/// A slot that this node holds.
struct Slot {
    token: Token,
    told: watch::Sender<Option<ReleaseReason>>,
    requests: mpsc::Sender<Request>,
}

/// What the tables say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    nodes: BTreeSet<NodeName>,
    holders: Vec<Option<NodeName>>,
    led: bool,
    alike: bool,
}

enum Done {
    Asked(u32, Result<Token, LeadershipError>),
    Ended(u32, Token, ReleaseReason),
    Returned(u32, Token),
}

struct Driver<W> {
    task: Task,
    own: NodeName,
    work: Arc<W>,
    /// Questions, slots and their ends. Given up before the claimant ends.
    jobs: JoinSet<Done>,
    /// The claims are this process's, and it is told which are lost.
    claimant: Process,
    slots: BTreeMap<u32, Slot>,
    /// Slots to ask for.
    queue: VecDeque<u32>,
    asked: usize,
    /// What was lost before it was known to be granted.
    lost_early: HashSet<Token>,
    view: View,
    /// Since when it is so.
    since: Instant,
    planned: bool,
    pause_until: Option<Instant>,
    /// Whether the others know of this node, and whether it drains.
    joined: Option<bool>,
    drains: Option<Vec<oneshot::Sender<()>>>,
    complained: bool,
    commands: mpsc::UnboundedReceiver<Command>,
    moving: watch::Sender<bool>,
}

impl<W: Work> Driver<W> {
    async fn run(mut self, mut process: Process) -> Result<(), Term> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let claims = self.task.claims.clone();
        loop {
            tokio::select! {
                biased;
                signal = self.claimant.recv() => match signal {
                    Some(signal) => {
                        if let Some(token) = lost_claim(&signal) {
                            self.lose(token);
                        }
                    }
                    None => return Err(Term::atom("killed")),
                },
                // Nobody would say what is lost.
                () = claims.ended() => {
                    self.lose_all().await;
                    return Err(LeadershipError::Ended.reason());
                }
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done, process.pid())?,
                    // Not of a slot: what a slot does is caught.
                    Err(error) => return Err(Term::from(error.to_string())),
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Rebalance if self.task.local => {}
                    Command::Rebalance => self.plan(process.pid(), true),
                    Command::Drain(drained) => {
                        self.drains.get_or_insert_default().push(drained);
                        self.queue.clear();
                        self.join(process.pid()).await;
                        self.slots.values().for_each(|slot| tell(slot, ReleaseReason::Drain));
                    }
                },
                signal = process.recv() => match signal {
                    Some(signal) => self.receive(signal),
                    None => return Ok(()),
                },
                _ = looks.tick() => {
                    self.join(process.pid()).await;
                    if !self.task.local {
                        self.look();
                        self.plan(process.pid(), false);
                    } else if self.slots.is_empty() && self.drains.is_none() {
                        self.hold(0, Token(0));
                    }
                }
            }
            if let Some(drained) = &mut self.drains
                && self.slots.is_empty()
                && self.asked == 0
            {
                // What is not left is over with the process.
                let groups = self.task.cluster.groups();
                let _ = groups.leave(self.task.group(), process.pid()).await;
                // Whoever waited may be gone.
                for drained in drained.drain(..) {
                    let _ = drained.send(());
                }
                return Ok(());
            }
        }
    }

    /// Says what is to be known of this node, if the others do not know it yet.
    async fn join(&mut self, own: &Pid) {
        let drains = self.drains.is_some();
        if self.joined == Some(drains) {
            return;
        }
        let mut meta = Map::new();
        for (key, value) in &self.task.meta {
            meta.insert(Term::atom(key), value.clone());
        }
        if drains {
            meta.insert(Term::atom("draining"), Term::atom("true"));
        }
        let groups = self.task.cluster.groups();
        match groups
            .join_term(self.task.group(), own, &Term::from(meta))
            .await
        {
            Ok(()) => self.joined = Some(drains),
            Err(error) => debug!(task = %self.task.group(), "is not known to the others: {error}"),
        }
    }

    // ---- claims that end

    fn lose(&mut self, token: Token) {
        match self.slots.values().find(|slot| slot.token == token) {
            Some(slot) => tell(slot, ReleaseReason::Lost),
            None if self.asked > 0 => drop(self.lost_early.insert(token)),
            None => {}
        }
    }

    async fn lose_all(&mut self) {
        self.slots
            .values()
            .for_each(|slot| tell(slot, ReleaseReason::Lost));
        let mut left = self.slots.len();
        while left > 0
            && let Some(done) = self.jobs.join_next().await
        {
            left -= usize::from(matches!(
                done,
                Ok(Done::Ended(..) | Done::Returned(..)) | Err(_)
            ));
        }
    }

    // ---- what was asked and what ended

    fn done(&mut self, done: Done, own: &Pid) -> Result<(), Term> {
        match done {
            Done::Asked(slot, answer) => {
                self.asked -= 1;
                match answer {
                    Ok(token) if self.lost_early.remove(&token) => {}
                    Ok(token) => self.hold(slot, token),
                    Err(LeadershipError::Held { .. }) => {}
                    Err(
                        error @ (LeadershipError::NoQuorum
                        | LeadershipError::Unknown
                        | LeadershipError::Busy { .. }
                        | LeadershipError::Full(_)),
                    ) => {
                        debug!(task = %self.task.group(), slot, "is not claimed: {error}");
                        self.queue.clear();
                        self.pause_until = Some(Instant::now() + PAUSE);
                    }
                    Err(error) => {
                        warn!(task = %self.task.group(), "takes no part any more: {error}");
                        return Err(error.reason());
                    }
                }
                if self.asked == 0 {
                    self.lost_early.clear();
                }
                // What was not granted is looked at again.
                self.planned = false;
                self.ask(own);
            }
            Done::Ended(slot, token, reason)
                if self.task.local || reason == ReleaseReason::Lost =>
            {
                self.forget(slot, token);
            }
            Done::Ended(slot, token, _) => {
                let (claims, name) = (self.task.claims.clone(), self.task.slot(slot));
                self.jobs.spawn(async move {
                    if let Err(error) = claims.release(&name, token, RELEASE).await {
                        debug!(%name, %token, "is being given back: {error}");
                    }
                    Done::Returned(slot, token)
                });
            }
            Done::Returned(slot, token) => self.forget(slot, token),
        }
        self.tell_moving();
        Ok(())
    }

    fn forget(&mut self, slot: u32, token: Token) {
        if self
            .slots
            .get(&slot)
            .is_some_and(|held| held.token == token)
        {
            self.slots.remove(&slot);
        }
        self.planned = false;
    }

    fn hold(&mut self, slot: u32, token: Token) {
        let (told, is_told) = watch::channel(None);
        let (requests, requested) = mpsc::channel(MAX_CALLS);
        let held = Slot {
            token,
            told,
            requests,
        };
        if self.drains.is_some() {
            tell(&held, ReleaseReason::Drain);
        }
        self.slots.insert(slot, held);
        let (work, handover) = (Arc::clone(&self.work), self.task.handover);
        self.jobs.spawn(async move {
            let reason = runner::run(work, (slot, token), is_told, requested, handover).await;
            Done::Ended(slot, token, reason)
        });
    }

    /// Asks for what is to be asked for.
    fn ask(&mut self, own: &Pid) {
        while self.asked < MAX_ASKED
            && let Some(slot) = self.queue.pop_front()
        {
            self.asked += 1;
            let (claims, name) = (self.task.claims.clone(), self.task.slot(slot));
            let (own, claimant) = (own.clone(), self.claimant.pid().clone());
            self.jobs.spawn(async move {
                let wanted = Wanted {
                    name: &name,
                    holder: (&own, Term::from(Map::new())),
                    ttl: None,
                    wait: false,
                };
                Done::Asked(slot, claims.acquire(wanted, &claimant, WAIT).await)
            });
        }
    }

    // ---- looking and planning

    fn look(&mut self) {
        let (nodes, alike) = self.task.nodes();
        let holder = |slot| {
            // The table may be behind what this process was answered.
            if self.slots.contains_key(&slot) {
                return Some(self.own.clone());
            }
            NodeName::parse(self.task.holder(slot)?.pid.node.as_str()).ok()
        };
        let view = View {
            nodes,
            alike,
            holders: (0..self.task.slots).map(holder).collect(),
            led: self.task.cluster.leader().current().is_some(),
        };
        if view != self.view {
            self.view = view;
            self.since = Instant::now();
            self.planned = false;
        }
        if !alike && !self.complained {
            self.complained = true;
            warn!(task = %self.task.group(), "other nodes have other settings: nothing is moved until that is over");
        }
        self.tell_moving();
    }

    /// Whether nothing of an earlier plan is under way.
    fn is_idle(&self) -> bool {
        let released = |slot: &Slot| slot.told.borrow().is_some();
        self.asked == 0 && self.queue.is_empty() && !self.slots.values().any(released)
    }

    fn plan(&mut self, own: &Pid, at_once: bool) {
        let now = Instant::now();
        let quiet = at_once || now >= self.since + self.task.settle;
        let pauses = self.pause_until.is_some_and(|until| now < until);
        let may = self.view.led && self.view.alike && self.drains.is_none();
        if self.planned || !quiet || pauses || !may || !self.is_idle() {
            return;
        }
        let name = Name::from((Atom::of(self.task.kind), &self.task.name));
        let task = placement::Task {
            name: name.bytes(),
            most: self.task.most,
        };
        let View { nodes, holders, .. } = &self.view;
        let plan = placement::plan(task, holders, nodes, &self.own);
        for slot in plan.release {
            if let Some(slot) = self.slots.get(&(slot as u32)) {
                tell(slot, ReleaseReason::Rebalance);
            }
        }
        self.queue
            .extend(plan.acquire.into_iter().map(|slot| slot as u32));
        self.planned = true;
        self.ask(own);
        self.tell_moving();
    }

    fn tell_moving(&self) {
        let moving = !self.planned || !self.is_idle();
        self.moving
            .send_if_modified(|was| std::mem::replace(was, moving) != moving);
    }

    // ---- requests

    /// `{ring_call, Slot, Key, Request}`, or a cast `{ring_cast, Slot, Key, Request}`.
    fn receive(&mut self, signal: Signal) {
        let (request, from) = match signal {
            Signal::Call(call) => {
                let (request, from) = call.into_parts();
                (request, Some(from))
            }
            Signal::Cast(request) => (request, None),
            _ => return,
        };
        let refuse = |from: Option<crate::process::ReplyTo>, why| {
            if let Some(from) = from {
                // Whoever asked may be gone.
                let _ = from.reply_term(why);
            }
        };
        let error = |reason| Term::tuple([Term::atom("error"), Term::atom(reason)]);
        let tag = if from.is_some() {
            "ring_call"
        } else {
            "ring_cast"
        };
        let parsed = match request {
            Term::Tuple(elements) => <[Term; 4]>::try_from(elements).ok(),
            _ => None,
        };
        let Some((slot, key, request)) = parsed.and_then(|[of, slot, key, request]| {
            let slot = u32::try_from(slot.as_integer()?).ok()?;
            of.is_atom(tag).then_some((slot, key, request))
        }) else {
            return refuse(from, error("unknown_request"));
        };
        let Some(held) = self.slots.get(&slot) else {
            let holder = self.task.holder(slot);
            let node = holder.map(|holder| Term::from(holder.pid.node));
            return refuse(from, not_owner(node));
        };
        match held.requests.try_send(Request { key, request, from }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => refuse(request.from, error("busy")),
            Err(mpsc::error::TrySendError::Closed(request)) => {
                refuse(request.from, not_owner(None))
            }
        }
    }
}

/// Lost is the last word.
fn tell(slot: &Slot, reason: ReleaseReason) {
    slot.told.send_if_modified(|told| {
        let news = told.is_none() || (reason == ReleaseReason::Lost && *told != Some(reason));
        if news {
            *told = Some(reason);
        }
        news
    });
}
