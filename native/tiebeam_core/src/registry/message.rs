//! What registries say to each other, and the same in bytes.
//!
//! ```text
//! message  = version:8 (1)  16:8  kind:8  body
//! body     kind 1  Operations  life  from  head  more:8  operation*          to the end of the message
//!          kind 2  Behind      life  head
//!          kind 3  Have        of  seq  digest:64  want:8
//!          kind 4  Compare     life  ask  range*                             to the end
//!          kind 5  Compared    life  ask  at  part*                          to the end
//!          kind 6  Question    life  ask  key  stamp
//!          kind 7  Reply       ask  held:8
//!
//! life      = creation:32  epoch:64
//! of        = 0:8 | 1:8 life
//! operation = 0:8 key item | 1:8 key gone:8
//! item      = flags:8  pid  meta  stamp  [count:8 claimant*]     pid: empty in a membership, whose key has it
//! flags     = 1 resolve | 2 void | 4 there are claimants
//! claimant  = bytes (node name)  creation:32  stamp
//! range     = low:64  high:64  digest:64  empty:8
//! part      = 0:8 (the same) | 1:8 (ask for its parts) | 2:8 upto:64 count (key item seq)*
//! gone      = 0 unregistered | 1 exited | 2 lost
//! key, pid, meta = bytes = length  that many bytes
//! from, head, seq, ask, at, stamp, length, count = LEB128, at most 2^62, in its shortest form
//! ```
//!
//! Numbers are append-only, as in `message/codec.rs`, whose tag 16 this is.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::entry::{Claimant, Item, Life, MAX_BEATEN, OnConflict, Verdict};
use super::key::{Key, MAX_META_BYTES, MAX_PID_BYTES, What};
use super::output::Gone;
use crate::identity::NodeName;
use crate::input::Short;

/// The version and the tag of `message/codec.rs` that messages of the registry begin with.
pub(crate) const PREFIX: [u8; 2] = [1, 16];

/// Where a message that carries entries is full. Half of what a message may have: a receiver applies one in less than a
/// millisecond, and nothing else waits longer than that behind it.
pub(crate) const CHUNK_BYTES: usize = 32 * 1024;

/// The most bytes in one message: the fullest chunk lacks one byte and gets the largest item.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// The most ranges in one question about them.
pub(crate) const MAX_RANGES: usize = 64;

/// Clocks and sequence numbers end here, so that no peer can bring a clock to its end.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The sender's own operations after number `from`, in order. Without any: the sender's head is `head`.
    Operations {
        life: Life,
        from: u64,
        head: u64,
        /// The sender waits with the next ones until it is asked.
        more: bool,
        operations: Vec<Operation>,
    },
    /// The sender's log no longer has what was asked for: compare, from `head` on.
    Behind { life: Life, head: u64 },
    /// The sender holds the receiver's operations up to `seq`.
    Have {
        of: Option<Life>,
        seq: u64,
        digest: u64,
        /// And wants the ones behind it.
        want: bool,
    },
    /// What the sender holds of the receiver's table.
    Compare {
        of: Life,
        ask: u64,
        ranges: Vec<Range>,
    },
    /// The answer, for as many of the ranges as there was room for.
    Compared {
        life: Life,
        ask: u64,
        /// The owner's head when it answered.
        at: u64,
        parts: Vec<Part>,
    },
    /// Does the process that registered then still hold the name?
    Question {
        of: Life,
        ask: u64,
        key: Key,
        stamp: u64,
    },
    /// The answer. Whatever ended the registration was sent before.
    Reply { ask: u64, held: bool },
}

/// What an owner did to one of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The item is this now. Its number follows from its place.
    Put(Key, Item),
    /// The item is no more.
    Drop(Key, Gone),
}

/// A part of a table, and what the asking side holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first and the last hash.
    pub(crate) span: (u64, u64),
    pub(crate) digest: u64,
    pub(crate) empty: bool,
}

/// What an owner says about one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Both hold the same.
    Same,
    /// They differ, and there is too much to tell: compare the parts of the range.
    Split,
    /// All there is from the range's first hash to `upto`, which is before its last when there was no more room.
    Fill { upto: u64, items: Vec<(Key, Item)> },
}

const OPERATIONS: u8 = 1;
const BEHIND: u8 = 2;
const HAVE: u8 = 3;
const COMPARE: u8 = 4;
const COMPARED: u8 = 5;
const QUESTION: u8 = 6;
const REPLY: u8 = 7;

