//! The atom cache: atoms that a connection carries again and again travel as a slot number.
//!
//! ```text
//! header = nrefs:8 [ flags:(nrefs / 2 + 1) bytes, reference * nrefs ]
//! flags  = one nibble per reference, low half first: new:1 segment:3;
//!          the nibble after the last reference: 0:3 long_atoms:1
//! reference = new:    slot:8 length:8 (16 if long_atoms) text
//!             cached: slot:8
//! ```
//!
//! Each direction of a connection has 2048 slots, 8 segments of 256. The sender decides what is in them; the
//! receiver stores what it is told. In the terms of a packet, tag 82 and a number name a reference of its header.
//!
//! Source: OTP manual, ERTS, *External Term Format*, "Distribution Header".

use crate::atom::{Atom, CHARACTERS_MAX};
use crate::decode::tag;
use crate::encode::{AtomWriter, InlineAtoms};
use crate::error::DecodeErrorKind;
use crate::frame::{Fault, FrameErrorKind};

/// Slots of one direction.
const SLOTS: usize = 2048;

/// The most references that a header can have: its count is one byte.
const REFERENCES_MAX: usize = 255;

/// The first slot of the segment that is kept for large messages. See [`SenderCache::detach`].
const LARGE: usize = 7 * 256;

const NEW: u8 = 8;
const LONG_ATOMS: u8 = 1;

/// What a peer has put into the slots of its direction.
#[derive(Debug)]
pub(crate) struct ReceiverCache {
    slots: Box<[Option<Atom>]>,
}

impl ReceiverCache {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS].into_boxed_slice(),
        }
    }

    /// Reads the header at offset `at` of the packet into `atoms`, and returns the offset behind it.
    ///
    /// Must be called for packets in the order of their arrival, also for one whose terms are not wanted.
    pub(crate) fn read(
        &mut self,
        packet: &[u8],
        at: usize,
        atoms: &mut Vec<Atom>,
    ) -> Result<usize, Fault> {
        atoms.clear();
        let mut header = Cursor { packet, at };
        let count = usize::from(header.byte()?);
        if count == 0 {
            return Ok(header.at);
        }
        let flags = header.take(count / 2 + 1)?;
        let nibble = |index: usize| flags[index / 2] >> (4 * (index % 2)) & 0xf;
        let long_atoms = nibble(count) & LONG_ATOMS != 0;
        for index in 0..count {
            let nibble = nibble(index);
            let start = header.at;
            let slot = usize::from(nibble & 7) << 8 | usize::from(header.byte()?);
            if nibble & NEW == 0 {
                match &self.slots[slot] {
                    Some(atom) => atoms.push(atom.clone()),
                    None => {
                        return Err(Fault::new(FrameErrorKind::EmptySlot { slot }, start));
                    }
                }
            } else {
                let len = if long_atoms {
                    usize::from(header.byte()?) << 8 | usize::from(header.byte()?)
                } else {
                    usize::from(header.byte()?)
                };
                let text = header.take(len)?;
                let atom = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| Atom::new(text).ok())
                    .ok_or_else(|| {
                        Fault::new(FrameErrorKind::Term(DecodeErrorKind::Atom), start)
                    })?;
                self.slots[slot] = Some(atom.clone());
                atoms.push(atom);
            }
        }
        Ok(header.at)
    }
}

struct Cursor<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        match self.packet.get(self.at..).and_then(|rest| rest.get(..len)) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(Fault::new(
                FrameErrorKind::Term(DecodeErrorKind::Truncated),
                self.packet.len(),
            )),
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|slice| slice[0])
    }
}

/// What the peer holds in the slots of our direction, and the references of the packet that is being written.
///
/// The terms of a packet are written first, with this as their [`AtomWriter`]; its header, which also brings the
/// slots up to date, last. So a packet that is given up before that leaves no trace.
#[derive(Debug)]
pub(crate) struct SenderCache {
    slots: Box<[Option<Atom>]>,
    marks: Box<[Mark]>,
    /// The number of the packet that is being written; wraps.
    packet: u32,
    references: Vec<(usize, Atom)>,
}

