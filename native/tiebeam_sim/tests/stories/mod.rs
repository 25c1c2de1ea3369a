//! Small stories with an end that has to be good.

use tiebeam_core::{Duration, Kind, Status, Timing};
use tiebeam_sim::{Conditions, Detail, Fault, Lane, Plan, Record, Told, Tune, World, node};

/// What happens for a seed, with configurations changed in one way: what went wrong.
pub(crate) type Story = fn(u64, Tune) -> Result<(), String>;

/// All of them, by name.
pub(crate) const ALL: [(&str, Story); 25] = [
    ("loss", loss),
    ("stalls", stalls),
    ("pauses", pauses),
    ("death_in_time", death_in_time),
    ("death_under_loss", death_under_loss),
    ("stale_death", stale_death),
    ("return_of_the_dead", return_of_the_dead),
    ("healed_partition", healed_partition),
    ("missed_change", missed_change),
    ("many_changes", many_changes),
    ("restart", restart),
    ("leave", leave),
    ("cut_link", cut_link),
    ("closed_link", closed_link),
    ("health_of_survivors", health_of_survivors),
    ("slow_member", slow_member),
    ("deaf_but_for_one", deaf_but_for_one),
    ("deaf_until_the_end", deaf_until_the_end),
    ("deaf_for_long", deaf_for_long),
    ("blame", blame),
    ("unwell", unwell),
    ("plain_and_one_deaf_guardian", plain_and_one_deaf_guardian),
    ("plain_under_loss", plain_under_loss),
    ("minority", minority),
    ("hung_driver", hung_driver),
];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn settled(mut plan: Plan, tune: Tune) -> World {
    let count = plan.hosts.len();
    plan.tune = Some(tune);
    let mut world = World::new(plan);
    world
        .run_while(secs(120), |world| !world.all_see(count))
        .unwrap();
    world.run_for(secs(20)).unwrap();
    world.forget_records();
    world
}

fn fast(seed: u64, count: usize) -> Plan {
    Plan {
        timing: Timing::fast(),
        ..Plan::measured(seed, count)
    }
}

fn verdict(told: Told) -> bool {
    matches!(told, Told::Down | Told::Contested(_))
}

fn none(what: &str, mut records: impl Iterator<Item = Record>) -> Result<(), String> {
    match records.next() {
        None => Ok(()),
        Some(record) => Err(format!("{what}: {record:?}")),
    }
}

/// Verdicts on members that run.
fn wrong(world: &World) -> impl Iterator<Item = Record> {
    world
        .records()
        .iter()
        .copied()
        .filter(|one| verdict(one.told) && one.running)
}

/// Nothing but loss: nobody is declared dead.
pub(crate) fn loss(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        conditions: Conditions::lossy(30),
        ..fast(seed, 48)
    };
    let mut world = settled(plan, tune);
    world.run_for(secs(150)).unwrap();
    none("a verdict on a member that runs", wrong(&world))
}

/// Drivers that stand still blame nobody else.
pub(crate) fn stalls(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(Plan::measured(seed, 32), tune);
    for member in 4..10 {
        world.run_for(millis(700)).unwrap();
        let (stalled, awake) = (secs(8), millis(20));
        world
            .apply(Fault::Wedge {
                node: node(member),
                stalled,
                awake,
            })
            .unwrap();
    }
    world.run_for(secs(120)).unwrap();
    none(
        "a verdict on one that never stood still",
        wrong(&world).filter(|one| !(4..10).contains(&one.of)),
    )
}

/// A process that stands still for long finds nobody dead when it goes on.
pub(crate) fn pauses(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 16), tune);
    for round in 0..20 {
        world
            .apply(Fault::Pause(
                node(3 + round % 3),
                millis(1500 + 100 * round as u64),
            ))
            .unwrap();
        world.run_for(secs(10)).unwrap();
    }
    none(
        "a verdict on one that never stood still",
        wrong(&world).filter(|one| !(3..6).contains(&one.of)),
    )
}

