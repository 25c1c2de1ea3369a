//! Term, commit and applied index of a member never go back in one life, the term not over lives either; and
//! purged ≤ snapshot ≤ applied ≤ committed ≤ last. A leader commits by counting only entries of its own term (3.6.2).

use tiebeam_core::leadership::{Role, Status};

use crate::leadership::Broken;

#[derive(Debug, Default, Clone, Copy)]
pub(in crate::leadership) struct Progress {
    term: u64,
    commit: u64,
    applied: u64,
    /// The term in which it led when it was looked at last.
    led: Option<u64>,
}

impl Progress {
    /// What `member` says of itself, and up to where it has applied; the term of the last entry that it knows to be committed is `committed`, if its
    /// log still says.
    pub(in crate::leadership) fn says(
        &mut self,
        member: usize,
        status: Status,
        applied: u64,
        committed: Option<u64>,
    ) -> Result<(), Broken> {
        let counts = self.led == Some(status.term) && status.commit > self.commit;
        self.led = (status.role == Role::Leader).then_some(status.term);
        if self.led.is_some() && counts && committed.is_some_and(|term| term != status.term) {
            return Err(Broken {
                property: "a leader commits what is of its term",
                seen: format!("member {member} says {status:?}, and that entry is of another"),
            });
        }
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
            ..Self::default()
        };
    }
}

#[cfg(test)]
fn status(role: Role, term: u64, commit: u64) -> Status {
    Status {
        role,
        term,
        leader: None,
        commit,
        last: 5,
    }
}

#[test]
fn a_commit_that_goes_back_is_seen() {
    let status = |term, commit| status(Role::Follower, term, commit);
    let mut progress = Progress::default();
    assert!(progress.says(1, status(1, 3), 3, None).is_ok());
    assert!(progress.says(1, status(1, 2), 2, None).is_err());
    assert!(progress.says(1, status(0, 3), 3, None).is_err());
    assert!(progress.says(1, status(1, 6), 3, None).is_err());
    assert!(progress.says(1, status(1, 4), 5, None).is_err());
    progress.restarted(1);
    assert!(progress.says(1, status(1, 0), 0, None).is_ok());
}

#[test]
fn a_leader_that_counts_what_is_of_an_older_term_is_seen() {
    let says = |committed| {
        let mut progress = Progress::default();
        let followed = progress.says(1, status(Role::Follower, 2, 1), 1, Some(1));
        let elected = progress.says(1, status(Role::Leader, 3, 2), 2, Some(2));
        assert!(followed.is_ok() && elected.is_ok());
        progress.says(1, status(Role::Leader, 3, 4), 2, committed)
    };
    assert!(says(Some(3)).is_ok() && says(Some(2)).is_err());
}

#[test]
fn a_log_that_is_purged_too_far_is_seen() {
    assert!(Progress::writes(1, 2, 3, 4).is_ok());
    assert!(Progress::writes(1, 4, 3, 4).is_err());
    assert!(Progress::writes(1, 2, 5, 4).is_err());
}
