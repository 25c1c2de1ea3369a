//! Control messages: what nodes tell each other about their processes.
//!
//! A [`Control`] names a meaning, not an operation code: the wire has up to five codes for one meaning (with and
//! without a trace token, with the reason inside the control tuple or as the payload, by a newer operation). Which
//! code is written depends on the negotiated flags; all of them are read.
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "Protocol between Connected Nodes"; for the rules that the
//! manual does not state, `erts_net_message` of OTP 25 to 28.

use std::fmt;
use std::sync::LazyLock;

use num_bigint::{BigInt, Sign};

use crate::atom::Atom;
use crate::decode::{Decoder, tag};
use crate::encode::{
    AtomWriter, write_integer, write_pid, write_reference, write_term, write_tuple,
};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::flags::Flags;
use crate::frame::{Fault, FrameErrorKind};
use crate::term::{Pid, Reference, Term};

/// A control message. `payload` in a variant's description is the term that travels beside it in
/// [`Frame::Message`](crate::frame::Frame::Message).
///
/// Trace tokens are dropped when read and never written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// LINK: `{1, From, To}`.
    Link {
        /// The process that links.
        from: Pid,
        /// The process it links to.
        to: Pid,
    },
    /// UNLINK: `{4, From, To}`, without acknowledgement; for peers without `UNLINK_ID` only.
    Unlink {
        /// The process that unlinks.
        from: Pid,
        /// The process it was linked to.
        to: Pid,
    },
    /// UNLINK_ID: `{35, Id, From, To}`.
    UnlinkId {
        /// Returned in the acknowledgement; at least 1.
        id: u64,
        /// The process that unlinks.
        from: Pid,
        /// The process it was linked to.
        to: Pid,
    },
    /// UNLINK_ID_ACK: `{36, Id, From, To}`.
    UnlinkIdAck {
        /// The number of the UNLINK_ID that is acknowledged.
        id: u64,
        /// The process that acknowledges: the receiver of the UNLINK_ID.
        from: Pid,
        /// The process that unlinked.
        to: Pid,
    },
    /// SEND: `{2, '', To}`, `{12, '', To, Token}`; SEND_SENDER: `{22, From, To}`, `{23, From, To, Token}`; also
    /// ALTACT_SIG_SEND: `{37, Flags, From, To}`. The payload is the message.
    Send {
        /// The sender, where it is told.
        from: Option<Pid>,
        /// The receiver.
        to: Pid,
    },
    /// REG_SEND: `{6, From, '', Name}`, `{16, From, '', Name, Token}`; also ALTACT_SIG_SEND: `{37, Flags, From,
    /// Name}`. The payload is the message.
    RegSend {
        /// The sender.
        from: Pid,
        /// The registered name of the receiver.
        name: Atom,
    },
    /// ALIAS_SEND: `{33, From, Alias}`, `{34, From, Alias, Token}`; ALTACT_SIG_SEND: `{37, Flags, From, Alias}`. The
    /// payload is the message.
    AliasSend {
        /// The sender.
        from: Pid,
        /// The alias of the receiver.
        alias: Reference,
    },
    /// A linked process ended. EXIT: `{3, From, To, Reason}`, `{13, From, To, Token, Reason}`; PAYLOAD_EXIT:
    /// `{24, From, To}`, `{25, From, To, Token}`. The payload is the reason, in every form.
    Exit {
        /// The process that ended.
        from: Pid,
        /// The process linked to it.
        to: Pid,
    },
    /// A call of `exit/2`. EXIT2: `{8, From, To, Reason}`, `{18, From, To, Token, Reason}`; PAYLOAD_EXIT2:
    /// `{26, From, To}`, `{27, From, To, Token}`; ALTACT_SIG_SEND: `{37, Flags, From, To}`. The payload is the
    /// reason, in every form.
    Exit2 {
        /// The caller.
        from: Pid,
        /// The process that is to exit.
        to: ExitTarget,
    },
    /// GROUP_LEADER: `{7, Leader, To}`.
    GroupLeader {
        /// The new group leader; on any node.
        leader: Pid,
        /// The process that gets it.
        to: Pid,
    },
    /// MONITOR_P: `{19, From, Target, Ref}`.
    Monitor {
        /// The process that watches.
        from: Pid,
        /// The watched process.
        target: Target,
        /// Identifies the monitor.
        reference: Reference,
    },
    /// DEMONITOR_P: `{20, From, Target, Ref}`.
    Demonitor {
        /// The process that watched.
        from: Pid,
        /// The watched process.
        target: Target,
        /// Identifies the monitor.
        reference: Reference,
    },
    /// A watched process ended. MONITOR_P_EXIT: `{21, Target, To, Ref, Reason}`; PAYLOAD_MONITOR_P_EXIT:
    /// `{28, Target, To, Ref}`. The payload is the reason, in both forms.
    Down {
        /// The watched process, named as in the monitor.
        target: Target,
        /// The process that watches.
        to: Pid,
        /// Identifies the monitor.
        reference: Reference,
    },
    /// SPAWN_REQUEST: `{29, Ref, From, Leader, {Module, Function, Arity}, Options}`,
    /// `{30, Ref, From, Leader, {Module, Function, Arity}, Options, Token}`. The payload is the list of arguments.
    SpawnRequest {
        /// Identifies the request, and the monitor if one is asked for.
        reference: Reference,
        /// The process that asks.
        from: Pid,
        /// The group leader of the new process; on any node.
        group_leader: Pid,
        /// The module.
        module: Atom,
        /// The function.
        function: Atom,
        /// The number of arguments. OTP does not compare it with the payload.
        arity: i64,
        /// A list such as `[link, monitor, {priority, high}]`, not checked here.
        options: Term,
    },
    /// SPAWN_REPLY: `{31, Ref, To, Flags, PidOrError}`, `{32, Ref, To, Flags, PidOrError, Token}`.
    SpawnReply {
        /// Identifies the request.
        reference: Reference,
        /// The process that asked.
        to: Pid,
        /// A link was made.
        linked: bool,
        /// A monitor was made.
        monitored: bool,
        /// The new process, or why there is none.
        result: SpawnResult,
    },
}

