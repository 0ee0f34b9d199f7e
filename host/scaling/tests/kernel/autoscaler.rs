//! What the decisions of an autoscaler say, in words and as data.

use dormouse_model::{Behavior, MetricSpec, Quantity, ScaleEventKind};
use dormouse_scaling::hpa::{
    Autoscaler, ComputeError, Condition, ConditionStatus, Conditions, ContainerUsage, History, MetricError,
    MetricReading, Observed, ObservedScale, PodSample, Readiness, ReplicaCalculator, Settings, Tolerances,
    default_metrics, reconcile,
};
use dormouse_scaling::{
    Activity, Comparison, Decision, Input, KeepReason, Limit, LimitKind, Proposed, Rule, Sample,
    ScaleDecision,
};
use rstest::rstest;

use crate::anything::ready_pods;
use crate::fixture::{MINUTE, backlog, now, round};

fn behavior(json: &str) -> Behavior {
    serde_json::from_str(json).unwrap()
}

#[rstest]
#[case::as_asked(
    2, &[15_000], None,
    "scale from 2 to 3: external metric backlog is 7500m, target 5 per pod, proposes 3"
)]
#[case::by_the_rate_without_behavior(
    2, &[50_000], None,
    "scale from 2 to 4: external metric backlog is 25, target 5 per pod, proposes 10; \
     limited from 10 to 4 by the scale-up policies"
)]
#[case::by_the_maximum(
    4, &[50_000], None,
    "scale from 4 to 8: external metric backlog is 12500m, target 5 per pod, proposes 10; \
     limited from 10 to 8 by the maximum of replicas"
)]
#[case::by_the_window_that_begins_with_the_current_number(
    4, &[5_000], None,
    "stay at 4: external metric backlog is 1250m, target 5 per pod, proposes 1; \
     limited from 1 to 4 by the stabilization window for scaling down"
)]
#[case::by_the_minimum(
    4, &[0], Some(r#"{"scaleDown":{"stabilizationWindowSeconds":0}}"#),
    "scale from 4 to 2: external metric backlog is 0, target 5 per pod, proposes 0; \
     limited from 0 to 2 by the minimum of replicas"
)]
#[case::by_a_policy(
    8, &[0], Some(r#"{"scaleDown":{"stabilizationWindowSeconds":0,"policies":[{"type":"Pods","value":1,"periodSeconds":60}]}}"#),
    "scale from 8 to 7: external metric backlog is 0, target 5 per pod, proposes 0; \
     limited from 0 to 7 by the scale-down policies"
)]
#[case::by_the_tolerance(
    4, &[21_000], None,
    "stay at 4: external metric backlog is 5250m, target 5 per pod, proposes 4; held at 4 by the tolerance"
)]
#[case::above_the_maximum(
    9, &[0], None,
    "scale from 9 to 8: limited from 9 to 8 by the maximum of replicas"
)]
#[case::disabled(
    0, &[50_000], None,
    "stay at 0: held at 0 by scaling being disabled at zero replicas"
)]
fn a_decision_says_what_it_follows_from(
    #[case] current: i32,
    #[case] values: &[i64],
    #[case] declared: Option<&str>,
    #[case] text: &str,
) {
    let declared = declared.map(behavior);
    let metrics = [backlog("5")];
    let reading = [MetricReading::Values(values)];
    let round = round((2, 8), declared.as_ref(), current, &metrics, &reading);
    assert_eq!(round.decision.to_string(), text);
}

