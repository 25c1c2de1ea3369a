//! The command line.

mod discover;
mod network;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tiebeam_node::{ClusterConfig, Cookie, EpmdMode};

use crate::failure::Failure;
pub(crate) use discover::Discover;
pub(crate) use network::NetworkArguments;

#[derive(Debug, Parser)]
#[command(
    name = "tiebeam",
    version,
    about = "BEAM nodes and Rust nodes in one cluster.",
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until SIGINT or SIGTERM, then leave the cluster gracefully.
    ///
    /// Prints `ready N@H port=P pid=OS_PID` once the node accepts connections. Logs go to stderr; RUST_LOG chooses
    /// what is logged (default: warn).
    Node(NodeArguments),
    /// Ask a node whether it answers, and how fast.
    Ping(PingArguments),
    /// Call a function of a node, on a BEAM or in Rust; terms are written in Erlang syntax.
    Rpc(RpcArguments),
    /// Show the cluster's members, as a node sees them.
    Members(MembersArguments),
    /// Show the names of the cluster's registry, as a member has them in its table.
    Names(RegistryArguments),
    /// Show the groups of the cluster's registry and their members, as a member has them in its table.
    Groups(RegistryArguments),
    /// Show who leads the cluster, as a member knows it.
    Leader(MembersArguments),
    /// Read and change the keys that the cluster agreed on, through any member.
    ///
    /// Exits with 0 only when the cluster acknowledged it. Values are texts; with --term they are written in Erlang
    /// syntax.
    Kv(KvArguments),
    /// Show the locks that are held and by which processes, as a member has them in its table.
    Locks(MembersArguments),
    /// Have the leader hand over to another voter, through any member.
    ///
    /// Exits with 0 once another node leads.
    Stepdown(StepDownArguments),
    /// Show the rings and which nodes take part in them, as a member has them in its table.
    Rings(MembersArguments),
    /// Show the pools and which nodes take part in them, as a member has them in its table.
    Pools(MembersArguments),
    /// Move a partition of a ring, or a replica of a pool, to a node, and keep it there.
    Move(MoveArguments),
    /// Have all nodes of a ring or a pool move at once what an even spread asks for.
    Rebalance(RebalanceArguments),
    /// Have a node take no new partitions and replicas; it keeps what it has.
    Cordon(NodeOrderArguments),
    /// End a cordon.
    Uncordon(NodeOrderArguments),
    /// Have a node give up its partitions and workers in good order, and take part no more.
    ///
    /// Waits until that is done: give it the --timeout that it needs.
    Drain(NodeOrderArguments),
    /// Set the share of a node in rings and pools, as against those of others.
    Weight(WeightArguments),
    /// Give a node labels in rings and pools, or take them away.
    Label(LabelArguments),
    /// Watch the cluster through one of its members: who is there, what happens, how busy that member is.
    ///
    /// In a terminal a page that keeps itself up to date; otherwise a line per event, after one per member. Ends at
    /// SIGINT or SIGTERM, and with an error when the member does.
    Watch(WatchArguments),
    /// Show a cluster of Rust nodes and an Elixir node on this machine; ends by itself.
    ///
    /// Exits with an error if anything that it shows did not happen. Where Elixir is not installed it shows Rust
    /// nodes among themselves.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// The node's full name; the host as other nodes know it.
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cookie: CookieArguments,
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// The port to listen on; if not given the common one, or a free one.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The address to listen on: `::` is all of IPv6 and IPv4. If not given, what suits the host in the name: all of
    /// IPv4, for an IPv6 address `::`, and for a loopback address that alone.
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Option<IpAddr>,
    /// Stay connected to this node whenever it is there, and find the cluster through it; may be repeated.
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) join: Vec<String>,
    #[arg(long, value_name = "SPEC", help = "Look for nodes, and connect to those that are found; --help says where", long_help = discover::HELP)]
    pub(crate) discover: Vec<Discover>,
    /// Connect hidden: not in nodes(), not part of the mesh.
    #[arg(long)]
    pub(crate) hidden: bool,
    /// The identity that all members of the cluster share; nodes with another one refuse each other.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(crate) cluster: String,
    /// The nodes that vote on a leader, on keys, locks and strong names, separated by commas; the same on all members, also
    /// on those that do not vote. Without these or --expect the node takes no part in that.
    #[arg(long, value_name = "NAME@HOST,...", value_delimiter = ',')]
    pub(crate) voters: Vec<String>,
    /// Instead of --voters: the first so many nodes that see each other vote.
    #[arg(long, value_name = "N", conflicts_with = "voters")]
    pub(crate) expect: Option<usize>,
    /// Keep what this node voted and agreed to in this directory, of its own; if not given, in memory: then it is another
    /// member at each start.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Be a node only, no member of a cluster.
    #[arg(long, conflicts_with_all = ["cluster", "profile", "evict", "metadata", "capability", "voters", "expect", "data_dir"])]
    pub(crate) no_cluster: bool,
    /// How fast the cluster notices what happens; the same on all members.
    #[arg(long, value_enum, default_value_t = Profile::Lan)]
    pub(crate) profile: Profile,
    /// Whether a member that hangs is declared dead and disconnected at once, or stays a suspect until net ticks end its
    /// connection; if not given, on with --profile fast.
    #[arg(long, value_enum)]
    pub(crate) evict: Option<Switch>,
    /// What this node tells the others about itself, at most 512 bytes.
    #[arg(long, value_name = "TEXT")]
    pub(crate) metadata: Option<String>,
    /// Announce that this node can do something, as `Tiebeam.Capabilities` does; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: Vec<String>,
    /// Serve a status page, JSON at /status, metrics for Prometheus at /metrics, /health and /ready over HTTP; the port may be 0.
    /// Whoever reaches the address can read it.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// Host the services that conformance tests call.
    #[arg(long)]
    pub(crate) fixture: bool,
    /// After how many seconds of silence a peer is taken for dead; the same on all nodes of a cluster.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) net_ticktime: u32,
    /// Whether to become part of a full mesh and to share global names, as OTP's kernel parameter of this name.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) connect_all: bool,
    /// Whether a node that some nodes of a cluster cannot reach leaves it altogether; the same on all nodes of a
    /// cluster, as OTP's kernel parameter of this name.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) prevent_overlapping_partitions: bool,
    /// Look for the cluster again when the node has lost it, not only for the nodes given with --join.
    #[arg(long)]
    pub(crate) rejoin: bool,
    /// How nodes find one another by name; auto, but none with --common-port. The port of epmd is taken from
    /// ERL_EPMD_PORT (default: 4369).
    #[arg(long, value_enum)]
    pub(crate) epmd: Option<Epmd>,
    /// Refuse nodes that dial without a certificate, as OTP does with {verify, verify_peer} and {fail_if_no_peer_cert,
    /// true}; if not given, the cookie alone tells who they are.
    #[arg(long, requires = "tls_cert")]
    pub(crate) tls_require_client_cert: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PingArguments {
    /// The node to ask.
    #[arg(value_name = "NAME@HOST")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) cookie: CookieArguments,
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RpcArguments {
    /// The node to ask.
    #[arg(value_name = "NAME@HOST")]
    pub(crate) node: String,
    /// The module, as an Erlang atom without quotes: lists, Elixir.Enum.
    pub(crate) module: String,
    /// The function.
    pub(crate) function: String,
    /// The arguments: an Erlang list, such as '[1, {ok, <<"text">>}]'.
    #[arg(default_value = "[]")]
    pub(crate) args: String,
    #[command(flatten)]
    pub(crate) cookie: CookieArguments,
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// How many seconds to wait for the value.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,
}

/// Which member is asked, and how.
#[derive(Debug, Args)]
pub(crate) struct MemberArguments {
    /// The member to ask.
    #[arg(value_name = "NAME@HOST")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) cookie: CookieArguments,
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,
}

#[derive(Debug, Args)]
pub(crate) struct MembersArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// Print a JSON array of objects instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// Of this scope; for names, global is that of OTP's global.
    #[arg(long, value_name = "SCOPE", default_value = "default")]
    pub(crate) scope: String,
    /// Print a JSON array of objects instead of a table; terms are written in Erlang syntax.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StepDownArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// The voter that shall lead; if not given, the one that can take over first.
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) to: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is spread over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskKind {
    Ring,
    Pool,
}

