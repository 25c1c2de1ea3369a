//! Why there is no node, or no connection, and what to do about it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_wire::epmd::VERSION;
use tiebeam_wire::handshake::{NameError, NodeName};

use super::HandshakeFailure;
use crate::epmd::EpmdError;
use crate::tls::TlsError;

/// Why a node could not start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StartError {
    /// Not a node name.
    Name(NameError),
    /// The system does not let it listen.
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// All ports it may use are taken.
    PortsInUse {
        /// The address.
        ip: IpAddr,
        /// The ports.
        ports: RangeInclusive<u16>,
    },
    /// It could not register with epmd.
    Epmd(EpmdError),
    /// It cannot use TLS as it is told to.
    Tls(TlsError),
}

/// Why there is no connection to a peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not a node name.
    Name(NameError),
    /// The node's own name.
    OwnName(NodeName),
    /// One of the two nodes has a short and the other a long name.
    NameForm {
        /// The peer.
        peer: NodeName,
        /// This node.
        own: NodeName,
    },
    /// The host of the peer has no address.
    Host {
        /// The peer.
        peer: NodeName,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// There is no epmd, and neither the peer's address nor a common port was given.
    NoAddress(NodeName),
    /// The epmd of the peer's host could not be asked.
    Epmd {
        /// The peer.
        peer: NodeName,
        /// What went wrong.
        source: EpmdError,
    },
    /// The epmd of the peer's host does not know it.
    NotRegistered {
        /// The peer.
        peer: NodeName,
        /// Who was asked.
        epmd: SocketAddr,
    },
    /// The peer speaks other versions of the distribution protocol.
    Version {
        /// The peer.
        peer: NodeName,
        /// Its lowest version.
        lowest: u16,
        /// Its highest version.
        highest: u16,
    },
    /// Nobody listens where the peer should.
    Unreachable {
        /// The peer.
        peer: NodeName,
        /// Where it was expected.
        address: SocketAddr,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The peer answered `nok`, because it was dialling this node, but its connection did not come.
    Nok {
        /// The peer.
        peer: NodeName,
        /// How long its connection was awaited.
        waited: Duration,
    },
    /// The handshake did not come to its end.
    Handshake {
        /// The peer.
        peer: String,
        /// What went wrong.
        failure: HandshakeFailure,
    },
    /// This node is shutting down.
    Stopped,
}

impl From<EpmdError> for StartError {
    fn from(error: EpmdError) -> StartError {
        StartError::Epmd(error)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> StartError {
        StartError::Tls(error)
    }
}

impl From<NameError> for ConnectError {
    fn from(error: NameError) -> ConnectError {
        ConnectError::Name(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Name(error) => error.fmt(f),
            StartError::Listen { address, source } => write!(
                f,
                "cannot listen at {address} ({source}): choose an address of this host and a port that this user may open"
            ),
            StartError::PortsInUse { ip, ports } if ports.start() == ports.end() => write!(
                f,
                "port {} of {ip} is in use: stop who has it or choose another port",
                ports.start()
            ),
            StartError::PortsInUse { ip, ports } => write!(
                f,
                "all ports from {} to {} of {ip} are in use: free one or widen the range",
                ports.start(),
                ports.end()
            ),
            StartError::Epmd(error) => error.fmt(f),
            StartError::Tls(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Name(error) => error.fmt(f),
            ConnectError::OwnName(name) => write!(f, "'{name}' is this node itself"),
            ConnectError::NameForm { peer, own } => write!(
                f,
                "'{peer}' has a {} name and this node, '{own}', a {} one: all nodes of a cluster must have host names of \
                 one kind, with dots (erl -name) or without (erl -sname)",
                peer.form(),
                own.form()
            ),
            ConnectError::Host { peer, source } => write!(
                f,
                "the host '{}' of '{peer}' does not resolve ({source}): correct the name, or add the host to DNS or \
                 /etc/hosts",
                peer.host()
            ),
            ConnectError::NoAddress(peer) => write!(
                f,
                "there is no epmd to ask where '{peer}' listens: give its address or the port that all nodes share, or use \
                 epmd"
            ),
            ConnectError::Epmd { peer, source } => write!(f, "cannot look up '{peer}': {source}"),
            ConnectError::NotRegistered { peer, epmd } => write!(
                f,
                "the epmd at {epmd} knows no node '{}': start '{peer}', or check its name",
                peer.alive()
            ),
            ConnectError::Version {
                peer,
                lowest,
                highest,
            } => write!(
                f,
                "'{peer}' speaks versions {lowest} to {highest} of the distribution protocol and this node version \
                 {VERSION}: it must run OTP 23 or later"
            ),
            ConnectError::Unreachable {
                peer,
                address,
                source,
            } => write!(
                f,
                "'{peer}' should listen at {address} but does not answer ({source}): it may have just ended, or a firewall \
                 is between"
            ),
            ConnectError::Nok { peer, waited } => write!(
                f,
                "'{peer}' wanted to connect by itself but did not within {:.1} s: check that it reaches this host, then try \
                 again",
                waited.as_secs_f64()
            ),
            ConnectError::Handshake { peer, failure } => {
                write!(f, "no connection to '{peer}': {failure}")
            }
            ConnectError::Stopped => f.write_str("this node is shutting down"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Name(source) => Some(source),
            StartError::Listen { source, .. } => Some(source),
            StartError::Epmd(source) => Some(source),
            StartError::Tls(source) => Some(source),
            StartError::PortsInUse { .. } => None,
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::Name(source) => Some(source),
            ConnectError::Host { source, .. } | ConnectError::Unreachable { source, .. } => {
                Some(source)
            }
            ConnectError::Epmd { source, .. } => Some(source),
            ConnectError::Handshake { failure, .. } => Some(failure),
            _ => None,
        }
    }
}
