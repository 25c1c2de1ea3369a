//! What any node may ask about names and groups, and what it is told: Erlang terms.

use std::sync::Arc;

use tiebeam_core::registry::{Command, OnConflict};
use tiebeam_wire::{Atom, Pid, Term};

use crate::cluster::groups::Groups;
use crate::cluster::name::{Name, term_of};
use crate::cluster::registry::{
    DEFAULT_SCOPE, GLOBAL_SCOPE, Registration, Registry, RegistryError, Shared, no_meta,
};
use crate::cluster::table::{pid_bytes, term_bytes};

/// A request about names or groups.
pub(super) enum Question {
    /// Answered from the table.
    Read { scope: String, read: Read },
    /// A command for the core, about this process.
    Change { command: Command, pid: Pid },
    /// The same, about whoever has the name.
    Unregister { scope: String, name: Name },
}

pub(super) enum Read {
    Whereis(Name),
    Lookup(Name),
    Members(Name),
    Names,
    Groups,
}

impl Question {
    /// `None` if it is no request about names or groups. An error is what its sender is told.
    pub(super) fn parse(request: &Term) -> Option<Result<Self, Term>> {
        let (verb, arguments) = match request {
            Term::Atom(verb) => (verb, &[][..]),
            Term::Tuple(elements) => match elements.as_slice() {
                [Term::Atom(verb), arguments @ ..] => (verb, arguments),
                _ => return None,
            },
            _ => return None,
        };
        let default = Term::atom(DEFAULT_SCOPE);
        // Where two forms have the same length, the last argument tells: metadata comes behind a pid.
        let question = match (verb.as_str(), arguments) {
            ("names", []) => read(&default, Ok(Read::Names)),
            ("names", [scope]) => read(scope, Ok(Read::Names)),
            ("groups", []) => read(&default, Ok(Read::Groups)),
            ("groups", [scope]) => read(scope, Ok(Read::Groups)),
            ("whereis", [name]) => read(&default, named(name, Read::Whereis)),
            ("whereis", [scope, name]) => read(scope, named(name, Read::Whereis)),
            ("lookup", [name]) => read(&default, named(name, Read::Lookup)),
            ("lookup", [scope, name]) => read(scope, named(name, Read::Lookup)),
            ("members", [group]) => read(&default, named(group, Read::Members)),
            ("members", [scope, group]) => read(scope, named(group, Read::Members)),
            ("register", [name, Term::Pid(pid)]) => register(&default, name, pid, None),
            ("register", [scope, name, Term::Pid(pid)]) => register(scope, name, pid, None),
            ("register", [scope, name, Term::Pid(pid), meta]) => {
                register(scope, name, pid, Some(meta))
            }
            ("unregister", [name]) => unregister(&default, name),
            ("unregister", [scope, name]) => unregister(scope, name),
            ("join", [group, Term::Pid(pid)]) => join(&default, group, pid, None),
            ("join", [scope, group, Term::Pid(pid)]) => join(scope, group, pid, None),
            ("join", [scope, group, Term::Pid(pid), meta]) => join(scope, group, pid, Some(meta)),
            ("leave", [group, Term::Pid(pid)]) => leave(&default, group, pid),
            ("leave", [scope, group, Term::Pid(pid)]) => leave(scope, group, pid),
            _ => return None,
        };
        Some(question)
    }
}

impl Read {
    /// The answer, from the table of this node. Takes as long as the table is, for lists of names and groups.
    pub(super) fn answer(self, scope: &str, shared: Shared) -> Term {
        let shared = Shared {
            scope: scope.into(),
            ..shared
        };
        let nil = || Term::atom("nil");
        match self {
            Self::Whereis(name) => Registry::new(shared)
                .whereis(name)
                .map_or_else(nil, Term::from),
            Self::Lookup(name) => Registry::new(shared).lookup(name).map_or_else(nil, pair),
            Self::Members(group) => {
                let members = Groups::new(shared).members(group);
                let pids = members.into_iter().map(|member| Term::from(member.pid));
                Term::list(pids.collect::<Vec<_>>())
            }
            Self::Names if scope == GLOBAL_SCOPE => {
                let names = Registry::new(shared);
                let rows = names.names().into_iter().filter_map(|name| {
                    let found = names.lookup(&name)?;
                    Some(triple(name.to_term(), found))
                });
                Term::list(rows.collect::<Vec<_>>())
            }
            Self::Names => {
                let mut rows = Vec::new();
                shared.table.each_name(scope, |name, row| {
                    rows.push(triple(term_of(name), Registration::of(row.clone())));
                });
                Term::list(rows)
            }
            Self::Groups => {
                let mut rows = Vec::new();
                shared.table.each_group(scope, |group, members| {
                    let members = members.values().cloned();
                    let members: Vec<Term> = members.map(Registration::of).map(pair).collect();
                    rows.push(Term::tuple([term_of(group), Term::list(members)]));
                });
                Term::list(rows)
            }
        }
    }

