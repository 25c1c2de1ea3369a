//! What an entry is found by: a name in a scope, or a process in a group of a scope.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::hash::siphash;

/// The most bytes in the name of a scope. Scopes are few and written by people.
pub const MAX_SCOPE_BYTES: usize = 255;

/// The most bytes in a name or in the name of a group, in its encoding: long enough for a path or a few UUIDs, short
/// enough that a hundred thousand of them are no burden to every node.
pub const MAX_NAME_BYTES: usize = 1024;

/// The most bytes in a pid, in its encoding. A pid in the external term format has 17 bytes beside its node's name,
/// which has at most [`MAX_NODE_NAME_BYTES`](crate::MAX_NODE_NAME_BYTES).
pub const MAX_PID_BYTES: usize = 600;

/// The most bytes in the metadata of one entry: every node holds all of it. Larger things belong behind the process.
pub const MAX_META_BYTES: usize = 4096;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A name: it has one process in the whole cluster.
    Name,
    /// A membership: a process in a group.
    Member,
}

/// A name in a scope, or a process in a group of a scope. Cheap to clone.
///
/// Keys are ordered by a hash of their bytes first. The hash is the same on all nodes, so that a range of hashes is a part
/// of the table that two nodes can compare.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    hash: u64,
    /// `kind:8 length:8 scope` and then the name, or `length:16 group pid`.
    bytes: Arc<[u8]>,
}

const NAME: u8 = 0;
const MEMBER: u8 = 1;

impl Key {
    /// The key of a name. The caller has checked the lengths.
    pub(crate) fn name_in(scope: &str, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(2 + scope.len() + name.len());
        bytes.push(NAME);
        bytes.push(scope.len() as u8);
        bytes.extend_from_slice(scope.as_bytes());
        bytes.extend_from_slice(name);
        Self::of(&bytes)
    }

    /// The key of a membership. The caller has checked the lengths.
    pub(crate) fn member_of(scope: &str, group: &[u8], pid: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(4 + scope.len() + group.len() + pid.len());
        bytes.push(MEMBER);
        bytes.push(scope.len() as u8);
        bytes.extend_from_slice(scope.as_bytes());
        bytes.extend_from_slice(&(group.len() as u16).to_be_bytes());
        bytes.extend_from_slice(group);
        bytes.extend_from_slice(pid);
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Self {
        Self {
            hash: siphash(bytes),
            bytes: bytes.into(),
        }
    }

    /// Takes the bytes of a peer for a key; `None` when they are none, or a part is too long or empty.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[kind, length], rest) = bytes.split_first_chunk()?;
        let (scope, rest) = rest.split_at_checked(usize::from(length))?;
        if scope.is_empty() || core::str::from_utf8(scope).is_err() {
            return None;
        }
        let name = match kind {
            NAME => rest,
            MEMBER => {
                let (&length, rest) = rest.split_first_chunk()?;
                let (group, pid) =
                    rest.split_at_checked(usize::from(u16::from_be_bytes(length)))?;
                if pid.is_empty() || pid.len() > MAX_PID_BYTES {
                    return None;
                }
                group
            }
            _ => return None,
        };
        (!name.is_empty() && name.len() <= MAX_NAME_BYTES).then(|| Self::of(bytes))
    }

    /// What the key is about.
    pub fn what(&self) -> What {
        if self.bytes[0] == NAME {
            What::Name
        } else {
            What::Member
        }
    }

    /// The scope.
    pub fn scope(&self) -> &str {
        core::str::from_utf8(&self.bytes[2..self.scope_end()])
            .expect("a key is made from a scope that is text")
    }

    /// The name, or the name of the group: the bytes that its driver gave.
    pub fn name(&self) -> &[u8] {
        let rest = &self.bytes[self.scope_end()..];
        match self.what() {
            What::Name => rest,
            What::Member => &rest[2..2 + self.group_length()],
        }
    }

    /// The process of a membership.
    pub fn member(&self) -> Option<&[u8]> {
        match self.what() {
            What::Name => None,
            What::Member => Some(&self.bytes[self.scope_end() + 2 + self.group_length()..]),
        }
    }

    fn scope_end(&self) -> usize {
        2 + usize::from(self.bytes[1])
    }

    fn group_length(&self) -> usize {
        let at = self.scope_end();
        usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A key that is before or at all keys of a hash.
    pub(crate) fn floor(hash: u64) -> Self {
        Self {
            hash,
            bytes: Arc::from([].as_slice()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}", self.what(), self.scope())?;
        write!(f, "/{}", self.name().escape_ascii())?;
        if let Some(pid) = self.member() {
            write!(f, "/{}", pid.escape_ascii())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_parts() {
        let name = Key::name_in("default", b"cache");
        assert_eq!(
            (name.what(), name.scope(), name.name()),
            (What::Name, "default", &b"cache"[..])
        );
        assert_eq!(name.member(), None);
        let member = Key::member_of("s", b"workers", b"pid");
        assert_eq!(
            (member.what(), member.scope(), member.name()),
            (What::Member, "s", &b"workers"[..])
        );
        assert_eq!(member.member(), Some(&b"pid"[..]));
        for key in [name, member] {
            assert_eq!(Key::parse(key.bytes()), Some(key));
        }
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let long = Key::name_in("s", &[7; MAX_NAME_BYTES + 1]);
        for bad in [
            &[][..],
            &[0],
            &[0, 1, b's'],
            &[0, 0, b'n'],
            &[0, 9, b's', b'n'],
            &[0, 1, 0xff, b'n'],
            &[2, 1, b's', b'n'],
            &[1, 1, b's', 0, 1, b'g'],
            &[1, 1, b's', 0, 0, b'p'],
            &[1, 1, b's', 0],
            long.bytes(),
        ] {
            assert_eq!(Key::parse(bad), None, "{bad:?}");
        }
    }
}