fn death(plan: Plan, tune: Tune, first: Duration, last: Duration) -> Result<(), String> {
    let count = plan.hosts.len();
    let mut world = settled(plan, tune);
    let since = world.now();
    world.apply(Fault::Vanish(node(5))).unwrap();
    world.run_for(secs(60)).unwrap();
    let mut known: Vec<Option<Duration>> = vec![None; count];
    for one in world
        .records()
        .iter()
        .filter(|one| one.of == 5 && verdict(one.told))
    {
        known[one.node].get_or_insert(one.at.since(since));
    }
    known.remove(5);
    let known = known
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or("not all know")?;
    match (known.iter().min(), known.iter().max()) {
        (Some(&one), Some(&all)) if one <= first && all <= last => Ok(()),
        times => Err(format!("first and last known after {times:?}")),
    }
}

/// Who vanishes is known to have vanished, in time.
pub(crate) fn death_in_time(seed: u64, tune: Tune) -> Result<(), String> {
    death(Plan::measured(seed, 32), tune, secs(13), secs(14))
}

/// Also while messages are lost.
pub(crate) fn death_under_loss(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        conditions: Conditions::lossy(10),
        ..Plan::measured(seed, 32)
    };
    death(plan, tune, secs(14), secs(15))
}

/// What was said while a member was dead is said again when it is back.
pub(crate) fn stale_death(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 12), tune);
    world.start_recording();
    world.apply(Fault::Pause(node(3), secs(20))).unwrap();
    world.run_for(secs(19)).unwrap();
    let recorded = world.stop_recording();
    world.run_for(secs(90)).unwrap();
    if !world.all_see(12) {
        return Err("it is not back".to_owned());
    }
    world.forget_records();
    for (from, to, bytes) in recorded {
        world.inject(from, to, bytes);
    }
    world.run_for(secs(60)).unwrap();
    match world.tally().suspect {
        0 => none("a verdict on a member that runs", wrong(&world)),
        suspect => Err(format!("{suspect} were told of a suspicion")),
    }
}

/// A member that was declared dead comes back.
pub(crate) fn return_of_the_dead(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 8), tune);
    world.apply(Fault::Pause(node(3), secs(20))).unwrap();
    world.run_for(secs(60)).unwrap();
    let down = world
        .records()
        .iter()
        .filter(|one| one.of == 3 && one.told == Told::Down)
        .count();
    match (down >= 7, world.all_see(8)) {
        (true, true) => Ok(()),
        seen => Err(format!("down, and back: {seen:?}")),
    }
}

/// Two halves that held each other for dead become one again, by themselves.
pub(crate) fn healed_partition(seed: u64, tune: Tune) -> Result<(), String> {
    let mut plan = fast(seed, 12);
    plan.conditions.notice = secs(10);
    plan.seeds.truncate(1);
    let mut world = settled(plan, tune);
    world
        .apply(Fault::Split((6..12).map(node).collect()))
        .unwrap();
    world.run_for(secs(90)).unwrap();
    // Seeds are dialled for other reasons.
    world.apply(Fault::Unite).unwrap();
    for other in 6..12 {
        world.apply(Fault::Cut(node(0), node(other))).unwrap();
    }
    world.run_for(secs(40)).unwrap();
    let view = world.view(&node(7)).unwrap();
    let seen = view
        .iter()
        .filter(|one| one.status == Status::Alive)
        .count();
    if seen >= 11 {
        Ok(())
    } else {
        Err(format!("n7 sees {seen} of 12"))
    }
}

/// Who was deaf while something was told learns it all the same.
pub(crate) fn missed_change(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 16), tune);
    datagrams(&mut world);
    deafen(&mut world, 16, 9, None);
    world
        .apply(Fault::Broadcast(node(3), vec![0, 0, 0, 0, 0, 0, 0, 42]))
        .unwrap();
    world.run_for(millis(900)).unwrap();
    world.apply(Fault::Unite).unwrap();
    world.run_for(secs(120)).unwrap();
    let heard = world
        .records()
        .iter()
        .any(|one| one.node == 9 && one.told == Told::Broadcast(42));
    if heard {
        Ok(())
    } else {
        Err("n9 never heard of it".to_owned())
    }
}

