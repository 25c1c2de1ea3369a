//! After a quiet time, every running member holds exactly the running members of its cluster for alive, each in its
//! present life. (SWIM section 4: strong completeness and accuracy, once the network behaves.)

use std::collections::BTreeMap;

use tiebeam_core::{Member, NodeName, Status};

use super::Broken;

/// A node that runs and has not left.
pub(crate) struct Running<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) creation: u32,
    pub(crate) view: Vec<&'a Member>,
}

pub(crate) fn agreement(running: &BTreeMap<&NodeName, Running<'_>>) -> Result<(), Broken> {
    for (node, one) in running {
        let expected: Vec<(&NodeName, u32)> = running
            .iter()
            .filter(|(_, other)| other.cluster == one.cluster)
            .map(|(name, other)| (*name, other.creation))
            .collect();
        let seen: Vec<(&NodeName, u32)> = one
            .view
            .iter()
            .filter(|member| member.status == Status::Alive)
            .map(|member| (&member.node, member.creation))
            .collect();
        if seen != expected {
            let seen = format!("{node} holds {seen:?} for alive, and {expected:?} run");
            return Err(Broken {
                property: "agreement",
                seen,
            });
        }
    }
    Ok(())
}
