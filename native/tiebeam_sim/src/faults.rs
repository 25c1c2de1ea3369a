//! Faults as data: what goes wrong, and when.

use std::fmt;

use tiebeam_core::{Duration, Instant, NodeName, Random};

/// Something that goes wrong, or is put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between two nodes any more, and both notice late.
    Cut(NodeName, NodeName),
    /// The two may connect again.
    Heal(NodeName, NodeName),
    /// The connection between two nodes is closed; both notice at once.
    Disconnect(NodeName, NodeName),
    /// A node's program ends without a word.
    Crash(NodeName),
    /// A node that crashed or left starts again, with a new creation.
    Restart(NodeName),
    /// The driver of a node crashes and starts a new core; the node keeps its creation and its connections.
    Renew(NodeName),
    /// A node is told to leave.
    Leave(NodeName),
    /// A connected node sends bytes that are no message.
    Garble {
        /// The sender.
        from: NodeName,
        /// The receiver.
        to: NodeName,
    },
    /// Everything that is cut may connect again, no send is lost, and every node that crashed starts again, as does every
    /// seed that left.
    Calm,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(a, b) => write!(f, "cut {a} {b}"),
            Self::Heal(a, b) => write!(f, "heal {a} {b}"),
            Self::Disconnect(a, b) => write!(f, "disconnect {a} {b}"),
            Self::Crash(node) => write!(f, "crash {node}"),
            Self::Restart(node) => write!(f, "restart {node}"),
            Self::Renew(node) => write!(f, "renew {node}"),
            Self::Leave(node) => write!(f, "leave {node}"),
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
            faults.push((
                at,
                match random.below(16) {
                    0..=3 => Fault::Cut(a, b),
                    4..=6 => Fault::Heal(a, b),
                    7 => Fault::Disconnect(a, b),
                    8..=9 => Fault::Crash(a),
                    10..=12 => Fault::Restart(a),
                    13 => Fault::Renew(a),
                    14 => Fault::Leave(a),
                    _ => Fault::Garble { from: a, to: b },
                },
            ));
        }
    }

    /// The faults and their times.
    pub fn faults(&self) -> &[(Instant, Fault)] {
        &self.0
    }
}
