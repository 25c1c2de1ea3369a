//! Functions of OTP modules that tools and libraries call on any node.

use tiebeam_wire::{Atom, Term};

use crate::function::{Args, Exception};
use crate::node::Node;

/// What `erlang:system_info(otp_release)` says: the release whose protocol this node speaks.
const OTP_RELEASE: &str = "28";

pub(super) fn export(node: &Node) {
    let badarg = || Exception::error(Term::atom("badarg"));
    let export = |module, function, arity, body: fn(&Node, &[Term]) -> Option<Term>| {
        node.export_process(module, function, arity, move |process, Args(args)| async move {
            body(process.node(), &args).ok_or_else(badarg)
        });
    };
    export("erlang", "node", 0, |node, _| {
        Some(Term::from(node.name().clone()))
    });
    export("erlang", "nodes", 0, |node, _| Some(names(node.nodes())));
    export("erlang", "nodes", 1, |node, args| nodes(node, &args[0]));
    export("erlang", "whereis", 1, |node, args| {
        let name = args[0].as_atom()?;
        Some(
            node.whereis(name.as_str())
                .map_or_else(|| Term::atom("undefined"), Term::from),
        )
    });
    export("erlang", "registered", 0, |node, _| {
        Some(names(node.registered()))
    });
    export("erlang", "processes", 0, |node, _| {
        Some(Term::List(
            node.processes().into_iter().map(Term::from).collect(),
        ))
    });
    export("erlang", "is_process_alive", 1, |node, args| {
        let pid = args[0].as_pid().filter(|pid| pid.node == *node.name())?;
        Some(Term::from(node.is_process_alive(pid)))
    });
    export("erlang", "system_info", 1, |node, args| {
        system_info(node, args[0].as_atom()?)
    });
    export("erlang", "disconnect_node", 1, |node, args| {
        Some(Term::from(node.disconnect(args[0].as_atom()?.as_str())))
    });
    export("erlang", "function_exported", 3, |node, args| {
        let [
            Term::Atom(module),
            Term::Atom(function),
            Term::Integer(arity),
        ] = args
        else {
            return None;
        };
        let key = (
            module.clone(),
            function.clone(),
            usize::try_from(*arity).ok()?,
        );
        Some(Term::from(node.router().function(&key).is_some()))
    });
    export("code", "which", 1, |_, _| Some(Term::atom("non_existing")));
    export("code", "ensure_loaded", 1, |_, _| {
        Some(Term::tuple([Term::atom("error"), Term::atom("nofile")]))
    });
    // Global groups are not configured here.
    export("global_group", "get_own_nodes", 0, |_, _| {
        Some(Term::list([]))
    });

    node.export_process(
        "net_adm",
        "ping",
        1,
        move |process, Args(args)| async move {
            let peer = args[0].as_atom().ok_or_else(badarg)?;
            let pong = connect_and_ping(process.node(), peer).await;
            Ok(Term::atom(if pong { "pong" } else { "pang" }))
        },
    );
    node.export_process(
        "net_kernel",
        "connect_node",
        1,
        move |process, Args(args)| async move {
            let peer = args[0].as_atom().ok_or_else(badarg)?;
            let node = process.node();
            Ok(Term::from(
                peer == node.name() || node.connect(peer.as_str()).await.is_ok(),
            ))
        },
    );
    node.export_process(
        "erlang",
        "monitor_node",
        2,
        |process, Args(args)| async move {
            // The flag belongs to the process that calls, and that one ends with the call: there is nobody to tell.
            match args.as_slice() {
                [Term::Atom(_), Term::Atom(flag)] if *flag == "true" || *flag == "false" => {
                    drop(process);
                    Ok(Term::from(true))
                }
                _ => Err(Exception::error(Term::atom("badarg"))),
            }
        },
    );
    node.export_process("erlang", "apply", 3, |process, Args(args)| async move {
        let node = process.node().clone();
        let super::Mfa {
            module,
            function,
            args,
        } = super::Mfa::of(&args[0], &args[1], &args[2])?;
        node.apply(process, module, function, args).await
    });
    node.export_process("erlang", "apply", 2, |process, Args(args)| async move {
        let node = process.node().clone();
        match (&args[0], &args[1]) {
            (Term::Export(export), Term::List(args)) => {
                node.apply(
                    process,
                    export.module.clone(),
                    export.function.clone(),
                    args.clone(),
                )
                .await
            }
            // A closure is code of a BEAM module, which this node does not have; a BEAM without it says the same.
            (fun @ Term::Fun(_), args) => Err(Exception::Error {
                reason: Term::atom("undef"),
                stack: vec![Term::tuple([fun.clone(), args.clone(), Term::list([])])],
            }),
            (fun, _) => Err(Exception::error(Term::tuple([
                Term::atom("badfun"),
                fun.clone(),
            ]))),
        }
    });
}

async fn connect_and_ping(node: &Node, peer: &Atom) -> bool {
    peer == node.name()
        || node
            .ping(peer.as_str(), std::time::Duration::from_secs(7))
            .await
            .is_ok()
}

fn names(names: Vec<Atom>) -> Term {
    Term::List(names.into_iter().map(Term::from).collect())
}

fn nodes(node: &Node, kind: &Term) -> Option<Term> {
    let kinds = match kind {
        Term::List(kinds) => kinds.as_slice(),
        kind => std::slice::from_ref(kind),
    };
    let mut found: Vec<Atom> = Vec::new();
    for kind in kinds {
        match kind.as_atom()?.as_str() {
            "visible" => found.extend(node.nodes()),
            "hidden" => found.extend(node.hidden_nodes()),
            "connected" => {
                found.extend(node.nodes());
                found.extend(node.hidden_nodes());
            }
            "this" => found.push(node.name().clone()),
            "known" => {
                found.push(node.name().clone());
                found.extend(node.nodes());
                found.extend(node.hidden_nodes());
            }
            _ => return None,
        }
    }
    found.sort();
    found.dedup();
    Some(names(found))
}

fn system_info(node: &Node, key: &Atom) -> Option<Term> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from) as i64;
    Some(match key.as_str() {
        "otp_release" => Term::charlist(OTP_RELEASE),
        "process_count" => Term::from(node.processes().len() as u64),
        "process_limit" => Term::from(node.router().limits().processes as u64),
        "system_version" => Term::charlist(concat!(
            "Tiebeam ",
            env!("CARGO_PKG_VERSION"),
            " (a Rust node)\n"
        )),
        "version" => Term::charlist(env!("CARGO_PKG_VERSION")),
        "machine" => Term::charlist("TIEBEAM"),
        "system_architecture" => Term::charlist(std::env::consts::ARCH),
        "schedulers" | "schedulers_online" | "logical_processors" => Term::from(cores()),
        "wordsize" => Term::from(8),
        "creation" => Term::from(node.creation()),
        _ => return None,
    })
}
