//! `tiebeam leader`: who leads the cluster, as one of its members knows it.

use serde::Serialize;
use tiebeam_node::Term;

use crate::arguments::MembersArguments;
use crate::failure::Failure;
use crate::{member, registry, visitor};

#[derive(Serialize)]
struct Led {
    leader: Option<String>,
    /// Known only with a leader.
    term: Option<u64>,
}

pub(crate) async fn run(arguments: MembersArguments) -> Result<(), Failure> {
    let MembersArguments { member, json } = arguments;
    let reply = member::ask(&member, Term::atom("leader")).await?;
    let Some(led) = read(&reply) else {
        return Err(registry::unexpected(&member.node, &reply));
    };
    if json {
        let (leader, term) = led.unzip();
        let json = serde_json::to_string(&Led { leader, term })?;
        return visitor::print(format_args!("{json}"));
    }
    match led {
        Some((leader, term)) => visitor::print(format_args!("{leader} (term {term})")),
        None => {
            let health = member::ask(&member, Term::atom("health")).await?;
            match group_of(&health).and_then(trouble) {
                Some(why) => {
                    visitor::print(format_args!("none, as far as {} knows: {why}", member.node))
                }
                None => visitor::print(format_args!("none, as far as {} knows", member.node)),
            }
        }
    }
}

/// How it is with the member's part in the group; a member of an earlier release does not say.
fn group_of(health: &Term) -> Option<&Term> {
    match health {
        Term::Map(fields) => fields.get_atom("group"),
        _ => None,
    }
}

/// What is wrong, in words, if something is that does not pass by itself.
pub(crate) fn trouble(condition: &Term) -> Option<String> {
    let [tag, what] = condition.as_tuple()? else {
        return None;
    };
    let nodes = |nodes: &Term| {
        let names = nodes.as_list()?.iter();
        let names: Vec<String> = names.map(ToString::to_string).collect();
        Some(names.join(", ").replace('\'', ""))
    };
    match (tag.as_atom()?.as_str(), what) {
        ("not_founded", count) if count.as_integer().is_some() => Some(format!(
            "the group is not founded yet: {count} more nodes are expected"
        )),
        ("not_founded", missing) => Some(format!(
            "the group is not founded yet: these voters are missing: {}; each must run, be connected, and have the same --voters",
            nodes(missing)?
        )),
        ("no_replica", limit) => Some(format!(
            "the group has {limit} members, which is the limit, and this node is none of them; ask a member"
        )),
        ("foreign", foreign) => Some(format!(
            "these are in a group that was founded apart from this one: {}",
            nodes(foreign)?
        )),
        ("stopped", why) => {
            let why = String::from_utf8_lossy(why.as_binary()?.as_slice()).into_owned();
            Some(format!("it takes no part in the group any more: {why}"))
        }
        _ => None,
    }
}

/// Who leads, and in which term; `None` if the answer says something else.
pub(crate) fn read(reply: &Term) -> Option<Option<(String, u64)>> {
    if reply.is_atom("none") {
        return Some(None);
    }
    match reply.as_tuple()? {
        [ok, Term::Atom(leader), term] if ok.is_atom("ok") => {
            let term = u64::try_from(term.as_integer()?).ok()?;
            Some(Some((leader.as_str().to_owned(), term)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let said = |text: &str| trouble(&Term::parse(text).unwrap());
        let cases = [
            ("{not_founded, ['b@h', 'c@h']}", "missing: b@h, c@h"),
            ("{not_founded, 2}", "2 more nodes"),
            ("{no_replica, 255}", "255 members"),
            ("{foreign, ['b@h']}", "founded apart from this one: b@h"),
            ("{stopped, <<\"disk full\">>}", "any more: disk full"),
        ];
        for (condition, text) in cases {
            let said = said(condition).expect(condition);
            assert!(said.contains(text), "{said}");
        }
        for well in ["ok", "none", "no_leader", "{ok, 1}", "{not_founded, none}"] {
            assert_eq!(said(well), None, "{well}");
        }
    }

    #[test]
    fn an_answer_is_read() {
        let read = |text| read(&Term::parse(text).unwrap());
        assert_eq!(read("none"), Some(None));
        assert_eq!(read("{ok, a@h, 7}"), Some(Some(("a@h".to_owned(), 7))));
        for text in ["{ok, a@h}", "{ok, a@h, -1}", "{error, unknown_request}"] {
            assert_eq!(read(text), None);
        }
    }
}
