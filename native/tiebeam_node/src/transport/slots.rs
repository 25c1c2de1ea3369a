//! The slot table with those who wait for a slot: what `net_kernel` does around its table.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_wire::handshake::NodeName;
use tiebeam_wire::slot::{
    Completed, ConnectionId, Down, Failed, Incoming, Outgoing, SlotTable, TakeOver,
};
use tokio::sync::{Notify, oneshot};

use super::{ConnectError, HandshakeFailure};

/// Most names of peers without a name of their own that are kept for reuse. They spare the BEAM's atom table; past
/// this many, new names are drawn.
const MAX_REUSED_NAMES: usize = 256;

type Outcome = Result<ConnectionId, ConnectError>;

/// All slots of a node. Each call takes effect at once and as a whole.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: SlotTable,
    last_id: u64,
    /// Attempts that are under way, to tell one that it is not wanted any more.
    attempts: HashMap<ConnectionId, Arc<Notify>>,
    /// Callers on this node that wait for a slot, each until its attempt ends; strangers cannot add to them.
    waiters: HashMap<String, Vec<oneshot::Sender<Outcome>>>,
    /// Connections that are up, but whose nodeup is not done.
    opening: HashSet<ConnectionId>,
    /// Connections that have ended, but whose nodedown is not done.
    closing: HashSet<ConnectionId>,
    /// Names that this node gave to peers which asked for one, by their connection or attempt.
    given: HashMap<ConnectionId, GivenName>,
    /// Names given before, oldest first, with the creation for their next owner.
    reusable: VecDeque<GivenName>,
    stopped: bool,
}

/// A name that this node gave to a peer, and the creation of its owner.
#[derive(Debug, Clone)]
struct GivenName {
    name: NodeName,
    creation: u32,
}

/// What a request to connect leads to.
pub(super) enum Connecting {
    /// There is a connection.
    Up(ConnectionId),
    /// The outcome comes later; if there is an attempt, it must be started. A sender that is dropped means that the slot
    /// is free: ask again.
    Wait(oneshot::Receiver<Outcome>, Option<Attempt>),
    /// The node is shutting down.
    Stopped,
}

/// What a peer that sent its name is told.
pub(super) enum Admission {
    Ok(Attempt),
    OkSimultaneous(Attempt),
    Alive(Attempt),
    Nok,
    Refuse,
}

/// An attempt to connect, ours or the peer's. Dropping it before it is complete is its failure.
#[derive(Debug)]
pub(super) struct Attempt {
    slots: Arc<Slots>,
    peer: String,
    id: ConnectionId,
    abandoned: Arc<Notify>,
    done: bool,
}

/// A connection that is up and whose nodeup runs. Dropping it before [`Opening::opened`] takes the connection down.
#[derive(Debug)]
pub(super) struct Opening {
    slots: Arc<Slots>,
    peer: String,
    id: ConnectionId,
    done: bool,
}

impl Slots {
    pub(super) fn new(name: &NodeName) -> Arc<Slots> {
        Arc::new(Slots {
            state: Mutex::new(State {
                table: SlotTable::new(name.as_str()),
                last_id: 0,
                attempts: HashMap::new(),
                waiters: HashMap::new(),
                opening: HashSet::new(),
                closing: HashSet::new(),
                given: HashMap::new(),
                reusable: VecDeque::new(),
                stopped: false,
            }),
        })
    }

    /// Somebody wants a connection to `peer`.
    pub(super) fn connect(self: &Arc<Self>, peer: &str) -> Connecting {
        let mut state = self.lock();
        if state.stopped {
            return Connecting::Stopped;
        }
        let id = state.draw();
        let attempt = match state.table.outgoing(peer, id) {
            Outgoing::Up(id) if state.is_usable(id) => return Connecting::Up(id),
            Outgoing::Up(_) | Outgoing::Wait => None,
            Outgoing::Dial => Some(self.attempt(&mut state, peer, id)),
        };
        let (sender, receiver) = oneshot::channel();
        let waiters = state.waiters.entry(peer.to_owned()).or_default();
        // Those who gave up waiting leave nothing behind, however often they come back.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        Connecting::Wait(receiver, attempt)
    }

