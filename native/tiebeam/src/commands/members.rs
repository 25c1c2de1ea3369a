//! `tiebeam members`: who is in the cluster, as one of its members sees it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use tiebeam_node::CallError;

use crate::arguments::{MembersArguments, seconds};
use crate::failure::Failure;
use crate::visitor::{self, Visitor};

/// The registered name of a member's cluster driver.
const PROCESS: &str = "tiebeam";

/// What a member says of a member: `%Tiebeam.Member{}`.
#[derive(Debug, Deserialize, Serialize)]
struct Member {
    node: String,
    kind: String,
    status: String,
    creation: u32,
    incarnation: u64,
}

pub(crate) async fn run(arguments: MembersArguments) -> Result<(), Failure> {
    let visitor = Visitor::to(&arguments.node, &arguments.cookie, &arguments.network).await?;
    let reply = visitor
        .node()
        .call(
            (PROCESS, arguments.node.as_str()),
            &Request::Members,
            seconds(arguments.timeout),
        )
        .await;
    visitor.leave().await;
    let members: Vec<Member> = reply.map_err(|error| match error {
        CallError::NoProcess => Failure::new(format!(
            "{} is no member of a cluster: nobody is registered there as {PROCESS}; start Tiebeam on it, or ask \
             another node",
            arguments.node
        )),
        error => error.into(),
    })?;
    if arguments.json {
        let json = serde_json::to_string(&members)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", table(&members).trim_end()))
    }
}

/// `GenServer.call({:tiebeam, node}, :members)`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Members,
}

fn table(members: &[Member]) -> String {
    let width = members
        .iter()
        .map(|member| member.node.len())
        .max()
        .unwrap_or(0)
        .max("NODE".len());
    let mut table = String::new();
    // Writing to a string cannot fail.
    let mut row = |node: &str, kind: &str, status: &str, creation: &str, incarnation: &str| {
        let _ = writeln!(
            table,
            "{node:width$}  {kind:4}  {status:7}  {creation:>10}  {incarnation}"
        );
    };
    row("NODE", "KIND", "STATUS", "CREATION", "INCARNATION");
    for member in members {
        row(
            &member.node,
            &member.kind,
            &member.status,
            &member.creation.to_string(),
            &member.incarnation.to_string(),
        );
    }
    table
}
