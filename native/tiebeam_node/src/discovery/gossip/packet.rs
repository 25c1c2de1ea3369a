//! The packets of libcluster's gossip. Pure: the initialisation vector is an argument.
//!
//! ```text
//! heartbeat   "heartbeat::" term          the term is #{node => Name} in the external term format
//! encrypted   iv:16 ciphertext            AES-256-CBC of a heartbeat with PKCS #7 padding; the key is SHA-256(secret)
//! ```
//!
//! Source: `Cluster.Strategy.Gossip` of libcluster 3.5. Nothing authenticates a packet: whoever can send one names a node, and
//! the handshake of the connection that follows decides whether it belongs here. The secret keeps clusters apart.

use std::fmt;

use aes::Aes256;
use bytes::Bytes;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use sha2::{Digest, Sha256};
use tiebeam_wire::encode::encode;
use tiebeam_wire::handshake::NodeName;
use tiebeam_wire::{Atom, Limits, Map, Term, decode};

/// Longest packet that is read. A heartbeat has 11 bytes, 12 of the map, and a name of at most 255 characters.
pub(super) const MAX_PACKET: usize = 1024;

/// What a packet begins with once it is decrypted.
const PRELUDE: &[u8] = b"heartbeat::";

/// Bytes of an initialisation vector, and of a block.
const BLOCK: usize = 16;

/// A heartbeat is a map of one name.
const LIMITS: Limits = Limits {
    depth: 4,
    terms: 16,
    inflated: 0,
    integer: 16,
};

/// What packets are encrypted with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

/// Does not print the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a packet says nothing. Other clusters' packets are the usual case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// Longer than [`MAX_PACKET`].
    TooLong,
    /// Not encrypted with this key, or not encrypted at all.
    Encryption,
    /// It does not begin as a heartbeat.
    Prelude,
    /// Its term is not a map with the name of a node.
    Term,
}

/// A heartbeat of the node `name`, encrypted if there is a key.
pub(super) fn write(name: &Atom, encryption: Option<(&Key, [u8; BLOCK])>) -> Vec<u8> {
    let mut map = Map::new();
    map.insert(Term::atom("node"), Term::from(name.clone()));
    let mut packet = PRELUDE.to_vec();
    encode(&Term::Map(map), &mut packet);
    match encryption {
        None => packet,
        Some((key, iv)) => {
            let cipher = cbc::Encryptor::<Aes256>::new(&key.0.into(), &iv.into());
            let mut encrypted = iv.to_vec();
            encrypted.extend(cipher.encrypt_padded_vec::<Pkcs7>(&packet));
            encrypted
        }
    }
}

/// The node that a packet names.
pub(super) fn read(packet: &[u8], key: Option<&Key>) -> Result<NodeName, Ignored> {
    if packet.len() > MAX_PACKET {
        return Err(Ignored::TooLong);
    }
    match key {
        None => heartbeat(packet),
        Some(key) => {
            let (iv, encrypted) = packet
                .split_first_chunk::<BLOCK>()
                .ok_or(Ignored::Encryption)?;
            let cipher = cbc::Decryptor::<Aes256>::new(&key.0.into(), &(*iv).into());
            let plain = cipher.decrypt_padded_vec::<Pkcs7>(encrypted);
            heartbeat(&plain.map_err(|_| Ignored::Encryption)?)
        }
    }
}

fn heartbeat(packet: &[u8]) -> Result<NodeName, Ignored> {
    let term = packet.strip_prefix(PRELUDE).ok_or(Ignored::Prelude)?;
    let term = decode::decode_with(&Bytes::copy_from_slice(term), &LIMITS);
    let node = match &term {
        Ok(Term::Map(map)) => map.get_atom("node").and_then(Term::as_atom),
        _ => None,
    };
    let name = node.and_then(|node| NodeName::parse(node.as_str()).ok());
    name.ok_or(Ignored::Term)
}

#[cfg(test)]
mod tests;
