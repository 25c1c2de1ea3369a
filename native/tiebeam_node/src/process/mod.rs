//! Processes: a process is a mailbox with a pid. Dropping it is its death: links and monitors fire.

pub(crate) mod entry;
pub(crate) mod link;
pub(crate) mod mailbox;
mod thread;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::sync::mpsc;

use crate::error::{CallError, SendError, SpawnError};
use crate::message::{FromTerm, Misfit};
use crate::node::{Node, NodeEvent};
use crate::process::entry::Entry;
use crate::process::mailbox::Item;
use crate::router::SpawnOptions;
use crate::typed;

pub use thread::{ThreadProcess, TimedOut};

/// What a monitor watches: a process, or whoever has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// This process.
    Pid(Pid),
    /// The process that had this name when the monitor was set.
    Name(Atom),
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a process, on whatever node.
    Pid(Pid),
    /// To the process with this name on a node.
    Name {
        /// The name.
        name: Atom,
        /// The node.
        node: Atom,
    },
    /// To the process with this name on this node.
    Local(Atom),
    /// To the process that made this alias.
    Alias(Reference),
}

impl From<Pid> for Destination {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}
impl From<&Pid> for Destination {
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}
impl From<Reference> for Destination {
    fn from(alias: Reference) -> Self {
        Self::Alias(alias)
    }
}
impl From<Atom> for Destination {
    fn from(name: Atom) -> Self {
        Self::Local(name)
    }
}
impl From<(Atom, Atom)> for Destination {
    fn from((name, node): (Atom, Atom)) -> Self {
        Self::Name { name, node }
    }
}
/// # Panics
/// When the text has more than 255 characters.
impl From<&str> for Destination {
    fn from(name: &str) -> Self {
        Self::Local(Atom::new(name).expect("a name has at most 255 characters"))
    }
}
/// A name and a node.
///
/// # Panics
/// When one of them has more than 255 characters.
impl From<(&str, &str)> for Destination {
    fn from((name, node): (&str, &str)) -> Self {
        Self::Name {
            name: Atom::new(name).expect("a name has at most 255 characters"),
            node: Atom::new(node).expect("a node's name has at most 255 characters"),
        }
    }
}

/// What a process receives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Signal {
    /// A message.
    Message(Term),
    /// A request of `GenServer.call` or `gen_server:call`: the caller waits for [`Call::reply`].
    Call(Call),
    /// A message of `GenServer.cast` or `gen_server:cast`.
    Cast(Term),
    /// A linked process ended, or somebody called `exit/2`; only for a process that traps exits.
    Exit {
        /// Who.
        from: Pid,
        /// Why.
        reason: Term,
    },
    /// A monitored process ended, was not there, or cannot be reached any more.
    Down {
        /// The monitor.
        reference: Reference,
        /// What was monitored.
        target: Target,
        /// Why: `noproc`, `noconnection`, or the reason of its exit.
        reason: Term,
    },
    /// A connection came up or went down; only for a process that [monitors nodes](Process::monitor_nodes).
    Node(NodeEvent),
}

/// A request that waits for a reply.
pub struct Call {
    node: Node,
    /// The process that got the request.
    server: Arc<Entry>,
    from: Pid,
    tag: Term,
    request: Term,
}

impl Call {
    /// The request.
    pub fn request(&self) -> &Term {
        &self.request
    }

    /// The process that asks.
    pub fn from(&self) -> &Pid {
        &self.from
    }

