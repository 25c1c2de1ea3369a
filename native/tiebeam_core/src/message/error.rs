//! Bytes that are no message.

use core::fmt;

use super::codec::{MAX_MESSAGE_BYTES, VERSION};
use crate::config::MAX_CLUSTER_BYTES;

/// Bytes that are no message: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub(super) what: What,
    pub(super) at: usize,
}

impl DecodeError {
    /// The offset of the first byte that is wrong.
    pub fn at(&self) -> usize {
        self.at
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    TooLong {
        bytes: usize,
    },
    Short,
    Trailing,
    Version(u8),
    Unknown {
        field: &'static str,
        value: u8,
    },
    Utf8,
    Cluster,
    Node,
    Limit {
        field: &'static str,
        count: usize,
        limit: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::TooLong { bytes } => write!(
                f,
                "{bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES}"
            ),
            What::Short => f.write_str("ends too early"),
            What::Trailing => f.write_str("bytes behind the end"),
            What::Version(version) => {
                write!(
                    f,
                    "version {version}, this node speaks version {VERSION}; run the same release on both"
                )
            }
            What::Unknown { field, value } => {
                write!(f, "unknown {field} {value}; the sender may be newer")
            }
            What::Utf8 => f.write_str("text is not UTF-8"),
            What::Cluster => write!(
                f,
                "cluster identity is not of 1 to {MAX_CLUSTER_BYTES} bytes"
            ),
            What::Node => f.write_str("not a node name"),
            What::Limit {
                field,
                count,
                limit,
            } => write!(
                f,
                "{field} of {count} bytes, more than the limit of {limit}"
            ),
        }?;
        write!(f, " (at byte {})", self.at)
    }
}

impl core::error::Error for DecodeError {}