impl std::fmt::Display for TaskKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Pool => "pool",
        })
    }
}

/// One ring or pool.
#[derive(Debug, Args)]
pub(crate) struct WhatArguments {
    /// Which of the two.
    #[arg(value_enum)]
    pub(crate) kind: TaskKind,
    /// Its name: the text of an atom or a binary, or any term in Erlang syntax.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RebalanceArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) what: WhatArguments,
    /// Print a JSON array of the nodes that were told.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    #[command(flatten)]
    pub(crate) what: WhatArguments,
    /// The number of the partition or the replica, from 0.
    pub(crate) slot: u32,
    /// Where it shall be.
    #[arg(long, value_name = "NAME@HOST")]
    pub(crate) to: String,
    /// Print a JSON array of the nodes that were told.
    #[arg(long)]
    pub(crate) json: bool,
}

/// An order to one node.
#[derive(Debug, Args)]
pub(crate) struct NodeOrderArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// In this ring only; if neither this nor --pool is given, in all rings and pools.
    #[arg(long, value_name = "NAME", conflicts_with = "pool")]
    pub(crate) ring: Option<String>,
    /// In this pool only.
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// Print a JSON array of the rings and pools of the node.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WeightArguments {
    #[command(flatten)]
    pub(crate) on: NodeOrderArguments,
    /// 1 to 1000; a node that says nothing has 100.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) weight: u32,
}

