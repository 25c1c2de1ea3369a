//! What the store promises, and what a broken disk does to it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use tiebeam_core::Random;
use tiebeam_core::leadership::group::Founding;
use tiebeam_core::leadership::{
    Configuration, Entry, HardState, Index, Payload, PersistToken, Snapshot, Term, Write,
};

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn configuration() -> Configuration {
    Configuration::new([MemberId(1), MemberId(2), MemberId(3)], [])
        .unwrap()
        .on_nodes([(MemberId(1), name("a@h"))])
}

fn entry(index: Index, term: Term) -> Entry {
    let bytes = format!("entry {index} of term {term}").repeat(8);
    Entry {
        index,
        term,
        payload: Payload::Command(bytes.into_bytes().into()),
    }
}

fn entries(range: Range<Index>, term: Term) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn nothing() -> Disk {
    Disk {
        founding: None,
        clear: false,
        write: Write {
            token: PersistToken(1),
            hard: None,
            snapshot: None,
            purge: 0,
            truncate: None,
            entries: Vec::new(),
        },
    }
}

fn appended(hard: HardState, entries: Vec<Entry>) -> Disk {
    let mut disk = nothing();
    disk.write.hard = Some(hard);
    disk.write.entries = entries;
    disk
}

fn voted(term: Term) -> HardState {
    HardState {
        term,
        vote: Some(MemberId(term + 1)),
    }
}

fn snapshot(index: Index, term: Term) -> Snapshot {
    Snapshot {
        index,
        term,
        configuration: configuration(),
        state: Arc::from(vec![7; 20_000]),
    }
}

fn founding(agreed: bool) -> Founding {
    Founding {
        group: 9,
        configuration: configuration(),
        agreed,
    }
}

/// A directory that is removed with its test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiebeam-store-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Result<Opened, StoreError> {
        Store::open(&self.0, &name("a@h"), "default", || MemberId(5))
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_written_is_there_after_a_start() {
    let directory = Directory::new();
    let mut opened = directory.open().unwrap();
    assert_eq!(opened.member, MemberId(5));
    assert!(opened.stored.is_empty());
    let mut first = appended(voted(1), entries(1..5, 1));
    first.founding = Some(founding(true));
    opened.store.write(&first).unwrap();
    drop(opened);

    let reopened = Store::open(&directory.0, &name("a@h"), "default", || unreachable!()).unwrap();
    assert_eq!(reopened.member, MemberId(5));
    assert_eq!(reopened.stored.founding, Some(founding(true)));
    assert_eq!(reopened.stored.restored.hard, voted(1));
    assert_eq!(reopened.stored.restored.entries, entries(1..5, 1));
    assert_eq!(reopened.stored.restored.snapshot, None);
}

#[test]
fn entries_replace_purge_and_truncate_in_that_order() {
    let directory = Directory::new();
    let mut store = directory.open().unwrap().store;
    store.write(&appended(voted(1), entries(1..10, 1))).unwrap();
    // Others replace the end of the log.
    store.write(&appended(voted(2), entries(6..8, 2))).unwrap();
    let mut compacted = nothing();
    compacted.write.snapshot = Some(snapshot(4, 1));
    compacted.write.purge = 3;
    store.write(&compacted).unwrap();
    drop(store);
    let Opened {
        mut store, stored, ..
    } = directory.open().unwrap();
    assert_eq!(stored.restored.snapshot, Some(snapshot(4, 1)));
    let kept = [entries(4..6, 1), entries(6..8, 2)].concat();
    assert_eq!(stored.restored.entries, kept);

    // A snapshot that the log does not agree with.
    let mut installed = nothing();
    installed.write.snapshot = Some(snapshot(20, 3));
    installed.write.purge = 20;
    installed.write.truncate = Some(1);
    let next = appended(voted(3), entries(21..23, 3));
    store.write_all([&installed, &next]).unwrap();
    drop(store);
    let Opened {
        mut store, stored, ..
    } = directory.open().unwrap();
    assert_eq!(stored.restored.snapshot, Some(snapshot(20, 3)));
    assert_eq!(stored.restored.entries, entries(21..23, 3));

    let mut anew = appended(HardState::default(), Vec::new());
    anew.clear = true;
    anew.founding = Some(founding(false));
    store.write(&anew).unwrap();
    drop(store);
    let opened = directory.open().unwrap();
    assert_eq!(opened.stored.restored, Restored::default());
    assert_eq!(opened.stored.founding, Some(founding(false)));
    assert_eq!(opened.member, MemberId(5));
}

