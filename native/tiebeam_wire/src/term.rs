//! Terms: what Erlang processes send each other.
//!
//! A [`Term`] owns its data. Binaries longer than a few words are views into the packet they came in ([`Binary`]),
//! so receiving a megabyte copies nothing. Equality and hashing are exact, as Erlang's `=:=`: `1` is not `1.0`, and
//! maps compare without regard to the order of their pairs. `0.0` is not `-0.0`, as since OTP 27: older releases
//! refuse a map that has both as keys.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use num_bigint::BigInt;

use crate::atom::Atom;

/// An Erlang term.
///
/// Cloning, comparing, hashing, printing, encoding and dropping a term recurse into it. A decoded term nests no
/// deeper than [`Limits::depth`](crate::Limits), which every thread's stack has room for; code that builds terms must
/// keep to that too.
#[derive(Clone)]
pub enum Term {
    /// An integer of 64 bits.
    Integer(i64),
    /// An integer that does not fit 64 bits. Build it with `Term::from(BigInt)`, which keeps this rule.
    Big(Box<BigInt>),
    /// A finite float.
    Float(f64),
    /// An atom.
    Atom(Atom),
    /// A binary: whole bytes.
    Binary(Binary),
    /// A bit string whose length is not a multiple of eight.
    BitString(Box<BitString>),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A proper list; `[]` is the empty one.
    List(Vec<Term>),
    /// A list whose tail is not a list, such as the `[alias|Ref]` of a call.
    Improper(Box<Improper>),
    /// A map.
    Map(Map),
    /// A process.
    Pid(Pid),
    /// A port.
    Port(Port),
    /// A reference.
    Reference(Reference),
    /// A closure: data that can be kept and sent back, not run.
    Fun(Box<Fun>),
    /// An external function, `fun M:F/A`.
    Export(Box<Export>),
    /// A term that is kept as bytes: see [`Opaque`].
    Opaque(Opaque),
}

/// Whole bytes: short ones are stored in place, longer ones are a shared view of the bytes they came in.
///
/// Copying a short binary costs less than counting a reference, and does not keep a whole packet alive for the sake
/// of a few bytes (the BEAM draws the same line between heap and reference-counted binaries).
#[derive(Clone)]
pub struct Binary(Storage);

/// The longest binary that is stored in place: as much as a [`Term`] has room for.
pub const INLINE_MAX: usize = 22;

#[derive(Clone)]
enum Storage {
    Inline {
        len: u8,
        bytes: [u8; INLINE_MAX],
    },
    /// Part of a packet. All binaries of a packet count references to one owner; that, and offsets of 32 bits, keep
    /// a term at four words.
    Shared {
        owner: Arc<Bytes>,
        at: u32,
        len: u32,
    },
}

impl Binary {
    /// A view of these bytes, or a copy where they are few.
    ///
    /// # Panics
    /// With 2^32 or more bytes, which the external term format cannot say.
    pub fn new(bytes: Bytes) -> Self {
        if bytes.len() <= INLINE_MAX {
            return Self::copy(&bytes);
        }
        let len = u32::try_from(bytes.len()).expect("a binary has fewer than 2^32 bytes");
        Self(Storage::Shared {
            owner: Arc::new(bytes),
            at: 0,
            len,
        })
    }

    /// A view of a part of a packet, or a copy where it is short.
    pub(crate) fn part(owner: &Arc<Bytes>, range: Range<usize>) -> Self {
        if range.len() <= INLINE_MAX {
            return Self::copy(&owner[range]);
        }
        match (u32::try_from(range.start), u32::try_from(range.len())) {
            (Ok(at), Ok(len)) => Self(Storage::Shared {
                owner: Arc::clone(owner),
                at,
                len,
            }),
            _ => Self::new(owner.slice(range)),
        }
    }

    /// A copy of these bytes.
    pub fn copy(slice: &[u8]) -> Self {
        if slice.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..slice.len()].copy_from_slice(slice);
            Self(Storage::Inline {
                len: slice.len() as u8,
                bytes,
            })
        } else {
            Self::new(Bytes::copy_from_slice(slice))
        }
    }

    /// The first bytes of these, if so few fit in place. Copying all of them at once takes two instructions.
    #[inline]
    pub(crate) fn start_of(bytes: &[u8; INLINE_MAX], len: usize) -> Option<Self> {
        let bytes = *bytes;
        (len <= INLINE_MAX).then_some(Self(Storage::Inline {
            len: len as u8,
            bytes,
        }))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Storage::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Storage::Shared { owner, at, len } => &owner[*at as usize..][..*len as usize],
        }
    }

    /// The bytes as a shared buffer; copies only short ones.
    pub fn into_bytes(self) -> Bytes {
        match &self.0 {
            Storage::Inline { len, bytes } => Bytes::copy_from_slice(&bytes[..usize::from(*len)]),
            Storage::Shared { owner, at, len } => {
                owner.slice(*at as usize..*at as usize + *len as usize)
            }
        }
    }
}

