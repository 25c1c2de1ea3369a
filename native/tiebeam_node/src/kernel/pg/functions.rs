//! The functions of OTP's module `pg`, for those that call them from other nodes: operators and tools.
//!
//! Not here: `start`, since a node's own program decides which scopes it runs, and `monitor`, since the caller that it would
//! send to ends with the call.

use tiebeam_wire::{Atom, Pid, Term};

use super::{DEFAULT_SCOPE, Pg, PgError};
use crate::function::{Args, Exception};
use crate::node::Node;

/// The scope that is asked for, if it runs here, its name, and the arguments without it.
struct Asked {
    pg: Option<Pg>,
    scope: Atom,
    args: Vec<Term>,
}

pub(in crate::kernel) fn export(node: &Node) {
    // Each with the default scope, and with one more argument in front.
    let export = |name, arity, body: fn(Asked) -> Result<Term, Exception>| {
        for (with_scope, arity) in [(false, arity), (true, arity + 1)] {
            node.export_process(
                "pg",
                name,
                arity,
                move |process, Args(mut args)| async move {
                    let scope = match with_scope {
                        false => Atom::of(DEFAULT_SCOPE),
                        true => match args.remove(0) {
                            Term::Atom(scope) => scope,
                            _ => return Err(badarg()),
                        },
                    };
                    let pg = process.node().running_pg_scope(&scope);
                    body(Asked { pg, scope, args })
                },
            );
        }
    };
    export("get_members", 1, |asked| {
        let Asked { pg, mut args, .. } = asked;
        let members = pg.map(|pg| pg.members(args.remove(0)));
        Ok(pids_term(members.unwrap_or_default()))
    });
    export("get_local_members", 1, |asked| {
        let Asked { pg, mut args, .. } = asked;
        let members = pg.map(|pg| pg.local_members(args.remove(0)));
        Ok(pids_term(members.unwrap_or_default()))
    });
    export("which_groups", 0, |asked| {
        Ok(Term::from(asked.pg.ok_or_else(badarg)?.groups()))
    });
    export("which_local_groups", 0, |asked| {
        Ok(Term::from(asked.pg.ok_or_else(badarg)?.local_groups()))
    });
    export("join", 2, |asked| {
        change(asked, "join_local", Pg::join_many)
    });
    export("leave", 2, |asked| {
        change(asked, "leave_local", Pg::leave_many)
    });
}

fn change(
    asked: Asked,
    request: &'static str,
    change: fn(&Pg, Term, Vec<Pid>) -> Result<(), PgError>,
) -> Result<Term, Exception> {
    let Asked {
        pg,
        scope,
        mut args,
    } = asked;
    let (members, group) = (args.remove(1), args.remove(0));
    let pids: Option<Vec<Pid>> = match &members {
        Term::List(list) => list.iter().map(|pid| pid.as_pid().cloned()).collect(),
        single => single.as_pid().cloned().map(|pid| vec![pid]),
    };
    let nolocal = |pid| Exception::error(Term::tuple([Term::atom("nolocal"), pid]));
    let pids = pids.ok_or_else(|| nolocal(members.clone()))?;
    let result = match pg {
        Some(pg) => change(&pg, group.clone(), pids),
        None => Err(PgError::Stopped),
    };
    match result {
        Ok(()) => Ok(Term::atom("ok")),
        Err(PgError::NotJoined) => Ok(Term::atom("not_joined")),
        Err(PgError::NotLocal(pid)) => Err(nolocal(Term::from(pid))),
        Err(PgError::Stopped) => {
            let request = Term::tuple([Term::atom(request), group, members]);
            let call = [Term::from(scope), request, Term::atom("infinity")];
            let called = [
                Term::atom("gen_server"),
                Term::atom("call"),
                Term::list(call),
            ];
            let reason = Term::tuple([Term::atom("noproc"), Term::tuple(called)]);
            Err(Exception::Exit(reason))
        }
        Err(PgError::Group(_)) => Err(badarg()),
        Err(PgError::Limit(_)) => Err(Exception::error(Term::atom("system_limit"))),
    }
}

fn badarg() -> Exception {
    Exception::error(Term::atom("badarg"))
}

fn pids_term(pids: Vec<Pid>) -> Term {
    Term::from(pids.into_iter().map(Term::from).collect::<Vec<_>>())
}
