//! Requests and answers against the bytes of OTP's epmd.

use super::*;

fn entry(name: &str, port: u16) -> Entry {
    Entry::new(name, port, false)
}

/// What OTP 25.2.3 sends when it registers `a`.
#[test]
fn registration_of_otp() {
    let body = b"\x78\x81\x05\x4d\x00\x00\x06\x00\x05\x00\x01\x61\x00\x00";
    let expected = Entry {
        lowest: 5,
        ..entry("a", 0x8105)
    };
    assert!(expected.is_compatible());
    let request = Request::decode(body).unwrap();
    assert_eq!(request, Request::Alive2(expected));
    assert_eq!(
        request.encode(),
        [&[0, body.len() as u8][..], body].concat()
    );
}

#[test]
fn answers_to_a_registration() {
    let ok = Alive2Response::Ok {
        creation: 0x6b00_d2d8,
    };
    assert_eq!(ok.encode(6), b"\x76\x00\x6b\x00\xd2\xd8");
    assert_eq!(Alive2Response::decode(&ok.encode(6)), Ok(Some(ok)));
    let taken = Alive2Response::Error {
        result: RESULT_ERROR,
    };
    assert_eq!(taken.encode(6), b"\x76\x01\x00\x00\x00\x63");
    assert_eq!(Alive2Response::decode(&taken.encode(6)), Ok(Some(taken)));
    let old = Alive2Response::Ok { creation: 1 };
    assert_eq!(old.encode(5), b"\x79\x00\x00\x01");
    assert_eq!(Alive2Response::decode(&old.encode(5)), Ok(Some(old)));
    for cut in 0..6 {
        assert_eq!(Alive2Response::decode(&ok.encode(6)[..cut]), Ok(None));
    }
    assert_eq!(
        Alive2Response::decode(b"HTTP"),
        Err(ResponseError::Unexpected { tag: b'H' })
    );
}

/// What OTP's epmd answers to a look-up of a node registered with an extra field.
#[test]
fn look_up() {
    let bytes = b"\x77\x00\x15\xb3\x4d\x00\x00\x06\x00\x06\x00\x03\x66\x6f\x6f\x00\x05hello";
    let found = PortResponse::Found(Entry {
        extra: b"hello".to_vec(),
        ..entry("foo", 0x15b3)
    });
    assert_eq!(PortResponse::decode(bytes).as_ref(), Ok(&found));
    assert_eq!(found.encode(), bytes);
    assert_eq!(PortResponse::decode(b"\x77\x01"), Ok(PortResponse::Unknown));
    assert_eq!(PortResponse::Unknown.encode(), b"\x77\x01");
    for cut in 0..bytes.len() {
        let error = PortResponse::decode(&bytes[..cut]).unwrap_err();
        assert_eq!(error, ResponseError::Truncated { length: cut });
    }
    assert_eq!(
        Request::PortPlease2(b"foo".to_vec()).encode(),
        b"\x00\x04zfoo"
    );
}

#[test]
fn names() {
    let answer = NamesResponse::decode(b"\0\0\x11\x11name a at port 9\nname b c at port 10\n");
    let node = |name: &str, port| NameAndPort {
        name: name.into(),
        port,
    };
    assert_eq!(
        answer,
        Ok(NamesResponse {
            epmd_port: 4369,
            nodes: vec![node("a", 9), node("b c", 10)]
        })
    );
    assert!(matches!(
        NamesResponse::decode(b"\0\0\x11\x11name a at port x\n"),
        Err(ResponseError::Line { .. })
    ));
}

#[test]
fn bad_requests() {
    assert_eq!(Request::length([0, 0]), Err(RequestError::Empty));
    assert_eq!(
        Request::length([0xff, 0xff]),
        Err(RequestError::TooLong { length: 65535 })
    );
    assert_eq!(
        Request::decode(b"GET"),
        Err(RequestError::Unknown { tag: b'G' })
    );
    let whole = Request::Alive2(entry("a", 1)).encode();
    for cut in 3..whole.len() {
        assert_eq!(
            Request::decode(&whole[2..cut]),
            Err(RequestError::Truncated { tag: b'x' })
        );
    }
}

fn register(table: &mut Registrations, socket: u64, entry: Entry) -> Alive2Response {
    match table.answer(socket, true, Request::Alive2(entry)) {
        Answer::Registered(bytes) | Answer::Close(bytes) => {
            Alive2Response::decode(&bytes).unwrap().unwrap()
        }
    }
}

