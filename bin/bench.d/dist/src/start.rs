//! `bin/bench start`: how long the program takes to be ready, and how much memory it has when idle.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::report::{Goal, median};
use crate::running::{Epmd, Running};
use crate::{COOKIE, Options};

/// How long a node rests before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// Whether every goal is met.
pub fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let epmd = Epmd::start()?;
    let (mut rust, mut beam) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let mut program = epmd.command(&options.program);
        program.args(["node", "--name", "rust@127.0.0.1", "--cookie", COOKIE]);
        rust.push(measure("tiebeam node", &mut program)?);
        let mut erl = epmd.erl("beam@127.0.0.1", &options.ebin, "dist_bench:server()");
        beam.push(measure("erl", &mut erl)?);
    }
    let (ready, memory): (Vec<f64>, Vec<f64>) = rust.into_iter().unzip();
    let (beam_ready, beam_memory): (Vec<f64>, Vec<f64>) = beam.into_iter().unzip();
    println!("Medians of {} rounds, lowest to highest", options.rounds);
    let met = [
        Goal::AtMost(100.0).check("tiebeam node, ready after", " ms", &ready),
        Goal::AtMost(12.0).check("tiebeam node, idle memory", " MB", &memory),
    ];
    println!(
        "erl is ready after {:.0} ms and has {:.1} MB.",
        median(&beam_ready),
        median(&beam_memory)
    );
    Ok(met == [true; 2])
}

/// Milliseconds until it is ready, and resident megabytes when idle.
fn measure(name: &str, command: &mut std::process::Command) -> Result<(f64, f64), Box<dyn Error>> {
    let start = Instant::now();
    let running = Running::start(name, command)?.ready()?;
    let ready = start.elapsed();
    std::thread::sleep(REST);
    Ok((ready.as_secs_f64() * 1000.0, resident(running.id())?))
}

fn resident(id: u32) -> Result<f64, Box<dyn Error>> {
    let path = format!("/proc/{id}/status");
    let status = std::fs::read_to_string(&path)?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .ok_or_else(|| format!("{path} does not tell VmRSS"))?;
    Ok(kilobytes.trim().parse::<f64>()? / 1024.0)
}
