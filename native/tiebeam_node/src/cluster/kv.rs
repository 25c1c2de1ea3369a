//! What a Rust program does with the keys that a cluster agreed on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebeam_core::leadership::group::{Answer, Command, MAX_LIST, Read, Request, Stopped};
use tiebeam_core::leadership::machine::{Expect, Stored, WatchId};
use tiebeam_wire::{DecodeError, Term, decode};
use tokio::sync::mpsc;

use crate::cluster::handle::{self, Asked};
use crate::cluster::leadership::{LeadershipError, Shared, core_duration, unexpected};
use crate::cluster::table::term_bytes;
use crate::typed;

/// Changes that are kept for who watches and is slow. Who falls further behind is told how many it missed.
pub(super) const MAX_WATCHED: usize = 1024;

/// A small store that the cluster agrees on: what was acknowledged survives the loss of a minority of the voters, and is read by
/// whoever asks later. Clones are the same.
///
/// Keys are bytes, at most [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES); values are what serde makes of a type, in the external term
/// format, at most [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), so that Elixir reads what Rust writes and the other way round.
/// Each change gives its key a revision, and revisions only grow.
///
/// ```no_run
/// # async fn keys(cluster: tiebeam_node::ClusterHandle) -> Result<(), Box<dyn std::error::Error>> {
/// use tiebeam_node::Expected;
///
/// let kv = cluster.kv();
/// let revision = kv.put("user:1", "Alice").await?; // Tiebeam.KV.get(cluster, "user:1") over there
/// let user = kv.get::<String>("user:1").await?.expect("somebody else may have removed it");
/// assert!(user.revision >= revision);
/// kv.cas("user:1", Expected::Revision(user.revision), "Bob").await?;
/// for user in kv.list("user:").await? {
///     println!("{}: {}", user.key_text(), user.value::<String>()?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Consistency
///
/// Reads are linearizable unless [`Kv::consistency`] says otherwise: they have everything that was acknowledged anywhere before they were asked
/// for, and cost a message to the leader and one from it to a majority.
///
/// # Errors
///
/// After [`LeadershipError::Unknown`] a change may be done, or be done later: read the key before it is repeated. After all
/// others nothing was done.
#[derive(Clone)]
pub struct Kv {
    shared: Shared,
    read: Consistency,
    follower: OnFollower,
}

/// What becomes of a change that is asked for on a node that does not lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFollower {
    /// It goes to the leader.
    #[default]
    Forward,
    /// Nothing: [`LeadershipError::NotLeader`] says who leads, as far as this node knows. Looked at when the change is asked for;
    /// one that is under way when another node is elected is brought to that.
    Error,
}

/// How new what is read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It has everything that was acknowledged before. The leader is asked.
    #[default]
    Linearizable,
    /// What this node has. Nobody is asked, and nothing waits; it may be old, by a heartbeat or, on a node that is cut off,
    /// by any time.
    Local,
    /// What this node has, as soon as it has this revision: after an own write with that revision, that write.
    AtLeast(u64),
}

impl From<Consistency> for Read {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => Self::Linear,
            Consistency::Local => Self::Local,
            Consistency::AtLeast(revision) => Self::AtLeast(revision),
        }
    }
}

/// What must hold of a key for a change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// It is not there.
    Absent,
    /// It has this revision.
    Revision(u64),
    /// It has this value: see [`Expected::value`].
    Value(Arc<[u8]>),
}

impl Expected {
    /// It has this value.
    ///
    /// # Errors
    /// The value has no form as a term.
    pub fn value<T: Serialize + ?Sized>(value: &T) -> Result<Self, LeadershipError> {
        encoded(value).map(Self::Value)
    }
}

impl From<Expected> for Expect {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Absent => Self::Revision(0),
            Expected::Revision(revision) => Self::Revision(revision),
            Expected::Value(value) => Self::Value(value),
        }
    }
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Result<Arc<[u8]>, LeadershipError> {
    match tiebeam_wire::value::to_vec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(LeadershipError::Value(error)),
    }
}

