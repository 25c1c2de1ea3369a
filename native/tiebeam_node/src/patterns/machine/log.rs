//! What a machine's node knows of its commands: a value, the rules of [`StateMachine`](super::StateMachine) without a process.
//! `lib/tiebeam/state_machine/log.ex` is the same, and says why it is so.
//!
//! | key | value |
//! |---|---|
//! | `tiebeam/machine/NAME/c/CLIENT/NUMBER` | a batch of commands: a binary, the external term format of their list |
//! | `tiebeam/machine/NAME/snapshot` | `{1, Revision, Count, Id, Parts, Bytes, Digest}` |
//! | `tiebeam/snapshot/NAME/ID/PART` | its state, in binaries |

use tiebeam_wire::{Binary, Term};

/// A point comes after so many bytes of commands, too: what is told again to a machine that starts.
const POINT_BYTES: usize = 4 * 1024 * 1024;

/// What a batch takes in the store besides its bytes, at most.
const OVERHEAD: usize = 512;

/// Commands are refused while so many bytes of them have no snapshot: a quarter of the room of the store.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An MD5 digest. It guards against mistakes, not against people.
pub(super) type Digest = [u8; 16];

/// The keys of a machine begin so; the parts of its snapshots with the second.
pub(super) fn prefixes(name: &str) -> (String, String) {
    let machine = format!("tiebeam/machine/{name}/");
    (machine, format!("tiebeam/snapshot/{name}/"))
}

/// Commands that came together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch<C> {
    pub(super) key: Vec<u8>,
    /// Their place in the order.
    pub(super) revision: u64,
    pub(super) commands: Vec<C>,
    /// How many bytes they were.
    pub(super) bytes: usize,
}

/// A state that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The revision of its key.
    pub(super) at: u64,
    /// That of the last batch that it has.
    pub(super) revision: u64,
    /// How many commands it has.
    pub(super) count: u64,
    pub(super) id: String,
    pub(super) parts: u64,
    pub(super) bytes: u64,
    pub(super) digest: Digest,
}

impl Snapshot {
    pub(super) fn to_term(&self) -> Term {
        Term::tuple([
            Term::from(1),
            Term::from(self.revision),
            Term::from(self.count),
            Term::binary(&self.id),
            Term::from(self.parts),
            Term::from(self.bytes),
            Term::binary(self.digest),
        ])
    }

    fn of(at: u64, value: &Term) -> Option<Self> {
        let [version, revision, count, id, parts, bytes, digest] = value.as_tuple()? else {
            return None;
        };
        let number = |term: &Term| u64::try_from(term.as_integer()?).ok();
        (number(version)? == 1).then_some(())?;
        Some(Self {
            at,
            revision: number(revision)?,
            count: number(count)?,
            id: String::from_utf8(id.as_binary()?.as_slice().to_vec()).ok()?,
            parts: number(parts)?,
            bytes: number(bytes)?,
            digest: digest.as_binary()?.as_slice().try_into().ok()?,
        })
    }
}

/// What is at a key.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// Commands, not yet decoded.
    Batch {
        key: Vec<u8>,
        bytes: Binary,
        revision: u64,
    },
    Snapshot(Snapshot),
}

impl Told {
    /// What is at a key; `None` for what is no machine's.
    ///
    /// # Errors
    /// It was written by another version.
    pub(super) fn of(
        prefix: &str,
        key: &[u8],
        value: &Term,
        revision: u64,
    ) -> Result<Option<Self>, String> {
        let rest = key.strip_prefix(prefix.as_bytes()).unwrap_or_default();
        if rest == b"snapshot" {
            let snapshot = Snapshot::of(revision, value);
            let snapshot = snapshot
                .ok_or_else(|| format!("the snapshot of a machine is of another version: {value}"));
            return snapshot.map(|snapshot| Some(Self::Snapshot(snapshot)));
        }
        Ok(match value {
            Term::Binary(bytes) if rest.starts_with(b"c/") => Some(Self::Batch {
                key: key.to_vec(),
                bytes: bytes.clone(),
                revision,
            }),
            _ => None,
        })
    }
}

/// What the latest snapshot stands for is not among the batches: begin with that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind;

/// This machine had another state at a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diverged;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Log {
    every: u64,
    pub(super) snapshot: Option<Snapshot>,
    /// Of the last batch that was applied.
    pub(super) revision: u64,
    /// All commands that were applied.
    pub(super) count: u64,
    /// Those since the last point, and their bytes.
    since: u64,
    bytes: usize,
    /// Those before the last point.
    reached: usize,
    /// What was noted there: how many commands, the digest, and the bytes before it.
    points: Vec<(u64, Digest, usize)>,
}

impl Log {
    pub(super) fn new(every: u64, snapshot: Option<Snapshot>) -> Self {
        Self {
            every,
            revision: snapshot.as_ref().map_or(0, |snapshot| snapshot.revision),
            count: snapshot.as_ref().map_or(0, |snapshot| snapshot.count),
            snapshot,
            since: 0,
            bytes: 0,
            reached: 0,
            points: Vec::new(),
        }
    }

    /// Which of the batches are next, in order.
    pub(super) fn next<C>(
        &self,
        batches: Vec<Batch<C>>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Vec<Batch<C>>, Behind> {
        let mut batches = batches;
        batches.retain(|batch| batch.revision > self.revision);
        batches.sort_by_key(|batch| batch.revision);
        batches.dedup_by_key(|batch| batch.revision);
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.revision > self.revision) {
            let told = batches
                .iter()
                .filter(|batch| batch.revision <= snapshot.revision);
            let told: usize = told.map(|batch| batch.commands.len()).sum();
            if self.count + told as u64 != snapshot.count {
                return Err(Behind);
            }
        }
        Ok(batches)
    }

