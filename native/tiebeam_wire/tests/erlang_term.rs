//! The bridge to the `erlang-term` crate: what passes, what is refused, and a second opinion on bytes.
#![cfg(feature = "erlang-term")]
#![allow(clippy::disallowed_methods, reason = "tests read the vectors")]

use std::path::Path;

use bytes::Bytes;
use erlang_term::RawTerm;
use proptest::prelude::*;
use tiebeam_wire::erlang_term::ConversionError;
use tiebeam_wire::{Term, decode::decode, encode::encode};

mod support;
use support::{any_term, contains};

fn bytes_of(term: &Term) -> Vec<u8> {
    let mut out = Vec::new();
    encode(term, &mut out);
    out
}

fn erl(text: &str) -> Term {
    Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn each_refusal_towards_raw_term() {
    for (text, what) in [
        ("{fun m:f/1}", "an external function"),
        (
            "#Port<a@h,268435456,1>",
            "a port with a number of more than 28 bits",
        ),
        ("#Opaque<430000000000770161770162>", "an opaque term"),
    ] {
        assert_eq!(
            RawTerm::try_from(&erl(text)),
            Err(ConversionError { what }),
            "{text}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels| (0..levels).fold(Term::atom("x"), |inner, _| Term::list([inner]));
    let raw = RawTerm::try_from(&nested(128)).unwrap();
    assert_eq!(Term::try_from(&raw), Ok(nested(128)));
    let what = "a term of more than 128 levels";
    assert_eq!(
        RawTerm::try_from(&nested(129)),
        Err(ConversionError { what })
    );
}

#[test]
fn each_refusal_towards_term() {
    let atom = || Box::new(RawTerm::SmallAtom("a".into()));
    let nil = || Box::new(RawTerm::Nil);
    let deep = (0..200).fold(RawTerm::Nil, |inner, _| RawTerm::List(vec![inner]));
    let cases = [
        (RawTerm::Improper(nil()), "a tail that does not end a list"),
        (
            RawTerm::NewPort {
                node: nil(),
                id: 1,
                creation: 1,
            },
            "a node or module that is not an atom",
        ),
        (
            RawTerm::Function {
                size: 0,
                arity: 0,
                uniq: [0; 16],
                index: 0,
                module: atom(),
                old_index: nil(),
                old_uniq: nil(),
                pid: atom(),
                free_var: vec![],
            },
            "a fun whose pid is not a pid",
        ),
        (
            RawTerm::Atom("x".repeat(256)),
            "an atom of more than 255 characters",
        ),
        (
            RawTerm::Float(f64::NAN.into()),
            "a float that is not finite",
        ),
        (
            RawTerm::NewerRef {
                node: atom(),
                id: vec![0; 6],
                creation: 1,
            },
            "a reference without words or with more than five",
        ),
        (
            RawTerm::BitBinary {
                binary: vec![],
                bit: 0,
                bits: 9,
            },
            "a bit string whose last byte has no bits or more than 8",
        ),
        (
            RawTerm::Map(vec![
                (RawTerm::Nil, RawTerm::Nil),
                (RawTerm::Nil, RawTerm::Nil),
            ]),
            "a map with the same key twice",
        ),
        (deep, "a term of more than 128 levels"),
    ];
    for (raw, what) in cases {
        assert_eq!(Term::try_from(&raw), Err(ConversionError { what }));
    }
}

#[test]
fn old_tags_become_the_terms_that_they_mean() {
    let node = || Box::new(RawTerm::AtomDeprecated("a@h".into()));
    for (raw, text) in [
        (RawTerm::AtomDeprecated("a".into()), "a"),
        (RawTerm::Int(5), "5"),
        (RawTerm::LargeTuple(vec![RawTerm::Nil]), "{[]}"),
        (
            RawTerm::Pid {
                node: node(),
                id: 1,
                serial: 2,
                creation: 3,
            },
            "#Pid<a@h,1,2,3>",
        ),
        (
            RawTerm::Ref {
                node: node(),
                id: vec![1, 2],
                creation: 3,
            },
            "#Ref<a@h,3,1,2>",
        ),
    ] {
        assert_eq!(Term::try_from(&raw), Ok(erl(text)), "{text}");
    }
}

/// Bytes that both read say the same term to both.
fn second_opinion(name: &str, bytes: &[u8]) -> bool {
    let Ok(ours) = decode(&Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    let Ok(raw) = RawTerm::from_bytes(bytes) else {
        return false;
    };
    let theirs = Term::try_from(&raw).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(theirs, ours, "{name}");
    let again = RawTerm::try_from(&ours).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(Term::try_from(&again), Ok(ours), "{name}");
    true
}

#[test]
fn a_second_opinion_on_the_terms_of_otp() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/terms");
    let mut agreed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The other codec panics on some of the bytes that OTP refuses, and on atoms that are not UTF-8.
        let unfit =
            name.starts_with("reject_") || name.contains("latin1") || name.contains("sign_2");
        if name.ends_with(".etf") && !unfit {
            agreed += usize::from(second_opinion(&name, &std::fs::read(path).unwrap()));
        }
    }
    assert!(agreed > 100, "only {agreed}");
}

proptest! {
    #[test]
    fn any_term_passes_both_ways_or_is_refused(term in any_term()) {
        let has_no_equal = contains(&term, &|term| match term {
            Term::Export(_) => true,
            Term::Port(port) => port.id >= 1 << 28,
            _ => false,
        });
        let raw = RawTerm::try_from(&term);
        prop_assert_eq!(raw.is_err(), has_no_equal);
        if let Ok(raw) = raw {
            prop_assert_eq!(Term::try_from(&raw), Ok(term));
        }
    }

    #[test]
    fn a_second_opinion_on_any_term(term in any_term()) {
        second_opinion("random", &bytes_of(&term));
    }
}
