//! Election safety: at most one member leads in a term (dissertation, figure 3.2).

use std::collections::BTreeMap;

use crate::leadership::Broken;

#[derive(Debug, Default)]
pub(in crate::leadership) struct Elections {
    leaders: BTreeMap<u64, usize>,
}

impl Elections {
    /// `member` leads in `term`. Says whether that is new.
    pub(in crate::leadership) fn leads(
        &mut self,
        member: usize,
        term: u64,
    ) -> Result<bool, Broken> {
        match self.leaders.insert(term, member) {
            None => Ok(true),
            Some(before) if before == member => Ok(false),
            Some(before) => Err(Broken {
                property: "election safety",
                seen: format!("members {before} and {member} both lead in term {term}"),
            }),
        }
    }

    pub(in crate::leadership) fn count(&self) -> u64 {
        self.leaders.len() as u64
    }
}

#[test]
fn two_leaders_in_a_term_are_seen() {
    let mut elections = Elections::default();
    assert_eq!(elections.leads(1, 1), Ok(true));
    assert_eq!(elections.leads(1, 1), Ok(false));
    assert_eq!(elections.leads(2, 2), Ok(true));
    assert!(elections.leads(1, 2).is_err());
}
