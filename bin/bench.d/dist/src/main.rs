//! The harness of `bin/bench`: runs servers and clients, BEAM and Rust, in interleaved rounds, and prints ratios.
//!
//! The machine is busy and clocks change; so every figure is divided by the BEAM's figure of the same round, and the
//! median of these ratios is what counts.

mod client;
mod dist;
mod report;
mod running;
mod server;
mod start;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use tiebeam_node::{Config, Cookie, EpmdMode, Node, default_epmd_port};

/// The secret of the nodes of a run.
const COOKIE: &str = "bench";

const USAGE: &str = "\
bin/bench dist  [--rounds N] [--messages N] [--pings N] [--peers]
bin/bench start [--rounds N]";

/// What the command line says.
struct Options {
    rounds: usize,
    messages: u64,
    pings: u64,
    peers: bool,
    ebin: PathBuf,
    program: PathBuf,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            rounds: 5,
            messages: 1_000_000,
            pings: 20_000,
            peers: false,
            ebin: PathBuf::new(),
            program: PathBuf::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            let number = |text: String| match text.parse() {
                Ok(number @ 1..) => Ok(number),
                _ => Err(format!("{text} is not a positive number")),
            };
            match argument.as_str() {
                "--rounds" => options.rounds = number(value()?)? as usize,
                // The clients warm up with a twentieth.
                "--messages" => options.messages = number(value()?)?.max(20),
                "--pings" => options.pings = number(value()?)?.max(20),
                "--peers" => options.peers = true,
                "--ebin" => options.ebin = value()?.into(),
                "--program" => options.program = value()?.into(),
                other => return Err(format!("{other} is not an option\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next().unwrap_or_default();
    let done = match part.as_str() {
        "dist" => Options::parse(arguments)
            .map_err(Into::into)
            .and_then(|options| dist::run(&options)),
        "start" => Options::parse(arguments)
            .map_err(Into::into)
            .and_then(|options| start::run(&options)),
        "server" => rust_server(),
        "client" => rust_client(&arguments.collect::<Vec<_>>()),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

async fn node(name: &str) -> Result<Node, Box<dyn Error>> {
    let config = Config::new(name, Cookie::new(COOKIE))
        .epmd(EpmdMode::Client, default_epmd_port())
        .listen([127, 0, 0, 1].into());
    Ok(Node::start(config).await?)
}

#[tokio::main]
async fn rust_server() -> Result<bool, Box<dyn Error>> {
    server::run(node(dist::RUST_SERVER).await?).await?;
    Ok(true)
}

#[tokio::main]
async fn rust_client(arguments: &[String]) -> Result<bool, Box<dyn Error>> {
    let [server, messages, pings] = arguments else {
        return Err("a client takes the server, the number of messages and of pings".into());
    };
    let (messages, pings) = (messages.parse()?, pings.parse()?);
    let node = node("rust_client@127.0.0.1").await?;
    // In a task, as processes are.
    let measuring = tokio::spawn(client::run(node, server.clone(), messages, pings));
    measuring.await?.map_err(|error| error.to_string())?;
    Ok(true)
}
