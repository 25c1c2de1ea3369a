//! The incarnation of a node grows at most once for each time that somebody was told a bad word about it, or that it has
//! new metadata. (SWIM, section 4.2: refutation.)

use std::collections::BTreeMap;

use tiebeam_core::NodeName;

use super::Broken;
use crate::record::Told;

#[derive(Debug, Default)]
pub(crate) struct Growth(BTreeMap<usize, Reasons>);

#[derive(Debug, Default, Clone, Copy)]
struct Reasons {
    first: u64,
    may_grow: u64,
}

impl Growth {
    /// The core of `node` is a new one. It starts with this incarnation, and outdoes once what is held of an earlier one:
    /// that it is alive is no bad word of anybody, and still has to be contradicted.
    pub(crate) fn begin(&mut self, node: usize, incarnation: u64) {
        let reasons = self.0.entry(node).or_default();
        reasons.first = reasons.first.max(incarnation);
        reasons.may_grow += 1;
    }

    pub(crate) fn told(&mut self, of: usize, told: Told) {
        if matches!(
            told,
            Told::Suspect | Told::Down | Told::Contested(_) | Told::Left | Told::Conflict
        ) {
            self.may_grow(of);
        }
    }

    pub(crate) fn may_grow(&mut self, node: usize) {
        self.0.entry(node).or_default().may_grow += 1;
    }

    pub(crate) fn check<'a>(
        &self,
        mut latest: impl Iterator<Item = (usize, &'a NodeName, u64)>,
    ) -> Result<(), Broken> {
        let grown = latest.find(|&(node, _, incarnation)| {
            let reasons = self.0.get(&node).copied().unwrap_or_default();
            incarnation > reasons.first + reasons.may_grow
        });
        match grown {
            None => Ok(()),
            Some((node, name, incarnation)) => Err(Broken {
                property: "growth",
                seen: format!(
                    "{name} has incarnation {incarnation}, with {:?}",
                    self.0.get(&node)
                ),
            }),
        }
    }
}
