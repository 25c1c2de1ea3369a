//! The rows of the table one by one, then every order in which the messages of two nodes can meet.

use std::collections::{HashSet, VecDeque};
use std::mem;

use super::*;

const X: ConnectionId = ConnectionId(1);
const Y: ConnectionId = ConnectionId(2);
const Z: ConnectionId = ConnectionId(3);

/// The slot of `peer` in each state, owned by `X` where there is an owner and `Y` where there is a connection.
fn tables(name: &str, peer: &str) -> [(&'static str, SlotTable); 4] {
    let none = SlotTable::new(name);
    let mut pending = none.clone();
    assert_eq!(pending.outgoing(peer, X), Outgoing::Dial);
    let mut up = none.clone();
    assert_eq!(up.incoming(peer, Y), Incoming::Ok);
    assert_eq!(up.completed(peer, Y), Completed::Up);
    let mut up_pending = up.clone();
    assert_eq!(up_pending.incoming(peer, X), Incoming::Alive);
    [
        ("none", none),
        ("pending", pending),
        ("up", up),
        ("up_pending", up_pending),
    ]
}

#[test]
fn outgoing_rows() {
    for (state, mut table) in tables("m@h", "a@h") {
        let (outcome, owns) = match state {
            "none" => (Outgoing::Dial, true),
            "up" => (Outgoing::Up(Y), false),
            _ => (Outgoing::Wait, false),
        };
        assert_eq!(table.outgoing("a@h", Z), outcome, "{state}");
        assert_eq!(table.alive_reply("a@h", Z), owns, "{state}");
    }
}

#[test]
fn incoming_rows() {
    // `Z@h` is less than `a@h` is less than `m@h` is less than `z@h`.
    for (peer, on_pending) in [
        ("a@h", Incoming::Nok),
        ("Z@h", Incoming::Nok),
        ("z@h", Incoming::OkSimultaneous { abandon: X }),
        ("m@h1", Incoming::OkSimultaneous { abandon: X }),
    ] {
        for (state, mut table) in tables("m@h", peer) {
            let before = table.clone();
            let (outcome, take_over) = match state {
                "none" => (Incoming::Ok, TakeOver::Ready),
                "pending" if on_pending == Incoming::Nok => (on_pending, TakeOver::Lost),
                "pending" => (on_pending, TakeOver::Ready),
                "up" => (Incoming::Alive, TakeOver::Close(Y)),
                _ => (Incoming::Refuse, TakeOver::Lost),
            };
            assert_eq!(table.incoming(peer, Z), outcome, "{state} {peer}");
            assert_eq!(table.take_over(peer, Z), take_over, "{state} {peer}");
            if matches!(outcome, Incoming::Nok | Incoming::Refuse) {
                assert_eq!(table, before, "{state} {peer}");
            }
        }
    }
}

#[test]
fn only_the_owner_completes_or_fails() {
    for (state, table) in tables("m@h", "z@h") {
        for attempt in [X, Y, Z] {
            let mut completed = table.clone();
            let mut failed = table.clone();
            let (done, lost) = match (state, attempt) {
                ("pending", X) => (Completed::Up, Failed::Freed),
                // The older connection has to be taken down first.
                ("up_pending", X) => (Completed::Lost, Failed::StillUp(Y)),
                _ => (Completed::Lost, Failed::NotOwner),
            };
            assert_eq!(
                completed.completed("z@h", attempt),
                done,
                "{state} {attempt}"
            );
            assert_eq!(failed.failed("z@h", attempt), lost, "{state} {attempt}");
            match lost {
                Failed::Freed => assert!(failed.is_free("z@h")),
                Failed::StillUp(_) => assert_eq!(failed.outgoing("z@h", Z), Outgoing::Up(Y)),
                Failed::NotOwner => assert_eq!(failed, table),
            }
        }
    }
}

#[test]
fn down_rows() {
    for (state, table) in tables("m@h", "z@h") {
        for connection in [X, Y, Z] {
            let mut table = table.clone();
            let outcome = match (state, connection) {
                ("up", Y) => Down::Freed,
                ("up_pending", Y) => Down::Pending(X),
                _ => Down::NotUp,
            };
            assert_eq!(
                table.down("z@h", connection),
                outcome,
                "{state} {connection}"
            );
        }
    }
}

#[test]
fn a_new_connection_replaces_the_old_one() {
    let mut table = SlotTable::new("m@h");
    assert_eq!(table.incoming("a@h", X), Incoming::Ok);
    assert_eq!(table.completed("a@h", X), Completed::Up);
    assert_eq!(table.incoming("a@h", Y), Incoming::Alive);
    assert_eq!(table.connection("a@h"), Some(X));
    assert_eq!(table.take_over("a@h", Y), TakeOver::Close(X));
    assert_eq!(table.down("a@h", X), Down::Pending(Y));
    assert_eq!(table.take_over("a@h", Y), TakeOver::Ready);
    assert_eq!(table.completed("a@h", Y), Completed::Up);
    assert_eq!(table.connection("a@h"), Some(Y));
    assert_eq!(
        table.down("a@h", X),
        Down::NotUp,
        "a late end of the old one"
    );
    assert_eq!(table.down("a@h", Y), Down::Freed);
    assert!(table.is_free("a@h"));
}

/// After `nok` the attempt keeps the slot without a socket, and the peer's own connection takes it.
#[test]
fn after_nok_the_connection_of_the_peer_takes_the_slot() {
    let (mut small, mut great) = (SlotTable::new("a@h"), SlotTable::new("z@h"));
    assert_eq!(small.outgoing("z@h", X), Outgoing::Dial);
    assert_eq!(great.outgoing("a@h", Y), Outgoing::Dial);
    assert_eq!(great.incoming("a@h", Z), Incoming::Nok);
    assert_eq!(small.outgoing("z@h", Z), Outgoing::Wait);
    assert_eq!(
        small.incoming("z@h", Z),
        Incoming::OkSimultaneous { abandon: X }
    );
    assert_eq!(small.failed("z@h", X), Failed::NotOwner);
    assert_eq!(small.completed("z@h", Z), Completed::Up);
    assert_eq!(great.completed("a@h", Y), Completed::Up);
}

/// What travels on a socket, in order. `Closed` is the end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Name,
    Go,
    Nok,
    Alive,
    True,
    False,
    Reply,
    Ack,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    SentName,
    AwaitGo,
    AwaitAck,
    /// Got `nok`: no socket any more, but still the owner of the slot.
    AwaitPeer,
    AwaitName,
    AwaitStatusReply,
    AwaitReply,
    Up,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct End {
    id: ConnectionId,
    side: Side,
    inbox: VecDeque<Message>,
}

/// Two nodes and the sockets between them. A socket has an end at each node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    tables: [SlotTable; 2],
    sockets: Vec<[End; 2]>,
    dials_left: [u8; 2],
    waiting: [bool; 2],
    told_failure: [bool; 2],
    /// Attempts that lost their slot and go on until somebody has stopped their task.
    abandoned: Vec<(usize, ConnectionId)>,
    next_id: u64,
    rules: Rules,
}

