//! The head of the file, twice.
//!
//! The head says which of two commits is the latest, in one bit that no checksum covers. Were it flipped after a crash, the
//! store would go back by one write, and its member would forget a vote. So behind the head, in the rest of its page, which
//! redb leaves unused, stands a copy with a checksum: the two are written at once, and at a start the copy counts.
//!
//! After a cut of the power one of the two may be older than the other. Both are states that the head itself could have had
//! on disk then, so either may be taken.

use std::io;

use redb::StorageBackend;

/// Where the copy begins: `length:16`, the bytes of the head, their checksum. In another sector than the head, which has
/// 320 bytes.
const COPY_AT: usize = 1024;

/// The first page, which holds nothing else.
const PAGE: usize = 4096;

/// The longest head that has room twice.
const MAX_HEAD: usize = COPY_AT;

/// A file whose head is kept twice. Who opened it holds its lock: redb is not offered one.
#[derive(Debug)]
pub(crate) struct TwoHeads<B>(B);

impl<B: StorageBackend> TwoHeads<B> {
    /// Mends the head, if it is not what its copy says.
    pub(crate) fn new(file: B) -> io::Result<Self> {
        if file.len()? >= PAGE as u64 {
            let mut page = vec![0; PAGE];
            file.read(0, &mut page)?;
            if let Some(head) = copy(&page)
                && !page.starts_with(head)
            {
                file.write(0, head)?;
                file.sync_data()?;
            }
        }
        Ok(Self(file))
    }
}

/// The head as its copy has it, unless that is broken itself.
fn copy(page: &[u8]) -> Option<&[u8]> {
    let (length, rest) = page[COPY_AT..].split_first_chunk()?;
    let (head, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let sum = u64::from_be_bytes(*rest.first_chunk()?);
    (!head.is_empty() && head.len() <= MAX_HEAD && sum == checksum(head)).then_some(head)
}

/// FNV-1a. Each step can be undone, so two heads that differ in one byte have two sums.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl<B: StorageBackend> StorageBackend for TwoHeads<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset > 0 || data.len() > MAX_HEAD {
            return self.0.write(offset, data);
        }
        let mut both = data.to_vec();
        both.resize(COPY_AT, 0);
        both.extend_from_slice(&(data.len() as u16).to_be_bytes());
        both.extend_from_slice(data);
        both.extend_from_slice(&checksum(data).to_be_bytes());
        self.0.write(0, &both)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
