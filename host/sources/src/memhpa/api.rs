//! The custom resource `MemHpa`.

use dormouse_kubernetes::{Cached, WatchedKind};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sleep::PREFIX;

/// What is scaled, within which bounds, and what its pods should use of their memory limits.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "xinhuang.com",
    version = "v1",
    kind = "MemHpa",
    plural = "memhpas",
    namespaced,
    status = "MemHpaStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Scales a workload by what its pods use of their memory limits.",
    printcolumn = r#"{"name":"KIND","type":"string","jsonPath":".spec.scaleTargetRef.kind"}"#,
    printcolumn = r#"{"name":"TARGET","type":"string","jsonPath":".spec.scaleTargetRef.name"}"#,
    printcolumn = r#"{"name":"UTILIZATION","type":"integer","jsonPath":".status.currentCPUUtilizationPercentage"}"#,
    printcolumn = r#"{"name":"GOAL","type":"integer","jsonPath":".spec.targetUtilizationPercentage"}"#,
    printcolumn = r#"{"name":"MIN","type":"integer","jsonPath":".spec.minReplicas"}"#,
    printcolumn = r#"{"name":"MAX","type":"integer","jsonPath":".spec.maxReplicas"}"#,
    printcolumn = r#"{"name":"REPLICAS","type":"integer","jsonPath":".status.currentReplicas"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MemHpaSpec {
    /// What is scaled: anything with a scale subresource.
    #[serde(default)]
    pub scale_target_ref: ScaleTargetRef,
    /// The fewest replicas while it is up. Without it, and below 1, it is taken for 1; 0 is right for one that may sleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The most replicas. Below the minimum it is taken for the minimum and 4 more.
    #[serde(default)]
    pub max_replicas: i32,
    /// Which share of their memory limits the pods should use, in percent. Without it, and outside of 1 to 100, it is taken for 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_utilization_percentage: Option<i32>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleTargetRef {
    /// Group and version. Those that Kubernetes has removed mean their successors; none means that of the kind in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MemHpaStatus {
    /// The generation of the object that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the number of replicas was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// How many replicas there were at the last decision.
    pub current_replicas: i32,
    /// How many there should be.
    pub desired_replicas: i32,
    /// What the pods use of their memory limits, in percent; 0 where it was not looked at. MemHpa calls it so, though it is about memory.
    #[serde(
        rename = "currentCPUUtilizationPercentage",
        skip_serializing_if = "Option::is_none"
    )]
    pub current_utilization: Option<i32>,
    /// Why there should be so many, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// `AbleToScale` and `ScalingActive`, as a HorizontalPodAutoscaler has them, and `AbleToSleep` of one that asks for sleep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Cached for MemHpa {
    const KIND: WatchedKind = WatchedKind::of("memhpas.xinhuang.com");

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.annotations_mut().retain(|key, _| key.starts_with(PREFIX));
    }

    fn same(&self, other: &Self) -> bool {
        let going = |one: &Self| one.metadata.deletion_timestamp.is_some();
        self.uid() == other.uid()
            && self.spec == other.spec
            && self.status == other.status
            && self.annotations() == other.annotations()
            && going(self) == going(other)
    }
}

/// The definition.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = MemHpa::crd();
    crd.spec.names.categories = Some(vec!["dormouse".to_owned()]);
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        if let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            without_defaults(schema);
        }
    }
    crd
}

/// Objects stay as their authors wrote them.
fn without_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    for below in schema.properties.iter_mut().flat_map(|all| all.values_mut()) {
        without_defaults(below);
    }
}

/// The definition as YAML, for `kubectl apply -f -` and the chart.
///
/// # Errors
/// None in practice: the definition is made of plain data.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&crd())
}
