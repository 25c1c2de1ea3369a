//! Connections to other nodes: listening, dialling, and exactly one connection per peer.
//!
//! ```text
//! Transport::start   listens, registers with epmd ──► port, creation
//!          ::open    accepts and dials from now on
//!
//! accept ─ listen.rs ─┐                        ┌─► Hub::supersede(old)   an older connection goes first
//!                     ├─► handshake, slots.rs ─┤
//! connect ─ dial.rs ──┘                        └─► Hub::up(established)  then those who wait are told
//! ```
//!
//! This is the driver of [`tiebeam_wire::slot`] and [`tiebeam_wire::handshake`]: it has the sockets, the time limits and
//! the waiters. Frames, ticks and everything after the handshake belong to the [`Hub`].

mod dial;
mod error;
mod listen;
mod messages;
mod slots;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tiebeam_wire::epmd::Entry;
use tiebeam_wire::flags::Flags;
use tiebeam_wire::handshake::{Local, NodeName, Session, Width};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use error::{ConnectError, StartError};
pub use messages::HandshakeFailure;
pub(crate) use tiebeam_wire::slot::ConnectionId;

use crate::epmd::{EpmdMode, Registration, Settings};
use crate::tls::{Tls, TlsConfig, TlsError, TlsStream};
use crate::waiting_room::WaitingRoom;
use messages::Handshaken;
use slots::{Attempt, Connecting, Opening, Slots};

/// How long a peer may take for each step of a handshake, as `net_setuptime` of OTP.
pub(crate) const SETUP_TIME: Duration = Duration::from_secs(7);

/// How long a handshake may take in all. OTP has no such limit; without one a peer could send a byte every 6 s.
pub(crate) const TOTAL_SETUP_TIME: Duration = Duration::from_secs(30);

/// Most sockets whose peer has not proved the cookie. A cluster of that many nodes may dial at the same instant; each
/// costs a task and half a kilobyte; with TLS some tens of kilobytes.
pub(crate) const MAX_UNAUTHENTICATED: usize = 256;

/// Most such sockets from one address: a few hosts of many nodes each may dial at once, one host cannot take all.
pub(crate) const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 128;

/// What a node needs to meet others. Not `Debug`: it holds cookies.
#[derive(Clone)]
pub(crate) struct TransportConfig {
    pub(crate) name: NodeName,
    /// The cookie for peers that have none of their own below.
    pub(crate) cookie: String,
    /// Cookies by the name of the peer, as `erlang:set_cookie(Node, Cookie)`.
    pub(crate) peer_cookies: HashMap<String, String>,
    /// What is offered to peers; without `PUBLISHED` the node is hidden.
    pub(crate) flags: Flags,
    /// Where to listen.
    pub(crate) listen: IpAddr,
    /// Ports to try in turn; `0..=0` is any free one.
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) epmd: EpmdMode,
    pub(crate) epmd_port: u16,
    /// Where peers listen, by their name; epmd is not asked for those.
    pub(crate) addresses: HashMap<String, SocketAddr>,
    /// Where all other peers listen, on their hosts; epmd is not asked for those either.
    pub(crate) common_port: Option<u16>,
    /// With it all connections are inside TLS.
    pub(crate) tls: Option<TlsConfig>,
    /// [`SETUP_TIME`] unless there is a reason.
    pub(crate) setup_time: Duration,
    /// [`MAX_UNAUTHENTICATED`] unless there is a reason.
    pub(crate) max_unauthenticated: usize,
    /// [`MAX_UNAUTHENTICATED_PER_ADDRESS`] unless there is a reason.
    pub(crate) max_unauthenticated_per_address: usize,
}

/// What the bytes of a connection go through.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) id: ConnectionId,
    pub(crate) peer: String,
    /// What the peer offered.
    pub(crate) peer_flags: Flags,
    /// What both sides can do.
    pub(crate) flags: Flags,
    pub(crate) peer_creation: u32,
    /// Whether both sides are visible.
    pub(crate) visible: bool,
    pub(crate) stream: Stream,
    /// Bytes that came with the last handshake message: the first bytes of the framing.
    pub(crate) leftover: BytesMut,
    /// Whether this node opened the connection.
    pub(crate) dialled: bool,
}

