//! State-machine safety, leader completeness (dissertation, figure 3.2), and that what is applied is on the disks of
//! a majority: of both halves of the configuration in force, if there are two.
//!
//! Completeness is stated with the term in which an entry was committed, of which the term of the first member that was seen
//! applying it is an upper bound: who wins an older term late may miss it, and does no harm.

use tiebeam_core::leadership::{Entry, Payload};

use crate::leadership::Broken;

#[derive(Debug)]
struct Commit {
    term: u64,
    payload: Payload,
    /// The term of the first member that applied it.
    by: u64,
    /// The digest of a machine that applied it.
    sum: u64,
}

#[derive(Debug, Default)]
pub(in crate::leadership) struct Commits {
    commits: Vec<Commit>,
}

impl Commits {
    /// `member`, in `term`, applied `entry`, which is on the disks of a `majority`. Says whether it is the first.
    pub(in crate::leadership) fn applied(
        &mut self,
        (member, term): (usize, u64),
        entry: &Entry,
        majority: bool,
    ) -> Result<bool, Broken> {
        let at = entry.index as usize - 1;
        if let Some(known) = self.commits.get(at) {
            if (known.term, &known.payload) == (entry.term, &entry.payload) {
                return Ok(false);
            }
            return Err(Broken {
                property: "state-machine safety",
                seen: format!(
                    "member {member} applied another entry {} than others",
                    entry.index
                ),
            });
        }
        if at != self.commits.len() {
            return Err(Broken {
                property: "state-machine safety",
                seen: format!(
                    "member {member} applied entry {} before those before it",
                    entry.index
                ),
            });
        }
        self.commits.push(Commit {
            term: entry.term,
            payload: entry.payload.clone(),
            by: term,
            sum: 0,
        });
        if majority {
            return Ok(true);
        }
        Err(Broken {
            property: "committed on a majority",
            seen: format!(
                "member {member} applied entry {}, which is on no majority of disks",
                entry.index
            ),
        })
    }

    /// The machine of `member` is `sum` after the committed entry `index`, whether it applied that or has it from a snapshot.
    pub(in crate::leadership) fn became(
        &mut self,
        member: usize,
        index: u64,
        sum: u64,
        first: bool,
    ) -> Result<(), Broken> {
        let commit = (index as usize)
            .checked_sub(1)
            .and_then(|at| self.commits.get_mut(at));
        match commit {
            Some(commit) if first => commit.sum = sum,
            Some(commit) if commit.sum == sum => {}
            _ => {
                return Err(Broken {
                    property: "state-machine safety",
                    seen: format!("member {member} has another machine at {index} than others"),
                });
            }
        }
        Ok(())
    }

    /// `member` was elected in `term`, with a log that `has` such indexes and terms.
    pub(in crate::leadership) fn elected(
        &self,
        member: usize,
        term: u64,
        has: impl Fn(u64, u64) -> bool,
    ) -> Result<(), Broken> {
        let Some(at) = self.commits.iter().rposition(|commit| commit.by < term) else {
            return Ok(());
        };
        if has(at as u64 + 1, self.commits[at].term) {
            return Ok(());
        }
        Err(Broken {
            property: "leader completeness",
            seen: format!(
                "member {member} was elected in term {term} without the committed entry {}",
                at + 1
            ),
        })
    }

    /// The term of a committed entry; 0 if there is none.
    pub(in crate::leadership) fn term(&self, index: u64) -> u64 {
        let at = index.checked_sub(1);
        let commit = at.and_then(|at| self.commits.get(at as usize));
        commit.map_or(0, |commit| commit.term)
    }

    pub(in crate::leadership) fn count(&self) -> u64 {
        self.commits.len() as u64
    }
}

#[test]
fn what_breaks_a_commit_is_seen() {
    let entry = |index, term| Entry {
        index,
        term,
        payload: Payload::Noop,
    };
    let mut commits = Commits::default();
    assert_eq!(commits.applied((1, 1), &entry(1, 1), true), Ok(true));
    assert_eq!(
        commits.applied((2, 1), &entry(1, 1), false),
        Ok(false),
        "only the first one needs its majority"
    );
    assert!(commits.applied((2, 2), &entry(1, 2), true).is_err());
    assert!(commits.applied((2, 2), &entry(3, 2), true).is_err());
    assert!(commits.became(1, 1, 5, true).is_ok() && commits.became(2, 1, 5, false).is_ok());
    assert!(commits.became(2, 1, 6, false).is_err() && commits.became(2, 0, 5, false).is_err());
    assert!(commits.elected(2, 2, |_, _| false).is_err());
    assert!(
        commits.elected(2, 1, |_, _| false).is_ok(),
        "it was committed in term 1"
    );
    assert!(commits.elected(2, 2, |index, term| index == term).is_ok());
    assert!(commits.applied((1, 1), &entry(2, 1), false).is_err());
}
