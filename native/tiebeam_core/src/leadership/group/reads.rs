//! Reads: what this node has, as soon as it has enough.
//!
//! A linearizable read asks the leader for an index that a majority confirmed after the question (6.4), and is answered here, from this
//! node's own machine, once that index is applied. So values do not travel, and the leader does not read for others.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::command::{Answer, Command, Holding, MAX_LIST, Read};
use super::message::Message;
use super::{Group, Timer};
use crate::event::CallId;
use crate::identity::NodeName;
use crate::leadership::consensus::{Consensus, RequestId};
use crate::leadership::entry::Index;
use crate::leadership::machine::{MAX_KEY_BYTES, Store, Stored};
use crate::leadership::mutation::Mutation;
use crate::time::Instant;

/// The most reads of this node that wait, and the most questions of other nodes: each is a message to the leader.
pub(super) const MAX_READS: usize = 4096;

/// The most bytes of values in one answer, beyond the first value: an answer is one term in the end.
const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;

/// A read that waits.
#[derive(Debug)]
struct Pending {
    call: CallId,
    command: Command,
    /// The number under which the leader is asked; never used before by any life of this node.
    number: u64,
    /// What must be applied; `None` until that is known.
    index: Option<Index>,
}

/// Who asked the engine.
#[derive(Debug)]
enum Asker {
    Here(u64),
    There(NodeName, u64),
}

/// All reads that wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pending: BTreeMap<u64, Pending>,
    by_number: BTreeMap<u64, u64>,
    /// Those that wait for an entry.
    due: BTreeSet<(Index, u64)>,
    next: u64,
    /// What the engine of this node was asked.
    asked: BTreeMap<RequestId, Asker>,
    next_request: u64,
}

impl Group {
    pub(super) fn ask_read(&mut self, call: CallId, until: Instant, command: Command) {
        let (Command::Get { read, .. } | Command::List { read, .. } | Command::Holder { read, .. }) =
            &command
        else {
            return;
        };
        let (part, bytes) = match &command {
            Command::Get { key, .. } => ("key", key.len()),
            Command::List { prefix, after, .. } => {
                ("key", prefix.len().max(after.as_ref().map_or(0, Vec::len)))
            }
            Command::Holder { name, .. } => ("name", name.len()),
            _ => ("key", 0),
        };
        if bytes > MAX_KEY_BYTES {
            let limit = MAX_KEY_BYTES;
            return self.answer(call, Answer::TooLong { part, bytes, limit });
        }
        let index = match read {
            Read::Local => Some(0),
            Read::AtLeast(index) => Some(*index),
            Read::Linear if self.switched.off(Mutation::LeaderReadsLocally) => {
                self.is_leader().then_some(0)
            }
            Read::Linear => None,
        };
        if index.is_some_and(|index| index <= self.applied) {
            let answer = self.look_up(&command);
            return self.answer(call, answer);
        }
        if self.reads.pending.len() >= MAX_READS {
            return self.answer(call, Answer::Busy { limit: MAX_READS });
        }
        self.reads.next += 1;
        let (id, number) = (self.reads.next, self.random.bits());
        self.reads.pending.insert(
            id,
            Pending {
                call,
                command,
                number,
                index,
            },
        );
        self.reads.by_number.insert(number, id);
        if let Some(index) = index {
            self.reads.due.insert((index, id));
        }
        self.timers.set(Timer::Read(id), until);
        if index.is_none() {
            self.timers
                .hasten(Timer::Repeat, self.now + self.patience());
            self.ask_index(id);
        }
    }

    /// Asks the leader, or the engine here, for an index.
    fn ask_index(&mut self, id: u64) {
        let Some(number) = self.reads.pending.get(&id).map(|pending| pending.number) else {
            return;
        };
        if self.is_leader() {
            self.ask_engine(Asker::Here(id));
        } else if let (Some(node), Some(group)) = (self.office_node(), self.group()) {
            self.send(&node, Message::ReadIndex { group, id: number });
        }
    }

    /// Says whether the engine will answer.
    fn ask_engine(&mut self, asker: Asker) -> bool {
        self.reads.next_request += 1;
        let request = RequestId(self.reads.next_request << 1 | 1);
        let now = self.now;
        let begun = self
            .engine
            .as_mut()
            .is_some_and(|engine| engine.read(now, request).is_ok());
        if begun {
            self.reads.asked.insert(request, asker);
        }
        begun
    }

