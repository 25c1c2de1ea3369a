//! The dialling side: from a node name to a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tiebeam_wire::handshake::{NodeName, Status, send_name};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::messages::{Handshaken, Messages};
use super::slots::Attempt;
use super::{ConnectError, HandshakeFailure, Inner, Stream, TOTAL_SETUP_TIME, socket};
use crate::epmd::{self, EpmdMode};

/// Most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;

/// Refuses names that cannot be dialled, as OTP does before it looks anything up.
pub(super) fn check_name(own: &NodeName, peer: &str) -> Result<NodeName, ConnectError> {
    let peer = NodeName::parse(peer)?;
    if peer == *own {
        return Err(ConnectError::OwnName(peer));
    }
    if peer.form() != own.form() {
        return Err(ConnectError::NameForm {
            peer,
            own: own.clone(),
        });
    }
    Ok(peer)
}

/// Carries out an attempt that owns the slot of `peer`.
pub(super) async fn run(inner: Arc<Inner>, peer: NodeName, attempt: Attempt) {
    let failed = |failure| ConnectError::Handshake {
        peer: peer.to_string(),
        failure,
    };
    let steps = async {
        let stream = reach(&inner, &peer).await?;
        socket::configure(&stream).map_err(|error| failed(error.into()))?;
        let Some(tls) = &inner.tls else {
            let dialled = dial(&inner, &peer, &attempt, stream).await?;
            return Ok(dialled.map(Stream::Tcp));
        };
        let secured = timeout(inner.config.setup_time, tls.connect(peer.host(), stream));
        let stream = match secured.await {
            Ok(secured) => secured.map_err(|error| failed(error.into()))?,
            Err(_) => {
                return Err(failed(HandshakeFailure::Timeout {
                    awaited: "TLS handshake",
                    after: inner.config.setup_time,
                }));
            }
        };
        let dialled = dial(&inner, &peer, &attempt, stream).await?;
        Ok(dialled.map(|stream| Stream::Tls(Box::new(stream))))
    };
    let dialled = tokio::select! {
        () = attempt.abandoned() => Err(failed(HandshakeFailure::Abandoned)),
        () = inner.stopped() => Err(ConnectError::Stopped),
        dialled = timeout(TOTAL_SETUP_TIME, steps) => dialled.unwrap_or_else(|_| {
            Err(failed(HandshakeFailure::Timeout {
                awaited: "connection",
                after: TOTAL_SETUP_TIME,
            }))
        }),
    };
    match dialled {
        Ok(handshaken) => match attempt.complete() {
            Ok(opening) => inner.open(opening, handshaken, true).await,
            Err(failure) => tracing::debug!(%peer, %failure, "connection not made"),
        },
        Err(error) => {
            tracing::debug!(%peer, %error, "connection not made");
            attempt.fail(error);
        }
    }
}

/// The handshake as initiator. After a `nok` it waits for the peer's own connection, which then abandons this attempt.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Inner,
    peer: &NodeName,
    attempt: &Attempt,
    stream: S,
) -> Result<Handshaken<S>, ConnectError> {
    let handshaken = handshake(inner, peer, attempt, stream).await;
    let handshaken = handshaken.map_err(|failure| ConnectError::Handshake {
        peer: peer.to_string(),
        failure,
    })?;
    match handshaken {
        Some(handshaken) => Ok(handshaken),
        None => {
            let waited = inner.config.setup_time;
            sleep(waited).await;
            let peer = peer.clone();
            Err(ConnectError::Nok { peer, waited })
        }
    }
}

