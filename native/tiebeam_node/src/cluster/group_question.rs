//! What any node may ask about the leader, keys and locks, and what it is told: Erlang terms.

use std::time::Duration;

use tiebeam_core::NodeName;
use tiebeam_core::leadership::group::{Answer, Command, Led, Read, Request};
use tiebeam_core::leadership::machine::{Expect, Kind, Stored};
use tiebeam_wire::Term;

use crate::cluster::kv::KvEntry;
use crate::cluster::leadership::{LeadershipError, core_duration, granted, node_term};
use crate::cluster::name::term_of;
use crate::cluster::question::invalid;
use crate::cluster::replica::{Replica, holder};
use crate::cluster::table::term_bytes;

/// How long a request waits: less than `GenServer.call/2` does, so that the caller hears what became of it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(4);

/// A request about leadership.
pub(super) enum GroupQuestion {
    /// Who leads.
    Leader,
    /// The locks that are held.
    Locks,
    /// The keys that begin so.
    List(Vec<u8>),
    /// A command for the core.
    Ask(Request),
}

impl GroupQuestion {
    /// `None` if it is no request about leadership. An error is what its sender is told.
    pub(super) fn parse(request: &Term) -> Option<Result<Self, Term>> {
        let Term::Tuple(elements) = request else {
            return match request.as_atom()?.as_str() {
                "leader" => Some(Ok(Self::Leader)),
                "step_down" => Some(Ok(Self::step_down(None))),
                "locks" => Some(Ok(Self::Locks)),
                _ => None,
            };
        };
        if let [Term::Atom(tag), Term::Atom(to)] = elements.as_slice()
            && tag.as_str() == "step_down"
        {
            let to = NodeName::parse(to.as_str()).map_err(|error| invalid(error.to_string()));
            return Some(to.map(|to| Self::step_down(Some(to))));
        }
        let [Term::Atom(tag), Term::Atom(verb), arguments @ ..] = elements.as_slice() else {
            return None;
        };
        if tag.as_str() != "kv" {
            return None;
        }
        let command = match (verb.as_str(), arguments) {
            ("put", [key, value]) => bytes(key).map(|key| Command::Put {
                key,
                value: term_bytes(value),
                expect: Expect::Anything,
            }),
            ("get", [key]) => bytes(key).map(|key| Command::Get {
                key,
                read: Read::Linear,
            }),
            ("delete", [key]) => bytes(key).map(|key| Command::Delete {
                key,
                expect: Expect::Anything,
            }),
            ("list", [prefix]) => return Some(bytes(prefix).map(Self::List)),
            _ => return None,
        };
        Some(command.map(Self::ask))
    }

    fn step_down(to: Option<NodeName>) -> Self {
        Self::ask(Command::StepDown { to })
    }

    fn ask(command: Command) -> Self {
        let timeout = core_duration(TIMEOUT);
        Self::Ask(Request { command, timeout })
    }
}

fn bytes(key: &Term) -> Result<Vec<u8>, Term> {
    match key {
        Term::Binary(key) => Ok(key.as_slice().to_vec()),
        _ => Err(invalid("a key is a binary".to_owned())),
    }
}

/// `{ok, Node, Term}`, or `none`.
pub(super) fn leader(led: &Led) -> Term {
    match &led.leader {
        Some(_) => Term::tuple([
            Term::atom("ok"),
            node_term(led.leader.as_ref()),
            Term::from(led.term),
        ]),
        None => Term::atom("none"),
    }
}

/// `[{Name, Token, Pid, Meta}]`.
pub(super) fn locks(replica: &Replica) -> Term {
    let locks = replica.claims().into_iter();
    let rows = locks.filter_map(|((kind, name), claim)| {
        let (pid, meta) = holder(&claim.value)?;
        let (name, token) = (term_of(&name), Term::from(claim.token));
        let row = Term::tuple([name, token, Term::from(pid), meta]);
        (kind == Kind::Lock).then_some(row)
    });
    Term::list(rows.collect::<Vec<_>>())
}

/// `{ok, [{Key, Value, Revision}]}`.
pub(super) fn keys(listed: Result<Vec<KvEntry>, LeadershipError>) -> Term {
    match listed {
        Ok(entries) => {
            let row = |entry: &KvEntry| {
                let value = entry.value_term().unwrap_or_else(|_| Term::atom("nil"));
                Term::tuple([Term::binary(&entry.key), value, Term::from(entry.revision)])
            };
            let rows: Vec<Term> = entries.iter().map(row).collect();
            Term::tuple([Term::atom("ok"), Term::list(rows)])
        }
        Err(refused) => error(&refused),
    }
}

pub(super) fn kind_term(kind: Kind) -> Term {
    Term::atom(match kind {
        Kind::Lock => "lock",
        Kind::Singleton => "singleton",
        Kind::Name => "name",
    })
}

/// What who asked is told.
pub(super) fn answer(answer: tiebeam_core::Answer) -> Term {
    match granted(answer) {
        Ok(Answer::Done(index)) => Term::tuple([Term::atom("ok"), Term::from(index)]),
        Ok(Answer::Value(None)) => Term::atom("not_found"),
        Ok(Answer::Value(Some(stored))) => {
            let (value, revision) = value(&stored);
            Term::tuple([Term::atom("ok"), value, revision])
        }
        // Answers to what no process asks in this way.
        Ok(_) => error(&LeadershipError::Unknown),
        Err(refused) => error(&refused),
    }
}

fn value(stored: &Stored) -> (Term, Term) {
    (term_of(&stored.value), Term::from(stored.revision))
}

fn error(error: &LeadershipError) -> Term {
    Term::tuple([Term::atom("error"), error.reason()])
}

#[cfg(test)]
mod tests {
    use tiebeam_core::leadership::group;

    use super::*;

    fn told(given: group::Answer) -> String {
        answer(tiebeam_core::Answer::Leadership(given)).to_string()
    }

    #[test]
    fn answers_are_told_as_terms() {
        let stored = Stored {
            revision: 7,
            value: term_bytes(&Term::from("Alice")),
        };
        let cases = [
            (Answer::Done(7), "{ok,7}"),
            (Answer::Value(None), "not_found"),
            (Answer::Value(Some(stored)), "{ok,<<\"Alice\">>,7}"),
            (Answer::NoLeader, "{error,no_quorum}"),
            (Answer::Unknown, "{error,unknown}"),
            (Answer::Differs { revision: 3 }, "{error,{differs,3}}"),
        ];
        for (given, text) in cases {
            assert_eq!(told(given), text);
        }
        assert_eq!(
            answer(tiebeam_core::Answer::NoGroup).to_string(),
            "{error,no_group}"
        );
    }

    #[test]
    fn what_is_no_request_is_left_to_others() {
        let parse = |text| GroupQuestion::parse(&Term::parse(text).unwrap());
        for text in [
            "members",
            "{kv, shut}",
            "{kv, get}",
            "{whereis, <<\"a\">>}",
            "7",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(matches!(parse("{kv, get, atom}"), Some(Err(_))));
        assert!(matches!(parse("{step_down, nobody}"), Some(Err(_))));
        for text in ["step_down", "{step_down, b@h}"] {
            assert!(
                matches!(parse(text), Some(Ok(GroupQuestion::Ask(_)))),
                "{text}"
            );
        }
        assert!(matches!(parse("leader"), Some(Ok(GroupQuestion::Leader))));
        let listed = parse("{kv, list, <<\"a\">>}");
        assert!(matches!(listed, Some(Ok(GroupQuestion::List(prefix))) if prefix == b"a"));
    }
}
