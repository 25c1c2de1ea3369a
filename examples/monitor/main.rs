//! A Rust node that looks at its cluster now and then, configured by variables of the environment.

use std::env;
use std::net::Ipv4Addr;
use std::time::Duration;

use tiebeam_node::{ClusterConfig, Config, Cookie, Node, Status};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = env::var("NODE_NAME").map_err(|_| "set NODE_NAME, such as a@127.0.0.1")?;
    let seeds = env::var("SEED_NODES").unwrap_or_default();
    let seeds = seeds.split(',').map(str::trim);
    let seeds: Vec<String> = seeds
        .filter(|seed| !seed.is_empty() && *seed != name)
        .map(str::to_owned)
        .collect();
    let interval: u64 = env::var("INTERVAL").map_or(Ok(5_000), |text| text.parse())?;

    // From here on, also while the node starts.
    let mut terminate = signal(SignalKind::terminate())?;
    let config = Config::new(name, Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let cluster = node.cluster(ClusterConfig::lan().join(seeds)).await?;
    println!("{} is up; Ctrl-C ends it", node.name());

    let mut looks = tokio::time::interval(Duration::from_millis(interval));
    let mut seen = Vec::new();
    let why = loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = terminate.recv() => break "SIGTERM",
            _ = tokio::signal::ctrl_c() => break "SIGINT",
        }
        let members = cluster.members();
        let alive = members
            .iter()
            .filter(|member| member.status == Status::Alive);
        let alive: Vec<_> = alive.map(|member| member.node.to_string()).collect();
        if alive != seen {
            println!("alive: {}", alive.join(", "));
            seen = alive;
        }
        let health = cluster.health();
        if health.minority || health.multiplier > 1 {
            println!("this node is not well: {health:?}");
        }
    };

    println!("{why}: leaves");
    cluster.leave().await;
    node.stop().await;
    Ok(())
}
