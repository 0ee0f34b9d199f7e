//! What is read for metrics that decide a number of replicas: a sample for each pod, and the pods themselves.

use std::collections::{BTreeMap, HashMap};

use dormouse_kubernetes::{PodContainer, PodUsage, WorkloadPod};
use dormouse_model::Quantity;
use dormouse_scaling::Sample;
use dormouse_scaling::hpa::{
    ConditionStatus, Container, ContainerUsage, InitContainer, MetricReading, Pod, PodPhase, PodSample,
    PodValue, ReadyCondition, Resources,
};

/// What was read for one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSamples {
    /// What the pods use.
    Usage(Vec<PodSample>),
    /// What each pod reports.
    PerPod(Vec<PodValue>),
    /// The value of an object, in milli-units.
    Value(i64),
    /// The value of everything else, in milli-units.
    Total([i64; 1]),
    /// Nothing is known; the text says what is missing.
    NoData(String),
    /// It could not be read; the text says why.
    Error(String),
}

impl MetricSamples {
    /// As decisions read it.
    pub fn as_reading(&self) -> MetricReading<'_> {
        match self {
            Self::Usage(samples) => MetricReading::Usage(samples),
            Self::PerPod(values) => MetricReading::PerPod(values),
            Self::Value(value) => MetricReading::Value(*value),
            Self::Total(total) => MetricReading::Values(total),
            Self::NoData(why) | Self::Error(why) => MetricReading::Unavailable(why),
        }
    }

    /// How it went, as a metric label.
    pub fn result(&self) -> &'static str {
        match self {
            Self::NoData(_) => "no-data",
            Self::Error(_) => "error",
            Self::Usage(_) | Self::PerPod(_) | Self::Value(_) | Self::Total(_) => "value",
        }
    }

    pub(crate) fn total(sample: Sample) -> Self {
        Self::of(sample, |value| Self::Total([value]))
    }

    pub(crate) fn value(sample: Sample) -> Self {
        Self::of(sample, Self::Value)
    }

    fn of(sample: Sample, value: impl FnOnce(i64) -> Self) -> Self {
        match sample {
            Sample::Value(quantity) => value(quantity.saturating_millis()),
            Sample::NoData(why) => Self::NoData(why.into_owned()),
            Sample::Error(why) => Self::Error(why),
        }
    }
}

/// The metrics of a target, and its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// Its pods, where a metric is about them.
    pub pods: Vec<Pod>,
    /// What was read for each metric, in their order.
    pub samples: Vec<MetricSamples>,
}

/// A pod, as far as scaling needs to know it. An amount that cannot be read is left out, as if it was not requested.
pub fn pod_of(seen: &WorkloadPod) -> Pod {
    Pod {
        name: seen.name.clone(),
        phase: match seen.phase.as_str() {
            "Running" => PodPhase::Running,
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            "Unknown" => PodPhase::Unknown,
            _ => PodPhase::Pending,
        },
        started: seen.started,
        deleting: seen.deleting,
        ready: seen
            .ready_condition
            .as_ref()
            .map(|(status, since)| ReadyCondition {
                status: match status.as_str() {
                    "True" => ConditionStatus::True,
                    "False" => ConditionStatus::False,
                    _ => ConditionStatus::Unknown,
                },
                since: *since,
            }),
        containers: seen.containers.iter().map(container).collect(),
        init_containers: seen
            .init_containers
            .iter()
            .map(|init| InitContainer {
                container: container(init),
                sidecar: init.sidecar,
            })
            .collect(),
        requests: amounts(&seen.requests),
        overhead: amounts(&seen.overhead),
    }
}

fn container(seen: &PodContainer) -> Container {
    Container {
        name: seen.name.clone(),
        requests: amounts(&seen.requests),
        limits: amounts(&seen.limits),
    }
}

fn amounts(texts: &BTreeMap<String, String>) -> Resources {
    let known = texts
        .iter()
        .filter_map(|(name, amount)| Some((name.clone(), amount.parse::<Quantity>().ok()?)));
    known.collect()
}

/// What the resource metrics API says of these pods. A pod that was not measured, or at no time that is known, has no sample.
pub(crate) fn usage_samples(pods: &[&WorkloadPod], usages: &HashMap<String, PodUsage>) -> Vec<PodSample> {
    let samples = pods.iter().filter_map(|pod| {
        let usage = usages.get(&pod.name)?;
        Some(PodSample {
            pod: usage.pod.clone(),
            timestamp: usage.measured?,
            window: usage.window,
            containers: usage
                .containers
                .iter()
                .map(|container| ContainerUsage {
                    name: container.name.clone(),
                    usage: amounts(&container.usage),
                })
                .collect(),
        })
    });
    samples.collect()
}
