//! Holds a request until its workload can take it: wakes, waits for an endpoint, and connects to it.
//!
//! ```text
//!            +-- asleep, or the last wake failed: join the wake (demand)
//!   arrive --+
//!            +-- wait for: a turn (pick::Ramp), an open view (endpoints watch), the wake's answer
//!   open and our turn -> pick -> connect -> forward
//!                                  | refused, timed out: back off, look at the view again
//!   deadline -> 504     wake failed -> 503     DLX drained, target gone -> 503     client gone -> nothing is left
//! ```

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::connect::{Backoff, ConnectError, Lease, Wire, connect};
use crate::pick::{Turn, pick};
use crate::pool::Endpoint;
use crate::rescue::Rescue;
use crate::waker::Waker;
use crate::wakes::Flight;
use crate::{DlxConfig, EndpointsView, Metrics, RouteTarget};

/// How long an attempt to wake, begun before a request came, may take to fail.
const OTHERS_ATTEMPT: Duration = Duration::from_secs(1);

/// What holding needs from its surroundings.
pub(crate) struct Gate<'a> {
    pub(crate) config: &'a DlxConfig,
    /// Of targets that say nothing.
    pub(crate) readiness_timeout: Duration,
    pub(crate) waker: &'a Arc<dyn Waker>,
    pub(crate) metrics: &'a Arc<Metrics>,
    /// Cancelled when draining has lasted long enough.
    pub(crate) drained: &'a CancellationToken,
}

/// What is known of the wake that this request asked for.
enum Wake {
    /// None was needed yet.
    Unasked,
    /// It is under way; the epoch is that of the view that asked for it.
    Asked(Flight, i64),
    /// It was accepted, and no view has shown it yet.
    Accepted(i64),
}

/// One line for each step of a held request, from which the time of a cold start is taken apart.
fn milestone(target: &RouteTarget, step: &str) {
    let (namespace, service) = (&target.key.namespace, &target.key.service);
    tracing::debug!(target: "dormouse_dlx::wake", namespace, service, step);
}

