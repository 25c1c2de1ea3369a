//! The services that conformance tests call, the same as those of the Erlang module `fixture` on a BEAM node.
//!
//! Each function here says the same as the one of its name in that module, so that a test cannot tell the two nodes
//! apart. All of it goes through the public interface of `tiebeam_node`.

mod supervised;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use num_bigint::BigInt;
use tiebeam_node::{
    Answer, Args, Atom, CallError, ClusterHandle, Destination, Exception, GenServer, GlobalError,
    GlobalName, Name, Node, PassiveReason, Pg, PgError, Pid, Process, ReleaseReason, ReplyTo,
    RingHandler, Route, RpcError, SendError, Signal, SpawnError, SpawnOptions, Target, Term, Token,
};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long a process waits for something that should not come.
const QUIET_TIME: Duration = Duration::from_millis(300);

/// How long `fixture:rpc/4` waits.
const RPC_TIME: Duration = Duration::from_secs(5);

/// What `infinity` is as a time limit: a year, well inside the range of timers.
const INFINITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// What an exported function gives.
type Outcome = Result<Term, Exception>;

/// Hosts the services on a node. Notified when a node calls `fixture:stop()`.
pub(crate) fn host(node: &Node) -> Result<Arc<Notify>, SpawnError> {
    let echo = node.spawn("echo")?;
    node.run(echo, echo_loop);
    let sink = node.spawn("sink")?;
    node.run(sink, sink_loop);

    export(node, "add", add);
    export(node, "raise", raise);
    export(node, "throw", throw);
    export(node, "exit", exit);
    export(node, "sleep", sleep_for);
    export(node, "spawn_echo", spawn_echo);
    export(node, "echo_loop", echo_as_function);
    export(node, "spawn_linked", spawn_linked);
    export(node, "watch", watch);
    export(node, "watch_name", watch);
    export(node, "monitor_then_demonitor", monitor_then_demonitor);
    export(node, "linker", linker);
    export(node, "link_then_unlink", link_then_unlink);
    export(node, "exit_signal", exit_signal);
    export(node, "remote_spawn", remote_spawn);
    export(node, "call", call);
    export(node, "cast", cast);
    export(node, "send", send);
    export(node, "flood", flood);
    export(node, "rpc", rpc);
    node.pg()?;
    export(node, "pg_start", pg_start);
    export(node, "pg_join", pg_join);
    export(node, "pg_leave", pg_leave);
    export(node, "pg_members", pg_members);
    export(node, "global_register", global_register);
    export(node, "global_unregister", global_unregister);
    export(node, "global_whereis", global_whereis);
    export(node, "global_names", global_names);
    export(node, "global_trans", global_trans);
    export(node, "spawn_relay", spawn_relay);
    export(node, "keep_greater", keep_greater);
    export(node, "supervise", supervised::supervise);

    let stop = Arc::new(Notify::new());
    let notify = Arc::clone(&stop);
    export(node, "stop", move |process, []| {
        let stop = Arc::clone(&notify);
        stop_after(process, stop)
    });
    Ok(stop)
}

/// Hosts the services of a member of a cluster, which no module on a BEAM has: `Tiebeam.Singleton`, `Tiebeam.Ring` and
/// `Tiebeam.Pool` are their other sides.
pub(crate) fn host_member(node: &Node, cluster: &ClusterHandle) {
    let of_ring = cluster.clone();
    export(node, "take_part", move |process, args| {
        take_part(process, of_ring.clone(), args)
    });
    let of_call = cluster.clone();
    export(node, "call_ring", move |_, args| {
        call_ring(of_call.clone(), args)
    });
    let of_pool = cluster.clone();
    export(node, "work", move |_, args| work(of_pool.clone(), args));
    let of_pool = cluster.clone();
    export(node, "call_pool", move |_, args| {
        call_pool(of_pool.clone(), args)
    });
    let of_leader = cluster.clone();
    export(node, "leads", move |_, []| leads(of_leader.clone()));
    let cluster = cluster.clone();
    export(node, "stand_by", move |process, args| {
        stand_by(process, cluster.clone(), args)
    });
}

