//! A HorizontalPodAutoscaler.

use std::time::Duration;

use anyhow::Result;
use dormouse_model::{Behavior, MetricSpec};
use dormouse_scaling::hpa;
use serde::Deserialize;

use super::{Declared, File, Target};

pub(super) const KIND: &str = "HorizontalPodAutoscaler";
pub(super) const API_VERSION: &str = "autoscaling/v2";
/// How often kube-controller-manager decides.
pub(super) const EVERY: Duration = Duration::from_secs(15);

/// What decides how many replicas it has.
#[derive(Clone, Debug)]
pub(in crate::simulate) struct Hpa {
    pub metrics: Vec<MetricSpec>,
    pub behavior: Option<Behavior>,
}

#[derive(Deserialize)]
struct Manifest {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    scale_target_ref: Reference,
    min_replicas: Option<i32>,
    max_replicas: i32,
    #[serde(default)]
    metrics: Vec<MetricSpec>,
    behavior: Option<Behavior>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    kind: String,
    name: String,
}

pub(super) fn read(file: &File<'_>, index: usize) -> Result<Target> {
    let Manifest { metadata, spec } = file.document(index)?;
    let metrics = if spec.metrics.is_empty() {
        hpa::default_metrics()
    } else {
        spec.metrics
    };
    let workload = spec.scale_target_ref;
    let (replicas, pod) = file.pods_of(&workload.kind, &workload.name)?;
    Ok(Target {
        name: metadata.name,
        min_replicas: spec.min_replicas.unwrap_or(1),
        max_replicas: Some(spec.max_replicas),
        declared: Declared::Hpa(Hpa {
            metrics,
            behavior: spec.behavior,
        }),
        pod,
        replicas,
        corrections: Vec::new(),
    })
}

/// The column of the readings that a metric is in.
pub(in crate::simulate) fn column(metric: &MetricSpec) -> String {
    match metric {
        MetricSpec::Resource { resource } => resource.name.clone(),
        MetricSpec::ContainerResource { container_resource } => {
            format!("{}/{}", container_resource.container, container_resource.name)
        }
        MetricSpec::Pods { pods } => pods.metric.name.clone(),
        MetricSpec::Object { object } => object.metric.name.clone(),
        MetricSpec::External { external } => external.metric.name.clone(),
    }
}
