//! The table of names and groups that callers read: written by the driver alone, before it answers.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use tiebeam_core::NodeName;
use tiebeam_core::registry::{Change, Entry, Key};
use tiebeam_wire::{Atom, Decoder, Limits, Pid, Term, encode};
use tokio::sync::Notify;

use crate::cluster::name::Name;

/// Whose a name is, or one membership of a group.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) pid: Pid,
    pub(super) meta: Arc<[u8]>,
    /// The node that answers for it.
    pub(super) node: NodeName,
    creation: u32,
}

/// A name, or the name of a group, in its scope. Shares the bytes of the core's key; the process in the key of a
/// membership does not count.
#[derive(Clone, Debug)]
struct Address(Key);

/// What addresses are looked up by, so that a look-up need not make one.
trait Place {
    fn scope(&self) -> &str;
    fn name(&self) -> &[u8];
}

impl Place for Address {
    fn scope(&self) -> &str {
        self.0.scope()
    }
    fn name(&self) -> &[u8] {
        self.0.name()
    }
}

impl Place for (&str, &[u8]) {
    fn scope(&self) -> &str {
        self.0
    }
    fn name(&self) -> &[u8] {
        self.1
    }
}

impl Hash for dyn Place + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scope().hash(state);
        self.name().hash(state);
    }
}
impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.scope() == other.scope()
    }
}
impl Eq for dyn Place + '_ {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Place).hash(state);
    }
}
impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        (self as &dyn Place) == (other as &dyn Place)
    }
}
impl Eq for Address {}

impl<'a> Borrow<dyn Place + 'a> for Address {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

type Map<V> = DashMap<Address, V, foldhash::fast::RandomState>;

type Waiting = HashMap<(String, Name), (usize, Arc<Notify>)>;

/// The names and groups of the cluster. Readers never wait for more than the write of one row.
#[derive(Debug, Default)]
pub(super) struct Table {
    names: Map<Row>,
    groups: Map<HashMap<Pid, Row>>,
    /// How many wait for a change of a name, by scope and name, and what wakes them.
    waiting: Mutex<Waiting>,
    /// How many there are in `waiting`: the driver need not lock what is empty.
    waited_for: AtomicUsize,
}

impl Table {
    pub(super) fn name(&self, scope: &str, name: &Name) -> Option<Row> {
        let place = (scope, &**name.bytes());
        self.names
            .get(&place as &dyn Place)
            .map(|row| row.value().clone())
    }

    /// As [`Table::name`], without the metadata.
    pub(super) fn pid(&self, scope: &str, name: &Name) -> Option<Pid> {
        let place = (scope, &**name.bytes());
        self.names
            .get(&place as &dyn Place)
            .map(|row| row.pid.clone())
    }

    /// Calls `each` with all names of a scope, in no particular order; it must not use the table.
    pub(super) fn each_name(&self, scope: &str, mut each: impl FnMut(&[u8], &Row)) {
        for row in &self.names {
            if row.key().0.scope() == scope {
                each(row.key().0.name(), row.value());
            }
        }
    }

