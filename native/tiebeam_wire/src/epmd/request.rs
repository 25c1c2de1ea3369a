//! What nodes and tools ask epmd.

use std::fmt;

use super::{Fields, KIND_HIDDEN, KIND_VISIBLE, MAX_NAME, MAX_REQUEST, VERSION};

/// A node as epmd knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name without `@` and host. epmd does not look at its characters.
    pub name: Vec<u8>,
    /// Where the node listens.
    pub port: u16,
    /// [`KIND_VISIBLE`], [`KIND_HIDDEN`], or what a library made up.
    pub kind: u8,
    /// 0: TCP over IPv4.
    pub protocol: u8,
    /// Highest version of the distribution protocol.
    pub highest: u16,
    /// Lowest version of the distribution protocol.
    pub lowest: u16,
    /// Anything; given back as it is.
    pub extra: Vec<u8>,
}

/// A request to epmd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// ALIVE2_REQ: registers a node for as long as the socket is open.
    Alive2(Entry),
    /// PORT_PLEASE2_REQ: where does the node of this name listen?
    PortPlease2(Vec<u8>),
    /// NAMES_REQ: names and ports of all nodes.
    Names,
    /// DUMP_REQ: the same with former names, for people.
    Dump,
    /// KILL_REQ: epmd shall exit.
    Kill,
    /// STOP_REQ: the node of this name shall be forgotten.
    Stop(Vec<u8>),
}

/// A request that epmd answers by closing the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// An empty request.
    Empty,
    /// A request longer than [`MAX_REQUEST`].
    TooLong {
        /// The length announced, in bytes.
        length: usize,
    },
    /// A request that ends inside a field.
    Truncated {
        /// Its tag.
        tag: u8,
    },
    /// No request has this tag.
    Unknown {
        /// The tag.
        tag: u8,
    },
}

impl Entry {
    /// A node of this crate's version.
    ///
    /// # Panics
    ///
    /// If `name` is longer than [`MAX_NAME`] bytes; a [`NodeName`](crate::handshake::NodeName) is not.
    pub fn new(name: &str, port: u16, hidden: bool) -> Entry {
        assert!(name.len() <= MAX_NAME, "name of {} bytes", name.len());
        Entry {
            name: name.as_bytes().to_vec(),
            port,
            kind: if hidden { KIND_HIDDEN } else { KIND_VISIBLE },
            protocol: 0,
            highest: VERSION,
            lowest: VERSION,
            extra: Vec::new(),
        }
    }

    /// Whether this crate and the node share a version of the protocol.
    pub fn is_compatible(&self) -> bool {
        (self.lowest..=self.highest).contains(&VERSION)
    }

    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.port.to_be_bytes());
        out.push(self.kind);
        out.push(self.protocol);
        out.extend_from_slice(&self.highest.to_be_bytes());
        out.extend_from_slice(&self.lowest.to_be_bytes());
        for field in [&self.name, &self.extra] {
            out.extend_from_slice(&(field.len() as u16).to_be_bytes());
            out.extend_from_slice(field);
        }
    }
}

impl Request {
    /// The request with its length before it, ready to be written.
    ///
    /// # Panics
    ///
    /// If the request is longer than [`MAX_REQUEST`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        match self {
            Request::Alive2(entry) => {
                out.push(b'x');
                entry.encode_into(&mut out);
            }
            Request::PortPlease2(name) => {
                out.push(b'z');
                out.extend_from_slice(name);
            }
            Request::Names => out.push(b'n'),
            Request::Dump => out.push(b'd'),
            Request::Kill => out.push(b'k'),
            Request::Stop(name) => {
                out.push(b's');
                out.extend_from_slice(name);
            }
        }
        let length = out.len() - 2;
        assert!(length <= MAX_REQUEST, "request of {length} bytes");
        out[..2].copy_from_slice(&(length as u16).to_be_bytes());
        out
    }

    /// The length of a request body from the two bytes before it, if epmd takes a request of that length.
    pub fn length(prefix: [u8; 2]) -> Result<usize, RequestError> {
        match usize::from(u16::from_be_bytes(prefix)) {
            0 => Err(RequestError::Empty),
            length if length > MAX_REQUEST => Err(RequestError::TooLong { length }),
            length => Ok(length),
        }
    }

    /// Reads a request body, the bytes after the length.
    pub fn decode(body: &[u8]) -> Result<Request, RequestError> {
        let (&tag, rest) = body.split_first().ok_or(RequestError::Empty)?;
        match tag {
            b'x' => Fields(rest)
                .entry()
                .map(Request::Alive2)
                .ok_or(RequestError::Truncated { tag }),
            b'z' => Ok(Request::PortPlease2(rest.to_vec())),
            b'n' => Ok(Request::Names),
            b'd' => Ok(Request::Dump),
            b'k' => Ok(Request::Kill),
            b's' => Ok(Request::Stop(rest.to_vec())),
            tag => Err(RequestError::Unknown { tag }),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Empty => f.write_str("an empty epmd request"),
            RequestError::TooLong { length } => write!(
                f,
                "an epmd request of {length} bytes, the limit is {MAX_REQUEST}"
            ),
            RequestError::Truncated { tag } => write!(
                f,
                "an epmd request '{}' that ends inside a field",
                tag.escape_ascii()
            ),
            RequestError::Unknown { tag } => write!(
                f,
                "an epmd request with the unknown tag '{}'",
                tag.escape_ascii()
            ),
        }
    }
}

impl std::error::Error for RequestError {}
