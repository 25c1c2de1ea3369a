//! `tiebeam members`: who is in the cluster, as one of its members sees it.

use tiebeam_node::Term;

use crate::arguments::{MembersArguments, seconds};
use crate::failure::Failure;
use crate::member::{self, Member, PROCESS};
use crate::visitor::{self, Visitor};

pub(crate) async fn run(arguments: MembersArguments) -> Result<(), Failure> {
    let visitor = Visitor::to(&arguments.node, &arguments.cookie, &arguments.network).await?;
    let reply = visitor
        .node()
        .call_term(
            (PROCESS, arguments.node.as_str()),
            Term::atom("members"),
            seconds(arguments.timeout),
        )
        .await;
    visitor.leave().await;
    let reply = reply.map_err(|error| member::failure(&arguments.node, error))?;
    let members: Vec<Member> = tiebeam_node::from_term(&reply)?;
    if arguments.json {
        let json = serde_json::to_string(&members)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", member::table(members.iter()).trim_end()))
    }
}
