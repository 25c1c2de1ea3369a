//! In a network that does nothing worse than lose messages, no running member is declared dead, and no verdict on one is
//! contested. (Lifeguard, section 5: false positives; here none at all.)

use tiebeam_core::{Contest, NodeName};

use super::Broken;
use crate::record::Told;

pub(crate) fn accuracy(
    node: &NodeName,
    of: &NodeName,
    told: Told,
    running: bool,
) -> Result<(), Broken> {
    match told {
        // Questions to a kernel are lost as well, and a guardian that has no other with it may run out of them: that its
        // verdict counts for nothing is the rule, and it comes to that.
        Told::Contested(Contest::Alone) => Ok(()),
        Told::Down | Told::Contested(_) if running => Err(Broken {
            property: "accuracy",
            seen: format!("{of} runs, and {node} was told {told:?} of it"),
        }),
        _ => Ok(()),
    }
}
