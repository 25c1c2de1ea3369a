//! `cargo run --release -p tiebeam_sim --bin leadership -- --seed 42`: groups of leadership in virtual time.

use std::process::ExitCode;

use clap::Parser;
use tiebeam_core::leadership::Replica;
#[cfg(feature = "judge")]
use tiebeam_sim::leadership::Judge;
use tiebeam_sim::leadership::figures::{End, failover, percentile};
use tiebeam_sim::leadership::{Engine, Plan, run_seeds};

/// Runs groups under faults and checks their properties.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How many members a group has.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// On how many threads.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// What kind of worlds: random, elections, changing, aimed, or one of those of which the aimed ones are: votes, leases, reigns, stalls,
    /// snapshots, links and hints.
    #[arg(long, default_value = "changing")]
    kind: String,
    /// Run them on the other engine (needs the feature `judge`).
    #[arg(long)]
    judge: bool,
    /// Print how long failover takes, from so many worlds each, instead of running seeds.
    #[arg(long)]
    failover: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.judge {
        #[cfg(feature = "judge")]
        return run::<Judge>(&arguments);
        #[cfg(not(feature = "judge"))]
        {
            eprintln!("the other engine is not built in: add --features judge");
            return ExitCode::FAILURE;
        }
    }
    run::<Replica>(&arguments)
}

fn run<E: Engine>(arguments: &Arguments) -> ExitCode {
    if let Some(count) = arguments.failover {
        println!(
            "| engine | members | end | elected p50 | p99 | max ms | served p50 | p99 | max ms | worlds |"
        );
        println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|");
        for end in End::ALL {
            let (elected, served) = failover::<E>(end, arguments.members, count);
            let ms = |times: &[u64]| {
                [50, 99, 100].map(|percent| percentile(times, percent) as f64 / 1000.0)
            };
            let ([a, b, c], [d, e, f]) = (ms(&elected), ms(&served));
            println!(
                "| {} | {} | {end:?} | {a:.1} | {b:.1} | {c:.1} | {d:.1} | {e:.1} | {f:.1} | {} |",
                E::NAME,
                arguments.members,
                served.len()
            );
        }
        return ExitCode::SUCCESS;
    }
    let Some(plan) = Plan::kind(&arguments.kind) else {
        eprintln!("there are no worlds of the kind {:?}", arguments.kind);
        return ExitCode::FAILURE;
    };
    let (broken, tally) =
        run_seeds::<E>(arguments.seed, arguments.seeds, arguments.threads, |seed| {
            plan(seed, arguments.members)
        });
    for (seed, broken) in &broken {
        let judge = if arguments.judge {
            " --features judge"
        } else {
            ""
        };
        let flag = if arguments.judge { " --judge" } else { "" };
        eprintln!("seed {seed}: {broken}");
        eprintln!(
            "replay: cargo run --release -p tiebeam_sim{judge} --bin leadership -- --seed {seed} --members {} --kind {}{flag}",
            arguments.members, arguments.kind
        );
    }
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    println!(
        "| engine | members | worlds | broken | crashes | elections | commits | reads | given up | messages per commit \
         | bytes per message | time under a lease |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.0} | {:.1} % |",
        E::NAME,
        arguments.members,
        arguments.seeds,
        broken.len(),
        tally.crashes,
        tally.elections,
        tally.commits,
        tally.reads,
        tally.unknown,
        share(tally.sent, tally.commits),
        share(tally.bytes, tally.sent),
        100.0 * share(tally.leased, tally.time),
    );
    println!(
        "snapshots installed {}, read at a start {}; changes of members {}, refused for another {}, joint ones left by another leader {}, \
         leaders removed {}; disks lost {}, writes failed {}, crashes before the word of a write {}, messages to lost members {}",
        tally.installed,
        tally.resumed,
        tally.changed,
        tally.collided,
        tally.left_by_others,
        tally.removed_leaders,
        tally.wiped,
        tally.failed_writes,
        tally.untold,
        tally.misdirected,
    );
    println!(
        "{} of {} seeds kept every property",
        arguments.seeds - broken.len() as u64,
        arguments.seeds
    );
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
