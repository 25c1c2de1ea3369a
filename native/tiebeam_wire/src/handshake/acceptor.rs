//! The side that accepted the TCP connection.

use super::{
    Fields, HandshakeError, Local, MAX_NAME, NameError, NodeName, Session, digest, name, proves,
    push_name,
};
use crate::flags::Flags;

/// Takes `send_name`, the first message of an initiator: who it is and what it can do. The slot of that peer must be
/// asked next.
pub fn receive_name(local: Local, body: &[u8]) -> Result<Introduced, HandshakeError> {
    let mut fields = Fields::after_tag("send_name", b'N', body)?;
    let flags = Flags::from_bits(fields.u64()?);
    let creation = fields.u32()?;
    let name = fields.name()?;
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong { length: name.len() }.into());
    }
    let missing = flags.missing(Flags::MANDATORY_25);
    if !missing.is_empty() {
        return Err(HandshakeError::MissingFlags {
            peer: name.escape_ascii().to_string(),
            flags: missing,
        });
    }
    let peer = if flags.contains(Flags::NAME_ME) {
        if !name::is_host(name) {
            let name = name.escape_ascii().to_string();
            return Err(NameError::Form { name }.into());
        }
        Peer::Dynamic {
            host: name.iter().map(|&byte| char::from(byte)).collect(),
        }
    } else {
        let name = NodeName::parse(name)?;
        if name == local.name {
            return Err(HandshakeError::OwnName(name));
        }
        Peer::Named(name)
    };
    Ok(Introduced {
        local,
        peer,
        flags,
        creation,
    })
}

/// Who an initiator says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A node with a name of its own.
    Named(NodeName),
    /// A node that asks for a name (`erl -sname undefined`): it is hidden and does not listen.
    Dynamic {
        /// The host part that its name must have.
        host: String,
    },
}

/// `send_name` is received; the status must be decided.
#[derive(Debug)]
pub struct Introduced {
    local: Local,
    peer: Peer,
    flags: Flags,
    creation: u32,
}

/// A status that ends the attempt of the peer; the socket is closed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptorStatus {
    /// We are dialling the peer and our name is greater: it must wait for our connection.
    Nok,
    /// The peer may not connect.
    NotAllowed,
}

/// The peer is told to go on; our challenge comes next, without waiting.
#[derive(Debug)]
pub struct Admitted {
    local: Local,
    peer: NodeName,
    flags: Flags,
    creation: u32,
}

/// The peer was told `alive` and must say whether its attempt is still current.
#[derive(Debug)]
pub struct AwaitStatusReply(Admitted);

/// Our challenge is sent; the peer's proof comes next.
#[derive(Debug)]
pub struct AwaitReply {
    session: Session,
    challenge: u32,
}

/// The peer has proved the cookie; our own proof is the last message.
#[derive(Debug)]
pub struct Verified {
    session: Session,
    ack: Vec<u8>,
}

impl AcceptorStatus {
    /// Body of the status message.
    pub fn body(self) -> &'static [u8] {
        match self {
            AcceptorStatus::Nok => b"snok",
            AcceptorStatus::NotAllowed => b"snot_allowed",
        }
    }
}

impl Introduced {
    /// Who the initiator says it is. Nothing is proved yet.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Goes on with a peer that has a name: status `ok`, or `ok_simultaneous` if our own attempt to it was abandoned.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::DynamicName`] for a peer that asks for a name; see [`Introduced::named`].
    pub fn ok(self, simultaneous: bool) -> Result<(Admitted, &'static [u8]), HandshakeError> {
        let status: &[u8] = if simultaneous {
            b"sok_simultaneous"
        } else {
            b"sok"
        };
        Ok((self.admitted()?, status))
    }

    /// Asks a peer whose slot is up whether its attempt is current: status `alive`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::DynamicName`] for a peer that asks for a name.
    pub fn alive(self) -> Result<(AwaitStatusReply, &'static [u8]), HandshakeError> {
        Ok((AwaitStatusReply(self.admitted()?), b"salive"))
    }

    /// Gives a peer that asked for a name this `name` and `creation`: status `named:`. The body of the status.
    pub fn named(self, name: NodeName, creation: u32) -> (Admitted, Vec<u8>) {
        let mut status = b"snamed:".to_vec();
        push_name(&mut status, name.as_str());
        status.extend_from_slice(&creation.to_be_bytes());
        let mut local = self.local;
        // The initiator goes by the flags that both sides have set: without this one it would believe that its name is
        // its own, and crash.
        local.flags = local.flags.with(Flags::NAME_ME);
        let admitted = Admitted {
            local,
            peer: name,
            // It does not listen, so others that hear of it could not connect: it must not be listed as visible.
            flags: self.flags.without(Flags::PUBLISHED),
            creation,
        };
        (admitted, status)
    }

    fn admitted(self) -> Result<Admitted, HandshakeError> {
        match self.peer {
            Peer::Named(peer) => Ok(Admitted {
                local: self.local,
                peer,
                flags: self.flags,
                creation: self.creation,
            }),
            Peer::Dynamic { host } => Err(HandshakeError::DynamicName { host }),
        }
    }
}

impl AwaitStatusReply {
    /// Takes the peer's `true` or `false`; `None` means that it gives up.
    pub fn reply(self, body: &[u8]) -> Result<Option<Admitted>, HandshakeError> {
        match Fields::after_tag("status reply", b's', body)?.rest() {
            b"true" => Ok(Some(self.0)),
            b"false" => Ok(None),
            other => Err(HandshakeError::Status {
                status: other.escape_ascii().to_string(),
            }),
        }
    }
}

impl Admitted {
    /// The body of our challenge. `challenge` is freshly drawn from a generator that cannot be guessed.
    pub fn challenge(self, challenge: u32) -> (AwaitReply, Vec<u8>) {
        let mut body = vec![b'N'];
        body.extend_from_slice(&self.local.flags.bits().to_be_bytes());
        body.extend_from_slice(&challenge.to_be_bytes());
        body.extend_from_slice(&self.local.creation.to_be_bytes());
        push_name(&mut body, self.local.name.as_str());
        let session = Session::new(&self.local, self.peer, self.flags, self.creation);
        (AwaitReply { session, challenge }, body)
    }
}

impl AwaitReply {
    /// Who must answer; its cookie is asked for [`AwaitReply::reply`].
    pub fn peer(&self) -> &NodeName {
        &self.session.peer
    }

    /// Takes the peer's proof and challenge.
    pub fn reply(self, body: &[u8], cookie: &str) -> Result<Verified, HandshakeError> {
        let mut fields = Fields::after_tag("challenge_reply", b'r', body)?;
        let peer_challenge = fields.u32()?;
        let proof = fields.array()?;
        if !proves(&proof, &digest(cookie, self.challenge)) {
            return Err(HandshakeError::Cookie {
                peer: self.session.peer,
            });
        }
        let mut ack = vec![b'a'];
        ack.extend_from_slice(&digest(cookie, peer_challenge));
        Ok(Verified {
            session: self.session,
            ack,
        })
    }
}

impl Verified {
    /// Who proved the cookie.
    pub fn peer(&self) -> &NodeName {
        &self.session.peer
    }

    /// The body of `challenge_ack`, the last message. An older connection to this peer must be closed, and its
    /// nodedown done, before it is sent. The bytes after the peer's reply belong to the framing of the connection.
    pub fn ack(self) -> (Session, Vec<u8>) {
        (self.session, self.ack)
    }
}
