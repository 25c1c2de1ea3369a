//! One rule of `supervisor(3)` after the other, as a trace of what the machine wants done.

use super::*;
use crate::backoff::Jitter;

/// A machine whose children do what they are told, unless said otherwise, and what they were told.
struct Bench {
    machine: Machine,
    now: Duration,
    /// Children that fail to start, for as long as they are here.
    broken: Vec<u64>,
    /// Children that do not end by `shutdown`.
    stubborn: Vec<u64>,
    trace: Vec<String>,
    next: u64,
}

fn rules(restart: Restart) -> Rules {
    Rules {
        restart,
        shutdown: Shutdown::Timeout(Duration::from_secs(5)),
    }
}

fn settings(strategy: Strategy) -> Settings {
    Settings {
        strategy,
        intensity: 3,
        period: Duration::from_secs(5),
        backoff: Backoff::none(),
    }
}

fn reason(reason: &'static str) -> Term {
    Term::parse(reason).unwrap()
}

impl Bench {
    fn new(settings: Settings, children: &[Restart]) -> Self {
        Self::with(settings, children, &[])
    }

    fn with(settings: Settings, children: &[Restart], broken: &[u64]) -> Self {
        let keyed = (0..)
            .map(Key)
            .zip(children.iter().map(|restart| rules(*restart)));
        let machine = Machine::new(settings, keyed, Random::from_seed(1));
        let mut bench = Self {
            machine,
            now: Duration::ZERO,
            broken: broken.to_vec(),
            stubborn: Vec::new(),
            trace: Vec::new(),
            next: children.len() as u64,
        };
        bench.event(Event::Woke);
        bench
    }

    /// Three permanent children.
    fn three(strategy: Strategy) -> Self {
        let mut bench = Self::new(settings(strategy), &[Restart::Permanent; 3]);
        assert_eq!(bench.told(), "start 0, start 1, start 2, ready");
        bench
    }

    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            self.machine.step(self.now, event, &mut actions);
            for action in actions {
                self.trace.push(match &action {
                    Action::Start(key) => format!("start {}", key.0),
                    Action::Shut(key) => format!("shut {}", key.0),
                    Action::Kill(key) => format!("kill {}", key.0),
                    Action::Forget(key) => format!("forget {}", key.0),
                    Action::Answer(call, answer) => format!("answer {} {answer:?}", call.0),
                    Action::Ready => "ready".to_owned(),
                    Action::End(end) => format!("end {end:?}"),
                });
                match action {
                    Action::Start(key) if self.broken.contains(&key.0) => {
                        events.push_back(Event::Ended(key, reason("broken")));
                    }
                    Action::Start(key) => events.push_back(Event::Started(key)),
                    Action::Shut(key) if !self.stubborn.contains(&key.0) => {
                        events.push_back(Event::Ended(key, reason("shutdown")));
                    }
                    Action::Kill(key) => events.push_back(Event::Ended(key, reason("killed"))),
                    _ => {}
                }
            }
        }
    }

    fn ends(&mut self, key: u64, why: &'static str) {
        self.event(Event::Ended(Key(key), reason(why)));
    }

    fn asks(&mut self, request: Request) -> String {
        self.event(Event::Asked(CallId(7), request));
        self.told()
    }

    fn after(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.event(Event::Woke);
    }

    /// What was told since this was last asked.
    fn told(&mut self) -> String {
        std::mem::take(&mut self.trace).join(", ")
    }
}

#[test]
fn each_strategy_restarts_its_group_in_order() {
    for (strategy, expected) in [
        (Strategy::OneForOne, "start 1"),
        (Strategy::RestForOne, "shut 2, start 1, start 2"),
        (
            Strategy::OneForAll,
            "shut 2, shut 0, start 0, start 1, start 2",
        ),
    ] {
        let mut bench = Bench::three(strategy);
        bench.ends(1, "crash");
        assert_eq!(bench.told(), expected, "{strategy:?}");
    }
}

#[test]
fn who_is_restarted_is_a_matter_of_the_reason() {
    use Restart::{Permanent, Temporary, Transient};
    let expected = ["normal", "shutdown", "{shutdown, done}"];
    let abnormal = [
        "crash",
        "killed",
        "{shutdown, done, twice}",
        "{panic, <<>>}",
    ];
    for why in expected.iter().chain(&abnormal) {
        let wrong = abnormal.contains(why);
        for (restart, told) in [
            (Permanent, "start 0"),
            (Transient, if wrong { "start 0" } else { "" }),
            (Temporary, "forget 0"),
        ] {
            let mut bench = Bench::new(settings(Strategy::OneForOne), &[restart]);
            bench.told();
            bench.ends(0, why);
            assert_eq!(bench.told(), told, "{restart:?} ends for {why}");
        }
    }
}

