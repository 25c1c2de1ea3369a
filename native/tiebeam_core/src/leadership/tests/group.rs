//! A few members whose messages arrive at once, unless the test says otherwise.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::leadership::codec::decode;
use crate::leadership::message::{Message, Packet};
use crate::leadership::{
    Configuration, Consensus, Effect, Entry, MemberId, Payload, PersistToken, Refusal, Replica,
    RequestId, Restored, Role, Settings, Write,
};
use crate::time::{Duration, Instant};

/// How often a message arrives.
type Filter = Box<dyn FnMut(&Packet) -> usize>;

/// Members 1 to n of one group.
pub(super) struct Group {
    pub(super) now: Instant,
    pub(super) members: BTreeMap<u64, Replica>,
    pub(super) disks: BTreeMap<u64, Restored>,
    /// Messages from the first to the second are lost.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// How often each message that is not cut off arrives; once without one.
    pub(super) filter: Option<Filter>,
    /// Writes of these are confirmed only by [`Group::sync`].
    pub(super) slow: BTreeSet<u64>,
    pub(super) unsynced: BTreeMap<u64, Vec<Effect>>,
    /// What each member did, besides sending and writing.
    pub(super) seen: BTreeMap<u64, Vec<Effect>>,
    /// Every message that was sent, lost ones included.
    pub(super) sent: Vec<Packet>,
    /// How many entries a member keeps that its snapshot stands for.
    pub(super) tail: usize,
    requests: u64,
    starts: u64,
    founding: Configuration,
}

impl Group {
    pub(super) fn new(count: u64) -> Self {
        let mut group = Self {
            now: Instant::from_millis(1000),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut: BTreeSet::new(),
            filter: None,
            slow: BTreeSet::new(),
            unsynced: BTreeMap::new(),
            seen: BTreeMap::new(),
            sent: Vec::new(),
            tail: 0,
            requests: 0,
            starts: 0,
            founding: Configuration::new((1..=count).map(MemberId), []).unwrap(),
        };
        for id in 1..=count {
            group.start(id);
        }
        group
    }

    /// A group in which member 1 was elected a second ago.
    pub(super) fn led(count: u64) -> Self {
        let mut group = Self::new(count);
        group.elect(1);
        group.pass(1000);
        group
    }

    pub(super) fn start(&mut self, id: u64) {
        self.starts += 1;
        let settings = Settings {
            #[cfg(feature = "mutants")]
            mutation: super::mutants::SWITCHED.get(),
            tail: self.tail,
            ..Settings::lan(MemberId(id), 7, 100 * self.starts + id)
        };
        self.seen.remove(&id);
        let disk = self.disks.entry(id).or_default().clone();
        let replica = Replica::new(self.now, settings, self.founding.clone(), disk).unwrap();
        self.members.insert(id, replica);
    }

    /// Ends a life: what was not on disk is lost.
    pub(super) fn crash(&mut self, id: u64) {
        self.members.remove(&id);
        self.unsynced.remove(&id);
    }

    pub(super) fn replica(&mut self, id: u64) -> &mut Replica {
        self.members.get_mut(&id).unwrap()
    }

    pub(super) fn role(&self, id: u64) -> Role {
        self.members[&id].status().role
    }

    pub(super) fn term(&self, id: u64) -> u64 {
        self.members[&id].status().term
    }

    /// Makes `id` stand for election now, whatever its timer says.
    pub(super) fn elect(&mut self, id: u64) {
        self.replica(id).ask();
        self.settle();
    }

    pub(super) fn isolate(&mut self, id: u64) {
        for other in self.disks.keys() {
            self.cut.extend([(id, *other), (*other, id)]);
        }
    }

