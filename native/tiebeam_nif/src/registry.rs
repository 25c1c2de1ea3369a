//! The registry's commands, rows and answers as Elixir terms. Names, pids and metadata are bytes in the external term
//! format; rows of the table are made terms here, everything else is for the driver to decode.

use std::sync::{Arc, LazyLock};

use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};
use tiebeam_core::registry::{
    Answer, Change, Command, Departure, Entry, Gone, Keep, Key, Loss, OnConflict, Refusal, name,
};
use tiebeam_core::{Action, CallId, Event};

use crate::terms::{binary, node_atom};

mod atoms {
    rustler::atoms! {
        nil,
        // Commands.
        register, claim, unregister, update, join, leave,
        exit, notify, standby,
        // Answers.
        done, taken, unknown, exited, refused, length, scope_full, scopes_full, full,
        // Rows.
        table, registered, updated, replaced, unregistered, joined, rejoined, left, purged,
        lost, missed, down, restarted,
        // Conflicts.
        promoted, resolve, check, older, younger, neither,
    }
}

/// The command in a tuple whose first element is its name; `None` for another name.
pub(crate) fn command(term: Term<'_>) -> NifResult<Option<Command>> {
    let Ok(parts) = get_tuple(term) else {
        return Ok(None);
    };
    let Some((tag, parts)) = parts.split_first() else {
        return Ok(None);
    };
    let tag: Atom = tag.decode()?;
    Ok(Some(match *parts {
        [scope, name, pid, meta, on_conflict, resolve] if tag == atoms::register() => {
            Command::Register {
                scope: scope_of(scope)?,
                name: bytes(name)?,
                pid: bytes(pid)?,
                meta: self::meta(meta)?,
                on_conflict: self::on_conflict(on_conflict.decode()?)?,
                resolve: resolve.decode()?,
                claimed: false,
            }
        }
        [scope, name, pid, meta] if tag == atoms::claim() => Command::Register {
            scope: scope_of(scope)?,
            name: bytes(name)?,
            pid: bytes(pid)?,
            meta: self::meta(meta)?,
            on_conflict: OnConflict::Notify,
            resolve: false,
            claimed: true,
        },
        [scope, name, pid] if tag == atoms::unregister() => Command::Unregister {
            scope: scope_of(scope)?,
            name: bytes(name)?,
            pid: if atoms::nil() == pid {
                None
            } else {
                Some(bytes(pid)?)
            },
        },
        [scope, name, meta] if tag == atoms::update() => Command::Update {
            scope: scope_of(scope)?,
            name: bytes(name)?,
            meta: self::meta(meta)?,
        },
        [scope, group, pid, meta] if tag == atoms::join() => Command::Join {
            scope: scope_of(scope)?,
            group: bytes(group)?,
            pid: bytes(pid)?,
            meta: self::meta(meta)?,
        },
        [scope, group, pid] if tag == atoms::leave() => Command::Leave {
            scope: scope_of(scope)?,
            group: bytes(group)?,
            pid: bytes(pid)?,
        },
        _ => return Ok(None),
    }))
}

/// A registration that was asked for: its call and its process.
pub(crate) struct Registers {
    call: CallId,
    pid: Arc<[u8]>,
}

pub(crate) fn registers(event: &Event) -> Option<Registers> {
    match event {
        Event::Asked {
            call,
            command: tiebeam_core::Command::Registry(Command::Register { pid, .. }),
        } => Some(Registers {
            call: *call,
            pid: pid.clone(),
        }),
        _ => None,
    }
}

impl Registers {
    /// `{:registered, call}` if a registration ends as nearly all do: with the row that was asked for, and `done`. The driver
    /// has the terms that both are made from.
    pub(crate) fn done<'a>(&self, env: Env<'a>, actions: &[Action]) -> Option<Term<'a>> {
        match actions {
            [
                ..,
                Action::Table(Change::Registered(entry)),
                Action::Answer {
                    call,
                    answer: tiebeam_core::Answer::Registry(Answer::Done),
                },
            ] if *call == self.call && Arc::ptr_eq(&entry.pid, &self.pid) => {
                Some((atoms::registered(), call.0).encode(env))
            }
            _ => None,
        }
    }
}

