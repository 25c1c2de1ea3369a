//! Terms and bytes: each tag of the external term format, canonical output, what the limits do, and random terms.

use bytes::Bytes;
use proptest::prelude::*;
use tiebeam_wire::decode::{decode, decode_with};
use tiebeam_wire::encode::encode;
use tiebeam_wire::{Atom, DecodeErrorKind, Decoder, Limits, Opaque, Term};

mod support;
use support::{any_term, contains};

fn bytes_of(term: &Term) -> Vec<u8> {
    let mut out = Vec::new();
    encode(term, &mut out);
    out
}

fn read(bytes: &[u8]) -> Term {
    decode(&Bytes::copy_from_slice(bytes)).unwrap_or_else(|error| panic!("{bytes:?}: {error}"))
}

fn refusal(bytes: &[u8]) -> DecodeErrorKind {
    match decode(&Bytes::copy_from_slice(bytes)) {
        Ok(term) => panic!("{bytes:?} is {term}"),
        Err(error) => error.kind,
    }
}

fn erl(text: &str) -> Term {
    Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn old_and_long_forms_mean_the_same_as_what_is_written() {
    let node = b"\x77\x03a@h";
    let with_node = |head: &[u8], tail: &[u8]| [head, node, tail].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"\x83\x62\0\0\0\x05", "5"),
        (b"\x83\x6e\0\0", "0"),
        (b"\x83\x6e\x01\x07\x05", "-5"),
        (b"\x83\x6f\0\0\0\x01\0\x05", "5"),
        (b"\x83\x631.50000000000000000000e+00\0\0\0\0\0", "1.5"),
        (b"\x83\x73\x02\xe9a", "'\u{e9}a'"),
        (b"\x83\x64\0\x01a", "a"),
        (b"\x83\x76\0\x01a", "a"),
        (b"\x83\x69\0\0\0\x01\x6a", "{[]}"),
        (b"\x83\x6b\0\0", "[]"),
        (b"\x83\x6c\0\0\0\0\x6a", "[]"),
        (b"\x83\x6c\0\0\0\0\x61\x01", "1"),
        (b"\x83\x6c\0\0\0\x01\x61\x01\x6b\0\x01\x07", "[1,7]"),
        (
            b"\x83\x6c\0\0\0\x01\x61\x01\x6c\0\0\0\x01\x61\x02\x61\x03",
            "[1,2|3]",
        ),
        (b"\x83\x4d\0\0\0\0\0", "<<>>"),
        (b"\x83\x4d\0\0\0\x01\x08\x05", "<<5>>"),
        (b"\x83\x4d\0\0\0\x01\x03\xff", "<<7:3>>"),
        (
            &with_node(b"\x83\x67", b"\0\0\0\x05\0\0\0\x06\x02"),
            "#Pid<a@h,5,6,2>",
        ),
        (&with_node(b"\x83\x66", b"\0\0\0\x05\x02"), "#Port<a@h,5,2>"),
        (
            &with_node(b"\x83\x78", b"\0\0\0\0\0\0\0\x05\0\0\0\x02"),
            "#Port<a@h,5,2>",
        ),
        (&with_node(b"\x83\x65", b"\0\0\0\x05\x02"), "#Ref<a@h,2,5>"),
        (
            &with_node(b"\x83\x72\0\x02", b"\x02\0\0\0\x05\0\0\0\x06"),
            "#Ref<a@h,2,5,6>",
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(read(bytes), erl(text), "{bytes:?}");
    }
}

