//! Ways that are cut, and that heal.

use tiebeam_core::{Duration, NodeName};

use super::{
    Figure, Size, detection, median, millis, percentile, run, seconds, secs, seeds, settled,
    verdict, wrong,
};
use crate::record::Told;
use crate::{Burst, Conditions, Fault, Plan, node};

pub(super) fn halves(size: Size) -> Vec<Figure> {
    let line = |span: u64, percent: u64| {
        let count = size.of(32, 64);
        let runs = size.of(2, 10);
        let results = seeds(runs, |seed| {
            let plan = Plan {
                conditions: Conditions::lossy(percent),
                ..Plan::measured(seed, count)
            };
            let mut world = settled(plan);
            let side: Vec<NodeName> = (0..count / 2).map(node).collect();
            run(world.apply(Fault::Split(side)));
            run(world.run_for(secs(span)));
            let verdicts = world
                .records()
                .iter()
                .filter(|one| verdict(one.told))
                .count();
            let evicted = world
                .records()
                .iter()
                .filter(|one| one.told == Told::Evicts)
                .count();
            run(world.apply(Fault::Unite));
            let took = run(world.run_while(secs(180), |world| {
                !world.all_see(count) || world.check_agreement().is_err()
            }));
            (verdicts, evicted, took)
        });
        let verdicts: usize = results.iter().map(|result| result.0).sum();
        let evicted: usize = results.iter().map(|result| result.1).sum();
        let took: Option<Vec<Duration>> = results.iter().map(|result| result.2).collect();
        let p50 = took.as_ref().map(|all| seconds(median(all)));
        let max = took.as_ref().map(|all| seconds(percentile(all, 100)));
        let merged = p50.is_some_and(|p50| p50 <= 35.0) && max.is_some_and(|max| max <= 60.0);
        Figure {
            number: 21,
            setting: format!(
                "halves of {count} cut off for {span} s, {percent} % loss, {runs} runs"
            ),
            pass: match span {
                3 => "0 verdicts".to_owned(),
                _ => "merged p50 ≤ 35, max ≤ 60 s; no half evicts the other".to_owned(),
            },
            measured: format!(
                "{verdicts} verdicts, {evicted} evictions, merged p50 {p50:.2?}, max {max:.2?} s"
            ),
            holds: match span {
                3 => verdicts == 0,
                _ => merged && evicted == 0,
            },
        }
    };
    let spans = size.of(vec![3, 30], vec![3, 30, 300]);
    let percents = size.of(vec![5], vec![0, 5]);
    spans
        .iter()
        .flat_map(|&span| percents.iter().map(move |&percent| line(span, percent)))
        .collect()
}

pub(super) fn isolated(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(4, 20), |seed| {
        let mut world = settled(Plan::measured(seed, 16));
        run(world.apply(Fault::Split(vec![node(7)])));
        run(world.run_for(secs(60)));
        let minority = world.health(&node(7)).is_some_and(|health| health.minority);
        let evicts = |one: &&crate::Record| {
            one.node == 7 && matches!(one.told, Told::Evicts | Told::EvictsAt)
        };
        let evicted = world.records().iter().filter(evicts).count();
        run(world.apply(Fault::Unite));
        let took = run(world.run_while(secs(120), |world| {
            !world.all_see(16) || world.check_agreement().is_err()
        }));
        (minority, evicted, took)
    });
    let minority = results.iter().filter(|result| result.0).count();
    let evicted: usize = results.iter().map(|result| result.1).sum();
    let took: Option<Vec<Duration>> = results.iter().map(|result| result.2).collect();
    let max = took.map(|all| seconds(percentile(&all, 100)));
    vec![Figure {
        number: 22,
        setting: format!("one of 16 cut off for a minute, {} runs", results.len()),
        pass: "it knows that it is a minority, evicts nobody, and is back ≤ 35 s".to_owned(),
        measured: format!("{minority} knew, {evicted} evictions, {max:.2?} s"),
        holds: minority == results.len() && evicted == 0 && max.is_some_and(|max| max <= 35.0),
    }]
}