impl Deref for Binary {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Binary {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for Binary {}

impl Hash for Binary {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}
impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Bytes::from(bytes))
    }
}
impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Self::copy(bytes)
    }
}
impl From<&str> for Binary {
    fn from(text: &str) -> Self {
        Self::copy(text.as_bytes())
    }
}

/// A bit string whose last byte is not full.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BitString {
    /// The bytes; the unused low bits of the last one are zero.
    pub bytes: Binary,
    /// How many bits of the last byte count, from the top: 1 to 7.
    pub bits: u8,
}

impl BitString {
    /// A bit string of these bytes, with the first `bits` bits of the last one; the others are set to zero. With all
    /// 8 bits, or without a byte, it is a binary, and given back.
    ///
    /// # Panics
    /// When `bits` is not 1 to 8.
    pub fn new(bytes: Binary, bits: u8) -> Result<Self, Binary> {
        assert!((1..=8).contains(&bits), "the last byte has 1 to 8 bits");
        let Some((last, _)) = bytes.split_last().filter(|_| bits < 8) else {
            return Err(bytes);
        };
        let kept = last & 0xff << (8 - bits);
        if kept == *last {
            return Ok(Self { bytes, bits });
        }
        let mut owned = bytes.to_vec();
        if let Some(last) = owned.last_mut() {
            *last = kept;
        }
        Ok(Self {
            bytes: owned.into(),
            bits,
        })
    }
}

/// A list whose tail is not a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Improper {
    /// The elements before the tail; at least one.
    pub elements: Vec<Term>,
    /// The tail; not a list.
    pub tail: Term,
}

/// A map: pairs in the order in which they came, each key once.
#[derive(Clone, Default)]
pub struct Map(
    /// Keys and values in turn.
    pub(crate) Vec<Term>,
);

/// The most pairs that are searched one by one; larger maps are hashed to be compared.
const FEW_PAIRS: usize = 12;

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty map with room for so many pairs.
    pub fn with_capacity(pairs: usize) -> Self {
        Self(Vec::with_capacity(pairs.saturating_mul(2)))
    }

    /// The value under this key. Takes time proportional to the size of the map.
    pub fn get(&self, key: &Term) -> Option<&Term> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The value under the atom with this text. Takes time proportional to the size of the map.
    pub fn get_atom(&self, text: &str) -> Option<&Term> {
        self.iter().find(|(k, _)| k.is_atom(text)).map(|(_, v)| v)
    }

    /// Puts a value under a key and returns the one that was there. Takes time proportional to the size of the map;
    /// [`collect`](Iterator::collect) builds large ones at once.
    pub fn insert(&mut self, key: Term, value: Term) -> Option<Term> {
        match self.0.chunks_exact_mut(2).find(|pair| pair[0] == key) {
            Some(pair) => Some(std::mem::replace(&mut pair[1], value)),
            None => {
                self.0.extend([key, value]);
                None
            }
        }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Whether it has no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs, in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Term, &Term)> + Clone {
        self.0.chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
    }

    /// The pairs, in the order in which they came.
    pub fn into_pairs(self) -> Vec<(Term, Term)> {
        let mut items = self.0.into_iter();
        std::iter::from_fn(|| items.next().zip(items.next())).collect()
    }

    /// Whether no key appears twice. Keys come from peers: large maps are hashed with a secret seed, so that no
    /// choice of keys makes this quadratic.
    pub(crate) fn has_distinct_keys(&self) -> bool {
        let mut keys = self.iter().map(|(key, _)| key);
        let next = self.iter().skip(1).map(|(key, _)| key);
        if keys
            .clone()
            .zip(next)
            .all(|(key, next)| key.comes_before(next))
        {
            return true;
        }
        if self.len() <= FEW_PAIRS {
            let rest = keys.clone();
            return keys
                .enumerate()
                .all(|(i, key)| rest.clone().take(i).all(|other| other != key));
        }
        let mut seen = HashSet::with_capacity(self.len());
        keys.all(|key| seen.insert(key))
    }
}