#[test]
fn temporary_children_end_with_their_group_and_the_others_start_again() {
    use Restart::{Permanent, Temporary, Transient};
    let mut bench = Bench::new(
        settings(Strategy::OneForAll),
        &[Transient, Temporary, Permanent],
    );
    bench.ends(0, "normal");
    bench.told();
    bench.ends(2, "crash");
    assert_eq!(
        bench.told(),
        "shut 1, forget 1, start 0, start 2",
        "one that has done its work is of the group, too"
    );
}

#[test]
fn one_restart_too_many_within_the_period_is_the_end() {
    let mut bench = Bench::three(Strategy::OneForOne);
    for _ in 0..3 {
        bench.ends(1, "crash");
        bench.after(1_500);
    }
    assert_eq!(bench.told(), "start 1, start 1, start 1");
    // The first was 4.5 seconds ago.
    bench.ends(0, "crash");
    assert_eq!(bench.told(), "shut 2, shut 1, end Intensity");
    bench.ends(1, "crash");
    bench.after(10_000);
    assert_eq!(bench.told(), "", "it is over");
}

#[test]
fn restarts_of_long_ago_do_not_count() {
    let mut bench = Bench::three(Strategy::OneForOne);
    for _ in 0..50 {
        bench.ends(1, "crash");
        assert_eq!(bench.told(), "start 1");
        bench.after(2_000);
    }
}

#[test]
fn an_intensity_of_zero_bears_no_restart() {
    let settings = Settings {
        intensity: 0,
        ..settings(Strategy::OneForOne)
    };
    let mut bench = Bench::new(settings, &[Restart::Permanent]);
    bench.told();
    bench.ends(0, "crash");
    assert_eq!(bench.told(), "end Intensity");
}

#[test]
fn a_first_child_that_does_not_start_undoes_those_before() {
    let three = [Restart::Permanent; 3];
    let mut bench = Bench::with(settings(Strategy::OneForOne), &three, &[2]);
    assert_eq!(
        bench.told(),
        "start 0, start 1, start 2, shut 1, shut 0, end Failed(Key(2), broken)"
    );
}

#[test]
fn a_restart_that_fails_counts_and_is_tried_again() {
    let mut bench = Bench::three(Strategy::RestForOne);
    bench.broken = vec![1];
    bench.ends(1, "crash");
    assert_eq!(
        bench.told(),
        "shut 2, start 1, start 1, start 1, shut 0, end Intensity",
        "three restarts, and one too many"
    );
}

#[test]
fn children_that_wait_for_one_before_them_are_started_with_it() {
    let pause = Duration::from_secs(1);
    let settings = Settings {
        backoff: Backoff::constant(pause),
        ..settings(Strategy::RestForOne)
    };
    let mut bench = Bench::new(settings, &[Restart::Permanent; 3]);
    bench.told();
    bench.broken = vec![1];
    bench.ends(1, "crash");
    assert_eq!(bench.told(), "shut 2");
    bench.after(1_000);
    assert_eq!(bench.told(), "start 1");
    assert_eq!(bench.machine.state(Key(2)), Some(State::Restarting));
    bench.broken.clear();
    bench.after(999);
    assert_eq!(bench.told(), "");
    bench.after(1);
    assert_eq!(bench.told(), "start 1, start 2");
}

#[test]
fn pauses_grow_and_begin_anew_after_a_good_while() {
    let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_millis(400));
    let settings = Settings {
        intensity: 100,
        backoff: backoff.jitter(Jitter::None),
        ..settings(Strategy::OneForOne)
    };
    let mut bench = Bench::new(settings, &[Restart::Permanent; 2]);
    bench.told();
    for pause in [100, 200, 400, 400] {
        bench.ends(0, "crash");
        let left = bench.machine.deadline().unwrap() - bench.now;
        assert_eq!(left, Duration::from_millis(pause));
        // Others are seen to meanwhile, each with pauses of its own.
        assert_eq!(bench.told(), "");
        bench.after(pause);
        assert_eq!(bench.told(), "start 0");
    }
    bench.ends(1, "crash");
    let left = bench.machine.deadline().unwrap() - bench.now;
    assert_eq!(left, Duration::from_millis(100));
    bench.after(100);
    assert_eq!(bench.told(), "start 1");
    bench.after(400);
    bench.ends(0, "crash");
    let left = bench.machine.deadline().unwrap() - bench.now;
    assert_eq!(left, Duration::from_millis(100));
}

#[test]
fn a_child_that_does_not_end_in_time_is_killed() {
    let mut bench = Bench::three(Strategy::OneForOne);
    bench.stubborn = vec![1];
    bench.event(Event::Stop);
    assert_eq!(bench.told(), "shut 2, shut 1");
    bench.after(4_999);
    assert_eq!(bench.told(), "");
    bench.after(1);
    assert_eq!(bench.told(), "kill 1, shut 0, end Stopped");
}