/// Who takes over established connections. Each of them must end with a call of [`Transport::down`], when its nodedown
/// is done; until then there is no other connection to that peer.
pub(crate) trait Hub: Send + Sync + 'static {
    /// A connection is up and its slot is taken. Returns when the nodeup is done; callers of [`Transport::connect`] wait
    /// for it. Never cancelled.
    fn up(&self, established: Established) -> impl Future<Output = ()> + Send;

    /// The peer has a new connection because the connection `id` is dead for it: closes that one and returns when its
    /// nodedown is done. A call of [`Transport::down`] is allowed but not needed. Never cancelled, never called before
    /// `up` of that connection has returned.
    fn supersede(&self, peer: &str, id: ConnectionId) -> impl Future<Output = ()> + Send;
}

/// A [`Hub`] behind a pointer, so that the transport has no type parameter.
trait DynHub: Send + Sync {
    fn up<'a>(&'a self, established: Established) -> BoxFuture<'a>;
    fn supersede<'a>(&'a self, peer: &'a str, id: ConnectionId) -> BoxFuture<'a>;
}

type BoxFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl<H: Hub> DynHub for H {
    fn up<'a>(&'a self, established: Established) -> BoxFuture<'a> {
        Box::pin(Hub::up(self, established))
    }

    fn supersede<'a>(&'a self, peer: &'a str, id: ConnectionId) -> BoxFuture<'a> {
        Box::pin(Hub::supersede(self, peer, id))
    }
}

/// A node that listens and is registered, but does not accept yet: peers that dial are held by the system.
pub(crate) struct Listening {
    config: TransportConfig,
    listener: TcpListener,
    port: u16,
    creation: u32,
    registration: Option<Registration>,
    tls: Option<Tls>,
}

/// The connections of a node to others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    config: TransportConfig,
    local: Local,
    port: u16,
    tls: Option<Tls>,
    slots: Arc<Slots>,
    room: Arc<WaitingRoom>,
    hub: Arc<dyn DynHub>,
    registration: Mutex<Option<Registration>>,
    /// Turns `true` once.
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Transport {
    /// Listens and registers with epmd: from now on the port and the creation are known.
    pub(crate) async fn start(config: TransportConfig) -> Result<Listening, StartError> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        let is_found = config.epmd != EpmdMode::LookUpOnly;
        if is_found && tls.as_ref().is_some_and(|tls| !tls.accepts()) {
            return Err(TlsError::NoIdentity.into());
        }
        let listener = listen::bind(config.listen, config.ports.clone())?;
        let address = |source| StartError::Listen {
            address: SocketAddr::new(config.listen, *config.ports.start()),
            source: Arc::new(source),
        };
        let port = listener.local_addr().map_err(address)?.port();
        let (registration, creation) = match config.epmd {
            EpmdMode::None | EpmdMode::LookUpOnly => (None, slots::first_creation(rand::random())),
            mode => {
                let settings = Settings {
                    mode,
                    port: config.epmd_port,
                    listen: config.listen,
                };
                let hidden = !config.flags.contains(Flags::PUBLISHED);
                let entry = Entry::new(config.name.alive(), port, hidden);
                let registration = Registration::start(settings, entry).await?;
                let creation = registration.creation();
                (Some(registration), creation)
            }
        };
        Ok(Listening {
            config,
            listener,
            port,
            creation,
            registration,
            tls,
        })
    }

    /// Where this node listens.
    pub(crate) fn port(&self) -> u16 {
        self.inner.port
    }

    /// The port of epmd, on this host and on others.
    pub(crate) fn epmd_port(&self) -> u16 {
        self.inner.config.epmd_port
    }

    /// The connection to `peer`; dials if there is none and nobody is at it, else waits for the outcome. One that has
    /// ended is not given, but the end of its nodedown awaited.
    ///
    /// Cancel safe: the attempt goes on for others who wait.
    pub(crate) async fn connect(&self, peer: &str) -> Result<ConnectionId, ConnectError> {
        let inner = &self.inner;
        let peer = dial::check_name(&inner.local.name, peer)?;
        loop {
            match inner.slots.connect(peer.as_str()) {
                Connecting::Up(id) => return Ok(id),
                Connecting::Stopped => return Err(ConnectError::Stopped),
                Connecting::Wait(outcome, attempt) => {
                    if let Some(attempt) = attempt {
                        inner.spawn(dial::run(Arc::clone(inner), peer.clone(), attempt));
                    }
                    if let Ok(outcome) = outcome.await {
                        return outcome;
                    }
                }
            }
        }
    }

    /// The connection `id` to `peer` has ended and its nodedown begins. Optional: from now on [`Transport::connect`] does
    /// not give it to anybody.
    pub(crate) fn closing(&self, peer: &str, id: ConnectionId) {
        self.inner.slots.closing(peer, id);
    }

    /// The connection `id` to `peer` has ended and its nodedown is done: the slot is free. To be called only after
    /// [`Hub::up`] has got that connection; calls for one that is not up any more do nothing.
    pub(crate) fn down(&self, peer: &str, id: ConnectionId) {
        self.inner.slots.down(peer, id);
    }

    /// Stops accepting and dialling and leaves epmd. Returns when the port is closed and no handshake is under way;
    /// connections that are up stay. A second call returns when the first one has done its work.
    pub(crate) async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.send_replace(true);
        inner.slots.stop();
        let registration = lock(&inner.registration).take();
        if let Some(registration) = registration {
            registration.stop().await;
        }
        let mut tasks = std::mem::take(&mut *lock(&inner.tasks));
        while tasks.join_next().await.is_some() {}
    }
}

