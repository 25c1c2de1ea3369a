//! Servers that `GenServer.call`, `cast` and `:sys` understand, typed by serde.

use std::collections::VecDeque;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::oneshot;
use tracing::debug;

use crate::error::SpawnError;
use crate::node::Node;
use crate::process::{Process, ReplyTo, Signal, reply_to_of};
use crate::typed;

/// A server: state, and what to do with requests.
///
/// Its process dies of exit signals unless [`GenServer::init`] calls [`Process::trap_exit`], and a panic in a callback
/// ends it with the reason `{panic, Text}`.
pub trait GenServer: Send + 'static {
    /// The requests of `call`.
    type Call: DeserializeOwned + Send;
    /// The messages of `cast`.
    type Cast: DeserializeOwned + Send;
    /// The replies to `call`.
    type Reply: Serialize + Send;

    /// Runs in the process before it takes requests. An error ends it: [`Node::start_server`] gives it back.
    fn init(&mut self, process: &Process) -> impl Future<Output = Result<(), Term>> + Send {
        let _ = process;
        async { Ok(()) }
    }

    /// Answers a request. To answer later, keep a clone of `from` and give [`Answer::Later`].
    fn handle_call(
        &mut self,
        request: Self::Call,
        from: &ReplyTo,
        process: &Process,
    ) -> impl Future<Output = Answer<Self::Reply>> + Send;

    /// Handles a message that has no reply.
    fn handle_cast(
        &mut self,
        message: Self::Cast,
        process: &Process,
    ) -> impl Future<Output = Flow> + Send {
        let _ = (message, process);
        async { Flow::Continue }
    }

    /// Handles anything else: plain messages, exits and downs, and casts that are not of the type
    /// [`GenServer::Cast`].
    fn handle_info(
        &mut self,
        signal: Signal,
        process: &Process,
    ) -> impl Future<Output = Flow> + Send {
        let _ = process;
        debug!(?signal, "a server ignores a message");
        async { Flow::Continue }
    }

    /// Runs when the server ends by its own decision, or by `:sys.terminate` (`GenServer.stop`); not when an exit signal
    /// ends it, as in OTP.
    fn terminate(&mut self, reason: &Term, process: &Process) -> impl Future<Output = ()> + Send {
        let _ = (reason, process);
        async {}
    }

    /// The state that `:sys.get_state` shows. Default: the atom `undefined`.
    fn state(&self) -> Term {
        Term::atom("undefined")
    }
}

/// What `handle_call` decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<R> {
    /// Reply this, and go on.
    Reply(R),
    /// The reply comes later, by [`ReplyTo::reply`].
    Later,
    /// Reply this, and end with this reason.
    ReplyAndStop(R, Term),
    /// End with this reason, without a reply: the caller sees the exit.
    Stop(Term),
}

/// Whether a server goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End with this reason.
    Stop(Term),
}

impl Node {
    /// Starts a server under this name and waits for its [`GenServer::init`].
    pub async fn start_server<S: GenServer>(
        &self,
        name: &str,
        server: S,
    ) -> Result<Pid, SpawnError> {
        let process = self.spawn(name)?;
        let name = Atom::new(name).map_err(|error| SpawnError::Invalid(error.to_string()))?;
        self.run_server(process, Some(name), server).await
    }

    /// Starts a server without a name and waits for its [`GenServer::init`].
    pub async fn start_anonymous_server<S: GenServer>(&self, server: S) -> Result<Pid, SpawnError> {
        let process = self.spawn_anonymous()?;
        self.run_server(process, None, server).await
    }

    async fn run_server<S: GenServer>(
        &self,
        process: Process,
        name: Option<Atom>,
        mut server: S,
    ) -> Result<Pid, SpawnError> {
        let (started, start) = oneshot::channel();
        let pid = self.run(process, |mut process| async move {
            if let Err(reason) = server.init(&process).await {
                let _ = started.send(Err(reason.clone()));
                return Err(reason);
            }
            let _ = started.send(Ok(()));
            let Some(reason) = serve(&mut server, &mut process, name.as_ref()).await else {
                // The node has ended the process already, and told why.
                return Ok(());
            };
            server.terminate(&reason, &process).await;
            if reason.is_atom("normal") {
                Ok(())
            } else {
                Err(reason)
            }
        });
        match start.await {
            Ok(Ok(())) => Ok(pid),
            Ok(Err(reason)) => Err(SpawnError::Invalid(format!(
                "the server's init failed: {reason}"
            ))),
            Err(_) => Err(SpawnError::Invalid(
                "the server ended in its init".to_owned(),
            )),
        }
    }
}