/// Whom a monitor watches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A process.
    Pid(Pid),
    /// A process by its registered name.
    Name(Atom),
}

/// Whom an `exit/2` is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitTarget {
    /// A process.
    Pid(Pid),
    /// A process by its registered name; needs `ALTACT_SIG`.
    Name(Atom),
    /// A process by an alias; needs `ALTACT_SIG`.
    Alias(Reference),
}

/// What came of a spawn request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpawnResult {
    /// The new process.
    Pid(Pid),
    /// Why there is none: `badopt`, `system_limit`, `notsup`.
    Error(Atom),
}

/// A control message that cannot be written. The caller's misuse: nothing was written, the connection is intact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The peer does not understand the message.
    NotNegotiated {
        /// The message.
        message: &'static str,
        /// The flags, all of which it needs.
        flags: Flags,
    },
    /// An [`Control::Unlink`] to a peer with `UNLINK_ID`, which would close the connection: send a
    /// [`Control::UnlinkId`].
    Superseded,
    /// An unlink id of 0.
    UnlinkId,
    /// The message has a payload, and none was given.
    PayloadMissing {
        /// The message.
        message: &'static str,
    },
    /// A payload was given for a message that has none.
    PayloadUnexpected {
        /// The message.
        message: &'static str,
    },
    /// The message is longer than a packet, or a sequence of fragments, can be.
    TooLong {
        /// How many bytes its terms take.
        length: usize,
        /// How many they may take.
        limit: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNegotiated { message, flags } => {
                write!(f, "{message} needs {flags:?}, which the peer did not offer")
            }
            Self::Superseded => write!(
                f,
                "Unlink would make a peer with UNLINK_ID close the connection, send UnlinkId"
            ),
            Self::UnlinkId => write!(f, "an unlink id must be at least 1"),
            Self::PayloadMissing { message } => write!(f, "{message} needs a payload"),
            Self::PayloadUnexpected { message } => write!(f, "{message} takes no payload"),
            Self::TooLong { length, limit } => write!(
                f,
                "a message of {length} bytes is longer than the limit of {limit}, split it"
            ),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Operation codes, as OTP names them.
mod operation {
    pub(super) const LINK: u8 = 1;
    pub(super) const SEND: u8 = 2;
    pub(super) const EXIT: u8 = 3;
    pub(super) const UNLINK: u8 = 4;
    pub(super) const REG_SEND: u8 = 6;
    pub(super) const GROUP_LEADER: u8 = 7;
    pub(super) const EXIT2: u8 = 8;
    pub(super) const SEND_TT: u8 = 12;
    pub(super) const EXIT_TT: u8 = 13;
    pub(super) const REG_SEND_TT: u8 = 16;
    pub(super) const EXIT2_TT: u8 = 18;
    pub(super) const MONITOR_P: u8 = 19;
    pub(super) const DEMONITOR_P: u8 = 20;
    pub(super) const MONITOR_P_EXIT: u8 = 21;
    pub(super) const SEND_SENDER: u8 = 22;
    pub(super) const SEND_SENDER_TT: u8 = 23;
    pub(super) const PAYLOAD_EXIT: u8 = 24;
    pub(super) const PAYLOAD_EXIT_TT: u8 = 25;
    pub(super) const PAYLOAD_EXIT2: u8 = 26;
    pub(super) const PAYLOAD_EXIT2_TT: u8 = 27;
    pub(super) const PAYLOAD_MONITOR_P_EXIT: u8 = 28;
    pub(super) const SPAWN_REQUEST: u8 = 29;
    pub(super) const SPAWN_REQUEST_TT: u8 = 30;
    pub(super) const SPAWN_REPLY: u8 = 31;
    pub(super) const SPAWN_REPLY_TT: u8 = 32;
    pub(super) const ALIAS_SEND: u8 = 33;
    pub(super) const ALIAS_SEND_TT: u8 = 34;
    pub(super) const UNLINK_ID: u8 = 35;
    pub(super) const UNLINK_ID_ACK: u8 = 36;
    pub(super) const ALTACT_SIG_SEND: u8 = 37;
}

/// Flags of ALTACT_SIG_SEND. Bits beyond these are reserved and ignored; so is the lowest, priority: treating a
/// priority signal as an ordinary one is allowed.
mod altact {
    pub(super) const TOKEN: u8 = 2;
    pub(super) const ALIAS: u8 = 4;
    pub(super) const NAME: u8 = 8;
    pub(super) const EXIT: u8 = 16;
}

/// Flags of SPAWN_REPLY.
mod spawn_reply {
    pub(super) const LINK: i64 = 1;
    pub(super) const MONITOR: i64 = 2;
}

/// Where a message that was read has its payload.
#[derive(Debug, PartialEq)]
pub(crate) enum Payload {
    /// It has none.
    None,
    /// It was in the control tuple.
    Inside(Term),
    /// It follows the control tuple.
    Follows,
}

impl Control {
    /// The process that the message comes from, where it names one.
    ///
    /// Of these, a peer may only use pids of its own node in `Link`, `Unlink`, `UnlinkId`, `UnlinkIdAck`, `Exit`,
    /// `Exit2`, `Monitor` and `Demonitor`; a BEAM closes the connection otherwise. The sender of a message and the
    /// parent of a spawned process may be of any node.
    pub fn from(&self) -> Option<&Pid> {
        match self {
            Self::Link { from, .. }
            | Self::Unlink { from, .. }
            | Self::UnlinkId { from, .. }
            | Self::UnlinkIdAck { from, .. }
            | Self::RegSend { from, .. }
            | Self::AliasSend { from, .. }
            | Self::Exit { from, .. }
            | Self::Exit2 { from, .. }
            | Self::Monitor { from, .. }
            | Self::Demonitor { from, .. }
            | Self::SpawnRequest { from, .. } => Some(from),
            Self::Send { from, .. } => from.as_ref(),
            Self::Down {
                target: Target::Pid(pid),
                ..
            } => Some(pid),
            Self::SpawnReply {
                result: SpawnResult::Pid(pid),
                ..
            } => Some(pid),
            Self::Down { .. } | Self::SpawnReply { .. } | Self::GroupLeader { .. } => None,
        }
    }

    /// Whether a payload (a message, a reason, a list of arguments) belongs to it.
    pub fn has_payload(&self) -> bool {
        match self {
            Self::Send { .. }
            | Self::RegSend { .. }
            | Self::AliasSend { .. }
            | Self::Exit { .. }
            | Self::Exit2 { .. }
            | Self::Down { .. }
            | Self::SpawnRequest { .. } => true,
            Self::Link { .. }
            | Self::Unlink { .. }
            | Self::UnlinkId { .. }
            | Self::UnlinkIdAck { .. }
            | Self::GroupLeader { .. }
            | Self::Monitor { .. }
            | Self::Demonitor { .. }
            | Self::SpawnReply { .. } => false,
        }
    }

    /// The name of the variant, for messages to people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Link { .. } => "Link",
            Self::Unlink { .. } => "Unlink",
            Self::UnlinkId { .. } => "UnlinkId",
            Self::UnlinkIdAck { .. } => "UnlinkIdAck",
            Self::Send { .. } => "Send",
            Self::RegSend { .. } => "RegSend",
            Self::AliasSend { .. } => "AliasSend",
            Self::Exit { .. } => "Exit",
            Self::Exit2 { .. } => "Exit2",
            Self::GroupLeader { .. } => "GroupLeader",
            Self::Monitor { .. } => "Monitor",
            Self::Demonitor { .. } => "Demonitor",
            Self::Down { .. } => "Down",
            Self::SpawnRequest { .. } => "SpawnRequest",
            Self::SpawnReply { .. } => "SpawnReply",
        }
    }
}

