//! A Rust node with a service, and a look at the services of all nodes: `cargo run --example coordinator api json http`.

use std::net::Ipv4Addr;

use serde::Deserialize;
use tiebeam_node::{
    Answer, ChildSpec, ClusterConfig, Config, Cookie, GenServer, Node, Process, ReplyTo,
    ServiceFilter, ServiceOptions, Services, Strategy, Supervisor, Term,
};

/// A service that says, when it is asked `{:services, tag}`, which services it knows.
struct Api(Services);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Services(String),
}

impl GenServer for Api {
    type Call = Request;
    type Cast = Term;
    type Reply = Vec<String>;

    async fn handle_call(
        &mut self,
        Request::Services(tag): Request,
        _: &ReplyTo,
        _: &Process,
    ) -> Answer<Vec<String>> {
        let services = self.0.list(&ServiceFilter::alive().tag(tag));
        let names = services.iter().filter_map(|service| service.name.as_str());
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        Answer::Reply(names)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("name the service, and its tags")?;
    let tags = ServiceOptions::new().tags(arguments);

    let config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let services = node.cluster(ClusterConfig::lan()).await?.services();

    // Registered before the supervisor goes on, and again after each restart.
    let known = services.clone();
    let api = ChildSpec::server("api", move || Api(known.clone()));
    let supervisor = Supervisor::new(Strategy::OneForOne).child(api.service(&services, name, tags));
    supervisor.start(&node).await?;

    // send({:crash, node}, :now): no farewell, as if it was killed.
    let mut crash = node.spawn("crash")?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::select! {
        _ = crash.recv() => std::process::exit(1),
        _ = tokio::signal::ctrl_c() => node.stop().await,
    }
    Ok(())
}
