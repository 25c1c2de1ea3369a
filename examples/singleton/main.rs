//! A Rust node that stands by for a singleton: `cargo run --example singleton a`, and `b`.

use std::net::Ipv4Addr;
use std::time::Duration;

use tiebeam_node::{ClusterConfig, Config, Cookie, Node, Signal, Term, Token};

const VOTERS: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "app@127.0.0.1"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letter = std::env::args().nth(1).ok_or("say which: a or b")?;
    let config = Config::new(format!("{letter}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    // What a node held that is gone without a word is free after a second.
    let settings = ClusterConfig::lan().voters(VOTERS).join(VOTERS);
    let cluster = node
        .cluster(settings.session(Duration::from_secs(1)))
        .await?;

    let host = node.clone();
    let db = cluster.singleton("db").cooldown(Duration::from_secs(1));
    let standby = db.start(
        move |token| serve(host.clone(), token),
        |reason| async move { println!("passive: {reason:?}") },
    )?;

    // send({:crash, node}, :now): no farewell, as if it was killed.
    let mut crash = node.spawn("crash")?;
    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::select! {
        _ = crash.recv() => std::process::exit(1),
        _ = tokio::signal::ctrl_c() => standby.stop().await,
    }
    node.stop().await;
    Ok(())
}

/// What the active node does; it is given up when the node is active no more, and the process ends with it.
async fn serve(node: Node, token: Token) -> Result<(), Term> {
    println!("active under token {token}");
    let mut db = node
        .spawn("db")
        .map_err(|error| Term::from(error.to_string()))?;
    while let Some(signal) = db.recv().await {
        // GenServer.call({:db, node}, :who)
        if let Signal::Call(call) = signal {
            let answered = call.reply(&("Rust", token.0));
            answered.map_err(|error| Term::from(error.to_string()))?;
        }
    }
    Ok(())
}
