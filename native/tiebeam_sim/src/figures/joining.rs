//! Coming, going and coming back.

use tiebeam_core::{Duration, Instant};

use super::{Figure, Size, median, millis, percentile, run, seconds, secs, seeds, settled, wrong};
use crate::record::Told;
use crate::{Conditions, Fault, Plan, World, node};

/// `count` nodes start within five seconds and look for the first.
fn joining(seed: u64, count: usize, percent: u64) -> World {
    let mut plan = Plan {
        conditions: Conditions::lossy(percent),
        ..Plan::measured(seed, count)
    };
    plan.seeds.truncate(1);
    for (number, host) in plan.hosts.iter_mut().enumerate().skip(1) {
        host.starts = Some(Instant::from_millis(5000 * number as u64 / count as u64));
    }
    World::new(plan)
}

pub(super) fn join_200(size: Size) -> Vec<Figure> {
    let line = |(percent, limit): (u64, f64)| {
        let runs = size.of(1, 10);
        let took = seeds(runs, |seed| {
            let mut world = joining(seed, 200, percent);
            run(world.run_while(secs(120), |world| {
                world.now() < at(5) || !world.all_see(200)
            }))
        });
        let took: Option<Vec<Duration>> = took.into_iter().collect();
        let max = took.as_ref().map(|all| seconds(percentile(all, 100)));
        let p50 = took.as_ref().map(|all| seconds(median(all)));
        Figure {
            number: 15,
            setting: format!(
                "200 nodes join in 5 s through one seed, {percent} % loss, {runs} runs"
            ),
            pass: format!("all views full ≤ {limit} s"),
            measured: format!("p50 {p50:.2?}, max {max:.2?} s"),
            holds: max.is_some_and(|max| max <= limit),
        }
    };
    [(0, 10.0), (10, 40.0)].into_iter().map(line).collect()
}

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

pub(super) fn join_1000(size: Size) -> Vec<Figure> {
    if size == Size::Short {
        return Vec::new();
    }
    let mut world = joining(1, 1000, 0);
    let (mut peak, mut before) = (0, 0);
    let mut full = None;
    while full.is_none() && world.now() < at(120) {
        run(world.run_for(secs(1)));
        let traffic = world.traffic(0).1 + world.received_bytes(0);
        peak = peak.max(traffic - before);
        before = traffic;
        full = (world.now() >= at(5) && world.all_see(1000))
            .then_some(seconds(world.now().since(Instant::ZERO)));
    }
    let peak = peak as f64 / 1e6;
    vec![Figure {
        number: 16,
        setting: "1000 nodes join in 5 s through one seed".to_owned(),
        pass: "all views full ≤ 25 s; the seed at most 2 MB/s".to_owned(),
        measured: format!("{full:?} s; {peak:.2} MB in its busiest second"),
        holds: full.is_some_and(|full| full <= 25.0) && peak <= 2.0,
    }]
}

pub(super) fn hard_joins(_: Size) -> Vec<Figure> {
    let limit = secs(90);
    let seed_late = {
        let mut plan = Plan::measured(1, 8);
        plan.seeds.truncate(1);
        plan.hosts[0].starts = Some(Instant::from_millis(30_000));
        let mut world = World::new(plan);
        run(world.run_while(limit, |world| world.now() < at(30) || !world.all_see(8)))
    };
    let lossy = {
        let mut world = joining(2, 8, 70);
        run(world.run_while(limit, |world| world.now() < at(5) || !world.all_see(8)))
    };
    let alone = {
        let mut world = World::new(Plan::measured(3, 1));
        run(world.run_for(secs(600)));
        world.all_see(1) && world.traffic(0).0 == 0
    };
    let wrong_seeds = {
        // Nobody is there, and nobody ever comes.
        let mut plan = Plan::measured(4, 3);
        plan.hosts[0].starts = None;
        plan.hosts[1].starts = None;
        let mut world = World::new(plan);
        run(world.run_for(secs(3600)));
        world.all_see(1)
    };
    vec![Figure {
        number: 17,
        setting: "8 nodes whose seed starts after 30 s; a join at 70 % loss; a seed that is the node itself; seeds that are nowhere".to_owned(),
        pass: "joined ≤ 90 s; ≤ 90 s; alone and silent; alone".to_owned(),
        measured: format!(
            "{:.2?} s; {:.2?} s; {alone}; {wrong_seeds}",
            seed_late.map(seconds),
            lossy.map(seconds)
        ),
        holds: seed_late.is_some() && lossy.is_some() && alone && wrong_seeds,
    }]
}

