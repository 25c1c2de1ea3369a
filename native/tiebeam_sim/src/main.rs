//! `cargo run -p tiebeam_sim -- --seed 42`: one simulated cluster, and what happened in it.

use std::process::ExitCode;

use clap::Parser;
use tiebeam_sim::{Plan, World};

/// Runs Tiebeam clusters in virtual time and checks their properties.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run, one after the other. More than one prints only failures and a summary.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut broken = 0_u64;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let mut world = World::new(Plan::random(seed));
        let outcome = world.run();
        if arguments.seeds == 1 {
            print!("{}", world.transcript());
        }
        if let Err(property) = outcome {
            broken += 1;
            eprintln!("seed {seed}, at {}: {property}", world.now());
            eprintln!("replay: cargo run -p tiebeam_sim -- --seed {seed}");
        }
    }
    println!(
        "{} of {} seeds kept every property",
        arguments.seeds - broken,
        arguments.seeds
    );
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
