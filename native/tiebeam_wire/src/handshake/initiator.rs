//! The side that opened the TCP connection.

use super::{Fields, HandshakeError, Local, NodeName, Session, digest, proves, push_name};
use crate::flags::Flags;

/// Begins a handshake with `peer`: the state that waits for its status, and the body of `send_name`.
pub fn send_name(local: Local, peer: NodeName) -> (SentName, Vec<u8>) {
    let mut body = vec![b'N'];
    body.extend_from_slice(&local.flags.bits().to_be_bytes());
    body.extend_from_slice(&local.creation.to_be_bytes());
    push_name(&mut body, local.name.as_str());
    (SentName(AwaitChallenge { local, peer }), body)
}

/// Our name is sent; the peer's status comes next.
#[derive(Debug)]
pub struct SentName(AwaitChallenge);

/// What the peer made of our name.
#[derive(Debug)]
pub enum Status {
    /// `ok` or `ok_simultaneous` (its own attempt to us is abandoned): its challenge comes next.
    Ok(AwaitChallenge),
    /// `nok`: the peer is dialling us and its name is greater. Close this socket, but keep the slot pending and wait
    /// for the peer's own connection.
    Nok,
    /// `alive`: the peer believes to be connected with us already.
    Alive(Alive),
}

/// The peer sent `alive` and waits for `true` or `false`.
#[derive(Debug)]
pub struct Alive(AwaitChallenge);

/// The peer's challenge comes next.
#[derive(Debug)]
pub struct AwaitChallenge {
    local: Local,
    peer: NodeName,
}

/// Our proof is sent; the peer's comes next.
#[derive(Debug)]
pub struct AwaitAck {
    session: Session,
    expected: [u8; 16],
}

impl SentName {
    /// Takes the peer's status.
    pub fn status(self, body: &[u8]) -> Result<Status, HandshakeError> {
        match Fields::after_tag("status", b's', body)?.rest() {
            b"ok" | b"ok_simultaneous" => Ok(Status::Ok(self.0)),
            b"nok" => Ok(Status::Nok),
            b"alive" => Ok(Status::Alive(Alive(self.0))),
            b"not_allowed" => Err(HandshakeError::NotAllowed { peer: self.0.peer }),
            other => Err(HandshakeError::Status {
                status: other.escape_ascii().to_string(),
            }),
        }
    }
}

impl Alive {
    /// Answers `true`: this attempt still owns our slot, so the peer shall drop the connection it believes in.
    pub fn proceed(self) -> (AwaitChallenge, &'static [u8]) {
        (self.0, b"strue")
    }

    /// Answers `false`: this attempt gives up.
    pub fn give_up(self) -> &'static [u8] {
        b"sfalse"
    }
}

impl AwaitChallenge {
    /// Takes the peer's challenge and answers it: the body of `challenge_reply`. `challenge` is ours, freshly drawn
    /// from a generator that cannot be guessed.
    pub fn challenge(
        self,
        body: &[u8],
        cookie: &str,
        challenge: u32,
    ) -> Result<(AwaitAck, Vec<u8>), HandshakeError> {
        let mut fields = Fields::after_tag("challenge", b'N', body)?;
        let flags = Flags::from_bits(fields.u64()?);
        let peer_challenge = fields.u32()?;
        let creation = fields.u32()?;
        let name = fields.name()?;
        if name != self.peer.as_str().as_bytes() {
            return Err(HandshakeError::OtherName {
                dialled: self.peer,
                answered: name.escape_ascii().to_string(),
            });
        }
        let missing = flags.missing(Flags::MANDATORY_25);
        if !missing.is_empty() {
            return Err(HandshakeError::MissingFlags {
                peer: self.peer.to_string(),
                flags: missing,
            });
        }
        let mut reply = vec![b'r'];
        reply.extend_from_slice(&challenge.to_be_bytes());
        reply.extend_from_slice(&digest(cookie, peer_challenge));
        let next = AwaitAck {
            session: Session::new(&self.local, self.peer, flags, creation),
            expected: digest(cookie, challenge),
        };
        Ok((next, reply))
    }
}

impl AwaitAck {
    /// Takes the peer's proof. The bytes after this message belong to the framing of the connection.
    pub fn ack(self, body: &[u8]) -> Result<Session, HandshakeError> {
        let proof = Fields::after_tag("challenge_ack", b'a', body)?.array()?;
        if proves(&proof, &self.expected) {
            Ok(self.session)
        } else {
            Err(HandshakeError::Cookie {
                peer: self.session.peer,
            })
        }
    }
}
