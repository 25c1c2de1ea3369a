//! Claims: what the group gives to one holder at a time. Locks are made of them, and the patterns are.

use std::time::Duration;

use tiebeam_core::leadership::group::Command;
use tiebeam_core::leadership::machine::Kind;
use tiebeam_wire::{Pid, Term};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::cluster::leadership::{LeadershipError, Shared, Token, core_duration};
use crate::cluster::name::Name;
use crate::cluster::replica::{self, ClaimChange};
use crate::cluster::table::{pid_bytes, term_bytes};
use crate::process::{Process, Signal};

/// The claims of one kind.
#[derive(Clone)]
pub(crate) struct Claims {
    shared: Shared,
    kind: Kind,
}

/// Who holds a claim.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    /// The process that the holder named.
    pub(crate) pid: Pid,
    /// What it said of itself.
    pub(crate) meta: Term,
    pub(crate) token: Token,
}

/// A claim that is wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a Name,
    /// Which process others are shown as the holder, and what it says of itself.
    pub(crate) holder: (&'a Pid, Term),
    pub(crate) ttl: Option<Duration>,
    /// Waits until it is free.
    pub(crate) wait: bool,
}

impl Claims {
    pub(super) fn new(shared: Shared, kind: Kind) -> Self {
        Self { shared, kind }
    }

    /// The cluster has voters.
    pub(crate) fn takes_part(&self) -> bool {
        self.shared.takes_part
    }

    /// Takes a claim in the name of `claimant`: it is told when the claim is lost, and when it ends the claim is given back.
    ///
    /// # Cancel safety
    /// The claim may be granted even if the future is dropped; end the claimant.
    pub(crate) async fn acquire(
        &self,
        wanted: Wanted<'_>,
        claimant: &Pid,
        timeout: Duration,
    ) -> Result<Token, LeadershipError> {
        let (pid, meta) = wanted.holder;
        let command = Command::Acquire {
            kind: self.kind,
            name: wanted.name.bytes().to_vec(),
            value: term_bytes(&Term::tuple([Term::from(pid), meta])),
            ttl: wanted.ttl.map(core_duration),
            pid: pid_bytes(claimant),
            wait: wanted.wait,
        };
        let granted = self.within(timeout).done(command).await.map(Token);
        granted.map_err(|error| match error {
            // Whoever stands by waits for the group to be founded as it does for a majority.
            LeadershipError::NotFounded(_) if self.kind == Kind::Singleton => {
                LeadershipError::NoQuorum
            }
            other => other,
        })
    }

    /// From now on tells whenever a claim of this kind changes: instead of looking at [`Claims::holder`] again and again. The table
    /// shows it already. Begin before the first look, then nothing is missed:
    ///
    /// ```ignore
    /// let mut changes = claims.changes();
    /// loop {
    ///     look(&claims);
    ///     if !changes.changed().await { break }
    /// }
    /// ```
    pub(crate) fn changes(&self) -> ClaimChanges {
        ClaimChanges {
            shared: self.shared.clone(),
            kind: self.kind,
            receiver: self.shared.replica.changes.subscribe(),
        }
    }

    /// Gives a claim back.
    ///
    /// # Cancel safety
    /// Once polled, it is given back.
    pub(crate) async fn release(
        &self,
        name: &Name,
        token: Token,
        timeout: Duration,
    ) -> Result<(), LeadershipError> {
        let command = Command::Release {
            kind: self.kind,
            name: name.bytes().to_vec(),
            token: token.0,
        };
        self.within(timeout).done(command).await.map(drop)
    }

    /// Holds a claim for so long from now on.
    pub(crate) async fn renew(
        &self,
        name: &Name,
        token: Token,
        ttl: Duration,
    ) -> Result<(), LeadershipError> {
        let command = Command::Renew {
            kind: self.kind,
            name: name.bytes().to_vec(),
            token: token.0,
            ttl: core_duration(ttl),
        };
        self.shared.done(command).await.map(drop)
    }

    fn within(&self, timeout: Duration) -> Shared {
        Shared {
            timeout,
            ..self.shared.clone()
        }
    }

    /// Who holds a claim, as this node has it. Reads a local table, never waits.
    pub(crate) fn holder(&self, name: &Name) -> Option<Held> {
        let claim = self.shared.replica.claim(self.kind, name.bytes())?;
        let (pid, meta) = replica::holder(&claim.value)?;
        let token = Token(claim.token);
        Some(Held { pid, meta, token })
    }

