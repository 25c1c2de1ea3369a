//! What should not happen, and happens.

use tiebeam_core::{
    Config, Duration, Instant, MAX_METADATA_BYTES, NodeName, Random, Status, Timing,
};

use super::{Figure, Size, millis, run, seconds, secs, seeds, settled, wrong};
use crate::record::Told;
use crate::{Conditions, Fault, Lane, Plan, Tune, World, node};

/// Two hosts run nodes of one name: each is connected with some of the others.
pub(super) fn collision(size: Size) -> Vec<Figure> {
    let results = seeds(size.of(4, 20), |seed| {
        let mut plan = Plan::measured(seed, 9);
        plan.hosts[8].name = node(5);
        plan.seeds = (0..4).map(node).collect();
        for twin in [5, 8] {
            plan.hosts[twin].starts = Some(Instant::from_millis(60_000));
        }
        let mut world = World::new(plan);
        run(world.run_for(secs(59)));
        world.forget_records();
        run(world.run_for(secs(300)));
        let conflicts = world
            .records()
            .iter()
            .filter(|one| one.told == Told::Conflict)
            .count();
        let others = wrong(&world, |of| of == 5 || of == 8);
        // The members of one view have different names, and the incumbent is among them for who is connected to it.
        let kept = (0..8).filter(|&host| host != 5).all(|host| {
            let view = world.view(&node(host)).unwrap_or_default();
            view.windows(2).all(|pair| pair[0].node < pair[1].node) && view.len() == 8
        });
        let flaps = (0..5).map(|host| {
            let story = world
                .records()
                .iter()
                .filter(|one| one.node == host && one.of == 5);
            story.filter(|one| one.told == Told::Down).count()
        });
        (conflicts, others, kept, flaps.max().unwrap_or(0))
    });
    let fine = results.iter().filter(|result| result.2).count();
    let conflicts = results.iter().filter(|result| result.0 > 0).count();
    let others: usize = results.iter().map(|result| result.1).sum();
    let downs = results.iter().map(|result| result.3).max().unwrap_or(0);
    vec![Figure {
        number: 27,
        setting: format!("two hosts with one name start at once, beside 7 others, 300 s × {}", results.len()),
        pass: "views are whole, the conflict is told in nine of ten runs (in others one is refused by all), nobody else is concerned, ≤ 3 downs of the name at anybody".to_owned(),
        measured: format!("{fine} whole, {conflicts} told, {others} others, ≤ {downs} downs"),
        holds: fine == results.len() && conflicts * 10 >= results.len() * 9 && others == 0 && downs <= 3,
    }]
}

/// Messages that come twice, overtake each other and come late.
pub(super) fn duplicates(size: Size) -> Vec<Figure> {
    let line = |stray: Duration, astray: u64| {
        let span = size.of(secs(200), secs(1800));
        let results = seeds(size.of(2, 10), |seed| {
            let plan = Plan {
                conditions: Conditions {
                    lane: Lane::Datagram,
                    duplicate: 150,
                    astray,
                    stray,
                    ..Conditions::lan()
                },
                ..Plan::measured(seed, 32)
            };
            let mut world = settled(plan);
            run(world.run_for(span));
            let wrong = wrong(&world, |_| false);
            let agreed = world.check_agreement().is_ok();
            let since = world.now();
            run(world.apply(Fault::Vanish(node(9))));
            run(world.run_for(secs(60)));
            let survivors: Vec<usize> = (0..32).filter(|&host| host != 9).collect();
            (
                wrong,
                agreed,
                super::known(&world, 9, since, &survivors).1,
                world.tally().duplicated,
            )
        });
        let wrong: usize = results.iter().map(|result| result.0).sum();
        let agreed = results.iter().filter(|result| result.1).count();
        let last = results
            .iter()
            .map(|result| result.2)
            .collect::<Option<Vec<_>>>();
        let last = last.and_then(|all| all.into_iter().max()).map(seconds);
        let duplicated: u64 = results.iter().map(|result| result.3).sum();
        Figure {
            number: 28,
            setting: format!(
                "15 % come twice, {} % up to {} s late, 32 nodes, {} s × {}",
                astray / 10,
                seconds(stray),
                seconds(span),
                results.len()
            ),
            pass: "0 verdicts, views agree; who vanishes then is known to all ≤ 20 s".to_owned(),
            measured: format!("{wrong}; {agreed} agree; {last:.2?} s ({duplicated} came twice)"),
            holds: wrong == 0
                && agreed == results.len()
                && last.is_some_and(|last| last <= 20.0)
                && duplicated > 0,
        }
    };
    vec![line(millis(120), 1000), line(secs(2), 50)]
}

