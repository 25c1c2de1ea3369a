//! One node whose peers are played by the test.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{name, news_of};
use crate::message::{Body, Claim, Hello, Message, Metadata, Word, cluster_digest, decode, encode};
use crate::{Action, Cluster, Config, Event, Instant, Kind, Status};

pub(super) struct Node {
    pub(super) cluster: Cluster,
    /// Milliseconds.
    pub(super) now: u64,
}

pub(super) fn config(node: &str) -> Config {
    Config::new(name(node), 1, Kind::Rust)
}

impl Node {
    pub(super) fn new(config: Config) -> Self {
        let mut node = Self {
            cluster: Cluster::new(config).unwrap(),
            now: 0,
        };
        node.step(Event::Woke);
        node
    }

    /// A node that has met the others, all of creation 1 and incarnation 0.
    pub(super) fn among(config: Config, others: &[&str]) -> Self {
        let mut node = Self::new(config);
        for other in others {
            node.connected(other);
            node.received(other, welcome(other, 1, 0));
        }
        node
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let now = Instant::from_millis(self.now);
        self.cluster.step(now, event, &mut actions);
        actions
    }

    pub(super) fn connected(&mut self, to: &str) -> Vec<Action> {
        let to = name(to);
        self.step(Event::Connected { to, visible: true })
    }

    pub(super) fn disconnected(&mut self, from: &str) -> Vec<Action> {
        self.step(Event::Disconnected { from: name(from) })
    }

    pub(super) fn received(&mut self, from: &str, message: Message) -> Vec<Action> {
        self.step(Event::Received {
            from: name(from),
            bytes: encode(&message),
        })
    }

    /// Steps at each deadline up to `until`.
    pub(super) fn sleep_until(&mut self, until: u64) -> Vec<Action> {
        self.live_until(until, &[])
    }

    /// The same, while `others` answer each ping, and hear nothing of whom they are asked to ping.
    pub(super) fn live_until(&mut self, until: u64, others: &[&str]) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(deadline) = self.cluster.deadline() {
            let due = deadline.as_micros().div_ceil(1000);
            if due > until {
                break;
            }
            self.now = self.now.max(due);
            let done = self.step(Event::Woke);
            for (to, message) in sent(&done) {
                if !others.contains(&&*to) {
                    continue;
                }
                let held = self.status(&to).map_or(0, |(incarnation, _)| incarnation);
                let answer = match message.body {
                    Body::Ping { number } => Body::Ack {
                        number,
                        creation: 1,
                        incarnation: held,
                    },
                    Body::PingReq { number, .. } => Body::Nack { number },
                    _ => continue,
                };
                actions.extend(self.received(&to, message_of(1, held, answer)));
            }
            actions.extend(done);
        }
        self.now = until;
        actions
    }

    pub(super) fn statuses(&self) -> Vec<(String, Status)> {
        let members = self.cluster.view().members();
        members
            .map(|member| (member.node.to_string(), member.status))
            .collect()
    }

    /// The incarnation and status of a member.
    pub(super) fn status(&self, node: &str) -> Option<(u64, Status)> {
        let mut members = self.cluster.view().members();
        members
            .find(|member| member.node == name(node))
            .map(|member| (member.incarnation, member.status))
    }
}

pub(super) fn message_of(creation: u32, incarnation: u64, body: Body) -> Message {
    Message {
        cluster: cluster_digest("default"),
        creation,
        incarnation,
        body,
        words: Vec::new(),
        broadcasts: Vec::new(),
    }
}

/// Gossip of a node of creation 1 and incarnation 0.
pub(super) fn gossip(words: impl IntoIterator<Item = Word>) -> Message {
    Message {
        words: words.into_iter().collect(),
        ..message_of(1, 0, Body::Gossip)
    }
}

pub(super) fn introduction(node: &str, incarnation: u64) -> Hello {
    Hello {
        cluster: String::from("default"),
        node: name(node),
        kind: Kind::Beam,
        metadata: Metadata {
            told: incarnation,
            bytes: Arc::from(&[][..]),
        },
        held: None,
    }
}

pub(super) fn hello(node: &str, creation: u32, incarnation: u64) -> Message {
    let body = Body::Hello(introduction(node, incarnation));
    message_of(creation, incarnation, body)
}

pub(super) fn welcome(node: &str, creation: u32, incarnation: u64) -> Message {
    let body = Body::Welcome(introduction(node, incarnation));
    message_of(creation, incarnation, body)
}

pub(super) fn word(node: &str, creation: u32, incarnation: u64, claim: Claim) -> Word {
    Word {
        node: name(node),
        creation,
        incarnation,
        kind: Kind::Beam,
        claim,
        metadata: None,
    }
}

pub(super) fn suspect(by: &str) -> Claim {
    Claim::Suspect { by: name(by) }
}

pub(super) fn sent(actions: &[Action]) -> Vec<(String, Message)> {
    let sent = |action: &Action| match action {
        // What the registry says is no concern of these tests.
        Action::Send { bytes, .. } if bytes.starts_with(&crate::registry::PREFIX) => None,
        Action::Send { to, bytes } => Some((to.to_string(), decode(bytes).unwrap())),
        _ => None,
    };
    actions.iter().filter_map(sent).collect()
}

/// The bodies of what was sent to one node.
pub(super) fn bodies(actions: &[Action], node: &str) -> Vec<Body> {
    let sent = sent(actions).into_iter().filter(|(to, _)| to == node);
    sent.map(|(_, message)| message.body).collect()
}

pub(super) fn news(actions: &[Action]) -> Vec<String> {
    let notices = actions.iter().filter_map(|action| match action {
        Action::Notify(notice) => news_of(notice),
        _ => None,
    });
    notices.collect()
}