#[test]
fn a_name_is_registered_once_and_gets_a_new_creation_each_time() {
    let mut table = Registrations::new(4369, 100);
    assert_eq!(
        register(&mut table, 1, entry("a", 9)),
        Alive2Response::Ok { creation: 101 }
    );
    assert_eq!(
        register(&mut table, 2, entry("a", 10)),
        Alive2Response::Error {
            result: RESULT_ERROR
        }
    );
    table.unregister(2);
    let found = |table: &mut Registrations| {
        table.answer(3, false, Request::PortPlease2(b"a".to_vec()))
            == Answer::Close(PortResponse::Found(entry("a", 9)).encode())
    };
    assert!(found(&mut table), "the first owner stays");
    table.unregister(1);
    assert!(!found(&mut table));
    assert_eq!(
        register(&mut table, 4, entry("a", 10)),
        Alive2Response::Ok { creation: 102 }
    );
}

#[test]
fn creations_that_old_nodes_use_are_skipped() {
    let mut table = Registrations::new(4369, u32::MAX);
    assert_eq!(
        register(&mut table, 1, entry("a", 9)),
        Alive2Response::Ok { creation: 4 }
    );
    let old = Entry {
        highest: 5,
        lowest: 5,
        ..entry("b", 9)
    };
    let Alive2Response::Ok { creation } = register(&mut table, 2, old) else {
        panic!("ok expected");
    };
    assert!((1..=3).contains(&creation));
}

#[test]
fn strangers_may_only_look_up() {
    let mut table = Registrations::new(4369, 100);
    let closed = Answer::Close(Vec::new());
    let request = Request::Alive2(entry("a", 9));
    assert_eq!(table.answer(1, false, request), closed);
    assert_eq!(table.answer(1, false, Request::Dump), closed);
    assert_eq!(table.answer(1, false, Request::Kill), closed);
    assert!(table.is_empty());
    assert_eq!(table.answer(1, true, Request::Stop(b"a".to_vec())), closed);
    assert_eq!(
        table.answer(1, true, Request::Kill),
        Answer::Close(b"NO".to_vec())
    );
}

#[test]
fn lists_for_people() {
    let mut table = Registrations::new(4369, 100);
    register(&mut table, 7, entry("b", 10));
    register(&mut table, 8, entry("a", 9));
    assert_eq!(
        table.answer(1, false, Request::Names),
        Answer::Close(b"\0\0\x11\x11name a at port 9\nname b at port 10\n".to_vec())
    );
    table.unregister(7);
    let dump = b"\0\0\x11\x11active name     <a> at port 9, fd = 8\n\0old/unused name <b>, port = 10, fd = 7 \n\0";
    assert_eq!(
        table.answer(1, true, Request::Dump),
        Answer::Close(dump.to_vec())
    );
}

#[test]
fn registrations_and_former_names_are_bounded() {
    let mut table = Registrations::new(4369, 100);
    for socket in 0..MAX_REGISTRATIONS as u64 {
        let answer = register(&mut table, socket, entry(&format!("n{socket}"), 9));
        assert!(matches!(answer, Alive2Response::Ok { .. }));
    }
    let error = Alive2Response::Error {
        result: RESULT_ERROR,
    };
    assert_eq!(register(&mut table, 9999, entry("x", 9)), error);
    for socket in 0..MAX_REGISTRATIONS as u64 {
        table.unregister(socket);
    }
    assert!(table.is_empty());
    let Answer::Close(dump) = table.answer(1, true, Request::Dump) else {
        panic!("dump expected");
    };
    assert_eq!(
        dump.iter().filter(|byte| **byte == b'\n').count(),
        MAX_FORMER
    );
    let long = Entry {
        name: vec![b'x'; MAX_NAME + 1],
        ..entry("", 9)
    };
    assert_eq!(register(&mut table, 1, long), error);
    assert_eq!(
        table.answer(1, true, Request::Alive2(entry("", 9))),
        Answer::Close(Vec::new())
    );
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
        let mut table = Registrations::new(4369, 100);
        for tag in *b"xznkds" {
            let mut body = bytes.clone();
            body.insert(0, tag);
            if let Ok(request) = Request::decode(&body) {
                proptest::prop_assert!(request.encode().len() <= body.len() + 2);
                table.answer(1, true, request);
            }
        }
        for tag in *b"vyw" {
            let mut answer = bytes.clone();
            answer.insert(0, tag);
            let _ = Alive2Response::decode(&answer);
            let _ = PortResponse::decode(&answer);
            let _ = NamesResponse::decode(&answer);
        }
    }
}
