//! Frames against what a real node sent (`vectors/control`), and against themselves under every kind of flags.

mod releases;
mod signals;

use std::collections::BTreeMap;

use bytes::Bytes;
use tiebeam_wire::control::{Control, ExitTarget, SpawnResult, Target};
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{
    EncodeError, Encoded, Frame, FrameDecoder, FrameEncoder, FrameError, FrameErrorKind,
    FrameLimits,
};
use tiebeam_wire::{Atom, Term, decode};

use signals::{drain, encode, golden, pid, reference, sample};

/// The meaning of a control tuple, taken from the term; the decoder under test never makes that term.
fn meaning(control: &Term, payload: Option<Term>) -> Frame {
    fn id(term: &Term) -> u64 {
        match term {
            Term::Integer(id) => *id as u64,
            Term::Big(id) => u64::try_from(&**id).unwrap(),
            _ => panic!("not an id: {term:?}"),
        }
    }
    let e = control.as_tuple().unwrap();
    let pid = |n: usize| e[n].as_pid().unwrap().clone();
    let atom = |n: usize| e[n].as_atom().unwrap().clone();
    let reference = |n: usize| e[n].as_reference().unwrap().clone();
    let target = |n: usize| match &e[n] {
        Term::Pid(pid) => Target::Pid(pid.clone()),
        Term::Atom(name) => Target::Name(name.clone()),
        other => panic!("not a target: {other:?}"),
    };
    let exit2 = || Control::Exit2 {
        from: pid(1),
        to: ExitTarget::Pid(pid(2)),
    };
    let exit = || Control::Exit {
        from: pid(1),
        to: pid(2),
    };
    let down = || Control::Down {
        target: target(1),
        to: pid(2),
        reference: reference(3),
    };
    let (control, payload) = match e[0].as_integer().unwrap() {
        1 => (
            Control::Link {
                from: pid(1),
                to: pid(2),
            },
            payload,
        ),
        2 | 12 => (
            Control::Send {
                from: None,
                to: pid(2),
            },
            payload,
        ),
        3 => (exit(), Some(e[3].clone())),
        13 => (exit(), Some(e[4].clone())),
        24 | 25 => (exit(), payload),
        4 => (
            Control::Unlink {
                from: pid(1),
                to: pid(2),
            },
            payload,
        ),
        6 | 16 => (
            Control::RegSend {
                from: pid(1),
                name: atom(3),
            },
            payload,
        ),
        7 => (
            Control::GroupLeader {
                leader: pid(1),
                to: pid(2),
            },
            payload,
        ),
        8 => (exit2(), Some(e[3].clone())),
        18 => (exit2(), Some(e[4].clone())),
        26 | 27 => (exit2(), payload),
        19 => (
            Control::Monitor {
                from: pid(1),
                target: target(2),
                reference: reference(3),
            },
            payload,
        ),
        20 => (
            Control::Demonitor {
                from: pid(1),
                target: target(2),
                reference: reference(3),
            },
            payload,
        ),
        21 => (down(), Some(e[4].clone())),
        28 => (down(), payload),
        22 | 23 => (
            Control::Send {
                from: Some(pid(1)),
                to: pid(2),
            },
            payload,
        ),
        29 | 30 => {
            let [module, function, arity] = e[4].as_tuple().unwrap() else {
                panic!("not an MFA: {:?}", e[4]);
            };
            (
                Control::SpawnRequest {
                    reference: reference(1),
                    from: pid(2),
                    group_leader: pid(3),
                    module: module.as_atom().unwrap().clone(),
                    function: function.as_atom().unwrap().clone(),
                    arity: arity.as_integer().unwrap(),
                    options: e[5].clone(),
                },
                payload,
            )
        }
        31 | 32 => {
            let flags = e[3].as_integer().unwrap();
            (
                Control::SpawnReply {
                    reference: reference(1),
                    to: pid(2),
                    linked: flags & 1 != 0,
                    monitored: flags & 2 != 0,
                    result: match &e[4] {
                        Term::Pid(pid) => SpawnResult::Pid(pid.clone()),
                        Term::Atom(error) => SpawnResult::Error(error.clone()),
                        other => panic!("not a result: {other:?}"),
                    },
                },
                payload,
            )
        }
        33 | 34 => (
            Control::AliasSend {
                from: pid(1),
                alias: reference(2),
            },
            payload,
        ),
        37 => {
            let exit = e[1].as_integer().unwrap() & 16 != 0;
            let control = match (exit, &e[3]) {
                (false, Term::Reference(alias)) => Control::AliasSend {
                    from: pid(2),
                    alias: alias.clone(),
                },
                (false, Term::Atom(name)) => Control::RegSend {
                    from: pid(2),
                    name: name.clone(),
                },
                (false, _) => Control::Send {
                    from: Some(pid(2)),
                    to: pid(3),
                },
                (true, Term::Reference(alias)) => Control::Exit2 {
                    from: pid(2),
                    to: ExitTarget::Alias(alias.clone()),
                },
                (true, _) => Control::Exit2 {
                    from: pid(2),
                    to: ExitTarget::Pid(pid(3)),
                },
            };
            (control, payload)
        }
        35 => (
            Control::UnlinkId {
                id: id(&e[1]),
                from: pid(2),
                to: pid(3),
            },
            payload,
        ),
        36 => (
            Control::UnlinkIdAck {
                id: id(&e[1]),
                from: pid(2),
                to: pid(3),
            },
            payload,
        ),
        other => panic!("operation {other}"),
    };
    Frame::Message { control, payload }
}

