//! Records in bytes.
//!
//! ```text
//! hard          = term:64  voted:8 (0 | 1, member:64)                    integers are unsigned, big-endian
//! founding      = group:64  agreed:8  configuration
//! snapshot      = index:64  term:64  configuration  state (the rest)
//! entry         = term:64  kind:8 (0 noop | 1 command, the rest | 2 configuration)     its index is its key
//! configuration = voters  outgoing  learners  nodes
//! voters, outgoing, learners = count:16  count × member:64
//! nodes         = count:16  count × (member:64  length:16  name)
//! ```
//!
//! A change of these is a new [`FORMAT`](crate::store::FORMAT).

use std::sync::Arc;

use tiebeam_core::NodeName;
use tiebeam_core::leadership::group::Founding;
use tiebeam_core::leadership::{
    Configuration, Entry, HardState, Index, MemberId, Payload, Snapshot,
};

/// A record that is none: what it should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

pub(crate) fn hard(hard: &HardState) -> Vec<u8> {
    let mut out = hard.term.to_be_bytes().to_vec();
    out.push(u8::from(hard.vote.is_some()));
    if let Some(vote) = hard.vote {
        put(&mut out, vote.0);
    }
    out
}

pub(crate) fn read_hard(bytes: &[u8]) -> Result<HardState> {
    let mut input = Input(bytes, "term and vote");
    let term = input.u64()?;
    let vote = match input.flag()? {
        true => Some(MemberId(input.u64()?)),
        false => None,
    };
    input.end()?;
    Ok(HardState { term, vote })
}

pub(crate) fn founding(founding: &Founding) -> Vec<u8> {
    let mut out = founding.group.to_be_bytes().to_vec();
    out.push(u8::from(founding.agreed));
    put_configuration(&mut out, &founding.configuration);
    out
}

pub(crate) fn read_founding(bytes: &[u8]) -> Result<Founding> {
    let mut input = Input(bytes, "founding");
    let (group, agreed) = (input.u64()?, input.flag()?);
    let configuration = input.configuration()?;
    input.end()?;
    Ok(Founding {
        group,
        configuration,
        agreed,
    })
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::with_capacity(snapshot.state.len() + 256);
    put(&mut out, snapshot.index);
    put(&mut out, snapshot.term);
    put_configuration(&mut out, &snapshot.configuration);
    out.extend_from_slice(&snapshot.state);
    out
}

pub(crate) fn read_snapshot(bytes: &[u8]) -> Result<Snapshot> {
    let mut input = Input(bytes, "snapshot");
    Ok(Snapshot {
        index: input.u64()?,
        term: input.u64()?,
        configuration: input.configuration()?,
        state: Arc::from(input.rest()),
    })
}

pub(crate) fn entry(entry: &Entry) -> Vec<u8> {
    let mut out = entry.term.to_be_bytes().to_vec();
    match &entry.payload {
        Payload::Noop => out.push(0),
        Payload::Command(bytes) => {
            out.reserve_exact(1 + bytes.len());
            out.push(1);
            out.extend_from_slice(bytes);
        }
        Payload::Configuration(configuration) => {
            out.push(2);
            put_configuration(&mut out, configuration);
        }
    }
    out
}

pub(crate) fn read_entry(index: Index, bytes: &[u8]) -> Result<Entry> {
    let mut input = Input(bytes, "entry");
    let term = input.u64()?;
    let payload = match input.byte()? {
        0 => Payload::Noop,
        1 => Payload::Command(Arc::from(input.rest())),
        2 => Payload::Configuration(input.configuration()?),
        _ => return Err(input.malformed()),
    };
    input.end()?;
    Ok(Entry {
        index,
        term,
        payload,
    })
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Counts and lengths here are far below 65,536: see `MAX_MEMBERS` and `MAX_NODE_NAME_BYTES` of the core.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u16).to_be_bytes());
}

fn put_configuration(out: &mut Vec<u8>, configuration: &Configuration) {
    let parts = [
        configuration.voters().collect::<Vec<_>>(),
        configuration.outgoing().collect(),
        configuration.learners().collect(),
    ];
    for members in parts {
        put_count(out, members.len());
        for member in members {
            put(out, member.0);
        }
    }
    let nodes = configuration
        .members()
        .filter_map(|member| Some((member, configuration.node(member)?)));
    let nodes: Vec<_> = nodes.collect();
    put_count(out, nodes.len());
    for (member, node) in nodes {
        put(out, member.0);
        put_count(out, node.as_str().len());
        out.extend_from_slice(node.as_str().as_bytes());
    }
}

