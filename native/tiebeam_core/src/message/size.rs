//! How many bytes a message takes, before it is written: what rides along is chosen to fit.

use super::{BUCKETS, Body, Broadcast, Claim, Message, Word};
use crate::identity::NodeName;

/// How many bytes something takes.
pub(crate) trait Size {
    fn size(&self) -> usize;
}

impl Size for Message {
    fn size(&self) -> usize {
        let body = match &self.body {
            Body::Hello(hello) | Body::Welcome(hello) => {
                let held = if hello.held.is_some() { 14 } else { 1 };
                hello.cluster.len()
                    + text_size(&hello.node)
                    + hello.metadata.bytes.len()
                    + 13
                    + held
            }
            Body::Refused { cluster } => 2 + cluster.len(),
            Body::Leave | Body::Gossip => 0,
            Body::Ping { .. } | Body::Nack { .. } => 8,
            Body::Ack { .. } => 20,
            Body::PingReq { node, .. } => 8 + text_size(node),
            Body::Digest { .. } => 4 * (BUCKETS + 1),
            Body::Table { .. } => 5,
        };
        let words: usize = self.words.iter().map(Size::size).sum();
        let broadcasts: usize = self.broadcasts.iter().map(Size::size).sum();
        18 + body + 2 + words + 1 + broadcasts
    }
}

impl Size for Word {
    fn size(&self) -> usize {
        let by = match &self.claim {
            Claim::Suspect { by } => text_size(by),
            Claim::Alive | Claim::Dead | Claim::Left => 0,
        };
        let metadata = self
            .metadata
            .as_ref()
            .map_or(0, |metadata| 10 + metadata.bytes.len());
        text_size(&self.node) + 14 + by + 1 + metadata
    }
}

impl Size for Broadcast {
    fn size(&self) -> usize {
        text_size(&self.id.origin) + 16 + 2 + self.bytes.len()
    }
}

fn text_size(name: &NodeName) -> usize {
    2 + name.as_str().len()
}
