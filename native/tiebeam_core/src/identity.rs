//! Who a node is: its name, which start of that name, and which word of its own.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// The most characters a node name has: it is an atom on the BEAM, and an atom has at most 255.
pub const MAX_NODE_NAME_CHARS: usize = 255;

/// The most bytes a node name has: [`MAX_NODE_NAME_CHARS`] characters of at most two bytes.
pub const MAX_NODE_NAME_BYTES: usize = MAX_NODE_NAME_CHARS * 2;

/// The name of a node, `name@host`. Cheap to clone; ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Takes `text` for a node name.
    ///
    /// # Errors
    ///
    /// Anything but `name@host` with both parts, of at most [`MAX_NODE_NAME_CHARS`] characters from `!` to `ÿ`. OTP's
    /// `net_kernel` allows no others, and every BEAM can make an atom of what is left.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        let error = |reason| NodeNameError {
            reason,
            name: shortened(text),
        };
        if text.chars().count() > MAX_NODE_NAME_CHARS {
            return Err(error("is longer than 255 characters, the limit of an atom"));
        }
        match text.split_once('@') {
            Some((name, host)) if !name.is_empty() && !host.is_empty() => {}
            Some(_) | None => return Err(error("is not of the form name@host")),
        }
        if text.chars().any(|c| !('!'..='ÿ').contains(&c)) {
            return Err(error(
                "has a character that a node name must not have: only ! to ÿ",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// At most 64 characters of `text`, for an error message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => text[..end].to_owned() + "…",
        None => text.to_owned(),
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a node name, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNameError {
    name: String,
    reason: &'static str,
}

impl fmt::Display for NodeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node name {:?} {}", self.name, self.reason)
    }
}

impl core::error::Error for NodeNameError {}

/// One life of a node.
///
/// The creation tells two starts of the same name apart (OTP: `erlang:system_info(creation)`). Creations are only ever
/// compared for equality: which of two is newer is known from the connection that carries them, not from the number. The
/// incarnation is raised by the node itself alone, to outdo what others say of it (SWIM, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub node: NodeName,
    /// Which start of that name.
    pub creation: u32,
    /// Which word of the node about itself.
    pub incarnation: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.node, self.creation, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_have_a_host() {
        for good in ["a@b", "nonode@nohost", "rust@127.0.0.1", "a@ÿ", "a@b@c"] {
            assert_eq!(NodeName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "@", "a@", "@b", "a@b\n", "a b@c", "a@𝄞"] {
            assert!(NodeName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_limit_counts_characters_as_atoms_do() {
        let name = |chars: usize| "é".repeat(chars - 2) + "@h";
        assert!(NodeName::parse(&name(MAX_NODE_NAME_CHARS)).is_ok());
        let error = NodeName::parse(&name(MAX_NODE_NAME_CHARS + 1)).unwrap_err();
        assert!(
            error.to_string().len() < 300,
            "an error repeats only the beginning of a long name"
        );
    }
}
