//! Many random worlds. A failure names its seed and the command that replays it.

use tiebeam_sim::{Plan, World};

#[test]
fn two_hundred_seeds_keep_every_property() {
    const THREADS: u64 = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || (thread..200).step_by(THREADS as usize).for_each(run));
        }
    });
}

fn run(seed: u64) {
    let mut world = World::new(Plan::random(seed));
    if let Err(broken) = world.run() {
        panic!(
            "seed {seed}, at {}: {broken}\nreplay: cargo run -p tiebeam_sim -- --seed {seed}",
            world.now()
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(Plan::random(seed));
        world.run().unwrap();
        world.transcript().to_owned()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// The runs are worth something only if what they are about happens in them.
#[test]
fn the_random_worlds_are_eventful() {
    let mut seen = String::new();
    for seed in 0..20 {
        let mut world = World::new(Plan::random(seed));
        world.run().unwrap();
        seen.push_str(world.transcript());
    }
    for word in [
        ": up ",
        ": down ",
        ": left ",
        ": refreshed ",
        ": refused ",
        ": ignored ",
        "! cut ",
        "! crash ",
    ] {
        let count = seen.matches(word).count();
        assert!(count >= 20, "only {count} lines with {word:?} in 20 runs");
    }
}
