//! A Rust node that others watch: `cargo run --example watch a`, and `b`.

use std::net::Ipv4Addr;

use serde::Deserialize;
use tiebeam_node::{ClusterConfig, Config, Cookie, Node, Signal, from_term};

/// What a process in Elixir sends to `{:watched, node}`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// `{:say, text}`: the others see it as the metadata of this node.
    Say(String),
    /// `:leave`, in good order.
    Leave,
    /// `:crash`, without a word.
    Crash,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letter = std::env::args().nth(1).ok_or("say which: a or b")?;
    let config = Config::new(format!("{letter}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let cluster = node.cluster(ClusterConfig::lan()).await?;

    let mut watched = node.spawn("watched")?;
    println!("{} is up; Ctrl-C ends it", node.name());
    loop {
        tokio::select! {
            signal = watched.recv() => match signal {
                Some(Signal::Message(message)) => match from_term(&message)? {
                    Order::Say(text) => cluster.set_metadata(text).await?,
                    Order::Leave => cluster.leave().await,
                    Order::Crash => std::process::exit(1),
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
