//! What the autoscaler counts. Labels are owners, outcomes and codes: bounded by what is installed.

use std::time::Duration;

use dormouse_model::Owner;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OwnerLabel {
    owner: String,
    owner_kind: &'static str,
    /// Deprecated, read `owner`: what this label was called in the version before.
    plugin: String,
}

impl From<&Owner> for OwnerLabel {
    fn from(owner: &Owner) -> Self {
        // Objects are too many to count each by itself.
        let plugin = owner.as_plugin().unwrap_or_default().to_owned();
        Self {
            owner: plugin.clone(),
            owner_kind: owner.kind.as_str(),
            plugin,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    #[prometheus(flatten)]
    owner: OwnerLabel,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadingLabels {
    #[prometheus(flatten)]
    owner: OwnerLabel,
    source: &'static str,
    result: &'static str,
}

/// What the autoscaler counts. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    rounds: Family<OutcomeLabels, Counter>,
    duration: Family<OwnerLabel, Histogram, fn() -> Histogram>,
    targets: Family<OwnerLabel, Gauge>,
    decisions: Family<OutcomeLabels, Counter>,
    readings: Family<ReadingLabels, Counter>,
    lateness: Histogram,
    sleeps: Family<OutcomeLabels, Counter>,
    looks: Family<OutcomeLabels, Counter>,
    resizes: Family<OutcomeLabels, Counter>,
}

/// From one millisecond to about four minutes.
fn round_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-3, 4.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            rounds: Family::default(),
            duration: Family::new_with_constructor(round_histogram),
            targets: Family::default(),
            decisions: Family::default(),
            readings: Family::default(),
            lateness: round_histogram(),
            sleeps: Family::default(),
            looks: Family::default(),
            resizes: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("dormouse");
        registry.register(
            "autoscaler_rounds",
            "Listings of the targets of a source, by how they ended",
            metrics.rounds.clone(),
        );
        registry.register_with_unit(
            "autoscaler_round_duration",
            "How long it takes to list the targets of a source",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "autoscaler_targets",
            "Targets in the last listing",
            metrics.targets.clone(),
        );
        registry.register(
            "autoscaler_decisions",
            "Decisions, by outcome",
            metrics.decisions.clone(),
        );
        registry.register(
            "readings",
            "Readings of rules, by source and result (value, no-data or error)",
            metrics.readings.clone(),
        );
        registry.register_with_unit(
            "autoscaler_lateness",
            "How long a target that is due waits until it runs",
            Unit::Seconds,
            metrics.lateness.clone(),
        );
        registry.register(
            "autoscaler_sleeps_requested",
            "Resources that were asked to sleep, by what became of it",
            metrics.sleeps.clone(),
        );
        registry.register(
            "autoscaler_looks",
            "Times that the DLX was asked to step into traffic (begun) or out of it again (disturbed)",
            metrics.looks.clone(),
        );
        registry.register(
            "autoscaler_resizes",
            "Changes of the number of replicas between one and many, by direction (up or down)",
            metrics.resizes.clone(),
        );
        metrics
    }

    pub(crate) fn resized(&self, owner: &Owner, from: i32, to: i32) {
        let outcome = if to > from { "up" } else { "down" };
        self.resizes
            .get_or_create(&OutcomeLabels {
                owner: owner.into(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn round(&self, owner: &Owner, outcome: &'static str, took: Duration) {
        self.rounds
            .get_or_create(&OutcomeLabels {
                owner: owner.into(),
                outcome,
            })
            .inc();
        self.duration
            .get_or_create(&owner.into())
            .observe(took.as_secs_f64());
    }

    pub(crate) fn targets(&self, owner: &Owner, count: usize) {
        let label = OwnerLabel::from(owner);
        self.targets
            .get_or_create(&label)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn decision(&self, owner: &Owner, outcome: &'static str) {
        self.decisions
            .get_or_create(&OutcomeLabels {
                owner: owner.into(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn reading(&self, owner: &Owner, source: &'static str, result: &'static str) {
        self.readings
            .get_or_create(&ReadingLabels {
                owner: owner.into(),
                source,
                result,
            })
            .inc();
    }

    pub(crate) fn late(&self, by: Duration) {
        self.lateness.observe(by.as_secs_f64());
    }

    pub(crate) fn sleep(&self, owner: &Owner, outcome: &'static str) {
        self.sleeps
            .get_or_create(&OutcomeLabels {
                owner: owner.into(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn observation(&self, owner: &Owner, outcome: &'static str) {
        self.looks
            .get_or_create(&OutcomeLabels {
                owner: owner.into(),
                outcome,
            })
            .inc();
    }
}
