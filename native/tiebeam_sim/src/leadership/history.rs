//! What clients saw, and whether one register could have shown it to them (Herlihy and Wing, "Linearizability", 1990).
//!
//! The search is that of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017): take any operation
//! that began before the first of the others ended, see whether its outcome fits, go on with the rest; never try the same
//! rest with the same value twice. Keys are independent, so each is looked at by itself.

use std::collections::HashSet;

use super::store::{Operation, Outcome};

/// An operation, and when it began and ended.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) key: u8,
    pub(super) operation: Operation,
    pub(super) began: u64,
    /// `None` as long as nobody knows: it may have happened, may still happen, or never.
    pub(super) ended: Option<(u64, Outcome)>,
}

/// After so many steps the search gives up: undecided, which counts as broken, so that no run passes unseen.
const MAX_STEPS: usize = 2_000_000;

/// Everything that all clients saw.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) calls: Vec<Call>,
}

impl History {
    /// Says which key shows what no register can show.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut keys: Vec<u8> = self.calls.iter().map(|call| call.key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let mut calls: Vec<&Call> = self
                .calls
                .iter()
                .filter(|call| call.key == key)
                .filter(|call| call.ended.is_some() || call.operation != Operation::Read)
                .collect();
            calls.sort_by_key(|call| call.began);
            if !linearizable(&calls)? {
                return Err(format!(
                    "key {key}: no order of {} operations explains what was read",
                    calls.len()
                ));
            }
        }
        Ok(())
    }
}

/// The value after the operation, if its outcome fits.
fn fits(call: &Call, value: u64) -> Option<u64> {
    let outcome = call.ended.map(|(_, outcome)| outcome);
    match (call.operation, outcome) {
        (Operation::Put(new), _) => Some(new),
        (Operation::Cas { expected, new }, None) => {
            Some(if value == expected { new } else { value })
        }
        (Operation::Cas { expected, new }, Some(Outcome::Swapped(swapped))) => {
            ((value == expected) == swapped).then_some(if swapped { new } else { value })
        }
        (Operation::Read, Some(Outcome::Value(read))) => (read == value).then_some(value),
        (Operation::Cas { .. } | Operation::Read, _) => None,
    }
}

fn linearizable(calls: &[&Call]) -> Result<bool, String> {
    let ends: Vec<u64> = calls
        .iter()
        .map(|call| call.ended.map_or(u64::MAX, |(at, _)| at))
        .collect();
    let certain = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut taken = vec![0_u64; calls.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, u64)> = HashSet::new();
    // What was taken, with the value before it and where to go on if it was wrong.
    let mut path: Vec<(usize, u64)> = Vec::new();
    let (mut value, mut from, mut done, mut first) = (0, 0, 0, 0);
    for _ in 0..MAX_STEPS {
        if done == certain {
            return Ok(true);
        }
        while first < calls.len() && taken[first / 64] >> (first % 64) & 1 == 1 {
            first += 1;
        }
        // Nothing that begins after another one has ended can be next.
        let mut limit = u64::MAX;
        for at in first..calls.len() {
            if calls[at].began > limit {
                break;
            }
            if taken[at / 64] >> (at % 64) & 1 == 0 {
                limit = limit.min(ends[at]);
            }
        }
        let mut next = None;
        for at in from.max(first)..calls.len() {
            if calls[at].began > limit {
                break;
            }
            if taken[at / 64] >> (at % 64) & 1 == 1 {
                continue;
            }
            if let Some(after) = fits(calls[at], value) {
                taken[at / 64] |= 1 << (at % 64);
                if seen.insert((taken.clone(), after)) {
                    next = Some((at, after));
                    break;
                }
                taken[at / 64] &= !(1 << (at % 64));
            }
        }
        if let Some((at, after)) = next {
            path.push((at, value));
            done += usize::from(calls[at].ended.is_some());
            (value, from) = (after, 0);
        } else {
            let Some((at, before)) = path.pop() else {
                return Ok(false);
            };
            taken[at / 64] &= !(1 << (at % 64));
            done -= usize::from(calls[at].ended.is_some());
            (value, from, first) = (before, at + 1, 0);
        }
    }
    Err(format!(
        "undecided after {MAX_STEPS} steps over {} operations",
        calls.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, began: u64, ended: Option<(u64, Outcome)>) -> Call {
        Call {
            key: 0,
            operation,
            began,
            ended,
        }
    }

    fn check(calls: Vec<Call>) -> bool {
        History { calls }.check().is_ok()
    }

    #[test]
    fn a_read_sees_what_was_put_before_it() {
        let put = call(Operation::Put(1), 0, Some((5, Outcome::Done)));
        let read = |began, value| {
            call(
                Operation::Read,
                began,
                Some((began + 2, Outcome::Value(value))),
            )
        };
        assert!(check(vec![put.clone(), read(6, 1)]));
        assert!(!check(vec![put.clone(), read(6, 0)]), "stale");
        assert!(check(vec![put.clone(), read(3, 0)]) && check(vec![put.clone(), read(3, 1)]));
        assert!(
            !check(vec![put, read(1, 1), read(4, 0)]),
            "once seen, always seen"
        );
    }

    #[test]
    fn what_nobody_knows_may_happen_at_any_time_or_never() {
        let put = call(Operation::Put(1), 0, None);
        let read = |began, value| {
            call(
                Operation::Read,
                began,
                Some((began + 1, Outcome::Value(value))),
            )
        };
        assert!(check(vec![put.clone(), read(5, 0), read(9, 1)]));
        assert!(check(vec![put.clone(), read(5, 0), read(9, 0)]));
        assert!(!check(vec![put, read(5, 1), read(9, 0)]));
    }

    #[test]
    fn of_two_swaps_of_one_value_one_fails() {
        let swap = |new, swapped| {
            let operation = Operation::Cas { expected: 0, new };
            call(operation, 0, Some((9, Outcome::Swapped(swapped))))
        };
        assert!(check(vec![swap(1, true), swap(2, false)]));
        assert!(!check(vec![swap(1, true), swap(2, true)]));
        assert!(!check(vec![swap(1, false), swap(2, false)]));
    }
}
