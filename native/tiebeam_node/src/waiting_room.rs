//! Sockets whose peer has proved nothing yet: how many there may be, and which goes when there are too many.
//!
//! A newcomer is always let in and the one who waited longest makes room, first among those from the same address. A
//! peer that stalls a thousand sockets then ends its own ones, while a node that answers at once gets through. Refusing
//! newcomers would let the stalled ones keep the door shut until their timers fire.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The sockets that wait, oldest first.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    /// Most sockets that wait.
    most: usize,
    /// Most sockets that wait from one address.
    most_per_address: usize,
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    evicted: Arc<Notify>,
}

/// A place in the room. Dropping it leaves the room; from then on it is not evicted any more.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<WaitingRoom>,
    evicted: Arc<Notify>,
}

impl WaitingRoom {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Arc<WaitingRoom> {
        Arc::new(WaitingRoom {
            most: most.max(1),
            most_per_address: most_per_address.max(1),
            waiting: Mutex::default(),
        })
    }

    /// Lets a socket from `address` in. The second value completes when it must make room for another one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> (Place, impl Future<Output = ()> + Send + 'static) {
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let from_there = |other: &Waiting| other.address == address;
        if waiting.iter().filter(|other| from_there(other)).count() >= self.most_per_address {
            let oldest = waiting.iter().position(from_there);
            Self::evict(&mut waiting, oldest);
        } else if waiting.len() >= self.most {
            Self::evict(&mut waiting, Some(0));
        }
        waiting.push_back(Waiting {
            address,
            evicted: Arc::clone(&evicted),
        });
        drop(waiting);
        let place = Place {
            room: Arc::clone(self),
            evicted: Arc::clone(&evicted),
        };
        (place, async move { evicted.notified().await })
    }

    fn evict(waiting: &mut VecDeque<Waiting>, at: Option<usize>) {
        if let Some(gone) = at.and_then(|at| waiting.remove(at)) {
            gone.evicted.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Nothing panics while it holds the lock; a queue of places cannot be half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.room.lock();
        if let Some(at) = waiting
            .iter()
            .position(|other| Arc::ptr_eq(&other.evicted, &self.evicted))
        {
            waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn is_evicted(evicted: impl Future<Output = ()>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        pin!(evicted).as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_oldest_of_the_same_address_makes_room() {
        let room = WaitingRoom::new(3, 2);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let (_place_b, evicted_b) = room.enter(b);
        let (_place_1, evicted_1) = room.enter(a);
        let (place_2, evicted_2) = room.enter(a);
        let (_place_3, evicted_3) = room.enter(a);
        assert!(is_evicted(evicted_1));
        drop(place_2);
        let (_place_4, evicted_4) = room.enter(a);
        assert!(!is_evicted(evicted_2), "it had left before");
        let (_place_5, evicted_5) = room.enter("10.0.0.3".parse().unwrap());
        assert!(
            is_evicted(evicted_b),
            "the oldest of all, when the room is full"
        );
        assert!(!is_evicted(evicted_3) && !is_evicted(evicted_4) && !is_evicted(evicted_5));
    }
}
