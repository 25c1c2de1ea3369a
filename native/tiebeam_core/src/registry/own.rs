//! This node's entries: what local callers ask for, and what ends with a process.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::command::{
    Answer, Command, MAX_QUESTIONS, MAX_SCOPES, Refusal, check_meta, check_name, check_pid,
    check_scope,
};
use super::entry::{Item, OnConflict, Verdict};
use super::items::MAX_ENTRIES;
use super::key::{Key, What};
use super::log;
use super::message::{CHUNK_BYTES, Message, Operation, encode};
use super::output::{Change, Gone, Output};
use super::replica::OWN;
use super::{Registry, Timer};
use crate::event::CallId;
use crate::hash::siphash;
use crate::identity::NodeName;

/// A registration that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    key: Key,
    pid: Arc<[u8]>,
    meta: Arc<[u8]>,
    on_conflict: OnConflict,
    resolve: bool,
    claimed: bool,
}

/// Does the process that has a name still run? One question for all who wait for it.
#[derive(Debug)]
pub(crate) struct Question {
    /// The node that was asked; this one asks its own driver.
    pub(crate) node: NodeName,
    key: Key,
    stamp: u64,
    callers: Vec<(CallId, Registration)>,
}

/// Who wants to know whether a process of this node runs.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A registration here.
    Question(u64),
    /// Another node, about this name.
    Peer { node: NodeName, ask: u64, key: Key },
}

impl Registry {
    pub(crate) fn command(&mut self, call: CallId, command: Command, out: &mut Vec<Output>) {
        let answer = match command {
            Command::Register {
                scope,
                name,
                pid,
                meta,
                on_conflict,
                resolve,
                claimed,
            } => {
                let checked = check_scope(&scope)
                    .and_then(|()| check_name(&name))
                    .and_then(|()| check_pid(&pid))
                    .and_then(|()| check_meta(&meta));
                if let Err(refusal) = checked {
                    Some(Answer::Refused(refusal))
                } else {
                    let registration = Registration {
                        key: Key::name_in(&scope, &name),
                        pid,
                        meta,
                        on_conflict,
                        resolve,
                        claimed,
                    };
                    self.register(call, registration, !claimed, out)
                }
            }
            Command::Unregister { scope, name, pid } => {
                Some(self.unregister(&scope, &name, pid.as_ref(), out))
            }
            Command::Update { scope, name, meta } => Some(self.update(&scope, &name, meta, out)),
            Command::Join {
                scope,
                group,
                pid,
                meta,
            } => Some(self.join(&scope, &group, pid, meta, out)),
            Command::Leave { scope, group, pid } => Some(self.leave(&scope, &group, &pid, out)),
        };
        if let Some(answer) = answer {
            out.push(Output::Answer { call, answer });
        }
    }

