//! A Rust node with a service, and a look at the services of all nodes: `cargo run --example coordinator api json http`.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, ClusterConfig, ClusterHandle, Config, Cookie, GenServer, Node, Pid, Process,
    RegistryError, ReplyTo, Status, Term,
};

/// The group that all services are in.
const SERVICES: &str = "services";

/// What a service tells about itself: a map with atoms for keys, as `%{name: "api", tags: ["http"]}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Service {
    name: String,
    tags: Vec<String>,
}

/// The services of a cluster.
#[derive(Clone)]
struct Coordinator(ClusterHandle);

impl Coordinator {
    /// Registers a process of this node as a service, until it ends.
    async fn register(&self, pid: &Pid, service: &Service) -> Result<(), RegistryError> {
        self.0.groups().join_with(SERVICES, pid, service).await
    }

    /// Those whose node is alive and that have this tag. Reads local tables, never waits.
    fn services(&self, tag: &str) -> HashMap<String, Pid> {
        let alive = |node: &str| {
            self.0
                .member(node)
                .is_some_and(|member| member.status == Status::Alive)
        };
        let members = self.0.groups().members(SERVICES).into_iter();
        members
            .filter(|member| alive(member.node.as_str()))
            .filter_map(|member| Some((member.meta::<Service>().ok()?, member.pid)))
            .filter(|(service, _)| service.tags.iter().any(|have| have == tag))
            .map(|(service, pid)| (service.name, pid))
            .collect()
    }
}

/// A service that says, when it is asked `{:services, tag}`, which services it knows.
struct Api(Coordinator);

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
        let mut names: Vec<_> = self.0.services(&tag).into_keys().collect();
        names.sort();
        Answer::Reply(names)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("name the service, and its tags")?;
    let tags = arguments.collect();

    let config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let coordinator = Coordinator(node.cluster(ClusterConfig::lan()).await?);

    let api = node.start_server("api", Api(coordinator.clone())).await?;
    coordinator.register(&api, &Service { name, tags }).await?;

    // send({:crash, node}, :now): no farewell, as if it was killed.
    let mut crash = node.spawn("crash")?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::select! {
        _ = crash.recv() => std::process::exit(1),
        _ = tokio::signal::ctrl_c() => node.stop().await,
    }
    Ok(())
}