const RESOLVE: u8 = 1;
const VOID: u8 = 2;
const CLAIMANTS: u8 = 4;

fn begin(kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&PREFIX);
    out.push(kind);
    out
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Operations {
            life,
            from,
            head,
            more,
            operations,
        } => {
            let mut out = begin_operations(*life, *from, *head, *more);
            for operation in operations {
                put_operation(&mut out, operation);
            }
            out
        }
        Message::Behind { life, head } => {
            let mut out = begin(BEHIND);
            put_life(&mut out, *life);
            put_number(&mut out, *head);
            out
        }
        Message::Have {
            of,
            seq,
            digest,
            want,
        } => {
            let mut out = begin(HAVE);
            out.push(u8::from(of.is_some()));
            if let Some(life) = of {
                put_life(&mut out, *life);
            }
            put_number(&mut out, *seq);
            out.extend_from_slice(&digest.to_be_bytes());
            out.push(u8::from(*want));
            out
        }
        Message::Compare { of, ask, ranges } => {
            let mut out = begin(COMPARE);
            put_life(&mut out, *of);
            put_number(&mut out, *ask);
            for range in ranges {
                out.extend_from_slice(&range.span.0.to_be_bytes());
                out.extend_from_slice(&range.span.1.to_be_bytes());
                out.extend_from_slice(&range.digest.to_be_bytes());
                out.push(u8::from(range.empty));
            }
            out
        }
        Message::Compared {
            life,
            ask,
            at,
            parts,
        } => {
            let mut out = begin(COMPARED);
            put_life(&mut out, *life);
            put_number(&mut out, *ask);
            put_number(&mut out, *at);
            for part in parts {
                match part {
                    Part::Same => out.push(0),
                    Part::Split => out.push(1),
                    Part::Fill { upto, items } => {
                        out.push(2);
                        out.extend_from_slice(&upto.to_be_bytes());
                        put_number(&mut out, items.len() as u64);
                        for (key, item) in items {
                            put_key_and_item(&mut out, key, item);
                            put_number(&mut out, item.seq);
                        }
                    }
                }
            }
            out
        }
        Message::Question {
            of,
            ask,
            key,
            stamp,
        } => {
            let mut out = begin(QUESTION);
            put_life(&mut out, *of);
            put_number(&mut out, *ask);
            put_bytes(&mut out, key.bytes());
            put_number(&mut out, *stamp);
            out
        }
        Message::Reply { ask, held } => {
            let mut out = begin(REPLY);
            put_number(&mut out, *ask);
            out.push(u8::from(*held));
            out
        }
    }
}

/// The beginning of [`Message::Operations`], for a sender that appends them one by one.
pub(crate) fn begin_operations(life: Life, from: u64, head: u64, more: bool) -> Vec<u8> {
    let mut out = begin(OPERATIONS);
    put_life(&mut out, life);
    put_number(&mut out, from);
    put_number(&mut out, head);
    out.push(u8::from(more));
    out
}

pub(crate) fn put_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Put(key, item) => {
            out.push(0);
            put_key_and_item(out, key, item);
        }
        Operation::Drop(key, gone) => {
            out.push(1);
            put_bytes(out, key.bytes());
            out.push(match gone {
                Gone::Unregistered | Gone::Missed => 0,
                Gone::Exited => 1,
                Gone::Lost => 2,
            });
        }
    }
}

/// At least how many bytes an item takes in a message, for the sender that fills a chunk.
pub(crate) fn size_of(key: &Key, item: &Item) -> usize {
    let claimants = item.verdict.as_ref().map_or(0, |verdict| {
        let names = verdict
            .beaten
            .iter()
            .map(|beaten| beaten.node.as_str().len() + 16);
        names.sum()
    });
    key.bytes().len() + item.pid.len() + item.meta.len() + claimants + 32
}

