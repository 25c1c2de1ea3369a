//! Handshake messages in a byte stream: a length, then the body.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Longest body taken from a peer that has not proved the cookie. The longest message of OTP is a challenge with a name
/// of 255 characters (at most 1,039 bytes); the rest is room for fields that later versions may append.
pub const MAX_BODY: usize = 4096;

/// Width of the length before each handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Two bytes: plain TCP.
    Plain,
    /// Four bytes: inside TLS.
    Tls,
}

/// Splits received bytes into handshake messages and keeps what comes after the last one.
///
/// The bytes after the acknowledgement belong to the framing of the connection and may be in the same segment:
/// [`HandshakeFrames::into_leftover`] hands them over.
#[derive(Debug)]
pub struct HandshakeFrames {
    width: Width,
    received: BytesMut,
}

/// A peer announced a handshake message that is longer than any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTooLong {
    /// The length it announced, in bytes.
    pub length: usize,
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Width::Plain => 2,
            Width::Tls => 4,
        }
    }

    /// Appends `body` with its length to `out`.
    ///
    /// # Panics
    ///
    /// If `body` is longer than [`MAX_BODY`]; no message of this crate is.
    pub fn frame(self, body: &[u8], out: &mut Vec<u8>) {
        assert!(
            body.len() <= MAX_BODY,
            "handshake message of {} bytes",
            body.len()
        );
        let length = (body.len() as u32).to_be_bytes();
        out.extend_from_slice(&length[4 - self.bytes()..]);
        out.extend_from_slice(body);
    }
}

impl HandshakeFrames {
    /// An empty splitter.
    pub fn new(width: Width) -> HandshakeFrames {
        HandshakeFrames {
            width,
            received: BytesMut::with_capacity(512),
        }
    }

    /// The width that both directions use.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Where received bytes are appended. Read only when [`HandshakeFrames::next_body`] has no message left, so that
    /// at most one message and one read are held.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// Body of the next whole message; `None` until more bytes arrive.
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let prefix = self.width.bytes();
        if self.received.len() < prefix {
            return Ok(None);
        }
        let length = self.received[..prefix]
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length > MAX_BODY {
            return Err(FrameTooLong { length });
        }
        if self.received.len() < prefix + length {
            return Ok(None);
        }
        self.received.advance(prefix);
        Ok(Some(self.received.split_to(length).freeze()))
    }

    /// The bytes received after the last message taken.
    pub fn into_leftover(self) -> BytesMut {
        self.received
    }
}

impl fmt::Display for FrameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a handshake message of {} bytes was announced, the limit is {MAX_BODY}: the other side does not speak \
             Erlang distribution, or one side uses TLS and the other does not",
            self.length
        )
    }
}

impl std::error::Error for FrameTooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_arrive_one_by_one_and_the_rest_is_kept() {
        for width in [Width::Plain, Width::Tls] {
            let mut stream = Vec::new();
            width.frame(b"sok", &mut stream);
            width.frame(b"", &mut stream);
            stream.extend_from_slice(b"\0\0\0\0rest");
            let mut frames = HandshakeFrames::new(width);
            let mut bodies = Vec::new();
            for byte in &stream {
                frames.buffer().extend_from_slice(&[*byte]);
                if bodies.len() < 2
                    && let Some(body) = frames.next_body().unwrap()
                {
                    bodies.push(body);
                }
            }
            assert_eq!(bodies, [&b"sok"[..], b""]);
            assert_eq!(frames.into_leftover(), &b"\0\0\0\0rest"[..]);
        }
    }

    #[test]
    fn a_giant_length_is_refused_before_its_bytes_arrive() {
        let mut frames = HandshakeFrames::new(Width::Plain);
        frames.buffer().extend_from_slice(&[0xff, 0xff]);
        assert_eq!(frames.next_body(), Err(FrameTooLong { length: 65535 }));
        let mut frames = HandshakeFrames::new(Width::Tls);
        frames.buffer().extend_from_slice(&[0xff; 4]);
        assert_eq!(
            frames.next_body(),
            Err(FrameTooLong {
                length: 0xffff_ffff
            })
        );
    }
}
