//! How soon the dead are known.

use tiebeam_core::{Duration, Instant, Timing};

use super::{Figure, Size, known, median, percentile, run, seconds, secs, seeds, settled};
use crate::record::Told;
use crate::{Conditions, Fault, Plan, World, node};

/// Probes fail as often as they must: directly over two ways, and then over four ways for each of three helpers. This is
/// how we know that the simulator is right.
pub(super) fn formula(size: Size) -> Vec<Figure> {
    let hours = size.of(
        [(10, 1, 1), (20, 1, 1), (20, 1, 2)],
        [(5, 3, 8), (10, 1, 4), (20, 1, 4)],
    );
    let line = |(percent, hours, runs): (u64, u64, u64)| {
        let counts = seeds(runs, |seed| {
            let plan = Plan {
                conditions: Conditions::lossy(percent),
                ..Plan::measured(seed, 64)
            };
            let mut world = settled(plan);
            let before = world.tally().core;
            run(world.run_for(secs(hours * 3600)));
            let after = world.tally().core;
            (
                after.probes - before.probes,
                after.probes_failed - before.probes_failed,
            )
        });
        let probes: u64 = counts.iter().map(|count| count.0).sum();
        let failed: u64 = counts.iter().map(|count| count.1).sum();
        let arrives = 1.0 - percent as f64 / 100.0;
        let expected = (1.0 - arrives.powi(2)) * (1.0 - arrives.powi(4)).powi(3);
        let rate = failed as f64 / probes as f64;
        Figure {
            number: 1,
            setting: format!("probes that fail, 64 nodes, {percent} % loss"),
            pass: format!("{:.3} % ± 5 %", expected * 100.0),
            measured: format!("{:.3} % of {probes}", rate * 100.0),
            holds: (rate / expected - 1.0).abs() <= 0.05,
        }
    };
    hours.into_iter().map(line).collect()
}

/// What `count` nodes notice of the end of one of them.
pub(super) struct Kill {
    pub(super) first: Option<Duration>,
    pub(super) last: Option<Duration>,
    pub(super) suspected: Option<Duration>,
    pub(super) wrong: usize,
}

/// One of `count` nodes vanishes with its host.
pub(super) fn kill(plan: Plan) -> Kill {
    let (seed, count) = (plan.seed, plan.hosts.len());
    let mut world = settled(plan);
    // Some other phase of everybody's periods for each seed.
    run(world.run_for(Duration::from_millis(seed * 137 % 3000)));
    let victim = 2 + seed as usize % (count - 2);
    observe(&mut world, victim, Fault::Vanish(node(victim)))
}

/// Runs until everybody knows of the end of `victim`, which is brought about by `fault`.
pub(super) fn observe(world: &mut World, victim: usize, fault: Fault) -> Kill {
    let since = world.now();
    run(world.apply(fault));
    let survivors: Vec<usize> = (0..world.hosts()).filter(|&host| host != victim).collect();
    run(world.run_while(secs(70), |world| {
        let known = world
            .records()
            .iter()
            .filter(|record| record.of == victim && super::verdict(record.told));
        known.count() < survivors.len()
    }));
    let (first, last) = known(world, victim, since, &survivors);
    let suspect = |record: &&crate::Record| record.of == victim && record.told == Told::Suspect;
    Kill {
        first,
        last,
        suspected: world
            .records()
            .iter()
            .find(suspect)
            .map(|record| record.at.since(since)),
        wrong: super::wrong(world, |of| of == victim),
    }
}

struct Limits {
    first_median: f64,
    first_p99: f64,
    spread: f64,
    spread_share: usize,
    last_max: f64,
}

fn kills(
    number: u32,
    runs: u64,
    count: usize,
    percent: u64,
    timing: &Timing,
    limits: &Limits,
) -> Figure {
    let kills = seeds(runs, |seed| {
        kill(Plan {
            conditions: Conditions::lossy(percent),
            timing: timing.clone(),
            ..Plan::measured(seed, count)
        })
    });
    let complete = kills.iter().all(|kill| kill.last.is_some());
    let first: Vec<Duration> = kills.iter().filter_map(|kill| kill.first).collect();
    let last: Vec<Duration> = kills.iter().filter_map(|kill| kill.last).collect();
    let spread: Vec<Duration> = kills
        .iter()
        .filter_map(|kill| {
            Some(Duration::from_micros(
                kill.last?.as_micros() - kill.first?.as_micros(),
            ))
        })
        .collect();
    let wrong: usize = kills.iter().map(|kill| kill.wrong).sum();
    let (p50, p99) = (seconds(median(&first)), seconds(percentile(&first, 99)));
    let spread = seconds(percentile(&spread, limits.spread_share));
    let max = seconds(percentile(&last, 100));
    Figure {
        number,
        setting: format!(
            "one of {count} vanishes, {percent} % loss, period {} s, {runs} runs",
            seconds(timing.probe_interval)
        ),
        pass: format!(
            "first known p50 ≤ {}, p99 ≤ {} s; all know ≤ {} s later (p{}), ≤ {} s; nobody else",
            limits.first_median,
            limits.first_p99,
            limits.spread,
            limits.spread_share,
            limits.last_max
        ),
        measured: format!("{p50:.2}, {p99:.2}; {spread:.2} later, {max:.2}; {wrong} others"),
        holds: complete
            && wrong == 0
            && p50 <= limits.first_median
            && p99 <= limits.first_p99
            && spread <= limits.spread
            && max <= limits.last_max,
    }
}