/// Later pairs replace earlier ones with an equal key.
impl FromIterator<(Term, Term)> for Map {
    fn from_iter<I: IntoIterator<Item = (Term, Term)>>(pairs: I) -> Self {
        let map = Self(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect());
        if map.has_distinct_keys() {
            return map;
        }
        // The place is that of the first pair, the value that of the last.
        let mut values: HashMap<Term, (usize, Term)> = HashMap::new();
        for (at, (key, value)) in map.into_pairs().into_iter().enumerate() {
            let first = values.get(&key).map_or(at, |(first, _)| *first);
            values.insert(key, (first, value));
        }
        let mut pairs: Vec<_> = values.into_iter().collect();
        pairs.sort_unstable_by_key(|(_, (at, _))| *at);
        Self(pairs.into_iter().flat_map(|(k, (_, v))| [k, v]).collect())
    }
}

/// A process: of one incarnation (`creation`) of one node.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pid {
    /// The node's name.
    pub node: Atom,
    /// The number of the process.
    pub id: u32,
    /// Continues `id` after it wraps.
    pub serial: u32,
    /// The incarnation of the node.
    pub creation: u32,
}

/// Erlang's order of processes: serial, then id, then node name, then creation.
impl Ord for Pid {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.serial, self.id, &self.node, self.creation).cmp(&(
            other.serial,
            other.id,
            &other.node,
            other.creation,
        ))
    }
}

impl PartialOrd for Pid {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Unlike Erlang's `<0.1.2>`, whose first number means something on one node only, this names the node.
impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}.{}.{}>", self.node, self.id, self.serial)
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// The node's name.
    pub node: Atom,
    /// The number of the port.
    pub id: u64,
    /// The incarnation of the node.
    pub creation: u32,
}

/// The most words a reference has (OTP's `V4_NC`).
pub const REFERENCE_WORDS_MAX: usize = 5;

/// A reference: unique in the cluster.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference(Arc<ReferenceParts>);

#[derive(PartialEq, Eq, Hash)]
struct ReferenceParts {
    node: Atom,
    creation: u32,
    len: u8,
    words: [u32; REFERENCE_WORDS_MAX],
}

impl Reference {
    /// A reference with one to five words.
    ///
    /// # Panics
    /// With no words or more than five.
    pub fn new(node: Atom, creation: u32, words: &[u32]) -> Self {
        assert!(
            (1..=REFERENCE_WORDS_MAX).contains(&words.len()),
            "a reference has one to five words"
        );
        let mut all = [0; REFERENCE_WORDS_MAX];
        all[..words.len()].copy_from_slice(words);
        Self::with_words(node, creation, all, words.len() as u8)
    }

    /// A reference of the first `len` words; the others are zero.
    pub(crate) fn with_words(
        node: Atom,
        creation: u32,
        words: [u32; REFERENCE_WORDS_MAX],
        len: u8,
    ) -> Self {
        Self(Arc::new(ReferenceParts {
            node,
            creation,
            len,
            words,
        }))
    }

    /// The name of the node that made it.
    pub fn node(&self) -> &Atom {
        &self.0.node
    }

    /// The incarnation of that node.
    pub fn creation(&self) -> u32 {
        self.0.creation
    }

    /// Its words, in the order of the wire.
    pub fn words(&self) -> &[u32] {
        &self.0.words[..usize::from(self.0.len)]
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#Ref<{}", self.node())?;
        for word in self.words() {
            write!(f, ".{word}")?;
        }
        write!(f, ">")
    }
}

/// A closure of a BEAM module. It cannot run here; kept whole, it can be sent back.
///
/// Equal closures have the same code and the same free variables, as in Erlang: who made them does not matter.
#[derive(Clone, Debug)]
pub struct Fun {
    /// The number of its arguments.
    pub arity: u8,
    /// The digest of its module.
    pub uniq: [u8; 16],
    /// Its number in its module.
    pub index: u32,
    /// Its module.
    pub module: Atom,
    /// The number in the old numbering; a small integer.
    pub old_index: Term,
    /// The digest in the old numbering; an integer.
    pub old_uniq: Term,
    /// The process that made it.
    pub pid: Pid,
    /// Its free variables.
    pub free: Vec<Term>,
}

