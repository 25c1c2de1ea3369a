//! No view ever has a member of another cluster. (`Config::cluster`.)

use tiebeam_core::NodeName;

use super::{Broken, Stepped};

/// `cluster_of` knows the identity that each node was given.
pub(crate) fn identity<'a>(
    step: &Stepped<'_>,
    cluster_of: impl Fn(&NodeName) -> &'a str,
) -> Result<(), Broken> {
    match step
        .after
        .iter()
        .find(|member| cluster_of(&member.node) != step.cluster)
    {
        None => Ok(()),
        Some(member) => {
            let seen = format!("{} of {:?} lists {}", step.node, step.cluster, member.node);
            Err(Broken {
                property: "identity",
                seen,
            })
        }
    }
}
