//! One of the Rust nodes that elect a leader together with a BEAM node: `cargo run --example leader a`, and `b`.

use std::net::Ipv4Addr;

use tiebeam_node::{ClusterConfig, Config, Cookie, Node, Signal};

const VOTERS: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "app@127.0.0.1"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letter = std::env::args().nth(1).ok_or("say which: a or b")?;
    let config = Config::new(format!("{letter}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let settings = ClusterConfig::lan().voters(VOTERS).join(VOTERS);
    let leader = node.cluster(settings).await?.leader();

    let mut importer = node.spawn("importer")?;
    println!("{} is up; Ctrl-C ends it", node.name());
    let mut changes = leader.watch();
    loop {
        tokio::select! {
            // GenServer.call({:importer, node}, :import): only the leader does it.
            signal = importer.recv() => match signal {
                Some(Signal::Call(call)) => {
                    let imported = leader.with_leadership(|token| async move { token.0 }).await;
                    call.reply(&imported.map_err(|error| error.to_string()))?;
                }
                Some(_) => {}
                None => break,
            },
            change = changes.recv() => match change {
                Some(change) => println!("term {}: {:?}", change.term, change.leader),
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.stop().await;
    Ok(())
}
