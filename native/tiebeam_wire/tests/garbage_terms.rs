//! Bytes that are not terms, or not kind: the decoder refuses or bounds them. It never panics, never recurses
//! without bound, and never builds more than a small multiple of what it was given.
#![allow(clippy::disallowed_methods, reason = "tests read the vectors")]

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use tiebeam_wire::decode::{decode, decode_with};
use tiebeam_wire::encode::encode;
use tiebeam_wire::{DecodeErrorKind, Decoder, Limits, Term};

mod releases;

/// The terms that OTP wrote, as seeds.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let files = |(_, folder): (String, PathBuf)| std::fs::read_dir(folder.join("terms")).unwrap();
    let mut seeds: Vec<_> = releases::folders()
        .into_iter()
        .flat_map(files)
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "etf"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() > 150, "only {} seeds", seeds.len());
    seeds
}

/// How many terms it consists of.
fn count(term: &Term) -> usize {
    1 + match term {
        Term::Tuple(elements) | Term::List(elements) => elements.iter().map(count).sum(),
        Term::Improper(list) => list.elements.iter().map(count).sum::<usize>() + count(&list.tail),
        Term::Map(map) => map.iter().map(|(k, v)| count(k) + count(v)).sum(),
        Term::Fun(fun) => fun.free.iter().map(count).sum(),
        _ => 0,
    }
}

/// Reads the bytes in every way, and checks what must hold whatever they are.
fn check(bytes: &[u8]) -> Result<Term, DecodeErrorKind> {
    let bytes = Bytes::copy_from_slice(bytes);
    let limits = Limits::default();
    let read = decode(&bytes);

    // The walk, which builds nothing, agrees with the decoder; it does not compare the keys of maps.
    let mut walk = Decoder::new(&bytes, 0, &limits);
    let walked = walk
        .version()
        .and_then(|()| walk.skip())
        .and_then(|()| walk.end());
    match (&read, &walked) {
        (Ok(_), Ok(())) | (Err(_), Err(_)) => {}
        (Err(error), Ok(())) => assert_eq!(error.kind, DecodeErrorKind::DuplicateKey, "{bytes:?}"),
        (Ok(term), Err(error)) => panic!("{bytes:?} is {term}, but walking it says {error}"),
    }

    let narrow = Limits {
        depth: 3,
        terms: 10,
        inflated: 1000,
        integer: 4,
    };
    if let Ok(term) = decode_with(&bytes, &narrow) {
        // The root, ten elements, and the tails of at most eleven lists.
        assert!(count(&term) <= 22, "{term}");
        // What was kept as bytes is still the same term.
        if let Ok(full) = &read {
            assert_eq!(
                decode(&written(&term).into()).as_ref(),
                Ok(full),
                "{bytes:?}"
            );
        }
    }

    if let Ok(term) = &read {
        // A byte makes at most one term; deflate makes at most 1,032 bytes of one.
        let compressed = bytes.get(1) == Some(&80);
        let bound = bytes.len() * if compressed { 1032 } else { 1 };
        assert!(count(term) <= bound, "{} terms from {bytes:?}", count(term));
        let again = decode(&Bytes::from(written(term)));
        assert_eq!(again.as_ref(), Ok(term), "{bytes:?}");
    }
    read.map_err(|error| error.kind)
}

fn written(term: &Term) -> Vec<u8> {
    let mut out = Vec::new();
    encode(term, &mut out);
    out
}

