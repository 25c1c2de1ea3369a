//! The process of a ring or a pool on one node: it is the node's member of the group of all that take part, holds the claims of the
//! node's slots, and runs each of them.
//!
//! | name of | |
//! |---|---|
//! | the group | `{tiebeam, ring, Name}` or `{tiebeam, pool, Name}`; metadata is a map, with `draining => true` from those that take nothing any more |
//! | the claim of a slot | `{ring, Name, Slot}` or `{pool, Name, Slot}`; its value is `{Pid, #{}}`, the process that is asked about the slot |
//! | the task, for [`placement::plan`] | `{ring, Name}` or `{pool, Name}` |
//!
//! It looks at the tables when they have changed. When what it sees has not changed for a while, and there is a leader, it does what its turn says;
//! the next turn waits until that is done. A slot is claimed before it is run, and given back after that has ended.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::NodeName;
use tiebeam_core::placement::{self, MAX_PINS, Moves, Participant, Policy};
use tiebeam_wire::{Atom, Map, Pid, Term};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::placement::{Order, Participation, describe, participant};
use super::runner::{self, MAX_CALLS, ReleaseReason, Request, Restarts, Work, not_owner};
use crate::cluster::{Claims, ClusterHandle, LeadershipError, Name, Token, Wanted, lost_claim};
use crate::node::Node;
use crate::process::{Process, ReplyTo, Signal};

/// The shortest time between two looks: a fraction of the shortest one that others need to see that a node is gone.
const LOOK: Duration = Duration::from_millis(100);

/// The longest one. What it looks for is told; but what did not come about, such as a group that was not joined, is tried again.
const LOOK_MAX: Duration = Duration::from_secs(1);

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
    /// Which nodes it may be on, and how it moves.
    pub(super) policy: Policy,
    /// What the node says of itself at first.
    pub(super) participant: Participant,
    /// How many nodes follow each slot.
    pub(super) followers: usize,
    /// How often what a slot runs may fail, and in which time.
    pub(super) restarts: (u32, Duration),
    /// What all nodes must say alike.
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

    /// What all managers say: their metadata. What is no map says nothing.
    fn said(&self) -> impl Iterator<Item = (Pid, Map)> {
        let members = self.cluster.groups().members(self.group()).into_iter();
        members.filter_map(|member| match member.meta_term() {
            Ok(Term::Map(meta)) => Some((member.pid, meta)),
            _ => None,
        })
    }

    /// The nodes that take part, in no order, and their managers.
    pub(super) fn participations(&self) -> Vec<Participation> {
        let of = |(pid, meta): (Pid, Map)| Participation {
            pid,
            participant: participant(&meta),
        };
        self.said().map(of).collect()
    }

    /// The nodes that take part, and whether all of them mean the same by it.
    pub(super) fn nodes(&self) -> (BTreeMap<NodeName, Participant>, bool) {
        let (mut nodes, mut alike) = (BTreeMap::new(), true);
        for (pid, meta) in self.said() {
            let says = |(key, value): &(&'static str, Term)| {
                let said = meta.get(&Term::atom(key));
                said.is_none_or(|said| said == value)
            };
            alike &= self.meta.iter().all(says);
            if let Ok(node) = NodeName::parse(pid.node.as_str()) {
                nodes.insert(node, participant(&meta));
            }
        }
        if let Some(other) = &self.away_from {
            let others = self.cluster.groups().members(Self::workers(other));
            nodes.retain(|node, _| {
                others
                    .iter()
                    .all(|other| other.pid.node.as_str() != node.as_str())
            });
        }
        (nodes, alike)
    }

    fn task_name(&self) -> Name {
        Name::from((Atom::of(self.kind), &self.name))
    }

    fn holders(&self) -> Vec<Option<NodeName>> {
        let holder = |slot| NodeName::parse(self.holder(slot)?.pid.node.as_str()).ok();
        (0..self.slots).map(holder).collect()
    }

    /// Calls `read` with what is to be said of a view of it.
    fn with_view<T>(
        &self,
        nodes: &BTreeMap<NodeName, Participant>,
        holders: &[Option<NodeName>],
        read: impl FnOnce(placement::View<'_>) -> T,
    ) -> T {
        let name = self.task_name();
        read(placement::View {
            task: placement::Task {
                name: name.bytes(),
                most: self.most,
            },
            policy: &self.policy,
            holders,
            participants: nodes,
        })
    }

    /// The nodes that may have slots, in order. Reads local tables.
    pub(super) fn eligible(&self) -> Vec<NodeName> {
        let (nodes, _) = self.nodes();
        self.with_view(&nodes, &[], |view| view.eligible().cloned().collect())
    }

    /// The nodes that follow a slot, the first one first. Reads local tables.
    pub(super) fn followers_of(&self, slot: u32) -> Vec<NodeName> {
        let (nodes, _) = self.nodes();
        self.with_view(&nodes, &self.holders(), |view| {
            view.followers(slot as usize, self.followers)
        })
    }

    /// Starts the node's process.
    pub(super) fn start<W: Work>(self, work: W) -> Result<TaskMember, LeadershipError> {
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
                nodes: BTreeMap::new(),
                holders: vec![None; self.slots as usize],
                led: false,
                alike: true,
            },
            own,
            work: Arc::new(work),
            jobs: JoinSet::new(),
            restarts: Arc::new(Restarts::new(self.restarts)),
            origin: Instant::now(),
            moves: Moves::default(),
            again: None,
            participant: self.participant.clone(),
            followed: None,
            failed: None,
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
        Ok(TaskMember {
            pid,
            cluster,
            commands,
            moving: is_moving,
        })
    }
}

