//! What is known of another node, member or not.

use alloc::sync::Arc;

use super::member::{Kind, Member, Status};
use super::suspicion::Suspicion;
use crate::message::{Held, Metadata, Word};
use crate::time::{Duration, Instant};

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Named in `join`: never dropped, dialled whenever it is away.
    pub(super) seed: bool,
    /// Present while it is connected.
    pub(super) link: Option<Link>,
    /// Greetings sent since the connection last changed.
    pub(super) greetings: u32,
    /// Present from the first word about it on.
    pub(super) member: Option<Member>,
    /// The incarnation in which it told its metadata; `None` while they are not known.
    pub(super) told: Option<u64>,
    /// Present exactly while the member is suspect.
    pub(super) suspicion: Option<Suspicion>,
    /// When its status last changed.
    pub(super) changed: Instant,
    /// When it last spoke, or its kernel answered.
    pub(super) heard: Instant,
    /// When it was last told, unasked, what is held of it.
    pub(super) reminded: Option<Instant>,
    /// A word of another creation that waits for whether the known one still answers.
    pub(super) challenge: Option<Word>,
    /// The creation of the life that was held before the present one.
    pub(super) past: Option<u32>,
    /// The creation of another running node of this name, which is not listened to.
    pub(super) conflict: Option<u32>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The node is part of the mesh.
    pub(super) visible: bool,
    /// It spoke for itself on this connection, so it need not be greeted any more.
    pub(super) introduced: bool,
    /// The creation it speaks with on this connection.
    pub(super) creation: Option<u32>,
    /// It was told off for its cluster's identity.
    pub(super) refused: bool,
}

impl Peer {
    /// The member, while it is one.
    pub(super) fn here(&self) -> Option<&Member> {
        self.member
            .as_ref()
            .filter(|member| matches!(member.status, Status::Alive | Status::Suspect))
    }

    /// The member, if it can take part in the protocol: it speaks, and it is connected.
    pub(super) fn partner(&self) -> Option<&Member> {
        self.member.as_ref().filter(|member| {
            self.link.is_some() && member.status == Status::Alive && member.kind != Kind::Plain
        })
    }

    pub(super) fn held(&self) -> Option<Held> {
        self.member.as_ref().map(|member| Held {
            creation: member.creation,
            incarnation: member.incarnation,
            status: member.status,
        })
    }

    /// The metadata as far as they are known.
    pub(super) fn metadata(&self) -> Option<Metadata> {
        let member = self.member.as_ref()?;
        Some(Metadata {
            told: self.told?,
            bytes: Arc::clone(&member.metadata),
        })
    }

    /// An answer took `sample` (RFC 6298, section 2: each new sample weighs an eighth).
    pub(super) fn measured(&mut self, sample: Duration) {
        if let Some(member) = &mut self.member {
            let smoothed = member.round_trip.map_or(sample.as_micros(), |before| {
                (before.as_micros().saturating_mul(7)).saturating_add(sample.as_micros()) / 8
            });
            member.round_trip = Some(Duration::from_micros(smoothed));
        }
    }
}
