//! A Rust node that finds others by libcluster's multicast: `cargo run --features discovery --example gossip`.

use std::net::Ipv4Addr;

use tiebeam_node::discovery::Gossip;
use tiebeam_node::{ClusterConfig, Config, Cookie, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("gossip@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let _cluster = node.cluster(ClusterConfig::lan()).await?;

    // Without `interface` the system chooses one; loopback keeps the example on this machine.
    let gossip = Gossip::new()
        .secret("secret")
        .interface(Ipv4Addr::LOCALHOST);
    node.discover(gossip).detach();

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
