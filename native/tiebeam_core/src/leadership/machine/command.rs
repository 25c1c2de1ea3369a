//! What a machine is told, and the same in bytes.
//!
//! ```text
//! command = version:8 (1)  tag:8  session:64  number:64  known:64  time:64  body    integers are unsigned, big-endian
//! body      tag 1 Tick
//!           tag 2 Open      ttl:64
//!           tag 3 KeepAlive
//!           tag 4 Close
//!           tag 5 Put       key  value  expect
//!           tag 6 Delete    key  expect
//!           tag 7 Acquire   kind:8  key (name)  value  0:8 | 1:8 ttl:64
//!           tag 8 Renew     kind:8  key (name)  token:64  ttl:64
//!           tag 9 Release   kind:8  key (name)  token:64
//!           tag 10 Update   kind:8  key (name)  token:64  value
//! expect  = 0:8 | 1:8 revision:64 | 2:8 value
//! kind    = 0 lock | 1 singleton | 2 name
//! key     = length:16 bytes
//! value   = length:32 bytes
//! ```
//!
//! Times are in microseconds. Tags and numbers are append-only. All members must understand a command before one is
//! proposed: a machine that does not answers [`Reply::Malformed`](super::Reply::Malformed) and goes on, which is the same on all
//! members only while all run one version.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::claim::{Kind, MAX_NAME_BYTES};
use super::session::SessionId;
use crate::input::Short;
use crate::leadership::entry::{Index, MAX_COMMAND_BYTES};
use crate::time::{Duration, Instant};

const VERSION: u8 = 1;

/// The most bytes in a key.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most bytes in a value: two of them, a key, and what is around them fit into one command.
pub const MAX_VALUE_BYTES: usize = 120 * 1024;

const _: () = assert!(2 * MAX_VALUE_BYTES + MAX_KEY_BYTES + 128 <= MAX_COMMAND_BYTES);

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who asks. Of no meaning for [`Operation::Tick`] and [`Operation::Open`].
    pub session: SessionId,
    /// Which of its requests this is. The same when it is repeated.
    pub number: u64,
    /// It knows the answers to all its requests before this one.
    pub known: u64,
    /// The time of the leader that proposes it; see [`Stamp`](super::Stamp).
    pub time: Instant,
    /// What is to be done.
    pub operation: Operation,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Nothing, but time passed.
    Tick,
    /// Opens a session. Repeated, it opens another one: the first ends by itself.
    Open {
        /// How long the session lasts without a command.
        ttl: Duration,
    },
    /// Nothing, but the session lasts longer.
    KeepAlive,
    /// Ends the session, and all its claims with it.
    Close,
    /// Gives a key a value.
    Put {
        /// At most [`MAX_KEY_BYTES`].
        key: Vec<u8>,
        /// At most [`MAX_VALUE_BYTES`].
        value: Arc<[u8]>,
        /// What must hold.
        expect: Expect,
    },
    /// Removes a key. One that is not there is no error.
    Delete {
        /// At most [`MAX_KEY_BYTES`].
        key: Vec<u8>,
        /// What must hold.
        expect: Expect,
    },
    /// Claims a lock, a singleton or a name, if it is free.
    Acquire {
        /// Which kind.
        kind: Kind,
        /// At most [`MAX_NAME_BYTES`].
        name: Vec<u8>,
        /// At most [`MAX_VALUE_BYTES`]; whoever asks who holds it sees this.
        value: Arc<[u8]>,
        /// How long, if not as long as the session.
        ttl: Option<Duration>,
    },
    /// Holds a claim for longer. Never for less long than before.
    Renew {
        /// Which kind.
        kind: Kind,
        /// At most [`MAX_NAME_BYTES`].
        name: Vec<u8>,
        /// What was granted.
        token: Index,
        /// How long from now on.
        ttl: Duration,
    },
    /// Gives a claim back.
    Release {
        /// Which kind.
        kind: Kind,
        /// At most [`MAX_NAME_BYTES`].
        name: Vec<u8>,
        /// What was granted.
        token: Index,
    },
    /// Says something else with a claim.
    Update {
        /// Which kind.
        kind: Kind,
        /// At most [`MAX_NAME_BYTES`].
        name: Vec<u8>,
        /// What was granted.
        token: Index,
        /// At most [`MAX_VALUE_BYTES`]; takes the place of what was said.
        value: Arc<[u8]>,
    },
}

/// What must hold of a key before it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// It has this revision; 0 means that it is not there.
    Revision(Index),
    /// It has this value.
    Value(Arc<[u8]>),
}

