//! `tiebeam stepdown`: has the leader hand over, through any member.

use serde::Serialize;
use tiebeam_node::wire::handshake::NodeName;
use tiebeam_node::{Atom, Term};

use crate::arguments::StepDownArguments;
use crate::failure::Failure;
use crate::{member, registry, visitor};

#[derive(Serialize)]
struct Done {
    /// That of the next leader.
    term: u64,
}

pub(crate) async fn run(arguments: StepDownArguments) -> Result<(), Failure> {
    let StepDownArguments { member, to, json } = arguments;
    let request = match &to {
        None => Term::atom("step_down"),
        Some(to) => {
            let to = Atom::new(NodeName::parse(to)?.as_str())?;
            Term::tuple([Term::atom("step_down"), Term::from(to)])
        }
    };
    let reply = member::ask(&member, request).await?;
    let unexpected = || registry::unexpected(&member.node, &reply);
    let term = match reply.as_tuple() {
        Some([ok, term]) if ok.is_atom("ok") => term.as_integer(),
        Some([error, reason]) if error.is_atom("error") => {
            return Err(refused(&member.node, reason));
        }
        _ => None,
    };
    let term = term.and_then(|term| u64::try_from(term).ok());
    let term = term.ok_or_else(unexpected)?;
    if json {
        let json = serde_json::to_string(&Done { term })?;
        return visitor::print(format_args!("{json}"));
    }
    visitor::print(format_args!("another node leads (term {term})"))
}

fn refused(node: &str, reason: &Term) -> Failure {
    if let Some([tag, Term::Atom(to)]) = reason.as_tuple()
        && tag.is_atom("no_member")
    {
        return Failure::new(format!("{node}: {} is no voter", to.as_str()));
    }
    let why = match reason.as_atom().map(|reason| reason.as_str()) {
        Some("no_group") => "the cluster has no voters, and so no leader".to_owned(),
        Some("no_quorum") => {
            "there is no leader: no majority of the voters can be reached".to_owned()
        }
        Some("unknown_request") => {
            "it does not know of this; ask a member of this release".to_owned()
        }
        _ => format!("the leader stays: {reason}"),
    };
    Failure::new(format!("{node}: {why}"))
}
