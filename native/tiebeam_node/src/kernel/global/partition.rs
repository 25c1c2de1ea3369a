//! Overlapping partitions: why a node that cannot reach another one leaves the cluster with it, and how it comes back.
//!
//! A node that loses a connection says so to all others (`lost_connection`). Each of them passes that on, once, and
//! removes the lost node (`remove_connection`), which then closes the connection. So either all nodes of a partition
//! are connected with a node, or none is. Source: `global.erl`, "Prevent Overlapping Partitions Algorithm".

use std::collections::BTreeMap;

use tiebeam_core::{Duration, Instant};
use tiebeam_wire::{Atom, Term};
use tracing::{info, warn};

use super::machine::{Action, Machine};
use super::messages::{Message, VERSION_PARTITIONS};

/// How long a report is remembered, so that its copies are known as such.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Reports that are remembered. There is one for each ordered pair of nodes; past this many the oldest go first.
const REPORTS_MAX: usize = 1 << 16;

/// The first and the longest pause between attempts to find back to a cluster, and how long they go on.
const REJOIN_FIRST: Duration = Duration::from_secs(1);
const REJOIN_MAX: Duration = Duration::from_secs(30);
const REJOIN_FOR: Duration = Duration::from_secs(3600);

/// Connections that others, or this node, reported as lost.
#[derive(Debug, Default)]
pub(super) struct Reports {
    by_pair: BTreeMap<(Atom, Atom), Report>,
    /// The number of this node's last report.
    pub(super) operation: i64,
}

#[derive(Debug)]
struct Report {
    creation: Term,
    operation: i64,
    at: Instant,
}

impl Reports {
    /// Whether the report is news; then it is remembered.
    fn is_news(
        &mut self,
        pair: (Atom, Atom),
        creation: Term,
        operation: i64,
        now: Instant,
    ) -> bool {
        let known = self.by_pair.get(&pair);
        if known.is_some_and(|known| known.creation == creation && operation <= known.operation) {
            return false;
        }
        self.by_pair
            .retain(|_, report| now.since(report.at) < REMEMBERED);
        if self.by_pair.len() >= REPORTS_MAX {
            let oldest = self.by_pair.iter().min_by_key(|(_, report)| report.at);
            if let Some(oldest) = oldest.map(|(pair, _)| pair.clone()) {
                self.by_pair.remove(&oldest);
            }
        }
        let report = Report {
            creation,
            operation,
            at: now,
        };
        self.by_pair.insert(pair, report);
        true
    }
}

/// The search for a cluster that this node has lost.
#[derive(Debug, Default)]
pub(super) struct Rejoin {
    /// Who was known before, and since when it is not.
    lost: BTreeMap<Atom, Instant>,
    next: Option<Instant>,
    times: u32,
}

impl Rejoin {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// A node is known again.
    pub(super) fn found(&mut self, node: &Atom) {
        self.lost.remove(node);
        self.next = None;
    }
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loss {
    /// Its connection is gone, or cannot be made.
    Disconnected,
    /// It is to be left out; its connection goes later.
    Removed,
}

impl Machine {
    /// Forgets a node. Source: `global:handle_nodedown/3`.
    pub(super) fn lose(&mut self, node: &Atom, loss: Loss) {
        let greeted = self
            .sessions
            .get(node)
            .is_some_and(|session| session.his.is_some());
        let was_known = self.known.contains_key(node) || greeted;
        match loss {
            // Its nodedown will come, and is then no news.
            Loss::Removed if self.connected.contains(node) => {
                self.removing.insert(node.clone());
            }
            Loss::Removed => {}
            Loss::Disconnected => {
                if !self.removing.remove(node) {
                    self.report_loss(node);
                }
            }
        }
        self.dialling.remove(node);
        self.end_session(node);
        self.known.remove(node);
        self.synced.remove(node);
        if was_known && self.config.rejoin {
            self.rejoin.lost.insert(node.clone(), self.now);
        }
        self.not_to_be_synced(node);
        self.plan_rejoin();
    }

    fn report_loss(&mut self, lost: &Atom) {
        if !self.prevents_overlap() {
            return;
        }
        self.reports.operation += 1;
        let report = Message::LostConnection {
            reporter: self.config.node.clone(),
            creation: Term::from(self.config.creation),
            operation: self.reports.operation,
            lost: lost.clone(),
        };
        self.tell_all_but(lost, &report);
    }