    /// Registers, or answers why not; `None` when somebody has to be asked first.
    fn register(
        &mut self,
        call: CallId,
        registration: Registration,
        may_ask: bool,
        out: &mut Vec<Output>,
    ) -> Option<Answer> {
        let key = registration.key.clone();
        // A name that nobody has is not looked for anywhere else: the usual case.
        if !self.names.contains_key(&key) && self.waiting.is_empty() {
            if let Err(refusal) = self.make_room(key.scope()) {
                return Some(Answer::Refused(refusal));
            }
            self.put_new(registration, None, out);
            return Some(Answer::Done);
        }
        if let Some(own) = self.items.get(&key).filter(|own| !own.is_void()) {
            if own.pid == registration.pid {
                let same = own.meta == registration.meta && own.resolve == registration.resolve;
                let item = Item {
                    meta: registration.meta,
                    resolve: registration.resolve,
                    on_conflict: registration.on_conflict,
                    ..own.clone()
                };
                if same {
                    // How a loss is handled is this node's own affair.
                    self.items.insert(key, item);
                } else {
                    self.put_own(key, item, out);
                }
                return Some(Answer::Done);
            }
            if self.ended.contains(&own.pid) {
                self.drop_own(&key, Gone::Exited, out);
            } else if may_ask {
                return self.ask(
                    call,
                    registration,
                    &self.me.clone(),
                    own.stamp,
                    own.pid.clone(),
                    out,
                );
            } else {
                return Some(Answer::Taken {
                    pid: own.pid.clone(),
                    node: self.me.clone(),
                });
            }
        }
        if self.row(&key).is_none() {
            // Its node may have gone down a moment ago, and another registration, or a process that waits, be next.
            self.settle(&key, Gone::Missed, out);
            if self.row(&key).is_none()
                && !self.stop_waiting(&key, Some(&registration.pid))
                && !registration.claimed
            {
                self.promote_now(&key, out);
                if self.items.get(&key).is_some_and(|own| !own.is_void()) {
                    return self.register(call, registration, may_ask, out);
                }
            }
        }
        if let Some(row) = self.row(&key).filter(|_| !registration.claimed) {
            let (slot, pid) = (row.slot, row.pid.clone());
            let replica = self.replicas.get(&slot)?;
            let (node, item) = (replica.node.clone(), replica.items.get(&key)?);
            return if may_ask {
                self.ask(call, registration, &node, item.stamp, pid, out)
            } else {
                Some(Answer::Taken { pid, node })
            };
        }
        let void = self.items.get(&key);
        let verdict = void.and_then(|own| own.verdict.clone());
        if void.is_none()
            && let Err(refusal) = self.make_room(key.scope())
        {
            return Some(Answer::Refused(refusal));
        }
        self.put_new(registration, verdict, out);
        Some(Answer::Done)
    }

    /// Gives a free name to a process. What was decided about others of this name stays decided.
    fn put_new(
        &mut self,
        registration: Registration,
        verdict: Option<Box<Verdict>>,
        out: &mut Vec<Output>,
    ) {
        self.clock += 1;
        let item = Item {
            pid: registration.pid,
            meta: registration.meta,
            stamp: self.clock,
            seq: 0,
            resolve: registration.resolve,
            on_conflict: registration.on_conflict,
            attempts: 0,
            verdict: verdict.map(|mut verdict| {
                verdict.void = false;
                verdict
            }),
        };
        self.put_own(registration.key, item, out);
    }

    /// How many more entries there is room for, in whatever scopes.
    pub(crate) fn room(&self) -> usize {
        let fullest = self.scopes.values().copied().max().unwrap_or(0);
        let in_scope = self.limits.entries_per_scope.saturating_sub(fullest);
        in_scope
            .min(MAX_ENTRIES.saturating_sub(self.items.len()))
            .min(MAX_SCOPES - self.scopes.len())
    }

    /// Whether there is room for one more entry.
    fn make_room(&self, scope: &str) -> Result<(), Refusal> {
        if self.items.len() >= MAX_ENTRIES {
            return Err(Refusal::Full { limit: MAX_ENTRIES });
        }
        match self.scopes.get(scope) {
            Some(&count) if count >= self.limits.entries_per_scope => Err(Refusal::ScopeFull {
                limit: self.limits.entries_per_scope,
            }),
            None if self.limits.entries_per_scope == 0 => Err(Refusal::ScopeFull { limit: 0 }),
            None if self.scopes.len() >= MAX_SCOPES => {
                Err(Refusal::ScopesFull { limit: MAX_SCOPES })
            }
            _ => Ok(()),
        }
    }

    /// Asks who answers for the process that has the name, before anybody is told that it is taken: a process that ended
    /// a moment ago must not be in the way of its successor.
    fn ask(
        &mut self,
        call: CallId,
        registration: Registration,
        node: &NodeName,
        stamp: u64,
        pid: Arc<[u8]>,
        out: &mut Vec<Output>,
    ) -> Option<Answer> {
        let key = registration.key.clone();
        if self.asking >= MAX_QUESTIONS {
            return Some(Answer::Taken {
                pid,
                node: node.clone(),
            });
        }
        self.asking += 1;
        if let Some(id) = self.question_of.get(&key)
            && let Some(question) = self.questions.get_mut(id)
        {
            question.callers.push((call, registration));
            return None;
        }
        let id = self.next_id();
        self.question_of.insert(key.clone(), id);
        self.questions.insert(
            id,
            Question {
                node: node.clone(),
                key: key.clone(),
                stamp,
                callers: Vec::from([(call, registration)]),
            },
        );
        self.timers
            .set(Timer::Question(id), self.now + self.limits.ask_timeout);
        if *node == self.me {
            let check = self.next_id();
            self.checks.insert(check, Asker::Question(id));
            out.push(Output::Check { id: check, pid });
        } else if let Some(of) = self.life_of(node) {
            let question = Message::Question {
                of,
                ask: id,
                key,
                stamp,
            };
            out.push(Output::Send {
                to: node.clone(),
                bytes: encode(&question),
            });
        }
        None
    }