impl Kv {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            read: Consistency::default(),
            follower: OnFollower::default(),
        }
    }

    /// The same store; a node that does not lead does so with a change.
    #[must_use]
    pub fn on_follower(&self, follower: OnFollower) -> Self {
        Self {
            follower,
            ..self.clone()
        }
    }

    /// The same store, read so.
    #[must_use]
    pub fn consistency(&self, read: Consistency) -> Self {
        Self {
            read,
            ..self.clone()
        }
    }

    /// The same store; a call waits so long at most, then it ends with [`LeadershipError::NoQuorum`] or
    /// [`LeadershipError::Unknown`]. Default five seconds.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let mut made = self.clone();
        made.shared.timeout = timeout;
        made
    }

    // ---- changes

    /// Gives a key a value; its new revision. Done once, however often it must be sent.
    ///
    /// # Cancel safety
    /// Once polled, it may be done even if the future is dropped.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<u64, LeadershipError> {
        self.put_bytes(key.as_ref(), encoded(value)?, Expect::Anything)
            .await
    }

    /// As [`Kv::put`], with a term.
    ///
    /// # Cancel safety
    /// As for [`Kv::put`].
    pub async fn put_term(
        &self,
        key: impl AsRef<[u8]>,
        value: &Term,
    ) -> Result<u64, LeadershipError> {
        self.put_bytes(key.as_ref(), term_bytes(value), Expect::Anything)
            .await
    }

    /// Gives a key a value if it is as expected, as one step; its new revision. Otherwise [`LeadershipError::Differs`].
    ///
    /// # Cancel safety
    /// As for [`Kv::put`].
    pub async fn cas<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        value: &T,
    ) -> Result<u64, LeadershipError> {
        self.put_bytes(key.as_ref(), encoded(value)?, expected.into())
            .await
    }

    async fn put_bytes(
        &self,
        key: &[u8],
        value: Arc<[u8]>,
        expect: Expect,
    ) -> Result<u64, LeadershipError> {
        let key = key.to_vec();
        self.change(Command::Put { key, value, expect }).await
    }

    /// Removes a key, if it is there; the revision at which it is gone.
    ///
    /// # Cancel safety
    /// As for [`Kv::put`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<u64, LeadershipError> {
        self.delete_bytes(key.as_ref(), Expect::Anything).await
    }

    /// Removes a key if it is as expected, as one step. Otherwise [`LeadershipError::Differs`].
    ///
    /// # Cancel safety
    /// As for [`Kv::put`].
    pub async fn delete_if(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
    ) -> Result<u64, LeadershipError> {
        self.delete_bytes(key.as_ref(), expected.into()).await
    }

    async fn delete_bytes(&self, key: &[u8], expect: Expect) -> Result<u64, LeadershipError> {
        let key = key.to_vec();
        self.change(Command::Delete { key, expect }).await
    }

    async fn change(&self, command: Command) -> Result<u64, LeadershipError> {
        if self.follower == OnFollower::Error {
            let leader = self.shared.replica.led().leader;
            let own = self.shared.node.name();
            if leader
                .as_ref()
                .is_none_or(|leader| leader.as_str() != own.as_str())
            {
                return Err(LeadershipError::NotLeader { leader });
            }
        }
        self.shared.done(command).await
    }

    // ---- reads

    /// The value of a key.
    ///
    /// # Errors
    /// Besides those of a read: it is of another type.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn get<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<KvValue<T>>, LeadershipError> {
        let stored = self.stored(key.as_ref()).await?;
        let read = |stored: Stored| match tiebeam_wire::value::from_bytes(&stored.value) {
            Ok(value) => Ok(KvValue {
                value,
                revision: stored.revision,
            }),
            Err(error) => Err(LeadershipError::Value(error)),
        };
        stored.map(read).transpose()
    }

    /// As [`Kv::get`], as a term.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn get_term(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<KvValue<Term>>, LeadershipError> {
        let stored = self.stored(key.as_ref()).await?;
        Ok(stored.map(|stored| KvValue {
            value: super::name::term_of(&stored.value),
            revision: stored.revision,
        }))
    }

    async fn stored(&self, key: &[u8]) -> Result<Option<Stored>, LeadershipError> {
        if self.read == Consistency::Local {
            self.takes_part()?;
            return Ok(self.shared.replica.key(key));
        }
        let (key, read) = (key.to_vec(), self.read.into());
        match self.shared.ask(Command::Get { key, read }).await? {
            Answer::Value(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    }

    /// The keys that begin with `prefix`, in order, with their values. More than [`MAX_LIST`](crate::MAX_LIST) are read in several
    /// steps, between which others may change them; with [`Consistency::Local`] they are of one moment.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn list(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KvEntry>, LeadershipError> {
        let prefix = prefix.as_ref();
        let entry = |(key, stored)| KvEntry::of(key, stored);
        if self.read == Consistency::Local {
            self.takes_part()?;
            let rows = self.shared.replica.keys(prefix);
            return Ok(rows.into_iter().map(entry).collect());
        }
        let mut entries: Vec<KvEntry> = Vec::new();
        loop {
            let command = Command::List {
                prefix: prefix.to_vec(),
                after: entries.last().map(|entry| entry.key.clone()),
                limit: MAX_LIST,
                read: self.read.into(),
            };
            let Answer::Values { rows, more } = self.shared.ask(command).await? else {
                return Err(LeadershipError::Unknown);
            };
            let none = rows.is_empty();
            entries.extend(rows.into_iter().map(entry));
            if !more || none {
                return Ok(entries);
            }
        }
    }

    /// A local read of a node that takes no part would find nothing, or what is long gone.
    fn takes_part(&self) -> Result<(), LeadershipError> {
        if !self.shared.takes_part {
            return Err(LeadershipError::NoGroup);
        }
        match &*self.shared.replica.stopped.borrow() {
            None if self.shared.requests.is_closed() => Err(LeadershipError::Ended),
            None => Ok(()),
            Some(Stopped::Left) => Err(LeadershipError::Left),
            Some(_) => Err(LeadershipError::Stopped),
        }
    }

    /// From now on tells of each change of a key that begins with `prefix`, in order, as this node learns of it. What is there
    /// already is read with [`Kv::list`], after this: then nothing is missed, and what comes twice has a revision that was
    /// seen.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<KvChanges, LeadershipError> {
        let (changes, _) = self.watch_from(prefix.as_ref(), false).await?;
        Ok(changes)
    }

    /// The same, and the revision after which changes are told. Whatever is answered by the driver afterwards, the changes that it
    /// knew of are told by then. A `strict` watch ends when it is too slow, instead of leaving out what it had no room for.
    pub(crate) async fn watch_from(
        &self,
        prefix: &[u8],
        strict: bool,
    ) -> Result<(KvChanges, u64), LeadershipError> {
        let watch = WatchId(self.shared.next_watch.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(MAX_WATCHED);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let request = handle::Request {
            command: tiebeam_core::Command::Leadership(Request {
                command: Command::Watch {
                    watch,
                    prefix: prefix.to_vec(),
                },
                timeout: core_duration(self.shared.timeout),
            }),
            asked: Asked::Watch(answer, sender, strict),
        };
        // Made first: if this future is dropped, the watch ends.
        let changes = KvChanges {
            shared: self.shared.clone(),
            watch,
            receiver,
        };
        self.shared
            .requests
            .send(request)
            .await
            .map_err(|_| LeadershipError::Ended)?;
        let answer = answered.await.map_err(|_| LeadershipError::Ended)?;
        match super::leadership::granted(answer)? {
            Answer::Done(revision) => Ok((changes, revision)),
            other => Err(unexpected(&other)),
        }
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kv")
            .field("read", &self.read)
            .field("follower", &self.follower)
            .finish_non_exhaustive()
    }
}

