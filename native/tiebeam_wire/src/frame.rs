//! Frames: what travels on a connection after the handshake.
//!
//! ```text
//! frame  = length:32 packet             length 0 is a tick
//! packet = 112 131 control [131 payload]          neither an atom cache nor fragments negotiated
//!        | 131 68 header control [payload]        one of them negotiated; see atom_cache
//!        | 131 69 ... | 131 70 ...                fragments negotiated; see fragment
//! ```
//!
//! A [`FrameDecoder`] and a [`FrameEncoder`] belong to one connection: both remember what the packets before said
//! about atoms. Neither does I/O.
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "Protocol between Connected Nodes".

use std::fmt;
use std::mem::take;

use bytes::{Buf, Bytes, BytesMut};

use crate::atom::Atom;
use crate::atom_cache::{ReceiverCache, SenderCache};
pub use crate::control::EncodeError;
use crate::control::{self, Control, Payload};
use crate::decode::{Decoder, Limits, tag};
use crate::encode::{InlineAtoms, write_term};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::flags::Flags;
pub use crate::fragment::LargeMessage;
use crate::fragment::{Assembler, CONTINUATION, PART, PREFIX, Partial, START, fault};
use crate::term::Term;

/// The first byte of a packet without a header.
const PASS_THROUGH: u8 = 112;

/// The second byte of a packet with a header.
const WHOLE: u8 = 68;

/// How many bytes of a packet an error shows.
const SHOWN: usize = 32;

/// Free space in a new buffer of [`FrameDecoder::buffer`]: as much as a socket usually holds.
const READ: usize = 64 << 10;

/// A scratch buffer that grew beyond this is given back after the packet.
const SCRATCH: usize = 1 << 20;

/// The longest start that is kept of the packets of a [`Run`]: two pids and references to 255 atoms have less.
const RUN_START_MAX: usize = 1 << 10;

/// The longest packet that is written. OTP closes the connection at lengths that its socket driver finds insane,
/// which begin below 2 GiB.
const PACKET_MAX: usize = 1 << 30;

/// The most bytes of terms that a fragmented message may have: a binary's length is 32 bits.
const LARGE_MAX: usize = u32::MAX as usize;

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing but a sign of life.
    Tick,
    /// A signal between processes.
    Message {
        /// What it means and whom it is for.
        control: Control,
        /// The message, the reason, or the arguments, as [`Control`] says.
        payload: Option<Term>,
    },
}

/// What a peer may make a decoder hold.
///
/// Buffers grow with the bytes that arrive, never with a length that is only claimed.
#[derive(Clone, Debug)]
pub struct FrameLimits {
    /// The longest packet, in bytes. Not less where fragments are negotiated: what an OTP process sends while its
    /// node is still connecting is encoded before that is known, and comes whole.
    pub frame: usize,
    /// The most fragments of a message. OTP makes fragments of 64 KiB: these would be 4 GiB.
    pub fragments: u64,
    /// How many messages may be arriving in fragments at once. A peer has one for each of its processes that is
    /// sending a large message.
    pub sequences: usize,
    /// The longest message in fragments, in bytes.
    pub message: usize,
    /// How many bytes all messages that are arriving in fragments may have together.
    pub fragmented: usize,
    /// What a term may make a decoder do.
    pub terms: Limits,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            frame: 128 << 20,
            fragments: 65_536,
            sequences: 16_384,
            message: 256 << 20,
            fragmented: 1 << 30,
            terms: Limits::default(),
        }
    }
}

/// Why a connection cannot go on: the protocol is stateful, what follows a broken frame has no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What is wrong.
    pub kind: FrameErrorKind,
    /// The offset in the packet; of a message that came in fragments, in its terms.
    pub at: usize,
    /// The offset of the frame in all that was received after the handshake.
    pub position: u64,
    /// The length of the packet.
    pub length: usize,
    /// Its first bytes, at most 32.
    pub head: Vec<u8>,
}

