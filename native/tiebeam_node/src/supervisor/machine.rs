//! A supervisor as a pure machine: what happens to children goes in, what is to be done about it comes out.
//!
//! It works through one plan at a time, as OTP's `supervisor` does: a restart of a group stops children in the reverse order
//! of their start, one after the other, and starts them in order. What happens meanwhile waits. Only the pause before a
//! restart is no part of a plan: other children are seen to while one is waited for.
//!
//! Source: *OTP Design Principles*, "Supervisor Behaviour", and `supervisor(3)`; the pauses are not OTP's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tiebeam_core::Random;
use tiebeam_wire::Term;

use super::spec::{Restart, Shutdown, Strategy};
use crate::backoff::Backoff;

/// A child, in the order of the first starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// A request that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallId(pub(super) u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) strategy: Strategy,
    /// So many restarts may be made within `period`.
    pub(super) intensity: u32,
    pub(super) period: Duration,
    pub(super) backoff: Backoff,
}

/// What the machine must know of a child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A child that was to be started is ready.
    Started(Key),
    /// The process of a child has ended, for this reason; before it was ready, or after.
    Ended(Key, Term),
    Asked(CallId, Request),
    /// The supervisor shall end.
    Stop,
    Woke,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// A new child, last in order; its key is higher than all before.
    Add(Key, Rules),
    Terminate(Key),
    Restart(Key),
    Delete(Key),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Start the process of a child; [`Event::Started`] or [`Event::Ended`] follows.
    Start(Key),
    /// Send the exit signal `shutdown` to a child; [`Event::Ended`] follows.
    Shut(Key),
    /// Send the exit signal `kill` to a child; [`Event::Ended`] follows.
    Kill(Key),
    /// This is no child any more.
    Forget(Key),
    Answer(CallId, Answer),
    /// All first children are started.
    Ready,
    /// All children have ended, and the supervisor does.
    End(End),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Done,
    Started(Key),
    /// It ended before it was ready, for this reason.
    Failed(Term),
    Running,
    Restarting,
    NotFound,
}

/// Why a supervisor ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// More restarts would have been needed than it may make.
    Intensity,
    /// A first child was not started, for this reason.
    Failed(Key, Term),
}

/// How a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It does not run, and nobody is about to start it.
    Down,
    /// It does not run, and will be started.
    Restarting,
    Starting,
    Up,
    /// It has ended, which waits for its turn.
    Ended,
}

#[derive(Debug)]
struct Child {
    rules: Rules,
    state: State,
    /// How often it was started.
    lives: u64,
    /// When it was last ready.
    since: Duration,
    /// Pauses in a row.
    pauses: u32,
    pause: Duration,
    /// When the last pause is over, or was.
    due: Duration,
}

#[derive(Debug)]
enum Step {
    Start(Key, Why),
    Stop(Key),
    /// Remove a child that has ended.
    Forget(Key),
    /// Start the group of this child after the pause.
    Arm(Key),
    Answer(CallId, Answer),
    Ready,
    End(End),
}

/// Why a child is started: who must know if that fails.
#[derive(Clone, Copy, Debug)]
enum Why {
    First,
    Restart,
    Added(CallId),
    Asked(CallId),
}

/// The step of the plan that has to be waited for.
#[derive(Debug)]
enum Current {
    Starting(Key, Why),
    Stopping {
        key: Key,
        /// When it is killed.
        deadline: Option<Duration>,
    },
}

/// What waits for the plan to be done.
#[derive(Debug)]
enum Waiting {
    /// This life of a child has ended.
    Ended(Key, u64, Term),
    /// A restart has failed.
    Again(Key),
    Asked(CallId, Request),
}

/// The machine. Time is what has passed since some origin, and never goes back.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    random: Random,
    children: BTreeMap<Key, Child>,
    plan: VecDeque<Step>,
    current: Option<Current>,
    waiting: VecDeque<Waiting>,
    /// Restarts that wait for the end of a pause.
    armed: BTreeSet<(Duration, Key)>,
    /// When restarts were made, within the last period.
    restarts: VecDeque<Duration>,
    ending: bool,
}

impl Machine {
    /// With these first children, which are started by the first step.
    pub(super) fn new(
        settings: Settings,
        children: impl IntoIterator<Item = (Key, Rules)>,
        random: Random,
    ) -> Self {
        let mut machine = Self {
            settings,
            random,
            children: BTreeMap::new(),
            plan: VecDeque::new(),
            current: None,
            waiting: VecDeque::new(),
            armed: BTreeSet::new(),
            restarts: VecDeque::new(),
            ending: false,
        };
        for (key, rules) in children {
            machine.add(key, rules);
            machine.plan.push_back(Step::Start(key, Why::First));
        }
        machine.plan.push_back(Step::Ready);
        machine
    }

