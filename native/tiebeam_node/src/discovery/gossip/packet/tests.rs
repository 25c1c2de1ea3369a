use super::*;

/// Packets that libcluster has sent: see `test/fixture/gossip.exs`.
const GOLDEN: &str = include_str!("../../../../tests/vectors/gossip.txt");

/// Node, key if there is one, packet.
fn golden() -> Vec<(&'static str, Option<Key>, Vec<u8>)> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    let packets: Vec<_> = lines
        .map(|line| {
            let [node, secret, packet] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three columns: {line}");
            };
            let key = (secret != "-").then(|| Key::new(secret.as_bytes()));
            (node, key, bytes(packet))
        })
        .collect();
    assert!(packets.len() > 10);
    packets
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn name(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

#[test]
fn what_libcluster_sends_is_read_with_its_secret_and_no_other() {
    for (node, key, packet) in golden() {
        let found = read(&packet, key.as_ref()).unwrap();
        assert_eq!(found.as_str(), node);
        let other = Key::new(b"another");
        assert!(read(&packet, Some(&other)).is_err(), "{node}");
        if key.is_some() {
            assert_eq!(read(&packet, None), Err(Ignored::Prelude));
        }
    }
}

/// What is written differs from libcluster's bytes in one point: on OTP 25 and earlier that writes atoms in Latin-1, and as
/// UTF-8 since OTP 26. All of them read both.
#[test]
fn what_is_written_is_what_libcluster_writes_on_otp_26_and_later() {
    for (node, key, packet) in golden() {
        let iv = packet[..BLOCK].try_into().unwrap();
        let written = write(&name(node), key.as_ref().map(|key| (key, iv)));
        let plain = match &key {
            None => packet,
            Some(key) => {
                assert_eq!(written[..BLOCK], packet[..BLOCK]);
                let cipher = cbc::Decryptor::<Aes256>::new(&key.0.into(), &iv.into());
                let plain = cipher.decrypt_padded_vec::<Pkcs7>(&packet[BLOCK..]);
                plain.unwrap()
            }
        };
        // ATOM_EXT (100) with two bytes of length becomes SMALL_ATOM_UTF8_EXT (119) with one.
        let mut modern = plain[..16].to_vec();
        assert_eq!(modern[..], b"heartbeat::\x83\x74\x00\x00\x00"[..]);
        modern.extend(b"\x01\x77\x04node\x77");
        modern.push(u8::try_from(node.len()).unwrap());
        modern.extend(node.as_bytes());
        let expected = match &key {
            None => modern,
            Some(key) => {
                let cipher = cbc::Encryptor::<Aes256>::new(&key.0.into(), &iv.into());
                let mut expected = iv.to_vec();
                expected.extend(cipher.encrypt_padded_vec::<Pkcs7>(&modern));
                expected
            }
        };
        assert_eq!(written, expected, "{node}");
    }
}

#[test]
fn the_longest_name_fits_into_a_packet() {
    let longest = format!("a@{}", "h".repeat(253));
    let key = Key::new(b"secret");
    let packet = write(&name(&longest), Some((&key, [7; BLOCK])));
    assert!(packet.len() <= MAX_PACKET);
    assert_eq!(read(&packet, Some(&key)).unwrap().as_str(), longest);
}

#[test]
fn what_names_no_node_is_ignored() {
    let term = |term: &[u8]| read(&[PRELUDE, term].concat(), None);
    assert_eq!(read(b"", None), Err(Ignored::Prelude));
    assert_eq!(read(b"heartbeat:", None), Err(Ignored::Prelude));
    assert_eq!(term(b""), Err(Ignored::Term));
    // An atom; a map without `node`; of a string; of an atom that is no name.
    assert_eq!(term(b"\x83\x77\x01a"), Err(Ignored::Term));
    assert_eq!(term(b"\x83\x74\x00\x00\x00\x00"), Err(Ignored::Term));
    assert_eq!(
        term(b"\x83\x74\x00\x00\x00\x01\x77\x04node\x6b\x00\x03a@b"),
        Err(Ignored::Term)
    );
    assert_eq!(
        term(b"\x83\x74\x00\x00\x00\x01\x77\x04node\x77\x03a b"),
        Err(Ignored::Term)
    );
    // Trailing bytes, a compressed term, a map that claims four billion pairs.
    assert_eq!(
        term(b"\x83\x74\x00\x00\x00\x01\x77\x04node\x77\x03a@b."),
        Err(Ignored::Term)
    );
    assert_eq!(
        term(b"\x83\x50\x7f\xff\xff\xff\x78\x9c\x03\x00"),
        Err(Ignored::Term)
    );
    assert_eq!(term(b"\x83\x74\xff\xff\xff\xff"), Err(Ignored::Term));
    // More than a heartbeat says, as a later release of libcluster may.
    assert!(term(b"\x83\x74\x00\x00\x00\x02\x77\x01v\x61\x01\x77\x04node\x77\x03a@b").is_ok());
    assert_eq!(
        read(&vec![b'h'; MAX_PACKET + 1], None),
        Err(Ignored::TooLong)
    );
}

#[test]
fn cut_and_changed_packets_are_ignored_or_read_and_never_panic() {
    for (_, key, packet) in golden() {
        for length in 0..packet.len() {
            assert!(read(&packet[..length], key.as_ref()).is_err());
        }
        for at in 0..packet.len() {
            for bit in 0..8 {
                let mut changed = packet.clone();
                changed[at] ^= 1 << bit;
                let _ = read(&changed, key.as_ref());
            }
        }
    }
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let key = Key::new(b"secret");
    for _ in 0..20_000 {
        let length = rand::RngExt::random_range(&mut random, 0..MAX_PACKET + 2);
        let mut packet = vec![0; length];
        rand::Rng::fill_bytes(&mut random, &mut packet);
        let _ = read(&packet, Some(&key));
        let prefixed = [PRELUDE, b"\x83", &packet[..length.min(64)]].concat();
        let _ = read(&prefixed, None);
    }
}

#[test]
fn a_key_is_not_printed() {
    assert_eq!(format!("{:?}", Key::new(b"secret")), "Key(..)");
}
