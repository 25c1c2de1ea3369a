//! Bytes and messages, both ways, and bytes that are none.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use super::error::What;
use super::*;
use crate::membership::{MAX_BROADCAST_BYTES, MAX_METADATA_BYTES};
use crate::random::Random;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn message(body: Body) -> Message {
    Message {
        cluster: 0xAABB_CCDD,
        creation: 0x0102_0304,
        incarnation: 5,
        body,
        words: Vec::new(),
        broadcasts: Vec::new(),
    }
}

fn hello() -> Hello {
    Hello {
        cluster: String::from("default"),
        node: name("a@h"),
        kind: Kind::Rust,
        metadata: Metadata {
            told: 4,
            bytes: Arc::from(*b"meta"),
        },
        held: Some(Held {
            creation: 9,
            incarnation: 8,
            status: Status::Left,
        }),
    }
}

fn words() -> Vec<Word> {
    let word = |claim, metadata| Word {
        node: name("b@h"),
        creation: 2,
        incarnation: 3,
        kind: Kind::Plain,
        claim,
        metadata,
    };
    let by = name("c@h");
    vec![
        word(Claim::Alive, Some(hello().metadata)),
        word(Claim::Suspect { by }, None),
        word(Claim::Dead, None),
        word(Claim::Left, None),
    ]
}

fn broadcast() -> Broadcast {
    Broadcast {
        id: BroadcastId {
            origin: name("d@h"),
            creation: 6,
            number: 7,
        },
        remaining: 60_000,
        bytes: Arc::from(*b"hi"),
    }
}

fn samples() -> Vec<Message> {
    let number = 10;
    let mut samples: Vec<Message> = [
        Body::Hello(hello()),
        Body::Welcome(Hello {
            held: None,
            ..hello()
        }),
        Body::Refused {
            cluster: String::from("blue"),
        },
        Body::Leave,
        Body::Ping { number },
        Body::Ack {
            number,
            creation: 11,
            incarnation: 12,
        },
        Body::PingReq {
            number,
            node: name("e@h"),
        },
        Body::Nack { number },
        Body::Gossip,
        Body::Digest {
            members: core::array::from_fn(|at| at as u32),
            broadcasts: 13,
        },
        Body::Table {
            wanted: 14,
            broadcasts: true,
        },
    ]
    .map(message)
    .into();
    samples.push(Message {
        words: words(),
        broadcasts: vec![broadcast()],
        ..message(Body::Gossip)
    });
    samples
}

#[test]
fn gossip_byte_by_byte() {
    let expected = [
        &[1, 9][..],
        &[0xAA, 0xBB, 0xCC, 0xDD, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0, 4],
        // Alive, with metadata.
        &[0, 3],
        b"b@h",
        &[0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3],
        &[1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4],
        b"meta",
        // Suspect, and by whom.
        &[0, 3],
        b"b@h",
        &[1, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 3],
        b"c@h",
        &[0],
        // Dead.
        &[0, 3],
        b"b@h",
        &[2, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0],
        // Left.
        &[0, 3],
        b"b@h",
        &[3, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0],
        // A broadcast.
        &[1, 0, 3],
        b"d@h",
        &[0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0xEA, 0x60, 0, 2],
        b"hi",
    ]
    .concat();
    assert_eq!(encode(samples().last().unwrap()), expected);
}

#[test]
fn a_hello_byte_by_byte() {
    let expected = [
        &[
            1, 1, 0xAA, 0xBB, 0xCC, 0xDD, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5,
        ][..],
        &[0, 7],
        b"default",
        &[0, 3],
        b"a@h",
        &[1],
        &[0, 0, 0, 0, 0, 0, 0, 4, 0, 4],
        b"meta",
        &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 3],
        &[0, 0, 0],
    ]
    .concat();
    assert_eq!(encode(&samples()[0]), expected);
}

/// Fowler, Noll and Vo's own test vectors for FNV-1a, 32 bits.
#[test]
fn the_digest_of_a_cluster_is_fnv_1a() {
    assert_eq!(cluster_digest(""), 0x811C_9DC5);
    assert_eq!(cluster_digest("a"), 0xE40C_292C);
    assert_eq!(cluster_digest("foobar"), 0xBF9C_F968);
}