    pub(super) fn on_read_index(&mut self, from: &NodeName, group: u64, id: u64) {
        if self.group() == Some(group) && !self.ask_engine(Asker::There(from.clone(), id)) {
            self.send(from, Message::ReadAt { id, index: None });
        }
    }

    /// The engine says that what is applied now is enough.
    pub(super) fn on_read(&mut self, request: RequestId) {
        let index = self.applied;
        match self.reads.asked.remove(&request) {
            Some(Asker::Here(id)) => self.know_index(id, index),
            Some(Asker::There(node, id)) => {
                let index = Some(index);
                self.send(&node, Message::ReadAt { id, index });
            }
            None => {}
        }
    }

    pub(super) fn on_unread(&mut self, request: RequestId) {
        if let Some(Asker::There(node, id)) = self.reads.asked.remove(&request) {
            self.send(&node, Message::ReadAt { id, index: None });
        }
    }

    pub(super) fn on_read_at(&mut self, number: u64, index: Option<Index>) {
        if let (Some(&id), Some(index)) = (self.reads.by_number.get(&number), index) {
            self.know_index(id, index);
        }
    }

    fn know_index(&mut self, id: u64, index: Index) {
        if let Some(pending) = self.reads.pending.get_mut(&id)
            && pending.index.is_none()
        {
            pending.index = Some(index);
            self.reads.due.insert((index, id));
            self.answer_reads();
        }
    }

    /// Answers what has what it needs.
    pub(super) fn answer_reads(&mut self) {
        while let Some(&(index, id)) = self.reads.due.first()
            && index <= self.applied
        {
            if let Some(pending) = self.end_read(id) {
                let answer = self.look_up(&pending.command);
                self.answer(pending.call, answer);
            }
        }
    }

    fn end_read(&mut self, id: u64) -> Option<Pending> {
        let pending = self.reads.pending.remove(&id)?;
        self.reads.by_number.remove(&pending.number);
        if let Some(index) = pending.index {
            self.reads.due.remove(&(index, id));
        }
        self.timers.cancel(&Timer::Read(id));
        Some(pending)
    }

    pub(super) fn time_out_read(&mut self, id: u64) {
        if let Some(pending) = self.end_read(id) {
            let answer = self.no_leader();
            self.answer(pending.call, answer);
        }
    }

    pub(super) fn answer_all_reads(&mut self) {
        for id in self.reads.pending.keys().copied().collect::<Vec<_>>() {
            if let Some(pending) = self.end_read(id) {
                self.answer(pending.call, Answer::Stopped);
            }
        }
        self.reads.asked.clear();
    }

    pub(super) fn reads_wait(&self) -> bool {
        self.reads
            .pending
            .values()
            .any(|pending| pending.index.is_none())
    }

    /// Asks again what nothing was heard of. What the engine here was asked it answers.
    pub(super) fn repeat_reads(&mut self) {
        if !self.is_leader() {
            self.reads_again();
        }
    }

    /// Who leads has changed: all that wait for an index ask anew.
    pub(super) fn reads_again(&mut self) {
        let unknown = self
            .reads
            .pending
            .iter()
            .filter(|(_, pending)| pending.index.is_none());
        for id in unknown.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.ask_index(id);
        }
    }

    /// The answer as this node has it.
    fn look_up(&self, command: &Command) -> Answer {
        match command {
            Command::Get { key, .. } => Answer::Value(self.machine.store().get(key).cloned()),
            Command::List {
                prefix,
                after,
                limit,
                ..
            } => self.list(prefix, after.as_deref(), (*limit).min(MAX_LIST)),
            Command::Holder { kind, name, .. } => {
                let claim = self.machine.claims().get(*kind, name);
                Answer::Holder(claim.map(|claim| Holding {
                    token: claim.token,
                    value: claim.value.clone(),
                }))
            }
            _ => Answer::Refused("this is no read"),
        }
    }

    fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Answer {
        fn take<'a>(keys: impl Iterator<Item = (&'a [u8], &'a Stored)>, limit: usize) -> Answer {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for (key, stored) in keys {
                if rows.len() >= limit || bytes >= MAX_LIST_BYTES {
                    return Answer::Values { rows, more: true };
                }
                bytes += key.len() + stored.value.len();
                rows.push((key.to_vec(), stored.clone()));
            }
            Answer::Values { rows, more: false }
        }
        let store: &Store = self.machine.store();
        match after {
            Some(after) => take(store.list_after(prefix, after), limit),
            None => take(store.list(prefix), limit),
        }
    }
}
