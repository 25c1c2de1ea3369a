//! What a node needs to know before it starts.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiebeam_wire::flags::Flags;
use tiebeam_wire::handshake::NodeName;

use crate::epmd::EpmdMode;
use crate::tls::TlsConfig;
use crate::transport::{
    MAX_UNAUTHENTICATED, MAX_UNAUTHENTICATED_PER_ADDRESS, SETUP_TIME, StartError, TransportConfig,
};

/// The shared secret of a cluster. Whoever knows it may do anything to every node.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(String);

impl Cookie {
    /// A cookie with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads `~/.erlang.cookie`, then `erlang/.erlang.cookie` in the XDG configuration directory, as OTP does.
    pub fn from_home() -> Result<Self, CookieError> {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .ok_or(CookieError::NoHome)?;
        let xdg =
            std::env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        let places = [
            home.join(".erlang.cookie"),
            xdg.join("erlang/.erlang.cookie"),
        ];
        match places.iter().find(|path| path.exists()) {
            Some(path) => Self::from_file(path),
            None => Err(CookieError::NotFound {
                places: places.to_vec(),
            }),
        }
    }

    /// Reads a cookie file: its text without the blanks and line ends that follow it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, CookieError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| CookieError::Read {
            path: path.to_owned(),
            reason: source.to_string(),
        })?;
        let text = text.trim_end_matches(['\n', '\r', ' ']);
        if text.is_empty() || text.chars().any(|c| !(' '..='~').contains(&c)) {
            return Err(CookieError::Characters {
                path: path.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Does not print the secret.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Why no cookie could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CookieError {
    /// The variable HOME is not set.
    NoHome,
    /// There is no cookie file.
    NotFound {
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file is empty, or has characters other than blank to tilde.
    Characters {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => write!(
                f,
                "HOME is not set: give the cookie or the path of a cookie file"
            ),
            Self::NotFound { places } => {
                write!(
                    f,
                    "no cookie: give one, or write it to {}",
                    places[0].display()
                )
            }
            Self::Read { path, reason } => write!(
                f,
                "cannot read the cookie file {}: {reason}",
                path.display()
            ),
            Self::Characters { path } => {
                write!(
                    f,
                    "the cookie file {} must hold one line of printable ASCII characters",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for CookieError {}

/// Settings of a node. [`Config::new`] has defaults for all but the name and the cookie.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The full name, `alive@host`. The host must be what other nodes can resolve, in the cluster's convention
    /// (short or long names).
    pub name: String,
    /// The secret that peers must prove to know.
    pub cookie: Cookie,
    /// Secrets for certain peers, by node name.
    pub cookies: HashMap<String, Cookie>,
    /// Connect hidden: not in `nodes()`, not part of the mesh. Default false.
    pub hidden: bool,
    /// The address to listen on. Default all of IPv4; `::` is all of IPv6, and of IPv4 where the system allows it. A
    /// host that has addresses of both families is dialled at those of this family first.
    pub listen: IpAddr,
    /// The port to listen on; 0 takes a free one (the default).
    pub port: u16,
    /// How the node is found by name. Default [`EpmdMode::Auto`].
    pub epmd: EpmdMode,
    /// The port of epmd. Default: the variable `ERL_EPMD_PORT`, else 4369.
    pub epmd_port: u16,
    /// Addresses of peers that are not asked for at an epmd, by node name.
    pub addresses: HashMap<String, SocketAddr>,
    /// The port of all other peers, which are then not asked for at an epmd either: as `erl -erl_epmd_port`.
    /// Default none.
    pub common_port: Option<u16>,
    /// Use TLS for all connections. Default none: plain TCP.
    pub tls: Option<TlsConfig>,
    /// After how long without a byte a peer is taken for dead. All nodes of a cluster must agree.
    /// Default 60 s, as OTP's `net_ticktime`.
    pub net_ticktime: Duration,
    /// Whether the node becomes part of a full mesh: connects with all nodes of the clusters that it meets, and shares
    /// their global names. Default true, as OTP's kernel parameter of this name.
    pub connect_all: bool,
    /// Whether a node that some nodes of a cluster cannot reach leaves it altogether, so that partitions do not overlap.
    /// All nodes of a cluster must agree. Default true, as OTP's kernel parameter of this name.
    pub prevent_overlapping_partitions: bool,
    /// Whether to look for the cluster again once this node is alone, after 1 to 30 s, for an hour; nodes that BEAM nodes
    /// have removed stay away otherwise, unless [`Node::keep_connected`](crate::Node::keep_connected) says where
    /// the cluster is. Default false.
    pub rejoin: bool,
    /// Bounds of this node; see [`Limits`].
    pub limits: Limits,
}

/// Bounds of a node, each with its reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Signals that may wait in one mailbox. A process that falls further behind dies with the reason
    /// `mailbox_full`: links and monitors see it, while a dropped signal would be seen by nobody. A million small
    /// messages are some 100 MB. Default 1,048,576.
    pub mailbox: usize,
    /// Bytes that may wait to be written to one peer before an asynchronous sender is held back: the BEAM's `+zdbbl`.
    /// Default 1 MiB.
    pub send_buffer: usize,
    /// Bytes that may wait before a send fails with [`SendError::Busy`](crate::SendError::Busy). Signals that cannot
    /// fail (exits, downs, acknowledgements) may go to twice this; then the peer is not reading, and is closed.
    /// Default 128 MiB: two of the largest messages that people send.
    pub send_queue: usize,
    /// Signals kept for a peer while a connection to it is set up, as long as their size stays below
    /// [`Limits::send_queue`]. Those that end a link or a monitor may go to twice this, so that none is lost whose
    /// beginning was kept. Default 10,000.
    pub connecting: usize,
    /// Links and monitors that others may hold on one process: each takes some 200 bytes, and the peer pays nothing. One
    /// more is answered as if the process had ended, with the reason `system_limit`. Default 1,048,576.
    pub relations: usize,
    /// Processes at one time. Default 262,144, as the BEAM's.
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox: 1 << 20,
            send_buffer: 1 << 20,
            send_queue: 128 << 20,
            connecting: 10_000,
            relations: 1 << 20,
            processes: 262_144,
        }
    }
}

impl Config {
    /// Settings with defaults.
    pub fn new(name: impl Into<String>, cookie: Cookie) -> Self {
        Self {
            name: name.into(),
            cookie,
            cookies: HashMap::new(),
            hidden: false,
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
            epmd: EpmdMode::Auto,
            epmd_port: default_epmd_port(),
            addresses: HashMap::new(),
            common_port: None,
            tls: None,
            net_ticktime: Duration::from_secs(60),
            connect_all: true,
            prevent_overlapping_partitions: true,
            rejoin: false,
            limits: Limits::default(),
        }
    }

    /// Connects hidden, or visible.
    pub fn hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }

    /// Listens on this port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Listens on this address.
    pub fn listen(mut self, address: IpAddr) -> Self {
        self.listen = address;
        self
    }

    /// Finds and is found in this way, at this port.
    pub fn epmd(mut self, mode: EpmdMode, port: u16) -> Self {
        self.epmd = mode;
        self.epmd_port = port;
        self
    }

    /// Knows where a peer listens, so that no epmd is asked for it.
    pub fn address(mut self, peer: impl Into<String>, address: SocketAddr) -> Self {
        self.addresses.insert(peer.into(), address);
        self
    }

    /// Listens on this port, takes all peers to listen on it, too, and uses no epmd: as `erl -erl_epmd_port`.
    pub fn common_port(mut self, port: u16) -> Self {
        self.port = port;
        self.common_port = Some(port);
        self.epmd = EpmdMode::None;
        self
    }

    /// Puts all connections inside TLS.
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Becomes part of a full mesh, or connects only where it is told to.
    pub fn connect_all(mut self, connect_all: bool) -> Self {
        self.connect_all = connect_all;
        self
    }

    /// Keeps partitions from overlapping, or lets them.
    pub fn prevent_overlapping_partitions(mut self, prevent: bool) -> Self {
        self.prevent_overlapping_partitions = prevent;
        self
    }

    /// Looks for a cluster that it has lost, or stays alone.
    pub fn rejoin(mut self, rejoin: bool) -> Self {
        self.rejoin = rejoin;
        self
    }

    /// Takes a silent peer for dead after this long.
    pub fn net_ticktime(mut self, time: Duration) -> Self {
        self.net_ticktime = time;
        self
    }
}

impl Config {
    /// What `global` needs of it.
    pub(crate) fn global(&self) -> crate::kernel::global::Options {
        crate::kernel::global::Options {
            connect_all: self.connect_all,
            prevent_overlapping_partitions: self.prevent_overlapping_partitions,
            rejoin: self.rejoin,
        }
    }

    /// What the transport needs of it.
    pub(crate) fn transport(&self) -> Result<TransportConfig, StartError> {
        let name = NodeName::parse(&self.name).map_err(StartError::Name)?;
        let cookies = self
            .cookies
            .iter()
            .map(|(peer, cookie)| (peer.clone(), cookie.as_str().to_owned()));
        Ok(TransportConfig {
            name,
            cookie: self.cookie.as_str().to_owned(),
            peer_cookies: cookies.collect(),
            flags: if self.hidden {
                Flags::OFFERED_HIDDEN
            } else {
                Flags::OFFERED
            },
            listen: self.listen,
            ports: self.port..=self.port,
            epmd: self.epmd,
            epmd_port: self.epmd_port,
            addresses: self.addresses.clone(),
            common_port: self.common_port,
            tls: self.tls.clone(),
            setup_time: SETUP_TIME,
            max_unauthenticated: MAX_UNAUTHENTICATED,
            max_unauthenticated_per_address: MAX_UNAUTHENTICATED_PER_ADDRESS,
        })
    }
}

/// The port of epmd: `ERL_EPMD_PORT` if it is set to one, else 4369.
pub fn default_epmd_port() -> u16 {
    std::env::var("ERL_EPMD_PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(4369)
}
