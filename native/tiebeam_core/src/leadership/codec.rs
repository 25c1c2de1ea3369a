//! Messages in bytes.
//!
//! ```text
//! packet    = version:8 (1)  tag:8  group:64  from:64  to:64  term:64  body     integers are unsigned, big-endian
//! body      tag 1 Poll       pre:8 (0 | 1)  cause:8 (0 silence | 1 transfer | 2 released)  last:64  last_term:64
//!           tag 2 Vote       pre:8  granted:8  early:8
//!           tag 3 Append     round:64  previous:64  previous_term:64  commit:64  count:16  count × entry
//!           tag 4 Accepted   round:64  matched:64
//!           tag 5 Rejected   round:64  previous:64  hint:64  hint_term:64
//!           tag 6 TimeoutNow released:8
//!           tag 7 Chunk      round:64  index:64  term:64  total:32  offset:32  length:32  bytes  then, if offset is 0, members
//!           tag 8 Received   round:64  index:64  bytes:32
//!
//! entry     = term:64  kind:8  body              its index is that of its place: previous + 1, previous + 2, ...
//!             kind 0 noop | 1 command, length:32 bytes | 2 configuration, members
//! members   = voters  outgoing  learners  nodes
//! voters, outgoing, learners = count:8  count × member:64, ascending
//! nodes     = count:8  count × (member:64  length:16  name), ascending, each one of the members
//! ```
//!
//! Tags and numbers are append-only: a number, once given, keeps its meaning. Bytes behind the last part are refused, so
//! that what an older member would misread needs a new tag.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::chunks::{CHUNK_BYTES, Chunk, MAX_SNAPSHOT_BYTES};
use super::configuration::{Configuration, MAX_MEMBERS};
use super::entry::{Entry, MAX_COMMAND_BYTES, MemberId, Payload};
use super::log::{MAX_BATCH, MAX_BATCH_BYTES};
use super::message::{Cause, Message, Packet};
use crate::identity::{MAX_NODE_NAME_BYTES, NodeName};
use crate::input::Short;

const VERSION: u8 = 1;

const POLL: u8 = 1;
const VOTE: u8 = 2;
const APPEND: u8 = 3;
const ACCEPTED: u8 = 4;
const REJECTED: u8 = 5;
const TIMEOUT_NOW: u8 = 6;
const CHUNK: u8 = 7;
const RECEIVED: u8 = 8;

/// The most bytes in a message: a full batch, one more command, and 64 bytes for each entry's and the message's heads.
pub const MAX_MESSAGE_BYTES: usize = MAX_BATCH_BYTES + MAX_COMMAND_BYTES + 64 * (MAX_BATCH + 2);

/// The fewest bytes of a member's node: `a@b`.
const MIN_NODE_BYTES: usize = 8 + 2 + 3;

/// The fewest bytes of an entry.
const MIN_ENTRY_BYTES: usize = 9;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    what: What,
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Short,
    Trailing,
    TooLong(usize),
    Version(u8),
    Unknown {
        field: &'static str,
        value: u8,
    },
    Limit {
        field: &'static str,
        count: usize,
        limit: usize,
    },
    Order,
    Configuration,
    Elsewhere,
    Foreign(&'static str),
}

impl DecodeError {
    /// Well-formed bytes that are not for this member: of another group, to another one, or of an earlier life.
    pub(super) const ELSEWHERE: Self = Self {
        what: What::Elsewhere,
        at: 2,
    };

    /// Bytes that the codec of another engine refused, and why.
    pub const fn foreign(reason: &'static str) -> Self {
        Self {
            what: What::Foreign(reason),
            at: 0,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Short => f.write_str("the bytes end too early"),
            What::Trailing => f.write_str("there are bytes behind the message"),
            What::TooLong(bytes) => {
                write!(
                    f,
                    "{bytes} bytes are too many, the limit is {MAX_MESSAGE_BYTES}"
                )
            }
            What::Version(version) => write!(f, "version {version} is unknown; this is {VERSION}"),
            What::Unknown { field, value } => write!(f, "{field} has no number {value}"),
            What::Limit {
                field,
                count,
                limit,
            } => {
                write!(f, "{count} {field} are too many, the limit is {limit}")
            }
            What::Order => f.write_str("members, terms or offsets are not in order"),
            What::Configuration => f.write_str("the members make no configuration"),
            What::Elsewhere => f.write_str("it is for another group or another member"),
            What::Foreign(reason) => f.write_str(reason),
        }?;
        write!(f, ", at byte {}", self.at)
    }
}

