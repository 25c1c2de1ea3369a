//! Names that one process has at every instant.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebeam_core::leadership::group::{Answer, Command, Read};
use tiebeam_core::leadership::machine::Kind;
use tiebeam_wire::{Pid, Term};

use crate::cluster::claim::{ClaimChanges, Claims, Told};
use crate::cluster::leadership::{LeadershipError, Shared, Token, unexpected};
use crate::cluster::name::Name;
use crate::cluster::replica::{self, Changed};
use crate::cluster::table::{pid_bytes, term_bytes};
use crate::typed;

/// Names on which the cluster agrees: unlike those of [`Registry`](crate::Registry), a name has one process at every instant, also while
/// the cluster is split, and registering one needs a majority of the voters. Clones are the same.
///
/// ```no_run
/// # async fn own(node: tiebeam_node::Node, cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let names = cluster.registry().strong();
/// let ledger = node.spawn_anonymous()?;
/// let token = names.register("ledger", ledger.pid()).await?;
/// assert_eq!(names.whereis("ledger").as_ref(), Some(ledger.pid()));
/// # Ok(())
/// # }
/// ```
///
/// A name goes when its process ends, when it is unregistered, and when its node is gone for longer than a session
/// ([`ClusterConfig::session`](crate::ClusterConfig::session)). A process that loses its name is told
/// `{tiebeam, Cluster, {lost, name, Name, Token}}` before another can have it.
#[derive(Clone)]
pub struct StrongNames {
    shared: Shared,
}

impl StrongNames {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The same names; a call waits so long at most. Default five seconds.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let mut made = self.clone();
        made.shared.timeout = timeout;
        made
    }

    /// Gives a name to a process of this node, until that ends: the fencing token. [`LeadershipError::Held`] if another one
    /// has it.
    ///
    /// # Cancel safety
    /// Once polled, the process may be registered even if the future is dropped.
    pub async fn register(
        &self,
        name: impl Into<Name>,
        pid: &Pid,
    ) -> Result<Token, LeadershipError> {
        self.claim(name.into(), pid, Term::atom("nil")).await
    }

    /// As [`StrongNames::register`], with metadata that all nodes see.
    ///
    /// # Cancel safety
    /// As for [`StrongNames::register`].
    pub async fn register_with<T: Serialize + ?Sized>(
        &self,
        name: impl Into<Name>,
        pid: &Pid,
        meta: &T,
    ) -> Result<Token, LeadershipError> {
        let meta = typed::to_term(meta).map_err(LeadershipError::Value)?;
        self.claim(name.into(), pid, meta).await
    }

    async fn claim(&self, name: Name, pid: &Pid, meta: Term) -> Result<Token, LeadershipError> {
        name.check().map_err(LeadershipError::Name)?;
        if pid.node != *self.shared.node.name() {
            return Err(LeadershipError::Elsewhere { pid: pid.clone() });
        }
        if !self.shared.node.is_process_alive(pid) {
            return Err(LeadershipError::NoProcess);
        }
        let command = Command::Acquire {
            kind: Kind::Name,
            name: name.bytes().to_vec(),
            value: term_bytes(&Term::tuple([Term::from(pid), meta])),
            ttl: None,
            pid: pid_bytes(pid),
            wait: false,
        };
        self.shared.done(command).await.map(Token)
    }

    /// Takes a name of this node away from its process. The token is that of its registration.
    ///
    /// # Errors
    /// [`LeadershipError::NotHeld`]: the process lost it before.
    ///
    /// # Cancel safety
    /// Once polled, the name may be taken away even if the future is dropped.
    pub async fn unregister(
        &self,
        name: impl Into<Name>,
        token: Token,
    ) -> Result<(), LeadershipError> {
        let name = name.into();
        name.check().map_err(LeadershipError::Name)?;
        let command = Command::Release {
            kind: Kind::Name,
            name: name.bytes().to_vec(),
            token: token.0,
        };
        self.shared.done(command).await.map(drop)
    }

    /// Replaces the metadata of a name whose process is one of this node. There is no moment without the name, and its token stays.
    ///
    /// # Errors
    /// [`LeadershipError::NotHeld`]: no process of this node has the name, as far as it knows, or it was lost meanwhile.
    ///
    /// # Cancel safety
    /// Once polled, the metadata may be replaced even if the future is dropped.
    pub async fn update_meta<T: Serialize + ?Sized>(
        &self,
        name: impl Into<Name>,
        meta: &T,
    ) -> Result<(), LeadershipError> {
        let name = name.into();
        name.check().map_err(LeadershipError::Name)?;
        let meta = typed::to_term(meta).map_err(LeadershipError::Value)?;
        let found = self.lookup(&name).ok_or(LeadershipError::NotHeld)?;
        if found.pid.node != *self.shared.node.name() {
            return Err(LeadershipError::Elsewhere { pid: found.pid });
        }
        let command = Command::Update {
            kind: Kind::Name,
            name: name.bytes().to_vec(),
            token: found.token.0,
            value: term_bytes(&Term::tuple([Term::from(&found.pid), meta])),
        };
        self.shared.done(command).await.map(drop)
    }

    /// Waits until some process has this name, for at most so long: `None` if none has by then. What is there already is found at once.
    ///
    /// # Errors
    /// [`LeadershipError::Ended`]: the cluster's process on this node has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn await_name(
        &self,
        name: impl Into<Name>,
        timeout: Duration,
    ) -> Result<Option<StrongRegistration>, LeadershipError> {
        let name = name.into();
        name.check().map_err(LeadershipError::Name)?;
        // Before the first look: no change is missed.
        let mut changes = Claims::new(self.shared.clone(), Kind::Name).changes();
        let found = async {
            loop {
                if let Some(found) = self.lookup(&name) {
                    return Ok(Some(found));
                }
                if !changes.changed().await {
                    return Err(LeadershipError::Ended);
                }
            }
        };
        tokio::time::timeout(timeout, found)
            .await
            .unwrap_or(Ok(None))
    }

    /// From now on tells of each name that is registered, gets other metadata, or goes, in the order in which the cluster agreed on it.
    pub fn subscribe(&self) -> StrongEvents {
        StrongEvents {
            changes: Claims::new(self.shared.clone(), Kind::Name).changes(),
        }
    }

    /// The process that has a name, as this node has it. Reads a local table, never waits.
    pub fn whereis(&self, name: impl Into<Name>) -> Option<Pid> {
        self.lookup(name).map(|found| found.pid)
    }

    /// The process that has a name, with its metadata and token, as this node has it. Reads a local table, never waits.
    pub fn lookup(&self, name: impl Into<Name>) -> Option<StrongRegistration> {
        let claim = self.shared.replica.claim(Kind::Name, name.into().bytes())?;
        StrongRegistration::of(claim.token, &claim.value)
    }

    /// The process that has a name, or nobody, now: asks the leader.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn holder(
        &self,
        name: impl Into<Name>,
    ) -> Result<Option<StrongRegistration>, LeadershipError> {
        let name = name.into();
        name.check().map_err(LeadershipError::Name)?;
        let command = Command::Holder {
            kind: Kind::Name,
            name: name.bytes().to_vec(),
            read: Read::Linear,
        };
        match self.shared.ask(command).await? {
            Answer::Holder(holding) => {
                Ok(holding
                    .and_then(|holding| StrongRegistration::of(holding.token, &holding.value)))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// All names, as this node has them. Reads the whole local table, never waits.
    pub fn names(&self) -> Vec<Name> {
        let claims = self.shared.replica.claims().into_iter();
        let names = claims.filter(|((kind, _), _)| *kind == Kind::Name);
        names.map(|((_, name), _)| Name::of(&name)).collect()
    }
}

impl fmt::Debug for StrongNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrongNames").finish_non_exhaustive()
    }
}