pub(crate) fn bytes(term: Term<'_>) -> NifResult<Arc<[u8]>> {
    Ok(term.decode::<Binary<'_>>()?.as_slice().into())
}

/// Most entries have none, and share it.
fn meta(term: Term<'_>) -> NifResult<Arc<[u8]>> {
    static NONE: LazyLock<Arc<[u8]>> = LazyLock::new(|| NIL.into());
    let bytes = term.decode::<Binary<'_>>()?;
    Ok(if bytes.as_slice() == NIL {
        NONE.clone()
    } else {
        bytes.as_slice().into()
    })
}

fn scope_of(term: Term<'_>) -> NifResult<String> {
    term.atom_to_string()
}

fn on_conflict(atom: Atom) -> NifResult<OnConflict> {
    if atom == atoms::exit() {
        Ok(OnConflict::Exit)
    } else if atom == atoms::notify() {
        Ok(OnConflict::Notify)
    } else if atom == atoms::standby() {
        Ok(OnConflict::Standby)
    } else {
        Err(Error::BadArg)
    }
}

pub(crate) fn keep(term: Term<'_>) -> NifResult<Keep> {
    let atom: Atom = term.decode()?;
    if atom == atoms::older() {
        Ok(Keep::Older)
    } else if atom == atoms::younger() {
        Ok(Keep::Younger)
    } else if atom == atoms::neither() {
        Ok(Keep::Neither)
    } else {
        Err(Error::BadArg)
    }
}

pub(crate) fn answer<'a>(env: Env<'a>, answer: &Answer) -> NifResult<Term<'a>> {
    Ok(match answer {
        Answer::Done => atoms::done().encode(env),
        Answer::Taken { pid, node } => {
            (atoms::taken(), binary(env, pid), node_atom(env, node)?).encode(env)
        }
        Answer::Unknown => atoms::unknown().encode(env),
        Answer::Exited => atoms::exited().encode(env),
        Answer::Refused(refusal) => {
            let refusal = match refusal {
                Refusal::Length { part, bytes, limit } => {
                    let part = Atom::from_str(env, part)?;
                    (atoms::length(), part, bytes, limit).encode(env)
                }
                Refusal::ScopeFull { limit } => (atoms::scope_full(), limit).encode(env),
                Refusal::ScopesFull { limit } => (atoms::scopes_full(), limit).encode(env),
                Refusal::Full { limit } => (atoms::full(), limit).encode(env),
            };
            (atoms::refused(), refusal).encode(env)
        }
    })
}

/// `None` for a row whose name is no name: one that another encoder made. Nobody could look for it.
pub(crate) fn change<'a>(env: Env<'a>, change: &Change) -> NifResult<Option<Term<'a>>> {
    let row = |tag: Atom, entry: &Entry| {
        let row = match self::row(env, entry)? {
            None => self::entry(env, entry)?,
            row => row,
        };
        Ok(row.map(|row| (atoms::table(), (tag, row)).encode(env)))
    };
    let gone = |tag: Atom, key: &Key, pid: &Arc<[u8]>, gone: &Gone| {
        let why = match gone {
            Gone::Unregistered => atoms::unregistered(),
            Gone::Exited => atoms::exited(),
            Gone::Lost => atoms::lost(),
            Gone::Missed => atoms::missed(),
        };
        let gone = (tag, self::key(env, key)?, binary(env, pid), why);
        Ok(is_name(key).then(|| (atoms::table(), gone).encode(env)))
    };
    match change {
        Change::Registered(entry) => row(atoms::registered(), entry),
        Change::Updated(entry) => row(atoms::updated(), entry),
        Change::Replaced { entry, was } => {
            let entry = self::entry(env, entry)?;
            Ok(entry.map(|entry| {
                let replaced = (atoms::replaced(), entry, binary(env, was));
                (atoms::table(), replaced).encode(env)
            }))
        }
        Change::Unregistered {
            key,
            pid,
            gone: why,
        } => gone(atoms::unregistered(), key, pid, why),
        Change::Joined(entry) => row(atoms::joined(), entry),
        Change::Rejoined(entry) => row(atoms::rejoined(), entry),
        Change::Left {
            key,
            pid,
            gone: why,
        } => gone(atoms::left(), key, pid, why),
        Change::Purged {
            node,
            creation,
            departure,
            keys,
        } => {
            let why = match departure {
                Departure::Down => atoms::down(),
                Departure::Left => atoms::left(),
                Departure::Restarted => atoms::restarted(),
            };
            let (mut names, mut memberships) = (Vec::new(), Vec::new());
            for key in keys {
                // One that cannot be decoded has no row.
                let Some(name) = decode(env, key.name()) else {
                    continue;
                };
                let scope = Atom::from_utf8_bytes(env, key.scope().as_bytes())?;
                match key.member() {
                    None => names.push((scope, name)),
                    Some(pid) => memberships.extend(decode(env, pid).map(|pid| (scope, name, pid))),
                }
            }
            let node = node_atom(env, node)?;
            let purged = (atoms::purged(), node, creation, why, names, memberships);
            Ok(Some((atoms::table(), purged).encode(env)))
        }
    }
}

