//! Messages that carry the id of what they are a part of, so that the logs of several nodes can be read together.

use serde::Serialize;
use serde::ser::{SerializeTuple, Serializer};
use tiebeam_wire::{Atom, Term};
use tracing::{Span, info_span};

use crate::message::{FromTerm, Misfit};
use crate::typed;

/// The first element of a message with an id.
const CORRELATED: &str = "$tiebeam_correlated";

/// A longer id is taken for none: it is written into every line of the log.
const MAX_ID_BYTES: usize = 64;

/// A message with the id of what it is a part of: `{'$tiebeam_correlated', Id, Message}`, with `Tiebeam.Correlation` on the BEAM.
///
/// Where a request enters the system it gets an id; each message that is sent because of it has the same one, from node to node, and each
/// handler works within a span that says it:
///
/// ```
/// use tiebeam_node::{Correlated, FromTerm, to_term};
/// use tracing::Instrument;
///
/// # #[derive(serde::Serialize)] struct Reserve { item: String }
/// # async fn reserve(_: &Correlated<Reserve>) {}
/// # async fn handle(order: Correlated<String>) {
/// let span = order.span(); // correlated{correlation_id="9f86d081884c7d65"}
/// async {
///     tracing::info!("an order");
///     let next = order.follow(Reserve { item: order.message.clone() }); // sent on, with the same id
///     reserve(&next).await;
/// }
/// .instrument(span)
/// .await;
/// # }
/// let order = Correlated::begin("tea");
/// let received = Correlated::<String>::from_term(&to_term(&order)?)?;
/// assert_eq!((received.id(), received.message.as_str()), (order.id(), "tea"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A receiver of `Correlated<M>` takes a plain `M`, too, which has no id; `M` may be [`Versioned`](crate::Versioned).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlated<M> {
    id: Option<String>,
    /// The message itself.
    pub message: M,
}

impl<M> Correlated<M> {
    /// The first message of something new: its id is random.
    pub fn begin(message: M) -> Self {
        let id = Some(format!("{:016x}", rand::random::<u64>()));
        Self { id, message }
    }

    /// With an id from elsewhere, such as that of an HTTP request; none if it is empty, or longer than 64 bytes.
    pub fn with_id(id: impl Into<String>, message: M) -> Self {
        Self {
            id: Some(id.into()).filter(|id| fits(id)),
            message,
        }
    }

    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Another message that is a part of the same.
    pub fn follow<N>(&self, message: N) -> Correlated<N> {
        Correlated {
            id: self.id.clone(),
            message,
        }
    }

    /// A span of the level info, with the field `correlation_id`; empty without an id.
    pub fn span(&self) -> Span {
        match &self.id {
            Some(id) => info_span!("correlated", correlation_id = id),
            None => Span::none(),
        }
    }
}

fn fits(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
}

impl<M: Serialize> Serialize for Correlated<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(id) = &self.id else {
            return self.message.serialize(serializer);
        };
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&Atom::of(CORRELATED))?;
        tuple.serialize_element(id)?;
        tuple.serialize_element(&self.message)?;
        tuple.end()
    }
}

impl<M: FromTerm> FromTerm for Correlated<M> {
    fn from_term(term: &Term) -> Result<Self, Misfit> {
        let (id, message) = match term.as_tuple() {
            Some([Term::Atom(tag), id, message]) if *tag == CORRELATED => {
                (typed::from_term(id).ok(), message)
            }
            _ => (None, term),
        };
        Ok(Self {
            id: id.filter(|id: &String| fits(id)),
            message: M::from_term(message)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Correlated<String> {
        Correlated::from_term(&Term::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_a_beam_reads_and_writes() {
        let message = Correlated::with_id("abc", "tea");
        let term = typed::to_term(&message).unwrap();
        let text = "{'$tiebeam_correlated', <<\"abc\">>, <<\"tea\">>}";
        assert_eq!(term, Term::parse(text).unwrap());
        assert_eq!(read(text).id(), Some("abc"));
        let next = message.follow(7);
        assert_eq!((next.id(), next.message), (Some("abc"), 7));
    }

    #[test]
    fn without_an_id_it_is_the_plain_message() {
        let plain = read("<<\"tea\">>");
        assert_eq!((plain.id(), plain.message.as_str()), (None, "tea"));
        assert_eq!(typed::to_term(&plain).unwrap(), Term::from("tea"));
        assert!(plain.span().is_none());
    }

    /// What a peer made up does not fill the log, and costs no message.
    #[test]
    fn an_id_that_is_none_is_left_out() {
        let long = "a".repeat(MAX_ID_BYTES + 1);
        for id in ["<<>>", "17", "<<255>>", &format!("<<\"{long}\">>")] {
            let read = read(&format!("{{'$tiebeam_correlated', {id}, <<\"tea\">>}}"));
            assert_eq!((read.id(), read.message.as_str()), (None, "tea"), "{id}");
        }
        assert_eq!(Correlated::with_id(long, ()).id(), None);
    }
}
