//! What it costs when nothing happens.

use super::{Figure, Size, run, secs, settled};
use crate::{Conditions, Plan};

fn cost(size: Size, percent: u64, count: usize) -> (f64, f64, f64) {
    let span = size.of(120, 600);
    let mut plan = Plan::measured(1, count);
    plan.conditions = Conditions::lossy(percent);
    let mut world = settled(plan);
    let before: Vec<(u64, u64)> = (0..count).map(|host| world.traffic(host)).collect();
    let start = std::time::Instant::now();
    run(world.run_for(secs(span)));
    let work = start.elapsed().as_secs_f64() / count as f64 / span as f64;
    let sum = |pick: fn((u64, u64)) -> u64| -> f64 {
        let all = (0..count).map(|host| pick(world.traffic(host)) - pick(before[host]));
        all.sum::<u64>() as f64 / count as f64 / span as f64
    };
    (
        sum(|traffic| traffic.0),
        sum(|traffic| traffic.1),
        work * 100.0,
    )
}

pub(super) fn idle(size: Size) -> Vec<Figure> {
    let count = size.of(64, 200);
    let (messages, bytes, work) = cost(size, 0, count);
    vec![Figure {
        number: 35,
        setting: format!("{count} nodes, nothing happens"),
        pass: "≤ 2.1 messages and ≤ 100 B a second and node; ≤ 0.1 % of a processor".to_owned(),
        measured: format!(
            "{messages:.2}; {bytes:.0} B; {work:.4} %, the simulator's own work included"
        ),
        holds: messages <= 2.1 && bytes <= 100.0 && work <= 0.1,
    }]
}

pub(super) fn lossy(size: Size) -> Vec<Figure> {
    let count = size.of(64, 200);
    let (messages, bytes, _) = cost(size, 10, count);
    vec![Figure {
        number: 36,
        setting: format!("{count} nodes, 10 % loss"),
        pass: "≤ 20 messages and ≤ 1500 B a second and node".to_owned(),
        measured: format!("{messages:.2}; {bytes:.0} B"),
        holds: messages <= 20.0 && bytes <= 1500.0,
    }]
}