/// A command that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// A part is too long.
    TooLong {
        /// Which.
        part: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The bytes are no command.
    Malformed {
        /// Where that was seen.
        at: usize,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { part, bytes, limit } => {
                write!(
                    f,
                    "a {part} of {bytes} bytes is too long, the limit is {limit}"
                )
            }
            Self::Malformed { at } => write!(f, "the bytes are no command, at byte {at}"),
        }
    }
}

impl core::error::Error for CommandError {}

impl Command {
    /// The command in bytes, for [`Consensus::propose`](crate::leadership::Consensus::propose).
    ///
    /// # Errors
    ///
    /// A part is too long.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        let mut out = Output(Vec::with_capacity(64));
        out.0.extend_from_slice(&[VERSION, self.operation.tag()]);
        for number in [
            self.session.0,
            self.number,
            self.known,
            self.time.as_micros(),
        ] {
            out.number(number);
        }
        match &self.operation {
            Operation::Tick | Operation::KeepAlive | Operation::Close => {}
            Operation::Open { ttl } => out.number(ttl.as_micros()),
            Operation::Put { key, value, expect } => {
                out.short("key", key, MAX_KEY_BYTES)?;
                out.value(value)?;
                out.expect(expect)?;
            }
            Operation::Delete { key, expect } => {
                out.short("key", key, MAX_KEY_BYTES)?;
                out.expect(expect)?;
            }
            Operation::Acquire {
                kind,
                name,
                value,
                ttl,
            } => {
                out.kind(*kind);
                out.short("name", name, MAX_NAME_BYTES)?;
                out.value(value)?;
                out.0.push(u8::from(ttl.is_some()));
                if let Some(ttl) = ttl {
                    out.number(ttl.as_micros());
                }
            }
            Operation::Renew {
                kind,
                name,
                token,
                ttl,
            } => {
                out.kind(*kind);
                out.short("name", name, MAX_NAME_BYTES)?;
                out.number(*token);
                out.number(ttl.as_micros());
            }
            Operation::Release { kind, name, token } => {
                out.kind(*kind);
                out.short("name", name, MAX_NAME_BYTES)?;
                out.number(*token);
            }
            Operation::Update {
                kind,
                name,
                token,
                value,
            } => {
                out.kind(*kind);
                out.short("name", name, MAX_NAME_BYTES)?;
                out.number(*token);
                out.value(value)?;
            }
        }
        Ok(out.0)
    }

    /// Whose command `bytes` are, and which of its requests: without reading the rest, and right only if the rest is.
    pub fn origin(bytes: &[u8]) -> Option<(SessionId, u64)> {
        let mut input = Input::new(bytes);
        let _version_and_tag = input.take(2).ok()?;
        Some((SessionId(input.u64().ok()?), input.u64().ok()?))
    }

    /// Reads one command that is all of `bytes`.
    ///
    /// # Errors
    ///
    /// The bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let mut input = Input::new(bytes);
        if input.byte()? != VERSION {
            return Err(CommandError::Malformed { at: 0 });
        }
        let tag = input.byte()?;
        let (session, number) = (SessionId(input.u64()?), input.u64()?);
        let (known, time) = (input.u64()?, Instant::from_micros(input.u64()?));
        let operation = input.operation(tag)?;
        if input.at < bytes.len() {
            return Err(input.malformed());
        }
        Ok(Self {
            session,
            number,
            known,
            time,
            operation,
        })
    }
}

impl Operation {
    /// Whether all parts are short enough.
    ///
    /// # Errors
    ///
    /// A part is too long.
    pub fn check(&self) -> Result<(), CommandError> {
        match self {
            Self::Tick | Self::Open { .. } | Self::KeepAlive | Self::Close => Ok(()),
            Self::Put { key, value, expect } => {
                check("key", key, MAX_KEY_BYTES)?;
                check("value", value, MAX_VALUE_BYTES)?;
                expect.check()
            }
            Self::Delete { key, expect } => {
                check("key", key, MAX_KEY_BYTES)?;
                expect.check()
            }
            Self::Acquire { name, value, .. } | Self::Update { name, value, .. } => {
                check("name", name, MAX_NAME_BYTES)?;
                check("value", value, MAX_VALUE_BYTES)
            }
            Self::Renew { name, .. } | Self::Release { name, .. } => {
                check("name", name, MAX_NAME_BYTES)
            }
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Tick => 1,
            Self::Open { .. } => 2,
            Self::KeepAlive => 3,
            Self::Close => 4,
            Self::Put { .. } => 5,
            Self::Delete { .. } => 6,
            Self::Acquire { .. } => 7,
            Self::Renew { .. } => 8,
            Self::Release { .. } => 9,
            Self::Update { .. } => 10,
        }
    }
}

