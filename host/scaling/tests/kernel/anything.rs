//! Inputs of every kind, the ends of their types included.

use std::time::Duration;

use dormouse_model::{
    Behavior, MetricSpec, MetricTarget, PolicyKind, Quantity, ScalingPolicy, ScalingRules, SelectPolicy,
};
use dormouse_scaling::hpa::{
    ConditionStatus, Container, ContainerUsage, History, InitContainer, MetricReading, Pod, PodPhase,
    PodSample, PodValue, Readiness, ReadyCondition, ReplicaCalculator, ReplicaChange, Resources,
    TimedRecommendation, Tolerances,
};
use jiff::{SignedDuration, Timestamp};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fixture::now;

pub fn extreme_i32() -> impl Strategy<Value = i32> + Clone {
    prop_oneof![4 => -3..20_i32, 1 => any::<i32>(), 1 => select(vec![i32::MIN, i32::MAX, 0, 1])]
}

pub fn extreme_i64() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![4 => -3..20_000_i64, 1 => any::<i64>(), 1 => select(vec![i64::MIN, i64::MAX, 0, 1])]
}

pub fn moment() -> impl Strategy<Value = Timestamp> + Clone {
    prop_oneof![
        6 => (-700_000..1_000_i64).prop_map(|milliseconds| now() + SignedDuration::from_millis(milliseconds)),
        1 => select(vec![Timestamp::MIN, Timestamp::MAX]),
    ]
}

pub fn duration() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![4 => (0..600_u64).prop_map(Duration::from_secs), 1 => Just(Duration::MAX)]
}

pub fn tolerance() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![4 => Just(0.1), 1 => any::<f64>(), 1 => select(vec![f64::NAN, f64::INFINITY, -1.0])]
}

pub fn quantity() -> impl Strategy<Value = Quantity> + Clone {
    extreme_i64().prop_map(Quantity::from_millis)
}

pub fn resources() -> impl Strategy<Value = Resources> + Clone {
    let name = select(vec!["cpu".to_owned(), "memory".to_owned()]);
    proptest::collection::btree_map(name, quantity(), 0..3)
}

pub fn rules() -> impl Strategy<Value = ScalingRules> + Clone {
    let policy = (
        select(vec![PolicyKind::Pods, PolicyKind::Percent]),
        extreme_i32(),
        extreme_i32(),
    );
    let policy = policy.prop_map(|(kind, value, period_seconds)| ScalingPolicy {
        kind,
        value,
        period_seconds,
    });
    (
        option::of(extreme_i32()),
        option::of(select(vec![
            SelectPolicy::Max,
            SelectPolicy::Min,
            SelectPolicy::Disabled,
        ])),
        proptest::collection::vec(policy, 0..3),
        option::of(quantity()),
    )
        .prop_map(
            |(stabilization_window_seconds, select_policy, policies, tolerance)| ScalingRules {
                stabilization_window_seconds,
                select_policy,
                policies,
                tolerance,
            },
        )
}

pub fn behavior() -> impl Strategy<Value = Behavior> + Clone {
    (option::of(rules()), option::of(rules()))
        .prop_map(|(scale_up, scale_down)| Behavior { scale_up, scale_down })
}

pub fn history() -> impl Strategy<Value = History> + Clone {
    let recommendation =
        (moment(), extreme_i32()).prop_map(|(at, replicas)| TimedRecommendation { at, replicas });
    let change = (moment(), extreme_i32(), any::<bool>()).prop_map(|(at, change, outdated)| ReplicaChange {
        at,
        change,
        outdated,
    });
    let changes = proptest::collection::vec(change, 0..4);
    (
        proptest::collection::vec(recommendation, 0..4),
        changes.clone(),
        changes,
    )
        .prop_map(|(recommendations, scale_ups, scale_downs)| History {
            recommendations,
            scale_ups,
            scale_downs,
        })
}

pub fn status() -> impl Strategy<Value = ConditionStatus> + Clone {
    select(vec![
        ConditionStatus::True,
        ConditionStatus::False,
        ConditionStatus::Unknown,
    ])
}

pub fn name() -> impl Strategy<Value = String> + Clone {
    select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
}

pub fn container() -> impl Strategy<Value = Container> + Clone {
    (name(), resources(), resources()).prop_map(|(name, requests, limits)| Container {
        name,
        requests,
        limits,
    })
}

