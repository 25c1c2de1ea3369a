//! Bytes that are no message are one notice and change nothing. (`tiebeam_core::Cluster::step`.)

use tiebeam_core::{Notice, Status};

use super::{Broken, Stepped};

pub(crate) fn garbage(step: &Stepped<'_>) -> Result<(), Broken> {
    // A node that has left reads nothing any more.
    if !step.garbled
        || step
            .before
            .iter()
            .all(|member| member.status == Status::Left)
    {
        return Ok(());
    }
    let ignored = step
        .notices()
        .filter(|notice| matches!(notice, Notice::Ignored { .. }))
        .count();
    // Timers may be due in the same step; then there are other notices.
    if ignored == 1 && (step.notices().count() > 1 || step.before == step.after) {
        return Ok(());
    }
    let seen = format!(
        "{} made {:?} of garbage",
        step.node,
        step.notices().collect::<Vec<_>>()
    );
    Err(Broken {
        property: "garbage",
        seen,
    })
}
