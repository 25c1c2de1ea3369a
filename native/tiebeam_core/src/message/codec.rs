//! Messages in bytes.
//!
//! ```text
//! message  = version:8 (1)  tag:8  body                    integers are unsigned, big-endian
//! body     tag 1  Hello      hello
//!          tag 2  Welcome    hello
//!          tag 3  Refused    text (cluster)
//!          tag 4  Leave      identity
//!
//! hello    = text (cluster)  identity (sender)  kind:8  held  count:8  count × text (node name)
//! identity = text (node name)  creation:32  incarnation:64
//! kind     = 0 beam | 1 rust
//! held     = 0:8 | 1:8  creation:32  incarnation:64  status:8
//! status   = 0 alive | 1 suspect | 2 dead | 3 left
//! text     = length:16  UTF-8
//! ```
//!
//! Tags and numbers are append-only: a number, once given, keeps its meaning. A message ends where its body ends; bytes
//! behind it are refused, so that what an older node would misread needs a new tag.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Held, Hello, Message};
use crate::config::MAX_CLUSTER_BYTES;
use crate::identity::{Identity, MAX_NODE_NAME_BYTES, NodeName};
use crate::membership::{Kind, Status};

const VERSION: u8 = 1;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const LEAVE: u8 = 4;

/// The most names in one hello: a large cluster is learnt over several, and no message keeps a connection busy for long.
pub(crate) const MAX_LISTED: usize = 64;

/// The most bytes in a message. The largest hello has 64 names of the greatest length, 33 KB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    match message {
        Message::Hello(hello) => {
            out.push(HELLO);
            put_hello(&mut out, hello);
        }
        Message::Welcome(hello) => {
            out.push(WELCOME);
            put_hello(&mut out, hello);
        }
        Message::Refused { cluster } => {
            out.push(REFUSED);
            put_text(&mut out, cluster);
        }
        Message::Leave(identity) => {
            out.push(LEAVE);
            put_identity(&mut out, identity);
        }
    }
    debug_assert!(
        out.len() <= MAX_MESSAGE_BYTES,
        "no message outgrows what decode accepts"
    );
    out
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_text(out, &hello.cluster);
    put_identity(out, &hello.sender);
    out.push(match hello.kind {
        Kind::Beam => 0,
        Kind::Rust => 1,
    });
    match hello.held {
        None => out.push(0),
        Some(held) => {
            out.push(1);
            out.extend_from_slice(&held.creation.to_be_bytes());
            out.extend_from_slice(&held.incarnation.to_be_bytes());
            out.push(match held.status {
                Status::Alive => 0,
                Status::Suspect => 1,
                Status::Dead => 2,
                Status::Left => 3,
            });
        }
    }
    let listed = &hello.listed[..hello.listed.len().min(MAX_LISTED)];
    out.push(listed.len() as u8);
    for name in listed {
        put_text(out, name.as_str());
    }
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    put_text(out, identity.node.as_str());
    out.extend_from_slice(&identity.creation.to_be_bytes());
    out.extend_from_slice(&identity.incarnation.to_be_bytes());
}

/// Node names and cluster identities are checked when they are made; both fit a length of 16 bits.
fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= MAX_NODE_NAME_BYTES);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads one message that is all of `bytes`. Allocates at most a small multiple of their length.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError {
            what: What::TooLong { bytes: bytes.len() },
            at: 0,
        });
    }
    let mut input = Input { bytes, at: 0 };
    let version = input.byte()?;
    if version != VERSION {
        return Err(DecodeError {
            what: What::Version(version),
            at: 0,
        });
    }
    let message = match input.byte()? {
        HELLO => Message::Hello(input.hello()?),
        WELCOME => Message::Welcome(input.hello()?),
        REFUSED => Message::Refused {
            cluster: input.cluster()?,
        },
        LEAVE => Message::Leave(input.identity()?),
        tag => {
            return Err(DecodeError {
                what: What::Unknown {
                    field: "tag",
                    value: tag,
                },
                at: 1,
            });
        }
    };
    if input.at < bytes.len() {
        return Err(DecodeError {
            what: What::Trailing,
            at: input.at,
        });
    }
    Ok(message)
}