impl core::error::Error for DecodeError {}

pub(super) fn encode(packet: &Packet) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(&[VERSION, tag(&packet.message)]);
    for number in [packet.group, packet.from.0, packet.to.0, packet.term] {
        put(&mut out, number);
    }
    match &packet.message {
        Message::Poll {
            pre,
            last,
            last_term,
            cause,
        } => {
            let cause = match cause {
                Cause::Silence => 0,
                Cause::Transfer => 1,
                Cause::Released => 2,
            };
            out.extend_from_slice(&[u8::from(*pre), cause]);
            put(&mut out, *last);
            put(&mut out, *last_term);
        }
        Message::Vote {
            pre,
            granted,
            early,
        } => {
            out.extend([*pre, *granted, *early].map(u8::from));
        }
        Message::Append {
            round,
            previous,
            previous_term,
            commit,
            entries,
        } => {
            for number in [*round, *previous, *previous_term, *commit] {
                put(&mut out, number);
            }
            out.extend_from_slice(&(entries.len() as u16).to_be_bytes());
            for entry in entries {
                put_entry(&mut out, entry);
            }
        }
        Message::Accepted { round, matched } => {
            put(&mut out, *round);
            put(&mut out, *matched);
        }
        Message::Rejected {
            round,
            previous,
            hint,
            hint_term,
        } => {
            for number in [*round, *previous, *hint, *hint_term] {
                put(&mut out, number);
            }
        }
        Message::TimeoutNow { released } => out.push(u8::from(*released)),
        Message::Chunk { round, chunk } => {
            for number in [*round, chunk.index, chunk.term] {
                put(&mut out, number);
            }
            for number in [chunk.total, chunk.offset, chunk.bytes.len() as u32] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&chunk.bytes);
            if let Some(configuration) = &chunk.configuration {
                put_configuration(&mut out, configuration);
            }
        }
        Message::Received {
            round,
            index,
            bytes,
        } => {
            put(&mut out, *round);
            put(&mut out, *index);
            out.extend_from_slice(&bytes.to_be_bytes());
        }
    }
    debug_assert!(
        out.len() <= MAX_MESSAGE_BYTES,
        "no message outgrows what decode accepts"
    );
    out
}

