//! The core's events, actions and members as Elixir terms. The typespecs are in `lib/tiebeam/native.ex`.

use rustler::{Atom, Binary, Encoder, Env, Error, NewBinary, NifMap, NifResult, NifStruct, Term};
use tiebeam_core::leadership::PersistToken;
use tiebeam_core::leadership::group::Condition;
use tiebeam_core::registry::Limits;
use tiebeam_core::{
    Action, Answer, CallId, Command, Config, Contest, Duration, Event, Health, Kind, Member,
    Metrics, NodeName, Notice, Status, Timing,
};

use crate::{leadership, registry};

mod atoms {
    rustler::atoms! {
        // Profiles.
        lan, fast, wan,
        // Events.
        received, connected, disconnected, observed, sampled, asked, exited, checked, resolved, woke,
        persisted, unpersisted, set_metadata, broadcast, leave,
        // Actions.
        send, observe, sample, evict, evict_at, answer, notify,
        done, too_long, busy, no_group,
        // Notices.
        up, down, left, refreshed, recovered, updated, contested, stalled, health, conflict,
        forgotten, refused, ignored,
        off, minority, heard, unhealthy, unreachable, alone,
        // Members.
        beam, rust, plain, alive, suspect, dead,
    }
}

/// The argument of `new/1`.
#[derive(NifMap)]
pub(crate) struct Settings<'a> {
    node: Atom,
    creation: u32,
    incarnation: u64,
    cluster: &'a str,
    join: Vec<Atom>,
    seed: u64,
    metadata: Binary<'a>,
    evict: bool,
    entries_per_scope: usize,
    timing: Times,
    leadership: Option<leadership::Part<'a>>,
}

/// [`Timing`]; durations are milliseconds, because timers of the BEAM are no finer.
#[derive(NifMap)]
pub(crate) struct Times {
    probe_interval: u64,
    probe_timeout: u64,
    indirect_probes: u32,
    suspicion_multiplier: u32,
    suspicion_max_multiplier: u32,
    retransmit_multiplier: u32,
    gossip_interval: u64,
    gossip_fanout: u32,
    sync_interval: u64,
    greet_first: u64,
    greet_max: u64,
    forget_after: u64,
}

impl Times {
    pub(crate) fn of(profile: Atom) -> NifResult<Self> {
        let timing = if profile == atoms::lan() {
            Timing::lan()
        } else if profile == atoms::fast() {
            Timing::fast()
        } else if profile == atoms::wan() {
            Timing::wan()
        } else {
            return Err(Error::BadArg);
        };
        let millis = |span: Duration| span.as_micros() / 1000;
        Ok(Self {
            probe_interval: millis(timing.probe_interval),
            probe_timeout: millis(timing.probe_timeout),
            indirect_probes: timing.indirect_probes,
            suspicion_multiplier: timing.suspicion_multiplier,
            suspicion_max_multiplier: timing.suspicion_max_multiplier,
            retransmit_multiplier: timing.retransmit_multiplier,
            gossip_interval: millis(timing.gossip_interval),
            gossip_fanout: timing.gossip_fanout,
            sync_interval: millis(timing.sync_interval),
            greet_first: millis(timing.greet_first),
            greet_max: millis(timing.greet_max),
            forget_after: millis(timing.forget_after),
        })
    }
}

impl From<Times> for Timing {
    fn from(times: Times) -> Self {
        Self {
            probe_interval: Duration::from_millis(times.probe_interval),
            probe_timeout: Duration::from_millis(times.probe_timeout),
            indirect_probes: times.indirect_probes,
            suspicion_multiplier: times.suspicion_multiplier,
            suspicion_max_multiplier: times.suspicion_max_multiplier,
            retransmit_multiplier: times.retransmit_multiplier,
            gossip_interval: Duration::from_millis(times.gossip_interval),
            gossip_fanout: times.gossip_fanout,
            sync_interval: Duration::from_millis(times.sync_interval),
            greet_first: Duration::from_millis(times.greet_first),
            greet_max: Duration::from_millis(times.greet_max),
            forget_after: Duration::from_millis(times.forget_after),
        }
    }
}