/// Messages with a byte changed, cut short, or of nothing but chance, from a connected node.
pub(super) fn hostile(size: Size) -> Vec<Figure> {
    let rounds = size.of(50_000, 1_000_000);
    let mut world = settled(Plan::measured(1, 8));
    world.start_recording();
    run(world.apply(Fault::Pause(node(7), secs(20))));
    run(world.run_for(secs(60)));
    let real = world.stop_recording();
    run(world.run_for(secs(60)));
    world.forget_records();
    let mut random = Random::from_seed(1);
    for round in 0..rounds {
        let mut bytes = match random.below(4) {
            0 => (0..random.below(200))
                .map(|_| random.bits() as u8)
                .collect(),
            _ => real[random.below(real.len() as u64) as usize].2.clone(),
        };
        let place = random.below(bytes.len().max(1) as u64) as usize;
        match (random.below(3), bytes.get_mut(place)) {
            (0, Some(byte)) => *byte = random.bits() as u8,
            (1, _) => bytes.truncate(place),
            _ => bytes.push(random.bits() as u8),
        }
        world.inject(0, 1, bytes);
        if round % 100 == 0 {
            run(world.run_for(millis(10)));
        }
    }
    run(world.run_for(secs(1)));
    let ignored = world.tally().ignored;
    let alive = world.view(&node(1)).is_some_and(|view| view.len() >= 8);
    vec![Figure {
        number: 29,
        setting: format!(
            "{rounds} messages changed, cut short or made up, from one of 8 to another"
        ),
        pass: "no panic; most are counted as ignored; the view stands".to_owned(),
        measured: format!("{ignored} ignored; {alive}"),
        holds: ignored > rounds / 2 && alive,
    }]
}

/// Long names and full metadata.
pub(super) fn message_limit(size: Size) -> Vec<Figure> {
    let count = size.of(60, 300);
    let mut plan = Plan::measured(1, count);
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        let text = format!(
            "n{number}{}@sim",
            "x".repeat(240 - number.to_string().len())
        );
        host.name = NodeName::parse(&text).expect("it is of the form name@host");
    }
    plan.seeds = vec![plan.hosts[0].name.clone()];
    plan.tune = Some(Tune::new(|config: &mut Config| {
        config.metadata = vec![7; MAX_METADATA_BYTES]
    }));
    let names: Vec<NodeName> = plan.hosts.iter().map(|host| host.name.clone()).collect();
    let mut world = World::new(plan);
    let took = run(world.run_while(secs(120), |world| !world.all_see(count)));
    run(world.run_for(secs(20)));
    world.forget_records();
    for name in names.iter().skip(5).take(10) {
        run(world.apply(Fault::Pause(name.clone(), secs(8))));
        run(world.apply(Fault::Broadcast(names[3].clone(), vec![1; 500])));
    }
    run(world.run_for(secs(20)));
    let (longest, small) = (world.tally().longest, world.tally().longest_small);
    let (most, datagram) = (
        tiebeam_core::MAX_MESSAGE_BYTES,
        tiebeam_core::MAX_DATAGRAM_BYTES,
    );
    vec![Figure {
        number: 30,
        setting: format!("{count} members with names of 245 characters and 512 bytes of metadata"),
        pass: format!(
            "all find each other; no ping, ack or gossip above {datagram} bytes, no message above {most}"
        ),
        measured: format!("{:.2?} s; {small} and {longest} bytes", took.map(seconds)),
        holds: took.is_some() && longest <= most as u64 && small <= datagram as u64 && small > 600,
    }]
}

/// Numbers at their ends.
pub(super) fn extremes(_: Size) -> Vec<Figure> {
    let mut plan = Plan {
        timing: Timing::fast(),
        ..Plan::measured(1, 8)
    };
    plan.tune = Some(Tune::new(|config: &mut Config| {
        config.incarnation = u64::MAX
    }));
    let mut world = settled(plan);
    run(world.apply(Fault::Pause(node(3), secs(2))));
    run(world.run_for(secs(60)));
    run(world.apply(Fault::Pause(node(3), secs(20))));
    run(world.apply(Fault::SetMetadata(node(4), vec![1])));
    run(world.run_for(secs(200)));
    run(world.apply(Fault::Restart(node(3))));
    run(world.run_for(secs(60)));
    let others = (0..8).filter(|&host| host != 3).all(|host| {
        let view = world.view(&node(host)).unwrap_or_default();
        let alive =
            |one: &&tiebeam_core::Member| one.status == Status::Alive && one.node != node(3);
        view.iter().filter(alive).count() == 7
    });
    vec![Figure {
        number: 34,
        setting: "8 nodes with the greatest incarnation; one is suspected, dies, restarts"
            .to_owned(),
        pass: "no panic; the others hold each other for alive".to_owned(),
        measured: format!("{others}"),
        holds: others,
    }]
}
