//! Singletons: work that one node of the cluster does at a time, with others standing by.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tiebeam_wire::{Pid, Term};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::runner::LOST;
use crate::cluster::{ClaimGuard, Claims, ClusterHandle, LeadershipError, Name, Token};
use crate::error::CallError;
use crate::function::caught;
use crate::process::{Call, Process, Signal};
use crate::typed;

/// How long one question for the claim waits; it is asked again and again.
const WAIT: Duration = Duration::from_secs(60);

/// The pause before it is asked again when there was no majority.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an orderly end waits for the claim to be given back; the end of the claimant gives it back as well.
const RELEASE: Duration = Duration::from_secs(2);

const DEFAULT_COOLDOWN: Duration = Duration::from_secs(5);
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// Work that runs on one node of the cluster at a time. Clones are the same.
///
/// ```no_run
/// # async fn serve() -> Result<(), tiebeam_node::Term> { Ok(()) }
/// # async fn start(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let db = cluster.singleton("db");
/// let standby = db.start(
///     |token| async move {
///         println!("active under {token}");
///         serve().await // given up, at its next `await`, when this node is active no more
///     },
///     |reason| async move { println!("passive: {reason:?}") },
/// )?;
/// println!("active: {:?}", db.active()); // where it is, asked on any node
/// standby.stop().await; // gives it back
/// # Ok(())
/// # }
/// ```
///
/// Start it on each node that may do the work. One of them is *active*; the others are *passive*, and one of them takes over when
/// the active one gives it back, or is gone for as long as a session ([`ClusterConfig::session`](crate::ClusterConfig::session)).
/// A BEAM that starts `Tiebeam.Singleton` under the same name is a standby as any other.
///
/// # What is promised
///
/// Of two nodes whose clocks run alike at most one is active. A node becomes active only when it was granted the claim, and it
/// knows that the claim is lost before anybody else can have it: then the work is given up at its next `await`, at once. Everything
/// orderly ([`Singleton::step_down`], [`Standby::stop`], work that failed) gives up the work, runs `on_passive`, and gives the claim
/// back afterwards. Work that blocks its thread, or stands still, cannot be given up; so what must never be done twice should
/// carry the token, which grows with each grant.
///
/// Taking over needs a majority of the voters; an active node that loses contact with it stops.
#[derive(Clone)]
pub struct Singleton {
    cluster: ClusterHandle,
    claims: Claims,
    name: Name,
    cooldown: Duration,
    grace: Duration,
    meta: Term,
}

impl ClusterHandle {
    /// Work that runs on one node of the cluster at a time. Needs [`ClusterConfig::voters`](crate::ClusterConfig::voters).
    pub fn singleton(&self, name: impl Into<Name>) -> Singleton {
        Singleton {
            cluster: self.clone(),
            claims: self.claims(),
            name: name.into(),
            cooldown: DEFAULT_COOLDOWN,
            grace: DEFAULT_GRACE,
            meta: Term::atom("nil"),
        }
    }
}

impl Singleton {
    /// For how long a node that stepped down leaves the work to the others. Default five seconds.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// How long `on_passive` may take; then it is given up. Default five seconds; 50 ms when the claim is lost.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What others see of this node while it is active.
    ///
    /// # Errors
    /// The value has no form as a term.
    pub fn meta<T: Serialize + ?Sized>(mut self, meta: &T) -> Result<Self, LeadershipError> {
        self.meta = typed::to_term(meta).map_err(LeadershipError::Value)?;
        Ok(self)
    }

