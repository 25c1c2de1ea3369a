//! The distribution handshake, version 6: two nodes exchange names, flags and proofs of the cookie.
//!
//! ```text
//! initiator A                                              acceptor B
//!   send_name       'N' flags:64 creation:32 nlen:16 name ───►   slot of A asked
//!   ◄─── 's' ok | ok_simultaneous | nok | not_allowed | alive | named:   status
//!   status reply    's' true | false  (only after alive) ───►
//!   ◄─── 'N' flags:64 challenge:32 creation:32 nlen:16 name   challenge
//!   challenge_reply 'r' challenge:32 digest:16 ───►              A has proved the cookie
//!   ◄─── 'a' digest:16                                  challenge_ack: B has proved it
//! ```
//!
//! Each state is a type that holds only what is known by then and offers only the step that may come next: [`SentName`],
//! [`AwaitChallenge`], [`AwaitAck`] for the initiator; [`Introduced`], [`Admitted`], [`AwaitStatusReply`],
//! [`AwaitReply`], [`Verified`] for the acceptor. They take and give message bodies; [`HandshakeFrames`] and [`Width`]
//! put lengths before them. Challenges are arguments, because nothing here draws random numbers. Whether a peer gets
//! `ok`, `nok` or `alive` is decided by [`crate::slot::SlotTable`].
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "Distribution Handshake"; `dist_util.erl`. The old version 5
//! (messages that begin with `n`) is refused: no node since OTP 25 sends it.

mod acceptor;
mod error;
mod frames;
mod initiator;
mod name;
#[cfg(test)]
mod tests;

pub use acceptor::{
    AcceptorStatus, Admitted, AwaitReply, AwaitStatusReply, Introduced, Peer, Verified,
    receive_name,
};
pub use error::HandshakeError;
pub use frames::{FrameTooLong, HandshakeFrames, MAX_BODY, Width};
pub use initiator::{Alive, AwaitAck, AwaitChallenge, SentName, Status, send_name};
pub use name::{MAX_NAME, NameError, NameForm, NodeName};

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::flags::Flags;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: NodeName,
    /// Tells this incarnation of the name from earlier ones; never 0.
    pub creation: u32,
    /// What it can do.
    pub flags: Flags,
}

/// What both sides know when the handshake is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Name of the peer.
    pub peer: NodeName,
    /// What the peer said it can do, expanded.
    pub peer_flags: Flags,
    /// What both can do.
    pub flags: Flags,
    /// Creation of the peer.
    pub peer_creation: u32,
}

impl Session {
    fn new(local: &Local, peer: NodeName, peer_flags: Flags, peer_creation: u32) -> Session {
        Session {
            peer,
            peer_flags: peer_flags.expand(),
            // NAME_ME is a matter of the handshake alone.
            flags: local.flags.negotiate(peer_flags).without(Flags::NAME_ME),
            peer_creation,
        }
    }

    /// Whether both sides are visible, so that each lists the other in `nodes()`.
    pub fn visible(&self) -> bool {
        self.flags.contains(Flags::PUBLISHED)
    }
}

/// The proof that a node knows the cookie: MD5 of the cookie and the challenge in decimal digits.
pub fn digest(cookie: &str, challenge: u32) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(cookie.as_bytes());
    md5.update(challenge.to_string().as_bytes());
    md5.finalize().into()
}

/// Compares a proof in constant time.
fn proves(received: &[u8; 16], expected: &[u8; 16]) -> bool {
    received.ct_eq(expected).into()
}

/// Big-endian fields from the front of a message body; what follows the last field asked for is ignored, because later
/// versions may append to `send_name` and `challenge`.
struct Fields<'a> {
    message: &'static str,
    body: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Starts after the tag, which must be `tag`.
    fn after_tag(
        message: &'static str,
        tag: u8,
        body: &'a [u8],
    ) -> Result<Fields<'a>, HandshakeError> {
        match body.first() {
            Some(&found) if found == tag => Ok(Fields {
                message,
                body,
                at: 1,
            }),
            Some(b'n') if tag == b'N' => Err(HandshakeError::OldVersion),
            Some(&found) => Err(HandshakeError::Unexpected {
                message,
                tag: found,
            }),
            None => Err(HandshakeError::Truncated { message, length: 0 }),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], HandshakeError> {
        let rest = &self.body[self.at..];
        let taken = rest.get(..length).ok_or(HandshakeError::Truncated {
            message: self.message,
            length: self.body.len(),
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, HandshakeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, HandshakeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, HandshakeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 16-bit length and that many bytes.
    fn name(&mut self) -> Result<&'a [u8], HandshakeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn rest(&self) -> &'a [u8] {
        &self.body[self.at..]
    }
}

fn push_name(body: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("a node name has at most 255 bytes");
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(name.as_bytes());
}
