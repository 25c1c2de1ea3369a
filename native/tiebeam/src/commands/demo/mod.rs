//! `tiebeam demo`: a cluster on this machine, in a minute. Every value that it shows was just computed and is checked.

mod child;
mod page;
mod services;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tiebeam_node::{
    ClusterConfig, ClusterEvent, ClusterEvents, ClusterHandle, Config, Cookie, EpmdMode, Kind,
    Member, Node, RpcError, Status, Term,
};
use tokio::time::timeout;

use self::child::{Common, Started};
use self::page::Page;
use crate::arguments::DemoArguments;
use crate::failure::Failure;

/// The node that runs in this program, and hosts the services.
const RUST1: &str = "rust1@127.0.0.1";
/// The node that is killed.
const RUST2: &str = "rust2@127.0.0.1";
const ELIXIR: &str = "elixir@127.0.0.1";

/// How long any step may take.
const SOON: Duration = Duration::from_secs(10);

/// How long the whole may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let ended = super::node::ended()?;
    // Whatever comes of it, the nodes go with the future that owns them.
    tokio::select! {
        played = timeout(DEADLINE, play(arguments.package)) => match played {
            Ok(played) => played,
            Err(_) => Err(Failure::new(format!("the demo did not end within {DEADLINE:?}"))),
        },
        signal = ended => Err(Failure::new(format!("the demo was ended by {signal}"))),
    }
}

async fn play(package: Option<PathBuf>) -> Result<(), Failure> {
    let mut page = Page::new();
    page.title("Tiebeam: BEAM nodes and Rust nodes in one cluster")?;
    let mut stage = Stage::set(&mut page, package.as_deref()).await?;
    match &stage.elixir {
        Some(_) => {
            stage.meet(&mut page).await?;
            stage.elixir_calls_rust(&mut page).await?;
            stage.rust_calls_elixir(&mut page).await?;
            stage.link(&mut page).await?;
        }
        None => stage.meet_without_elixir(&mut page).await?,
    }
    stage.members(&mut page).await?;
    stage.kill(&mut page).await?;
    stage.leave(&mut page).await?;
    stage.clear().await;
    page.title(&format!(
        "\nAll of this happened, in {}.",
        time(page.elapsed())
    ))?;
    Ok(())
}

/// The nodes.
struct Stage {
    node: Node,
    cluster: ClusterHandle,
    events: ClusterEvents,
    rust2: Started,
    elixir: Option<Started>,
    /// Whether the Elixir node has the package, and so is a member as well.
    elixir_is_member: bool,
}

impl Stage {
    async fn set(page: &mut Page, package: Option<&Path>) -> Result<Self, Failure> {
        page.heading("Nodes start")?;
        let begin = Instant::now();
        let cookie = format!("{:016x}", rand::random::<u64>());
        // An epmd of its own, so that nodes that run here are not touched.
        let epmd = free_port()?;
        let config = Config::new(RUST1, Cookie::new(cookie.as_str()))
            .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
            .epmd(EpmdMode::Serve, epmd);
        let node = Node::start(config).await?;
        services::start(&node).await?;
        let cluster = node.cluster(ClusterConfig::fast()).await?;
        let events = cluster.subscribe();
        let ready = |name: &str, what: &str, after: Duration| {
            let line = format!("{name:17} {what}, ready after {}", time(after));
            page.check(&line, true, "")
        };
        ready(RUST1, "Rust, in this program", begin.elapsed())?;

        let common = Common {
            cookie: &cookie,
            epmd,
        };
        let rust2 = child::rust(common, RUST2, RUST1).await?;
        let what = format!("Rust, process {}", rust2.os_pid());
        ready(RUST2, &what, rust2.after)?;

        let elixir = child::elixir(common, ELIXIR, RUST1, package).await?;
        match &elixir {
            Some(elixir) => {
                let what = format!("{}, process {}", elixir.ready, elixir.os_pid());
                ready(ELIXIR, &what, elixir.after)?;
            }
            None => page.remark(
                "Elixir is not installed here, so Rust nodes are among themselves. Install Elixir 1.14 or later and \
                 try again.",
            )?,
        }
        Ok(Self {
            node,
            cluster,
            events,
            rust2,
            elixir_is_member: elixir.is_some() && package.is_some(),
            elixir,
        })
    }

