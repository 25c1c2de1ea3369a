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
                let atom = Atom::from_utf8(text).ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(text: &str) -> Atom {
        Atom::new(text).unwrap()
    }

    /// Writes atoms as one packet; returns its header and terms.
    fn packet(cache: &mut SenderCache, atoms: &[Atom]) -> (Vec<u8>, Vec<u8>) {
        let (mut header, mut terms) = (Vec::new(), Vec::new());
        cache.begin();
        for atom in atoms {
            cache.write(atom, &mut terms);
        }
        cache.write_header(&mut header);
        (header, terms)
    }

    /// Resolves the terms of [`packet`].
    fn resolve(atoms: &[Atom], terms: &[u8]) -> Vec<Atom> {
        let bytes = bytes::Bytes::copy_from_slice(terms);
        let limits = crate::decode::Limits::default();
        let mut decoder = crate::decode::Decoder::new(&bytes, 0, &limits).with_atoms(atoms);
        let mut resolved = Vec::new();
        while decoder.remaining() > 0 {
            resolved.push(decoder.atom().unwrap());
        }
        resolved
    }

    fn receive(cache: &mut ReceiverCache, header: &[u8]) -> Vec<Atom> {
        let mut atoms = Vec::new();
        assert_eq!(cache.read(header, 0, &mut atoms).unwrap(), header.len());
        atoms
    }

    /// Two different atoms with the same slot.
    fn colliding() -> (Atom, Atom) {
        let mut seen = std::collections::HashMap::new();
        (0..)
            .find_map(|n| {
                let atom = atom(&format!("colliding_{n}"));
                let other = seen.insert(slot_of(&atom), atom.clone())?;
                Some((other, atom))
            })
            .unwrap()
    }

    #[test]
    fn an_atom_is_defined_once() {
        let mut cache = SenderCache::new();
        let atoms = [atom("one"), atom("two"), atom("one")];
        let (header, terms) = packet(&mut cache, &atoms);
        assert_eq!(terms, [82, 0, 82, 1, 82, 0]);
        let (one, two) = (slot_of(&atoms[0]), slot_of(&atoms[1]));
        let nibbles = (8 | (one >> 8) as u8) | (8 | (two >> 8) as u8) << 4;
        let expected = [
            &[2, nibbles, 0, one as u8, 3][..],
            b"one",
            &[two as u8, 3],
            b"two",
        ];
        assert_eq!(header, expected.concat());
        let (header, _) = packet(&mut cache, &atoms);
        assert_eq!(header, [2, nibbles & 0x77, 0, one as u8, two as u8]);
        assert_eq!(packet(&mut cache, &[]), (vec![0], vec![]));
    }

    #[test]
    fn long_atoms_make_all_new_lengths_long() {
        let mut cache = SenderCache::new();
        let atoms = [atom("short"), atom(&"\u{1f600}".repeat(255))];
        let (header, _) = packet(&mut cache, &atoms);
        assert_eq!(header[2], LONG_ATOMS);
        assert_eq!(header[4..6], [0, 5]);
        assert_eq!(header.len(), 3 + 1 + 2 + 5 + 1 + 2 + 1020);
        assert_eq!(receive(&mut ReceiverCache::new(), &header), atoms);
        // Not because of one that is known.
        let (header, _) = packet(&mut cache, &[atoms[1].clone(), atom("other")]);
        assert_eq!(header[2], 0);
    }

    #[test]
    fn of_two_atoms_with_one_slot_the_second_is_inline() {
        let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
        let (a, b) = colliding();
        for atoms in [
            [a.clone(), b.clone(), a.clone()],
            [b.clone(), a.clone(), b.clone()],
        ] {
            let (header, terms) = packet(&mut sender, &atoms);
            assert_eq!(header[0], 1);
            assert!(terms.starts_with(&[82, 0, tag::SMALL_ATOM_UTF8]));
            let defined = receive(&mut receiver, &header);
            assert_eq!(resolve(&defined, &terms), atoms);
        }
    }

    #[test]
    fn the_256th_atom_of_a_packet_is_inline() {
        let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
        let atoms: Vec<Atom> = (0..600).map(|n| atom(&format!("of_600_{n}"))).collect();
        let (header, terms) = packet(&mut sender, &atoms);
        assert_eq!(header[0], 255);
        let defined = receive(&mut receiver, &header);
        assert_eq!(resolve(&defined, &terms), atoms);
    }

    #[test]
    fn a_packet_that_was_given_up_defines_nothing() {
        let mut cache = SenderCache::new();
        let atoms = [atom("given_up")];
        cache.begin();
        cache.write(&atoms[0], &mut Vec::new());
        let (header, _) = packet(&mut cache, &atoms);
        assert_eq!(receive(&mut ReceiverCache::new(), &header), atoms);
    }

    #[test]
    fn a_detached_header_may_be_sent_at_any_time() {
        let atoms: Vec<Atom> = (0..300).map(|n| atom(&format!("of_300_{n}"))).collect();
        // Late, early, twice: neither it nor what follows it changes its meaning.
        for place in 0..3 {
            let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
            let (mut detached, mut terms) = (Vec::new(), Vec::new());
            sender.begin();
            for atom in &atoms {
                sender.write(atom, &mut terms);
            }
            sender.detach(&mut detached);
            let others = [&atoms[..200], &atoms[100..], &atoms[50..250]];
            let headers = others.map(|atoms| packet(&mut sender, atoms));
            for (n, (header, other)) in headers.iter().enumerate() {
                if n == place || n == 2 {
                    let defined = receive(&mut receiver, &detached);
                    assert_eq!(resolve(&defined, &terms), atoms);
                }
                let defined = receive(&mut receiver, header);
                assert_eq!(resolve(&defined, other), others[n]);
            }
        }
    }

    #[test]
    fn the_number_of_packets_wraps() {
        let mut cache = SenderCache::new();
        let atoms = [atom("first"), atom("second")];
        packet(&mut cache, &atoms);
        assert_eq!(cache.packet, 1);
        cache.packet = u32::MAX;
        // The marks of the first packet must not be taken for ones of this packet.
        let (header, terms) = packet(&mut cache, &atoms[1..]);
        assert_eq!((cache.packet, header[0]), (1, 1));
        assert_eq!(terms, [82, 0]);
    }

    #[test]
    fn broken_headers_are_refused() {
        let new_atom: &[u8] = &[1, 8, 5, 2, b'o', b'k'];
        assert_eq!(
            receive(&mut ReceiverCache::new(), new_atom),
            [Atom::of("ok")]
        );
        let mut atoms = Vec::new();
        for end in 0..new_atom.len() {
            let error = ReceiverCache::new().read(&new_atom[..end], 0, &mut atoms);
            let truncated = FrameErrorKind::Term(DecodeErrorKind::Truncated);
            assert_eq!(error.unwrap_err().kind(), &truncated);
        }
        let too_long = [&[1, 0x18, 5, 1, 0][..], &[b'x'; 256]].concat();
        for wrong in [&[1, 8, 5, 1, 0xff][..], &too_long] {
            let error = ReceiverCache::new().read(wrong, 0, &mut atoms);
            let not_an_atom = FrameErrorKind::Term(DecodeErrorKind::Atom);
            assert_eq!(error.unwrap_err().kind(), &not_an_atom);
        }
        let error = ReceiverCache::new().read(&[1, 7, 255], 0, &mut atoms);
        let empty = FrameErrorKind::EmptySlot { slot: 2047 };
        assert_eq!(error.unwrap_err().kind(), &empty);
    }
}
