//! Node names: `alive@host`, and the two conventions for the host part.

use std::fmt;

/// Most characters in a node name. A longer one crashes the acceptor of OTP 25.
pub const MAX_NAME: usize = 255;

/// A node name of the form `alive@host`, as OTP accepts it from a peer.
///
/// Before the `@` are letters, digits, `_` and `-`; after it is a host name or an address in printable ASCII without a
/// second `@`. Names compare as Erlang compares atoms: by their bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName {
    text: String,
    at: usize,
}

/// Which kind of host names a cluster uses. A node refuses to dial names of the other kind, as OTP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameForm {
    /// `erl -sname`: hosts without a dot.
    Short,
    /// `erl -name`: hosts with a dot, or IPv6 addresses.
    Long,
}

/// Why a text is not a node name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// More than [`MAX_NAME`] characters.
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// Not exactly one `@` with text on both sides.
    Form {
        /// The text, with anything but printable ASCII escaped.
        name: String,
    },
    /// A character that OTP does not take in a node name.
    Character {
        /// The text, with anything but printable ASCII escaped.
        name: String,
        /// Offset of the first such byte.
        at: usize,
    },
}

impl NodeName {
    /// Checks a name given by a user or a peer.
    pub fn parse(name: impl AsRef<[u8]>) -> Result<NodeName, NameError> {
        let bytes = name.as_ref();
        if bytes.len() > MAX_NAME {
            return Err(NameError::TooLong {
                length: bytes.len(),
            });
        }
        let escaped = || bytes.escape_ascii().to_string();
        let at = match bytes.iter().position(|&byte| byte == b'@') {
            Some(at) if at > 0 && at + 1 < bytes.len() => at,
            _ => return Err(NameError::Form { name: escaped() }),
        };
        if bytes[at + 1..].contains(&b'@') {
            return Err(NameError::Form { name: escaped() });
        }
        let unfit = |&(offset, &byte): &(usize, &u8)| match offset {
            _ if offset < at => !is_alive_byte(byte),
            _ => !byte.is_ascii_graphic(),
        };
        if let Some((at, _)) = bytes.iter().enumerate().find(unfit) {
            return Err(NameError::Character {
                name: escaped(),
                at,
            });
        }
        Ok(NodeName {
            text: bytes.iter().map(|&byte| char::from(byte)).collect(),
            at,
        })
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the `@`: the name that epmd knows.
    pub fn alive(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after the `@`.
    pub fn host(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Whether this is a short or a long name.
    pub fn form(&self) -> NameForm {
        if self.host().contains(['.', ':']) {
            NameForm::Long
        } else {
            NameForm::Short
        }
    }
}

/// Whether `host` may stand after the `@` of a node name.
pub(super) fn is_host(host: &[u8]) -> bool {
    !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'@')
}

fn is_alive_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.text)
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for NodeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<NodeName, NameError> {
        NodeName::parse(name)
    }
}

impl fmt::Display for NameForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameForm::Short => "short",
            NameForm::Long => "long",
        })
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::TooLong { length } => write!(
                f,
                "a node name of {length} bytes is too long: use at most {MAX_NAME}"
            ),
            NameError::Form { name } => write!(
                f,
                "'{name}' is not a node name: write it as alive@host, with one '@' and text on both sides"
            ),
            NameError::Character { name, at } => write!(
                f,
                "'{name}' is not a node name: the character at offset {at} is not allowed; use letters, digits, '_' and \
                 '-' before the '@', and a host name or address after it"
            ),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_forms() {
        for (name, alive, host, form) in [
            ("a@127.0.0.1", "a", "127.0.0.1", NameForm::Long),
            ("a-b_1@host", "a-b_1", "host", NameForm::Short),
            ("x@::1", "x", "::1", NameForm::Long),
            ("x@h.example.org", "x", "h.example.org", NameForm::Long),
        ] {
            let parsed = NodeName::parse(name).unwrap();
            assert_eq!(
                (parsed.alive(), parsed.host(), parsed.form()),
                (alive, host, form)
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let form = |name: &str| matches!(NodeName::parse(name), Err(NameError::Form { .. }));
        assert!(form(""));
        assert!(form("a"));
        assert!(form("@h"));
        assert!(form("a@"));
        assert!(form("a@b@c"));
        assert_eq!(
            NodeName::parse("a.b@h"),
            Err(NameError::Character {
                name: "a.b@h".into(),
                at: 1
            })
        );
        assert!(matches!(
            NodeName::parse(b"a@h\xff"),
            Err(NameError::Character { at: 3, .. })
        ));
        assert!(matches!(
            NodeName::parse("a@h h"),
            Err(NameError::Character { at: 3, .. })
        ));
        let long = format!("{}@h", "a".repeat(254));
        assert_eq!(
            NodeName::parse(&long),
            Err(NameError::TooLong { length: 256 })
        );
        assert!(NodeName::parse(&long[1..]).is_ok());
    }

    /// `'B@h' < 'a@h' < 'z@h'` in Erlang.
    #[test]
    fn names_compare_as_atoms_do() {
        let name = |text: &str| NodeName::parse(text).unwrap();
        assert!(name("B@h") < name("a@h") && name("a@h") < name("z@h"));
        assert!(name("a-b@h") < name("a@h"), "'-' is less than '@'");
    }
}