/// What can be wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// The packet is longer than [`FrameLimits::frame`].
    Length {
        /// That limit.
        limit: usize,
    },
    /// The packet does not begin as the negotiated flags demand.
    Head {
        /// How it should.
        expected: &'static str,
    },
    /// The header has atoms although no atom cache was negotiated.
    Header {
        /// How many.
        references: u8,
    },
    /// The header refers to a slot of the atom cache that was never filled.
    EmptySlot {
        /// The slot.
        slot: usize,
    },
    /// The control tuple has no elements.
    EmptyTuple,
    /// No operation has this code with this many elements.
    Operation {
        /// The code.
        operation: i64,
        /// The number of elements, the code included.
        arity: usize,
    },
    /// The operation has a payload, and none is there.
    PayloadMissing {
        /// The message.
        message: &'static str,
    },
    /// A fragment does not fit those before it.
    Fragment {
        /// Its sequence.
        sequence: u64,
        /// Its number.
        fragment: u64,
        /// Why not.
        why: &'static str,
    },
    /// More than a limit of [`FrameLimits`] allows.
    Limit {
        /// Which.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A term is wrong.
    Term(DecodeErrorKind),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FrameErrorKind::Length { limit } => {
                write!(f, "a packet of more than {limit} bytes")?;
            }
            FrameErrorKind::Head { expected } => write!(f, "expected {expected}")?,
            FrameErrorKind::Header { references } => write!(
                f,
                "{references} atoms in a header, but no atom cache was negotiated"
            )?,
            FrameErrorKind::EmptySlot { slot } => {
                write!(f, "slot {slot} of the atom cache is empty")?;
            }
            FrameErrorKind::EmptyTuple => write!(f, "an empty control tuple")?,
            FrameErrorKind::Operation { operation, arity } => write!(
                f,
                "no operation {operation} with a control tuple of {arity} elements"
            )?,
            FrameErrorKind::PayloadMissing { message } => {
                write!(f, "{message} without its payload")?;
            }
            FrameErrorKind::Fragment {
                sequence,
                fragment,
                why,
            } => write!(f, "fragment {fragment} of sequence {sequence}: {why}")?,
            FrameErrorKind::Limit { what, limit } => write!(f, "more than {limit} {what}")?,
            FrameErrorKind::Term(kind) => {
                let kind = kind.clone();
                write!(f, "{}", DecodeError { kind, at: self.at })?;
            }
        }
        if !matches!(self.kind, FrameErrorKind::Term(_)) {
            write!(f, " (offset {})", self.at)?;
        }
        write!(
            f,
            " in a packet of {} bytes at byte {} of the connection:",
            self.length, self.position
        )?;
        for byte in &self.head {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FrameError {}

/// What is wrong with a packet, and where in it.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: FrameErrorKind,
    at: usize,
}

impl Fault {
    pub(crate) fn new(kind: FrameErrorKind, at: usize) -> Self {
        Self { kind, at }
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> &FrameErrorKind {
        &self.kind
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::new(FrameErrorKind::Term(error.kind), error.at)
    }
}

/// How packets look, by the negotiated flags.
#[derive(Clone, Copy, Debug)]
struct Framing {
    /// Packets have a header.
    header: bool,
    /// The header may have atoms.
    atoms: bool,
    /// Large messages come in fragments.
    fragments: bool,
}

impl Framing {
    fn new(flags: Flags) -> Self {
        let atoms = flags.contains(Flags::DIST_HDR_ATOM_CACHE);
        let fragments = flags.contains(Flags::FRAGMENTS);
        Self {
            header: atoms || fragments,
            atoms,
            fragments,
        }
    }
}

/// Takes bytes as they come and gives frames.
///
/// A long binary in a payload is a view of the bytes it came in, and keeps alive what came with it: its own message if
/// that is large, otherwise up to 64 KiB of its neighbours. Copy what is to be kept for long.
///
/// ```
/// use tiebeam_wire::flags::Flags;
/// use tiebeam_wire::frame::{Frame, FrameDecoder, FrameEncoder, FrameLimits};
///
/// let mut decoder = FrameDecoder::new(Flags::OFFERED, FrameLimits::default());
/// let mut bytes = Vec::new();
/// FrameEncoder::tick(&mut bytes);
/// decoder.push(&bytes[..3]);
/// assert_eq!(decoder.next(), Ok(None));
/// decoder.push(&bytes[3..]);
/// assert_eq!(decoder.next(), Ok(Some(Frame::Tick)));
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    framing: Framing,
    limits: FrameLimits,
    /// What arrived and is not yet known to be whole frames.
    buffer: BytesMut,
    /// Whole frames that were not yet asked for.
    frames: Bytes,
    cache: ReceiverCache,
    /// The atoms of the current packet's header.
    atoms: Vec<Atom>,
    run: Run,
    assembler: Assembler,
    /// The offset of `frames` in all that was received.
    position: u64,
    broken: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder for a connection with these negotiated flags, from the first byte after the handshake.
    pub fn new(flags: Flags, limits: FrameLimits) -> Self {
        Self {
            framing: Framing::new(flags),
            limits,
            buffer: BytesMut::new(),
            frames: Bytes::new(),
            cache: ReceiverCache::new(),
            atoms: Vec::new(),
            run: Run::default(),
            assembler: Assembler::default(),
            position: 0,
            broken: None,
        }
    }