impl Settings<'_> {
    pub(crate) fn into_config(self, env: Env<'_>) -> Result<Config, String> {
        let name = |atom: Atom| {
            let text: String = atom
                .to_term(env)
                .atom_to_string()
                .map_err(|_| "not an atom".to_owned())?;
            NodeName::parse(&text).map_err(|error| error.to_string())
        };
        Ok(Config {
            incarnation: self.incarnation,
            cluster: self.cluster.to_owned(),
            join: self.join.into_iter().map(name).collect::<Result<_, _>>()?,
            seed: self.seed,
            metadata: self.metadata.as_slice().to_vec(),
            evict: self.evict,
            registry: Limits {
                entries_per_scope: self.entries_per_scope,
                ..Limits::default()
            },
            timing: self.timing.into(),
            leadership: self
                .leadership
                .map(|part| part.into_config(name))
                .transpose()?,
            ..Config::new(name(self.node)?, self.creation, Kind::Beam)
        })
    }
}

/// An event; `None` for one about a node whose name the core cannot take for a name. No node of a cluster has one, and
/// a stranger's odd name must not stop the driver.
pub(crate) fn event(term: Term<'_>) -> NifResult<Option<Event>> {
    if term.is_atom() {
        return if atoms::woke() == term {
            Ok(Some(Event::Woke))
        } else {
            Err(Error::BadArg)
        };
    }
    if let Ok((tag, from)) = term.decode::<(Atom, Term<'_>)>() {
        return if tag == atoms::disconnected() {
            Ok(node_name(from)?.map(|from| Event::Disconnected { from }))
        } else if tag == atoms::exited() {
            let pid = registry::bytes(from)?;
            Ok(Some(Event::Exited { pid }))
        } else if tag == atoms::persisted() {
            let token = PersistToken(from.decode()?);
            Ok(Some(Event::Persisted { token }))
        } else if tag == atoms::unpersisted() {
            let why = from.decode()?;
            Ok(Some(Event::Unpersisted { why }))
        } else {
            Err(Error::BadArg)
        };
    }
    let (tag, subject, detail) = term.decode::<(Atom, Term<'_>, Term<'_>)>()?;
    if tag == atoms::asked() {
        return Ok(Some(Event::Asked {
            call: CallId(subject.decode()?),
            command: command(detail)?,
        }));
    }
    if tag == atoms::checked() {
        return Ok(Some(Event::Checked {
            id: subject.decode()?,
            alive: detail.decode()?,
        }));
    }
    if tag == atoms::resolved() {
        return Ok(Some(Event::Resolved {
            id: subject.decode()?,
            keep: registry::keep(detail)?,
        }));
    }
    let name = node_name(subject)?;
    let event: fn(NodeName, Term<'_>) -> NifResult<Event> = if tag == atoms::received() {
        |from, bytes| {
            Ok(Event::Received {
                from,
                bytes: bytes_of(bytes)?,
            })
        }
    } else if tag == atoms::connected() {
        |to, visible| {
            Ok(Event::Connected {
                to,
                visible: visible.decode()?,
            })
        }
    } else if tag == atoms::observed() {
        |node, probe| {
            Ok(Event::Observed {
                node,
                probe: probe.decode()?,
            })
        }
    } else if tag == atoms::sampled() {
        |node, received| {
            Ok(Event::Sampled {
                node,
                received: received.decode()?,
            })
        }
    } else {
        return Err(Error::BadArg);
    };
    name.map(|name| event(name, detail)).transpose()
}

