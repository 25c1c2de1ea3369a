//! Leadership's settings, requests, answers and outputs as Elixir terms. Keys, names, values and pids stay bytes: the
//! driver has what it needs to make them terms.

use std::sync::{Mutex, PoisonError};

use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifMap, NifResult, ResourceArc, Term};
use tiebeam_core::leadership::group::{
    Answer, Command, Condition, Config, Disk, Holding, Missing, Output, Read, Request, Row,
    Standing, Stopped, Stored, Timing, Voters,
};
use tiebeam_core::leadership::machine::{self, Expect, Kind, Limit, WatchId};
use tiebeam_core::leadership::{MemberId, PersistToken};
use tiebeam_core::{Duration, Instant, NodeName};

use crate::registry::bytes;
use crate::terms::{binary, node_atom};

mod atoms {
    rustler::atoms! {
        nil, leadership, persist,
        // Settings.
        lan, fast, wan, memory,
        // Commands.
        put, delete, get, list, watch, unwatch, acquire, renew, release, update, holder, members, step_down,
        add_voter, remove_voter, force_new_group,
        anything, revision, value, linear, local, at_least,
        lock, singleton, name,
        // Answers.
        done, differs, held, not_held, values, no_leader, unknown, busy, too_long, full, no_member,
        refused, stopped, sessions, outstanding, store, claims, not_founded, no_replica,
        // Outputs.
        row, deleted, claimed, freed, led, lease, lost, watched, foreign, fault, disk, left,
        condition, ok, none,
    }
}

/// This node's part in the group, in the settings of a cluster.
#[derive(NifMap)]
pub(crate) struct Part<'a> {
    /// A list of nodes, or how many.
    voters: Term<'a>,
    profile: Atom,
    /// Milliseconds; `nil`: as the profile says.
    session_ttl: Option<u64>,
    /// `{:memory, member}`, or what the disk has.
    stored: Term<'a>,
}

impl Part<'_> {
    pub(crate) fn into_config(
        self,
        name: impl Fn(Atom) -> Result<NodeName, String>,
    ) -> Result<Config, String> {
        let voters = if let Ok(count) = self.voters.decode() {
            Voters::Expect(count)
        } else {
            let nodes: Vec<Atom> = self
                .voters
                .decode()
                .map_err(|_| "voters must be nodes, or how many".to_owned())?;
            Voters::Named(nodes.into_iter().map(name).collect::<Result<_, _>>()?)
        };
        let mut timing = if self.profile == atoms::wan() {
            Timing::WAN
        } else {
            Timing::LAN
        };
        if let Some(millis) = self.session_ttl {
            timing.session = Duration::from_millis(millis);
        }
        let (member, stored) = match self.stored.decode::<(Atom, u64)>() {
            Ok((_memory, member)) => (MemberId(member), Stored::default()),
            Err(_) => {
                let loaded: ResourceArc<Loaded> = self.stored.decode().map_err(|_| {
                    "stored must be {:memory, member}, or what was loaded".to_owned()
                })?;
                let mut loaded = loaded.0.lock().unwrap_or_else(PoisonError::into_inner);
                loaded
                    .take()
                    .ok_or("what was loaded serves one core: load it again")?
            }
        };
        Ok(Config {
            member,
            voters,
            timing,
            stored,
        })
    }
}

/// What a disk had. One core is made from it.
pub(crate) struct Loaded(pub(crate) Mutex<Option<(MemberId, Stored)>>);

#[rustler::resource_impl]
impl rustler::Resource for Loaded {}

/// What is to be written to disk, on its way from a step to the process that writes.
pub(crate) struct Pending(pub(crate) Box<Disk>);

#[rustler::resource_impl]
impl rustler::Resource for Pending {}

/// `{:persist, token, pending}`
pub(crate) fn persist<'a>(env: Env<'a>, disk: &Disk) -> Term<'a> {
    let PersistToken(token) = disk.write.token;
    let pending = ResourceArc::new(Pending(Box::new(disk.clone())));
    (atoms::persist(), token, pending).encode(env)
}

/// The request in `{:leadership, command, timeout}`; `None` for anything else.
pub(crate) fn request(term: Term<'_>) -> NifResult<Option<Request>> {
    let Ok((tag, command, timeout)) = term.decode::<(Atom, Term<'_>, u64)>() else {
        return Ok(None);
    };
    if tag != atoms::leadership() {
        return Ok(None);
    }
    Ok(Some(Request {
        command: self::command(command)?,
        timeout: Duration::from_millis(timeout),
    }))
}