    /// The answer is known, or its time is over: whoever waited for it tries once more, and is answered.
    pub(crate) fn answer_question(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(question) = self.questions.remove(&id) else {
            return;
        };
        self.question_of.remove(&question.key);
        self.timers.cancel(&Timer::Question(id));
        self.asking -= question.callers.len();
        for (call, registration) in question.callers {
            let answer = self.register(call, registration, false, out);
            out.extend(answer.map(|answer| Output::Answer { call, answer }));
        }
    }

    /// A peer says whether the process that had a name still has it.
    pub(crate) fn replied(&mut self, from: &NodeName, id: u64, held: bool, out: &mut Vec<Output>) {
        let Some(question) = self
            .questions
            .get(&id)
            .filter(|question| question.node == *from)
        else {
            return;
        };
        if !held {
            let (key, stamp) = (question.key.clone(), question.stamp);
            self.strike(from, &key, stamp, out);
        }
        self.answer_question(id, out);
    }

    /// A peer wants to know whether a process of this node still has a name.
    pub(crate) fn questioned(
        &mut self,
        from: &NodeName,
        ask: u64,
        key: Key,
        stamp: u64,
        out: &mut Vec<Output>,
    ) {
        let own = self
            .items
            .get(&key)
            .filter(|own| own.stamp == stamp && !own.is_void());
        let held = match own {
            Some(own) if self.ended.contains(&own.pid) => {
                self.drop_own(&key, Gone::Exited, out);
                false
            }
            Some(own) if self.checks.len() < MAX_QUESTIONS => {
                let pid = own.pid.clone();
                let id = self.next_id();
                let node = from.clone();
                self.checks.insert(id, Asker::Peer { node, ask, key });
                out.push(Output::Check { id, pid });
                return;
            }
            Some(_) => true,
            None => false,
        };
        self.reply(from, ask, held, out);
    }

    fn reply(&mut self, to: &NodeName, ask: u64, held: bool, out: &mut Vec<Output>) {
        // What ended the registration goes first, so that the other node is not told of a name that it still sees.
        self.flush(out);
        out.push(Output::Send {
            to: to.clone(),
            bytes: encode(&Message::Reply { ask, held }),
        });
    }

    pub(crate) fn process_checked(&mut self, id: u64, alive: bool, out: &mut Vec<Output>) {
        match self.checks.remove(&id) {
            None => {}
            Some(Asker::Question(question)) => {
                let key = self
                    .questions
                    .get(&question)
                    .map(|question| question.key.clone());
                if let (false, Some(key)) = (alive, key) {
                    self.end(&key, out);
                }
                self.answer_question(question, out);
            }
            Some(Asker::Peer { node, ask, key }) => {
                if !alive {
                    self.end(&key, out);
                }
                self.reply(&node, ask, alive, out);
            }
        }
    }

    /// The process that has this name has ended.
    fn end(&mut self, key: &Key, out: &mut Vec<Output>) {
        if let Some(own) = self.items.get(key).filter(|own| !own.is_void()) {
            let pid = own.pid.clone();
            self.drop_own(key, Gone::Exited, out);
            self.process_ended(&pid, out);
        }
    }

