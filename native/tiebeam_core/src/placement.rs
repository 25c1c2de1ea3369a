//! Where work goes: keys to partitions, and slots to nodes.
//!
//! All of it are functions of their arguments, the same on all nodes and in both languages: whoever has the same view decides the same. Hashes are
//! SipHash-2-4 with the key zero, over bytes that the callers agree on.
//!
//! A *task* has numbered slots: the partitions of a ring, the replicas of a pool, the one place of a singleton. At most one node has a slot; who does
//! is decided elsewhere, by claims. [`plan`] says what a node should let go and what it should ask for, so that all nodes together come to
//! an even spread in which nobody gives up more than it must.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::hash::siphash;
use crate::identity::NodeName;

/// The most slots of a task: each is a claim, and each node looks at all of them when somebody comes or goes.
pub const MAX_SLOTS: usize = 4096;

/// The partition of a key, from 0 to `partitions - 1`; 0 if there are none.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    // The high half of the product: even, without a division.
    ((u128::from(siphash(key)) * u128::from(partitions)) >> 64) as u32
}

/// How much `node` is meant for `key`: the greatest number has it ("rendezvous hashing"; Thaler and Ravishankar, 1998). When a node comes or goes,
/// only the keys that it gets or had change their place.
pub fn score(key: &[u8], node: &NodeName) -> u64 {
    let name = node.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(name.len() + 1 + key.len());
    bytes.extend_from_slice(name);
    // No node name has it, so no two pairs are the same bytes.
    bytes.push(0);
    bytes.extend_from_slice(key);
    siphash(&bytes)
}

/// The nodes, the one that is most meant for `key` first.
pub fn rank(key: &[u8], nodes: impl IntoIterator<Item = NodeName>) -> Vec<NodeName> {
    let scored = nodes.into_iter().map(|node| (score(key, &node), node));
    let mut scored: Vec<(u64, NodeName)> = scored.collect();
    scored.sort_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, node)| node).collect()
}

/// A task with slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task<'a> {
    /// Its name, in bytes that all nodes agree on.
    pub name: &'a [u8],
    /// The most slots that one node takes.
    pub most: usize,
}

impl Task<'_> {
    fn score(&self, slot: usize, node: &NodeName) -> u64 {
        let mut key = Vec::with_capacity(self.name.len() + 4);
        key.extend_from_slice(&(slot as u32).to_be_bytes());
        key.extend_from_slice(self.name);
        score(&key, node)
    }
}

/// What a node should do about the slots of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Let these go: others have too few.
    pub release: Vec<usize>,
    /// Ask for these, which are free.
    pub acquire: Vec<usize>,
}

/// What `me` should do, where `holders` has who holds each slot, and `nodes` can take slots. A node that is not among them lets go of
/// everything. What a node holds that is not among `nodes` is waited for.
///
/// Each node gets its even share, or as many as [`Task::most`] allows; where the shares differ by one, those that have more keep more. So if all
/// nodes follow their plans, nothing is left to do soon, and no slot moves but those that must.
pub fn plan(
    task: Task<'_>,
    holders: &[Option<NodeName>],
    nodes: &BTreeSet<NodeName>,
    me: &NodeName,
) -> Plan {
    let held_by = |node: &NodeName| holders.iter().flatten().filter(|at| *at == node).count();
    let mut mine: Vec<usize> = (0..holders.len())
        .filter(|&slot| holders[slot].as_ref() == Some(me))
        .collect();
    if !nodes.contains(me) {
        return Plan {
            release: mine,
            acquire: Vec::new(),
        };
    }
    // Those that have most, and then those that are most meant for the task, get the slots that do not divide.
    let mut shares: Vec<Share<'_>> = nodes
        .iter()
        .map(|node| Share {
            node,
            held: held_by(node),
            rank: score(task.name, node),
            quota: 0,
        })
        .collect();
    shares.sort_by(|a, b| (b.held, b.rank, b.node).cmp(&(a.held, a.rank, a.node)));
    let (even, over) = (holders.len() / shares.len(), holders.len() % shares.len());
    for (place, share) in shares.iter_mut().enumerate() {
        share.quota = (even + usize::from(place < over)).min(task.most);
    }
    let quota = shares
        .iter()
        .find(|share| share.node == me)
        .map_or(0, |share| share.quota);
    // It keeps what it is most meant for.
    mine.sort_by_key(|&slot| core::cmp::Reverse((task.score(slot, me), slot)));
    let mut release = mine.split_off(quota.min(mine.len()));
    release.sort_unstable();
    let mut acquire = Vec::new();
    for slot in (0..holders.len()).filter(|&slot| holders[slot].is_none()) {
        let wanting = shares.iter_mut().filter(|share| share.held < share.quota);
        let Some(share) = wanting.max_by_key(|share| (task.score(slot, share.node), share.node))
        else {
            break;
        };
        share.held += 1;
        if share.node == me {
            acquire.push(slot);
        }
    }
    Plan { release, acquire }
}

