//! Terms that a real OTP release wrote, refused, or read and would write differently; see `vectors/README.md`.
#![allow(clippy::disallowed_methods, reason = "tests read the vectors")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tiebeam_wire::encode::encode;
use tiebeam_wire::{Decoder, Limits, Term, decode::decode};

mod releases;

struct Vector {
    kind: String,
    /// Its release and its name.
    file: String,
    bytes: Bytes,
    /// As OTP writes the same term.
    canonical: Option<Vec<u8>>,
    text: String,
}

fn vectors() -> Vec<Vector> {
    let of_release = |(release, folder): (String, PathBuf)| of(&release, &folder.join("terms"));
    releases::folders()
        .into_iter()
        .flat_map(of_release)
        .collect()
}

fn of(release: &str, folder: &Path) -> Vec<Vector> {
    let manifest = std::fs::read_to_string(folder.join("manifest.txt")).unwrap();
    manifest
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let [kind, file, canonical, text] = line.splitn(4, '\t').collect::<Vec<_>>()[..] else {
                panic!("not four columns: {line}")
            };
            let bytes = Bytes::from(std::fs::read(folder.join(file)).unwrap());
            let canonical = match canonical {
                "=" => Some(bytes.to_vec()),
                "-" => None,
                hex => Some(releases::bytes_of_hex(hex)),
            };
            Vector {
                kind: kind.into(),
                file: format!("{release}/{file}"),
                bytes,
                canonical,
                text: text.into(),
            }
        })
        .collect()
}

fn bytes_of(term: &Term) -> Vec<u8> {
    let mut out = Vec::new();
    encode(term, &mut out);
    out
}

/// Reads one term and leaves what follows it alone, as `binary_to_term/1` does.
fn read(vector: &Vector) -> Term {
    let limits = Limits::default();
    let mut decoder = Decoder::new(&vector.bytes, 0, &limits);
    decoder
        .version()
        .and_then(|()| decoder.term())
        .unwrap_or_else(|error| panic!("{}: {error}", vector.file))
}

/// Since OTP 26 all ports have the wide form; ours is the form of OTP 25, which all releases read.
fn is_wide_port(term: &Term, canonical: &[u8]) -> bool {
    canonical[1] == 120 && matches!(term, Term::Port(port) if port.id < 1 << 28)
}

#[test]
fn every_term_of_otp_is_read_and_written_as_otp_writes_it() {
    let mut count = 0;
    for vector in vectors().iter().filter(|vector| vector.kind != "reject") {
        let term = read(vector);
        let canonical = vector.canonical.as_deref().unwrap();
        // The order of a map's pairs means nothing; ours is the sender's.
        let order = ["map_unsorted.etf", "map_40.etf"];
        let any_order = order.iter().any(|name| vector.file.ends_with(name));
        if !any_order && !is_wide_port(&term, canonical) {
            assert_eq!(bytes_of(&term), canonical, "{}: {term}", vector.file);
        }
        let again = decode(&Bytes::copy_from_slice(canonical)).unwrap();
        assert_eq!(again, term, "{}", vector.file);
        count += 1;
    }
    assert!(count > 130, "only {count} vectors");
}

#[test]
fn every_term_of_otp_is_the_term_that_its_text_says() {
    let (mut closures, mut records) = (0, 0);
    for vector in vectors().iter().filter(|vector| vector.kind != "reject") {
        let term = read(vector);
        if let Term::Fun(_) = term {
            assert_eq!(term.to_string(), vector.text, "{}", vector.file);
            closures += 1;
            continue;
        }
        // Kept as its bytes.
        if let Term::Opaque(_) = term {
            assert!(
                vector.file.ends_with("native_record.etf"),
                "{}",
                vector.file
            );
            records += 1;
            continue;
        }
        let text = Term::parse(&vector.text);
        assert_eq!(text, Ok(term.clone()), "{}", vector.file);
        assert_eq!(Term::parse(&term.to_string()), Ok(term), "{}", vector.file);
    }
    assert_eq!((closures, records), (9, 1));
}

#[test]
fn what_otp_refuses_is_refused() {
    let mut count = 0;
    for vector in vectors().iter().filter(|vector| vector.kind == "reject") {
        let read = decode(&vector.bytes);
        assert!(read.is_err(), "{}: {}", vector.file, read.unwrap());
        count += 1;
    }
    assert!(count > 40, "only {count} vectors");
}

#[test]
fn every_term_of_otp_can_be_kept_as_bytes() {
    let keep_all = Limits {
        depth: 0,
        terms: 0,
        ..Limits::default()
    };
    for vector in vectors().iter().filter(|vector| vector.kind == "encode") {
        let term = tiebeam_wire::decode::decode_with(&vector.bytes, &keep_all);
        let term = term.unwrap_or_else(|error| panic!("{}: {error}", vector.file));
        if !is_wide_port(&term, &vector.bytes) {
            assert_eq!(bytes_of(&term), vector.bytes, "{}", vector.file);
        }
    }
}