/// The bytes still to be read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(DecodeError {
            what: What::Short,
            at: self.at,
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = u16::from_be_bytes(self.array()?);
        let at = self.at;
        let bytes = self.take(usize::from(length))?;
        core::str::from_utf8(bytes).map_err(|_| DecodeError {
            what: What::Utf8,
            at,
        })
    }

    fn cluster(&mut self) -> Result<String, DecodeError> {
        let at = self.at;
        let text = self.text()?;
        if text.is_empty() || text.len() > MAX_CLUSTER_BYTES {
            return Err(DecodeError {
                what: What::Cluster,
                at,
            });
        }
        Ok(String::from(text))
    }

    fn node(&mut self) -> Result<NodeName, DecodeError> {
        let at = self.at;
        NodeName::parse(self.text()?).map_err(|_| DecodeError {
            what: What::Node,
            at,
        })
    }

    fn identity(&mut self) -> Result<Identity, DecodeError> {
        Ok(Identity {
            node: self.node()?,
            creation: u32::from_be_bytes(self.array()?),
            incarnation: u64::from_be_bytes(self.array()?),
        })
    }

    /// One byte that must be one of the numbers `known` knows.
    fn choice<T>(
        &mut self,
        field: &'static str,
        known: impl Fn(u8) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let at = self.at;
        let value = self.byte()?;
        known(value).ok_or(DecodeError {
            what: What::Unknown { field, value },
            at,
        })
    }

    fn held(&mut self) -> Result<Option<Held>, DecodeError> {
        let present = self.choice("held", |value| match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })?;
        if !present {
            return Ok(None);
        }
        Ok(Some(Held {
            creation: u32::from_be_bytes(self.array()?),
            incarnation: u64::from_be_bytes(self.array()?),
            status: self.choice("status", |value| match value {
                0 => Some(Status::Alive),
                1 => Some(Status::Suspect),
                2 => Some(Status::Dead),
                3 => Some(Status::Left),
                _ => None,
            })?,
        }))
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        let cluster = self.cluster()?;
        let sender = self.identity()?;
        let kind = self.choice("kind", |value| match value {
            0 => Some(Kind::Beam),
            1 => Some(Kind::Rust),
            _ => None,
        })?;
        let held = self.held()?;
        let at = self.at;
        let count = usize::from(self.byte()?);
        if count > MAX_LISTED {
            return Err(DecodeError {
                what: What::Listed { count },
                at,
            });
        }
        let listed = (0..count).map(|_| self.node()).collect::<Result<_, _>>()?;
        Ok(Hello {
            cluster,
            sender,
            kind,
            held,
            listed,
        })
    }
}

/// Bytes that are no message: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    what: What,
    at: usize,
}