    /// The cluster's process on this node has ended: nobody tells any more what is lost.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn ended(&self) {
        self.shared.requests.closed().await;
    }
}

/// Tells that claims of one kind changed; see [`Claims::changes`].
pub(crate) struct ClaimChanges {
    shared: Shared,
    kind: Kind,
    receiver: broadcast::Receiver<ClaimChange>,
}

/// What a subscriber to claims is told.
pub(super) enum Told {
    Changed(ClaimChange),
    /// It was so slow that this many changes, of all kinds, were dropped.
    Missed(u64),
}

impl ClaimChanges {
    /// Waits until a claim of this kind changes, and answers `true`: once for all that changed meanwhile. `false`: the cluster's process on this
    /// node has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) -> bool {
        let first = self.next().await.is_some();
        // Whoever looks now sees all of these.
        while first
            && !matches!(
                self.receiver.try_recv(),
                Err(TryRecvError::Empty | TryRecvError::Closed)
            )
        {}
        first
    }

    /// The next change; `None` when the cluster's process on this node has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                () = self.shared.requests.closed() => return None,
            };
            match received {
                Ok(change) if change.kind == self.kind => return Some(Told::Changed(change)),
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => return Some(Told::Missed(count)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// `{tiebeam, Cluster, {lost, Kind, Name, Token}}`: which claim of the process is lost.
pub(crate) fn lost_claim(signal: &Signal) -> Option<Token> {
    let Signal::Message(Term::Tuple(message)) = signal else {
        return None;
    };
    match message.as_slice() {
        [Term::Atom(tag), _, Term::Tuple(event)] if tag.as_str() == "tiebeam" => {
            match event.as_slice() {
                [Term::Atom(lost), _, _, token] if lost.as_str() == "lost" => {
                    let token = token.as_integer()?;
                    u64::try_from(token).ok().map(Token)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A claim with a claimant of its own: given back when it is dropped.
pub(crate) struct ClaimGuard {
    claims: Claims,
    claimant: Process,
    name: Name,
    token: Token,
    held: bool,
}

impl ClaimGuard {
    /// Takes a claim. Without a `holder` others are shown its claimant.
    ///
    /// # Cancel safety
    /// Dropping the future gives the claim back if it was granted meanwhile.
    pub(crate) async fn acquire(
        claims: Claims,
        name: Name,
        holder: Option<(&Pid, Term)>,
        ttl: Option<Duration>,
        wait: bool,
        timeout: Duration,
    ) -> Result<Self, LeadershipError> {
        name.check().map_err(LeadershipError::Name)?;
        // The claim is this process's: it goes when the process does, and that goes when it is dropped.
        let claimant = claims.shared.node.spawn_anonymous();
        let claimant = claimant.map_err(|_| LeadershipError::Ended)?;
        let wanted = Wanted {
            name: &name,
            holder: holder.unwrap_or_else(|| (claimant.pid(), Term::atom("nil"))),
            ttl,
            wait,
        };
        let token = claims.acquire(wanted, claimant.pid(), timeout).await?;
        Ok(Self {
            claims,
            claimant,
            name,
            token,
            held: true,
        })
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Waits until the claim is lost.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn lost(&mut self) {
        while self.held {
            tokio::select! {
                biased;
                signal = self.claimant.recv() => match signal {
                    Some(signal) => self.held = lost_claim(&signal) != Some(self.token),
                    None => self.held = false,
                },
                () = self.claims.ended() => self.held = false,
            }
        }
    }

    /// It was not told yet that the claim is lost. Never waits.
    pub(crate) fn is_held(&mut self) -> bool {
        while self.held
            && let Some(signal) = self.claimant.try_recv()
        {
            self.held = lost_claim(&signal) != Some(self.token);
        }
        self.held &= self.claimant.exit_reason().is_none();
        self.held &= !self.claims.shared.requests.is_closed();
        self.held
    }

    pub(crate) async fn renew(&self, ttl: Duration) -> Result<(), LeadershipError> {
        self.claims.renew(&self.name, self.token, ttl).await
    }

    /// Gives the claim back, and returns when it is free.
    ///
    /// # Cancel safety
    /// The claim is given back.
    pub(crate) async fn release(self, timeout: Duration) -> Result<(), LeadershipError> {
        self.claims.release(&self.name, self.token, timeout).await
    }
}