fn put_key_and_item(out: &mut Vec<u8>, key: &Key, item: &Item) {
    put_bytes(out, key.bytes());
    let beaten = item
        .verdict
        .as_ref()
        .map_or(&[][..], |verdict| &verdict.beaten);
    let mut flags = 0;
    if item.resolve {
        flags |= RESOLVE;
    }
    if item.is_void() {
        flags |= VOID;
    }
    if !beaten.is_empty() {
        flags |= CLAIMANTS;
    }
    out.push(flags);
    match key.what() {
        What::Name => put_bytes(out, &item.pid),
        What::Member => put_bytes(out, &[]),
    }
    put_bytes(out, &item.meta);
    put_number(out, item.stamp);
    if !beaten.is_empty() {
        out.push(beaten.len() as u8);
        for claimant in beaten {
            put_bytes(out, claimant.node.as_str().as_bytes());
            out.extend_from_slice(&claimant.creation.to_be_bytes());
            put_number(out, claimant.stamp);
        }
    }
}

fn put_life(out: &mut Vec<u8>, life: Life) {
    out.extend_from_slice(&life.creation.to_be_bytes());
    out.extend_from_slice(&life.epoch.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads one message that is all of `bytes`. Allocates at most a small multiple of their length.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed {
            what: "is longer than 64 KiB, the limit of a message of the registry",
            at: MAX_BYTES,
        });
    }
    let mut input = Input::new(bytes);
    if input.array()? != PREFIX {
        return Err(input.error("is not of this version of the registry"));
    }
    let message = match input.byte()? {
        OPERATIONS => {
            let life = input.life()?;
            let from = input.number()?;
            let head = input.number()?;
            let more = input.flag()?;
            let mut operations = Vec::new();
            let mut meta = Arc::default();
            while !input.is_empty() {
                let seq = from + 1 + operations.len() as u64;
                operations.push(input.operation(seq, &mut meta)?);
            }
            if from + operations.len() as u64 > head {
                return Err(input.error("has operations behind its head"));
            }
            Message::Operations {
                life,
                from,
                head,
                more,
                operations,
            }
        }
        BEHIND => Message::Behind {
            life: input.life()?,
            head: input.number()?,
        },
        HAVE => Message::Have {
            of: if input.flag()? {
                Some(input.life()?)
            } else {
                None
            },
            seq: input.number()?,
            digest: u64::from_be_bytes(input.array()?),
            want: input.flag()?,
        },
        COMPARE => {
            let of = input.life()?;
            let ask = input.number()?;
            let mut ranges = Vec::new();
            while !input.is_empty() {
                if ranges.len() == MAX_RANGES {
                    return Err(input.error("asks about more than 64 ranges"));
                }
                ranges.push(input.range()?);
            }
            Message::Compare { of, ask, ranges }
        }
        COMPARED => {
            let life = input.life()?;
            let ask = input.number()?;
            let at = input.number()?;
            let mut parts = Vec::new();
            while !input.is_empty() {
                if parts.len() == MAX_RANGES {
                    return Err(input.error("answers for more than 64 ranges"));
                }
                parts.push(input.part()?);
            }
            Message::Compared {
                life,
                ask,
                at,
                parts,
            }
        }
        QUESTION => Message::Question {
            of: input.life()?,
            ask: input.number()?,
            key: input.key()?,
            stamp: input.number()?,
        },
        REPLY => Message::Reply {
            ask: input.number()?,
            held: input.flag()?,
        },
        _ => return Err(input.error("is of a kind that a newer node may know")),
    };
    if !input.is_empty() {
        return Err(input.error("has bytes behind its end"));
    }
    Ok(message)
}

type Input<'a> = crate::input::Input<'a, Malformed>;

impl From<Short> for Malformed {
    fn from(short: Short) -> Self {
        Self {
            what: "ends too early",
            at: short.end,
        }
    }
}