impl PartialEq for Fun {
    fn eq(&self, other: &Self) -> bool {
        (&self.module, self.index, &self.uniq) == (&other.module, other.index, &other.uniq)
            && self.free == other.free
    }
}
impl Eq for Fun {}

impl Hash for Fun {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.module, self.index, &self.uniq, &self.free).hash(state);
    }
}

/// An external function, `fun Module:Function/Arity`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Export {
    /// The module.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// The number of its arguments.
    pub arity: u32,
}

/// A term that is kept as its bytes, to be sent on unchanged: a native record (OTP 29), a node-local term, or what
/// exceeds the [`Limits`](crate::Limits) of the decoder. Its form is checked, down to the UTF-8 of its atoms, but
/// not whether the keys of its maps differ. Compared by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opaque(pub(crate) Arc<Bytes>);

impl Opaque {
    /// The encoded term: a tag and what follows, without the version byte, valid in any packet.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Term {
    /// The atom with this text, for literals in code. See [`Atom::of`].
    pub fn atom(text: &'static str) -> Self {
        Self::Atom(Atom::of(text))
    }

    /// A tuple.
    pub fn tuple(elements: impl Into<Vec<Term>>) -> Self {
        Self::Tuple(elements.into())
    }

    /// A list.
    pub fn list(elements: impl Into<Vec<Term>>) -> Self {
        Self::List(elements.into())
    }

    /// A binary with a copy of these bytes.
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::Binary(Binary::copy(bytes.as_ref()))
    }

    /// A charlist: the text's code points as a list of integers.
    pub fn charlist(text: &str) -> Self {
        Self::List(
            text.chars()
                .map(|c| Self::Integer(i64::from(u32::from(c))))
                .collect(),
        )
    }

    /// A list with this tail: a proper list if the tail is one, the tail itself without elements.
    pub fn cons(mut elements: Vec<Term>, tail: Term) -> Self {
        match tail {
            tail if elements.is_empty() => tail,
            Self::List(rest) => {
                elements.extend(rest);
                Self::List(elements)
            }
            Self::Improper(rest) => {
                elements.extend(rest.elements);
                Self::cons(elements, rest.tail)
            }
            tail => Self::Improper(Box::new(Improper { elements, tail })),
        }
    }

    /// Whether this comes before the other in an order of the terms that are mostly keys. OTP sends the keys of
    /// small maps in order, and then comparing neighbours proves that all differ.
    fn comes_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a < b,
            (Self::Atom(a), Self::Atom(b)) => a < b,
            (Self::Binary(a), Self::Binary(b)) => a.as_slice() < b.as_slice(),
            (Self::Integer(_), Self::Atom(_) | Self::Binary(_))
            | (Self::Atom(_), Self::Binary(_)) => true,
            _ => false,
        }
    }

    /// The atom, if it is one.
    pub fn as_atom(&self) -> Option<&Atom> {
        if let Self::Atom(atom) = self {
            Some(atom)
        } else {
            None
        }
    }

    /// Whether it is the atom with this text.
    pub fn is_atom(&self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| atom.as_str() == text)
    }

    /// The integer, if it is one of 64 bits.
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(integer) = self {
            Some(*integer)
        } else {
            None
        }
    }

    /// The process, if it is one.
    pub fn as_pid(&self) -> Option<&Pid> {
        if let Self::Pid(pid) = self {
            Some(pid)
        } else {
            None
        }
    }

    /// The reference, if it is one.
    pub fn as_reference(&self) -> Option<&Reference> {
        if let Self::Reference(reference) = self {
            Some(reference)
        } else {
            None
        }
    }

    /// The elements, if it is a tuple.
    pub fn as_tuple(&self) -> Option<&[Term]> {
        if let Self::Tuple(elements) = self {
            Some(elements)
        } else {
            None
        }
    }

    /// The elements, if it is a proper list.
    pub fn as_list(&self) -> Option<&[Term]> {
        if let Self::List(elements) = self {
            Some(elements)
        } else {
            None
        }
    }

    /// The bytes, if it is a binary.
    pub fn as_binary(&self) -> Option<&Binary> {
        if let Self::Binary(binary) = self {
            Some(binary)
        } else {
            None
        }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self {
            Some(map)
        } else {
            None
        }
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        // Maps of one sender usually come in one order: compare in step for as long as the keys agree. Where they
        // do, their values decide; nothing is compared again, or nested maps would take exponential time.
        let mut pairs = self.iter().zip(other.iter());
        let same = |((k1, _), (k2, _)): &((&Term, &Term), (&Term, &Term))| k1 == k2;
        let mut agreed = 0;
        for pair in pairs.by_ref() {
            if !same(&pair) {
                break;
            }
            let ((_, v1), (_, v2)) = pair;
            if v1 != v2 {
                return false;
            }
            agreed += 1;
        }
        if agreed == self.len() {
            return true;
        }
        let index: HashMap<&Term, &Term> = other.iter().skip(agreed).collect();
        self.iter()
            .skip(agreed)
            .all(|(key, value)| index.get(key).is_some_and(|found| *found == value))
    }
}
impl Eq for Map {}

