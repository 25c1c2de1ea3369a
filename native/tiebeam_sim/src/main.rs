//! `cargo run -p tiebeam_sim -- --seed 42`: one simulated cluster, and what happened in it. With `figures`: the table.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tiebeam_sim::figures::{self, Size};
use tiebeam_sim::{Plan, World};

/// Runs Tiebeam clusters in virtual time and checks their properties.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run. More than one prints only failures and a summary.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

#[derive(Subcommand)]
enum What {
    /// Measures what the membership achieves, and prints a table.
    Figures {
        /// Only these numbers.
        numbers: Vec<u32>,
        /// Few seeds and small clusters.
        #[arg(long)]
        short: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let good = match arguments.what {
        Some(What::Figures { numbers, short }) => {
            print_figures(&numbers, if short { Size::Short } else { Size::Full })
        }
        None => run_seeds(arguments.seed, arguments.seeds),
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print_figures(numbers: &[u32], size: Size) -> bool {
    let mut missed = 0;
    println!("| # | setting | to pass | measured | |\n|---|---|---|---|---|");
    for (number, measure) in figures::ALL {
        if numbers.is_empty() || numbers.contains(&number) {
            for figure in measure(size) {
                println!("{figure}");
                missed += u32::from(!figure.holds);
            }
        }
    }
    if missed > 0 {
        eprintln!("{missed} lines missed");
    }
    missed == 0
}

fn run_seeds(first: u64, count: u64) -> bool {
    if count == 1 {
        let mut world = World::new(Plan::random(first));
        let outcome = world.run();
        print!("{}", world.transcript());
        if let Err(broken) = outcome {
            eprintln!("seed {first}, at {}: {broken}", world.now());
            return false;
        }
        println!("seed {first} kept every property");
        return true;
    }
    let (broken, tally) = tiebeam_sim::run_seeds(first, count);
    for failure in &broken {
        eprintln!("{failure}");
    }
    println!("{tally:#?}");
    println!(
        "{} of {count} seeds kept every property",
        count - broken.len() as u64
    );
    broken.is_empty()
}