    fn unregister(
        &mut self,
        scope: &str,
        name: &[u8],
        pid: Option<&Arc<[u8]>>,
        out: &mut Vec<Output>,
    ) -> Answer {
        if let Err(refusal) = check_scope(scope).and_then(|()| check_name(name)) {
            return Answer::Refused(refusal);
        }
        let key = Key::name_in(scope, name);
        match self.items.get(&key).filter(|own| !own.is_void()) {
            Some(own) if pid.is_none_or(|pid| *pid == own.pid) => {
                self.drop_own(&key, Gone::Unregistered, out);
                Answer::Done
            }
            Some(own) => Answer::Taken {
                pid: own.pid.clone(),
                node: self.me.clone(),
            },
            None => {
                if self.stop_waiting(&key, pid) {
                    Answer::Done
                } else {
                    self.elsewhere(&key)
                }
            }
        }
    }

    fn update(
        &mut self,
        scope: &str,
        name: &[u8],
        meta: Arc<[u8]>,
        out: &mut Vec<Output>,
    ) -> Answer {
        let checked = check_scope(scope)
            .and_then(|()| check_name(name))
            .and_then(|()| check_meta(&meta));
        if let Err(refusal) = checked {
            return Answer::Refused(refusal);
        }
        let key = Key::name_in(scope, name);
        match self.items.get(&key).filter(|own| !own.is_void()) {
            Some(own) => {
                if own.meta != meta {
                    let item = Item {
                        meta,
                        ..own.clone()
                    };
                    self.put_own(key, item, out);
                }
                Answer::Done
            }
            None => self.elsewhere(&key),
        }
    }

    /// What there is to say about a name that no process of this node has.
    fn elsewhere(&self, key: &Key) -> Answer {
        let row = self.row(key);
        let owner = row.and_then(|row| Some((row, self.replicas.get(&row.slot)?)));
        match owner {
            Some((row, replica)) => Answer::Taken {
                pid: row.pid.clone(),
                node: replica.node.clone(),
            },
            None => Answer::Unknown,
        }
    }

    fn join(
        &mut self,
        scope: &str,
        group: &[u8],
        pid: Arc<[u8]>,
        meta: Arc<[u8]>,
        out: &mut Vec<Output>,
    ) -> Answer {
        let checked = check_scope(scope)
            .and_then(|()| check_name(group))
            .and_then(|()| check_pid(&pid))
            .and_then(|()| check_meta(&meta));
        if let Err(refusal) = checked {
            return Answer::Refused(refusal);
        }
        let key = Key::member_of(scope, group, &pid);
        let stamp = match self.items.get(&key) {
            Some(own) if own.meta == meta => return Answer::Done,
            Some(own) => own.stamp,
            None => {
                if let Err(refusal) = self.make_room(scope) {
                    return Answer::Refused(refusal);
                }
                self.clock += 1;
                self.clock
            }
        };
        let item = Item {
            pid,
            meta,
            stamp,
            seq: 0,
            resolve: false,
            on_conflict: OnConflict::default(),
            attempts: 0,
            verdict: None,
        };
        self.put_own(key, item, out);
        Answer::Done
    }

    fn leave(&mut self, scope: &str, group: &[u8], pid: &[u8], out: &mut Vec<Output>) -> Answer {
        let checked = check_scope(scope)
            .and_then(|()| check_name(group))
            .and_then(|()| check_pid(pid));
        if let Err(refusal) = checked {
            return Answer::Refused(refusal);
        }
        let key = Key::member_of(scope, group, pid);
        if self.items.get(&key).is_none() {
            return Answer::Unknown;
        }
        self.drop_own(&key, Gone::Unregistered, out);
        Answer::Done
    }

    pub(crate) fn process_ended(&mut self, pid: &Arc<[u8]>, out: &mut Vec<Output>) {
        if self.asking > 0 {
            self.give_up_for(pid, out);
        }
        if self.next_of(pid).is_some() {
            self.ended.insert(pid.clone());
            self.bury(out);
        }
    }

    /// Registrations that wait for an answer, of a process that ended.
    fn give_up_for(&mut self, pid: &Arc<[u8]>, out: &mut Vec<Output>) {
        for question in self.questions.values_mut() {
            question.callers.retain(|(call, registration)| {
                let ended = registration.pid == *pid;
                if ended {
                    self.asking -= 1;
                    out.push(Output::Answer {
                        call: *call,
                        answer: Answer::Exited,
                    });
                }
                !ended
            });
        }
    }

