//! `rex`: remote calls by message, as callers before `erpc` and C nodes make them, and `rpc`'s broadcasts.

use tiebeam_wire::{Pid, Term};

use crate::function::Exception;
use crate::kernel::{Mfa, notsup};
use crate::node::Node;
use crate::process::{Call, Process, Signal};

pub(super) fn start(node: &Node) {
    let Ok(process) = node.spawn("rex") else {
        return;
    };
    node.run(process, |mut process| async move {
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Call(call) => called(&process, call).await,
                // {cast, Module, Function, Args, GroupLeader}
                Signal::Cast(Term::Tuple(cast)) => {
                    if let [_, module, function, args, leader] = cast.as_slice() {
                        let node = process.node().clone();
                        let (mfa, leader) =
                            (Mfa::of(module, function, args), leader.as_pid().cloned());
                        tokio::spawn(async move { evaluate(&node, mfa, leader).await });
                    }
                }
                Signal::Message(Term::Tuple(message)) => {
                    if let Ok([Term::Pid(from), request]) = <[Term; 2]>::try_from(message) {
                        asked(&process, from, request);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    });
}

/// A `gen_server` call: `{call | block_call, Module, Function, Args, GroupLeader}`.
async fn called(process: &Process, call: Call) {
    let node = process.node().clone();
    let (block, mfa, leader) = match call.request().as_tuple() {
        Some([Term::Atom(kind), module, function, args, leader])
            if *kind == "call" || *kind == "block_call" =>
        {
            (
                *kind == "block_call",
                Mfa::of(module, function, args),
                leader.as_pid().cloned(),
            )
        }
        _ => {
            let _ = call.reply_term(notsup());
            return;
        }
    };
    let run = async move {
        let result = evaluate(&node, mfa, leader).await;
        let _ = call.reply_term(result);
    };
    if block {
        // One at a time, in the server itself: that is what `rpc:block_call` asks for.
        run.await;
    } else {
        tokio::spawn(run);
    }
}

/// A plain message `{Pid, Request}`.
fn asked(process: &Process, from: Pid, request: Term) {
    let node = process.node().clone();
    let name = || Term::from(node.name().clone());
    if request.is_atom("features_request") {
        let features = Term::list([Term::atom("erpc")]);
        let _ = process.send(
            &from,
            Term::tuple([Term::atom("features_reply"), name(), features]),
        );
        return;
    }
    let Term::Tuple(request) = request else {
        return;
    };
    match request.as_slice() {
        [Term::Atom(kind), Term::Atom(to), message] if *kind == "sbcast" => {
            let result = match process.send(to.clone(), message.clone()) {
                Ok(()) => name(),
                Err(_) => Term::tuple([Term::atom("nonexisting_name"), Term::from(to.clone())]),
            };
            let _ = process.send(&from, Term::tuple([Term::atom("rex"), name(), result]));
        }
        [Term::Atom(kind), Term::Atom(to), message] if *kind == "send" => {
            let _ = process.send(
                to.clone(),
                Term::tuple([Term::from(&from), message.clone()]),
            );
        }
        [Term::Atom(kind), module, function, args, leader] if *kind == "call" => {
            let (mfa, leader) = (Mfa::of(module, function, args), leader.as_pid().cloned());
            tokio::spawn(async move {
                let result = evaluate(&node, mfa, leader).await;
                let _ = node.send(from, Term::tuple([Term::atom("rex"), result]));
            });
        }
        _ => {}
    }
}

/// The value, or what `rpc:call` shows instead.
async fn evaluate(node: &Node, mfa: Result<Mfa, Exception>, leader: Option<Pid>) -> Term {
    let result = match mfa {
        Ok(mfa) => node.evaluate(mfa, leader).await,
        Err(exception) => Err(exception),
    };
    match result {
        Ok(value) | Err(Exception::Throw(value)) => value,
        Err(exception) => {
            let exit = Term::tuple([Term::atom("EXIT"), exception.exit_reason()]);
            Term::tuple([Term::atom("badrpc"), exit])
        }
    }
}