/// This node's part in a ring or a pool. Clones are the same; dropping them changes nothing.
#[derive(Clone)]
pub struct TaskMember {
    pid: Pid,
    cluster: ClusterHandle,
    commands: mpsc::UnboundedSender<Command>,
    moving: watch::Receiver<bool>,
}

impl TaskMember {
    /// Its process, which others call; what it runs ends with it. It ends by itself where a handler, or a worker, fails too often.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Looks at once whether slots of this node should move, without waiting until nodes neither come nor go.
    pub fn rebalance(&self) {
        // An error: it has ended.
        let _ = self.commands.send(Command::Rebalance);
    }

    /// Slots of this node move, or may have to. Never waits.
    pub fn is_rebalancing(&self) -> bool {
        *self.moving.borrow()
    }

    /// Takes part no more: releases all slots, in good order. A partition is another node's then, or soon; a worker has left the pool, done what it was
    /// sent, and ended. Returns when that is done.
    ///
    /// # Cancel safety
    /// Once polled, it takes part no more even if the future is dropped.
    pub async fn drain(&self) {
        let (drained, is_drained) = oneshot::channel();
        if self.commands.send(Command::Drain(drained)).is_ok() {
            let _ = is_drained.await;
        }
        self.cluster.node().wait_for_end(&self.pid).await;
    }
}

impl fmt::Debug for TaskMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskMember")
            .field("pid", self.pid())
            .finish_non_exhaustive()
    }
}

enum Command {
    Rebalance,
    Drain(oneshot::Sender<()>),
}

/// Who waits until it is drained.
enum Drainer {
    Handle(oneshot::Sender<()>),
    Process(ReplyTo),
}

impl Drainer {
    /// Whoever waited may be gone.
    fn tell(self) {
        match self {
            Self::Handle(drained) => drop(drained.send(())),
            Self::Process(from) => drop(from.reply_term(Term::atom("ok"))),
        }
    }
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
    nodes: BTreeMap<NodeName, Participant>,
    holders: Vec<Option<NodeName>>,
    led: bool,
    alike: bool,
}

enum Done {
    Asked(u32, Result<Token, LeadershipError>),
    Ended(u32, Token, Result<ReleaseReason, Term>),
    Returned(u32, Token),
    /// Who follows is told no more.
    Unfollowed,
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
    /// Counts what failed.
    restarts: Arc<Restarts>,
    /// Of the core's time.
    origin: Instant,
    /// What the last turn left to remember, and when there is another one.
    moves: Moves,
    again: Option<Instant>,
    /// What is to be known of this node, and what the others know.
    participant: Participant,
    joined: Option<Participant>,
    /// The slots that this node follows.
    followed: Option<watch::Sender<BTreeSet<u32>>>,
    drains: Option<Vec<Drainer>>,
    /// What failed too often: it ends with this, once all is released.
    failed: Option<Term>,
    complained: bool,
    commands: mpsc::UnboundedReceiver<Command>,
    moving: watch::Sender<bool>,
}

