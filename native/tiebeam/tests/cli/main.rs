//! The program as a user sees it: what it prints, where, and with which exit code.
//!
//! Every test has an epmd port of its own, where its first node serves epmd. Tests that need Erlang say so and do
//! nothing where there is none.

mod status;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take that happens at once on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// Nodes that find one another.
struct Host {
    epmd: u16,
}

impl Host {
    fn new() -> Self {
        Self { epmd: free_port() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    fn tiebeam(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_tiebeam"))
            .args(args)
            .output()
            .unwrap()
    }

    /// Starts a node and waits until it is ready.
    fn node(&self, name: &str, args: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_tiebeam"));
        command
            .args(["node", "--name", name, "--cookie", "secret"])
            .args(args);
        Running::start(command)
    }

    /// Starts a BEAM node and waits until it is ready. `None` where Erlang is not installed.
    fn beam(&self, name: &str) -> Option<Running> {
        let mut command = self.command("erl");
        let ready = "io:format(\"ready ~s~n\", [node()])";
        command
            .args(["-noinput", "-start_epmd", "false", "-name", name])
            .args(["-setcookie", "secret", "-eval", ready]);
        if Command::new("erl")
            .arg("-version")
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("skipped: erl is not installed");
            return None;
        }
        Some(Running::start(command))
    }

    /// Runs the program until it prints this, or for too long.
    fn until(&self, args: &[&str], wanted: &str) {
        let start = Instant::now();
        loop {
            let output = self.tiebeam(args);
            if stdout(&output).trim_end() == wanted {
                return;
            }
            assert!(
                start.elapsed() < SOON,
                "{args:?} prints {output:?}, not {wanted}"
            );
        }
    }
}

/// A program that runs until the test ends.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Its first line.
    ready: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            sender.send(read.map(|_| (line, stdout)))
        });
        let read = receiver.recv_timeout(SOON);
        let Ok(Ok((ready, stdout))) = read else {
            let _ = child.kill();
            panic!("{command:?} is not ready: {read:?}");
        };
        let mut running = Self {
            child,
            stdout,
            ready,
        };
        if !running.ready.starts_with("ready ") {
            let stderr = running.stderr();
            panic!("{command:?} prints {:?} and {stderr}", running.ready);
        }
        running
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// The exit code, once the program has ended.
    fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < SOON, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote to stderr, after it is ended here if it has not by itself.
    fn stderr(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    /// The next line of its stderr.
    fn stderr_line(&mut self) -> String {
        let mut line = String::new();
        let mut stderr = BufReader::new(self.child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port for one test. It lies below those that the system hands out by itself, so that no other socket takes it between
/// this check and its use.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((std::process::id().wrapping_mul(61) + next) % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// One line on stderr, the exit code 1, nothing on stdout, no panic.
#[track_caller]
fn assert_fails(output: &Output, parts: &[&str]) {
    let stderr = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stdout(output), "");
    assert!(stderr.starts_with("tiebeam: "), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[track_caller]
fn assert_prints(output: &Output, line: &str) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(output), format!("{line}\n"));
    assert!(output.stderr.is_empty(), "{output:?}");
}

// ---- node

#[test]
fn a_node_says_where_it_listens_and_leaves_when_it_is_told_to() {
    for signal in ["-TERM", "-INT"] {
        let host = Host::new();
        let mut node = host.node("a@127.0.0.1", &[]);
        let words: Vec<&str> = node.ready.trim_end().split(' ').collect();
        let ["ready", "a@127.0.0.1", port, pid] = words[..] else {
            panic!("{:?}", node.ready);
        };
        let port: u16 = port.strip_prefix("port=").unwrap().parse().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(pid, format!("pid={}", node.child.id()));
        node.signal(signal);
        assert_eq!(node.wait(), Some(0));
        let mut rest = String::new();
        node.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(node.stderr(), "");
    }
}

#[test]
fn a_node_listens_where_it_is_told_to() {
    let host = Host::new();
    let port = free_port();
    let node = host.node("a@127.0.0.1", &["--port", &port.to_string()]);
    assert!(
        node.ready.contains(&format!("port={port} ")),
        "{}",
        node.ready
    );
}

#[test]
fn a_node_joins_others_also_those_that_start_later() {
    let host = Host::new();
    let _first = host.node("a@127.0.0.1", &["--join", "b@127.0.0.1"]);
    let _second = host.node("b@127.0.0.1", &[]);
    host.until(
        &[
            "rpc",
            "b@127.0.0.1",
            "erlang",
            "nodes",
            "--cookie",
            "secret",
        ],
        "['a@127.0.0.1']",
    );
}

#[test]
fn a_node_finds_others_where_it_is_told_to_look() {
    let host = Host::new();
    let _first = host.node(
        "a@127.0.0.1",
        &["--discover", "static:b@127.0.0.1?interval=1"],
    );
    let _second = host.node("b@127.0.0.1", &[]);
    let _third = host.node(
        "c@127.0.0.1",
        &["--discover", "epmd:127.0.0.1?name=a*&interval=1"],
    );
    let nodes = ["rpc", "a@127.0.0.1", "erlang", "nodes"];
    host.until(
        &[&nodes[..], &["--cookie", "secret"]].concat(),
        "['b@127.0.0.1','c@127.0.0.1']",
    );
}

#[test]
fn a_node_that_cannot_look_as_it_is_told_to_says_what_to_write() {
    let host = Host::new();
    for (spec, says) in [
        (
            "mdns:app",
            "use static, epmd, hosts, dns, srv, k8s, k8s-api or gossip",
        ),
        (
            "gossip?secret-file=/nonexistent",
            "cannot read the secret file /nonexistent",
        ),
    ] {
        let node = ["node", "--name", "a@127.0.0.1", "--cookie", "secret"];
        let output = host.tiebeam(&[&node[..], &["--discover", spec]].concat());
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn a_hidden_node_is_not_among_the_nodes() {
    let host = Host::new();
    let _first = host.node("a@127.0.0.1", &[]);
    let _second = host.node("b@127.0.0.1", &["--hidden", "--join", "a@127.0.0.1"]);
    let nodes = ["rpc", "a@127.0.0.1", "erlang", "nodes", "[hidden]"];
    // The node that asks is hidden, too.
    let start = Instant::now();
    loop {
        let output = host.tiebeam(&[&nodes[..], &["--cookie", "secret"]].concat());
        if stdout(&output).contains("'b@127.0.0.1'") {
            break;
        }
        assert!(start.elapsed() < SOON, "{output:?}");
    }
    let output = host.tiebeam(&[&nodes[..4], &["--cookie", "secret"]].concat());
    assert_prints(&output, "[]");
}

#[test]
fn a_node_runs_without_epmd() {
    let host = Host::new();
    let port = free_port().to_string();
    let _node = host.node("a@127.0.0.1", &["--epmd", "none", "--port", &port]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, host.epmd)).is_err());
}

#[test]
fn nodes_without_epmd_are_found_by_their_port() {
    let host = Host::new();
    let port = free_port().to_string();
    let _node = host.node("a@127.0.0.1", &["--common-port", &port]);
    let ping = |args: &[&str]| {
        host.tiebeam(&[&["ping", "a@127.0.0.1", "--cookie", "secret"], args].concat())
    };
    let address = format!("a@127.0.0.1=127.0.0.1:{port}");
    for found in [["--common-port", &port], ["--address", &address]] {
        assert_pong(&ping(&found));
    }
    assert_fails(&ping(&[]), &["no epmd answers"]);
    let malformed = ping(&["--address", "a@127.0.0.1=9100"]);
    let stderr = String::from_utf8_lossy(&malformed.stderr);
    assert!(
        stderr.contains("write 127.0.0.1:9100 or [::1]:9100"),
        "{stderr}"
    );
    assert_eq!(malformed.status.code(), Some(2));
}

#[test]
fn a_node_that_refuses_the_cookie_is_named_in_the_log() {
    let host = Host::new();
    let _first = host.node("a@127.0.0.1", &[]);
    let mut command = host.command(env!("CARGO_BIN_EXE_tiebeam"));
    command.args([
        "node",
        "--name",
        "b@127.0.0.1",
        "--cookie",
        "other",
        "--join",
        "a@127.0.0.1",
    ]);
    let line = Running::start(command).stderr_line();
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("a@127.0.0.1"), "{line}");
    assert!(line.contains("cookie"), "{line}");
}

#[test]
fn a_node_stops_when_another_one_calls_the_fixture_to() {
    let host = Host::new();
    let mut node = host.node("a@127.0.0.1", &["--fixture"]);
    let output = host.tiebeam(&[
        "rpc",
        "a@127.0.0.1",
        "fixture",
        "stop",
        "--cookie",
        "secret",
    ]);
    assert_prints(&output, "ok");
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let host = Host::new();
    let _first = host.node("a@127.0.0.1", &[]);
    let node = |name, args: &[&str]| {
        host.tiebeam(&[&["node", "--cookie", "secret", "--name", name], args].concat())
    };
    assert_fails(
        &node("a@127.0.0.1", &[]),
        &["'a'", "already registered", "another one"],
    );
    assert_fails(&node("a", &[]), &["'a'", "alive@host"]);
    assert_fails(&node("a b@127.0.0.1", &[]), &["offset 1", "letters"]);
    let join = ["--join", "b@short"];
    assert_fails(&node("c@127.0.0.1", &join), &["b@short", "-name", "-sname"]);
    let join = ["--join", "c@127.0.0.1"];
    assert_fails(&node("c@127.0.0.1", &join), &["itself"]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_fails(
        &node("c@127.0.0.1", &["--port", &port]),
        &[&port, "in use", "another port"],
    );
    assert_fails(
        &node("c@127.0.0.1", &["--epmd", "serve"]),
        &["epmd", &host.epmd.to_string(), "ERL_EPMD_PORT"],
    );
    let nobody = Host::new();
    let client = ["node", "--name", "a@127.0.0.1", "--cookie", "c"];
    assert_fails(
        &nobody.tiebeam(&[&client[..], &["--epmd", "client"]].concat()),
        &["no epmd answers", &nobody.epmd.to_string(), "epmd -daemon"],
    );
}

#[test]
fn a_node_without_a_cookie_says_where_to_put_one() {
    let host = Host::new();
    let name = ["node", "--name", "a@127.0.0.1"];
    let file = std::env::temp_dir().join(format!("tiebeam-no-cookie-{}", std::process::id()));
    let file = file.to_str().unwrap();
    assert_fails(
        &host.tiebeam(&[&name[..], &["--cookie-file", file]].concat()),
        &[file, "No such file"],
    );
    assert_fails(
        &host.tiebeam(&[&name[..], &["--cookie", ""]].concat()),
        &["cookie", "empty"],
    );
    let mut command = host.command(env!("CARGO_BIN_EXE_tiebeam"));
    command
        .args(name)
        .env("HOME", file)
        .env_remove("XDG_CONFIG_HOME");
    let output = command.output().unwrap();
    assert_fails(&output, &[".erlang.cookie", "--cookie"]);
}

// ---- ping and rpc

/// A ping's line, such as `pong (1.2 ms)`.
#[track_caller]
fn assert_pong(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let time = stdout(output)
        .strip_prefix("pong (")
        .and_then(|rest| rest.strip_suffix(" ms)\n"));
    let milliseconds: f64 = time.expect("pong (T ms)").parse().unwrap();
    assert!(milliseconds > 0.0 && milliseconds < 5_000.0);
}

#[test]
fn a_node_answers_a_ping() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &[]);
    assert_pong(&host.tiebeam(&["ping", "a@127.0.0.1", "--cookie", "secret"]));
}