    async fn meet(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("The BEAM takes the Rust nodes for its own")?;
        if self.elixir_is_member {
            page.remark("elixir knows only rust1; it meets rust2 through the cluster.")?;
        } else {
            page.remark("This Elixir node has no Tiebeam: to it, this is plain distribution.")?;
            let connect = format!("Enum.map([:\"{RUST1}\", :\"{RUST2}\"], &Node.connect/1)");
            self.shown(page, &connect, "[true, true]").await?;
        }
        let nodes = format!("[:\"{RUST1}\", :\"{RUST2}\"]");
        let code = "Enum.sort(Node.list())";
        self.until(code, &nodes).await?;
        self.shown(page, code, &nodes).await?;
        page.rust("node.nodes()")?;
        let nodes = self.node.nodes();
        let nodes: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        let as_promised = nodes == [ELIXIR, RUST2];
        page.check(&nodes.join(", "), as_promised, "both other nodes")
    }

    async fn meet_without_elixir(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("Nodes meet")?;
        page.rust(&format!("node.ping(\"{RUST2}\", timeout).await?"))?;
        let took = self.node.ping(RUST2, SOON).await?;
        page.check(&time(took), true, "")?;
        page.rust(&format!(
            "node.rpc(\"{RUST2}\", \"erlang\", \"nodes\", vec![], timeout).await?"
        ))?;
        let nodes = self
            .node
            .rpc(RUST2, "erlang", "nodes", vec![], SOON)
            .await?;
        let nodes = nodes.to_string();
        let expected = format!("['{RUST1}']");
        page.check(&nodes, nodes == expected, &expected)
    }

    async fn elixir_calls_rust(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("Elixir calls Rust")?;
        page.remark("A GenServer in Rust, its state and requests typed by serde:")?;
        for (number, sum) in [("40", "40"), ("2", "42")] {
            let code = format!("GenServer.call({{:counter, :\"{RUST1}\"}}, {{:add, {number}}})");
            self.shown(page, &code, sum).await?;
        }
        page.remark("A Rust function:")?;
        let code = format!(":rpc.call(:\"{RUST1}\", :prices, :total, [[19, 5, 18]])");
        self.shown(page, &code, "42").await
    }

    async fn rust_calls_elixir(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("Rust calls Elixir")?;
        page.remark("A GenServer in Elixir:")?;
        page.rust(&format!(
            "node.call((\"greeter\", \"{ELIXIR}\"), &Request::Greet(\"Rust\"), timeout).await?"
        ))?;
        let greeting: String = self
            .node
            .call(("greeter", ELIXIR), &Request::Greet("Rust"), SOON)
            .await?;
        let expected = format!("Hello Rust at {RUST1}!");
        page.check(&format!("{greeting:?}"), greeting == expected, &expected)?;
        page.remark("An Elixir function:")?;
        page.rust(&format!(
            "node.rpc(\"{ELIXIR}\", \"Elixir.String\", \"upcase\", vec![Term::from(\"beam\")], timeout).await?"
        ))?;
        let args = vec![Term::from("beam")];
        let upcase = self.node.rpc(ELIXIR, "Elixir.String", "upcase", args, SOON);
        let upcase = upcase.await?.to_string();
        page.check(&upcase, upcase == "<<\"BEAM\">>", "BEAM")
    }

