//! A till that is opened by one process of the cluster at a time, and a ledger that is not deceived by those who come late.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, ClusterConfig, Config, Cookie, Exception, GenServer, LeadershipError, Node, Process,
    ReplyTo, Term,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// `{:write, token, text}`
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Write(u64, String),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    /// Of the ledger: the lock was another one's since.
    Stale,
    /// Of the till: somebody has the lock.
    Held,
}

/// Keeps the greatest token it has seen: who had the lock before is refused, however late the message is.
#[derive(Default)]
struct Ledger {
    greatest: u64,
    lines: Vec<String>,
}

impl GenServer for Ledger {
    type Call = Request;
    type Cast = Term;
    type Reply = Result<usize, Refusal>;

    async fn handle_call(
        &mut self,
        Request::Write(token, text): Request,
        _: &ReplyTo,
        _: &Process,
    ) -> Answer<Self::Reply> {
        if token < self.greatest {
            return Answer::Reply(Err(Refusal::Stale));
        }
        self.greatest = token;
        self.lines.push(text);
        Answer::Reply(Ok(self.lines.len()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("bank@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    // One voter is enough for an example; of three or five, one or two may be lost.
    let settings = ClusterConfig::lan().voters(["bank@127.0.0.1"]);
    let locks = node.cluster(settings).await?.locks();
    node.start_server("ledger", Ledger::default()).await?;

    // :rpc.call(:"bank@127.0.0.1", :till, :close, []): takes the lock if it is free, writes, gives it back.
    let till = node.clone();
    node.export("till", "close", 0, move |_| {
        let (locks, node) = (locks.clone(), till.clone());
        async move {
            let lock = match locks.try_acquire("till", None).await {
                Ok(lock) => lock,
                Err(LeadershipError::Held { .. }) => return Ok(Err(Refusal::Held)),
                Err(error) => return Err(Exception::error(error.to_string())),
            };
            let line = Request::Write(lock.token().0, "closed".to_owned());
            let written = node.call("ledger", &line, TIMEOUT).await;
            let written: Result<usize, Refusal> =
                written.map_err(|error| Exception::error(error.to_string()))?;
            let released = lock.release().await;
            released.map_err(|error| Exception::error(error.to_string()))?;
            Ok(written)
        }
    });

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
