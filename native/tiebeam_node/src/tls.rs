//! Connections inside TLS, as `erl -proto_dist inet_tls` has them.
//!
//! Source: OTP manual, *Secure Socket Layer User's Guide*, "Erlang Distribution over TLS"; `inet_tls_dist.erl`.
//! A node is server and client: it shows one certificate in both roles. TLS 1.2 and 1.3 are spoken.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod rustls;

use std::fmt;
use std::io;
use std::path::PathBuf;

#[cfg(not(feature = "tls"))]
pub(crate) use absent::{Tls, TlsStream};
#[cfg(feature = "tls")]
pub(crate) use rustls::{Tls, TlsStream};

/// TLS for all connections of a node, with the crate's feature `tls`. All nodes of a cluster use it, or none.
///
/// The files are PEM, and are read when the node starts. A peer that is dialled is always verified: whoever stood between
/// two nodes unseen could pass on the handshake of the cookie, and then read and write what it likes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The authorities that sign the certificates of peers.
    pub ca: PathBuf,
    /// The certificate of this node, followed by the intermediate ones, and its key. A node without one can dial peers
    /// that do not ask for it, and cannot be dialled: enough for [`EpmdMode::LookUpOnly`](crate::EpmdMode::LookUpOnly).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Peers that dial must show a certificate, too. As with OTP's `{verify, verify_peer}, {fail_if_no_peer_cert,
    /// true}` of a server. Without it they are not asked, and only the cookie tells who they are. Default false.
    pub require_client_certificate: bool,
    /// The certificate of a peer that is dialled must be made out for the host in the peer's name: in a subject
    /// alternative name, as `DNS` for a host name and as `IP` for an address. (OTP looks for an address under `DNS` as
    /// well: nodes of both kinds on such a host need it twice.) Default true, as OTP checks with `{verify, verify_peer}`
    /// of a client. The certificate of a peer that dials proves membership, not a name: the name it gives itself is not
    /// looked for in it, nor is it by OTP.
    pub verify_host: bool,
}

impl TlsConfig {
    /// Trusts these authorities, and shows no certificate.
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self {
            ca: ca.into(),
            identity: None,
            require_client_certificate: false,
            verify_host: true,
        }
    }

    /// Shows this certificate.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Asks peers that dial for a certificate, or not.
    pub fn require_client_certificate(mut self, require: bool) -> Self {
        self.require_client_certificate = require;
        self
    }

    /// Looks for the host's name in the certificate of a peer that is dialled, or not.
    pub fn verify_host(mut self, verify: bool) -> Self {
        self.verify_host = verify;
        self
    }
}

/// Why a node cannot use TLS as it is told to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// This crate was built without TLS.
    NotBuilt,
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file has nothing of what it should have.
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A certificate in the file of authorities is none of an authority.
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate and the key are unusable, or do not belong together.
    Identity {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// Peers find this node by name and will dial it, but it has no certificate to show.
    NoIdentity,
}

/// Why there is no TLS with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The peer's certificate is not good enough for this node.
    Certificate(String),
    /// The peer ends it with this alert.
    Alert(String),
    /// What the peer sends is no TLS.
    NotTls,
    /// The peer ends it without a word, as a node that does not use TLS does.
    Closed,
    /// The host in the peer's name can stand in no certificate.
    Host(String),
    /// The two cannot agree, or the peer makes a mistake.
    Protocol(String),
}

impl TlsFailure {
    /// What TLS has to say in an error of a stream; `None` if it is the stream's own. In TLS 1.3 a client learns that
    /// its certificate is refused when it reads for the first time, so any read may fail for such a reason.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        let own = error.get_ref()?.downcast_ref::<Self>();
        own.cloned().or_else(|| Tls::failure(error))
    }
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        Self::other(failure)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str(
                "this program was built without TLS: build it with the feature `tls` of tiebeam_node",
            ),
            Self::Read { path, reason } => {
                write!(f, "cannot read the PEM file {}: {reason}", path.display())
            }
            Self::Empty { path, wanted } => write!(
                f,
                "{} holds no {wanted}: it must be a PEM file with a section of that kind",
                path.display()
            ),
            Self::Authority { path, reason } => write!(
                f,
                "{} must hold certificates of authorities: {reason}",
                path.display()
            ),
            Self::Identity {
                certificate,
                key,
                reason,
            } => write!(
                f,
                "the certificate in {} cannot be used with the key in {}: {reason}",
                certificate.display(),
                key.display()
            ),
            Self::NoIdentity => f.write_str(
                "a node that others dial over TLS needs a certificate and a key: give it both",
            ),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(reason) => {
                write!(f, "the peer's certificate is refused: {reason}")
            }
            Self::Alert(alert) => write!(f, "the peer refuses TLS with this node: {alert}"),
            Self::NotTls => f.write_str(
                "the peer does not speak TLS and this node does: all nodes of a cluster use it (erl -proto_dist \
                 inet_tls), or none",
            ),
            Self::Closed => f.write_str(
                "the peer ended the TLS handshake without a word: it may not use TLS, and all nodes of a cluster do \
                 (erl -proto_dist inet_tls), or none",
            ),
            Self::Host(host) => write!(
                f,
                "'{host}' is no host name that a certificate can hold: name the node by its host's name or address"
            ),
            Self::Protocol(reason) => write!(f, "TLS with the peer failed: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {}
impl std::error::Error for TlsFailure {}
