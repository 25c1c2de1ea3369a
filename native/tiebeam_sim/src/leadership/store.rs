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
}

impl Store {
    pub(super) fn read(&self, key: u8) -> u64 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
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
