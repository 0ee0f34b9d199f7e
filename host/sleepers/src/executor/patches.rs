//! What is written to Services and their slices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dormouse_kubernetes::services::current_selector;
use dormouse_kubernetes::slices::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use dormouse_lifecycle::{Epoch, OwnSlice};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use crate::api::{
    FENCE, FENCE_LABEL, GENERATION, MANAGED_BY, PARKED_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS, Sleeper,
};
use crate::slices::own_slice_name;
use crate::stamps::{as_label, restamped, stamped};

/// Dormouse's slice of a Service. Each address is said to be on its node, so that nodes know which endpoints are theirs: a
/// Service with `externalTrafficPolicy: Local` needs that. Owned by the Sleeper: a create that is sent late, after the Sleeper has gone, is then
/// collected as garbage.
pub(crate) fn slice(
    sleeper: &Sleeper,
    service: &str,
    wanted: &OwnSlice,
    nodes: &BTreeMap<IpAddr, String>,
) -> EndpointSlice {
    let all_six = !wanted.addresses.is_empty() && wanted.addresses.iter().all(std::net::IpAddr::is_ipv6);
    let uid = sleeper.uid().unwrap_or_default();
    let labels = [(SERVICE_NAME_LABEL, service), (MANAGED_BY_LABEL, MANAGED_BY)];
    let generation = wanted
        .generation
        .map(|generation| (GENERATION.to_owned(), stamped(generation, &uid)));
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(own_slice_name(service)),
            namespace: sleeper.namespace(),
            labels: Some(
                labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            annotations: Some(generation.into_iter().collect()),
            owner_references: Some(vec![OwnerReference {
                api_version: Sleeper::api_version(&()).into_owned(),
                kind: Sleeper::kind(&()).into_owned(),
                name: sleeper.name_any(),
                uid,
                controller: None,
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        address_type: if all_six { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(
            wanted
                .addresses
                .iter()
                .map(|address| Endpoint {
                    addresses: vec![address.to_string()],
                    node_name: nodes.get(address).cloned(),
                    conditions: Some(EndpointConditions {
                        ready: Some(true),
                        serving: Some(true),
                        terminating: Some(false),
                    }),
                    ..Endpoint::default()
                })
                .collect(),
        ),
        ports: Some(
            wanted
                .ports
                .iter()
                .map(|(name, port)| EndpointPort {
                    name: Some(name.clone()),
                    port: Some(i32::from(*port)),
                    protocol: Some("TCP".to_owned()),
                    app_protocol: None,
                })
                .collect(),
        ),
    }
}

/// Replaces the whole selector by one that no pod matches, and keeps the original where a person finds it.
pub(super) fn park_patch(service: &Service, original: &BTreeMap<String, String>, sleeper: &Sleeper) -> Value {
    let kept = serde_json::to_string(original).unwrap_or_default();
    let now = current_selector(service).cloned().unwrap_or_default();
    let mut selector: Map<_, _> = now.into_keys().map(|key| (key, Value::Null)).collect();
    selector.insert(PARKED_LABEL.to_owned(), sleeper.name_any().into());
    let workloads = serde_json::to_string(&sleeper.spec.workloads).unwrap_or_default();
    json!({
        "metadata": {"resourceVersion": service.resource_version(), "annotations": {
            PARKED_SELECTOR: kept,
            PARKED_WORKLOADS: workloads,
        }},
        "spec": {"selector": selector},
    })
}

/// Puts exactly the original selector back, with the fence of the wake that does it.
pub(super) fn restore_patch(service: &Service, original: &BTreeMap<String, String>, fence: &Fence) -> Value {
    let now = current_selector(service).cloned().unwrap_or_default();
    let mut selector: Map<_, _> = now.into_keys().map(|key| (key, Value::Null)).collect();
    selector.extend(
        original
            .iter()
            .map(|(key, value)| (key.clone(), Value::String(value.clone()))),
    );
    json!({
        "metadata": {"resourceVersion": service.resource_version(), "annotations": {
            PARKED_SELECTOR: null,
            PARKED_WORKLOADS: null,
            FENCE: fence.all,
        }, "labels": {FENCE_LABEL: fence.label}},
        "spec": {"selector": selector},
    })
}

/// What a wake writes on a Service.
pub(super) struct Fence {
    /// The annotation: the stamps of all who share it.
    pub(super) all: String,
    /// The label: only the one of this wake.
    pub(super) label: String,
}

impl Fence {
    pub(super) fn new(service: &Service, epoch: Epoch, uid: &str) -> Self {
        Self {
            all: restamped(service.annotations(), FENCE, epoch, uid),
            label: as_label(&stamped(epoch, uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Sleeper {
        Sleeper::new("web.workloads", crate::SleeperSpec::default())
    }

    fn service(selector: &Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "resourceVersion": "5"},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        }))
        .unwrap()
    }

    /// RFC 7386, which is all that these patches use.
    fn merge(target: &mut Value, patch: &Value) {
        let Some(fields) = patch.as_object() else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, value) in fields {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                merge(&mut target[key.as_str()], value);
            }
        }
    }

    #[test]
    fn parking_and_restoring_gives_the_same_service() {
        let before = service(&json!({"app": "web", "tier": "front"}));
        let original = current_selector(&before).cloned().unwrap();
        let mut value = serde_json::to_value(&before).unwrap();
        merge(&mut value, &park_patch(&before, &original, &sleeper()));
        let parked: Service = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(value["spec"]["selector"], json!({PARKED_LABEL: "web.workloads"}));
        assert_eq!(
            value["metadata"]["annotations"][PARKED_SELECTOR],
            r#"{"app":"web","tier":"front"}"#
        );
        merge(
            &mut value,
            &restore_patch(&parked, &original, &Fence::new(&parked, 1, "u")),
        );
        let mut restored: Service = serde_json::from_value(value).unwrap();
        let annotations = restored.metadata.annotations.take().unwrap_or_default();
        assert_eq!(
            annotations.into_iter().collect::<Vec<_>>(),
            [(FENCE.to_owned(), "1@u".to_owned())]
        );
        let labels = restored.metadata.labels.take().unwrap_or_default();
        assert_eq!(
            labels.into_iter().collect::<Vec<_>>(),
            [(FENCE_LABEL.to_owned(), "1.u".to_owned())]
        );
        assert_eq!(restored, before);
    }

    #[test]
    fn patches_are_conditional_on_the_version_that_was_seen() {
        let seen = service(&json!({"app": "web"}));
        assert_eq!(
            park_patch(&seen, &BTreeMap::new(), &sleeper())["metadata"]["resourceVersion"],
            "5"
        );
        assert_eq!(
            restore_patch(&seen, &BTreeMap::new(), &Fence::new(&seen, 1, "u"))["metadata"]["resourceVersion"],
            "5"
        );
    }
}