    /// A batch was applied; whether there is a point behind it.
    pub(super) fn applied(&mut self, revision: u64, commands: usize, bytes: usize) -> bool {
        self.revision = revision;
        self.count += commands as u64;
        self.since += commands as u64;
        self.bytes += bytes + OVERHEAD;
        let point = self.since >= self.every || self.bytes >= POINT_BYTES;
        if point {
            self.since = 0;
            self.reached = std::mem::take(&mut self.bytes);
        }
        point
    }

    /// The digest of the state at the point that was reached.
    pub(super) fn point(&mut self, digest: Digest) {
        self.points.push((self.count, digest, self.reached));
    }

    /// There is another snapshot.
    pub(super) fn kept(&mut self, snapshot: Snapshot) -> Result<(), Diverged> {
        if self
            .snapshot
            .as_ref()
            .is_some_and(|known| snapshot.at <= known.at)
        {
            return Ok(());
        }
        let own = self
            .points
            .iter()
            .find(|(count, ..)| *count == snapshot.count);
        if own.is_some_and(|(_, digest, _)| *digest != snapshot.digest) {
            return Err(Diverged);
        }
        self.points.retain(|(count, ..)| *count > snapshot.count);
        self.snapshot = Some(snapshot);
        Ok(())
    }

    /// How many bytes of commands may be without a snapshot, if there are as many.
    pub(super) fn full(&self) -> Option<usize> {
        let bytes = self.points.iter().map(|(_, _, bytes)| bytes);
        (self.bytes + bytes.sum::<usize>() >= MAX_BYTES).then_some(MAX_BYTES)
    }

    /// How many commands the latest snapshot has.
    pub(super) fn covered(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64, commands: &[u8]) -> Batch<u8> {
        Batch {
            key: vec![],
            revision,
            commands: commands.to_vec(),
            bytes: 10,
        }
    }

    fn snapshot(at: u64, revision: u64, count: u64) -> Snapshot {
        Snapshot {
            at,
            revision,
            count,
            id: "id".into(),
            parts: 1,
            bytes: 1,
            digest: [1; 16],
        }
    }

    #[test]
    fn batches_are_applied_once_in_the_order_of_their_revisions() {
        let mut log = Log::new(10, None);
        let told = vec![batch(9, &[3]), batch(4, &[1]), batch(7, &[2, 2])];
        let next = log.next(told.clone(), None).unwrap();
        let revisions: Vec<u64> = next.iter().map(|batch| batch.revision).collect();
        assert_eq!(revisions, [4, 7, 9]);
        assert!(!log.applied(4, 1, 10));
        assert!(!log.applied(7, 2, 10));
        assert_eq!(log.next(told, None), Ok(vec![batch(9, &[3])]));
        assert_eq!((log.count, log.revision), (3, 7));
    }

    #[test]
    fn a_snapshot_whose_commands_were_not_all_told_is_where_to_begin() {
        let mut log = Log::new(10, None);
        log.applied(4, 1, 10);
        let told = vec![batch(5, &[1]), batch(6, &[1]), batch(8, &[1])];
        // Three commands up to revision 6: all were told.
        assert!(log.next(told.clone(), Some(&snapshot(7, 6, 3))).is_ok());
        // Four: one was removed before it was told.
        assert_eq!(log.next(told, Some(&snapshot(7, 6, 4))), Err(Behind));
        // An old one says nothing.
        assert!(
            log.next(vec![batch(5, &[1])], Some(&snapshot(7, 4, 1)))
                .is_ok()
        );
    }

    #[test]
    fn a_point_comes_after_so_many_commands_or_bytes_and_a_snapshot_is_compared_with_it() {
        let mut log = Log::new(2, None);
        assert!(!log.applied(1, 1, 10));
        assert!(log.applied(2, 1, 10));
        log.point([1; 16]);
        assert!(log.applied(3, 1, POINT_BYTES));
        log.point([2; 16]);
        assert!(log.applied(4, 5, 1));
        log.point([3; 16]);
        assert_eq!(log.full(), None);
        log.applied(5, 1, MAX_BYTES - POINT_BYTES - 3000);
        log.point([4; 16]);
        assert_eq!(log.full(), None);
        log.applied(6, 1, 3000);
        assert_eq!(log.full(), Some(MAX_BYTES));

        assert_eq!(log.kept(snapshot(6, 2, 2)), Ok(()));
        assert_eq!((log.full(), log.covered()), (Some(MAX_BYTES), 2));
        // Of the one before it, told late.
        assert_eq!(log.kept(snapshot(5, 3, 3)), Ok(()));
        assert_eq!(log.covered(), 2);
        assert_eq!(log.kept(snapshot(7, 3, 3)), Err(Diverged));
        let mut later = snapshot(8, 4, 8);
        later.digest = [3; 16];
        assert_eq!(log.kept(later), Ok(()));
        assert_eq!((log.full(), log.covered()), (None, 8));
    }

    #[test]
    fn what_is_at_a_key_is_read_and_written_as_terms() {
        let kept = snapshot(9, 6, 4);
        let (prefix, _) = prefixes("bank");
        let read = |key: &str, value: &Term| {
            Told::of(&prefix, format!("{prefix}{key}").as_bytes(), value, 9)
        };
        assert!(
            matches!(read("snapshot", &kept.to_term()), Ok(Some(Told::Snapshot(read))) if read == kept)
        );
        assert!(read("snapshot", &Term::from(1)).is_err());
        assert!(matches!(
            read("c/a/1", &Term::binary("b")),
            Ok(Some(Told::Batch { .. }))
        ));
        assert!(matches!(read("c/a/1", &Term::from(1)), Ok(None)));
        assert!(matches!(read("d", &Term::binary("b")), Ok(None)));
    }
}
