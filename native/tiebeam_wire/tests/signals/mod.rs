//! Signals for the tests of frames: golden sessions of a real node, one sample of each message, helpers.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use proptest::test_runner::{Config, RngSeed};
use tiebeam_wire::control::{Control, ExitTarget, SpawnResult, Target};
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{Encoded, Frame, FrameDecoder, FrameEncoder, FrameError};
use tiebeam_wire::{Atom, Pid, Reference, Term, decode};

use crate::releases;

/// What a real node sent on one connection.
pub(crate) struct Session {
    /// The release of the node.
    pub(crate) release: String,
    pub(crate) name: String,
    pub(crate) flags: Flags,
    pub(crate) bytes: Vec<u8>,
    pub(crate) messages: Vec<Message>,
}

/// One message of it.
pub(crate) struct Message {
    pub(crate) step: String,
    pub(crate) operation: String,
    pub(crate) control: Term,
    pub(crate) payload: Option<Term>,
    /// All its frames.
    pub(crate) bytes: Vec<u8>,
}

/// The sessions of `vectors/control`, and of the same folder of each other release.
pub(crate) fn golden() -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for (release, folder) in releases::folders() {
        read_sessions(&release, &folder.join("control"), &mut sessions);
    }
    assert!(!sessions.is_empty());
    sessions
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests bring their own files and settings"
)]
fn read_sessions(release: &str, folder: &Path, sessions: &mut Vec<Session>) {
    let manifest = std::fs::read_to_string(folder.join("manifest.txt")).unwrap();
    let mut frames: Vec<std::ops::Range<usize>> = Vec::new();
    for line in manifest.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        match columns[..] {
            ["session", name, flags, "from_otp"] => {
                let bits = u64::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap();
                let bytes = std::fs::read(folder.join(format!("{name}.bin"))).unwrap();
                frames.clear();
                let mut at = 0;
                while at < bytes.len() {
                    let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                    frames.push(at..at + 4 + length as usize);
                    at += 4 + length as usize;
                }
                sessions.push(Session {
                    release: release.to_owned(),
                    name: name.to_owned(),
                    flags: Flags::from_bits(bits),
                    bytes,
                    messages: Vec::new(),
                });
            }
            [
                "message",
                name,
                first,
                last,
                step,
                operation,
                control,
                payload,
                _text,
            ] => {
                let session = sessions.last_mut().unwrap();
                assert_eq!(session.name, name);
                let first = &frames[first.parse::<usize>().unwrap()];
                let last = &frames[last.parse::<usize>().unwrap()];
                session.messages.push(Message {
                    step: step.to_owned(),
                    operation: operation.to_owned(),
                    control: term(control),
                    payload: (payload != "-").then(|| term(payload)),
                    bytes: session.bytes[first.start..last.end].to_vec(),
                });
            }
            _ => panic!("a line of the manifest: {line}"),
        }
    }
}

fn term(hex: &str) -> Term {
    let bytes = releases::bytes_of_hex(hex);
    let bytes = if bytes[1] == 80 {
        let mut plain = vec![131];
        flate2::read::ZlibDecoder::new(&bytes[6..])
            .read_to_end(&mut plain)
            .unwrap();
        plain
    } else {
        bytes
    };
    decode::decode(&Bytes::from(bytes)).unwrap()
}

pub(crate) fn pid(node: &str, id: u32) -> Pid {
    Pid {
        node: Atom::new(node).unwrap(),
        id,
        serial: 1,
        creation: 0xfb35_f027,
    }
}

pub(crate) fn reference(word: u32) -> Reference {
    Reference::new(Atom::of("a@h"), 77, &[word, 2, 3])
}