    /// The buffer to append received bytes to, with room for a read. Call [`next`](Self::next) until it gives
    /// `None` after each read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            self.buffer.reserve(READ);
        }
        &mut self.buffer
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there. Fragments give nothing until their message is complete.
    ///
    /// After an error every further call gives the same error: close the connection.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator has no third outcome"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        loop {
            if self.frames.is_empty() && !self.gather()? {
                return Ok(None);
            }
            let length = u32::from_be_bytes([
                self.frames[0],
                self.frames[1],
                self.frames[2],
                self.frames[3],
            ]) as usize;
            let mut packet = self.frames.split_to(4 + length);
            packet.advance(4);
            match self.packet(&packet) {
                Ok(frame) => {
                    self.position += 4 + length as u64;
                    if frame.is_some() {
                        return Ok(frame);
                    }
                }
                Err(fault) => return Err(self.broken(fault, length, &packet)),
            }
        }
    }

    /// Moves all whole frames from the buffer to `frames`, at once: sharing bytes has a cost. False if there are none.
    fn gather(&mut self) -> Result<bool, FrameError> {
        let mut end = 0;
        while let Some(prefix) = self.buffer.get(end..end + 4) {
            let length = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
            if length > self.limits.frame {
                if end > 0 {
                    break;
                }
                let limit = self.limits.frame;
                let start = self.buffer.split_off(4).freeze();
                return Err(self.broken(
                    Fault::new(FrameErrorKind::Length { limit }, 0),
                    length,
                    &start,
                ));
            }
            if self.buffer.len() - end < 4 + length {
                break;
            }
            end += 4 + length;
        }
        self.frames = self.buffer.split_to(end).freeze();
        Ok(end > 0)
    }

    fn broken(&mut self, fault: Fault, length: usize, packet: &[u8]) -> FrameError {
        let error = FrameError {
            kind: fault.kind,
            at: fault.at,
            position: self.position,
            length,
            head: packet[..packet.len().min(SHOWN)].to_vec(),
        };
        self.broken = Some(error.clone());
        error
    }

    fn packet(&mut self, packet: &Bytes) -> Result<Option<Frame>, Fault> {
        if packet.is_empty() {
            return Ok(Some(Frame::Tick));
        }
        let expected = |expected| Fault::new(FrameErrorKind::Head { expected }, 0);
        if !self.framing.header {
            if packet[0] != PASS_THROUGH {
                return Err(expected("a packet without a header: 112"));
            }
            return self.pass_through(packet).map(Some);
        }
        match (packet[0], packet.get(1)) {
            (tag::VERSION, Some(&WHOLE)) => self.whole(packet).map(Some),
            (tag::VERSION, Some(&START)) if self.framing.fragments => self.start(packet),
            (tag::VERSION, Some(&CONTINUATION)) if self.framing.fragments => {
                self.continuation(packet)
            }
            _ if self.framing.fragments => {
                Err(expected("a packet with a header: 131 68, 131 69 or 131 70"))
            }
            _ => Err(expected("a packet with a header: 131 68")),
        }
    }

    fn pass_through(&mut self, packet: &Bytes) -> Result<Frame, Fault> {
        let mut decoder = Decoder::new(packet, 1, &self.limits.terms);
        decoder.version()?;
        let (control, payload) = control::read(&mut decoder)?;
        if payload == Payload::Follows && decoder.remaining() > 0 {
            decoder.version()?;
        }
        message(control, payload, &mut decoder)
    }

    fn whole(&mut self, packet: &Bytes) -> Result<Frame, Fault> {
        if let Some((at, control)) = self.run.goes_on(packet) {
            let mut decoder = Decoder::new(packet, at, &self.limits.terms).with_atoms(&self.atoms);
            return message(control, Payload::Follows, &mut decoder);
        }
        let at = self.header(packet, 2)?;
        let mut decoder = Decoder::new(packet, at, &self.limits.terms).with_atoms(&self.atoms);
        let (control, payload) = control::read(&mut decoder)?;
        if payload == Payload::Follows {
            self.run.begin(&packet[..decoder.position()], &control);
        }
        message(control, payload, &mut decoder)
    }

    fn header(&mut self, packet: &Bytes, at: usize) -> Result<usize, Fault> {
        self.run.end();
        if !self.framing.atoms
            && let Some(references @ 1..) = packet.get(at).copied()
        {
            return Err(Fault::new(FrameErrorKind::Header { references }, at));
        }
        self.cache.read(packet, at, &mut self.atoms)
    }

    fn start(&mut self, packet: &Bytes) -> Result<Option<Frame>, Fault> {
        let (sequence, fragments) = fragment_of(packet)?;
        // The atoms are defined even if the message is never completed.
        let at = self.header(packet, PREFIX)?;
        if fragments == 0 {
            return Err(fault(sequence, fragments, "the count must be at least 1"));
        }
        if fragments > self.limits.fragments {
            return Err(fault(sequence, fragments, "the count is beyond the limit"));
        }
        let mut decoder = Decoder::new(packet, at, &self.limits.terms).with_atoms(&self.atoms);
        // The control tuple must not be split. It is read again when the message is complete.
        let (control, payload) = control::read(&mut decoder)?;
        if fragments == 1 {
            return message(control, payload, &mut decoder).map(Some);
        }
        let atoms = take(&mut self.atoms);
        self.assembler
            .start(sequence, fragments, atoms, &packet[at..], &self.limits)?;
        Ok(None)
    }

    fn continuation(&mut self, packet: &Bytes) -> Result<Option<Frame>, Fault> {
        let (sequence, fragment) = fragment_of(packet)?;
        let part = &packet[PREFIX..];
        let complete = self
            .assembler
            .resume(sequence, fragment, part, &self.limits)?;
        let Some(Partial { atoms, terms, .. }) = complete else {
            return Ok(None);
        };
        let terms = Bytes::from(terms);
        let mut decoder = Decoder::new(&terms, 0, &self.limits.terms).with_atoms(&atoms);
        let (control, payload) = control::read(&mut decoder)?;
        message(control, payload, &mut decoder).map(Some)
    }
}

