//! What an engine runs on: a clock, a disk, and the process itself.

use std::collections::VecDeque;

use tiebeam_core::Instant;
use tiebeam_core::leadership::{
    Configuration, Entry, MemberId, Payload, PersistToken, Restored, Snapshot, Write,
};

use super::Event;
use crate::leadership::check::Progress;
use crate::leadership::store::Store;

/// So much lies between the numbers of two lives of a machine that lost its disk.
const DISKS: u64 = 100;

/// On which machine a member runs, or ran.
pub(super) fn machine_of(member: MemberId) -> usize {
    (member.0 % DISKS) as usize - 1
}

/// What of a log is in it, or is being written: a disk's, after all writes.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// The entry before the first one, and its term.
    base: (u64, u64),
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
    founding: Configuration,
}

impl Image {
    fn new(founding: Configuration, disk: &Restored) -> Self {
        let mut image = Self {
            base: (0, 0),
            entries: disk.entries.clone(),
            snapshot: disk.snapshot.clone(),
            founding,
        };
        match (image.entries.first(), &disk.snapshot) {
            (Some(first), _) if first.index == 1 => {}
            // Nobody knows the term of the entry before the first one, so the first takes its place.
            (Some(first), Some(snapshot)) if first.index <= snapshot.index => {
                image.base = (first.index, first.term);
                image.entries.remove(0);
            }
            (_, Some(snapshot)) => image.base = (snapshot.index, snapshot.term),
            (_, None) => {}
        }
        image
    }

