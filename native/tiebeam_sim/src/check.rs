//! Properties, one file each. A property file opens with what must hold and where that is from.

mod accuracy;
mod agreement;
mod bounds;
mod completeness;
mod evidence;
mod garbage;
mod growth;
mod identity;
mod lives;
mod selfhood;

use std::fmt;

use tiebeam_core::{Action, Kind, Member, NodeName, Notice};

pub(crate) use accuracy::accuracy;
pub(crate) use agreement::agreement;
pub(crate) use bounds::{bounds, small};
pub(crate) use completeness::completeness;
pub(crate) use evidence::Evidence;
pub(crate) use garbage::garbage;
pub(crate) use growth::Growth;
pub(crate) use identity::identity;
pub(crate) use lives::Lives;
pub(crate) use selfhood::selfhood;

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
            Action::Send { .. }
            | Action::Observe { .. }
            | Action::Sample { .. }
            | Action::Evict { .. }
            | Action::EvictAt { .. }
            | Action::Table(_)
            | Action::Lost(_)
            | Action::Promoted { .. }
            | Action::Resolve { .. }
            | Action::Check { .. }
            | Action::Persist(_)
            | Action::Leadership(_)
            | Action::Answer { .. } => None,
        })
    }
}

/// A node that runs, at the end of a run.
pub(crate) struct Running<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) cluster: &'a str,
    pub(crate) kind: Kind,
    /// Its core has left the cluster.
    pub(crate) left: bool,
    pub(crate) creation: u32,
    /// `None` where no core takes part.
    pub(crate) view: Option<Vec<&'a Member>>,
}
