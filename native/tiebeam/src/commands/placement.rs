//! `tiebeam rings`, `pools`, and an operator's orders: what the nodes that take part in rings and pools say of themselves, and what they are told.

use std::collections::BTreeMap;

use serde::Serialize;
use tiebeam_node::{Map, Node, Pid, Term};

use crate::arguments::{
    LabelArguments, MemberArguments, MembersArguments, MoveArguments, NodeOrderArguments,
    RebalanceArguments, TaskKind, WeightArguments, WhatArguments, seconds,
};
use crate::failure::Failure;
use crate::visitor::{self, Visitor};
use crate::{member, registry};

/// A node's part in a ring or a pool.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    kind: TaskKind,
    name: Term,
    pid: Pid,
    meta: Map,
}

impl Part {
    fn said(&self, key: &'static str) -> Option<&Term> {
        self.meta.get(&Term::atom(key))
    }

    fn is(&self, key: &'static str) -> bool {
        self.said(key).is_some_and(|value| value.is_atom("true"))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let text = |term: &Term| Some(String::from_utf8_lossy(term.as_binary()?).into_owned());
        let labels = self.said("labels").and_then(Term::as_map);
        let pairs = labels.into_iter().flat_map(Map::iter);
        pairs
            .filter_map(|(key, value)| Some((text(key)?, text(value)?)))
            .collect()
    }

    fn pinned(&self) -> Vec<i64> {
        let slots = self.said("pinned").and_then(Term::as_list);
        slots
            .unwrap_or_default()
            .iter()
            .filter_map(Term::as_integer)
            .collect()
    }

    /// It is the ring or pool that a user calls so: the text of an atom or a binary, or any term in Erlang syntax.
    fn is_called(&self, name: &str) -> bool {
        let text = match &self.name {
            Term::Atom(text) => text.as_str() == name,
            Term::Binary(text) => text.as_slice() == name.as_bytes(),
            _ => false,
        };
        text || self.name.to_string() == name
    }

    fn node(&self) -> &str {
        self.pid.node.as_str()
    }
}

/// What a member knows of who takes part.
async fn parts(member: &MemberArguments) -> Result<Vec<Part>, Failure> {
    let request = Term::tuple([Term::atom("groups"), Term::atom("default")]);
    let reply = member::ask(member, request).await?;
    let Term::List(groups) = &reply else {
        return Err(registry::unexpected(&member.node, &reply));
    };
    let mut parts: Vec<Part> = groups.iter().flat_map(parts_of).collect();
    parts.sort_by_key(|part| (part.kind, part.name.to_string(), part.node().to_owned()));
    Ok(parts)
}

/// `{{tiebeam, Kind, Name}, [{Pid, Meta}]}`; none of another group.
fn parts_of(group: &Term) -> Vec<Part> {
    let read = || {
        let [group, Term::List(members)] = group.as_tuple()? else {
            return None;
        };
        let [tiebeam, kind, name] = group.as_tuple()? else {
            return None;
        };
        let kind = match kind.as_atom()?.as_str() {
            "ring" if tiebeam.is_atom("tiebeam") => TaskKind::Ring,
            "pool" if tiebeam.is_atom("tiebeam") => TaskKind::Pool,
            _ => return None,
        };
        let part = |member: &Term| match member.as_tuple()? {
            [Term::Pid(pid), Term::Map(meta)] => Some(Part {
                kind,
                name: name.clone(),
                pid: pid.clone(),
                meta: meta.clone(),
            }),
            _ => None,
        };
        Some(members.iter().filter_map(part).collect())
    };
    read().unwrap_or_default()
}

// ---- tiebeam rings, tiebeam pools

#[derive(Debug, Serialize)]
struct Row {
    /// In Erlang syntax.
    name: String,
    node: String,
    state: &'static str,
    weight: i64,
    labels: BTreeMap<String, String>,
    pinned: Vec<i64>,
}

impl Row {
    fn of(part: &Part) -> Self {
        let weight = part.said("weight").and_then(Term::as_integer);
        Self {
            name: part.name.to_string(),
            node: part.node().to_owned(),
            state: match () {
                () if part.is("draining") => "draining",
                () if part.is("cordoned") => "cordoned",
                () => "open",
            },
            weight: weight.unwrap_or(100),
            labels: part.labels(),
            pinned: part.pinned(),
        }
    }
}

