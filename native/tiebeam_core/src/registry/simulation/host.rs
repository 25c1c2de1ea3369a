//! One simulated node: its registry, the table that its driver keeps, its processes and what they were promised.

use super::*;
use crate::registry::Config;
use alloc::collections::BTreeSet;

pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) creation: u32,
    epoch: u64,
    /// Grows with each start and renewal, so that what was meant for an earlier registry is not told to a later one.
    pub(super) life: u64,
    limits: Limits,
    pub(super) registry: Option<Registry>,
    /// When its driver takes its next turn without anything happening.
    pub(super) wakes_at: Option<Instant>,
    pub(super) table: BTreeMap<Key, Entry>,
    processes: BTreeSet<Arc<[u8]>>,
    last_process: u64,
    last_call: u64,
    calls: BTreeMap<CallId, Promise>,
    /// The other nodes that this one holds for up, and over which connection.
    pub(super) view: BTreeMap<usize, (u32, u64)>,
    /// Names that were answered `Done`, and neither lost, given up nor left behind by an end.
    pub(super) promised: BTreeMap<Key, (Arc<[u8]>, OnConflict)>,
    /// Processes that lost a name and wait for it.
    pub(super) standby: BTreeMap<Key, Arc<[u8]>>,
    /// Names that the driver took from its table, and has not told the registry of.
    pub(super) claims: BTreeMap<Key, Command>,
    /// Memberships that were answered `Done`.
    pub(super) joined: BTreeMap<Key, Arc<[u8]>>,
}

/// What an answer `Done` means.
enum Promise {
    Name {
        key: Key,
        pid: Arc<[u8]>,
        on_conflict: OnConflict,
        steps: u32,
    },
    /// Was promised before it was asked for.
    Claim {
        key: Key,
        pid: Arc<[u8]>,
    },
    NoName(Key),
    Member(Key, Arc<[u8]>),
    NoMember(Key),
    Nothing,
}