#[test]
fn a_node_with_a_short_name_answers_a_ping() {
    let host = Host::new();
    let _node = host.node("a@localhost", &[]);
    assert_pong(&host.tiebeam(&["ping", "a@localhost", "--cookie", "secret"]));
}

#[test]
fn a_ping_without_an_answer_says_why() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &[]);
    let ping = |node, cookie| host.tiebeam(&["ping", node, "--cookie", cookie]);
    assert_fails(
        &ping("a@127.0.0.1", "other"),
        &["a@127.0.0.1", "another cookie", "the same one"],
    );
    assert_fails(
        &ping("nobody@127.0.0.1", "secret"),
        &["'nobody'", "start 'nobody@127.0.0.1'"],
    );
    assert_fails(
        &ping("a@host.invalid", "secret"),
        &["host.invalid", "does not resolve"],
    );
    assert_fails(&ping("a", "secret"), &["'a'", "alive@host"]);
    let nobody = Host::new();
    assert_fails(
        &nobody.tiebeam(&["ping", "a@127.0.0.1", "--cookie", "secret"]),
        &["no epmd answers", "ERL_EPMD_PORT"],
    );
}

#[test]
fn a_ping_of_a_node_that_hangs_ends_in_time() {
    let host = Host::new();
    let node = host.node("a@127.0.0.1", &[]);
    // Its epmd hangs as well, if it serves it: let another node do that.
    let hanging = host.node("b@127.0.0.1", &[]);
    hanging.signal("-STOP");
    let output = host.tiebeam(&[
        "ping",
        "b@127.0.0.1",
        "--timeout",
        "1",
        "--cookie",
        "secret",
    ]);
    assert_fails(&output, &["no reply within 1s"]);
    drop(node);
}