impl Expect {
    fn check(&self) -> Result<(), CommandError> {
        match self {
            Self::Anything | Self::Revision(_) => Ok(()),
            Self::Value(value) => check("value", value, MAX_VALUE_BYTES),
        }
    }
}

struct Output(Vec<u8>);

impl Output {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn kind(&mut self, kind: Kind) {
        self.0.push(match kind {
            Kind::Lock => 0,
            Kind::Singleton => 1,
            Kind::Name => 2,
        });
    }

    fn short(
        &mut self,
        part: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), CommandError> {
        check(part, bytes, limit)?;
        self.0
            .extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        check("value", bytes, MAX_VALUE_BYTES)?;
        self.0
            .extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn expect(&mut self, expect: &Expect) -> Result<(), CommandError> {
        match expect {
            Expect::Anything => self.0.push(0),
            Expect::Revision(revision) => {
                self.0.push(1);
                self.number(*revision);
            }
            Expect::Value(value) => {
                self.0.push(2);
                self.value(value)?;
            }
        }
        Ok(())
    }
}

fn check(part: &'static str, bytes: &[u8], limit: usize) -> Result<(), CommandError> {
    let bytes = bytes.len();
    if bytes > limit {
        return Err(CommandError::TooLong { part, bytes, limit });
    }
    Ok(())
}

type Input<'a> = crate::input::Input<'a, CommandError>;

impl From<Short> for CommandError {
    fn from(short: Short) -> Self {
        Self::Malformed { at: short.at }
    }
}

impl<'a> Input<'a> {
    const fn malformed(&self) -> CommandError {
        CommandError::Malformed { at: self.at }
    }

    fn span(&mut self) -> Result<Duration, CommandError> {
        Ok(Duration::from_micros(self.u64()?))
    }

    fn short(&mut self, part: &'static str, limit: usize) -> Result<Vec<u8>, CommandError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        let bytes = self.take(count)?;
        check(part, bytes, limit)?;
        Ok(bytes.to_vec())
    }

    fn key(&mut self) -> Result<Vec<u8>, CommandError> {
        self.short("key", MAX_KEY_BYTES)
    }

    fn name(&mut self) -> Result<Vec<u8>, CommandError> {
        self.short("name", MAX_NAME_BYTES)
    }

    fn value(&mut self) -> Result<Arc<[u8]>, CommandError> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        let bytes = self.take(count)?;
        check("value", bytes, MAX_VALUE_BYTES)?;
        Ok(Arc::from(bytes))
    }

    fn expect(&mut self) -> Result<Expect, CommandError> {
        match self.byte()? {
            0 => Ok(Expect::Anything),
            1 => Ok(Expect::Revision(self.u64()?)),
            2 => Ok(Expect::Value(self.value()?)),
            _ => Err(CommandError::Malformed { at: self.at - 1 }),
        }
    }

    fn kind(&mut self) -> Result<Kind, CommandError> {
        match self.byte()? {
            0 => Ok(Kind::Lock),
            1 => Ok(Kind::Singleton),
            2 => Ok(Kind::Name),
            _ => Err(CommandError::Malformed { at: self.at - 1 }),
        }
    }

    fn operation(&mut self, tag: u8) -> Result<Operation, CommandError> {
        Ok(match tag {
            1 => Operation::Tick,
            2 => Operation::Open { ttl: self.span()? },
            3 => Operation::KeepAlive,
            4 => Operation::Close,
            5 => Operation::Put {
                key: self.key()?,
                value: self.value()?,
                expect: self.expect()?,
            },
            6 => Operation::Delete {
                key: self.key()?,
                expect: self.expect()?,
            },
            7 => Operation::Acquire {
                kind: self.kind()?,
                name: self.name()?,
                value: self.value()?,
                ttl: match self.byte()? {
                    0 => None,
                    1 => Some(self.span()?),
                    _ => return Err(CommandError::Malformed { at: self.at - 1 }),
                },
            },
            8 => Operation::Renew {
                kind: self.kind()?,
                name: self.name()?,
                token: self.u64()?,
                ttl: self.span()?,
            },
            9 => Operation::Release {
                kind: self.kind()?,
                name: self.name()?,
                token: self.u64()?,
            },
            10 => Operation::Update {
                kind: self.kind()?,
                name: self.name()?,
                token: self.u64()?,
                value: self.value()?,
            },
            _ => return Err(CommandError::Malformed { at: 1 }),
        })
    }
}
