//! `tiebeam rpc`: calls a function of a node and prints its value.

use tiebeam_node::Term;

use crate::arguments::{RpcArguments, seconds};
use crate::failure::Failure;
use crate::visitor::{self, Visitor};

pub(crate) async fn run(arguments: RpcArguments) -> Result<(), Failure> {
    let args = list(&arguments.args)?;
    let visitor = Visitor::to(&arguments.node, &arguments.cookie, &arguments.network).await?;
    let value = visitor
        .node()
        .rpc(
            &arguments.node,
            &arguments.module,
            &arguments.function,
            args,
            seconds(arguments.timeout),
        )
        .await;
    visitor.leave().await;
    visitor::print(format_args!("{}", value?))
}

fn list(text: &str) -> Result<Vec<Term>, Failure> {
    match Term::parse(text) {
        Ok(Term::List(args)) => Ok(args),
        Ok(term) => Err(Failure::new(format!(
            "the arguments must be a list, and {term} is none: write '[{term}]'"
        ))),
        Err(error) => Err(Failure::new(format!(
            "the arguments are no Erlang term: {error}"
        ))),
    }
}