/// What is told while messages are lost reaches everybody, without any tables.
pub(crate) fn many_changes(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        conditions: Conditions::lossy(30),
        timing: Timing {
            sync_interval: secs(100_000),
            ..Timing::fast()
        },
        ..Plan::measured(seed, 48)
    };
    let mut world = settled(plan, tune);
    let mut missed = 0;
    for number in 1..=150_u64 {
        world
            .apply(Fault::SetMetadata(node(3), number.to_be_bytes().to_vec()))
            .unwrap();
        world.run_for(millis(1500)).unwrap();
        for host in 0..48 {
            let view = world.view(&node(host)).unwrap();
            let known = view
                .iter()
                .any(|one| one.node == node(3) && *one.metadata == number.to_be_bytes());
            missed += usize::from(!known);
        }
    }
    if missed <= 3 {
        Ok(())
    } else {
        Err(format!("{missed} of 7200 missed"))
    }
}

/// A restart is down and up, once.
pub(crate) fn restart(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 8), tune);
    world.apply(Fault::Restart(node(3))).unwrap();
    world.run_for(secs(30)).unwrap();
    for other in (0..8).filter(|&other| other != 3) {
        let told: Vec<Told> = world
            .records()
            .iter()
            .filter(|one| one.node == other && one.of == 3)
            .map(|one| one.told)
            .collect();
        let told: Vec<Told> = told
            .into_iter()
            .filter(|told| matches!(told, Told::Up | Told::Down))
            .collect();
        if told != [Told::Down, Told::Up] {
            return Err(format!("n{other} was told {told:?}"));
        }
    }
    Ok(())
}

/// Who leaves has left, at once and for all.
pub(crate) fn leave(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 8), tune);
    world.apply(Fault::Leave(node(3))).unwrap();
    world.run_for(millis(100)).unwrap();
    for other in (0..8).filter(|&other| other != 3) {
        let told: Vec<Told> = world
            .records()
            .iter()
            .filter(|one| one.node == other && one.of == 3)
            .map(|one| one.told)
            .collect();
        if told != [Told::Left] {
            return Err(format!("n{other} was told {told:?}"));
        }
    }
    Ok(())
}

/// A way between two members that is cut is nobody's suspicion.
pub(crate) fn cut_link(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        detail: Detail::Full,
        ..fast(seed, 8)
    };
    let mut world = settled(plan, tune);
    world.apply(Fault::Cut(node(3), node(5))).unwrap();
    world.run_for(secs(60)).unwrap();
    none(
        "a suspicion",
        world
            .records()
            .iter()
            .copied()
            .filter(|one| one.told == Told::Suspect),
    )
}

/// The end of a connection between two members that live is no death.
pub(crate) fn closed_link(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 8), tune);
    for round in 0..10 {
        world
            .apply(Fault::Disconnect(node(round % 8), node((round + 3) % 8)))
            .unwrap();
        world.run_for(secs(5)).unwrap();
    }
    none("a verdict on a member that runs", wrong(&world))
}

/// Who finds a member dead is well itself.
pub(crate) fn health_of_survivors(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(Plan::measured(seed, 16), tune);
    world.apply(Fault::Vanish(node(5))).unwrap();
    for _ in 0..20 {
        world.run_for(secs(1)).unwrap();
        for host in (0..16).filter(|&host| host != 5) {
            let multiplier = world.health(&node(host)).unwrap().multiplier;
            if multiplier > 2 {
                return Err(format!("n{host} has {multiplier}"));
            }
        }
    }
    Ok(())
}

