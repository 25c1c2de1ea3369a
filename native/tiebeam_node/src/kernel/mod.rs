//! OTP's kernel services, as far as other nodes ask for them.
//!
//! What a node does not have is better absent than half there: a monitor on an unknown name is answered `noproc` at
//! once, so that callers fail instead of hanging. What is here answers every request, if only with an error.

mod erlang;
mod erpc;
pub(crate) mod global;
mod io;
mod logger;
mod net_kernel;
pub(crate) mod pg;
mod rex;

use tiebeam_wire::{Atom, Term};

use crate::function::Exception;
use crate::node::Node;

/// A function and its arguments.
#[derive(Debug)]
pub(crate) struct Mfa {
    pub(crate) module: Atom,
    pub(crate) function: Atom,
    pub(crate) args: Vec<Term>,
}

impl Mfa {
    /// From the three terms of a request.
    pub(crate) fn of(module: &Term, function: &Term, args: &Term) -> Result<Self, Exception> {
        match (module, function, args) {
            (Term::Atom(module), Term::Atom(function), Term::List(args)) => Ok(Self {
                module: module.clone(),
                function: function.clone(),
                args: args.clone(),
            }),
            _ => {
                let called = Term::list([module.clone(), function.clone(), args.clone()]);
                let frame = [
                    Term::atom("erlang"),
                    Term::atom("apply"),
                    called,
                    Term::list([]),
                ];
                Err(Exception::Error {
                    reason: Term::atom("badarg"),
                    stack: vec![Term::tuple(frame)],
                })
            }
        }
    }
}

/// Starts them all.
pub(crate) fn start(node: &Node) {
    io::start(node);
    logger::start(node);
    net_kernel::start(node);
    rex::start(node);
    erpc::export(node);
    erlang::export(node);
    pg::export(node);
}

/// A reply that says that this node does not do that.
fn notsup() -> Term {
    Term::tuple([Term::atom("error"), Term::atom("notsup")])
}