#[test]
fn the_value_of_a_call_is_printed_in_erlang_syntax() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &["--fixture"]);
    let rpc = |module, function, args| {
        let call = ["rpc", "a@127.0.0.1", module, function, args];
        host.tiebeam(&[&call[..], &["--cookie", "secret"]].concat())
    };
    assert_prints(&rpc("erlang", "node", "[]"), "'a@127.0.0.1'");
    assert_prints(
        &rpc("fixture", "add", "[1, 16#ffffffffffffffff]"),
        "18446744073709551616",
    );
    let request = "[echo, #{a => <<\"b\">>, \"c\" => [1.5, {'X'}|y]}, 5000]";
    assert_prints(
        &rpc("fixture", "call", request),
        "#{a => <<\"b\">>,\"c\" => [1.5,{'X'}|y]}",
    );
}

#[test]
fn a_call_without_a_value_says_why() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &["--fixture"]);
    let rpc = |module, function, args| {
        let call = ["rpc", "a@127.0.0.1", module, function, args];
        host.tiebeam(&[&call[..], &["--cookie", "secret", "--timeout", "1"]].concat())
    };
    assert_fails(&rpc("fixture", "add", "[1, 2"), &["offset 5", "end of"]);
    assert_fails(&rpc("fixture", "add", "{1, 2}"), &["list", "'[{1,2}]'"]);
    assert_fails(
        &rpc("fixture", "add", "[1, a]"),
        &["badarith", "{fixture,add,2,[]}"],
    );
    assert_fails(
        &rpc("fixture", "add", "[1]"),
        &["undef", "{fixture,add,[1],[]}"],
    );
    assert_fails(&rpc("fixture", "throw", "[ball]"), &["threw ball"]);
    assert_fails(&rpc("fixture", "exit", "[{bye, 1}]"), &["exited: {bye,1}"]);
    assert_fails(&rpc("fixture", "sleep", "[60000]"), &["no reply within 1s"]);
}

#[test]
fn a_beam_node_answers() {
    let host = Host::new();
    let _epmd = host.node("epmd@127.0.0.1", &[]);
    let Some(_beam) = host.beam("beam@127.0.0.1") else {
        return;
    };
    let cookie = ["--cookie", "secret"];
    assert_pong(&host.tiebeam(&[&["ping", "beam@127.0.0.1"][..], &cookie].concat()));
    let rpc = |module, function, args| {
        let call = ["rpc", "beam@127.0.0.1", module, function, args];
        host.tiebeam(&[&call[..], &cookie].concat())
    };
    assert_prints(&rpc("lists", "reverse", "[\"abc\"]"), "\"cba\"");
    // What the function prints appears here: the caller does its output.
    let output = rpc("io", "format", "[\"hello ~p~n\", [[x]]]");
    assert_prints(&output, "hello [x]\nok");
    // The caller was hidden, and it left.
    assert_prints(&rpc("erlang", "nodes", "[]"), "[]");
    assert_fails(
        &rpc("lists", "nope", "[]"),
        &["undef", "{lists,nope,[],[]}"],
    );
    assert_fails(
        &host.tiebeam(&["ping", "beam@127.0.0.1", "--cookie", "other"]),
        &["another cookie"],
    );
}

