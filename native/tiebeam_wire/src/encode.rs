//! Terms to bytes, in the encoding that OTP 26 and later use: the smallest tag that fits, UTF-8 atoms.

use num_bigint::{BigInt, Sign};

use crate::atom::Atom;
use crate::decode::tag;
use crate::term::{Pid, Reference, Term};

/// How atoms are written: in place, or as references to the header of a packet.
pub trait AtomWriter {
    /// Appends the atom.
    fn write(&mut self, atom: &Atom, out: &mut Vec<u8>);
}

/// Atoms in place, legal in every packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineAtoms;

impl AtomWriter for InlineAtoms {
    fn write(&mut self, atom: &Atom, out: &mut Vec<u8>) {
        let text = atom.as_str().as_bytes();
        match u8::try_from(text.len()) {
            Ok(len) => out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, len]),
            Err(_) => {
                out.push(tag::ATOM_UTF8);
                // 255 characters have at most 1,020 bytes.
                out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(text);
    }
}

/// Appends the term with its version byte. See [`write_term`].
pub fn encode(term: &Term, out: &mut Vec<u8>) {
    out.push(tag::VERSION);
    write_term(term, out, &mut InlineAtoms);
}

/// Appends the term without a version byte.
///
/// # Panics
/// When a binary or a container has 2^32 or more bytes or elements, which the format cannot say; when a float is not
/// finite, which a BEAM has no value for.
pub fn write_term<A: AtomWriter>(term: &Term, out: &mut Vec<u8>, atoms: &mut A) {
    match term {
        Term::Integer(integer) => write_integer(*integer, out),
        Term::Big(big) => write_big(big, out),
        Term::Float(float) => write_float(*float, out),
        Term::Atom(atom) => atoms.write(atom, out),
        Term::Binary(binary) => write_binary(binary, out),
        Term::BitString(bits) => {
            header(tag::BIT_BINARY, bits.bytes.len(), out);
            out.push(bits.bits);
            out.extend_from_slice(&bits.bytes);
        }
        Term::Tuple(elements) => {
            write_tuple(elements.len(), out);
            for element in elements {
                write_term(element, out, atoms);
            }
        }
        Term::List(elements) => write_list(elements, out, atoms),
        Term::Improper(list) => {
            header(tag::LIST, list.elements.len(), out);
            for element in &list.elements {
                write_term(element, out, atoms);
            }
            write_term(&list.tail, out, atoms);
        }
        Term::Map(map) => {
            header(tag::MAP, map.len(), out);
            for (key, value) in map.iter() {
                write_term(key, out, atoms);
                write_term(value, out, atoms);
            }
        }
        Term::Pid(pid) => write_pid(pid, out, atoms),
        Term::Port(port) => {
            if port.id < 1 << 28 {
                out.push(tag::NEW_PORT);
                atoms.write(&port.node, out);
                out.extend_from_slice(&(port.id as u32).to_be_bytes());
            } else {
                // The older tag has room for 28 bits.
                out.push(tag::V4_PORT);
                atoms.write(&port.node, out);
                out.extend_from_slice(&port.id.to_be_bytes());
            }
            out.extend_from_slice(&port.creation.to_be_bytes());
        }
        Term::Reference(reference) => write_reference(reference, out, atoms),
        Term::Fun(fun) => {
            out.push(tag::NEW_FUN);
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            out.push(fun.arity);
            out.extend_from_slice(&fun.uniq);
            out.extend_from_slice(&fun.index.to_be_bytes());
            out.extend_from_slice(&(fun.free.len() as u32).to_be_bytes());
            atoms.write(&fun.module, out);
            write_term(&fun.old_index, out, atoms);
            write_term(&fun.old_uniq, out, atoms);
            write_pid(&fun.pid, out, atoms);
            for variable in &fun.free {
                write_term(variable, out, atoms);
            }
            // The size counts itself but not the tag.
            let size = (out.len() - start) as u32;
            out[start..start + 4].copy_from_slice(&size.to_be_bytes());
        }
        Term::Export(export) => {
            out.push(tag::EXPORT);
            atoms.write(&export.module, out);
            atoms.write(&export.function, out);
            write_integer(i64::from(export.arity), out);
        }
        Term::Opaque(opaque) => out.extend_from_slice(opaque.bytes()),
    }
}

