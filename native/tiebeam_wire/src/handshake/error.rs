//! Why a handshake fails, and what the peer is told.

use std::fmt;

use super::{FrameTooLong, NameError, NodeName};

/// A handshake that failed because of what the peer sent. The socket must be closed, after
/// [`HandshakeError::farewell`] where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeError {
    /// A message is shorter than its fields.
    Truncated {
        /// The message that was expected.
        message: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A message with another tag than the expected one.
    Unexpected {
        /// The message that was expected.
        message: &'static str,
        /// The tag that came.
        tag: u8,
    },
    /// A length that no handshake message has.
    TooLong(FrameTooLong),
    /// The peer speaks version 5 of the handshake.
    OldVersion,
    /// The peer's name is none that OTP would take.
    Name(NameError),
    /// The peer calls itself by our own name.
    OwnName(NodeName),
    /// The node that answered has another name than the one that was dialled.
    OtherName {
        /// The name that was dialled.
        dialled: NodeName,
        /// The name that answered, with anything but printable ASCII escaped.
        answered: String,
    },
    /// The peer lacks flags that every node since OTP 25 has.
    MissingFlags {
        /// Who lacks them, with anything but printable ASCII escaped.
        peer: String,
        /// Their names.
        flags: Vec<&'static str>,
    },
    /// The peer asks for a node name, which this node does not give.
    DynamicName {
        /// The host it gave.
        host: String,
    },
    /// The peer answered `not_allowed`.
    NotAllowed {
        /// Who answered.
        peer: NodeName,
    },
    /// A status, or the reply to one, that is none of the protocol's.
    Status {
        /// The text, with anything but printable ASCII escaped.
        status: String,
    },
    /// The peer could not prove our cookie.
    Cookie {
        /// Who failed.
        peer: NodeName,
    },
}

impl HandshakeError {
    /// Body of the last message for the peer before the socket is closed; `None` where OTP closes without a word.
    pub fn farewell(&self) -> Option<&'static [u8]> {
        match self {
            HandshakeError::Name(NameError::Form { .. } | NameError::Character { .. })
            | HandshakeError::OwnName(_) => Some(b"snok"),
            HandshakeError::MissingFlags { .. } | HandshakeError::DynamicName { .. } => {
                Some(b"snot_allowed")
            }
            _ => None,
        }
    }
}

impl From<FrameTooLong> for HandshakeError {
    fn from(error: FrameTooLong) -> HandshakeError {
        HandshakeError::TooLong(error)
    }
}

impl From<NameError> for HandshakeError {
    fn from(error: NameError) -> HandshakeError {
        HandshakeError::Name(error)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Truncated { message, length } => {
                write!(f, "the peer's {message} is cut off after {length} bytes")
            }
            HandshakeError::Unexpected { message, tag } => write!(
                f,
                "a {message} was expected but the peer sent tag {tag} ('{}'): it does not speak Erlang distribution, or \
                 one side uses TLS and the other does not",
                tag.escape_ascii()
            ),
            HandshakeError::TooLong(error) => error.fmt(f),
            HandshakeError::OldVersion => f.write_str(
                "the peer speaks version 5 of the handshake: it must run OTP 25 or later, or a library that speaks \
                 version 6",
            ),
            HandshakeError::Name(error) => write!(f, "the peer's name is refused: {error}"),
            HandshakeError::OwnName(name) => write!(
                f,
                "the peer calls itself '{name}', which is this node's own name: give it another name"
            ),
            HandshakeError::OtherName { dialled, answered } => write!(
                f,
                "'{dialled}' was dialled but '{answered}' answered: the port belongs to another node; if '{dialled}' has a \
                 fixed address, correct it"
            ),
            HandshakeError::MissingFlags { peer, flags } => write!(
                f,
                "'{peer}' lacks mandatory flags ({}): it must run OTP 25 or later, or a library that offers them",
                flags.join(", ")
            ),
            HandshakeError::DynamicName { host } => write!(
                f,
                "a peer at '{host}' asks for a node name, which this node does not give: start it with a name of its own"
            ),
            HandshakeError::NotAllowed { peer } => write!(
                f,
                "'{peer}' answered not_allowed: its allow list (net_kernel:allow/1) does not contain this node, or it \
                 demands flags that this node does not offer; its log says which"
            ),
            HandshakeError::Status { status } => {
                write!(f, "the peer sent '{status}', which is no status of the handshake")
            }
            HandshakeError::Cookie { peer } => write!(
                f,
                "'{peer}' has another cookie: give both nodes the same one (erl -setcookie, ~/.erlang.cookie)"
            ),
        }
    }
}

impl std::error::Error for HandshakeError {}
