//! Distribution flags: what two nodes tell each other in the handshake that they can do.
//!
//! Source: OTP manual, ERTS, *Distribution Protocol*, "Distribution Flags"; values from `dist.hrl` and `dist.h` of
//! OTP 25 and 28. The manual's value for `MANDATORY_25_DIGEST` (1 bsl 36) is wrong; OTP uses bit 26.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// A 64-bit set of distribution flags.
///
/// Bits without a constant below are never offered, and survive only until [`Flags::negotiate`] drops them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Flags(u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
        }

        /// Every bit that has a name, lowest first.
        const NAMES: &[(Flags, &str)] = &[$((Flags::$name, stringify!($name)),)*];
    };
}

flags! {
    /// The node is visible: it is listed in `nodes()`. Both sides must set it, or the connection is hidden for both.
    PUBLISHED = 0;
    /// Obsolete atom cache of the time before distribution headers. Never offered.
    ATOM_CACHE = 1;
    /// References of several words. Mandatory since OTP 25.
    EXTENDED_REFERENCES = 2;
    /// Understands MONITOR_P, DEMONITOR_P and MONITOR_P_EXIT. Without this and `DIST_MONITOR_NAME` a BEAM sends none.
    DIST_MONITOR = 3;
    /// Has a tag of its own for funs. Mandatory since OTP 25.
    FUN_TAGS = 4;
    /// Understands monitors of registered names.
    DIST_MONITOR_NAME = 5;
    /// Obsolete atom cache for hidden nodes. Never offered.
    HIDDEN_ATOM_CACHE = 6;
    /// Understands NEW_FUN_EXT (112). Mandatory since OTP 25.
    NEW_FUN_TAGS = 7;
    /// Pids and ports with a full 28-bit number. Mandatory since OTP 25.
    EXTENDED_PIDS_PORTS = 8;
    /// Understands EXPORT_EXT (113). Mandatory since OTP 25.
    EXPORT_PTR_TAG = 9;
    /// Understands BIT_BINARY_EXT (77). Mandatory since OTP 25.
    BIT_BINARIES = 10;
    /// Understands NEW_FLOAT_EXT (70). Mandatory since OTP 25.
    NEW_FLOATS = 11;
    /// Its io servers take unicode requests (`{put_chars, unicode, ...}`).
    UNICODE_IO = 12;
    /// Distribution headers with an atom cache. This or `FRAGMENTS` selects header framing.
    DIST_HDR_ATOM_CACHE = 13;
    /// Understands the atom tags with a one-byte length.
    SMALL_ATOM_TAGS = 14;
    /// Understands the UTF-8 atom tags (118, 119). Mandatory since OTP 25.
    UTF8_ATOMS = 16;
    /// Understands MAP_EXT (116). Mandatory since OTP 25.
    MAP_TAG = 17;
    /// Creations of 32 bits. Mandatory since OTP 25.
    BIG_CREATION = 18;
    /// Understands SEND_SENDER, which a BEAM then uses in place of SEND.
    SEND_SENDER = 19;
    /// Labels of sequential tracing may be any term.
    BIG_SEQTRACE_LABELS = 20;
    /// Exit reasons travel as the payload (operations 24 to 28).
    EXIT_PAYLOAD = 22;
    /// Large messages travel in fragments. This or `DIST_HDR_ATOM_CACHE` selects header framing.
    FRAGMENTS = 23;
    /// Speaks version 6 of the handshake. Mandatory since OTP 25.
    HANDSHAKE_23 = 24;
    /// Unlinks with ids and acknowledgements (operations 35 and 36). Mandatory since OTP 26.
    UNLINK_ID = 25;
    /// Stands for all flags that are mandatory in OTP 25; expanded by [`Flags::expand`].
    MANDATORY_25_DIGEST = 26;
    /// Understands SPAWN_REQUEST and SPAWN_REPLY.
    SPAWN = 32;
    /// Asks the acceptor for a node name (dynamic node names). The acceptor sets it in its answer to such a peer.
    NAME_ME = 33;
    /// Pids, ports and references with the wide fields of version 4. Mandatory since OTP 26.
    V4_NC = 34;
    /// Process aliases (operations 33 and 34).
    ALIAS = 35;
    /// Understands ALTACT_SIG_SEND (37), since OTP 28.
    ALTACT_SIG = 37;
}

impl Flags {
    /// No flag at all.
    pub const NONE: Flags = Flags(0);

    /// What a peer must be able to do, as OTP 25 demands it.
    pub const MANDATORY_25: Flags = Flags(
        Flags::EXTENDED_REFERENCES.0
            | Flags::FUN_TAGS.0
            | Flags::NEW_FUN_TAGS.0
            | Flags::EXTENDED_PIDS_PORTS.0
            | Flags::EXPORT_PTR_TAG.0
            | Flags::BIT_BINARIES.0
            | Flags::NEW_FLOATS.0
            | Flags::UTF8_ATOMS.0
            | Flags::MAP_TAG.0
            | Flags::BIG_CREATION.0
            | Flags::HANDSHAKE_23.0,
    );

