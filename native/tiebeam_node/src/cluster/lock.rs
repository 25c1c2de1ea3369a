//! What a Rust program does with the locks of a cluster.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tiebeam_core::leadership::group::{Answer, Command, Read};
use tiebeam_core::leadership::machine::{Claim, Kind};
use tiebeam_wire::Pid;

use crate::cluster::claim::{ClaimGuard, Claims};
use crate::cluster::leadership::{LeadershipError, Shared, Token, unexpected};
use crate::cluster::name::Name;
use crate::cluster::replica;

/// Locks on which the cluster agrees: each has one holder at a time. Clones are the same.
///
/// ```no_run
/// # async fn bill(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let locks = cluster.locks();
/// let mut lock = locks.acquire("billing", Some(Duration::from_secs(10))).await?;
/// let token = lock.token(); // goes with every effect: who comes later has a greater one
/// tokio::select! {
///     () = async { /* the work */ } => lock.release().await?,
///     () = lock.lost() => println!("stopped: somebody else may have it now"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # When a lock is free
///
/// When its guard is dropped, when its time is over, and when its node is gone for longer than a session
/// ([`ClusterConfig::session`](crate::ClusterConfig::session)). A node that cannot reach the leader tells its guards that they are lost before
/// anybody else can have their locks, if the clocks of two nodes run alike; a program that stands still does not see that in
/// time. So what must never be done twice should compare tokens.
#[derive(Clone)]
pub struct Locks {
    shared: Shared,
}

impl Locks {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The same locks; a call waits so long at most. Default five seconds.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let mut made = self.clone();
        made.shared.timeout = timeout;
        made
    }

    /// Waits until a lock is free, and takes it: for as long as the guard lives, or for `ttl` (half a second to a day) unless it is
    /// renewed. Who waits first is not always who gets it first.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lock back if it was granted meanwhile.
    pub async fn acquire(
        &self,
        name: impl Into<Name>,
        ttl: Option<Duration>,
    ) -> Result<LockGuard, LeadershipError> {
        self.take(name.into(), ttl, true).await
    }

    /// As [`Locks::acquire`]; a lock that is not free is refused at once: [`LeadershipError::Held`].
    ///
    /// # Cancel safety
    /// As for [`Locks::acquire`].
    pub async fn try_acquire(
        &self,
        name: impl Into<Name>,
        ttl: Option<Duration>,
    ) -> Result<LockGuard, LeadershipError> {
        self.take(name.into(), ttl, false).await
    }

    async fn take(
        &self,
        name: Name,
        ttl: Option<Duration>,
        wait: bool,
    ) -> Result<LockGuard, LeadershipError> {
        let claims = Claims::new(self.shared.clone(), Kind::Lock);
        let timeout = self.shared.timeout;
        let claim = ClaimGuard::acquire(claims, name, None, ttl, wait, timeout).await?;
        Ok(LockGuard { claim, timeout })
    }

    /// Takes a lock, does something with it, and gives it back. The work is given up, at its next `await`, when the lock is
    /// lost.
    ///
    /// # Errors
    /// [`LeadershipError::Lost`]: it was given up. All others: it was not started.
    ///
    /// # Cancel safety
    /// As that of `work`; the lock is given back.
    pub async fn with<T, F: Future<Output = T>>(
        &self,
        name: impl Into<Name>,
        ttl: Option<Duration>,
        work: impl FnOnce(Token) -> F,
    ) -> Result<T, LeadershipError> {
        let mut lock = self.acquire(name, ttl).await?;
        let done = tokio::select! {
            // What ended in time was done in time.
            biased;
            done = work(lock.token()) => done,
            () = lock.lost() => return Err(LeadershipError::Lost),
        };
        // Who waits for the lock waits for this; the work is done either way.
        let _ = lock.release().await;
        Ok(done)
    }

    /// Who holds a lock, and under which token: asks the leader.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn holder(
        &self,
        name: impl Into<Name>,
    ) -> Result<Option<LockHolder>, LeadershipError> {
        let name = name.into();
        name.check().map_err(LeadershipError::Name)?;
        let command = Command::Holder {
            kind: Kind::Lock,
            name: name.bytes().to_vec(),
            read: Read::Linear,
        };
        match self.shared.ask(command).await? {
            Answer::Holder(holding) => Ok(holding.map(|holding| LockHolder {
                name,
                pid: replica::holder(&holding.value).map(|(pid, _)| pid),
                token: Token(holding.token),
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// All locks that are held, as this node has them. Reads a local table, never waits.
    pub fn held(&self) -> Vec<LockHolder> {
        let claims = self.shared.replica.claims().into_iter();
        let locks = claims.filter(|((kind, _), _)| *kind == Kind::Lock);
        let holder = |((_, name), claim): ((Kind, Vec<u8>), Claim)| LockHolder {
            name: Name::of(&name),
            pid: replica::holder(&claim.value).map(|(pid, _)| pid),
            token: Token(claim.token),
        };
        locks.map(holder).collect()
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").finish_non_exhaustive()
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The lock.
    pub name: Name,
    /// The process; `None` if its node did not say.
    pub pid: Option<Pid>,
    /// Its token.
    pub token: Token,
}

/// A lock that this program holds, until it is dropped or lost.
pub struct LockGuard {
    claim: ClaimGuard,
    timeout: Duration,
}

impl LockGuard {
    /// Its fencing token.
    pub fn token(&self) -> Token {
        self.claim.token()
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        self.claim.name()
    }

    /// Waits until the lock is lost, which it never is while its node reaches the leader and its time is not over. Whatever
    /// the lock protects must stop then.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn lost(&mut self) {
        self.claim.lost().await;
    }

    /// It was not told yet that the lock is lost. Never waits.
    pub fn is_held(&mut self) -> bool {
        self.claim.is_held()
    }

    /// Holds the lock for so long from now on.
    ///
    /// # Errors
    /// [`LeadershipError::NotHeld`]: it is lost.
    ///
    /// # Cancel safety
    /// Once polled, it may be renewed even if the future is dropped.
    pub async fn renew(&self, ttl: Duration) -> Result<(), LeadershipError> {
        self.claim.renew(ttl).await
    }

    /// Gives the lock back, and returns when it is free. Dropping the guard gives it back, too, a moment later.
    ///
    /// # Errors
    /// [`LeadershipError::NotHeld`]: it was lost before. After any other the node goes on giving it back.
    ///
    /// # Cancel safety
    /// The lock is given back.
    pub async fn release(self) -> Result<(), LeadershipError> {
        self.claim.release(self.timeout).await
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", self.name())
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}