    /// The request as a Rust value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, typed::Error> {
        typed::from_term(&self.request)
    }

    /// Replies. Does not block.
    pub fn reply<T: Serialize + ?Sized>(self, reply: &T) -> Result<(), SendError> {
        let reply = typed::to_term(reply).map_err(|error| SendError::Encode(error.to_string()))?;
        self.reply_term(reply)
    }

    /// Replies with a term. Does not block.
    pub fn reply_term(self, reply: Term) -> Result<(), SendError> {
        self.into_parts().1.reply_term(reply)
    }

    /// The request, and what is needed to reply later.
    pub fn into_parts(self) -> (Term, ReplyTo) {
        let Self {
            node,
            server,
            from,
            tag,
            request,
        } = self;
        let reply_to = ReplyTo {
            node,
            server,
            from,
            tag,
        };
        (request, reply_to)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("from", &self.from)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Where a reply goes: `from` of a `handle_call`.
#[derive(Clone)]
pub struct ReplyTo {
    node: Node,
    /// The process that got the request: the reply comes from it, in order with all else that it sends.
    server: Arc<Entry>,
    from: Pid,
    tag: Term,
}

impl ReplyTo {
    /// The process that waits.
    pub fn pid(&self) -> &Pid {
        &self.from
    }

    /// The `{Pid, Tag}` that `gen_server:reply/2` takes.
    pub fn to_term(&self) -> Term {
        Term::tuple([Term::from(&self.from), self.tag.clone()])
    }

    /// Replies. Does not block.
    pub fn reply<T: Serialize + ?Sized>(self, reply: &T) -> Result<(), SendError> {
        let reply = typed::to_term(reply).map_err(|error| SendError::Encode(error.to_string()))?;
        self.reply_term(reply)
    }

    /// Replies with a term. Does not block.
    ///
    /// The reply comes from the process that got the request. Once that one has ended, which the caller has seen,
    /// nothing is sent.
    pub fn reply_term(self, reply: Term) -> Result<(), SendError> {
        let to = reply_destination(&self.tag, self.from);
        let message = Term::tuple([self.tag, reply]);
        self.node
            .router()
            .send(&self.server, &self.server.pid, to, message)
    }

    /// Replies with a term once the peer has room for it; see [`Process::send_paced`].
    pub async fn reply_term_paced(self, reply: Term) -> Result<(), SendError> {
        let to = reply_destination(&self.tag, self.from);
        let message = Term::tuple([self.tag, reply]);
        self.node.router().room(&to).await;
        self.node
            .router()
            .send(&self.server, &self.server.pid, to, message)
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo")
            .field("from", &self.from)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// Where the reply to `{Pid, Tag}` goes.
pub(crate) fn reply_to_of(process: &Process, from: &Term) -> Option<ReplyTo> {
    match from.as_tuple()? {
        [Term::Pid(from), tag] => Some(ReplyTo {
            node: process.node.clone(),
            server: Arc::clone(&process.entry),
            from: from.clone(),
            tag: tag.clone(),
        }),
        _ => None,
    }
}

/// A tag says where its reply goes: to the alias in `[alias|Ref]` or `[[alias|Ref]|_]`, so that a late reply is
/// dropped instead of staying in the caller's mailbox; otherwise to the caller. Source: `gen:reply/2`.
fn reply_destination(tag: &Term, from: Pid) -> Destination {
    fn alias(tag: &Term) -> Option<&Reference> {
        match tag {
            Term::Improper(list) if list.elements.len() == 1 => match &list.elements[0] {
                Term::Atom(atom) if *atom == "alias" => list.tail.as_reference(),
                nested => alias(nested),
            },
            Term::List(list) => list.first().and_then(alias),
            _ => None,
        }
    }
    match alias(tag) {
        Some(reference) => Destination::Alias(reference.clone()),
        None => Destination::Pid(from),
    }
}

/// A process of this node, read by a task.
///
/// It ends when it is dropped (reason `normal`), by [`Process::exit`], or by an exit signal from outside; after that
/// [`Process::recv`] gives `None`.
pub struct Process {
    node: Node,
    entry: Arc<Entry>,
    receiver: mpsc::UnboundedReceiver<Item>,
    /// Whether something else ends the process when its task is done.
    managed: bool,
}

impl Process {
    pub(crate) fn new(
        node: Node,
        entry: Arc<Entry>,
        receiver: mpsc::UnboundedReceiver<Item>,
        managed: bool,
    ) -> Self {
        Self {
            node,
            entry,
            receiver,
            managed,
        }
    }

    /// From now on something else ends the process when its task is done.
    pub(crate) fn set_managed(&mut self) {
        self.managed = true;
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.entry.pid
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Waits for the next signal; `None` once the process is dead ([`Process::exit_reason`] says why).
    ///
    /// # Cancel safety
    /// A signal is lost only if it was returned: dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Signal> {
        // What woke the receiver at its death may have been taken out already.
        if !self.entry.is_alive() {
            return None;
        }
        let item = self.receiver.recv().await?;
        self.entry.mailbox.taken();
        signal(&self.node, &self.entry, item)
    }

    /// Waits for a message of this type, at most so long. Any other signal is the error: none is lost, and none is passed
    /// over.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn receive<M: FromTerm>(&mut self, timeout: Duration) -> Result<M, ReceiveError> {
        match tokio::time::timeout(timeout, self.recv()).await {
            Ok(Some(Signal::Message(message))) => {
                M::from_term(&message).map_err(|misfit| ReceiveError::Misfit { message, misfit })
            }
            Ok(Some(other)) => Err(ReceiveError::Other(other)),
            Ok(None) => Err(ReceiveError::Ended),
            Err(_) => Err(ReceiveError::Timeout(timeout)),
        }
    }

    /// The next signal if one waits.
    pub fn try_recv(&mut self) -> Option<Signal> {
        let item = self.receiver.try_recv().ok()?;
        self.entry.mailbox.taken();
        signal(&self.node, &self.entry, item)
    }

    /// Why the process is dead, if it is.
    pub fn exit_reason(&self) -> Option<Term> {
        self.entry.state().exited.clone()
    }

    /// Sends a message. Never blocks; a message to a process that does not exist is dropped, as everywhere in Erlang.
    /// To a node that is not connected it waits while a connection is set up.
    pub fn send(
        &self,
        to: impl Into<Destination>,
        message: impl Into<Term>,
    ) -> Result<(), SendError> {
        self.node
            .router()
            .send(&self.entry, self.pid(), to.into(), message.into())
    }

    /// Sends a message once the peer has room for it, as a BEAM process does: waits while more than
    /// [`Limits::send_buffer`](crate::Limits::send_buffer) bytes are queued.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done sends nothing.
    pub async fn send_paced(
        &self,
        to: impl Into<Destination>,
        message: impl Into<Term>,
    ) -> Result<(), SendError> {
        let to = to.into();
        self.node.router().room(&to).await;
        self.node
            .router()
            .send(&self.entry, self.pid(), to, message.into())
    }

    /// Links to a process: when either ends, the other gets an exit signal.
    pub fn link(&self, to: &Pid) {
        self.node.router().link(&self.entry, to);
    }

    /// Removes a link. No exit signal comes over it afterwards.
    pub fn unlink(&self, to: &Pid) {
        self.node.router().unlink(&self.entry, to);
    }

    /// Watches a process or a name: one [`Signal::Down`] comes when it ends, at once if it is not there.
    pub fn monitor(&self, target: impl Into<Destination>) -> Reference {
        self.node.router().monitor(&self.entry, target.into())
    }

    /// Ends a monitor. A [`Signal::Down`] that waits already is still received.
    pub fn demonitor(&self, reference: &Reference) {
        self.node.router().demonitor(&self.entry, reference);
    }

    /// From now on receives a [`Signal::Node`] for every connection that comes up or goes down: before the first signal
    /// that comes over it, and after the last. Source: `net_kernel:monitor_nodes/1`, which promises the same order.
    pub fn monitor_nodes(&self) {
        self.node.router().monitor_nodes(&self.entry);
    }

    /// Receives exit signals as [`Signal::Exit`] instead of dying of them.
    pub fn trap_exit(&self, trap: bool) {
        self.entry.state().trap_exit = trap;
    }

    /// Another address of this process, until [`Process::unalias`].
    pub fn alias(&self) -> Reference {
        self.node.router().alias(&self.entry)
    }

    /// Ends an alias: messages to it are dropped.
    pub fn unalias(&self, alias: &Reference) {
        self.node.router().unalias(&self.entry, alias);
    }

    /// Gives the process a name on this node.
    pub fn register(&self, name: &str) -> Result<(), SpawnError> {
        let name = Atom::new(name).map_err(|error| SpawnError::Invalid(error.to_string()))?;
        self.node.router().register(name, &self.entry)
    }

    /// The process that does its output.
    pub fn group_leader(&self) -> Pid {
        self.entry.state().group_leader.clone()
    }

    /// Sends an exit signal, as `exit/2`: `kill` cannot be trapped, `normal` is ignored unless trapped.
    pub fn send_exit(&self, to: &Pid, reason: impl Into<Term>) {
        self.node.router().exit2(self.pid(), to, reason.into());
    }

    /// Starts a function of another node as a process there, which this one then is the parent of.
    ///
    /// # Cancel safety
    /// When the future is dropped the process may be started all the same, with the link and the monitor asked for.
    pub async fn spawn_on(
        &self,
        node: &str,
        (module, function): (&str, &str),
        args: Vec<Term>,
        options: SpawnOptions,
    ) -> Result<(Pid, Option<Reference>), SpawnError> {
        self.node
            .spawn_from(&self.entry, node, (module, function), args, options)
            .await
    }

    /// Asks a server and waits for its reply, in order with what this process has sent; see [`Node::call`].
    pub async fn call<R, T>(
        &self,
        to: impl Into<Destination>,
        request: &R,
        timeout: Duration,
    ) -> Result<T, CallError>
    where
        R: Serialize + ?Sized,
        T: FromTerm,
    {
        self.node
            .call_of(&self.entry, to.into(), request, timeout)
            .await
    }

    /// Ends the process with this reason.
    pub fn exit(self, reason: impl Into<Term>) {
        self.node.router().exit(&self.entry, reason.into());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.managed {
            let reason = if std::thread::panicking() {
                "panic"
            } else {
                "normal"
            };
            self.node.router().exit(&self.entry, Term::atom(reason));
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", self.pid())
            .finish_non_exhaustive()
    }
}

/// No message of the type that was waited for.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Nothing came within this time.
    Timeout(Duration),
    /// The process is dead.
    Ended,
    /// Something else than a plain message came.
    Other(Signal),
    /// A message of another type came.
    Misfit {
        /// What came.
        message: Term,
        /// What is wrong with it.
        misfit: Misfit,
    },
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "no message within {after:?}"),
            Self::Ended => f.write_str("the process is dead"),
            Self::Other(signal) => write!(f, "no message, but {signal:?}"),
            Self::Misfit { message, misfit } => {
                write!(
                    f,
                    "the message {message} is not what was waited for: {misfit}"
                )
            }
        }
    }
}