impl DecodeError {
    /// The offset of the first byte that is wrong.
    pub fn at(&self) -> usize {
        self.at
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    TooLong { bytes: usize },
    Short,
    Trailing,
    Version(u8),
    Unknown { field: &'static str, value: u8 },
    Utf8,
    Cluster,
    Node,
    Listed { count: usize },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::TooLong { bytes } => write!(
                f,
                "{bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES}"
            ),
            What::Short => f.write_str("ends too early"),
            What::Trailing => f.write_str("bytes behind the end"),
            What::Version(version) => {
                write!(
                    f,
                    "version {version}, this node speaks version {VERSION}; run the same release on both"
                )
            }
            What::Unknown { field, value } => {
                write!(f, "unknown {field} {value}; the sender may be newer")
            }
            What::Utf8 => f.write_str("text is not UTF-8"),
            What::Cluster => write!(
                f,
                "cluster identity is not of 1 to {MAX_CLUSTER_BYTES} bytes"
            ),
            What::Node => f.write_str("not a node name"),
            What::Listed { count } => {
                write!(f, "{count} names, more than the limit of {MAX_LISTED}")
            }
        }?;
        write!(f, " (at byte {})", self.at)
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::string::ToString;
    use alloc::vec;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn hello() -> Hello {
        Hello {
            cluster: String::from("default"),
            sender: Identity {
                node: name("a@h"),
                creation: 0x0102_0304,
                incarnation: 5,
            },
            kind: Kind::Rust,
            held: Some(Held {
                creation: 9,
                incarnation: 8,
                status: Status::Left,
            }),
            listed: vec![name("b@h"), name("c@h")],
        }
    }

    fn samples() -> Vec<Message> {
        vec![
            Message::Hello(hello()),
            Message::Welcome(Hello {
                held: None,
                kind: Kind::Beam,
                listed: vec![],
                ..hello()
            }),
            Message::Refused {
                cluster: String::from("blue"),
            },
            Message::Leave(hello().sender),
        ]
    }

    #[test]
    fn a_hello_byte_by_byte() {
        let expected = [
            &[1, 1][..],
            &[0, 7],
            b"default",
            &[0, 3],
            b"a@h",
            &[1, 2, 3, 4],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[1],
            &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 3],
            &[2, 0, 3],
            b"b@h",
            &[0, 3],
            b"c@h",
        ]
        .concat();
        assert_eq!(encode(&Message::Hello(hello())), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        for message in samples() {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    #[test]
    fn the_largest_hello_is_within_the_limit() {
        let long = name(&("ÿ".repeat(250) + "@host"));
        let largest = Hello {
            listed: vec![long; MAX_LISTED],
            ..hello()
        };
        let bytes = encode(&Message::Hello(largest.clone()));
        assert!(bytes.len() < MAX_MESSAGE_BYTES);
        assert_eq!(decode(&bytes), Ok(Message::Hello(largest)));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_at_its_end() {
        for message in samples() {
            let bytes = encode(&message);
            for cut in 0..bytes.len() {
                let error = decode(&bytes[..cut]).unwrap_err();
                assert!(error.at() <= cut, "{error}");
            }
        }
    }

    #[test]
    fn bytes_behind_the_end_are_refused() {
        for message in samples() {
            let mut bytes = encode(&message);
            bytes.push(0);
            assert_eq!(
                decode(&bytes),
                Err(DecodeError {
                    what: What::Trailing,
                    at: bytes.len() - 1
                })
            );
        }
    }

    #[test]
    fn more_names_than_the_limit_are_refused() {
        let mut bytes = encode(&Message::Hello(Hello {
            listed: vec![],
            ..hello()
        }));
        *bytes.last_mut().unwrap() = MAX_LISTED as u8 + 1;
        bytes.extend(core::iter::repeat_n(b"\0\x03x@h", MAX_LISTED + 1).flatten());
        assert!(matches!(
            decode(&bytes),
            Err(DecodeError {
                what: What::Listed { count: 65 },
                ..
            })
        ));
    }

    #[test]
    fn another_version_says_what_to_do() {
        let error = decode(&[2, 1]).unwrap_err().to_string();
        assert_eq!(
            error,
            "version 2, this node speaks version 1; run the same release on both (at byte 0)"
        );
    }

    /// Whatever the bytes, the answer is a message or an error; a message read from flipped bytes is written again as
    /// the bytes it was read from, so nothing was made up.
    #[test]
    fn flipped_bytes_never_panic() {
        let seed = 0x7131;
        let mut random = Random::from_seed(seed);
        let samples = samples();
        for round in 0..20_000 {
            let mut bytes = encode(&samples[round % samples.len()]);
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.bits() as u8;
            }
            if let Ok(message) = decode(&bytes) {
                assert_eq!(
                    encode(&message),
                    bytes,
                    "seed {seed:#x}, round {round}: {message:?}"
                );
            }
        }
    }
}
