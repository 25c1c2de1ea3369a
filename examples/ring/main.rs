//! A Rust node that owns its share of the carts, beside the BEAM node of node.exs.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tiebeam_node::{
    ClusterConfig, Config, Cookie, Kv, Node, ReleaseReason, RingHandler, Term, Token, from_term,
};

const VOTERS: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "app@127.0.0.1"];

/// `:show`, `{:add, item}`; the reply is the cart.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Show,
    Add(String),
}

/// What each customer has.
type Carts = HashMap<String, Vec<String>>;

/// The carts of the partitions that this node owns. When a partition moves, its carts move by way of the keys.
struct Shop {
    kv: Kv,
    partitions: Mutex<HashMap<u32, Carts>>,
}

impl Shop {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<u32, Carts>) -> T) -> T {
        let partitions = self.partitions.lock();
        work(&mut partitions.unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(partition: u32) -> String {
    format!("carts:{partition}")
}

impl RingHandler for Shop {
    type Call = Request;
    type Reply = Vec<String>;

    async fn on_own(&self, partition: u32, _: Token) -> Result<(), Term> {
        let kept = self.kv.get::<Carts>(key(partition)).await;
        let kept = kept.map_err(|error| Term::from(error.to_string()))?;
        let carts = kept.map(|kept| kept.value).unwrap_or_default();
        self.with(|partitions| partitions.insert(partition, carts));
        Ok(())
    }

    /// Its next owner comes after this; but for `Lost`, which is too late to write.
    async fn on_release(&self, partition: u32, reason: ReleaseReason) {
        let carts = self.with(|partitions| partitions.remove(&partition));
        if let Some(carts) = carts.filter(|_| reason != ReleaseReason::Lost)
            && let Err(error) = self.kv.put(key(partition), &carts).await
        {
            eprintln!("the carts of partition {partition} are lost: {error}");
        }
    }

    async fn handle_call(&self, partition: u32, customer: Term, request: Request) -> Vec<String> {
        let customer: String = from_term(&customer).expect("customers are texts");
        self.with(|partitions| {
            let carts = partitions.entry(partition).or_default();
            let cart = carts.entry(customer).or_default();
            if let Request::Add(item) = request {
                cart.push(item);
            }
            cart.clone()
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("b@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let settings = ClusterConfig::lan().voters(VOTERS).join(VOTERS);
    let cluster = node.cluster(settings).await?;
    let partitions = Mutex::default();
    let kv = cluster.kv();
    let member = cluster.ring("carts", 12).start(Shop { kv, partitions })?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    member.drain().await;
    node.stop().await;
    Ok(())
}
