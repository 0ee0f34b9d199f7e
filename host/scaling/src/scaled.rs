//! How many replicas a target has while it is up, by its metrics.

use dormouse_model::{MemoryPolicy, MetricSpec, MetricsPolicy, Quantity};
use jiff::{SignedDuration, Timestamp};

use crate::hpa::{
    Autoscaler, Condition, Conditions, MetricReading, Observed, ObservedScale, Pod, PodValue,
    ReplicaCalculator, Settings, Tolerances, compute, reconcile,
};
use crate::memory::{MemoryCalculator, MemoryError, MemoryPod, MemorySample, MemorySeen};
use crate::{Activity, Bounds, DecisionInput, ScaleDecision, ScalingHistory};

/// The resource that a MemHpa is about.
const MEMORY: &str = "memory";
const NANOS_PER_MILLI: i128 = 1_000_000;

/// Everything that the number of replicas follows from.
#[derive(Clone, Copy, Debug)]
pub struct ScaleSeen<'a> {
    /// Its scale.
    pub scale: ObservedScale,
    /// Its pods.
    pub pods: &'a [Pod],
    /// The metrics that can say something now, of those that it declares.
    pub metrics: &'a [MetricSpec],
    /// What was read for each of them.
    pub readings: &'a [MetricReading<'a>],
    /// What was recommended before.
    pub history: &'a ScalingHistory,
    /// When its number of replicas was last changed for it. For policies that wait from then on.
    pub last_scale: Option<Timestamp>,
    /// What holds for all targets.
    pub settings: &'a Settings,
}

/// How many replicas a target should have while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// How many, and why.
    pub decision: ScaleDecision,
    /// What holds for it, as a HorizontalPodAutoscaler says it.
    pub conditions: Conditions,
    /// What to remember, provided that the scale can be written.
    pub history: ScalingHistory,
}

/// What the metrics of a target that is up say. Zero is not theirs to decide, in either direction.
pub(crate) fn scaled(policy: &MetricsPolicy, seen: &ScaleSeen<'_>, now: Timestamp) -> Scaled {
    let bounds = bounds(policy);
    if seen.scale.spec_replicas <= 0 || seen.metrics.is_empty() {
        return within_bounds(bounds, seen);
    }
    let autoscaler = Autoscaler {
        min_replicas: Some(bounds.min),
        max_replicas: bounds.max,
        metrics: seen.metrics,
        behavior: policy.behavior.as_ref(),
    };
    let observed = Observed {
        scale: seen.scale,
        pods: seen.pods,
        readings: seen.readings,
        conditions: &Conditions::default(),
        desired_replicas: seen.scale.spec_replicas,
        now,
    };
    let round = reconcile(&autoscaler, seen.settings, &observed, seen.history.to_history());
    let window = seen.settings.downscale_stabilization;
    Scaled {
        history: ScalingHistory::of(&round.history, policy.behavior.as_ref(), window, now),
        decision: round.decision,
        conditions: round.conditions,
    }
}

/// What the memory of the pods of a target that is up says.
pub(crate) fn scaled_by_memory(policy: &MemoryPolicy, seen: &ScaleSeen<'_>, now: Timestamp) -> Scaled {
    let calculator = MemoryCalculator {
        bounds: Bounds {
            min: policy.min_replicas,
            max: policy.max_replicas,
        },
        target_utilization: policy.target_utilization,
    };
    let pods: Vec<_> = seen.pods.iter().map(memory_pod).collect();
    let samples = memory_samples(seen);
    let outcome = calculator.decide(&MemorySeen {
        spec_replicas: seen.scale.spec_replicas,
        status_replicas: seen.scale.status_replicas,
        pods: &pods,
        samples: samples.as_deref(),
        // One that is further ahead than any interval is long was written by a clock that was wrong.
        last_scale: seen
            .last_scale
            .filter(|last| last.duration_since(now) <= SignedDuration::from_mins(5)),
        now,
    });
    let scaling_active = outcome.utilization.map(|utilization| match utilization {
        Ok(_) => Condition::new(true, "ValidMetricFound", ""),
        Err(error) => Condition::new(false, error.reason(), error.to_string()),
    });
    Scaled {
        decision: outcome.decision,
        conditions: Conditions {
            scaling_active,
            ..Conditions::default()
        },
        history: ScalingHistory::default(),
    }
}

