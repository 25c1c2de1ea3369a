//! The latest operations of this node, for peers that missed some.

use alloc::collections::VecDeque;

use super::message::{Operation, size_of};

/// The most operations kept, unless less is asked for. A peer that missed more compares tables instead, which costs about
/// as much.
pub const MAX_LOG: usize = 32_768;

/// The most bytes kept, roughly: metadata that was replaced since is in no table any more.
pub(crate) const MAX_LOG_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub(crate) struct Log {
    limit: usize,
    operations: VecDeque<Operation>,
    bytes: usize,
    head: u64,
}

impl Log {
    /// A log that keeps `limit` operations.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            operations: VecDeque::new(),
            bytes: 0,
            head: 0,
        }
    }

    /// The number of the latest operation; 0 before the first.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Adds an operation, which gets the number `head() + 1`.
    pub(crate) fn push(&mut self, operation: Operation) {
        self.bytes += size(&operation);
        self.operations.push_back(operation);
        self.head += 1;
        while self.operations.len() > self.limit || self.bytes > MAX_LOG_BYTES {
            let Some(oldest) = self.operations.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
        }
    }

    /// The operations behind number `seq`; `None` when some of them are no longer kept, or `seq` was never reached.
    pub(crate) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &Operation>> {
        let missing = usize::try_from(self.head.checked_sub(seq)?).ok()?;
        let skipped = self.operations.len().checked_sub(missing)?;
        Some(self.operations.range(skipped..))
    }
}

/// About how many bytes an operation takes in a message, and a little more in memory.
pub(crate) fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Put(key, item) => size_of(key, item),
        Operation::Drop(key, _) => key.bytes().len() + 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::key::Key;
    use crate::registry::output::Gone;
    use alloc::format;

    #[test]
    fn the_oldest_operations_are_forgotten() {
        let mut log = Log::new(MAX_LOG);
        assert_eq!(log.after(0).map(Iterator::count), Some(0));
        for n in 0..MAX_LOG + 10 {
            log.push(Operation::Drop(
                Key::name_in("s", format!("{n}").as_bytes()),
                Gone::Exited,
            ));
        }
        let head = log.head();
        assert_eq!(head, MAX_LOG as u64 + 10);
        assert!(log.after(9).is_none(), "number 10 is forgotten");
        assert_eq!(log.after(10).map(Iterator::count), Some(MAX_LOG));
        assert_eq!(log.after(head).map(Iterator::count), Some(0));
        assert!(
            log.after(head + 1).is_none(),
            "nobody can have more than there is"
        );
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut log = Log::new(MAX_LOG);
        let long = [7; 1000];
        for _ in 0..20_000 {
            log.push(Operation::Drop(Key::name_in("s", &long), Gone::Exited));
        }
        assert!(log.bytes <= MAX_LOG_BYTES);
        assert!(log.after(log.head() - 8000).is_some());
        assert!(log.after(log.head() - 9000).is_none());
    }
}