#[test]
fn what_otp_refuses_is_refused() {
    use DecodeErrorKind as Kind;
    assert_eq!(refusal(b""), Kind::Truncated);
    assert_eq!(refusal(b"\x82\x6a"), Kind::Version(130));
    assert_eq!(refusal(b"\x83\x75\0\0\0\0"), Kind::Tag(117));
    assert_eq!(refusal(b"\x83\x6a\x6a"), Kind::Trailing { bytes: 1 });
    assert_eq!(refusal(b"\x83\x52\0"), Kind::AtomReference(0));
    assert_eq!(refusal(b"\x83\x77\x01\xff"), Kind::Atom);
    assert_eq!(refusal(b"\x83\x46\x7f\xf0\0\0\0\0\0\0"), Kind::Float);
    assert!(matches!(refusal(b"\x83\x4d\0\0\0\x01\0\0"), Kind::Range(_)));
    assert!(matches!(refusal(b"\x83\x4d\0\0\0\0\x08"), Kind::Range(_)));
    let six_words = [&b"\x83\x5a\0\x06\x77\x01a"[..], &[0; 28]].concat();
    assert!(matches!(refusal(&six_words), Kind::Range(_)));
    // The same key in two forms.
    let twice = b"\x83\x74\0\0\0\x02\x61\x01\x61\x01\x62\0\0\0\x01\x61\x02";
    assert_eq!(refusal(twice), Kind::DuplicateKey);
    // A compressed term inside another term.
    let inner = [&b"\x83\x68\x01"[..], &compressed(b"\x61\x05", 2)[1..]].concat();
    assert_eq!(refusal(&inner), Kind::Tag(80));
}

#[test]
fn a_map_keeps_keys_that_are_equal_but_not_the_same() {
    let map = erl("#{1 => a, 1.0 => b, 0.0 => c, -0.0 => d, \"\" => e, <<>> => f}");
    let Term::Map(pairs) = read(&bytes_of(&map)) else {
        panic!("not a map")
    };
    assert_eq!(pairs.len(), 6);
    assert_eq!(pairs.get(&Term::from(1.0)), Some(&Term::atom("b")));
}

#[test]
fn closures_are_equal_whoever_made_them() {
    let fun = |node: &str, free: u8| {
        let mut bytes = vec![131, 112, 0, 0, 0, 0, 1];
        bytes.extend([7; 16]);
        bytes.extend([
            0, 0, 0, 3, 0, 0, 0, 1, 119, 1, b'm', 97, 3, 97, 4, 88, 119, 3,
        ]);
        bytes.extend(node.bytes());
        bytes.extend([0; 12]);
        bytes.extend([97, free]);
        bytes
    };
    assert_eq!(read(&fun("a@h", 1)), read(&fun("b@h", 1)));
    assert_ne!(read(&fun("a@h", 1)), read(&fun("a@h", 2)));
    // So OTP takes them for one key.
    let pairs = [&fun("a@h", 1)[1..], b"\x6a", &fun("b@h", 1)[1..], b"\x6a"].concat();
    let map = [&b"\x83\x74\0\0\0\x02"[..], &pairs].concat();
    assert_eq!(refusal(&map), DecodeErrorKind::DuplicateKey);
}

#[test]
fn many_equal_keys_are_found_too() {
    let mut bytes = vec![131, 116, 0, 0, 4, 1];
    for key in (0..1024i64).chain([500]) {
        tiebeam_wire::encode::write_integer(key, &mut bytes);
        bytes.extend([97, 0]);
    }
    assert_eq!(refusal(&bytes), DecodeErrorKind::DuplicateKey);
}

fn compressed(term: &[u8], declared: u32) -> Vec<u8> {
    use std::io::Write;
    let mut out = vec![131, 80];
    out.extend(declared.to_be_bytes());
    let mut deflate = flate2::write::ZlibEncoder::new(out, flate2::Compression::best());
    deflate.write_all(term).unwrap();
    deflate.finish().unwrap()
}

