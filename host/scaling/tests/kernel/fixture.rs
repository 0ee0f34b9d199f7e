//! What the tests begin with.

use std::time::Duration;

use dormouse_model::{Behavior, MetricSpec};
use dormouse_scaling::hpa::{
    Autoscaler, Conditions, History, MetricReading, Observed, ObservedScale, Reconciliation, Settings,
    reconcile,
};
use jiff::{SignedDuration, Timestamp};

pub const MINUTE: Duration = Duration::from_secs(60);

pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub fn ago(span: Duration) -> Timestamp {
    now() - SignedDuration::try_from(span).unwrap()
}

/// An external metric with a target per pod.
pub fn backlog(target: &str) -> MetricSpec {
    serde_json::from_value(serde_json::json!({
        "type": "External",
        "external": {
            "metric": { "name": "backlog" },
            "target": { "type": "AverageValue", "averageValue": target },
        },
    }))
    .unwrap()
}

/// One round of an autoscaler with `current` replicas and readings of external metrics.
pub fn round(
    bounds: (i32, i32),
    behavior: Option<&Behavior>,
    current: i32,
    metrics: &[MetricSpec],
    readings: &[MetricReading<'_>],
) -> Reconciliation {
    let autoscaler = Autoscaler {
        min_replicas: Some(bounds.0),
        max_replicas: bounds.1,
        metrics,
        behavior,
    };
    let observed = Observed {
        scale: ObservedScale {
            spec_replicas: current,
            status_replicas: current,
            has_selector: true,
        },
        pods: &[],
        readings,
        conditions: &Conditions::default(),
        desired_replicas: current,
        now: now(),
    };
    reconcile(&autoscaler, &Settings::default(), &observed, History::default())
}
