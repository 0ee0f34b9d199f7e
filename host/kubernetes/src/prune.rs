//! What is kept of each watched kind, and by what it is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, Pod, PodSpec, PodStatus, Service, ServiceStatus,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressStatus};
use kube::ResourceExt;
use kube::core::ObjectMeta;

use crate::cache::{Cache, Cached, Change, IndexKey, WatchedKind, label_keys};
use crate::services::{current_selector, selects};
use crate::slices::SERVICE_NAME_LABEL;

/// What `kubectl apply` was last given: as long as the object, and nobody reads it here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// When a pod or Service last changed because of which a slice was written.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Equal but for the version.
fn same_but_version<K: kube::Resource + Clone + PartialEq>(one: &K, other: &K) -> bool {
    let mut one = one.clone();
    one.meta_mut()
        .resource_version
        .clone_from(&other.meta().resource_version);
    one == *other
}

impl Cached for Service {
    const KIND: WatchedKind = WatchedKind::SERVICE;

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.annotations_mut().remove(LAST_APPLIED);
        self.status = None::<ServiceStatus>;
    }

    fn same(&self, other: &Self) -> bool {
        same_but_version(self, other)
    }

    fn index(&self) -> Vec<IndexKey> {
        let namespace = self.namespace().unwrap_or_default();
        let place = current_selector(self).and_then(|selector| selector.last_key_value());
        let place = place.map(|(key, value)| selecting(&namespace, key, value));
        place.into_iter().collect()
    }
}

impl Cached for EndpointSlice {
    const KIND: WatchedKind = WatchedKind::ENDPOINT_SLICE;

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        // Changes with every pod, and nobody reads it.
        self.annotations_mut().remove(LAST_CHANGE);
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.hints = None;
            endpoint.zone = None;
            endpoint.deprecated_topology = None;
        }
    }

    fn same(&self, other: &Self) -> bool {
        same_but_version(self, other)
    }

    fn index(&self) -> Vec<IndexKey> {
        let namespace = self.namespace().unwrap_or_default();
        let service = self.labels().get(SERVICE_NAME_LABEL);
        service
            .map(|service| IndexKey::label(&namespace, SERVICE_NAME_LABEL, service))
            .into_iter()
            .collect()
    }

    fn change(&self) -> Change {
        let service = self.labels().get(SERVICE_NAME_LABEL).cloned();
        Change {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: service.unwrap_or_else(|| self.name_any()),
            labels: None,
        }
    }
}

impl Cached for Ingress {
    const KIND: WatchedKind = WatchedKind::INGRESS;

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.annotations_mut().remove(LAST_APPLIED);
        self.status = None::<IngressStatus>;
    }

    fn same(&self, other: &Self) -> bool {
        same_but_version(self, other)
    }
}

impl Cached for Pod {
    const KIND: WatchedKind = WatchedKind::POD;

    fn prune(&mut self) {
        self.metadata = ObjectMeta {
            name: self.metadata.name.take(),
            namespace: self.metadata.namespace.take(),
            uid: self.metadata.uid.take(),
            labels: self.metadata.labels.take(),
            creation_timestamp: self.metadata.creation_timestamp.take(),
            deletion_timestamp: self.metadata.deletion_timestamp.take(),
            deletion_grace_period_seconds: self.metadata.deletion_grace_period_seconds.take(),
            owner_references: self.metadata.owner_references.take().map(|mut owners| {
                owners.retain(|owner| owner.controller == Some(true));
                owners
            }),
            ..ObjectMeta::default()
        };
        self.spec = self.spec.take().map(|spec| PodSpec {
            // Sidecars are init containers, and a named target port may be one of theirs.
            containers: spec
                .containers
                .into_iter()
                .chain(spec.init_containers.into_iter().flatten())
                .map(ports_only)
                .collect(),
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|status| PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            message: status.message,
            conditions: status.conditions.map(|conditions| {
                conditions
                    .into_iter()
                    // `PodScheduled` says why a pod cannot start.
                    .filter(|c| c.type_ == "Ready" || (c.type_ == "PodScheduled" && c.status == "False"))
                    .map(|mut condition| {
                        condition.last_probe_time = None;
                        condition.last_transition_time = None;
                        condition
                    })
                    .collect()
            }),
            container_statuses: status
                .container_statuses
                .map(|statuses| statuses.into_iter().filter_map(waiting_only).collect()),
            ..PodStatus::default()
        });
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }

