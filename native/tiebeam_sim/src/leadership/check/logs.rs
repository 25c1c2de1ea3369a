//! Log matching, and that a leader only appends (dissertation, figure 3.2).
//!
//! An index and a term name one entry, and with it the term of the one before: then two logs that have the same entry have
//! the same entries before it, by induction.

use std::collections::BTreeMap;

use tiebeam_core::leadership::{Entry, Payload};

use crate::leadership::Broken;

#[derive(Debug, Default)]
pub(in crate::leadership) struct Logs {
    entries: BTreeMap<(u64, u64), (u64, Payload)>,
}

impl Logs {
    /// `member` wrote `entry` behind one of the term `before`.
    pub(in crate::leadership) fn wrote(
        &mut self,
        member: usize,
        before: u64,
        entry: &Entry,
    ) -> Result<(), Broken> {
        let known = self
            .entries
            .entry((entry.index, entry.term))
            .or_insert_with(|| (before, entry.payload.clone()));
        if *known == (before, entry.payload.clone()) {
            return Ok(());
        }
        Err(Broken {
            property: "log matching",
            seen: format!(
                "member {member} has another entry {} of term {}",
                entry.index, entry.term
            ),
        })
    }

    /// `member` leads and replaces its own entry `first`; its log had `last`.
    pub(in crate::leadership) fn replaced(
        member: usize,
        first: u64,
        last: u64,
    ) -> Result<(), Broken> {
        if first > last {
            return Ok(());
        }
        Err(Broken {
            property: "leader append-only",
            seen: format!("member {member} leads and replaces its entry {first} of {last}"),
        })
    }
}

#[test]
fn different_entries_of_one_index_and_term_are_seen() {
    let entry = |payload| Entry {
        index: 2,
        term: 2,
        payload,
    };
    let command = Payload::Command(std::sync::Arc::from(*b"x"));
    let mut logs = Logs::default();
    assert!(logs.wrote(1, 1, &entry(Payload::Noop)).is_ok());
    assert!(logs.wrote(2, 1, &entry(Payload::Noop)).is_ok());
    assert!(logs.wrote(2, 2, &entry(Payload::Noop)).is_err());
    assert!(logs.wrote(2, 1, &entry(command)).is_err());
    assert!(Logs::replaced(1, 4, 3).is_ok() && Logs::replaced(1, 3, 3).is_err());
}