impl Listening {
    /// What tells this node from earlier ones of its name.
    pub(crate) fn creation(&self) -> u32 {
        self.creation
    }

    /// Accepts and dials from now on. `hub` gets the connections; it may get one before this returns.
    pub(crate) fn open<H: Hub>(self, hub: Arc<H>) -> Transport {
        let local = Local {
            name: self.config.name.clone(),
            creation: self.creation,
            flags: self.config.flags,
        };
        let inner = Arc::new(Inner {
            slots: Slots::new(&self.config.name),
            room: WaitingRoom::new(
                self.config.max_unauthenticated,
                self.config.max_unauthenticated_per_address,
            ),
            config: self.config,
            local,
            port: self.port,
            tls: self.tls,
            hub,
            registration: Mutex::new(self.registration),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
        });
        inner.spawn(listen::run(Arc::clone(&inner), self.listener));
        Transport { inner }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("name", &self.config.name)
            .field("port", &self.port)
            .field("creation", &self.creation)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn cookie(&self, peer: &str) -> &str {
        self.config
            .peer_cookies
            .get(peer)
            .unwrap_or(&self.config.cookie)
    }

    /// How handshake messages are framed.
    fn width(&self) -> Width {
        match self.tls {
            None => Width::Plain,
            Some(_) => Width::Tls,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if !*self.stop.borrow() {
            tasks.spawn(task);
        }
    }

    /// Completes when the node stops.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender lives as long as the tasks that wait here; if it did not, that were a stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// Closes an older connection and finishes its nodedown, whatever becomes of the attempt that asks for it.
    async fn supersede(self: &Arc<Self>, attempt: &Attempt, peer: &str, old: ConnectionId) {
        tracing::info!(peer, connection = %old, replacement = %attempt.id(), "the peer has a new connection: closing the old one");
        let inner = Arc::clone(self);
        let peer = peer.to_owned();
        let superseded = tokio::spawn(async move {
            inner.slots.wait_opened(&peer, old).await;
            inner.hub.supersede(&peer, old).await;
            inner.slots.down(&peer, old);
        });
        if let Err(error) = superseded.await {
            tracing::error!(%error, "closing a superseded connection failed");
        }
    }

    /// Hands a connection over and tells those who wait.
    async fn open(&self, opening: Opening, handshaken: Handshaken<Stream>, dialled: bool) {
        let Handshaken {
            session,
            stream,
            leftover,
        } = handshaken;
        let visible = session.visible();
        let Session {
            peer,
            peer_flags,
            flags,
            peer_creation,
        } = session;
        let established = Established {
            id: opening.id(),
            peer: peer.to_string(),
            peer_flags,
            flags,
            peer_creation,
            visible,
            stream,
            leftover,
            dialled,
        };
        self.hub.up(established).await;
        opening.opened();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind these locks is taken or replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
