//! Supervisors, servers that survive, worker pools and versioned messages, on real nodes. Nodes are found by address: no epmd
//! takes part.

mod messages;
mod pools;
mod restarts;
mod supervision;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, Config, Cookie, EpmdMode, Flow, GenServer, Node, Pid, Process, ReplyTo, Signal, Term,
};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

async fn start_node(name: &str, others: &[&Node]) -> Node {
    let mut config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    for other in others {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
        let name = other.name().as_str().to_owned();
        config.addresses.insert(name, address);
    }
    Node::start(config).await.unwrap()
}

/// Waits until there is something; fails after the deadline.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, found).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// The process that has a name now, and is not this one.
async fn successor(node: &Node, name: &str, of: &Pid) -> Pid {
    let other = || node.whereis(name).filter(|pid| pid != of);
    eventually("a child is started again", other).await
}

/// The next signal that a process gets.
async fn next(process: &mut Process) -> Signal {
    match tokio::time::timeout(DEADLINE, process.recv()).await {
        Ok(Some(signal)) => signal,
        other => panic!("no signal: {other:?}"),
    }
}

fn term(text: &str) -> Term {
    Term::parse(text).unwrap()
}

/// Adds numbers.
#[derive(Default)]
struct Counter(i64);

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Request {
    Add(i64),
    /// The process that answers.
    Who,
    /// Ends for the reason `asked_to`.
    Fail,
    Panic,
}

impl GenServer for Counter {
    type Call = Request;
    type Cast = Request;
    type Reply = Term;

    async fn handle_call(
        &mut self,
        request: Request,
        _: &ReplyTo,
        process: &Process,
    ) -> Answer<Term> {
        match request {
            Request::Add(number) => {
                self.0 += number;
                Answer::Reply(Term::from(self.0))
            }
            Request::Who => Answer::Reply(Term::from(process.pid())),
            Request::Fail => Answer::Stop(Term::atom("asked_to")),
            Request::Panic => panic!("as the test asked"),
        }
    }

    async fn handle_cast(&mut self, request: Request, _: &Process) -> Flow {
        match request {
            Request::Add(number) => self.0 += number,
            Request::Fail => return Flow::Stop(Term::atom("asked_to")),
            Request::Who | Request::Panic => {}
        }
        Flow::Continue
    }
}
