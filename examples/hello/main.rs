//! A Rust node that BEAM nodes may ping and call.

use std::net::Ipv4Addr;

use tiebeam_node::{Config, Cookie, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("hello@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    // :rpc.call(:"hello@127.0.0.1", :hello, :greet, ["Ada"])
    node.export("hello", "greet", 1, |args| async move {
        let name: String = args.decode()?;
        Ok(format!("Hello {name}, this is Rust."))
    });

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
