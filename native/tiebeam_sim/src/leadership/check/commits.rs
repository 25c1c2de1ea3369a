//! State-machine safety, leader completeness (dissertation, figure 3.2), and that what is applied is on a majority of disks.
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
}

#[derive(Debug, Default)]
pub(in crate::leadership) struct Commits {
    commits: Vec<Commit>,
}

impl Commits {
    /// `member`, in `term`, applied `entry`, which is on `disks` of `members`.
    pub(in crate::leadership) fn applied(
        &mut self,
        (member, term): (usize, u64),
        entry: &Entry,
        (disks, members): (usize, usize),
    ) -> Result<(), Broken> {
        let at = entry.index as usize - 1;
        if let Some(known) = self.commits.get(at) {
            if (known.term, &known.payload) == (entry.term, &entry.payload) {
                return Ok(());
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
        });
        if disks * 2 > members {
            return Ok(());
        }
        Err(Broken {
            property: "committed on a majority",
            seen: format!(
                "member {member} applied entry {}, which is on {disks} of {members} disks",
                entry.index
            ),
        })
    }

    /// `member` was elected in `term` with `log`.
    pub(in crate::leadership) fn elected(
        &self,
        member: usize,
        term: u64,
        log: &[Entry],
    ) -> Result<(), Broken> {
        let Some(at) = self.commits.iter().rposition(|commit| commit.by < term) else {
            return Ok(());
        };
        if log
            .get(at)
            .is_some_and(|entry| entry.term == self.commits[at].term)
        {
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
    assert!(commits.applied((1, 1), &entry(1, 1), (2, 3)).is_ok());
    assert!(
        commits.applied((2, 1), &entry(1, 1), (1, 3)).is_ok(),
        "only the first one counts disks"
    );
    assert!(commits.applied((2, 2), &entry(1, 2), (3, 3)).is_err());
    assert!(commits.applied((2, 2), &entry(3, 2), (3, 3)).is_err());
    assert!(commits.elected(2, 2, &[]).is_err());
    assert!(
        commits.elected(2, 1, &[]).is_ok(),
        "it was committed in term 1"
    );
    assert!(commits.elected(2, 2, &[entry(1, 1)]).is_ok());
    assert!(commits.applied((1, 1), &entry(2, 1), (1, 2)).is_err());
}
