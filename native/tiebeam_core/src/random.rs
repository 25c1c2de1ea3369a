//! Chance from a seed: the same seed gives the same decisions, so a run can be replayed.

use crate::time::Duration;

/// A small generator (SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// It spreads load and breaks ties. It is no source of secrets.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose sequence is decided by `seed` alone.
    pub const fn from_seed(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: biased by at most bound / 2^64, which no use here can notice.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A span between half of `span` and `span`, so that nodes that start together do not stay in step.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        let half = span.as_micros() / 2;
        Duration::from_micros(span.as_micros() - self.below(half + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence_for_seed_zero() {
        let mut random = Random::from_seed(0);
        assert_eq!(random.bits(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.bits(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::from_seed(7);
        assert_eq!(random.below(0), 0);
        let seen = (0..1000)
            .map(|_| random.below(3))
            .fold([0; 3], |mut seen, n| {
                seen[n as usize] += 1;
                seen
            });
        assert!(seen.iter().all(|&count| count > 200), "{seen:?}");
    }

    #[test]
    fn jitter_is_between_half_and_whole() {
        let mut random = Random::from_seed(7);
        let span = Duration::from_micros(101);
        for _ in 0..1000 {
            let jittered = random.jitter(span).as_micros();
            assert!((51..=101).contains(&jittered), "{jittered}");
        }
        assert_eq!(random.jitter(Duration::ZERO), Duration::ZERO);
    }
}
