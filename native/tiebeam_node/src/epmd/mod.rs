//! epmd: a registration that outlives epmd's death, look-ups, and an epmd of our own where none runs.
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "EPMD Protocol"; `erl_epmd.erl` for retries and time limits.

mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_wire::epmd::{
    Alive2Response, Entry, MAX_RESPONSE, NamesResponse, PortResponse, Request, ResponseError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use server::Server;

/// How long each answer of epmd may take, as in `erl_epmd.erl`.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How often a node whose epmd is gone tries to register again, as in `erl_epmd.erl`.
const RETRY: Duration = Duration::from_millis(2000);

/// How a node uses epmd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EpmdMode {
    /// Use the epmd of this host; if none runs, be it, until this node ends.
    #[default]
    Auto,
    /// Use the epmd of this host; fail if none runs.
    Client,
    /// Be the epmd of this host; fail if one runs.
    Serve,
    /// Find peers through epmd, but do not register: for a node that only asks others, and that nobody looks for.
    LookUpOnly,
    /// No epmd: peers have static addresses or a common port.
    None,
}

/// Why epmd did not do what was asked.
#[derive(Debug, Clone)]
pub enum EpmdError {
    /// Nobody answers at that address.
    Unreachable {
        /// Where epmd was expected.
        address: SocketAddr,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The stream broke or another program answered.
    Answer {
        /// Where epmd was expected.
        address: SocketAddr,
        /// What is wrong with the answer.
        source: ResponseError,
    },
    /// No answer in time.
    Timeout {
        /// Where epmd was expected.
        address: SocketAddr,
    },
    /// Another node of this host has the name.
    NameTaken {
        /// The part of the name before the `@`.
        name: String,
    },
    /// An epmd was to be served here, but something listens on its port.
    Serve {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: Arc<io::Error>,
    },
}

/// Where this host's epmd is, and whether to be it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) mode: EpmdMode,
    pub(crate) port: u16,
    /// Where the node listens. An epmd of our own serves this address and the loopback addresses, no other.
    pub(crate) listen: IpAddr,
}

/// The loopback addresses. The order is that in which an epmd of our own takes them: all such epmds of a host meet at
/// the first one, so that only one of them serves.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

impl Settings {
    /// Where this host's epmd may be: nodes register over loopback only. An epmd that does not listen on the family of
    /// the node may do so on the other one.
    fn addresses(&self) -> [SocketAddr; 2] {
        let mut addresses = LOOPBACK.map(|ip| SocketAddr::new(ip, self.port));
        if self.listen.is_ipv6() {
            addresses.reverse();
        }
        addresses
    }
}

/// A node's registration. If epmd dies, the node registers again with the same name and port; the creation stays.
#[derive(Debug)]
pub(crate) struct Registration {
    creation: u32,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Registration {
    /// Registers `entry`, after starting an epmd if the mode says so and none runs.
    pub(crate) async fn start(settings: Settings, entry: Entry) -> Result<Registration, EpmdError> {
        let mut server = None;
        if settings.mode == EpmdMode::Serve {
            server = Some(Server::start(&settings)?);
        }
        let (stream, creation) = establish(&settings, &entry, &mut server).await?;
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn(keep(settings, entry, stream, server, stopped));
        Ok(Registration {
            creation,
            stop,
            keeper,
        })
    }

    /// What tells this node from earlier ones of its name; it never changes while the node runs.
    pub(crate) fn creation(&self) -> u32 {
        self.creation
    }

    /// Ends the registration, and the epmd of our own if there is one: other nodes then take its place.
    pub(crate) async fn stop(self) {
        // A keeper that is gone already has nothing to stop.
        let _ = self.stop.send(());
        if let Err(error) = self.keeper.await {
            tracing::error!(%error, "the task of the epmd registration failed");
        }
    }
}

/// Waits for the end of the registration's stream and registers again, until told to stop.
async fn keep(
    settings: Settings,
    entry: Entry,
    mut stream: TcpStream,
    mut server: Option<Server>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            () = end_of(&mut stream) => {}
        }
        tracing::warn!(
            port = settings.port,
            "epmd closed the registration; registering again"
        );
        let mut told = false;
        stream = loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = sleep(RETRY) => {}
            }
            match establish(&settings, &entry, &mut server).await {
                // The creation of the first registration stays in use: pids that others hold carry it.
                Ok((stream, _)) => break stream,
                Err(error) if !told => {
                    tracing::warn!(%error, "not registered with epmd; trying every {RETRY:?}");
                    told = true;
                }
                Err(_) => {}
            }
        };
        tracing::info!(port = settings.port, "registered with epmd again");
    }
}

/// Completes when epmd closes the stream. It sends nothing on a registered stream; if it does, that is ignored.
async fn end_of(stream: &mut TcpStream) {
    let mut ignored = [0; 64];
    while matches!(stream.read(&mut ignored).await, Ok(length) if length > 0) {}
}