#[test]
fn a_store_is_open_once() {
    let directory = Directory::new();
    let opened = directory.open().unwrap();
    let error = directory.open().unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(opened);
    directory.open().unwrap();
}

#[test]
fn a_store_belongs_to_a_node_and_a_cluster() {
    let directory = Directory::new();
    drop(directory.open().unwrap());
    let others = [("b@h", "default"), ("a@h", "other")];
    for (node, cluster) in others {
        let opened = Store::open(&directory.0, &name(node), cluster, || unreachable!());
        let error = opened.unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("belongs to a@h in \"default\""), "{text}");
    }
    directory.open().unwrap();
}

#[test]
fn a_later_format_is_refused() {
    let directory = Directory::new();
    let mut store = directory.open().unwrap().store;
    let later = store.commit(|transaction| {
        let mut facts = transaction.open_table(FACTS)?;
        facts.insert(FORMAT_KEY, &7_u32.to_be_bytes()[..])?;
        Ok(())
    });
    later.unwrap();
    drop(store);
    let error = directory.open().unwrap_err();
    assert!(
        matches!(error, StoreError::Version { found: 7, .. }),
        "{error}"
    );
}

/// F17: a lost disk is another member, which has promised nothing.
#[test]
fn without_its_file_a_node_is_another_member() {
    let directory = Directory::new();
    let mut store = directory.open().unwrap().store;
    store.write(&appended(voted(1), entries(1..5, 1))).unwrap();
    drop(store);
    std::fs::remove_file(directory.file()).unwrap();
    let opened = Store::open(&directory.0, &name("a@h"), "default", || MemberId(6)).unwrap();
    assert_eq!(opened.member, MemberId(6));
    assert!(opened.stored.is_empty());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = Directory::new();
    std::fs::write(&directory.0, b"a file").unwrap();
    let error = directory.open().unwrap_err();
    std::fs::remove_file(&directory.0).unwrap();
    let (text, path) = (error.to_string(), directory.0.display().to_string());
    assert!(
        matches!(error, StoreError::Io { .. }) && text.contains(&path),
        "{text}"
    );
}

/// A disk in memory, whose failures are arranged, and which can lose its power.
#[derive(Debug, Clone, Default)]
struct FakeDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Clone, Default)]
struct Platter {
    /// What was read and written by the process.
    bytes: Vec<u8>,
    /// What a cut of the power leaves for certain.
    synced: Vec<u8>,
    /// What may or may not have reached the disk since.
    unsynced: Vec<Change>,
    /// The disk is full at this length.
    full_at: Option<u64>,
    /// The next so many syncs succeed, the one after does not.
    syncs_left: Option<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length as usize, 0),
        Change::Bytes(at, written) => {
            let (at, end) = (*at as usize, *at as usize + written.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(written);
        }
    }
}

