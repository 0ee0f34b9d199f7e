//! What is kept between two decisions is enough: each is the one that would have been made with everything kept.

use std::sync::Arc;

use dormouse_model::{
    Behavior, Metric, MetricsPolicy, Policy, PolicyKind, QuerySource, ScalingPolicy, ScalingRules, Target,
};
use dormouse_scaling::hpa::{
    Autoscaler, Conditions, History, MetricReading, Observed, ObservedScale, Settings, reconcile,
};
use dormouse_scaling::{Desired, ScaleSeen, ScalingHistory, Seen, recommend};
use jiff::{SignedDuration, Timestamp};
use proptest::option;
use proptest::prelude::*;

use crate::fixture::{self, backlog, now};

fn target(policy: MetricsPolicy) -> Target {
    Target {
        policy: Policy::Metrics(Arc::new(policy)),
        ..fixture::target()
    }
}

fn policy(behavior: Option<Behavior>) -> MetricsPolicy {
    MetricsPolicy {
        min_replicas: 1,
        max_replicas: 40,
        metrics: vec![Metric {
            spec: backlog("10"),
            source: QuerySource::External,
            query: Err("not asked here".into()),
        }],
        behavior,
    }
}

/// One round as the line makes it. What is remembered went through JSON.
fn round(
    target: &Target,
    current: i32,
    backlog_is: i64,
    history: &ScalingHistory,
    now: Timestamp,
) -> (i32, ScalingHistory) {
    let text = serde_json::to_string(history).unwrap();
    let history: ScalingHistory = serde_json::from_str(&text).unwrap();
    let values = [backlog_is * 1000];
    let readings = [MetricReading::Values(&values)];
    let metrics = [backlog("10")];
    let settings = Settings::default();
    let seen = ScaleSeen {
        scale: scale(current),
        pods: &[],
        metrics: &metrics,
        readings: &readings,
        history: &history,
        last_scale: None,
        settings: &settings,
    };
    let recommended = recommend(target, &Seen::of_scale(seen, now));
    let scaled = recommended.scaled.unwrap();
    let replicas = scaled.decision.replicas.unwrap();
    let desired = if replicas == current {
        Desired::Hold
    } else {
        Desired::Exactly(replicas)
    };
    assert_eq!(recommended.desired, desired);
    (replicas, scaled.history)
}

fn scale(replicas: i32) -> ObservedScale {
    ObservedScale {
        spec_replicas: replicas,
        status_replicas: replicas,
        has_selector: true,
    }
}

/// Windows and policies of one direction. All policies have one period: where the periods of the two directions differ, Kubernetes forgets
/// changes that the longer one still counts, and this does not.
fn rules() -> impl Strategy<Value = ScalingRules> {
    let window = option::of(prop::sample::select(vec![0, 30, 60, 300, 900]));
    let kind = prop::sample::select(vec![PolicyKind::Pods, PolicyKind::Percent]);
    let policies = prop::collection::vec((kind, 1..200), 1..3);
    (window, policies).prop_map(|(stabilization_window_seconds, policies)| ScalingRules {
        stabilization_window_seconds,
        policies: policies
            .into_iter()
            .map(|(kind, value)| ScalingPolicy {
                kind,
                value,
                period_seconds: 60,
            })
            .collect(),
        ..ScalingRules::default()
    })
}

fn behavior() -> impl Strategy<Value = Behavior> {
    (rules(), rules()).prop_map(|(up, down)| Behavior {
        scale_up: Some(up),
        scale_down: Some(down),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_remembered_decides_as_everything_would(
        behavior in option::of(behavior()),
        steps in prop::collection::vec((1_i64..90, 0_i64..500), 1..60),
    ) {
        let metrics = [backlog("10")];
        let autoscaler = Autoscaler {
            min_replicas: Some(1),
            max_replicas: 40,
            metrics: &metrics,
            behavior: behavior.as_ref(),
        };
        let target = target(policy(behavior.clone()));
        let (mut everything, mut remembered) = (History::default(), ScalingHistory::default());
        let (mut current, mut at) = (5, now());
        for (pause, backlog_is) in steps {
            at += SignedDuration::from_secs(pause);
            let values = [backlog_is * 1000];
            let readings = [MetricReading::Values(&values)];
            let observed = Observed {
                scale: scale(current),
                pods: &[],
                readings: &readings,
                conditions: &Conditions::default(),
                desired_replicas: current,
                now: at,
            };
            let whole = reconcile(&autoscaler, &Settings::default(), &observed, everything);
            let (replicas, history) = round(&target, current, backlog_is, &remembered, at);
            prop_assert_eq!(whole.decision.replicas, Some(replicas), "{}", whole.decision);
            (everything, remembered, current) = (whole.history, history, replicas);
        }
    }

    /// Whoever takes over never removes replicas that the one before would have kept.
    #[test]
    fn a_successor_is_not_hastier(
        behavior in option::of(behavior()),
        steps in prop::collection::vec((1_i64..90, 0_i64..500), 2..40),
        handover in 1_usize..40,
    ) {
        let target = target(policy(behavior));
        let mut known = ScalingHistory::default();
        let mut written = ScalingHistory::default();
        let (mut current, mut at) = (5, now());
        for (step, (pause, backlog_is)) in steps.into_iter().enumerate() {
            at += SignedDuration::from_secs(pause);
            if step == handover {
                let (successor, _) = round(&target, current, backlog_is, &written.clone().resumed(current, at), at);
                let (lived, _) = round(&target, current, backlog_is, &known, at);
                prop_assert!(successor <= lived.max(current), "more than anybody asked for: {successor}, {lived} of {current}: {written:?}");
                if lived <= current {
                    prop_assert!(successor >= lived, "{successor} instead of {lived} of {current}: {written:?}, {known:?}");
                }
                return Ok(());
            }
            let (replicas, history) = round(&target, current, backlog_is, &known, at);
            if !history.is_same(&written) {
                written = history.clone();
            }
            (known, current) = (history, replicas);
        }
    }
}

/// A load that goes up and down for a day leaves no long trace.
#[test]
fn what_is_remembered_stays_small() {
    let window = ScalingRules {
        stabilization_window_seconds: Some(3600),
        ..ScalingRules::default()
    };
    let target = target(policy(Some(Behavior {
        scale_up: Some(window.clone()),
        scale_down: Some(window),
    })));
    let mut history = ScalingHistory::default();
    let (mut current, mut at) = (5, now());
    for step in 0..5760_i64 {
        at += SignedDuration::from_secs(15);
        let backlog_is = (step * 7919) % 400;
        (current, history) = round(&target, current, backlog_is, &history, at);
        let size = serde_json::to_string(&history).unwrap().len();
        assert!(size < 6_000, "{size} bytes after {step} steps: {history:?}");
    }
}