struct Share<'a> {
    node: &'a NodeName,
    held: usize,
    rank: u64,
    quota: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::format;
    use alloc::vec;
    use std::println;

    fn node(number: u64) -> NodeName {
        NodeName::parse(&format!("n{number}@host")).unwrap()
    }

    fn nodes(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<NodeName> {
        numbers.into_iter().map(node).collect()
    }

    /// All nodes follow their plans, in turns, until nobody has anything to do. Says how many slots changed their holder.
    fn settle(
        task: Task<'_>,
        holders: &mut [Option<NodeName>],
        nodes: &BTreeSet<NodeName>,
    ) -> usize {
        let before = holders.to_vec();
        for _ in 0..16 {
            let mut idle = true;
            for me in nodes {
                let plan = plan(task, holders, nodes, me);
                idle &= plan == Plan::default();
                for slot in plan.release {
                    assert_eq!(holders[slot].as_ref(), Some(me), "slot {slot} is its own");
                    holders[slot] = None;
                }
                for slot in plan.acquire {
                    assert_eq!(holders[slot], None, "slot {slot} is free");
                    holders[slot] = Some(me.clone());
                }
            }
            if idle {
                let moved = before.iter().zip(holders.iter()).filter(|(a, b)| a != b);
                return moved.count();
            }
        }
        panic!("the nodes never agree: {holders:?}");
    }

    fn counts(holders: &[Option<NodeName>], nodes: &BTreeSet<NodeName>) -> Vec<usize> {
        let count = |node| holders.iter().flatten().filter(|at| *at == node).count();
        nodes.iter().map(count).collect()
    }

    const RING: Task<'static> = Task {
        name: b"ring",
        most: MAX_SLOTS,
    };

    #[test]
    fn twelve_over_three_is_four_each_and_the_survivors_keep_their_own() {
        let mut holders = vec![None; 12];
        let three = nodes(1..=3);
        settle(RING, &mut holders, &three);
        assert_eq!(counts(&holders, &three), [4, 4, 4]);
        let before = holders.clone();
        let two = nodes(1..=2);
        for slot in holders.iter_mut().filter(|slot| **slot == Some(node(3))) {
            *slot = None;
        }
        settle(RING, &mut holders, &two);
        assert_eq!(counts(&holders, &two), [6, 6]);
        for (was, is) in before.iter().zip(&holders) {
            assert!(was == is || *was == Some(node(3)));
        }
    }

    #[test]
    fn who_joins_takes_its_share_and_nothing_else_moves() {
        for n in 2..=9 {
            let mut holders = vec![None; 256];
            settle(RING, &mut holders, &nodes(1..n));
            let all = nodes(1..=n);
            let moved = settle(RING, &mut holders, &all);
            let share = 256_usize.div_ceil(n as usize);
            assert!(moved <= share, "{moved} slots moved when node {n} came");
            let counts = counts(&holders, &all);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn replicas_are_on_different_nodes_and_wait_for_more_of_them() {
        let pool = Task {
            name: b"pool",
            most: 1,
        };
        let mut holders = vec![None; 3];
        settle(pool, &mut holders, &nodes(1..=2));
        assert_eq!(counts(&holders, &nodes(1..=2)), [1, 1]);
        let five = nodes(1..=5);
        assert_eq!(settle(pool, &mut holders, &five), 1, "only the missing one");
        assert_eq!(counts(&holders, &five).iter().sum::<usize>(), 3);
        assert!(counts(&holders, &five).iter().all(|&count| count <= 1));
    }

    #[test]
    fn who_may_not_have_slots_lets_go_of_them() {
        let mut holders = vec![None; 8];
        settle(RING, &mut holders, &nodes(1..=2));
        let mine = counts(&holders, &nodes([1]))[0];
        let plan = plan(RING, &holders, &nodes([2]), &node(1));
        assert_eq!((plan.release.len(), plan.acquire.len()), (mine, 0));
    }

    #[test]
    fn nodes_that_come_and_go_always_come_to_an_even_spread() {
        let seed = 20;
        println!("seed {seed}");
        let mut random = Random::from_seed(seed);
        for _ in 0..40 {
            let slots = 1 + random.below(300) as usize;
            let mut holders = vec![None; slots];
            for _ in 0..10 {
                let here: Vec<u64> = (0..12).filter(|_| random.below(2) == 0).collect();
                let here = nodes(here);
                if here.is_empty() {
                    continue;
                }
                for slot in &mut holders {
                    slot.take_if(|at| !here.contains(at));
                }
                settle(RING, &mut holders, &here);
                let counts = counts(&holders, &here);
                assert_eq!(counts.iter().sum::<usize>(), slots);
                assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn keys_spread_evenly_and_move_only_with_their_node() {
        let mut count = [0; 16];
        let keys = || (0..16_000_u32).map(u32::to_be_bytes);
        keys().for_each(|key| count[partition(&key, 16) as usize] += 1);
        assert!(
            count.iter().all(|count| (850..1150).contains(count)),
            "{count:?}"
        );
        assert_eq!(partition(b"key", 0), 0);
        let (three, two) = (nodes(1..=3), nodes(1..=2));
        for key in keys().take(1000) {
            let place = rank(&key, three.clone())[0].clone();
            let then = rank(&key, two.clone())[0].clone();
            assert!(place == node(3) || place == then);
        }
    }

    /// Members of other releases and in other languages have these too. They were computed by another implementation of SipHash.
    #[test]
    fn hashes_are_the_same_for_ever() {
        assert_eq!(partition(b"", 256), 30);
        assert_eq!(partition(b"user:1", 256), 35);
        assert_eq!(score(b"user:1", &node(1)), 0x70c7_228a_99c6_ea5b);
    }
}