/// Reads a control tuple. Which payload it has is decided by its operation, as OTP does, not by what follows.
pub(crate) fn read(decoder: &mut Decoder<'_>) -> Result<(Control, Payload), Fault> {
    use operation as op;
    let start = decoder.position();
    let arity = decoder.tuple()?;
    if arity == 0 {
        return Err(Fault::new(FrameErrorKind::EmptyTuple, start));
    }
    let code = decoder.integer()?;
    let unknown = Fault::new(
        FrameErrorKind::Operation {
            operation: code,
            arity,
        },
        start,
    );
    let Ok(code) = u8::try_from(code) else {
        return Err(unknown);
    };
    let (control, payload) = match (code, arity) {
        (op::LINK, 3) => {
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::Link { from, to }, Payload::None)
        }
        (op::SEND, 3) | (op::SEND_TT, 4) => {
            decoder.term()?;
            let to = decoder.pid()?;
            (Control::Send { from: None, to }, Payload::Follows)
        }
        (op::EXIT, 4) => {
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::Exit { from, to }, Payload::Inside(decoder.term()?))
        }
        (op::EXIT_TT, 5) => {
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            let _token = decoder.term()?;
            (Control::Exit { from, to }, Payload::Inside(decoder.term()?))
        }
        (op::UNLINK, 3) => {
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::Unlink { from, to }, Payload::None)
        }
        (op::REG_SEND, 4) | (op::REG_SEND_TT, 5) => {
            let from = decoder.pid()?;
            let _unused = decoder.term()?;
            let name = decoder.atom()?;
            (Control::RegSend { from, name }, Payload::Follows)
        }
        (op::GROUP_LEADER, 3) => {
            let (leader, to) = (decoder.pid()?, decoder.pid()?);
            (Control::GroupLeader { leader, to }, Payload::None)
        }
        (op::EXIT2, 4) => {
            let (from, to) = (decoder.pid()?, ExitTarget::Pid(decoder.pid()?));
            (
                Control::Exit2 { from, to },
                Payload::Inside(decoder.term()?),
            )
        }
        (op::EXIT2_TT, 5) => {
            let (from, to) = (decoder.pid()?, ExitTarget::Pid(decoder.pid()?));
            let _token = decoder.term()?;
            (
                Control::Exit2 { from, to },
                Payload::Inside(decoder.term()?),
            )
        }
        (op::MONITOR_P, 4) => {
            let (from, target) = (decoder.pid()?, read_target(decoder)?);
            let reference = decoder.reference()?;
            (
                Control::Monitor {
                    from,
                    target,
                    reference,
                },
                Payload::None,
            )
        }
        (op::DEMONITOR_P, 4) => {
            let (from, target) = (decoder.pid()?, read_target(decoder)?);
            let reference = decoder.reference()?;
            (
                Control::Demonitor {
                    from,
                    target,
                    reference,
                },
                Payload::None,
            )
        }
        (op::MONITOR_P_EXIT, 5) | (op::PAYLOAD_MONITOR_P_EXIT, 4) => {
            let (target, to) = (read_target(decoder)?, decoder.pid()?);
            let reference = decoder.reference()?;
            let payload = match code {
                op::MONITOR_P_EXIT => Payload::Inside(decoder.term()?),
                _ => Payload::Follows,
            };
            (
                Control::Down {
                    target,
                    to,
                    reference,
                },
                payload,
            )
        }
        (op::SEND_SENDER, 3) | (op::SEND_SENDER_TT, 4) => {
            let from = Some(decoder.pid()?);
            let to = decoder.pid()?;
            (Control::Send { from, to }, Payload::Follows)
        }
        (op::PAYLOAD_EXIT, 3) | (op::PAYLOAD_EXIT_TT, 4) => {
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::Exit { from, to }, Payload::Follows)
        }
        (op::PAYLOAD_EXIT2, 3) | (op::PAYLOAD_EXIT2_TT, 4) => {
            let (from, to) = (decoder.pid()?, ExitTarget::Pid(decoder.pid()?));
            (Control::Exit2 { from, to }, Payload::Follows)
        }
        (op::SPAWN_REQUEST, 6) | (op::SPAWN_REQUEST_TT, 7) => {
            (read_spawn_request(decoder)?, Payload::Follows)
        }
        (op::SPAWN_REPLY, 5) | (op::SPAWN_REPLY_TT, 6) => {
            (read_spawn_reply(decoder)?, Payload::None)
        }
        (op::ALIAS_SEND, 3) | (op::ALIAS_SEND_TT, 4) => {
            let (from, alias) = (decoder.pid()?, decoder.reference()?);
            (Control::AliasSend { from, alias }, Payload::Follows)
        }
        (op::UNLINK_ID, 4) => {
            let id = read_unlink_id(decoder)?;
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::UnlinkId { id, from, to }, Payload::None)
        }
        (op::UNLINK_ID_ACK, 4) => {
            let id = read_unlink_id(decoder)?;
            let (from, to) = (decoder.pid()?, decoder.pid()?);
            (Control::UnlinkIdAck { id, from, to }, Payload::None)
        }
        // Announced to grow: later releases may append elements.
        (op::ALTACT_SIG_SEND, 4..) => {
            let (control, read) = read_altact(decoder, arity)?;
            for _ in read..arity {
                decoder.term()?;
            }
            (control, Payload::Follows)
        }
        _ => return Err(unknown),
    };
    // The one thing that may follow the elements read above: a trace token, last in all forms but EXIT's.
    if matches!(
        code,
        op::SEND_TT
            | op::REG_SEND_TT
            | op::SEND_SENDER_TT
            | op::PAYLOAD_EXIT_TT
            | op::PAYLOAD_EXIT2_TT
            | op::SPAWN_REQUEST_TT
            | op::SPAWN_REPLY_TT
            | op::ALIAS_SEND_TT
    ) {
        decoder.term()?;
    }
    Ok((control, payload))
}

