//! The names that a registry takes, so that one name has one encoding on all nodes.
//!
//! A name is a term in the external term format, with the version byte, as `term_to_binary(Name, [{minor_version, 2}])` of
//! OTP 25 to 29 writes it. Names are compared byte for byte, so only terms that are written in one way alone are allowed:
//! atoms, UTF-8 binaries, integers, and tuples and proper lists of these. Floats, pids, maps, funs and the like are not.
//!
//! | term | must be written as |
//! |---|---|
//! | atom | `SMALL_ATOM_UTF8_EXT` up to 255 bytes, `ATOM_UTF8_EXT` above; at most 255 characters |
//! | binary | `BINARY_EXT`, valid UTF-8 |
//! | integer | 0 to 255 `SMALL_INTEGER_EXT`, 32 bits `INTEGER_EXT`, else `SMALL_BIG_EXT` without leading zeros |
//! | tuple | `SMALL_TUPLE_EXT` up to 255 elements, `LARGE_TUPLE_EXT` above |
//! | list | `NIL_EXT`; `STRING_EXT` when all elements are bytes; else `LIST_EXT` with the tail `NIL_EXT` |
//!
//! Source: the *External Term Format* chapter of the ERTS user's guide.

use alloc::vec::Vec;
use core::fmt;

use super::key::MAX_NAME_BYTES;

/// How deep tuples and lists in a name may be nested. People do not nest names deeper than three.
pub const MAX_NAME_DEPTH: usize = 16;

const VERSION: u8 = 131;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const SMALL_TUPLE: u8 = 104;
const LARGE_TUPLE: u8 = 105;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// Checks that `bytes` are the one encoding of a term that may be a name.
///
/// # Errors
///
/// The bytes are another term, or another encoding: [`NameError`] says why, and where.
pub fn check(bytes: &[u8]) -> Result<(), NameError> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(NameError {
            why: Why::Long { bytes: bytes.len() },
            at: MAX_NAME_BYTES,
        });
    }
    let mut input = Input {
        bytes,
        at: 0,
        last_was_byte: false,
    };
    if input.byte()? != VERSION {
        return Err(input.error_at(0, Why::Version));
    }
    // How many elements are left in each tuple or list around the next term; lists end with a nil of their own.
    let mut open: Vec<Open> = Vec::new();
    loop {
        if let Some(opened) = input.term()? {
            if open.len() == MAX_NAME_DEPTH {
                return Err(input.error(Why::Deep));
            }
            open.push(opened);
        } else if let Some(list) = open.last_mut() {
            list.bytes_only &= input.last_was_byte;
        }
        // What is complete now?
        loop {
            let Some(last) = open.last_mut() else {
                return if input.at == bytes.len() {
                    Ok(())
                } else {
                    Err(input.error(Why::Trailing))
                };
            };
            if last.left > 0 {
                last.left -= 1;
                break;
            }
            if last.list {
                let at = input.at;
                if input.byte()? != NIL {
                    return Err(input.error_at(at, Why::Improper));
                }
                if last.bytes_only {
                    return Err(input.error_at(last.at, Why::NotShortest));
                }
            }
            open.pop();
            if let Some(outer) = open.last_mut() {
                outer.bytes_only = false;
            }
        }
    }
}

/// A tuple or list that has begun.
struct Open {
    at: usize,
    left: usize,
    list: bool,
    /// All elements so far are integers of one byte.
    bytes_only: bool,
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    last_was_byte: bool,
}

impl<'a> Input<'a> {
    fn error(&self, why: Why) -> NameError {
        self.error_at(self.at, why)
    }