// ---- the cluster

/// The members as JSON, without what differs from run to run.
fn members(output: &Output) -> Vec<(String, String, String)> {
    let Ok(serde_json::Value::Array(members)) = serde_json::from_slice(&output.stdout) else {
        return Vec::new();
    };
    let text = |member: &serde_json::Value, key| member[key].as_str().unwrap().to_owned();
    members
        .iter()
        .map(|member| {
            assert!(member["creation"].is_u64() && member["incarnation"].is_u64());
            (
                text(member, "node"),
                text(member, "kind"),
                text(member, "status"),
            )
        })
        .collect()
}

/// Waits until a member sees these nodes with these states, all of them Rust nodes.
#[track_caller]
fn await_members(host: &Host, node: &str, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(node, status)| ((*node).into(), "rust".into(), (*status).into()))
        .collect();
    let start = Instant::now();
    loop {
        let output = host.tiebeam(&["members", node, "--json", "--cookie", "secret"]);
        let members = members(&output);
        if members == wanted {
            return;
        }
        assert!(
            start.elapsed() < SOON,
            "{members:?}, not {wanted:?}: {output:?}"
        );
    }
}

#[test]
fn members_know_who_comes_who_leaves_and_who_dies() {
    let host = Host::new();
    let fast = ["--profile", "fast", "--join"];
    let _a = host.node("a@127.0.0.1", &fast[..2]);
    let mut b = host.node("b@127.0.0.1", &[&fast[..], &["a@127.0.0.1"]].concat());
    let c = host.node("c@127.0.0.1", &[&fast[..], &["b@127.0.0.1"]].concat());
    let all = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    for node in all {
        await_members(&host, node, &all.map(|node| (node, "alive")));
    }
    let table = host.tiebeam(&["members", "a@127.0.0.1", "--cookie", "secret"]);
    let words: Vec<Vec<&str>> = stdout(&table)
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        words[0],
        [
            "NODE",
            "KIND",
            "STATUS",
            "ROUND",
            "TRIP",
            "CREATION",
            "INCARNATION",
            "METADATA"
        ]
    );
    assert_eq!(words[1][..3], ["a@127.0.0.1", "rust", "alive"]);
    assert_eq!(words.len(), 4);

    b.signal("-TERM");
    assert_eq!(b.wait(), Some(0));
    c.signal("-KILL");
    let left = [(all[0], "alive"), (all[1], "left"), (all[2], "dead")];
    await_members(&host, all[0], &left);
}

/// `tiebeam watch`, line by line.
struct Watch {
    running: Child,
    lines: mpsc::Receiver<(Instant, String)>,
}

impl Watch {
    fn start(host: &Host, args: &[&str]) -> Self {
        let mut command = host.command(env!("CARGO_BIN_EXE_tiebeam"));
        command.arg("watch").args(args).args(["--cookie", "secret"]);
        let mut running = command.spawn().unwrap();
        let stdout = BufReader::new(running.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { running, lines }
    }

    /// When this line came, without the time before it.
    #[track_caller]
    fn until(&self, wanted: &str) -> Instant {
        self.until_one_of(&[wanted])
    }

    /// Waits for a line that begins so.
    #[track_caller]
    fn until_begin(&self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(SOON);
            let (_, line) = line.unwrap_or_else(|_| panic!("never printed: {wanted}"));
            let (_, event) = line.trim_start().split_once(' ').unwrap();
            if event.starts_with(wanted) {
                return;
            }
        }
    }

    #[track_caller]
    fn until_one_of(&self, wanted: &[&str]) -> Instant {
        let mut others = Vec::new();
        while let Ok((at, line)) = self.lines.recv_timeout(SOON) {
            let (_, event) = line.trim_start().split_once(' ').unwrap();
            if wanted.contains(&event) {
                return at;
            }
            others.push(line);
        }
        panic!("no {wanted:?} among {others:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

#[test]
fn a_watch_shows_who_is_there_and_what_happens() {
    let host = Host::new();
    let mut a = host.node("a@127.0.0.1", &["--profile", "fast"]);
    let watch = Watch::start(&host, &["a@127.0.0.1"]);
    watch.until("alive a@127.0.0.1 (rust)");
    let join = ["--profile", "fast", "--join", "a@127.0.0.1"];
    let b = host.node(
        "b@127.0.0.1",
        &[&join[..], &["--metadata", "zone 1"]].concat(),
    );
    watch.until("up b@127.0.0.1 (rust)");
    let table = host.tiebeam(&["members", "a@127.0.0.1", "--cookie", "secret"]);
    assert!(stdout(&table).contains("  zone 1\n"), "{table:?}");
    let mut counted = Watch::start(&host, &["a@127.0.0.1", "--count", "1"]);
    counted.until("alive b@127.0.0.1 (rust)");
    b.signal("-TERM");
    counted.until("left b@127.0.0.1 (rust)");
    assert!(counted.running.wait().unwrap().success());
    watch.until("left b@127.0.0.1 (rust)");

    // The end of the member is the end of the watch.
    a.signal("-TERM");
    watch.until("left a@127.0.0.1 (rust)");
    assert_eq!(a.wait(), Some(0));
    let mut watch = watch;
    let mut stderr = String::new();
    let status = watch.running.wait().unwrap();
    let pipe = watch.running.stderr.as_mut().unwrap();
    pipe.read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("a@127.0.0.1"), "{stderr}");
}

#[test]
fn a_watch_of_a_node_that_is_no_member_says_so() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &["--no-cluster"]);
    assert_fails(
        &host.tiebeam(&["watch", "a@127.0.0.1", "--cookie", "secret"]),
        &["a@127.0.0.1 is no member"],
    );
}