    fn prevents_overlap(&self) -> bool {
        self.config.connect_all && self.config.prevent_overlapping_partitions
    }

    /// To all that are known or about to be, without setting up connections.
    fn tell_all_but(&mut self, except: &Atom, message: &Message) {
        let greeted = self.sessions.iter().filter_map(|(node, session)| {
            let his = session.his.as_ref()?;
            Some((node.clone(), his.version))
        });
        let all: BTreeMap<Atom, i64> = greeted.chain(self.known_list()).collect();
        for (node, version) in all {
            if node != *except && version >= VERSION_PARTITIONS {
                self.send_connected(&node, message.clone());
            }
        }
    }

    fn is_potentially_known(&self, node: &Atom) -> bool {
        let session = self.sessions.get(node);
        self.known.contains_key(node) || session.is_some_and(|session| session.his.is_some())
    }

    /// Their `lost_connection`.
    pub(super) fn reported_lost(
        &mut self,
        reporter: Atom,
        creation: Term,
        operation: i64,
        lost: Atom,
    ) {
        if !self.prevents_overlap() {
            return;
        }
        let pair = (reporter.clone(), lost.clone());
        if !self
            .reports
            .is_news(pair, creation.clone(), operation, self.now)
        {
            return;
        }
        let report = Message::LostConnection {
            reporter: reporter.clone(),
            creation,
            operation,
            lost: lost.clone(),
        };
        self.tell_all_but(&reporter, &report);
        // All others remove this node; there is no need that they remove the reporter as well.
        let removed = match lost == self.config.node {
            true => reporter,
            false => lost,
        };
        if removed == self.config.node || !self.is_potentially_known(&removed) {
            return;
        }
        if self.version_of(&removed) < VERSION_PARTITIONS {
            self.act(Action::Disconnect {
                node: removed.clone(),
            });
        } else {
            let message = Message::RemoveConnection {
                node: self.config.node.clone(),
            };
            self.send_connected(&removed, message);
        }
        warn!(
            "'global' at node {} requested disconnect from node {removed} in order to prevent overlapping partitions",
            self.config.node
        );
        self.lose(&removed, Loss::Removed);
    }

    /// Their `remove_connection`.
    pub(super) fn removed_by(&mut self, node: &Atom) {
        if !self.is_potentially_known(node) {
            // Both removed the other at the same time: each would wait for ever until the other closes the connection.
            // (OTP 25 does.)
            if self.removing.contains(node) {
                self.act(Action::Disconnect { node: node.clone() });
            }
            return;
        }
        self.act(Action::Disconnect { node: node.clone() });
        warn!(
            "'global' at node {} disconnected node {node} in order to prevent overlapping partitions",
            self.config.node
        );
        self.lose(node, Loss::Removed);
    }

    /// A node that is alone after it had been part of a cluster looks for it.
    fn plan_rejoin(&mut self) {
        let rejoin = &mut self.rejoin;
        if self.known.is_empty() && !rejoin.lost.is_empty() && rejoin.next.is_none() {
            rejoin.next = Some(self.now + self.random.jitter(REJOIN_FIRST));
            rejoin.times = 0;
        }
    }

    /// Tries one of the lost nodes, if it is time.
    pub(super) fn run_rejoin(&mut self) {
        let (now, rejoin) = (self.now, &mut self.rejoin);
        if rejoin.next.is_none_or(|next| next > now) {
            return;
        }
        rejoin
            .lost
            .retain(|_, since| now.since(*since) < REJOIN_FOR);
        let chosen = self.random.below(rejoin.lost.len() as u64) as usize;
        let Some(node) = rejoin.lost.keys().nth(chosen).cloned() else {
            info!("gave up the search for the cluster that this node was part of");
            rejoin.next = None;
            return;
        };
        rejoin.times += 1;
        let pause = REJOIN_FIRST.doubled(rejoin.times, REJOIN_MAX);
        rejoin.next = Some(now + self.random.jitter(pause));
        if !self.connected.contains(&node) {
            info!(%node, "looking for the cluster that this node was part of");
            self.act(Action::Connect { node });
        }
    }
}
