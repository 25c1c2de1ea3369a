//! Functions that other nodes may call: by `rpc`, by `erpc`, or as a new process.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use serde::de::DeserializeOwned;
use tiebeam_wire::{Atom, Term};
use tracing::error;

use crate::process::Process;
use crate::typed;

/// Module, function, arity.
pub(crate) type FunctionKey = (Atom, Atom, usize);

/// A function, run in a process of its own.
pub(crate) type Function = Arc<dyn Fn(Process, Vec<Term>) -> Running + Send + Sync>;

/// A function that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<Term, Exception>> + Send>>;

/// The arguments of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Args(pub Vec<Term>);

impl Args {
    /// The arguments as a Rust tuple, or one value if there is one argument. The error is what Erlang would raise:
    /// `badarg`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Exception> {
        let term = match self.0.as_slice() {
            [one] => one.clone(),
            all => Term::Tuple(all.to_vec()),
        };
        typed::from_term(&term).map_err(|error| {
            let reason = Term::tuple([Term::atom("badarg"), Term::from(error.to_string())]);
            Exception::error(reason)
        })
    }
}

/// What a function does instead of returning: Erlang's three classes.
#[derive(Clone, Debug, PartialEq)]
pub enum Exception {
    /// `erlang:error(Reason)`, with a stack of `{M, F, ArityOrArgs, Location}`.
    Error {
        /// The reason, such as `badarg`.
        reason: Term,
        /// The stack; may be empty.
        stack: Vec<Term>,
    },
    /// `exit(Reason)`.
    Exit(Term),
    /// `throw(Value)`.
    Throw(Term),
}

impl Exception {
    /// An error without a stack.
    pub fn error(reason: impl Into<Term>) -> Self {
        Self::Error {
            reason: reason.into(),
            stack: Vec::new(),
        }
    }

    /// The error for a function that does not exist.
    pub fn undef(module: &Atom, function: &Atom, args: &[Term]) -> Self {
        let frame = [
            Term::from(module.clone()),
            Term::from(function.clone()),
            Term::list(args),
            Term::list([]),
        ];
        Self::Error {
            reason: Term::atom("undef"),
            stack: vec![Term::tuple(frame)],
        }
    }

    /// The reason of a process that ends by this.
    pub fn exit_reason(self) -> Term {
        match self {
            Self::Exit(reason) => reason,
            Self::Error { reason, stack } => Term::tuple([reason, Term::List(stack)]),
            Self::Throw(value) => {
                let reason = Term::tuple([Term::atom("nocatch"), value]);
                Term::tuple([reason, Term::list([])])
            }
        }
    }
}

/// Runs a future to its end; a panic in it becomes the exit reason `{panic, Text}`.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Term> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // The future is not polled again after a panic, so a broken state inside it is seen by nobody.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic_reason(&*panic))),
        }
    })
    .await
}

fn panic_reason(panic: &(dyn Any + Send)) -> Term {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    error!("a process panicked: {text}");
    Term::tuple([Term::atom("panic"), Term::from(text)])
}
