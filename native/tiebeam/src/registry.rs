//! What a member says of the names and groups in its table.

use serde::Serialize;
use tiebeam_node::{Pid, Term};

use crate::arguments::RegistryArguments;
use crate::failure::Failure;
use crate::member;

/// A name and its process, or a group and one of its members.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Row {
    /// In Erlang syntax, as all terms here.
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) pid: String,
    pub(crate) meta: String,
}

impl Row {
    pub(crate) fn of(name: &Term, pid: &Pid, meta: &Term) -> Self {
        Self {
            name: name.to_string(),
            node: pid.node.as_str().to_owned(),
            pid: Term::from(pid).to_string(),
            meta: meta.to_string(),
        }
    }
}

/// Asks a member for `names` or `groups`.
pub(crate) async fn ask(
    request: &'static str,
    arguments: &RegistryArguments,
) -> Result<Vec<Term>, Failure> {
    let RegistryArguments { member, scope, .. } = arguments;
    let request = Term::tuple([Term::atom(request), Term::from(scope.as_str())]);
    match member::ask(member, request).await? {
        Term::List(rows) => Ok(rows),
        reply => Err(unexpected(&member.node, &reply)),
    }
}

/// The member is of another release, or refuses.
pub(crate) fn unexpected(node: &str, reply: &Term) -> Failure {
    Failure::new(format!("{node} does not answer as asked: {reply}"))
}

/// The rows in order, under a line that says what the columns are.
pub(crate) fn table(what: &str, rows: &[Row]) -> String {
    let cells = |row: &Row| [&row.name, &row.node, &row.pid, &row.meta].map(String::clone);
    columns([what, "NODE", "PID", "METADATA"], rows.iter().map(cells))
}

/// Rows in columns, under a line that says what these are.
pub(crate) fn columns<const N: usize>(
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = heads.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&heads.map(str::to_owned))];
    lines.extend(rows.iter().map(line));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_in_columns_and_in_json() {
        let row = |name: &str, meta: &str| Row {
            name: name.to_owned(),
            node: "a@h".to_owned(),
            pid: "<5.0>".to_owned(),
            meta: meta.to_owned(),
        };
        let rows = [row("<<\"cache\">>", "nil"), row("db", "")];
        assert_eq!(
            table("NAME", &rows),
            "NAME         NODE  PID    METADATA\n\
             <<\"cache\">>  a@h   <5.0>  nil\n\
             db           a@h   <5.0>"
        );
        assert_eq!(
            serde_json::to_string(&rows[1]).unwrap(),
            r#"{"name":"db","node":"a@h","pid":"<5.0>","meta":""}"#
        );
    }
}