fn write_list<A: AtomWriter>(elements: &[Term], out: &mut Vec<u8>, atoms: &mut A) {
    if elements.is_empty() {
        out.push(tag::NIL);
        return;
    }
    // A list of bytes is a string, as long as its length fits.
    let is_byte = |element: &Term| matches!(element, Term::Integer(0..=255));
    if let Ok(len) = u16::try_from(elements.len())
        && elements.iter().all(is_byte)
    {
        out.push(tag::STRING);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend(
            elements
                .iter()
                .filter_map(|e| e.as_integer())
                .map(|byte| byte as u8),
        );
        return;
    }
    header(tag::LIST, elements.len(), out);
    for element in elements {
        match element {
            // The one kind that lists have many of: without a call.
            Term::Integer(integer) => write_integer(*integer, out),
            element => write_term(element, out, atoms),
        }
    }
    out.push(tag::NIL);
}

/// Appends a tag and the number of bytes or elements that follow.
pub(crate) fn header(tag: u8, len: usize, out: &mut Vec<u8>) {
    let len =
        u32::try_from(len).expect("a binary or a container has fewer than 2^32 bytes or elements");
    let [a, b, c, d] = len.to_be_bytes();
    out.extend_from_slice(&[tag, a, b, c, d]);
}

/// Appends the header of a tuple; its elements follow.
pub fn write_tuple(arity: usize, out: &mut Vec<u8>) {
    match u8::try_from(arity) {
        Ok(arity) => out.extend_from_slice(&[tag::SMALL_TUPLE, arity]),
        Err(_) => header(tag::LARGE_TUPLE, arity, out),
    }
}

/// Appends a float.
///
/// # Panics
/// When it is not finite.
pub fn write_float(float: f64, out: &mut Vec<u8>) {
    assert!(float.is_finite(), "a BEAM has no float {float}");
    out.push(tag::NEW_FLOAT);
    out.extend_from_slice(&float.to_be_bytes());
}

/// Appends an integer.
#[inline]
pub fn write_integer(integer: i64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(integer) {
        out.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
    } else if let Ok(word) = i32::try_from(integer) {
        header(tag::INTEGER, word as u32 as usize, out);
    } else {
        let magnitude = integer.unsigned_abs();
        let len = 8 - magnitude.leading_zeros() as usize / 8;
        out.extend_from_slice(&[tag::SMALL_BIG, len as u8, u8::from(integer < 0)]);
        out.extend_from_slice(&magnitude.to_le_bytes()[..len]);
    }
}

/// Appends an integer that does not fit 64 bits.
pub(crate) fn write_big(integer: &BigInt, out: &mut Vec<u8>) {
    let (sign, magnitude) = integer.to_bytes_le();
    let negative = u8::from(sign == Sign::Minus);
    match u8::try_from(magnitude.len()) {
        Ok(len) => out.extend_from_slice(&[tag::SMALL_BIG, len, negative]),
        Err(_) => {
            header(tag::LARGE_BIG, magnitude.len(), out);
            out.push(negative);
        }
    }
    out.extend_from_slice(&magnitude);
}

/// Appends a binary.
///
/// # Panics
/// With 2^32 or more bytes.
pub fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    header(tag::BINARY, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends a pid.
pub fn write_pid<A: AtomWriter>(pid: &Pid, out: &mut Vec<u8>, atoms: &mut A) {
    out.push(tag::NEW_PID);
    atoms.write(&pid.node, out);
    out.extend_from_slice(&pid.id.to_be_bytes());
    out.extend_from_slice(&pid.serial.to_be_bytes());
    out.extend_from_slice(&pid.creation.to_be_bytes());
}

/// Appends a reference.
pub fn write_reference<A: AtomWriter>(reference: &Reference, out: &mut Vec<u8>, atoms: &mut A) {
    out.push(tag::NEWER_REFERENCE);
    out.extend_from_slice(&(reference.words().len() as u16).to_be_bytes());
    atoms.write(reference.node(), out);
    out.extend_from_slice(&reference.creation().to_be_bytes());
    for word in reference.words() {
        out.extend_from_slice(&word.to_be_bytes());
    }
}
