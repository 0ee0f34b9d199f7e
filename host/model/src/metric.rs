//! What a target is scaled by: `metrics` of autoscaling/v2.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Quantity;

/// A metric and what it should be. The JSON is that of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum MetricSpec {
    /// What the pods use of a resource.
    Resource {
        /// Which resource, and its target.
        resource: ResourceMetric,
    },
    /// What one container of each pod uses of a resource.
    ContainerResource {
        /// Which resource of which container, and its target.
        container_resource: ContainerResourceMetric,
    },
    /// What the pods report about themselves, averaged.
    Pods {
        /// Which metric, and its target.
        pods: PodsMetric,
    },
    /// What is known of one object.
    Object {
        /// Which metric of which object, and its target.
        object: ObjectMetric,
    },
    /// What a system outside of the cluster knows, summed.
    External {
        /// Which metric, and its target.
        external: ExternalMetric,
    },
}

/// A resource that pods use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceMetric {
    /// `cpu`, `memory` or another name.
    pub name: String,
    /// What it should be.
    pub target: MetricTarget,
}

/// A resource that a container uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResourceMetric {
    /// `cpu`, `memory` or another name.
    pub name: String,
    /// Name of the container.
    pub container: String,
    /// What it should be.
    pub target: MetricTarget,
}

/// A metric that every pod has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodsMetric {
    /// Which.
    pub metric: MetricIdentifier,
    /// What its average should be.
    pub target: MetricTarget,
}

/// A metric of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMetric {
    /// The object.
    pub described_object: DescribedObject,
    /// Which metric of it.
    pub metric: MetricIdentifier,
    /// What it should be.
    pub target: MetricTarget,
}

/// A metric of the external metrics API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalMetric {
    /// Which.
    pub metric: MetricIdentifier,
    /// What its sum should be.
    pub target: MetricTarget,
}

/// The object that a metric describes, in the namespace of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribedObject {
    /// Group and version, such as `networking.k8s.io/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind, such as `Ingress`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// Name of a metric, and which of its series are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricIdentifier {
    /// Name.
    pub name: String,
    /// Which series. None: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<MetricSelector>,
}

/// Which series of a metric are meant, by their labels. All requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSelector {
    /// Labels with given values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Other requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// What the operator compares with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What a metric should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TargetFields", into = "TargetFields")]
pub enum MetricTarget {
    /// This in total.
    Value(Quantity),
    /// This per pod.
    AverageValue(Quantity),
    /// This percentage of what the pods request.
    Utilization(i32),
}

/// A target whose type and value do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a metric target of type {kind} needs {field}")]
pub struct MetricTargetError {
    kind: &'static str,
    field: &'static str,
}

/// The fields of a target in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetFields {
    #[serde(rename = "type")]
    kind: TargetKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    average_utilization: Option<i32>,
}

#[derive(Serialize, Deserialize)]
enum TargetKind {
    Value,
    AverageValue,
    Utilization,
}

impl TryFrom<TargetFields> for MetricTarget {
    type Error = MetricTargetError;

    fn try_from(fields: TargetFields) -> Result<Self, MetricTargetError> {
        let (target, kind, field) = match fields.kind {
            TargetKind::Value => (fields.value.map(Self::Value), "Value", "value"),
            TargetKind::AverageValue => (
                fields.average_value.map(Self::AverageValue),
                "AverageValue",
                "averageValue",
            ),
            TargetKind::Utilization => (
                fields.average_utilization.map(Self::Utilization),
                "Utilization",
                "averageUtilization",
            ),
        };
        target.ok_or(MetricTargetError { kind, field })
    }
}

impl From<MetricTarget> for TargetFields {
    fn from(target: MetricTarget) -> Self {
        let fields = |kind| Self {
            kind,
            value: None,
            average_value: None,
            average_utilization: None,
        };
        match target {
            MetricTarget::Value(value) => Self {
                value: Some(value),
                ..fields(TargetKind::Value)
            },
            MetricTarget::AverageValue(average) => Self {
                average_value: Some(average),
                ..fields(TargetKind::AverageValue)
            },
            MetricTarget::Utilization(percent) => Self {
                average_utilization: Some(percent),
                ..fields(TargetKind::Utilization)
            },
        }
    }
}

impl MetricSpec {
    /// What the metric should be.
    pub fn target(&self) -> MetricTarget {
        match self {
            Self::Resource { resource } => resource.target,
            Self::ContainerResource { container_resource } => container_resource.target,
            Self::Pods { pods } => pods.target,
            Self::Object { object } => object.target,
            Self::External { external } => external.target,
        }
    }

    /// Whether its value is known without any pod, so that a target can come back from zero by it.
    pub fn works_at_zero(&self) -> bool {
        matches!(self, Self::Object { .. } | Self::External { .. })
    }
}

impl fmt::Display for MetricTarget {
    /// `5`, `250m per pod`, `80% of requests`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::AverageValue(average) => write!(f, "{average} per pod"),
            Self::Utilization(percent) => write!(f, "{percent}% of requests"),
        }
    }
}

impl fmt::Display for MetricSpec {
    /// `resource cpu`, `memory of container app`, `pods metric qps`, `metric hits of Ingress main`, `external metric backlog`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource { resource } => write!(f, "resource {}", resource.name),
            Self::ContainerResource {
                container_resource: ContainerResourceMetric { name, container, .. },
            } => write!(f, "{name} of container {container}"),
            Self::Pods { pods } => write!(f, "pods metric {}", pods.metric.name),
            Self::Object { object } => write!(
                f,
                "metric {} of {} {}",
                object.metric.name, object.described_object.kind, object.described_object.name
            ),
            Self::External { external } => write!(f, "external metric {}", external.metric.name),
        }
    }
}
