//! A Rust process with a name of the cluster, which calls another one by its name, wherever that runs.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    ActorRef, Answer, ClusterConfig, Config, Cookie, GenServer, Node, Process, ReplyTo, Term,
};

/// What "pricing" is asked: `{:quote, fruit, quantity}`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Quote(String, i64),
}

/// What "stock", a GenServer in Elixir, is asked: `{:price, fruit}`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    Price(String),
}

struct Pricing {
    /// A name, which is looked up for each call: it may be another process's next time.
    stock: ActorRef<Question>,
}

impl GenServer for Pricing {
    type Call = Request;
    type Cast = Term;
    type Reply = Result<i64, String>;

    async fn handle_call(
        &mut self,
        Request::Quote(fruit, quantity): Request,
        _: &ReplyTo,
        _: &Process,
    ) -> Answer<Self::Reply> {
        let question = Question::Price(fruit);
        let price = self.stock.call(&question, Duration::from_secs(5)).await;
        Answer::Reply(match price {
            Ok(price) => Ok(quantity * price),
            Err::<i64, _>(error) => Err(error.to_string()),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("names@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let cluster = node.cluster(ClusterConfig::lan()).await?;

    let names = cluster.registry();
    let stock = names.actor("stock");
    node.start_registered_server(&names, "pricing", Pricing { stock })
        .await?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