impl Hash for Map {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The sum does not depend on the order of the pairs.
        let mut sum = 0u64;
        for pair in self.iter() {
            let mut hasher = std::hash::DefaultHasher::new();
            pair.hash(&mut hasher);
            sum = sum.wrapping_add(hasher.finish());
        }
        state.write_usize(self.len());
        state.write_u64(sum);
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Big(a), Self::Big(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Atom(a), Self::Atom(b)) => a == b,
            (Self::Binary(a), Self::Binary(b)) => a == b,
            (Self::BitString(a), Self::BitString(b)) => a == b,
            (Self::Tuple(a), Self::Tuple(b)) | (Self::List(a), Self::List(b)) => a == b,
            (Self::Improper(a), Self::Improper(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Pid(a), Self::Pid(b)) => a == b,
            (Self::Port(a), Self::Port(b)) => a == b,
            (Self::Reference(a), Self::Reference(b)) => a == b,
            (Self::Fun(a), Self::Fun(b)) => a == b,
            (Self::Export(a), Self::Export(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            _ => false,
        }
    }
}
impl Eq for Term {}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Integer(a) => a.hash(state),
            Self::Big(a) => a.hash(state),
            Self::Float(a) => a.to_bits().hash(state),
            Self::Atom(a) => a.hash(state),
            Self::Binary(a) => a.hash(state),
            Self::BitString(a) => a.hash(state),
            Self::Tuple(a) | Self::List(a) => a.hash(state),
            Self::Improper(a) => a.hash(state),
            Self::Map(a) => a.hash(state),
            Self::Pid(a) => a.hash(state),
            Self::Port(a) => a.hash(state),
            Self::Reference(a) => a.hash(state),
            Self::Fun(a) => a.hash(state),
            Self::Export(a) => a.hash(state),
            Self::Opaque(a) => a.hash(state),
        }
    }
}

impl From<i64> for Term {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}
impl From<i32> for Term {
    fn from(integer: i32) -> Self {
        Self::Integer(i64::from(integer))
    }
}
impl From<u32> for Term {
    fn from(integer: u32) -> Self {
        Self::Integer(i64::from(integer))
    }
}
impl From<u64> for Term {
    fn from(integer: u64) -> Self {
        i64::try_from(integer).map_or_else(|_| Self::Big(Box::new(integer.into())), Self::Integer)
    }
}
impl From<BigInt> for Term {
    fn from(integer: BigInt) -> Self {
        i64::try_from(&integer).map_or_else(|_| Self::Big(Box::new(integer)), Self::Integer)
    }
}
impl From<f64> for Term {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}
impl From<bool> for Term {
    fn from(value: bool) -> Self {
        Self::Atom(Atom::of(if value { "true" } else { "false" }))
    }
}
impl From<Atom> for Term {
    fn from(atom: Atom) -> Self {
        Self::Atom(atom)
    }
}
impl From<Pid> for Term {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}
impl From<&Pid> for Term {
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}
impl From<Reference> for Term {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference)
    }
}
impl From<&Reference> for Term {
    fn from(reference: &Reference) -> Self {
        Self::Reference(reference.clone())
    }
}
impl From<Binary> for Term {
    fn from(binary: Binary) -> Self {
        Self::Binary(binary)
    }
}
impl From<Bytes> for Term {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(Binary::new(bytes))
    }
}
/// A text becomes a UTF-8 binary, as an Elixir string is.
impl From<&str> for Term {
    fn from(text: &str) -> Self {
        Self::Binary(text.into())
    }
}
/// A text becomes a UTF-8 binary, as an Elixir string is.
impl From<String> for Term {
    fn from(text: String) -> Self {
        Self::Binary(text.into_bytes().into())
    }
}
impl From<Vec<Term>> for Term {
    fn from(elements: Vec<Term>) -> Self {
        Self::List(elements)
    }
}
impl From<Map> for Term {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}