    async fn link(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("A Rust process is linked to an Elixir process, and fails")?;
        let code = format!(
            "Process.flag(:trap_exit, true)\n\
             sensor = :rpc.call(:\"{RUST1}\", :sensor, :start, [])\n\
             Process.link(sensor)\n\
             send(sensor, 104)\n\
             receive do\n  \
               exit -> exit\n\
             after 5_000 -> :nothing end"
        );
        page.elixir(&code)?;
        let exit = self.eval(&code).await?;
        let as_promised =
            exit.starts_with("{:EXIT, #PID<") && exit.ends_with(">, {:too_hot, 104}}");
        page.check(&exit, as_promised, "an exit signal with the reason")
    }

    async fn members(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("All members see the same cluster")?;
        let mut expected = vec![(RUST1, Kind::Rust), (RUST2, Kind::Rust)];
        match (&self.elixir, self.elixir_is_member) {
            (Some(_), true) => expected.insert(0, (ELIXIR, Kind::Beam)),
            // Without the package it is observed.
            (Some(_), false) => expected.insert(0, (ELIXIR, Kind::Plain)),
            (None, _) => {}
        }
        let complete = self.cluster.wait_for(|members| {
            members.len() == expected.len()
                && members.iter().zip(&expected).all(|(member, (node, kind))| {
                    member.node.as_str() == *node
                        && member.kind == *kind
                        && member.status == Status::Alive
                })
        });
        // The table shows what is missing.
        let complete = matches!(timeout(SOON, complete).await, Ok(Some(_)));
        page.rust("cluster.members()")?;
        self.table(page, complete)?;
        if self.elixir.is_none() {
            return Ok(());
        }
        let elixir = expected
            .iter()
            .map(|(node, kind)| format!("{{:\"{node}\", :{}, :alive}}", kind_name(*kind)))
            .collect::<Vec<_>>();
        let elixir = format!("[{}]", elixir.join(", "));
        let code = match self.elixir_is_member {
            true => {
                "for m <- Tiebeam.members(Demo.Cluster), do: {m.node, m.kind, m.status}".to_owned()
            }
            false => format!(
                "for m <- GenServer.call({{:tiebeam, :\"{RUST1}\"}}, :members), do: {{m.node, m.kind, m.status}}"
            ),
        };
        self.until(&code, &elixir).await?;
        self.shown(page, &code, &elixir).await
    }

    async fn kill(&mut self, page: &mut Page) -> Result<(), Failure> {
        page.heading("A node is killed, and the others say so")?;
        let pid = self.rust2.os_pid();
        let begin = Instant::now();
        match self.elixir_is_member {
            true => {
                let code = format!(
                    "Tiebeam.subscribe(Demo.Cluster)\n\
                     System.cmd(\"kill\", [\"-9\", \"{pid}\"])\n\
                     receive do\n  \
                       {{:tiebeam, _, {{:member, :down, member}}}} -> {{:down, member.node}}\n\
                     after 5_000 -> :nothing end"
                );
                let down = format!("{{:down, :\"{RUST2}\"}}");
                self.shown(page, &code, &down).await?;
            }
            false => {
                page.remark(&format!("kill -9 {pid}"))?;
                self.rust2.kill()?;
            }
        }
        page.rust("events.recv().await")?;
        let event = self.event().await?;
        let as_promised =
            matches!(&event, ClusterEvent::Down(member) if member.node.as_str() == RUST2);
        let after = format!("{}, within {}", event_name(&event), time(begin.elapsed()));
        page.check(&after, as_promised, &format!("Down({RUST2})"))?;
        page.rust("cluster.members()")?;
        let dead = self
            .cluster
            .member(RUST2)
            .is_some_and(|member| member.status == Status::Dead);
        self.table(page, dead)?;
        match self.elixir {
            Some(_) => {
                let nodes = format!("[:\"{RUST1}\"]");
                self.until("Node.list()", &nodes).await?;
                self.shown(page, "Node.list()", &nodes).await
            }
            None => Ok(()),
        }
    }

