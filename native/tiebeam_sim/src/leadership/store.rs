//! What the clients of a simulated group share: registers, and who did what already.

use std::collections::BTreeMap;

/// What a client asks for. Values are never written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put(u64),
    Cas { expected: u64, new: u64 },
    Read,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Swapped(bool),
    Value(u64),
}

/// One request for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) client: u64,
    pub(super) number: u64,
    pub(super) key: u8,
    pub(super) operation: Operation,
}

impl Command {
    pub(super) fn encode(self) -> Vec<u8> {
        let (kind, expected, new) = match self.operation {
            Operation::Put(value) => (0, 0, value),
            Operation::Cas { expected, new } => (1, expected, new),
            Operation::Read => unreachable!("reads are not in the log"),
        };
        let mut out = vec![kind, self.key];
        for number in [self.client, self.number, expected, new] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[kind, key], numbers) = bytes.split_first_chunk()?;
        let (chunks, []) = numbers.as_chunks::<8>() else {
            return None;
        };
        let &[client, number, expected, new] = chunks else {
            return None;
        };
        let [client, number, expected, new] =
            [client, number, expected, new].map(u64::from_be_bytes);
        let operation = match kind {
            0 => Operation::Put(new),
            1 => Operation::Cas { expected, new },
            _ => return None,
        };
        Some(Self {
            client,
            number,
            key,
            operation,
        })
    }
}

/// The registers, as one member has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Store {
    values: BTreeMap<u8, u64>,
    /// The latest request of each client, and its outcome: a repeated one does nothing.
    done: BTreeMap<u64, (u64, Outcome)>,
    /// A digest of everything that was applied, in order.
    sum: u64,
}

impl Store {
    /// A digest of everything that was applied, in order.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// For a snapshot, with so many bytes behind it that mean nothing.
    pub(super) fn encode(&self, padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        put(self.sum);
        put(self.values.len() as u64);
        for (&key, &value) in &self.values {
            put(u64::from(key));
            put(value);
        }
        put(self.done.len() as u64);
        for (&client, &(number, outcome)) in &self.done {
            let (kind, value) = match outcome {
                Outcome::Done => (0, 0),
                Outcome::Swapped(held) => (1, u64::from(held)),
                Outcome::Value(value) => (2, value),
            };
            for number in [client, number, kind, value] {
                put(number);
            }
        }
        out.resize(out.len() + padding, 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.as_chunks::<8>().0.iter();
        let mut next = || numbers.next().map(|bytes| u64::from_be_bytes(*bytes));
        let mut store = Self {
            sum: next()?,
            ..Self::default()
        };
        for _ in 0..next()? {
            store.values.insert(u8::try_from(next()?).ok()?, next()?);
        }
        for _ in 0..next()? {
            let (client, number) = (next()?, next()?);
            let outcome = match (next()?, next()?) {
                (0, _) => Outcome::Done,
                (1, held) => Outcome::Swapped(held == 1),
                (2, value) => Outcome::Value(value),
                _ => return None,
            };
            store.done.insert(client, (number, outcome));
        }
        Some(store)
    }

    pub(super) fn read(&self, key: u8) -> u64 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        for number in [command.client, command.number] {
            self.sum = (self.sum.rotate_left(7) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        if let Some(&(number, outcome)) = self.done.get(&command.client)
            && command.number <= number
        {
            return outcome;
        }
        let outcome = match command.operation {
            Operation::Put(value) => {
                self.values.insert(command.key, value);
                Outcome::Done
            }
            Operation::Cas { expected, new } => {
                let holds = self.read(command.key) == expected;
                if holds {
                    self.values.insert(command.key, new);
                }
                Outcome::Swapped(holds)
            }
            Operation::Read => Outcome::Value(self.read(command.key)),
        };
        self.done.insert(command.client, (command.number, outcome));
        outcome
    }
}

#[test]
fn a_store_comes_back_from_its_snapshot() {
    let mut store = Store::default();
    for (number, operation) in [
        Operation::Put(7),
        Operation::Cas {
            expected: 7,
            new: 8,
        },
        Operation::Cas {
            expected: 7,
            new: 9,
        },
    ]
    .into_iter()
    .enumerate()
    {
        store.apply(Command {
            client: number as u64 % 2,
            number: number as u64,
            key: 1,
            operation,
        });
    }
    assert_eq!(Store::decode(&store.encode(100)), Some(store.clone()));
    assert_eq!(Store::decode(&store.encode(0)[..40]), None);
}
