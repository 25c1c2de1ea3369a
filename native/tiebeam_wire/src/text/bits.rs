//! Bit strings, segment by segment, as in `<<1:16/little, "text"/utf8>>`.

use num_bigint::{BigInt, Sign};

use crate::term::{Binary, BitString, Term};

/// The value of a segment.
pub(super) enum Value {
    Text(Vec<u32>),
    Integer(BigInt),
    Float(f64),
}

/// The type of a segment.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Integer,
    Float,
    Utf8,
    Utf16,
    Utf32,
}

/// A bit string that grows.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are in use, 1 to 8; 0 without a byte.
    used: u8,
}

impl Bits {
    /// Appends a value; whether it fits its type.
    pub(super) fn append(
        &mut self,
        value: &Value,
        size: Option<usize>,
        kind: Kind,
        little: bool,
    ) -> bool {
        let character = || match value {
            Value::Integer(code) => u32::try_from(code).ok().and_then(char::from_u32),
            _ => None,
        };
        let bytes = match (kind, value) {
            (Kind::Integer, Value::Integer(integer)) => {
                return self.append_integer(integer, size.unwrap_or(8), little);
            }
            (Kind::Float, Value::Float(float)) => float_bytes(*float, size),
            (Kind::Float, Value::Integer(integer)) => integer
                .to_string()
                .parse()
                .ok()
                .and_then(|float| float_bytes(float, size)),
            (Kind::Utf8, _) => character().map(|c| c.to_string().into_bytes()),
            (Kind::Utf16, _) => character().map(|c| {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units).iter();
                units
                    .flat_map(|unit| match little {
                        true => unit.to_le_bytes(),
                        false => unit.to_be_bytes(),
                    })
                    .collect()
            }),
            (Kind::Utf32, _) => character().map(|c| u32::from(c).to_be_bytes().to_vec()),
            _ => None,
        };
        let Some(mut bytes) = bytes else {
            return false;
        };
        if little && matches!(kind, Kind::Float | Kind::Utf32) {
            bytes.reverse();
        }
        for byte in bytes {
            self.push(byte, 8);
        }
        true
    }

    /// Appends the low bits of an integer, in two's complement.
    fn append_integer(&mut self, integer: &BigInt, size: usize, little: bool) -> bool {
        let digits = integer.to_signed_bytes_le();
        let sign = match integer.sign() {
            Sign::Minus => 0xff,
            _ => 0,
        };
        let digit = |i: usize| digits.get(i).copied().unwrap_or(sign);
        let (whole, odd) = (size / 8, (size % 8) as u8);
        if little {
            (0..whole).for_each(|i| self.push(digit(i), 8));
            self.push(digit(whole), odd);
        } else {
            self.push(digit(whole), odd);
            (0..whole).rev().for_each(|i| self.push(digit(i), 8));
        }
        true
    }

    /// Appends the low bits of a byte.
    fn push(&mut self, byte: u8, count: u8) {
        for bit in (0..count).rev() {
            if self.used == 8 || self.bytes.is_empty() {
                self.bytes.push(0);
                self.used = 0;
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= (byte >> bit & 1) << (7 - self.used);
            }
            self.used += 1;
        }
    }

    pub(super) fn into_term(self) -> Term {
        let binary = Binary::from(self.bytes);
        match BitString::new(binary, self.used.max(1)) {
            Ok(bits) => Term::BitString(Box::new(bits)),
            Err(binary) => Term::Binary(binary),
        }
    }
}

fn float_bytes(float: f64, size: Option<usize>) -> Option<Vec<u8>> {
    match size.unwrap_or(64) {
        64 => Some(float.to_be_bytes().to_vec()),
        32 => {
            let narrow = float as f32;
            narrow.is_finite().then(|| narrow.to_be_bytes().to_vec())
        }
        _ => None,
    }
}