    /// Carries out everything there is to do, at this moment.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = true;
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in ids {
                while let Some(effect) = self.members.get_mut(&id).and_then(Consensus::poll) {
                    quiet = false;
                    self.carry_out(id, effect);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the group does not come to rest");
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                let packet = decode(&bytes).unwrap();
                let times = self.filter.as_mut().map_or(1, |filter| filter(&packet));
                self.sent.push(packet);
                if !self.cut.contains(&(id, to.0))
                    && let Some(member) = self.members.get_mut(&to.0)
                {
                    for _ in 0..times {
                        member.receive(self.now, &bytes).unwrap();
                    }
                }
            }
            Effect::Persist(_) if self.slow.contains(&id) => {
                self.unsynced.entry(id).or_default().push(effect);
            }
            Effect::Persist(write) => {
                let (token, now) = (write.token, self.now);
                self.write(id, write);
                self.replica(id).persisted(now, token);
            }
            other => self.seen.entry(id).or_default().push(other),
        }
    }

    fn write(&mut self, id: u64, write: Write) {
        let disk = self.disks.entry(id).or_default();
        disk.hard = write.hard.unwrap_or(disk.hard);
        let taken = write.snapshot.is_some();
        disk.snapshot = write.snapshot.or(disk.snapshot.take());
        let replaced = write.entries.first().map(|first| first.index);
        for from in write.truncate.into_iter().chain(replaced) {
            disk.entries.retain(|entry| entry.index < from);
        }
        disk.entries.extend(write.entries);
        disk.entries.retain(|entry| entry.index > write.purge);
        // purged ≤ snapshot ≤ last
        let snapshot = disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let last = disk.entries.last().map_or(snapshot, |entry| entry.index);
        assert!(write.purge <= snapshot && snapshot <= last);
        if taken {
            assert!(self.members[&id].status().commit >= snapshot);
        }
    }

    /// The machine of `id` is the commands that it applied, and its engine is told so.
    pub(super) fn compact(&mut self, id: u64) {
        let state = self.applied(id).join("\n");
        let now = self.now;
        self.replica(id).compact(now, state.into_bytes().into());
        self.settle();
    }

    /// The slow disk of `id` is done with everything.
    pub(super) fn sync(&mut self, id: u64) {
        let mut last = PersistToken(0);
        for effect in self.unsynced.remove(&id).unwrap_or_default() {
            if let Effect::Persist(write) = effect {
                last = write.token;
                self.write(id, write);
            }
        }
        let now = self.now;
        self.replica(id).persisted(now, last);
        self.settle();
    }

    /// `millis` milliseconds pass, and everybody is woken in time.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.settle();
            let due = self
                .members
                .values()
                .map(Consensus::deadline)
                .min()
                .unwrap_or(end);
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            let now = self.now;
            for member in self.members.values_mut() {
                if member.deadline() <= now {
                    member.wake(now);
                }
            }
        }
        self.now = end;
    }

    /// Time passes for nobody but the clock.
    pub(super) fn stand_still(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    pub(super) fn propose(&mut self, id: u64, text: &str) -> Result<RequestId, Refusal> {
        self.requests += 1;
        let (request, now) = (RequestId(self.requests), self.now);
        self.replica(id)
            .propose(now, request, text.as_bytes().to_vec())?;
        Ok(request)
    }

    /// Asks `id` for these voters and learners.
    pub(super) fn change(
        &mut self,
        id: u64,
        voters: &[u64],
        learners: &[u64],
    ) -> Result<RequestId, Refusal> {
        self.requests += 1;
        let (request, now) = (RequestId(self.requests), self.now);
        let members = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
        let to = Configuration::new(members(voters), members(learners)).unwrap();
        self.replica(id).change(now, request, to)?;
        Ok(request)
    }

    /// Who votes, outgoing ones behind the others, and who learns, as `id` sees it.
    pub(super) fn members_of(&self, id: u64) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let configuration = self.members[&id].configuration();
        let ids = |members: &mut dyn Iterator<Item = MemberId>| members.map(|id| id.0).collect();
        (
            ids(&mut configuration.voters()),
            ids(&mut configuration.outgoing()),
            ids(&mut configuration.learners()),
        )
    }

    pub(super) fn read(&mut self, id: u64) -> Result<RequestId, Refusal> {
        self.requests += 1;
        let (request, now) = (RequestId(self.requests), self.now);
        self.replica(id).read(now, request)?;
        Ok(request)
    }

    /// The commands that `id` applied in this life, in order, and those that its snapshot stands for.
    pub(super) fn applied(&self, id: u64) -> Vec<&str> {
        let mut applied = Vec::new();
        for effect in self.seen.get(&id).into_iter().flatten() {
            match effect {
                Effect::Restore(snapshot) => {
                    let text = core::str::from_utf8(&snapshot.state).unwrap();
                    applied = text.split('\n').filter(|line| !line.is_empty()).collect();
                }
                Effect::Apply {
                    entry:
                        Entry {
                            payload: Payload::Command(bytes),
                            ..
                        },
                    ..
                } => applied.push(core::str::from_utf8(bytes).unwrap()),
                _ => {}
            }
        }
        applied
    }

    pub(super) fn saw(&self, id: u64, effect: &Effect) -> bool {
        self.seen.get(&id).is_some_and(|seen| seen.contains(effect))
    }

    pub(super) fn applied_request(&self, id: u64, wanted: RequestId) -> bool {
        let seen = self.seen.get(&id).into_iter().flatten();
        seen.clone().any(
            |effect| matches!(effect, Effect::Apply { request: Some(request), .. } if *request == wanted),
        )
    }

    pub(super) fn token(&self, id: u64) -> Option<u64> {
        self.members[&id].token(self.now)
    }

    /// A message from `from`, as if it had been on its way.
    pub(super) fn deliver(&mut self, from: u64, to: u64, term: u64, message: Message) {
        let packet = Packet {
            group: 7,
            from: MemberId(from),
            to: MemberId(to),
            term,
            message,
        };
        let (now, bytes) = (self.now, crate::leadership::codec::encode(&packet));
        self.replica(to).receive(now, &bytes).unwrap();
        self.settle();
    }
}
