//! Who needs it awake: one wake for all that wait.
//!
//! A wake is a future that is shared by everybody who waits for it, and only by them. It runs while at least one of them
//! polls it; when the last one leaves, it is dropped and nothing is left. One whose success was seen before its answer came
//! is let come to its end by itself. What fails for now only is tried again within the wake. Its failure goes to those who
//! wait at that moment and to nobody else: the next request tries again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::time::Instant;

use crate::demand_counters::ResourceState;
use crate::wakes::{Flight, WakeError, Wakes, backoff};
use crate::{Metrics, RouteTarget, lock};

/// Wakes resources.
#[async_trait]
pub trait Waker: Send + Sync + 'static {
    /// Asks for the target's resource to be awake. `Ok` means that the request was accepted: from then on a request may go to
    /// any endpoint that the target's view lists. May be dropped at any await, and may be asked again at any time.
    async fn wake(&self, target: &RouteTarget, reason: &str) -> Result<(), WakeError>;
}

impl ResourceState {
    /// Joins the wake that is under way, or begins one. None: one for this epoch was accepted a moment ago.
    pub(crate) fn wake(
        self: &Arc<Self>,
        target: &Arc<RouteTarget>,
        epoch: i64,
        waker: &Arc<dyn Waker>,
        timeout: Duration,
        metrics: &Arc<Metrics>,
    ) -> Option<Flight> {
        let mut wakes = lock(&self.wakes);
        wakes
            .under_way()
            .or_else(|| self.begin(&mut wakes, target, epoch, waker, timeout, metrics))
    }

    /// Begins a wake that nobody waits for; None when one is under way or was accepted a moment ago. So there is one at most,
    /// however many ask, and it ends with its timeout.
    pub(crate) fn wake_in_background(
        self: &Arc<Self>,
        target: &Arc<RouteTarget>,
        epoch: i64,
        waker: &Arc<dyn Waker>,
        timeout: Duration,
        metrics: &Arc<Metrics>,
    ) -> Option<Flight> {
        let mut wakes = lock(&self.wakes);
        if wakes.under_way().is_some() {
            return None;
        }
        self.begin(&mut wakes, target, epoch, waker, timeout, metrics)
    }

    /// Nobody waits for the wake under way any longer, because what it was for has happened: it comes to its end aside, so
    /// that it is counted and what it still has to do is done.
    pub(crate) fn finish_in_background(&self) {
        let mut wakes = lock(&self.wakes);
        if let Some(flight) = wakes.under_way() {
            tokio::spawn(flight);
        }
        wakes.flight = None;
    }

    fn begin(
        self: &Arc<Self>,
        wakes: &mut Wakes,
        target: &Arc<RouteTarget>,
        epoch: i64,
        waker: &Arc<dyn Waker>,
        timeout: Duration,
        metrics: &Arc<Metrics>,
    ) -> Option<Flight> {
        if wakes.accepted_lately(epoch) {
            return None;
        }
        let not_before = wakes.not_before;
        let (state, target, waker, metrics) = (
            Arc::clone(self),
            Arc::clone(target),
            Arc::clone(waker),
            Arc::clone(metrics),
        );
        let flight = async move {
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before).await;
            }
            let began = Instant::now();
            let reason = format!(
                "a request for Service {} port {}",
                target.key.service, target.key.port
            );
            let outcome = attempt(&*waker, &target, &reason, timeout).await;
            metrics.woke(began.elapsed(), outcome.is_ok());
            let key = &target.key;
            match &outcome {
                Ok(()) => tracing::info!(namespace = key.namespace, sleeper = key.sleeper, "wake accepted"),
                Err(error) => {
                    tracing::warn!(namespace = key.namespace, sleeper = key.sleeper, %error, "wake failed");
                }
            }
            lock(&state.wakes).landed(epoch, outcome.is_ok());
            outcome
        }
        .boxed()
        .shared();
        wakes.flight = flight.downgrade();
        Some(flight)
    }
}

/// Wakes, again and again while it fails for now only. When the time is up the last cause is the outcome.
async fn attempt(
    waker: &dyn Waker,
    target: &RouteTarget,
    reason: &str,
    timeout: Duration,
) -> Result<(), WakeError> {
    let deadline = Instant::now() + timeout;
    let mut outcome = Err(WakeError::Timeout(timeout));
    for failures in 0.. {
        match tokio::time::timeout_at(deadline, waker.wake(target, reason)).await {
            Err(_elapsed) => break,
            Ok(Err(WakeError::Transient(cause))) => {
                let (namespace, sleeper) = (&target.key.namespace, &target.key.sleeper);
                tracing::warn!(namespace, sleeper, cause, "the wake failed for now");
                outcome = Err(WakeError::Transient(cause));
            }
            Ok(landed) => return landed,
        }
        let again = Instant::now() + backoff(failures);
        if again >= deadline {
            break;
        }
        tokio::time::sleep_until(again).await;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wakes::ACCEPTED_FOR;

    /// Answers a moment after it was asked.
    struct Slow;

    #[async_trait]
    impl Waker for Slow {
        async fn wake(&self, _target: &RouteTarget, _reason: &str) -> Result<(), WakeError> {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_that_nobody_needs_to_wait_for_comes_to_its_end() {
        let target = crate::route::tests::target("app");
        let (waker, metrics): (Arc<dyn Waker>, _) = (Arc::new(Slow), Arc::new(Metrics::default()));
        for (seen, counted) in [(true, 1), (false, 1)] {
            let flight = target
                .state
                .wake(&target, 1, &waker, Duration::from_secs(1), &metrics)
                .expect("none was accepted before");
            let mut waiting = Box::pin(flight);
            assert!(waiting.as_mut().now_or_never().is_none(), "it takes a moment");
            if seen {
                target.state.finish_in_background();
            }
            drop(waiting);
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(
                metrics.wake_ok.get(),
                counted,
                "its success was seen before: {seen}"
            );
            tokio::time::sleep(ACCEPTED_FOR).await;
        }
    }

    struct NeverNow;

    #[async_trait]
    impl Waker for NeverNow {
        async fn wake(&self, _target: &RouteTarget, _reason: &str) -> Result<(), WakeError> {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Err(WakeError::Transient("no answer".to_owned()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_that_fails_for_now_until_its_time_is_up_says_why() {
        let target = crate::route::tests::target("app");
        let begun = Instant::now();
        let outcome = attempt(&NeverNow, &target, "a test", Duration::from_secs(60)).await;
        assert_eq!(outcome, Err(WakeError::Transient("no answer".to_owned())));
        assert!(
            begun.elapsed() <= Duration::from_secs(60),
            "{:?}",
            begun.elapsed()
        );
        let outcome = attempt(&NeverNow, &target, "a test", Duration::from_secs(5)).await;
        assert_eq!(outcome, Err(WakeError::Timeout(Duration::from_secs(5))));
    }
}