/// A member that misses most of what is sent to it blames itself: it raises few suspicions.
pub(crate) fn slow_member(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(Plan::measured(seed, 16), tune);
    datagrams(&mut world);
    let before = world.metrics(&node(5)).unwrap().suspicions;
    for _ in 0..40 {
        deafen(&mut world, 16, 5, None);
        world.run_for(millis(2000)).unwrap();
        world.apply(Fault::Unite).unwrap();
        world.run_for(millis(500)).unwrap();
    }
    let raised = world.metrics(&node(5)).unwrap().suspicions - before;
    if raised <= 20 {
        Ok(())
    } else {
        Err(format!("{raised} suspicions"))
    }
}

/// From now on messages are datagrams: over a connection, what is cut off is heard later.
fn datagrams(world: &mut World) {
    world
        .apply(Fault::Weather(Conditions {
            lane: Lane::Datagram,
            ..Conditions::lan()
        }))
        .unwrap();
}

/// One of `count` hears none of the others, but for `spared`, and goes on speaking.
fn deafen(world: &mut World, count: usize, deaf: usize, spared: Option<usize>) {
    for other in (0..count).filter(|&other| other != deaf && Some(other) != spared) {
        world
            .apply(Fault::CutOneWay {
                from: node(other),
                to: node(deaf),
            })
            .unwrap();
    }
}

/// Waits until `host` suspects somebody, and answers whom first.
fn suspect_of(world: &mut World, host: usize) -> Result<usize, String> {
    let suspect = |world: &World| {
        world
            .records()
            .iter()
            .find(|one| one.node == host && one.told == Told::Suspect)
            .map(|one| one.of)
    };
    world
        .run_while(secs(10), |world| suspect(world).is_none())
        .unwrap();
    suspect(world).ok_or_else(|| "it suspects nobody".to_owned())
}

/// One of many hears nothing for `span`, and goes on speaking.
fn deaf(seed: u64, tune: Tune, span: Duration) -> Result<(), String> {
    let mut world = settled(Plan::measured(seed, 96), tune);
    deafen(&mut world, 96, 9, None);
    // Over a connection it would hear all of it later.
    datagrams(&mut world);
    world.run_for(span).unwrap();
    world.apply(Fault::Unite).unwrap();
    world.run_for(secs(60)).unwrap();
    none(
        "a verdict on a member that runs",
        wrong(&world).filter(|one| one.of != 9),
    )
}

/// It hears nothing for longer than the shortest suspicion, but nobody confirms what it suspects.
pub(crate) fn deaf_for_long(seed: u64, tune: Tune) -> Result<(), String> {
    deaf(seed, tune, secs(13))
}

/// One of many is deaf for a moment, suspects somebody, and hears from then on nobody but that one, which has nothing to
/// say to it: it asks at the last moment, and is answered.
pub(crate) fn deaf_but_for_one(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        detail: Detail::Full,
        ..Plan::measured(seed, 48)
    };
    let mut world = settled(plan, tune);
    datagrams(&mut world);
    deafen(&mut world, 48, 9, None);
    let suspect = suspect_of(&mut world, 9)?;
    // The others hear the refutation, and tell it no more.
    world.run_for(secs(4)).unwrap();
    world.apply(Fault::Unite).unwrap();
    deafen(&mut world, 48, 9, Some(suspect));
    world.run_for(secs(50)).unwrap();
    none(
        "a verdict on the suspect",
        wrong(&world).filter(|one| one.of == suspect),
    )
}

/// One of many is deaf, suspects somebody, and reaches that one again just before the suspicion is over.
pub(crate) fn deaf_until_the_end(seed: u64, tune: Tune) -> Result<(), String> {
    let plan = Plan {
        detail: Detail::Full,
        ..Plan::measured(seed, 64)
    };
    let mut world = settled(plan, tune);
    datagrams(&mut world);
    deafen(&mut world, 64, 9, None);
    let suspect = suspect_of(&mut world, 9)?;
    world.apply(Fault::Cut(node(9), node(suspect))).unwrap();
    // A suspicion that nobody confirms lasts 6 × 4 × log10(64) periods, and 1.5 periods before that it asks.
    world.run_for(millis(43_347 - 1_800)).unwrap();
    world.apply(Fault::Heal(node(9), node(suspect))).unwrap();
    world.run_for(secs(10)).unwrap();
    none(
        "a verdict on the suspect",
        wrong(&world).filter(|one| one.of == suspect && one.node == 9),
    )
}

