//! Faults as data: what goes wrong, and when.

use std::fmt;

use tiebeam_core::{Duration, Instant, NodeName, Random};

use crate::network::Conditions;

/// Something that goes wrong, or is put right, or is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between two nodes any more, and both notice late.
    Cut(NodeName, NodeName),
    /// Nothing passes from the first to the second any more.
    CutOneWay {
        /// Who is not heard.
        from: NodeName,
        /// Who does not hear.
        to: NodeName,
    },
    /// The two hear each other again.
    Heal(NodeName, NodeName),
    /// Nothing passes between these nodes and all others.
    Split(Vec<NodeName>),
    /// Nothing is cut any more.
    Unite,
    /// The network behaves differently from now on.
    Weather(Conditions),
    /// The connection between two nodes is closed; both notice at once.
    Disconnect(NodeName, NodeName),
    /// A node's program ends without a word; its host closes the connections.
    Crash(NodeName),
    /// A node and its host are gone: nobody is told.
    Vanish(NodeName),
    /// A node that crashed, left or never ran starts, with a new creation.
    Restart(NodeName),
    /// The driver of a node crashes and starts a new core; the node keeps its creation and its connections.
    Renew(NodeName),
    /// A node's whole process stands still (SIGSTOP): its timers come late and what it receives waits.
    Pause(NodeName, Duration),
    /// The driver of a node alone stands still, again and again: its kernel answers and its connections tick.
    Wedge {
        /// The node.
        node: NodeName,
        /// For how long it stands still.
        stalled: Duration,
        /// For how long it runs in between.
        awake: Duration,
    },
    /// The driver of a node runs as it should again.
    Unwedge(NodeName),
    /// A node is told to leave.
    Leave(NodeName),
    /// A node is given new metadata.
    SetMetadata(NodeName, Vec<u8>),
    /// A node is asked to tell all others something.
    Broadcast(NodeName, Vec<u8>),
    /// A connected node sends bytes that are no message.
    Garble {
        /// The sender.
        from: NodeName,
        /// The receiver.
        to: NodeName,
    },
    /// Everything that is cut may connect again, nothing is lost, and every seed that does not take part starts again; so
    /// does every other node that does not run, unless the plan leaves the dead alone.
    Calm,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(a, b) => write!(f, "cut {a} {b}"),
            Self::CutOneWay { from, to } => write!(f, "cut one way {from} {to}"),
            Self::Heal(a, b) => write!(f, "heal {a} {b}"),
            Self::Split(side) => write!(f, "split {side:?}"),
            Self::Unite => f.write_str("unite"),
            Self::Weather(conditions) => write!(f, "weather {conditions:?}"),
            Self::Disconnect(a, b) => write!(f, "disconnect {a} {b}"),
            Self::Crash(node) => write!(f, "crash {node}"),
            Self::Vanish(node) => write!(f, "vanish {node}"),
            Self::Restart(node) => write!(f, "restart {node}"),
            Self::Renew(node) => write!(f, "renew {node}"),
            Self::Pause(node, span) => write!(f, "pause {node} for {span}"),
            Self::Wedge {
                node,
                stalled,
                awake,
            } => {
                write!(f, "wedge {node}: {stalled} of {awake} awake")
            }
            Self::Unwedge(node) => write!(f, "unwedge {node}"),
            Self::Leave(node) => write!(f, "leave {node}"),
            Self::SetMetadata(node, bytes) => write!(f, "metadata {node}: {} bytes", bytes.len()),
            Self::Broadcast(node, bytes) => write!(f, "broadcast {node}: {} bytes", bytes.len()),
            Self::Garble { from, to } => write!(f, "garble {from} {to}"),
            Self::Calm => f.write_str("calm"),
        }
    }
}

/// Faults in the order of their times.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<(Instant, Fault)>);

impl Script {
    /// A script of one's own. Sorted by time; faults of the same time keep their order.
    pub fn new(mut faults: Vec<(Instant, Fault)>) -> Self {
        faults.sort_by_key(|&(at, _)| at);
        Self(faults)
    }

    /// About one fault per `pause` among `nodes` until `end`.
    pub fn random(random: &mut Random, nodes: &[NodeName], pause: Duration, end: Instant) -> Self {
        let mut faults = Vec::new();
        let mut at = Instant::ZERO;
        if nodes.len() < 2 {
            return Self::default();
        }
        loop {
            at = at + random.jitter(pause);
            if at >= end {
                return Self(faults);
            }
            let first = random.below(nodes.len() as u64) as usize;
            let other = (first + 1 + random.below(nodes.len() as u64 - 1) as usize) % nodes.len();
            let (a, b) = (nodes[first].clone(), nodes[other].clone());
            faults.push((at, Self::one(random, a, b, nodes)));
        }
    }

    fn one(random: &mut Random, a: NodeName, b: NodeName, nodes: &[NodeName]) -> Fault {
        match random.below(32) {
            0..=3 => Fault::Cut(a, b),
            4..=5 => Fault::CutOneWay { from: a, to: b },
            6..=9 => Fault::Heal(a, b),
            10 => Fault::Split(
                nodes
                    .iter()
                    .filter(|_| random.below(2) == 0)
                    .cloned()
                    .collect(),
            ),
            11..=12 => Fault::Unite,
            13 => Fault::Disconnect(a, b),
            14 => Fault::Crash(a),
            15 => Fault::Vanish(a),
            16..=19 => Fault::Restart(a),
            20 => Fault::Renew(a),
            21..=23 => Fault::Pause(a, Duration::from_millis(50 + random.below(20_000))),
            24 => Fault::Wedge {
                node: a,
                stalled: Duration::from_millis(100 + random.below(10_000)),
                awake: Duration::from_millis(1 + random.below(500)),
            },
            25 => Fault::Unwedge(a),
            26 => Fault::Leave(a),
            27..=28 => Fault::SetMetadata(a, random.bits().to_be_bytes().to_vec()),
            29..=30 => Fault::Broadcast(a, random.bits().to_be_bytes().to_vec()),
            _ => Fault::Garble { from: a, to: b },
        }
    }

    /// The faults and their times.
    pub fn faults(&self) -> &[(Instant, Fault)] {
        &self.0
    }
}
