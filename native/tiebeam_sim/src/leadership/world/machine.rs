//! What an engine runs on: a clock, a disk, and the process itself.

use std::collections::VecDeque;

use tiebeam_core::Instant;
use tiebeam_core::leadership::{Entry, HardState, PersistToken, Restored};

use super::Event;
use crate::leadership::check::Progress;
use crate::leadership::store::Store;

/// A write that is not on disk yet.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) token: PersistToken,
    pub(super) hard: Option<HardState>,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Machine<E> {
    pub(super) engine: Option<E>,
    /// Which start of the engine.
    pub(super) life: u64,
    /// The process stands still: nothing reaches it.
    pub(super) paused: bool,
    pub(super) parked: Vec<Event>,
    /// What survives a crash.
    pub(super) disk: Restored,
    pub(super) writes: VecDeque<Write>,
    /// When the sync under way is done, and the next one, if anything waits for it.
    syncing: u64,
    next_sync: Option<u64>,
    /// How much longer each write takes, in microseconds.
    pub(super) slow: u64,
    /// The log with what is being written.
    pub(super) image: Vec<Entry>,
    pub(super) store: Store,
    pub(super) applied: u64,
    pub(super) progress: Progress,
    /// The term in which it led when it was looked at last.
    pub(super) led: Option<u64>,
    pub(super) armed: Option<u64>,
    /// Microseconds of its clock for a thousand of the world.
    rate: u64,
    born: u64,
    offset: u64,
}

impl<E> Machine<E> {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            engine: None,
            life: 0,
            paused: false,
            parked: Vec::new(),
            disk: Restored::default(),
            writes: VecDeque::new(),
            syncing: 0,
            next_sync: None,
            slow: 0,
            image: Vec::new(),
            store: Store::default(),
            applied: 0,
            progress: Progress::default(),
            led: None,
            armed: None,
            rate,
            born: 0,
            offset: 0,
        }
    }

    /// A life begins at `now`, on what the last one left on disk; its clock shows `offset`.
    pub(super) fn begin(&mut self, now: u64, offset: u64) {
        self.life += 1;
        (self.born, self.offset) = (now, offset);
        self.image = self.disk.entries.clone();
        (self.store, self.applied, self.armed, self.led) = (Store::default(), 0, None, None);
        (self.syncing, self.next_sync) = (now, None);
        self.progress.restarted(self.disk.hard.term);
    }

    /// Ends a life. The first `kept` of the writes under way reach the disk, as they would in order.
    pub(super) fn end(&mut self, kept: usize) {
        self.engine = None;
        self.life += 1;
        for _ in 0..kept {
            self.write_next();
        }
        self.writes.clear();
        self.parked.clear();
        (self.paused, self.led) = (false, None);
    }

    /// What its clock shows.
    pub(super) fn clock(&self, now: u64) -> Instant {
        Instant::from_micros(self.offset + (now - self.born) * self.rate / 1000)
    }

    /// When its clock shows `local`.
    pub(super) fn world_time(&self, local: Instant) -> u64 {
        let since = local.as_micros().saturating_sub(self.offset).min(1 << 50);
        self.born + (since * 1000).div_ceil(self.rate)
    }

    /// Everything up to `token` is on disk. Says whether a vote was among it.
    pub(super) fn sync(&mut self, token: PersistToken) -> bool {
        let mut voted = false;
        while self
            .writes
            .front()
            .is_some_and(|write| write.token <= token)
        {
            voted |= self.write_next();
        }
        voted
    }

    /// When a write that is asked for at `now` is done, if a sync takes `delay`: with the next sync, as all others that
    /// wait for the one under way.
    pub(super) fn sync_done(&mut self, now: u64, delay: u64) -> u64 {
        let delay = delay + self.slow;
        if now >= self.syncing {
            self.syncing = self.next_sync.take().unwrap_or(0);
        }
        if now >= self.syncing {
            self.syncing = now + delay;
            return self.syncing;
        }
        *self.next_sync.get_or_insert(self.syncing + delay)
    }

    fn write_next(&mut self) -> bool {
        let Some(write) = self.writes.pop_front() else {
            return false;
        };
        if let Some(first) = write.entries.first() {
            self.disk.entries.truncate(first.index as usize - 1);
        }
        self.disk.entries.extend(write.entries);
        self.disk.hard = write.hard.unwrap_or(self.disk.hard);
        write.hard.is_some()
    }

    /// The entry is on its disk.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.disk
            .entries
            .get(entry.index as usize - 1)
            .is_some_and(|own| own.term == entry.term)
    }
}
