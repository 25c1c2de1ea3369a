//! Cuts of a network by hand: who can still be served is, and at every moment at most one member holds a lease, which the
//! world itself looks at after each event.

use tiebeam_core::Duration;
use tiebeam_core::leadership::Replica;
use tiebeam_sim::leadership::{Plan, World};

const SEEDS: u64 = 8;

const SECOND: u64 = 1_000_000;

/// A world that has a leader, and the others.
fn led(seed: u64, members: usize) -> (World<Replica>, usize, Vec<usize>) {
    let plan = Plan {
        quiet: Duration::ZERO,
        ..Plan::quiet(seed, members)
    };
    let mut world = World::new(plan);
    world.run_until(2 * SECOND).unwrap();
    let leader = world.leader().unwrap();
    let others = (0..members).filter(|&member| member != leader).collect();
    (world, leader, others)
}

/// Ten seconds, of which the first is for an election if one is needed. Says how many changes clients were told of after it.
fn served(world: &mut World<Replica>) -> u64 {
    world.run_until(3 * SECOND).unwrap();
    let before = world.tally().changes;
    world.run_until(12 * SECOND).unwrap();
    world.tally().changes - before
}

/// The scenario in which an election by connections has two leaders for all of the ten seconds.
#[test]
fn a_leader_cut_off_from_four_is_replaced_once_and_steps_down() {
    for seed in 0..SEEDS {
        let (mut world, leader, others) = led(seed, 5);
        let elections = world.tally().elections;
        for &other in &others {
            world.cut(leader, other);
            world.cut(other, leader);
        }
        assert!(served(&mut world) > 1000, "seed {seed}");
        let now = world.leader().unwrap();
        assert!(
            now != leader && world.tally().elections == elections + 1,
            "seed {seed}"
        );
        world.mend();
        world.run_until(14 * SECOND).unwrap();
        assert_eq!(
            (world.leader(), world.tally().elections),
            (Some(now), elections + 1),
            "seed {seed}"
        );
    }
}

#[test]
fn a_leader_with_a_majority_stays() {
    for seed in 0..SEEDS {
        let (mut world, leader, others) = led(seed, 5);
        let elections = world.tally().elections;
        for &lost in &others[..2] {
            for member in [leader, others[2], others[3]] {
                world.cut(member, lost);
                world.cut(lost, member);
            }
        }
        assert!(served(&mut world) > 1000, "seed {seed}");
        world.mend();
        world.run_until(14 * SECOND).unwrap();
        assert_eq!(
            (world.leader(), world.tally().elections),
            (Some(leader), elections),
            "seed {seed}"
        );
    }
}

#[test]
fn a_leader_that_cannot_send_or_cannot_hear_is_replaced() {
    for seed in 0..SEEDS {
        for deaf in [false, true] {
            let (mut world, leader, others) = led(seed, 3);
            for &other in &others {
                if deaf {
                    world.cut(other, leader)
                } else {
                    world.cut(leader, other)
                }
            }
            assert!(served(&mut world) > 1000, "seed {seed}, deaf: {deaf}");
            assert_ne!(world.leader(), Some(leader), "seed {seed}, deaf: {deaf}");
        }
    }
}

/// Two that cannot hear each other, and a third that hears both: no third election follows from the one that is needed.
#[test]
fn a_chain_is_served_by_whoever_leads() {
    for seed in 0..SEEDS {
        let (mut world, leader, others) = led(seed, 3);
        let elections = world.tally().elections;
        world.cut(leader, others[0]);
        world.cut(others[0], leader);
        assert!(served(&mut world) > 1000, "seed {seed}");
        assert_eq!(
            (world.leader(), world.tally().elections),
            (Some(leader), elections),
            "seed {seed}"
        );
    }
}

/// Only one of five hears everybody, and it does not lead: it is elected, though all others lost their majority.
#[test]
fn the_one_that_hears_everybody_is_elected() {
    for seed in 0..SEEDS {
        let (mut world, _, others) = led(seed, 5);
        let hub = others[0];
        for a in (0..5).filter(|&member| member != hub) {
            for b in (0..5).filter(|&member| member != hub && member != a) {
                world.cut(a, b);
            }
        }
        assert!(served(&mut world) > 500, "seed {seed}");
        assert_eq!(world.leader(), Some(hub), "seed {seed}");
    }
}

/// One whose links come and go takes part in no election, for it asks first (9.6) and the others hear their leader.
#[test]
fn a_member_whose_links_flap_raises_no_terms() {
    for seed in 0..SEEDS {
        let (mut world, leader, others) = led(seed, 5);
        let (elections, term, flaps) = (world.tally().elections, world.led(), others[0]);
        for round in 0..30 {
            for member in (0..5).filter(|&member| member != flaps) {
                world.cut(flaps, member);
                world.cut(member, flaps);
            }
            let away = 100_000 + (seed + round) * 37_000 % 700_000;
            world.run_until(world.now() + away).unwrap();
            world.mend();
            let back = 10_000 + (seed + round) * 53_000 % 400_000;
            world.run_until(world.now() + back).unwrap();
        }
        assert_eq!(
            (world.leader(), world.led(), world.tally().elections),
            (Some(leader), term, elections),
            "seed {seed}"
        );
    }
}

/// One that was removed while it could not hear it does not know, and disturbs nobody when it is back (4.2.3).
#[test]
fn a_removed_member_that_does_not_know_raises_no_terms() {
    for seed in 0..SEEDS {
        let (mut world, leader, others) = led(seed, 3);
        let (elections, term, gone) = (world.tally().elections, world.led(), others[0]);
        for member in [leader, others[1]] {
            world.cut(gone, member);
            world.cut(member, gone);
        }
        assert!(world.remove(gone), "seed {seed}");
        world.run_until(6 * SECOND).unwrap();
        world.mend();
        world.run_until(12 * SECOND).unwrap();
        assert_eq!(
            (world.leader(), world.led(), world.tally().elections),
            (Some(leader), term, elections),
            "seed {seed}"
        );
    }
}
