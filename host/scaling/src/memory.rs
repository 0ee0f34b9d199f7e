//! How many replicas the memory of pods asks for, as MemHpa decides it: by what they use of their limits.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use dormouse_model::Quantity;
use jiff::Timestamp;
use thiserror::Error;

use crate::saturate::{ceil, to_i64};
use crate::time::has_passed;
use crate::utilization::{Amounts, Utilization, assume_opposite, contradict};
use crate::{Activity, Bounds, Comparison, DecisionInput, Limit, LimitKind, Proposed, Sample, ScaleDecision};

/// How far the ratio of utilization and target may be from 1.
const TOLERANCE: f64 = 0.1;
/// How long after a rescale nothing is scaled up.
const UPSCALE_INTERVAL: Duration = Duration::from_secs(3 * 60);
/// How long after a rescale nothing is scaled down.
const DOWNSCALE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The fewest replicas that may be declared.
const LEAST_MIN_REPLICAS: i32 = 1;
/// How far a maximum below the minimum is put above it.
const SPAN_OF_REPLICAS: i32 = 4;
/// The target utilization where none in 1 to 100 is declared, in percent.
const DEFAULT_UTILIZATION: i32 = 80;
const NANOS_PER_BYTE: i128 = 1_000_000_000;

/// What is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySpec {
    /// The fewest replicas.
    pub min_replicas: Option<i32>,
    /// The most replicas.
    pub max_replicas: i32,
    /// Which share of their limits the pods should use, in percent.
    pub target_utilization: Option<i32>,
}

/// Calculates from what is declared, without mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCalculator {
    /// How many replicas there may be.
    pub bounds: Bounds,
    /// Which share of their limits the pods should use, in percent: 1 to 100.
    pub target_utilization: i32,
}

/// A field that was declared wrongly or not at all, with what is used instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// `minReplicas` was below 1.
    MinReplicas(i32),
    /// `maxReplicas` was below the minimum.
    MaxReplicas(i32),
    /// `targetUtilizationPercentage` was not in 1 to 100.
    TargetUtilization(i32),
}

impl fmt::Display for Correction {
    /// `minReplicas is taken for 1, because it is not at least 1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinReplicas(min) => {
                write!(f, "minReplicas is taken for {min}, because it is not at least 1")
            }
            Self::MaxReplicas(max) => {
                write!(
                    f,
                    "maxReplicas is taken for {max}, because it is below the minimum"
                )
            }
            Self::TargetUtilization(percent) => write!(
                f,
                "targetUtilizationPercentage is taken for {percent}, because it is not in 1 to 100"
            ),
        }
    }
}

/// A pod, as far as its memory matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPod {
    /// Its name.
    pub name: String,
    /// Whether it runs and is ready.
    pub ready: bool,
    /// The limit of each of its containers, in bytes.
    pub limits: Vec<Option<Quantity>>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySample {
    /// Name of its pod.
    pub pod: String,
    /// How much, in bytes. A fraction of a byte is cut off.
    pub used: Quantity,
}

/// What is seen of a target.
#[derive(Clone, Copy, Debug)]
pub struct MemorySeen<'a> {
    /// Replicas that are asked for. At 0 nothing is decided.
    pub spec_replicas: i32,
    /// Replicas that there are, on which the decision is based.
    pub status_replicas: i32,
    /// The pods.
    pub pods: &'a [MemoryPod],
    /// What their containers use. Samples of other pods do not matter.
    pub samples: Result<&'a [MemorySample], &'a MemoryError>,
    /// When this policy last changed the number of replicas. None: never.
    pub last_scale: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The target does not say which pods are its own.
    #[error("the scale of the target has no selector for its pods")]
    SelectorRequired,
    /// The samples could not be read; the text says why.
    #[error("{0}")]
    Unavailable(String),
    /// There are no samples at all.
    #[error("there are no samples of memory")]
    NoSamples,
    /// The target has no pods.
    #[error("the target has no pods")]
    NoPods,
    /// A container has no limit to compare with.
    #[error("a container of pod {0} has no memory limit")]
    ContainerWithoutLimit(String),
    /// No pod that is ready has a sample.
    #[error("no ready pod has a sample")]
    NoUsableMetrics,
    /// The limits of the pods with samples add up to nothing.
    #[error("the memory limits of the pods that have samples are zero")]
    ZeroLimits,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryOutcome {
    /// How many replicas, and why.
    pub decision: ScaleDecision,
    /// What the pods use. None: it was not looked at, because the count was out of bounds or scaling is disabled.
    pub utilization: Option<Result<MemoryUtilization, MemoryError>>,
}

