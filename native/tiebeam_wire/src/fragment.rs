//! Fragments: a large message in pieces, so that others need not wait behind it.
//!
//! ```text
//! start        = 131 69 sequence:64 fragment:64 header control part
//! continuation = 131 70 sequence:64 fragment:64 part
//! ```
//!
//! `fragment` counts down to 1. The control tuple is whole in the start; the parts together are the payload.
//! Packets of other sequences, and whole messages, may come in between.
//!
//! Source: OTP manual, ERTS, *External Term Format*, "Distribution Header for fragmented messages".

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::atom::Atom;
use crate::decode::tag;
use crate::frame::{Fault, FrameErrorKind, FrameLimits};

/// The second byte of a start packet.
pub(crate) const START: u8 = 69;

/// The second byte of a continuation.
pub(crate) const CONTINUATION: u8 = 70;

/// Where the header, or in a continuation the part, begins: behind two bytes and two words.
pub(crate) const PREFIX: usize = 18;

/// How many bytes of terms one fragment of ours carries: as many as OTP's.
pub(crate) const PART: usize = 64 << 10;

/// A large message that is being received.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The atoms of the start packet's header: references in all parts are to these.
    pub(crate) atoms: Vec<Atom>,
    /// The control tuple and the parts. Not decoded yet: terms take more memory than their bytes.
    pub(crate) terms: Vec<u8>,
    /// How many bytes of packets, but for the headers, it has taken so far.
    received: usize,
    /// The number of the next fragment.
    next: u64,
}

impl Partial {
    /// Makes room for the next part: for as many parts of this length as are announced, but for no more than three
    /// times of what has come. Copying and touching memory is most of the work with a large message.
    fn reserve(&mut self, part: usize) {
        if self.terms.capacity() - self.terms.len() < part {
            let announced = usize::try_from(self.next).unwrap_or(usize::MAX);
            let room = part
                .saturating_mul(announced)
                .min(3 * self.terms.len())
                .max(part);
            self.terms.reserve_exact(room);
        }
    }
}

/// Puts fragments together.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    open: HashMap<u64, Partial>,
    received: usize,
}

impl Assembler {
    /// Takes the start of a message of at least two fragments: its header's atoms and what follows the header.
    pub(crate) fn start(
        &mut self,
        sequence: u64,
        fragments: u64,
        atoms: Vec<Atom>,
        terms: &[u8],
        limits: &FrameLimits,
    ) -> Result<(), Fault> {
        if self.open.len() >= limits.sequences {
            return Err(limit("messages in fragments at once", limits.sequences));
        }
        let Entry::Vacant(vacant) = self.open.entry(sequence) else {
            return Err(fault(sequence, fragments, "the sequence is already open"));
        };
        let received = PREFIX + terms.len();
        vacant.insert(Partial {
            atoms,
            terms: terms.to_vec(),
            received,
            next: fragments - 1,
        });
        self.received += received;
        self.check(received, limits)
    }

    /// Takes a continuation; gives the message once this was its last fragment.
    pub(crate) fn resume(
        &mut self,
        sequence: u64,
        fragment: u64,
        part: &[u8],
        limits: &FrameLimits,
    ) -> Result<Option<Partial>, Fault> {
        let Entry::Occupied(mut entry) = self.open.entry(sequence) else {
            return Err(fault(sequence, fragment, "the sequence has no start"));
        };
        let partial = entry.get_mut();
        if fragment != partial.next {
            return Err(fault(
                sequence,
                fragment,
                "the count does not go down by one",
            ));
        }
        // An empty part counts too, or a peer could keep a connection busy for nothing.
        partial.received += PREFIX + part.len();
        self.received += PREFIX + part.len();
        partial.reserve(part.len());
        if fragment > 1 {
            partial.terms.extend_from_slice(part);
            partial.next -= 1;
            let message = partial.received;
            self.check(message, limits)?;
            return Ok(None);
        }
        let mut partial = entry.remove();
        self.check(partial.received, limits)?;
        self.received -= partial.received;
        partial.terms.extend_from_slice(part);
        partial.terms.shrink_to_fit();
        Ok(Some(partial))
    }

    fn check(&self, message: usize, limits: &FrameLimits) -> Result<(), Fault> {
        if message > limits.message {
            return Err(limit("bytes in a message", limits.message));
        }
        if self.received > limits.fragmented {
            return Err(limit(
                "bytes in unfinished messages of a connection",
                limits.fragmented,
            ));
        }
        Ok(())
    }
}

pub(crate) fn fault(sequence: u64, fragment: u64, why: &'static str) -> Fault {
    Fault::new(
        FrameErrorKind::Fragment {
            sequence,
            fragment,
            why,
        },
        2,
    )
}

fn limit(what: &'static str, limit: usize) -> Fault {
    Fault::new(FrameErrorKind::Limit { what, limit }, 2)
}

/// A message too large for one packet, encoded and ready to be sent in fragments.
///
/// It may wait: it depends on no packet sent before it, and none sent after it depends on it. Between its fragments
/// anything else may be sent, also fragments of other messages. Once the first fragment is sent, the others must
/// follow, or the receiver holds the message until the connection ends.
#[derive(Debug)]
pub struct LargeMessage {
    sequence: u64,
    /// The header of the start packet.
    header: Vec<u8>,
    /// The control tuple and the payload.
    terms: Vec<u8>,
    /// How many bytes of the terms the start packet carries.
    start: usize,
    /// How many bytes of the terms are sent.
    at: usize,
    /// How many fragments are left.
    fragments: u64,
}

impl LargeMessage {
    /// `control` is how many bytes of the terms are the control tuple.
    pub(crate) fn new(sequence: u64, header: Vec<u8>, terms: Vec<u8>, control: usize) -> Self {
        let start = control.max(PART).min(terms.len());
        let fragments = 1 + (terms.len() - start).div_ceil(PART) as u64;
        Self {
            sequence,
            header,
            terms,
            start,
            at: 0,
            fragments,
        }
    }

    /// Appends the next fragment, with its length prefix, and returns whether there are more.
    pub fn next_fragment(&mut self, out: &mut Vec<u8>) -> bool {
        if self.fragments == 0 {
            return false;
        }
        let (second, header, end) = if self.at == 0 {
            (START, &self.header[..], self.start)
        } else {
            let end = self.terms.len().min(self.at + PART);
            (CONTINUATION, &[][..], end)
        };
        let part = &self.terms[self.at..end];
        let length = PREFIX + header.len() + part.len();
        out.reserve(4 + length);
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(&[tag::VERSION, second]);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.fragments.to_be_bytes());
        out.extend_from_slice(header);
        out.extend_from_slice(part);
        self.at = end;
        self.fragments -= 1;
        self.fragments > 0
    }

    /// How many bytes its terms take.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a large message is never empty"
    )]
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// How many of these bytes are still to be sent.
    pub fn remaining(&self) -> usize {
        self.terms.len() - self.at
    }
}
