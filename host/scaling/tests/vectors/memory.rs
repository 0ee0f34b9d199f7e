//! MemHpa.

use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{MemoryPolicy, ObjectRef, Owner, Policy, Quantity, Target, TargetKey};
use dormouse_scaling::hpa::{
    ConditionStatus, Container, MetricReading, ObservedScale, Pod, PodPhase, PodValue, ReadyCondition,
    Resources, Settings,
};
use dormouse_scaling::memory::{
    Correction, MemoryCalculator, MemoryError, MemoryPod, MemorySample, MemorySeen, MemorySpec,
};
use dormouse_scaling::{Limit, LimitKind, ScaleDecision, ScaleSeen, ScalingHistory, Seen, recommend};
use serde::Deserialize;
use serde_json::Number;

use crate::pods::now;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Input {
    spec: SpecInput,
    spec_replicas: i32,
    status_replicas: i32,
    pods: Vec<PodInput>,
    samples: Vec<SampleInput>,
    seconds_since_last_scale: Option<u64>,
    #[serde(default)]
    last_desired: i32,
    #[serde(default)]
    last_utilization: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SpecInput {
    min_replicas: Option<i32>,
    max_replicas: i32,
    target_utilization_percentage: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodInput {
    name: String,
    phase: String,
    ready: bool,
    limits: Vec<Option<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleInput {
    pod: String,
    bytes: Number,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Output {
    action: String,
    desired: Option<i32>,
    utilization: Option<i32>,
    reason: Option<String>,
    #[serde(default)]
    corrected: Corrected,
    ratio: Option<f64>,
    rebalanced_ratio: Option<f64>,
    computed: Option<i32>,
    wanted: Option<i32>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Corrected {
    min_replicas: Option<i32>,
    max_replicas: Option<i32>,
    target_utilization_percentage: Option<i32>,
}

pub fn run(input: &Input) -> Output {
    let spec = MemorySpec {
        min_replicas: input.spec.min_replicas,
        max_replicas: input.spec.max_replicas,
        target_utilization: input.spec.target_utilization_percentage,
    };
    let (policy, corrections) = spec.corrected();
    let pods: Vec<_> = input
        .pods
        .iter()
        .map(|pod| MemoryPod {
            name: pod.name.clone(),
            ready: pod.phase == "Running" && pod.ready,
            limits: pod.limits.iter().map(|limit| limit.map(Quantity::from)).collect(),
        })
        .collect();
    let samples: Vec<_> = input
        .samples
        .iter()
        .map(|sample| MemorySample {
            pod: sample.pod.clone(),
            used: sample.bytes.to_string().parse().unwrap(),
        })
        .collect();
    let outcome = policy.decide(&MemorySeen {
        spec_replicas: input.spec_replicas,
        status_replicas: input.status_replicas,
        pods: &pods,
        samples: Ok(&samples),
        last_scale: input
            .seconds_since_last_scale
            .map(|seconds| now() - Duration::from_secs(seconds)),
        now: now(),
    });
    let decision = outcome.decision;
    assert_eq!(
        recommended(input, &policy),
        decision,
        "a target is decided in the same way"
    );
    let mut output = Output {
        corrected: corrected(&corrections),
        desired: decision.replicas,
        action: if decision.rescales() { "scale" } else { "none" }.into(),
        utilization: Some(0),
        ..Output::default()
    };
    let reason = match decision.limits.last() {
        Some(Limit {
            kind: LimitKind::Disabled,
            ..
        }) => Some("disabled"),
        Some(Limit {
            kind: LimitKind::RescaleInterval,
            from,
            ..
        }) => {
            output.wanted = Some(*from);
            Some("forbidden-window")
        }
        Some(Limit {
            kind: LimitKind::MaxReplicas,
            ..
        }) if outcome.utilization.is_none() => Some("above-max"),
        Some(Limit {
            kind: LimitKind::MinReplicas,
            ..
        }) if outcome.utilization.is_none() => Some("below-min"),
        _ if !decision.rescales() => Some("no-change"),
        _ => None,
    };
    output.reason = reason.map(Into::into);
    match outcome.utilization {
        None => {}
        Some(Ok(utilization)) => {
            output.utilization = Some(utilization.percent);
            output.ratio = Some(utilization.ratio);
            output.rebalanced_ratio = utilization.rebalanced_ratio;
            output.computed = Some(utilization.replicas);
        }
        Some(Err(error)) => {
            assert_eq!(decision.replicas, None, "an error holds the last decision");
            output.action = "error".into();
            output.reason = Some(kind(&error).into());
            // The status keeps what it said before.
            output.desired = Some(input.last_desired);
            output.utilization = Some(input.last_utilization);
        }
    }
    output
}

/// The same for a target, with what is read for it.
fn recommended(input: &Input, calculator: &MemoryCalculator) -> ScaleDecision {
    let pods: Vec<_> = input.pods.iter().map(pod).collect();
    let values: Vec<_> = input
        .samples
        .iter()
        .map(|sample| PodValue {
            pod: sample.pod.clone(),
            value: sample
                .bytes
                .to_string()
                .parse::<Quantity>()
                .unwrap()
                .saturating_millis(),
        })
        .collect();
    let last_scale = input
        .seconds_since_last_scale
        .map(|seconds| now() - Duration::from_secs(seconds));
    let key = TargetKey {
        owner: Owner::default(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    let policy = Policy::Memory(Arc::new(MemoryPolicy {
        min_replicas: calculator.bounds.min,
        max_replicas: calculator.bounds.max,
        target_utilization: calculator.target_utilization,
        usage: Err("it was read".to_owned()),
        last_scale: None,
    }));
    let itself = ObjectRef::default();
    let target = Target::only_scaled(key, itself.clone(), itself, policy, Duration::from_secs(30));
    let readings = [MetricReading::PerPod(&values)];
    let scale = ScaleSeen {
        scale: ObservedScale {
            spec_replicas: input.spec_replicas,
            status_replicas: input.status_replicas,
            has_selector: true,
        },
        pods: &pods,
        metrics: &[],
        readings: &readings,
        history: &ScalingHistory::default(),
        last_scale,
        settings: &Settings::default(),
    };
    let seen = Seen::of_scale(scale, now());
    recommend(&target, &seen)
        .scaled
        .expect("its number is decided")
        .decision
}

fn pod(input: &PodInput) -> Pod {
    let status = if input.ready {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    let containers = input.limits.iter().map(|limit| Container {
        limits: limit
            .map(|limit| ("memory".to_owned(), Quantity::from(limit)))
            .into_iter()
            .collect(),
        ..Container::default()
    });
    Pod {
        name: input.name.clone(),
        phase: match &*input.phase {
            "Running" => PodPhase::Running,
            "Pending" => PodPhase::Pending,
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            _ => PodPhase::Unknown,
        },
        started: None,
        deleting: false,
        ready: Some(ReadyCondition { status, since: now() }),
        containers: containers.collect(),
        init_containers: Vec::new(),
        requests: Resources::default(),
        overhead: Resources::default(),
    }
}

/// What differs. Where the original panics, an error is right.
pub fn differences(expected: &Output, actual: &Output) -> Vec<String> {
    let right = if expected.action == "panic" {
        actual.action == "error" && actual.reason == expected.reason
    } else {
        expected == actual
    };
    if right {
        Vec::new()
    } else {
        vec![format!("{actual:?} where {expected:?} is recorded")]
    }
}

fn corrected(corrections: &[Correction]) -> Corrected {
    let mut corrected = Corrected::default();
    for correction in corrections {
        match correction {
            Correction::MinReplicas(min) => corrected.min_replicas = Some(*min),
            Correction::MaxReplicas(max) => corrected.max_replicas = Some(*max),
            Correction::TargetUtilization(target) => corrected.target_utilization_percentage = Some(*target),
        }
    }
    corrected
}

fn kind(error: &MemoryError) -> &'static str {
    match error {
        MemoryError::NoSamples => "no-samples",
        MemoryError::NoPods => "no-pods",
        MemoryError::ContainerWithoutLimit(_) => "container-without-limit",
        MemoryError::NoUsableMetrics => "no-valid-metrics",
        MemoryError::ZeroLimits => "zero-limit",
        MemoryError::SelectorRequired | MemoryError::Unavailable(_) => "unavailable",
    }
}