/// A run of messages from one process to another: their packets begin alike, up to the payload, and what was read of
/// one need not be read of the next. Only packets in a row are a run, so the atoms of the header are the same too.
#[derive(Debug, Default)]
struct Run {
    /// Head, header and control tuple.
    start: Vec<u8>,
    control: Option<Control>,
}

impl Run {
    fn begin(&mut self, start: &[u8], control: &Control) {
        // Only messages come in runs.
        if let Control::Send { .. } | Control::RegSend { .. } = control
            && start.len() <= RUN_START_MAX
        {
            self.start.clear();
            self.start.extend_from_slice(start);
            self.control = Some(control.clone());
        }
    }

    fn end(&mut self) {
        self.control = None;
    }

    /// The offset of the payload, and the control message, of a packet that goes on with the run.
    fn goes_on(&self, packet: &[u8]) -> Option<(usize, Control)> {
        let control = self.control.as_ref()?;
        packet
            .starts_with(&self.start)
            .then(|| (self.start.len(), control.clone()))
    }
}

fn fragment_of(packet: &Bytes) -> Result<(u64, u64), Fault> {
    match packet.get(2..PREFIX) {
        Some(mut words) => Ok((words.get_u64(), words.get_u64())),
        None => Err(Fault::new(
            FrameErrorKind::Term(DecodeErrorKind::Truncated),
            packet.len(),
        )),
    }
}