#[test]
fn a_metric_that_fails_holds_what_the_others_would_lower() {
    let metrics = [backlog("5"), backlog("10")];
    let readings = [
        MetricReading::Values(&[5_000]),
        MetricReading::Unavailable("refused"),
    ];
    let round = round((1, 10), None, 4, &metrics, &readings);
    assert_eq!(round.decision.replicas, None);
    assert_eq!(
        round.decision.limits,
        [Limit {
            kind: LimitKind::FailedMetric,
            from: 1,
            to: 4
        }]
    );
    assert_eq!(round.decision.inputs[1].proposes, Proposed::Unknown);
    assert_eq!(
        round.error(),
        Some(&ComputeError::InvalidMetrics {
            invalid: 1,
            total: 2,
            first: MetricError::MetricsUnavailable("refused".into()),
        })
    );
    let active = round.conditions.scaling_active.unwrap();
    assert_eq!(
        (active.status, &*active.reason),
        (ConditionStatus::False, "FailedGetExternalMetric")
    );
}

/// A target can only come back from zero by a metric that is known without pods, so only then the condition says that it may.
#[rstest]
#[case::by_an_external_metric(backlog("5"), 0, "ScaledToZero")]
#[case::by_what_the_pods_use(default_metrics().remove(0), 0, "NotScaledToZero")]
#[case::although_it_should_have_one(backlog("5"), 1, "NotScaledToZero")]
fn scaled_to_zero_is_what_can_come_back(#[case] metric: MetricSpec, #[case] min: i32, #[case] reason: &str) {
    let at_once = behavior(r#"{"scaleDown":{"stabilizationWindowSeconds":0}}"#);
    let pods = ready_pods(3);
    let idle = pods.iter().map(|pod| PodSample {
        pod: pod.name.clone(),
        timestamp: now(),
        window: MINUTE,
        containers: vec![ContainerUsage {
            name: "main".into(),
            usage: [("cpu".to_owned(), Quantity::ZERO)].into(),
        }],
    });
    let idle: Vec<_> = idle.collect();
    let reading = match metric {
        MetricSpec::External { .. } => MetricReading::Values(&[0]),
        _ => MetricReading::Usage(&idle),
    };
    let autoscaler = Autoscaler {
        min_replicas: Some(min),
        max_replicas: 10,
        metrics: &[metric],
        behavior: Some(&at_once),
    };
    let observed = Observed {
        scale: ObservedScale {
            spec_replicas: 3,
            status_replicas: 3,
            has_selector: true,
        },
        pods: &pods,
        readings: &[reading],
        conditions: &Conditions::default(),
        desired_replicas: 3,
        now: now(),
    };
    let round = reconcile(&autoscaler, &Settings::default(), &observed, History::default());
    assert_eq!(round.decision.replicas, Some(min), "{}", round.decision);
    assert_eq!(round.conditions.scaled_to_zero.unwrap().reason, reason);
}

/// The condition is left from before somebody else has scaled the target up.
#[test]
fn having_been_at_zero_does_not_suspend_the_bounds() {
    let conditions = Conditions {
        scaled_to_zero: Some(Condition::new(true, "ScaledToZero", "")),
        ..Conditions::default()
    };
    let autoscaler = Autoscaler {
        min_replicas: Some(0),
        max_replicas: 10,
        metrics: &[backlog("5")],
        behavior: None,
    };
    let observed = Observed {
        scale: ObservedScale {
            spec_replicas: 30,
            status_replicas: 30,
            has_selector: true,
        },
        pods: &[],
        readings: &[MetricReading::Values(&[500_000])],
        conditions: &conditions,
        desired_replicas: 30,
        now: now(),
    };
    let round = reconcile(&autoscaler, &Settings::default(), &observed, History::default());
    assert_eq!((round.decision.replicas, round.computation), (Some(10), None));
}

#[test]
fn a_metric_without_a_reading_is_one_that_failed() {
    let metrics = [backlog("5"), backlog("10")];
    let round = round((1, 10), None, 2, &metrics, &[MetricReading::Values(&[50_000])]);
    assert_eq!(round.decision.replicas, Some(4));
    assert!(round.error().is_some());
}

#[test]
fn a_reading_of_another_kind_is_an_error() {
    let metrics = [backlog("5")];
    let round = round((1, 10), None, 2, &metrics, &[MetricReading::Value(50_000)]);
    let computation = round.computation.unwrap();
    assert_eq!(computation.proposals, [Err(MetricError::UnexpectedReading)]);
}

#[rstest]
#[case(r#"{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"Utilization","averageUtilization":50}}}"#)]
#[case(r#"{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"Value","value":"0"}}}"#)]
#[case(r#"{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"AverageValue","averageValue":"-1"}}}"#)]
fn a_target_that_cannot_be_is_an_error(#[case] metric: &str) {
    let metrics: [MetricSpec; 1] = [serde_json::from_str(metric).unwrap()];
    let round = round((1, 10), None, 2, &metrics, &[MetricReading::Values(&[50_000])]);
    assert_eq!(round.decision.replicas, None);
    let computation = round.computation.unwrap();
    assert!(matches!(
        computation.proposals[..],
        [Err(MetricError::InvalidTarget | MetricError::UnsupportedTarget(_))]
    ));
}

#[test]
fn the_target_and_the_value_of_a_metric_must_belong_together() {
    let wrong = r#"{"type":"Value","averageValue":"5"}"#;
    let error = serde_json::from_str::<dormouse_model::MetricTarget>(wrong).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a metric target of type Value needs value"),
        "{error}"
    );
}

