//! How a member of a group behaves in time.

use core::fmt;

use super::entry::MemberId;
use super::log::MAX_TAIL;
use super::mutation::Switched;
use crate::time::Duration;

/// The settings of one member. The two times must be the same for all members of a group: a lease of one is honoured by the
/// timeouts of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This member.
    pub me: MemberId,
    /// Which group: what is for another one is refused, so that two clusters never mix.
    pub group: u64,
    /// How often a leader is heard. At least one round trip; a lost one should not cost an election.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a member stands for election; the longest is twice that (3.4). Four
    /// heartbeats or more.
    pub election: Duration,
    /// How many entries of those that a snapshot stands for are kept, for members that are a little behind; at most
    /// [`MAX_TAIL`](super::MAX_TAIL).
    pub tail: usize,
    /// Decides the randomised timeouts (3.4). Different for each member.
    pub seed: u64,
    /// The rule that a test has switched off.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub mutation: Option<super::Mutation>,
}

/// Settings that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsError {
    /// There is no heartbeat.
    NoHeartbeat,
    /// The election timeout is less than four heartbeats, so that one lost message costs an election.
    ElectionTooShort {
        /// What it is.
        election: Duration,
        /// Of what it must be four times.
        heartbeat: Duration,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeartbeat => f.write_str("a leader needs a heartbeat"),
            Self::ElectionTooShort {
                election,
                heartbeat,
            } => write!(
                f,
                "an election timeout of {election} is less than four heartbeats of {heartbeat}"
            ),
        }
    }
}

impl core::error::Error for SettingsError {}

impl Settings {
    /// For members in one data centre: a heartbeat of 50 ms, elections after 200 to 400 ms.
    pub fn lan(me: MemberId, group: u64, seed: u64) -> Self {
        Self {
            me,
            group,
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(200),
            tail: MAX_TAIL,
            seed,
            #[cfg(feature = "mutants")]
            mutation: None,
        }
    }

    /// For members on different continents: a heartbeat of 250 ms, elections after 1 to 2 s.
    pub fn wan(me: MemberId, group: u64, seed: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election: Duration::from_secs(1),
            ..Self::lan(me, group, seed)
        }
    }

    /// How long a majority's confirmation is good for. A quarter of the shortest election timeout is left for clocks that
    /// run at different rates.
    pub fn lease(&self) -> Duration {
        Duration::from_micros(self.election.as_micros() / 4 * 3)
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.heartbeat == Duration::ZERO {
            return Err(SettingsError::NoHeartbeat);
        }
        if self.election < self.heartbeat.times(4) {
            return Err(SettingsError::ElectionTooShort {
                election: self.election,
                heartbeat: self.heartbeat,
            });
        }
        Ok(())
    }

    pub(super) fn switched(&self) -> Switched {
        #[cfg(feature = "mutants")]
        return Switched(self.mutation);
        #[cfg(not(feature = "mutants"))]
        Switched::NONE
    }
}
