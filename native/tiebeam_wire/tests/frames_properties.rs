//! Frames under random messages, cuts and interleavings: what one side writes, the other side reads.

mod releases;
mod signals;

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::Index;
use tiebeam_wire::control::{Control, SpawnResult, Target};
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{Encoded, Frame, FrameDecoder, FrameEncoder, FrameLimits, LargeMessage};
use tiebeam_wire::{Atom, Map, Pid, Reference, Term};

use signals::{drain, encode, pid, random};

fn atom() -> impl Strategy<Value = Atom> {
    prop_oneof![
        6 => (0..40u32).prop_map(|n| format!("common_{n}")),
        2 => (0..10_000u32).prop_map(|n| format!("rare_{n}")),
        1 => ".{0,30}",
        // Up to 1,020 bytes: longer than a length of one byte can say.
        1 => (60..256usize).prop_map(|n| "\u{1f600}".repeat(n)),
    ]
    .prop_map(|text| Atom::new(&text).unwrap())
}

fn any_pid() -> impl Strategy<Value = Pid> {
    (0..4u32, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(node, id, serial, creation)| {
        Pid {
            node: Atom::new(&format!("node{node}@host")).unwrap(),
            id,
            serial,
            creation,
        }
    })
}

fn any_reference() -> impl Strategy<Value = Reference> {
    (
        0..4u32,
        any::<u32>(),
        prop::collection::vec(any::<u32>(), 1..=5),
    )
        .prop_map(|(node, creation, words)| {
            Reference::new(
                Atom::new(&format!("node{node}@host")).unwrap(),
                creation,
                &words,
            )
        })
}

fn term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        3 => atom().prop_map(Term::from),
        1 => any::<i64>().prop_map(Term::from),
        1 => (0..300i64).prop_map(Term::from),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Term::binary),
        1 => any_pid().prop_map(Term::from),
        1 => any_reference().prop_map(Term::from),
    ];
    leaf.prop_recursive(4, 40, 8, |element| {
        prop_oneof![
            prop::collection::vec(element.clone(), 0..8).prop_map(Term::tuple),
            prop::collection::vec(element.clone(), 0..8).prop_map(Term::list),
            prop::collection::vec((element.clone(), element), 0..4)
                .prop_map(|pairs| Term::from(pairs.into_iter().collect::<Map>())),
        ]
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        any_pid().prop_map(Target::Pid),
        atom().prop_map(Target::Name)
    ]
}

fn message() -> impl Strategy<Value = (Control, Option<Term>)> {
    let with = |control: BoxedStrategy<Control>| (control, term().prop_map(Some)).boxed();
    let without = |control: BoxedStrategy<Control>| control.prop_map(|c| (c, None)).boxed();
    prop_oneof![
        3 => with((any_pid(), any_pid())
            .prop_map(|(from, to)| Control::Send { from: Some(from), to }).boxed()),
        3 => with((any_pid(), atom())
            .prop_map(|(from, name)| Control::RegSend { from, name }).boxed()),
        1 => with((any_pid(), any_reference())
            .prop_map(|(from, alias)| Control::AliasSend { from, alias }).boxed()),
        1 => with((any_pid(), any_pid())
            .prop_map(|(from, to)| Control::Exit { from, to }).boxed()),
        1 => with((target(), any_pid(), any_reference())
            .prop_map(|(target, to, reference)| Control::Down { target, to, reference }).boxed()),
        1 => with((any_reference(), any_pid(), any_pid(), atom(), atom(), any::<u8>(), term())
            .prop_map(|(reference, from, group_leader, module, function, arity, options)| {
                Control::SpawnRequest {
                    reference,
                    from,
                    group_leader,
                    module,
                    function,
                    arity: arity.into(),
                    options,
                }
            }).boxed()),
        1 => without((any_pid(), any_pid())
            .prop_map(|(from, to)| Control::Link { from, to }).boxed()),
        1 => without((any_pid(), target(), any_reference())
            .prop_map(|(from, target, reference)| {
                Control::Monitor { from, target, reference }
            }).boxed()),
        1 => without((1..=u64::MAX, any_pid(), any_pid())
            .prop_map(|(id, from, to)| Control::UnlinkIdAck { id, from, to }).boxed()),
        1 => without((any_reference(), any_pid(), any::<bool>(), any::<bool>(), atom())
            .prop_map(|(reference, to, linked, monitored, error)| Control::SpawnReply {
                reference,
                to,
                linked,
                monitored,
                result: SpawnResult::Error(error),
            }).boxed()),
    ]
}