    pub(super) fn base(&self) -> u64 {
        self.base.0
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(super) fn last_term(&self) -> u64 {
        self.entries.last().map_or(self.base.1, |entry| entry.term)
    }

    /// Behind the base.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The term of an entry that is not before the base.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// It has that entry, or stands for it.
    pub(super) fn has(&self, index: u64, term: u64) -> bool {
        let stands = index < self.base.0 || (index, term) == self.base;
        stands || self.get(index).is_some_and(|entry| entry.term == term)
    }

    pub(super) fn truncate(&mut self, first: u64) {
        let keep = first.saturating_sub(self.base.0 + 1);
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// A snapshot was written, and the entries up to `purge`, which is of `term`, are not needed any more.
    pub(super) fn compact(&mut self, snapshot: Option<&Snapshot>, (purge, term): (u64, u64)) {
        if let Some(snapshot) = snapshot {
            self.snapshot = Some(snapshot.clone());
        }
        if purge > self.base.0 {
            self.base = (purge, term);
            self.entries.retain(|entry| entry.index > purge);
        }
    }

    pub(super) fn snapshot(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }

    /// The configuration in force behind the entry `up_to`, or at the end of the log, and the entry that made it (0: it is that of a snapshot,
    /// or of the beginning).
    pub(super) fn configured(&self, up_to: u64) -> (&Configuration, u64, u64) {
        let found = self
            .entries
            .iter()
            .rev()
            .find_map(|entry| match &entry.payload {
                Payload::Configuration(configuration)
                    if entry.index > self.snapshot() && entry.index <= up_to =>
                {
                    Some((configuration, entry.index, entry.term))
                }
                _ => None,
            });
        let before = || match &self.snapshot {
            Some(snapshot) => (&snapshot.configuration, 0, 0),
            None => (&self.founding, 0, 0),
        };
        found.unwrap_or_else(before)
    }
}

#[derive(Debug)]
pub(super) struct Machine<E> {
    pub(super) engine: Option<E>,
    /// Whom it runs: another member after each loss of its disk.
    pub(super) id: MemberId,
    /// Which start of the engine.
    pub(super) life: u64,
    /// This life has taken what its disk had.
    pub(super) begun: bool,
    /// The process stands still: nothing reaches it.
    pub(super) paused: bool,
    pub(super) parked: Vec<Event>,
    /// What survives a crash.
    pub(super) disk: Restored,
    /// Disks that were lost, and whose they were: what they said before may still arrive.
    lost: Vec<(MemberId, Restored)>,
    pub(super) writes: VecDeque<Write>,
    /// When the sync under way is done, and the next one, if anything waits for it.
    syncing: u64,
    next_sync: Option<u64>,
    /// How much longer each write takes, in microseconds.
    pub(super) slow: u64,
    /// The disk takes no more: the next write fails.
    pub(super) full: bool,
    /// The log with what is being written.
    pub(super) image: Image,
    pub(super) store: Store,
    pub(super) applied: u64,
    pub(super) progress: Progress,
    /// The term in which it led when it was looked at last.
    pub(super) led: Option<u64>,
    /// The same of the term in which it stood for election.
    pub(super) stood: Option<u64>,
    pub(super) armed: Option<u64>,
    /// Microseconds of its clock for a thousand of the world.
    rate: u64,
    born: u64,
    offset: u64,
}

impl<E> Machine<E> {
    pub(super) fn new(member: usize, rate: u64, founding: Configuration) -> Self {
        Self {
            engine: None,
            id: MemberId(member as u64 + 1),
            life: 0,
            begun: false,
            paused: false,
            parked: Vec::new(),
            disk: Restored::default(),
            lost: Vec::new(),
            writes: VecDeque::new(),
            syncing: 0,
            next_sync: None,
            slow: 0,
            full: false,
            image: Image::new(founding, &Restored::default()),
            store: Store::default(),
            applied: 0,
            progress: Progress::default(),
            led: None,
            stood: None,
            armed: None,
            rate,
            born: 0,
            offset: 0,
        }
    }

    /// A life begins at `now`, on what the last one left on disk; its clock shows `offset`.
    pub(super) fn begin(&mut self, now: u64, offset: u64) {
        self.life += 1;
        self.begun = false;
        (self.born, self.offset) = (now, offset);
        self.image = Image::new(self.image.founding.clone(), &self.disk);
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

    /// The disk is lost between two lives, and with it whom the machine runs.
    pub(super) fn wipe(&mut self) {
        let lost = std::mem::take(&mut self.disk);
        self.lost.push((self.id, lost));
        self.id.0 += DISKS;
    }

    /// The disk forgets the last `count` entries that it said it had.
    pub(super) fn forget(&mut self, count: usize) {
        let keep = self.disk.entries.len().saturating_sub(count);
        let snapshot = self.disk.snapshot.as_ref();
        let least = snapshot.map_or(0, |snapshot| {
            let entries = self.disk.entries.iter();
            entries
                .filter(|entry| entry.index <= snapshot.index)
                .count()
        });
        self.disk.entries.truncate(keep.max(least));
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

    /// Nothing is under way any more, but for what is returned: it is done at once.
    pub(super) fn hurry(&mut self, now: u64) -> Option<PersistToken> {
        (self.syncing, self.next_sync) = (now, None);
        self.writes.back().map(|write| write.token)
    }

    fn write_next(&mut self) -> bool {
        let Some(write) = self.writes.pop_front() else {
            return false;
        };
        let disk = &mut self.disk;
        disk.snapshot = write.snapshot.or(disk.snapshot.take());
        let replaced = write.entries.first().map(|first| first.index);
        for first in write.truncate.into_iter().chain(replaced) {
            let keep = disk.entries.partition_point(|entry| entry.index < first);
            disk.entries.truncate(keep);
        }
        let purged = disk
            .entries
            .partition_point(|entry| entry.index <= write.purge);
        disk.entries.drain(..purged);
        disk.entries.extend(write.entries);
        self.disk.hard = write.hard.unwrap_or(self.disk.hard);
        write.hard.is_some()
    }

    /// The entry is on the disk of `member`, or was when that was lost, or a snapshot is that stands for it.
    pub(super) fn has(&self, member: MemberId, entry: &Entry) -> bool {
        let disk = if member == self.id {
            &self.disk
        } else if let Some((_, lost)) = self.lost.iter().find(|(lost, _)| *lost == member) {
            lost
        } else {
            return false;
        };
        let first = disk.entries.first();
        let place = first.and_then(|first| entry.index.checked_sub(first.index));
        let found = place.and_then(|place| disk.entries.get(usize::try_from(place).ok()?));
        let snapshot = disk.snapshot.as_ref();
        found.is_some_and(|own| own.term == entry.term)
            || snapshot.is_some_and(|snapshot| snapshot.index >= entry.index)
    }
}