impl<'a> Input<'a> {
    fn error(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("has a flag that is neither 0 nor 1")),
        }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if (byte == 0 && shift > 0) || number > MAX_NUMBER {
                    break;
                }
                return Ok(number);
            }
        }
        Err(self.error("has a number that is too great, or not in its shortest form"))
    }

    fn counted(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        match usize::try_from(length) {
            Ok(length) if length <= limit => self.take(length),
            _ => Err(self.error("has a part that is longer than its limit")),
        }
    }

    fn life(&mut self) -> Result<Life, Malformed> {
        Ok(Life {
            creation: self.u32()?,
            epoch: self.u64()?,
        })
    }

    fn key(&mut self) -> Result<Key, Malformed> {
        let bytes = self.counted(MAX_BYTES)?;
        Key::parse(bytes).ok_or_else(|| self.error("has a key that is none"))
    }

    /// Items of one message share their metadata with the one before where that is equal, as it mostly is: `last`.
    fn item(&mut self, key: &Key, seq: u64, last: &mut Arc<[u8]>) -> Result<Item, Malformed> {
        let flags = self.byte()?;
        if flags & !(RESOLVE | VOID | CLAIMANTS) != 0 {
            return Err(self.error("has an item with unknown flags"));
        }
        let pid: Arc<[u8]> = match (key.member(), self.counted(MAX_PID_BYTES)?) {
            (Some(pid), []) => pid.into(),
            (None, pid @ [_, ..]) => pid.into(),
            _ => return Err(self.error("has an item whose process is not where it belongs")),
        };
        let meta = self.counted(MAX_META_BYTES)?;
        if **last != *meta {
            *last = meta.into();
        }
        let meta = last.clone();
        let stamp = self.number()?;
        let mut verdict = Verdict {
            void: flags & VOID != 0,
            beaten: Vec::new(),
        };
        if flags & CLAIMANTS != 0 {
            let count = usize::from(self.byte()?);
            if count == 0 || count > MAX_BEATEN {
                return Err(self.error("has an item with more than 8 claimants, or none"));
            }
            for _ in 0..count {
                let name = self.counted(MAX_BYTES)?;
                let name = core::str::from_utf8(name).ok();
                let node = name.and_then(|name| NodeName::parse(name).ok());
                verdict.beaten.push(Claimant {
                    node: node.ok_or_else(|| self.error("has no node name"))?,
                    creation: self.u32()?,
                    stamp: self.number()?,
                });
            }
        }
        let decided = flags & (VOID | CLAIMANTS) != 0;
        Ok(Item {
            pid,
            meta,
            stamp,
            seq,
            resolve: flags & RESOLVE != 0,
            on_conflict: OnConflict::default(),
            attempts: 0,
            verdict: decided.then(|| Box::new(verdict)),
        })
    }

    fn operation(&mut self, seq: u64, meta: &mut Arc<[u8]>) -> Result<Operation, Malformed> {
        match self.byte()? {
            0 => {
                let key = self.key()?;
                let item = self.item(&key, seq, meta)?;
                Ok(Operation::Put(key, item))
            }
            1 => {
                let key = self.key()?;
                let gone = match self.byte()? {
                    0 => Gone::Unregistered,
                    1 => Gone::Exited,
                    2 => Gone::Lost,
                    _ => return Err(self.error("has an unknown reason")),
                };
                Ok(Operation::Drop(key, gone))
            }
            _ => Err(self.error("has an unknown operation")),
        }
    }

    fn range(&mut self) -> Result<Range, Malformed> {
        let span = (self.u64()?, self.u64()?);
        if span.0 > span.1 {
            return Err(self.error("has a range that ends before it begins"));
        }
        Ok(Range {
            span,
            digest: self.u64()?,
            empty: self.flag()?,
        })
    }

    fn part(&mut self) -> Result<Part, Malformed> {
        match self.byte()? {
            0 => Ok(Part::Same),
            1 => Ok(Part::Split),
            2 => {
                let upto = self.u64()?;
                let count = self.number()?;
                let mut items = Vec::new();
                let mut meta = Arc::default();
                for _ in 0..count {
                    let key = self.key()?;
                    let mut item = self.item(&key, 0, &mut meta)?;
                    item.seq = self.number()?;
                    items.push((key, item));
                }
                Ok(Part::Fill { upto, items })
            }
            _ => Err(self.error("has an unknown part")),
        }
    }
}

/// Bytes that are no message of the registry: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    what: &'static str,
    at: usize,
}

impl Malformed {
    /// The offset in bytes at which it was noticed.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message {} (at byte {})", self.what, self.at)
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::vec;

    const LIFE: Life = Life {
        creation: 0x0102_0304,
        epoch: 5,
    };

    fn item(seq: u64) -> Item {
        Item {
            pid: b"pid"[..].into(),
            meta: b"m"[..].into(),
            stamp: 300,
            seq,
            resolve: false,
            on_conflict: OnConflict::Notify,
            attempts: 0,
            verdict: None,
        }
    }

