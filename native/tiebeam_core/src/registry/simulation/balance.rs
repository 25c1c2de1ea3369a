//! Changes of a table are balanced: registered, updated any number of times, unregistered, and each speaks of the row that
//! is there. (syn calls its hooks twice, or not at all, after a net split.)

use super::*;

pub(super) fn apply(table: &mut BTreeMap<Key, Entry>, change: Change) {
    match change {
        Change::Registered(entry) | Change::Joined(entry) => {
            let old = table.insert(entry.key.clone(), entry);
            assert_eq!(old, None, "there was one already");
        }
        Change::Updated(entry) | Change::Rejoined(entry) => {
            let old = table
                .insert(entry.key.clone(), entry.clone())
                .expect("there is one to update");
            assert_eq!(old.pid, entry.pid, "an update does not change the process");
            assert_ne!(old, entry, "an update changes something");
        }
        Change::Replaced { entry, was } => {
            assert_ne!(entry.pid, was);
            let old = table
                .insert(entry.key.clone(), entry)
                .expect("there is one to replace");
            assert_eq!(old.pid, was);
        }
        Change::Unregistered { key, pid, .. } | Change::Left { key, pid, .. } => {
            let old = table.remove(&key).expect("there is one to remove");
            assert_eq!(old.pid, pid);
        }
        Change::Purged {
            node,
            creation,
            keys,
            ..
        } => {
            for key in keys {
                let row = table.get(&key);
                if row.is_some_and(|row| row.node == node && row.creation == creation) {
                    table.remove(&key);
                }
            }
            let mut rows = table.values();
            assert!(
                rows.all(|row| row.node != node || row.creation != creation),
                "a row of {node} is not among the keys"
            );
        }
    }
}
