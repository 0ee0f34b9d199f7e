//! Who needs what: counts that live as long as their guards, and one wake for all that wait.
//!
//! A wake is a future that is shared by everybody who waits for it, and only by them. It runs while at least one of them
//! polls it; when the last one leaves, it is dropped and nothing is left. One whose success was seen before its answer came
//! is let come to its end by itself. What fails for now only is tried again within the wake. Its failure goes to those who
//! wait at that moment and to nobody else: the next request tries again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_sleepers::{DemandEntry, DemandReport};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::admit::Usage;
use crate::splice::Activity;
use crate::{Metrics, Target, lock};

/// First back-off after a failed wake; doubles with each failure in a row.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest back-off after a failed wake.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long an accepted wake stands in for another one of the same epoch: as long as the news of it may take to come
/// round through the API server.
const ACCEPTED_FOR: Duration = Duration::from_secs(1);
/// How often at most the log tells of connections to one resource that could not be served: each client may try again at once.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Why a wake did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WakeError {
    /// It was refused or failed. The text is shown to clients: no secrets.
    #[error("{0}")]
    Failed(String),
    /// It failed for now, as when the API server does not answer: it is tried again for as long as requests may be held.
    #[error("{0}")]
    Transient(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// Wakes resources.
#[async_trait]
pub trait Waker: Send + Sync + 'static {
    /// Asks for the target's resource to be awake. `Ok` means that the wish was accepted: from then on a request may go to
    /// any endpoint that the target's view lists. May be dropped at any await, and may be asked again at any time.
    async fn wake(&self, target: &Target, reason: &str) -> Result<(), WakeError>;
}

/// Where demand is written down. One for each process: whatever routes lead to a Sleeper, its counts are the same.
#[derive(Clone, Debug)]
pub struct Ledger {
    states: Arc<Mutex<States>>,
    /// Connections to pods that may be opened.
    upstreams: Arc<Semaphore>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }
}

#[derive(Debug, Default)]
struct States {
    /// By namespace and name of the Sleeper.
    known: HashMap<(String, String), Weak<ResourceState>>,
    /// At so many, those that nobody holds any more are looked for. Doing that for each new one would make a start with many
    /// Sleepers quadratic.
    sweep_at: usize,
}

impl States {
    /// No more than twice as many as are held, and some.
    const UNSWEPT: usize = 64;

    fn insert(&mut self, key: (String, String), state: &Arc<ResourceState>) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, state| state.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(Self::UNSWEPT);
        }
        self.known.insert(key, Arc::downgrade(state));
    }
}

impl Ledger {
    /// One whose targets have this many connections to their pods in all.
    pub(crate) fn new(upstreams: usize) -> Self {
        Self {
            states: Arc::default(),
            upstreams: Arc::new(Semaphore::new(upstreams)),
        }
    }

    /// The state of a Sleeper; lives as long as somebody holds it.
    pub(crate) fn state(&self, namespace: &str, sleeper: &str) -> Arc<ResourceState> {
        let mut states = lock(&self.states);
        let key = (namespace.to_owned(), sleeper.to_owned());
        if let Some(state) = states.known.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        let state = Arc::new(ResourceState::new(Arc::clone(&self.upstreams)));
        states.insert(key, &state);
        state
    }

    /// Who needs what right now, and who did.
    pub fn report(&self) -> DemandReport {
        let mut sleepers: Vec<_> = lock(&self.states)
            .known
            .iter()
            .filter_map(|((namespace, sleeper), state)| state.upgrade()?.report(namespace, sleeper))
            .collect();
        sleepers.sort_by(|a, b| (&a.namespace, &a.sleeper).cmp(&(&b.namespace, &b.sleeper)));
        DemandReport { sleepers }
    }

    /// The same of a single Sleeper.
    pub fn report_of(&self, namespace: &str, sleeper: &str) -> DemandReport {
        let key = (namespace.to_owned(), sleeper.to_owned());
        let state = lock(&self.states).known.get(&key).and_then(Weak::upgrade);
        DemandReport {
            sleepers: state
                .and_then(|state| state.report(namespace, sleeper))
                .into_iter()
                .collect(),
        }
    }
}

/// What a request is doing, as far as demand is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Held,
    InFlight,
    Upgraded,
}

/// What all targets of one Sleeper share.
#[derive(Debug)]
pub(crate) struct ResourceState {
    counts: [AtomicU64; 3],
    total: AtomicU64,
    born: Instant,
    /// Milliseconds since `born` at which the last request ended.
    ended: AtomicU64,
    pub(crate) queue: Usage,
    /// Connections to pods, of all resources, that may be opened.
    pub(crate) upstreams: Arc<Semaphore>,
    wakes: Mutex<Wakes>,
    open: Mutex<Open>,
    /// When the log last told of connections that could not be served, and how many it has not told of since.
    complained: Mutex<(Option<Instant>, u64)>,
}

/// Connections whose demand depends on when bytes last moved.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
}

