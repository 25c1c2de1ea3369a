//! Broken bytes on a connection: the decoder says so or waits for more, and never does anything else.

mod releases;
mod signals;

use proptest::prelude::*;
use proptest::sample::Index;
use tiebeam_wire::Term;
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{FrameDecoder, FrameEncoder, FrameLimits};

use signals::{drain, encode, golden, random, sample};

/// Valid streams to be broken: of a real node, and of ours under each way of framing.
fn streams() -> Vec<(Flags, Vec<u8>)> {
    let mut streams: Vec<(Flags, Vec<u8>)> = golden()
        .into_iter()
        .map(|session| (session.flags, session.bytes))
        .collect();
    let (hdr, fragments) = (Flags::DIST_HDR_ATOM_CACHE, Flags::FRAGMENTS);
    for framing in [Flags::NONE, hdr, fragments, hdr | fragments] {
        let flags = Flags::OFFERED.without(hdr | fragments).with(framing);
        let mut encoder = FrameEncoder::new(flags);
        let mut bytes = Vec::new();
        for (control, payload) in sample() {
            if let Ok(_whole) = encoder.encode(&control, payload.as_ref(), &mut bytes) {
                FrameEncoder::tick(&mut bytes);
            }
        }
        let (control, _) = sample().remove(3);
        let large = Term::list(vec![Term::binary([1; 1000]); 100]);
        bytes.extend(encode(&mut encoder, &control, Some(&large)));
        streams.push((flags, bytes));
    }
    streams
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(Index, Index),
    Flip(Index, u8),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
    /// Many opening containers, with the lengths of all frames as they should be.
    Nest(Index, Vec<u8>, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Cut(from, to)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (
            any::<Index>(),
            prop::sample::select(vec![
                b"\x68\x01".to_vec(),
                b"\x6c\0\0\0\x01".to_vec(),
                b"\x74\0\0\0\x01".to_vec(),
                b"\x69\xff\xff\xff\xff".to_vec(),
            ]),
            1..20_000u16
        )
            .prop_map(|(at, opening, times)| Damage::Nest(at, opening, times)),
    ]
}

/// The frames of a stream, without their lengths.
fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut rest = bytes;
    while let Some((length, tail)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let length = length.min(tail.len());
        packets.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
    packets
}

fn join(packets: &[Vec<u8>]) -> Vec<u8> {
    packets
        .iter()
        .flat_map(|packet| {
            let length = (packet.len() as u32).to_be_bytes();
            length.into_iter().chain(packet.iter().copied())
        })
        .collect()
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let range = |from: &Index, to: &Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Cut(from, to) => {
                let range = range(from, to, bytes);
                bytes.drain(range);
            }
            Self::Flip(at, bits) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Repeat(from, to) => {
                let range = range(from, to, bytes);
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, again);
            }
            Self::Insert(at, inserted) => {
                let at = place(at, bytes);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Nest(at, opening, times) => {
                let at = place(at, bytes);
                bytes.splice(at..at, opening.repeat(usize::from(*times)));
            }
        }
    }
}

/// Reads to the end or the first error, which must stay.
fn read(flags: Flags, bytes: &[u8], piece: usize) {
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        if let Err(error) = drain(&mut decoder) {
            assert!(error.to_string().contains("at byte"), "{error}");
            assert_eq!(decoder.next(), Err(error));
            break;
        }
    }
}

#[test]
fn the_streams_are_good_before_they_are_broken() {
    for (flags, bytes) in streams() {
        let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
        decoder.push(&bytes);
        assert!(!drain(&mut decoder).unwrap().is_empty());
    }
}

/// Cut at every place, each byte set to each of a few values: small streams, all cases.
#[test]
fn small_streams_survive_every_damage_of_one_byte() {
    for (flags, bytes) in streams() {
        let packets = packets(&bytes);
        // Enough of a stream to have one message of most kinds, without the large ones.
        let small: Vec<_> = packets
            .into_iter()
            .filter(|packet| packet.len() < 400)
            .take(25)
            .collect();
        let bytes = join(&small);
        for at in 0..bytes.len() {
            read(flags, &bytes[..at], usize::MAX);
            for value in [0, 1, 0x52, 0x6c, 0x7f, 0x80, 0xff, bytes[at] ^ 1] {
                let mut broken = bytes.clone();
                broken[at] = value;
                read(flags, &broken, usize::MAX);
            }
        }
    }
}

proptest! {
    #![proptest_config(random(400))]

    #[test]
    fn damaged_streams_end_in_an_error_or_wait(
        stream in any::<Index>(),
        damages in prop::collection::vec(damage(), 1..4),
        keep_lengths in any::<bool>(),
        packet in any::<Index>(),
        piece in prop::sample::select(vec![1 << 30, 100_000, 1000, 13]),
    ) {
        let streams = STREAMS.with(|streams| streams.clone());
        let (flags, bytes) = &streams[stream.index(streams.len())];
        let mut bytes = bytes.clone();
        if keep_lengths {
            // Only the inside of one packet, so that the damage gets behind the framing.
            let mut packets = packets(&bytes);
            let at = packet.index(packets.len());
            for damage in &damages {
                damage.apply(&mut packets[at]);
            }
            bytes = join(&packets);
        } else {
            for damage in &damages {
                damage.apply(&mut bytes);
            }
        }
        read(*flags, &bytes, piece);
    }

    #[test]
    fn noise_ends_in_an_error_or_waits(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        head in prop::sample::select(vec![
            vec![],
            vec![112, 131],
            vec![131, 68],
            vec![131, 68, 0, 104],
            vec![131, 69, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
            vec![131, 70, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        ]),
    ) {
        let packet = [head, noise].concat();
        for flags in [Flags::NONE, Flags::DIST_HDR_ATOM_CACHE, Flags::FRAGMENTS, Flags::OFFERED] {
            read(flags, &packet, usize::MAX);
            read(flags, &join(&[packet.clone(), packet.clone()]), usize::MAX);
        }
    }
}

thread_local! {
    static STREAMS: std::rc::Rc<Vec<(Flags, Vec<u8>)>> = std::rc::Rc::new(streams());
}