#[test]
fn a_compressed_term_is_inflated_to_what_it_declares_and_no_further() {
    let zeros = [&b"\x6d\0\x10\0\0"[..], &vec![0; 1 << 20]].concat();
    let declared = zeros.len() as u32;
    let good = compressed(&zeros, declared);
    assert!(good.len() < 2000);
    assert_eq!(read(&good), Term::binary(vec![0; 1 << 20]));

    assert_eq!(
        refusal(&compressed(&zeros, 10)),
        DecodeErrorKind::Compression
    );
    assert_eq!(
        refusal(&compressed(&zeros, declared + 1)),
        DecodeErrorKind::Compression
    );
    assert_eq!(
        refusal(&good[..good.len() - 1]),
        DecodeErrorKind::Compression
    );
    // Twice compressed: OTP refuses it too.
    let twice = compressed(&good[1..], good.len() as u32 - 1);
    assert_eq!(refusal(&twice), DecodeErrorKind::Tag(80));

    let limits = Limits {
        inflated: 1 << 20,
        ..Limits::default()
    };
    let error = decode_with(&good.into(), &limits).unwrap_err();
    assert!(
        matches!(error.kind, DecodeErrorKind::Limit { .. }),
        "{error}"
    );
}

#[test]
fn what_follows_a_compressed_term_is_read_next() {
    let mut bytes = compressed(b"\x61\x05", 2);
    bytes.extend(b"\x83\x61\x06");
    let (bytes, limits) = (Bytes::from(bytes), Limits::default());
    let mut decoder = Decoder::new(&bytes, 0, &limits);
    for expected in [5, 6] {
        decoder.version().unwrap();
        assert_eq!(decoder.term().unwrap(), Term::Integer(expected));
    }
    decoder.end().unwrap();
}

#[test]
fn a_long_binary_is_a_view_of_the_packet() {
    let packet = Bytes::from(bytes_of(&Term::tuple([Term::binary([7; 100])])));
    let term = decode(&packet).unwrap();
    let binary = term.as_tuple().unwrap()[0].as_binary().unwrap();
    assert_eq!(binary.as_ptr(), packet[8..].as_ptr());
}

/// `[[[...]]]`, `levels` deep.
fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = vec![131];
    for _ in 1..levels {
        bytes.extend([108, 0, 0, 0, 1]);
    }
    bytes.push(106);
    bytes.extend(vec![106; levels - 1]);
    bytes
}

#[test]
fn a_million_levels_are_kept_and_sent_on_unchanged() {
    let bytes = Bytes::from(nested(1_000_000));
    let term = decode(&bytes).unwrap();
    let mut inner = &term;
    let mut levels = 0;
    while let Term::List(elements) = inner {
        inner = &elements[0];
        levels += 1;
    }
    assert_eq!(levels, Limits::default().depth);
    assert!(matches!(inner, Term::Opaque(_)));
    assert_eq!(bytes_of(&term), bytes);
    assert_eq!(term.clone(), term);
}

