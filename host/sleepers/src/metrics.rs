//! Metrics of this crate. All labels are bounded.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::Phase;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

type Label = [(&'static str, &'static str); 1];

/// Metrics of a [`crate::Cluster`]. Clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    sleeps: Counter,
    wakes: Counter,
    wake_failures: Counter,
    wake_duration: Histogram,
    phases: Family<Label, Gauge>,
    conflicts: Counter,
    errors: Family<Label, Counter>,
    observe_duration: Histogram,
    controller_waiting: Gauge,
    controller_running: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                sleeps: Counter::default(),
                wakes: Counter::default(),
                wake_failures: Counter::default(),
                // 10 ms to 82 s: from a warm image on a fast node to a model that loads for a minute.
                wake_duration: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
                phases: Family::default(),
                conflicts: Counter::default(),
                errors: Family::default(),
                // 0.5 ms to 4 s.
                observe_duration: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
                controller_waiting: Gauge::default(),
                controller_running: Gauge::default(),
            }),
        }
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dormouse");
        let m = &self.inner;
        registry.register("sleeps", "Resources put to sleep", m.sleeps.clone());
        registry.register("wakes", "Resources woken", m.wakes.clone());
        registry.register(
            "wake_failures",
            "Wakes that failed or took too long",
            m.wake_failures.clone(),
        );
        registry.register(
            "wake_duration_seconds",
            "From the request to wake until a ready pod accepts connections",
            m.wake_duration.clone(),
        );
        registry.register("sleepers", "Sleepers by phase", m.phases.clone());
        registry.register(
            "write_conflicts",
            "Conditional writes that lost",
            m.conflicts.clone(),
        );
        registry.register(
            "cluster_errors",
            "Rounds that ended with an error, by kind",
            m.errors.clone(),
        );
        registry.register(
            "observe_duration_seconds",
            "Gathering one observation",
            m.observe_duration.clone(),
        );
        registry.register(
            "driver_waiting",
            "Sleepers that wait for a free place in the driver",
            m.controller_waiting.clone(),
        );
        registry.register(
            "driver_running",
            "Sleepers that the driver is working on",
            m.controller_running.clone(),
        );
    }

    pub(crate) fn slept(&self) {
        self.inner.sleeps.inc();
    }

    pub(crate) fn woken(&self, took: Duration) {
        self.inner.wakes.inc();
        self.inner.wake_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn wake_failed(&self) {
        self.inner.wake_failures.inc();
    }

    pub(crate) fn phase_changed(&self, old: Option<Phase>, new: Option<Phase>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.inner
                .phases
                .get_or_create(&[("phase", phase_label(old))])
                .dec();
        }
        if let Some(new) = new {
            self.inner
                .phases
                .get_or_create(&[("phase", phase_label(new))])
                .inc();
        }
    }

    pub(crate) fn conflict(&self) {
        self.inner.conflicts.inc();
    }

    pub(crate) fn error(&self, label: &'static str) {
        self.inner.errors.get_or_create(&[("kind", label)]).inc();
    }

    pub(crate) fn observed(&self, took: Duration) {
        self.inner.observe_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn controller(&self, waiting: usize, running: usize) {
        self.inner
            .controller_waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.inner
            .controller_running
            .set(i64::try_from(running).unwrap_or(i64::MAX));
    }
}

/// The phase as it is written on Sleepers.
pub(crate) fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::Awake => "Awake",
        Phase::Diverting => "Diverting",
        Phase::Observing => "Observing",
        Phase::Draining => "Draining",
        Phase::Asleep => "Asleep",
        Phase::Waking => "Waking",
        Phase::Ready => "Ready",
    }
}