fn expected(what: &'static str, at: usize) -> Fault {
    Fault::new(FrameErrorKind::Term(DecodeErrorKind::Expected(what)), at)
}

fn next_is_pid(decoder: &Decoder<'_>) -> bool {
    matches!(decoder.peek(), Some(tag::NEW_PID | tag::PID))
}

fn read_target(decoder: &mut Decoder<'_>) -> Result<Target, DecodeError> {
    Ok(if next_is_pid(decoder) {
        Target::Pid(decoder.pid()?)
    } else {
        Target::Name(decoder.atom()?)
    })
}

fn read_unlink_id(decoder: &mut Decoder<'_>) -> Result<u64, Fault> {
    let at = decoder.position();
    let id = match decoder.term()? {
        Term::Integer(id) => u64::try_from(id).ok(),
        Term::Big(id) => u64::try_from(&*id).ok(),
        _ => None,
    };
    id.filter(|id| *id > 0)
        .ok_or_else(|| expected("an unlink id, from 1 to 2^64 - 1", at))
}

fn read_spawn_request(decoder: &mut Decoder<'_>) -> Result<Control, Fault> {
    let reference = decoder.reference()?;
    let (from, group_leader) = (decoder.pid()?, decoder.pid()?);
    let at = decoder.position();
    if decoder.tuple()? != 3 {
        return Err(expected("{Module, Function, Arity}", at));
    }
    let (module, function) = (decoder.atom()?, decoder.atom()?);
    let arity = decoder.integer()?;
    let options = decoder.term()?;
    Ok(Control::SpawnRequest {
        reference,
        from,
        group_leader,
        module,
        function,
        arity,
        options,
    })
}

