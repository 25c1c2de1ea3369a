//! What a member says to any node, as Erlang terms: the structs and events of the Elixir package.

use tiebeam_core::leadership::group::{Condition, Missing};
use tiebeam_core::{Contest, Health, Kind, Member, Metrics, NodeName, Status};
use tiebeam_wire::{Atom, Map, Term};

use crate::cluster::event::ClusterEvent;

/// `%Tiebeam.Member{}`.
pub(super) fn member(member: &Member) -> Term {
    let kind = match member.kind {
        Kind::Beam => "beam",
        Kind::Rust => "rust",
        Kind::Plain => "plain",
    };
    let status = match member.status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Dead => "dead",
        Status::Left => "left",
    };
    let round_trip = match member.round_trip {
        Some(micros) => Term::from(micros.as_micros()),
        None => Term::atom("nil"),
    };
    map([
        ("__struct__", Term::atom("Elixir.Tiebeam.Member")),
        ("node", node(&member.node)),
        ("kind", Term::atom(kind)),
        ("status", Term::atom(status)),
        ("creation", Term::from(member.creation)),
        ("incarnation", Term::from(member.incarnation)),
        ("metadata", Term::binary(&member.metadata)),
        ("round_trip", round_trip),
    ])
}

/// `%{multiplier: 1, stalls: 0, minority: false, group: :ok}`.
pub(super) fn health(health: Health, group: Option<&Condition>) -> Term {
    map([
        ("multiplier", Term::from(health.multiplier)),
        ("stalls", Term::from(health.stalls)),
        ("minority", Term::from(health.minority)),
        ("group", group.map_or_else(|| Term::atom("none"), condition)),
    ])
}

/// `ok`, or what is wrong.
fn condition(condition: &Condition) -> Term {
    let pair = |name, value| Term::tuple([Term::atom(name), value]);
    match condition {
        Condition::Led => Term::atom("ok"),
        Condition::Leaderless => Term::atom("no_leader"),
        Condition::Unfounded(missing) => pair("not_founded", self::missing(missing)),
        Condition::NoReplica { limit } => pair("no_replica", Term::from(*limit as u64)),
        Condition::Foreign(nodes) => pair(
            "foreign",
            Term::list(nodes.iter().map(node).collect::<Vec<_>>()),
        ),
        Condition::Stopped(why) => pair("stopped", Term::binary(why.to_string())),
    }
}

/// The nodes that are missing, or how many are.
pub(super) fn missing(missing: &Missing) -> Term {
    match missing {
        Missing::Voters(nodes) => Term::list(nodes.iter().map(node).collect::<Vec<_>>()),
        Missing::Count(count) => Term::from(*count as u64),
    }
}

/// `%{sent: 12, ...}`: the fields of [`Metrics`].
pub(super) fn metrics(metrics: Metrics) -> Term {
    let counts = [
        ("sent", metrics.sent),
        ("sent_bytes", metrics.sent_bytes),
        ("received", metrics.received),
        ("received_bytes", metrics.received_bytes),
        ("probes", metrics.probes),
        ("probes_failed", metrics.probes_failed),
        ("indirect", metrics.indirect),
        ("suspicions", metrics.suspicions),
        ("recovered", metrics.recovered),
        ("refutations", metrics.refutations),
        ("deaths", metrics.deaths),
        ("evictions", metrics.evictions),
        ("contested", metrics.contested),
        ("syncs", metrics.syncs),
        ("syncs_equal", metrics.syncs_equal),
        ("ignored", metrics.ignored),
        ("queued", metrics.queued),
    ];
    map(counts.map(|(name, count)| (name, Term::from(count))))
}

/// The event in `{:tiebeam, cluster, event}`.
pub(super) fn event(event: &ClusterEvent) -> Term {
    let change = |change, who| Term::tuple([Term::atom("member"), Term::atom(change), member(who)]);
    match event {
        ClusterEvent::Up(member) => change("up", member),
        ClusterEvent::Suspect(member) => change("suspect", member),
        ClusterEvent::Recovered(member) => change("recovered", member),
        ClusterEvent::Updated(member) => change("updated", member),
        ClusterEvent::Down(member) => change("down", member),
        ClusterEvent::Left(member) => change("left", member),
        ClusterEvent::Contested {
            member: who,
            reason,
        } => Term::tuple([
            Term::atom("contested"),
            member(who),
            Term::atom(match reason {
                Contest::Off => "off",
                Contest::Minority => "minority",
                Contest::Heard => "heard",
                Contest::Unhealthy => "unhealthy",
                Contest::Unreachable => "unreachable",
                Contest::Alone => "alone",
            }),
        ]),
        ClusterEvent::Conflict { kept, refused } => {
            Term::tuple([Term::atom("conflict"), member(kept), Term::from(*refused)])
        }
        ClusterEvent::Refused { node: who, cluster } => {
            Term::tuple([Term::atom("refused"), node(who), Term::binary(cluster)])
        }
        ClusterEvent::Stalled(late) => {
            Term::tuple([Term::atom("stalled"), Term::from(late.as_millis() as u64)])
        }
        ClusterEvent::Health { multiplier } => {
            Term::tuple([Term::atom("health"), Term::from(*multiplier)])
        }
        ClusterEvent::Broadcast { from, bytes } => {
            Term::tuple([Term::atom("broadcast"), node(from), Term::binary(bytes)])
        }
        ClusterEvent::Leader { leader, term } => {
            let leader = leader.as_ref().map_or_else(|| Term::atom("nil"), node);
            Term::tuple([Term::atom("leader"), leader, Term::from(*term)])
        }
        ClusterEvent::Group(group) => Term::tuple([Term::atom("group"), condition(group)]),
        ClusterEvent::Missed(count) => Term::tuple([Term::atom("missed"), Term::from(*count)]),
    }
}

/// A name of the core is at most as long as an atom.
fn node(node: &NodeName) -> Term {
    Atom::new(node.as_str()).map_or_else(|_| Term::atom("undefined"), Term::from)
}

fn map<const N: usize>(pairs: [(&'static str, Term); N]) -> Term {
    Term::from(
        pairs
            .into_iter()
            .map(|(key, value)| (Term::atom(key), value))
            .collect::<Map>(),
    )
}