fn command(term: Term<'_>) -> NifResult<Command> {
    if atoms::members() == term {
        return Ok(Command::Members);
    }
    if atoms::force_new_group() == term {
        return Ok(Command::ForceNewGroup);
    }
    let parts = get_tuple(term)?;
    let (tag, parts) = parts.split_first().ok_or(Error::BadArg)?;
    let tag: Atom = tag.decode()?;
    Ok(match *parts {
        [key, value, expect] if tag == atoms::put() => Command::Put {
            key: octets(key)?,
            value: bytes(value)?,
            expect: self::expect(expect)?,
        },
        [key, expect] if tag == atoms::delete() => Command::Delete {
            key: octets(key)?,
            expect: self::expect(expect)?,
        },
        [key, read] if tag == atoms::get() => Command::Get {
            key: octets(key)?,
            read: self::read(read)?,
        },
        [prefix, after, limit, read] if tag == atoms::list() => Command::List {
            prefix: octets(prefix)?,
            after: optional(after, octets)?,
            limit: limit.decode()?,
            read: self::read(read)?,
        },
        [watch, prefix] if tag == atoms::watch() => Command::Watch {
            watch: WatchId(watch.decode()?),
            prefix: octets(prefix)?,
        },
        [watch] if tag == atoms::unwatch() => Command::Unwatch {
            watch: WatchId(watch.decode()?),
        },
        [kind, name, value, ttl, pid, wait] if tag == atoms::acquire() => Command::Acquire {
            kind: self::kind(kind)?,
            name: octets(name)?,
            value: bytes(value)?,
            ttl: optional(ttl, span)?,
            pid: bytes(pid)?,
            wait: wait.decode()?,
        },
        [kind, name, token, ttl] if tag == atoms::renew() => Command::Renew {
            kind: self::kind(kind)?,
            name: octets(name)?,
            token: token.decode()?,
            ttl: span(ttl)?,
        },
        [kind, name, token] if tag == atoms::release() => Command::Release {
            kind: self::kind(kind)?,
            name: octets(name)?,
            token: token.decode()?,
        },
        [kind, name, token, value] if tag == atoms::update() => Command::Update {
            kind: self::kind(kind)?,
            name: octets(name)?,
            token: token.decode()?,
            value: bytes(value)?,
        },
        [kind, name, read] if tag == atoms::holder() => Command::Holder {
            kind: self::kind(kind)?,
            name: octets(name)?,
            read: self::read(read)?,
        },
        [to] if tag == atoms::step_down() => Command::StepDown {
            to: optional(to, node)?,
        },
        [voter] if tag == atoms::add_voter() => Command::AddVoter(node(voter)?),
        [voter] if tag == atoms::remove_voter() => Command::RemoveVoter(node(voter)?),
        _ => return Err(Error::BadArg),
    })
}

fn optional<'a, T>(term: Term<'a>, some: fn(Term<'a>) -> NifResult<T>) -> NifResult<Option<T>> {
    if atoms::nil() == term {
        Ok(None)
    } else {
        some(term).map(Some)
    }
}

