//! Why there is no proposal.

use dormouse_model::MetricTarget;
use thiserror::Error;

/// Why a metric proposes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetricError {
    /// The metrics API failed or returned nothing.
    #[error("no metrics: {0}")]
    MetricsUnavailable(String),
    /// No pod matches the selector of the target.
    #[error("the target has no pods")]
    NoPods,
    /// Nothing is left without the samples of pods that do not count.
    #[error("no pod that counts has a sample (pods may be unready)")]
    NoUsableMetrics,
    /// A container has no request for the resource.
    #[error("container {container} of pod {pod} has no request for {resource}")]
    MissingRequest {
        /// The resource.
        resource: String,
        /// The container.
        container: String,
        /// Its pod.
        pod: String,
    },
    /// A pod has requests of its own, but none for the resource results.
    #[error("pod {pod} has pod-level requests, but none for {resource}")]
    MissingPodLevelRequest {
        /// The resource.
        resource: String,
        /// The pod.
        pod: String,
    },
    /// A pod has no such container.
    #[error("pod {pod} has no container {container}")]
    ContainerNotFound {
        /// The container.
        container: String,
        /// The pod.
        pod: String,
    },
    /// The requests of all pods with a sample add up to nothing.
    #[error("the pods that have samples request nothing")]
    NoRequests,
    /// The target is not above zero.
    #[error("the target is not above zero")]
    InvalidTarget,
    /// The kind of metric cannot have this target.
    #[error("this kind of metric cannot have the target {0}")]
    UnsupportedTarget(MetricTarget),
    /// What was read is not what this kind of metric is made of. A mistake of the caller.
    #[error("the reading does not belong to the metric")]
    UnexpectedReading,
}

/// Why nothing can be decided from the metrics of an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ComputeError {
    /// The scale of the target has no selector.
    #[error("the target has no selector for its pods")]
    SelectorRequired,
    /// Metrics failed. Scaling goes on if it would not go down.
    #[error("{invalid} of {total} metrics are invalid, first error: {first}")]
    InvalidMetrics {
        /// How many failed.
        invalid: usize,
        /// How many there are.
        total: usize,
        /// Why the first of them failed.
        first: MetricError,
    },
}
