//! Rules of leadership that are switched off, one at a time: for each there is a seed whose world breaks a property without
//! the rule, and none with it. What no seed notices is no rule.

use tiebeam_core::leadership::{Mutation, Replica};
use tiebeam_sim::leadership::{Broken, Kind, Plan, Tune, World};

/// How many seeds of each kind a new rule may need until one misses it.
const BUDGET: u64 = 300;

/// Each rule, and the world, the group and the seed that miss it.
const CAUGHT: &[(Mutation, Kind, usize, u64)] = &[
    (Mutation::AckBeforePersist, Plan::random, 3, 0),
    (Mutation::LocalReads, Plan::random, 4, 0),
    (Mutation::RoleIsLease, Plan::random, 5, 0),
    (Mutation::LeaseFromArrival, Plan::random, 5, 2),
    (Mutation::NoLeaseWait, Plan::random, 3, 5),
    (Mutation::HalfIsMajority, Plan::random, 4, 0),
    (Mutation::MinorityCommits, Plan::random, 3, 0),
    (Mutation::VoteIgnoresLog, Plan::random, 4, 0),
    (Mutation::VotesTwice, Plan::random, 5, 2),
    (Mutation::AppendIgnoresPrevious, Plan::random, 3, 5),
    (Mutation::KeepsConflicts, Plan::random, 3, 0),
    (Mutation::VoteBeforePersist, Plan::changing, 4, 71),
    (Mutation::SnapshotKeepsConflicts, Plan::changing, 5, 92),
    (Mutation::SnapshotForgetsMembers, Plan::changing, 5, 10),
    (Mutation::TwoChangesAtOnce, Plan::changing, 5, 0),
    (Mutation::ChangeWithoutJoint, Plan::changing, 3, 0),
    (Mutation::JointNeedsOneMajority, Plan::changing, 4, 2),
    (Mutation::LearnersCount, Plan::changing, 3, 0),
    (Mutation::VoteNotPersisted, Plan::votes, 3, 124),
    (Mutation::RestartForgetsLease, Plan::leases, 3, 9),
    (Mutation::ReadReusesRound, Plan::stalls, 4, 5),
    (Mutation::CommitsOldTerms, Plan::reigns, 4, 0),
    (Mutation::ChangeWithoutNoop, Plan::reigns, 4, 0),
    (Mutation::SnapshotOfCommitted, Plan::snapshots, 3, 0),
    (Mutation::SnapshotBeforePersist, Plan::snapshots, 4, 8),
    (Mutation::CommitBeyondVerified, Plan::snapshots, 3, 18),
    (Mutation::RemovedLeaderStays, Plan::snapshots, 3, 2),
    (Mutation::ChangeAppliedTwice, Plan::snapshots, 3, 0),
];

fn run(mutation: Option<Mutation>, kind: Kind, members: usize, seed: u64) -> Result<(), Broken> {
    let tune = Tune::new(move |settings| settings.mutation = mutation);
    let plan = Plan {
        tune,
        ..kind(seed, members)
    };
    World::<Replica>::new(plan).run()
}

#[test]
fn every_rule_is_missed_when_it_is_off() {
    for &(mutation, kind, members, seed) in CAUGHT {
        let sound = run(None, kind, members, seed);
        assert_eq!(
            sound,
            Ok(()),
            "{mutation:?}: seed {seed} breaks with the rule as well"
        );
        match run(Some(mutation), kind, members, seed) {
            Ok(()) => {
                panic!("{mutation:?}: seed {seed} of {members} members does not miss the rule")
            }
            Err(broken) => println!("{mutation:?}: {members} members, seed {seed}: {broken}"),
        }
    }
}

#[test]
fn every_rule_has_a_seed() {
    for mutation in Mutation::ENGINE {
        assert!(
            CAUGHT.iter().any(|caught| caught.0 == mutation),
            "{mutation:?}"
        );
    }
}

/// The first seed that misses a rule, and what is then seen.
fn search_for(mutation: Mutation, kinds: &str) -> String {
    for seed in 0..BUDGET {
        for name in kinds.split(',') {
            let kind = Plan::kind(name).expect("KIND names kinds of worlds");
            for members in [3, 4, 5] {
                let outcome = std::panic::catch_unwind(|| run(Some(mutation), kind, members, seed));
                let seen = match outcome {
                    Ok(Ok(())) => continue,
                    Ok(Err(broken)) => broken.to_string(),
                    Err(_) => "a panic".to_owned(),
                };
                return format!(
                    "(Mutation::{mutation:?}, Plan::{name}, {members}, {seed}), // {seen}"
                );
            }
        }
    }
    format!("{mutation:?}: none in {BUDGET} seeds")
}

/// The first seed that misses each rule: to find one for a new rule. `MUTATION` chooses by name, several with commas between, and `KIND` the
/// worlds.
#[test]
#[ignore = "searches, and takes minutes"]
fn search() {
    let wanted = std::env::var("MUTATION").unwrap_or_default();
    let kinds = std::env::var("KIND");
    let kinds = kinds.as_deref().unwrap_or("changing,random,elections");
    std::thread::scope(|scope| {
        for mutation in Mutation::ENGINE {
            let name = format!("{mutation:?}");
            if wanted.split(',').any(|part| name.contains(part)) {
                scope.spawn(move || println!("    {}", search_for(mutation, kinds)));
            }
        }
    });
}
