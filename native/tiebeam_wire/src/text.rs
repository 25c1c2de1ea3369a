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

use std::fmt::{self, Write};
use std::str::FromStr;

use num_bigint::BigInt;

use crate::atom::Atom;
use crate::term::{
    Binary, BitString, Export, Fun, Improper, Map, Opaque, Pid, Port, REFERENCE_WORDS_MAX,
    Reference, Term,
};

/// How many containers may be around a term: reading recurses, as does whatever walks the term.
pub const DEPTH_MAX: usize = 512;

/// The most digits of an integer: reading them takes quadratic time. Enough for 200,000 bits.
const DIGITS_MAX: usize = 65_536;

/// The most bits of a number in a bit string, so that a short text cannot ask for a large binary.
const SEGMENT_BITS_MAX: usize = 65_536;

// Printing

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

// Reading

/// A text that is not a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The offset in bytes at which the text stops making sense.
    pub at: usize,
    /// What would have made sense there.
    pub expected: &'static str,
    /// The character that is there instead; `None` at the end of the text.
    pub found: Option<char>,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected {} at offset {}, found ",
            self.expected, self.at
        )?;
        match self.found {
            Some(found) => write!(f, "{found:?}"),
            None => f.write_str("the end of the text"),
        }
    }
}

impl std::error::Error for ParseError {}

impl Term {
    /// Reads a term in Erlang syntax, see [the table](crate::text). A `.` may follow it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let term = parser.term()?;
        parser.eat(".");
        parser.space();
        match parser.rest() {
            "" => Ok(term),
            _ => Err(parser.error("the end of the text")),
        }
    }
}

impl FromStr for Term {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

type Result<T, E = ParseError> = std::result::Result<T, E>;

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn error(&self, expected: &'static str) -> ParseError {
        self.error_at(self.at, expected)
    }

    fn error_at(&self, at: usize, expected: &'static str) -> ParseError {
        ParseError {
            at,
            expected,
            found: self.text[at..].chars().next(),
        }
    }

    /// Skips spaces and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('%') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Skips spaces, then this token, if it is there.
    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<()> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn term(&mut self) -> Result<Term> {
        self.space();
        if self.depth > DEPTH_MAX {
            return Err(self.error("less nesting: at most 512 levels"));
        }
        self.depth += 1;
        let term = match self.peek() {
            Some('{') => {
                self.at += 1;
                self.elements("}", "`,` or `}`").map(Term::Tuple)
            }
            Some('[') => self.list(),
            Some('"') => self.string(),
            Some('<') => self.binary(),
            Some('#') => self.sharp(),
            Some('0'..='9' | '-' | '+' | '$') => self.number(),
            Some(c) if c == '\'' || starts_name(c) => self.atom_or_fun(),
            _ => Err(self.error("a term")),
        };
        self.depth -= 1;
        term
    }

    /// Reads elements up to the closing token, which is read too.
    fn elements(&mut self, close: &str, expected: &'static str) -> Result<Vec<Term>> {
        let mut elements = Vec::new();
        if self.eat(close) {
            return Ok(elements);
        }
        loop {
            elements.push(self.term()?);
            if self.eat(close) {
                return Ok(elements);
            }
            self.expect(",", expected)?;
        }
    }