#[test]
fn cut_anywhere() {
    for (name, bytes) in seeds() {
        if name.starts_with("reject_") || name == "trailing_bytes.etf" {
            continue;
        }
        for cut in 0..bytes.len() {
            assert!(check(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn flip_any_bit() {
    for (_, mut bytes) in seeds() {
        // Long ones repeat themselves: their head and their end say all.
        let all = bytes.len();
        for at in (0..all).filter(|at| *at < 300 || at + 20 > all) {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let _ = check(&bytes);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn repeat_and_join() {
    let seeds = seeds();
    for ((_, one), (_, two)) in seeds.iter().zip(seeds.iter().skip(1)) {
        assert!(check(&[&one[..], one].concat()).is_err());
        assert!(check(&[&one[..], two].concat()).is_err());
        let tail = two.get(1..).unwrap_or_default();
        let _ = check(&[&one[..one.len() / 2], tail].concat());
    }
}

/// What makes one container with a single element: before the element, and after it.
const WRAPPERS: [(&[u8], &[u8]); 6] = [
    (b"\x68\x01", b""),
    (b"\x69\0\0\0\x01", b""),
    (b"\x6c\0\0\0\x01", b"\x6a"),
    (b"\x6c\0\0\0\x01\x6a", b""),
    (b"\x74\0\0\0\x01\x6a", b""),
    (b"\x74\0\0\0\x01", b"\x6a"),
];

#[test]
fn nest_to_any_depth() {
    for (before, after) in WRAPPERS {
        for depth in [1, 2, 511, 512, 513, 2000, 200_000] {
            let bytes = [
                &[131][..],
                &before.repeat(depth),
                b"\x77\x01x",
                &after.repeat(depth),
            ]
            .concat();
            let term = check(&bytes).unwrap_or_else(|kind| panic!("{before:?} {depth}: {kind:?}"));
            // A large tuple of one is written as a small one, a chain of tails as one list.
            if !matches!(before, [105, ..] | [108, .., 106]) {
                assert_eq!(written(&term), bytes, "{before:?} {depth}");
            }
        }
    }
    // Funs within the fields of funs, which are integers.
    let fun = [&[112, 0, 0, 0, 0, 0][..], &[0; 16], &[0; 8], &[119, 1, 97]].concat();
    assert!(check(&[&[131][..], &fun.repeat(100_000)].concat()).is_err());
}

#[test]
fn what_breaks_other_decoders() {
    let huge = [255, 255, 255, 255];
    let mut deflate = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&vec![0; 100 << 20]).unwrap();
    let deflated = deflate.finish().unwrap();
    let zeros = |declared: u32| [&[131, 80][..], &declared.to_be_bytes(), &deflated].concat();
    let huge_fun = [
        &[131, 112][..],
        &huge,
        &[0; 21],
        &huge,
        b"\x77\x01m\x61\0\x61\0\x58\x77\x03a@h",
        &[0; 12],
    ];
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("a list of 4 G elements", [&[131, 108][..], &huge].concat()),
        ("a tuple of 4 G elements", [&[131, 105][..], &huge].concat()),
        ("a map of 4 G pairs", [&[131, 116][..], &huge].concat()),
        ("a binary of 4 G bytes", [&[131, 109][..], &huge].concat()),
        (
            "a bit string of 4 G bytes",
            [&[131, 77][..], &huge, &[1]].concat(),
        ),
        (
            "an integer of 4 G bytes",
            [&[131, 111][..], &huge, &[0]].concat(),
        ),
        ("an integer of 255 bytes, cut", vec![131, 110, 255, 0, 1]),
        ("a fun with 4 G free variables", huge_fun.concat()),
        (
            "a record of 4 G fields",
            [&[131, 67][..], &huge, b"\x01\x77\x01m\x77\x01r"].concat(),
        ),
        ("a bomb that declares 10 bytes", zeros(10)),
        ("a bomb that declares 100 MiB", zeros(100 << 20)),
        ("a bomb that declares 4 GiB", zeros(u32::MAX)),
        ("a distribution header", vec![131, 68, 0]),
        ("a fragment header", vec![131, 69, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("a reference to the header", vec![131, 82, 0]),
        ("a version and nothing else", vec![131]),
        ("nothing", vec![]),
        ("two versions", vec![131, 131, 106]),
        ("an atom that is not UTF-8", vec![131, 119, 2, 0xc3, 0x28]),
        (
            "an atom with a surrogate",
            vec![131, 119, 3, 0xed, 0xa0, 0x80],
        ),
        (
            "an atom of 256 characters",
            [&[131, 118, 1, 0][..], &[b'a'; 256]].concat(),
        ),
        (
            "a reference of 65,535 words",
            vec![131, 90, 255, 255, 119, 1, 97],
        ),
        (
            "a float that is not a number",
            vec![131, 70, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
        ),
        (
            "a text float that is infinite",
            [&[131, 99][..], b"inf", &[0; 28]].concat(),
        ),
        ("trailing bytes", vec![131, 106, 106]),
        (
            "the same key twice",
            b"\x83\x74\0\0\0\x02\x61\x01\x6a\x61\x01\x6a".to_vec(),
        ),
        ("the old kind of fun", [&[131, 117][..], &[0; 40]].concat()),
        ("a list without its tail", vec![131, 108, 0, 0, 0, 1, 97, 1]),
        (
            "nested claims of all that is left",
            [[105, 0, 0, 0, 200].repeat(100), vec![106; 300]].concat(),
        ),
    ];
    for (what, bytes) in hostile {
        assert!(check(&bytes).is_err(), "{what} is accepted");
    }
}

#[test]
fn nested_containers_cannot_claim_the_same_bytes_again() {
    // Each of a thousand tuples claims as many elements as bytes follow it: in all, 25 million elements.
    let mut bytes = vec![131];
    for i in (0..10_000u32).rev() {
        bytes.push(105);
        bytes.extend((5 * i).to_be_bytes());
    }
    assert_eq!(check(&bytes), Err(DecodeErrorKind::Truncated));
}

#[test]
fn many_keys_that_differ_only_at_the_end_take_linear_time() {
    // 20,000 keys of 100 bytes; comparing each with each would compare 20 GB.
    let mut bytes = vec![131, 116];
    bytes.extend(20_000u32.to_be_bytes());
    for key in 0..20_000u32 {
        bytes.extend([109, 0, 0, 0, 100]);
        bytes.extend([0; 96]);
        bytes.extend(key.to_be_bytes());
        bytes.push(106);
    }
    assert!(check(&bytes).is_ok());
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&[&[131][..], &bytes].concat());
    }

    /// Bytes that are mostly tags and small numbers get further than uniform ones.
    #[test]
    fn random_tags(
        bytes in prop::collection::vec(
            prop_oneof![
                prop::sample::select(&[
                    67u8, 70, 77, 80, 82, 88, 89, 90, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108,
                    109, 110, 111, 112, 113, 114, 115, 116, 118, 119, 120, 121,
                ][..]),
                0u8..4,
                Just(106u8),
            ],
            0..300,
        ),
    ) {
        let _ = check(&[&[131][..], &bytes].concat());
    }
}
