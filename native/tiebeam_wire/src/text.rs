//! Erlang term syntax: terms as text, for people, command lines and tests.
//!
//! What is printed here is read back as the same term, by [`Term::parse`] and, but for the last five rows, by Erlang:
//!
//! | term | printed | also read |
//! |---|---|---|
//! | integer | `42`, `-7` | `16#ff`, `1_000`, `$a`, `$\n` |
//! | float | `1.5`, `1.0e300` | `1.5E3` |
//! | atom | `ok`, `'Elixir.Foo'`, `'two words'` | |
//! | list | `[1,a]`, `[a\|b]` | |
//! | list of printable characters | `"héllo\n"` | `"a" "b"` |
//! | binary of printable characters | `<<"ascii">>`, `<<"héllo"/utf8>>` | `<<"x"/utf16>>`, `<<"é">>` (Latin-1) |
//! | other binary, bit string | `<<1,2,255>>`, `<<1,5:3>>` | `<<1:32>>`, `<<1:32/little>>`, `<<1.5/float>>` |
//! | tuple, map | `{a,1}`, `#{a => 1}` | spaces and `% comments` anywhere, a final `.` |
//! | external function | `fun lists:map/2` | |
//! | pid | `#Pid<'a@127.0.0.1',104,0,1700000000>`: node, id, serial, creation | |
//! | port | `#Port<'a@127.0.0.1',5,1700000000>`: node, id, creation | |
//! | reference | `#Ref<'a@127.0.0.1',1700000000,1,2,3>`: node, creation, words | |
//! | opaque term | `#Opaque<43000000…>`: its bytes in hexadecimal | |
//! | closure | `#Fun<module,index,arity>` | not read: its code is elsewhere |
//!
//! Source: the *Data Types* and *Bit Syntax* chapters of the Erlang reference manual.

mod bits;
mod parser;

use std::fmt::{self, Write};

pub use parser::{DEPTH_MAX, ParseError};

use crate::atom::Atom;
use crate::term::{BitString, Export, Fun, Improper, Map, Opaque, Pid, Port, Reference, Term};

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Big(integer) => write!(f, "{integer}"),
            Self::Float(float) => print_float(*float, f),
            Self::Atom(atom) => print_atom(atom, f),
            Self::Binary(binary) => print_binary(binary, f),
            Self::BitString(bits) => print_bits(bits, f),
            Self::Tuple(elements) => print_all('{', elements, '}', f),
            Self::List(elements) => print_list(elements, f),
            Self::Improper(list) => print_improper(list, f),
            Self::Map(map) => map.fmt(f),
            Self::Pid(pid) => pid.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Reference(reference) => reference.fmt(f),
            Self::Fun(fun) => print_fun(fun, f),
            Self::Export(export) => print_export(export, f),
            Self::Opaque(opaque) => opaque.fmt(f),
        }
    }
}

/// As displayed: Erlang syntax tells terms apart, and is shorter than Rust's.
impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#{")?;
        for (i, (key, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_char(',')?;
            }
            write!(f, "{key} => {value}")?;
        }
        f.write_char('}')
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#Pid<")?;
        print_atom(&self.node, f)?;
        write!(f, ",{},{},{}>", self.id, self.serial, self.creation)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#Port<")?;
        print_atom(&self.node, f)?;
        write!(f, ",{},{}>", self.id, self.creation)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#Ref<")?;
        print_atom(self.node(), f)?;
        write!(f, ",{}", self.creation())?;
        for word in self.words() {
            write!(f, ",{word}")?;
        }
        f.write_char('>')
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#Opaque<")?;
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_char('>')
    }
}

fn print_all(
    open: char,
    elements: &[Term],
    close: char,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_char(open)?;
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            f.write_char(',')?;
        }
        fmt::Display::fmt(element, f)?;
    }
    f.write_char(close)
}

fn print_list(elements: &[Term], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let character = |element: &Term| match element {
        Term::Integer(code) => printable(u32::try_from(*code).ok()?),
        _ => None,
    };
    if elements.is_empty() || !elements.iter().all(|e| character(e).is_some()) {
        return print_all('[', elements, ']', f);
    }
    print_quoted('"', elements.iter().filter_map(character), f)
}

