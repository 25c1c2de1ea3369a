//! What grows with the number of members, and how: logarithms without floating point, the same on every machine.

use crate::time::Duration;

/// The logarithm of `n` to base 2, in units of 2^-20. Of 0 it is taken to be that of 1.
fn log2(n: u32) -> u64 {
    let n = n.max(1);
    let whole = u64::from(n.ilog2());
    // In units of 2^-31, from 1 to 2: squaring doubles the logarithm, and its next digit falls out.
    let mut rest = (u64::from(n) << 31) >> whole;
    let mut log = whole;
    for _ in 0..20 {
        rest = (rest * rest) >> 31;
        log <<= 1;
        if rest >= 1 << 32 {
            rest >>= 1;
            log |= 1;
        }
    }
    log
}

/// How long a suspicion lasts at least (memberlist: `suspicionTimeout`): `multiplier` periods, times the decimal
/// logarithm of the members where that is above 1.
pub(super) fn suspicion_min(multiplier: u32, members: u32, interval: Duration) -> Duration {
    // log10(2) = 30103 / 100000.
    let log10 = (log2(members) * 30_103 / 100_000).max(1 << 20);
    let product = u128::from(interval.as_micros()) * u128::from(multiplier) * u128::from(log10);
    let micros = product >> 20;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// How long a suspicion lasts with `confirmed` of `needed` confirmations (Lifeguard, section 3.2): from `max` down to
/// `min`, along a logarithm, so that the first confirmations count most.
pub(super) fn suspicion_timeout(
    min: Duration,
    max: Duration,
    confirmed: u32,
    needed: u32,
) -> Duration {
    if confirmed >= needed || max <= min {
        return min;
    }
    let span = u128::from(max.as_micros() - min.as_micros());
    let cut = span * u128::from(log2(confirmed + 1)) / u128::from(log2(needed + 1));
    Duration::from_micros(
        max.as_micros() - u64::try_from(cut).unwrap_or(u64::MAX).min(max.as_micros()),
    )
}

/// How often a word is passed on (SWIM, section 4.1: λ log n): `multiplier` times the number of decimal digits.
pub(super) fn retransmits(multiplier: u32, members: u32) -> u32 {
    multiplier.saturating_mul(members.max(1).ilog10() + 1)
}

/// The pause between two exchanges of tables (memberlist: `pushPullScale`): one more time for each doubling above 32
/// members, so that what all of them exchange grows slower than they do.
pub(super) fn sync_interval(interval: Duration, members: u32) -> Duration {
    let doublings = members.max(1).next_power_of_two().ilog2().saturating_sub(5);
    interval.times(u64::from(doublings) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_a_thousandth() {
        for n in [1_u32, 2, 3, 10, 50, 200, 1000, 4096, u32::MAX] {
            let expected = f64::from(n).log2();
            let got = log2(n) as f64 / f64::from(1 << 20);
            assert!((expected - got).abs() < 0.001, "{n}: {got}, not {expected}");
        }
        assert_eq!(log2(0), 0);
    }

    /// HashiCorp's table for its LAN profile: 4 s up to 10 members, 6.8 s at 50, 9.2 s at 200, 12 s at 1000.
    #[test]
    fn a_suspicion_lasts_as_long_as_in_memberlist() {
        let secs =
            |members| suspicion_min(4, members, Duration::from_secs(1)).as_micros() as f64 / 1e6;
        for (members, expected) in [(1, 4.0), (10, 4.0), (50, 6.8), (200, 9.2), (1000, 12.0)] {
            assert!(
                (secs(members) - expected).abs() < 0.05,
                "{members}: {}",
                secs(members)
            );
        }
        assert_eq!(
            suspicion_min(64, u32::MAX, Duration::from_micros(u64::MAX)),
            Duration::from_micros(u64::MAX)
        );
    }

    /// Lifeguard, section 3.2, with K = 3: the first confirmation takes half of the span, the third all that is left.
    #[test]
    fn confirmations_shorten_along_a_logarithm() {
        let (min, max) = (Duration::from_secs(4), Duration::from_secs(24));
        let secs = |confirmed| suspicion_timeout(min, max, confirmed, 3).as_micros() / 1000;
        assert_eq!(secs(0), 24_000);
        assert_eq!(secs(1), 14_000);
        assert!((8_100..8_200).contains(&secs(2)), "{}", secs(2));
        assert_eq!(secs(3), 4_000);
        assert_eq!(
            suspicion_timeout(min, max, 0, 0),
            min,
            "nobody could confirm"
        );
    }

    #[test]
    fn words_are_passed_on_more_often_in_large_clusters() {
        assert_eq!(
            [1, 9, 10, 99, 100].map(|n| retransmits(4, n)),
            [4, 4, 8, 8, 12]
        );
        assert_eq!(retransmits(4, 0), 4);
    }

    #[test]
    fn tables_are_exchanged_less_often_in_large_clusters() {
        let secs =
            |members| sync_interval(Duration::from_secs(30), members).as_micros() / 1_000_000;
        assert_eq!(
            [1, 32, 33, 64, 65, 1024].map(secs),
            [30, 30, 60, 60, 90, 180]
        );
    }
}