    /// What a peer must be able to do, as OTP 26 and later demand it.
    pub const MANDATORY_26: Flags =
        Flags(Flags::MANDATORY_25.0 | Flags::UNLINK_ID.0 | Flags::V4_NC.0);

    /// What a visible node offers: the default set of OTP 28.
    pub const OFFERED: Flags = Flags(
        Flags::MANDATORY_26.0
            | Flags::PUBLISHED.0
            | Flags::DIST_MONITOR.0
            | Flags::DIST_MONITOR_NAME.0
            | Flags::UNICODE_IO.0
            | Flags::DIST_HDR_ATOM_CACHE.0
            | Flags::SMALL_ATOM_TAGS.0
            | Flags::SEND_SENDER.0
            | Flags::BIG_SEQTRACE_LABELS.0
            | Flags::EXIT_PAYLOAD.0
            | Flags::FRAGMENTS.0
            | Flags::MANDATORY_25_DIGEST.0
            | Flags::SPAWN.0
            | Flags::ALIAS.0
            | Flags::ALTACT_SIG.0,
    );

    /// What a hidden node offers: the same without `PUBLISHED`.
    pub const OFFERED_HIDDEN: Flags = Flags::OFFERED.without(Flags::PUBLISHED);

    /// The flags as they are on the wire.
    pub const fn from_bits(bits: u64) -> Flags {
        Flags(bits)
    }

    /// The 64-bit word for the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// These flags and those of `other`.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These flags but those of `other`, for example [`Flags::OFFERED`] without atom cache and fragments.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// Spells out `MANDATORY_25_DIGEST`: a peer may send that one bit in place of all of [`Flags::MANDATORY_25`].
    pub const fn expand(self) -> Flags {
        if self.contains(Flags::MANDATORY_25_DIGEST) {
            self.with(Flags::MANDATORY_25)
        } else {
            self
        }
    }

    /// What both sides can do: the intersection, after both words are expanded. Every operation sent is gated on it.
    pub const fn negotiate(self, peer: Flags) -> Flags {
        Flags(self.expand().0 & peer.expand().0)
    }

    /// Names of the flags of `mandatory` that are not set here; empty when nothing is missing.
    pub fn missing(self, mandatory: Flags) -> Vec<&'static str> {
        mandatory.without(self.expand()).names().collect()
    }

    /// Names of the flags that are set and have a name, lowest bit first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| *name)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl BitAnd for Flags {
    type Output = Flags;

    fn bitand(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that OTP itself sends and demands.
    #[test]
    fn words_of_otp() {
        assert_eq!(Flags::OFFERED.bits(), 0x2d07df7fbd, "OTP 28, visible");
        assert_eq!(
            Flags::OFFERED.without(Flags::ALTACT_SIG).bits(),
            0xd07df7fbd,
            "OTP 25, visible"
        );
        assert_eq!(Flags::OFFERED_HIDDEN.bits(), 0x2d07df7fbc);
        assert_eq!(
            Flags::OFFERED
                .without(Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS)
                .bits(),
            0x2d075f5fbd
        );
        assert_eq!(Flags::MANDATORY_25.bits(), 0x0107_0f94);
        assert_eq!(Flags::MANDATORY_26.bits(), 0x4_0307_0f94);
        assert_eq!(Flags::MANDATORY_25_DIGEST.bits(), 0x400_0000);
    }

    #[test]
    fn digest_stands_for_the_flags_of_otp_25() {
        let peer = Flags::MANDATORY_25_DIGEST;
        assert!(peer.missing(Flags::MANDATORY_25).is_empty());
        assert_eq!(peer.missing(Flags::MANDATORY_26), ["UNLINK_ID", "V4_NC"]);
        assert_eq!(
            Flags::OFFERED.negotiate(peer),
            Flags::MANDATORY_25 | Flags::MANDATORY_25_DIGEST
        );
    }

    #[test]
    fn missing_flags_are_named() {
        let peer = Flags::OFFERED
            .without(Flags::MANDATORY_25_DIGEST)
            .without(Flags::MAP_TAG | Flags::BIG_CREATION);
        assert_eq!(
            peer.missing(Flags::MANDATORY_25),
            ["MAP_TAG", "BIG_CREATION"]
        );
    }

    #[test]
    fn unknown_bits_of_the_peer_are_not_negotiated() {
        let peer = Flags::from_bits(u64::MAX);
        assert_eq!(Flags::OFFERED.negotiate(peer), Flags::OFFERED);
    }
}