    fn list(&mut self) -> Result<Term> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.eat("]") {
            return Ok(Term::List(elements));
        }
        loop {
            elements.push(self.term()?);
            if self.eat("]") {
                return Ok(Term::List(elements));
            }
            if self.eat("|") {
                let tail = self.term()?;
                self.expect("]", "`]` after the tail")?;
                return Ok(Term::cons(elements, tail));
            }
            self.expect(",", "`,`, `|` or `]`")?;
        }
    }

    fn map(&mut self) -> Result<Term> {
        let mut pairs = Vec::new();
        if self.eat("}") {
            return Ok(Term::Map(Map::new()));
        }
        loop {
            let key = self.term()?;
            self.expect("=>", "`=>`")?;
            pairs.push((key, self.term()?));
            if self.eat("}") {
                return Ok(Term::Map(pairs.into_iter().collect()));
            }
            self.expect(",", "`,` or `}`")?;
        }
    }

    /// Reads what starts with `#`: a map or one of the forms that Erlang prints but does not read.
    fn sharp(&mut self) -> Result<Term> {
        let start = self.at;
        if self.eat("#{") {
            return self.map();
        }
        let term = if self.eat("#Pid<") {
            Term::Pid(Pid {
                node: self.node()?,
                id: self.word()?,
                serial: self.word()?,
                creation: self.word()?,
            })
        } else if self.eat("#Port<") {
            Term::Port(Port {
                node: self.node()?,
                id: self.field()?,
                creation: self.word()?,
            })
        } else if self.eat("#Ref<") {
            let node = self.node()?;
            let creation = self.word()?;
            let mut words = vec![self.word()?];
            while self.peek() == Some(',') && words.len() < REFERENCE_WORDS_MAX {
                words.push(self.word()?);
            }
            Term::Reference(Reference::new(node, creation, &words))
        } else if self.eat("#Opaque<") {
            Term::Opaque(self.opaque()?)
        } else if self.rest().starts_with("#Fun<") {
            return Err(self.error("a term that text can carry (a closure's code cannot)"));
        } else {
            return Err(self.error_at(start, "`#{`, `#Pid<`, `#Port<`, `#Ref<` or `#Opaque<`"));
        };
        self.expect(">", "`>`")?;
        Ok(term)
    }

    fn node(&mut self) -> Result<Atom> {
        self.atom("the name of a node, quoted where it has dots")
    }

    fn word(&mut self) -> Result<u32> {
        let start = self.at;
        u32::try_from(self.field()?)
            .map_err(|_| self.error_at(start, "`,` and a number below 2^32"))
    }

    /// Reads a comma and a number.
    fn field(&mut self) -> Result<u64> {
        const EXPECTED: &str = "`,` and a number below 2^64";
        let start = self.at;
        self.expect(",", EXPECTED)?;
        self.space();
        let digits = self.digits(10);
        digits.parse().map_err(|_| self.error_at(start, EXPECTED))
    }

    fn opaque(&mut self) -> Result<Opaque> {
        const EXPECTED: &str = "the bytes of a term in hexadecimal";
        let start = self.at;
        let digits = self.digits(16).as_bytes();
        let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| {
                pair.iter()
                    .fold(0, |byte, digit| byte << 4 | nibble(*digit))
            })
            .collect();
        Opaque::new(bytes.into())
            .ok()
            .filter(|_| digits.len().is_multiple_of(2))
            .ok_or_else(|| self.error_at(start, EXPECTED))
    }

    fn atom_or_fun(&mut self) -> Result<Term> {
        let start = self.at;
        if self.peek() != Some('\'') {
            let name = self.name();
            if name == "fun" {
                return self.export().map(|export| Term::Export(Box::new(export)));
            }
            self.at = start;
        }
        self.atom("an atom").map(Term::Atom)
    }

    fn export(&mut self) -> Result<Export> {
        const EXPECTED: &str = "Module:Function/Arity after `fun`";
        self.space();
        let module = self.atom(EXPECTED)?;
        self.expect(":", EXPECTED)?;
        let function = self.atom(EXPECTED)?;
        self.expect("/", EXPECTED)?;
        self.space();
        let start = self.at;
        let arity = self.digits(10).parse();
        Ok(Export {
            module,
            function,
            arity: arity.map_err(|_| self.error_at(start, EXPECTED))?,
        })
    }

    /// Reads the characters of a bare name.
    fn name(&mut self) -> &'t str {
        let rest = self.rest();
        let len = rest.find(|c| !is_name_character(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn atom(&mut self, expected: &'static str) -> Result<Atom> {
        self.space();
        let start = self.at;
        let too_long = "an atom of at most 255 characters";
        if self.peek() == Some('\'') {
            let codes = self.quoted('\'')?;
            let text: Option<String> = codes.into_iter().map(char::from_u32).collect();
            let text = text.ok_or_else(|| self.error_at(start, expected))?;
            return Atom::new(&text).map_err(|_| self.error_at(start, too_long));
        }
        let name = self.name();
        if !name.starts_with(starts_name) {
            return Err(self.error_at(start, expected));
        }
        if RESERVED.contains(&name) {
            return Err(self.error_at(start, "a term (a reserved word needs quotes: 'and')"));
        }
        Atom::new(name).map_err(|_| self.error_at(start, too_long))
    }

    /// Reads a quoted text into code points. Not all of these need be characters.
    fn quoted(&mut self, quote: char) -> Result<Vec<u32>> {
        self.at += 1;
        let mut codes = Vec::new();
        loop {
            match self.bump() {
                None => return Err(self.error("the closing quote")),
                Some('\\') => codes.push(self.escaped()?),
                Some(c) if c == quote => return Ok(codes),
                Some(c) => codes.push(u32::from(c)),
            }
        }
    }

    /// Reads what follows a backslash.
    fn escaped(&mut self) -> Result<u32> {
        let start = self.at;
        let Some(c) = self.bump() else {
            return Err(self.error("a character after `\\`"));
        };
        Ok(match c {
            'b' => 8,
            'd' => 127,
            'e' => 27,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            's' => 32,
            't' => 9,
            'v' => 11,
            '^' => match self.bump() {
                Some(c @ ('@'..='_' | 'a'..='z')) => u32::from(c) & 31,
                _ => return Err(self.error_at(start, "a control character, such as `^C`")),
            },
            'x' => {
                let digits = if self.peek() == Some('{') {
                    self.at += 1;
                    let digits = self.digits(16);
                    self.expect("}", "hexadecimal digits and `}`")?;
                    digits
                } else {
                    let rest = self.rest();
                    let two = rest.get(..2).unwrap_or_default();
                    self.at += two.len();
                    two
                };
                u32::from_str_radix(digits, 16)
                    .ok()
                    .filter(|code| *code <= 0x10_ffff)
                    .ok_or_else(|| self.error_at(start, "a code point in hexadecimal"))?
            }
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    if let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) {
                        self.at += 1;
                        code = code * 8 + digit;
                    }
                }
                code
            }
            c => u32::from(c),
        })
    }

    /// Reads a string, or several in a row, which are one.
    fn string(&mut self) -> Result<Term> {
        let mut codes = Vec::new();
        while self.peek() == Some('"') {
            codes.extend(self.quoted('"')?);
            self.space();
        }
        let integer = |code: u32| Term::Integer(i64::from(code));
        Ok(Term::List(codes.into_iter().map(integer).collect()))
    }

    /// Reads digits and underscores between them, without a sign.
    fn digits(&mut self, radix: u32) -> &'t str {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !c.is_digit(radix))
            .unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Reads digits with underscores between them.
    fn grouped_digits(&mut self, radix: u32) -> Result<String> {
        let start = self.at;
        let mut digits = String::from(self.digits(radix));
        while self.rest().starts_with('_')
            && self.rest()[1..].starts_with(|c: char| c.is_digit(radix))
        {
            self.at += 1;
            digits.push_str(self.digits(radix));
        }
        match digits.len() {
            0 => Err(self.error_at(start, "digits")),
            1..=DIGITS_MAX => Ok(digits),
            _ => Err(self.error_at(start, "at most 65,536 digits")),
        }
    }

    fn number(&mut self) -> Result<Term> {
        let start = self.at;
        let negative = match self.peek() {
            Some(sign @ ('-' | '+')) => {
                self.at += 1;
                self.space();
                sign == '-'
            }
            _ => false,
        };
        if self.peek() == Some('$') {
            self.at += 1;
            let code = match self.bump() {
                Some('\\') => self.escaped()?,
                Some(c) => u32::from(c),
                None => return Err(self.error("a character after `$`")),
            };
            let code = i64::from(code);
            return Ok(Term::Integer(if negative { -code } else { code }));
        }
        let mut digits = self.grouped_digits(10)?;
        let rest = self.rest();
        if rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return self.float(start, negative, digits);
        }
        let mut radix = 10;
        if rest.starts_with('#') && rest[1..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
            radix = digits
                .parse()
                .ok()
                .filter(|radix| (2..=36).contains(radix))
                .ok_or_else(|| self.error_at(start, "a base from 2 to 36"))?;
            self.at += 1;
            digits = self.grouped_digits(radix)?;
        }
        if negative {
            digits.insert(0, '-');
        }
        BigInt::parse_bytes(digits.as_bytes(), radix)
            .map(Term::from)
            .ok_or_else(|| self.error_at(start, "an integer"))
    }

    fn float(&mut self, start: usize, negative: bool, mut text: String) -> Result<Term> {
        self.at += 1;
        text.push('.');
        text.push_str(&self.grouped_digits(10)?);
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            text.push('e');
            if let Some(sign @ ('-' | '+')) = self.peek() {
                self.at += 1;
                text.push(sign);
            }
            text.push_str(&self.grouped_digits(10)?);
        }
        let float: f64 = text.parse().unwrap_or(f64::INFINITY);
        if !float.is_finite() {
            return Err(self.error_at(start, "a float of at most 1.7976931348623157e308"));
        }
        Ok(Term::Float(if negative { -float } else { float }))
    }

    fn binary(&mut self) -> Result<Term> {
        self.expect("<<", "a term (a binary starts with `<<`)")?;
        let mut bits = Bits::default();
        if !self.eat(">>") {
            loop {
                self.segment(&mut bits)?;
                if self.eat(">>") {
                    break;
                }
                self.expect(",", "`,` or `>>`")?;
            }
        }
        Ok(bits.into_term())
    }

    /// Reads `Value`, `Value:Size`, `Value/Types` or `Value:Size/Types` of a binary.
    fn segment(&mut self, bits: &mut Bits) -> Result<()> {
        self.space();
        let start = self.at;
        let value = match self.peek() {
            Some('"') => Value::Text(self.quoted('"')?),
            Some('0'..='9' | '-' | '+' | '$') => match self.number()? {
                Term::Float(float) => Value::Float(float),
                Term::Integer(integer) => Value::Integer(integer.into()),
                Term::Big(integer) => Value::Integer(*integer),
                _ => return Err(self.error_at(start, "a number or a string")),
            },
            _ => return Err(self.error("a number, a string or `>>`")),
        };
        let mut size = None;
        if self.eat(":") {
            self.space();
            let at = self.at;
            size = self
                .grouped_digits(10)?
                .parse()
                .ok()
                .filter(|size| *size <= SEGMENT_BITS_MAX);
            if size.is_none() {
                return Err(self.error_at(at, "a size of at most 65,536 bits"));
            }
        }
        let mut kind = match value {
            Value::Float(_) => Kind::Float,
            _ => Kind::Integer,
        };
        let mut little = false;
        if self.eat("/") {
            loop {
                self.space();
                let at = self.at;
                match self.name() {
                    "integer" => kind = Kind::Integer,
                    "float" => kind = Kind::Float,
                    "utf8" => kind = Kind::Utf8,
                    "utf16" => kind = Kind::Utf16,
                    "utf32" => kind = Kind::Utf32,
                    "little" => little = true,
                    "big" => little = false,
                    // How a number is written does not depend on its sign.
                    "signed" | "unsigned" => {}
                    _ => {
                        return Err(self.error_at(
                            at,
                            "integer, float, utf8, utf16, utf32, little, big, signed or unsigned",
                        ));
                    }
                }
                if !self.eat("-") {
                    break;
                }
            }
        }
        let appended = match value {
            Value::Text(codes) => codes
                .into_iter()
                .all(|code| bits.append(&Value::Integer(code.into()), size, kind, little)),
            value => bits.append(&value, size, kind, little),
        };
        if appended {
            Ok(())
        } else {
            Err(self.error_at(start, "a value that its size and type can hold"))
        }
    }
}