#[test]
fn the_deepest_terms_can_be_walked_on_a_small_stack() {
    let levels = Limits::default().depth;
    let list = Bytes::from(nested(levels + 1));
    let mut map = vec![131];
    for _ in 0..levels {
        map.extend([116, 0, 0, 0, 1, 106]);
    }
    map.push(106);
    let map = Bytes::from(map);
    // As large as the stacks of worker threads.
    let walk = move || {
        for bytes in [list, map] {
            let term = decode(&bytes).unwrap();
            assert_eq!(bytes_of(&term), bytes);
            assert_eq!(term, term.clone());
            assert_eq!(Term::parse(&term.to_string()).unwrap(), term);
            let set: std::collections::HashSet<Term> = [term].into();
            assert_eq!(set.len(), 1);
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(walk);
    thread.unwrap().join().unwrap();
}

#[test]
fn a_chain_of_tails_is_one_list() {
    // [1|[2|[3|...]]], written link by link.
    let mut bytes = vec![131];
    for i in 0..10_000i64 {
        bytes.extend([108, 0, 0, 0, 1]);
        tiebeam_wire::encode::write_integer(i, &mut bytes);
    }
    let mut improper = bytes.clone();
    bytes.push(106);
    improper.extend([97, 7]);
    let Term::List(elements) = read(&bytes) else {
        panic!("not a list")
    };
    assert_eq!(elements.len(), 10_000);
    let Term::Improper(list) = read(&improper) else {
        panic!("not an improper list")
    };
    assert_eq!(
        (list.elements.len(), &list.tail),
        (10_000, &Term::Integer(7))
    );
}

#[test]
fn more_elements_than_the_limit_are_kept_as_bytes() {
    let limits = Limits {
        terms: 1000,
        ..Limits::default()
    };
    let list = |len: usize| Term::List(vec![Term::atom("x"); len]);
    let string = |len: usize| Term::List(vec![Term::Integer(1); len]);
    for many in [list(1001), string(1001)] {
        let term = Term::tuple([list(10), many, Term::Integer(3)]);
        let bytes = Bytes::from(bytes_of(&term));
        let kept = decode_with(&bytes, &limits).unwrap();
        let elements = kept.as_tuple().unwrap();
        assert_eq!(elements[0], list(10));
        let Term::Opaque(opaque) = &elements[1] else {
            panic!("{} is not opaque", elements[1])
        };
        assert_eq!(elements[2], Term::Integer(3));
        assert_eq!(bytes_of(&kept), bytes);
        // Whoever wants it can have it.
        assert_eq!(
            opaque.decode(&Limits::default()).unwrap(),
            term.as_tuple().unwrap()[1]
        );
    }
}

#[test]
fn an_integer_beyond_the_limit_is_kept_as_bytes() {
    let len = Limits::default().integer + 1;
    let bytes = [
        &[131, 111][..],
        &(len as u32).to_be_bytes(),
        &[1],
        &vec![255; len],
    ]
    .concat();
    let term = read(&bytes);
    assert!(matches!(term, Term::Opaque(_)));
    assert_eq!(bytes_of(&term), bytes);
}

#[test]
fn native_records_and_node_local_terms_are_kept_as_bytes() {
    // A record m:r with the fields x and y, made by OTP 29: number of fields, exported, module, name, names, values.
    let record =
        b"\x43\0\0\0\x02\x01\x77\x01m\x77\x01r\x77\x01x\x77\x01y\x61\x01\x6c\0\0\0\x01\x61\x02\x6a";
    // A node-local pid: a hash, then a pid whose node is [].
    let local = b"\x79\x01\x02\x03\x04\x58\x6a\0\0\0\x01\0\0\0\x02\0\0\0\x03";
    for inner in [&record[..], &local[..]] {
        let bytes = [&b"\x83\x68\x02\x61\x01"[..], inner].concat();
        let term = read(&bytes);
        let Term::Opaque(opaque) = &term.as_tuple().unwrap()[1] else {
            panic!("{term} is not opaque")
        };
        assert_eq!(&opaque.bytes()[..], inner);
        assert_eq!(bytes_of(&term), bytes);
        for cut in 0..inner.len() {
            assert!(Opaque::new(Bytes::copy_from_slice(&inner[..cut])).is_err());
        }
    }
    // The fields of a record are atoms.
    assert!(
        Opaque::new(Bytes::from_static(
            b"\x43\0\0\0\x01\x01\x77\x01m\x77\x01r\x61\x01\x61\x01"
        ))
        .is_err()
    );
}

#[test]
fn opaque_terms_get_atoms_in_place_of_references_to_the_header() {
    let atoms = [Atom::of("m"), Atom::of("longer")];
    // {m, fun with size 0 and the environment [{longer}, fun with the environment [m]], <<1>>}, all atoms cached.
    let fun = |atoms: [&[u8]; 2], free: &[&[u8]]| {
        let mut body = vec![0];
        body.extend([9; 16]);
        body.extend([0, 0, 0, 1, 0, 0, 0, free.len() as u8]);
        body.extend(atoms[0]);
        body.extend([97, 1, 97, 2, 88]);
        body.extend(atoms[1]);
        body.extend([0; 12]);
        body.extend(free.concat());
        let size = (body.len() as u32 + 4).to_be_bytes();
        [&[112][..], &size, &body].concat()
    };
    let term = |m: &[u8], longer: &[u8]| {
        let inner = fun([m, longer], &[m]);
        let outer = fun([m, m], &[&[&[104, 1], longer].concat(), &inner]);
        [&[104, 3][..], m, &outer, &[109, 0, 0, 0, 1, 1]].concat()
    };
    let cached = Bytes::from(term(b"\x52\0", b"\x52\x01"));
    let written = term(b"\x77\x01m", b"\x77\x06longer");

    let limits = Limits::default();
    let mut decoder = Decoder::new(&cached, 0, &limits).with_atoms(&atoms);
    assert_eq!(decoder.opaque().unwrap().bytes(), &written);
    decoder.end().unwrap();

    // The same through the limit of depth, and through the term itself.
    for depth in 0..4 {
        let limits = Limits {
            depth,
            ..Limits::default()
        };
        let mut decoder = Decoder::new(&cached, 0, &limits).with_atoms(&atoms);
        let term = decoder.term().unwrap();
        decoder.end().unwrap();
        assert_eq!(bytes_of(&term)[1..], written, "{depth}");
    }

    let limits = Limits {
        depth: 0,
        inflated: 10,
        ..Limits::default()
    };
    let error = Decoder::new(&cached, 0, &limits).with_atoms(&atoms).term();
    assert!(matches!(
        error.unwrap_err().kind,
        DecodeErrorKind::Limit { .. }
    ));
}

#[test]
fn keys_within_keys_are_decoded_up_to_a_limit_and_never_take_long() {
    // #{#{... => 2, x => 1} => 2, x => 1}: with exponential comparison this would outlive us.
    let nest = |levels: usize, swap: bool| {
        let mut term = b"\x61\x00".to_vec();
        for _ in 0..levels {
            let pair = [&term[..], b"\x61\x02"].concat();
            let rest = [&b"\x77\x01x\x61\x01"[..], b"\x77\x01y\x61\x01"];
            let rest = if swap { [rest[1], rest[0]] } else { rest };
            term = [&b"\x74\0\0\0\x03"[..], &pair, &rest.concat()].concat();
        }
        term
    };
    let bytes = [&b"\x83\x68\x02"[..], &nest(3, false), &nest(3, true)].concat();
    let elements = read(&bytes);
    let elements = elements.as_tuple().unwrap();
    assert_eq!(elements[0], elements[1]);

    let map = [&nest(400, false)[..], b"\x6a", &nest(400, true), b"\x6a"].concat();
    let bytes = [&b"\x83\x74\0\0\0\x02"[..], &map].concat();
    let map = read(&bytes);
    assert_eq!(bytes_of(&map), bytes);
}

fn is_closure_in(term: &Term) -> bool {
    contains(term, &|term| matches!(term, Term::Fun(_)))
}

proptest! {
    #[test]
    fn any_term_survives_the_wire(term in any_term()) {
        let bytes = Bytes::from(bytes_of(&term));
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(&read, &term);
        prop_assert_eq!(bytes_of(&read), bytes);
    }

    #[test]
    fn any_term_survives_the_wire_within_narrow_limits(
        term in any_term(), depth in 0usize..4, terms in 0usize..20,
    ) {
        let bytes = Bytes::from(bytes_of(&term));
        let limits = Limits { depth, terms, ..Limits::default() };
        prop_assert_eq!(bytes_of(&decode_with(&bytes, &limits).unwrap()), bytes);
    }

    #[test]
    fn any_term_survives_text(term in any_term().prop_filter("no closure", |term| !is_closure_in(term))) {
        let text = term.to_string();
        let read = Term::parse(&text);
        prop_assert_eq!(read.as_ref(), Ok(&term), "{}", text);
    }

    #[test]
    fn equal_terms_hash_alike(term in any_term()) {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        let other = decode(&bytes_of(&term).into()).unwrap();
        prop_assert_eq!(state.hash_one(&term), state.hash_one(&other));
    }
}
