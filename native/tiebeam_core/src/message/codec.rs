//! Messages in bytes.
//!
//! ```text
//! message   = version:8 (1)  tag:8  cluster:32  creation:32  incarnation:64  body  words  broadcasts
//!                                                          integers are unsigned, big-endian
//! body      tag 1  Hello     hello
//!           tag 2  Welcome   hello
//!           tag 3  Refused   text (cluster)
//!           tag 4  Leave
//!           tag 5  Ping      number:64
//!           tag 6  Ack       number:64  creation:32  incarnation:64
//!           tag 7  PingReq   number:64  text (node name)
//!           tag 8  Nack      number:64
//!           tag 9  Gossip
//!           tag 10 Digest    32 × members:32  broadcasts:32
//!           tag 11 Table     wanted:32  broadcasts:8 (0 | 1)
//!           tag 16           the registry's; what follows the tag is in `registry/message.rs`
//!
//! words     = count:16  count × word
//! word      = text (node name)  status:8  kind:8  creation:32  incarnation:64
//!             status = 1: text (by)               known:8 (0 | 1)  known = 1: metadata
//! broadcasts = count:8  count × broadcast
//! broadcast = text (node name)  creation:32  number:64  remaining:32  blob
//! hello     = text (cluster)  text (node name)  kind:8  metadata  held
//! metadata  = told:64  blob
//! kind      = 0 beam | 1 rust | 2 plain
//! held      = 0:8 | 1:8  creation:32  incarnation:64  status:8
//! status    = 0 alive | 1 suspect | 2 dead | 3 left
//! text      = length:16  UTF-8
//! blob      = length:16  bytes
//! ```
//!
//! `cluster` is the digest FNV-1a of the cluster's identity, which is spelled out in hellos only. Tags and numbers are
//! append-only: a number, once given, keeps its meaning. A message ends where its last part ends; bytes behind it are
//! refused, so that what an older node would misread needs a new tag.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::error::{DecodeError, What};
use super::{BUCKETS, Body, Broadcast, BroadcastId, Claim, Held, Hello, Message, Metadata, Word};
use crate::config::MAX_CLUSTER_BYTES;
use crate::identity::{MAX_NODE_NAME_BYTES, NodeName};
use crate::input::Short;
use crate::membership::{Kind, MAX_BROADCAST_BYTES, MAX_METADATA_BYTES, Status};

pub(super) const VERSION: u8 = 1;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const LEAVE: u8 = 4;
const PING: u8 = 5;
const ACK: u8 = 6;
const PING_REQ: u8 = 7;
const NACK: u8 = 8;
const GOSSIP: u8 = 9;
const DIGEST: u8 = 10;
const TABLE: u8 = 11;

/// The most bytes in a ping, an ack, a request to ping, a nack or gossip: what fits a datagram on every path, IPv6 and
/// tunnels included. Everything that rides along on one is chosen to fit.
pub const MAX_DATAGRAM_BYTES: usize = 1200;

/// The most bytes in one part of a table: no message keeps a connection busy for long.
pub(crate) const MAX_TABLE_BYTES: usize = 16 * 1024;

