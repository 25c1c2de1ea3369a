//! How long to wait before the next look, and before the next attempt to reach a node. Pure: chance is an argument.

use std::time::Duration;

use crate::backoff::Backoff;

/// The shortest pause between two looks. A discovery that waits by itself hands on at most so many batches a second, so
/// that a flood of packets costs little.
const FLOOR: Duration = Duration::from_millis(10);

/// The first pause after a look that failed, where the interval is shorter: what is broken is not mended in less.
const FAILED_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after looks that failed: the time in which a mended resolver is noticed.
const FAILED_MAX: Duration = Duration::from_secs(60);

/// The pauses before a node that was not reached is dialled again. Half a minute is what a node that starts slowly waits at
/// most; a name that is in DNS for ever, and no node, costs two dials a minute.
const DIALS: Backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(30));

/// The pause before the next look, after so many that failed in succession. `chance` is between 0 and 1.
pub(super) fn pause(interval: Duration, failures: u32, chance: f64) -> Duration {
    let pause = match failures {
        0 => interval,
        _ => Backoff::exponential(interval.max(FAILED_FIRST), FAILED_MAX.max(interval))
            .plain(failures - 1),
    };
    spread(pause, chance).max(FLOOR)
}

/// The pause before a node is dialled again that was not reached so many times, at least one. `chance` is between 0 and 1.
pub(super) fn redial(failures: u32, chance: f64) -> Duration {
    spread(DIALS.plain(failures.saturating_sub(1)), chance)
}

/// A quarter more or less: nodes that started together do not go on in step.
fn spread(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_keep_their_interval_and_slow_down_while_they_fail() {
        let pauses = |interval, failures| pause(interval, failures, 0.5);
        assert_eq!(pauses(5 * SECOND, 0), 5 * SECOND);
        assert_eq!(pauses(5 * SECOND, 1), 5 * SECOND);
        assert_eq!(pauses(5 * SECOND, 3), 20 * SECOND);
        assert_eq!(pauses(5 * SECOND, u32::MAX), FAILED_MAX);
        // Longer than that by the user's will.
        assert_eq!(pauses(300 * SECOND, 7), 300 * SECOND);
        // One that waits by itself.
        assert_eq!(pauses(Duration::ZERO, 0), FLOOR);
        assert_eq!(pauses(Duration::ZERO, 1), SECOND);
    }

    #[test]
    fn a_node_that_is_not_reached_is_dialled_ever_less() {
        let pauses: Vec<_> = (1..8)
            .map(|failures| redial(failures, 0.5).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn chance_moves_a_pause_by_a_quarter_either_way() {
        assert_eq!(pause(4 * SECOND, 0, 0.0), 3 * SECOND);
        assert_eq!(pause(4 * SECOND, 0, 1.0), 5 * SECOND);
        assert_eq!(redial(1, 7.0), redial(1, 1.0));
    }
}
