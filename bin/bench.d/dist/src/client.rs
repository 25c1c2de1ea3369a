//! The client in Rust, as in `dist_bench.erl`.

use std::error::Error;
use std::time::{Duration, Instant};

use tiebeam_node::{Node, Pid, Process, Signal, Term};

use crate::server::count;

/// Measures against a server and prints what came out.
pub async fn run(
    node: Node,
    server: String,
    messages: i64,
    pings: i64,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let sink = whereis(&node, &server, "sink").await?;
    let echo = whereis(&node, &server, "echo").await?;
    let blaster = whereis(&node, &server, "blaster").await?;
    let mut process = node.spawn_anonymous()?;
    send(&mut process, &sink, messages / 20).await?;
    let time = send(&mut process, &sink, messages).await?;
    println!("send {:.1}", messages as f64 / time.as_secs_f64());
    receive(&mut process, &blaster, messages / 20).await?;
    let time = receive(&mut process, &blaster, messages).await?;
    println!("receive {:.1}", messages as f64 / time.as_secs_f64());
    ping(&mut process, &echo, pings / 20).await?;
    let mut times = ping(&mut process, &echo, pings).await?;
    times.sort();
    println!(
        "ping {:.3}",
        times[times.len() / 2].as_nanos() as f64 / 1000.0
    );
    node.stop().await;
    Ok(())
}

async fn whereis(
    node: &Node,
    server: &str,
    name: &'static str,
) -> Result<Pid, Box<dyn Error + Send + Sync>> {
    let timeout = Duration::from_secs(10);
    let pid = node
        .rpc(server, "erlang", "whereis", vec![Term::atom(name)], timeout)
        .await?;
    match pid {
        Term::Pid(pid) => Ok(pid),
        other => Err(format!("{name} is {other:?}").into()),
    }
}

/// The message that is sent a million times.
pub fn message(number: i64) -> Term {
    Term::tuple([
        Term::atom("msg"),
        Term::from(number),
        Term::binary("hello world"),
    ])
}

async fn send(
    process: &mut Process,
    sink: &Pid,
    messages: i64,
) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    process.send(sink, order("count", process.pid(), messages))?;
    for number in 0..messages {
        process.send_paced(sink, message(number)).await?;
    }
    match process.recv().await {
        Some(Signal::Message(counted)) if counted.is_atom("counted") => Ok(start.elapsed()),
        other => Err(format!("the sink said {other:?}").into()),
    }
}

async fn receive(
    process: &mut Process,
    blaster: &Pid,
    messages: i64,
) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    process.send(blaster, order("blast", process.pid(), messages))?;
    count(process, messages).await;
    Ok(start.elapsed())
}

async fn ping(
    process: &mut Process,
    echo: &Pid,
    pings: i64,
) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let mut times = Vec::new();
    for number in 0..pings {
        let start = Instant::now();
        process.send(echo, order("ping", process.pid(), number))?;
        match process.recv().await {
            Some(Signal::Message(_)) => times.push(start.elapsed()),
            other => return Err(format!("the echo said {other:?}").into()),
        }
    }
    Ok(times)
}

fn order(name: &'static str, pid: &Pid, number: i64) -> Term {
    Term::tuple([Term::atom(name), Term::from(pid), Term::from(number)])
}
