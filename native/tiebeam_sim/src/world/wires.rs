//! What a world's kernels do without any core: dial, carry messages, tick, and notice that a connection is gone.

use tiebeam_core::{Duration, Event, Instant, Kind, NodeName};

use super::{Broken, Happening, Letter, World};
use crate::machine::{Port, State};
use crate::network::{Lane, Link};

/// What a connection holds back while its way is cut, in messages. Then it is busy, and drivers drop what they send.
const MAX_HELD: usize = 1024;

/// How often a kernel without a core looks for the rest of its mesh.
const MESH: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn send(
        &mut self,
        link: Link,
        from: usize,
        to: usize,
        bytes: Vec<u8>,
        garbled: bool,
    ) {
        self.tally.sent += 1;
        self.tally.sent_bytes += bytes.len() as u64;
        self.tally.longest = self.tally.longest.max(bytes.len() as u64);
        if crate::check::small(&bytes) {
            self.tally.longest_small = self.tally.longest_small.max(bytes.len() as u64);
        }
        self.machines[from].sent += 1;
        self.machines[from].sent_bytes += bytes.len() as u64;
        if let Some(recorded) = &mut self.recorded {
            recorded.push((from, to, bytes.clone()));
        }
        if self.network.loses(&mut self.random, self.now, from, to) {
            self.tally.lost += 1;
            return;
        }
        let letter = Letter {
            link,
            bytes,
            garbled,
        };
        if self.network.is_cut(from, to) {
            self.tally.cut += 1;
            if self.network.conditions.lane == Lane::Connection {
                let held = self.held.entry((from, to)).or_default();
                if held.len() < MAX_HELD {
                    held.push(letter);
                }
            }
            return;
        }
        self.carry(from, to, letter);
    }

    fn carry(&mut self, from: usize, to: usize, letter: Letter) {
        let mut at = self.now + self.network.delay(&mut self.random);
        match self.network.conditions.lane {
            Lane::Connection => {
                let port = &mut self.machines[to].ports[from];
                port.latest = port.latest.max(at);
                at = port.latest;
            }
            Lane::Datagram => {
                let conditions = &self.network.conditions;
                let (stray, duplicate) = (conditions.stray.as_micros(), conditions.duplicate);
                let share = conditions.astray;
                let astray = |at: Instant, random: &mut tiebeam_core::Random| {
                    at + Duration::from_micros(random.below(stray + 1))
                };
                if duplicate > 0 && self.random.below(1000) < duplicate {
                    self.tally.duplicated += 1;
                    let copy = Letter {
                        bytes: letter.bytes.clone(),
                        ..letter
                    };
                    let at = astray(at, &mut self.random);
                    self.schedule(
                        at,
                        Happening::Arrive {
                            from,
                            to,
                            letter: Box::new(copy),
                        },
                    );
                }
                if share > 0 && self.random.below(1000) < share {
                    at = astray(at, &mut self.random);
                }
            }
        }
        self.schedule(
            at,
            Happening::Arrive {
                from,
                to,
                letter: Box::new(letter),
            },
        );
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, letter: Letter) -> Result<(), Broken> {
        let Letter {
            link,
            bytes,
            garbled,
        } = letter;
        if self.network.is_cut(from, to) && self.network.conditions.lane == Lane::Datagram {
            return Ok(());
        }
        let now = self.now;
        let port = &mut self.machines[to].ports[from];
        if port.link != Some(link) {
            // The host answers for a connection that it does not know (TCP: RST), if there is a host.
            if self.machines[to].state != State::Vanished && !self.network.is_cut(to, from) {
                let at = now + self.network.delay(&mut self.random);
                self.schedule(
                    at,
                    Happening::Lost {
                        node: from,
                        peer: to,
                        link,
                    },
                );
            }
            return Ok(());
        }
        if self.machines[to].paused.is_none() {
            let port = &mut self.machines[to].ports[from];
            port.packets += 1;
            port.heard = now;
        }
        self.machines[to].received_bytes += bytes.len() as u64;
        let from = self.machines[from].name.clone();
        self.tell(to, Event::Received { from, bytes }, garbled)
    }

    /// What came over the connection of two hosts so far, ticks included.
    pub(super) fn received(&self, node: usize, peer: usize) -> Option<u64> {
        let port = &self.machines[node].ports[peer];
        port.link?;
        let age = port.stopped.unwrap_or(self.machines[peer].age(self.now));
        let ticks = age.as_micros().saturating_sub(port.base.as_micros())
            / self.network.conditions.tick.as_micros();
        Some(port.packets + ticks)
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        if from == to || !self.machines[from].dials.insert(to) {
            return;
        }
        let way = self.network.is_cut(from, to) || self.network.is_cut(to, from);
        let host = &self.machines[to];
        if way || host.state == State::Vanished || host.paused.is_some() {
            let at = self.now + self.network.conditions.dial_timeout;
            self.schedule(at, Happening::Unanswered { from, to });
        } else {
            // There and back.
            let way = self.network.delay(&mut self.random).times(2);
            self.schedule(self.now + way, Happening::Dialled { from, to });
        }
    }

    /// The host of this name that `from` would find.
    pub(super) fn resolve(&self, from: usize, name: &NodeName) -> Option<usize> {
        let hosts = self.names.get(name)?;
        let hosts: Vec<usize> = hosts
            .iter()
            .copied()
            .filter(|&host| self.machines[host].runs())
            .collect();
        hosts
            .get(from % hosts.len().max(1))
            .copied()
            .or_else(|| self.names[name].first().copied())
    }

    pub(super) fn dialled(&mut self, from: usize, to: usize) -> Result<(), Broken> {
        let dialling = self.machines[from].dials.remove(&to);
        let way = self.network.is_cut(from, to) || self.network.is_cut(to, from);
        let (name, peer) = (
            self.machines[from].name.clone(),
            self.machines[to].name.clone(),
        );
        if !dialling
            || !self.machines[from].runs()
            || self.machines[from].paused.is_some()
            || !self.machines[to].runs()
            || self.machines[to].paused.is_some()
            || way
            || name == peer
            || self.linked(from, &peer).is_some()
        {
            return Ok(());
        }
        // Another host of this name is connected: OTP refuses a second one.
        if self.linked(to, &name).is_some_and(|other| other != from) {
            return Ok(());
        }
        // The other side may not have noticed yet that an earlier connection is gone: now it does.
        if let Some(old) = self.machines[to].ports[from].link {
            self.lost(to, from, old)?;
        }
        let link = self.network.open();
        for (node, peer) in [(from, to), (to, from)] {
            let base = self.machines[peer].age(self.now);
            self.machines[node].ports[peer] = Port {
                link: Some(link),
                latest: self.now,
                base,
                ..Port::default()
            };
        }
        self.held.remove(&(from, to));
        self.held.remove(&(to, from));
        self.tell(
            from,
            Event::Connected {
                to: peer,
                visible: true,
            },
            false,
        )?;
        self.tell(
            to,
            Event::Connected {
                to: name,
                visible: true,
            },
            false,
        )
    }

    /// A side learns that its connection is gone.
    pub(super) fn lost(&mut self, node: usize, peer: usize, link: Link) -> Result<(), Broken> {
        if self.machines[node].ports[peer].link != Some(link) {
            return Ok(());
        }
        self.machines[node].ports[peer].link = None;
        self.held.remove(&(node, peer));
        let from = self.machines[peer].name.clone();
        self.tell(node, Event::Disconnected { from }, false)
    }

    /// A node closes a connection; the other side hears of it as soon as the network can tell.
    pub(super) fn close(&mut self, node: usize, peer: usize) -> Result<(), Broken> {
        let Some(link) = self.machines[node].ports[peer].link else {
            return Ok(());
        };
        if self.network.is_cut(node, peer) {
            self.expect_ticks(peer, node, link);
        } else {
            let at = self.now + self.network.delay(&mut self.random);
            self.schedule(
                at,
                Happening::Lost {
                    node: peer,
                    peer: node,
                    link,
                },
            );
        }
        self.lost(node, peer, link)
    }

    /// Nothing comes from `peer` any more: sooner or later `node` notices.
    pub(super) fn expect_ticks(&mut self, node: usize, peer: usize, link: Link) {
        let at = self.now + self.network.notice(&mut self.random);
        let since = self.now;
        self.schedule(
            at,
            Happening::TickDue {
                node,
                peer,
                link,
                since,
            },
        );
    }

    pub(super) fn tick_due(
        &mut self,
        node: usize,
        peer: usize,
        link: Link,
        since: Instant,
    ) -> Result<(), Broken> {
        if self.machines[node].ports[peer].link != Some(link) {
            return Ok(());
        }
        let other = &self.machines[peer];
        let silent = !other.runs()
            || other.paused.is_some_and(|paused| paused <= since)
            || other.ports[node].link != Some(link)
            || self
                .network
                .cut_since(peer, node)
                .is_some_and(|cut| cut <= since);
        if !silent {
            return Ok(());
        }
        if self.machines[node].paused.is_some() {
            // It cannot notice now.
            self.expect_ticks(node, peer, link);
            return Ok(());
        }
        self.close(node, peer)
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        if from == to || self.network.is_cut(from, to) {
            return;
        }
        self.network.cut(self.now, from, to);
        let age = self.machines[from].age(self.now);
        let port = &mut self.machines[to].ports[from];
        if let Some(link) = port.link {
            port.stopped = Some(age);
            self.expect_ticks(to, from, link);
        }
    }

    pub(super) fn heal(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if !self.network.heal(from, to) {
                continue;
            }
            let age = self.machines[from].age(self.now);
            let port = &mut self.machines[to].ports[from];
            if let Some(stopped) = port.stopped.take() {
                let missed = age.as_micros().saturating_sub(stopped.as_micros());
                port.base = Duration::from_micros(port.base.as_micros() + missed);
            }
            for letter in self.held.remove(&(from, to)).unwrap_or_default() {
                self.carry(from, to, letter);
            }
        }
        for (node, peer) in [(a, b), (b, a)] {
            // A side that still holds what the other gave up learns it with the next tick.
            if let Some(link) = self.machines[node].ports[peer].link
                && self.machines[peer].ports[node].link != Some(link)
                && self.machines[peer].state != State::Vanished
            {
                let at = self.now
                    + Duration::from_micros(
                        self.random.below(self.network.conditions.tick.as_micros()),
                    );
                self.schedule(at, Happening::Lost { node, peer, link });
            }
        }
    }

    pub(super) fn unite(&mut self) {
        for a in 0..self.machines.len() {
            for b in 0..a {
                self.heal(a, b);
            }
        }
    }

    /// A question goes to the kernel of `to`, over the connection that is there.
    pub(super) fn observe(&mut self, from: usize, to: usize, probe: u64) {
        if self.machines[from].ports[to].link.is_none() || self.gone(from, to) {
            return;
        }
        let at = self.now + self.network.delay(&mut self.random);
        self.schedule(at, Happening::Question { from, to, probe });
    }

    pub(super) fn question(&mut self, from: usize, to: usize, probe: u64) {
        let machine = &mut self.machines[to];
        if !machine.runs() || machine.ports[from].link.is_none() {
            return;
        }
        if machine.paused.is_some() {
            machine.questions.push((from, probe));
            return;
        }
        machine.ports[from].packets += 1;
        if self.gone(to, from) {
            return;
        }
        let at = self.now + self.network.delay(&mut self.random);
        self.schedule(
            at,
            Happening::Answered {
                from: to,
                to: from,
                probe,
            },
        );
    }

    pub(super) fn answered(&mut self, from: usize, to: usize, probe: u64) -> Result<(), Broken> {
        let now = self.now;
        let machine = &mut self.machines[to];
        if machine.ports[from].link.is_none() {
            return Ok(());
        }
        if machine.paused.is_none() {
            machine.ports[from].packets += 1;
            machine.ports[from].heard = now;
        }
        self.tally.observed += 1;
        let node = self.machines[from].name.clone();
        self.tell(to, Event::Observed { node, probe }, false)
    }

    /// What is sent now does not arrive.
    fn gone(&mut self, from: usize, to: usize) -> bool {
        self.network.is_cut(from, to) || self.network.loses(&mut self.random, self.now, from, to)
    }

    /// A kernel without a core is connected with whomever it can reach (OTP: `global` connects all nodes).
    pub(super) fn mesh(&mut self, node: usize, creation: u32) {
        let machine = &self.machines[node];
        if !machine.runs() || machine.creation != creation || machine.kind != Kind::Plain {
            return;
        }
        if machine.paused.is_none() {
            for peer in 0..self.machines.len() {
                if self.machines[node].ports[peer].link.is_none() && self.machines[peer].runs() {
                    self.dial(node, peer);
                }
            }
        }
        let at = self.now + self.random.jitter(MESH);
        self.schedule(at, Happening::Mesh { node, creation });
    }

    /// Bytes that no decoder may take for a message: of another version, cut short, or with something behind the end.
    pub(super) fn garble(&mut self, from: &NodeName, to: &NodeName) {
        let (Some(from), Some(to)) = (self.number(from), self.number(to)) else {
            return;
        };
        let Some(link) = self.machines[from].ports[to].link else {
            return;
        };
        let length = self.random.below(64) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| self.random.bits() as u8).collect();
        if let Some(version) = bytes.first_mut() {
            // No version will ever have this number.
            *version |= 0x80;
        }
        self.send(link, from, to, bytes, true);
    }
}
