//! One node among liars: whatever is said to it, in whatever order, it neither panics nor contradicts itself.

use alloc::sync::Arc;
use std::collections::BTreeMap;

use super::node::*;
use super::*;
use crate::message::{
    BUCKETS, Body, Broadcast, BroadcastId, Claim, Held, Hello, Message, Metadata, Word,
    cluster_digest,
};
use crate::random::Random;
use crate::{CallId, Command, Duration, Event};

const NAMES: [&str; 6] = ["a@h", "b@h", "c@h", "d@h", "e@h", "f@h"];

fn some_name(random: &mut Random) -> NodeName {
    name(NAMES[random.below(NAMES.len() as u64) as usize])
}

fn incarnation(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        _ => random.below(12),
    }
}

fn metadata(random: &mut Random) -> Metadata {
    Metadata {
        told: incarnation(random),
        bytes: Arc::from(&[1, 2, 3][..random.below(4) as usize]),
    }
}

fn some_word(random: &mut Random) -> Word {
    let by = some_name(random);
    let kinds = [Kind::Beam, Kind::Rust, Kind::Plain];
    let claims = [
        Claim::Alive,
        Claim::Suspect { by },
        Claim::Dead,
        Claim::Left,
    ];
    Word {
        node: some_name(random),
        creation: random.below(3) as u32,
        incarnation: incarnation(random),
        kind: kinds[random.below(3) as usize],
        claim: claims[random.below(4) as usize].clone(),
        metadata: (random.below(2) == 0).then(|| metadata(random)),
    }
}

fn some_hello(random: &mut Random, node: NodeName) -> Hello {
    let statuses = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
    let held = (random.below(2) == 0).then(|| Held {
        creation: random.below(3) as u32,
        incarnation: incarnation(random),
        status: statuses[random.below(4) as usize],
    });
    let clusters = ["default", "default", "default", "blue"];
    Hello {
        cluster: clusters[random.below(4) as usize].into(),
        node,
        kind: [Kind::Beam, Kind::Plain][random.below(2) as usize],
        metadata: metadata(random),
        held,
    }
}

fn some_message(random: &mut Random, from: &NodeName, number: u64) -> Message {
    let body = match random.below(14) {
        0 | 1 => Body::Hello(some_hello(random, from.clone())),
        2 => Body::Welcome(some_hello(random, from.clone())),
        3 => Body::Refused {
            cluster: "blue".into(),
        },
        4 => Body::Leave,
        5 => Body::Ping { number },
        6 | 7 => Body::Ack {
            number,
            creation: random.below(3) as u32,
            incarnation: incarnation(random),
        },
        8 => Body::PingReq {
            number,
            node: some_name(random),
        },
        9 => Body::Nack { number },
        10 => Body::Digest {
            members: [random.bits() as u32; BUCKETS],
            broadcasts: random.below(2) as u32,
        },
        11 => Body::Table {
            wanted: random.bits() as u32,
            broadcasts: random.below(2) == 0,
        },
        _ => Body::Gossip,
    };
    let broadcast = Broadcast {
        id: BroadcastId {
            origin: some_name(random),
            creation: 1,
            number: random.below(100),
        },
        remaining: random.below(70_000) as u32,
        bytes: Arc::from(*b"x"),
    };
    Message {
        cluster: if random.below(30) == 0 {
            1
        } else {
            cluster_digest("default")
        },
        creation: random.below(3) as u32,
        incarnation: incarnation(random),
        body,
        words: (0..random.below(4)).map(|_| some_word(random)).collect(),
        broadcasts: (random.below(4) == 0)
            .then_some(broadcast)
            .into_iter()
            .collect(),
    }
}

/// `Cluster::step` checks the node's state after each step. Besides: of each life there is one `Up` before one `Down`,
/// and what is sent can be read.
#[test]
fn liars_cannot_make_a_node_contradict_itself() {
    let mut changes: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..30 {
        let random = &mut Random::from_seed(seed);
        let mut a = Node::new(Config {
            evict: seed % 2 == 0,
            seed,
            timing: Timing {
                forget_after: Duration::from_secs(30),
                ..Timing::fast()
            },
            join: [name("b@h")].into(),
            ..config("a@h")
        });
        let mut here: BTreeMap<NodeName, bool> = BTreeMap::new();
        let mut number = 0;
        for step in 0..3_000 {
            let replay = std::format!("seed {seed}, step {step}");
            a.now += match random.below(30) {
                0 => random.below(5_000),
                _ => random.below(40),
            };
            let from = some_name(random);
            let event = match random.below(16) {
                0 => Event::Connected {
                    to: from,
                    visible: random.below(4) > 0,
                },
                1 if random.below(2) == 0 => Event::Disconnected { from },
                2 => Event::Observed {
                    node: from,
                    probe: number,
                },
                3 => Event::Sampled {
                    node: from,
                    received: (random.below(3) > 0).then(|| random.below(3)),
                },
                4 => Event::Asked {
                    call: CallId(1),
                    command: match random.below(2) {
                        0 => Command::SetMetadata([random.bits() as u8].into()),
                        _ => Command::Broadcast([random.bits() as u8].into()),
                    },
                },
                5 | 6 => Event::Woke,
                _ => Event::Received {
                    bytes: crate::message::encode(&some_message(random, &from, number)),
                    from,
                },
            };
            let actions = a.step(event);
            for (_, message) in sent(&actions) {
                if let Body::Ping { number: sent } = message.body {
                    number = sent;
                }
            }
            for notice in news(&actions) {
                let kinds = [
                    "up",
                    "down",
                    "left",
                    "recovered",
                    "contested",
                    "conflict",
                    "stalled",
                ];
                if let Some(kind) = kinds.into_iter().find(|kind| notice.starts_with(kind)) {
                    *changes.entry(kind).or_default() += 1;
                }
            }
            for action in &actions {
                let (member, up) = match action {
                    Action::Notify(Notice::Up(member)) => (member, true),
                    Action::Notify(Notice::Down(member) | Notice::Left(member)) => (member, false),
                    _ => continue,
                };
                let before = here.insert(member.node.clone(), up);
                assert_ne!(before.unwrap_or(false), up, "{replay}: {action:?}");
            }
            for member in a.cluster.view().members() {
                let listed = matches!(member.status, Status::Alive | Status::Suspect);
                let told = here
                    .get(&member.node)
                    .copied()
                    .unwrap_or(member.node == name("a@h"));
                assert_eq!(listed, told, "{replay}: {member:?}");
            }
        }
    }
    assert_eq!(changes.len(), 7, "all of these happened: {changes:?}");
    assert!(changes["up"] > 1_000, "{changes:?}");
}
