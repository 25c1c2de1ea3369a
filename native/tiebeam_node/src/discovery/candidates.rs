//! The nodes that a search has found: when each may be dialled, and which have vanished. Pure: time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tiebeam_wire::handshake::NodeName;

/// Distinct names that a search remembers: more than any cluster has, and some hundred kilobytes. Beyond that those unseen
/// for longest are forgotten, a quarter at once, so that whoever makes up names costs this memory and little time.
pub const MAX_CANDIDATES: usize = 4096;

/// In so many complete answers in succession a node must be missing to have vanished: name servers that cut or rotate their
/// answers leave out other nodes each time.
pub const MISSED_ANSWERS: u32 = 3;

/// Time since the search began.
pub(super) type Time = Duration;

#[derive(Debug, Default)]
pub(super) struct Candidates {
    nodes: HashMap<NodeName, Candidate>,
    /// Looks so far.
    looks: u64,
}

#[derive(Debug)]
struct Candidate {
    /// The last look that found it.
    seen: u64,
    /// How many complete answers in succession it was missing from.
    missed: u32,
    /// Dials in succession that did not reach it.
    failures: u32,
    /// Not to be dialled before.
    not_before: Time,
    dialling: bool,
}

impl Candidates {
    /// Takes what a look has found; gives the nodes that have vanished, and forgets them.
    pub(super) fn found(&mut self, nodes: Vec<NodeName>, complete: bool) -> Vec<NodeName> {
        self.looks += 1;
        let looks = self.looks;
        let nothing = nodes.is_empty();
        self.make_room(&nodes);
        for node in nodes.into_iter().take(MAX_CANDIDATES) {
            // Those that are being dialled are in the way.
            if !self.nodes.contains_key(&node) && self.nodes.len() >= MAX_CANDIDATES {
                continue;
            }
            let candidate = self.nodes.entry(node).or_insert(Candidate {
                seen: looks,
                missed: 0,
                failures: 0,
                not_before: Time::ZERO,
                dialling: false,
            });
            candidate.seen = looks;
            candidate.missed = 0;
        }
        // An answer without any node is more likely a mishap than the end of them all.
        if !complete || nothing {
            return Vec::new();
        }
        let mut vanished = Vec::new();
        self.nodes.retain(|node, candidate| {
            if candidate.seen < looks {
                candidate.missed += 1;
            }
            if candidate.missed >= MISSED_ANSWERS && !candidate.dialling {
                vanished.push(node.clone());
            }
            candidate.missed < MISSED_ANSWERS || candidate.dialling
        });
        vanished.sort();
        vanished
    }

    /// Makes room for those of these nodes that are new, and forgets none of them.
    fn make_room(&mut self, nodes: &[NodeName]) {
        let found: HashSet<&NodeName> = nodes.iter().take(MAX_CANDIDATES).collect();
        let new = found.iter().filter(|node| !self.nodes.contains_key(**node));
        let excess = (self.nodes.len() + new.count()).saturating_sub(MAX_CANDIDATES);
        if excess == 0 {
            return;
        }
        let mut old: Vec<_> = self
            .nodes
            .iter()
            .filter(|(node, candidate)| !candidate.dialling && !found.contains(node))
            .map(|(node, candidate)| (candidate.seen, node.clone()))
            .collect();
        old.sort();
        old.truncate(excess.max(MAX_CANDIDATES / 4));
        for (_, node) in old {
            self.nodes.remove(&node);
        }
    }

    /// Of the nodes that the last look found, at most `room` to dial now: not `connected`, not dialled already, not failed a
    /// moment ago; those that failed least come first. Counts them as being dialled.
    pub(super) fn next_dials(
        &mut self,
        now: Time,
        room: usize,
        connected: impl Fn(&NodeName) -> bool,
    ) -> Vec<NodeName> {
        let looks = self.looks;
        let mut due: Vec<_> = self
            .nodes
            .iter()
            .filter(|(node, candidate)| {
                candidate.seen == looks
                    && !candidate.dialling
                    && candidate.not_before <= now
                    && !connected(node)
            })
            .map(|(node, candidate)| (candidate.failures, node.clone()))
            .collect();
        due.sort();
        due.truncate(room);
        let due: Vec<_> = due.into_iter().map(|(_, node)| node).collect();
        for node in &due {
            if let Some(candidate) = self.nodes.get_mut(node) {
                candidate.dialling = true;
            }
        }
        due
    }

    /// A dial has reached its node.
    pub(super) fn reached(&mut self, node: &NodeName) {
        if let Some(candidate) = self.nodes.get_mut(node) {
            candidate.dialling = false;
            candidate.failures = 0;
            candidate.not_before = Time::ZERO;
        }
    }