impl Gate<'_> {
    /// How long this target's requests are held.
    pub(crate) fn patience(&self, target: &RouteTarget) -> Duration {
        target.readiness_timeout.unwrap_or(self.readiness_timeout)
    }

    /// An HTTP connection to the target, as soon as there is one, and the turn that it was made in. One that tries again brings
    /// the turn that it had, and the endpoint that failed it.
    pub(crate) fn pass(
        &self,
        target: &Arc<RouteTarget>,
        wire: Wire,
        deadline: Instant,
        turn: Option<Turn>,
        failed: Option<Arc<Endpoint>>,
    ) -> impl Future<Output = Result<(Lease, Turn), Rescue>> + Send {
        let fresh = failed.is_some();
        let metrics = Arc::clone(self.metrics);
        self.pass_with(target, deadline, turn, failed, move |endpoint, timeout| {
            let metrics = Arc::clone(&metrics);
            async move {
                match connect(&endpoint, wire, timeout, fresh).await {
                    Ok(lease) => {
                        if !lease.reused {
                            metrics.connects.inc();
                        }
                        Ok(lease)
                    }
                    Err(error) => Err((error, endpoint)),
                }
            }
            .boxed()
        })
    }

    /// A connection to the target, as soon as `connect` makes one, and the turn that it was made in.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn has space for its arguments twice"
    )]
    pub(crate) fn pass_with<L: Send>(
        &self,
        target: &Arc<RouteTarget>,
        deadline: Instant,
        mut turn: Option<Turn>,
        mut failed: Option<Arc<Endpoint>>,
        connect: impl Fn(Arc<Endpoint>, Duration) -> BoxFuture<'static, Dialled<L>> + Send + Sync,
    ) -> impl Future<Output = Result<(L, Turn), Rescue>> + Send {
        async move {
            let patience = self.patience(target);
            milestone(target, "held");
            let mut deadline = pin!(tokio::time::sleep_until(deadline));
            let mut views = target.endpoints.clone();
            let mut view = Arc::clone(&views.borrow_and_update());
            // A failure that was there before this request is not its own: it tries again. An attempt that was under way by
            // then may still fail, so that one is not its own either.
            let mut old_failure = view.failure.clone();
            let mut own = old_failure.is_none();
            // On the heap, for the few that come after a failure.
            let mut others = (!own).then(|| Box::pin(tokio::time::sleep(OTHERS_ATTEMPT)));
            let mut wake = Wake::Unasked;
            let mut waiting = pin!(target.ramp(self.config.release).turn());
            let mut dialling = Dialling::Idle;
            let mut backoff = Backoff::default();
            loop {
                if let Some(failure) = &view.failure
                    && own
                    && old_failure.as_ref() != Some(failure)
                {
                    return Err(Rescue::WakeFailed(failure.cause.clone()));
                }
                target.pool.seen(&view);
                self.follow(target, &view, old_failure.is_some(), &mut wake, patience);
                let open = !view.ready.is_empty() && (!view.asleep || matches!(wake, Wake::Accepted(_)));
                if !open {
                    dialling = Dialling::Idle;
                } else if turn.is_some() && matches!(dialling, Dialling::Idle) {
                    milestone(target, "pod seen ready");
                    dialling = self.dial(target, &view, &connect, failed.as_ref());
                }
                tokio::select! {
                    biased;
                    dialled = dialling.wait() => match dialled {
                        Some(Ok(lease)) => {
                            if let Some(turn) = turn.take() {
                                milestone(target, "connected");
                                return Ok((lease, turn));
                            }
                        }
                        Some(Err((error, endpoint))) => {
                            tracing::debug!(%error, address = %endpoint.address, "connecting failed");
                            self.metrics.connect_retries.inc();
                            failed = Some(endpoint);
                            dialling = Dialling::Pausing(Box::pin(tokio::time::sleep(backoff.next())));
                        }
                        None => dialling = Dialling::Idle,
                    },
                    outcome = answer(&mut wake) => {
                        if let Err(error) = outcome {
                            return Err(Rescue::WakeFailed(error.to_string()));
                        }
                    }
                    changed = views.changed() => {
                        if changed.is_err() {
                            return Err(Rescue::Gone);
                        }
                        view = Arc::clone(&views.borrow_and_update());
                    }
                    () = passed(&mut others) => {
                        own = true;
                        others = None;
                        old_failure.clone_from(&view.failure);
                    }
                    granted = &mut waiting, if turn.is_none() => turn = Some(granted),
                    () = &mut deadline => return Err(Rescue::NotReady(patience)),
                    () = self.drained.cancelled() => return Err(Rescue::Draining),
                }
            }
        }
    }

    /// Brings the wake in line with the view.
    fn follow(
        &self,
        target: &Arc<RouteTarget>,
        view: &EndpointsView,
        retry: bool,
        wake: &mut Wake,
        patience: Duration,
    ) {
        match wake {
            Wake::Unasked if view.asleep || (retry && view.failure.is_some()) => {
                let flight = target
                    .state
                    .wake(target, view.epoch, self.waker, patience, self.metrics);
                *wake = flight.map_or(Wake::Accepted(view.epoch), |flight| {
                    Wake::Asked(flight, view.epoch)
                });
            }
            // The news of the wake has come round: should it fall asleep again, it must be woken again.
            Wake::Accepted(_) if !view.asleep && view.failure.is_none() => *wake = Wake::Unasked,
            Wake::Accepted(epoch) if view.asleep && view.epoch > *epoch => {
                *wake = Wake::Unasked;
                self.follow(target, view, retry, wake, patience);
            }
            // The news was faster than the answer to our request, or somebody else woke it.
            Wake::Asked(_, epoch) if !view.asleep && view.failure.is_none() && view.epoch > *epoch => {
                target.state.finish_in_background();
                *wake = Wake::Unasked;
            }
            _ => {}
        }
    }

    fn dial<L>(
        &self,
        target: &RouteTarget,
        view: &Arc<EndpointsView>,
        connect: impl Fn(Arc<Endpoint>, Duration) -> BoxFuture<'static, Dialled<L>>,
        failed: Option<&Arc<Endpoint>>,
    ) -> Dialling<L> {
        let endpoints = target.endpoints_of(view, &self.config.limits);
        let Some(endpoint) = pick(&endpoints, failed).map(Arc::clone) else {
            return Dialling::Idle;
        };
        Dialling::Attempt(connect(endpoint, self.config.connect_timeout))
    }
}