#[test]
fn what_a_real_node_sent_is_read() {
    let mut operations = BTreeMap::new();
    for session in golden() {
        let expected: Vec<Frame> = session
            .messages
            .iter()
            .map(|message| {
                *operations.entry(message.operation.clone()).or_insert(0) += 1;
                meaning(&message.control, message.payload.clone())
            })
            .collect();
        // In one piece, byte by byte, and in pieces that end inside headers.
        for piece in [usize::MAX, 1, 7, 1000] {
            let mut decoder = FrameDecoder::new(session.flags, FrameLimits::default());
            let mut frames = Vec::new();
            for piece in session.bytes.chunks(piece.min(session.bytes.len())) {
                decoder.push(piece);
                frames.extend(drain(&mut decoder).unwrap());
            }
            assert_eq!(
                frames.len(),
                expected.len(),
                "{} {}",
                session.release,
                session.name
            );
            for ((frame, expected), message) in frames.iter().zip(&expected).zip(&session.messages)
            {
                assert_eq!(
                    frame, expected,
                    "session {}, {}",
                    session.name, message.step
                );
            }
        }
    }
    // Everything that OTP 25 can be made to send, and the one operation since then.
    assert!(operations.len() >= 27, "{operations:?}");
    assert!(operations["ALTACT_SIG_SEND"] >= 7, "{operations:?}");
}

/// Without an atom cache there is one way to write a message: ours is OTP's, byte for byte.
#[test]
fn what_a_real_node_sent_is_written_the_same() {
    for session in golden() {
        if session.flags.contains(Flags::DIST_HDR_ATOM_CACHE) {
            continue;
        }
        let mut encoder = FrameEncoder::new(session.flags);
        let mut compared = 0;
        for message in &session.messages {
            // Trace tokens are not ours to send, and fun sizes below are the same only without them.
            if message.operation.ends_with("_TT") || message.step.ends_with("_tt") {
                continue;
            }
            // Nor is priority.
            if message.step.ends_with("_priority") {
                continue;
            }
            // Among its terms is a port, which has the wide form since OTP 26; ours is that of OTP 25.
            if message.step == "send_zoo" && session.release != releases::FIRST {
                continue;
            }
            let Frame::Message { control, payload } =
                meaning(&message.control, message.payload.clone())
            else {
                unreachable!()
            };
            let mut ours = encode(&mut encoder, &control, payload.as_ref());
            let mut theirs = message.bytes.to_vec();
            // The number of a sequence is the sender's choice.
            let forget_sequence = |bytes: &mut Vec<u8>| {
                let mut at = 0;
                while at < bytes.len() {
                    let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                    if matches!(bytes[at + 5], 69 | 70) {
                        bytes[at + 6..at + 14].fill(0);
                    }
                    at += 4 + length as usize;
                }
            };
            forget_sequence(&mut ours);
            forget_sequence(&mut theirs);
            assert!(
                ours == theirs,
                "session {}, {}: {:02x?} is not {:02x?}",
                session.name,
                message.step,
                &ours[..ours.len().min(400)],
                &theirs[..theirs.len().min(400)],
            );
            compared += 1;
        }
        assert!(compared >= 4, "{} {}", session.release, session.name);
    }
}

