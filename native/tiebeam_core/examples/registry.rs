//! What the registry costs: `cargo run --release -p tiebeam_core --example registry`.
//!
//! Two cores in one thread, without network and driver. Rates are of the machine it runs on; what matters is how they
//! compare with each other and with the last run.

#![allow(
    clippy::disallowed_methods,
    reason = "the core must not read a clock; what measures it must"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant as Clock};

use tiebeam_core::registry::{Command, Config, Departure, Limits, OnConflict, Output, Registry};
use tiebeam_core::{CallId, Instant, NodeName};

const NAMES: u64 = 100_000;

fn registry(node: &str) -> Registry {
    Registry::new(Config {
        node: NodeName::parse(node).expect("it is a name"),
        creation: 1,
        epoch: 1,
        limits: Limits::default(),
    })
}

fn register(number: u64) -> Command {
    Command::Register {
        scope: "default".into(),
        name: format!("session/{number:012}").into_bytes().into(),
        // As long as a pid of a node with a name of usual length.
        pid: [&number.to_be_bytes()[..], &[88; 32]].concat().into(),
        meta: [][..].into(),
        on_conflict: OnConflict::Notify,
        resolve: false,
        claimed: false,
    }
}

/// What this thread has used of a processor, which other programs do not lengthen; the time of day where the system does
/// not tell it.
fn processor_time() -> Duration {
    static START: OnceLock<Clock> = OnceLock::new();
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = spent.and_then(|spent| spent.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or_else(
        || START.get_or_init(Clock::now).elapsed(),
        Duration::from_nanos,
    )
}

/// Runs `work`, prints what it took for each of `count`, and returns its result.
fn measure<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let before = processor_time();
    let result = work();
    let took = processor_time() - before;
    println!(
        "{what:<44} {:>8.1} ms {:>8.0} ns each {:>10.0} /s",
        took.as_secs_f64() * 1e3,
        took.as_nanos() as f64 / count as f64,
        count as f64 / took.as_secs_f64()
    );
    result
}

/// Carries messages between two registries until neither has anything to say; returns bytes and messages, and the longest
/// step of the second in microseconds.
fn carry(a: &mut Registry, b: &mut Registry, mut to_b: Vec<Output>) -> (usize, usize, u128) {
    let now = Instant::from_millis(3);
    let (node_a, node_b) = (
        NodeName::parse("a@host").expect("it is a name"),
        NodeName::parse("b@host").expect("it is a name"),
    );
    let (mut bytes_sent, mut messages, mut longest) = (0, 0, 0);
    let mut to_a = Vec::new();
    while !(to_a.is_empty() && to_b.is_empty()) {
        for output in std::mem::take(&mut to_b) {
            if let Output::Send { bytes, .. } = output {
                bytes_sent += bytes.len();
                messages += 1;
                let before = Clock::now();
                b.received(now, &node_a, &bytes, &mut to_a);
                longest = longest.max(before.elapsed().as_micros());
            }
        }
        for output in std::mem::take(&mut to_a) {
            if let Output::Send { bytes, .. } = output {
                bytes_sent += bytes.len();
                messages += 1;
                a.received(now, &node_b, &bytes, &mut to_b);
            }
        }
        a.wake(now, &mut to_b);
        b.wake(now, &mut to_a);
    }
    (bytes_sent, messages, longest)
}

/// The memory of this process in bytes, where the system tells it.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn main() {
    let now = Instant::from_millis(1);
    let (a_name, b_name) = (
        NodeName::parse("a@host").expect("it is a name"),
        NodeName::parse("b@host").expect("it is a name"),
    );
    let commands = |from: u64, count: u64| (from..from + count).map(register).collect::<Vec<_>>();
    let (mut a, mut b) = (registry("a@host"), registry("b@host"));
    let mut out = Vec::new();

    let first = commands(0, NAMES);
    let before = memory();
    measure("register 100k names, alone", NAMES, || {
        for (call, command) in first.into_iter().enumerate() {
            a.asked(now, CallId(call as u64), command, &mut out);
            out.clear();
        }
        a.wake(now, &mut out);
    });
    out.clear();
    if let (Some(before), Some(after)) = (before, memory()) {
        println!(
            "{:<44} {:>8} bytes each",
            "  memory of the owner",
            after.saturating_sub(before) / NAMES
        );
    }

    let before = memory();
    let (bytes, messages, longest) = measure("a new node gets 100k names", NAMES, || {
        let mut to_b = Vec::new();
        b.up(now, &a_name, 1, &mut Vec::new());
        a.up(now, &b_name, 1, &mut to_b);
        carry(&mut a, &mut b, to_b)
    });
    println!(
        "{:<44} {bytes} bytes, {messages} messages, longest step {longest} us",
        ""
    );
    assert_eq!(b.rows().count() as u64, NAMES);
    if let (Some(before), Some(after)) = (before, memory()) {
        println!(
            "{:<44} {:>8} bytes each",
            "  memory of the peer",
            after.saturating_sub(before) / NAMES
        );
    }

    let second = commands(NAMES, NAMES);
    let mut to_b = Vec::new();
    measure("register 100k more, to be sent", NAMES, || {
        for (call, command) in second.into_iter().enumerate() {
            a.asked(now, CallId(call as u64), command, &mut out);
            // As a driver does with the outputs of a turn.
            to_b.extend(
                out.drain(..)
                    .filter(|output| matches!(output, Output::Send { .. })),
            );
        }
        a.wake(now, &mut to_b);
    });
    let (mut sends, mut to_a) = (Vec::new(), Vec::new());
    sends.append(&mut to_b);
    let applied = b.rows().count() as u64;
    measure("apply the operations of another node", 16_384, || {
        for output in &sends {
            if let Output::Send { bytes, .. } = output {
                b.received(now, &a_name, bytes, &mut to_a);
            }
        }
    });
    println!(
        "{:<44} {} operations",
        "",
        b.rows().count() as u64 - applied
    );
    for output in to_a {
        if let Output::Send { bytes, .. } = output {
            a.received(now, &b_name, &bytes, &mut to_b);
        }
    }
    carry(&mut a, &mut b, to_b);
    assert_eq!(b.rows().count() as u64, 2 * NAMES);

    let now = Instant::from_millis(3);
    measure("a node goes: no row of it is shown", 2 * NAMES, || {
        b.down(now, &a_name, Departure::Down, &mut out);
    });
    out.clear();
    measure("  and names forget it, step by step", 2 * NAMES, || {
        while b.deadline().is_some_and(|deadline| deadline <= now) {
            b.wake(now, &mut out);
        }
    });
    out.clear();
    let (bytes, _, _) = measure("it is back: 200k names are shown again", 2 * NAMES, || {
        let mut to_b = Vec::new();
        a.down(now, &b_name, Departure::Down, &mut Vec::new());
        b.up(now, &a_name, 1, &mut Vec::new());
        a.up(now, &b_name, 1, &mut to_b);
        carry(&mut a, &mut b, to_b)
    });
    println!("{:<44} {bytes} bytes", "");
    out.clear();
    let pids: Vec<std::sync::Arc<[u8]>> = (0..10_000)
        .map(|number: u64| [&number.to_be_bytes()[..], &[88; 32]].concat().into())
        .collect();
    measure("10k processes end", 10_000, || {
        for pid in &pids {
            a.exited(now, pid, &mut out);
        }
        a.wake(now, &mut out);
    });
}