pub(crate) async fn list(kind: TaskKind, arguments: MembersArguments) -> Result<(), Failure> {
    let parts = parts(&arguments.member).await?;
    let of_kind = parts.iter().filter(|part| part.kind == kind);
    let rows: Vec<Row> = of_kind.map(Row::of).collect();
    if arguments.json {
        let json = serde_json::to_string(&rows)?;
        return visitor::print(format_args!("{json}"));
    }
    let head = match kind {
        TaskKind::Ring => "RING",
        TaskKind::Pool => "POOL",
    };
    visitor::print(format_args!("{}", table(head, &rows)))
}

fn table(head: &str, rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let labels = row
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let pinned = row.pinned.iter().map(i64::to_string);
        [
            row.name.clone(),
            row.node.clone(),
            row.state.to_owned(),
            row.weight.to_string(),
            labels.collect::<Vec<_>>().join(","),
            pinned.collect::<Vec<_>>().join(","),
        ]
    };
    let heads = [head, "NODE", "STATE", "WEIGHT", "LABELS", "PINNED"];
    registry::columns(heads, rows.iter().map(cells))
}

// ---- orders

/// A part that has done as it was told.
#[derive(Serialize)]
struct Told {
    kind: TaskKind,
    /// In Erlang syntax.
    name: String,
    node: String,
}