/// How long it may take until a node that stands still is known dead, in the profile `fast`.
const FROZEN_IS_DEAD: Duration = Duration::from_secs(3);

/// Freezes a node of this kind: all survivors know in time that it is dead, are connected to one another and not to it,
/// and see it return when it thaws.
#[track_caller]
fn assert_frozen_is_dead(host: &Host, survivors: [&str; 2], frozen: (&str, &Running), kind: &str) {
    let (name, node) = frozen;
    let [here, up, down] = ["alive", "up", "down"].map(|what| format!("{what} {name} ({kind})"));
    // A machine that is busy with other things makes a member doubt itself and wait longer: one of three shall do it.
    let mut took = Vec::new();
    for _ in 0..3 {
        let watches = survivors.map(|survivor| Watch::start(host, &[survivor]));
        for watch in &watches {
            watch.until_one_of(&[&here, &up]);
        }
        // Both are connected to it, so that both have to judge.
        let pairs = [(survivors[0], survivors[1]), (survivors[1], survivors[0])];
        let connected = |also: &str| {
            for (survivor, other) in pairs {
                let ask = ["rpc", survivor, "erlang", "nodes", "--cookie", "secret"];
                host.until(&ask, &format!("['{other}'{also}]"));
            }
        };
        connected(&format!(",'{name}'"));
        node.signal("-STOP");
        let begin = Instant::now();
        let last = watches.iter().map(|watch| watch.until(&down)).max();
        took.push(last.unwrap() - begin);
        connected("");
        node.signal("-CONT");
        for watch in &watches {
            watch.until(&up);
        }
        if took.last().is_some_and(|took| *took < FROZEN_IS_DEAD) {
            return;
        }
    }
    panic!("{took:?}");
}

#[test]
fn a_rust_node_that_stands_still_is_known_dead_in_three_seconds_and_returns_when_it_thaws() {
    let host = Host::new();
    let join = ["--profile", "fast", "--join", "a@127.0.0.1"];
    let _a = host.node("a@127.0.0.1", &join[..2]);
    let _b = host.node("b@127.0.0.1", &join);
    let c = host.node("c@127.0.0.1", &join);
    let survivors = ["a@127.0.0.1", "b@127.0.0.1"];
    assert_frozen_is_dead(&host, survivors, ("c@127.0.0.1", &c), "rust");
}

#[test]
fn a_plain_beam_node_that_stands_still_is_known_dead_in_three_seconds_and_returns_when_it_thaws() {
    let host = Host::new();
    let join = ["--profile", "fast", "--join", "a@127.0.0.1"];
    let _a = host.node("a@127.0.0.1", &join[..2]);
    let _b = host.node("b@127.0.0.1", &join);
    let Some(plain) = host.beam("p@127.0.0.1") else {
        return;
    };
    let survivors = ["a@127.0.0.1", "b@127.0.0.1"];
    for survivor in survivors {
        let node = format!("['{survivor}']");
        let connect = ["rpc", "p@127.0.0.1", "net_kernel", "connect_node", &node];
        host.until(&[&connect[..], &["--cookie", "secret"]].concat(), "true");
    }
    assert_frozen_is_dead(&host, survivors, ("p@127.0.0.1", &plain), "plain");
}

/// What a plain node asks of a member over the network.
fn ask(host: &Host, member: &str, request: &tiebeam_node::Term) -> tiebeam_node::Term {
    use tiebeam_node::{Config, Cookie, EpmdMode, Node};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config::new("asker@127.0.0.1", Cookie::new("secret"))
            .hidden(true)
            .listen(Ipv4Addr::LOCALHOST.into())
            .epmd(EpmdMode::LookUpOnly, host.epmd);
        let node = Node::start(config).await.unwrap();
        let reply = node.call_term(("tiebeam", member), request.clone(), SOON);
        let reply = reply.await.unwrap();
        node.stop().await;
        reply
    })
}

