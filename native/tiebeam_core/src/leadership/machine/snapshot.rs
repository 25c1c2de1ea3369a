//! A machine in bytes: everything that decides what later commands do, the same on all members at the same entry.
//!
//! ```text
//! machine  = version:8 (1)  applied:64  time:64  keys  sessions  claims     integers are unsigned, big-endian
//! keys     = count:32  count × (name  revision:64  value)                   ascending
//! sessions = count:32  count × (session:64  ttl:64  until:64  known:64  count:16  count × (number:64  reply))
//! claims   = count:32  count × (kind:8  name  owner:64  token:64  (0:8 | 1:8 until:64)  value)
//! reply    = 1:8 (done) at:64 | 2:8 (differs) revision:64 | 3:8 (held) by:64 token:64 | 4:8 (not held) | 5:8 (full) limit:8
//! limit    = 0:8 (sessions) | 1:8 (outstanding) | 2:8 (store) | 3:8 (claims)
//! kind     = 0:8 lock | 1:8 singleton | 2:8 name
//! name     = length:16 bytes       value = length:32 bytes
//! ```
//!
//! Times are in microseconds, of the machine. Tags and numbers are append-only.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::claim::{Claim, Kind};
use super::command::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use super::session::SessionId;
use super::store::Stored;
use super::{Limit, Machine, Reply};
use crate::input::Short;
use crate::time::{Duration, Instant};

const VERSION: u8 = 1;

/// Bytes that are no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotError {
    what: &'static str,
    at: usize,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the state of the group cannot be read: {}, at byte {}",
            self.what, self.at
        )
    }
}

impl core::error::Error for SnapshotError {}

impl Machine {
    /// The whole state. The same bytes on all members to which the same was applied.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(64 + self.store.bytes()));
        out.0.push(VERSION);
        out.number(self.applied);
        out.number(self.time.as_micros());
        out.count(self.store.len());
        for (key, stored) in self.store.list(&[]) {
            out.name(key);
            out.number(stored.revision);
            out.value(&stored.value);
        }
        out.count(self.sessions.count());
        for session in self.sessions.kept() {
            for number in [
                session.id.0,
                session.ttl.as_micros(),
                session.until.as_micros(),
                session.known,
            ] {
                out.number(number);
            }
            out.0
                .extend_from_slice(&(session.replies.len() as u16).to_be_bytes());
            for &(number, reply) in &session.replies {
                out.number(number);
                out.reply(reply);
            }
        }
        out.count(self.claims.count());
        for (kind, name, claim) in self.claims.iter() {
            out.0.push(kind_number(kind));
            out.name(name);
            out.number(claim.owner.0);
            out.number(claim.token);
            out.0.push(u8::from(claim.until.is_some()));
            if let Some(until) = claim.until {
                out.number(until.as_micros());
            }
            out.value(&claim.value);
        }
        out.0
    }

    /// The machine that was written as `bytes`.
    ///
    /// # Errors
    ///
    /// They are none of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut input = Input::new(bytes);
        if input.byte()? != VERSION {
            return Err(input.error("its version is unknown"));
        }
        let mut machine = Self {
            applied: input.u64()?,
            time: input.instant()?,
            ..Self::default()
        };
        for _ in 0..input.u32()? {
            let (key, revision) = (input.name()?, input.u64()?);
            let value = input.value()?;
            if !machine.store.restore(key, Stored { revision, value }) {
                return Err(input.error("the keys are not in order, or too many"));
            }
        }
        for _ in 0..input.u32()? {
            let session = input.session()?;
            if !machine.sessions.restore(session) {
                return Err(input.error("the sessions are not in order, or too many"));
            }
        }
        for _ in 0..input.u32()? {
            let (kind, name, claim) = input.claim()?;
            if !machine.claims.restore(kind, name, claim) {
                return Err(input.error("the claims are not in order, or too many"));
            }
        }
        if !input.is_empty() {
            return Err(input.error("there are bytes behind it"));
        }
        Ok(machine)
    }
}

