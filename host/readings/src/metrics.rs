//! What is counted about readings.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// What is counted about readings. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    duration: Family<SourceLabel, Histogram, fn() -> Histogram>,
    cached: Gauge,
}

/// From one millisecond to about four minutes.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-3, 4.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            duration: Family::new_with_constructor(histogram),
            cached: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("dormouse");
        registry.register_with_unit(
            "reading_duration",
            "How long a source takes to answer; an answer that serves many targets is counted once",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "readings_cached",
            "Answers that are kept for whoever asks next; at most 50000",
            metrics.cached.clone(),
        );
        metrics
    }

    pub(crate) fn took(&self, source: &'static str, took: Duration) {
        self.duration
            .get_or_create(&SourceLabel { source })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn cached(&self, answers: usize) {
        self.cached.set(i64::try_from(answers).unwrap_or(i64::MAX));
    }
}
