//! Places of keys, and plans of nodes that are all alike.

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
fn settle(task: Task<'_>, holders: &mut [Option<NodeName>], nodes: &BTreeSet<NodeName>) -> usize {
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
