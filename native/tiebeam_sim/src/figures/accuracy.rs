//! That nobody is taken for dead who lives.

use tiebeam_core::{Status, Timing};

use super::{Figure, Size, run, secs, seeds, settled, wrong};
use crate::record::Told;
use crate::{Conditions, Detail, Fault, Plan, Record, node};

fn lossy(number: u32, size: Size, timing: &Timing, percent: u64) -> Figure {
    let (span, runs) = size.of((secs(600), 1), (secs(3600), 3));
    let results = seeds(runs, |seed| {
        let plan = Plan {
            conditions: Conditions::lossy(percent),
            timing: timing.clone(),
            ..Plan::measured(seed, 64)
        };
        let mut world = settled(plan);
        run(world.run_for(span));
        let bytes: u64 = (0..64).map(|host| world.traffic(host).1).sum();
        let tally = world.tally();
        (
            wrong(&world, |_| false),
            bytes,
            tally.suspect,
            tally.core.refutations,
        )
    });
    let hours = 64.0 * super::seconds(span) / 3600.0 * runs as f64;
    let wrong: usize = results.iter().map(|result| result.0).sum();
    let bytes: u64 = results.iter().map(|result| result.1).sum();
    let suspect: u64 = results.iter().map(|result| result.2).sum();
    let refutations: u64 = results.iter().map(|result| result.3).sum();
    Figure {
        number,
        setting: format!(
            "nothing but {percent} % loss, 64 nodes, period {} s, {hours:.0} node-hours",
            super::seconds(timing.probe_interval)
        ),
        pass: "0 verdicts".to_owned(),
        measured: format!(
            "{wrong} ({suspect} suspicions told, {refutations} refuted, {:.0} B/s/node)",
            bytes as f64 / hours / 3600.0
        ),
        holds: wrong == 0 && (percent < 10 || refutations > 0),
    }
}

pub(super) fn loss(size: Size) -> Vec<Figure> {
    let percents = size.of(vec![10, 30], vec![1, 5, 10, 20, 30]);
    let line = |percent| lossy(7, size, &Timing::lan(), percent);
    percents.into_iter().map(line).collect()
}

pub(super) fn loss_fast(size: Size) -> Vec<Figure> {
    let percents = size.of(vec![10], vec![1, 5, 10]);
    let line = |percent| lossy(8, size, &Timing::fast(), percent);
    percents.into_iter().map(line).collect()
}

/// A member that refuted a suspicion is never heard of again, also not when the suspicion would have ended.
pub(super) fn no_trace(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(8, 40), |seed| {
        let plan = Plan {
            detail: Detail::Full,
            ..Plan::measured(seed, 8)
        };
        let mut world = settled(plan);
        let incarnation = |world: &crate::World| {
            world
                .view(&node(3))
                .into_iter()
                .flatten()
                .find(|member| member.node == node(3))
                .map(|me| me.incarnation)
        };
        let before = incarnation(&world);
        run(world.apply(Fault::Pause(node(3), secs(3))));
        run(world.run_for(secs(10)));
        let suspected = world
            .records()
            .iter()
            .any(|one| one.of == 3 && one.told == Told::Suspect);
        let grown = incarnation(&world)
            .zip(before)
            .map(|(after, before)| after - before);
        world.forget_records();
        // Six times the shortest suspicion, and more.
        run(world.run_for(secs(60)));
        let trace = world
            .records()
            .iter()
            .filter(|one| !matches!(one.told, Told::Health(_)));
        let quiet =
            trace.count() == 0 && incarnation(&world).zip(before).map(|(a, b)| a - b) == grown;
        (suspected, quiet, grown == Some(1))
    });
    let suspected = results.iter().filter(|result| result.0).count();
    let traces = results.iter().filter(|result| !result.1).count();
    let once = results.iter().filter(|result| result.0 && result.2).count();
    vec![Figure {
        number: 9,
        setting: format!(
            "one of 8 is suspected and refutes it, {} runs",
            results.len()
        ),
        pass: "one incarnation more, and nothing is told for a minute".to_owned(),
        measured: format!("{suspected} suspected, {once} one more, {traces} with a trace"),
        holds: suspected >= results.len() / 2 && traces == 0 && once == suspected,
    }]
}

/// Every message from the time in which a member was dead is sent again, to everybody, after it came back.
pub(super) fn stale_dead(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(2, 10), |seed| {
        let mut world = settled(Plan::measured(seed, 16));
        world.start_recording();
        run(world.apply(Fault::Pause(node(3), secs(40))));
        run(world.run_for(secs(39)));
        let recorded = world.stop_recording();
        let dead = world
            .records()
            .iter()
            .filter(|one| one.of == 3 && super::verdict(one.told))
            .count();
        run(world.run_for(secs(120)));
        let back = world.all_see(16);
        world.forget_records();
        let before = world.tally().core.refutations;
        for (from, to, bytes) in recorded {
            world.inject(from, to, bytes);
        }
        run(world.run_for(secs(120)));
        (
            dead,
            back,
            wrong(&world, |_| false),
            world.tally().core.refutations - before,
        )
    });
    let dead = results.iter().all(|result| result.0 >= 15);
    let back = results.iter().all(|result| result.1);
    let wrong: usize = results.iter().map(|result| result.2).sum();
    let refutations = results.iter().map(|result| result.3).max().unwrap_or(0);
    vec![Figure {
        number: 10,
        setting: format!(
            "all messages of an earlier death again, 16 nodes, {} runs",
            results.len()
        ),
        pass: "0 verdicts; at most one refutation".to_owned(),
        measured: format!("{wrong} verdicts, at most {refutations} refutations"),
        holds: dead && back && wrong == 0 && refutations <= 1,
    }]
}

/// One member hears of a suspicion and not of its refutation, and cannot reach the suspect.
pub(super) fn missed_refutation(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(4, 20), |seed| {
        let mut world = settled(Plan::measured(seed, 32));
        run(world.apply(Fault::Cut(node(3), node(9))));
        run(world.apply(Fault::Pause(node(3), millis_until_suspected())));
        run(world.run_for(millis_until_suspected()));
        // The others hear the refutation while node 9 is deaf.
        for other in (0..32).filter(|&other| other != 9) {
            run(world.apply(Fault::CutOneWay {
                from: node(other),
                to: node(9),
            }));
        }
        run(world.run_for(secs(3)));
        run(world.apply(Fault::Unite));
        run(world.apply(Fault::Cut(node(3), node(9))));
        run(world.run_for(secs(35)));
        let elsewhere = |one: &&Record| super::verdict(one.told) && one.running && one.node != 9;
        let elsewhere = world.records().iter().filter(elsewhere).count();
        let view = world.view(&node(9)).unwrap_or_default();
        let held = view.into_iter().find(|member| member.node == node(3));
        (
            elsewhere,
            held.is_some_and(|member| member.status == Status::Alive),
        )
    });
    let elsewhere: usize = results.iter().map(|result| result.0).sum();
    let healed = results.iter().filter(|result| result.1).count();
    vec![Figure {
        number: 11,
        setting: format!(
            "one of 32 misses a refutation, and its way to the suspect is cut, {} runs",
            results.len()
        ),
        pass: "0 verdicts at the others; after 35 s it knows".to_owned(),
        measured: format!("{elsewhere} verdicts, {healed} know"),
        holds: elsewhere == 0 && healed == results.len(),
    }]
}

fn millis_until_suspected() -> tiebeam_core::Duration {
    super::millis(4500)
}