fn octets(term: Term<'_>) -> NifResult<Vec<u8>> {
    Ok(term.decode::<Binary<'_>>()?.as_slice().to_vec())
}

fn span(term: Term<'_>) -> NifResult<Duration> {
    Ok(Duration::from_millis(term.decode()?))
}

fn node(term: Term<'_>) -> NifResult<NodeName> {
    NodeName::parse(&term.atom_to_string()?).map_err(|_| Error::BadArg)
}

fn expect(term: Term<'_>) -> NifResult<Expect> {
    if atoms::anything() == term {
        return Ok(Expect::Anything);
    }
    let (tag, expected) = term.decode::<(Atom, Term<'_>)>()?;
    if tag == atoms::revision() {
        Ok(Expect::Revision(expected.decode()?))
    } else if tag == atoms::value() {
        Ok(Expect::Value(bytes(expected)?))
    } else {
        Err(Error::BadArg)
    }
}

fn read(term: Term<'_>) -> NifResult<Read> {
    if atoms::linear() == term {
        return Ok(Read::Linear);
    }
    if atoms::local() == term {
        return Ok(Read::Local);
    }
    let (tag, revision) = term.decode::<(Atom, u64)>()?;
    if tag == atoms::at_least() {
        Ok(Read::AtLeast(revision))
    } else {
        Err(Error::BadArg)
    }
}

fn kind(term: Term<'_>) -> NifResult<Kind> {
    if atoms::lock() == term {
        Ok(Kind::Lock)
    } else if atoms::singleton() == term {
        Ok(Kind::Singleton)
    } else if atoms::name() == term {
        Ok(Kind::Name)
    } else {
        Err(Error::BadArg)
    }
}

fn kind_atom(kind: Kind) -> Atom {
    match kind {
        Kind::Lock => atoms::lock(),
        Kind::Singleton => atoms::singleton(),
        Kind::Name => atoms::name(),
    }
}

/// `{:leadership, answer}`
pub(crate) fn answer<'a>(env: Env<'a>, answer: &Answer) -> NifResult<Term<'a>> {
    let answer = match answer {
        Answer::Done(index) => (atoms::done(), index).encode(env),
        Answer::Differs { revision } => (atoms::differs(), revision).encode(env),
        Answer::Held { value, token } => {
            let value = value.as_ref().map(|value| binary(env, value));
            (atoms::held(), value, token).encode(env)
        }
        Answer::NotHeld => atoms::not_held().encode(env),
        Answer::Value(stored) => {
            let stored = stored.as_ref().map(|stored| self::stored(env, stored));
            (atoms::value(), stored).encode(env)
        }
        Answer::Values { rows, more } => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(key, stored)| (binary(env, key), self::stored(env, stored)))
                .collect();
            (atoms::values(), rows, more).encode(env)
        }
        Answer::Holder(holding) => {
            let holding = holding
                .as_ref()
                .map(|Holding { token, value }| (token, binary(env, value)));
            (atoms::holder(), holding).encode(env)
        }
        Answer::Members(standings) => {
            let standings: Vec<_> = standings
                .iter()
                .map(|standing| self::standing(env, standing))
                .collect::<NifResult<_>>()?;
            (atoms::members(), standings).encode(env)
        }
        Answer::NoLeader => atoms::no_leader().encode(env),
        Answer::Unfounded(missing) => {
            (atoms::not_founded(), self::missing(env, missing)?).encode(env)
        }
        Answer::NoReplica { limit } => (atoms::no_replica(), limit).encode(env),
        Answer::Unknown => atoms::unknown().encode(env),
        Answer::Busy { limit } => (atoms::busy(), limit).encode(env),
        Answer::TooLong { part, bytes, limit } => {
            let part = Atom::from_str(env, part)?;
            (atoms::too_long(), part, bytes, limit).encode(env)
        }
        Answer::Full(limit) => {
            let limit = match limit {
                Limit::Sessions => atoms::sessions(),
                Limit::Outstanding => atoms::outstanding(),
                Limit::Store => atoms::store(),
                Limit::Claims => atoms::claims(),
            };
            (atoms::full(), limit).encode(env)
        }
        Answer::NoMember(node) => (atoms::no_member(), node_atom(env, node)?).encode(env),
        Answer::Refused(why) => (atoms::refused(), why).encode(env),
        Answer::Stopped => atoms::stopped().encode(env),
    };
    Ok((atoms::leadership(), answer).encode(env))
}

/// `{revision, value}`
fn stored<'a>(env: Env<'a>, stored: &machine::Stored) -> (u64, Binary<'a>) {
    (stored.revision, binary(env, &stored.value))
}

#[derive(NifMap)]
struct StandingMap {
    node: Atom,
    member: u64,
    voter: bool,
    heard: Option<bool>,
    matched: Option<u64>,
}

fn standing<'a>(env: Env<'a>, standing: &Standing) -> NifResult<Term<'a>> {
    let fields = StandingMap {
        node: node_atom(env, &standing.node)?,
        member: standing.member.0,
        voter: standing.voter,
        heard: standing.heard,
        matched: standing.matched,
    };
    Ok(fields.encode(env))
}

