//! Back-off: how long to wait before the next attempt, as a value.

use std::time::Duration;

use tiebeam_core::Random;

/// Pauses between attempts, from the first to the longest.
///
/// A value: it knows no clock, and chance comes from the generator that it is given, so the same seed gives the same
/// pauses.
///
/// ```
/// use std::time::Duration;
/// use tiebeam_node::{Backoff, Jitter, Random};
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1)).jitter(Jitter::None);
/// let mut pauses = backoff.pauses(Random::from_seed(1));
/// let pauses: Vec<u128> = (0..5).map(|_| pauses.next_pause().as_millis()).collect();
/// assert_eq!(pauses, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    growth: Growth,
    jitter: Jitter,
}

/// How pauses grow while chance is left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Constant,
    Linear,
    Exponential,
}

/// How much of a pause is chance: those who failed together shall not come back together.
///
/// Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015, whose names these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Jitter {
    /// The whole pause, every time.
    None,
    /// Anything up to the pause: the least work for who is asked, but now and then almost no pause at all.
    #[default]
    Full,
    /// Between half of the pause and all of it.
    Equal,
    /// Between the first pause and three times the last one, whatever the growth; at most the longest.
    Decorrelated,
}

impl Backoff {
    /// No pause.
    pub const fn none() -> Self {
        Self::of(Duration::ZERO, Duration::ZERO, Growth::Constant)
    }

    /// The same pause every time. No jitter unless [`Backoff::jitter`] says so.
    pub const fn constant(pause: Duration) -> Self {
        Self::of(pause, pause, Growth::Constant)
    }

    /// One pause, two, three of them, up to `max`. No jitter unless [`Backoff::jitter`] says so.
    pub const fn linear(first: Duration, max: Duration) -> Self {
        Self::of(first, max, Growth::Linear)
    }

    /// One pause, two, four, eight of them, up to `max`. No jitter unless [`Backoff::jitter`] says so.
    pub const fn exponential(first: Duration, max: Duration) -> Self {
        Self::of(first, max, Growth::Exponential)
    }

    const fn of(first: Duration, max: Duration, growth: Growth) -> Self {
        Self {
            first,
            max,
            growth,
            jitter: Jitter::None,
        }
    }

    /// With this share of chance.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// No pause is longer.
    pub const fn longest(&self) -> Duration {
        self.max
    }

    /// Pauses one after the other, with chance from this generator.
    pub const fn pauses(self, random: Random) -> Pauses {
        Pauses {
            backoff: self,
            random,
            count: 0,
            last: Duration::ZERO,
        }
    }

    /// The pause before the attempt with this number, the first repetition being 0, without chance.
    pub(crate) fn plain(&self, count: u32) -> Duration {
        let pause = match self.growth {
            Growth::Constant => self.first,
            Growth::Linear => self.first.saturating_mul(count.saturating_add(1)),
            Growth::Exponential => self
                .first
                .saturating_mul(1_u32.checked_shl(count).unwrap_or(u32::MAX)),
        };
        pause.min(self.max)
    }

    /// The pause before the attempt with this number, the first repetition being 0, after a pause of `last`.
    pub(crate) fn pause(&self, count: u32, last: Duration, random: &mut Random) -> Duration {
        let plain = self.plain(count);
        match self.jitter {
            Jitter::None => plain,
            Jitter::Full => between(Duration::ZERO, plain, random),
            Jitter::Equal => between(plain / 2, plain, random),
            Jitter::Decorrelated => {
                let high = last.max(self.first).saturating_mul(3);
                between(self.first, high, random).min(self.max)
            }
        }
    }
}

/// A span from `low` to `high`, both included.
fn between(low: Duration, high: Duration, random: &mut Random) -> Duration {
    let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX - 1);
    low.saturating_add(Duration::from_nanos(random.below(span.saturating_add(1))))
}

/// The pauses of one series of attempts.
#[derive(Clone, Debug)]
pub struct Pauses {
    backoff: Backoff,
    random: Random,
    count: u32,
    last: Duration,
}

impl Pauses {
    /// How long to wait before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        self.last = self.backoff.pause(self.count, self.last, &mut self.random);
        self.count = self.count.saturating_add(1);
        self.last
    }

    /// All is well again: the next series begins with the first pause.
    pub fn reset(&mut self) {
        self.count = 0;
        self.last = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(2);

    fn millis(backoff: Backoff, count: usize) -> Vec<u128> {
        let mut pauses = backoff.pauses(Random::from_seed(1));
        (0..count)
            .map(|_| pauses.next_pause().as_millis())
            .collect()
    }

    #[test]
    fn each_growth_without_jitter() {
        assert_eq!(millis(Backoff::none(), 3), [0, 0, 0]);
        assert_eq!(millis(Backoff::constant(FIRST), 3), [100, 100, 100]);
        assert_eq!(
            millis(Backoff::linear(FIRST, Duration::from_millis(250)), 4),
            [100, 200, 250, 250]
        );
        assert_eq!(
            millis(Backoff::exponential(FIRST, MAX), 7),
            [100, 200, 400, 800, 1600, 2000, 2000]
        );
    }

    #[test]
    fn no_number_of_attempts_overflows() {
        let backoff = Backoff::exponential(FIRST, MAX);
        let mut random = Random::from_seed(1);
        for count in [31, 32, 63, 64, u32::MAX] {
            assert_eq!(backoff.pause(count, MAX, &mut random), MAX);
        }
        let long = Backoff::exponential(Duration::MAX, Duration::MAX).jitter(Jitter::Decorrelated);
        assert!(long.pause(u32::MAX, Duration::MAX, &mut random) <= Duration::MAX);
    }

    #[test]
    fn every_jitter_stays_within_its_bounds_and_uses_them() {
        type Bounds = fn(Duration, Duration) -> (Duration, Duration);
        let cases: [(Jitter, Bounds); 3] = [
            (Jitter::Full, |plain, _| (Duration::ZERO, plain)),
            (Jitter::Equal, |plain, _| (plain / 2, plain)),
            (Jitter::Decorrelated, |_, last| {
                (FIRST, (last.max(FIRST) * 3).min(MAX))
            }),
        ];
        for (jitter, bounds) in cases {
            let plain = Backoff::exponential(FIRST, MAX);
            let mut random = Random::from_seed(7);
            let (mut lowest, mut highest) = (1.0_f64, 0.0_f64);
            for _ in 0..500 {
                let mut last = Duration::ZERO;
                for count in 0..8 {
                    let whole = plain.pause(count, last, &mut random);
                    let (low, high) = bounds(whole, last);
                    let pause = plain.jitter(jitter).pause(count, last, &mut random);
                    assert!(low <= pause && pause <= high, "{jitter:?}: {pause:?}");
                    let share = (pause - low).as_secs_f64() / (high - low).as_secs_f64();
                    lowest = lowest.min(share);
                    highest = highest.max(share);
                    last = pause;
                }
            }
            assert!(lowest < 0.05 && highest > 0.95, "{jitter:?} is no chance");
        }
    }

    #[test]
    fn a_seed_decides_and_a_reset_begins_anew() {
        let backoff = Backoff::exponential(FIRST, MAX).jitter(Jitter::Full);
        assert_eq!(millis(backoff, 20), millis(backoff, 20));
        let mut pauses = Backoff::exponential(FIRST, MAX).pauses(Random::from_seed(1));
        assert_eq!(pauses.next_pause(), FIRST);
        assert_eq!(pauses.next_pause(), FIRST * 2);
        pauses.reset();
        assert_eq!(pauses.next_pause(), FIRST);
    }
}
