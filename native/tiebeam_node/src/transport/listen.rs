//! The accepting side: a peer has dialled.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::{fmt, io};

use tiebeam_wire::handshake::{
    AcceptorStatus, HandshakeError, Introduced, NodeName, Peer, receive_name,
};
use tiebeam_wire::slot::TakeOver;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::messages::{Handshaken, Messages};
use super::slots::{Admission, Attempt, Opening};
use super::{HandshakeFailure, Inner, StartError, Stream, TOTAL_SETUP_TIME, socket};
use crate::tls::TlsFailure;
use crate::waiting_room::Place;

/// Listens on the first free port of the range.
pub(super) fn bind(ip: IpAddr, ports: RangeInclusive<u16>) -> Result<TcpListener, StartError> {
    for port in ports.clone() {
        let address = SocketAddr::new(ip, port);
        match socket::listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => {
                return outcome.map_err(|source| StartError::Listen {
                    address,
                    source: Arc::new(source),
                });
            }
        }
    }
    Err(StartError::PortsInUse { ip, ports })
}

/// Accepts until the node stops.
pub(super) async fn run(inner: Arc<Inner>, listener: TcpListener) {
    let stopped = inner.stopped();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => inner.spawn(answer(Arc::clone(&inner), stream, peer)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(socket::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(inner: Arc<Inner>, stream: TcpStream, address: SocketAddr) {
    if let Err(error) = socket::configure(&stream) {
        tracing::debug!(%address, %error, "a peer is gone already");
        return;
    }
    let (place, evicted) = inner.room.enter(address.ip().to_canonical());
    let accepted = tokio::select! {
        () = evicted => Err(Rejected::Crowded),
        () = inner.stopped() => Err(HandshakeFailure::Stopped.into()),
        accepted = timeout(TOTAL_SETUP_TIME, secure(&inner, stream, place)) => {
            accepted.unwrap_or(Err(Rejected::TooSlow))
        }
    };
    match accepted {
        Ok((opening, handshaken)) => inner.open(opening, handshaken, false).await,
        Err(Rejected::Failed(HandshakeFailure::Protocol(
            error @ (HandshakeError::Cookie { .. }
            | HandshakeError::MissingFlags { .. }
            | HandshakeError::OwnName(_)),
        ))) => tracing::warn!(%address, %error, "connection refused"),
        Err(Rejected::Failed(HandshakeFailure::Tls(
            failure @ (TlsFailure::Certificate(_) | TlsFailure::Alert(_) | TlsFailure::NotTls),
        ))) => tracing::warn!(%address, %failure, "connection refused"),
        Err(reason) => tracing::debug!(%address, %reason, "connection not made"),
    }
}

/// Why a peer that dialled did not get a connection.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The handshake did not come to its end.
    Failed(HandshakeFailure),
    /// It has to wait for our own attempt.
    Nok(NodeName),
    /// A replacement of the connection is under way already.
    Pending(NodeName),
    /// It took back its attempt.
    GaveUp,
    /// The whole handshake took too long.
    TooSlow,
    /// Other sockets needed its place.
    Crowded,
}

/// TLS if this node uses it, then the handshake.
async fn secure(
    inner: &Arc<Inner>,
    stream: TcpStream,
    place: Place,
) -> Result<(Opening, Handshaken<Stream>), Rejected> {
    let Some(tls) = &inner.tls else {
        let (opening, handshaken) = accept(inner, stream, place).await?;
        return Ok((opening, handshaken.map(Stream::Tcp)));
    };
    let after = inner.config.setup_time;
    let stream = match timeout(after, tls.accept(stream)).await {
        Ok(secured) => secured.map_err(HandshakeFailure::from)?,
        Err(_) => {
            let awaited = "TLS handshake";
            return Err(HandshakeFailure::Timeout { awaited, after }.into());
        }
    };
    let (opening, handshaken) = accept(inner, stream, place).await?;
    Ok((
        opening,
        handshaken.map(|stream| Stream::Tls(Box::new(stream))),
    ))
}

/// The handshake as acceptor, up to the point where the slot is up.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Arc<Inner>,
    stream: S,
    place: Place,
) -> Result<(Opening, Handshaken<S>), Rejected> {
    let mut messages = Messages::new(stream, inner.width(), inner.config.setup_time);
    let body = messages.read("name").await?;
    let introduced = match receive_name(inner.local.clone(), &body) {
        Ok(introduced) => introduced,
        Err(error) => {
            if let Some(farewell) = error.farewell() {
                messages.write(&[farewell]).await?;
            }
            return Err(error.into());
        }
    };
    let (attempt, status) = match introduced.peer() {
        Peer::Named(peer) => match inner.slots.incoming(peer.as_str()) {
            Admission::Ok(attempt) => (attempt, Status::Ok),
            Admission::OkSimultaneous(attempt) => (attempt, Status::OkSimultaneous),
            Admission::Alive(attempt) => (attempt, Status::Alive),
            Admission::Nok => {
                messages.write(&[AcceptorStatus::Nok.body()]).await?;
                return Err(Rejected::Nok(peer.clone()));
            }
            Admission::Refuse => return Err(Rejected::Pending(peer.clone())),
        },
        Peer::Dynamic { host } => match inner.slots.name_peer(host, rand::random) {
            Some((name, creation, attempt)) => (attempt, Status::Named(name, creation)),
            None => {
                messages.write(&[AcceptorStatus::NotAllowed.body()]).await?;
                let host = host.clone();
                return Err(HandshakeError::DynamicName { host }.into());
            }
        },
    };
    let handshaken = tokio::select! {
        () = attempt.abandoned() => return Err(HandshakeFailure::Abandoned.into()),
        finished = finish(inner, &attempt, introduced, status, messages, place) => finished?,
    };
    Ok((attempt.complete()?, handshaken))
}

/// What the peer is told when it may go on.
enum Status {
    Ok,
    OkSimultaneous,
    Alive,
    Named(NodeName, u32),
}

/// The handshake from the status on.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Arc<Inner>,
    attempt: &Attempt,
    introduced: Introduced,
    status: Status,
    mut messages: Messages<S>,
    place: Place,
) -> Result<Handshaken<S>, Rejected> {
    let admitted = match status {
        Status::Ok | Status::OkSimultaneous => {
            let simultaneous = matches!(status, Status::OkSimultaneous);
            let (admitted, status) = introduced.ok(simultaneous)?;
            messages.write(&[status]).await?;
            admitted
        }
        Status::Named(name, creation) => {
            let (admitted, status) = introduced.named(name, creation);
            messages.write(&[&status]).await?;
            admitted
        }
        Status::Alive => {
            let (asked, status) = introduced.alive()?;
            messages.write(&[status]).await?;
            let body = messages.read("status reply").await?;
            asked.reply(&body)?.ok_or(Rejected::GaveUp)?
        }
    };
    let (challenged, challenge) = admitted.challenge(rand::random());
    messages.write(&[&challenge]).await?;
    let body = messages.read("challenge reply").await?;
    let cookie = inner.cookie(challenged.peer().as_str());
    let verified = challenged.reply(&body, cookie)?;
    // The peer has proved the cookie: it need not make room for others any more.
    drop(place);
    if let TakeOver::Close(old) = attempt.take_over() {
        let peer = verified.peer().as_str();
        inner.supersede(attempt, peer, old).await;
    }
    if attempt.take_over() != TakeOver::Ready {
        return Err(HandshakeFailure::Abandoned.into());
    }
    let (session, ack) = verified.ack();
    messages.write(&[&ack]).await?;
    Ok(messages.finish(session))
}

impl From<HandshakeFailure> for Rejected {
    fn from(failure: HandshakeFailure) -> Rejected {
        Rejected::Failed(failure)
    }
}

impl From<HandshakeError> for Rejected {
    fn from(error: HandshakeError) -> Rejected {
        Rejected::Failed(error.into())
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Failed(failure) => failure.fmt(f),
            Rejected::Nok(peer) => write!(f, "'{peer}' has to wait for our own attempt"),
            Rejected::Pending(peer) => {
                write!(f, "another connection of '{peer}' is being made already")
            }
            Rejected::GaveUp => f.write_str("the peer took back its attempt"),
            Rejected::TooSlow => write!(
                f,
                "the handshake took more than {} s",
                TOTAL_SETUP_TIME.as_secs()
            ),
            Rejected::Crowded => {
                f.write_str("too many peers are in their handshake: this one waited longest")
            }
        }
    }
}