#[test]
fn brutal_is_at_once_and_infinity_is_for_ever() {
    let keyed = [
        (
            Key(0),
            Rules {
                restart: Restart::Permanent,
                shutdown: Shutdown::Infinity,
            },
        ),
        (
            Key(1),
            Rules {
                restart: Restart::Permanent,
                shutdown: Shutdown::Brutal,
            },
        ),
    ];
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[]);
    bench.machine = Machine::new(settings(Strategy::OneForOne), keyed, Random::from_seed(1));
    bench.event(Event::Woke);
    bench.told();
    bench.stubborn = vec![0];
    bench.event(Event::Stop);
    assert_eq!(bench.told(), "kill 1, shut 0");
    bench.after(1_000_000_000);
    assert_eq!(bench.told(), "");
    bench.ends(0, "shutdown");
    assert_eq!(bench.told(), "end Stopped");
}

#[test]
fn what_ends_while_its_group_is_stopped_is_started_once() {
    let mut bench = Bench::three(Strategy::OneForAll);
    bench.stubborn = vec![2];
    bench.ends(1, "crash");
    bench.ends(0, "crash");
    assert_eq!(bench.told(), "shut 2");
    bench.ends(2, "shutdown");
    assert_eq!(
        bench.told(),
        "start 0, start 1, start 2",
        "and not once more"
    );
}

#[test]
fn children_come_and_go_by_request() {
    let mut bench = Bench::three(Strategy::OneForOne);
    let key = Key(bench.next);
    let added = bench.asks(Request::Add(key, rules(Restart::Transient)));
    assert_eq!(added, "start 3, answer 7 Started(Key(3))");
    assert_eq!(bench.asks(Request::Restart(key)), "answer 7 Running");
    assert_eq!(bench.asks(Request::Delete(key)), "answer 7 Running");
    assert_eq!(bench.asks(Request::Terminate(key)), "shut 3, answer 7 Done");
    assert_eq!(bench.asks(Request::Terminate(key)), "answer 7 Done");
    let restarted = bench.asks(Request::Restart(key));
    assert_eq!(restarted, "start 3, answer 7 Started(Key(3))");
    bench.ends(3, "normal");
    assert_eq!(bench.machine.state(key), Some(State::Down));
    assert_eq!(bench.asks(Request::Delete(key)), "forget 3, answer 7 Done");
    for request in [Request::Terminate, Request::Restart, Request::Delete] {
        assert_eq!(bench.asks(request(key)), "answer 7 NotFound");
    }
}

#[test]
fn a_child_that_is_asked_for_and_does_not_start_is_answered() {
    let mut bench = Bench::three(Strategy::OneForOne);
    bench.broken = vec![1, 3];
    let added = bench.asks(Request::Add(Key(3), rules(Restart::Permanent)));
    assert_eq!(added, "start 3, forget 3, answer 7 Failed(broken)");
    bench.asks(Request::Terminate(Key(1)));
    let restarted = bench.asks(Request::Restart(Key(1)));
    assert_eq!(restarted, "start 1, answer 7 Failed(broken)");
    assert_eq!(bench.machine.state(Key(1)), Some(State::Down));
}

#[test]
fn a_temporary_child_that_is_terminated_is_forgotten() {
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[Restart::Temporary]);
    bench.told();
    assert_eq!(
        bench.asks(Request::Terminate(Key(0))),
        "shut 0, forget 0, answer 7 Done"
    );
}

#[test]
fn a_child_that_waits_for_its_restart_can_be_terminated() {
    let settings = Settings {
        backoff: Backoff::constant(Duration::from_secs(1)),
        ..settings(Strategy::OneForOne)
    };
    let mut bench = Bench::new(settings, &[Restart::Permanent]);
    bench.ends(0, "crash");
    bench.told();
    assert_eq!(bench.asks(Request::Restart(Key(0))), "answer 7 Restarting");
    assert_eq!(bench.asks(Request::Delete(Key(0))), "answer 7 Restarting");
    assert_eq!(bench.asks(Request::Terminate(Key(0))), "answer 7 Done");
    bench.after(10_000);
    assert_eq!(bench.told(), "");
    assert_eq!(bench.machine.deadline(), None);
}

/// Told to end while a child is being started: the child, ready or not, is ended with the others.
#[test]
fn the_end_does_not_wait_for_a_start() {
    let keyed = (0..2).map(|key| (Key(key), rules(Restart::Permanent)));
    let mut machine = Machine::new(settings(Strategy::OneForOne), keyed, Random::from_seed(1));
    let mut actions = Vec::new();
    machine.step(Duration::ZERO, Event::Woke, &mut actions);
    machine.step(Duration::ZERO, Event::Started(Key(0)), &mut actions);
    machine.step(Duration::ZERO, Event::Stop, &mut actions);
    let started_late = Event::Started(Key(1));
    machine.step(Duration::ZERO, started_late, &mut actions);
    for key in [1, 0] {
        let ended = Event::Ended(Key(key), reason("shutdown"));
        machine.step(Duration::ZERO, ended, &mut actions);
    }
    assert_eq!(
        actions,
        [
            Action::Start(Key(0)),
            Action::Start(Key(1)),
            Action::Shut(Key(1)),
            Action::Shut(Key(0)),
            Action::End(End::Stopped),
        ]
    );
}