/// `fixture:take_part(Name, Partitions, ReportTo)`: takes part in a ring, and sends `{owned, Node, Partition, Token}` and
/// `{released, Node, Partition}` to a process. A call is answered `{Node, Request}`.
async fn take_part(
    process: Process,
    cluster: ClusterHandle,
    [name, partitions, to]: [Term; 3],
) -> Outcome {
    let name = Name::try_from(name).map_err(|_| error("badarg"))?;
    let partitions = partitions.as_integer();
    let partitions = partitions.and_then(|partitions| u32::try_from(partitions).ok());
    let handler = Partitions {
        node: process.node().clone(),
        to: to.as_pid().cloned().ok_or_else(|| error("badarg"))?,
    };
    let ring = cluster.ring(name, partitions.ok_or_else(|| error("badarg"))?);
    let member = ring.start(handler).map_err(|reason| Exception::Error {
        reason: Term::from(reason.to_string()),
        stack: Vec::new(),
    })?;
    Ok(Term::from(member.pid()))
}

struct Partitions {
    node: Node,
    to: Pid,
}

impl Partitions {
    fn name(&self) -> Term {
        Term::from(self.node.name().clone())
    }

    async fn tell(&self, message: impl Into<Vec<Term>>) {
        // Nobody learns on a BEAM either that a message was lost.
        let _ = self.node.send_paced(&self.to, Term::tuple(message)).await;
    }
}

impl RingHandler for Partitions {
    type Call = Term;
    type Reply = Term;

    async fn on_own(&self, partition: u32, token: Token) -> Result<(), Term> {
        let (partition, token) = (Term::from(partition), Term::from(token.0));
        self.tell([Term::atom("owned"), self.name(), partition, token])
            .await;
        Ok(())
    }

    async fn on_release(&self, partition: u32, _: ReleaseReason) {
        let partition = Term::from(partition);
        self.tell([Term::atom("released"), self.name(), partition])
            .await;
    }

    async fn handle_call(&self, _: u32, _: Term, request: Term) -> Term {
        Term::tuple([self.name(), request])
    }
}

/// `fixture:call_ring(Name, Partitions, Key, Request)`: what the owner of the key replies.
async fn call_ring(cluster: ClusterHandle, [name, partitions, key, request]: [Term; 4]) -> Outcome {
    let badarg = || error("badarg");
    let (name, key) = (Name::try_from(name), Name::try_from(key));
    let (name, key) = (name.map_err(|_| badarg())?, key.map_err(|_| badarg())?);
    let partitions = partitions.as_integer();
    let partitions = partitions.and_then(|partitions| u32::try_from(partitions).ok());
    let ring = cluster.ring(name, partitions.ok_or_else(badarg)?);
    let reply = ring.call_term(key, request, RPC_TIME).await;
    reply.map_err(|reason| Exception::Error {
        reason: Term::from(reason.to_string()),
        stack: Vec::new(),
    })
}

/// `fixture:work(Name)`: takes part in a pool that spreads. A call is answered `{Node, Request}`.
async fn work(cluster: ClusterHandle, [name]: [Term; 1]) -> Outcome {
    let name = Name::try_from(name).map_err(|_| error("badarg"))?;
    let started = cluster.pool(name).start(|_token| Worker);
    let member = started.map_err(|reason| Exception::Error {
        reason: Term::from(reason.to_string()),
        stack: Vec::new(),
    })?;
    Ok(Term::from(member.pid()))
}

struct Worker;

impl GenServer for Worker {
    type Call = Term;
    type Cast = Term;
    type Reply = Term;

    async fn handle_call(&mut self, request: Term, _: &ReplyTo, process: &Process) -> Answer<Term> {
        let node = Term::from(process.node().name().clone());
        Answer::Reply(Term::tuple([node, request]))
    }
}

