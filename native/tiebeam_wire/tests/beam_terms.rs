//! Random terms through a real BEAM: it reads every one, and what it writes back is the same term.
//!
//! Needs `erl`; says so and passes where there is none.
#![allow(
    clippy::disallowed_methods,
    reason = "a test that talks to another program uses files"
)]

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tiebeam_wire::Term;
use tiebeam_wire::decode::decode;
use tiebeam_wire::encode::encode;

mod support;
use support::{any_term, contains};

const TERMS: usize = 2000;

/// Answers each term with the BEAM's own bytes for it, and with none where it refuses it.
const ECHO: &str = "
    [In, Out] = init:get_plain_arguments(),
    {ok, Terms} = file:read_file(In),
    Echo = fun Echo(<<>>) -> [];
               Echo(<<Len:32, Term:Len/binary, Rest/binary>>) ->
        Answer = try term_to_binary(binary_to_term(Term), [{minor_version, 2}]) catch _:_ -> <<>> end,
        [<<(byte_size(Answer)):32>>, Answer | Echo(Rest)]
    end,
    ok = file:write_file(Out, Echo(Terms)),
    halt().";

#[test]
fn a_beam_agrees_on_random_terms() {
    if Command::new("erl").arg("-version").output().is_err() {
        eprintln!("skipped: no erl here; Debian has it in erlang-base");
        return;
    }
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => RandomState::new().hash_one("seed"),
    };
    eprintln!("replay with SEED={seed} cargo test -p tiebeam_wire --test beam_terms");
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &u128::from(seed | 1).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let terms: Vec<Term> = (0..TERMS)
        .map(|_| any_term().new_tree(&mut runner).unwrap().current())
        // Two keys for us and OTP 27, one for the releases before.
        .filter(|term| !contains(term, &|term| *term == Term::Float(-0.0)))
        .collect();
    assert!(terms.len() > TERMS / 2);

    let answers = echo(&terms);
    for (term, answer) in terms.iter().zip(&answers) {
        assert!(!answer.is_empty(), "the BEAM refuses {term}");
        assert_eq!(decode(answer).as_ref(), Ok(term));
    }
    assert_eq!(answers.len(), terms.len());
}

fn echo(terms: &[Term]) -> Vec<Bytes> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (question, answer) = (folder.join("terms.in"), folder.join("terms.out"));
    let mut bytes = Vec::new();
    for term in terms {
        let start = bytes.len();
        bytes.extend([0; 4]);
        encode(term, &mut bytes);
        let len = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }
    std::fs::write(&question, bytes).unwrap();
    let status = Command::new("erl")
        .args(["-noshell", "-eval", ECHO, "-extra"])
        .args([&question, &answer])
        .status();
    assert!(status.unwrap().success());
    let mut bytes = Bytes::from(std::fs::read(answer).unwrap());
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let len = bytes.split_to(4);
        let len = u32::from_be_bytes(len[..].try_into().unwrap());
        answers.push(bytes.split_to(len as usize));
    }
    answers
}
