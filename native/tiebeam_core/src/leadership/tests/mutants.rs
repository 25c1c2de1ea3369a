//! Rules that chance seldom misses are missed by a test that was written for them.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::thread_local;

use super::{elections, leases, logs, members, reads, snapshots};
use crate::leadership::Mutation;

thread_local! {
    /// The rule that is switched off for the groups of this thread.
    pub(super) static SWITCHED: Cell<Option<Mutation>> = const { Cell::new(None) };
}

const CAUGHT: [(Mutation, fn()); 17] = [
    (
        Mutation::VoteNotPersisted,
        elections::nobody_votes_twice_in_a_term_not_even_after_a_restart,
    ),
    (
        Mutation::VoteBeforePersist,
        elections::a_vote_is_on_disk_before_it_is_sent,
    ),
    (
        Mutation::ReadReusesRound,
        reads::an_answer_to_what_was_sent_before_confirms_no_read,
    ),
    (
        Mutation::RestartForgetsLease,
        leases::a_voter_that_started_anew_keeps_what_its_last_life_confirmed,
    ),
    (
        Mutation::CommitsOldTerms,
        logs::an_entry_of_an_older_term_is_not_committed_by_counting,
    ),
    (
        Mutation::CommitBeyondVerified,
        logs::a_follower_commits_only_what_it_has_from_this_leader,
    ),
    (
        Mutation::SnapshotBeforePersist,
        snapshots::a_snapshot_is_on_disk_before_the_leader_hears_of_it,
    ),
    (
        Mutation::SnapshotKeepsConflicts,
        snapshots::a_log_that_has_another_entry_there_is_dropped,
    ),
    (
        Mutation::SnapshotOfCommitted,
        snapshots::what_is_not_applied_is_in_no_snapshot,
    ),
    (
        Mutation::SnapshotForgetsMembers,
        members::whoever_gets_a_snapshot_gets_the_members_with_it,
    ),
    (
        Mutation::ChangeWithoutNoop,
        members::a_new_leader_changes_nothing_before_its_first_entry_is_committed,
    ),
    (
        Mutation::TwoChangesAtOnce,
        members::there_is_one_change_at_a_time,
    ),
    (
        Mutation::ChangeWithoutJoint,
        members::several_voters_are_replaced_by_way_of_a_joint_configuration,
    ),
    (
        Mutation::JointNeedsOneMajority,
        members::a_joint_configuration_commits_nothing_without_the_outgoing_majority,
    ),
    (
        Mutation::LearnersCount,
        members::a_learner_has_the_log_and_no_vote,
    ),
    (
        Mutation::RemovedLeaderStays,
        members::a_leader_that_is_removed_hands_over_and_goes,
    ),
    (
        Mutation::ChangeAppliedTwice,
        members::what_is_in_the_log_last_is_in_force,
    ),
];

#[test]
fn each_of_these_tests_misses_its_rule() {
    for (mutation, test) in CAUGHT {
        SWITCHED.set(Some(mutation));
        let missed = catch_unwind(test).is_err();
        SWITCHED.set(None);
        assert!(missed, "{mutation:?}: its test passes without the rule");
        test();
    }
}