/// Reads the payload, if it follows. Bytes behind it are ignored, as OTP does.
fn message(control: Control, payload: Payload, decoder: &mut Decoder<'_>) -> Result<Frame, Fault> {
    let payload = match payload {
        Payload::None => None,
        Payload::Inside(reason) => Some(reason),
        Payload::Follows if decoder.remaining() == 0 => {
            let message = control.name();
            return Err(Fault::new(
                FrameErrorKind::PayloadMissing { message },
                decoder.position(),
            ));
        }
        Payload::Follows => Some(decoder.term()?),
    };
    Ok(Frame::Message { control, payload })
}

/// What became of a message given to [`FrameEncoder::encode`].
#[derive(Debug)]
pub enum Encoded {
    /// It was appended, all of it.
    Whole,
    /// It is too large for one packet. Nothing was appended; send its fragments when it suits.
    Large(LargeMessage),
}

/// Writes messages for one connection.
#[derive(Debug)]
pub struct FrameEncoder {
    flags: Flags,
    framing: Framing,
    cache: Option<Box<SenderCache>>,
    /// The terms of the packet that is being written: its header comes before them and is known after them.
    scratch: Vec<u8>,
    /// The number of the last large message.
    sequence: u64,
}

impl FrameEncoder {
    /// An encoder for a connection with these negotiated flags.
    pub fn new(flags: Flags) -> Self {
        let framing = Framing::new(flags);
        Self {
            flags,
            framing,
            cache: framing.atoms.then(|| Box::new(SenderCache::new())),
            scratch: Vec::new(),
            sequence: 0,
        }
    }

    /// Appends one message, length prefix included, to `out`; or gives a large one back, to be sent in fragments.
    ///
    /// What was appended must reach the peer before anything that is encoded later: it may define atoms that later
    /// packets only refer to. So call this under the lock that orders the writes of the connection. An error and
    /// [`Encoded::Large`] leave `out` and the atom cache as they were.
    pub fn encode(
        &mut self,
        control: &Control,
        payload: Option<&Term>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        control::check(control, payload.is_some(), self.flags)?;
        if self.scratch.capacity() > SCRATCH {
            self.scratch = Vec::new();
        }
        self.scratch.clear();
        let terms = &mut self.scratch;
        let control_end = match &mut self.cache {
            Some(cache) => {
                cache.begin();
                let follows = control::write(control, payload, self.flags, terms, &mut **cache);
                let control_end = terms.len();
                if let (true, Some(payload)) = (follows, payload) {
                    write_term(payload, terms, &mut **cache);
                }
                control_end
            }
            None => {
                let version = (!self.framing.header).then_some(tag::VERSION);
                terms.extend(version);
                let follows = control::write(control, payload, self.flags, terms, &mut InlineAtoms);
                let control_end = terms.len();
                if let (true, Some(payload)) = (follows, payload) {
                    terms.extend(version);
                    write_term(payload, terms, &mut InlineAtoms);
                }
                control_end
            }
        };
        let length = terms.len();
        if self.framing.fragments && length > PART && control_end < length {
            if length > LARGE_MAX {
                return Err(self.too_long(length, LARGE_MAX));
            }
            return Ok(Encoded::Large(self.large(control_end)));
        }
        if length > PACKET_MAX {
            return Err(self.too_long(length, PACKET_MAX));
        }
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if self.framing.header {
            out.extend_from_slice(&[tag::VERSION, WHOLE]);
            match &mut self.cache {
                Some(cache) => cache.write_header(out),
                None => out.push(0),
            }
        } else {
            out.push(PASS_THROUGH);
        }
        out.extend_from_slice(&self.scratch);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(Encoded::Whole)
    }

    fn large(&mut self, control_end: usize) -> LargeMessage {
        self.sequence += 1;
        let mut header = Vec::new();
        match &mut self.cache {
            Some(cache) => cache.detach(&mut header),
            None => header.push(0),
        }
        LargeMessage::new(self.sequence, header, take(&mut self.scratch), control_end)
    }

    fn too_long(&mut self, length: usize, limit: usize) -> EncodeError {
        self.scratch = Vec::new();
        EncodeError::TooLong { length, limit }
    }

    /// Appends a tick.
    pub fn tick(out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 4]);
    }
}