/// What the pods use of their limits, and what that asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryUtilization {
    /// In percent, cut to a whole number.
    pub percent: i32,
    /// Divided by the target.
    pub ratio: f64,
    /// The same with the pods that are missing or not ready, where they had to be counted.
    pub rebalanced_ratio: Option<f64>,
    /// How many replicas it asks for.
    pub replicas: i32,
    /// Why that is the number of replicas that there are.
    pub held_by: Option<LimitKind>,
}

impl MemoryError {
    /// One word for conditions and events, as MemHpa has them.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SelectorRequired => "SelectorRequired",
            Self::Unavailable(_)
            | Self::NoSamples
            | Self::NoPods
            | Self::ContainerWithoutLimit(_)
            | Self::NoUsableMetrics
            | Self::ZeroLimits => "FailedGetMetrics",
        }
    }
}

impl MemorySpec {
    /// What is used of it, and what is not.
    pub fn corrected(self) -> (MemoryCalculator, Vec<Correction>) {
        let mut corrections = Vec::new();
        let min = self.min_replicas.filter(|min| *min >= LEAST_MIN_REPLICAS);
        let min = min.unwrap_or_else(|| {
            corrections.push(Correction::MinReplicas(LEAST_MIN_REPLICAS));
            LEAST_MIN_REPLICAS
        });
        let max = if self.max_replicas < min {
            let max = min.saturating_add(SPAN_OF_REPLICAS);
            corrections.push(Correction::MaxReplicas(max));
            max
        } else {
            self.max_replicas
        };
        let target = self
            .target_utilization
            .filter(|target| (1..=100).contains(target));
        let target_utilization = target.unwrap_or_else(|| {
            corrections.push(Correction::TargetUtilization(DEFAULT_UTILIZATION));
            DEFAULT_UTILIZATION
        });
        let policy = MemoryCalculator {
            bounds: Bounds { min, max },
            target_utilization,
        };
        (policy, corrections)
    }
}

impl MemoryCalculator {
    /// Decides how many replicas there should be.
    pub fn decide(&self, seen: &MemorySeen<'_>) -> MemoryOutcome {
        let current = seen.status_replicas;
        let mut decision = ScaleDecision {
            current,
            replicas: Some(current),
            activity: Activity::Unknown,
            inputs: Vec::new(),
            limits: Vec::new(),
        };
        if seen.spec_replicas == 0 {
            decision.limits.push(Limit {
                kind: LimitKind::Disabled,
                from: current,
                to: current,
            });
            return MemoryOutcome {
                decision,
                utilization: None,
            };
        }
        if let Some(correction) = self.bounds.correction(current) {
            decision.replicas = Some(correction.to);
            decision.limits.push(correction);
            return MemoryOutcome {
                decision,
                utilization: None,
            };
        }
        let utilization = self.utilization(seen);
        decision.inputs.push(self.input(&utilization));
        match &utilization {
            Err(_) => decision.replicas = None,
            Ok(utilization) => {
                decision.activity = Activity::Active;
                decision.limits.extend(utilization.held_by.map(|kind| Limit {
                    kind,
                    from: current,
                    to: current,
                }));
                let (wanted, limit) = self.bounds.limit(current, utilization.replicas);
                decision.limits.extend(limit);
                let interval = rescale_interval(current, wanted, seen);
                decision.replicas = Some(interval.map_or(wanted, |interval| interval.to));
                decision.limits.extend(interval);
            }
        }
        MemoryOutcome {
            decision,
            utilization: Some(utilization),
        }
    }