/// The most bytes in a message.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The digest of a cluster's identity that heads every message (FNV-1a, 32 bits).
pub(crate) fn cluster_digest(cluster: &str) -> u32 {
    cluster.bytes().fold(0x811C_9DC5, |digest, byte| {
        (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[VERSION, tag(&message.body)]);
    out.extend_from_slice(&message.cluster.to_be_bytes());
    out.extend_from_slice(&message.creation.to_be_bytes());
    out.extend_from_slice(&message.incarnation.to_be_bytes());
    put_body(&mut out, &message.body);
    out.extend_from_slice(&(message.words.len() as u16).to_be_bytes());
    for word in &message.words {
        put_word(&mut out, word);
    }
    out.push(message.broadcasts.len() as u8);
    for broadcast in &message.broadcasts {
        put_text(&mut out, broadcast.id.origin.as_str());
        out.extend_from_slice(&broadcast.id.creation.to_be_bytes());
        out.extend_from_slice(&broadcast.id.number.to_be_bytes());
        out.extend_from_slice(&broadcast.remaining.to_be_bytes());
        put_blob(&mut out, &broadcast.bytes);
    }
    debug_assert!(
        out.len() <= MAX_MESSAGE_BYTES,
        "no message outgrows what decode accepts"
    );
    out
}

fn tag(body: &Body) -> u8 {
    match body {
        Body::Hello(_) => HELLO,
        Body::Welcome(_) => WELCOME,
        Body::Refused { .. } => REFUSED,
        Body::Leave => LEAVE,
        Body::Ping { .. } => PING,
        Body::Ack { .. } => ACK,
        Body::PingReq { .. } => PING_REQ,
        Body::Nack { .. } => NACK,
        Body::Gossip => GOSSIP,
        Body::Digest { .. } => DIGEST,
        Body::Table { .. } => TABLE,
    }
}

fn put_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Hello(hello) | Body::Welcome(hello) => put_hello(out, hello),
        Body::Refused { cluster } => put_text(out, cluster),
        Body::Leave | Body::Gossip => {}
        Body::Ping { number } | Body::Nack { number } => {
            out.extend_from_slice(&number.to_be_bytes());
        }
        Body::Ack {
            number,
            creation,
            incarnation,
        } => {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&creation.to_be_bytes());
            out.extend_from_slice(&incarnation.to_be_bytes());
        }
        Body::PingReq { number, node } => {
            out.extend_from_slice(&number.to_be_bytes());
            put_text(out, node.as_str());
        }
        Body::Digest {
            members,
            broadcasts,
        } => {
            for digest in members {
                out.extend_from_slice(&digest.to_be_bytes());
            }
            out.extend_from_slice(&broadcasts.to_be_bytes());
        }
        Body::Table { wanted, broadcasts } => {
            out.extend_from_slice(&wanted.to_be_bytes());
            out.push(u8::from(*broadcasts));
        }
    }
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_text(out, &hello.cluster);
    put_text(out, hello.node.as_str());
    out.push(kind_number(hello.kind));
    put_metadata(out, &hello.metadata);
    match hello.held {
        None => out.push(0),
        Some(held) => {
            out.push(1);
            out.extend_from_slice(&held.creation.to_be_bytes());
            out.extend_from_slice(&held.incarnation.to_be_bytes());
            out.push(status_number(held.status));
        }
    }
}

fn put_word(out: &mut Vec<u8>, word: &Word) {
    put_text(out, word.node.as_str());
    out.push(status_number(word.claim.status()));
    out.push(kind_number(word.kind));
    out.extend_from_slice(&word.creation.to_be_bytes());
    out.extend_from_slice(&word.incarnation.to_be_bytes());
    if let Claim::Suspect { by } = &word.claim {
        put_text(out, by.as_str());
    }
    match &word.metadata {
        None => out.push(0),
        Some(metadata) => {
            out.push(1);
            put_metadata(out, metadata);
        }
    }
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    out.extend_from_slice(&metadata.told.to_be_bytes());
    put_blob(out, &metadata.bytes);
}

/// Node names and cluster identities are checked when they are made; both fit a length of 16 bits.
fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= MAX_NODE_NAME_BYTES);
    put_blob(out, text.as_bytes());
}

fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

const fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Beam => 0,
        Kind::Rust => 1,
        Kind::Plain => 2,
    }
}

const fn status_number(status: Status) -> u8 {
    match status {
        Status::Alive => 0,
        Status::Suspect => 1,
        Status::Dead => 2,
        Status::Left => 3,
    }
}

/// Reads one message that is all of `bytes`. Allocates at most a small multiple of their length.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError {
            what: What::TooLong { bytes: bytes.len() },
            at: 0,
        });
    }
    let mut input = Input::new(bytes);
    let version = input.byte()?;
    if version != VERSION {
        return Err(DecodeError {
            what: What::Version(version),
            at: 0,
        });
    }
    let tag = input.byte()?;
    let (cluster, creation, incarnation) = (input.u32()?, input.u32()?, input.u64()?);
    let body = input.body(tag)?;
    let count = u16::from_be_bytes(input.array()?);
    let words = (0..count).map(|_| input.word()).collect::<Result<_, _>>()?;
    let count = input.byte()?;
    let broadcasts = (0..count)
        .map(|_| input.broadcast())
        .collect::<Result<_, _>>()?;
    if input.at < bytes.len() {
        return Err(DecodeError {
            what: What::Trailing,
            at: input.at,
        });
    }
    Ok(Message {
        cluster,
        creation,
        incarnation,
        body,
        words,
        broadcasts,
    })
}