    fn samples() -> Vec<Message> {
        let judged = Item {
            resolve: true,
            verdict: Some(Box::new(Verdict {
                void: true,
                beaten: vec![Claimant {
                    node: NodeName::parse("b@h").unwrap(),
                    creation: 7,
                    stamp: 9,
                }],
            })),
            ..item(12)
        };
        vec![
            Message::Operations {
                life: LIFE,
                from: 10,
                head: 13,
                more: true,
                operations: vec![
                    Operation::Put(Key::name_in("s", b"n"), item(11)),
                    Operation::Put(Key::name_in("s", b"o"), judged),
                    Operation::Drop(Key::member_of("s", b"g", b"pid"), Gone::Exited),
                ],
            },
            Message::Behind {
                life: LIFE,
                head: 3,
            },
            Message::Have {
                of: None,
                seq: 0,
                digest: 0,
                want: true,
            },
            Message::Have {
                of: Some(LIFE),
                seq: 1 << 40,
                digest: 77,
                want: false,
            },
            Message::Compare {
                of: LIFE,
                ask: 4,
                ranges: vec![Range {
                    span: (0, u64::MAX),
                    digest: 8,
                    empty: false,
                }],
            },
            Message::Compared {
                life: LIFE,
                ask: 4,
                at: 20,
                parts: vec![
                    Part::Same,
                    Part::Split,
                    Part::Fill {
                        upto: 9,
                        items: vec![(Key::member_of("s", b"g", b"pid"), item(3))],
                    },
                ],
            },
            Message::Question {
                of: LIFE,
                ask: 1,
                key: Key::name_in("s", b"n"),
                stamp: 2,
            },
            Message::Reply { ask: 1, held: true },
        ]
    }

    #[test]
    fn an_operation_byte_by_byte() {
        let message = Message::Operations {
            life: LIFE,
            from: 10,
            head: 11,
            more: false,
            operations: vec![Operation::Put(Key::name_in("s", b"n"), item(11))],
        };
        let expected = [
            &[1, 16, 1][..],
            &[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5],
            &[10, 11, 0],
            &[0, 4, 0, 1, b's', b'n', 0],
            &[3, b'p', b'i', b'd', 1, b'm'],
            &[0xac, 2],
        ]
        .concat();
        assert_eq!(encode(&message), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        for message in samples() {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_no_other_message() {
        for message in samples() {
            let bytes = encode(&message);
            for cut in 0..bytes.len() {
                // Lists run to the end of their message, so a cut between two of their parts is a shorter list.
                match decode(&bytes[..cut]) {
                    Ok(shorter) => assert_eq!(encode(&shorter), &bytes[..cut]),
                    Err(error) => assert!(error.at() <= cut, "{error}"),
                }
            }
        }
    }

    #[test]
    fn the_largest_item_fits_behind_a_full_chunk() {
        use crate::registry::key::{MAX_NAME_BYTES, MAX_SCOPE_BYTES};
        let node = NodeName::parse(&("ÿ".repeat(250) + "@host")).unwrap();
        let claimant = Claimant {
            node,
            creation: u32::MAX,
            stamp: MAX_NUMBER,
        };
        let scope = "s".repeat(MAX_SCOPE_BYTES);
        let largest = Item {
            pid: vec![1; MAX_PID_BYTES].into(),
            meta: vec![2; MAX_META_BYTES].into(),
            stamp: MAX_NUMBER,
            seq: MAX_NUMBER,
            resolve: true,
            on_conflict: OnConflict::Notify,
            attempts: 0,
            verdict: Some(Box::new(Verdict {
                void: true,
                beaten: vec![claimant; MAX_BEATEN],
            })),
        };
        let key = Key::name_in(&scope, &[3; MAX_NAME_BYTES]);
        let mut out = Vec::new();
        put_key_and_item(&mut out, &key, &largest);
        assert!(CHUNK_BYTES + out.len() + 64 < MAX_BYTES);
        let parsed = Input::new(&out).key().unwrap();
        assert_eq!(parsed, key);
    }

    /// Whatever the bytes, the answer is a message or an error, and a message is written again as the bytes it was read
    /// from.
    #[test]
    fn flipped_bytes_never_panic() {
        let seed = 0x7132;
        let mut random = Random::from_seed(seed);
        let samples = samples();
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = encode(&samples[round % samples.len()]);
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.bits() as u8;
            }
            if let Ok(message) = decode(&bytes) {
                read += 1;
                assert_eq!(
                    encode(&message),
                    bytes,
                    "seed {seed:#x}, round {round}: {message:?}"
                );
            }
        }
        assert!(read > 1000, "only {read} were messages");
    }
}