impl std::error::Error for ReceiveError {}

/// What a waiting item is to the process; `None` if the process is dead.
fn signal(node: &Node, entry: &Arc<Entry>, item: Item) -> Option<Signal> {
    // A dead process sees nothing more, not even what arrived before its death.
    if !entry.is_alive() {
        return None;
    }
    Some(match item {
        Item::Message(message) => message_signal(node, entry, message),
        Item::Exit { from, reason } => Signal::Exit { from, reason },
        Item::Down {
            reference,
            target,
            reason,
        } => Signal::Down {
            reference,
            target,
            reason,
        },
        Item::Node(event) => Signal::Node(event),
        Item::Killed => return None,
    })
}

fn message_signal(node: &Node, entry: &Arc<Entry>, message: Term) -> Signal {
    let Term::Tuple(mut elements) = message else {
        return Signal::Message(message);
    };
    match (
        elements.first().and_then(Term::as_atom).map(Atom::as_str),
        elements.len(),
    ) {
        (Some("$gen_call"), 3) => match elements[1].as_tuple() {
            Some([Term::Pid(from), tag]) => {
                let (from, tag) = (from.clone(), tag.clone());
                let request = elements.pop().unwrap_or(Term::Tuple(Vec::new()));
                Signal::Call(Call {
                    node: node.clone(),
                    server: Arc::clone(entry),
                    from,
                    tag,
                    request,
                })
            }
            _ => Signal::Message(Term::Tuple(elements)),
        },
        (Some("$gen_cast"), 2) => Signal::Cast(elements.pop().unwrap_or(Term::Tuple(Vec::new()))),
        _ => Signal::Message(Term::Tuple(elements)),
    }
}