    /// A dial has not reached its node, which then rests for what `pause` makes of the number of failures. Gives that
    /// number.
    pub(super) fn failed(
        &mut self,
        node: &NodeName,
        now: Time,
        pause: impl Fn(u32) -> Duration,
    ) -> u32 {
        let Some(candidate) = self.nodes.get_mut(node) else {
            return 0;
        };
        candidate.dialling = false;
        candidate.failures = candidate.failures.saturating_add(1);
        candidate.not_before = now + pause(candidate.failures);
        candidate.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn names(texts: &[&str]) -> Vec<NodeName> {
        texts.iter().map(|text| name(text)).collect()
    }

    fn nobody(_: &NodeName) -> bool {
        false
    }

    #[test]
    fn a_node_is_dialled_once_at_a_time_and_not_while_it_is_connected() {
        let mut candidates = Candidates::default();
        candidates.found(names(&["a@h", "b@h"]), true);
        let a = name("a@h");
        assert_eq!(
            candidates.next_dials(SECOND, 8, |node| *node == a),
            [name("b@h")]
        );
        candidates.found(names(&["a@h", "b@h"]), true);
        assert_eq!(
            candidates.next_dials(SECOND, 8, nobody),
            names(&["a@h"]),
            "b is being dialled"
        );
        candidates.reached(&name("b@h"));
        candidates.reached(&a);
        // Both are gone again.
        assert_eq!(
            candidates.next_dials(SECOND, 8, nobody),
            names(&["a@h", "b@h"])
        );
    }

    #[test]
    fn a_node_that_was_not_reached_rests_and_those_that_failed_less_come_first() {
        let mut candidates = Candidates::default();
        candidates.found(names(&["a@h", "b@h"]), true);
        assert_eq!(candidates.next_dials(SECOND, 1, nobody), [name("a@h")]);
        assert_eq!(
            candidates.failed(&name("a@h"), SECOND, |failures| SECOND * failures),
            1
        );
        assert_eq!(candidates.next_dials(SECOND, 8, nobody), [name("b@h")]);
        candidates.reached(&name("b@h"));
        assert_eq!(candidates.next_dials(2 * SECOND, 1, nobody), [name("b@h")]);
        assert_eq!(candidates.next_dials(2 * SECOND, 1, nobody), [name("a@h")]);
        assert_eq!(
            candidates.failed(&name("a@h"), 2 * SECOND, |failures| SECOND * failures),
            2
        );
        assert_eq!(candidates.next_dials(3 * SECOND, 8, nobody), []);
    }

    #[test]
    fn a_node_that_is_not_found_any_more_is_not_dialled() {
        let mut candidates = Candidates::default();
        candidates.found(names(&["a@h"]), true);
        candidates.found(names(&["b@h"]), false);
        assert_eq!(candidates.next_dials(SECOND, 8, nobody), [name("b@h")]);
    }

    /// A name server that answered with nothing for a moment made libcluster disconnect the whole cluster.
    #[test]
    fn only_complete_answers_that_have_others_make_a_node_vanish() {
        let mut candidates = Candidates::default();
        candidates.found(names(&["a@h", "b@h"]), true);
        for _ in 0..10 {
            assert_eq!(
                candidates.found(names(&["a@h"]), false),
                [],
                "others may exist"
            );
            assert_eq!(candidates.found(Vec::new(), true), [], "none at all");
        }
        for missed in 1..MISSED_ANSWERS {
            assert_eq!(
                candidates.found(names(&["a@h"]), true),
                [],
                "missed {missed} times"
            );
        }
        // Once more in time.
        candidates.found(names(&["a@h", "b@h"]), true);
        for _ in 1..MISSED_ANSWERS {
            assert_eq!(candidates.found(names(&["a@h"]), true), []);
        }
        assert_eq!(candidates.found(names(&["a@h"]), true), [name("b@h")]);
        assert_eq!(candidates.found(names(&["a@h"]), true), [], "told once");
    }

    #[test]
    fn names_are_remembered_up_to_a_limit_the_freshest_ones() {
        let made_up = |range: std::ops::Range<usize>| {
            range.map(|n| name(&format!("n{n}@h"))).collect::<Vec<_>>()
        };
        let mut candidates = Candidates::default();
        let knows = |candidates: &Candidates, range| {
            made_up(range)
                .iter()
                .all(|node| candidates.nodes.contains_key(node))
        };
        candidates.found(made_up(0..10), false);
        candidates.next_dials(SECOND, 1, nobody);
        candidates.found(made_up(10..MAX_CANDIDATES + 5), false);
        assert!(knows(&candidates, 10..MAX_CANDIDATES + 5));
        assert!(knows(&candidates, 0..1), "it is being dialled");
        assert!(!knows(&candidates, 1..2));
        // More at once than there is room for.
        candidates.found(made_up(5000..15_000), false);
        assert_eq!(candidates.nodes.len(), MAX_CANDIDATES);
        assert!(knows(&candidates, 5000..5000 + MAX_CANDIDATES - 1));
        // One after the other.
        for n in 20_000..30_000 {
            candidates.found(made_up(n..n + 1), false);
        }
        assert!(candidates.nodes.len() <= MAX_CANDIDATES);
        assert!(knows(&candidates, 29_000..30_000));
    }
}