pub fn pod() -> impl Strategy<Value = Pod> + Clone {
    let phase = select(vec![
        PodPhase::Pending,
        PodPhase::Running,
        PodPhase::Running,
        PodPhase::Succeeded,
        PodPhase::Failed,
        PodPhase::Unknown,
    ]);
    let ready = (status(), moment()).prop_map(|(status, since)| ReadyCondition { status, since });
    let init =
        (container(), any::<bool>()).prop_map(|(container, sidecar)| InitContainer { container, sidecar });
    (
        (
            name(),
            phase,
            option::of(moment()),
            prop::bool::weighted(0.1),
            option::of(ready),
        ),
        proptest::collection::vec(container(), 0..3),
        proptest::collection::vec(init, 0..2),
        resources(),
        resources(),
    )
        .prop_map(
            |((name, phase, started, deleting, ready), containers, init_containers, requests, overhead)| {
                Pod {
                    name,
                    phase,
                    started,
                    deleting,
                    ready,
                    containers,
                    init_containers,
                    requests,
                    overhead,
                }
            },
        )
}

pub fn pod_sample() -> impl Strategy<Value = PodSample> + Clone {
    let usage = (name(), resources()).prop_map(|(name, usage)| ContainerUsage { name, usage });
    (
        name(),
        moment(),
        duration(),
        proptest::collection::vec(usage, 0..3),
    )
        .prop_map(|(pod, timestamp, window, containers)| PodSample {
            pod,
            timestamp,
            window,
            containers,
        })
}

pub fn target() -> impl Strategy<Value = MetricTarget> + Clone {
    prop_oneof![
        quantity().prop_map(MetricTarget::Value),
        quantity().prop_map(MetricTarget::AverageValue),
        extreme_i32().prop_map(MetricTarget::Utilization),
    ]
}

pub fn metric() -> impl Strategy<Value = MetricSpec> + Clone {
    (0..5_usize, target()).prop_map(|(kind, target)| {
        let target = serde_json::to_value(target).unwrap();
        let metric = serde_json::json!({ "name": "m" });
        let object = serde_json::json!({ "kind": "Ingress", "name": "main" });
        let spec = match kind {
            0 => serde_json::json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }),
            1 => serde_json::json!({
                "type": "ContainerResource",
                "containerResource": { "name": "memory", "container": "a", "target": target },
            }),
            2 => serde_json::json!({ "type": "Pods", "pods": { "metric": metric, "target": target } }),
            3 => serde_json::json!({
                "type": "Object",
                "object": { "describedObject": object, "metric": metric, "target": target },
            }),
            _ => {
                serde_json::json!({ "type": "External", "external": { "metric": metric, "target": target } })
            }
        };
        serde_json::from_value(spec).unwrap()
    })
}

/// What was read in a round, for every kind of metric.
#[derive(Clone, Debug)]
pub struct Readings {
    usage: Vec<PodSample>,
    per_pod: Vec<PodValue>,
    value: i64,
    values: Vec<i64>,
}

pub fn readings() -> impl Strategy<Value = Readings> + Clone {
    let per_pod = (name(), extreme_i64()).prop_map(|(pod, value)| PodValue { pod, value });
    (
        proptest::collection::vec(pod_sample(), 0..5),
        proptest::collection::vec(per_pod, 0..4),
        extreme_i64(),
        proptest::collection::vec(extreme_i64(), 0..4),
    )
        .prop_map(|(usage, per_pod, value, values)| Readings {
            usage,
            per_pod,
            value,
            values,
        })
}

impl Readings {
    pub fn of(&self, metric: &MetricSpec) -> MetricReading<'_> {
        match metric {
            MetricSpec::Resource { .. } | MetricSpec::ContainerResource { .. } => {
                MetricReading::Usage(&self.usage)
            }
            MetricSpec::Pods { .. } => MetricReading::PerPod(&self.per_pod),
            MetricSpec::Object { .. } => MetricReading::Value(self.value),
            MetricSpec::External { .. } => MetricReading::Values(&self.values),
        }
    }
}

/// Pods that have been ready for long, each with a request of one core.
pub fn ready_pods(count: i32) -> Vec<Pod> {
    let long_ago = now() - SignedDuration::from_hours(1);
    let pods = (0..count).map(|index| Pod {
        name: format!("p{index}"),
        phase: PodPhase::Running,
        started: Some(long_ago),
        deleting: false,
        ready: Some(ReadyCondition {
            status: ConditionStatus::True,
            since: long_ago,
        }),
        containers: vec![Container {
            name: "main".into(),
            requests: [("cpu".to_owned(), Quantity::from(1))].into(),
            ..Container::default()
        }],
        init_containers: Vec::new(),
        requests: Resources::new(),
        overhead: Resources::new(),
    });
    pods.collect()
}

pub fn calculator(pods: &[Pod]) -> ReplicaCalculator<'_> {
    ReplicaCalculator {
        pods,
        tolerances: Tolerances::both(0.1),
        readiness: Readiness {
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            now: now(),
        },
    }
}
