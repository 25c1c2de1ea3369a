//! Which worker gets the next request: a pure choice.

use tiebeam_core::Random;

/// How requests are spread over the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// To one after the other.
    #[default]
    RoundRobin,
    /// To any.
    Random,
    /// To the one with the fewest requests, and among several such to one after the other.
    LeastLoaded,
}

/// What the choice remembers.
#[derive(Debug)]
pub(super) struct Chooser {
    balance: Balance,
    /// Where round robin goes on.
    next: usize,
    random: Random,
}

/// Why nobody was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// All that run have as many requests as they may.
    Busy,
    /// None runs.
    Down,
}

impl Chooser {
    pub(super) fn new(balance: Balance, random: Random) -> Self {
        Self {
            balance,
            next: 0,
            random,
        }
    }

    /// Chooses among so many workers; `load` says how many requests one has, if it runs. One with `limit` of them is passed
    /// over.
    pub(super) fn choose(
        &mut self,
        workers: usize,
        limit: usize,
        load: impl Fn(usize) -> Option<usize>,
    ) -> Result<usize, Nobody> {
        let first = match self.balance {
            Balance::RoundRobin | Balance::LeastLoaded => self.next,
            Balance::Random => self.random.below(workers as u64) as usize,
        };
        let mut nobody = Nobody::Down;
        let mut best: Option<(usize, usize)> = None;
        for worker in (first..workers).chain(0..first.min(workers)) {
            let Some(load) = load(worker) else {
                continue;
            };
            nobody = Nobody::Busy;
            if load >= limit || best.is_some_and(|(least, _)| least <= load) {
                continue;
            }
            best = Some((load, worker));
            if self.balance != Balance::LeastLoaded || load == 0 {
                break;
            }
        }
        let (_, chosen) = best.ok_or(nobody)?;
        self.next = (chosen + 1) % workers;
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooser(balance: Balance) -> Chooser {
        Chooser::new(balance, Random::from_seed(1))
    }

    #[test]
    fn round_robin_passes_over_those_that_are_full_or_gone() {
        let mut chooser = chooser(Balance::RoundRobin);
        let loads = [Some(0), None, Some(5), Some(4)];
        let chosen: Vec<_> = (0..4)
            .map(|_| chooser.choose(4, 5, |worker| loads[worker]))
            .collect();
        assert_eq!(chosen, [Ok(0), Ok(3), Ok(0), Ok(3)]);
    }

    #[test]
    fn least_loaded_takes_the_least_and_spreads_the_rest() {
        let mut chooser = chooser(Balance::LeastLoaded);
        let loads = [Some(3), Some(1), Some(2)];
        assert_eq!(chooser.choose(3, 10, |worker| loads[worker]), Ok(1));
        let idle: Vec<_> = (0..4).map(|_| chooser.choose(3, 10, |_| Some(0))).collect();
        assert_eq!(idle, [Ok(2), Ok(0), Ok(1), Ok(2)]);
    }

    #[test]
    fn chance_reaches_every_worker() {
        let mut chooser = chooser(Balance::Random);
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            counts[chooser.choose(4, 1, |_| Some(0)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
    }

    #[test]
    fn nobody_is_chosen_where_all_are_full_and_where_none_runs() {
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastLoaded] {
            let mut chooser = chooser(balance);
            let full = chooser.choose(3, 2, |worker| (worker > 0).then_some(2));
            assert_eq!(full, Err(Nobody::Busy));
            assert_eq!(chooser.choose(3, 2, |_| None), Err(Nobody::Down));
            assert_eq!(chooser.choose(3, 2, |_| Some(1)).err(), None);
        }
    }
}