impl<W: Work> Driver<W> {
    async fn run(mut self, mut process: Process) -> Result<(), Term> {
        let claims = self.task.claims.clone();
        let mut news = self.task.cluster.placement_news();
        let (mut looked, mut next_look) = (Instant::now(), Instant::now());
        if self.task.followers > 0 {
            let (follow, followed) = watch::channel(BTreeSet::new());
            self.followed = Some(follow);
            let work = Arc::clone(&self.work);
            self.jobs.spawn(async move {
                runner::follow(work, followed).await;
                Done::Unfollowed
            });
        }
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
                    self.followed = None;
                    self.lose_all().await;
                    return Err(LeadershipError::Ended.reason());
                }
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done, process.pid()).await?,
                    // Not of a slot: what a slot does is caught.
                    Err(error) => return Err(Term::from(error.to_string())),
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Rebalance => self.plan(process.pid(), true),
                    Command::Drain(drained) => {
                        self.drain(Some(Drainer::Handle(drained)), process.pid()).await;
                    }
                },
                signal = process.recv() => match signal {
                    Some(signal) => self.receive(signal, process.pid()).await,
                    None => return Ok(()),
                },
                () = sleep_until(next_look) => {
                    self.join(process.pid()).await;
                    if !self.task.local {
                        self.look();
                        self.plan(process.pid(), false);
                    } else if self.slots.is_empty() && self.drains.is_none() {
                        self.hold(0, Token(0));
                    }
                    looked = Instant::now();
                }
                () = news.changed() => {
                    next_look = next_look.min(looked + LOOK);
                    continue;
                }
            }
            next_look = self.next_look(looked);
            if let Some(drained) = &mut self.drains
                && self.slots.is_empty()
                && self.asked == 0
            {
                let drained = std::mem::take(drained);
                // Those that follow are told so; not for ever.
                self.followed = None;
                let unfollowed = async {
                    while let Some(done) = self.jobs.join_next().await {
                        if matches!(done, Ok(Done::Unfollowed)) {
                            break;
                        }
                    }
                };
                if self.task.followers > 0 {
                    let _ = tokio::time::timeout(self.task.handover, unfollowed).await;
                }
                // What is not left is over with the process.
                let groups = self.task.cluster.groups();
                let _ = groups.leave(self.task.group(), process.pid()).await;
                drained.into_iter().for_each(Drainer::tell);
                return self.failed.map_or(Ok(()), Err);
            }
        }
    }

    /// When it looks again, if nothing is told: where something is due, or did not come about.
    fn next_look(&self, looked: Instant) -> Instant {
        let settled = (!self.planned).then_some(self.since + self.task.settle);
        let due = settled.into_iter().chain(self.again).min();
        let longest = looked + LOOK_MAX;
        due.map_or(longest, |due| due.min(longest))
            .max(looked + LOOK)
    }

    /// Releases all, and ends then.
    async fn drain(&mut self, drainer: Option<Drainer>, own: &Pid) {
        self.drains.get_or_insert_default().extend(drainer);
        self.participant.draining = true;
        self.queue.clear();
        self.join(own).await;
        self.slots
            .values()
            .for_each(|slot| tell(slot, ReleaseReason::Drain));
    }

    /// Says what is to be known of this node, if the others do not know it yet.
    async fn join(&mut self, own: &Pid) {
        if self.joined.as_ref() == Some(&self.participant) {
            return;
        }
        let mut meta = Map::new();
        for (key, value) in &self.task.meta {
            meta.insert(Term::atom(key), value.clone());
        }
        if self.task.followers > 0 {
            let followers = Term::from(self.task.followers as u32);
            meta.insert(Term::atom("followers"), followers);
        }
        describe(&self.participant, &mut meta);
        let groups = self.task.cluster.groups();
        match groups
            .join_term(self.task.group(), own, &Term::from(meta))
            .await
        {
            Ok(()) => self.joined = Some(self.participant.clone()),
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

    async fn done(&mut self, done: Done, own: &Pid) -> Result<(), Term> {
        match done {
            Done::Unfollowed => {}
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
            Done::Ended(slot, token, ended) => {
                if let Err(why) = &ended {
                    warn!(task = %self.task.group(), "takes no part any more, for it failed too often: {why}");
                    self.failed = Some(why.clone());
                    self.drain(None, own).await;
                }
                if self.task.local || ended == Ok(ReleaseReason::Lost) {
                    self.forget(slot, token);
                } else {
                    let (claims, name) = (self.task.claims.clone(), self.task.slot(slot));
                    self.jobs.spawn(async move {
                        if let Err(error) = claims.release(&name, token, RELEASE).await {
                            debug!(%name, %token, "is being given back: {error}");
                        }
                        Done::Returned(slot, token)
                    });
                }
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
        let restarts = Arc::clone(&self.restarts);
        self.jobs.spawn(async move {
            let limits = (handover, &*restarts);
            let ended = runner::run(work, (slot, token), is_told, requested, limits).await;
            Done::Ended(slot, token, ended)
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
            if let Some(follow) = self.followed.as_ref().filter(|_| alike) {
                self.follow(follow, &view);
            }
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

    /// Says which slots this node follows.
    fn follow(&self, follow: &watch::Sender<BTreeSet<u32>>, view: &View) {
        let most = self.task.followers;
        let follows = |view: &placement::View<'_>, slot: &u32| {
            view.followers(*slot as usize, most).contains(&self.own)
        };
        let followed: BTreeSet<u32> = match self.drains {
            Some(_) => BTreeSet::new(),
            None => self.task.with_view(&view.nodes, &view.holders, |view| {
                (0..self.task.slots)
                    .filter(|slot| follows(&view, slot))
                    .collect()
            }),
        };
        follow.send_if_modified(|was| {
            let changed = *was != followed;
            *was = followed;
            changed
        });
    }

    /// Whether nothing of an earlier plan is under way.
    fn is_idle(&self) -> bool {
        let released = |slot: &Slot| slot.told.borrow().is_some();
        self.asked == 0 && self.queue.is_empty() && !self.slots.values().any(released)
    }

    fn plan(&mut self, own: &Pid, by_hand: bool) {
        if self.task.local {
            return;
        }
        let now = Instant::now();
        if by_hand {
            // It is carried out as soon as it can be.
            self.moves.by_hand = true;
            self.planned = false;
        }
        if self.again.is_some_and(|again| now >= again) {
            self.again = None;
            self.planned = false;
        }
        let quiet = self.moves.by_hand || now >= self.since + self.task.settle;
        let pauses = self.pause_until.is_some_and(|until| now < until);
        let may = self.view.led && self.view.alike && self.drains.is_none();
        if self.planned || !quiet || pauses || !may || !self.is_idle() {
            return;
        }
        let View { nodes, holders, .. } = &self.view;
        let micros = now.duration_since(self.origin).as_micros() as u64;
        let at = tiebeam_core::Instant::from_micros(micros);
        let plan = self.task.with_view(nodes, holders, |view| {
            view.turn(&self.own, at, &self.moves, false)
        });
        self.moves = plan.moves;
        self.again = plan
            .again
            .map(|again| self.origin + Duration::from_micros(again.as_micros()));
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

    /// What an operator asks for.
    async fn carry_out(&mut self, order: Order, from: ReplyTo, own: &Pid) {
        let reply = match order {
            Order::Drain => return self.drain(Some(Drainer::Process(from)), own).await,
            Order::Rebalance => {
                if !self.task.local {
                    self.look();
                    self.plan(own, true);
                }
                Term::atom("ok")
            }
            order => match self.refusal(&order) {
                Some(why) => Term::tuple([Term::atom("error"), Term::atom(why)]),
                None => {
                    order.change(&mut self.participant);
                    // The next look tries it again if it is not known yet.
                    self.join(own).await;
                    Term::atom("ok")
                }
            },
        };
        // Whoever asked may be gone.
        let _ = from.reply_term(reply);
    }

    /// Why it cannot be.
    fn refusal(&self, order: &Order) -> Option<&'static str> {
        let Order::Pin(slot) = order else {
            return None;
        };
        let pinned = &self.participant.pinned;
        let eligible = || self.task.eligible().contains(&self.own);
        match () {
            () if self.task.local || *slot >= self.task.slots as usize => Some("no_such_slot"),
            () if pinned.contains(slot) => None,
            () if self.participant.draining => Some("draining"),
            () if self.participant.cordoned => Some("cordoned"),
            () if pinned.len() >= MAX_PINS.min(self.task.most) => Some("too_many_pins"),
            () if self.joined.is_some() && !eligible() => Some("not_eligible"),
            () => None,
        }
    }

    /// `{ring_call, Slot, Key, Request}`, or a cast `{ring_cast, Slot, Key, Request}`; or an operator's order.
    async fn receive(&mut self, signal: Signal, own: &Pid) {
        let (request, from) = match signal {
            Signal::Call(call) => {
                let (request, from) = call.into_parts();
                (request, Some(from))
            }
            Signal::Cast(request) => (request, None),
            _ => return,
        };
        if from.is_some()
            && let Some(order) = Order::parse(&request)
            && let Some(from) = from
        {
            return self.carry_out(order, from, own).await;
        }
        let refuse = |from: Option<ReplyTo>, why| {
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
        let parsed = match request.as_tuple() {
            Some([of, slot, key, asked]) if of.is_atom(tag) => {
                let slot = slot.as_integer().and_then(|slot| u32::try_from(slot).ok());
                slot.map(|slot| (slot, key.clone(), asked.clone()))
            }
            _ => None,
        };
        let Some((slot, key, request)) = parsed else {
            let why = Term::tuple([Term::atom("bad_request"), request]);
            return refuse(from, Term::tuple([Term::atom("error"), why]));
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
