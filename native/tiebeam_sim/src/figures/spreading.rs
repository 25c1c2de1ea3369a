//! How soon everybody knows what one says.

use tiebeam_core::Duration;

use super::{
    Figure, Size, median, millis, percentile, run, seconds, secs, seeds, settled, verdict,
};
use crate::record::Told;
use crate::{Conditions, Fault, Plan, node};

/// A member changes its metadata five times a second.
pub(super) fn metadata(size: Size) -> Vec<Figure> {
    let count = size.of(50, 200);
    let changes = size.of(150_u64, 3000);
    let results = seeds(size.of(1, 3), |seed| {
        let plan = Plan {
            conditions: Conditions::lossy(5),
            ..Plan::measured(seed, count)
        };
        let mut world = settled(plan);
        for number in 1..=changes {
            run(world.apply(Fault::SetMetadata(node(7), number.to_be_bytes().to_vec())));
            if number < changes {
                run(world.run_for(millis(200)));
            }
        }
        let last = changes.to_be_bytes();
        let took = run(world.run_while(secs(60), |world| {
            !(0..count).all(|host| {
                let view = world.view(&node(host)).into_iter().flatten();
                view.into_iter()
                    .any(|member| member.node == node(7) && *member.metadata == last)
            })
        }));
        let ups = world
            .records()
            .iter()
            .filter(|one| verdict(one.told) || one.told == Told::Up)
            .count();
        (took, ups)
    });
    let took: Option<Vec<Duration>> = results.iter().map(|result| result.0).collect();
    let max = took.map(|all| seconds(percentile(&all, 100)));
    let events: usize = results.iter().map(|result| result.1).sum();
    vec![Figure {
        number: 31,
        setting: format!(
            "one of {count} changes its metadata {changes} times, every 0.2 s, 5 % loss"
        ),
        pass: "0 down or up; the last value everywhere ≤ 2 s".to_owned(),
        measured: format!("{events}; {max:.2?} s"),
        holds: events == 0 && max.is_some_and(|max| max <= 2.0),
    }]
}

pub(super) fn broadcast(size: Size) -> Vec<Figure> {
    let line = |count: usize, percent: u64, limit: f64| {
        let runs = if count == 1000 { 2 } else { 20 };
        let results = seeds(runs, |seed| {
            let plan = Plan {
                conditions: Conditions::lossy(percent),
                ..Plan::measured(seed, count)
            };
            let mut world = settled(plan);
            let mut spans = Vec::new();
            let (mut missed, mut twice) = (0, 0);
            for number in 1..=5_u64 {
                let since = world.now();
                run(world.apply(Fault::Broadcast(node(7), number.to_be_bytes().to_vec())));
                run(world.run_for(secs(3)));
                let heard = world
                    .records()
                    .iter()
                    .filter(|one| one.told == Told::Broadcast(number));
                let mut heard: Vec<(usize, Duration)> =
                    heard.map(|one| (one.node, one.at.since(since))).collect();
                let all = heard.len();
                heard.sort_unstable();
                heard.dedup_by_key(|one| one.0);
                twice += all - heard.len();
                missed += count - 1 - heard.len();
                spans.push(
                    heard
                        .into_iter()
                        .map(|one| one.1)
                        .max()
                        .unwrap_or(Duration::ZERO),
                );
            }
            (spans, missed, twice)
        });
        let spans: Vec<Duration> = results.iter().flat_map(|result| result.0.clone()).collect();
        let missed: usize = results.iter().map(|result| result.1).sum();
        let twice: usize = results.iter().map(|result| result.2).sum();
        let (p50, max) = (seconds(median(&spans)), seconds(percentile(&spans, 100)));
        Figure {
            number: 32,
            setting: format!(
                "a broadcast to {count}, {percent} % loss, {} times",
                spans.len()
            ),
            pass: format!("all p50 ≤ {limit} s; nobody twice; missed by ≤ 0.1 %"),
            measured: format!("p50 {p50:.2}, max {max:.2} s; {twice}; {missed} missed"),
            holds: p50 <= limit && twice == 0 && missed * 1000 <= spans.len() * (count - 1),
        }
    };
    let counts = [(50, 1.0), (200, 1.2), (1000, 1.5)];
    let mut lines = Vec::new();
    for (count, limit) in size.of(counts[..1].to_vec(), counts.to_vec()) {
        for percent in [0, 10] {
            lines.push(line(count, percent, limit));
        }
    }
    lines
}
