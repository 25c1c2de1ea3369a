//! In a connected, quiet cluster: every name has the one process to which it was promised, on a node that runs in the
//! life that the row says, and everything that was promised is there; who waits does so for a name that another has.
//! (syn's TLA+ model: `ThereCanBeOnlyOne`, and no zombies.)

use super::*;

pub(super) fn check(hosts: &[Host]) {
    for (key, row) in &hosts[0].table {
        let owner = hosts
            .iter()
            .find(|host| host.name == row.node)
            .expect("it is one of them");
        assert_eq!(
            row.creation, owner.creation,
            "{key:?} is of an earlier life"
        );
        assert!(
            owner.is_alive(&row.pid),
            "{key:?} is the name of a process that ended"
        );
        match key.what() {
            What::Name => {
                let promised = owner.promised.get(key).map(|(pid, _)| pid);
                assert_eq!(
                    promised,
                    Some(&row.pid),
                    "{key:?} is in the table and not promised"
                );
            }
            What::Member => assert_eq!(owner.joined.get(key), Some(&row.pid)),
        }
    }
    for host in hosts {
        for (key, (pid, _)) in &host.promised {
            let row = hosts[0].table.get(key).map(|row| &row.pid);
            assert_eq!(row, Some(pid), "{key:?} was promised by {}", host.name);
        }
        for (key, pid) in &host.joined {
            assert_eq!(hosts[0].table.get(key).map(|row| &row.pid), Some(pid));
        }
        for (key, pid) in &host.standby {
            let row = hosts[0].table.get(key).unwrap_or_else(|| {
                panic!("{} waits for {key:?}, which is free", pid.escape_ascii())
            });
            assert_ne!(row.pid, *pid);
        }
    }
}