#[derive(Debug, Args)]
pub(crate) struct LabelArguments {
    #[command(flatten)]
    pub(crate) on: NodeOrderArguments,
    /// KEY=VALUE gives a label, KEY- takes it away.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, Option<String>)>,
}

fn label(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => match text.strip_suffix('-') {
            Some(key) => Ok((key.to_owned(), None)),
            None => Err("write KEY=VALUE, or KEY- to take it away".to_owned()),
        },
    }
}

#[derive(Debug, Args)]
pub(crate) struct KvArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// What to do.
    #[arg(value_enum)]
    pub(crate) action: KvAction,
    /// The key; for list, how keys begin (if not given, all).
    pub(crate) key: Option<String>,
    /// The value to put.
    pub(crate) value: Option<String>,
    /// The value is a term in Erlang syntax, not a text; what is read is shown as one, too.
    #[arg(long)]
    pub(crate) term: bool,
    /// Print JSON: objects with key, value (in Erlang syntax) and revision, in an array for list.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvAction {
    /// Give a key a value; prints its revision.
    Put,
    /// Print the value of a key; fails if there is none.
    Get,
    /// Remove a key; prints the revision.
    Delete,
    /// Print keys and values, in order.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    pub(crate) member: MemberArguments,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The compiled Elixir package (such as _build/dev/lib/tiebeam): with it the Elixir node is a member, too.
    #[arg(long, value_name = "DIR")]
    pub(crate) package: Option<PathBuf>,
}

/// The cluster's secret.
#[derive(Debug, Args)]
pub(crate) struct CookieArguments {
    /// The cookie itself; other users of this host can see it in the list of processes.
    #[arg(long, conflicts_with = "cookie_file")]
    cookie: Option<String>,
    /// A file that holds the cookie; ~/.erlang.cookie if neither is given.
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<PathBuf>,
}

impl CookieArguments {
    pub(crate) fn read(&self) -> Result<Cookie, Failure> {
        match (&self.cookie, &self.cookie_file) {
            (Some(text), _) if text.is_empty() => Err(Failure::new(
                "the cookie is empty: give one of at least one character",
            )),
            (Some(text), _) => Ok(Cookie::new(text)),
            (None, Some(path)) => Ok(Cookie::from_file(path)?),
            (None, None) => Cookie::from_home()
                .map_err(|error| Failure::new(format!("{error} (or use --cookie, --cookie-file)"))),
        }
    }
}

/// See [`EpmdMode`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Epmd {
    /// Use the epmd of this host; if none runs, be it.
    Auto,
    /// Use the epmd of this host; fail if none runs.
    Client,
    /// Be the epmd of this host; fail if one runs.
    Serve,
    /// No epmd: nodes are found by --address and --common-port.
    None,
}

impl From<Epmd> for EpmdMode {
    fn from(epmd: Epmd) -> Self {
        match epmd {
            Epmd::Auto => Self::Auto,
            Epmd::Client => Self::Client,
            Epmd::Serve => Self::Serve,
            Epmd::None => Self::None,
        }
    }
}

/// See [`ClusterConfig`]: its profiles.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Profile {
    /// One network: a node that hangs is noticed in about ten seconds.
    Lan,
    /// One network whose nodes do not pause for a second: a node that hangs is noticed in one to three seconds.
    Fast,
    /// Several networks: a node that hangs is noticed in about a minute.
    Wan,
}

impl From<Profile> for ClusterConfig {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Lan => Self::lan(),
            Profile::Fast => Self::fast(),
            Profile::Wan => Self::wan(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// A number of seconds from the command line.
pub(crate) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}