/// `None` stands for `nok`; the stream is closed then.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Inner,
    peer: &NodeName,
    attempt: &Attempt,
    stream: S,
) -> Result<Option<Handshaken<S>>, HandshakeFailure> {
    let mut messages = Messages::new(stream, inner.width(), inner.config.setup_time);
    let (named, name) = send_name(inner.local.clone(), peer.clone());
    messages.write(&[&name]).await?;
    let body = messages.read("status").await?;
    let admitted = match named.status(&body)? {
        Status::Ok(admitted) => admitted,
        Status::Nok => return Ok(None),
        Status::Alive(alive) if attempt.alive_reply() => {
            let (admitted, reply) = alive.proceed();
            messages.write(&[reply]).await?;
            admitted
        }
        Status::Alive(alive) => {
            messages.write(&[alive.give_up()]).await?;
            return Err(HandshakeFailure::Abandoned);
        }
    };
    let body = messages.read("challenge").await?;
    let cookie = inner.cookie(peer.as_str());
    let (replied, reply) = admitted.challenge(&body, cookie, rand::random())?;
    messages.write(&[&reply]).await?;
    let body = match messages.read("proof of the cookie").await {
        // OTP closes without a word if our proof is wrong.
        Err(HandshakeFailure::Closed { .. }) => return Err(HandshakeFailure::CookieRefused),
        body => body?,
    };
    let session = replied.ack(&body)?;
    Ok(Some(messages.finish(session)))
}

/// A TCP connection to the port where `peer` listens.
async fn reach(inner: &Inner, peer: &NodeName) -> Result<TcpStream, ConnectError> {
    if let Some(&address) = inner.config.addresses.get(peer.as_str()) {
        return connect(inner, peer, address).await;
    }
    let common_port = inner.config.common_port;
    if common_port.is_none() && inner.config.epmd == EpmdMode::None {
        return Err(ConnectError::NoAddress(peer.clone()));
    }
    let mut failure = ConnectError::NoAddress(peer.clone());
    // A host may have addresses on which it does not serve: the first one that works is taken, and among the reasons
    // why none works, what epmd itself said is worth more than that nobody answers.
    for host in hosts(inner, peer).await? {
        let tried = async {
            let port = match common_port {
                Some(port) => port,
                None => port_of(inner, peer, host).await?,
            };
            connect(inner, peer, SocketAddr::new(host.ip(), port)).await
        };
        match tried.await {
            Ok(stream) => return Ok(stream),
            Err(_) if matches!(failure, ConnectError::NotRegistered { .. }) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The addresses of the peer's host; those of the family on which this node listens come first.
async fn hosts(inner: &Inner, peer: &NodeName) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = timeout(inner.config.setup_time, lookup_host((peer.host(), 0)));
    let found = found.await.unwrap_or_else(|late| Err(late.into()));
    let mut hosts: Vec<_> = found
        .map_err(|source| ConnectError::Host {
            peer: peer.clone(),
            source: Arc::new(source),
        })?
        .collect();
    hosts.sort_by_key(|host| host.is_ipv6() != inner.config.listen.is_ipv6());
    hosts.truncate(MAX_ADDRESSES);
    Ok(hosts)
}

async fn port_of(inner: &Inner, peer: &NodeName, host: SocketAddr) -> Result<u16, ConnectError> {
    let address = SocketAddr::new(host.ip(), inner.config.epmd_port);
    let asked = timeout(
        inner.config.setup_time,
        epmd::look_up(address, peer.alive()),
    );
    let found = asked
        .await
        .unwrap_or(Err(epmd::EpmdError::Timeout { address }));
    match found {
        Ok(Some(entry)) if entry.is_compatible() => Ok(entry.port),
        Ok(Some(entry)) => Err(ConnectError::Version {
            peer: peer.clone(),
            lowest: entry.lowest,
            highest: entry.highest,
        }),
        Ok(None) => Err(ConnectError::NotRegistered {
            peer: peer.clone(),
            epmd: address,
        }),
        Err(source) => Err(ConnectError::Epmd {
            peer: peer.clone(),
            source,
        }),
    }
}

async fn connect(
    inner: &Inner,
    peer: &NodeName,
    address: SocketAddr,
) -> Result<TcpStream, ConnectError> {
    let connected = timeout(inner.config.setup_time, TcpStream::connect(address)).await;
    connected
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|source| ConnectError::Unreachable {
            peer: peer.clone(),
            address,
            source: Arc::new(source),
        })
}