impl FakeDisk {
    fn with(bytes: Vec<u8>) -> Self {
        let platter = Platter {
            synced: bytes.clone(),
            bytes,
            ..Platter::default()
        };
        Self(Arc::new(Mutex::new(platter)))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn open(&self) -> Result<Opened, StoreError> {
        let path = Path::new("memory");
        let fresh = || MemberId(5);
        Store::open_in(path, &name("a@h"), "default", fresh, self.clone())
    }

    /// What is left when the power is cut now: of what was not synced, any part, in any order.
    fn cut(&self, random: &mut Random) -> Self {
        let platter = self.platter();
        let mut bytes = platter.synced.clone();
        for unsynced in &platter.unsynced {
            match unsynced {
                // A file system keeps its own order.
                Change::Length(_) => change(&mut bytes, unsynced),
                Change::Bytes(at, written) => {
                    // Sectors are written whole.
                    for (number, sector) in written.chunks(512).enumerate() {
                        if random.below(2) == 0 {
                            let at = at + 512 * number as u64;
                            change(&mut bytes, &Change::Bytes(at, sector.to_vec()));
                        }
                    }
                }
            }
        }
        Self::with(bytes)
    }
}

impl StorageBackend for FakeDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, at) = (self.platter(), offset as usize);
        let bytes = platter.bytes.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let platter = &mut *self.platter();
        if platter.full_at.is_some_and(|full| length > full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = Change::Length(length);
        change(&mut platter.bytes, &made);
        platter.unsynced.push(made);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let platter = &mut *self.platter();
        if let Some(left) = &mut platter.syncs_left {
            if *left == 0 {
                return Err(io::Error::other("input/output error"));
            }
            *left -= 1;
        }
        platter.unsynced.clear();
        platter.synced.clone_from(&platter.bytes);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let platter = &mut *self.platter();
        let made = Change::Bytes(offset, data.to_vec());
        change(&mut platter.bytes, &made);
        platter.unsynced.push(made);
        Ok(())
    }
}

/// F12: nothing is written behind a write that failed, and what was written before is there.
#[test]
fn after_a_failed_sync_nothing_is_written() {
    let disk = FakeDisk::default();
    let mut store = disk.open().unwrap().store;
    store.write(&appended(voted(1), entries(1..5, 1))).unwrap();
    disk.platter().syncs_left = Some(0);
    let second = appended(voted(2), entries(5..9, 2));
    let error = store.write(&second).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert!(error.to_string().contains("input/output error"), "{error}");
    // The disk is well again, but what it did meanwhile is not known.
    disk.platter().syncs_left = None;
    let error = store.write(&second).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    let mut random = Random::from_seed(1);
    let left = disk.cut(&mut random);
    drop(store);
    let stored = left.open().unwrap().stored.restored;
    assert_eq!(stored.hard, voted(1));
    assert_eq!(stored.entries, entries(1..5, 1));
}

