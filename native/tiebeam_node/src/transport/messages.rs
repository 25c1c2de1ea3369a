//! Handshake messages on a stream, each with its time limit.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tiebeam_wire::handshake::{HandshakeError, HandshakeFrames, Session, Width};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::tls::TlsFailure;

/// A stream during the handshake.
#[derive(Debug)]
pub(super) struct Messages<S> {
    stream: S,
    frames: HandshakeFrames,
    step_time: Duration,
}

/// A stream after the handshake.
#[derive(Debug)]
pub(super) struct Handshaken<S> {
    pub(super) session: Session,
    pub(super) stream: S,
    pub(super) leftover: BytesMut,
}

/// Why a handshake did not come to its end.
#[derive(Debug, Clone)]
pub enum HandshakeFailure {
    /// The peer sent something wrong.
    Protocol(HandshakeError),
    /// The peer closed the stream.
    Closed {
        /// What was expected of it.
        awaited: &'static str,
    },
    /// The peer closed the stream when it had our proof of the cookie.
    CookieRefused,
    /// The peer stalled.
    Timeout {
        /// What was expected of it.
        awaited: &'static str,
        /// For how long.
        after: Duration,
    },
    /// There is no TLS with the peer.
    Tls(TlsFailure),
    /// The stream broke.
    Io(Arc<io::Error>),
    /// Another attempt owns the slot of this peer, or this one is not wanted any more.
    Abandoned,
    /// The node is shutting down.
    Stopped,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    pub(super) fn new(stream: S, width: Width, step_time: Duration) -> Messages<S> {
        Messages {
            stream,
            frames: HandshakeFrames::new(width),
            step_time,
        }
    }

    /// The body of the next message. Reads no more than it needs but for what arrives together with it.
    pub(super) async fn read(&mut self, awaited: &'static str) -> Result<Bytes, HandshakeFailure> {
        let after = self.step_time;
        let body = async {
            loop {
                if let Some(body) = self.frames.next_body().map_err(HandshakeError::from)? {
                    return Ok(body);
                }
                match self.stream.read_buf(self.frames.buffer()).await {
                    Ok(0) => return Err(HandshakeFailure::Closed { awaited }),
                    Ok(_) => {}
                    Err(error) if is_end(&error) => {
                        return Err(HandshakeFailure::Closed { awaited });
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        timeout(after, body)
            .await
            .unwrap_or(Err(HandshakeFailure::Timeout { awaited, after }))
    }

    /// Sends messages in one piece.
    pub(super) async fn write(&mut self, bodies: &[&[u8]]) -> Result<(), HandshakeFailure> {
        let mut bytes = Vec::with_capacity(64);
        for body in bodies {
            self.frames.width().frame(body, &mut bytes);
        }
        let after = self.step_time;
        let awaited = "room to write";
        let written = async {
            self.stream.write_all(&bytes).await?;
            // A TLS stream may keep what the system did not take at once.
            self.stream.flush().await
        };
        match timeout(after, written).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(HandshakeFailure::Timeout { awaited, after }),
        }
    }

    pub(super) fn finish(self, session: Session) -> Handshaken<S> {
        Handshaken {
            session,
            stream: self.stream,
            leftover: self.frames.into_leftover(),
        }
    }
}

impl<S> Handshaken<S> {
    pub(super) fn map<T>(self, stream: impl FnOnce(S) -> T) -> Handshaken<T> {
        Handshaken {
            session: self.session,
            stream: stream(self.stream),
            leftover: self.leftover,
        }
    }
}

/// A reset, or TLS without its own farewell, says no more than an end.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

impl From<HandshakeError> for HandshakeFailure {
    fn from(error: HandshakeError) -> HandshakeFailure {
        HandshakeFailure::Protocol(error)
    }
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> HandshakeFailure {
        match TlsFailure::of(&error) {
            Some(failure) => HandshakeFailure::Tls(failure),
            None => HandshakeFailure::Io(Arc::new(error)),
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFailure::Protocol(error) => error.fmt(f),
            HandshakeFailure::Closed { awaited } => {
                write!(f, "the peer closed the connection while its {awaited} was awaited")
            }
            HandshakeFailure::CookieRefused => f.write_str(
                "the peer closed the connection when it saw our proof of the cookie: it has probably another cookie; give \
                 both nodes the same one (erl -setcookie, ~/.erlang.cookie)",
            ),
            HandshakeFailure::Timeout { awaited, after } => write!(
                f,
                "the peer stalled: no {awaited} within {:.1} s",
                after.as_secs_f64()
            ),
            HandshakeFailure::Tls(failure) => failure.fmt(f),
            HandshakeFailure::Io(error) => write!(f, "the connection broke: {error}"),
            HandshakeFailure::Abandoned => {
                f.write_str("another connection to this peer took precedence")
            }
            HandshakeFailure::Stopped => f.write_str("the node is shutting down"),
        }
    }
}

impl std::error::Error for HandshakeFailure {}