pub(super) fn leave(size: Size) -> Vec<Figure> {
    let count = size.of(64, 200);
    let results = seeds(size.of(4, 20), |seed| {
        let mut world = settled(Plan::measured(seed, count));
        let since = world.now();
        run(world.apply(Fault::Leave(node(7))));
        run(world.run_for(secs(60)));
        let of = || {
            world
                .records()
                .iter()
                .filter(|one| one.of == 7 && one.node != 7)
        };
        let left: Vec<Duration> = of()
            .filter(|one| one.told == Told::Left)
            .map(|one| one.at.since(since))
            .collect();
        let other = of()
            .filter(|one| !matches!(one.told, Told::Left | Told::Forgotten))
            .count();
        (left.len(), percentile(&left, 100), other)
    });
    let all = results.iter().all(|result| result.0 == count - 1);
    let last: Vec<Duration> = results.iter().map(|result| result.1).collect();
    let other: usize = results.iter().map(|result| result.2).sum();
    let last = seconds(percentile(&last, 100));
    vec![Figure {
        number: 18,
        setting: format!("one of {count} leaves, {} runs", results.len()),
        pass: "left, and nothing else, at all ≤ 1.5 s".to_owned(),
        measured: format!(
            "{last:.2} s, {other} other words, {}",
            if all { "all" } else { "not all" }
        ),
        holds: all && other == 0 && last <= 1.5,
    }]
}

pub(super) fn restart(size: Size) -> Vec<Figure> {
    let line = |(fault, word): (fn(usize) -> Fault, &str), pause: Duration| {
        let runs = size.of(4, 20);
        let results = seeds(runs, |seed| {
            let mut world = settled(Plan::measured(seed, 50));
            run(world.apply(fault(7)));
            run(world.run_for(pause));
            let since = world.now();
            run(world.apply(Fault::Restart(node(7))));
            run(world.run_for(secs(30)));
            let mut stories_fine = true;
            let mut back = Vec::new();
            for other in (0..50).filter(|&other| other != 7) {
                let story = world
                    .records()
                    .iter()
                    .filter(|one| one.node == other && one.of == 7);
                let story: Vec<_> = story
                    .filter(|one| matches!(one.told, Told::Up | Told::Down))
                    .collect();
                stories_fine &= matches!(story[..], [down, up] if down.told == Told::Down && up.told == Told::Up);
                back.extend(
                    story
                        .iter()
                        .find(|one| one.told == Told::Up)
                        .map(|one| one.at.since(since)),
                );
            }
            (
                stories_fine,
                percentile(&back, 100),
                wrong(&world, |of| of == 7),
            )
        });
        let fine = results.iter().filter(|result| result.0).count();
        let last: Vec<Duration> = results.iter().map(|result| result.1).collect();
        let last = seconds(percentile(&last, 100));
        let wrong: usize = results.iter().map(|result| result.2).sum();
        Figure {
            number: 19,
            setting: format!(
                "one of 50 {word}, starts again {} s later, {runs} runs",
                seconds(pause)
            ),
            pass: "down, then up, once at each; up everywhere ≤ 1 s; nobody else".to_owned(),
            measured: format!("{fine} of {runs}; {last:.2} s; {wrong} others"),
            holds: fine == results.len() && last <= 1.0 && wrong == 0,
        }
    };
    let crash: (fn(usize) -> Fault, &str) = (|host| Fault::Crash(node(host)), "crashes");
    let vanish: (fn(usize) -> Fault, &str) = (|host| Fault::Vanish(node(host)), "vanishes");
    let pauses = size.of(vec![100, 5000], vec![100, 5000, 60_000]);
    let mut lines = Vec::new();
    for pause in pauses {
        lines.push(line(crash, millis(pause)));
        lines.push(line(vanish, millis(pause)));
    }
    lines
}

pub(super) fn mass_restart(size: Size) -> Vec<Figure> {
    let count = size.of(64, 200);
    let took = seeds(size.of(1, 5), |seed| {
        let mut world = settled(Plan::measured(seed, count));
        for number in 0..count {
            run(world.apply(Fault::Restart(node(number))));
            run(world.run_for(Duration::from_micros(10_000_000 / count as u64)));
        }
        // Full, and of the new lives only.
        run(world.run_while(secs(120), |world| {
            !world.all_see(count) || world.check_agreement().is_err()
        }))
    });
    let took: Option<Vec<Duration>> = took.into_iter().collect();
    let max = took.map(|all| seconds(percentile(&all, 100)));
    vec![Figure {
        number: 20,
        setting: format!("all {count} nodes restart within 10 s"),
        pass: "all views full ≤ 60 s, of the new lives".to_owned(),
        measured: format!("{max:.2?} s"),
        holds: max.is_some_and(|max| max <= 60.0),
    }]
}
