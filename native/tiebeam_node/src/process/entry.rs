//! What the node knows of one of its processes: links, monitors, group leader, and whether it lives.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::task::AbortHandle;

use crate::process::Target;
use crate::process::link::Links;
use crate::process::mailbox::Mailbox;

/// A process, as the rest of the node sees it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pid: Pid,
    pub(crate) mailbox: Mailbox,
    dead: AtomicBool,
    /// Held while a message of this process is put where it waits; see [`Entry::sending`].
    sending: Mutex<()>,
    state: Mutex<State>,
}

/// What changes about a process. Held only for moments, never across a send.
#[derive(Debug)]
pub(crate) struct State {
    /// Why it is dead, if it is.
    pub(crate) exited: Option<Term>,
    pub(crate) trap_exit: bool,
    pub(crate) links: Links,
    /// What it monitors.
    pub(crate) monitoring: HashMap<Reference, (Target, Atom)>,
    /// Who monitors it, and by what: the pid, or the name that it had then.
    pub(crate) watched_by: HashMap<Reference, (Pid, Target)>,
    pub(crate) names: Vec<Atom>,
    pub(crate) aliases: HashSet<Reference>,
    pub(crate) group_leader: Pid,
    /// Ends the task that runs it, where the node started one.
    pub(crate) abort: Option<AbortHandle>,
}

impl Entry {
    pub(crate) fn new(pid: Pid, mailbox: Mailbox, group_leader: Pid) -> Arc<Self> {
        let state = State {
            exited: None,
            trap_exit: false,
            links: Links::default(),
            monitoring: HashMap::new(),
            watched_by: HashMap::new(),
            names: Vec::new(),
            aliases: HashSet::new(),
            group_leader,
            abort: None,
        };
        Arc::new(Self {
            pid,
            mailbox,
            dead: AtomicBool::new(false),
            sending: Mutex::new(()),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock; if it did, the state is still a state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// To be held while a message of this process is put into a mailbox or the queue of a peer; `None` once it is dead.
    /// Its death, which comes from any thread, takes the lock once before it is told to anybody: so nobody gets a message
    /// of a process that it knows to be dead. Nothing else may be locked for long, or ended, under it.
    pub(crate) fn sending(&self) -> Option<MutexGuard<'_, ()>> {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_alive().then_some(sending)
    }

    /// Marks the process dead and hands over what its death must be told of; `None` if it was dead already.
    pub(crate) fn die(&self, reason: &Term) -> Option<Remains> {
        let mut state = self.state();
        if state.exited.is_some() {
            return None;
        }
        state.exited = Some(reason.clone());
        self.dead.store(true, Ordering::Release);
        let remains = Remains {
            links: state.links.take(|_| true),
            watched_by: std::mem::take(&mut state.watched_by),
            monitoring: std::mem::take(&mut state.monitoring),
            names: std::mem::take(&mut state.names),
            aliases: std::mem::take(&mut state.aliases),
            abort: state.abort.take(),
        };
        drop(state);
        // What it is sending just now goes first.
        drop(self.sending.lock().unwrap_or_else(PoisonError::into_inner));
        Some(remains)
    }
}

/// What a process leaves behind.
pub(crate) struct Remains {
    pub(crate) links: Vec<Pid>,
    pub(crate) watched_by: HashMap<Reference, (Pid, Target)>,
    pub(crate) monitoring: HashMap<Reference, (Target, Atom)>,
    pub(crate) names: Vec<Atom>,
    pub(crate) aliases: HashSet<Reference>,
    pub(crate) abort: Option<AbortHandle>,
}
