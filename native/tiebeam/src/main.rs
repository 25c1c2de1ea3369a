//! The program `tiebeam`: a Rust node in an Erlang cluster, and an operator's questions to any node.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
mod fixture;
mod visitor;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;

/// Most threads that run tasks. What the program does itself waits for sockets; more threads would cost memory and
/// wake-ups, and gain nothing before four of them are busy.
const WORKERS_MAX: usize = 4;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tiebeam: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS_MAX))
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(format!(
                "cannot start threads ({error}): raise this user's limits"
            ))
        })?;
    runtime.block_on(async {
        match arguments.command {
            Command::Node(arguments) => commands::node::run(arguments).await,
            Command::Demo(arguments) => commands::demo::run(arguments).await,
            Command::Members(arguments) => commands::members::run(arguments).await,
            Command::Ping(arguments) => commands::ping::run(arguments).await,
            Command::Rpc(arguments) => commands::rpc::run(arguments).await,
        }
    })
}

/// `RUST_LOG` says what is logged; without it only warnings and errors.
fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