/// Serves until the server decides to end; the reason. `None` if the process was ended.
async fn serve<S: GenServer>(
    server: &mut S,
    process: &mut Process,
    name: Option<&Atom>,
) -> Option<Term> {
    // What came while `:sys.suspend` holds the server back. The mailbox's limit holds for it too.
    let mut held: VecDeque<Signal> = VecDeque::new();
    let held_max = process.node().router().limits().mailbox;
    let mut suspended = false;
    loop {
        let waited = if suspended { None } else { held.pop_front() };
        let signal = match waited {
            Some(signal) => signal,
            None => process.recv().await?,
        };
        let signal = match system_request(&signal) {
            Some((from, request)) => {
                let from = reply_to_of(process, from);
                let end = system(server, process, name, from, request, &mut suspended).await;
                if end.is_some() {
                    return end;
                }
                continue;
            }
            None => signal,
        };
        if suspended {
            if held.len() >= held_max {
                return Some(Term::atom("mailbox_full"));
            }
            held.push_back(signal);
            continue;
        }
        if let Flow::Stop(reason) = handle(server, process, signal).await {
            return Some(reason);
        }
    }
}

async fn handle<S: GenServer>(server: &mut S, process: &Process, signal: Signal) -> Flow {
    match signal {
        Signal::Call(call) => {
            let (request, from) = call.into_parts();
            let request = match typed::from_term(&request) {
                Ok(request) => request,
                Err(error) => {
                    // The caller learns what is wrong with its request, instead of waiting for a reply.
                    let reason =
                        Term::tuple([Term::atom("bad_request"), Term::from(error.to_string())]);
                    reply(from, Term::tuple([Term::atom("error"), reason])).await;
                    return Flow::Continue;
                }
            };
            let (answer, flow) = match server.handle_call(request, &from, process).await {
                Answer::Reply(reply) => (Some(reply), Flow::Continue),
                Answer::Later => (None, Flow::Continue),
                Answer::ReplyAndStop(reply, reason) => (Some(reply), Flow::Stop(reason)),
                Answer::Stop(reason) => (None, Flow::Stop(reason)),
            };
            if let Some(answer) = answer {
                let term = typed::to_term(&answer).unwrap_or_else(|error| {
                    // The caller learns of it, instead of waiting for a reply.
                    let reason =
                        Term::tuple([Term::atom("bad_reply"), Term::from(error.to_string())]);
                    Term::tuple([Term::atom("error"), reason])
                });
                reply(from, term).await;
            }
            flow
        }
        Signal::Cast(message) => match typed::from_term(&message) {
            Ok(message) => server.handle_cast(message, process).await,
            Err(_) => server.handle_info(Signal::Cast(message), process).await,
        },
        other => server.handle_info(other, process).await,
    }
}

/// Replies once the peer has room: a reply that is dropped leaves its caller waiting. As a BEAM process, the server is
/// held up by a peer that reads slowly.
async fn reply(to: ReplyTo, reply: Term) {
    if let Err(error) = to.reply_term_paced(reply).await {
        debug!("a reply was not sent: {error}");
    }
}

/// `{system, {Pid, Tag}, Request}`, as `sys` sends it.
fn system_request(signal: &Signal) -> Option<(&Term, &Term)> {
    let Signal::Message(Term::Tuple(elements)) = signal else {
        return None;
    };
    match elements.as_slice() {
        [Term::Atom(system), from, request] if *system == "system" => Some((from, request)),
        _ => None,
    }
}

/// Answers a request of `sys`. A reason ends the server.
async fn system<S: GenServer>(
    server: &mut S,
    process: &Process,
    name: Option<&Atom>,
    from: Option<ReplyTo>,
    request: &Term,
    suspended: &mut bool,
) -> Option<Term> {
    let from = from?;
    let ok = || Term::atom("ok");
    let mut end = None;
    let answer = match request {
        Term::Atom(request) => match request.as_str() {
            "get_state" => Term::tuple([ok(), server.state()]),
            "get_status" => status(server, process, name, *suspended),
            "suspend" => {
                *suspended = true;
                ok()
            }
            "resume" => {
                *suspended = false;
                ok()
            }
            _ => unknown(request.clone().into()),
        },
        Term::Tuple(request) if request.len() == 2 && request[0].is_atom("terminate") => {
            end = Some(request[1].clone());
            ok()
        }
        request => unknown(request.clone()),
    };
    reply(from, answer).await;
    end
}

fn unknown(request: Term) -> Term {
    Term::tuple([
        Term::atom("error"),
        Term::tuple([Term::atom("unknown_system_msg"), request]),
    ])
}

/// What `:sys.get_status` shows, in the shape of OTP's `gen_server`.
fn status<S: GenServer>(
    server: &S,
    process: &Process,
    name: Option<&Atom>,
    suspended: bool,
) -> Term {
    let pid = || Term::from(process.pid());
    let name = name.map_or_else(pid, |name| Term::from(name.clone()));
    let state = Term::atom(if suspended { "suspended" } else { "running" });
    let data = Term::tuple([
        Term::atom("data"),
        Term::list([Term::tuple([Term::charlist("State"), server.state()])]),
    ]);
    let header = Term::tuple([
        Term::atom("header"),
        Term::charlist("Status for a Rust server"),
    ]);
    let misc = Term::list([header, Term::tuple([Term::atom("name"), name]), data]);
    Term::tuple([
        Term::atom("status"),
        pid(),
        Term::tuple([Term::atom("module"), Term::atom("gen_server")]),
        Term::list([Term::list([]), state, pid(), Term::list([]), misc]),
    ])
}
