//! A node never holds itself for suspect or dead, keeps its creation, and its incarnation never falls. (SWIM, section 4.2:
//! a member alone raises its incarnation.)

use tiebeam_core::{Member, Status};

use super::{Broken, Stepped};

pub(crate) fn selfhood(step: &Stepped<'_>) -> Result<(), Broken> {
    let me = |view: &[Member]| {
        view.iter()
            .find(|member| member.node == *step.node)
            .cloned()
    };
    match (me(step.before), me(step.after)) {
        (Some(before), Some(after))
            if matches!(after.status, Status::Alive | Status::Left)
                && after.creation == before.creation
                && after.incarnation >= before.incarnation =>
        {
            Ok(())
        }
        (before, after) => Err(Broken {
            property: "selfhood",
            seen: format!("{} went from {before:?} to {after:?}", step.node),
        }),
    }
}
