//! Properties, one file each. A property file opens with what must hold and where that is from.

mod agreement;
mod garbage;
mod identity;
mod lives;

use std::fmt;

use tiebeam_core::{Action, Member, NodeName, Notice};

pub(crate) use agreement::{Running, agreement};
pub(crate) use garbage::garbage;
pub(crate) use identity::identity;
pub(crate) use lives::Lives;

/// A property that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The property's name, which is the name of its file.
    pub property: &'static str,
    /// What was seen instead.
    pub seen: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not hold: {}", self.property, self.seen)
    }
}

impl std::error::Error for Broken {}

/// One step of one node, as the properties see it.
pub(crate) struct Stepped<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) cluster: &'a str,
    /// The step was told bytes that are no message.
    pub(crate) garbled: bool,
    pub(crate) before: &'a [Member],
    pub(crate) after: &'a [Member],
    pub(crate) actions: &'a [Action],
}

impl<'a> Stepped<'a> {
    pub(crate) fn notices(&self) -> impl Iterator<Item = &'a Notice> {
        self.actions.iter().filter_map(|action| match action {
            Action::Notify(notice) => Some(notice),
            Action::Send { .. } | Action::Answer { .. } => None,
        })
    }
}
