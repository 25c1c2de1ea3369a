//! The program `tiebeam`: a Rust node in an Erlang cluster, and an operator's questions to any node.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
mod fixture;
mod member;
mod registry;
mod status;
mod visitor;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{Arguments, Command, TaskKind};
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
            Command::Kv(arguments) => commands::kv::run(arguments).await,
            Command::Leader(arguments) => commands::leader::run(arguments).await,
            Command::Locks(arguments) => commands::locks::run(arguments).await,
            Command::Members(arguments) => commands::members::run(arguments).await,
            Command::Names(arguments) => commands::names::run(arguments).await,
            Command::Groups(arguments) => commands::groups::run(arguments).await,
            Command::Ping(arguments) => commands::ping::run(arguments).await,
            Command::Rings(arguments) => commands::placement::list(TaskKind::Ring, arguments).await,
            Command::Pools(arguments) => commands::placement::list(TaskKind::Pool, arguments).await,
            Command::Move(arguments) => commands::placement::relocate(arguments).await,
            Command::Rebalance(arguments) => commands::placement::rebalance(arguments).await,
            Command::Cordon(arguments) => commands::placement::order("cordon", arguments).await,
            Command::Uncordon(arguments) => commands::placement::order("uncordon", arguments).await,
            Command::Drain(arguments) => commands::placement::order("drain", arguments).await,
            Command::Weight(arguments) => commands::placement::weigh(arguments).await,
            Command::Label(arguments) => commands::placement::label(arguments).await,
            Command::Stepdown(arguments) => commands::stepdown::run(arguments).await,
            Command::Rpc(arguments) => commands::rpc::run(arguments).await,
            Command::Watch(arguments) => commands::watch::run(arguments).await,
        }
    })
}

/// `RUST_LOG` says what is logged, as a level or as `target=level,...`; without it only warnings and errors.
fn log_to_stderr() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (targets, error) = match wanted.parse::<Targets>() {
        Ok(targets) if !wanted.is_empty() => (targets, None),
        Ok(_) => (Targets::new().with_default(LevelFilter::WARN), None),
        Err(error) => (Targets::new().with_default(LevelFilter::WARN), Some(error)),
    };
    tracing_subscriber::registry()
        .with(targets)
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal()),
        )
        .init();
    if let Some(error) = error {
        warn!("RUST_LOG is not understood ({error}): write a level, or target=level,...");
    }
}