    /// The members of a group, in no particular order.
    pub(super) fn members(&self, scope: &str, group: &Name) -> Vec<Row> {
        let place = (scope, &**group.bytes());
        self.groups
            .get(&place as &dyn Place)
            .map(|members| members.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Calls `each` with all groups of a scope, in no particular order; it must not use the table.
    pub(super) fn each_group(&self, scope: &str, mut each: impl FnMut(&[u8], &HashMap<Pid, Row>)) {
        for group in &self.groups {
            if group.key().0.scope() == scope {
                each(group.key().0.name(), group.value());
            }
        }
    }

    /// Brings the table up to date.
    pub(super) fn apply(&self, change: &Change, atoms: &mut Atoms) {
        match change {
            Change::Registered(entry) | Change::Updated(entry) | Change::Replaced { entry, .. } => {
                match Row::of(entry, atoms) {
                    Some(row) => drop(self.names.insert(Address(entry.key.clone()), row)),
                    // A node that sends such a thing has made a name that leads nowhere.
                    None => self.remove(&entry.key),
                }
                self.notify(&entry.key);
            }
            Change::Unregistered { key, .. } => {
                self.remove(key);
                self.notify(key);
            }
            Change::Joined(entry) | Change::Rejoined(entry) => {
                if let Some(row) = Row::of(entry, atoms) {
                    self.groups
                        .entry(Address(entry.key.clone()))
                        .or_default()
                        .insert(row.pid.clone(), row);
                }
            }
            Change::Left { key, pid, .. } => {
                let address = Address(key.clone());
                let Some(pid) = pid_of(pid, atoms) else {
                    return;
                };
                if let Some(mut members) = self.groups.get_mut(&address) {
                    members.remove(&pid);
                }
                self.groups
                    .remove_if(&address, |_, members| members.is_empty());
            }
            Change::Purged { node, creation, .. } => {
                let stays = |row: &Row| row.node != *node || row.creation != *creation;
                self.names.retain(|_, row| stays(row));
                self.groups.retain(|_, members| {
                    members.retain(|_, row| stays(row));
                    !members.is_empty()
                });
                self.notify_all();
            }
        }
    }

    /// Forgets all: this node takes no part any more, and what it knew grows old.
    pub(super) fn clear(&self) {
        self.names.clear();
        self.groups.clear();
        self.notify_all();
    }

    fn remove(&self, key: &Key) {
        let place = (key.scope(), key.name());
        self.names.remove(&place as &dyn Place);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, key: &Key) {
        // The row was written before; whoever comes now reads it.
        if self.waited_for.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waited_for = (key.scope().to_owned(), Name::of(key.name()));
        if let Some((_, notify)) = self.waiting().get(&waited_for) {
            notify.notify_waiters();
        }
    }

    fn notify_all(&self) {
        for (_, notify) in self.waiting().values() {
            notify.notify_waiters();
        }
    }

    /// To be asked for changes of a name; a change after this call is not missed.
    pub(super) fn watch<'a>(&'a self, scope: &str, name: &Name) -> Watch<'a> {
        let key = (scope.to_owned(), name.clone());
        let mut waiting = self.waiting();
        let (count, notify) = waiting.entry(key.clone()).or_default();
        *count += 1;
        let notify = Arc::clone(notify);
        self.waited_for.store(waiting.len(), Ordering::SeqCst);
        Watch {
            table: self,
            key,
            notify,
        }
    }
}

/// One caller that waits for changes of a name.
pub(super) struct Watch<'a> {
    table: &'a Table,
    key: (String, Name),
    notify: Arc<Notify>,
}

impl Watch<'_> {
    /// Waits until `read` finds something; it is called after each change of the name.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn until<T>(&self, mut read: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.notify.notified());
            changed.as_mut().enable();
            if let Some(found) = read() {
                return found;
            }
            changed.await;
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut waiting = self.table.waiting();
        if let Some((count, _)) = waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
        self.table.waited_for.store(waiting.len(), Ordering::SeqCst);
    }
}

impl Row {
    pub(super) fn of(entry: &Entry, atoms: &mut Atoms) -> Option<Self> {
        Some(Self {
            pid: pid_of(&entry.pid, atoms)?,
            meta: entry.meta.clone(),
            node: entry.node.clone(),
            creation: entry.creation,
        })
    }
}

/// The name of the node that was seen last: rows come in runs of one node, and share its text.
#[derive(Debug, Default)]
pub(super) struct Atoms(Option<Atom>);

/// The process that bytes of the core are.
pub(super) fn pid_of(bytes: &[u8], Atoms(last): &mut Atoms) -> Option<Pid> {
    let mut decoder = Decoder::from_slice(bytes, &Limits::DEFAULT);
    decoder.version().ok()?;
    let mut pid = decoder.pid().ok()?;
    decoder.end().ok()?;
    match last {
        Some(last) if *last == pid.node => pid.node = last.clone(),
        last => *last = Some(pid.node.clone()),
    }
    Some(pid)
}

/// A process as the core has it.
pub(super) fn pid_bytes(pid: &Pid) -> Arc<[u8]> {
    term_bytes(&Term::from(pid))
}

/// A term as the core has it.
pub(super) fn term_bytes(term: &Term) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(64);
    encode::encode(term, &mut bytes);
    bytes.into()
}
