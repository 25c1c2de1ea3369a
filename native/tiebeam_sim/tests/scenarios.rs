//! Single stories, told in full.

use tiebeam_core::{Duration, Instant, NodeName, Status};
use tiebeam_sim::{Fault, Plan, World, node};

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

/// `count` nodes that found each other over a network that loses nothing.
fn settled(count: usize) -> World {
    let mut world = World::new(Plan::quiet(1, count));
    world.run_until(at(60)).unwrap();
    world.check_agreement().unwrap();
    world
}

/// What `told` was told of `of`, in order: `["up", "down"]`.
fn story<'a>(world: &'a World, told: &NodeName, of: &NodeName) -> Vec<&'a str> {
    let (told, of) = (format!("{told}:"), format!("{of}#"));
    let lines = world
        .transcript()
        .lines()
        .map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>());
    lines
        .filter(|words| words[0] == told && words[2].starts_with(&of))
        .map(|words| words[1])
        .collect()
}

fn alive(world: &World, node: &NodeName) -> Vec<NodeName> {
    let view = world.view(node).unwrap();
    view.into_iter()
        .filter(|member| member.status == Status::Alive)
        .map(|member| member.node)
        .collect()
}

#[test]
fn ten_nodes_find_each_other_through_two_seeds_within_seconds() {
    let mut world = World::new(Plan::quiet(1, 10));
    world.run_until(at(10)).unwrap();
    world.check_agreement().unwrap();
}

#[test]
fn a_restart_is_down_then_up_exactly_once_for_everybody() {
    for pause in [
        Duration::ZERO,
        Duration::from_millis(5),
        Duration::from_secs(10),
        Duration::from_secs(300),
    ] {
        let mut world = settled(5);
        if pause == Duration::ZERO {
            // It is back before anybody could notice.
            world.apply(Fault::Restart(node(3))).unwrap();
        } else {
            world.apply(Fault::Crash(node(3))).unwrap();
            world.run_until(world.now() + pause).unwrap();
            world.apply(Fault::Restart(node(3))).unwrap();
        }
        world
            .run_until(world.now() + Duration::from_secs(120))
            .unwrap();
        world.check_agreement().unwrap();
        for observer in [0, 1, 2, 4].map(node) {
            // A suspicion may come before the end.
            let told = story(&world, &observer, &node(3));
            let told: Vec<&str> = told.into_iter().filter(|word| *word != "suspect").collect();
            assert_eq!(told, ["up", "down", "up"], "{observer} after {pause}");
        }
    }
}

#[test]
fn a_partition_heals_by_itself() {
    let mut world = settled(5);
    let sides = ([0, 1].map(node), [2, 3, 4].map(node));
    for a in &sides.0 {
        for b in &sides.1 {
            world.apply(Fault::Cut(a.clone(), b.clone())).unwrap();
        }
    }
    world
        .run_until(world.now() + Duration::from_secs(60))
        .unwrap();
    assert_eq!(alive(&world, &node(0)), sides.0);
    assert_eq!(alive(&world, &node(4)), sides.1);

    world.apply(Fault::Calm).unwrap();
    world
        .run_until(world.now() + Duration::from_secs(60))
        .unwrap();
    world.check_agreement().unwrap();
}

#[test]
fn a_leave_is_known_to_all_and_final() {
    let mut world = settled(4);
    world.apply(Fault::Leave(node(2))).unwrap();
    world
        .run_until(world.now() + Duration::from_secs(300))
        .unwrap();
    for observer in [0, 1, 3].map(node) {
        assert_eq!(story(&world, &observer, &node(2)), ["up", "left"]);
    }
}

#[test]
fn a_renewed_core_is_no_restart() {
    let mut world = settled(4);
    world.apply(Fault::Renew(node(2))).unwrap();
    world
        .run_until(world.now() + Duration::from_secs(60))
        .unwrap();
    world.check_agreement().unwrap();
    for observer in [0, 1, 3].map(node) {
        assert_eq!(story(&world, &observer, &node(2)), ["up", "refreshed"]);
    }
}

#[test]
fn two_clusters_on_one_mesh_stay_apart() {
    let mut plan = Plan::quiet(3, 6);
    for number in [1, 3, 5] {
        plan.hosts[number].cluster = "blue".to_owned();
    }
    plan.seeds = [0, 1].map(node).to_vec();
    let mut world = World::new(plan);
    world.run().unwrap();
    assert_eq!(alive(&world, &node(0)), [0, 2, 4].map(node));
    assert_eq!(alive(&world, &node(5)), [1, 3, 5].map(node));
    assert!(
        world
            .transcript()
            .contains("n0@sim: refused n1@sim of \"blue\"")
    );
    assert!(
        world
            .transcript()
            .contains("n1@sim: refused n0@sim of \"default\"")
    );
}

#[test]
fn garbage_is_noticed_and_harmless() {
    let mut world = settled(3);
    for _ in 0..100 {
        world
            .apply(Fault::Garble {
                from: node(0),
                to: node(1),
            })
            .unwrap();
        world
            .run_until(world.now() + Duration::from_secs(1))
            .unwrap();
    }
    assert_eq!(
        world
            .transcript()
            .matches("n1@sim: ignored n0@sim: malformed")
            .count(),
        100
    );
    world.check_agreement().unwrap();
}
