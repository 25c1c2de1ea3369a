//! `tiebeam kv`: the keys that the cluster agreed on, through any member.

use serde::Serialize;
use tiebeam_node::Term;

use crate::arguments::{KvAction, KvArguments};
use crate::commands::leader;
use crate::failure::Failure;
use crate::{member, registry, visitor};

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    key: String,
    /// In Erlang syntax.
    value: String,
    revision: u64,
}

#[derive(Serialize)]
struct Done<'a> {
    key: &'a str,
    revision: u64,
}

pub(crate) async fn run(arguments: KvArguments) -> Result<(), Failure> {
    let request = request(&arguments)?;
    let KvArguments {
        member,
        action,
        key,
        term,
        json,
        ..
    } = arguments;
    let key = key.unwrap_or_default();
    let reply = member::ask(&member, request).await?;
    let node = member.node;
    let unexpected = || registry::unexpected(&node, &reply);
    if reply.is_atom("not_found") {
        return Err(Failure::new(format!("there is no key {key:?}")));
    }
    let answer = match reply.as_tuple() {
        Some([error, reason]) if error.is_atom("error") => return Err(refused(&node, reason)),
        Some([ok, answer @ ..]) if ok.is_atom("ok") => answer,
        _ => return Err(unexpected()),
    };
    let text = match (action, answer) {
        (KvAction::Put | KvAction::Delete, [revision]) => {
            let revision = number(revision).ok_or_else(unexpected)?;
            match json {
                true => serde_json::to_string(&Done {
                    key: &key,
                    revision,
                })?,
                false => revision.to_string(),
            }
        }
        (KvAction::Get, [value, revision]) => match json {
            true => serde_json::to_string(&Row {
                key,
                value: value.to_string(),
                revision: number(revision).ok_or_else(unexpected)?,
            })?,
            false => shown(value, term),
        },
        (KvAction::List, [Term::List(rows)]) => {
            let rows = rows.iter().map(|row| self::row(row, json || term));
            let rows = rows.collect::<Option<Vec<_>>>().ok_or_else(unexpected)?;
            match json {
                true => serde_json::to_string(&rows)?,
                false => table(&rows),
            }
        }
        _ => return Err(unexpected()),
    };
    visitor::print(format_args!("{text}"))
}

/// What the member is asked for.
fn request(arguments: &KvArguments) -> Result<Term, Failure> {
    let KvArguments {
        action, key, value, ..
    } = arguments;
    let verb = match action {
        KvAction::Put => "put",
        KvAction::Get => "get",
        KvAction::Delete => "delete",
        KvAction::List => "list",
    };
    let mut request = vec![Term::atom("kv"), Term::atom(verb)];
    match (key, action) {
        (Some(key), _) => request.push(Term::binary(key)),
        (None, KvAction::List) => request.push(Term::binary("")),
        (None, _) => {
            return Err(Failure::new(format!(
                "say which key: kv NAME@HOST {verb} KEY"
            )));
        }
    }
    match (value, action) {
        (Some(value), KvAction::Put) if arguments.term => {
            let term = Term::parse(value).map_err(|error| {
                Failure::new(format!("the value is no term in Erlang syntax: {error}"))
            })?;
            request.push(term);
        }
        (Some(value), KvAction::Put) => request.push(Term::binary(value)),
        (None, KvAction::Put) => {
            return Err(Failure::new("say which value: kv NAME@HOST put KEY VALUE"));
        }
        (Some(_), _) => return Err(Failure::new(format!("{verb} takes no value"))),
        (None, _) => {}
    }
    Ok(Term::tuple(request))
}

/// Why it was not done, and what to do.
fn refused(node: &str, reason: &Term) -> Failure {
    let why = match reason.as_atom().map(|reason| reason.as_str()) {
        Some("no_group") => {
            "it was started without voters; ask a member that has --voters or --expect"
        }
        Some("no_quorum") => {
            "no majority of the voters can be reached, so nothing was done; start them, or ask a node on their side"
        }
        Some("unknown") => {
            "it was not heard in time what became of it: it may be done, or be done later; read the key"
        }
        Some("busy") => "too many requests wait already, so nothing was done; try again",
        Some("full") => "the store is full, so nothing was done; delete some keys",
        Some("stopped") => "it takes no part in the group any more; its log says why",
        Some("left") => "it has left the cluster; ask another member",
        Some("unknown_request") => "it does not know of keys; ask a member of this release",
        _ => {
            return match leader::trouble(reason) {
                Some(why) => Failure::new(format!("{node}: {why}; nothing was done")),
                None => Failure::new(format!("{node} refuses: {reason}")),
            };
        }
    };
    Failure::new(format!("{node}: {why}"))
}

fn number(term: &Term) -> Option<u64> {
    u64::try_from(term.as_integer()?).ok()
}

/// `{Key, Value, Revision}`.
fn row(row: &Term, term: bool) -> Option<Row> {
    let [key, value, revision] = row.as_tuple()? else {
        return None;
    };
    Some(Row {
        key: shown(key, false),
        value: shown(value, term),
        revision: number(revision)?,
    })
}

/// A text as it is, without control characters; all else in Erlang syntax.
fn shown(value: &Term, term: bool) -> String {
    let text = value
        .as_binary()
        .and_then(|bytes| std::str::from_utf8(bytes.as_slice()).ok());
    match text {
        Some(text) if !term && !text.chars().any(char::is_control) => text.to_owned(),
        _ => value.to_string(),
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| [row.key.clone(), row.revision.to_string(), row.value.clone()];
    registry::columns(["KEY", "REVISION", "VALUE"], rows.iter().map(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_in_columns() {
        let rows = Term::parse("[{<<\"user:1\">>, <<\"Alice\">>, 7}, {<<\"n\">>, {a, <<1>>}, 12}]");
        let Ok(Term::List(rows)) = rows else {
            panic!("a list");
        };
        let rows: Option<Vec<_>> = rows.iter().map(|row| self::row(row, false)).collect();
        assert_eq!(
            table(&rows.unwrap()),
            "KEY     REVISION  VALUE\n\
             user:1  7         Alice\n\
             n       12        {a,<<1>>}"
        );
        assert_eq!(shown(&Term::binary("a"), true), "<<\"a\">>");
        assert_eq!(shown(&Term::binary("a\u{1b}[2J"), false), "<<\"a\\e[2J\">>");
    }
}
