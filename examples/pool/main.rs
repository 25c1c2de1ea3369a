//! A Rust node with a worker of the pool, beside the BEAM node of worker.exs.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, ClusterConfig, Config, Cookie, GenServer, Node, Process, ReplyTo, Term,
};

/// `{:resize, image}`, `:crash`
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Resize(String),
    Crash,
}

/// `{:small, image, node}`
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Small(String, String),
}

struct Resizer;

impl GenServer for Resizer {
    type Call = Request;
    type Cast = Term;
    type Reply = Reply;

    async fn handle_call(
        &mut self,
        request: Request,
        _: &ReplyTo,
        process: &Process,
    ) -> Answer<Reply> {
        match request {
            Request::Resize(image) => {
                Answer::Reply(Reply::Small(image, process.node().name().to_string()))
            }
            Request::Crash => Answer::Stop(Term::atom("a_large_image")),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("b@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let cluster = node.cluster(ClusterConfig::lan()).await?;
    let member = cluster.pool("resizers").start(|_token| Resizer)?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    member.drain().await;
    node.stop().await;
    Ok(())
}
