//! The links of one process: OTP's link protocol, as a pure machine.
//!
//! Both sides may link and unlink at once, and their signals cross. So an unlink is not over until the other side
//! has acknowledged it; until then its entry stays, inactive, and what arrives over it is ignored.
//! Source: *Distribution Protocol*, "Link Protocol" and "New Link Protocol".

use std::collections::HashMap;

use tiebeam_wire::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Active,
    /// We unlinked, and wait for the acknowledgement with this id.
    Unlinking(u64),
    /// Its connection is gone, and the process is about to hear of it.
    Lost,
}

/// All links of one process, by the process at the other end.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: HashMap<Pid, Link>,
    /// Ids only need to be unique among unlinks that are not acknowledged yet.
    last_unlink: u64,
}

impl Links {
    /// This process links to another. True if LINK must be sent.
    pub(crate) fn link(&mut self, to: &Pid) -> bool {
        match self.links.get(to) {
            // A lost link ends with an exit, as if this call had come just before the loss.
            Some(Link::Active | Link::Lost) => false,
            Some(Link::Unlinking(_)) | None => {
                self.links.insert(to.clone(), Link::Active);
                true
            }
        }
    }

    /// LINK came. Ignored while we unlink: the sender will see our UNLINK_ID. Over a lost link it came by the next
    /// connection: they are linked, and the loss is no news any more.
    pub(crate) fn linked_by(&mut self, from: Pid) {
        let link = self.links.entry(from).or_insert(Link::Active);
        if *link == Link::Lost {
            *link = Link::Active;
        }
    }

    /// This process unlinks. The id to send in UNLINK_ID, if there was an active link.
    pub(crate) fn unlink(&mut self, to: &Pid) -> Option<u64> {
        if self.links.get(to) == Some(&Link::Lost) {
            // The other side has lost it too: over the next connection the signal would end a link of that one.
            self.links.remove(to);
        }
        let link = self
            .links
            .get_mut(to)
            .filter(|link| **link == Link::Active)?;
        self.last_unlink += 1;
        *link = Link::Unlinking(self.last_unlink);
        Some(self.last_unlink)
    }

    /// UNLINK_ID came. It must be acknowledged whatever the state.
    pub(crate) fn unlinked_by(&mut self, from: &Pid) {
        if self.links.get(from) == Some(&Link::Active) {
            self.links.remove(from);
        }
    }

    /// UNLINK_ID_ACK came.
    pub(crate) fn acknowledged(&mut self, from: &Pid, id: u64) {
        if self.links.get(from) == Some(&Link::Unlinking(id)) {
            self.links.remove(from);
        }
    }

    /// EXIT came. True if it counts: an inactive link swallows it, and without a link it means nothing.
    pub(crate) fn exited(&mut self, from: &Pid) -> bool {
        matches!(self.links.remove(from), Some(Link::Active | Link::Lost))
    }

    /// The connection to the other ends that satisfy the test is gone: returns those of active links, each of which is to
    /// be told with [`Links::end_lost`]. Inactive ones go silently: their acknowledgement cannot come any more.
    pub(crate) fn lose(&mut self, test: impl Fn(&Pid) -> bool) -> Vec<Pid> {
        self.links
            .retain(|pid, link| !matches!(link, Link::Unlinking(_)) || !test(pid));
        let mut lost = Vec::new();
        for (pid, link) in &mut self.links {
            if *link == Link::Active && test(pid) {
                *link = Link::Lost;
                lost.push(pid.clone());
            }
        }
        lost
    }

    /// The process is told of a lost link. True if that counts: it may have unlinked since, and even linked again, which
    /// belongs to the next connection.
    pub(crate) fn end_lost(&mut self, to: &Pid) -> bool {
        let lost = self.links.get(to) == Some(&Link::Lost);
        if lost {
            self.links.remove(to);
        }
        lost
    }

    /// Removes and returns the active links whose other end satisfies the test; inactive ones go silently.
    pub(crate) fn take(&mut self, mut test: impl FnMut(&Pid) -> bool) -> Vec<Pid> {
        let gone: Vec<(Pid, Link)> = self.links.extract_if(|pid, _| test(pid)).collect();
        gone.into_iter()
            .filter(|(_, link)| *link == Link::Active)
            .map(|(pid, _)| pid)
            .collect()
    }

