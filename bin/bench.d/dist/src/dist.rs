//! `bin/bench dist`: messages a second and round trips, between BEAM nodes, from Rust to BEAM and from Rust to Rust.

use std::error::Error;
use std::process::Command;

use crate::Options;
use crate::report::{Goal, median};
use crate::running::{Epmd, Running};

/// The names of the servers.
pub const BEAM_SERVER: &str = "beam_server@127.0.0.1";
pub const RUST_SERVER: &str = "rust_server@127.0.0.1";

/// What one client measured.
#[derive(Clone, Copy)]
struct Figures {
    /// Messages a second.
    send: f64,
    /// Messages a second.
    receive: f64,
    /// Microseconds.
    ping: f64,
}

/// A client and a server.
#[derive(Clone, Copy, PartialEq)]
enum Pair {
    BeamBeam,
    RustBeam,
    RustRust,
    ErlDistBeam,
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Self::BeamBeam => "BEAM - BEAM",
            Self::RustBeam => "Rust - BEAM",
            Self::RustRust => "Rust - Rust",
            Self::ErlDistBeam => "erl_dist - BEAM",
        }
    }

    fn client(self, epmd: &Epmd, options: &Options) -> Result<Command, Box<dyn Error>> {
        let (messages, pings) = (options.messages.to_string(), options.pings.to_string());
        Ok(match self {
            Self::BeamBeam => {
                let call = format!("dist_bench:client('{BEAM_SERVER}', {messages}, {pings})");
                epmd.erl("beam_client@127.0.0.1", &options.ebin, &call)
            }
            Self::RustBeam => epmd.rust(&["client", BEAM_SERVER, &messages, &pings])?,
            Self::RustRust => epmd.rust(&["client", RUST_SERVER, &messages, &pings])?,
            Self::ErlDistBeam => {
                // Cargo puts both programs into one directory.
                let program = std::env::current_exe()?.with_file_name("erl_dist_client");
                let mut command = epmd.command(program);
                command.args([BEAM_SERVER, &messages, &pings]);
                command
            }
        })
    }

    fn measure(self, epmd: &Epmd, options: &Options) -> Result<Figures, Box<dyn Error>> {
        let client = Running::start(self.name(), &mut self.client(epmd, options)?)?;
        let figures = Figures {
            send: figure(&client, "send")?,
            receive: figure(&client, "receive")?,
            ping: figure(&client, "ping")?,
        };
        client.end()?;
        Ok(figures)
    }
}

/// The next line must be this word and a number.
fn figure(client: &Running, name: &str) -> Result<f64, Box<dyn Error>> {
    let line = client.line()?;
    match line.split_once(' ') {
        Some((word, number)) if word == name => Ok(number.parse()?),
        _ => Err(format!("expected `{name}` and a number, got `{line}`").into()),
    }
}

/// Whether every goal is met.
pub fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let mut pairs = vec![Pair::BeamBeam, Pair::RustBeam, Pair::RustRust];
    if options.peers {
        pairs.push(Pair::ErlDistBeam);
    }
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); pairs.len()];
    let epmd = Epmd::start()?;
    for round in 0..options.rounds {
        let server = "dist_bench:server()";
        let mut server = epmd.erl(BEAM_SERVER, &options.ebin, server);
        let beam = Running::start("the BEAM server", &mut server)?.ready()?;
        let rust = Running::start("the Rust server", &mut epmd.rust(&["server"])?)?.ready()?;
        // No pair always has the first turn.
        for turn in 0..pairs.len() {
            let index = (round + turn) % pairs.len();
            rounds[index].push(pairs[index].measure(&epmd, options)?);
        }
        rust.end()?;
        beam.end()?;
    }
    let of = |pair| {
        let index = pairs.iter().position(|&other| other == pair);
        index.map_or(&[][..], |index| &rounds[index][..])
    };
    print_medians(&pairs, &rounds, options);
    let ratios = |pair, figure: fn(&Figures) -> f64| -> Vec<f64> {
        let base = of(Pair::BeamBeam);
        of(pair)
            .iter()
            .zip(base)
            .map(|(own, base)| figure(own) / figure(base))
            .collect()
    };
    println!("\nRatio to BEAM - BEAM in the same round: median, lowest to highest");
    let mut met = true;
    for (what, pair, figure, goal) in GOALS {
        met &= goal.check(what, "x", &ratios(*pair, *figure));
    }
    if options.peers {
        let erl_dist = Pair::ErlDistBeam;
        println!(
            "\nerl_dist 0.8: send {:.2}x, receive {:.2}x, round trip {:.2}x",
            median(&ratios(erl_dist, |figures| figures.send)),
            median(&ratios(erl_dist, |figures| figures.receive)),
            median(&ratios(erl_dist, |figures| figures.ping)),
        );
        println!(
            "edp_node 0.16 is not measured: it cannot connect to OTP 25.2.3, and knows only port 4369 for epmd."
        );
    }
    Ok(met)
}

/// What is measured, and what it must be.
type Row = (&'static str, Pair, fn(&Figures) -> f64, Goal);

const GOALS: &[Row] = &[
    (
        "Rust to BEAM, messages/s",
        Pair::RustBeam,
        |figures| figures.send,
        Goal::AtLeast(1.8),
    ),
    (
        "BEAM to Rust, messages/s",
        Pair::RustBeam,
        |figures| figures.receive,
        Goal::AtLeast(0.95),
    ),
    (
        "Rust to BEAM and back, time",
        Pair::RustBeam,
        |figures| figures.ping,
        Goal::AtMost(0.95),
    ),
    (
        "Rust to Rust, messages/s",
        Pair::RustRust,
        |figures| figures.send,
        Goal::AtLeast(4.0),
    ),
];

fn print_medians(pairs: &[Pair], rounds: &[Vec<Figures>], options: &Options) {
    println!(
        "{} messages `{{msg, I, <<\"hello world\">>}}`, {} pings, medians of {} rounds",
        options.messages, options.pings, options.rounds
    );
    println!(
        "{:<18} {:>14} {:>14} {:>16}",
        "client - server", "send 1000/s", "receive 1000/s", "round trip us"
    );
    for (pair, figures) in pairs.iter().zip(rounds) {
        let median_of =
            |figure: fn(&Figures) -> f64| median(&figures.iter().map(figure).collect::<Vec<_>>());
        println!(
            "{:<18} {:>14.0} {:>14.0} {:>16.1}",
            pair.name(),
            median_of(|figures| figures.send) / 1000.0,
            median_of(|figures| figures.receive) / 1000.0,
            median_of(|figures| figures.ping),
        );
    }
}
