//! Servers that `GenServer.call`, `cast` and `:sys` understand, typed by serde.

use std::collections::VecDeque;
use std::future::Future;

use serde::Serialize;
use tiebeam_wire::{Atom, Pid, Term};
use tokio::sync::oneshot;
use tracing::debug;

use crate::cluster::{Name, Registry, RegistryError};
use crate::error::SpawnError;
use crate::message::FromTerm;
use crate::node::Node;
use crate::process::{Process, ReplyTo, Signal, reply_to_of};
use crate::typed;

/// A server: state, and what to do with requests.
///
/// Its process dies of exit signals unless [`GenServer::init`] calls [`Process::trap_exit`], and a panic in a callback
/// ends it with the reason `{panic, Text}`.
pub trait GenServer: Send + 'static {
    /// The requests of `call`: any type that serde can deserialize, or a [`Versioned`](crate::Versioned) one. The caller of a
    /// request that is none is told so, and the server does not see it.
    type Call: FromTerm + Send;
    /// The messages of `cast`.
    type Cast: FromTerm + Send;
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

    /// Starts a server under a name of the cluster, and waits for its [`GenServer::init`]. It has the name before it takes
    /// any message, and is not started if another process has it.
    ///
    /// # Errors
    /// [`SpawnError::Init`] with `{already_started, Pid}` if the name is taken.
    ///
    /// # Cancel safety
    /// Once polled, the server starts even if the future is dropped.
    pub async fn start_registered_server<S: GenServer>(
        &self,
        registry: &Registry,
        name: impl Into<Name>,
        server: S,
    ) -> Result<Pid, SpawnError> {
        let process = self.spawn_anonymous()?;
        let (registry, name) = (registry.clone(), name.into());
        let (birth, started) = Birth::new(None, None);
        let pid = self.run(process, |process| async move {
            if let Err(error) = registry.register(name, process.pid()).await {
                let reason = not_registered(error);
                birth.failed(reason.clone());
                return Err(reason);
            }
            live(server, process, birth).await
        });
        started.wait().await.map(|()| pid)
    }

    async fn run_server<S: GenServer>(
        &self,
        process: Process,
        name: Option<Atom>,
        server: S,
    ) -> Result<Pid, SpawnError> {
        let (birth, started) = Birth::new(None, name);
        let pid = self.run(process, |process| live(server, process, birth));
        started.wait().await.map(|()| pid)
    }
}

/// Why a start has failed whose process could not have its name.
pub(crate) fn not_registered(error: RegistryError) -> Term {
    match error {
        RegistryError::Taken { pid, .. } => already_started(&pid),
        error => Term::tuple([Term::atom("not_registered"), Term::from(error.to_string())]),
    }
}

/// The reason for which OTP does not start a process whose name is taken.
pub(crate) fn already_started(pid: &Pid) -> Term {
    Term::tuple([Term::atom("already_started"), Term::from(pid)])
}

/// What a process that others wait for knows of its start.
pub(crate) struct Birth {
    /// Who started it: when that ends, so does this one.
    pub(crate) parent: Option<Pid>,
    /// Its name on this node.
    pub(crate) name: Option<Atom>,
    started: oneshot::Sender<Result<(), Term>>,
}

/// The start of a process, seen from outside.
pub(crate) struct Started(oneshot::Receiver<Result<(), Term>>);

impl Birth {
    pub(crate) fn new(parent: Option<Pid>, name: Option<Atom>) -> (Self, Started) {
        let (started, start) = oneshot::channel();
        let birth = Self {
            parent,
            name,
            started,
        };
        (birth, Started(start))
    }

    /// Says that the process is ready; who started it, and under which name.
    pub(crate) fn started(self) -> (Option<Pid>, Option<Atom>) {
        // Whoever waited may be gone.
        let _ = self.started.send(Ok(()));
        (self.parent, self.name)
    }

    /// Says why it is not.
    pub(crate) fn failed(self, reason: Term) {
        let _ = self.started.send(Err(reason));
    }
}