/// A value, and since which revision its key has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvValue<T> {
    /// The value.
    pub value: T,
    /// The revision.
    pub revision: u64,
}

/// A key, its value and its revision.
#[derive(Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: Vec<u8>,
    /// Since when it has this value.
    pub revision: u64,
    value: Arc<[u8]>,
}

impl KvEntry {
    fn of(key: Vec<u8>, stored: Stored) -> Self {
        Self {
            key,
            revision: stored.revision,
            value: stored.value,
        }
    }

    /// The key as a text; what is no UTF-8 in it is replaced.
    pub fn key_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }

    /// The value as a Rust value.
    ///
    /// # Errors
    /// It is of another type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, typed::Error> {
        tiebeam_wire::value::from_bytes(&self.value)
    }

    /// The value as a term.
    ///
    /// # Errors
    /// Another node wrote bytes that are no term.
    pub fn value_term(&self) -> Result<Term, DecodeError> {
        decode::decode(&Bytes::copy_from_slice(&self.value))
    }
}

impl fmt::Debug for KvEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvEntry")
            .field("key", &self.key_text())
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// A change of a key. Comes from [`KvChanges::recv`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvChange {
    /// A key has a new value.
    Put(KvEntry),
    /// A key is gone.
    Deleted {
        /// Which.
        key: Vec<u8>,
        /// Since when.
        revision: u64,
    },
    /// The watcher was so slow that so many changes were dropped; [`Kv::list`] has the present state.
    Missed(u64),
}

impl KvChange {
    pub(super) fn of(key: Vec<u8>, stored: Option<Stored>, revision: u64) -> Self {
        match stored {
            Some(stored) => Self::Put(KvEntry::of(key, stored)),
            None => Self::Deleted { key, revision },
        }
    }
}

/// A watch; see [`Kv::watch`]. Ends when it is dropped.
pub struct KvChanges {
    shared: Shared,
    watch: WatchId,
    receiver: mpsc::Receiver<KvChange>,
}

impl KvChanges {
    /// The next change; `None` when the driver is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<KvChange> {
        self.receiver.recv().await
    }

    /// The next change that was told already; an error if there is none, or the watch has ended.
    pub(crate) fn try_recv(&mut self) -> Result<KvChange, mpsc::error::TryRecvError> {
        self.receiver.try_recv()
    }
}

impl Drop for KvChanges {
    fn drop(&mut self) {
        let command = Command::Unwatch { watch: self.watch };
        // If there is no room the driver finds out with the next change.
        let _ = self.shared.requests.try_send(handle::Request {
            command: tiebeam_core::Command::Leadership(Request {
                command,
                timeout: tiebeam_core::Duration::ZERO,
            }),
            asked: Asked::Nobody,
        });
    }
}

impl fmt::Debug for KvChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvChanges").finish_non_exhaustive()
    }
}