    fn input(&self, utilization: &Result<MemoryUtilization, MemoryError>) -> DecisionInput {
        let (sample, proposes) = match utilization {
            Ok(utilization) => (
                Sample::Value(Quantity::from_nanos(
                    i128::from(utilization.percent) * 1_000_000_000,
                )),
                Proposed::Replicas(utilization.replicas),
            ),
            Err(error) => (Sample::Error(error.to_string()), Proposed::Unknown),
        };
        DecisionInput {
            name: "memory".to_owned(),
            sample,
            compared_with: Comparison::UtilizationOfLimits(self.target_utilization),
            proposes,
        }
    }

    fn utilization(&self, seen: &MemorySeen<'_>) -> Result<MemoryUtilization, MemoryError> {
        let current = seen.status_replicas;
        let samples = seen.samples.map_err(Clone::clone)?;
        if samples.is_empty() {
            return Err(MemoryError::NoSamples);
        }
        if seen.pods.is_empty() {
            return Err(MemoryError::NoPods);
        }
        let limits = limits(seen.pods)?;
        let ready: HashSet<&str> = names(seen.pods, true).collect();
        let mut used = Amounts::new();
        for sample in samples.iter().filter(|sample| ready.contains(&*sample.pod)) {
            let bytes = used.entry(&sample.pod).or_default();
            *bytes = bytes.saturating_add(to_i64(sample.used.nanos() / NANOS_PER_BYTE));
        }
        if used.is_empty() {
            return Err(MemoryError::NoUsableMetrics);
        }
        let unready: Vec<&str> = names(seen.pods, false).collect();
        let missing: Vec<&str> = ready.into_iter().filter(|pod| !used.contains_key(pod)).collect();

        let utilization = Utilization::of(&used, &limits).ok_or(MemoryError::ZeroLimits)?;
        let ratio = utilization.ratio_to(self.target_utilization);
        let rebalance = !missing.is_empty() || (!unready.is_empty() && ratio > 1.0);
        let rebalanced_ratio = if rebalance {
            assume_opposite(&mut used, ratio, &missing, unready, |pod| {
                limits.get(pod).copied().unwrap_or(0)
            });
            let utilization = Utilization::of(&used, &limits).ok_or(MemoryError::ZeroLimits)?;
            Some(utilization.ratio_to(self.target_utilization))
        } else {
            None
        };
        let last = rebalanced_ratio.unwrap_or(ratio);
        let (replicas, held_by) = if is_tolerable(last) {
            (current, Some(LimitKind::Tolerance))
        } else if contradict(ratio, last) {
            (current, Some(LimitKind::MissingSamples))
        } else {
            (ceil(last * used.len() as f64), None)
        };
        Ok(MemoryUtilization {
            percent: utilization.percent,
            ratio,
            rebalanced_ratio,
            replicas,
            held_by,
        })
    }
}

/// The limits of each pod, in bytes.
fn limits(pods: &[MemoryPod]) -> Result<Amounts<'_>, MemoryError> {
    let mut limits = Amounts::with_capacity(pods.len());
    for pod in pods {
        let mut sum = 0_i64;
        for limit in &pod.limits {
            let limit = limit.ok_or_else(|| MemoryError::ContainerWithoutLimit(pod.name.clone()))?;
            sum = sum.saturating_add(limit.units());
        }
        limits.insert(pod.name.as_str(), sum);
    }
    Ok(limits)
}

/// The names of the pods that are ready, or of those that are not.
fn names(pods: &[MemoryPod], ready: bool) -> impl Iterator<Item = &str> {
    let pods = pods.iter().filter(move |pod| pod.ready == ready);
    pods.map(|pod| pod.name.as_str())
}

/// Whether a ratio is close enough to 1. Unlike that of a HorizontalPodAutoscaler, the distance is compared, so 1.1 is too far.
fn is_tolerable(ratio: f64) -> bool {
    (1.0 - ratio).abs() <= TOLERANCE
}

/// Holds a rescale that comes too soon after the last one.
fn rescale_interval(current: i32, wanted: i32, seen: &MemorySeen<'_>) -> Option<Limit> {
    let interval = if wanted > current {
        UPSCALE_INTERVAL
    } else {
        DOWNSCALE_INTERVAL
    };
    let too_soon = seen
        .last_scale
        .is_some_and(|last| !has_passed(last, interval, seen.now));
    (too_soon && wanted != current).then_some(Limit {
        kind: LimitKind::RescaleInterval,
        from: wanted,
        to: current,
    })
}
