//! What a Rust program does with the leader of a cluster.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tiebeam_core::NodeName;
use tiebeam_core::leadership::group::{Answer, Command, Led, Standing};
use tokio::sync::broadcast;

use crate::cluster::leadership::{LeadershipError, Shared, Token, unexpected};
use crate::cluster::replica::{Lease, News};

/// The leader of the cluster's group: one of its voters. Clones are the same.
///
/// ```no_run
/// # async fn lead(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let leader = cluster.leader();
/// if let Some(token) = leader.is_leader() {
///     println!("this node leads, under token {token}");
/// }
/// let mut changes = leader.watch();
/// while let Some(change) = changes.recv().await {
///     println!("term {}: {:?}", change.term, change.leader);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Who leads, and who may say so
///
/// [`Leader::current`] is what this node has heard, and may be old. [`Leader::is_leader`] is more: while it answers with a
/// token, it does so on no other node, for it looks at a lease that a majority of the voters confirmed. It looks at the clock
/// when it is called; what is done with the answer is done later, so what must never be done twice at once should carry the
/// token.
#[derive(Clone)]
pub struct Leader {
    shared: Shared,
}

impl Leader {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// Waits so long where [`Leader`] waits for others. Default five seconds.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let shared = Shared {
            timeout,
            ..self.shared.clone()
        };
        Self { shared }
    }

    /// This node leads, and no other node does: the token. Reads a local table and the clock, never waits.
    pub fn is_leader(&self) -> Option<Token> {
        self.held(*self.shared.replica.lease.borrow())
    }

    fn held(&self, lease: Lease) -> Option<Token> {
        // The table first, then the clock: what is compared is never too old.
        let until = lease.until?;
        (self.shared.now() < until).then_some(Token(lease.term))
    }

    /// Who leads, as far as this node knows, and in which term. Reads a local table, never waits.
    pub fn current(&self) -> Option<(NodeName, u64)> {
        let led = self.shared.replica.led();
        Some((led.leader?, led.term))
    }

    /// The latest term that this node knows. Reads a local table, never waits.
    pub fn term(&self) -> u64 {
        self.shared.replica.led().term
    }

    /// Hands leadership over, to a voter or, without any, to the one that can take over first. Returns when another node
    /// leads: its term. Asks the leader, if that is another node.
    ///
    /// # Cancel safety
    /// Once polled, leadership is handed over even if the future is dropped, unless the request still waits for its turn.
    pub async fn step_down(&self, to: Option<&str>) -> Result<u64, LeadershipError> {
        let to = to.map(node_name).transpose()?;
        self.shared.done(Command::StepDown { to }).await
    }

    /// From now on tells who leads: what is known now at once, then each change, in the order of terms.
    pub fn watch(&self) -> LeaderChanges {
        // Subscribed before it is read: no change is missed.
        let receiver = match self.shared.leaders.upgrade() {
            Some(leaders) => leaders.subscribe(),
            // The driver is gone: a subscription that ends at once.
            None => broadcast::channel(1).1,
        };
        LeaderChanges {
            shared: self.shared.clone(),
            receiver,
            told: None,
        }
    }

    /// Does something as the leader: `work` is started if this node leads, and given up, at its next `await`, when it no longer
    /// does. Its effects should carry the token.
    ///
    /// # Errors
    ///
    /// [`LeadershipError::NotLeader`]: it was not started. [`LeadershipError::Lost`]: it was given up.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub async fn with_leadership<T, F: Future<Output = T>>(
        &self,
        work: impl FnOnce(Token) -> F,
    ) -> Result<T, LeadershipError> {
        let mut lease = self.shared.replica.lease.subscribe();
        let present = *lease.borrow_and_update();
        let Some(token) = self.held(present) else {
            let leader = self.shared.replica.led().leader;
            return Err(LeadershipError::NotLeader { leader });
        };
        let lost = async {
            loop {
                let present = *lease.borrow_and_update();
                let until = match present.until {
                    Some(until) if self.held(present) == Some(token) => until,
                    _ => return,
                };
                let until = self.shared.origin + Duration::from_micros(until.as_micros());
                tokio::select! {
                    changed = lease.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(until) => {}
                }
            }
        };
        tokio::select! {
            // What ended in time was done in time.
            biased;
            done = work(token) => Ok(done),
            () = lost => Err(LeadershipError::Lost),
        }
    }

    // ---- members

    /// The nodes that vote, and those that learn, as this node has it. Reads a local table, never waits.
    pub fn composition(&self) -> (Vec<NodeName>, Vec<NodeName>) {
        let composition = self.shared.replica.composition.borrow();
        (composition.voters.clone(), composition.learners.clone())
    }

    /// The members of the group, and how the leader finds them if this node leads.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn members(&self) -> Result<Vec<Standing>, LeadershipError> {
        match self.shared.ask(Command::Members).await? {
            Answer::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a node a voter, once it has the log. It must run, and have a voter in its own settings.
    ///
    /// # Cancel safety
    /// Once polled, the node becomes a voter even if the future is dropped, unless the request still waits for its turn.
    pub async fn add_voter(&self, node: &str) -> Result<(), LeadershipError> {
        let command = Command::AddVoter(node_name(node)?);
        self.shared.done(command).await.map(drop)
    }

    /// Takes the vote of a node away. Nobody does that by itself: a voter that is gone for good counts until it is removed.
    ///
    /// # Cancel safety
    /// As for [`Leader::add_voter`].
    pub async fn remove_voter(&self, node: &str) -> Result<(), LeadershipError> {
        let command = Command::RemoveVoter(node_name(node)?);
        self.shared.done(command).await.map(drop)
    }

    /// **Only after the majority of the voters is lost for good.** Founds the group anew with what this node has, as its only
    /// voter; add others with [`Leader::add_voter`]. What this node had not heard of is lost, even if it was acknowledged. If the
    /// others are alive after all, there are two groups that refuse each other, two leaders, and each lock twice.
    ///
    /// # Cancel safety
    /// As for [`Leader::add_voter`].
    pub async fn force_new_cluster(&self) -> Result<(), LeadershipError> {
        self.shared.done(Command::ForceNewGroup).await.map(drop)
    }
}

pub(super) fn node_name(node: &str) -> Result<NodeName, LeadershipError> {
    NodeName::parse(node).map_err(LeadershipError::Node)
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}

/// Who leads, from some moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderChange {
    /// Who, if anybody does.
    pub leader: Option<NodeName>,
    /// The term, which never goes back.
    pub term: u64,
}

impl From<Led> for LeaderChange {
    fn from(Led { term, leader }: Led) -> Self {
        Self { leader, term }
    }
}

/// A subscription; see [`Leader::watch`].
pub struct LeaderChanges {
    shared: Shared,
    receiver: broadcast::Receiver<News>,
    /// The number of the latest news that was told.
    told: Option<u64>,
}

impl LeaderChanges {
    /// Who leads, at once the first time, then after each change; `None` when the driver is gone. Whoever is so slow that it
    /// missed changes is told the present state instead.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<LeaderChange> {
        loop {
            let present = || self.shared.replica.news.borrow().clone();
            let news = match self.told {
                None => present(),
                Some(_) => match self.receiver.recv().await {
                    Ok(news) => news,
                    Err(broadcast::error::RecvError::Lagged(_)) => present(),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            // What was read from the table may come again.
            if self.told.is_none_or(|told| told < news.number) {
                self.told = Some(news.number);
                return Some(news.led.into());
            }
        }
    }
}

impl fmt::Debug for LeaderChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderChanges")
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}
