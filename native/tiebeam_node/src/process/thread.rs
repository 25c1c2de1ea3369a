//! A process read by a plain thread, for code that is not asynchronous.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tiebeam_wire::{Pid, Reference, Term};

use crate::error::SendError;
use crate::node::Node;
use crate::process::entry::Entry;
use crate::process::mailbox::Item;
use crate::process::{Destination, Signal, signal};

/// A process of this node, read by a plain thread. It ends as a [`Process`](crate::Process) does.
pub struct ThreadProcess {
    node: Node,
    entry: Arc<Entry>,
    receiver: Receiver<Item>,
}

impl ThreadProcess {
    pub(crate) fn new(node: Node, entry: Arc<Entry>, receiver: Receiver<Item>) -> Self {
        Self {
            node,
            entry,
            receiver,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.entry.pid
    }

    /// Blocks the thread until the next signal; `None` once the process is dead.
    pub fn recv(&self) -> Option<Signal> {
        // What woke the receiver at its death may have been taken out already.
        if !self.entry.is_alive() {
            return None;
        }
        let item = self.receiver.recv().ok()?;
        self.entry.mailbox.taken();
        signal(&self.node, &self.entry, item)
    }

    /// Blocks the thread until the next signal, but not longer than this: `Ok(None)` once the process is dead.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Signal>, TimedOut> {
        if !self.entry.is_alive() {
            return Ok(None);
        }
        match self.receiver.recv_timeout(timeout) {
            Ok(item) => {
                self.entry.mailbox.taken();
                Ok(signal(&self.node, &self.entry, item))
            }
            Err(RecvTimeoutError::Timeout) => Err(TimedOut),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// Sends a message; see [`Process::send`](crate::Process::send). Does not block.
    pub fn send(
        &self,
        to: impl Into<Destination>,
        message: impl Into<Term>,
    ) -> Result<(), SendError> {
        self.node
            .router()
            .send(&self.entry, self.pid(), to.into(), message.into())
    }

    /// Links to a process.
    pub fn link(&self, to: &Pid) {
        self.node.router().link(&self.entry, to);
    }

    /// Watches a process or a name.
    pub fn monitor(&self, target: impl Into<Destination>) -> Reference {
        self.node.router().monitor(&self.entry, target.into())
    }

    /// Receives exit signals as [`Signal::Exit`] instead of dying of them.
    pub fn trap_exit(&self, trap: bool) {
        self.entry.state().trap_exit = trap;
    }

    /// Ends the process with this reason.
    pub fn exit(self, reason: impl Into<Term>) {
        self.node.router().exit(&self.entry, reason.into());
    }
}

/// Nothing came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl Drop for ThreadProcess {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            "panic"
        } else {
            "normal"
        };
        self.node.router().exit(&self.entry, Term::atom(reason));
    }
}

impl fmt::Debug for ThreadProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadProcess")
            .field("pid", self.pid())
            .finish_non_exhaustive()
    }
}
