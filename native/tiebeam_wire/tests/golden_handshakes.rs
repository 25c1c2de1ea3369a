//! Handshakes of real nodes (`vectors/handshake`, and those of other releases): what either side of ours says in their places.
#![allow(clippy::disallowed_methods, reason = "tests read the vectors")]

use tiebeam_wire::flags::Flags;
use tiebeam_wire::handshake::{
    HandshakeError, Local, NodeName, Peer, Session, Status, receive_name, send_name,
};

mod releases;

struct Handshake {
    name: String,
    cookie: String,
    /// Whether the initiator said it, and the body.
    messages: Vec<(bool, Vec<u8>)>,
}

fn recorded() -> Vec<Handshake> {
    let mut handshakes: Vec<Handshake> = Vec::new();
    for (release, folder) in releases::folders() {
        let manifest = std::fs::read_to_string(folder.join("handshake/manifest.txt")).unwrap();
        for line in manifest.lines().filter(|line| !line.starts_with('#')) {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["handshake", name, _side, cookie] => handshakes.push(Handshake {
                    name: format!("{release}, {name}"),
                    cookie: cookie.to_owned(),
                    messages: Vec::new(),
                }),
                ["bytes", _name, side, hex] => {
                    let message = releases::bytes_of_hex(hex);
                    let last = handshakes.last_mut().unwrap();
                    last.messages
                        .push((side == "initiator", message[2..].to_vec()));
                }
                _ => panic!("a line of the manifest: {line}"),
            }
        }
    }
    handshakes
}

impl Handshake {
    /// What a side said at the given place among its own messages.
    fn said(&self, initiator: bool, place: usize) -> &[u8] {
        let mut own = self.messages.iter().filter(|(side, _)| *side == initiator);
        &own.nth(place).unwrap_or_else(|| panic!("{}", self.name)).1
    }

    /// The first message.
    fn send_name(&self) -> &[u8] {
        self.said(true, 0)
    }

    fn status(&self) -> &[u8] {
        self.said(false, 0)
    }

    /// The acceptor's second message.
    fn challenge(&self) -> &[u8] {
        self.said(false, 1)
    }

    fn reply(&self) -> &[u8] {
        self.said(true, if self.status() == b"salive" { 2 } else { 1 })
    }

    fn ack(&self) -> &[u8] {
        self.said(false, 2)
    }

    fn goes_on(&self) -> bool {
        ![b"snok".as_slice(), b"snot_allowed"].contains(&self.status())
    }

    /// The node that dials, as it presented itself.
    fn initiator(&self) -> Local {
        presented(self.send_name(), 9)
    }

    /// The node that is dialled.
    fn acceptor(&self) -> Local {
        if self.goes_on() {
            return presented(self.challenge(), 13);
        }
        Local {
            name: NodeName::parse("golden@127.0.0.1").unwrap(),
            creation: 4711,
            flags: Flags::OFFERED,
        }
    }
}

fn number(body: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(body[at..at + 4].try_into().unwrap())
}

/// `N`, flags, the challenge of an acceptor, then at `creation` a creation and the name with its length.
fn presented(body: &[u8], creation: usize) -> Local {
    Local {
        name: NodeName::parse(&body[creation + 6..]).unwrap(),
        creation: number(body, creation),
        flags: Flags::from_bits(u64::from_be_bytes(body[1..9].try_into().unwrap())),
    }
}

#[test]
fn a_node_that_dials_says_what_was_said() {
    let mut sessions = 0;
    for handshake in recorded() {
        // Ours always has a name.
        if handshake.status().starts_with(b"snamed:") {
            continue;
        }
        let what = &handshake.name;
        let (local, peer) = (handshake.initiator(), handshake.acceptor());
        let (sent, body) = send_name(local, peer.name.clone());
        assert_eq!(body, handshake.send_name(), "{what}");
        let challenged = match sent.status(handshake.status()) {
            Ok(Status::Ok(next)) => next,
            Ok(Status::Alive(alive)) => {
                let (next, body) = alive.proceed();
                assert_eq!(body, handshake.said(true, 1), "{what}");
                next
            }
            Ok(Status::Nok) => {
                assert_eq!(handshake.status(), b"snok", "{what}");
                continue;
            }
            Err(HandshakeError::NotAllowed { .. }) => {
                assert_eq!(handshake.status(), b"snot_allowed", "{what}");
                continue;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let ours = number(handshake.reply(), 1);
        let (next, body) = challenged
            .challenge(handshake.challenge(), &handshake.cookie, ours)
            .unwrap();
        assert_eq!(body, handshake.reply(), "{what}");
        let session = next.ack(handshake.ack()).unwrap();
        assert_session(&session, &peer, what);
        sessions += 1;
    }
    assert!(sessions >= 15, "only {sessions}");
}

#[test]
fn a_node_that_is_dialled_says_what_was_said() {
    let mut sessions = 0;
    for handshake in recorded() {
        let what = &handshake.name;
        let mut local = handshake.acceptor();
        // It is set where a peer asks for a name.
        local.flags = local.flags.without(Flags::NAME_ME);
        let introduced = match receive_name(local, handshake.send_name()) {
            Ok(introduced) => introduced,
            Err(error) => {
                assert!(!handshake.goes_on(), "{what}: {error}");
                assert_eq!(error.farewell(), Some(handshake.status()), "{what}");
                continue;
            }
        };
        let admitted = match introduced.peer() {
            Peer::Dynamic { .. } => {
                // `snamed:`, the name with its length, a creation.
                let status = handshake.status();
                let end = status.len() - 4;
                let given = NodeName::parse(&status[9..end]).unwrap();
                let (admitted, body) = introduced.named(given, number(status, end));
                assert_eq!(body, status, "{what}");
                admitted
            }
            Peer::Named(_) if handshake.status() == b"salive" => {
                let (next, body) = introduced.alive().unwrap();
                assert_eq!(body, handshake.status(), "{what}");
                next.reply(handshake.said(true, 1)).unwrap().unwrap()
            }
            Peer::Named(_) => {
                let (admitted, body) = introduced.ok(false).unwrap();
                assert_eq!(body, handshake.status(), "{what}");
                admitted
            }
        };
        let (next, body) = admitted.challenge(number(handshake.challenge(), 9));
        assert_eq!(body, handshake.challenge(), "{what}");
        let verified = next.reply(handshake.reply(), &handshake.cookie).unwrap();
        let (session, body) = verified.ack();
        assert_eq!(body, handshake.ack(), "{what}");
        if !handshake.status().starts_with(b"snamed:") {
            assert_session(&session, &handshake.initiator(), what);
        }
        sessions += 1;
    }
    assert!(sessions >= 18, "only {sessions}");
}

fn assert_session(session: &Session, peer: &Local, what: &str) {
    assert_eq!(session.peer, peer.name, "{what}");
    assert_eq!(session.peer_creation, peer.creation, "{what}");
    assert_eq!(session.peer_flags, peer.flags.expand(), "{what}");
}
