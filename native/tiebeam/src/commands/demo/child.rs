//! Nodes of the demo that are programs of their own. They are killed when they are dropped.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::Failure;

/// How long a node may take to start. A BEAM takes a second on an idle machine.
const START_TIME: Duration = Duration::from_secs(20);

/// The time that an empty standard input gives a node to end by itself.
const END_TIME: Duration = Duration::from_secs(2);

/// The Elixir half.
const SCRIPT: &str = include_str!("elixir.exs");

/// A node that is ready.
pub(super) struct Started {
    child: Child,
    /// What it said when it was ready.
    pub(super) ready: String,
    /// How long it took to be ready.
    pub(super) after: Duration,
}

/// What all nodes of the demo have in common.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) cookie: &'a str,
    pub(super) epmd: u16,
}

/// A Rust node that joins another one.
pub(super) async fn rust(common: Common<'_>, name: &str, join: &str) -> Result<Started, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["node", "--name", name, "--cookie", common.cookie]);
    command.args(["--join", join, "--profile", "fast"]);
    match start(common, command, name).await? {
        Some(started) => Ok(started),
        None => Err(Failure::new(
            "this program is not where it was started from",
        )),
    }
}

/// An Elixir node that joins a Rust node if it has the package `tiebeam`; `None` where Elixir is not installed.
pub(super) async fn elixir(
    common: Common<'_>,
    name: &str,
    join: &str,
    package: Option<&Path>,
) -> Result<Option<Started>, Failure> {
    let mut command = Command::new("elixir");
    command.args(["--name", name, "--cookie", common.cookie]);
    // The demo serves epmd; the node is for this host only, and silent.
    command.args([
        "--erl",
        "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} -kernel logger_level critical",
    ]);
    if let Some(package) = package {
        command.arg("-pa").arg(package.join("ebin"));
    }
    command.args(["-e", SCRIPT, join]).env("LC_ALL", "C.UTF-8");
    start(common, command, name).await
}

/// Waits for the line `ready ...`. `None` if there is no such program.
async fn start(
    common: Common<'_>,
    mut command: Command,
    name: &str,
) -> Result<Option<Started>, Failure> {
    let begin = Instant::now();
    let spawned = command
        .env("ERL_EPMD_PORT", common.epmd.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        spawned => spawned?,
    };
    let failure = |why| Failure::new(format!("{name} did not start: {why}"));
    let Some(stdout) = child.stdout.take() else {
        return Err(failure("its output is not to be had"));
    };
    let mut stdout = BufReader::new(stdout).lines();
    let line = timeout(START_TIME, stdout.next_line()).await;
    let line = line.map_err(|_| failure("it is not ready in time"))??;
    let ready = line.as_deref().and_then(|line| line.strip_prefix("ready "));
    let ready = ready.ok_or_else(|| failure("see above"))?.to_owned();
    // It may print more, and must not wait for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
    Ok(Some(Started {
        child,
        ready,
        after: begin.elapsed(),
    }))
}

impl Started {
    /// Its process on this machine.
    pub(super) fn os_pid(&self) -> u32 {
        // Zero only once it has been waited for.
        self.child.id().unwrap_or(0)
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.start_kill()?)
    }

    /// Lets it end by itself for a moment, then ends it.
    pub(super) async fn end(mut self) {
        drop(self.child.stdin.take());
        if timeout(END_TIME, self.child.wait()).await.is_err() {
            // An error: it has just ended.
            let _ = self.child.kill().await;
        }
    }
}
