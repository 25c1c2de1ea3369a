//! Where the golden bytes are: those of OTP 25, and beside them what other releases do otherwise; see `vectors/README.md`.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

/// The release that is first among [`folders`], and whose bytes are complete.
pub(crate) const FIRST: &str = "otp25";

/// A folder for each release, with the release's name: `otp25`, `otp27`, `otp29`.
pub(crate) fn folders() -> Vec<(String, PathBuf)> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut folders = vec![(FIRST.to_owned(), vectors.clone())];
    for entry in std::fs::read_dir(vectors).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("otp") {
            folders.push((name, entry.path()));
        }
    }
    folders.sort();
    assert!(folders.len() >= 3, "{folders:?}");
    folders
}

pub(crate) fn bytes_of_hex(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}