fn command(term: Term<'_>) -> NifResult<Command> {
    if atoms::leave() == term {
        return Ok(Command::Leave);
    }
    if let Some(command) = registry::command(term)? {
        return Ok(Command::Registry(command));
    }
    if let Some(request) = leadership::request(term)? {
        return Ok(Command::Leadership(request));
    }
    let (tag, bytes) = term.decode::<(Atom, Term<'_>)>()?;
    if tag == atoms::set_metadata() {
        Ok(Command::SetMetadata(bytes_of(bytes)?))
    } else if tag == atoms::broadcast() {
        Ok(Command::Broadcast(bytes_of(bytes)?))
    } else {
        Err(Error::BadArg)
    }
}

fn node_name(term: Term<'_>) -> NifResult<Option<NodeName>> {
    Ok(NodeName::parse(&term.atom_to_string()?).ok())
}

fn bytes_of(term: Term<'_>) -> NifResult<Vec<u8>> {
    Ok(term.decode::<Binary<'_>>()?.as_slice().to_vec())
}

/// An action; `None` for one about a name that is no name: see [`registry::change`].
pub(crate) fn action<'a>(env: Env<'a>, action: &Action) -> NifResult<Option<Term<'a>>> {
    Ok(Some(match action {
        Action::Send { to, bytes } => {
            (atoms::send(), node_atom(env, to)?, binary(env, bytes)).encode(env)
        }
        Action::Observe { node, probe } => {
            (atoms::observe(), node_atom(env, node)?, probe).encode(env)
        }
        Action::Sample { node } => (atoms::sample(), node_atom(env, node)?).encode(env),
        Action::Evict { node } => (atoms::evict(), node_atom(env, node)?).encode(env),
        Action::EvictAt { at, node } => (
            atoms::evict_at(),
            node_atom(env, at)?,
            node_atom(env, node)?,
        )
            .encode(env),
        Action::Answer { call, answer } => {
            let answer = match answer {
                Answer::Left => atoms::left().encode(env),
                Answer::Done => atoms::done().encode(env),
                Answer::TooLong { bytes, limit } => (atoms::too_long(), bytes, limit).encode(env),
                Answer::Busy { limit } => (atoms::busy(), limit).encode(env),
                Answer::Registry(answer) => registry::answer(env, answer)?,
                Answer::Leadership(answer) => leadership::answer(env, answer)?,
                Answer::NoGroup => atoms::no_group().encode(env),
            };
            (atoms::answer(), call.0, answer).encode(env)
        }
        Action::Table(change) => return registry::change(env, change),
        Action::Lost(loss) => registry::lost(env, loss)?,
        Action::Promoted { key, pid } => registry::promoted(env, key, pid)?,
        Action::Resolve { id, older, younger } => {
            return registry::resolve(env, *id, older, younger);
        }
        Action::Persist(disk) => leadership::persist(env, disk),
        Action::Leadership(output) => return leadership::output(env, output),
        Action::Check { id, pid } => registry::check(env, *id, pid),
        Action::Notify(notice) => (atoms::notify(), self::notice(env, notice)?).encode(env),
    }))
}

fn notice<'a>(env: Env<'a>, notice: &Notice) -> NifResult<Term<'a>> {
    let change = |change: Atom, member: &Member| {
        self::member(env, member).map(|member| (change, member).encode(env))
    };
    match notice {
        Notice::Up(member) => change(atoms::up(), member),
        Notice::Down(member) => change(atoms::down(), member),
        Notice::Left(member) => change(atoms::left(), member),
        Notice::Refreshed(member) => change(atoms::refreshed(), member),
        Notice::Suspect(member) => change(atoms::suspect(), member),
        Notice::Recovered(member) => change(atoms::recovered(), member),
        Notice::Updated(member) => change(atoms::updated(), member),
        Notice::Forgotten(member) => change(atoms::forgotten(), member),
        Notice::Contested { member, reason } => {
            let reason = match reason {
                Contest::Off => atoms::off(),
                Contest::Minority => atoms::minority(),
                Contest::Heard => atoms::heard(),
                Contest::Unhealthy => atoms::unhealthy(),
                Contest::Unreachable => atoms::unreachable(),
                Contest::Alone => atoms::alone(),
            };
            Ok((atoms::contested(), self::member(env, member)?, reason).encode(env))
        }
        Notice::Stalled { late } => Ok((atoms::stalled(), late.as_micros() / 1000).encode(env)),
        Notice::Health { multiplier } => Ok((atoms::health(), multiplier).encode(env)),
        Notice::Conflict { kept, refused } => {
            Ok((atoms::conflict(), self::member(env, kept)?, refused).encode(env))
        }
        Notice::Broadcast { from, bytes } => Ok((
            atoms::broadcast(),
            node_atom(env, from)?,
            binary(env, bytes),
        )
            .encode(env)),
        Notice::Refused { node, cluster } => {
            Ok((atoms::refused(), node_atom(env, node)?, cluster).encode(env))
        }
        Notice::Ignored { from, why } => {
            Ok((atoms::ignored(), node_atom(env, from)?, why.to_string()).encode(env))
        }
    }
}

