//! What a node tells over HTTP of itself and its cluster: a page for people, JSON, and metrics for Prometheus.

mod http;
mod metrics;

use std::time::Instant;

use serde::Serialize;
use tiebeam_node::{ClusterHandle, GroupCondition, Kind, Member, Node, Status as MemberStatus};

pub(crate) use http::Server;

/// Names on the page. A scope with more has only their count there: each look at the page would copy all of them.
const MAX_NAMES: usize = 200;

/// From this multiplier on a node is no good witness: it misses what others send, or stands still.
const UNWELL: u32 = 4;

/// Where a status comes from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    node: Node,
    cluster: Option<ClusterHandle>,
    /// Whether it was told who votes, and so needs a leader.
    led: bool,
    begin: Instant,
}

impl Source {
    pub(crate) fn new(node: Node, cluster: Option<ClusterHandle>, led: bool) -> Self {
        Self {
            node,
            cluster,
            led,
            begin: Instant::now(),
        }
    }

    fn read(&self) -> Status {
        Status {
            node: self.node.name().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.begin.elapsed().as_secs_f64(),
            connected: self.node.nodes().iter().map(ToString::to_string).collect(),
            processes: self.node.processes().len(),
            cluster: self.cluster.as_ref().map(Cluster::read),
        }
    }
}

/// A node and its cluster at one moment.
#[derive(Debug, Serialize)]
struct Status {
    node: String,
    version: &'static str,
    /// In seconds.
    uptime: f64,
    /// Visible nodes.
    connected: Vec<String>,
    processes: usize,
    /// `None` for a node that is no member of one.
    cluster: Option<Cluster>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    members: Vec<MemberRow>,
    /// Who leads, as far as this node knows.
    leader: Option<String>,
    /// The latest term; 0 where nobody ever led, or the node takes no part in that.
    term: u64,
    health: Health,
    metrics: Counters,
    names: Names,
    /// How many groups the default scope has.
    groups: usize,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    node: String,
    kind: &'static str,
    status: &'static str,
    /// In microseconds.
    round_trip: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Health {
    multiplier: u32,
    stalls: u64,
    minority: bool,
    /// What is wrong, if anything is.
    trouble: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Counters {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    probes: u64,
    probes_failed: u64,
    suspicions: u64,
    deaths: u64,
    evictions: u64,
    contested: u64,
}

/// The names of the default scope.
#[derive(Debug, Serialize)]
struct Names {
    count: usize,
    /// All of them, if they are few.
    list: Option<Vec<NameRow>>,
}

#[derive(Debug, Serialize)]
struct NameRow {
    name: String,
    node: String,
}

impl Cluster {
    fn read(cluster: &ClusterHandle) -> Self {
        let health = cluster.health();
        let group = cluster.group_condition();
        let metrics = cluster.metrics();
        Self {
            members: cluster.members().iter().map(MemberRow::of).collect(),
            leader: cluster.leader().current().map(|(node, _)| node.to_string()),
            term: cluster.leader().term(),
            health: Health {
                multiplier: health.multiplier,
                stalls: health.stalls,
                minority: health.minority,
                trouble: if health.minority {
                    Some("sees no majority of the members that were last here together")
                } else if health.multiplier >= UNWELL {
                    Some("is slow itself, or its network loses much")
                } else if matches!(group, Some(GroupCondition::Stopped(_))) {
                    Some("takes no part in its group any more; its log says why")
                } else {
                    None
                },
            },
            metrics: Counters {
                sent: metrics.sent,
                sent_bytes: metrics.sent_bytes,
                received: metrics.received,
                received_bytes: metrics.received_bytes,
                probes: metrics.probes,
                probes_failed: metrics.probes_failed,
                suspicions: metrics.suspicions,
                deaths: metrics.deaths,
                evictions: metrics.evictions,
                contested: metrics.contested,
            },
            names: Names::read(cluster),
            groups: cluster.groups().groups().len(),
        }
    }

    fn count(&self, status: MemberStatus) -> usize {
        let wanted = status_word(status);
        let members = self.members.iter();
        members.filter(|member| member.status == wanted).count()
    }
}

impl Names {
    fn read(cluster: &ClusterHandle) -> Self {
        let registry = cluster.registry();
        let count = registry.count();
        let list = (count <= MAX_NAMES).then(|| {
            let named = registry.names().into_iter().filter_map(|name| {
                let node = registry.lookup(&name)?.node.to_string();
                let name = name.to_string();
                Some(NameRow { name, node })
            });
            let mut list: Vec<NameRow> = named.collect();
            list.sort_by(|a, b| a.name.cmp(&b.name));
            list
        });
        Self { count, list }
    }
}

impl MemberRow {
    fn of(member: &Member) -> Self {
        Self {
            node: member.node.to_string(),
            kind: match member.kind {
                Kind::Rust => "rust",
                Kind::Beam => "beam",
                Kind::Plain => "plain",
            },
            status: status_word(member.status),
            round_trip: member.round_trip.map(|time| time.as_micros()),
        }
    }
}

const fn status_word(status: MemberStatus) -> &'static str {
    match status {
        MemberStatus::Alive => "alive",
        MemberStatus::Suspect => "suspect",
        MemberStatus::Dead => "dead",
        MemberStatus::Left => "left",
    }
}
