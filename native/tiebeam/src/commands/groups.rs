//! `tiebeam groups`: the groups of the cluster and who is in them, as one of its members has them.

use tiebeam_node::Term;

use crate::arguments::RegistryArguments;
use crate::failure::Failure;
use crate::registry::{self, Row};
use crate::visitor;

pub(crate) async fn run(arguments: RegistryArguments) -> Result<(), Failure> {
    let reply = registry::ask("groups", &arguments).await?;
    let mut rows = Vec::new();
    for group in &reply {
        let Some([name, Term::List(members)]) = group.as_tuple() else {
            return Err(registry::unexpected(&arguments.member.node, group));
        };
        for member in members {
            match member.as_tuple() {
                Some([Term::Pid(pid), meta]) => rows.push(Row::of(name, pid, meta)),
                _ => return Err(registry::unexpected(&arguments.member.node, member)),
            }
        }
    }
    rows.sort();
    if arguments.json {
        let json = serde_json::to_string(&rows)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", registry::table("GROUP", &rows)))
    }
}
