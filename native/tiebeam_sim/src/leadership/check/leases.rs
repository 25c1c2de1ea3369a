//! At every moment at most one member says that it alone leads, and its token is never less than an earlier one
//! (dissertation, section 6.4.1).

use crate::leadership::Broken;

#[derive(Debug, Default)]
pub(in crate::leadership) struct Leases {
    latest: u64,
}

impl Leases {
    /// What every member that could be asked now would say.
    pub(in crate::leadership) fn hold(
        &mut self,
        tokens: impl Iterator<Item = (usize, u64)>,
    ) -> Result<bool, Broken> {
        let mut holder = None;
        for (member, token) in tokens {
            if let Some((other, its)) = holder {
                return Err(Broken {
                    property: "one lease",
                    seen: format!(
                        "members {other} and {member} hold tokens {its} and {token} at once"
                    ),
                });
            }
            holder = Some((member, token));
        }
        let Some((member, token)) = holder else {
            return Ok(false);
        };
        if token < self.latest {
            return Err(Broken {
                property: "tokens grow",
                seen: format!("member {member} holds token {token} after {}", self.latest),
            });
        }
        self.latest = token;
        Ok(true)
    }
}

#[test]
fn two_holders_are_seen_and_a_token_that_goes_back() {
    let mut leases = Leases::default();
    assert_eq!(leases.hold([].into_iter()), Ok(false));
    assert_eq!(leases.hold([(1, 5)].into_iter()), Ok(true));
    assert!(leases.hold([(1, 5), (2, 6)].into_iter()).is_err());
    assert!(leases.hold([(2, 4)].into_iter()).is_err());
}
