//! The members of a group: processes, each as often as it joined.

use std::collections::HashMap;

use tiebeam_wire::Pid;

/// Members with multiplicity. Adding and removing take constant time, however large the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    times: HashMap<Pid, usize>,
    len: usize,
}

impl Members {
    pub(super) fn add(&mut self, pid: Pid) {
        *self.times.entry(pid).or_default() += 1;
        self.len += 1;
    }

    /// Removes one occurrence. False if there was none.
    pub(super) fn remove(&mut self, pid: &Pid) -> bool {
        let Some(times) = self.times.get_mut(pid) else {
            return false;
        };
        *times -= 1;
        if *times == 0 {
            self.times.remove(pid);
        }
        self.len -= 1;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every occurrence, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pid> {
        self.times
            .iter()
            .flat_map(|(pid, times)| std::iter::repeat_n(pid, *times))
    }

    /// The occurrences that `other` does not have.
    pub(super) fn without(&self, other: &Self) -> Vec<Pid> {
        let mut more = Vec::new();
        for (pid, times) in &self.times {
            let others = other.times.get(pid).copied().unwrap_or_default();
            more.extend(std::iter::repeat_n(pid, times.saturating_sub(others)).cloned());
        }
        more
    }
}

impl FromIterator<Pid> for Members {
    fn from_iter<I: IntoIterator<Item = Pid>>(pids: I) -> Self {
        let mut members = Self::default();
        for pid in pids {
            members.add(pid);
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_wire::Atom;

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid {
            node: Atom::of("a@h"),
            id,
            serial: 0,
            creation: 1,
        }
    }

    #[test]
    fn a_member_leaves_as_often_as_it_joined() {
        let mut members: Members = [pid(1), pid(2), pid(1)].into_iter().collect();
        assert!(members.remove(&pid(1)));
        assert_eq!(members.iter().count(), 2);
        assert!(members.remove(&pid(1)));
        assert!(!members.remove(&pid(1)));
        assert!(members.remove(&pid(2)));
        assert!(members.is_empty());
    }

    #[test]
    fn a_difference_counts_occurrences() {
        let twice: Members = [pid(1), pid(1), pid(2)].into_iter().collect();
        let once: Members = [pid(1), pid(3)].into_iter().collect();
        let mut more = twice.without(&once);
        more.sort();
        assert_eq!(more, [pid(1), pid(2)]);
        assert_eq!(once.without(&twice), [pid(3)]);
    }
}