fn print_improper(list: &Improper, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('[')?;
    for (i, element) in list.elements.iter().enumerate() {
        if i > 0 {
            f.write_char(',')?;
        }
        fmt::Display::fmt(element, f)?;
    }
    f.write_char('|')?;
    fmt::Display::fmt(&list.tail, f)?;
    f.write_char(']')
}

fn print_fun(fun: &Fun, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("#Fun<")?;
    print_atom(&fun.module, f)?;
    write!(f, ",{},{}>", fun.index, fun.arity)
}

fn print_export(export: &Export, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("fun ")?;
    print_atom(&export.module, f)?;
    f.write_char(':')?;
    print_atom(&export.function, f)?;
    write!(f, "/{}", export.arity)
}

/// Erlang wants digits on both sides of the point, also before an exponent.
fn print_float(float: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => {
            write!(f, "{digits}.0e{exponent}")
        }
        _ => f.write_str(&text),
    }
}

/// Words that are not atoms unless quoted, in any release.
const RESERVED: [&str; 29] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case",
    "catch", "cond", "div", "else", "end", "fun", "if", "let", "maybe", "not", "of", "or",
    "orelse", "receive", "rem", "try", "when", "xor",
];

fn print_atom(atom: &Atom, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = atom.as_str();
    let is_bare = text.starts_with(starts_name)
        && text.chars().all(is_name_character)
        && !RESERVED.contains(&text);
    if is_bare {
        f.write_str(text)
    } else {
        print_quoted('\'', text.chars(), f)
    }
}

/// Lower-case letters of Latin-1 start a bare atom.
fn starts_name(c: char) -> bool {
    matches!(c, 'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ')
}

fn is_name_character(c: char) -> bool {
    starts_name(c) || matches!(c, 'A'..='Z' | '0'..='9' | '_' | '@' | 'À'..='Ö' | 'Ø'..='Þ')
}

fn print_quoted(
    quote: char,
    characters: impl Iterator<Item = char>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_char(quote)?;
    for c in characters {
        match c {
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{c}' => f.write_str("\\f")?,
            '\u{1b}' => f.write_str("\\e")?,
            '\\' => f.write_str("\\\\")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if printable(u32::from(c)).is_none() => write!(f, "\\x{{{:x}}}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char(quote)
}

/// The character, if it belongs into a string: the same set as `io_lib:printable_unicode_list/1`.
fn printable(code: u32) -> Option<char> {
    match code {
        8..=13 | 27 | 32..=126 | 0xa0..=0xd7ff | 0xe000..=0xfffd | 0x1_0000..=0x10_ffff => {
            char::from_u32(code)
        }
        _ => None,
    }
}

fn print_binary(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.chars().all(|c| printable(u32::from(c)).is_some()));
    f.write_str("<<")?;
    match text {
        Some("") => {}
        Some(text) => {
            print_quoted('"', text.chars(), f)?;
            if !text.is_ascii() {
                f.write_str("/utf8")?;
            }
        }
        None => print_bytes(bytes, f)?,
    }
    f.write_str(">>")
}

fn print_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 {
            f.write_char(',')?;
        }
        write!(f, "{byte}")?;
    }
    Ok(())
}

