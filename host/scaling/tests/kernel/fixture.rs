//! What the tests begin with.

use std::time::Duration;

use dormouse_model::{
    Behavior, MetricSpec, ObjectRef, Owner, Policy, Routing, Scale, Target, TargetKey, TargetState,
};
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

/// A target that is awake, of which nothing else is said.
pub fn target() -> Target {
    Target {
        key: TargetKey {
            owner: Owner::plugin("workloads"),
            namespace: "shop".into(),
            name: "web".into(),
        },
        object: ObjectRef::default(),
        has_sleeper: true,
        state: TargetState::Awake,
        scale: Scale::Workloads(vec![]),
        wake_on: vec![],
        routing: Routing::First,
        triggers: vec![],
        policy: Policy::Idle,
        every: MINUTE,
        last_event: None,
        readiness_timeout: None,
        restore_replicas: None,
        wake_at: None,
        reason: None,
        cookie: None,
        problem: None,
    }
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
