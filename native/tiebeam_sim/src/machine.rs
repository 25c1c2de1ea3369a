//! One simulated host: a kernel with connections, and on it a node with a core and the driver of that core, each of which
//! can stand still by itself.

use std::collections::{BTreeSet, VecDeque};

use tiebeam_core::{Cluster, Duration, Event, Instant, Kind, NodeName};

use crate::network::Link;
use crate::plan::Host;

/// The most events that wait for a driver that stands still. More are dropped: by then the sender's link is busy.
pub(crate) const MAX_WAITING: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) cluster: String,
    pub(crate) kind: Kind,
    pub(crate) creation: u32,
    pub(crate) state: State,
    /// The process stands still since then.
    pub(crate) paused: Option<Instant>,
    pub(crate) wedge: Option<Wedge>,
    pub(crate) core: Option<Core>,
    /// What came while the driver stood still.
    pub(crate) waiting: VecDeque<(Event, bool)>,
    /// Questions to the kernel that came while the process stood still.
    pub(crate) questions: Vec<(usize, u64)>,
    /// A waker came while the driver stood still.
    pub(crate) woken: bool,
    /// One per other host.
    pub(crate) ports: Vec<Port>,
    pub(crate) dials: BTreeSet<usize>,
    /// For how long the process ran, without pauses, before `since`.
    pub(crate) ran: Duration,
    pub(crate) since: Instant,
    /// How many members are up in its view, itself included, as it was told.
    pub(crate) up: usize,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// The process ended; whoever dials is told so.
    Crashed,
    /// The host is gone; nobody is told anything.
    Vanished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wedge {
    /// Tells this wedge from an earlier one.
    pub(crate) number: u64,
    pub(crate) stalled: Duration,
    pub(crate) awake: Duration,
    pub(crate) now: bool,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) cluster: Cluster,
    /// The origin of the core's own time.
    pub(crate) started: Instant,
    /// Tells the wakers of this core from those of an earlier one.
    pub(crate) number: u64,
    /// When the next waker comes.
    pub(crate) wakes: Option<Instant>,
}

/// A host's end of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Port {
    pub(crate) link: Option<Link>,
    /// When the latest bytes arrive here: later ones do not overtake them.
    pub(crate) latest: Instant,
    /// When something arrived here last, ticks not counted.
    pub(crate) heard: Instant,
    pub(crate) packets: u64,
    /// How long the peer had been running when its ticks began to count.
    pub(crate) base: Duration,
    /// How long it had been running when it was cut off.
    pub(crate) stopped: Option<Duration>,
}

impl Machine {
    pub(crate) fn new(host: Host, number: usize, hosts: usize) -> Self {
        Self {
            name: host.name,
            cluster: host.cluster,
            kind: host.kind,
            // No two lives have one creation, not even those of two hosts with one name.
            creation: number as u32,
            state: State::Crashed,
            paused: None,
            wedge: None,
            core: None,
            waiting: VecDeque::new(),
            questions: Vec::new(),
            woken: false,
            ports: vec![Port::default(); hosts],
            dials: BTreeSet::new(),
            ran: Duration::ZERO,
            since: Instant::ZERO,
            up: 0,
            sent: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.state == State::Running
    }

    /// The driver does not get to run.
    pub(crate) fn stands_still(&self) -> bool {
        self.paused.is_some() || self.wedge.is_some_and(|wedge| wedge.now)
    }

    /// For how long the process has been running.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        match self.runs() && self.paused.is_none() {
            true => self.ran_until(now),
            false => self.ran,
        }
    }

    fn ran_until(&self, now: Instant) -> Duration {
        Duration::from_micros(self.ran.as_micros() + now.since(self.since).as_micros())
    }

    /// Its age stops growing.
    pub(crate) fn stop_age(&mut self, now: Instant) {
        self.ran = self.age(now);
        self.since = now;
    }

    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.questions.clear();
        self.woken = false;
    }
}