    /// Stands by, from now on until [`Standby::stop`].
    ///
    /// When this node becomes active `on_active` runs, in a task. If it returns `Ok` the node stays active; if it returns an error, or
    /// panics, the node steps down. When the node is active no more, `on_active` is dropped, and then `on_passive` runs. The next
    /// `on_active` of this node comes after that.
    ///
    /// # Errors
    /// [`LeadershipError::NoGroup`], [`LeadershipError::Name`], or [`LeadershipError::Ended`] if the node has stopped.
    pub fn start<A, P, AF, PF>(
        &self,
        on_active: A,
        on_passive: P,
    ) -> Result<Standby, LeadershipError>
    where
        A: Fn(Token) -> AF + Send + Sync + 'static,
        P: Fn(PassiveReason) -> PF + Send + Sync + 'static,
        AF: Future<Output = Result<(), Term>> + Send + 'static,
        PF: Future<Output = ()> + Send + 'static,
    {
        self.name.check().map_err(LeadershipError::Name)?;
        if !self.claims.takes_part() {
            return Err(LeadershipError::NoGroup);
        }
        let node = self.cluster.node();
        let process = node.spawn_anonymous();
        let process = process.map_err(|_| LeadershipError::Ended)?;
        let (stop, stopping) = watch::channel(false);
        let (activity, active) = watch::channel(None);
        let driver = Driver {
            singleton: self.clone(),
            on_active: Arc::new(on_active),
            on_passive,
            activity,
            stopping,
        };
        let pid = node.run(process, |process| driver.run(process));
        Ok(Standby {
            pid,
            cluster: self.cluster.clone(),
            stop: Arc::new(stop),
            active,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The active node, as far as this one knows. Reads a local table, never waits.
    pub fn active(&self) -> Option<SingletonHolder> {
        let held = self.claims.holder(&self.name)?;
        Some(SingletonHolder {
            pid: held.pid,
            token: held.token,
            meta: held.meta,
        })
    }

    /// Makes the active node passive, in good order, wherever it is: its work is ended, then another node may take over. It stands by
    /// again after its cooldown. Returns when the claim was given back; false if no node is active, as far as this one knows.
    ///
    /// # Cancel safety
    /// Once polled, the node may step down even if the future is dropped.
    pub async fn step_down(&self, timeout: Duration) -> Result<bool, CallError> {
        let Some(active) = self.active() else {
            return Ok(false);
        };
        let request = Term::tuple([Term::atom("step_down"), Term::from(active.token.0)]);
        let node = self.cluster.node();
        let reply = node.call_term(&active.pid, request, timeout).await?;
        Ok(reply.is_atom("ok"))
    }
}

impl fmt::Debug for Singleton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singleton")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The active node of a singleton.
#[derive(Debug, Clone, PartialEq)]
pub struct SingletonHolder {
    /// The process that stands by there.
    pub pid: Pid,
    /// The token.
    pub token: Token,
    /// What it says of itself.
    pub meta: Term,
}

/// Why a node is active no more.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PassiveReason {
    /// The claim is lost: another node may have it in a moment.
    Lost,
    /// Somebody asked it to step down.
    StepDown,
    /// It was stopped.
    Shutdown,
    /// The work failed, for this reason.
    Failed(Term),
}

/// A node that stands by for a singleton, or is active. Clones are the same; dropping them changes nothing.
#[derive(Clone)]
pub struct Standby {
    pid: Pid,
    cluster: ClusterHandle,
    stop: Arc<watch::Sender<bool>>,
    active: watch::Receiver<Option<Token>>,
}

impl Standby {
    /// Its process: it ends when it is stopped, or when the cluster's process on this node does.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// This node is active: the token. Never waits. What is done with the answer is done later, so it should carry the token.
    pub fn is_active(&self) -> Option<Token> {
        *self.active.borrow()
    }

    /// Waits until this node is active: the token; `None` if it stands by no more.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_until_active(&self) -> Option<Token> {
        let mut active = self.active.clone();
        let token = active.wait_for(Option::is_some).await.ok()?;
        *token
    }

    /// Stands by no more: an active node ends its work and gives the claim back. Returns when that is done.
    ///
    /// # Cancel safety
    /// Once polled, it stops even if the future is dropped.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.cluster.node().wait_for_end(&self.pid).await;
    }
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby")
            .field("pid", &self.pid)
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

/// The process that stands by.
struct Driver<A, P> {
    singleton: Singleton,
    on_active: Arc<A>,
    on_passive: P,
    activity: watch::Sender<Option<Token>>,
    stopping: watch::Receiver<bool>,
}

impl<A, P, AF, PF> Driver<A, P>
where
    A: Fn(Token) -> AF + Send + Sync + 'static,
    P: Fn(PassiveReason) -> PF + Send + Sync + 'static,
    AF: Future<Output = Result<(), Term>> + Send + 'static,
    PF: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self, mut process: Process) -> Result<(), Term> {
        loop {
            let Some(claim) = self.stand(&mut process).await? else {
                return Ok(());
            };
            let pause = match self.activate(claim, &mut process).await {
                None | Some(PassiveReason::Shutdown) => return Ok(()),
                Some(PassiveReason::Lost) => Duration::ZERO,
                Some(PassiveReason::StepDown | PassiveReason::Failed(_)) => self.singleton.cooldown,
            };
            if self.passive(&mut process, sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits until the claim is granted; `None` if it is not wanted any more.
    async fn stand(&mut self, process: &mut Process) -> Result<Option<ClaimGuard>, Term> {
        let pid = process.pid().clone();
        loop {
            let Singleton {
                claims, name, meta, ..
            } = self.singleton.clone();
            let asked = ClaimGuard::acquire(claims, name, Some((&pid, meta)), None, true, WAIT);
            let Some(answer) = self.passive(process, asked).await else {
                return Ok(None);
            };
            match answer {
                Ok(claim) => return Ok(Some(claim)),
                Err(LeadershipError::Held { .. }) => {}
                Err(
                    error @ (LeadershipError::NoQuorum
                    | LeadershipError::Unknown
                    | LeadershipError::Busy { .. }
                    | LeadershipError::Full(_)),
                ) => {
                    debug!(singleton = %self.singleton.name, "stands by: {error}");
                    if self.passive(process, sleep(PAUSE)).await.is_none() {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    warn!(singleton = %self.singleton.name, "stands by no more: {error}");
                    return Err(error.reason());
                }
            }
        }
    }

    /// Waits for something, as a passive node; `None` if it is not wanted any more.
    async fn passive<T>(
        &mut self,
        process: &mut Process,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut self.stopping) => return None,
                signal = process.recv() => {
                    if let Signal::Call(call) = signal? {
                        answer_passive(call);
                    }
                }
                done = &mut future => return Some(done),
            }
        }
    }

    /// Does the work, until this node must not, or shall not; why. `None`: the process was killed.
    async fn activate(
        &mut self,
        mut claim: ClaimGuard,
        process: &mut Process,
    ) -> Option<PassiveReason> {
        let token = claim.token();
        if !claim.is_held() {
            return Some(PassiveReason::Lost);
        }
        info!(singleton = %self.singleton.name, %token, "active");
        // Dropped before the claim is.
        let mut work = JoinSet::new();
        let on_active = Arc::clone(&self.on_active);
        work.spawn(async move { caught(async { on_active(token).await }).await.flatten() });
        self.activity.send_replace(Some(token));
        let mut asked = None;
        let reason = loop {
            tokio::select! {
                biased;
                () = claim.lost() => break PassiveReason::Lost,
                () = told_to_stop(&mut self.stopping) => break PassiveReason::Shutdown,
                signal = process.recv() => {
                    if let Signal::Call(call) = signal? {
                        match Request::of(&call) {
                            Request::StepDown(of) if of == Some(token) => {
                                asked = Some(call);
                                break PassiveReason::StepDown;
                            }
                            Request::Status => {
                                let active = Term::tuple([Term::atom("active"), Term::from(token.0)]);
                                let _ = call.reply_term(active);
                            }
                            _ => answer_passive(call),
                        }
                    }
                }
                Some(done) = work.join_next() => match done {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => break PassiveReason::Failed(reason),
                    Err(error) => break PassiveReason::Failed(Term::from(error.to_string())),
                },
            }
        };
        self.activity.send_replace(None);
        work.shutdown().await;
        match &reason {
            PassiveReason::Failed(why) => {
                warn!(singleton = %self.singleton.name, %token, "steps down: {why}");
            }
            reason => info!(singleton = %self.singleton.name, %token, ?reason, "passive"),
        }
        let passive = (self.on_passive)(reason.clone());
        if reason == PassiveReason::Lost {
            let _ = timeout(LOST, passive).await;
        } else {
            tokio::select! {
                biased;
                // Somebody else may have it in a moment: nothing orderly takes that short.
                () = claim.lost() => {}
                _ = timeout(self.singleton.grace, passive) => {}
            }
            if let Err(error) = claim.release(RELEASE).await {
                debug!(singleton = %self.singleton.name, %token, "is being given back: {error}");
            }
        }
        if let Some(call) = asked {
            // Whoever asked may be gone.
            let _ = call.reply_term(Term::atom("ok"));
        }
        Some(reason)
    }
}

/// Waits for the word of a handle; for ever if none is left.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// What others ask of a standby.
enum Request {
    /// `{step_down, Token}`.
    StepDown(Option<Token>),
    /// `status`.
    Status,
    Other,
}

impl Request {
    fn of(call: &Call) -> Self {
        match call.request() {
            Term::Tuple(request) => match request.as_slice() {
                [tag, token] if tag.is_atom("step_down") => {
                    let token = token.as_integer();
                    Self::StepDown(token.and_then(|token| u64::try_from(token).ok()).map(Token))
                }
                _ => Self::Other,
            },
            request if request.is_atom("status") => Self::Status,
            _ => Self::Other,
        }
    }
}

fn answer_passive(call: Call) {
    let error = |reason| Term::tuple([Term::atom("error"), Term::atom(reason)]);
    let reply = match Request::of(&call) {
        Request::StepDown(_) => error("passive"),
        Request::Status => Term::atom("passive"),
        Request::Other => error("unknown_request"),
    };
    // Whoever asked may be gone.
    let _ = call.reply_term(reply);
}
