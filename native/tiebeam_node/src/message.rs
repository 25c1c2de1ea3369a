//! Messages that say of what kind and version they are, so that nodes of different releases can talk.
//!
//! Plain serde types need none of this: they are plain terms, and Elixir matches on them. A message in an envelope is
//!
//! ```text
//! {'$tiebeam_message', <<"orders.place">>, 2, Payload}
//! ```
//!
//! with its tag, its version, and the plain term. A receiver of a newer version lifts the payload step by step; one that
//! does not know the version, or got no envelope, answers a call with
//!
//! ```text
//! {error, {'$tiebeam_version', {<<"orders.place">>, 1}, {<<"orders.place">>, 2} | nil}}
//! ```
//!
//! where the first is what it takes, and the second what it got. [`Node::call`](crate::Node::call) gives that as
//! [`CallError::Version`](crate::CallError::Version); to Elixir it is a term to match on.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeTuple, Serializer};
use tiebeam_wire::{Atom, Term};

use crate::typed;

/// The first element of an envelope.
const ENVELOPE: &str = "$tiebeam_message";
/// The first element of the reason for which an envelope is refused.
const REFUSED: &str = "$tiebeam_version";

/// A type of messages that has versions. Send it, and take it, as [`Versioned`].
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tiebeam_node::{FromTerm, Message, Migration, Term, Versioned, from_term, to_term};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct Order {
///     item: String,
///     count: u32,
/// }
///
/// impl Message for Order {
///     const TAG: &'static str = "orders.place";
///     const VERSION: u32 = 2;
///     // Version 1 was the item alone.
///     const MIGRATIONS: &'static [Migration] = &[Migration {
///         from: 1,
///         with: |item| to_term(&Order { item: from_term(&item)?, count: 1 }),
///     }];
/// }
///
/// let order = Order { item: "tea".into(), count: 1 };
/// let term = to_term(&Versioned(&order))?;
/// let text = "{'$tiebeam_message', <<\"orders.place\">>, 2, #{item => <<\"tea\">>, count => 1}}";
/// assert_eq!(term, Term::parse(text)?);
///
/// let old = Term::parse("{'$tiebeam_message', <<\"orders.place\">>, 1, <<\"tea\">>}")?;
/// let Versioned(lifted) = Versioned::<Order>::from_term(&old)?;
/// assert_eq!(lifted, order);
///
/// let newer = Term::parse("{'$tiebeam_message', <<\"orders.place\">>, 3, nil}")?;
/// let refused = Versioned::<Order>::from_term(&newer).unwrap_err();
/// assert_eq!(refused.to_string(), "orders.place version 2 is taken, and orders.place version 3 came");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Message {
    /// What kind of message it is: the same on all nodes and for all time, such as `orders.place`.
    const TAG: &'static str;
    /// The version of this type. One more whenever older receivers would not understand it, or would misunderstand.
    const VERSION: u32;
    /// How payloads of older versions become newer ones, each by one version. Those of versions that are missing here are
    /// refused.
    const MIGRATIONS: &'static [Migration] = &[];
}

impl<M: Message> Message for &M {
    const TAG: &'static str = M::TAG;
    const VERSION: u32 = M::VERSION;
    const MIGRATIONS: &'static [Migration] = M::MIGRATIONS;
}

/// One step from an older version of a payload to the next.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The version that is lifted, to the one after it.
    pub from: u32,
    /// How. The error goes to whoever sent the message.
    pub with: fn(Term) -> Result<Term, typed::Error>,
}

/// A message in its envelope, with tag and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versioned<M>(pub M);

impl<M: Message + Serialize> Serialize for Versioned<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut envelope = serializer.serialize_tuple(4)?;
        envelope.serialize_element(&Atom::of(ENVELOPE))?;
        envelope.serialize_element(M::TAG)?;
        envelope.serialize_element(&M::VERSION)?;
        envelope.serialize_element(&self.0)?;
        envelope.end()
    }
}

/// What can be read from a term: every type that serde can deserialize, and those in a [`Versioned`] envelope.
pub trait FromTerm: Sized {
    /// The value that the term is.
    ///
    /// # Errors
    /// The term is not of this type, or not of a version that is understood.
    fn from_term(term: &Term) -> Result<Self, Misfit>;
}

