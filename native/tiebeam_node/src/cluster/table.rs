//! The table of names and groups that callers read: written by the driver alone, before it answers.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use tiebeam_core::NodeName;
use tiebeam_core::registry::{Change, Entry, Key};
use tiebeam_wire::{Atom, Decoder, Limits, Pid, Term, encode};
use tokio::sync::{Notify, watch};

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
        // Where one ends and the other begins is a matter of equality.
        state.write(self.scope().as_bytes());
        state.write(self.name());
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
    /// How many names each scope has.
    counts: RwLock<HashMap<String, usize>>,
    groups: Map<HashMap<Pid, Row>>,
    /// Told of each change of a group.
    pub(super) grouped: watch::Sender<()>,
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

    /// How many names a scope has.
    pub(super) fn count(&self, scope: &str) -> usize {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(scope).copied().unwrap_or(0)
    }

    fn counted(&self, change: impl FnOnce(&mut HashMap<String, usize>)) {
        change(&mut self.counts.write().unwrap_or_else(PoisonError::into_inner));
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
                    Some(row) => {
                        let known = self.names.insert(Address(entry.key.clone()), row);
                        if known.is_none() {
                            self.counted(|counts| match counts.get_mut(entry.key.scope()) {
                                Some(count) => *count += 1,
                                None => drop(counts.insert(entry.key.scope().to_owned(), 1)),
                            });
                        }
                    }
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
                    self.grouped.send_replace(());
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
                self.grouped.send_replace(());
            }
            Change::Purged {
                node,
                creation,
                keys,
                ..
            } => {
                let gone = |row: &Row| row.node == *node && row.creation == *creation;
                for key in keys {
                    let address = Address(key.clone());
                    match key.member().map(|pid| pid_of(pid, atoms)) {
                        None if self.names.remove_if(&address, |_, row| gone(row)).is_some() => {
                            self.counted(|counts| uncount(counts, key.scope()));
                        }
                        Some(Some(pid)) => {
                            if let Some(mut members) = self.groups.get_mut(&address)
                                && members.get(&pid).is_some_and(gone)
                            {
                                members.remove(&pid);
                            }
                            self.groups
                                .remove_if(&address, |_, members| members.is_empty());
                        }
                        None | Some(None) => {}
                    }
                }
                self.grouped.send_replace(());
                self.notify_all();
            }
        }
    }

    /// Forgets all: this node takes no part any more, and what it knew grows old.
    pub(super) fn clear(&self) {
        self.names.clear();
        self.counted(HashMap::clear);
        self.groups.clear();
        self.grouped.send_replace(());
        self.notify_all();
    }

    fn remove(&self, key: &Key) {
        let place = (key.scope(), key.name());
        if self.names.remove(&place as &dyn Place).is_some() {
            self.counted(|counts| uncount(counts, key.scope()));
        }
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

fn uncount(counts: &mut HashMap<String, usize>, scope: &str) {
    if let Some(count) = counts.get_mut(scope) {
        *count -= 1;
        if *count == 0 {
            counts.remove(scope);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tiebeam_core::registry::{Command, Departure, OnConflict, Output};
    use tiebeam_core::{CallId, Instant};

    use super::*;

    /// Changes as a core of this node makes them.
    fn changes(node: &str, commands: impl IntoIterator<Item = Command>) -> Vec<Change> {
        let mut core = tiebeam_core::registry::Registry::new(tiebeam_core::registry::Config {
            node: NodeName::parse(node).unwrap(),
            creation: 1,
            epoch: 1,
            limits: tiebeam_core::registry::Limits::default(),
        });
        let mut outputs = Vec::new();
        for command in commands {
            core.asked(Instant::ZERO, CallId(0), command, &mut outputs);
        }
        let change = |output| match output {
            Output::Table(change) => Some(change),
            _ => None,
        };
        outputs.into_iter().filter_map(change).collect()
    }

    fn pid(id: u32) -> Pid {
        Pid {
            node: Atom::of("a@h"),
            id,
            serial: 0,
            creation: 1,
        }
    }

    fn register(scope: &str, name: &str, pid: Arc<[u8]>) -> Command {
        Command::Register {
            scope: scope.to_owned(),
            name: Name::from(name).bytes().clone(),
            pid,
            meta: term_bytes(&Term::atom("nil")),
            on_conflict: OnConflict::Notify,
            resolve: false,
            claimed: false,
        }
    }

    fn join(group: &str, pid: &Pid) -> Command {
        Command::Join {
            scope: "s".to_owned(),
            group: Name::from(group).bytes().clone(),
            pid: pid_bytes(pid),
            meta: term_bytes(&Term::atom("nil")),
        }
    }

    fn apply(table: &Table, changes: &[Change]) {
        let mut atoms = Atoms::default();
        for change in changes {
            table.apply(change, &mut atoms);
        }
    }

    #[test]
    fn names_are_counted_by_scope_and_go_with_their_owner_alone() {
        let table = Table::default();
        let of = |id| pid_bytes(&pid(id));
        let of_a = changes(
            "a@h",
            [
                register("s", "one", of(1)),
                register("s", "one", of(1)),
                register("s", "two", of(1)),
                register("t", "one", of(2)),
                join("g", &pid(1)),
            ],
        );
        let of_b = changes("b@h", [register("s", "three", of(3)), join("g", &pid(3))]);
        apply(&table, &of_a);
        apply(&table, &of_b);
        assert_eq!((table.count("s"), table.count("t")), (3, 1));
        assert_eq!(table.pid("s", &"one".into()), Some(pid(1)));
        assert_eq!(table.pid("t", &"one".into()), Some(pid(2)));
        assert_eq!(table.members("s", &"g".into()).len(), 2);
        // What another owner has as well stays.
        let keys = of_a.iter().chain(&of_b).filter_map(|change| match change {
            Change::Registered(entry) | Change::Joined(entry) => Some(entry.key.clone()),
            _ => None,
        });
        let keys: Vec<_> = keys.collect();
        let purged = |creation| Change::Purged {
            node: NodeName::parse("a@h").unwrap(),
            creation,
            departure: Departure::Down,
            keys: keys.clone(),
        };
        // Another life of the owner is another owner.
        apply(&table, &[purged(2)]);
        assert_eq!(table.count("s"), 3);
        apply(&table, &[purged(1)]);
        assert_eq!((table.count("s"), table.count("t")), (1, 0));
        let mut names = Vec::new();
        table.each_name("s", |name, row| {
            names.push((Name::of(name), row.pid.clone()))
        });
        assert_eq!(names, [("three".into(), pid(3))]);
        assert_eq!(table.members("s", &"g".into())[0].pid, pid(3));
        table.clear();
        assert_eq!(table.count("s"), 0);
        assert!(table.members("s", &"g".into()).is_empty());
    }

    /// A peer may send anything for a pid.
    #[test]
    fn what_is_no_pid_is_no_row() {
        let table = Table::default();
        let name = Name::from("one");
        let good = register("s", "one", pid_bytes(&pid(1)));
        apply(&table, &changes("a@h", [good]));
        for bad in [&b"x"[..], &[131], &term_bytes(&Term::from(7))] {
            apply(&table, &changes("b@h", [register("s", "one", bad.into())]));
            assert_eq!((table.pid("s", &name), table.count("s")), (None, 0));
        }
        let mut long = pid_bytes(&pid(1)).to_vec();
        long.push(0);
        assert_eq!(pid_of(&long, &mut Atoms::default()), None);
    }

    #[tokio::test]
    async fn who_waits_for_a_name_is_woken_and_leaves_nothing_behind() {
        let table = Arc::new(Table::default());
        let wait = |name: &'static str| {
            let table = Arc::clone(&table);
            async move {
                let name = Name::from(name);
                let watch = table.watch("s", &name);
                watch.until(|| table.pid("s", &name)).await
            }
        };
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(wait("one"))).collect();
        let given_up = tokio::time::timeout(Duration::ZERO, wait("two")).await;
        assert!(given_up.is_err());
        while table.waited_for.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let of = pid_bytes(&pid(1));
        apply(&table, &changes("a@h", [register("s", "one", of)]));
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), pid(1));
        }
        assert_eq!(wait("one").await, pid(1));
        assert_eq!(table.waited_for.load(Ordering::SeqCst), 0);
        assert!(table.waiting().is_empty());
    }
}
