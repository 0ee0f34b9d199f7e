//! What is simulated: a manifest as users have it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dormouse_model::{Behavior, MetricSpec};
use dormouse_scaling::hpa;
use serde::Deserialize;

/// The only kind that says all that a simulation needs so far.
const KIND: &str = "HorizontalPodAutoscaler";
const API_VERSION: &str = "autoscaling/v2";

/// A target to simulate.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    pub min_replicas: i32,
    pub max_replicas: i32,
    pub metrics: Vec<MetricSpec>,
    pub behavior: Option<Behavior>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
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
    min_replicas: Option<i32>,
    max_replicas: i32,
    #[serde(default)]
    metrics: Vec<MetricSpec>,
    behavior: Option<Behavior>,
}

impl Target {
    /// Reads a manifest.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let kind: Kind = serde_yaml::from_str(text).context("it is no Kubernetes manifest")?;
        ensure!(
            kind.kind == KIND && kind.api_version == API_VERSION,
            "{} of {} cannot be simulated; a {KIND} of {API_VERSION} can",
            kind.kind,
            kind.api_version
        );
        let manifest: Manifest = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|error| {
            let path = error.path().to_string();
            anyhow::Error::new(error.into_inner()).context(format!("field {path}"))
        })?;
        let spec = manifest.spec;
        let target = Self {
            name: manifest.metadata.name,
            min_replicas: spec.min_replicas.unwrap_or(1),
            max_replicas: spec.max_replicas,
            metrics: if spec.metrics.is_empty() {
                hpa::default_metrics()
            } else {
                spec.metrics
            },
            behavior: spec.behavior,
        };
        target.check()?;
        Ok(target)
    }

    fn check(&self) -> Result<()> {
        let (min, max) = (self.min_replicas, self.max_replicas);
        ensure!(min >= 0, "spec.minReplicas is {min}: it must be at least 0");
        ensure!(max >= 1, "spec.maxReplicas is {max}: it must be at least 1");
        ensure!(
            min <= max,
            "spec.minReplicas is {min} and spec.maxReplicas {max}: the least is more than the most"
        );
        let mut columns = BTreeSet::new();
        for column in self.metrics.iter().map(column) {
            ensure!(
                columns.insert(column.clone()),
                "two metrics are called {column}: readings have one column of that name"
            );
        }
        Ok(())
    }
}

/// The column of the readings that a metric is in.
pub(super) fn column(metric: &MetricSpec) -> String {
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn manifest(spec: &str) -> String {
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec: {spec}\n"
        )
    }

    #[test]
    fn a_manifest_without_metrics_is_about_cpu() {
        let target = Target::parse(&manifest(
            "{scaleTargetRef: {kind: Deployment, name: web}, maxReplicas: 5}",
        ))
        .unwrap();
        assert_eq!((target.min_replicas, target.max_replicas), (1, 5));
        assert_eq!(target.metrics.iter().map(column).collect::<Vec<_>>(), ["cpu"]);
    }

    #[rstest]
    #[case::another_kind(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
        "Service of v1 cannot be simulated"
    )]
    #[case::no_manifest("- a\n", "no Kubernetes manifest")]
    #[case::a_wrong_type(&manifest("{maxReplicas: many}"), "spec.maxReplicas")]
    #[case::bounds_that_cross(&manifest("{minReplicas: 5, maxReplicas: 2}"), "the least is more than the most")]
    #[case::no_room(&manifest("{maxReplicas: 0}"), "at least 1")]
    #[case::one_column_for_two(
        &manifest("{maxReplicas: 3, metrics: [{type: External, external: {metric: {name: lag}, target: {type: Value, value: 1}}},
            {type: External, external: {metric: {name: lag}, target: {type: AverageValue, averageValue: 1}}}]}"),
        "two metrics are called lag"
    )]
    fn what_cannot_be_simulated_says_why(#[case] text: &str, #[case] says: &str) {
        let error = format!("{:#}", Target::parse(text).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}