/// Registers with the epmd that runs, or with one of our own.
async fn establish(
    settings: &Settings,
    entry: &Entry,
    server: &mut Option<Server>,
) -> Result<(TcpStream, u32), EpmdError> {
    let unreachable = match register_at_any(settings, entry).await {
        Err(error @ EpmdError::Unreachable { .. }) => error,
        outcome => return outcome,
    };
    if settings.mode == EpmdMode::Client {
        return Err(unreachable);
    }
    // If one of our own ran, it is dead.
    *server = None;
    match Server::start(settings) {
        Ok(started) => {
            tracing::info!(port = settings.port, "no epmd runs here: serving it");
            *server = Some(started);
        }
        // Another node that starts now was faster: be its client.
        Err(EpmdError::Serve { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error),
    }
    register_at_any(settings, entry).await
}

/// Registers at the first address where an epmd answers; if there is none, says so of the node's own family.
async fn register_at_any(
    settings: &Settings,
    entry: &Entry,
) -> Result<(TcpStream, u32), EpmdError> {
    let [own, other] = settings.addresses();
    match register(own, entry).await {
        Err(unreachable @ EpmdError::Unreachable { .. }) => match register(other, entry).await {
            Err(EpmdError::Unreachable { .. }) => Err(unreachable),
            outcome => outcome,
        },
        outcome => outcome,
    }
}

/// Registers; the stream is the registration.
async fn register(address: SocketAddr, entry: &Entry) -> Result<(TcpStream, u32), EpmdError> {
    let request = Request::Alive2(entry.clone()).encode();
    let exchange = async {
        let mut stream = ask(address, &request).await?;
        let mut received = Vec::with_capacity(8);
        loop {
            let length = stream
                .read_buf(&mut received)
                .await
                .map_err(|source| unreachable_at(address, source))?;
            let answer = Alive2Response::decode(&received)
                .map_err(|source| EpmdError::Answer { address, source })?;
            match answer {
                Some(Alive2Response::Ok { creation }) => return Ok((stream, creation)),
                Some(Alive2Response::Error { .. }) => {
                    return Err(EpmdError::NameTaken {
                        name: String::from_utf8_lossy(&entry.name).into_owned(),
                    });
                }
                None if length == 0 => {
                    let length = received.len();
                    let source = ResponseError::Truncated { length };
                    return Err(EpmdError::Answer { address, source });
                }
                None => {}
            }
        }
    };
    timeout(ANSWER_TIME, exchange)
        .await
        .unwrap_or(Err(EpmdError::Timeout { address }))
}

/// Asks the epmd at `address` where the node `alive` listens; `None` if it is not registered there.
///
/// Takes at most 10 s. Cancel safe: epmd keeps no state of a look-up.
pub async fn look_up(address: SocketAddr, alive: &str) -> Result<Option<Entry>, EpmdError> {
    let request = Request::PortPlease2(alive.as_bytes().to_vec());
    let answer = whole_answer(address, &request).await?;
    match PortResponse::decode(&answer) {
        Ok(PortResponse::Found(entry)) => Ok(Some(entry)),
        Ok(PortResponse::Unknown) => Ok(None),
        Err(source) => Err(EpmdError::Answer { address, source }),
    }
}

/// Asks the epmd at `address` for all nodes of its host.
///
/// Takes at most 10 s. Cancel safe: epmd keeps no state of a look-up.
pub async fn names(address: SocketAddr) -> Result<NamesResponse, EpmdError> {
    let answer = whole_answer(address, &Request::Names).await?;
    NamesResponse::decode(&answer).map_err(|source| EpmdError::Answer { address, source })
}

async fn whole_answer(address: SocketAddr, request: &Request) -> Result<Vec<u8>, EpmdError> {
    let exchange = async {
        let stream = ask(address, &request.encode()).await?;
        let mut answer = Vec::new();
        stream
            .take(MAX_RESPONSE as u64 + 1)
            .read_to_end(&mut answer)
            .await
            .map_err(|source| unreachable_at(address, source))?;
        if answer.len() > MAX_RESPONSE {
            let source = ResponseError::TooLong;
            return Err(EpmdError::Answer { address, source });
        }
        Ok(answer)
    };
    timeout(ANSWER_TIME, exchange)
        .await
        .unwrap_or(Err(EpmdError::Timeout { address }))
}

async fn ask(address: SocketAddr, request: &[u8]) -> Result<TcpStream, EpmdError> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        Ok(stream)
    };
    asked
        .await
        .map_err(|source| unreachable_at(address, source))
}

fn unreachable_at(address: SocketAddr, source: io::Error) -> EpmdError {
    EpmdError::Unreachable {
        address,
        source: Arc::new(source),
    }
}

impl fmt::Display for EpmdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EpmdError::Unreachable { address, source } => write!(
                f,
                "no epmd answers at {address} ({source}): start one (epmd -daemon), let the node serve it, or check \
                 ERL_EPMD_PORT"
            ),
            EpmdError::Answer { address, source } => {
                write!(f, "the epmd at {address} gave no valid answer: {source}")
            }
            EpmdError::Timeout { address } => write!(
                f,
                "the epmd at {address} did not answer within {} s: check that this is an epmd and that it is not stopped",
                ANSWER_TIME.as_secs()
            ),
            EpmdError::NameTaken { name } => write!(
                f,
                "the name '{name}' is already registered with epmd: stop the other node of this name or choose another one"
            ),
            EpmdError::Serve { address, source } => write!(
                f,
                "epmd cannot be served at {address} ({source}): use the one that runs there, or choose another port \
                 with ERL_EPMD_PORT"
            ),
        }
    }
}

impl std::error::Error for EpmdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EpmdError::Unreachable { source, .. } | EpmdError::Serve { source, .. } => Some(source),
            EpmdError::Answer { source, .. } => Some(source),
            EpmdError::Timeout { .. } | EpmdError::NameTaken { .. } => None,
        }
    }
}
