//! The owner's side: sends what happens here, from the log, and answers for ranges of its table.

use alloc::vec::Vec;

use super::Peer;
use crate::identity::NodeName;
use crate::registry::entry::{Item, Life};
use crate::registry::key::Key;
use crate::registry::log;
use crate::registry::message::{
    CHUNK_BYTES, Message, Part, Range, begin_operations, encode, put_operation, size_of,
};
use crate::registry::output::Output;
use crate::registry::replica::{WINDOW, split};
use crate::registry::{PATIENCE, REMIND_AFTER, Registry, Timer};

/// The most operations that are sent to a peer as they happen before it has acknowledged earlier ones. One that is slower
/// asks for the rest when it is ready.
const MAX_UNACKNOWLEDGED: u64 = 16_384;

/// A range with more items is compared in parts, unless the asking side has nothing of it.
const LEAF: usize = 32;

/// How many items are looked at for one answer.
const MAX_COUNTED: usize = 16_384;

impl Registry {
    /// Sends the operations that nobody was sent yet to all who have the ones before.
    pub(crate) fn flush(&mut self, out: &mut Vec<Output>) {
        self.unflushed_bytes = 0;
        let head = self.log.head();
        while self.flushed < head {
            let listens = |peer: &Peer| {
                peer.up
                    && peer.sent == self.flushed
                    && self.flushed - peer.acknowledged.min(self.flushed) < MAX_UNACKNOWLEDGED
            };
            let listeners: Vec<NodeName> = self
                .peers
                .iter()
                .filter(|(_, peer)| listens(peer))
                .map(|(node, _)| node.clone())
                .collect();
            let (bytes, upto) = if listeners.is_empty() {
                (Vec::new(), head)
            } else {
                self.chunk(self.flushed, false)
            };
            self.flushed = upto;
            for node in &listeners {
                out.push(Output::Send {
                    to: node.clone(),
                    bytes: bytes.clone(),
                });
                if let Some(peer) = self.peers.get_mut(node) {
                    peer.sent = upto;
                    self.timers
                        .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
                }
            }
            // Who does not listen hears of the head in a while, and asks.
            for (node, peer) in &self.peers {
                if peer.up && peer.sent < upto {
                    self.timers
                        .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
                }
            }
        }
    }

    /// As many operations behind `from` as there is room for, and the number of the last; all of them are lost when the
    /// log no longer has the first. `last` says that the next ones are sent only when asked for.
    pub(super) fn chunk(&self, from: u64, last: bool) -> (Vec<u8>, u64) {
        let head = self.log.head();
        let Some(operations) = self.log.after(from) else {
            return (begin_operations(self.life, head, head, false), head);
        };
        let mut room = CHUNK_BYTES;
        let mut upto = from;
        let mut body = Vec::new();
        for operation in operations {
            let size = log::size(operation);
            if size > room && upto > from {
                break;
            }
            room = room.saturating_sub(size);
            put_operation(&mut body, operation);
            upto += 1;
        }
        let mut bytes = begin_operations(self.life, from, head, last && upto < head);
        bytes.append(&mut body);
        (bytes, upto)
    }

    pub(super) fn announce(&mut self, node: &NodeName, head: u64, out: &mut Vec<Output>) {
        out.push(Output::Send {
            to: node.clone(),
            bytes: begin_operations(self.life, head, head, false),
        });
    }

