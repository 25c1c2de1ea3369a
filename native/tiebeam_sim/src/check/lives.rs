//! What one core is told of another node is a story that makes sense: up, then down or left, then up again; a life that
//! ended for a newer one does not come back, unless it is the one that runs; within a life the incarnation never falls.
//! (A restart is nodedown, then nodeup, once; SWIM section 4.2 for incarnations.)

use std::collections::BTreeMap;

use tiebeam_core::{Identity, Kind, Member, NodeName, Notice};

use super::{Broken, Stepped};

/// The stories so far, by who is told and of whom.
#[derive(Debug, Default)]
pub(crate) struct Lives(BTreeMap<(NodeName, NodeName), Story>);

#[derive(Debug, Default)]
struct Story {
    up: bool,
    latest: Option<Identity>,
    past: Vec<u32>,
}

impl Lives {
    /// The core of `node` is a new one: it knows nothing yet.
    pub(crate) fn begin(&mut self, node: &NodeName) {
        self.0.retain(|(told, _), _| told != node);
    }

    /// `present` knows the creation of each node's present life.
    pub(crate) fn check(
        &mut self,
        step: &Stepped<'_>,
        present: impl Fn(&NodeName) -> u32,
    ) -> Result<(), Broken> {
        for notice in step.notices() {
            self.tell(step.node, notice, &present)
                .map_err(|seen| Broken {
                    property: "lives",
                    seen: format!("{} was told {notice:?}: {seen}", step.node),
                })?;
        }
        Ok(())
    }

    /// The story of `member` as `told` knows it, continued by what the member is now.
    fn story(
        &mut self,
        told: &NodeName,
        member: &Member,
        present: u32,
    ) -> Result<&mut Story, String> {
        let story = self
            .0
            .entry((told.clone(), member.node.clone()))
            .or_default();
        // Creations have no order, so who met the present life first may believe a late word of an earlier one that has the
        // greater incarnation, until the present life has outdone it: so that one may come back, and no other.
        // A node without a core has no creation.
        if member.kind != Kind::Plain
            && member.creation != present
            && story.past.contains(&member.creation)
        {
            return Err(format!("the life {} was over", member.creation));
        }
        story.past.retain(|creation| *creation != member.creation);
        match &story.latest {
            Some(latest) if latest.creation != member.creation => story.past.push(latest.creation),
            Some(latest) if latest.incarnation > member.incarnation => {
                return Err(format!("the incarnation was {}", latest.incarnation));
            }
            Some(_) | None => {}
        }
        story.latest = Some(member.identity());
        Ok(story)
    }

    fn tell(
        &mut self,
        told: &NodeName,
        notice: &Notice,
        present: impl Fn(&NodeName) -> u32,
    ) -> Result<(), String> {
        let present = match notice {
            Notice::Up(member)
            | Notice::Down(member)
            | Notice::Left(member)
            | Notice::Refreshed(member)
            | Notice::Suspect(member)
            | Notice::Recovered(member)
            | Notice::Updated(member)
            | Notice::Contested { member, .. } => present(&member.node),
            _ => 0,
        };
        match notice {
            Notice::Up(member) => match self.story(told, member, present)? {
                story if story.up => return Err("it was up already".to_owned()),
                story => story.up = true,
            },
            Notice::Down(member) => match self.story(told, member, present)? {
                story if !story.up => return Err("it was not up".to_owned()),
                story => story.up = false,
            },
            Notice::Left(member) => match self.story(told, member, present)? {
                story if !story.up => return Err("it was not up".to_owned()),
                story => story.up = false,
            },
            Notice::Refreshed(member)
            | Notice::Suspect(member)
            | Notice::Recovered(member)
            | Notice::Updated(member)
            | Notice::Contested { member, .. } => {
                if !self.story(told, member, present)?.up {
                    return Err("it was not up".to_owned());
                }
            }
            Notice::Forgotten(_)
            | Notice::Refused { .. }
            | Notice::Ignored { .. }
            | Notice::Stalled { .. }
            | Notice::Health { .. }
            | Notice::Conflict { .. }
            | Notice::Broadcast { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiebeam_core::Status;

    fn member(creation: u32, incarnation: u64) -> Member {
        Member {
            node: crate::node(1),
            creation,
            incarnation,
            kind: Kind::Rust,
            status: Status::Alive,
            metadata: [].into(),
            round_trip: None,
        }
    }

    fn tell(notices: &[Notice]) -> Result<(), String> {
        let mut lives = Lives::default();
        notices
            .iter()
            .try_for_each(|notice| lives.tell(&crate::node(0), notice, |_| 2))
    }

    #[test]
    fn stories_that_make_sense() {
        let (first, second) = (member(1, 0), member(2, 0));
        tell(&[
            Notice::Up(first.clone()),
            Notice::Down(first.clone()),
            Notice::Up(first.clone()),
        ])
        .unwrap();
        tell(&[
            Notice::Up(first.clone()),
            Notice::Down(first.clone()),
            Notice::Up(second),
        ])
        .unwrap();
        tell(&[
            Notice::Up(first.clone()),
            Notice::Left(first),
            Notice::Up(member(1, 1)),
        ])
        .unwrap();
    }

    #[test]
    fn stories_that_do_not() {
        let (first, second) = (member(1, 5), member(2, 0));
        for story in [
            vec![Notice::Down(first.clone())],
            vec![Notice::Up(first.clone()), Notice::Up(second.clone())],
            vec![
                Notice::Up(first.clone()),
                Notice::Down(first.clone()),
                Notice::Down(first.clone()),
            ],
            vec![
                Notice::Up(first.clone()),
                Notice::Down(first.clone()),
                Notice::Up(second.clone()),
                Notice::Down(second),
                Notice::Up(first.clone()),
            ],
            vec![Notice::Up(first), Notice::Refreshed(member(1, 4))],
        ] {
            assert!(tell(&story).is_err(), "{story:?}");
        }
    }
}
