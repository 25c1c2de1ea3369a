//! Retries: which failures are worth another attempt, how many, and how soon.

use std::future::Future;
use std::time::Duration;

use tiebeam_core::Random;

use crate::backoff::{Backoff, Jitter};
use crate::cluster::RegistryError;
use crate::error::{CallError, RpcError, SendError};

/// What a failure means to whoever might try again.
pub trait Failure {
    /// Whether another attempt is safe and may do better: what was asked for was certainly not done, and the reason may
    /// pass.
    fn is_retryable(&self) -> bool;

    /// Whether it speaks against the health of whoever was asked, as a circuit breaker counts it. What the caller did
    /// wrong does not.
    fn is_outage(&self) -> bool;
}

impl Failure for SendError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::NotRegistered(_) | Self::Unknown(_) => true,
            Self::Encode(_) | Self::Stopping => false,
        }
    }

    fn is_outage(&self) -> bool {
        self.is_retryable()
    }
}

impl Failure for CallError {
    /// True where the request was not handled: nobody has the name just now, the node cannot be reached, the link is busy.
    /// After a timeout, an exit or the loss of the connection it may have been: only the caller knows whether it may be
    /// handled twice, and says so with [`RetryPolicy::run_while`].
    fn is_retryable(&self) -> bool {
        match self {
            Self::NoProcess | Self::Connect(_) => true,
            Self::Send(error) => error.is_retryable(),
            Self::Exit(_)
            | Self::NodeDown(_)
            | Self::Timeout(_)
            | Self::Reply { .. }
            | Self::Version { .. } => false,
        }
    }

    fn is_outage(&self) -> bool {
        match self {
            Self::NoProcess
            | Self::Connect(_)
            | Self::Exit(_)
            | Self::NodeDown(_)
            | Self::Timeout(_) => true,
            Self::Send(error) => error.is_outage(),
            // It answered.
            Self::Reply { .. } | Self::Version { .. } => false,
        }
    }
}

impl Failure for RpcError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            Self::Throw(_) | Self::Exit(_) | Self::Error { .. } | Self::Refused(_) => false,
        }
    }

    fn is_outage(&self) -> bool {
        match self {
            Self::Call(error) => error.is_outage(),
            Self::Throw(_) | Self::Exit(_) | Self::Error { .. } | Self::Refused(_) => false,
        }
    }
}

impl Failure for RegistryError {
    /// A name that is taken is not: [`Registry::register_with_retry`](crate::Registry::register_with_retry) waits for it.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Ended)
    }
}

/// How often, and how soon, something that failed is tried again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use tiebeam_node::{CallError, RetryPolicy};
///
/// let mut attempts = 0;
/// let answer = RetryPolicy::new(5)
///     .run(|| {
///         attempts += 1;
///         let answer = if attempts < 3 { Err(CallError::NoProcess) } else { Ok(attempts) };
///         async move { answer }
///     })
///     .await;
/// assert!(matches!(answer, Ok(3)));
///
/// // The request may have been handled: it is not sent again.
/// let answer: Result<(), _> = RetryPolicy::new(5)
///     .run(|| async { Err(CallError::Timeout(Duration::from_secs(1))) })
///     .await;
/// assert!(answer.is_err());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts: u32,
    backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Three attempts, some 100 and 200 ms apart.
    fn default() -> Self {
        Self::new(3)
    }
}

impl RetryPolicy {
    /// At most so many attempts, the first one included (0 counts as 1). The pauses double from 100 ms to 5 s, with
    /// [`Jitter::Full`].
    pub const fn new(attempts: u32) -> Self {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(5));
        Self {
            attempts,
            backoff: Backoff::exponential(first, max).jitter(Jitter::Full),
        }
    }

    /// One attempt.
    pub const fn none() -> Self {
        Self::new(1)
    }

    /// For whoever must have an answer soon: ten attempts, 10 ms to 500 ms apart.
    pub const fn aggressive() -> Self {
        let (first, max) = (Duration::from_millis(10), Duration::from_millis(500));
        Self::new(10).backoff(Backoff::exponential(first, max).jitter(Jitter::Full))
    }

    /// For what nobody waits for: five attempts, half a second to half a minute apart.
    pub const fn conservative() -> Self {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(30));
        Self::new(5).backoff(Backoff::exponential(first, max).jitter(Jitter::Equal))
    }

    /// With these pauses.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How many attempts there are at most, the first one included.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The pauses between the attempts, with chance from this generator.
    pub fn pauses(&self, random: Random) -> impl Iterator<Item = Duration> {
        let mut pauses = self.backoff.pauses(random);
        (1..self.attempts).map(move |_| pauses.next_pause())
    }

    /// Does something, again while its failure is [retryable](Failure::is_retryable) and attempts are left. The last
    /// result.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt that is under way; there is no other one.
    pub async fn run<T, E, Fut>(&self, attempt: impl FnMut() -> Fut) -> Result<T, E>
    where
        E: Failure,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_while(E::is_retryable, attempt).await
    }

    /// As [`RetryPolicy::run`], where the caller knows which failures are worth another attempt: all of them, if what is
    /// asked for may be done twice.
    ///
    /// # Cancel safety
    /// As for [`RetryPolicy::run`].
    pub async fn run_while<T, E, Fut>(
        &self,
        retryable: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Fut,
    ) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let mut pauses = self.pauses(Random::from_seed(rand::random()));
        loop {
            match attempt().await {
                Err(error) if retryable(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::time::Instant;

    use super::*;

    async fn attempts(policy: RetryPolicy, error: CallError) -> u32 {
        let mut count = 0;
        let result: Result<(), _> = policy
            .run(|| {
                count += 1;
                future::ready(Err(error.clone()))
            })
            .await;
        assert!(result.is_err());
        count
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_not_handled_is_tried_again() {
        let policy = RetryPolicy::new(4);
        assert_eq!(attempts(policy, CallError::NoProcess).await, 4);
        let handled = CallError::Timeout(Duration::from_secs(1));
        assert_eq!(attempts(policy, handled.clone()).await, 1);
        assert_eq!(attempts(RetryPolicy::none(), CallError::NoProcess).await, 1);
        assert_eq!(attempts(RetryPolicy::new(0), CallError::NoProcess).await, 1);
        let mut count = 0;
        let result: Result<(), CallError> = policy
            .run_while(
                |_| true,
                || {
                    count += 1;
                    future::ready(Err(handled.clone()))
                },
            )
            .await;
        assert!(result.is_err() && count == 4, "{result:?} after {count}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_are_those_of_the_back_off() {
        let pause = Duration::from_millis(100);
        let policy = RetryPolicy::new(4).backoff(Backoff::linear(pause, Duration::from_secs(1)));
        let start = Instant::now();
        assert_eq!(attempts(policy, CallError::NoProcess).await, 4);
        assert_eq!(start.elapsed(), pause * (1 + 2 + 3));
    }

    #[test]
    fn the_ready_made_policies_differ_as_they_say() {
        let total = |policy: RetryPolicy| -> Duration {
            let backoff = policy.backoff.jitter(Jitter::None);
            policy.backoff(backoff).pauses(Random::from_seed(1)).sum()
        };
        assert_eq!(RetryPolicy::none().pauses(Random::from_seed(1)).count(), 0);
        assert_eq!(total(RetryPolicy::default()), Duration::from_millis(300));
        let (soon, late) = (RetryPolicy::aggressive(), RetryPolicy::conservative());
        assert!(soon.attempts() > late.attempts());
        assert!(total(soon) < total(late));
    }
}
