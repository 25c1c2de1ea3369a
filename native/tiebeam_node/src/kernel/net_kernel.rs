//! `net_kernel`: answers the ping.

use tiebeam_wire::Term;

use crate::kernel::notsup;
use crate::node::Node;
use crate::process::Signal;

pub(super) fn start(node: &Node) {
    let Ok(process) = node.spawn("net_kernel") else {
        return;
    };
    node.run(process, |mut process| async move {
        while let Some(signal) = process.recv().await {
            // Other messages, such as `{Pid, {is_pending, Node}}`, are for the VM's own handshakes.
            if let Signal::Call(call) = signal {
                let reply = answer(process.node(), call.request());
                // A peer that cannot be written to is about to be closed.
                let _ = call.reply_term(reply);
            }
        }
        Ok(())
    });
}

fn answer(node: &Node, request: &Term) -> Term {
    match request {
        Term::Tuple(request) => match request
            .first()
            .and_then(Term::as_atom)
            .map(|atom| atom.as_str())
        {
            Some("is_auth") => Term::atom("yes"),
            // How nodes without SPAWN_REQUEST start processes; this one has it.
            Some("spawn" | "spawn_link" | "spawn_opt") => {
                let reason = Term::tuple([Term::atom("notsup"), Term::list([])]);
                Term::tuple([Term::atom("EXIT"), reason])
            }
            _ => notsup(),
        },
        Term::Atom(request) => match request.as_str() {
            "longnames" => {
                let long = node
                    .name()
                    .as_str()
                    .split_once('@')
                    .is_some_and(|(_, host)| host.contains('.'));
                Term::from(long)
            }
            "nodename" => Term::from(node.name().clone()),
            _ => notsup(),
        },
        _ => notsup(),
    }
}
