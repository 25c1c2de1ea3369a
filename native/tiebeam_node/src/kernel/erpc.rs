//! `erpc`: a remote call is a process whose exit reason carries the result.

use tiebeam_wire::Term;

use crate::function::{Args, Exception};
use crate::kernel::Mfa;
use crate::node::Node;

pub(super) fn export(node: &Node) {
    node.export_process(
        "erpc",
        "execute_call",
        4,
        |process, Args(args)| async move {
            let [reference, module, function, args] = args.as_slice() else {
                return Err(Exception::error(Term::atom("badarg")));
            };
            let node = process.node().clone();
            let result = match Mfa::of(module, function, args) {
                Ok(Mfa {
                    module,
                    function,
                    args,
                }) => node.apply(process, module, function, args).await,
                Err(exception) => Err(exception),
            };
            let tagged = |class: &'static str, values: Vec<Term>| {
                let mut elements = vec![reference.clone(), Term::atom(class)];
                elements.extend(values);
                Term::Tuple(elements)
            };
            let reason = match result {
                Ok(value) => tagged("return", vec![value]),
                Err(Exception::Throw(value)) => tagged("throw", vec![value]),
                Err(Exception::Exit(reason)) => tagged("exit", vec![reason]),
                Err(Exception::Error { reason, stack }) => {
                    tagged("error", vec![reason, Term::List(stack)])
                }
            };
            Err(Exception::Exit(reason))
        },
    );
    node.export_process(
        "erpc",
        "execute_cast",
        3,
        |process, Args(args)| async move {
            let [module, function, args] = args.as_slice() else {
                return Err(Exception::error(Term::atom("badarg")));
            };
            let node = process.node().clone();
            let Mfa {
                module,
                function,
                args,
            } = Mfa::of(module, function, args)?;
            node.apply(process, module, function, args).await
        },
    );
}