type Input<'a> = crate::input::Input<'a, DecodeError>;

impl From<Short> for DecodeError {
    fn from(short: Short) -> Self {
        Self {
            what: What::Short,
            at: short.at,
        }
    }
}

impl<'a> Input<'a> {
    fn blob(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count > limit {
            return Err(DecodeError {
                what: What::Limit {
                    field,
                    count,
                    limit,
                },
                at,
            });
        }
        self.take(count)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.at + 2;
        let bytes = self.blob("text", MAX_NODE_NAME_BYTES)?;
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

    fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.choice(field, |value| match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }

    fn kind(&mut self) -> Result<Kind, DecodeError> {
        self.choice("kind", |value| match value {
            0 => Some(Kind::Beam),
            1 => Some(Kind::Rust),
            2 => Some(Kind::Plain),
            _ => None,
        })
    }

    fn status(&mut self) -> Result<Status, DecodeError> {
        self.choice("status", |value| match value {
            0 => Some(Status::Alive),
            1 => Some(Status::Suspect),
            2 => Some(Status::Dead),
            3 => Some(Status::Left),
            _ => None,
        })
    }

    fn metadata(&mut self) -> Result<Metadata, DecodeError> {
        Ok(Metadata {
            told: self.u64()?,
            bytes: Arc::from(self.blob("metadata", MAX_METADATA_BYTES)?),
        })
    }

    fn held(&mut self) -> Result<Option<Held>, DecodeError> {
        if !self.flag("held")? {
            return Ok(None);
        }
        Ok(Some(Held {
            creation: self.u32()?,
            incarnation: self.u64()?,
            status: self.status()?,
        }))
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        Ok(Hello {
            cluster: self.cluster()?,
            node: self.node()?,
            kind: self.kind()?,
            metadata: self.metadata()?,
            held: self.held()?,
        })
    }

    fn body(&mut self, tag: u8) -> Result<Body, DecodeError> {
        Ok(match tag {
            HELLO => Body::Hello(self.hello()?),
            WELCOME => Body::Welcome(self.hello()?),
            REFUSED => Body::Refused {
                cluster: self.cluster()?,
            },
            LEAVE => Body::Leave,
            PING => Body::Ping {
                number: self.u64()?,
            },
            ACK => Body::Ack {
                number: self.u64()?,
                creation: self.u32()?,
                incarnation: self.u64()?,
            },
            PING_REQ => Body::PingReq {
                number: self.u64()?,
                node: self.node()?,
            },
            NACK => Body::Nack {
                number: self.u64()?,
            },
            GOSSIP => Body::Gossip,
            DIGEST => {
                let mut members = [0; BUCKETS];
                for digest in &mut members {
                    *digest = self.u32()?;
                }
                Body::Digest {
                    members,
                    broadcasts: self.u32()?,
                }
            }
            TABLE => Body::Table {
                wanted: self.u32()?,
                broadcasts: self.flag("broadcasts")?,
            },
            value => {
                return Err(DecodeError {
                    what: What::Unknown {
                        field: "tag",
                        value,
                    },
                    at: 1,
                });
            }
        })
    }

    fn word(&mut self) -> Result<Word, DecodeError> {
        let node = self.node()?;
        let status = self.status()?;
        let kind = self.kind()?;
        let (creation, incarnation) = (self.u32()?, self.u64()?);
        let claim = match status {
            Status::Alive => Claim::Alive,
            Status::Suspect => Claim::Suspect { by: self.node()? },
            Status::Dead => Claim::Dead,
            Status::Left => Claim::Left,
        };
        let metadata = match self.flag("known")? {
            true => Some(self.metadata()?),
            false => None,
        };
        Ok(Word {
            node,
            creation,
            incarnation,
            kind,
            claim,
            metadata,
        })
    }

    fn broadcast(&mut self) -> Result<Broadcast, DecodeError> {
        Ok(Broadcast {
            id: BroadcastId {
                origin: self.node()?,
                creation: self.u32()?,
                number: self.u64()?,
            },
            remaining: self.u32()?,
            bytes: Arc::from(self.blob("broadcast", MAX_BROADCAST_BYTES)?),
        })
    }
}
