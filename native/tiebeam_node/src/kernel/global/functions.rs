//! What operators and other nodes call by `rpc`: functions of `global`, and its tables.

use tiebeam_wire::{Pid, Term};

use super::handle::{Global, GlobalError, GlobalName};
use super::messages::{default_method, is_method, method};
use crate::function::{Args, Exception};
use crate::node::Node;

pub(super) fn export(node: &Node) {
    fn badarg() -> Exception {
        Exception::error(Term::atom("badarg"))
    }
    fn pid(term: &Term) -> Result<&Pid, Exception> {
        term.as_pid().ok_or_else(badarg)
    }
    node.export_process(
        "global",
        "whereis_name",
        1,
        |process, Args(args)| async move {
            let pid = process.node().global().whereis(&args[0]);
            Ok(pid.map_or(Term::atom("undefined"), Term::from))
        },
    );
    node.export_process("global", "registered_names", 0, |process, _| async move {
        Ok(Term::List(process.node().global().registered_names()))
    });
    node.export_process("global", "sync", 0, |process, _| async move {
        let global = process.node().global();
        done(global.sync().await, "ok", "error")
    });
    node.export_process("global", "send", 2, |process, Args(args)| async move {
        let [name, message] = args.as_slice() else {
            return Err(badarg());
        };
        match process.node().global().send(name, message.clone()) {
            Ok(pid) => Ok(Term::from(pid)),
            Err(_) => {
                let reason = [
                    Term::atom("badarg"),
                    Term::tuple([name.clone(), message.clone()]),
                ];
                Err(Exception::Exit(Term::tuple(reason)))
            }
        }
    });
    /// The third argument; a pair of module and function is OTP's old way to say it.
    fn resolver(args: &[Term]) -> Result<Term, Exception> {
        match args.get(2) {
            None => Ok(default_method()),
            Some(fun) if is_method(fun) => Ok(fun.clone()),
            Some(pair) => match pair.as_tuple() {
                Some([Term::Atom(module), Term::Atom(function)]) => {
                    Ok(method(module.clone(), function.clone()))
                }
                _ => Err(badarg()),
            },
        }
    }
    for arity in [2, 3] {
        node.export_process(
            "global",
            "register_name",
            arity,
            |process, Args(args)| async move {
                let method = resolver(&args)?;
                let global = process.node().global();
                let registered =
                    global.register_term(GlobalName(args[0].clone()), pid(&args[1])?, method);
                done(registered.await, "yes", "no")
            },
        );
        node.export_process(
            "global",
            "re_register_name",
            arity,
            |process, Args(args)| async move {
                let method = resolver(&args)?;
                let global = process.node().global();
                let registered =
                    global.re_register_term(GlobalName(args[0].clone()), pid(&args[1])?, method);
                done(registered.await, "yes", "no")
            },
        );
    }
    node.export_process(
        "global",
        "unregister_name",
        1,
        |process, Args(args)| async move {
            let global = process.node().global();
            done(global.unregister(&args[0]).await, "ok", "error")
        },
    );
    node.export_process("ets", "tab2list", 1, |process, Args(args)| async move {
        let global = process.node().global();
        match args[0].as_atom().map(|table| table.as_str()) {
            Some("global_locks") => Ok(global.locks_term()),
            Some("global_names") => Ok(names(&global)),
            _ => Err(badarg()),
        }
    });
}

/// `[{Name, Pid}]`.
fn names(global: &Global) -> Term {
    let names = global.registered_names().into_iter();
    let row = |name: Term| {
        let pid = global.whereis(&name)?;
        Some(Term::tuple([name, Term::from(pid)]))
    };
    Term::List(names.filter_map(row).collect())
}

fn done(
    result: Result<(), GlobalError>,
    yes: &'static str,
    no: &'static str,
) -> Result<Term, Exception> {
    match result {
        Ok(()) => Ok(Term::atom(yes)),
        Err(GlobalError::NameTaken { .. } | GlobalError::ProcessNamed(_)) => Ok(Term::atom(no)),
        Err(error) => Err(Exception::error(error.to_string())),
    }
}