    async fn leave(&mut self, page: &mut Page) -> Result<(), Failure> {
        if !self.elixir_is_member {
            return Ok(());
        }
        page.heading("A node that leaves says so itself")?;
        self.shown(page, "Tiebeam.leave(Demo.Cluster)", ":ok")
            .await?;
        page.rust("events.recv().await")?;
        let event = self.event().await?;
        let as_promised =
            matches!(&event, ClusterEvent::Left(member) if member.node.as_str() == ELIXIR);
        page.check(&event_name(&event), as_promised, &format!("Left({ELIXIR})"))
    }

    /// Ends the nodes.
    async fn clear(self) {
        if let Some(elixir) = self.elixir {
            elixir.end().await;
        }
        self.rust2.end().await;
        self.node.stop().await;
    }

    // ---- tools

    /// Evaluates Elixir on the Elixir node.
    async fn eval(&self, code: &str) -> Result<String, Failure> {
        let args = vec![Term::from(code)];
        let value = self
            .node
            .rpc(ELIXIR, "Elixir.Demo", "eval", args, SOON)
            .await;
        match value {
            Ok(Term::Binary(value)) => Ok(String::from_utf8_lossy(value.as_slice()).into_owned()),
            Ok(value) => Ok(value.to_string()),
            Err(error @ RpcError::Call(_)) => Err(error.into()),
            // Its value, in a way; the caller expects another one.
            Err(error) => Ok(error.to_string()),
        }
    }

    /// Shows Elixir and its value, which must be this.
    async fn shown(&self, page: &Page, code: &str, expected: &str) -> Result<(), Failure> {
        page.elixir(code)?;
        let value = self.eval(code).await?;
        page.check(&value, value == expected, expected)
    }

    /// Waits until Elixir has this value, or does not get it in time: then what is shown next fails.
    async fn until(&self, code: &str, expected: &str) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.eval(code).await? != expected && begin.elapsed() < SOON {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The next event about a node that goes.
    async fn event(&mut self) -> Result<ClusterEvent, Failure> {
        loop {
            match timeout(SOON, self.events.recv()).await {
                Ok(Some(event @ (ClusterEvent::Down(_) | ClusterEvent::Left(_)))) => {
                    return Ok(event);
                }
                // A member is listed a moment before its event is sent; one that is gone is a suspect first.
                Ok(Some(_)) => {}
                Ok(None) => return Err(Failure::new("the demo's own node has stopped")),
                Err(_) => return Err(Failure::new(format!("nothing happened within {SOON:?}"))),
            }
        }
    }

    fn table(&self, page: &Page, as_promised: bool) -> Result<(), Failure> {
        let members = self.cluster.members();
        let rows: Vec<String> = members.iter().map(row).collect();
        let promise = "all of them, as promised";
        for row in &rows[..rows.len().saturating_sub(1)] {
            page.check(row, true, promise)?;
        }
        page.check(rows.last().map_or("", String::as_str), as_promised, promise)
    }
}

/// The request of the Elixir server: `{:greet, name}`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Request<'a> {
    Greet(&'a str),
}

fn row(member: &Member) -> String {
    let status = match member.status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Dead => "dead",
        Status::Left => "left",
    };
    format!(
        "{:17} {:5} {status}",
        member.node.as_str(),
        kind_name(member.kind)
    )
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Beam => "beam",
        Kind::Rust => "rust",
        Kind::Plain => "plain",
    }
}

fn event_name(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::Up(member) => format!("Up({})", member.node),
        ClusterEvent::Down(member) => format!("Down({})", member.node),
        ClusterEvent::Left(member) => format!("Left({})", member.node),
        other => format!("{other:?}"),
    }
}

fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// A port that nobody listens on, below those that the system hands out by itself: no other socket takes it between this
/// check and its use.
fn free_port() -> Result<u16, Failure> {
    let mut ports = (0..100).map(|_| rand::random_range(10_000..30_000));
    let free = ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.ok_or_else(|| Failure::new("no port from 10000 to 30000 is free: free some"))
}
