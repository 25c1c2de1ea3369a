//! A Rust node with its copy of the bank, beside the BEAM nodes of node.exs and run.exs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use tiebeam_node::{ClusterConfig, Config, Cookie, Node, StateMachine, Term, from_term};

const VOTERS: [&str; 3] = ["a@127.0.0.1", "b@127.0.0.1", "app@127.0.0.1"];

/// What each account has. On a BEAM the same term: `%{"alice" => 5}`.
#[derive(Default, Serialize, Deserialize)]
struct Bank(BTreeMap<String, i64>);

/// `{:deposit, to, amount}`, `{:transfer, from, to, amount}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Deposit(String, i64),
    Transfer(String, String, i64),
}

/// `:ok`, `:insufficient`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ok,
    Insufficient,
}

impl StateMachine for Bank {
    type Command = Command;
    type Reply = Reply;

    fn handle_command(&mut self, command: Command) -> Reply {
        match command {
            Command::Deposit(to, amount) => *self.0.entry(to).or_default() += amount,
            Command::Transfer(from, to, amount) => match self.0.get_mut(&from) {
                Some(balance) if *balance >= amount => {
                    *balance -= amount;
                    *self.0.entry(to).or_default() += amount;
                }
                _ => return Reply::Insufficient,
            },
        }
        Reply::Ok
    }

    /// `{:balance, account}`, `:total`.
    fn handle_query(&self, query: &Term) -> Option<Term> {
        if query.is_atom("total") {
            return Some(Term::from(self.0.values().sum::<i64>()));
        }
        match query.as_tuple()? {
            [tag, account] if tag.is_atom("balance") => {
                let account: String = from_term(account).ok()?;
                Some(Term::from(self.0.get(&account).copied().unwrap_or(0)))
            }
            _ => None,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("b@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;
    let settings = ClusterConfig::lan().voters(VOTERS).join(VOTERS);
    let cluster = node.cluster(settings).await?;
    let bank = cluster.machine::<Bank>("bank");
    let bank = bank
        .process("bank")
        .snapshot_every(50)
        .start(Bank::default)?;

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    bank.stop().await;
    node.stop().await;
    Ok(())
}
