//! Where work goes, as functions of Elixir terms. They have no state. Keys and names are bytes in the registry's encoding.

use std::collections::{BTreeMap, BTreeSet};

use rustler::{Atom, Binary, Env, Error, NifResult, Term};
use tiebeam_core::placement::{
    self, Label, MAX_SLOTS, Moves, Participant, Policy, Rebalance, Task, View,
};
use tiebeam_core::{Duration, Instant, NodeName};

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
    atoms_of(env, &placement::rank(key.as_slice(), nodes))
}

/// `{node, weight, labels, draining, cordoned, pinned}`
type ParticipantTerm<'a> = (Term<'a>, u32, Vec<LabelTerm<'a>>, bool, bool, Vec<usize>);
type LabelTerm<'a> = (Binary<'a>, Binary<'a>);

/// `{on | nil, label, avoid, prefer, {threshold, max_concurrent, cooldown}}`
type PolicyTerm<'a> = (
    Option<Vec<Term<'a>>>,
    Vec<LabelTerm<'a>>,
    Vec<LabelTerm<'a>>,
    Vec<LabelTerm<'a>>,
    (usize, usize, u64),
);

/// `{name, most, policy, holders, participants}`
type ViewTerm<'a> = (
    Binary<'a>,
    usize,
    PolicyTerm<'a>,
    Vec<Term<'a>>,
    Vec<ParticipantTerm<'a>>,
);

/// `{last | nil, under_way, by_hand}`; times are milliseconds.
type MovesTerm = (Option<u64>, Vec<usize>, bool);

/// `{release, acquire, again | nil, moves}`
type TurnTerm = (Vec<usize>, Vec<usize>, Option<u64>, MovesTerm);

/// What a [`View`] borrows.
struct Seen<'a> {
    name: Binary<'a>,
    most: usize,
    policy: Policy,
    holders: Vec<Option<NodeName>>,
    participants: BTreeMap<NodeName, Participant>,
}

impl<'a> Seen<'a> {
    fn of((name, most, policy, holders, participants): ViewTerm<'a>) -> NifResult<Self> {
        if holders.len() > MAX_SLOTS {
            return Err(Error::BadArg);
        }
        let (on, label, avoid, prefer, (threshold, max_concurrent, cooldown)) = policy;
        let on = on.map(|on| on.into_iter().map(node_name).collect::<NifResult<_>>());
        let policy = Policy {
            on: on.transpose()?,
            label: labels(label),
            avoid: labels(avoid),
            prefer: labels(prefer),
            rebalance: Rebalance {
                threshold,
                max_concurrent,
                cooldown: Duration::from_millis(cooldown),
            },
        };
        let nil = |holder: &Term<'_>| atoms::nil() == *holder;
        let holder = |holder: Term<'_>| (!nil(&holder)).then(|| node_name(holder)).transpose();
        let participant =
            |(node, weight, labelled, draining, cordoned, pinned): ParticipantTerm<'_>| {
                let participant = Participant {
                    weight,
                    labels: labels(labelled).into_iter().collect(),
                    draining,
                    cordoned,
                    pinned: pinned.into_iter().collect(),
                };
                Ok((node_name(node)?, participant))
            };
        Ok(Self {
            name,
            most,
            policy,
            holders: holders.into_iter().map(holder).collect::<NifResult<_>>()?,
            participants: participants
                .into_iter()
                .map(participant)
                .collect::<NifResult<_>>()?,
        })
    }

    fn view(&self) -> View<'_> {
        View {
            task: Task {
                name: self.name.as_slice(),
                most: self.most,
            },
            policy: &self.policy,
            holders: &self.holders,
            participants: &self.participants,
        }
    }
}

/// `turn(view, me, now, moves, by_hand) :: {release, acquire, again | nil, moves}`
///
/// On a dirty scheduler: thousands of free slots times a hundred nodes are some ten milliseconds of hashing.
#[rustler::nif(schedule = "DirtyCpu")]
fn turn(
    view: ViewTerm<'_>,
    me: Term<'_>,
    now: u64,
    moves: MovesTerm,
    by_hand: bool,
) -> NifResult<TurnTerm> {
    let seen = Seen::of(view)?;
    let (last, under_way, ordered) = moves;
    let moves = Moves {
        last: last.map(Instant::from_millis),
        under_way: under_way.into_iter().collect(),
        by_hand: ordered,
    };
    let turn = seen
        .view()
        .turn(&node_name(me)?, Instant::from_millis(now), &moves, by_hand);
    let moves = (
        turn.moves.last.map(millis),
        turn.moves.under_way.into_iter().collect(),
        turn.moves.by_hand,
    );
    Ok((turn.release, turn.acquire, turn.again.map(millis), moves))
}

/// `unsettled(view) :: slots`
#[rustler::nif(schedule = "DirtyCpu")]
fn unsettled(view: ViewTerm<'_>) -> NifResult<usize> {
    Ok(Seen::of(view)?.view().unsettled())
}

/// `eligible(view) :: nodes`
#[rustler::nif]
fn eligible<'a>(env: Env<'a>, view: ViewTerm<'a>) -> NifResult<Vec<Atom>> {
    let seen = Seen::of(view)?;
    let eligible: Vec<NodeName> = seen.view().eligible().cloned().collect();
    atoms_of(env, &eligible)
}

/// `followers(view, slot, most) :: nodes`
#[rustler::nif]
fn followers<'a>(
    env: Env<'a>,
    view: ViewTerm<'a>,
    slot: usize,
    most: usize,
) -> NifResult<Vec<Atom>> {
    atoms_of(env, &Seen::of(view)?.view().followers(slot, most))
}

/// `followed(view, me, most) :: slots`: those of which a node is a follower.
#[rustler::nif(schedule = "DirtyCpu")]
fn followed(view: ViewTerm<'_>, me: Term<'_>, most: usize) -> NifResult<Vec<usize>> {
    let (seen, me) = (Seen::of(view)?, node_name(me)?);
    let follows = |slot: &usize| seen.view().followers(*slot, most).contains(&me);
    Ok((0..seen.holders.len()).filter(follows).collect())
}

fn labels(terms: Vec<LabelTerm<'_>>) -> Vec<Label> {
    let label = |(key, value): LabelTerm<'_>| (key.as_slice().into(), value.as_slice().into());
    terms.into_iter().map(label).collect()
}

fn millis(instant: Instant) -> u64 {
    instant.as_micros() / 1000
}

fn node_name(term: Term<'_>) -> NifResult<NodeName> {
    NodeName::parse(&term.atom_to_string()?).map_err(|_| Error::BadArg)
}

fn atoms_of(env: Env<'_>, nodes: &[NodeName]) -> NifResult<Vec<Atom>> {
    nodes.iter().map(|node| node_atom(env, node)).collect()
}