pub(super) fn one_way(size: Size) -> Vec<Figure> {
    let runs = size.of(4, 20);
    let link = seeds(runs, |seed| {
        let mut world = settled(Plan::measured(seed, 32));
        run(world.apply(Fault::CutOneWay {
            from: node(3),
            to: node(9),
        }));
        run(world.run_for(secs(600)));
        let other = |one: &&crate::Record| verdict(one.told) && one.running;
        world.records().iter().filter(other).count()
    });
    let wrong: usize = link.iter().sum();
    let normal: Vec<Duration> = seeds(runs, |seed| detection::kill(Plan::measured(seed, 32)).first)
        .into_iter()
        .flatten()
        .collect();
    let normal = seconds(median(&normal));
    let deaf = seeds(runs, |seed| {
        let mut world = settled(Plan::measured(seed, 32));
        let since = world.now();
        for other in (0..32).filter(|&other| other != 7) {
            run(world.apply(Fault::CutOneWay {
                from: node(other),
                to: node(7),
            }));
        }
        run(world.run_for(secs(60)));
        let survivors: Vec<usize> = (0..32).filter(|&host| host != 7).collect();
        let (first, _) = super::known(&world, 7, since, &survivors);
        let about = |one: &&crate::Record| verdict(one.told) && one.of != 7 && one.node != 7;
        (first, world.records().iter().filter(about).count())
    });
    let first: Option<Vec<Duration>> = deaf.iter().map(|result| result.0).collect();
    let first = first.map(|all| seconds(median(&all)));
    let others: usize = deaf.iter().map(|result| result.1).sum();
    vec![
        Figure {
            number: 23,
            setting: format!(
                "nothing passes from one of 32 to one other for ten minutes, {runs} runs"
            ),
            pass: "0 verdicts".to_owned(),
            measured: format!("{wrong}"),
            holds: wrong == 0,
        },
        Figure {
            number: 23,
            setting: format!("one of 32 can send and cannot receive, {runs} runs"),
            pass: format!("known p50 ≤ 1.5 × {normal:.2} s; 0 verdicts on others at the others"),
            measured: format!("{first:.2?} s; {others}"),
            holds: first.is_some_and(|first| first <= 1.5 * normal) && others == 0,
        },
    ]
}

pub(super) fn bursts(size: Size) -> Vec<Figure> {
    let runs = size.of(1, 5);
    let span = size.of(secs(300), secs(3600));
    let gilbert = seeds(runs, |seed| {
        let plan = Plan {
            conditions: Conditions {
                burst: Some(Burst {
                    good: secs(9),
                    bad: secs(1),
                    loss: 900,
                }),
                ..Conditions::lan()
            },
            ..Plan::measured(seed, 64)
        };
        let mut world = settled(plan);
        run(world.run_for(span));
        (wrong(&world, |_| false), world.tally().lost)
    });
    let racks = seeds(runs, |seed| {
        let mut world = settled(Plan::measured(seed, 64));
        let rack: Vec<NodeName> = (16..24).map(node).collect();
        let outages = super::seconds(span) as u64 / 10;
        for _ in 0..outages {
            run(world.apply(Fault::Split(rack.clone())));
            run(world.run_for(secs(1)));
            run(world.apply(Fault::Unite));
            run(world.run_for(millis(9000)));
        }
        wrong(&world, |_| false)
    });
    let wrong: usize = gilbert.iter().map(|result| result.0).sum();
    let lost: u64 = gilbert.iter().map(|result| result.1).sum();
    let racks: usize = racks.iter().sum();
    vec![
        Figure {
            number: 24,
            setting: format!(
                "each way of 64 nodes loses 90 % for 1 s in 10, {} s × {runs}",
                seconds(span)
            ),
            pass: "0 verdicts".to_owned(),
            measured: format!("{wrong} ({lost} lost)"),
            holds: wrong == 0 && lost > 0,
        },
        Figure {
            number: 24,
            setting: format!(
                "8 of 64 are cut off for 1 s in 10, {} s × {runs}",
                seconds(span)
            ),
            pass: "0 verdicts".to_owned(),
            measured: format!("{racks}"),
            holds: racks == 0,
        },
    ]
}