/// Each message in each of its shapes.
pub(crate) fn sample() -> Vec<(Control, Option<Term>)> {
    let (from, to) = (pid("a@h", 1), pid("b@h", 2));
    let name = Atom::of("name");
    let payload = || {
        Some(Term::tuple([
            Term::atom("hello"),
            Term::from("a binary that is longer than one that is stored in place"),
            Term::list([Term::from(1), Term::from(300), Term::atom("a@h")]),
            Term::from(&from),
        ]))
    };
    let mut messages = vec![
        (
            Control::Link {
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ),
        (
            Control::Unlink {
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ),
        (
            Control::GroupLeader {
                leader: pid("third@h", 9),
                to: to.clone(),
            },
            None,
        ),
        (
            Control::RegSend {
                from: from.clone(),
                name: name.clone(),
            },
            payload(),
        ),
        (
            Control::AliasSend {
                from: from.clone(),
                alias: reference(4),
            },
            payload(),
        ),
        (
            Control::Exit {
                from: from.clone(),
                to: to.clone(),
            },
            payload(),
        ),
        (
            Control::SpawnRequest {
                reference: reference(5),
                from: from.clone(),
                group_leader: pid("third@h", 9),
                module: Atom::of("m"),
                function: Atom::of("f"),
                arity: 2,
                options: Term::list([Term::atom("link"), Term::atom("monitor")]),
            },
            Some(Term::list([Term::from(1), Term::from(2)])),
        ),
    ];
    for id in [1, 255, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let (from, to) = (from.clone(), to.clone());
        messages.push((
            Control::UnlinkId {
                id,
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ));
        messages.push((Control::UnlinkIdAck { id, from, to }, None));
    }
    for from in [None, Some(from.clone())] {
        let to = to.clone();
        messages.push((Control::Send { from, to }, payload()));
    }
    for to in [
        ExitTarget::Pid(to.clone()),
        ExitTarget::Name(name.clone()),
        ExitTarget::Alias(reference(6)),
    ] {
        let from = from.clone();
        messages.push((Control::Exit2 { from, to }, payload()));
    }
    for target in [Target::Pid(to.clone()), Target::Name(name)] {
        let reference = reference(8);
        messages.push((
            Control::Monitor {
                from: from.clone(),
                target: target.clone(),
                reference: reference.clone(),
            },
            None,
        ));
        messages.push((
            Control::Demonitor {
                from: from.clone(),
                target: target.clone(),
                reference: reference.clone(),
            },
            None,
        ));
        messages.push((
            Control::Down {
                target,
                to: to.clone(),
                reference,
            },
            payload(),
        ));
    }
    for result in [
        SpawnResult::Pid(to.clone()),
        SpawnResult::Error(Atom::of("notsup")),
    ] {
        for (linked, monitored) in [(false, false), (true, false), (false, true), (true, true)] {
            messages.push((
                Control::SpawnReply {
                    reference: reference(10),
                    to: from.clone(),
                    linked,
                    monitored,
                    result: result.clone(),
                },
                None,
            ));
        }
    }
    messages
}

/// All frames of one message, one after the other.
pub(crate) fn encode(
    encoder: &mut FrameEncoder,
    control: &Control,
    payload: Option<&Term>,
) -> Vec<u8> {
    let mut out = Vec::new();
    match encoder.encode(control, payload, &mut out).unwrap() {
        Encoded::Whole => {}
        Encoded::Large(mut large) => {
            assert!(out.is_empty());
            while large.next_fragment(&mut out) {}
        }
    }
    out
}

/// The frames that are there.
pub(crate) fn drain(decoder: &mut FrameDecoder) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next()? {
        frames.push(frame);
    }
    Ok(frames)
}

/// Settings of a random run. A failure shows the seed; the variable it names runs the same cases again.
#[expect(
    clippy::disallowed_methods,
    reason = "tests bring their own files and settings"
)]
pub(crate) fn random(cases: u32) -> Config {
    let seed = match std::env::var("PROPTEST_RNG_SEED") {
        Ok(seed) => seed.parse().expect("PROPTEST_RNG_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("to run the same cases again: PROPTEST_RNG_SEED={seed}");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
