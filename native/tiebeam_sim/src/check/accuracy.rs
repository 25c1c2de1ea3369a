//! In a network that does nothing worse than lose messages, no running member is declared dead, and no verdict on one is
//! contested. (Lifeguard, section 5: false positives; here none at all.)

use tiebeam_core::{Contest, Kind, NodeName};

use super::Broken;
use crate::record::Told;

pub(crate) fn accuracy(
    node: &NodeName,
    of: &NodeName,
    kind: Kind,
    told: Told,
    running: bool,
) -> Result<(), Broken> {
    match told {
        // Questions to a kernel are lost as well, and nothing but its answers speaks for a node without a core: one guardian
        // may run out of them. That its verdict alone counts for nothing is the rule that is to save the node.
        Told::Contested(Contest::Alone) if kind == Kind::Plain => Ok(()),
        Told::Down | Told::Contested(_) if running => Err(Broken {
            property: "accuracy",
            seen: format!("{of} runs, and {node} was told {told:?} of it"),
        }),
        _ => Ok(()),
    }
}