impl<T: DeserializeOwned> FromTerm for T {
    fn from_term(term: &Term) -> Result<Self, Misfit> {
        typed::from_term(term).map_err(Misfit::Type)
    }
}

impl<M: Message + DeserializeOwned> FromTerm for Versioned<M> {
    fn from_term(term: &Term) -> Result<Self, Misfit> {
        let refused = |got| {
            Misfit::Version(VersionMismatch {
                expected: MessageVersion {
                    tag: M::TAG.to_owned(),
                    version: M::VERSION,
                },
                got,
            })
        };
        let Some((got, payload)) = opened(term) else {
            return Err(refused(None));
        };
        if got.tag != M::TAG {
            return Err(refused(Some(got)));
        }
        if got.version == M::VERSION {
            return typed::from_term(payload).map(Self).map_err(Misfit::Type);
        }
        let mut lifted = payload.clone();
        // Each step leads to a higher version: they come to an end.
        for version in got.version..M::VERSION {
            let Some(step) = M::MIGRATIONS.iter().find(|step| step.from == version) else {
                return Err(refused(Some(got)));
            };
            lifted = (step.with)(lifted).map_err(Misfit::Type)?;
        }
        if got.version > M::VERSION {
            return Err(refused(Some(got)));
        }
        typed::from_term(&lifted).map(Self).map_err(Misfit::Type)
    }
}

/// What an envelope says, and what is in it.
fn opened(term: &Term) -> Option<(MessageVersion, &Term)> {
    match term.as_tuple()? {
        [Term::Atom(envelope), version @ .., payload] if *envelope == ENVELOPE => {
            Some((MessageVersion::of(version)?, payload))
        }
        _ => None,
    }
}

/// The tag and the version of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageVersion {
    /// What kind of message.
    pub tag: String,
    /// Which version of it.
    pub version: u32,
}

impl MessageVersion {
    fn of(elements: &[Term]) -> Option<Self> {
        let [tag, version] = elements else {
            return None;
        };
        Some(Self {
            tag: typed::from_term(tag).ok()?,
            version: typed::from_term(version).ok()?,
        })
    }

    fn to_term(&self) -> Term {
        Term::tuple([
            Term::from(self.tag.as_str()),
            Term::from(i64::from(self.version)),
        ])
    }
}

impl fmt::Display for MessageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.tag, self.version)
    }
}

/// A message is of another kind or version than its receiver takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionMismatch {
    /// What the receiver takes.
    pub expected: MessageVersion,
    /// What it got; `None` if that was no envelope.
    pub got: Option<MessageVersion>,
}

impl VersionMismatch {
    fn to_term(&self) -> Term {
        let got = match &self.got {
            Some(got) => got.to_term(),
            None => Term::atom("nil"),
        };
        Term::tuple([Term::atom(REFUSED), self.expected.to_term(), got])
    }

    /// The refusal that a reply is, if it is one.
    pub(crate) fn of_reply(reply: &Term) -> Option<Self> {
        let [Term::Atom(error), reason] = reply.as_tuple()? else {
            return None;
        };
        let [Term::Atom(refused), Term::Tuple(expected), got] = reason.as_tuple()? else {
            return None;
        };
        if *error != "error" || *refused != REFUSED {
            return None;
        }
        Some(Self {
            expected: MessageVersion::of(expected)?,
            got: got.as_tuple().and_then(MessageVersion::of),
        })
    }
}

impl fmt::Display for VersionMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.got {
            Some(got) => write!(f, "{} is taken, and {got} came", self.expected),
            None => write!(
                f,
                "{} is taken, and what came has no version",
                self.expected
            ),
        }
    }
}

impl std::error::Error for VersionMismatch {}

/// Why a term is not the value that it should be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Misfit {
    /// It is of another type.
    Type(typed::Error),
    /// It is of another kind or version of messages.
    Version(VersionMismatch),
}

impl Misfit {
    /// What a server replies to a request that does not fit: `{error, {bad_request, Text}}`, or the refusal of its
    /// version.
    pub fn to_reply(&self) -> Term {
        let reason = match self {
            Self::Type(error) => {
                Term::tuple([Term::atom("bad_request"), Term::from(error.to_string())])
            }
            Self::Version(mismatch) => mismatch.to_term(),
        };
        Term::tuple([Term::atom("error"), reason])
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(error) => error.fmt(f),
            Self::Version(mismatch) => mismatch.fmt(f),
        }
    }
}

