//! An epmd inside the node, for hosts that run none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_wire::epmd::{Answer, Registrations, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{ANSWER_TIME, EpmdError, LOOPBACK, Settings, end_of};
use crate::transport::socket;
use crate::waiting_room::WaitingRoom;

/// Most sockets without a registration. A request takes one round trip, so more than these are not nodes.
const MOST_WAITING: usize = 256;

/// Most sockets without a registration from one address: leaves room for other hosts.
const MOST_WAITING_PER_ADDRESS: usize = 128;

/// A running epmd. Dropping it closes its port and all registrations.
#[derive(Debug)]
pub(super) struct Server {
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    registrations: Mutex<Registrations>,
    next_socket: AtomicU64,
    room: Arc<WaitingRoom>,
}

impl Server {
    /// Listens on the loopback addresses and on the node's own.
    pub(super) fn start(settings: &Settings) -> Result<Server, EpmdError> {
        let listen = |ip: IpAddr| {
            let address = SocketAddr::new(ip, settings.port);
            socket::listen(address).map_err(|source| EpmdError::Serve {
                address,
                source: Arc::new(source),
            })
        };
        let own = settings.listen;
        // The unspecified address contains the loopback address, and that of IPv6 the one of IPv4 as well.
        let contains = |ip: IpAddr| own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4());
        let mut addresses = LOOPBACK
            .map(|ip| if contains(ip) { own } else { ip })
            .to_vec();
        addresses.dedup();
        if !addresses.contains(&own) {
            addresses.push(own);
        }
        let mut listeners = Vec::new();
        for ip in addresses {
            match listen(ip) {
                Ok(listener) => listeners.push(listener),
                // A system may have no IPv6.
                Err(error) if ip == LOOPBACK[1] && ip != own => {
                    tracing::debug!(%error, "the embedded epmd serves IPv4 only");
                }
                Err(error) => return Err(error),
            }
        }
        let shared = Arc::new(Shared {
            registrations: Mutex::new(Registrations::new(settings.port, first_creation())),
            next_socket: AtomicU64::new(0),
            room: WaitingRoom::new(MOST_WAITING, MOST_WAITING_PER_ADDRESS),
        });
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(serve(listener, Arc::clone(&shared)));
        }
        Ok(Server { _tasks: tasks })
    }
}

/// Where creations start: a random number, so that a new epmd does not repeat what the one before it gave.
fn first_creation() -> u32 {
    rand::random()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    sockets.spawn(answer(stream, peer.ip().to_canonical(), Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the embedded epmd cannot accept");
                    sleep(socket::ACCEPT_PAUSE).await;
                }
            },
            Some(_) = sockets.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    let (place, evicted) = shared.room.enter(peer);
    let request = tokio::select! {
        () = evicted => return,
        request = timeout(ANSWER_TIME, read_request(&mut stream)) => match request {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "the embedded epmd closes a socket");
                return;
            }
            Err(_) => return,
        },
    };
    let socket = shared.next_socket.fetch_add(1, Ordering::Relaxed);
    let answer = shared
        .registrations()
        .answer(socket, peer.is_loopback(), request);
    match answer {
        Answer::Registered(bytes) => {
            let _registered = Registered {
                shared: &shared,
                socket,
            };
            drop(place);
            if stream.write_all(&bytes).await.is_ok() {
                end_of(&mut stream).await;
            }
        }
        Answer::Close(bytes) => {
            let written = async {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            };
            if let Ok(Err(error)) = timeout(ANSWER_TIME, written).await {
                tracing::debug!(%peer, %error, "the embedded epmd could not answer");
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Request> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).await?;
    let mut body = vec![0; Request::length(prefix).map_err(invalid)?];
    stream.read_exact(&mut body).await?;
    Request::decode(&body).map_err(invalid)
}

/// A registration, which ends with its socket's task, however that ends.
struct Registered<'a> {
    shared: &'a Shared,
    socket: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.registrations().unregister(self.socket);
    }
}

impl Shared {
    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        // The table changes in single insertions and removals: a panic elsewhere leaves it whole.
        self.registrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
