//! Against a real `erl`, with an epmd of its own. Skipped where there is no Erlang.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use crate::epmd;

/// A BEAM node that evaluates what it is told.
struct Erl {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Reads expressions line by line and prints their values; ends with its input.
const LOOP: &str = r#"
    Loop = fun(Loop) ->
        case io:get_line("") of
            eof -> halt(0);
            Line ->
                {ok, Tokens, _} = erl_scan:string(Line),
                {ok, Exprs} = erl_parse:parse_exprs(Tokens),
                {value, Value, _} = erl_eval:exprs(Exprs, []),
                io:format("~0p~n", [Value]),
                Loop(Loop)
        end
    end,
    net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
    io:format("started~n"),
    Loop(Loop)."#;

impl Erl {
    /// Starts a node that uses the epmd at `epmd_port`; `None`, with a note, where there is no `erl`.
    fn start(name: &str, epmd_port: u16, arguments: &[&str]) -> Option<Erl> {
        let spawned = Command::new("erl")
            .args([name_flag(name), name, "-setcookie", "ck", "-noshell"])
            .args(["-start_epmd", "false", "-kernel", "net_ticktime", "60"])
            .args(arguments)
            .args(["-eval", LOOP])
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: erl cannot be started ({error})");
                return None;
            }
        };
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut erl = Erl {
            child,
            stdin,
            stdout,
        };
        assert_eq!(erl.line(), "started");
        Some(erl)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The value of an expression, as text. Other tasks run meanwhile.
    fn eval(&mut self, expression: &str) -> String {
        tokio::task::block_in_place(|| {
            writeln!(self.stdin, "{}", expression.replace('\n', " ")).unwrap();
            self.line()
        })
    }

    /// The next nodeup or nodedown of the node `name`.
    fn next_event(&mut self, name: &str) -> String {
        self.eval(&format!(
            "receive {{What, '{name}', _}} -> What after 15000 -> nothing end."
        ))
    }
}

fn name_flag(name: &str) -> &'static str {
    if name.contains('.') {
        "-name"
    } else {
        "-sname"
    }
}