fn print_bits(bits: &BitString, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((last, whole)) = bits.bytes.split_last() else {
        return f.write_str("<<>>");
    };
    f.write_str("<<")?;
    print_bytes(whole, f)?;
    if !whole.is_empty() {
        f.write_char(',')?;
    }
    let last = u32::from(*last) >> 8u32.saturating_sub(u32::from(bits.bits));
    write!(f, "{last}:{}>>", bits.bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Term {
        Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn terms_are_printed_as_erlang_prints_them() {
        for text in [
            "{ok,[1,2],<<\"x\">>,#{a => 1},'Quoted Atom',\"str\",97,255,1500.0,<<1,2:4>>}",
            "[]",
            "{}",
            "#{}",
            "<<>>",
            "[a|b]",
            "[1,2|{c}]",
            "'and'",
            "'Elixir.Tiebeam'",
            "a@host",
            "'a@127.0.0.1'",
            "'it\\'s'",
            "''",
            "-0.0",
            "1.0e300",
            "1.0e-9",
            "123456789012345678901234567890",
            "<<\"h\u{e9}llo\"/utf8>>",
            "<<0,255>>",
            "<<1:1>>",
            "\"a\\n\\\"b\\\"\\\\\"",
            "[0,1]",
            "fun lists:map/2",
            "äöü",
            "'дом'",
            "#Pid<'a@127.0.0.1',104,0,1700000000>",
            "#Port<a@h,18446744073709551615,1>",
            "#Ref<a@h,1,2,3,4>",
            "#Opaque<430000000000770161770162>",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn every_spelling_of_erlang_is_read() {
        for (text, same) in [
            (" { ok , [ 1 , 2 ] } . % done", "{ok,[1,2]}"),
            ("% a comment\n[\n  a, % another\n  b\n]", "[a,b]"),
            ("16#ff", "255"),
            ("2#1010", "10"),
            ("36#zz", "1295"),
            ("-16#FF", "-255"),
            ("1_000_000", "1000000"),
            ("- 5", "-5"),
            ("+5", "5"),
            ("$a", "97"),
            ("$\\n", "10"),
            ("$ ", "32"),
            ("$\\x{1F600}", "128512"),
            ("1.5e3", "1500.0"),
            ("1.5E-3", "0.0015"),
            ("\"a\" \"b\"", "\"ab\""),
            ("\"\\x41\\102\\s\\^A\"", "[65,66,32,1]"),
            ("\"\"", "[]"),
            ("<<1:16>>", "<<0,1>>"),
            ("<<1:16/little>>", "<<1,0>>"),
            ("<<258:12>>", "<<16,2:4>>"),
            ("<<-1:8, 255/signed>>", "<<255,255>>"),
            ("<<1:4,2:4>>", "<<18>>"),
            ("<<1.5/float>>", "<<63,248,0,0,0,0,0,0>>"),
            ("<<1.5:32/little-float>>", "<<0,0,192,63>>"),
            ("<<\"h\u{e9}\">>", "<<104,233>>"),
            ("<<\"\u{e9}\"/utf16>>", "<<0,233>>"),
            ("<<$a, \"b\", 99>>", "<<\"abc\">>"),
            ("<<97/utf8>>", "<<\"a\">>"),
            ("[a|[b|[]]]", "[a,b]"),
            ("#{a=>1,b=>#{c=>2}}", "#{a => 1,b => #{c => 2}}"),
            ("#{a => 1, a => 2}", "#{a => 2}"),
            ("fun 'Elixir.Enum' : map / 2", "fun 'Elixir.Enum':map/2"),
        ] {
            assert_eq!(parse(text).to_string(), parse(same).to_string(), "{text}");
        }
    }

    #[test]
    fn an_error_says_where_and_what() {
        for (text, at, expected) in [
            ("", 0, "a term"),
            ("{ok", 3, "`,` or `}`"),
            ("[1 2]", 3, "`,`, `|` or `]`"),
            ("[1|2,3]", 4, "`]` after the tail"),
            ("#{a}", 3, "`=>`"),
            ("ok ok", 3, "the end of the text"),
            ("Variable", 0, "a term"),
            ("'open", 5, "the closing quote"),
            ("\"\\xzz\"", 2, "a code point in hexadecimal"),
            ("1.0e999", 0, "a float of at most 1.7976931348623157e308"),
            ("<<1:99999999>>", 4, "a size of at most 65,536 bits"),
            ("<<a>>", 2, "a number, a string or `>>`"),
            ("fun lists:map", 13, "Module:Function/Arity after `fun`"),
            ("end", 0, "a term (a reserved word needs quotes: 'and')"),
            (
                "#Fun<m,1,2>",
                0,
                "a term that text can carry (a closure's code cannot)",
            ),
            ("#Opaque<ff>", 8, "the bytes of a term in hexadecimal"),
            ("#Opaque<6>", 8, "the bytes of a term in hexadecimal"),
            ("37#1", 0, "a base from 2 to 36"),
        ] {
            let error = Term::parse(text).unwrap_err();
            assert_eq!((error.at, error.expected), (at, expected), "{text}");
        }
        let error = Term::parse("{a,}").unwrap_err();
        assert_eq!(error.to_string(), "expected a term at offset 3, found '}'");
    }

    #[test]
    fn nesting_is_bounded() {
        let text = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Term::parse(&text(DEPTH_MAX + 1)).is_ok());
        let error = Term::parse(&text(DEPTH_MAX + 2)).unwrap_err();
        assert_eq!(error.at, DEPTH_MAX + 1);
        Term::parse(&"{[".repeat(1 << 20)).unwrap_err();
    }
}
