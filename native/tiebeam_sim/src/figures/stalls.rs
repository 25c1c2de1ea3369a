//! Nodes that stand still: they blame nobody, and are blamed only when they are gone for long.

use tiebeam_core::Duration;

use super::{
    Figure, Size, detection, median, millis, run, seconds, secs, seeds, settled, verdict, wrong,
};
use crate::{Fault, Plan, World, node};

struct Stalls {
    about_others: usize,
    all: usize,
    stalled: u64,
}

/// The drivers of the first `count` of `nodes` stand still for `stalled` out of `stalled + awake`, out of step.
fn stall(
    seed: u64,
    nodes: usize,
    count: usize,
    stalled: Duration,
    awake: Duration,
    span: Duration,
) -> Stalls {
    let mut world = settled(Plan::measured(seed, nodes));
    // Not the seeds, which everybody has another reason to talk to.
    let members: Vec<usize> = (2..2 + count).collect();
    for &member in &members {
        run(world.run_for(Duration::from_micros(stalled.as_micros() / count as u64)));
        run(world.apply(Fault::Wedge {
            node: node(member),
            stalled,
            awake,
        }));
    }
    run(world.run_for(span));
    let all = world
        .records()
        .iter()
        .filter(|one| verdict(one.told))
        .count();
    Stalls {
        about_others: wrong(&world, |of| members.contains(&of)),
        all,
        stalled: world.tally().stalled,
    }
}

pub(super) fn many(size: Size) -> Vec<Figure> {
    let counts = size.of(vec![16], vec![1, 4, 16, 32]);
    let spans = size.of(
        vec![(2000, 250), (8000, 4)],
        vec![(2000, 250), (8000, 4), (8000, 250), (16000, 1000)],
    );
    let runs = size.of(1, 5);
    let mut lines = Vec::new();
    for (stalled, awake) in spans {
        for &count in &counts {
            let span = size.of(secs(60), secs(120));
            let results = seeds(runs, |seed| {
                stall(seed, 128, count, millis(stalled), millis(awake), span)
            });
            let about_others: usize = results.iter().map(|one| one.about_others).sum();
            let all: usize = results.iter().map(|one| one.all).sum();
            let noticed: u64 = results.iter().map(|one| one.stalled).sum();
            let short = stalled <= 2000;
            lines.push(Figure {
                number: 12,
                setting: format!(
                    "{count} of 128 stand still {} s, run {} s, again and again, {} s × {runs}",
                    stalled as f64 / 1e3,
                    awake as f64 / 1e3,
                    seconds(span)
                ),
                pass: match short {
                    true => "0 verdicts on anybody".to_owned(),
                    false => "0 verdicts on the others".to_owned(),
                },
                measured: format!(
                    "{about_others} on others, {all} on anybody ({noticed} stalls noticed)"
                ),
                holds: about_others == 0 && (!short || all == 0) && noticed > 0,
            });
        }
    }
    lines
}

pub(super) fn one(size: Size) -> Vec<Figure> {
    let span = size.of(secs(120), secs(600));
    let results = seeds(size.of(1, 5), |seed| {
        stall(seed, 64, 1, secs(8), millis(250), span)
    });
    let most = results.iter().map(|one| one.all).max().unwrap_or(0);
    vec![Figure {
        number: 13,
        setting: format!(
            "one of 64 stands still 8 s, runs 0.25 s, for {} s × {}",
            seconds(span),
            results.len()
        ),
        pass: "≤ 5 verdicts at anybody".to_owned(),
        measured: format!("at most {most}"),
        holds: most <= 5,
    }]
}

/// A driver that hangs for good, while its kernel answers, is as dead as a host that is gone.
pub(super) fn wedged(size: Size) -> Vec<Figure> {
    let runs = size.of(10, 60);
    let gone = seeds(runs, |seed| detection::kill(Plan::measured(seed, 50)).first);
    let hung = seeds(runs, |seed| {
        let mut world = settled(Plan::measured(seed, 50));
        run(world.run_for(millis(seed * 137 % 3000)));
        let victim = 2 + seed as usize % 48;
        let fault = Fault::Wedge {
            node: node(victim),
            stalled: secs(3600),
            awake: secs(1),
        };
        let kill = detection::observe(&mut world, victim, fault);
        (kill.first, kill.suspected)
    });
    let first: Option<Vec<Duration>> = hung.iter().map(|one| one.0).collect();
    let gone: Vec<Duration> = gone.into_iter().flatten().collect();
    let suspected = hung.iter().filter_map(|one| one.1).max().map(seconds);
    let first = first.map(|all| seconds(median(&all)));
    let normal = seconds(median(&gone));
    vec![Figure {
        number: 14,
        setting: format!("the driver of one of 50 hangs, its kernel lives, {runs} runs"),
        pass: format!("known p50 ≤ 1.3 × {normal:.2} s"),
        measured: format!("{first:.2?} s, first suspicion at most {suspected:.2?} s"),
        holds: first.is_some_and(|first| first <= 1.3 * normal),
    }]
}

/// A member that is there for five seconds, and not there for five seconds.
pub(super) fn flapping(size: Size) -> Vec<Figure> {
    let flaps = size.of(12, 60);
    let results = seeds(size.of(1, 5), |seed| {
        let mut world = settled(Plan::measured(seed, 50));
        for _ in 0..flaps {
            run(world.apply(Fault::Pause(node(7), secs(5))));
            run(world.run_for(secs(10)));
        }
        let most = (0..50)
            .map(|other| events(&world, other, 7))
            .max()
            .unwrap_or(0);
        (most, world.check_growth())
    });
    let most = results.iter().map(|result| result.0).max().unwrap_or(0);
    let growth = results.iter().find_map(|result| result.1.clone().err());
    vec![Figure {
        number: 26,
        setting: format!("one of 50 stands still 5 s, runs 5 s, {flaps} times"),
        pass: format!("≤ {flaps} downs at anybody; ≤ one incarnation for each suspicion"),
        measured: format!(
            "at most {most}; {}",
            growth
                .as_ref()
                .map_or("yes".to_owned(), ToString::to_string)
        ),
        holds: most <= flaps && growth.is_none(),
    }]
}

fn events(world: &World, node: usize, of: usize) -> usize {
    let seen = world
        .records()
        .iter()
        .filter(|one| one.node == node && one.of == of && verdict(one.told));
    seen.count()
}