#[test]
fn names_and_groups_are_shown_until_their_node_is_killed() {
    let host = Host::new();
    let fast = ["--profile", "fast", "--join", "a@127.0.0.1"];
    let a = "a@127.0.0.1";
    let _a = host.node(a, &fast[..2]);
    let b = host.node("b@127.0.0.1", &fast);
    for node in [a, "b@127.0.0.1"] {
        let alive = [(a, "alive"), ("b@127.0.0.1", "alive")];
        await_members(&host, node, &alive);
    }
    let cookie = ["--cookie", "secret"];
    let whereis = ["rpc", "b@127.0.0.1", "erlang", "whereis", "[tiebeam]"];
    let pid = host.tiebeam(&[&whereis[..], &cookie].concat());
    let pid = stdout(&pid).trim().to_owned();
    for request in [
        format!("{{register, default, <<\"db\">>, {pid}, #{{zone => 1}}}}"),
        format!("{{register, other, hidden, {pid}}}"),
        format!("{{join, default, workers, {pid}}}"),
    ] {
        let request = tiebeam_node::Term::parse(&request).unwrap();
        assert!(ask(&host, "b@127.0.0.1", &request).is_atom("ok"));
    }

    let json = |name: &str, meta: &str| {
        format!(r#"[{{"name":"{name}","node":"b@127.0.0.1","pid":"{pid}","meta":"{meta}"}}]"#)
    };
    let names = [&["names", a, "--json"][..], &cookie].concat();
    let groups = [&["groups", a, "--json"][..], &cookie].concat();
    host.until(&names, &json(r#"<<\"db\">>"#, "#{zone => 1}"));
    host.until(&groups, &json("workers", "nil"));
    let other = [&names[..], &["--scope", "other"]].concat();
    host.until(&other, &json("hidden", "nil"));
    let table = host.tiebeam(&[&["names", a][..], &cookie].concat());
    let mut lines = stdout(&table).lines().map(str::split_whitespace);
    let heads = ["NAME", "NODE", "PID", "METADATA"];
    assert!(lines.next().unwrap().eq(heads));
    let row = ["<<\"db\">>", "b@127.0.0.1", &pid, "#{zone", "=>", "1}"];
    assert!(lines.next().unwrap().eq(row), "{table:?}");

    b.signal("-KILL");
    host.until(&names, "[]");
    host.until(&groups, "[]");
    let output = host.tiebeam(&["names", "b@127.0.0.1", "--cookie", "secret"]);
    assert_fails(&output, &["b@127.0.0.1"]);
}

/// A node without Tiebeam takes part through any member, which watches its process.
#[test]
fn a_plain_beam_node_registers_at_one_member_and_asks_another() {
    let host = Host::new();
    let fast = ["--profile", "fast", "--join", "a@127.0.0.1"];
    let (a, b, p) = ("a@127.0.0.1", "b@127.0.0.1", "p@127.0.0.1");
    let _a = host.node(a, &fast[..2]);
    let _b = host.node(b, &fast);
    let Some(plain) = host.beam(p) else { return };
    for node in [a, b] {
        await_members(&host, node, &[(a, "alive"), (b, "alive")]);
    }
    let cookie = ["--cookie", "secret"];
    let rpc = |module: &str, function: &str, args: &str| {
        let output = host.tiebeam(&[&["rpc", p, module, function, args][..], &cookie].concat());
        assert!(output.stderr.is_empty(), "{output:?}");
        stdout(&output).trim().to_owned()
    };
    let call = |member: &str, request: String| {
        let args = format!("[{{tiebeam, '{member}'}}, {request}]");
        rpc("gen_server", "call", &args)
    };
    let pid = rpc("erlang", "whereis", "[init]");
    let registered = call(a, format!("{{register, default, <<\"db\">>, {pid}}}"));
    assert_eq!(registered, "ok");
    let names = [&["names", b, "--json"][..], &cookie].concat();
    let name = r#"<<\"db\">>"#;
    host.until(
        &names,
        &format!(r#"[{{"name":"{name}","node":"{p}","pid":"{pid}","meta":"nil"}}]"#),
    );
    let whereis = || "{whereis, default, <<\"db\">>}".to_owned();
    assert_eq!(call(b, whereis()), pid);
    let other = rpc("erlang", "whereis", "[kernel_sup]");
    let taken = call(b, format!("{{register, default, <<\"db\">>, {other}}}"));
    assert_eq!(taken, format!("{{error,{{taken,{pid}}}}}"));
    let foreign = host.tiebeam(&[
        "rpc",
        a,
        "erlang",
        "whereis",
        "[tiebeam]",
        "--cookie",
        "secret",
    ]);
    let foreign = stdout(&foreign).trim();
    let refused = call(b, format!("{{register, default, other, {foreign}}}"));
    assert!(refused.starts_with("{error,{invalid,"), "{refused}");
    let long = "x".repeat(2000);
    let refused = call(a, format!("{{register, default, <<\"{long}\">>, {pid}}}"));
    assert!(refused.contains("the limit is 1024"), "{refused}");

    // `global` of the plain node is seen by all that it is connected with.
    assert_eq!(
        rpc("global", "register_name", &format!("[counter, {pid}]")),
        "yes"
    );
    let args = format!("[{{tiebeam, '{b}'}}, {{whereis, global, counter}}]");
    let whereis = ["rpc", p, "gen_server", "call", args.as_str()];
    host.until(&[&whereis[..], &cookie].concat(), &pid);

    plain.signal("-KILL");
    host.until(&names, "[]");
}

/// A directory that is removed with its test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiebeam-cli-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Three voters with disks.
fn voters(host: &Host, directory: &Directory) -> Vec<Running> {
    let names = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    let start = |name: &&str| {
        let data = directory.0.join(name);
        let mut args = vec!["--voters", "a@127.0.0.1,b@127.0.0.1,c@127.0.0.1"];
        args.extend(["--data-dir", data.to_str().unwrap()]);
        for other in names.iter().filter(|other| *other != name) {
            args.extend(["--join", other]);
        }
        host.node(name, &args)
    };
    names.iter().map(start).collect()
}

/// Who leads, once somebody other than `but` does.
fn await_leader(host: &Host, node: &str, but: Option<&str>) -> String {
    let start = Instant::now();
    loop {
        let output = host.tiebeam(&["leader", node, "--json", "--cookie", "secret"]);
        let led: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        match led["leader"].as_str() {
            Some(leader) if Some(leader) != but => {
                assert!(led["term"].as_u64().unwrap() > 0, "{led}");
                return leader.to_owned();
            }
            _ => assert!(start.elapsed() < 3 * SOON, "no leader: {led}"),
        }
    }
}

/// Runs it until it succeeds: an election may be under way.
fn succeeds(host: &Host, args: &[&str]) -> Output {
    let start = Instant::now();
    loop {
        let output = host.tiebeam(&[args, &["--cookie", "secret"]].concat());
        if output.status.success() {
            return output;
        }
        assert!(start.elapsed() < 3 * SOON, "{args:?}: {output:?}");
    }
}

#[test]
fn what_was_put_survives_the_leader_and_a_restart() {
    let (host, directory) = (Host::new(), Directory::new());
    // Serves epmd, and outlives the others.
    let _epmd = host.node("epmd@127.0.0.1", &["--no-cluster"]);
    let mut nodes = voters(&host, &directory);
    let [a, b, c] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    let leader = await_leader(&host, a, None);
    let watch = Watch::start(&host, &[b]);
    watch.until_begin(&format!("leader {leader} (term "));
    let put = succeeds(&host, &["kv", a, "put", "user:1", "Alice"]);
    let revision: u64 = stdout(&put).trim().parse().unwrap();
    succeeds(&host, &["kv", b, "put", "user:2", "{bob, 7}", "--term"]);
    let get = host.tiebeam(&["kv", c, "get", "user:1", "--cookie", "secret"]);
    assert_prints(&get, "Alice");
    let list = succeeds(&host, &["kv", b, "list", "user:", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(stdout(&list)).unwrap();
    let alice =
        serde_json::json!({"key": "user:1", "value": "<<\"Alice\">>", "revision": revision});
    assert_eq!(rows[0], alice);
    assert_eq!(
        (&rows[1]["value"], &rows[2]),
        (&"{bob,7}".into(), &serde_json::Value::Null)
    );
    let locks = host.tiebeam(&["locks", a, "--cookie", "secret"]);
    assert_prints(&locks, "NAME  TOKEN  NODE  PID  METADATA");

    let dead = nodes.iter().position(|node| node.ready.contains(&leader));
    let dead = nodes.swap_remove(dead.unwrap());
    dead.signal("-KILL");
    drop(dead);
    let survivor = [a, b].into_iter().find(|node| *node != leader).unwrap();
    await_leader(&host, survivor, Some(&leader));
    succeeds(&host, &["kv", survivor, "put", "user:3", "Carol"]);
    // Without a majority nothing is acknowledged, and the program says so.
    let other = nodes.iter().position(|node| !node.ready.contains(survivor));
    nodes.swap_remove(other.unwrap()).signal("-KILL");
    let lonely = host.tiebeam(&[
        "kv", survivor, "put", "user:4", "Dave", "--cookie", "secret",
    ]);
    assert_eq!(lonely.status.code(), Some(1), "{lonely:?}");

    nodes.clear();
    let _nodes = voters(&host, &directory);
    await_leader(&host, a, None);
    let carol = succeeds(&host, &["kv", a, "get", "user:3"]);
    assert_eq!(stdout(&carol).trim_end(), "Carol");
    succeeds(&host, &["kv", c, "delete", "user:1"]);
    let gone = host.tiebeam(&["kv", b, "get", "user:1", "--cookie", "secret"]);
    assert_fails(&gone, &["there is no key \"user:1\""]);
}

#[test]
fn leadership_is_handed_over_and_partitions_are_placed_by_hand() {
    let (host, directory) = (Host::new(), Directory::new());
    // Serves epmd, and outlives the others.
    let _epmd = host.node("epmd@127.0.0.1", &["--no-cluster"]);
    let [a, b, c] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];
    let start = |name: &str| {
        let data = directory.0.join(name);
        let voters = ["--voters", "a@127.0.0.1,b@127.0.0.1,c@127.0.0.1"];
        let mut args = vec!["--fixture", "--data-dir", data.to_str().unwrap()];
        args.extend(voters);
        for other in [a, b, c].iter().filter(|other| **other != name) {
            args.extend(["--join", other]);
        }
        host.node(name, &args)
    };
    let _nodes = [a, b, c].map(start);
    let leader = await_leader(&host, a, None);
    let other = [a, b, c].into_iter().find(|node| *node != leader).unwrap();
    let start = Instant::now();
    while await_leader(&host, c, None) != other {
        // An election may be under way, or the other one not have all yet.
        let output = host.tiebeam(&["stepdown", a, "--to", other, "--cookie", "secret"]);
        assert!(start.elapsed() < 3 * SOON, "{output:?}");
    }
    let nobody = host.tiebeam(&[
        "stepdown",
        a,
        "--to",
        "nobody@127.0.0.1",
        "--cookie",
        "secret",
    ]);
    assert_fails(&nobody, &["nobody@127.0.0.1 is no voter"]);

    // The fixture's rings report to a process: here to one that does not mind.
    let whereis = host.tiebeam(&[
        "rpc",
        "epmd@127.0.0.1",
        "erlang",
        "whereis",
        "[rex]",
        "--cookie",
        "secret",
    ]);
    let pid = stdout(&whereis).trim().to_owned();
    for node in [a, b] {
        let args = format!("[<<\"users\">>, 4, {pid}]");
        succeeds(&host, &["rpc", node, "fixture", "take_part", &args]);
    }
    let rings = || -> serde_json::Value {
        let output = host.tiebeam(&["rings", c, "--json", "--cookie", "secret"]);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let until = |what: &str, test: &dyn Fn(&serde_json::Value) -> bool| {
        let start = Instant::now();
        while !test(&rings()) {
            assert!(start.elapsed() < 3 * SOON, "{what}: {}", rings());
        }
    };
    until("both take part", &|rings| {
        rings.as_array().unwrap().len() == 2
    });
    let ok = |node: &str| format!("ring <<\"users\">> on {node}: ok");
    assert_prints(
        &succeeds(&host, &["weight", a, "300", "--ring", "users"]),
        &ok(a),
    );
    assert_prints(
        &succeeds(&host, &["label", b, "zone=b", "disk=ssd"]),
        &ok(b),
    );
    until("labels", &|rings| rings[1]["labels"]["disk"] == "ssd");
    succeeds(&host, &["label", b, "disk-"]);
    assert_prints(
        &succeeds(&host, &["move", c, "ring", "users", "2", "--to", b]),
        &ok(b),
    );
    let json = succeeds(&host, &["cordon", b, "--json"]);
    assert_prints(
        &json,
        &format!(r#"[{{"kind":"ring","name":"<<\"users\">>","node":"{b}"}}]"#),
    );
    let says = serde_json::json!([
        {"name": "<<\"users\">>", "node": a, "state": "open", "weight": 300, "labels": {}, "pinned": []},
        {"name": "<<\"users\">>", "node": b, "state": "cordoned", "weight": 100, "labels": {"zone": "b"}, "pinned": [2]},
    ]);
    until("what they say", &|rings| *rings == says);
    let moved = host.tiebeam(&[
        "move", c, "ring", "users", "3", "--to", b, "--cookie", "secret",
    ]);
    assert_fails(&moved, &["cordoned"]);
    succeeds(&host, &["uncordon", b]);
    succeeds(&host, &["rebalance", c, "ring", "users"]);
    assert_prints(&succeeds(&host, &["drain", b, "--timeout", "30"]), &ok(b));
    until("one is left", &|rings| rings.as_array().unwrap().len() == 1);
    for args in [
        &["cordon", b][..],
        &["rebalance", a, "pool", "users"],
        &["move", a, "ring", "users", "0", "--to", b],
        &["label", a, "zone"],
    ] {
        let output = host.tiebeam(&[args, &["--cookie", "secret"]].concat());
        assert!(!output.status.success(), "{args:?}");
    }
    let pools = host.tiebeam(&["pools", a, "--cookie", "secret"]);
    assert_prints(&pools, "POOL  NODE  STATE  WEIGHT  LABELS  PINNED");
}

#[test]
fn a_node_without_voters_has_no_keys() {
    let host = Host::new();
    let _a = host.node("a@127.0.0.1", &[]);
    let leader = host.tiebeam(&["leader", "a@127.0.0.1", "--cookie", "secret"]);
    assert_prints(&leader, "none, as far as a@127.0.0.1 knows");
    let put = host.tiebeam(&["kv", "a@127.0.0.1", "put", "k", "v", "--cookie", "secret"]);
    assert_fails(&put, &["a@127.0.0.1", "--voters"]);
    let node = [
        "node",
        "--name",
        "b@127.0.0.1",
        "--cookie",
        "secret",
        "--data-dir",
        "/nowhere",
    ];
    assert_fails(&host.tiebeam(&node), &["no voters"]);
}

#[test]
fn a_node_that_is_no_member_says_so() {
    let host = Host::new();
    let _node = host.node("a@127.0.0.1", &["--no-cluster"]);
    assert_fails(
        &host.tiebeam(&["members", "a@127.0.0.1", "--cookie", "secret"]),
        &["a@127.0.0.1 is no member", "tiebeam"],
    );
}

#[test]
fn nodes_of_two_clusters_are_no_members_of_one_another() {
    let host = Host::new();
    let _a = host.node("a@127.0.0.1", &[]);
    let join = ["--cluster", "blue", "--join", "a@127.0.0.1"];
    let mut b = host.node("b@127.0.0.1", &join);
    let line = b.stderr_line();
    assert!(line.contains("another cluster"), "{line}");
    await_members(&host, "a@127.0.0.1", &[("a@127.0.0.1", "alive")]);
    await_members(&host, "b@127.0.0.1", &[("b@127.0.0.1", "alive")]);
}

// ---- the demo

/// The demo shows this, and nothing that did not happen; its output is plain text.
#[track_caller]
fn assert_shows(output: &Output, parts: &[&str]) {
    let text = stdout(output);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!text.contains(['✗', '\x1b']), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_demo_shows_rust_nodes_where_there_is_no_elixir() {
    let mut command = Host::new().command(env!("CARGO_BIN_EXE_tiebeam"));
    let output = command.arg("demo").env("PATH", "").output().unwrap();
    assert_shows(
        &output,
        &[
            "Elixir is not installed here",
            "✓ ['rust1@127.0.0.1']",
            "✓ Down(rust2@127.0.0.1)",
            "All of this happened",
        ],
    );
}

#[test]
fn the_demo_shows_rust_nodes_with_a_plain_elixir_node() {
    let elixir = Command::new("elixir").arg("--version").output();
    if elixir.is_err() {
        eprintln!("skipped: elixir is not installed");
        return;
    }
    assert_shows(
        &Host::new().tiebeam(&["demo"]),
        &[
            "✓ [:\"rust1@127.0.0.1\", :\"rust2@127.0.0.1\"]",
            "✓ 42",
            "✓ \"Hello Rust at rust1@127.0.0.1!\"",
            "{:too_hot, 104}}",
            "✓ Down(rust2@127.0.0.1)",
            "✓ [:\"rust1@127.0.0.1\"]",
            "All of this happened",
        ],
    );
}
