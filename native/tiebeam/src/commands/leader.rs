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
        None => visitor::print(format_args!("none, as far as {} knows", member.node)),
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
    fn an_answer_is_read() {
        let read = |text| read(&Term::parse(text).unwrap());
        assert_eq!(read("none"), Some(None));
        assert_eq!(read("{ok, a@h, 7}"), Some(Some(("a@h".to_owned(), 7))));
        for text in ["{ok, a@h}", "{ok, a@h, -1}", "{error, unknown_request}"] {
            assert_eq!(read(text), None);
        }
    }
}
