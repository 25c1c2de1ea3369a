//! What epmd answers.

use std::fmt;

use super::{Entry, Fields, MAX_RESPONSE};

/// Result byte of a registration that failed; epmd gives no other reason than a name that is taken.
pub const RESULT_ERROR: u8 = 1;

/// ALIVE2_X_RESP or ALIVE2_RESP: the answer to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive2Response {
    /// Registered. The creation has 16 bits if epmd is older than OTP 23.
    Ok {
        /// What tells this node from earlier ones of the same name.
        creation: u32,
    },
    /// Not registered: the name is taken.
    Error {
        /// The result byte.
        result: u8,
    },
}

/// PORT2_RESP: the answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortResponse {
    /// The node.
    Found(Entry),
    /// No node of that name is registered.
    Unknown,
}

/// The answer to NAMES_REQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesResponse {
    /// The port that epmd itself serves.
    pub epmd_port: u32,
    /// The nodes, in epmd's order.
    pub nodes: Vec<NameAndPort>,
}

/// One line of the answer to NAMES_REQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAndPort {
    /// The name without `@` and host; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Where the node listens.
    pub port: u16,
}

/// An answer that epmd never gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseError {
    /// The stream ended inside the answer.
    Truncated {
        /// Bytes received.
        length: usize,
    },
    /// The answer begins with another byte.
    Unexpected {
        /// The byte.
        tag: u8,
    },
    /// The answer is longer than [`MAX_RESPONSE`].
    TooLong,
    /// A line of the answer to NAMES_REQ has another form.
    Line {
        /// The line, with anything but printable ASCII escaped.
        line: String,
    },
}

impl Alive2Response {
    /// The answer with 32 bits of creation if the node's `highest` version is 6 or later, else with 16.
    pub fn encode(self, highest: u16) -> Vec<u8> {
        // 99 is what OTP's epmd sends in place of a creation.
        let (result, creation) = match self {
            Alive2Response::Ok { creation } => (0, creation),
            Alive2Response::Error { result } => (result, 99),
        };
        let mut out = Vec::with_capacity(6);
        if highest >= 6 {
            out.extend_from_slice(&[b'v', result]);
            out.extend_from_slice(&creation.to_be_bytes());
        } else {
            out.extend_from_slice(&[b'y', result]);
            out.extend_from_slice(&(creation as u16).to_be_bytes());
        }
        out
    }

    /// Reads the answer from what was received so far; `None` until it is complete. The stream stays open after it.
    pub fn decode(received: &[u8]) -> Result<Option<Alive2Response>, ResponseError> {
        let mut fields = Fields(received);
        let Some(tag) = fields.u8() else {
            return Ok(None);
        };
        let result = fields.u8();
        let creation = match tag {
            b'v' => fields.u32(),
            b'y' => fields.u16().map(u32::from),
            tag => return Err(ResponseError::Unexpected { tag }),
        };
        Ok(match (result, creation) {
            (Some(0), Some(creation)) => Some(Alive2Response::Ok { creation }),
            (Some(result), Some(_)) => Some(Alive2Response::Error { result }),
            _ => None,
        })
    }
}

impl PortResponse {
    /// The answer, after which the stream ends.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            PortResponse::Found(entry) => {
                let mut out = vec![b'w', 0];
                entry.encode_into(&mut out);
                out
            }
            PortResponse::Unknown => vec![b'w', RESULT_ERROR],
        }
    }

    /// Reads the whole answer, after the stream has ended.
    pub fn decode(received: &[u8]) -> Result<PortResponse, ResponseError> {
        let truncated = ResponseError::Truncated {
            length: received.len(),
        };
        match received {
            [b'w', 0, entry @ ..] => Fields(entry)
                .entry()
                .map(PortResponse::Found)
                .ok_or(truncated),
            [b'w', _, ..] => Ok(PortResponse::Unknown),
            [] | [b'w'] => Err(truncated),
            [tag, ..] => Err(ResponseError::Unexpected { tag: *tag }),
        }
    }
}

impl NamesResponse {
    /// Reads the whole answer, after the stream has ended.
    pub fn decode(received: &[u8]) -> Result<NamesResponse, ResponseError> {
        if received.len() > MAX_RESPONSE {
            return Err(ResponseError::TooLong);
        }
        let mut fields = Fields(received);
        let epmd_port = fields.u32().ok_or(ResponseError::Truncated {
            length: received.len(),
        })?;
        let nodes = fields
            .0
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                name_and_port(line).ok_or_else(|| ResponseError::Line {
                    line: line.escape_ascii().to_string(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(NamesResponse { epmd_port, nodes })
    }
}

/// `name NAME at port PORT`; a name may contain spaces, because epmd takes any bytes.
fn name_and_port(line: &[u8]) -> Option<NameAndPort> {
    let line = String::from_utf8_lossy(line);
    let (name, port) = line.strip_prefix("name ")?.rsplit_once(" at port ")?;
    Some(NameAndPort {
        name: name.to_owned(),
        port: port.trim_end().parse().ok()?,
    })
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::Truncated { length } => {
                write!(f, "the answer ended after {length} bytes")
            }
            ResponseError::Unexpected { tag } => write!(
                f,
                "the answer begins with '{}': another program than epmd serves this port",
                tag.escape_ascii()
            ),
            ResponseError::TooLong => write!(
                f,
                "the answer is longer than {MAX_RESPONSE} bytes: another program than epmd serves this port"
            ),
            ResponseError::Line { line } => write!(
                f,
                "the answer has the line '{line}': another program than epmd serves this port"
            ),
        }
    }
}

impl std::error::Error for ResponseError {}