impl std::error::Error for Misfit {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct Place {
        item: String,
        count: u32,
        zone: String,
    }

    /// Version 1: the item. 2: item and count. 3: the zone, too.
    impl Message for Place {
        const TAG: &'static str = "orders.place";
        const VERSION: u32 = 3;
        const MIGRATIONS: &'static [Migration] = &[
            Migration {
                from: 1,
                with: |item| typed::to_term(&(item, 1)),
            },
            Migration {
                from: 2,
                with: |payload| {
                    let (item, count) = typed::from_term(&payload)?;
                    typed::to_term(&Place {
                        item,
                        count,
                        zone: "here".to_owned(),
                    })
                },
            },
        ];
    }

    #[derive(Serialize, Deserialize, Debug)]
    struct Cancel(String);

    impl Message for Cancel {
        const TAG: &'static str = "orders.cancel";
        const VERSION: u32 = 3;
    }

    fn read(text: &str) -> Result<Place, Misfit> {
        let term = Term::parse(text).unwrap();
        Versioned::<Place>::from_term(&term).map(|versioned| versioned.0)
    }

    fn tea(count: u32, zone: &str) -> Place {
        Place {
            item: "tea".to_owned(),
            count,
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let place = tea(2, "there");
        let term = typed::to_term(&Versioned(&place)).unwrap();
        assert_eq!(Versioned::<Place>::from_term(&term), Ok(Versioned(place)));
    }

    #[test]
    fn older_versions_are_lifted_step_by_step() {
        let one = read("{'$tiebeam_message', <<\"orders.place\">>, 1, <<\"tea\">>}");
        assert_eq!(one, Ok(tea(1, "here")));
        let two = read("{'$tiebeam_message', <<\"orders.place\">>, 2, {<<\"tea\">>, 5}}");
        assert_eq!(two, Ok(tea(5, "here")));
    }

    #[test]
    fn a_step_that_fails_says_why() {
        let bad = read("{'$tiebeam_message', <<\"orders.place\">>, 2, {<<\"tea\">>, many}}");
        let Err(Misfit::Type(error)) = bad else {
            panic!("{bad:?}");
        };
        assert_eq!(error.path(), "[1]");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_both_versions() {
        let place = |version| {
            Some(MessageVersion {
                tag: "orders.place".to_owned(),
                version,
            })
        };
        let cancel = typed::to_term(&Versioned(Cancel("tea".to_owned()))).unwrap();
        let cases = [
            (
                "{'$tiebeam_message', <<\"orders.place\">>, 4, nil}".to_owned(),
                place(4),
            ),
            // There is no way from a version that was never told of.
            (
                "{'$tiebeam_message', <<\"orders.place\">>, 0, nil}".to_owned(),
                place(0),
            ),
            (
                cancel.to_string(),
                Some(MessageVersion {
                    tag: "orders.cancel".to_owned(),
                    version: 3,
                }),
            ),
            ("place".to_owned(), None),
            (
                "{'$tiebeam_message', <<\"orders.place\">>, -1, nil}".to_owned(),
                None,
            ),
            ("{'$tiebeam_message', nil}".to_owned(), None),
            ("{'$tiebeam_message'}".to_owned(), None),
            ("{}".to_owned(), None),
        ];
        for (text, got) in cases {
            let refused = read(&text).unwrap_err();
            let Misfit::Version(mismatch) = &refused else {
                panic!("{text}: {refused:?}");
            };
            assert_eq!(Some(&mismatch.expected), place(3).as_ref());
            assert_eq!(mismatch.got, got, "{text}");
            assert_eq!(
                VersionMismatch::of_reply(&refused.to_reply()).as_ref(),
                Some(mismatch),
                "the caller reads what the server says"
            );
        }
    }

    #[test]
    fn other_errors_are_no_refusals() {
        for text in [
            "{error, taken}",
            "{error, {bad_request, <<>>}}",
            "ok",
            "{ok, {'$tiebeam_version', {<<>>, 1}, nil}}",
        ] {
            assert_eq!(VersionMismatch::of_reply(&Term::parse(text).unwrap()), None);
        }
    }
}