#[test]
fn a_tolerance_that_is_not_a_number_is_never_kept() {
    let calculator = |tolerance| ReplicaCalculator {
        pods: &[],
        tolerances: Tolerances::both(tolerance),
        readiness: Readiness {
            cpu_initialization_period: MINUTE,
            initial_readiness_delay: MINUTE,
            now: now(),
        },
    };
    let exact = |tolerance| calculator(tolerance).object_average(3, 1_000, 3_000).unwrap();
    assert_eq!((exact(f64::NAN).replicas, exact(f64::INFINITY).replicas), (3, 3));
    let off = |tolerance| calculator(tolerance).object_average(3, 1_000, 3_001).unwrap();
    assert_eq!((off(f64::NAN).replicas, off(f64::INFINITY).replicas), (4, 3));
}

#[test]
fn idle_rules_are_one_more_way_not_to_be_active() {
    let input = |value: u64| Input {
        rule: Rule {
            metric: "requests".into(),
            window: 10 * MINUTE,
            threshold: 5.into(),
        },
        sample: Sample::Value(value.into()),
        observed: false,
        changes_at: None,
    };
    let idle = ScaleDecision::of_idle(
        &Decision::Idle {
            inputs: vec![input(3)],
        },
        4,
    );
    assert_eq!((idle.replicas, idle.activity), (Some(0), Activity::Inactive));
    assert_eq!(idle.inputs[0].compared_with, Comparison::Threshold(5.into()));
    assert_eq!(
        idle.to_string(),
        "scale from 4 to 0: requests over 10m is 3, threshold 5, inactive"
    );
    let in_use = KeepReason::InUse {
        rule: input(7).rule,
        value: 7.into(),
    };
    let in_use = Decision::Keep(in_use);
    let up = ScaleDecision::of_idle(&in_use, 4);
    assert_eq!((up.replicas, up.activity), (Some(4), Activity::Active));
    assert_eq!(
        up.to_string(),
        "stay at 4: requests over 10m is 7, threshold 5, active"
    );
    assert_eq!(ScaleDecision::of_idle(&in_use, 0).replicas, Some(1));
    let failed = KeepReason::Error {
        rule: input(7).rule,
        error: "refused".into(),
    };
    let failed = ScaleDecision::of_idle(&Decision::Keep(failed), 4);
    assert_eq!((failed.replicas, failed.activity), (None, Activity::Unknown));
    let woken = KeepReason::UndatedEvent {
        event: ScaleEventKind::ScaleFromZeroStarted,
    };
    let woken = ScaleDecision::of_idle(&Decision::Keep(woken), 4);
    assert_eq!(woken.to_string(), "hold at 4: held at 4 by the cooldown");
}