#[test]
fn a_full_disk_stops_the_store() {
    let disk = FakeDisk::default();
    let mut store = disk.open().unwrap().store;
    let room = disk.platter().bytes.len() as u64 + 1_000_000;
    disk.platter().full_at = Some(room);
    let mut next = 1;
    let error = loop {
        match store.write(&appended(voted(1), entries(next..next + 500, 1))) {
            Ok(()) => next += 500,
            Err(error) => break error,
        }
        assert!(next < 1_000_000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    disk.platter().full_at = None;
    assert!(store.write(&nothing()).is_err());
    drop(store);
    let left = FakeDisk::with(disk.platter().bytes.clone());
    let stored = left.open().unwrap().stored.restored;
    assert_eq!(stored.entries, entries(1..next, 1));
}

/// F9, F10: the power is cut at every write and sync, with any part of what was not synced on disk. What was
/// acknowledged is there, and each write is there whole or not at all.
#[test]
fn a_cut_of_the_power_leaves_what_was_acknowledged() {
    for seed in 0..100 {
        let mut random = Random::from_seed(seed);
        let disk = FakeDisk::default();
        let mut store = disk.open().unwrap().store;
        let acknowledged = random.below(5);
        for round in 0..acknowledged {
            let first = 1 + 3 * round;
            let write = appended(voted(round + 1), entries(first..first + 3, round + 1));
            store.write(&write).unwrap();
        }
        // The last write gets as far as some sync.
        disk.platter().syncs_left = Some(random.below(3) as usize);
        let (first, term) = (1 + 3 * acknowledged, acknowledged + 1);
        let last = store.write(&appended(voted(term), entries(first..first + 3, term)));
        let left = disk.cut(&mut random);
        drop(store);
        let stored = left
            .open()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let stored = stored.stored.restored;
        let rounds = stored.hard.term;
        assert!(
            rounds == acknowledged + 1 || (rounds == acknowledged && last.is_err()),
            "seed {seed}: {rounds} writes are there, {acknowledged} were acknowledged, then {last:?}"
        );
        let expected =
            (0..rounds).flat_map(|round| entries(1 + 3 * round..4 + 3 * round, round + 1));
        assert_eq!(stored.entries, expected.collect::<Vec<_>>(), "seed {seed}");
    }
}

/// A file as a process that was killed left it, and what is in it.
fn killed() -> (Vec<u8>, Restored) {
    let disk = FakeDisk::default();
    let mut store = disk.open().unwrap().store;
    store.write(&appended(voted(1), entries(1..40, 1))).unwrap();
    let mut compacted = nothing();
    compacted.write.snapshot = Some(snapshot(30, 1));
    compacted.write.purge = 20;
    store.write(&compacted).unwrap();
    for term in 2..6 {
        let at = 38 + term;
        store
            .write(&appended(voted(term), entries(at..at + 1, term)))
            .unwrap();
    }
    let bytes = disk.platter().bytes.clone();
    drop(store);
    let expected = Restored {
        hard: voted(5),
        snapshot: Some(snapshot(30, 1)),
        entries: [
            entries(21..40, 1),
            (2..6).map(|term| entry(38 + term, term)).collect(),
        ]
        .concat(),
    };
    let stored = FakeDisk::with(bytes.clone()).open().unwrap().stored;
    assert_eq!(stored.restored, expected);
    (bytes, expected)
}

/// And as one that ended well did.
fn closed() -> (Vec<u8>, Restored) {
    let (bytes, expected) = killed();
    let disk = FakeDisk::with(bytes);
    drop(disk.open().unwrap());
    let bytes = disk.platter().bytes.clone();
    (bytes, expected)
}

/// F11: a flipped bit is refused, or mended, or it is where nothing is. Never is anything else read than what was written.
#[test]
fn a_flipped_bit_is_refused() {
    for (bytes, expected) in [killed(), closed()] {
        let mut random = Random::from_seed(11);
        let head = (0..320 * 8)
            .step_by(13)
            .chain([9 * 8, 9 * 8 + 1, 9 * 8 + 2]);
        let used: Vec<usize> = (4096..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        let body = (0..300).map(|_| used[random.below(used.len() as u64) as usize] * 8 + 3);
        let body: Vec<usize> = body.collect();
        let mut refused = 0;
        for bit in head.chain(body) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match FakeDisk::with(flipped).open() {
                Ok(opened) => {
                    let found = (opened.member, opened.stored.restored);
                    assert!(
                        found == (MemberId(5), expected.clone()),
                        "bit {bit}: {found:?}"
                    );
                }
                Err(StoreError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
        assert!(refused > 50, "{refused} were refused");
    }
}

/// Which commit is the latest is said in one bit: with that bit flipped the store would go back by one write.
#[test]
fn a_flipped_bit_in_the_head_is_mended() {
    let (bytes, expected) = killed();
    for bit in 0..320 * 8 {
        if bit % 13 > 0 && bit / 8 != 9 {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let opened = FakeDisk::with(flipped).open().unwrap();
        assert_eq!(opened.stored.restored, expected, "bit {bit}");
    }
    // One fault is mended, two are refused, or leave an earlier state that redb cannot tell from a commit under way.
    let mut flipped = bytes;
    flipped[9] ^= 1;
    flipped[1024 + 2 + 9] ^= 1;
    let opened = FakeDisk::with(flipped).open().unwrap();
    assert_eq!(opened.stored.restored.hard, voted(4));
}

/// F10: a file that lost its end, wherever it was cut.
#[test]
fn a_shortened_file_is_refused() {
    let (bytes, expected) = killed();
    for at in (1..bytes.len()).step_by(1777).chain([bytes.len() - 1]) {
        match FakeDisk::with(bytes[..at].to_vec()).open() {
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => panic!("at {at}: {error}"),
            Ok(opened) => assert_eq!(opened.stored.restored, expected, "at {at}"),
        }
    }
}
