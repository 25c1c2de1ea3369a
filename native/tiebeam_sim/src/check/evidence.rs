//! A node never closes the connection of a member whose connection carried anything since the suspicion began, or, once the
//! verdict was contested, for the time of the shortest suspicion: bytes are a veto. (`tiebeam_core`, `membership/verdict.rs`:
//! an eviction needs a connection that carried nothing.)

use std::collections::BTreeMap;

use tiebeam_core::{Instant, NodeName};

use super::Broken;
use crate::record::Told;

/// Since when who suspects whom, and whether a verdict on that was contested.
#[derive(Debug, Default)]
pub(crate) struct Evidence(BTreeMap<(usize, usize), (Instant, bool)>);

impl Evidence {
    /// The core of `node` is a new one.
    pub(crate) fn begin(&mut self, node: usize) {
        self.0.retain(|&(suspecting, _), _| suspecting != node);
    }

    pub(crate) fn told(&mut self, node: usize, of: usize, at: Instant, told: Told) {
        match told {
            Told::Suspect => drop(self.0.entry((node, of)).or_insert((at, false))),
            Told::Contested(_) => drop(self.0.entry((node, of)).and_modify(|entry| entry.1 = true)),
            Told::Up | Told::Recovered | Told::Left => drop(self.0.remove(&(node, of))),
            _ => {}
        }
    }

    /// `names` are those of both, `heard` is when something came over the connection last, `floor` the latest moment from
    /// which on a silence is as long as the shortest suspicion. The floor is for contested verdicts alone: each is judged
    /// anew by what came after it, and only the first of one reason is told.
    pub(crate) fn evicts(
        &self,
        node: usize,
        of: usize,
        names: (&NodeName, &NodeName),
        heard: Instant,
        floor: Instant,
    ) -> Result<(), Broken> {
        match self.0.get(&(node, of)) {
            Some(&(since, contested)) if heard > since && (!contested || heard > floor) => {
                Err(Broken {
                    property: "evidence",
                    seen: format!(
                        "{} suspects {} since {since}, heard of it at {heard}, and evicts it",
                        names.0, names.1
                    ),
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}
