//! Every folder of `examples/` whose Elixir half needs no package shows what its README says; test/examples_test.exs runs the others.
//! Needs Elixir; says so and does nothing where there is none.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A Rust half, until the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port for the epmd of one example, below those that the system hands out by itself.
fn free_port() -> u16 {
    let first = std::process::id().wrapping_mul(61) % 20_000;
    (0..20_000)
        .map(|next| 10_000 + ((first + next) % 20_000) as u16)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port from 10000 to 30000")
}

/// Where cargo puts the Rust halves: beside the folder of this test.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    target.join("examples").join(name)
}

/// A Rust half that the README says to start.
fn start(command: &str, epmd: &str) -> Running {
    let mut words = command.split_whitespace();
    let name = words.next().expect("the name of an example");
    let rust = program(name);
    let spawned = Command::new(&rust)
        .args(words)
        .env("ERL_EPMD_PORT", epmd)
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Running(spawned.unwrap_or_else(|error| {
        panic!("{rust:?}: {error}; build it: cargo build --examples -p tiebeam_node")
    }));
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    assert!(ready.contains("is up"), "{command} prints {ready:?}");
    // It goes on writing.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// What the README says that the Elixir half prints.
fn promised(readme: &str) -> &str {
    let (_, rest) = readme.split_once("```output\n").expect("a block ```output");
    rest.split_once("```").expect("the end of the block").0
}

#[test]
fn the_examples_print_what_they_promise() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    if Command::new("elixir").arg("--version").output().is_err() {
        eprintln!("skipped: elixir is not installed");
        return;
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(readme) = std::fs::read_to_string(folder.join("README.md")) else {
            continue;
        };
        if readme.contains("mix run") || !folder.join("run.exs").exists() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap();
        let epmd = free_port().to_string();
        let _halves: Vec<_> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("cargo run --example "))
            .map(|command| start(command, &epmd))
            .collect();

        let elixir = Command::new("elixir")
            .args(["--name", "app@127.0.0.1", "--cookie", "example"])
            .args(["--erl", "-start_epmd false"])
            .arg(folder.join("run.exs"))
            .env("ERL_EPMD_PORT", &epmd)
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&elixir.stdout),
            promised(&readme),
            "{name}: {elixir:?}"
        );
        seen += 1;
    }
    assert!(seen > 0, "there are no examples");
}
