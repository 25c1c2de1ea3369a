//! A Rust process that echoes what it is asked, with a number that it asks the caller's node for.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;
use tiebeam_node::{Call, CallError, Config, Cookie, Node, Signal};

/// The requests of the counter in Elixir.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Counter {
    Next,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("echo@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    // A process is a mailbox, here with a name.
    let mut echo = node.spawn("echo")?;
    println!("{} is up; Ctrl-C ends it", node.name());
    loop {
        tokio::select! {
            signal = echo.recv() => match signal {
                // GenServer.call({:echo, :"echo@127.0.0.1"}, "hello")
                Some(Signal::Call(call)) => match answer(&node, &call).await {
                    Ok(answer) => call.reply(&answer)?,
                    Err(error) => eprintln!("no answer: {error}"),
                },
                Some(_) => {}
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.stop().await;
    Ok(())
}

async fn answer(node: &Node, call: &Call) -> Result<String, Box<dyn std::error::Error>> {
    let text: String = call.decode()?;
    let number = next(node, call.from().node.as_str()).await?;
    Ok(format!("{number}: {text}"))
}

/// GenServer.call({:counter, caller}, :next), from Rust.
async fn next(node: &Node, caller: &str) -> Result<i64, CallError> {
    let timeout = Duration::from_secs(5);
    node.call(("counter", caller), &Counter::Next, timeout)
        .await
}