    fn error_at(&self, at: usize, why: Why) -> NameError {
        NameError { why, at }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], NameError> {
        let rest = &self.bytes[self.at..];
        if rest.len() < count {
            return Err(self.error_at(self.bytes.len(), Why::Short));
        }
        self.at += count;
        Ok(&rest[..count])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NameError> {
        let bytes = self.take(N)?;
        Ok(bytes
            .try_into()
            .expect("take returns what it was asked for"))
    }

    fn byte(&mut self) -> Result<u8, NameError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn length(&mut self) -> Result<usize, NameError> {
        let length = u32::from_be_bytes(self.array()?);
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads one term, or the beginning of a tuple or list that is not empty.
    fn term(&mut self) -> Result<Option<Open>, NameError> {
        let at = self.at;
        self.last_was_byte = false;
        let not_shortest = NameError {
            why: Why::NotShortest,
            at,
        };
        let tag = self.byte()?;
        match tag {
            SMALL_INTEGER => {
                self.byte()?;
                self.last_was_byte = true;
            }
            INTEGER => {
                let value = i32::from_be_bytes(self.array()?);
                if (0..=255).contains(&value) {
                    return Err(not_shortest);
                }
            }
            SMALL_BIG => {
                let length = usize::from(self.byte()?);
                let sign = self.byte()?;
                let digits = self.take(length)?;
                if sign > 1 {
                    return Err(not_shortest);
                }
                let fits = digits.len() < 4
                    || matches!(digits, &[a, b, c, d] if {
                        let value = i64::from(u32::from_le_bytes([a, b, c, d]));
                        let value = if sign == 1 { -value } else { value };
                        i32::try_from(value).is_ok()
                    });
                if fits || digits.last() == Some(&0) {
                    return Err(not_shortest);
                }
            }
            SMALL_ATOM_UTF8 | ATOM_UTF8 => {
                let length = if tag == ATOM_UTF8 {
                    usize::from(u16::from_be_bytes(self.array()?))
                } else {
                    usize::from(self.byte()?)
                };
                let text = core::str::from_utf8(self.take(length)?);
                let text = text.map_err(|_| self.error_at(at, Why::Utf8))?;
                if text.chars().count() > 255 {
                    return Err(self.error_at(at, Why::Atom));
                }
                if tag == ATOM_UTF8 && length <= 255 {
                    return Err(not_shortest);
                }
            }
            BINARY => {
                let length = self.length()?;
                if core::str::from_utf8(self.take(length)?).is_err() {
                    return Err(self.error_at(at, Why::Utf8));
                }
            }
            NIL => {}
            STRING => {
                let length = usize::from(u16::from_be_bytes(self.array()?));
                self.take(length)?;
                if length == 0 {
                    return Err(not_shortest);
                }
            }
            SMALL_TUPLE | LARGE_TUPLE => {
                let arity = if tag == SMALL_TUPLE {
                    usize::from(self.byte()?)
                } else {
                    self.length()?
                };
                if tag == LARGE_TUPLE && arity <= 255 {
                    return Err(not_shortest);
                }
                return Ok((arity > 0).then_some(Open {
                    at,
                    left: arity,
                    list: false,
                    bytes_only: false,
                }));
            }
            LIST => {
                let length = self.length()?;
                if length == 0 {
                    return Err(not_shortest);
                }
                return Ok(Some(Open {
                    at,
                    left: length,
                    list: true,
                    bytes_only: true,
                }));
            }
            tag => return Err(self.error_at(at, Why::Kind { tag })),
        }
        Ok(None)
    }
}

/// Bytes that are no name: why, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameError {
    why: Why,
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Long { bytes: usize },
    Version,
    Short,
    Trailing,
    Deep,
    Kind { tag: u8 },
    Utf8,
    Atom,
    Improper,
    NotShortest,
}

impl NameError {
    /// The offset of the term that is refused.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::Long { bytes } => write!(
                f,
                "the name has {bytes} bytes when encoded, the limit is {MAX_NAME_BYTES}"
            ),
            Why::Version => {
                f.write_str("the name is not in the external term format (version 131)")
            }
            Why::Short => f.write_str("the name ends too early"),
            Why::Trailing => f.write_str("the name has bytes behind its end"),
            Why::Deep => write!(f, "the name is nested deeper than {MAX_NAME_DEPTH}"),
            Why::Kind { tag } => {
                let kind = match tag {
                    70 | 99 => "a float",
                    88 | 103 => "a pid",
                    89 | 102 | 120 => "a port",
                    90 | 101 | 114 => "a reference",
                    116 => "a map",
                    112 | 113 | 117 => "a fun",
                    77 => "a bit string",
                    111 => "an integer of more than 255 bytes",
                    80 => "a compressed term",
                    82 | 100 | 115 => "an atom in an old encoding",
                    _ => "an unknown term",
                };
                write!(
                    f,
                    "a name must not hold {kind}: only atoms, UTF-8 binaries, integers, and tuples and lists of these"
                )
            }
            Why::Utf8 => f.write_str("a binary or atom in the name is not UTF-8"),
            Why::Atom => f.write_str("an atom in the name has more than 255 characters"),
            Why::Improper => f.write_str("a list in the name does not end with []"),
            Why::NotShortest => f.write_str(
                "a term in the name is not encoded as term_to_binary/2 with minor_version 2 does",
            ),
        }?;
        write!(f, " (at byte {})", self.at)
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::string::ToString;

    /// Made by OTP 25: `[term_to_binary(N, [{minor_version, 2}]) || N <- Names]`.
    const MADE_BY_OTP: &[(&str, &[u8])] = &[
        ("foo", &[131, 119, 3, 102, 111, 111]),
        (
            "'Elixir.Foo'",
            &[131, 119, 10, 69, 108, 105, 120, 105, 114, 46, 70, 111, 111],
        ),
        ("''", &[131, 119, 0]),
        (
            "list_to_atom(lists:duplicate(255,$\\x{e9}))",
            &[
                131, 118, 1, 254, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195, 169, 195,
                169,
            ],
        ),
        (
            "<<\"cache\">>",
            &[131, 109, 0, 0, 0, 5, 99, 97, 99, 104, 101],
        ),
        ("<<>>", &[131, 109, 0, 0, 0, 0]),
        ("<<\"\\x{e9}\"/utf8>>", &[131, 109, 0, 0, 0, 2, 195, 169]),
        ("0", &[131, 97, 0]),
        ("255", &[131, 97, 255]),
        ("256", &[131, 98, 0, 0, 1, 0]),
        ("-1", &[131, 98, 255, 255, 255, 255]),
        ("2147483647", &[131, 98, 127, 255, 255, 255]),
        ("2147483648", &[131, 110, 4, 0, 0, 0, 0, 128]),
        ("-2147483648", &[131, 98, 128, 0, 0, 0]),
        ("-2147483649", &[131, 110, 4, 1, 1, 0, 0, 128]),
        ("1 bsl 27", &[131, 98, 8, 0, 0, 0]),
        ("1 bsl 64", &[131, 110, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("-(1 bsl 70)", &[131, 110, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 64]),
        ("{}", &[131, 104, 0]),
        ("{a,1}", &[131, 104, 2, 119, 1, 97, 97, 1]),
        (
            "{user,<<\"x\">>,{2,3}}",
            &[
                131, 104, 3, 119, 4, 117, 115, 101, 114, 109, 0, 0, 0, 1, 120, 104, 2, 97, 2, 97, 3,
            ],
        ),
        ("[]", &[131, 106]),
        ("\"abc\"", &[131, 107, 0, 3, 97, 98, 99]),
        (
            "[1,2,256]",
            &[131, 108, 0, 0, 0, 3, 97, 1, 97, 2, 98, 0, 0, 1, 0, 106],
        ),
        (
            "[a,b]",
            &[131, 108, 0, 0, 0, 2, 119, 1, 97, 119, 1, 98, 106],
        ),
        (
            "[[1],[2]]",
            &[131, 108, 0, 0, 0, 2, 107, 0, 1, 1, 107, 0, 1, 2, 106],
        ),
        (
            "[<<\"x\">>,[],{}]",
            &[131, 108, 0, 0, 0, 3, 109, 0, 0, 0, 1, 120, 106, 104, 0, 106],
        ),
        ("[1|[2]]", &[131, 107, 0, 2, 1, 2]),
        ("[{1}]", &[131, 108, 0, 0, 0, 1, 104, 1, 97, 1, 106]),
    ];

    #[test]
    fn names_of_otp_are_names() {
        for (term, bytes) in MADE_BY_OTP {
            assert_eq!(check(bytes), Ok(()), "{term}");
            for cut in 0..bytes.len() {
                assert!(check(&bytes[..cut]).is_err(), "{term} cut at {cut}");
            }
            assert!(
                check(&[bytes, &[106][..]].concat()).is_err(),
                "{term} and more"
            );
        }
    }

    /// Made by OTP 25 as well.
    const NO_NAMES: &[(&str, &[u8])] = &[
        ("1.5", &[131, 70, 63, 248, 0, 0, 0, 0, 0, 0]),
        (
            "{a,[1.0]}",
            &[
                131, 104, 2, 119, 1, 97, 108, 0, 0, 0, 1, 70, 63, 240, 0, 0, 0, 0, 0, 0, 106,
            ],
        ),
        (
            "self()",
            &[
                131, 88, 119, 13, 110, 111, 110, 111, 100, 101, 64, 110, 111, 104, 111, 115, 116,
                0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        ("#{}", &[131, 116, 0, 0, 0, 0]),
        ("<<1:3>>", &[131, 77, 0, 0, 0, 1, 3, 32]),
        ("<<255>>", &[131, 109, 0, 0, 0, 1, 255]),
        ("[a|b]", &[131, 108, 0, 0, 0, 1, 119, 1, 97, 119, 1, 98]),
        (
            "make_ref()",
            &[
                131, 90, 0, 3, 119, 13, 110, 111, 110, 111, 100, 101, 64, 110, 111, 104, 111, 115,
                116, 0, 0, 0, 0, 0, 0, 161, 122, 25, 64, 0, 3, 176, 22, 234, 10,
            ],
        ),
        (
            "1 bsl 3000",
            &[
                131, 111, 0, 0, 1, 120, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ],
        ),
    ];

    #[test]
    fn other_terms_are_refused_with_the_reason() {
        for (term, bytes) in NO_NAMES {
            let error = check(bytes).expect_err(term).to_string();
            let expected = match *term {
                "1.5" | "{a,[1.0]}" => "a float",
                "self()" => "a pid",
                "#{}" => "a map",
                "<<1:3>>" => "a bit string",
                "<<255>>" => "not UTF-8",
                "[a|b]" => "does not end with []",
                "make_ref()" => "a reference",
                "1 bsl 3000" => "more than 255 bytes",
                other => panic!("{other} has no expectation"),
            };
            assert!(error.contains(expected), "{term}: {error}");
        }
    }

    #[test]
    fn other_encodings_of_a_name_are_refused() {
        for bytes in [
            &[131, 98, 0, 0, 0, 7][..],
            &[131, 98, 0, 0, 0, 255],
            &[131, 110, 1, 0, 7],
            &[131, 110, 4, 0, 255, 255, 255, 127],
            &[131, 110, 4, 1, 0, 0, 0, 128],
            &[131, 110, 5, 0, 1, 2, 3, 4, 0],
            &[131, 110, 5, 2, 1, 2, 3, 4, 5],
            &[131, 118, 0, 1, b'a'],
            &[131, 100, 0, 1, b'a'],
            &[131, 107, 0, 0],
            &[131, 108, 0, 0, 0, 0, 106],
            &[131, 108, 0, 0, 0, 1, 97, 1, 106],
            &[131, 105, 0, 0, 0, 1, 97, 1],
            &[131, 80, 0, 0, 0, 2],
        ] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
        // The least that needs more than 32 bits.
        assert_eq!(check(&[131, 110, 4, 0, 0, 0, 0, 128]), Ok(()));
        assert_eq!(check(&[131, 110, 4, 1, 1, 0, 0, 128]), Ok(()));
    }

    #[test]
    fn depth_and_length_have_limits() {
        let nested = |depth: usize| [&[131][..], &[104, 1].repeat(depth), &[106]].concat();
        assert_eq!(check(&nested(MAX_NAME_DEPTH)), Ok(()));
        let error = check(&nested(MAX_NAME_DEPTH + 1)).unwrap_err();
        assert_eq!(error.why, Why::Deep);
        assert!(
            check(&[131; MAX_NAME_BYTES + 1])
                .unwrap_err()
                .to_string()
                .contains("1025")
        );
    }

    #[test]
    fn whatever_the_bytes_the_answer_is_an_answer() {
        let seed = 0x7133;
        let mut random = Random::from_seed(seed);
        let mut good = 0;
        for round in 0..50_000 {
            let (_, bytes) = MADE_BY_OTP[round % MADE_BY_OTP.len()];
            let mut bytes = bytes.to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.bits() as u8;
            match check(&bytes) {
                Ok(()) => good += 1,
                Err(error) => assert!(error.at() <= bytes.len(), "seed {seed:#x}"),
            }
        }
        assert!(good > 1000, "only {good} were names");
    }
}