/// `fixture:call_pool(Name, Key, Request)`: what the worker for the key replies.
async fn call_pool(cluster: ClusterHandle, [name, key, request]: [Term; 3]) -> Outcome {
    let badarg = || error("badarg");
    let (name, key) = (Name::try_from(name), Name::try_from(key));
    let (name, key) = (name.map_err(|_| badarg())?, key.map_err(|_| badarg())?);
    let pool = cluster.pool(name);
    let reply = pool.call(Route::key(key), &request, RPC_TIME).await;
    reply.map_err(|reason| Exception::Error {
        reason: Term::from(reason.to_string()),
        stack: Vec::new(),
    })
}

/// `fixture:leads()`: as `Tiebeam.Leader.leader?/1` on a BEAM.
async fn leads(cluster: ClusterHandle) -> Outcome {
    Ok(match cluster.leader().is_leader() {
        Some(token) => Term::tuple([Term::atom("ok"), Term::from(token.0)]),
        None => Term::atom("false"),
    })
}

/// `fixture:stand_by(Name, ReportTo)`: stands by for a singleton, and sends `{active, Node, Token}` and `{passive, Node, Reason}` to
/// a process.
async fn stand_by(process: Process, cluster: ClusterHandle, [name, to]: [Term; 2]) -> Outcome {
    let name = Name::try_from(name).map_err(|_| error("badarg"))?;
    let to = to.as_pid().cloned().ok_or_else(|| error("badarg"))?;
    let node = process.node().clone();
    let report = move |what, why: Term| {
        let (node, to) = (node.clone(), to.clone());
        async move {
            let message = Term::tuple([Term::atom(what), Term::from(node.name().clone()), why]);
            // Nobody learns on a BEAM either that a message was lost.
            let _ = node.send_paced(to, message).await;
        }
    };
    let of_active = report.clone();
    let started = cluster.singleton(name).start(
        move |token| {
            let report = of_active("active", Term::from(token.0));
            async move {
                report.await;
                Ok(())
            }
        },
        move |reason| {
            report(
                "passive",
                Term::atom(match reason {
                    PassiveReason::Lost => "lost",
                    PassiveReason::StepDown => "step_down",
                    PassiveReason::Shutdown => "shutdown",
                    _ => "failed",
                }),
            )
        },
    );
    let standby = started.map_err(|reason| Exception::Error {
        reason: Term::from(reason.to_string()),
        stack: Vec::new(),
    })?;
    Ok(Term::from(standby.pid()))
}

/// Exports a function of the module `fixture` with `N` arguments.
fn export<const N: usize, F, Fut>(node: &Node, name: &str, body: F)
where
    F: Fn(Process, [Term; N]) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    node.export_process("fixture", name, N, move |process, Args(args)| {
        let args = <[Term; N]>::try_from(args).expect("a function is found by its arity");
        body(process, args)
    });
}

// ---- registered services