/// The ways of framing; the signals are those of a current peer.
fn flags() -> impl Strategy<Value = Flags> {
    let (hdr, fragments) = (Flags::DIST_HDR_ATOM_CACHE, Flags::FRAGMENTS);
    let optional = Flags::EXIT_PAYLOAD | Flags::ALTACT_SIG;
    (
        prop::sample::select(vec![Flags::NONE, hdr, fragments, hdr | fragments]),
        prop::sample::select(vec![Flags::NONE, optional]),
    )
        .prop_map(move |(framing, others)| {
            Flags::OFFERED
                .without(hdr | fragments | optional)
                .with(framing)
                .with(others)
        })
}

/// What the senders of a connection do, in turns.
#[derive(Clone, Debug)]
enum Turn {
    Tick,
    /// Sends a message that fits one packet.
    Small {
        atoms: Vec<u16>,
    },
    /// Encodes a large message and leaves it waiting, behind those of the same lane.
    Large {
        lane: u8,
        atoms: Vec<u16>,
        kilobytes: u16,
    },
    /// Writes one fragment of the first message of a lane.
    Fragment {
        lane: u8,
    },
}

const LANES: u8 = 4;

fn turn() -> impl Strategy<Value = Turn> {
    // Few enough to be met again, many enough to collide in the slots.
    let atoms = || prop::collection::vec(0..4000u16, 0..30);
    prop_oneof![
        1 => Just(Turn::Tick),
        6 => atoms().prop_map(|atoms| Turn::Small { atoms }),
        // More than a header can define.
        1 => prop::collection::vec(0..4000u16, 250..600).prop_map(|atoms| Turn::Small { atoms }),
        3 => (0..LANES, prop::collection::vec(0..4000u16, 0..400), 64..400u16)
            .prop_map(|(lane, atoms, kilobytes)| Turn::Large { lane, atoms, kilobytes }),
        8 => (0..LANES).prop_map(|lane| Turn::Fragment { lane }),
    ]
}

fn numbered(atoms: &[u16]) -> Term {
    Term::list(
        atoms
            .iter()
            .map(|n| Term::Atom(Atom::new(&format!("numbered_{n}")).unwrap()))
            .collect::<Vec<_>>(),
    )
}

/// Feeds bytes in pieces that end at the given places.
fn feed(decoder: &mut FrameDecoder, bytes: &[u8], cuts: &[Index]) -> Vec<Frame> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.push(bytes.len());
    places.sort_unstable();
    let mut frames = Vec::new();
    let mut at = 0;
    for place in places {
        // Both ways to give bytes.
        if place % 2 == 0 {
            decoder.push(&bytes[at..place]);
        } else {
            decoder.buffer().extend_from_slice(&bytes[at..place]);
        }
        at = place;
        frames.extend(drain(decoder).unwrap());
    }
    frames
}

proptest! {
    #![proptest_config(random(300))]

    #[test]
    fn messages_survive(
        flags in flags(),
        messages in prop::collection::vec(message(), 1..40),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let mut encoder = FrameEncoder::new(flags);
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        let mut bytes = Vec::new();
        for (control, payload) in &messages {
            bytes.extend(encode(&mut encoder, control, payload.as_ref()));
        }
        let expected: Vec<Frame> = messages
            .into_iter()
            .map(|(control, payload)| Frame::Message { control, payload })
            .collect();
        prop_assert_eq!(feed(&mut decoder, &bytes, &cuts), expected);
    }
}