const fn tag(message: &Message) -> u8 {
    match message {
        Message::Poll { .. } => POLL,
        Message::Vote { .. } => VOTE,
        Message::Append { .. } => APPEND,
        Message::Accepted { .. } => ACCEPTED,
        Message::Rejected { .. } => REJECTED,
        Message::TimeoutNow { .. } => TIMEOUT_NOW,
        Message::Chunk { .. } => CHUNK,
        Message::Received { .. } => RECEIVED,
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put(out, entry.term);
    match &entry.payload {
        Payload::Noop => out.push(0),
        Payload::Command(bytes) => {
            out.push(1);
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Payload::Configuration(configuration) => {
            out.push(2);
            put_configuration(out, configuration);
        }
    }
}

fn put_configuration(out: &mut Vec<u8>, configuration: &Configuration) {
    put_members(out, configuration.voters());
    put_members(out, configuration.outgoing());
    put_members(out, configuration.learners());
    let count = out.len();
    out.push(0);
    for (member, node) in configuration.nodes() {
        put(out, member.0);
        out.extend_from_slice(&(node.as_str().len() as u16).to_be_bytes());
        out.extend_from_slice(node.as_str().as_bytes());
        out[count] += 1;
    }
}

fn put_members(out: &mut Vec<u8>, members: impl Iterator<Item = MemberId>) {
    let count = out.len();
    out.push(0);
    for member in members {
        put(out, member.0);
        out[count] += 1;
    }
}

/// Reads one message that is all of `bytes`. Allocates at most a small multiple of their length.
pub(super) fn decode(bytes: &[u8]) -> Result<Packet, DecodeError> {
    let mut input = Input::new(bytes);
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(input.error(What::TooLong(bytes.len())));
    }
    let version = input.byte()?;
    if version != VERSION {
        return Err(DecodeError {
            what: What::Version(version),
            at: 0,
        });
    }
    let tag = input.byte()?;
    let (group, from, to, term) = (input.u64()?, input.member()?, input.member()?, input.u64()?);
    let message = input.message(tag)?;
    if input.at < bytes.len() {
        return Err(input.error(What::Trailing));
    }
    Ok(Packet {
        group,
        from,
        to,
        term,
        message,
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
    const fn error(&self, what: What) -> DecodeError {
        DecodeError { what, at: self.at }
    }

    fn member(&mut self) -> Result<MemberId, DecodeError> {
        Ok(MemberId(self.u64()?))
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError {
                what: What::Unknown { field, value },
                at: self.at - 1,
            }),
        }
    }

    /// A count that is within its limit, and that the bytes still to be read can hold.
    fn count(
        &self,
        field: &'static str,
        count: usize,
        limit: usize,
        each: usize,
    ) -> Result<usize, DecodeError> {
        if count > limit {
            return Err(self.error(What::Limit {
                field,
                count,
                limit,
            }));
        }
        if count * each > self.bytes.len() - self.at {
            return Err(self.error(What::Short));
        }
        Ok(count)
    }

    fn message(&mut self, tag: u8) -> Result<Message, DecodeError> {
        Ok(match tag {
            POLL => {
                let pre = self.flag("pre")?;
                let cause = match self.byte()? {
                    0 => Cause::Silence,
                    1 => Cause::Transfer,
                    2 => Cause::Released,
                    value => {
                        let what = What::Unknown {
                            field: "cause",
                            value,
                        };
                        return Err(DecodeError {
                            what,
                            at: self.at - 1,
                        });
                    }
                };
                Message::Poll {
                    pre,
                    cause,
                    last: self.u64()?,
                    last_term: self.u64()?,
                }
            }
            VOTE => Message::Vote {
                pre: self.flag("pre")?,
                granted: self.flag("granted")?,
                early: self.flag("early")?,
            },
            APPEND => {
                let (round, previous) = (self.u64()?, self.u64()?);
                let (previous_term, commit) = (self.u64()?, self.u64()?);
                let count = usize::from(u16::from_be_bytes(self.array()?));
                let count = self.count("entries", count, MAX_BATCH, MIN_ENTRY_BYTES)?;
                if previous > u64::MAX - MAX_BATCH as u64 - 1 {
                    return Err(self.error(What::Order));
                }
                let (mut entries, mut term) = (Vec::with_capacity(count), previous_term);
                for index in previous + 1..=previous + count as u64 {
                    let entry = self.entry(index)?;
                    if entry.term < term {
                        return Err(self.error(What::Order));
                    }
                    term = entry.term;
                    entries.push(entry);
                }
                Message::Append {
                    round,
                    previous,
                    previous_term,
                    commit,
                    entries,
                }
            }
            ACCEPTED => Message::Accepted {
                round: self.u64()?,
                matched: self.u64()?,
            },
            REJECTED => Message::Rejected {
                round: self.u64()?,
                previous: self.u64()?,
                hint: self.u64()?,
                hint_term: self.u64()?,
            },
            TIMEOUT_NOW => Message::TimeoutNow {
                released: self.flag("released")?,
            },
            CHUNK => Message::Chunk {
                round: self.u64()?,
                chunk: self.chunk()?,
            },
            RECEIVED => Message::Received {
                round: self.u64()?,
                index: self.u64()?,
                bytes: self.u32()?,
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

    fn entry(&mut self, index: u64) -> Result<Entry, DecodeError> {
        let term = self.u64()?;
        let payload = match self.byte()? {
            0 => Payload::Noop,
            1 => {
                let length = u32::from_be_bytes(self.array()?) as usize;
                let length = self.count("bytes of a command", length, MAX_COMMAND_BYTES, 1)?;
                Payload::Command(Arc::from(self.take(length)?))
            }
            2 => Payload::Configuration(self.configuration()?),
            value => {
                let what = What::Unknown {
                    field: "kind of entry",
                    value,
                };
                return Err(DecodeError {
                    what,
                    at: self.at - 1,
                });
            }
        };
        Ok(Entry {
            index,
            term,
            payload,
        })
    }

    fn configuration(&mut self) -> Result<Configuration, DecodeError> {
        let at = self.at;
        let refused = DecodeError {
            what: What::Configuration,
            at,
        };
        let (voters, outgoing) = (self.members()?, self.members()?);
        let learners = self.members()?;
        let made = Configuration::joint(voters, outgoing, learners).map_err(|_| refused)?;
        let count = usize::from(self.byte()?);
        let count = self.count("nodes", count, MAX_MEMBERS, MIN_NODE_BYTES)?;
        let mut nodes: Vec<(MemberId, NodeName)> = Vec::with_capacity(count);
        for _ in 0..count {
            let member = self.member()?;
            if nodes.last().is_some_and(|&(before, _)| before >= member) {
                return Err(self.error(What::Order));
            }
            let length = usize::from(u16::from_be_bytes(self.array()?));
            let length = self.count("bytes of a node name", length, MAX_NODE_NAME_BYTES, 1)?;
            let name = core::str::from_utf8(self.take(length)?).map_err(|_| refused)?;
            let node = NodeName::parse(name).map_err(|_| refused)?;
            if !made.contains(member) {
                return Err(refused);
            }
            nodes.push((member, node));
        }
        Ok(made.on_nodes(nodes))
    }

    fn chunk(&mut self) -> Result<Chunk, DecodeError> {
        let (index, term) = (self.u64()?, self.u64()?);
        let (total, offset) = (self.u32()?, self.u32()?);
        self.count("bytes of a snapshot", total as usize, MAX_SNAPSHOT_BYTES, 0)?;
        let length = self.u32()? as usize;
        let length = self.count("bytes of a part", length, CHUNK_BYTES, 1)?;
        if offset
            .checked_add(length as u32)
            .is_none_or(|end| end > total)
            || index == u64::MAX
        {
            return Err(self.error(What::Order));
        }
        let bytes = self.take(length)?.to_vec();
        let configuration = match offset {
            0 => Some(self.configuration()?),
            _ => None,
        };
        Ok(Chunk {
            index,
            term,
            total,
            offset,
            configuration,
            bytes,
        })
    }

    fn members(&mut self) -> Result<Vec<MemberId>, DecodeError> {
        let count = usize::from(self.byte()?);
        let count = self.count("members", count, MAX_MEMBERS, 8)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let member = self.member()?;
            if members.last().is_some_and(|&before| before >= member) {
                return Err(self.error(What::Order));
            }
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::vec;

    fn packet(message: Message) -> Packet {
        Packet {
            group: 7,
            from: MemberId(1),
            to: MemberId(2),
            term: 3,
            message,
        }
    }

    fn samples() -> Vec<Packet> {
        let node = |name| NodeName::parse(name).unwrap();
        let joint = Configuration::joint([MemberId(1), MemberId(4)], [MemberId(1)], [MemberId(9)])
            .unwrap()
            .on_nodes([(MemberId(1), node("a@b")), (MemberId(9), node("c@d"))]);
        let chunk = |offset: u32, configuration| Chunk {
            index: 9,
            term: 2,
            total: 6,
            offset,
            configuration,
            bytes: vec![1, 2, 3],
        };
        let payloads = [
            Payload::Noop,
            Payload::Command(Arc::from(*b"abc")),
            Payload::Configuration(joint.clone()),
        ];
        let entries = payloads
            .into_iter()
            .zip(6..)
            .map(|(payload, index)| Entry {
                index,
                term: 3,
                payload,
            })
            .collect();
        [
            Message::Poll {
                pre: true,
                last: 5,
                last_term: 2,
                cause: Cause::Silence,
            },
            Message::Poll {
                pre: false,
                last: 5,
                last_term: 2,
                cause: Cause::Released,
            },
            Message::Vote {
                pre: false,
                granted: true,
                early: true,
            },
            Message::Append {
                round: 1,
                previous: 5,
                previous_term: 2,
                commit: 4,
                entries,
            },
            Message::Accepted {
                round: 1,
                matched: 8,
            },
            Message::Rejected {
                round: 1,
                previous: 5,
                hint: 3,
                hint_term: 1,
            },
            Message::TimeoutNow { released: true },
            Message::Chunk {
                round: 4,
                chunk: chunk(0, Some(joint)),
            },
            Message::Chunk {
                round: 4,
                chunk: chunk(3, None),
            },
            Message::Received {
                round: 4,
                index: 9,
                bytes: 6,
            },
        ]
        .map(packet)
        .into()
    }

    #[test]
    fn what_is_said_is_understood() {
        for packet in samples() {
            assert_eq!(decode(&encode(&packet)), Ok(packet));
        }
    }

    #[test]
    fn a_heartbeat_in_bytes() {
        let entries = vec![];
        let heartbeat = Message::Append {
            round: 9,
            previous: 5,
            previous_term: 2,
            commit: 4,
            entries,
        };
        let bytes = encode(&packet(heartbeat));
        assert_eq!(bytes[..2], [1, 3]);
        assert_eq!(bytes.len(), 2 + 4 * 8 + 4 * 8 + 2);
    }

    #[test]
    fn cut_and_extended_messages_are_refused() {
        for packet in samples() {
            let mut bytes = encode(&packet);
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "{packet:?} cut at {end}");
            }
            bytes.push(0);
            assert_eq!(decode(&bytes).unwrap_err().what, What::Trailing);
        }
    }

    #[test]
    fn flipped_bytes_never_panic_and_mean_what_they_say() {
        let mut random = Random::from_seed(1);
        for packet in samples() {
            let bytes = encode(&packet);
            for _ in 0..2000 {
                let mut changed = bytes.clone();
                let at = random.below(changed.len() as u64) as usize;
                changed[at] = random.bits() as u8;
                if let Ok(read) = decode(&changed) {
                    assert_eq!(encode(&read), changed);
                }
            }
        }
    }

    #[test]
    fn a_count_allocates_nothing_that_the_bytes_do_not_hold() {
        let entries = vec![];
        let heartbeat = Message::Append {
            round: 9,
            previous: 5,
            previous_term: 2,
            commit: 4,
            entries,
        };
        let mut bytes = encode(&packet(heartbeat));
        let count = bytes.len() - 2;
        bytes[count..].copy_from_slice(&256_u16.to_be_bytes());
        assert_eq!(decode(&bytes).unwrap_err().what, What::Short);
        bytes[count..].copy_from_slice(&257_u16.to_be_bytes());
        assert!(matches!(
            decode(&bytes).unwrap_err().what,
            What::Limit {
                limit: MAX_BATCH,
                ..
            }
        ));
        let long = vec![1; MAX_MESSAGE_BYTES + 1];
        assert_eq!(
            decode(&long).unwrap_err().what,
            What::TooLong(MAX_MESSAGE_BYTES + 1)
        );
    }

    #[test]
    fn the_longest_message_is_within_the_limit() {
        let members = |from: u64, count: u64| (from..from + count).map(MemberId);
        let long = |member: MemberId| {
            let name = alloc::format!("{}@{}", member.0 + 100, "ÿ".repeat(251));
            (member, NodeName::parse(&name).unwrap())
        };
        let wide = Configuration::joint(members(0, 9), members(9, 9), members(18, 46))
            .unwrap()
            .on_nodes(members(0, 64).map(long));
        let mut entries: Vec<Entry> = Vec::new();
        let mut weight = 0;
        while weight + Payload::Configuration(wide.clone()).weight() <= MAX_BATCH_BYTES {
            let payload = Payload::Configuration(wide.clone());
            weight += payload.weight();
            entries.push(Entry {
                index: entries.len() as u64 + 1,
                term: 1,
                payload,
            });
        }
        let bytes = encode(&packet(Message::Append {
            round: 0,
            previous: 0,
            previous_term: 0,
            commit: 0,
            entries,
        }));
        assert!(!bytes.is_empty() && bytes.len() <= MAX_MESSAGE_BYTES);
        let chunk = Chunk {
            index: 9,
            term: 2,
            total: MAX_SNAPSHOT_BYTES as u32,
            offset: 0,
            configuration: Some(wide),
            bytes: vec![7; CHUNK_BYTES],
        };
        let longest = packet(Message::Chunk { round: 1, chunk });
        let bytes = encode(&longest);
        assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        assert_eq!(decode(&bytes), Ok(longest));
    }

    #[test]
    fn a_part_of_a_snapshot_is_within_what_was_announced() {
        let chunk = |total, offset| {
            let bytes = vec![7; 3];
            let configuration = None;
            let (index, term) = (9, 2);
            let chunk = Chunk {
                index,
                term,
                total,
                offset,
                configuration,
                bytes,
            };
            decode(&encode(&packet(Message::Chunk { round: 1, chunk })))
        };
        assert!(chunk(6, 3).is_ok());
        assert_eq!(chunk(6, 4).unwrap_err().what, What::Order);
        assert_eq!(chunk(u32::MAX, u32::MAX).unwrap_err().what, {
            What::Limit {
                field: "bytes of a snapshot",
                count: u32::MAX as usize,
                limit: MAX_SNAPSHOT_BYTES,
            }
        });
    }

    #[test]
    fn a_node_belongs_to_a_member() {
        let configuration = Configuration::new([MemberId(1)], []).unwrap();
        let mut bytes = Vec::new();
        put_configuration(&mut bytes, &configuration);
        bytes.pop();
        bytes.push(1);
        put(&mut bytes, 2);
        bytes.extend_from_slice(b"\0\x03a@b");
        let read = Input::new(&bytes).configuration();
        assert_eq!(read.unwrap_err().what, What::Configuration);
        let at = bytes.len() - 13;
        bytes[at..at + 8].copy_from_slice(&1_u64.to_be_bytes());
        let read = Input::new(&bytes).configuration().unwrap();
        assert_eq!(read.node(MemberId(1)).unwrap().as_str(), "a@b");
    }
}