/// Waits for the answer to our wake, if one is awaited.
async fn answer(wake: &mut Wake) -> Result<(), crate::WakeError> {
    let Wake::Asked(flight, epoch) = wake else {
        return std::future::pending().await;
    };
    flight.await?;
    *wake = Wake::Accepted(*epoch);
    Ok(())
}

/// Waits until a time has passed, if there is one.
async fn passed(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => std::future::pending().await,
    }
}

/// What an attempt to connect came to.
pub(crate) type Dialled<L> = Result<L, (ConnectError, Arc<Endpoint>)>;

enum Dialling<L> {
    Idle,
    Attempt(BoxFuture<'static, Dialled<L>>),
    Pausing(Pin<Box<Sleep>>),
}

impl<L> Dialling<L> {
    /// The outcome of dialling; None when a pause has ended.
    async fn wait(&mut self) -> Option<Dialled<L>> {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Attempt(dialling) => {
                let dialled = dialling.await;
                *self = Self::Idle;
                Some(dialled)
            }
            Self::Pausing(pause) => {
                pause.await;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::FailedWake;
    use crate::route::tests::{target, target_at};
    use futures::poll;
    use tokio::sync::watch;

    struct Obedient;

    #[async_trait::async_trait]
    impl Waker for Obedient {
        async fn wake(&self, _target: &RouteTarget, _reason: &str) -> Result<(), crate::WakeError> {
            Ok(())
        }
    }

    /// What a gate borrows.
    struct Surroundings {
        config: DlxConfig,
        metrics: Arc<Metrics>,
        waker: Arc<dyn Waker>,
        drained: CancellationToken,
    }

    impl Surroundings {
        fn new() -> Self {
            Self {
                config: DlxConfig::default(),
                metrics: Arc::default(),
                waker: Arc::new(Obedient),
                drained: CancellationToken::new(),
            }
        }

        fn gate(&self) -> Gate<'_> {
            Gate {
                config: &self.config,
                readiness_timeout: self.config.readiness_timeout,
                waker: &self.waker,
                metrics: &self.metrics,
                drained: &self.drained,
            }
        }
    }

    #[tokio::test]
    async fn a_held_request_stays_small() {
        let (around, target) = (Surroundings::new(), target("app"));
        let size = size_of_val(&around.gate().pass(&target, Wire::H1, Instant::now(), None, None));
        assert!(size <= 800, "{size} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_from_before_may_still_fail_without_failing_a_new_request() {
        let failed = |why: &str, second| {
            Arc::new(EndpointsView {
                failure: Some(FailedWake {
                    cause: why.into(),
                    at: jiff::Timestamp::constant(second, 0),
                }),
                ..EndpointsView::default()
            })
        };
        let (views, endpoints) = watch::channel(failed("the first", 1));
        let (around, target) = (Surroundings::new(), target_at("app", endpoints));
        let gate = around.gate();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut held = pin!(gate.pass(&target, Wire::H1, deadline, None, None));
        assert!(poll!(&mut held).is_pending());
        views.send_replace(failed("the one that was under way", 2));
        assert!(poll!(&mut held).is_pending(), "that was somebody else's attempt");
        tokio::time::advance(OTHERS_ATTEMPT).await;
        assert!(poll!(&mut held).is_pending(), "its own is under way");
        views.send_replace(failed("its own", 3));
        match held.await {
            Err(Rescue::WakeFailed(cause)) => assert_eq!(cause, "its own"),
            other => panic!("{:?}", other.map(|_| "connected")),
        }
    }
}