/// Tells each part something, one after the other, and prints who did it. Fails at the first that does not.
async fn tell(
    member: &MemberArguments,
    orders: Vec<(Part, Term)>,
    json: bool,
) -> Result<(), Failure> {
    let MemberArguments {
        node,
        cookie,
        network,
        timeout,
    } = member;
    let visitor = Visitor::to(node, cookie, network).await?;
    let mut told = Vec::new();
    let mut failure = None;
    for (part, order) in orders {
        let row = Told {
            kind: part.kind,
            name: part.name.to_string(),
            node: part.node().to_owned(),
        };
        if let Err(why) = ask(visitor.node(), &part.pid, order, *timeout).await {
            let Told { kind, name, node } = row;
            failure = Some(Failure::new(format!("{kind} {name} on {node}: {why}")));
            break;
        }
        told.push(row);
    }
    visitor.leave().await;
    if json {
        let json = serde_json::to_string(&told)?;
        visitor::print(format_args!("{json}"))?;
    } else {
        for Told { kind, name, node } in &told {
            visitor::print(format_args!("{kind} {name} on {node}: ok"))?;
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn ask(node: &Node, pid: &Pid, order: Term, timeout: u32) -> Result<(), String> {
    match node.call_term(pid, order, seconds(timeout)).await {
        Ok(reply) if reply.is_atom("ok") => Ok(()),
        Ok(reply) => Err(match reply.as_tuple() {
            Some([error, reason]) if error.is_atom("error") => refusal(reason),
            _ => format!("it does not answer as asked: {reply}"),
        }),
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(reason: &Term) -> String {
    match reason.as_atom().map(|reason| reason.as_str()) {
        Some("no_such_slot") => "it has no such partition or replica".to_owned(),
        Some("cordoned") => "the node is cordoned: uncordon it first".to_owned(),
        Some("draining") => "the node is draining".to_owned(),
        Some("not_eligible") => "by its placement it may not be on that node".to_owned(),
        Some("too_many_pins") => {
            "too much is pinned to that node: give it a weight instead".to_owned()
        }
        _ => format!("refused: {reason}"),
    }
}

/// The parts of a node, in one ring or pool or in all of them.
async fn of_node(arguments: &NodeOrderArguments) -> Result<Vec<Part>, Failure> {
    let NodeOrderArguments {
        member, ring, pool, ..
    } = arguments;
    let mut parts = parts(member).await?;
    parts.retain(|part| {
        let meant = match (part.kind, ring, pool) {
            (_, None, None) => true,
            (TaskKind::Ring, Some(name), _) | (TaskKind::Pool, _, Some(name)) => {
                part.is_called(name)
            }
            _ => false,
        };
        meant && part.node() == member.node
    });
    match parts.is_empty() {
        true => Err(Failure::new(format!(
            "{} takes part in no ring or pool that is meant: see tiebeam rings, tiebeam pools",
            member.node
        ))),
        false => Ok(parts),
    }
}

/// Tells a node the same in each ring and pool that is meant.
pub(crate) async fn order(
    order: &'static str,
    arguments: NodeOrderArguments,
) -> Result<(), Failure> {
    let parts = of_node(&arguments).await?;
    let orders = parts.into_iter().map(|part| (part, Term::atom(order)));
    tell(&arguments.member, orders.collect(), arguments.json).await
}

pub(crate) async fn weigh(arguments: WeightArguments) -> Result<(), Failure> {
    let WeightArguments { on, weight } = arguments;
    let order = Term::tuple([Term::atom("weight"), Term::from(weight)]);
    let parts = of_node(&on).await?;
    let orders = parts.into_iter().map(|part| (part, order.clone()));
    tell(&on.member, orders.collect(), on.json).await
}

/// `key=value` gives a label, `key-` takes it away; the others stay.
pub(crate) async fn label(arguments: LabelArguments) -> Result<(), Failure> {
    let LabelArguments { on, labels } = arguments;
    let parts = of_node(&on).await?;
    let orders = parts.into_iter().map(|part| {
        let mut present = part.labels();
        for (key, value) in &labels {
            match value {
                Some(value) => drop(present.insert(key.clone(), value.clone())),
                None => drop(present.remove(key)),
            }
        }
        let mut map = Map::new();
        for (key, value) in &present {
            map.insert(Term::binary(key), Term::binary(value));
        }
        (part, Term::tuple([Term::atom("labels"), Term::from(map)]))
    });
    tell(&on.member, orders.collect(), on.json).await
}

/// The parts of one ring or pool.
async fn of_task(member: &MemberArguments, what: &WhatArguments) -> Result<Vec<Part>, Failure> {
    let WhatArguments { kind, name } = what;
    let mut parts = parts(member).await?;
    parts.retain(|part| part.kind == *kind && part.is_called(name));
    match parts.is_empty() {
        true => Err(Failure::new(format!(
            "{} knows of no {kind} {name}: see tiebeam {kind}s",
            member.node
        ))),
        false => Ok(parts),
    }
}

pub(crate) async fn rebalance(arguments: RebalanceArguments) -> Result<(), Failure> {
    let RebalanceArguments { member, what, json } = arguments;
    let parts = of_task(&member, &what).await?;
    let orders = parts
        .into_iter()
        .map(|part| (part, Term::atom("rebalance")));
    tell(&member, orders.collect(), json).await
}

pub(crate) async fn relocate(arguments: MoveArguments) -> Result<(), Failure> {
    let MoveArguments {
        member,
        what,
        slot,
        to,
        json,
    } = arguments;
    let parts = of_task(&member, &what).await?;
    let Some(target) = parts.iter().find(|part| part.node() == to).cloned() else {
        return Err(Failure::new(format!(
            "{to} takes no part in the {} {}",
            what.kind, what.name
        )));
    };
    let order = |verb: &'static str| Term::tuple([Term::atom(verb), Term::from(slot)]);
    // There it is pinned first: where two nodes say so, the one that has it keeps it.
    let mut orders = vec![(target, order("pin"))];
    let elsewhere = parts
        .into_iter()
        .filter(|part| part.node() != to && part.pinned().contains(&i64::from(slot)));
    orders.extend(elsewhere.map(|part| (part, order("unpin"))));
    tell(&member, orders, json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_from_groups_and_shown() {
        let group = "{{tiebeam, ring, <<\"users\">>}, [{#Pid<'a@h',1,0,1>, #{partitions => 12, cordoned => true, \
                     weight => 50, labels => #{<<\"zone\">> => <<\"a\">>}, pinned => [3, 300]}}, \
                     {#Pid<'b@h',1,0,1>, #{partitions => 12}}, {#Pid<'c@h',1,0,1>, nil}]}";
        let parts = parts_of(&Term::parse(group).unwrap());
        let rows: Vec<Row> = parts.iter().map(Row::of).collect();
        assert_eq!(
            table("RING", &rows),
            "RING         NODE  STATE     WEIGHT  LABELS  PINNED\n\
             <<\"users\">>  a@h   cordoned  50      zone=a  3,300\n\
             <<\"users\">>  b@h   open      100"
        );
        assert_eq!(
            serde_json::to_string(&rows[0]).unwrap(),
            r#"{"name":"<<\"users\">>","node":"a@h","state":"cordoned","weight":50,"labels":{"zone":"a"},"pinned":[3,300]}"#
        );
        for name in ["users", "<<\"users\">>"] {
            assert!(parts[0].is_called(name));
        }
        assert!(!parts[0].is_called("user"));
        for other in [
            "{workers, []}",
            "{{tiebeam, workers, a}, []}",
            "{{other, ring, a}, [1]}",
            "7",
        ] {
            assert_eq!(parts_of(&Term::parse(other).unwrap()), []);
        }
    }
}
