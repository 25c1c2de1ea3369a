//! Clients: each asks for one thing at a time, again under the same number, and gives up after a while.

use tiebeam_core::leadership::{Refusal, RequestId};

use super::{Event, MS, World};
use crate::leadership::engine::Engine;
use crate::leadership::history::Call;
use crate::leadership::store::{Command, Operation, Outcome};

/// How long an attempt waits for its answer.
const PATIENCE: u64 = 400 * MS;

/// After so many attempts a client gives up; some do so earlier.
const MAX_ATTEMPTS: u64 = 6;

#[derive(Debug)]
pub(super) struct Client {
    id: u64,
    /// The number of its latest request.
    number: u64,
    /// Whom it asks first.
    asks: usize,
    /// Its request, if one is open.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// Its place in the history.
    call: usize,
    /// Numbers attempts over the life of the client, so that late answers are told apart.
    attempt: u64,
    tries: u64,
    /// Some engine has accepted it and has not answered.
    accepted: bool,
}

impl<E: Engine> World<E> {
    pub(super) fn fresh_client(&mut self) -> Client {
        self.next_client += 1;
        Client {
            id: self.next_client,
            number: 0,
            asks: 0,
            open: None,
        }
    }

    /// A moment of its own for everything that a history compares.
    fn moment(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// The client's turn: it asks for something, or asks again.
    pub(super) fn client(&mut self, client: usize) {
        if client >= self.clients.len() {
            return;
        }
        let gap = self.between((2 * MS, 20 * MS));
        self.after(gap, Event::Client { client });
        if self.clients[client]
            .open
            .as_ref()
            .is_some_and(|open| open.accepted)
        {
            return;
        }
        if self.clients[client].open.is_none() {
            let (key, began) = (
                self.random.below(u64::from(self.plan.keys)) as u8,
                self.moment(),
            );
            let number = self.clients[client].number + 1;
            self.clients[client].number = number;
            let value = self.clients[client].id << 20 | number;
            let operation = match self.random.below(10) {
                0..=4 => Operation::Read,
                5..=7 => Operation::Put(value),
                _ => {
                    let at = self.random.below(self.machines.len() as u64) as usize;
                    Operation::Cas {
                        expected: self.machines[at].store.read(key),
                        new: value,
                    }
                }
            };
            self.history.calls.push(Call {
                key,
                operation,
                began,
                ended: None,
            });
            let call = self.history.calls.len() - 1;
            self.clients[client].open = Some(Open {
                call,
                attempt: began,
                tries: 0,
                accepted: false,
            });
        }
        self.ask(client);
    }

    /// Tries one member after the other until one accepts. One that does not lead may still believe it does.
    fn ask(&mut self, client: usize) {
        let count = self.machines.len();
        let first = if self.chance(250) {
            self.random.below(count as u64) as usize
        } else {
            self.clients[client].asks
        };
        for member in (0..count).map(|step| (first + step) % count) {
            if self.machines[member].paused || self.machines[member].engine.is_none() {
                continue;
            }
            let attempt = self.moment();
            let request = RequestId(self.next_request);
            self.next_request += 1;
            let Client {
                id,
                number,
                open: Some(open),
                ..
            } = &mut self.clients[client]
            else {
                return;
            };
            open.attempt = attempt;
            let Call { key, operation, .. } = self.history.calls[open.call];
            let command = Command {
                client: *id,
                number: *number,
                key,
                operation,
            };
            self.requests.insert(request, (client, attempt));
            open.accepted = true;
            let mut refused: Option<Refusal> = None;
            self.tell(member, |engine, now| {
                refused = match operation {
                    Operation::Read => engine.read(now, request),
                    Operation::Put(_) | Operation::Cas { .. } => {
                        engine.propose(now, request, command.encode())
                    }
                }
                .err();
            });
            if refused.is_none() {
                self.clients[client].asks = member;
                self.after(PATIENCE, Event::Timeout { client, attempt });
                return;
            }
            self.requests.remove(&request);
            if let Some(open) = &mut self.clients[client].open {
                open.accepted = false;
            }
        }
    }

    /// The attempt that waits, if `request` is it.
    fn waits(&mut self, request: RequestId) -> Option<usize> {
        let (client, attempt) = self.requests.remove(&request)?;
        let open = self.clients.get(client)?.open.as_ref()?;
        (open.attempt == attempt).then_some(client)
    }

    pub(super) fn answer(&mut self, request: RequestId, outcome: impl FnOnce(u8) -> Outcome) {
        let Some(client) = self.waits(request) else {
            return;
        };
        let at = self.moment();
        let Some(open) = self.clients[client].open.take() else {
            return;
        };
        let call = &mut self.history.calls[open.call];
        call.ended = Some((at, outcome(call.key)));
        if call.operation == Operation::Read {
            self.tally.reads += 1;
        } else {
            self.tally.changes += 1;
        }
    }

    pub(super) fn try_again(&mut self, request: RequestId) {
        if let Some(client) = self.waits(request) {
            self.again(client);
        }
    }

    pub(super) fn timeout(&mut self, client: usize, attempt: u64) {
        let waits = |client: &Client| {
            client
                .open
                .as_ref()
                .is_some_and(|open| open.attempt == attempt && open.accepted)
        };
        if self.clients.get(client).is_some_and(waits) {
            self.again(client);
        }
    }

    /// Asks again under the same number, or gives up and is somebody else from then on.
    fn again(&mut self, client: usize) {
        let impatient = self.chance(150);
        let Some(open) = &mut self.clients[client].open else {
            return;
        };
        open.accepted = false;
        open.tries += 1;
        if impatient || open.tries >= MAX_ATTEMPTS {
            self.tally.unknown += 1;
            self.clients[client] = self.fresh_client();
        }
    }
}
