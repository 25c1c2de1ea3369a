//! `tiebeam locks`: the locks that are held, as one of the members has them.

use serde::Serialize;
use tiebeam_node::Term;

use crate::arguments::MembersArguments;
use crate::failure::Failure;
use crate::{member, registry, visitor};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Row {
    /// In Erlang syntax, as all terms here.
    name: String,
    token: u64,
    node: String,
    pid: String,
    meta: String,
}

pub(crate) async fn run(arguments: MembersArguments) -> Result<(), Failure> {
    let MembersArguments { member, json } = arguments;
    let reply = member::ask(&member, Term::atom("locks")).await?;
    let rows = match &reply {
        Term::List(rows) => rows.iter().map(row).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let Some(mut rows) = rows else {
        return Err(registry::unexpected(&member.node, &reply));
    };
    rows.sort();
    if json {
        let json = serde_json::to_string(&rows)?;
        visitor::print(format_args!("{json}"))
    } else {
        visitor::print(format_args!("{}", table(&rows)))
    }
}

/// `{Name, Token, Pid, Meta}`.
fn row(row: &Term) -> Option<Row> {
    let [name, token, Term::Pid(pid), meta] = row.as_tuple()? else {
        return None;
    };
    Some(Row {
        name: name.to_string(),
        token: u64::try_from(token.as_integer()?).ok()?,
        node: pid.node.as_str().to_owned(),
        pid: Term::from(pid).to_string(),
        meta: meta.to_string(),
    })
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let token = row.token.to_string();
        [&row.name, &token, &row.node, &row.pid, &row.meta].map(String::clone)
    };
    registry::columns(
        ["NAME", "TOKEN", "NODE", "PID", "METADATA"],
        rows.iter().map(cells),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_shown_in_columns() {
        let lock = Row {
            name: "<<\"billing\">>".to_owned(),
            token: 17,
            node: "a@h".to_owned(),
            pid: "<5.0>".to_owned(),
            meta: "nil".to_owned(),
        };
        assert_eq!(
            table(&[lock]),
            "NAME           TOKEN  NODE  PID    METADATA\n\
             <<\"billing\">>  17     a@h   <5.0>  nil"
        );
    }
}
