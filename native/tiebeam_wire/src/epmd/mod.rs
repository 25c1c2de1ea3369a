//! The Erlang Port Mapper Daemon's protocol: which node listens on which port of a host.
//!
//! ```text
//! ALIVE2_REQ        'x' port:16 kind:8 protocol:8 highest:16 lowest:16 nlen:16 name elen:16 extra
//!   ALIVE2_X_RESP   'v' result:8 creation:32     (highest >= 6; the socket stays open and is the registration)
//!   ALIVE2_RESP     'y' result:8 creation:16     (older)
//! PORT_PLEASE2_REQ  'z' name
//!   PORT2_RESP      'w' 0 port:16 kind:8 protocol:8 highest:16 lowest:16 nlen:16 name elen:16 extra | 'w' 1
//! NAMES_REQ         'n'       epmdport:32 then lines `name NAME at port PORT`
//! DUMP_REQ          'd'       epmdport:32 then lines for active and former names
//! KILL_REQ          'k'       `OK` or `NO`
//! STOP_REQ          's' name  `STOPPED`, `NOEXIST`, or nothing
//! ```
//!
//! Requests have a 16-bit length before them; answers end where their fields end, or with the stream.
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "EPMD Protocol".

mod request;
mod response;
mod table;
#[cfg(test)]
mod tests;

pub use request::{Entry, Request, RequestError};
pub use response::{
    Alive2Response, NameAndPort, NamesResponse, PortResponse, RESULT_ERROR, ResponseError,
};
pub use table::{Answer, MAX_FORMER, MAX_REGISTRATIONS, Registrations};

/// The port of epmd unless `ERL_EPMD_PORT` says otherwise.
pub const DEFAULT_PORT: u16 = 4369;

/// Longest request body taken. A registration needs 13 bytes, a name of at most 255 and its extra field, which OTP
/// leaves empty.
pub const MAX_REQUEST: usize = 1536;

/// Longest answer taken: a list of names of more nodes than a host runs.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// Longest name that can be registered, in bytes.
pub const MAX_NAME: usize = 255;

/// Kind of a node that is visible to all others.
pub const KIND_VISIBLE: u8 = b'M';

/// Kind of a hidden node.
pub const KIND_HIDDEN: u8 = b'H';

/// The version of the distribution protocol (and of the handshake) that this crate speaks.
pub const VERSION: u16 = 6;

/// Big-endian fields of a request or an answer.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// The fields that a registration and the answer to a look-up have in common.
    fn entry(&mut self) -> Option<Entry> {
        Some(Entry {
            port: self.u16()?,
            kind: self.u8()?,
            protocol: self.u8()?,
            highest: self.u16()?,
            lowest: self.u16()?,
            name: self.counted()?.to_vec(),
            extra: self.counted()?.to_vec(),
        })
    }
}
