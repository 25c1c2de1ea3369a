//! Where work goes, as functions of Elixir terms. They have no state. Keys and names are bytes in the registry's encoding.

use std::collections::BTreeSet;

use rustler::{Atom, Binary, Env, Error, NifResult, Term};
use tiebeam_core::NodeName;
use tiebeam_core::placement::{self, MAX_SLOTS, Task};

use crate::terms::node_atom;

mod atoms {
    rustler::atoms! {
        nil,
    }
}

/// `partition(key, partitions) :: partition`
#[rustler::nif]
fn partition(key: Binary<'_>, partitions: u32) -> u32 {
    placement::partition(key.as_slice(), partitions)
}

/// `score(key, node) :: score`
#[rustler::nif]
fn score(key: Binary<'_>, node: Term<'_>) -> NifResult<u64> {
    Ok(placement::score(key.as_slice(), &node_name(node)?))
}

/// `rank(key, nodes) :: nodes`
#[rustler::nif]
fn rank(env: Env<'_>, key: Binary<'_>, nodes: Vec<Term<'_>>) -> NifResult<Vec<Atom>> {
    let nodes: BTreeSet<NodeName> = nodes.into_iter().map(node_name).collect::<NifResult<_>>()?;
    placement::rank(key.as_slice(), nodes)
        .iter()
        .map(|node| node_atom(env, node))
        .collect()
}

/// `plan(name, most, holders, nodes, me) :: {release, acquire}`
///
/// On a dirty scheduler: thousands of free slots times a hundred nodes are some ten milliseconds of hashing.
#[rustler::nif(schedule = "DirtyCpu")]
fn plan(
    name: Binary<'_>,
    most: usize,
    holders: Vec<Term<'_>>,
    nodes: Vec<Term<'_>>,
    me: Term<'_>,
) -> NifResult<(Vec<usize>, Vec<usize>)> {
    if holders.len() > MAX_SLOTS {
        return Err(Error::BadArg);
    }
    let holders: Vec<Option<NodeName>> = holders
        .into_iter()
        .map(|holder| {
            (!(atoms::nil() == holder))
                .then(|| node_name(holder))
                .transpose()
        })
        .collect::<NifResult<_>>()?;
    let nodes: BTreeSet<NodeName> = nodes.into_iter().map(node_name).collect::<NifResult<_>>()?;
    let task = Task {
        name: name.as_slice(),
        most,
    };
    let plan = placement::plan(task, &holders, &nodes, &node_name(me)?);
    Ok((plan.release, plan.acquire))
}

fn node_name(term: Term<'_>) -> NifResult<NodeName> {
    NodeName::parse(&term.atom_to_string()?).map_err(|_| Error::BadArg)
}