/// A session as it is written.
pub(super) struct Kept {
    pub(super) id: SessionId,
    pub(super) ttl: Duration,
    pub(super) until: Instant,
    pub(super) known: u64,
    pub(super) replies: Vec<(u64, Reply)>,
}

const fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Lock => 0,
        Kind::Singleton => 1,
        Kind::Name => 2,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&(count as u32).to_be_bytes());
    }

    fn name(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn value(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Done(at) => {
                self.0.push(1);
                self.number(at);
            }
            Reply::Differs { revision } => {
                self.0.push(2);
                self.number(revision);
            }
            Reply::Held { by, token } => {
                self.0.push(3);
                self.number(by.0);
                self.number(token);
            }
            // The others are never kept.
            Reply::NotHeld | Reply::NoSession | Reply::Stale | Reply::Malformed => self.0.push(4),
            Reply::Full(limit) => self.0.extend_from_slice(&[
                5,
                match limit {
                    Limit::Sessions => 0,
                    Limit::Outstanding => 1,
                    Limit::Store => 2,
                    Limit::Claims => 3,
                },
            ]),
        }
    }
}

type Input<'a> = crate::input::Input<'a, SnapshotError>;

impl From<Short> for SnapshotError {
    fn from(short: Short) -> Self {
        Self {
            what: "the bytes end too early",
            at: short.at,
        }
    }
}

impl<'a> Input<'a> {
    const fn error(&self, what: &'static str) -> SnapshotError {
        SnapshotError { what, at: self.at }
    }

    fn instant(&mut self) -> Result<Instant, SnapshotError> {
        Ok(Instant::from_micros(self.u64()?))
    }

    fn name(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count > MAX_KEY_BYTES {
            return Err(self.error("a key or a name is too long"));
        }
        Ok(self.take(count)?.to_vec())
    }

    fn value(&mut self) -> Result<Arc<[u8]>, SnapshotError> {
        let count = self.u32()? as usize;
        if count > MAX_VALUE_BYTES {
            return Err(self.error("a value is too long"));
        }
        Ok(Arc::from(self.take(count)?))
    }

    fn session(&mut self) -> Result<Kept, SnapshotError> {
        let (id, ttl) = (SessionId(self.u64()?), Duration::from_micros(self.u64()?));
        let (until, known) = (self.instant()?, self.u64()?);
        let mut replies = Vec::new();
        for _ in 0..u16::from_be_bytes(self.array()?) {
            replies.push((self.u64()?, self.reply()?));
        }
        Ok(Kept {
            id,
            ttl,
            until,
            known,
            replies,
        })
    }

    fn reply(&mut self) -> Result<Reply, SnapshotError> {
        Ok(match self.byte()? {
            1 => Reply::Done(self.u64()?),
            2 => Reply::Differs {
                revision: self.u64()?,
            },
            3 => Reply::Held {
                by: SessionId(self.u64()?),
                token: self.u64()?,
            },
            4 => Reply::NotHeld,
            5 => Reply::Full(match self.byte()? {
                0 => Limit::Sessions,
                1 => Limit::Outstanding,
                2 => Limit::Store,
                3 => Limit::Claims,
                _ => return Err(self.error("a limit is unknown")),
            }),
            _ => return Err(self.error("a reply is unknown")),
        })
    }

    fn claim(&mut self) -> Result<(Kind, Vec<u8>, Claim), SnapshotError> {
        let kind = match self.byte()? {
            0 => Kind::Lock,
            1 => Kind::Singleton,
            2 => Kind::Name,
            _ => return Err(self.error("a kind of claim is unknown")),
        };
        let (name, owner, token) = (self.name()?, SessionId(self.u64()?), self.u64()?);
        let until = match self.byte()? {
            0 => None,
            1 => Some(self.instant()?),
            _ => return Err(self.error("a flag is neither 0 nor 1")),
        };
        let claim = Claim {
            owner,
            token,
            until,
            value: self.value()?,
        };
        Ok((kind, name, claim))
    }
}