pub(super) fn kill_of_50(size: Size) -> Vec<Figure> {
    let limits = Limits {
        first_median: 9.0,
        first_p99: 14.0,
        spread: 1.0,
        spread_share: 95,
        last_max: 15.0,
    };
    let line = |percent| kills(2, size.of(20, 60), 50, percent, &Timing::lan(), &limits);
    [0, 10].into_iter().map(line).collect()
}

pub(super) fn kill_of_200(size: Size) -> Vec<Figure> {
    let limits = Limits {
        first_median: 11.5,
        first_p99: 18.0,
        spread: 1.0,
        spread_share: 95,
        last_max: 19.0,
    };
    let line = |percent| kills(3, size.of(4, 30), 200, percent, &Timing::lan(), &limits);
    size.of(vec![10], vec![0, 10])
        .into_iter()
        .map(line)
        .collect()
}

pub(super) fn kill_of_1000(size: Size) -> Vec<Figure> {
    let limits = Limits {
        first_median: 14.5,
        first_p99: 20.0,
        spread: 1.0,
        spread_share: 50,
        last_max: 22.0,
    };
    match size {
        Size::Short => Vec::new(),
        Size::Full => vec![kills(4, 8, 1000, 0, &Timing::lan(), &limits)],
    }
}

pub(super) fn first_suspicion(size: Size) -> Vec<Figure> {
    let kills = seeds(size.of(30, 120), |seed| kill(Plan::measured(seed, 50)));
    let spans: Vec<Duration> = kills.iter().filter_map(|kill| kill.suspected).collect();
    let mean = spans.iter().map(|span| seconds(*span)).sum::<f64>() / spans.len() as f64;
    let max = seconds(percentile(&spans, 100));
    vec![Figure {
        number: 5,
        setting: "first suspicion of one of 50 that vanishes, in periods".to_owned(),
        pass: "mean ≤ 2.58 + 10 %, never > 100".to_owned(),
        measured: format!("mean {mean:.2}, max {max:.2}"),
        holds: spans.len() == kills.len() && mean <= 2.58 * 1.1 && max <= 100.0,
    }]
}

pub(super) fn fast(size: Size) -> Vec<Figure> {
    let sizes = [
        (8, 1.4, 2.6),
        (16, 1.5, 2.6),
        (64, 2.1, 3.8),
        (200, 2.5, 4.0),
    ];
    let mut lines = Vec::new();
    for (count, p50, p99) in size.of(sizes[..3].to_vec(), sizes.to_vec()) {
        for percent in [0, 5] {
            let limits = Limits {
                first_median: p50,
                first_p99: p99,
                spread: 1.0,
                spread_share: 95,
                last_max: p99 + 1.0,
            };
            lines.push(kills(
                6,
                size.of(20, 40),
                count,
                percent,
                &Timing::fast(),
                &limits,
            ));
        }
    }
    lines
}

/// A tenth of all vanish together.
pub(super) fn many_at_once(size: Size) -> Vec<Figure> {
    let runs = size.of(1, 10);
    let results = seeds(runs, |seed| {
        let mut world = settled(Plan::measured(seed, 200));
        let since: Instant = world.now();
        let victims: Vec<usize> = (0..20).map(|number| 5 + number * 9).collect();
        for &victim in &victims {
            run(world.apply(Fault::Vanish(node(victim))));
        }
        run(world.run_for(secs(60)));
        let survivors: Vec<usize> = (0..200).filter(|host| !victims.contains(host)).collect();
        let last = victims
            .iter()
            .map(|&victim| known(&world, victim, since, &survivors).1);
        let last = last
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        let queued = survivors
            .iter()
            .filter_map(|&host| world.metrics(&node(host)));
        let queued = queued.map(|metrics| metrics.queued).max().unwrap_or(0);
        (
            last,
            queued,
            super::wrong(&world, |of| victims.contains(&of)),
        )
    });
    let last: Option<Vec<Duration>> = results.iter().map(|result| result.0).collect();
    let last = last.map(|all| seconds(percentile(&all, 100)));
    let queued = results.iter().map(|result| result.1).max().unwrap_or(0);
    let wrong: usize = results.iter().map(|result| result.2).sum();
    vec![Figure {
        number: 25,
        setting: format!("20 of 200 vanish at once, {runs} runs"),
        pass: "all know of all ≤ 25 s; nobody else; at most 20 words wait a minute later"
            .to_owned(),
        measured: format!("{last:.2?} s, {wrong} others, {queued} words"),
        holds: last.is_some_and(|last| last <= 25.0) && wrong == 0 && queued <= 20,
    }]
}
