//! What is read of a metric, from what was recorded of it.

use std::time::Duration;

use dormouse_model::{MetricSpec, Quantity};
use dormouse_readings::MetricSamples;
use dormouse_scaling::hpa::{ContainerUsage, PodSample, PodValue, Resources};
use jiff::Timestamp;

use super::pods::Pods;

/// How long a sample of what a pod uses looks back, as metrics-server's do.
const SAMPLE_WINDOW: Duration = Duration::from_secs(15);

/// What is read of a metric: what is recorded for all pods is spread evenly over those that are ready.
pub(super) fn read(
    metric: &MetricSpec,
    recorded: Option<Quantity>,
    pods: &Pods,
    now: Timestamp,
) -> MetricSamples {
    let Some(recorded) = recorded else {
        return nothing();
    };
    let share = share(recorded, pods, now);
    match metric {
        MetricSpec::Object { .. } => MetricSamples::Value(recorded.saturating_millis()),
        MetricSpec::External { .. } => MetricSamples::Total([recorded.saturating_millis()]),
        MetricSpec::Pods { .. } => per_pod(share, pods, now),
        MetricSpec::Resource { resource } => {
            MetricSamples::Usage(usage("pod", &resource.name, share, pods, now))
        }
        MetricSpec::ContainerResource {
            container_resource: of,
        } => MetricSamples::Usage(usage(&of.container, &of.name, share, pods, now)),
    }
}

/// What each pod has of a number that was recorded for all of them.
pub(super) fn of_each_pod(recorded: Option<Quantity>, pods: &Pods, now: Timestamp) -> MetricSamples {
    match recorded {
        Some(recorded) => per_pod(share(recorded, pods, now), pods, now),
        None => nothing(),
    }
}

fn nothing() -> MetricSamples {
    MetricSamples::NoData("nothing was recorded".to_owned())
}

fn share(recorded: Quantity, pods: &Pods, now: Timestamp) -> Quantity {
    let ready = u32::try_from(pods.ready(now)).unwrap_or(u32::MAX);
    recorded.mul_div(1, ready.max(1)).unwrap_or(recorded)
}

fn per_pod(share: Quantity, pods: &Pods, now: Timestamp) -> MetricSamples {
    let value = share.saturating_millis();
    let values = pods.ready_names(now).map(|pod| PodValue { pod, value });
    MetricSamples::PerPod(values.collect())
}

fn usage(container: &str, resource: &str, share: Quantity, pods: &Pods, now: Timestamp) -> Vec<PodSample> {
    let sample = |pod| PodSample {
        pod,
        timestamp: now,
        window: SAMPLE_WINDOW,
        containers: vec![ContainerUsage {
            name: container.to_owned(),
            usage: Resources::from([(resource.to_owned(), share)]),
        }],
    };
    pods.ready_names(now).map(sample).collect()
}