pub(crate) fn lost<'a>(env: Env<'a>, loss: &Loss) -> NifResult<Term<'a>> {
    let on_conflict = match loss.on_conflict {
        OnConflict::Exit => atoms::exit(),
        OnConflict::Notify => atoms::notify(),
        OnConflict::Standby => atoms::standby(),
    };
    let kept = loss.kept.as_ref().map(|pid| binary(env, pid));
    let (scope, name) = key(env, &loss.key)?;
    Ok((
        atoms::lost(),
        (scope, name),
        binary(env, &loss.pid),
        kept,
        on_conflict,
    )
        .encode(env))
}

pub(crate) fn promoted<'a>(env: Env<'a>, key: &Key, pid: &Arc<[u8]>) -> NifResult<Term<'a>> {
    Ok((atoms::promoted(), self::key(env, key)?, binary(env, pid)).encode(env))
}

/// `None` when a name is no name, as for [`change`]: the core keeps the older registration.
pub(crate) fn resolve<'a>(
    env: Env<'a>,
    id: u64,
    older: &Entry,
    younger: &Entry,
) -> NifResult<Option<Term<'a>>> {
    let (older, younger) = (entry(env, older)?, entry(env, younger)?);
    Ok(older
        .zip(younger)
        .map(|(older, younger)| (atoms::resolve(), id, older, younger).encode(env)))
}

pub(crate) fn check<'a>(env: Env<'a>, id: u64, pid: &Arc<[u8]>) -> Term<'a> {
    (atoms::check(), id, binary(env, pid)).encode(env)
}

/// `{{scope, name}, pid, meta, node}`, all of it terms; `None` if that takes an atom that the node does not have: the driver
/// knows whether there is room for it.
fn row<'a>(env: Env<'a>, entry: &Entry) -> NifResult<Option<Term<'a>>> {
    let name = entry.key.name();
    let decoded = decode(env, name)
        .filter(|_| name::check(name).is_ok())
        .zip(decode(env, &entry.pid).filter(|pid| pid.is_pid()))
        .zip(decode(env, &entry.meta));
    let Some(((name, pid), meta)) = decoded else {
        return Ok(None);
    };
    let scope = Atom::from_utf8_bytes(env, entry.key.scope().as_bytes())?;
    let node = node_atom(env, &entry.node)?;
    Ok(Some(((scope, name), pid, meta, node).encode(env)))
}

/// A term whose atoms are all there. A compressed one could be a thousand times as large as its bytes.
fn decode<'a>(env: Env<'a>, bytes: &[u8]) -> Option<Term<'a>> {
    const VERSION: u8 = 131;
    const COMPRESSED: u8 = 80;
    if bytes == NIL {
        return Some(atoms::nil().encode(env));
    }
    if bytes.starts_with(&[VERSION, COMPRESSED]) {
        return None;
    }
    env.binary_to_term(bytes).map(|(term, _)| term)
}

/// The metadata of most entries: `nil`.
const NIL: &[u8] = b"\x83w\x03nil";

/// `{scope, name, pid, meta, node}`
fn entry<'a>(env: Env<'a>, entry: &Entry) -> NifResult<Option<Term<'a>>> {
    if !is_name(&entry.key) {
        return Ok(None);
    }
    let (scope, name) = key(env, &entry.key)?;
    Ok(Some(
        (
            scope,
            name,
            binary(env, &entry.pid),
            binary(env, &entry.meta),
            node_atom(env, &entry.node)?,
        )
            .encode(env),
    ))
}

fn is_name(key: &Key) -> bool {
    name::check(key.name()).is_ok()
}

/// A scope has at most 255 bytes, so it fits an atom.
fn key<'a>(env: Env<'a>, key: &Key) -> NifResult<(Atom, Binary<'a>)> {
    let scope = Atom::from_utf8_bytes(env, key.scope().as_bytes())?;
    Ok((scope, binary(env, key.name())))
}
