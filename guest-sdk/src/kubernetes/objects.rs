//! The few kinds that nearly every scaler reads, with the fields that matter and no more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{List, ObjectKey};
use crate::{ObjectRef, ResourceId, ScaleEvent, ScaleEventKind, State};

/// The label that a parked selector asks for; no pod carries it.
const PARKED_LABEL: &str = "dormouse.dev/parked";
/// On a Service: the selector that was there before it was parked, as JSON.
const PARKED_SELECTOR: &str = "dormouse.dev/parked-selector";

/// An object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Unique over time: an object that is deleted and made anew has another.
    pub uid: String,
    /// Changes with every write.
    pub resource_version: String,
    /// Rises with every change of the spec.
    pub generation: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was made.
    pub creation_timestamp: Option<Timestamp>,
    /// When it was asked to go.
    pub deletion_timestamp: Option<Timestamp>,
}

/// Anything with a scale subresource: a Deployment, a StatefulSet, or a kind of one's own with `spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Metadata.
    pub metadata: Metadata,
    /// What it should be.
    pub spec: WorkloadSpec,
    /// What it is.
    pub status: WorkloadStatus,
}

/// What a workload should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// Wished replicas; none means one.
    pub replicas: Option<i64>,
    /// What its pods look like.
    pub template: PodTemplate,
    /// How a StatefulSet brings in a new version.
    pub update_strategy: UpdateStrategy,
}

/// What the pods of a workload look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Their labels are here.
    pub metadata: Metadata,
}

/// How a StatefulSet brings in a new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Parameters of a rolling update.
    pub rolling_update: Option<RollingUpdate>,
}

/// Parameters of a rolling update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// Pods with a lower ordinal keep the old version.
    pub partition: Option<i64>,
}

