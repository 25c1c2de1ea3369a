//! Text to terms.

use std::fmt;
use std::str::FromStr;

use num_bigint::BigInt;

use super::bits::{Bits, Kind, Value};
use super::{RESERVED, is_name_character, starts_name};
use crate::atom::Atom;
use crate::term::{Export, Map, Opaque, Pid, Port, REFERENCE_WORDS_MAX, Reference, Term};

/// How many containers may be around a term: reading recurses, as does whatever walks the term.
pub const DEPTH_MAX: usize = 512;

/// The most digits of an integer: reading them takes quadratic time. Enough for 200,000 bits.
const DIGITS_MAX: usize = 65_536;

/// The most bits of a number in a bit string, so that a short text cannot ask for a large binary.
const SEGMENT_BITS_MAX: usize = 65_536;

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
        let mut parser = Parser::new(text);
        let term = parser.term()?;
        parser.eat(".");
        parser.space();
        match parser.rest() {
            "" => Ok(term),
            _ => Err(parser.error("the end of the text")),
        }
    }

    /// Reads terms of which each has a `.` behind it, as `file:consult/1` does.
    ///
    /// ```
    /// # use tiebeam_wire::Term;
    /// let hosts = Term::consult("'h1.example'. % the first one\n'h2.example'.\n").unwrap();
    /// assert_eq!(hosts, [Term::atom("h1.example"), Term::atom("h2.example")]);
    /// assert!(Term::consult("'h1.example'").is_err());
    /// ```
    pub fn consult(text: &str) -> Result<Vec<Self>, ParseError> {
        let mut parser = Parser::new(text);
        let mut terms = Vec::new();
        loop {
            parser.space();
            if parser.rest().is_empty() {
                return Ok(terms);
            }
            terms.push(parser.term()?);
            if !parser.eat(".") {
                return Err(parser.error("a '.'"));
            }
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
    fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

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
