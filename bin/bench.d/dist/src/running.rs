//! Operating system processes that end with the harness, and what they print.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::COOKIE;

/// How long a process may print nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed when this is dropped.
pub struct Running {
    child: Child,
    name: String,
    lines: Receiver<String>,
}

impl Running {
    /// Starts it. Its standard input stays open until it is ended.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self {
            child,
            name: name.to_owned(),
            lines,
        })
    }

    /// The next line that it prints.
    pub fn line(&self) -> Result<String, Box<dyn Error>> {
        let line = self.lines.recv_timeout(PATIENCE);
        line.map_err(|error| format!("{}: no further line: {error}", self.name).into())
    }

    /// Waits for a line that starts with `ready`.
    pub fn ready(self) -> Result<Self, Box<dyn Error>> {
        while !self.line()?.starts_with("ready") {}
        Ok(self)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes its standard input, which ends servers, and waits until it has ended.
    pub fn end(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.child.stdin.take());
        // The sender of the lines is dropped when its standard output closes.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks epmd for the names of its nodes: it listens if it can be asked.
fn ask(port: u16) -> std::io::Result<()> {
    let mut epmd = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    epmd.write_all(&[0, 1, b'n'])?;
    epmd.read_to_end(&mut Vec::new()).map(drop)
}

/// An epmd of our own, so that a run neither sees nor disturbs other nodes of the machine.
pub struct Epmd {
    port: u16,
    _running: Running,
}

impl Epmd {
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let running = Running::start(
            "epmd",
            Command::new("epmd").args(["-port", &port.to_string(), "-address", "127.0.0.1"]),
        )?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = ask(port) {
            if Instant::now() > deadline {
                return Err(format!("epmd does not listen on port {port}: {error}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            port,
            _running: running,
        })
    }

    /// A program that finds nodes here.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("ERL_EPMD_PORT", self.port.to_string());
        command
    }

    /// A BEAM node that evaluates an expression.
    pub fn erl(&self, name: &str, ebin: &Path, expression: &str) -> Command {
        let mut command = self.command("erl");
        command
            .args(["-noshell", "-name", name, "-setcookie", COOKIE])
            .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
            .arg("-pa")
            .arg(ebin)
            .args(["-eval", expression]);
        command
    }

    /// This program again.
    pub fn rust(&self, arguments: &[&str]) -> Result<Command, Box<dyn Error>> {
        let mut command = self.command(std::env::current_exe()?);
        command.args(arguments);
        Ok(command)
    }
}