/// What a workload is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// The generation that this status is about.
    pub observed_generation: Option<i64>,
    /// Pods.
    pub replicas: Option<i64>,
    /// Pods of the newest version.
    pub updated_replicas: Option<i64>,
    /// Pods that are ready.
    pub ready_replicas: Option<i64>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Such as `Progressing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When it last changed its status.
    pub last_transition_time: Option<Timestamp>,
    /// When it was last written. Deployments only.
    pub last_update_time: Option<Timestamp>,
}

impl Workload {
    /// The fields that [`Workload`] reads.
    pub const FIELDS: [&str; 12] = [
        "metadata.generation",
        "metadata.labels",
        "metadata.annotations",
        "metadata.deletionTimestamp",
        "spec.replicas",
        "spec.template.metadata.labels",
        "spec.updateStrategy",
        "status.observedGeneration",
        "status.replicas",
        "status.updatedReplicas",
        "status.readyReplicas",
        "status.conditions",
    ];

    /// A list of workloads of a kind, with the fields that [`Workload`] reads.
    pub fn list(api_version: impl Into<String>, kind: impl Into<String>) -> List<Self> {
        List::new(api_version, kind).fields(Self::FIELDS)
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// As other objects name it.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(&self.api_version, &self.kind, self.name())
    }

    /// Its key, for reading or for Events.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.api_version, &self.kind, self.namespace(), self.name())
    }

    /// A resource of the same name.
    pub fn id(&self) -> ResourceId {
        ResourceId::new(self.namespace(), self.name())
    }

    /// Whether it is on its way out. Such a workload is no longer a resource.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Replicas that it should have.
    pub fn replicas(&self) -> i64 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Asleep at zero replicas, else awake; also while a new version rolls out (see [`last_event`](Self::last_event)).
    pub fn state(&self) -> State {
        if self.replicas() == 0 {
            State::Asleep
        } else {
            State::Awake
        }
    }

    /// Whether a new version is being brought in.
    pub fn is_rolling_out(&self) -> bool {
        self.is_unobserved() || self.updated_replicas() < self.replicas_to_update()
    }

    /// Its controller has not yet seen the newest spec.
    fn is_unobserved(&self) -> bool {
        match (self.status.observed_generation, self.metadata.generation) {
            (Some(observed), Some(generation)) => observed < generation,
            _ => false,
        }
    }

    /// How many pods the newest version shall have. Only known for the built-in kinds that count them.
    fn replicas_to_update(&self) -> i64 {
        let counts = self.api_version.starts_with("apps/") && self.status.observed_generation.is_some();
        let strategy = &self.spec.update_strategy;
        if !counts || strategy.kind.as_deref() == Some("OnDelete") {
            return 0;
        }
        self.replicas()
            - strategy
                .rolling_update
                .as_ref()
                .and_then(|update| update.partition)
                .unwrap_or(0)
    }

    /// Controllers leave out a count of zero.
    fn updated_replicas(&self) -> i64 {
        self.status.updated_replicas.unwrap_or(0)
    }

    /// When it was last updated, so that the host leaves it alone for a while: the last word of its `Progressing`
    /// condition. Without one, during a rollout: the newest transition of any condition, or now.
    pub fn last_event(&self) -> Option<ScaleEvent> {
        let updated = |at| {
            Some(ScaleEvent {
                kind: ScaleEventKind::ResourceUpdated,
                at,
            })
        };
        if self.state() == State::Asleep {
            return None;
        }
        if self.is_unobserved() {
            // Whatever the conditions say is about the version before.
            return updated(Timestamp::now());
        }
        let conditions = &self.status.conditions;
        let times = |condition: &Condition| condition.last_update_time.max(condition.last_transition_time);
        let progressing = conditions
            .iter()
            .find(|condition| condition.kind == "Progressing")
            .and_then(times);
        if let Some(at) = progressing {
            return updated(at);
        }
        if self.is_rolling_out() {
            return updated(
                conditions
                    .iter()
                    .filter_map(times)
                    .max()
                    .unwrap_or_else(Timestamp::now),
            );
        }
        None
    }

    /// The Services, among those given, that lead to its pods when nothing sleeps.
    pub fn services<'a>(&'a self, services: &'a [Service]) -> impl Iterator<Item = &'a Service> {
        let labels = &self.spec.template.metadata.labels;
        services
            .iter()
            .filter(move |service| service.namespace() == self.namespace() && service.selects(labels))
    }
}

/// A Service, as it is when nothing sleeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ServiceObject")]
pub struct Service {
    /// Metadata.
    pub metadata: Metadata,
    /// Which pods it leads to. While a workload sleeps its Services are *parked*: their selector matches nothing, and
    /// the original is kept in an annotation. Here it is always the original, or the Services of everything that
    /// sleeps would be lost.
    pub selector: BTreeMap<String, String>,
    /// `clusterIP: None`: clients know the addresses of its pods, so nobody can step in between.
    pub headless: bool,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub kind: String,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; may be empty when there is only one.
    pub name: String,
    /// Number.
    pub port: u16,
}

/// A Service as the API server stores it.
#[derive(Deserialize)]
struct ServiceObject {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "type")]
    kind: String,
    ports: Vec<ServicePort>,
}

impl From<ServiceObject> for Service {
    fn from(ServiceObject { metadata, spec }: ServiceObject) -> Self {
        let parked = spec.selector.contains_key(PARKED_LABEL);
        let original = || serde_json::from_str(metadata.annotations.get(PARKED_SELECTOR)?).ok();
        Self {
            // A parked Service whose annotation somebody damaged leads nowhere that could be known.
            selector: if parked {
                original().unwrap_or_default()
            } else {
                spec.selector
            },
            headless: spec.cluster_ip == "None",
            kind: spec.kind,
            ports: spec.ports,
            metadata,
        }
    }
}

impl Service {
    /// The fields that [`Service`] reads.
    pub const FIELDS: [&str; 5] = [
        "metadata.annotations",
        "spec.selector",
        "spec.clusterIP",
        "spec.type",
        "spec.ports",
    ];

    /// A list of Services, with the fields that [`Service`] reads.
    pub fn list() -> List<Self> {
        List::new("v1", "Service").fields(Self::FIELDS)
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether it leads to pods with these labels when nothing sleeps. One without a selector leads nowhere.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty()
            && self
                .selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests;
