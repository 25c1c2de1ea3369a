//! At every moment: a name that was promised to a process of this node, and not taken away by a loss that was told, is
//! that process's in this node's table. Where conflicts are resolved by the user the older one may show until the verdict.
//! (Horde loses names of live processes at a heal.)

use super::*;

pub(super) fn check(host: &Host) {
    for (key, (pid, _)) in &host.promised {
        // Written by who claimed it, and told to the registry in a moment.
        if host.claims.contains_key(key) {
            continue;
        }
        let row = host.table.get(key);
        let row =
            row.unwrap_or_else(|| panic!("{} lost {key:?} of {}", host.name, pid.escape_ascii()));
        assert!(
            row.pid == *pid || key.scope() == "resolved",
            "{}: {key:?} was promised to {}, the table says {}",
            host.name,
            pid.escape_ascii(),
            row.pid.escape_ascii()
        );
    }
    for (key, pid) in &host.joined {
        let row = host.table.get(key).map(|row| &row.pid);
        assert_eq!(row, Some(pid), "{} lost the membership {key:?}", host.name);
    }
}
