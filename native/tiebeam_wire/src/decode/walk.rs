//! Terms as bytes: skipped, kept, inflated, without building any.

use std::sync::Arc;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

use super::{Decoder, tag};
use crate::encode::{AtomWriter, InlineAtoms};
use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::term::Opaque;

impl Decoder<'_> {
    /// Reads something, inflated first if it is compressed.
    pub(super) fn inflated<T>(
        &mut self,
        read: impl for<'b> FnOnce(&mut Decoder<'b>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if self.peek() != Some(tag::COMPRESSED) {
            return read(self);
        }
        let start = self.at;
        let bytes = self.inflate()?;
        let mut inner = Decoder {
            atoms: self.atoms,
            terms: self.terms,
            inflated: self.inflated,
            ..Decoder::new(&bytes, 0, self.limits)
        };
        let value = read(&mut inner)
            .and_then(|value| inner.end().map(|()| value))
            // Offsets inside the inflated bytes mean nothing to whoever reads the error.
            .map_err(|error| DecodeError { at: start, ..error })?;
        (self.terms, self.inflated) = (inner.terms, inner.inflated);
        Ok(value)
    }

    /// Reads one term and keeps its bytes; see [`Opaque`].
    pub fn opaque(&mut self) -> Result<Opaque, DecodeError> {
        self.inflated(|inner| inner.plain_opaque())
    }

    pub(super) fn plain_opaque(&mut self) -> Result<Opaque, DecodeError> {
        let start = self.at;
        let refers_to_header = self.walk(None)?;
        let bytes = if refers_to_header {
            let end = self.at;
            self.at = start;
            let mut out = Vec::with_capacity(end - start);
            self.walk(Some(&mut out))?;
            Bytes::from(out)
        } else {
            match self.owner {
                Some(owner) => owner.slice(start..self.at),
                None => Bytes::copy_from_slice(&self.data[start..self.at]),
            }
        };
        Ok(Opaque(Arc::new(bytes)))
    }

    /// Reads one term, checks its form, and drops it: no term is built, no atom interned.
    ///
    /// Everything is checked but that the keys of a map differ.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.inflated(|inner| inner.walk(None).map(drop))
    }

    /// Walks over one term; if told so, appends it to `out` with atoms in place of references to the packet's
    /// header. Returns whether there are such references.
    fn walk(&mut self, out: Option<&mut Vec<u8>>) -> Result<bool, DecodeError> {
        let mut walk = Walk {
            out,
            copied: self.at,
            refers_to_header: false,
            is_local: false,
        };
        // How many terms follow. A single count replaces a stack: only funs, which state their size, need one.
        let mut waiting = 1usize;
        let mut funs: Vec<OpenFun> = Vec::new();
        while waiting > 0 {
            waiting -= 1;
            let start = self.at;
            let tag = self.u8()?;
            let inner = match tag {
                tag::SMALL_TUPLE => usize::from(self.u8()?),
                tag::LARGE_TUPLE => self.u32()? as usize,
                tag::LIST => (self.u32()? as usize).saturating_add(1),
                tag::MAP => (self.u32()? as usize).saturating_mul(2),
                tag::NEW_FUN => {
                    if let Some(out) = &mut walk.out {
                        out.extend_from_slice(&self.data[walk.copied..self.at]);
                        walk.copied = self.at;
                        funs.push(OpenFun {
                            size_at: out.len(),
                            waiting,
                        });
                    }
                    self.take(4 + 1 + 16 + 4)?;
                    let free = self.u32()? as usize;
                    self.walk_atom(&mut walk)?;
                    self.integer()?;
                    self.integer()?;
                    match self.u8()? {
                        tag @ (tag::NEW_PID | tag::PID) => self.walk_identifier(tag, &mut walk)?,
                        _ => return self.unexpected("a pid"),
                    }
                    free
                }
                tag::NATIVE_RECORD => {
                    let fields = self.u32()? as usize;
                    self.u8()?;
                    // The record's module and name, and the names of its fields.
                    self.require(fields)?;
                    for _ in 0..fields + 2 {
                        self.walk_atom(&mut walk)?;
                    }
                    fields
                }
                tag::LOCAL => {
                    // Inside, the local node's name is [].
                    walk.is_local = true;
                    self.take(4)?;
                    1
                }
                tag::NIL => 0,
                tag::SMALL_INTEGER => self.take(1).map(|_| 0)?,
                tag::INTEGER => self.take(4).map(|_| 0)?,
                tag::STRING => {
                    let len = usize::from(self.u16()?);
                    self.take(len).map(|_| 0)?
                }
                tag::BINARY => {
                    let len = self.u32()? as usize;
                    self.take(len).map(|_| 0)?
                }
                tag::BIT_BINARY => self.bits().map(|_| 0)?,
                tag::NEW_FLOAT => self.float().map(|_| 0)?,
                tag::FLOAT => self.float_text().map(|_| 0)?,
                tag::SMALL_BIG | tag::LARGE_BIG => self.magnitude(tag).map(|_| 0)?,
                tag::NEW_PID
                | tag::PID
                | tag::NEW_PORT
                | tag::PORT
                | tag::V4_PORT
                | tag::NEWER_REFERENCE
                | tag::NEW_REFERENCE
                | tag::REFERENCE => self.walk_identifier(tag, &mut walk).map(|()| 0)?,
                tag::EXPORT => {
                    self.walk_atom(&mut walk)?;
                    self.walk_atom(&mut walk)?;
                    self.arity().map(|_| 0)?
                }
                _ => {
                    self.at = start;
                    if !self.try_walk_atom(&mut walk)? {
                        return Err(self.error(Kind::Tag(tag)));
                    }
                    0
                }
            };
            waiting = waiting.saturating_add(inner);
            self.require(waiting)?;
            while let Some(fun) = funs.pop_if(|fun| fun.waiting == waiting) {
                if let Some(out) = &mut walk.out {
                    out.extend_from_slice(&self.data[walk.copied..self.at]);
                    walk.copied = self.at;
                    let size = (out.len() - fun.size_at) as u32;
                    out[fun.size_at..fun.size_at + 4].copy_from_slice(&size.to_be_bytes());
                }
            }
        }
        if let Some(out) = walk.out {
            out.extend_from_slice(&self.data[walk.copied..self.at]);
        }
        Ok(walk.refers_to_header)
    }

    /// Walks over what follows the tag of a pid, port or reference.
    fn walk_identifier(&mut self, tag: u8, walk: &mut Walk<'_>) -> Result<(), DecodeError> {
        let words = match tag {
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE => self.reference_words()?,
            _ => 1,
        };
        if walk.is_local && self.peek() == Some(tag::NIL) {
            self.at += 1;
        } else {
            self.walk_atom(walk)?;
        }
        let rest = match tag {
            tag::NEW_PID => 4 + 4 + 4,
            tag::PID => 4 + 4 + 1,
            tag::V4_PORT => 8 + 4,
            tag::NEW_PORT => 4 + 4,
            tag::PORT | tag::REFERENCE => 4 + 1,
            tag::NEW_REFERENCE => 1 + 4 * words,
            _ => 4 + 4 * words,
        };
        self.take(rest).map(drop)
    }

    fn walk_atom(&mut self, walk: &mut Walk<'_>) -> Result<(), DecodeError> {
        if self.try_walk_atom(walk)? {
            Ok(())
        } else {
            Err(self.error(Kind::Expected("an atom")))
        }
    }

    /// Walks over an atom, if one is next.
    fn try_walk_atom(&mut self, walk: &mut Walk<'_>) -> Result<bool, DecodeError> {
        let start = self.at;
        let tag = self.u8()?;
        if tag == tag::ATOM_CACHE_REF {
            let index = self.u8()?;
            let Some(atom) = self.atoms.get(usize::from(index)) else {
                return Err(self.error(Kind::AtomReference(index)));
            };
            walk.refers_to_header = true;
            if let Some(out) = &mut walk.out {
                out.extend_from_slice(&self.data[walk.copied..start]);
                walk.copied = self.at;
                // One reference of two bytes may stand for a kilobyte.
                let before = out.len();
                InlineAtoms.write(atom, out);
                self.inflated = self
                    .inflated
                    .checked_sub(out.len() - before)
                    .ok_or_else(|| self.error(self.inflated_limit()))?;
            }
            return Ok(true);
        }
        if !matches!(
            tag,
            tag::SMALL_ATOM | tag::ATOM | tag::SMALL_ATOM_UTF8 | tag::ATOM_UTF8
        ) {
            self.at = start;
            return Ok(false);
        }
        self.atom_text(tag)?;
        Ok(true)
    }

    fn inflated_limit(&self) -> Kind {
        Kind::Limit {
            what: "bytes inflated from one packet",
            limit: self.limits.inflated,
        }
    }

    /// Inflates a compressed term to the bytes that it declares.
    fn inflate(&mut self) -> Result<Bytes, DecodeError> {
        /// The most that deflate shrinks anything: what a small input cannot fill is not allocated.
        const RATIO_MAX: usize = 1032;
        let start = self.at;
        let broken = DecodeError {
            kind: Kind::Compression,
            at: start,
        };
        self.at += 1;
        let declared = self.u32()? as usize;
        self.inflated = self.inflated.checked_sub(declared).ok_or(DecodeError {
            kind: self.inflated_limit(),
            at: start,
        })?;
        let deflated = &self.data[self.at..];
        if declared > deflated.len().saturating_mul(RATIO_MAX) {
            return Err(broken);
        }
        // One byte more than declared shows that there is more.
        let mut out = Vec::with_capacity(declared + 1);
        let mut stream = Decompress::new(true);
        loop {
            let before = (stream.total_in(), stream.total_out());
            let input = &deflated[before.0 as usize..];
            let status = stream.decompress_vec(input, &mut out, FlushDecompress::Finish);
            match status {
                Ok(Status::StreamEnd) if out.len() == declared => break,
                Ok(Status::Ok | Status::BufError)
                    if out.len() <= declared
                        && before != (stream.total_in(), stream.total_out()) => {}
                _ => return Err(broken),
            }
        }
        self.at += stream.total_in() as usize;
        Ok(Bytes::from(out))
    }
}

/// What a walk over a term has seen and written.
struct Walk<'o> {
    out: Option<&'o mut Vec<u8>>,
    /// The bytes before this offset are in `out`.
    copied: usize,
    refers_to_header: bool,
    /// Whether the walk is inside a node-local term.
    is_local: bool,
}

/// A fun that is being copied.
struct OpenFun {
    /// Where in the output its size stands.
    size_at: usize,
    /// It is complete when so many terms are left.
    waiting: usize,
}
