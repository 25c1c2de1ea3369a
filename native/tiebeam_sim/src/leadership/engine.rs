//! An engine behind the seam, as a world starts it.

use tiebeam_core::Instant;
use tiebeam_core::leadership::{Configuration, Consensus, MemberId, Replica, Restored, Settings};

use super::plan::Plan;

/// One member's engine. Everything that it does follows from its arguments.
pub trait Engine: Consensus + Sized + 'static {
    /// What tables call it.
    const NAME: &'static str;

    /// A configuration is in force where it is applied, and not already where it is in the log. Then entries behind a committed configuration may
    /// have been counted by the one before it, for whoever counted them had not applied it.
    const CONFIGURED_WHEN_APPLIED: bool;

    /// Starts a life of member `me` with what its disk has.
    ///
    /// # Errors
    ///
    /// The engine refuses to run on that disk.
    fn start(
        now: Instant,
        me: MemberId,
        seed: u64,
        disk: Restored,
        plan: &Plan,
    ) -> Result<Self, String>;

    /// What a later version of the engine might send instead of `bytes`, if its format says what is unknown.
    fn of_later_version(bytes: &[u8], which: u64) -> Option<Vec<u8>> {
        let (_bytes, _which) = (bytes, which);
        None
    }
}

/// The founding members of a group of `count`.
pub(super) fn founding(count: usize) -> Configuration {
    Configuration::new((1..=count as u64).map(MemberId), []).expect("a few voters")
}

impl Engine for Replica {
    const NAME: &'static str = "tiebeam";
    const CONFIGURED_WHEN_APPLIED: bool = false;

    fn start(
        now: Instant,
        me: MemberId,
        seed: u64,
        disk: Restored,
        plan: &Plan,
    ) -> Result<Self, String> {
        let mut settings = Settings {
            heartbeat: plan.heartbeat,
            election: plan.election,
            tail: plan.tail,
            ..Settings::lan(me, 1, seed)
        };
        plan.tune.apply(&mut settings);
        Self::new(now, settings, founding(plan.members), disk).map_err(|error| error.to_string())
    }

    /// Another version, a message that is not known, or more behind one that is.
    fn of_later_version(bytes: &[u8], which: u64) -> Option<Vec<u8>> {
        let mut strange = bytes.to_vec();
        match which % 3 {
            0 => *strange.first_mut()? += 1,
            1 => *strange.get_mut(1)? |= 0x40,
            _ => strange.push(0),
        }
        Some(strange)
    }
}