proptest! {
    #![proptest_config(random(60))]

    #[test]
    fn interleaved_senders_do_not_disturb_each_other(
        cache in any::<bool>(),
        turns in prop::collection::vec(turn(), 1..120),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let mut flags = Flags::OFFERED;
        if !cache {
            flags = flags.without(Flags::DIST_HDR_ATOM_CACHE);
        }
        let mut encoder = FrameEncoder::new(flags);
        let mut lanes: Vec<VecDeque<(LargeMessage, Frame)>> = Vec::new();
        lanes.resize_with(usize::from(LANES), VecDeque::new);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let fragment = |lane: &mut VecDeque<(LargeMessage, Frame)>,
                            bytes: &mut Vec<u8>,
                            expected: &mut Vec<Frame>| {
            if let Some((large, _)) = lane.front_mut()
                && !large.next_fragment(bytes)
            {
                expected.extend(lane.pop_front().map(|(_, frame)| frame));
            }
        };
        for (number, turn) in turns.into_iter().enumerate() {
            let control = Control::Send {
                from: Some(pid("a@h", number as u32)),
                to: pid("b@h", 1),
            };
            match turn {
                Turn::Tick => {
                    FrameEncoder::tick(&mut bytes);
                    expected.push(Frame::Tick);
                }
                Turn::Small { atoms } => {
                    let payload = numbered(&atoms);
                    bytes.extend(encode(&mut encoder, &control, Some(&payload)));
                    expected.push(Frame::Message { control, payload: Some(payload) });
                }
                Turn::Large { lane, atoms, kilobytes } => {
                    let length = usize::from(kilobytes) << 10;
                    let payload = Term::tuple([
                        numbered(&atoms),
                        Term::binary(vec![number as u8; length]),
                        numbered(&atoms),
                    ]);
                    let before = bytes.len();
                    match encoder.encode(&control, Some(&payload), &mut bytes).unwrap() {
                        Encoded::Large(large) => {
                            prop_assert_eq!(bytes.len(), before);
                            let frame = Frame::Message { control, payload: Some(payload) };
                            lanes[usize::from(lane)].push_back((large, frame));
                        }
                        Encoded::Whole => prop_assert!(false, "{} bytes in one packet", length),
                    }
                }
                Turn::Fragment { lane } => {
                    fragment(&mut lanes[usize::from(lane)], &mut bytes, &mut expected);
                }
            }
        }
        for lane in &mut lanes {
            while !lane.is_empty() {
                fragment(lane, &mut bytes, &mut expected);
            }
        }
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        let frames = feed(&mut decoder, &bytes, &cuts);
        prop_assert!(frames == expected, "{} frames of {}", frames.len(), expected.len());
    }
}

proptest! {
    #![proptest_config(random(3))]

    /// Five times as many atoms as slots, in random order, then again.
    #[test]
    fn ten_thousand_atoms_share_the_slots(
        order in Just((0..10_000u16).collect::<Vec<_>>()).prop_shuffle(),
        again in Just((0..10_000u16).collect::<Vec<_>>()).prop_shuffle(),
        sizes in prop::collection::vec(1..300usize, 40),
    ) {
        let flags = Flags::OFFERED;
        let mut encoder = FrameEncoder::new(flags);
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        for mut atoms in [&order[..], &again[..]] {
            for size in sizes.iter().cycle() {
                let (now, later) = atoms.split_at(atoms.len().min(*size));
                atoms = later;
                if now.is_empty() {
                    break;
                }
                let control = Control::RegSend {
                    from: pid("a@h", 1),
                    name: Atom::of("sink"),
                };
                let payload = Some(numbered(now));
                decoder.push(&encode(&mut encoder, &control, payload.as_ref()));
                prop_assert_eq!(
                    drain(&mut decoder).unwrap(),
                    [Frame::Message { control, payload }]
                );
            }
        }
    }
}