#[test]
fn what_is_written_is_read_and_measured() {
    for message in samples() {
        let bytes = encode(&message);
        assert_eq!(bytes.len(), message.size(), "{message:?}");
        assert_eq!(decode(&bytes), Ok(message));
    }
}

/// With names and metadata of the greatest length, each small message still has room for the greatest word or broadcast.
#[test]
fn the_longest_names_and_metadata_fit_a_datagram() {
    let long = name(&("ÿ".repeat(250) + "@host"));
    let metadata = Some(Metadata {
        told: 0,
        bytes: Arc::from([0; MAX_METADATA_BYTES]),
    });
    let by = long.clone();
    for (claim, metadata) in [(Claim::Alive, metadata), (Claim::Suspect { by }, None)] {
        let word = Word {
            node: long.clone(),
            claim,
            metadata,
            ..words()[0].clone()
        };
        for body in [
            Body::Gossip,
            Body::Ping { number: 0 },
            Body::Ack {
                number: 0,
                creation: 0,
                incarnation: 0,
            },
        ] {
            let words = vec![word.clone()];
            let largest = Message {
                words,
                ..message(body)
            };
            assert!(largest.size() <= MAX_DATAGRAM_BYTES, "{}", largest.size());
        }
    }
    let mut largest = broadcast();
    largest.id.origin = long;
    largest.bytes = Arc::from([0; MAX_BROADCAST_BYTES]);
    let broadcasts = vec![largest];
    let largest = Message {
        broadcasts,
        ..message(Body::Gossip)
    };
    assert!(largest.size() <= MAX_DATAGRAM_BYTES);
}

#[test]
fn a_message_cut_anywhere_is_refused_at_its_end() {
    for message in samples() {
        let bytes = encode(&message);
        for cut in 0..bytes.len() {
            let error = decode(&bytes[..cut]).unwrap_err();
            assert!(error.at() <= cut, "{error}");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for message in samples() {
        let mut bytes = encode(&message);
        bytes.push(0);
        let error = decode(&bytes).unwrap_err();
        assert_eq!((error.what, error.at), (What::Trailing, bytes.len() - 1));
    }
}

#[test]
fn a_blob_above_its_limit_is_refused_before_it_is_read() {
    let mut bytes = encode(&samples()[0]);
    let at = bytes.windows(4).position(|four| four == b"meta").unwrap() - 2;
    bytes[at..at + 2].copy_from_slice(&513_u16.to_be_bytes());
    let error = decode(&bytes).unwrap_err().to_string();
    let expected = std::format!("metadata of 513 bytes, more than the limit of 512 (at byte {at})");
    assert_eq!(error, expected);
}

#[test]
fn a_count_promises_nothing() {
    let mut bytes = encode(&message(Body::Gossip));
    let count = bytes.len() - 3;
    bytes[count..].fill(0xFF);
    assert!(decode(&bytes).is_err(), "65,535 words in three bytes");
}

#[test]
fn another_version_says_what_to_do() {
    let error = decode(&[2, 1]).unwrap_err().to_string();
    assert_eq!(
        error,
        "version 2, this node speaks version 1; run the same release on both (at byte 0)"
    );
}

/// Whatever the bytes, the answer is a message or an error; a message read from flipped bytes is written again as the
/// bytes it was read from, so nothing was made up.
#[test]
fn flipped_bytes_never_panic() {
    let seed = 0x7131;
    let mut random = Random::from_seed(seed);
    let samples = samples();
    let mut read = 0;
    for round in 0..40_000 {
        let mut bytes = encode(&samples[round % samples.len()]);
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.bits() as u8;
        }
        if let Ok(message) = decode(&bytes) {
            read += 1;
            assert_eq!(
                encode(&message),
                bytes,
                "seed {seed:#x}, round {round}: {message:?}"
            );
        }
    }
    assert!(read > 1000, "some flips leave a message: {read}");
}
