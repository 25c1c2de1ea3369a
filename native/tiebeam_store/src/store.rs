//! The file.

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, WriteTransaction,
};
use tiebeam_core::NodeName;
use tiebeam_core::leadership::group::{Disk, Stored};
use tiebeam_core::leadership::{MemberId, Restored};

use crate::error::StoreError;
use crate::head::TwoHeads;
use crate::record::{self, Malformed};

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "leadership.redb";

/// The version of the tables and records.
pub(crate) const FORMAT: u32 = 1;

/// Pages that are kept in memory: the log is written at its end and read at a start only.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// What there is one of, each under its name.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
/// The log: entries by their index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

const FORMAT_KEY: &str = "format";
const OWNER_KEY: &str = "owner";
const MEMBER_KEY: &str = "member";
const FOUNDING_KEY: &str = "founding";
const HARD_KEY: &str = "hard";
const SNAPSHOT_KEY: &str = "snapshot";

/// A store that is open, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// For what follows.
    pub store: Store,
    /// Who this node is in its group.
    pub member: MemberId,
    /// What it had written; [`Stored::is_empty`] says that it never did.
    pub stored: Stored,
}

/// The disk of a member. Open for one process at a time; closed when it is dropped.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl Store {
    /// Opens the store of `node` in `cluster`, and makes it, and its directory, if there is none: then it belongs to them, and
    /// `fresh` says who the node is from now on, a random number.
    ///
    /// All of it is checked and read, which for a store at its limits takes about a second. Blocks.
    ///
    /// # Errors
    ///
    /// Each [`StoreError`] but those of a write: the node must not take part in its group.
    pub fn open(
        directory: &Path,
        node: &NodeName,
        cluster: &str,
        fresh: impl FnOnce() -> MemberId,
    ) -> Result<Opened, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Io { path, error }
        };
        std::fs::create_dir_all(directory).map_err(io(directory))?;
        let path = directory.join(FILE_NAME);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(io(&path))?;
        // Until the file is closed.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse { path: path.clone() },
            TryLockError::Error(error) => io(&path)(error),
        })?;
        let file = FileBackend::new(file).map_err(|error| unusable(&path, error))?;
        let opened = Self::open_in(&path, node, cluster, fresh, file)?;
        // The file's name must survive what its bytes do.
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(io(directory))?;
        Ok(opened)
    }

    fn open_in(
        path: &Path,
        node: &NodeName,
        cluster: &str,
        fresh: impl FnOnce() -> MemberId,
        file: impl StorageBackend,
    ) -> Result<Opened, StoreError> {
        // A few bits, flipped where redb does not look for it, make it panic.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(TwoHeads::new(file)?)?;
            // The pages are checked by themselves only after a crash.
            let sound = database.check_integrity()?;
            Ok::<_, DatabaseError>((database, sound))
        }));
        let database = match opened {
            Ok(Ok((database, true))) => database,
            Ok(Ok((_, false))) | Err(_) => {
                return Err(damaged(path, "its pages do not fit together"));
            }
            Ok(Err(error)) => return Err(unusable(path, error)),
        };
        let mut store = Self {
            database,
            path: path.to_owned(),
            failed: None,
        };
        let owner = format!("{node} in {cluster:?}");
        let found = store.read(&owner).map_err(|error| error.at(path))?;
        let (member, stored) = match found {
            Some(found) => found,
            None => {
                let member = fresh();
                store.commit(|transaction| {
                    let mut facts = transaction.open_table(FACTS)?;
                    facts.insert(FORMAT_KEY, &FORMAT.to_be_bytes()[..])?;
                    facts.insert(OWNER_KEY, owner.as_bytes())?;
                    facts.insert(MEMBER_KEY, &member.0.to_be_bytes()[..])?;
                    transaction.open_table(LOG)?;
                    Ok(())
                })?;
                (member, Stored::default())
            }
        };
        Ok(Opened {
            store,
            member,
            stored,
        })
    }

    /// Makes a write durable: when this returns, all of it is on disk, and all before it. Blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`], and from then on [`StoreError::Failed`]: the member must stop.
    pub fn write(&mut self, disk: &Disk) -> Result<(), StoreError> {
        self.write_all([disk])
    }

    /// Makes several writes durable at once, in this order: all of them or none. They cost about as much as one.
    ///
    /// # Errors
    ///
    /// As for [`Store::write`].
    pub fn write_all<'a>(
        &mut self,
        disks: impl IntoIterator<Item = &'a Disk>,
    ) -> Result<(), StoreError> {
        self.commit(|transaction| {
            let mut facts = transaction.open_table(FACTS)?;
            let mut log = transaction.open_table(LOG)?;
            for disk in disks {
                let write = &disk.write;
                if disk.clear {
                    facts.remove(HARD_KEY)?;
                    facts.remove(SNAPSHOT_KEY)?;
                    log.retain(|_, _| false)?;
                }
                if let Some(founding) = &disk.founding {
                    facts.insert(FOUNDING_KEY, &record::founding(founding)[..])?;
                }
                if let Some(hard) = &write.hard {
                    facts.insert(HARD_KEY, &record::hard(hard)[..])?;
                }
                if let Some(snapshot) = &write.snapshot {
                    facts.insert(SNAPSHOT_KEY, &record::snapshot(snapshot)[..])?;
                }
                if write.purge > 0 {
                    log.retain_in(..=write.purge, |_, _| false)?;
                }
                if let Some(from) = write.truncate {
                    log.retain_in(from.., |_, _| false)?;
                }
                if let Some(first) = write.entries.first() {
                    log.retain_in(first.index.., |_, _| false)?;
                }
                for entry in &write.entries {
                    log.insert(entry.index, &record::entry(entry)[..])?;
                }
            }
            Ok(())
        })
    }

    fn commit(
        &mut self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        if let Some(why) = &self.failed {
            return Err(StoreError::Failed { why: why.clone() });
        }
        let done = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(true);
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        done().map_err(|error| {
            let (path, why) = (self.path.clone(), error.to_string());
            self.failed = Some(why.clone());
            StoreError::Write { path, why }
        })
    }

    /// `None` if nothing was ever written.
    fn read(&self, owner: &str) -> Result<Option<(MemberId, Stored)>, ReadError> {
        let transaction = self.database.begin_read()?;
        if transaction.list_tables()?.next().is_none() {
            return Ok(None);
        }
        let facts = transaction.open_table(FACTS)?;
        let fact = |key| -> Result<Option<Vec<u8>>, ReadError> {
            Ok(facts.get(key)?.map(|value| value.value().to_vec()))
        };
        let format = fact(FORMAT_KEY)?.and_then(|bytes| bytes.try_into().ok());
        let format = u32::from_be_bytes(format.ok_or(Malformed("format"))?);
        if format != FORMAT {
            return Err(ReadError::Version(format));
        }
        let found = fact(OWNER_KEY)?.ok_or(Malformed("owner"))?;
        if found != owner.as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            return Err(ReadError::Foreign(found, owner.to_owned()));
        }
        let member = fact(MEMBER_KEY)?.and_then(|bytes| bytes.try_into().ok());
        let member = u64::from_be_bytes(member.ok_or(Malformed("member"))?);
        let mut entries = Vec::new();
        for row in transaction.open_table(LOG)?.iter()? {
            let (index, bytes) = row?;
            entries.push(record::read_entry(index.value(), bytes.value())?);
        }
        let founding = fact(FOUNDING_KEY)?;
        let founding = founding.map(|bytes| record::read_founding(&bytes));
        let hard = fact(HARD_KEY)?.map(|bytes| record::read_hard(&bytes));
        let snapshot = fact(SNAPSHOT_KEY)?;
        let snapshot = snapshot.map(|bytes| record::read_snapshot(&bytes));
        let stored = Stored {
            founding: founding.transpose()?,
            restored: Restored {
                hard: hard.transpose()?.unwrap_or_default(),
                snapshot: snapshot.transpose()?,
                entries,
            },
        };
        Ok(Some((MemberId(member), stored)))
    }
}

/// What is wrong with what was read.
enum ReadError {
    Database(redb::Error),
    Malformed(Malformed),
    Version(u32),
    /// Whose it is, and who wants it.
    Foreign(String, String),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl ReadError {
    fn at(self, path: &Path) -> StoreError {
        let path_of = path.to_owned();
        match self {
            Self::Database(error) => unusable(path, error),
            Self::Malformed(Malformed(what)) => damaged(path, format!("its {what} makes no sense")),
            Self::Version(found) => StoreError::Version {
                path: path_of,
                found,
                known: FORMAT,
            },
            Self::Foreign(owner, wanted) => StoreError::Foreign {
                path: path_of,
                owner,
                wanted,
            },
        }
    }
}

fn damaged(path: &Path, why: impl ToString) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn unusable(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        // What has no number was not said by the system: the bytes are not what they should be.
        redb::Error::Io(error) if error.raw_os_error().is_some() => StoreError::Io {
            path: path.to_owned(),
            error,
        },
        error => damaged(path, error),
    }
}