/// `{:leadership, output}`. Messages, writes, answers and what was ignored are actions of their own.
pub(crate) fn output<'a>(env: Env<'a>, output: &Output) -> NifResult<Option<Term<'a>>> {
    let output = match output {
        Output::Row(row) => (atoms::row(), self::row(env, row)).encode(env),
        Output::Led(led) => {
            let leader = led.leader.as_ref().map(|node| node_atom(env, node));
            (atoms::led(), led.term, leader.transpose()?).encode(env)
        }
        Output::Lease { term, until } => {
            (atoms::lease(), term, until.map(Instant::as_micros)).encode(env)
        }
        Output::Lost(lost) => (
            atoms::lost(),
            binary(env, &lost.pid),
            kind_atom(lost.kind),
            binary(env, &lost.name),
            lost.token,
        )
            .encode(env),
        Output::Watched {
            watch,
            key,
            stored,
            revision,
        } => {
            let value = stored.as_ref().map(|stored| binary(env, &stored.value));
            (atoms::watched(), watch.0, binary(env, key), value, revision).encode(env)
        }
        Output::Members { voters, learners } => {
            let nodes = |nodes: &[NodeName]| -> NifResult<Vec<Atom>> {
                nodes.iter().map(|node| node_atom(env, node)).collect()
            };
            (atoms::members(), nodes(voters)?, nodes(learners)?).encode(env)
        }
        Output::Foreign { node } => (atoms::foreign(), node_atom(env, node)?).encode(env),
        Output::Stopped(stopped) => {
            let why = match stopped {
                Stopped::Fault(_) | Stopped::Unreadable(_) => atoms::fault(),
                Stopped::Disk(_) => atoms::disk(),
                Stopped::Left => atoms::left(),
            };
            (atoms::stopped(), why, stopped.to_string()).encode(env)
        }
        Output::Condition(condition) => {
            let text = condition.to_string();
            (
                atoms::condition(),
                self::condition(env, Some(condition))?,
                text,
            )
                .encode(env)
        }
        Output::Send { .. }
        | Output::Persist(_)
        | Output::Answer { .. }
        | Output::Ignored { .. } => return Ok(None),
    };
    Ok(Some((atoms::leadership(), output).encode(env)))
}

/// The nodes that are missing, or how many are.
fn missing<'a>(env: Env<'a>, missing: &Missing) -> NifResult<Term<'a>> {
    match missing {
        Missing::Voters(nodes) => self::nodes(env, nodes),
        Missing::Count(count) => Ok(count.encode(env)),
    }
}

fn nodes<'a>(env: Env<'a>, nodes: &[NodeName]) -> NifResult<Term<'a>> {
    let atoms = nodes.iter().map(|node| node_atom(env, node));
    Ok(atoms.collect::<NifResult<Vec<Atom>>>()?.encode(env))
}

/// `:ok`, or what is wrong; `:none` of a node that takes no part.
pub(crate) fn condition<'a>(env: Env<'a>, condition: Option<&Condition>) -> NifResult<Term<'a>> {
    Ok(match condition {
        None => atoms::none().encode(env),
        Some(Condition::Led) => atoms::ok().encode(env),
        Some(Condition::Leaderless) => atoms::no_leader().encode(env),
        Some(Condition::Unfounded(missing)) => {
            (atoms::not_founded(), self::missing(env, missing)?).encode(env)
        }
        Some(Condition::NoReplica { limit }) => (atoms::no_replica(), limit).encode(env),
        Some(Condition::Foreign(nodes)) => (atoms::foreign(), self::nodes(env, nodes)?).encode(env),
        Some(Condition::Stopped(why)) => (atoms::stopped(), why.to_string()).encode(env),
    })
}

fn row<'a>(env: Env<'a>, row: &Row) -> Term<'a> {
    match row {
        Row::Put { key, stored } => {
            let (revision, value) = self::stored(env, stored);
            (atoms::put(), binary(env, key), revision, value).encode(env)
        }
        Row::Deleted { key } => (atoms::deleted(), binary(env, key)).encode(env),
        Row::Claimed { kind, name, claim } => (
            atoms::claimed(),
            kind_atom(*kind),
            binary(env, name),
            claim.token,
            binary(env, &claim.value),
        )
            .encode(env),
        Row::Freed { kind, name, claim } => (
            atoms::freed(),
            kind_atom(*kind),
            binary(env, name),
            claim.token,
        )
            .encode(env),
    }
}
