//! What a member says of a member: `%Tiebeam.Member{}`.

use std::fmt::{self, Write};

use serde::de::{Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use tiebeam_node::{CallError, Term};

use crate::arguments::{MemberArguments, seconds};
use crate::failure::Failure;
use crate::visitor;

/// The registered name of a member's cluster driver.
pub(crate) const PROCESS: &str = "tiebeam";

/// Asks a member one thing, as a node that comes for that alone.
pub(crate) async fn ask(arguments: &MemberArguments, request: Term) -> Result<Term, Failure> {
    let MemberArguments {
        node,
        cookie,
        network,
        timeout,
    } = arguments;
    let visitor = visitor::Visitor::to(node, cookie, network).await?;
    let reply = visitor
        .node()
        .call_term((PROCESS, node.as_str()), request, seconds(*timeout))
        .await;
    visitor.leave().await;
    reply.map_err(|error| failure(node, error))
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Member {
    pub(crate) node: String,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) creation: u32,
    pub(crate) incarnation: u64,
    #[serde(default)]
    pub(crate) metadata: Metadata,
    /// In microseconds.
    #[serde(default)]
    pub(crate) round_trip: Option<u64>,
}

/// Bytes that mostly are a text: in JSON a string, or an array of numbers where they are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata(pub(crate) Vec<u8>);

impl fmt::Display for Metadata {
    /// In one line, and without control characters: another node chose it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => text.escape_debug().fmt(f),
            Err(_) => self.0.escape_ascii().fmt(f),
        }
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a binary")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Metadata, E> {
                Ok(Metadata(bytes.to_vec()))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Why the cluster of a node cannot be asked.
pub(crate) fn failure(node: &str, error: CallError) -> Failure {
    match error {
        CallError::NoProcess => Failure::new(format!(
            "{node} is no member of a cluster: nobody is registered there as {PROCESS}; start Tiebeam on it, or ask \
             another node"
        )),
        error => error.into(),
    }
}

/// The members with a line that says what the columns are.
pub(crate) fn table<'a>(members: impl Iterator<Item = &'a Member> + Clone) -> String {
    let width = members
        .clone()
        .map(|member| member.node.chars().count())
        .max()
        .unwrap_or(0)
        .max("NODE".len());
    let mut table = format!(
        "{:width$}  KIND   STATUS   ROUND TRIP    CREATION  INCARNATION  METADATA\n",
        "NODE"
    );
    for member in members {
        let mut row = format!(
            "{:width$}  {:5}  {:7}  {:>10}  {:>10}  {:>11}  {}",
            member.node,
            member.kind,
            member.status,
            round_trip(member.round_trip),
            member.creation,
            member.incarnation,
            member.metadata
        );
        row.truncate(row.trim_end().len());
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{row}");
    }
    table
}

/// Microseconds as people read them.
fn round_trip(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 1000 => format!("{micros} µs"),
        Some(micros) => format!("{:.1} ms", micros as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_node::{Term, from_term};

    use super::*;

    fn read(text: &str) -> Member {
        from_term(&Term::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_member_is_read_and_shown() {
        let member = read(
            "#{'__struct__' => 'Elixir.Tiebeam.Member', node => a@h, kind => rust, status => alive, creation => 7, \
             incarnation => 2, metadata => <<\"zone\\n1\">>, round_trip => 1500}",
        );
        assert_eq!(
            table([member.clone()].iter()),
            "NODE  KIND   STATUS   ROUND TRIP    CREATION  INCARNATION  METADATA\n\
             a@h   rust   alive        1.5 ms           7            2  zone\\n1\n"
        );
        assert_eq!(
            serde_json::to_string(&member).unwrap(),
            r#"{"node":"a@h","kind":"rust","status":"alive","creation":7,"incarnation":2,"metadata":"zone\n1","round_trip":1500}"#
        );
    }

    #[test]
    fn what_is_not_known_and_what_is_no_text_has_a_form_of_its_own() {
        let member = read(
            "#{node => a@h, kind => plain, status => dead, creation => 7, incarnation => 2, metadata => <<255, 0>>, \
             round_trip => nil}",
        );
        assert_eq!(member.round_trip, None);
        assert!(
            table([member.clone()].iter())
                .ends_with("           -           7            2  \\xff\\x00\n")
        );
        let json = serde_json::to_value(&member).unwrap();
        assert_eq!(json["metadata"], serde_json::json!([255, 0]));
        assert_eq!(json["round_trip"], serde_json::Value::Null);
    }
}
