//! `user`: the group leader of what this node starts. A process on a BEAM whose group leader lives here prints through
//! it, and would wait forever for an answer that does not come.
//!
//! Source: *The Erlang I/O Protocol* in the STDLIB user's guide.

pub(super) mod text;

use std::io::Write;

use tiebeam_wire::{Pid, Term};
use tracing::warn;

use crate::kernel::notsup;
use crate::node::Node;
use crate::process::{Process, Signal};

/// Requests in a `{requests, List}` that are answered; more is an error.
const REQUESTS_MAX: usize = 1_000;

pub(super) fn start(node: &Node) {
    let process = match node.spawn("user") {
        Ok(process) => process,
        Err(error) => return warn!("no group leader: {error}"),
    };
    node.router().set_group_leader(process.pid().clone());
    node.run(process, |mut process| async move {
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Call(call) => drop(call.reply_term(notsup())),
                Signal::Message(Term::Tuple(message)) => {
                    if let [Term::Atom(kind), Term::Pid(from), reply_as, request] =
                        message.as_slice()
                        && *kind == "io_request"
                    {
                        let request = request.clone();
                        // Whoever reads our output may be slow, and must not hold up a thread that serves connections.
                        let answered = tokio::task::spawn_blocking(move || answer(&request)).await;
                        let answer = answered.unwrap_or_else(|_| error("terminated"));
                        reply(&process, from, reply_as, answer);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    });
}

fn reply(process: &Process, from: &Pid, reply_as: &Term, answer: Term) {
    // Whoever asked is gone, or its node is: then nobody waits.
    let _ = process.send(
        from,
        Term::tuple([Term::atom("io_reply"), reply_as.clone(), answer]),
    );
}

fn error(reason: &'static str) -> Term {
    Term::tuple([Term::atom("error"), Term::atom(reason)])
}

fn answer(request: &Term) -> Term {
    let Term::Tuple(elements) = request else {
        return match request {
            // No terminal: no options and no geometry.
            Term::Atom(atom) if *atom == "getopts" => Term::list([]),
            _ => error("request"),
        };
    };
    let Some(kind) = elements.first().and_then(Term::as_atom) else {
        return error("request");
    };
    match (kind.as_str(), &elements[1..]) {
        ("put_chars", [characters] | [_, characters]) => match text::characters(characters) {
            Some(text) => print(&text),
            None => error("put_chars"),
        },
        ("put_chars", [.., module, function, Term::List(args)]) => {
            let known = module.is_atom("io_lib")
                && (function.is_atom("format") || function.is_atom("fwrite"));
            match args.as_slice() {
                [format, Term::List(args)] if known => print(&text::format(format, args)),
                _ => error("enotsup"),
            }
        }
        // There is nobody to type.
        ("get_line" | "get_chars" | "get_until" | "get_password", _) => Term::atom("eof"),
        ("setopts", _) => Term::atom("ok"),
        ("get_geometry", _) => error("enotsup"),
        ("requests", [Term::List(requests)]) if requests.len() <= REQUESTS_MAX => {
            let mut last = Term::atom("ok");
            for request in requests {
                // Nested lists of requests would recurse as deep as the peer likes.
                let nested = request
                    .as_tuple()
                    .and_then(|t| t.first())
                    .is_some_and(|kind| kind.is_atom("requests"));
                last = if nested {
                    error("request")
                } else {
                    answer(request)
                };
                if last
                    .as_tuple()
                    .is_some_and(|answer| answer.first().is_some_and(|kind| kind.is_atom("error")))
                {
                    break;
                }
            }
            last
        }
        _ => error("request"),
    }
}

fn print(text: &str) -> Term {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Term::atom("ok"),
        Err(_) => error("terminated"),
    }
}