    /// Whether the answer may be long, so that it is not the driver that makes it.
    pub(super) fn is_long(&self) -> bool {
        matches!(self, Self::Members(_) | Self::Names | Self::Groups)
    }
}

/// `{Pid, Meta}`.
fn pair(registration: Registration) -> Term {
    let meta = meta_term(&registration);
    Term::tuple([Term::from(registration.pid), meta])
}

/// `{Name, Pid, Meta}`.
fn triple(name: Term, registration: Registration) -> Term {
    let meta = meta_term(&registration);
    Term::tuple([name, Term::from(registration.pid), meta])
}

/// What another node sent in place of a term is no metadata.
fn meta_term(registration: &Registration) -> Term {
    registration
        .meta_term()
        .unwrap_or_else(|_| Term::atom("nil"))
}

fn read(scope: &Term, read: Result<Read, Term>) -> Result<Question, Term> {
    let scope = scope_of(scope)?;
    Ok(Question::Read { scope, read: read? })
}

fn named(name: &Term, read: fn(Name) -> Read) -> Result<Read, Term> {
    name_of(name).map(read)
}

fn register(scope: &Term, name: &Term, pid: &Pid, meta: Option<&Term>) -> Result<Question, Term> {
    Ok(Question::Change {
        command: Command::Register {
            scope: writable(scope)?,
            name: name_of(name)?.bytes().clone(),
            pid: pid_bytes(pid),
            meta: meta_of(meta),
            on_conflict: OnConflict::Notify,
            resolve: false,
            claimed: false,
        },
        pid: pid.clone(),
    })
}

fn unregister(scope: &Term, name: &Term) -> Result<Question, Term> {
    Ok(Question::Unregister {
        scope: writable(scope)?,
        name: name_of(name)?,
    })
}

fn join(scope: &Term, group: &Term, pid: &Pid, meta: Option<&Term>) -> Result<Question, Term> {
    Ok(Question::Change {
        command: Command::Join {
            scope: writable(scope)?,
            group: name_of(group)?.bytes().clone(),
            pid: pid_bytes(pid),
            meta: meta_of(meta),
        },
        pid: pid.clone(),
    })
}

fn leave(scope: &Term, group: &Term, pid: &Pid) -> Result<Question, Term> {
    Ok(Question::Change {
        command: Command::Leave {
            scope: writable(scope)?,
            group: name_of(group)?.bytes().clone(),
            pid: pid_bytes(pid),
        },
        pid: pid.clone(),
    })
}

/// An atom or a binary: the text of both is the same scope.
fn scope_of(scope: &Term) -> Result<String, Term> {
    let text = match scope {
        Term::Atom(scope) => Some(scope.as_str()),
        Term::Binary(scope) => std::str::from_utf8(scope.as_slice()).ok(),
        _ => None,
    };
    match text {
        Some(text) => Ok(text.to_owned()),
        None => Err(invalid("a scope is an atom or a UTF-8 binary".to_owned())),
    }
}

fn writable(scope: &Term) -> Result<String, Term> {
    let scope = scope_of(scope)?;
    if scope == GLOBAL_SCOPE {
        return Err(invalid(RegistryError::Global.to_string()));
    }
    Ok(scope)
}

fn name_of(name: &Term) -> Result<Name, Term> {
    Name::from_term(name).map_err(|error| invalid(error.to_string()))
}

fn meta_of(meta: Option<&Term>) -> Arc<[u8]> {
    meta.map_or_else(no_meta, term_bytes)
}

/// A node takes names and memberships only from its own processes.
pub(super) fn not_theirs(pid: &Pid) -> Term {
    invalid(format!(
        "{pid:?} is a process of {}: only that node takes its names and memberships away",
        pid.node
    ))
}

/// `{error, {invalid, Text}}`: the text says what, and the limit.
pub(super) fn invalid(text: String) -> Term {
    let why = Term::tuple([Term::atom("invalid"), Term::from(text)]);
    Term::tuple([Term::atom("error"), why])
}

/// What a command's sender is told.
pub(super) fn answer(result: Result<(), RegistryError>) -> Term {
    let error = |reason| Term::tuple([Term::atom("error"), reason]);
    match result {
        Ok(()) => Term::atom("ok"),
        Err(RegistryError::Taken { pid, .. }) => {
            error(Term::tuple([Term::atom("taken"), Term::from(pid)]))
        }
        Err(RegistryError::Unknown) => error(Term::atom("unknown")),
        Err(RegistryError::NoProcess) => error(Term::atom("noproc")),
        Err(RegistryError::Left) => error(Term::atom("left")),
        Err(other) => invalid(other.to_string()),
    }
}

/// A scope as processes are told of it: the atom that Elixir has for it.
pub(super) fn scope_term(scope: &str) -> Term {
    Atom::new(scope).map_or_else(|_| Term::from(scope), Term::from)
}