fn read_spawn_reply(decoder: &mut Decoder<'_>) -> Result<Control, Fault> {
    let reference = decoder.reference()?;
    let to = decoder.pid()?;
    let flags = decoder.integer()?;
    let result = if next_is_pid(decoder) {
        SpawnResult::Pid(decoder.pid()?)
    } else {
        SpawnResult::Error(decoder.atom()?)
    };
    Ok(Control::SpawnReply {
        reference,
        to,
        linked: flags & spawn_reply::LINK != 0,
        monitored: flags & spawn_reply::MONITOR != 0,
        result,
    })
}

/// Reads the flags, the sender and the receiver; returns how many elements that makes.
fn read_altact(decoder: &mut Decoder<'_>, arity: usize) -> Result<(Control, usize), Fault> {
    const FLAGS: &str = "the flags of ALTACT_SIG_SEND";
    let at = decoder.position();
    // Flags may grow beyond any word; the ones that are known are in the lowest byte.
    let flags = match decoder.term()? {
        Term::Integer(flags @ 0..) => flags as u8,
        Term::Big(flags) if flags.sign() == Sign::Plus => low_byte(&flags),
        _ => return Err(expected(FLAGS, at)),
    };
    if flags & altact::ALIAS != 0 && flags & altact::NAME != 0 {
        return Err(expected(FLAGS, at));
    }
    if flags & altact::TOKEN != 0 && arity < 5 {
        return Err(expected("a trace token as fifth element", at));
    }
    let from = decoder.pid()?;
    let control = match (flags & altact::EXIT != 0, flags) {
        (false, flags) if flags & altact::ALIAS != 0 => Control::AliasSend {
            from,
            alias: decoder.reference()?,
        },
        (false, flags) if flags & altact::NAME != 0 => Control::RegSend {
            from,
            name: decoder.atom()?,
        },
        (false, _) => Control::Send {
            from: Some(from),
            to: decoder.pid()?,
        },
        (true, flags) => {
            let to = if flags & altact::ALIAS != 0 {
                ExitTarget::Alias(decoder.reference()?)
            } else if flags & altact::NAME != 0 {
                ExitTarget::Name(decoder.atom()?)
            } else {
                ExitTarget::Pid(decoder.pid()?)
            };
            Control::Exit2 { from, to }
        }
    };
    Ok((control, 4))
}

