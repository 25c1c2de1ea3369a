//! Messages in bytes.
//!
//! ```text
//! message   = 1:8 32:8  version:8 (1)  tag:8  cluster:64  body        integers are unsigned, big-endian
//! body      tag 1  Announce   member:64  expects:8  heard:8 (0 | 1)  0:8 | 1:8 founding
//!           tag 2  Ask        founding
//!           tag 3  Promise    group:64
//!           tag 4  Withdraw   group:64
//!           tag 5  Packet     group:64  from:64  to:64  the rest: a message of the engine
//!           tag 6  Propose    group:64  attempt:64  the rest: a command
//!           tag 7  Declined   session:64  number:64  attempt:64
//!           tag 8  ReadIndex  group:64  id:64
//!           tag 9  ReadAt     id:64  0:8 | 1:8 index:64
//!           tag 10 Order      group:64  id:64  term:64  1:8 (step down) (0:8 | 1:8 node) | 2:8 (add) node | 3:8 (remove) node
//!           tag 11 Ordered    id:64  1:8 (begun) | 2:8 (done) at:64 | 3:8 (no member) | 4:8 (refused) why:8 | 5:8 (not leader)
//! founding  = group:64  agreed:8 (0 | 1)  count:8  count × (member:64  node)       members ascending; all of them vote
//! node      = length:16  bytes
//! ```
//!
//! Tags and numbers are append-only. Bytes behind the last part are refused.

use alloc::vec::Vec;
use core::fmt;

use super::PREFIX;
use super::config::Founding;
use super::message::{Announce, Envelope, Message, Order, Outcome, Why};
use crate::identity::{MAX_NODE_NAME_BYTES, NodeName};
use crate::input::Short;
use crate::leadership::codec::MAX_MESSAGE_BYTES;
use crate::leadership::configuration::{Configuration, MAX_VOTERS};
use crate::leadership::entry::MemberId;
use crate::leadership::machine::SessionId;

const VERSION: u8 = 1;

/// The most bytes of a message: a packet of the engine, and what is around it.
const MAX_BYTES: usize = MAX_MESSAGE_BYTES + 64;

/// Bytes that are no message of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    what: &'static str,
    at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no message of a group: {}, at byte {}",
            self.what, self.at
        )
    }
}

pub(super) fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(64));
    out.0.extend_from_slice(&PREFIX);
    out.0.extend_from_slice(&[VERSION, tag(&envelope.message)]);
    out.number(envelope.cluster);
    match &envelope.message {
        Message::Announce(announce) => {
            out.number(announce.member.0);
            out.0.push(announce.expects);
            out.0.push(u8::from(announce.heard));
            out.0.push(u8::from(announce.founding.is_some()));
            if let Some(founding) = &announce.founding {
                out.founding(founding);
            }
        }
        Message::Ask(founding) => out.founding(founding),
        Message::Promise { group } | Message::Withdraw { group } => out.number(*group),
        Message::Packet {
            group,
            from,
            to,
            bytes,
        } => {
            for number in [*group, from.0, to.0] {
                out.number(number);
            }
            out.0.extend_from_slice(bytes);
        }
        Message::Propose {
            group,
            attempt,
            command,
        } => {
            out.number(*group);
            out.number(*attempt);
            out.0.extend_from_slice(command);
        }
        Message::Declined {
            session,
            number,
            attempt,
        } => {
            for number in [session.0, *number, *attempt] {
                out.number(number);
            }
        }
        Message::ReadIndex { group, id } => {
            out.number(*group);
            out.number(*id);
        }
        Message::ReadAt { id, index } => {
            out.number(*id);
            out.0.push(u8::from(index.is_some()));
            if let Some(index) = index {
                out.number(*index);
            }
        }
        Message::Order {
            group,
            id,
            term,
            order,
        } => {
            for number in [*group, *id, *term] {
                out.number(number);
            }
            out.order(order);
        }
        Message::Ordered { id, outcome } => {
            out.number(*id);
            match outcome {
                Outcome::Begun => out.0.push(1),
                Outcome::Done(at) => {
                    out.0.push(2);
                    out.number(*at);
                }
                Outcome::NoMember => out.0.push(3),
                Outcome::Refused(why) => out.0.extend_from_slice(&[4, *why as u8]),
                Outcome::NotLeader => out.0.push(5),
            }
        }
    }
    debug_assert!(
        out.0.len() <= MAX_BYTES,
        "no message outgrows what decode accepts"
    );
    out.0
}

