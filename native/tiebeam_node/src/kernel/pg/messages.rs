//! What the processes of one scope say to each other.
//!
//! ```text
//! {discover, Peer}                              I am here; tell me your members
//! {'$gen_cast', {sync, Peer, [{Group, [Pid]}]}} all my members, in place of what you knew
//! {join, Peer, Group, Pid | [Pid]}              these joined
//! {leave, Peer, Pid | [Pid], [Group]}           these left, once per group named
//! ```
//!
//! `Peer` is the process that speaks. A BEAM's scope ends on any other shape, so only these are made; what is read and
//! is none of them is nobody's. Source: `pg` of OTP's kernel.

use tiebeam_wire::{Pid, Term};

/// A message between two processes of one scope.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    Discover(Pid),
    Sync {
        peer: Pid,
        /// Each group once, none empty.
        groups: Vec<(Term, Vec<Pid>)>,
    },
    Join {
        peer: Pid,
        group: Term,
        pids: Vec<Pid>,
    },
    Leave {
        peer: Pid,
        pids: Vec<Pid>,
        /// A group that all of them leave twice is named twice.
        groups: Vec<Term>,
    },
}

impl Message {
    /// Who speaks.
    pub(super) fn peer(&self) -> &Pid {
        match self {
            Self::Discover(peer)
            | Self::Sync { peer, .. }
            | Self::Join { peer, .. }
            | Self::Leave { peer, .. } => peer,
        }
    }

    /// Reads a message that is no cast.
    pub(super) fn from_message(message: Term) -> Option<Self> {
        let Term::Tuple(elements) = message else {
            return None;
        };
        let mut elements = elements.into_iter();
        let tag = elements.next()?;
        let peer = pid(elements.next()?)?;
        let rest: Vec<Term> = elements.collect();
        match tag.as_atom()?.as_str() {
            // Releases to come may add what they can do; they take a peer that says nothing of it for one that cannot.
            "discover" if rest.len() <= 1 => Some(Self::Discover(peer)),
            "join" => {
                let [group, members] = <[Term; 2]>::try_from(rest).ok()?;
                Some(Self::Join {
                    peer,
                    group,
                    pids: pid_or_pids(members)?,
                })
            }
            "leave" => {
                let [members, Term::List(groups)] = <[Term; 2]>::try_from(rest).ok()? else {
                    return None;
                };
                let pids = pid_or_pids(members)?;
                // Many pids leave one group, or one pid leaves many: the work is as large as the message.
                let bounded = pids.len() <= 1 || groups.len() <= 1;
                bounded.then_some(Self::Leave { peer, pids, groups })
            }
            _ => None,
        }
    }

    /// Reads the content of a cast.
    pub(super) fn from_cast(content: Term) -> Option<Self> {
        let Term::Tuple(elements) = content else {
            return None;
        };
        match <[Term; 3]>::try_from(elements).ok()? {
            [tag, Term::Pid(peer), Term::List(groups)] if tag.is_atom("sync") => {
                let groups = groups.into_iter().map(group_and_members);
                Some(Self::Sync {
                    peer,
                    groups: groups.collect::<Option<_>>()?,
                })
            }
            _ => None,
        }
    }

    /// The message as it is sent.
    pub(super) fn into_term(self) -> Term {
        match self {
            Self::Discover(peer) => Term::tuple([Term::atom("discover"), Term::from(peer)]),
            Self::Sync { peer, groups } => {
                let pair = |(group, pids)| Term::tuple([group, pids_term(pids)]);
                let groups: Vec<Term> = groups.into_iter().map(pair).collect();
                let sync = [Term::atom("sync"), Term::from(peer), Term::from(groups)];
                Term::tuple([Term::atom("$gen_cast"), Term::tuple(sync)])
            }
            Self::Join { peer, group, pids } => Term::tuple([
                Term::atom("join"),
                Term::from(peer),
                group,
                pid_or_pids_term(pids),
            ]),
            Self::Leave { peer, pids, groups } => Term::tuple([
                Term::atom("leave"),
                Term::from(peer),
                pid_or_pids_term(pids),
                Term::from(groups),
            ]),
        }
    }
}

fn pid(term: Term) -> Option<Pid> {
    match term {
        Term::Pid(pid) => Some(pid),
        _ => None,
    }
}

fn pids(term: Term) -> Option<Vec<Pid>> {
    match term {
        Term::List(pids) => pids.into_iter().map(pid).collect(),
        _ => None,
    }
}

fn pid_or_pids(term: Term) -> Option<Vec<Pid>> {
    match term {
        Term::Pid(pid) => Some(vec![pid]),
        list => pids(list),
    }
}

