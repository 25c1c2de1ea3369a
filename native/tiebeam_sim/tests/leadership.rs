//! Random worlds of leadership, on the core's engine and, with the feature `judge`, on the other one.
//!
//! `LEADERSHIP_SEEDS=1000 cargo test --release -p tiebeam_sim --test leadership` runs more of them.

#[cfg(feature = "judge")]
use tiebeam_sim::leadership::Judge;
use tiebeam_sim::leadership::figures::{End, failover, percentile};
use tiebeam_sim::leadership::{Engine, Kind, Plan, Tally, World, run_seeds};

use tiebeam_core::leadership::Replica;

fn seeds() -> u64 {
    let wanted = std::env::var("LEADERSHIP_SEEDS").ok();
    wanted.map_or(24, |count| {
        count.parse().expect("LEADERSHIP_SEEDS is a number")
    })
}

/// Nothing breaks in the worlds of a kind; what happened in them.
fn keeps_every_property_in<E: Engine>(kind: Kind, members: usize) -> Tally {
    keeps_every_property_in_all_of::<E>(kind, members, seeds())
}

fn keeps_every_property_in_all_of<E: Engine>(kind: Kind, members: usize, worlds: u64) -> Tally {
    let (broken, tally) = run_seeds::<E>(0, worlds, 2, |seed| kind(seed, members));
    let told: Vec<String> = broken
        .iter()
        .map(|(seed, broken)| format!("seed {seed} of {members} members: {broken}"))
        .collect();
    assert!(broken.is_empty(), "{}: {}", E::NAME, told.join("\n"));
    tally
}

fn keeps_every_property<E: Engine>(members: usize) {
    for kind in [Plan::random, Plan::elections, Plan::changing] {
        let tally = keeps_every_property_in::<E>(kind, members);
        // Worlds in which nothing happens keep every property too.
        assert!(
            tally.elections > seeds() && tally.commits > 100 * seeds(),
            "{tally:?}"
        );
        assert!(
            tally.crashes > seeds() && tally.leased > tally.time / 4,
            "{tally:?}"
        );
        if kind(0, members).operators.is_some() {
            changes_really_happen(&tally);
        }
    }
}

/// What the faults of some worlds are aimed at happens in them, and nothing breaks.
fn withstands_what_is_aimed_at_it(members: usize) {
    let tally = keeps_every_property_in::<Replica>(Plan::aimed, members);
    let worlds = seeds();
    let often = [
        (tally.struck, worlds, "leaders were struck"),
        (tally.uninstalled, worlds / 8, "snapshots were lost"),
        (tally.held, worlds, "messages met a busy link"),
        (tally.strange, worlds, "messages of a later version came"),
    ];
    for (count, least, what) in often {
        assert!(count >= least, "{what}: {count} of {least}, {tally:?}");
    }
}

#[test]
fn three_members_withstand_what_is_aimed_at_them() {
    withstands_what_is_aimed_at_it(3);
}

#[test]
fn five_members_withstand_what_is_aimed_at_them() {
    withstands_what_is_aimed_at_it(5);
}

/// Each at least this often in so many worlds.
fn changes_really_happen(tally: &Tally) {
    let worlds = seeds();
    let often = [
        (tally.installed, worlds, "snapshots were installed"),
        (tally.resumed, worlds, "members began with a snapshot"),
        (tally.changed, 2 * worlds, "changes were committed"),
        (tally.collided, worlds / 4, "changes met another one"),
        (tally.removed_leaders, worlds / 4, "leaders were removed"),
        (tally.wiped, worlds / 4, "disks were lost"),
        (tally.misdirected, worlds, "words to the lost came late"),
        (tally.failed_writes, worlds / 4, "writes failed"),
        (
            tally.untold,
            worlds / 24,
            "writes were done and not told of",
        ),
        (
            tally.left_by_others,
            worlds / 100,
            "joint configurations were left by a new leader",
        ),
    ];
    for (count, least, what) in often {
        assert!(count >= least, "{what}: {count} of {least}, {tally:?}");
    }
}

/// Worlds of elections are short: so many of them take seconds.
#[test]
fn a_thousand_worlds_of_elections_keep_every_property() {
    for members in [3, 5] {
        let tally = keeps_every_property_in_all_of::<Replica>(Plan::elections, members, 1000);
        assert!(
            tally.elections > 1000 && tally.crashes > 1000,
            "{members} members: {tally:?}"
        );
    }
}

#[test]
fn three_members_keep_every_property() {
    keeps_every_property::<Replica>(3);
}

#[test]
fn five_members_keep_every_property() {
    keeps_every_property::<Replica>(5);
}

#[cfg(feature = "judge")]
#[test]
fn the_judge_keeps_every_property() {
    for kind in [Plan::random, Plan::changing, Plan::aimed] {
        let (broken, tally) = run_seeds::<Judge>(0, seeds(), 2, |seed| kind(seed, 3));
        assert_eq!(broken, []);
        let compacts = kind(0, 3).compact.is_some();
        assert!(!compacts || tally.installed > seeds() / 2, "{tally:?}");
        if kind(0, 3).operators.is_some() {
            changes_really_happen(&tally);
        }
    }
}

/// What a disk said it has, it has: no group survives one that forgets, so a store must refuse to start on it. Here it does start, and
/// that is noticed.
#[test]
fn a_disk_that_forgets_what_it_synced_is_noticed() {
    let (broken, _) = run_seeds::<Replica>(0, seeds(), 2, |seed| Plan {
        forgets: 600,
        ..Plan::random(seed, 3)
    });
    println!(
        "{} of {} seeds: {:?}",
        broken.len(),
        seeds(),
        broken.first()
    );
    assert!(!broken.is_empty());
}

#[test]
fn a_seed_decides_everything() {
    let trace = |seed| {
        let mut world = World::<Replica>::new(Plan::random(seed, 3));
        world.run().unwrap();
        (world.trace(), *world.tally())
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

/// The figures of a quiet network with the settings for one data centre: elections after 200 to 400 ms.
#[test]
fn a_group_is_not_long_without_a_leader() {
    let count = 40;
    for (end, limit) in [
        (End::Killed, 800),
        (End::KilledWithHint, 800),
        (End::SteppedDown, 30),
    ] {
        let (elected, served) = failover::<Replica>(end, 3, count);
        assert_eq!(
            (elected.len() as u64, served.len() as u64),
            (count, count),
            "{end:?}"
        );
        assert!(
            percentile(&served, 99) < limit * 1000,
            "{end:?}: {served:?}"
        );
    }
    let (elected, _) = failover::<Replica>(End::KilledWithHint, 3, count);
    assert!(percentile(&elected, 50) < 60_000, "{elected:?}");
}