impl Drop for Erl {
    fn drop(&mut self) {
        // Only this test's own node, by its process id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind((HOST, 0)).unwrap();
    free.local_addr().unwrap().port()
}

fn with_epmd(name: &str, epmd_port: u16) -> TransportConfig {
    TransportConfig {
        epmd: EpmdMode::Auto,
        epmd_port,
        ..config(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erl_node_is_dialled_and_sees_a_visible_node() {
    for own in ["a@127.0.0.1", "z@127.0.0.1"] {
        let port = free_port();
        let (transport, hub) = node(with_epmd(own, port)).await;
        let Some(mut erl) = Erl::start("m@127.0.0.1", port, &[]) else {
            return;
        };
        let id = transport.connect("m@127.0.0.1").await.unwrap();
        assert_eq!(erl.next_event(own), "nodeup");
        assert_eq!(erl.eval("nodes()."), format!("['{own}']"));
        assert_eq!(erl.eval("nodes(hidden)."), "[]");
        let creation = erl.eval("erlang:system_info(creation).");
        let established = hub.take(id);
        assert_eq!(established.peer_creation.to_string(), creation);
        assert_eq!(
            established.flags,
            Flags::OFFERED.without(Flags::ALTACT_SIG),
            "OTP 25 has all but this one"
        );
        drop(established);
        transport.down("m@127.0.0.1", id);
        assert_eq!(erl.next_event(own), "nodedown");
        // And once more: nothing of the old connection is in the way.
        transport.connect("m@127.0.0.1").await.unwrap();
        assert_eq!(erl.next_event(own), "nodeup");
        transport.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erl_node_dials() {
    for own in ["a@127.0.0.1", "z@127.0.0.1"] {
        let port = free_port();
        let (transport, hub) = node(with_epmd(own, port)).await;
        let Some(mut erl) = Erl::start("m@127.0.0.1", port, &[]) else {
            return;
        };
        let names = erl.eval("lists:sort(element(2, net_adm:names())).");
        assert!(names.contains("{\"m\",") && names.contains(&format!("{}}}", transport.port())));
        let connected = format!("net_kernel:connect_node('{own}').");
        assert_eq!(erl.eval(&connected), "true");
        assert_eq!(erl.eval("nodes()."), format!("['{own}']"));
        let events = hub.await_events(1).await;
        assert!(matches!(&events[0], Event::Up(peer, _) if peer == "m@127.0.0.1"));
        // Another cookie there: refused, and the old one works again.
        erl.eval(&format!("erlang:disconnect_node('{own}')."));
        let Event::Up(peer, id) = events[0].clone() else {
            panic!("up expected");
        };
        drop(hub.take(id));
        transport.down(&peer, id);
        erl.eval(&format!("erlang:set_cookie('{own}', other)."));
        assert_eq!(erl.eval(&connected), "false");
        erl.eval(&format!("erlang:set_cookie('{own}', ck)."));
        assert_eq!(erl.eval(&connected), "true");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erl_node_and_this_one_dial_each_other_at_once() {
    for own in ["a@127.0.0.1", "z@127.0.0.1"] {
        let port = free_port();
        let (transport, hub) = node(with_epmd(own, port)).await;
        let Some(mut erl) = Erl::start("m@127.0.0.1", port, &[]) else {
            return;
        };
        for round in 0..50 {
            let ours = tokio::spawn({
                let transport = transport.clone();
                async move { transport.connect("m@127.0.0.1").await }
            });
            let theirs = erl.eval(&format!("net_kernel:connect_node('{own}')."));
            assert_eq!(theirs, "true", "round {round} of {own}");
            let id = ours
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("round {round} of {own}: {error}"));
            assert_eq!(
                hub.events().len(),
                round + 1,
                "round {round} of {own}: one connection"
            );
            assert_eq!(erl.next_event(own), "nodeup", "round {round} of {own}");
            drop(hub.take(id));
            transport.down("m@127.0.0.1", id);
            assert_eq!(erl.next_event(own), "nodedown", "round {round} of {own}");
        }
    }
}

/// The peer still believes in a connection of an earlier incarnation of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_replaces_its_old_connection_at_an_erl_node() {
    let port = free_port();
    let own = "a@127.0.0.1";
    // The epmd outlives both incarnations.
    let (epmd_node, _) = node(with_epmd("epmd@127.0.0.1", port)).await;
    let (first, hub_1) = node(with_epmd(own, port)).await;
    let Some(mut erl) = Erl::start("m@127.0.0.1", port, &[]) else {
        return;
    };
    let id = first.connect("m@127.0.0.1").await.unwrap();
    assert_eq!(erl.next_event(own), "nodeup");
    let old_socket = hub_1.take(id);
    first.shutdown().await;
    let (second, _) = node(with_epmd(own, port)).await;
    assert_ne!(first.inner.local.creation, second.inner.local.creation);
    second.connect("m@127.0.0.1").await.unwrap();
    assert_eq!(erl.next_event(own), "nodedown");
    assert_eq!(erl.next_event(own), "nodeup");
    drop(old_socket);
    assert_eq!(erl.eval("nodes()."), format!("['{own}']"));
    epmd_node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_and_nameless_erl_nodes() {
    let port = free_port();
    let (transport, hub) = node(with_epmd("a@127.0.0.1", port)).await;
    let Some(mut hidden) = Erl::start("h@127.0.0.1", port, &["-hidden"]) else {
        return;
    };
    let connect = "net_kernel:connect_node('a@127.0.0.1').";
    assert_eq!(hidden.eval(connect), "true");
    assert_eq!(hidden.eval("nodes()."), "[]");
    assert_eq!(hidden.eval("nodes(hidden)."), "['a@127.0.0.1']");
    let events = hub.await_events(1).await;
    let Event::Up(_, id) = events[0].clone() else {
        panic!("up expected");
    };
    assert!(!hub.take(id).visible);

    // Its host is short, so ours must be as well.
    let (short, hub) = node(with_epmd("s@localhost", port)).await;
    let mut nameless = Erl::start("undefined", port, &[]).unwrap();
    assert_eq!(
        nameless.eval("net_kernel:connect_node('s@localhost')."),
        "true"
    );
    let events = hub.await_events(1).await;
    let Event::Up(name, id) = events[0].clone() else {
        panic!("up expected");
    };
    assert_eq!(nameless.eval("node()."), format!("'{name}'"));
    let established = hub.take(id);
    assert!(!established.visible);
    assert_eq!(
        nameless.eval("erlang:system_info(creation)."),
        established.peer_creation.to_string()
    );
    short.shutdown().await;
    transport.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_epmd_on_a_common_port() {
    let common = free_port();
    // Two nodes on one port of one machine: each has a loopback address of its own.
    let mut own = config("a@127.0.0.2");
    own.listen = "127.0.0.2".parse().unwrap();
    own.ports = common..=common;
    own.common_port = Some(common);
    let (transport, hub) = node(own).await;
    let common = common.to_string();
    let arguments = [
        "-erl_epmd_port",
        &common,
        "-kernel",
        "inet_dist_use_interface",
        "{127,0,0,1}",
    ];
    let Some(mut erl) = Erl::start("m@127.0.0.1", free_port(), &arguments) else {
        return;
    };
    let id = transport.connect("m@127.0.0.1").await.unwrap();
    assert_eq!(erl.next_event("a@127.0.0.2"), "nodeup");
    drop(hub.take(id));
    transport.down("m@127.0.0.1", id);
    assert_eq!(erl.next_event("a@127.0.0.2"), "nodedown");
    assert_eq!(erl.eval("net_kernel:connect_node('a@127.0.0.2')."), "true");
}

/// OTP's own epmd, killed and started again.
#[tokio::test(flavor = "multi_thread")]
async fn the_epmd_of_otp_may_die() {
    let port = free_port();
    let address = SocketAddr::new(HOST, port);
    let start = || {
        Command::new("epmd")
            .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let mut daemon = match start() {
        Ok(daemon) => daemon,
        Err(error) => return eprintln!("skipped: epmd cannot be started ({error})"),
    };
    let registered = async || {
        let answer = async {
            while !matches!(epmd::look_up(address, "a").await, Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), answer).await.is_ok()
    };
    let answers = async {
        while epmd::names(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), answers).await.unwrap();
    let mut config = with_epmd("a@127.0.0.1", port);
    config.epmd = EpmdMode::Client;
    let (transport, _) = node(config).await;
    let creation = transport.inner.local.creation;
    assert!(registered().await);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let mut daemon = start().unwrap();
    let back = registered().await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(back, "registered again");
    assert_eq!(transport.inner.local.creation, creation);
}
