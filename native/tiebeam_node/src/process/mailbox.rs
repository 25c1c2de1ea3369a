//! Mailboxes: where the signals of a process wait, bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_wire::{Pid, Reference, Term};
use tokio::sync::mpsc;

use crate::node::NodeEvent;
use crate::process::Target;

/// What waits in a mailbox.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Term),
    /// Only for a process that traps exits.
    Exit {
        from: Pid,
        reason: Term,
    },
    Down {
        reference: Reference,
        target: Target,
        reason: Term,
    },
    /// Only for a process that monitors nodes.
    Node(NodeEvent),
    /// The process is dead: wakes a receiver that waits.
    Killed,
}

/// The end that signals are put into.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Queue,
    len: AtomicUsize,
    limit: usize,
}

#[derive(Debug)]
enum Queue {
    Task(mpsc::UnboundedSender<Item>),
    Thread(crossbeam_channel::Sender<Item>),
    /// The node's own caller: replies are matched by reference before they get here, anything else is late.
    Nowhere,
}

/// The mailbox is full.
pub(crate) struct Full;

impl Mailbox {
    /// A mailbox read by a task.
    pub(crate) fn task(limit: usize) -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::of(Queue::Task(sender), limit), receiver)
    }

    /// A mailbox read by a plain thread.
    pub(crate) fn thread(limit: usize) -> (Self, crossbeam_channel::Receiver<Item>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self::of(Queue::Thread(sender), limit), receiver)
    }

    /// A mailbox that nobody reads.
    pub(crate) fn nowhere() -> Self {
        Self::of(Queue::Nowhere, 0)
    }

    fn of(queue: Queue, limit: usize) -> Self {
        Self {
            queue,
            len: AtomicUsize::new(0),
            limit,
        }
    }

    /// Puts a signal in. Never blocks.
    pub(crate) fn push(&self, item: Item) -> Result<(), Full> {
        if matches!(self.queue, Queue::Nowhere) {
            return Ok(());
        }
        if self.len.fetch_add(1, Ordering::Relaxed) >= self.limit && !matches!(item, Item::Killed) {
            self.len.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        // A receiver that is gone needs no signal: its process is dead.
        match &self.queue {
            Queue::Task(sender) => drop(sender.send(item)),
            Queue::Thread(sender) => drop(sender.send(item)),
            Queue::Nowhere => {}
        }
        Ok(())
    }

    /// The receiver took one out.
    pub(crate) fn taken(&self) {
        self.len.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many signals wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}
