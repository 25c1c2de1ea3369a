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
//!           tag 12 Full       group:64  limit:64
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
        Message::Full { group, limit } => {
            out.number(*group);
            out.number(*limit);
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
        Message::Full { .. } => 12,
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
            12 => Message::Full {
                group: self.u64()?,
                limit: self.u64()?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::format;
    use alloc::vec;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn founding() -> Founding {
        let members = [(MemberId(3), node("b@h")), (MemberId(9), node("a@h"))];
        Founding {
            group: 7,
            configuration: Configuration::new([MemberId(3), MemberId(9)], [])
                .unwrap()
                .on_nodes(members),
            agreed: true,
        }
    }

    /// One of each kind.
    fn messages() -> Vec<Message> {
        let announce = |founding, heard| Announce {
            member: MemberId(1),
            founding,
            expects: 3,
            heard,
        };
        let order = |order| Message::Order {
            group: 1,
            id: 2,
            term: 3,
            order,
        };
        let ordered = |outcome| Message::Ordered { id: 1, outcome };
        let mut all = vec![
            Message::Announce(announce(None, false)),
            Message::Announce(announce(Some(founding()), true)),
            Message::Ask(founding()),
            Message::Promise { group: 1 },
            Message::Withdraw { group: 1 },
            Message::Packet {
                group: 1,
                from: MemberId(2),
                to: MemberId(3),
                bytes: vec![4, 5],
            },
            Message::Propose {
                group: 1,
                attempt: 2,
                command: vec![3],
            },
            Message::Declined {
                session: SessionId(1),
                number: 2,
                attempt: 3,
            },
            Message::ReadIndex { group: 1, id: 2 },
            Message::ReadAt { id: 1, index: None },
            Message::ReadAt {
                id: 1,
                index: Some(2),
            },
            order(Order::StepDown { to: None }),
            order(Order::StepDown {
                to: Some(node("a@h")),
            }),
            order(Order::AddVoter(node("a@h"))),
            order(Order::RemoveVoter(node("a@h"))),
            ordered(Outcome::Begun),
            ordered(Outcome::Done(9)),
            ordered(Outcome::NoMember),
            ordered(Outcome::NotLeader),
            Message::Full { group: 1, limit: 2 },
        ];
        all.extend(Why::ALL.map(|why| ordered(Outcome::Refused(why))));
        all
    }

    fn bytes_of(message: Message) -> Vec<u8> {
        encode(&Envelope {
            cluster: 5,
            message,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        for message in messages() {
            let envelope = Envelope {
                cluster: 5,
                message,
            };
            assert_eq!(decode(&encode(&envelope)), Ok(envelope));
        }
    }

    #[test]
    fn bytes_that_end_too_early_are_refused() {
        for message in messages() {
            let open = matches!(message, Message::Packet { .. } | Message::Propose { .. });
            let what = format!("{message:?}");
            let bytes = bytes_of(message);
            for end in 0..bytes.len() - if open { 2 } else { 0 } {
                assert!(decode(&bytes[..end]).is_err(), "{what} at {end}");
            }
            assert!(
                open || decode(&[&bytes[..], &[0]].concat()).is_err(),
                "{what}"
            );
        }
    }

    #[test]
    fn bytes_of_any_kind_break_nothing() {
        let (mut random, all) = (Random::from_seed(1), messages());
        for _ in 0..20_000 {
            let one = &all[random.below(all.len() as u64) as usize];
            let mut bytes = bytes_of(one.clone());
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.bits() as u8;
            }
            // Whatever is read can be written, and is the same again.
            if let Ok(envelope) = decode(&bytes) {
                assert_eq!(decode(&encode(&envelope)), Ok(envelope));
            }
        }
    }

    #[test]
    fn a_founding_that_names_a_node_twice_is_refused() {
        let mut bytes = bytes_of(Message::Ask(founding()));
        let at = bytes.windows(3).position(|part| part == b"a@h").unwrap();
        bytes[at] = b'b';
        assert!(decode(&bytes).is_err());
    }
}