impl Host {
    pub(super) fn new(number: usize, limits: Limits) -> Self {
        Self {
            name: NodeName::parse(&format!("n{number}@sim")).unwrap(),
            creation: 0,
            epoch: 0,
            life: 0,
            limits,
            registry: None,
            wakes_at: None,
            table: BTreeMap::new(),
            processes: BTreeSet::new(),
            last_process: 0,
            last_call: 0,
            calls: BTreeMap::new(),
            view: BTreeMap::new(),
            promised: BTreeMap::new(),
            standby: BTreeMap::new(),
            claims: BTreeMap::new(),
            joined: BTreeMap::new(),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.registry.is_some()
    }

    pub(super) fn start(&mut self) {
        self.creation += 1;
        self.renew();
    }

    pub(super) fn crash(&mut self) {
        self.registry = None;
        self.life += 1;
        self.processes.clear();
        self.view.clear();
        self.table.clear();
        self.calls.clear();
        self.promised.clear();
        self.standby.clear();
        self.claims.clear();
        self.joined.clear();
    }

    /// A new registry for the same node; what its processes had is theirs to register again.
    #[allow(clippy::type_complexity, reason = "used once")]
    pub(super) fn renew(&mut self) -> (Vec<(Key, Arc<[u8]>, OnConflict)>, Vec<(Key, Arc<[u8]>)>) {
        self.epoch += 1;
        self.life += 1;
        self.wakes_at = None;
        self.registry = Some(Registry::new(Config {
            node: self.name.clone(),
            creation: self.creation,
            epoch: self.epoch,
            limits: self.limits.clone(),
        }));
        self.table.clear();
        self.calls.clear();
        // They are among those that were promised.
        self.claims.clear();
        let waiting = core::mem::take(&mut self.standby).into_iter();
        let names = core::mem::take(&mut self.promised)
            .into_iter()
            .map(|(key, (pid, on_conflict))| (key, pid, on_conflict))
            .chain(waiting.map(|(key, pid)| (key, pid, OnConflict::Standby)))
            .collect();
        (
            names,
            core::mem::take(&mut self.joined).into_iter().collect(),
        )
    }

    pub(super) fn spawn(&mut self) -> Arc<[u8]> {
        self.last_process += 1;
        let pid: Arc<[u8]> = format!("{}.{}.{}", self.name, self.creation, self.last_process)
            .as_bytes()
            .into();
        self.processes.insert(pid.clone());
        pid
    }

    pub(super) fn is_alive(&self, pid: &Arc<[u8]>) -> bool {
        self.processes.contains(pid)
    }

    pub(super) fn some_process(&self, random: &mut Random) -> Option<Arc<[u8]>> {
        let number = random.below(self.processes.len() as u64) as usize;
        self.processes.iter().nth(number).cloned()
    }

    pub(super) fn some_member(&self, random: &mut Random) -> Option<(Key, Arc<[u8]>)> {
        let number = random.below(self.joined.len() as u64) as usize;
        let (key, pid) = self.joined.iter().nth(number)?;
        Some((key.clone(), pid.clone()))
    }

    pub(super) fn end(&mut self, pid: &Arc<[u8]>) {
        self.processes.remove(pid);
        self.promised.retain(|_, (promised, _)| promised != pid);
        self.standby.retain(|_, waiting| waiting != pid);
        self.joined.retain(|_, member| member != pid);
    }

    pub(super) fn ask(&mut self, now: Instant, command: Command, out: &mut Vec<Output>) {
        self.last_call += 1;
        let call = CallId(self.last_call);
        let promise = match &command {
            Command::Register {
                scope,
                name,
                pid,
                claimed: true,
                ..
            } => Promise::Claim {
                key: Key::name_in(scope, name),
                pid: pid.clone(),
            },
            Command::Register {
                scope,
                name,
                pid,
                on_conflict,
                ..
            } => Promise::Name {
                key: Key::name_in(scope, name),
                pid: pid.clone(),
                on_conflict: *on_conflict,
                steps: 0,
            },
            Command::Unregister { scope, name, .. } => Promise::NoName(Key::name_in(scope, name)),
            Command::Join {
                scope, group, pid, ..
            } => Promise::Member(Key::member_of(scope, group, pid), pid.clone()),
            Command::Leave { scope, group, pid } => {
                Promise::NoMember(Key::member_of(scope, group, pid))
            }
            Command::Update { .. } => Promise::Nothing,
        };
        self.calls.insert(call, promise);
        let registry = self
            .registry
            .as_mut()
            .expect("only nodes that run are asked");
        registry.asked(now, call, command, out);
        if !out.iter().any(
            |output| matches!(output, Output::Answer { call: answered, .. } if *answered == call),
        ) && let Some(Promise::Name { steps, .. }) = self.calls.get_mut(&call)
        {
            *steps = 1;
        }
    }

    pub(super) fn answered_late(&self, call: CallId) -> bool {
        matches!(self.calls.get(&call), Some(Promise::Name { steps: 1, .. }))
    }

    pub(super) fn done(&mut self, call: CallId) {
        match self.calls.remove(&call).expect("a call is answered once") {
            Promise::Name {
                key,
                pid,
                on_conflict,
                ..
            } => {
                let row = self.table.get(&key).map(|row| &row.pid);
                if key.scope() == "plain" {
                    assert_eq!(
                        row,
                        Some(&pid),
                        "{}: cannot read its own write of {key:?}",
                        self.name
                    );
                } else {
                    assert!(
                        row.is_some(),
                        "{}: cannot read its own write of {key:?}",
                        self.name
                    );
                }
                // A process may have ended while it was waiting for the answer.
                if self.is_alive(&pid) {
                    self.promised.insert(key, (pid, on_conflict));
                }
            }
            Promise::Claim { .. } => {}
            Promise::NoName(key) => {
                self.promised.remove(&key);
                self.standby.remove(&key);
            }
            Promise::Member(key, pid) => {
                assert_eq!(self.table.get(&key).map(|row| &row.pid), Some(&pid));
                if self.is_alive(&pid) {
                    self.joined.insert(key, pid);
                }
            }
            Promise::NoMember(key) => {
                assert!(!self.table.contains_key(&key));
                self.joined.remove(&key);
            }
            Promise::Nothing => {}
        }
    }

    pub(super) fn refused(&mut self, call: CallId) {
        let promise = self.calls.remove(&call).expect("a call is answered once");
        // The process of a claim is told that it lost.
        if let Promise::Claim { key, pid } = promise
            && self
                .promised
                .get(&key)
                .is_some_and(|(promised, _)| *promised == pid)
        {
            self.promised.remove(&key);
        }
    }

    /// Whether a caller finds the name free in the table, as far as the driver knows.
    pub(super) fn shows_free(&self, key: &Key) -> bool {
        !self.table.contains_key(key) && !self.claims.contains_key(key)
    }

    /// Takes a free name for a process and promises it, before the registry knows.
    pub(super) fn claim(&mut self, command: Command) -> Key {
        let Command::Register {
            scope,
            name,
            pid,
            on_conflict,
            ..
        } = &command
        else {
            panic!("only names are claimed");
        };
        let key = Key::name_in(scope, name);
        self.promised
            .insert(key.clone(), (pid.clone(), *on_conflict));
        self.claims.insert(key.clone(), command);
        key
    }

    pub(super) fn lost(&mut self, loss: Loss) {
        let row = self.table.get(&loss.key).map(|row| &row.pid);
        assert_ne!(row, Some(&loss.pid), "the table still shows what was lost");
        if !self.is_alive(&loss.pid) {
            return;
        }
        let (promised, _) = self
            .promised
            .remove(&loss.key)
            .expect("only what was promised is lost, once");
        assert_eq!(promised, loss.pid);
        if loss.on_conflict == OnConflict::Standby && loss.kept.is_some() {
            self.standby.insert(loss.key, loss.pid);
        }
    }

    pub(super) fn promoted(&mut self, key: Key, pid: Arc<[u8]>) {
        assert_eq!(self.table.get(&key).map(|row| &row.pid), Some(&pid));
        if self.is_alive(&pid) {
            assert_eq!(
                self.standby.remove(&key),
                Some(pid.clone()),
                "it did not wait"
            );
            self.promised.insert(key, (pid, OnConflict::Standby));
        }
    }
}