fn low_byte(integer: &BigInt) -> u8 {
    integer
        .iter_u64_digits()
        .next()
        .map_or(0, |word| word as u8)
}

/// Checks that the message may be sent to a peer with these flags, with or without a payload.
pub(crate) fn check(control: &Control, payload: bool, flags: Flags) -> Result<(), EncodeError> {
    let message = control.name();
    let needs = match control {
        Control::UnlinkId { .. } | Control::UnlinkIdAck { .. } => Flags::UNLINK_ID,
        Control::AliasSend { .. } if !flags.contains(Flags::ALTACT_SIG) => Flags::ALIAS,
        Control::Exit2 { to, .. } if !matches!(to, ExitTarget::Pid(_)) => Flags::ALTACT_SIG,
        Control::Monitor { target, .. }
        | Control::Demonitor { target, .. }
        | Control::Down { target, .. } => match target {
            Target::Pid(_) => Flags::DIST_MONITOR,
            Target::Name(_) => Flags::DIST_MONITOR_NAME,
        },
        Control::SpawnRequest { .. } | Control::SpawnReply { .. } => Flags::SPAWN,
        _ => Flags::NONE,
    };
    if !flags.contains(needs) {
        return Err(EncodeError::NotNegotiated {
            message,
            flags: needs,
        });
    }
    match control {
        Control::Unlink { .. } if flags.contains(Flags::UNLINK_ID) => {
            return Err(EncodeError::Superseded);
        }
        Control::UnlinkId { id: 0, .. } | Control::UnlinkIdAck { id: 0, .. } => {
            return Err(EncodeError::UnlinkId);
        }
        _ => {}
    }
    match (control.has_payload(), payload) {
        (true, false) => Err(EncodeError::PayloadMissing { message }),
        (false, true) => Err(EncodeError::PayloadUnexpected { message }),
        _ => Ok(()),
    }
}

