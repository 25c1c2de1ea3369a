//! References to actors: typed, and good for as long as their name is.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use tiebeam_wire::{Pid, Term};

use crate::cluster::{Name, Registry};
use crate::error::{CallError, SendError, SpawnError};
use crate::message::FromTerm;
use crate::node::Node;
use crate::process::Destination;
use crate::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorRef};
use crate::typed;

/// A way to send messages of type `M` to whoever has a name (or to one process): who that is, is looked up for every message,
/// so a reference outlives restarts. Cheap to clone.
///
/// While the actor is being restarted nobody has its name: calls fail with [`CallError::NoProcess`], which a
/// [`RetryPolicy`](crate::RetryPolicy) tries again, since the request was not handled.
///
/// ```no_run
/// # async fn orders(node: tiebeam_node::Node, cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tiebeam_node::{ActorRef, RetryPolicy};
///
/// let local: ActorRef<i64> = node.actor("counter");
/// let remote: ActorRef<i64> = node.actor(("counter", "app@127.0.0.1"));
/// let anywhere: ActorRef<i64> = cluster.registry().actor("counter");
///
/// let timeout = Duration::from_secs(5);
/// let sum: i64 = RetryPolicy::default().run(|| anywhere.call(&1, timeout)).await?;
/// # Ok(())
/// # }
/// ```
pub struct ActorRef<M> {
    node: Node,
    address: Address,
    messages: PhantomData<fn(M)>,
}

#[derive(Clone)]
enum Address {
    To(Destination),
    Registered(Registry, Name),
}

impl Node {
    /// A reference to who is there: a name of this node, `(name, node)`, or a pid, which does not outlive a restart.
    pub fn actor<M>(&self, to: impl Into<Destination>) -> ActorRef<M> {
        ActorRef::new(self.clone(), Address::To(to.into()))
    }

    /// Starts a child under a supervisor of its own, in one call: the supervisor, and a reference that outlives restarts.
    ///
    /// # Errors
    /// The child has no name ([`ChildSpec::named`], [`ChildSpec::registered`]), or was not started.
    ///
    /// # Cancel safety
    /// As for [`Supervisor::start`].
    pub async fn start_supervised<M>(
        &self,
        child: ChildSpec,
    ) -> Result<(SupervisorRef, ActorRef<M>), SpawnError> {
        let address = match (child.cluster_name(), child.local_name()) {
            (Some((registry, name)), _) => Address::Registered(registry.clone(), name.clone()),
            (None, Some(name)) => Address::To(Destination::Local(name.clone())),
            (None, None) => {
                return Err(SpawnError::Invalid(
                    "a child without a name cannot be found after a restart: give it one"
                        .to_owned(),
                ));
            }
        };
        let supervisor = Supervisor::new(Strategy::OneForOne).child(child);
        let supervisor = supervisor.start(self).await?;
        Ok((supervisor, ActorRef::new(self.clone(), address)))
    }
}

impl Registry {
    /// A reference to whoever has this name of the cluster, on whatever node.
    pub fn actor<M>(&self, name: impl Into<Name>) -> ActorRef<M> {
        let address = Address::Registered(self.clone(), name.into());
        ActorRef::new(self.node().clone(), address)
    }
}

impl<M> ActorRef<M> {
    fn new(node: Node, address: Address) -> Self {
        Self {
            node,
            address,
            messages: PhantomData,
        }
    }

    /// The same actor, for messages of another type.
    pub fn of<N>(&self) -> ActorRef<N> {
        ActorRef::new(self.node.clone(), self.address.clone())
    }

    /// The process that it leads to just now; `None` if nobody has the name, or only another node knows.
    pub fn whereis(&self) -> Option<Pid> {
        match &self.address {
            Address::To(Destination::Pid(pid)) => Some(pid.clone()),
            Address::To(Destination::Local(name)) => self.node.whereis(name.as_str()),
            Address::To(Destination::Name { name, node }) if node == self.node.name() => {
                self.node.whereis(name.as_str())
            }
            Address::To(Destination::Name { .. } | Destination::Alias(_)) => None,
            Address::Registered(registry, name) => registry.whereis(name),
        }
    }

    /// Where the next message goes.
    fn destination(&self) -> Result<Destination, SendError> {
        match &self.address {
            Address::To(to) => Ok(to.clone()),
            Address::Registered(registry, name) => registry
                .whereis(name)
                .map(Destination::Pid)
                .ok_or_else(|| SendError::Unknown(name.clone())),
        }
    }
}

impl<M: Serialize> ActorRef<M> {
    /// Asks, as `GenServer.call`; see [`Node::call`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reply; the request may still be handled.
    pub async fn call<T: FromTerm>(&self, request: &M, timeout: Duration) -> Result<T, CallError> {
        match self.destination() {
            Ok(to) => self.node.call(to, request, timeout).await,
            Err(SendError::Unknown(_)) => Err(CallError::NoProcess),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request that has no reply, as `GenServer.cast`. Never blocks; a message to a process that has just ended is
    /// lost.
    pub fn cast(&self, message: &M) -> Result<(), SendError> {
        self.node.cast(self.destination()?, message)
    }

    /// Sends a plain message, as `send/2`. Never blocks, as [`ActorRef::cast`].
    pub fn send(&self, message: &M) -> Result<(), SendError> {
        self.node.send(self.destination()?, term(message)?)
    }

    /// As [`ActorRef::cast`] for each of these, whatever becomes of the others.
    pub fn cast_all<'a>(&self, messages: impl IntoIterator<Item = &'a M>) -> BatchReport
    where
        M: 'a,
    {
        BatchReport::of(messages.into_iter().map(|message| self.cast(message)))
    }

    /// As [`ActorRef::send`] for each of these, whatever becomes of the others.
    pub fn send_all<'a>(&self, messages: impl IntoIterator<Item = &'a M>) -> BatchReport
    where
        M: 'a,
    {
        BatchReport::of(messages.into_iter().map(|message| self.send(message)))
    }
}

fn term<M: Serialize>(message: &M) -> Result<Term, SendError> {
    typed::to_term(message).map_err(|error| SendError::Encode(error.to_string()))
}

impl<M> Clone for ActorRef<M> {
    fn clone(&self) -> Self {
        self.of()
    }
}

impl<M> fmt::Debug for ActorRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ActorRef");
        match &self.address {
            Address::To(to) => debug.field("to", to),
            Address::Registered(_, name) => debug.field("name", name),
        };
        debug.finish_non_exhaustive()
    }
}

/// What became of several messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchReport {
    /// How many were sent.
    pub sent: usize,
    /// Those that were not: which, counted from 0, and why.
    pub failed: Vec<(usize, SendError)>,
}

impl BatchReport {
    fn of(results: impl Iterator<Item = Result<(), SendError>>) -> Self {
        let mut report = Self::default();
        for (index, result) in results.enumerate() {
            match result {
                Ok(()) => report.sent += 1,
                Err(error) => report.failed.push((index, error)),
            }
        }
        report
    }

    /// Whether all were sent.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}
