//! What happens to a slot on the node that holds it: it is owned, used, and released.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tiebeam_wire::Term;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::cluster::Token;
use crate::function::caught;
use crate::process::ReplyTo;

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end of what is lost may take: less than an eighth of the shortest session. This node knows of it a quarter before another one can be
/// granted it, and half of that is left for clocks that run at different rates.
pub(super) const LOST: Duration = Duration::from_millis(50);

/// Calls that may wait for a slot, and that are answered at a time: more than a node can be busy with.
pub(super) const MAX_CALLS: usize = 1024;

/// What a node does with its slots. A trait of this crate: rings and pools each have one.
pub(super) trait Work: Send + Sync + 'static {
    /// The slot is this node's. An error, or a panic: it is tried again.
    fn own(&self, slot: u32, token: Token) -> impl Future<Output = Result<(), Term>> + Send;

    /// Runs while the slot is owned; it may be dropped, and called again. When it returns, the slot is owned anew.
    fn hold(&self, slot: u32) -> impl Future<Output = ()> + Send {
        let _ = slot;
        std::future::pending()
    }

    /// A call or cast about the slot.
    fn request(&self, slot: u32, request: Request) -> impl Future<Output = ()> + Send {
        let _ = (slot, request);
        async {}
    }

    /// This node follows the slot, or no longer does.
    fn follow(&self, slot: u32, follows: bool) -> impl Future<Output = ()> + Send {
        let _ = (slot, follows);
        async {}
    }

    /// The slot is another's soon, or now.
    fn release(&self, slot: u32, reason: ReleaseReason) -> impl Future<Output = ()> + Send;
}

/// A call or a cast.
pub(super) struct Request {
    pub(super) key: Term,
    pub(super) request: Term,
    /// `None` for a cast.
    pub(super) from: Option<ReplyTo>,
}

/// Why a node lets something go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReleaseReason {
    /// The claim is lost: another node may have it in a moment.
    Lost,
    /// Another node shall have it.
    Rebalance,
    /// The node drains.
    Drain,
}

/// Counts what is tried again, as a supervisor does its restarts.
pub(super) struct Restarts {
    most: u32,
    period: Duration,
    times: Mutex<VecDeque<Instant>>,
}

impl Restarts {
    pub(super) fn new((most, period): (u32, Duration)) -> Self {
        Self {
            most,
            period,
            times: Mutex::default(),
        }
    }

    /// Counts one more; whether that is still allowed.
    fn another(&self) -> bool {
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|at| now.duration_since(*at) <= self.period);
        times.push_back(now);
        times.len() <= self.most as usize
    }
}

/// Tells which slots are followed, until there is nobody who says so. What is told of one slot comes one after the other.
pub(super) async fn follow<W: Work>(work: Arc<W>, mut followed: watch::Receiver<BTreeSet<u32>>) {
    let mut told = BTreeSet::new();
    let mut last = false;
    loop {
        let wanted = match last {
            true => BTreeSet::new(),
            false => followed.borrow_and_update().clone(),
        };
        let mut calls = JoinSet::new();
        for slot in wanted.symmetric_difference(&told).copied() {
            let (work, follows) = (Arc::clone(&work), wanted.contains(&slot));
            calls.spawn(async move {
                if let Err(why) = caught(work.follow(slot, follows)).await {
                    warn!(slot, "what follows it has failed: {why}");
                }
            });
        }
        while calls.join_next().await.is_some() {}
        told = wanted;
        if last {
            return;
        }
        last = followed.changed().await.is_err();
    }
}

/// Runs a slot until it is told to release it, or that it is lost; which of the two it was in the end. An error is what failed too often.
///
/// Dropped, everything that it runs is given up.
pub(super) async fn run<W: Work>(
    work: Arc<W>,
    (slot, token): (u32, Token),
    mut told: watch::Receiver<Option<ReleaseReason>>,
    mut requests: mpsc::Receiver<Request>,
    (handover, restarts): (Duration, &Restarts),
) -> Result<ReleaseReason, Term> {
    let mut calls = JoinSet::new();
    let mut own = true;
    let reason = loop {
        if own {
            // What has begun ends in good order, if that does not take too long.
            let mut also_told = told.clone();
            let too_late = async {
                any(&mut also_told).await;
                sleep(handover).await;
            };
            let owned = tokio::select! {
                biased;
                () = lost(&mut told) => break ReleaseReason::Lost,
                owned = caught(work.own(slot, token)) => owned.flatten(),
                () = too_late => Err(Term::atom("timeout")),
            };
            if let Err(why) = owned {
                if !restarts.another() {
                    return Err(why);
                }
                warn!(slot, "is tried again: {why}");
                tokio::select! {
                    biased;
                    reason = any(&mut told) => break reason,
                    () = sleep(RETRY) => continue,
                }
            }
            own = false;
        }
        tokio::select! {
            biased;
            reason = any(&mut told) => break reason,
            Some(_) = calls.join_next() => {}
            Some(request) = requests.recv(), if calls.len() < MAX_CALLS => {
                let work = Arc::clone(&work);
                calls.spawn(async move {
                    // Whoever asked hears nothing of a panic, as of any call whose reply does not come.
                    if let Err(why) = caught(work.request(slot, request)).await {
                        warn!(slot, "a call failed: {why}");
                    }
                });
            }
            () = work.hold(slot) => {
                own = true;
                if !restarts.another() {
                    return Err(Term::atom("shutdown"));
                }
            }
        }
    };
    requests.close();
    if reason != ReleaseReason::Lost {
        let done = async { while calls.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = lost(&mut told) => {}
            _ = timeout(handover, done) => {}
        }
    }
    calls.shutdown().await;
    // They are asked again elsewhere.
    while let Ok(request) = requests.try_recv() {
        if let Some(from) = request.from {
            let _ = from.reply_term(not_owner(None));
        }
    }
    let release = caught(work.release(slot, reason));
    if reason == ReleaseReason::Lost {
        let _ = timeout(LOST, release).await;
        return Ok(reason);
    }
    tokio::select! {
        biased;
        // Nothing orderly is as short as the time until another node has it.
        () = lost(&mut told) => Ok(ReleaseReason::Lost),
        _ = timeout(handover, release) => Ok(reason),
    }
}

/// Waits until the slot is lost.
async fn lost(told: &mut watch::Receiver<Option<ReleaseReason>>) {
    let lost = told.wait_for(|told| *told == Some(ReleaseReason::Lost));
    if lost.await.is_err() {
        std::future::pending().await
    }
}

/// Waits until the slot shall be released, for whatever reason.
async fn any(told: &mut watch::Receiver<Option<ReleaseReason>>) -> ReleaseReason {
    match told.wait_for(Option::is_some).await {
        Ok(told) => told.unwrap_or(ReleaseReason::Lost),
        // Who told is gone.
        Err(_) => ReleaseReason::Lost,
    }
}

/// `{error, {not_owner, Node}}`: asked is another node, this one if it is known.
pub(super) fn not_owner(node: Option<Term>) -> Term {
    let node = node.unwrap_or_else(|| Term::atom("nil"));
    let why = Term::tuple([Term::atom("not_owner"), node]);
    Term::tuple([Term::atom("error"), why])
}
