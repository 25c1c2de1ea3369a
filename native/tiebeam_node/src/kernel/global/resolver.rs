//! Resolvers: which of two processes keeps a name that both are registered as.

use tiebeam_wire::{Atom, Pid, Term};
use tracing::info;

use super::messages::{default_method, method};
use crate::function::{Args, Exception, caught};
use crate::node::Node;
use crate::process::Process;

/// What happens when two partitions are joined and a name is registered in both. One node decides, for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolver {
    /// One of the two is killed; the other keeps the name. `global:random_exit_name/3`, the default of OTP.
    #[default]
    RandomExit,
    /// One of the two is sent `{global_name_conflict, Name}`; the other keeps the name. `global:random_notify_name/3`.
    RandomNotify,
    /// Each is sent `{global_name_conflict, Name, OtherPid}`, and the name is nobody's. `global:notify_all_name/3`.
    NotifyAll,
    /// The function with this name and three arguments, `Name, Pid1, Pid2`, gives the pid that keeps the name, or the
    /// atom `none`. It is called on the node of one of the two processes, so all nodes should have it: as an exported
    /// function of a module on a BEAM, by [`Node::export`] on a Rust node.
    Function {
        /// Its module.
        module: Atom,
        /// Its name.
        function: Atom,
    },
}

impl Resolver {
    /// The fun that stands for it in the tables of all nodes.
    pub(super) fn to_term(&self) -> Term {
        let of_global = |function| method(Atom::of("global"), Atom::of(function));
        match self {
            Self::RandomExit => default_method(),
            Self::RandomNotify => of_global("random_notify_name"),
            Self::NotifyAll => of_global("notify_all_name"),
            Self::Function { module, function } => method(module.clone(), function.clone()),
        }
    }

    /// What this node makes of a fun. A closure is code of a BEAM module, which this node does not have; that of the
    /// module `global` is its default. The others are treated alike: one process must go.
    fn of_term(method: &Term) -> Self {
        match method {
            Term::Export(export) if export.module == "global" => match export.function.as_str() {
                "random_notify_name" => Self::RandomNotify,
                "notify_all_name" => Self::NotifyAll,
                _ => Self::RandomExit,
            },
            Term::Export(export) => Self::Function {
                module: export.module.clone(),
                function: export.function.clone(),
            },
            _ => Self::RandomExit,
        }
    }
}

/// Makes `global:resolve_it/4` callable: the node that decides a conflict asks the node of one of the processes.
pub(super) fn export(node: &Node) {
    node.export_process(
        "global",
        "resolve_it",
        4,
        |process, Args(args)| async move {
            let Ok([method, name, Term::Pid(first), Term::Pid(second)]) =
                <[Term; 4]>::try_from(args)
            else {
                return Err(Exception::error(Term::atom("badarg")));
            };
            Ok(resolve(process, Resolver::of_term(&method), name, first, second).await)
        },
    );
    let named = [
        ("random_exit_name", Resolver::RandomExit),
        ("random_notify_name", Resolver::RandomNotify),
        ("notify_all_name", Resolver::NotifyAll),
    ];
    for (function, resolver) in named {
        node.export_process("global", function, 3, move |process, Args(args)| {
            let resolver = resolver.clone();
            async move {
                let Ok([name, Term::Pid(first), Term::Pid(second)]) = <[Term; 3]>::try_from(args)
                else {
                    return Err(Exception::error(Term::atom("badarg")));
                };
                Ok(resolve(process, resolver, name, first, second).await)
            }
        });
    }
}

/// The pid that keeps the name, or something else: then it is nobody's.
async fn resolve(
    process: Process,
    resolver: Resolver,
    name: Term,
    first: Pid,
    second: Pid,
) -> Term {
    let conflict = |other: Option<&Pid>| {
        let mut elements = vec![Term::atom("global_name_conflict"), name.clone()];
        elements.extend(other.map(Term::from));
        Term::Tuple(elements)
    };
    let (keeps, loses) = match first.node < second.node {
        true => (&first, &second),
        false => (&second, &first),
    };
    // Whether a message arrives is not known on a BEAM either.
    match resolver {
        Resolver::RandomExit => {
            info!(%name, pid = ?loses, "global: name conflict, terminating");
            process.send_exit(loses, Term::atom("kill"));
            Term::from(keeps)
        }
        Resolver::RandomNotify => {
            let _ = process.send(loses, conflict(None));
            Term::from(keeps)
        }
        Resolver::NotifyAll => {
            let _ = process.send(&first, conflict(Some(&second)));
            let _ = process.send(&second, conflict(Some(&first)));
            Term::atom("none")
        }
        Resolver::Function { module, function } => {
            let node = process.node().clone();
            let args = vec![name.clone(), Term::from(&first), Term::from(&second)];
            if node
                .router()
                .function(&(module.clone(), function.clone(), 3))
                .is_none()
            {
                info!(%module, %function, "a resolver that this node does not have: one process must go");
                process.send_exit(loses, Term::atom("kill"));
                return Term::from(keeps);
            }
            match caught(node.apply(process, module, function, args)).await {
                Ok(Ok(value) | Err(Exception::Throw(value))) => value,
                // As `catch` makes of it; the name is then nobody's.
                Ok(Err(exception)) => Term::tuple([Term::atom("EXIT"), exception.exit_reason()]),
                Err(panic) => Term::tuple([Term::atom("EXIT"), panic]),
            }
        }
    }
}