fn memory_pod(pod: &Pod) -> MemoryPod {
    MemoryPod {
        name: pod.name.clone(),
        ready: pod.is_ready(),
        limits: pod
            .containers
            .iter()
            .map(|container| container.limits.get(MEMORY).copied())
            .collect(),
    }
}

fn memory_samples(seen: &ScaleSeen<'_>) -> Result<Vec<MemorySample>, MemoryError> {
    if !seen.scale.has_selector {
        return Err(MemoryError::SelectorRequired);
    }
    match seen.readings.first() {
        Some(MetricReading::PerPod(values)) => Ok(values.iter().map(memory_sample).collect()),
        Some(MetricReading::Unavailable(why)) => Err(MemoryError::Unavailable((*why).to_owned())),
        Some(MetricReading::Usage(_) | MetricReading::Value(_) | MetricReading::Values(_)) => Err(
            MemoryError::Unavailable("what was read is not about single pods".to_owned()),
        ),
        None => Err(MemoryError::NoSamples),
    }
}

fn memory_sample(value: &PodValue) -> MemorySample {
    MemorySample {
        pod: value.pod.clone(),
        used: Quantity::from_nanos(i128::from(value.value) * NANOS_PER_MILLI),
    }
}

/// While no metric can say anything, only the bounds count.
fn within_bounds(bounds: Bounds, seen: &ScaleSeen<'_>) -> Scaled {
    let current = seen.scale.spec_replicas;
    let correction = bounds.correction(current).filter(|_| current > 0);
    Scaled {
        decision: ScaleDecision {
            current,
            replicas: correction.map(|limit| limit.to),
            activity: Activity::Unknown,
            inputs: Vec::new(),
            limits: correction.into_iter().collect(),
        },
        conditions: Conditions::default(),
        history: seen.history.clone(),
    }
}

/// How many replicas a target needs that is waking, by the requests that wait for it: as if they had been there from the start, so neither
/// windows nor policies count, and never fewer than there are.
pub fn to_demand(policy: &MetricsPolicy, seen: &ScaleSeen<'_>, now: Timestamp) -> Scaled {
    let current = seen.scale.spec_replicas;
    let calculator = ReplicaCalculator {
        pods: seen.pods,
        tolerances: Tolerances::of(policy.behavior.as_ref(), seen.settings.tolerance),
        readiness: seen.settings.readiness(now),
    };
    let mut decision = ScaleDecision {
        current,
        replicas: Some(current),
        activity: Activity::Active,
        inputs: Vec::new(),
        limits: Vec::new(),
    };
    let mut conditions = Conditions::default();
    if current > 0 && !seen.metrics.is_empty() {
        let computation = compute(&calculator, seen.scale, seen.metrics, seen.readings);
        let proposals = seen.metrics.iter().zip(&computation.proposals);
        decision.inputs = proposals
            .map(|(metric, proposal)| DecisionInput::of_metric(metric, proposal))
            .collect();
        let wanted = computation.replicas.unwrap_or(current);
        let limit = bounds(policy).correction(wanted);
        decision.replicas = Some(limit.map_or(wanted, |limit| limit.to).max(current));
        decision.limits.extend(limit);
        conditions.scaling_active = Some(computation.scaling_active);
    }
    Scaled {
        decision,
        conditions,
        history: seen.history.clone(),
    }
}

fn bounds(policy: &MetricsPolicy) -> Bounds {
    Bounds {
        min: policy.min_replicas.max(1),
        max: policy.max_replicas.max(1),
    }
}
