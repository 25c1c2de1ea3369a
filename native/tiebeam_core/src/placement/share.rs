//! How many slots each node should have: as its weight says, between bounds, in whole numbers.

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::identity::NodeName;

/// A node and its share.
#[derive(Debug)]
pub(super) struct Share<'a> {
    pub node: &'a NodeName,
    pub weight: i64,
    /// The number of preferences that it meets.
    pub preference: usize,
    /// How much the node is meant for the task: what decides where nothing else does.
    pub rank: u64,
    /// What it has or is to have by a pin, without what is pinned to others.
    pub kept: usize,
    /// It has no less and no more than these.
    pub least: usize,
    pub most: usize,
    /// What it should have.
    pub quota: usize,
    /// What it should have, in fractions: a multiple of what [`divide`] answers.
    pub fair: i64,
}

/// Gives each its quota of `slots`: what its weight gives it, rounded up or down, within its bounds. Where somebody must be rounded up, those that
/// have more already come first, then those that are preferred; `by_hand` the other way round. Answers the unit of [`Share::fair`]:
/// so much is one slot.
pub(super) fn divide(shares: &mut [Share<'_>], slots: usize, by_hand: bool) -> i64 {
    let mut fixed: Vec<bool> = shares.iter().map(|_| false).collect();
    let (left, weights) = loop {
        let free = || shares.iter().zip(&fixed).filter(|(_, fixed)| !**fixed);
        let bound: usize = shares
            .iter()
            .zip(&fixed)
            .filter(|(_, fixed)| **fixed)
            .map(|(share, _)| share.quota)
            .sum();
        let left = (slots as i64 - bound as i64).max(0);
        let weights: i64 = free().map(|(share, _)| share.weight).sum();
        // By how much each is outside its bounds, times the weights, so that no fraction is lost.
        let outside = |share: &Share<'_>| {
            let wanted = left * share.weight;
            // Not `clamp`, which panics where there is nothing between.
            let within = wanted
                .min(share.most as i64 * weights)
                .max(share.least as i64 * weights);
            within - wanted
        };
        let total: i64 = free().map(|(share, _)| outside(share)).sum();
        // The side that is further outside is right in any case, and what it takes or leaves may bring the others inside (as the flexible lengths
        // of CSS are resolved; CSS Flexible Box Layout, 9.7).
        let binds = |share: &Share<'_>| match outside(share) {
            0 => false,
            more if more > 0 => total >= 0,
            _ => total <= 0,
        };
        let binding: Vec<usize> = (0..shares.len())
            .filter(|&at| !fixed[at] && binds(&shares[at]))
            .collect();
        if binding.is_empty() {
            break (left, weights);
        }
        for at in binding {
            let share = &mut shares[at];
            let low = left * share.weight < share.least as i64 * weights;
            share.quota = if low { share.least } else { share.most };
            fixed[at] = true;
        }
    };
    let unit = weights.max(1);
    let mut over = left;
    for (share, fixed) in shares.iter_mut().zip(&fixed) {
        if *fixed {
            share.fair = share.quota as i64 * unit;
        } else {
            share.fair = left * share.weight;
            share.quota = (share.fair / unit) as usize;
            over -= share.quota as i64;
        }
    }
    let mut rounded: Vec<usize> = (0..shares.len())
        .filter(|&at| !fixed[at] && shares[at].fair % unit != 0)
        .collect();
    rounded.sort_by_key(|&at| {
        let share = &shares[at];
        let (has, wants) = (usize::from(share.kept > share.quota), share.preference);
        let first = if by_hand { (wants, has) } else { (has, wants) };
        Reverse((first, share.fair % unit, share.rank, share.node))
    });
    for &at in rounded.iter().take(over.max(0) as usize) {
        shares[at].quota += 1;
    }
    unit
}
