//! Where demand is written down: counts that live as long as their guards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dormouse_sleepers::{DemandEntry, DemandReport};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::admit::Usage;
use crate::arrivals::ArrivalLog;
use crate::copy::Activity;
use crate::log_limit::LogLimit;
use crate::wakes::Wakes;
use crate::{Metrics, lock};

/// Where demand is written down. One for each process: whatever routes lead to a Sleeper, its counts are the same.
#[derive(Clone, Debug)]
pub struct DemandCounters {
    states: Arc<Mutex<States>>,
    /// Connections to pods that may be opened.
    upstreams: Arc<Semaphore>,
}

impl Default for DemandCounters {
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

impl DemandCounters {
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
    arrivals: ArrivalLog,
    born: Instant,
    /// Milliseconds since `born` at which the last request ended.
    ended: AtomicU64,
    pub(crate) queue: Arc<Usage>,
    /// Connections to pods, of all resources, that may be opened.
    pub(crate) upstreams: Arc<Semaphore>,
    pub(crate) wakes: Mutex<Wakes>,
    open: Mutex<Open>,
    /// On lines about connections that could not be served: each client may try again at once.
    pub(crate) failures_logged: LogLimit,
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
            arrivals: ArrivalLog::default(),
            born: Instant::now(),
            ended: AtomicU64::new(0),
            queue: Arc::default(),
            wakes: Mutex::default(),
            open: Mutex::default(),
            failures_logged: LogLimit::default(),
        }
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
        let age = self.age();
        let quiet = age.saturating_sub(self.ended.load(Ordering::SeqCst).max(moved));
        (total > 0).then(|| DemandEntry {
            namespace: namespace.to_owned(),
            sleeper: sleeper.to_owned(),
            held,
            in_flight,
            upgraded,
            idle,
            total,
            idle_millis: Some(if held + in_flight + upgraded > 0 { 0 } else { quiet }),
            arrivals: self.arrivals.report(age),
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
        self.arrivals.note(self.age());
        let counted = Counted {
            state: Arc::clone(self),
            metrics: Arc::clone(metrics),
            stage,
            open: None,
        };
        counted.add(stage);
        counted
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
        let (demand_counters, metrics) = (DemandCounters::default(), Arc::new(Metrics::default()));
        let state = demand_counters.state("ns", "app");
        assert_eq!(
            demand_counters.report(),
            DemandReport::default(),
            "nobody ever asked"
        );
        let mut counted = state.enter(Stage::Held, &metrics);
        let report = |demand_counters: &DemandCounters| {
            let [only] = &demand_counters.report_of("ns", "app").sleepers[..] else {
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
        assert_eq!(report(&demand_counters), (1, 0, 0, 1, Some(0)));
        counted.advance(Stage::InFlight);
        assert_eq!(
            (report(&demand_counters), metrics.in_flight.get()),
            ((0, 1, 0, 1, Some(0)), 1)
        );
        counted.advance(Stage::Upgraded);
        assert_eq!(
            (report(&demand_counters), metrics.upgraded.get()),
            ((0, 0, 1, 1, Some(0)), 1)
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(counted);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(report(&demand_counters), (0, 0, 0, 1, Some(2000)));
        assert_eq!((metrics.in_flight.get(), metrics.upgraded.get()), (0, 0));
        drop(state);
        assert_eq!(
            demand_counters.report(),
            DemandReport::default(),
            "a resource that is gone is forgotten"
        );
    }

    #[test]
    fn a_report_of_one_names_no_other_and_what_is_gone_is_forgotten_in_time() {
        let (demand_counters, metrics) = (DemandCounters::default(), Arc::new(Metrics::default()));
        let held: Vec<_> = (0..100)
            .map(|n| demand_counters.state("ns", &format!("s{n}")))
            .collect();
        let _asked = held[7].enter(Stage::Held, &metrics);
        let _asked_too = held[8].enter(Stage::Held, &metrics);
        let named = |report: DemandReport| {
            report
                .sleepers
                .into_iter()
                .map(|of| of.sleeper)
                .collect::<Vec<_>>()
        };
        assert_eq!(named(demand_counters.report()), ["s7", "s8"]);
        assert_eq!(named(demand_counters.report_of("ns", "s8")), ["s8"]);
        assert_eq!(
            demand_counters.report_of("ns", "s9"),
            DemandReport::default(),
            "nobody asked"
        );
        assert_eq!(demand_counters.report_of("other", "s8"), DemandReport::default());
        drop(held);
        for n in 0..1000 {
            drop(demand_counters.state("more", &format!("s{n}")));
        }
        let known = lock(&demand_counters.states).known.len();
        assert!(known <= 300, "{known} are remembered, and 2 are held");
    }
}
