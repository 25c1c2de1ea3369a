//! Why a store cannot be used.

use std::fmt;
use std::path::PathBuf;

/// Why a store cannot be opened or written. A member must not run without what it had stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory or the file cannot be made or read.
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Another process has it open.
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another node, or for another cluster.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is: `node in cluster`.
        owner: String,
        /// Who wants it: `node in cluster`.
        wanted: String,
    },
    /// It was written by a version of Tiebeam that this one does not know.
    Version {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: u32,
        /// The version that this one knows.
        known: u32,
    },
    /// It is not what was written: a bit was flipped, or a part is missing.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A write failed. It may be on disk or not, and nothing more is written.
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An earlier write failed, so this one was not tried.
    Failed {
        /// What was wrong with the earlier one.
        why: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(
                f,
                "{}: {error}; the data directory must exist or be one that can be made, and this process must be allowed to write there",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "{} is in use by another process; end that one, or give this node a data directory of its own",
                path.display()
            ),
            Self::Foreign {
                path,
                owner,
                wanted,
            } => write!(
                f,
                "{} belongs to {owner}, this is {wanted}; give this node a data directory of its own, or remove the file if \
                 that node will never run again",
                path.display()
            ),
            Self::Version { path, found, known } => write!(
                f,
                "{} has format {found}, and this version of Tiebeam knows {known}; start the version that wrote it",
                path.display()
            ),
            Self::Damaged { path, why } => write!(
                f,
                "{} is damaged: {why}; remove the file if a majority of the voters is well: this node then returns as a new \
                 member, and gets the log from the others",
                path.display()
            ),
            Self::Write { path, why } => write!(
                f,
                "{} could not be written: {why}; mend the disk and start the node again",
                path.display()
            ),
            Self::Failed { why } => write!(f, "an earlier write failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