impl ResourceState {
    fn new(upstreams: Arc<Semaphore>) -> Self {
        Self {
            upstreams,
            counts: Default::default(),
            total: AtomicU64::new(0),
            born: Instant::now(),
            ended: AtomicU64::new(0),
            queue: Usage::default(),
            wakes: Mutex::default(),
            open: Mutex::default(),
            complained: Mutex::default(),
        }
    }

    /// Whether the log may tell of one more failure, and of how many it has not told since the last one.
    pub(crate) fn may_complain(&self) -> Option<u64> {
        let mut complained = lock(&self.complained);
        if complained.0.is_some_and(|at| at.elapsed() < COMPLAINTS) {
            complained.1 += 1;
            return None;
        }
        complained.0 = Some(Instant::now());
        Some(std::mem::take(&mut complained.1))
    }

    /// Open connections without demand, and when bytes last moved on any that is open.
    fn idle(&self) -> (u64, u64) {
        let open = lock(&self.open);
        open.connections
            .values()
            .fold((0, 0), |(idle, last), connection| {
                let moved = self.at(connection.last());
                (idle + u64::from(!connection.counts()), last.max(moved))
            })
    }

    fn age(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Milliseconds from the begin of counting to a moment.
    fn at(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.born);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn report(&self, namespace: &str, sleeper: &str) -> Option<DemandEntry> {
        let [held, in_flight, open] = self.counts();
        let total = self.total.load(Ordering::SeqCst);
        let (idle, moved) = self.idle();
        let upgraded = open.saturating_sub(idle);
        let quiet = self
            .age()
            .saturating_sub(self.ended.load(Ordering::SeqCst).max(moved));
        (total > 0).then(|| DemandEntry {
            namespace: namespace.to_owned(),
            sleeper: sleeper.to_owned(),
            held,
            in_flight,
            upgraded,
            idle,
            total,
            idle_millis: Some(if held + in_flight + upgraded > 0 { 0 } else { quiet }),
        })
    }

    /// Held, in flight, upgraded.
    pub(crate) fn counts(&self) -> [u64; 3] {
        // In the order in which a request moves on, so that one that moves in between is seen twice rather than not at all.
        std::array::from_fn(|stage| self.counts[stage].load(Ordering::SeqCst))
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, stage: Stage, metrics: &Arc<Metrics>) -> Counted {
        self.total.fetch_add(1, Ordering::SeqCst);
        let counted = Counted {
            state: Arc::clone(self),
            metrics: Arc::clone(metrics),
            stage,
            open: None,
        };
        counted.add(stage);
        counted
    }

    /// Joins the wake that is under way, or begins one. None: one for this epoch was accepted a moment ago.
    pub(crate) fn wake(
        self: &Arc<Self>,
        target: &Arc<Target>,
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
    pub(crate) fn wake_aside(
        self: &Arc<Self>,
        target: &Arc<Target>,
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
    pub(crate) fn land_aside(&self) {
        let mut wakes = lock(&self.wakes);
        if let Some(flight) = wakes.under_way() {
            tokio::spawn(flight);
        }
        wakes.flight = None;
    }

    fn begin(
        self: &Arc<Self>,
        wakes: &mut Wakes,
        target: &Arc<Target>,
        epoch: i64,
        waker: &Arc<dyn Waker>,
        timeout: Duration,
        metrics: &Arc<Metrics>,
    ) -> Option<Flight> {
        if let Some((accepted, at)) = wakes.accepted
            && accepted == epoch
            && at.elapsed() < ACCEPTED_FOR
            && wakes.failures == 0
        {
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
    target: &Target,
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

/// How long the plugin is left alone after that many failures in a row and one more.
fn backoff(failures: u32) -> Duration {
    crate::backoff::pause(failures, FIRST_BACKOFF, LONGEST_BACKOFF)
}

/// A wake that is under way, shared by all who wait for it.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<(), WakeError>>>;

#[derive(Default)]
struct Wakes {
    /// The wake that is under way, as long as anybody waits for it.
    flight: Option<WeakShared<BoxFuture<'static, Result<(), WakeError>>>>,
    /// Epoch that the last accepted wake started from, and when. An accepted wake raises the epoch, so a later sleep
    /// is never mistaken for this one.
    accepted: Option<(i64, Instant)>,
    /// Failures in a row.
    failures: u32,
    /// The plugin is left alone until then.
    not_before: Option<Instant>,
}

impl Wakes {
    fn under_way(&self) -> Option<Flight> {
        self.flight
            .as_ref()
            .and_then(WeakShared::upgrade)
            .filter(|flight| flight.peek().is_none())
    }

    fn landed(&mut self, epoch: i64, ok: bool) {
        if ok {
            self.accepted = Some((epoch, Instant::now()));
            self.failures = 0;
            self.not_before = None;
        } else {
            self.accepted = None;
            self.not_before = Some(Instant::now() + backoff(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakes")
            .field("accepted", &self.accepted)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// A request that is counted, in the report and in the metrics.
#[derive(Debug)]
pub(crate) struct Counted {
    state: Arc<ResourceState>,
    metrics: Arc<Metrics>,
    stage: Stage,
    open: Option<(u64, Arc<Activity>)>,
}

impl Counted {
    /// Goes on as a connection that is copied byte for byte, and is demand for as long after each byte as is said.
    pub(crate) fn open(&mut self, counts_for: Duration) -> Arc<Activity> {
        let activity = Activity::new(counts_for);
        {
            let mut open = lock(&self.state.open);
            let id = open.next;
            open.next += 1;
            open.connections.insert(id, Arc::clone(&activity));
            self.open = Some((id, Arc::clone(&activity)));
        }
        self.advance(Stage::Upgraded);
        activity
    }

    /// Moves on to another stage, without a moment in which the request is not counted.
    pub(crate) fn advance(&mut self, stage: Stage) {
        self.add(stage);
        self.remove();
        self.stage = stage;
    }

    fn add(&self, stage: Stage) {
        self.state.counts[stage as usize].fetch_add(1, Ordering::SeqCst);
        if let Some(gauge) = self.gauge(stage) {
            gauge.inc();
        }
    }

    fn remove(&self) {
        self.state.counts[self.stage as usize].fetch_sub(1, Ordering::SeqCst);
        if let Some(gauge) = self.gauge(self.stage) {
            gauge.dec();
        }
    }

    /// Held requests are shown by their places in the queue.
    fn gauge(&self, stage: Stage) -> Option<&prometheus_client::metrics::gauge::Gauge> {
        match stage {
            Stage::Held => None,
            Stage::InFlight => Some(&self.metrics.in_flight),
            Stage::Upgraded => Some(&self.metrics.upgraded),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let ended = match self.open.take() {
            None => self.state.age(),
            Some((id, activity)) => {
                lock(&self.state.open).connections.remove(&id);
                self.state.at(activity.last())
            }
        };
        self.state.ended.fetch_max(ended, Ordering::SeqCst);
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn demand_is_counted_while_it_lasts_and_remembered_afterwards() {
        let (ledger, metrics) = (Ledger::default(), Arc::new(Metrics::default()));
        let state = ledger.state("ns", "app");
        assert_eq!(ledger.report(), DemandReport::default(), "nobody ever asked");
        let mut counted = state.enter(Stage::Held, &metrics);
        let report = |ledger: &Ledger| {
            let [only] = &ledger.report_of("ns", "app").sleepers[..] else {
                panic!("one")
            };
            (
                only.held,
                only.in_flight,
                only.upgraded,
                only.total,
                only.idle_millis,
            )
        };
        assert_eq!(report(&ledger), (1, 0, 0, 1, Some(0)));
        counted.advance(Stage::InFlight);
        assert_eq!(
            (report(&ledger), metrics.in_flight.get()),
            ((0, 1, 0, 1, Some(0)), 1)
        );
        counted.advance(Stage::Upgraded);
        assert_eq!(
            (report(&ledger), metrics.upgraded.get()),
            ((0, 0, 1, 1, Some(0)), 1)
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(counted);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(report(&ledger), (0, 0, 0, 1, Some(2000)));
        assert_eq!((metrics.in_flight.get(), metrics.upgraded.get()), (0, 0));
        drop(state);
        assert_eq!(
            ledger.report(),
            DemandReport::default(),
            "a resource that is gone is forgotten"
        );
    }

    #[test]
    fn a_report_of_one_names_no_other_and_what_is_gone_is_forgotten_in_time() {
        let (ledger, metrics) = (Ledger::default(), Arc::new(Metrics::default()));
        let held: Vec<_> = (0..100).map(|n| ledger.state("ns", &format!("s{n}"))).collect();
        let _asked = held[7].enter(Stage::Held, &metrics);
        let _asked_too = held[8].enter(Stage::Held, &metrics);
        let named = |report: DemandReport| {
            report
                .sleepers
                .into_iter()
                .map(|of| of.sleeper)
                .collect::<Vec<_>>()
        };
        assert_eq!(named(ledger.report()), ["s7", "s8"]);
        assert_eq!(named(ledger.report_of("ns", "s8")), ["s8"]);
        assert_eq!(
            ledger.report_of("ns", "s9"),
            DemandReport::default(),
            "nobody asked"
        );
        assert_eq!(ledger.report_of("other", "s8"), DemandReport::default());
        drop(held);
        for n in 0..1000 {
            drop(ledger.state("more", &format!("s{n}")));
        }
        let known = lock(&ledger.states).known.len();
        assert!(known <= 300, "{known} are remembered, and 2 are held");
    }

    /// Answers a moment after it was asked.
    struct Slow;

    #[async_trait]
    impl Waker for Slow {
        async fn wake(&self, _target: &Target, _reason: &str) -> Result<(), WakeError> {
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
                target.state.land_aside();
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
        async fn wake(&self, _target: &Target, _reason: &str) -> Result<(), WakeError> {
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
