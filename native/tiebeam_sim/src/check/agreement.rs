//! After a quiet time, every running member holds every running member of its cluster for alive, in its present life.
//! (SWIM, section 4: accuracy, once the network behaves.)

use tiebeam_core::{Kind, Status};

use super::{Broken, Running};

pub(crate) fn agreement(running: &[Running<'_>]) -> Result<(), Broken> {
    for one in running {
        let Some(view) = &one.view else {
            continue;
        };
        for other in running {
            // A node without a core is in no cluster: whoever is connected with it observes it.
            if other.left || (other.kind != Kind::Plain && other.cluster != one.cluster) {
                continue;
            }
            let known = view.iter().any(|member| {
                member.node == *other.node
                    && member.status == Status::Alive
                    && (other.kind == Kind::Plain || member.creation == other.creation)
            });
            if !known {
                let held = view.iter().find(|member| member.node == *other.node);
                return Err(Broken {
                    property: "agreement",
                    seen: format!(
                        "{}#{} runs, and {} holds {held:?}",
                        other.node, other.creation, one.node
                    ),
                });
            }
        }
    }
    Ok(())
}
