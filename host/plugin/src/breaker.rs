//! A circuit breaker: after repeated failures, wait before trying again, longer each time.
//!
//! ```text
//!            failures in a row reach the threshold
//!   Closed ----------------------------------------> Open
//!     ^                                               |  the back-off is over: one trial
//!     |  the trial succeeds                           v
//!     +---------------------------------------- HalfOpen ---> Open, twice the back-off: the trial fails
//! ```
//!
//! A trial whose caller goes away proves nothing: the breaker stays open and the next caller may try at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub threshold: u32,
    /// The first back-off.
    pub base: Duration,
    /// The longest back-off.
    pub max: Duration,
}

impl Default for BreakerPolicy {
    /// Five failures, 500 ms doubling to 30 s: a sleeping workload is never held back for long by a plugin that has
    /// recovered.
    fn default() -> BreakerPolicy {
        BreakerPolicy {
            threshold: 5,
            base: Duration::from_millis(500),
            max: Duration::from_secs(30),
        }
    }
}

/// What a breaker is doing, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed = 0,
    /// One call is being tried.
    HalfOpen = 1,
    /// Calls are refused.
    Open = 2,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, opened: u32 },
    HalfOpen { opened: u32 },
}

/// A circuit breaker for one function of one plugin.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: Mutex<State>,
}

/// Leave to make one call. Its outcome is reported on it; dropping it reports nothing.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    trial: bool,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Breaker {
        Breaker {
            policy,
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }

    /// Leave to make a call now.
    ///
    /// # Errors
    ///
    /// How long to wait before asking again.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Ok(Permit {
                breaker: self,
                trial: false,
            }),
            State::Open { until, opened } if now >= until => {
                *state = State::HalfOpen { opened };
                Ok(Permit {
                    breaker: self,
                    trial: true,
                })
            }
            State::Open { until, .. } => Err(until - now),
            State::HalfOpen { .. } => Err(self.policy.base),
        }
    }

    /// What the breaker is doing.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match *self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Twice as long with each opening, between one half and the whole of it by `jitter` in `0..1`.
    fn back_off(&self, opened: u32, jitter: f64) -> Duration {
        let full = self
            .policy
            .base
            .saturating_mul(1_u32.checked_shl(opened).unwrap_or(u32::MAX))
            .min(self.policy.max);
        full.mul_f64(0.5 + jitter / 2.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every write is a single assignment, so a poisoned state is still a state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The plugin kept the contract.
    pub fn succeeded(mut self) {
        *self.breaker.lock() = State::Closed { failures: 0 };
        self.trial = false;
    }

    /// The plugin misbehaved. `jitter` in `0..1` spreads the next trial.
    pub fn failed(mut self, now: Instant, jitter: f64) {
        let breaker = self.breaker;
        let mut state = breaker.lock();
        *state = match *state {
            State::Closed { failures } if failures + 1 < breaker.policy.threshold => State::Closed {
                failures: failures + 1,
            },
            State::Closed { .. } => State::Open {
                until: now + breaker.back_off(0, jitter),
                opened: 1,
            },
            State::HalfOpen { opened } if self.trial => State::Open {
                until: now + breaker.back_off(opened, jitter),
                opened: opened + 1,
            },
            // A call from before the opening says nothing new.
            State::HalfOpen { opened } => State::HalfOpen { opened },
            State::Open { until, opened } => State::Open { until, opened },
        };
        drop(state);
        self.trial = false;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.trial {
            return;
        }
        let mut state = self.breaker.lock();
        if let State::HalfOpen { opened } = *state {
            *state = State::Open {
                until: Instant::now(),
                opened,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BreakerPolicy = BreakerPolicy {
        threshold: 3,
        base: Duration::from_secs(1),
        max: Duration::from_secs(5),
    };

    fn fail(breaker: &Breaker, now: Instant) {
        breaker.admit(now).unwrap().failed(now, 1.0);
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(POLICY);
        (0..3).for_each(|_| fail(&breaker, now));
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let breaker = Breaker::new(POLICY);
        fail(&breaker, now);
        fail(&breaker, now);
        breaker.admit(now).unwrap().succeeded();
        fail(&breaker, now);
        fail(&breaker, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(now).unwrap_err(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_trial_at_a_time_and_its_success_closes() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + Duration::from_secs(1);
        let trial = breaker.admit(later).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(later).is_err(), "a second trial");
        trial.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.admit(later).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failed_trial_doubles_the_wait_up_to_the_longest() {
        let mut now = Instant::now();
        let breaker = opened(now);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let wait = breaker.admit(now).unwrap_err();
            waits.push(wait.as_secs());
            now += wait;
            fail(&breaker, now);
        }
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_trial_lets_the_next_caller_try() {
        let breaker = opened(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(breaker.admit(Instant::now()).unwrap());
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit(Instant::now()).is_ok());
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let breaker = Breaker::new(POLICY);
        assert_eq!(breaker.back_off(1, 0.0), Duration::from_secs(1));
        assert_eq!(breaker.back_off(1, 1.0), Duration::from_secs(2));
        assert_eq!(breaker.back_off(200, 1.0), POLICY.max);
    }
}
