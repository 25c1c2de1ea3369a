//! No view ever has a member that speaks for another cluster. (`Config::cluster`.) One that was never heard may pass for a
//! node without a core for a while: it is connected and says nothing, so nothing tells them apart. In the end `completeness`
//! allows that no more.

use tiebeam_core::{Kind, NodeName};

use super::{Broken, Stepped};

/// `cluster_of` knows the identity that each node was given, and what it is.
pub(crate) fn identity<'a>(
    step: &Stepped<'_>,
    cluster_of: impl Fn(&NodeName) -> (&'a str, Kind),
) -> Result<(), Broken> {
    let stranger = step.after.iter().find(|member| {
        let (cluster, kind) = cluster_of(&member.node);
        kind != Kind::Plain && member.kind != Kind::Plain && cluster != step.cluster
    });
    match stranger {
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