    fn add(&mut self, key: Key, rules: Rules) {
        let child = Child {
            rules,
            state: State::Down,
            lives: 0,
            since: Duration::ZERO,
            pauses: 0,
            pause: Duration::ZERO,
            due: Duration::ZERO,
        };
        self.children.insert(key, child);
    }

    /// How a child is; `None` if it is none.
    pub(super) fn state(&self, key: Key) -> Option<State> {
        self.children.get(&key).map(|child| child.state)
    }

    /// How many requests and ends wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When to step with [`Event::Woke`] if nothing happens before. Early or late is safe.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.current {
            Some(Current::Stopping { deadline, .. }) => *deadline,
            Some(Current::Starting(..)) => None,
            None => self.armed.first().map(|(at, _)| *at),
        }
    }

    /// Tells the machine what happened; appends what is to be done, in order.
    pub(super) fn step(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Started(key) => self.started(key, now, actions),
            Event::Ended(key, reason) => self.ended(key, reason, now, actions),
            Event::Asked(call, request) => {
                self.waiting.push_back(Waiting::Asked(call, request));
            }
            Event::Stop => self.end(End::Stopped, actions),
            Event::Woke => {}
        }
        self.advance(now, actions);
    }

    fn started(&mut self, key: Key, now: Duration, actions: &mut Vec<Action>) {
        let Some(Current::Starting(_, why)) = self.current.take_if(
            |current| matches!(current, Current::Starting(starting, _) if *starting == key),
        ) else {
            return;
        };
        if let Some(child) = self.children.get_mut(&key) {
            child.state = State::Up;
            child.since = now;
        }
        if let Why::Added(call) | Why::Asked(call) = why {
            actions.push(Action::Answer(call, Answer::Started(key)));
        }
    }

    fn ended(&mut self, key: Key, reason: Term, now: Duration, actions: &mut Vec<Action>) {
        match &self.current {
            Some(Current::Starting(starting, why)) if *starting == key => {
                let why = *why;
                self.current = None;
                self.not_started(key, why, reason, actions);
            }
            Some(Current::Stopping { key: stopping, .. }) if *stopping == key => {
                self.current = None;
                self.set(key, State::Down);
            }
            _ => {
                let longest = self.settings.backoff.longest();
                let Some(child) = self.children.get_mut(&key) else {
                    return;
                };
                if child.state != State::Up {
                    return;
                }
                child.state = State::Ended;
                // What ran for as long as the longest pause is taken to be well.
                if now.saturating_sub(child.since) >= longest {
                    child.pauses = 0;
                    child.pause = Duration::ZERO;
                }
                let ended = Waiting::Ended(key, child.lives, reason);
                self.waiting.push_back(ended);
            }
        }
    }

    fn not_started(&mut self, key: Key, why: Why, reason: Term, actions: &mut Vec<Action>) {
        match why {
            Why::First => {
                self.set(key, State::Down);
                self.end(End::Failed(key, reason), actions);
            }
            Why::Restart => {
                // Those that would have been started after it wait, too.
                self.plan.clear();
                self.set(key, State::Restarting);
                self.waiting.push_back(Waiting::Again(key));
            }
            Why::Added(call) => {
                self.children.remove(&key);
                actions.push(Action::Forget(key));
                actions.push(Action::Answer(call, Answer::Failed(reason)));
            }
            Why::Asked(call) => {
                self.set(key, State::Down);
                actions.push(Action::Answer(call, Answer::Failed(reason)));
            }
        }
    }

    /// Gives all else up: all children are stopped, the last one first.
    fn end(&mut self, end: End, actions: &mut Vec<Action>) {
        if self.ending {
            return;
        }
        self.ending = true;
        self.plan.clear();
        self.waiting.clear();
        self.armed.clear();
        if let Some(Current::Starting(key, why)) = self
            .current
            .take_if(|current| matches!(current, Current::Starting(..)))
        {
            // There is a process, ready or not.
            self.set(key, State::Up);
            if let Why::Added(call) | Why::Asked(call) = why {
                let reason = Term::atom("shutdown");
                actions.push(Action::Answer(call, Answer::Failed(reason)));
            }
        }
        let last_first = self.children.keys().rev();
        self.plan.extend(last_first.map(|key| Step::Stop(*key)));
        self.plan.push_back(Step::End(end));
    }

    /// Goes on until something has to be waited for.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        loop {
            if let Some(current) = &mut self.current {
                if let Current::Stopping { key, deadline } = current
                    && deadline.is_some_and(|at| at <= now)
                {
                    *deadline = None;
                    actions.push(Action::Kill(*key));
                }
                return;
            }
            if let Some(step) = self.plan.pop_front() {
                self.work(step, now, actions);
            } else if self.ending {
                return;
            } else if let Some(key) = self.due(now) {
                self.plan_starts(key);
            } else if let Some(waiting) = self.waiting.pop_front() {
                self.take_up(waiting, now, actions);
            } else {
                return;
            }
        }
    }

    /// The restart whose pause is over, if there is one.
    fn due(&mut self, now: Duration) -> Option<Key> {
        let (at, key) = *self.armed.first()?;
        if at > now {
            return None;
        }
        self.armed.pop_first();
        Some(key)
    }

    fn work(&mut self, step: Step, now: Duration, actions: &mut Vec<Action>) {
        match step {
            Step::Start(key, why) => {
                if let Some(child) = self.children.get_mut(&key) {
                    child.state = State::Starting;
                    child.lives += 1;
                    self.current = Some(Current::Starting(key, why));
                    actions.push(Action::Start(key));
                }
            }
            Step::Stop(key) => {
                let Some(child) = self.children.get_mut(&key) else {
                    return;
                };
                if child.state != State::Up {
                    child.state = State::Down;
                    if self.settings.strategy == Strategy::OneForOne {
                        self.disarm(key);
                    }
                    return;
                }
                let deadline = match child.rules.shutdown {
                    Shutdown::Brutal => {
                        actions.push(Action::Kill(key));
                        None
                    }
                    Shutdown::Timeout(timeout) => {
                        actions.push(Action::Shut(key));
                        Some(now.saturating_add(timeout))
                    }
                    Shutdown::Infinity => {
                        actions.push(Action::Shut(key));
                        None
                    }
                };
                self.current = Some(Current::Stopping { key, deadline });
            }
            Step::Forget(key) => {
                self.children.remove(&key);
                actions.push(Action::Forget(key));
            }
            Step::Arm(key) => {
                let pause = self
                    .children
                    .get(&key)
                    .map_or(Duration::ZERO, |child| child.pause);
                for key in self.group(key) {
                    self.set(key, State::Restarting);
                }
                // The group waits for this pause alone.
                match self.settings.strategy {
                    Strategy::OneForOne => self.disarm(key),
                    Strategy::OneForAll => self.armed.clear(),
                    Strategy::RestForOne => self.armed.retain(|(_, armed)| *armed < key),
                }
                if pause.is_zero() {
                    self.plan_starts(key);
                } else if !self.is_awaited(key) {
                    let due = now.saturating_add(pause);
                    self.armed.insert((due, key));
                    if let Some(child) = self.children.get_mut(&key) {
                        child.due = due;
                    }
                }
            }
            Step::Answer(call, answer) => actions.push(Action::Answer(call, answer)),
            Step::Ready => actions.push(Action::Ready),
            Step::End(end) => actions.push(Action::End(end)),
        }
    }

    /// The restart of this child waits no longer.
    fn disarm(&mut self, key: Key) {
        if let Some(child) = self.children.get(&key) {
            self.armed.remove(&(child.due, key));
        }
    }

    /// Whether a restart that waits for its time, or its turn, starts this child as well.
    fn is_awaited(&self, key: Key) -> bool {
        match self.settings.strategy {
            Strategy::OneForOne => false,
            Strategy::OneForAll => !self.armed.is_empty(),
            Strategy::RestForOne => {
                let mut before = self.children.range(..key);
                before.any(|(_, child)| child.state == State::Restarting)
            }
        }
    }

    /// Starts those of a child's group that wait for it, in order.
    fn plan_starts(&mut self, key: Key) {
        if self.is_awaited(key) {
            return;
        }
        for key in self.group(key) {
            if self.state(key) == Some(State::Restarting) {
                self.plan.push_back(Step::Start(key, Why::Restart));
            }
        }
    }

    fn take_up(&mut self, waiting: Waiting, now: Duration, actions: &mut Vec<Action>) {
        match waiting {
            Waiting::Ended(key, life, reason) => {
                let Some(child) = self.children.get_mut(&key) else {
                    return;
                };
                // It may have been started anew as part of a group, and even have ended again.
                if child.state != State::Ended || child.lives != life {
                    return;
                }
                child.state = State::Down;
                match child.rules.restart {
                    Restart::Permanent => self.restart(key, now, actions),
                    Restart::Transient if !is_expected(&reason) => self.restart(key, now, actions),
                    Restart::Transient => {}
                    Restart::Temporary => self.plan.push_back(Step::Forget(key)),
                }
            }
            Waiting::Again(key) => {
                if self.state(key) == Some(State::Restarting) {
                    self.restart(key, now, actions);
                } else {
                    // It was terminated meanwhile; those that were to follow it are not.
                    self.plan_starts(key);
                }
            }
            Waiting::Asked(call, request) => self.request(call, request, actions),
        }
    }

    fn request(&mut self, call: CallId, request: Request, actions: &mut Vec<Action>) {
        let (Request::Add(key, _)
        | Request::Terminate(key)
        | Request::Restart(key)
        | Request::Delete(key)) = request;
        // Not before its turn: a restart of its group would start it, too.
        if let Request::Add(key, rules) = request {
            self.add(key, rules);
        }
        let Some(child) = self.children.get(&key) else {
            return actions.push(Action::Answer(call, Answer::NotFound));
        };
        match (request, child.state) {
            (Request::Add(..), _) => self.plan.push_back(Step::Start(key, Why::Added(call))),
            (Request::Terminate(_), _) => {
                self.plan.push_back(Step::Stop(key));
                if child.rules.restart == Restart::Temporary {
                    self.plan.push_back(Step::Forget(key));
                }
                self.plan.push_back(Step::Answer(call, Answer::Done));
            }
            (Request::Restart(_), State::Down) => {
                self.plan.push_back(Step::Start(key, Why::Asked(call)));
            }
            (Request::Delete(_), State::Down) => {
                self.plan.push_back(Step::Forget(key));
                self.plan.push_back(Step::Answer(call, Answer::Done));
            }
            (_, State::Restarting) => actions.push(Action::Answer(call, Answer::Restarting)),
            (_, State::Starting | State::Up | State::Ended) => {
                actions.push(Action::Answer(call, Answer::Running));
            }
        }
    }

    /// Restarts a child that does not run, and its group.
    fn restart(&mut self, key: Key, now: Duration, actions: &mut Vec<Action>) {
        if !self.may_restart(now) {
            return self.end(End::Intensity, actions);
        }
        if let Some(child) = self.children.get_mut(&key) {
            let backoff = self.settings.backoff;
            child.pause = backoff.pause(child.pauses, child.pause, &mut self.random);
            child.pauses = child.pauses.saturating_add(1);
        }
        // Temporary children are not started again: a restart of their group is their end.
        for other in self.group(key).into_iter().rev() {
            self.plan.push_back(Step::Stop(other));
            let child = self.children.get(&other);
            if child.is_some_and(|child| child.rules.restart == Restart::Temporary) {
                self.plan.push_back(Step::Forget(other));
            }
        }
        self.plan.push_back(Step::Arm(key));
    }

    /// Counts a restart. False if it is one too many.
    fn may_restart(&mut self, now: Duration) -> bool {
        let period = self.settings.period;
        while let Some(at) = self.restarts.front()
            && now.saturating_sub(*at) > period
        {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.settings.intensity as usize {
            return false;
        }
        self.restarts.push_back(now);
        true
    }

    fn first_of_group(&self, key: Key) -> Key {
        match self.settings.strategy {
            Strategy::OneForOne | Strategy::RestForOne => key,
            Strategy::OneForAll => Key(0),
        }
    }

    /// Those that are restarted with a child, in order, itself included.
    fn group(&self, key: Key) -> Vec<Key> {
        match self.settings.strategy {
            Strategy::OneForOne => vec![key],
            Strategy::RestForOne | Strategy::OneForAll => self
                .children
                .range(self.first_of_group(key)..)
                .map(|(key, _)| *key)
                .collect(),
        }
    }

    fn set(&mut self, key: Key, state: State) {
        if let Some(child) = self.children.get_mut(&key) {
            child.state = state;
        }
    }
}

/// Whether a transient child that ends for this reason has done its work: `normal`, `shutdown`, `{shutdown, _}`.
pub(super) fn is_expected(reason: &Term) -> bool {
    match reason {
        Term::Atom(reason) => *reason == "normal" || *reason == "shutdown",
        Term::Tuple(elements) => elements.len() == 2 && elements[0].is_atom("shutdown"),
        _ => false,
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
