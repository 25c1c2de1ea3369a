//! Servers under a supervisor, which BEAM nodes call, link to and crash.

use std::net::Ipv4Addr;
use std::time::Duration;

use tiebeam_node::{
    Answer, ChildSpec, Config, Cookie, Flow, GenServer, Node, Process, ReplyTo, Strategy,
    Supervisor,
};

/// Adds up what it is sent, up to a hundred: it has a bug.
#[derive(Default)]
struct Adder(i64);

impl GenServer for Adder {
    type Call = i64;
    type Cast = i64;
    type Reply = i64;

    async fn handle_call(&mut self, number: i64, _: &ReplyTo, _: &Process) -> Answer<i64> {
        self.add(number);
        Answer::Reply(self.0)
    }

    async fn handle_cast(&mut self, number: i64, _: &Process) -> Flow {
        self.add(number);
        Flow::Continue
    }
}

impl Adder {
    fn add(&mut self, number: i64) {
        self.0 += number;
        assert!(self.0 <= 100, "too much");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("worker@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    // A child that ends is started again, and so are those after it; twice a minute.
    Supervisor::new(Strategy::RestForOne)
        .intensity(2, Duration::from_secs(60))
        .named("workers")
        .child(ChildSpec::server("adder", Adder::default).named("adder"))
        .child(ChildSpec::server("audit", Adder::default).named("audit"))
        .start(&node)
        .await?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