async fn echo_loop(mut process: Process) -> Result<(), Term> {
    while let Some(signal) = process.recv().await {
        match signal {
            Signal::Call(call) => {
                let (request, from) = call.into_parts();
                // A caller that is gone wants no reply.
                let _ = from.reply_term_paced(request).await;
            }
            Signal::Cast(Term::Tuple(cast)) => {
                if let [Term::Atom(send), to, message] = cast.as_slice()
                    && *send == "send"
                {
                    bang(&process, to, message.clone())
                        .await
                        .map_err(Exception::exit_reason)?;
                }
            }
            Signal::Message(Term::Tuple(message)) => match message.as_slice() {
                [Term::Atom(stop), reason] if *stop == "stop" => return Err(reason.clone()),
                [Term::Pid(from), term] => {
                    let answer = Term::tuple([Term::from(process.pid()), term.clone()]);
                    tell(&process, from, answer).await;
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

async fn sink_loop(mut process: Process) -> Result<(), Term> {
    let mut count: u64 = 0;
    while let Some(signal) = process.recv().await {
        match signal {
            Signal::Call(call) if call.request().is_atom("count") => {
                let _ = call.reply_term(Term::from(count));
            }
            Signal::Call(call) if call.request().is_atom("reset") => {
                count = 0;
                let _ = call.reply_term(Term::atom("ok"));
            }
            _ => count += 1,
        }
    }
    Ok(())
}

// ---- arithmetic and exceptions

async fn add(_process: Process, [a, b]: [Term; 2]) -> Outcome {
    sum(&a, &b).ok_or_else(|| {
        let plus = frame("erlang", "+", Term::list([a.clone(), b.clone()]));
        Exception::Error {
            reason: Term::atom("badarith"),
            stack: vec![plus, frame("fixture", "add", Term::from(2))],
        }
    })
}

/// `None` where the BEAM has no sum: for what is no number, and for floats that are too large.
fn sum(a: &Term, b: &Term) -> Option<Term> {
    fn big(term: &Term) -> Option<BigInt> {
        match term {
            Term::Integer(integer) => Some(BigInt::from(*integer)),
            Term::Big(big) => Some(BigInt::clone(big)),
            _ => None,
        }
    }
    fn float(term: &Term) -> Option<f64> {
        let float = match term {
            Term::Float(float) => *float,
            Term::Integer(integer) => *integer as f64,
            // The nearest float, as the BEAM takes it; infinite if there is none.
            Term::Big(big) => big.to_string().parse().ok()?,
            _ => return None,
        };
        float.is_finite().then_some(float)
    }
    if let (Some(a), Some(b)) = (big(a), big(b)) {
        return Some(Term::from(a + b));
    }
    let sum = float(a)? + float(b)?;
    sum.is_finite().then_some(Term::Float(sum))
}

async fn raise(_process: Process, [reason]: [Term; 1]) -> Outcome {
    Err(Exception::Error {
        reason,
        stack: vec![frame("fixture", "raise", Term::from(1))],
    })
}

async fn throw(_process: Process, [value]: [Term; 1]) -> Outcome {
    Err(Exception::Throw(value))
}

async fn exit(_process: Process, [reason]: [Term; 1]) -> Outcome {
    Err(Exception::Exit(reason))
}

async fn sleep_for(_process: Process, [time]: [Term; 1]) -> Outcome {
    sleep(time_limit(&time).ok_or_else(|| error("timeout_value"))?).await;
    Ok(ok())
}

// ---- processes

async fn spawn_echo(process: Process, []: [Term; 0]) -> Outcome {
    spawn(&process, echo_loop)
}

async fn echo_as_function(process: Process, []: [Term; 0]) -> Outcome {
    echo_loop(process)
        .await
        .map(|()| ok())
        .map_err(Exception::Exit)
}

/// A process linked to Pid; `{stop, Reason}` makes it exit with Reason.
async fn spawn_linked(process: Process, [to]: [Term; 1]) -> Outcome {
    spawn(&process, move |process| async move {
        process.link(pid(&to)?);
        echo_loop(process).await
    })
}

/// Monitors a pid or a `{Name, Node}` and sends `{down, Target, Reason}` to the process that wants the report.
async fn watch(process: Process, [target, report_to]: [Term; 2]) -> Outcome {
    spawn(&process, move |mut process| async move {
        let watched = destination(&target).ok_or_else(badarg)?;
        let monitor = process.monitor(watched);
        let watching = Term::tuple([Term::atom("watching"), Term::from(process.pid())]);
        report(&process, &report_to, watching).await?;
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Down {
                    reference, reason, ..
                } if reference == monitor => {
                    let down = Term::tuple([Term::atom("down"), target, reason]);
                    return report(&process, &report_to, down).await;
                }
                _ => {}
            }
        }
        Ok(())
    })
}

/// Monitors Pid, demonitors at once, then reports whatever arrives within 300 ms.
async fn monitor_then_demonitor(process: Process, [target, report_to]: [Term; 2]) -> Outcome {
    spawn(&process, move |process| async move {
        let monitor = process.monitor(pid(&target)?);
        process.demonitor(&monitor);
        let demonitored = Term::tuple([Term::atom("demonitored"), Term::from(process.pid())]);
        report(&process, &report_to, demonitored).await?;
        report_quiet(process, &report_to).await
    })
}

/// Links to Pid with exits trapped and sends `{exit_seen, Pid, Reason}` to the process that wants the report.
async fn linker(process: Process, [target, report_to]: [Term; 2]) -> Outcome {
    spawn(&process, move |mut process| async move {
        process.trap_exit(true);
        process.link(pid(&target)?);
        let linked = Term::tuple([Term::atom("linked"), Term::from(process.pid())]);
        report(&process, &report_to, linked).await?;
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Exit { from, reason } if from == *pid(&target)? => {
                    let seen = Term::tuple([Term::atom("exit_seen"), target, reason]);
                    return report(&process, &report_to, seen).await;
                }
                _ => {}
            }
        }
        Ok(())
    })
}

/// Links to Pid, unlinks, then reports whatever arrives within 300 ms.
async fn link_then_unlink(process: Process, [target, report_to]: [Term; 2]) -> Outcome {
    spawn(&process, move |process| async move {
        process.trap_exit(true);
        process.link(pid(&target)?);
        process.unlink(pid(&target)?);
        let unlinked = Term::tuple([Term::atom("unlinked"), Term::from(process.pid())]);
        report(&process, &report_to, unlinked).await?;
        report_quiet(process, &report_to).await
    })
}

/// Reports what arrives within 300 ms, or that nothing did.
async fn report_quiet(mut process: Process, report_to: &Term) -> Result<(), Term> {
    let message = match timeout(QUIET_TIME, process.recv()).await {
        Err(_) => Term::atom("quiet"),
        Ok(Some(signal)) => Term::tuple([Term::atom("unexpected"), as_message(signal)]),
        Ok(None) => return Ok(()),
    };
    report(&process, report_to, message).await
}

async fn exit_signal(process: Process, [to, reason]: [Term; 2]) -> Outcome {
    let to = to.as_pid().ok_or_else(|| error("badarg"))?;
    process.send_exit(to, reason);
    Ok(Term::from(true))
}

async fn remote_spawn(process: Process, [node, module, function, args]: [Term; 4]) -> Outcome {
    let (Term::Atom(node), Term::Atom(module), Term::Atom(function), Term::List(args)) =
        (node, module, function, args)
    else {
        return Err(error("badarg"));
    };
    let function = (module.as_str(), function.as_str());
    match process
        .spawn_on(node.as_str(), function, args, SpawnOptions::default())
        .await
    {
        Ok((pid, _)) => Ok(Term::from(pid)),
        // As erlang:spawn/4: the pid of a process that ends at once.
        Err(_) => spawn(&process, |_| async { Err(Term::atom("noconnection")) }),
    }
}

// ---- messages and calls

async fn call(process: Process, [to, request, limit]: [Term; 3]) -> Outcome {
    let time = time_limit(&limit).ok_or_else(|| error("badarg"))?;
    let reason = match server(&to) {
        None => Term::atom("noproc"),
        Some(server) => {
            let node = node_of(&server, process.node());
            let reply = process.node().call_term(server, request.clone(), time);
            match reply.await {
                Ok(reply) => return Ok(reply),
                Err(CallError::NoProcess) => Term::atom("noproc"),
                Err(CallError::Exit(reason)) => reason,
                Err(CallError::Timeout(_)) => Term::atom("timeout"),
                // No connection, or it was lost.
                Err(_) => Term::tuple([Term::atom("nodedown"), Term::from(node)]),
            }
        }
    };
    let function = Term::tuple([
        Term::atom("gen_server"),
        Term::atom("call"),
        Term::list([to, request, limit]),
    ]);
    Err(Exception::Exit(Term::tuple([reason, function])))
}

async fn cast(process: Process, [to, request]: [Term; 2]) -> Outcome {
    if let Some(server) = server(&to) {
        let message = Term::tuple([Term::atom("$gen_cast"), request]);
        // A cast says ok, whoever gets it.
        let _ = process.send_paced(server, message).await;
    }
    Ok(ok())
}

async fn send(process: Process, [to, message]: [Term; 2]) -> Outcome {
    bang(&process, &to, message).await?;
    Ok(ok())
}

async fn flood(process: Process, [to, message, count]: [Term; 3]) -> Outcome {
    let count = count.as_integer().filter(|count| *count >= 0);
    for _ in 0..count.ok_or_else(|| error("function_clause"))? {
        bang(&process, &to, message.clone()).await?;
    }
    Ok(ok())
}

async fn rpc(process: Process, [node, module, function, args]: [Term; 4]) -> Outcome {
    let (Term::Atom(node), Term::Atom(module), Term::Atom(function), Term::List(args)) =
        (node, module, function, args)
    else {
        return Err(error("badarg"));
    };
    let (node, module, function) = (node.as_str(), module.as_str(), function.as_str());
    let value = process.node().rpc(node, module, function, args, RPC_TIME);
    let reason = match value.await {
        Ok(value) | Err(RpcError::Throw(value)) => return Ok(value),
        Err(RpcError::Exit(reason) | RpcError::Call(CallError::Exit(reason))) => exited(reason),
        Err(RpcError::Error { reason, stack }) => exited(Term::tuple([reason, stack])),
        Err(RpcError::Refused(reason)) => reason,
        Err(RpcError::Call(CallError::Timeout(_))) => Term::atom("timeout"),
        Err(_) => Term::atom("nodedown"),
    };
    Ok(Term::tuple([Term::atom("badrpc"), reason]))
}

fn exited(reason: Term) -> Term {
    Term::tuple([Term::atom("EXIT"), reason])
}

// ---- process groups

async fn pg_start(process: Process, [scope]: [Term; 1]) -> Outcome {
    let scope = scope.as_atom().ok_or_else(|| error("badarg"))?;
    let started = process.node().pg_scope(scope.as_str());
    started.map(|_| ok()).map_err(|_| error("badmatch"))
}

async fn pg_join(process: Process, [group]: [Term; 1]) -> Outcome {
    let pid = spawn(&process, echo_loop)?;
    let joined = pg(&process)?.join(group, pid.as_pid().ok_or_else(|| error("badarg"))?);
    joined.map_err(|_| error("badarg"))?;
    Ok(pid)
}

async fn pg_leave(process: Process, [group, member]: [Term; 2]) -> Outcome {
    let pid = member.as_pid().ok_or_else(|| error("badarg"))?;
    match pg(&process)?.leave(group, pid) {
        Ok(()) => Ok(ok()),
        Err(PgError::NotJoined) => Ok(Term::atom("not_joined")),
        Err(_) => Err(Exception::error(Term::tuple([
            Term::atom("nolocal"),
            member,
        ]))),
    }
}

async fn pg_members(process: Process, [group]: [Term; 1]) -> Outcome {
    let members = pg(&process)?.members(group).into_iter();
    Ok(Term::from(members.map(Term::from).collect::<Vec<_>>()))
}

fn pg(process: &Process) -> Result<Pg, Exception> {
    process.node().pg().map_err(|_| error("noproc"))
}

/// Lets the program stop once this call is answered.
async fn stop_after(process: Process, stop: Arc<Notify>) -> Outcome {
    let caller = process.pid().clone();
    spawn(&process, move |mut process| async move {
        let monitor = process.monitor(caller);
        while let Some(signal) = process.recv().await {
            if matches!(signal, Signal::Down { reference, .. } if reference == monitor) {
                stop.notify_one();
                break;
            }
        }
        Ok(())
    })?;
    Ok(ok())
}

// ---- global

/// `{yes | no, Pid}` with the pid of a new process.
async fn global_register(process: Process, [name]: [Term; 1]) -> Outcome {
    let node = process.node();
    let echo = node.spawn_anonymous().map_err(|_| error("system_limit"))?;
    let pid = node.run(echo, echo_loop);
    let answer = match node.global().register(name, &pid).await {
        Ok(()) => "yes",
        Err(GlobalError::NameTaken { .. } | GlobalError::ProcessNamed(_)) => "no",
        Err(other) => return Err(Exception::error(other.to_string())),
    };
    Ok(Term::tuple([Term::atom(answer), Term::from(pid)]))
}

async fn global_unregister(process: Process, [name]: [Term; 1]) -> Outcome {
    let unregistered = process.node().global().unregister(name).await;
    unregistered.map_err(|error| Exception::error(error.to_string()))?;
    Ok(ok())
}

async fn global_whereis(process: Process, [name]: [Term; 1]) -> Outcome {
    let pid = process.node().global().whereis(name);
    Ok(pid.map_or(Term::atom("undefined"), Term::from))
}

/// The names, sorted as far as they are atoms.
async fn global_names(process: Process, []: [Term; 0]) -> Outcome {
    let mut names = process.node().global().registered_names();
    names.sort_by_key(Term::to_string);
    Ok(Term::List(names))
}

/// A process that locks a resource on all nodes, sends `{entered, self()}` to the process that wants the report, and
/// keeps the lock until it gets `leave`; then it sends `{left, self()}`.
async fn global_trans(process: Process, [resource, report_to]: [Term; 2]) -> Outcome {
    spawn(&process, move |mut process| async move {
        let told = |what| Term::tuple([Term::atom(what), Term::from(process.pid())]);
        let (entered, left) = (told("entered"), told("left"));
        let global = process.node().global();
        let inside = async || {
            report(&process, &report_to, entered).await?;
            loop {
                match process.recv().await {
                    Some(Signal::Message(leave)) if leave.is_atom("leave") => return Ok(()),
                    Some(_) => {}
                    None => return Err(Term::atom("killed")),
                }
            }
        };
        let locked = global.trans(GlobalName(resource), None, inside).await;
        match locked {
            Ok(Some(result)) => result?,
            other => return Err(Term::from(format!("{other:?}"))),
        }
        report(&process, &report_to, left).await
    })
}

/// A process that sends `{relayed, self(), Message}` to the process that wants the report, for every message.
async fn spawn_relay(process: Process, [report_to]: [Term; 1]) -> Outcome {
    spawn(&process, move |mut process| async move {
        while let Some(signal) = process.recv().await {
            let relayed = [
                Term::atom("relayed"),
                Term::from(process.pid()),
                as_message(signal),
            ];
            report(&process, &report_to, Term::tuple(relayed)).await?;
        }
        Ok(())
    })
}

/// A resolver of names: the process on the greater node stays, the other is told.
async fn keep_greater(process: Process, [name, first, second]: [Term; 3]) -> Outcome {
    let badarg = |_| error("badarg");
    let (first, second) = (pid(&first).map_err(badarg)?, pid(&second).map_err(badarg)?);
    let (keeps, loses) = match first.node > second.node {
        true => (first, second),
        false => (second, first),
    };
    tell(&process, loses, Term::tuple([Term::atom("lost"), name])).await;
    Ok(Term::from(keeps))
}

// ---- terms

fn ok() -> Term {
    Term::atom("ok")
}

fn error(reason: &'static str) -> Exception {
    Exception::error(Term::atom(reason))
}

/// The exit reason of a process that was given a wrong argument.
fn badarg() -> Term {
    error("badarg").exit_reason()
}

/// An entry of a stack.
fn frame(module: &'static str, function: &'static str, arity_or_args: Term) -> Term {
    Term::tuple([
        Term::atom(module),
        Term::atom(function),
        arity_or_args,
        Term::list([]),
    ])
}

fn pid(term: &Term) -> Result<&Pid, Term> {
    term.as_pid().ok_or_else(badarg)
}

/// What may stand before `!`, and what may be monitored.
fn destination(term: &Term) -> Option<Destination> {
    match term {
        Term::Pid(pid) => Some(pid.into()),
        Term::Atom(name) => Some(name.clone().into()),
        Term::Reference(alias) => Some(alias.clone().into()),
        Term::Tuple(pair) => match pair.as_slice() {
            [Term::Atom(name), Term::Atom(node)] => Some((name.clone(), node.clone()).into()),
            _ => None,
        },
        _ => None,
    }
}

/// What `gen_server:call` takes. A name of `global` or of another registry is nobody's here.
fn server(term: &Term) -> Option<Destination> {
    match term.as_tuple() {
        Some([Term::Atom(registry), _]) if *registry == "global" => None,
        _ => destination(term),
    }
}

fn node_of(destination: &Destination, here: &Node) -> Atom {
    match destination {
        Destination::Pid(pid) => pid.node.clone(),
        Destination::Name { node, .. } => node.clone(),
        Destination::Alias(alias) => alias.node().clone(),
        Destination::Local(_) => here.name().clone(),
    }
}

/// Milliseconds or `infinity`.
fn time_limit(term: &Term) -> Option<Duration> {
    match term {
        Term::Integer(milliseconds) => {
            Some(Duration::from_millis(u64::try_from(*milliseconds).ok()?).min(INFINITY))
        }
        Term::Atom(atom) if *atom == "infinity" => Some(INFINITY),
        _ => None,
    }
}

/// A signal as a process on a BEAM finds it in its mailbox.
fn as_message(signal: Signal) -> Term {
    match signal {
        Signal::Message(message) => message,
        Signal::Call(call) => {
            let (request, from) = call.into_parts();
            Term::tuple([Term::atom("$gen_call"), from.to_term(), request])
        }
        Signal::Cast(message) => Term::tuple([Term::atom("$gen_cast"), message]),
        Signal::Exit { from, reason } => {
            Term::tuple([Term::atom("EXIT"), Term::from(from), reason])
        }
        Signal::Down {
            reference,
            target,
            reason,
        } => {
            let target = match target {
                Target::Pid(pid) => Term::from(pid),
                Target::Name(name) => Term::from(name),
            };
            Term::tuple([
                Term::atom("DOWN"),
                Term::from(reference),
                Term::atom("process"),
                target,
                reason,
            ])
        }
        other => Term::from(format!("{other:?}")),
    }
}

// ---- what Erlang writes in one word

/// `spawn`: its pid.
fn spawn<F>(parent: &Process, body: impl FnOnce(Process) -> F) -> Outcome
where
    F: Future<Output = Result<(), Term>> + Send + 'static,
{
    let process = parent.node().spawn_anonymous();
    let process = process.map_err(|_| error("system_limit"))?;
    Ok(Term::from(parent.node().run(process, body)))
}

/// `To ! Message`: fails only if a local name is nobody's.
async fn bang(process: &Process, to: &Term, message: Term) -> Result<(), Exception> {
    let badarg = || Exception::Error {
        reason: Term::atom("badarg"),
        stack: vec![frame("erlang", "send", Term::from(2))],
    };
    let to = destination(to).ok_or_else(badarg)?;
    match process.send_paced(to, message).await {
        Err(SendError::NotRegistered(_)) => Err(badarg()),
        // Otherwise whether a message arrives is not the sender's business.
        _ => Ok(()),
    }
}

/// A message to a pid.
async fn tell(process: &Process, to: &Pid, message: Term) {
    // Nobody learns on a BEAM either that a message was lost.
    let _ = process.send_paced(to, message).await;
}

/// `ReportTo ! Message`, in a process of its own.
async fn report(process: &Process, to: &Term, message: Term) -> Result<(), Term> {
    bang(process, to, message)
        .await
        .map_err(Exception::exit_reason)
}