    /// `peer` has sent its name.
    pub(super) fn incoming(self: &Arc<Self>, peer: &str) -> Admission {
        let mut state = self.lock();
        if state.stopped {
            return Admission::Refuse;
        }
        let id = state.draw();
        match state.table.incoming(peer, id) {
            Incoming::Ok => Admission::Ok(self.attempt(&mut state, peer, id)),
            Incoming::OkSimultaneous { abandon } => {
                if let Some(abandoned) = state.attempts.get(&abandon) {
                    abandoned.notify_one();
                }
                Admission::OkSimultaneous(self.attempt(&mut state, peer, id))
            }
            Incoming::Alive => Admission::Alive(self.attempt(&mut state, peer, id)),
            Incoming::Nok => Admission::Nok,
            Incoming::Refuse => Admission::Refuse,
        }
    }

    /// A peer at `host` asks for a name: gives it one that nobody has, and its creation. `random` draws numbers.
    pub(super) fn name_peer(
        self: &Arc<Self>,
        host: &str,
        mut random: impl FnMut() -> u64,
    ) -> Option<(NodeName, u32, Attempt)> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        let reusable = state
            .reusable
            .iter()
            .position(|given| given.name.host() == host);
        let given = match reusable.and_then(|at| state.reusable.remove(at)) {
            Some(given) => given,
            None => GivenName {
                name: NodeName::parse(format!("{}@{host}", base_36(random()))).ok()?,
                creation: first_creation(random()),
            },
        };
        let id = state.draw();
        let peer = given.name.as_str();
        // A peer that chose this very name for itself may be there already; then this one has to ask again.
        if state.table.is_free(peer) && state.table.incoming(peer, id) == Incoming::Ok {
            let attempt = self.attempt(&mut state, peer, id);
            let (name, creation) = (given.name.clone(), given.creation);
            state.given.insert(id, given);
            return Some((name, creation, attempt));
        }
        None
    }

    /// Completes when the nodeup of `connection` is done.
    pub(super) async fn wait_opened(&self, peer: &str, connection: ConnectionId) {
        loop {
            let outcome = {
                let mut state = self.lock();
                if !state.opening.contains(&connection) {
                    return;
                }
                let (sender, receiver) = oneshot::channel();
                let waiters = state.waiters.entry(peer.to_owned()).or_default();
                waiters.push(sender);
                receiver
            };
            // Whatever the outcome is, it is a reason to look again.
            let _ = outcome.await;
        }
    }

    /// `connection` has ended and its nodedown begins: nobody gets it any more.
    pub(super) fn closing(&self, peer: &str, connection: ConnectionId) {
        let mut state = self.lock();
        if state.table.connection(peer) == Some(connection) {
            state.closing.insert(connection);
        }
    }

    /// `connection` has ended and its nodedown is done.
    pub(super) fn down(&self, peer: &str, connection: ConnectionId) {
        let mut state = self.lock();
        state.closing.remove(&connection);
        state.take_back(connection);
        // Where a replacement is under way, it goes on for those who wait.
        if state.table.down(peer, connection) == Down::Freed {
            state.waiters.remove(peer);
        }
    }

    #[cfg(test)]
    pub(super) fn is_free(&self, peer: &str) -> bool {
        self.lock().table.is_free(peer)
    }

    /// Accepts and dials nothing more, and tells all who wait.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for abandoned in state.attempts.values() {
            abandoned.notify_one();
        }
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters.into_values().flatten() {
            // Those who gave up waiting do not want to know.
            let _ = waiter.send(Err(ConnectError::Stopped));
        }
    }

    fn attempt(self: &Arc<Self>, state: &mut State, peer: &str, id: ConnectionId) -> Attempt {
        let abandoned = Arc::new(Notify::new());
        state.attempts.insert(id, Arc::clone(&abandoned));
        Attempt {
            slots: Arc::clone(self),
            peer: peer.to_owned(),
            id,
            abandoned,
            done: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether its nodeup is done, and its nodedown has not begun.
    fn is_usable(&self, connection: ConnectionId) -> bool {
        !self.opening.contains(&connection) && !self.closing.contains(&connection)
    }

    fn draw(&mut self) -> ConnectionId {
        self.last_id += 1;
        ConnectionId(self.last_id)
    }

    fn release(&mut self, peer: &str, outcome: &Outcome) {
        for waiter in self.waiters.remove(peer).into_iter().flatten() {
            // Those who gave up waiting do not want to know.
            let _ = waiter.send(outcome.clone());
        }
    }

    /// A name given to a peer is free again, for an owner with the next creation.
    fn take_back(&mut self, id: ConnectionId) {
        if let Some(GivenName { name, creation }) = self.given.remove(&id)
            && self.reusable.len() < MAX_REUSED_NAMES
        {
            let creation = first_creation(u64::from(creation) + 1);
            self.reusable.push_back(GivenName { name, creation });
        }
    }
}

impl Attempt {
    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// Completes when another attempt took the slot or the node stops.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let abandoned = Arc::clone(&self.abandoned);
        async move { abandoned.notified().await }
    }

    /// As initiator that got `alive`: whether this attempt is current.
    pub(super) fn alive_reply(&self) -> bool {
        self.slots.lock().table.alive_reply(&self.peer, self.id)
    }

    /// As acceptor whose peer proved the cookie: whether an older connection must be closed first.
    pub(super) fn take_over(&self) -> TakeOver {
        self.slots.lock().table.take_over(&self.peer, self.id)
    }

    /// The handshake is done. If the slot belongs to somebody else by now, the stream must be closed.
    pub(super) fn complete(mut self) -> Result<Opening, HandshakeFailure> {
        let mut state = self.slots.lock();
        if state.stopped {
            return Err(HandshakeFailure::Stopped);
        }
        match state.table.completed(&self.peer, self.id) {
            Completed::Lost => Err(HandshakeFailure::Abandoned),
            Completed::Up => {
                state.attempts.remove(&self.id);
                state.opening.insert(self.id);
                drop(state);
                self.done = true;
                Ok(Opening {
                    slots: Arc::clone(&self.slots),
                    peer: std::mem::take(&mut self.peer),
                    id: self.id,
                    done: false,
                })
            }
        }
    }

    /// The attempt failed: those who wait are told why, unless another attempt goes on for them.
    pub(super) fn fail(mut self, error: ConnectError) {
        self.end(error);
    }

    fn end(&mut self, error: ConnectError) {
        self.done = true;
        let mut state = self.slots.lock();
        state.attempts.remove(&self.id);
        state.take_back(self.id);
        match state.table.failed(&self.peer, self.id) {
            Failed::Freed => state.release(&self.peer, &Err(error)),
            Failed::StillUp(connection) if state.is_usable(connection) => {
                state.release(&self.peer, &Ok(connection));
            }
            Failed::StillUp(_) | Failed::NotOwner => {}
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.done {
            self.end(ConnectError::Handshake {
                peer: self.peer.clone(),
                failure: HandshakeFailure::Abandoned,
            });
        }
    }
}

impl Opening {
    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The nodeup is done: those who wait get the connection.
    pub(super) fn opened(mut self) {
        self.done = true;
        let mut state = self.slots.lock();
        state.opening.remove(&self.id);
        state.release(&self.peer, &Ok(self.id));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.slots.lock();
        state.opening.remove(&self.id);
        state.take_back(self.id);
        // An attempt that waits to replace the connection goes on for those who wait.
        if let Down::Freed | Down::NotUp = state.table.down(&self.peer, self.id) {
            let failure = HandshakeFailure::Abandoned;
            let peer = self.peer.clone();
            state.release(&self.peer, &Err(ConnectError::Handshake { peer, failure }));
        }
    }
}

/// 0 stands for "any" and 1 to 3 for the creations of old nodes.
pub(super) fn first_creation(random: u64) -> u32 {
    (random as u32).max(4)
}

/// A number as OTP writes the first part of the names it gives.
fn base_36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = (number % 36) as u8;
        digits.push(char::from(match digit {
            0..10 => b'0' + digit,
            _ => b'A' + digit - 10,
        }));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
