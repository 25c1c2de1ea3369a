//! A term in the external term format, written in one way alone: equal terms have equal bytes, whatever node, release or language writes
//! them. The same is `lib/tiebeam/state_machine/encoding.ex`; `tests/vectors/states.txt` has what both write.
//!
//! The smallest tag that fits, as since OTP 26; atoms in UTF-8; a list is never a string; the pairs of a map are in the order of the bytes of
//! their keys. Functions, ports and terms that are kept as bytes have no such form.

use tiebeam_wire::Term;
use tiebeam_wire::encode::{InlineAtoms, write_term};

/// As in the external term format.
const VERSION: u8 = 131;
const LIST: u8 = 108;
const NIL: u8 = 106;
const MAP: u8 = 116;

/// The bytes of a term.
///
/// # Errors
/// A term in it that is no data.
pub(super) fn encode(term: &Term) -> Result<Vec<u8>, Term> {
    let mut out = vec![VERSION];
    write(term, &mut out)?;
    Ok(out)
}

fn write(term: &Term, out: &mut Vec<u8>) -> Result<(), Term> {
    match term {
        Term::Tuple(elements) => {
            tiebeam_wire::encode::write_tuple(elements.len(), out);
            all(elements, out)
        }
        Term::List(elements) if elements.is_empty() => {
            out.push(NIL);
            Ok(())
        }
        Term::List(elements) => {
            header(LIST, elements.len(), out);
            all(elements, out)?;
            out.push(NIL);
            Ok(())
        }
        Term::Improper(list) => {
            header(LIST, list.elements.len(), out);
            all(&list.elements, out)?;
            write(&list.tail, out)
        }
        Term::Map(map) => {
            let mut pairs = Vec::with_capacity(map.len());
            for (key, value) in map.iter() {
                let mut bytes = Vec::new();
                write(key, &mut bytes)?;
                pairs.push((bytes, value));
            }
            pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            header(MAP, pairs.len(), out);
            for (key, value) in pairs {
                out.extend_from_slice(&key);
                write(value, out)?;
            }
            Ok(())
        }
        Term::Port(_) | Term::Fun(_) | Term::Export(_) | Term::Opaque(_) => Err(term.clone()),
        Term::Integer(_)
        | Term::Big(_)
        | Term::Float(_)
        | Term::Atom(_)
        | Term::Binary(_)
        | Term::BitString(_)
        | Term::Pid(_)
        | Term::Reference(_) => {
            write_term(term, out, &mut InlineAtoms);
            Ok(())
        }
    }
}

fn all(elements: &[Term], out: &mut Vec<u8>) -> Result<(), Term> {
    elements.iter().try_for_each(|element| write(element, out))
}

fn header(tag: u8, count: usize, out: &mut Vec<u8>) {
    out.push(tag);
    // A term in memory has fewer elements.
    out.extend_from_slice(&(count as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_terms_have_the_bytes_that_elixir_writes() {
        let vectors = include_str!("../../../tests/vectors/states.txt");
        let lines = vectors.lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in lines {
            let (text, hex) = line.split_once(" = ").expect("a term and its bytes");
            let term = Term::parse(text).expect("a term");
            let bytes = encode(&term).expect("data");
            let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, hex, "{text}");
            let read = tiebeam_wire::decode::decode(&bytes::Bytes::from(bytes)).expect("a term");
            assert_eq!(read, term, "{text}");
            count += 1;
        }
        assert!(count > 20);
    }

    #[test]
    fn what_is_no_data_is_refused() {
        let fun = Term::parse("[1, fun lists:map/2]").expect("a term");
        assert!(encode(&fun).is_err());
    }
}