/// The bytes still to be read, and of what they are.
struct Input<'a>(&'a [u8], &'static str);

impl<'a> Input<'a> {
    const fn malformed(&self) -> Malformed {
        Malformed(self.1)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(self.malformed())?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    fn count(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn members(&mut self) -> Result<Vec<MemberId>> {
        let count = self.count()?;
        (0..count).map(|_| Ok(MemberId(self.u64()?))).collect()
    }

    fn configuration(&mut self) -> Result<Configuration> {
        let (voters, outgoing, learners) = (self.members()?, self.members()?, self.members()?);
        let made =
            Configuration::joint(voters, outgoing, learners).map_err(|_| self.malformed())?;
        let mut nodes = Vec::new();
        for _ in 0..self.count()? {
            let member = MemberId(self.u64()?);
            let length = self.count()?;
            let name = std::str::from_utf8(self.take(length)?).map_err(|_| self.malformed())?;
            let name = NodeName::parse(name).map_err(|_| self.malformed())?;
            nodes.push((member, name));
        }
        Ok(made.on_nodes(nodes))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn end(&self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(self.malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(numbers: &[u64]) -> Vec<MemberId> {
        numbers.iter().copied().map(MemberId).collect()
    }

    fn joint() -> Configuration {
        let name = |text| NodeName::parse(text).unwrap();
        Configuration::joint(members(&[1, 4]), members(&[1, 2]), members(&[9]))
            .unwrap()
            .on_nodes([(MemberId(1), name("a@h")), (MemberId(9), name("ü@h"))])
    }

    fn entries() -> [Entry; 4] {
        let payloads = [
            Payload::Noop,
            Payload::Command(Arc::from(*b"abc")),
            Payload::Command(Arc::from(*b"")),
            Payload::Configuration(joint()),
        ];
        payloads.map(|payload| Entry {
            index: 7,
            term: 3,
            payload,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        for vote in [None, Some(MemberId(u64::MAX))] {
            let state = HardState { term: 5, vote };
            assert_eq!(read_hard(&hard(&state)), Ok(state));
        }
        for agreed in [false, true] {
            let begun = Founding {
                group: 77,
                configuration: joint(),
                agreed,
            };
            assert_eq!(read_founding(&founding(&begun)), Ok(begun));
        }
        let taken = Snapshot {
            index: 8,
            term: 2,
            configuration: joint(),
            state: Arc::from(*b"state"),
        };
        assert_eq!(read_snapshot(&snapshot(&taken)), Ok(taken));
        for written in entries() {
            assert_eq!(read_entry(7, &entry(&written)), Ok(written));
        }
    }

    /// The format is what other versions read: these bytes must not change without a new number.
    #[test]
    fn the_format_is_this() {
        let state = HardState {
            term: 5,
            vote: Some(MemberId(258)),
        };
        assert_eq!(
            hard(&state),
            [0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        let [noop, command, _, configuration] = entries();
        assert_eq!(entry(&noop), [0, 0, 0, 0, 0, 0, 0, 3, 0]);
        assert_eq!(entry(&command), [0, 0, 0, 0, 0, 0, 0, 3, 1, 97, 98, 99]);
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 3, 2];
        let member = |number: u8| [0, 0, 0, 0, 0, 0, 0, number];
        bytes.extend([&[0, 2][..], &member(1), &member(4)].concat());
        bytes.extend([&[0, 2][..], &member(1), &member(2)].concat());
        bytes.extend([&[0, 1][..], &member(9)].concat());
        bytes.extend([&[0, 2][..], &member(1), &[0, 3], b"a@h"].concat());
        bytes.extend([&member(9)[..], &[0, 4], "ü@h".as_bytes()].concat());
        assert_eq!(entry(&configuration), bytes);
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let begun = founding(&Founding {
            group: 77,
            configuration: joint(),
            agreed: true,
        });
        for end in 0..begun.len() {
            assert_eq!(read_founding(&begun[..end]), Err(Malformed("founding")));
        }
        let [.., configuration] = entries();
        let bytes = entry(&configuration);
        for end in 0..bytes.len() {
            assert_eq!(read_entry(7, &bytes[..end]), Err(Malformed("entry")));
        }
        assert!(read_hard(&[0; 8]).is_err() && read_hard(&[0; 10]).is_err());
    }
}