/// Which reference of which packet used a slot last.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    packet: u32,
    index: u8,
}

impl SenderCache {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![None; LARGE].into_boxed_slice(),
            marks: vec![Mark::default(); LARGE].into_boxed_slice(),
            packet: 0,
            references: Vec::new(),
        }
    }

    /// Begins a packet; forgets the references of the one before.
    pub(crate) fn begin(&mut self) {
        self.references.clear();
        self.packet = self.packet.wrapping_add(1);
        if self.packet == 0 {
            self.marks.fill(Mark::default());
            self.packet = 1;
        }
    }

    /// Appends the header for the references of this packet. The packet must then reach the peer, and before any
    /// packet that is begun later.
    pub(crate) fn write_header(&mut self, out: &mut Vec<u8>) {
        let slots = &mut self.slots;
        write_header(&self.references, out, |slot, atom| {
            let new = slots[slot].as_ref() != Some(atom);
            if new {
                slots[slot] = Some(atom.clone());
            }
            new
        });
    }

    /// Appends a header for the references of this packet that may be sent at any later time.
    ///
    /// All its atoms are new, and stored in a segment that other packets never refer to: so it neither depends on
    /// the packets before it nor changes the meaning of those after it.
    pub(crate) fn detach(&mut self, out: &mut Vec<u8>) {
        for (index, (slot, _)) in self.references.iter_mut().enumerate() {
            *slot = LARGE + index;
        }
        write_header(&self.references, out, |_, _| true);
    }
}

/// Appends a header; `is_new` is asked once per reference, in order.
fn write_header(
    references: &[(usize, Atom)],
    out: &mut Vec<u8>,
    mut is_new: impl FnMut(usize, &Atom) -> bool,
) {
    let count = references.len();
    out.push(count as u8);
    if count == 0 {
        return;
    }
    let mut flags = [0u8; REFERENCES_MAX / 2 + 1];
    let mut long_atoms = false;
    for (index, (slot, atom)) in references.iter().enumerate() {
        let mut nibble = (slot >> 8) as u8;
        if is_new(*slot, atom) {
            nibble |= NEW;
            long_atoms |= atom.as_str().len() > usize::from(u8::MAX);
        }
        flags[index / 2] |= nibble << (4 * (index % 2));
    }
    if long_atoms {
        flags[count / 2] |= LONG_ATOMS << (4 * (count % 2));
    }
    out.extend_from_slice(&flags[..count / 2 + 1]);
    for (index, (slot, atom)) in references.iter().enumerate() {
        out.push(*slot as u8);
        if flags[index / 2] >> (4 * (index % 2)) & NEW != 0 {
            let text = atom.as_str().as_bytes();
            // At most 1,020 bytes: four for each character.
            const { assert!(CHARACTERS_MAX * 4 <= u16::MAX as usize) };
            if long_atoms {
                out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            } else {
                out.push(text.len() as u8);
            }
            out.extend_from_slice(text);
        }
    }
}

/// The slot in which an atom is kept: by its address, which interned atoms share, so that it costs no walk over
/// the text. Atoms beyond the interning bound only share a slot with themselves by chance, and travel as new.
fn slot_of(atom: &Atom) -> usize {
    let address = atom.as_str().as_ptr() as u64;
    let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ((mixed * LARGE as u64) >> 32) as usize
}

impl AtomWriter for SenderCache {
    fn write(&mut self, atom: &Atom, out: &mut Vec<u8>) {
        let slot = slot_of(atom);
        let mark = self.marks[slot];
        let index = if mark.packet == self.packet {
            // Another atom of this packet has the slot: it keeps it until the next one.
            if self.references[usize::from(mark.index)].1 != *atom {
                return InlineAtoms.write(atom, out);
            }
            mark.index
        } else {
            if self.references.len() == REFERENCES_MAX {
                return InlineAtoms.write(atom, out);
            }
            let index = self.references.len() as u8;
            self.references.push((slot, atom.clone()));
            self.marks[slot] = Mark {
                packet: self.packet,
                index,
            };
            index
        };
        out.extend_from_slice(&[tag::ATOM_CACHE_REF, index]);
    }
}
