//! After a quiet time, no running member holds anybody for alive that does not run: who crashed is known to have crashed.
//! (SWIM, section 3.1: strong completeness.)

use tiebeam_core::{Kind, Status};

use super::{Broken, Running};

pub(crate) fn completeness(running: &[Running<'_>]) -> Result<(), Broken> {
    for one in running {
        for member in one.view.iter().flatten() {
            let runs = running.iter().any(|other| {
                *other.node == member.node
                    && match other.kind == Kind::Plain || other.left {
                        // Who has left, and is met for the first time after that, passes for a node without a core.
                        true => member.kind == Kind::Plain,
                        false => other.cluster == one.cluster && other.creation == member.creation,
                    }
            });
            if !runs && matches!(member.status, Status::Alive | Status::Suspect) {
                return Err(Broken {
                    property: "completeness",
                    seen: format!(
                        "{} is gone, and {} holds it for {:?}",
                        member.identity(),
                        one.node,
                        member.status
                    ),
                });
            }
        }
    }
    Ok(())
}