/// A change of strong names. Comes from [`StrongEvents::recv`]; look-ups show it already.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StrongEvent {
    /// A process has the name.
    Registered {
        /// The name.
        name: Name,
        /// Its process, with its metadata and token.
        registration: StrongRegistration,
    },
    /// It has other metadata.
    Updated {
        /// The name.
        name: Name,
        /// Its process, with its metadata and token.
        registration: StrongRegistration,
    },
    /// It has the name no more: it gave it back or ended, or its node is gone for longer than a session.
    Unregistered {
        /// The name.
        name: Name,
        /// As it was.
        registration: StrongRegistration,
    },
    /// The subscriber was so slow that this many changes were dropped; look-ups have the present state.
    Missed(u64),
}

/// A subscription; see [`StrongNames::subscribe`].
pub struct StrongEvents {
    changes: ClaimChanges,
}

impl StrongEvents {
    /// The next event; `None` when the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<StrongEvent> {
        loop {
            let change = match self.changes.next().await? {
                Told::Changed(change) => change,
                Told::Missed(count) => return Some(StrongEvent::Missed(count)),
            };
            let name = Name::of(&change.name);
            let claim = change.claim;
            // Another node may have written what is no process.
            let Some(registration) = StrongRegistration::of(claim.token, &claim.value) else {
                continue;
            };
            return Some(match change.what {
                Changed::Claimed => StrongEvent::Registered { name, registration },
                Changed::Updated => StrongEvent::Updated { name, registration },
                Changed::Freed => StrongEvent::Unregistered { name, registration },
            });
        }
    }
}

impl fmt::Debug for StrongEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrongEvents").finish_non_exhaustive()
    }
}

/// Whose a strong name is.
#[derive(Debug, Clone, PartialEq)]
pub struct StrongRegistration {
    /// The process.
    pub pid: Pid,
    /// The token of its registration.
    pub token: Token,
    meta: Term,
}

impl StrongRegistration {
    fn of(token: u64, value: &[u8]) -> Option<Self> {
        let (pid, meta) = replica::holder(value)?;
        let token = Token(token);
        Some(Self { pid, token, meta })
    }

    /// Its metadata as a Rust value.
    ///
    /// # Errors
    /// It is of another type.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T, typed::Error> {
        typed::from_term(&self.meta)
    }

    /// Its metadata as a term.
    pub fn meta_term(&self) -> &Term {
        &self.meta
    }
}