const fn tag(message: &Message) -> u8 {
    match message {
        Message::Announce(_) => 1,
        Message::Ask(_) => 2,
        Message::Promise { .. } => 3,
        Message::Withdraw { .. } => 4,
        Message::Packet { .. } => 5,
        Message::Propose { .. } => 6,
        Message::Declined { .. } => 7,
        Message::ReadIndex { .. } => 8,
        Message::ReadAt { .. } => 9,
        Message::Order { .. } => 10,
        Message::Ordered { .. } => 11,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn node(&mut self, node: &NodeName) {
        let bytes = node.as_str().as_bytes();
        self.0
            .extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn founding(&mut self, founding: &Founding) {
        self.number(founding.group);
        self.0.push(u8::from(founding.agreed));
        let count = self.0.len();
        self.0.push(0);
        for member in founding.configuration.voters() {
            // A founding names the node of each of its members.
            if let Some(node) = founding.configuration.node(member) {
                self.0[count] += 1;
                self.number(member.0);
                self.node(node);
            }
        }
    }

    fn order(&mut self, order: &Order) {
        match order {
            Order::StepDown { to } => {
                self.0.extend_from_slice(&[1, u8::from(to.is_some())]);
                if let Some(to) = to {
                    self.node(to);
                }
            }
            Order::AddVoter(node) => {
                self.0.push(2);
                self.node(node);
            }
            Order::RemoveVoter(node) => {
                self.0.push(3);
                self.node(node);
            }
        }
    }
}

/// Reads one message that is all of `bytes`, which begin with [`PREFIX`]. Allocates at most what they carry.
pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let mut input = Input::new(bytes);
    if bytes.len() > MAX_BYTES {
        return Err(input.malformed("it is too long"));
    }
    if input.array()? != PREFIX {
        return Err(input.malformed("it begins in another way"));
    }
    if input.byte()? != VERSION {
        return Err(input.malformed("its version is unknown"));
    }
    let tag = input.byte()?;
    let cluster = input.u64()?;
    let message = input.message(tag)?;
    if !input.is_empty() {
        return Err(input.malformed("there are bytes behind it"));
    }
    Ok(Envelope { cluster, message })
}

type Input<'a> = crate::input::Input<'a, Malformed>;

impl From<Short> for Malformed {
    fn from(short: Short) -> Self {
        Self {
            what: "the bytes end too early",
            at: short.at,
        }
    }
}

impl<'a> Input<'a> {
    const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a flag is neither 0 nor 1")),
        }
    }

    fn rest(&mut self) -> Result<Vec<u8>, Malformed> {
        let count = self.bytes.len() - self.at;
        Ok(self.take(count)?.to_vec())
    }

    fn node(&mut self) -> Result<NodeName, Malformed> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count > MAX_NODE_NAME_BYTES {
            return Err(self.malformed("the name of a node is too long"));
        }
        let bytes = self.take(count)?;
        core::str::from_utf8(bytes)
            .ok()
            .and_then(|text| NodeName::parse(text).ok())
            .ok_or(self.malformed("it has no name of a node"))
    }

    fn founding(&mut self) -> Result<Founding, Malformed> {
        let group = self.u64()?;
        let agreed = self.flag()?;
        let count = usize::from(self.byte()?);
        if count > MAX_VOTERS {
            return Err(self.malformed("a founding has too many members"));
        }
        let mut members: Vec<(MemberId, NodeName)> = Vec::with_capacity(count);
        for _ in 0..count {
            let member = (MemberId(self.u64()?), self.node()?);
            let ascending = members.last().is_none_or(|last| last.0 < member.0);
            if !ascending || members.iter().any(|(_, node)| *node == member.1) {
                return Err(self.malformed("the members of a founding are not in order"));
            }
            members.push(member);
        }
        let ids = members.iter().map(|&(member, _)| member);
        let configuration = Configuration::new(ids, [])
            .map_err(|_| self.malformed("a founding has no members"))?
            .on_nodes(members);
        Ok(Founding {
            group,
            configuration,
            agreed,
        })
    }

    fn message(&mut self, tag: u8) -> Result<Message, Malformed> {
        Ok(match tag {
            1 => {
                let (member, expects, heard) = (MemberId(self.u64()?), self.byte()?, self.flag()?);
                let founding = if self.flag()? {
                    Some(self.founding()?)
                } else {
                    None
                };
                Message::Announce(Announce {
                    member,
                    founding,
                    expects,
                    heard,
                })
            }
            2 => Message::Ask(self.founding()?),
            3 => Message::Promise { group: self.u64()? },
            4 => Message::Withdraw { group: self.u64()? },
            5 => Message::Packet {
                group: self.u64()?,
                from: MemberId(self.u64()?),
                to: MemberId(self.u64()?),
                bytes: self.rest()?,
            },
            6 => Message::Propose {
                group: self.u64()?,
                attempt: self.u64()?,
                command: self.rest()?,
            },
            7 => Message::Declined {
                session: SessionId(self.u64()?),
                number: self.u64()?,
                attempt: self.u64()?,
            },
            8 => Message::ReadIndex {
                group: self.u64()?,
                id: self.u64()?,
            },
            9 => Message::ReadAt {
                id: self.u64()?,
                index: if self.flag()? {
                    Some(self.u64()?)
                } else {
                    None
                },
            },
            10 => Message::Order {
                group: self.u64()?,
                id: self.u64()?,
                term: self.u64()?,
                order: self.order()?,
            },
            11 => Message::Ordered {
                id: self.u64()?,
                outcome: self.outcome()?,
            },
            _ => return Err(self.malformed("its tag is unknown")),
        })
    }

    fn order(&mut self) -> Result<Order, Malformed> {
        Ok(match self.byte()? {
            1 => Order::StepDown {
                to: if self.flag()? {
                    Some(self.node()?)
                } else {
                    None
                },
            },
            2 => Order::AddVoter(self.node()?),
            3 => Order::RemoveVoter(self.node()?),
            _ => return Err(self.malformed("the order is unknown")),
        })
    }

    fn outcome(&mut self) -> Result<Outcome, Malformed> {
        Ok(match self.byte()? {
            1 => Outcome::Begun,
            2 => Outcome::Done(self.u64()?),
            3 => Outcome::NoMember,
            4 => {
                let number = self.byte()?;
                let known = Why::ALL.into_iter().find(|why| *why as u8 == number);
                // A reason that is not known here is a reason all the same.
                Outcome::Refused(known.unwrap_or(Why::Impossible))
            }
            5 => Outcome::NotLeader,
            _ => return Err(self.malformed("the outcome is unknown")),
        })
    }
}