fn group_and_members(pair: Term) -> Option<(Term, Vec<Pid>)> {
    let Term::Tuple(pair) = pair else { return None };
    let [group, members] = <[Term; 2]>::try_from(pair).ok()?;
    Some((group, pids(members)?))
}

fn pids_term(pids: Vec<Pid>) -> Term {
    Term::from(pids.into_iter().map(Term::from).collect::<Vec<_>>())
}

fn pid_or_pids_term(mut pids: Vec<Pid>) -> Term {
    match pids.pop() {
        Some(only) if pids.is_empty() => Term::from(only),
        Some(last) => {
            pids.push(last);
            pids_term(pids)
        }
        None => pids_term(pids),
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_wire::{Atom, Improper};

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid {
            node: Atom::of("a@h"),
            id,
            serial: 0,
            creation: 1,
        }
    }

    fn term(id: u32) -> Term {
        Term::from(pid(id))
    }

    fn read(message: Term) -> Option<Message> {
        match message {
            Term::Tuple(mut cast) if cast.len() == 2 && cast[0].is_atom("$gen_cast") => {
                Message::from_cast(cast.pop()?)
            }
            message => Message::from_message(message),
        }
    }

    #[test]
    fn the_shapes_of_otp() {
        let join = Message::Join {
            peer: pid(1),
            group: Term::atom("g"),
            pids: vec![pid(2)],
        };
        assert_eq!(
            join.clone().into_term(),
            Term::tuple([Term::atom("join"), term(1), Term::atom("g"), term(2)])
        );
        let leave = Message::Leave {
            peer: pid(1),
            pids: vec![pid(2), pid(3)],
            groups: vec![Term::atom("g")],
        };
        let leave_term = Term::tuple([
            Term::atom("leave"),
            term(1),
            Term::list([term(2), term(3)]),
            Term::list([Term::atom("g")]),
        ]);
        assert_eq!(leave.clone().into_term(), leave_term);
        let sync = Message::Sync {
            peer: pid(1),
            groups: vec![(Term::from("room"), vec![pid(2), pid(2)])],
        };
        let room = Term::tuple([Term::from("room"), Term::list([term(2), term(2)])]);
        let content = Term::tuple([Term::atom("sync"), term(1), Term::list([room])]);
        assert_eq!(
            sync.clone().into_term(),
            Term::tuple([Term::atom("$gen_cast"), content])
        );
        let discover = Message::Discover(pid(1));
        assert_eq!(
            discover.clone().into_term(),
            Term::tuple([Term::atom("discover"), term(1)])
        );
        for message in [join, leave, sync, discover] {
            assert_eq!(read(message.clone().into_term()), Some(message));
        }
    }

    #[test]
    fn a_discover_that_says_more_is_a_discover() {
        let discover = Term::tuple([Term::atom("discover"), term(1), Term::from(1)]);
        assert_eq!(read(discover), Some(Message::Discover(pid(1))));
    }

    #[test]
    fn anything_else_is_nobodys() {
        let improper = Term::Improper(Box::new(Improper {
            elements: vec![term(2)],
            tail: term(3),
        }));
        let cast = |content| Term::tuple([Term::atom("$gen_cast"), content]);
        for strange in [
            Term::atom("discover"),
            Term::tuple([]),
            Term::tuple([Term::atom("discover")]),
            Term::tuple([Term::atom("discover"), Term::atom("pid")]),
            Term::tuple([
                Term::atom("discover"),
                term(1),
                Term::from(1),
                Term::from(2),
            ]),
            Term::tuple([Term::from(1), term(1)]),
            Term::tuple([Term::atom("sync"), term(1), Term::list([])]),
            Term::tuple([Term::atom("join"), term(1), Term::atom("g")]),
            Term::tuple([Term::atom("join"), term(1), Term::atom("g"), improper]),
            Term::tuple([
                Term::atom("join"),
                term(1),
                Term::atom("g"),
                Term::list([Term::from(1)]),
            ]),
            Term::tuple([Term::atom("leave"), term(1), term(2), Term::atom("g")]),
            Term::tuple([
                Term::atom("leave"),
                term(1),
                Term::list([term(2), term(3)]),
                Term::list([Term::atom("g"), Term::atom("h")]),
            ]),
            Term::tuple([Term::atom("nodeup"), Term::atom("a@h")]),
            cast(Term::tuple([Term::atom("discover"), term(1)])),
            cast(Term::tuple([Term::atom("sync"), term(1), Term::atom("g")])),
            cast(Term::tuple([
                Term::atom("sync"),
                term(1),
                Term::list([Term::tuple([Term::atom("g"), term(1)])]),
            ])),
            cast(Term::tuple([
                Term::atom("sync"),
                term(1),
                Term::list([Term::atom("g")]),
            ])),
        ] {
            assert_eq!(read(strange.clone()), None, "{strange:?}");
        }
    }
}