    /// A peer did not say that it has everything.
    pub(crate) fn remind(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        let head = self.log.head();
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.up) else {
            return;
        };
        if peer.acknowledged >= head {
            return;
        }
        peer.remind_after = peer.remind_after.doubled(1, PATIENCE);
        let again = self.now + peer.remind_after;
        self.announce(node, head, out);
        self.timers.set(Timer::Remind(node.clone()), again);
    }

    pub(super) fn heard_have(
        &mut self,
        node: &NodeName,
        of: Option<Life>,
        seq: u64,
        digest: u64,
        want: bool,
        out: &mut Vec<Output>,
    ) {
        let known = of == Some(self.life);
        let seq = if known { seq } else { 0 };
        let head = self.log.head();
        if known && let Some(peer) = self.peers.get_mut(node) {
            if seq > peer.acknowledged {
                peer.remind_after = REMIND_AFTER;
            }
            peer.acknowledged = peer.acknowledged.max(seq).min(head);
        }
        let differs = known && seq == head && digest != self.items.digest();
        if differs {
            self.send_behind(node, out);
        } else if want {
            self.serve(node, seq, out);
        } else if known
            && let Some(peer) = self.peers.get(node)
            && peer.sent < self.flushed
            && !peer.pulls
        {
            // It was too slow for what happened, and goes on where it was left.
            self.serve(node, peer.sent, out);
        }
    }

    pub(super) fn send_behind(&mut self, node: &NodeName, out: &mut Vec<Output>) {
        self.flush(out);
        let head = self.log.head();
        if let Some(peer) = self.peers.get_mut(node) {
            // It compares everything up to here, and gets what comes after as it happens.
            peer.sent = head;
            peer.pulls = false;
            peer.acknowledged = head;
        }
        out.push(Output::Send {
            to: node.clone(),
            bytes: encode(&Message::Behind {
                life: self.life,
                head,
            }),
        });
    }

    /// Sends a window of what is behind `seq`.
    pub(super) fn serve(&mut self, node: &NodeName, seq: u64, out: &mut Vec<Output>) {
        self.flush(out);
        if self.log.after(seq).is_none() {
            return self.send_behind(node, out);
        }
        let head = self.log.head();
        let mut upto = seq;
        for left in (0..WINDOW).rev() {
            let (bytes, next) = self.chunk(upto, left == 0);
            upto = next;
            out.push(Output::Send {
                to: node.clone(),
                bytes,
            });
            if upto == head {
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(node) {
            peer.sent = upto;
            peer.pulls = upto < head;
            self.timers
                .hasten(Timer::Remind(node.clone()), self.now + peer.remind_after);
        }
    }

    /// Answers for as many ranges as there is room for.
    pub(super) fn compare(
        &mut self,
        node: &NodeName,
        of: Life,
        ask: u64,
        ranges: &[Range],
        out: &mut Vec<Output>,
    ) {
        if of != self.life {
            let head = self.log.head();
            return self.announce(node, head, out);
        }
        let (mut room, mut budget) = (CHUNK_BYTES, MAX_COUNTED);
        let mut parts = Vec::new();
        for range in ranges {
            if budget == 0 || (room == 0 && !parts.is_empty()) {
                break;
            }
            if !range.empty {
                let (digest, counted) = self.items.digest_of(range.span);
                budget = budget.saturating_sub(counted.max(1));
                if digest == range.digest {
                    parts.push(Part::Same);
                    continue;
                }
                let many = self.items.range(range.span).nth(LEAF).is_some();
                if many && split(range.span).is_some() {
                    parts.push(Part::Split);
                    continue;
                }
            }
            let (part, size) = self.fill(range.span, room, parts.is_empty());
            let Some(part) = part else {
                break;
            };
            room = room.saturating_sub(size);
            parts.push(part);
        }
        out.push(Output::Send {
            to: node.clone(),
            bytes: encode(&Message::Compared {
                life: self.life,
                ask,
                at: self.log.head(),
                parts,
            }),
        });
    }

    /// The items of a range that fit, and about how many bytes they take; nothing when not even the first one does, unless
    /// it `must`. Items of one hash are never parted.
    pub(super) fn fill(&self, span: (u64, u64), room: usize, must: bool) -> (Option<Part>, usize) {
        let mut items: Vec<(Key, Item)> = Vec::new();
        let (mut size, mut upto) = (16, span.1);
        for (key, item) in self.items.range(span) {
            let next = size_of(key, item);
            let last = items.last().map(|(last, _)| last.hash());
            if size + next > room && last != Some(key.hash()) {
                match last {
                    Some(last) => upto = last,
                    None if must => {
                        size += next;
                        items.push((key.clone(), item.clone()));
                        continue;
                    }
                    None => return (None, 0),
                }
                break;
            }
            size += next;
            items.push((key.clone(), item.clone()));
        }
        (Some(Part::Fill { upto, items }), size)
    }
}