#[test]
fn what_is_written_is_read_under_all_flags() {
    let choices = [
        Flags::DIST_HDR_ATOM_CACHE,
        Flags::FRAGMENTS,
        Flags::SEND_SENDER,
        Flags::EXIT_PAYLOAD,
        Flags::UNLINK_ID,
        Flags::ALIAS,
        Flags::ALTACT_SIG,
        Flags::SPAWN,
        Flags::DIST_MONITOR,
        Flags::DIST_MONITOR_NAME,
    ];
    for bits in 0..1 << choices.len() {
        let flags = choices
            .iter()
            .enumerate()
            .filter(|(index, _)| bits >> index & 1 == 1)
            .fold(Flags::NONE, |flags, (_, flag)| flags.with(*flag));
        let mut encoder = FrameEncoder::new(flags);
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        // Twice: the second time from the cache.
        for (control, payload) in sample().into_iter().chain(sample()) {
            let mut out = Vec::new();
            match encoder.encode(&control, payload.as_ref(), &mut out) {
                Ok(Encoded::Whole) => {}
                Ok(Encoded::Large(_)) => panic!("large"),
                Err(EncodeError::NotNegotiated { flags: needed, .. }) => {
                    assert!(!flags.contains(needed));
                    assert!(out.is_empty());
                    continue;
                }
                Err(EncodeError::Superseded) => {
                    assert!(flags.contains(Flags::UNLINK_ID));
                    assert!(out.is_empty());
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            decoder.push(&out);
            let control = match control {
                Control::Send { to, .. } if !flags.contains(Flags::SEND_SENDER) => {
                    Control::Send { from: None, to }
                }
                control => control,
            };
            assert_eq!(
                decoder.next(),
                Ok(Some(Frame::Message { control, payload })),
                "{flags:?}"
            );
            assert_eq!(decoder.next(), Ok(None));
        }
    }
}

/// Priority, trace token and reserved bits of ALTACT_SIG_SEND, which OTP 25 never sends.
#[test]
fn altact_signals_are_read_with_all_flags() {
    let (from, to, alias) = (pid("a@h", 1), pid("b@h", 2), reference(7));
    let token = Term::tuple([
        1.into(),
        17.into(),
        2.into(),
        Term::from(&from),
        Term::from(0),
    ]);
    let destinations = [
        (0, Term::from(&to)),
        (4, Term::from(&alias)),
        (8, Term::atom("name")),
    ];
    for (kind, destination) in destinations {
        for others in 0..8 {
            let (priority, with_token, exit) = (others & 1, others & 2, (others & 4) << 2);
            for reserved in [
                Term::from(0),
                Term::from(1i64 << 40),
                Term::from(u64::MAX << 8),
            ] {
                let low = kind | priority | with_token | exit;
                let flags = match reserved {
                    Term::Integer(reserved) => Term::from(reserved | low),
                    Term::Big(reserved) => Term::from(*reserved + low),
                    _ => unreachable!(),
                };
                let mut tuple = vec![37.into(), flags, Term::from(&from), destination.clone()];
                if with_token != 0 {
                    tuple.push(token.clone());
                }
                // Announced to grow.
                for _ in 0..others % 3 {
                    tuple.push(Term::atom("new_in_otp_99"));
                }
                let got = read_control(&Term::tuple(tuple), Some(&Term::atom("hello")));
                let from = from.clone();
                let expected = match (exit != 0, kind) {
                    (false, 4) => Control::AliasSend {
                        from,
                        alias: alias.clone(),
                    },
                    (false, 8) => Control::RegSend {
                        from,
                        name: Atom::of("name"),
                    },
                    (false, _) => Control::Send {
                        from: Some(from),
                        to: to.clone(),
                    },
                    (true, kind) => Control::Exit2 {
                        from,
                        to: match kind {
                            4 => ExitTarget::Alias(alias.clone()),
                            8 => ExitTarget::Name(Atom::of("name")),
                            _ => ExitTarget::Pid(to.clone()),
                        },
                    },
                };
                assert_eq!(
                    got,
                    Ok(Frame::Message {
                        control: expected,
                        payload: Some(Term::atom("hello")),
                    })
                );
            }
        }
    }
}

#[test]
fn trace_tokens_are_dropped_in_every_operation_that_has_one() {
    let (a, b) = (Term::from(pid("a@h", 1)), Term::from(pid("b@h", 2)));
    let r = Term::from(reference(3));
    let name = Term::atom("name");
    let mfa = Term::tuple([Term::atom("m"), Term::atom("f"), 2.into()]);
    let reason = Term::atom("reason");
    // Any term may be a label.
    let token = Term::tuple([1.into(), Term::list([]), 2.into(), a.clone(), 0.into()]);
    let traced: [(i64, Vec<Term>, i64, Vec<Term>); 10] = [
        (2, vec![name.clone(), b.clone()], 12, vec![token.clone()]),
        (3, vec![a.clone(), b.clone(), reason.clone()], 13, vec![]),
        (
            6,
            vec![a.clone(), Term::atom(""), name.clone()],
            16,
            vec![token.clone()],
        ),
        (8, vec![a.clone(), b.clone(), reason.clone()], 18, vec![]),
        (22, vec![a.clone(), b.clone()], 23, vec![token.clone()]),
        (24, vec![a.clone(), b.clone()], 25, vec![token.clone()]),
        (26, vec![a.clone(), b.clone()], 27, vec![token.clone()]),
        (
            29,
            vec![r.clone(), a.clone(), b.clone(), mfa, Term::list([])],
            30,
            vec![token.clone()],
        ),
        (
            31,
            vec![r.clone(), a.clone(), 3.into(), b.clone()],
            32,
            vec![token.clone()],
        ),
        (33, vec![a.clone(), r.clone()], 34, vec![token.clone()]),
    ];
    for (plain, elements, traced, last) in traced {
        let payload = Some(Term::list([Term::atom("payload")]));
        let tuple = |code: i64, elements: &[Term]| {
            let mut tuple = vec![Term::from(code)];
            tuple.extend_from_slice(elements);
            Term::tuple(tuple)
        };
        let without = read_control(&tuple(plain, &elements), payload.as_ref()).unwrap();
        let mut with = elements.clone();
        if last.is_empty() {
            // The reason stays the last element.
            with.insert(2, token.clone());
        }
        with.extend(last);
        assert_eq!(
            read_control(&tuple(traced, &with), payload.as_ref()),
            Ok(without),
            "operation {traced}"
        );
    }
}

/// Reads one message without a header.
fn read_control(control: &Term, payload: Option<&Term>) -> Result<Frame, FrameError> {
    let mut packet = vec![112];
    tiebeam_wire::encode::encode(control, &mut packet);
    if let Some(payload) = payload {
        tiebeam_wire::encode::encode(payload, &mut packet);
    }
    read(Flags::NONE, &[&packet]).map(|frames| frames.into_iter().next().unwrap())
}

/// Reads packets, to each of which the length is prefixed here.
fn read(flags: Flags, packets: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    for packet in packets {
        decoder.push(&(packet.len() as u32).to_be_bytes());
        decoder.push(packet);
    }
    drain(&mut decoder)
}

fn refused(flags: Flags, packets: &[&[u8]]) -> FrameErrorKind {
    read(flags, packets).unwrap_err().kind
}

#[test]
fn control_tuples_that_a_beam_refuses_are_refused() {
    let (a, b) = (Term::from(pid("a@h", 1)), Term::from(pid("b@h", 2)));
    let r = Term::from(reference(3));
    let operation = |tuple: Vec<Term>| read_control(&Term::tuple(tuple), Some(&Term::atom("x")));
    // Codes that do not exist, and sizes that a code does not have.
    for code in [-1, 0, 5, 9, 10, 11, 14, 15, 17, 38, 255, 256, 1 << 40] {
        assert!(
            matches!(
                operation(vec![code.into(), a.clone(), b.clone()])
                    .unwrap_err()
                    .kind,
                FrameErrorKind::Operation { arity: 3, operation } if operation == code
            ),
            "{code}"
        );
    }
    for code in 1..=37 {
        for arity in [0, 1, 8, 200] {
            let mut tuple = vec![Term::from(code)];
            tuple.extend(std::iter::repeat_n(a.clone(), arity));
            assert!(operation(tuple).is_err(), "{code} with {arity}");
        }
    }
    let wrong: [Vec<Term>; 18] = [
        vec![],
        vec![Term::atom("link"), a.clone(), b.clone()],
        vec![1.into(), a.clone(), Term::atom("name")],
        vec![2.into(), Term::atom(""), Term::atom("name")],
        vec![8.into(), a.clone(), Term::atom("name"), Term::atom("why")],
        vec![6.into(), a.clone(), Term::atom(""), b.clone()],
        vec![19.into(), a.clone(), r.clone(), r.clone()],
        vec![19.into(), a.clone(), b.clone(), a.clone()],
        vec![33.into(), a.clone(), b.clone()],
        vec![35.into(), 0.into(), a.clone(), b.clone()],
        vec![35.into(), (-1).into(), a.clone(), b.clone()],
        vec![
            36.into(),
            Term::from(num_bigint::BigInt::from(1) << 64),
            a.clone(),
            b.clone(),
        ],
        vec![31.into(), r.clone(), a.clone(), 0.into(), 1.into()],
        vec![
            29.into(),
            r.clone(),
            a.clone(),
            b.clone(),
            Term::list([]),
            Term::list([]),
        ],
        vec![37.into(), 12.into(), a.clone(), r.clone()],
        vec![37.into(), (-1).into(), a.clone(), b.clone()],
        vec![37.into(), 2.into(), a.clone(), b.clone()],
        vec![37.into(), 4.into(), a.clone(), b.clone()],
    ];
    for tuple in wrong {
        assert!(operation(tuple.clone()).is_err(), "{tuple:?}");
    }
    assert!(read_control(&Term::list([]), None).is_err());
}

#[test]
fn a_payload_is_there_iff_the_operation_has_one() {
    let send = [
        &b"\x70\x83\x68\x03\x61\x16"[..],
        &b"\x58\x77\x01a\0\0\0\x01\0\0\0\0\0\0\0\x01"[..],
        &b"\x58\x77\x01b\0\0\0\x01\0\0\0\0\0\0\0\x01"[..],
    ]
    .concat();
    assert_eq!(
        refused(Flags::NONE, &[&send]),
        FrameErrorKind::PayloadMissing { message: "Send" }
    );
    // Bytes after the payload, or after a message that has none, are ignored.
    let with = [&send[..], b"\x83\x61\x07", b"trailing"].concat();
    let frames = read(Flags::NONE, &[&with]).unwrap();
    assert!(
        matches!(
            &frames[..],
            [Frame::Message {
                payload: Some(Term::Integer(7)),
                ..
            }]
        ),
        "{frames:?}"
    );
    let mut link = with.clone();
    link[5] = 1;
    let frames = read(Flags::NONE, &[&link]).unwrap();
    assert!(
        matches!(&frames[..], [Frame::Message { payload: None, .. }]),
        "{frames:?}"
    );
}

#[test]
fn heads_must_be_those_of_the_negotiated_flags() {
    let pass_through = b"\x70\x83\x68\x03\x61\x01X";
    let header = b"\x83\x44\0\x68\x03\x61\x01X";
    let start = b"\x83\x45\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\x68\x03\x61\x01X";
    let next = b"\x83\x46\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01X";
    let is_head = |flags: Flags, packet: &[u8]| {
        matches!(refused(flags, &[packet]), FrameErrorKind::Head { .. })
    };
    let both = Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS;
    for flags in [Flags::DIST_HDR_ATOM_CACHE, Flags::FRAGMENTS, both] {
        assert!(is_head(flags, pass_through));
        assert!(!is_head(flags, header));
        assert_eq!(is_head(flags, start), !flags.contains(Flags::FRAGMENTS));
        assert_eq!(is_head(flags, next), !flags.contains(Flags::FRAGMENTS));
        for short in [&b"\x83"[..], b"\x44", b"\x83\x43", b"\x83\x47", b"\x82\x44"] {
            assert!(is_head(flags, short));
        }
        // A version byte before a term.
        assert!(read(flags, &[b"\x83\x44\0\x83\x68\x03"]).is_err());
    }
    assert!(!is_head(Flags::NONE, pass_through));
    assert!(is_head(Flags::NONE, header));
    assert!(is_head(Flags::NONE, start));
    assert!(read(Flags::NONE, &[b"\x70"]).is_err());
    assert!(read(Flags::NONE, &[b"\x70\x68\x03\x61\x01"]).is_err());
}

#[test]
fn the_atom_cache_is_refused_unless_negotiated() {
    let defines = b"\x83\x44\x01\x08\x00\x01a";
    assert_eq!(
        refused(Flags::FRAGMENTS, &[defines]),
        FrameErrorKind::Header { references: 1 }
    );
}

#[test]
fn an_empty_slot_is_refused() {
    let flags = Flags::DIST_HDR_ATOM_CACHE;
    let error = read(flags, &[b"\x83\x44\x01\x03\x07\x52\x00"]).unwrap_err();
    assert_eq!(error.kind, FrameErrorKind::EmptySlot { slot: 3 * 256 + 7 });
    assert_eq!(
        error.to_string(),
        "slot 775 of the atom cache is empty (offset 4) in a packet of 7 bytes at byte 0 of the connection: \
         83 44 01 03 07 52 00"
    );
}

#[test]
fn an_error_is_final() {
    let mut decoder = FrameDecoder::new(Flags::NONE, FrameLimits::default());
    let mut bytes = Vec::new();
    FrameEncoder::tick(&mut bytes);
    bytes.extend_from_slice(b"\0\0\0\x02\x83\x44");
    FrameEncoder::tick(&mut bytes);
    decoder.push(&bytes);
    assert_eq!(decoder.next(), Ok(Some(Frame::Tick)));
    let error = decoder.next().unwrap_err();
    assert_eq!((error.position, error.length), (4, 2));
    assert_eq!(error.head, [0x83, 0x44]);
    assert_eq!(decoder.next().unwrap_err(), error);
}

#[test]
fn frames_beyond_the_limit_are_refused_by_their_length_alone() {
    let limits = FrameLimits {
        frame: 1000,
        ..FrameLimits::default()
    };
    let mut decoder = FrameDecoder::new(Flags::NONE, limits.clone());
    decoder.push(&1000u32.to_be_bytes());
    assert_eq!(decoder.next(), Ok(None));
    let mut decoder = FrameDecoder::new(Flags::NONE, limits);
    decoder.push(&[0; 4]);
    decoder.push(&1001u32.to_be_bytes());
    assert_eq!(decoder.next(), Ok(Some(Frame::Tick)));
    let error = decoder.next().unwrap_err();
    assert_eq!(error.kind, FrameErrorKind::Length { limit: 1000 });
    assert_eq!((error.position, error.length), (4, 1001));
}

#[test]
fn claimed_lengths_reserve_nothing() {
    let mut decoder = FrameDecoder::new(Flags::NONE, FrameLimits::default());
    decoder.push(&(100u32 << 20).to_be_bytes());
    decoder.push(&[112; 10]);
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.buffer().capacity() < 1 << 20);
}

#[test]
fn a_long_binary_is_a_view_of_the_frame() {
    let flags = Flags::NONE;
    let control = Control::Send {
        from: None,
        to: pid("b@h", 1),
    };
    let payload = Term::binary([7; 1000]);
    let bytes = encode(&mut FrameEncoder::new(flags), &control, Some(&payload));
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    decoder.buffer().extend_from_slice(&bytes);
    let place = decoder.buffer()[bytes.len() - 1000..].as_ptr();
    let Ok(Some(Frame::Message {
        payload: Some(Term::Binary(binary)),
        ..
    })) = decoder.next()
    else {
        panic!("no message");
    };
    assert_eq!(binary.as_slice().as_ptr(), place);
}

#[test]
fn misuse_leaves_no_trace() {
    let mut encoder = FrameEncoder::new(Flags::OFFERED);
    let mut out = Vec::new();
    let link = Control::Link {
        from: pid("new@h", 1),
        to: pid("other@h", 1),
    };
    let send = Control::RegSend {
        from: pid("new@h", 1),
        name: Atom::of("other"),
    };
    let unlink = Control::UnlinkId {
        id: 0,
        from: pid("new@h", 1),
        to: pid("other@h", 1),
    };
    assert_eq!(
        encoder
            .encode(&link, Some(&Term::atom("x")), &mut out)
            .unwrap_err(),
        EncodeError::PayloadUnexpected { message: "Link" }
    );
    assert_eq!(
        encoder.encode(&send, None, &mut out).unwrap_err(),
        EncodeError::PayloadMissing { message: "RegSend" }
    );
    assert_eq!(
        encoder.encode(&unlink, None, &mut out).unwrap_err(),
        EncodeError::UnlinkId
    );
    // A large message that is never sent.
    let large = Term::list([Term::atom("only_here"), Term::binary(vec![0; 70_000])]);
    assert!(matches!(
        encoder.encode(&send, Some(&large), &mut out),
        Ok(Encoded::Large(_))
    ));
    assert!(out.is_empty());
    // What comes next depends on nothing of these.
    let payload = Term::atom("only_here");
    assert!(matches!(
        encoder.encode(&send, Some(&payload), &mut out),
        Ok(Encoded::Whole)
    ));
    let mut decoder = FrameDecoder::new(Flags::OFFERED, FrameLimits::default());
    decoder.push(&out);
    assert_eq!(
        decoder.next(),
        Ok(Some(Frame::Message {
            control: send,
            payload: Some(payload)
        }))
    );
}

/// Bytes around the boundary at which OTP splits, under all ways of framing.
#[test]
fn large_messages_arrive_whole() {
    let control = Control::RegSend {
        from: pid("a@h", 1),
        name: Atom::of("sink"),
    };
    let hdr = Flags::DIST_HDR_ATOM_CACHE;
    for flags in [Flags::NONE, hdr, Flags::FRAGMENTS, hdr | Flags::FRAGMENTS] {
        let mut encoder = FrameEncoder::new(flags);
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        for length in [
            0,
            65_400,
            65_500,
            65_535,
            65_536,
            65_537,
            131_000,
            131_072,
            1 << 20,
        ] {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            let payload = Term::tuple([Term::atom("data"), Term::binary(&bytes)]);
            decoder.push(&encode(&mut encoder, &control, Some(&payload)));
            assert_eq!(
                drain(&mut decoder).unwrap(),
                [Frame::Message {
                    control: control.clone(),
                    payload: Some(payload)
                }],
                "{length} bytes, {flags:?}"
            );
        }
    }
}

#[test]
fn a_large_message_is_cut_as_otp_cuts() {
    let flags = Flags::FRAGMENTS;
    let mut encoder = FrameEncoder::new(flags);
    let control = Control::Send {
        from: None,
        to: pid("b@h", 1),
    };
    let payload = Term::binary(vec![1; 200_000]);
    let mut out = Vec::new();
    let Ok(Encoded::Large(mut large)) = encoder.encode(&control, Some(&payload), &mut out) else {
        panic!("not large");
    };
    assert_eq!(large.remaining(), large.len());
    let mut lengths = Vec::new();
    let mut more = true;
    while more {
        let mut fragment = Vec::new();
        more = large.next_fragment(&mut fragment);
        lengths.push(fragment.len() - 4);
        assert_eq!(fragment[5], if lengths.len() == 1 { 69 } else { 70 });
        assert_eq!(fragment[21] as usize, 5 - lengths.len(), "counts down");
    }
    let rest = large.len() - 3 * 65_536;
    assert_eq!(lengths, [65_555, 65_554, 65_554, 18 + rest]);
    assert_eq!(large.remaining(), 0);
    assert!(!large.next_fragment(&mut out));
    assert!(out.is_empty());
}

/// A control tuple is never split, however long.
#[test]
fn a_long_control_tuple_is_in_the_first_fragment() {
    let flags = Flags::OFFERED;
    let control = Control::SpawnRequest {
        reference: reference(1),
        from: pid("a@h", 1),
        group_leader: pid("a@h", 2),
        module: Atom::of("m"),
        function: Atom::of("f"),
        arity: 1,
        options: Term::list([Term::binary(vec![2; 100_000])]),
    };
    let payload = Some(Term::list([Term::atom("argument")]));
    let bytes = encode(&mut FrameEncoder::new(flags), &control, payload.as_ref());
    assert_eq!(
        read_all(flags, &bytes),
        [Frame::Message { control, payload }]
    );
}

/// Nothing of a message without a payload can be split.
#[test]
fn a_long_reason_in_the_control_tuple_is_not_split() {
    let flags = Flags::OFFERED.without(Flags::EXIT_PAYLOAD);
    let control = Control::Exit {
        from: pid("a@h", 1),
        to: pid("b@h", 2),
    };
    let payload = Some(Term::binary(vec![3; 100_000]));
    let mut bytes = Vec::new();
    let encoded = FrameEncoder::new(flags).encode(&control, payload.as_ref(), &mut bytes);
    assert!(matches!(encoded, Ok(Encoded::Whole)), "{encoded:?}");
    assert_eq!(
        read_all(flags, &bytes),
        [Frame::Message { control, payload }]
    );
}

fn read_all(flags: Flags, bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    decoder.push(bytes);
    drain(&mut decoder).unwrap()
}

mod fragments {
    use super::*;

    const FLAGS: Flags = Flags::FRAGMENTS;
    const LINK: &[u8] = b"\0\x68\x03\x61\x02\x77\0\x58\x77\x01b\0\0\0\x01\0\0\0\0\0\0\0\x01";

    fn start(sequence: u64, fragment: u64, part: &[u8]) -> Vec<u8> {
        [
            b"\x83\x45",
            &sequence.to_be_bytes()[..],
            &fragment.to_be_bytes(),
            LINK,
            part,
        ]
        .concat()
    }

    fn next(sequence: u64, fragment: u64, part: &[u8]) -> Vec<u8> {
        [
            b"\x83\x46",
            &sequence.to_be_bytes()[..],
            &fragment.to_be_bytes(),
            part,
        ]
        .concat()
    }

    fn why(packets: &[Vec<u8>]) -> &'static str {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        match refused(FLAGS, &packets) {
            FrameErrorKind::Fragment { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    fn payloads(packets: &[Vec<u8>]) -> Vec<Term> {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        read(FLAGS, &packets)
            .unwrap()
            .into_iter()
            .map(|frame| match frame {
                Frame::Message {
                    payload: Some(payload),
                    ..
                } => payload,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_is_complete() {
        assert_eq!(payloads(&[start(9, 1, b"\x61\x07")]), [Term::from(7)]);
    }

    #[test]
    fn sequences_interleave_and_arrive_in_the_order_of_their_ends() {
        let got = payloads(&[
            start(1, 3, b"\x6d\0\0"),
            start(2, 2, b"\x61"),
            next(1, 2, b"\0\x03a"),
            start(3, 1, b"\x61\x03"),
            next(2, 1, b"\x02"),
            next(1, 1, b"bc"),
            // A number may be used again.
            start(1, 2, b""),
            next(1, 1, b"\x61\x01"),
        ]);
        let expected = [3.into(), 2.into(), Term::binary("abc"), 1.into()];
        assert_eq!(got, expected);
    }

    #[test]
    fn wrong_counts_are_refused() {
        assert_eq!(
            why(&[start(1, 0, b"\x61\x07")]),
            "the count must be at least 1"
        );
        assert_eq!(
            why(&[start(1, 1 << 40, b"\x61\x07")]),
            "the count is beyond the limit"
        );
        assert_eq!(why(&[next(1, 1, b"")]), "the sequence has no start");
        assert_eq!(
            why(&[start(1, 2, b""), start(1, 2, b"")]),
            "the sequence is already open"
        );
        for wrong in [0, 1, 3, 4] {
            assert_eq!(
                why(&[start(1, 3, b""), next(1, wrong, b"")]),
                "the count does not go down by one"
            );
        }
        assert_eq!(
            why(&[start(1, 2, b"\x61"), next(1, 1, b"\x01"), next(1, 1, b"")]),
            "the sequence has no start"
        );
    }

    #[test]
    fn the_payload_must_be_complete_at_the_last_fragment() {
        assert_eq!(
            refused(
                FLAGS,
                &[&start(1, 2, b"\x6d\0\0"), &next(1, 1, b"\0\x03ab")]
            ),
            FrameErrorKind::Term(tiebeam_wire::DecodeErrorKind::Truncated)
        );
        assert_eq!(
            refused(FLAGS, &[&start(1, 2, b""), &next(1, 1, b"")]),
            FrameErrorKind::PayloadMissing { message: "Send" }
        );
    }

    #[test]
    fn limits_hold() {
        let limits = FrameLimits {
            sequences: 3,
            message: 3000,
            fragmented: 5000,
            ..FrameLimits::default()
        };
        let run = |packets: &[Vec<u8>]| {
            let mut decoder = FrameDecoder::new(FLAGS, limits.clone());
            for packet in packets {
                decoder.push(&(packet.len() as u32).to_be_bytes());
                decoder.push(packet);
            }
            drain(&mut decoder).map_err(|error| error.to_string())
        };
        let part = [0; 1000];
        assert_eq!(run(&[start(1, 9, &part), next(1, 8, &part)]), Ok(vec![]));
        let error = run(&[start(1, 9, &part), next(1, 8, &part), next(1, 7, &part)]);
        assert!(
            error
                .as_ref()
                .unwrap_err()
                .starts_with("more than 3000 bytes in a message"),
            "{error:?}"
        );
        // Also where the last fragment is the one too many.
        let error = run(&[start(1, 3, &part), next(1, 2, &part), next(1, 1, &part)]);
        assert!(
            error
                .as_ref()
                .unwrap_err()
                .starts_with("more than 3000 bytes in a message"),
            "{error:?}"
        );
        let error = run(&[
            start(1, 9, &part),
            next(1, 8, &part),
            start(2, 9, &part),
            next(2, 8, &part),
            start(3, 9, &part),
        ]);
        assert!(
            error
                .as_ref()
                .unwrap_err()
                .starts_with("more than 5000 bytes in unfinished messages of a connection"),
            "{error:?}"
        );
        let error = run(&[
            start(1, 2, b""),
            start(2, 2, b""),
            start(3, 2, b""),
            start(4, 2, b""),
        ]);
        assert!(
            error
                .as_ref()
                .unwrap_err()
                .starts_with("more than 3 messages in fragments at once"),
            "{error:?}"
        );
        // What is complete counts no more.
        let mut packets = Vec::new();
        for n in 0..100 {
            packets.push(start(n, 2, b"\x6d\0\0\x03"));
            packets.push(next(n, 1, &[b"\xe8", &part[..]].concat()));
        }
        assert_eq!(run(&packets).unwrap().len(), 100);
    }

    /// The atoms of the start packet hold for all parts, whatever other packets do to the cache meanwhile.
    #[test]
    fn references_are_to_the_header_of_the_start() {
        let flags = Flags::FRAGMENTS | Flags::DIST_HDR_ATOM_CACHE;
        let begin = [
            b"\x83\x45",
            &1u64.to_be_bytes()[..],
            &2u64.to_be_bytes(),
            b"\x01\x08\x05\x03one\x68\x03\x61\x02\x77\0\x58\x77\x01b\0\0\0\x01\0\0\0\0\0\0\0\x01",
            b"\x68\x02",
        ]
        .concat();
        let other = [&b"\x83\x44\x01\x08\x05\x03two"[..], &LINK[1..], b"\x52\x00"].concat();
        let end = next(1, 1, b"\x52\x00\x52\x00");
        let frames = read(flags, &[&begin, &other, &end]).unwrap();
        let payloads: Vec<_> = frames
            .iter()
            .map(|frame| match frame {
                Frame::Message { payload, .. } => payload.clone().unwrap(),
                Frame::Tick => panic!("a tick"),
            })
            .collect();
        let one = || Term::atom("one");
        assert_eq!(payloads, [Term::atom("two"), Term::tuple([one(), one()])]);
    }
}

/// Packets in a row that begin alike are read once up to the payload; what comes between them may redefine an atom.
#[test]
fn packets_that_begin_alike_mean_what_the_atom_cache_says_when_they_come() {
    const SEND: &[u8] = b"\x68\x03\x61\x02\x77\0\x58\x52\x00\0\0\0\x01\0\0\0\0\0\0\0\x01";
    let flags = Flags::FRAGMENTS | Flags::DIST_HDR_ATOM_CACHE;
    let define = |atom: &[u8]| [b"\x83\x44\x01\x08\x05\x03", atom, SEND, b"\x52\x00"].concat();
    let begin = [
        b"\x83\x45",
        &1u64.to_be_bytes()[..],
        &2u64.to_be_bytes(),
        b"\x01\x08\x05\x03c@h",
        SEND,
    ]
    .concat();
    let alike = [b"\x83\x44\x01\x00\x05", SEND].concat();
    let (x, y) = (
        [&alike[..], b"\x77\x01x"].concat(),
        [&alike[..], b"\x77\x01y"].concat(),
    );
    let (a, b) = (define(b"a@h"), define(b"b@h"));
    let frames = read(flags, &[&a, &x, &y, &b, &x, &y, &begin, &x, &y]).unwrap();
    let said: Vec<_> = frames
        .into_iter()
        .map(|frame| match frame {
            Frame::Message {
                control: Control::Send { to, .. },
                payload: Some(payload),
            } => (to.node.to_string(), payload.to_string()),
            other => panic!("{other:?}"),
        })
        .collect();
    let said: Vec<_> = said.iter().map(|(to, what)| (&to[..], &what[..])).collect();
    let expected = [
        ("a@h", "a@h"),
        ("a@h", "x"),
        ("a@h", "y"),
        ("b@h", "b@h"),
        ("b@h", "x"),
        ("b@h", "y"),
        ("c@h", "x"),
        ("c@h", "y"),
    ];
    assert_eq!(said, expected);
    let missing = FrameErrorKind::PayloadMissing { message: "Send" };
    assert_eq!(refused(flags, &[&a, &x, &y, &alike]), missing);
}

/// The example of the manual's kind, from a connection of two real nodes.
#[test]
fn an_annotated_header_is_read() {
    let packet = [
        &b"\x83\x44\x04\x8f\xdc\x00"[..],
        b"\x97\x0bb@127.0.0.1",
        b"\x05\x00",
        b"\x75\x03rex",
        b"\x5d\x10features_request",
        b"\x68\x04\x61\x06\x58\x52\x00\0\0\0\x36\0\0\0\0\xfb\x35\xf0\x27\x52\x01\x52\x02",
        b"\x68\x02\x58\x52\x00\0\0\0\x36\0\0\0\0\xfb\x35\xf0\x27\x52\x03",
    ]
    .concat();
    let frames = read(Flags::DIST_HDR_ATOM_CACHE, &[&packet]).unwrap();
    let from = tiebeam_wire::Pid {
        node: Atom::of("b@127.0.0.1"),
        id: 0x36,
        serial: 0,
        creation: 0xfb35_f027,
    };
    let control = Control::RegSend {
        from: from.clone(),
        name: Atom::of("rex"),
    };
    let payload = Some(Term::tuple([
        Term::from(from),
        Term::atom("features_request"),
    ]));
    assert_eq!(frames, [Frame::Message { control, payload }]);
}

#[test]
fn a_gigabyte_is_refused_and_64_megabytes_are_not() {
    let flags = Flags::OFFERED;
    let control = Control::RegSend {
        from: pid("a@h", 1),
        name: Atom::of("sink"),
    };
    let mut encoder = FrameEncoder::new(flags);
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    let payload = Term::binary(Bytes::from(vec![9; 64 << 20]));
    decoder.push(&encode(&mut encoder, &control, Some(&payload)));
    assert_eq!(
        drain(&mut decoder).unwrap(),
        [Frame::Message {
            control: control.clone(),
            payload: Some(payload.clone())
        }]
    );
    // A gigabyte in fragments of 64 KiB, one after the other as a socket would bring them.
    let fragments = (1u64 << 30 >> 16) + 1;
    let mut packet = encode(&mut encoder, &control, Some(&payload));
    packet.truncate(4 + u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize);
    packet[14..22].copy_from_slice(&fragments.to_be_bytes());
    decoder.push(&packet);
    assert_eq!(decoder.next(), Ok(None));
    let sequence: [u8; 8] = packet[6..14].try_into().unwrap();
    let error = (1..fragments)
        .rev()
        .find_map(|fragment| {
            decoder.push(&(18 + (1u32 << 16)).to_be_bytes());
            decoder.push(&[131, 70]);
            decoder.push(&sequence);
            decoder.push(&fragment.to_be_bytes());
            decoder.push(&[0; 1 << 16]);
            match decoder.next() {
                Ok(None) => None,
                Ok(Some(_)) => panic!("accepted"),
                Err(error) => Some(error),
            }
        })
        .expect("refused before its end");
    assert_eq!(
        error.kind,
        FrameErrorKind::Limit {
            what: "bytes in a message",
            limit: 256 << 20
        }
    );
}

#[test]
fn manifest_terms_are_read_by_the_term_decoder() {
    // The golden sessions are only as good as the terms they are compared with.
    for session in golden() {
        for message in &session.messages {
            let mut bytes = Vec::new();
            tiebeam_wire::encode::encode(&message.control, &mut bytes);
            assert_eq!(
                decode::decode(&Bytes::from(bytes)).unwrap(),
                message.control
            );
        }
    }
}
