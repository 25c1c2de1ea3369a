//! Many random worlds. A failure names its seed and the command that replays it.

use tiebeam_sim::{Plan, World};

/// The runs are worth something only if what they are about happens in them.
#[test]
fn random_worlds_are_eventful_and_keep_every_property() {
    let (broken, tally) = tiebeam_sim::run_seeds(0, 256);
    assert!(
        broken.is_empty(),
        "{} broke:\n{}",
        broken.len(),
        broken.join("\n")
    );
    let core = tally.core;
    for (what, count) in [
        ("up", tally.up),
        ("down", tally.down),
        ("left", tally.left),
        ("refreshed", tally.refreshed),
        ("suspect", tally.suspect),
        ("recovered", tally.recovered),
        ("updated", tally.updated),
        ("contested", tally.contested),
        ("stalled", tally.stalled),
        ("broadcasts", tally.broadcasts),
        ("refused", tally.refused),
        ("ignored", tally.ignored),
        ("evictions", tally.evictions),
        ("evictions elsewhere", tally.evictions_elsewhere),
        ("observed", tally.observed),
        ("sampled", tally.sampled),
        ("lost", tally.lost),
        ("cut", tally.cut),
        ("duplicated", tally.duplicated),
        ("probes", core.probes),
        ("probes that failed", core.probes_failed),
        ("indirect probes", core.indirect),
        ("suspicions", core.suspicions),
        ("refutations", core.refutations),
        ("deaths", core.deaths),
        ("syncs", core.syncs),
        ("syncs of equal tables", core.syncs_equal),
    ] {
        assert!(
            count >= 50,
            "only {count} times {what} in all worlds: {tally:#?}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(Plan::random(seed));
        let outcome = world.run();
        (outcome, world.transcript().to_owned(), world.tally())
    };
    for seed in 0..8 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(7).1, run(8).1);
}