impl Started {
    /// Waits until the process is ready.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn wait(self) -> Result<(), SpawnError> {
        match self.0.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(SpawnError::Init(reason)),
            Err(_) => Err(SpawnError::Invalid(
                "the process ended before it was ready".to_owned(),
            )),
        }
    }

    /// Whether the process is ready, or was before it ended. Once it was asked, it is only to be asked if it is not.
    pub(crate) fn is_ready(&mut self) -> bool {
        matches!(self.0.try_recv(), Ok(Ok(())))
    }

    /// Waits until it is decided; whether the process is ready.
    pub(crate) async fn ready(&mut self) -> bool {
        matches!((&mut self.0).await, Ok(Ok(())))
    }
}

/// A server's process, from its init to its end: the reason.
pub(crate) async fn live<S: GenServer>(
    mut server: S,
    mut process: Process,
    birth: Birth,
) -> Result<(), Term> {
    if let Err(reason) = server.init(&process).await {
        birth.failed(reason.clone());
        return Err(reason);
    }
    let (parent, name) = birth.started();
    let identity = Identity {
        parent: parent.as_ref(),
        name: name.as_ref(),
    };
    let Some(reason) = serve(&mut server, &mut process, identity).await else {
        // The node has ended the process already, and told why.
        return Ok(());
    };
    server.terminate(&reason, &process).await;
    if reason.is_atom("normal") {
        Ok(())
    } else {
        Err(reason)
    }
}

/// What a server is to others.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) parent: Option<&'a Pid>,
    pub(crate) name: Option<&'a Atom>,
}

/// Serves until the server decides to end; the reason. `None` if the process was ended.
async fn serve<S: GenServer>(
    server: &mut S,
    process: &mut Process,
    identity: Identity<'_>,
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
                let state = server.state();
                let end = system(state, process, identity, from, request, &mut suspended).await;
                if end.is_some() {
                    return end;
                }
                continue;
            }
            None => signal,
        };
        // As in OTP a server that traps exits ends with its parent, and cannot tell that from being told to end.
        if let Signal::Exit { from, reason } = &signal
            && identity.parent == Some(from)
        {
            return Some(reason.clone());
        }
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
            let request = match S::Call::from_term(&request) {
                Ok(request) => request,
                Err(misfit) => {
                    // The caller learns what is wrong with its request, instead of waiting for a reply.
                    reply(from, misfit.to_reply()).await;
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
        Signal::Cast(message) => match S::Cast::from_term(&message) {
            Ok(message) => server.handle_cast(message, process).await,
            Err(_) => server.handle_info(Signal::Cast(message), process).await,
        },
        other => server.handle_info(other, process).await,
    }
}

/// Replies once the peer has room: a reply that is dropped leaves its caller waiting. As a BEAM process, the server is
/// held up by a peer that reads slowly.
pub(crate) async fn reply(to: ReplyTo, reply: Term) {
    if let Err(error) = to.reply_term_paced(reply).await {
        debug!("a reply was not sent: {error}");
    }
}

/// `{system, {Pid, Tag}, Request}`, as `sys` sends it.
pub(crate) fn system_request(signal: &Signal) -> Option<(&Term, &Term)> {
    let Signal::Message(Term::Tuple(elements)) = signal else {
        return None;
    };
    match elements.as_slice() {
        [Term::Atom(system), from, request] if *system == "system" => Some((from, request)),
        _ => None,
    }
}

/// Answers a request of `sys`. A reason ends the server.
pub(crate) async fn system(
    state: Term,
    process: &Process,
    identity: Identity<'_>,
    from: Option<ReplyTo>,
    request: &Term,
    suspended: &mut bool,
) -> Option<Term> {
    let from = from?;
    let ok = || Term::atom("ok");
    let mut end = None;
    let answer = match request {
        Term::Atom(request) => match request.as_str() {
            "get_state" => Term::tuple([ok(), state]),
            "get_status" => status(state, process, identity, *suspended),
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
fn status(state: Term, process: &Process, identity: Identity<'_>, suspended: bool) -> Term {
    let pid = || Term::from(process.pid());
    let name = identity
        .name
        .map_or_else(pid, |name| Term::from(name.clone()));
    let parent = identity.parent.map_or_else(pid, Term::from);
    let mode = Term::atom(if suspended { "suspended" } else { "running" });
    let data = Term::tuple([
        Term::atom("data"),
        Term::list([Term::tuple([Term::charlist("State"), state])]),
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
        Term::list([Term::list([]), mode, parent, Term::list([]), misc]),
    ])
}
