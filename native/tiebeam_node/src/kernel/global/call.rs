//! A question to several name servers at once: `gen_server:multi_call/3` without a time limit.
//!
//! It is over when every node has answered or is gone; a node that is gone has nothing to object.

use std::collections::{BTreeMap, BTreeSet};

use tiebeam_wire::{Atom, Term};

use super::machine::{Action, Actor, CallId, Machine};
use super::messages::Request;

/// A question under way, and the answers so far.
#[derive(Debug, Default)]
pub(super) struct MultiCall {
    waiting: BTreeMap<CallId, Atom>,
    answers: Vec<(Atom, Term)>,
}

impl MultiCall {
    /// Takes an answer, or that there will be none.
    pub(super) fn answered(&mut self, call: CallId, answer: Option<Term>) {
        if let Some(node) = self.waiting.remove(&call) {
            self.answers.extend(answer.map(|answer| (node, answer)));
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether all that answered said `true`.
    pub(super) fn all_true(&self) -> bool {
        self.answers
            .iter()
            .all(|(_, answer)| answer.is_atom("true"))
    }

    /// The nodes that said `true`.
    pub(super) fn granted(self) -> BTreeSet<Atom> {
        let granted = self.answers.into_iter();
        let granted = granted.filter(|(_, answer)| answer.is_atom("true"));
        granted.map(|(node, _)| node).collect()
    }
}

impl Machine {
    /// Asks these nodes; this one, if it is among them, answers at once.
    pub(super) fn multi_call(
        &mut self,
        from: Actor,
        nodes: &BTreeSet<Atom>,
        request: &Request,
    ) -> MultiCall {
        let mut question = MultiCall::default();
        for node in nodes {
            if *node == self.config.node {
                let caller = self.pid(from).clone();
                let answer = self.serve(&caller, request);
                question.answers.push((node.clone(), answer));
                continue;
            }
            let call = self.next_call();
            question.waiting.insert(call, node.clone());
            self.act(Action::Call {
                call,
                from,
                node: node.clone(),
                request: request.clone(),
                connect: !matches!(request, Request::DelLock(_)),
            });
        }
        question
    }
}