/// A node that stood still suspects nobody for what it could not hear.
pub(crate) fn blame(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 16), tune);
    let before = world.metrics(&node(3)).unwrap().suspicions;
    for _ in 0..20 {
        world.apply(Fault::Pause(node(3), millis(700))).unwrap();
        world.run_for(secs(5)).unwrap();
    }
    let raised = world.metrics(&node(3)).unwrap().suspicions - before;
    if raised <= 1 {
        Ok(())
    } else {
        Err(format!("{raised} suspicions"))
    }
}

/// A node that stands still again and again closes no connection, not even that of one who is gone.
pub(crate) fn unwell(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(fast(seed, 12), tune);
    let (stalled, awake) = (millis(600), millis(300));
    world
        .apply(Fault::Wedge {
            node: node(3),
            stalled,
            awake,
        })
        .unwrap();
    world.run_for(secs(5)).unwrap();
    world.apply(Fault::Vanish(node(5))).unwrap();
    world.run_for(secs(20)).unwrap();
    none(
        "it evicts",
        world
            .records()
            .iter()
            .copied()
            .filter(|one| one.node == 3 && one.told == Told::Evicts),
    )
}

fn mixed(seed: u64) -> Plan {
    let mut plan = fast(seed, 6);
    plan.hosts[5].kind = Kind::Plain;
    plan
}

/// One guardian in turn loses the node without a core, and hears nobody who could tell it better.
pub(crate) fn plain_and_one_deaf_guardian(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(mixed(seed), tune);
    for host in 0..5 {
        deafen(&mut world, 5, host, None);
        world.apply(Fault::Disconnect(node(5), node(host))).unwrap();
        world.apply(Fault::Cut(node(5), node(host))).unwrap();
        world.run_for(secs(8)).unwrap();
        world.apply(Fault::Unite).unwrap();
        world.run_for(secs(30)).unwrap();
    }
    none(
        "it is declared dead",
        wrong(&world).filter(|one| one.of == 5 && one.told == Told::Down),
    )
}

/// Questions and answers are lost.
pub(crate) fn plain_under_loss(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(mixed(seed), tune);
    world.apply(Fault::Weather(Conditions::lossy(30))).unwrap();
    world.run_for(secs(200)).unwrap();
    none("a verdict on a member that runs", wrong(&world))
}

/// Three of seven are cut off: they close no connection.
pub(crate) fn minority(seed: u64, tune: Tune) -> Result<(), String> {
    let mut world = settled(
        Plan {
            samples: true,
            ..fast(seed, 7)
        },
        tune,
    );
    world
        .apply(Fault::Split((0..3).map(node).collect()))
        .unwrap();
    world.run_for(secs(30)).unwrap();
    let few = |one: &Record| one.node < 3 && one.told == Told::Evicts;
    none(
        "the minority evicts",
        world.records().iter().copied().filter(few),
    )
}

/// A driver hangs, while its node's connections carry what they always carry.
pub(crate) fn hung_driver(seed: u64, tune: Tune) -> Result<(), String> {
    let mut plan = Plan {
        samples: true,
        ..Plan::measured(seed, 8)
    };
    plan.conditions.tick = secs(1);
    let mut world = settled(plan, tune);
    let (stalled, awake) = (secs(3600), secs(1));
    world
        .apply(Fault::Wedge {
            node: node(3),
            stalled,
            awake,
        })
        .unwrap();
    world.run_for(secs(60)).unwrap();
    none(
        "it is evicted",
        world
            .records()
            .iter()
            .copied()
            .filter(|one| one.told == Told::Evicts),
    )
}