/// How the driver behaves; the wrong ones must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rules {
    OfOtp,
    NokIsAFailure,
    AliveIsAlwaysTrue,
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    Dial(usize),
    Deliver { socket: usize, to: usize },
    Stop(usize),
}

const NAMES: [&str; 2] = ["a@h", "z@h"];

impl World {
    fn new(dials_left: [u8; 2], rules: Rules) -> World {
        World {
            tables: NAMES.map(SlotTable::new),
            sockets: Vec::new(),
            dials_left,
            waiting: [false; 2],
            told_failure: [false; 2],
            abandoned: Vec::new(),
            next_id: 1,
            rules,
        }
    }

    /// `node` believes to be connected; the other one has restarted, and the end of the stream is on its way.
    fn with_stale_connection(mut self, node: usize) -> World {
        let id = self.draw();
        assert_eq!(
            self.tables[node].incoming(NAMES[1 - node], id),
            Incoming::Ok
        );
        assert_eq!(
            self.tables[node].completed(NAMES[1 - node], id),
            Completed::Up
        );
        let end = |side| End {
            id,
            side,
            inbox: VecDeque::new(),
        };
        let mut socket = [end(Side::Gone), end(Side::Gone)];
        socket[node].side = Side::Up;
        socket[node].inbox.push_back(Message::Closed);
        self.sockets.push(socket);
        self
    }

