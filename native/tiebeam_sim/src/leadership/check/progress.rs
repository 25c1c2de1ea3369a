//! Term, commit and applied index of a member never go back in one life, the term not over lives either; and
//! purged ≤ snapshot ≤ applied ≤ committed ≤ last.

use tiebeam_core::leadership::Status;

use crate::leadership::Broken;

#[derive(Debug, Default, Clone, Copy)]
pub(in crate::leadership) struct Progress {
    term: u64,
    commit: u64,
    applied: u64,
}

impl Progress {
    /// What `member` says of itself, and up to where it has applied.
    pub(in crate::leadership) fn says(
        &mut self,
        member: usize,
        status: Status,
        applied: u64,
    ) -> Result<(), Broken> {
        let back = status.term < self.term || status.commit < self.commit || applied < self.applied;
        if back || applied > status.commit || status.commit > status.last {
            return Err(Broken {
                property: "nothing goes back",
                seen: format!(
                    "member {member} says {status:?} and has applied {applied}, after {self:?}"
                ),
            });
        }
        (self.term, self.commit, self.applied) = (status.term, status.commit, applied);
        Ok(())
    }

    /// `member` writes a snapshot, and removes the entries up to `purged`.
    pub(in crate::leadership) fn writes(
        member: usize,
        purged: u64,
        snapshot: u64,
        applied: u64,
    ) -> Result<(), Broken> {
        if purged <= snapshot && snapshot <= applied {
            return Ok(());
        }
        Err(Broken {
            property: "purged, snapshot, applied",
            seen: format!(
                "member {member} has a snapshot of {snapshot}, purged {purged} and has applied {applied}"
            ),
        })
    }

    /// A new life begins, with the term that was on disk.
    pub(in crate::leadership) fn restarted(&mut self, term: u64) {
        *self = Self {
            term,
            commit: 0,
            applied: 0,
        };
    }
}

#[test]
fn a_commit_that_goes_back_is_seen() {
    let status = |term, commit| Status {
        role: tiebeam_core::leadership::Role::Follower,
        term,
        leader: None,
        commit,
        last: 5,
    };
    let mut progress = Progress::default();
    assert!(progress.says(1, status(1, 3), 3).is_ok());
    assert!(progress.says(1, status(1, 2), 2).is_err());
    assert!(progress.says(1, status(0, 3), 3).is_err());
    assert!(progress.says(1, status(1, 6), 3).is_err());
    assert!(progress.says(1, status(1, 4), 5).is_err());
    progress.restarted(1);
    assert!(progress.says(1, status(1, 0), 0).is_ok());
}

#[test]
fn a_log_that_is_purged_too_far_is_seen() {
    assert!(Progress::writes(1, 2, 3, 4).is_ok());
    assert!(Progress::writes(1, 4, 3, 4).is_err());
    assert!(Progress::writes(1, 2, 5, 4).is_err());
}
