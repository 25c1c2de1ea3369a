//! What a node does next about the slots of a task.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use super::participant::Participant;
use super::policy::Policy;
use super::share::{Share, divide};
use super::{Task, score};
use crate::identity::NodeName;
use crate::time::Instant;

/// What a node sees of a task.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Which.
    pub task: Task<'a>,
    /// Where it may be, and how it moves.
    pub policy: &'a Policy,
    /// Who holds each slot.
    pub holders: &'a [Option<NodeName>],
    /// All nodes that take part. What another node holds is waited for.
    pub participants: &'a BTreeMap<NodeName, Participant>,
}

/// What a node does next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Let these go, in good order.
    pub release: Vec<usize>,
    /// Ask for these, which nobody holds.
    pub acquire: Vec<usize>,
    /// There is more to do then, though nothing may have changed.
    pub again: Option<Instant>,
    /// What is to be remembered until the next turn.
    pub moves: Moves,
}

/// What a node remembers of the slots that it gave up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// When it last gave up slots for balance's sake.
    pub last: Option<Instant>,
    /// Those that nobody has taken yet.
    pub under_way: BTreeSet<usize>,
    /// An order to rebalance is not done yet, because only some slots may move at a time.
    pub by_hand: bool,
}

/// What all nodes see alike: how the slots should be spread.
struct Spread<'a> {
    shares: Vec<Share<'a>>,
    /// Whose slot it is by a pin.
    pins: Vec<Option<&'a NodeName>>,
    /// Shares differ so much that something should move.
    uneven: bool,
}

