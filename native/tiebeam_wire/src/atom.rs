//! Atoms: names of at most 255 characters, interned up to a bound.
//!
//! The BEAM never frees an atom, and a peer that keeps inventing names can exhaust it. Here the first
//! [`INTERNED_MAX`] names are interned (compared by address, cloned for free, never freed); names beyond the bound
//! are reference counted and freed like any other value. Both kinds compare, order and hash alike.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, OnceLock, PoisonError};

use arcstr::ArcStr;

/// How many names are interned. A large cluster's code uses some ten thousand atoms; 65,536 leaves room, and at
/// most 1,020 bytes each they can hold 64 MiB at the very worst.
pub const INTERNED_MAX: usize = 65_536;

/// The longest atom, in characters (not bytes): OTP's own limit.
pub const CHARACTERS_MAX: usize = 255;

/// An Erlang atom.
#[derive(Clone)]
pub struct Atom(
    /// Static if and only if it is interned.
    ArcStr,
);

/// The text is longer than [`CHARACTERS_MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtomTooLong {
    /// How many characters it has.
    pub characters: usize,
}

impl fmt::Display for AtomTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an atom has at most {CHARACTERS_MAX} characters, this text has {}",
            self.characters
        )
    }
}

impl std::error::Error for AtomTooLong {}

impl Atom {
    /// The atom with this text.
    pub fn new(text: &str) -> Result<Self, AtomTooLong> {
        // A text of at most 255 bytes cannot have more characters than that: the common case needs no count.
        if text.len() > CHARACTERS_MAX {
            let characters = text.chars().count();
            if characters > CHARACTERS_MAX {
                return Err(AtomTooLong { characters });
            }
        }
        Ok(intern(text))
    }

    /// The atom with this text, for literals in code.
    ///
    /// # Panics
    /// When the text has more than 255 characters.
    pub fn of(text: &'static str) -> Self {
        Self::new(text).expect("a literal atom has at most 255 characters")
    }

    /// The atom with this text, unless it is not UTF-8 or too long.
    pub(crate) fn from_utf8(text: &[u8]) -> Option<Self> {
        // What is found is known to be well-formed.
        if let Some(atom) = Self::recent(text) {
            return Some(atom);
        }
        Self::new(std::str::from_utf8(text).ok()?).ok()
    }

    /// The interned atom with this text, if it was used lately.
    #[inline]
    pub(crate) fn recent(text: &[u8]) -> Option<Self> {
        let digest = digest(text);
        RECENT.with_borrow(|recent| {
            let (theirs, atom) = recent[cache_slot(digest, text.len())].as_ref()?;
            let known = atom.as_str().as_bytes();
            let same = *theirs == digest
                && known.len() == text.len()
                && (text.len() <= DIGESTED_MAX || known == text);
            same.then(|| atom.clone())
        })
    }

    /// Its text, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Entries of the cache in front of the table: names come in runs, and a hit takes no lock.
const CACHE: usize = 1024;

thread_local! {
    /// Interned atoms by their [`digest`], which stands beside them.
    static RECENT: RefCell<[Option<(u64, Atom)>; CACHE]> =
        const { RefCell::new([const { None }; CACHE]) };
}

/// The longest text that its length and its digest tell apart from all others.
const DIGESTED_MAX: usize = 8;

/// Eight bytes of a text: all of a short one.
#[inline]
fn digest(text: &[u8]) -> u64 {
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    if let Some(last) = text.last_chunk() {
        u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        half(first) | half(last) << 32
    } else if let (Some(first), Some(last)) = (text.first(), text.last()) {
        let middle = text[text.len() / 2];
        u64::from(*first) | u64::from(middle) << 8 | u64::from(*last) << 16
    } else {
        0
    }
}

#[inline]
fn cache_slot(digest: u64, len: usize) -> usize {
    let mixed = (digest ^ (len as u64) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 54) as usize % CACHE
}

fn intern(text: &str) -> Atom {
    if let Some(atom) = Atom::recent(text.as_bytes()) {
        return atom;
    }
    match intern_in_table(text) {
        Some(atom) => {
            let digest = digest(text.as_bytes());
            RECENT.with_borrow_mut(|recent| {
                recent[cache_slot(digest, text.len())] = Some((digest, atom.clone()));
            });
            atom
        }
        None => Atom(text.into()),
    }
}

/// An interned atom, found by its text.
struct ByText(Atom);

impl PartialEq for ByText {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
impl Eq for ByText {}
impl Hash for ByText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}
impl std::borrow::Borrow<str> for ByText {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

fn intern_in_table(text: &str) -> Option<Atom> {
    static TABLE: OnceLock<Mutex<HashSet<ByText>>> = OnceLock::new();
    let table = TABLE.get_or_init(Mutex::default);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = table.get(text) {
        return Some(found.0.clone());
    }
    if table.len() >= INTERNED_MAX {
        return None;
    }
    let text = ArcStr::from(text);
    ArcStr::leak(&text);
    table.insert(ByText(Atom(text.clone())));
    Some(Atom(text))
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        let are_interned = || ArcStr::is_static(&self.0) && ArcStr::is_static(&other.0);
        ArcStr::ptr_eq(&self.0, &other.0) || (!are_interned() && self.0 == other.0)
    }
}

impl Eq for Atom {}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Atom {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// The order of Erlang's atoms: by the bytes of their UTF-8 text.
impl Ord for Atom {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().as_bytes().cmp(other.as_str().as_bytes())
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The bare text. The quoted form of Erlang source is [`Term`](crate::Term)'s display.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_is_the_same_atom() {
        let built: String = ["no", "de"].concat();
        assert_eq!(Atom::new(&built).unwrap(), Atom::of("node"));
        assert_ne!(Atom::of("node"), Atom::of("nodes"));
    }

    #[test]
    fn texts_that_share_most_bytes_are_different_atoms() {
        let texts = [
            "",
            "a",
            "b",
            "aa",
            "ab",
            "ba",
            "aba",
            "abb",
            "aab",
            "abcd",
            "abcde",
            "abcdde",
            "abccde",
            "abcdefg",
            "abcddefg",
            "abcdefgh",
            "xabcdefgh",
            "yabcdefgh",
            "abcdefghabcdefgh",
            "zabcdefghabcdefgh",
        ];
        for _ in 0..2 {
            for text in texts {
                assert_eq!(Atom::of(text).as_str(), text);
                assert_eq!(Atom::from_utf8(text.as_bytes()).unwrap().as_str(), text);
            }
        }
    }

    #[test]
    fn the_limit_counts_characters_not_bytes() {
        let emoji = "😀".repeat(255);
        assert_eq!(emoji.len(), 1020);
        assert_eq!(Atom::new(&emoji).unwrap().as_str(), emoji);
        assert_eq!(
            Atom::new(&"x".repeat(256)),
            Err(AtomTooLong { characters: 256 })
        );
    }

    #[test]
    fn a_counted_atom_equals_the_interned_one() {
        let counted = Atom("counted".into());
        assert_eq!(counted, Atom::of("counted"));
    }

    #[test]
    fn the_order_is_that_of_bytes() {
        assert!(Atom::of("B@h") < Atom::of("a@h"));
        assert!(Atom::of("a@h") < Atom::of("z@h"));
    }
}