    /// Drops a bounded number of entries of processes that ended.
    pub(crate) fn bury(&mut self, out: &mut Vec<Output>) {
        let mut left = self.limits.work_per_step;
        while left > 0
            && let Some(pid) = self.ended.first().cloned()
        {
            match self.next_of(&pid) {
                Some(key) => {
                    left -= 1;
                    if !self.stop_waiting(&key, Some(&pid)) {
                        self.drop_own(&key, Gone::Exited, out);
                    }
                }
                None => {
                    self.ended.remove(&pid);
                }
            }
        }
    }

    /// One of the entries of a process.
    fn next_of(&self, pid: &Arc<[u8]>) -> Option<Key> {
        let hash = siphash(pid);
        let mut entries = self
            .processes
            .range((hash, Key::floor(0))..)
            .take_while(|(other, _)| *other == hash);
        // Another process may have the same hash.
        let (_, key) = entries.find(|(_, key)| {
            self.items.get(key).is_some_and(|own| own.pid == *pid)
                || self
                    .waiting
                    .get(key)
                    .is_some_and(|waiting| waiting.pid == *pid)
        })?;
        Some(key.clone())
    }

    /// Makes an item this node's own: in the table, in the log.
    pub(crate) fn put_own(&mut self, key: Key, mut item: Item, out: &mut Vec<Output>) {
        item.seq = self.log.head() + 1;
        self.record(Operation::Put(key.clone(), item.clone()), out);
        let old = self.items.insert(key.clone(), item.clone());
        let same = old.as_ref().is_some_and(|old| old.looks_like(&item));
        let known = old
            .as_ref()
            .is_some_and(|old| old.pid == item.pid && !old.is_void());
        if !known && !item.is_void() {
            self.processes.insert((siphash(&item.pid), key.clone()));
        }
        if old.is_none() {
            match self.scopes.get_mut(key.scope()) {
                Some(count) => *count += 1,
                None => {
                    self.scopes.insert(String::from(key.scope()), 1);
                }
            }
        }
        match key.what() {
            What::Name => self.claim(OWN, &key, &item, same, out),
            What::Member => {
                let entry = self.entry_of(OWN, &key, &item);
                out.extend(entry.map(|entry| {
                    Output::Table(if old.is_none() {
                        Change::Joined(entry)
                    } else {
                        Change::Rejoined(entry)
                    })
                }));
            }
        }
    }

    /// Drops one of this node's items, from the table too.
    pub(crate) fn drop_own(&mut self, key: &Key, gone: Gone, out: &mut Vec<Output>) {
        let Some(item) = self.remove_own(key, gone) else {
            return;
        };
        match key.what() {
            What::Name => self.unclaim(OWN, key, gone, out),
            What::Member => out.push(Output::Table(Change::Left {
                key: key.clone(),
                pid: item.pid,
                gone,
            })),
        }
        self.flush_if_full(out);
    }

    /// Drops one of this node's items. What the table shows is the caller's affair.
    pub(crate) fn remove_own(&mut self, key: &Key, gone: Gone) -> Option<Item> {
        let item = self.items.remove(key)?;
        let operation = Operation::Drop(key.clone(), gone);
        self.unflushed_bytes += log::size(&operation);
        self.log.push(operation);
        self.processes.remove(&(siphash(&item.pid), key.clone()));
        self.forget_dispute(key);
        if let Some(count) = self.scopes.get_mut(key.scope()) {
            *count -= 1;
            if *count == 0 {
                self.scopes.remove(key.scope());
            }
        }
        Some(item)
    }

    fn record(&mut self, operation: Operation, out: &mut Vec<Output>) {
        self.flush_if_full(out);
        self.unflushed_bytes += log::size(&operation);
        self.log.push(operation);
    }

    /// A turn with many commands sends as it goes, so that the log never loses what was not sent.
    fn flush_if_full(&mut self, out: &mut Vec<Output>) {
        if self.unflushed_bytes >= CHUNK_BYTES {
            self.flush(out);
        }
    }
}