#[derive(NifStruct)]
#[module = "Tiebeam.Member"]
struct MemberStruct<'a> {
    node: Atom,
    kind: Atom,
    status: Atom,
    creation: u32,
    incarnation: u64,
    metadata: Binary<'a>,
    round_trip: Option<u64>,
}

pub(crate) fn member<'a>(env: Env<'a>, member: &Member) -> NifResult<Term<'a>> {
    let fields = MemberStruct {
        node: node_atom(env, &member.node)?,
        kind: match member.kind {
            Kind::Beam => atoms::beam(),
            Kind::Rust => atoms::rust(),
            Kind::Plain => atoms::plain(),
        },
        status: match member.status {
            Status::Alive => atoms::alive(),
            Status::Suspect => atoms::suspect(),
            Status::Dead => atoms::dead(),
            Status::Left => atoms::left(),
        },
        creation: member.creation,
        incarnation: member.incarnation,
        metadata: binary(env, &member.metadata),
        round_trip: member.round_trip.map(Duration::as_micros),
    };
    Ok(fields.encode(env))
}

/// [`Health`].
#[derive(NifMap)]
pub(crate) struct HealthMap<'a> {
    multiplier: u32,
    stalls: u64,
    minority: bool,
    group: Term<'a>,
}

impl<'a> HealthMap<'a> {
    pub(crate) fn of(env: Env<'a>, health: Health, group: Option<&Condition>) -> NifResult<Self> {
        Ok(Self {
            multiplier: health.multiplier,
            stalls: health.stalls,
            minority: health.minority,
            group: leadership::condition(env, group)?,
        })
    }
}

/// [`Metrics`].
#[derive(NifMap)]
pub(crate) struct MetricsMap {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    probes: u64,
    probes_failed: u64,
    indirect: u64,
    suspicions: u64,
    recovered: u64,
    refutations: u64,
    deaths: u64,
    evictions: u64,
    contested: u64,
    syncs: u64,
    syncs_equal: u64,
    ignored: u64,
    queued: u64,
}

impl From<Metrics> for MetricsMap {
    fn from(metrics: Metrics) -> Self {
        Self {
            sent: metrics.sent,
            sent_bytes: metrics.sent_bytes,
            received: metrics.received,
            received_bytes: metrics.received_bytes,
            probes: metrics.probes,
            probes_failed: metrics.probes_failed,
            indirect: metrics.indirect,
            suspicions: metrics.suspicions,
            recovered: metrics.recovered,
            refutations: metrics.refutations,
            deaths: metrics.deaths,
            evictions: metrics.evictions,
            contested: metrics.contested,
            syncs: metrics.syncs,
            syncs_equal: metrics.syncs_equal,
            ignored: metrics.ignored,
            queued: metrics.queued,
        }
    }
}

pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

/// Every node name fits an atom: see `NodeName::parse`.
pub(crate) fn node_atom(env: Env<'_>, name: &NodeName) -> NifResult<Atom> {
    Atom::from_utf8_bytes(env, name.as_str().as_bytes())
}
