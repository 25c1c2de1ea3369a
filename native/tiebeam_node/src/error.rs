//! What can fail when a Rust program uses its node, and what to do then.

use std::fmt;
use std::time::Duration;

use tiebeam_wire::{Atom, Term};

use crate::cluster::Name;
use crate::message::VersionMismatch;
use crate::transport::ConnectError;

/// A message was not sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// The peer reads more slowly than we write. Nothing was sent: wait, or use the asynchronous form.
    Busy {
        /// The peer.
        node: Atom,
        /// How many bytes (or, before the connection is up, messages) are waiting.
        queued: usize,
    },
    /// No local process has this name.
    NotRegistered(Atom),
    /// Nobody in the cluster has this name.
    Unknown(Name),
    /// The message cannot be encoded: the reason says which part.
    Encode(String),
    /// The node is stopping.
    Stopping,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { node, queued } => write!(
                f,
                "{node} reads too slowly: {queued} waiting; try again later"
            ),
            Self::NotRegistered(name) => write!(
                f,
                "no process of this node is registered as {name}: start it, or name the node too"
            ),
            Self::Unknown(name) => write!(f, "nobody in the cluster is registered as {name}"),
            Self::Encode(reason) => write!(f, "the message cannot be sent: {reason}"),
            Self::Stopping => write!(f, "the node is stopping"),
        }
    }
}

impl std::error::Error for SendError {}

/// A call got no reply.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// No process has this name or pid. The request was not handled.
    NoProcess,
    /// The process ended before it replied, for this reason. The request may have been handled.
    Exit(Term),
    /// The connection was lost before the reply came. The request may have been handled.
    NodeDown(Atom),
    /// No reply in time. The request may still be handled; its reply will be dropped.
    Timeout(Duration),
    /// The node cannot be reached. The request was not sent.
    Connect(ConnectError),
    /// The request was not sent.
    Send(SendError),
    /// The request is of a version that the server does not take. It was not handled.
    Version(VersionMismatch),
    /// The reply is not of the type asked for; it was this.
    Reply {
        /// What came.
        reply: Term,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess => write!(f, "no such process"),
            Self::Exit(reason) => write!(f, "the process exited: {reason}"),
            Self::NodeDown(node) => {
                write!(f, "the connection to {node} was lost before the reply came")
            }
            Self::Timeout(after) => write!(f, "no reply within {after:?}"),
            Self::Connect(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Version(mismatch) => write!(f, "the server did not take the request: {mismatch}"),
            Self::Reply { reply, reason } => {
                write!(f, "the reply {reply} is not what was asked for: {reason}")
            }
        }
    }
}

impl std::error::Error for CallError {}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

/// A remote function did not return.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RpcError {
    /// It threw this.
    Throw(Term),
    /// It exited with this reason.
    Exit(Term),
    /// It failed with this error and stack.
    Error {
        /// The reason, such as `undef` or `{badmatch, V}`.
        reason: Term,
        /// The stack, as Erlang prints it.
        stack: Term,
    },
    /// The node would not run it: an atom such as `notsup` or `system_limit`.
    Refused(Term),
    /// No reply was had; see [`CallError`].
    Call(CallError),
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throw(value) => write!(f, "the function threw {value}"),
            Self::Exit(reason) => write!(f, "the function exited: {reason}"),
            Self::Error { reason, stack } => write!(f, "the function failed: {reason} at {stack}"),
            Self::Refused(reason) => write!(f, "the node refused: {reason}"),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// A process was not made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The name belongs to another process.
    NameTaken(Atom),
    /// As many processes run as [`Limits::processes`](crate::Limits::processes) allows.
    Limit(usize),
    /// The other node refused, with this reason.
    Refused(Atom),
    /// The other node could not be asked.
    Call(CallError),
    /// The process ended in its init, for this reason.
    Init(Term),
    /// The name is not an atom, or the node is stopping.
    Invalid(String),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(f, "the name {name} is taken by another process"),
            Self::Limit(limit) => write!(
                f,
                "{limit} processes run, which is the limit: end some, or raise Limits::processes"
            ),
            Self::Refused(reason) => write!(f, "the node refused: {reason}"),
            Self::Call(error) => error.fmt(f),
            Self::Init(reason) => write!(f, "the process ended in its init: {reason}"),
            Self::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SpawnError {}

impl From<CallError> for SpawnError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}
