//! Bytes being read, by all codecs of the crate.

use core::marker::PhantomData;

/// The bytes still to be read. `E` is the error of a codec, which adds what it reads in an `impl` of its own.
pub(crate) struct Input<'a, E> {
    pub(crate) bytes: &'a [u8],
    /// The offset of the next byte.
    pub(crate) at: usize,
    error: PhantomData<fn() -> E>,
}

/// The bytes end before what is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    /// Where it begins.
    pub(crate) at: usize,
    /// Where the bytes end.
    pub(crate) end: usize,
}

impl<'a, E: From<Short>> Input<'a, E> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            error: PhantomData,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], E> {
        let taken = self.bytes[self.at..].get(..count).ok_or(Short {
            at: self.at,
            end: self.bytes.len(),
        })?;
        self.at += count;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], E> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, E> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, E> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, E> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}