static NOTHING: LazyLock<Atom> = LazyLock::new(|| Atom::of(""));

/// Appends the control tuple of a message that passed [`check`]; returns whether the payload is to follow it.
///
/// `reason` is the payload, which the forms of old write inside the tuple.
pub(crate) fn write<A: AtomWriter>(
    control: &Control,
    reason: Option<&Term>,
    flags: Flags,
    out: &mut Vec<u8>,
    atoms: &mut A,
) -> bool {
    use operation as op;
    // Without EXIT_PAYLOAD a reason is the last element of the tuple. ALTACT_SIG_SEND has no such form.
    let inside = !flags.contains(Flags::EXIT_PAYLOAD)
        && match control {
            Control::Exit { .. } | Control::Down { .. } => true,
            Control::Exit2 { to, .. } => matches!(to, ExitTarget::Pid(_)),
            _ => false,
        };
    let begin = |out: &mut Vec<u8>, arity: usize, code: u8| {
        write_tuple(arity, out);
        write_integer(i64::from(code), out);
    };
    match control {
        Control::Link { from, to } => {
            begin(out, 3, op::LINK);
            write_pid(from, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::Unlink { from, to } => {
            begin(out, 3, op::UNLINK);
            write_pid(from, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::UnlinkId { id, from, to } => {
            begin(out, 4, op::UNLINK_ID);
            write_term(&Term::from(*id), out, atoms);
            write_pid(from, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::UnlinkIdAck { id, from, to } => {
            begin(out, 4, op::UNLINK_ID_ACK);
            write_term(&Term::from(*id), out, atoms);
            write_pid(from, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::Send { from, to } => {
            match from {
                Some(from) if flags.contains(Flags::SEND_SENDER) => {
                    begin(out, 3, op::SEND_SENDER);
                    write_pid(from, out, atoms);
                }
                _ => {
                    begin(out, 3, op::SEND);
                    atoms.write(&NOTHING, out);
                }
            }
            write_pid(to, out, atoms);
        }
        Control::RegSend { from, name } => {
            begin(out, 4, op::REG_SEND);
            write_pid(from, out, atoms);
            atoms.write(&NOTHING, out);
            atoms.write(name, out);
        }
        Control::AliasSend { from, alias } => {
            // ALIAS_SEND is to be removed in OTP 30.
            if flags.contains(Flags::ALTACT_SIG) {
                begin(out, 4, op::ALTACT_SIG_SEND);
                write_integer(i64::from(altact::ALIAS), out);
            } else {
                begin(out, 3, op::ALIAS_SEND);
            }
            write_pid(from, out, atoms);
            write_reference(alias, out, atoms);
        }
        Control::Exit { from, to } => {
            if inside {
                begin(out, 4, op::EXIT);
            } else {
                begin(out, 3, op::PAYLOAD_EXIT);
            }
            write_pid(from, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::Exit2 { from, to } => {
            let altact = |bit: u8, out: &mut Vec<u8>| {
                begin(out, 4, op::ALTACT_SIG_SEND);
                write_integer(i64::from(altact::EXIT | bit), out);
            };
            match to {
                ExitTarget::Pid(_) if inside => begin(out, 4, op::EXIT2),
                ExitTarget::Pid(_) => begin(out, 3, op::PAYLOAD_EXIT2),
                ExitTarget::Name(_) => altact(altact::NAME, out),
                ExitTarget::Alias(_) => altact(altact::ALIAS, out),
            }
            write_pid(from, out, atoms);
            match to {
                ExitTarget::Pid(pid) => write_pid(pid, out, atoms),
                ExitTarget::Name(name) => atoms.write(name, out),
                ExitTarget::Alias(alias) => write_reference(alias, out, atoms),
            }
        }
        Control::GroupLeader { leader, to } => {
            begin(out, 3, op::GROUP_LEADER);
            write_pid(leader, out, atoms);
            write_pid(to, out, atoms);
        }
        Control::Monitor {
            from,
            target,
            reference,
        } => {
            begin(out, 4, op::MONITOR_P);
            write_pid(from, out, atoms);
            write_target(target, out, atoms);
            write_reference(reference, out, atoms);
        }
        Control::Demonitor {
            from,
            target,
            reference,
        } => {
            begin(out, 4, op::DEMONITOR_P);
            write_pid(from, out, atoms);
            write_target(target, out, atoms);
            write_reference(reference, out, atoms);
        }
        Control::Down {
            target,
            to,
            reference,
        } => {
            if inside {
                begin(out, 5, op::MONITOR_P_EXIT);
            } else {
                begin(out, 4, op::PAYLOAD_MONITOR_P_EXIT);
            }
            write_target(target, out, atoms);
            write_pid(to, out, atoms);
            write_reference(reference, out, atoms);
        }
        Control::SpawnRequest {
            reference,
            from,
            group_leader,
            module,
            function,
            arity,
            options,
        } => {
            begin(out, 6, op::SPAWN_REQUEST);
            write_reference(reference, out, atoms);
            write_pid(from, out, atoms);
            write_pid(group_leader, out, atoms);
            write_tuple(3, out);
            atoms.write(module, out);
            atoms.write(function, out);
            write_integer(*arity, out);
            write_term(options, out, atoms);
        }
        Control::SpawnReply {
            reference,
            to,
            linked,
            monitored,
            result,
        } => {
            begin(out, 5, op::SPAWN_REPLY);
            write_reference(reference, out, atoms);
            write_pid(to, out, atoms);
            let flags = if *linked { spawn_reply::LINK } else { 0 }
                | if *monitored { spawn_reply::MONITOR } else { 0 };
            write_integer(flags, out);
            match result {
                SpawnResult::Pid(pid) => write_pid(pid, out, atoms),
                SpawnResult::Error(error) => atoms.write(error, out),
            }
        }
    }
    match reason {
        Some(reason) if inside => {
            write_term(reason, out, atoms);
            false
        }
        _ => control.has_payload(),
    }
}

fn write_target<A: AtomWriter>(target: &Target, out: &mut Vec<u8>, atoms: &mut A) {
    match target {
        Target::Pid(pid) => write_pid(pid, out, atoms),
        Target::Name(name) => atoms.write(name, out),
    }
}
