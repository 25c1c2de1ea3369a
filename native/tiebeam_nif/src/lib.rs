//! The core of Tiebeam for the BEAM: a few NIFs, called by `Tiebeam.Native`.
//!
//! The library starts no thread and makes no decision. A cluster is a resource that one process owns and steps; it is
//! freed when that process and its references are gone. A panic becomes an Erlang error (`:nif_panicked`), and the
//! resource refuses further steps, because its state may be half changed.
//!
//! A step takes microseconds per event, and the driver bounds its batches, so the NIFs run on normal schedulers; only what
//! reads and writes the disk waits, on dirty ones.
#![deny(unsafe_code)]

mod leadership;
mod placement;
mod registry;
mod store;
mod terms;

use std::sync::Mutex;

use rustler::{Atom, Env, NifResult, ResourceArc, Term};
use tiebeam_core::{Cluster, Instant};

use terms::{HealthMap, MetricsMap, Settings, Times};

struct Member(Mutex<Cluster>);

#[rustler::resource_impl]
impl rustler::Resource for Member {}

/// `new(settings) :: {:ok, cluster} | {:error, message}`
#[rustler::nif]
fn new(env: Env<'_>, settings: Settings<'_>) -> Result<ResourceArc<Member>, String> {
    let config = settings.into_config(env)?;
    let cluster = Cluster::new(config).map_err(|error| error.to_string())?;
    Ok(ResourceArc::new(Member(Mutex::new(cluster))))
}

/// `timing(profile) :: times`
#[rustler::nif]
fn timing(profile: Atom) -> NifResult<Times> {
    Times::of(profile)
}

/// `step(cluster, now, events) :: {actions, deadline | nil}`
///
/// All events happened at `now`, in the order of the list. Times are microseconds.
#[rustler::nif]
fn step<'a>(
    env: Env<'a>,
    member: ResourceArc<Member>,
    now: u64,
    events: Vec<Term<'a>>,
) -> NifResult<(Vec<Term<'a>>, Option<u64>)> {
    with(&member, |cluster| {
        let mut actions = Vec::new();
        let mut terms = Vec::with_capacity(events.len());
        for event in events {
            let Some(event) = terms::event(event)? else {
                continue;
            };
            let registers = registry::registers(&event);
            cluster.step(Instant::from_micros(now), event, &mut actions);
            let done = registers.and_then(|registers| registers.done(env, &actions));
            // Two actions for the row and the answer.
            let others = actions.len() - if done.is_some() { 2 } else { 0 };
            for action in &actions[..others] {
                terms.extend(terms::action(env, action)?);
            }
            terms.extend(done);
            actions.clear();
        }
        let deadline = cluster.deadline().map(Instant::as_micros);
        Ok((terms, deadline))
    })
}

/// `view(cluster) :: [Tiebeam.Member.t()]`
#[rustler::nif]
fn view<'a>(env: Env<'a>, member: ResourceArc<Member>) -> NifResult<Vec<Term<'a>>> {
    with(&member, |cluster| {
        cluster
            .view()
            .members()
            .map(|member| terms::member(env, member))
            .collect()
    })
}

/// `room(cluster) :: non_neg_integer`
#[rustler::nif]
fn room(member: ResourceArc<Member>) -> NifResult<usize> {
    with(&member, |cluster| Ok(cluster.view().room()))
}

/// `health(cluster) :: Tiebeam.health()`
#[rustler::nif]
fn health<'a>(env: Env<'a>, member: ResourceArc<Member>) -> NifResult<HealthMap<'a>> {
    with(&member, |cluster| {
        let view = cluster.view();
        HealthMap::of(env, view.health(), view.group().as_ref())
    })
}

/// `metrics(cluster) :: Tiebeam.metrics()`
#[rustler::nif]
fn metrics(member: ResourceArc<Member>) -> NifResult<MetricsMap> {
    with(&member, |cluster| Ok(cluster.view().metrics().into()))
}

fn with<T>(member: &Member, work: impl FnOnce(&mut Cluster) -> NifResult<T>) -> NifResult<T> {
    let mut cluster = member
        .0
        .lock()
        .map_err(|_| rustler::Error::RaiseAtom("panicked_before"))?;
    work(&mut cluster)
}

rustler::init!("Elixir.Tiebeam.Native");