    fn index(&self) -> Vec<IndexKey> {
        label_keys(self)
    }

    fn change(&self) -> Change {
        Change {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            labels: Some(Arc::new(self.labels().clone())),
        }
    }
}

/// Only what it scales, and to how little.
impl Cached for HorizontalPodAutoscaler {
    const KIND: WatchedKind = WatchedKind::HORIZONTAL_POD_AUTOSCALER;

    fn prune(&mut self) {
        self.metadata = ObjectMeta {
            name: self.metadata.name.take(),
            namespace: self.metadata.namespace.take(),
            ..ObjectMeta::default()
        };
        self.spec.metrics = None;
        self.spec.behavior = None;
        self.status = None;
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }

    fn index(&self) -> Vec<IndexKey> {
        let target = &self.spec.scale_target_ref;
        vec![scaled_by(
            &self.namespace().unwrap_or_default(),
            &target.kind,
            &target.name,
        )]
    }

    fn change(&self) -> Change {
        Change {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.spec.scale_target_ref.name.clone(),
            labels: None,
        }
    }
}

/// Services whose selector has this label as its last. Those that select an object are found by its labels, one after the other.
fn selecting(namespace: &str, key: &str, value: &str) -> IndexKey {
    IndexKey::of(("selects", namespace, key, value))
}

impl Cache<Service> {
    /// Services of a namespace that select an object with these labels.
    pub fn selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Service>> {
        let places = labels.iter().map(|(key, value)| selecting(namespace, key, value));
        let mut found: Vec<_> = places.flat_map(|place| self.with(place)).collect();
        found.retain(|service| {
            service.namespace().as_deref() == Some(namespace)
                && current_selector(service).is_some_and(|selector| selects(selector, labels))
        });
        found
    }
}

/// HorizontalPodAutoscalers that scale an object.
pub fn scaled_by(namespace: &str, kind: &str, name: &str) -> IndexKey {
    IndexKey::of(("scales", namespace, kind, name))
}

fn ports_only(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        ..Container::default()
    }
}

/// Only containers that wait say something: why.
fn waiting_only(status: ContainerStatus) -> Option<ContainerStatus> {
    let waiting = status.state?.waiting?;
    Some(ContainerStatus {
        name: status.name,
        state: Some(ContainerState {
            waiting: Some(waiting),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_what_is_used_and_loses_the_rest() {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "web-1", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "web"}, "annotations": {"long": "text"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "http", "containerPort": 8080}]}],
                "initContainers": [{"name": "side", "restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 9}]}],
            },
            "status": {
                "phase": "Pending", "podIP": "127.0.0.9",
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                               {"type": "Initialized", "status": "True"}],
                "containerStatuses": [
                    {"name": "c", "ready": false, "restartCount": 3, "image": "i", "imageID": "x",
                     "state": {"waiting": {"reason": "ImagePullBackOff"}}},
                    {"name": "d", "ready": true, "restartCount": 3, "image": "i", "imageID": "x", "state": {"running": {}}},
                ],
            },
        }))
        .unwrap();
        pod.prune();
        assert!(pod.metadata.annotations.is_none() && pod.metadata.resource_version.is_none());
        assert_eq!(pod.metadata.uid.as_deref(), Some("u"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.containers.len(), 2);
        assert!(
            spec.containers
                .iter()
                .all(|c| c.image.is_none() && c.env.is_none() && c.ports.is_some())
        );
        let status = pod.status.unwrap();
        assert_eq!(status.conditions.map(|c| c.len()), Some(1));
        assert_eq!(status.container_statuses.map(|c| c.len()), Some(1));
        assert_eq!(status.pod_ip.as_deref(), Some("127.0.0.9"));
    }
}
