//! In a connected, quiet cluster all tables are the same, and each is what its registry says.

use super::*;

pub(super) fn check(hosts: &[Host]) {
    for host in hosts {
        let registry = host.registry.as_ref().expect("every node runs in the end");
        let rows: BTreeMap<Key, Entry> =
            registry.rows().map(|row| (row.key.clone(), row)).collect();
        assert_eq!(
            rows, host.table,
            "the table of {} is not what its registry holds",
            host.name
        );
        assert_eq!(
            host.table, hosts[0].table,
            "{} and {} do not agree",
            host.name, hosts[0].name
        );
        registry.check();
    }
}
