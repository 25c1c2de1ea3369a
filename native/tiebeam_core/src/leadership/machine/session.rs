//! Sessions, and that a repeated command does nothing (dissertation, 6.3).
//!
//! A session is named by the index of the entry that opened it. Each of its commands has a number; the answer is kept until
//! the client says that it knows it, so that a copy of the command, which a new leader may find in its log, is answered
//! and not done again.

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

use super::snapshot::Kept;
use super::{Limit, Reply};
use crate::leadership::entry::Index;
use crate::time::{Duration, Instant};

/// The most sessions: one for each node, and those that their earlier lives left behind. All of them and the answers that
/// they keep are in each snapshot.
pub const MAX_SESSIONS: usize = 1024;

/// The most answers that are kept for one session: as many requests as it has under way.
pub const MAX_OUTSTANDING: usize = 1024;

/// The shortest life of a session or a lock: a few elections.
pub const MIN_TTL: Duration = Duration::from_millis(500);

/// The longest: a day.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A session: the index of the entry that opened it, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub Index);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    ttl: Duration,
    until: Instant,
    /// The client knows the answers to all requests before this one.
    known: u64,
    replies: BTreeMap<u64, Reply>,
}

/// All sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// When each ends, the first one first.
    ends: BTreeSet<(Instant, SessionId)>,
}

impl Sessions {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// The session is open.
    pub fn contains(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    pub(super) fn open(&mut self, index: Index, time: Instant, ttl: Duration) -> Result<(), Limit> {
        if self.open.len() >= MAX_SESSIONS {
            return Err(Limit::Sessions);
        }
        let ttl = ttl.clamp(MIN_TTL, MAX_TTL);
        let session = Session {
            ttl,
            until: time + ttl,
            known: 0,
            replies: BTreeMap::new(),
        };
        self.ends.insert((session.until, SessionId(index)));
        self.open.insert(SessionId(index), session);
        Ok(())
    }

    /// A command of `session` comes. Its answer, if it was done before; a refusal, if it cannot be done.
    pub(super) fn begin(
        &mut self,
        session: SessionId,
        number: u64,
        known: u64,
        time: Instant,
    ) -> Result<Option<Reply>, Reply> {
        let id = session;
        let Some(session) = self.open.get_mut(&id) else {
            return Err(Reply::NoSession);
        };
        self.ends.remove(&(session.until, id));
        session.until = session.until.max(time + session.ttl);
        self.ends.insert((session.until, id));
        if known > session.known {
            session.known = known;
            session.replies = session.replies.split_off(&known);
        }
        if number < session.known {
            return Err(Reply::Stale);
        }
        if let Some(&reply) = session.replies.get(&number) {
            return Ok(Some(reply));
        }
        if session.replies.len() >= MAX_OUTSTANDING {
            return Err(Reply::Full(Limit::Outstanding));
        }
        Ok(None)
    }

    pub(super) fn finish(&mut self, session: SessionId, number: u64, reply: Reply) {
        if let Some(session) = self.open.get_mut(&session) {
            session.replies.insert(number, reply);
        }
    }

    /// The answer to a request that its session does not know yet.
    pub fn reply(&self, session: SessionId, number: u64) -> Option<Reply> {
        self.open.get(&session)?.replies.get(&number).copied()
    }

    /// All of them, in order.
    pub(super) fn kept(&self) -> impl Iterator<Item = Kept> {
        self.open.iter().map(|(&id, session)| Kept {
            id,
            ttl: session.ttl,
            until: session.until,
            known: session.known,
            replies: session
                .replies
                .iter()
                .map(|(&number, &reply)| (number, reply))
                .collect(),
        })
    }

    /// A session as it was written, behind those before it. Says whether it can be.
    #[must_use]
    pub(super) fn restore(&mut self, kept: Kept) -> bool {
        let in_order = self
            .open
            .last_key_value()
            .is_none_or(|(&last, _)| last < kept.id)
            && kept.replies.is_sorted_by(|a, b| a.0 < b.0)
            && kept
                .replies
                .first()
                .is_none_or(|&(number, _)| number >= kept.known);
        let fits = self.open.len() < MAX_SESSIONS && kept.replies.len() <= MAX_OUTSTANDING;
        self.ends.insert((kept.until, kept.id));
        let session = Session {
            ttl: kept.ttl,
            until: kept.until,
            known: kept.known,
            replies: kept.replies.into_iter().collect(),
        };
        self.open.insert(kept.id, session);
        in_order && fits
    }

    pub(super) fn close(&mut self, session: SessionId) -> bool {
        let closed = self.open.remove(&session);
        closed.is_some_and(|closed| self.ends.remove(&(closed.until, session)))
    }

    /// The first session whose time is over.
    pub(super) fn expired(&self, time: Instant) -> Option<SessionId> {
        self.ends
            .first()
            .filter(|(until, _)| *until <= time)
            .map(|&(_, session)| session)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.first().map(|&(until, _)| until)
    }
}
