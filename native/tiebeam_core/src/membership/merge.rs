//! Which of two words about a member wins. Pure, and the same in whatever order the words arrive.
//!
//! A word of a higher incarnation wins (SWIM, section 4.2), whatever its creation: creations have no order, and a node
//! that starts anew learns what is held of its name and outdoes it. Within one incarnation the graver word wins: left over
//! dead over suspect over alive. So a death of an older incarnation is void, and a member that was declared dead refutes
//! it like a suspicion (memberlist's rule; the paper's "confirm overrides all" lets one stale message kill).
//!
//! A node that speaks for itself outranks one that is only observed: that it runs Tiebeam can only be known from itself.

use core::cmp::Ordering;

use super::member::{Kind, Member, Status};
use crate::message::Word;
use crate::mutation::Mutation;

/// What decides between two words: later fields matter only where the earlier ones are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    speaks: bool,
    incarnation: u64,
    gravity: u8,
    /// Only so that all nodes decide the same.
    creation: u32,
}

const fn gravity(status: Status) -> u8 {
    match status {
        Status::Alive => 0,
        Status::Suspect => 1,
        Status::Dead => 2,
        Status::Left => 3,
    }
}

impl Weight {
    pub(super) fn of_member(member: &Member) -> Self {
        Self {
            speaks: member.kind != Kind::Plain,
            incarnation: member.incarnation,
            gravity: gravity(member.status),
            creation: member.creation,
        }
    }

    pub(super) fn of_word(word: &Word) -> Self {
        Self {
            speaks: word.kind != Kind::Plain,
            incarnation: word.incarnation,
            gravity: gravity(word.claim.status()),
            creation: word.creation,
        }
    }
}

/// How `word` compares with what is held: greater wins, equal says the same again.
pub(super) fn compare(word: &Word, held: &Member, mutation: Option<Mutation>) -> Ordering {
    let dies = word.claim.status() == Status::Dead;
    if mutation == Some(Mutation::StaleDeadWins) && dies && held.status < Status::Dead {
        return Ordering::Greater;
    }
    let back = held.status == Status::Dead && word.claim.status() < Status::Dead;
    if mutation == Some(Mutation::DeadCannotRefute) && back && word.creation == held.creation {
        return Ordering::Less;
    }
    Weight::of_word(word).cmp(&Weight::of_member(held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeName;
    use crate::message::Claim;
    use crate::random::Random;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    fn word(creation: u32, incarnation: u64, claim: Claim) -> Word {
        Word {
            node: NodeName::parse("x@h").unwrap(),
            creation,
            incarnation,
            kind: Kind::Rust,
            claim,
            metadata: None,
        }
    }

    fn member(word: &Word) -> Member {
        Member {
            node: word.node.clone(),
            creation: word.creation,
            incarnation: word.incarnation,
            kind: word.kind,
            status: word.claim.status(),
            metadata: Arc::from(&[][..]),
            round_trip: None,
        }
    }

    fn suspect() -> Claim {
        Claim::Suspect {
            by: NodeName::parse("a@h").unwrap(),
        }
    }

    /// SWIM, section 4.2, with memberlist's rule for the dead. Each beats those before it.
    #[test]
    fn the_order_of_words() {
        let order = [
            Word {
                kind: Kind::Plain,
                ..word(0, 9, Claim::Dead)
            },
            word(1, 1, Claim::Alive),
            word(2, 1, Claim::Alive),
            word(1, 1, suspect()),
            word(1, 1, Claim::Dead),
            word(1, 1, Claim::Left),
            word(1, 2, Claim::Alive),
            word(1, u64::MAX, Claim::Alive),
        ];
        for (at, first) in order.iter().enumerate() {
            for (other, second) in order.iter().enumerate() {
                assert_eq!(
                    compare(second, &member(first), None),
                    other.cmp(&at),
                    "{second:?} after {first:?}"
                );
            }
        }
    }

    #[test]
    fn the_outcome_does_not_depend_on_the_order_of_arrival() {
        let seed = 0x51C;
        let mut random = Random::from_seed(seed);
        for round in 0..2000 {
            let mut words: Vec<Word> = (0..6)
                .map(|_| {
                    let claim = [Claim::Alive, suspect(), Claim::Dead, Claim::Left]
                        [random.below(4) as usize]
                        .clone();
                    Word {
                        kind: [Kind::Rust, Kind::Plain][random.below(2) as usize],
                        ..word(random.below(3) as u32, random.below(3), claim)
                    }
                })
                .collect();
            let outcome = |words: &[Word]| {
                let held = words[1..].iter().fold(member(&words[0]), |held, word| {
                    match compare(word, &held, None) {
                        Ordering::Greater => member(word),
                        Ordering::Less | Ordering::Equal => held,
                    }
                });
                Weight::of_member(&held)
            };
            let expected = outcome(&words);
            for _ in 0..10 {
                let (a, b) = (random.below(6) as usize, random.below(6) as usize);
                words.swap(a, b);
                assert_eq!(
                    outcome(&words),
                    expected,
                    "seed {seed:#x}, round {round}: {words:?}"
                );
            }
        }
    }
}
