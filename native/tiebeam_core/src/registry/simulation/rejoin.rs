//! After a cut, what is sent grows with what changed meanwhile, not with the table.

use super::*;

/// Bytes that a node sends and receives to hold `names` names of another, and then to hold them again after a cut during
/// which `changed` of them were registered anew.
fn bytes(names: usize, changed: usize, log: usize) -> (u64, u64) {
    let limits = Limits {
        log,
        ..Limits::default()
    };
    let mut world = World::new(0, false);
    world.queue.clear();
    world.hosts = (0..2)
        .map(|number| Host::new(number, limits.clone()))
        .collect();
    world.links.clear();
    world.cuts.clear();
    (world.loss, world.calm, world.watch) = (0, true, false);
    (0..2).for_each(|node| world.hosts[node].start());
    let pid = world.hosts[0].spawn();
    let register = |world: &mut World, number: usize| {
        let name = format!("a name of usual length {number}").as_bytes().into();
        world.register(0, "plain".into(), name, pid.clone(), OnConflict::Notify);
    };
    (0..names).for_each(|number| register(&mut world, number));
    world.connect(0, 1);
    settle(&mut world);
    assert_eq!(world.hosts[1].table.len(), names);
    let first = core::mem::take(&mut world.sent);

    world.disconnect(0, 1);
    settle(&mut world);
    assert_eq!(
        world.hosts[1].table.len(),
        0,
        "the rows of a node that is down are gone"
    );
    for number in 0..changed {
        let name: Arc<[u8]> = format!("a name of usual length {number}").as_bytes().into();
        let scope = "plain".into();
        world.ask(
            0,
            Command::Unregister {
                scope,
                name,
                pid: None,
            },
        );
        register(&mut world, number);
    }
    settle(&mut world);
    world.sent = 0;
    world.connect(0, 1);
    settle(&mut world);
    same_tables::check(&world.hosts);
    assert_eq!(world.hosts[1].table.len(), names);
    (first, world.sent)
}

fn settle(world: &mut World) {
    for node in 0..2 {
        world.end_turn(node);
    }
    let end = world.now + Duration::from_secs(30);
    world.until(end);
}

#[test]
fn what_is_sent_grows_with_the_difference_and_not_with_the_table() {
    for (names, changed, log, most) in [
        // Nothing changed: a few words.
        (10_000, 0, MAX_LOG, 1000),
        (100_000, 0, 0, 1000),
        // The log has it: two operations for each name.
        (10_000, 10, MAX_LOG, 3500),
        (10_000, 1000, MAX_LOG, 250_000),
        // The log has nothing: digests of 256 ranges, of the parts of those that differ, and what is in these.
        (10_000, 10, 0, 25_000),
        (100_000, 10, 0, 50_000),
    ] {
        let (first, again) = bytes(names, changed, log);
        println!("{names} names: {first} bytes; {changed} changed, log {log}: {again} bytes");
        assert!(
            again <= most,
            "{again} bytes for {changed} changes of {names} names, log {log}"
        );
        assert!(
            first >= 50 * names as u64 && first <= 120 * names as u64,
            "{first} bytes at first"
        );
    }
}
