//! Both sides against the bytes of OTP, against each other, and against garbage.

use super::*;

/// A handshake between two OTP 25.2.3 nodes with cookie `ck`, as captured.
mod captured {
    pub(super) const SEND_NAME: &str = "4e0000000d07df7fbdfb35f027000b62403132372e302e302e31";
    pub(super) const STATUS: &str = "736f6b";
    pub(super) const CHALLENGE: &str =
        "4e0000000d07df7fbd25a143b6fb35ea5d000b61403132372e302e302e31";
    pub(super) const REPLY: &str = "72cff4ad8d2761bc5683496a4d63e90ac116d415e7";
    pub(super) const ACK: &str = "619250626fb8329005ed386fcacdbd2c51";
}

const OTP_25: Flags = Flags::OFFERED.without(Flags::ALTACT_SIG);

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn local(name: &str, creation: u32) -> Local {
    Local {
        name: NodeName::parse(name).unwrap(),
        creation,
        flags: OTP_25,
    }
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn send_name_body(flags: Flags, creation: u32, name: &[u8]) -> Vec<u8> {
    let mut body = vec![b'N'];
    body.extend_from_slice(&flags.bits().to_be_bytes());
    body.extend_from_slice(&creation.to_be_bytes());
    body.extend_from_slice(&(name.len() as u16).to_be_bytes());
    body.extend_from_slice(name);
    body
}

#[test]
fn digests_of_otp() {
    assert_eq!(
        digest("ck", 0x25a1_43b6).to_vec(),
        hex("2761bc5683496a4d63e90ac116d415e7")
    );
    assert_eq!(
        digest("ck", 0xcff4_ad8d).to_vec(),
        hex("9250626fb8329005ed386fcacdbd2c51")
    );
}

#[test]
fn initiator_says_what_otp_said() {
    let (state, body) = send_name(local("b@127.0.0.1", 0xfb35_f027), name("a@127.0.0.1"));
    assert_eq!(body, hex(captured::SEND_NAME));
    let Ok(Status::Ok(state)) = state.status(&hex(captured::STATUS)) else {
        panic!("ok expected");
    };
    let (state, body) = state
        .challenge(&hex(captured::CHALLENGE), "ck", 0xcff4_ad8d)
        .unwrap();
    assert_eq!(body, hex(captured::REPLY));
    let session = state.ack(&hex(captured::ACK)).unwrap();
    assert_eq!(session.peer, name("a@127.0.0.1"));
    assert_eq!(session.peer_creation, 0xfb35_ea5d);
    assert_eq!(session.flags, OTP_25);
    assert!(session.visible());
}

#[test]
fn acceptor_says_what_otp_said() {
    let introduced =
        receive_name(local("a@127.0.0.1", 0xfb35_ea5d), &hex(captured::SEND_NAME)).unwrap();
    assert_eq!(introduced.peer(), &Peer::Named(name("b@127.0.0.1")));
    let (admitted, status) = introduced.ok(false).unwrap();
    assert_eq!(status, hex(captured::STATUS));
    let (state, body) = admitted.challenge(0x25a1_43b6);
    assert_eq!(body, hex(captured::CHALLENGE));
    let verified = state.reply(&hex(captured::REPLY), "ck").unwrap();
    let (session, body) = verified.ack();
    assert_eq!(body, hex(captured::ACK));
    assert_eq!(session.peer_creation, 0xfb35_f027);
    assert!(session.visible());
}

#[test]
fn every_status_as_initiator() {
    let state = || send_name(local("b@h", 4), name("a@h")).0;
    assert!(matches!(
        state().status(b"sok_simultaneous"),
        Ok(Status::Ok(_))
    ));
    assert!(matches!(state().status(b"snok"), Ok(Status::Nok)));
    let Ok(Status::Alive(alive)) = state().status(b"salive") else {
        panic!("alive expected");
    };
    assert_eq!(alive.proceed().1, b"strue");
    let Ok(Status::Alive(alive)) = state().status(b"salive") else {
        panic!("alive expected");
    };
    assert_eq!(alive.give_up(), b"sfalse");
    assert_eq!(
        state().status(b"snot_allowed").unwrap_err(),
        HandshakeError::NotAllowed { peer: name("a@h") }
    );
    assert_eq!(
        state().status(b"s\xffwhat").unwrap_err(),
        HandshakeError::Status {
            status: r"\xffwhat".into()
        }
    );
    assert_eq!(
        state().status(b"snamed:\0\0\0\0\0\0").unwrap_err(),
        HandshakeError::Status {
            status: r"named:\x00\x00\x00\x00\x00\x00".into()
        },
        "this node never asks for a name"
    );
    assert_eq!(
        state().status(b"xok").unwrap_err(),
        HandshakeError::Unexpected {
            message: "status",
            tag: b'x'
        }
    );
}

#[test]
fn alive_as_acceptor() {
    let asked = || {
        let body = send_name_body(OTP_25, 7, b"b@h");
        let (state, status) = receive_name(local("a@h", 4), &body)
            .unwrap()
            .alive()
            .unwrap();
        assert_eq!(status, b"salive");
        state
    };
    assert!(asked().reply(b"strue").unwrap().is_some());
    assert!(asked().reply(b"sfalse").unwrap().is_none());
    assert!(matches!(
        asked().reply(b"smaybe"),
        Err(HandshakeError::Status { .. })
    ));
}

/// OTP gave `named:` 0017 "12ZB3AOQZA9CD@127.0.0.1" 0fac9b34.
#[test]
fn a_peer_that_asks_for_a_name_gets_one_and_is_hidden() {
    let flags = OTP_25 | Flags::NAME_ME;
    let body = send_name_body(flags, 0, b"127.0.0.1");
    let introduced = receive_name(local("a@127.0.0.1", 4), &body).unwrap();
    assert_eq!(
        introduced.peer(),
        &Peer::Dynamic {
            host: "127.0.0.1".into()
        }
    );
    let (admitted, status) = introduced.named(name("12ZB3AOQZA9CD@127.0.0.1"), 0x0fac_9b34);
    assert_eq!(
        status,
        hex("736e616d65643a001731325a4233414f515a41394344403132372e302e302e310fac9b34")
    );
    let (state, challenge) = admitted.challenge(1);
    let answered = u64::from_be_bytes(challenge[1..9].try_into().unwrap());
    assert!(Flags::from_bits(answered).contains(Flags::NAME_ME));
    assert_eq!(state.peer(), &name("12ZB3AOQZA9CD@127.0.0.1"));
    let mut reply = vec![b'r', 0, 0, 0, 2];
    reply.extend_from_slice(&digest("ck", 1));
    let (session, _) = state.reply(&reply, "ck").unwrap().ack();
    assert!(!session.visible());
    assert_eq!(session.flags, OTP_25.without(Flags::PUBLISHED));
    assert_eq!(session.peer_creation, 0x0fac_9b34);

    let introduced = receive_name(local("a@127.0.0.1", 4), &body).unwrap();
    let error = introduced.ok(false).unwrap_err();
    assert_eq!(error.farewell(), Some(&b"snot_allowed"[..]));
    let two_parts = send_name_body(flags, 0, b"x@127.0.0.1");
    assert!(matches!(
        receive_name(local("a@127.0.0.1", 4), &two_parts),
        Err(HandshakeError::Name(NameError::Form { .. }))
    ));
}

#[test]
fn fields_that_later_versions_append_are_ignored() {
    let mut body = send_name_body(OTP_25, 7, b"b@h");
    body.extend_from_slice(b"more");
    assert!(receive_name(local("a@h", 4), &body).is_ok());

    let (_, mut challenge) = receive_name(local("a@h", 4), &body)
        .unwrap()
        .ok(true)
        .unwrap()
        .0
        .challenge(5);
    challenge.extend_from_slice(b"more");
    let Ok(Status::Ok(state)) = send_name(local("b@h", 7), name("a@h")).0.status(b"sok") else {
        panic!("ok expected");
    };
    assert!(state.challenge(&challenge, "ck", 6).is_ok());
}

#[test]
fn names_are_judged_as_otp_judges_them() {
    for (peer, farewell) in [
        (&b"a.b@h"[..], Some(&b"snok"[..])),
        (b"nobody", Some(b"snok")),
        (b"a@h", Some(b"snok")), // our own
        (&[b'x'; 256], None),
    ] {
        let body = send_name_body(OTP_25, 7, peer);
        let error = receive_name(local("a@h", 4), &body).unwrap_err();
        assert_eq!(error.farewell(), farewell, "{error}");
    }
}

#[test]
fn missing_flags_are_answered_with_not_allowed_and_named() {
    let flags = OTP_25.without(Flags::MANDATORY_25_DIGEST | Flags::MAP_TAG);
    let body = send_name_body(flags, 7, b"b@h");
    let error = receive_name(local("a@h", 4), &body).unwrap_err();
    assert_eq!(error.farewell(), Some(&b"snot_allowed"[..]));
    assert_eq!(
        error,
        HandshakeError::MissingFlags {
            peer: "b@h".into(),
            flags: vec!["MAP_TAG"]
        }
    );
    let only_digest = send_name_body(Flags::MANDATORY_25_DIGEST, 7, b"b@h");
    assert!(receive_name(local("a@h", 4), &only_digest).is_ok());
}

#[test]
fn version_5_is_refused_by_name() {
    let body = hex("6e00050037f7bd614068");
    assert_eq!(
        receive_name(local("b@h", 4), &body).unwrap_err(),
        HandshakeError::OldVersion
    );
}

#[test]
fn another_cookie_is_seen_by_both_sides() {
    let (initiator, body) = send_name(local("b@h", 7), name("a@h"));
    let introduced = receive_name(local("a@h", 4), &body).unwrap();
    let (admitted, status) = introduced.ok(false).unwrap();
    let Ok(Status::Ok(initiator)) = initiator.status(status) else {
        panic!("ok expected");
    };
    let (acceptor, challenge) = admitted.challenge(1);
    let (initiator, reply) = initiator.challenge(&challenge, "other", 2).unwrap();
    assert_eq!(
        acceptor.reply(&reply, "ck").unwrap_err(),
        HandshakeError::Cookie { peer: name("b@h") }
    );
    let mut ack = vec![b'a'];
    ack.extend_from_slice(&digest("ck", 2));
    assert_eq!(
        initiator.ack(&ack).unwrap_err(),
        HandshakeError::Cookie { peer: name("a@h") }
    );
}

#[test]
fn another_node_behind_the_port_is_refused() {
    let Ok(Status::Ok(state)) = send_name(local("b@h", 7), name("c@h")).0.status(b"sok") else {
        panic!("ok expected");
    };
    let error = state
        .challenge(&hex(captured::CHALLENGE), "ck", 1)
        .unwrap_err();
    assert_eq!(
        error,
        HandshakeError::OtherName {
            dialled: name("c@h"),
            answered: "a@127.0.0.1".into()
        }
    );
}

#[test]
fn every_cut_of_every_message_is_an_error() {
    let send = hex(captured::SEND_NAME);
    for cut in 0..send.len() {
        assert!(
            receive_name(local("a@h", 4), &send[..cut]).is_err(),
            "{cut}"
        );
    }
    let challenge = hex(captured::CHALLENGE);
    for cut in 0..challenge.len() {
        let Ok(Status::Ok(state)) = send_name(local("b@h", 7), name("a@127.0.0.1"))
            .0
            .status(b"sok")
        else {
            panic!("ok expected");
        };
        assert!(
            state.challenge(&challenge[..cut], "ck", 1).is_err(),
            "{cut}"
        );
    }
    let reply = hex(captured::REPLY);
    for cut in 0..reply.len() {
        let introduced = receive_name(local("a@127.0.0.1", 4), &send).unwrap();
        let (state, _) = introduced.ok(false).unwrap().0.challenge(0x25a1_43b6);
        assert!(state.reply(&reply[..cut], "ck").is_err(), "{cut}");
    }
}

proptest::proptest! {
    /// Nothing a stranger sends can do more than be refused.
    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        for tag in [None, Some(b'N'), Some(b's'), Some(b'r'), Some(b'a')] {
            let mut body = body.clone();
            if let (Some(tag), Some(first)) = (tag, body.first_mut()) {
                *first = tag;
            }
            if let Ok(introduced) = receive_name(local("a@h", 4), &body) {
                let _ = introduced.ok(false);
            }
            let (state, _) = send_name(local("b@h", 7), name("a@h"));
            let _ = state.status(&body);
            let Ok(Status::Ok(state)) = send_name(local("b@h", 7), name("a@h")).0.status(b"sok") else {
                panic!("ok expected");
            };
            let _ = state.challenge(&body, "ck", 1);
        }
    }
}
