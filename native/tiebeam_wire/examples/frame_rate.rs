//! How many messages per second one core encodes and decodes: `cargo run --release --example frame_rate [NAME]`,
//! where NAME is a part of the name of one measurement.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::Instant;

use tiebeam_wire::control::Control;
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{Encoded, FrameDecoder, FrameEncoder, FrameLimits};
use tiebeam_wire::{Atom, Improper, Pid, Reference, Term};

/// What a connection's driver usually writes and reads at once.
const BATCH: usize = 64 << 10;

fn main() {
    let pid = |node: &str, id| Pid {
        node: Atom::new(node).expect("a short name"),
        id,
        serial: 0,
        creation: 0x1234_5678,
    };
    let (from, to) = (pid("sender@127.0.0.1", 90), pid("receiver@127.0.0.1", 91));
    let reference = Reference::new(Atom::of("sender@127.0.0.1"), 0x1234_5678, &[1, 2, 3]);
    let send = Control::Send {
        from: Some(from.clone()),
        to,
    };
    let call = Control::RegSend {
        from: from.clone(),
        name: Atom::of("server"),
    };
    let hello = Term::tuple([
        Term::atom("msg"),
        Term::from(123_456),
        Term::binary("hello world"),
    ]);
    let tag = Term::Improper(Box::new(Improper {
        elements: vec![Term::atom("alias")],
        tail: Term::from(reference),
    }));
    let gen_call = Term::tuple([
        Term::atom("$gen_call"),
        Term::tuple([Term::from(from), tag]),
        Term::tuple([Term::atom("get"), Term::binary("a key")]),
    ]);
    let large = Term::binary(vec![7; 1 << 20]);
    let plain = Flags::OFFERED.without(Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS);
    for (name, flags) in [
        ("atom cache and fragments", Flags::OFFERED),
        ("pass-through", plain),
    ] {
        println!("{name}");
        measure(
            "send {msg, 123456, <<11>>}",
            flags,
            &send,
            &hello,
            2_000_000,
        );
        measure("gen_server:call", flags, &call, &gen_call, 1_000_000);
        measure("send a megabyte", flags, &send, &large, 500);
    }
}

fn measure(name: &str, flags: Flags, control: &Control, payload: &Term, count: usize) {
    if std::env::args()
        .nth(1)
        .is_some_and(|only| !name.contains(&only))
    {
        return;
    }
    let mut encoder = FrameEncoder::new(flags);
    let mut decoder = FrameDecoder::new(flags, FrameLimits::default());
    let mut out = Vec::with_capacity(2 * BATCH);
    let (mut encoding, mut decoding) = (0.0, 0.0);
    let (mut encoded, mut decoded, mut bytes) = (0, 0, 0);
    while encoded < count {
        let start = Instant::now();
        out.clear();
        while out.len() < BATCH && encoded < count {
            let result = encoder.encode(black_box(control), Some(black_box(payload)), &mut out);
            if let Encoded::Large(mut large) = result.expect("a message that may be sent") {
                while large.next_fragment(&mut out) {}
            }
            encoded += 1;
        }
        encoding += start.elapsed().as_secs_f64();
        bytes += out.len();
        for piece in out.chunks(BATCH) {
            decoder.buffer().extend_from_slice(piece);
            let start = Instant::now();
            while let Some(frame) = decoder.next().expect("what was encoded") {
                black_box(frame);
                decoded += 1;
            }
            decoding += start.elapsed().as_secs_f64();
        }
    }
    assert_eq!(decoded, count);
    let rate = |seconds: f64| count as f64 / seconds / 1e6;
    println!(
        "  {name:28} {:7.0} bytes  encode {:8.3} M/s {:6.0} ns  decode {:8.3} M/s {:6.0} ns",
        bytes as f64 / count as f64,
        rate(encoding),
        1e3 / rate(encoding),
        rate(decoding),
        1e3 / rate(decoding),
    );
}
