//! One of three nodes that keep the same keys: `cargo run --example kv_store a`, and `b`, and `c`.

use std::net::Ipv4Addr;

use tiebeam_node::{ClusterConfig, Config, Cookie, KvChange, Node};

const VOTERS: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letter = std::env::args().nth(1).ok_or("say which: a, b or c")?;
    let config = Config::new(format!("{letter}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    // With a `data_dir` as well, it survives the end of all three.
    let settings = ClusterConfig::lan().voters(VOTERS).join(VOTERS);
    let cluster = node.cluster(settings).await?;

    // send({:crash, node}, :now): no farewell, as if it was killed.
    let mut crash = node.spawn("crash")?;

    println!("{} is up; Ctrl-C ends it", node.name());
    let mut changes = cluster.kv().watch("").await?;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(KvChange::Put(entry)) => println!("{} = {}", entry.key_text(), entry.value_term()?),
                Some(_) => {}
                None => break,
            },
            _ = crash.recv() => std::process::exit(1),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.stop().await;
    Ok(())
}
