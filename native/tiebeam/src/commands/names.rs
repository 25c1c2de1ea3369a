//! `tiebeam names`: the names of the cluster, as one of its members has them.

use tiebeam_node::Term;

use crate::arguments::RegistryArguments;
use crate::failure::Failure;
use crate::registry::{self, Row};
use crate::visitor;

pub(crate) async fn run(arguments: RegistryArguments) -> Result<(), Failure> {
    let reply = registry::ask("names", &arguments).await?;
    let mut rows = Vec::with_capacity(reply.len());
    for row in &reply {
        match row.as_tuple() {
            Some([name, Term::Pid(pid), meta]) => rows.push(Row::of(name, pid, meta)),
            _ => return Err(registry::unexpected(&arguments.member.node, row)),
        }
    }
    rows.sort();
    if arguments.json {
        let json = serde_json::to_string(&rows)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", registry::table("NAME", &rows)))
    }
}
