//! Nodes without a core, and what becomes of a verdict.

use tiebeam_core::{Duration, Kind, Timing};

use super::{Figure, Size, detection, median, percentile, run, seconds, secs, seeds, settled};
use crate::record::Told;
use crate::{Conditions, Fault, Plan, World, node};

/// Five nodes with a core and one without, the last. Drivers can read their connections.
fn mixed(seed: u64, timing: Timing) -> World {
    let mut plan = Plan {
        timing,
        samples: true,
        ..Plan::measured(seed, 6)
    };
    plan.hosts[5].kind = Kind::Plain;
    settled(plan)
}

pub(super) fn hung(size: Size) -> Vec<Figure> {
    let line = |timing: Timing| {
        let normal = seeds(size.of(8, 40), |seed| {
            let mut world = mixed(seed, timing.clone());
            run(world.run_for(super::millis(seed * 137 % 3000)));
            detection::observe(&mut world, 3, Fault::Vanish(node(3))).first
        });
        let normal: Vec<Duration> = normal.into_iter().flatten().collect();
        let results = seeds(size.of(8, 40), |seed| {
            let mut world = mixed(seed, timing.clone());
            run(world.run_for(super::millis(seed * 137 % 3000)));
            let since = world.now();
            run(world.apply(Fault::Pause(node(5), secs(40))));
            run(world.run_for(secs(39)));
            let (_, all) = super::known(&world, 5, since, &[0, 1, 2, 3, 4]);
            run(world.run_for(secs(60)));
            (all, world.all_see(6), super::wrong(&world, |of| of == 5))
        });
        let all: Option<Vec<Duration>> = results.iter().map(|result| result.0).collect();
        let known = all.map(|all| seconds(median(&all)));
        let back = results.iter().filter(|result| result.1).count();
        let wrong: usize = results.iter().map(|result| result.2).sum();
        let limit = seconds(percentile(&normal, 99)) + 2.0 * seconds(timing.probe_interval);
        Figure {
            number: 37,
            setting: format!(
                "a node without a core freezes for 40 s, beside 5 with one, period {} s, {} runs",
                seconds(timing.probe_interval),
                results.len()
            ),
            pass: format!("all know p50 ≤ {limit:.2} s; back ≤ 60 s after it thaws; nobody else"),
            measured: format!("{known:.2?} s; {back} back; {wrong} others"),
            holds: known.is_some_and(|known| known <= limit) && back == results.len() && wrong == 0,
        }
    };
    vec![line(Timing::lan()), line(Timing::fast())]
}

/// A node whose connections are full for seconds: half of all questions and answers are lost, but something comes.
pub(super) fn busy(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(2, 10), |seed| {
        let mut world = mixed(seed, Timing::fast());
        run(world.apply(Fault::Weather(Conditions::lossy(30))));
        run(world.run_for(secs(300)));
        super::wrong(&world, |_| false)
    });
    let one_guardian = seeds(size.of(4, 20), |seed| {
        let mut world = mixed(seed, Timing::fast());
        run(world.apply(Fault::CutOneWay {
            from: node(5),
            to: node(seed as usize % 5),
        }));
        run(world.run_for(secs(30)));
        let running = |one: &&crate::Record| one.told == Told::Down && one.running;
        world.records().iter().filter(running).count()
    });
    let wrong: usize = results.iter().sum();
    let one_guardian: usize = one_guardian.iter().sum();
    vec![
        Figure {
            number: 38,
            setting: format!(
                "30 % of all questions and answers are lost for 300 s × {}",
                results.len()
            ),
            pass: "0 verdicts".to_owned(),
            measured: format!("{wrong}"),
            holds: wrong == 0,
        },
        Figure {
            number: 38,
            setting: "one member alone does not hear the node without a core for 30 s".to_owned(),
            pass: "nobody declares it dead".to_owned(),
            measured: format!("{one_guardian}"),
            holds: one_guardian == 0,
        },
    ]
}

/// Verdicts that must not be carried out.
pub(super) fn refused(size: Size) -> Vec<Figure> {
    let runs = size.of(4, 20);
    let heard = seeds(runs, |seed| {
        let mut plan = Plan {
            samples: true,
            ..Plan::measured(seed, 8)
        };
        plan.conditions.tick = secs(1);
        let mut world = settled(plan);
        // The node's driver hangs, its kernel ticks: bytes are a veto.
        run(world.apply(Fault::Wedge {
            node: node(3),
            stalled: secs(3600),
            awake: secs(1),
        }));
        run(world.run_for(secs(120)));
        let evicts = world
            .records()
            .iter()
            .filter(|one| one.told == Told::Evicts && one.running)
            .count();
        let contested =
            |one: &&crate::Record| one.of == 3 && matches!(one.told, Told::Contested(_));
        let contested = world.records().iter().filter(contested).count();
        (evicts, contested)
    });
    let minority = seeds(runs, |seed| {
        let plan = Plan {
            samples: true,
            timing: Timing::fast(),
            ..Plan::measured(seed, 7)
        };
        let mut world = settled(plan);
        run(world.apply(Fault::Split(vec![node(0), node(1), node(2)])));
        run(world.run_for(secs(60)));
        let by = |side: std::ops::Range<usize>| {
            let evicts = world
                .records()
                .iter()
                .filter(|one| one.told == Told::Evicts && side.contains(&one.node));
            evicts.count()
        };
        (by(0..3), by(3..7))
    });
    let evictions: usize = heard.iter().map(|result| result.0).sum();
    let contested: usize = heard.iter().map(|result| result.1).sum();
    let by_minority: usize = minority.iter().map(|result| result.0).sum();
    let by_majority: usize = minority.iter().map(|result| result.1).sum();
    vec![
        Figure {
            number: 40,
            setting: format!(
                "the driver of one of 8 hangs, its connections carry something each second, {runs} runs"
            ),
            pass: "0 connections closed; the verdict is contested".to_owned(),
            measured: format!("{evictions} closed, {contested} contested"),
            holds: evictions == 0 && contested > 0,
        },
        Figure {
            number: 40,
            setting: format!("3 of 7 are cut off from 4 for a minute, {runs} runs"),
            pass: "the 3 close nothing, the 4 do".to_owned(),
            measured: format!("{by_minority} and {by_majority} closed"),
            holds: by_minority == 0 && by_majority > 0,
        },
    ]
}
