//! Circuit breakers: who has failed too often is left alone for a while.

mod machine;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Failure;
use machine::{Machine, Permit};

pub use machine::BreakerState;

/// When a circuit breaker opens, and when it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it; 0 counts as 1. More forgive a bad moment, fewer spare the callers their timeouts.
    /// Default 5.
    pub failures: u32,
    /// How long nobody is let through then. Default 30 s.
    pub pause: Duration,
    /// How many calls are let through after the pause: if all of them end well it closes, if one fails it opens again. 0
    /// counts as 1. Default 1.
    pub trials: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(30),
            trials: 1,
        }
    }
}

/// A circuit breaker: goes around the calls to one peer, or to one name. Clones are the same.
///
/// Closed, it lets every call through. After some failures in a row it opens: calls fail at once, with
/// [`BreakerError::Open`], instead of keeping their callers waiting. After a pause it is half open: a few calls show
/// whether the other is well again. Source: M. Nygard, "Release It!", 2007, chapter 5.2.
///
/// What counts as a failure is [`Failure::is_outage`]: no process, no connection, no reply in time, an exit; not a reply that
/// the caller does not like.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use tiebeam_node::{BreakerError, BreakerSettings, BreakerState, CallError, CircuitBreaker};
///
/// let settings = BreakerSettings { failures: 2, pause: Duration::from_secs(30), trials: 1 };
/// let breaker = CircuitBreaker::new(settings);
/// for _ in 0..2 {
///     let answer: Result<i64, _> = breaker.call(|| async { Err(CallError::NoProcess) }).await;
///     assert!(matches!(answer, Err(BreakerError::Failed(CallError::NoProcess))));
/// }
/// let answer = breaker.call(|| async { Ok::<_, CallError>(1) }).await;
/// assert!(matches!(answer, Err(BreakerError::Open { .. })), "nobody was asked");
///
/// tokio::time::sleep(Duration::from_secs(30)).await;
/// let answer = breaker.call(|| async { Ok::<_, CallError>(2) }).await;
/// assert!(matches!(answer, Ok(2)));
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

struct Shared {
    machine: Mutex<Machine>,
    /// The origin of the machine's time.
    origin: Instant,
}

impl CircuitBreaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings) -> Self {
        let settings = BreakerSettings {
            failures: settings.failures.max(1),
            trials: settings.trials.max(1),
            ..settings
        };
        Self(Arc::new(Shared {
            machine: Mutex::new(Machine::new(settings)),
            origin: Instant::now(),
        }))
    }

    /// Makes a call, if it is let through.
    ///
    /// # Cancel safety
    /// Dropping the future drops the call, which then counts neither as a success nor as a failure.
    pub async fn call<T, E, Fut>(&self, call: impl FnOnce() -> Fut) -> Result<T, BreakerError<E>>
    where
        E: Failure,
        Fut: Future<Output = Result<T, E>>,
    {
        let admitted = self.machine().admit(self.now());
        let permit = admitted.map_err(|retry_after| BreakerError::Open { retry_after })?;
        let mut running = Running {
            breaker: self,
            permit: Some(permit),
        };
        let result = call().await;
        let outage = result.as_ref().is_err_and(Failure::is_outage);
        running.ended(!outage);
        result.map_err(BreakerError::Failed)
    }

    /// Whether calls are let through just now. [`BreakerState::HalfOpen`] from the end of the pause on.
    pub fn state(&self) -> BreakerState {
        self.machine().state(self.now())
    }

    fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        // Nothing that can panic runs under the lock.
        self.0
            .machine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A call under way. Dropped before it has ended, it was given up.
struct Running<'a> {
    breaker: &'a CircuitBreaker,
    permit: Option<Permit>,
}

impl Running<'_> {
    fn ended(&mut self, well: bool) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        if well {
            self.breaker.machine().succeeded(&permit);
        } else {
            let now = self.breaker.now();
            self.breaker.machine().failed(&permit, now);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.machine().given_up(&permit);
        }
    }
}

/// Why a call through a circuit breaker has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum BreakerError<E> {
    /// Nobody was asked: the last calls failed.
    Open {
        /// When one is let through again; zero while those that are tried have not ended.
        retry_after: Duration,
    },
    /// The call failed.
    Failed(E),
}

impl<E: Failure> Failure for BreakerError<E> {
    /// An open breaker is not tried again: it asks to be left alone for longer than a few attempts take.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Open { .. } => false,
            Self::Failed(error) => error.is_retryable(),
        }
    }

    fn is_outage(&self) -> bool {
        match self {
            Self::Open { .. } => false,
            Self::Failed(error) => error.is_outage(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for BreakerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { retry_after } => write!(
                f,
                "nobody was asked, since the last calls failed; try again in {retry_after:?}"
            ),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for BreakerError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { .. } => None,
            Self::Failed(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::error::CallError;
    use crate::retry::RetryPolicy;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_gives_its_turn_back() {
        let breaker = CircuitBreaker::new(BreakerSettings {
            failures: 1,
            ..BreakerSettings::default()
        });
        let failed: Result<(), _> = breaker.call(|| async { Err(CallError::NoProcess) }).await;
        assert!(failed.is_err());
        tokio::time::sleep(Duration::from_secs(30)).await;
        let never = breaker.call(pending::<Result<(), CallError>>);
        let timeout = tokio::time::timeout(Duration::from_secs(1), never).await;
        assert!(timeout.is_err());
        let tried = breaker.call(|| async { Ok::<_, CallError>(()) }).await;
        assert_eq!(tried.ok(), Some(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// A reply that the caller cannot read is an answer all the same.
    #[tokio::test]
    async fn what_is_the_callers_own_fault_opens_nothing() {
        let breaker = CircuitBreaker::new(BreakerSettings {
            failures: 1,
            ..BreakerSettings::default()
        });
        let misread = || async {
            let reply = crate::Term::atom("ok");
            let reason = "not a number".to_owned();
            Err::<(), _>(CallError::Reply { reply, reason })
        };
        assert!(breaker.call(misread).await.is_err());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_when_it_opens() {
        let breaker = CircuitBreaker::new(BreakerSettings {
            failures: 3,
            ..BreakerSettings::default()
        });
        let mut asked = 0;
        let result: Result<(), _> = RetryPolicy::new(100)
            .run(|| {
                asked += 1;
                breaker.call(|| async { Err(CallError::NoProcess) })
            })
            .await;
        assert!(matches!(result, Err(BreakerError::Open { .. })));
        assert_eq!(asked, 4, "three failures, and the one that was not made");
    }
}
