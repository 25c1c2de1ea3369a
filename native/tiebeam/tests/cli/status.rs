//! The status page, as a browser, a Prometheus and a load balancer see it.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Host, Running, SOON, assert_fails};

/// A node with a status page, and where that is: `127.0.0.1:PORT`.
fn with_page(host: &Host, name: &str, args: &[&str]) -> (Running, String) {
    let args = [&["--http", "127.0.0.1:0"], args].concat();
    let mut node = host.node(name, &args);
    let mut line = String::new();
    node.stdout.read_line(&mut line).unwrap();
    let address = line
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/\n"));
    let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (node, address)
}

/// The head and the body of what is served there.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn status(address: &str) -> Value {
    serde_json::from_str(&get(address, "/status").1).unwrap()
}

fn alive(status: &Value) -> usize {
    let members = status["cluster"]["members"].as_array().unwrap();
    members
        .iter()
        .filter(|member| member["status"] == "alive")
        .count()
}

#[track_caller]
fn until(address: &str, what: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let status = status(address);
        if what(&status) {
            return status;
        }
        assert!(start.elapsed() < SOON, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_tells_its_status_as_json() {
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &["--profile", "fast"]);
    let b = host.node(
        "b@127.0.0.1",
        &["--join", "a@127.0.0.1", "--profile", "fast"],
    );
    let both = until(&page, |status| alive(status) == 2);
    assert_eq!(both["node"], "a@127.0.0.1");
    assert_eq!(both["connected"][0], "b@127.0.0.1");
    assert_eq!(both["cluster"]["health"]["trouble"], Value::Null);
    assert_eq!(both["cluster"]["names"]["count"], 0);
    drop(b);
    until(&page, |status| alive(status) == 1);
}

#[test]
fn a_page_shows_who_leads() {
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &["--voters", "a@127.0.0.1"]);
    let led = until(&page, |status| status["cluster"]["leader"] == "a@127.0.0.1");
    assert!(led["cluster"]["term"].as_u64() > Some(0), "{led}");
    let (_, metrics) = get(&page, "/metrics");
    assert!(metrics.contains("\ntiebeam_led 1.0\n"), "{metrics}");
}

#[test]
fn a_node_without_a_cluster_has_a_status_too() {
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &["--no-cluster"]);
    assert_eq!(status(&page)["cluster"], Value::Null);
    let (head, body) = get(&page, "/health");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "ok\n");
}

/// A balancer sends no work to a node that cannot do it: not before there is a leader, where nodes were named that vote.
#[test]
fn a_node_is_ready_once_it_knows_of_a_leader() {
    let host = Host::new();
    let voters = ["--voters", "a@127.0.0.1,b@127.0.0.1"];
    let (_a, page) = with_page(&host, "a@127.0.0.1", &voters);
    until(&page, |status| alive(status) == 1);
    let (head, body) = get(&page, "/ready");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "this node knows of no leader\n");
    assert!(get(&page, "/health").0.starts_with("HTTP/1.1 200 "));

    let join = [&["--join", "a@127.0.0.1"], &voters[..]].concat();
    let _b = host.node("b@127.0.0.1", &join);
    until(&page, |status| !status["cluster"]["leader"].is_null());
    assert!(get(&page, "/ready").0.starts_with("HTTP/1.1 200 "));
}

/// In the words of the OpenMetrics format: a type for each metric, `_total` behind counters, and an end.
#[test]
fn metrics_are_those_of_prometheus() {
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &[]);
    let (head, body) = get(&page, "/metrics");
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    for line in [
        "# TYPE tiebeam_members gauge",
        "tiebeam_members{status=\"alive\"} 1.0",
        "tiebeam_members{status=\"dead\"} 0.0",
        "# TYPE tiebeam_probes counter",
        "tiebeam_probes_total 0",
        "tiebeam_minority 0.0",
        "# EOF",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "no {line:?} in {body}"
        );
    }
}

#[test]
fn what_is_not_there_is_said_to_be_not_there() {
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &[]);
    assert!(get(&page, "/nothing").0.starts_with("HTTP/1.1 404 "));
    let taken = host.tiebeam(&[
        "node",
        "--name",
        "b@127.0.0.1",
        "--cookie",
        "secret",
        "--http",
        &page,
    ]);
    assert_fails(&taken, &["cannot serve HTTP at", &page]);
}

/// The page in a real browser, which runs its script; nothing where there is none.
#[test]
fn a_browser_shows_who_is_there() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|browser| Command::new(browser).arg("--version").output().is_ok())
    else {
        eprintln!("skipped: there is no Chromium");
        return;
    };
    let host = Host::new();
    let (_a, page) = with_page(&host, "a@127.0.0.1", &[]);
    let _b = host.node("b@127.0.0.1", &["--join", "a@127.0.0.1"]);
    until(&page, |status| alive(status) == 2);
    let profile = std::env::temp_dir().join(format!("tiebeam-browser-{}", std::process::id()));
    let shown = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-sync",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("http://{page}/"))
        .output()
        .unwrap();
    // What cannot be removed is left to the system.
    let _ = std::fs::remove_dir_all(profile);
    let dom = String::from_utf8_lossy(&shown.stdout);
    for part in [
        "<h1 id=\"node\">a@127.0.0.1</h1>",
        "<b id=\"alive\">2</b>",
        "<td>b@127.0.0.1</td>",
        "<td class=\"status alive\">alive</td>",
        "<p id=\"state\" role=\"status\" class=\"\">well</p>",
    ] {
        assert!(dom.contains(part), "no {part:?} in {dom}");
    }
}
