//! `tiebeam members`: who is in the cluster, as one of its members sees it.

use tiebeam_node::Term;

use crate::arguments::MembersArguments;
use crate::failure::Failure;
use crate::member::{self, Member};
use crate::visitor;

pub(crate) async fn run(arguments: MembersArguments) -> Result<(), Failure> {
    let MembersArguments { member, json } = arguments;
    let reply = member::ask(&member, Term::atom("members")).await?;
    let members: Vec<Member> = tiebeam_node::from_term(&reply)?;
    if json {
        let json = serde_json::to_string(&members)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", member::table(members.iter()).trim_end()))
    }
}
