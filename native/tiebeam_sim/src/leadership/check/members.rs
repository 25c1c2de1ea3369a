//! Members change a step at a time (dissertation, chapter 4): every two configurations that follow each other in a log have majorities
//! that meet, and none follows one that is not committed, or comes from a leader that has committed nothing yet (the flaw found in 2015).

use tiebeam_core::leadership::Configuration;

use crate::leadership::Broken;

/// `member` leads and appends `next` as entry `at`; before, `current` was in force, by the entry `since`, and it knows of entries up to `commit`
/// that they are committed, of which one is of its own term if it `began`.
pub(in crate::leadership) fn changes(
    member: usize,
    (current, since): (&Configuration, u64),
    (next, at): (&Configuration, u64),
    (commit, began): (u64, bool),
) -> Result<(), Broken> {
    let broken = |seen| {
        Err(Broken {
            property: "members change a step at a time",
            seen,
        })
    };
    if since > commit {
        return broken(format!(
            "member {member} changes the members in entry {at}, and entry {since}, which does as well, is not committed"
        ));
    }
    if !began {
        return broken(format!(
            "member {member} changes the members in entry {at} before an entry of its term is committed"
        ));
    }
    let same = |a: Vec<_>, b: Vec<_>| a == b;
    let (voters, outgoing): (Vec<_>, Vec<_>) = (next.voters().collect(), next.outgoing().collect());
    let sound = match (current.is_joint(), next.is_joint()) {
        (true, joint) => !joint && same(voters, current.voters().collect()),
        (false, true) => same(outgoing, current.voters().collect()),
        (false, false) => {
            let joined = next.voters().filter(|&voter| !current.votes(voter));
            let left = current.voters().filter(|&voter| !next.votes(voter));
            joined.count() + left.count() <= 1
        }
    };
    if sound {
        return Ok(());
    }
    broken(format!(
        "member {member} has {next:?} follow {current:?} in entry {at}"
    ))
}

#[test]
fn a_leap_is_seen() {
    use tiebeam_core::leadership::MemberId;
    let ids = |numbers: &[u64]| numbers.iter().copied().map(MemberId).collect::<Vec<_>>();
    let plain = |voters| Configuration::new(ids(voters), []).unwrap();
    let joint = |voters, outgoing| Configuration::joint(ids(voters), ids(outgoing), []).unwrap();
    let (three, others) = (plain(&[1, 2, 3]), plain(&[1, 4, 5]));
    let both = joint(&[1, 4, 5], &[1, 2, 3]);
    let change = |current: &_, next: &_| changes(0, (current, 3), (next, 7), (5, true));
    assert!(change(&three, &plain(&[1, 2])).is_ok());
    assert!(change(&three, &others).is_err());
    assert!(change(&three, &both).is_ok() && change(&both, &others).is_ok());
    assert!(change(&both, &three).is_err() && change(&others, &both).is_err());
    assert!(changes(0, (&three, 6), (&plain(&[1, 2]), 7), (5, true)).is_err());
    assert!(changes(0, (&three, 3), (&plain(&[1, 2]), 7), (5, false)).is_err());
}