    /// How many there are, active or not.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The processes at the other end of active links.
    #[cfg(test)]
    pub(crate) fn active(&self) -> impl Iterator<Item = &Pid> {
        self.links
            .iter()
            .filter(|(_, link)| **link == Link::Active)
            .map(|(pid, _)| pid)
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_wire::Atom;

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid {
            node: Atom::of("a@h"),
            id,
            serial: 0,
            creation: 1,
        }
    }

    #[test]
    fn linking_twice_sends_once() {
        let mut links = Links::default();
        assert!(links.link(&pid(1)));
        assert!(!links.link(&pid(1)));
    }

    #[test]
    fn a_link_that_crosses_our_unlink_is_ignored() {
        let mut links = Links::default();
        links.link(&pid(1));
        let id = links.unlink(&pid(1)).unwrap();
        links.linked_by(pid(1));
        assert!(
            !links.exited(&pid(1)),
            "the unlink came last, the exit must not count"
        );
        links.acknowledged(&pid(1), id);
        assert_eq!(links.active().count(), 0);
    }

    #[test]
    fn linking_again_before_the_acknowledgement_survives_it() {
        let mut links = Links::default();
        links.link(&pid(1));
        let id = links.unlink(&pid(1)).unwrap();
        assert!(
            links.link(&pid(1)),
            "LINK must be sent: the other side has removed its entry"
        );
        links.acknowledged(&pid(1), id);
        assert!(links.exited(&pid(1)));
    }

    #[test]
    fn an_acknowledgement_of_an_older_unlink_is_ignored() {
        let mut links = Links::default();
        links.link(&pid(1));
        let first = links.unlink(&pid(1)).unwrap();
        links.link(&pid(1));
        let second = links.unlink(&pid(1)).unwrap();
        links.acknowledged(&pid(1), first);
        assert!(!links.exited(&pid(1)));
        links.link(&pid(1));
        links.acknowledged(&pid(1), second);
        assert_eq!(links.active().count(), 1);
    }

    /// A process linked again while the loss of the old connection was being told: its LINK went out over the next one,
    /// and then the old loss took the new link away on this side only.
    #[test]
    fn what_a_process_does_with_a_lost_link_belongs_to_the_next_connection() {
        let mut links = Links::default();
        links.link(&pid(1));
        assert_eq!(links.lose(|_| true), [pid(1)]);
        assert!(
            !links.link(&pid(1)),
            "it is still linked, and will hear of the loss"
        );
        assert_eq!(links.unlink(&pid(1)), None, "there is nobody to tell");
        assert!(!links.end_lost(&pid(1)), "who has unlinked hears nothing");
        assert!(links.link(&pid(1)));
        assert!(!links.end_lost(&pid(1)));
        assert_eq!(links.active().count(), 1);
    }

    #[test]
    fn a_link_over_the_next_connection_outlives_the_loss_of_the_last() {
        let mut links = Links::default();
        links.link(&pid(1));
        links.lose(|_| true);
        links.linked_by(pid(1));
        assert!(!links.end_lost(&pid(1)));
        assert_eq!(links.active().count(), 1);
    }

    #[test]
    fn a_lost_link_ends_once() {
        let mut links = Links::default();
        links.link(&pid(1));
        links.link(&pid(2));
        links.unlink(&pid(2));
        assert_eq!(links.lose(|_| true), [pid(1)]);
        assert_eq!(links.lose(|_| true), []);
        assert!(links.end_lost(&pid(1)));
        assert!(!links.end_lost(&pid(1)));
        assert_eq!(links.len(), 0);
    }

    #[test]
    fn unlinking_without_a_link_sends_nothing() {
        assert_eq!(Links::default().unlink(&pid(1)), None);
    }

    #[test]
    fn an_exit_without_a_link_does_not_count() {
        assert!(!Links::default().exited(&pid(1)));
    }
}