    fn draw(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for node in 0..2 {
            if self.dials_left[node] > 0 {
                choices.push(Choice::Dial(node));
            }
        }
        for (socket, ends) in self.sockets.iter().enumerate() {
            for (to, end) in ends.iter().enumerate() {
                if !end.inbox.is_empty() {
                    choices.push(Choice::Deliver { socket, to });
                }
            }
        }
        choices.extend((0..self.abandoned.len()).map(Choice::Stop));
        choices
    }

    fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Dial(node) => self.dial(node),
            Choice::Stop(at) => {
                let (node, id) = self.abandoned.swap_remove(at);
                self.stop(node, id);
            }
            Choice::Deliver { socket, to } => {
                let message = self.sockets[socket][to].inbox.pop_front().unwrap();
                if self.sockets[socket][to].side != Side::Gone {
                    self.receive(socket, to, message);
                }
            }
        }
    }

    fn dial(&mut self, node: usize) {
        self.dials_left[node] -= 1;
        let id = self.draw();
        match self.tables[node].outgoing(NAMES[1 - node], id) {
            Outgoing::Up(_) => return,
            Outgoing::Wait => {}
            Outgoing::Dial => {
                let accept = self.draw();
                let end = |id, side| End {
                    id,
                    side,
                    inbox: VecDeque::new(),
                };
                let mut socket = [end(accept, Side::AwaitName), end(accept, Side::AwaitName)];
                socket[node] = end(id, Side::SentName);
                socket[1 - node].inbox.push_back(Message::Name);
                self.sockets.push(socket);
            }
        }
        self.waiting[node] = true;
    }

    fn send(&mut self, socket: usize, from: usize, message: Message) {
        self.sockets[socket][1 - from].inbox.push_back(message);
    }

    fn go(&mut self, socket: usize, node: usize, side: Side) {
        self.sockets[socket][node].side = side;
    }

    fn close(&mut self, socket: usize, node: usize) {
        self.go(socket, node, Side::Gone);
        self.send(socket, node, Message::Closed);
    }

    /// Closes the end of `node` that has this number.
    fn stop(&mut self, node: usize, id: ConnectionId) {
        let at = |ends: &[End; 2]| ends[node].id == id && ends[node].side != Side::Gone;
        if let Some(socket) = self.sockets.iter().position(at) {
            self.close(socket, node);
        }
    }

    fn fail(&mut self, socket: usize, node: usize) {
        let id = self.sockets[socket][node].id;
        match self.tables[node].failed(NAMES[1 - node], id) {
            Failed::Freed => self.told_failure[node] |= mem::take(&mut self.waiting[node]),
            Failed::StillUp(_) => self.waiting[node] = false,
            Failed::NotOwner => {}
        }
        self.close(socket, node);
    }

    fn complete(&mut self, socket: usize, node: usize) {
        let id = self.sockets[socket][node].id;
        match self.tables[node].completed(NAMES[1 - node], id) {
            Completed::Up => {
                self.waiting[node] = false;
                self.go(socket, node, Side::Up);
            }
            Completed::Lost => self.close(socket, node),
        }
    }

    fn receive(&mut self, socket: usize, node: usize, message: Message) {
        let End { id, side, .. } = self.sockets[socket][node];
        let peer = NAMES[1 - node];
        match (side, message) {
            (Side::AwaitName, Message::Name) => match self.tables[node].incoming(peer, id) {
                outcome @ (Incoming::Ok | Incoming::OkSimultaneous { .. }) => {
                    if let Incoming::OkSimultaneous { abandon } = outcome {
                        self.abandoned.push((node, abandon));
                    }
                    self.send(socket, node, Message::Go);
                    self.go(socket, node, Side::AwaitReply);
                }
                Incoming::Nok => {
                    self.send(socket, node, Message::Nok);
                    self.close(socket, node);
                }
                Incoming::Alive => {
                    self.send(socket, node, Message::Alive);
                    self.go(socket, node, Side::AwaitStatusReply);
                }
                Incoming::Refuse => self.close(socket, node),
            },
            (Side::AwaitStatusReply, Message::True) => {
                self.send(socket, node, Message::Go);
                self.go(socket, node, Side::AwaitReply);
            }
            (Side::AwaitStatusReply, Message::False) => self.fail(socket, node),
            (Side::AwaitReply, Message::Reply) => {
                if let TakeOver::Close(old) = self.tables[node].take_over(peer, id) {
                    self.stop(node, old);
                    assert_eq!(self.tables[node].down(peer, old), Down::Pending(id));
                }
                match self.tables[node].take_over(peer, id) {
                    TakeOver::Ready => {
                        self.send(socket, node, Message::Ack);
                        self.complete(socket, node);
                    }
                    _ => self.close(socket, node),
                }
            }
            (Side::SentName, Message::Go) | (Side::AwaitGo, Message::Go) => {
                self.send(socket, node, Message::Reply);
                self.go(socket, node, Side::AwaitAck);
            }
            (Side::SentName, Message::Nok) if self.rules == Rules::NokIsAFailure => {
                self.fail(socket, node)
            }
            (Side::SentName, Message::Nok) => self.go(socket, node, Side::AwaitPeer),
            (Side::SentName, Message::Alive) => {
                let yes = self.tables[node].alive_reply(peer, id)
                    || self.rules == Rules::AliveIsAlwaysTrue;
                if yes {
                    self.send(socket, node, Message::True);
                    self.go(socket, node, Side::AwaitGo);
                } else {
                    self.send(socket, node, Message::False);
                    self.fail(socket, node);
                }
            }
            (Side::AwaitAck, Message::Ack) => self.complete(socket, node),
            (Side::AwaitPeer, Message::Closed) => {}
            (Side::Up, Message::Closed) => {
                self.tables[node].down(peer, id);
                self.go(socket, node, Side::Gone);
            }
            (_, Message::Closed) => self.fail(socket, node),
            (side, message) => panic!("{message:?} in {side:?}: {self:?}"),
        }
    }

    /// At any time each node has at most one connection, the one its table knows.
    fn check(&self) -> Result<(), String> {
        for node in 0..2 {
            let up: Vec<_> = self
                .sockets
                .iter()
                .filter(|ends| ends[node].side == Side::Up)
                .map(|ends| ends[node].id)
                .collect();
            let known: Vec<_> = self.tables[node]
                .connection(NAMES[1 - node])
                .into_iter()
                .collect();
            if up != known {
                return Err(format!(
                    "{} has {up:?}, its table {known:?}: {self:?}",
                    NAMES[node]
                ));
            }
        }
        Ok(())
    }

    /// When all is said and done both nodes hold the same, only connection, and nobody was told otherwise.
    fn check_end(&self) -> Result<(), String> {
        let both_up = |ends: &&[End; 2]| ends.iter().all(|end| end.side == Side::Up);
        if self.sockets.iter().filter(both_up).count() != 1 {
            return Err(format!("not connected: {self:?}"));
        }
        if self.told_failure != [false; 2] || self.waiting != [false; 2] {
            return Err(format!("a caller got a wrong answer or none: {self:?}"));
        }
        Ok(())
    }
}

