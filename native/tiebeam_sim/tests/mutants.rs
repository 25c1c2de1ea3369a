//! Rules that are switched off, one at a time: for each there is a small story that goes wrong without it, and goes well
//! with it, for the same seed. What no story notices is no rule.

mod stories;

use stories::Story;
use tiebeam_core::Mutation;
use tiebeam_sim::Tune;

/// Each rule, and the story and the seed that miss it.
const CAUGHT: &[(Mutation, Story, u64)] = &[
    (Mutation::NoSenderIncarnation, stories::deaf_but_for_one, 0),
    (Mutation::NoBuddy, stories::loss, 0),
    (Mutation::NoLastCall, stories::deaf_until_the_end, 2),
    (Mutation::StaleDeadWins, stories::stale_death, 0),
    (Mutation::DeadCannotRefute, stories::return_of_the_dead, 0),
    (Mutation::NoNack, stories::health_of_survivors, 0),
    (Mutation::NoLocalHealth, stories::slow_member, 0),
    (Mutation::NoDynamicSuspicion, stories::deaf_for_long, 0),
    (Mutation::NoConfirmation, stories::death_in_time, 0),
    (Mutation::NoPushPull, stories::missed_change, 0),
    (Mutation::NoReconnect, stories::healed_partition, 0),
    (Mutation::NoStallGuard, stories::unwell, 1),
    (Mutation::CreationIgnored, stories::restart, 0),
    (Mutation::NoRetransmitGrowth, stories::many_changes, 0),
    (
        Mutation::OneGuardian,
        stories::plain_and_one_deaf_guardian,
        0,
    ),
    (
        Mutation::PositiveEvidenceLoses,
        stories::plain_under_loss,
        0,
    ),
    (Mutation::EvictWithoutMajority, stories::minority, 0),
    (Mutation::EvictHeard, stories::hung_driver, 0),
    (Mutation::EvictUnhealthy, stories::unwell, 0),
    (Mutation::NodedownIsDeath, stories::closed_link, 0),
    (Mutation::NoIndirectProbe, stories::cut_link, 0),
    (Mutation::SilentLeave, stories::leave, 0),
];

fn tune(mutation: Option<Mutation>) -> Tune {
    Tune::new(move |config| config.mutation = mutation)
}

#[test]
fn every_rule_is_missed_when_it_is_off() {
    std::thread::scope(|scope| {
        for &(mutation, story, seed) in CAUGHT {
            scope.spawn(move || {
                if let Err(seen) = story(seed, tune(None)) {
                    panic!("{mutation:?}, seed {seed}: goes wrong although the rule holds: {seen}");
                }
                let off = story(seed, tune(Some(mutation)));
                assert!(
                    off.is_err(),
                    "{mutation:?}, seed {seed}: nobody misses the rule"
                );
            });
        }
    });
}

#[test]
fn every_rule_has_a_story() {
    for mutation in Mutation::ALL {
        assert!(
            CAUGHT.iter().any(|caught| caught.0 == mutation),
            "{mutation:?}"
        );
    }
}

/// Which stories miss which rules: to find one for a new rule.
#[test]
#[ignore = "prints a table, and takes minutes"]
fn matrix() {
    let wanted = std::env::var("STORY").unwrap_or_default();
    for (name, story) in stories::ALL
        .into_iter()
        .filter(|story| story.0.contains(&wanted))
    {
        let mut missed = String::new();
        for mutation in std::iter::once(None).chain(Mutation::ALL.into_iter().map(Some)) {
            let seeds: Vec<u64> = std::thread::scope(|scope| {
                let runs: Vec<_> = (0..4)
                    .map(|seed| scope.spawn(move || story(seed, tune(mutation)).is_err()))
                    .collect();
                let runs = runs.into_iter().enumerate();
                runs.filter_map(|(seed, run)| run.join().unwrap().then_some(seed as u64))
                    .collect()
            });
            if !seeds.is_empty() {
                missed += &format!(
                    " {}{seeds:?}",
                    mutation.map_or("SOUND".to_owned(), |one| format!("{one:?}"))
                );
            }
        }
        println!("{name}:{missed}");
    }
}
