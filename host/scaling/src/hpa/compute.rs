//! How many replicas several metrics ask for.

use std::borrow::Cow;

use dormouse_model::{
    ContainerResourceMetric, MetricSpec, MetricTarget, ObjectMetric, Quantity, ResourceMetric,
};

use super::conditions::Event;
use super::usage::{PodSample, PodValue};
use super::{ComputeError, Condition, EventReason, MetricError, MetricValue, Proposal, ReplicaCalculator};
use crate::{Comparison, DecisionInput, Proposed, Sample};

/// Percent of the requested CPU that an autoscaler without metrics aims at.
const DEFAULT_CPU_UTILIZATION: i32 = 80;

/// What the scale subresource of a target says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedScale {
    /// Replicas that are asked for: `spec.replicas`.
    pub spec_replicas: i32,
    /// Replicas that there are: `status.replicas`.
    pub status_replicas: i32,
    /// Whether it says which pods are the target's.
    pub has_selector: bool,
}

/// What was read for one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricReading<'a> {
    /// What the pods use: for metrics on resources.
    Usage(&'a [PodSample]),
    /// What each pod reports.
    PerPod(&'a [PodValue]),
    /// The value of an object, in milli-units.
    Value(i64),
    /// The values of an external metric, in milli-units.
    Values(&'a [i64]),
    /// The metrics API failed, or knows no such metric; the text says how.
    Unavailable(&'a str),
}

/// What follows from all metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computation {
    /// What each metric asks for, in order. Empty if the metrics were not looked at.
    pub proposals: Vec<Result<Proposal, MetricError>>,
    /// How many replicas the metrics ask for. None: nothing is decided.
    pub replicas: Option<i32>,
    /// Which metric decides, as an index.
    pub deciding: Option<usize>,
    /// What failed. Scaling goes on if `replicas` says how.
    pub error: Option<ComputeError>,
    /// The condition ScalingActive.
    pub scaling_active: Condition,
    /// Events about what failed.
    pub events: Vec<Event>,
}

/// The metrics of an autoscaler that declares none: 80 % of the requested CPU.
pub fn default_metrics() -> Vec<MetricSpec> {
    vec![MetricSpec::Resource {
        resource: ResourceMetric {
            name: "cpu".to_owned(),
            target: MetricTarget::Utilization(DEFAULT_CPU_UTILIZATION),
        },
    }]
}

/// The declared metrics, or else the default.
pub(super) fn or_default(metrics: &[MetricSpec]) -> Cow<'_, [MetricSpec]> {
    if metrics.is_empty() {
        Cow::Owned(default_metrics())
    } else {
        Cow::Borrowed(metrics)
    }
}

/// How many replicas the metrics ask for: the highest proposal counts. Metrics that fail are passed over as long as the others would
/// not go below the current number of replicas.
///
/// `readings` has one entry for each metric, in order; without metrics, one for [`default_metrics`].
pub fn compute(
    calculator: &ReplicaCalculator<'_>,
    scale: ObservedScale,
    metrics: &[MetricSpec],
    readings: &[MetricReading<'_>],
) -> Computation {
    if !scale.has_selector {
        let error = ComputeError::SelectorRequired;
        return Computation {
            proposals: Vec::new(),
            replicas: None,
            deciding: None,
            scaling_active: Condition::new(false, "InvalidSelector", error.to_string()),
            events: vec![Event {
                reason: EventReason::SelectorRequired,
                message: error.to_string(),
            }],
            error: Some(error),
        };
    }
    let metrics = or_default(metrics);
    let missing = MetricReading::Unavailable("it was not read");
    let readings = readings.iter().copied().chain(std::iter::repeat(missing));
    let proposals: Vec<_> = metrics
        .iter()
        .zip(readings)
        .map(|(metric, reading)| propose(calculator, scale, metric, reading))
        .collect();

    let failed: Vec<_> = metrics
        .iter()
        .zip(&proposals)
        .filter_map(|(metric, proposal)| Some((metric, proposal.as_ref().err()?)))
        .collect();
    let events = failed.iter().map(|(metric, error)| Event {
        reason: EventReason::of_failed(metric),
        message: format!("{metric}: {error}"),
    });
    let error = failed.first().map(|(_, first)| ComputeError::InvalidMetrics {
        invalid: failed.len(),
        total: metrics.len(),
        first: (*first).clone(),
    });
    let highest = highest(&proposals);
    let blocked = highest.is_none_or(|(_, replicas)| !failed.is_empty() && replicas < scale.spec_replicas);
    let decided = highest.filter(|_| !blocked);
    let scaling_active = match (decided, failed.first()) {
        (Some((deciding, _)), _) => Condition::new(
            true,
            "ValidMetricFound",
            format!("the number of replicas follows from {}", metrics[deciding]),
        ),
        (None, Some((metric, error))) => Condition::new(
            false,
            EventReason::of_failed(metric).as_str(),
            format!("the number of replicas cannot be computed: {metric}: {error}"),
        ),
        // Without a failure there is a proposal, because there is a metric.
        (None, None) => Condition::new(false, "InvalidMetricSourceType", "there are no metrics"),
    };
    let events = events.collect();
    Computation {
        replicas: decided.map(|(_, replicas)| replicas),
        deciding: decided.map(|(deciding, _)| deciding),
        error,
        scaling_active,
        events,
        proposals,
    }
}

/// The first of the highest proposals with its index. A proposal of zero gives way to any later one, as in Kubernetes.
fn highest(proposals: &[Result<Proposal, MetricError>]) -> Option<(usize, i32)> {
    let mut highest: Option<(usize, i32)> = None;
    for (index, proposal) in proposals.iter().enumerate() {
        let Ok(proposal) = proposal else { continue };
        if highest.is_none_or(|(_, replicas)| replicas == 0 || proposal.replicas > replicas) {
            highest = Some((index, proposal.replicas));
        }
    }
    highest
}

fn propose(
    calculator: &ReplicaCalculator<'_>,
    scale: ObservedScale,
    metric: &MetricSpec,
    reading: MetricReading<'_>,
) -> Result<Proposal, MetricError> {
    if let MetricReading::Unavailable(why) = reading {
        return Err(MetricError::MetricsUnavailable(why.to_owned()));
    }
    let (spec, status) = (scale.spec_replicas, scale.status_replicas);
    match (metric, reading) {
        (MetricSpec::Resource { resource }, MetricReading::Usage(samples)) => {
            let ResourceMetric { name, target } = resource;
            of_resource(calculator, spec, *target, name, None, samples)
        }
        (MetricSpec::ContainerResource { container_resource }, MetricReading::Usage(samples)) => {
            let ContainerResourceMetric {
                name,
                container,
                target,
            } = container_resource;
            of_resource(calculator, spec, *target, name, Some(container), samples)
        }
        (MetricSpec::Pods { pods }, MetricReading::PerPod(values)) => match pods.target {
            MetricTarget::AverageValue(target) => {
                calculator.pods_average(spec, target.saturating_millis(), values)
            }
            other => Err(MetricError::UnsupportedTarget(other)),
        },
        (MetricSpec::Object { object }, MetricReading::Value(value)) => {
            let ObjectMetric { target, .. } = object;
            match target {
                MetricTarget::Value(target) => {
                    calculator.object_value(spec, target.saturating_millis(), value)
                }
                MetricTarget::AverageValue(target) => {
                    calculator.object_average(status, target.saturating_millis(), value)
                }
                other => Err(MetricError::UnsupportedTarget(*other)),
            }
        }
        (MetricSpec::External { external }, MetricReading::Values(values)) => match external.target {
            MetricTarget::Value(target) => {
                calculator.external_value(spec, target.saturating_millis(), values)
            }
            MetricTarget::AverageValue(target) => {
                calculator.external_average(status, target.saturating_millis(), values)
            }
            other => Err(MetricError::UnsupportedTarget(other)),
        },
        _ => Err(MetricError::UnexpectedReading),
    }
}

fn of_resource(
    calculator: &ReplicaCalculator<'_>,
    current: i32,
    target: MetricTarget,
    resource: &str,
    container: Option<&str>,
    samples: &[PodSample],
) -> Result<Proposal, MetricError> {
    match target {
        MetricTarget::Utilization(percent) => {
            calculator.resource_utilization(current, percent, resource, container, samples)
        }
        MetricTarget::AverageValue(average) => {
            calculator.resource_average(current, average.saturating_millis(), resource, container, samples)
        }
        other @ MetricTarget::Value(_) => Err(MetricError::UnsupportedTarget(other)),
    }
}

impl DecisionInput {
    /// A metric and what it asks for.
    pub(crate) fn of_metric(metric: &MetricSpec, proposal: &Result<Proposal, MetricError>) -> Self {
        let (sample, proposes) = match proposal {
            Ok(proposal) => (
                Sample::Value(proposal.current.into()),
                Proposed::Replicas(proposal.replicas),
            ),
            Err(error) => (Sample::Error(error.to_string()), Proposed::Unknown),
        };
        Self {
            name: metric.to_string(),
            sample,
            compared_with: Comparison::Target(metric.target()),
            proposes,
        }
    }
}

impl From<MetricValue> for Quantity {
    /// The number that is compared with the target.
    fn from(value: MetricValue) -> Self {
        match value {
            MetricValue::Utilization { percent, .. } => Self::from_nanos(i128::from(percent) * 1_000_000_000),
            MetricValue::AverageValue(milli) | MetricValue::Value(milli) => Self::from_millis(milli),
        }
    }
}