/// Walks every order of dials, deliveries and stops, up to the first violation.
fn explore(start: World) -> Result<(), String> {
    let mut seen = HashSet::new();
    let mut ends = 0;
    let mut stack = vec![start];
    while let Some(world) = stack.pop() {
        world.check()?;
        let choices = world.choices();
        if choices.is_empty() {
            world.check_end()?;
            ends += 1;
        }
        for choice in choices {
            let mut next = world.clone();
            next.take(choice);
            if seen.insert(next.clone()) {
                stack.push(next);
            }
        }
    }
    assert!(ends > 0);
    Ok(())
}

#[test]
fn two_nodes_that_dial_each_other_end_with_one_connection() {
    for dials in [[1, 0], [0, 1], [1, 1], [2, 1], [1, 2], [2, 2], [3, 3]] {
        explore(World::new(dials, Rules::OfOtp)).unwrap();
    }
}

/// One node was killed and restarted while the other still believes to be connected.
#[test]
fn a_restarted_node_gets_its_connection() {
    for stale_at in 0..2 {
        // The restarted node dials at least once: the other one may not notice that it has to.
        for others in 0..3 {
            let mut dials = [2; 2];
            dials[stale_at] = others;
            explore(World::new(dials, Rules::OfOtp).with_stale_connection(stale_at)).unwrap();
        }
    }
}

/// The explorer is able to see what the two classic mistakes do.
#[test]
fn the_classic_mistakes_are_found() {
    let violation = explore(World::new([1, 1], Rules::NokIsAFailure)).unwrap_err();
    assert!(violation.starts_with("a caller got"), "{violation}");
    let violation = explore(World::new([1, 1], Rules::AliveIsAlwaysTrue)).unwrap_err();
    assert!(violation.starts_with("not connected"), "{violation}");
}
