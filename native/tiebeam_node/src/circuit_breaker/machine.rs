//! A circuit breaker as a pure machine: what it is told, and when, decides whom it lets through.

use std::time::Duration;

use super::BreakerSettings;

/// Whether calls are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// None is, until the pause is over.
    Open,
    /// A few are, to see how they end.
    HalfOpen,
}

/// A call that was let through. How it ends counts only in the state that let it through.
#[derive(Debug)]
pub(super) struct Permit {
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        /// How many failed in a row.
        failures: u32,
    },
    Open {
        until: Duration,
    },
    HalfOpen {
        /// How many were let through and have not ended.
        running: u32,
        /// How many ended well.
        successes: u32,
    },
}

/// The machine. Time is what has passed since some origin, and never goes back.
#[derive(Debug)]
pub(super) struct Machine {
    settings: BreakerSettings,
    state: State,
    /// Counts the changes of the state.
    epoch: u64,
}

impl Machine {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
            epoch: 0,
        }
    }

    /// Lets a call through, or says how long to leave the other alone.
    pub(super) fn admit(&mut self, now: Duration) -> Result<Permit, Duration> {
        if let State::Open { until } = self.state {
            if now < until {
                return Err(until - now);
            }
            self.change(State::HalfOpen {
                running: 0,
                successes: 0,
            });
        }
        if let State::HalfOpen { running, successes } = &mut self.state {
            if *running + *successes >= self.settings.trials {
                return Err(Duration::ZERO);
            }
            *running += 1;
        }
        Ok(Permit { epoch: self.epoch })
    }

    /// A call has ended well.
    pub(super) fn succeeded(&mut self, permit: &Permit) {
        if permit.epoch != self.epoch {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            State::HalfOpen { running, successes } => {
                *running -= 1;
                *successes += 1;
                if *successes >= self.settings.trials {
                    self.change(State::Closed { failures: 0 });
                }
            }
            State::Open { .. } => {}
        }
    }

    /// A call has failed.
    pub(super) fn failed(&mut self, permit: &Permit, now: Duration) {
        if permit.epoch != self.epoch {
            return;
        }
        let opens = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                *failures >= self.settings.failures
            }
            State::HalfOpen { .. } => true,
            State::Open { .. } => false,
        };
        if opens {
            let until = now.saturating_add(self.settings.pause);
            self.change(State::Open { until });
        }
    }

    /// A call was given up by its caller: it says nothing of who was asked.
    pub(super) fn given_up(&mut self, permit: &Permit) {
        if permit.epoch == self.epoch
            && let State::HalfOpen { running, .. } = &mut self.state
        {
            *running -= 1;
        }
    }

    pub(super) fn state(&self, now: Duration) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_core::Random;

    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        pause: Duration::from_secs(30),
        trials: 2,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened() -> Machine {
        let mut machine = Machine::new(SETTINGS);
        for _ in 0..SETTINGS.failures {
            let permit = machine.admit(at(0)).unwrap();
            machine.failed(&permit, at(0));
        }
        machine
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let mut machine = Machine::new(SETTINGS);
        for end in [false, false, true, false, false] {
            let permit = machine.admit(at(0)).unwrap();
            if end {
                machine.succeeded(&permit);
            } else {
                machine.failed(&permit, at(0));
            }
            assert_eq!(machine.state(at(0)), BreakerState::Closed);
        }
        let permit = machine.admit(at(0)).unwrap();
        machine.failed(&permit, at(1));
        assert_eq!(machine.state(at(1)), BreakerState::Open);
        assert_eq!(machine.admit(at(11)).unwrap_err(), at(20));
    }

    #[test]
    fn after_the_pause_a_few_are_let_through_and_close_it() {
        let mut machine = opened();
        assert_eq!(machine.state(at(30)), BreakerState::HalfOpen);
        let first = machine.admit(at(30)).unwrap();
        let second = machine.admit(at(30)).unwrap();
        assert!(machine.admit(at(30)).is_err(), "a third is one too many");
        machine.succeeded(&first);
        assert!(machine.admit(at(31)).is_err(), "two at most, ended or not");
        machine.succeeded(&second);
        assert_eq!(machine.state(at(31)), BreakerState::Closed);
    }

    #[test]
    fn one_failure_of_those_opens_it_again() {
        let mut machine = opened();
        let first = machine.admit(at(30)).unwrap();
        let second = machine.admit(at(30)).unwrap();
        machine.failed(&first, at(40));
        assert_eq!(machine.admit(at(41)).unwrap_err(), at(29));
        machine.succeeded(&second);
        assert_eq!(
            machine.state(at(41)),
            BreakerState::Open,
            "what was let through before says nothing of now"
        );
    }

    /// A call that was let through while it was closed took a minute to fail. It must not end the trial that has
    /// begun meanwhile.
    #[test]
    fn what_ends_late_does_not_count() {
        let mut machine = Machine::new(SETTINGS);
        let slow = machine.admit(at(0)).unwrap();
        for _ in 0..SETTINGS.failures {
            let permit = machine.admit(at(0)).unwrap();
            machine.failed(&permit, at(0));
        }
        let trial = machine.admit(at(60)).unwrap();
        machine.failed(&slow, at(61));
        assert_eq!(machine.state(at(61)), BreakerState::HalfOpen);
        machine.succeeded(&trial);
        let trial = machine.admit(at(62)).unwrap();
        machine.succeeded(&trial);
        assert_eq!(machine.state(at(62)), BreakerState::Closed);
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_another() {
        let mut machine = opened();
        let first = machine.admit(at(30)).unwrap();
        let second = machine.admit(at(30)).unwrap();
        machine.given_up(&first);
        let third = machine.admit(at(31)).unwrap();
        machine.succeeded(&second);
        machine.succeeded(&third);
        assert_eq!(machine.state(at(31)), BreakerState::Closed);
    }

    /// Whatever happens: nobody is let through during a pause, and never more at once than trials in a half-open one.
    #[test]
    fn random_events_keep_the_promises() {
        for seed in 0..200 {
            let mut random = Random::from_seed(seed);
            let mut machine = Machine::new(SETTINGS);
            let mut now = Duration::ZERO;
            let mut running: Vec<(Permit, BreakerState)> = Vec::new();
            for step in 0..400 {
                now += Duration::from_millis(random.below(4_000));
                let before = machine.state(now);
                let context = format!("seed {seed}, step {step}");
                match random.below(5) {
                    0 | 1 => match machine.admit(now) {
                        Ok(permit) => {
                            assert_ne!(before, BreakerState::Open, "{context}");
                            running.push((permit, machine.state(now)));
                        }
                        Err(pause) => {
                            assert_ne!(before, BreakerState::Closed, "{context}");
                            assert!(pause <= SETTINGS.pause, "{context}");
                        }
                    },
                    what if !running.is_empty() => {
                        let which = random.below(running.len() as u64) as usize;
                        let (permit, _) = running.swap_remove(which);
                        match what {
                            2 => machine.succeeded(&permit),
                            3 => machine.failed(&permit, now),
                            _ => machine.given_up(&permit),
                        }
                    }
                    _ => {}
                }
                let trials = running
                    .iter()
                    .filter(|(permit, state)| {
                        permit.epoch == machine.epoch && *state == BreakerState::HalfOpen
                    })
                    .count();
                assert!(trials <= SETTINGS.trials as usize, "{context}");
            }
        }
    }
}
