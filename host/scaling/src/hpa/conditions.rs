//! What an autoscaler reports about a round.

use std::borrow::Cow;
use std::fmt;

use dormouse_model::MetricSpec;

use super::ConditionStatus;

/// The conditions of an autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Whether the target can be scaled, and whether a stabilization window holds it.
    pub able_to_scale: Option<Condition>,
    /// Whether the metrics say how many replicas there should be.
    pub scaling_active: Option<Condition>,
    /// Whether a bound or a policy limits what the metrics say.
    pub scaling_limited: Option<Condition>,
    /// Whether this autoscaler, and nobody else, has scaled the target to zero.
    pub scaled_to_zero: Option<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: Cow<'static, str>,
    /// Why, for people.
    pub message: String,
}

impl Condition {
    /// One that holds or not.
    pub fn new(holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: if holds {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            },
            reason: Cow::Borrowed(reason),
            message: message.into(),
        }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// Something that happened in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub reason: EventReason,
    /// What, for people.
    pub message: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// The number of replicas changes.
    SuccessfulRescale,
    /// Nothing can be decided from the metrics.
    FailedComputeMetricsReplicas,
    /// The target has no selector for its pods.
    SelectorRequired,
    /// A metric on a resource of pods failed.
    FailedGetResourceMetric,
    /// A metric on a resource of a container failed.
    FailedGetContainerResourceMetric,
    /// A metric that pods report failed.
    FailedGetPodsMetric,
    /// A metric of an object failed.
    FailedGetObjectMetric,
    /// An external metric failed.
    FailedGetExternalMetric,
}

impl EventReason {
    /// That a metric failed.
    pub fn of_failed(metric: &MetricSpec) -> Self {
        match metric {
            MetricSpec::Resource { .. } => Self::FailedGetResourceMetric,
            MetricSpec::ContainerResource { .. } => Self::FailedGetContainerResourceMetric,
            MetricSpec::Pods { .. } => Self::FailedGetPodsMetric,
            MetricSpec::Object { .. } => Self::FailedGetObjectMetric,
            MetricSpec::External { .. } => Self::FailedGetExternalMetric,
        }
    }

    /// The reason as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessfulRescale => "SuccessfulRescale",
            Self::FailedComputeMetricsReplicas => "FailedComputeMetricsReplicas",
            Self::SelectorRequired => "SelectorRequired",
            Self::FailedGetResourceMetric => "FailedGetResourceMetric",
            Self::FailedGetContainerResourceMetric => "FailedGetContainerResourceMetric",
            Self::FailedGetPodsMetric => "FailedGetPodsMetric",
            Self::FailedGetObjectMetric => "FailedGetObjectMetric",
            Self::FailedGetExternalMetric => "FailedGetExternalMetric",
        }
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