enum Value {
    Text(Vec<u32>),
    Integer(BigInt),
    Float(f64),
}

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Float,
    Utf8,
    Utf16,
    Utf32,
}

/// A bit string that grows.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are in use, 1 to 8; 0 without a byte.
    used: u8,
}

impl Bits {
    /// Appends a value; whether it fits its type.
    fn append(&mut self, value: &Value, size: Option<usize>, kind: Kind, little: bool) -> bool {
        let character = || match value {
            Value::Integer(code) => u32::try_from(code).ok().and_then(char::from_u32),
            _ => None,
        };
        let bytes = match (kind, value) {
            (Kind::Integer, Value::Integer(integer)) => {
                return self.append_integer(integer, size.unwrap_or(8), little);
            }
            (Kind::Float, Value::Float(float)) => float_bytes(*float, size),
            (Kind::Float, Value::Integer(integer)) => integer
                .to_string()
                .parse()
                .ok()
                .and_then(|float| float_bytes(float, size)),
            (Kind::Utf8, _) => character().map(|c| c.to_string().into_bytes()),
            (Kind::Utf16, _) => character().map(|c| {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units).iter();
                units
                    .flat_map(|unit| match little {
                        true => unit.to_le_bytes(),
                        false => unit.to_be_bytes(),
                    })
                    .collect()
            }),
            (Kind::Utf32, _) => character().map(|c| u32::from(c).to_be_bytes().to_vec()),
            _ => None,
        };
        let Some(mut bytes) = bytes else {
            return false;
        };
        if little && matches!(kind, Kind::Float | Kind::Utf32) {
            bytes.reverse();
        }
        for byte in bytes {
            self.push(byte, 8);
        }
        true
    }

    /// Appends the low bits of an integer, in two's complement.
    fn append_integer(&mut self, integer: &BigInt, size: usize, little: bool) -> bool {
        let digits = integer.to_signed_bytes_le();
        let sign = match integer.sign() {
            num_bigint::Sign::Minus => 0xff,
            _ => 0,
        };
        let digit = |i: usize| digits.get(i).copied().unwrap_or(sign);
        let (whole, odd) = (size / 8, (size % 8) as u8);
        if little {
            (0..whole).for_each(|i| self.push(digit(i), 8));
            self.push(digit(whole), odd);
        } else {
            self.push(digit(whole), odd);
            (0..whole).rev().for_each(|i| self.push(digit(i), 8));
        }
        true
    }

    /// Appends the low bits of a byte.
    fn push(&mut self, byte: u8, count: u8) {
        for bit in (0..count).rev() {
            if self.used == 8 || self.bytes.is_empty() {
                self.bytes.push(0);
                self.used = 0;
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= (byte >> bit & 1) << (7 - self.used);
            }
            self.used += 1;
        }
    }

    fn into_term(self) -> Term {
        let binary = Binary::from(self.bytes);
        match BitString::new(binary, self.used.max(1)) {
            Ok(bits) => Term::BitString(Box::new(bits)),
            Err(binary) => Term::Binary(binary),
        }
    }
}

fn float_bytes(float: f64, size: Option<usize>) -> Option<Vec<u8>> {
    match size.unwrap_or(64) {
        64 => Some(float.to_be_bytes().to_vec()),
        32 => {
            let narrow = float as f32;
            narrow.is_finite().then(|| narrow.to_be_bytes().to_vec())
        }
        _ => None,
    }
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