impl<'a> View<'a> {
    /// The nodes that may have slots, whether they take new ones or not, in order.
    pub fn eligible(self) -> impl Iterator<Item = &'a NodeName> {
        self.eligible_participants().map(|(node, _)| node)
    }

    fn most(self) -> usize {
        self.task.most.min(self.holders.len())
    }

    fn eligible_participants(self) -> impl Iterator<Item = (&'a NodeName, &'a Participant)> {
        let may = move |(node, participant): &(&NodeName, &Participant)| {
            !participant.draining && self.policy.admits(node, &participant.labels)
        };
        self.participants.iter().filter(may)
    }

    /// What `me` should do, at `now`, on its own clock. `moves` is what its last turn left to remember; the default before the first.
    ///
    /// - Each node that may have slots gets as many as its weight gives it, rounded up or down, and no more than [`Task::most`]. Who may not lets go of all,
    ///   at once.
    /// - A slot that is pinned to a node that may have it is that node's. Its other slots make room, as far as there are any.
    /// - A cordoned node keeps what it has, and takes nothing, not even what is pinned to it.
    /// - Slots that nobody holds are taken at once; those that move do so as [`Rebalance`](super::Rebalance) says. `by_hand`, an operator's order,
    ///   passes over its threshold and cooldown, and moves slots to preferred nodes as well.
    ///
    /// So if all nodes follow their turns, nothing is left to do soon, and no slot moves but those that must.
    pub fn turn(self, me: &NodeName, now: Instant, moves: &Moves, by_hand: bool) -> Turn {
        let by_hand = by_hand || moves.by_hand;
        let rebalance = self.policy.rebalance;
        let mut moves = self.still_under_way(me, moves);
        let budget = rebalance
            .max_concurrent
            .max(1)
            .saturating_sub(moves.under_way.len());
        let mine: Vec<usize> = (0..self.holders.len())
            .filter(|&slot| self.holders[slot].as_ref() == Some(me))
            .collect();
        if !self.eligible().any(|node| node == me) {
            moves.under_way.extend(&mine);
            moves.by_hand = false;
            return Turn {
                release: mine,
                moves,
                ..Turn::default()
            };
        }
        let spread = self.spread(by_hand);
        let acquire = self.acquire(&spread, me, self.most().saturating_sub(mine.len()));

        let share = spread.shares.iter().find(|share| share.node == me);
        let (quota, kept) = share.map_or((0, 0), |share| (share.quota, share.kept));
        let elsewhere = |slot: &usize| spread.pins[*slot].is_some_and(|node| node != me);
        let (mut release, mut rest): (Vec<usize>, Vec<usize>) =
            mine.into_iter().partition(elsewhere);
        rest.retain(|&slot| spread.pins[slot].is_none());
        // It keeps what it is most meant for.
        rest.sort_by_key(|&slot| (self.task.score(slot, me), slot));
        let too_many = kept.saturating_sub(self.most()).min(rest.len());
        release.extend(rest.drain(..too_many));

        let surplus = kept.saturating_sub(quota).saturating_sub(too_many);
        let mut again = None;
        let mut wanted = if spread.uneven || by_hand {
            surplus.min(rest.len())
        } else {
            0
        };
        let rested = moves.last.map(|last| last + rebalance.cooldown);
        if wanted > 0 && !by_hand && rested.is_some_and(|rested| now < rested) {
            again = rested;
            wanted = 0;
        }
        let forced = release.len();
        release.extend(rest.drain(..wanted));
        moves.by_hand = by_hand && release.len() > budget;
        release.truncate(budget);
        if release.len() > forced {
            moves.last = Some(now);
        }
        release.sort_unstable();
        moves.under_way.extend(&release);
        for slot in &acquire {
            moves.under_way.remove(slot);
        }
        Turn {
            release,
            acquire,
            again,
            moves,
        }
    }

    /// How many slots have yet to change their place, those that nobody holds included; 0 if all is as it should be.
    pub fn unsettled(self) -> usize {
        let spread = self.spread(false);
        let astray = (0..self.holders.len()).filter(|&slot| {
            let holder = self.holders[slot].as_ref();
            let at_home = holder.is_some_and(|at| spread.shares.iter().any(|s| s.node == at));
            !at_home || spread.pins[slot].is_some_and(|node| holder != Some(node))
        });
        let surplus = |share: &Share<'_>| {
            let most = if spread.uneven {
                share.quota
            } else {
                self.most()
            };
            share.kept.saturating_sub(most)
        };
        astray.count() + spread.shares.iter().map(surplus).sum::<usize>()
    }

    /// The nodes that follow a slot: the `most` that are most meant for it, of those that may have it and do not. Nothing is agreed upon; whoever
    /// sees the same says the same.
    pub fn followers(self, slot: usize, most: usize) -> Vec<NodeName> {
        let holder = self.holders.get(slot).and_then(Option::as_ref);
        let mut ranked: Vec<(u64, &NodeName)> = self
            .eligible()
            .filter(|node| Some(*node) != holder)
            .map(|node| (self.task.score(slot, node), node))
            .collect();
        ranked.sort_by(|a, b| b.cmp(a));
        let first = ranked.into_iter().take(most);
        first.map(|(_, node)| node.clone()).collect()
    }

    fn still_under_way(self, me: &NodeName, moves: &Moves) -> Moves {
        let mut moves = moves.clone();
        // Its own table may show it as the holder for a moment.
        moves.under_way.retain(|&slot| {
            let holder = self.holders.get(slot);
            holder.is_some_and(|holder| holder.as_ref().is_none_or(|at| at == me))
        });
        moves
    }

    fn spread(self, by_hand: bool) -> Spread<'a> {
        let pins = self.pins();
        let mut shares: Vec<Share<'a>> = self
            .eligible_participants()
            .map(|(node, participant)| {
                let at = |pin: &Option<&NodeName>| *pin == Some(node);
                let pinned = pins.iter().filter(|pin| at(pin)).count();
                let holders = self.holders.iter().zip(&pins);
                let unpinned = holders
                    .filter(|(holder, pin)| pin.is_none() && holder.as_ref() == Some(node))
                    .count();
                let kept = pinned + unpinned;
                let (least, most) = if participant.cordoned {
                    (kept, kept)
                } else {
                    (pinned, self.most())
                };
                Share {
                    node,
                    weight: i64::from(participant.weight.max(1)),
                    preference: self.policy.preference(participant),
                    rank: score(self.task.name, node),
                    kept,
                    least,
                    most,
                    quota: 0,
                    fair: 0,
                }
            })
            .collect();
        let unit = divide(&mut shares, self.holders.len(), by_hand);
        let surplus = |share: &Share<'_>| share.kept as i64 * unit - share.fair;
        // A cordoned node has what it has.
        let open = || shares.iter().filter(|share| !self.cordoned(share.node));
        let difference = match (open().map(surplus).max(), open().map(surplus).min()) {
            (Some(greatest), Some(least)) => greatest - least,
            _ => 0,
        };
        let threshold = self.policy.rebalance.threshold.max(1);
        Spread {
            uneven: difference > threshold as i64 * unit,
            shares,
            pins,
        }
    }

    fn cordoned(self, node: &NodeName) -> bool {
        self.participants.get(node).is_some_and(|at| at.cordoned)
    }

    /// Whose slots are by pins. Of several the one that has it, and then the one that is most meant for it.
    fn pins(self) -> Vec<Option<&'a NodeName>> {
        let mut pins: Vec<Option<&'a NodeName>> = vec![None; self.holders.len()];
        for (node, participant) in self.eligible_participants() {
            let mut room = self.most();
            for &slot in &participant.pinned {
                let Some(holder) = self.holders.get(slot).map(Option::as_ref) else {
                    break;
                };
                let has = holder == Some(node);
                if room == 0 || (participant.cordoned && !has) {
                    continue;
                }
                let meant = |at: &NodeName| (holder == Some(at), self.task.score(slot, at));
                if pins[slot].is_none_or(|other| (meant(other), other) < (meant(node), node)) {
                    pins[slot] = Some(node);
                }
                room -= 1;
            }
        }
        pins
    }

    /// The free slots that `me` takes, at most so many, when each goes to the node that is most meant for it and wants more.
    fn acquire(self, spread: &Spread<'a>, me: &NodeName, most: usize) -> Vec<usize> {
        let mut acquire = Vec::new();
        let mut rooms: Vec<(usize, &NodeName)> = spread
            .shares
            .iter()
            .map(|share| (share.quota.saturating_sub(share.kept), share.node))
            .collect();
        for slot in (0..self.holders.len()).filter(|&slot| self.holders[slot].is_none()) {
            let taker = match spread.pins[slot] {
                Some(node) => Some(node),
                None => {
                    let wanting = rooms.iter_mut().filter(|(room, _)| *room > 0);
                    let first =
                        wanting.max_by_key(|(_, node)| (self.task.score(slot, node), *node));
                    first.map(|(room, node)| {
                        *room -= 1;
                        *node
                    })
                }
            };
            if taker == Some(me) && acquire.len() < most {
                acquire.push(slot);
            }
        }
        acquire
    }
}
